//! One chart: its keys, its query, and when it is worked out.

use std::fmt;
use std::num::NonZeroU16;
use std::ops::Range;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Schema};
use datafusion::common::Column;
use datafusion::dataframe::DataFrame;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, lit, try_cast};
use serde::{Deserialize, Serialize};

use super::Page;
use crate::format::type_name;
use crate::job::keys::did_you_mean;
use crate::job::{JobError, Keys};
use crate::sink::Input;
use crate::sql::{Query, Sql, Step, words};

/// How a chart is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Columns.
    Bar,
    /// Values over the time of the batches.
    Line,
    /// The rows with the greatest values.
    Top,
    /// The same, of countries.
    Countries,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bar => "bar",
            Self::Line => "line",
            Self::Top => "top",
            Self::Countries => "countries",
        })
    }
}

impl Kind {
    /// How many bars or lines there are by default, and at most.
    fn limits(self) -> (u16, u16) {
        match self {
            Self::Bar => (30, 1000),
            Self::Line => (5, 8),
            Self::Top => (10, 1000),
            Self::Countries => (12, 1000),
        }
    }
}

/// The keys of `[chart.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChartKeys {
    kind: Kind,
    title: Option<String>,
    x: Option<String>,
    y: Option<String>,
    limit: Option<NonZeroU16>,
    #[expect(dead_code, reason = "it is taken before, and named for the suggestion")]
    from: Option<String>,
    #[expect(dead_code, reason = "it is taken before, and named for the suggestion")]
    sql: Option<String>,
}

/// A chart of a job.
#[derive(Clone, Debug)]
pub struct ChartSpec {
    /// Its name.
    pub name: String,
    /// Where it stands in the file.
    pub place: Range<usize>,
    /// What stands above it.
    pub title: String,
    /// How it is drawn.
    pub kind: Kind,
    /// What it shows.
    pub input: Input,
    x: Option<String>,
    y: Option<String>,
    limit: Option<NonZeroU16>,
}

impl ChartSpec {
    /// Reads `[chart.NAME]`.
    pub fn read(mut keys: Keys<'_>) -> Result<Self, JobError> {
        let (name, place) = (keys.name().to_owned(), keys.place());
        let input = Input::take(&mut keys)?;
        let ChartKeys { kind, title, x, y, limit, .. } = keys.read()?;
        let title = title.unwrap_or_else(|| name.clone());
        Ok(Self { name, place, title, kind, input, x, y, limit })
    }
}

/// While somebody looks, working a chart out may take this part of the job's time: one in so many.
const SHARE: u32 = 5;
/// And while nobody does.
const UNWATCHED_SHARE: u32 = 50;
/// How often, at most, while nobody looks, so that there is something to see at once for who comes.
const UNWATCHED: Duration = Duration::from_secs(1);
/// How often, at most, while no rows come: windows move, and keys expire.
const QUIET: Duration = Duration::from_millis(250);
/// A label is cut to so many characters.
const LABEL: usize = 200;

/// A chart that is planned.
pub struct Chart {
    /// What it shows: two columns, a label and a number.
    query: Query,
    /// The query's rows are the last first.
    is_backwards: bool,
    /// The steps of the tables that it reads.
    tables: Vec<usize>,
    /// When it was worked out, and how long that took.
    worked: Option<(Instant, Duration)>,
    /// Whether rows have come since.
    is_stale: bool,
}

