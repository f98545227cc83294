//! How a job gets on, for the page and the log.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use crate::batch::BatchInfo;
use crate::format::Reject;

/// One batch that is done.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The batch's number.
    pub number: u64,
    /// Its time in milliseconds since 1970.
    pub time: i64,
    /// Rows that came in.
    pub rows: u64,
    /// Records that did not fit.
    pub rejects: u64,
    /// Rows that came after their windows were closed.
    pub late_rows: u64,
    /// From the moment the batch was due until work on it began, in seconds.
    pub scheduling_delay: f64,
    /// How long it was worked on, in seconds.
    pub processing_time: f64,
    /// Whether it took longer than the interval between batches.
    pub is_late: bool,
}

/// The last batches are kept for the page.
const KEPT: usize = 1000;

/// What the job has done so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Batches.
    pub batches: u64,
    /// Rows.
    pub rows: u64,
    /// Records that did not fit.
    pub rejects: u64,
    /// Rows that came after their windows were closed.
    pub late_rows: u64,
    /// Batches that took longer than the interval.
    pub late: u64,
}

/// A batch that is being worked on.
#[derive(Clone, Debug, Serialize)]
pub struct Active {
    /// The batch's number.
    pub number: u64,
    /// Its time in milliseconds since 1970.
    pub time: i64,
    /// Rows that came in.
    pub rows: u64,
    /// How long it has been worked on, in seconds.
    pub processing_time: f64,
    #[serde(skip)]
    began: Instant,
}

/// How large a table is.
#[derive(Clone, Debug, Serialize)]
pub struct TableSize {
    /// Its name.
    pub name: String,
    /// How many states it keeps: one a key, but in windows that are put together anew one for each batch that had the
    /// key, until they are merged.
    pub keys: usize,
}

/// A record that did not fit.
#[derive(Clone, Debug, Serialize)]
pub struct Rejected {
    /// The time of its batch in milliseconds since 1970.
    pub time: i64,
    /// Where it came from.
    pub source: String,
    /// Why it did not fit.
    pub reason: String,
    /// How it begins, as text.
    pub record: String,
}

/// So many of the last records that did not fit are kept for the page.
const KEPT_REJECTS: usize = 20;
/// Of each, so many bytes.
const KEPT_OF_REJECT: usize = 200;

/// How a job stands.
#[derive(Clone, Debug, Default, Serialize)]
pub struct State {
    /// What was done so far.
    pub totals: Totals,
    /// What is being done.
    pub active: Option<Active>,
    /// The tables.
    pub tables: Vec<TableSize>,
    /// The last records that did not fit, the newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejects: Option<Vec<Rejected>>,
}

#[derive(Debug, Default)]
struct Inner {
    recent: VecDeque<Report>,
    totals: Totals,
    active: Option<Active>,
    tables: Vec<TableSize>,
    rejects: VecDeque<Rejected>,
}

/// How a job gets on. Many may look at it while it runs.
#[derive(Debug)]
pub struct Progress {
    inner: Mutex<Inner>,
    number: watch::Sender<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { inner: Mutex::default(), number: watch::Sender::new(0) }
    }
}

impl Progress {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that work on a batch of so many rows begins.
    pub fn begun(&self, batch: &BatchInfo, rows: u64) {
        let began = Instant::now();
        self.inner().active =
            Some(Active { number: batch.number, time: batch.time, rows, processing_time: 0.0, began });
    }

    /// Notes records that did not fit.
    pub fn rejected(&self, batch: &BatchInfo, source: &str, rejects: &[Reject]) {
        if rejects.is_empty() {
            return;
        }
        let mut inner = self.inner();
        for reject in &rejects[rejects.len().saturating_sub(KEPT_REJECTS)..] {
            let record = &reject.record[..reject.record.len().min(KEPT_OF_REJECT)];
            inner.rejects.push_front(Rejected {
                time: batch.time,
                source: source.to_owned(),
                reason: reject.reason.chars().take(KEPT_OF_REJECT).collect(),
                record: String::from_utf8_lossy(record).into_owned(),
            });
        }
        inner.rejects.truncate(KEPT_REJECTS);
    }

    /// Notes a batch that is done, and how large the tables are then.
    pub fn done(&self, report: Report, tables: Vec<TableSize>) {
        let number = report.number;
        let mut inner = self.inner();
        let totals = &mut inner.totals;
        totals.batches += 1;
        totals.rows += report.rows;
        totals.rejects += report.rejects;
        totals.late_rows += report.late_rows;
        totals.late += u64::from(report.is_late);
        if inner.recent.len() == KEPT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(report);
        inner.active = None;
        inner.tables = tables;
        drop(inner);
        self.number.send_replace(number);
    }

    /// The batches from a number on that are still kept.
    pub fn since(&self, number: u64) -> Vec<Report> {
        let inner = self.inner();
        let from = inner.recent.partition_point(|report| report.number < number);
        inner.recent.range(from..).cloned().collect()
    }

    /// How it stands.
    pub fn state(&self) -> State {
        let inner = self.inner();
        let mut active = inner.active.clone();
        if let Some(active) = &mut active {
            active.processing_time = seconds(active.began.elapsed());
        }
        State {
            totals: inner.totals.clone(),
            active,
            tables: inner.tables.clone(),
            rejects: Some(inner.rejects.iter().cloned().collect()),
        }
    }

    /// Whether a batch has been worked on for so long.
    pub fn is_long(&self, span: Duration) -> bool {
        self.inner().active.as_ref().is_some_and(|active| active.began.elapsed() >= span)
    }

    /// Has those look again who [watch](Self::watch), though no batch is done.
    pub fn tell(&self) {
        self.number.send_modify(|_| {});
    }

    /// Tells of each batch that is done, by its number.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }
}

/// Seconds as people read them.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(number: u64) -> Report {
        let time = number as i64;
        Report {
            number,
            time,
            rows: 2,
            rejects: 1,
            late_rows: 0,
            scheduling_delay: 0.0,
            processing_time: 0.1,
            is_late: number == 1,
        }
    }

    #[test]
    fn a_batch_is_active_until_it_is_done_and_the_last_ones_are_kept() {
        let progress = Progress::default();
        assert!(!progress.is_long(Duration::ZERO), "there is none");
        let batch = BatchInfo::first(5);
        progress.begun(&batch, 2);
        assert!(progress.is_long(Duration::ZERO));
        assert_eq!(progress.state().active.map(|active| (active.number, active.rows)), Some((1, 2)));
        for number in 1..=KEPT as u64 + 5 {
            progress.done(report(number), Vec::new());
        }
        let state = progress.state();
        assert!(state.active.is_none());
        assert_eq!((state.totals.batches, state.totals.late), (KEPT as u64 + 5, 1));
        assert_eq!((progress.since(0).len(), progress.since(0)[0].number), (KEPT, 6));
        assert_eq!(progress.since(KEPT as u64 + 5).len(), 1);
    }

    #[test]
    fn of_rejects_the_last_are_kept_and_of_each_its_beginning() {
        let progress = Progress::default();
        let rejects: Vec<Reject> = (0..100)
            .map(|index| Reject { index, record: "ä".repeat(index + 1000).into_bytes(), reason: format!("{index}") })
            .collect();
        progress.rejected(&BatchInfo::first(5), "logs", &rejects);
        let kept = progress.state().rejects.unwrap_or_default();
        assert_eq!((kept.len(), kept[0].reason.as_str()), (KEPT_REJECTS, "99"));
        assert!(kept.iter().all(|reject| reject.record.len() <= KEPT_OF_REJECT));
    }
}
