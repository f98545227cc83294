//! The channel as a whole, on a file system that crashes and fails.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::encryption::{Keys, Seal};
use super::*;
use crate::channel::ChannelConfig as _;
use crate::event::Event;
use crate::fs::simulated::Simulated;
use crate::interceptor::Chain;
use crate::selector::{Routes, Selector};
use crate::source::{ChannelProcessor, Pipeline};

/// Small enough that a few events are many.
pub const TUNING: Tuning = Tuning {
    linger: Duration::ZERO,
    retry: Duration::from_millis(1),
    checkpoint_bytes: 700,
    piece_bytes: 200,
    in_flight_bytes: 64 << 20,
};
const SEGMENT: &str = "/data/segment-0000000001";

pub fn config() -> FileConfig {
    let directories =
        Directories { checkpoint: "/checkpoint".into(), backup: None, data: vec!["/data".into(), "/more".into()] };
    FileConfig {
        capacity: 100_000,
        transaction_capacity: 1000,
        keep_alive: Duration::from_secs(10),
        max_file_size: 600,
        minimum_required_space: 1000,
        memory_bytes: 400,
        ..FileConfig::new(directories)
    }
}

fn one_segment() -> FileConfig {
    let mut config = FileConfig { max_file_size: 1 << 20, ..config() };
    config.directories.data.truncate(1);
    config
}

pub fn channel(fs: &Simulated, config: &FileConfig) -> FileChannel {
    FileChannel::new("c1", config.clone(), TUNING, Arc::new(fs.clone()), &Metrics::default())
}

/// A channel that is open, after however many attempts.
pub async fn open(fs: &Simulated, config: &FileConfig) -> FileChannel {
    let channel = channel(fs, config);
    if channel.start().await.is_err() {
        let healthy = tokio::time::timeout(Duration::from_secs(30), channel.0.healthy());
        healthy.await.expect("nothing keeps it closed").expect("it opens in the end");
    }
    channel
}

fn batch(bodies: &[&str]) -> Batch {
    bodies.iter().map(|body| Event::new(body.to_string()).with("n", body)).collect()
}

async fn put(channel: &FileChannel, batch: &Batch) -> Result<(), ChannelError> {
    let mut put = channel.reserve(batch, Patience::KeepAlive).await?;
    put.prepare(batch).await?;
    put.commit(batch.clone());
    Ok(())
}

pub fn bodies(batch: &Batch) -> Vec<String> {
    batch.iter().map(|event| String::from_utf8_lossy(event.body()).into_owned()).collect()
}

/// The next events, if there are any.
async fn take(channel: &FileChannel, max: usize) -> Option<Take> {
    let begun = std::time::Instant::now();
    while channel.counters().size.get() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing comes any more");
        // The size may go down without a take, when damage is found.
        if let Ok(take) = tokio::time::timeout(Duration::from_millis(20), channel.take(max)).await {
            return Some(take.expect("open"));
        }
    }
    None
}

/// Takes everything for good.
pub async fn drain(channel: &FileChannel) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(take) = take(channel, 3).await {
        all.extend(bodies(take.batch()));
        take.commit();
    }
    all
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[tokio::test]
async fn events_come_out_in_order_and_with_their_headers() {
    let fs = Simulated::default();
    let channel = open(&fs, &config()).await;
    put(&channel, &batch(&["a", "b", "c"])).await.expect("room");
    put(&channel, &batch(&["d"])).await.expect("room");
    let first = channel.take(2).await.expect("events");
    assert_eq!(*first.batch(), batch(&["a", "b"]));
    let second = channel.take(10).await.expect("events");
    assert_eq!(*second.batch(), batch(&["c", "d"]));
    // Rolled back in whatever order, they are at the head again in theirs.
    drop(first);
    drop(second);
    assert_eq!(*channel.take(10).await.expect("events").batch(), batch(&["a", "b", "c", "d"]));
    assert_eq!(channel.counters().size.get(), 4);
    assert_eq!(drain(&channel).await, ["a", "b", "c", "d"]);
    channel.drained().await;
    channel.stop().await;
}

#[tokio::test]
async fn what_is_acknowledged_is_there_after_a_crash() {
    let fs = Simulated::default();
    let channel = open(&fs, &config()).await;
    for body in ["a", "b", "c"] {
        put(&channel, &batch(&[body])).await.expect("room");
    }
    for seed in 0..20 {
        let left = fs.crash(seed);
        let again = open(&left, &config()).await;
        assert_eq!(again.counters().size.get(), 3);
        assert_eq!(drain(&again).await, ["a", "b", "c"]);
        again.stop().await;
    }
    channel.stop().await;
}

#[tokio::test]
async fn a_stop_forgets_nothing() {
    let fs = Simulated::default();
    let first = open(&fs, &config()).await;
    put(&first, &batch(&["a", "b", "c"])).await.expect("room");
    first.take(1).await.expect("an event").commit();
    first.stop().await;
    assert!(matches!(put(&first, &batch(&["d"])).await, Err(ChannelError::Stopped { .. })));
    let second = open(&fs, &config()).await;
    assert_eq!(second.counters().size.get(), 2);
    assert_eq!(drain(&second).await, ["b", "c"]);
    second.stop().await;
}

