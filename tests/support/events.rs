//! Events that went through an agent, with every byte of their headers and bodies.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use apache_avro::Reader;
use apache_avro::types::Value;

use super::{MEMORY, eventually, file_roll, files};

/// An event with a text as its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The headers.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Event {
    /// An event.
    pub fn new(headers: &[(&str, &str)], body: impl Into<String>) -> Self {
        let headers = headers.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { headers, body: body.into() }
    }

    fn read(value: Value) -> Self {
        let Value::Record(fields) = value else { panic!("not a record: {value:?}") };
        let mut event = Self::new(&[], "");
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("headers", Value::Map(map)) => event.headers = map.into_iter().map(text_value).collect(),
                ("body", Value::Bytes(bytes)) => event.body = String::from_utf8(bytes).expect("a body of text"),
                other => panic!("unexpected field {other:?}"),
            }
        }
        event
    }
}

fn text_value((key, value): (String, Value)) -> (String, String) {
    let Value::String(value) = value else { panic!("the header {key} has the value {value:?}") };
    (key, value)
}

/// An avro source `r1` at a port, a memory channel, and a sink that keeps the events in files.
pub fn avro_to_files(port: u16, directory: &Path) -> String {
    format!(
        "a1.sources = r1\na1.sources.r1.type = avro\na1.sources.r1.bind = 127.0.0.1\na1.sources.r1.port = {port}\n\
         a1.sources.r1.channels = c1\n{MEMORY}{}a1.sinks.k1.sink.serializer = avro_event\n",
        file_roll(directory)
    )
}

/// What file_roll sinks with the serializer `avro_event` have written so far.
pub fn kept_events(directory: &Path) -> Vec<Event> {
    let mut events = Vec::new();
    for file in files(directory) {
        let bytes = fs::read(file).unwrap_or_default();
        // A file that has just been opened has no header yet, and the last block may be half there.
        let Ok(reader) = Reader::new(&bytes[..]) else { continue };
        events.extend(reader.map_while(Result::ok).map(Event::read));
    }
    events
}

/// Waits for so many events to be kept, and gives all.
pub fn wait_for_kept_events(directory: &Path, count: usize) -> Vec<Event> {
    eventually(|| (kept_events(directory).len() >= count).then_some(()));
    let events = kept_events(directory);
    assert!(events.len() >= count, "{} of {count} events, the last is {:?}", events.len(), events.last());
    events
}

/// Waits until exactly these events have been kept, in this order.
pub fn expect_kept_events(what: &str, directory: &Path, expected: &[Event]) {
    eventually(|| (kept_events(directory).len() >= expected.len()).then_some(()));
    let kept = kept_events(directory);
    let differs = (0..kept.len().max(expected.len())).find(|at| kept.get(*at) != expected.get(*at));
    if let Some(at) = differs {
        panic!(
            "{what}: {} events instead of {}, and event {at} is {:?} instead of {:?}",
            kept.len(),
            expected.len(),
            kept.get(at),
            expected.get(at)
        );
    }
}

/// Keys of one component.
pub fn keys(component: &str, lines: &str) -> String {
    lines.lines().map(|line| format!("a1.{component}.{}\n", line.trim())).collect()
}

/// A configuration of these keys and of the lists of the components that they name.
pub fn listed(keys: &str) -> String {
    let mut text = keys.to_owned();
    for kind in ["sources", "channels", "sinks"] {
        let prefix = format!("a1.{kind}.");
        let mut names: Vec<&str> =
            keys.lines().filter_map(|line| line.strip_prefix(&prefix)?.split('.').next()).collect();
        names.sort_unstable();
        names.dedup();
        text.push_str(&format!("a1.{kind} = {}\n", names.join(" ")));
    }
    text
}
