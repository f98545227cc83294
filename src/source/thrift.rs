//! The Thrift source: takes events from Thrift clients, such as the Thrift sinks of other agents.
//!
//! Each request is one transaction, and is answered `OK` when its events are in every required channel and `FAILED`
//! when a channel refuses them. Requests of a connection are answered in their order. A request that is well formed but
//! not allowed (a missing field, an unknown method) is answered with an exception and the
//! connection goes on; bytes that are no message end it.
//!
//! Keys: `bind`, `port`, `protocol` (compact, or binary; clients of the other one are understood all the same), those of [TLS](crate::tls). `threads` has nothing to do, as no
//! connection has a thread;
//! `kerberos = true` is refused. Not Flume's: `max-connections` (20000; more clients wait in the kernel's queue),
//! `max-frame-bytes` (16384000, libthrift's limit; all clients together have room for four of the largest requests at
//! once), `frame-timeout` (60 seconds: how long a request may take to come in, or answers to be read, with a second more
//! for each 64 KiB).

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ChannelProcessor, Source, SourceBuilder, SourceConfig, SourceError};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::logging::Excerpt;
use crate::net;
use crate::rpc::memory::Memory;
use crate::rpc::server::{self, ConnectionError, Limits, Service};
use crate::rpc::thrift::{
    DecodeError, Exception, ExceptionKind, FrameError, FrameReader, MAX_FRAME_BYTES, Message, Method, Protocol, Reply,
    Status,
};
use crate::rpc::transport::ServerLayers;
use crate::tls;

/// How the type is registered.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["thrift"],
    class: "org.apache.flume.source.ThriftSource",
    build: |props| Some(Box::new(Arc::new(ThriftConfig::from_props(props)?))),
};

const MAX_CONNECTIONS: i32 = 20_000;
const FRAME_TIMEOUT_SECONDS: i32 = 60;

struct ThriftConfig {
    bind: String,
    port: u16,
    protocol: Protocol,
    max_connections: usize,
    limits: Limits,
    layers: ServerLayers,
}

impl ThriftConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let threads = props.text("threads").unwrap_or_default();
        let flume = format!("Thrift source's \"threads\" property must specify an integer value: {threads}");
        props.lenient("threads", 0i32, |_| true, "a whole number", &flume);
        let protocol = Protocol::named(&props.or("protocol", Protocol::Compact.to_string()));
        if protocol.is_none() {
            let flume = "binary or compact are the only valid Thrift protocol types to choose from.";
            props.error("protocol", "binary or compact", flume);
        }
        if props.or("kerberos", false) {
            props.error("kerberos", "false, as Kerberos is not in this version", "");
        }
        for key in ["agent-principal", "agent-keytab"] {
            props.text(key);
        }
        let bind_missing = "Bind address must be specified for Thrift Source.";
        props.finish(Self {
            port: props.required("port", "a port to listen on", "Port must be specified for Thrift Source."),
            bind: props.required("bind", "a host name or address to listen on", bind_missing),
            protocol: protocol.unwrap_or(Protocol::Compact),
            max_connections: props.positive("max-connections", MAX_CONNECTIONS, "connections"),
            limits: Limits {
                request_bytes: props.positive("max-frame-bytes", MAX_FRAME_BYTES as i32, "bytes"),
                timeout: Duration::from_secs(props.positive("frame-timeout", FRAME_TIMEOUT_SECONDS, "seconds") as u64),
            },
            layers: ServerLayers { tls: tls::acceptor(props), deflate: false },
        })
    }
}

impl SourceConfig for Arc<ThriftConfig> {
    fn batch_size(&self) -> Option<usize> {
        None
    }

    fn build(&self, name: &str) -> Box<dyn Source> {
        Box::new(ThriftSource { name: name.to_owned(), config: Self::clone(self), listener: None })
    }
}

struct ThriftSource {
    name: String,
    config: Arc<ThriftConfig>,
    listener: Option<TcpListener>,
}

#[async_trait]
impl Source for ThriftSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        let ThriftConfig { bind, port, protocol, .. } = &*self.config;
        info!("Starting thrift source");
        let failed = |error| SourceError::io(format!("Cannot start Thrift Source. Address {bind}:{port}"), error);
        let listener = net::listen(bind, *port).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        info!("Using {}", protocol.class());
        info!("Thrift source {} listens on {address}", self.name);
        self.listener = Some(listener);
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        info!("Started Thrift source.");
        let label = format!("Source {}", self.name);
        let memory = Arc::new(Memory::for_requests(self.config.limits.request_bytes));
        net::serve(listener, &label, self.config.max_connections, stop, |stream, peer| {
            let connection = Connection::new(peer, Arc::clone(&self.config), out.clone(), stop.clone());
            let memory = Arc::clone(&memory);
            async move { connection.serve(stream, &memory).await }
        })
        .await;
        Ok(())
    }
}