#[tokio::test]
async fn segments_go_when_their_events_are_delivered() {
    let fs = Simulated::default();
    let channel = open(&fs, &config()).await;
    let names: Vec<String> = (0..100).map(|n| format!("event {n}")).collect();
    for name in &names {
        put(&channel, &batch(&[name])).await.expect("room");
    }
    let listed = |path: &str| fs.list(Path::new(path)).expect("listed");
    let segments =
        || ["/data", "/more"].into_iter().flat_map(listed).filter(|name| name.starts_with("segment-")).count();
    let full: usize = segments();
    assert!(full >= 10, "{full} files");
    assert_eq!(drain(&channel).await, names);
    channel.stop().await;
    let left: usize = segments();
    assert_eq!(left, 1, "the last one stays");
    let again = open(&fs, &config()).await;
    put(&again, &batch(&["next"])).await.expect("room");
    assert_eq!(drain(&again).await, ["next"]);
    again.stop().await;
}

#[tokio::test]
async fn several_sinks_get_every_event_once() {
    let fs = Simulated::default();
    let channel = Arc::new(open(&fs, &config()).await);
    let sinks: Vec<_> = (0..3)
        .map(|number| {
            let channel = Arc::clone(&channel);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut takes = 0;
                while let Ok(Ok(take)) = tokio::time::timeout(Duration::from_secs(1), channel.take(7)).await {
                    takes += 1;
                    if (takes + number) % 3 == 0 {
                        continue;
                    }
                    seen.extend(bodies(take.batch()));
                    take.commit();
                }
                seen
            })
        })
        .collect();
    for n in 0..300 {
        put(&channel, &batch(&[&n.to_string()])).await.expect("room");
    }
    channel.drained().await;
    let mut seen = Vec::new();
    for sink in sinks {
        seen.extend(sink.await.expect("a sink"));
    }
    assert_eq!(seen.len(), 300);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), 300);
    channel.stop().await;
}

#[tokio::test]
async fn many_puts_share_a_sync() {
    let fs = Simulated::default();
    let channel = Arc::new(open(&fs, &one_segment()).await);
    put(&channel, &batch(&["first"])).await.expect("room");
    fs.slow_down(Duration::from_millis(50));
    let before = fs.calls();
    let puts: Vec<_> = (0..100)
        .map(|n| {
            let channel = Arc::clone(&channel);
            tokio::spawn(async move { put(&channel, &batch(&[&n.to_string()])).await })
        })
        .collect();
    for put in puts {
        put.await.expect("a put").expect("room");
    }
    let calls = fs.calls() - before;
    assert!(calls < 60, "{calls} calls for 100 puts");
    channel.stop().await;
}

#[tokio::test]
async fn a_put_that_nobody_waits_for_keeps_its_room_until_it_is_written() {
    let fs = Simulated::default();
    let tuning = Tuning { in_flight_bytes: 1000, ..TUNING };
    let channel = FileChannel::new("c1", one_segment(), tuning, Arc::new(fs.clone()), &Metrics::default());
    channel.start().await.expect("it opens");
    put(&channel, &batch(&["first"])).await.expect("room");
    fs.slow_down(Duration::from_millis(500));
    let large = batch(&[&"x".repeat(400)]);
    let mut reserved = channel.reserve(&large, Patience::KeepAlive).await.expect("room");
    assert!(reserved.prepare(&large).now_or_never().is_none());
    drop(reserved);
    assert!(channel.0.in_flight.available_permits() < 200, "it is on its way");
    channel.stop().await;
    assert_eq!(channel.0.in_flight.available_permits(), 1000);
}

#[tokio::test]
async fn a_prepared_put_that_is_dropped_does_not_appear() {
    let fs = Simulated::default();
    let channel = open(&fs, &config()).await;
    let given_up = batch(&["no"]);
    let mut reserved = channel.reserve(&given_up, Patience::KeepAlive).await.expect("room");
    reserved.prepare(&given_up).await.expect("written");
    put(&channel, &batch(&["yes"])).await.expect("room");
    drop(reserved);
    assert_eq!(channel.room(), config().capacity - 1);
    channel.stop().await;
    let again = open(&fs, &config()).await;
    assert_eq!(drain(&again).await, ["yes"]);
    again.stop().await;
}

#[tokio::test]
async fn a_full_channel_says_so_as_flume_does() {
    let fs = Simulated::default();
    let config = FileConfig { capacity: 2, transaction_capacity: 2, keep_alive: Duration::ZERO, ..config() };
    let channel = open(&fs, &config).await;
    put(&channel, &batch(&["a", "b"])).await.expect("room");
    let full = put(&channel, &batch(&["c"])).await.expect_err("no room");
    assert!(full.is_transient());
    assert_eq!(
        full.to_string(),
        "The channel has reached it's capacity. This might be the result of a sink on the channel having too low of batch size, a downstream system running slower than normal, or that the channel capacity is just too low. [channel=c1]"
    );
    let large = put(&channel, &batch(&["c", "d", "e"])).await.expect_err("too many");
    assert!(large.to_string().starts_with("Put queue for FileBackedTransaction of capacity 2 full, consider"));
    assert!(FileConfig { capacity: 3, ..config.clone() }.apply(&channel));
    put(&channel, &batch(&["c"])).await.expect("more room");
    channel.stop().await;
    // It was made smaller meanwhile: what is there counts.
    let again = open(&fs, &config).await;
    assert_eq!(again.room(), 0);
    again.take(2).await.expect("events").commit();
    assert_eq!(again.room(), 1);
    again.stop().await;
}

