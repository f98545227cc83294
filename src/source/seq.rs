//! The sequence generator source: events whose bodies are the numbers from 0 on.
//!
//! A number that the channel refuses is sent again, so there is no gap. Keys: `totalEvents` (no limit), `batchSize`
//! (1); `backoffSleepIncrement` and `maxBackoffSleep` are accepted and have nothing to do, as a full channel is
//! waited for.

use std::io::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{ChannelProcessor, Source, SourceBuilder, SourceConfig, SourceError};
use crate::config::{ComponentType, Props};
use crate::event::{Batch, NO_HEADERS};

/// How the type is registered.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["seq"],
    class: "org.apache.flume.source.SequenceGeneratorSource",
    build: |props| Some(Box::new(Arc::new(SeqConfig::from_props(props)?))),
};

struct SeqConfig {
    total_events: u64,
    batch_size: usize,
}

impl SeqConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let batch_size = props.or("batchSize", 1i32);
        if batch_size < 1 {
            props.error(
                "batchSize",
                "a number of events, at least 1",
                &format!("batchSize was {batch_size} but expected positive"),
            );
        }
        let total_events = props.or("totalEvents", i64::MAX);
        props.or("backoffSleepIncrement", 0i64);
        props.or("maxBackoffSleep", 0i64);
        props.finish(Self { total_events: total_events.max(0) as u64, batch_size: batch_size.max(1) as usize })
    }
}

impl SourceConfig for Arc<SeqConfig> {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn build(&self, _name: &str) -> Box<dyn Source> {
        Box::new(SeqSource { config: Self::clone(self), next: 0 })
    }
}

struct SeqSource {
    config: Arc<SeqConfig>,
    next: u64,
}

impl SeqSource {
    fn batch(&self, events: u64) -> Batch {
        let mut text = Vec::with_capacity(events as usize * 8);
        let mut ends = Vec::with_capacity(events as usize);
        for number in self.next..self.next + events {
            // Writing to memory does not fail.
            write!(text, "{number}").ok();
            ends.push(text.len());
        }
        let mut batch = Batch::with_capacity(ends.len());
        let buffer = batch.push_buffer(text.into());
        let mut start = 0;
        for end in ends {
            batch.push_span(buffer, start, end, NO_HEADERS);
            start = end;
        }
        batch
    }
}

#[async_trait]
impl Source for SeqSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        while self.next < self.config.total_events && !stop.is_cancelled() {
            let events = (self.config.total_events - self.next).min(self.config.batch_size as u64);
            if out.deliver_patiently(self.batch(events), stop).await {
                self.next += events;
                if self.config.batch_size > 1 {
                    out.counters().append_batch_accepted.add(1);
                }
            }
            tokio::task::consume_budget().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_numbers() {
        let source = SeqSource { config: Arc::new(SeqConfig { total_events: 5, batch_size: 2 }), next: 9 };
        let bodies: Vec<_> = source.batch(2).iter().map(|event| event.body().to_vec()).collect();
        assert_eq!(bodies, [b"9".to_vec(), b"10".to_vec()]);
    }
}
