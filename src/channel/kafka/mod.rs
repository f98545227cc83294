//! The Kafka channel: events wait in a Kafka topic, from which several agents of one group may take them.
//!
//! A put is in the channel when Kafka has acknowledged all its messages. A take commits its offsets; those of one that
//! rolls back are handed out again. The offset of a partition is committed up to the first event that no sink has
//! delivered, in whatever order sinks commit. Producer and consumer are made when something is first put or taken, so
//! that a channel with only a source, or only sinks, has only the one.
//!
//! | key | default | what |
//! |---|---|---|
//! | `kafka.bootstrap.servers` (old: `brokerList`) | | `host:port` of some brokers |
//! | `kafka.topic` (old: `topic`) | `flume-channel` | the topic |
//! | `kafka.consumer.group.id` (old: `groupId`) | `flume` | the consumer group |
//! | `kafka.consumer.auto.offset.reset` (old: `readSmallestOffset`) | `earliest` | where a new group begins |
//! | `parseAsFlumeEvent` | true | whether messages are events in Avro, or only bodies |
//! | `defaultPartitionId`, `partitionIdHeader` | | the partition; the header comes first |
//! | `kafka.pollTimeout` | 500 | no effect: what is there is taken at once |
//! | `kafka.producer.*`, `kafka.consumer.*` | `acks` all | [options](crate::kafka::options) of the clients |
//!
//! The header `key` is the message's key.

mod taken;

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{error, warn};

use super::{Channel, ChannelConfig, ChannelError, Patience, Put, PutTransaction, Take, TakeTransaction};
use crate::config::{ComponentType, Props};
use crate::event::{Batch, Event, EventRef};
use crate::java::parse_int;
use crate::kafka::consumer::Consumer;
use crate::kafka::options::Options;
use crate::kafka::producer::{Producer, Record};
use crate::kafka::{
    KEY_HEADER, TOPIC_NAME, Words, bootstrap_servers, deprecated, is_hopeless, is_topic_name, no_such_partition,
};
use crate::logging::{Excerpt, Limited};
use crate::metrics::{ChannelCounters, Extras, Metrics};
use crate::rpc::avro::events::{put_event, read_event};
use taken::{Places, Taking, Tracker};

/// How the type is registered.
pub const TYPE: ComponentType<super::ChannelBuilder> = ComponentType {
    aliases: &["kafka"],
    class: "org.apache.flume.channel.kafka.KafkaChannel",
    build: |props| Some(Box::new(KafkaConfig::from_props(props)?)),
};

const GET_TIMER: &str = "KafkaEventGetTimer";
const SEND_TIMER: &str = "KafkaEventSendTimer";
const COMMIT_TIMER: &str = "KafkaCommitTimer";
const ROLLBACKS: &str = "RollbackCount";
const EXTRAS: Extras = &[
    (COMMIT_TIMER, "channel.kafka.commit.time"),
    (GET_TIMER, "channel.kafka.event.get.time"),
    (SEND_TIMER, "channel.kafka.event.send.time"),
    (ROLLBACKS, "channel.rollback.count"),
];

/// Flume's channel has no limit; this one bounds what a transaction takes in memory.
const TRANSACTION_CAPACITY: usize = 100_000;
const TRANSACTION_BYTES: usize = 16 << 20;
/// What a message takes beside its key and value, and an event or a header beside its texts, at most.
const OVERHEAD: usize = 512;
const HEADER_OVERHEAD: usize = 10;
/// A put that fails takes so long at least: nobody is to try again at once, and again.
const FAILED_PUT: Duration = Duration::from_secs(1);
/// How often a consumer from which no sink takes serves its group, whose other members would wait for it otherwise.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
const TRANSACTIONAL_ID: &str = "kafka.producer.transactional.id";
const LAST_COMMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
struct KafkaConfig {
    topic: String,
    whole_event: bool,
    partition: Option<i32>,
    partition_header: Option<String>,
    max_message: usize,
    producer: Options,
    consumer: Options,
}

