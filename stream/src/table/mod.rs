//! Tables: SQL whose result lives on.
//!
//! | key | default | what |
//! |---|---|---|
//! | `sql` | | a SELECT with one aggregate: GROUP BY, DISTINCT, or a lone count |
//! | `expire` | never | of a running table: keys that no row has touched for so long are forgotten |
//! | `window` | | how long a window is; without it the table is running: it has all rows since the beginning |
//! | `slide` | `window` | the time between the ends of windows |
//! | `inverse` | where it can be | of windows over batches: whether what leaves a window is subtracted, instead of putting the window together anew; it can be for counts, and sums and averages of integers and decimals |
//! | `time` | | for windows by a time in the rows: the column, a timestamp |
//! | `over` | | with `time`: the source or view with that column; the SQL reads it with two more columns, `window_start` and `window_end`, and groups by one of them |
//! | `delay` | none | with `time`: a window is closed when a time has come that is so much later than its end |
//! | `emit` | `update` | with `time`: `update` gives windows whenever they change, `final` once, when they are closed |
//!
//! The SELECT's aggregate is split: a batch's rows become *partial states* by key, which are merged with those that
//! are kept; results are made of the merged states. What stands above the aggregate (HAVING, ORDER BY, LIMIT,
//! expressions) is worked out on the results; what stands below it sees the rows of the batch.
//!
//! Without `time`, windows are over the [last batches](window): both `window` and `slide` are multiples of the job's
//! `batch`, and the table has something to say with each slide. With it they are [by the rows' own time](event), and
//! rows that come after their windows were closed are the relation `TABLE_late`.
//!
//! A result that lives only as long as its batch is a view.
//!
//! Sinks hear of results that are new. A key that expires, leaves the window, or is no longer among those that HAVING or
//! LIMIT let through, is simply not there: a sink that keeps rows by key has to be given the whole table, with
//! `mode = "all"`, to see it go.

mod aggregation;
pub mod event;
mod running;
mod states;
mod sums;
#[cfg(test)]
mod tests;
pub mod window;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use serde::Deserialize;

pub use aggregation::Aggregation;

use crate::batch::BatchInfo;
use crate::job::keys::optional_duration;
use crate::job::{Batching, JobError, Keys};
use crate::sql::Relation;
use crate::store::Saved;

/// The keys of `[table.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TableKeys {
    sql: String,
    #[serde(default, deserialize_with = "optional_duration")]
    expire: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    window: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    slide: Option<Duration>,
    inverse: Option<bool>,
    time: Option<String>,
    over: Option<String>,
    #[serde(default, deserialize_with = "optional_duration")]
    delay: Option<Duration>,
    emit: Option<Emit>,
}

/// A table of a job.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Its name.
    pub name: String,
    /// Where it stands in the file.
    pub place: Range<usize>,
    /// The SQL.
    pub sql: String,
    /// How long partial states live.
    pub life: Life,
}

/// How long the partial states of a table live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// For ever, or until no row has touched them for so long.
    Running {
        /// For how long.
        expire: Option<Duration>,
    },
    /// As long as their batch is in a window.
    Windows {
        /// The windows.
        span: Span,
        /// Whether what leaves is subtracted; where it can be unless the job says.
        inverse: Option<bool>,
    },
    /// Until their window is closed.
    EventTime(EventTime),
}

/// How long windows are and how far apart, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How long one is.
    pub window: i64,
    /// From one to the next; not more than the window.
    pub slide: i64,
}

impl Span {
    /// The longest time that both are multiples of.
    pub fn common(&self) -> i64 {
        let (mut a, mut b) = (self.window, self.slide);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    }

    /// The most windows that a time is in.
    pub fn overlap(&self) -> i64 {
        (self.window + self.slide - 1) / self.slide
    }

    /// The beginning of the last window that this time is in.
    pub fn last_start(&self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.slide))
    }
}

/// The most windows that a row may be in.
const MAX_OVERLAP: i64 = 1000;
/// The most panes that a window may have.
const MAX_PANES: i64 = 10_000;

/// Windows by a time in the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTime {
    /// The column.
    pub time: String,
    /// The relation.
    pub over: String,
    /// The windows.
    pub span: Span,
    /// How much later than its end a window is closed, in milliseconds.
    pub delay: i64,
    /// When windows are given.
    pub emit: Emit,
}

