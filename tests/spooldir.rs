//! The spooldir source, through kills, restarts and all that may be wrong with a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use apache_avro::{Schema, Writer};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    Event, LOGGER, MEMORY, TestAgent, contents, directory, eventually, file_channel, file_roll, keys,
    wait_for_kept_events, write,
};

/// A spooling directory, and one for what was delivered.
struct Place {
    home: TempDir,
}

impl Place {
    fn new() -> Self {
        let home = directory();
        for name in ["spool", "out", "made"] {
            fs::create_dir(home.path().join(name)).expect("a directory");
        }
        Self { home }
    }

    fn spool(&self, name: &str) -> PathBuf {
        self.home.path().join("spool").join(name)
    }

    fn out(&self) -> PathBuf {
        self.home.path().join("out")
    }

    /// Moves a finished file there, below the spooling directory.
    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        let made = write(&self.home.path().join("made"), "file", text);
        fs::rename(made, self.spool(name)).expect("a rename");
    }

    /// A spooldir source `r1` with more keys.
    fn source(&self, more: &str) -> String {
        let source = format!(
            "a1.sources = r1\na1.sources.r1.type = spooldir\na1.sources.r1.channels = c1\n\
             a1.sources.r1.spoolDir = {}\na1.sources.r1.pollDelay = 20\n",
            self.home.path().join("spool").display()
        );
        source + &keys("sources.r1", more)
    }

    fn start(&self, more: &str) -> TestAgent {
        TestAgent::start(&format!("{}{MEMORY}{}", self.source(more), file_roll(&self.out())))
    }

    fn start_keeping_headers(&self, more: &str) -> TestAgent {
        let sink = format!("{}a1.sinks.k1.sink.serializer = avro_event\n", file_roll(&self.out()));
        TestAgent::start(&format!("{}{MEMORY}{sink}", self.source(more)))
    }

    fn expect(&self, text: &str) {
        let seen = eventually(|| (contents(&self.out()) == text.as_bytes()).then_some(()));
        assert!(seen.is_some(), "{:?} instead of {text:?}", String::from_utf8_lossy(&contents(&self.out())));
    }

    fn expect_file(&self, name: &str) {
        assert!(eventually(|| self.spool(name).exists().then_some(())).is_some(), "no {name}");
    }
}

#[test]
fn files_are_delivered_once_and_renamed() {
    let place = Place::new();
    place.put("old", "1\r\n2");
    let mut agent = place.start("");
    place.expect("1\r\n2\n");
    place.expect_file("old.COMPLETED");
    place.put("moved", "3\n");
    place.expect("1\r\n2\n3\n");
    // Written where it is, and quiet for a moment.
    fs::write(place.spool("written"), "4\n").expect("a file");
    place.expect("1\r\n2\n3\n4\n");
    for name in ["moved.COMPLETED", "written.COMPLETED"] {
        place.expect_file(name);
    }
    assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 4);
    assert!(agent.terminate().success());
    let _agent = place.start("");
    place.put("next", "5\n");
    place.expect("1\r\n2\n3\n4\n5\n");
}

#[test]
fn killed_in_the_middle_of_a_file_it_goes_on_there() {
    let place = Place::new();
    let lines: Vec<String> = (0..10_000).map(|line| format!("line {line}\n")).collect();
    place.put("big", lines.concat());
    // Nobody takes what it delivers, so that it stops after a thousand lines.
    let stuck = "a1.channels.c1.capacity = 1000\na1.channels.c1.keep-alive = 0\n";
    for round in 1..=3 {
        let mut agent = TestAgent::start(&format!("{}{MEMORY}{stuck}", place.source("")));
        agent.wait_for_line("waiting, nothing is lost");
        assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 1000, "{round}");
        agent.signal(Signal::KILL);
        agent.wait();
    }
    assert!(!place.spool("big.COMPLETED").exists());
    let mut agent = place.start("");
    place.expect(&lines[3000..].concat());
    place.expect_file("big.COMPLETED");
    assert!(agent.terminate().success());
    assert_eq!(fs::read_dir(place.spool(".flumespool")).expect("a directory").count(), 0);
}

#[test]
fn killed_at_any_moment_it_loses_nothing_and_repeats_at_most_a_batch() {
    const KILLS: u64 = 4;
    let place = Place::new();
    let lines: Vec<String> = (0..60_000).map(|line| format!("{line:05}\n")).collect();
    for (number, part) in lines.chunks(20_000).enumerate() {
        place.put(&format!("part{number}"), part.concat());
    }
    let channel = file_channel(place.home.path());
    for kill in 1..=KILLS {
        let mut agent = TestAgent::start(&format!("{}{channel}", place.source("")));
        agent.wait_for_line("Component type: SOURCE, name: r1 started");
        let seen = eventually(|| (agent.counter("SOURCE.r1", "EventAcceptedCount") >= 2000 * kill).then_some(()));
        assert!(seen.is_some());
        agent.signal(Signal::KILL);
        agent.wait();
    }
    let mut agent = TestAgent::start(&format!("{}{channel}{}", place.source(""), file_roll(&place.out())));
    place.expect_file("part2.COMPLETED");
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    assert!(agent.terminate().success());
    let delivered = contents(&place.out());
    let mut delivered: Vec<&[u8]> = delivered.split_inclusive(|byte| *byte == b'\n').collect();
    let count = delivered.len() as u64;
    assert!(count <= 60_000 + KILLS * 100, "{count}");
    delivered.sort_unstable();
    delivered.dedup();
    assert!(delivered.concat() == lines.concat().as_bytes(), "{} lines of 60000", delivered.len());
}

