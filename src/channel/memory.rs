//! The memory channel: a bounded queue of batches. Its events are lost when the process ends.
//!
//! Room is counted twice, as Flume does: in events (`capacity`) and in slots of 100 body bytes (`byteCapacity`,
//! less `byteCapacityBufferPercentage`). Events that a sink has taken but not committed still count. Those who wait
//! for room are served in their order.
//!
//! Keys: `capacity` (100), `transactionCapacity` (100), `keep-alive` (3 seconds), `byteCapacity` (80 % of the heap
//! that Flume's Java would have), `byteCapacityBufferPercentage` (20).

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::room::{Room, within};
use super::{Channel, ChannelConfig, ChannelError, Patience, Put, PutTransaction, Take, TakeTransaction};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::metrics::{ChannelCounters, Metrics};

/// How the type is registered.
pub const TYPE: ComponentType<super::ChannelBuilder> = ComponentType {
    aliases: &["memory"],
    class: "org.apache.flume.channel.MemoryChannel",
    build: |props| Some(Box::new(MemoryConfig::from_props(props)?)),
};

const CAPACITY: usize = 100;
const KEEP_ALIVE_SECONDS: u64 = 3;
const BUFFER_PERCENTAGE: i32 = 20;
/// Flume counts bodies in slots of so many bytes.
const SLOT_BYTES: usize = 100;
/// "No limit" in Flume is this many slots.
const UNLIMITED_SLOTS: usize = i32::MAX as usize;

/// A memory channel's keys.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryConfig {
    /// Events in the channel, those taken but not committed included.
    pub capacity: usize,
    /// Events in one transaction.
    pub transaction_capacity: usize,
    /// How long a put waits for room.
    pub keep_alive: Duration,
    /// How many slots of body bytes there are.
    pub byte_slots: usize,
    /// The bytes of a slot.
    pub slot_bytes: usize,
}

/// Flume's defaults, without a limit in bytes.
impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            capacity: CAPACITY,
            transaction_capacity: CAPACITY,
            keep_alive: Duration::from_secs(KEEP_ALIVE_SECONDS),
            byte_slots: UNLIMITED_SLOTS,
            slot_bytes: SLOT_BYTES,
        }
    }
}

/// Reads how many slots of so many bytes there may be in use: less than one means no limit, as in Flume.
pub(super) fn byte_slots(props: &Props<'_>, slot_bytes: usize) -> usize {
    let default = (props.globals().heap_bytes as f64 * 0.8) as i64;
    let capacity = props.lenient("byteCapacity", default, |_| true, "a whole number of bytes, or 0 for no limit", "");
    let percentage = props.lenient("byteCapacityBufferPercentage", BUFFER_PERCENTAGE, |_| true, "a percentage", "");
    if !(0..100).contains(&percentage) {
        let message = "expected a percentage from 0 to 99; with this one there is no limit in bytes";
        props.warning("byteCapacityBufferPercentage", message);
    }
    let slots = (capacity as f64 * (1.0 - f64::from(percentage) * 0.01) / slot_bytes as f64) as i64;
    if slots < 1 { UNLIMITED_SLOTS } else { (slots as usize).min(UNLIMITED_SLOTS) }
}

impl MemoryConfig {
    /// Reads the keys. Flume starts with the default where a number is wrong, and so does this, with a warning.
    pub fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let events = "a whole number of events, at least 1";
        let positive = |n: &i32| *n > 0;
        let default = CAPACITY as i32;
        let flume = "Invalid capacity specified, initializing channel to default capacity of 100";
        let capacity = props.lenient("capacity", default, positive, events, flume);
        // Flume's spelling.
        let flume = "Invalid transation capacity specified, initializing channel to default capacity of 100";
        let transaction_capacity = props.lenient("transactionCapacity", default, positive, events, flume);
        let seconds = "a whole number of seconds, at least 0";
        let keep_alive = props.lenient("keep-alive", KEEP_ALIVE_SECONDS as i32, |n| *n >= 0, seconds, "");
        let byte_slots = byte_slots(props, SLOT_BYTES);
        if transaction_capacity > capacity {
            let flume = "Transaction Capacity of Memory Channel cannot be higher than the capacity.";
            let default = if props.text("transactionCapacity").is_none() { "; the default is 100" } else { "" };
            let expected = format!("at most the channel's capacity, which is {capacity}{default}");
            props.error("transactionCapacity", &expected, flume);
        }
        props.finish(Self {
            capacity: capacity as usize,
            transaction_capacity: transaction_capacity as usize,
            keep_alive: Duration::from_secs(keep_alive.max(0) as u64),
            byte_slots,
            slot_bytes: SLOT_BYTES,
        })
    }
}

