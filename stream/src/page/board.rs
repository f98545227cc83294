//! What the charts show now.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::Kind;

/// A line has so many points: one a second, so that short batches do not push the past away.
const POINTS: usize = 600;
/// Of one point, in milliseconds.
const POINT: i64 = 1000;

/// What all charts show.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    version: u64,
    charts: Vec<Shown>,
}

#[derive(Debug)]
struct Shown {
    name: String,
    kind: Kind,
    version: u64,
    rows: Vec<(String, Option<f64>)>,
    points: VecDeque<Point>,
    error: Option<String>,
}

/// The values of lines at a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// In milliseconds since 1970.
    pub time: i64,
    /// By line.
    pub values: Vec<(String, Option<f64>)>,
    #[serde(skip)]
    version: u64,
}

/// What has changed of a chart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Update {
    /// Which.
    pub name: String,
    /// Why there is nothing to show, if there is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// All bars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<(String, Option<f64>)>>,
    /// Of lines, the points that are new; the first of them may take the place of the last one of the same second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub points: Option<Vec<Point>>,
}

impl Board {
    /// Charts that show nothing yet.
    pub fn new(charts: impl Iterator<Item = (String, Kind)>) -> Self {
        let charts = charts.map(|(name, kind)| Shown {
            name,
            kind,
            version: 0,
            rows: Vec::new(),
            points: VecDeque::new(),
            error: None,
        });
        Self { inner: Mutex::new(Inner { version: 0, charts: charts.collect() }) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what a chart is at the time of a batch.
    pub fn show(&self, index: usize, time: i64, result: Result<Vec<(String, Option<f64>)>, String>) {
        let mut inner = self.inner();
        let version = inner.version + 1;
        let chart = &mut inner.charts[index];
        match result {
            Err(why) if chart.error.as_ref() == Some(&why) => return,
            Err(why) => chart.error = Some(why),
            Ok(values) if chart.kind == Kind::Line => {
                chart.error = None;
                let last = chart.points.back();
                if last.is_some_and(|last| last.time.div_euclid(POINT) == time.div_euclid(POINT)) {
                    chart.points.pop_back();
                } else if chart.points.len() == POINTS {
                    chart.points.pop_front();
                }
                chart.points.push_back(Point { time, values, version });
            }
            Ok(rows) if chart.version > 0 && chart.error.is_none() && chart.rows == rows => return,
            Ok(rows) => {
                chart.error = None;
                chart.rows = rows;
            }
        }
        chart.version = version;
        inner.version = version;
    }

    /// What has changed after a version, and the version now.
    pub fn since(&self, version: u64) -> (u64, Vec<Update>) {
        let inner = self.inner();
        let changed = inner.charts.iter().filter(|chart| chart.version > version);
        let updates = changed.map(|chart| {
            let is_line = chart.kind == Kind::Line;
            let points = || chart.points.iter().filter(|point| point.version > version).cloned().collect();
            Update {
                name: chart.name.clone(),
                error: chart.error.clone(),
                rows: (!is_line).then(|| chart.rows.clone()),
                points: is_line.then(points),
            }
        });
        (inner.version, updates.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(value: f64) -> Vec<(String, Option<f64>)> {
        vec![("a".to_owned(), Some(value))]
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let board = Board::new([("bars".to_owned(), Kind::Bar), ("lines".to_owned(), Kind::Line)].into_iter());
        board.show(0, 1000, Ok(rows(1.0)));
        let (version, updates) = board.since(0);
        assert_eq!(updates.len(), 1, "{updates:?}");
        board.show(0, 2000, Ok(rows(1.0)));
        assert_eq!(board.since(version), (version, Vec::new()), "the same is no news");
        board.show(0, 3000, Err("it is broken".to_owned()));
        assert_eq!(board.since(version).1[0].error.as_deref(), Some("it is broken"));
        board.show(0, 4000, Ok(rows(1.0)));
        assert_eq!(board.since(version).1[0].error, None);
    }

    #[test]
    fn a_line_has_a_point_a_second_and_not_more_than_it_may() {
        let board = Board::new(std::iter::once(("lines".to_owned(), Kind::Line)));
        let points = |version| board.since(version).1.remove(0).points.expect("it is a line");
        board.show(0, 1000, Ok(rows(1.0)));
        let version = board.since(0).0;
        board.show(0, 1999, Ok(rows(2.0)));
        board.show(0, 2000, Ok(rows(3.0)));
        let new: Vec<i64> = points(version).iter().map(|point| point.time).collect();
        assert_eq!(new, [1999, 2000], "the first of them is instead of the one before");
        for second in 3..2000 {
            board.show(0, second * POINT, Ok(rows(0.0)));
        }
        assert_eq!(points(0).len(), POINTS);
    }
}
