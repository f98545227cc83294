//! Events from agents, which keep them until the batch that they are in is committed.
//!
//! The record is an event's body; a header that is asked for is a column. What is shared here is the [`Inbox`], where
//! deliveries wait for a batch and then for its end. An agent is told that its events are safe when they are committed,
//! and not before; when the job is killed first, it sends them again. A job that is killed in the moment between the two
//! gets them twice, as events have no numbers by which it could know them again.

pub mod pull;
pub mod push;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, StringViewBuilder};
use datafusion::arrow::datatypes::{DataType, Field};
use flume_rs::event::Batch;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Cut, Position, Source, SourceError};
use crate::format::Records;

/// So many bytes of events may be in the job and not committed; agents are held back then.
const MOST_BYTES: usize = 64 << 20;
/// What an event takes besides its body.
const EVENT_BYTES: usize = 32;

/// The columns of headers.
fn header_columns(headers: &[String]) -> Vec<Field> {
    headers.iter().map(|name| Field::new(name, DataType::Utf8View, true)).collect()
}

/// Events of one agent that wait for a batch, or for the end of the one that they are in.
struct Delivery {
    events: Batch,
    settle: oneshot::Sender<()>,
    _room: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Waiting {
    deliveries: VecDeque<Delivery>,
    /// Nothing is taken any more.
    is_closed: bool,
    /// Nothing comes any more.
    has_ended: bool,
}

/// Where agents' events wait for a batch.
struct Inbox {
    waiting: Mutex<Waiting>,
    came: Notify,
    room: Arc<Semaphore>,
}

impl Inbox {
    fn new() -> Self {
        Self { waiting: Mutex::default(), came: Notify::new(), room: Arc::new(Semaphore::new(MOST_BYTES)) }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until events are committed. `false` when they are not, as the job ends. Given up before they are in a batch,
    /// they never are in one.
    async fn deliver(&self, events: Batch) -> bool {
        let bytes = events.body_bytes().saturating_add(events.len().saturating_mul(EVENT_BYTES)).min(MOST_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX)).await;
        let Ok(room) = room else { return false };
        let (settle, settled) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.is_closed {
                return false;
            }
            waiting.deliveries.push_back(Delivery { events, settle, _room: room });
        }
        self.came.notify_one();
        settled.await.is_ok()
    }

    /// Takes deliveries of together at most so many events, but at least one.
    fn take(&self, max_events: usize) -> Vec<Delivery> {
        let (mut taken, mut count) = (Vec::new(), 0);
        let mut waiting = self.waiting();
        while let Some(next) = waiting.deliveries.front()
            && (count == 0 || count + next.events.len() <= max_events)
        {
            let next = waiting.deliveries.pop_front().expect("there is one in front");
            // Whoever has given up sends its events again.
            if !next.settle.is_closed() {
                count += next.events.len();
                taken.push(next);
            }
        }
        taken
    }

    /// Nothing comes any more.
    fn end(&self) {
        self.waiting().has_ended = true;
        self.came.notify_one();
    }

    /// Takes nothing any more, and gives back what is there.
    fn close(&self) {
        self.room.close();
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        waiting.deliveries.clear();
    }
}

/// How events come into the inbox.
#[async_trait]
trait Feed: Send {
    /// Begins; called again until it succeeds.
    async fn open(&mut self, inbox: &Arc<Inbox>) -> Result<(), SourceError>;

    /// Ends: whoever still waits has been told by the inbox, and passes it on.
    async fn close(&mut self);
}

/// A source of events.
struct Events<F> {
    feed: F,
    headers: Vec<String>,
    inbox: Arc<Inbox>,
    /// What is in a batch that is not committed.
    unsettled: Vec<Delivery>,
}

impl<F> Events<F> {
    fn new(feed: F, headers: Vec<String>) -> Self {
        Self { feed, headers, inbox: Arc::new(Inbox::new()), unsettled: Vec::new() }
    }
}

