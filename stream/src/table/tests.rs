//! Whatever is kept from batch to batch, through restarts, is what the same SQL gives of all rows at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMillisecondArray,
};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;

use crate::batch::BatchInfo;
use crate::job::Job;
use crate::sql::{Plan, Query, Relation, Sql, Step};
use crate::store::{Saved, Store};
use crate::table::Table;

/// A row of the source `rows`: `k text, n bigint, x double, d decimal(12, 2), at timestamp`.
#[derive(Clone)]
struct Row {
    k: Option<String>,
    n: Option<i64>,
    x: Option<f64>,
    d: Option<i128>,
    at: Option<i64>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", (&self.k, self.n, self.x, self.d, self.at))
    }
}

/// Values that are few, so that keys meet again, and odd. Doubles are such that sums do not depend on the order.
fn row() -> impl Strategy<Value = Row> {
    let k = prop::option::weighted(0.9, prop::sample::select(vec!["a", "b", "c", "", "ü ö"]).prop_map(str::to_owned));
    let n = prop::option::weighted(0.8, prop_oneof![5 => -5i64..6, 1 => Just(1 << 40)]);
    let x = prop_oneof![8 => (-4i32..5).prop_map(|n| f64::from(n) / 2.0), 1 => Just(-0.0), 1 => Just(f64::INFINITY), 1 => Just(f64::NAN)];
    let x = prop::option::weighted(0.8, x);
    let d = prop::option::weighted(0.8, -300i128..300);
    let at = prop::option::weighted(0.95, 0i64..120_000);
    (k, n, x, d, at).prop_map(|(k, n, x, d, at)| Row { k, n, x, d, at })
}

fn batches() -> impl Strategy<Value = Vec<Vec<Row>>> {
    prop::collection::vec(prop_oneof![1 => Just(0usize), 4 => 1usize..9], 1..9).prop_flat_map(|lengths| {
        lengths.into_iter().map(|length| prop::collection::vec(row(), length)).collect::<Vec<_>>()
    })
}

fn columns(rows: &[Row]) -> Vec<RecordBatch> {
    if rows.is_empty() {
        return Vec::new();
    }
    let d: Decimal128Array = rows.iter().map(|row| row.d).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("k", Arc::new(rows.iter().map(|row| row.k.clone()).collect::<StringViewArray>())),
        ("n", Arc::new(rows.iter().map(|row| row.n).collect::<Int64Array>())),
        ("x", Arc::new(rows.iter().map(|row| row.x).collect::<Float64Array>())),
        ("d", Arc::new(d.with_precision_and_scale(12, 2).expect("it fits"))),
        ("at", Arc::new(rows.iter().map(|row| row.at).collect::<TimestampMillisecondArray>())),
    ];
    vec![RecordBatch::try_from_iter(columns).expect("they are as long")]
}

fn job(table: &str) -> Job {
    let text = format!(
        "time-zone = \"UTC\"\nbatch = \"arrival\"\n[source.rows]\ntype = \"socket\"\nconnect = \"localhost:9\"\nformat = \"delimited\"\n\
         columns = [\"k text\", \"n bigint\", \"x double\", \"d decimal(12, 2)\", \"at timestamp\"]\n[table.t]\n{table}\n"
    );
    Job::parse(Path::new("job.toml"), text).expect("it is a job")
}

async fn plan(table: &str) -> Result<Plan, String> {
    Plan::of(&job(table)).await.map_err(|errors| errors[0].message.clone())
}

/// A job with one table, and perhaps views, without sources and sinks.
struct Bench {
    plan: Plan,
    store: Store,
    table: String,
    batch: Option<BatchInfo>,
}

impl Bench {
    async fn new(table: &str) -> Self {
        let mut plan = plan(table).await.unwrap_or_else(|why| panic!("{table}: {why}"));
        Self::table_of(&mut plan).is_read = true;
        let (store, _) = Store::open(None, "job").expect("it opens");
        Self { plan, store, table: table.to_owned(), batch: None }
    }

    fn table_of(plan: &mut Plan) -> &mut Table {
        plan.steps
            .iter_mut()
            .find_map(|step| match step {
                Step::Table(table) => Some(&mut **table),
                Step::View { .. } => None,
            })
            .expect("there is one")
    }

