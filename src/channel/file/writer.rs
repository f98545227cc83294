//! The thread that writes: puts, what is done, checkpoints.
//!
//! All puts that wait are written behind each other and made durable with one sync; while it runs, the next ones gather.
//! What is done goes along with them, or on its own when no puts come.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::checkpoint::{Checkpoint, Listed, Position};
use super::config::FileConfig;
use super::encryption::{Seal, unseal};
use super::record::{Draft, Kind};
use super::segment::{self, Found, Scanner, Segment};
use super::state::{Phase, Request, State, Unlogged, Waits, Written};
use super::{Directories, Shared, first_success};
use crate::channel::Note;
use crate::fs::{File, FileId, in_directory, naming};

/// How long what is known of the free space holds.
const SPACE_HOLDS: Duration = Duration::from_secs(1);
/// Bytes that may wait for a sync when not each put is synced: so much is read back when it fails.
const MAX_UNSYNCED: u64 = 32 << 20;

/// The segment that is being written.
struct Active {
    number: u64,
    /// The number of the first event that can be in it.
    first: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    id: FileId,
    seal: Option<Arc<Seal>>,
    /// Where the first group went.
    start: u64,
    /// Where the next record goes.
    len: u64,
    /// Up to here it is durable: bytes, and the number of the event that comes next.
    synced: (u64, u64),
    /// When the first byte after that was written.
    unsynced_since: Instant,
    /// Whether its name is known to be gone.
    gone: bool,
}

impl Active {
    /// Nothing of it is durable any more, as its name is gone.
    fn distrust_all(&mut self) {
        self.synced = (self.start, self.first);
        self.gone = true;
    }
}

/// A segment whose end is not known to be durable, and is written anew.
struct Abandoned {
    number: u64,
    file: Arc<dyn File>,
    seal: Option<Arc<Seal>>,
    synced: (u64, u64),
    len: u64,
    gone: bool,
}

fn is_gone(segment: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} is gone: {error}", segment.display()))
}

fn directory_of(segment: &Path) -> &Path {
    segment.parent().unwrap_or(Path::new("."))
}

struct Space {
    asked: Instant,
    left: u64,
}

/// Writes for one channel.
pub struct Writer {
    shared: Arc<Shared>,
    config: FileConfig,
    active: Option<Active>,
    abandoned: Option<Abandoned>,
    next_segment: u64,
    next_event: u64,
    space: Option<Space>,
    /// The length of the put that was tried last.
    wanted: u64,
    /// Whether the last checkpoint asks for a segment that is gone and was written anew.
    asks_in_vain: bool,
    /// Whether anything changed since the last checkpoint.
    dirty: bool,
    checkpointed: Instant,
    /// When to try again to write.
    retry: Instant,
}

/// Puts that could not be written, and why.
struct Failure {
    error: io::Error,
    group: Vec<Request>,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { error, group: Vec::new() }
    }
}

/// What woke the writer.
struct Work {
    requests: VecDeque<Request>,
    done: Unlogged,
    stopping: bool,
}

impl Writer {
    /// Goes on behind what was opened.
    pub fn new(shared: &Arc<Shared>, next_segment: u64, next_event: u64) -> Self {
        let now = Instant::now();
        Self {
            shared: Arc::clone(shared),
            config: shared.config(),
            active: None,
            abandoned: None,
            next_segment,
            next_event,
            space: None,
            wanted: 1,
            asks_in_vain: false,
            dirty: next_event > 0,
            checkpointed: now,
            retry: now,
        }
    }

    /// Writes until the channel stops.
    pub fn run(mut self) {
        loop {
            let Work { requests, mut done, stopping } = self.wait();
            self.config = self.shared.config();
            if self.is_ailing() && (stopping || Instant::now() >= self.retry) && self.recover() {
                // What could not be logged goes before what was put since.
                done.append(std::mem::take(&mut self.shared.state().unlogged));
            }
            self.write(requests, done);
            if stopping {
                break;
            }
            if self.sync_due().is_some_and(|due| due <= Instant::now()) {
                self.sync();
            }
            let moved = self.shared.state().moved;
            if self.checkpoint_due(moved).is_some_and(|due| due <= Instant::now()) {
                self.checkpoint();
            }
        }
        self.sync();
        if self.is_ailing() {
            self.recover();
        }
        if self.config.checkpoint_on_close {
            self.checkpoint();
        }
    }

