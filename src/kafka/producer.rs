//! A producer that sends batches and knows what became of every message, without a future or an allocation for each.
//!
//! Messages of up to [`SLOTS`] batches are under way at once. Each carries the place of its batch and its own in it;
//! its delivery report counts the batch down. The last one wakes whoever waits for the batch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Words;
use super::context::Voice;

/// How many batches may be under way at once.
pub const SLOTS: usize = 256;
/// How long one attempt at a step of a transaction may take.
const STEP: Duration = Duration::from_secs(30);
/// The most messages of a batch.
pub const MAX_MESSAGES: usize = u32::MAX as usize / SLOTS;

/// How long it may take to store offsets with a transaction. librdkafka waits for the coordinator that it knows until that
/// is back, whatever time it is given; only a new producer asks who it is now.
const OFFSETS: Duration = Duration::from_secs(10);

/// How long a broker may take to say what it knows of a topic.
const METADATA: Duration = Duration::from_secs(5);

/// Between attempts at a step.
const PAUSE: Duration = Duration::from_millis(100);
/// Between the first two looks at what is on its way; later ones are further apart.
const FIRST_PAUSE: Duration = Duration::from_micros(100);

/// How long the thread for reports listens before it looks whether it is still wanted.
const LISTEN: Duration = Duration::from_secs(5);

/// How long to wait for a report before asking for room in the queue again: it may have come in between.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A message that was not delivered: its place in the batch, and why.
pub type Failure = (usize, RDKafkaErrorCode);

#[derive(Default)]
struct Slot {
    /// How many batches have had it, in the upper half, and how many messages of the last one are open. One number, so
    /// that the report of an earlier batch's message cannot count for a later one.
    open: AtomicU64,
    failures: Mutex<Vec<Failure>>,
    done: Notify,
}

impl Slot {
    fn failures(&self) -> MutexGuard<'_, Vec<Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn round(&self) -> u32 {
        (self.open.load(Ordering::Acquire) >> 32) as u32
    }

    fn is_done(&self) -> bool {
        self.open.load(Ordering::Acquire) as u32 == 0
    }

    /// Begins a round with so many messages.
    fn begin(&self, messages: usize) -> u32 {
        self.failures().clear();
        let round = self.round();
        self.open.store(u64::from(round) << 32 | messages as u64, Ordering::Release);
        round
    }

    /// Counts a message down, unless its round is over.
    fn close(&self, round: u32, failure: Option<Failure>) {
        if let Some(failure) = failure {
            let mut failures = self.failures();
            // A round ends under this lock.
            if self.round() == round {
                failures.push(failure);
            }
        }
        let is_current = |open: u64| (open >> 32) as u32 == round;
        let closed = |open: u64| is_current(open).then(|| open - 1);
        let was = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, closed);
        if was.is_ok_and(|open| open as u32 == 1) {
            self.done.notify_one();
        }
    }

    /// From now on reports of this round mean nothing.
    fn end(&self) {
        let _failures = self.failures();
        let next = self.round().wrapping_add(1);
        self.open.store(u64::from(next) << 32, Ordering::Release);
    }
}

/// A batch that is under way. Dropped before its end, it is forgotten, but its messages are still sent.
pub struct Ticket {
    reports: Arc<Reports>,
    place: usize,
    round: u32,
    _permit: OwnedSemaphorePermit,
}

impl Ticket {
    fn slot(&self) -> &Slot {
        &self.reports.slots[self.place]
    }

    /// Leaves a message of the batch out.
    pub fn skip(&self) {
        self.slot().close(self.round, None);
    }

    /// Notes that a message was not even sent.
    pub fn fail(&self, failure: Failure) {
        self.slot().close(self.round, Some(failure));
    }

    /// Waits for the reports of all messages, which must have been sent or left out. Gives the failures in the order of
    /// the messages.
    pub async fn wait(self) -> Vec<Failure> {
        let slot = self.slot();
        // The one that stands for the batch itself.
        self.skip();
        while !slot.is_done() {
            slot.done.notified().await;
        }
        let mut failures = std::mem::take(&mut *slot.failures());
        failures.sort_unstable_by_key(|(index, _)| *index);
        failures
    }

    /// What comes back with a message's report.
    fn opaque(&self, index: usize) -> usize {
        ((self.round as usize) << 32) | (index * SLOTS + self.place)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.slot().end();
        self.reports.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.place);
    }
}

struct Reports {
    voice: Voice,
    slots: [Slot; SLOTS],
    /// The places of those that no batch has, of which there is one for each permit.
    free: Mutex<Vec<usize>>,
    permits: Arc<Semaphore>,
    /// Whether somebody waits for room in the queue.
    crowded: AtomicBool,
    room: Notify,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (round, index, place) = ((opaque >> 32) as u32, (opaque as u32) as usize / SLOTS, opaque % SLOTS);
        let code = |error: &KafkaError| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        self.slots[place].close(round, result.as_ref().err().map(|(error, _)| (index, code(error))));
        if self.crowded.swap(false, Ordering::AcqRel) {
            self.room.notify_one();
        }
    }
}

