//! Events as Avro: the record `AvroFlumeEvent` (and Spark's `SparkSinkEvent`, which is the same), read as ranges of the
//! message, written straight from a batch.

use bytes::Bytes;
use smol_str::SmolStr;

use super::datum::{DatumError, Reader, put_bytes, put_long};
use crate::event::{Batch, BufferId, EventRef, Headers, HeadersId, NO_HEADERS};

/// Builds a batch from the events of one message.
pub struct EventReader {
    batch: Batch,
    message: BufferId,
    /// The last event's headers as they were written. Those of the next are mostly the same.
    last: (std::ops::Range<usize>, HeadersId),
}

impl EventReader {
    /// For the events of a message.
    pub fn new(message: &Bytes) -> Self {
        let mut batch = Batch::new();
        let message = batch.push_buffer(message.clone());
        Self { batch, message, last: (0..0, NO_HEADERS) }
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
                self.last = (headers, self.batch.push_headers(read_headers(written)?));
                self.last.1
            }
        };
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
    pub fn finish(self) -> Batch {
        self.batch
    }
}

fn read_headers(written: &[u8]) -> Result<Headers, DatumError> {
    let mut reader = Reader::new(written);
    let mut pairs: Vec<(SmolStr, SmolStr)> = Vec::new();
    loop {
        match reader.block()? {
            0 => return Ok(pairs.into_iter().collect()),
            count => {
                for _ in 0..count {
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
    let headers = read_headers(reader.slice(0..reader.position()))?;
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
        let mut events = EventReader::new(&message);
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