    fn is_ailing(&self) -> bool {
        self.shared.state().ailment.is_some()
    }

    /// Waits for work or the time to do something.
    fn wait(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let mut linger: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let stopping = state.phase == Phase::Stopped;
            let ailing = state.ailment.is_some();
            self.dirty |= !state.unlogged.is_empty();
            if !state.unlogged.is_empty() && !ailing {
                linger.get_or_insert(now + self.shared.tuning.linger);
            }
            let timers = [linger, self.sync_due(), self.checkpoint_due(state.moved), ailing.then_some(self.retry)];
            let due = timers.into_iter().flatten().min();
            let reconfigured = std::mem::take(&mut state.reconfigured);
            if stopping || reconfigured || !state.inbox.is_empty() || due.is_some_and(|due| due <= now) {
                let requests = std::mem::take(&mut state.inbox).into();
                let done = if ailing { Unlogged::default() } else { std::mem::take(&mut state.unlogged) };
                return Work { requests, done, stopping };
            }
            state.writer = if state.unlogged.is_empty() { Waits::ForAnything } else { Waits::ForPuts };
            let wait = due.map_or(Duration::MAX, |due| due - now);
            let waited = match due {
                Some(_) => shared.to_write.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => shared.to_write.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state = waited;
            state.writer = Waits::No;
        }
    }

    /// When what was written must be durable.
    fn sync_due(&self) -> Option<Instant> {
        let active = self.active.as_ref().filter(|active| active.len > active.synced.0)?;
        let interval = match self.config.fsync_interval {
            Some(interval) => interval,
            // Acknowledged before each put was to be synced.
            None if active.synced.1 < self.next_event => Duration::ZERO,
            None => return None,
        };
        let much = active.len - active.synced.0 >= MAX_UNSYNCED;
        Some(if much { active.unsynced_since } else { active.unsynced_since + interval })
    }

    /// When a checkpoint must be written, after so many bytes went in and out.
    fn checkpoint_due(&self, moved: u64) -> Option<Instant> {
        let much = moved >= self.shared.tuning.checkpoint_bytes;
        let wait = if much { Duration::ZERO } else { self.config.checkpoint_interval };
        self.dirty.then(|| self.checkpointed + wait)
    }

    /// Writes all puts that were asked for, in as many groups as there are segments for them.
    fn write(&mut self, mut requests: VecDeque<Request>, done: Unlogged) {
        let mut done = Some(done).filter(|done| !done.is_empty());
        // What nobody waits for any more must not be taken back behind what its source has put since.
        requests.retain(|request| !request.reply.is_closed());
        while !requests.is_empty() || done.is_some() {
            let ailment = self.shared.state().ailment.clone();
            if let Some(ailment) = ailment {
                if let Some(done) = done.take() {
                    self.log_later(done);
                }
                for request in requests.drain(..) {
                    request.reply.send(Err(ailment.clone())).ok();
                }
                return;
            }
            if let Err(Failure { error, group }) = self.write_group(&mut requests, &mut done) {
                // Before anybody hears of it, so that whoever tries again waits.
                self.fail(&error);
                self.refuse(group, &error);
            }
        }
    }

    fn log_later(&self, done: Unlogged) {
        let mut state = self.shared.state();
        let later = std::mem::replace(&mut state.unlogged, done);
        state.unlogged.append(later);
    }

    /// Refuses puts until it works again.
    fn fail(&mut self, error: &io::Error) {
        let ailment = self.shared.put_failed(error);
        error!("{ailment}; puts are refused until it works again");
        self.space = None;
        self.retry = Instant::now() + self.shared.tuning.retry;
        self.shared.change(|state| state.ailment = Some(ailment));
    }

