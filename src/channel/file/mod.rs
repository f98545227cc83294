//! The file channel: a bounded queue of events on disk. What was put into it survives the process and the machine.
//!
//! A put is acknowledged when it is durable. Its record is made by whoever puts; one thread writes all records that
//! wait, one behind the other, and makes them durable with one sync (`writer`). Events are taken from memory; those
//! for which there was no room are read back in large pieces by another thread (`reader`). Takes are logged behind the
//! events, without waiting for them: after a crash the last ones may be delivered again.
//!
//! A put that was made durable for one channel, and then given up because another one refused, is marked as done. When
//! the process ends before the mark is written, it is delivered: what was never acknowledged may appear after a crash,
//! and what was acknowledged is never lost.
//!
//! With a put there may be notes of how far its source has come (`notes`): they are durable when its events are, and taken
//! back when it is given up.
//!
//! On disk there are segments (`segment`) of records (`record`), and a checkpoint (`checkpoint`) that says which events are
//! done and where the first of the others stands, so that opening (`open`) reads only what came after it.
//!
//! The events of a directory that Apache Flume left behind are imported when the channel opens (`takeover`). Puts are
//! encrypted when keys are configured (`encryption`). Others may look into the files beside an agent (`image`), and mend
//! them when nobody uses them (`repair`).
//!
//! When a write or a sync fails, puts are refused until it works again; what was not known to be durable is written
//! anew, into another segment.

mod checkpoint;
mod config;
mod encryption;
#[cfg(test)]
mod exactly_once;
mod identity;
mod image;
mod lock;
mod notes;
mod open;
mod ranges;
mod reader;
mod record;
mod repair;
mod segment;
mod state;
mod takeover;
#[cfg(test)]
mod tests;
mod window;
mod writer;

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore, oneshot};

pub use checkpoint::FILE as CHECKPOINT_FILE;
pub use config::{Directories, FileConfig};
pub use image::{CheckpointState, Damage, Examination, Image, Missing, Piece, Walk};
pub use lock::{FILE as LOCK_FILE, Holder, holder};
pub(crate) use ranges::Ranges;
pub use repair::{Repair, RepairError, Step};
pub use segment::number_of as segment_number;
pub use takeover::log as flume_log;

use self::record::Draft;
use self::state::{Held, Phase, Request, State, Waits, Written};
use super::room::{Room, within};
use super::{
    Channel, ChannelBuilder, ChannelError, Note, Numbers, Patience, Put, PutTransaction, Take, TakeTransaction,
};
use crate::config::ComponentType;
use crate::event::Batch;
use crate::fs::{FileSystem, in_directory};
use crate::metrics::{ChannelCounters, Ledger, Metrics};

/// How the type is registered.
pub const TYPE: ComponentType<ChannelBuilder> = ComponentType {
    aliases: &["file"],
    class: "org.apache.flume.channel.file.FileChannel",
    build: |props| Some(Box::new(FileConfig::from_props(props)?)),
};

/// What nobody needs to configure.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How long takes alone may wait to be logged.
    linger: Duration,
    /// How often it is tried to open or to write again.
    retry: Duration,
    /// After how many bytes written or read a checkpoint is due before its time.
    checkpoint_bytes: u64,
    /// How many bytes of records are read at once, unless one has more.
    piece_bytes: u64,
    /// The most bytes of records that wait to be written; further puts wait until there are fewer.
    in_flight_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(10),
            retry: Duration::from_secs(1),
            checkpoint_bytes: 32 << 20,
            piece_bytes: 1 << 20,
            in_flight_bytes: 64 << 20,
        }
    }
}

/// A file channel.
pub struct FileChannel(Arc<Shared>);

