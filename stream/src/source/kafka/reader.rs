//! The thread that reads messages, so that they wait for the next batch and not the batch for them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flume_rs::kafka::Words;
use flume_rs::kafka::context::Voice;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{info, warn};

use super::rows::{Kept, Message, Rows};
use super::survey::{self, Partition, Topics};
use super::waiting::{CHUNK, CHUNK_BYTES, Waiting};

/// How long the reader waits for a message before it looks whether it is to stop.
const ASK: Duration = Duration::from_millis(100);

/// A consumer's share of a group has changed.
#[derive(Debug)]
enum Change {
    Assigned(Vec<Partition>),
    Revoked(Vec<Partition>),
}

/// What librdkafka tells a consumer.
pub struct Context {
    owner: String,
    voice: Voice,
    changes: Mutex<Vec<Change>>,
    changed: AtomicBool,
    commit_failed: AtomicBool,
}

impl Context {
    fn note(&self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
        self.changed.store(true, Ordering::Release);
    }

    /// Whether a commit has failed since this was last asked.
    pub fn take_commit_failed(&self) -> bool {
        self.commit_failed.swap(false, Ordering::AcqRel)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Not a fault, and answered by the reader.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            self.voice.error(error, reason);
        }
    }
}

impl ConsumerContext for Context {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let partitions = partitions(list);
                info!("{}: partitions assigned: {}", self.owner, names(&partitions));
                self.note(Change::Assigned(partitions));
            }
            Rebalance::Revoke(list) => {
                let partitions = partitions(list);
                info!("{}: partitions revoked: {}", self.owner, names(&partitions));
                self.note(Change::Revoked(partitions));
            }
            Rebalance::Error(error) => warn!("{}: partitions could not be shared out: {}", self.owner, Words(error)),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
        {
            self.commit_failed.store(true, Ordering::Release);
            warn!("{}: offsets could not be committed: {}", self.owner, Words(&error));
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|one| Partition { topic: one.topic().into(), number: one.partition() }).collect()
}

fn names(partitions: &[Partition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Makes a consumer for a source. It connects by itself and needs no broker to be there.
pub fn consumer(config: &ClientConfig, source: &str) -> Result<BaseConsumer<Context>, String> {
    let owner = format!("source {source}");
    let context = Context {
        voice: Voice::new(&owner, config),
        owner,
        changes: Mutex::default(),
        changed: AtomicBool::new(false),
        commit_failed: AtomicBool::new(false),
    };
    let failed = |error| format!("the Kafka consumer cannot be made: {}", Words(&error));
    config.create_with_context(context).map_err(failed)
}

/// A partition that is read.
#[derive(Clone, Debug)]
pub struct Track {
    /// Which.
    pub partition: Partition,
    /// The next offset; a member of a group need not know it.
    pub next: i64,
    /// Up to where there are messages, as far as is known.
    pub end: i64,
    /// Where to stop, if anywhere.
    pub until: Option<i64>,
}

/// Who says which partitions are read.
#[derive(Clone, Debug)]
pub enum Way {
    /// All of them, and new ones are looked for so often.
    All(Topics, Duration),
    /// Those that have an end, until there. Whether it is a fault when one ends before.
    Until {
        /// Whether it is.
        strict: bool,
    },
    /// The group; with an end, when all that were assigned are read up to where the tracks say.
    Group(Topics, bool),
}

/// What the reader and the source share.
#[derive(Debug, Default)]
pub struct Shared {
    waiting: Mutex<Waiting>,
    /// Wakes the source.
    came: Notify,
    /// Wakes the reader.
    went: Condvar,
    stop: AtomicBool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader at work.
pub struct Reading {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Context>>,
    thread: Option<JoinHandle<()>>,
}

/// How a reader works.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Who says what is read.
    pub way: Way,
    /// What is kept of messages.
    pub kept: Kept,
    /// So many bytes may wait.
    pub max_waiting: usize,
    /// How long a member of a group may rest before it must ask for messages, or is taken for dead.
    pub longest_rest: Duration,
}

impl Reading {
    /// Begins to read.
    pub fn start(consumer: BaseConsumer<Context>, tracks: Vec<Track>, manner: Manner) -> Self {
        let waiting = Mutex::new(Waiting::new(manner.max_waiting));
        let (consumer, shared) = (Arc::new(consumer), Arc::new(Shared { waiting, ..Shared::default() }));
        let mut reader = Reader {
            consumer: Arc::clone(&consumer),
            shared: Arc::clone(&shared),
            topics: 0,
            tracks: Vec::new(),
            last: 0,
            rows: Rows::default(),
            refreshed: Instant::now(),
            has_share: false,
            seen_to_end: Vec::new(),
            ends_seen: Vec::new(),
            manner,
        };
        tracks.into_iter().for_each(|track| reader.add(track));
        let thread = std::thread::spawn(move || reader.run());
        Self { shared, consumer, thread: Some(thread) }
    }

    /// What waits.
    pub fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.shared.waiting()
    }

    /// Tells the reader that there is room.
    pub fn went(&self) {
        self.shared.went.notify_one();
    }

    /// Waits until there is something for a batch, or nothing will come.
    pub async fn ready(&self) {
        loop {
            let is_held = {
                let waiting = self.waiting();
                if waiting.has_some() || waiting.ended {
                    return;
                }
                !waiting.is_empty()
            };
            let came = self.shared.came.notified();
            if is_held {
                timeout(ASK, came).await.ok();
            } else {
                came.await;
            }
        }
    }

    /// Waits until nothing comes any more.
    pub async fn ended(&self) {
        while !self.waiting().ended {
            self.shared.came.notified().await;
        }
    }

    /// Its client.
    pub fn consumer(&self) -> &BaseConsumer<Context> {
        &self.consumer
    }

    /// Stops, and waits until the consumer has left its group. May take a while.
    pub fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.went.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.went.notify_one();
    }
}

