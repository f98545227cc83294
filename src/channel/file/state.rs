//! What a file channel knows of its events while it is open, and what its threads tell each other.
//!
//! Events have numbers, in the order of their records. Those that can be taken are in memory (`ready`) or, from `cold`
//! on, only in the segments, from where the reader brings them. Everything before `cold` that was committed is ready,
//! taken or done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::checkpoint::Position;
use super::notes::Notes;
use super::ranges::Ranges;
use super::record::Draft;
use super::segment::Segment;
use crate::channel::{ChannelError, Note};
use crate::event::Batch;

/// The most marks; beyond, every other one goes.
const MAX_MARKS: usize = 4096;
/// What an event takes in memory beside its record, in bytes.
const EVENT_OVERHEAD: usize = 16;

/// A put that waits to be written.
pub struct Request {
    /// Its record.
    pub draft: Draft,
    /// The notes in it.
    pub notes: Option<Arc<[Note]>>,
    /// Who waits.
    pub reply: oneshot::Sender<Result<Written, ChannelError>>,
    /// The room among the records that wait, whoever still waits for this one.
    pub _in_flight: OwnedSemaphorePermit,
}

/// Where a put was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The record's place, and the first event's number.
    pub position: Position,
    /// The number behind the last event.
    pub end: u64,
    /// The record's length.
    pub bytes: usize,
}

/// What is to be logged although nobody puts.
#[derive(Clone, Debug, Default)]
pub struct Unlogged {
    /// Ranges that are done.
    pub done: Ranges,
    /// Notes that bring back what was noted before puts that were given up.
    pub notes: Vec<Note>,
}

impl Unlogged {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.notes.is_empty()
    }

    /// Adds what came later.
    pub fn append(&mut self, later: Self) {
        for (from, to) in later.done.iter() {
            self.done.insert(from, to);
        }
        self.notes.extend(later.notes);
    }
}

/// What the channel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not open yet, and why.
    Closed(String),
    /// Puts and takes work.
    Open,
    /// Nothing works any more.
    Stopped,
}

/// Whether a thread waits, and for what it need not be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It works, and looks before it waits.
    No,
    /// Takes alone may wait a moment longer.
    ForPuts,
    /// For anything.
    ForAnything,
}

struct Resident {
    batch: Batch,
    bytes: usize,
}

/// The channel's state, behind one lock that nobody holds while he waits.
pub struct State {
    /// Whether it is open.
    pub phase: Phase,
    /// Why puts are refused although it is open.
    pub ailment: Option<ChannelError>,
    /// Whether the configuration is another one since the writer looked.
    pub reconfigured: bool,
    /// Puts for the writer.
    pub inbox: Vec<Request>,
    /// What is not in the log yet.
    pub unlogged: Unlogged,
    /// Whether the writer waits.
    pub writer: Waits,
    /// Whether the reader waits.
    pub reader_waits: bool,
    /// All segments by their numbers; as much of them as `len` says can be read.
    pub segments: BTreeMap<u64, Segment>,
    /// The number behind the last event that is in the segments.
    pub written: u64,
    /// What is not to be delivered (again).
    pub done: Ranges,
    /// Written and neither committed nor given up: first number and the one behind the last.
    pub pending: BTreeMap<u64, u64>,
    /// What has been noted by the puts that are written, pending ones too.
    pub notes: Notes,
    /// What the notes of pending puts have replaced, by their first numbers.
    replaced: BTreeMap<u64, Vec<Note>>,
    /// From here on, events are in the segments only.
    pub cold: Option<Position>,
    /// Bytes written and read since the last checkpoint.
    pub moved: u64,
    /// Events that sinks hold.
    pub taken: usize,
    /// How many bytes the ready events may take.
    pub budget: usize,
    ready: BTreeMap<u64, Resident>,
    ready_bytes: usize,
    /// The number behind the last event that was ever ready.
    ready_end: u64,
    /// How far apart in a segment two marks are, in bytes.
    mark_every: u64,
    /// Places of records, in order; the first is at or before all that is not done.
    marks: VecDeque<Position>,
}

/// Events that a sink holds and that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The first one's number.
    pub from: u64,
    /// The number behind the last.
    pub to: u64,
    /// What they take in memory.
    bytes: usize,
}

impl State {
    /// A channel that is not open, for the reason given.
    pub fn closed(why: &str, budget: usize, mark_every: u64) -> Self {
        Self {
            phase: Phase::Closed(why.to_owned()),
            ailment: None,
            reconfigured: false,
            inbox: Vec::new(),
            unlogged: Unlogged::default(),
            writer: Waits::No,
            reader_waits: false,
            segments: BTreeMap::new(),
            written: 0,
            done: Ranges::default(),
            pending: BTreeMap::new(),
            notes: Notes::default(),
            replaced: BTreeMap::new(),
            cold: None,
            moved: 0,
            taken: 0,
            budget,
            ready: BTreeMap::new(),
            ready_bytes: 0,
            ready_end: 0,
            mark_every,
            marks: VecDeque::new(),
        }
    }

