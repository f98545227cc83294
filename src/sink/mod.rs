//! Sinks: where events go.
//!
//! A sink delivers a batch or says why not. The runner owns take and commit, so a sink cannot lose events. A sink whose
//! events are fetched by somebody else is a [`PullSink`]: it takes them from its [`Outlet`] and commits when told to.

mod avro;
pub mod file_roll;
mod http;
mod kafka;
mod logger;
mod null;
mod outlet;
pub mod processor;
mod rpc;
mod spark;
mod thrift;

use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use logger::hex_dump;
pub use outlet::Outlet;

use crate::channel::Numbers;
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::metrics::SinkCounters;

/// All sink types that the agent has.
pub const TYPES: &[ComponentType<SinkBuilder>] =
    &[logger::TYPE, null::TYPE, file_roll::TYPE, avro::TYPE, thrift::TYPE, http::TYPE, spark::TYPE, kafka::TYPE];

/// Reads a sink's configuration; `None` when it has errors, which the properties have noted.
pub type SinkBuilder = fn(&mut Props<'_>) -> Option<Box<dyn SinkConfig>>;

/// A sink's configuration, read and found valid.
pub trait SinkConfig: Send + Sync {
    /// The batch size that the sink declares, to be compared with its channel's transaction capacity.
    fn batch_size(&self) -> Option<usize>;
    /// Whether the sink waits for a disk or the like. Such a sink gets a thread of its own, so that it holds up nobody
    /// else; it must hear the stop between batches, as it cannot be cut off within one.
    fn blocks(&self) -> bool {
        false
    }
    /// Whether its events are fetched by somebody else, so that it cannot be one of a group.
    fn is_pulled(&self) -> bool {
        false
    }
    /// The key and the value of the name under which it delivers each event once, which is its alone. It must know all
    /// that leaves its channel.
    fn transactional_id(&self) -> Option<(&'static str, &str)> {
        None
    }
    /// Called when it is one of a group, whose other sinks get their turn when it fails: it must not be patient for ever.
    fn join_group(&mut self) {}
    /// Makes the sink. Called again when the sink has failed and is to start anew.
    fn build(&self, name: &str, counters: Arc<SinkCounters>) -> BuiltSink;
}

/// A sink of either kind.
pub enum BuiltSink {
    /// One that is given batches.
    Push(Box<dyn Sink>),
    /// One that fetches them when it is asked to.
    Pull(Box<dyn PullSink>),
}

/// A sink that runs.
#[async_trait]
pub trait Sink: Send {
    /// The most events that it takes at once.
    fn batch_size(&self) -> usize;

    /// Everything that can fail at start. Tried again with back-off.
    async fn start(&mut self) -> Result<(), SinkError>;

    /// Delivers a batch: `Ok` means that its events may leave the channel. After an error the same events come again.
    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError>;

    /// How many batches it can have under way at once, for now: it is asked before each that follows another. With more
    /// than one, [`begin`](Self::begin) and [`end`](Self::end) are called for each, in the same order.
    fn depth(&self) -> usize {
        1
    }

    /// Begins to deliver a batch, whose events have these numbers if their channel gives them any.
    async fn begin(&mut self, batch: &Batch, _numbers: Option<Numbers>) -> Result<(), SinkError> {
        self.deliver(batch).await
    }

    /// Ends the delivery of the oldest batch that has begun, with the meaning of [`deliver`](Self::deliver).
    async fn end(&mut self, _batch: &Batch) -> Result<(), SinkError> {
        Ok(())
    }

    /// How the batch just delivered is to be taken. Asked once for each.
    fn delivered(&mut self) -> Delivered {
        Delivered::default()
    }

    /// When [`tick`](Self::tick) is due even without events, for sinks that do something by the clock.
    fn next_tick(&self) -> Option<Instant> {
        None
    }

    /// Does what is due.
    async fn tick(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Finishes what is open. Everything delivered is safe already.
    async fn stop(&mut self) {}
}

/// An event that no attempt will deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its place in the batch.
    pub index: usize,
    /// Why.
    pub why: String,
}

/// How a delivered batch is to be taken, where the other side has a say in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Whether the next batch waits for a while.
    pub pause: bool,
    /// Whether its events count as delivered.
    pub count: bool,
    /// Those of its events that can never be delivered.
    pub refused: Vec<Refused>,
}

impl Default for Delivered {
    fn default() -> Self {
        Self { pause: false, count: true, refused: Vec::new() }
    }
}

/// A sink that hands out events when somebody asks for them.
#[async_trait]
pub trait PullSink: Send {
    /// Everything that can fail at start. Tried again with back-off.
    async fn start(&mut self) -> Result<(), SinkError>;

    /// Serves until it is told to stop.
    async fn run(&mut self, outlet: &Outlet, stop: &CancellationToken) -> Result<(), SinkError>;
}

/// Why a sink could not start, deliver or go on.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct SinkError {
    what: String,
    #[source]
    source: Option<std::io::Error>,
    pause: Option<bool>,
}

impl SinkError {
    /// An error with its cause.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self { what: what.into(), source: Some(source), pause: None }
    }

    /// An error without a deeper cause.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None, pause: None }
    }

    /// No failure of the sink: it has told that the batch goes back to the channel, and whether it waits there for a
    /// while.
    pub fn rolled_back(what: impl Into<String>, pause: bool) -> Self {
        Self { what: what.into(), source: None, pause: Some(pause) }
    }

    /// Whether a batch that [was rolled back](Self::rolled_back) waits; `None` for a failure.
    pub fn pause(&self) -> Option<bool> {
        self.pause
    }
}
