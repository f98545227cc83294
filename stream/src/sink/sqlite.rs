//! Tables in SQLite.
//!
//! | key | default | what |
//! |---|---|---|
//! | `table` | | the table; it is made unless it is there |
//! | `key` | none | the columns that tell rows apart: a row with the key of one that is there takes its place |
//!
//! They are in the job's own database, `job.db` in the checkpoint folder.

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use serde::Deserialize;

use super::{Embedded, JobContext, Sink, SinkConfig, SinkError};
use crate::batch::BatchInfo;
use crate::job::{JobError, Keys};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SqliteConfig {
    table: String,
    #[serde(default)]
    key: Vec<String>,
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SinkConfig>, JobError> {
    Ok(Box::new(keys.read::<SqliteConfig>()?))
}

impl SinkConfig for SqliteConfig {
    fn embedded(&self) -> Option<Embedded> {
        Some(Embedded { table: self.table.clone(), key: self.key.clone() })
    }

    fn check(&self, schema: &SchemaRef) -> Result<(), String> {
        super::check_key(&self.key, schema)
    }

    fn spark(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({ "type": "sqlite", "table": self.table, "key": self.key }))
    }

    fn build(&self, _: &str, _: &JobContext) -> Box<dyn Sink> {
        Box::new(Never)
    }
}

/// Embedded results are written by the engine.
struct Never;

#[async_trait]
impl Sink for Never {
    async fn open(&mut self, _: &SchemaRef) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&mut self, _: &BatchInfo, _: &[RecordBatch]) -> Result<(), SinkError> {
        Ok(())
    }
}
