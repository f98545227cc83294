//! What all scenarios share: agents as processes, their peers, and waiting.

mod agent;
mod avro;
mod conversation;
mod events;
mod http;
mod java;
mod kafka;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use agent::{Launch, TestAgent, counter};
pub use avro::{Answer, AvroClient, AvroPeer, AvroServer, array, batch, first_append, greeting, request};
pub use conversation::Conversation;
pub use events::{Event, avro_to_files, expect_kept_events, kept_events, keys, listed, wait_for_kept_events};
pub use http::{Reply, http, post};
pub use java::{free_port, interop, java, java_peers, make_key_stores, real_flume, wait_for_port};
pub use kafka::{KAFKA_USER, Kafka, Message};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_flume-rs");

/// How long a condition may take before a test fails. Nothing here takes nearly as long, but Java on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A netcat source `r1` on a port of the system's choice, into `c1`.
pub const NETCAT: &str = "\
a1.sources = r1
a1.sources.r1.type = netcat
a1.sources.r1.bind = localhost
a1.sources.r1.port = 0
a1.sources.r1.channels = c1
";

/// A memory channel `c1`.
pub const MEMORY: &str = "\
a1.channels = c1
a1.channels.c1.type = memory
";

/// A logger sink `k1` from `c1`.
pub const LOGGER: &str = "\
a1.sinks = k1
a1.sinks.k1.type = logger
a1.sinks.k1.channel = c1
";

/// A null sink `k1` from `c1`.
pub const NULL: &str = "\
a1.sinks = k1
a1.sinks.k1.type = null
a1.sinks.k1.channel = c1
";

/// A file_roll sink `k1` from `c1` that never rolls, and the directory it writes to.
pub fn file_roll(directory: &Path) -> String {
    format!(
        "a1.sinks = k1\na1.sinks.k1.type = file_roll\na1.sinks.k1.channel = c1\n\
         a1.sinks.k1.sink.rollInterval = 0\na1.sinks.k1.sink.directory = {}\n",
        directory.display()
    )
}

/// A file channel `c1` in a directory that outlives the agent.
pub fn file_channel(home: &Path) -> String {
    let home = home.display();
    format!(
        "a1.channels = c1\na1.channels.c1.type = file\na1.channels.c1.checkpointDir = {home}/checkpoint\n\
         a1.channels.c1.dataDirs = {home}/data1,{home}/data2\na1.channels.c1.minimumRequiredSpace = 1048576\n"
    )
}

/// A directory that goes with the test.
pub fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// Calls `condition` until it gives something or the deadline is over.
pub fn eventually<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The files of a directory in the order of their names; none when it is not there.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// The bytes of all files of a directory, one after the other.
pub fn contents(directory: &Path) -> Vec<u8> {
    files(directory).iter().flat_map(|file| fs::read(file).unwrap_or_default()).collect()
}

/// Writes a file of a directory and gives its path.
pub fn write(directory: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).expect("the temporary directory can be written to");
    path
}

/// Runs the program until it ends by itself.
pub fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().expect("the program under test starts")
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether a real peer is there. Without it a test is skipped with a word; in CI it fails.
pub fn peer(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "{program} is not installed");
        // Not by `eprintln!`, which the test harness would keep to itself.
        let _nobody_listens = writeln!(std::io::stderr(), "SKIPPED: {program} is not installed");
    }
    found
}

/// The message of a log line in the console's layout.
pub fn message(line: &str) -> &str {
    line.split_once(")] ").map_or(line, |(_, message)| message)
}

/// A text with every digit replaced by `9`, to compare layouts.
pub fn shape(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect()
}
