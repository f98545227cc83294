//! Words of files that appear in a folder.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use crate::support::{TestJob, directory, eventually, example, sentences, with_totals, write};

/// The example's job, with the folder `incoming` beside it.
fn job(batch: &str) -> String {
    let text = example("word-count-folder.toml", &[]).replace("\"5s\"", batch);
    text.replace("/tmp/flume-incoming", "incoming").replace("/tmp/flume-stream/word-count-folder", "state")
}

/// Moves a file in.
fn put(home: &Path, name: &str, text: impl AsRef<[u8]>) {
    let beside = write(home, "beside", text);
    fs::rename(beside, home.join("incoming").join(name)).expect("it can be moved");
}

#[test]
fn words_of_new_files_are_counted() {
    let home = Arc::new(directory());
    fs::create_dir(home.path().join("incoming")).expect("a folder");
    put(home.path(), "old", "old\n");
    let text = job("\"50ms\"");
    let mut job = TestJob::start_in(home, &text, &[]);
    job.wait_for_out(" ms\n");
    put(job.home(), ".hidden", "hidden\n");
    put(job.home(), "one", "hello world\nhello");
    job.wait_for_out("(hello,2)\n(world,1)\n\n");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"bye  bye\r\n").expect("it fits");
    put(job.home(), "two.gz", packed.finish().expect("it fits"));
    job.wait_for_out("(bye,2)\n\n");
    assert!(job.terminate().success());
    assert!(!job.out().contains("old") && !job.out().contains("hidden"), "{}", job.out());
}

#[test]
fn no_line_is_lost_or_counted_twice_however_often_the_job_is_killed() {
    let home = Arc::new(directory());
    fs::create_dir(home.path().join("incoming")).expect("a folder");
    let text = with_totals(&job("\"20ms\"\nmax-rows = 50").replace("latest", "earliest"));
    let (lines, words) = sentences(6000);
    for (number, part) in lines[..5000].chunks(1250).enumerate() {
        put(home.path(), &format!("part-{number}"), part.join("\n"));
    }
    let mut job = TestJob::start_in(Arc::clone(&home), &text, &[]);
    let counted = |job: &TestJob| -> u64 {
        let rows = job.query("state", "select sum(n) from totals").unwrap_or_default();
        rows.first().and_then(|row| row[0].parse().ok()).unwrap_or(0)
    };
    let mut last = 0;
    for _ in 0..4 {
        let now = eventually(|| Some(counted(&job)).filter(|now| *now > last));
        last = now.unwrap_or_else(|| panic!("it does not go on:\n{}", job.log()));
        job = job.kill_and_restart(&text);
    }
    put(home.path(), "last", lines[5000..].join("\n"));
    job.wait_for_totals("state", &words);
}

#[test]
fn a_file_that_is_gone_before_it_was_counted_is_told() {
    let home = Arc::new(directory());
    fs::create_dir(home.path().join("incoming")).expect("a folder");
    let text = job("\"20ms\"\nmax-rows = 1").replace("latest", "earliest");
    put(home.path(), "part", "word\n".repeat(100_000));
    let mut job = TestJob::start_in(Arc::clone(&home), &text, &[]);
    job.wait_for_out("(word,1)\n");
    job.kill();
    fs::rename(home.path().join("incoming/part"), home.path().join("part")).expect("it is there");
    let job = TestJob::start_in(Arc::clone(&home), &text, &[]);
    let told = job.wait_for_log("source lines: ");
    assert!(told.contains("incoming/part: it is gone; "), "{told}");
    fs::rename(home.path().join("part"), home.path().join("incoming/part")).expect("it goes back");
    job.wait_for_out("(word,1)\n");
}
