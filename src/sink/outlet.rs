//! A sink's way to its channel.

use std::sync::Arc;

use crate::channel::{Channel, ChannelError, Take};
use crate::metrics::{Ledger, SinkCounters};

/// Where a sink takes events from, and where what became of them is counted. Clones share everything.
#[derive(Clone)]
pub struct Outlet {
    channel: Arc<dyn Channel>,
    counters: Arc<SinkCounters>,
    ledger: Arc<Ledger>,
}

impl Outlet {
    /// A sink's side of a channel.
    pub fn new(channel: Arc<dyn Channel>, counters: Arc<SinkCounters>, ledger: Arc<Ledger>) -> Self {
        Self { channel, counters, ledger }
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
        self.commit_as(take, asked, true).await
    }

    /// The same; `count` says whether the events count as delivered.
    pub async fn commit_as(&self, mut take: Take, asked: usize, count: bool) -> Result<(), ChannelError> {
        take.prepare().await.inspect_err(|_| self.counters.channel_read_fail.add(1))?;
        let events = take.batch().len();
        let _entry = self.ledger.entry();
        take.commit();
        if count {
            self.counters.drain_success.add(events as u64);
        }
        match events >= asked.min(self.channel.transaction_capacity()) {
            true => self.counters.batch_complete.add(1),
            false => self.counters.batch_underflow.add(1),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::memory::{MemoryChannel, MemoryConfig};
    use crate::event::{Batch, Event};
    use crate::metrics::Metrics;

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
