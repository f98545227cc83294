//! Events as Avro: the record `AvroFlumeEvent` (and Spark's `SparkSinkEvent`, which is the same), read as ranges of the
//! message, written straight from a batch.

use bytes::Bytes;
use smol_str::SmolStr;

use super::datum::{DatumError, Reader, put_bytes, put_long};
use crate::event::{Batch, BufferId, EventRef, Headers, HeadersId, NO_HEADERS};

/// So many events a message may have even where no channel takes as many at once.
pub const MAX_EVENTS: usize = 1 << 20;
/// So many headers all events of a message may have together, where those of neighbours that are the same count once.
pub const MAX_HEADERS: usize = 1 << 20;

/// Builds a batch from the events of one message. An event and a header take more memory than their fewest bytes in the
/// message, so that both are limited.
pub struct EventReader {
    batch: Batch,
    message: BufferId,
    max_events: usize,
    headers: usize,
    /// The last event's headers as they were written. Those of the next are mostly the same.
    last: (std::ops::Range<usize>, HeadersId),
}

impl EventReader {
    /// For the events of a message, of which there may be so many.
    pub fn new(message: &Bytes, max_events: usize) -> Self {
        let mut batch = Batch::new();
        let message = batch.push_buffer(message.clone());
        Self { batch, message, max_events, headers: 0, last: (0..0, NO_HEADERS) }
    }

    /// Adds an event from the places of its parts.
    pub fn push(
        &mut self,
        reader: &Reader<'_>,
        headers: std::ops::Range<usize>,
        body: std::ops::Range<usize>,
    ) -> Result<(), DatumError> {
        let headers = match reader.slice(headers.clone()) {
            [0] => NO_HEADERS,
            written if written == reader.slice(self.last.0.clone()) => self.last.1,
            written => {
                let read = read_headers(written, MAX_HEADERS - self.headers)?;
                self.headers += read.len();
                self.last = (headers, self.batch.push_headers(read));
                self.last.1
            }
        };
        if self.batch.len() == self.max_events {
            return Err(DatumError::TooMany { what: "events", most: self.max_events });
        }
        self.batch.push_span(self.message, body.start, body.end, headers);
        Ok(())
    }

    /// Reads an event and adds it.
    pub fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), DatumError> {
        let start = reader.position();
        reader.skip_text_map()?;
        let headers = start..reader.position();
        let body = reader.bytes()?;
        self.push(reader, headers, body)
    }

    /// Reads an array of events and adds them.
    pub fn read_array(&mut self, reader: &mut Reader<'_>) -> Result<(), DatumError> {
        loop {
            match reader.block()? {
                0 => return Ok(()),
                count => {
                    for _ in 0..count {
                        self.read(reader)?;
                    }
                }
            }
        }
    }

    /// The events.
    pub fn finish(mut self) -> Batch {
        self.batch.shrink();
        self.batch
    }
}

fn read_headers(written: &[u8], max: usize) -> Result<Headers, DatumError> {
    let mut reader = Reader::new(written);
    let mut pairs: Vec<(SmolStr, SmolStr)> = Vec::new();
    loop {
        match reader.block()? {
            0 => return Ok(pairs.into_iter().collect()),
            count => {
                for _ in 0..count {
                    if pairs.len() == max {
                        return Err(DatumError::TooMany { what: "headers", most: MAX_HEADERS });
                    }
                    let key = reader.string()?.into();
                    pairs.push((key, reader.string()?.into()));
                }
            }
        }
    }
}

/// Reads one event, of which nothing may follow: its headers, and where its body lies.
pub fn read_event(bytes: &[u8]) -> Result<(Headers, std::ops::Range<usize>), DatumError> {
    let mut reader = Reader::new(bytes);
    reader.skip_text_map()?;
    let headers = read_headers(reader.slice(0..reader.position()), MAX_HEADERS)?;
    let body = reader.bytes()?;
    reader.finish()?;
    Ok((headers, body))
}