#[async_trait]
impl<F: Feed> Source for Events<F> {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), SourceError> {
        self.feed.open(&self.inbox).await
    }

    async fn ready(&mut self) {
        loop {
            {
                let waiting = self.inbox.waiting();
                if !waiting.deliveries.is_empty() || waiting.has_ended {
                    return;
                }
            }
            self.inbox.came.notified().await;
        }
    }

    async fn cut(&mut self, max_records: usize) -> Result<Cut, SourceError> {
        let mut taken = self.inbox.take(max_records);
        let records = records(taken.iter().map(|delivery| &delivery.events), &self.headers);
        for delivery in &mut taken {
            delivery.events = Batch::new();
        }
        self.unsettled.append(&mut taken);
        Ok(Cut { records: vec![records], position: None })
    }

    async fn done(&mut self, _: Option<&Position>) -> Result<(), SourceError> {
        for delivery in self.unsettled.drain(..) {
            // Whoever is gone by now sends its events again.
            delivery.settle.send(()).ok();
        }
        Ok(())
    }

    fn is_exhausted(&self) -> bool {
        let waiting = self.inbox.waiting();
        waiting.has_ended && waiting.deliveries.is_empty()
    }

    async fn close(&mut self) {
        self.inbox.close();
        self.unsettled.clear();
        self.feed.close().await;
    }
}

/// Events as records: their bodies, and a column for each of these headers.
fn records<'a>(batches: impl Iterator<Item = &'a Batch>, headers: &[String]) -> Records {
    let mut records = Records::default();
    let mut columns: Vec<StringViewBuilder> = headers.iter().map(|_| StringViewBuilder::new()).collect();
    for event in batches.flat_map(Batch::iter) {
        records.push(event.body());
        for (name, column) in headers.iter().zip(&mut columns) {
            column.append_option(event.headers().get(name));
        }
    }
    records.columns = columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
    records
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray as _;
    use flume_rs::event::Event;
    use futures_util::FutureExt as _;

    use super::*;

    fn batch(bodies: &[&str]) -> Batch {
        bodies.iter().map(|body| Event::new((*body).to_owned()).with("host", body)).collect()
    }

    struct Nobody;

    #[async_trait]
    impl Feed for Nobody {
        async fn open(&mut self, _: &Arc<Inbox>) -> Result<(), SourceError> {
            Ok(())
        }

        async fn close(&mut self) {}
    }

    async fn cut(source: &mut Events<Nobody>, max: usize) -> Vec<String> {
        let cut = source.cut(max).await.expect("it never fails");
        let [records] = cut.records.as_slice() else { panic!("they are in one part") };
        let bodies = records.iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect::<Vec<_>>();
        let headers = records.columns[0].as_string_view();
        assert!(headers.iter().eq(bodies.iter().map(|body| Some(body.as_str()))));
        assert_eq!(records.columns[1].null_count(), bodies.len(), "there is no such header");
        bodies
    }

    fn source() -> (Events<Nobody>, Arc<Inbox>) {
        let source = Events::new(Nobody, vec!["host".to_owned(), "other".to_owned()]);
        let inbox = Arc::clone(&source.inbox);
        (source, inbox)
    }

    #[tokio::test]
    async fn events_are_safe_when_their_batch_is_committed() {
        let (mut source, inbox) = source();
        let mut deliveries = [&["a", "b"][..], &["c"], &["d"]].map(|bodies| Box::pin(inbox.deliver(batch(bodies))));
        for delivery in &mut deliveries {
            assert!(delivery.now_or_never().is_none());
        }
        assert_eq!(cut(&mut source, 3).await, ["a", "b", "c"]);
        let [mut first, _, mut third] = deliveries;
        assert!((&mut first).now_or_never().is_none(), "it is not committed");
        source.done(None).await.expect("it never fails");
        assert_eq!(first.now_or_never(), Some(true));
        assert!((&mut third).now_or_never().is_none(), "it is in no batch");
        assert_eq!(cut(&mut source, 1).await, ["d"]);
        source.close().await;
        assert_eq!(third.now_or_never(), Some(false));
        assert_eq!(inbox.deliver(batch(&["e"])).now_or_never(), Some(false));
    }

    #[tokio::test]
    async fn events_of_whoever_gives_up_before_their_batch_are_in_none() {
        let (mut source, inbox) = source();
        let mut first = Box::pin(inbox.deliver(batch(&["a"])));
        assert!((&mut first).now_or_never().is_none());
        let mut second = Box::pin(inbox.deliver(batch(&["b"])));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        assert_eq!(cut(&mut source, 1).await, ["b"]);
    }

    #[tokio::test]
    async fn agents_are_held_back_when_there_is_too_much() {
        let (mut source, inbox) = source();
        let large = "x".repeat(MOST_BYTES);
        let mut first = Box::pin(inbox.deliver(batch(&[&large])));
        assert!((&mut first).now_or_never().is_none());
        let mut second = Box::pin(inbox.deliver(batch(&["b"])));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(cut(&mut source, 9).await.len(), 1);
        source.done(None).await.expect("it never fails");
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(cut(&mut source, 9).await, ["b"]);
    }
}
