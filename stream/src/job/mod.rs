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

mod address;
pub mod keys;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use address::{Address, to_listen};
pub use keys::{JobError, Keys, Text};

use crate::page::ChartSpec;
use crate::sink::SinkSpec;
use crate::source::SourceSpec;
use crate::sql::Plan;
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

/// A job, read and found well-formed; whether its SQL can be planned is for [`Plan`] to find.
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
    /// Sources, views and tables that have mistakes, so that nothing can be said of what reads them.
    pub(crate) unread: BTreeSet<String>,
}

/// The most rows of one source in a batch, unless the job says otherwise.
const MAX_ROWS: usize = 1_000_000;

impl Job {
    /// Reads a job file. All mistakes that can be found at once are.
    pub fn read(path: &Path) -> Result<Self, Vec<JobError>> {
        Self::parse(path, text(path)?)
    }

    /// Reads the text of a job file.
    pub fn parse(path: &Path, text: String) -> Result<Self, Vec<JobError>> {
        match Self::partly(path, text) {
            (Some(job), errors) if errors.is_empty() => Ok(job),
            (_, errors) => Err(errors),
        }
    }

    /// Reads a job file and plans it. Mistakes in some keys do not hide those in SQL that does not depend on them.
    pub async fn check(path: &Path) -> Result<(Self, Plan), Vec<JobError>> {
        let (job, mut errors) = Self::partly(path, text(path)?);
        let Some(job) = job else { return Err(errors) };
        match Plan::of(&job).await {
            Ok(plan) if errors.is_empty() => return Ok((job, plan)),
            Ok(_) => {}
            Err(more) => errors.extend(more),
        }
        errors.sort_by_key(|error| error.line);
        Err(errors)
    }

    /// What can be read of a job file, and the mistakes.
    fn partly(path: &Path, text: String) -> (Option<Self>, Vec<JobError>) {
        let mut errors = Vec::new();
        let job = Self::of(&Arc::new(Text::new(path, text)), &mut errors);
        errors.sort_by_key(|error| error.line);
        (job, errors)
    }

    fn of(text: &Arc<Text>, errors: &mut Vec<JobError>) -> Option<Self> {
        let mut keys = Keys::of_file(text).map_err(|error| errors.push(error)).ok()?;
        let folder = text.path().parent().unwrap_or(Path::new(""));
        let stem = || text.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let mut unread = BTreeSet::new();
        let job = Self {
            text: Arc::clone(text),
            name: note(name(&mut keys), errors).or_else(stem).unwrap_or_else(|| "job".to_owned()),
            batching: note(batching(&mut keys), errors).unwrap_or(Batching::Every(Duration::from_secs(1))),
            max_rows: note(keys.take::<NonZeroUsize>("max-rows"), errors).map_or(MAX_ROWS, NonZeroUsize::get),
            checkpoint: note(keys.take::<PathBuf>("checkpoint"), errors).map(|path| folder.join(path)),
            time_zone: note(time_zone(&mut keys), errors).unwrap_or_else(jiff::tz::TimeZone::system),
            country_database: note(keys.take::<PathBuf>("country-database"), errors).map(|path| folder.join(path)),
            ui: note(ui(&mut keys), errors),
            sources: each(&mut keys, "source", errors, &mut unread, SourceSpec::read),
            views: each(&mut keys, "view", errors, &mut unread, ViewSpec::read),
            tables: each(&mut keys, "table", errors, &mut unread, TableSpec::read),
            sinks: each(&mut keys, "sink", errors, &mut BTreeSet::new(), SinkSpec::read),
            charts: each(&mut keys, "chart", errors, &mut BTreeSet::new(), ChartSpec::read),
            unread,
        };
        for table in &job.tables {
            if let Err(why) = table.check(job.batching) {
                errors.push(text.error(&table.place, format!("[table.{}] {why}", table.name)));
            }
        }
        if let Err(error) = keys.read::<Nothing>() {
            errors.push(error);
        }
        names_are_unique(&job, errors).then_some(job)
    }
}

