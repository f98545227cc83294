//! The Kafka sink: events become messages of Kafka topics.
//!
//! A batch leaves the channel when the delivery reports of all its messages say so. No message expires while it waits
//! for a broker; only in a sink group, where another sink could take the events, it does so after two minutes
//! (`kafka.producer.delivery.timeout.ms`), as with Java's client. When the client's queue is full the sink waits. An
//! event that Kafka will never take, such as one that is too large, is refused and the rest goes on.
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
//!
//! With `kafka.producer.transactional.id`, batches are delivered in transactions of Kafka, which also hold how far the
//! [channel has been delivered](transaction): behind a file channel, whatever crashes, each event is there once for those
//! who read committed messages only, as long as the brokers keep the group's offsets (`offsets.retention.minutes`, a week
//! without a commit). `kafka.topic` must then be without escapes, `acks` are `all`, the sink must be the only one of its
//! channel and in no group, and no other sink may have the same id.

mod message;
mod transaction;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use rdkafka::types::RDKafkaErrorCode;
use tracing::{info, warn};

use super::{BuiltSink, Delivered, Refused, Sink, SinkBuilder, SinkConfig, SinkError};
use crate::channel::Numbers;
use crate::config::{ComponentType, Props};
use crate::event::{Batch, EventRef};
use crate::java::current_time_millis;
use crate::kafka::options::Options;
use crate::kafka::producer::{Failure, NotCommitted, Producer, Record, Ticket};
use crate::kafka::{KEY_HEADER, Words, bootstrap_servers, deprecated, is_hopeless, no_such_partition};
use crate::logging::Limited;
use crate::metrics::{Extras, SinkCounters};
use crate::rpc::avro::events::put_event;
use message::{MessageConfig, Topic};
use transaction::Transactions;

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["kafka"],
    class: "org.apache.flume.sink.kafka.KafkaSink",
    build: |props| Some(Box::new(KafkaConfig::from_props(props)?)),
};

const DEFAULT_TOPIC: &str = "default-flume-topic";
const SEND_TIMER: &str = "KafkaEventSendTimer";
/// How many batches may be under way, enough to keep brokers busy with the default batches, and how many may share a
/// transaction.
const DEPTH: usize = 64;
const TRANSACTION_DEPTH: usize = 128;
/// Nor do more follow behind batches of so many bytes, which stay in memory until they have been committed.
const BYTES_UNDER_WAY: usize = 8 << 20;
/// What librdkafka keeps of a message besides its bytes.
const BYTES_A_MESSAGE: usize = 256;
/// A producer that has had messages for so many topics is made anew.
const MAX_TOPICS: usize = 2000;
/// After a transaction that failed for one message, librdkafka may let the next one fail, too.
const ATTEMPTS_ALONE: u32 = 3;
const TRANSACTIONAL_ID: &str = "kafka.producer.transactional.id";
const ROLLBACKS: &str = "RollbackCount";
const EXTRAS: Extras = &[(SEND_TIMER, "channel.kafka.event.send.time"), (ROLLBACKS, "channel.rollback.count")];

