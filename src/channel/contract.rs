//! What holds for every channel, whatever keeps its events.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::file::{Directories, FileChannel, FileConfig, Tuning};
use super::memory::{MemoryChannel, MemoryConfig};
use super::spillable::{SpillableChannel, SpillableConfig};
use super::{Channel, ChannelError, Patience, Take};
use crate::event::{Batch, Event};
use crate::fs::simulated::Simulated;
use crate::metrics::Metrics;

const CAPACITY: usize = 1000;
const TRANSACTION_CAPACITY: usize = 50;

fn memory(capacity: usize, transaction_capacity: usize) -> MemoryConfig {
    MemoryConfig { capacity, transaction_capacity, keep_alive: Duration::ZERO, ..MemoryConfig::default() }
}

fn file(capacity: usize) -> FileConfig {
    let directories = Directories { checkpoint: "/checkpoint".into(), backup: None, data: vec!["/data".into()] };
    FileConfig {
        capacity,
        transaction_capacity: TRANSACTION_CAPACITY,
        keep_alive: Duration::ZERO,
        max_file_size: 2000,
        // So small that most is read back.
        memory_bytes: 500,
        ..FileConfig::new(directories)
    }
}

fn spillable(memory_capacity: usize) -> SpillableChannel {
    let config = SpillableConfig {
        memory: memory(memory_capacity, memory_capacity),
        overflow: file(CAPACITY - memory_capacity),
        memory_only: memory_capacity == CAPACITY,
        deactivation_percentage: 5,
    };
    SpillableChannel::new("c1", config, Tuning::default(), Arc::new(Simulated::default()), &Metrics::default())
}

/// One of each kind, open and empty, each with room for [`CAPACITY`] events.
async fn channels() -> Vec<(&'static str, Arc<dyn Channel>)> {
    let metrics = Metrics::default();
    let fs = Arc::new(Simulated::default());
    let channels: Vec<(_, Arc<dyn Channel>)> = vec![
        ("memory", Arc::new(MemoryChannel::new("c1", memory(CAPACITY, TRANSACTION_CAPACITY), &metrics))),
        ("file", Arc::new(FileChannel::new("c1", file(CAPACITY), Tuning::default(), fs, &Metrics::default()))),
        ("disk only", Arc::new(spillable(0))),
        ("some memory", Arc::new(spillable(10))),
        ("nearly all memory", Arc::new(spillable(CAPACITY - TRANSACTION_CAPACITY))),
    ];
    for (_, channel) in &channels {
        channel.start().await.expect("it opens");
    }
    channels
}

fn batch(numbers: impl IntoIterator<Item = usize>) -> Batch {
    numbers.into_iter().map(|number| Event::new(number.to_string()).with("n", &number.to_string())).collect()
}

async fn put(channel: &dyn Channel, batch: &Batch) -> Result<(), ChannelError> {
    let mut put = channel.reserve(batch, Patience::KeepAlive).await?;
    put.prepare(batch).await?;
    put.commit(batch.clone());
    Ok(())
}

async fn take(channel: &dyn Channel, max: usize) -> Take {
    timeout(Duration::from_secs(60), channel.take(max)).await.expect("there are events").expect("it is open")
}

fn numbers(batch: &Batch) -> Vec<usize> {
    let number = |body: &[u8]| std::str::from_utf8(body).ok()?.parse().ok();
    batch.iter().map(|event| number(event.body()).expect("a number")).collect()
}

#[tokio::test]
async fn events_come_out_in_order_whole_and_once() {
    for (kind, channel) in channels().await {
        for first in (0..500).step_by(5) {
            put(&*channel, &batch(first..first + 5)).await.expect("room");
        }
        let mut seen = Batch::new();
        while seen.len() < 500 {
            let mut taken = take(&*channel, 7).await;
            taken.prepare().await.expect("ready");
            seen.append(taken.batch().clone());
            taken.commit();
        }
        assert_eq!(seen, batch(0..500), "{kind}");
        assert_eq!(channel.counters().size.get(), 0, "{kind}");
        assert_eq!(channel.counters().put_success.get(), 500, "{kind}");
        assert_eq!(channel.counters().take_success.get(), 500, "{kind}");
        channel.drained().await;
        channel.stop().await;
    }
}

#[tokio::test]
async fn a_full_channel_refuses_whole_batches_and_has_room_again_when_a_take_is_committed() {
    for (kind, channel) in channels().await {
        let mut next = 0;
        while put(&*channel, &batch(next..next + 50)).await.is_ok() {
            next += 50;
        }
        // Memory may be left that is too small for a whole batch.
        assert!((CAPACITY - 50..=CAPACITY).contains(&next), "{kind}: {next}");
        let refused = put(&*channel, &batch(next..next + 50)).await.expect_err("it is full");
        assert!(refused.is_transient(), "{kind}: {refused}");
        assert_eq!(channel.counters().size.get(), next as u64, "{kind}");
        let taken = take(&*channel, 50).await;
        assert!(put(&*channel, &batch(next..next + 50)).await.is_err(), "{kind}: taken events count");
        let count = taken.batch().len();
        taken.commit();
        put(&*channel, &batch(next..next + count)).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        channel.stop().await;
    }
}