    /// Writes what fits into the segment, and what is done before it. After an error what is done, and the puts whose
    /// turn did not come, are still there.
    fn write_group(&mut self, requests: &mut VecDeque<Request>, done: &mut Option<Unlogged>) -> Result<(), Failure> {
        let puts = requests.front().map_or(0, |request| request.draft.len());
        if puts > 0 {
            self.wanted = puts;
        }
        self.ensure_space(puts)?;
        let mut done_draft = done.as_ref().map(|done| Draft::done(done.done.iter(), &done.notes));
        let seal = self.config.keys.active().map_or(0, |(alias, _)| Seal::record_len(alias));
        let lead = seal + done_draft.as_ref().map_or(0, Draft::len);
        let mut active = match self.active.take() {
            Some(active) if active.len == active.start || active.len + lead + puts <= self.config.max_file_size => {
                active
            }
            full => {
                self.active = full;
                self.seal()?;
                self.create(self.next_event, puts)?
            }
        };
        // A segment knows what was noted before it, as those before it go.
        if active.len == active.start {
            let mut state = self.shared.state();
            let notes = state.notes.list();
            if !notes.is_empty() {
                // What was given up since is not in the notes any more, so it must be done here, too.
                let done = done.get_or_insert_default();
                done.append(std::mem::take(&mut state.unlogged));
                done_draft = Some(Draft::done(done.done.iter(), &[&*done.notes, &*notes].concat()));
            }
        }
        // What takes notes back is durable before the puts that go on behind them, or a crash could leave those alone.
        let takes_back = done.as_ref().is_some_and(|done| !done.notes.is_empty());
        // Chosen before anything is written.
        let mut len = active.len + seal + done_draft.as_ref().map_or(0, Draft::len);
        let mut group: Vec<Request> = Vec::with_capacity(requests.len());
        while !takes_back
            && let Some(request) = requests.front()
            && (group.is_empty() || len + request.draft.len() <= self.config.max_file_size)
        {
            len += request.draft.len();
            group.extend(requests.pop_front());
        }
        let mut places = Vec::with_capacity(group.len());
        let (mut offset, mut event) = (active.len, self.next_event);
        {
            let mut pieces = Vec::with_capacity(group.len() + 2);
            let seal = active.seal.as_deref();
            let mut seal_draft = seal.map(Seal::record);
            for draft in seal_draft.iter_mut().chain(&mut done_draft) {
                let len = draft.len();
                pieces.push(IoSlice::new(draft.seal(0, active.number, offset, None)));
                offset += len;
            }
            for Request { draft, .. } in &mut group {
                let position = Position { event, segment: active.number, offset };
                offset += draft.len();
                event += u64::from(draft.events());
                places.push(Written { position, end: event, bytes: draft.len() as usize });
                pieces.push(IoSlice::new(draft.seal(position.event, active.number, position.offset, seal)));
            }
            if let Err(error) = active.file.write_at(&pieces, active.len) {
                drop(pieces);
                let cut = active.file.set_len(active.len).and_then(|()| active.file.sync());
                // None of the numbers was given out, so they are free unless a record of them may be left behind.
                match cut {
                    // What is encrypted is not written twice to one place: the two would tell what they are.
                    Ok(()) if active.seal.is_none() => self.active = Some(active),
                    _ => {
                        self.burn(event, &group);
                        self.abandon(active, offset);
                    }
                }
                return Err(Failure { error, group });
            }
        }
        if active.len == active.synced.0 {
            active.unsynced_since = Instant::now();
        }
        let bytes = offset - active.len;
        active.len = offset;
        self.dirty = true;
        if let Some(space) = &mut self.space {
            space.left = space.left.saturating_sub(bytes);
        }
        if (takes_back || (!group.is_empty() && self.config.fsync_interval.is_none()))
            && let Err(error) = self.make_durable(&mut active, event)
        {
            self.burn(event, &group);
            self.abandon(active, offset);
            return Err(Failure { error, group });
        }
        *done = None;
        self.next_event = event;
        self.publish(active.number, offset, event, bytes, group.iter().zip(&places));
        self.active = Some(active);
        for (request, written) in group.into_iter().zip(places) {
            if request.reply.send(Ok(written)).is_err() {
                self.shared.give_up(&written);
            }
        }
        Ok(())
    }