#[derive(Clone)]
struct KafkaConfig {
    batch_size: usize,
    message: MessageConfig,
    options: Options,
    /// The topic beside which the progress is stored, and under which name.
    transactional: Option<(String, String)>,
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
        let topic_text = topic.unwrap_or(DEFAULT_TOPIC);
        let override_allowed = props.or("allowTopicOverride", true);
        let topic_header: String = props.or("topicHeader", "topic".to_owned());
        // Flume looks for escapes only where a header could have named the topic.
        let topic = Topic::read(topic_text, override_allowed).unwrap_or_else(|expected| {
            props.error(topic_key, &expected, "");
            Topic::Fixed(String::new())
        });
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
        let transactional_id: Option<String> = props.optional(TRANSACTIONAL_ID).filter(|id: &String| !id.is_empty());
        let acks = props.text(acks_key).unwrap_or(if transactional_id.is_some() { "all" } else { "1" });
        if transactional_id.is_some() && !["all", "-1"].contains(&acks) {
            props.error(acks_key, &format!("all, as there is {TRANSACTIONAL_ID}"), "");
        }
        let transactional = transactional_id.map(|id| match &topic {
            Topic::Fixed(name) => (name.clone(), id),
            Topic::Escaped(_) => {
                props.error(topic_key, &format!("a topic without escapes, as there is {TRANSACTIONAL_ID}"), "");
                (String::new(), id)
            }
        });
        let headers = props.family("header");
        let partition: Option<i32> = props.optional("defaultPartitionId");
        if partition.is_some_and(|partition| partition < 0) {
            props.error("defaultPartitionId", "the number of a partition, 0 or more", "");
        }
        let mut options = Options::producer(props, &servers, &[("acks", acks)]);
        if transactional.is_some() {
            // The transaction's timeout is the limit.
            options.unset("message.timeout.ms");
        }
        options.try_producer(props);
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
            transactional,
        })
    }
}

impl SinkConfig for KafkaConfig {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn transactional_id(&self) -> Option<(&'static str, &str)> {
        self.transactional.as_ref().map(|(_, id)| (TRANSACTIONAL_ID, id.as_str()))
    }

    fn join_group(&mut self) {
        self.options.let_expire();
    }

    fn build(&self, name: &str, counters: Arc<SinkCounters>) -> BuiltSink {
        BuiltSink::Push(Box::new(KafkaSink::new(self.clone(), name, counters)))
    }
}

/// A batch that is under way.
struct Sent {
    ticket: Ticket,
    bytes: usize,
    refused: Vec<Refused>,
    since: Instant,
    numbers: Option<Numbers>,
    /// The transaction it belongs to; none where there are no transactions, or nothing was to be sent.
    transaction: Option<u64>,
}

/// The topics that events have named, of which librdkafka keeps some memory each as long as the producer lives.
#[derive(Default)]
struct Topics {
    all: HashSet<String>,
    last: String,
}

impl Topics {
    fn note(&mut self, topic: &str) {
        if self.last != topic {
            topic.clone_into(&mut self.last);
            if !self.all.contains(topic) {
                self.all.insert(topic.to_owned());
            }
        }
    }

    fn are_too_many(&self) -> bool {
        self.all.len() >= MAX_TOPICS
    }
}

struct KafkaSink {
    name: String,
    config: KafkaConfig,
    counters: Arc<SinkCounters>,
    /// None before the start, and after a fatal error.
    producer: Option<Arc<Producer>>,
    transactions: Option<Transactions>,
    under_way: VecDeque<Sent>,
    /// So many batches go in transactions of their own, as one of them has spoilt the one that they shared.
    alone: usize,
    topics: Topics,
    /// How many partitions topics have, as brokers have said since the last batch was begun.
    partitions: HashMap<String, Option<usize>>,
    refused: Vec<Refused>,
    /// For events that are written as a whole.
    scratch: Vec<u8>,
    complaints: Limited,
    /// When the batch in hand was begun, the time of messages without one of their own, in milliseconds since 1970. The
    /// client would ask the clock for each.
    now: i64,
}

impl KafkaSink {
    fn new(config: KafkaConfig, name: &str, counters: Arc<SinkCounters>) -> Self {
        counters.extend(EXTRAS);
        let transactions = config.transactional.as_ref();
        Self {
            name: name.to_owned(),
            counters,
            producer: None,
            transactions: transactions.map(|(topic, id)| Transactions::new(&config.options, topic, id)),
            config,
            under_way: VecDeque::new(),
            alone: 0,
            topics: Topics::default(),
            partitions: HashMap::new(),
            refused: Vec::new(),
            scratch: Vec::new(),
            complaints: Limited::default(),
            now: 0,
        }
    }

