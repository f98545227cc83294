//! The channel processor: a source's way into its channels.

mod pipeline;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

pub use pipeline::Pipeline;

use crate::channel::{Channel, ChannelError, Note, Patience, Put};
use crate::event::Batch;
use crate::interceptor::Chain;
use crate::logging::{Limited, Suppressed};
use crate::metrics::{Ledger, SourceCounters};
use crate::selector::{Routes, Selector};

/// How long the disk of an optional channel may keep a source waiting.
const OPTIONAL_WAIT: Duration = Duration::from_secs(1);

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
#[derive(Default)]
struct Begun {
    events: usize,
    required: Vec<(usize, Batch)>,
    puts: Vec<Put>,
    optional: Vec<(usize, Batch)>,
    unrouted: usize,
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
/// events in order: how many, and why they were refused if they were. Events that an interceptor has dropped are accepted.
pub struct Each<'a> {
    out: &'a ChannelProcessor,
    batch: Batch,
    /// The places among all events of those that are left; empty when none has been dropped.
    places: Vec<u32>,
    /// How many of all there are, and how many have an outcome.
    events: usize,
    settled: usize,
}

impl Each<'_> {
    /// Takes events off that have had their outcome, and gives how many dropped ones stood before the next one.
    fn advance(&mut self, events: usize) -> usize {
        self.batch.advance(events);
        self.settled += events;
        let left = self.batch.len();
        let next = match self.places.len().checked_sub(left) {
            Some(at) if left > 0 => self.places[at] as usize,
            _ => self.events - left,
        };
        let dropped = next - self.settled;
        self.settled = next;
        self.out.accept_dropped(dropped);
        dropped
    }

    /// Delivers what fits, as many events at once as do, without waiting. Returns whether that was all.
    pub async fn ready(&mut self, mut outcome: impl FnMut(usize, Option<&ChannelError>)) -> bool {
        match self.advance(0) {
            0 => {}
            dropped => outcome(dropped, None),
        }
        let mut size = self.out.likely_to_fit();
        while !self.batch.is_empty() {
            let part = self.batch.front(size);
            size = part.len();
            match self.out.put(part, Wait::No).await {
                Ok(()) => {
                    outcome(size + self.advance(size), None);
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
            Ok(()) => outcome(1 + self.advance(1), None),
            Err(Refusal { error, channel }) => {
                if stop.is_cancelled() {
                    // What would have been dropped stands among the others, and goes with them.
                    let refused = self.events - std::mem::replace(&mut self.settled, self.events);
                    self.batch = Batch::new();
                    self.out.refuse_by_channel(refused, channel);
                    return outcome(refused, Some(&error));
                }
                self.out.refuse_by_channel(1, channel);
                outcome(1, Some(&error));
                match self.advance(1) {
                    0 => {}
                    dropped => outcome(dropped, None),
                }
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
    /// Events of patient sources that found no room before the stop.
    left: AtomicU64,
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
        let (complaints, left) = (Limited::default(), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { source, chain, selector, channels, counters, ledger, complaints, left }) }
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

    /// The most events that any of the channels takes at once.
    pub fn largest_transaction(&self) -> usize {
        self.shared.channels.iter().map(|channel| channel.transaction_capacity()).max().unwrap_or(0)
    }

    /// The most events that all channels take at once.
    pub fn transaction_capacity(&self) -> usize {
        let capacities = self.shared.channels.iter().map(|channel| channel.transaction_capacity());
        capacities.min().unwrap_or(1).max(1)
    }

    /// Delivers a batch as one transaction, with one wait for room. An error is the first refusing channel's reason.
    pub async fn deliver(&self, mut batch: Batch, stop: &CancellationToken) -> Result<(), ChannelError> {
        let events = batch.len();
        self.shared.chain.intercept(&mut batch);
        let dropped = events - batch.len();
        if !batch.is_empty() {
            let attempt = self.put(batch, Wait::Until(Patience::KeepAlive, stop)).await;
            attempt.map_err(|Refusal { error, channel }| {
                self.refuse_by_channel(events, channel);
                error
            })?;
        }
        self.accept_dropped(dropped);
        Ok(())
    }

    /// Delivers a batch and waits for room as long as it takes, for sources that answer to nobody. What can never
    /// fit, or finds no room before the stop, is refused and counted, and logged at once or at the end. Returns whether all
    /// was delivered.
    pub async fn deliver_patiently(&self, mut batch: Batch, stop: &CancellationToken) -> bool {
        self.intercept(&mut batch);
        self.deliver_intercepted(batch, None, stop).await
    }

    /// The same, with notes that the channels store together with the last of the events.
    pub async fn deliver_noted(&self, mut batch: Batch, notes: Option<&Arc<[Note]>>, stop: &CancellationToken) -> bool {
        self.intercept(&mut batch);
        self.deliver_intercepted(batch, notes, stop).await
    }

    fn required(&self) -> impl Iterator<Item = &Arc<dyn Channel>> {
        let Shared { selector, channels, .. } = &*self.shared;
        channels.iter().enumerate().filter(|(number, _)| selector.requires(*number)).map(|(_, channel)| channel)
    }

    /// Whether every required channel, of which there are some, keeps notes.
    pub fn keeps_notes(&self) -> bool {
        self.required().next().is_some() && self.required().all(|channel| channel.keeps_notes())
    }

    /// How far a stream is in all required channels, once they are [open](Self::opened).
    pub fn noted(&self, stream: u128) -> Option<u64> {
        // Where one has nothing of the stream, it is in no place in all of them.
        self.required().map(|channel| channel.noted(stream)).min().flatten()
    }

    /// Waits until all required channels take events.
    pub async fn opened(&self) -> Result<(), ChannelError> {
        for channel in self.required() {
            drop(channel.reserve(&Batch::new(), Patience::Endless).await?);
        }
        Ok(())
    }

    /// Says how much found no room before the stop.
    pub fn say_what_is_left(&self) {
        let events = self.shared.left.swap(0, Ordering::Relaxed);
        if events > 0 {
            error!("Source {}: {events} events could not be delivered before the stop", self.shared.source);
        }
    }

    /// Sends a batch through the interceptors for good: what they drop is accepted.
    fn intercept(&self, batch: &mut Batch) {
        let events = batch.len();
        self.shared.chain.intercept(batch);
        self.accept_dropped(events - batch.len());
    }

    async fn deliver_intercepted(
        &self,
        mut batch: Batch,
        notes: Option<&Arc<[Note]>>,
        stop: &CancellationToken,
    ) -> bool {
        let mut patience = Patience::KeepAlive;
        let mut all = true;
        let mut size = batch.len();
        while !batch.is_empty() {
            let part = batch.front(size);
            size = part.len();
            let is_last = size == batch.len();
            match self.put_noted(part, notes.filter(|_| is_last), Wait::Until(patience, stop)).await {
                Ok(()) => {
                    batch.advance(size);
                    size = batch.len();
                }
                Err(Refusal { error, .. }) if error.is_transient() && !stop.is_cancelled() => {
                    self.counters().channel_write_fail.add(1);
                    if let Some(others) = self.may_complain() {
                        warn!("Source {}: {error}; waiting, nothing is lost{others}", self.shared.source);
                    }
                    patience = Patience::Endless;
                }
                // Too large for the channel as a whole: its parts may fit.
                Err(Refusal { error, .. }) if size > 1 && !error.is_transient() && !stop.is_cancelled() => size /= 2,
                Err(Refusal { error, channel }) => {
                    all = false;
                    self.refuse_by_channel(size, channel);
                    if stop.is_cancelled() {
                        self.shared.left.fetch_add(size as u64, Ordering::Relaxed);
                    } else if let Some(others) = self.may_complain() {
                        let source = &self.shared.source;
                        error!("Source {source}: {size} events could not be delivered: {error}{others}");
                    }
                    batch.advance(size);
                    size = batch.len();
                }
            }
        }
        all
    }

    /// Begins to deliver events that are transactions of their own.
    pub fn deliver_each(&self, mut batch: Batch) -> Each<'_> {
        let events = batch.len();
        let places = self.shared.chain.intercept_noting(&mut batch);
        Each { out: self, batch, places, events, settled: 0 }
    }

    /// A size to try: what every channel takes at once and has room for, but at least one event.
    fn likely_to_fit(&self) -> usize {
        let Shared { selector, channels, .. } = &*self.shared;
        let required = channels.iter().enumerate().filter(|(number, _)| selector.requires(*number));
        let room = required.map(|(_, channel)| channel.room().min(channel.transaction_capacity())).min();
        let any = || channels.iter().map(|channel| channel.transaction_capacity()).min();
        room.or_else(any).unwrap_or(1).max(1)
    }

    /// Counts events that are accepted and go nowhere.
    fn accept_dropped(&self, events: usize) {
        if events > 0 {
            let _entry = self.shared.ledger.entry();
            self.shared.counters.event_received.add(events as u64);
            self.shared.counters.event_accepted.add(events as u64);
            self.shared.counters.event_dropped.add(events as u64);
        }
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
        self.put_noted(batch, None, wait).await
    }

    async fn put_noted(&self, batch: Batch, notes: Option<&Arc<[Note]>>, wait: Wait<'_>) -> Result<(), Refusal> {
        let mut begun = self.begin(batch, wait).await?;
        if let Some(notes) = notes {
            begun.puts.iter_mut().for_each(|put| put.note(notes));
        }
        self.commit(begun.prepared().await?).await;
        Ok(())
    }

    /// Selects, and reserves in all required channels or in none.
    async fn begin(&self, batch: Batch, wait: Wait<'_>) -> Result<Begun, Refusal> {
        let Shared { selector, channels, .. } = &*self.shared;
        let events = batch.len();
        let Routes { mut required, optional, unrouted } = selector.select(batch);
        // In one order everywhere, so that two sources never wait for each other's room.
        required.sort_by(|(a, _), (b, _)| channels[*a].name().cmp(channels[*b].name()));
        let puts = self.reserve_all(&required, wait).await?;
        Ok(Begun { events, required, puts, optional, unrouted })
    }

    /// Makes a batch visible in all channels.
    async fn commit(&self, begun: Begun) {
        let Shared { channels, counters, ledger, .. } = &*self.shared;
        let Begun { events, required, puts, optional, unrouted } = begun;
        {
            let _entry = ledger.entry();
            counters.event_received.add(events as u64);
            counters.event_accepted.add(events as u64);
            counters.event_dropped.add(unrouted as u64);
            for (put, (channel, part)) in puts.into_iter().zip(required) {
                channels[channel].counters().put_attempt.add(part.len() as u64);
                put.commit(part);
            }
        }
        if unrouted > 0
            && let Some(others) = self.may_complain()
        {
            let source = self.source();
            warn!("Source {source}: {unrouted} events are dropped: the selector has no channel for them{others}");
        }
        for (channel, part) in optional {
            self.put_optional(&*channels[channel], part).await;
        }
    }

    /// Puts what fits into a channel that may fail, without waiting for room, nor long for a disk.
    async fn put_optional(&self, channel: &dyn Channel, mut batch: Batch) {
        channel.counters().put_attempt.add(batch.len() as u64);
        while !batch.is_empty() {
            let fits = channel.room().min(channel.transaction_capacity()).max(1);
            let part = batch.split_to(fits);
            let outcome = match channel.reserve_at_once(&part) {
                Ok(mut put) => match timeout(OPTIONAL_WAIT, put.prepare(&part)).await {
                    Ok(prepared) => prepared.map(|()| put),
                    Err(_) => {
                        let cause = format!("not written within {OPTIONAL_WAIT:?}");
                        Err(ChannelError::PutFailed { channel: channel.name().to_owned(), cause })
                    }
                },
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
    use async_trait::async_trait;

    use super::*;
    use crate::channel::memory::{MemoryChannel, MemoryConfig};
    use crate::channel::{PutTransaction, Take};
    use crate::event::{Event, EventRef};
    use crate::interceptor::{Filter, Interceptor};
    use crate::metrics::{ChannelCounters, Metrics};

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
        let begun = Begun { events: 1, required, puts, optional: Vec::new(), unrouted: 0 };
        let prepared = tokio::time::timeout(Duration::from_secs(5), begun.prepared()).await;
        assert!(prepared.expect("neither waits for the other").is_ok());
    }

    struct ToAll;

    impl Selector for ToAll {
        fn select(&self, batch: Batch) -> Routes {
            Routes { required: vec![(0, batch.clone()), (1, batch)], ..Routes::default() }
        }

        fn requires(&self, _channel: usize) -> bool {
            true
        }
    }

    struct ToFirst;

    impl Selector for ToFirst {
        fn select(&self, batch: Batch) -> Routes {
            Routes { required: vec![(0, batch)], ..Routes::default() }
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

    struct SecondIsOptional;

    impl Selector for SecondIsOptional {
        fn select(&self, batch: Batch) -> Routes {
            Routes { required: vec![(0, batch.clone())], optional: vec![(1, batch)], ..Routes::default() }
        }

        fn requires(&self, channel: usize) -> bool {
            channel == 0
        }
    }

    /// A channel whose disk does not answer until the test says so.
    struct Stuck {
        counters: Arc<ChannelCounters>,
        answers: CancellationToken,
    }

    impl Stuck {
        fn until(answers: &CancellationToken) -> Arc<dyn Channel> {
            Arc::new(Self { counters: Arc::new(ChannelCounters::new("stuck")), answers: answers.clone() })
        }
    }

    #[async_trait]
    impl Channel for Stuck {
        fn name(&self) -> &str {
            "stuck"
        }

        fn counters(&self) -> &Arc<ChannelCounters> {
            &self.counters
        }

        fn transaction_capacity(&self) -> usize {
            100
        }

        fn room(&self) -> usize {
            100
        }

        fn in_memory(&self) -> u64 {
            0
        }

        fn as_any(&self) -> &dyn std::any::Any {
            self
        }

        async fn start(&self) -> Result<(), ChannelError> {
            Ok(())
        }

        async fn stop(&self) {}

        fn try_reserve(&self, _batch: &Batch) -> Result<Put, ChannelError> {
            Ok(Put::new(Slow(self.answers.clone())))
        }

        async fn reserve(&self, batch: &Batch, _patience: Patience) -> Result<Put, ChannelError> {
            self.try_reserve(batch)
        }

        async fn take(&self, _max: usize) -> Result<Take, ChannelError> {
            std::future::pending().await
        }

        async fn drained(&self) {}
    }

    struct Slow(CancellationToken);

    #[async_trait]
    impl PutTransaction for Slow {
        fn needs_prepare(&self) -> bool {
            true
        }

        async fn prepare(&mut self, _batch: &Batch) -> Result<(), ChannelError> {
            self.0.cancelled().await;
            Ok(())
        }

        fn commit(self: Box<Self>, _batch: Batch) {}
    }

    #[tokio::test]
    async fn an_optional_channel_whose_disk_does_not_answer_holds_nobody_up_for_long() {
        let first = channel("c1", 10);
        let stuck = Stuck::until(&CancellationToken::new());
        let out = processor(SecondIsOptional, &[&first, &stuck]);
        let stop = CancellationToken::new();
        let delivered = timeout(Duration::from_secs(30), out.deliver(batch(2), &stop)).await;
        delivered.expect("it does not wait for ever").expect("it is in the required channel");
        assert_eq!(first.counters().size.get(), 2);
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

    /// Keeps the events whose numbers are even.
    struct Even;

    impl Filter for Even {
        fn keeps(&self, event: EventRef<'_>) -> bool {
            event.body().last().is_some_and(|digit| digit % 2 == 0)
        }
    }

    #[tokio::test]
    async fn dropped_events_are_accepted_in_their_places() {
        let only = channel("c1", 3);
        let counters = Arc::new(SourceCounters::new("r1"));
        let chain = Chain::new(vec![Interceptor::Filters(Box::new(Even))]);
        let channels = vec![Arc::clone(&only)];
        let out = ChannelProcessor::new("r1", chain, Box::new(ToFirst), channels, counters, Arc::default());
        let stop = CancellationToken::new();
        let mut outcomes = Vec::new();
        let mut each = out.deliver_each((1..=10).map(|n| Event::new(n.to_string())).collect());
        while !each.ready(|events, refused| outcomes.extend(vec![refused.is_none(); events])).await {
            each.one(&stop, |events, refused| outcomes.extend(vec![refused.is_none(); events])).await;
        }
        // There is room for 2, 4 and 6; the odd ones are dropped.
        assert_eq!(outcomes, [true, true, true, true, true, true, true, false, true, false]);
        out.deliver(Batch::from_iter([Event::new("1"), Event::new("3")]), &stop)
            .await
            .expect("nothing is to be stored");
        let counters = out.counters();
        assert_eq!([counters.event_received.get(), counters.event_accepted.get()], [12, 10]);
        assert_eq!([counters.event_refused.get(), counters.event_dropped.get()], [2, 7]);
        assert_eq!(only.counters().size.get(), 3);
        stop.cancel();
        outcomes.clear();
        let mut each = out.deliver_each(batch(6));
        assert!(!each.ready(|events, refused| outcomes.extend(vec![refused.is_none(); events])).await);
        each.one(&stop, |events, refused| outcomes.extend(vec![refused.is_none(); events])).await;
        assert!(each.ready(|events, refused| outcomes.extend(vec![refused.is_none(); events])).await);
        assert_eq!(outcomes, [false; 6], "after the stop all that is left is refused");
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
    async fn what_interceptors_empty_is_settled_in_its_turn() {
        let answers = CancellationToken::new();
        let counters = Arc::new(SourceCounters::new("r1"));
        let chain = Chain::new(vec![Interceptor::Filters(Box::new(Even))]);
        let channels = vec![Stuck::until(&answers)];
        let out = ChannelProcessor::new("r1", chain, Box::new(ToFirst), channels, counters, Arc::default());
        let stop = CancellationToken::new();
        let mut pipeline = Pipeline::new(&out, &stop);
        let numbered = |number: &'static str| Batch::from_iter([Event::new(number)]);
        pipeline.deliver(numbered("1")).await;
        assert_eq!(pipeline.settled(), 1, "there is nothing to wait for");
        pipeline.deliver(numbered("2")).await;
        pipeline.deliver(numbered("3")).await;
        assert_eq!(pipeline.settled(), 1, "the one before it is not durable");
        answers.cancel();
        pipeline.finish().await;
        assert_eq!(pipeline.settled(), 3);
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
