//! Rows as messages of a Kafka topic.
//!
//! | key | default | what |
//! |---|---|---|
//! | `servers` | | `host:port` of one or more brokers, separated by commas |
//! | `topic` | | the topic |
//! | `key` | none | the column that is the message's key; the same key goes to the same partition, as with Java's client |
//! | `value` | the row | the column that is the message's value; by default it is the row as a JSON object |
//! | `exactly-once` | true | whether a batch is one transaction |
//! | `transactional-id` | `flume-rs-stream.JOB.SINK` | what tells the transactions of this sink from those of others |
//! | `options` | none | a table of librdkafka's options, as `{ "compression.type" = "zstd" }` |
//!
//! With each transaction the batch's number is stored, as the offset of a consumer group that has the name of the
//! transactional id; what a crash has left undecided is decided by it. Whoever reads committed messages only
//! (`isolation.level = read_committed`) sees each batch once. No other sink may have the same transactional id.
//!
//! Without `exactly-once` a batch that is tried again after a failure or a crash may be there twice.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, BinaryArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::error::ArrowError;
use flume_rs::kafka::Words;
use flume_rs::kafka::options::connection;
use flume_rs::kafka::producer::{MAX_MESSAGES, Producer, Record};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use tokio::time::timeout;
use tracing::warn;

use super::{JobContext, Sink, SinkConfig, SinkError, rows};
use crate::batch::BatchInfo;
use crate::job::{JobError, Keys};
use crate::kafka::{self, Options};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KafkaConfig {
    #[serde(deserialize_with = "kafka::topic")]
    topic: String,
    key: Option<String>,
    value: Option<String>,
    #[serde(default = "yes")]
    exactly_once: bool,
    transactional_id: Option<String>,
}

impl KafkaConfig {
    fn id(&self, sink: &str, job: &JobContext) -> String {
        self.transactional_id.clone().unwrap_or_else(|| format!("flume-rs-stream.{}.{sink}", job.job))
    }
}

fn yes() -> bool {
    true
}

const DEFAULTS: &[(&str, &str)] = &[
    ("partitioner", "murmur2_random"),
    ("linger.ms", "0"),
    ("queue.buffering.max.kbytes", "32768"),
    // One that waits longer fails, and with it the batch, which is tried again: the job can be stopped meanwhile.
    ("message.timeout.ms", "30000"),
    ("acks", "all"),
];

const FIXED: &[(&str, &str)] = &[("enable.idempotence", "true")];

/// How long brokers may take for one step, and to commit a transaction.
const STEP: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Clone, Debug)]
struct KafkaSinkConfig {
    config: KafkaConfig,
    options: Options,
}

pub fn read(mut keys: Keys<'_>) -> Result<Box<dyn SinkConfig>, JobError> {
    let options = kafka::options(&mut keys, DEFAULTS, FIXED)?;
    let config: KafkaConfig = keys.read()?;
    Ok(Box::new(KafkaSinkConfig { config, options }))
}

impl SinkConfig for KafkaSinkConfig {
    fn check(&self, schema: &SchemaRef) -> Result<(), String> {
        for (key, column) in [("key", &self.config.key), ("value", &self.config.value)] {
            if let Some(column) = column {
                super::check_columns(key, std::slice::from_ref(column), schema)?;
            }
        }
        Ok(())
    }

    fn owns(&self, name: &str, job: &JobContext, _: &SchemaRef) -> Vec<String> {
        let servers = self.options.get("bootstrap.servers").map_or("", String::as_str);
        let id = self.config.exactly_once.then(|| self.config.id(name, job));
        id.map(|id| format!("transactional id {id} of Kafka at {servers}")).into_iter().collect()
    }

    fn spark(&self, _: &str, _: &JobContext) -> Result<serde_json::Value, String> {
        let KafkaConfig { topic, key, value, exactly_once, .. } = &self.config;
        let options = kafka::spark(&self.options, &[DEFAULTS, FIXED])?;
        let note = exactly_once.then_some("Spark's messages are there at least once: `exactly-once` has no effect");
        Ok(serde_json::json!({
            "type": "kafka", "options": options, "topic": topic, "key": key, "value": value, "note": note,
        }))
    }

    fn build(&self, name: &str, job: &JobContext) -> Box<dyn Sink> {
        let KafkaSinkConfig { config, mut options } = self.clone();
        let id = config.id(name, job);
        if config.exactly_once {
            options.insert("transactional.id".to_owned(), id.clone());
        }
        let name = name.to_owned();
        Box::new(Kafka { name, config, options, id, producer: None, group: None, stored: None, undecided: None })
    }
}

/// A batch as it is stored with its transaction: its number and its time.
type Stored = (u64, i64);

struct Kafka {
    name: String,
    config: KafkaConfig,
    options: Options,
    /// The transactional id, and the group whose offset stands for the batch.
    id: String,
    /// None before it is opened, and when it must be made anew.
    producer: Option<Arc<Producer>>,
    group: Option<Arc<ConsumerGroupMetadata>>,
    /// The last batch that is known to be there.
    stored: Option<Stored>,
    /// The batch of which it is not known.
    undecided: Option<Stored>,
}

