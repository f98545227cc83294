//! The Spark sink: hands events to those who ask for them, such as Spark Streaming's `createPollingStream`.
//!
//! A client asks for so many events and gets those that are there, once there is at least one. They leave the channel
//! when the client acknowledges their batch; a nack, the timeout, or the end of the connection that asked for them puts
//! them back. Flume's notices the end of a connection only by the timeout, waits three seconds to fill a batch, and gives
//! nothing when more is asked for than the channel's `transactionCapacity`, where this gives as much as that allows.
//!
//! Keys: `hostname` (0.0.0.0), `port`, `threads` (10 batches that wait for an ack; further requests wait), `timeout`
//! (60 seconds for an ack), `backoffInterval` (200 ms before a request is answered with an error, as clients ask again at
//! once); not Flume's: `max-connections` (1000).

use std::collections::HashMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{BuiltSink, Outlet, PullSink, SinkBuilder, SinkConfig, SinkError};
use crate::channel::Take;
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::logging::{Excerpt, Limited};
use crate::metrics::SinkCounters;
use crate::net;
use crate::rpc::avro::protocol::SPARK_FLUME;
use crate::rpc::avro::responder::{Call, java_error};
use crate::rpc::avro::server::{Server, Service};
use crate::rpc::server::Limits;
use crate::rpc::spark::EventBatch;

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["spark"],
    class: "org.apache.spark.streaming.flume.sink.SparkSink",
    build: |props| Some(Box::new(Arc::new(SparkConfig::from_props(props)?))),
};

/// Requests are small.
const LIMITS: Limits = Limits { request_bytes: 1 << 20, timeout: Duration::from_secs(60) };
/// An ack has no result: the datum of null.
const NULL: &[u8] = &[];
/// The error that Spark's sink gives for a request of no events.
const NO_EVENTS: &str = "Tried several times, but did not get any events from the channel!";
const STOPPED: &str = "Spark sink has been stopped!";

/// The Spark sink's keys.
struct SparkConfig {
    hostname: String,
    port: u16,
    threads: usize,
    timeout: Duration,
    backoff: Duration,
    max_connections: usize,
}

impl SparkConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let flume = "The port to bind to must be specified";
        let config = Self {
            hostname: props.or("hostname", "0.0.0.0".to_owned()),
            port: props.required("port", "a port to listen on", flume),
            threads: props.positive("threads", 10, "batches"),
            timeout: Duration::from_secs(props.positive("timeout", 60, "seconds") as u64),
            backoff: Duration::from_millis(props.positive("backoffInterval", 200, "milliseconds") as u64),
            max_connections: props.positive("max-connections", 1000, "connections"),
        };
        props.finish(config)
    }
}

impl SinkConfig for Arc<SparkConfig> {
    fn batch_size(&self) -> Option<usize> {
        None
    }

    fn is_pulled(&self) -> bool {
        true
    }

    fn build(&self, name: &str, _counters: Arc<SinkCounters>) -> BuiltSink {
        BuiltSink::Pull(Box::new(SparkSink { name: name.to_owned(), config: Self::clone(self), listener: None }))
    }
}

struct SparkSink {
    name: String,
    config: Arc<SparkConfig>,
    listener: Option<TcpListener>,
}

#[async_trait]
impl PullSink for SparkSink {
    async fn start(&mut self) -> Result<(), SinkError> {
        let SparkConfig { hostname, port, threads, timeout, .. } = &*self.config;
        info!(
            "Starting Spark Sink: {} on port: {port} and interface: {hostname} with pool size: {threads} and transaction timeout: {}.",
            self.name,
            timeout.as_secs()
        );
        let listener = net::listen(hostname, *port)
            .await
            .map_err(|error| SinkError::io(format!("could not listen on {hostname}:{port}"), error))?;
        let address = listener.local_addr().map_err(|error| SinkError::io("the socket has no address", error))?;
        info!("Spark sink {}: listening on {address}", self.name);
        self.listener = Some(listener);
        Ok(())
    }

    async fn run(&mut self, outlet: &Outlet, stop: &CancellationToken) -> Result<(), SinkError> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        // Spark takes the first eight digits of a random UUID, so that numbers of an earlier run mean nothing.
        let run = getrandom::u32().map_err(|error| SinkError::new(format!("no random number: {error}")))?;
        let counter = Arc::new(Counter {
            sink: self.name.clone(),
            run: format!("{run:08x}"),
            config: Arc::clone(&self.config),
            outlet: outlet.clone(),
            workers: Arc::new(Semaphore::new(self.config.threads)),
            last: AtomicU64::new(0),
            outstanding: Mutex::default(),
            complaints: Limited::default(),
            stop: stop.clone(),
        });
        let server = Arc::new(Server::new(&SPARK_FLUME, LIMITS));
        let label = format!("Spark sink {}", self.name);
        net::serve(listener, &label, self.config.max_connections, stop, |socket, peer| {
            let client = Client { peer, counter: Arc::clone(&counter), batches: Vec::new() };
            let server = Arc::clone(&server);
            async move { client.serve(socket, &server).await }
        })
        .await;
        info!("Stopping Spark Sink: {}", self.name);
        Ok(())
    }
}

/// A batch that a client has and has not acknowledged. Dropped, its events go back to the channel.
struct Outstanding {
    take: Take,
    asked: usize,
    _worker: OwnedSemaphorePermit,
    _expiry: AbortOnDropHandle<()>,
}

/// Where events are handed out, and acks come in, for all clients.
struct Counter {
    sink: String,
    run: String,
    config: Arc<SparkConfig>,
    outlet: Outlet,
    workers: Arc<Semaphore>,
    /// The number of the last batch.
    last: AtomicU64,
    outstanding: Mutex<HashMap<String, Outstanding>>,
    complaints: Limited,
    stop: CancellationToken,
}

