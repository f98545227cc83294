//! States that live on: a running count, sum, or whatever the aggregate is, by key.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;

use super::{Aggregation, Keeper, Turn};
use crate::batch::BatchInfo;
use crate::store::Saved;

/// A key's state.
struct State {
    value: Box<[u8]>,
    /// The time of the last batch with a row of this key, in milliseconds since 1970.
    touched: i64,
}

/// Running states by key.
pub struct Running {
    states: HashMap<Box<[u8]>, State>,
    /// In milliseconds.
    expire: Option<i64>,
    /// Keys that were changed or forgotten since they were saved.
    unsaved: Vec<Box<[u8]>>,
    /// When somebody last looked for keys to forget.
    looked: i64,
    has_keys: bool,
}

impl Running {
    /// No states yet.
    pub fn new(parts: &Aggregation, expire: Option<Duration>) -> Self {
        let expire = expire.map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
        let has_keys = parts.key_columns() > 0;
        Self { states: HashMap::new(), expire, unsaved: Vec::new(), looked: i64::MIN, has_keys }
    }

    /// Forgets keys that have not been touched for too long. To look at all of them costs time, and is done a few
    /// times in the span.
    fn expire(&mut self, now: i64) {
        let Some(expire) = self.expire else { return };
        if now.saturating_sub(self.looked) < (expire / 8).max(1) {
            return;
        }
        self.looked = now;
        let unsaved = &mut self.unsaved;
        self.states.retain(|key, state| {
            let stays = state.touched.saturating_add(expire) > now;
            if !stays {
                unsaved.push(key.clone());
            }
            stays
        });
    }
}

#[async_trait]
impl Keeper for Running {
    async fn absorb(&mut self, batch: &BatchInfo, parts: &Aggregation, new: Vec<RecordBatch>) -> Result<Turn> {
        self.expire(batch.time);
        let mut kept = Vec::new();
        for states in &new {
            let (keys, _) = parts.to_bytes(states)?;
            // An expired key that nobody has looked for must not come back.
            let fresh = |state: &&State| self.expire.is_none_or(|span| state.touched.saturating_add(span) > batch.time);
            kept.extend(keys.iter().filter_map(|key| {
                let (key, state) = self.states.get_key_value(key.data())?;
                fresh(&state).then_some((&**key, &*state.value))
            }));
        }
        let mut all = new;
        if !kept.is_empty() {
            all.push(parts.from_bytes(kept.into_iter())?);
        }
        let merged = if self.states.is_empty() && all.len() < 2 { all } else { parts.merge(all).await? };
        for states in &merged {
            let (keys, values) = parts.to_bytes(states)?;
            for (key, value) in keys.iter().zip(values.iter()) {
                let state = State { value: value.data().into(), touched: batch.time };
                self.unsaved.push(key.data().into());
                self.states.insert(key.data().into(), state);
            }
        }
        Ok(Turn::Changed(merged))
    }

    fn all(&self, parts: &Aggregation) -> Result<Vec<RecordBatch>> {
        if self.states.is_empty() && !self.has_keys {
            return Ok(Vec::new());
        }
        Ok(vec![parts.from_bytes(self.states.iter().map(|(key, state)| (&**key, &*state.value)))?])
    }

    fn save(&mut self, saved: &mut Saved<'_>) -> rusqlite::Result<()> {
        for key in std::mem::take(&mut self.unsaved) {
            match self.states.get(&key) {
                Some(state) => saved.put(0, &key, &state.value, state.touched)?,
                None => saved.remove(0, &key)?,
            }
        }
        Ok(())
    }

    fn restore(&mut self, saved: &mut Saved<'_>) -> rusqlite::Result<()> {
        saved.each(|_, key, value, touched| {
            self.states.insert(key.into(), State { value: value.into(), touched });
        })
    }

    fn keys(&self) -> usize {
        self.states.len()
    }
}
