//! The Thrift source: takes events from Thrift clients, such as the Thrift sinks of other agents.
//!
//! Each request is one transaction, and is answered `OK` when its events are in every required channel and `FAILED`
//! when a channel refuses them. Requests of a connection are answered in their order. A request that is well formed but
//! not allowed (a missing field, an unknown method) is answered with an exception and the
//! connection goes on; bytes that are no message end it.
//!
//! Keys: `bind`, `port`, `protocol` (compact, or binary), those of [TLS](crate::tls). `threads` has nothing to do, as no
//! connection has a thread;
//! `kerberos = true` is refused. Not Flume's: `max-connections` (20000; more clients wait in the kernel's queue),
//! `max-frame-bytes` (16384000, libthrift's limit).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ChannelProcessor, Source, SourceBuilder, SourceConfig, SourceError};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::net::{self, Stream};
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
/// Answers of pipelined requests are sent together, up to so many bytes.
const MAX_ANSWER_BYTES: usize = 16 << 10;

struct ThriftConfig {
    bind: String,
    port: u16,
    protocol: Protocol,
    max_connections: usize,
    max_frame_bytes: usize,
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
            max_frame_bytes: props.positive("max-frame-bytes", MAX_FRAME_BYTES as i32, "bytes"),
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
        net::serve(listener, &label, self.config.max_connections, stop, |stream, peer| {
            let connection = Connection::new(peer, Arc::clone(&self.config), out.clone());
            let stop = stop.clone();
            async move { connection.serve(stream, &stop).await }
        })
        .await;
        Ok(())
    }
}

/// Why a connection cannot go on.
#[derive(Debug, Error)]
enum Fault {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Message(#[from] DecodeError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Handshake(io::Error),
}

struct Connection {
    peer: SocketAddr,
    config: Arc<ThriftConfig>,
    out: ChannelProcessor,
    frames: FrameReader,
    /// Those that have not been sent.
    answers: BytesMut,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.out.counters().open_connections.sub(1);
    }
}

impl Connection {
    fn new(peer: SocketAddr, config: Arc<ThriftConfig>, out: ChannelProcessor) -> Self {
        out.counters().open_connections.add(1);
        let frames = FrameReader::new(config.max_frame_bytes);
        Self { peer, config, out, frames, answers: BytesMut::new() }
    }

    async fn serve(mut self, stream: TcpStream, stop: &CancellationToken) {
        let config = Arc::clone(&self.config);
        match stop.run_until_cancelled(config.layers.accept(stream)).await {
            Some(Ok(stream)) => self.talk(stream, stop).await,
            Some(Err(error)) => self.disconnect(&Fault::Handshake(error)),
            None => {}
        }
    }

    async fn talk(&mut self, mut stream: impl Stream, stop: &CancellationToken) {
        let outcome = self.converse(&mut stream, stop).await;
        if let Err(fault) = &outcome {
            self.disconnect(fault);
        }
        // Requests whose events are in the channel get their answers even now.
        let goodbye = async {
            send(&mut stream, &mut self.answers).await?;
            match outcome {
                Ok(()) => stream.shutdown().await,
                Err(_) => net::close_gently(&mut stream).await,
            }
        };
        // A client that is gone already is none to say goodbye to.
        tokio::time::timeout(net::LAST_ANSWERS, goodbye).await.ok();
    }

    /// Notes that a connection ends because of its client.
    fn disconnect(&self, fault: &Fault) {
        self.out.counters().event_read_fail.add(1);
        let Some(others) = self.out.may_complain() else { return };
        let (source, peer) = (self.out.source(), self.peer);
        match fault {
            Fault::Io(error) | Fault::Frame(FrameError::Io(error)) => {
                warn!("Source {source}: lost the connection from {peer}: {error}{others}");
            }
            fault => warn!("Source {source}: client {peer} is disconnected: {fault}{others}"),
        }
    }

