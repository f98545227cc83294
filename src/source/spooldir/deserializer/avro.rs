//! The deserializer AVRO: each value of an object container file becomes one event, its body the value's bytes as they
//! are in the file.
//!
//! Flume's offset is that of the marker before the block that it is in, and it searches for a marker from there on. Here an
//! offset may be smaller by the number of values of the block that have been delivered, as far as that does not reach the
//! marker before: Flume finds the same block, and flume-rs goes on in the middle of it.
//!
//! Key: `deserializer.schemaType` (HASH: the header `flume.avro.schema.hash` has the fingerprint of the values' type;
//! LITERAL: the header `flume.avro.schema.literal` has the type as it stands in the file).

use std::io;

use apache_avro::rabin::Rabin;
use apache_avro::{Codec, Schema};
use bytes::Bytes;
use memchr::memmem;

use super::{Deserializer, DeserializerBuilder, DeserializerConfig, Input, Portion, malformed};
use crate::config::{ComponentType, Props};
use crate::event::{Batch, Headers};
use crate::rpc::avro::datum::{DatumError, Reader};
use crate::rpc::avro::schema::DatumSchema;
use crate::source::pieces::{READ_BYTES, read_at};
use crate::source::spooldir::container::{Block, Header, MARKER};

/// How the type is registered.
pub const TYPE: ComponentType<DeserializerBuilder> = ComponentType {
    aliases: &["AVRO"],
    class: "org.apache.flume.serialization.AvroEventDeserializer$Builder",
    build: |props| Box::new(AvroConfig::from_props(props)),
};

const HASH_HEADER: &str = "flume.avro.schema.hash";
const LITERAL_HEADER: &str = "flume.avro.schema.literal";
/// Longer heads and blocks are errors.
const MOST_BYTES: usize = 1 << 30;

struct AvroConfig {
    literal: bool,
}

impl AvroConfig {
    fn from_props(props: &mut Props<'_>) -> Self {
        let key = "deserializer.schemaType";
        let text = props.text(key).unwrap_or("HASH");
        let literal = text.eq_ignore_ascii_case("LITERAL");
        if !literal && !text.eq_ignore_ascii_case("HASH") {
            props.error_nearest(key, "HASH or LITERAL", &["HASH", "LITERAL"]);
        }
        Self { literal }
    }
}

impl DeserializerConfig for AvroConfig {
    fn open(&self, input: Input) -> io::Result<Box<dyn Deserializer>> {
        let header = read_header(&input)?;
        let text = header.get("avro.schema").and_then(|text| std::str::from_utf8(text).ok());
        let text = text.ok_or_else(|| malformed("the container has no avro.schema"))?;
        let wrong = |error: &dyn std::fmt::Display| malformed(format!("its avro.schema is wrong: {error}"));
        let schema = DatumSchema::parse(text).map_err(|error| wrong(&error))?;
        let codec = match header.get("avro.codec") {
            None => Codec::Null,
            Some(name) => {
                let name = String::from_utf8_lossy(name);
                name.parse().map_err(|_| malformed(format!("its avro.codec is {name}, which is not known")))?
            }
        };
        let (key, value) = if self.literal {
            (LITERAL_HEADER, text.to_owned())
        } else {
            let schema = Schema::parse_str(text).map_err(|error| wrong(&error))?;
            (HASH_HEADER, schema.fingerprint::<Rabin>().to_string())
        };
        let mut values = Values {
            codec,
            schema,
            headers: Headers::from_iter([(key, value)]),
            block: header.len as u64,
            floor: 1,
            skip: 0,
            marker: header.marker,
            input,
        };
        values.seek()?;
        Ok(Box::new(values))
    }
}

/// Reads the head of a container file, however long it is.
fn read_header(input: &Input) -> io::Result<Header> {
    let mut size = 64 << 10;
    loop {
        let bytes = read_at(&input.file, 0, size.min(usize::try_from(input.len).unwrap_or(usize::MAX)))?;
        match Header::read(&bytes) {
            None => return Err(malformed("it is no Avro container file")),
            Some(Ok(header)) => return Ok(header),
            Some(Err(DatumError::Truncated)) if bytes.len() == size && size < MOST_BYTES => size *= 4,
            Some(Err(error)) => return Err(malformed(format!("its head is malformed: {error}"))),
        }
    }
}

struct Values {
    input: Input,
    codec: Codec,
    schema: DatumSchema,
    headers: Headers,
    marker: [u8; MARKER],
    /// Where the next block begins.
    block: u64,
    /// No offset of this block may be smaller: the search from there would find an earlier marker.
    floor: u64,
    /// How many values of the next block have been delivered.
    skip: u64,
}

