//! A job's relations and queries, planned and in the order in which a batch goes through them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::error::DataFusionError;

use super::{Query, Relation, Sql, functions, words};
use crate::job::keys::did_you_mean;
use crate::job::{Job, JobError};
use crate::page::Chart;
use crate::sink::{Input, JobContext, Mode};
use crate::table::event::Over;
use crate::table::{Aggregation, Life, Table, TableSpec};

/// What a batch goes through.
pub enum Step {
    /// A view that several read, which is worked out once; or one that has an aggregate, which is over each batch,
    /// also below that of a table.
    View {
        /// Its name.
        name: String,
        /// Its SQL.
        query: Query,
        /// Its rows.
        rows: Arc<Relation>,
        /// What nobody reads any more in this batch.
        spent: Vec<Arc<Relation>>,
    },
    /// A table.
    Table(Box<Table>),
}

impl Step {
    /// How many rows of the batch came too late for it.
    pub fn late_rows(&self) -> u64 {
        match self {
            Self::View { .. } => 0,
            Self::Table(table) => table.late_rows,
        }
    }
}

/// Where a sink's rows come from.
pub enum Feed {
    /// A relation as it is after the steps.
    Rows(Arc<Relation>),
    /// The rows that the batch has changed in the table of this step.
    Changed(usize),
    /// A table as a whole, when it has something to say; the step is the table's.
    All(usize),
    /// SQL over what there is after the steps.
    Query(Query),
}

/// The relations of a source.
pub struct SourceRelations {
    /// Its rows.
    pub rows: Arc<Relation>,
    /// Records that did not fit.
    pub rejects: Arc<Relation>,
}

/// A job's relations and queries.
pub struct Plan {
    /// The planner.
    pub sql: Sql,
    /// Those of each source, in the job's order.
    pub sources: Vec<SourceRelations>,
    /// What a batch goes through, in this order.
    pub steps: Vec<Step>,
    /// The names of views and tables, each after those that it reads.
    pub order: Vec<String>,
    /// Where each sink's rows come from and which columns they have, in the job's order.
    pub feeds: Vec<(Feed, SchemaRef)>,
    /// The tables of which alone each sink hears, by their steps: it hears nothing when none of them has something to
    /// say. Without any it hears of every batch.
    pub voices: Vec<Vec<usize>>,
    /// The charts of the page, in the job's order.
    pub charts: Vec<Chart>,
}

/// The columns of rejected records: the time of the batch, the reason, and the record as text.
pub fn reject_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("record", DataType::Utf8, false),
    ]))
}

/// What a table's rows that came too late are called.
const LATE: &str = "_late";

/// Names, each with the tables that alone its rows come from, by their steps. What reads a source is not there.
type Voices = BTreeMap<String, Vec<usize>>;

/// The tables that alone these come from.
fn voices(of: &[String], known: &Voices) -> Vec<usize> {
    let tables: Option<Vec<&Vec<usize>>> = of.iter().map(|name| known.get(name)).collect();
    tables.map(|tables| tables.into_iter().flatten().copied().collect()).unwrap_or_default()
}

/// What is wrong with a job.
struct Mistakes {
    /// The sources, views and tables that cannot be planned.
    broken: BTreeSet<String>,
    errors: Vec<JobError>,
}

impl Mistakes {
    fn is_broken(&self, name: &str) -> bool {
        let of = ["_rejects", LATE].iter().find_map(|suffix| name.strip_suffix(suffix));
        self.broken.contains(name) || of.is_some_and(|name| self.broken.contains(name))
    }
}

/// A view or a table that is to be planned.
enum Node<'a> {
    View(&'a str),
    Table(&'a TableSpec),
}

struct Named<'a> {
    name: &'a str,
    sql: &'a str,
    place: &'a Range<usize>,
    node: Node<'a>,
}

impl Named<'_> {
    /// Where its SQL stands.
    fn path(&self) -> [&str; 3] {
        let kind = match self.node {
            Node::View(_) => "view",
            Node::Table(_) => "table",
        };
        [kind, self.name, "sql"]
    }
}