    /// The producer, made anew when there is none.
    async fn producer(&mut self) -> Result<Arc<Producer>, SinkError> {
        if let Some(producer) = &self.producer {
            return Ok(Arc::clone(producer));
        }
        let failed = |error| SinkError::new(format!("the Kafka producer cannot be made: {}", Words(&error)));
        let producer = Producer::new(&self.config.options.config(), &format!("Sink {}", self.name)).map_err(failed)?;
        if let Some(transactions) = &mut self.transactions {
            let failed = |error| SinkError::new(format!("transactions cannot begin: {}", Words(&error)));
            producer.init_transactions().await.map_err(failed)?;
            transactions.recall().await.map_err(|why| SinkError::new(format!("transactions cannot begin: {why}")))?;
        }
        Ok(Arc::clone(self.producer.insert(Arc::new(producer))))
    }

    /// Makes the producer anew when it has said that it cannot go on.
    fn check(&mut self, producer: &Producer) {
        if let Some(why) = producer.fatal() {
            warn!("Sink {}: the Kafka producer cannot go on and is made anew: {why}", self.name);
            self.producer = None;
        }
    }

    /// Sends the messages that broke no rule themselves but were in one request with one that did, each on its own and,
    /// if there are transactions, each in its own.
    async fn send_alone(
        &mut self,
        producer: &Producer,
        batch: &Batch,
        indexes: impl Iterator<Item = usize>,
        numbers: Option<&Numbers>,
    ) -> Result<Vec<Refused>, SinkError> {
        let mut refused = Vec::new();
        for index in indexes {
            let number = numbers.and_then(|numbers| Some((&*numbers.channel, numbers.iter().nth(index)?)));
            if self.transactions.as_ref().is_some_and(|transactions| transactions.has_delivered(number)) {
                continue;
            }
            let mut attempts = if self.transactions.is_some() { ATTEMPTS_ALONE } else { 1 };
            loop {
                attempts -= 1;
                let event = batch.get(index);
                let Some(code) = self.send_one(producer, event, index, number, &mut refused).await? else { break };
                if let Some(why) = self.never(producer, event, code).await {
                    refused.push(Refused { index, why });
                    break;
                }
                if attempts == 0 {
                    return Err(self.failed(batch, &[(index, code)]));
                }
            }
        }
        Ok(refused)
    }

    /// Sends one message, if there are transactions in its own, and gives the reason why it was not taken.
    async fn send_one(
        &mut self,
        producer: &Producer,
        event: EventRef<'_>,
        index: usize,
        number: Option<(&str, u64)>,
        refused: &mut Vec<Refused>,
    ) -> Result<Option<RDKafkaErrorCode>, SinkError> {
        self.begin_transaction(producer)?;
        let ticket = producer.open(1).await;
        let sent = self.send(producer, &ticket, index, event, refused).await;
        let failure = ticket.wait().await.pop().map(|(_, code)| code);
        let Some(transactions) = &mut self.transactions else { return Ok(failure) };
        let outcome = if sent && failure.is_none() {
            transactions.note(number);
            transactions.commit(producer).await
        } else {
            transactions.abort(producer).await
        };
        self.settle(outcome)?;
        Ok(failure)
    }

    /// Begins a transaction, unless one is open or there are none, and gives its number.
    fn begin_transaction(&mut self, producer: &Producer) -> Result<Option<u64>, SinkError> {
        let Some(transactions) = &mut self.transactions else { return Ok(None) };
        // A producer that cannot even begin will not get any further.
        transactions.begin(producer).map(Some).inspect_err(|_| self.producer = None)
    }

    /// After a step of which it is not known what became of it, only a new producer can tell.
    fn settle(&mut self, outcome: Result<(), NotCommitted>) -> Result<(), SinkError> {
        outcome.map_err(|NotCommitted { why, aborted }| {
            if !aborted {
                self.producer = None;
            }
            self.counters.add_extra(ROLLBACKS, 1);
            SinkError::new(format!("Failed to publish events: {why}"))
        })
    }