impl ChannelConfig for MemoryConfig {
    fn transaction_capacity(&self) -> Option<usize> {
        Some(self.transaction_capacity)
    }

    fn build(self: Box<Self>, name: &str, metrics: &Metrics) -> Arc<dyn Channel> {
        Arc::new(MemoryChannel::new(name, *self, metrics))
    }

    fn apply(&self, running: &dyn Channel) -> bool {
        running.as_any().downcast_ref::<MemoryChannel>().is_some_and(|channel| channel.resize(self))
    }
}

/// A memory channel.
pub struct MemoryChannel(Arc<Shared>);

impl MemoryChannel {
    /// A channel that is empty.
    pub fn new(name: &str, config: MemoryConfig, metrics: &Metrics) -> Self {
        let counters = metrics.register(Arc::new(ChannelCounters::new(name)));
        counters.capacity.set(config.capacity as u64);
        Self(Arc::new(Shared {
            name: name.to_owned(),
            counters,
            events: Room::new(config.capacity),
            slots: Room::new(config.byte_slots),
            limits: Mutex::new(config.clone()),
            transaction_capacity: AtomicUsize::new(config.transaction_capacity),
            byte_slots: AtomicUsize::new(config.byte_slots),
            slot_bytes: config.slot_bytes,
            keep_alive_ms: AtomicU64::new(config.keep_alive.as_millis() as u64),
            stopped: AtomicBool::new(false),
            queue: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
        }))
    }

    /// Takes over another configuration; `false` when it counts bytes in other slots.
    pub(super) fn resize(&self, new: &MemoryConfig) -> bool {
        self.0.slot_bytes == new.slot_bytes && self.0.resize(new)
    }

    /// How many body bytes would fit at this moment.
    pub(super) fn free_bytes(&self) -> usize {
        self.0.slots.free() * self.0.slot_bytes
    }
}

struct Shared {
    name: String,
    counters: Arc<ChannelCounters>,
    /// Free places for events.
    events: Room,
    /// Free slots of bytes.
    slots: Room,
    limits: Mutex<MemoryConfig>,
    transaction_capacity: AtomicUsize,
    byte_slots: AtomicUsize,
    slot_bytes: usize,
    keep_alive_ms: AtomicU64,
    stopped: AtomicBool,
    queue: Mutex<Queue>,
    /// Wakes one sink when there is something to take.
    filled: Notify,
    /// Wakes those who wait for the channel to be drained.
    emptied: Notify,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// Events that sinks hold.
    taken: usize,
}

