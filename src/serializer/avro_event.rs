//! The `avro_event` serializer: an Avro object container of headers and bodies, byte for byte as Flume writes it.
//!
//! Every batch ends a block, so a file can be read up to its last batch. The codecs are the Avro library's.
//! Keys: `syncIntervalBytes` (2048000), `compressionCodec` (null; deflate, snappy, bzip2, xz, zstandard).

use std::io;

use apache_avro::{Codec, DeflateSettings};

use super::{EventSerializer, SerializerBuilder, SerializerConfig};
use crate::config::{ComponentType, Props, nearest};
use crate::event::{Batch, EventRef};
use crate::java;

/// How the type is registered.
pub const TYPE: ComponentType<SerializerBuilder> = ComponentType {
    aliases: &["avro_event"],
    class: "org.apache.flume.serialization.FlumeEventAvroEventSerializer$Builder",
    build: |props, prefix| AvroEvent::from_props(props, prefix).map(|config| Box::new(config) as _),
};

const SYNC_INTERVAL_BYTES: i32 = 2_048_000;
const MAGIC: &[u8] = b"Obj\x01";
const SCHEMA: &str = r#"{"type":"record","name":"Event","fields":[{"name":"headers","type":{"type":"map","values":"string"}},{"name":"body","type":"bytes"}]}"#;
const CODECS: [&str; 6] = ["null", "deflate", "snappy", "bzip2", "xz", "zstandard"];

#[derive(Clone, Copy)]
struct AvroEvent {
    sync_interval: usize,
    codec: Codec,
    /// Whether the header names the codec: Flume leaves it out when none was chosen.
    names_codec: bool,
}

impl AvroEvent {
    fn from_props(props: &mut Props<'_>, prefix: &str) -> Option<Self> {
        let key = format!("{prefix}.syncIntervalBytes");
        let sync_interval = props.or(&key, SYNC_INTERVAL_BYTES);
        if !(32..=1 << 30).contains(&sync_interval) {
            props.error(&key, "a number of bytes from 32 to 1073741824", "");
        }
        let key = format!("{prefix}.compressionCodec");
        let name = props.text(&key);
        let codec = name.and_then(codec);
        if let (Some(name), None) = (name, codec) {
            let meant = nearest(name, CODECS).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            props.warning(&key, &format!("expected one of {}; nothing is compressed{meant}", CODECS.join(", ")));
        }
        Some(Self {
            sync_interval: sync_interval.max(32) as usize,
            codec: codec.unwrap_or(Codec::Null),
            names_codec: codec.is_some(),
        })
    }
}

fn codec(name: &str) -> Option<Codec> {
    Some(match name {
        "null" => Codec::Null,
        "deflate" => Codec::Deflate(DeflateSettings::default()),
        "snappy" => Codec::Snappy,
        "bzip2" => Codec::Bzip2(apache_avro::Bzip2Settings::default()),
        "xz" => Codec::Xz(apache_avro::XzSettings::default()),
        "zstandard" => Codec::Zstandard(apache_avro::ZstandardSettings::default()),
        _ => return None,
    })
}

/// A container as the serializer writes it without any keys.
pub fn container() -> Box<dyn EventSerializer> {
    AvroEvent { sync_interval: SYNC_INTERVAL_BYTES as usize, codec: Codec::Null, names_codec: false }.build()
}

impl SerializerConfig for AvroEvent {
    fn build(&self) -> Box<dyn EventSerializer> {
        Box::new(Container { config: *self, marker: [0; 16] })
    }
}

struct Container {
    config: AvroEvent,
    marker: [u8; 16],
}

impl Container {
    fn put_block(&self, events: usize, mut block: Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
        self.config.codec.compress(&mut block).map_err(io::Error::other)?;
        put_long(events, out);
        put_bytes(&block, out);
        out.extend_from_slice(&self.marker);
        Ok(())
    }
}