impl Chart {
    /// Plans a chart over what a job has.
    pub async fn plan(spec: &ChartSpec, sql: &Sql, steps: &[Step]) -> Result<Self, String> {
        let failed = |error| words(&error);
        let (frame, reads) = match &spec.input {
            Input::Named(name) => (sql.context().table(name.as_str()).await.map_err(failed)?, vec![name.clone()]),
            Input::Sql(text) => (sql.frame(text).await.map_err(failed)?, sql.references(text).map_err(failed)?),
        };
        let schema = frame.schema().as_arrow().clone();
        let y = column(&schema, "y", spec.y.as_ref(), schema.fields().len().saturating_sub(1))?;
        let x = match spec.kind {
            Kind::Line if spec.x.is_none() => None,
            _ => Some(column(&schema, "x", spec.x.as_ref(), 0)?),
        };
        let data_type = schema.field_with_name(&y).map(|field| field.data_type().clone());
        if let Ok(data_type) = data_type
            && !data_type.is_numeric()
        {
            return Err(format!("`y`: the column `{y}` is {}, which is no number", type_name(&data_type)));
        }
        let (usual, most) = spec.kind.limits();
        let limit = spec.limit.map_or(usual, NonZeroU16::get);
        if limit > most {
            return Err(format!("`limit`: {limit} is more than {most}"));
        }
        let is_backwards = spec.kind == Kind::Bar && matches!(spec.input, Input::Named(_));
        let order = match spec.kind {
            Kind::Bar if is_backwards => Order::X,
            Kind::Bar => Order::AsItComes,
            _ => Order::Y,
        };
        let frame = labelled(frame, x.as_deref(), &y, order, usize::from(limit)).map_err(failed)?;
        let query = Query::of(frame).await.map_err(failed)?;
        let is_read = |step: &Step| match step {
            Step::Table(table) => reads.contains(&table.name),
            Step::View { .. } => false,
        };
        let tables = steps.iter().enumerate().filter(|(_, step)| is_read(step)).map(|(index, _)| index).collect();
        Ok(Self { query, is_backwards, tables, worked: None, is_stale: true })
    }

    /// When it may be worked out; none when it never was, and may be at once.
    fn due(&self, is_watched: bool) -> Option<Instant> {
        let (worked, took) = self.worked?;
        let wait = match (is_watched, self.is_stale) {
            (true, true) => took * (SHARE - 1),
            (true, false) => QUIET.max(took * (SHARE - 1)),
            (false, _) => UNWATCHED.max(took * (UNWATCHED_SHARE - 1)),
        };
        Some(worked + wait)
    }

    /// When the next chart may be worked out that had to wait, though rows had come.
    pub fn next_due(charts: &[Self], page: &Page) -> Option<Instant> {
        let is_watched = page.is_watched();
        charts.iter().filter(|chart| chart.is_stale).filter_map(|chart| chart.due(is_watched)).min()
    }

    async fn rows(&self, steps: &[Step]) -> Result<Vec<(String, Option<f64>)>> {
        let tables = self.tables.iter().filter_map(|index| match &steps[*index] {
            Step::Table(table) => Some(table),
            Step::View { .. } => None,
        });
        let tables: Vec<_> = tables.collect();
        for table in &tables {
            table.show().await?;
        }
        let rows = self.query.run().await;
        tables.iter().for_each(|table| table.hide());
        let mut found = Vec::new();
        for batch in rows? {
            labels(&batch, &mut found)?;
        }
        if self.is_backwards {
            found.reverse();
        }
        Ok(found)
    }

    /// Works those charts out that are due, and shows them as of a time in milliseconds since 1970. `has_rows` says
    /// whether there are new ones.
    pub async fn publish(charts: &mut [Self], steps: &[Step], page: &Page, time: i64, has_rows: bool) {
        let is_watched = page.is_watched();
        for (index, chart) in charts.iter_mut().enumerate() {
            chart.is_stale |= has_rows;
            if chart.due(is_watched).is_some_and(|due| due > Instant::now()) {
                continue;
            }
            let began = Instant::now();
            let rows = chart.rows(steps).await;
            chart.worked = Some((Instant::now(), began.elapsed()));
            chart.is_stale = false;
            page.board().show(index, time, rows.map_err(|error| words(&error)));
        }
    }
}

