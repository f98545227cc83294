//! The channel processor: a source's way into its channels.

mod pipeline;

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

pub use pipeline::Pipeline;

use crate::channel::{Channel, ChannelError, Patience, Put};
use crate::event::Batch;
use crate::interceptor::Chain;
use crate::logging::{Limited, Suppressed};
use crate::metrics::{Ledger, SourceCounters};
use crate::selector::{Routes, Selector};

/// Why a put failed, and the number of the channel that refused.
struct Refusal {
    error: ChannelError,
    channel: usize,
}

/// How long a put may wait for room.
#[derive(Clone, Copy)]
enum Wait<'a> {
    /// Not at all.
    No,
    /// As the channel is configured or without end, but no longer than until this is told to stop.
    Until(Patience, &'a CancellationToken),
}

/// A batch that has room in every required channel.
struct Begun {
    events: usize,
    required: Vec<(usize, Batch)>,
    puts: Vec<Put>,
    optional: Vec<(usize, Batch)>,
}

impl Begun {
    fn needs_prepare(&self) -> bool {
        self.puts.iter().any(Put::needs_prepare)
    }

    /// Makes it as durable as the channels promise, in all of them at once. They are asked in order, so that batches
    /// that are prepared beside each other have one order in each channel.
    async fn prepared(mut self) -> Result<Self, Refusal> {
        let puts = self.puts.iter_mut().zip(&self.required).filter(|(put, _)| put.needs_prepare());
        let mut preparing = puts.map(|(put, (channel, part))| async {
            put.prepare(part).await.map_err(|error| Refusal { error, channel: *channel })
        });
        match (preparing.next(), preparing.next()) {
            (None, _) => {}
            (Some(only), None) => only.await?,
            (Some(first), Some(second)) => {
                try_join_all([first, second].into_iter().chain(preparing)).await?;
            }
        }
        Ok(self)
    }
}

/// Events that are transactions of their own, on their way into the channels. Both steps call `outcome` for each run of
/// events in order: how many, and why they were refused if they were.
pub struct Each<'a> {
    out: &'a ChannelProcessor,
    batch: Batch,
}