    /// Hands a message over and returns whether it is on its way. If not, it is among the refused, or the batch fails.
    async fn send(
        &mut self,
        producer: &Producer,
        ticket: &Ticket,
        index: usize,
        event: EventRef<'_>,
        refused: &mut Vec<Refused>,
    ) -> bool {
        let headers = event.headers();
        let envelope = match self.config.message.envelope(headers, &self.complaints) {
            Ok(envelope) => envelope,
            Err(why) => {
                refused.push(Refused { index, why });
                ticket.skip();
                return false;
            }
        };
        self.topics.note(&envelope.topic);
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
            timestamp: Some(envelope.timestamp.unwrap_or(self.now)),
            headers: envelope.headers,
            delivery_opaque: 0,
        };
        let Err(code) = producer.send(ticket, index, record).await else { return true };
        match self.never(producer, event, code).await {
            Some(why) => {
                refused.push(Refused { index, why });
                ticket.skip();
            }
            None => ticket.fail((index, code)),
        }
        false
    }

    /// Why a message that failed so will never be taken, if that is so.
    async fn never(&mut self, producer: &Producer, event: EventRef<'_>, code: RDKafkaErrorCode) -> Option<String> {
        if is_hopeless(code) { Some(self.why(event, code)) } else { self.has_no_place(producer, event, code).await }
    }

    /// Why a message that failed so has no place, if it names a partition that its topic does not have. What the client
    /// knows may be old, so a broker is asked, once in a batch.
    async fn has_no_place(
        &mut self,
        producer: &Producer,
        event: EventRef<'_>,
        code: RDKafkaErrorCode,
    ) -> Option<String> {
        if code != RDKafkaErrorCode::UnknownPartition {
            return None;
        }
        let topic = self.config.message.topic(event.headers()).ok()?;
        let partition = self.config.message.partition(event.headers()).ok()??;
        let known = self.partitions.get(&*topic).copied();
        let count = match known {
            Some(count) => count,
            None => *self.partitions.entry(topic.to_string()).or_insert(producer.partitions(&topic).await),
        };
        count.filter(|count| partition as usize >= *count).map(|count| no_such_partition(&topic, partition, count))
    }

    fn failed(&self, batch: &Batch, failures: &[Failure]) -> SinkError {
        self.counters.add_extra(ROLLBACKS, 1);
        let why = failures.first().map_or(String::new(), |(index, code)| self.why(batch.get(*index), *code));
        let (failed, all) = (failures.len(), batch.len());
        SinkError::new(format!("Failed to publish events: {failed} of {all} were not delivered: {why}"))
    }

    fn why(&self, event: EventRef<'_>, code: RDKafkaErrorCode) -> String {
        let topic = self.config.message.topic(event.headers()).unwrap_or_default();
        let partition = self.config.message.partition(event.headers()).ok().flatten();
        let partition = partition.map_or(String::new(), |partition| format!(", partition {partition}"));
        format!("{code} (topic {topic}{partition})")
    }

    /// Ends a batch that is in no transaction.
    async fn end_plain(&mut self, batch: &Batch, sent: Sent) -> Result<(), SinkError> {
        let Sent { ticket, mut refused, since, .. } = sent;
        let failures = ticket.wait().await;
        if !failures.is_empty() {
            let Some(producer) = self.producer.clone() else { return Err(self.failed(batch, &failures)) };
            self.check(&producer);
            let mut alone = Vec::new();
            for &(index, code) in &failures {
                if is_hopeless(code) {
                    alone.push(index);
                } else if let Some(why) = self.has_no_place(&producer, batch.get(index), code).await {
                    refused.push(Refused { index, why });
                } else {
                    return Err(self.failed(batch, &failures));
                }
            }
            refused.extend(self.send_alone(&producer, batch, alone.into_iter(), None).await?);
        }
        self.ended(refused, since);
        Ok(())
    }

    /// Ends a batch by committing the transaction that it is in, unless that has happened already.
    async fn end_transaction(&mut self, batch: &Batch, sent: Sent, number: u64) -> Result<(), SinkError> {
        let Sent { ticket, mut refused, since, numbers, .. } = sent;
        let (Some(producer), Some(transactions)) = (self.producer.clone(), &mut self.transactions) else {
            return Err(self.gone_with_others());
        };
        if transactions.is_open(number) {
            let outcome = transactions.commit(&producer).await;
            let aborted = outcome.as_ref().is_err_and(|failed| failed.aborted);
            let failures = if aborted { ticket.wait().await } else { Vec::new() };
            let mut hopeless = failures.iter().any(|(_, code)| is_hopeless(*code));
            for &(index, code) in &failures {
                if let Some(why) = self.has_no_place(&producer, batch.get(index), code).await {
                    refused.push(Refused { index, why });
                    hopeless = true;
                }
            }
            let named = failures.first().map(|(index, code)| format!(": {}", self.why(batch.get(*index), *code)));
            let named = named.unwrap_or_default();
            let outcome = outcome.map_err(|failed| NotCommitted { why: failed.why + &named, ..failed });
            if let Err(error) = self.settle(outcome) {
                if !hopeless {
                    self.alone = TRANSACTION_DEPTH;
                    return Err(error);
                }
                let left = (0..batch.len()).filter(|index| refused.iter().all(|refused| refused.index != *index));
                let left: Vec<usize> = left.collect();
                let alone = self.send_alone(&producer, batch, left.into_iter(), numbers.as_ref()).await?;
                refused.extend(alone);
            }
        } else if !transactions.is_committed(number) {
            return Err(self.gone_with_others());
        }
        self.alone = self.alone.saturating_sub(1);
        self.ended(refused, since);
        Ok(())
    }

    /// For a batch whose transaction has failed, which the batch that was to commit it has told.
    fn gone_with_others(&self) -> SinkError {
        self.counters.add_extra(ROLLBACKS, 1);
        SinkError::rolled_back("Failed to publish events: the transaction they were in has failed", false)
    }

    fn ended(&mut self, mut refused: Vec<Refused>, since: Instant) {
        refused.sort_unstable_by_key(|refused| refused.index);
        self.refused = refused;
        self.counters.add_extra(SEND_TIMER, since.elapsed().as_millis() as u64);
    }
}

