//! The stress source: the same event over and over, to load what comes behind it.
//!
//! Keys: `size` (500 bytes, all 0x7F), `maxTotalEvents` (-1: no limit, sent or not), `maxSuccessfulEvents` (-1),
//! `batchSize` (1), `maxEventsPerSecond` (0: no limit).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ChannelProcessor, Source, SourceBuilder, SourceConfig, SourceError};
use crate::config::{ComponentType, Props};
use crate::event::{Batch, NO_HEADERS};

/// How the type is registered. The short name is not Flume's.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["stress"],
    class: "org.apache.flume.source.StressSource",
    build: |props| Some(Box::new(Arc::new(StressConfig::from_props(props)?))),
};

const SIZE: i32 = 500;
/// A body of this size is 64 MiB; more is a slip.
const MAX_SIZE: i32 = 64 << 20;

struct StressConfig {
    size: usize,
    max_events: Option<u64>,
    batch_size: usize,
    max_events_per_second: u64,
}

impl StressConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let size = props.or("size", SIZE);
        if !(0..=MAX_SIZE).contains(&size) {
            props.error("size", "a number of bytes from 0 to 67108864", "");
        }
        let batch_size = props.or("batchSize", 1i32);
        if batch_size < 1 {
            props.error("batchSize", "a number of events, at least 1", "");
        }
        // As nothing is dropped here, events that are sent and events that succeed are the same.
        let total: i64 = props.or("maxTotalEvents", -1);
        let successful: i64 = props.or("maxSuccessfulEvents", -1);
        let max_events = [total, successful].into_iter().filter_map(|n| u64::try_from(n).ok()).min();
        let per_second = props.or("maxEventsPerSecond", 0i32);
        props.or("backoffSleepIncrement", 0i64);
        props.or("maxBackoffSleep", 0i64);
        props.finish(Self {
            size: size.max(0) as usize,
            max_events,
            batch_size: batch_size.max(1) as usize,
            max_events_per_second: per_second.max(0) as u64,
        })
    }
}

impl SourceConfig for Arc<StressConfig> {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn build(&self, _name: &str) -> Box<dyn Source> {
        Box::new(StressSource { config: Self::clone(self), sent: 0 })
    }
}

struct StressSource {
    config: Arc<StressConfig>,
    sent: u64,
}

#[async_trait]
impl Source for StressSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let StressConfig { size, max_events, batch_size, max_events_per_second } = *self.config;
        let body = Bytes::from(vec![0x7F; size]);
        let begin = Instant::now();
        let sent_before = self.sent;
        while !stop.is_cancelled() {
            let left = max_events.map_or(u64::MAX, |max| max.saturating_sub(self.sent));
            let events = left.min(batch_size as u64) as usize;
            if events == 0 {
                break;
            }
            let mut batch = Batch::with_capacity(events);
            let buffer = batch.push_buffer(body.clone());
            for _ in 0..events {
                batch.push_span(buffer, 0, size, NO_HEADERS);
            }
            if out.deliver_patiently(batch, stop).await {
                self.sent += events as u64;
            }
            if max_events_per_second > 0 {
                let due = Duration::from_secs_f64((self.sent - sent_before) as f64 / max_events_per_second as f64);
                stop.run_until_cancelled(tokio::time::sleep_until(begin + due)).await;
            }
            tokio::task::consume_budget().await;
        }
        Ok(())
    }
}
