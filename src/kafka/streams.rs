//! Streams: where a consumer goes on that delivers into channels which keep notes.
//!
//! The offsets of a partition that follow each other from one committed place on are a stream, which has a number made by
//! chance. Each commit says in the offset's metadata to which stream it belongs: `flume-rs 1`, 32 hexadecimal digits, and
//! the offset. The channels store with each batch how far its streams are with it. Whoever gets a partition goes on there,
//! if the committed offset still belongs to that stream and is not further.
//!
//! What others commit has no such metadata, or those of another offset when they were copied to another cluster, and
//! begins another stream: an operator who moves a group's offsets is obeyed, and a topic that was deleted and made anew is
//! read from its front.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tracing::{info, warn};

use super::Words;
use super::consumer::Positions;
use crate::channel::Note;

const TITLE: &str = "flume-rs 1 ";
/// How long brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often they are asked.
const ATTEMPTS: u32 = 4;
/// How long they are left alone when they could not.
const PAUSE: Duration = Duration::from_millis(500);

/// Says how far a stream is in the channels.
type Recall = Box<dyn Fn(u128) -> Option<u64> + Send + Sync>;
type Partition = (String, i32);

/// The streams of the partitions that a consumer has.
#[derive(Default)]
pub struct Streams {
    recall: OnceLock<Recall>,
    failed: OnceLock<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    streams: BTreeMap<Partition, Reading>,
    /// How far partitions were read that are revoked. They may come back at once, while that is on its way to the
    /// channels.
    left: BTreeMap<Partition, Reading>,
}

/// A stream that is read.
#[derive(Clone, Copy)]
struct Reading {
    stream: u128,
    /// Where it goes on unless the client knows better.
    next: i64,
}

/// What is known of a partition that is assigned.
struct Found {
    stream: u128,
    /// What should be committed, if that is not so already.
    due: Option<i64>,
    /// Where to go on.
    start: i64,
}

fn key(one: &TopicPartitionListElem<'_>) -> Partition {
    (one.topic().to_owned(), one.partition())
}

fn write(stream: u128, offset: i64) -> String {
    format!("{TITLE}{stream:032x} {offset}")
}

/// The stream that an offset's metadata say, if they are those of this offset.
fn read(metadata: &str, offset: i64) -> Option<u128> {
    let (digits, of) = metadata.strip_prefix(TITLE)?.split_once(' ')?;
    let is_of_this = digits.len() == 32 && of.parse() == Ok(offset);
    is_of_this.then(|| u128::from_str_radix(digits, 16).ok())?
}

/// Another stream.
fn begin() -> KafkaResult<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| KafkaError::Canceled)?;
    Ok(u128::from_ne_bytes(bytes))
}

impl Streams {
    /// From now on partitions have streams; this says how far they are in the channels.
    pub fn recall(&self, recall: impl Fn(u128) -> Option<u64> + Send + Sync + 'static) {
        self.recall.set(Box::new(recall)).ok();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is not known where partitions go on, if that is so. Nothing of them may be delivered.
    pub fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// What channels are to store with the events up to these positions.
    pub fn notes(&self, positions: &Positions) -> Vec<Note> {
        let state = self.state();
        if state.streams.is_empty() && state.left.is_empty() {
            return Vec::new();
        }
        let note = |(topic, partition, next): &(String, i32, i64)| {
            let key = (topic.clone(), *partition);
            // It may be revoked since it was read.
            let Reading { stream, .. } = *state.streams.get(&key).or_else(|| state.left.get(&key))?;
            Some(Note { stream, next: u64::try_from(*next).ok()? })
        };
        positions.iter().filter_map(note).collect()
    }

    /// What is to be committed of a partition beside its offset.
    pub fn metadata(&self, topic: &str, partition: i32, offset: i64) -> Option<String> {
        let state = self.state();
        if state.streams.is_empty() {
            return None;
        }
        state.streams.get(&(topic.to_owned(), partition)).map(|reading| write(reading.stream, offset))
    }

    /// Remembers how far partitions have been read that go.
    pub fn revoked<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>, gone: &TopicPartitionList) {
        let mut state = self.state();
        if state.streams.is_empty() {
            return;
        }
        let read = consumer.position().unwrap_or_default();
        for one in gone.elements() {
            let key = key(&one);
            let Some(mut reading) = state.streams.remove(&key) else { continue };
            // It has none as long as nothing came since the partition was assigned.
            if let Some(Offset::Offset(next)) = read.find_partition(&key.0, key.1).map(|one| one.offset()) {
                reading.next = next;
            }
            state.left.insert(key, reading);
        }
    }

