//! Events of messages: framing, headers and bodies.

use std::ops::Range;

use bytes::Bytes;
use smol_str::{SmolStr, ToSmolStr as _};

use super::keep::KeepFields;
use super::message::{Dialect, Parts, Shape, priority_number};
use super::stamp::Clock;
use crate::charset::Charset;
use crate::event::{Batch, BufferId, Headers, HeadersId};

const FACILITY: SmolStr = SmolStr::new_static("Facility");
const SEVERITY: SmolStr = SmolStr::new_static("Severity");
const TIMESTAMP: SmolStr = SmolStr::new_static("timestamp");
const HOST: SmolStr = SmolStr::new_static("host");
const STATUS: SmolStr = SmolStr::new_static("flume.syslog.status");
const INVALID: SmolStr = SmolStr::new_static("Invalid");
const INCOMPLETE: SmolStr = SmolStr::new_static("Incomplete");

/// How messages become events.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whose rules messages are read by.
    pub dialect: Dialect,
    /// Which of its fields a body keeps.
    pub keep: KeepFields,
    /// What the bytes of a message mean. Bodies stay as they are.
    pub charset: Charset,
}

impl Rules {
    /// Rules by which the bytes of a message are UTF-8, where they matter: patterns take any.
    pub fn new(dialect: Dialect, keep: KeepFields) -> Self {
        let charset = if dialect == Dialect::Pattern { Charset::Latin1 } else { Charset::Utf8 };
        Self { dialect, keep, charset }
    }
}

/// A message in a stream, without the line feed that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it lies.
    pub bytes: Range<usize>,
    /// Whether it goes on, but is as long as a message may be.
    pub is_cut: bool,
    /// Where the next one begins.
    pub next: usize,
}

impl Frame {
    /// The first message of a stream from `at` on, at most `max` bytes of it; line feeds before it are passed over.
    /// `None` when it is not whole yet.
    pub fn find(stream: &[u8], at: usize, max: usize) -> Option<Self> {
        let start = at + stream[at..].iter().position(|byte| *byte != b'\n')?;
        let most = &stream[start..stream.len().min(start + max)];
        match memchr::memchr(b'\n', most) {
            Some(len) => Some(Self { bytes: start..start + len, is_cut: false, next: start + len + 1 }),
            None if most.len() == max => Some(Self { bytes: start..start + max, is_cut: true, next: start + max }),
            None => None,
        }
    }

    /// What is left of a stream from `at` on, where nothing more is found: a message without an end, or nothing.
    pub fn rest(stream: &[u8], at: usize) -> Option<Range<usize>> {
        let start = at + stream[at..].iter().position(|byte| *byte != b'\n')?;
        Some(start..stream.len())
    }

    /// How many bytes of a stream are messages that [`find`](Self::find) finds, when the last `new` of them are new.
    pub fn whole(stream: &[u8], new: usize, max: usize) -> usize {
        let seen = stream.len() - new;
        let lines = memchr::memrchr(b'\n', &stream[seen..]).map_or(0, |at| seen + at + 1);
        lines + (stream.len() - lines) / max * max
    }
}

/// As many headers as a message can have.
const MOST_HEADERS: usize = 7;
/// Heads that are remembered while a batch is made.
const HEADS: usize = 128;
/// Places where a head may be.
const PROBES: usize = 4;

/// Where a head lies that has been read, and the headers made of it.
type Head = Option<(u32, u32, HeadersId)>;

/// Makes a batch of the messages in a buffer.
///
/// Messages whose heads, which is all before the body, are the same share their headers: those are made once. Bodies are
/// slices of the buffer, unless fields are put before them.
pub struct Events<'a> {
    rules: &'a Rules,
    clock: &'a Clock,
    data: &'a Bytes,
    /// Headers that all events get.
    more: &'a [(SmolStr, SmolStr)],
    batch: Batch,
    /// The buffer in the batch; none where bodies are written anew.
    buffer: Option<BufferId>,
    heads: [Head; HEADS],
    /// The last stamp and what it means.
    last_stamp: Option<(Range<usize>, i64)>,
    /// Bodies with fields, and where those of the events lie.
    rebuilt: Vec<u8>,
    places: Vec<(Range<usize>, HeadersId)>,
    invalid: usize,
}

