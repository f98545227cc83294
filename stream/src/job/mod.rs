//! The job file.
//!
//! ```toml
//! name = "product-clicks"        # default: the file's name
//! batch = "1s"                   # or "arrival": as soon as there are rows
//! max-rows = 1000000             # the most rows of one source in a batch
//! checkpoint = "checkpoints"     # without it, state ends with the process
//! time-zone = "Asia/Shanghai"    # default: the machine's
//! country-database = "ip.mmdb"   # for the function country(address)
//! ui = "127.0.0.1:4040"          # the page; without it there is none
//!
//! [source.logs]                  # rows; its columns are the format's, see `source` and `format`
//! type = "socket"
//! connect = "localhost:9999"
//! format = "delimited"
//! columns = ["ip text", "time text", "url text"]
//!
//! [view.clean]                   # SQL over each batch
//! sql = "select ip, url from logs where url like '/product/%'"
//!
//! [table.clicks]                 # SQL whose result lives on, see `table`
//! sql = "select url, count(*) as clicks from clean group by url"
//!
//! [sink.screen]                  # see `sink`
//! type = "print"
//! from = "clicks"
//!
//! [chart.products]               # a live chart on the page, see `page`
//! kind = "top"
//! from = "clicks"
//! ```
//!
//! Views, tables, sinks and charts may read sources, views and tables by name, wherever they stand in the file.

pub mod keys;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use keys::{JobError, Keys, Text};

use crate::page::ChartSpec;
use crate::sink::SinkSpec;
use crate::source::SourceSpec;
use crate::table::TableSpec;

/// When a batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// Again and again after this time.
    Every(Duration),
    /// As soon as there are rows.
    Arrival,
}

/// SQL over each batch.
#[derive(Debug)]
pub struct ViewSpec {
    /// Its name.
    pub name: String,
    /// The SQL.
    pub sql: String,
    /// Where it stands in the file.
    pub place: Range<usize>,
}

/// A job, read and found well-formed; whether its SQL can be planned is for [`Plan`](crate::sql::Plan) to find.
#[derive(Debug)]
pub struct Job {
    /// The file.
    pub text: Arc<Text>,
    /// What it is called.
    pub name: String,
    /// When a batch begins.
    pub batching: Batching,
    /// The most rows of one source in a batch.
    pub max_rows: usize,
    /// The folder that keeps the state.
    pub checkpoint: Option<PathBuf>,
    /// The zone of times that are shown and of local times that are read.
    pub time_zone: jiff::tz::TimeZone,
    /// What knows the countries of IP addresses: a file in MaxMind's format.
    pub country_database: Option<PathBuf>,
    /// Where the page is, `host:port`.
    pub ui: Option<String>,
    /// Where rows come from.
    pub sources: Vec<SourceSpec>,
    /// SQL over each batch.
    pub views: Vec<ViewSpec>,
    /// SQL whose results live on.
    pub tables: Vec<TableSpec>,
    /// Where results go.
    pub sinks: Vec<SinkSpec>,
    /// What the page shows of results.
    pub charts: Vec<ChartSpec>,
}

/// The most rows of one source in a batch, unless the job says otherwise.
const MAX_ROWS: usize = 1_000_000;

impl Job {
    /// Reads a job file. All mistakes that can be found at once are.
    pub fn read(path: &Path) -> Result<Self, Vec<JobError>> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot be read: {error}");
            vec![JobError { path: path.to_owned(), line: 1, message }]
        })?;
        Self::parse(path, text)
    }

    /// Reads the text of a job file.
    pub fn parse(path: &Path, text: String) -> Result<Self, Vec<JobError>> {
        let text = Arc::new(Text::new(path, text));
        let mut errors = Vec::new();
        match Self::of(&text, &mut errors) {
            Some(job) if errors.is_empty() => Ok(job),
            _ => Err(errors),
        }
    }

    fn of(text: &Arc<Text>, errors: &mut Vec<JobError>) -> Option<Self> {
        let mut keys = Keys::of_file(text).map_err(|error| errors.push(error)).ok()?;
        let stem = || text.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let mut all = |keys: &mut Keys<'_>| -> Result<Self, JobError> {
            let batch: Option<String> = keys.take("batch")?;
            let batching = match batch.as_deref() {
                None => Batching::Every(Duration::from_secs(1)),
                Some("arrival") => Batching::Arrival,
                Some(span) => Batching::Every(
                    keys::parse_duration(span).map_err(|why| keys.error(format!("`batch`: {why}, or \"arrival\"")))?,
                ),
            };
            let zone: Option<String> = keys.take("time-zone")?;
            let time_zone = match zone {
                None => jiff::tz::TimeZone::system(),
                Some(name) => jiff::tz::TimeZone::get(&name).map_err(|_| {
                    keys.error(format!("`time-zone`: `{name}` is no time zone, as Europe/Paris is one"))
                })?,
            };
            let folder = text.path().parent().unwrap_or(Path::new(""));
            Ok(Self {
                text: Arc::clone(text),
                name: keys.take("name")?.or_else(stem).unwrap_or_else(|| "job".to_owned()),
                batching,
                max_rows: keys.take::<NonZeroUsize>("max-rows")?.map_or(MAX_ROWS, NonZeroUsize::get),
                checkpoint: keys.take::<PathBuf>("checkpoint")?.map(|path| folder.join(path)),
                time_zone,
                country_database: keys.take::<PathBuf>("country-database")?.map(|path| folder.join(path)),
                ui: keys.take("ui")?,
                sources: each(keys.tables("source")?, errors, SourceSpec::read),
                views: each(keys.tables("view")?, errors, ViewSpec::read),
                tables: each(keys.tables("table")?, errors, TableSpec::read),
                sinks: each(keys.tables("sink")?, errors, SinkSpec::read),
                charts: each(keys.tables("chart")?, errors, ChartSpec::read),
            })
        };
        let job = all(&mut keys).map_err(|error| errors.push(error)).ok()?;
        names_are_unique(&job, errors);
        for table in &job.tables {
            if let Err(why) = table.check(job.batching) {
                errors.push(text.error(&table.place, format!("[table.{}] {why}", table.name)));
            }
        }
        if let Err(error) = keys.read::<Nothing>() {
            errors.push(error);
        }
        Some(job)
    }
}