/// Writes the events of a batch as an array.
pub fn put_array(out: &mut Vec<u8>, batch: &Batch) {
    if !batch.is_empty() {
        put_long(out, batch.len() as i64);
        put_items(out, batch);
    }
    out.push(0);
}

/// Writes the events of a batch one after the other.
pub fn put_items(out: &mut Vec<u8>, batch: &Batch) {
    // Lengths and empty headers take a few bytes an event.
    out.reserve(batch.body_bytes() + 8 * batch.len());
    let mut last: Option<(&Headers, std::ops::Range<usize>)> = None;
    for event in batch.iter() {
        let headers = event.headers();
        match &last {
            Some((same, written)) if std::ptr::eq(*same, headers) => out.extend_from_within(written.clone()),
            _ => {
                let start = out.len();
                put_headers(out, headers);
                last = Some((headers, start..out.len()));
            }
        }
        put_bytes(out, event.body());
    }
}

/// Writes one event.
pub fn put_event(out: &mut Vec<u8>, event: EventRef<'_>) {
    put_headers(out, event.headers());
    put_bytes(out, event.body());
}

fn put_headers(out: &mut Vec<u8>, headers: &Headers) {
    if !headers.is_empty() {
        put_long(out, headers.len() as i64);
        for (key, value) in headers.iter() {
            put_bytes(out, key);
            put_bytes(out, value);
        }
    }
    out.push(0);
}