    /// Finds out where partitions go on that come, and tells the list. It waits for the brokers.
    pub fn assigned<C: ConsumerContext>(
        &self,
        owner: &str,
        consumer: &BaseConsumer<C>,
        policy: &str,
        assigned: &TopicPartitionList,
    ) {
        if self.recall.get().is_none() || assigned.count() == 0 {
            return;
        }
        let left = {
            let mut state = self.state();
            assigned.elements().iter().filter_map(|one| state.left.remove_entry(&key(one))).collect()
        };
        let mut outcome = Ok(false);
        for _ in 0..ATTEMPTS {
            outcome = self.find(owner, consumer, policy, assigned, &left);
            match outcome {
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => thread::sleep(PAUSE),
            }
        }
        let why =
            outcome.err().map_or_else(|| "offsets cannot be committed".to_owned(), |error| Words(&error).to_string());
        self.failed.set(why).ok();
    }

    /// One attempt. Where something must be committed first it does that, and says no: the next one sees what came of it.
    fn find<C: ConsumerContext>(
        &self,
        owner: &str,
        consumer: &BaseConsumer<C>,
        policy: &str,
        assigned: &TopicPartitionList,
        left: &BTreeMap<Partition, Reading>,
    ) -> KafkaResult<bool> {
        let mut asked = TopicPartitionList::with_capacity(assigned.count());
        for one in assigned.elements() {
            asked.add_partition(one.topic(), one.partition());
        }
        let stored = consumer.committed_offsets(asked, PATIENCE)?;
        let mut due = TopicPartitionList::new();
        let mut found = BTreeMap::new();
        let mut reachable = true;
        for one in stored.elements() {
            one.error()?;
            let begins = || {
                // One whose leader is away must not hold up the others, and several of them not for long.
                let start = reachable.then(|| begins(consumer, policy, &one)).flatten();
                reachable = start.is_some();
                start
            };
            let Some(place) = self.place(&one, left, begins)? else { continue };
            if let Some(offset) = place.due {
                if let Offset::Offset(committed) = one.offset()
                    && committed < offset
                {
                    let (topic, partition) = (one.topic(), one.partition());
                    info!(
                        "{owner}: {topic}-{partition} goes on at offset {offset}, up to which its messages are in the channels; {committed} was committed"
                    );
                }
                let mut one = due.add_partition(one.topic(), one.partition());
                one.set_offset(Offset::Offset(offset))?;
                one.set_metadata(write(place.stream, offset));
            }
            found.insert(key(&one), place);
        }
        if due.count() > 0 {
            consumer.commit(&due, CommitMode::Sync)?;
            return Ok(false);
        }
        for mut one in assigned.elements() {
            if let Some(place) = found.get(&key(&one)) {
                one.set_offset(Offset::Offset(place.start))?;
                continue;
            }
            let (topic, partition) = (one.topic(), one.partition());
            warn!(
                "{owner}: it cannot be seen where {topic}-{partition} begins, of which nothing is committed: a crash may have its messages delivered twice"
            );
        }
        let reading = |Found { stream, start, .. }| Reading { stream, next: start };
        self.state().streams.extend(found.into_iter().map(|(partition, place)| (partition, reading(place))));
        Ok(true)
    }

