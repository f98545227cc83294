//! The file channel in a whole agent: what a client has been told to be accepted survives the agent.

use std::collections::HashSet;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    Answer, AvroClient, Conversation, LOGGER, NETCAT, TestAgent, batch, contents, directory, eventually, file_channel,
    file_roll,
};

fn source_only(home: &TempDir) -> TestAgent {
    TestAgent::start(&format!("{NETCAT}{}", file_channel(home.path())))
}

fn kill(mut agent: TestAgent) {
    agent.signal(Signal::KILL);
    agent.wait();
}

#[test]
fn events_wait_for_a_sink_over_a_kill() {
    let home = directory();
    let agent = source_only(&home);
    let mut nc = Conversation::with(agent.port());
    nc.send("kept-1\nkept-2\n");
    assert_eq!(nc.lines(2), ["OK", "OK"]);
    kill(agent);
    let mut agent = TestAgent::start(&format!("{NETCAT}{}{LOGGER}", file_channel(home.path())));
    let events = agent.wait_for_events(2);
    assert!(events[0].contains("kept-1") && events[1].contains("kept-2"), "{events:?}");
    agent.wait_for_line("Queue Size after replay: 2 [channel=c1]");
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    assert_eq!(agent.terminate().code(), Some(0));

    // In order, so that nothing comes twice.
    let agent = TestAgent::start(&format!("{NETCAT}{}{LOGGER}", file_channel(home.path())));
    agent.wait_for_line("Queue Size after replay: 0 [channel=c1]");
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("next"), "OK");
    let events = agent.wait_for_events(1);
    assert!(events[0].contains("next"), "{events:?}");
}

#[test]
fn a_stop_loses_nothing_that_waits() {
    let home = directory();
    let mut agent = source_only(&home);
    assert_eq!(Conversation::with(agent.port()).ask("waiting"), "OK");
    assert_eq!(agent.terminate().code(), Some(0));
    assert!(agent.last_line().contains("0 lost"), "{}", agent.last_line());
    let agent = TestAgent::start(&format!("{NETCAT}{}{LOGGER}", file_channel(home.path())));
    assert!(agent.wait_for_events(1)[0].contains("waiting"));
}

/// How often an agent is killed; a night has time for more.
fn kills() -> usize {
    if std::env::var_os("NIGHTLY").is_some() { 300 } else { 8 }
}

/// What clients were told to be accepted.
#[derive(Default)]
struct Accepted(Mutex<Vec<String>>);

impl Accepted {
    fn add(&self, names: impl IntoIterator<Item = String>) {
        self.0.lock().expect("no client has failed").extend(names);
    }

    fn len(&self) -> usize {
        self.0.lock().expect("no client has failed").len()
    }
}

#[test]
fn whatever_was_acknowledged_is_delivered_whenever_the_agent_is_killed() {
    let home = directory();
    let out = home.path().join("out");
    std::fs::create_dir(&out).expect("a directory");
    let avro = "a1.sources.r2.type = avro\na1.sources.r2.bind = localhost\na1.sources.r2.port = 0\n\
                a1.sources.r2.channels = c1\n";
    // Small files, so that they come and go; the sink is killed in the middle of its work as well.
    let small = "a1.channels.c1.maxFileSize = 200000\na1.channels.c1.checkpointInterval = 1000\n";
    let config = format!("{NETCAT}{avro}a1.sources = r1 r2\n{}{small}{}", file_channel(home.path()), file_roll(&out));
    let accepted = Accepted::default();
    let mut random = 7_u64;
    for round in 0..kills() {
        let agent = TestAgent::start(&config);
        let (lines, events) = (agent.port(), agent.port_after("Avro source r2: listening on"));
        let over = AtomicBool::new(false);
        thread::scope(|clients| {
            let (accepted, over) = (&accepted, &over);
            for client in 0..3 {
                let name = format!("line {round} {client}");
                clients.spawn(move || send_lines(lines, name, accepted, over));
            }
            for client in 0..2 {
                let name = format!("batch {round} {client}");
                clients.spawn(move || send_batches(events, name, accepted, over));
            }
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let enough = accepted.len() + (random >> 54) as usize;
            eventually(|| (accepted.len() > enough).then_some(())).expect("events are accepted");
            kill(agent);
            over.store(true, Ordering::Relaxed);
        });
    }
    let mut agent = TestAgent::start(&config);
    agent.wait_for_line("Queue Size after replay");
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    agent.terminate();
    let delivered = String::from_utf8(contents(&out)).expect("text");
    let delivered: HashSet<&str> = delivered.lines().collect();
    let accepted = accepted.0.into_inner().expect("no client has failed");
    let lost: Vec<_> = accepted.iter().filter(|event| !delivered.contains(event.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} events are lost: {lost:?}", lost.len(), accepted.len());
}

/// Sends lines in twos until the agent is gone, and notes those that were answered.
fn send_lines(port: u16, name: String, accepted: &Accepted, over: &AtomicBool) {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let mut nc = Conversation::over(stream);
    for number in (0..).step_by(2) {
        let lines = [0, 1].map(|next| format!("{name} {}", number + next));
        if over.load(Ordering::Relaxed) || nc.try_send(format!("{}\n{}\n", lines[0], lines[1])).is_err() {
            return;
        }
        for line in lines {
            let mut answer = [0; 3];
            match nc.try_bytes(&mut answer) {
                Ok(()) if answer == *b"OK\n" => accepted.add([line]),
                _ => return,
            }
        }
    }
}

/// The same with batches, as other agents send them.
fn send_batches(port: u16, name: String, accepted: &Accepted, over: &AtomicBool) {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let mut client = AvroClient::over(Conversation::over(stream));
    for number in (0..).step_by(20) {
        let names: Vec<String> = (number..number + 20).map(|number| format!("{name} {number}")).collect();
        match client.try_append_batch(&batch(&names)) {
            Ok(Answer::Ok) if !over.load(Ordering::Relaxed) => accepted.add(names),
            _ => return,
        }
    }
}

/// A file system of its own at a place, until it is dropped; nothing where that is not allowed.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(place: PathBuf, options: &str) -> Option<Self> {
        std::fs::create_dir(&place).expect("a directory");
        let mounted = mount(&["-t", "tmpfs", "-o", options, "tmpfs"], &place);
        let in_ci = std::env::var_os("CI").is_some();
        assert!(mounted || !in_ci || !rustix::process::geteuid().is_root(), "root can mount a file system");
        if !mounted {
            eprintln!("SKIPPED: a file system can be mounted by root only");
        }
        mounted.then_some(Self(place))
    }

    fn remount(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.0), "{options}");
    }
}