impl Counter {
    fn outstanding(&self) -> MutexGuard<'_, HashMap<String, Outstanding>> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes events for a client. Cut off, it has taken none.
    async fn hand_out(self: &Arc<Self>, wanted: i64) -> Result<(String, Batch), String> {
        match wanted {
            0 => return Err(NO_EVENTS.to_owned()),
            ..0 => return Err(format!("Illegal Capacity: {wanted}")),
            _ => {}
        }
        let asked = (wanted as usize).min(self.outlet.transaction_capacity());
        let taken = self.stop.run_until_cancelled(async {
            let worker = Arc::clone(&self.workers).acquire_owned().await.map_err(|error| error.to_string())?;
            let take = self.outlet.take(asked).await.map_err(|error| error.to_string())?;
            Ok::<_, String>((worker, take))
        });
        let (worker, take) = taken.await.unwrap_or_else(|| Err(STOPPED.to_owned()))?;
        let sequence = format!("{}{}", self.run, self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let events = take.batch().clone();
        let expiry = tokio::spawn({
            let (counter, sequence) = (Arc::clone(self), sequence.clone());
            async move {
                tokio::time::sleep(counter.config.timeout).await;
                counter.give_up(&sequence, "no ack within the timeout");
            }
        });
        let batch = Outstanding { take, asked, _worker: worker, _expiry: AbortOnDropHandle::new(expiry) };
        self.outstanding().insert(sequence.clone(), batch);
        Ok((sequence, events))
    }

    /// Removes the events of a batch from the channel. A number that is not, or no longer, known has no effect.
    async fn ack(&self, sequence: &str) {
        let removed = self.outstanding().remove(sequence);
        let Some(Outstanding { take, asked, .. }) = removed else {
            self.complain(&format_args!("an ack for batch {sequence}, which is not, or no longer, waiting for one"));
            return;
        };
        if let Err(error) = self.outlet.commit(take, asked).await {
            self.complain(&format_args!("batch {sequence} is acknowledged, but comes again: {error}"));
        }
    }

    /// Puts the events of a batch back.
    fn give_up(&self, sequence: &str, why: &str) {
        // What follows must not hold the lock.
        let removed = self.outstanding().remove(sequence);
        if let Some(batch) = removed {
            if !self.stop.is_cancelled() {
                self.outlet.counters().event_write_fail.add(1);
            }
            self.complain(&format_args!(
                "the {} events of batch {sequence} go back to the channel: {why}",
                batch.take.batch().len()
            ));
        }
    }

    fn complain(&self, what: &dyn Display) {
        if let Some(others) = self.complaints.permit() {
            warn!("Spark sink {}: {}{others}", self.sink, Excerpt(what));
        }
    }
}

/// One client.
struct Client {
    peer: SocketAddr,
    counter: Arc<Counter>,
    /// The numbers of its batches that it has not settled.
    batches: Vec<String>,
}

impl Drop for Client {
    fn drop(&mut self) {
        // The first batch goes back last, to the front of the channel.
        let why = match self.counter.stop.is_cancelled() {
            true => "the sink stops".to_owned(),
            false => format!("{} is gone", self.peer),
        };
        for sequence in self.batches.iter().rev() {
            self.counter.give_up(sequence, &why);
        }
        self.counter.outlet.counters().connection_closed.add(1);
    }
}

impl Client {
    async fn serve(mut self, mut socket: TcpStream, server: &Server) {
        let counter = Arc::clone(&self.counter);
        counter.outlet.counters().connection_created.add(1);
        socket.set_nodelay(true).ok();
        server.serve(&mut socket, &mut self, &counter.stop).await;
    }

    async fn event_batch(&mut self, wanted: i64) -> Vec<u8> {
        let mut datum = Vec::new();
        match self.counter.hand_out(wanted).await {
            Ok((sequence, events)) => {
                EventBatch::put(&mut datum, "", &sequence, &events);
                // Those that have timed out are nobody's any more.
                self.batches.retain(|batch| self.counter.outstanding().contains_key(batch));
                self.batches.push(sequence);
            }
            Err(error) => {
                self.counter.complain(&format_args!("a request of {} for {wanted} events: {error}", self.peer));
                let pause = tokio::time::sleep(self.counter.config.backoff);
                self.counter.stop.run_until_cancelled(pause).await;
                EventBatch::put(&mut datum, &error, "", &Batch::new());
            }
        }
        datum
    }
}

impl Service for Client {
    const ENDS_WITH_INPUT: bool = true;

    async fn call(&mut self, call: &Call) -> Result<Vec<u8>, String> {
        let malformed = |error| {
            self.complain(&error);
            java_error(error)
        };
        if call.message == "getEventBatch" {
            let wanted = call.long("n").map_err(malformed)?;
            return Ok(self.event_batch(wanted).await);
        }
        let sequence = call.text("sequenceNumber").map_err(malformed)?;
        self.batches.retain(|batch| *batch != sequence);
        match call.message {
            "ack" => self.counter.ack(&sequence).await,
            _ => self.counter.give_up(&sequence, &format!("{} could not store them", self.peer)),
        }
        Ok(NULL.to_vec())
    }

    fn complain(&self, what: &dyn Display) {
        self.counter.complain(&format_args!("{} sent a request that cannot be executed: {what}", self.peer));
    }

    fn lost(&self, why: &dyn Display) {
        self.counter.outlet.counters().connection_failed.add(1);
        self.counter.complain(&format_args!("the connection from {} is closed: {why}", self.peer));
    }
}
