//! The same job on Spark, for when one machine is not enough.
//!
//! `run --engine spark` hands the job to `spark-submit` with a small program of ours, which builds the same sources,
//! views and tables from Structured Streaming. What Spark cannot do the same way is an error before anything starts, and
//! `check --engine spark` says it without Spark. SQL is the job's, in Spark's words.
//!
//! | what | on Spark |
//! |---|---|
//! | sources | `socket`, `rate`, `folder` (with `start = "earliest"`), `kafka` (without `group`; `max-rows` for all partitions together) |
//! | formats | `lines`, `delimited`, `json`; the reasons of records that are no object are in other words |
//! | views | on each batch, as here; those that tables read only row by row |
//! | tables | without `window`, or with `time`; without `expire` |
//! | sinks | `print`, `text`, `sqlite` (on the driver's machine), `kafka` (at least once) |
//!
//! A sink has the rows of one source, or of one table. There is a query for each source whose rows sinks have, and for
//! each table; each reads by itself. There are no batches without rows. Times are without a zone, as here; as text,
//! `cast` writes them with a blank instead of the `T`.
//!
//! Spark 4 is needed; `spark-submit` is the one on the path or in `$SPARK_HOME/bin`, and `--spark-submit` names another.
//! The job's folders are given to Spark as they are here: on a cluster all machines must have them. Spark keeps its
//! state in `spark` in the checkpoint folder; a checkpoint of the other engine is refused. A sink that fails ends the job;
//! started again, it goes on with the same batch.

mod dialect;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::dialect::Place;
use crate::job::{Batching, Job, JobError};
use crate::sink::{Input, JobContext, Mode, SinkSpec};
use crate::sql::Plan;
use crate::table::{Emit, Life, TableSpec};

/// The program that Spark runs.
const RUNNER: &str = include_str!("runner.py");

/// Why most of what cannot run on Spark cannot.
pub const NOTHING_LIKE_IT: &str = "Spark has nothing like it by itself";

/// How to reach Spark.
#[derive(Clone, Debug)]
pub struct Options {
    /// `local[2]`, `spark://host:7077`, `yarn`, ….
    pub master: String,
    /// The program that submits jobs.
    pub submit: PathBuf,
    /// Further arguments for it, as `--packages` or `--conf`.
    pub arguments: Vec<String>,
}

/// The program that submits jobs, where nobody names one.
pub fn default_submit() -> PathBuf {
    match std::env::var_os("SPARK_HOME") {
        Some(home) => Path::new(&home).join("bin/spark-submit"),
        None => PathBuf::from("spark-submit"),
    }
}

/// A job for Spark.
#[derive(Clone, Debug)]
pub struct SparkPlan {
    /// What the runner reads.
    job: Value,
    /// Its queries: the name, and what each is for.
    pub queries: Vec<String>,
    /// What is otherwise there.
    pub notes: Vec<String>,
}

/// Whether Spark can do a job: everything that it cannot is an error with its line. With `once` it is to end when
/// everything that is there was worked on.
pub async fn plan(job: &Job, once: bool) -> Result<SparkPlan, Vec<JobError>> {
    // Names, references and columns are checked by the engine that is here.
    let planned = Plan::of(job).await?;
    let mut translator = Translator { job, plan: &planned, errors: Vec::new(), notes: Vec::new() };
    let sources = translator.sources(once);
    let tables = translator.tables();
    let queries = translator.queries();
    let Translator { errors, mut notes, .. } = translator;
    if !errors.is_empty() {
        return Err(errors);
    }
    if job.ui.is_some() || !job.charts.is_empty() {
        notes.push("Spark shows by itself how the job gets on; `ui` and charts have no effect there".to_owned());
    }
    // Spark may run in another folder.
    let checkpoint = job.checkpoint.as_deref().and_then(|folder| std::path::absolute(folder).ok());
    let millis = match job.batching {
        Batching::Every(interval) => interval.as_millis() as u64,
        Batching::Arrival => 0,
    };
    let json = json!({
        "name": job.name, "interval": millis, "max_rows": job.max_rows, "checkpoint": checkpoint, "once": once,
        "time_zone": zone(job), "sources": sources, "tables": tables, "queries": queries,
    });
    let described = queries.iter().map(|query| {
        let sinks = query["sinks"].as_array().into_iter().flatten().filter_map(|sink| sink["name"].as_str());
        let mode = query["mode"].as_str().unwrap_or_default();
        format!("{} ({mode}): {}", query["name"].as_str().unwrap_or_default(), sinks.collect::<Vec<_>>().join(", "))
    });
    Ok(SparkPlan { job: json, queries: described.collect(), notes })
}