impl<'a> Events<'a> {
    /// No events yet, and room for `expected`.
    pub fn new(rules: &'a Rules, clock: &'a Clock, data: &'a Bytes, expected: usize) -> Self {
        let mut batch = Batch::with_capacity(expected);
        let is_kept = !matches!(rules.keep, KeepFields::Some(_));
        let buffer = is_kept.then(|| batch.push_buffer(data.clone()));
        Self {
            rules,
            clock,
            data,
            more: &[],
            batch,
            buffer,
            heads: [None; HEADS],
            last_stamp: None,
            rebuilt: Vec::new(),
            places: Vec::new(),
            invalid: 0,
        }
    }

    /// Gives all events from here on these headers as well.
    pub fn with(&mut self, more: &'a [(SmolStr, SmolStr)]) {
        if self.more != more {
            self.more = more;
            self.heads = [None; HEADS];
        }
    }

    /// How many events there are.
    pub fn count(&self) -> usize {
        self.batch.len() + self.places.len()
    }

    /// Adds the event of a message; `is_cut` says that it has lost its end.
    pub fn push(&mut self, message: Range<usize>, is_cut: bool) {
        let Range { start, end } = message;
        let text = &self.data[start..end];
        let shape = match self.rules.charset.is_valid(text) {
            true => self.rules.dialect.read(text),
            false => Shape::Invalid,
        };
        let head = match &shape {
            Shape::Invalid => 0,
            Shape::Priority(priority) => priority.end + 1,
            Shape::Whole(parts) => parts.body,
        };
        let headers = match self.look_up(&text[..head]) {
            Ok(headers) if !is_cut => Some(headers),
            place => self.headers(start, &shape, is_cut).map(|headers| {
                let headers = self.batch.push_headers(headers);
                if let (Err(slot), false) = (place, is_cut) {
                    self.heads[slot] = Some((start as u32, head as u32, headers));
                }
                headers
            }),
        };
        match (headers, shape) {
            (Some(headers), Shape::Whole(parts)) => self.body(start..end, &parts, headers),
            (Some(headers), shape) => {
                self.invalid += usize::from(shape == Shape::Invalid);
                self.slice(start..end, headers);
            }
            (None, _) => self.push_invalid(start..end),
        }
    }

    /// The headers of a head that is remembered, or else the place to remember it at.
    fn look_up(&self, head: &[u8]) -> Result<HeadersId, usize> {
        let first = crc32fast::hash(head) as usize % HEADS;
        for slot in (first..first + PROBES).map(|slot| slot % HEADS) {
            match self.heads[slot] {
                Some((at, len, headers)) if self.data[at as usize..(at + len) as usize] == *head => return Ok(headers),
                Some(_) => {}
                None => return Err(slot),
            }
        }
        Err(first)
    }

    /// A message whose stamp turns out to be none.
    fn push_invalid(&mut self, message: Range<usize>) {
        let headers = self.headers(message.start, &Shape::Invalid, false).unwrap_or_default();
        let headers = self.batch.push_headers(headers);
        self.invalid += 1;
        self.slice(message, headers);
    }

    /// The batch, and how many of its events are of no syslog messages.
    pub fn finish(mut self) -> (Batch, usize) {
        if !self.places.is_empty() {
            let buffer = self.batch.push_buffer(self.rebuilt.into());
            for (place, headers) in self.places {
                self.batch.push_span(buffer, place.start, place.end, headers);
            }
        }
        (self.batch, self.invalid)
    }

