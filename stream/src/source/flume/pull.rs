//! Events that are asked for at the Spark sinks of agents, as Spark Streaming's `createPollingStream` does.
//!
//! | key | default | what |
//! |---|---|---|
//! | `connect` | | a list of `host:port`, one of each Spark sink |
//! | `fetchers` | 5 | connections to each sink; each has events of one request in the job, until they are committed |
//! | `batch-size` | 1000 | the most events of a request |
//! | `headers` | none | names of headers that become columns of text; null where an event has none |
//!
//! Events leave the agent's channel when the batch with them is committed; when it is not, they go back. A sink waits
//! for that at most its `timeout` (60 seconds), and for as many requests as it has `threads` (10): batches must be
//! shorter, and `fetchers` no more. Flume's Spark sink gives nothing when more is asked for than its channel's
//! `transactionCapacity`: after such an error it is asked for at most 100 events, the default of that, and then for ever
//! fewer.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::datatypes::Field;
use flume_rs::logging::{Excerpt, Limited};
use flume_rs::rpc::avro::client::CallError;
use flume_rs::rpc::spark::{PollError, PollingClient};
use flume_rs::rpc::transport::Endpoint;
use serde::Deserialize;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Events, Feed, Inbox, header_columns};
use crate::job::{Address, JobError, Keys};
use crate::source::{Source, SourceConfig, SourceError};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PullConfig {
    connect: Vec<Address>,
    #[serde(default = "fetchers")]
    fetchers: NonZeroUsize,
    #[serde(default = "batch_size")]
    batch_size: NonZeroU32,
    #[serde(default)]
    headers: Vec<String>,
}

fn fetchers() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(4)
}

fn batch_size() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(999)
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SourceConfig>, JobError> {
    let empty = keys.error("`connect` must have at least one address");
    let config = keys.read::<PullConfig>()?;
    if config.connect.is_empty() { Err(empty) } else { Ok(Box::new(config)) }
}

impl SourceConfig for PullConfig {
    fn columns(&self) -> Vec<Field> {
        header_columns(&self.headers)
    }

