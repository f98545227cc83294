//! The avro sink: sends events by Avro RPC, to avro sources of other agents and to Spark's push receiver.
//!
//! A batch is one `appendBatch` request, and leaves the channel once it is answered `OK`. Whatever else happens ends the
//! connection, and the batch comes again over another one.
//!
//! Keys: `hostname`, `port`, `reset-connection-interval` (0 seconds: never), and those of
//! [Flume's client](crate::rpc::avro::event_client), such as `batch-size`, `compression-type` and `ssl`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{BuiltSink, Sink, SinkBuilder, SinkConfig, SinkError};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::metrics::SinkCounters;
use crate::rpc::avro::event_client::{ClientConfig, EventClient};

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["avro"],
    class: "org.apache.flume.sink.AvroSink",
    build: |props| Some(Box::new(AvroConfig::from_props(props)?)),
};

const BATCH_SIZE: i32 = 100;

/// The avro sink's keys.
#[derive(Clone)]
struct AvroConfig {
    hostname: String,
    port: u16,
    client: ClientConfig,
    reset_interval: Option<Duration>,
}

impl AvroConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let hostname: String = props.required("hostname", "the host to connect to", "No hostname specified");
        let port = props.required("port", "the port to connect to", "No port specified");
        let reset_seconds = props.or("reset-connection-interval", 0i32);
        let client = ClientConfig::from_props(props, Some((hostname.clone(), port)), BATCH_SIZE);
        let reset_interval = (reset_seconds > 0).then(|| Duration::from_secs(reset_seconds as u64));
        props.finish(Self { hostname, port, client, reset_interval })
    }
}

impl SinkConfig for AvroConfig {
    fn batch_size(&self) -> Option<usize> {
        Some(self.client.batch_size)
    }

    fn build(&self, name: &str, counters: Arc<SinkCounters>) -> BuiltSink {
        let client = EventClient::new(self.client.clone(), counters);
        BuiltSink::Push(Box::new(AvroSink { name: name.to_owned(), config: self.clone(), client, reset_at: None }))
    }
}

struct AvroSink {
    name: String,
    config: AvroConfig,
    client: EventClient,
    /// When the connections are to be made anew.
    reset_at: Option<Instant>,
}

impl AvroSink {
    fn schedule_reset(&mut self) {
        self.reset_at = self.config.reset_interval.map(|interval| Instant::now() + interval);
    }
}

#[async_trait]
impl Sink for AvroSink {
    fn batch_size(&self) -> usize {
        self.config.client.batch_size
    }

    async fn start(&mut self) -> Result<(), SinkError> {
        let AvroConfig { hostname, port, .. } = &self.config;
        info!("Starting RpcSink {} {{ host: {hostname}, port: {port} }}...", self.name);
        if self.config.reset_interval.is_none() {
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
        self.client.send(batch).await.map_err(|error| SinkError::new(error.to_string()))
    }

    async fn stop(&mut self) {
        info!("Rpc sink {} stopping...", self.name);
        self.client.close().await;
        info!("Rpc sink {} stopped.", self.name);
    }
}
