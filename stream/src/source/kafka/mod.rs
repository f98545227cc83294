//! Messages of Kafka topics.
//!
//! | key | default | what |
//! |---|---|---|
//! | `servers` | | `host:port` of one or more brokers, separated by commas |
//! | `topics` | | names: a list, or a text with commas |
//! | `pattern` | | instead of `topics`: a regular expression for whole names |
//! | `group` | none | the consumer group to read as a member of, see below |
//! | `start` | `latest` | where to begin what was never read: `latest` or `earliest` |
//! | `on-data-loss` | `fail` | when offsets that come next are gone: `fail` says so and waits, `earliest` goes on with the first that is left |
//! | `metadata` | none | further columns: `key` (text), `topic` (text), `partition` (int), `offset` (bigint), `timestamp` |
//! | `refresh` | `10s` | how often new partitions, and topics of the pattern, are looked for |
//! | `max-waiting` | 67108864 | so many bytes may wait for the next batch, up to 1073741824 |
//! | `options` | none | a table of librdkafka's options, as `{ "security.protocol" = "ssl" }` |
//!
//! Without a group the job reads all partitions itself (*direct*), and its offsets are its own: they are committed with
//! its results, and a batch that a crash has cut short is read again from the same offset to the same offset. New
//! partitions are read from their beginning, and so is a topic that was missing when the job began.
//!
//! A batch has the same part of what is left of each partition, so that all get on evenly.
//!
//! With a group its members, which may be other jobs, share the partitions. The brokers keep the offsets, which are
//! committed once the batch is: a message comes at least once, and after a crash perhaps again. The group takes up to 45
//! seconds to notice that a member was killed (`session.timeout.ms`).
//!
//! Only committed messages are read; `options = { "isolation.level" = "read_uncommitted" }` reads all. A message
//! without a value is an empty record. In SQL, `offset` is a keyword, and the column is written `"offset"`.