    fn table(&mut self) -> &mut Table {
        Self::table_of(&mut self.plan)
    }

    async fn turn(&mut self, time: i64, rows: &[Row]) {
        let batch = self.batch.map_or_else(|| BatchInfo::first(time), |last| last.next(time));
        self.batch = Some(batch);
        self.plan.sources[0].rows.set(columns(rows));
        self.plan.sql.set_batch_time(time);
        for step in &mut self.plan.steps {
            match step {
                Step::View { query, rows, .. } => rows.set(query.run().await.expect("it runs")),
                Step::Table(table) => table.turn(&batch).await.expect("it runs"),
            }
        }
        let (plan, store) = (&mut self.plan, &mut self.store);
        let commit = store.commit(&batch, &BTreeMap::new(), |db| Self::table_of(plan).save(&mut Saved::new(db, "t")?));
        commit.expect("it commits");
    }

    /// A new process.
    async fn restart(&mut self) {
        self.plan = plan(&self.table).await.expect("it was right before");
        let mut saved = self.store.saved("t").expect("it can be read");
        let table = Self::table_of(&mut self.plan);
        table.is_read = true;
        table.restore(&mut saved).await.expect("it can be read");
    }

    fn all(&mut self) -> Vec<String> {
        texts(&self.table().all.rows())
    }

    fn changed(&mut self) -> Option<Vec<String>> {
        self.table().changed.as_deref().map(texts)
    }
}

