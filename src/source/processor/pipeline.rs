//! Several transactions in flight, for sources that answer to nobody: while a durable channel writes one batch, the
//! next ones are already on their way, and one sync serves them all.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::sync::CancellationToken;

use super::{Begun, ChannelProcessor, Refusal, Wait};
use crate::event::Batch;

/// The most transactions, and bytes of bodies, in flight.
const MAX_TRANSACTIONS: usize = 64;
const MAX_BYTES: usize = 8 << 20;

type Prepared = Result<Begun, Refusal>;

/// A batch that is being made durable.
struct InFlight {
    /// Kept to be delivered again.
    batch: Batch,
    prepare: Pin<Box<dyn Future<Output = Prepared> + Send>>,
    outcome: Option<Prepared>,
}

impl InFlight {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.outcome.is_none() {
            match self.prepare.as_mut().poll(cx) {
                Poll::Ready(outcome) => self.outcome = Some(outcome),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

/// A way into the channels that does not wait for each batch before it takes the next one. Batches become visible to sinks
/// in their order, and all of them are, as by [`deliver_patiently`](ChannelProcessor::deliver_patiently).
///
/// Whoever waits for input waits for [`ready`](Self::ready) too, and then calls [`settle`](Self::settle), so that what is
/// durable gets to the sinks. Dropped, it takes back what is in flight.
pub struct Pipeline<'a> {
    out: &'a ChannelProcessor,
    stop: &'a CancellationToken,
    in_flight: VecDeque<InFlight>,
    settled: usize,
    cut_off: bool,
}

impl<'a> Pipeline<'a> {
    /// A pipeline with nothing in it.
    pub fn new(out: &'a ChannelProcessor, stop: &'a CancellationToken) -> Self {
        Self { out, stop, in_flight: VecDeque::new(), settled: 0, cut_off: false }
    }

    /// Takes a batch in. It waits for the ones before it only when there are many, or no room in a channel.
    pub async fn deliver(&mut self, mut batch: Batch) {
        self.out.intercept(&mut batch);
        while self.is_full() || self.front_is_ready().await {
            self.settle().await;
        }
        let begun = match batch.is_empty() {
            // What the interceptors have emptied is settled in its turn.
            true => Ok(Begun::default()),
            false => self.out.begin(batch.clone(), Wait::No).await,
        };
        match begun {
            Ok(begun) if self.in_flight.is_empty() && !begun.needs_prepare() => {
                self.out.commit(begun).await;
                self.note(true);
            }
            Ok(begun) => {
                let mut entry = InFlight { batch, prepare: Box::pin(begun.prepared()), outcome: None };
                // The order of first polls is the order in the channel.
                poll_fn(|cx| Poll::Ready(entry.poll(cx).is_ready())).await;
                self.in_flight.push_back(entry);
            }
            Err(_) => {
                self.finish().await;
                self.deliver_slowly(batch).await;
            }
        }
    }

    async fn deliver_slowly(&mut self, batch: Batch) {
        let delivered = self.out.deliver_intercepted(batch, None, self.stop).await;
        self.note(delivered);
    }

    /// What is refused before the stop is refused for good.
    fn note(&mut self, delivered: bool) {
        self.cut_off |= !delivered && self.stop.is_cancelled();
        self.settled += usize::from(!self.cut_off);
    }

    /// How many batches, of those taken in and in their order, are done with: delivered, or refused for good. What the
    /// stop has cut off is not, nor is what comes behind it.
    pub fn settled(&self) -> usize {
        self.settled
    }

    fn is_full(&self) -> bool {
        let bytes: usize = self.in_flight.iter().map(|entry| entry.batch.body_bytes()).sum();
        self.in_flight.len() >= MAX_TRANSACTIONS || bytes >= MAX_BYTES
    }

    async fn front_is_ready(&mut self) -> bool {
        let Some(front) = self.in_flight.front_mut() else { return false };
        poll_fn(|cx| Poll::Ready(front.poll(cx).is_ready())).await
    }

    /// Waits until the first batch in flight is durable, or could not be made so; for ever when there is none.
    pub async fn ready(&mut self) {
        match self.in_flight.front_mut() {
            Some(front) => poll_fn(|cx| front.poll(cx)).await,
            None => pending().await,
        }
    }

    /// Makes the first batch in flight visible. If it could not be made durable, all that are in flight go the slow way,
    /// in their order.
    pub async fn settle(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        self.ready().await;
        let Some(InFlight { batch, outcome, .. }) = self.in_flight.pop_front() else { return };
        if let Some(Ok(begun)) = outcome {
            self.out.commit(begun).await;
            return self.note(true);
        }
        drop(outcome);
        // Their room is given back before any of them asks for room again.
        let rest: Vec<Batch> = self.in_flight.drain(..).map(|entry| entry.batch).collect();
        for batch in std::iter::once(batch).chain(rest) {
            self.deliver_slowly(batch).await;
        }
    }

    /// Waits until nothing is in flight.
    pub async fn finish(&mut self) {
        while !self.in_flight.is_empty() {
            self.settle().await;
        }
    }
}
