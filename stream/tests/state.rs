//! State through crashes, at every step of a batch: the engine is dropped there as a process that is killed, and begun
//! anew. Its source can give its records again, as a topic can.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{Int64Type, SchemaRef};
use flume_rs_stream::batch::BatchInfo;
use flume_rs_stream::engine::Engine;
use flume_rs_stream::format::Records;
use flume_rs_stream::job::Job;
use flume_rs_stream::sink::{JobContext, Sink, SinkConfig, SinkError};
use flume_rs_stream::source::{Cut, Position, Source, SourceConfig, SourceError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::directory;

/// Where a process may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Before it is noted which records the batch has.
    Cut,
    /// When the batch is worked out, and an outer sink is about to take it.
    Write,
    /// When the sink has taken it, before it is committed.
    Written,
    /// After that.
    Done,
}

/// Kills the process at a step of a batch.
#[derive(Debug, Default)]
struct Killer {
    at: Option<(u64, Step)>,
    killed: Notify,
}

impl Killer {
    async fn reach(&self, batch: u64, step: Step) {
        if self.at == Some((batch, step)) {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

const BATCHES: [&[&str]; 5] = [
    &["a,2024-05-30 12:00:05", "b,2024-05-30 12:00:20", "a,2024-05-30 12:00:50"],
    &["a,2024-05-30 12:01:10"],
    &["b,2024-05-30 12:01:40", "c,2024-05-30 12:00:10"],
    &["c,2024-05-30 12:02:05", "c,2024-05-30 12:02:15"],
    &["a,2024-05-30 12:09:00"],
];

/// Gives the batches one after the other; its position is how many it has given.
#[derive(Clone, Debug)]
struct Replay {
    killer: Arc<Killer>,
    next: usize,
}

impl Replay {
    fn records(from: usize, to: usize) -> Cut {
        let mut records = Records::default();
        BATCHES[from..to].iter().flat_map(|batch| *batch).for_each(|line| records.push(line.as_bytes()));
        Cut { records: vec![records], position: Some(to.into()) }
    }
}

fn given(position: Option<&Position>) -> usize {
    position.and_then(Position::as_u64).map_or(0, |given| given as usize)
}

impl SourceConfig for Replay {
    fn build(&self, _: &str, _: bool) -> Box<dyn Source> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Source for Replay {
    async fn open(&mut self, from: Option<&Position>) -> Result<(), SourceError> {
        self.next = given(from);
        Ok(())
    }

    async fn ready(&mut self) {}

    async fn cut(&mut self, _: usize) -> Result<Cut, SourceError> {
        self.killer.reach(self.next as u64 + 1, Step::Cut).await;
        let from = self.next;
        self.next = BATCHES.len().min(from + 1);
        Ok(Self::records(from, self.next))
    }

    async fn again(&mut self, from: Option<&Position>, to: &Position) -> Result<Cut, SourceError> {
        self.next = given(Some(to));
        Ok(Self::records(given(from), self.next))
    }

    async fn done(&mut self, position: Option<&Position>) -> Result<(), SourceError> {
        self.killer.reach(given(position) as u64, Step::Done).await;
        Ok(())
    }

    fn is_exhausted(&self) -> bool {
        self.next == BATCHES.len()
    }
}

/// What an outer sink was given: by batch, the changed counts.
type Taken = Arc<Mutex<BTreeMap<u64, BTreeMap<String, i64>>>>;

#[derive(Clone, Debug)]
struct Outer {
    killer: Arc<Killer>,
    taken: Taken,
}

impl SinkConfig for Outer {
    fn build(&self, _: &str, _: &JobContext) -> Box<dyn Sink> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Sink for Outer {
    async fn open(&mut self, _: &SchemaRef) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&mut self, batch: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError> {
        self.killer.reach(batch.number, Step::Write).await;
        let counts = rows.iter().flat_map(|rows| {
            let (words, counts) = (rows.column(0).as_string_view(), rows.column(1).as_primitive::<Int64Type>());
            words
                .iter()
                .zip(counts.values())
                .map(|(word, n)| (word.unwrap_or_default().to_owned(), *n))
                .collect::<Vec<_>>()
        });
        let counts = counts.collect();
        let before = self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(batch.number, counts);
        assert!(before.is_none() || batch.again, "batch {} came twice", batch.number);
        self.killer.reach(batch.number, Step::Written).await;
        Ok(())
    }
}

const JOB: &str = r#"
batch = "arrival"
checkpoint = "state"
time-zone = "UTC"
[source.rows]
type = "socket"
connect = "localhost:9"
format = "delimited"
delimiter = ","
columns = ["word text", "at timestamp"]
[table.counts]
sql = "select word, count(*) as n from rows group by word"
[table.minutes]
sql = "select word, window_end, count(*) as n from rows group by word, window_end"
time = "at"
over = "rows"
window = "1m"
delay = "30s"
emit = "final"
[sink.outer]
type = "print"
mode = "changed"
from = "counts"
[sink.counts]
type = "sqlite"
from = "counts"
table = "counts"
key = ["word"]
[sink.minutes]
type = "sqlite"
from = "minutes"
table = "minutes"
[sink.late]
type = "sqlite"
from = "minutes_late"
table = "late"
"#;

/// Runs the job until it has worked on all batches, or is killed.
async fn run(home: &Path, at: Option<(u64, Step)>, taken: &Taken) {
    let killer = Arc::new(Killer { at, killed: Notify::new() });
    let mut job = Job::parse(&home.join("job.toml"), JOB.to_owned()).expect("it is a job");
    job.sources[0].config = Box::new(Replay { killer: Arc::clone(&killer), next: 0 });
    job.sinks[0].config = Box::new(Outer { killer: Arc::clone(&killer), taken: Arc::clone(taken) });
    let engine = Engine::new(job, true).await.expect("it is right");
    let stop = CancellationToken::new();
    tokio::select! {
        outcome = engine.run(&stop) => {
            outcome.expect("it works");
            assert_eq!(at, None, "it was not killed");
        }
        () = killer.killed.notified() => {}
    }
}

fn rows(home: &Path, sql: &str) -> Vec<String> {
    let database = rusqlite::Connection::open(home.join("state/job.db")).expect("it is there");
    let mut select = database.prepare(sql).expect("it is right");
    let rows = select.query_map([], |row| row.get(0)).expect("it can be read");
    rows.collect::<Result<_, _>>().expect("they are texts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_changes_no_result() {
    let batches = 1..=BATCHES.len() as u64;
    let steps = [Step::Cut, Step::Write, Step::Written, Step::Done];
    let points = batches.flat_map(|batch| steps.map(|step| Some((batch, step))));
    for point in std::iter::once(None).chain(points) {
        let (home, taken) = (directory(), Taken::default());
        if point.is_some() {
            run(home.path(), point, &taken).await;
            if let Some((_, Step::Write | Step::Written)) = point {
                // A process that is killed where it was killed before.
                run(home.path(), point, &taken).await;
            }
        }
        run(home.path(), None, &taken).await;
        let counts = rows(home.path(), "select word || ' ' || n from counts order by 1");
        assert_eq!(counts, ["a 4", "b 2", "c 3"], "{point:?}");
        let minutes = "select word || ' ' || substr(window_end, 12, 5) || ' ' || n from minutes order by rowid, 1";
        let mut minutes = rows(home.path(), minutes);
        minutes.sort();
        assert_eq!(
            minutes,
            ["a 12:01 2", "a 12:02 1", "b 12:01 1", "b 12:02 1", "c 12:01 1", "c 12:03 2"],
            "{point:?}"
        );
        assert_eq!(rows(home.path(), "select word from late"), [] as [&str; 0], "{point:?}");
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = BTreeMap::new();
        taken.values().for_each(|counts| last.extend(counts.clone()));
        let expected = BTreeMap::from([("a", 4), ("b", 2), ("c", 3)].map(|(word, n)| (word.to_owned(), n)));
        assert_eq!(last, expected, "{point:?}");
        assert_eq!(taken.len(), BATCHES.len(), "{point:?}");
    }
}
