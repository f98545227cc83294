//! A channel's files as they are at one moment, read without changing them. An agent may run beside.
//!
//! What waits is found as the channel itself finds it when it opens (`open`), on a file system that writes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{self, Checkpoint, Listed, Position};
use super::notes::Notes;
use super::open::{Replay, find_segments, read_checkpoint};
use super::ranges::Ranges;
use super::record::{HEADER, Header, Kind, decode_put};
use super::segment::{Found, START, Scanner, Segment, file_name, read_first};
use super::{Directories, FileChannel, FileConfig, Shared, Tuning};
use crate::event::Batch;
use crate::fs::{File, ReadOnly};
use crate::metrics::Metrics;

/// How often it is tried to read a state that does not change while it is read.
const ATTEMPTS: u32 = 10;
/// More missing segments than that, and the directories are not those of one channel.
const MAX_MISSING: u64 = 1000;

/// What a channel's files say.
pub struct Image {
    shared: Arc<Shared>,
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) done: Ranges,
    pub(super) head: Position,
    /// The next event's number.
    pub(super) next: u64,
    notes: Notes,
    missing: Vec<Missing>,
    /// Events behind the checkpoint whose records are not there.
    lost: u64,
}

/// A segment that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its number.
    pub segment: u64,
    /// Where it could be.
    pub path: PathBuf,
    /// How many events are known to wait in it.
    pub events: u64,
}

/// Bytes of a segment that are no records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number.
    pub segment: u64,
    /// Its file.
    pub path: PathBuf,
    /// The first of them.
    pub from: u64,
    /// The one behind the last.
    pub to: u64,
    /// Whether they are the beginning of a record that was never written to its end, and never acknowledged.
    pub torn: bool,
}

/// What a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointState {
    /// There is none.
    Missing,
    /// It cannot be used.
    Damaged,
    /// It is right.
    Whole,
}

/// What was found when every record was read.
#[derive(Debug, Default)]
pub struct Examination {
    /// Records that are right.
    pub records: u64,
    /// Events in them, delivered or not.
    pub events: u64,
    /// Bytes that are no records.
    pub damage: Vec<Damage>,
    /// Undelivered events whose records are damaged or missing.
    pub lost: u64,
    /// Their numbers, as far as the checkpoint speaks of them.
    pub(super) unreadable: Vec<(u64, u64)>,
}

impl Image {
    /// Reads what is needed to know what waits: little with a checkpoint, and everything without.
    pub fn read(directories: &Directories) -> Result<Self, String> {
        let plain = never_started(directories, ReadOnly::default());
        let mut attempt = 1;
        loop {
            let before = read_checkpoint(&plain)?;
            let image = Self::attempt(&plain, before.as_ref());
            // An agent that goes on removes segments after it has written a checkpoint without them.
            if attempt == ATTEMPTS || read_checkpoint(&plain)? == before {
                return image;
            }
            attempt += 1;
        }
    }

    /// Whether the checkpoint of a directory can be one of these data directories.
    pub fn is_checkpoint_of(directory: &Path, data: &[PathBuf]) -> bool {
        let Ok(Some(checkpoint)) = Checkpoint::read(&ReadOnly::default(), directory) else { return false };
        let there = |listed: &Listed| data.iter().any(|data| data.join(file_name(listed.number)).exists());
        checkpoint.segments.iter().all(there)
    }

    fn attempt(plain: &Shared, checkpoint: Option<&Checkpoint>) -> Result<Self, String> {
        let mut files = find_segments(plain)?;
        let missing = missing(&plain.directories, checkpoint, &files)?;
        // The channel would not open without them; what else is there can be read as if they were empty.
        let empty = missing.iter().map(|missing| missing.path.clone()).collect();
        let shared = never_started(&plain.directories, ReadOnly { empty });
        files.extend(missing.iter().map(|missing| (missing.segment, missing.path.clone())));
        let Replay { segments, done, head, next, notes, lost, .. } = Replay::run(&shared, files)?;
        Ok(Self { segments, done, head, next, notes, lost, missing, shared })
    }