mod reader;
mod rows;
mod survey;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, Int32Array, Int64Array, StringViewArray, StringViewBuilder, TimestampMillisecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use flume_rs::kafka::Words;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use regex::Regex;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{Cut, MaxWaiting, Position, Source, SourceConfig, SourceError};
use crate::format::Records;
use crate::job::keys::duration;
use crate::job::{JobError, Keys};
use crate::kafka::{self, Options};
use reader::{Context, Manner, Reading, Track, Way};
use rows::{Kept, Rows, Run};
use survey::{Partition, Topics};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Start {
    #[default]
    Latest,
    Earliest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnLoss {
    #[default]
    Fail,
    Earliest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Metadata {
    Key,
    Topic,
    Partition,
    Offset,
    Timestamp,
}

/// Topics as a key has them.
#[derive(Clone, Debug, Deserialize)]
struct Names(#[serde(deserialize_with = "kafka::topics")] Vec<String>);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KafkaConfig {
    group: Option<String>,
    #[serde(default)]
    start: Start,
    #[serde(default)]
    on_data_loss: OnLoss,
    #[serde(default)]
    metadata: Vec<Metadata>,
    #[serde(default = "refresh", deserialize_with = "duration")]
    refresh: Duration,
    #[serde(default)]
    max_waiting: MaxWaiting,
}

fn refresh() -> Duration {
    Duration::from_secs(10)
}

/// Messages come at once when they are there, and while many are there, many at once.
const DEFAULTS: &[(&str, &str)] = &[
    ("isolation.level", "read_committed"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("fetch.min.bytes", "1"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.queue.backoff.ms", "2"),
    ("queued.min.messages", "10000"),
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.max.bytes", "16777216"),
    ("socket.nagle.disable", "true"),
    ("topic.metadata.refresh.interval.ms", "60000"),
];

/// librdkafka's default, in milliseconds.
const MAX_POLL_INTERVAL: u64 = 300_000;

const FIXED: &[(&str, &str)] = &[
    // Offsets are given, and one that is gone is an error; of a group, `start` is meant.
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
];

/// The whole configuration.
#[derive(Clone, Debug)]
struct KafkaSource {
    config: KafkaConfig,
    topics: Topics,
    options: Options,
}

pub fn read(mut keys: Keys<'_>) -> Result<Box<dyn SourceConfig>, JobError> {
    let mut options = kafka::options(&mut keys, DEFAULTS, FIXED)?;
    let names: Option<Names> = keys.take("topics")?;
    let pattern: Option<String> = keys.take("pattern")?;
    let topics = match (names, pattern) {
        (Some(Names(names)), None) if !names.is_empty() => Topics::Named(names),
        (None, Some(pattern)) => {
            let regex = Regex::new(&format!("^(?:{pattern})$"));
            Topics::Pattern(regex.map_err(|error| keys.error(format!("`pattern`: {error}")))?)
        }
        _ => return Err(keys.error("either `topics`, names of topics, or `pattern` must be there")),
    };
    let config: KafkaConfig = keys.read()?;
    match &config.group {
        Some(group) => {
            let reset = if config.start == Start::Latest { "latest" } else { "earliest" };
            options.insert("auto.offset.reset".to_owned(), reset.to_owned());
            options.insert("group.id".to_owned(), group.clone());
        }
        // The client wants one, but is no member of it.
        None => {
            options.entry("group.id".to_owned()).or_insert_with(|| "flume-rs-stream".to_owned());
        }
    }
    Ok(Box::new(KafkaSource { config, topics, options }))
}

impl SourceConfig for KafkaSource {
    fn columns(&self) -> Vec<Field> {
        let columns = self.config.metadata.iter().map(|one| match one {
            Metadata::Key => Field::new("key", DataType::Utf8View, true),
            Metadata::Topic => Field::new("topic", DataType::Utf8View, true),
            Metadata::Partition => Field::new("partition", DataType::Int32, true),
            Metadata::Offset => Field::new("offset", DataType::Int64, true),
            Metadata::Timestamp => Field::new("timestamp", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        });
        columns.collect()
    }

    fn spark(&self) -> Result<serde_json::Value, String> {
        if self.config.group.is_some() {
            return Err("`group`: Spark reads all partitions itself, and is no member of a group".to_owned());
        }
        let mut options = kafka::spark(&self.options, &[DEFAULTS, FIXED])?;
        let (how, topics) = match &self.topics {
            Topics::Named(names) => ("subscribe", names.join(",")),
            Topics::Pattern(pattern) => ("subscribePattern", survey::inner(pattern).to_owned()),
        };
        let start = if self.config.start == Start::Latest { "latest" } else { "earliest" };
        let fails = (self.config.on_data_loss == OnLoss::Fail).to_string();
        for (name, value) in [(how, topics.as_str()), ("startingOffsets", start), ("failOnDataLoss", &fails)] {
            options.insert(name.to_owned(), value.to_owned());
        }
        // As the other engine does.
        options.entry("kafka.isolation.level".to_owned()).or_insert_with(|| "read_committed".to_owned());
        let columns: Vec<String> = self.columns().iter().map(|column| column.name().clone()).collect();
        Ok(serde_json::json!({ "format": "kafka", "options": options, "columns": columns }))
    }

    fn build(&self, name: &str, once: bool) -> Box<dyn Source> {
        Box::new(Kafka {
            name: name.to_owned(),
            source: self.clone(),
            once,
            reading: None,
            at: Vec::new(),
            ends: BTreeMap::new(),
            undone: BTreeSet::new(),
            done: BTreeMap::new(),
            waited_for: BTreeSet::new(),
            is_new: false,
        })
    }
}

impl KafkaSource {
    fn is_member(&self) -> bool {
        self.config.group.is_some()
    }

    fn kept(&self) -> Kept {
        let has = |one| self.config.metadata.contains(&one);
        Kept { keys: has(Metadata::Key), times: has(Metadata::Timestamp) }
    }

    fn manner(&self, way: Way, max_waiting: usize) -> Manner {
        let interval = self.options.get("max.poll.interval.ms").and_then(|text| text.parse().ok());
        let longest_rest = Duration::from_millis(interval.unwrap_or(MAX_POLL_INTERVAL)) / 4;
        Manner { way, kept: self.kept(), max_waiting, longest_rest }
    }

    fn consumer(&self, name: &str) -> Result<BaseConsumer<Context>, String> {
        reader::consumer(&kafka::config(&self.options), name)
    }

    fn servers(&self) -> &str {
        self.options.get("bootstrap.servers").map_or("", String::as_str)
    }

    /// The tracks to read, beginning where the job has come to.
    fn tracks(&self, name: &str, consumer: &BaseConsumer<Context>, from: &From, once: bool) -> Result<Vec<Track>, Why> {
        let other = |why: String| Why::Other(format!("Kafka at {}: {why}", self.servers()));
        let found = survey::find(consumer, &self.topics).map_err(other)?;
        if !found.missing.is_empty() {
            return Err(Why::Missing(found.missing));
        }
        if self.is_member() && !once {
            return Ok(Vec::new());
        }
        let mut tracks = Vec::new();
        for partition in found.partitions {
            let (low, high) = survey::bounds(consumer, &partition).map_err(other)?;
            let next = match from.offsets.as_ref().map(|offsets| offsets.get(&partition).copied()) {
                Some(Some(next)) if next < low || next > high => self.lost(name, &partition, next, low, high)?,
                Some(Some(next)) => next,
                None if self.config.start == Start::Latest && !from.waited_for(&partition) => high,
                // It is new.
                Some(None) | None => low,
            };
            tracks.push(Track { partition, next, end: high, until: once.then_some(high) });
        }
        for (partition, next) in from.offsets.iter().flatten() {
            let of_topic = |track: &&Track| track.partition.topic == partition.topic;
            let is_there = tracks.iter().any(|track| track.partition == *partition);
            if *next > 0 && !is_there && tracks.iter().any(|track| of_topic(&track)) {
                self.lost(name, partition, *next, 0, 0)?;
            }
        }
        Ok(tracks)
    }

    /// Offsets that come next are gone.
    fn lost(&self, name: &str, partition: &Partition, next: i64, low: i64, high: i64) -> Result<i64, Why> {
        let what = if high == 0 && low == 0 {
            format!("{partition} goes on with offset {next}, but is empty or gone: was the topic made anew?")
        } else if next < low {
            let lost = low - next;
            format!(
                "{partition} goes on with offset {next}, but the first that is left is {low}: up to {lost} messages are gone before they were read"
            )
        } else {
            format!("{partition} goes on with offset {next}, but ends before {high}: was the topic made anew?")
        };
        match self.config.on_data_loss {
            OnLoss::Fail => {
                Err(Why::Other(format!("{what}; with on-data-loss = \"earliest\" the job goes on with offset {low}")))
            }
            OnLoss::Earliest => {
                warn!("source {name}: {what}; it goes on with offset {low}");
                Ok(low)
            }
        }
    }

    /// The columns of metadata.
    fn columns_of(&self, rows: &mut Rows, at: &[(Partition, i64)]) -> Vec<ArrayRef> {
        let count = rows.len();
        let each = |run: &Run| std::iter::repeat_n(*run, run.count);
        let mut columns: Vec<ArrayRef> = Vec::new();
        for one in &self.config.metadata {
            columns.push(match one {
                Metadata::Key => {
                    let keys = rows.keys.iter().zip(&rows.keyed);
                    let keys = keys.map(|(key, there)| there.then(|| String::from_utf8_lossy(key)));
                    Arc::new(StringViewArray::from_iter(keys))
                }
                Metadata::Topic => {
                    let mut topics = StringViewBuilder::with_capacity(count).with_deduplicate_strings();
                    for run in rows.runs.iter().flat_map(each) {
                        topics.append_value(&at[run.partition].0.topic);
                    }
                    Arc::new(topics.finish())
                }
                Metadata::Partition => {
                    let numbers = rows.runs.iter().flat_map(each).map(|run| at[run.partition].0.number);
                    Arc::new(Int32Array::from_iter_values(numbers))
                }
                Metadata::Offset => {
                    let offsets = rows.runs.iter().flat_map(|run| run.first()..run.next);
                    Arc::new(Int64Array::from_iter_values(offsets))
                }
                Metadata::Timestamp => Arc::new(TimestampMillisecondArray::from_iter(std::mem::take(&mut rows.times))),
            });
        }
        columns
    }
}

/// Where to begin.
#[derive(Clone, Debug, Default)]
struct From {
    /// The job's offsets, unless it begins.
    offsets: Option<BTreeMap<Partition, i64>>,
    /// Topics, and a pattern, that were missing: all that is in them has come since.
    waited_for: BTreeSet<String>,
    is_pattern: bool,
}

impl From {
    fn waited_for(&self, partition: &Partition) -> bool {
        self.waited_for.contains(&*partition.topic) || (self.is_pattern && !self.waited_for.is_empty())
    }
}

/// Why reading cannot begin.
enum Why {
    Missing(Vec<String>),
    Other(String),
}

/// How long the group may take to take note of a member that leaves.
const FAREWELL: Duration = Duration::from_secs(5);

struct Kafka {
    name: String,
    source: KafkaSource,
    once: bool,
    reading: Option<Reading>,
    /// How far each partition is cut; in the reader's order.
    at: Vec<(Partition, i64)>,
    /// Where they ended when they were found, which is all for a job that runs only once.
    ends: BTreeMap<Partition, i64>,
    /// Those that were cut since the last batch that was done, of a group.
    undone: BTreeSet<usize>,
    /// What is committed to the group: the next offsets of partitions that are this member's.
    done: BTreeMap<usize, i64>,
    waited_for: BTreeSet<String>,
    /// Whether the offsets where the job begins have to be noted first, because they could not be found again.
    is_new: bool,
}

fn offsets(position: &Position) -> BTreeMap<Partition, i64> {
    let entries = position.as_object().into_iter().flatten();
    entries.filter_map(|(name, next)| Some((Partition::parse(name)?, next.as_i64()?))).collect()
}

impl Kafka {
    /// Runs something that waits for brokers.
    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Why> + Send + 'static) -> Result<T, Why> {
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Why::Other(error.to_string())))
    }

    fn start(&mut self, consumer: BaseConsumer<Context>, tracks: Vec<Track>) {
        let (config, topics) = (&self.source.config, self.source.topics.clone());
        let way = match (self.source.is_member(), self.once) {
            (true, once) => Way::Group(topics, once),
            (false, true) => Way::Until { strict: false },
            (false, false) => Way::All(topics, config.refresh),
        };
        let manner = self.source.manner(way, config.max_waiting.0);
        self.reading = Some(Reading::start(consumer, tracks, manner));
    }

    async fn stop(&mut self) {
        let list = self.list();
        if let Some(reading) = self.reading.take() {
            let gone = tokio::task::spawn_blocking(move || {
                // The last request may not have come through yet.
                if list.count() > 0 {
                    reading.consumer().commit(&list, CommitMode::Sync).ok();
                }
                reading.stop();
            });
            timeout(FAREWELL, gone).await.ok();
        }
    }

    /// Makes a cut of what was taken, and notes how far it goes.
    fn cut_of(&mut self, taken: Vec<Rows>) -> Cut {
        for run in taken.iter().flat_map(|rows| &rows.runs) {
            self.at[run.partition].1 = run.next;
            if self.source.is_member() {
                self.undone.insert(run.partition);
            }
        }
        let records = taken.into_iter().map(|mut rows| {
            let columns = self.source.columns_of(&mut rows, &self.at);
            Records { columns, ..rows.values }
        });
        let records = records.collect();
        Cut { records, position: (!self.source.is_member()).then(|| self.position()) }
    }

    fn position(&self) -> Position {
        self.at.iter().map(|(partition, next)| (partition.to_string(), *next)).collect()
    }

    /// Forgets offsets of partitions that others have got.
    fn forget(&mut self, revoked: &BTreeSet<usize>) {
        self.undone.retain(|index| !revoked.contains(index));
        self.done.retain(|index, _| !revoked.contains(index));
    }

    /// What is committed to the group.
    fn list(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (index, next) in &self.done {
            let Partition { topic, number } = &self.at[*index].0;
            list.add_partition_offset(topic, *number, Offset::Offset(*next)).ok();
        }
        list
    }
}

#[async_trait]
impl Source for Kafka {
    async fn open(&mut self, from: Option<&Position>) -> Result<(), SourceError> {
        self.stop().await;
        self.at.clear();
        self.undone.clear();
        self.done.clear();
        let from = From {
            offsets: from.map(offsets),
            waited_for: self.waited_for.clone(),
            is_pattern: matches!(self.source.topics, Topics::Pattern(_)),
        };
        let (source, name, once) = (self.source.clone(), self.name.clone(), self.once);
        self.is_new = from.offsets.is_none() && source.config.start == Start::Latest && !source.is_member();
        let opened = Self::blocking(move || {
            let consumer = source.consumer(&name).map_err(Why::Other)?;
            let tracks = source.tracks(&name, &consumer, &from, once)?;
            Ok((consumer, tracks))
        });
        let (consumer, tracks) = opened.await.map_err(|why| match why {
            Why::Missing(missing) => {
                let what = match &self.source.topics {
                    Topics::Named(_) => format!("there is no topic {}", missing.join(", nor ")),
                    Topics::Pattern(_) => format!("no topic's name matches {}", missing.join("")),
                };
                self.waited_for.extend(missing);
                SourceError::new(format!("{what} at {}", self.source.servers()))
            }
            Why::Other(why) => SourceError::new(why),
        })?;
        self.ends = tracks.iter().map(|track| (track.partition.clone(), track.end)).collect();
        if !self.source.is_member() {
            let begin: Vec<String> = tracks.iter().map(|one| format!("{} at {}", one.partition, one.next)).collect();
            info!("source {}: begins with {}", self.name, begin.join(", "));
        }
        self.start(consumer, tracks);
        Ok(())
    }

    async fn ready(&mut self) {
        match &self.reading {
            Some(_) if self.is_new => {}
            Some(reading) => reading.ready().await,
            None => std::future::pending().await,
        }
    }

    async fn cut(&mut self, max_records: usize) -> Result<Cut, SourceError> {
        let Some(reading) = &self.reading else { return Err(SourceError::new("it is not open")) };
        let mut waiting = reading.waiting();
        self.at.extend_from_slice(&waiting.partitions[self.at.len()..]);
        let revoked = std::mem::take(&mut waiting.revoked);
        if std::mem::take(&mut self.is_new) {
            return Ok(Cut { position: Some(self.position()), ..Cut::default() });
        }
        let taken = waiting.take(max_records);
        let failure = if taken.is_empty() { waiting.failure.clone() } else { None };
        drop(waiting);
        reading.went();
        self.forget(&revoked);
        match failure {
            Some(why) => Err(SourceError::new(why)),
            None => Ok(self.cut_of(taken)),
        }
    }

    async fn again(&mut self, _: Option<&Position>, to: &Position) -> Result<Cut, SourceError> {
        // It was opened there, and has perhaps read on already.
        let Some(reading) = &self.reading else { return Err(SourceError::new("it is not open")) };
        let begin = reading.waiting().partitions.clone();
        self.stop().await;
        let to = offsets(to);
        let track = |(partition, next): &(Partition, i64)| {
            let until = to.get(partition).copied().unwrap_or(*next);
            Track { partition: partition.clone(), next: *next, end: until, until: Some(until) }
        };
        let mut tracks: Vec<Track> = begin.iter().map(track).collect();
        let strict = self.source.config.on_data_loss == OnLoss::Fail;
        let manner = self.source.manner(Way::Until { strict }, usize::MAX);
        let consumer = |of: &Self| of.source.consumer(&of.name).map_err(SourceError::new);
        let range = Reading::start(consumer(self)?, tracks.clone(), manner);
        range.ended().await;
        let taken = {
            let mut waiting = range.waiting();
            if let Some(why) = waiting.failure.take() {
                return Err(SourceError::new(why));
            }
            waiting.take(usize::MAX)
        };
        self.at = begin;
        let mut cut = self.cut_of(taken);
        for (track, (_, at)) in tracks.iter_mut().zip(&mut self.at) {
            track.next = track.until.unwrap_or(track.next);
            *at = track.next;
            let end = self.ends.get(&track.partition).copied();
            (track.end, track.until) = (end.unwrap_or_default(), end.filter(|_| self.once));
        }
        cut.position = Some(self.position());
        self.is_new = false;
        self.at.clear();
        let consumer = consumer(self)?;
        self.start(consumer, tracks);
        Ok(cut)
    }

    async fn done(&mut self, _: Option<&Position>) -> Result<(), SourceError> {
        let Some(reading) = self.reading.as_ref().filter(|_| self.source.is_member()) else { return Ok(()) };
        let revoked = std::mem::take(&mut reading.waiting().revoked);
        let mut is_due = reading.consumer().context().take_commit_failed();
        self.forget(&revoked);
        for index in std::mem::take(&mut self.undone) {
            self.done.insert(index, self.at[index].1);
            is_due = true;
        }
        let list = self.list();
        if is_due
            && list.count() > 0
            && let Some(reading) = &self.reading
        {
            let failed = |error| SourceError::new(format!("offsets could not be committed: {}", Words(&error)));
            reading.consumer().commit(&list, CommitMode::Async).map_err(failed)?;
        }
        Ok(())
    }

    fn is_exhausted(&self) -> bool {
        let Some(reading) = self.reading.as_ref().filter(|_| self.once && !self.is_new) else { return false };
        let waiting = reading.waiting();
        waiting.ended && waiting.failure.is_none() && waiting.is_empty()
    }

    async fn close(&mut self) {
        self.stop().await;
    }
}
