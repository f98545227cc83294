//! The null sink: takes events and drops them.
//!
//! Keys: `batchSize` (100), `logEveryNEvents` (10000).

use std::sync::Arc;

use async_trait::async_trait;
use tracing::info;

use super::{BuiltSink, Sink, SinkBuilder, SinkConfig, SinkError};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::metrics::SinkCounters;

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["null"],
    class: "org.apache.flume.sink.NullSink",
    build: |props| Some(Box::new(NullConfig::from_props(props)?)),
};

#[derive(Clone)]
struct NullConfig {
    batch_size: usize,
    log_every: u64,
}

impl NullConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let batch_size = props.or("batchSize", 100i32);
        if batch_size < 1 {
            props.error("batchSize", "a number of events, at least 1", "Batch size must be > 0");
        }
        let log_every = props.or("logEveryNEvents", 10_000i32);
        if log_every < 1 {
            props.error("logEveryNEvents", "a number of events, at least 1", "logEveryNEvents must be > 0");
        }
        props.finish(Self { batch_size: batch_size.max(1) as usize, log_every: log_every.max(1) as u64 })
    }
}

impl SinkConfig for NullConfig {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn build(&self, name: &str, _counters: Arc<SinkCounters>) -> BuiltSink {
        BuiltSink::Push(Box::new(NullSink { name: name.to_owned(), config: self.clone(), events: 0 }))
    }
}

struct NullSink {
    name: String,
    config: NullConfig,
    events: u64,
}

#[async_trait]
impl Sink for NullSink {
    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    async fn start(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let logged = self.events / self.config.log_every;
        self.events += batch.len() as u64;
        let due = self.events / self.config.log_every;
        if due > logged {
            // One line a batch is enough where a batch passes several marks.
            info!("Null sink {} successful processed {} events.", self.name, due * self.config.log_every);
        }
        Ok(())
    }
}