impl Plan {
    /// Plans a job. The errors say what the SQL engine has against the SQL, and which view, table or sink it is in.
    pub async fn of(job: &Job) -> Result<Self, Vec<JobError>> {
        if job.sources.is_empty() && job.unread.is_empty() {
            return Err(vec![job.text.error(&(0..0), "there is no [source.NAME]")]);
        }
        let whole = |error: DataFusionError| vec![job.text.error(&(0..0), words(&error))];
        let sql = Sql::new(&job.time_zone).map_err(whole)?;
        let mut found = Mistakes { broken: job.unread.clone(), errors: Vec::new() };
        if let Some(database) = &job.country_database
            && let Err(why) = functions::register_country(sql.context(), database)
        {
            found.errors.push(job.text.error_in(&["country-database"], None, &(0..0), why));
        }
        let mut plan = Self {
            sql,
            sources: Vec::new(),
            steps: Vec::new(),
            order: Vec::new(),
            feeds: Vec::new(),
            voices: Vec::new(),
            charts: Vec::new(),
        };
        for source in &job.sources {
            let rows = plan.sql.register(&source.name, Arc::clone(source.reader.schema())).map_err(whole)?;
            let rejects = plan.sql.register(&format!("{}_rejects", source.name), reject_schema()).map_err(whole)?;
            plan.sources.push(SourceRelations { rows, rejects });
        }
        let views = job.views.iter().map(|view| Named {
            name: &view.name,
            sql: &view.sql,
            place: &view.place,
            node: Node::View(&view.sql),
        });
        let tables = job.tables.iter().map(|table| Named {
            name: &table.name,
            sql: &table.sql,
            place: &table.place,
            node: Node::Table(table),
        });
        let nodes: Vec<Named<'_>> = views.chain(tables).collect();
        let mut voices = Voices::new();
        let readers = plan.readers(job, &nodes, &mut found);
        plan.add_nodes(job, nodes, &readers, &mut voices, &mut found).await;
        plan.add_sinks(job, &voices, &mut found).await;
        plan.add_charts(job, &mut found).await;
        let mut errors = found.errors;
        if errors.is_empty() {
            plan.note_last_readers(job);
            return Ok(plan);
        }
        errors.sort_by_key(|error| error.line);
        Err(errors)
    }

    /// What the SQL engine has against a SELECT, at its line.
    fn wrong_sql(
        &self,
        job: &Job,
        path: &[&str; 3],
        place: &Range<usize>,
        sql: &str,
        error: &DataFusionError,
    ) -> JobError {
        let (line, why) = self.sql.explain(sql, error, |name| unknown(job, name));
        job.text.error_in(path, line, place, format!("{}: {why}", path[1]))
    }

    /// When the first window ended that has rows and was not shown, unless a batch at this time shows it.
    pub fn missed(&self, time: i64) -> Option<i64> {
        let of_step = |step: &Step| match step {
            Step::View { .. } => None,
            Step::Table(table) => table.missed(time),
        };
        self.steps.iter().filter_map(of_step).min()
    }

    /// The names that a sink or a chart reads.
    fn names(&self, input: &Input) -> Result<Vec<String>, DataFusionError> {
        match input {
            Input::Named(name) => Ok(vec![name.clone()]),
            Input::Sql(sql) => self.sql.references(sql),
        }
    }

