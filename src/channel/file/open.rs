//! Opening: from the files of the last time to a channel with just the events that are not done.
//!
//! What the checkpoint speaks for is not read. The records behind it say what came in and what was done since. Bytes at
//! the very end that are no whole transaction were never acknowledged and are cut off; other bytes that are no records
//! are damage: they are named and copied, and the records behind them are found. Without a checkpoint, all segments are
//! read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::checkpoint::{Checkpoint, Position};
use super::encryption::Seal;
use super::identity;
use super::lock::lock_all;
use super::notes::Notes;
use super::ranges::Ranges;
use super::reader::{self, report_damage};
use super::record::{Kind, decode_done};
use super::segment::{Found, Place, START, Scanner, Segment, file_name, is_unused, number_of, read_first, set_aside};
use super::state::Phase;
use super::takeover::{self, Imported};
use super::writer::Writer;
use super::{Directories, Shared};
use crate::channel::Note;
use crate::fs::{File, Lock};

/// Opens the channel, as often as it takes, and runs it until it stops. The first attempt's outcome is told.
pub fn run(shared: &Arc<Shared>, told: oneshot::Sender<Result<(), String>>) {
    let mut told = Some(told);
    let mut tell = |outcome: Result<(), String>| {
        if let Some(told) = told.take() {
            // Whoever started the channel may have been told to stop waiting.
            told.send(outcome).ok();
        }
    };
    let mut complaint = String::new();
    let opened = loop {
        let begun = Instant::now();
        // Nobody waits for a long takeover, which the channel's users do.
        match open(shared, &mut || tell(Ok(()))) {
            Ok(opened) => break opened,
            Err(why) => {
                if why != complaint {
                    error!("Failed to start the file channel [channel={}]: {why}; tried again", shared.name);
                    complaint.clone_from(&why);
                }
                note_closed(shared, &why);
                tell(Err(why));
                // What took long is not begun anew at once.
                if !wait_to_retry(shared, shared.tuning.retry.max(begun.elapsed())) {
                    return;
                }
            }
        }
    };
    let Opened { locks, writer, reader } = opened;
    tell(Ok(()));
    writer.run();
    if reader.join().is_err() {
        error!("The reader of the file channel has failed [channel={}]", shared.name);
    }
    drop(locks);
}

/// Says why the channel is not open.
pub(super) fn note_closed(shared: &Shared, why: &str) {
    let mut state = shared.state();
    if state.phase != Phase::Stopped {
        state.phase = Phase::Closed(why.to_owned());
    }
}

/// Lets some time go by; `false` when the channel is stopped.
fn wait_to_retry(shared: &Shared, wait: Duration) -> bool {
    let mut state = shared.state();
    if state.phase != Phase::Stopped {
        state = shared.to_write.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
    }
    state.phase != Phase::Stopped
}

struct Opened {
    locks: Vec<Lock>,
    writer: Writer,
    reader: thread::JoinHandle<()>,
}

fn open(shared: &Arc<Shared>, announce: &mut dyn FnMut()) -> Result<Opened, String> {
    let Directories { checkpoint, backup, data } = &shared.directories;
    let all = [checkpoint].into_iter().chain(backup).chain(data).map(PathBuf::as_path);
    let locks = lock_all(&*shared.fs, &shared.name, all)?;
    takeover::recover(shared)?;
    let files = find_segments(shared)?;
    let mut replay = Replay::run(shared, files)?;
    if let Some(imported) = takeover::run(shared, replay.next_segment(), replay.next, announce)? {
        replay.adopt(imported);
    }
    // Where all was removed, numbers begin anew, and what was delivered under the old ones is nothing to the new events.
    let is_new = replay.next == 0 && replay.segments.is_empty();
    let identity = identity::of(&*shared.fs, &data[0], is_new);
    let identity = identity.map_err(|error| format!("its identity in {}: {error}", data[0].display()))?;
    // It is opened only once.
    shared.identity.set(identity).ok();
    let next_segment = replay.next_segment();
    let waiting = replay.done.count_missing(0, replay.next);
    let reader = {
        let shared = Arc::clone(shared);
        let spawned = thread::Builder::new().name(format!("read-{}", shared.name)).spawn(move || reader::run(&shared));
        spawned.map_err(|error| format!("no thread to read with: {error}"))?
    };
    let writer = Writer::new(shared, next_segment, replay.next);
    {
        let _entry = shared.ledger.entry();
        shared.room.occupy(waiting as usize);
        shared.counters.size.set(waiting);
    }
    info!("Queue Size after replay: {waiting} [channel={}]", shared.name);
    shared.change(|state| {
        state.notes = replay.notes;
        state.open(replay.segments, replay.done, replay.head, replay.next);
    });
    Ok(Opened { locks, writer, reader })
}

