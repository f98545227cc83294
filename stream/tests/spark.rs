//! Jobs on Spark: what it cannot do is said first, and what it can it does as the embedded engine.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::support::{
    TestJob, contents, directory, example, example_folder, files, interop, java_peers, peer, query, stderr, stdout,
    write,
};

/// What `check --engine spark` says of a job.
fn check(text: &str) -> (bool, String) {
    let home = directory();
    let path = write(home.path(), "job.toml", text);
    let output = TestJob::command(&["check", "--engine", "spark", &path.display().to_string()]);
    let prefix = format!("{}/", home.path().display());
    (output.status.success(), format!("{}{}", stdout(&output), stderr(&output)).replace(&prefix, ""))
}

const LINES: &str = "[source.lines]\ntype = \"socket\"\nconnect = \"localhost:9999\"\n";
const COUNTS: &str = "[table.counts]\nsql = \"select value, count(*) as n from lines group by value\"\n";
const PRINT: &str = "[sink.out]\ntype = \"print\"\nfrom = \"counts\"\n";

#[test]
fn what_spark_cannot_do_is_told_with_its_line() {
    let refused = |text: &str, line: usize, what: &str| {
        let (right, said) = check(text);
        let expected = format!("job.toml:{line}: {what}");
        assert!(!right && said.contains(&expected), "{expected:?} is not in:\n{said}\nof\n{text}");
    };
    let source = |keys: &str| format!("[source.lines]\n{keys}\n[sink.out]\ntype = \"print\"\nfrom = \"lines\"\n");
    let kafka = "type = \"kafka\"\nservers = \"localhost:9092\"\ntopics = \"t\"\n";
    refused(&source("type = \"flume-push\"\nlisten = \"localhost:0\""), 1, "source lines (type flume-push) cannot run");
    refused(
        &source("type = \"folder\"\npath = \"in\""),
        1,
        "source lines (type folder) cannot run on Spark: Spark takes",
    );
    refused(&source(&format!("{kafka}group = \"g\"")), 1, "source lines (type kafka) cannot run on Spark: `group`");
    refused(
        &source(&format!("{kafka}options = {{ \"fetch.error.backoff.ms\" = 5 }}")),
        1,
        "source lines (type kafka) \
             cannot run on Spark: `options`: Spark's client, which is Java's, knows no `fetch.error.backoff.ms`",
    );
    refused(
        &source(&format!("{kafka}format = \"avro\"")),
        1,
        "source lines (type kafka) cannot run on Spark: `format`",
    );

    let sink = |keys: &str| format!("{LINES}{COUNTS}[sink.out]\nfrom = \"counts\"\n{keys}\n");
    let redis = "type = \"redis\"\nurl = \"redis://host\"\nhash = \"h\"\nkey = [\"value\"]";
    refused(&sink(redis), 6, "sink out (type redis) cannot run on Spark");
    refused(
        &sink("type = \"text\"\nfolder = \"out\"\nempty = true"),
        6,
        "sink out (type text) cannot run on Spark: `empty`",
    );

    let table = |keys: &str| format!("{LINES}{COUNTS}{keys}\n{PRINT}");
    refused(&table("expire = \"1h\""), 4, "table counts cannot run on Spark: with `expire`");
    refused(
        &table("window = \"20s\"\nslide = \"10s\"\ninverse = true"),
        4,
        "table counts cannot run on Spark: with `window`",
    );

    let of_view = format!(
        "{LINES}[view.words]\nsql = \"select value from lines limit 3\"\n\
         [table.counts]\nsql = \"select count(*) as n from words\"\n{PRINT}"
    );
    refused(
        &of_view,
        4,
        "view words cannot run on Spark: table counts reads it, and ORDER BY or LIMIT would be over all batches",
    );
    let both = format!("{LINES}{COUNTS}[sink.out]\ntype = \"print\"\nsql = \"select * from counts, lines\"\n");
    refused(
        &both,
        6,
        "sink out (type print) cannot run on Spark: there a sink has the rows of one source or of one table",
    );
    let own = format!("{LINES}[sink.out]\ntype = \"print\"\nsql = \"select device(value) from lines\"\n");
    refused(&own, 4, "sink out (type print) cannot run on Spark: the function device, which is this program's own");

    let late = example("event-time.toml", &[]);
    refused(&late, 43, "sink late (type sqlite) cannot run on Spark: Spark does not keep rows that come too late");
}