fn text(path: &Path) -> Result<String, Vec<JobError>> {
    std::fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot be read: {error}");
        vec![JobError { path: path.to_owned(), line: 1, message }]
    })
}

/// What a key says, if it is there and right; a mistake is put to the others.
fn note<T>(read: Result<Option<T>, JobError>, errors: &mut Vec<JobError>) -> Option<T> {
    read.unwrap_or_else(|error| {
        errors.push(error);
        None
    })
}

fn name(keys: &mut Keys<'_>) -> Result<Option<String>, JobError> {
    match keys.take::<String>("name")? {
        Some(name) if name.is_empty() => Err(keys.error_at("name", "`name` is empty: databases tell jobs apart by it")),
        name => Ok(name),
    }
}

fn batching(keys: &mut Keys<'_>) -> Result<Option<Batching>, JobError> {
    let Some(batch) = keys.take::<String>("batch")? else { return Ok(None) };
    if batch == "arrival" {
        return Ok(Some(Batching::Arrival));
    }
    let span = keys::parse_duration(&batch);
    let span = span.map_err(|why| keys.error_at("batch", format!("`batch`: {why}, or \"arrival\"")))?;
    Ok(Some(Batching::Every(span)))
}

fn time_zone(keys: &mut Keys<'_>) -> Result<Option<jiff::tz::TimeZone>, JobError> {
    let Some(name) = keys.take::<String>("time-zone")? else { return Ok(None) };
    let expected = || format!("`time-zone`: `{name}` is no time zone, as Europe/Paris is one");
    jiff::tz::TimeZone::get(&name).map(Some).map_err(|_| keys.error_at("time-zone", expected()))
}

fn ui(keys: &mut Keys<'_>) -> Result<Option<String>, JobError> {
    let Some(ui) = keys.take::<String>("ui")? else { return Ok(None) };
    Address::to_listen(&ui).map_err(|why| keys.error_at("ui", format!("`ui`: {why}")))?;
    Ok(Some(ui))
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

/// Reads every `[kind.NAME]`; the names of those with mistakes are noted.
fn each<T>(
    keys: &mut Keys<'_>,
    kind: &str,
    errors: &mut Vec<JobError>,
    unread: &mut BTreeSet<String>,
    read: impl Fn(Keys<'_>) -> Result<T, JobError>,
) -> Vec<T> {
    let tables = note(keys.tables(kind).map(Some), errors).unwrap_or_default();
    let mut found = Vec::with_capacity(tables.len());
    for keys in tables {
        let name = keys.name().to_owned();
        match read(keys) {
            Ok(one) => found.push(one),
            Err(error) => {
                errors.push(error);
                unread.insert(name);
            }
        }
    }
    found
}

/// Sources, views and tables are all names for SQL. Whether they are right.
fn names_are_unique(job: &Job, errors: &mut Vec<JobError>) -> bool {
    let before = errors.len();
    let sources = job.sources.iter().map(|one| (&one.name, &one.place));
    let views = job.views.iter().map(|one| (&one.name, &one.place));
    let tables = job.tables.iter().map(|one| (&one.name, &one.place));
    // These are there without being named.
    let rejects = job.sources.iter().map(|one| format!("{}_rejects", one.name));
    let late = job.tables.iter().map(|one| format!("{}_late", one.name));
    let mut seen: BTreeSet<String> = rejects.chain(late).collect();
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
    errors.len() == before
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
        assert_eq!(lines, [1, 6, 8, 10], "{errors:?}");
        assert!(errors[3].message.contains("did you mean `print`?"), "{errors:?}");
    }

    #[test]
    fn keys_of_the_whole_file_have_their_own_lines_and_hide_nothing() {
        let text = "name = \"\"\nbatch = \"soon\"\ntime-zone = \"Mars\"\nui = \"here\"\nmax-rows = 0\n[source.a]\n\
                    \n\ntype = \"sockett\"\n[source.b]\ntype = \"socket\"\nconnect = \":1\"\n";
        let errors = parse(text).expect_err("there are mistakes");
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 9, 12], "{errors:?}");
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