impl Shared {
    fn slots_of(&self, batch: &Batch) -> usize {
        batch.body_lengths().map(|len| len.div_ceil(self.slot_bytes).max(1)).sum()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a batch needs, in events and slots.
    fn need(&self, batch: &Batch) -> Result<(u32, u32), ChannelError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(self.stopped());
        }
        let capacity = self.transaction_capacity.load(Ordering::Relaxed);
        if batch.len() > capacity {
            return Err(ChannelError::TransactionTooLarge { capacity });
        }
        let slots = self.slots_of(batch);
        if slots > self.byte_slots.load(Ordering::Relaxed) {
            return Err(self.bytes_full(true));
        }
        Ok((batch.len() as u32, slots as u32))
    }

    fn bytes_full(&self, never: bool) -> ChannelError {
        let slots = self.byte_slots.load(Ordering::Relaxed);
        ChannelError::BytesFull { capacity: (slots * self.slot_bytes) as f64, never }
    }

    fn stopped(&self) -> ChannelError {
        ChannelError::Stopped { channel: self.name.clone() }
    }

    fn resize(&self, new: &MemoryConfig) -> bool {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        self.events.resize(limits.capacity, new.capacity);
        self.slots.resize(limits.byte_slots, new.byte_slots);
        limits.capacity = new.capacity;
        limits.byte_slots = new.byte_slots;
        limits.transaction_capacity = new.transaction_capacity;
        limits.keep_alive = new.keep_alive;
        self.byte_slots.store(limits.byte_slots, Ordering::Relaxed);
        self.transaction_capacity.store(new.transaction_capacity.min(limits.capacity), Ordering::Relaxed);
        self.keep_alive_ms.store(new.keep_alive.as_millis() as u64, Ordering::Relaxed);
        self.counters.capacity.set(limits.capacity as u64);
        true
    }

    fn give_back(&self, events: usize, slots: usize) {
        self.events.give_back(events);
        self.slots.give_back(slots);
    }

    /// What is there, at most `max` events; `None` when nothing is.
    fn try_take(&self, max: usize) -> Result<Option<Batch>, ChannelError> {
        let mut queue = self.queue();
        if self.stopped.load(Ordering::Acquire) {
            return Err(self.stopped());
        }
        let mut taken = Batch::new();
        while taken.len() < max {
            let room = max - taken.len();
            match queue.batches.front_mut() {
                None => break,
                Some(front) if front.len() > room => taken.append(front.split_to(room)),
                Some(_) => taken.append(queue.batches.pop_front().unwrap_or_default()),
            }
        }
        queue.taken += taken.len();
        self.counters.take_attempt.add(taken.len() as u64);
        if !queue.batches.is_empty() {
            self.filled.notify_one();
        }
        Ok((!taken.is_empty()).then_some(taken))
    }
}

#[async_trait]
impl Channel for MemoryChannel {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn counters(&self) -> &Arc<ChannelCounters> {
        &self.0.counters
    }

    fn transaction_capacity(&self) -> usize {
        self.0.transaction_capacity.load(Ordering::Relaxed)
    }

    fn room(&self) -> usize {
        self.0.events.free()
    }

    fn in_memory(&self) -> u64 {
        self.0.counters.size.get()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    async fn start(&self) -> Result<(), ChannelError> {
        self.0.stopped.store(false, Ordering::Release);
        self.0.counters.started();
        Ok(())
    }

    async fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.filled.notify_waiters();
        self.0.counters.stopped();
    }

    fn try_reserve(&self, batch: &Batch) -> Result<Put, ChannelError> {
        let (events, slots) = self.0.need(batch)?;
        if !self.0.slots.try_take(slots) {
            return Err(self.0.bytes_full(false));
        }
        let mut reserved = Reserved { channel: Arc::clone(&self.0), events: 0, slots };
        if !self.0.events.try_take(events) {
            return Err(ChannelError::Full);
        }
        reserved.events = events;
        Ok(Put::new(reserved))
    }

    async fn reserve(&self, batch: &Batch, patience: Patience) -> Result<Put, ChannelError> {
        match self.try_reserve(batch) {
            Err(error) if error.is_transient() => {}
            other => return other,
        }
        let (events, slots) = self.0.need(batch)?;
        let keep_alive = match patience {
            Patience::KeepAlive => Some(Duration::from_millis(self.0.keep_alive_ms.load(Ordering::Relaxed))),
            Patience::Endless => None,
        };
        within(keep_alive, self.0.slots.take(slots)).await.ok_or_else(|| self.0.bytes_full(false))?;
        let mut reserved = Reserved { channel: Arc::clone(&self.0), events: 0, slots };
        within(keep_alive, self.0.events.take(events)).await.ok_or(ChannelError::Full)?;
        reserved.events = events;
        Ok(Put::new(reserved))
    }

    async fn take(&self, max: usize) -> Result<Take, ChannelError> {
        let max = max.min(self.transaction_capacity()).max(1);
        loop {
            let filled = self.0.filled.notified();
            if let Some(batch) = self.0.try_take(max)? {
                return Ok(Take::new(Taken { channel: Arc::clone(&self.0), batch }));
            }
            filled.await;
        }
    }

    async fn drained(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.0.emptied.notified());
            emptied.as_mut().enable();
            {
                let queue = self.0.queue();
                if queue.batches.is_empty() && queue.taken == 0 {
                    return;
                }
            }
            emptied.await;
        }
    }
}