    /// How many events wait.
    pub fn backlog(&self) -> u64 {
        self.done.count_missing(0, self.next)
    }

    /// The files of all segments that are needed.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.segments.values().map(|segment| segment.path.as_path())
    }

    /// Segments that should be there.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// The file of a missing segment, if it is in this directory.
    pub fn find(&self, missing: &Missing, directory: &Path) -> Option<PathBuf> {
        let path = directory.join(file_name(missing.segment));
        let file = self.shared.fs.open_to_read(&path).ok()?;
        let first = read_first(&*file, missing.segment).ok()??;
        (path != missing.path && first == self.segments.get(&missing.segment)?.first).then_some(path)
    }

    /// The files of the checkpoint and of its copy, if there is to be one, and what they are.
    pub fn checkpoints(&self) -> io::Result<Vec<(PathBuf, CheckpointState)>> {
        let Directories { checkpoint, backup, .. } = &self.shared.directories;
        let state = |directory: &PathBuf| {
            let state = match Checkpoint::read(&*self.shared.fs, directory) {
                Ok(Some(_)) => CheckpointState::Whole,
                Ok(None) => CheckpointState::Missing,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => CheckpointState::Damaged,
                Err(error) => return Err(error),
            };
            Ok((directory.join(checkpoint::FILE), state))
        };
        [checkpoint].into_iter().chain(backup).map(state).collect()
    }

    /// The events that wait longest, and the file that they stand in.
    pub fn oldest(&self) -> io::Result<Option<(Batch, PathBuf)>> {
        let mut walk = self.walk(false);
        while let Some((piece, _)) = walk.next()? {
            if let Piece::Put { first, batch } = piece {
                let waiting = self.undelivered(first, batch);
                let path = walk.current.as_ref().map(|current| current.segment.path.clone());
                if let Some(path) = path.filter(|_| !waiting.is_empty()) {
                    return Ok(Some((waiting, path)));
                }
            }
        }
        Ok(None)
    }

    /// Those of some events that follow each other, the first of this number, which wait.
    pub fn undelivered(&self, first: u64, mut batch: Batch) -> Batch {
        let end = (first + batch.len() as u64).min(self.next);
        let mut waiting = Batch::new();
        let mut at = first;
        for (from, to) in self.done.missing(first, end) {
            batch.advance((from - at) as usize);
            waiting.append(batch.split_to((to - from) as usize));
            at = to;
        }
        waiting
    }

    /// Reads the segments in which events wait from the first of these on, or everything there is.
    pub fn walk(&self, everything: bool) -> Walk<'_> {
        let wanted = |number: u64, segment: &Segment| {
            everything || (number >= self.head.segment && self.done.count_missing(segment.first, segment.end) > 0)
        };
        let segments = self.segments.iter().filter(|(number, segment)| wanted(**number, segment));
        let segments = segments.map(|(number, segment)| {
            let at_head = !everything && *number == self.head.segment;
            (*number, segment, if at_head { self.head.offset.max(START) } else { START })
        });
        Walk {
            image: self,
            everything,
            segments: segments.collect(),
            current: None,
            expected: 0,
            gone: Ranges::default(),
        }
    }

    /// Reads every record. `progress` is told how many bytes have been read.
    pub fn examine(&self, mut progress: impl FnMut(u64)) -> io::Result<Examination> {
        let mut found = Examination::default();
        let mut seen = Ranges::default();
        let mut walk = self.walk(true);
        while let Some((piece, bytes)) = walk.next()? {
            progress(bytes);
            match piece {
                Piece::Put { first, batch } => {
                    found.records += 1;
                    found.events += batch.len() as u64;
                    seen.insert(first, first + batch.len() as u64);
                }
                Piece::Done => found.records += 1,
                Piece::Damage(damage) => match found.damage.last_mut() {
                    Some(last) if last.segment == damage.segment && last.to == damage.from && last.from >= START => {
                        last.to = damage.to;
                        last.torn &= damage.torn;
                    }
                    _ => found.damage.push(damage),
                },
            }
        }
        let known: Ranges = self.done.iter().chain(seen.iter()).chain(walk.gone.iter()).collect();
        found.unreadable = known.missing(0, self.next).collect();
        found.lost = self.lost + known.count_missing(0, self.next);
        Ok(found)
    }

    /// A checkpoint that says what this knows.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        let listed = |(number, segment): (&u64, &Segment)| Listed {
            number: *number,
            first: segment.first,
            end: segment.end,
            len: segment.len,
        };
        let (segment, offset) = self.segments.last_key_value().map_or((0, 0), |(number, last)| (*number, last.len));
        Checkpoint {
            tail: Position { event: self.next, segment, offset },
            head: self.head,
            done: self.done.clone(),
            segments: self.segments.iter().map(listed).collect(),
            notes: self.notes.clone(),
        }
    }
}