/// All segments there are, by their numbers.
pub fn find_segments(shared: &Shared) -> Result<BTreeMap<u64, PathBuf>, String> {
    let mut found: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for directory in &shared.directories.data {
        // A process that was killed may have left names that are not durable yet, and others will rely on them.
        let synced = shared.fs.sync_directory(directory);
        let listed = synced.and_then(|()| shared.fs.list(directory));
        for name in listed.map_err(|error| format!("Could not list {}: {error}", directory.display()))? {
            let path = directory.join(&name);
            let Some(number) = number_of(&name) else { continue };
            let Some(other) = found.insert(number, path.clone()) else { continue };
            found.insert(number, one_of(shared, number, other, path)?);
        }
    }
    Ok(found)
}

/// Of two segments with the same number the one that is in use: an attempt to begin it may have failed, and left a file
/// without records, or with a beginning that a crash has torn.
fn one_of(shared: &Shared, number: u64, one: PathBuf, other: PathBuf) -> Result<PathBuf, String> {
    for (unused, used) in [(&one, &other), (&other, &one)] {
        let failed = |error| format!("Could not remove {}: {error}", unused.display());
        if shared.fs.open_to_read(unused).and_then(|file| is_unused(file, number)).map_err(failed)? {
            shared.fs.remove(unused).map_err(failed)?;
            return Ok(used.clone());
        }
    }
    Err(format!("{} and {} have the same number", one.display(), other.display()))
}

/// The newest checkpoint that can be read.
pub fn read_checkpoint(shared: &Shared) -> Result<Option<Checkpoint>, String> {
    let Directories { checkpoint, backup, .. } = &shared.directories;
    for directory in [checkpoint].into_iter().chain(backup) {
        // What is removed because of it must not come back to an older one.
        let synced = shared.fs.sync_directory(directory);
        match synced.and_then(|()| Checkpoint::read(&*shared.fs, directory)) {
            Ok(Some(checkpoint)) => return Ok(Some(checkpoint)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                warn!("The checkpoint in {} is damaged [channel={}]", directory.display(), shared.name);
            }
            Err(error) => return Err(format!("Could not read the checkpoint in {}: {error}", directory.display())),
        }
    }
    Ok(None)
}

/// What the files say.
pub struct Replay<'a> {
    shared: &'a Shared,
    /// All that are needed.
    pub segments: BTreeMap<u64, Segment>,
    last_segment: u64,
    /// What is not to be delivered (again).
    pub done: Ranges,
    /// Where reading begins.
    pub head: Position,
    /// The next event's number.
    pub next: u64,
    /// How far sources have come.
    pub notes: Notes,
    /// The events whose records were seen.
    seen: Ranges,
    /// How many undelivered events have no record.
    pub lost: u64,
}