/// Room that was taken, and goes back when it is not used.
struct Reserved {
    channel: Arc<Shared>,
    events: u32,
    slots: u32,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.channel.give_back(self.events as usize, self.slots as usize);
    }
}

#[async_trait]
impl PutTransaction for Reserved {
    async fn prepare(&mut self, _batch: &Batch) -> Result<(), ChannelError> {
        Ok(())
    }

    fn commit(mut self: Box<Self>, batch: Batch) {
        debug_assert_eq!(batch.len(), self.events as usize, "the room is for this batch");
        // The room is used now; it comes back when a sink commits.
        self.events = 0;
        self.slots = 0;
        let counters = &self.channel.counters;
        counters.put_success.add(batch.len() as u64);
        counters.size.add(batch.len() as u64);
        self.channel.queue().batches.push_back(batch);
        self.channel.filled.notify_one();
    }
}

struct Taken {
    channel: Arc<Shared>,
    batch: Batch,
}

#[async_trait]
impl TakeTransaction for Taken {
    fn batch(&self) -> &Batch {
        &self.batch
    }

    async fn prepare(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }

    fn commit(&mut self) {
        let (events, slots) = (self.batch.len(), self.channel.slots_of(&self.batch));
        self.channel.counters.take_success.add(events as u64);
        self.channel.counters.size.sub(events as u64);
        let empty = {
            let mut queue = self.channel.queue();
            queue.taken -= events;
            queue.taken == 0 && queue.batches.is_empty()
        };
        self.channel.give_back(events, slots);
        if empty {
            self.channel.emptied.notify_waiters();
        }
    }

