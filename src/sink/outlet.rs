//! A sink's way to its channel, and to the one for dead letters.

use std::sync::Arc;

use tracing::{error, warn};

use super::{Delivered, Refused};
use crate::channel::{Channel, ChannelError, Patience, Put, Take};
use crate::event::Batch;
use crate::java::current_time_millis;
use crate::logging::Limited;
use crate::metrics::{CounterGroup as _, Ledger, SinkCounters};

/// The header of a dead letter that names the sink that refused it.
pub const DEAD_LETTER_SINK: &str = "deadLetterSink";
/// The header of a dead letter that says why it was refused.
pub const DEAD_LETTER_REASON: &str = "deadLetterReason";
/// The header of a dead letter that says when it was refused, in milliseconds since 1970.
pub const DEAD_LETTER_TIME: &str = "deadLetterTime";

/// What becomes of refused events.
#[derive(Default)]
struct Post {
    /// Dead letters, and the room that they have.
    letters: Vec<(Put, Batch)>,
    /// How many have none.
    dropped: usize,
}

/// Where a sink takes events from, where those go that it can never deliver, and where what became of them is counted.
/// Clones share everything.
#[derive(Clone)]
pub struct Outlet {
    channel: Arc<dyn Channel>,
    dead_letters: Option<Arc<dyn Channel>>,
    counters: Arc<SinkCounters>,
    ledger: Arc<Ledger>,
    complaints: Arc<Limited>,
}

impl Outlet {
    /// A sink's side of a channel.
    pub fn new(channel: Arc<dyn Channel>, counters: Arc<SinkCounters>, ledger: Arc<Ledger>) -> Self {
        Self { channel, dead_letters: None, counters, ledger, complaints: Arc::default() }
    }

    /// With a channel for what can never be delivered.
    #[must_use]
    pub fn with_dead_letters(self, dead_letters: Option<Arc<dyn Channel>>) -> Self {
        Self { dead_letters, ..self }
    }

