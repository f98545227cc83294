//! The spillable memory channel: a [memory channel](super::memory) in front of a [file channel](super::file), its
//! overflow, which takes what the memory has had no room for as long as `overflowTimeout`.
//!
//! Every batch goes as a whole to one of the two, and events are taken in the order in which their batches came, from
//! wherever they are. A process that is killed loses what was in memory; one that stops in order first waits for the
//! sinks, and then brings what is left in memory to the disk, behind what is there.
//!
//! Keys: `memoryCapacity` (10000; 0 for the disk only), `overflowCapacity` (100000000; 0 for the memory only),
//! `overflowTimeout` (3 seconds), `overflowDeactivationThreshold` (5: the percentage of the memory that must be free
//! before puts wait for it again), `byteCapacity` (80 % of the heap that Flume's Java would have),
//! `byteCapacityBufferPercentage` (20), `avgEventSize` (500: the bytes in which bodies are counted), and those of the
//! file channel except `capacity` and `keep-alive`.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Notify;
use tracing::{error, info};

use super::file::{Directories, FileChannel, FileConfig, Tuning};
use super::memory::{MemoryChannel, MemoryConfig, byte_slots};
use super::room::within;
use super::{
    Channel, ChannelBuilder, ChannelConfig, ChannelError, Patience, Put, PutTransaction, Take, TakeTransaction,
};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::fs::{Disk, FileSystem};
use crate::metrics::{ChannelCounters, Ledger, Metrics};

/// How the type is registered.
pub const TYPE: ComponentType<ChannelBuilder> = ComponentType {
    aliases: &["spillablememory"],
    class: "org.apache.flume.channel.SpillableMemoryChannel",
    build: |props| Some(Box::new(SpillableConfig::from_props(props)?)),
};

const MEMORY_CAPACITY: i32 = 10_000;
const OVERFLOW_CAPACITY: i32 = 100_000_000;
const OVERFLOW_TIMEOUT_SECONDS: i32 = 3;
const DEACTIVATION_PERCENTAGE: i32 = 5;
const AVERAGE_EVENT_BYTES: i32 = 500;

/// A spillable memory channel's keys.
#[derive(Clone, Debug, PartialEq)]
pub struct SpillableConfig {
    /// The memory.
    pub memory: MemoryConfig,
    /// The overflow.
    pub overflow: FileConfig,
    /// Whether nothing goes to the overflow; what it holds already is delivered.
    pub memory_only: bool,
    /// The part of the memory that must be free before puts wait for it again, in percent.
    pub deactivation_percentage: usize,
}

impl SpillableConfig {
    /// Reads the keys. Flume starts with the default where a number is wrong, and so does this, with a warning.
    pub fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let events = "a whole number of events, at least 0";
        let not_negative = |n: &i32| *n >= 0;
        let flume = format!(
            "Invalid memoryCapacity specified, initializing {} channel to default value of {MEMORY_CAPACITY}",
            props.name()
        );
        let memory_capacity = props.lenient("memoryCapacity", MEMORY_CAPACITY, not_negative, events, &flume) as usize;
        let mut overflow_capacity = props.lenient("overflowCapacity", OVERFLOW_CAPACITY, |_| true, events, "");
        if memory_capacity == 0 && overflow_capacity < 1 {
            let message =
                format!("expected at least 1 where memoryCapacity is 0; the default, {OVERFLOW_CAPACITY}, is used");
            props.warning("overflowCapacity", &message);
            overflow_capacity = OVERFLOW_CAPACITY;
        }
        let memory_only = overflow_capacity < 1;
        let seconds = "a whole number of seconds, at least 0";
        let timeout = props.lenient("overflowTimeout", OVERFLOW_TIMEOUT_SECONDS, not_negative, seconds, "");
        let timeout = Duration::from_secs(timeout as u64);
        let percentage = |n: &i32| (0..=100).contains(n);
        let threshold =
            props.lenient("overflowDeactivationThreshold", DEACTIVATION_PERCENTAGE, percentage, "a percentage", "");
        let bytes = "a whole number of bytes, at least 1";
        let slot_bytes = props.lenient("avgEventSize", AVERAGE_EVENT_BYTES, |n| *n > 0, bytes, "") as usize;
        let byte_slots = byte_slots(props, slot_bytes);
        for (key, instead) in [("capacity", "memoryCapacity and overflowCapacity"), ("keep-alive", "overflowTimeout")] {
            if props.text(key).is_some() {
                props.warning(key, &format!("has no effect in this channel; {instead} say it here"));
            }
        }
        // A file channel of no capacity has the default one, in Flume as well.
        let file_capacity = if memory_only { OVERFLOW_CAPACITY } else { overflow_capacity };
        let overflow = FileConfig::of_size(props, file_capacity as usize, timeout)?;
        let memory = MemoryConfig {
            capacity: memory_capacity,
            transaction_capacity: memory_capacity,
            keep_alive: timeout,
            byte_slots,
            slot_bytes,
        };
        props.finish(Self { memory, overflow, memory_only, deactivation_percentage: threshold as usize })
    }

    fn capacity(&self) -> u64 {
        let overflow = if self.memory_only { 0 } else { self.overflow.capacity };
        (self.memory.capacity + overflow) as u64
    }
}

