//! What notes are for: a source that goes on behind what is noted, and a sink that knows the events' numbers, deliver
//! each event once, whatever fails and whenever the machine stops.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::encryption::Keys;
use super::image::Image;
use super::repair::Repair;
use super::state::{State, Waits};
use super::tests::{TUNING, config, drain, open, runtime};
use super::*;
use crate::event::Event;
use crate::fs::simulated::Simulated;
use crate::fs::{Disk, FileSystem as _};
use crate::interceptor::Chain;
use crate::metrics::SourceCounters;
use crate::selector::{Routes, Selector};
use crate::source::ChannelProcessor;

const STREAM: u128 = 0xF1;

fn batch(from: u64, events: u64) -> Batch {
    (from..from + events).map(|id| Event::new(id.to_string())).collect()
}

async fn prepare(channel: &FileChannel, batch: &Batch, next: u64) -> Result<Put, ChannelError> {
    let mut put = channel.reserve(batch, Patience::KeepAlive).await?;
    put.note(&Arc::from([Note { stream: STREAM, next }]));
    put.prepare(batch).await?;
    Ok(put)
}

async fn put(channel: &FileChannel, from: u64, events: u64) -> Result<(), ChannelError> {
    let batch = batch(from, events);
    prepare(channel, &batch, from + events).await?.commit(batch);
    Ok(())
}

/// A source that reads numbers, and a sink that stores the events' numbers with what it delivers.
#[derive(Default)]
struct World {
    read: u64,
    committed: u64,
    delivered: BTreeMap<u64, u64>,
}