/// A message to be sent. Its bytes are copied.
pub type Record<'a> = BaseRecord<'a, [u8], [u8], usize>;

/// A producer of batches.
pub struct Producer {
    /// Taken when it is dropped, which takes its time.
    inner: Option<Arc<BaseProducer<Reports>>>,
    is_over: Arc<AtomicBool>,
}

impl Producer {
    /// A producer of a component, for example `Sink k1`. It connects by itself and needs no broker to be there.
    pub fn new(config: &ClientConfig, owner: &str) -> KafkaResult<Self> {
        let reports = Reports {
            voice: Voice::new(owner, config),
            slots: std::array::from_fn(|_| Slot::default()),
            free: Mutex::new((0..SLOTS).collect()),
            permits: Arc::new(Semaphore::new(SLOTS)),
            crowded: AtomicBool::new(false),
            room: Notify::new(),
        };
        let inner: Arc<BaseProducer<Reports>> = Arc::new(config.create_with_context(reports)?);
        let is_over = Arc::new(AtomicBool::new(false));
        let producer = Self { inner: Some(Arc::clone(&inner)), is_over: Arc::clone(&is_over) };
        // The binding's own thread spins for up to a millisecond ten times a second.
        let reports = thread::Builder::new().name("kafka-reports".to_owned()).spawn(move || {
            while !is_over.load(Ordering::Acquire) {
                inner.poll(LISTEN);
            }
        });
        reports.map_err(|error| KafkaError::ClientCreation(format!("no thread for its reports: {error}")))?;
        Ok(producer)
    }

    fn client(&self) -> &Arc<BaseProducer<Reports>> {
        self.inner.as_ref().expect("it is only taken when it is dropped")
    }

    fn reports(&self) -> &Arc<Reports> {
        self.client().context()
    }

    /// Why it cannot go on and must be made anew, if that is so.
    pub fn fatal(&self) -> Option<String> {
        if !self.reports().voice.is_fatal() {
            return None;
        }
        let (code, why) = self.client().client().fatal_error()?;
        Some(format!("{why} ({code})"))
    }

    /// Opens a batch of so many messages, at most [`MAX_MESSAGES`]. Waits when too many are open.
    pub async fn open(&self, messages: usize) -> Ticket {
        let reports = Arc::clone(self.reports());
        let permit = Arc::clone(&reports.permits).acquire_owned().await.expect("it is never closed");
        let free = reports.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let place = free.expect("there is one for each permit");
        // One more than there are: the batch is not done before all have been handed over.
        let round = reports.slots[place].begin(messages + 1);
        Ticket { reports, place, round, _permit: permit }
    }

    /// Hands a message over, as number `index` of its batch, and waits for room in the queue. One that is refused at
    /// once is not closed: it is for the caller to [skip](Ticket::skip) it or to [fail](Ticket::fail).
    pub async fn send(&self, ticket: &Ticket, index: usize, record: Record<'_>) -> Result<(), RDKafkaErrorCode> {
        let mut record = record.delivery_opaque(ticket.opaque(index));
        let reports = self.reports();
        while let Err((error, returned)) = self.client().send(record) {
            record = returned;
            match error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::InvalidArgument) {
                RDKafkaErrorCode::QueueFull => {
                    let room = reports.room.notified();
                    reports.crowded.store(true, Ordering::Release);
                    timeout(ASK_AGAIN, room).await.ok();
                }
                code => return Err(code),
            }
        }
        Ok(())
    }
}

/// What brokers say of topics.
impl Producer {
    /// How many partitions a topic has, as a broker says at this moment; nothing when none says so.
    pub async fn partitions(&self, topic: &str) -> Option<usize> {
        let topic = topic.to_owned();
        let count = self.blocking(move |client| {
            let metadata = client.client().fetch_metadata(Some(&topic), METADATA)?;
            let known = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
            Ok(known.map(|known| known.partitions().len()))
        });
        count.await.ok().flatten().filter(|count| *count > 0)
    }
}

/// Why a transaction was not committed.
#[derive(Debug)]
pub struct NotCommitted {
    /// In words.
    pub why: String,
    /// Whether it is known that nothing of it is to be seen. Otherwise the producer must be made anew, and may then ask
    /// what became of it.
    pub aborted: bool,
}