impl ChannelConfig for SpillableConfig {
    fn transaction_capacity(&self) -> Option<usize> {
        Some(self.overflow.transaction_capacity)
    }

    fn directories(&self) -> Option<&Directories> {
        Some(&self.overflow.directories)
    }

    fn build(self: Box<Self>, name: &str, metrics: &Metrics) -> Arc<dyn Channel> {
        Arc::new(SpillableChannel::new(name, *self, Tuning::default(), Arc::new(Disk), metrics))
    }

    fn apply(&self, running: &dyn Channel) -> bool {
        running.as_any().downcast_ref::<SpillableChannel>().is_some_and(|channel| channel.0.reconfigure(self))
    }
}

/// A spillable memory channel.
pub struct SpillableChannel(Arc<Shared>);

struct Shared {
    memory: MemoryChannel,
    /// Its counters are the whole channel's.
    overflow: FileChannel,
    ledger: Arc<Ledger>,
    config: Mutex<SpillableConfig>,
    state: Mutex<State>,
    /// Sinks take one after the other, so that each knows from where.
    turn: tokio::sync::Mutex<()>,
    /// Wakes the sink whose turn it is.
    filled: Notify,
    /// Wakes those who wait for the channel to open or to stop.
    changed: Notify,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Memory,
    Overflow,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What the overflow holds is not known yet.
    Opening,
    Open,
    Stopped,
}

struct State {
    phase: Phase,
    /// From where the events that are not taken come, in order: how many from which side.
    runs: VecDeque<(Side, usize)>,
    /// Since when the memory has been full. When that is `overflowTimeout` ago, puts go to the overflow at once.
    full_since: Option<Instant>,
    /// How many events the overflow had lost when that was last looked at.
    lost: u64,
}

impl State {
    /// Takes the first events of a side off; returns how many there were.
    fn remove(&mut self, side: Side, events: usize) -> usize {
        let mut left = events;
        for (_, count) in self.runs.iter_mut().filter(|(of, _)| *of == side) {
            if left == 0 {
                break;
            }
            let part = left.min(*count);
            *count -= part;
            left -= part;
        }
        while self.runs.front().is_some_and(|(_, count)| *count == 0) {
            self.runs.pop_front();
        }
        events - left
    }

    /// Takes events of the overflow off that could not be read; returns how many.
    fn forget(&mut self, lost: u64) -> usize {
        let gone = self.remove(Side::Overflow, lost.saturating_sub(self.lost) as usize);
        self.lost += gone as u64;
        gone
    }

    fn push(&mut self, side: Side, events: usize) {
        match self.runs.back_mut() {
            _ if events == 0 => {}
            Some((last, count)) if *last == side => *count += events,
            _ => self.runs.push_back((side, events)),
        }
    }

