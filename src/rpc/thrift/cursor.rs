//! A place in a frame, and what can be wrong there.

use std::ops::Range;

use thiserror::Error;

use super::Protocol;

/// Why a frame is no message, or its message is not what was expected. Places are bytes from the frame's begin.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The frame does not begin as a message does.
    #[error("no message of the {expected} protocol{}", spoken_hint(*.spoken))]
    Foreign {
        /// The protocol that was expected.
        expected: Protocol,
        /// The one that the message is of.
        spoken: Option<Protocol>,
    },
    /// The frame ends within a value.
    #[error("the frame ends within a value that begins at byte {at}")]
    Short {
        /// Where the value begins.
        at: usize,
    },
    /// A length or a count that is negative or larger than the rest of the frame can hold.
    #[error("a length of {length} at byte {at}, where {left} bytes are left")]
    Length {
        /// Where it stands.
        at: usize,
        /// The length.
        length: i64,
        /// Bytes of the frame from there on.
        left: usize,
    },
    /// A number of more digits than its type has.
    #[error("a number that is too long for its type at byte {at}")]
    Number {
        /// Where it begins.
        at: usize,
    },
    /// A type that is none.
    #[error("a value of the unknown type {code} at byte {at}")]
    Type {
        /// Where it stands.
        at: usize,
        /// The type's number.
        code: u8,
    },
    /// A list or a map of something else.
    #[error("expected {expected} at byte {at}")]
    Elements {
        /// Where it begins.
        at: usize,
        /// What belongs there.
        expected: &'static str,
    },
    /// Values within values without end.
    #[error("values are nested too deep at byte {at}")]
    TooDeep {
        /// Where it was given up.
        at: usize,
    },
    /// A method's name that is none.
    #[error("a method name of {length} bytes")]
    Name {
        /// Its length.
        length: usize,
    },
    /// A struct without a field that it must have. The text is libthrift's.
    #[error("Required field '{field}' was not present! Struct: {of}")]
    Missing {
        /// The field.
        field: &'static str,
        /// The struct.
        of: &'static str,
    },
}

impl DecodeError {
    /// Whether the message is well formed and only says what it may not: the connection can go on.
    pub fn is_well_formed(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

fn spoken_hint(spoken: Option<Protocol>) -> String {
    spoken.map_or_else(String::new, |other| format!("; the client speaks the {other} protocol; set protocol = {other}"))
}

/// A place in a frame.
pub struct Cursor<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(frame: &'a [u8], at: usize) -> Self {
        Self { frame, at }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        &self.frame[self.at..]
    }

    /// The range of the next `count` bytes, which are read.
    pub fn take(&mut self, count: usize) -> Result<Range<usize>, DecodeError> {
        if count > self.rest().len() {
            return Err(DecodeError::Short { at: self.at });
        }
        self.at += count;
        Ok(self.at - count..self.at)
    }

    pub fn skip(&mut self, count: usize) -> Result<(), DecodeError> {
        self.take(count).map(|_| ())
    }

    pub fn slice(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        self.take(count).map(|range| &self.frame[range])
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    /// An unsigned number in groups of seven bits, the lowest first.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let start = self.at;
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Number { at: start })
    }

    /// Believes a length or a count that stands at `at`, if the rest has room for it at `least` bytes each.
    pub fn believe(&self, at: usize, length: i64, least: usize) -> Result<usize, DecodeError> {
        let left = self.rest().len();
        let believed = usize::try_from(length).ok().filter(|length| *length <= left / least);
        believed.ok_or(DecodeError::Length { at, length, left })
    }
}
