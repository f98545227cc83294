//! What the sinks have in common that hand their batches to the next agent in remote procedure calls.
//!
//! A batch leaves the channel when the other side says that it has it.
//!
//! Keys: `hostname`, `port`, `reset-connection-interval` (seconds; 0: never), and those of
//! [Flume's client](crate::rpc::event_client), such as `batch-size` and `ssl`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{BuiltSink, Sink, SinkConfig, SinkError};
use crate::config::Props;
use crate::event::Batch;
use crate::metrics::SinkCounters;
use crate::rpc::event_client::{ClientConfig, EventClient, EventProtocol};

const BATCH_SIZE: i32 = 100;

/// The keys that all of them have, and the protocol.
#[derive(Clone)]
pub struct RpcConfig {
    hostname: String,
    port: u16,
    client: ClientConfig,
    /// None: connections are kept for ever.
    reset_interval: Option<Duration>,
    protocol: Arc<dyn EventProtocol>,
}

impl RpcConfig {
    /// Reads the keys; what is wrong with them is noted.
    pub fn from_props(props: &Props<'_>, protocol: impl EventProtocol + 'static) -> Self {
        let hostname: String = props.required("hostname", "the host to send events to", "No hostname specified");
        let port = props.required("port", "the port to send events to", "No port specified");
        let reset_seconds = props.or("reset-connection-interval", 0i32);
        Self {
            client: ClientConfig::from_props(props, Some((hostname.clone(), port)), BATCH_SIZE),
            hostname,
            port,
            reset_interval: (reset_seconds > 0).then(|| Duration::from_secs(reset_seconds as u64)),
            protocol: Arc::new(protocol),
        }
    }

    /// Reads the keys that only Avro has.
    #[must_use]
    pub fn for_avro(self, props: &Props<'_>) -> Self {
        Self { client: self.client.for_avro(props), ..self }
    }
}

impl SinkConfig for RpcConfig {
    fn batch_size(&self) -> Option<usize> {
        Some(self.client.batch_size)
    }

    fn build(&self, name: &str, counters: Arc<SinkCounters>) -> BuiltSink {
        let client = EventClient::new(self.client.clone(), Arc::clone(&self.protocol), counters);
        BuiltSink::Push(Box::new(RpcSink { name: name.to_owned(), config: self.clone(), client, reset_at: None }))
    }
}

struct RpcSink {
    name: String,
    config: RpcConfig,
    client: EventClient,
    /// When the connections are to be made anew.
    reset_at: Option<Instant>,
}

impl RpcSink {
    fn schedule_reset(&mut self) {
        self.reset_at = self.config.reset_interval.map(|interval| Instant::now() + interval);
    }
}

#[async_trait]
impl Sink for RpcSink {
    fn batch_size(&self) -> usize {
        self.config.client.events_in_flight()
    }

    async fn start(&mut self) -> Result<(), SinkError> {
        let RpcConfig { hostname, port, reset_interval, .. } = &self.config;
        info!("Starting RpcSink {} {{ host: {hostname}, port: {port} }}...", self.name);
        if reset_interval.is_none() {
            info!("Connection reset is set to 0. Will not reset connection to next hop");
        }
        info!("Rpc sink {}: Building RpcClient with hostname: {hostname}, port: {port}", self.name);
        if let Err(error) = self.client.connect().await {
            warn!("Unable to create Rpc client using hostname: {hostname}, port: {port}: {error}");
        }
        self.schedule_reset();
        info!("Rpc sink {} started.", self.name);
        Ok(())
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        if self.reset_at.is_some_and(|at| at <= Instant::now()) {
            self.client.close().await;
            self.schedule_reset();
        }
        self.client.send(batch).await.map_err(|error| SinkError::new(format!("Failed to send events: {error}")))
    }

    async fn stop(&mut self) {
        info!("Rpc sink {} stopping...", self.name);
        self.client.close().await;
        info!("Rpc sink {} stopped.", self.name);
    }
}