#[tokio::test]
async fn a_put_that_is_dropped_leaves_nothing() {
    for (kind, channel) in channels().await {
        for prepare in [false, true] {
            let dropped = batch(0..50);
            let mut put = channel.reserve(&dropped, Patience::KeepAlive).await.expect("room");
            if prepare {
                put.prepare(&dropped).await.expect("writable");
            }
            drop(put);
        }
        for first in (0..CAPACITY - 50).step_by(50) {
            put(&*channel, &batch(first..first + 50)).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
        assert_eq!(numbers(take(&*channel, 3).await.batch()), [0, 1, 2], "{kind}");
        channel.stop().await;
    }
}

#[tokio::test]
async fn a_transaction_has_its_limit() {
    for (kind, channel) in channels().await {
        if kind == "nearly all memory" {
            continue;
        }
        let error = put(&*channel, &batch(0..51)).await.expect_err("too many events");
        assert!(!error.is_transient(), "{kind}: {error}");
        put(&*channel, &batch(0..50)).await.expect("just right");
        assert!(take(&*channel, 1000).await.batch().len() <= 50, "{kind}");
        channel.stop().await;
    }
}

#[tokio::test]
async fn several_sinks_get_every_event_once() {
    for (kind, channel) in channels().await {
        let sinks: Vec<_> = (0..3)
            .map(|number| {
                let channel = Arc::clone(&channel);
                tokio::spawn(async move {
                    let (mut seen, mut takes) = (Vec::new(), 0);
                    while let Ok(taken) = channel.take(7).await {
                        takes += 1;
                        tokio::task::yield_now().await;
                        if (takes + number) % 3 == 0 {
                            continue;
                        }
                        seen.extend(numbers(taken.batch()));
                        taken.commit();
                    }
                    seen
                })
            })
            .collect();
        for first in (0..3000).step_by(10) {
            let events = batch(first..first + 10);
            let mut put = channel.reserve(&events, Patience::Endless).await.expect("room in the end");
            put.prepare(&events).await.expect("writable");
            put.commit(events);
        }
        let empty = async {
            while channel.counters().size.get() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), empty).await.expect("all of it is taken");
        channel.stop().await;
        let mut seen = Vec::new();
        for sink in sinks {
            seen.extend(sink.await.expect("a sink"));
        }
        assert_eq!(seen.len(), 3000, "{kind}");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 3000, "{kind}");
    }
}

#[tokio::test]
async fn a_stopped_channel_neither_takes_nor_gives() {
    for (kind, channel) in channels().await {
        put(&*channel, &batch(0..1)).await.expect("room");
        let waiting = {
            let channel = Arc::clone(&channel);
            let first = take(&*channel, 1).await;
            let task = tokio::spawn(async move { channel.take(1).await.map(drop) });
            tokio::task::yield_now().await;
            first.commit();
            task
        };
        channel.stop().await;
        let stopped = Err(ChannelError::Stopped { channel: "c1".to_owned() });
        let waited = timeout(Duration::from_secs(60), waiting).await.expect("it is woken");
        assert_eq!(waited.expect("no panic"), stopped, "{kind}");
        assert_eq!(put(&*channel, &batch(0..1)).await, stopped, "{kind}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Take(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1usize..30).prop_map(Step::Put),
        (1usize..40, any::<bool>()).prop_map(|(max, commit)| Step::Take(max, commit)),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn one_source_and_one_sink_keep_the_order(steps in steps()) {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(async {
            for (kind, channel) in channels().await {
                let (mut next, mut model) = (0, VecDeque::new());
                for step in &steps {
                    match *step {
                        Step::Put(count) => {
                            if put(&*channel, &batch(next..next + count)).await.is_ok() {
                                model.extend(next..next + count);
                                next += count;
                            }
                        }
                        Step::Take(..) if model.is_empty() => {}
                        Step::Take(max, commit) => {
                            let taken = take(&*channel, max).await;
                            let expected: Vec<usize> = model.iter().copied().take(taken.batch().len()).collect();
                            assert!(!expected.is_empty(), "{kind}");
                            assert_eq!(numbers(taken.batch()), expected, "{kind}");
                            if commit {
                                model.drain(..expected.len());
                                taken.commit();
                            }
                        }
                    }
                    assert_eq!(channel.counters().size.get(), model.len() as u64, "{kind}");
                }
                channel.stop().await;
            }
        });
    }
}