impl KafkaConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let servers = bootstrap_servers(props, "brokerList");
        let topic_key = deprecated(props, "kafka.topic", "topic");
        let topic: String = props.or(topic_key, "flume-channel".to_owned());
        if !is_topic_name(&topic) {
            props.error(topic_key, TOPIC_NAME, "");
        }
        let group_key = deprecated(props, "kafka.consumer.group.id", "groupId");
        let group: String = props.or(group_key, "flume".to_owned());
        let begin = match props.optional::<bool>("readSmallestOffset") {
            Some(false) => "latest",
            _ => "earliest",
        };
        for key in ["zookeeperConnect", "migrateZookeeperOffsets"] {
            if props.text(key).is_some() {
                props.warning(key, "has no effect: ZooKeeper is not asked for anything, and no offsets are taken over");
            }
        }
        props.text("timeout");
        props.or("kafka.pollTimeout", 500i64);
        let partition: Option<i32> = props.optional("defaultPartitionId");
        if partition.is_some_and(|partition| partition < 0) {
            props.error("defaultPartitionId", "the number of a partition, 0 or more", "");
        }
        // Unlike a sink's, a failed put is told to the source's client, which cannot wait for ever.
        let own = [("acks", "all"), ("message.timeout.ms", "120000")];
        let mut producer = Options::producer(props, &servers, &own);
        if props.text(TRANSACTIONAL_ID).is_some() {
            props.warning(TRANSACTIONAL_ID, "has no effect: a put is in the channel when Kafka has all its messages");
            producer.unset("transactional.id");
        }
        producer.try_producer(props);
        let mut consumer = Options::consumer(props, &servers, &[("auto.offset.reset", begin)]);
        consumer.set("group.id", group);
        consumer.try_consumer(props);
        let max_message = producer.get("message.max.bytes").and_then(|value| value.parse().ok());
        props.finish(Self {
            topic,
            whole_event: props.or("parseAsFlumeEvent", true),
            partition,
            partition_header: props.optional("partitionIdHeader"),
            max_message: max_message.unwrap_or(usize::MAX).saturating_sub(OVERHEAD),
            producer,
            consumer,
        })
    }

    fn partition(&self, event: EventRef<'_>) -> Result<Option<i32>, String> {
        let text = self.partition_header.as_deref().and_then(|header| event.headers().get(header));
        match text {
            None => Ok(self.partition),
            Some(text) => match parse_int(text).filter(|partition| *partition >= 0) {
                Some(partition) => Ok(Some(partition)),
                None => Err(format!("Non integer partition id specified: {:?}", Excerpt(text).to_string())),
            },
        }
    }

    /// The bytes of an event's message, without its overhead.
    fn size(&self, event: EventRef<'_>) -> usize {
        let headers = event.headers();
        let key = headers.get(KEY_HEADER).map_or(0, str::len);
        let texts = headers.iter().filter(|_| self.whole_event);
        key + event.body().len() + texts.map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD).sum::<usize>()
    }
}

impl ChannelConfig for KafkaConfig {
    fn transaction_capacity(&self) -> Option<usize> {
        None
    }

    fn build(self: Box<Self>, name: &str, metrics: &Metrics) -> Arc<dyn Channel> {
        let counters = metrics.register(Arc::new(ChannelCounters::new(name)));
        counters.extend(EXTRAS);
        Arc::new(Handle(Arc::new(Shared {
            name: name.to_owned(),
            config: *self,
            counters,
            stopped: AtomicBool::new(false),
            producer: Mutex::default(),
            partitions: AtomicUsize::new(0),
            consumer: tokio::sync::Mutex::default(),
            tracker: Mutex::default(),
            is_held: AtomicBool::new(false),
            returned: Notify::new(),
            complaints: Limited::default(),
        })))
    }

    fn apply(&self, _running: &dyn Channel) -> bool {
        false
    }
}

struct Handle(Arc<Shared>);

struct Shared {
    name: String,
    config: KafkaConfig,
    counters: Arc<ChannelCounters>,
    stopped: AtomicBool,
    producer: Mutex<Option<Arc<Producer>>>,
    /// How many partitions the topic had when a broker was asked; 0 when that is to be asked.
    partitions: AtomicUsize,
    /// One sink at a time asks for messages.
    consumer: tokio::sync::Mutex<Option<Arc<Consumer>>>,
    tracker: Mutex<Tracker>,
    /// Whether the consumer has been told to keep what it has.
    is_held: AtomicBool,
    /// Wakes a sink when another has put events back.
    returned: Notify,
    complaints: Limited,
}

