//! The avro sink: sends events by Avro RPC, to avro sources of other agents and to Spark's push receiver.
//!
//! A batch is one `appendBatch` request, and leaves the channel once it is answered `OK`. Whatever else happens ends the
//! connection, and the batch comes again over another one.
//!
//! Keys: `hostname`, `port`, `batch-size` (100), `connect-timeout` and `request-timeout` (20000 ms each),
//! `reset-connection-interval` (0 seconds: never), `compression-type` (none, deflate), `compression-level` (6), the keys
//! of [TLS](crate::tls); `maxIoWorkers` has no effect, as in Flume since 1.10. Not Flume's: `compression-outside-tls`
//! (true; false is what Flume up to 1.9 understands when both are on).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::{BuiltSink, Sink, SinkBuilder, SinkConfig, SinkError};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::metrics::SinkCounters;
use crate::rpc::avro::client::{CallError, Knowledge, Requestor};
use crate::rpc::avro::protocol::AVRO_SOURCE;
use crate::rpc::avro::{events, status};
use crate::rpc::transport::{DEFAULT_LEVEL, Endpoint};
use crate::tls;

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["avro"],
    class: "org.apache.flume.sink.AvroSink",
    build: |props| Some(Box::new(AvroConfig::from_props(props)?)),
};

const BATCH_SIZE: i32 = 100;
const TIMEOUT_MS: i64 = 20_000;
const LEAST_TIMEOUT_MS: i64 = 1000;
/// How long the end of a connection may take.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A buffer larger than this goes after use.
const KEPT_BYTES: usize = 1 << 20;

/// The avro sink's keys.
#[derive(Clone)]
struct AvroConfig {
    endpoint: Endpoint,
    batch_size: usize,
    request_timeout: Duration,
    reset_interval: Option<Duration>,
}

impl AvroConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let events = "a whole number of events, at least 1";
        let batch_size = props.lenient("batch-size", BATCH_SIZE, |n| *n >= 1, events, "");
        let milliseconds = |key: &str, flume: &str| {
            let expected = "a whole number of milliseconds, at least 1000";
            let value = props.lenient(key, TIMEOUT_MS, |n| *n >= LEAST_TIMEOUT_MS, expected, flume);
            Duration::from_millis(value as u64)
        };
        let flume = "Connection timeout specified less than 1s. Using default value instead.";
        let connect_timeout = milliseconds("connect-timeout", flume);
        let flume = "Request timeout specified less than 1s. Using default value instead.";
        let request_timeout = milliseconds("request-timeout", flume);
        let reset_seconds = props.or("reset-connection-interval", 0i32);
        let level = "a level from 0 (not compressed) to 9 (best)";
        let level =
            props.lenient("compression-level", DEFAULT_LEVEL as i32, |level| (0..=9).contains(level), level, "");
        if props.text("maxIoWorkers").is_some() {
            props.warning("maxIoWorkers", "has no effect; the connection needs no threads of its own");
        }
        let endpoint = Endpoint {
            host: props.required("hostname", "the host to connect to", "No hostname specified"),
            port: props.required("port", "the port to connect to", "No port specified"),
            tls: tls::connector(props),
            deflate: crate::source::avro::deflate(props).then_some(level as u32),
            deflate_outside: props.or("compression-outside-tls", true),
            connect_timeout,
        };
        props.finish(Self {
            endpoint,
            batch_size: batch_size as usize,
            request_timeout,
            reset_interval: (reset_seconds > 0).then(|| Duration::from_secs(reset_seconds as u64)),
        })
    }
}

impl SinkConfig for AvroConfig {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn build(&self, name: &str, counters: Arc<SinkCounters>) -> BuiltSink {
        BuiltSink::Push(Box::new(AvroSink {
            name: name.to_owned(),
            config: self.clone(),
            counters,
            connection: None,
            reset_at: None,
            knowledge: Knowledge::default(),
            parameters: Vec::new(),
        }))
    }
}

struct AvroSink {
    name: String,
    config: AvroConfig,
    counters: Arc<SinkCounters>,
    connection: Option<Requestor>,
    /// When the connection is to be made anew.
    reset_at: Option<Instant>,
    knowledge: Knowledge,
    /// The request that is being written.
    parameters: Vec<u8>,
}

impl AvroSink {
    /// An error with the client's name in front, as Flume's has it.
    fn error(&self, what: &str, error: &CallError) -> SinkError {
        let Endpoint { host, port, .. } = &self.config.endpoint;
        SinkError::new(format!("NettyAvroRpcClient {{ host: {host}, port: {port} }}: {what}: {error}"))
    }

    async fn connect(&mut self) -> Result<(), SinkError> {
        let AvroConfig { endpoint, request_timeout, reset_interval, .. } = &self.config;
        info!("Rpc sink {}: Building RpcClient with hostname: {}, port: {}", self.name, endpoint.host, endpoint.port);
        match endpoint.connect().await {
            Ok(stream) => {
                self.connection = Some(Requestor::new(stream, &AVRO_SOURCE, Some(*request_timeout)));
                self.reset_at = reset_interval.map(|interval| Instant::now() + interval);
                self.counters.connection_created.add(1);
                Ok(())
            }
            Err(error) => {
                self.counters.connection_failed.add(1);
                Err(self.error("RPC connection error", &error.into()))
            }
        }
    }

    /// Makes sure that there is a connection, and that it is not older than it may be.
    async fn verify_connection(&mut self) -> Result<(), SinkError> {
        if self.reset_at.is_some_and(|at| at <= Instant::now()) {
            self.disconnect().await;
        } else if self.connection.as_mut().is_some_and(Requestor::is_closed) {
            debug!("Rpc sink {}: the server has closed the connection", self.name);
            self.disconnect().await;
        }
        if self.connection.is_none() { self.connect().await } else { Ok(()) }
    }

    async fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            // The server may be gone; there is nothing to lose.
            timeout(LAST_WORDS, connection.close()).await.ok();
            self.counters.connection_closed.add(1);
        }
    }
}

#[async_trait]
impl Sink for AvroSink {
    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    async fn start(&mut self) -> Result<(), SinkError> {
        let Endpoint { host, port, .. } = self.config.endpoint.clone();
        info!("Starting RpcSink {} {{ host: {host}, port: {port} }}...", self.name);
        if self.config.reset_interval.is_none() {
            info!("Connection reset is set to 0. Will not reset connection to next hop");
        }
        if let Err(error) = self.connect().await {
            warn!("Unable to create Rpc client using hostname: {host}, port: {port}: {error}");
        }
        info!("Rpc sink {} started.", self.name);
        Ok(())
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.verify_connection().await?;
        let Some(connection) = &mut self.connection else { return Ok(()) };
        self.parameters.clear();
        events::put_array(&mut self.parameters, batch);
        let answer = connection.call("appendBatch", &self.parameters, &mut self.knowledge).await;
        if self.parameters.capacity() > KEPT_BYTES {
            self.parameters = Vec::new();
        }
        let error = match answer {
            Ok(answer) if answer == status::OK => return Ok(()),
            Ok(answer) => CallError::Status(status::name(&answer)),
            Err(error) => error,
        };
        self.disconnect().await;
        Err(self.error("Failed to send batch", &error))
    }

    async fn stop(&mut self) {
        info!("Rpc sink {} stopping...", self.name);
        self.disconnect().await;
        info!("Rpc sink {} stopped.", self.name);
    }
}
