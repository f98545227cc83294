//! What the real Flume left behind, taken over on a file system that crashes and fails.

use std::collections::BTreeSet;
use std::io::Read as _;

use proptest::prelude::*;

use super::log::Found;
use super::*;
use crate::channel::Channel as _;
use crate::channel::file::FileChannel;
use crate::channel::file::encryption::Keys;
use crate::channel::file::tests::{bodies, channel, config, drain, open, runtime};
use crate::fs::FileSystem as _;
use crate::fs::simulated::Simulated;

/// What is behind the records of a log in the vectors, but for this many bytes, only makes tests slow.
const KEPT_FILL: usize = 100;

/// A channel's directories as Flume left them.
fn left_behind(vector: &str) -> Simulated {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(vector);
    let packed = std::fs::File::open(path).expect("a vector");
    let mut archive = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut archive).expect("a whole archive");
    let fs = Simulated::default();
    for directory in ["/checkpoint", "/data", "/more", "/backup"] {
        fs.create_directory(Path::new(directory)).expect("made");
    }
    let mut archive = &archive[..];
    while let Some((header, rest)) = archive.split_first_chunk::<512>() {
        let text = |from: usize, to: usize| {
            let field = header[from..to].split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default();
            String::from_utf8(field.to_vec()).expect("text")
        };
        let len = usize::from_str_radix(&text(124, 136), 8).unwrap_or(0);
        if header[156] == b'0' && len > 0 {
            let name = text(0, 100);
            let (_, name) = name.split_once('/').expect("a file in a directory");
            let records = rest[..len].iter().rposition(|byte| *byte != 0x80).map_or(0, |last| last + 1);
            let kept = if name.contains("log-") { len.min(records + KEPT_FILL) } else { len };
            write(&fs, &format!("/{name}"), &rest[..kept]);
        } else if header[156] == b'0' && text(0, 100).ends_with("backupComplete") {
            write(&fs, "/backup/backupComplete", b"");
        }
        archive = rest.get(len.next_multiple_of(512)..).unwrap_or_default();
    }
    fs
}

fn write(fs: &Simulated, path: &str, content: &[u8]) {
    let path = Path::new(path);
    let file = fs.create(path).expect("made");
    file.write_at(&[IoSlice::new(content)], 0).expect("room");
    file.sync().expect("synced");
    fs.sync_directory(path.parent().expect("a directory")).expect("synced");
}

fn with_backup() -> FileConfig {
    let mut config = FileConfig { max_file_size: 2000, ..config() };
    config.directories.backup = Some("/backup".into());
    config
}

fn events(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("event-{number}")).collect()
}

/// Opens the channel and takes all there is.
fn take_over(fs: &Simulated) -> Vec<String> {
    runtime().block_on(async {
        let channel = open(fs, &with_backup()).await;
        let events = drain(&channel).await;
        channel.stop().await;
        events
    })
}

const CLEAN: &str = "filechannel-v3-clean.tar.gz";
const UNCLEAN: &str = "filechannel-v3-unclean.tar.gz";
const ENCRYPTED: &str = "filechannel-v3-encrypted.tar.gz";
const DUAL: &str = "filechannel-v3-dual-checkpoint.tar.gz";

fn undelivered(vector: &str) -> Vec<String> {
    match vector {
        CLEAN => events(40..100),
        UNCLEAN => events([15, 16].into_iter().chain(42..100)),
        _ => events(3..10),
    }
}

#[test]
fn what_was_not_delivered_is_taken_over_in_order() {
    for vector in [CLEAN, UNCLEAN, DUAL] {
        assert_eq!(take_over(&left_behind(vector)), undelivered(vector), "{vector}");
    }
}

#[test]
fn without_a_checkpoint_the_logs_tell_the_same() {
    for vector in [CLEAN, UNCLEAN, DUAL] {
        let fs = left_behind(vector);
        fs.remove(Path::new("/checkpoint/checkpoint")).expect("it was there");
        if vector == DUAL {
            fs.remove(Path::new("/backup/checkpoint.meta")).expect("it was there");
        }
        assert_eq!(take_over(&fs), undelivered(vector), "{vector}");
    }
}