#[test]
fn a_socket_has_no_end_on_spark() {
    let home = directory();
    let path = write(home.path(), "job.toml", format!("{LINES}{COUNTS}{PRINT}"));
    let path = path.display().to_string();
    let output = TestJob::command(&["run", "--engine", "spark", "--once", "--spark-submit", "/none", &path]);
    let said = stderr(&output);
    assert!(!output.status.success() && said.contains("job.toml:1: source lines (type socket) cannot run"), "{said}");
}

#[test]
fn what_is_different_on_spark_is_told() {
    let (right, said) = check(&example("kafka-to-kafka.toml", &[]));
    assert!(right && said.contains("note: sink words: Spark's messages are there at least once"), "{said}");
    let (right, said) = check(&example("product-clicks.toml", &[]));
    assert!(right && said.contains("Spark's query table_product_clicks_complete (complete): screen"), "{said}");
    assert!(said.contains("note: Spark shows by itself how the job gets on"), "{said}");
}

/// Examples that Spark cannot run, and why.
const NOT_ON_SPARK: &[(&str, &str)] = &[
    ("event-time.toml", "too late"),
    ("orders-kafka.toml", "`window`"),
    ("orders.toml", "earliest"),
    ("product-clicks-hbase.toml", "type hbase"),
    ("reviews.toml", "regexp_replace"),
    ("two-streams.toml", "the rows of one source"),
    ("visitors.toml", "country"),
    ("windowed-count.toml", "`window`"),
    ("windowed-merge.toml", "`window`"),
    ("word-count-flume-pull.toml", "type flume-pull"),
    ("word-count-flume-push.toml", "type flume-push"),
    ("word-count-folder.toml", "earliest"),
    ("word-count-kafka-group.toml", "`group`"),
    ("word-count-mysql.toml", "type mysql"),
    ("word-count-postgres.toml", "type postgres"),
];

#[test]
fn examples_run_on_spark_or_say_why_not() {
    let jobs = files(&example_folder().join("stream"));
    for job in jobs.iter().filter(|path| path.extension().is_some_and(|end| end == "toml")) {
        let name = job.file_name().and_then(|name| name.to_str()).expect("it is text");
        let output = TestJob::command(&["check", "--engine", "spark", &job.display().to_string()]);
        let said = stderr(&output);
        match NOT_ON_SPARK.iter().find(|(not, _)| *not == name) {
            Some((_, why)) => assert!(!output.status.success() && said.contains(why), "{name}: {said}"),
            None => assert!(output.status.success(), "{name}: {said}"),
        }
    }
}

/// Lines of the access log, of which some do not fit.
fn access_log() -> String {
    let mut lines = String::new();
    for number in 0..600_u32 {
        let (ip, day, second) = (number % 250, 20 + number % 3, number % 60);
        let page = match number % 5 {
            0 => "category/samsung-phones/505988.html".to_owned(),
            1 => "product/name/13817625".to_owned(),
            _ => format!("product/{}.html", 14_000_000 + number % 7),
        };
        let referer = ["-", "https://www.bing.com/search?q=ps4", "https://it's.example/a\\b"][number as usize % 3];
        let line = format!(
            "43.29.63.{ip}\t2020-05-{day} 15:{:02}:{second:02}\t\"GET /{page} HTTP/1.1\"\t200\t{referer}",
            number % 9
        );
        lines.push_str(&line);
        lines.push_str(if number % 2 == 0 { "\n" } else { "\r\n" });
    }
    lines.push_str("43.87.98.63\t2020-38-05/27/20 09:38:29\t\"GET \\product/13817625 HTTP/1.1\"\t500\t-\n");
    lines.push_str("\nno tabs\n43.29.63.8\t2020-05-31 00:00:04\t\"GET /product/1.html HTTP/1.1\"\tOK\t-\n");
    lines.push_str("43.29.63.8\t2020-05-31T00:00:04.25\t\"GET /product/2.html HTTP/1.1\"\t 200\té\n");
    lines.push_str(
        "43.29.63.8\t2020-05-31T00:00:04.25\t\"GET /product/2.html HTTP/1.1\"\t200\tthe last line has no end",
    );
    lines
}