impl Deserializer for Values {
    fn headers(&self) -> Headers {
        self.headers.clone()
    }

    fn read(&mut self, headers: &Headers) -> io::Result<Vec<Portion>> {
        let mut portions = Vec::new();
        // A block without values, or without any that are left, is no end.
        while portions.is_empty() && self.block < self.input.len {
            let (piece, first) = self.piece()?;
            let piece = Bytes::from(piece);
            let (mut block, mut at) = (Some(first), 0);
            while let Some(found) = block {
                let end = at + found.len;
                match self.values(&piece.slice(at..end), found, headers) {
                    Ok(more) => portions.extend(more),
                    Err(error) if portions.is_empty() => return Err(error),
                    // What comes before it is delivered first.
                    Err(_) => break,
                }
                at = end;
                block = Block::read(&piece[at..]).ok();
            }
        }
        Ok(portions)
    }
}

impl Values {
    /// Finds the block that the offset means.
    fn seek(&mut self) -> io::Result<()> {
        let at = self.input.at;
        if at == 0 {
            return Ok(());
        }
        let mut size = READ_BYTES;
        loop {
            let piece = read_at(&self.input.file, at, size)?;
            if let Some(found) = memmem::find(&piece, &self.marker) {
                self.block = at + (found + MARKER) as u64;
                self.floor = at;
                self.skip = found as u64;
                return Ok(());
            }
            if piece.len() < size || size >= MOST_BYTES {
                return Err(malformed(format!("there is no marker behind the offset {at}")));
            }
            size *= 4;
        }
    }

    /// Reads on, at least one block.
    fn piece(&self) -> io::Result<(Vec<u8>, Block)> {
        let left = usize::try_from(self.input.len - self.block).unwrap_or(usize::MAX);
        let mut piece = read_at(&self.input.file, self.block, left.min(READ_BYTES))?;
        let len = Block::claimed_len(&piece).map_err(|error| self.malformed(error))?;
        let len = usize::try_from(len).ok().filter(|len| *len <= left.min(MOST_BYTES));
        let len = len.ok_or_else(|| self.malformed("the block is longer than the rest of the file, or than 1 GiB"))?;
        if len > piece.len() {
            piece = read_at(&self.input.file, self.block, len)?;
        }
        let block = Block::read(&piece).map_err(|error| self.malformed(error))?;
        Ok((piece, block))
    }

