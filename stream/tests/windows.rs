//! Windows: by the time of the batches, and by a time in the rows.

use std::collections::BTreeMap;

use crate::support::{Server, TestJob, eventually, stderr, stdout};

fn job(server: &Server) -> String {
    format!(
        r#"
batch = "50ms"
checkpoint = "state"
[source.lines]
type = "socket"
connect = "{}"
[view.words]
sql = "select unnest(string_to_array(value, ' ')) as word from lines"
[view.batches]
sql = "select word, count(*) as n, cast(batch_time() as bigint) as at from words group by word"
[table.added]
sql = "select word, count(*) as n from words group by word"
window = "400ms"
slide = "100ms"
[table.merged]
sql = "select word, count(*) as n from words group by word"
window = "400ms"
slide = "100ms"
inverse = false
[sink.batches]
type = "sqlite"
from = "batches"
table = "batches"
[sink.added]
type = "sqlite"
sql = "select word, n, cast(batch_time() as bigint) as at from added"
table = "added"
[sink.merged]
type = "sqlite"
sql = "select word, n, cast(batch_time() as bigint) as at from merged"
table = "merged"
[sink.now]
type = "sqlite"
from = "added"
mode = "all"
table = "now"
key = ["word"]
"#,
        server.address()
    )
}

/// Counts by word and time.
fn counts(job: &TestJob, table: &str) -> BTreeMap<(String, i64), i64> {
    let rows = job.query("state", &format!("select word, at, n from {table}")).unwrap_or_default();
    let number = |text: &str| text.parse().expect("it is a number");
    rows.into_iter().map(|row| ((row[0].clone(), number(&row[1])), number(&row[2]))).collect()
}

/// Each window has what its batches had; whichever batches there were, and whenever they came.
fn windows_are_right(job: &TestJob) -> usize {
    let batches = counts(job, "batches");
    let added = counts(job, "added");
    for ((word, at), n) in &added {
        let end = at - at % 100;
        let is_in = |(other, time): &(String, i64)| other == word && *time <= end && *time > end - 400;
        let expected: i64 = batches.iter().filter(|(key, _)| is_in(key)).map(|(_, n)| n).sum();
        assert_eq!(*n, expected, "{word} in the window that ends at {end}, shown at {at}: {batches:?}");
    }
    assert_eq!(counts(job, "merged"), added);
    added.len()
}

#[test]
fn windows_slide_over_the_batches_and_survive_a_kill() {
    let mut server = Server::new();
    let text = job(&server);
    let job = TestJob::start(&text);
    server.accept();
    for line in ["a a b\n", "b\n", "a c\n"] {
        let before = counts(&job, "added").len();
        server.send(line);
        let shown = eventually(|| (counts(&job, "added").len() > before).then_some(()));
        assert!(shown.is_some(), "no window was shown:\n{}", job.log());
    }
    let job = job.kill_and_restart(&text);
    server.accept();
    server.send("c c\n");
    let shown = || counts(&job, "added").iter().any(|((word, _), n)| word == "c" && *n >= 2);
    assert!(eventually(|| shown().then_some(())).is_some(), "{:?}\n{}", counts(&job, "added"), job.log());
    // Words leave with the batches that they were in.
    job.wait_for_rows("state", "select * from now", &[]);
    assert!(windows_are_right(&job) > 3);
}

#[test]
fn each_row_is_in_a_window_that_is_shown_through_a_pause_and_a_kill() {
    let text = r#"
batch = "100ms"
checkpoint = "state"
[source.numbers]
type = "rate"
rows-per-second = 100
[table.merged]
sql = "select count(*) as n, min(value) as lo, max(value) as hi from numbers"
window = "300ms"
[table.added]
sql = "select count(*) as n, sum(value) as s from numbers"
window = "300ms"
[sink.merged]
type = "sqlite"
sql = "select n, lo, hi, cast(batch_time() as bigint) as at from merged"
table = "merged"
[sink.added]
type = "sqlite"
sql = "select n, s, cast(batch_time() as bigint) as at from added"
table = "added"
"#;
    let windows = |job: &TestJob| -> Vec<[i64; 4]> {
        let sql = "select n, lo, hi, s from merged join added using (at, n) where n > 0 order by at";
        let rows = job.query("state", sql).unwrap_or_default();
        let number = |text: &String| text.parse().expect("it is a number");
        rows.iter().map(|row| [0, 1, 2, 3].map(|column| number(&row[column]))).collect()
    };
    let wait_for_more = |job: &TestJob| {
        let before = windows(job).len();
        assert!(eventually(|| (windows(job).len() > before + 2).then_some(())).is_some(), "{}", job.log());
    };
    // Long enough to miss several windows: that is what this is about.
    let pause = || std::thread::sleep(std::time::Duration::from_millis(1300));
    let mut job = TestJob::start(text);
    for _ in 0..2 {
        wait_for_more(&job);
        job.signal(rustix::process::Signal::STOP);
        pause();
        job.signal(rustix::process::Signal::CONT);
        wait_for_more(&job);
        job.kill();
        pause();
        job = job.kill_and_restart(text);
    }
    wait_for_more(&job);
    let mut next = 0;
    for [n, lo, hi, sum] in windows(&job) {
        assert_eq!((lo, hi - lo + 1, sum), (next, n, (lo..=hi).sum()), "{:?}\n{}", windows(&job), job.log());
        next = hi + 1;
    }
}