/// Rows as text, sorted. Doubles are rounded: they differ in the last digits by the order in which they were added.
fn texts(rows: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let round = |column: &ArrayRef| match column.data_type() {
        DataType::Float64 => {
            let rounded = column.as_primitive::<Float64Type>().unary::<_, Float64Type>(|x| (x * 1e6).round() / 1e6);
            Arc::new(rounded) as ArrayRef
        }
        _ => Arc::clone(column),
    };
    let mut texts = Vec::new();
    for rows in rows {
        let columns: Vec<ArrayRef> = rows.columns().iter().map(round).collect();
        let columns = columns.iter().map(|column| ArrayFormatter::try_new(column, &options));
        let columns: Vec<_> = columns.collect::<Result<_, _>>().expect("they can be shown");
        texts.extend(
            (0..rows.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    texts.sort();
    texts
}

/// What SQL gives of all rows at once.
struct AtOnce {
    rows: Arc<Relation>,
    query: Query,
}

impl AtOnce {
    async fn new(sql: &str) -> Self {
        let planner = Sql::new(&jiff::tz::TimeZone::UTC).expect("there is a planner");
        let schema = job("sql = \"select count(*) from rows\"").sources[0].reader.schema().clone();
        let rows = planner.register("rows", schema).expect("it is new");
        Self { rows, query: planner.plan(sql).await.expect("it is right") }
    }

    async fn of(&self, rows: &[Row]) -> Vec<String> {
        self.rows.set(columns(rows));
        texts(&self.query.run().await.expect("it runs"))
    }
}

/// After which batches there is a restart.
fn restarts() -> impl Strategy<Value = u16> {
    (any::<u16>(), any::<u16>()).prop_map(|(some, half)| some & half)
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it can be made").block_on(work)
}

/// One aggregate each, of every kind, and what may stand around it.
const QUERIES: &[&str] = &[
    "select k, count(*) as c, count(n) as cn, sum(n) as s, avg(n) as a, min(n) as lo, max(n) as hi from rows group by k",
    "select k, sum(d) as s, avg(d) as a, min(d) as lo, max(d) as hi from rows group by k",
    "select k, sum(x) as s, avg(x) as a, min(x) as lo, max(x) as hi, stddev(x) as sd, var_pop(x) as v from rows where x < 100 group by k",
    "select k, count(distinct n) as c, sum(distinct n) as s, approx_distinct(n) as ad from rows group by k",
    "select k, median(n) as m, bool_and(n > 0) as ba, bool_or(n > 3) as bo, bit_xor(n) as bx from rows group by k",
    "select k, array_agg(n) as ns, first_value(n) as f, last_value(n) as l from rows group by k",
    "select k, array_agg(n order by n) as ns, string_agg(k, '-') as t, min(k) as lo, max(at) as hi from rows group by k",
    "select k, first_value(n order by at, n, d, x) as f, last_value(n order by at, n, d, x) as l from rows group by k",
    "select k, count(*) filter (where n > 0) as c, sum(n) filter (where x > 0) as s from rows group by k",
    "select count(*) as c, sum(n) as s, avg(d) as a, min(k) as lo, count(distinct k) as ks from rows",
    "select x, count(*) as c from rows group by x",
    "select x, k, count(*) as c from rows group by x, k",
    "select d, at, n is null as no, count(*) as c from rows group by d, at, n is null",
    "select upper(k) as u, n % 2 as odd, sum(n * 2) + 1 as s from rows group by upper(k), n % 2",
    "select k, count(*) as c from rows group by k having count(*) between 2 and 4",
    "select k, n, count(*) as c from rows group by k, n order by c desc, k nulls last, n nulls first limit 3",
    "select k, max(n) as hi from rows group by k order by hi desc nulls last, k limit 2",
    "select distinct k, n from rows",
    "select distinct k from rows order by k limit 2",
    "select k from rows group by k",
    "select k, count(*) as c from (select * from rows order by k) group by k order by k limit 2",
    "select count(*) + 1 as c from rows having count(*) > 3",
    "select corr(n, d) is null as no, covar_samp(n, n) as c, regr_count(n, x) as r, count(*) as n from rows where n < 100",
    "select k, date_trunc('minute', at) as m, count(*) as c, max(at) - min(at) as span from rows group by k, m",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, max_shrink_iters: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_running_table_is_what_its_sql_gives_of_all_rows(batches in batches(), restarts in restarts()) {
        wait(async {
            for sql in QUERIES {
                let mut bench = Bench::new(&format!("sql = \"\"\"{sql}\"\"\"")).await;
                let (at_once, mut rows, mut shown) = (AtOnce::new(sql).await, Vec::new(), BTreeMap::new());
                for (number, batch) in batches.iter().enumerate() {
                    bench.turn(1000 * (number as i64 + 1), batch).await;
                    rows.extend(batch.iter().cloned());
                    let expected = at_once.of(&rows).await;
                    assert_eq!(bench.all(), expected, "{sql}");
                    // Rows that did not change are as they were shown.
                    let changed = bench.changed().expect("it always has something to say");
                    let is_row_by_row = bench.table().parts().is_row_by_row();
                    if is_row_by_row && sql.ends_with("group by k") {
                        let key = |row: &String| row.split('|').next().unwrap_or_default().to_owned();
                        shown.extend(changed.into_iter().map(|row| (key(&row), row)));
                        let mut shown: Vec<String> = shown.values().cloned().collect();
                        shown.sort();
                        assert_eq!(shown, expected, "{sql}");
                    } else if !is_row_by_row {
                        assert_eq!(changed, expected, "{sql}");
                    }
                    if (restarts >> number) & 1 == 1 {
                        bench.restart().await;
                        assert_eq!(bench.all(), expected, "{sql} after a restart");
                    }
                }
            }
        });
    }
}

/// Windows that end at multiples of the slide: each batch's rows, and when it was, in milliseconds.
async fn windows(keys: &str, sql: &str, (window, slide): (i64, i64), batches: &[(i64, Vec<Row>)], restarts: u16) {
    let table = format!("sql = \"\"\"{sql}\"\"\"\nwindow = \"{window}ms\"\nslide = \"{slide}ms\"\n{keys}");
    let (mut bench, at_once) = (Bench::new(&table).await, AtOnce::new(sql).await);
    let mut last = None;
    for (number, (time, rows)) in batches.iter().enumerate() {
        let newest = time - time.rem_euclid(slide);
        let inside = |end: i64, batches: &[(i64, Vec<Row>)]| -> Vec<Row> {
            let is_in = |time: i64| time > end - window && time <= end;
            batches.iter().filter(|(time, _)| is_in(*time)).flat_map(|(_, rows)| rows.clone()).collect()
        };
        // Those that were missed come one after the other if they have rows.
        let first = last.map_or(newest, |last: i64| last - last.rem_euclid(slide) + slide);
        for end in (first..newest).step_by(slide as usize) {
            let missed = inside(end, &batches[..number]);
            if missed.is_empty() {
                continue;
            }
            assert_eq!(bench.table().missed(*time), Some(end), "{table}: before batch {number} at {time}");
            bench.turn(end, &[]).await;
            assert_eq!(bench.changed(), Some(at_once.of(&missed).await), "{table}: the window that ends at {end}");
            if (restarts >> (end % 16)) & 1 == 1 {
                bench.restart().await;
            }
        }
        assert_eq!(bench.table().missed(*time), None, "{table}: before batch {number} at {time}");
        bench.turn(*time, rows).await;
        let is_due = last.map_or(newest == *time, |last| last < newest);
        last = Some(*time);
        let expected = is_due.then_some(at_once.of(&inside(newest, &batches[..=number])).await);
        assert_eq!(bench.changed(), expected, "{table}: batch {number} at {time}");
        if let Some(expected) = expected {
            assert_eq!(bench.all(), expected, "{table}");
        }
        if (restarts >> (number % 16)) & 1 == 1 {
            bench.restart().await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 32, ..ProptestConfig::default() })]

    #[test]
    fn windows_by_subtracting_are_those_by_merging_and_those_of_their_rows(
        batches in prop::collection::vec(row_batches(), 1..16),
        (panes, slide) in (1i64..6, 1i64..4),
        regular in any::<bool>(),
        restarts in restarts(),
    ) {
        // Batches come every 10 ms, or at odd times with long gaps.
        let (window, slide) = (10 * panes.max(slide), 10 * slide);
        let mut time = 1000;
        let batches: Vec<(i64, Vec<Row>)> = batches.into_iter().map(|(gap, rows)| {
            time += if regular { 10 } else { gap };
            (time, rows)
        }).collect();
        wait(async {
            let exact = "select k, count(*) as c, sum(n) as s, sum(d) as sd, avg(d) as a from rows group by k";
            windows("", exact, (window, slide), &batches, restarts).await;
            windows("inverse = true", exact, (window, slide), &batches, restarts).await;
            windows("inverse = false", exact, (window, slide), &batches, restarts).await;
            windows("", "select count(*) as c, sum(n) as s from rows", (window, slide), &batches, restarts).await;
            windows("", "select distinct k, n from rows", (window, slide), &batches, restarts).await;
            let merged = "select k, max(n) as hi, array_agg(n) as ns, count(distinct x) as c from rows group by k \
                          having count(*) > 1 order by k limit 3";
            windows("", merged, (window, slide), &batches, restarts).await;
        });
    }
}

fn row_batches() -> impl Strategy<Value = (i64, Vec<Row>)> {
    (prop_oneof![4 => 1i64..25, 1 => 25i64..200], prop::collection::vec(row(), 0..6))
}

#[tokio::test]
async fn a_clock_that_jumps_shows_no_windows_without_rows() {
    let row = Row { k: Some("a".to_owned()), n: Some(1), x: None, d: None, at: None };
    for sql in ["select count(*) as c from rows", "select k, max(n) as hi from rows group by k"] {
        let mut bench = Bench::new(&format!("sql = \"{sql}\"\nwindow = \"3s\"\nslide = \"1s\"")).await;
        bench.turn(1000, &[]).await;
        assert_eq!(bench.table().missed(3_600_000), None);
        bench.turn(2000, std::slice::from_ref(&row)).await;
        for end in [3000, 4000] {
            assert_eq!(bench.table().missed(3_600_000), Some(end));
            bench.turn(end, &[]).await;
        }
        assert_eq!(bench.table().missed(3_600_000), None);
        assert_eq!(bench.table().keys(), 1);
        bench.turn(3_600_000, &[]).await;
        assert_eq!(bench.table().keys(), 0);
    }
}

#[test]
fn a_pane_of_many_batches_is_merged_now_and_then() {
    wait(async {
        let rows: Vec<Row> =
            (0..40).map(|n| Row { k: Some(format!("k{n}")), n: Some(n), x: Some(0.5), d: Some(1), at: None }).collect();
        let batches: Vec<(i64, Vec<Row>)> = (1..=250).map(|time| (time, rows.clone())).collect();
        for sql in
            ["select k, count(*) as c, sum(n) as s from rows group by k", "select k, max(n) as m from rows group by k"]
        {
            windows("", sql, (200, 100), &batches, 1 << 15).await;
        }
    });
}

/// A window's end, and a key in it.
type Window = (i64, Option<String>);
/// How many rows, and the sum of their `n`.
type Counted = (i64, Option<i64>);

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 32, ..ProptestConfig::default() })]

    /// A model: which rows are in time is known from the batches before.
    #[test]
    fn windows_by_time_hold_the_rows_that_are_in_time(
        batches in batches(),
        (overlap, delay) in (1i64..4, 0i64..40),
        restarts in restarts(),
    ) {
        let (slide, window, delay) = (10_000, 10_000 * overlap, 1000 * delay + 1);
        let sql = "select k, window_end, count(*) as c, sum(n) as s from rows group by k, window_end";
        wait(async {
            for emit in ["update", "final"] {
                let table = format!(
                    "sql = \"\"\"{sql}\"\"\"\nwindow = \"{window}ms\"\nslide = \"{slide}ms\"\ntime = \"at\"\nover = \"rows\"\n\
                     delay = \"{delay}ms\"\nemit = \"{emit}\""
                );
                let mut bench = Bench::new(&table).await;
                let (mut latest, mut watermark) = (i64::MIN, i64::MIN);
                let mut open: BTreeMap<Window, Counted> = BTreeMap::new();
                for (number, rows) in batches.iter().enumerate() {
                    bench.turn(1000 * (number as i64 + 1), rows).await;
                    open.retain(|(end, _), _| *end > watermark);
                    let (mut late, mut touched) = (0, Vec::new());
                    for row in rows {
                        let Some(at) = row.at else { late += 1; continue };
                        let last = at - at % slide + window;
                        latest = latest.max(at);
                        late += u64::from(last <= watermark);
                        for end in (0..overlap).map(|n| last - n * slide).filter(|end| *end > watermark) {
                            let key = (end, row.k.clone());
                            let (count, sum) = open.entry(key.clone()).or_default();
                            *count += 1;
                            *sum = row.n.map_or(*sum, |n| Some(sum.unwrap_or(0) + n));
                            touched.push(key);
                        }
                    }
                    assert_eq!(bench.table().late_rows, late);
                    let shown: usize = bench.table().late.as_ref().expect("it is there").rows().iter().map(RecordBatch::num_rows).sum();
                    assert_eq!(shown as u64, late);
                    if latest > i64::MIN {
                        watermark = latest - delay;
                    }
                    let closed = open.iter().filter(|((end, _), _)| *end <= watermark);
                    let of_touched = open.iter().filter(|(key, _)| touched.contains(key));
                    let text = |((end, key), (count, sum)): (&Window, &Counted)| {
                        let end = jiff::Timestamp::from_millisecond(*end).expect("it is one").strftime("%FT%T");
                        let sum = sum.map_or("null".to_owned(), |sum| sum.to_string());
                        format!("{}|{end}|{count}|{sum}", key.as_deref().unwrap_or("null"))
                    };
                    let mut expected: Vec<String> =
                        if emit == "final" { closed.map(text).collect() } else { of_touched.map(text).collect() };
                    expected.sort();
                    let found = bench.changed();
                    if emit == "final" && expected.is_empty() {
                        assert_eq!(found, None);
                    } else {
                        assert_eq!(found, Some(expected), "{table}: batch {number}");
                    }
                    if emit == "final" {
                        open.retain(|(end, _), _| *end > watermark);
                    }
                    assert_eq!(bench.table().keys(), open.len(), "states of closed windows are gone");
                    if (restarts >> number) & 1 == 1 {
                        bench.restart().await;
                    }
                }
            }
        });
    }
}