#[cfg(test)]
mod tests {
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::writer::datum::GenericDatumWriter;
    use apache_avro::{Schema, types::Value};
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    fn schema() -> Schema {
        let text = r#"{"type":"array","items":{"type":"record","name":"AvroFlumeEvent","namespace":"org.apache.flume.source.avro",
            "fields":[{"name":"headers","type":{"type":"map","values":"string"}},{"name":"body","type":"bytes"}]}}"#;
        Schema::parse_str(text).expect("a schema")
    }

    fn value(events: &[Event]) -> Value {
        let event = |event: &Event| {
            let headers = event.headers.iter().map(|(k, v)| (k.to_owned(), Value::String(v.to_owned()))).collect();
            let body = Value::Bytes(event.body.to_vec());
            Value::Record(vec![("headers".into(), Value::Map(headers)), ("body".into(), body)])
        };
        Value::Array(events.iter().map(event).collect())
    }

    fn read(message: &[u8]) -> Result<Batch, DatumError> {
        let message = Bytes::copy_from_slice(message);
        let mut reader = Reader::new(&message);
        let mut events = EventReader::new(&message, MAX_EVENTS);
        events.read_array(&mut reader)?;
        reader.finish()?;
        Ok(events.finish())
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        // Few sets of headers, so that neighbours have the same, and long and foreign texts among them.
        let headers = prop_oneof![
            Just(vec![]),
            Just(vec![("host".to_owned(), "web1".to_owned())]),
            prop::collection::vec((".{0,4}", "\\PC{0,40}"), 0..4),
        ];
        let event = (headers, prop::collection::vec(any::<u8>(), 0..200));
        let event =
            event.prop_map(|(headers, body)| Event { headers: headers.into_iter().collect(), body: body.into() });
        prop::collection::vec(event, 0..30)
    }

    proptest! {
        #[test]
        fn both_ways_agree_with_the_reference(events in events()) {
            let batch: Batch = events.iter().cloned().collect();
            let mut ours = Vec::new();
            put_array(&mut ours, &batch);
            // A map's order is not part of its value, so that bytes are only compared by what they mean.
            let schema = schema();
            let reference = GenericDatumReader::builder(&schema).build().expect("a reader");
            let theirs = reference.read_value(&mut &ours[..]).expect("the reference reads ours");
            prop_assert_eq!(&theirs, &value(&events));
            let reference = GenericDatumWriter::builder(&schema).build().expect("a writer");
            let written = reference.write_value_to_vec(theirs).expect("a datum");
            prop_assert_eq!(written.len(), ours.len());
            prop_assert_eq!(read(&written).expect("ours reads the reference's"), batch.clone());
            prop_assert_eq!(read(&ours).expect("ours reads its own"), batch);
        }

        #[test]
        fn any_bytes_end_in_an_error_or_in_events(bytes: Vec<u8>) {
            if let Ok(batch) = read(&bytes) {
                prop_assert!(batch.body_bytes() <= bytes.len());
            }
        }
    }

    #[test]
    fn an_event_on_its_own() {
        let event = Event::new("hello").with("host", "web1");
        let mut bytes = Vec::new();
        put_event(&mut bytes, Batch::from_iter([event.clone()]).get(0));
        assert_eq!(bytes, b"\x02\x08host\x08web1\x00\x0ahello");
        let (headers, body) = read_event(&bytes).expect("an event");
        assert_eq!((headers, &bytes[body]), (event.headers, &b"hello"[..]));
        for wrong in [&bytes[..bytes.len() - 1], b"", b"text", &[&bytes[..], b"x"].concat()] {
            assert!(read_event(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_array_in_several_blocks_with_sizes() {
        // Two events in a block that says its size, then one without a size.
        let bytes = [0x03, 0x08, 0, 2, b'a', 0, 2, b'b', 0x02, 0, 2, b'c', 0x00];
        let batch = read(&bytes).expect("events");
        assert_eq!(batch.iter().map(|event| event.body()).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    }

    #[test]
    fn more_events_than_there_may_be_take_no_memory() {
        let message = Bytes::from_static(&[0x06, 0, 0, 0, 0, 0, 0, 0]);
        let mut two = EventReader::new(&message, 2);
        let refused = two.read_array(&mut Reader::new(&message));
        assert_eq!(refused, Err(DatumError::TooMany { what: "events", most: 2 }));
        assert!(EventReader::new(&message, 3).read_array(&mut Reader::new(&message)).is_ok());
    }

    #[test]
    fn more_headers_than_there_may_be_take_no_memory() {
        // One event, whose headers are empty texts.
        let message = |pairs: usize| {
            let mut message = Vec::new();
            put_long(&mut message, 1);
            put_long(&mut message, pairs as i64);
            message.resize(message.len() + 2 * pairs + 3, 0);
            message
        };
        assert_eq!(read(&message(MAX_HEADERS)).map(|batch| batch.len()), Ok(1));
        assert_eq!(read(&message(MAX_HEADERS + 1)), Err(DatumError::TooMany { what: "headers", most: MAX_HEADERS }));
    }

    #[test]
    fn a_batch_does_not_keep_what_else_its_message_has() {
        // One event with a long header.
        let batch: Batch = [Event::new("hello").with("padding", &"x".repeat(100_000))].into_iter().collect();
        let mut message = Vec::new();
        put_array(&mut message, &batch);
        let message = Bytes::from(message);
        let mut events = EventReader::new(&message, 1);
        events.read_array(&mut Reader::new(&message)).expect("events");
        assert_eq!(events.finish(), batch);
        assert!(message.is_unique(), "the batch has bytes of its own");
    }

    #[test]
    fn equal_neighbours_share_their_headers() {
        let batch: Batch = (0..50).map(|n| Event::new(n.to_string()).with("host", "web1")).collect();
        let mut bytes = Vec::new();
        put_array(&mut bytes, &batch);
        let read = read(&bytes).expect("events");
        assert!(read.iter().all(|event| std::ptr::eq(event.headers(), read.get(0).headers())));
    }

    #[test]
    fn headers_that_are_not_utf_8_are_replaced_as_in_java() {
        let bytes = [0x02, 0x02, 2, b'k', 4, 0xFF, b'v', 0, 0, 0];
        let batch = read(&bytes).expect("an event");
        assert_eq!(batch.get(0).headers().get("k"), Some("\u{FFFD}v"));
    }
}