    /// Makes batches of the values of a block, and goes on to the next one.
    fn values(&mut self, bytes: &Bytes, block: Block, headers: &Headers) -> io::Result<Vec<Portion>> {
        let Block { count, data, len, marker } = block;
        if marker != self.marker {
            return Err(self.malformed("there is no marker behind it"));
        }
        let mut data = bytes.slice(data);
        if self.codec != Codec::Null {
            let mut plain = data.to_vec();
            self.codec.decompress(&mut plain).map_err(|error| self.malformed(error))?;
            data = plain.into();
        }
        if count > data.len() as u64 {
            return Err(self.malformed(format!("{count} values in {} bytes", data.len())));
        }
        let mut reader = Reader::new(&data);
        let mut values = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let start = reader.position();
            self.schema.skip(&mut reader).map_err(|error| self.malformed(error))?;
            values.push(start..reader.position());
        }
        reader.finish().map_err(|error| self.malformed(error))?;
        let marker = self.block - MARKER as u64;
        let next = self.block + len as u64;
        let mut delivered = values.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        let mut portions = Vec::new();
        for values in values[delivered..].chunks(self.input.batch_size) {
            let mut batch = Batch::with_capacity(values.len());
            let (buffer, headers) = (batch.push_buffer(data.clone()), batch.push_headers(headers.clone()));
            values.iter().for_each(|value| batch.push_span(buffer, value.start, value.end, headers));
            delivered += values.len();
            let offset = if delivered as u64 == count {
                next - MARKER as u64
            } else {
                marker.saturating_sub(delivered as u64).max(self.floor)
            };
            portions.push((batch, offset));
        }
        (self.floor, self.block, self.skip) = (self.block, next, 0);
        Ok(portions)
    }

    fn malformed(&self, what: impl std::fmt::Display) -> io::Error {
        malformed(format!("the block at offset {} is malformed: {what}", self.block))
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value;
    use apache_avro::{DeflateSettings, Writer};

    use super::super::tests::{Bodies, input, read_all};
    use super::*;

    const SCHEMA: &str = r#"{"type":"record","name":"Line","fields":[{"name":"n","type":"long"},{"name":"text","type":["null","string"]}]}"#;

    fn value(number: i64) -> Value {
        let text = Value::Union(1, Box::new(Value::String(format!("line {number}"))));
        Value::Record(vec![("n".to_owned(), Value::Long(number)), ("text".to_owned(), text)])
    }

    fn body(number: i64) -> Vec<u8> {
        let schema = Schema::parse_str(SCHEMA).expect("a schema");
        let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().expect("a writer");
        writer.write_value_to_vec(value(number)).expect("a value")
    }

    /// A container with blocks of so many values.
    fn container(codec: Codec, blocks: &[i64]) -> Vec<u8> {
        let schema = Schema::parse_str(SCHEMA).expect("a schema");
        let mut writer = Writer::with_codec(&schema, Vec::new(), codec).expect("a writer");
        let mut number = 0;
        for count in blocks {
            for _ in 0..*count {
                writer.append_value(value(number)).expect("a value");
                number += 1;
            }
            writer.flush().expect("a block");
        }
        writer.into_inner().expect("a container")
    }

    fn open(bytes: &[u8], at: u64, literal: bool) -> io::Result<Box<dyn Deserializer>> {
        AvroConfig { literal }.open(input(bytes, at, 3))
    }

    fn bodies(bytes: &[u8], at: u64) -> (Bodies, Option<String>) {
        read_all(open(bytes, at, false).expect("a container"))
    }

    #[test]
    fn every_value_is_an_event_and_every_batch_says_where_to_go_on() {
        for codec in [Codec::Null, Codec::Deflate(DeflateSettings::default()), Codec::Snappy] {
            let bytes = container(codec, &[5, 1, 10]);
            let (portions, error) = bodies(&bytes, 0);
            assert_eq!(error, None);
            let all: Vec<Vec<u8>> = portions.iter().flat_map(|(bodies, _)| bodies).cloned().collect();
            assert_eq!(all, (0..16).map(body).collect::<Vec<_>>());
            assert_eq!(portions.iter().map(|(bodies, _)| bodies.len()).collect::<Vec<_>>(), [3, 2, 1, 3, 3, 3, 1]);
            for (number, (_, offset)) in portions.iter().enumerate() {
                let (rest, error) = bodies_of(&bytes, *offset);
                assert_eq!((rest.concat(), error), (portions_of(&portions[number + 1..]).concat(), None), "{number}");
            }
        }
    }

    fn portions_of(portions: &[(Vec<Vec<u8>>, u64)]) -> Vec<Vec<Vec<u8>>> {
        portions.iter().map(|(bodies, _)| bodies.clone()).collect()
    }

    fn bodies_of(bytes: &[u8], at: u64) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
        let (portions, error) = bodies(bytes, at);
        (portions_of(&portions), error)
    }

    /// Flume's own offsets are those of markers, and it goes on behind the next one.
    #[test]
    fn offsets_mean_to_flume_the_block_that_they_are_in() {
        let bytes = container(Codec::Null, &[5, 4]);
        let marker = &bytes[bytes.len() - MARKER..].to_vec();
        let markers: Vec<usize> = memmem::find_iter(&bytes, marker).collect();
        for (_, offset) in bodies(&bytes, 0).0 {
            let found = offset as usize + memmem::find(&bytes[offset as usize..], marker).expect("a marker");
            assert!(markers.contains(&found));
        }
        for (block, first) in [(0, 0), (1, 5), (2, 9)] {
            let (rest, _) = bodies_of(&bytes, markers[block] as u64);
            assert_eq!(rest.concat(), (first..9).map(body).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_type_is_a_header() {
        let bytes = container(Codec::Null, &[1]);
        let headers = |literal| open(&bytes, 0, literal).expect("a container").headers();
        let hash = Schema::parse_str(SCHEMA).expect("a schema").fingerprint::<Rabin>().to_string();
        assert_eq!(headers(false), Headers::from_iter([(HASH_HEADER, hash)]));
        let literal = headers(true).get(LITERAL_HEADER).map(Schema::parse_str);
        assert_eq!(literal.expect("a header").ok(), Schema::parse_str(SCHEMA).ok());
    }

    #[test]
    fn what_is_no_container_is_an_error_and_what_is_before_damage_is_delivered() {
        for bytes in [&b""[..], b"text\n", b"Obj\x01\xff\xff"] {
            assert!(open(bytes, 0, false).is_err(), "{bytes:?}");
        }
        let bytes = container(Codec::Null, &[5, 4]);
        for end in 0..bytes.len() {
            let Ok(deserializer) = open(&bytes[..end], 0, false) else { continue };
            let (portions, error) = read_all(deserializer);
            let count = portions.iter().map(|(bodies, _)| bodies.len()).sum::<usize>();
            assert!(matches!((count, error.is_some()), (0 | 5, _)), "{count} of {end} bytes: {error:?}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            if let Ok(deserializer) = open(&damaged, 0, false) {
                read_all(deserializer);
            }
        }
    }
}
