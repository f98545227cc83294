//! Tables: SQL whose result lives on.
//!
//! | key | default | what |
//! |---|---|---|
//! | `sql` | | a SELECT with one aggregate |
//! | `expire` | never | of a running table: keys that no row has touched for so long are forgotten |
//!
//! The SELECT's aggregate is split: a batch's rows become *partial states* by key, which are merged with those that
//! are kept; results are made of the merged states. What stands above the aggregate (HAVING, ORDER BY, LIMIT,
//! expressions) is worked out on the results.

mod aggregation;
mod running;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;
use serde::Deserialize;

pub use aggregation::Aggregation;

use crate::batch::BatchInfo;
use crate::job::{JobError, Keys};
use crate::sql::Relation;
use crate::store::Saved;

/// The keys of `[table.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TableKeys {
    sql: String,
    #[serde(default, deserialize_with = "crate::job::keys::optional_duration")]
    expire: Option<Duration>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// For ever, or until no row has touched them for so long.
    Running {
        /// For how long.
        expire: Option<Duration>,
    },
}

impl TableSpec {
    /// Reads `[table.NAME]`.
    pub fn read(keys: Keys<'_>) -> Result<Self, JobError> {
        let (name, place) = (keys.name().to_owned(), keys.place());
        let keys: TableKeys = keys.read()?;
        Ok(Self { name, place, sql: keys.sql, life: Life::Running { expire: keys.expire } })
    }

    /// What must be the same for a checkpoint to be this table's.
    pub fn identity(&self) -> String {
        format!("{} {:?} {}", self.name, self.life, self.sql)
    }
}

/// What a batch has done to a table.
#[derive(Debug)]
pub enum Turn {
    /// There is nothing to say this time: a window has not come to its end.
    Silent,
    /// These partial states are new.
    Changed(Vec<RecordBatch>),
}

/// Keeps partial states from batch to batch.
#[async_trait]
pub trait Keeper: Send {
    /// Takes a batch's partial states in.
    async fn absorb(&mut self, batch: &BatchInfo, parts: &Aggregation, new: Vec<RecordBatch>) -> Result<Turn>;

    /// All partial states that count now.
    fn all(&self, parts: &Aggregation) -> Result<Vec<RecordBatch>>;

    /// Writes what has changed since the last time.
    fn save(&mut self, saved: &mut Saved<'_>) -> rusqlite::Result<()>;

    /// Reads what was written.
    fn restore(&mut self, saved: &mut Saved<'_>) -> rusqlite::Result<()>;

    /// How many keys it keeps.
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
}

impl Table {
    /// A table without rows.
    pub fn new(spec: &TableSpec, parts: Aggregation, all: Arc<Relation>) -> Self {
        let keeper: Box<dyn Keeper> = match spec.life {
            Life::Running { expire } => Box::new(running::Running::new(&parts, expire)),
        };
        Self { name: spec.name.clone(), parts, keeper, all, is_read: false, changed: None }
    }

    /// How its aggregate is split.
    pub fn parts(&self) -> &Aggregation {
        &self.parts
    }

    /// Takes in what the relations hold.
    pub async fn turn(&mut self, batch: &BatchInfo) -> Result<()> {
        let new = self.parts.partial().await?;
        self.changed = match self.keeper.absorb(batch, &self.parts, new).await? {
            Turn::Silent => None,
            Turn::Changed(states) => {
                let whole = if self.is_read || !self.parts.is_row_by_row() {
                    let whole = self.parts.results(self.keeper.all(&self.parts)?).await?;
                    self.all.set(whole.clone());
                    Some(whole)
                } else {
                    None
                };
                Some(match whole {
                    Some(whole) if !self.parts.is_row_by_row() => whole,
                    _ => self.parts.results(states).await?,
                })
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
        let failed = |error: rusqlite::Error| datafusion::error::DataFusionError::External(Box::new(error));
        self.keeper.restore(saved).map_err(failed)?;
        if self.is_read {
            self.all.set(self.parts.results(self.keeper.all(&self.parts)?).await?);
        }
        Ok(())
    }

    /// How many keys it keeps.
    pub fn keys(&self) -> usize {
        self.keeper.keys()
    }
}