/// What the channel and its threads share.
struct Shared {
    name: String,
    fs: Arc<dyn FileSystem>,
    directories: Directories,
    tuning: Tuning,
    counters: Arc<ChannelCounters>,
    ledger: Arc<Ledger>,
    room: Room,
    in_flight: Arc<Semaphore>,
    config: Mutex<FileConfig>,
    transaction_capacity: AtomicUsize,
    keep_alive_ms: AtomicU64,
    state: Mutex<State>,
    /// Wakes the writer.
    to_write: Condvar,
    /// Wakes the reader.
    to_read: Condvar,
    /// Wakes one sink when there is something to take.
    filled: Notify,
    /// Wakes those who wait for the channel to be drained.
    emptied: Notify,
    /// Wakes all who wait for the channel to open, to recover or to stop.
    changed: Notify,
    /// What its events' numbers belong to; known once it is open.
    identity: OnceLock<Arc<str>>,
    /// Gives the thread's end, when it has one.
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> FileConfig {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether puts work at this moment.
    fn check(&self, state: &State) -> Result<(), ChannelError> {
        match (&state.phase, &state.ailment) {
            (Phase::Open, None) => Ok(()),
            (Phase::Open, Some(ailment)) => Err(ailment.clone()),
            (Phase::Closed(why), _) => Err(ChannelError::Closed { channel: self.name.clone(), why: why.clone() }),
            (Phase::Stopped, _) => Err(ChannelError::Stopped { channel: self.name.clone() }),
        }
    }

    fn full(&self) -> ChannelError {
        ChannelError::FileFull { channel: self.name.clone() }
    }

    fn put_failed(&self, cause: impl ToString) -> ChannelError {
        ChannelError::PutFailed { channel: self.name.clone(), cause: cause.to_string() }
    }

    /// How many places a batch needs, when a transaction may have so many.
    fn need(&self, batch: &Batch) -> Result<u32, ChannelError> {
        let capacity = self.transaction_capacity.load(Ordering::Relaxed);
        if batch.len() > capacity {
            return Err(ChannelError::FileTransactionTooLarge { capacity, channel: self.name.clone() });
        }
        Ok(batch.len() as u32)
    }

    fn wake_writer(&self, state: &State, for_puts: bool) {
        if state.writer == Waits::ForAnything || (for_puts && state.writer == Waits::ForPuts) {
            self.to_write.notify_one();
        }
    }

    fn wake_reader(&self, state: &State) {
        if state.reader_waits && state.wants_reading() {
            self.to_read.notify_one();
        }
    }

    /// Changes the phase or the ailment and tells everybody.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.to_write.notify_one();
        self.to_read.notify_one();
        self.changed.notify_waiters();
        self.filled.notify_waiters();
    }

    /// Waits until puts work.
    async fn healthy(&self) -> Result<(), ChannelError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.check(&self.state()) {
                Err(error) if error.is_transient() => {}
                other => return other,
            }
            changed.await;
        }
    }

    /// Removes events for good that cannot be read any more.
    fn lose(&self, state: &mut State, from: u64, to: u64) -> u64 {
        let lost = state.done.count_missing(from, to);
        if lost > 0 {
            state.finish(from, to);
            self.counters.size.sub(lost);
            self.counters.lost.add(lost);
            self.room.give_back(lost as usize);
        }
        lost
    }

    /// The data directories, the one whose turn it is with this segment first.
    fn in_turn(&self, segment: u64) -> impl Iterator<Item = &PathBuf> {
        let data = &self.directories.data;
        let turn = (segment % data.len() as u64) as usize;
        data[turn..].iter().chain(&data[..turn])
    }

    /// The data directory whose turn it is with this segment, or the next one with so many bytes of room.
    fn roomy_directory(&self, segment: u64, required: u64) -> io::Result<&PathBuf> {
        first_success(self.in_turn(segment).map(|directory| self.check_space(directory, required).map(|()| directory)))
    }

    /// Looks whether a data directory, which is made again when it is gone, has so many bytes of room.
    fn check_space(&self, directory: &Path, required: u64) -> io::Result<()> {
        let left = in_directory(&*self.fs, directory, || self.fs.free_space(directory))?;
        if left < required {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("Usable space exhausted, only {left} bytes remaining, required {required} bytes"),
            ));
        }
        Ok(())
    }

    fn give_up(&self, written: &Written) {
        let mut state = self.state();
        state.give_up(written);
        self.wake_writer(&state, false);
    }
}

/// What works first; otherwise why the first one does not.
fn first_success<T>(mut attempts: impl Iterator<Item = io::Result<T>>) -> io::Result<T> {
    let first = attempts.next().unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
    first.or_else(|error| attempts.find_map(Result::ok).ok_or(error))
}

impl FileChannel {
    /// A channel that is not open yet.
    pub fn new(name: &str, config: FileConfig, tuning: Tuning, fs: Arc<dyn FileSystem>, metrics: &Metrics) -> Self {
        let counters = metrics.register(Arc::new(ChannelCounters::new(name)));
        counters.capacity.set(config.capacity as u64);
        Self(Arc::new(Shared {
            name: name.to_owned(),
            fs,
            directories: config.directories.clone(),
            tuning,
            counters,
            ledger: Arc::clone(&metrics.ledger),
            room: Room::new(config.capacity),
            in_flight: Arc::new(Semaphore::new(tuning.in_flight_bytes)),
            transaction_capacity: AtomicUsize::new(config.transaction_capacity),
            keep_alive_ms: AtomicU64::new(config.keep_alive.as_millis() as u64),
            state: Mutex::new(State::closed("it has not been started", config.memory_bytes, tuning.piece_bytes)),
            config: Mutex::new(config),
            to_write: Condvar::new(),
            to_read: Condvar::new(),
            filled: Notify::new(),
            emptied: Notify::new(),
            changed: Notify::new(),
            identity: OnceLock::new(),
            ended: Mutex::default(),
        }))
    }

