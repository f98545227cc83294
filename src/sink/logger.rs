//! The logger sink: prints every event at level INFO, its body as a hex dump.
//!
//! Key: `maxBytesToLog` (16). Flume documents the key and ignores it; here it works. Events are consumed silently
//! when INFO is off, as in Flume.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::info;

use super::{BuiltSink, Sink, SinkBuilder, SinkConfig, SinkError};
use crate::config::{ComponentType, Props};
use crate::event::{Batch, EventRef};
use crate::metrics::SinkCounters;

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["logger"],
    class: "org.apache.flume.sink.LoggerSink",
    build: |props| Some(Box::new(LoggerConfig::from_props(props)?)),
};

const MAX_BYTES_TO_LOG: i32 = 16;
/// Events of one transaction; each is printed at once, so the number shows nowhere.
const BATCH_SIZE: usize = 100;
/// Bytes of a line of the dump.
const LINE_BYTES: usize = 16;

#[derive(Clone)]
struct LoggerConfig {
    max_bytes: usize,
}

impl LoggerConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let text = props.text("maxBytesToLog").unwrap_or_default();
        let flume = format!("Unable to convert {text} to integer, using default value(16) for maxByteToDump");
        let max_bytes =
            props.lenient("maxBytesToLog", MAX_BYTES_TO_LOG, |n: &i32| *n >= 0, "a number of bytes", &flume);
        props.finish(Self { max_bytes: max_bytes as usize })
    }
}

impl SinkConfig for LoggerConfig {
    fn batch_size(&self) -> Option<usize> {
        None
    }

    fn build(&self, _name: &str, _counters: Arc<SinkCounters>) -> BuiltSink {
        BuiltSink::Push(Box::new(LoggerSink { config: self.clone(), line: String::new() }))
    }
}

struct LoggerSink {
    config: LoggerConfig,
    line: String,
}

#[async_trait]
impl Sink for LoggerSink {
    fn batch_size(&self) -> usize {
        BATCH_SIZE
    }

    async fn start(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        for event in batch.iter() {
            self.line.clear();
            write_event(&mut self.line, event, self.config.max_bytes);
            info!(
                target: crate::logging::LOGGER_SINK,
                thread = "SinkRunner-PollingRunner-DefaultSinkProcessor",
                "{}", self.line
            );
        }
        Ok(())
    }
}

/// The message: `Event: { headers:{} body: 68 65 … he }`.
fn write_event(out: &mut String, event: EventRef<'_>, max_bytes: usize) {
    let body = event.body();
    // Writing to a string does not fail.
    write!(out, "Event: {{ headers:{} body:", event.headers()).ok();
    hex_dump(out, &body[..body.len().min(max_bytes)]);
    out.push_str(" }");
}

/// Flume's dump: 16 bytes a line as hexadecimal cells and characters. The first line has no offset but keeps the
/// blank after it, further lines begin with theirs; nothing at all for no bytes.
pub fn hex_dump(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for (number, line) in bytes.chunks(LINE_BYTES).enumerate() {
        if number > 0 {
            write!(out, "\n{:08X}", number * LINE_BYTES).ok();
        }
        let mut cells = [b' '; 1 + 3 * LINE_BYTES];
        for (cell, byte) in cells[1..].chunks_exact_mut(3).zip(line) {
            cell[0] = DIGITS[usize::from(byte >> 4)];
            cell[1] = DIGITS[usize::from(byte & 15)];
        }
        out.extend(cells.iter().map(|cell| char::from(*cell)));
        out.extend(line.iter().map(|byte| if (0x20..0x7F).contains(byte) { char::from(*byte) } else { '.' }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn printed(event: Event, max_bytes: usize) -> String {
        let mut line = String::new();
        write_event(&mut line, Batch::from_iter([event]).get(0), max_bytes);
        line
    }

    /// Lines as the real Flume 1.11 printed them.
    #[test]
    fn prints_as_flume_does() {
        let line = |body: &'static [u8]| printed(Event::new(body), 16);
        assert_eq!(
            line(b"hello\r"),
            "Event: { headers:{} body: 68 65 6C 6C 6F 0D                               hello. }"
        );
        assert_eq!(
            line(b"Hello world!!!!!"),
            "Event: { headers:{} body: 48 65 6C 6C 6F 20 77 6F 72 6C 64 21 21 21 21 21 Hello world!!!!! }"
        );
        assert_eq!(line(b"Hello world!!!!!and more"), line(b"Hello world!!!!!"));
        assert_eq!(line(b""), "Event: { headers:{} body: }");
        assert_eq!(
            line(b"\xc3\xa9\x01~\x7f"),
            "Event: { headers:{} body: C3 A9 01 7E 7F                                  ...~. }"
        );
    }

    #[test]
    fn headers_are_in_javas_order() {
        let event = Event::new("").with("b", "1").with("a", "2");
        assert_eq!(printed(event, 16), "Event: { headers:{a=2, b=1} body: }");
    }

    #[test]
    fn further_lines_have_offsets() {
        let mut text = String::new();
        hex_dump(&mut text, b"0123456789abcdefXY");
        assert_eq!(
            text,
            " 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66 0123456789abcdef\n00000010 58 59                                           XY"
        );
    }
}
