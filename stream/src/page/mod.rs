//! The page: how the job gets on, and live charts of what it finds, in a browser.
//!
//! It is there when the job has a `ui`, or `run --ui HOST:PORT` is given. Everything it needs is within the program.
//! There is no log-in: who can reach the address can read, and change nothing. On an address of this machine alone it answers
//! to `localhost`, IP addresses and the host that `ui` names, so that no page elsewhere can lead a browser to it.
//!
//! | path | gives |
//! |---|---|
//! | `/` | the page |
//! | `/api/job` | what the job consists of, and the last state |
//! | `/api/batches?since=N` | the batches from number N on, the last 1,000 at most |
//! | `/api/charts` | what the charts show |
//! | `/api/events` | all of it as server-sent events, again after each batch |
//!
//! A chart, `[chart.NAME]`:
//!
//! | key | default | what |
//! |---|---|---|
//! | `kind` | | `bar`: columns; `top`: the rows with the greatest `y`; `line`: `y` over the time of the batches; `countries`: as `top`, with the flags and names of the countries whose ISO 3166 codes are `x` |
//! | `from` | | a source, view or table by name; or `sql`, a SELECT |
//! | `title` | the chart's name | what stands above it |
//! | `x` | the first column | what tells bars or lines apart. A line without `x` is the sum of `y` over all rows |
//! | `y` | the last column | a number |
//! | `limit` | bar 30, top 10, countries 12, line 5 | the most bars (at most 1000) or lines (at most 8) |
//!
//! Columns stand in the order of a `sql`; those of a table in the order of `x`, the last ones.
//!
//! Charts are worked out after the commit, with a fifth of the job's time at most while somebody looks, and seldom
//! while nobody does. A client that is slow gets the newest state when it can take it, and misses those in between.

mod board;
mod chart;
mod server;

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Semaphore;

pub use board::{Board, Update};
pub use chart::{Chart, ChartSpec, Kind};
pub use server::PageServer;

use crate::job::{Batching, Job};
use crate::progress::{Progress, Report, State};

/// So many may follow the events.
const SEATS: usize = 32;

/// What the page shows.
#[derive(Debug)]
pub struct Page {
    about: About,
    progress: Arc<Progress>,
    board: Board,
    seats: Arc<Semaphore>,
}

/// What a job consists of.
#[derive(Clone, Debug, Serialize)]
struct About {
    name: String,
    version: &'static str,
    batch: String,
    /// The interval between batches in seconds; none when they begin with arrivals.
    interval: Option<f64>,
    time_zone: Option<String>,
    checkpoint: Option<String>,
    started: i64,
    sources: Vec<Part>,
    sinks: Vec<Part>,
    charts: Vec<ChartPart>,
}

#[derive(Clone, Debug, Serialize)]
struct Part {
    name: String,
    kind: String,
}

#[derive(Clone, Debug, Serialize)]
struct ChartPart {
    name: String,
    title: String,
    kind: Kind,
}

/// What has changed since a client last heard.
#[derive(Debug, Serialize)]
struct News {
    #[serde(flatten)]
    state: State,
    batches: Vec<Report>,
    charts: Vec<Update>,
}

/// How much a client knows.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Batches before this number.
    batch: u64,
    /// Charts up to this version.
    chart: u64,
    /// How many rejects there were.
    rejects: Option<u64>,
}

impl Page {
    /// The page of a job that starts now.
    pub fn new(job: &Job, progress: Arc<Progress>) -> Self {
        let (batch, interval) = match job.batching {
            Batching::Every(span) => (format!("every {span:?}"), Some(span.as_secs_f64())),
            Batching::Arrival => ("on arrival".to_owned(), None),
        };
        let charts = job.charts.iter();
        let charts: Vec<ChartPart> = charts
            .map(|chart| ChartPart { name: chart.name.clone(), title: chart.title.clone(), kind: chart.kind })
            .collect();
        let part = |name: &str, kind: &str| Part { name: name.to_owned(), kind: kind.to_owned() };
        let about = About {
            name: job.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            batch,
            interval,
            time_zone: job.time_zone.iana_name().map(str::to_owned),
            checkpoint: job.checkpoint.as_ref().map(|folder| folder.display().to_string()),
            started: jiff::Timestamp::now().as_millisecond(),
            sources: job.sources.iter().map(|source| part(&source.name, &source.kind)).collect(),
            sinks: job.sinks.iter().map(|sink| part(&sink.name, &sink.kind)).collect(),
            charts,
        };
        let board = Board::new(job.charts.iter().map(|chart| (chart.name.clone(), chart.kind)));
        Self { about, progress, board, seats: Arc::new(Semaphore::new(SEATS)) }
    }

    /// What the charts show.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Whether somebody looks.
    pub fn is_watched(&self) -> bool {
        self.seats.available_permits() < SEATS
    }

    /// What a client does not know yet, which it knows then.
    fn news(&self, known: &mut Known) -> News {
        let mut state = self.progress.state();
        let batches = self.progress.since(known.batch);
        let (version, charts) = self.board.since(known.chart);
        if known.rejects == Some(state.totals.rejects) {
            state.rejects = None;
        }
        *known = Known {
            batch: batches.last().map_or(known.batch, |last| last.number + 1),
            chart: version,
            rejects: Some(state.totals.rejects),
        };
        News { state, batches, charts }
    }
}
