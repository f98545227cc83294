//! From Flume's logs to the places of the events that wait.
//!
//! What the checkpoint says is the beginning; the records behind it follow in the order of their numbers, over all logs.
//! Only places are kept, eight bytes an event.

use std::collections::{HashMap, HashSet};
use std::io;

use tracing::{info, warn};

use super::Takeover;
use super::checkpoint::Checkpoint;
use super::log::{Action, Found, Log, Pointer, Reader, Record};
use crate::channel::file::segment::Place;

/// How many records are read between two looks at the clock.
const PAUSE: u64 = 4096;

/// The events that wait, in order. What is taken out is remembered and removed in sweeps, as finding it each time
/// would take an index of the whole queue.
#[derive(Default)]
struct Queue {
    events: Vec<Pointer>,
    /// Some of these may be of puts that are still to come: two data directories are not written in step.
    taken: HashSet<Pointer>,
    /// How many are taken before the next sweep.
    limit: usize,
}

impl Queue {
    const LEAST: usize = 1 << 16;

    fn take(&mut self, pointer: Pointer) {
        self.taken.insert(pointer);
        if self.taken.len() >= self.limit {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        self.events.retain(|pointer| !self.taken.remove(pointer));
        self.limit = self.taken.len() + Self::LEAST.max(self.events.len() / 2);
    }
}

/// A transaction that is open.
#[derive(Default)]
struct Transaction {
    pointers: Vec<Pointer>,
    /// Whether it had puts, as far as is known.
    puts: bool,
    /// Whether its end may have stood in damaged bytes.
    doubtful: bool,
}

#[derive(Default)]
struct Replay {
    queue: Queue,
    open: HashMap<i64, Transaction>,
    /// Events that are not in the queue as they had been taken when the checkpoint was written.
    takes: HashMap<i64, Vec<Pointer>>,
    /// Records up to this one are in the checkpoint.
    checkpoint: i64,
}

impl Replay {
    fn from(checkpoint: Checkpoint) -> Self {
        let transaction = |pointers| Transaction { pointers, puts: true, doubtful: false };
        Self {
            queue: Queue { events: checkpoint.queue, ..Queue::default() },
            open: checkpoint.puts.into_iter().map(|(number, pointers)| (number, transaction(pointers))).collect(),
            takes: checkpoint.takes.into_iter().collect(),
            checkpoint: checkpoint.order,
        }
    }

    fn apply(&mut self, place: Pointer, record: Record) {
        let Record { order, transaction, action } = record;
        if order <= self.checkpoint {
            return;
        }
        match action {
            Action::Put => {
                let open = self.open.entry(transaction).or_default();
                open.puts = true;
                open.pointers.push(place);
            }
            Action::Take(pointer) => self.open.entry(transaction).or_default().pointers.push(pointer),
            Action::RollBack => drop(self.open.remove(&transaction)),
            Action::CommitPuts => match self.open.remove(&transaction) {
                Some(committed) => self.queue.events.extend(committed.pointers),
                // Its number may be damaged, and it another one's.
                None => self.doubt(),
            },
            Action::CommitTakes => {
                let committed = self.open.remove(&transaction).unwrap_or_default();
                let earlier = self.takes.remove(&transaction).unwrap_or_default();
                for pointer in committed.pointers.into_iter().chain(earlier) {
                    self.queue.take(pointer);
                }
            }
        }
    }

    /// Notes damage, which may have hit the end of any transaction that is open.
    fn doubt(&mut self) {
        self.open.values_mut().for_each(|transaction| transaction.doubtful = true);
    }

    /// The events that wait. Takes that were never committed did not happen; so did puts, unless what was acknowledged
    /// may be among them.
    fn finish(mut self) -> (Vec<Pointer>, usize) {
        let doubtful = |transaction: &&Transaction| transaction.puts && transaction.doubtful;
        let mut saved: Vec<Pointer> =
            self.open.values().filter(doubtful).flat_map(|transaction| &transaction.pointers).copied().collect();
        saved.sort_unstable();
        let count = saved.len();
        self.queue.events.extend(saved);
        self.queue.sweep();
        let mut events: Vec<Pointer> = self.takes.into_values().flatten().collect();
        events.sort_unstable();
        events.append(&mut self.queue.events);
        (events, count)
    }
}

/// A log that is being read, and its next record.
struct Source<'a> {
    log: &'a Log,
    reader: Reader,
    at: u64,
    record: Record,
}

