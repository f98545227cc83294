//! The real Flume goes on where flume-rs stopped in the middle of a file, and the other way round.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::{
    Launch, MEMORY, TestAgent, contents, directory, eventually, file_roll, java_peers, keys, real_flume,
};

const STUCK: &str =
    "a1.channels.c1.capacity = 10\na1.channels.c1.transactionCapacity = 10\na1.channels.c1.keep-alive = 0\n";

fn ours() -> Launch {
    Launch::new()
}

fn theirs() -> Launch {
    real_flume("1.11.0")
}

/// Lets one agent deliver ten events into a channel that nobody empties, kills it, and lets the other one go on.
fn hand_over(first: Launch, second: Launch, source: &str, full: &str, out: &Path, expected: &str) -> TestAgent {
    let mut agent = first.config(&format!("{source}{MEMORY}{STUCK}"));
    agent.wait_for_line(full);
    agent.signal(Signal::KILL);
    agent.wait();
    let agent = second.config(&format!("{source}{MEMORY}{}", file_roll(out)));
    let seen = eventually(|| (contents(out) == expected.as_bytes()).then_some(()));
    assert!(seen.is_some(), "{:?} instead of {expected:?}", String::from_utf8_lossy(&contents(out)));
    agent
}

const OURS_IS_FULL: &str = "waiting, nothing is lost";
const THEIRS_IS_FULL: &str = "cannot write data now. The source will try again after";

fn spooldir(directory: &Path, more: &str) -> String {
    format!(
        "a1.sources = r1\na1.sources.r1.type = spooldir\na1.sources.r1.channels = c1\na1.sources.r1.spoolDir = {}\n{}",
        directory.display(),
        keys("sources.r1", &format!("batchSize = 5\npollDelay = 50\n{more}"))
    )
}

#[test]
fn trackers_are_handed_over_both_ways() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let lines: Vec<String> = (0..30).map(|line| format!("line é {line}\n")).collect();
    for (first, second, full) in [(ours(), theirs(), OURS_IS_FULL), (theirs(), ours(), THEIRS_IS_FULL)] {
        let (spool, out) = (directory(), directory());
        fs::write(spool.path().join("a"), lines.concat()).expect("a file");
        let source = spooldir(spool.path(), "");
        let mut agent = hand_over(first, second, &source, full, out.path(), &lines[10..].concat());
        let done = eventually(|| spool.path().join("a.COMPLETED").exists().then_some(()));
        assert!(done.is_some());
        agent.terminate();
    }
}