impl Each<'_> {
    /// Delivers what fits, as many events at once as do, without waiting. Returns whether that was all.
    pub async fn ready(&mut self, mut outcome: impl FnMut(usize, Option<&ChannelError>)) -> bool {
        let mut size = self.out.likely_to_fit();
        while !self.batch.is_empty() {
            let part = self.batch.front(size);
            size = part.len();
            match self.out.put(part, Wait::No).await {
                Ok(()) => {
                    outcome(size, None);
                    self.batch.advance(size);
                    size = self.out.likely_to_fit();
                }
                Err(_) if size > 1 => size /= 2,
                Err(_) => return false,
            }
        }
        true
    }

    /// Delivers the next event and waits for room for it, as if it had come alone. After the stop nothing more is
    /// waited for, and all that is left is refused.
    pub async fn one(&mut self, stop: &CancellationToken, mut outcome: impl FnMut(usize, Option<&ChannelError>)) {
        let part = self.batch.front(1);
        match self.out.put(part, Wait::Until(Patience::KeepAlive, stop)).await {
            Ok(()) => {
                outcome(1, None);
                self.batch.advance(1);
            }
            Err(Refusal { error, channel }) => {
                let refused = if stop.is_cancelled() { self.batch.len() } else { 1 };
                self.out.refuse_by_channel(refused, channel);
                outcome(refused, Some(&error));
                self.batch.advance(refused);
            }
        }
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
    /// For what the source's clients or a full channel can cause at any rate.
    complaints: Limited,
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
        let complaints = Limited::default();
        Self { shared: Arc::new(Shared { source, chain, selector, channels, counters, ledger, complaints }) }
    }

    /// The source's name, for messages.
    pub fn source(&self) -> &str {
        &self.shared.source
    }

    /// Whether one more complaint about a client or a channel may be logged now.
    pub fn may_complain(&self) -> Option<Suppressed> {
        self.shared.complaints.permit()
    }

    /// What the source counts.
    pub fn counters(&self) -> &SourceCounters {
        &self.shared.counters
    }

    /// Delivers a batch as one transaction, with one wait for room. An error is the first refusing channel's reason.
    pub async fn deliver(&self, mut batch: Batch, stop: &CancellationToken) -> Result<(), ChannelError> {
        self.shared.chain.intercept(&mut batch);
        let events = batch.len();
        let attempt = self.put(batch, Wait::Until(Patience::KeepAlive, stop)).await;
        attempt.map_err(|Refusal { error, channel }| {
            self.refuse_by_channel(events, channel);
            error
        })
    }

    /// Delivers a batch and waits for room as long as it takes, for sources that answer to nobody. What can never
    /// fit, or finds no room before the stop, is refused, counted and logged. Returns whether all was delivered.
    pub async fn deliver_patiently(&self, mut batch: Batch, stop: &CancellationToken) -> bool {
        self.shared.chain.intercept(&mut batch);
        self.deliver_intercepted(batch, stop).await
    }

    async fn deliver_intercepted(&self, mut batch: Batch, stop: &CancellationToken) -> bool {
        let mut patience = Patience::KeepAlive;
        let mut all = true;
        let mut size = batch.len();
        while !batch.is_empty() {
            let part = batch.front(size);
            size = part.len();
            match self.put(part, Wait::Until(patience, stop)).await {
                Ok(()) => {
                    batch.advance(size);
                    size = batch.len();
                }
                Err(Refusal { error, .. }) if error.is_transient() && !stop.is_cancelled() => {
                    self.counters().channel_write_fail.add(1);
                    warn!("Source {}: {error}; waiting, nothing is lost", self.shared.source);
                    patience = Patience::Endless;
                }
                // Too large for the channel as a whole: its parts may fit.
                Err(Refusal { error, .. }) if size > 1 && !error.is_transient() && !stop.is_cancelled() => size /= 2,
                Err(Refusal { error, channel }) => {
                    all = false;
                    self.refuse_by_channel(size, channel);
                    error!("Source {}: {size} events could not be delivered: {error}", self.shared.source);
                    batch.advance(size);
                    size = batch.len();
                }
            }
        }
        all
    }

    /// Begins to deliver events that are transactions of their own.
    pub fn deliver_each(&self, mut batch: Batch) -> Each<'_> {
        self.shared.chain.intercept(&mut batch);
        Each { out: self, batch }
    }

    /// A size to try: what every channel takes at once and has room for, but at least one event.
    fn likely_to_fit(&self) -> usize {
        let Shared { selector, channels, .. } = &*self.shared;
        let required = channels.iter().enumerate().filter(|(number, _)| selector.requires(*number));
        let room = required.map(|(_, channel)| channel.room().min(channel.transaction_capacity())).min();
        let any = || channels.iter().map(|channel| channel.transaction_capacity()).min();
        room.or_else(any).unwrap_or(1).max(1)
    }

    /// Counts events that the source itself refuses.
    pub fn refuse(&self, events: usize) {
        let _entry = self.shared.ledger.entry();
        self.shared.counters.event_received.add(events as u64);
        self.shared.counters.event_refused.add(events as u64);
    }

    fn refuse_by_channel(&self, events: usize, channel: usize) {
        self.refuse(events);
        self.shared.counters.channel_write_fail.add(1);
        self.shared.channels[channel].counters().put_attempt.add(events as u64);
    }

    /// Selects, reserves everywhere, and commits to all required channels or to none.
    async fn put(&self, batch: Batch, wait: Wait<'_>) -> Result<(), Refusal> {
        let begun = self.begin(batch, wait).await?;
        self.commit(begun.prepared().await?).await;
        Ok(())
    }

    /// Selects, and reserves in all required channels or in none.
    async fn begin(&self, batch: Batch, wait: Wait<'_>) -> Result<Begun, Refusal> {
        let Shared { selector, channels, .. } = &*self.shared;
        let events = batch.len();
        let Routes { mut required, optional } = selector.select(batch);
        // In one order everywhere, so that two sources never wait for each other's room.
        required.sort_by(|(a, _), (b, _)| channels[*a].name().cmp(channels[*b].name()));
        let puts = self.reserve_all(&required, wait).await?;
        Ok(Begun { events, required, puts, optional })
    }

    /// Makes a batch visible in all channels.
    async fn commit(&self, begun: Begun) {
        let Shared { channels, counters, ledger, .. } = &*self.shared;
        let Begun { events, required, puts, optional } = begun;
        {
            let _entry = ledger.entry();
            counters.event_received.add(events as u64);
            counters.event_accepted.add(events as u64);
            for (put, (channel, part)) in puts.into_iter().zip(required) {
                channels[channel].counters().put_attempt.add(part.len() as u64);
                put.commit(part);
            }
        }
        for (channel, part) in optional {
            self.put_optional(&*channels[channel], part).await;
        }
    }

    /// Puts what fits into a channel that may fail, without waiting.
    async fn put_optional(&self, channel: &dyn Channel, mut batch: Batch) {
        channel.counters().put_attempt.add(batch.len() as u64);
        while !batch.is_empty() {
            let fits = channel.room().min(channel.transaction_capacity()).max(1);
            let part = batch.split_to(fits);
            let outcome = match channel.reserve_at_once(&part) {
                Ok(mut put) => put.prepare(&part).await.map(|()| put),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(put) => {
                    let _entry = self.shared.ledger.entry();
                    put.commit(part);
                }
                Err(error) => {
                    if let Some(others) = self.may_complain() {
                        let (name, left) = (channel.name(), part.len() + batch.len());
                        error!("Unable to put batch on optional channel: {name}: {left} events: {error}{others}");
                    }
                    return;
                }
            }
        }
    }

    /// Reserves in all channels or in none. While it waits for one it holds no room in the others, so that a channel
    /// that is stuck keeps nobody out of the rest.
    async fn reserve_all(&self, parts: &[(usize, Batch)], wait: Wait<'_>) -> Result<Vec<Put>, Refusal> {
        let channels = &self.shared.channels;
        let mut waited: Option<(usize, Put)> = None;
        // Each channel can be the full one, and has then been waited for as long as it is configured to.
        for _ in 0..=parts.len() {
            let mut puts = Vec::with_capacity(parts.len());
            let mut full = None;
            for (position, (channel, part)) in parts.iter().enumerate() {
                match waited.take_if(|(held, _)| *held == position) {
                    Some((_, put)) => puts.push(put),
                    None => match channels[*channel].try_reserve(part) {
                        Ok(put) => puts.push(put),
                        Err(error) => {
                            full = Some((error, position));
                            break;
                        }
                    },
                }
            }
            let Some((error, position)) = full else { return Ok(puts) };
            drop(puts);
            drop(waited.take());
            let (channel, part) = &parts[position];
            let refusal = |error| Refusal { error, channel: *channel };
            let Wait::Until(patience, stop) = wait else { return Err(refusal(error)) };
            if !error.is_transient() {
                return Err(refusal(error));
            }
            let reserved = stop.run_until_cancelled(channels[*channel].reserve(part, patience)).await;
            waited = Some((position, reserved.unwrap_or(Err(error)).map_err(refusal)?));
        }
        let channel = waited.and_then(|(position, _)| parts.get(position)).map_or(0, |(channel, _)| *channel);
        Err(Refusal { error: ChannelError::Full, channel })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::channel::PutTransaction;
    use crate::channel::memory::{MemoryChannel, MemoryConfig};
    use crate::event::Event;
    use crate::metrics::Metrics;

    /// A put that is durable once the other one is on its way, too.
    struct Meeting(Arc<tokio::sync::Barrier>);

    #[async_trait::async_trait]
    impl PutTransaction for Meeting {
        fn needs_prepare(&self) -> bool {
            true
        }

        async fn prepare(&mut self, _batch: &Batch) -> Result<(), ChannelError> {
            self.0.wait().await;
            Ok(())
        }

        fn commit(self: Box<Self>, _batch: Batch) {}
    }

    #[tokio::test]
    async fn required_channels_make_durable_beside_each_other() {
        let barrier = Arc::new(tokio::sync::Barrier::new(2));
        let puts = (0..2).map(|_| Put::new(Meeting(Arc::clone(&barrier)))).collect();
        let required = vec![(0, batch(1)), (1, batch(1))];
        let begun = Begun { events: 1, required, puts, optional: Vec::new() };
        let prepared = tokio::time::timeout(Duration::from_secs(5), begun.prepared()).await;
        assert!(prepared.expect("neither waits for the other").is_ok());
    }

    struct ToAll;

    impl Selector for ToAll {
        fn select(&self, batch: Batch) -> Routes {
            Routes { required: vec![(0, batch.clone()), (1, batch)], optional: Vec::new() }
        }

        fn requires(&self, _channel: usize) -> bool {
            true
        }
    }

    struct ToFirst;

    impl Selector for ToFirst {
        fn select(&self, batch: Batch) -> Routes {
            Routes { required: vec![(0, batch)], optional: Vec::new() }
        }

        fn requires(&self, channel: usize) -> bool {
            channel == 0
        }
    }

    fn channel(name: &str, capacity: usize) -> Arc<dyn Channel> {
        let config = MemoryConfig {
            capacity,
            transaction_capacity: capacity,
            keep_alive: Duration::from_millis(20),
            ..MemoryConfig::default()
        };
        Arc::new(MemoryChannel::new(name, config, &Metrics::default()))
    }

    fn processor(selector: impl Selector + 'static, channels: &[&Arc<dyn Channel>]) -> ChannelProcessor {
        let channels = channels.iter().map(|channel| Arc::clone(channel)).collect();
        let counters = Arc::new(SourceCounters::new("r1"));
        ChannelProcessor::new("r1", Chain::default(), Box::new(selector), channels, counters, Arc::default())
    }

    fn batch(events: usize) -> Batch {
        (0..events).map(|n| Event::new(n.to_string())).collect()
    }

    #[tokio::test]
    async fn a_full_second_channel_leaves_nothing_in_the_first() {
        let (first, second) = (channel("c1", 10), channel("c2", 3));
        let out = processor(ToAll, &[&first, &second]);
        let stop = CancellationToken::new();
        out.deliver(batch(2), &stop).await.expect("room in both");
        let refused = out.deliver(batch(2), &stop).await.expect_err("no room in the second");
        assert_eq!(refused, ChannelError::Full);
        assert_eq!(first.counters().size.get(), 2);
        assert_eq!(second.counters().size.get(), 2);
        // The room in the first came back too.
        assert!(first.try_reserve(&batch(8)).is_ok());
        let counters = out.counters();
        assert_eq!(
            [counters.event_received.get(), counters.event_accepted.get(), counters.event_refused.get()],
            [4, 2, 2]
        );
    }

    #[tokio::test]
    async fn what_waits_for_one_channel_keeps_nobody_out_of_another() {
        let (first, second) = (channel("c1", 2), channel("c2", 2));
        let both = processor(ToAll, &[&first, &second]);
        let one = processor(ToFirst, &[&first]);
        let full = batch(2);
        second.try_reserve(&full).expect("room").commit(full.clone());
        let stop = CancellationToken::new();
        let stuck = tokio::spawn({
            let stop = stop.clone();
            async move { both.deliver_patiently(batch(2), &stop).await }
        });
        tokio::task::yield_now().await;
        one.deliver(batch(2), &stop).await.expect("the first channel is free");
        second.take(2).await.expect("events").commit();
        first.take(2).await.expect("events").commit();
        assert!(stuck.await.expect("delivered in the end"));
    }

    #[tokio::test]
    async fn events_of_their_own_fill_the_room_there_is_and_the_first_without_is_refused() {
        let only = channel("c1", 5);
        let out = processor(ToFirst, &[&only]);
        let mut outcomes = Vec::new();
        let stop = CancellationToken::new();
        let mut each = out.deliver_each(batch(7));
        while !each.ready(|events, refused| outcomes.push((events, refused.is_some()))).await {
            each.one(&stop, |events, refused| outcomes.push((events, refused.is_some()))).await;
        }
        let accepted: usize = outcomes.iter().filter(|(_, refused)| !refused).map(|(events, _)| events).sum();
        assert_eq!(accepted, 5, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|(_, refused)| *refused).count(), 2, "{outcomes:?}");
        assert_eq!(*only.take(5).await.expect("events").batch(), batch(5));
        assert_eq!(out.counters().event_refused.get(), 2);
    }

    #[tokio::test]
    async fn patience_ends_with_the_stop_and_with_what_can_never_fit() {
        let config = MemoryConfig { byte_slots: 2, ..MemoryConfig::default() };
        let small: Arc<dyn Channel> = Arc::new(MemoryChannel::new("c1", config, &Metrics::default()));
        let out = processor(ToFirst, &[&small]);
        let stop = CancellationToken::new();
        let mut events = batch(1);
        events.push(Event::new(vec![b'x'; 1000]));
        assert!(!out.deliver_patiently(events, &stop).await);
        assert_eq!(small.counters().size.get(), 1);
        assert_eq!(out.counters().event_refused.get(), 1);
        assert!(out.deliver_patiently(batch(1), &stop).await);
        stop.cancel();
        assert!(!out.deliver_patiently(batch(1), &stop).await, "no room, and no time to wait for it");
    }

    #[tokio::test]
    async fn a_pipeline_knows_what_the_stop_has_cut_off() {
        let config = MemoryConfig { byte_slots: 3, ..MemoryConfig::default() };
        let small: Arc<dyn Channel> = Arc::new(MemoryChannel::new("c1", config, &Metrics::default()));
        let out = processor(ToFirst, &[&small]);
        let stop = CancellationToken::new();
        let mut pipeline = Pipeline::new(&out, &stop);
        let never_fits = Batch::from_iter([Event::new(vec![b'x'; 1000])]);
        for batch in [batch(2), never_fits] {
            pipeline.deliver(batch).await;
        }
        stop.cancel();
        for batch in [batch(2), batch(1)] {
            pipeline.deliver(batch).await;
        }
        pipeline.finish().await;
        assert_eq!((pipeline.settled(), small.counters().size.get()), (2, 3));
    }
}