    /// Whether both lead to the same channel.
    pub fn shares_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.channel, &other.channel)
    }

    /// What the sink counts.
    pub fn counters(&self) -> &Arc<SinkCounters> {
        &self.counters
    }

    /// The most events that the channel gives at once.
    pub fn transaction_capacity(&self) -> usize {
        self.channel.transaction_capacity()
    }

    /// Waits for at least one event and takes what is there, at most `max`.
    pub async fn take(&self, max: usize) -> Result<Take, ChannelError> {
        let taken = self.channel.take(max).await;
        match &taken {
            Ok(take) => self.counters.drain_attempt.add(take.batch().len() as u64),
            Err(_) => self.counters.channel_read_fail.add(1),
        }
        taken
    }

    /// Removes events for good, as they have been delivered. `asked` is how many would have been taken, of which no more
    /// than a transaction of the channel holds.
    pub async fn commit(&self, take: Take, asked: usize) -> Result<(), ChannelError> {
        self.commit_as(take, asked, &Delivered::default()).await
    }

    /// The same where the sink has more to say; this finds a place for what it refused.
    pub async fn commit_as(&self, mut take: Take, asked: usize, how: &Delivered) -> Result<(), ChannelError> {
        let post = self.post(take.batch(), &how.refused).await;
        take.prepare().await.inspect_err(|_| self.counters.channel_read_fail.add(1))?;
        let (events, refused) = (take.batch().len(), how.refused.len());
        let _entry = self.ledger.entry();
        // First, so that they are never in neither channel.
        self.commit_letters(post.letters);
        self.counters.event_refused.add(post.dropped as u64);
        take.commit();
        if how.count {
            self.counters.drain_success.add((events - refused) as u64);
        }
        match events >= asked.min(self.channel.transaction_capacity()) {
            true => self.counters.batch_complete.add(1),
            false => self.counters.batch_underflow.add(1),
        }
        Ok(())
    }

    /// Names the refused events in the log, and finds room for them where dead letters go.
    async fn post(&self, batch: &Batch, refused: &[Refused]) -> Post {
        if refused.is_empty() {
            return Post::default();
        }
        let fate = match &self.dead_letters {
            Some(channel) => format!("it goes to channel {}", channel.name()),
            None => "it is dropped".to_owned(),
        };
        for Refused { index, why } in refused {
            if let Some(others) = self.complaints.permit() {
                let (sink, bytes) = (self.counters.name(), batch.get(*index).body().len());
                error!("Sink {sink} can never deliver an event of {bytes} bytes: {why}; {fate}{others}");
            }
        }
        let Some(channel) = &self.dead_letters else {
            return Post { dropped: refused.len(), ..Post::default() };
        };
        let now = current_time_millis();
        let letter = |Refused { index, why }: &Refused| {
            let event = batch.get(*index).to_event();
            let event = event.with(DEAD_LETTER_SINK, self.counters.name()).with(DEAD_LETTER_REASON, why);
            event.with(DEAD_LETTER_TIME, &now.to_string())
        };
        let mut letters: Batch = refused.iter().map(letter).collect();
        channel.counters().put_attempt.add(letters.len() as u64);
        let mut post = Post::default();
        // All at once; or, when the channel will never take that, one by one, as only some of them may be at fault.
        let mut size = letters.len();
        while !letters.is_empty() {
            let part = letters.front(size);
            match self.reserve(&**channel, &part, &mut post.letters).await {
                Ok(put) => post.letters.push((put, part)),
                Err(_) if size > 1 => {
                    size = 1;
                    continue;
                }
                Err(error) => {
                    post.dropped += 1;
                    if let Some(others) = self.complaints.permit() {
                        let (sink, name, bytes) = (self.counters.name(), channel.name(), part.body_bytes());
                        error!(
                            "Sink {sink} drops a dead letter of {bytes} bytes that channel {name} refuses: {error}{others}"
                        );
                    }
                }
            }
            letters.advance(size);
        }
        post
    }

    /// Waits for room as long as it takes. An error says that there will never be any.
    async fn reserve(
        &self,
        channel: &dyn Channel,
        letters: &Batch,
        before: &mut Vec<(Put, Batch)>,
    ) -> Result<Put, ChannelError> {
        let mut patience = Patience::KeepAlive;
        loop {
            let attempt = match channel.reserve(letters, patience).await {
                Ok(mut put) => put.prepare(letters).await.map(|()| put),
                Err(error) => Err(error),
            };
            match attempt {
                Err(error) if error.is_transient() => {
                    if let Some(others) = self.complaints.permit() {
                        let (sink, name) = (self.counters.name(), channel.name());
                        warn!("Sink {sink} waits for room for dead letters in channel {name}: {error}{others}");
                    }
                    // The room may be what those before it hold.
                    self.commit_letters(std::mem::take(before));
                    patience = Patience::Endless;
                }
                outcome => return outcome,
            }
        }
    }

    fn commit_letters(&self, letters: Vec<(Put, Batch)>) {
        for (put, letters) in letters {
            self.counters.dead_letters.add(letters.len() as u64);
            put.commit(letters);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::channel::memory::{MemoryChannel, MemoryConfig};
    use crate::event::Event;
    use crate::metrics::Metrics;

    fn channel(name: &str) -> Arc<dyn Channel> {
        Arc::new(MemoryChannel::new(name, MemoryConfig::default(), &Metrics::default()))
    }

    async fn filled(bodies: &[&'static str]) -> Arc<dyn Channel> {
        let channel = channel("c1");
        let batch: Batch = bodies.iter().map(|body| Event::new(*body).with("own", "header")).collect();
        channel.try_reserve(&batch).expect("room").commit(batch);
        channel
    }

    fn refused() -> Delivered {
        let refused = vec![Refused { index: 1, why: "too large".to_owned() }];
        Delivered { refused, ..Delivered::default() }
    }

    #[tokio::test]
    async fn what_is_refused_goes_to_the_channel_for_dead_letters_with_the_reason() {
        let (source, dead) = (filled(&["a", "b", "c"]).await, channel("dead"));
        let counters = Arc::new(SinkCounters::new("k1"));
        let outlet = Outlet::new(Arc::clone(&source), Arc::clone(&counters), Arc::default());
        let outlet = outlet.with_dead_letters(Some(Arc::clone(&dead)));
        let take = outlet.take(10).await.expect("events");
        outlet.commit_as(take, 10, &refused()).await.expect("a commit");
        assert_eq!(
            [counters.drain_success.get(), counters.dead_letters.get(), counters.event_refused.get()],
            [2, 1, 0]
        );
        assert_eq!([source.counters().size.get(), dead.counters().size.get()], [0, 1]);
        let letters = dead.take(10).await.expect("a letter");
        let letter = letters.batch().get(0);
        assert_eq!(letter.body(), b"b");
        assert_eq!(letter.headers().get("own"), Some("header"));
        assert_eq!(letter.headers().get(DEAD_LETTER_SINK), Some("k1"));
        assert_eq!(letter.headers().get(DEAD_LETTER_REASON), Some("too large"));
        assert!(letter.headers().get(DEAD_LETTER_TIME).is_some_and(|time| time.len() == 13));
    }

    /// Letters for a memory channel of so many slots of 100 bytes: two small ones around one of 250 bytes.
    async fn refused_around_a_large_one(slots: usize) -> (Outlet, Arc<dyn Channel>) {
        let large = str::from_utf8(&[b'x'; 250]).expect("ASCII");
        let source = filled(&["a", large, "b"]).await;
        let config = MemoryConfig { byte_slots: slots, keep_alive: Duration::ZERO, ..MemoryConfig::default() };
        let dead: Arc<dyn Channel> = Arc::new(MemoryChannel::new("dead", config, &Metrics::default()));
        let outlet = Outlet::new(source, Arc::new(SinkCounters::new("k1")), Arc::default());
        (outlet.with_dead_letters(Some(Arc::clone(&dead))), dead)
    }

    fn all_refused() -> Delivered {
        let refused = (0..3).map(|index| Refused { index, why: "no".to_owned() }).collect();
        Delivered { refused, ..Delivered::default() }
    }

    fn bodies(take: &Take) -> Vec<&[u8]> {
        take.batch().iter().map(|event| event.body()).collect()
    }

    #[tokio::test]
    async fn a_letter_that_does_not_fit_takes_no_other_with_it() {
        let (outlet, dead) = refused_around_a_large_one(2).await;
        let take = outlet.take(10).await.expect("events");
        outlet.commit_as(take, 10, &all_refused()).await.expect("a commit");
        let counters = outlet.counters();
        assert_eq!([counters.dead_letters.get(), counters.event_refused.get()], [2, 1]);
        assert_eq!(dead.counters().put_attempt.get(), 3);
        let letters = dead.take(10).await.expect("letters");
        assert_eq!(bodies(&letters), [b"a", b"b"]);
    }

    #[tokio::test]
    async fn letters_that_fit_one_after_the_other_only_do_not_wait_for_each_other() {
        let (outlet, dead) = refused_around_a_large_one(1).await;
        let take = outlet.take(10).await.expect("events");
        let reader = async {
            for body in ["a", "b"] {
                let letters = dead.take(10).await.expect("a letter");
                assert_eq!(bodies(&letters), [body.as_bytes()]);
                letters.commit();
            }
        };
        let how = all_refused();
        let (committed, ()) = tokio::join!(outlet.commit_as(take, 10, &how), reader);
        committed.expect("a commit");
        let counters = outlet.counters();
        assert_eq!([counters.dead_letters.get(), counters.event_refused.get()], [2, 1]);
    }

    #[tokio::test]
    async fn without_such_a_channel_it_is_counted_and_gone() {
        let source = filled(&["a", "b", "c"]).await;
        let counters = Arc::new(SinkCounters::new("k1"));
        let outlet = Outlet::new(Arc::clone(&source), Arc::clone(&counters), Arc::default());
        let take = outlet.take(10).await.expect("events");
        outlet.commit_as(take, 10, &refused()).await.expect("a commit");
        assert_eq!([counters.drain_success.get(), counters.event_refused.get()], [2, 1]);
        assert_eq!(source.counters().size.get(), 0);
    }

    #[tokio::test]
    async fn a_batch_is_complete_when_a_transaction_holds_no_more() {
        let config = MemoryConfig { transaction_capacity: 2, ..MemoryConfig::default() };
        let channel = Arc::new(MemoryChannel::new("c1", config, &Metrics::default()));
        let outlet = Outlet::new(Arc::clone(&channel) as _, Arc::new(SinkCounters::new("k1")), Arc::default());
        for (events, expected) in [(2, [1, 0]), (1, [1, 1])] {
            let batch: Batch = (0..events).map(|n| Event::new(n.to_string())).collect();
            channel.try_reserve(&batch).expect("room").commit(batch);
            let take = outlet.take(10).await.expect("events");
            outlet.commit(take, 10).await.expect("a memory channel forgets");
            let counters = outlet.counters();
            assert_eq!([counters.batch_complete.get(), counters.batch_underflow.get()], expected);
        }
    }
}
