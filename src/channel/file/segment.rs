//! Segments: the files `segment-NNNNNNNNNN` of the data directories, numbered without a gap over all of them.
//!
//! A segment begins with 32 bytes: `flume-rs`, the version 1 (4 bytes), its number and the number of the first event
//! that can be in it (8 bytes each), and the CRC-32 of all that. [Records](super::record) follow to its end. Nothing
//! in the header is needed to read them: what it says stands in the file's name and in the records too.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;

use super::encryption::Seal;
use super::record::{HEADER, Header, Kind, MAGIC};
use super::window::Window;
use crate::channel::Note;
use crate::fs::{File, FileSystem};

/// Where the records begin.
pub const START: u64 = 32;

const PREFIX: &str = "segment-";
const TITLE: &[u8; 8] = b"flume-rs";
const VERSION: u32 = 1;
/// How much is copied at once.
const COPY: usize = 1 << 20;

/// The name of a segment's file.
pub fn file_name(number: u64) -> String {
    format!("{PREFIX}{number:010}")
}

/// The number of a segment's file.
pub fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix(PREFIX)?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// A segment as its channel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// The first event that can be in it.
    pub first: u64,
    /// The number behind its last event.
    pub end: u64,
    /// Where its records end.
    pub len: u64,
    /// What it is encrypted with, if it is and the channel reads it.
    pub seal: Option<Arc<Seal>>,
}

/// What a segment has before its first event.
pub fn beginning(number: u64, first: u64, seal: Option<&Seal>) -> Vec<u8> {
    let mut bytes = header(number, first).to_vec();
    if let Some(seal) = seal {
        bytes.extend_from_slice(seal.record().seal(0, number, START, None));
    }
    bytes
}

pub fn header(number: u64, first: u64) -> [u8; START as usize] {
    let mut header = [0; START as usize];
    header[..8].copy_from_slice(TITLE);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&number.to_le_bytes());
    header[20..28].copy_from_slice(&first.to_le_bytes());
    let crc = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Whether a segment has nothing but its beginning, or a part of that.
pub fn is_unused(file: Arc<dyn File>, number: u64) -> io::Result<bool> {
    let len = file.len()?;
    let mut scanner = Scanner::new(file, number, START, len);
    while let Some(found) = scanner.next()? {
        if matches!(found, Found::Record { header, .. } if header.kind != Kind::Key) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The number of the first event, as a segment's beginning says; `None` when it is damaged.
pub fn read_first(file: &dyn File, number: u64) -> io::Result<Option<u64>> {
    let mut bytes = [0; START as usize];
    file.read_at(&mut bytes, 0)?;
    let first = bytes[20..28].try_into().map(u64::from_le_bytes).unwrap_or_default();
    Ok((bytes == header(number, first)).then_some(first))
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub enum Found {
    /// A record.
    Record {
        /// Where it begins.
        at: u64,
        /// Its header.
        header: Header,
        /// Its notes.
        notes: Vec<Note>,
        /// Its payload behind them.
        payload: Bytes,
    },
    /// Bytes that are none.
    Damage {
        /// The first of them.
        from: u64,
        /// The one behind the last.
        to: u64,
    },
}

/// Reads a segment's records one by one, and finds the next one behind bytes that are none.
pub struct Scanner {
    window: Window,
    number: u64,
    at: u64,
}

impl Scanner {
    /// Reads a segment from `at`, where a record begins, to `end`.
    pub fn new(file: Arc<dyn File>, number: u64, at: u64, end: u64) -> Self {
        Self { window: Window::new(file, end), number, at }
    }

    /// Where the next record begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// What it reads from.
    pub fn file(&self) -> &dyn File {
        self.window.file()
    }

    /// What stands next; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Found>> {
        let at = self.at;
        if at >= self.window.end() {
            return Ok(None);
        }
        let Some(header) = self.header_at(at)? else {
            self.at = self.find(at + 1)?;
            return Ok(Some(Found::Damage { from: at, to: self.at }));
        };
        let mut payload = self.window.bytes(at + HEADER as u64, header.payload)?;
        self.at = at + header.len();
        let notes = if header.fits(&payload) { header.take_notes(&mut payload) } else { None };
        Ok(Some(match notes {
            Some(notes) => Found::Record { at, header, notes, payload },
            None => Found::Damage { from: at, to: self.at },
        }))
    }

    /// The header at a place, if there is one whose record lies before the end.
    fn header_at(&mut self, at: u64) -> io::Result<Option<Header>> {
        let bytes = self.window.bytes(at, HEADER)?;
        let header = Header::parse(&bytes, self.number, at);
        Ok(header.filter(|header| at + header.len() <= self.window.end()))
    }

    /// Where the next record begins, or the end.
    fn find(&mut self, mut at: u64) -> io::Result<u64> {
        while at < self.window.end() {
            let window = self.window.from(at, HEADER)?;
            match memmem::find(&window, &MAGIC) {
                Some(found) => {
                    at += found as u64;
                    if self.header_at(at)?.is_some() {
                        return Ok(at);
                    }
                    at += 1;
                }
                // A beginning may be cut by the window's end.
                None if window.len() >= MAGIC.len() => at += (window.len() + 1 - MAGIC.len()) as u64,
                None => break,
            }
        }
        Ok(self.window.end())
    }
}

/// A range of bytes of a segment, for messages.
pub struct Place<'a>(pub &'a Path, pub u64, pub u64);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {} to {} of {}", self.1, self.2, self.0.display())
    }
}