    /// How many read each name.
    fn readers(&self, job: &Job, nodes: &[Named<'_>], found: &mut Mistakes) -> BTreeMap<String, usize> {
        let mut readers: BTreeMap<String, usize> = BTreeMap::new();
        let mut count = |name: String| *readers.entry(name).or_default() += 1;
        for node in nodes {
            match self.sql.references(node.sql) {
                Ok(names) => names.into_iter().for_each(&mut count),
                Err(error) => {
                    found.broken.insert(node.name.to_owned());
                    found.errors.push(self.wrong_sql(job, &node.path(), node.place, node.sql, &error));
                }
            }
        }
        for sink in &job.sinks {
            let sql = match &sink.input {
                Input::Named(name) => {
                    count(name.clone());
                    continue;
                }
                Input::Sql(sql) => sql,
            };
            match self.sql.references(sql) {
                Ok(names) => names.into_iter().for_each(&mut count),
                Err(error) => {
                    let path = ["sink", &sink.name, "sql"];
                    found.errors.push(self.wrong_sql(job, &path, &sink.place, sql, &error));
                }
            }
        }
        readers
    }

    /// Plans views and tables, each after those that it reads.
    async fn add_nodes(
        &mut self,
        job: &Job,
        nodes: Vec<Named<'_>>,
        readers: &BTreeMap<String, usize>,
        voices: &mut Voices,
        found: &mut Mistakes,
    ) {
        let mut open: BTreeSet<&str> = nodes.iter().map(|node| node.name).collect();
        let mut left = nodes;
        loop {
            // Of what reads something that is wrong, nothing can be said.
            left.retain(|node| {
                let names = self.sql.references(node.sql).unwrap_or_default();
                let is_right = !found.is_broken(node.name) && !names.iter().any(|name| found.is_broken(name));
                if !is_right {
                    found.broken.insert(node.name.to_owned());
                }
                is_right
            });
            let (now, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|node| {
                let is_open = |name: &String| {
                    let table = name.strip_suffix(LATE).unwrap_or(name);
                    open.contains(name.as_str()) || (table != node.name && open.contains(table))
                };
                self.sql.references(node.sql).is_ok_and(|names| !names.iter().any(is_open))
            });
            if now.is_empty() {
                self.add_circle(job, later, found);
                return;
            }
            for node in &now {
                open.remove(node.name);
                self.order.push(node.name.to_owned());
                let reads = readers.get(node.name).copied().unwrap_or_default();
                if let Err(error) = self.add(node, reads, voices, job).await {
                    found.broken.insert(node.name.to_owned());
                    found.errors.push(self.wrong_sql(job, &node.path(), node.place, node.sql, &error));
                }
            }
            left = later;
        }
    }

    /// Names those that read each other, of what is left because it waits for something that is left.
    fn add_circle(&self, job: &Job, mut left: Vec<Named<'_>>, found: &mut Mistakes) {
        found.broken.extend(left.iter().map(|node| node.name.to_owned()));
        // Those that nobody reads are not part of it.
        loop {
            let read: BTreeSet<String> =
                left.iter().flat_map(|node| self.sql.references(node.sql).unwrap_or_default()).collect();
            let count = left.len();
            left.retain(|node| read.contains(node.name) || read.contains(&format!("{}{LATE}", node.name)));
            if left.len() == count {
                break;
            }
        }
        let message = match left.as_slice() {
            [] => return,
            [one] => format!("{}: it reads itself", one.name),
            several => {
                let names: Vec<&str> = several.iter().map(|node| node.name).collect();
                format!("{} read each other in a circle", names.join(", "))
            }
        };
        found.errors.push(job.text.error_in(&left[0].path(), None, left[0].place, message));
    }

    async fn add(
        &mut self,
        node: &Named<'_>,
        reads: usize,
        known: &mut Voices,
        job: &Job,
    ) -> Result<(), DataFusionError> {
        let names = self.sql.references(node.sql)?;
        let of_tables = voices(&names, known);
        match node.node {
            Node::View(sql) => {
                let query = self.sql.plan(sql).await?;
                let fed = job.sinks.iter().any(|sink| sink.input == Input::Named(node.name.to_owned()));
                if reads > 1 || fed || (of_tables.is_empty() && query.aggregates()) {
                    let rows = self.sql.register(node.name, query.schema())?;
                    self.steps.push(Step::View { name: node.name.to_owned(), query, rows, spent: Vec::new() });
                } else {
                    self.sql.register_view(node.name, sql).await?;
                }
                if !of_tables.is_empty() {
                    known.insert(node.name.to_owned(), of_tables);
                }
            }
            Node::Table(spec) => {
                if !of_tables.is_empty() {
                    let why = "would take in all rows of the tables that it reads with every batch, again and again: \
                               make it a view";
                    return Err(DataFusionError::Plan(why.to_owned()));
                }
                let mut table = self.table(spec, &names).await?;
                let changed = |sink: &crate::sink::SinkSpec| {
                    sink.mode == Mode::Changed && sink.input == Input::Named(node.name.to_owned())
                };
                // Those that only want what changes do not need the whole.
                table.is_read = reads > job.sinks.iter().filter(|sink| changed(sink)).count();
                known.insert(node.name.to_owned(), vec![self.steps.len()]);
                self.steps.push(Step::Table(Box::new(table)));
            }
        }
        Ok(())
    }

    async fn table(&self, spec: &TableSpec, names: &[String]) -> Result<Table, DataFusionError> {
        let (query, over) = match &spec.life {
            Life::EventTime(keys) => {
                if !names.contains(&keys.over) {
                    let message = format!("`over`: the SELECT reads {}, not `{}`", names.join(", "), keys.over);
                    return Err(DataFusionError::Plan(message));
                }
                let over = Over::new(self.sql.plan(&format!("select * from {}", keys.over)).await?, keys)?;
                let windowed = Arc::clone(&over.windowed);
                (self.sql.plan_with(&spec.sql, &keys.over, windowed).await?, Some(over))
            }
            _ => (self.sql.plan(&spec.sql).await?, None),
        };
        let parts = Aggregation::split(&query)?;
        let all = self.sql.register(&spec.name, parts.schema())?;
        if let Some(over) = &over {
            self.sql.register_again(&format!("{}{LATE}", spec.name), &over.late)?;
        }
        Table::new(spec, parts, all, over)
    }

    async fn add_sinks(&mut self, job: &Job, known: &Voices, found: &mut Mistakes) {
        let context = JobContext::of(job);
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        for sink in &job.sinks {
            let names = self.names(&sink.input);
            // What is wrong with the others has been said.
            let Some(names) = names.ok().filter(|names| !names.iter().any(|name| found.is_broken(name))) else {
                continue;
            };
            let feed = match &sink.input {
                Input::Named(name) => {
                    let feed = self.named(job, name, sink.mode);
                    feed.ok_or_else(|| unknown_input(job, ["sink", &sink.name, "from"], &sink.place, name))
                }
                Input::Sql(sql) => match self.sql.plan(sql).await {
                    Ok(query) => Ok((query.schema(), Feed::Query(query))),
                    Err(error) => Err(self.wrong_sql(job, &["sink", &sink.name, "sql"], &sink.place, sql, &error)),
                },
            };
            let (schema, feed) = match feed {
                Ok(feed) => feed,
                Err(error) => {
                    found.errors.push(error);
                    continue;
                }
            };
            let mut check = || {
                let is_table = matches!(feed, Feed::Changed(_) | Feed::All(_));
                if sink.names_mode && !is_table && !sink.config.removes() {
                    return Err("`mode` is for a table; of everything else a sink gets all rows".to_owned());
                }
                if job.checkpoint.is_none() && sink.config.embedded().is_some() {
                    let why = "without a `checkpoint` the job has no database of its own: give the job a \
                               `checkpoint = \"FOLDER\"`, or this sink a `path = \"FILE\"`";
                    return Err(why.to_owned());
                }
                sink.config.check(&schema)?;
                for owned in sink.config.owns(&sink.name, &context, &schema) {
                    match owners.get(&owned) {
                        Some(first) if *first != sink.name => {
                            return Err(format!(
                                "{owned} is what sink {first} writes; one would spoil the other's results"
                            ));
                        }
                        _ => drop(owners.insert(owned, &sink.name)),
                    }
                }
                Ok(())
            };
            if let Err(why) = check() {
                found.errors.push(job.text.error(&sink.place, format!("{}: {why}", sink.name)));
            }
            self.feeds.push((feed, schema));
            self.voices.push(voices(&names, known));
        }
    }

    async fn add_charts(&mut self, job: &Job, found: &mut Mistakes) {
        for spec in &job.charts {
            let names = self.names(&spec.input).unwrap_or_default();
            if names.iter().any(|name| found.is_broken(name)) {
                continue;
            }
            let of_input = match &spec.input {
                Input::Named(name) if self.knows(name) => None,
                Input::Named(name) => Some(unknown_input(job, ["chart", &spec.name, "from"], &spec.place, name)),
                Input::Sql(sql) => {
                    let wrong = self.sql.frame(sql).await.err();
                    wrong.map(|error| self.wrong_sql(job, &["chart", &spec.name, "sql"], &spec.place, sql, &error))
                }
            };
            if let Some(error) = of_input {
                found.errors.push(error);
                continue;
            }
            match Chart::plan(spec, &self.sql, &self.steps).await {
                Ok(chart) => self.charts.push(chart),
                Err(why) => found.errors.push(job.text.error(&spec.place, format!("{}: {why}", spec.name))),
            }
        }
    }

    /// Notes for each step which rows it is the last to read: those of a large batch are much of what is in memory.
    fn note_last_readers(&mut self, job: &Job) {
        let of_sources = job.sources.iter().zip(&self.sources).map(|(source, of)| (source.name.as_str(), &of.rows));
        let of_views = self.steps.iter().filter_map(|step| match step {
            Step::View { name, rows, .. } => Some((name.as_str(), rows)),
            Step::Table(_) => None,
        });
        let relations: BTreeMap<String, Arc<Relation>> =
            of_sources.chain(of_views).map(|(name, rows)| (name.to_owned(), Arc::clone(rows))).collect();
        // What is read, also through views that have no rows of their own.
        let references = |sql: &str| self.sql.references(sql).unwrap_or_default();
        let reads = |mut open: Vec<String>| {
            let mut found = BTreeSet::new();
            while let Some(name) = open.pop() {
                match job.views.iter().find(|view| view.name == name) {
                    Some(view) if !relations.contains_key(&name) => open.extend(references(&view.sql)),
                    _ => drop(found.insert(name)),
                }
            }
            found
        };
        let after_all = job.sinks.iter().map(|sink| &sink.input).chain(job.charts.iter().map(|chart| &chart.input));
        let kept = reads(after_all.flat_map(|input| self.names(input).unwrap_or_default()).collect());
        let of_steps: Vec<BTreeSet<String>> =
            self.steps.iter().map(|step| reads(inputs_of(step, job, references))).collect();
        for (name, rows) in relations.iter().filter(|(name, _)| !kept.contains(*name)) {
            let Some(last) = of_steps.iter().rposition(|names| names.contains(name)) else { continue };
            match &mut self.steps[last] {
                Step::View { spent, .. } => spent.push(Arc::clone(rows)),
                Step::Table(table) => table.spent.push(Arc::clone(rows)),
            }
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.sql.context().table_exist(name).unwrap_or(false)
    }

    fn named(&self, job: &Job, name: &str, mode: Mode) -> Option<(SchemaRef, Feed)> {
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Table(table) if table.name == name => {
                    let feed = if mode == Mode::Changed { Feed::Changed(index) } else { Feed::All(index) };
                    return Some((Arc::clone(table.all.schema()), feed));
                }
                Step::Table(table) if name.strip_suffix(LATE) == Some(&table.name) => {
                    if let Some(late) = &table.late {
                        return Some((Arc::clone(late.schema()), Feed::Rows(Arc::clone(late))));
                    }
                }
                Step::View { name: view, rows, .. } if view == name => {
                    return Some((Arc::clone(rows.schema()), Feed::Rows(Arc::clone(rows))));
                }
                _ => {}
            }
        }
        for (source, relations) in job.sources.iter().zip(&self.sources) {
            if source.name == name {
                return Some((Arc::clone(relations.rows.schema()), Feed::Rows(Arc::clone(&relations.rows))));
            }
            if format!("{}_rejects", source.name) == name {
                return Some((reject_schema(), Feed::Rows(Arc::clone(&relations.rejects))));
            }
        }
        None
    }
}