fn zone(job: &Job) -> &str {
    job.time_zone.iana_name().unwrap_or("UTC")
}

/// Where rows come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Base {
    Source(String),
    Table(String),
}

struct Translator<'a> {
    job: &'a Job,
    plan: &'a Plan,
    errors: Vec<JobError>,
    notes: Vec<String>,
}

impl<'a> Translator<'a> {
    fn cannot(&mut self, place: &Range<usize>, what: &str, why: &str) {
        let error = self.job.text.error(place, format!("{what} cannot run on Spark: {why}"));
        // What two tables read is said once.
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    fn sources(&mut self, once: bool) -> Vec<Value> {
        let mut sources = Vec::new();
        for source in &self.job.sources {
            let what = format!("source {} (type {})", source.name, source.kind);
            let (format, config) = (source.reader.format().spark(), source.config.spark());
            if let Some(why) = config.as_ref().err().or(format.as_ref().err()) {
                self.cannot(&source.place, &what, why);
            } else if once && ["socket", "rate"].contains(&source.kind.as_str()) {
                self.cannot(&source.place, &what, "with --once, as it has no end there");
            }
            sources.push(json!({ "name": source.name, "source": config.ok(), "format": format.ok() }));
        }
        sources
    }

    fn references(&self, sql: &str) -> Vec<String> {
        self.plan.sql.references(sql).unwrap_or_default()
    }

    fn translate(&mut self, what: &str, place: &Range<usize>, sql: &str, at: Place) -> Option<String> {
        let translated = dialect::to_spark(&self.plan.sql, sql, at, zone(self.job));
        translated.map_err(|why| self.cannot(place, what, &why)).ok()
    }

    /// Views in the order in which they must be made, of those that something reads.
    fn views(&self, read: &[String]) -> Vec<&'a crate::job::ViewSpec> {
        let (mut open, mut found) = (read.to_vec(), BTreeSet::new());
        while let Some(name) = open.pop() {
            if let Some(view) = self.job.views.iter().find(|view| view.name == name)
                && found.insert(name)
            {
                open.extend(self.references(&view.sql));
            }
        }
        let ordered = self.plan.order.iter().filter(|name| found.contains(*name));
        ordered.filter_map(|name| self.job.views.iter().find(|view| view.name == *name)).collect()
    }

    fn translated_views(&mut self, views: &[&crate::job::ViewSpec], at: Place) -> Vec<Value> {
        let mut translated = Vec::new();
        for view in views {
            let sql = self.translate(&format!("view {}", view.name), &view.place, &view.sql, at);
            translated.push(json!({ "name": view.name, "sql": sql }));
        }
        translated
    }

    /// The sources and tables that rows come from in the end, through these views; the error is a name that Spark lacks.
    fn bases(&self, read: &[String], views: &[&crate::job::ViewSpec]) -> Result<BTreeSet<Base>, String> {
        let of_views = views.iter().flat_map(|view| self.references(&view.sql));
        let mut bases = BTreeSet::new();
        for name in read.iter().cloned().chain(of_views) {
            let source =
                self.job.sources.iter().find(|one| name == one.name || name == format!("{}_rejects", one.name));
            if let Some(source) = source {
                bases.insert(Base::Source(source.name.clone()));
            } else if self.job.tables.iter().any(|table| table.name == name) {
                bases.insert(Base::Table(name));
            } else if !views.iter().any(|view| view.name == name) && name.ends_with("_late") {
                return Err(format!("Spark does not keep rows that come too late, `{name}`"));
            }
        }
        Ok(bases)
    }