/// When windows by a time in the rows are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Emit {
    /// Whenever they change.
    #[default]
    Update,
    /// Once, when they are closed.
    Final,
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl TableSpec {
    /// Reads `[table.NAME]`.
    pub fn read(keys: Keys<'_>) -> Result<Self, JobError> {
        let (name, place) = (keys.name().to_owned(), keys.place());
        let (sql, life) = keys.read_as(|keys: TableKeys| Ok((keys.sql.clone(), keys.life()?)))?;
        Ok(Self { name, place, sql, life })
    }

    /// What is wrong with its windows in a job whose batches come like this, if anything.
    pub fn check(&self, batching: Batching) -> Result<(), String> {
        let (Life::Windows { span, .. }, Batching::Every(interval)) = (&self.life, batching) else { return Ok(()) };
        for (key, value) in [("window", span.window), ("slide", span.slide)] {
            if value % millis(interval) != 0 {
                let value = Duration::from_millis(value.unsigned_abs());
                return Err(format!("`{key}`: {value:?} is not a multiple of {interval:?}, the job's `batch`"));
            }
        }
        Ok(())
    }

    /// What must be the same for a checkpoint to be this table's, besides the columns of its states.
    pub fn identity(&self) -> String {
        let life = match &self.life {
            Life::Running { .. } => "running".to_owned(),
            Life::Windows { span, .. } => format!("{span:?}"),
            Life::EventTime(EventTime { time, over, span, .. }) => format!("{span:?} by {time} of {over}"),
        };
        format!("{} {life} {}", self.name, self.sql)
    }
}

impl TableKeys {
    fn life(&self) -> Result<Life, String> {
        let without = |of: &str, keys: &[(&str, bool)]| {
            let found = keys.iter().find(|(_, is_there)| *is_there);
            found.map_or(Ok(()), |(key, _)| Err(format!("`{key}` is for a table with `{of}`")))
        };
        let of_time = [("over", self.over.is_some()), ("delay", self.delay.is_some()), ("emit", self.emit.is_some())];
        let of_window =
            [("slide", self.slide.is_some()), ("inverse", self.inverse.is_some()), ("time", self.time.is_some())];
        if self.time.is_none() {
            without("time", &of_time)?;
        }
        let Some(window) = self.window else {
            without("window", &of_window)?;
            return Ok(Life::Running { expire: self.expire });
        };
        let slide = self.slide.unwrap_or(window);
        if self.expire.is_some() {
            return Err("`expire` is for a table without `window`: keys leave with the windows that they are in".into());
        }
        if slide > window {
            return Err(format!("`slide`: {slide:?} is longer than the window, {window:?}: rows would be in none"));
        }
        let span = Span { window: millis(window), slide: millis(slide) };
        let Some(time) = &self.time else {
            let panes = span.window / span.common();
            if panes > MAX_PANES {
                return Err(format!("`slide`: a window would be made of {panes} parts, more than {MAX_PANES}"));
            }
            return Ok(Life::Windows { span, inverse: self.inverse });
        };
        if self.inverse.is_some() {
            return Err("`inverse` is for windows over batches, which have no `time`".into());
        }
        let Some(over) = &self.over else {
            return Err("`over` is missing: the source or view whose rows have the `time`".into());
        };
        if span.overlap() > MAX_OVERLAP {
            let message = format!("`slide`: each row would be in {} windows, more than {MAX_OVERLAP}", span.overlap());
            return Err(message);
        }
        Ok(Life::EventTime(EventTime {
            time: time.clone(),
            over: over.clone(),
            span,
            delay: self.delay.map_or(0, millis),
            emit: self.emit.unwrap_or_default(),
        }))
    }
}

/// What a batch has done to a table.
#[derive(Debug)]
pub enum Turn {
    /// There is nothing to say this time: a window has not come to its end.
    Silent,
    /// Nothing is different.
    Same,
    /// These partial states are new, one for each key.
    Changed(Vec<RecordBatch>),
    /// These partial states are all that there is now.
    Whole(Vec<RecordBatch>),
}

/// Why what was written cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    /// States are not what they should be.
    #[error(transparent)]
    States(#[from] DataFusionError),
}

