//! The thread that brings events back from the segments, as sinks make room for them in memory.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread;

use tracing::{error, warn};

use super::Shared;
use super::checkpoint::Position;
use super::encryption::unseal;
use super::record::{Kind, decode_put};
use super::segment::{Found, Place, START, Scanner, Segment, set_aside};
use super::state::Phase;
use crate::event::Batch;

/// The most sets of headers, and buffers, of events that are ready as one: whoever takes a few of them looks at all.
const MAX_SETS: usize = 256;

/// Events that follow each other, and what they take.
struct Run {
    position: Position,
    batch: Batch,
    bytes: usize,
    records: usize,
}

impl Run {
    fn end(&self) -> u64 {
        self.position.event + self.batch.len() as u64
    }
}

/// Reads whenever events are wanted, until the channel stops.
pub fn run(shared: &Arc<Shared>) {
    let mut reader = Reader { shared, scanner: None };
    while let Some((position, segment)) = reader.wait() {
        if let Err(error) = reader.read(position, &segment) {
            reader.scanner = None;
            if reader.is_stale(&position) {
                continue;
            }
            error!("Take failed due to IO error [channel={}]: {error}; tried again", shared.name);
            thread::sleep(shared.tuning.retry);
        }
    }
}

struct Reader<'a> {
    shared: &'a Arc<Shared>,
    /// Reads on where it was, unless it has to be elsewhere.
    scanner: Option<(u64, u64, Scanner)>,
}

impl Reader<'_> {
    /// Waits until there is something to read, and says where; `None` at the end.
    fn wait(&self) -> Option<(Position, Segment)> {
        let mut state = self.shared.state();
        loop {
            if state.phase == Phase::Stopped {
                return None;
            }
            let cold = state.cold.filter(|_| state.wants_reading());
            let Some(position) = cold else {
                state.reader_waits = true;
                state = self.shared.to_read.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.reader_waits = false;
                continue;
            };
            let mut from_here = state.segments.range(position.segment..);
            let next = match from_here.next() {
                Some((number, segment)) if *number == position.segment => {
                    let is_read = position.offset >= segment.len || position.event >= segment.end;
                    match from_here.next() {
                        // It may be gone, and was written anew.
                        Some((next, _)) if is_read => Some(*next),
                        _ => return Some((position, segment.clone())),
                    }
                }
                // All of it was done, and it is gone.
                other => other.map(|(number, _)| *number),
            };
            state.cold = next.map(|segment| Position { segment, offset: START, ..position });
        }
    }

    /// Whether a place is no longer one to read from, as its segment is gone.
    fn is_stale(&self, position: &Position) -> bool {
        !self.shared.state().segments.contains_key(&position.segment)
    }

    fn read(&mut self, position: Position, segment: &Segment) -> io::Result<()> {
        let number = position.segment;
        let mut scanner = match self.scanner.take() {
            Some((of, end, scanner)) if of == number && end == segment.len && scanner.at() == position.offset => {
                scanner
            }
            _ => Scanner::new(self.shared.fs.open_to_read(&segment.path)?, number, position.offset, segment.len),
        };
        let mut runs: Vec<Run> = Vec::new();
        let mut at_end = true;
        while let Some(found) = scanner.next()? {
            match found {
                Found::Record { header, payload, at, .. }
                    if header.kind == Kind::Put && header.end() > position.event =>
                {
                    let place = Position { event: header.first, segment: number, offset: at };
                    let bytes = payload.len();
                    let payload = unseal(segment.seal.as_deref(), &header, at, payload);
                    match payload.and_then(|payload| decode_put(&header, payload)) {
                        Some(batch) => add(&mut runs, Run { position: place, batch, bytes, records: 1 }),
                        None => self.report(&scanner, segment, at, at + header.len()),
                    }
                }
                Found::Record { .. } => {}
                Found::Damage { from, to } => self.report(&scanner, segment, from, to),
            }
            if scanner.at() - position.offset >= self.shared.tuning.piece_bytes {
                at_end = false;
                break;
            }
        }
        self.admit(position, segment, runs, scanner.at(), at_end);
        self.scanner = Some((number, segment.len, scanner));
        Ok(())
    }

    /// Makes events ready, and moves on to where the next ones are.
    fn admit(&self, position: Position, read: &Segment, runs: Vec<Run>, offset: u64, at_end: bool) {
        let shared = self.shared;
        let _entry = shared.ledger.entry();
        let mut state = shared.state();
        let now = state.segments.get(&position.segment).map(|segment| segment.len);
        // Cut short while it was read: what was not durable stands in the next one.
        let Some(len) = now.filter(|len| *len >= read.len) else { return };
        let following = state.segments.range(position.segment + 1..).next();
        let following = following.map(|(number, segment)| (*number, segment.first));
        // From here on, events stand in the next segment, and perhaps in this one.
        let limit = following.map_or(state.written, |(_, first)| first);
        let mut is_over = at_end && len == read.len;
        let mut expected = position.event;
        let mut lost = 0;
        for mut run in runs {
            if run.end() <= expected {
                continue;
            }
            if run.position.event > limit && state.done.count_missing(expected, run.position.event) > 0 {
                is_over = true;
                break;
            }
            lost += shared.lose(&mut state, expected, run.position.event);
            let before = expected.saturating_sub(run.position.event);
            run.batch.advance(before as usize);
            run.position.event += before;
            expected = run.end();
            state.admit(run.position, run.batch, run.bytes);
        }
        let mut next = Position { event: expected, segment: position.segment, offset };
        if is_over {
            // Nothing else stands before the next segment, or at all.
            lost += shared.lose(&mut state, expected, limit);
            next.event = expected.max(limit);
            if let Some((number, _)) = following {
                (next.segment, next.offset) = (number, START);
            }
        }
        state.moved += offset - position.offset;
        state.cold = (next.event < state.written).then_some(next);
        if state.cold.is_none() {
            state.caught_up();
        }
        if state.is_ready() {
            shared.filled.notify_one();
        }
        let drained = state.is_drained();
        drop(state);
        if drained {
            shared.emptied.notify_waiters();
        }
        if lost > 0 {
            error!("{lost} events could not be read and are lost [channel={}]", shared.name);
        }
    }

    fn report(&self, scanner: &Scanner, segment: &Segment, from: u64, to: u64) {
        report_damage(self.shared, scanner, Place(&segment.path, from, to));
    }
}