    fn push_front(&mut self, side: Side, events: usize) {
        match self.runs.front_mut() {
            _ if events == 0 => {}
            Some((first, count)) if *first == side => *count += events,
            _ => self.runs.push_front((side, events)),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> MutexGuard<'_, SpillableConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counters(&self) -> &Arc<ChannelCounters> {
        self.overflow.counters()
    }

    fn name(&self) -> &str {
        self.overflow.name()
    }

    fn side(&self, side: Side) -> &dyn Channel {
        match side {
            Side::Memory => &self.memory,
            Side::Overflow => &self.overflow,
        }
    }

    fn reconfigure(&self, new: &SpillableConfig) -> bool {
        let mut config = self.config();
        let fits = config.memory.slot_bytes == new.memory.slot_bytes;
        if !fits || !self.overflow.reconfigure(&new.overflow) || !self.memory.resize(&new.memory) {
            return false;
        }
        self.counters().capacity.set(new.capacity());
        *config = new.clone();
        true
    }

    /// Begins with what the overflow holds. Nothing is put or taken before.
    fn opened(&self) {
        let mut state = self.state();
        if state.phase == Phase::Opening {
            state.phase = Phase::Open;
            // In this order an event that is lost meanwhile counts as one that waits; the other way round, one would be
            // left over.
            state.push(Side::Overflow, self.counters().size.get() as usize);
            state.lost = self.counters().lost.get();
        }
        drop(state);
        self.changed.notify_waiters();
        self.filled.notify_one();
    }

    fn check(&self) -> Result<(), ChannelError> {
        let channel = || self.name().to_owned();
        match self.state().phase {
            Phase::Open => Ok(()),
            Phase::Stopped => Err(ChannelError::Stopped { channel: channel() }),
            Phase::Opening => {
                let why = self.overflow.try_reserve(&Batch::new()).err();
                Err(why.unwrap_or_else(|| ChannelError::Closed {
                    channel: channel(),
                    why: "it is being opened".to_owned(),
                }))
            }
        }
    }

    async fn until_open(&self) -> Result<(), ChannelError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.check() {
                Err(error) if error.is_transient() => {}
                other => return other,
            }
            changed.await;
        }
    }

    fn put(self: &Arc<Self>, side: Side, put: Put) -> Put {
        if side == Side::Memory {
            let timeout = self.config().memory.keep_alive;
            let mut state = self.state();
            // Puts that go to the overflow at once do so until enough of the memory is free.
            if state.full_since.is_some_and(|since| since.elapsed() < timeout) {
                state.full_since = None;
            }
        }
        Put::new(Spilling { shared: Arc::clone(self), side, put })
    }

    /// How long puts still wait for the memory before they go to the overflow.
    fn patience(&self) -> Duration {
        let timeout = self.config().memory.keep_alive;
        timeout.saturating_sub(self.state().full_since.get_or_insert_with(Instant::now).elapsed())
    }

    fn only_memory_refuses(&self, error: ChannelError) -> ChannelError {
        match error {
            ChannelError::Full => ChannelError::MemoryFull { never: false },
            ChannelError::TransactionTooLarge { .. } => ChannelError::MemoryFull { never: true },
            ChannelError::BytesFull { never, .. } => {
                ChannelError::MemoryBytesFull { free: self.memory.free_bytes(), never }
            }
            other => other,
        }
    }

    /// Room in memory, or in the overflow if that may be used.
    fn try_room(
        self: &Arc<Self>,
        batch: &Batch,
        may_overflow: impl FnOnce(&Self) -> bool,
    ) -> Result<Put, ChannelError> {
        self.check()?;
        match self.memory.try_reserve(batch) {
            Ok(put) => Ok(self.put(Side::Memory, put)),
            Err(refused) if self.config().memory_only => Err(self.only_memory_refuses(refused)),
            Err(refused) if refused.is_transient() && !may_overflow(self) => Err(refused),
            Err(_) => Ok(self.put(Side::Overflow, self.overflow.try_reserve(batch)?)),
        }
    }

    /// Waits for room in memory until it is time to use the overflow, and then for room anywhere.
    async fn room(self: &Arc<Self>, batch: &Batch, patience: Patience) -> Result<Put, ChannelError> {
        if self.config().memory_only {
            let put = self.memory.reserve(batch, patience).await.map_err(|error| self.only_memory_refuses(error))?;
            return Ok(self.put(Side::Memory, put));
        }
        match self.memory.try_reserve(batch) {
            Ok(put) => return Ok(self.put(Side::Memory, put)),
            Err(error) if error.is_transient() => {}
            Err(_) => return Ok(self.put(Side::Overflow, self.overflow.reserve(batch, patience).await?)),
        }
        let memory = self.memory.reserve(batch, Patience::Endless);
        let overflow = async {
            tokio::time::sleep(self.patience()).await;
            self.overflow.reserve(batch, patience).await
        };
        tokio::select! {
            biased;
            put = memory => Ok(self.put(Side::Memory, put?)),
            put = overflow => Ok(self.put(Side::Overflow, put?)),
        }
    }

    /// Takes what comes next; `None` when nothing is there.
    async fn take_next(self: &Arc<Self>, max: usize) -> Result<Option<Take>, ChannelError> {
        let (side, events) = {
            let mut state = self.state();
            if state.phase == Phase::Stopped {
                return Err(ChannelError::Stopped { channel: self.name().to_owned() });
            }
            state.forget(self.counters().lost.get());
            match state.runs.front() {
                Some(next) => *next,
                None => return Ok(None),
            }
        };
        let gone = async {
            match side {
                Side::Memory => std::future::pending().await,
                Side::Overflow => self.overflow.drained().await,
            }
        };
        tokio::select! {
            biased;
            take = self.side(side).take(max.min(events)) => {
                let take = take?;
                let events = take.batch().len();
                self.state().remove(side, events);
                if side == Side::Memory {
                    self.counters().take_attempt.add(events as u64);
                }
                Ok(Some(Take::new(Taken { shared: Arc::clone(self), side, events, take: Some(take) })))
            }
            // What was to come could not be read.
            () = gone => {
                let mut state = self.state();
                if state.forget(self.counters().lost.get()) == 0 {
                    state.remove(Side::Overflow, events);
                }
                Ok(None)
            }
        }
    }

    /// Lets puts wait for the memory again once enough of it is free.
    fn deactivate(&self) {
        let config = self.config();
        let (capacity, percentage) = (config.memory.capacity, config.deactivation_percentage);
        let timeout = config.memory.keep_alive;
        drop(config);
        if capacity == 0 || self.memory.room() * 100 < capacity * percentage {
            return;
        }
        if self.state().full_since.take().is_some_and(|since| since.elapsed() >= timeout) {
            info!("Overflow Deactivated");
        }
    }

    /// Brings one batch from the memory to the overflow; returns how many events that were.
    async fn move_batch(&self) -> Result<usize, ChannelError> {
        let mut take = self.memory.take(self.overflow.transaction_capacity()).await?;
        let batch = take.batch().clone();
        let mut put = self.overflow.try_reserve(&batch)?;
        put.prepare(&batch).await?;
        take.prepare().await?;
        let _entry = self.ledger.entry();
        let (events, counters) = (batch.len(), self.counters());
        // They were counted when they came.
        counters.size.sub(events as u64);
        counters.put_success.sub(events as u64);
        put.commit(batch);
        take.commit();
        Ok(events)
    }
}