impl Shared {
    fn owner(&self) -> String {
        format!("Channel {}", self.name)
    }

    fn tracker(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<(), ChannelError> {
        match self.stopped.load(Ordering::Acquire) {
            true => Err(ChannelError::Stopped { channel: self.name.clone() }),
            false => Ok(()),
        }
    }

    fn closed(&self, error: &KafkaError) -> ChannelError {
        ChannelError::Closed { channel: self.name.clone(), why: Words(error).to_string() }
    }

    fn send_failed(&self, cause: impl ToString, never: bool) -> ChannelError {
        ChannelError::SendFailed { channel: self.name.clone(), cause: cause.to_string(), never }
    }

    /// The producer, made anew when there is none or it cannot go on.
    fn producer(&self) -> Result<Arc<Producer>, ChannelError> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = producer.as_ref().and_then(|producer| producer.fatal()) {
            warn!("{}: the Kafka producer cannot go on and is made anew: {why}", self.owner());
            *producer = None;
        }
        if let Some(producer) = &*producer {
            return Ok(Arc::clone(producer));
        }
        let made = Producer::new(&self.config.producer.config(), &self.owner()).map_err(|error| self.closed(&error))?;
        Ok(Arc::clone(producer.insert(Arc::new(made))))
    }

    fn reserve(self: &Arc<Self>, batch: &Batch) -> Result<Put, ChannelError> {
        self.open()?;
        if batch.len() > TRANSACTION_CAPACITY {
            return Err(ChannelError::TransactionTooLarge { capacity: TRANSACTION_CAPACITY });
        }
        if let Some(bytes) =
            batch.iter().map(|event| self.config.size(event)).find(|size| *size > self.config.max_message)
        {
            return Err(ChannelError::RecordTooLarge { bytes, channel: self.name.clone() });
        }
        Ok(Put::new(Sending { channel: Arc::clone(self) }))
    }

    /// Sends a batch and waits until Kafka has all of it.
    async fn send(&self, batch: &Batch) -> Result<(), ChannelError> {
        let since = Instant::now();
        let partitions: Result<Vec<_>, _> = batch.iter().map(|event| self.config.partition(event)).collect();
        let partitions = partitions.map_err(|why| self.send_failed(why, true))?;
        let producer = self.producer()?;
        self.has_places(&producer, partitions.iter().copied().flatten()).await?;
        let ticket = producer.open(batch.len()).await;
        let mut scratch = Vec::new();
        for ((index, event), partition) in batch.iter().enumerate().zip(partitions) {
            let payload = if self.config.whole_event {
                scratch.clear();
                put_event(&mut scratch, event);
                &scratch
            } else {
                event.body()
            };
            let record = Record {
                topic: &self.config.topic,
                partition,
                payload: Some(payload),
                key: event.headers().get(KEY_HEADER).map(str::as_bytes),
                timestamp: None,
                headers: None,
                delivery_opaque: 0,
            };
            if let Err(code) = producer.send(&ticket, index, record).await {
                ticket.fail((index, code));
            }
        }
        let failures = ticket.wait().await;
        self.counters.add_extra(SEND_TIMER, since.elapsed().as_millis() as u64);
        let Some((_, code)) = failures.first() else { return Ok(()) };
        self.counters.add_extra(ROLLBACKS, 1);
        let never = failures.iter().any(|(_, code)| is_hopeless(*code));
        if failures.iter().any(|(_, code)| *code == RDKafkaErrorCode::UnknownPartition) {
            self.partitions.store(0, Ordering::Relaxed);
        }
        if !never {
            sleep(FAILED_PUT.saturating_sub(since.elapsed())).await;
        }
        Err(self.send_failed(format!("{} of {} events: {code}", failures.len(), batch.len()), never))
    }

