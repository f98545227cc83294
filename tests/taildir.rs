//! The taildir source through rotations, kills and restarts.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    Event, LOGGER, MEMORY, TestAgent, contents, directory, eventually, file_channel, file_roll, wait_for_kept_events,
};

/// Directories for logs, positions and what was delivered.
struct Place {
    home: TempDir,
}

impl Place {
    fn new() -> Self {
        let home = directory();
        for name in ["logs", "out"] {
            fs::create_dir(home.path().join(name)).expect("a directory");
        }
        Self { home }
    }

    fn log(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join("logs").join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let file = File::options().create(true).append(true).open(self.log(name));
        file.expect("a file").write_all(text.as_bytes()).expect("it can be written");
    }

    fn position_file(&self) -> std::path::PathBuf {
        self.home.path().join("state/position.json")
    }

    fn out(&self) -> std::path::PathBuf {
        self.home.path().join("out")
    }

    /// A taildir source `r1` of all logs whose names match.
    fn source(&self, pattern: &str) -> String {
        format!(
            "a1.sources = r1\na1.sources.r1.type = TAILDIR\na1.sources.r1.channels = c1\n\
             a1.sources.r1.filegroups = f1\na1.sources.r1.filegroups.f1 = {}/{pattern}\n\
             a1.sources.r1.positionFile = {}\na1.sources.r1.writePosInterval = 20\n",
            self.log("").display(),
            self.position_file().display()
        )
        .replace("//", "/")
    }

    fn start(&self, pattern: &str) -> TestAgent {
        TestAgent::start(&format!("{}{MEMORY}{}", self.source(pattern), file_roll(&self.out())))
    }

    fn expect(&self, text: &str) {
        let seen = eventually(|| (contents(&self.out()) == text.as_bytes()).then_some(()));
        assert!(seen.is_some(), "{:?} instead of {text:?}", String::from_utf8_lossy(&contents(&self.out())));
    }

    /// Waits until the position file says that this much of a log has been delivered.
    fn expect_position(&self, name: &str, position: u64) {
        let inode = fs::metadata(self.log(name)).expect("a file").ino();
        let entry = format!(r#"{{"inode":{inode},"pos":{position},"file":"{}"}}"#, self.log(name).display());
        let seen = eventually(|| fs::read_to_string(self.position_file()).ok()?.contains(&entry).then_some(()));
        assert!(seen.is_some(), "no {entry} in {:?}", fs::read_to_string(self.position_file()));
    }
}

#[test]
fn lines_arrive_as_they_are_written_through_a_rotation() {
    let place = Place::new();
    place.append("app.log", "1\n2\r\n");
    let mut agent = place.start(r"app\.log");
    place.expect("1\n2\n");
    place.append("app.log", "3\n");
    place.expect("1\n2\n3\n");
    fs::rename(place.log("app.log"), place.log("app.log.1")).expect("a rename");
    place.append("app.log.1", "4\n");
    place.append("app.log", "1\n");
    eventually(|| (contents(&place.out()).len() == 10).then_some(()));
    let mut lines: Vec<char> = String::from_utf8_lossy(&contents(&place.out())).replace('\n', "").chars().collect();
    assert_eq!(lines.split_off(3).len(), 2);
    place.expect_position("app.log", 2);
    // copytruncate
    fs::copy(place.log("app.log"), place.log("app.log.2")).expect("a copy");
    File::create(place.log("app.log")).expect("a file");
    place.append("app.log", "5\n6\n");
    let seen = eventually(|| contents(&place.out()).ends_with(b"5\n6\n").then_some(()));
    assert!(seen.is_some());
    assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 7);
    assert!(agent.terminate().success());
    assert_eq!(contents(&place.out()).len(), 14);
}

#[test]
fn a_restart_goes_on_where_the_last_run_stopped() {
    let place = Place::new();
    place.append("app.log", "1\nhalf");
    let mut agent = place.start(r"app\.log.*");
    place.expect("1\n");
    assert!(agent.terminate().success());
    place.append("app.log", " a line\n");
    fs::rename(place.log("app.log"), place.log("app.log.1")).expect("a rename");
    place.append("app.log", "1\n2\n");
    let _agent = place.start(r"app\.log.*");
    place.expect("1\nhalf a line\n1\n2\n");
}

#[test]
fn killed_it_repeats_nothing_that_was_noted() {
    let place = Place::new();
    let mut written = String::new();
    for round in 0..5 {
        let mut agent = place.start(r".*\.log");
        for line in 0..100 {
            let line = format!("{round} {line}\n");
            place.append("app.log", &line);
            written.push_str(&line);
        }
        place.expect(&written);
        place.expect_position("app.log", written.len() as u64);
        agent.signal(Signal::KILL);
        agent.wait();
        let line = format!("{round} while it was down\n");
        place.append("app.log", &line);
        written.push_str(&line);
    }
    let _agent = place.start(r".*\.log");
    place.expect(&written);
}