#[tokio::test]
async fn a_directory_is_locked_while_it_is_in_use() {
    let fs = Simulated::default();
    let first = open(&fs, &config()).await;
    let second = channel(&fs, &config());
    let error = second.start().await.expect_err("it is locked");
    assert_eq!(
        error.to_string(),
        "Channel closed [channel=c1]. Due to Cannot lock /checkpoint. The directory is already locked. [channel=c1]"
    );
    put(&first, &batch(&["a"])).await.expect("room");
    first.stop().await;
    // It opens by itself once the other one is gone.
    assert_eq!(*second.take(1).await.expect("an event").batch(), batch(&["a"]));
    second.stop().await;
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let fs = Simulated::default();
    let config = FileConfig { keep_alive: Duration::from_millis(30), ..one_segment() };
    let channel = open(&fs, &config).await;
    put(&channel, &batch(&["a"])).await.expect("room");
    fs.set_capacity(500);
    // What is known of the space holds for a moment; then comes what Flume says, or the disk itself.
    let body = "x".repeat(500);
    let error = put(&channel, &batch(&[&body])).await.expect_err("no space");
    assert!(error.is_transient());
    assert!(error.to_string().starts_with("Put failed due to IO error [channel=c1]"), "{error}");
    let error = put(&channel, &batch(&["b"])).await.expect_err("no space").to_string();
    assert!(
        error.contains("Usable space exhausted, only ") && error.contains(" bytes remaining, required "),
        "{error}"
    );
    fs.set_capacity(1 << 30);
    channel.reserve(&batch(&["c"]), Patience::Endless).await.map(drop).expect("it recovers");
    put(&channel, &batch(&["c"])).await.expect("space");
    let left = fs.crash(1);
    channel.stop().await;
    let again = open(&left, &config).await;
    assert_eq!(drain(&again).await, ["a", "c"]);
    again.stop().await;
}

#[tokio::test]
async fn a_segment_that_fails_is_left_and_nothing_acknowledged_is_lost() {
    for fsync_interval in [None, Some(Duration::from_secs(3600))] {
        let fs = Simulated::default();
        let config = FileConfig { fsync_interval, ..one_segment() };
        let channel = open(&fs, &config).await;
        put(&channel, &batch(&["a"])).await.expect("room");
        put(&channel, &batch(&["b"])).await.expect("room");
        fs.fail_all(true);
        // Neither the write nor the cut behind it works, so the segment is given up either way.
        put(&channel, &batch(&["refused"])).await.expect_err("failing");
        fs.fail_all(false);
        put(&channel, &batch(&["c"])).await.expect("it recovers");
        // A stop syncs what was acknowledged without.
        channel.stop().await;
        for seed in 0..10 {
            let again = open(&fs.crash(seed), &config).await;
            assert_eq!(drain(&again).await, ["a", "b", "c"]);
            again.stop().await;
        }
    }
}

#[tokio::test]
async fn a_put_whose_sync_failed_is_refused_and_does_not_appear() {
    let fs = Simulated::default();
    let channel = open(&fs, &one_segment()).await;
    put(&channel, &batch(&["a"])).await.expect("room");
    put(&channel, &batch(&["b"])).await.expect("room");
    // As the free space is known by now, a put is one write, one sync, and a look whether the file is there.
    let sync = fs.calls() + 1;
    fs.fail(sync..sync + 1);
    put(&channel, &batch(&["refused"])).await.expect_err("not durable");
    put(&channel, &batch(&["c"])).await.expect("it recovers");
    assert!(fs.content(Path::new("/data/segment-0000000002")).len() > segment::START as usize);
    for seed in 0..10 {
        let again = open(&fs.crash(seed), &one_segment()).await;
        assert_eq!(drain(&again).await, ["a", "b", "c"]);
        again.stop().await;
    }
    assert_eq!(drain(&channel).await, ["a", "b", "c"]);
    channel.stop().await;
}

#[tokio::test]
async fn what_is_removed_under_a_channel_is_written_anew() {
    for fsync_interval in [None, Some(Duration::from_secs(3600))] {
        let fs = Simulated::default();
        let config = FileConfig { fsync_interval, ..one_segment() };
        let channel = open(&fs, &config).await;
        put(&channel, &batch(&["a"])).await.expect("room");
        let take = channel.take(1).await.expect("an event");
        put(&channel, &batch(&["b"])).await.expect("room");
        take.commit();
        fs.remove_directory(Path::new("/data"));
        fs.remove_directory(Path::new("/checkpoint"));
        if fsync_interval.is_none() {
            let error = put(&channel, &batch(&["refused"])).await.expect_err("nobody would find it").to_string();
            assert!(error.contains("/data/segment-0000000001 is gone"), "{error}");
        }
        put(&channel, &batch(&["c"])).await.expect("it recovers");
        channel.stop().await;
        for seed in 0..10 {
            let again = open(&fs.crash(seed), &config).await;
            let drained = drain(&again).await;
            again.stop().await;
            assert_eq!(drained, ["b", "c"]);
        }
    }
}

