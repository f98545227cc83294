//! Job files with mistakes, as `check` and `run` find them.

use std::process::Stdio;

use crate::support::{TestJob, directory, stderr, stdout, write};

fn check(text: &str) -> (bool, String) {
    let home = directory();
    let path = write(home.path(), "job.toml", text);
    let output = TestJob::command(&["check", &path.display().to_string()]);
    let prefix = format!("{}/", home.path().display());
    (output.status.success(), format!("{}{}", stdout(&output), stderr(&output)).replace(&prefix, ""))
}

const CHECKPOINT: &str = "checkpoint = \"state\"\n";
const SOURCE: &str = "[source.lines]\ntype = \"socket\"\nconnect = \"localhost:9999\"\n";

#[test]
fn what_a_job_will_do_is_shown() {
    let (right, text) = check(&format!(
        "{SOURCE}[table.counts]\nsql = \"select value, count(*) as n from lines group by value\"\n\
         [sink.out]\ntype = \"print\"\nfrom = \"counts\"\n"
    ));
    assert!(right, "{text}");
    assert!(text.contains("table counts: value text, n bigint"), "{text}");
}

#[test]
fn sql_that_cannot_be_planned_is_told_with_its_view_and_line() {
    let (right, text) = check(&format!("{SOURCE}[view.words]\nsql = \"select valu from lines\"\n"));
    assert!(!right);
    assert!(text.starts_with("job.toml:5: words: ") && text.contains("valu"), "{text}");
    let (_, text) = check(&format!(
        "country-database = \"none.mmdb\"\n{SOURCE}[view.words]\nsql = \"select country(value), valu from lines\"\n"
    ));
    assert!(text.starts_with("job.toml:1: the country database") && text.contains("\njob.toml:6: words: "), "{text}");
    let (_, text) = check(&format!("{SOURCE}[table.t]\nsql = \"select value from lines\"\n"));
    assert!(text.contains("keeps the states of one aggregate"), "{text}");
    let (_, text) =
        check(&format!("{SOURCE}[view.a]\nsql = \"select * from b\"\n[view.b]\nsql = \"select * from a\"\n"));
    assert!(text.contains("a, b read each other in a circle"), "{text}");
    let (_, text) = check(&format!("{SOURCE}[sink.out]\ntype = \"print\"\nfrom = \"line\"\n"));
    assert!(text.contains("there is no source, view or table `line`; did you mean `lines`?"), "{text}");
}

#[test]
fn mistakes_of_sinks_are_found_before_anything_runs() {
    let sink = |keys: &str| check(&format!("{SOURCE}[sink.out]\nfrom = \"lines\"\n{keys}\n")).1;
    let text = sink("type = \"mysql\"\nurl = \"mysql://me:secret@host\"\ntable = \"t\"");
    assert!(text.contains("it names no database") && !text.contains("secret"), "{text}");
    let text = sink("type = \"postgres\"\nurl = \"http://host\"\ntable = \"t\"");
    assert!(text.contains("expected postgres://user:password@host:5432/database"), "{text}");
    let text = sink("type = \"postgres\"\nurl = \"postgres://host/a\"\ntable = \"t\"\nkey = [\"valu\"]");
    assert!(
        text.starts_with("job.toml:4: out: `key`: there is no column `valu`") && text.contains("`value`?"),
        "{text}"
    );
    let text = sink("type = \"redis\"\nurl = \"redis://host\"\nkey = [\"value\"]");
    assert!(text.contains("either `hash` or `key-prefix` must be there"), "{text}");
    let text = sink("type = \"hbase\"\nurl = \"http://host\"\ntable = \"t\"\nrow = \"value\"\nfamily = \"f\"");
    assert!(text.contains("there is no column besides `value`, the row key"), "{text}");
    let text = sink(
        "type = \"hbase\"\nurl = \"http://host\"\ntable = \"t\"\nrow = \"value\"\nfamily = \"f\"\ncolumns = [\"n\"]",
    );
    assert!(text.contains("`columns`: there is no column `n`"), "{text}");
    let text = sink("type = \"text\"\nfolder = \"out\"\nprefix = \"a/b\"");
    assert!(text.contains("`a/b` is to be a part of a file's name"), "{text}");
}