impl SpillableChannel {
    /// A channel that is not open yet.
    pub fn new(
        name: &str,
        config: SpillableConfig,
        tuning: Tuning,
        fs: Arc<dyn FileSystem>,
        metrics: &Metrics,
    ) -> Self {
        let overflow = FileChannel::new(name, config.overflow.clone(), tuning, fs, metrics);
        overflow.counters().capacity.set(config.capacity());
        Self(Arc::new(Shared {
            memory: MemoryChannel::new(name, config.memory.clone(), &Metrics::default()),
            overflow,
            ledger: Arc::clone(&metrics.ledger),
            config: Mutex::new(config),
            state: Mutex::new(State { phase: Phase::Opening, runs: VecDeque::new(), full_since: None, lost: 0 }),
            turn: tokio::sync::Mutex::new(()),
            filled: Notify::new(),
            changed: Notify::new(),
        }))
    }
}

#[async_trait]
impl Channel for SpillableChannel {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn counters(&self) -> &Arc<ChannelCounters> {
        self.0.counters()
    }

    fn transaction_capacity(&self) -> usize {
        self.0.overflow.transaction_capacity()
    }

    fn room(&self) -> usize {
        match self.0.config().memory_only {
            true => self.0.memory.room(),
            false => self.0.memory.room().max(self.0.overflow.room()),
        }
    }

