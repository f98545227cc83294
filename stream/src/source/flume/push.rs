//! Events that agents' avro sinks send: a server of Flume's Avro protocol, as an agent's avro source is one.
//!
//! | key | default | what |
//! |---|---|---|
//! | `listen` | | `host:port` to listen on; the host `0.0.0.0` is all of this machine |
//! | `headers` | none | names of headers that become columns of text; null where an event has none |
//! | `compression-type` | `none` | `deflate` when the sinks that send have it |
//!
//! A request is answered `OK` when the batch with its events is committed. Agents wait so long, at most their
//! `request-timeout` (20 seconds): batches must be shorter. An avro sink sends nothing meanwhile, so that a batch has at
//! most its `batch-size` of events from it, by default 100: give it a large one. Any number of agents may send; the order
//! of the events of one connection is kept. With `--once` the job ends when agents have come, sent something, and gone.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::datatypes::Field;
use flume_rs::logging::{Excerpt, Limited};
use flume_rs::net;
use flume_rs::rpc::avro::protocol::AVRO_SOURCE;
use flume_rs::rpc::avro::responder::{Call, java_error};
use flume_rs::rpc::avro::server::{Server, Service};
use flume_rs::rpc::avro::status;
use flume_rs::rpc::server::Limits;
use flume_rs::rpc::transport::ServerLayers;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Events, Feed, Inbox, header_columns};
use crate::job::{Address, JobError, Keys, to_listen};
use crate::source::{Source, SourceConfig, SourceError};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PushConfig {
    #[serde(deserialize_with = "to_listen")]
    listen: Address,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    compression_type: Compression,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Compression {
    #[default]
    None,
    Deflate,
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SourceConfig>, JobError> {
    Ok(Box::new(keys.read::<PushConfig>()?))
}

impl SourceConfig for PushConfig {
    fn columns(&self) -> Vec<Field> {
        header_columns(&self.headers)
    }

    fn build(&self, name: &str, once: bool) -> Box<dyn Source> {
        let stop = CancellationToken::new();
        let feed = Push { name: name.to_owned(), config: self.clone(), once, stop, serving: None };
        Box::new(Events::new(feed, self.headers.clone()))
    }
}

const MAX_CONNECTIONS: usize = 1000;
/// As those of an avro source.
const LIMITS: Limits = Limits { request_bytes: 64 << 20, timeout: Duration::from_secs(60) };

/// The server.
struct Push {
    name: String,
    config: PushConfig,
    once: bool,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

#[async_trait]
impl Feed for Push {
    async fn open(&mut self, inbox: &Arc<Inbox>) -> Result<(), SourceError> {
        if self.serving.is_some() {
            return Ok(());
        }
        let Address { host, port } = &self.config.listen;
        let listener = net::listen(host, *port)
            .await
            .map_err(|error| SourceError::new(format!("cannot listen on {host}:{port}: {error}")))?;
        let address = listener.local_addr().map_err(|error| SourceError::new(error.to_string()))?;
        info!("source {}: listening on {address}", self.name);
        let shared = Arc::new(Shared {
            name: self.name.clone(),
            server: Server::new(&AVRO_SOURCE, LIMITS),
            layers: ServerLayers { tls: None, deflate: self.config.compression_type == Compression::Deflate },
            inbox: Arc::clone(inbox),
            once: self.once,
            has_events: AtomicBool::new(false),
            agents: AtomicUsize::new(0),
            complaints: Limited::default(),
            stop: self.stop.clone(),
        });
        let (label, stop) = (format!("source {}", self.name), self.stop.clone());
        self.serving = Some(tokio::spawn(async move {
            net::serve(listener, &label, MAX_CONNECTIONS, &stop, |socket, peer| {
                let agent = Agent::new(Arc::clone(&shared), peer);
                async move { agent.serve(socket).await }
            })
            .await;
        }));
        Ok(())
    }

    async fn close(&mut self) {
        self.stop.cancel();
        if let Some(serving) = self.serving.take() {
            serving.await.ok();
        }
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What all connections share.
struct Shared {
    name: String,
    server: Server,
    layers: ServerLayers,
    inbox: Arc<Inbox>,
    once: bool,
    /// Whether anything was sent.
    has_events: AtomicBool,
    /// How many are connected.
    agents: AtomicUsize,
    /// What is said of connections is limited.
    complaints: Limited,
    stop: CancellationToken,
}

/// One connection.
struct Agent {
    shared: Arc<Shared>,
    peer: SocketAddr,
}

impl Agent {
    fn new(shared: Arc<Shared>, peer: SocketAddr) -> Self {
        shared.agents.fetch_add(1, Ordering::Relaxed);
        Self { shared, peer }
    }

    async fn serve(mut self, socket: TcpStream) {
        let shared = Arc::clone(&self.shared);
        if let Some(others) = shared.complaints.permit() {
            info!("source {}: connected: {}{others}", shared.name, self.peer);
        }
        match shared.stop.run_until_cancelled(shared.layers.accept(socket)).await {
            None => {}
            Some(Ok(mut stream)) => shared.server.serve(&mut stream, &mut self, &shared.stop).await,
            Some(Err(error)) => self.lost(&error),
        }
    }

    fn warn(&self, what: &dyn Display) {
        if let Some(others) = self.shared.complaints.permit() {
            warn!("source {}: {}: {}{others}", self.shared.name, self.peer, Excerpt(what));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let Shared { agents, has_events, once, inbox, .. } = &*self.shared;
        if agents.fetch_sub(1, Ordering::Relaxed) == 1 && *once && has_events.load(Ordering::Relaxed) {
            inbox.end();
        }
    }
}

impl Service for Agent {
    // Whoever does not wait any more sends the events again.
    const ENDS_WITH_INPUT: bool = true;

    async fn call(&mut self, call: &Call) -> Result<Vec<u8>, String> {
        let events = if call.message == "append" { call.event("event") } else { call.events("events") };
        let events = events.map_err(|error| {
            self.complain(&error);
            java_error(error)
        })?;
        self.shared.has_events.store(true, Ordering::Relaxed);
        let is_safe = events.is_empty() || self.shared.inbox.deliver(events).await;
        Ok(if is_safe { status::OK } else { status::FAILED }.to_vec())
    }

    fn complain(&self, what: &dyn Display) {
        self.warn(&format_args!("a request that cannot be executed: {what}"));
    }

    fn lost(&self, why: &dyn Display) {
        self.warn(&format_args!("the connection is closed: {why}"));
    }
}