#[tokio::test]
async fn a_table_over_a_union_is_what_its_sql_gives_of_all_rows() {
    let rows = |batch: i64| -> Vec<Row> {
        let keys = ["a", "b", "a", "c"].into_iter().cycle().zip([0, 1, 2, 3, 0, 3]);
        let row =
            |(k, n): (&str, i64)| Row { k: Some(k.to_owned()), n: Some(10 * batch + n), x: None, d: None, at: None };
        keys.map(row).collect()
    };
    let all = "select k, n from rows where n % 3 < 2 union all select upper(k), n from rows";
    let itself = "select * from rows union all select * from rows";
    // All that is alike comes in the same batch.
    let different = "select k, n from rows union select 'a', n from rows union select k, n from rows where n > 5";
    let grouped = "select k, max(n) as n from rows group by k, n";
    for view in [all, itself, different, grouped] {
        for sql in [
            "select k, count(*) as c, sum(n) as s from both group by k",
            "select k, max(n) as hi, count(distinct n) as c from both group by k order by hi desc, k limit 2",
            "select count(*) as c from (select * from both where n > 11)",
            "select distinct k, n % 4 as m from both",
        ] {
            let at_once = AtOnce::new(&sql.replace("both", &format!("({view})"))).await;
            for (keys, window) in [("", 1000), ("window = \"20ms\"\nslide = \"10ms\"", 20)] {
                let table = format!("sql = \"{sql}\"\n{keys}\n[view.both]\nsql = \"{view}\"");
                let mut bench = Bench::new(&table).await;
                for batch in 1..=4 {
                    bench.turn(10 * batch, &rows(batch)).await;
                    let inside: Vec<Row> =
                        (1..=batch).filter(|one| 10 * (batch - one) < window).flat_map(rows).collect();
                    let expected = at_once.of(&inside).await;
                    assert_eq!(bench.all(), expected, "{table}: batch {batch}");
                    if batch == 2 {
                        bench.restart().await;
                    }
                }
            }
        }
    }
    // Also where it is in the table itself.
    let sql = "select k, count(*) as c from (select k from rows union all select k from rows) group by k";
    let mut bench = Bench::new(&format!("sql = \"{sql}\"")).await;
    bench.turn(1, &rows(1)).await;
    bench.turn(2, &rows(2)).await;
    assert_eq!(bench.all(), ["a|12", "b|8", "c|4"]);
}