/// The names that a step's SQL reads.
fn inputs_of(step: &Step, job: &Job, references: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    match step {
        Step::View { name, .. } => {
            job.views.iter().filter(|view| view.name == *name).flat_map(|view| references(&view.sql)).collect()
        }
        Step::Table(table) => {
            job.tables.iter().filter(|spec| spec.name == table.name).flat_map(|spec| references(&spec.sql)).collect()
        }
    }
}

fn unknown(job: &Job, name: &str) -> String {
    let sources = job.sources.iter().flat_map(|one| [one.name.clone(), format!("{}_rejects", one.name)]);
    let tables = job.tables.iter().flat_map(|one| match one.life {
        Life::EventTime(_) => vec![one.name.clone(), format!("{}{LATE}", one.name)],
        _ => vec![one.name.clone()],
    });
    let known: Vec<String> = sources.chain(job.views.iter().map(|one| one.name.clone())).chain(tables).collect();
    let near = did_you_mean(name, known.iter().map(String::as_str));
    format!("there is no source, view or table `{name}`{near}")
}

/// The mistake of a sink or chart that reads something that is not there.
fn unknown_input(job: &Job, path: [&str; 3], place: &Range<usize>, name: &str) -> JobError {
    job.text.error_in(&path, None, place, format!("{}: `from`: {}", path[1], unknown(job, name)))
}