impl World {
    fn deliver(&mut self, take: &Take) {
        let numbers = take.numbers().expect("the channel is durable");
        for (number, event) in numbers.iter().zip(take.batch().iter()) {
            let id = std::str::from_utf8(event.body()).ok().and_then(|body| body.parse().ok()).expect("a number");
            let before = self.delivered.insert(number, id);
            assert!(before.is_none_or(|before| before == id), "{number} is {id} and was {before:?}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u64),
    Commit,
    GiveUp(u64),
    Take(usize, bool),
    Crash(u64),
    Kill,
    Restart,
    Forget,
    Fail(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1u64..12).prop_map(Step::Put),
        2 => Just(Step::Commit),
        2 => (1u64..5).prop_map(Step::GiveUp),
        6 => (1usize..20, prop::bool::weighted(0.8)).prop_map(|(max, commit)| Step::Take(max, commit)),
        1 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Kill),
        1 => Just(Step::Restart),
        1 => Just(Step::Forget),
        1 => (0u64..12, 1u64..10).prop_map(|(ahead, calls)| Step::Fail(ahead, calls)),
    ];
    prop::collection::vec(step, 1..60)
}

async fn run_steps(steps: Vec<Step>, config: FileConfig) {
    let mut fs = Simulated::default();
    let mut channel = open(&fs, &config).await;
    let mut world = World::default();
    let mut failed = false;
    for step in steps {
        let left = match step {
            Step::Put(events) => {
                if put(&channel, world.read, events).await.is_ok() {
                    world.read += events;
                }
                continue;
            }
            Step::Commit => {
                world.committed = world.read;
                continue;
            }
            Step::GiveUp(events) => {
                // As when another channel refuses.
                drop(prepare(&channel, &batch(world.read, events), world.read + events).await.ok());
                continue;
            }
            Step::Take(max, commit) => {
                if channel.counters().size.get() > 0 {
                    let take = channel.take(max).await.expect("events");
                    world.deliver(&take);
                    if commit {
                        take.commit();
                    }
                }
                continue;
            }
            Step::Fail(ahead, calls) => {
                let call = fs.calls() + ahead;
                fs.fail(call..call + calls);
                failed = true;
                continue;
            }
            // What could be read then, though its sync had failed, may be gone later.
            Step::Kill if !failed => fs.killed(),
            Step::Kill => fs.crash(0),
            Step::Crash(seed) => fs.crash(seed),
            Step::Restart | Step::Forget => {
                fs.fail(0..0);
                channel.stop().await;
                // What could not be logged stands in the checkpoint alone.
                if matches!(step, Step::Forget) && !failed {
                    fs.remove(&Path::new("/checkpoint").join(CHECKPOINT_FILE)).expect("there");
                    channel = open(&fs, &config).await;
                    // It has another one before a crash, which may bring segments back that were removed.
                    channel.stop().await;
                }
                fs.clone()
            }
        };
        channel.stop().await;
        fs = left;
        channel = open(&fs, &config).await;
        let noted = channel.noted(STREAM).unwrap_or(0);
        assert!(noted >= world.read, "{noted} is noted, and up to {} was acknowledged", world.read);
        world.read = noted.max(world.committed);
    }
    fs.fail(0..0);
    while channel.counters().size.get() > 0 {
        let take = channel.take(100).await.expect("events");
        world.deliver(&take);
        take.commit();
    }
    channel.stop().await;
    let mut delivered: Vec<u64> = world.delivered.into_values().collect();
    delivered.sort_unstable();
    assert!(delivered.iter().copied().eq(0..world.read), "{delivered:?} of {}", world.read);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn each_event_is_delivered_once(
        steps in steps(),
        memory_bytes in prop_oneof![Just(0usize), Just(400), Just(1 << 20)],
        max_file_size in prop_oneof![Just(300u64), Just(900), Just(1 << 20)],
        keys in prop_oneof![2 => Just(Keys::default()), 1 => Just(Keys::of(&[("key", b"0123456789abcdef")]))],
    ) {
        let config = FileConfig { memory_bytes, max_file_size, keys, ..config() };
        let run = async { tokio::time::timeout(Duration::from_secs(5), run_steps(steps, config)).await };
        runtime().block_on(run).expect("nothing hangs");
    }
}

/// A channel that does not try again to write what has failed.
fn channel(fs: &Simulated, config: &FileConfig) -> FileChannel {
    let tuning = Tuning { retry: Duration::from_secs(3600), ..TUNING };
    FileChannel::new("c1", config.clone(), tuning, Arc::new(fs.clone()), &Metrics::default())
}

async fn until(channel: &FileChannel, is_so: impl Fn(&State) -> bool) {
    let wait = async {
        while !is_so(&channel.0.state()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it comes to that");
}

/// Whether nothing is left to write, or that fails.
fn is_logged(state: &State) -> bool {
    state.ailment.is_some() || (state.unlogged.is_empty() && state.writer != Waits::No)
}

#[tokio::test]
async fn a_note_goes_with_its_refused_put_when_the_checkpoint_alone_can_say_so() {
    let fs = Simulated::default();
    let mut config = config();
    config.directories.data.truncate(1);
    let sick = channel(&fs, &config);
    sick.start().await.expect("it opens");
    put(&sick, 0, 2).await.expect("room");
    put(&sick, 2, 1).await.expect("room");
    // As the free space is known by now, a put is a write and a sync. The record is then in the file, durable or not.
    let sync = fs.calls() + 1;
    fs.fail(sync..sync + 1);
    put(&sick, 3, 2).await.expect_err("not durable");
    fs.fail_in(Some(&config.directories.data[0]));
    sick.stop().await;
    fs.fail_in(None);
    for _ in 0..2 {
        let again = open(&fs, &config).await;
        assert_eq!((again.noted(STREAM), again.counters().size.get()), (Some(3), 3));
        again.stop().await;
    }
}

#[tokio::test]
async fn what_is_given_up_while_a_segment_begins_is_done_where_its_note_is_gone() {
    let config = FileConfig { max_file_size: 1, checkpoint_on_close: false, ..config() };
    for spared in 0..12 {
        let fs = Simulated::default();
        let channel = channel(&fs, &config);
        channel.start().await.expect("it opens");
        put(&channel, 0, 3).await.expect("room");
        let pending = prepare(&channel, &batch(3, 2), 5).await.expect("written");
        let call = fs.calls() + spared;
        fs.slow_down(Duration::from_millis(20));
        fs.fail(call..u64::MAX);
        channel.take(3).await.expect("events").commit();
        until(&channel, |state| state.unlogged.is_empty() || state.ailment.is_some()).await;
        drop(pending);
        until(&channel, is_logged).await;
        let left = fs.killed();
        left.fail(0..0);
        channel.stop().await;
        let again = open(&left, &config).await;
        let (noted, all) = (again.noted(STREAM), drain(&again).await);
        assert_eq!(noted, if all.contains(&"4".to_owned()) { Some(5) } else { Some(3) }, "{spared}: {all:?}");
        again.stop().await;
    }
}

#[tokio::test]
async fn no_crash_leaves_what_was_given_up_behind_a_later_note() {
    let config =
        FileConfig { keep_alive: Duration::ZERO, max_file_size: 1 << 20, checkpoint_on_close: false, ..config() };
    for (spared, seed) in (0..5).flat_map(|spared| (0..16).map(move |seed| (spared, seed))) {
        // What is left of a sync that fails depends on the seed, too.
        let fs = Simulated::default().crash(seed);
        let channel = channel(&fs, &config);
        channel.start().await.expect("it opens");
        put(&channel, 0, 2).await.expect("room");
        let given_up = prepare(&channel, &batch(2, 3), 5).await.expect("written");
        let call = fs.calls() + spared;
        fs.fail(call..u64::MAX);
        drop(given_up);
        until(&channel, is_logged).await;
        put(&channel, 2, 4).await.ok();
        let left = fs.crash(seed);
        channel.stop().await;
        let again = open(&left, &config).await;
        let noted = again.noted(STREAM).expect("a note is durable");
        assert_eq!(again.counters().size.get(), noted, "{spared} calls worked, seed {seed}");
        again.stop().await;
    }
}

#[tokio::test]
async fn a_note_counts_once_its_put_is_committed() {
    let fs = Simulated::default();
    let channel = open(&fs, &config()).await;
    assert_eq!(channel.noted(STREAM), None);
    let events = batch(0, 3);
    let prepared = prepare(&channel, &events, 3).await.expect("written");
    assert_eq!(channel.noted(STREAM), None);
    prepared.commit(events);
    assert_eq!(channel.noted(STREAM), Some(3));
    let given_up = prepare(&channel, &batch(3, 2), 5).await.expect("written");
    assert_eq!(channel.noted(STREAM), Some(3));
    drop(given_up);
    assert_eq!(channel.noted(STREAM), Some(3));
    channel.stop().await;
}

struct Both;

impl Selector for Both {
    fn select(&self, batch: Batch) -> Routes {
        Routes { required: vec![(0, batch.clone()), (1, batch)], ..Routes::default() }
    }

    fn requires(&self, _channel: usize) -> bool {
        true
    }
}

#[tokio::test]
async fn a_source_is_where_all_its_channels_are() {
    let disks = [Simulated::default(), Simulated::default()];
    let small = FileConfig { transaction_capacity: 2, ..config() };
    let channels: Vec<_> = [open(&disks[0], &small).await, open(&disks[1], &small).await].map(Arc::new).into();
    let shared = channels.iter().map(|channel| Arc::clone(channel) as Arc<dyn Channel>).collect();
    let counters = Arc::new(SourceCounters::new("r1"));
    let out = ChannelProcessor::new("r1", Chain::default(), Box::new(Both), shared, counters, Arc::default());
    assert!(out.keeps_notes());
    let (stop, note) = (CancellationToken::new(), |next| Arc::from([Note { stream: STREAM, next }]));
    // The note of what is too large for one transaction stands with the last of it.
    assert!(out.deliver_noted(batch(0, 5), Some(&note(5)), &stop).await);
    assert_eq!(out.noted(STREAM), Some(5));
    put(&channels[0], 5, 1).await.expect("room");
    assert_eq!((channels[0].noted(STREAM), out.noted(STREAM)), (Some(6), Some(5)));
    for channel in channels {
        channel.stop().await;
    }
}

#[tokio::test]
async fn what_has_no_notes_is_written_as_ever() {
    let fs = Simulated::default();
    let channel = open(&fs, &config()).await;
    let events = batch(0, 3);
    let mut put = channel.reserve(&events, Patience::KeepAlive).await.expect("room");
    put.prepare(&events).await.expect("written");
    put.commit(events);
    drain(&channel).await;
    channel.stop().await;
    assert_eq!(fs.content(Path::new("/more/segment-0000000001"))[segment::START as usize + 4], 1);
    assert_eq!(fs.content(Path::new("/checkpoint/channel.checkpoint"))[7], 1);
}

#[tokio::test]
async fn notes_survive_their_segments_and_a_repair() {
    let home = tempfile::tempdir().expect("a directory");
    let directories =
        Directories { checkpoint: home.path().join("checkpoint"), backup: None, data: vec![home.path().join("data")] };
    let open = || async {
        let config = FileConfig { max_file_size: 300, ..FileConfig::new(directories.clone()) };
        let channel = FileChannel::new("c1", config, Tuning::default(), Arc::new(Disk), &Metrics::default());
        channel.start().await.expect("it opens");
        channel
    };
    let channel = open().await;
    put(&channel, 0, 5).await.expect("room");
    // Others go on, until nothing is left of the segment with the note.
    for _ in 0..20 {
        let events = batch(100, 3);
        let mut put = channel.reserve(&events, Patience::KeepAlive).await.expect("room");
        put.prepare(&events).await.expect("written");
        put.commit(events);
    }
    drain(&channel).await;
    channel.stop().await;
    assert!(!directories.data[0].join("segment-0000000001").exists());
    let checkpoint = directories.checkpoint.join(CHECKPOINT_FILE);
    let mut content = std::fs::read(&checkpoint).expect("readable");
    content[20] ^= 1;
    std::fs::write(&checkpoint, content).expect("writable");
    let image = Image::read(&directories).expect("readable");
    Repair::plan(&directories, image, |_| {}).expect("readable").apply(&Disk).expect("writable");
    for _ in 0..2 {
        let channel = open().await;
        assert_eq!(channel.noted(STREAM), Some(5));
        channel.stop().await;
        std::fs::remove_file(&checkpoint).expect("there");
    }
}