    /// Where a partition goes on; `None` when that is the client's to find out, and it has no stream.
    fn place(
        &self,
        stored: &TopicPartitionListElem<'_>,
        left: &BTreeMap<Partition, Reading>,
        begins: impl FnOnce() -> Option<i64>,
    ) -> KafkaResult<Option<Found>> {
        let Offset::Offset(committed) = stored.offset() else {
            let Some(start) = begins() else { return Ok(None) };
            return Ok(Some(Found { stream: begin()?, due: Some(start), start }));
        };
        // At what is not UTF-8 the binding panics.
        let metadata = catch_unwind(AssertUnwindSafe(|| stored.metadata())).unwrap_or_default();
        let Some(stream) = read(metadata, committed) else {
            return Ok(Some(Found { stream: begin()?, due: Some(committed), start: committed }));
        };
        let noted = self.recall.get().and_then(|recall| recall(stream)).and_then(|next| i64::try_from(next).ok());
        let delivered = noted.map_or(committed, |noted| noted.max(committed));
        // What has been read since is on its way to the channels.
        let read = left.get(&key(stored)).filter(|left| left.stream == stream).map_or(delivered, |left| left.next);
        let due = Some(delivered).filter(|delivered| *delivered > committed);
        Ok(Some(Found { stream, due, start: read.max(delivered) }))
    }
}

/// Where a partition begins of which nothing is committed; `None` when the client may find out later.
fn begins<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    policy: &str,
    partition: &TopicPartitionListElem<'_>,
) -> Option<i64> {
    let (low, high) = consumer.fetch_watermarks(partition.topic(), partition.partition(), PATIENCE).ok()?;
    match policy {
        "smallest" | "earliest" | "beginning" => Some(low),
        "largest" | "latest" | "end" => Some(high),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found of a partition with this committed, where the channel knows of stream 5 up to 200 and the consumer
    /// has read stream 5 up to 300.
    fn found(committed: Option<i64>, metadata: &str, has_left: bool) -> Option<(bool, Option<i64>, i64)> {
        let streams = Streams::default();
        streams.recall(|stream| (stream == 5).then_some(200));
        let mut list = TopicPartitionList::new();
        let mut one = list.add_partition("t", 0);
        one.set_offset(committed.map_or(Offset::Invalid, Offset::Offset)).expect("an offset");
        one.set_metadata(metadata);
        let left = BTreeMap::from_iter(has_left.then_some((("t".to_owned(), 0), Reading { stream: 5, next: 300 })));
        let place = streams.place(&one, &left, || Some(7)).expect("a place")?;
        Some((place.stream == 5, place.due, place.start))
    }

    #[test]
    fn a_partition_goes_on_where_its_stream_is() {
        let own = |offset| write(5, offset);
        assert_eq!(found(Some(100), &own(100), false), Some((true, Some(200), 200)));
        assert_eq!(found(Some(250), &own(250), false), Some((true, None, 250)));
        // What is on its way to the channel is not committed.
        assert_eq!(found(Some(100), &own(100), true), Some((true, Some(200), 300)));
        assert_eq!(found(Some(400), &own(400), true), Some((true, None, 400)));
        // What others have committed is obeyed, copied metadata or not, and so is nothing.
        assert_eq!(found(Some(100), "", true), Some((false, Some(100), 100)));
        assert_eq!(found(Some(70), &own(100), true), Some((false, Some(70), 70)));
        assert_eq!(found(Some(100), &write(6, 100), true), Some((false, None, 100)));
        assert_eq!(found(None, "", true), Some((false, Some(7), 7)));
    }

    #[test]
    fn a_stream_is_read_as_it_was_written() {
        for stream in [0, 1, u128::MAX, 0xc0ffee] {
            assert_eq!(read(&write(stream, 9), 9), Some(stream));
        }
        let one = write(5, 9);
        for text in ["", TITLE, &one[..one.len() - 2], &format!("{one}0"), &one.replace('5', "x"), "batch"] {
            assert_eq!(read(text, 9), None, "{text}");
        }
        assert_ne!(begin().expect("a number"), begin().expect("a number"));
    }
}