const TITLE: &str = "flume-rs-stream 1";

fn note((number, time): Stored) -> String {
    format!("{TITLE} {number} {time}")
}

fn read_note(text: &str) -> Option<Stored> {
    let (number, time) = text.strip_prefix(TITLE)?.trim_start().split_once(' ')?;
    Some((number.parse().ok()?, time.parse().ok()?))
}

impl Kafka {
    /// The producer, made anew when there is none. It ends whatever an earlier one has left, and reads which batch was
    /// the last.
    async fn producer(&mut self) -> Result<Arc<Producer>, SinkError> {
        if let Some(producer) = &self.producer {
            return Ok(Arc::clone(producer));
        }
        let servers = self.options.get("bootstrap.servers").map_or("", String::as_str).to_owned();
        let failed = |error: &KafkaError| SinkError::new(format!("Kafka at {servers}: {}", Words(error)));
        let owner = format!("sink {}", self.name);
        let producer = Producer::new(&kafka::config(&self.options), &owner).map_err(|error| failed(&error))?;
        let mut reader = connection(&self.options);
        reader.set("group.id", &self.id).set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        let (topic, exactly_once) = (self.config.topic.clone(), self.config.exactly_once);
        if exactly_once {
            producer.init_transactions().await.map_err(|error| failed(&error))?;
        }
        let recalled = tokio::task::spawn_blocking(move || recall(&reader, &topic, exactly_once));
        let recalled = recalled.await.unwrap_or(Err(KafkaError::Canceled)).map_err(|error| failed(&error))?;
        let Some((stored, group)) = recalled else {
            return Err(SinkError::new(format!("there is no topic {} at {servers}", self.config.topic)));
        };
        (self.stored, self.group) = (stored, group.map(Arc::new));
        Ok(Arc::clone(self.producer.insert(Arc::new(producer))))
    }

    /// Whether a batch is there already.
    fn is_there(&self, batch: &BatchInfo) -> bool {
        let this = Some((batch.number, batch.time));
        self.config.exactly_once && self.stored == this && (batch.again || self.undecided == this)
    }

    async fn send(&mut self, producer: &Producer, batch: Stored, rows: &Messages) -> Result<(), SinkError> {
        let broken = |error: &KafkaError| SinkError::new(format!("no transaction can begin: {}", Words(error)));
        if self.config.exactly_once {
            producer.begin_transaction().map_err(|error| broken(&error)).inspect_err(|_| self.producer = None)?;
        }
        let count = rows.values.len();
        let ticket = producer.open(count).await;
        let mut refused = None;
        for index in 0..count {
            let record = Record {
                topic: &self.config.topic,
                partition: None,
                payload: rows.values.is_valid(index).then(|| rows.values.value(index)),
                key: rows.keys.as_ref().filter(|keys| keys.is_valid(index)).map(|keys| keys.value(index)),
                timestamp: None,
                headers: None,
                delivery_opaque: 0,
            };
            if let Err(code) = producer.send(&ticket, index, record).await {
                ticket.fail((index, code));
                refused = Some(code);
            }
        }
        if !self.config.exactly_once {
            let failures = ticket.wait().await;
            if let Some(why) = producer.fatal() {
                self.producer = None;
                return Err(SinkError::new(why));
            }
            return match failures.first() {
                None => Ok(()),
                Some((_, code)) => {
                    Err(SinkError::new(format!("{} of {count} messages were not delivered: {code}", failures.len())))
                }
            };
        }
        if let Some(code) = refused {
            // The transaction must not be without it.
            if producer.abort_transaction().await.is_err() {
                self.producer = None;
            }
            return Err(SinkError::new(format!("a message was refused: {code}")));
        }
        let Some(group) = self.group.clone() else { return Err(SinkError::new("it is not open")) };
        let list = self.list(batch).map_err(|error| broken(&error))?;
        self.undecided = Some(batch);
        let outcome = timeout(PATIENCE, producer.commit_transaction(Some((list, group)))).await;
        match outcome {
            Ok(Ok(())) => {
                (self.stored, self.undecided) = (Some(batch), None);
                Ok(())
            }
            Ok(Err(failed)) => {
                if failed.aborted {
                    self.undecided = None;
                } else {
                    self.producer = None;
                }
                // What a message was refused for says more.
                let reason =
                    if failed.aborted { ticket.wait().await.first().map(|(_, code)| code.to_string()) } else { None };
                let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                Err(SinkError::new(format!("the transaction was not committed: {}{reason}", failed.why)))
            }
            Err(_) => {
                self.producer = None;
                Err(SinkError::new(format!("the transaction was not committed within {} s", PATIENCE.as_secs())))
            }
        }
    }

