//! Tables in SQLite.
//!
//! | key | default | what |
//! |---|---|---|
//! | `table` | | the table; it is made unless it is there |
//! | `key` | none | the columns that tell rows apart: a row with the key of one that is there takes its place |
//! | `path` | the job's own database | the file of another database, from the folder of the job file; a job without `checkpoint` must name one |
//!
//! With `mode = "all"` and a `key`, rows of the job's own database that are no longer in the result go. Without a key rows
//! are added for good.
//!
//! When the SQL of the sink has changed, a table of the job's own database gets the columns that are new; where its key, a
//! type, or the name of a column is different, the job says so and ends.
//!
//! The job's own database is `job.db` in the checkpoint folder. Another one also gets the batch's number, in the table
//! `flume_rs_batches`, in the transaction with its rows: either way every row is there exactly once. Jobs that share a
//! database must have different names.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use serde::Deserialize;

use super::database::{BATCHES, stored};
use super::{Embedded, JobContext, Sink, SinkConfig, SinkError, embedded};
use crate::batch::BatchInfo;
use crate::job::{JobError, Keys};

/// How long to wait for others that write to the file.
const BUSY: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqliteConfig {
    table: String,
    #[serde(default)]
    key: Vec<String>,
    path: Option<PathBuf>,
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SinkConfig>, JobError> {
    Ok(Box::new(keys.read::<SqliteConfig>()?))
}

impl SqliteConfig {
    fn table(&self) -> Embedded {
        Embedded { table: self.table.clone(), key: self.key.clone() }
    }
}

impl SinkConfig for SqliteConfig {
    fn embedded(&self) -> Option<Embedded> {
        self.path.is_none().then(|| self.table())
    }

    fn check(&self, schema: &SchemaRef) -> Result<(), String> {
        if ["flume_rs_", "sqlite_"].iter().any(|own| self.table.to_ascii_lowercase().starts_with(own)) {
            return Err(format!("`table`: `{}` may be a table of the database's own", self.table));
        }
        super::check_key(&self.key, schema)
    }

    /// Without a key rows are only added, and those of another sink stay.
    fn owns(&self, _: &str, job: &JobContext, _: &SchemaRef) -> Vec<String> {
        let file = self.path.as_ref().map_or_else(|| crate::store::FILE.into(), |path| job.absolute(path));
        let table = (!self.key.is_empty()).then(|| self.table.to_ascii_lowercase());
        table.map(|table| format!("table {table} of {}", file.display())).into_iter().collect()
    }

    fn spark(&self, _: &str, job: &JobContext) -> Result<serde_json::Value, String> {
        let path = self.path.as_ref().map(|path| job.absolute(path));
        Ok(serde_json::json!({ "type": "sqlite", "path": path, "table": self.table, "key": self.key }))
    }

    fn build(&self, name: &str, job: &JobContext) -> Box<dyn Sink> {
        let path = job.folder.join(self.path.as_deref().unwrap_or(crate::store::FILE.as_ref()));
        Box::new(Sqlite { path, table: self.table(), job: job.job.clone(), name: name.to_owned(), database: None })
    }
}

/// A table in a file of its own.
struct Sqlite {
    path: PathBuf,
    table: Embedded,
    job: String,
    name: String,
    database: Option<Connection>,
}

impl Sqlite {
    fn error(&self, why: &rusqlite::Error) -> SinkError {
        SinkError::new(format!("{}, table {}: {why}", self.path.display(), self.table.table))
    }

    fn open_file(&self, schema: &SchemaRef) -> rusqlite::Result<Connection> {
        let database = Connection::open(&self.path)?;
        database.busy_timeout(BUSY)?;
        database.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {BATCHES} (job TEXT NOT NULL, sink TEXT NOT NULL, batch INTEGER NOT NULL, \
             time INTEGER NOT NULL, PRIMARY KEY (job, sink))"
        ))?;
        embedded::create(&database, &self.table, schema)?;
        Ok(database)
    }

    fn put(&mut self, batch: &BatchInfo, rows: &[RecordBatch]) -> rusqlite::Result<()> {
        let Some(database) = &mut self.database else { return Err(rusqlite::Error::InvalidQuery) };
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let select = format!("SELECT batch, time FROM {BATCHES} WHERE job = ? AND sink = ?");
        let last = transaction
            .query_row(&select, params![self.job, self.name], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (number, time) = stored(batch);
        if last == Some((number, time)) {
            return Ok(());
        }
        embedded::write(&transaction, &self.table, rows)?;
        let replace = format!("REPLACE INTO {BATCHES} VALUES (?, ?, ?, ?)");
        transaction.execute(&replace, params![self.job, self.name, number, time])?;
        transaction.commit()
    }
}

#[async_trait]
impl Sink for Sqlite {
    async fn open(&mut self, schema: &SchemaRef) -> Result<(), SinkError> {
        let opened = tokio::task::block_in_place(|| self.open_file(schema));
        self.database = Some(opened.map_err(|error| self.error(&error))?);
        Ok(())
    }

    async fn write(&mut self, batch: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError> {
        tokio::task::block_in_place(|| self.put(batch, rows)).map_err(|error| self.error(&error))
    }
}
