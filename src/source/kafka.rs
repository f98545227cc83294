//! The Kafka source: messages of Kafka topics become events.
//!
//! Offsets are committed once the events are in the channels, so that a crash loses none. While the channels are full the
//! source stays a member of its group.
//!
//! # Exactly once
//! A file channel stores with each batch how far the source is with it. After a crash the source goes on there, also where
//! its last commit did not get to the brokers, and every message is in the channel once. This holds
//!
//! - with one channel. With several, all of them file channels that get every event, a crash between their writes
//!   repeats a batch in those that were faster; where a selector gives them different events, batches that were not
//!   committed are repeated. Memory and spillable channels keep no such notes, and optional channels are not asked;
//! - while a partition comes back to the agent that had it: what another agent of the group has put or is putting, and has
//!   not committed, is repeated. With a `kafka.consumer.group.instance.id` of its own, an agent that is started again within
//!   `session.timeout.ms` gets its partitions back, and at once;
//! - unless the channel's `transactionCapacity` becomes smaller than a batch that is on its way.
//!
//! An operator who moves the group's offsets (`kafka-consumer-groups --reset-offsets`) is obeyed, as the notes belong to
//! the source's own commits: their metadata names what they follow. So it begins anew where the offsets were deleted, with
//! their topic or alone. Where nothing is committed, the source commits its place before it reads.
//!
//! | key | default | what |
//! |---|---|---|
//! | `kafka.bootstrap.servers` | | `host:port` of some brokers |
//! | `kafka.topics` (old: `topic`) | | topics, separated by commas |
//! | `kafka.topics.regex` | | a pattern of whole names of topics, which comes before `kafka.topics` |
//! | `kafka.consumer.group.id` (old: `groupId`) | `flume` | the consumer group |
//! | `batchSize` | 1000 | the most messages in a transaction |
//! | `batchDurationMillis` | 1000 | no effect: what is there is delivered at once |
//! | `useFlumeEventFormat` | false | whether a message is a whole event in Avro, or the body |
//! | `setTopicHeader`, `topicHeader` | true, `topic` | the header for the message's topic |
//! | `header.NAME` | | the message's header that becomes the event's header NAME |
//! | `kafka.consumer.*` | | [options](crate::kafka::options) of the client |
//!
//! Headers: `timestamp`, `topic`, `partition` and `offset`, where the event does not have them, and `key`.

use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Headers as _, Message as _};
use smol_str::{SmolStr, ToSmolStr as _};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{ChannelProcessor, Source, SourceBuilder, SourceConfig, SourceError};
use crate::channel::Note;
use crate::config::{ComponentType, Props};
use crate::event::{Batch, Headers};
use crate::kafka::consumer::{Consumer, Positions};
use crate::kafka::options::Options;
use crate::kafka::{KEY_HEADER, Words, check_servers, deprecated, is_topic_name, pattern};
use crate::metrics::Extras;
use crate::rpc::avro::events::read_event;

/// How the type is registered.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["kafka"],
    class: "org.apache.flume.source.kafka.KafkaSource",
    build: |props| Some(Box::new(Arc::new(KafkaConfig::from_props(props)?))),
};

const GET_TIMER: &str = "KafkaEventGetTimer";
const COMMIT_TIMER: &str = "KafkaCommitTimer";
const EMPTY: &str = "KafkaEmptyCount";
const EXTRAS: Extras = &[
    (COMMIT_TIMER, "source.kafka.commit.time"),
    (EMPTY, "source.kafka.empty.count"),
    (GET_TIMER, "source.kafka.event.get.time"),
];

/// How often a source that waits for room shows its group that it is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How long the last commit may take when the source stops, and leaving the group.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// The most bytes of bodies in a batch.
const BATCH_BYTES: usize = 8 << 20;

#[derive(Debug)]
struct KafkaConfig {
    topics: Vec<String>,
    batch_size: usize,
    event: EventConfig,
    options: Options,
}

/// How a message becomes an event.
#[derive(Debug)]
struct EventConfig {
    whole_event: bool,
    topic_header: Option<SmolStr>,
    /// Headers of messages, and what they are called in events.
    headers: Vec<(SmolStr, String)>,
}