fn mount(args: &[&str], place: &Path) -> bool {
    let mounted = Command::new("mount").args(args).arg(place).output();
    mounted.is_ok_and(|output| output.status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nobody is left who would hear of a failure.
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_holds_clients_back_until_there_is_room() {
    let home = directory();
    let Some(disk) = SmallDisk::at(home.path().join("disk"), "size=3m") else { return };
    let agent = TestAgent::start(&format!("{NETCAT}{}a1.channels.c1.keep-alive = 0\n", file_channel(&disk.0)));
    let mut nc = Conversation::with(agent.port());
    let line = "x".repeat(500);
    let mut accepted = 0;
    let refused = loop {
        match nc.ask(&line) {
            answer if answer == "OK" => accepted += 1,
            answer => break answer,
        }
    };
    assert!(refused.starts_with("FAILED: "), "{refused}");
    let line_of_log = agent.wait_for_line("puts are refused until it works again");
    assert!(line_of_log.contains("Usable space exhausted, only "), "{line_of_log}");
    disk.remount("size=30m");
    eventually(|| (nc.ask(&line) == "OK").then_some(())).expect("it goes on");
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", accepted + 1);
}

#[test]
fn a_disk_that_really_is_full_loses_nothing() {
    let home = directory();
    let Some(disk) = SmallDisk::at(home.path().join("disk"), "size=3m") else { return };
    // What Flume keeps free is less than others take.
    let config = format!("{NETCAT}{}a1.channels.c1.keep-alive = 0\n", file_channel(&disk.0));
    let agent = TestAgent::start(&config);
    let mut nc = Conversation::with(agent.port());
    let line = "x".repeat(20_000);
    assert_eq!(nc.ask(&line[..500]), "OK");
    let other = disk.0.join("another program's file");
    let mut file = std::fs::File::create(&other).expect("room");
    // Until nothing is left.
    while std::io::Write::write_all(&mut file, &[0; 1000]).is_ok() {}
    let answer = (0..200).map(|_| nc.ask(&line[..500])).find(|answer| answer != "OK").expect("it is full");
    assert!(answer.starts_with("FAILED: "), "{answer}");
    drop(file);
    std::fs::remove_file(&other).expect("it is there");
    eventually(|| (nc.ask("the last") == "OK").then_some(())).expect("it goes on");
    let accepted = agent.counter("CHANNEL.c1", "ChannelSize");
    kill(agent);
    let agent = TestAgent::start(&format!("{config}{LOGGER}"));
    let events = agent.wait_for_events(accepted as usize);
    assert!(events.last().is_some_and(|event| event.contains("the last")), "{events:?}");
}

#[test]
fn a_read_only_disk_is_waited_for() {
    let home = directory();
    let Some(disk) = SmallDisk::at(home.path().join("disk"), "size=30m") else { return };
    disk.remount("ro");
    let agent = TestAgent::start(&format!("{NETCAT}{}{LOGGER}", file_channel(&disk.0)));
    let line = agent.wait_for_line("Failed to start the file channel");
    assert!(line.contains("Read-only file system") && line.contains("tried again"), "{line}");
    disk.remount("rw");
    let mut nc = Conversation::with(agent.port());
    eventually(|| (nc.ask("written") == "OK").then_some(())).expect("it goes on");
    assert!(agent.wait_for_events(1)[0].contains("written"));
}

#[test]
fn a_directory_that_vanishes_is_made_again_and_nothing_is_lost() {
    let home = directory();
    let agent = source_only(&home);
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("before"), "OK");
    for name in ["data1", "data2", "checkpoint"] {
        std::fs::remove_dir_all(home.path().join(name)).expect("it is there");
    }
    // The netcat source waits until the channel accepts again.
    eventually(|| (nc.ask("after") == "OK").then_some(())).expect("it goes on");
    let line = agent.wait_for_line("puts are refused until it works again");
    assert!(line.contains("segment-0000000001 is gone"), "{line}");
    kill(agent);
    let agent = TestAgent::start(&format!("{NETCAT}{}{LOGGER}", file_channel(home.path())));
    let events = agent.wait_for_events(2);
    assert!(events[0].contains("before") && events[1].contains("after"), "{events:?}");
}

#[test]
fn two_channels_do_not_share_a_directory() {
    let home = directory();
    let (one, two) =
        (file_channel(home.path()), file_channel(home.path()).replace("c1", "c2").replace("a1.channels = c2\n", ""));
    let agent = TestAgent::start(&format!(
        "{NETCAT}{one}{two}a1.channels = c1 c2\n\
         a1.sinks = k2\na1.sinks.k2.type = null\na1.sinks.k2.channel = c2\n"
    ));
    let line = agent.wait_for_line("The directory is already locked");
    let lock = format!("Cannot lock {}/checkpoint. The directory is already locked. [channel=", home.path().display());
    assert!(line.contains(&lock), "{line}");
}