    /// Refuses a partition that the topic does not have, before anything of the batch is there: a broker is asked for
    /// numbers that were never there before.
    async fn has_places(&self, producer: &Producer, named: impl Iterator<Item = i32>) -> Result<(), ChannelError> {
        let Some(highest) = named.max() else { return Ok(()) };
        if (highest as usize) < self.partitions.load(Ordering::Relaxed) {
            return Ok(());
        }
        let topic = &self.config.topic;
        // Where nobody says so, the attempt will tell.
        let Some(count) = producer.partitions(topic).await else { return Ok(()) };
        self.partitions.store(count, Ordering::Relaxed);
        match (highest as usize) < count {
            true => Ok(()),
            false => Err(self.send_failed(no_such_partition(topic, highest, count), true)),
        }
    }

    /// What is here, at most `max` events: first what has come back, then what Kafka has. An error is one that the
    /// consumer does not get over.
    fn try_take(&self, consumer: &Consumer, max: usize) -> Result<Option<Taking>, ChannelError> {
        let mut tracker = self.tracker();
        tracker.forget(consumer.revoked());
        if let Some(returned) = tracker.take_returned(max) {
            return Ok(Some(returned));
        }
        if self.is_held.swap(false, Ordering::Relaxed) {
            consumer.go_on();
        }
        let since = Instant::now();
        let mut taking = Taking::default();
        while taking.0.len() < max && taking.0.body_bytes() < TRANSACTION_BYTES {
            match consumer.next() {
                None => break,
                Some(Ok(message)) => self.add(consumer, &mut tracker, &message, &mut taking),
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(self.closed(&error)),
                Some(Err(error)) => {
                    if let Some(others) = self.complaints.permit() {
                        warn!("{}: {}{others}", self.owner(), Words(&error));
                    }
                }
            }
        }
        if taking.0.is_empty() {
            return Ok(None);
        }
        taking.0.repack();
        self.counters.add_extra(GET_TIMER, since.elapsed().as_millis() as u64);
        Ok(Some(taking))
    }

    /// Takes a message. One that is no event is left behind.
    fn add(&self, consumer: &Consumer, tracker: &mut Tracker, message: &BorrowedMessage<'_>, taking: &mut Taking) {
        // Partitions may have gone just before it came.
        tracker.forget(consumer.revoked());
        let place = (message.partition(), message.offset());
        tracker.took(place);
        match self.event(message) {
            Ok(event) => {
                taking.0.push(event);
                taking.1.push_back(place);
            }
            Err(why) => {
                tracker.done([place]);
                self.counters.lost.add(1);
                if let Some(others) = self.complaints.permit() {
                    error!("Error while getting events from Kafka. {}: {why}; it is skipped{others}", self.owner());
                }
            }
        }
    }

    /// Shows the group that the consumer is there, unless a sink that waits for events does.
    fn show_life(&self) {
        let Ok(made) = self.consumer.try_lock() else { return };
        let Some(consumer) = &*made else { return };
        let mut tracker = self.tracker();
        self.is_held.store(true, Ordering::Relaxed);
        let mut strays = Taking::default();
        consumer.hold(|message| self.add(consumer, &mut tracker, &message, &mut strays));
        tracker.forget(consumer.revoked());
        tracker.append(strays);
        consumer.commit(tracker.progress(&self.config.topic));
    }

    fn event(&self, message: &BorrowedMessage<'_>) -> Result<Event, String> {
        let payload = message.payload().unwrap_or_default();
        let mut event = if self.config.whole_event {
            let (headers, body) = read_event(payload).map_err(|error| {
                let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
                format!("the message at offset {offset} of {topic}-{partition} is no event: {error}")
            })?;
            Event { headers, body: payload[body].to_vec().into() }
        } else {
            Event::new(payload.to_vec())
        };
        if let Some(key) = message.key() {
            event.headers.set(KEY_HEADER, String::from_utf8_lossy(key));
        }
        Ok(event)
    }
}

#[async_trait]
impl Channel for Handle {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn counters(&self) -> &Arc<ChannelCounters> {
        &self.0.counters
    }

    fn transaction_capacity(&self) -> usize {
        TRANSACTION_CAPACITY
    }