impl KafkaConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let servers = servers(props);
        let topics_key = deprecated(props, "kafka.topics", "topic");
        let list: String = props.or(topics_key, String::new());
        let topics = match props.text("kafka.topics.regex").filter(|text| !text.is_empty()) {
            Some(pattern) => pattern::posix(pattern).map(|pattern| vec![pattern]).unwrap_or_else(|why| {
                props.error("kafka.topics.regex", &format!("a pattern of topics' names; {why}"), "");
                vec![String::new()]
            }),
            None => list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        };
        // The client takes a name that begins with ^ for a pattern, and one that is none keeps it from all others.
        let mut names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        if names.any(|name| !is_topic_name(name)) {
            let expected = "names of topics: letters, digits, '.', '_' and '-', at most 249 each, separated by commas; \
                            kafka.topics.regex takes a pattern";
            props.error(topics_key, expected, "");
        }
        if topics.is_empty() {
            let expected = "topics, separated by commas; or kafka.topics.regex";
            props.error(topics_key, expected, "At least one Kafka topic must be specified.");
        }
        let group_key = deprecated(props, "kafka.consumer.group.id", "groupId");
        let group: String = props.or(group_key, "flume".to_owned());
        let batch_size = props.positive("batchSize", 1000, "messages");
        for key in ["batchDurationMillis", "backoffSleepIncrement", "maxBackoffSleep"] {
            props.or(key, 1000i64);
        }
        let set_topic = props.or("setTopicHeader", true);
        let topic_header: String = props.or("topicHeader", "topic".to_owned());
        let headers = props.family("header");
        let mut options = Options::consumer(props, &servers, &[]);
        options.set("group.id", group);
        options.try_consumer(props);
        props.finish(Self {
            topics,
            batch_size,
            event: EventConfig {
                whole_event: props.or("useFlumeEventFormat", false),
                topic_header: set_topic.then(|| topic_header.into()),
                headers: headers.into_iter().map(|(name, value)| (name.into(), value.value.clone())).collect(),
            },
            options,
        })
    }
}

/// The brokers. Flume could ask ZooKeeper for them, and move offsets from there.
fn servers(props: &Props<'_>) -> String {
    let key = "kafka.bootstrap.servers";
    let zookeeper = props.text("zookeeperConnect").is_some();
    let migrate = props.or("migrateZookeeperOffsets", true);
    if zookeeper && props.text(key).is_none() {
        let expected =
            "host:port of one or more Kafka brokers; ZooKeeper, which zookeeperConnect names, is not asked for them";
        props.error(key, expected, "");
        return String::new();
    }
    if zookeeper {
        let offsets = if migrate { ", and no offsets are taken over from there" } else { "" };
        props.warning("zookeeperConnect", &format!("has no effect: ZooKeeper is not asked for anything{offsets}"));
    }
    let servers: String = props.required(
        key,
        "host:port of one or more Kafka brokers, separated by commas",
        "Bootstrap Servers must be specified",
    );
    check_servers(props, key, &servers);
    servers
}

impl SourceConfig for Arc<KafkaConfig> {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn build(&self, name: &str) -> Box<dyn Source> {
        Box::new(KafkaSource { name: name.to_owned(), config: Self::clone(self), consumer: None })
    }
}

struct KafkaSource {
    name: String,
    config: Arc<KafkaConfig>,
    consumer: Option<Consumer>,
}

/// Messages on their way to the channels.
#[derive(Default)]
struct Gathered {
    bodies: Vec<u8>,
    events: Vec<(usize, Headers)>,
    positions: Positions,
}

impl Gathered {
    /// Adds a message. An error says what is wrong with it; it is then left behind.
    fn add(&mut self, message: &BorrowedMessage<'_>, config: &EventConfig) -> Result<(), String> {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        self.positions.advance(topic, partition, offset + 1);
        let payload = message.payload().unwrap_or_default();
        let (mut headers, body) = if config.whole_event {
            let (headers, body) = read_event(payload).map_err(|error| {
                format!("the message at offset {offset} of {topic}-{partition} is no event: {error}")
            })?;
            (headers, &payload[body])
        } else {
            (Headers::with_capacity(4 + config.headers.len()), payload)
        };
        let mut set_missing = |key: &SmolStr, value: SmolStr| {
            if headers.get(key).is_none() {
                headers.set(key.clone(), value);
            }
        };
        if let Some(time) = message.timestamp().to_millis() {
            set_missing(&SmolStr::new_static("timestamp"), time.to_smolstr());
        }
        if let Some(header) = &config.topic_header {
            set_missing(header, topic.into());
        }
        set_missing(&SmolStr::new_static("partition"), partition.to_smolstr());
        set_missing(&SmolStr::new_static("offset"), offset.to_smolstr());
        if !config.headers.is_empty() {
            for one in message.headers().into_iter().flat_map(readable) {
                for (name, _) in config.headers.iter().filter(|(_, kafka_name)| kafka_name == one.key) {
                    headers.set(name.clone(), text(one.value.unwrap_or_default()));
                }
            }
        }
        if let Some(key) = message.key() {
            headers.set(KEY_HEADER, text(key));
        }
        self.bodies.extend_from_slice(body);
        self.events.push((self.bodies.len(), headers));
        Ok(())
    }

    fn is_full(&self, batch_size: usize) -> bool {
        self.events.len() >= batch_size || self.bodies.len() >= BATCH_BYTES
    }