#[test]
fn patterns_directories_and_headers() {
    let place = Place::new();
    fs::create_dir(place.spool("sub")).expect("a directory");
    for name in ["a.log", "skip.log", "b.txt", "sub/c.log"] {
        place.put(name, name);
    }
    let age = |name: &str, seconds| {
        let file = fs::File::options().write(true).open(place.spool(name)).expect("a file");
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).expect("it can be dated");
    };
    age("a.log", 100);
    age("sub/c.log", 200);
    let more = "includePattern = .*\\\\.log\nignorePattern = skip.*\nrecursiveDirectorySearch = true\n\
                fileHeader = true\nfileHeaderKey = path\nbasenameHeader = true\nconsumeOrder = youngest";
    let _agent = place.start_keeping_headers(more);
    let event = |name: &str| {
        let path = place.spool(name).display().to_string();
        Event::new(&[("path", &path), ("basename", name.rsplit('/').next().unwrap_or_default())], name)
    };
    assert_eq!(wait_for_kept_events(&place.out(), 2), [event("a.log"), event("sub/c.log")]);
    // A directory that comes later.
    fs::create_dir_all(place.spool("sub/deep")).expect("a directory");
    place.put("sub/deep/d.log", "sub/deep/d.log");
    assert_eq!(wait_for_kept_events(&place.out(), 3)[2], event("sub/deep/d.log"));
    place.expect_file("sub/deep/d.log.COMPLETED");
    assert!(place.spool("skip.log").exists() && place.spool("b.txt").exists());
}

#[test]
fn finished_files_are_deleted_or_stay_with_a_tracker_file() {
    let place = Place::new();
    place.put("a", "1\n");
    let agent = place.start("deletePolicy = immediate");
    place.expect("1\n");
    assert!(eventually(|| (!place.spool("a").exists()).then_some(())).is_some());
    drop(agent);

    let place = Place::new();
    place.put("a", "1\n");
    let policy = "trackingPolicy = tracker_dir\ntrackerDir = .state\nfileSuffix = .done";
    let mut agent = place.start(policy);
    place.expect("1\n");
    place.expect_file(".state/a.done");
    assert!(agent.terminate().success());
    assert!(place.spool("a").exists());
    let _agent = place.start(policy);
    place.put("b", "2\n");
    place.expect("1\n2\n");
}

#[test]
fn a_name_that_was_used_before_stops_it() {
    let place = Place::new();
    place.put("a.COMPLETED", "before\n");
    place.put("a", "now\n");
    let mut agent = place.start("");
    place.expect("now\n");
    let line = agent.wait_for_line("FATAL: Spool Directory source r1: { spoolDir: ");
    let reason = "File name has been re-used with different files. Spooling assumptions violated for ";
    assert!(line.contains(reason) && line.ends_with("a.COMPLETED"), "{line}");
    assert_eq!(agent.counter("SOURCE.r1", "EventReadFail"), 1);
    place.put("b", "not read\n");
    assert!(agent.terminate().success());
    // Nothing comes twice when somebody has put it right.
    fs::remove_file(place.spool("a.COMPLETED")).expect("it goes");
    let _agent = place.start("");
    place.expect("now\nnot read\n");
    assert_eq!(fs::read_to_string(place.spool("a.COMPLETED")).expect("a file"), "now\n");
}

#[test]
fn a_file_that_is_written_to_while_it_is_read_stops_it() {
    let place = Place::new();
    place.put("a", "1\n2\n3\n");
    let stuck = "a1.channels.c1.capacity = 1\na1.channels.c1.transactionCapacity = 1\na1.channels.c1.keep-alive = 0\n";
    let source = place.source("batchSize = 1");
    let mut agent = TestAgent::start(&format!("{source}{MEMORY}{stuck}"));
    agent.wait_for_line("waiting, nothing is lost");
    fs::write(place.spool("a"), "1\n2\n3\n4\n").expect("a file");
    // A sink comes, and the source goes on.
    let sink = format!("{}a1.sinks.k1.sink.batchSize = 1\n", file_roll(&place.out()));
    agent.rewrite(&format!("{source}{MEMORY}{stuck}{sink}"));
    agent.signal(Signal::HUP);
    let line = agent.wait_for_line("FATAL: ");
    assert!(line.contains("File has changed size since being read: "), "{line}");
    assert!(agent.terminate().success());
    let _agent = place.start("");
    place.expect("1\n2\n3\n4\n");
    place.expect_file("a.COMPLETED");
}