impl<'a> Replay<'a> {
    /// Reads what came after the last checkpoint, or everything.
    pub fn run(shared: &'a Shared, mut files: BTreeMap<u64, PathBuf>) -> Result<Self, String> {
        let checkpoint = read_checkpoint(shared)?;
        let known = checkpoint.is_some();
        let Checkpoint { tail, head, done, segments: listed, notes } = checkpoint.unwrap_or_default();
        let last_segment = tail.segment;
        let mut replay = Self {
            shared,
            segments: BTreeMap::new(),
            last_segment,
            done,
            head,
            next: tail.event,
            notes,
            seen: Ranges::default(),
            lost: 0,
        };
        for listed in listed {
            replay.next = replay.next.max(listed.end);
            let segment = |path| Segment { path, first: listed.first, end: listed.end, len: listed.len, seal: None };
            match files.get(&listed.number) {
                Some(path) => {
                    replay.segments.insert(listed.number, segment(path.clone()));
                }
                None => replay.check_missing(listed.number, listed.first, listed.end)?,
            }
        }
        // Left over from before the checkpoint, which does not need them.
        let newer = files.split_off(&tail.segment);
        for path in files.iter().filter(|(number, _)| !replay.segments.contains_key(number)).map(|(_, path)| path) {
            shared.fs.remove(path).map_err(|error| format!("Could not remove {}: {error}", path.display()))?;
        }
        if !known && !newer.is_empty() {
            warn!("There is no checkpoint, all segments are read [channel={}]", shared.name);
        }
        let last = newer.last_key_value().map(|(number, _)| *number);
        let mut before: Option<u64> = known.then_some(tail.segment);
        for (number, path) in newer {
            if let Some(before) = before
                && number > before + 1
            {
                return Err(format!("{} is missing from the data directories", file_name(before + 1)));
            }
            before = Some(number);
            let from = if known && number == tail.segment { tail.offset } else { START };
            // Listed behind the tail is what was not known to be durable. Its notes are in the checkpoint, or were taken
            // back with their events.
            let noted = match replay.segments.get(&number) {
                Some(listed) if number == tail.segment => listed.len,
                Some(_) => u64::MAX,
                None => 0,
            };
            let failed = |error| format!("Could not read {}: {error}", path.display());
            replay.segment(number, &path, (from, noted), Some(number) == last).map_err(failed)?;
            if !known && replay.head == Position::default() {
                let first = replay.segments[&number].first;
                replay.head = Position { event: first, segment: number, offset: START };
                replay.done.insert(0, first);
            }
        }
        replay.fill_gaps(tail.event);
        replay.find_seals()?;
        Ok(replay)
    }

    /// Finds out how to decrypt what is not delivered.
    fn find_seals(&mut self) -> Result<(), String> {
        let keys = self.shared.config().keys;
        for (number, segment) in &mut self.segments {
            if self.done.count_missing(segment.first, segment.end) > 0 {
                segment.seal = Seal::find(&*self.shared.fs, *number, segment, &keys)?;
            }
        }
        Ok(())
    }

    fn next_segment(&self) -> u64 {
        self.segments.last_key_value().map_or(self.last_segment, |(number, _)| *number) + 1
    }

    /// Adds segments behind the others.
    fn adopt(&mut self, imported: Imported) {
        if self.segments.is_empty()
            && let Some((number, segment)) = imported.segments.first_key_value()
        {
            self.head = Position { event: segment.first, segment: *number, offset: START };
        }
        self.segments.extend(imported.segments);
        self.next = imported.end;
    }

    fn check_missing(&self, number: u64, first: u64, end: u64) -> Result<(), String> {
        let waiting = self.done.count_missing(first, end);
        if waiting == 0 {
            return Ok(());
        }
        Err(format!(
            "{0} with {waiting} events is missing from the data directories: \
             bring it back, or put an empty file {0} there to go on without them",
            file_name(number)
        ))
    }

