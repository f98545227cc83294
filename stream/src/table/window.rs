//! Windows over the last batches, by the time of the batches.
//!
//! A pane holds the states of the batches that come at once into a window and leave it at once: it is as long as the
//! slide, or as what is common to both when the window is not a multiple of it. A window that ends at some time has the
//! batches whose time is not later, and later than its beginning. Windows end at multiples of the slide since 1970, so
//! that a job that is started again goes on with the same ones; the first ones after the start of a job hold less.
//!
//! A window is shown with the batch at whose time it ends. Where no batch has that time, because one took too long or
//! batches come as rows arrive, it is shown with the next batch, which is not part of it. Of several that were missed
//! that is the last: the others are [asked for](Keeper::missed) before, as far as they have rows.

use std::collections::BTreeMap;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;

use super::states::{entries, put_entry};
use super::sums::Sums;
use super::{Aggregation, Keeper, RestoreError, Span, Turn};
use crate::batch::BatchInfo;
use crate::store::Saved;

/// Panes of more states than this are merged when they have twice as many as there are keys.
const FEW: usize = 1024;

/// The states of a pane, as they came.
#[derive(Default)]
struct Pane {
    states: Vec<RecordBatch>,
    rows: usize,
    /// How many there were when they were merged.
    merged: usize,
    next: i64,
}

/// What is to be written.
enum Change {
    Add { pane: i64, chunk: i64, bytes: Vec<u8> },
    Remove { pane: i64 },
}

/// Panes, and the window that is made of them.
pub struct Windows {
    span: Span,
    /// How long a pane is, in milliseconds.
    pane: i64,
    panes: BTreeMap<i64, Pane>,
    /// What all panes have together, where that can be kept by adding and subtracting.
    sums: Option<Sums>,
    /// The time of the last batch.
    last: Option<i64>,
    /// The states that there are even of no rows, once they are known.
    of_nothing: Option<Vec<RecordBatch>>,
    unsaved: Vec<Change>,
}

impl Windows {
    /// No panes yet.
    pub fn new(span: Span, is_inverse: bool) -> Self {
        Self {
            span,
            pane: span.common(),
            panes: BTreeMap::new(),
            sums: is_inverse.then(Sums::default),
            last: None,
            of_nothing: None,
            unsaved: Vec::new(),
        }
    }

    /// The end of the last window that has ended at this time.
    fn end(&self, time: i64) -> i64 {
        time - time.rem_euclid(self.span.slide)
    }

    /// Leaves out states of no rows: without GROUP BY there is always one.
    async fn of_rows(&mut self, parts: &Aggregation, mut new: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        if parts.key_columns() == 0 {
            let of_nothing = match self.of_nothing.take() {
                Some(known) => known,
                None => parts.merge(Vec::new()).await?,
            };
            new.retain(|states| !of_nothing.iter().any(|nothing| nothing.columns() == states.columns()));
            self.of_nothing = Some(of_nothing);
        }
        Ok(new)
    }

    /// Takes a batch's partial states in.
    async fn add(&mut self, time: i64, parts: &Aggregation, new: Vec<RecordBatch>) -> Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        // The pane ends at the first multiple that is not earlier.
        let number = (time + self.pane - 1).div_euclid(self.pane);
        let pane = self.panes.entry(number).or_default();
        for states in new {
            if let Some(sums) = &mut self.sums {
                sums.add(parts, &states)?;
            }
            self.unsaved.push(pane.push(number, parts, states)?);
        }
        if pane.merged == 0 {
            pane.merged = pane.rows;
        } else if pane.rows > FEW.max(2 * pane.merged) {
            let states = std::mem::take(pane);
            self.unsaved.retain(|change| !matches!(change, Change::Add { pane, .. } if *pane == number));
            self.unsaved.push(Change::Remove { pane: number });
            pane.next = states.next;
            let merged = parts.merge(states.states.clone()).await?;
            if let Some(sums) = &mut self.sums {
                merged.iter().try_for_each(|states| sums.add(parts, states))?;
                states.states.iter().try_for_each(|states| sums.subtract(parts, states))?;
            }
            for states in merged {
                self.unsaved.push(pane.push(number, parts, states)?);
            }
            pane.merged = pane.rows;
        }
        Ok(())
    }

    /// The states of the window that ends at this time. Panes that end before it begins are forgotten.
    fn window(&mut self, end: i64, parts: &Aggregation) -> Result<Vec<RecordBatch>> {
        let first = (end - self.span.window).div_euclid(self.pane) + 1;
        let stay = self.panes.split_off(&first);
        for (number, pane) in std::mem::replace(&mut self.panes, stay) {
            self.unsaved.push(Change::Remove { pane: number });
            if let Some(sums) = &mut self.sums {
                pane.states.iter().try_for_each(|states| sums.subtract(parts, states))?;
            }
        }
        match &self.sums {
            Some(sums) => sums.states(parts),
            None => Ok(self.until(end)),
        }
    }

    /// The states of the panes that end until then.
    fn until(&self, end: i64) -> Vec<RecordBatch> {
        let panes = self.panes.range(..=end.div_euclid(self.pane));
        panes.flat_map(|(_, pane)| pane.states.iter().cloned()).collect()
    }
}

