//! The channel processor: a source's way into its channels.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::channel::{Channel, ChannelError, Put};
use crate::event::Batch;
use crate::interceptor::Chain;
use crate::metrics::{Ledger, SourceCounters};
use crate::selector::{Routes, Selector};

/// A batch that the channels did not take, with the first channel's reason.
#[derive(Debug)]
pub struct Refused {
    /// The batch, with what the interceptors did to it.
    pub batch: Batch,
    /// Why.
    pub error: ChannelError,
}

/// How long a put may wait for room.
enum Wait<'a> {
    /// Not at all.
    No,
    /// As long as the channel is configured to.
    KeepAlive,
    /// The same, but no longer than until this is told to stop.
    Until(&'a CancellationToken),
}

async fn reserve(channel: &dyn Channel, batch: &Batch, wait: &Wait<'_>) -> Result<Put, ChannelError> {
    match channel.try_reserve(batch) {
        Err(error) if error.is_transient() => match wait {
            Wait::No => Err(error),
            Wait::KeepAlive => channel.reserve(batch).await,
            Wait::Until(stop) => stop.run_until_cancelled(channel.reserve(batch)).await.unwrap_or(Err(error)),
        },
        other => other,
    }
}

/// Hands batches to all channels that they belong in. Clones share everything.
#[derive(Clone)]
pub struct ChannelProcessor {
    shared: Arc<Shared>,
}

struct Shared {
    source: String,
    chain: Chain,
    selector: Box<dyn Selector>,
    channels: Vec<Arc<dyn Channel>>,
    counters: Arc<SourceCounters>,
    ledger: Arc<Ledger>,
}

impl ChannelProcessor {
    /// A processor for one source.
    pub fn new(
        source: impl Into<String>,
        chain: Chain,
        selector: Box<dyn Selector>,
        channels: Vec<Arc<dyn Channel>>,
        counters: Arc<SourceCounters>,
        ledger: Arc<Ledger>,
    ) -> Self {
        let source = source.into();
        Self { shared: Arc::new(Shared { source, chain, selector, channels, counters, ledger }) }
    }

    /// The source's name, for messages.
    pub fn source(&self) -> &str {
        &self.shared.source
    }

    /// What the source counts.
    pub fn counters(&self) -> &SourceCounters {
        &self.shared.counters
    }

    /// The most events that every channel takes at once.
    pub fn transaction_capacity(&self) -> usize {
        self.shared.channels.iter().map(|channel| channel.transaction_capacity()).min().unwrap_or(1)
    }

    /// Delivers a batch as one transaction, with one wait for room.
    pub async fn deliver(&self, mut batch: Batch) -> Result<(), Refused> {
        self.shared.chain.intercept(&mut batch);
        self.put(batch, Wait::KeepAlive).await.inspect_err(|refused| self.refuse(refused.batch.len()))
    }

    /// Delivers a batch and waits for room as long as it takes, for sources that answer to nobody. Gives the batch
    /// back when it is told to stop before there was room.
    pub async fn deliver_patiently(&self, mut batch: Batch, stop: &CancellationToken) -> Result<(), Refused> {
        self.shared.chain.intercept(&mut batch);
        let mut warned = false;
        loop {
            let attempt = self.put(batch, Wait::Until(stop)).await;
            let refused = match attempt {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            if stop.is_cancelled() || !refused.error.is_transient() {
                self.refuse(refused.batch.len());
                return Err(refused);
            }
            if !warned {
                warned = true;
                warn!("Source {}: {}; waiting, nothing is lost", self.shared.source, refused.error);
            }
            batch = refused.batch;
        }
    }

    /// Delivers events that are transactions of their own, as many at once as fit, and calls `outcome` for each
    /// run of events in order: how many, and why they were refused if they were.
    ///
    /// Each event waits for room as long as if it had come alone.
    pub async fn deliver_each(&self, mut batch: Batch, mut outcome: impl FnMut(usize, Option<&ChannelError>)) {
        self.shared.chain.intercept(&mut batch);
        while !batch.is_empty() {
            let part = batch.split_to(self.transaction_capacity());
            let count = part.len();
            let Err(Refused { batch: mut rest, error }) = self.put(part, Wait::KeepAlive).await else {
                outcome(count, None);
                continue;
            };
            if !error.is_transient() {
                self.refuse(rest.len());
                outcome(rest.len(), Some(&error));
                continue;
            }
            // There was no room for all: the front goes in as far as it fits, the first that does not is refused.
            let mut size = rest.len() / 2;
            while size > 0 {
                let front = rest.split_to(size);
                match self.put(front, Wait::No).await {
                    Ok(()) => outcome(size, None),
                    Err(Refused { batch: mut front, .. }) => {
                        front.append(rest);
                        rest = front;
                        size /= 2;
                        continue;
                    }
                }
                size = size.min(rest.len());
            }
            if !rest.is_empty() {
                let refused = rest.split_to(1);
                self.refuse(refused.len());
                outcome(1, Some(&error));
                rest.append(std::mem::take(&mut batch));
                batch = rest;
            }
        }
    }

    /// Counts events that the source itself refuses.
    pub fn refuse(&self, events: usize) {
        let _entry = self.shared.ledger.entry();
        self.shared.counters.event_received.add(events as u64);
        self.shared.counters.event_refused.add(events as u64);
    }

    /// Selects, reserves everywhere, and commits; gives the batch back when a required channel refuses.
    async fn put(&self, batch: Batch, wait: Wait<'_>) -> Result<(), Refused> {
        let events = batch.len() as u64;
        let Shared { selector, channels, counters, ledger, .. } = &*self.shared;
        // With more than one channel the batch is kept for the case that one of them refuses.
        let kept = (channels.len() > 1).then(|| batch.clone());
        let Routes { mut required, optional } = selector.select(batch);
        // In one order everywhere, so that two sources never wait for each other's room.
        required.sort_by(|(a, _), (b, _)| channels[*a].name().cmp(channels[*b].name()));
        let mut puts: Vec<Put> = Vec::with_capacity(required.len());
        let mut failure = None;
        for (channel, part) in &required {
            match reserve(&*channels[*channel], part, &wait).await {
                Ok(put) => puts.push(put),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if failure.is_none() {
            for (put, (_, part)) in puts.iter_mut().zip(&required) {
                if let Err(error) = put.prepare(part).await {
                    failure = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = failure {
            counters.channel_write_fail.add(1);
            let batch = kept.or_else(|| required.pop().map(|(_, batch)| batch)).unwrap_or_default();
            return Err(Refused { batch, error });
        }
        {
            let _entry = ledger.entry();
            counters.event_received.add(events);
            counters.event_accepted.add(events);
            for (put, (_, part)) in puts.into_iter().zip(required) {
                put.commit(part);
            }
        }
        for (channel, part) in optional {
            let channel = &channels[channel];
            let outcome = match channel.try_reserve(&part) {
                Ok(mut put) => put.prepare(&part).await.map(|()| put),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(put) => {
                    let _entry = ledger.entry();
                    put.commit(part);
                }
                Err(error) => error!("Unable to put batch on optional channel: {}: {error}", channel.name()),
            }
        }
        Ok(())
    }
}