/// Keeps partial states from batch to batch.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// Gets the rows of a batch ready that are to become partial states. Gives how many come too late for that.
    async fn prepare(&mut self) -> Result<u64> {
        Ok(0)
    }

    /// Takes a batch's partial states in.
    async fn absorb(&mut self, batch: &BatchInfo, parts: &Aggregation, new: Vec<RecordBatch>) -> Result<Turn>;

    /// A time before that of the next batch at which a batch is to come first, though it has no rows: at it something
    /// ends that would never be shown.
    fn missed(&self, time: i64) -> Option<i64> {
        let _ = time;
        None
    }

    /// All partial states that count now.
    fn all(&self, parts: &Aggregation) -> Result<Vec<RecordBatch>>;

    /// Writes what has changed since the last time.
    fn save(&mut self, saved: &mut Saved<'_>) -> rusqlite::Result<()>;

    /// Reads what was written.
    fn restore(&mut self, parts: &Aggregation, saved: &mut Saved<'_>) -> Result<(), RestoreError>;

    /// How many states it keeps: one a key, but in windows that are put together anew one for each batch that had the
    /// key, until they are merged.
    fn keys(&self) -> usize;
}

/// A table at work.
pub struct Table {
    /// Its name.
    pub name: String,
    parts: Aggregation,
    keeper: Box<dyn Keeper>,
    /// The whole table, for SQL that reads it and sinks that want all of it.
    pub all: Arc<Relation>,
    /// Whether somebody does.
    pub is_read: bool,
    /// The rows that the batch has changed, for sinks; none when it has nothing to say.
    pub changed: Option<Vec<RecordBatch>>,
    /// The rows of windows by their own time that came too late for all of theirs.
    pub late: Option<Arc<Relation>>,
    /// How many of those the batch had.
    pub late_rows: u64,
    /// How its windows are worked out, if it has any.
    pub windows: Option<&'static str>,
    /// What nobody reads any more in a batch once this table has.
    pub spent: Vec<Arc<Relation>>,
}

impl Table {
    /// A table without rows; `over` is the relation of a table with windows by a time in the rows.
    pub fn new(spec: &TableSpec, parts: Aggregation, all: Arc<Relation>, over: Option<event::Over>) -> Result<Self> {
        let late = over.as_ref().map(|over| Arc::clone(&over.late));
        let (windows, keeper): (_, Box<dyn Keeper>) = match (&spec.life, over) {
            (Life::EventTime(keys), Some(over)) => {
                (Some("windows by time"), Box::new(event::EventWindows::new(over, keys, &parts)?))
            }
            (Life::EventTime(_), None) => {
                return Err(DataFusionError::Internal("windows by time are over a relation".to_owned()));
            }
            (Life::Running { expire }, _) => (None, Box::new(running::Running::new(*expire))),
            (Life::Windows { span, inverse }, _) => {
                let is_inverse = match (inverse, parts.not_subtractable()?) {
                    (Some(false), _) => false,
                    (_, None) => true,
                    (None, Some(_)) => false,
                    (Some(true), Some(aggregate)) => {
                        let why = "only counts, and sums and averages of integers and decimals, are exact";
                        let message = format!("`inverse`: {aggregate} cannot be subtracted: {why}");
                        return Err(DataFusionError::Plan(message));
                    }
                };
                let how = if is_inverse {
                    "windows over batches: what comes is added, what leaves is subtracted"
                } else {
                    "windows over batches: each is put together anew"
                };
                (Some(how), Box::new(window::Windows::new(*span, is_inverse)))
            }
        };
        let name = spec.name.clone();
        Ok(Self {
            name,
            parts,
            keeper,
            all,
            is_read: false,
            changed: None,
            late,
            late_rows: 0,
            windows,
            spent: Vec::new(),
        })
    }

    /// How its aggregate is split.
    pub fn parts(&self) -> &Aggregation {
        &self.parts
    }

    /// When the first window ended that has rows and was not shown, unless a batch at this time shows it.
    pub fn missed(&self, time: i64) -> Option<i64> {
        self.keeper.missed(time)
    }

    /// Takes in what the relations hold.
    pub async fn turn(&mut self, batch: &BatchInfo) -> Result<()> {
        self.late_rows = self.keeper.prepare().await?;
        let new = self.parts.partial().await?;
        self.spent.iter().for_each(|rows| rows.set(Vec::new()));
        let is_row_by_row = self.parts.is_row_by_row();
        let mut turn = self.keeper.absorb(batch, &self.parts, new).await?;
        if matches!(turn, Turn::Same) && !self.parts.is_steady() {
            turn = Turn::Changed(Vec::new());
        }
        self.changed = match turn {
            Turn::Silent => None,
            Turn::Same if is_row_by_row => Some(Vec::new()),
            Turn::Same => Some(self.all.rows()),
            Turn::Whole(states) => {
                let whole = self.parts.results(states).await?;
                self.all.set(whole.clone());
                Some(whole)
            }
            Turn::Changed(states) => {
                if self.is_read || !is_row_by_row {
                    self.all.set(self.parts.results(self.keeper.all(&self.parts)?).await?);
                }
                Some(if is_row_by_row { self.parts.results(states).await? } else { self.all.rows() })
            }
        };
        Ok(())
    }

    /// Works the whole table out for somebody who looks at it now and then; until [`hide`](Self::hide).
    pub async fn show(&self) -> Result<()> {
        if !self.is_read {
            self.all.set(self.parts.results(self.keeper.all(&self.parts)?).await?);
        }
        Ok(())
    }

    /// Frees what [`show`](Self::show) has made.
    pub fn hide(&self) {
        if !self.is_read {
            self.all.set(Vec::new());
        }
    }

    /// Writes what has changed.
    pub fn save(&mut self, saved: &mut Saved<'_>) -> rusqlite::Result<()> {
        self.keeper.save(saved)
    }

    /// Reads what was written, and shows it to who reads the table before it changes.
    pub async fn restore(&mut self, saved: &mut Saved<'_>) -> Result<()> {
        self.keeper.restore(&self.parts, saved).map_err(|error| match error {
            RestoreError::Database(error) => DataFusionError::External(Box::new(error)),
            RestoreError::States(error) => error,
        })?;
        if self.is_read || !self.parts.is_row_by_row() {
            self.all.set(self.parts.results(self.keeper.all(&self.parts)?).await?);
        }
        Ok(())
    }

    /// How many states it keeps: one a key, but in windows that are put together anew one for each batch that had the
    /// key, until they are merged.
    pub fn keys(&self) -> usize {
        self.keeper.keys()
    }
}
