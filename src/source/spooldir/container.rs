//! Avro's object container files, as far as finding the parts goes.

use std::ops::Range;

use crate::rpc::avro::datum::{DatumError, Reader, put_bytes, put_long};

/// The bytes of a sync marker.
pub const MARKER: usize = 16;

const MAGIC: &[u8] = b"Obj\x01";

/// The head of a container file.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    meta: Vec<(String, Vec<u8>)>,
    /// What stands behind the head and behind every block.
    pub marker: [u8; MARKER],
    /// How many bytes it has.
    pub len: usize,
}

impl Header {
    /// Reads a head; `None` when the bytes are those of something else.
    pub fn read(bytes: &[u8]) -> Option<Result<Self, DatumError>> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let mut reader = Reader::new(rest);
        Some(Self::read_behind_magic(&mut reader).map(|mut header| {
            header.len += MAGIC.len();
            header
        }))
    }

    fn read_behind_magic(reader: &mut Reader<'_>) -> Result<Self, DatumError> {
        let mut meta = Vec::new();
        loop {
            let count = reader.block()?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let key = reader.string()?.into_owned();
                let value = reader.bytes()?;
                meta.push((key, reader.slice(value).to_vec()));
            }
        }
        Ok(Self { meta, marker: marker(reader)?, len: reader.position() })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.meta.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_slice())
    }
}

fn marker(reader: &mut Reader<'_>) -> Result<[u8; MARKER], DatumError> {
    let range = reader.take(MARKER)?;
    Ok(std::array::from_fn(|at| reader.slice(range.clone())[at]))
}

/// A block: how many values it has, and where they lie.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// How many values it claims.
    pub count: u64,
    /// Where they lie in what was read.
    pub data: Range<usize>,
    /// How many bytes the block has, its marker included.
    pub len: usize,
    /// What stands behind it.
    pub marker: [u8; MARKER],
}

impl Block {
    /// Reads a block.
    pub fn read(bytes: &[u8]) -> Result<Self, DatumError> {
        let mut reader = Reader::new(bytes);
        let count = u64::try_from(reader.long()?).map_err(|_| DatumError::NegativeLength)?;
        let data = reader.bytes()?;
        let marker = marker(&mut reader)?;
        Ok(Self { count, data, len: reader.position(), marker })
    }

    /// How many bytes a block has, of which the front is known.
    pub fn claimed_len(bytes: &[u8]) -> Result<u64, DatumError> {
        let mut reader = Reader::new(bytes);
        reader.long()?;
        let data = u64::try_from(reader.long()?).map_err(|_| DatumError::NegativeLength)?;
        Ok((reader.position() + MARKER) as u64 + data)
    }
}

/// Writes a head.
pub fn put_header(out: &mut Vec<u8>, meta: &[(&str, &[u8])], marker: &[u8; MARKER]) {
    out.extend_from_slice(MAGIC);
    put_long(out, meta.len() as i64);
    for (key, value) in meta {
        put_bytes(out, key);
        put_bytes(out, value);
    }
    put_long(out, 0);
    out.extend_from_slice(marker);
}

/// Writes a block.
pub fn put_block(out: &mut Vec<u8>, count: usize, data: &[u8], marker: &[u8; MARKER]) {
    put_long(out, count as i64);
    put_bytes(out, data);
    out.extend_from_slice(marker);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        put_header(&mut bytes, &[("avro.schema", b"\"long\""), ("file", b"/x")], &[7; MARKER]);
        let head = bytes.len();
        put_block(&mut bytes, 2, b"\x02\x04", &[7; MARKER]);
        for end in 4..head {
            assert_eq!(Header::read(&bytes[..end]), Some(Err(DatumError::Truncated)), "{end}");
        }
        let header = Header::read(&bytes).expect("a container").expect("a whole head");
        assert_eq!((header.len, header.marker, header.get("file")), (head, [7; MARKER], Some(&b"/x"[..])));
        assert_eq!(header.get("avro.codec"), None);
        let block = Block::read(&bytes[head..]).expect("a block");
        assert_eq!((block.count, block.data, block.len), (2, 2..4, bytes.len() - head));
        assert_eq!(Block::claimed_len(&bytes[head..head + 2]), Ok((bytes.len() - head) as u64));
        assert_eq!(Header::read(b"text"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_error_or_a_part(bytes: Vec<u8>) {
            Block::read(&bytes).ok();
            Block::claimed_len(&bytes).ok();
            Header::read(&[MAGIC, &bytes].concat()).map(Result::ok);
        }
    }
}