#[test]
fn bytes_that_are_no_text() {
    let text = b"good\nb\xffd\nlast\n";
    for (policy, expected) in [("REPLACE", "good\nb\u{fffd}d\nlast\n"), ("IGNORE", "good\nbd\nlast\n")] {
        let place = Place::new();
        place.put("a", text);
        let _agent = place.start(&format!("decodeErrorPolicy = {policy}"));
        place.expect(expected);
        place.expect_file("a.COMPLETED");
    }
    let place = Place::new();
    place.put("a", text);
    let mut agent = place.start("");
    let line = agent.wait_for_line("FATAL: ");
    let reason = "the bytes at offset 6 are no text in the inputCharset, and decodeErrorPolicy is FAIL";
    assert!(line.ends_with(reason), "{line}");
    place.expect("good\n");
    assert!(agent.terminate().success());
    // With the right charset it goes on, and repeats nothing.
    let _agent = place.start("inputCharset = ISO-8859-1");
    place.expect("good\nbÿd\nlast\n");
}

#[test]
fn long_lines_are_cut() {
    let place = Place::new();
    place.put("a", "abcdefg\nxyz\n");
    let agent = place.start("deserializer.maxLineLength = 4");
    place.expect("abcd\nefg\nxyz\n");
    agent.wait_for_line("Line length exceeds max (4), truncating line!");
}

#[test]
fn avro_containers_become_an_event_a_value() {
    let schema = Schema::parse_str(r#"{"type":"record","name":"R","fields":[{"name":"f","type":"string"}]}"#);
    let schema = schema.expect("a schema");
    let mut writer = Writer::new(&schema, Vec::new()).expect("a writer");
    for text in ["one", "two"] {
        let mut record = apache_avro::types::Record::new(&schema).expect("a record");
        record.put("f", text);
        writer.append_value(record).expect("a value");
    }
    let bytes = writer.into_inner().expect("a container");
    let literal = r#"{"type":"record","name":"R","fields":[{"name":"f","type":"string"}]}"#;
    let (hash, class) = ("AVRO", "org.apache.flume.serialization.AvroEventDeserializer$Builder");
    for (deserializer, kind, key, value) in [
        (hash, "hash", "flume.avro.schema.hash", schema.fingerprint::<apache_avro::rabin::Rabin>().to_string()),
        (class, "LITERAL", "flume.avro.schema.literal", literal.to_owned()),
    ] {
        let place = Place::new();
        place.put("a.avro", &bytes);
        let more = format!("deserializer = {deserializer}\ndeserializer.schemaType = {kind}");
        let _agent = place.start_keeping_headers(&more);
        let kept = wait_for_kept_events(&place.out(), 2);
        let bodies: Vec<&str> = kept.iter().map(|event| event.body.as_str()).collect();
        assert_eq!(bodies, ["\u{6}one", "\u{6}two"]);
        let header = kept[0].headers.get(key).expect("a header");
        assert_eq!(header.parse::<serde_json::Value>().ok(), value.parse::<serde_json::Value>().ok());
        place.expect_file("a.avro.COMPLETED");
    }
    let place = Place::new();
    place.put("a", "text");
    let agent = place.start("deserializer = AVRO");
    assert!(agent.wait_for_line("FATAL: ").ends_with("it is no Avro container file"));
}

#[test]
fn blobs_and_empty_files_are_an_event_each() {
    let place = Place::new();
    place.put("a", "two\nlines\n");
    let class = "org.apache.flume.sink.solr.morphline.BlobDeserializer$Builder";
    let _agent = place.start_keeping_headers(&format!("deserializer = {class}\ndeserializer.maxBlobLength = 8"));
    assert_eq!(wait_for_kept_events(&place.out(), 2), [Event::new(&[], "two\nline"), Event::new(&[], "s\n")]);
    place.put("b", "");
    assert_eq!(wait_for_kept_events(&place.out(), 3)[2], Event::new(&[], ""));
}

#[test]
fn a_directory_that_is_not_there_yet() {
    let place = Place::new();
    fs::remove_dir(place.spool("")).expect("it goes");
    let agent = TestAgent::start(&format!("{}{MEMORY}{LOGGER}", place.source("")));
    let line = agent.wait_for_line("Directory does not exist: ");
    assert!(Path::new(line.rsplit(' ').next().unwrap_or_default()).ends_with("spool"), "{line}");
    fs::create_dir(place.spool("")).expect("it comes");
    place.put("a", "hello\n");
    assert!(agent.wait_for_events(1)[0].ends_with("hello }"));
}