#[test]
fn the_copy_of_a_damaged_checkpoint_is_unpacked() {
    let fs = left_behind(DUAL);
    // The marker says that the checkpoint was being written.
    fs.damage(Path::new("/checkpoint/checkpoint"), |bytes| bytes[39] = 1);
    let read = |directory: &str| Checkpoint::read(&fs, Path::new(directory)).expect("readable").expect("a checkpoint");
    assert_eq!(read("/checkpoint"), Err("it is not complete"));
    let copy = read("/backup").expect("complete");
    assert!(!copy.queue.is_empty());
    // A copy that is not complete is not used: all logs are read then.
    let incomplete = fs.killed();
    incomplete.remove(Path::new("/backup/backupComplete")).expect("it was there");
    assert_eq!(take_over(&incomplete), undelivered(DUAL));
    // There is nothing else to start from.
    fs.damage(Path::new("/data/log-1.meta"), |bytes| bytes[13..21].fill(0));
    assert_eq!(take_over(&fs), undelivered(DUAL));
}

#[test]
fn encrypted_logs_are_read_with_their_key_and_encrypted_again() {
    let key = 0x3882_cda7_bb8f_c2a2_d6a9_903f_1ae1_7b6d_u128.to_be_bytes();
    for keep_checkpoint in [true, false] {
        let fs = left_behind(ENCRYPTED);
        if !keep_checkpoint {
            fs.remove(Path::new("/checkpoint/checkpoint")).expect("it was there");
        }
        runtime().block_on(async {
            let wrong = FileConfig { keys: Keys::of(&[("key-0", &[1; 16])]), ..with_backup() };
            let refused = channel(&fs, &wrong);
            let error = refused.start().await.expect_err("the key is wrong").to_string();
            assert!(error.contains("Nothing in /data/log-1 can be decrypted: its key key-0 is another one"), "{error}");
            refused.stop().await;
            let config = FileConfig { keys: Keys::of(&[("key-0", &key)]), ..with_backup() };
            open(&fs, &config).await.stop().await;
            let segment = fs.content(Path::new("/more/segment-0000000001"));
            assert!(memchr::memmem::find(&segment, b"event").is_none());
            let again = open(&fs, &config).await;
            assert_eq!(drain(&again).await, events(1..3));
            again.stop().await;
        });
    }
}

#[test]
fn headers_come_along_and_flumes_files_are_kept() {
    let fs = left_behind(UNCLEAN);
    let (log, meta) = (fs.content(Path::new("/data/log-1")), fs.content(Path::new("/data/log-1.meta")));
    runtime().block_on(async {
        let channel = open(&fs, &with_backup()).await;
        let take = channel.take(1).await.expect("an event");
        let event = take.batch().get(0);
        let headers: Vec<_> = event.headers().iter().collect();
        assert_eq!((event.body(), headers), (&b"event-15"[..], vec![("seq", "15")]));
        assert_eq!(channel.counters().size.get(), 60);
        drop(take);
        channel.stop().await;
        let again = open(&fs, &with_backup()).await;
        assert_eq!(again.counters().size.get(), 60, "nothing is taken over twice");
        again.stop().await;
    });
    let kept = |name: &str| fs.content(&Path::new("/data/taken-over-from-flume").join(name));
    assert_eq!((kept("log-1"), kept("log-1.meta")), (log, meta));
    let mut left = fs.list(Path::new("/checkpoint")).expect("listed");
    left.sort();
    assert_eq!(left, ["channel.checkpoint", "taken-over-from-flume"]);
}

#[test]
fn a_second_takeover_keeps_the_files_of_the_first() {
    let fs = left_behind(CLEAN);
    let mut expected = undelivered(CLEAN);
    expected.extend(undelivered(DUAL));
    runtime().block_on(async {
        let first = open(&fs, &with_backup()).await;
        first.stop().await;
        let again = left_behind(DUAL);
        for name in ["log-1", "log-1.meta"] {
            write(&fs, &format!("/more/{name}"), &again.content(&Path::new("/data").join(name)));
        }
        let second = open(&fs, &with_backup()).await;
        assert_eq!(drain(&second).await, expected);
        second.stop().await;
    });
    assert!(!fs.content(Path::new("/more/taken-over-from-flume-2/log-1")).is_empty());
    assert!(!fs.content(Path::new("/data/taken-over-from-flume/log-1")).is_empty());
}

