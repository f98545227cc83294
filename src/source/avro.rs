//! The avro source: events by Avro RPC, from Flume's avro sinks and clients, the log4j appender, and other agents.
//!
//! A request is one transaction, and is answered `OK` once its events are in every required channel; `FAILED` when a
//! channel refuses them. The requests of a connection are executed in their order; Flume since 1.10 executes those
//! that a client sends without waiting in any order.
//!
//! Keys: `bind`, `port`, `threads` (without effect, as in Flume since 1.10), `compression-type` (none, deflate),
//! `ipFilter`, `ipFilterRules`, the keys of [TLS](crate::tls); not Flume's: `max-connections` (20000),
//! `max-frame-bytes` (67108864; all clients together have room for four of the largest requests at once), `frame-timeout`
//! (60 seconds: how long a request may take to come in, or answers to be read, with a second more for each 64 KiB).

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::ip_filter::IpFilter;
use super::{ChannelProcessor, Source, SourceBuilder, SourceConfig, SourceError};
use crate::config::{ComponentType, Props};
use crate::logging::Excerpt;
use crate::net;
use crate::rpc::avro::events::MAX_EVENTS;
use crate::rpc::avro::protocol::AVRO_SOURCE;
use crate::rpc::avro::responder::{Call, java_error};
use crate::rpc::avro::server::{Server, Service};
use crate::rpc::avro::status;
use crate::rpc::event_client::deflate;
use crate::rpc::server::Limits;
use crate::rpc::transport::ServerLayers;
use crate::tls;

/// How the type is registered.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["avro"],
    class: "org.apache.flume.source.AvroSource",
    build: |props| Some(Box::new(Arc::new(AvroConfig::from_props(props)?))),
};

const MAX_CONNECTIONS: i32 = 20_000;
const MAX_FRAME_BYTES: i32 = 64 << 20;
const FRAME_TIMEOUT_SECONDS: i32 = 60;

/// The avro source's keys.
struct AvroConfig {
    bind: String,
    port: u16,
    layers: ServerLayers,
    filter: IpFilter,
    max_connections: usize,
    limits: Limits,
}

impl AvroConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let required = |key: &str| format!("Required parameter {key} must exist and may not be null");
        let flume = "AVRO source's \"threads\" property must specify an integer value.";
        props.lenient("threads", 0, |_| true, "a whole number", flume);
        let config = Self {
            bind: props.required("bind", "a host name or address to listen on", &required("bind")),
            port: props.required("port", "a port to listen on", &required("port")),
            layers: ServerLayers { tls: tls::acceptor(props), deflate: deflate(props) },
            filter: IpFilter::from_props(props),
            max_connections: props.positive("max-connections", MAX_CONNECTIONS, "connections"),
            limits: Limits {
                request_bytes: props.positive("max-frame-bytes", MAX_FRAME_BYTES, "bytes"),
                timeout: Duration::from_secs(props.positive("frame-timeout", FRAME_TIMEOUT_SECONDS, "seconds") as u64),
            },
        };
        props.finish(config)
    }
}

impl SourceConfig for Arc<AvroConfig> {
    fn batch_size(&self) -> Option<usize> {
        None
    }

    fn build(&self, name: &str) -> Box<dyn Source> {
        Box::new(AvroSource { name: name.to_owned(), config: Self::clone(self), listener: None })
    }
}

struct AvroSource {
    name: String,
    config: Arc<AvroConfig>,
    listener: Option<TcpListener>,
}

impl AvroSource {
    /// As Flume prints it.
    fn description(&self) -> String {
        let AvroConfig { bind, port, .. } = &*self.config;
        format!("Avro source {}: {{ bindAddress: {bind}, port: {port} }}", self.name)
    }
}

#[async_trait]
impl Source for AvroSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        info!("Starting {}...", self.description());
        let AvroConfig { bind, port, .. } = &*self.config;
        let listener = net::listen(bind, *port).await.map_err(|error| {
            error!("Avro source {} startup failed. Cannot initialize Netty server", self.name);
            SourceError::io(format!("Failed to set up server socket: {bind}:{port}"), error)
        })?;
        let address = listener.local_addr().map_err(|error| SourceError::io("the socket has no address", error))?;
        info!("Avro source {}: listening on {address}", self.name);
        info!("Avro source {} started.", self.name);
        self.listener = Some(listener);
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let server = Arc::new(Server::new(&AVRO_SOURCE, self.config.limits.clone()));
        let label = format!("Avro source {}", self.name);
        net::serve(listener, &label, self.config.max_connections, stop, |socket, peer| {
            let config = Arc::clone(&self.config);
            let server = Arc::clone(&server);
            let connection = Connection { out: out.clone(), peer, stop: stop.clone() };
            connection.out.counters().open_connections.add(1);
            async move { connection.serve(socket, &config, &server).await }
        })
        .await;
        info!("Avro source {} stopped.", self.name);
        Ok(())
    }
}

/// One client.
struct Connection {
    out: ChannelProcessor,
    peer: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.out.counters().open_connections.sub(1);
    }
}

impl Connection {
    async fn serve(mut self, socket: TcpStream, config: &AvroConfig, server: &Server) {
        let here = socket.local_addr().map_or(self.peer.ip(), |address| address.ip());
        let stop = self.stop.clone();
        let Some(admitted) = stop.run_until_cancelled(config.filter.admits(self.peer, here)).await else { return };
        if !admitted {
            if let Some(others) = self.out.may_complain() {
                info!("Avro source {}: ipFilter refuses {}{others}", self.out.source(), self.peer);
            }
            return;
        }
        let mut stream = match stop.run_until_cancelled(config.layers.accept(socket)).await {
            None => return,
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return self.lost(&error),
        };
        server.serve(&mut stream, &mut self, &stop).await;
    }
}

impl Service for Connection {
    const ENDS_WITH_INPUT: bool = false;

    async fn call(&mut self, call: &Call) -> Result<Vec<u8>, String> {
        let counters = self.out.counters();
        let single = call.message == "append";
        let (received, accepted) = match single {
            true => (&counters.append_received, &counters.append_accepted),
            false => (&counters.append_batch_received, &counters.append_batch_accepted),
        };
        received.add(1);
        let batch = if single {
            call.event("event")
        } else {
            call.events_up_to("events", self.out.largest_transaction().max(MAX_EVENTS))
        };
        let batch = batch.map_err(|error| {
            self.complain(&error);
            java_error(error)
        })?;
        if !batch.is_empty()
            && let Err(error) = self.out.deliver(batch, &self.stop).await
        {
            if let Some(others) = self.out.may_complain() {
                let (source, peer, what) = (self.out.source(), self.peer, if single { "" } else { " batch" });
                warn!(
                    "Avro source {source}: Unable to process event{what}. Exception follows. Client {peer}: {error}{others}"
                );
            }
            return Ok(status::FAILED.to_vec());
        }
        accepted.add(1);
        Ok(status::OK.to_vec())
    }

    fn complain(&self, what: &dyn Display) {
        let what = Excerpt(what);
        if let Some(others) = self.out.may_complain() {
            warn!(
                "Avro source {}: {} sent a request that cannot be executed: {what}{others}",
                self.out.source(),
                self.peer
            );
        }
        self.out.counters().event_read_fail.add(1);
    }

    fn lost(&self, why: &dyn Display) {
        let why = Excerpt(why);
        if let Some(others) = self.out.may_complain() {
            warn!("Avro source {}: the connection from {} is closed: {why}{others}", self.out.source(), self.peer);
        }
        self.out.counters().event_read_fail.add(1);
    }
}
