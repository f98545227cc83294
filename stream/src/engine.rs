//! The engine: cuts batches, runs the SQL on them, writes the results, and commits.
//!
//! A batch goes through these steps, and a crash between any two of them changes no result:
//!
//! 1. Each source gives what it has. Positions of those that can give it again are noted as begun.
//! 2. Records become rows; views and tables are worked out.
//! 3. Sinks outside write. One that fails is tried again, and the job waits.
//! 4. One transaction commits states, positions, and embedded results.
//! 5. Sources acknowledge what peers keep for them.
//!
//! After a crash a batch that was begun is worked on again, with its number, its time and, for sources with positions,
//! its records.

mod inlet;
mod wait;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::error::DataFusionError;
use futures_util::future::select_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use inlet::Inlet;
use wait::{Sometimes, Wait};

use crate::batch::BatchInfo;
use crate::format::{Records, Reject};
use crate::job::{Batching, Job, JobError};
use crate::page::{Chart, Page, PageServer};
use crate::progress::{Progress, Report, TableSize, seconds};
use crate::sink::{Embedded, JobContext, Mode, Sink, SinkError, embedded};
use crate::source::{Cut, Position};
use crate::sql::plan::{Feed, reject_schema};
use crate::sql::{Plan, Step, words};
use crate::store::{Saved, Store, StoreError};

/// Why a job ends before it should.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The job file has mistakes.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Job(Vec<JobError>),
    /// The checkpoint failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The page cannot be where it should be.
    #[error("the page: {0}: {1}; choose another address by `ui` or --ui HOST:PORT")]
    Page(String, std::io::Error),
    /// Spark cannot be started.
    #[error("Spark: {0}")]
    Spark(std::io::Error),
    /// Spark has ended.
    #[error("Spark has ended: {0}")]
    SparkEnded(std::process::ExitStatus),
    /// A sink cannot go on.
    #[error("sink {name}: {error}")]
    Sink {
        /// The sink.
        name: String,
        /// Why not.
        error: SinkError,
    },
    /// SQL failed on the rows of a batch.
    #[error(
        "batch {batch}: {name}: {}. With a checkpoint the batch comes again when the job is started again: change the \
         SQL, for example to try_cast or nullif in a view, which may change under a checkpoint",
        words(.error)
    )]
    Sql {
        /// The batch's number.
        batch: u64,
        /// The view, table or sink.
        name: String,
        /// What the SQL engine says.
        error: DataFusionError,
    },
}

impl From<rusqlite::Error> for EngineError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(StoreError::Database(error))
    }
}

/// How often a job in arrival mode goes through a batch without rows, for windows that end and keys that expire.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A batch that takes so many times the interval, but at least so long, is named while it is worked on.
const LONG_BATCH: (u32, Duration) = (10, Duration::from_secs(5));
/// A batch that takes so long after a stop is named, too.
const PATIENCE: Duration = Duration::from_secs(1);
/// A clock that was set back by no more than this is not worth a word.
const MOST_AHEAD: Duration = Duration::from_secs(60);

/// Where results go.
enum Outlet {
    /// A sink, and whether it has been opened.
    Outside(Box<dyn Sink>, bool),
    /// A table of the store's database, and whether it has been made.
    Embedded(Embedded, bool),
}

/// A job at work.
pub struct Engine {
    job: Job,
    once: bool,
    plan: Plan,
    inlets: Vec<Inlet>,
    outlets: Vec<Outlet>,
    store: Store,
    positions: BTreeMap<String, Position>,
    last: Option<BatchInfo>,
    begun: Option<(BatchInfo, BTreeMap<String, Position>)>,
    progress: Arc<Progress>,
    page: Option<Arc<Page>>,
    server: Option<PageServer>,
    late: Sometimes,
    rejected: Sometimes,
    too_late: Sometimes,
    ahead: Sometimes,
}