#[test]
fn whenever_it_is_interrupted_each_event_is_taken_over_once() {
    let runtime = runtime();
    let undisturbed = left_behind(UNCLEAN);
    let start = undisturbed.calls();
    runtime.block_on(async { open(&undisturbed, &with_backup()).await.stop().await });
    let calls = undisturbed.calls() - start;
    assert!(calls > 60, "{calls} calls");
    for call in 0..calls {
        for way in 0..4 {
            let fs = left_behind(UNCLEAN);
            let start = fs.calls() + call;
            fs.fail(start..if way == 0 { start + 1 } else { u64::MAX });
            runtime.block_on(async {
                let interrupted = channel(&fs, &with_backup());
                interrupted.start().await.ok();
                let left = match way {
                    0 | 1 => fs.killed(),
                    seed => fs.crash(call + seed * 1000),
                };
                interrupted.stop().await;
                left.fail(0..0);
                // The next attempt does not come to its end either.
                let start = left.calls() + (call * 7 + way) % calls;
                left.fail(start..u64::MAX);
                let interrupted = channel(&left, &with_backup());
                interrupted.start().await.ok();
                let left = left.crash(call);
                interrupted.stop().await;
                left.fail(0..0);
                let again = open(&left, &with_backup()).await;
                assert_eq!(drain(&again).await, undelivered(UNCLEAN), "call {call}, way {way}");
                again.stop().await;
                let names = left.list(Path::new("/data/taken-over-from-flume")).unwrap_or_default();
                let is = left.list(Path::new("/data")).expect("listed");
                assert!(names.contains(&"log-1".to_owned()), "call {call}, way {way}: {names:?} {is:?}");
            });
        }
    }
}

async fn refusal(fs: &Simulated) -> String {
    let channel = channel(fs, &with_backup());
    let error = channel.start().await.expect_err("it cannot be taken over").to_string();
    channel.stop().await;
    error
}

#[tokio::test]
async fn what_cannot_be_taken_over_is_said() {
    let fs = left_behind(CLEAN);
    fs.remove(Path::new("/data/log-1")).expect("it was there");
    write(&fs, "/data/log-2", b"");
    let error = refusal(&fs).await;
    assert!(error.contains("log-1 of Flume with 60 events is missing"), "{error}");

    let fs = left_behind(CLEAN);
    fs.damage(Path::new("/data/log-1.meta"), |bytes| bytes[3] ^= 1);
    fs.damage(Path::new("/data/log-1"), |bytes| bytes[..4].copy_from_slice(&[0, 0, 0, 2]));
    let error = refusal(&fs).await;
    assert!(error.contains("/data/log-1 was written by Flume 1.2 or before"), "{error}");

    let fs = left_behind(ENCRYPTED);
    let error = refusal(&fs).await;
    assert!(error.contains("/data/log-1 is encrypted with the key key-0, and no encryption.keyProvider"), "{error}");

    let fs = left_behind(CLEAN);
    fs.set_capacity(1);
    let error = refusal(&fs).await;
    assert!(error.contains("Usable space exhausted, only "), "{error}");
    let names = fs.list(Path::new("/data")).expect("listed");
    assert!(names.contains(&"log-1".to_owned()), "{names:?}");
}

/// Of a record's number and transaction and of where a take points, Flume keeps no checksum: the test leaves these out.
#[test]
fn every_damaged_byte_costs_at_most_the_event_that_it_hits() {
    let whole = left_behind(UNCLEAN);
    whole.remove(Path::new("/checkpoint/checkpoint")).expect("it was there");
    let log = Path::new("/data/log-1");
    let content = whole.content(log);
    let (places, _) = scan(&content);
    let expected: BTreeSet<String> = undelivered(UNCLEAN).into_iter().collect();
    for (number, at) in places.iter().map(|at| *at as usize).enumerate() {
        let is_put = content[at + 7] == 1;
        let end = if is_put { places.get(number + 1).map_or(at, |next| *next as usize) } else { at };
        for hit in (at..at + 5).chain(at + 29..end).filter(|hit| hit % 11 == number % 11) {
            let fs = whole.killed();
            fs.damage(log, |bytes| bytes[hit] ^= 1 << (hit % 8));
            let found = take_over(&fs).into_iter().collect();
            let lost: Vec<_> = expected.difference(&found).collect();
            assert!(lost.len() <= 1, "byte {} of the record at {at}: {lost:?}", hit - at);
        }
    }
}

#[test]
fn damaged_events_are_counted() {
    let fs = left_behind(CLEAN);
    let content = fs.content(Path::new("/data/log-1"));
    let body = memchr::memmem::find(&content, b"event-77").expect("it waits");
    fs.damage(Path::new("/data/log-1"), |bytes| bytes[body] ^= 1);
    runtime().block_on(async {
        let channel = open(&fs, &with_backup()).await;
        assert_eq!(channel.counters().lost.get(), 1);
        assert_eq!(drain(&channel).await, events((40..100).filter(|number| *number != 77)));
        channel.stop().await;
    });
}

