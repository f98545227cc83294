//! What the sinks have in common that hand their batches to the next agent in remote procedure calls.
//!
//! A batch is one call, and it leaves the channel when the other side says that it has it. After any failure the
//! connection is closed and a new one opened for the next attempt, as after `reset-connection-interval`. A connection
//! that the other side has closed in the meantime is noticed before a batch is lost on it.
//!
//! Keys: `hostname`, `port`, `batch-size` (100), `connect-timeout` and `request-timeout` (20000 ms),
//! `reset-connection-interval` (seconds; 0: never), and those of [TLS](crate::tls).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::{Sink, SinkError};
use crate::config::Props;
use crate::event::Batch;
use crate::metrics::SinkCounters;
use crate::net::{self, Stream};
use crate::tls::{self, Connector};

const BATCH_SIZE: i32 = 100;
const TIMEOUT_MS: i64 = 20_000;
const LEAST_TIMEOUT_MS: i64 = 1000;

/// The keys that all of them have.
pub struct RpcConfig {
    hostname: String,
    port: u16,
    pub batch_size: usize,
    connect_timeout: Duration,
    request_timeout: Duration,
    /// None: connections are kept for ever.
    reset_interval: Option<Duration>,
    /// None: connections are not encrypted.
    connector: Option<Connector>,
}

impl RpcConfig {
    /// Reads the keys; what is wrong with them is noted.
    pub fn from_props(props: &Props<'_>) -> Self {
        let batch_size = props.text("batch-size").unwrap_or_default();
        let batch_size = props.lenient(
            "batch-size",
            BATCH_SIZE,
            |size| *size >= 1,
            "a number of events, at least 1",
            &format!("Invalid value for batchSize: {batch_size}; Using default value."),
        );
        let milliseconds = |key: &str, name: &str| {
            let flume = format!("{name} timeout specified less than 1s. Using default value instead.");
            let valid = |ms: &i64| *ms >= LEAST_TIMEOUT_MS;
            Duration::from_millis(props.lenient(key, TIMEOUT_MS, valid, "milliseconds, at least 1000", &flume) as u64)
        };
        let reset_interval = props.or("reset-connection-interval", 0i32);
        Self {
            hostname: props.required("hostname", "the host to send events to", "No hostname specified"),
            port: props.required("port", "the port to send events to", "No port specified"),
            batch_size: batch_size as usize,
            connect_timeout: milliseconds("connect-timeout", "Connection"),
            request_timeout: milliseconds("request-timeout", "Request"),
            reset_interval: u64::try_from(reset_interval).ok().filter(|s| *s > 0).map(Duration::from_secs),
            connector: tls::connector(props),
        }
    }

    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((&*self.hostname, self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.connector {
            None => Box::new(stream),
            Some(connector) => Box::new(connector.connect(&self.hostname, stream).await?),
        })
    }
}

/// A protocol in which batches are sent.
pub trait RpcProtocol: Send + Sync {
    /// Speaks it over a connection.
    fn open(&self, stream: Box<dyn Stream>) -> Box<dyn RpcConnection>;
}

/// A connection on which batches are sent.
#[async_trait]
pub trait RpcConnection: Send {
    /// Sends a batch and waits until the other side has it. After an error the connection is of no more use.
    async fn append_batch(&mut self, batch: &Batch) -> io::Result<()>;
    /// Whether another batch can be sent.
    fn is_usable(&mut self) -> bool;
    /// Closes it in order.
    async fn close(&mut self) -> io::Result<()>;
}

/// A sink that sends its batches in one of the protocols.
pub struct RpcSink {
    name: String,
    config: Arc<RpcConfig>,
    protocol: Box<dyn RpcProtocol>,
    counters: Arc<SinkCounters>,
    open: Option<Open>,
}

struct Open {
    connection: Box<dyn RpcConnection>,
    reset_at: Option<Instant>,
}

impl Open {
    fn is_usable(&mut self) -> bool {
        self.reset_at.is_none_or(|reset_at| Instant::now() < reset_at) && self.connection.is_usable()
    }
}

impl RpcSink {
    /// A sink that is not connected.
    pub fn new(
        name: &str,
        config: Arc<RpcConfig>,
        protocol: impl RpcProtocol + 'static,
        counters: Arc<SinkCounters>,
    ) -> Self {
        Self { name: name.to_owned(), config, protocol: Box::new(protocol), counters, open: None }
    }

    async fn connect(&mut self) -> io::Result<Open> {
        let RpcConfig { hostname, port, connect_timeout, reset_interval, .. } = &*self.config;
        info!("Rpc sink {}: Building RpcClient with hostname: {hostname}, port: {port}", self.name);
        match limited(*connect_timeout, self.config.dial()).await {
            Ok(stream) => {
                self.counters.connection_created.add(1);
                debug!("Rpc sink {}: Created RpcClient", self.name);
                let reset_at = reset_interval.map(|interval| Instant::now() + interval);
                Ok(Open { connection: self.protocol.open(stream), reset_at })
            }
            Err(error) => {
                self.counters.connection_failed.add(1);
                Err(io::Error::new(error.kind(), format!("could not connect to {hostname}:{port}: {error}")))
            }
        }
    }

    async fn close(&mut self) {
        if let Some(mut open) = self.open.take() {
            // The other side may be gone, which is no news any more.
            timeout(net::LAST_ANSWERS, open.connection.close()).await.ok();
            self.counters.connection_closed.add(1);
        }
    }
}

/// What comes of an attempt within a time.
async fn limited<T>(time: Duration, attempt: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(time, attempt).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("timed out after {} ms", time.as_millis())))
    })
}

#[async_trait]
impl Sink for RpcSink {
    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    async fn start(&mut self) -> Result<(), SinkError> {
        let config = Arc::clone(&self.config);
        let RpcConfig { hostname, port, .. } = &*config;
        info!("Starting RpcSink {} {{ host: {hostname}, port: {port} }}...", self.name);
        if config.reset_interval.is_none() {
            info!("Connection reset is set to 0. Will not reset connection to next hop");
        }
        match self.connect().await {
            Ok(open) => self.open = Some(open),
            Err(error) => warn!("Unable to create Rpc client using hostname: {hostname}, port: {port}: {error}"),
        }
        info!("Rpc sink {} started.", self.name);
        Ok(())
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let failed = |error| SinkError::io("Failed to send events", error);
        if self.open.as_mut().is_some_and(|open| !open.is_usable()) {
            self.close().await;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.connect().await.map_err(failed)?,
        };
        match limited(self.config.request_timeout, open.connection.append_batch(batch)).await {
            Ok(()) => {
                self.open = Some(open);
                Ok(())
            }
            Err(error) => {
                self.counters.connection_closed.add(1);
                Err(failed(error))
            }
        }
    }

    async fn stop(&mut self) {
        info!("Rpc sink {} stopping...", self.name);
        self.close().await;
        info!("Rpc sink {} stopped.", self.name);
    }
}
