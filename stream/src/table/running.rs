//! States that live on: a running count, sum, or whatever the aggregate is, by key.

use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;

use super::states::States;
use super::{Aggregation, Keeper, RestoreError, Turn, millis};
use crate::batch::BatchInfo;
use crate::store::Saved;

/// Running states by key.
pub struct Running {
    states: States,
    /// In milliseconds.
    expire: Option<i64>,
    /// When somebody last looked for keys to forget.
    looked: i64,
}

impl Running {
    /// No states yet.
    pub fn new(expire: Option<Duration>) -> Self {
        Self { states: States::new(0), expire: expire.map(millis), looked: i64::MIN }
    }

    /// Forgets keys that have not been touched for too long, and gives how many. To look at all of them costs time, and
    /// is done a few times in the span.
    fn expire(&mut self, now: i64) -> usize {
        let Some(expire) = self.expire else { return 0 };
        if now.saturating_sub(self.looked) < (expire / 8).max(1) {
            return 0;
        }
        self.looked = now;
        self.states.remove_untouched(now.saturating_sub(expire).saturating_add(1))
    }
}

#[async_trait]
impl Keeper for Running {
    async fn absorb(&mut self, batch: &BatchInfo, parts: &Aggregation, new: Vec<RecordBatch>) -> Result<Turn> {
        let expired = self.expire(batch.time);
        if new.is_empty() && expired == 0 {
            return Ok(Turn::Same);
        }
        // An expired key that nobody has looked for must not come back.
        let is_fresh = |touched: i64| self.expire.is_none_or(|span| touched.saturating_add(span) > batch.time);
        let kept = |new: &RecordBatch| {
            let keys = parts.key_bytes(new)?;
            let kept = keys.iter().filter_map(|key| self.states.get(key.data()));
            Ok(kept.filter(|(.., touched)| is_fresh(*touched)).map(|(key, value, _)| (key, value)).collect())
        };
        let merged = parts.merge_with(new, kept).await?;
        for states in &merged {
            let (keys, values) = parts.to_bytes(states)?;
            for (key, value) in keys.iter().zip(values.iter()) {
                self.states.set(key.data(), value.data(), batch.time);
            }
        }
        Ok(Turn::Changed(merged))
    }

    fn all(&self, parts: &Aggregation) -> Result<Vec<RecordBatch>> {
        parts.from_bytes(self.states.iter())
    }

    fn save(&mut self, saved: &mut Saved<'_>) -> rusqlite::Result<()> {
        self.states.save(saved)
    }

    fn restore(&mut self, _: &Aggregation, saved: &mut Saved<'_>) -> Result<(), RestoreError> {
        saved.each(|_, chunk, bytes| -> Result<(), RestoreError> { Ok(self.states.load(chunk, bytes)?) })?;
        self.states.loaded();
        Ok(())
    }

    fn keys(&self) -> usize {
        self.states.len()
    }
}
