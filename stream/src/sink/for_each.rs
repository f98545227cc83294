//! A sink that is a piece of Rust.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::prelude::{DataFrame, SessionContext};
use futures_util::future::BoxFuture;

use super::{Input, JobContext, Mode, Sink, SinkConfig, SinkError, SinkSpec};
use crate::batch::BatchInfo;
use crate::job::Job;
use crate::sql::Sql;

type Action = dyn Fn(BatchInfo, DataFrame) -> BoxFuture<'static, Result<(), SinkError>> + Send + Sync;

#[derive(Clone)]
struct ForEach(Arc<Action>);

impl fmt::Debug for ForEach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForEach")
    }
}

impl Job {
    /// Calls `action` with each batch of a source, view or table, also with one without rows. Of a table it gets the rows
    /// that the batch has changed, or all, as `mode` says. The [`DataFrame`] can be filtered, joined, queried and
    /// collected as DataFusion's are.
    ///
    /// The job waits for it. After an error it is called again with the same batch, and after a crash it may be called
    /// with one that it has seen, which then has [`BatchInfo::again`].
    pub fn for_each_batch<F, R, E>(&mut self, from: &str, mode: Mode, action: F)
    where
        F: Fn(BatchInfo, DataFrame) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send,
    {
        let action = move |batch, rows| -> BoxFuture<'static, Result<(), SinkError>> {
            let done = action(batch, rows);
            Box::pin(async move { done.await.map_err(|error| SinkError::new(error.to_string())) })
        };
        self.sinks.push(SinkSpec {
            name: format!("for each batch of {from}"),
            place: 0..0,
            kind: "for_each_batch".to_owned(),
            input: Input::Named(from.to_owned()),
            mode,
            names_mode: false,
            config: Box::new(ForEach(Arc::new(action))),
        });
    }
}

impl SinkConfig for ForEach {
    fn build(&self, _: &str, job: &JobContext) -> Box<dyn Sink> {
        Box::new(Calls { action: Arc::clone(&self.0), job: job.clone(), to: None })
    }
}

struct Calls {
    action: Arc<Action>,
    job: JobContext,
    /// Where frames are worked out, and their columns.
    to: Option<(SessionContext, SchemaRef)>,
}

#[async_trait]
impl Sink for Calls {
    async fn open(&mut self, schema: &SchemaRef) -> Result<(), SinkError> {
        let sql = Sql::new(&self.job.time_zone).map_err(|error| SinkError::new(error.to_string()))?;
        self.to = Some((sql.context().clone(), Arc::clone(schema)));
        Ok(())
    }

    async fn write(&mut self, batch: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError> {
        let Some((context, schema)) = &self.to else { return Err(SinkError::new("it is not open")) };
        let frame = MemTable::try_new(Arc::clone(schema), vec![rows.to_vec()]);
        let frame = frame.and_then(|rows| context.read_table(Arc::new(rows)));
        let frame = frame.map_err(|error| SinkError::new(error.to_string()))?;
        (self.action)(*batch, frame).await
    }

    fn wants_empty_batches(&self) -> bool {
        true
    }
}