/// Names damaged bytes and keeps a copy of them.
pub fn report_damage(shared: &Shared, scanner: &Scanner, Place(path, from, to): Place<'_>) {
    let place = Place(path, from, to);
    match set_aside(&*shared.fs, scanner.file(), Place(path, from, to)) {
        Ok(copy) => warn!("{place} are damaged, a copy is in {} [channel={}]", copy.display(), shared.name),
        Err(error) => warn!("{place} are damaged and could not be copied: {error} [channel={}]", shared.name),
    }
}

/// Adds the events of a record.
fn add(runs: &mut Vec<Run>, mut record: Run) {
    while record.batch.header_sets().len() > MAX_SETS {
        let (events, bytes) = (record.batch.len(), record.bytes);
        let batch = record.batch.split_to(MAX_SETS);
        let part = Run { batch, bytes: bytes * MAX_SETS.min(events) / events, ..record };
        record.position.event = part.end();
        record.bytes -= part.bytes;
        runs.push(part);
    }
    if !record.batch.is_empty() {
        join(runs, record);
    }
}

/// Adds events to the last run when they follow it.
fn join(runs: &mut Vec<Run>, next: Run) {
    let sets = |run: &Run| run.batch.header_sets().len();
    match runs.last_mut() {
        Some(last)
            if last.end() == next.position.event && last.records < MAX_SETS && sets(last) + sets(&next) <= MAX_SETS =>
        {
            last.batch.append(next.batch);
            last.bytes += next.bytes;
            last.records += 1;
        }
        _ => runs.push(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn events_with_headers_of_their_own_are_ready_in_small_parts() {
        let mut runs = Vec::new();
        for record in 0..3u64 {
            let event = |n: u64| Event::new(n.to_string()).with("n", &n.to_string());
            let batch: Batch = (record * 1000..(record + 1) * 1000).map(event).collect();
            let position = Position { event: record * 1000, segment: 1, offset: record };
            add(&mut runs, Run { position, batch, bytes: 5000, records: 1 });
        }
        assert!(runs.iter().all(|run| run.batch.header_sets().len() <= MAX_SETS));
        assert_eq!(runs.iter().map(|run| run.bytes).sum::<usize>(), 15_000);
        let mut next = 0;
        for run in runs {
            assert_eq!(run.position.event, next);
            assert_eq!(run.batch.get(0).body(), next.to_string().as_bytes());
            next = run.end();
        }
        assert_eq!(next, 3000);
    }
}
