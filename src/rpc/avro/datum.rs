//! Avro's binary encoding, as far as the protocols here need it: read where it lies, written into a kept buffer.

use std::borrow::Cow;
use std::ops::Range;

use thiserror::Error;

/// Why bytes are not the datum that they should be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DatumError {
    /// The bytes end inside it.
    #[error("the bytes end too early")]
    Truncated,
    /// A number with more than ten bytes, or of more than 64 bits.
    #[error("a number is malformed")]
    Number,
    /// A length or count below 0.
    #[error("a length is negative")]
    NegativeLength,
    /// The number of a branch or symbol that does not exist.
    #[error("{0} is not a branch or symbol of the schema")]
    Index(i64),
    /// More levels than anybody needs.
    #[error("it is nested too deeply")]
    TooDeep,
    /// Bytes behind the last field.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    /// More events or headers than a request may have.
    #[error("it has more than {most} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// So many may be.
        most: usize,
    },
    /// The writer's value has no counterpart in the reader's schema.
    #[error("a value has another type than the schema asks for")]
    Type,
}

/// Reads data one after the other from a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes of a range that has been read.
    pub fn slice(&self, range: Range<usize>) -> &'a [u8] {
        &self.bytes[range]
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, DatumError> {
        let byte = *self.bytes.get(self.at).ok_or(DatumError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// Goes on by `len` bytes, and says where they are.
    pub fn take(&mut self, len: usize) -> Result<Range<usize>, DatumError> {
        if len > self.remaining() {
            return Err(DatumError::Truncated);
        }
        let start = self.at;
        self.at += len;
        Ok(start..self.at)
    }

    /// An `int` or `long`: zig-zag, seven bits a byte, the lowest first.
    pub fn long(&mut self) -> Result<i64, DatumError> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(unzigzag(first.into()));
        }
        let mut value = u64::from(first & 0x7F);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(DatumError::Number);
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(unzigzag(value));
            }
        }
        Err(DatumError::Number)
    }

    /// The length of what follows.
    fn len(&mut self) -> Result<usize, DatumError> {
        usize::try_from(self.long()?).map_err(|_| DatumError::NegativeLength)
    }

    /// Where a `bytes` or `string` lies.
    pub fn bytes(&mut self) -> Result<Range<usize>, DatumError> {
        let len = self.len()?;
        self.take(len)
    }

    /// A `string`. As in Java, what is not UTF-8 becomes U+FFFD.
    pub fn string(&mut self) -> Result<Cow<'a, str>, DatumError> {
        let range = self.bytes()?;
        Ok(String::from_utf8_lossy(self.slice(range)))
    }

    /// A `boolean`.
    pub fn boolean(&mut self) -> Result<bool, DatumError> {
        Ok(self.byte()? != 0)
    }

    /// The number of an enum's symbol or a union's branch.
    pub fn index(&mut self, count: usize) -> Result<usize, DatumError> {
        let index = self.long()?;
        usize::try_from(index).ok().filter(|index| *index < count).ok_or(DatumError::Index(index))
    }

    /// How many items the next block of an array or map has; 0 ends it. Nobody may rely on the number: it is only what
    /// the peer claims.
    pub fn block(&mut self) -> Result<u64, DatumError> {
        let count = self.long()?;
        if count < 0 {
            // The size in bytes, for those who skip the block whole.
            self.len()?;
        }
        Ok(count.unsigned_abs())
    }

    /// Skips a map of texts.
    pub fn skip_text_map(&mut self) -> Result<(), DatumError> {
        loop {
            match self.block()? {
                0 => return Ok(()),
                count => {
                    for _ in 0..count {
                        self.bytes()?;
                        self.bytes()?;
                    }
                }
            }
        }
    }

    /// Nothing may follow.
    pub fn finish(self) -> Result<(), DatumError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DatumError::LeftOver(left)),
        }
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Writes an `int` or `long`.
pub fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes a `bytes` or `string`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::writer::datum::GenericDatumWriter;
    use apache_avro::{Schema, types::Value};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_those_of_the_reference(value: i64) {
            let mut ours = Vec::new();
            put_long(&mut ours, value);
            let writer = GenericDatumWriter::builder(&Schema::Long).build().expect("a writer");
            prop_assert_eq!(&ours, &writer.write_value_to_vec(Value::Long(value)).expect("a long"));
            let mut reader = Reader::new(&ours);
            prop_assert_eq!(reader.long(), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn whatever_the_reference_reads_as_a_number_reads_the_same(bytes: [u8; 12]) {
            let reference = GenericDatumReader::builder(&Schema::Long).build().expect("a reader");
            if let Ok(Value::Long(value)) = reference.read_value(&mut &bytes[..]) {
                // The reference lets bits beyond the 64th go; here they are an error.
                if let Ok(ours) = Reader::new(&bytes).long() {
                    prop_assert_eq!(ours, value);
                }
            }
        }

        #[test]
        fn any_bytes_end_in_an_error_or_a_value(bytes: Vec<u8>) {
            Reader::new(&bytes).skip_text_map().ok();
            Reader::new(&bytes).string().ok();
            Reader::new(&bytes).block().ok();
        }
    }

    #[test]
    fn a_number_has_at_most_64_bits() {
        assert_eq!(Reader::new(&[0xFF; 11]).long(), Err(DatumError::Number));
        assert_eq!(Reader::new(&[0x80; 4]).long(), Err(DatumError::Truncated));
    }

    #[test]
    fn a_claimed_length_is_no_more_than_a_claim() {
        let mut bytes = Vec::new();
        put_long(&mut bytes, i64::MAX);
        assert_eq!(Reader::new(&bytes).bytes(), Err(DatumError::Truncated));
        assert_eq!(Reader::new(&[0x01]).bytes(), Err(DatumError::NegativeLength));
    }

    #[test]
    fn a_block_may_say_its_size() {
        // Two entries in a block with a size, then one in a plain block.
        let bytes = [0x03, 0x10, 2, b'a', 2, b'1', 2, b'b', 2, b'2', 0x02, 2, b'c', 2, b'3', 0x00];
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.skip_text_map(), Ok(()));
        assert_eq!(reader.finish(), Ok(()));
    }
}
