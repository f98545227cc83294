//! Spooling directories and followed files as the real Flume reads them; each goes on where the other stopped.

use std::fs;
use std::path::Path;

use apache_avro::types::Value;
use apache_avro::{Schema, Writer};
use rustix::process::Signal;

use crate::support::{
    Event, Launch, MEMORY, TestAgent, contents, directory, eventually, file_roll, java_peers, keys, listed, real_flume,
    wait_for_kept_events,
};

const STUCK: &str =
    "a1.channels.c1.capacity = 10\na1.channels.c1.transactionCapacity = 10\na1.channels.c1.keep-alive = 0\n";

fn ours() -> Launch {
    Launch::new()
}

fn theirs() -> Launch {
    real_flume("1.11.0")
}

/// Lets one agent deliver ten events into a channel that nobody empties, kills it, and lets the other one go on.
fn hand_over(first: Launch, second: Launch, source: &str, full: &str, out: &Path, expected: &str) -> TestAgent {
    let mut agent = first.config(&format!("{source}{MEMORY}{STUCK}"));
    agent.wait_for_line(full);
    agent.signal(Signal::KILL);
    agent.wait();
    let agent = second.config(&format!("{source}{MEMORY}{}", file_roll(out)));
    let seen = eventually(|| (contents(out) == expected.as_bytes()).then_some(()));
    assert!(seen.is_some(), "{:?} instead of {expected:?}", String::from_utf8_lossy(&contents(out)));
    agent
}

const OURS_IS_FULL: &str = "waiting, nothing is lost";
const THEIRS_IS_FULL: &str = "cannot write data now. The source will try again after";

fn spooldir(directory: &Path, more: &str) -> String {
    format!(
        "a1.sources = r1\na1.sources.r1.type = spooldir\na1.sources.r1.channels = c1\na1.sources.r1.spoolDir = {}\n{}",
        directory.display(),
        keys("sources.r1", &format!("batchSize = 5\npollDelay = 50\n{more}"))
    )
}

#[test]
fn trackers_are_handed_over_both_ways() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let lines: Vec<String> = (0..30).map(|line| format!("line é {line}\n")).collect();
    for (first, second, full) in [(ours(), theirs(), OURS_IS_FULL), (theirs(), ours(), THEIRS_IS_FULL)] {
        let (spool, out) = (directory(), directory());
        fs::write(spool.path().join("a"), lines.concat()).expect("a file");
        let source = spooldir(spool.path(), "");
        let mut agent = hand_over(first, second, &source, full, out.path(), &lines[10..].concat());
        let done = eventually(|| spool.path().join("a.COMPLETED").exists().then_some(()));
        assert!(done.is_some());
        agent.terminate();
    }
}

#[test]
fn positions_are_handed_over_both_ways() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    for (first, second) in [(ours(), theirs()), (theirs(), ours())] {
        let (logs, state, out) = (directory(), directory(), directory());
        let more = format!(
            "filegroups = f1\nfilegroups.f1 = {}/.*\npositionFile = {}/positions.json",
            logs.path().display(),
            state.path().display()
        );
        let source = "a1.sources = r1\na1.sources.r1.type = TAILDIR\na1.sources.r1.channels = c1\n".to_owned()
            + &keys("sources.r1", &more);
        let config = format!("{source}{MEMORY}{}", file_roll(out.path()));
        let expect = |text: &str| {
            let seen = eventually(|| (contents(out.path()) == text.as_bytes()).then_some(()));
            assert!(seen.is_some(), "{:?} instead of {text:?}", String::from_utf8_lossy(&contents(out.path())));
        };
        let log = logs.path().join("it's <a> log");
        fs::write(&log, "1\n2\nha").expect("a file");
        let mut agent = first.config(&config);
        expect("1\n2\n");
        agent.terminate();
        for file in fs::read_dir(out.path()).expect("a directory") {
            fs::remove_file(file.expect("an entry").path()).expect("it goes");
        }
        fs::write(&log, "1\n2\nhalf\n3\n").expect("a file");
        let mut agent = second.config(&config);
        expect("half\n3\n");
        agent.terminate();
    }
}