    async fn converse(&mut self, stream: &mut impl Stream, stop: &CancellationToken) -> Result<(), Fault> {
        loop {
            let frame = match self.frames.ready()? {
                Some(frame) if self.answers.len() < MAX_ANSWER_BYTES => frame,
                ready => {
                    // Nothing is waited for with answers in hand.
                    let next = async {
                        send(stream, &mut self.answers).await?;
                        match ready {
                            Some(frame) => Ok(Some(frame)),
                            None => self.frames.next(stream).await,
                        }
                    };
                    match stop.run_until_cancelled(next).await {
                        Some(frame) => match frame? {
                            Some(frame) => frame,
                            None => return Ok(()),
                        },
                        None => return Ok(()),
                    }
                }
            };
            if stop.is_cancelled() {
                return Ok(());
            }
            self.request(stream, frame, stop).await?;
            tokio::task::consume_budget().await;
        }
    }

    /// Does what a frame asks for. The answer is put to those that are to be sent.
    async fn request(&mut self, stream: &mut impl Stream, frame: Bytes, stop: &CancellationToken) -> Result<(), Fault> {
        let frame_bytes = frame.len();
        let message = Message::read(self.config.protocol, frame)?;
        let Some(method) = Method::named(&message.name) else {
            let what = format!("Invalid method name: '{}'", message.name);
            self.complain(&what);
            self.except(&message, ExceptionKind::UnknownMethod, what);
            return Ok(());
        };
        let mut batch = match message.events(method) {
            Ok(batch) => batch,
            Err(error) => {
                self.except(&message, ExceptionKind::ProtocolError, error.to_string());
                if !error.is_well_formed() {
                    return Err(error.into());
                }
                self.complain(&error.to_string());
                return Ok(());
            }
        };
        // Events that are little of what came must not keep all of it.
        if batch.body_bytes() < frame_bytes / 4 {
            batch.repack();
        }
        let status = self.deliver(stream, method, batch, stop).await;
        self.answer(&message, &Reply::Status(status));
        Ok(())
    }

    async fn deliver(
        &mut self,
        stream: &mut impl Stream,
        method: Method,
        batch: Batch,
        stop: &CancellationToken,
    ) -> Status {
        let Self { out, answers, peer, .. } = self;
        let counters = out.counters();
        let (received, accepted) = match method {
            Method::Append => (&counters.append_received, &counters.append_accepted),
            Method::AppendBatch => (&counters.append_batch_received, &counters.append_batch_accepted),
        };
        received.add(1);
        if !batch.is_empty() {
            let delivery = out.deliver(batch, stop);
            tokio::pin!(delivery);
            let outcome = tokio::select! {
                biased;
                outcome = &mut delivery => outcome,
                // Whoever has been answered hears so before this request waits for room. Whether the client can still
                // be reached shows again when the next answers are sent.
                _sent = send(stream, answers) => delivery.await,
            };
            if let Err(error) = outcome {
                if let Some(others) = out.may_complain() {
                    let source = out.source();
                    warn!(
                        "Thrift source {source} could not append events to the channel. Client {peer}: {error}{others}"
                    );
                }
                return Status::Failed;
            }
        }
        accepted.add(1);
        Status::Ok
    }

    fn answer(&mut self, to: &Message, reply: &Reply) {
        self.config.protocol.write_reply(&mut self.answers, &to.name, to.sequence, reply);
    }

    fn except(&mut self, to: &Message, kind: ExceptionKind, message: String) {
        self.answer(to, &Reply::Exception(Exception { kind, message }));
    }

    /// Notes that a request cannot be done.
    fn complain(&self, what: &str) {
        self.out.counters().event_read_fail.add(1);
        if let Some(others) = self.out.may_complain() {
            warn!("Source {}: a request of {} is refused: {what}{others}", self.out.source(), self.peer);
        }
    }
}

/// Sends what is there. Cut off, the rest is still there.
async fn send(stream: &mut impl Stream, answers: &mut BytesMut) -> io::Result<()> {
    stream.write_all_buf(answers).await?;
    stream.flush().await
}