    fn roll_back(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        {
            let mut queue = self.channel.queue();
            queue.taken -= batch.len();
            queue.batches.push_front(batch);
        }
        self.channel.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::event::Event;

    fn sized(capacity: usize, transaction_capacity: usize) -> MemoryConfig {
        let byte_slots = 100;
        MemoryConfig {
            capacity,
            transaction_capacity,
            keep_alive: Duration::ZERO,
            byte_slots,
            ..MemoryConfig::default()
        }
    }

    fn channel(capacity: usize, transaction_capacity: usize, slots: usize) -> Arc<dyn Channel> {
        let config = MemoryConfig { byte_slots: slots, ..sized(capacity, transaction_capacity) };
        Arc::new(MemoryChannel::new("c1", config, &Metrics::default()))
    }

    fn batch(bodies: &[&'static str]) -> Batch {
        bodies.iter().map(|body| Event::new(*body)).collect()
    }

    fn put(channel: &dyn Channel, bodies: &[&'static str]) -> Result<(), ChannelError> {
        let batch = batch(bodies);
        channel.try_reserve(&batch).map(|put| put.commit(batch))
    }

    async fn take(channel: &dyn Channel, max: usize) -> Take {
        channel.take(max).await.expect("events")
    }

    #[tokio::test]
    async fn a_take_joins_and_splits_batches_in_order() {
        let channel = channel(10, 10, 100);
        put(&*channel, &["a", "b", "c"]).expect("room");
        put(&*channel, &["d"]).expect("room");
        let first = take(&*channel, 2).await;
        assert_eq!(*first.batch(), batch(&["a", "b"]));
        let second = take(&*channel, 5).await;
        assert_eq!(*second.batch(), batch(&["c", "d"]));
        second.commit();
        first.commit();
        assert_eq!(channel.counters().size.get(), 0);
    }

    #[tokio::test]
    async fn a_dropped_take_returns_to_the_head_in_order() {
        let channel = channel(10, 10, 100);
        put(&*channel, &["a", "b", "c", "d"]).expect("room");
        drop(take(&*channel, 3).await);
        assert_eq!(*take(&*channel, 10).await.batch(), batch(&["a", "b", "c", "d"]));
    }

    #[tokio::test]
    async fn taken_events_count_until_they_are_committed() {
        let channel = channel(2, 2, 100);
        put(&*channel, &["a", "b"]).expect("room");
        let taken = take(&*channel, 2).await;
        assert_eq!(put(&*channel, &["c"]), Err(ChannelError::Full));
        taken.commit();
        put(&*channel, &["c"]).expect("room again");
    }

    #[tokio::test]
    async fn a_put_that_is_dropped_gives_its_room_back() {
        let channel = channel(1, 1, 1);
        let one = batch(&["a"]);
        drop(channel.try_reserve(&one).expect("room"));
        put(&*channel, &["a"]).expect("room");
    }

    #[tokio::test]
    async fn bytes_are_counted_in_slots_and_what_never_fits_is_said_so() {
        let channel = channel(10, 10, 2);
        let large: Batch = [Event::new(vec![0; 101])].into_iter().collect();
        channel.try_reserve(&large).map(|put| put.commit(large.clone())).expect("two slots");
        let error = put(&*channel, &[""]).expect_err("no slot for an empty body");
        assert!(error.is_transient());
        assert_eq!(
            error.to_string(),
            "Cannot commit transaction. Byte capacity allocated to store event body 200.0reached. Please increase heap space/byte capacity allocated to the channel as the sinks may not be keeping up with the sources"
        );
        let too_large: Batch = [Event::new(vec![0; 201])].into_iter().collect();
        let error = channel.try_reserve(&too_large).map(drop).expect_err("three slots never fit");
        assert!(!error.is_transient());
    }

    #[tokio::test]
    async fn a_transaction_has_its_limit() {
        let channel = channel(10, 2, 100);
        let error = put(&*channel, &["a", "b", "c"]).expect_err("three events");
        assert!(
            error.to_string().starts_with("Put queue for MemoryTransaction of capacity 2 full, consider"),
            "{error}"
        );
        put(&*channel, &["a", "b"]).expect("room");
        put(&*channel, &["c"]).expect("room");
        assert_eq!(take(&*channel, 100).await.batch().len(), 2);
    }

    #[tokio::test]
    async fn two_sinks_share_what_one_source_puts() {
        let channel = channel(1000, 10, 10_000);
        let sinks: Vec<_> = (0..2)
            .map(|_| {
                let channel = Arc::clone(&channel);
                tokio::spawn(async move {
                    let mut seen = 0;
                    while let Ok(Ok(taken)) = timeout(Duration::from_millis(500), channel.take(7)).await {
                        seen += taken.batch().len();
                        taken.commit();
                        tokio::task::yield_now().await;
                    }
                    seen
                })
            })
            .collect();
        for _ in 0..300 {
            let one = batch(&["x"]);
            channel.reserve(&one, Patience::Endless).await.expect("room").commit(one);
        }
        channel.drained().await;
        let mut seen = 0;
        for sink in sinks {
            seen += sink.await.expect("a sink");
        }
        assert_eq!(seen, 300);
    }

    #[tokio::test]
    async fn a_new_configuration_keeps_the_events() {
        let channel = channel(2, 2, 100);
        put(&*channel, &["a", "b"]).expect("room");
        assert!(sized(4, 4).apply(&*channel));
        put(&*channel, &["c", "d"]).expect("room");
        assert_eq!(put(&*channel, &["e"]), Err(ChannelError::Full));
        assert_eq!(*take(&*channel, 4).await.batch(), batch(&["a", "b", "c", "d"]));
    }

    #[tokio::test]
    async fn a_channel_in_use_shrinks_as_its_events_leave() {
        let channel = channel(4, 4, 100);
        put(&*channel, &["a", "b", "c", "d"]).expect("room");
        assert!(sized(2, 2).apply(&*channel));
        assert_eq!(channel.counters().capacity.get(), 2);
        take(&*channel, 2).await.commit();
        assert_eq!(put(&*channel, &["e"]), Err(ChannelError::Full), "two events fill it");
        take(&*channel, 2).await.commit();
        put(&*channel, &["e", "f"]).expect("room for two");
        assert_eq!(put(&*channel, &["g"]), Err(ChannelError::Full));
        // Larger again before all that was to go has come back.
        assert!(sized(1, 1).apply(&*channel));
        assert!(sized(3, 3).apply(&*channel));
        put(&*channel, &["g"]).expect("room for a third");
        assert_eq!(put(&*channel, &["h"]), Err(ChannelError::Full));
    }

    #[tokio::test]
    async fn a_stopped_channel_takes_nothing_in() {
        let channel = channel(2, 2, 100);
        channel.stop().await;
        assert_eq!(put(&*channel, &["a"]), Err(ChannelError::Stopped { channel: "c1".to_owned() }));
    }
}
