//! What running state costs: a batch that touches some of many keys, and a start with all of them.
//!
//! `cargo bench --profile stream -p flume-rs-stream --bench state [-- KEYS]`. Each size is measured in a process of its
//! own, so that the peak of its memory is known.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{Int64Array, RecordBatch, StringViewArray};
use flume_rs_stream::batch::BatchInfo;
use flume_rs_stream::job::Job;
use flume_rs_stream::sql::{Plan, Step};
use flume_rs_stream::store::{Saved, Store};
use flume_rs_stream::table::Table;

/// How many keys a batch touches.
const TOUCHED: usize = 10_000;
const ROUNDS: usize = 100;
/// Set for the process that measures.
const INNER: &str = "STATE_BENCH_KEYS";

const JOB: &str = r#"
batch = "arrival"
[source.rows]
type = "socket"
connect = "localhost:9"
format = "delimited"
columns = ["k text", "n bigint"]
[table.sums]
sql = "select k, count(*) as n, sum(n) as s from rows group by k"
"#;

fn table(plan: &mut Plan) -> &mut Table {
    let tables = plan.steps.iter_mut().filter_map(|step| match step {
        Step::Table(table) => Some(&mut **table),
        Step::View { .. } => None,
    });
    tables.last().expect("there is one")
}

/// A job with one table.
struct Bench {
    plan: Plan,
    store: Store,
    batch: Option<BatchInfo>,
}

impl Bench {
    async fn open(folder: &Path) -> Self {
        let job = Job::parse(Path::new("job.toml"), JOB.to_owned()).expect("it is a job");
        let mut plan = Plan::of(&job).await.unwrap_or_else(|errors| panic!("{}", errors[0]));
        let (store, resume) = Store::open(Some(folder), "bench").expect("it opens");
        let mut saved = store.saved("sums").expect("it can be read");
        table(&mut plan).restore(&mut saved).await.expect("it can be read");
        drop(saved);
        Self { plan, store, batch: resume.last }
    }

    /// Goes through a batch: how long its rows took, and how long its commit.
    async fn turn(&mut self, keys: impl Iterator<Item = usize>) -> (Duration, Duration) {
        let batch = self.batch.map_or_else(|| BatchInfo::first(1), |last| last.next(1));
        self.batch = Some(batch);
        let keys: Vec<usize> = keys.collect();
        let texts: StringViewArray = keys.iter().map(|key| Some(format!("20240530_{key:08}"))).collect();
        let numbers: Int64Array = keys.iter().map(|key| Some(*key as i64)).collect();
        let rows = RecordBatch::try_from_iter([("k", Arc::new(texts) as _), ("n", Arc::new(numbers) as _)]);
        self.plan.sources[0].rows.set(vec![rows.expect("they are as long")]);
        let began = Instant::now();
        table(&mut self.plan).turn(&batch).await.expect("it runs");
        let turned = began.elapsed();
        let (plan, store) = (&mut self.plan, &mut self.store);
        let commit = store.commit(&batch, &BTreeMap::new(), |db| table(plan).save(&mut Saved::new(db, "sums")?));
        commit.expect("it commits");
        (turned, began.elapsed() - turned)
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The middle and the longest.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    format!("{} median, {} longest", millis(times[times.len() / 2]), millis(times[times.len() - 1]))
}

async fn measure(keys: usize) {
    let folder = tempfile::tempdir().expect("there is a folder");
    let mut bench = Bench::open(folder.path()).await;
    for start in (0..keys).step_by(50_000) {
        bench.turn(start..keys.min(start + 50_000)).await;
    }
    let (mut turns, mut commits, mut random) = (Vec::new(), Vec::new(), fastrand::Rng::with_seed(1));
    for _ in 0..ROUNDS {
        let touched: Vec<usize> = (0..TOUCHED).map(|_| random.usize(..keys)).collect();
        let (turn, commit) = bench.turn(touched.into_iter()).await;
        turns.push(turn);
        commits.push(commit);
    }
    drop(bench);
    let began = Instant::now();
    let mut bench = Bench::open(folder.path()).await;
    let restart = began.elapsed();
    assert_eq!(table(&mut bench.plan).keys(), keys);
    let size = std::fs::metadata(folder.path().join("job.db")).map_or(0, |file| file.len());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim();
    println!("{keys} keys, batches that touch {TOUCHED}");
    println!("  rows to states   {}", summary(turns));
    println!("  commit           {}", summary(commits));
    println!("  restart          {}", millis(restart));
    println!("  peak memory      {peak}");
    println!("  database         {:.1} MB", size as f64 / 1e6);
}

fn main() {
    if let Some(keys) = std::env::var(INNER).ok().and_then(|keys| keys.parse().ok()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
        return runtime.block_on(measure(keys));
    }
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| argument.parse::<usize>().is_ok()).collect();
    let sizes = if chosen.is_empty() { vec!["100000".to_owned(), "1000000".to_owned()] } else { chosen };
    for keys in sizes {
        let this = std::env::current_exe().expect("a program knows itself");
        let status = Command::new(this).env(INNER, &keys).status().expect("it starts again");
        assert!(status.success(), "{keys} keys: {status}");
    }
}