    fn in_memory(&self) -> u64 {
        self.0.memory.in_memory()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    /// Opens the overflow. When that does not work, it says why, and the channel opens as soon as it does.
    async fn start(&self) -> Result<(), ChannelError> {
        let outcome = self.0.overflow.start().await;
        if outcome.is_ok() {
            self.0.opened();
        } else {
            let shared = Arc::clone(&self.0);
            tokio::spawn(async move {
                // An error means that it was stopped before.
                if shared.overflow.healthy().await.is_ok() {
                    shared.opened();
                }
            });
        }
        outcome
    }

    async fn save(&self) {
        if self.0.config().memory_only {
            return;
        }
        let runs = std::mem::take(&mut self.0.state().runs);
        let mut left: usize = runs.iter().filter(|(side, _)| *side == Side::Memory).map(|(_, events)| events).sum();
        while left > 0 {
            match self.0.move_batch().await {
                Ok(moved) => left -= moved,
                Err(error) => {
                    error!("{left} events in the memory of channel {} could not be saved: {error}", self.name());
                    return;
                }
            }
        }
    }

    async fn stop(&self) {
        self.0.state().phase = Phase::Stopped;
        self.0.changed.notify_waiters();
        self.0.filled.notify_one();
        self.0.overflow.stop().await;
    }

    fn try_reserve(&self, batch: &Batch) -> Result<Put, ChannelError> {
        self.0.try_room(batch, |shared| shared.patience() == Duration::ZERO)
    }

    fn reserve_at_once(&self, batch: &Batch) -> Result<Put, ChannelError> {
        self.0.try_room(batch, |_| true)
    }

    async fn reserve(&self, batch: &Batch, patience: Patience) -> Result<Put, ChannelError> {
        let limit = match patience {
            Patience::KeepAlive => Some(self.0.config().memory.keep_alive),
            Patience::Endless => None,
        };
        within(limit, self.0.until_open()).await.unwrap_or_else(|| self.0.check())?;
        self.0.room(batch, patience).await
    }

    async fn take(&self, max: usize) -> Result<Take, ChannelError> {
        let max = max.min(self.transaction_capacity()).max(1);
        let _turn = self.0.turn.lock().await;
        loop {
            let filled = self.0.filled.notified();
            if let Some(take) = self.0.take_next(max).await? {
                return Ok(take);
            }
            if self.0.state().runs.is_empty() {
                filled.await;
            }
        }
    }

    async fn drained(&self) {
        self.0.memory.drained().await;
    }
}

/// Room on one of the sides.
struct Spilling {
    shared: Arc<Shared>,
    side: Side,
    put: Put,
}

#[async_trait]
impl PutTransaction for Spilling {
    fn needs_prepare(&self) -> bool {
        self.put.needs_prepare()
    }

    async fn prepare(&mut self, batch: &Batch) -> Result<(), ChannelError> {
        self.put.prepare(batch).await
    }

    fn commit(self: Box<Self>, batch: Batch) {
        let Self { shared, side, put } = *self;
        let events = batch.len();
        if side == Side::Memory {
            let counters = shared.counters();
            counters.put_success.add(events as u64);
            counters.size.add(events as u64);
        }
        let mut state = shared.state();
        put.commit(batch);
        state.push(side, events);
        drop(state);
        shared.filled.notify_one();
    }
}

struct Taken {
    shared: Arc<Shared>,
    side: Side,
    events: usize,
    /// There until it is committed or rolled back.
    take: Option<Take>,
}

impl Taken {
    fn take(&self) -> &Take {
        self.take.as_ref().expect("nobody asks after the end")
    }
}

#[async_trait]
impl TakeTransaction for Taken {
    fn batch(&self) -> &Batch {
        self.take().batch()
    }

    fn needs_prepare(&self) -> bool {
        self.take().needs_prepare()
    }

    async fn prepare(&mut self) -> Result<(), ChannelError> {
        match &mut self.take {
            Some(take) => take.prepare().await,
            None => Ok(()),
        }
    }

    fn commit(&mut self) {
        if let Some(take) = self.take.take() {
            take.commit();
        }
        if self.side == Side::Memory {
            let counters = self.shared.counters();
            counters.take_success.add(self.events as u64);
            counters.size.sub(self.events as u64);
        }
        self.shared.deactivate();
    }

    fn roll_back(&mut self) {
        let mut state = self.shared.state();
        drop(self.take.take());
        state.push_front(self.side, self.events);
        drop(state);
        self.shared.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Finding, Globals};
    use crate::event::Event;
    use crate::fs::simulated::Simulated;

    fn read(text: &str) -> (Option<SpillableConfig>, Vec<Finding>) {
        let properties = crate::config::parse("a.conf", text.as_bytes(), &mut Vec::new());
        let entries = properties.into_iter().map(|property| (property.key.clone(), property)).collect();
        let globals =
            Globals { heap_bytes: 10_000, system: [("user.home".to_owned(), "/home/flume".to_owned())].into() };
        let mut props = Props::new("a1.channels.c1", &entries, None, &globals);
        let config = SpillableConfig::from_props(&mut props);
        (config, props.into_findings())
    }

    #[test]
    fn without_keys_it_is_as_flume() {
        let (config, findings) = read("");
        assert_eq!(findings, []);
        let config = config.expect("valid");
        let memory = MemoryConfig {
            capacity: 10_000,
            transaction_capacity: 10_000,
            keep_alive: Duration::from_secs(3),
            // 80 % of the heap, less 20 %, in slots of 500.
            byte_slots: 12,
            slot_bytes: 500,
        };
        assert_eq!(config.memory, memory);
        assert_eq!((config.overflow.capacity, config.overflow.transaction_capacity), (100_000_000, 10_000));
        assert_eq!((config.memory_only, config.deactivation_percentage), (false, 5));
    }