/// The name of a column: the one that is asked for, or the one at the place that is usual.
fn column(schema: &Schema, key: &str, wanted: Option<&String>, usual: usize) -> Result<String, String> {
    let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    match wanted {
        None => known.get(usual).map(|name| (*name).to_owned()).ok_or_else(|| "there are no columns".to_owned()),
        Some(name) if known.contains(&name.as_str()) => Ok(name.clone()),
        Some(name) => {
            let near = did_you_mean(name, known.iter().copied());
            Err(format!("`{key}`: there is no column `{name}` among {}{near}", known.join(", ")))
        }
    }
}

/// In which order rows are looked at until there are enough.
enum Order {
    AsItComes,
    /// The last first.
    X,
    /// The greatest first.
    Y,
}

/// The columns `x` and `y` of a frame as a label and a number.
fn labelled(frame: DataFrame, x: Option<&str>, y: &str, order: Order, limit: usize) -> Result<DataFrame> {
    let number = try_cast(Expr::Column(Column::from_name(y)), DataType::Float64);
    let Some(x) = x else {
        let sum = datafusion::functions_aggregate::expr_fn::sum(number).alias("y");
        return frame
            .aggregate(vec![], vec![sum])?
            .select(vec![lit(y).alias("x"), Expr::Column(Column::from_name("y"))]);
    };
    let label = || Expr::Column(Column::from_name(x));
    let frame = match order {
        Order::AsItComes => frame,
        Order::X => frame.sort(vec![label().sort(false, false)])?,
        Order::Y => frame.sort(vec![number.clone().sort(false, false), label().sort(true, false)])?,
    };
    let text = try_cast(label(), DataType::Utf8).alias("x");
    frame.limit(0, Some(limit))?.select(vec![text, number.alias("y")])
}

fn labels(batch: &RecordBatch, found: &mut Vec<(String, Option<f64>)>) -> Result<()> {
    let (texts, numbers) = (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Float64)?);
    let numbers = numbers.as_primitive::<Float64Type>().iter();
    for (text, number) in texts.as_string::<i32>().iter().zip(numbers) {
        let text = text.unwrap_or("null").chars().take(LABEL).collect();
        found.push((text, number.filter(|number| number.is_finite())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::job::Job;
    use crate::sql::Plan;

    /// The mistakes of a job with this chart.
    async fn mistakes(chart: &str) -> String {
        let text = format!(
            "[source.s]\ntype = \"socket\"\nconnect = \"h:1\"\nformat = \"delimited\"\ncolumns = [\"a\", \"n int\"]\n\
             [table.t]\nsql = \"select a, sum(n) as total from s group by a\"\n[chart.c]\n{chart}\n"
        );
        let job = Job::parse(Path::new("job.toml"), text);
        let errors = match job {
            Ok(job) => Plan::of(&job).await.err().unwrap_or_default(),
            Err(errors) => errors,
        };
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[tokio::test]
    async fn mistakes_of_a_chart_are_found_when_the_job_is_checked() {
        for right in [
            "kind = \"top\"\nfrom = \"t\"",
            "kind = \"line\"\nfrom = \"t\"",
            "kind = \"bar\"\nsql = \"select n % 2 as odd, count(*) as rows from s group by n % 2\"",
            "kind = \"countries\"\nfrom = \"t\"\nx = \"a\"\ny = \"total\"\nlimit = 3",
        ] {
            assert_eq!(mistakes(right).await, "", "{right}");
        }
        for (wrong, why) in [
            ("kind = \"pie\"\nfrom = \"t\"", "unknown variant `pie`"),
            ("kind = \"top\"", "either `from`"),
            ("kind = \"top\"\nfrom = \"tt\"", "there is no source, view or table `tt`"),
            ("kind = \"top\"\nfrom = \"t\"\ny = \"totl\"", "did you mean `total`?"),
            ("kind = \"top\"\nfrom = \"t\"\ny = \"a\"", "which is no number"),
            ("kind = \"line\"\nfrom = \"t\"\nlimit = 9", "9 is more than 8"),
            ("kind = \"top\"\nsql = \"select b from t\"", "b"),
        ] {
            let found = mistakes(wrong).await;
            assert!(found.starts_with("job.toml:") && found.contains(why), "{wrong}: {found}");
        }
    }
}