/// A channel that lends what reading needs, and is never started.
fn never_started(directories: &Directories, fs: ReadOnly) -> Arc<Shared> {
    let config = FileConfig::new(directories.clone());
    FileChannel::new("image", config, Tuning::default(), Arc::new(fs), &Metrics::default()).0
}

/// The segments that the checkpoint or the others ask for and that are not there.
fn missing(
    directories: &Directories,
    checkpoint: Option<&Checkpoint>,
    files: &BTreeMap<u64, PathBuf>,
) -> Result<Vec<Missing>, String> {
    let at = |segment: u64, events: u64| {
        let path = directories.data.first().map(|data| data.join(file_name(segment))).unwrap_or_default();
        Missing { segment, path, events }
    };
    let waiting = |checkpoint: &Checkpoint, listed: &Listed| checkpoint.done.count_missing(listed.first, listed.end);
    let mut missing: Vec<Missing> = checkpoint.map_or_else(Vec::new, |checkpoint| {
        let gone = checkpoint.segments.iter().filter(|listed| !files.contains_key(&listed.number));
        let gone = gone.map(|listed| at(listed.number, waiting(checkpoint, listed)));
        gone.filter(|missing| missing.events > 0).collect()
    });
    let tail = checkpoint.map_or(0, |checkpoint| checkpoint.tail.segment);
    let mut before = checkpoint.map(|_| tail);
    for number in files.range(tail..).map(|(number, _)| *number) {
        let first = before.map_or(number, |before| before + 1);
        if number.saturating_sub(first) > MAX_MISSING {
            let (from, to) = (file_name(first), file_name(number - 1));
            return Err(format!("{from} to {to} are missing: these are not the data directories of one channel"));
        }
        missing.extend((first..number).map(|number| at(number, 0)));
        before = Some(number);
    }
    Ok(missing)
}

/// What stands in a segment.
#[derive(Debug)]
pub enum Piece {
    /// Events that came in, each of which is found once.
    Put {
        /// The number of the first.
        first: u64,
        /// The events.
        batch: Batch,
    },
    /// A record without events that were not found before.
    Done,
    /// Bytes that are no records.
    Damage(Damage),
}

struct Current<'a> {
    number: u64,
    segment: &'a Segment,
    file: Arc<dyn File>,
    scanner: Scanner,
    end: u64,
}

/// Reads segments one by one.
pub struct Walk<'a> {
    image: &'a Image,
    everything: bool,
    segments: VecDeque<(u64, &'a Segment, u64)>,
    current: Option<Current<'a>>,
    /// The number behind the last event that was found.
    expected: u64,
    /// Events of segments that an agent has removed meanwhile.
    gone: Ranges,
}

impl<'a> Walk<'a> {
    /// How many bytes there are to read, as far as is known.
    pub fn total(&self) -> u64 {
        self.segments.iter().map(|(_, segment, start)| segment.len.saturating_sub(*start)).sum()
    }