/// What is left of a file once everything known is taken out; the names are for the suggestions.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(dead_code, reason = "it only names what a file may hold")]
struct Nothing {
    name: Option<()>,
    batch: Option<()>,
    max_rows: Option<()>,
    checkpoint: Option<()>,
    time_zone: Option<()>,
    country_database: Option<()>,
    ui: Option<()>,
    source: Option<()>,
    view: Option<()>,
    table: Option<()>,
    sink: Option<()>,
    chart: Option<()>,
}

fn each<T>(
    tables: Vec<Keys<'_>>,
    errors: &mut Vec<JobError>,
    read: impl Fn(Keys<'_>) -> Result<T, JobError>,
) -> Vec<T> {
    tables.into_iter().filter_map(|keys| read(keys).map_err(|error| errors.push(error)).ok()).collect()
}

/// Sources, views and tables are all names for SQL.
fn names_are_unique(job: &Job, errors: &mut Vec<JobError>) {
    let sources = job.sources.iter().map(|one| (&one.name, &one.place));
    let views = job.views.iter().map(|one| (&one.name, &one.place));
    let tables = job.tables.iter().map(|one| (&one.name, &one.place));
    // These are there without being named.
    let rejects = job.sources.iter().map(|one| format!("{}_rejects", one.name));
    let late = job.tables.iter().map(|one| format!("{}_late", one.name));
    let mut seen: std::collections::BTreeSet<String> = rejects.chain(late).collect();
    for (name, place) in sources.chain(views).chain(tables) {
        // SQL makes names lower case unless they are quoted.
        let is_fit = |c: char| c == '_' || c.is_alphanumeric() && !c.is_uppercase();
        if !name.chars().all(is_fit) || name.starts_with(|c: char| c.is_ascii_digit()) {
            let expected = "a name for SQL has lower-case letters, digits and _, and does not begin with a digit";
            errors.push(job.text.error(place, format!("`{name}`: {expected}")));
        } else if !seen.insert(name.clone()) {
            errors.push(job.text.error(place, format!("the name `{name}` is given twice")));
        }
    }
}

impl ViewSpec {
    fn read(mut keys: Keys<'_>) -> Result<Self, JobError> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Only {
            #[expect(dead_code, reason = "it is taken before, and named for the suggestion")]
            sql: Option<String>,
        }
        let (name, place) = (keys.name().to_owned(), keys.place());
        let sql = keys.need("sql", "a SELECT")?;
        keys.read::<Only>()?;
        Ok(Self { name, sql, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Job, Vec<JobError>> {
        Job::parse(Path::new("dir/clicks.toml"), text.to_owned())
    }

    const SOURCE: &str = "[source.lines]\ntype = \"socket\"\nconnect = \"localhost:9999\"\n";

    #[test]
    fn defaults() {
        let job = parse(&format!("checkpoint = \"kept\"\n{SOURCE}")).expect("it is a job");
        assert_eq!(job.name, "clicks");
        assert_eq!(job.batching, Batching::Every(Duration::from_secs(1)));
        assert_eq!(job.checkpoint, Some(PathBuf::from("dir/kept")));
    }

    #[test]
    fn all_mistakes_are_found_at_once() {
        let text = format!("bach = 1\n{SOURCE}[view.a]\nsql = 1\n[table.b]\nsqll = \"\"\n[sink.c]\ntype = \"prnt\"\n");
        let errors = parse(&text).expect_err("there are mistakes");
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [6, 8, 9, 1], "{errors:?}");
        assert!(errors[2].message.contains("did you mean `print`?"), "{errors:?}");
    }

    #[test]
    fn names_are_those_that_sql_reads() {
        for name in ["Lines", "my-lines", "\"a.b\"", "1st"] {
            let errors = parse(&SOURCE.replace("lines", name)).expect_err(name);
            assert!(errors[0].message.contains("a name for SQL has lower-case letters"), "{errors:?}");
        }
        assert!(parse(&SOURCE.replace("lines", "zeilen_2")).is_ok());
    }

    #[test]
    fn names_are_given_once() {
        let errors = parse(&format!("{SOURCE}[view.lines]\nsql = \"select 1\"\n")).expect_err("it is there twice");
        assert_eq!(errors[0].to_string(), "dir/clicks.toml:4: the name `lines` is given twice");
    }

    #[test]
    fn what_would_never_get_on_is_a_mistake() {
        for wrong in ["max-line = 0", "max-line = 268435457", "max-line = -1"] {
            let errors = parse(&format!("{SOURCE}{wrong}\n")).expect_err(wrong);
            assert_eq!((errors.len(), errors[0].line), (1, 4), "{errors:?}");
        }
        assert!(parse(&format!("max-rows = 0\n{SOURCE}")).is_err());
        assert!(parse(&format!("max-rows = 1\n{SOURCE}max-line = 1\n")).is_ok());
    }
}