#[tokio::test]
async fn a_data_directory_that_fails_leaves_the_others() {
    let fs = Simulated::default();
    let channel = open(&fs, &config()).await;
    put(&channel, &batch(&["a0"])).await.expect("room");
    // From here on, the free space is known.
    put(&channel, &batch(&["a"])).await.expect("room");
    let used = fs.list(Path::new("/data")).expect("there").iter().any(|name| name.starts_with("segment-"));
    let turn = if used { "/data" } else { "/more" };
    fs.fail_in(Some(Path::new(turn)));
    put(&channel, &batch(&["refused"])).await.expect_err("the directory in use fails");
    for body in ["b", "c", "d", "e", "f", "g", "h"] {
        put(&channel, &batch(&[body])).await.expect("the other one works");
    }
    fs.fail_in(None);
    channel.stop().await;
    let again = open(&fs.crash(1), &config()).await;
    assert_eq!(drain(&again).await, ["a0", "a", "b", "c", "d", "e", "f", "g", "h"]);
    again.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_failed_sync_and_a_crash_after_it() {
    let config = FileConfig { checkpoint_on_close: false, fsync_interval: Some(Duration::ZERO), ..one_segment() };
    for seed in 0..30 {
        let fs = Simulated::default();
        // No checkpoint comes between the puts.
        let tuning = Tuning { checkpoint_bytes: u64::MAX, ..TUNING };
        let channel = FileChannel::new("c1", config.clone(), tuning, Arc::new(fs.clone()), &Metrics::default());
        channel.start().await.expect("it opens");
        let lazy = FileConfig { fsync_interval: Some(Duration::from_secs(3600)), ..config.clone() };
        assert!(lazy.apply(&channel));
        let names: Vec<String> = (0..6).map(|n| format!("{n}{}", "x".repeat(500))).collect();
        for name in &names {
            put(&channel, &batch(&[name])).await.expect("room");
        }
        // The next call is a sync, with or without a put before it.
        let call = fs.calls();
        fs.fail(call..call + 1);
        assert!(config.apply(&channel));
        while fs.calls() <= call {
            tokio::task::yield_now().await;
        }
        // The sync may have failed a moment ago.
        while put(&channel, &batch(&["last"])).await.is_err() {}
        assert!(FileConfig { fsync_interval: None, ..config.clone() }.apply(&channel));
        put(&channel, &batch(&["durable"])).await.expect("room");
        let again = open(&fs.crash(seed), &config).await;
        let drained = drain(&again).await;
        again.stop().await;
        channel.stop().await;
        assert_eq!(drained[..6], names, "seed {seed}");
        assert_eq!(drained[6..], ["last", "durable"], "seed {seed}");
    }
}

#[tokio::test]
async fn a_rewriting_that_fails_at_any_call_leaves_a_channel_that_opens() {
    let config = FileConfig { checkpoint_on_close: false, max_file_size: 1 << 20, ..config() };
    let lazy = FileConfig { fsync_interval: Some(Duration::from_secs(3600)), ..config.clone() };
    for (spared, calls) in (0..14).flat_map(|spared| (1..20).map(move |calls| (spared, calls))) {
        let fs = Simulated::default();
        let channel = open(&fs, &lazy).await;
        for body in ["a", "b", "c"] {
            put(&channel, &batch(&[body])).await.expect("room");
        }
        // The sync, and calls of what is done to recover.
        let sync = fs.calls();
        let recovery = sync + 1 + spared;
        fs.fail_in_turn([sync..sync + 1, recovery..recovery + calls]);
        assert!(config.apply(&channel));
        while put(&channel, &batch(&["d"])).await.is_err() {}
        let left = fs.killed();
        channel.stop().await;
        let again = open(&left, &config).await;
        let drained = drain(&again).await;
        again.stop().await;
        assert_eq!(drained, ["a", "b", "c", "d"], "{calls} calls after {spared}");
    }
}

#[tokio::test]
async fn puts_wait_for_as_much_room_as_they_need() {
    let fs = Simulated::default();
    let config = FileConfig { minimum_required_space: 100_000, ..one_segment() };
    let channel = open(&fs, &config).await;
    put(&channel, &batch(&["a"])).await.expect("room");
    let large = batch(&[&"x".repeat(20_000)]);
    let short = FileConfig { keep_alive: Duration::from_millis(30), ..config };
    assert!(short.apply(&channel));
    fs.set_capacity(110_000);
    put(&channel, &large).await.expect_err("no room");
    let refused = put(&channel, &large).await.expect_err("no room").to_string();
    assert!(refused.contains("Usable space exhausted"), "{refused}");
    // There is room for a small one, which says nothing of those that wait.
    assert!(channel.reserve(&large, Patience::KeepAlive).await.is_err());
    fs.set_capacity(1 << 30);
    channel.reserve(&large, Patience::Endless).await.map(drop).expect("room");
    put(&channel, &large).await.expect("room");
    channel.stop().await;
}

#[tokio::test]
async fn a_look_at_the_disk_that_fails_costs_no_more_than_the_put() {
    let fs = Simulated::default();
    let channel = open(&fs, &one_segment()).await;
    put(&channel, &batch(&["first"])).await.expect("room");
    // Looks for the free space, which is not known yet.
    let call = fs.calls();
    fs.fail(call..call + 1);
    put(&channel, &batch(&["second"])).await.expect("there is room");
    put(&channel, &batch(&["third"])).await.expect("there is room");
    // A put is one write, one sync, and a look whether the file is there.
    let look = fs.calls() + 2;
    fs.fail(look..look + 1);
    put(&channel, &batch(&["refused"])).await.expect_err("it may be gone");
    put(&channel, &batch(&["last"])).await.expect("it recovers");
    let last = fs.content(Path::new("/data/segment-0000000003"));
    assert!(memchr::memmem::find(&last, b"last").is_some());
    assert!(memchr::memmem::find(&last, b"second").is_none(), "what was durable is not written anew");
    assert_eq!(drain(&channel).await, ["first", "second", "third", "last"]);
    channel.stop().await;
}

#[tokio::test]
async fn checkpoints_go_on_while_writing_fails() {
    let fs = Simulated::default();
    let config = FileConfig {
        memory_bytes: 1 << 20,
        checkpoint_interval: Duration::from_millis(1),
        keep_alive: Duration::from_millis(5),
        ..one_segment()
    };
    let channel = open(&fs, &config).await;
    for n in 0..10 {
        put(&channel, &batch(&[&format!("event {n}")])).await.expect("room");
    }
    fs.fail_in(Some(Path::new("/data")));
    put(&channel, &batch(&["refused"])).await.expect_err("the disk fails");
    assert_eq!(drain(&channel).await.len(), 10);
    let is_noted = async {
        loop {
            let left = open(&fs.killed(), &config).await;
            let again = left.counters().size.get();
            left.stop().await;
            if again == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), is_noted).await.expect("what is delivered is noted");
    channel.stop().await;
}

#[tokio::test]
async fn what_was_removed_and_written_anew_is_not_asked_for_after_a_kill() {
    let fs = Simulated::default();
    let config = FileConfig { memory_bytes: 0, ..one_segment() };
    let channel = open(&fs, &config).await;
    put(&channel, &batch(&["a"])).await.expect("room");
    channel.stop().await;
    let channel = open(&fs, &config).await;
    put(&channel, &batch(&["b"])).await.expect("room");
    channel.take(1).await.expect("an event").commit();
    let path = Path::new("/data/segment-0000000002");
    assert!(fs.content(path).len() > segment::START as usize);
    fs.remove(path).expect("it was there");
    put(&channel, &batch(&["refused"])).await.expect_err("nobody would find it");
    put(&channel, &batch(&["c"])).await.expect("it recovers");
    let left = fs.killed();
    // Its sinks go on at once, too.
    assert_eq!(drain(&channel).await, ["b", "c"]);
    channel.stop().await;
    let again = open(&left, &config).await;
    let drained = drain(&again).await;
    again.stop().await;
    assert_eq!(drained[drained.len() - 2..], ["b", "c"]);
}

#[tokio::test]
async fn a_full_disk_does_not_keep_it_from_opening_and_draining() {
    let (fs, records) = small_log(&one_segment()).await;
    // A transaction that was cut off.
    fs.damage(Path::new(SEGMENT), |bytes| bytes.truncate(records[3].1 - 3));
    fs.set_capacity(0);
    let channel = channel(&fs, &one_segment());
    channel.start().await.expect("it opens");
    assert_eq!(drain(&channel).await, ["zero", "one", "two"]);
    fs.set_capacity(1 << 30);
    put(&channel, &batch(&["next"])).await.expect("room");
    channel.stop().await;
    let again = open(&fs, &one_segment()).await;
    assert_eq!(drain(&again).await, ["next"]);
    again.stop().await;
}

#[tokio::test]
async fn a_disk_that_takes_no_writes_delivers() {
    let fs = Simulated::default();
    let config = FileConfig { memory_bytes: 0, ..config() };
    let channel = open(&fs, &config).await;
    let names: Vec<String> = (0..30).map(|n| format!("event {n}")).collect();
    for name in &names {
        put(&channel, &batch(&[name])).await.expect("room");
    }
    fs.set_read_only();
    let drained = tokio::time::timeout(Duration::from_secs(5), drain(&channel)).await;
    assert_eq!(drained.expect("it delivers"), names);
    channel.stop().await;
}

#[tokio::test]
async fn without_the_copy_of_the_checkpoint_segments_still_go() {
    let fs = Simulated::default();
    let mut config = config();
    config.directories.backup = Some("/backup".into());
    let channel = open(&fs, &config).await;
    for n in 0..30 {
        put(&channel, &batch(&[&format!("event {n}")])).await.expect("room");
    }
    fs.fail_in(Some(Path::new("/backup")));
    assert_eq!(drain(&channel).await.len(), 30);
    channel.stop().await;
    let left = ["/data", "/more"].into_iter().flat_map(|path| fs.list(Path::new(path)).expect("listed"));
    assert_eq!(left.filter(|name| name.starts_with("segment-")).count(), 1, "the last one stays");
}

#[tokio::test]
async fn puts_that_were_not_synced_are_when_each_is_to_be() {
    let fs = Simulated::default();
    let lazy = FileConfig { fsync_interval: Some(Duration::from_secs(3600)), ..one_segment() };
    let channel = open(&fs, &lazy).await;
    put(&channel, &batch(&["a"])).await.expect("room");
    let calls = fs.calls();
    assert!(one_segment().apply(&channel));
    tokio::time::timeout(Duration::from_secs(5), async {
        while fs.calls() < calls + 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("it is synced");
    let again = open(&fs.crash(3), &lazy).await;
    assert_eq!(drain(&again).await, ["a"]);
    again.stop().await;
    channel.stop().await;
}

#[tokio::test]
async fn the_copy_of_the_checkpoint_is_used_when_the_first_is_damaged() {
    let fs = Simulated::default();
    let mut config = config();
    config.directories.backup = Some("/backup".into());
    let channel = open(&fs, &config).await;
    put(&channel, &batch(&["a", "b"])).await.expect("room");
    channel.take(1).await.expect("an event").commit();
    channel.stop().await;
    fs.damage(&Path::new("/checkpoint").join(checkpoint::FILE), |bytes| bytes[20] ^= 1);
    // Nothing but the checkpoint says that the first event is done.
    fs.damage(Path::new("/more/segment-0000000001"), |bytes| bytes.truncate(bytes.len() - 48));
    let again = open(&fs, &config).await;
    assert_eq!(drain(&again).await, ["b"]);
    again.stop().await;
}

#[tokio::test]
async fn a_missing_segment_is_asked_for() {
    let fs = Simulated::default();
    let first = open(&fs, &config()).await;
    for n in 0..20 {
        put(&first, &batch(&[&format!("event {n}")])).await.expect("room");
    }
    first.stop().await;
    let path = Path::new("/data/segment-0000000002");
    let content = fs.content(path);
    fs.remove(path).expect("it was there");
    let second = channel(&fs, &config());
    let error = second.start().await.expect_err("one is missing").to_string();
    assert!(error.contains("segment-0000000002 with ") && error.contains("is missing"), "{error}");
    fs.create(path).expect("made");
    fs.damage(path, |bytes| *bytes = content);
    assert_eq!(drain_when_open(&second).await.len(), 20);
    second.stop().await;
}

async fn drain_when_open(channel: &FileChannel) -> Vec<String> {
    channel.0.healthy().await.expect("it opens");
    drain(channel).await
}

/// With `old` (a key of 16 bytes) and others, the first of which is written with.
fn encrypted(keys: &[(&str, &[u8])]) -> FileConfig {
    FileConfig { keys: Keys::of(keys), ..config() }
}

const OLD: (&str, &[u8]) = ("old", &[1; 16]);
const NEW: (&str, &[u8]) = ("new", &[2; 32]);

fn holds(fs: &Simulated, text: &str) -> bool {
    let contents = ["/data", "/more"].into_iter().flat_map(|directory| {
        let names = fs.list(Path::new(directory)).expect("listed");
        let files = names.into_iter().filter(|name| name.starts_with("segment"));
        files.map(move |name| fs.content(&Path::new(directory).join(name)))
    });
    contents.into_iter().any(|content| memchr::memmem::find(&content, text.as_bytes()).is_some())
}

#[tokio::test]
async fn what_is_encrypted_needs_its_key() {
    let fs = Simulated::default();
    let first = open(&fs, &config()).await;
    put(&first, &batch(&["in the clear"])).await.expect("room");
    first.stop().await;
    let second = open(&fs, &encrypted(&[OLD])).await;
    put(&second, &batch(&["a secret"])).await.expect("room");
    second.stop().await;
    assert!(holds(&fs, "in the clear") && !holds(&fs, "secret"));

    // The old key is still needed, and a new one writes.
    let third = open(&fs, &encrypted(&[NEW, OLD])).await;
    put(&third, &batch(&["another secret"])).await.expect("room");
    third.stop().await;
    let expect_error = async |config: &FileConfig, expected: &str| {
        let channel = channel(&fs, config);
        let error = channel.start().await.expect_err("a key is missing").to_string();
        channel.stop().await;
        assert!(error.contains(expected), "{error}");
    };
    expect_error(&config(), "segment-0000000002 is encrypted with the key old, and no encryption.keyProvider").await;
    expect_error(&encrypted(&[NEW]), "is encrypted with the key old, which the keystore does not have").await;
    expect_error(&encrypted(&[NEW, ("old", &[3; 16])]), "is encrypted with another key old than the keystore").await;
    let last = open(&fs, &encrypted(&[NEW, OLD])).await;
    assert_eq!(drain(&last).await, ["in the clear", "a secret", "another secret"]);
    last.stop().await;
    assert!(!holds(&fs, "secret"));
    // Nothing is left of the old key.
    open(&fs, &encrypted(&[NEW])).await.stop().await;
}

/// A log of four transactions, as a process that was killed leaves it, and where each record begins and ends.
async fn small_log(config: &FileConfig) -> (Simulated, Vec<(usize, usize)>) {
    let fs = Simulated::default();
    let seal = Seal::new(&config.keys).expect("random numbers");
    let mut ends = vec![segment::beginning(1, 0, seal.as_deref()).len()];
    let channel = open(&fs, config).await;
    for body in ["zero", "one", "two", "three"] {
        put(&channel, &batch(&[body])).await.expect("room");
        ends.push(fs.content(Path::new(SEGMENT)).len());
    }
    let left = fs.killed();
    channel.stop().await;
    (left, ends.windows(2).map(|pair| (pair[0], pair[1])).collect())
}

#[test]
fn every_flipped_bit_and_every_truncation_costs_only_what_it_hits() {
    for keys in [Keys::default(), Keys::of(&[OLD])] {
        costs_only_what_it_hits(&FileConfig { keys, ..one_segment() });
    }
}

fn costs_only_what_it_hits(config: &FileConfig) {
    let runtime = runtime();
    let (fs, records) = runtime.block_on(small_log(config));
    let all = ["zero", "one", "two", "three"];
    let len = records[3].1;
    // Before each put.
    let key = config.keys.active().map_or(0, |(alias, _)| Seal::record_len(alias) as usize);
    let check = |damaged: Simulated, intact: Vec<&str>, what: String| {
        runtime.block_on(async {
            let channel = open(&damaged, config).await;
            assert_eq!(drain(&channel).await, intact, "{what}");
            channel.stop().await;
        });
    };
    for bit in 0..len * 8 {
        let damaged = fs.killed();
        damaged.damage(Path::new(SEGMENT), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let hit = records.iter().position(|(from, to)| (*from + key..*to).contains(&(bit / 8)));
        let intact = (0..4).filter(|record| Some(*record) != hit).map(|record| all[record]).collect();
        check(damaged, intact, format!("bit {bit}"));
    }
    for cut in 0..len {
        let damaged = fs.killed();
        damaged.damage(Path::new(SEGMENT), |bytes| bytes.truncate(cut));
        let intact = (0..4).filter(|record| records[*record].1 <= cut).map(|record| all[record]).collect();
        check(damaged, intact, format!("cut at {cut}"));
    }
}

#[tokio::test]
async fn damage_behind_the_checkpoint_is_found_when_it_is_read() {
    let (fs, records) = small_log(&one_segment()).await;
    let first = open(&fs, &one_segment()).await;
    first.stop().await;
    fs.damage(Path::new(SEGMENT), |bytes| bytes[records[1].0 + 40] ^= 1);
    let again = open(&fs, &one_segment()).await;
    assert_eq!(drain(&again).await, ["zero", "two", "three"]);
    assert_eq!(again.counters().lost.get(), 1);
    assert_eq!(again.room(), one_segment().capacity);
    let (from, to) = records[1];
    let copy = format!("/data/damaged/segment-0000000001.{from}-{to}");
    assert_eq!(fs.content(Path::new(&copy)).len(), to - from);
    again.stop().await;
}

/// What must and what may still come out.
#[derive(Default)]
struct Model {
    next: u64,
    must: BTreeSet<u64>,
    may: BTreeSet<u64>,
    /// What comes before was durable when it was acknowledged, or is by now.
    durable: u64,
    /// What could still be read when the process was killed, though a sync of it may have failed before.
    unsure: BTreeSet<u64>,
}

impl Model {
    /// The next events; they are none yet.
    fn batch(&mut self, events: u64) -> (Vec<u64>, Batch) {
        let ids: Vec<u64> = (self.next..self.next + events).collect();
        self.next += events;
        let batch = ids.iter().map(|id| Event::new(format!("{id}:{}", "x".repeat(*id as usize % 50)))).collect();
        (ids, batch)
    }

    /// After a crash, what was delivered may come again, and what was not acknowledged may come.
    fn crashed(&mut self) {
        self.may = (0..self.next).filter(|id| !self.must.contains(id)).collect();
    }

    /// After a crash that may have taken what was acknowledged and not durable yet.
    fn lost_power(&mut self) {
        let unsure = std::mem::take(&mut self.unsure);
        self.must.retain(|id| *id < self.durable && !unsure.contains(id));
        self.crashed();
        self.durable = self.next;
    }

    /// Events come out, for good or not.
    fn taken(&mut self, batch: &Batch, commit: bool) {
        let mut must = self.must.clone();
        let mut may = self.may.clone();
        let mut last = None;
        for event in batch.iter() {
            let body = String::from_utf8_lossy(event.body());
            let id: u64 = body.split(':').next().and_then(|id| id.parse().ok()).expect("an event of this test");
            assert!(last < Some(id), "{id} after {last:?}");
            last = Some(id);
            assert!(must.remove(&id) || may.remove(&id), "{id} was not to come");
            assert!(must.first().is_none_or(|first| *first > id), "{id} before {:?}", must.first());
            // What may come comes in its place or not at all.
            may = may.split_off(&id);
        }
        if commit {
            (self.must, self.may) = (must, may);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u64),
    GiveUp(u64),
    Late(u64, u64),
    Take(usize, bool),
    Crash(u64),
    Kill,
    Restart,
    FailOne(u64),
    FailRange(u64, u64),
    /// Makes what was acknowledged durable, unless that fails.
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1u64..12).prop_map(Step::Put),
        1 => (1u64..5).prop_map(Step::GiveUp),
        1 => (1u64..5, 1u64..5).prop_map(|(first, second)| Step::Late(first, second)),
        6 => (1usize..20, prop::bool::weighted(0.8)).prop_map(|(max, commit)| Step::Take(max, commit)),
        1 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Kill),
        1 => Just(Step::Restart),
        1 => (0u64..12).prop_map(Step::FailOne),
        1 => (0u64..12, 1u64..25).prop_map(|(ahead, calls)| Step::FailRange(ahead, calls)),
        1 => Just(Step::Sync),
    ];
    prop::collection::vec(step, 1..60)
}

async fn run_steps(steps: Vec<Step>, config: FileConfig) {
    let durable = config.fsync_interval.is_none();
    let mut fs = Simulated::default();
    let mut channel = open(&fs, &config).await;
    let mut model = Model::default();
    for step in steps {
        let left = match step {
            Step::Put(events) => {
                let (ids, batch) = model.batch(events);
                if put(&channel, &batch).await.is_ok() {
                    model.must.extend(ids);
                    if durable {
                        model.durable = model.next;
                    }
                }
                continue;
            }
            Step::Sync => {
                assert!(FileConfig { fsync_interval: None, ..config.clone() }.apply(&channel));
                let (ids, batch) = model.batch(1);
                if put(&channel, &batch).await.is_ok() {
                    model.must.extend(ids);
                    model.durable = model.next;
                }
                assert!(config.apply(&channel));
                continue;
            }
            Step::GiveUp(events) => {
                let (_, batch) = model.batch(events);
                let mut put = channel.reserve(&batch, Patience::KeepAlive).await.expect("room");
                // Whether it is written or not: it is not committed.
                put.prepare(&batch).await.ok();
                continue;
            }
            Step::Late(first, second) => {
                let (first_ids, first) = model.batch(first);
                let (second_ids, second) = model.batch(second);
                let mut late = channel.reserve(&first, Patience::KeepAlive).await.expect("room");
                let prepared = late.prepare(&first).await;
                if put(&channel, &second).await.is_ok() {
                    model.must.extend(second_ids);
                }
                if prepared.is_ok() {
                    late.commit(first);
                    model.must.extend(first_ids);
                }
                if durable {
                    model.durable = model.next;
                }
                continue;
            }
            Step::Take(max, commit) => {
                if let Some(take) = take(&channel, max).await {
                    model.taken(take.batch(), commit);
                    if commit {
                        take.commit();
                    }
                }
                continue;
            }
            Step::FailOne(ahead) => {
                let call = fs.calls() + ahead;
                fs.fail(call..call + 1);
                continue;
            }
            Step::FailRange(ahead, calls) => {
                let call = fs.calls() + ahead;
                fs.fail(call..call + calls);
                continue;
            }
            Step::Crash(seed) => {
                model.lost_power();
                fs.crash(seed)
            }
            Step::Kill => {
                model.crashed();
                model.unsure.extend(model.must.range(model.durable..));
                fs.killed()
            }
            Step::Restart => {
                fs.fail(0..0);
                channel.stop().await;
                model.durable = model.next;
                fs.clone()
            }
        };
        channel.stop().await;
        fs = left;
        channel = open(&fs, &config).await;
        let size = channel.counters().size.get();
        let (least, most) = (model.must.len() as u64, (model.must.len() + model.may.len()) as u64);
        assert!((least..=most).contains(&size), "{size} events, not {least} to {most}");
    }
    fs.fail(0..0);
    while let Some(take) = take(&channel, 100).await {
        model.taken(take.batch(), true);
        take.commit();
    }
    assert_eq!(model.must, BTreeSet::new());
    channel.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_invented(
        steps in steps(),
        memory_bytes in prop_oneof![Just(0usize), Just(400), Just(1 << 20)],
        max_file_size in prop_oneof![Just(300u64), Just(900), Just(1 << 20)],
        durable in prop::bool::weighted(0.8),
        keys in prop_oneof![2 => Just(Keys::default()), 1 => Just(Keys::of(&[NEW]))],
    ) {
        let fsync_interval = (!durable).then_some(Duration::from_millis(1));
        let config = FileConfig { memory_bytes, max_file_size, fsync_interval, keys, ..config() };
        let run = async { tokio::time::timeout(Duration::from_secs(5), run_steps(steps, config)).await };
        runtime().block_on(run).expect("nothing hangs");
    }
}

/// Puts, takes and stops, whatever fails meanwhile; returns what must still come out.
async fn scenario(fs: &Simulated, config: &FileConfig) -> Model {
    let mut model = Model::default();
    let channel = channel(fs, config);
    channel.start().await.ok();
    for round in 0..8 {
        let (ids, batch) = model.batch(5);
        if put(&channel, &batch).await.is_ok() {
            model.must.extend(ids);
        }
        let taken = tokio::time::timeout(Duration::from_millis(30), channel.take(3));
        if round % 2 == 1
            && let Ok(take) = taken.await
        {
            let take = take.expect("open");
            model.taken(take.batch(), true);
            take.commit();
        }
    }
    channel.stop().await;
    model
}

#[test]
fn every_single_call_may_fail() {
    let runtime = runtime();
    let undisturbed = Simulated::default();
    runtime.block_on(scenario(&undisturbed, &config()));
    let calls = undisturbed.calls();
    assert!(calls > 50, "{calls} calls");
    for call in 0..calls {
        for (once, keys) in [(true, Keys::default()), (false, Keys::default()), (true, Keys::of(&[OLD]))] {
            let config = FileConfig { keys, ..config() };
            let short = FileConfig { keep_alive: Duration::from_millis(5), ..config.clone() };
            runtime.block_on(async {
                let fs = Simulated::default();
                fs.fail(call..if once { call + 1 } else { u64::MAX });
                let mut model = scenario(&fs, &short).await;
                model.crashed();
                let channel = open(&fs.crash(call), &config).await;
                while channel.counters().size.get() > 0 {
                    let take = channel.take(100).await.expect("events");
                    model.taken(take.batch(), true);
                    take.commit();
                }
                assert_eq!(model.must, BTreeSet::new(), "call {call}, {once}");
                channel.stop().await;
            });
        }
    }
}

/// A source's way into the channel, with several transactions in flight.
#[tokio::test]
async fn a_pipeline_keeps_the_order_whatever_call_fails() {
    struct OnlyOne;
    impl Selector for OnlyOne {
        fn select(&self, batch: Batch) -> Routes {
            Routes { required: vec![(0, batch)], ..Routes::default() }
        }
        fn requires(&self, _channel: usize) -> bool {
            true
        }
    }
    let source = |channel: &FileChannel| {
        let counters = Arc::new(crate::metrics::SourceCounters::new("r1"));
        let channel = Arc::new(FileChannel(Arc::clone(&channel.0)));
        ChannelProcessor::new("r1", Chain::default(), Box::new(OnlyOne), vec![channel], counters, Arc::default())
    };
    let numbers: Vec<String> = (0..60).map(|n| n.to_string()).collect();
    let mut calls = 0;
    for failing in 0.. {
        let fs = Simulated::default();
        let channel = open(&fs, &one_segment()).await;
        let start = fs.calls();
        fs.fail(start + failing..start + failing + 3);
        let out = source(&channel);
        let stop = CancellationToken::new();
        let mut pipeline = Pipeline::new(&out, &stop);
        for pair in numbers.chunks(2) {
            pipeline.deliver(pair.iter().map(|body| Event::new(body.clone())).collect()).await;
        }
        pipeline.finish().await;
        assert_eq!(out.counters().event_accepted.get(), 60, "call {failing}");
        assert_eq!(drain(&channel).await, numbers, "call {failing}");
        calls = calls.max(fs.calls() - start);
        channel.stop().await;
        if failing > calls {
            break;
        }
    }
}