impl Engine {
    /// Plans a job and opens its checkpoint. With `once` it will end when all that is there has been worked on.
    pub async fn new(job: Job, once: bool) -> Result<Self, EngineError> {
        let mut plan = Plan::of(&job).await.map_err(EngineError::Job)?;
        let (store, resume) = Store::open(job.checkpoint.as_deref(), &identity(&job, &plan))?;
        for step in &mut plan.steps {
            if let Step::Table(table) = step {
                let mut saved = store.saved(&table.name)?;
                let name = table.name.clone();
                let restored = table.restore(&mut saved).await;
                restored.map_err(|error| EngineError::Sql { batch: 0, name, error })?;
            }
        }
        if let Some(last) = resume.last {
            info!("job {}: going on after batch {} of {}", job.name, last.number, time(last.time, &job));
        }
        let inlets = job.sources.iter().map(|source| Inlet::new(&source.name, source.config.build(&source.name, once)));
        let context = JobContext::of(&job);
        let outlets = job.sinks.iter().map(|sink| match sink.config.embedded() {
            Some(embedded) => Outlet::Embedded(embedded, false),
            None => Outlet::Outside(sink.config.build(&sink.name, &context), false),
        });
        let progress = Arc::default();
        let server = match &job.ui {
            Some(address) => Some(serve(address, Page::new(&job, Arc::clone(&progress))).await?),
            None => None,
        };
        Ok(Self {
            outlets: outlets.collect(),
            once,
            plan,
            inlets: inlets.collect(),
            store,
            positions: resume.positions,
            last: resume.last,
            begun: resume.begun,
            progress,
            page: server.as_ref().map(PageServer::page),
            server,
            late: Sometimes::default(),
            rejected: Sometimes::default(),
            too_late: Sometimes::default(),
            ahead: Sometimes::default(),
            job,
        })
    }

    /// How it gets on.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Where its page is, if it has one: `http://127.0.0.1:4040/`.
    pub fn page(&self) -> Option<String> {
        self.server.as_ref().map(PageServer::url)
    }