    #[test]
    fn all_keys_are_read() {
        let (config, findings) = read(
            "memoryCapacity = 7\noverflowCapacity = 20\noverflowTimeout = 1\noverflowDeactivationThreshold = 50\n\
             byteCapacity = 1000\nbyteCapacityBufferPercentage = 50\navgEventSize = 10\ncheckpointDir = /c\n\
             dataDirs = /d\ntransactionCapacity = 9\n",
        );
        assert_eq!(findings, []);
        let config = config.expect("valid");
        assert_eq!((config.memory.capacity, config.memory.byte_slots, config.memory.slot_bytes), (7, 50, 10));
        assert_eq!((config.overflow.capacity, config.overflow.transaction_capacity), (20, 9));
        assert_eq!(
            (config.overflow.keep_alive, config.memory.keep_alive),
            (Duration::from_secs(1), Duration::from_secs(1))
        );
        assert_eq!((config.overflow.directories.checkpoint, config.deactivation_percentage), ("/c".into(), 50));
    }

    #[test]
    fn what_flume_replaces_or_ignores_is_named() {
        let (config, findings) = read("memoryCapacity = -1\ncapacity = 5\nkeep-alive = 5\n");
        assert_eq!(config.map(|config| config.memory.capacity), Some(10_000));
        assert_eq!(findings.len(), 3, "{findings:?}");
        let (config, findings) = read("memoryCapacity = 0\noverflowCapacity = 0\n");
        assert_eq!(config.map(|config| (config.memory_only, config.overflow.capacity)), Some((false, 100_000_000)));
        assert_eq!(findings.len(), 1);
        // The file channel has a default transactionCapacity of 10000.
        assert_eq!(read("overflowCapacity = 5000\n").0, None);
    }

    fn config(memory: usize, overflow: usize, timeout: Duration) -> SpillableConfig {
        let keys = format!(
            "memoryCapacity = {memory}\noverflowCapacity = {overflow}\ntransactionCapacity = 5\nbyteCapacity = 0\ncheckpointDir = /c\ndataDirs = /d\n"
        );
        let mut config = read(&keys).0.expect("valid");
        config.memory.keep_alive = timeout;
        config.overflow.keep_alive = timeout;
        config
    }

    async fn open(fs: &Simulated, config: &SpillableConfig) -> SpillableChannel {
        let fs = Arc::new(fs.clone());
        let channel = SpillableChannel::new("c1", config.clone(), Tuning::default(), fs, &Metrics::default());
        channel.start().await.expect("it opens");
        channel
    }

