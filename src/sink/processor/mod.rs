//! Sink processors: which sink of a group gets the next batch.
//!
//! A group's sinks have one runner. It asks the processor whom to try, waits for events in their channels, and tells
//! the processor what became of them. A batch that one sink could not deliver goes back to its channel, from where the
//! next one takes it.

mod failover;
mod load_balance;

use std::time::Duration;

use tokio::time::Instant;

use crate::config::{ComponentType, Props};

/// Decides for the sinks of one group, which it knows by their numbers.
pub trait SinkProcessor: Send {
    /// The sinks that may get the next batch, the best first. Of several with the same channel only the first is tried;
    /// of several channels the one that has events. None: nobody may, for now.
    fn candidates(&mut self, now: Instant) -> Vec<usize>;

    /// When the candidates change with nobody's doing: some time after `now`.
    fn next_change(&self, now: Instant) -> Option<Instant>;

    /// A sink has delivered a batch.
    fn delivered(&mut self, sink: usize);

    /// A sink has failed. Whether another one is to be tried at once.
    fn failed(&mut self, sink: usize, error: &str, now: Instant) -> bool;

    /// What to say when no other one is to be tried.
    fn all_failed(&self) -> &'static str;
}

/// Reads a processor's configuration for a group of these sinks; `None` when it has errors.
pub type ProcessorBuilder = fn(&mut Props<'_>, sinks: &[String]) -> Option<Box<dyn SinkProcessor>>;

/// All processors of more than one sink.
pub const TYPES: &[ComponentType<ProcessorBuilder>] = &[failover::TYPE, load_balance::TYPE];

/// The processor of a single sink, which does nothing.
pub const DEFAULT_ALIAS: &str = "default";
/// Its class.
pub const DEFAULT_CLASS: &str = "org.apache.flume.sink.DefaultSinkProcessor";

/// How long a sink rests that has failed so many times one after the other: 2 s, 4 s, 8 s and so on.
fn rest(failures: u32, limit: Duration) -> Duration {
    (Duration::from_secs(1) * (1 << failures.min(16))).min(limit)
}