/// Reads a log as far as it goes: the places of its records, and of what is none.
fn scan(content: &[u8]) -> (Vec<u64>, u64) {
    let fs = Simulated::default();
    fs.create_directory(Path::new("/d")).expect("made");
    write(&fs, "/d/log-1", content);
    let mut reader = Reader::new(fs.open(Path::new("/d/log-1")).expect("there")).expect("readable");
    let (mut records, mut damaged, mut end) = (Vec::new(), 0, 0);
    while let Some(found) = reader.read_next().expect("readable") {
        let (from, to) = match found {
            Found::Record { at, .. } => {
                records.push(at);
                // Whether it is one or not.
                reader.event(at).expect("readable").ok();
                (at, reader.at())
            }
            Found::Damage { from, to } => {
                damaged += to - from;
                (from, to)
            }
        };
        assert!(end <= from && from < to && to <= content.len() as u64, "{end} {from} {to}");
        end = to;
    }
    (records, damaged)
}

proptest! {
    #[test]
    fn no_bytes_panic(mut content in prop::collection::vec(any::<u8>(), 0..600), frames in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        for frame in frames {
            if !content.is_empty() {
                let at = frame.index(content.len());
                let len = content.len();
                content[at..len.min(at + 6)].copy_from_slice(&[0x7F, 0, 0, 0, 0x1F, 0x17][..(len - at).min(6)]);
            }
        }
        scan(&content);
        log::Meta::of(&content);
        let fs = left_behind(DUAL);
        for name in ["/data/log-1", "/checkpoint/checkpoint", "/checkpoint/checkpoint.meta", "/backup/checkpoint.snappy", "/checkpoint/inflightputs"] {
            fs.damage(Path::new(name), |bytes| *bytes = content.clone());
            for directory in ["/checkpoint", "/backup"] {
                Checkpoint::read(&fs, Path::new(directory)).expect("readable");
            }
        }
    }

    #[test]
    fn records_behind_damage_are_found(from in 0usize..4000, garbage in prop::collection::vec(any::<u8>(), 1..300)) {
        let fs = left_behind(CLEAN);
        let mut content = fs.content(Path::new("/data/log-1"));
        let (all, none) = scan(&content);
        prop_assert_eq!(none, 0);
        content[from..from + garbage.len()].copy_from_slice(&garbage);
        let (found, _) = scan(&content);
        let ends = all[1..].iter().copied().chain([content.len() as u64]);
        let intact = |(at, end): (u64, u64)| end <= from as u64 || at >= (from + garbage.len()) as u64;
        let missing = all.iter().copied().zip(ends).filter(|place| intact(*place) && !found.contains(&place.0)).count();
        prop_assert_eq!(missing, 0);
    }
}

#[test]
fn records_before_a_length_that_leads_into_the_fill_are_found() {
    let fs = left_behind(CLEAN);
    let content = fs.content(Path::new("/data/log-1"));
    let (all, _) = scan(&content);
    let last = *all.last().expect("there are records");
    assert!(content.ends_with(&[0x80; 8]), "it has fill at its end");
    for at in &all[1..all.len() - 1] {
        let mut wrong = content.clone();
        let at = *at as usize;
        let length = wrong.len() - 4 - (at + 5);
        wrong[at + 1..at + 5].copy_from_slice(&(length as u32).to_be_bytes());
        let (found, _) = scan(&wrong);
        assert_eq!(found.last(), Some(&last), "the length at {at} is wrong");
        assert_eq!(found.len(), all.len() - 1);
    }
}

#[tokio::test]
async fn the_channel_goes_on_behind_what_it_took_over() {
    let fs = left_behind(CLEAN);
    let channel: FileChannel = open(&fs, &with_backup()).await;
    let new: Batch = [crate::event::Event::new("new")].into_iter().collect();
    let mut put = channel.reserve(&new, crate::channel::Patience::KeepAlive).await.expect("room");
    put.prepare(&new).await.expect("written");
    put.commit(new);
    let left = fs.crash(3);
    channel.stop().await;
    let again = open(&left, &with_backup()).await;
    let take = again.take(100).await.expect("events");
    assert!(bodies(take.batch()).starts_with(&events([40, 41])));
    drop(take);
    let mut expected = undelivered(CLEAN);
    expected.push("new".to_owned());
    assert_eq!(drain(&again).await, expected);
    again.stop().await;
}