    fn list(&self, batch: Stored) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        let mut one = list.add_partition(&self.config.topic, 0);
        one.set_offset(Offset::Offset(i64::try_from(batch.0).unwrap_or(i64::MAX)))?;
        one.set_metadata(note(batch));
        Ok(list)
    }
}

type Recalled = Option<(Option<Stored>, Option<ConsumerGroupMetadata>)>;

/// Looks whether the topic is there, and reads which batch is stored.
fn recall(reader: &rdkafka::ClientConfig, topic: &str, exactly_once: bool) -> KafkaResult<Recalled> {
    let mut reader = reader.clone();
    // Brokers that make topics when they are asked for do.
    reader.set("allow.auto.create.topics", "true");
    let consumer: BaseConsumer = reader.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), STEP)?;
    let error = metadata.topics().first().and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
    if error == Some(RDKafkaErrorCode::UnknownTopicOrPartition) {
        return Ok(None);
    }
    if !exactly_once {
        return Ok(Some((None, None)));
    }
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let stored = consumer.committed_offsets(list, STEP)?;
    let stored = stored.elements().first().and_then(|one| read_note(one.metadata()));
    Ok(Some((stored, consumer.group_metadata())))
}

/// What a batch is for Kafka.
struct Messages {
    keys: Option<BinaryArray>,
    values: BinaryArray,
}

impl Messages {
    fn of(rows: &RecordBatch, config: &KafkaConfig) -> Result<Self, ArrowError> {
        let column = |name: &String| rows.column_by_name(name).map(bytes).transpose();
        let keys = config.key.as_ref().map(column).transpose()?.flatten();
        let values = match &config.value {
            Some(name) => column(name)?.unwrap_or_else(|| BinaryArray::new_null(rows.num_rows())),
            // As Spark's `to_json` does.
            None => rows::json(rows, false)?.lines().map(Some).collect(),
        };
        Ok(Self { keys, values })
    }
}

/// A column's values as bytes: text as it is, numbers and times as text.
fn bytes(column: &ArrayRef) -> Result<BinaryArray, ArrowError> {
    let binary = match column.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => cast(column, &DataType::Binary)?,
        _ => cast(&cast(column, &DataType::Utf8)?, &DataType::Binary)?,
    };
    Ok(binary.as_binary::<i32>().clone())
}

#[async_trait]
impl Sink for Kafka {
    async fn open(&mut self, _: &SchemaRef) -> Result<(), SinkError> {
        self.producer().await.map(drop)
    }

    async fn write(&mut self, batch: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError> {
        let producer = self.producer().await?;
        if self.is_there(batch) {
            self.undecided = None;
            return Ok(());
        }
        let Some(first) = rows.first() else { return Ok(()) };
        let failed = |error: ArrowError| SinkError::new(error.to_string());
        let all = datafusion::arrow::compute::concat_batches(&first.schema(), rows).map_err(failed)?;
        if all.num_rows() > MAX_MESSAGES {
            return Err(SinkError::new(format!("{} rows are more than fit into one transaction", all.num_rows())));
        }
        let messages = Messages::of(&all, &self.config).map_err(failed)?;
        let sent = self.send(&producer, (batch.number, batch.time), &messages).await;
        if let Some(why) = producer.fatal() {
            warn!("sink {}: the Kafka producer cannot go on and is made anew: {why}", self.name);
            self.producer = None;
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int64Array, StringArray};

    use super::*;

    fn config(key: Option<&str>, value: Option<&str>) -> KafkaConfig {
        KafkaConfig {
            topic: "t".to_owned(),
            key: key.map(str::to_owned),
            value: value.map(str::to_owned),
            exactly_once: true,
            transactional_id: None,
        }
    }

    fn rows() -> RecordBatch {
        let words: ArrayRef = Arc::new(StringArray::from(vec![Some("a\nb"), None]));
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        RecordBatch::try_from_iter([("word", words), ("n", counts)]).expect("they are as long")
    }

    fn texts(column: &BinaryArray) -> Vec<Option<String>> {
        column.iter().map(|bytes| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())).collect()
    }

    #[test]
    fn a_message_is_the_row_or_one_of_its_columns() {
        let messages = Messages::of(&rows(), &config(Some("word"), None)).expect("it can be written");
        assert_eq!(texts(&messages.values), [Some(r#"{"word":"a\nb","n":1}"#.into()), Some(r#"{"n":2}"#.into())]);
        assert_eq!(texts(messages.keys.as_ref().expect("there are keys")), [Some("a\nb".into()), None]);
        let messages = Messages::of(&rows(), &config(None, Some("n"))).expect("it can be written");
        assert_eq!(texts(&messages.values), [Some("1".into()), Some("2".into())]);
        assert!(messages.keys.is_none());
    }

    #[test]
    fn a_batch_is_read_as_it_was_stored() {
        assert_eq!(read_note(&note((7, -5))), Some((7, -5)));
        for text in ["", "flume-rs-stream 1", "flume-rs-stream 2 1 1", "flume-rs 1 c 0-5"] {
            assert_eq!(read_note(text), None, "{text}");
        }
    }
}
