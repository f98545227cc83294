//! Rows by the clock.

use crate::support::{TestJob, eventually};

#[test]
fn every_value_comes_once_even_if_the_job_is_killed() {
    let text = "batch = \"20ms\"\ncheckpoint = \"state\"\n[source.rows]\ntype = \"rate\"\nrows-per-second = 1000\n\
                [sink.kept]\ntype = \"sqlite\"\nfrom = \"rows\"\ntable = \"rows\"\n";
    let mut job = TestJob::start(text);
    let mut last = 0;
    for _ in 0..3 {
        let sql = "select count(*), count(distinct value), min(value), max(value) + 1 from rows";
        let seen = eventually(|| {
            let row = job.query("state", sql)?.pop()?;
            let numbers: Vec<u64> = row.iter().filter_map(|number| number.parse().ok()).collect();
            (numbers.len() == 4 && numbers[0] > last + 100).then_some(numbers)
        });
        let seen = seen.unwrap_or_else(|| panic!("it does not go on:\n{}", job.log()));
        last = seen[0];
        assert_eq!(seen, [last, last, 0, last]);
        job = job.kill_and_restart(text);
    }
}

#[test]
fn it_has_no_format() {
    for key in ["format = \"json\"", "columns = [\"a\"]"] {
        let text = format!("[source.rows]\ntype = \"rate\"\n{key}\n");
        let mut job = TestJob::start(&text);
        assert!(!job.wait().success());
        job.wait_for_log("a source of type rate has columns of its own");
    }
}
