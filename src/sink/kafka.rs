//! The Kafka sink: events become messages of Kafka topics.
//!
//! A batch leaves the channel when the delivery reports of all its messages say so. No message expires while it waits
//! for a broker, and when the client's queue is full the sink waits. An event that Kafka will never take, such as one
//! that is too large, is refused and the rest goes on.
//!
//! | key | default | what |
//! |---|---|---|
//! | `kafka.bootstrap.servers` (old: `brokerList`) | | `host:port` of some brokers |
//! | `kafka.topic` (old: `topic`) | `default-flume-topic` | may have escapes such as `%{header}`, which need `allowTopicOverride` |
//! | `flumeBatchSize` (old: `batchSize`) | 100 | events in a batch |
//! | `useFlumeEventFormat` | false | whether a message is a whole event in Avro, or the body |
//! | `allowTopicOverride`, `topicHeader` | true, `topic` | the header that names another topic |
//! | `defaultPartitionId`, `partitionIdHeader` | | the partition; the header comes first |
//! | `timestampHeader` | | the header with the time of the message, in ms |
//! | `header.NAME` | | the header of the message that gets the event's header NAME |
//! | `kafka.producer.*` (old: `requiredAcks` for `acks`) | `acks` 1 | [options](crate::kafka::options) of the client |
//!
//! The header `key` is the message's key.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::types::RDKafkaErrorCode;
use tracing::{info, warn};

use super::{BuiltSink, Refused, Sink, SinkBuilder, SinkConfig, SinkError};
use crate::config::{ComponentType, Props};
use crate::escape::Template;
use crate::event::{Batch, EventRef, Headers};
use crate::java::{parse_int, parse_long};
use crate::kafka::options::Options;
use crate::kafka::producer::{Failure, Producer, Record, SLOTS, Ticket};
use crate::kafka::{KEY_HEADER, Words, bootstrap_servers, deprecated, is_topic_name};
use crate::logging::Limited;
use crate::metrics::{Extras, SinkCounters};
use crate::rpc::avro::events::put_event;

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["kafka"],
    class: "org.apache.flume.sink.kafka.KafkaSink",
    build: |props| Some(Box::new(KafkaConfig::from_props(props)?)),
};

const DEFAULT_TOPIC: &str = "default-flume-topic";
const SEND_TIMER: &str = "KafkaEventSendTimer";
const ROLLBACKS: &str = "RollbackCount";
const EXTRAS: Extras = &[(SEND_TIMER, "channel.kafka.event.send.time"), (ROLLBACKS, "channel.rollback.count")];

#[derive(Clone)]
struct KafkaConfig {
    batch_size: usize,
    message: MessageConfig,
    options: Options,
}

/// How an event becomes a message.
#[derive(Clone)]
struct MessageConfig {
    topic: Topic,
    /// The header that names another topic.
    topic_header: Option<String>,
    partition: Option<i32>,
    partition_header: Option<String>,
    timestamp_header: Option<String>,
    /// Headers of events, and what they are called in messages.
    headers: Vec<(String, String)>,
    whole_event: bool,
}

#[derive(Clone)]
enum Topic {
    Fixed(String),
    Escaped(Template),
}

impl KafkaConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let servers = bootstrap_servers(props, "brokerList");
        let topic_key = deprecated(props, "kafka.topic", "topic");
        let topic = props.text(topic_key).filter(|topic| !topic.is_empty());
        match topic {
            Some(topic) => info!("Using the static topic {topic}. This may be overridden by event headers"),
            None => warn!("Topic was not specified. Using {DEFAULT_TOPIC} as the topic."),
        }
        let topic = topic.unwrap_or(DEFAULT_TOPIC);
        let override_allowed = props.or("allowTopicOverride", true);
        let topic_header: String = props.or("topicHeader", "topic".to_owned());
        // Flume looks for escapes only where a header could have named the topic.
        let topic = if override_allowed {
            Template::new(topic).map(Topic::Escaped).unwrap_or_else(|why| {
                props.error(topic_key, &format!("a topic, perhaps with escapes; {why}"), "");
                Topic::Fixed(String::new())
            })
        } else {
            if !is_topic_name(topic) {
                props.error(topic_key, "the name of a topic: letters, digits, '.', '_' and '-', at most 249", "");
            }
            Topic::Fixed(topic.to_owned())
        };
        let batch_key = deprecated(props, "flumeBatchSize", "batchSize");
        let batch_size = props.positive(batch_key, 100, "events");
        for key in ["key.serializer.class", "serializer.class"] {
            if props.text(key).is_some() {
                props.warning(
                    key,
                    "has no effect: a key is text, and a message is the body or, with useFlumeEventFormat, the event",
                );
            }
        }
        let acks_key = deprecated(props, "kafka.producer.acks", "requiredAcks");
        let acks = props.text(acks_key).unwrap_or("1");
        let headers = props.family("header");
        let partition: Option<i32> = props.optional("defaultPartitionId");
        if partition.is_some_and(|partition| partition < 0) {
            props.error("defaultPartitionId", "the number of a partition, 0 or more", "");
        }
        let options = Options::producer(props, &servers, &[("acks", acks)]);
        props.finish(Self {
            batch_size,
            message: MessageConfig {
                topic,
                topic_header: override_allowed.then_some(topic_header),
                partition,
                partition_header: props.optional("partitionIdHeader"),
                timestamp_header: props.optional("timestampHeader"),
                headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.value.clone())).collect(),
                whole_event: props.or("useFlumeEventFormat", false),
            },
            options,
        })
    }
}