#[test]
fn two_sinks_do_not_write_to_the_same_place() {
    let both = |first: &str, second: &str| {
        let sink = |name: &str, keys: &str| {
            format!("[sink.{name}]\nsql = \"select value, value as word, 1 as n from lines\"\n{keys}\n")
        };
        check(&format!("{CHECKPOINT}{SOURCE}{}{}", sink("a", first), sink("b", second)))
    };
    let text = "type = \"text\"\nfolder = \"out\"\nprefix = \"p\"";
    let table = "type = \"sqlite\"\ntable = \"t\"\nkey = [\"value\"]";
    let mysql = "type = \"mysql\"\nurl = \"mysql://me:secret@host/shop\"\ntable = \"t\"\nkey = [\"value\", \"word\"]";
    let redis = "type = \"redis\"\nurl = \"redis://host\"\nkey = [\"value\"]\nhash = \"h\"";
    let hbase =
        "type = \"hbase\"\nurl = \"http://host\"\ntable = \"t\"\nrow = \"value\"\nfamily = \"f\"\ncolumns = [\"n\"]";
    let kafka = "type = \"kafka\"\nservers = \"host:1\"\ntopic = \"t\"\ntransactional-id = \"one\"";
    for (sink, other) in [
        (text, text.replace("\"p\"", "\"q\"")),
        (table, format!("{table}\npath = \"other.db\"")),
        (mysql, mysql.replace("host/shop", "host/office")),
        (redis, redis.replace("hash", "key-prefix")),
        (hbase, hbase.replace("\"n\"", "\"word\"")),
        (kafka, kafka.replace("\"one\"", "\"two\"")),
    ] {
        let (_, text) = both(sink, sink);
        let line = 7 + sink.lines().count();
        assert!(text.starts_with(&format!("job.toml:{line}: b: ")), "{text}");
        assert!(text.contains("is what sink a writes") && !text.contains("secret"), "{text}");
        let (right, text) = both(sink, &other);
        assert!(right, "{text}");
    }
    let added = table.replace("key = [\"value\"]", "");
    let (right, text) = both(&added, &added);
    assert!(right, "rows that are only added do no harm: {text}");
}

#[test]
fn a_mode_is_for_a_table() {
    let counts = "[table.counts]\nsql = \"select value, count(*) as n from lines group by value\"\n";
    let sink = |keys: &str| check(&format!("{CHECKPOINT}{SOURCE}{counts}[sink.out]\nmode = \"all\"\n{keys}\n"));
    for input in ["from = \"lines\"", "sql = \"select * from counts\""] {
        let (_, text) = sink(&format!("type = \"print\"\n{input}"));
        assert!(text.starts_with("job.toml:7: out: `mode` is for a table"), "{text}");
        let (right, text) = sink(&format!("type = \"sqlite\"\ntable = \"t\"\nkey = [\"value\"]\n{input}"));
        assert!(right, "rows that are gone are removed: {text}");
    }
    let (right, text) = sink("type = \"print\"\nfrom = \"counts\"");
    assert!(right, "{text}");
}

#[test]
fn a_sqlite_sink_without_a_file_needs_a_checkpoint() {
    let sink = "[sink.out]\nfrom = \"lines\"\ntype = \"sqlite\"\ntable = \"t\"\n";
    let (right, text) = check(&format!("{SOURCE}{sink}"));
    assert!(!right && text.starts_with("job.toml:4: out: without a `checkpoint`"), "{text}");
    for (before, after) in [("", "path = \"other.db\"\n"), (CHECKPOINT, "")] {
        let (right, text) = check(&format!("{before}{SOURCE}{sink}{after}"));
        assert!(right, "{text}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_their_lines() {
    let (right, text) = check(
        r#"time-zone = "Mars"
ui = "here"
[source.lines]
type = "socket"
connect = "localhost:9999"
[source.others]
type = "sockett"
[view.words]
sql = """
select value,
  valu
from lines"""
[table.grouped]
sql = """
select value, count(*) as n
from lines
group by val"""
[view.unsaid]
sql = "select * from others join words using (value)"
[view.itself]
sql = "select * from itself"
[table.counts]
sql = """
select count(*) as n
fro lines x y"""
[table.more]
sql = "select cuont(*) as n from lines"
[sink.unsaid]
type = "print"
from = "counts"
[sink.out]
type = "print"
sql = '''
select *
from lnes'''
[chart.both]
kind = "bar"
from = "lines"
sql = "select 1"
"#,
    );
    assert!(!right);
    let told: Vec<&str> = text.lines().collect();
    let expected = [
        ("1", "`time-zone`: `Mars` is no time zone"),
        ("2", "`ui`: `here` is no address"),
        ("7", "did you mean `socket`?"),
        ("11", "words: Schema error: No field named valu"),
        ("17", "grouped: Schema error: No field named val."),
        ("21", "itself: it reads itself"),
        ("25", "counts: Expected: end of statement, found: fro"),
        ("27", "more: there is no function `cuont`; did you mean `count`?"),
        ("35", "out: there is no source, view or table `lnes`; did you mean `lines`?"),
        ("39", "[chart.both] either `from` or `sql`, not both"),
    ];
    assert_eq!(told.len(), expected.len() + 1, "{text}");
    for (told, (line, what)) in told.iter().zip(expected) {
        assert!(told.starts_with(&format!("job.toml:{line}: ")) && told.contains(what), "{line}: {text}");
    }
}

#[test]
fn what_is_for_spark_is_refused_elsewhere() {
    let output = TestJob::command(&["run", "none.toml", "--master", "local[2]"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--master is for Spark: add --engine spark"));
}

#[test]
fn mistakes_that_nobody_reads_are_no_panic() {
    for command in ["check", "run"] {
        let mut child = TestJob::program(&[command, "none.toml"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        drop(child.stderr.take());
        let ended = child.wait().expect("it ends");
        assert_eq!(ended.code(), Some(1));
    }
}

#[test]
fn a_job_without_a_source_is_a_mistake() {
    let (ok, text) = check("[view.one]\nsql = \"select 1\"\n");
    assert!(!ok && text.starts_with("job.toml:1: there is no [source.NAME]"), "{text}");
}