    /// Lets everybody know what can be read.
    fn publish<'a>(
        &self,
        segment: u64,
        len: u64,
        event: u64,
        bytes: u64,
        puts: impl Iterator<Item = (&'a Request, &'a Written)>,
    ) {
        let mut state = self.shared.state();
        state.moved += bytes;
        if let Some(segment) = state.segments.get_mut(&segment) {
            segment.len = len;
            segment.end = event;
        }
        state.written = event;
        for (request, written) in puts {
            state.add_pending(written, request.notes.as_deref());
        }
    }

    /// Marks the numbers up to `event` as done that are not to be used again, as their records may or may not be there.
    fn burn(&mut self, event: u64, group: &[Request]) {
        let mut state = self.shared.state();
        state.finish(self.next_event, event);
        for notes in group.iter().filter_map(|request| request.notes.as_deref()) {
            state.take_back(notes);
        }
        state.written = event;
        self.next_event = event;
    }

    fn refuse(&self, group: Vec<Request>, error: &io::Error) {
        for request in group {
            request.reply.send(Err(self.shared.put_failed(error))).ok();
        }
    }

    fn abandon(&mut self, active: Active, len: u64) {
        let Active { number, file, seal, synced, gone, .. } = active;
        warn!(
            "The end of segment {number} is not known to be durable and is written anew [channel={}]",
            self.shared.name
        );
        self.abandoned = Some(Abandoned { number, file, seal, synced, len, gone });
    }

    /// Looks whether there is room on the disk; otherwise goes on in another segment, where there is.
    fn ensure_space(&mut self, bytes: u64) -> io::Result<()> {
        let Some(active) = self.active.as_ref().filter(|_| bytes > 0) else { return Ok(()) };
        let required = self.config.minimum_required_space + bytes;
        let known =
            self.space.as_ref().is_some_and(|space| space.asked.elapsed() < SPACE_HOLDS && space.left >= required);
        if known {
            return Ok(());
        }
        let left = match self.shared.fs.free_space(directory_of(&active.path)) {
            Ok(left) => left,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let gone = is_gone(&active.path, &error);
                if let Some(mut active) = self.active.take() {
                    active.distrust_all();
                    let len = active.len;
                    self.abandon(active, len);
                }
                return Err(gone);
            }
            // What was written is not the worse for it.
            Err(_) => 0,
        };
        self.space = Some(Space { asked: Instant::now(), left });
        if left >= required {
            return Ok(());
        }
        self.find_space(bytes)?;
        self.seal()
    }

    /// Looks whether any data directory has room.
    fn find_space(&self, bytes: u64) -> io::Result<()> {
        self.shared.roomy_directory(self.next_segment, self.required(bytes)).map(drop)
    }

    /// What must be free so that so many bytes can be written.
    fn required(&self, bytes: u64) -> u64 {
        if bytes == 0 { 0 } else { self.config.minimum_required_space + bytes }
    }

    /// Begins a segment in the data directory whose turn it is, or the next one where that works.
    fn create(&mut self, first: u64, bytes: u64) -> io::Result<Active> {
        let shared = Arc::clone(&self.shared);
        let required = self.required(bytes);
        let active = first_success(shared.in_turn(self.next_segment).map(|directory| {
            shared.check_space(directory, required)?;
            self.create_in(directory, first)
        }))?;
        self.next_segment += 1;
        self.space = None;
        let (path, seal) = (active.path.clone(), active.seal.clone());
        let listed = Segment { path, first, end: first, len: active.start, seal };
        shared.state().segments.insert(active.number, listed);
        Ok(active)
    }

    /// Makes the file of a segment. One of the same number is there only when an earlier attempt failed.
    fn create_in(&self, directory: &Path, first: u64) -> io::Result<Active> {
        let number = self.next_segment;
        let path = directory.join(segment::file_name(number));
        let file = self.shared.fs.create(&path).map_err(naming(&path))?;
        let seal = Seal::new(&self.config.keys)?;
        let beginning = segment::beginning(number, first, seal.as_deref());
        let begun = file.write_at(&[IoSlice::new(&beginning)], 0).and_then(|()| file.sync());
        match begun.and_then(|()| self.shared.fs.sync_directory(directory)).and_then(|()| file.id()) {
            Ok(id) => {
                let start = beginning.len() as u64;
                let (len, synced, unsynced_since) = (start, (start, first), Instant::now());
                Ok(Active { number, first, path, file, id, seal, start, len, synced, unsynced_since, gone: false })
            }
            Err(error) => {
                self.shared.fs.remove(&path).ok();
                Err(naming(&path)(error))
            }
        }
    }

    /// Ends the segment; the next group begins another.
    fn seal(&mut self) -> io::Result<()> {
        self.sync_active()?;
        self.active = None;
        Ok(())
    }

    /// Makes all that was written durable; gives the segment up when that fails.
    fn sync_active(&mut self) -> io::Result<()> {
        let Some(mut active) = self.active.take_if(|active| active.len > active.synced.0) else { return Ok(()) };
        let outcome = self.make_durable(&mut active, self.next_event);
        match outcome {
            Ok(()) => self.active = Some(active),
            Err(_) => {
                let len = active.len;
                self.abandon(active, len);
            }
        }
        outcome
    }

    /// Makes a segment durable, with all before the event `next`, under the name by which it will be looked for.
    fn make_durable(&self, active: &mut Active, next: u64) -> io::Result<()> {
        active.file.sync()?;
        let error = match self.shared.fs.id(&active.path) {
            Ok(id) if id == active.id => {
                active.synced = (active.len, next);
                return Ok(());
            }
            Ok(_) => io::Error::other(format!("another file is in the place of {}", active.path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => is_gone(&active.path, &error),
            // What was durable before still is.
            Err(error) => return Err(naming(&active.path)(error)),
        };
        // Somebody has removed it, or the directory: nothing of it would be found again.
        active.distrust_all();
        Err(error)
    }

    fn sync(&mut self) {
        if let Err(error) = self.sync_active() {
            self.fail(&error);
        }
    }

    /// Looks whether it works again.
    fn recover(&mut self) -> bool {
        let recovered = match &self.abandoned {
            Some(_) => self.write_anew(),
            None if self.active.is_some() => self.find_space(self.wanted),
            None => self.create(self.next_event, self.wanted).map(|active| self.active = Some(active)),
        };
        match recovered.and_then(|()| if self.asks_in_vain { self.write_checkpoint() } else { Ok(()) }) {
            Ok(()) => {
                info!("Puts are accepted again [channel={}]", self.shared.name);
                self.shared.change(|state| state.ailment = None);
                true
            }
            Err(error) => {
                self.retry = Instant::now() + self.shared.tuning.retry;
                let ailment = self.shared.put_failed(error);
                self.shared.change(|state| state.ailment = Some(ailment));
                false
            }
        }
    }

    /// Writes what an abandoned segment may not hold into a new one, and then forgets that end.
    fn write_anew(&mut self) -> io::Result<()> {
        let Some(Abandoned { number, file, seal, synced, len, gone }) = &self.abandoned else { return Ok(()) };
        let (number, file, seal, (synced_len, synced_event), gone) =
            (*number, Arc::clone(file), seal.clone(), *synced, *gone);
        let bytes = len - synced_len;
        let waiting = self.shared.state().done.count_missing(synced_event, self.next_event);
        // The file need not be readable when nothing of it is needed.
        let lost = (waiting > 0).then(|| Scanner::new(file, number, synced_len, *len));
        let share = u128::from(bytes) * u128::from(waiting) / u128::from((self.next_event - synced_event).max(1));
        let mut active = self.create(synced_event, (share as u64).max(self.wanted))?;
        let (done, notes, unlogged) = {
            let mut state = self.shared.state();
            let unlogged = std::mem::take(&mut state.unlogged);
            (Draft::done(state.done.iter(), &unlogged.notes), state.notes.list(), unlogged)
        };
        if let Err(error) = self.fill(&mut active, done, lost, seal.as_deref(), &notes) {
            self.log_later(unlogged);
            self.discard(&active);
            return Err(error);
        }
        {
            let mut state = self.shared.state();
            if let Some(old) = state.segments.get_mut(&number) {
                (old.len, old.end) = (synced_len, synced_event);
            }
            if let Some(new) = state.segments.get_mut(&active.number) {
                (new.len, new.end) = (active.len, self.next_event);
            }
        }
        self.active = Some(active);
        self.abandoned = None;
        self.asks_in_vain |= gone;
        self.dirty = true;
        Ok(())
    }

    /// Writes what is done, of another segment the puts that are still needed, and what was noted by all of them; each is
    /// durable before the next.
    fn fill(
        &self,
        active: &mut Active,
        done: Draft,
        lost: Option<Scanner>,
        seal: Option<&Seal>,
        notes: &[Note],
    ) -> io::Result<()> {
        let write = |active: &mut Active, first, mut draft: Draft| {
            let record = draft.seal(first, active.number, active.len, active.seal.as_deref());
            active.file.write_at(&[IoSlice::new(record)], active.len)?;
            active.len += draft.len();
            io::Result::Ok(())
        };
        write(active, 0, done)?;
        self.make_durable(active, active.first)?;
        if let Some(mut lost) = lost {
            while let Some(found) = lost.next()? {
                let Found::Record { header, payload, at, .. } = found else { continue };
                let waits = || self.shared.state().done.count_missing(header.first, header.end()) > 0;
                if header.kind == Kind::Put
                    && waits()
                    && let Some(payload) = unseal(seal, &header, at, payload)
                {
                    write(active, header.first, Draft::again(&header, &payload))?;
                }
            }
            self.make_durable(active, self.next_event)?;
        }
        if !notes.is_empty() {
            write(active, 0, Draft::done([], notes))?;
        }
        self.make_durable(active, self.next_event)
    }

    /// Takes back a segment that could not be filled. Its number is used again only when its file is known to be empty.
    fn discard(&mut self, active: &Active) {
        if active.file.set_len(active.start).and_then(|()| active.file.sync()).is_ok() {
            // What is left of it looks like a segment that was never used.
            self.shared.fs.remove(&active.path).ok();
            self.shared.state().segments.remove(&active.number);
            self.next_segment = active.number;
        }
    }

    /// Notes what the channel is now, and removes the segments that are not needed any more.
    fn checkpoint(&mut self) {
        self.checkpointed = Instant::now();
        self.shared.state().moved = 0;
        self.sync();
        if let Err(error) = self.write_checkpoint() {
            error!("Could not write the checkpoint: {error} [channel={}]", self.shared.name);
        }
    }

    /// The same without the sync. What is abandoned is not relied upon.
    fn write_checkpoint(&mut self) -> io::Result<()> {
        let (checkpoint, retired) = self.snapshot(&mut self.shared.state());
        if let Err(error) = self.replace_checkpoints(&checkpoint) {
            self.shared.state().segments.extend(retired);
            return Err(error);
        }
        self.dirty = false;
        self.asks_in_vain = false;
        for (_, segment) in retired {
            let path = segment.path.display();
            match self.shared.fs.remove(&segment.path) {
                Ok(()) => info!("All events of {path} are delivered, it is removed [channel={}]", self.shared.name),
                Err(error) => warn!("Could not remove {path}: {error}"),
            }
        }
        Ok(())
    }

    fn snapshot(&self, state: &mut State) -> (Checkpoint, Vec<(u64, Segment)>) {
        // What was noted stands in the one before until the last one has a record.
        let begun = self.active.as_ref().is_some_and(|active| active.len == active.start) && !state.notes.is_empty();
        let retired = state.retire(if begun { 2 } else { 1 });
        let listed = |(number, segment): (&u64, &Segment)| Listed {
            number: *number,
            first: segment.first,
            end: segment.end,
            len: segment.len,
        };
        let mut segments: Vec<Listed> = state.segments.iter().map(listed).collect();
        let tail = match &self.abandoned {
            Some(Abandoned { number, synced: (offset, event), len, .. }) => {
                // What is behind is looked for again, and the numbers are not used again; nor are its notes.
                if let Some(last) = segments.iter_mut().find(|listed| listed.number == *number) {
                    (last.len, last.end) = (*len, self.next_event);
                }
                Position { event: *event, segment: *number, offset: *offset }
            }
            None => {
                let (segment, offset) = segments.last().map_or((0, 0), |last| (last.number, last.len));
                Position { event: self.next_event, segment, offset }
            }
        };
        let (head, done, notes) = (state.head(), state.done.clone(), state.notes.clone());
        (Checkpoint { tail, head, done, segments, notes }, retired)
    }

    /// Replaces the checkpoint and its copy. Without the copy the channel goes on as if none were configured.
    fn replace_checkpoints(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let fs = &*self.shared.fs;
        let replace = |directory: &Path| in_directory(fs, directory, || checkpoint.write(fs, directory));
        let Directories { checkpoint: directory, backup, .. } = &self.shared.directories;
        replace(directory)?;
        if let Some(Err(error)) = backup.as_deref().map(replace) {
            warn!(
                "Could not write the copy of the checkpoint: {error}; the channel goes on without one [channel={}]",
                self.shared.name
            );
        }
        Ok(())
    }
}