/// A container of values of many kinds, whose bytes are all ASCII.
fn container() -> Vec<u8> {
    let schema = r#"{"type":"record","name":"R","namespace":"a.b","doc":"words","fields":[
        {"name":"n","type":"long","doc":"a number","default":0},{"name":"e","type":{"type":"enum","name":"E","symbols":["X","Y"]}},
        {"name":"list","type":{"type":"array","items":["null","string"]}},{"name":"map","type":{"type":"map","values":"E"}},
        {"name":"f","type":{"type":"fixed","name":"F","size":2}},{"name":"next","type":["null","R"]}]}"#;
    let schema = Schema::parse_str(schema).expect("a schema");
    let record = |number: i64, next: Value| {
        let text = |text: &str| Value::Union(1, Box::new(Value::String(text.to_owned())));
        Value::Record(vec![
            ("n".to_owned(), Value::Long(number)),
            ("e".to_owned(), Value::Enum(1, "Y".to_owned())),
            ("list".to_owned(), Value::Array(vec![text("a"), Value::Union(0, Box::new(Value::Null)), text("b")])),
            ("map".to_owned(), Value::Map([("k".to_owned(), Value::Enum(0, "X".to_owned()))].into())),
            ("f".to_owned(), Value::Fixed(2, b"ab".to_vec())),
            ("next".to_owned(), next),
        ])
    };
    let none = || Value::Union(0, Box::new(Value::Null));
    let mut writer = Writer::new(&schema, Vec::new()).expect("a writer");
    for number in 0..7 {
        let next = Value::Union(1, Box::new(record(number, none())));
        writer.append_value(record(number, next)).expect("a value");
        if number == 4 {
            writer.flush().expect("a block");
        }
    }
    writer.into_inner().expect("a container")
}

/// What an agent makes of some files, in the order of their names.
fn events_of(launch: Launch, files: &[(&str, &[u8], &str)], count: usize) -> Vec<Event> {
    let (home, out) = (directory(), directory());
    let mut text = MEMORY.replace("a1.channels = c1\n", "");
    for (name, bytes, more) in files {
        let spool = home.path().join(name);
        fs::create_dir(&spool).expect("a directory");
        fs::write(spool.join(name), bytes).expect("a file");
        let source = spooldir(&spool, &format!("basenameHeader = true\n{more}")).replace("a1.sources = r1\n", "");
        text.push_str(&source.replace("r1", name));
    }
    text.push_str(&file_roll(out.path()).replace("a1.sinks = k1\n", ""));
    text.push_str("a1.sinks.k1.sink.serializer = avro_event\n");
    let mut agent = launch.config(&listed(&text));
    let mut events = wait_for_kept_events(out.path(), count);
    for (name, ..) in files {
        let done = home.path().join(name).join(format!("{name}.COMPLETED"));
        assert!(eventually(|| done.exists().then_some(())).is_some(), "{name} is not done");
    }
    agent.terminate();
    events.sort_by(|a, b| a.headers["basename"].cmp(&b.headers["basename"]));
    events
}

#[test]
fn events_are_those_of_the_real_flume() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let avro = container();
    let lines = "a\r\n\nexactly 10\n0123456789\n01234567890123456789x\nthe last é€ line".as_bytes();
    let files: [(&str, &[u8], &str); 8] = [
        ("lines", lines, "deserializer.maxLineLength = 11"),
        ("empty", b"", ""),
        ("replaced", b"a\xff\xe2\x82b\n\xf0\x9f\x98c\nlast\n", "decodeErrorPolicy = REPLACE"),
        ("ignored", b"a\xff\xe2\x82b\n\xc3\xa9c", "decodeErrorPolicy = IGNORE"),
        ("latin", b"caf\xe9\n", "inputCharset = ISO-8859-1"),
        ("gbk", b"\xc4\xe3\xba\xc3\n\xc4\xe3", "inputCharset = GBK"),
        ("hash", &avro, "deserializer = AVRO"),
        ("literal", &avro, "deserializer = AVRO\ndeserializer.schemaType = LITERAL"),
    ];
    let ours = events_of(ours(), &files, 31);
    let theirs = events_of(theirs(), &files, ours.len());
    for (number, (ours, mut theirs)) in ours.iter().zip(theirs.clone()).enumerate() {
        // Flume writes the type anew; ours stands as it is in the file.
        let literal = "flume.avro.schema.literal";
        if let (Some(their), Some(our)) = (theirs.headers.get_mut(literal), ours.headers.get(literal)) {
            let schema = |text: &str| Schema::parse_str(text).expect("a schema");
            assert_eq!(schema(their).canonical_form(), schema(our).canonical_form());
            their.clone_from(our);
        }
        assert_eq!(*ours, theirs, "event {number}: ours, then Flume's");
    }
    assert_eq!(ours.len(), theirs.len());
}