impl SinkConfig for KafkaConfig {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn build(&self, name: &str, counters: Arc<SinkCounters>) -> BuiltSink {
        counters.extend(EXTRAS);
        BuiltSink::Push(Box::new(KafkaSink {
            name: name.to_owned(),
            config: self.clone(),
            counters,
            producer: None,
            under_way: VecDeque::new(),
            refused: Vec::new(),
            scratch: Vec::new(),
            complaints: Limited::default(),
        }))
    }
}

/// What an event's headers say about its message.
struct Envelope<'a> {
    topic: Cow<'a, str>,
    partition: Option<i32>,
    timestamp: Option<i64>,
    headers: Option<OwnedHeaders>,
}

impl MessageConfig {
    fn topic<'a>(&'a self, headers: &'a Headers) -> Result<Cow<'a, str>, String> {
        let named = self.topic_header.as_deref().and_then(|header| headers.get(header));
        let topic = match (named, &self.topic) {
            (Some(topic), _) => topic.into(),
            (None, Topic::Fixed(topic)) => topic.into(),
            (None, Topic::Escaped(template)) => template.expand(headers)?,
        };
        if is_topic_name(&topic) { Ok(topic) } else { Err(format!("{topic:?} is no name of a topic")) }
    }

    /// Reads the headers. An error says why the event can never become a message.
    fn envelope<'a>(&'a self, headers: &'a Headers, complaints: &Limited) -> Result<Envelope<'a>, String> {
        let topic = self.topic(headers)?;
        let value = |name: &Option<String>| name.as_deref().and_then(|name| headers.get(name));
        let partition = match value(&self.partition_header) {
            None => self.partition,
            Some(text) => match parse_int(text) {
                Some(partition) if partition >= 0 => Some(partition),
                Some(_) => return Err(format!("Invalid partition: {text}")),
                None => return Err(format!("Non integer partition id specified: {text:?}")),
            },
        };
        let timestamp = value(&self.timestamp_header).and_then(|text| {
            let time = parse_long(text).filter(|time| *time >= 0);
            if let (None, Some(others)) = (time, complaints.permit().filter(|_| time.is_none())) {
                let header = self.timestamp_header.as_deref().unwrap_or_default();
                warn!("Invalid timestamp in header {header} - {text}{others}");
            }
            time
        });
        let mut own = None;
        for (name, kafka_name) in &self.headers {
            if let Some(value) = headers.get(name) {
                let headers = own.take().unwrap_or_else(OwnedHeaders::new);
                own = Some(headers.insert(Header { key: kafka_name, value: Some(value) }));
            }
        }
        Ok(Envelope { topic, partition, timestamp, headers: own })
    }
}

/// A batch that is under way.
struct Sent {
    ticket: Ticket,
    refused: Vec<Refused>,
    since: Instant,
}

struct KafkaSink {
    name: String,
    config: KafkaConfig,
    counters: Arc<SinkCounters>,
    /// None before the start, and after a fatal error.
    producer: Option<Producer>,
    under_way: VecDeque<Sent>,
    refused: Vec<Refused>,
    /// For events that are written as a whole.
    scratch: Vec<u8>,
    complaints: Limited,
}

impl KafkaSink {
    fn make_producer(&self) -> Result<Producer, SinkError> {
        Producer::new(&self.config.options.config(), &format!("Sink {}", self.name))
            .map_err(|error| SinkError::new(format!("the Kafka producer cannot be made: {}", Words(&error))))
    }

