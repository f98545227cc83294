//! Flume's client: sends batches of events to one source, or to one of several, in one of the protocols.
//!
//! A batch is one request, or several when it has more than `batch-size` events. After any failure the connection is closed, and a new one is opened for the next attempt. A
//! connection that the other side has closed in the meantime is noticed before a batch is lost on it.
//!
//! Keys, as Flume's client library has them: `hosts` and `hosts.NAME` (`host:port`), `client.type` (`default` takes the
//! first host, `default_failover` the next one when one fails, `default_loadbalance` each in turn), `host-selector`
//! (`round_robin`, `random`), `backoff` and `maxBackoff` (30000 ms: how long a host that fails is left alone), `max-attempts`,
//! `batch-size` (100), `connect-timeout` and `request-timeout` (20000 ms), the keys of [TLS](crate::tls), and for Avro
//! `compression-type` and `compression-level` (6); `maxIoWorkers` has no effect, as in Flume since 1.10. Not Flume's, and
//! for Avro: `compression-outside-tls` (true; false is what Flume up to 1.9 understands when both are on), and `max-in-flight` (1):
//! so many requests are sent before the first of them is answered, which pays over long distances. A failure repeats all
//! of them, and the avro source of Flume since 1.10 may store them in another order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::transport::{DEFAULT_LEVEL, Endpoint, Stream};
use crate::config::Props;
use crate::event::Batch;
use crate::logging::Excerpt;
use crate::metrics::SinkCounters;
use crate::net::LAST_ANSWERS;
use crate::tls;

/// Why a protocol could not send a batch.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A protocol in which batches are sent.
pub trait EventProtocol: Send + Sync {
    /// The name of Flume's client for it, for messages.
    fn client(&self) -> &'static str;
    /// Speaks it over a connection.
    fn open(&self, stream: Stream) -> Box<dyn EventConnection>;
}

/// A connection on which batches are sent.
#[async_trait]
pub trait EventConnection: Send {
    /// Sends batches, a request each, and waits until the other side has all of them. After an error, or cut off, the
    /// connection is of no more use.
    async fn append(&mut self, batches: &[Batch]) -> Result<(), Cause>;
    /// Whether another batch can be sent.
    fn is_usable(&mut self) -> bool;
    /// Closes it in order.
    async fn close(&mut self) -> std::io::Result<()>;
}

const TIMEOUT_MS: i64 = 20_000;
const LEAST_TIMEOUT_MS: i64 = 1000;
const MAX_BACKOFF_MS: i64 = 30_000;

/// Which host gets the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The first.
    First,
    /// The one that took the last batch, and the next one when it fails.
    Failover,
    /// Each in turn.
    RoundRobin,
    /// Any.
    Random,
}

/// The client's keys.
#[derive(Clone)]
pub struct ClientConfig {
    endpoints: Vec<Endpoint>,
    order: Order,
    attempts: usize,
    /// How long a host that fails is left alone at most.
    max_backoff: Option<Duration>,
    request_timeout: Duration,
    /// The most events of a request.
    pub batch_size: usize,
    /// Requests that may be on their way at once.
    in_flight: usize,
}

impl ClientConfig {
    /// Reads the keys. `first` is the host and port that stand for `hosts` where that is missing.
    pub fn from_props(props: &Props<'_>, first: Option<(String, u16)>, batch_size: i32) -> Self {
        let order = order(props);
        let hosts = hosts(props, first);
        if matches!(order, Order::RoundRobin | Order::Random) && hosts.len() < 2 {
            let flume = "At least two hosts are required to use the load balancing RPC client.";
            props.error("hosts", "at least two hosts for load balancing", flume);
        }
        let events = "a whole number of events, at least 1";
        let given = props.text("batch-size").unwrap_or_default();
        let flume = format!("Invalid value for batchSize: {given}; Using default value.");
        let batch_size = props.lenient("batch-size", batch_size, |n| *n >= 1, events, &flume);
        let milliseconds = |key: &str, flume: &str| {
            let expected = "a whole number of milliseconds, at least 1000";
            let value = props.lenient(key, TIMEOUT_MS, |n| *n >= LEAST_TIMEOUT_MS, expected, flume);
            Duration::from_millis(value as u64)
        };
        let flume = "Connection timeout specified less than 1s. Using default value instead.";
        let connect_timeout = milliseconds("connect-timeout", flume);
        let flume = "Request timeout specified less than 1s. Using default value instead.";
        let request_timeout = milliseconds("request-timeout", flume);
        let attempts = props.lenient("max-attempts", hosts.len() as i32, |n| *n >= 1, "a number, at least 1", "");
        let backoff = props.or("backoff", false);
        let milliseconds = "a whole number of milliseconds";
        let max_backoff = props.lenient("maxBackoff", MAX_BACKOFF_MS, |n| *n >= 0, milliseconds, "");
        let max_backoff = if max_backoff == 0 { MAX_BACKOFF_MS } else { max_backoff };
        if props.text("maxIoWorkers").is_some() {
            props.warning("maxIoWorkers", "has no effect; a connection needs no threads of its own");
        }
        let endpoint = Endpoint { tls: tls::connector(props), ..Endpoint::plain("", 0, connect_timeout) };
        let endpoints = hosts.into_iter().map(|(host, port)| Endpoint { host, port, ..endpoint.clone() });
        Self {
            endpoints: endpoints.collect(),
            order,
            attempts: attempts as usize,
            max_backoff: backoff.then(|| Duration::from_millis(max_backoff as u64)),
            request_timeout,
            batch_size: batch_size as usize,
            in_flight: 1,
        }
    }