    /// The headers of a message that begins at `start`; `None` when it turns out to be none.
    fn headers(&mut self, start: usize, shape: &Shape, is_cut: bool) -> Option<Headers> {
        let multiport = self.rules.dialect == Dialect::Fields;
        let data = self.data;
        let part = |range: &Range<usize>| &data[start + range.start..start + range.end];
        let mut headers = Headers::with_capacity(MOST_HEADERS + self.more.len());
        let priority = match shape {
            Shape::Invalid => None,
            Shape::Priority(priority) => Some(priority),
            Shape::Whole(parts) => Some(&parts.priority),
        };
        match priority {
            Some(priority) => {
                let number = priority_number(part(priority))?;
                headers.set(FACILITY, (number / 8).to_smolstr());
                headers.set(SEVERITY, (number % 8).to_smolstr());
            }
            None if multiport => {}
            None => {
                headers.set(FACILITY, SmolStr::new_static("0"));
                headers.set(SEVERITY, SmolStr::new_static("0"));
            }
        }
        if let Shape::Whole(parts) = shape {
            let ascii = |range: &Range<usize>| String::from_utf8_lossy(part(range)).to_smolstr();
            let [priority, version] = if multiport { ["Priority", "Version"] } else { ["priority", "version"] };
            headers.set(SmolStr::new_static(priority), ascii(&parts.priority));
            if let Some(range) = &parts.version {
                headers.set(SmolStr::new_static(version), ascii(range));
            }
            if let Some(range) = &parts.stamp {
                let place = start + range.start..start + range.end;
                match self.milliseconds(place) {
                    Some(ms) => headers.set(TIMESTAMP, ms.to_smolstr()),
                    None if multiport => return None,
                    None => {}
                }
            }
            if let Some(range) = &parts.host {
                let host = self.rules.charset.text(part(range)).unwrap_or_default();
                headers.set(HOST, host.to_smolstr());
            }
        }
        if *shape == Shape::Invalid {
            headers.set(STATUS, INVALID);
        } else if is_cut {
            headers.set(STATUS, INCOMPLETE);
        }
        for (key, value) in self.more {
            headers.set(key.clone(), value.clone());
        }
        Some(headers)
    }

    fn milliseconds(&mut self, stamp: Range<usize>) -> Option<i64> {
        let text = &self.data[stamp.clone()];
        if let Some((last, ms)) = &self.last_stamp
            && self.data[last.clone()] == *text
        {
            return Some(*ms);
        }
        let ms = match (self.rules.dialect, text) {
            (Dialect::Pattern, [b'0'..=b'9', ..]) => self.clock.full(text),
            (Dialect::Pattern, _) => self.clock.short(text),
            (Dialect::Fields, b"-") => Some(self.clock.now_ms()),
            // Flume's word for a date that is none.
            (Dialect::Fields, [b'A'..=b'Z', ..]) => Some(self.clock.strict_short(text).unwrap_or(0)),
            (Dialect::Fields, _) => self.clock.strict_full(text),
        }?;
        self.last_stamp = Some((stamp, ms));
        Some(ms)
    }

    fn body(&mut self, message: Range<usize>, parts: &Parts, headers: HeadersId) {
        let body = message.start + parts.body..message.end;
        match self.rules.keep {
            KeepFields::Some(fields) if !body.is_empty() || self.rules.dialect == Dialect::Pattern => {
                let start = self.rebuilt.len();
                fields.write(&mut self.rebuilt, &self.data[message.clone()], parts);
                match self.rebuilt.len() {
                    end if end > start => self.places.push((start..end, headers)),
                    _ => self.slice(message, headers),
                }
            }
            KeepFields::None if !body.is_empty() => self.slice(body, headers),
            // Where nothing is left, all is kept, as in Flume.
            _ => self.slice(message, headers),
        }
    }

