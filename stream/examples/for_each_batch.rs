//! Rust in the place of a sink: every row of every batch on a line of its own, without the frame that `print` puts around
//! them.
//!
//! ```text
//! nc -lk 6789
//! cargo run -p flume-rs-stream --example for_each_batch examples/stream/word-count-mysql.toml counts
//! ```
//!
//! The job file says where rows come from and what is made of them; the second argument names the source, view or table
//! to print.

use std::path::Path;
use std::process::ExitCode;

use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::DataFusionError;
use datafusion::prelude::DataFrame;
use flume_rs_stream::batch::BatchInfo;
use flume_rs_stream::engine::{Engine, EngineError};
use flume_rs_stream::job::Job;
use flume_rs_stream::sink::Mode;
use tokio_util::sync::CancellationToken;

/// The batch is a data frame: it could be filtered, joined or grouped here.
async fn print(_: BatchInfo, rows: DataFrame) -> Result<(), DataFusionError> {
    let options = FormatOptions::default();
    for rows in rows.collect().await? {
        let columns = rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..rows.num_rows() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            println!("({})", values.join(","));
        }
    }
    Ok(())
}

async fn run(file: &str, from: &str) -> Result<(), EngineError> {
    let mut job = Job::read(Path::new(file)).map_err(EngineError::Job)?;
    // Only this one is to be heard.
    job.sinks.clear();
    job.for_each_batch(from, Mode::All, print);
    Engine::new(job, false).await?.run(&CancellationToken::new()).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, from] = arguments.as_slice() else {
        eprintln!("usage: for_each_batch JOB-FILE SOURCE-VIEW-OR-TABLE");
        return ExitCode::FAILURE;
    };
    match run(file, from).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