    /// Waits until puts work.
    pub(super) async fn healthy(&self) -> Result<(), ChannelError> {
        self.0.healthy().await
    }

    /// Takes over another configuration; `false` when it is of another place or has other keys.
    pub(super) fn reconfigure(&self, new: &FileConfig) -> bool {
        let shared = &*self.0;
        let mut config = shared.config.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.directories != new.directories || config.keys != new.keys {
            return false;
        }
        shared.room.resize(config.capacity, new.capacity);
        shared.transaction_capacity.store(new.transaction_capacity.min(new.capacity), Ordering::Relaxed);
        shared.keep_alive_ms.store(new.keep_alive.as_millis() as u64, Ordering::Relaxed);
        shared.counters.capacity.set(new.capacity as u64);
        *config = new.clone();
        drop(config);
        shared.change(|state| {
            state.budget = new.memory_bytes;
            state.reconfigured = true;
        });
        true
    }
}

#[async_trait]
impl Channel for FileChannel {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn counters(&self) -> &Arc<ChannelCounters> {
        &self.0.counters
    }

    fn transaction_capacity(&self) -> usize {
        self.0.transaction_capacity.load(Ordering::Relaxed)
    }

    fn room(&self) -> usize {
        self.0.room.free()
    }

    fn in_memory(&self) -> u64 {
        0
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn keeps_notes(&self) -> bool {
        true
    }

    fn noted(&self, stream: u128) -> Option<u64> {
        self.0.state().noted(stream)
    }

    /// Opens it. When that does not work, it says why, and goes on trying.
    async fn start(&self) -> Result<(), ChannelError> {
        let (opened, first_attempt) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let shared = Arc::clone(&self.0);
        let run = move || {
            open::run(&shared, opened);
            // Nobody waits for a channel that is not stopped.
            end.send(()).ok();
        };
        let closed = |why: String| ChannelError::Closed { channel: self.0.name.clone(), why };
        let spawned = thread::Builder::new().name(format!("file-{}", self.0.name)).spawn(run);
        spawned.map_err(|error| closed(error.to_string()))?;
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        self.0.counters.started();
        first_attempt.await.unwrap_or_else(|_| Err("its thread has ended".to_owned())).map_err(closed)
    }

    async fn stop(&self) {
        self.0.change(|state| state.phase = Phase::Stopped);
        let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            // An error means that the thread is gone, too.
            ended.await.ok();
        }
        self.0.counters.stopped();
    }

    fn try_reserve(&self, batch: &Batch) -> Result<Put, ChannelError> {
        self.0.check(&self.0.state())?;
        let events = self.0.need(batch)?;
        if !self.0.room.try_take(events) {
            return Err(self.0.full());
        }
        Ok(Put::new(Reserved::new(&self.0, events)))
    }

    async fn reserve(&self, batch: &Batch, patience: Patience) -> Result<Put, ChannelError> {
        match self.try_reserve(batch) {
            Err(error) if error.is_transient() => {}
            other => return other,
        }
        let wait = async {
            loop {
                self.0.healthy().await?;
                let events = self.0.need(batch)?;
                self.0.room.take(events).await;
                let reserved = Reserved::new(&self.0, events);
                match self.0.check(&self.0.state()) {
                    Ok(()) => return Ok(Put::new(reserved)),
                    Err(error) if error.is_transient() => {}
                    Err(error) => return Err(error),
                }
            }
        };
        let limit = match patience {
            Patience::KeepAlive => Some(Duration::from_millis(self.0.keep_alive_ms.load(Ordering::Relaxed))),
            Patience::Endless => None,
        };
        let in_time = within(limit, wait).await;
        in_time.unwrap_or_else(|| Err(self.0.check(&self.0.state()).err().unwrap_or_else(|| self.0.full())))
    }

    async fn take(&self, max: usize) -> Result<Take, ChannelError> {
        let max = max.min(self.transaction_capacity()).max(1);
        loop {
            let filled = self.0.filled.notified();
            if let Some(taken) = Taken::new(&self.0, max)? {
                return Ok(Take::new(taken));
            }
            filled.await;
        }
    }

    async fn drained(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.0.emptied.notified());
            emptied.as_mut().enable();
            if self.0.state().is_drained() {
                return;
            }
            emptied.await;
        }
    }
}

