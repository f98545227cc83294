//! The same job on Spark, for when one machine is not enough.
//!
//! `run --engine spark` hands the job to `spark-submit` with a small program of ours, which builds the same sources,
//! views and tables from Structured Streaming. What Spark cannot do the same way is said before anything starts. SQL is
//! the job's, with the names of functions and types that Spark has other names for replaced.
//!
//! Spark finds `spark-submit` on the path or in `$SPARK_HOME/bin`; `--spark-submit` names another.

mod dialect;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::job::{Batching, Job, JobError};
use crate::sink::{Input, Mode};
use crate::sql::{Plan, words};
use crate::table::Life;

/// The program that Spark runs.
const RUNNER: &str = include_str!("runner.py");

/// How to reach Spark.
#[derive(Clone, Debug)]
pub struct Options {
    /// `local[2]`, `spark://host:7077`, `yarn`, ….
    pub master: String,
    /// The program that submits jobs.
    pub submit: PathBuf,
    /// Further arguments for it, as `--packages` or `--conf`.
    pub arguments: Vec<String>,
    /// Whether it ends once everything that is there was worked on.
    pub once: bool,
}

/// The program that submits jobs, where nobody names one.
pub fn default_submit() -> PathBuf {
    match std::env::var_os("SPARK_HOME") {
        Some(home) => Path::new(&home).join("bin/spark-submit"),
        None => PathBuf::from("spark-submit"),
    }
}

/// Whether Spark can do a job: everything that it cannot is an error with its line.
pub async fn plan(job: &Job) -> Result<Value, Vec<JobError>> {
    // Names, references and columns are checked by the engine that is here.
    let planned = Plan::of(job).await?;
    let mut errors = Vec::new();
    let mut cannot = |place, what: String| errors.push(job.text.error(place, format!("{what} cannot run on Spark")));
    let mut sources = Vec::new();
    for source in &job.sources {
        let (format, config) = (source.reader.format().spark(), source.config.spark());
        if config.is_none() {
            cannot(&source.place, format!("source {}: a source of type {}", source.name, source.kind));
        } else if format.is_none() {
            cannot(&source.place, format!("source {}: its format", source.name));
        }
        sources.push(json!({ "name": source.name, "source": config, "format": format }));
    }
    let mut sinks = Vec::new();
    for sink in &job.sinks {
        let config = sink.config.spark();
        if config.is_none() {
            cannot(&sink.place, format!("sink {}: a sink of type {}", sink.name, sink.kind));
        }
        let (from, sql) = match &sink.input {
            Input::Named(name) => (Some(name), None),
            Input::Sql(sql) => (None, Some(translate(&planned, sql, job, &sink.place)?)),
        };
        let reads = match &sink.input {
            Input::Named(name) => vec![name.clone()],
            Input::Sql(sql) => planned.sql.references(sql).unwrap_or_default(),
        };
        sinks.push(json!({
            "name": sink.name, "sink": config, "from": from, "sql": sql, "reads": reads, "all": sink.mode == Mode::All,
        }));
    }
    let mut relations = Vec::new();
    for name in &planned.order {
        if let Some(view) = job.views.iter().find(|view| view.name == *name) {
            let sql = translate(&planned, &view.sql, job, &view.place)?;
            relations.push(json!({ "name": name, "sql": sql, "is_table": false }));
        }
        if let Some(table) = job.tables.iter().find(|table| table.name == *name) {
            match table.life {
                Life::Running { expire: None } => {}
                _ => cannot(&table.place, format!("table {}: a table of this kind", table.name)),
            }
            let sql = translate(&planned, &table.sql, job, &table.place)?;
            relations.push(json!({ "name": name, "sql": sql, "is_table": true }));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    // Spark may run in another folder.
    let checkpoint = job.checkpoint.as_deref().and_then(|folder| std::path::absolute(folder).ok());
    let millis = match job.batching {
        Batching::Every(interval) => interval.as_millis() as u64,
        Batching::Arrival => 0,
    };
    Ok(json!({
        "name": job.name, "interval": millis, "checkpoint": checkpoint, "time_zone": job.time_zone.iana_name(),
        "sources": sources, "relations": relations, "sinks": sinks,
    }))
}

fn translate(plan: &Plan, sql: &str, job: &Job, place: &std::ops::Range<usize>) -> Result<String, Vec<JobError>> {
    dialect::to_spark(&plan.sql, sql).map_err(|error| vec![job.text.error(place, words(&error))])
}

/// Runs a job that Spark [can do](plan) until it ends or is stopped.
pub async fn run(plan: &Value, options: &Options, stop: &CancellationToken) -> std::io::Result<ExitStatus> {
    // Nobody else can look into it, or have made it before.
    let folder = tempfile::Builder::new().prefix("flume-rs-stream-").tempdir()?;
    let (runner, job) = (folder.path().join("runner.py"), folder.path().join("job.json"));
    std::fs::write(&runner, RUNNER)?;
    let mut plan = plan.clone();
    plan["once"] = options.once.into();
    std::fs::write(&job, plan.to_string())?;
    let mut command = tokio::process::Command::new(&options.submit);
    command.args(["--master", &options.master]).args(&options.arguments).arg(&runner).arg(&job);
    let outcome = async {
        let mut child = command.kill_on_drop(true).spawn().map_err(|error| {
            let message = format!("{}: {error}; is Spark here, or in SPARK_HOME?", options.submit.display());
            std::io::Error::new(error.kind(), message)
        })?;
        match stop.run_until_cancelled(child.wait()).await {
            Some(status) => status,
            None => {
                if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
                    rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
                }
                child.wait().await
            }
        }
    };
    outcome.await
}