/// Why what came is of no use.
#[derive(Debug, Error)]
#[error(transparent)]
enum Fault {
    Frame(#[from] FrameError),
    Message(#[from] DecodeError),
}

/// One client.
struct Connection {
    peer: SocketAddr,
    config: Arc<ThriftConfig>,
    out: ChannelProcessor,
    stop: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.out.counters().open_connections.sub(1);
    }
}

impl Connection {
    fn new(peer: SocketAddr, config: Arc<ThriftConfig>, out: ChannelProcessor, stop: CancellationToken) -> Self {
        out.counters().open_connections.add(1);
        Self { peer, config, out, stop }
    }

    async fn serve(mut self, socket: TcpStream, memory: &Memory) {
        let (config, stop) = (Arc::clone(&self.config), self.stop.clone());
        let mut stream = match stop.run_until_cancelled(config.layers.accept(socket)).await {
            None => return,
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return self.disconnect(&error),
        };
        let frames = FrameReader::new(config.limits.request_bytes);
        server::serve(&mut stream, frames, &mut self, &config.limits, memory, &stop).await;
    }

    /// Notes that a connection ends because of its client.
    fn disconnect(&self, why: &dyn Display) {
        let why = Excerpt(why);
        self.out.counters().event_read_fail.add(1);
        if let Some(others) = self.out.may_complain() {
            warn!("Source {}: client {} is disconnected: {why}{others}", self.out.source(), self.peer);
        }
    }

    /// Notes that a request cannot be done.
    fn complain(&self, what: &dyn Display) {
        let what = Excerpt(what);
        self.out.counters().event_read_fail.add(1);
        if let Some(others) = self.out.may_complain() {
            warn!("Source {}: a request of {} is refused: {what}{others}", self.out.source(), self.peer);
        }
    }
}

/// A request that can be executed.
struct Call {
    message: Message,
    method: Method,
    batch: Batch,
}

impl Service for Connection {
    const ENDS_WITH_INPUT: bool = false;
    type Framing = FrameReader;
    type Call = Call;
    type Reply = Status;
    type Fault = Fault;

    fn open(&mut self, frame: Bytes, out: &mut BytesMut) -> Result<Option<Call>, Fault> {
        // In Flume `protocol = Binary` means compact, so that clients of either may come with the same configuration.
        let protocol = Protocol::spoken(&frame).unwrap_or(self.config.protocol);
        let message = Message::read(protocol, frame)?;
        let Some(method) = Method::named(&message.name) else {
            let what = format!("Invalid method name: '{}'", message.name);
            self.complain(&what);
            except(&message, ExceptionKind::UnknownMethod, what, out);
            return Ok(None);
        };
        match message.events(method) {
            Ok(batch) => Ok(Some(Call { message, method, batch })),
            Err(error) => {
                except(&message, ExceptionKind::ProtocolError, error.to_string(), out);
                if !error.is_well_formed() {
                    return Err(error.into());
                }
                self.complain(&error);
                Ok(None)
            }
        }
    }

    async fn execute(&mut self, call: &mut Call) -> Status {
        let Self { out, peer, stop, .. } = self;
        let counters = out.counters();
        let (received, accepted) = match call.method {
            Method::Append => (&counters.append_received, &counters.append_accepted),
            Method::AppendBatch => (&counters.append_batch_received, &counters.append_batch_accepted),
        };
        received.add(1);
        let batch = std::mem::take(&mut call.batch);
        if !batch.is_empty()
            && let Err(error) = out.deliver(batch, stop).await
        {
            if let Some(others) = out.may_complain() {
                let source = out.source();
                warn!("Thrift source {source} could not append events to the channel. Client {peer}: {error}{others}");
            }
            return Status::Failed;
        }
        accepted.add(1);
        Status::Ok
    }

    fn answer(&mut self, call: &Call, status: Status, out: &mut BytesMut) {
        reply(&call.message, &Reply::Status(status), out);
    }

    fn lost(&mut self, why: ConnectionError<Fault>) {
        let ConnectionError::Io(error) = why else { return self.disconnect(&why) };
        self.out.counters().event_read_fail.add(1);
        if let Some(others) = self.out.may_complain() {
            warn!("Source {}: lost the connection from {}: {error}{others}", self.out.source(), self.peer);
        }
    }
}

fn reply(to: &Message, reply: &Reply, out: &mut BytesMut) {
    to.protocol.write_reply(out, &to.name, to.sequence, reply);
}

fn except(to: &Message, kind: ExceptionKind, message: String, out: &mut BytesMut) {
    reply(to, &Reply::Exception(Exception { kind, message }), out);
}