#[test]
fn a_key_that_is_not_touched_for_long_is_forgotten_and_begins_anew() {
    wait(async {
        let row = |k: &str| Row { k: Some(k.to_owned()), n: None, x: None, d: None, at: None };
        let mut bench = Bench::new("sql = \"select k, count(*) as c from rows group by k\"\nexpire = \"1s\"").await;
        bench.turn(1000, &[row("a"), row("b")]).await;
        bench.turn(1900, &[row("a")]).await;
        assert_eq!(bench.all(), ["a|2", "b|1"]);
        bench.turn(2030, &[]).await;
        assert_eq!(bench.all(), ["a|2"]);
        bench.restart().await;
        bench.turn(2050, &[row("b")]).await;
        assert_eq!(bench.all(), ["a|2", "b|1"]);
        bench.turn(3100, &[row("a")]).await;
        assert_eq!(bench.all(), ["a|1"], "nobody need have looked for it meanwhile");
    });
}

#[test]
fn many_keys_in_one_batch_are_each_counted_once() {
    wait(async {
        let row = |n: i64| Row { k: Some(format!("key {n}")), n: Some(n), x: None, d: None, at: None };
        let rows: Vec<Row> = (0..130_000).map(|n| row(n % 120_000)).collect();
        let mut bench = Bench::new("sql = \"select k, count(*) as c from rows group by k\"").await;
        bench.table().is_read = false;
        for time in 1..=2 {
            bench.turn(time, &rows).await;
            assert_eq!(bench.table().keys(), 120_000);
        }
        let changed = bench.changed().expect("it has something to say");
        assert_eq!(changed.len(), 120_000);
        assert!(changed.contains(&"key 7|4".to_owned()) && changed.contains(&"key 110000|2".to_owned()));
    });
}