#[test]
fn killed_at_any_moment_it_loses_nothing() {
    let place = Place::new();
    let lines: Vec<String> = (0..30_000).map(|line| format!("{line:05}\n")).collect();
    place.append("app.log", &lines.concat());
    let channel = file_channel(place.home.path());
    for kill in 1..=3 {
        let mut agent = TestAgent::start(&format!("{}{channel}", place.source(".*")));
        agent.wait_for_line("Component type: SOURCE, name: r1 started");
        let seen = eventually(|| (agent.counter("SOURCE.r1", "EventAcceptedCount") >= 2000 * kill).then_some(()));
        assert!(seen.is_some());
        agent.signal(Signal::KILL);
        agent.wait();
    }
    let mut agent = TestAgent::start(&format!("{}{channel}{}", place.source(".*"), file_roll(&place.out())));
    place.expect_position("app.log", lines.concat().len() as u64);
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    assert!(agent.terminate().success());
    let delivered = contents(&place.out());
    let mut delivered: Vec<&[u8]> = delivered.split_inclusive(|byte| *byte == b'\n').collect();
    delivered.sort_unstable();
    delivered.dedup();
    assert!(delivered.concat() == lines.concat().as_bytes(), "{} lines of 30000", delivered.len());
}

#[test]
fn flumes_positions_are_taken_over_and_left_for_it() {
    let place = Place::new();
    place.append("b \"q\" <x>&'.log", "old\nnew\n");
    let name = "b \"q\" <x>&'.log";
    let inode = fs::metadata(place.log(name)).expect("a file").ino();
    fs::create_dir(place.home.path().join("state")).expect("a directory");
    // As Flume's JSON library writes it.
    let path = format!("{}/b \\\"q\\\" \\u003cx\\u003e\\u0026\\u0027.log", place.home.path().join("logs").display());
    fs::write(place.position_file(), format!(r#"[{{"inode":{inode},"pos":4,"file":"{path}"}}]"#)).expect("a file");
    let mut agent = place.start(r".*\.log");
    place.expect("new\n");
    assert!(agent.terminate().success());
    let positions = fs::read_to_string(place.position_file()).expect("the position file");
    assert_eq!(positions, format!(r#"[{{"inode":{inode},"pos":8,"file":"{path}"}}]"#));
}

#[test]
fn headers_and_events_of_several_lines() {
    let place = Place::new();
    let more = "fileHeader = true\nbyteOffsetHeader = true\nheaders.f1.kind = app\nmultiline.start = ^\\\\S\n\
                multiline.timeout = 50";
    let source = place.source(".*") + &crate::support::keys("sources.r1", more);
    let sink = format!("{}a1.sinks.k1.sink.serializer = avro_event\n", file_roll(&place.out()));
    let _agent = TestAgent::start(&format!("{source}{MEMORY}{sink}"));
    place.append("app", "error\n  at x\n  at y\nfine\n");
    let path = place.log("app").display().to_string();
    let event =
        |offset: &str, body: &str| Event::new(&[("byteoffset", offset), ("kind", "app"), ("file", &path)], body);
    let kept = wait_for_kept_events(&place.out(), 2);
    assert_eq!(kept, [event("0", "error\n  at x\n  at y"), event("20", "fine")]);
}

#[test]
fn a_full_channel_holds_it_back_and_loses_nothing() {
    let place = Place::new();
    let lines: String = (0..5000).map(|line| format!("{line}\n")).collect();
    place.append("app.log", &lines);
    let small = "a1.channels.c1.capacity = 100\na1.channels.c1.transactionCapacity = 100\n";
    let _agent = TestAgent::start(&format!("{}{MEMORY}{small}{}", place.source(".*"), file_roll(&place.out())));
    place.expect(&lines);
}

#[test]
fn what_interceptors_drop_is_done_with() {
    let place = Place::new();
    let dropped = "DEBUG\n".repeat(1000);
    place.append("app.log", &dropped);
    let filter = "interceptors = i1\ninterceptors.i1.type = regex_filter\ninterceptors.i1.regex = DEBUG\n\
                  interceptors.i1.excludeEvents = true";
    let source = place.source(".*") + &crate::support::keys("sources.r1", filter);
    let agent = TestAgent::start(&format!("{source}{MEMORY}{}", file_roll(&place.out())));
    place.expect_position("app.log", dropped.len() as u64);
    place.append("app.log", &format!("{dropped}1\n{dropped}2\n"));
    place.expect("1\n2\n");
    place.expect_position("app.log", 3 * dropped.len() as u64 + 4);
    assert_eq!(agent.counter("SOURCE.r1", "EventReceivedCount"), 3002);
}

#[test]
fn a_directory_that_is_not_there_yet() {
    let place = Place::new();
    let logs = place.log("");
    fs::remove_dir(&logs).expect("it goes");
    let agent = TestAgent::start(&format!("{}{MEMORY}{LOGGER}", place.source(".*")));
    agent.wait_for_line(&format!(
        "Directory does not exist: {}",
        Path::new(&logs).display().to_string().trim_end_matches('/')
    ));
    fs::create_dir(&logs).expect("it comes");
    place.append("app", "hello\n");
    assert!(agent.wait_for_events(1)[0].ends_with("hello }"));
}

#[test]
fn wrong_keys_are_told() {
    let place = Place::new();
    let source = place.source("app[.log").replace("filegroups = f1", "filegroups = f1 f2");
    let agent = TestAgent::start(&format!("{source}a1.sources.r1.headers.x = y\n{MEMORY}{LOGGER}"));
    let line = agent.wait_for_line("a regular expression after the last /");
    assert!(line.contains("a [ without its ]"), "{line}");
    agent.wait_for_line("headers.<group>.<header>");
    agent.wait_for_line("the group f2 has no filegroups.f2 and is left out");
}
