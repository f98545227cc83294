//! Channels: where events wait between a source and a sink.
//!
//! The contract has two phases on the way in and a guard on the way out:
//!
//! - [`Channel::reserve`] waits up to the channel's keep-alive for room and gives a [`Put`]; once it is there the
//!   batch cannot be refused for want of room. A source reserves in every required channel before it commits to
//!   any, so a full second channel never leaves half a delivery behind.
//! - [`Channel::take`] waits for at least one event and returns at once with what is there. The [`Take`] holds the
//!   events until it is committed; dropped, it rolls back and they return to the head in their order.

#[cfg(test)]
mod contract;
mod error;
pub mod file;
mod kafka;
pub mod memory;
mod room;
pub mod spillable;

use std::sync::Arc;

use async_trait::async_trait;

pub use error::ChannelError;
pub(crate) use file::Ranges;

use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::metrics::{ChannelCounters, Metrics};

/// All channel types that the agent has.
pub const TYPES: &[ComponentType<ChannelBuilder>] = &[memory::TYPE, file::TYPE, spillable::TYPE, kafka::TYPE];

/// Reads a channel's configuration; `None` when it has errors, which the properties have noted.
pub type ChannelBuilder = fn(&mut Props<'_>) -> Option<Box<dyn ChannelConfig>>;

/// A channel's configuration, read and found valid.
pub trait ChannelConfig: Send {
    /// The most events that one transaction may hold, when the type has such a limit.
    fn transaction_capacity(&self) -> Option<usize>;
    /// Where it keeps its events, when that is on disk.
    fn directories(&self) -> Option<&file::Directories> {
        None
    }
    /// Makes the channel.
    fn build(self: Box<Self>, name: &str, metrics: &Metrics) -> Arc<dyn Channel>;
    /// Gives this configuration to a channel that runs and keeps its events; `false` when the channel is of
    /// another type or must be built anew.
    fn apply(&self, running: &dyn Channel) -> bool;
}

/// How long to wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as the channel is configured to.
    KeepAlive,
    /// Until there is some.
    Endless,
}

/// How far a source has come in a stream that it reads: everything before `next` is in the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The stream, which has got its number by chance.
    pub stream: u128,
    /// The next place in it, above 0.
    pub next: u64,
}

/// A buffer of events with transactions.
#[async_trait]
pub trait Channel: Send + Sync {
    /// The name in the configuration.
    fn name(&self) -> &str;

    /// What it counts.
    fn counters(&self) -> &Arc<ChannelCounters>;

    /// The most events that one transaction may hold.
    fn transaction_capacity(&self) -> usize;

    /// How many events would fit at this moment; a hint, as others put and take.
    fn room(&self) -> usize;

    /// How many of its events are in memory only, and end with the process.
    fn in_memory(&self) -> u64;

    /// For access to the concrete type when a configuration is applied.
    fn as_any(&self) -> &dyn std::any::Any;

    /// Whether it stores the notes of puts together with the events, so that after any crash both are there or neither.
    fn keeps_notes(&self) -> bool {
        false
    }

    /// How far a stream is by the notes of the puts that were committed, in a channel that keeps such and is open.
    fn noted(&self, _stream: u128) -> Option<u64> {
        None
    }

    /// Opens it.
    async fn start(&self) -> Result<(), ChannelError>;

    /// Brings what is in memory only to the disk behind it, if there is one, when nobody puts or takes any more.
    async fn save(&self) {}

    /// Closes it; nothing is put or taken afterwards.
    async fn stop(&self);

    /// Reserves room for a batch without waiting.
    fn try_reserve(&self, batch: &Batch) -> Result<Put, ChannelError>;

    /// As [`try_reserve`](Self::try_reserve), for those who will not wait afterwards either.
    fn reserve_at_once(&self, batch: &Batch) -> Result<Put, ChannelError> {
        self.try_reserve(batch)
    }

    /// Reserves room for a batch and waits for it.
    async fn reserve(&self, batch: &Batch, patience: Patience) -> Result<Put, ChannelError>;

    /// Waits for at least one event and takes what is there, at most `max` and the transaction capacity.
    async fn take(&self, max: usize) -> Result<Take, ChannelError>;

    /// Waits until the channel holds nothing, neither queued nor taken; one that is memory in front of a disk, nothing in
    /// memory.
    async fn drained(&self);
}