    /// Begins with what is in the segments; everything not done is read from `head` on.
    pub fn open(&mut self, segments: BTreeMap<u64, Segment>, done: Ranges, head: Position, written: u64) {
        if self.phase != Phase::Stopped {
            self.phase = Phase::Open;
        }
        self.segments = segments;
        self.written = written;
        self.marks = [head].into();
        let floor = done.floor();
        self.ready_end = floor;
        self.cold = (floor < written).then_some(Position { event: floor, ..head });
        self.done = done;
    }

    /// Whether no event is queued or taken.
    pub fn is_drained(&self) -> bool {
        self.ready.is_empty() && self.cold.is_none() && self.taken == 0
    }

    /// Whether there is something to take at once.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether the reader has something to do.
    pub fn wants_reading(&self) -> bool {
        self.cold.is_some() && self.ready_bytes <= self.budget / 2
    }

    /// Makes a put visible.
    pub fn commit(&mut self, written: Written, batch: Batch) {
        let Written { position, end, bytes } = written;
        self.pending.remove(&position.event);
        for note in self.replaced.remove(&position.event).into_iter().flatten() {
            // What earlier puts have replaced does not come back any more.
            for earlier in self.replaced.range_mut(..position.event).map(|(_, notes)| notes) {
                earlier.retain(|earlier| earlier.stream != note.stream);
            }
        }
        match self.cold {
            // The reader comes by.
            Some(cold) if position.event >= cold.event => return,
            None if self.ready_bytes >= self.budget && position.event >= self.ready_end => {
                self.cold = Some(position);
                return;
            }
            _ => {}
        }
        debug_assert_eq!(position.event + batch.len() as u64, end, "as many events as were written");
        self.mark(position);
        let overhead = EVENT_OVERHEAD * batch.len();
        self.insert(position.event, batch, bytes + overhead);
    }

    /// Notes a put that is written and neither committed nor given up.
    pub fn add_pending(&mut self, written: &Written, notes: Option<&[Note]>) {
        self.pending.insert(written.position.event, written.end);
        if let Some(notes) = notes {
            let replaced = notes.iter().map(|note| self.notes.set(*note)).collect();
            self.replaced.insert(written.position.event, replaced);
        }
    }

    /// How far a stream is by the puts that were committed.
    pub fn noted(&self, stream: u128) -> Option<u64> {
        let replaced = self.replaced.values().flatten().find(|note| note.stream == stream);
        replaced.map_or_else(|| self.notes.get(stream), |note| Some(note.next).filter(|next| *next > 0))
    }

    /// Takes notes back that may or may not be in the log.
    pub fn take_back(&mut self, notes: &[Note]) {
        let now = notes.iter().map(|note| Note { next: self.notes.get(note.stream).unwrap_or(0), ..*note });
        self.unlogged.notes.extend(now);
    }

    /// Takes a written put back.
    pub fn give_up(&mut self, written: &Written) {
        self.pending.remove(&written.position.event);
        for note in self.replaced.remove(&written.position.event).into_iter().flatten() {
            let mut later = self.replaced.range_mut(written.position.event..).flat_map(|(_, notes)| notes);
            if let Some(later) = later.find(|later| later.stream == note.stream) {
                *later = note;
            } else {
                self.notes.set(note);
                self.unlogged.notes.push(note);
            }
        }
        self.finish(written.position.event, written.end);
    }

    /// Notes events that are done.
    pub fn finish(&mut self, from: u64, to: u64) {
        self.done.insert(from, to);
        self.unlogged.done.insert(from, to);
    }

    /// Takes at most `max` events off the front; `None` when nothing is ready.
    pub fn take(&mut self, max: usize) -> Option<(Batch, Vec<Held>)> {
        let mut taken = Batch::new();
        let mut held: Vec<Held> = Vec::new();
        while taken.len() < max {
            let Some((first, mut front)) = self.ready.pop_first() else { break };
            let room = max - taken.len();
            if front.batch.len() > room {
                let part = front.batch.split_to(room);
                let bytes = front.bytes * room / (room + front.batch.len());
                let rest = Resident { bytes: front.bytes - bytes, batch: front.batch };
                self.ready.insert(first + room as u64, rest);
                front = Resident { batch: part, bytes };
            }
            self.ready_bytes -= front.bytes;
            let end = first + front.batch.len() as u64;
            match held.last_mut() {
                Some(last) if last.to == first => (last.to, last.bytes) = (end, last.bytes + front.bytes),
                _ => held.push(Held { from: first, to: end, bytes: front.bytes }),
            }
            taken.append(front.batch);
        }
        self.taken += taken.len();
        (!taken.is_empty()).then_some((taken, held))
    }