    fn tables(&mut self) -> Vec<Value> {
        let mut tables = Vec::new();
        for table in &self.job.tables {
            let what = format!("table {}", table.name);
            let event = match &table.life {
                Life::Running { expire: None } => Value::Null,
                Life::Running { .. } => {
                    self.cannot(&table.place, &what, "with `expire`");
                    continue;
                }
                Life::Windows { .. } => {
                    self.cannot(
                        &table.place,
                        &what,
                        "with `window` and without `time`: there windows are by a time in the rows",
                    );
                    continue;
                }
                Life::EventTime(keys) => json!({
                    "over": keys.over, "time": keys.time, "window": keys.span.window, "slide": keys.span.slide,
                    "delay": keys.delay,
                }),
            };
            let read = self.references(&table.sql);
            let views = self.views(&read);
            self.check_stream(table, &what, &views);
            let sql = match &table.life {
                Life::EventTime(keys) => {
                    let sql = dialect::with_windows(&self.plan.sql, &table.sql, &keys.over, zone(self.job));
                    sql.map_err(|why| self.cannot(&table.place, &what, &why)).ok()
                }
                _ => self.translate(&what, &table.place, &table.sql, Place::Stream),
            };
            let views = self.translated_views(&views, Place::Stream);
            tables.push(json!({ "name": table.name, "sql": sql, "views": views, "event": event }));
        }
        tables
    }

    /// What a table reads is a stream without end there: it goes through row by row.
    fn check_stream(&mut self, table: &TableSpec, what: &str, views: &[&crate::job::ViewSpec]) {
        let streams = |shape: &dialect::Shape| {
            let read = shape.relations.iter();
            read.filter(|name| {
                let views = self.views(std::slice::from_ref(name));
                self.bases(std::slice::from_ref(name), &views).is_ok_and(|bases| !bases.is_empty())
            })
            .count()
        };
        const JOINED: &str = "there streams that are joined find rows of other batches as well";
        let mut found = Vec::new();
        for view in views {
            let shape = dialect::shape(&self.plan.sql, &view.sql);
            let why = match shape.whole {
                Some(whole) => Some(format!("table {} reads it, and {whole} would be over all batches", table.name)),
                None => (shape.is_joined && streams(&shape) > 1).then(|| JOINED.to_owned()),
            };
            found.extend(why.map(|why| (view.place.clone(), format!("view {}", view.name), why)));
        }
        let shape = dialect::shape(&self.plan.sql, &table.sql);
        if shape.is_distinct_aggregate {
            let why = "distinct aggregates; approx_distinct counts without being exact".to_owned();
            found.push((table.place.clone(), what.to_owned(), why));
        }
        if shape.is_joined && streams(&shape) > 1 {
            found.push((table.place.clone(), what.to_owned(), JOINED.to_owned()));
        }
        for (place, what, why) in found {
            self.cannot(&place, &what, &why);
        }
    }