#[test]
fn windows_by_time_are_closed_once_and_late_rows_are_kept_aside() {
    let mut server = Server::new();
    let text = format!(
        r#"
batch = "50ms"
checkpoint = "state"
time-zone = "UTC"
[source.clicks]
type = "socket"
connect = "{}"
format = "delimited"
delimiter = ","
columns = ["at timestamp", "page text"]
[table.seen]
sql = "select count(*) as n from clicks"
[table.minutes]
sql = "select page, window_end, count(*) as n from clicks group by page, window_end"
time = "at"
over = "clicks"
window = "1m"
delay = "30s"
emit = "final"
[table.halves]
sql = "select window_start, count(*) as n from clicks group by window_start"
time = "at"
over = "clicks"
window = "1m"
slide = "30s"
[sink.seen]
type = "sqlite"
from = "seen"
table = "seen"
[sink.minutes]
type = "sqlite"
from = "minutes"
table = "minutes"
[sink.halves]
type = "sqlite"
from = "halves"
table = "halves"
key = ["window_start"]
[sink.late]
type = "sqlite"
from = "minutes_late"
table = "late"
"#,
        server.address()
    );
    let seen = |job: &TestJob, n: &str| job.wait_for_rows("state", "select max(n) from seen", &[&[n]]);
    let minutes = "select page, substr(window_end, 12, 5), n from minutes";
    let job = TestJob::start(&text);
    server.accept();
    server.send("2024-05-30 12:00:05,/a\n2024-05-30 12:00:50,/b\n2024-05-30 12:01:20,/a\n");
    seen(&job, "3");
    let job = job.kill_and_restart(&text);
    server.accept();
    // In time, although it is earlier than what was seen; and the one that closes the first minute.
    server.send("2024-05-30 12:00:59,/b\n2024-05-30 12:01:30,/c\n");
    seen(&job, "5");
    job.wait_for_rows("state", minutes, &[&["/a", "12:01", "1"], &["/b", "12:01", "2"]]);
    server.send("2024-05-30 12:00:10,/a\n2024-05-30 12:03:00,/d\n");
    seen(&job, "7");
    let second: [&[&str]; 4] =
        [&["/a", "12:01", "1"], &["/b", "12:01", "2"], &["/a", "12:02", "1"], &["/c", "12:02", "1"]];
    job.wait_for_rows("state", minutes, &second);
    job.wait_for_rows("state", "select substr(at, 12, 8), page from late", &[&["12:00:10", "/a"]]);
    job.wait_for_log("come after their windows were closed");
    // Without a delay, a row counts in those of its windows that are still open.
    let halves = [("11:59:30", "1"), ("12:00:00", "2"), ("12:00:30", "3"), ("12:01:00", "2"), ("12:01:30", "1")];
    let halves = halves.into_iter().chain([("12:02:30", "1"), ("12:03:00", "1")]);
    let halves: Vec<[&str; 2]> = halves.map(|(start, n)| [start, n]).collect();
    let halves: Vec<&[&str]> = halves.iter().map(|row| row.as_slice()).collect();
    job.wait_for_rows("state", "select substr(window_start, 12, 8), n from halves", &halves);
}

#[test]
fn a_window_that_does_not_fit_the_batches_is_refused() {
    let server = Server::new();
    let mut job = TestJob::start(&job(&server).replace("slide = \"100ms\"", "slide = \"80ms\""));
    assert!(!job.wait().success());
    job.wait_for_log("[table.added] `slide`: 80ms is not a multiple of 50ms, the job's `batch`");
}

#[test]
fn the_examples_can_be_run() {
    let examples = [
        ("stateful-count", "table counts: word text, n bigint\n"),
        ("windowed-count", "what comes is added, what leaves is subtracted"),
        ("windowed-merge", "table counts: word text, n bigint (windows over batches: each is put together anew)"),
        ("event-time", "(windows by time)"),
    ];
    for (name, shown) in examples {
        let path = format!("{}/../examples/stream/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let output = TestJob::command(&["check", &path]);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        assert!(stdout(&output).contains(shown), "{name}: {}", stdout(&output));
    }
}