    fn batch(bodies: &[&'static str]) -> Batch {
        bodies.iter().map(|body| Event::new(*body)).collect()
    }

    async fn put(channel: &SpillableChannel, bodies: &[&'static str]) -> Result<(), ChannelError> {
        let batch = batch(bodies);
        let mut put = channel.reserve(&batch, Patience::KeepAlive).await?;
        put.prepare(&batch).await?;
        put.commit(batch);
        Ok(())
    }

    async fn bodies(channel: &SpillableChannel) -> Vec<String> {
        let mut all = Vec::new();
        while channel.counters().size.get() > 0 {
            let take = channel.take(5).await.expect("events");
            all.extend(take.batch().iter().map(|event| String::from_utf8_lossy(event.body()).into_owned()));
            take.commit();
        }
        all
    }

    #[tokio::test]
    async fn a_crash_costs_what_was_in_memory_and_nothing_else() {
        let fs = Simulated::default();
        let config = config(2, 100, Duration::ZERO);
        let channel = open(&fs, &config).await;
        put(&channel, &["a", "b"]).await.expect("room");
        put(&channel, &["c", "d", "e"]).await.expect("room on disk");
        put(&channel, &["f"]).await.expect("room on disk");
        assert_eq!((channel.counters().size.get(), channel.in_memory()), (6, 2));
        let again = open(&fs.crash(1), &config).await;
        assert_eq!(bodies(&again).await, ["c", "d", "e", "f"]);
        assert_eq!(bodies(&channel).await, ["a", "b", "c", "d", "e", "f"]);
    }

    #[tokio::test]
    async fn what_a_stop_finds_in_memory_is_saved() {
        let fs = Simulated::default();
        let channel = open(&fs, &config(10, 100, Duration::ZERO)).await;
        put(&channel, &["a", "b", "c", "d"]).await.expect("room");
        put(&channel, &["e", "f", "g", "h"]).await.expect("room");
        channel.take(1).await.expect("events").commit();
        channel.save().await;
        assert_eq!((channel.in_memory(), channel.counters().size.get()), (0, 7));
        channel.stop().await;
        let again = open(&fs, &config(10, 100, Duration::ZERO)).await;
        assert_eq!(again.counters().size.get(), 7);
        assert_eq!(bodies(&again).await, ["b", "c", "d", "e", "f", "g", "h"]);
    }

    #[tokio::test]
    async fn the_overflow_is_used_when_the_memory_was_full_for_so_long() {
        let channel = open(&Simulated::default(), &config(2, 100, Duration::from_secs(60))).await;
        put(&channel, &["a", "b"]).await.expect("room");
        let refused = channel.try_reserve(&batch(&["c"])).map(drop).expect_err("not yet");
        assert!(refused.is_transient(), "{refused}");
        channel.reserve_at_once(&batch(&["c"])).map(drop).expect("room on disk for those who do not wait");
        // Room in time: it goes to the memory.
        let taken = channel.take(1).await.expect("events");
        let (put_in_time, ()) = tokio::join!(put(&channel, &["c"]), async { taken.commit() });
        put_in_time.expect("room");
        assert_eq!(channel.in_memory(), 2);
        // None in no time.
        assert!(config(2, 100, Duration::ZERO).apply(&channel));
        put(&channel, &["d"]).await.expect("room on disk");
        assert_eq!((channel.in_memory(), channel.counters().size.get()), (2, 3));
        assert_eq!(bodies(&channel).await, ["b", "c", "d"]);
        put(&channel, &["e"]).await.expect("room");
        assert_eq!(channel.in_memory(), 1, "the memory is used again");
    }

    #[tokio::test]
    async fn a_full_channel_and_one_without_overflow_say_so_as_flume_does() {
        let channel = open(&Simulated::default(), &config(1, 5, Duration::ZERO)).await;
        put(&channel, &["a"]).await.expect("room");
        put(&channel, &["b", "c", "d", "e", "f"]).await.expect("room on disk");
        let full = put(&channel, &["g"]).await.expect_err("both are full");
        assert_eq!(full, ChannelError::FileFull { channel: "c1".to_owned() });
        let mut config = config(1, 0, Duration::ZERO);
        assert!(config.memory_only);
        config.memory.byte_slots = 2;
        let channel = open(&Simulated::default(), &config).await;
        put(&channel, &["a"]).await.expect("room");
        assert_eq!(
            put(&channel, &["b"]).await.expect_err("full").to_string(),
            "Spillable Memory Channel's memory capacity has been reached and overflow is disabled. Consider increasing memoryCapacity."
        );
        assert_eq!(put(&channel, &["b", "c"]).await, Err(ChannelError::MemoryFull { never: true }));
        channel.save().await;
        assert_eq!(channel.in_memory(), 1, "there is nowhere to save it to");
    }

    #[tokio::test]
    async fn a_new_configuration_keeps_the_events() {
        let channel = open(&Simulated::default(), &config(1, 5, Duration::ZERO)).await;
        put(&channel, &["a"]).await.expect("room");
        put(&channel, &["b", "c"]).await.expect("room on disk");
        assert!(config(3, 50, Duration::ZERO).apply(&channel));
        assert_eq!(channel.counters().capacity.get(), 53);
        put(&channel, &["d", "e"]).await.expect("room");
        assert_eq!(channel.in_memory(), 3);
        assert_eq!(bodies(&channel).await, ["a", "b", "c", "d", "e"]);
        let mut other = config(3, 50, Duration::ZERO);
        other.overflow.directories.checkpoint = "/elsewhere".into();
        assert!(!other.apply(&channel));
    }

    #[tokio::test]
    async fn a_roll_back_while_another_sink_waits_for_the_disk_keeps_count() {
        let mut config = config(2, 100, Duration::ZERO);
        config.overflow.memory_bytes = 0;
        let channel = open(&Simulated::default(), &config).await;
        put(&channel, &["a", "b"]).await.expect("room");
        put(&channel, &["c", "d", "e"]).await.expect("room on disk");
        let first = channel.take(2).await.expect("events");
        let (second, ()) = tokio::join!(channel.take(5), async { drop(first) });
        drop(second.expect("events"));
        assert_eq!(bodies(&channel).await.len(), 5);
        assert!(channel.0.state().runs.is_empty());
    }

    #[tokio::test]
    async fn events_that_cannot_be_read_hold_nobody_up() {
        let fs = Simulated::default();
        let mut config = config(1, 100, Duration::ZERO);
        config.overflow.memory_bytes = 0;
        let channel = open(&fs, &config).await;
        for body in ["a", "b", "c", "d"] {
            put(&channel, &[body]).await.expect("room");
        }
        let segment = Path::new("/d/segment-0000000001");
        fs.damage(segment, |bytes| {
            let at = bytes.iter().rposition(|byte| *byte == b'c').expect("the body");
            bytes[at] ^= 1;
        });
        assert_eq!(bodies(&channel).await, ["a", "b", "d"]);
        assert_eq!(channel.counters().lost.get(), 1);
        put(&channel, &["e"]).await.expect("room");
        put(&channel, &["f"]).await.expect("room on disk");
        assert_eq!(bodies(&channel).await, ["e", "f"]);
    }

    #[tokio::test]
    async fn it_opens_when_its_overflow_can() {
        let fs = Simulated::default();
        let config = config(5, 100, Duration::from_secs(60));
        let first = open(&fs, &config).await;
        put(&first, &["a"]).await.expect("room");
        first.save().await;
        let second =
            SpillableChannel::new("c1", config.clone(), Tuning::default(), Arc::new(fs.clone()), &Metrics::default());
        second.start().await.expect_err("the directories are locked");
        let refused = put_now(&second, &["b"]).expect_err("closed");
        assert!(matches!(refused, ChannelError::Closed { .. }), "{refused}");
        first.stop().await;
        put(&second, &["b"]).await.expect("open in the end");
        assert_eq!(bodies(&second).await, ["a", "b"]);
    }

    fn put_now(channel: &SpillableChannel, bodies: &[&'static str]) -> Result<(), ChannelError> {
        channel.try_reserve(&batch(bodies)).map(drop)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u64),
        Take(usize, bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1..5u64).prop_map(Step::Put),
            (1..5usize, any::<bool>()).prop_map(|(max, commit)| Step::Take(max, commit)),
        ];
        prop::collection::vec(step, 1..40)
    }

    async fn run_and_crash(steps: Vec<Step>, seed: u64) {
        let fs = Simulated::default();
        let config = config(4, 1000, Duration::ZERO);
        let channel = open(&fs, &config).await;
        let numbers = |batch: &Batch| -> Vec<u64> {
            let number = |body: &[u8]| String::from_utf8_lossy(body).parse().expect("a number");
            batch.iter().map(|event| number(event.body())).collect()
        };
        let (mut next, mut overflown, mut left) = (0, Vec::new(), VecDeque::new());
        for step in steps {
            match step {
                Step::Put(count) => {
                    let before = channel.in_memory();
                    let batch: Batch = (next..next + count).map(|number| Event::new(number.to_string())).collect();
                    let mut put = channel.reserve(&batch, Patience::KeepAlive).await.expect("room");
                    put.prepare(&batch).await.expect("writable");
                    put.commit(batch);
                    if channel.in_memory() == before {
                        overflown.extend(next..next + count);
                    } else {
                        assert_eq!(channel.in_memory(), before + count, "a batch is in one place");
                    }
                    left.extend(next..next + count);
                    next += count;
                }
                Step::Take(..) if left.is_empty() => {}
                Step::Take(max, commit) => {
                    let take = channel.take(max).await.expect("events");
                    let taken = numbers(take.batch());
                    assert!(left.iter().take(taken.len()).eq(&taken), "{taken:?} of {left:?}");
                    if commit {
                        take.commit();
                        left.drain(..taken.len());
                    }
                }
            }
        }
        let again = open(&fs.crash(seed), &config).await;
        let mut found = Vec::new();
        while again.counters().size.get() > 0 {
            let take = again.take(5).await.expect("events");
            found.extend(numbers(take.batch()));
            take.commit();
        }
        assert!(
            found.is_sorted() && found.iter().all(|number| overflown.contains(number)),
            "{found:?} of {overflown:?}"
        );
        let lost: Vec<_> = left.iter().filter(|number| overflown.contains(number) && !found.contains(number)).collect();
        assert!(lost.is_empty(), "{lost:?} of {overflown:?}");
        again.stop().await;
        channel.stop().await;
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_crash_loses_nothing_that_had_overflowed(steps in steps(), seed in any::<u64>()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(run_and_crash(steps, seed));
        }
    }
}