    fn build(&self, name: &str, once: bool) -> Box<dyn Source> {
        let stop = CancellationToken::new();
        let feed = Pull { name: name.to_owned(), config: self.clone(), once, stop, fetching: None };
        Box::new(Events::new(feed, self.headers.clone()))
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait before a connection is tried again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// How long to wait before a sink that has given an error is asked again.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// A sink that is silent for so long may be gone without a word: a new connection finds out.
const SILENCE: Duration = Duration::from_secs(60);
/// With `--once`, a sink that has nothing for so long has given everything.
const QUIET: Duration = Duration::from_secs(3);
/// How long a sink may take to answer an ack.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to give events back when the job ends.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What a memory channel gives at once by default.
const FEWER_EVENTS: u32 = 100;
/// A part of what Spark's sink says when it has no events.
const NO_EVENTS: &str = "did not get any events";

/// The client.
struct Pull {
    name: String,
    config: PullConfig,
    once: bool,
    stop: CancellationToken,
    fetching: Option<JoinHandle<()>>,
}

#[async_trait]
impl Feed for Pull {
    async fn open(&mut self, inbox: &Arc<Inbox>) -> Result<(), SourceError> {
        if self.fetching.is_some() {
            return Ok(());
        }
        let fetchers = TaskTracker::new();
        for address in &self.config.connect {
            let sink = Arc::new(Sink {
                name: self.name.clone(),
                address: address.to_string(),
                endpoint: Endpoint::plain(&address.host, address.port, CONNECT_TIMEOUT),
                wanted: AtomicU32::new(self.config.batch_size.get()),
                connections: AtomicUsize::new(0),
                once: self.once,
                inbox: Arc::clone(inbox),
                complaints: Limited::default(),
                stop: self.stop.clone(),
            });
            for _ in 0..self.config.fetchers.get() {
                let sink = Arc::clone(&sink);
                fetchers.spawn(async move { sink.fetch().await });
            }
        }
        fetchers.close();
        let inbox = Arc::clone(inbox);
        self.fetching = Some(tokio::spawn(async move {
            fetchers.wait().await;
            inbox.end();
        }));
        Ok(())
    }

    async fn close(&mut self) {
        self.stop.cancel();
        if let Some(fetching) = self.fetching.take() {
            timeout(LAST_WORDS, fetching).await.ok();
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Why a connection is given up.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("it is gone, and takes its events back")]
    Gone,
    #[error("no answer to an ack within {ACK_TIMEOUT:?}")]
    Silent,
}

/// A Spark sink, as all its fetchers know it.
struct Sink {
    name: String,
    address: String,
    endpoint: Endpoint,
    /// How many events it is asked for.
    wanted: AtomicU32,
    /// How many fetchers are connected.
    connections: AtomicUsize,
    once: bool,
    inbox: Arc<Inbox>,
    complaints: Limited,
    stop: CancellationToken,
}

impl Sink {
    /// Fetches events until the job ends, or with `--once` until there are none.
    async fn fetch(&self) {
        let mut has_failed = false;
        loop {
            let Some(connected) = self.stop.run_until_cancelled(PollingClient::connect(&self.endpoint)).await else {
                return;
            };
            match connected {
                Ok(client) => {
                    has_failed = false;
                    if self.connections.fetch_add(1, Ordering::Relaxed) == 0 {
                        info!("source {}: connected to {}", self.name, self.address);
                    }
                    let outcome = self.converse(client).await;
                    self.connections.fetch_sub(1, Ordering::Relaxed);
                    match outcome {
                        Ok(()) if self.once || self.stop.is_cancelled() => return,
                        Ok(()) => continue,
                        Err(why) => self.warn(&format_args!("{why}; connecting again")),
                    }
                }
                Err(_) if has_failed => {}
                Err(error) => self.warn(&format_args!("cannot connect: {error}; trying again")),
            }
            has_failed = true;
            if self.stop.run_until_cancelled(sleep(BETWEEN_TRIES)).await.is_none() {
                return;
            }
        }
    }

    /// Asks over one connection, until the job ends or the sink is silent.
    async fn converse(&self, mut client: PollingClient) -> Result<(), Failure> {
        let patience = if self.once { QUIET } else { SILENCE };
        loop {
            let wanted = self.wanted.load(Ordering::Relaxed);
            let polled = self.stop.run_until_cancelled(timeout(patience, client.poll(wanted))).await;
            let Some(Ok(polled)) = polled else { return Ok(()) };
            let batch = match polled {
                Ok(batch) => batch,
                Err(PollError::Call(error)) => return Err(error.into()),
                Err(PollError::Sink(why)) if why.contains(NO_EVENTS) && self.once => return Ok(()),
                Err(PollError::Sink(why)) => {
                    self.ask_for_fewer(wanted, &why);
                    if self.stop.run_until_cancelled(sleep(AFTER_ERROR)).await.is_none() {
                        return Ok(());
                    }
                    continue;
                }
            };
            let is_safe = tokio::select! {
                is_safe = self.inbox.deliver(batch.events) => is_safe,
                () = client.gone() => return Err(Failure::Gone),
            };
            let settled =
                async { if is_safe { client.ack(&batch.sequence).await } else { client.nack(&batch.sequence).await } };
            timeout(ACK_TIMEOUT, settled).await.map_err(|_| Failure::Silent)??;
            if !is_safe {
                return Ok(());
            }
        }
    }

    /// After an error for so many events, other than that there are none.
    fn ask_for_fewer(&self, wanted: u32, why: &str) {
        if why.contains(NO_EVENTS) {
            return;
        }
        let fewer = if wanted > FEWER_EVENTS { FEWER_EVENTS } else { (wanted / 2).max(1) };
        // Several fetchers may hear of it at once.
        let is_first = self.wanted.compare_exchange(wanted, fewer, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_first && fewer < wanted {
            self.warn(&format_args!("no {wanted} events: {why}; it is asked for {fewer}"));
        }
    }

    fn warn(&self, what: &dyn std::fmt::Display) {
        if let Some(others) = self.complaints.permit() {
            warn!("source {}: {}: {}{others}", self.name, self.address, Excerpt(what));
        }
    }
}
