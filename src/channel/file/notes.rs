//! Notes: how far sources have come in the streams that they read, stored in one transaction with the events.
//!
//! Written, they are 4 bytes of their count, and from each the stream (16 bytes) and the next place in it (8 bytes), all
//! little-endian. A next place of 0 takes a stream's note back. The newest note of a stream counts.

use std::collections::BTreeMap;

use bytes::Buf;

use crate::channel::Note;

/// The most streams; beyond, the one that has been quiet longest is forgotten.
const MAX_STREAMS: usize = 10_000;
/// Bytes of a note.
const NOTE: usize = 24;

/// The newest note of each stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// When each was noted, and what.
    streams: BTreeMap<u128, (u64, u64)>,
    time: u64,
}

impl Notes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// How far a stream is.
    pub fn get(&self, stream: u128) -> Option<u64> {
        self.streams.get(&stream).map(|(_, next)| *next)
    }

    /// Takes a note; returns what it replaces, as a note that brings that back.
    pub fn set(&mut self, note: Note) -> Note {
        let Note { stream, next } = note;
        self.time += 1;
        let before = match next {
            0 => self.streams.remove(&stream),
            _ => self.streams.insert(stream, (self.time, next)),
        };
        if self.streams.len() > MAX_STREAMS
            && let Some(quiet) = self.streams.iter().min_by_key(|(_, (time, _))| *time).map(|(stream, _)| *stream)
        {
            self.streams.remove(&quiet);
        }
        Note { stream, next: before.map_or(0, |(_, next)| next) }
    }

    /// All of them, the newest last.
    pub fn list(&self) -> Vec<Note> {
        let mut listed: Vec<_> = self.streams.iter().map(|(stream, (time, next))| (*time, *stream, *next)).collect();
        listed.sort_unstable();
        listed.into_iter().map(|(_, stream, next)| Note { stream, next }).collect()
    }
}

impl FromIterator<Note> for Notes {
    fn from_iter<I: IntoIterator<Item = Note>>(notes: I) -> Self {
        let mut all = Self::default();
        for note in notes {
            all.set(note);
        }
        all
    }
}

/// How many bytes so many notes take; none take none.
pub fn encoded_len(notes: usize) -> usize {
    if notes == 0 { 0 } else { 4 + NOTE * notes }
}

/// Appends notes to bytes.
pub fn encode(notes: &[Note], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(notes.len() as u32).to_le_bytes());
    for Note { stream, next } in notes {
        bytes.extend_from_slice(&stream.to_le_bytes());
        bytes.extend_from_slice(&next.to_le_bytes());
    }
}

/// Takes notes off the front of bytes; `None` when there are fewer than they say.
pub fn decode(bytes: &mut impl Buf) -> Option<Vec<Note>> {
    let count = bytes.try_get_u32_le().ok()? as usize;
    if bytes.remaining() / NOTE < count {
        return None;
    }
    let mut note = || Some(Note { stream: bytes.try_get_u128_le().ok()?, next: bytes.try_get_u64_le().ok()? });
    (0..count).map(|_| note()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(stream: u128, next: u64) -> Note {
        Note { stream, next }
    }

    #[test]
    fn the_newest_note_counts_and_can_be_taken_back() {
        let mut notes = Notes::default();
        assert_eq!(notes.set(note(1, 5)), note(1, 0));
        let back = notes.set(note(1, 9));
        assert_eq!((notes.get(1), notes.get(2)), (Some(9), None));
        notes.set(back);
        assert_eq!(notes.get(1), Some(5));
        notes.set(note(1, 0));
        assert!(notes.is_empty());
    }

    #[test]
    fn the_quietest_stream_is_forgotten() {
        let mut notes: Notes = (0..MAX_STREAMS as u128).map(|stream| note(stream, 1)).collect();
        notes.set(note(0, 2));
        notes.set(note(u128::MAX, 3));
        assert_eq!((notes.get(0), notes.get(1), notes.get(u128::MAX)), (Some(2), None, Some(3)));
        assert_eq!(notes.list().len(), MAX_STREAMS);
    }

    #[test]
    fn they_are_read_back_with_their_age() {
        let notes = Notes::from_iter([note(7, 1), note(u128::MAX, u64::MAX), note(3, 4), note(7, 2)]);
        let mut bytes = Vec::new();
        encode(&notes.list(), &mut bytes);
        assert_eq!(bytes.len(), encoded_len(3));
        let list = decode(&mut &bytes[..]).expect("whole");
        assert_eq!(list, [note(u128::MAX, u64::MAX), note(3, 4), note(7, 2)]);
        for len in 0..bytes.len() {
            assert_eq!(decode(&mut &bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(decode(&mut &[0xFF; 40][..]), None);
    }
}