#[async_trait]
impl Sink for KafkaSink {
    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    async fn start(&mut self) -> Result<(), SinkError> {
        self.producer().await.map(drop)
    }

    fn depth(&self) -> usize {
        let bytes: usize = self.under_way.iter().map(|sent| sent.bytes).sum();
        match (&self.transactions, bytes < BYTES_UNDER_WAY) {
            (_, false) => self.under_way.len(),
            (Some(_), true) => TRANSACTION_DEPTH,
            (None, true) => DEPTH,
        }
    }

    async fn begin(&mut self, batch: &Batch, numbers: Option<Numbers>) -> Result<(), SinkError> {
        if (self.alone > 0 || self.topics.are_too_many()) && !self.under_way.is_empty() {
            return Err(SinkError::rolled_back("the batches before it come to their end first", false));
        }
        if self.topics.are_too_many() {
            info!("Sink {}: after {MAX_TOPICS} topics the Kafka producer is made anew, to forget them", self.name);
            self.topics = Topics::default();
            self.producer = None;
        }
        let producer = self.producer().await?;
        let ticket = producer.open(batch.len()).await;
        let (bytes, since) = (batch.body_bytes() + batch.len() * BYTES_A_MESSAGE, Instant::now());
        self.now = current_time_millis();
        self.partitions.clear();
        let mut sent = Sent { ticket, bytes, refused: Vec::new(), since, numbers, transaction: None };
        let each =
            sent.numbers.as_ref().map(|numbers| (Arc::clone(&numbers.channel), numbers.iter().collect::<Vec<_>>()));
        let mut again = 0;
        for (index, event) in batch.iter().enumerate() {
            if let Some(transactions) = &mut self.transactions {
                let number = each.as_ref().and_then(|(channel, each)| Some((&**channel, *each.get(index)?)));
                if transactions.has_delivered(number) {
                    sent.ticket.skip();
                    again += 1;
                    continue;
                }
                if sent.transaction.is_none() {
                    sent.transaction = self.begin_transaction(&producer)?;
                }
                let refused = sent.refused.len();
                let is_on_its_way = self.send(&producer, &sent.ticket, index, event, &mut sent.refused).await;
                if let Some(transactions) = &mut self.transactions {
                    if is_on_its_way {
                        transactions.note(number);
                    } else if sent.refused.len() == refused {
                        transactions.spoil();
                    }
                }
            } else {
                self.send(&producer, &sent.ticket, index, event, &mut sent.refused).await;
            }
        }
        if again > 0
            && let Some(others) = self.complaints.permit()
        {
            info!("Sink {}: {again} events are in a committed transaction already and are left out{others}", self.name);
        }
        self.under_way.push_back(sent);
        Ok(())
    }

