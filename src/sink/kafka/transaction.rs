//! Transactions, and how far the channel has been delivered in them.
//!
//! With each transaction the numbers of the events that are in it are stored, as the offset of a consumer group that has
//! the name of the transactional id: the offset's metadata says `flume-rs 1`, the channel's identity, and the last ranges
//! of numbers. A sink that starts reads them once its predecessor's transaction has come to its end, and leaves out
//! what the channel gives it again.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::channel::Ranges;
use crate::kafka::Words;
use crate::kafka::options::Options;
use crate::kafka::producer::{NotCommitted, Producer};
use crate::logging::Excerpt;
use crate::sink::SinkError;

const TITLE: &str = "flume-rs 1";
/// How long brokers may take to say what is stored.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many ranges are stored, the newest; a channel gives again only what it was given not long ago. Kafka takes 4096
/// bytes.
const MAX_RANGES: usize = 80;

/// Numbers of a channel's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    channel: String,
    done: Ranges,
}

impl Progress {
    fn contains(&self, channel: &str, number: u64) -> bool {
        self.channel == channel && self.done.count_missing(number, number + 1) == 0
    }

    fn insert(&mut self, channel: &str, number: u64) {
        if self.channel != channel {
            *self = Self { channel: channel.to_owned(), done: Ranges::default() };
        }
        self.done.insert(number, number + 1);
    }

    /// Forgets what is too old to matter.
    fn trim(&mut self) {
        let count = self.done.iter().count();
        if count > MAX_RANGES {
            self.done = self.done.iter().skip(count - MAX_RANGES).collect();
        }
    }

    fn write(&self) -> String {
        let ranges: Vec<String> = self.done.iter().map(|(from, to)| format!("{from}-{to}")).collect();
        format!("{TITLE} {} {}", self.channel, ranges.join(","))
    }

    fn read(text: &str) -> Option<Self> {
        let (channel, ranges) = text.strip_prefix(TITLE)?.strip_prefix(' ')?.split_once(' ')?;
        let range = |text: &str| {
            let (from, to) = text.split_once('-')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        let done = ranges.split(',').map(range).collect::<Option<Ranges>>()?;
        Some(Self { channel: channel.to_owned(), done })
    }

    fn end(&self) -> u64 {
        self.done.iter().last().map_or(0, |(_, end)| end)
    }
}

/// The transactions of one sink.
pub struct Transactions {
    topic: String,
    reader: ClientConfig,
    group: Option<Arc<ConsumerGroupMetadata>>,
    /// What is in committed transactions.
    committed: Progress,
    /// That, and what is in the open one.
    noted: Progress,
    /// The number of the open transaction, or of the next one.
    number: u64,
    is_open: bool,
    /// Whether the open one must not be committed.
    is_spoilt: bool,
    /// Those up to here that came to their end otherwise have failed.
    last_committed: u64,
}

impl Transactions {
    /// Transactions of this id; how far they are is stored beside the topic.
    pub fn new(options: &Options, topic: &str, id: &str) -> Self {
        let mut reader = options.connection();
        reader.set("group.id", id).set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        Self {
            topic: topic.to_owned(),
            reader,
            group: None,
            committed: Progress::default(),
            noted: Progress::default(),
            number: 1,
            is_open: false,
            is_spoilt: false,
            last_committed: 0,
        }
    }