/// Transactions. Each step waits for the brokers on a thread of its own.
impl Producer {
    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&BaseProducer<Reports>) -> KafkaResult<T> + Send + 'static,
    ) -> KafkaResult<T> {
        let client = Arc::clone(self.client());
        tokio::task::spawn_blocking(move || step(&client)).await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Ends whatever an earlier producer with the same `transactional.id` has left, and keeps it from going on.
    pub async fn init_transactions(&self) -> KafkaResult<()> {
        self.blocking(|client| client.init_transactions(STEP)).await
    }

    /// Begins a transaction, to which all further messages belong.
    pub fn begin_transaction(&self) -> KafkaResult<()> {
        self.client().begin_transaction()
    }

    /// Gives the transaction up.
    pub async fn abort_transaction(&self) -> KafkaResult<()> {
        self.blocking(|client| patiently(|| client.abort_transaction(STEP))).await
    }

    /// Waits for all messages and commits the transaction, together with these offsets.
    pub async fn commit_transaction(
        &self,
        offsets: Option<(TopicPartitionList, Arc<ConsumerGroupMetadata>)>,
    ) -> Result<(), NotCommitted> {
        let outcome = async {
            self.blocking(|client| {
                flush(client);
                Ok(())
            })
            .await?;
            if let Some((list, group)) = offsets {
                let is_over = Arc::clone(&self.is_over);
                let stored = self.blocking(move |client| {
                    // Nobody waits for the end once the producer is given up.
                    patiently(|| match client.send_offsets_to_transaction(&list, &group, STEP) {
                        Err(_) if is_over.load(Ordering::Acquire) => Err(KafkaError::Canceled),
                        outcome => outcome,
                    })
                });
                timeout(OFFSETS, stored).await.unwrap_or(Err(KafkaError::Canceled))?;
            }
            self.blocking(|client| patiently(|| client.commit_transaction(STEP))).await
        };
        let Err(error) = outcome.await else { return Ok(()) };
        let abortable = matches!(&error, KafkaError::Transaction(error) if error.txn_requires_abort());
        let aborted = abortable && self.abort_transaction().await.is_ok();
        Err(NotCommitted { why: Words(&error).to_string(), aborted })
    }
}

/// Waits until nothing is on its way, as the binding's `commit_transaction` would, in steps of 100 ms.
fn flush(client: &BaseProducer<Reports>) {
    let mut pause = FIRST_PAUSE;
    while client.in_flight_count() > 0 {
        thread::sleep(pause);
        pause = (pause * 5 / 4).min(PAUSE);
    }
}

/// Repeats a step until it is done, or fails in a way that repeating does not help.
fn patiently(step: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    loop {
        match step() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.is_fatal() => {}
            Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => {}
            outcome => return outcome,
        }
        thread::sleep(PAUSE);
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // What is left is given up at once, and waited for, which the caller must not do.
        let inner = self.inner.take();
        thread::spawn(move || inner.map(|inner| inner.purge(PurgeConfig::default().queue().inflight())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A producer whose brokers are librdkafka's own, within the process.
    fn producer(options: &[(&str, &str)]) -> Producer {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", "1").set("linger.ms", "0").set_log_level(RDKafkaLogLevel::Emerg);
        for (name, value) in options {
            config.set(*name, *value);
        }
        Producer::new(&config, "Sink k1").expect("a producer")
    }

    fn record(payload: &[u8]) -> Record<'_> {
        Record::with_opaque_to("topic", 0).payload(payload)
    }

    #[tokio::test]
    async fn what_was_not_taken_is_known_by_its_place() {
        let producer = producer(&[("message.max.bytes", "1000")]);
        let large = [b'x'; 2000];
        let ticket = producer.open(5).await;
        let mut refused = Vec::new();
        for (index, payload) in [&b"a"[..], &large, b"b", &large].into_iter().enumerate() {
            if let Err(code) = producer.send(&ticket, index, record(payload)).await {
                refused.push((index, code));
                ticket.fail((index, code));
            }
        }
        ticket.skip();
        assert_eq!(refused, [(1, RDKafkaErrorCode::MessageSizeTooLarge), (3, RDKafkaErrorCode::MessageSizeTooLarge)]);
        assert_eq!(ticket.wait().await, refused);
        assert_eq!(producer.fatal(), None);
    }

    #[test]
    fn a_report_of_an_earlier_round_counts_for_nobody() {
        let slot = Slot::default();
        let first = slot.begin(2);
        slot.end();
        let second = slot.begin(1);
        slot.close(first, None);
        slot.close(first, Some((0, RDKafkaErrorCode::Fail)));
        assert!(!slot.is_done());
        slot.close(second, None);
        assert!(slot.is_done());
        assert_eq!(*slot.failures(), []);
    }

    #[tokio::test]
    async fn a_full_queue_makes_the_sender_wait() {
        let producer = producer(&[("queue.buffering.max.messages", "2")]);
        let ticket = producer.open(50).await;
        for index in 0..50 {
            producer.send(&ticket, index, record(b"x")).await.expect("it is taken");
        }
        assert_eq!(ticket.wait().await, []);
    }

    #[tokio::test]
    async fn a_batch_that_was_given_up_disturbs_no_other() {
        let producer = producer(&[]);
        for _ in 0..3 * SLOTS {
            let ticket = producer.open(2).await;
            producer.send(&ticket, 0, record(b"given up")).await.expect("it is taken");
            drop(ticket);
        }
        let mut tickets = Vec::new();
        for _ in 0..SLOTS {
            let ticket = producer.open(1).await;
            producer.send(&ticket, 0, record(b"kept")).await.expect("it is taken");
            tickets.push(ticket);
        }
        assert!(timeout(ASK_AGAIN, producer.open(1)).await.is_err(), "no more than there are places");
        for ticket in tickets {
            assert_eq!(ticket.wait().await, []);
        }
        producer.open(0).await.wait().await;
    }
}
