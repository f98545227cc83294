//! Sinks by themselves, as the engine uses them.

use std::path::Path;

use datafusion::arrow::array::RecordBatch;
use flume_rs_stream::batch::BatchInfo;
use flume_rs_stream::job::Job;
use flume_rs_stream::sink::{JobContext, Sink, SinkError};

/// A sink by its keys in a job file, of a job whose file is in this folder.
pub fn sink(folder: &Path, keys: &str) -> Box<dyn Sink> {
    let text = format!(
        "[source.lines]\ntype = \"socket\"\nconnect = \"localhost:1\"\n[sink.rows]\nfrom = \"lines\"\n{keys}\n"
    );
    let job = Job::parse(&folder.join("job.toml"), text).expect("it is a job");
    let context = JobContext { job: "test".to_owned(), folder: folder.to_owned(), time_zone: jiff::tz::TimeZone::UTC };
    job.sinks[0].config.build("rows", &context)
}

/// The batch of a number.
pub fn batch(number: u64) -> BatchInfo {
    BatchInfo { number, time: 1_590_233_400_000 + number as i64 * 1000, again: false }
}

/// Opens a new sink and has it write a batch.
pub async fn write_new(keys: &str, batch: BatchInfo, rows: &RecordBatch) -> Result<(), SinkError> {
    let mut sink = sink(Path::new(""), keys);
    sink.open(&rows.schema()).await?;
    sink.write(&batch, std::slice::from_ref(rows)).await
}