    /// The most events that it pays to hand over at once.
    pub fn events_in_flight(&self) -> usize {
        self.batch_size.saturating_mul(self.in_flight)
    }

    /// Reads the keys that only Avro has: those of compression, and how many requests may be on their way.
    #[must_use]
    pub fn for_avro(mut self, props: &Props<'_>) -> Self {
        self.in_flight = props.positive("max-in-flight", 1, "requests");
        let level = "a level from 0 (not compressed) to 9 (best)";
        let level = props.lenient("compression-level", DEFAULT_LEVEL as i32, |n| (0..=9).contains(n), level, "");
        let level = deflate(props).then_some(level as u32);
        let outside = props.or("compression-outside-tls", true);
        for endpoint in &mut self.endpoints {
            endpoint.deflate = level;
            endpoint.deflate_outside = outside;
        }
        self
    }
}

/// Reads `compression-type`. As in Flume, whatever is not `deflate` is none.
pub fn deflate(props: &Props<'_>) -> bool {
    let text = props.text("compression-type").unwrap_or("none");
    let deflate = text.eq_ignore_ascii_case("deflate");
    if !deflate && !text.eq_ignore_ascii_case("none") {
        props.warning("compression-type", "expected none or deflate; it is none");
    }
    deflate
}

fn order(props: &Props<'_>) -> Order {
    let selector = props.text("host-selector").unwrap_or("round_robin").to_ascii_lowercase();
    match props.text("client.type").unwrap_or("default").to_ascii_lowercase().as_str() {
        "default" => Order::First,
        "default_failover" => Order::Failover,
        "default_loadbalance" => match selector.as_str() {
            "round_robin" => Order::RoundRobin,
            "random" => Order::Random,
            _ => {
                props.error_nearest("host-selector", "round_robin or random", &["round_robin", "random"]);
                Order::RoundRobin
            }
        },
        _ => {
            let known = ["default", "default_failover", "default_loadbalance"];
            props.error_nearest("client.type", "default, default_failover or default_loadbalance", &known);
            Order::First
        }
    }
}

fn hosts(props: &Props<'_>, first: Option<(String, u16)>) -> Vec<(String, u16)> {
    let addresses = props.family("hosts");
    let Some(names) = props.text("hosts") else {
        if first.is_none() {
            props.error("hosts", "the names of hosts, separated by blanks", "Hosts must be configured");
        }
        return first.into_iter().collect();
    };
    let mut hosts = Vec::new();
    for name in names.split_whitespace() {
        let address = addresses.iter().find(|(key, _)| *key == name).map(|(_, property)| property.value.as_str());
        let parsed = address.and_then(|address| address.trim().rsplit_once(':'));
        match parsed.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?))) {
            Some(host) => hosts.push(host),
            None => props.error(&format!("hosts.{name}"), "host:port", "Invalid Hosts"),
        }
    }
    if names.trim().is_empty() {
        props.error("hosts", "the names of hosts, separated by blanks", "Hosts must be configured");
    }
    hosts
}

/// Why a batch was not delivered: what the last of the hosts that were tried had to say.
#[derive(Debug, Error)]
#[error("{client} {{ host: {host}, port: {port} }}: {what}: {}", Excerpt(.source))]
pub struct SendError {
    client: &'static str,
    host: String,
    port: u16,
    what: &'static str,
    source: Cause,
}

struct Host {
    endpoint: Endpoint,
    connection: Option<Box<dyn EventConnection>>,
    /// How often it has failed in a row, and until when it is left alone.
    failures: u32,
    rests_until: Option<Instant>,
}

/// A client. Batches that it has delivered are in the channels of the source that took them.
pub struct EventClient {
    config: ClientConfig,
    protocol: Arc<dyn EventProtocol>,
    hosts: Vec<Host>,
    /// The host that is next, or was last.
    current: usize,
    /// Counts connections.
    counters: Arc<SinkCounters>,
}

impl EventClient {
    /// A client without connections.
    pub fn new(config: ClientConfig, protocol: Arc<dyn EventProtocol>, counters: Arc<SinkCounters>) -> Self {
        let host =
            |endpoint: &Endpoint| Host { endpoint: endpoint.clone(), connection: None, failures: 0, rests_until: None };
        let hosts = config.endpoints.iter().map(host).collect();
        Self { config, protocol, hosts, current: 0, counters }
    }

