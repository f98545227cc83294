//! How a job gets on, for the page and the log.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

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

/// How a job gets on. Many may look at it while it runs.
#[derive(Debug)]
pub struct Progress {
    inner: Mutex<(VecDeque<Report>, Totals)>,
    number: watch::Sender<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { inner: Mutex::default(), number: watch::Sender::new(0) }
    }
}

impl Progress {
    fn inner(&self) -> std::sync::MutexGuard<'_, (VecDeque<Report>, Totals)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a batch.
    pub fn done(&self, report: Report) {
        let number = report.number;
        let mut inner = self.inner();
        let (recent, totals) = &mut *inner;
        totals.batches += 1;
        totals.rows += report.rows;
        totals.rejects += report.rejects;
        totals.late_rows += report.late_rows;
        totals.late += u64::from(report.is_late);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(report);
        drop(inner);
        self.number.send_replace(number);
    }

    /// The batches from a number on that are still kept.
    pub fn since(&self, number: u64) -> Vec<Report> {
        self.inner().0.iter().filter(|report| report.number >= number).cloned().collect()
    }

    /// What was done so far.
    pub fn totals(&self) -> Totals {
        self.inner().1.clone()
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