/// Copies bytes of a segment that are no records into the directory `damaged` beside it, for people to look at. They are
/// durable there. Returns the copy.
pub fn set_aside(fs: &dyn FileSystem, file: &dyn File, Place(path, from, to): Place<'_>) -> io::Result<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new(".")).join("damaged");
    fs.create_directory(&directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let copy = directory.join(format!("{name}.{from}-{to}"));
    let target = fs.create(&copy)?;
    let mut buffer = vec![0; COPY.min((to - from) as usize)];
    let mut at = from;
    while at < to {
        let piece = buffer.len().min((to - at) as usize);
        let read = file.read_at(&mut buffer[..piece], at)?;
        if read == 0 {
            break;
        }
        target.write_at(&[IoSlice::new(&buffer[..read])], at - from)?;
        at += read as u64;
    }
    target.sync()?;
    fs.sync_directory(&directory)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::file::record::Draft;
    use crate::event::{Batch, Event};
    use crate::fs::simulated::Simulated;

    const PATH: &str = "/d/segment-0000000003";

    /// A segment of these bodies, one record each, and where each record begins.
    fn segment(bodies: &[&[u8]]) -> (Vec<u8>, Vec<u64>) {
        let mut bytes = header(3, 0).to_vec();
        let mut places = Vec::new();
        for (first, body) in bodies.iter().enumerate() {
            places.push(bytes.len() as u64);
            let batch = Batch::from_iter([Event::new(body.to_vec())]);
            let at = bytes.len() as u64;
            bytes.extend_from_slice(Draft::put(&batch).expect("small").seal(first as u64, 3, at, None));
        }
        (bytes, places)
    }

    /// The numbers of the events found, and the damage.
    fn scan(bytes: &[u8]) -> (Vec<u64>, Vec<(u64, u64)>) {
        let fs = Simulated::default();
        fs.create_directory(Path::new("/d")).expect("made");
        let file = fs.create(Path::new(PATH)).expect("made");
        file.write_at(&[IoSlice::new(bytes)], 0).expect("room");
        let mut scanner = Scanner::new(file, 3, START, bytes.len() as u64);
        let (mut events, mut damage) = (Vec::new(), Vec::new());
        while let Some(found) = scanner.next().expect("readable") {
            match found {
                Found::Record { header, .. } => events.push(header.first),
                Found::Damage { from, to } => damage.push((from, to)),
            }
        }
        (events, damage)
    }

    #[test]
    fn names_have_numbers() {
        assert_eq!(file_name(12), "segment-0000000012");
        assert_eq!(number_of("segment-0000000012"), Some(12));
        assert_eq!(number_of("segment-12"), None);
        assert_eq!(number_of("log-12"), None);
    }

    #[test]
    fn every_flipped_bit_costs_its_record_at_most() {
        let (bytes, places) = segment(&[b"one", b"two", b"three"]);
        assert_eq!(scan(&bytes), (vec![0, 1, 2], vec![]));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (events, damage) = scan(&damaged);
            let hit = places.iter().rposition(|place| *place <= bit as u64 / 8);
            let intact: Vec<u64> = (0..3).filter(|event| Some(*event as usize) != hit).collect();
            assert_eq!(events, intact, "bit {bit}");
            let ends = [&places[1..], &[bytes.len() as u64]].concat();
            assert_eq!(damage, hit.map(|hit| (places[hit], ends[hit])).into_iter().collect::<Vec<_>>(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_keeps_the_whole_records() {
        let (bytes, places) = segment(&[b"one", b"two", b"three"]);
        for len in START as usize..bytes.len() {
            let ends = [&places[1..], &[bytes.len() as u64]].concat();
            let whole = ends.iter().filter(|end| **end as usize <= len).count();
            let (events, damage) = scan(&bytes[..len]);
            assert_eq!(events, (0..whole as u64).collect::<Vec<_>>());
            assert_eq!(damage.len(), usize::from(places[whole] != len as u64));
        }
    }

    #[test]
    fn a_record_in_a_body_is_not_taken_for_one() {
        let (inner, _) = segment(&[b"inner"]);
        let (mut bytes, places) = segment(&[&inner, b"after"]);
        // The header of the record that holds the copy is hit.
        bytes[places[0] as usize + 5] ^= 1;
        assert_eq!(scan(&bytes), (vec![1], vec![(places[0], places[1])]));
    }

    #[test]
    fn a_beginning_that_was_cut_off_is_unused() {
        let fs = Simulated::default();
        fs.create_directory(Path::new("/d")).expect("made");
        let check = |bytes: &[u8]| {
            let file = fs.create(Path::new(PATH)).expect("made");
            file.write_at(&[IoSlice::new(bytes)], 0).expect("room");
            is_unused(file, 3).expect("readable")
        };
        let mut beginning = header(3, 0).to_vec();
        beginning.extend_from_slice(Draft::key(b"what it is encrypted with").seal(0, 3, START, None));
        assert!((0..=beginning.len()).all(|len| check(&beginning[..len])));
        assert!(!check(&segment(&[b"one"]).0));
    }

    #[test]
    fn damage_is_set_aside() {
        let fs = Simulated::default();
        fs.create_directory(Path::new("/d")).expect("made");
        let file = fs.create(Path::new(PATH)).expect("made");
        file.write_at(&[IoSlice::new(b"0123456789")], 0).expect("room");
        let copy = set_aside(&fs, &*file, Place(Path::new(PATH), 3, 7)).expect("copied");
        assert_eq!(copy, Path::new("/d/damaged/segment-0000000003.3-7"));
        assert_eq!(fs.content(&copy), b"3456");
        assert_eq!(read_first(&*file, 3).expect("readable"), None);
    }
}
