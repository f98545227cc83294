//! Sources that are pieces of Rust, and what a job does when one of them fails.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::AsArray as _;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use flume_rs_stream::engine::Engine;
use flume_rs_stream::format::Records;
use flume_rs_stream::job::Job;
use flume_rs_stream::sink::Mode;
use flume_rs_stream::source::{Cut, Position, Source, SourceConfig, SourceError};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{DEADLINE, eventually};

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    is_down: bool,
    /// How often it was tried while it was down.
    failures: usize,
}

/// Lines that the test puts there, unless they are down.
#[derive(Clone, Debug, Default)]
struct Lines {
    state: Arc<Mutex<State>>,
    came: Arc<Notify>,
}

impl Lines {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &str) {
        self.state().lines.push_back(line.to_owned());
        self.came.notify_one();
    }

    fn up(&self) -> Result<MutexGuard<'_, State>, SourceError> {
        let mut state = self.state();
        if state.is_down {
            state.failures += 1;
            return Err(SourceError::new("it is down"));
        }
        Ok(state)
    }
}

impl SourceConfig for Lines {
    fn build(&self, _: &str, _: bool) -> Box<dyn Source> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Source for Lines {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), SourceError> {
        self.up().map(drop)
    }

    async fn ready(&mut self) {
        while self.state().lines.is_empty() {
            self.came.notified().await;
        }
    }

    async fn cut(&mut self, _: usize) -> Result<Cut, SourceError> {
        let mut records = Records::default();
        self.up()?.lines.drain(..).for_each(|line| records.push(line.as_bytes()));
        Ok(Cut { records: vec![records], position: None })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_is_opened_anew_and_the_others_go_on_meanwhile() {
    let text = "batch = \"arrival\"\n[view.both]\nsql = \"select value from one union all select value from other\"\n";
    let mut job = Job::parse("job.toml".as_ref(), text.to_owned()).expect("it is a job");
    let (one, other) = (Lines::default(), Lines::default());
    job.add_source("one", one.clone());
    job.add_source("other", other.clone());
    let (seen, mut came) = tokio::sync::mpsc::unbounded_channel();
    job.for_each_batch("both", Mode::All, move |_, rows| {
        let seen = seen.clone();
        async move {
            for rows in rows.collect().await? {
                let lines = cast(rows.column(0), &DataType::Utf8)?;
                for line in lines.as_string::<i32>().iter().flatten() {
                    seen.send(line.to_owned()).map_err(|error| DataFusionError::External(Box::new(error)))?;
                }
            }
            Ok::<(), DataFusionError>(())
        }
    });
    let stop = CancellationToken::new();
    let engine = Engine::new(job, false).await.expect("it can be planned");
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { engine.run(&stop).await }
    });
    let mut next = async || timeout(DEADLINE, came.recv()).await.expect("it comes").expect("the job runs");
    one.put("1");
    assert_eq!(next().await, "1");
    one.state().is_down = true;
    one.put("two");
    for failures in [0, 1, 3] {
        let failed = tokio::task::block_in_place(|| eventually(|| (one.state().failures >= failures).then_some(())));
        assert!(failed.is_some(), "it is tried again");
        other.put(&failures.to_string());
        assert_eq!(next().await, failures.to_string());
    }
    one.state().is_down = false;
    assert_eq!(next().await, "two", "nothing is lost, and nobody has to wake it");
    one.state().is_down = true;
    one.put("3");
    other.put("d");
    assert_eq!(next().await, "d");
    stop.cancel();
    let ended = timeout(DEADLINE, running).await.expect("one that is down does not hold up the end");
    ended.expect("it does not panic").expect("it ends well");
}