    fn room(&self) -> usize {
        TRANSACTION_CAPACITY
    }

    fn in_memory(&self) -> u64 {
        0
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    async fn start(&self) -> Result<(), ChannelError> {
        self.0.stopped.store(false, Ordering::Release);
        let shared = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                sleep(SIGN_OF_LIFE).await;
                match shared.upgrade().filter(|shared| shared.open().is_ok()) {
                    Some(shared) => shared.show_life(),
                    None => return,
                }
            }
        });
        self.0.counters.started();
        Ok(())
    }

    async fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.returned.notify_waiters();
        self.0.producer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let consumer = self.0.consumer.lock().await.take().and_then(Arc::into_inner);
        if let Some(consumer) = consumer {
            consumer.close(LAST_COMMIT).await;
        }
        self.0.counters.stopped();
    }

    fn try_reserve(&self, batch: &Batch) -> Result<Put, ChannelError> {
        self.0.reserve(batch)
    }

    async fn reserve(&self, batch: &Batch, _patience: Patience) -> Result<Put, ChannelError> {
        self.0.reserve(batch)
    }

    async fn take(&self, max: usize) -> Result<Take, ChannelError> {
        let shared = &self.0;
        let max = max.clamp(1, TRANSACTION_CAPACITY);
        let mut made = shared.consumer.lock().await;
        loop {
            let returned = shared.returned.notified();
            shared.open()?;
            let consumer = match &mut *made {
                Some(consumer) => consumer,
                none => {
                    let consumer =
                        Consumer::new(&shared.config.consumer.config(), &shared.owner(), &[&shared.config.topic]);
                    let consumer = consumer.map_err(|error| shared.closed(&error))?;
                    *shared.tracker() = Tracker::default();
                    none.insert(Arc::new(consumer))
                }
            };
            let taken = match shared.try_take(consumer, max) {
                Ok(taken) => taken,
                Err(error) => {
                    *made = None;
                    return Err(error);
                }
            };
            if let Some((batch, places)) = taken {
                shared.counters.take_attempt.add(batch.len() as u64);
                let consumer = Arc::downgrade(consumer);
                return Ok(Take::new(Taken { channel: Arc::clone(shared), consumer, batch, places }));
            }
            {
                // What was skipped is done, too.
                let mut tracker = shared.tracker();
                consumer.commit(tracker.progress(&shared.config.topic));
            }
            tokio::select! {
                () = consumer.readable() => {}
                () = returned => {}
            }
        }
    }

    async fn drained(&self) {}
}

struct Sending {
    channel: Arc<Shared>,
}

#[async_trait]
impl PutTransaction for Sending {
    async fn prepare(&mut self, batch: &Batch) -> Result<(), ChannelError> {
        self.channel.send(batch).await
    }

    fn needs_prepare(&self) -> bool {
        true
    }

    fn commit(self: Box<Self>, batch: Batch) {
        self.channel.counters.put_success.add(batch.len() as u64);
    }
}

struct Taken {
    channel: Arc<Shared>,
    /// Gone when the channel has been stopped.
    consumer: std::sync::Weak<Consumer>,
    batch: Batch,
    places: Places,
}

#[async_trait]
impl TakeTransaction for Taken {
    fn batch(&self) -> &Batch {
        &self.batch
    }

    async fn prepare(&mut self) -> Result<(), ChannelError> {
        Ok(())
    }

    fn commit(&mut self) {
        let counters = &self.channel.counters;
        counters.take_success.add(self.batch.len() as u64);
        let mut tracker = self.channel.tracker();
        tracker.done(std::mem::take(&mut self.places));
        if let Some(consumer) = self.consumer.upgrade() {
            // Still under the lock, so that no other sink's commit overtakes this one.
            consumer.commit(tracker.progress(&self.channel.config.topic));
            counters.add_extra(COMMIT_TIMER, consumer.spent_on_commits().as_millis() as u64);
        }
    }

    fn roll_back(&mut self) {
        self.channel.counters.add_extra(ROLLBACKS, 1);
        let (batch, places) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.places));
        self.channel.tracker().give_back(batch, places);
        self.channel.returned.notify_one();
    }
}
