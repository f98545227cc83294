//! Sinks: where results go.
//!
//! | key | default | what |
//! |---|---|---|
//! | `type` | | `hbase`, `kafka`, `mysql`, `postgres`, `print`, `redis`, `sqlite` or `text` |
//! | `from` | | a source, view or table by name; or `sql`, a SELECT |
//! | `mode` | `all` for `print` and `text`, otherwise `changed` | of a table: `changed` gives the rows that the batch changed, `all` the whole table. With `sql` or a view it is for `sqlite` alone |
//!
//! A sink that fails is opened anew and tried again until it takes the batch, and the job waits for it. What it writes is
//! there exactly once, or, where that cannot be had, is absolute, so that a repeat does no harm. In Rust,
//! [`Job::for_each_batch`](crate::job::Job::for_each_batch) is a sink, too.

mod database;
pub mod embedded;
mod for_each;
mod hbase;
mod kafka;
mod print;
mod redis;
mod rows;
mod server;
mod sqlite;
mod text;

use std::ops::Range;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use serde::Deserialize;

use crate::batch::BatchInfo;
use crate::job::{Job, JobError, Keys};
use crate::source::{find, names};
use crate::spark::NOTHING_LIKE_IT;

/// Why a sink did not take a batch; the engine tries again, unless it is [final](Self::last).
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub struct SinkError {
    why: String,
    is_last: bool,
}

impl SinkError {
    /// An error that says what failed, and where.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_last: false }
    }

    /// An error after which this process need not try again: the job ends.
    pub fn last(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_last: true }
    }

    /// Whether the job ends.
    pub fn is_last(&self) -> bool {
        self.is_last
    }
}

/// Which rows of a table a sink gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Those that the batch has changed.
    Changed,
    /// All of them.
    All,
}

/// Where results go.
#[async_trait]
pub trait Sink: Send {
    /// Gets ready for rows of this schema; called before the first batch, and anew before one is tried again.
    async fn open(&mut self, schema: &SchemaRef) -> Result<(), SinkError>;

    /// Writes the rows of a batch. After an error the same batch comes again, and after a crash one with
    /// [`BatchInfo::again`].
    async fn write(&mut self, batch: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError>;

    /// Whether it wants to know of batches without rows.
    fn wants_empty_batches(&self) -> bool {
        false
    }
}

/// A sink's configuration.
pub trait SinkConfig: Send + Sync + std::fmt::Debug {
    /// Which rows of a table it gets, unless the job says.
    fn mode(&self) -> Mode {
        Mode::Changed
    }

    /// The table of the embedded database that results go to in the transaction of the batch, if this is what it is,
    /// and the columns that tell its rows apart.
    fn embedded(&self) -> Option<Embedded> {
        None
    }

    /// Whether the mode means something to it whatever it writes: with [`Mode::All`] rows that are gone are removed.
    fn removes(&self) -> bool {
        self.embedded().is_some_and(|table| !table.key.is_empty())
    }

    /// What is wrong with a result of these columns, if anything; found when the job is checked.
    fn check(&self, schema: &SchemaRef) -> Result<(), String> {
        let _ = schema;
        Ok(())
    }

    /// What it takes for its own, with rows of these columns: two sinks of a job with the same would spoil each other's
    /// results.
    fn owns(&self, name: &str, job: &JobContext, schema: &SchemaRef) -> Vec<String> {
        let _ = (name, job, schema);
        Vec::new()
    }

    /// How [Spark's runner](crate::spark) writes the same: `type` and what else it needs; or why it cannot.
    fn spark(&self, name: &str, job: &JobContext) -> Result<serde_json::Value, String> {
        let _ = (name, job);
        Err(NOTHING_LIKE_IT.to_owned())
    }