impl Pane {
    fn push(&mut self, number: i64, parts: &Aggregation, states: RecordBatch) -> Result<Change> {
        let (keys, values) = parts.to_bytes(&states)?;
        let mut bytes = Vec::new();
        for (key, value) in keys.iter().zip(values.iter()) {
            put_entry(&mut bytes, key.data(), Some((value.data(), 0)));
        }
        self.rows += states.num_rows();
        self.states.push(states);
        self.next += 1;
        Ok(Change::Add { pane: number, chunk: self.next - 1, bytes })
    }
}

#[async_trait]
impl Keeper for Windows {
    async fn absorb(&mut self, batch: &BatchInfo, parts: &Aggregation, new: Vec<RecordBatch>) -> Result<Turn> {
        let new = self.of_rows(parts, new).await?;
        let end = self.end(batch.time);
        let is_due = self.last.replace(batch.time).map_or(end == batch.time, |last| last < end);
        // The batch is not part of a window that has ended before it.
        if end < batch.time {
            let turn = if is_due { Turn::Whole(self.window(end, parts)?) } else { Turn::Silent };
            self.add(batch.time, parts, new).await?;
            return Ok(turn);
        }
        self.add(batch.time, parts, new).await?;
        Ok(if is_due { Turn::Whole(self.window(end, parts)?) } else { Turn::Silent })
    }

    fn all(&self, _: &Aggregation) -> Result<Vec<RecordBatch>> {
        Ok(self.last.map(|last| self.until(self.end(last))).unwrap_or_default())
    }

    fn missed(&self, time: i64) -> Option<i64> {
        let end = self.end(self.last?) + self.span.slide;
        let (newest, _) = self.panes.last_key_value()?;
        (end < self.end(time) && newest * self.pane > end - self.span.window).then_some(end)
    }

    fn save(&mut self, saved: &mut Saved<'_>) -> rusqlite::Result<()> {
        for change in self.unsaved.drain(..) {
            match change {
                Change::Add { pane, chunk, bytes } => saved.put(pane, chunk, &bytes)?,
                Change::Remove { pane } => saved.remove(pane)?,
            }
        }
        self.last.map_or(Ok(()), |last| saved.note(last))
    }

    fn restore(&mut self, parts: &Aggregation, saved: &mut Saved<'_>) -> Result<(), RestoreError> {
        self.last = saved.noted()?;
        saved.each(|number, chunk, bytes| -> Result<(), RestoreError> {
            let states = entries(bytes).collect::<Result<Vec<_>>>()?;
            let states = states.iter().filter_map(|(key, value, _)| Some((*key, (*value)?)));
            let pane = self.panes.entry(number).or_default();
            for states in parts.from_bytes(states)? {
                if let Some(sums) = &mut self.sums {
                    sums.add(parts, &states)?;
                }
                pane.rows += states.num_rows();
                pane.states.push(states);
            }
            pane.merged = pane.rows;
            pane.next = chunk + 1;
            Ok(())
        })
    }

    fn keys(&self) -> usize {
        match &self.sums {
            Some(sums) => sums.len(),
            None => self.panes.values().map(|pane| pane.rows).sum(),
        }
    }
}