#[tokio::test]
async fn a_row_that_came_again_and_again_is_not_counted_by_a_table_of_a_table() {
    let text = "[source.rows]\ntype = \"socket\"\nconnect = \"localhost:9\"\n\
                [table.a]\nsql = \"select value, count(*) as n from rows group by value\"\n\
                [view.b]\nsql = \"select * from a where n > 1\"\n\
                [table.c]\nsql = \"select count(*) from b\"\n";
    let job = Job::parse(Path::new("job.toml"), text.to_owned()).expect("it is a job");
    let errors = Plan::of(&job).await.err().expect("it is refused");
    assert!(errors[0].to_string().contains("c: "), "{}", errors[0]);
    assert!(errors[0].message.contains("again and again: make it a view"), "{}", errors[0]);
}

#[tokio::test]
async fn what_is_approximate_or_takes_all_values_can_be_kept() {
    let rows: Vec<Row> =
        (0..100).map(|n| Row { k: Some("a".to_owned()), n: Some(n), x: Some(n as f64), d: None, at: None }).collect();
    let sql = "select k, approx_percentile_cont(x, 0.5) between 45 and 55 as p, approx_median(n) between 45 and 55 as m, \
               percentile_cont(x, 0.5) as c, nth_value(n, 3 order by n) as third, approx_distinct(n) > 90 as many \
               from rows group by k";
    let mut bench = Bench::new(&format!("sql = \"\"\"{sql}\"\"\"")).await;
    for (number, rows) in rows.chunks(30).rev().enumerate() {
        bench.turn(number as i64 + 1, rows).await;
        bench.restart().await;
    }
    assert_eq!(bench.all(), ["a|true|true|49.5|2|true"]);
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused() {
    for (table, why) in [
        ("sql = \"select k from rows\"", "keeps the states of one aggregate"),
        ("sql = \"select count(*) from (select distinct k from rows)\"", "this SELECT has 2"),
        ("sql = \"select count(*) from (select k from rows union select k from rows)\"", "this SELECT has 2"),
        ("sql = \"select k, count(*) from rows where n > (select avg(n) from rows) group by k\"", "this SELECT has 2"),
        ("sql = \"select k, n, count(*) from rows group by rollup(k, n)\"", "GROUPING SETS, ROLLUP or CUBE"),
        (
            "sql = \"select arrow_cast(k, 'Dictionary(Int32, Utf8)') as d, count(*) from rows group by 1\"",
            "which is of type",
        ),
        ("sql = \"select avg(x) from rows\"\nwindow = \"1s\"\ninverse = true", "cannot be subtracted"),
        (
            "sql = \"select count(*) from rows\"\nwindow = \"1s\"\ntime = \"at\"\nover = \"rows\"",
            "GROUP BY must have window_start or window_end",
        ),
        (
            "sql = \"select count(*) from rows\"\nwindow = \"1s\"\ntime = \"at\"\nover = \"row\"",
            "the SELECT reads rows, not `row`",
        ),
        (
            "sql = \"select count(*) from rows group by window_end\"\nwindow = \"1s\"\ntime = \"att\"\nover = \"rows\"",
            "did you mean `at`?",
        ),
        (
            "sql = \"select count(*) from rows group by window_end\"\nwindow = \"1s\"\ntime = \"n\"\nover = \"rows\"",
            "not a timestamp or a date",
        ),
    ] {
        let found = plan(table).await.err().unwrap_or_else(|| panic!("{table} was taken"));
        assert!(found.contains(why), "{table}: {found}");
    }
}

#[test]
fn keys_that_do_not_go_together_are_told() {
    let read = |keys: &str| {
        let text = format!(
            "batch = \"10s\"\n[source.rows]\ntype = \"socket\"\nconnect = \"localhost:9\"\n[table.t]\nsql = \"select 1\"\n{keys}\n"
        );
        Job::parse(Path::new("job.toml"), text).map_err(|errors| errors[0].to_string())
    };
    for (keys, why) in [
        ("window = \"25s\"", "job.toml:5: [table.t] `window`: 25s is not a multiple of 10s, the job's `batch`"),
        ("window = \"30s\"\nslide = \"15s\"", "`slide`: 15s is not a multiple of 10s"),
        ("window = \"60h\"\nslide = \"20s\"", "10800 parts, more than 10000"),
        ("window = \"30s\"\nslide = \"40s\"", "longer than the window"),
        ("slide = \"10s\"", "`slide` is for a table with `window`"),
        ("window = \"10s\"\nexpire = \"10s\"", "`expire` is for a table without `window`"),
        ("window = \"10s\"\ndelay = \"10s\"", "`delay` is for a table with `time`"),
        ("window = \"10s\"\ntime = \"at\"", "`over` is missing"),
        ("window = \"1h\"\nslide = \"1s\"\ntime = \"at\"\nover = \"rows\"", "3600 windows"),
    ] {
        let found = read(keys).err().unwrap_or_else(|| panic!("{keys} was taken"));
        assert!(found.contains(why), "{keys}: {found}");
    }
    for right in
        ["window = \"30s\"\nslide = \"20s\"", "window = \"25s\"\ntime = \"at\"\nover = \"rows\"", "expire = \"1h\""]
    {
        assert!(read(right).is_ok(), "{right}");
    }
}
