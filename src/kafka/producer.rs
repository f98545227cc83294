//! A producer that sends batches and knows what became of every message, without a future or an allocation for each.
//!
//! Messages of up to [`SLOTS`] batches are under way at once. Each carries the number of its batch and its place in it;
//! its delivery report counts the batch down. The last one wakes whoever waits for the batch.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::context::Voice;

/// How many batches may be under way at once.
pub const SLOTS: usize = 16;

/// How long to wait for a report before asking for room in the queue again: it may have come in between.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The number of a batch that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

/// A message that was not delivered: its place in the batch, and why.
pub type Failure = (usize, RDKafkaErrorCode);

#[derive(Default)]
struct Slot {
    /// Whose batch it is; reports of an earlier one are of no interest any more.
    ticket: AtomicU32,
    open: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
    done: Notify,
}

impl Slot {
    fn close(&self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
        }
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

struct Reports {
    voice: Voice,
    slots: [Slot; SLOTS],
    /// Whether somebody waits for room in the queue.
    crowded: AtomicBool,
    room: Notify,
}

impl Reports {
    fn slot(&self, ticket: u32) -> &Slot {
        &self.slots[ticket as usize % SLOTS]
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(error, reason);
    }
}

fn opaque(ticket: u32, index: usize) -> usize {
    ((ticket as usize) << 32) | index
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (ticket, index) = ((opaque >> 32) as u32, opaque & u32::MAX as usize);
        let slot = self.slot(ticket);
        if slot.ticket.load(Ordering::Acquire) == ticket {
            let code = |error: &KafkaError| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            slot.close(result.as_ref().err().map(|(error, _)| (index, code(error))));
        }
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
    inner: Option<ThreadedProducer<Reports>>,
    last: u32,
}

impl Producer {
    /// A producer of a component, for example `Sink k1`. It connects by itself and needs no broker to be there.
    pub fn new(config: &ClientConfig, owner: &str) -> KafkaResult<Self> {
        let reports = Reports {
            voice: Voice::new(owner),
            slots: Default::default(),
            crowded: AtomicBool::new(false),
            room: Notify::new(),
        };
        Ok(Self { inner: Some(config.create_with_context(reports)?), last: 0 })
    }

    fn client(&self) -> &ThreadedProducer<Reports> {
        self.inner.as_ref().expect("it is only taken when it is dropped")
    }

    fn reports(&self) -> &Reports {
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

    /// Opens a batch of so many messages. No more than [`SLOTS`] may be open.
    pub fn open(&mut self, messages: usize) -> Ticket {
        self.last = self.last.wrapping_add(1);
        let slot = self.reports().slot(self.last);
        slot.failures.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // One more than there are: the batch is not done before all have been handed over.
        slot.open.store(messages + 1, Ordering::Release);
        slot.ticket.store(self.last, Ordering::Release);
        Ticket(self.last)
    }

    /// Hands a message over, as number `index` of its batch, and waits for room in the queue. What is refused at once
    /// is among the failures.
    pub async fn send(&self, ticket: Ticket, index: usize, record: Record<'_>) {
        let mut record = record.delivery_opaque(opaque(ticket.0, index));
        let reports = self.reports();
        while let Err((error, returned)) = self.client().send(record) {
            record = returned;
            match error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::InvalidArgument) {
                RDKafkaErrorCode::QueueFull => {
                    let room = reports.room.notified();
                    reports.crowded.store(true, Ordering::Release);
                    timeout(ASK_AGAIN, room).await.ok();
                }
                code => return reports.slot(ticket.0).close(Some((index, code))),
            }
        }
    }

    /// Leaves a message of the batch out.
    pub fn skip(&self, ticket: Ticket) {
        self.reports().slot(ticket.0).close(None);
    }

    /// All messages of the batch have been handed over or left out.
    pub fn seal(&self, ticket: Ticket) {
        self.skip(ticket);
    }

    /// Waits for the reports of a batch, and gives the failures in the order of the messages.
    pub async fn wait(&self, ticket: Ticket) -> Vec<Failure> {
        let slot = self.reports().slot(ticket.0);
        while slot.open.load(Ordering::Acquire) > 0 {
            slot.done.notified().await;
        }
        let mut failures = std::mem::take(&mut *slot.failures.lock().unwrap_or_else(PoisonError::into_inner));
        failures.sort_unstable_by_key(|(index, _)| *index);
        failures
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // It waits for its threads, which the caller's must not.
        let inner = self.inner.take();
        std::thread::spawn(move || drop(inner));
    }
}