    /// Reads what is stored. The producer must have ended earlier transactions before.
    pub async fn recall(&mut self) -> Result<(), String> {
        let (reader, topic) = (self.reader.clone(), self.topic.clone());
        let stored = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = reader.create()?;
            // Offsets can only be stored for a topic that is there; asking for it makes it, where brokers do so.
            consumer.fetch_metadata(Some(&topic), PATIENCE)?;
            let mut list = TopicPartitionList::new();
            list.add_partition(&topic, 0);
            let stored = consumer.committed_offsets(list, PATIENCE)?;
            let stored = stored.elements().first().map(|one| one.error().map(|()| one.metadata().to_owned()));
            KafkaResult::Ok((stored.transpose()?.unwrap_or_default(), consumer.group_metadata()))
        });
        let stored = stored.await.unwrap_or(Err(KafkaError::Canceled));
        let (text, group) = stored.map_err(|error| Words(&error).to_string())?;
        self.committed = match text.as_str() {
            "" => Progress::default(),
            text => Progress::read(text).ok_or_else(|| self.is_not_ours(text))?,
        };
        self.noted = self.committed.clone();
        self.group = group.map(Arc::new);
        self.is_open = false;
        self.number += 1;
        Ok(())
    }

    fn is_not_ours(&self, text: &str) -> String {
        let (group, topic) = (self.reader.get("group.id").unwrap_or_default(), &self.topic);
        let text = Excerpt(text);
        format!(
            "the consumer group {group}, which has the name of the transactional id, holds \"{text}\" for {topic}-0, which is not this sink's"
        )
    }

    /// Whether an event is in a committed transaction.
    pub fn has_delivered(&self, number: Option<(&str, u64)>) -> bool {
        number.is_some_and(|(channel, number)| self.committed.contains(channel, number))
    }

    /// Begins a transaction if none is open, and gives its number.
    pub fn begin(&mut self, producer: &Producer) -> Result<u64, SinkError> {
        if !self.is_open {
            let failed = |error: KafkaError| SinkError::new(format!("no transaction can begin: {error}"));
            producer.begin_transaction().map_err(failed)?;
            self.is_open = true;
            self.is_spoilt = false;
        }
        Ok(self.number)
    }

    /// Notes that an event could not be added to the open transaction, which can only be given up.
    pub fn spoil(&mut self) {
        self.is_spoilt = true;
    }

    /// Notes that an event is in the open transaction.
    pub fn note(&mut self, number: Option<(&str, u64)>) {
        if let Some((channel, number)) = number {
            self.noted.insert(channel, number);
        }
    }

    /// Whether this transaction has not come to its end.
    pub fn is_open(&self, number: u64) -> bool {
        self.is_open && self.number == number
    }

    /// Whether this transaction was committed.
    pub fn is_committed(&self, number: u64) -> bool {
        self.last_committed == number
    }

    /// Commits the open transaction.
    pub async fn commit(&mut self, producer: &Producer) -> Result<(), NotCommitted> {
        if self.is_spoilt {
            self.abort(producer).await?;
            return Err(NotCommitted { why: "not all of them could be sent".to_owned(), aborted: true });
        }
        self.noted.trim();
        let offsets = if self.noted == self.committed { None } else { self.group.clone() };
        let offsets = match offsets.map(|group| Ok((self.list()?, group))).transpose() {
            Ok(offsets) => offsets,
            Err(error) => return Err(not_stored(&error)),
        };
        let outcome = producer.commit_transaction(offsets).await;
        self.close(outcome.is_ok());
        outcome
    }

    /// Gives the open transaction up.
    pub async fn abort(&mut self, producer: &Producer) -> Result<(), NotCommitted> {
        let outcome = producer.abort_transaction().await;
        self.close(false);
        outcome.map_err(|error| not_stored(&error))
    }

    fn close(&mut self, committed: bool) {
        if committed {
            self.committed = self.noted.clone();
            self.last_committed = self.number;
        } else {
            self.noted = self.committed.clone();
        }
        self.is_open = false;
        self.number += 1;
    }

    fn list(&self) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        let mut one = list.add_partition(&self.topic, 0);
        one.set_offset(Offset::Offset(self.noted.end() as i64))?;
        one.set_metadata(self.noted.write());
        Ok(list)
    }
}

fn not_stored(error: &KafkaError) -> NotCommitted {
    NotCommitted { why: Words(error).to_string(), aborted: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(channel: &str, numbers: impl IntoIterator<Item = u64>) -> Progress {
        let mut progress = Progress::default();
        numbers.into_iter().for_each(|number| progress.insert(channel, number));
        progress
    }

    #[test]
    fn progress_is_read_as_it_was_written() {
        let one = progress("c0ffee", (0..5).chain(7..9));
        assert_eq!(one.write(), "flume-rs 1 c0ffee 0-5,7-9");
        assert_eq!(Progress::read(&one.write()), Some(one));
        for text in ["", "flume-rs 1", "flume-rs 1 x ", "flume-rs 2 x 1-2", "flume-rs 1 x 1-2,z", "batch-uuid"] {
            assert_eq!(Progress::read(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_of_another_channel_mean_nothing() {
        let mut one = progress("a", 0..5);
        assert!(one.contains("a", 4) && !one.contains("a", 5) && !one.contains("b", 4));
        one.insert("b", 9);
        assert!(!one.contains("a", 4) && one.contains("b", 9));
    }

    #[test]
    fn what_is_stored_stays_small_and_keeps_the_newest() {
        let mut one = progress("0123456789abcdef0123456789abcdef", (0..1000).map(|n| u64::MAX / 2 + 2 * n));
        one.trim();
        assert!(one.write().len() < 4096, "{}", one.write().len());
        assert!(one.contains("0123456789abcdef0123456789abcdef", u64::MAX / 2 + 1998));
        assert_eq!(one.end(), u64::MAX / 2 + 1999);
    }
}