    /// Works until it is stopped; the batch in hand is finished. With `once`, until everything has been worked on.
    pub async fn run(mut self, stop: &CancellationToken) -> Result<(), EngineError> {
        let _server = self.server.take().map(|server| AbortOnDropHandle::new(tokio::spawn(server.run())));
        let stop = stop.child_token();
        let outcome = self.work(&stop).await;
        // Whatever went wrong, nobody waits for a source any more.
        stop.cancel();
        for inlet in &mut self.inlets {
            inlet.close().await;
        }
        outcome
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), EngineError> {
        for (index, inlet) in self.inlets.iter_mut().enumerate() {
            let from = self.positions.get(&self.job.sources[index].name);
            if inlet.open(from, stop).await.is_none() {
                return Ok(());
            }
        }
        if let Some((batch, positions)) = self.begun.take() {
            let Some(cuts) = self.cut_again(&positions, stop).await else { return Ok(()) };
            self.turn(batch, cuts, Instant::now(), stop).await?;
        }
        while !stop.is_cancelled() {
            let Some((due, time)) = self.wait(stop).await else { break };
            self.catch_up(time, stop).await?;
            if stop.is_cancelled() {
                break;
            }
            let batch = self.last.map_or_else(|| BatchInfo::first(time), |last| last.next(time));
            let ahead = Duration::from_millis(u64::try_from(batch.time - time).unwrap_or_default());
            if ahead > MOST_AHEAD && self.ahead.now() {
                warn!(
                    "the time of batch {} is {} s ahead of the clock, which was set back: until it has caught up, windows \
                     and keys that expire have to wait",
                    batch.number,
                    ahead.as_secs()
                );
            }
            let cuts = self.cut(stop).await;
            // Whether there is more is only known once everything was taken that there is.
            let is_last = self.once && self.inlets.iter().all(Inlet::is_exhausted);
            let is_empty = cuts.iter().flat_map(|cut| &cut.records).all(Records::is_empty);
            if !(is_last && is_empty && self.last.is_some()) {
                self.turn(batch, cuts, due, stop).await?;
            }
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Waits until the next batch is due. Gives that moment and the batch's time.
    async fn wait(&mut self, stop: &CancellationToken) -> Option<(Instant, i64)> {
        let now = clock();
        match self.job.batching {
            _ if self.once => {
                let going = self.inlets.iter_mut().filter(|inlet| !inlet.is_exhausted());
                let ready: Vec<_> = going.map(|inlet| Box::pin(inlet.ready())).collect();
                if !ready.is_empty() {
                    let any = select_all(ready);
                    stop.run_until_cancelled(tokio::time::timeout(HEARTBEAT, any)).await?.ok();
                }
                Some((Instant::now(), clock()))
            }
            Batching::Arrival => {
                let heartbeat = Instant::now() + HEARTBEAT;
                loop {
                    let any = select_all(self.inlets.iter_mut().map(|inlet| Box::pin(inlet.ready())));
                    let charts = self.page.as_ref().and_then(|page| Chart::next_due(&self.plan.charts, page));
                    let until = charts.map_or(heartbeat, |due| due.min(heartbeat));
                    let came = stop.run_until_cancelled(tokio::time::timeout_at(until.into(), any)).await?.is_ok();
                    if came || Instant::now() >= heartbeat {
                        return Some((Instant::now(), clock()));
                    }
                    // Charts that had to wait do not wait for the next rows as well.
                    self.publish(now, false).await;
                    self.progress.tell();
                }
            }
            Batching::Every(interval) => {
                let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
                let boundary = now - now.rem_euclid(interval);
                // One that is due already is not waited for; those that were missed meanwhile are one batch.
                if self.last.is_some_and(|last| last.time < boundary) {
                    let due = Instant::now().checked_sub(Duration::from_millis((now - boundary) as u64));
                    return Some((due.unwrap_or_else(Instant::now), boundary));
                }
                let next = boundary + interval;
                stop.run_until_cancelled(sleep(Duration::from_millis((next - now) as u64))).await?;
                Some((Instant::now(), next))
            }
        }
    }

    /// Shows windows that ended while no batch came: each with a batch at its end, which has no rows.
    async fn catch_up(&mut self, time: i64, stop: &CancellationToken) -> Result<(), EngineError> {
        let mut shown = 0;
        while !stop.is_cancelled()
            && let (Some(end), Some(last)) = (self.plan.missed(time), self.last)
        {
            shown += 1;
            let nothing = self.inlets.iter().map(|_| Cut::default()).collect();
            self.turn(last.next(end), nothing, Instant::now(), stop).await?;
        }
        if shown > 1 {
            info!("{shown} windows ended while no batch came, and are shown now");
        }
        Ok(())
    }

    /// What the sources have.
    async fn cut(&mut self, stop: &CancellationToken) -> Vec<Cut> {
        let mut cuts = Vec::with_capacity(self.inlets.len());
        for (index, inlet) in self.inlets.iter_mut().enumerate() {
            let from = self.positions.get(&self.job.sources[index].name);
            cuts.push(inlet.cut(self.job.max_rows, from, stop).await);
        }
        cuts
    }

    /// The records of a batch that was begun before a crash.
    async fn cut_again(&mut self, to: &BTreeMap<String, Position>, stop: &CancellationToken) -> Option<Vec<Cut>> {
        let mut cuts = Vec::with_capacity(self.inlets.len());
        for (index, inlet) in self.inlets.iter_mut().enumerate() {
            let name = &self.job.sources[index].name;
            cuts.push(match to.get(name) {
                Some(to) => inlet.again(self.positions.get(name), to, stop).await?,
                None => Cut::default(),
            });
        }
        Some(cuts)
    }

    /// Works on one batch.
    async fn turn(
        &mut self,
        batch: BatchInfo,
        cuts: Vec<Cut>,
        due: Instant,
        stop: &CancellationToken,
    ) -> Result<(), EngineError> {
        let began = Instant::now();
        let positions: BTreeMap<String, Position> = self
            .job
            .sources
            .iter()
            .zip(&cuts)
            .filter_map(|(source, cut)| Some((source.name.clone(), cut.position.clone()?)))
            .collect();
        let is_new = positions.iter().any(|(source, position)| self.positions.get(source) != Some(position));
        if is_new && !batch.again {
            let store = &mut self.store;
            tokio::task::block_in_place(|| store.begin(&batch, &positions))?;
        }
        let (rows, rejects) = self.take_in(&batch, cuts);
        self.progress.begun(&batch, rows);
        let _watch = self.watch(&batch, rows, stop);
        self.plan.sql.set_batch_time(batch.time);
        self.run_steps(&batch).await?;
        if self.write(&batch, stop).await?.is_none() {
            // It was stopped while a sink was down: nothing is committed, and the batch comes again.
            return Ok(());
        }
        self.commit(&batch, &positions).await?;
        self.positions.extend(positions);
        self.last = Some(BatchInfo { again: false, ..batch });
        for (index, inlet) in self.inlets.iter_mut().enumerate() {
            inlet.done(self.positions.get(&self.job.sources[index].name)).await;
        }
        let processing = began.elapsed();
        self.publish(batch.time, rows > 0).await;
        self.report(&batch, (rows, rejects), began.saturating_duration_since(due), processing);
        Ok(())
    }

    /// Has the log say when a batch takes very long, and when it keeps the job from its end.
    fn watch(&self, batch: &BatchInfo, rows: u64, stop: &CancellationToken) -> AbortOnDropHandle<()> {
        let interval = match self.job.batching {
            Batching::Every(interval) => interval,
            Batching::Arrival => HEARTBEAT,
        };
        let (times, least) = LONG_BATCH;
        let (number, stop, long) = (batch.number, stop.clone(), interval.saturating_mul(times).max(least));
        AbortOnDropHandle::new(tokio::spawn(async move {
            if stop.run_until_cancelled(sleep(long)).await.is_some() {
                warn!("batch {number} of {rows} rows has been worked on for {} s, and is not done", long.as_secs());
                stop.cancelled().await;
            }
            sleep(PATIENCE).await;
            info!("the job ends when batch {number} is done; a second signal ends it at once");
        }))
    }

    /// Makes rows of the records. Gives how many there are, and how many did not fit.
    fn take_in(&mut self, batch: &BatchInfo, cuts: Vec<Cut>) -> (u64, u64) {
        // The batch before is let go first, so that there is never more than one in memory.
        for relations in &self.plan.sources {
            relations.rows.set(Vec::new());
        }
        for step in &self.plan.steps {
            if let Step::View { rows, .. } = step {
                rows.set(Vec::new());
            }
        }
        let (mut count, mut rejected) = (0, 0);
        for ((source, relations), cut) in self.job.sources.iter().zip(&self.plan.sources).zip(cuts) {
            let (mut rows, mut rejects) = (Vec::with_capacity(cut.records.len()), Vec::new());
            for records in cut.records {
                let (right, wrong) = source.reader.rows(records);
                count += right.num_rows() as u64;
                rows.extend(Some(right).filter(|rows| rows.num_rows() > 0));
                rejects.extend(wrong);
            }
            rejected += rejects.len() as u64;
            self.progress.rejected(batch, &source.name, &rejects);
            if let Some(first) = rejects.first()
                && self.rejected.now()
            {
                let record = String::from_utf8_lossy(&first.record[..first.record.len().min(200)]).into_owned();
                warn!(
                    "source {}: {} records of batch {} do not fit, as {record:?}: {}",
                    source.name,
                    rejects.len(),
                    batch.number,
                    first.reason
                );
            }
            relations.rows.set(rows);
            relations.rejects.set(reject_rows(batch, &rejects));
        }
        (count, rejected)
    }

    async fn run_steps(&mut self, batch: &BatchInfo) -> Result<(), EngineError> {
        for step in &mut self.plan.steps {
            let (name, outcome) = match step {
                Step::View { name, query, rows, spent } => {
                    let found = query.run().await;
                    spent.iter().for_each(|rows| rows.set(Vec::new()));
                    (name.clone(), found.map(|found| rows.set(found)))
                }
                Step::Table(table) => (table.name.clone(), table.turn(batch).await),
            };
            outcome.map_err(|error| EngineError::Sql { batch: batch.number, name, error })?;
            if let Step::Table(table) = step
                && table.late_rows > 0
                && self.too_late.now()
            {
                warn!(
                    "table {}: {} rows of batch {} come after their windows were closed",
                    table.name, table.late_rows, batch.number
                );
            }
        }
        Ok(())
    }

    /// What a sink gets of this batch; nothing when there is nothing to say.
    async fn feed(&mut self, index: usize, batch: &BatchInfo) -> Result<Option<Vec<RecordBatch>>, EngineError> {
        let (steps, voices) = (&self.plan.steps, &self.plan.voices[index]);
        let table = |step: &usize| match &steps[*step] {
            Step::Table(table) => table,
            Step::View { .. } => unreachable!("only tables are named by their step"),
        };
        if !voices.is_empty() && voices.iter().all(|step| table(step).changed.is_none()) {
            return Ok(None);
        }
        let query = match &self.plan.feeds[index].0 {
            Feed::Rows(rows) => return Ok(Some(rows.rows())),
            Feed::Changed(step) => return Ok(table(step).changed.clone()),
            Feed::All(step) => return Ok(table(step).changed.as_ref().map(|_| table(step).all.rows())),
            Feed::Query(query) => query.clone(),
        };
        let name = &self.job.sinks[index].name;
        let failed = |error| EngineError::Sql { batch: batch.number, name: name.clone(), error };
        query.run().await.map(Some).map_err(failed)
    }

    /// Has the sinks outside write. Nothing when the job is stopped while one is down.
    async fn write(&mut self, batch: &BatchInfo, stop: &CancellationToken) -> Result<Option<()>, EngineError> {
        for index in 0..self.outlets.len() {
            if matches!(self.outlets[index], Outlet::Embedded(..)) {
                continue;
            }
            let Some(rows) = self.feed(index, batch).await? else { continue };
            let (schema, name) = (&self.plan.feeds[index].1, &self.job.sinks[index].name);
            let Outlet::Outside(sink, is_open) = &mut self.outlets[index] else { continue };
            if rows.iter().all(|rows| rows.num_rows() == 0) && !sink.wants_empty_batches() {
                continue;
            }
            let mut wait = Wait::default();
            loop {
                let attempt = async {
                    if !*is_open {
                        sink.open(schema).await?;
                        *is_open = true;
                    }
                    sink.write(batch, &rows).await
                };
                // A stop lets a write that is under way come to its end, unless it has failed before.
                let outcome = if wait.failed() {
                    let Some(outcome) = stop.run_until_cancelled(attempt).await else { return Ok(None) };
                    outcome
                } else {
                    attempt.await
                };
                match outcome {
                    Ok(()) => break,
                    Err(error) if error.is_last() => return Err(EngineError::Sink { name: name.clone(), error }),
                    Err(why) => wait.complain(&format!("sink {name}: {why}; batch {} waits", batch.number)),
                }
                *is_open = false;
                if wait.pause(stop).await.is_none() {
                    return Ok(None);
                }
            }
            wait.over(&format!("sink {name}"));
        }
        Ok(Some(()))
    }

    /// Commits states, positions and embedded results.
    async fn commit(&mut self, batch: &BatchInfo, positions: &BTreeMap<String, Position>) -> Result<(), EngineError> {
        let mut results = Vec::new();
        for index in 0..self.outlets.len() {
            if let Outlet::Embedded(..) = self.outlets[index]
                && let Some(rows) = self.feed(index, batch).await?
            {
                results.push((index, rows));
            }
        }
        let Self { job, store, plan, outlets, .. } = self;
        tokio::task::block_in_place(|| {
            store.commit(batch, positions, |transaction| {
                for step in &mut plan.steps {
                    if let Step::Table(table) = step {
                        let mut saved = Saved::new(transaction, &table.name)?;
                        table.save(&mut saved)?;
                    }
                }
                for (index, rows) in &results {
                    let Outlet::Embedded(table, made) = &mut outlets[*index] else { continue };
                    let sink = &job.sinks[*index];
                    if !*made {
                        let fitted = embedded::fit(transaction, table, &plan.feeds[*index].1)?;
                        let failed = |why| EngineError::Sink { name: sink.name.clone(), error: SinkError::last(why) };
                        fitted.map_err(failed)?;
                    }
                    *made = true;
                    if sink.mode == Mode::All && sink.config.removes() {
                        embedded::clear(transaction, table)?;
                    }
                    embedded::write(transaction, table, rows)?;
                }
                Ok(())
            })
        })
    }

    /// Works the page's charts out, if there is a page.
    async fn publish(&mut self, time: i64, has_rows: bool) {
        if let Some(page) = &self.page {
            let Plan { charts, steps, .. } = &mut self.plan;
            Chart::publish(charts, steps, page, time, has_rows).await;
        }
    }

    fn report(&mut self, batch: &BatchInfo, (rows, rejects): (u64, u64), delay: Duration, processing: Duration) {
        let is_late = match self.job.batching {
            Batching::Every(interval) if !self.once => processing > interval,
            _ => false,
        };
        if is_late && self.late.now() {
            warn!(
                "batch {} took {:.3} s, longer than the interval between batches; those that were missed meanwhile are one",
                batch.number,
                processing.as_secs_f64()
            );
        }
        let report = Report {
            number: batch.number,
            time: batch.time,
            rows,
            rejects,
            late_rows: self.plan.steps.iter().map(Step::late_rows).sum(),
            scheduling_delay: seconds(delay),
            processing_time: seconds(processing),
            is_late,
        };
        let tables = self.plan.steps.iter().filter_map(|step| match step {
            Step::Table(table) => Some(TableSize { name: table.name.clone(), keys: table.keys() }),
            Step::View { .. } => None,
        });
        self.progress.done(report, tables.collect());
    }
}

async fn serve(address: &str, page: Page) -> Result<PageServer, EngineError> {
    let bound = PageServer::bind(address, page).await;
    let server = bound.map_err(|error| EngineError::Page(address.to_owned(), error))?;
    info!("page: {}", server.url());
    Ok(server)
}

/// What must be the same for a checkpoint to be this job's.
fn identity(job: &Job, plan: &Plan) -> String {
    let sources = job.sources.iter().map(|source| format!("{} {}", source.kind, source.name));
    let tables = job.tables.iter().map(crate::table::TableSpec::identity);
    // States are bytes, which mean something else when a column that a view makes is of another type.
    let states = plan.steps.iter().filter_map(|step| match step {
        Step::Table(table) => {
            let types = table.parts().state_schema().fields().iter().map(|field| field.data_type().to_string());
            Some(format!("{}: {}", table.name, types.collect::<Vec<_>>().join(", ")))
        }
        Step::View { .. } => None,
    });
    let mut all: Vec<String> = sources.chain(tables).chain(states).collect();
    // Their order in the file means nothing.
    all.sort();
    all.join("\n")
}

fn reject_rows(batch: &BatchInfo, rejects: &[Reject]) -> Vec<RecordBatch> {
    if rejects.is_empty() {
        return Vec::new();
    }
    let times = TimestampMillisecondArray::from_value(batch.time, rejects.len());
    let reasons = StringArray::from_iter_values(rejects.iter().map(|reject| &reject.reason));
    let records = StringArray::from_iter_values(rejects.iter().map(|reject| String::from_utf8_lossy(&reject.record)));
    let rows = RecordBatch::try_new(reject_schema(), vec![Arc::new(times), Arc::new(reasons), Arc::new(records)]);
    vec![rows.expect("the columns are as the schema says")]
}

/// Milliseconds since 1970.
fn clock() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn time(millis: i64, job: &Job) -> String {
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    time.to_zoned(job.time_zone.clone()).strftime("%F %T").to_string()
}