/// One channel's side of a put: room that is reserved until it is used or dropped.
#[async_trait]
pub trait PutTransaction: Send {
    /// Has notes stored together with the batch, where the channel keeps such.
    fn note(&mut self, _notes: &Arc<[Note]>) {}
    /// Makes the batch as durable as the channel promises; no sink sees it yet.
    async fn prepare(&mut self, batch: &Batch) -> Result<(), ChannelError>;
    /// Whether [`prepare`](Self::prepare) does anything.
    fn needs_prepare(&self) -> bool {
        false
    }
    /// Makes the batch visible to sinks and counts it.
    fn commit(self: Box<Self>, batch: Batch);
}

/// Room reserved in one channel.
#[must_use = "a put that is dropped gives its room back"]
pub struct Put(Box<dyn PutTransaction>);

impl Put {
    /// Wraps a channel's transaction.
    pub fn new(transaction: impl PutTransaction + 'static) -> Self {
        Self(Box::new(transaction))
    }

    /// Has notes stored together with the batch, where the channel keeps such; to be called before it is prepared.
    pub fn note(&mut self, notes: &Arc<[Note]>) {
        self.0.note(notes);
    }

    /// First phase: makes the batch as durable as the channel promises.
    pub async fn prepare(&mut self, batch: &Batch) -> Result<(), ChannelError> {
        if self.needs_prepare() { self.0.prepare(batch).await } else { Ok(()) }
    }

    /// Whether the first phase does anything.
    pub fn needs_prepare(&self) -> bool {
        self.0.needs_prepare()
    }

    /// Second phase: makes the batch visible. It cannot fail.
    pub fn commit(self, batch: Batch) {
        self.0.commit(batch);
    }
}

/// Which events a take holds. A sink that stores this together with what it delivers can tell, after a crash, what it
/// has delivered already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// What the numbers belong to: they mean nothing in another channel, nor in one that has begun anew.
    pub channel: Arc<str>,
    /// The events' numbers in their order, as ranges: the first number and the one behind the last.
    pub ranges: Vec<(u64, u64)>,
}

impl Numbers {
    /// The number of each event.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.ranges.iter().flat_map(|(from, to)| *from..*to)
    }
}

/// One channel's side of a take.
#[async_trait]
pub trait TakeTransaction: Send {
    /// The events.
    fn batch(&self) -> &Batch;
    /// The events' numbers, in a channel where an event keeps its number through every crash.
    fn numbers(&self) -> Option<Numbers> {
        None
    }

    /// Makes the take as durable as the channel promises. Without this, a take that is lost with a crash is delivered
    /// again.
    async fn prepare(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }
    /// Whether [`prepare`](Self::prepare) does anything.
    fn needs_prepare(&self) -> bool {
        false
    }
    /// Removes the events for good and counts them.
    fn commit(&mut self);
    /// Puts the events back at the head, in their order.
    fn roll_back(&mut self);
}

/// Events taken from a channel, which return to it unless they are committed.
#[must_use = "a take that is dropped rolls back"]
pub struct Take {
    transaction: Box<dyn TakeTransaction>,
    committed: bool,
}

impl Take {
    /// Wraps a channel's transaction.
    pub fn new(transaction: impl TakeTransaction + 'static) -> Self {
        Self { transaction: Box::new(transaction), committed: false }
    }

    /// The events.
    pub fn batch(&self) -> &Batch {
        self.transaction.batch()
    }

    /// Whether the first phase does anything.
    pub fn needs_prepare(&self) -> bool {
        self.transaction.needs_prepare()
    }

    /// The events' numbers, in a channel where an event keeps its number through every crash.
    pub fn numbers(&self) -> Option<Numbers> {
        self.transaction.numbers()
    }

    /// First phase: makes the take as durable as the channel promises. An error, or an `await` that is cut off,
    /// leaves the take open, and dropping it delivers again.
    pub async fn prepare(&mut self) -> Result<(), ChannelError> {
        if self.needs_prepare() { self.transaction.prepare().await } else { Ok(()) }
    }

    /// Second phase: removes the events for good.
    pub fn commit(mut self) {
        self.transaction.commit();
        self.committed = true;
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        if !self.committed {
            self.transaction.roll_back();
        }
    }
}