/// Room that was taken, and goes back when it is not used; what was written for it is then given up.
struct Reserved {
    shared: Arc<Shared>,
    events: u32,
    notes: Option<Arc<[Note]>>,
    waiting: Option<oneshot::Receiver<Result<Written, ChannelError>>>,
    written: Option<Written>,
}

impl Reserved {
    fn new(shared: &Arc<Shared>, events: u32) -> Self {
        Self { shared: Arc::clone(shared), events, notes: None, waiting: None, written: None }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // A record that is not written yet is given up by the writer, once nobody waits for it.
        let late = self.waiting.take().and_then(|mut waiting| {
            waiting.close();
            waiting.try_recv().ok()?.ok()
        });
        if let Some(written) = self.written.take().or(late) {
            self.shared.give_up(&written);
        }
        self.shared.room.give_back(self.events as usize);
    }
}

#[async_trait]
impl PutTransaction for Reserved {
    fn note(&mut self, notes: &Arc<[Note]>) {
        self.notes = Some(Arc::clone(notes));
    }

    fn needs_prepare(&self) -> bool {
        true
    }

    async fn prepare(&mut self, batch: &Batch) -> Result<(), ChannelError> {
        let shared = Arc::clone(&self.shared);
        let notes = self.notes.as_deref().unwrap_or_default();
        let Some(most) = Draft::most(batch, notes.len()) else {
            return Err(ChannelError::RecordTooLarge { channel: shared.name.clone(), bytes: batch.body_bytes() });
        };
        let bytes = most.min(shared.tuning.in_flight_bytes) as u32;
        let stopped = || ChannelError::Stopped { channel: shared.name.clone() };
        let _in_flight = Arc::clone(&shared.in_flight).acquire_many_owned(bytes).await.map_err(|_| stopped())?;
        let draft = Draft::put_within(batch, notes, most);
        let (reply, waiting) = oneshot::channel();
        {
            let mut state = shared.state();
            shared.check(&state)?;
            state.inbox.push(Request { draft, notes: self.notes.take(), reply, _in_flight });
            shared.wake_writer(&state, true);
        }
        let written = self.waiting.insert(waiting).await;
        self.waiting = None;
        self.written = Some(written.unwrap_or_else(|_| Err(stopped()))?);
        Ok(())
    }

    fn commit(mut self: Box<Self>, batch: Batch) {
        let written = self.written.take().expect("a batch is prepared before it is committed");
        // The room is used now; it comes back when a sink commits.
        self.events = 0;
        let counters = &self.shared.counters;
        counters.put_success.add(batch.len() as u64);
        counters.size.add(batch.len() as u64);
        let mut state = self.shared.state();
        state.commit(written, batch);
        self.shared.wake_reader(&state);
        if state.is_ready() {
            self.shared.filled.notify_one();
        }
    }
}

struct Taken {
    shared: Arc<Shared>,
    batch: Batch,
    held: Vec<Held>,
}

impl Taken {
    fn new(shared: &Arc<Shared>, max: usize) -> Result<Option<Self>, ChannelError> {
        let mut state = shared.state();
        if state.phase == Phase::Stopped {
            return Err(ChannelError::Stopped { channel: shared.name.clone() });
        }
        let Some((batch, held)) = state.take(max) else { return Ok(None) };
        shared.counters.take_attempt.add(batch.len() as u64);
        if state.is_ready() {
            shared.filled.notify_one();
        }
        shared.wake_reader(&state);
        drop(state);
        Ok(Some(Self { shared: Arc::clone(shared), batch, held }))
    }
}

#[async_trait]
impl TakeTransaction for Taken {
    fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Where events can be taken before they are durable, another may get the number of one that a crash has lost.
    fn numbers(&self) -> Option<Numbers> {
        let durable = self.shared.config().fsync_interval.is_none();
        let channel = self.shared.identity.get().filter(|_| durable)?;
        Some(Numbers {
            channel: Arc::clone(channel),
            ranges: self.held.iter().map(|held| (held.from, held.to)).collect(),
        })
    }

    fn commit(&mut self) {
        let events = self.batch.len();
        self.shared.counters.take_success.add(events as u64);
        self.shared.counters.size.sub(events as u64);
        let drained = {
            let mut state = self.shared.state();
            state.taken -= events;
            for held in &self.held {
                state.finish(held.from, held.to);
            }
            self.shared.wake_writer(&state, false);
            state.is_drained()
        };
        self.shared.room.give_back(events);
        if drained {
            self.shared.emptied.notify_waiters();
        }
    }

    fn roll_back(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.shared.state().put_back(batch, &self.held);
        self.shared.filled.notify_one();
    }
}
