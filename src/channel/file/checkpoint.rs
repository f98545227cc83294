//! The checkpoint: what makes opening independent of the backlog.
//!
//! The file `channel.checkpoint` of the checkpoint directory is replaced as a whole. All numbers are little-endian, 8
//! bytes each unless said otherwise: `flrckpt` and the version 1 as a byte; the number of the next event; the place up
//! to which this speaks for the records (segment, offset); the place of a record at or before the first event that is
//! not done (its number, segment, offset); the ranges that are done, as 4 bytes of their count and from each the first
//! number and the one behind the last; the segments, as 4 bytes of their count and from each its number, first event,
//! the number behind its last event and its length; and the CRC-32 of all that, 4 bytes. With the version 2 the
//! [notes] stand before the CRC-32; it is written where there are any.

use std::io;
use std::path::Path;

use bytes::Buf as _;

use super::notes::{self, Notes};
use super::ranges::Ranges;
use crate::fs::{self, FileSystem};

/// The file in the checkpoint directory.
pub const FILE: &str = "channel.checkpoint";

const TITLE: &[u8; 7] = b"flrckpt";
const VERSION: u8 = 1;
const VERSION_WITH_NOTES: u8 = 2;
/// Far more than there is to say.
const LIMIT: u64 = 64 << 20;

/// A place in the segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of an event.
    pub event: u64,
    /// The segment with its record, or one before.
    pub segment: u64,
    /// Where that record begins, or one before.
    pub offset: u64,
}

/// A segment, as a checkpoint knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub number: u64,
    /// The first event that can be in it.
    pub first: u64,
    /// The number behind its last event.
    pub end: u64,
    /// Where its records end.
    pub len: u64,
}

/// What a channel was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Up to where it speaks for the records; `event` is the next number.
    pub tail: Position,
    /// Where reading begins.
    pub head: Position,
    /// What is done.
    pub done: Ranges,
    /// All segments that are needed.
    pub segments: Vec<Listed>,
    /// How far sources have come.
    pub notes: Notes,
}

impl Checkpoint {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = TITLE.to_vec();
        bytes.push(if self.notes.is_empty() { VERSION } else { VERSION_WITH_NOTES });
        let mut put = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
        for Position { event, segment, offset } in [self.tail, self.head] {
            [event, segment, offset].into_iter().for_each(&mut put);
        }
        bytes.extend_from_slice(&(self.done.iter().count() as u32).to_le_bytes());
        for (from, to) in self.done.iter() {
            bytes.extend_from_slice(&from.to_le_bytes());
            bytes.extend_from_slice(&to.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        for Listed { number, first, end, len } in &self.segments {
            for number in [number, first, end, len] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        if !self.notes.is_empty() {
            notes::encode(&self.notes.list(), &mut bytes);
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(content).to_le_bytes() != *crc {
            return None;
        }
        let (version, mut content) = content.strip_prefix(TITLE)?.split_first()?;
        let mut position = || {
            let (event, segment) = (content.try_get_u64_le().ok()?, content.try_get_u64_le().ok()?);
            Some(Position { event, segment, offset: content.try_get_u64_le().ok()? })
        };
        let (tail, head) = (position()?, position()?);
        let mut done = Ranges::default();
        for _ in 0..content.try_get_u32_le().ok()? {
            done.insert(content.try_get_u64_le().ok()?, content.try_get_u64_le().ok()?);
        }
        let mut segments = Vec::new();
        for _ in 0..content.try_get_u32_le().ok()? {
            let mut next = || content.try_get_u64_le().ok();
            segments.push(Listed { number: next()?, first: next()?, end: next()?, len: next()? });
        }
        let notes = match *version {
            VERSION => Notes::default(),
            VERSION_WITH_NOTES => notes::decode(&mut content)?.into_iter().collect(),
            _ => return None,
        };
        content.is_empty().then_some(Self { tail, head, done, segments, notes })
    }

    /// Replaces the checkpoint of a directory.
    pub fn write(&self, fs: &dyn FileSystem, directory: &Path) -> io::Result<()> {
        fs::replace(fs, &directory.join(FILE), &self.encode())
    }

    /// Reads the checkpoint of a directory; `None` when there is none, an error of kind `InvalidData` when it is damaged.
    pub fn read(fs: &dyn FileSystem, directory: &Path) -> io::Result<Option<Self>> {
        match fs::read(fs, &directory.join(FILE), LIMIT) {
            Ok(bytes) => Self::decode(&bytes).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Note;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            tail: Position { event: 90, segment: 4, offset: 77 },
            head: Position { event: 3, segment: 3, offset: 32 },
            done: Ranges::from_iter([(0, 5), (7, 9)]),
            segments: vec![Listed { number: 3, first: 0, end: 50, len: 1000 }],
            notes: Notes::from_iter([Note { stream: 5, next: 6 }, Note { stream: 1, next: 2 }]),
        }
    }

    #[test]
    fn it_is_read_back() {
        assert_eq!(Checkpoint::decode(&checkpoint().encode()), Some(checkpoint()));
        let plain = Checkpoint { notes: Notes::default(), ..checkpoint() };
        assert_eq!(plain.encode()[7], 1, "as it has always been");
        assert_eq!(Checkpoint::decode(&plain.encode()), Some(plain));
    }

    #[test]
    fn every_change_shows() {
        let bytes = checkpoint().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::decode(&damaged), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..len]), None, "{len} bytes");
        }
    }
}