    /// An event whose body stands in the buffer as it is.
    fn slice(&mut self, body: Range<usize>, headers: HeadersId) {
        if let Some(buffer) = self.buffer {
            return self.batch.push_span(buffer, body.start, body.end, headers);
        }
        let start = self.rebuilt.len();
        self.rebuilt.extend_from_slice(&self.data[body]);
        self.places.push((start..self.rebuilt.len(), headers));
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;
    use crate::source::syslog::keep::Fields;

    const MAX: usize = 60;

    fn clock() -> Clock {
        Clock::at("2026-11-21T12:00:00Z".parse().expect("a time"), TimeZone::UTC)
    }

    /// The events of a stream that ends.
    fn events(rules: &Rules, stream: &[u8]) -> Batch {
        let data = Bytes::copy_from_slice(stream);
        let clock = clock();
        let mut events = Events::new(rules, &clock, &data, 1);
        let mut at = 0;
        while let Some(frame) = Frame::find(&data, at, MAX) {
            events.push(frame.bytes, frame.is_cut);
            at = frame.next;
        }
        if let Some(rest) = Frame::rest(&data, at) {
            events.push(rest, false);
        }
        events.finish().0
    }

    fn of(dialect: Dialect, stream: &str) -> Vec<Event> {
        events(&Rules::new(dialect, KeepFields::None), stream.as_bytes()).iter().map(|event| event.to_event()).collect()
    }

    fn event(headers: &[(&str, &str)], body: &'static str) -> Event {
        Event { headers: headers.iter().copied().collect(), body: body.into() }
    }

    const NOV_20: &str = "1795212855000";

    #[test]
    fn headers_of_syslogtcp() {
        let stream =
            "<13>Nov 20 22:14:15 m su: root\n<34>1 2003-10-11T22:14:15.003Z h x\n<14>what\n\n\nbad\n<13>- - \n";
        let five = [("Facility", "1"), ("Severity", "5"), ("priority", "13")];
        let first = [&five[..], &[("timestamp", NOV_20), ("host", "m")]].concat();
        let second = [
            ("Facility", "4"),
            ("Severity", "2"),
            ("priority", "34"),
            ("version", "1"),
            ("timestamp", "1065910455003"),
            ("host", "h"),
        ];
        let invalid = [("Facility", "0"), ("Severity", "0"), ("flume.syslog.status", "Invalid")];
        assert_eq!(
            of(Dialect::Pattern, stream),
            [
                event(&first, "su: root"),
                event(&second, "x"),
                event(&[("Facility", "1"), ("Severity", "6")], "<14>what"),
                event(&invalid, "bad"),
                event(&five, "<13>- - "),
            ]
        );
    }

    #[test]
    fn headers_of_multiport_syslogtcp() {
        let stream = "<34>1 2003-10-11T22:14:15.003Z h x\n<13>- h now\n<13>Feb 31 22:14:15 m day\nbad\n\n\
                      <13>1 2003-13-11T22:14:15Z h month\n<-9>Nov 20 22:14:15 m \n";
        let expected = [
            event(
                &[
                    ("Priority", "34"),
                    ("Facility", "4"),
                    ("Severity", "2"),
                    ("Version", "1"),
                    ("timestamp", "1065910455003"),
                    ("host", "h"),
                ],
                "x",
            ),
            event(
                &[
                    ("Priority", "13"),
                    ("Facility", "1"),
                    ("Severity", "5"),
                    ("timestamp", "1795262400000"),
                    ("host", "h"),
                ],
                "now",
            ),
            event(
                &[("Priority", "13"), ("Facility", "1"), ("Severity", "5"), ("timestamp", "0"), ("host", "m")],
                "day",
            ),
            event(&[("flume.syslog.status", "Invalid")], "bad"),
            event(&[("flume.syslog.status", "Invalid")], "<13>1 2003-13-11T22:14:15Z h month"),
            event(
                &[("Priority", "-9"), ("Facility", "-1"), ("Severity", "-1"), ("timestamp", NOV_20), ("host", "m")],
                "<-9>Nov 20 22:14:15 m ",
            ),
        ];
        assert_eq!(of(Dialect::Fields, stream), expected);
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_and_its_rest_is_the_next() {
        let long = format!("<13>Nov 20 22:14:15 m {}\n<13>Nov 20 22:14:15 m y\n", "x".repeat(MAX));
        let events = of(Dialect::Pattern, &long);
        let status = |at: usize| events[at].headers.get("flume.syslog.status");
        assert_eq!([status(0), status(1), status(2)], [Some("Incomplete"), Some("Invalid"), None]);
        assert_eq!(events[0].body.len() + events[1].body.len(), MAX);
        // One that is exactly as long as it may be has no rest.
        let just = format!("{:x<MAX$}\n<13>Nov 20 22:14:15 m y\n", "<13>Nov 20 22:14:15 m ");
        let events = of(Dialect::Fields, &just);
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].headers.get("flume.syslog.status"), Some("Incomplete"));
    }