    fn take(&mut self) -> (Batch, Positions) {
        let Self { bodies, events, positions } = std::mem::take(self);
        let mut batch = Batch::with_capacity(events.len());
        let buffer = batch.push_buffer(bodies.into());
        let mut start = 0;
        for (end, headers) in events {
            let headers = batch.push_headers(headers);
            batch.push_span(buffer, start, end, headers);
            start = end;
        }
        (batch, positions)
    }
}

/// The headers of a message whose names are UTF-8; at others the binding panics.
fn readable(headers: &BorrowedHeaders) -> impl Iterator<Item = Header<'_, &[u8]>> {
    (0..headers.count()).filter_map(|index| catch_unwind(|| headers.get(index)).ok())
}

fn text(bytes: &[u8]) -> SmolStr {
    String::from_utf8_lossy(bytes).into()
}

impl KafkaSource {
    /// Gathers what is here, up to a batch. An error is one that the consumer does not get over.
    fn gather(&self, consumer: &Consumer, gathered: &mut Gathered, out: &ChannelProcessor) -> Result<(), SourceError> {
        // More than one transaction takes cannot have one note.
        let most = self.config.batch_size.min(out.transaction_capacity());
        while !gathered.is_full(most) {
            match consumer.next() {
                None => break,
                Some(Ok(message)) => self.add(&message, gathered, out),
                Some(Err(error)) => {
                    out.counters().event_read_fail.add(1);
                    if matches!(error, rdkafka::error::KafkaError::MessageConsumptionFatal(_)) {
                        return Err(SourceError::new(format!("the Kafka consumer cannot go on: {}", Words(&error))));
                    }
                    if let Some(others) = out.may_complain() {
                        warn!("Source {}: {}{others}", self.name, Words(&error));
                    }
                }
            }
        }
        match consumer.failed() {
            Some(why) => Err(SourceError::new(format!("it is not known where partitions go on: {why}"))),
            None => Ok(()),
        }
    }

    fn add(&self, message: &BorrowedMessage<'_>, gathered: &mut Gathered, out: &ChannelProcessor) {
        if let Err(why) = gathered.add(message, &self.config.event) {
            out.counters().event_read_fail.add(1);
            out.refuse(1);
            if let Some(others) = out.may_complain() {
                error!("KafkaSource EXCEPTION, source {}: {why}; it is skipped{others}", self.name);
            }
        }
    }

    /// Delivers a batch, and stays a member of the group meanwhile. Returns whether it was delivered.
    async fn deliver(
        &self,
        consumer: &Consumer,
        batch: Batch,
        notes: Option<Arc<[Note]>>,
        gathered: &mut Gathered,
        out: &ChannelProcessor,
        stop: &CancellationToken,
    ) -> bool {
        let mut delivery = std::pin::pin!(out.deliver_noted(batch, notes.as_ref(), stop));
        let mut held = false;
        let delivered = loop {
            match tokio::time::timeout(SIGN_OF_LIFE, &mut delivery).await {
                Ok(all) => break all || !stop.is_cancelled(),
                Err(_) => {
                    held = true;
                    consumer.hold(|message| self.add(&message, gathered, out));
                }
            }
        };
        if held {
            consumer.go_on();
        }
        delivered
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        let topics: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        let consumer = Consumer::new(&self.config.options.config(), &format!("Source {}", self.name), &topics);
        let failed = |error| SourceError::new(format!("the Kafka consumer cannot be made: {}", Words(&error)));
        self.consumer = Some(consumer.map_err(failed)?);
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let Some(consumer) = self.consumer.take() else { return Ok(()) };
        let counters = out.counters();
        counters.extend(EXTRAS);
        if out.keeps_notes() {
            // What they know is asked for when partitions come.
            if !matches!(stop.run_until_cancelled(out.opened()).await, Some(Ok(()))) {
                return Ok(());
            }
            let channels = out.clone();
            consumer.recall(move |stream| channels.noted(stream));
        }
        let mut gathered = Gathered::default();
        while !stop.is_cancelled() {
            let since = Instant::now();
            self.gather(&consumer, &mut gathered, out)?;
            let (batch, positions) = gathered.take();
            if batch.is_empty() && positions.is_empty() {
                counters.add_extra(EMPTY, 1);
                consumer.commit(positions);
                stop.run_until_cancelled(consumer.readable()).await;
                continue;
            }
            let notes = consumer.notes(&positions);
            counters.add_extra(GET_TIMER, since.elapsed().as_millis() as u64);
            if !self.deliver(&consumer, batch, notes, &mut gathered, out, stop).await {
                break;
            }
            consumer.commit(positions);
            counters.add_extra(COMMIT_TIMER, consumer.spent_on_commits().as_millis() as u64);
            tokio::task::consume_budget().await;
        }
        consumer.close(LAST_COMMIT).await;
        Ok(())
    }
}