    /// Whether a message will never be taken, however often it is sent.
    fn is_hopeless(code: RDKafkaErrorCode) -> bool {
        use RDKafkaErrorCode::{InvalidMessage, InvalidMessageSize, InvalidRecord, InvalidTopic, MessageSizeTooLarge};
        matches!(code, MessageSizeTooLarge | InvalidMessageSize | InvalidRecord | InvalidMessage | InvalidTopic)
    }

    /// Sends the messages that broke no rule themselves but were in one request with one that did, each on its own.
    async fn send_alone(
        &mut self,
        producer: &Producer,
        batch: &Batch,
        failures: Vec<Failure>,
    ) -> Result<Vec<Refused>, Failure> {
        let mut refused = Vec::new();
        for (index, _) in failures {
            let event = batch.get(index);
            let ticket = producer.open(1).await;
            self.send(producer, &ticket, index, event, &mut refused).await;
            match ticket.wait().await.first() {
                None => {}
                Some((_, code)) if Self::is_hopeless(*code) => {
                    let why =
                        format!("{code} (topic {})", self.config.message.topic(event.headers()).unwrap_or_default());
                    refused.push(Refused { index, why });
                }
                Some(failure) => return Err(*failure),
            }
        }
        Ok(refused)
    }

    async fn send(
        &mut self,
        producer: &Producer,
        ticket: &Ticket,
        index: usize,
        event: EventRef<'_>,
        refused: &mut Vec<Refused>,
    ) {
        let headers = event.headers();
        let envelope = match self.config.message.envelope(headers, &self.complaints) {
            Ok(envelope) => envelope,
            Err(why) => {
                refused.push(Refused { index, why });
                return ticket.skip();
            }
        };
        let payload = if self.config.message.whole_event {
            self.scratch.clear();
            put_event(&mut self.scratch, event);
            &self.scratch
        } else {
            event.body()
        };
        let record = Record {
            topic: &envelope.topic,
            partition: envelope.partition,
            payload: Some(payload),
            key: headers.get(KEY_HEADER).map(str::as_bytes),
            timestamp: envelope.timestamp,
            headers: envelope.headers,
            delivery_opaque: 0,
        };
        producer.send(ticket, index, record).await;
    }

    fn failed(&self, of: usize, failures: &[Failure]) -> SinkError {
        self.counters.add_extra(ROLLBACKS, 1);
        let why = failures.first().map_or(String::new(), |(_, code)| code.to_string());
        SinkError::new(format!("Failed to publish events: {} of {of} were not delivered: {why}", failures.len()))
    }
}

#[async_trait]
impl Sink for KafkaSink {
    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    async fn start(&mut self) -> Result<(), SinkError> {
        self.producer = Some(self.make_producer()?);
        Ok(())
    }

    fn depth(&self) -> usize {
        SLOTS / 2
    }

    async fn begin(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.make_producer()?,
        };
        let ticket = producer.open(batch.len()).await;
        let mut sent = Sent { ticket, refused: Vec::new(), since: Instant::now() };
        for (index, event) in batch.iter().enumerate() {
            self.send(&producer, &sent.ticket, index, event, &mut sent.refused).await;
        }
        self.under_way.push_back(sent);
        self.producer = Some(producer);
        Ok(())
    }

    async fn end(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let Some(Sent { ticket, mut refused, since }) = self.under_way.pop_front() else { return Ok(()) };
        let Some(producer) = self.producer.take() else {
            return Err(self.failed(batch.len(), &[]));
        };
        let failures = ticket.wait().await;
        let mut outcome = Ok(());
        if !failures.is_empty() {
            outcome = if failures.iter().all(|(_, code)| Self::is_hopeless(*code)) {
                let alone = self.send_alone(&producer, batch, failures).await;
                alone.map(|alone| refused.extend(alone)).map_err(|failure| self.failed(batch.len(), &[failure]))
            } else {
                Err(self.failed(batch.len(), &failures))
            };
        }
        match producer.fatal() {
            Some(why) => warn!("Sink {}: the Kafka producer cannot go on and is made anew: {why}", self.name),
            None => self.producer = Some(producer),
        }
        outcome?;
        refused.sort_unstable_by_key(|refused| refused.index);
        self.refused = refused;
        self.counters.add_extra(SEND_TIMER, since.elapsed().as_millis() as u64);
        Ok(())
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.begin(batch).await?;
        self.end(batch).await
    }

    fn refused(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.refused)
    }
}