    /// Sinks by what they read.
    fn queries(&mut self) -> Vec<Value> {
        let mut queries: BTreeMap<(Base, &'static str), Vec<&'a SinkSpec>> = BTreeMap::new();
        for sink in &self.job.sinks {
            let what = format!("sink {} (type {})", sink.name, sink.kind);
            let read = read_by(sink, self.plan);
            let views = self.views(&read);
            let bases = match self.bases(&read, &views) {
                Ok(bases) => bases,
                Err(why) => {
                    self.cannot(&sink.place, &what, &why);
                    continue;
                }
            };
            let Some(base) = bases.first().filter(|_| bases.len() == 1) else {
                self.cannot(&sink.place, &what, "there a sink has the rows of one source or of one table");
                continue;
            };
            let mode = match base {
                Base::Source(_) => "append",
                Base::Table(name) => self.mode(sink, name),
            };
            queries.entry((base.clone(), mode)).or_default().push(sink);
        }
        if self.job.sinks.is_empty() {
            self.cannot(&(0..0), "a job without sinks", "there it has nothing to do");
        }
        queries.into_iter().map(|((base, mode), sinks)| self.query(&base, mode, &sinks)).collect()
    }

    /// Which rows of a table Spark gives a sink.
    fn mode(&mut self, sink: &SinkSpec, table: &str) -> &'static str {
        let Some(table) = self.job.tables.iter().find(|one| one.name == table) else { return "update" };
        let is_ordered = dialect::shape(&self.plan.sql, &table.sql).is_ordered;
        let is_whole = is_ordered || sink.mode == Mode::All || sink.input != Input::Named(table.name.clone());
        match &table.life {
            // All windows that are given are new.
            Life::EventTime(keys) if keys.emit == Emit::Final && !is_ordered => "append",
            Life::EventTime(_) if is_whole => {
                let what = format!("sink {} (type {})", sink.name, sink.kind);
                let why = format!("there all windows of {} would stay for ever; `mode = \"changed\"` can", table.name);
                self.cannot(&sink.place, &what, &why);
                "update"
            }
            _ if is_whole => "complete",
            _ => "update",
        }
    }

    fn query(&mut self, base: &Base, mode: &str, sinks: &[&SinkSpec]) -> Value {
        let job = self.job;
        let context = JobContext::of(job);
        let mut translated = Vec::new();
        for sink in sinks {
            let what = format!("sink {} (type {})", sink.name, sink.kind);
            let config = sink.config.spark(&sink.name, &context);
            let config = config.map_err(|why| self.cannot(&sink.place, &what, &why)).ok();
            if let Some(note) = config.as_ref().and_then(|config| config["note"].as_str()) {
                self.notes.push(format!("sink {}: {note}", sink.name));
            }
            let (from, sql) = match &sink.input {
                Input::Named(name) => (Some(name), None),
                Input::Sql(sql) => (None, self.translate(&what, &sink.place, sql, Place::Batch)),
            };
            // As there, only a table as a whole takes the place of what was there.
            let is_whole = mode == "complete" && sink.mode == Mode::All;
            translated.push(json!({ "name": sink.name, "sink": config, "from": from, "sql": sql, "whole": is_whole }));
        }
        let read: Vec<String> = sinks.iter().flat_map(|sink| read_by(sink, self.plan)).collect();
        let views = self.views(&read);
        let views = self.translated_views(&views, Place::Batch);
        let (kind, of) = match base {
            Base::Source(of) => ("source", of),
            Base::Table(of) => ("table", of),
        };
        let name = format!("{kind}_{of}_{mode}");
        json!({ "name": name, "kind": kind, "of": of, "mode": mode, "views": views, "sinks": translated })
    }
}

fn read_by(sink: &SinkSpec, plan: &Plan) -> Vec<String> {
    match &sink.input {
        Input::Named(name) => vec![name.clone()],
        Input::Sql(sql) => plan.sql.references(sql).unwrap_or_default(),
    }
}

/// Runs a job that Spark [can do](plan) until it ends or is stopped.
pub async fn run(plan: &SparkPlan, options: &Options, stop: &CancellationToken) -> std::io::Result<ExitStatus> {
    // Nobody else can look into it, or have made it before.
    let folder = tempfile::Builder::new().prefix("flume-rs-stream-").tempdir()?;
    let (runner, job) = (folder.path().join("runner.py"), folder.path().join("job.json"));
    std::fs::write(&runner, RUNNER)?;
    std::fs::write(&job, plan.job.to_string())?;
    let mut command = tokio::process::Command::new(&options.submit);
    command
        .args(["--master", &options.master, "--conf", "spark.log.level=WARN"])
        .args(&options.arguments)
        .arg(&runner)
        .arg(&job);
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