impl EventSerializer for Container {
    fn begin(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        getrandom::fill(&mut self.marker).map_err(io::Error::other)?;
        out.extend_from_slice(MAGIC);
        put_long(1 + usize::from(self.config.names_codec), out);
        put_bytes(b"avro.schema", out);
        put_bytes(SCHEMA.as_bytes(), out);
        if self.config.names_codec {
            put_bytes(b"avro.codec", out);
            put_bytes(<&str>::from(self.config.codec).as_bytes(), out);
        }
        put_long(0, out);
        out.extend_from_slice(&self.marker);
        Ok(())
    }

    fn write(&mut self, batch: &Batch, out: &mut Vec<u8>) -> io::Result<()> {
        let mut block = Vec::with_capacity(batch.body_bytes().min(self.config.sync_interval) + 8 * batch.len());
        let mut events = 0;
        for event in batch.iter() {
            put_event(event, &mut block);
            events += 1;
            if block.len() >= self.config.sync_interval {
                self.put_block(events, std::mem::take(&mut block), out)?;
                events = 0;
            }
        }
        if events > 0 {
            self.put_block(events, block, out)?;
        }
        Ok(())
    }
}

fn put_event(event: EventRef<'_>, out: &mut Vec<u8>) {
    let headers = event.headers();
    if !headers.is_empty() {
        put_long(headers.len(), out);
        for (key, value) in java::hash_map_order(headers.iter()) {
            put_bytes(key.as_bytes(), out);
            put_bytes(value.as_bytes(), out);
        }
    }
    put_long(0, out);
    put_bytes(event.body(), out);
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_long(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Avro's long, for numbers that are not negative.
fn put_long(value: usize, out: &mut Vec<u8>) {
    let mut rest = (value as u64) << 1;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use apache_avro::Reader;
    use apache_avro::types::Value;
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    fn written(name: &str, batches: &[Batch]) -> Vec<u8> {
        let config = AvroEvent { sync_interval: 200, codec: codec(name).expect("a codec"), names_codec: true };
        let mut container = config.build();
        let mut out = Vec::new();
        container.begin(&mut out).expect("a header");
        for batch in batches {
            container.write(batch, &mut out).expect("a block");
        }
        out
    }

    fn value(event: &Event) -> Value {
        let headers: HashMap<String, Value> =
            event.headers.iter().map(|(k, v)| (k.to_owned(), Value::String(v.to_owned()))).collect();
        Value::Record(vec![
            ("headers".to_owned(), Value::Map(headers)),
            ("body".to_owned(), Value::Bytes(event.body.to_vec())),
        ])
    }

    /// The file that Flume wrote, but for its sync marker, which is random.
    #[test]
    fn byte_for_byte_as_flume() {
        let flume = include_bytes!("../../tests/vectors/avro_event.avro");
        let first = Batch::from_iter([Event::new("hello").with("host", "web1").with("k", "v"), Event::new("world")]);
        let ours = written("null", &[first, Batch::from_iter([Event::new("third")])]);
        let marker = &ours[ours.len() - 16..];
        let flumes_marker = &flume[flume.len() - 16..];
        let unmarked = |file: &[u8], marker: &[u8]| {
            let mut file = file.to_vec();
            while let Some(at) = memchr::memmem::find(&file, marker) {
                file[at..at + 16].fill(0);
            }
            file
        };
        assert_eq!(unmarked(&ours, marker), unmarked(flume, flumes_marker));
    }

    proptest! {
        #[test]
        fn the_library_reads_every_codec(
            events in prop::collection::vec((prop::collection::hash_map("[a-zé]{1,9}", ".{0,20}", 0..4), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
            name in prop::sample::select(CODECS.to_vec()),
        ) {
            let events: Vec<Event> =
                events.into_iter().map(|(headers, body)| Event { headers: headers.into_iter().collect(), body: body.into() }).collect();
            let file = written(name, &[events.iter().cloned().collect()]);
            let read: Vec<Value> = Reader::new(&file[..]).expect("a container").collect::<Result<_, _>>().expect("events");
            prop_assert_eq!(read, events.iter().map(value).collect::<Vec<_>>());
        }
    }
}