/// What the example has not: SQL that both engines have in other words, windows by time, and text files.
const MORE: &str = r#"
[view.words]
sql = """
select unnest(string_to_array(url, '/')) as word, strpos(url, '.') as dot, concat(ip, null, '\\') as address,
       ltrim(ip, '4') as rest, to_char(time, '%Y%m%d%H%M') as minute, 'it''s' as quote, length(referer) as n,
       cast(status as double) / 3 as third, date_part('hour', time) as hour, log(100) as log
from parsed
"""

[sink.words]
type = "sqlite"
table = "words"
sql = "select *, row_number() over (order by word, dot, address, minute, n) as row from words"

[sink.files]
type = "text"
folder = "out"
suffix = "json"
style = "json"
sql = "select word, count(*) as n, min(third) as third, cast(null as int) as nothing from words group by word order by word"

[table.minutes]
sql = "select status, window_start, window_end, count(*) as n, avg(product) as average from parsed group by status, window_start, window_end"
time = "time"
over = "parsed"
window = "10m"
slide = "5m"
delay = "720h"

[sink.minutes]
type = "sqlite"
from = "minutes"
table = "minutes"
key = ["status", "window_start", "window_end"]
"#;

fn once(home: &Path, arguments: &[&str]) -> Output {
    let job = home.join("job.toml").display().to_string();
    let mut command = TestJob::program(&[&["run", "--once", &job], arguments].concat());
    // Elsewhere than the job's folder, which its paths are relative to.
    command.current_dir("/").env("TMPDIR", home).env("SERVER_DIR", home.join("spark"));
    command.env("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC");
    command.output().expect("the program starts")
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    let output = once(home, arguments);
    assert!(output.status.success(), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    output
}

#[test]
fn both_engines_have_the_same_results() {
    if !peer("python3") {
        return;
    }
    let Some(_turn) = java_peers(&[]) else { return };
    let submit = interop("servers/spark-submit.sh").display().to_string();
    let kafka = "type = \"kafka\"\nservers = \"localhost:9092\"\ntopics = [\"streamingtopic\"]\n";
    let folder = "type = \"folder\"\npath = \"in\"\npattern = \"*.log\"\n";
    let changes = [(kafka, folder), ("batch = \"10s\"", "batch = \"arrival\"")];
    let job = example("product-clicks.toml", &changes) + MORE;
    let homes = [directory(), directory()];
    for home in &homes {
        write(home.path(), "job.toml", &job);
        fs::create_dir(home.path().join("in")).expect("the folder can be made");
        write(&home.path().join("in"), "1.log", access_log());
        write(&home.path().join("in"), "2.txt", "not to be read\n");
    }
    let [ours, theirs] = homes.each_ref().map(|home| home.path());
    let out = stdout(&run(ours, &[]));
    let spark_out = stdout(&run(theirs, &["--engine", "spark", "--master", "local[2]", "--spark-submit", &submit]));
    for (table, least) in [
        ("product_clicks", 22),
        ("day_clicks", 4),
        ("product_search_clicks", 14),
        ("odd", 124),
        ("words", 1000),
        ("minutes", 9),
    ] {
        let rows = |home: &Path| {
            let mut rows = query(&home.join("product-clicks/job.db"), &format!("select * from {table}"));
            rows.iter_mut().for_each(|rows| rows.sort());
            rows.unwrap_or_default()
        };
        let (expected, found) = (rows(ours), rows(theirs));
        assert!(expected.len() >= least, "{table} has only {} rows: {expected:?}", expected.len());
        let different = expected.iter().zip(&found).find(|(ours, theirs)| ours != theirs);
        assert!(
            expected.len() == found.len() && different.is_none(),
            "{table}: {} rows and {}: {different:?}",
            expected.len(),
            found.len()
        );
    }
    let text = |home: &Path| String::from_utf8(contents(&home.join("out"))).expect("it is text");
    assert!(text(ours).contains("{\"word\":\"category\",\"n\":120,"), "{}", text(ours));
    assert_eq!(text(ours), text(theirs));
    let names = files(&theirs.join("out"));
    assert!(names.len() == 1 && names[0].extension().is_some_and(|end| end == "json"), "{names:?}");
    let shown =
        |out: &str| -> Vec<String> { out.lines().filter(|line| line.starts_with('(')).map(str::to_owned).collect() };
    assert!(shown(&out).len() >= 8 && shown(&out) == shown(&spark_out), "{out}\n{spark_out}");
    let said = stderr(&once(theirs, &[]));
    assert!(said.contains("is of a job that ran on Spark; choose another folder"), "{said}");
}