    /// Puts events that were taken back in their places.
    pub fn put_back(&mut self, mut batch: Batch, held: &[Held]) {
        self.taken -= batch.len();
        for Held { from, to, bytes } in held {
            let part = batch.split_to((to - from) as usize);
            self.insert(*from, part, *bytes);
        }
    }

    /// Makes events that were read ready, without those that are done or pending.
    pub fn admit(&mut self, position: Position, mut batch: Batch, bytes: usize) {
        let first = position.event;
        let end = first + batch.len() as u64;
        let start = self.pending.range(..=first).next_back().map_or(first, |(start, _)| *start);
        let mut hidden: Ranges = self.pending.range(start..end).map(|(from, to)| (*from, *to)).collect();
        for (from, to) in self.done_within(first, end) {
            hidden.insert(from, to);
        }
        self.mark(position);
        let mut at = first;
        for (from, to) in hidden.missing(first, end) {
            batch.advance((from - at) as usize);
            let part = batch.split_to((to - from) as usize);
            let share = bytes * (to - from) as usize / (end - first) as usize;
            self.insert(from, part, share + EVENT_OVERHEAD * (to - from) as usize);
            at = to;
        }
        self.ready_end = self.ready_end.max(end);
    }

    /// Notes that the reader has come to the end.
    pub fn caught_up(&mut self) {
        self.cold = None;
        self.ready_end = self.ready_end.max(self.written);
    }

    fn done_within(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let visible: Ranges = self.done.missing(from, to).collect();
        visible.missing(from, to).collect()
    }

    fn insert(&mut self, first: u64, batch: Batch, bytes: usize) {
        self.ready_end = self.ready_end.max(first + batch.len() as u64);
        self.ready_bytes += bytes;
        self.ready.insert(first, Resident { batch, bytes });
    }

    fn mark(&mut self, position: Position) {
        let far = self.marks.back().is_none_or(|last| {
            position.event > last.event
                && (position.segment > last.segment
                    || (position.segment == last.segment && position.offset >= last.offset + self.mark_every))
        });
        if far {
            self.marks.push_back(position);
        }
        if self.marks.len() > MAX_MARKS {
            let mut number = 0;
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }

    /// The place of a record at or before all that is not done.
    pub fn head(&mut self) -> Position {
        let floor = self.done.floor();
        while self.marks.get(1).is_some_and(|next| next.event <= floor) {
            self.marks.pop_front();
        }
        self.marks.front().copied().unwrap_or_default()
    }

    /// Takes the segments out of the list whose events are all done, but not the last ones.
    pub fn retire(&mut self, keep: usize) -> Vec<(u64, Segment)> {
        let floor = self.done.floor();
        let mut retired = Vec::new();
        while self.segments.len() > keep
            && let Some(first) = self.segments.first_entry()
            && first.get().end <= floor
        {
            retired.push(first.remove_entry());
        }
        retired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn a_note_is_that_of_the_last_put_that_stays() {
        let written =
            |event| Written { position: Position { event, segment: 1, offset: 32 }, end: event + 1, bytes: 9 };
        let batch = || Batch::from_iter([Event::new("body")]);
        // Of two puts that wait, the one or the other is given up first, or the later one stays.
        for (order, expected) in [("12", Some(5)), ("21", Some(5)), ("1c", Some(9)), ("c1", Some(9)), ("2C", Some(7))] {
            let mut state = State::closed("a test", 1 << 20, 100);
            state.notes.set(Note { stream: 1, next: 5 });
            state.add_pending(&written(1), Some(&[Note { stream: 1, next: 7 }]));
            state.add_pending(&written(2), Some(&[Note { stream: 1, next: 9 }]));
            assert_eq!(state.noted(1), Some(5));
            for step in order.chars() {
                match step {
                    '1' => state.give_up(&written(1)),
                    '2' => state.give_up(&written(2)),
                    'C' => state.commit(written(1), batch()),
                    _ => state.commit(written(2), batch()),
                }
            }
            assert_eq!((state.noted(1), state.notes.get(1)), (expected, expected), "{order}");
        }
    }

    #[test]
    fn what_is_put_back_takes_as_much_as_before() {
        let mut state = State::closed("a test", 1 << 20, 100);
        let batch: Batch = (0..5).map(|n| Event::new("body").with("header", &"x".repeat(n * 10))).collect();
        let position = Position { event: 0, segment: 1, offset: 32 };
        state.commit(Written { position, end: 5, bytes: 700 }, batch);
        let before = state.ready_bytes;
        let (mut first, mut held) = state.take(2).expect("events");
        let (second, rest) = state.take(9).expect("events");
        assert_eq!(state.ready_bytes, 0);
        first.append(second);
        held.extend(rest);
        state.put_back(first, &held);
        assert_eq!(state.ready_bytes, before);
    }
}
