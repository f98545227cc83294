//! A job that is started again after something around it has changed.

use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::{TestJob, directory, query, write};

/// A job that counts lines of files and keeps the counts in a table.
fn job(sink: &str) -> String {
    format!(
        "checkpoint = \"state\"\n[source.lines]\ntype = \"folder\"\npath = \"in\"\nstart = \"earliest\"\n\
         [table.counts]\nsql = \"select value, count(*) as n from lines group by value\"\n\
         [sink.kept]\ntype = \"sqlite\"\ntable = \"kept\"\n{sink}\n"
    )
}

const COUNTS: &str = "from = \"counts\"\nkey = [\"value\"]";

/// Runs a job on one more file of lines, until that is done.
fn run(home: &Arc<TempDir>, sink: &str, file: &str, lines: &str) -> (bool, TestJob) {
    let folder = home.path().join("in");
    fs::create_dir_all(&folder).expect("the folder can be written to");
    write(&folder, file, lines);
    let mut job = TestJob::start_in(Arc::clone(home), &job(sink), &["--once"]);
    (job.wait().success(), job)
}

#[test]
fn a_sink_may_have_more_columns_and_says_what_else_it_cannot_have() {
    let home = Arc::new(directory());
    assert!(run(&home, COUNTS, "1", "a\nb\n").0);
    let twice = "sql = \"select value, n, n * 2 as twice from counts where n > 1\"\nkey = [\"value\"]";
    let (ended_well, job) = run(&home, twice, "2", "a\n");
    assert!(ended_well, "{}", job.log());
    job.wait_for_rows("state", "select value, n, twice from kept", &[&["a", "2", "4"], &["b", "1", "null"]]);
    let (ended_well, job) = run(&home, &twice.replace("[\"value\"]", "[\"value\", \"n\"]"), "3", "b\n");
    assert!(!ended_well);
    job.wait_for_log("sink kept: table kept: its key has not n; give the sink another `table`");
    let (ended_well, job) = run(&home, twice, "4", "a\n");
    assert!(ended_well, "{}", job.log());
    job.wait_for_rows("state", "select value, n, twice from kept", &[&["a", "3", "6"], &["b", "2", "4"]]);
}

#[test]
fn a_clock_that_was_set_back_is_named() {
    let home = Arc::new(directory());
    assert!(run(&home, COUNTS, "1", "a\n").0);
    let database = home.path().join("state/job.db");
    let ahead = "update flume_rs_job set value = '7 99999999999000' where key = 'last'";
    let changed = rusqlite::Connection::open(&database).and_then(|database| database.execute(ahead, []));
    assert_eq!(changed, Ok(1));
    let (ended_well, job) = run(&home, COUNTS, "2", "a\n");
    assert!(ended_well, "{}", job.log());
    job.wait_for_log("ahead of the clock, which was set back");
    let last = query(&database, "select value from flume_rs_job where key = 'last'").expect("it can be read");
    assert!(last[0][0].starts_with("8 99999999999001"), "time goes on: {last:?}");
    job.wait_for_rows("state", "select value, n from kept", &[&["a", "2"]]);
}