    /// Connects ahead of the first batch where only one host can take it; of several, any may be away.
    pub async fn connect(&mut self) -> Result<(), SendError> {
        if self.config.order != Order::First {
            return Ok(());
        }
        let first = self.current;
        self.verify_connection(first).await.map_err(|error| self.error(first, "RPC connection error", error))
    }

    /// Delivers a batch to one of the hosts.
    pub async fn send(&mut self, batch: &Batch) -> Result<(), SendError> {
        let cut;
        let requests = if batch.len() <= self.config.batch_size {
            std::slice::from_ref(batch)
        } else {
            cut = self.cut(batch.clone());
            &cut
        };
        let mut attempts = 0;
        let mut candidates = self.candidates().into_iter();
        // The configuration has at least one host.
        let mut host = candidates.next().unwrap_or_default();
        loop {
            let (sent, failure) = match self.verify_connection(host).await {
                Err(error) => (false, error),
                Ok(()) => match self.send_to(host, requests).await {
                    Err(error) => (true, error),
                    Ok(()) => {
                        self.hosts[host].failures = 0;
                        return Ok(());
                    }
                },
            };
            let error = self.error(host, "Failed to send batch", failure);
            self.disconnect(host).await;
            self.rest(host);
            if self.config.order == Order::Failover {
                self.current = (host + 1) % self.hosts.len();
            }
            if self.hosts.len() > 1 {
                warn!("{error}");
            }
            attempts += usize::from(sent);
            host = match candidates.next() {
                Some(next) if attempts < self.config.attempts || self.config.order != Order::Failover => next,
                _ => return Err(error),
            };
        }
    }

    /// The hosts to try, in their order.
    fn candidates(&mut self) -> Vec<usize> {
        let count = self.hosts.len();
        let from = |start: usize| (0..count).map(move |step| (start + step) % count);
        let mut candidates: Vec<usize> = match self.config.order {
            Order::First => return vec![0],
            // Hosts that cannot be reached take no attempt, as the batch has not been sent to them.
            Order::Failover => return from(self.current).cycle().take(count + self.config.attempts - 1).collect(),
            Order::RoundRobin => from(self.current).collect(),
            Order::Random => {
                // Without a random number it is the next one's turn.
                from(getrandom::u32().map_or(self.current, |n| n as usize % count)).collect()
            }
        };
        self.current = (candidates[0] + 1) % count;
        // Those that rest come last: when no other is left, they are tried all the same.
        let now = Instant::now();
        candidates.sort_by_key(|host| self.hosts[*host].rests_until.is_some_and(|until| until > now));
        candidates
    }

    fn rest(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        host.failures = (host.failures + 1).min(16);
        host.rests_until =
            self.config.max_backoff.map(|max| Instant::now() + max.min(Duration::from_secs(1 << (host.failures - 1))));
    }

    /// Cuts a batch that is too large for one request.
    fn cut(&self, mut batch: Batch) -> Vec<Batch> {
        let count = batch.len().div_ceil(self.config.batch_size);
        (0..count).map(|_| batch.split_to(self.config.batch_size)).collect()
    }

    async fn send_to(&mut self, host: usize, requests: &[Batch]) -> Result<(), Cause> {
        let limit = self.config.request_timeout;
        let in_flight = self.config.in_flight;
        let Some(connection) = &mut self.hosts[host].connection else { return Err("there is no connection".into()) };
        for requests in requests.chunks(in_flight) {
            let answered = timeout(limit, connection.append(requests)).await;
            answered.map_err(|_| format!("RPC request timed out after {} ms", limit.as_millis()))??;
        }
        if self.config.order == Order::Failover {
            self.current = host;
        }
        Ok(())
    }

    /// Makes sure that there is a connection to a host.
    async fn verify_connection(&mut self, number: usize) -> Result<(), Cause> {
        let host = &mut self.hosts[number];
        if host.connection.as_mut().is_some_and(|connection| !connection.is_usable()) {
            debug!("{}:{} has closed the connection", host.endpoint.host, host.endpoint.port);
            self.disconnect(number).await;
        }
        let host = &mut self.hosts[number];
        if host.connection.is_none() {
            let stream = host.endpoint.connect().await.inspect_err(|_| self.counters.connection_failed.add(1))?;
            self.counters.connection_created.add(1);
            host.connection = Some(self.protocol.open(stream));
        }
        Ok(())
    }

    async fn disconnect(&mut self, host: usize) {
        if let Some(mut connection) = self.hosts[host].connection.take() {
            // The server may be gone; there is nothing to lose.
            timeout(LAST_ANSWERS, connection.close()).await.ok();
            self.counters.connection_closed.add(1);
        }
    }

    /// Ends all connections. The next batch makes new ones.
    pub async fn close(&mut self) {
        for host in 0..self.hosts.len() {
            self.disconnect(host).await;
        }
    }

    fn error(&self, host: usize, what: &'static str, source: Cause) -> SendError {
        let Endpoint { host, port, .. } = &self.hosts[host].endpoint;
        SendError { client: self.protocol.client(), host: host.clone(), port: *port, what, source }
    }
}