    async fn end(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let Some(sent) = self.under_way.pop_front() else { return Ok(()) };
        match sent.transaction {
            Some(number) => self.end_transaction(batch, sent, number).await,
            None => self.end_plain(batch, sent).await,
        }
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.begin(batch, None).await?;
        self.end(batch).await
    }

    fn delivered(&mut self) -> Delivered {
        Delivered { refused: std::mem::take(&mut self.refused), ..Delivered::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::kafka::tests::with_props;

    /// A sink whose brokers are librdkafka's own, within the process. Their topics have four partitions.
    fn sink() -> KafkaSink {
        let (options, _) = with_props("test.mock.num.brokers = 1", |props| Options::producer(props, "b1:9092", &[]));
        let message = MessageConfig {
            topic: Topic::Fixed("t".to_owned()),
            topic_header: Some("topic".to_owned()),
            partition: Some(0),
            partition_header: Some("part".to_owned()),
            timestamp_header: None,
            headers: Vec::new(),
            whole_event: false,
        };
        let config = KafkaConfig { batch_size: 100, message, options, transactional: None };
        KafkaSink::new(config, "k1", Arc::new(SinkCounters::new("k1")))
    }

    #[tokio::test]
    async fn a_partition_that_is_not_there_is_refused_also_before_the_client_knows_the_topic() {
        let mut sink = sink();
        let batch: Batch = ["3", "4", "0"].map(|part| Event::new(part).with("part", part)).into_iter().collect();
        for _ in 0..2 {
            sink.deliver(&batch).await.expect("the rest is delivered");
            let why = "there is no partition 4 in topic t, which has 4 partitions, numbered from 0".to_owned();
            assert_eq!(sink.delivered().refused, [Refused { index: 1, why }]);
        }
    }

    #[tokio::test]
    async fn topics_that_events_name_are_forgotten_in_the_end() {
        let mut sink = sink();
        let batch = |topics: std::ops::Range<usize>| -> Batch {
            topics.map(|topic| Event::new("x").with("topic", &format!("t{topic}"))).collect()
        };
        for from in (0..MAX_TOPICS).step_by(500) {
            sink.deliver(&batch(from..from + 500)).await.expect("it is delivered");
        }
        let first = sink.producer.clone().expect("a producer");
        sink.deliver(&batch(0..1)).await.expect("it is delivered");
        let second = sink.producer.clone().expect("a producer");
        assert!(!Arc::ptr_eq(&first, &second));
        sink.deliver(&batch(1..2)).await.expect("it is delivered");
        assert!(sink.producer.is_some_and(|third| Arc::ptr_eq(&second, &third)));
    }
}