/// The places of the events that wait, in their order, or why they cannot be told.
pub fn run(takeover: &mut Takeover<'_>, logs: &[Log]) -> Result<Vec<Pointer>, String> {
    let mut replay = Replay::from(takeover.checkpoint()?);
    // From the last to the first, as the first is opened first, once it is its turn: Flume may have left a thousand.
    let mut waiting = Vec::with_capacity(logs.len());
    let mut bytes = 0;
    for log in logs {
        let mut reader = takeover.open(log, replay.checkpoint)?;
        bytes += reader.end().saturating_sub(reader.at());
        waiting.push((first_order(takeover, log, &mut reader)?, log));
    }
    waiting.sort_unstable_by_key(|(order, log)| std::cmp::Reverse((*order, log.number)));
    info!("Replaying {} MB of Flume's logs [channel={}]", bytes >> 20, takeover.channel());
    let mut sources: Vec<Source<'_>> = Vec::new();
    let (mut records, mut read) = (0u64, 0);
    loop {
        let least = sources.iter().map(|source| source.record.order).min();
        while let Some((_, log)) = waiting.pop_if(|(order, _)| least.is_none_or(|least| *order <= least)) {
            let reader = takeover.open(log, replay.checkpoint)?;
            sources.extend(advance(takeover, &mut replay, log, reader, &mut read)?);
            if least.is_none() {
                break;
            }
        }
        let next = sources.iter().enumerate().min_by_key(|(_, source)| source.record).map(|(index, _)| index);
        let Some(next) = next else {
            if waiting.is_empty() {
                break;
            }
            continue;
        };
        let Source { log, reader, at, record } = sources.swap_remove(next);
        replay.apply(Pointer::new(log.number, at as u32), record);
        sources.extend(advance(takeover, &mut replay, log, reader, &mut read)?);
        records += 1;
        if records.is_multiple_of(PAUSE) {
            takeover.pause(|| format!("{} of {} MB of Flume's logs are replayed", read >> 20, bytes >> 20))?;
        }
    }
    let (events, saved) = replay.finish();
    if saved > 0 {
        let name = takeover.channel();
        warn!("{saved} events are kept whose commit may have stood in damaged bytes [channel={name}]");
    }
    Ok(events)
}

/// The number of a log's first record; the least there is, for a log with none.
fn first_order(takeover: &Takeover<'_>, log: &Log, reader: &mut Reader) -> Result<i64, String> {
    while let Some(found) = reader.read_next().map_err(|error| unreadable(log, &error))? {
        if let Found::Record { record, .. } = found {
            return Ok(record.order);
        }
        takeover.check_stop()?;
    }
    Ok(i64::MIN)
}

/// Goes on to a log's next record and tells of the damage before it.
fn advance<'a>(
    takeover: &mut Takeover<'_>,
    replay: &mut Replay,
    log: &'a Log,
    mut reader: Reader,
    read: &mut u64,
) -> Result<Option<Source<'a>>, String> {
    let start = reader.at();
    let source = loop {
        match reader.read_next().map_err(|error| unreadable(log, &error))? {
            None => break None,
            Some(Found::Record { at, record }) => break Some((at, record)),
            Some(Found::Damage { from, to }) => {
                takeover.damaged(&Place(&log.path, from, to));
                replay.doubt();
            }
        }
    };
    *read += reader.at() - start;
    Ok(source.map(|(at, record)| Source { log, reader, at, record }))
}

/// Why a log cannot be read.
pub fn unreadable(log: &Log, error: &io::Error) -> String {
    format!("Could not read {}: {error}", log.path.display())
}