    #[test]
    fn messages_with_the_same_head_share_their_headers() {
        let lines: String = (0..100).map(|n| format!("<13>Nov 20 22:14:15 host{} text {n}\n", n % 4)).collect();
        let batch = events(&Rules::new(Dialect::Pattern, KeepFields::None), lines.as_bytes());
        assert_eq!(batch.len(), 100);
        assert_eq!(batch.header_sets().len(), 4);
        assert_eq!(batch.get(99).headers().get("host"), Some("host3"));
        assert_eq!(batch.get(99).body(), b"text 99");
    }

    #[test]
    fn undecodable_bytes_stay_as_they_are() {
        let stream = b"<13>Nov 20 22:14:15 m \xff\n<13>Nov 20 22:14:15 m caf\xc3\xa9\n";
        for (dialect, status) in [(Dialect::Pattern, None), (Dialect::Fields, Some("Invalid"))] {
            let batch = events(&Rules::new(dialect, KeepFields::None), stream);
            assert!(batch.get(0).body().ends_with(b"\xff"));
            assert_eq!(batch.get(0).headers().get("flume.syslog.status"), status);
            assert_eq!(batch.get(1).body(), "café".as_bytes());
        }
    }

    fn keeps() -> impl Strategy<Value = KeepFields> {
        prop_oneof![
            Just(KeepFields::None),
            Just(KeepFields::All),
            Just(KeepFields::Some(Fields::default())),
            Just(KeepFields::read("priority timestamp hostname version")),
        ]
    }

    proptest! {
        #[test]
        fn any_stream_becomes_events_without_loss(
            lines in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..100),
                    "<[0-9]{0,3}>1? ?([A-Z][a-z]{2} [0-9]{2} [0-9:]{8}|-) ([a-z]{1,3}|-) [a-z\r]{0,70}".prop_map(String::into_bytes),
                ],
                0..6,
            ),
            fields in any::<bool>(),
            keep in keeps(),
            cut in any::<prop::sample::Index>(),
        ) {
            let dialect = if fields { Dialect::Fields } else { Dialect::Pattern };
            let stream = lines.join(&b'\n');
            let all = events(&Rules::new(dialect, KeepFields::All), &stream);
            let bytes: Vec<u8> = stream.iter().copied().filter(|byte| *byte != b'\n').collect();
            prop_assert_eq!(all.iter().flat_map(|event| event.body()).copied().collect::<Vec<u8>>(), bytes);
            // What is kept makes no difference to the headers.
            let kept = events(&Rules::new(dialect, keep), &stream);
            prop_assert_eq!(kept.len(), all.len());
            prop_assert!(kept.iter().zip(all.iter()).all(|(kept, all)| kept.headers() == all.headers()));
            // Nor does it where a stream is cut.
            let cut = cut.index(stream.len() + 1);
            let whole = Frame::whole(&stream[..cut], cut, MAX);
            let rules = Rules::new(dialect, KeepFields::All);
            let mut parts = events(&rules, &stream[..whole]);
            parts.append(events(&rules, &stream[whole..]));
            prop_assert_eq!(parts, all);
        }
    }
}