    /// What comes next, and how many bytes it takes; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would be awkward to stop at an error")]
    pub fn next(&mut self) -> io::Result<Option<(Piece, u64)>> {
        loop {
            let Some(current) = &mut self.current else {
                match self.segments.pop_front() {
                    Some((number, segment, start)) => {
                        if let Some(damage) = self.open(number, segment, start)? {
                            return Ok(Some((Piece::Damage(damage), 0)));
                        }
                        continue;
                    }
                    None => return Ok(None),
                }
            };
            let at = current.scanner.at();
            let path = &current.segment.path;
            let failed = |error| io::Error::other(format!("Could not read {}: {error}", path.display()));
            let Some(found) = current.scanner.next().map_err(failed)? else {
                self.current = None;
                continue;
            };
            let bytes = current.scanner.at() - at;
            return Ok(Some((self.piece(found)?, bytes)));
        }
    }

    /// Opens a segment; its beginning may be damaged.
    fn open(&mut self, number: u64, segment: &'a Segment, start: u64) -> io::Result<Option<Damage>> {
        let failed = |error| io::Error::other(format!("Could not read {}: {error}", segment.path.display()));
        let file = match self.image.shared.fs.open_to_read(&segment.path) {
            // All of it was delivered in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.gone.insert(segment.first, segment.end);
                return Ok(None);
            }
            opened => opened.map_err(failed)?,
        };
        let len = file.len().map_err(failed)?;
        let is_last = self.image.segments.last_key_value().is_some_and(|(last, _)| *last == number);
        let is_missing = self.image.missing.iter().any(|missing| missing.segment == number);
        let end = if is_missing || (is_last && self.everything) { len } else { segment.len };
        let begins_wrong = self.everything && len > 0 && read_first(&*file, number).map_err(failed)?.is_none();
        let scanner = Scanner::new(Arc::clone(&file), number, start, end);
        self.current = Some(Current { number, segment, file, scanner, end: if is_last { end } else { u64::MAX } });
        let path = segment.path.clone();
        Ok(begins_wrong.then(|| Damage { segment: number, path, from: 0, to: START.min(len), torn: false }))
    }

    /// Whether events before this one are missing, which the next segment has.
    fn is_behind_a_gap(&self, event: u64) -> bool {
        let next = self.current.as_ref().and_then(|current| self.image.segments.range(current.number + 1..).next());
        next.is_some_and(|(_, next)| event > next.first) && self.image.done.count_missing(self.expected, event) > 0
    }

    fn piece(&mut self, found: Found) -> io::Result<Piece> {
        let (at, to) = match found {
            Found::Record { header, payload, at, .. } if header.kind == Kind::Put => {
                match decode_put(&header, payload) {
                    // Written anew, after a disk had failed.
                    Some(_) if header.end() <= self.expected => return Ok(Piece::Done),
                    // What lacks before it stands in the next segment, and so does this.
                    Some(_) if self.is_behind_a_gap(header.first) => return Ok(Piece::Done),
                    Some(mut batch) => {
                        let first = header.first.max(self.expected);
                        batch.advance((first - header.first) as usize);
                        self.expected = header.end();
                        return Ok(Piece::Put { first, batch });
                    }
                    None => (at, at + header.len()),
                }
            }
            Found::Record { .. } => return Ok(Piece::Done),
            Found::Damage { from, to } => (from, to),
        };
        let current = self.current.as_ref().expect("a piece comes from a segment");
        let torn = to == current.end && is_torn(&*current.file, current.number, at, to)?;
        Ok(Piece::Damage(Damage { segment: current.number, path: current.segment.path.clone(), from: at, to, torn }))
    }
}

/// Whether the bytes at the end of the last segment are the beginning of a record that is longer.
fn is_torn(file: &dyn File, segment: u64, from: u64, to: u64) -> io::Result<bool> {
    let mut header = [0; HEADER];
    let read = file.read_at(&mut header, from)?;
    let longer = |header: Header| from + header.len() > to;
    Ok(to - from < HEADER as u64 || Header::parse(&header[..read], segment, from).is_some_and(longer))
}