    /// Makes the sink.
    fn build(&self, name: &str, job: &JobContext) -> Box<dyn Sink>;
}

/// What a sink may want to know of its job.
#[derive(Clone, Debug)]
pub struct JobContext {
    /// The job's name.
    pub job: String,
    /// The folder of the job file, which paths are relative to.
    pub folder: std::path::PathBuf,
    /// The zone of times that are shown.
    pub time_zone: jiff::tz::TimeZone,
}

impl JobContext {
    /// What sinks of this job may want to know.
    pub fn of(job: &Job) -> Self {
        let folder = job.text.path().parent().map(std::path::Path::to_owned).unwrap_or_default();
        Self { job: job.name.clone(), folder, time_zone: job.time_zone.clone() }
    }

    /// A path of the job file, as it is from everywhere.
    pub fn absolute(&self, path: &std::path::Path) -> std::path::PathBuf {
        let path = self.folder.join(path);
        std::path::absolute(&path).unwrap_or(path)
    }
}

/// A table of the embedded database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Its name.
    pub table: String,
    /// The columns that tell rows apart; without any, rows are added.
    pub key: Vec<String>,
}

/// Reads a sink's own keys.
type Builder = fn(Keys<'_>) -> Result<Box<dyn SinkConfig>, JobError>;

/// All types of sinks.
const TYPES: &[(&str, Builder)] = &[
    ("hbase", hbase::read),
    ("kafka", kafka::read),
    ("mysql", database::mysql::read),
    ("postgres", database::postgres::read),
    ("print", print::read),
    ("redis", redis::read),
    ("sqlite", sqlite::read),
    ("text", text::read),
];

/// What a sink writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A source, view or table.
    Named(String),
    /// A SELECT.
    Sql(String),
}

impl Input {
    /// Takes `from` or `sql` out.
    pub fn take(keys: &mut Keys<'_>) -> Result<Self, JobError> {
        match (keys.take("from")?, keys.take("sql")?) {
            (Some(from), None) => Ok(Self::Named(from)),
            (None, Some(sql)) => Ok(Self::Sql(sql)),
            (Some(_), Some(_)) => Err(keys.error_at("sql", "either `from` or `sql`, not both")),
            (None, None) => {
                Err(keys.error("either `from`, the name of a source, view or table, or `sql` must be there"))
            }
        }
    }
}

/// A sink of a job.
#[derive(Debug)]
pub struct SinkSpec {
    /// Its name.
    pub name: String,
    /// Where it stands in the file.
    pub place: Range<usize>,
    /// Its type.
    pub kind: String,
    /// What it writes.
    pub input: Input,
    /// Which rows of a table it gets.
    pub mode: Mode,
    /// Whether the job file says so.
    pub names_mode: bool,
    /// What it is.
    pub config: Box<dyn SinkConfig>,
}

impl SinkSpec {
    /// Reads `[sink.NAME]`.
    pub fn read(mut keys: Keys<'_>) -> Result<Self, JobError> {
        let (name, place) = (keys.name().to_owned(), keys.place());
        let kind: String = keys.need("type", &format!("one of {}", names(TYPES)))?;
        let build = find(&keys, TYPES, &kind)?;
        let input = Input::take(&mut keys)?;
        let mode: Option<Mode> = keys.take("mode")?;
        let (names_mode, config) = (mode.is_some(), build(keys)?);
        Ok(Self { name, place, kind, input, mode: mode.unwrap_or_else(|| config.mode()), names_mode, config })
    }
}

/// Whether the columns of a key are there.
pub(crate) fn check_key(key: &[String], schema: &SchemaRef) -> Result<(), String> {
    check_columns("key", key, schema)
}

/// Whether the columns that a key of the job file names are there.
pub(crate) fn check_columns(key: &str, names: &[String], schema: &SchemaRef) -> Result<(), String> {
    names.iter().try_for_each(|name| check_column(key, name, schema))
}

/// Whether a column that a key of the job file names is there.
fn check_column(key: &str, name: &str, schema: &SchemaRef) -> Result<(), String> {
    if schema.field_with_name(name).is_ok() {
        return Ok(());
    }
    let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let near = crate::job::keys::did_you_mean(name, known.iter().copied());
    Err(format!("`{key}`: there is no column `{name}` among {}{near}", known.join(", ")))
}
