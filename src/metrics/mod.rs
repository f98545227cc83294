//! What an agent counts, and how it is shown: Flume's JSON, Prometheus text, and the lines at stop.
//!
//! Every component has a group of counters with Flume's names. All changes that belong to one movement of events
//! are made in one [`Ledger`] entry, and a scrape reads between entries, so that at every scrape what the sources
//! accepted is what they dropped, the sinks delivered and the channels hold.

mod counters;
mod http;
mod render;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use counters::{ChannelCounters, Counter, CounterGroup, Extras, SinkCounters, SourceCounters};
pub use http::{MetricsServer, Page};
pub use render::{json, prometheus};

/// Keeps changes that belong together apart from scrapes: any number of entries at a time, or one reading.
#[derive(Debug, Default)]
pub struct Ledger(RwLock<()>);

impl Ledger {
    /// Opens an entry: until it is dropped no scrape reads. Once per batch, never across an `await`.
    pub fn entry(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All counter groups of an agent.
#[derive(Debug, Default)]
pub struct Metrics {
    /// The lock under which counters change.
    pub ledger: Arc<Ledger>,
    groups: Mutex<BTreeMap<String, Arc<dyn CounterGroup>>>,
}

/// One group as it was at a scrape.
#[derive(Clone, Debug)]
pub struct Sample {
    /// `SOURCE`, `CHANNEL` or `SINK`.
    pub kind: &'static str,
    /// The component's name.
    pub name: String,
    /// Attributes by Flume's names, `Type`, `StartTime` and `StopTime` among them.
    pub attributes: Vec<(&'static str, String)>,
}

impl Metrics {
    /// The group of this kind and name: the one that exists, so that a component that is built anew goes on
    /// counting, or else `new`.
    pub fn register<G: CounterGroup + 'static>(&self, new: Arc<G>) -> Arc<G> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{}.{}", new.kind(), new.name());
        if let Some(old) = groups.get(&key).and_then(|old| Arc::clone(old).into_any().downcast::<G>().ok()) {
            return old;
        }
        groups.insert(key, Arc::clone(&new) as Arc<dyn CounterGroup>);
        new
    }

    /// All groups whose component has been started, at one moment.
    pub fn sample(&self) -> Vec<Sample> {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let _reading = self.ledger.reading();
        let started = groups.values().filter(|group| group.start_time() != 0);
        let sample = |group: &Arc<dyn CounterGroup>| Sample {
            kind: group.kind(),
            name: group.name().to_owned(),
            attributes: group.attributes(),
        };
        started.map(sample).collect()
    }
}