/// A partition as the reader sees it.
struct Place {
    track: Track,
    /// Whether it is read now.
    is_read: bool,
    /// Whether it has been read up to its end.
    at_end: bool,
}

/// Tells the source that nothing comes any more, whatever ended the reader.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        if std::thread::panicking() {
            waiting.failure = Some("the reader has panicked".to_owned());
        }
        waiting.ended = true;
        drop(waiting);
        self.0.came.notify_one();
    }
}

struct Reader {
    consumer: Arc<BaseConsumer<Context>>,
    shared: Arc<Shared>,
    manner: Manner,
    tracks: Vec<Place>,
    /// How many topics the tracks are of.
    topics: usize,
    /// The one that the last message was of.
    last: usize,
    rows: Rows,
    refreshed: Instant,
    /// Whether the group has given this member its share.
    has_share: bool,
    /// Partitions whose end was seen since messages were last handed over.
    seen_to_end: Vec<usize>,
    /// The numbers of partitions whose end was seen, when it is not known of which topic they are.
    ends_seen: Vec<i32>,
}

impl Reader {
    fn run(mut self) {
        let _end = End(Arc::clone(&self.shared));
        let outcome = self.read();
        self.waiting().failure = outcome.err();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.shared.waiting()
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    fn read(&mut self) -> Result<(), String> {
        match &self.manner.way {
            Way::All(..) => self.assign(|_| true)?,
            Way::Until { .. } => self.go_on()?,
            Way::Group(topics, _) => {
                let topics = topics.subscription();
                let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
                self.consumer.subscribe(&topics).map_err(|error| Words(&error).to_string())?;
            }
        }
        let consumer = Arc::clone(&self.consumer);
        while !self.is_stopped() && !self.is_over() {
            self.refresh()?;
            let mut event = consumer.poll(ASK);
            loop {
                self.notice_changes();
                match event {
                    Some(Ok(message)) => self.take(&message)?,
                    Some(Err(error)) => self.answer(&error)?,
                    None => break,
                }
                if self.rows.len() >= CHUNK || self.rows.values.bytes.len() >= CHUNK_BYTES {
                    break;
                }
                event = consumer.poll(Duration::ZERO);
            }
            self.publish()?;
        }
        Ok(())
    }

    fn add(&mut self, track: Track) {
        if !self.tracks.iter().any(|place| place.track.partition.topic == track.partition.topic) {
            self.topics += 1;
        }
        self.waiting().add(track.partition.clone(), track.next);
        let at_end = track.until.is_some_and(|until| track.next >= until);
        self.tracks.push(Place { track, is_read: false, at_end });
    }

    /// Reads all that are chosen, and no others.
    fn assign(&mut self, chosen: impl Fn(&Place) -> bool) -> Result<(), String> {
        let (mut list, shared) = (TopicPartitionList::new(), Arc::clone(&self.shared));
        for (index, place) in self.tracks.iter_mut().enumerate() {
            place.is_read = chosen(place);
            if place.is_read {
                put(&mut list, &place.track)?;
                shared.waiting().begin(index, place.track.end);
            }
        }
        self.consumer.assign(&list).map_err(|error| Words(&error).to_string())
    }

    /// Reads those of the next topic that have an end. One topic at a time: the client says of a partition that ends
    /// its number, but not its topic.
    fn go_on(&mut self) -> Result<(), String> {
        let next = self.tracks.iter().find(|place| !place.at_end).map(|place| Arc::clone(&place.track.partition.topic));
        match next {
            Some(topic) => self.assign(|place| !place.at_end && place.track.partition.topic == topic),
            None => Ok(()),
        }
    }

    fn is_over(&self) -> bool {
        match self.manner.way {
            Way::All(..) | Way::Group(_, false) => false,
            Way::Until { .. } => self.tracks.iter().all(|place| place.at_end),
            Way::Group(_, true) => self.has_share && self.tracks.iter().all(|place| place.at_end || !place.is_read),
        }
    }

    /// Looks for new partitions from time to time. They are read from their beginning.
    fn refresh(&mut self) -> Result<(), String> {
        let Way::All(topics, interval) = &self.manner.way else { return Ok(()) };
        if self.refreshed.elapsed() < *interval {
            return Ok(());
        }
        self.refreshed = Instant::now();
        // Brokers that are away are no reason to give up.
        let Ok(found) = survey::find(&self.consumer, topics) else { return Ok(()) };
        let is_known = |new: &Partition| self.tracks.iter().any(|place| place.track.partition == *new);
        let new: Vec<Partition> = found.partitions.into_iter().filter(|new| !is_known(new)).collect();
        let mut list = TopicPartitionList::new();
        for partition in &new {
            let Ok((low, end)) = survey::bounds(&self.consumer, partition) else { continue };
            let track = Track { partition: partition.clone(), next: low, end, until: None };
            put(&mut list, &track)?;
            self.add(track);
            self.waiting().begin(self.tracks.len() - 1, end);
            self.tracks.last_mut().expect("it was just added").is_read = true;
        }
        if list.count() > 0 {
            info!("{}: new partitions: {}", self.consumer.context().owner, names(&partitions(&list)));
            self.consumer.incremental_assign(&list).map_err(|error| Words(&error).to_string())?;
            self.shared.came.notify_one();
        }
        Ok(())
    }

    /// The track that a message is of.
    fn find(&self, message: &BorrowedMessage<'_>) -> Option<usize> {
        let number = message.partition();
        let is_it = |place: &Place| {
            let partition = &place.track.partition;
            partition.number == number && (self.topics == 1 || *partition.topic == *message.topic())
        };
        if self.tracks.get(self.last).is_some_and(is_it) {
            return Some(self.last);
        }
        self.tracks.iter().position(is_it)
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<(), String> {
        let Some(index) = self.find(message) else { return Ok(()) };
        self.last = index;
        let (place, offset) = (&mut self.tracks[index], message.offset());
        if place.at_end || offset < place.track.next {
            return Ok(());
        }
        if place.track.until.is_some_and(|until| offset >= until) {
            return self.ended(index);
        }
        place.track.next = offset + 1;
        let is_last = place.track.until == Some(offset + 1);
        let kept = self.manner.kept;
        let message = Message {
            value: message.payload().unwrap_or_default(),
            key: if kept.keys { message.key() } else { None },
            time: if kept.times { message.timestamp().to_millis() } else { None },
        };
        self.rows.push(index, offset, kept, message);
        if is_last { self.ended(index) } else { Ok(()) }
    }

    /// A partition was read up to its end.
    fn ended(&mut self, index: usize) -> Result<(), String> {
        let place = &mut self.tracks[index];
        place.at_end = true;
        self.seen_to_end.push(index);
        if !matches!(self.manner.way, Way::Until { .. }) {
            return Ok(());
        }
        place.is_read = false;
        let mut list = TopicPartitionList::new();
        list.add_partition(&place.track.partition.topic, place.track.partition.number);
        if self.tracks.iter().any(|place| place.is_read) {
            return self.consumer.incremental_unassign(&list).map_err(|error| Words(&error).to_string());
        }
        self.go_on()
    }

    /// What comes instead of a message.
    fn answer(&mut self, error: &KafkaError) -> Result<(), String> {
        use RDKafkaErrorCode::{
            AutoOffsetReset, Fatal, GroupAuthorizationFailed, OffsetOutOfRange, TopicAuthorizationFailed,
            UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
        };
        if let KafkaError::PartitionEOF(number) = error {
            return self.at_end_of(*number);
        }
        match error.rdkafka_error_code() {
            Some(code @ (Fatal | TopicAuthorizationFailed | GroupAuthorizationFailed)) => Err(code.to_string()),
            // Its own offsets are looked at anew, and the message tells what is wrong with which.
            Some(
                code @ (AutoOffsetReset | OffsetOutOfRange | UnknownTopic | UnknownTopicOrPartition | UnknownPartition),
            ) if !matches!(self.manner.way, Way::Group(..)) => Err(code.to_string()),
            // The client goes on by itself, and has told the log.
            _ => Ok(()),
        }
    }

    /// A partition of this number has no more messages for now.
    fn at_end_of(&mut self, number: i32) -> Result<(), String> {
        let of_number = |place: &Place| place.is_read && place.track.partition.number == number;
        if self.topics == 1
            && let Some(index) = self.tracks.iter().position(of_number)
        {
            self.seen_to_end.push(index);
        }
        let open = |place: &Place| of_number(place) && !place.at_end && place.track.until.is_some();
        let found: Vec<usize> = (0..self.tracks.len()).filter(|index| open(&self.tracks[*index])).collect();
        match (found.as_slice(), &self.manner.way) {
            ([], _) => Ok(()),
            ([index], Way::Until { strict: true }) => {
                let track = &self.tracks[*index].track;
                let ((_, high), until) = (survey::bounds(&self.consumer, &track.partition)?, track.until.unwrap_or(0));
                if high < until {
                    return Err(format!(
                        "{} ends before offset {high}, but the batch that was begun went up to {until}",
                        track.partition
                    ));
                }
                self.ended(*index)
            }
            ([index], _) => self.ended(*index),
            (several, _) => {
                // All topics have told of theirs.
                self.ends_seen.push(number);
                let all = self.tracks.iter().filter(|place| of_number(place)).count();
                if self.ends_seen.iter().filter(|seen| **seen == number).count() < all {
                    return Ok(());
                }
                several.iter().try_for_each(|index| self.ended(*index))
            }
        }
    }

    /// Hands over what was read. Waits while too much waits already.
    fn publish(&mut self) -> Result<(), String> {
        if self.rows.is_empty() && self.seen_to_end.is_empty() {
            return Ok(());
        }
        let full = Instant::now();
        let is_member = matches!(self.manner.way, Way::Group(..));
        let shared = Arc::clone(&self.shared);
        let mut waiting = shared.waiting();
        let mut is_held = false;
        let was_full = waiting.is_full();
        while waiting.is_full() && !self.is_stopped() {
            if is_member && full.elapsed() > self.manner.longest_rest {
                drop(waiting);
                self.hold()?;
                is_held = true;
                waiting = shared.waiting();
            } else {
                waiting = shared.went.wait_timeout(waiting, ASK).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        if was_full {
            waiting.rested();
        }
        waiting.push(&mut self.rows);
        self.seen_to_end.drain(..).for_each(|index| waiting.at_end(index));
        drop(waiting);
        shared.came.notify_one();
        if is_held && let Ok(assigned) = self.consumer.assignment() {
            self.consumer.resume(&assigned).ok();
        }
        Ok(())
    }

    /// Remains a member of the group while there is no room. What was on its way is taken all the same.
    fn hold(&mut self) -> Result<(), String> {
        let consumer = Arc::clone(&self.consumer);
        if let Ok(assigned) = consumer.assignment() {
            consumer.pause(&assigned).ok();
        }
        let event = consumer.poll(ASK);
        self.notice_changes();
        match event {
            Some(Ok(message)) => self.take(&message),
            Some(Err(error)) => self.answer(&error),
            None => Ok(()),
        }
    }

    /// Takes in what the group has told.
    fn notice_changes(&mut self) {
        if !self.consumer.context().changed.swap(false, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let changes =
            std::mem::take(&mut *self.consumer.context().changes.lock().unwrap_or_else(PoisonError::into_inner));
        for change in changes {
            match change {
                Change::Assigned(partitions) => {
                    // A member that comes late is first given nothing.
                    self.has_share |= !partitions.is_empty();
                    self.ends_seen.clear();
                    for partition in partitions {
                        let index = self.tracks.iter().position(|place| place.track.partition == partition);
                        let index = index.unwrap_or_else(|| {
                            self.add(Track { partition, next: 0, end: 0, until: None });
                            self.tracks.len() - 1
                        });
                        let place = &mut self.tracks[index];
                        (place.is_read, place.track.next) = (true, 0);
                        place.at_end = place.track.until == Some(0);
                    }
                }
                Change::Revoked(partitions) => {
                    // Whoever has them now is given the messages that are not committed.
                    let gone = |place: &Place| partitions.contains(&place.track.partition);
                    let gone: BTreeSet<usize> =
                        (0..self.tracks.len()).filter(|index| gone(&self.tracks[*index])).collect();
                    gone.iter().for_each(|index| self.tracks[*index].is_read = false);
                    // Those that are not handed over yet go there first, and with the others.
                    let mut waiting = shared.waiting();
                    waiting.push(&mut self.rows);
                    waiting.revoke(&gone);
                }
            }
        }
    }
}

fn put(list: &mut TopicPartitionList, track: &Track) -> Result<(), String> {
    let Track { partition, next, .. } = track;
    let added = list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(*next));
    added.map_err(|error| Words(&error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_panics_has_ended() {
        let shared = Arc::new(Shared::default());
        let end = End(Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            let _end = end;
            panic!("as a test");
        });
        assert!(thread.join().is_err());
        let waiting = shared.waiting();
        assert!(waiting.ended && waiting.failure.is_some());
    }
}