    /// Reads a segment from a place on; the notes before another are known.
    fn segment(&mut self, number: u64, path: &Path, (from, noted): (u64, u64), is_last: bool) -> io::Result<()> {
        let file = self.shared.fs.open(path)?;
        let len = file.len()?;
        let listed = self.segments.get(&number);
        let first = match listed {
            Some(listed) => listed.first,
            None => read_first(&*file, number)?.unwrap_or(self.next),
        };
        let mut end = listed.map_or(first, |listed| listed.end);
        self.next = self.next.max(end);
        let mut scanner = Scanner::new(Arc::clone(&file), number, from, len);
        let mut damage = None;
        while let Some(found) = scanner.next()? {
            match found {
                Found::Damage { from, to } => {
                    self.report(&scanner, path, damage.replace((from, to)));
                    continue;
                }
                Found::Record { at, header, notes, .. } if header.kind == Kind::Put => {
                    self.note(notes, at < noted);
                    self.seen.insert(header.first, header.end());
                    end = end.max(header.end());
                }
                Found::Record { header, .. } if header.kind == Kind::Key => {}
                Found::Record { at, payload, notes, .. } => {
                    self.note(notes, at < noted);
                    for (from, to) in decode_done(&payload).unwrap_or_default() {
                        self.done.insert(from, to);
                        // Their records may be gone, but their numbers are not to be used again.
                        end = end.max(to);
                    }
                }
            }
            self.report(&scanner, path, damage.take());
        }
        self.next = self.next.max(end);
        // So is what it had written and not synced.
        file.sync()?;
        let mut whole = len;
        if let Some((torn, _)) = damage.filter(|(_, to)| is_last && *to == len) {
            whole = torn;
            self.cut(&*file, path, torn, len)?;
        } else {
            self.report(&scanner, path, damage);
        }
        let segment = Segment { path: path.to_owned(), first, end, len: whole, seal: None };
        self.segments.insert(number, segment);
        Ok(())
    }

    fn note(&mut self, notes: Vec<Note>, is_known: bool) {
        for note in notes.into_iter().filter(|_| !is_known) {
            self.notes.set(note);
        }
    }

    fn report(&self, scanner: &Scanner, path: &Path, damage: Option<(u64, u64)>) {
        if let Some((from, to)) = damage {
            report_damage(self.shared, scanner, Place(path, from, to));
        }
    }

    /// Cuts off an end that is no whole transaction. A copy is kept, as it may have been one before it was damaged.
    fn cut(&self, file: &dyn File, path: &Path, torn: u64, len: u64) -> io::Result<()> {
        let (place, name) = (Place(path, torn, len), &self.shared.name);
        match set_aside(&*self.shared.fs, file, Place(path, torn, len)) {
            Ok(copy) => {
                file.set_len(torn)?;
                file.sync()?;
                let copy = copy.display();
                info!("{place} are no whole transaction and cut off, a copy is in {copy} [channel={name}]");
            }
            // Nothing is written behind it.
            Err(error) => {
                warn!(
                    "{place} are no whole transaction and left as they could not be copied: {error} [channel={name}]"
                );
            }
        }
        Ok(())
    }

    /// Events without a record are done: there is nothing to deliver.
    fn fill_gaps(&mut self, from: u64) {
        let known: Ranges = self.done.iter().chain(self.seen.iter()).collect();
        let gaps: Vec<_> = known.missing(from, self.next).collect();
        self.lost = gaps.iter().map(|(from, to)| to - from).sum();
        let last = self.segments.last_key_value().map_or(0, |(_, segment)| segment.first);
        let at_end = gaps.iter().all(|(from, _)| *from >= last);
        for (from, to) in gaps {
            self.done.insert(from, to);
        }
        if self.lost > 0 && at_end {
            warn!(
                "The records of {} events of the last segment are missing or damaged, as when the machine stops \
                 before they are durable and acknowledged [channel={}]",
                self.lost, self.shared.name
            );
        } else if self.lost > 0 {
            error!("The records of {} events are missing or damaged [channel={}]", self.lost, self.shared.name);
        }
    }
}
