//! The commands `channel status`, `check`, `export` and `repair`: what an agent left behind, and beside one that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Answer, AvroClient, Conversation, Event, LOGGER, NETCAT, TestAgent, directory, file_roll, files, kept_events, run,
    stderr, stdout, write,
};

/// A file channel `c1` of small segments in a directory that outlives the agent.
fn channel(home: &Path) -> String {
    let home = home.display();
    format!(
        "a1.channels = c1\na1.channels.c1.type = file\na1.channels.c1.checkpointDir = {home}/checkpoint\n\
         a1.channels.c1.dataDirs = {home}/data1,{home}/data2\na1.channels.c1.minimumRequiredSpace = 1048576\n\
         a1.channels.c1.maxFileSize = 4000\n"
    )
}

fn body(number: usize) -> String {
    format!("event number {number}, which takes some bytes")
}

/// An agent in whose channel `count` events wait, one in a transaction.
fn agent_with(home: &TempDir, count: usize) -> TestAgent {
    let agent = TestAgent::start(&format!("{NETCAT}{}", channel(home.path())));
    let mut nc = Conversation::with(agent.port());
    for number in 0..count {
        assert_eq!(nc.ask(body(number)), "OK");
    }
    agent
}

/// The same, killed.
fn backlog(count: usize) -> TempDir {
    let home = directory();
    let mut agent = agent_with(&home, count);
    agent.signal(Signal::KILL);
    agent.wait();
    home
}

fn command(name: &str, home: &Path, args: &[&str]) -> Output {
    run(&[&["channel", name, &home.display().to_string()], args].concat())
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The bodies of exported JSON lines.
fn bodies(output: &Output) -> Vec<String> {
    let line = |line: &str| -> Value { serde_json::from_str(line).expect("a line of JSON") };
    stdout(output).lines().map(|text| line(text)["body"].as_str().expect("a text").to_owned()).collect()
}

fn segments(home: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["data1", "data2"].iter().flat_map(|data| files(&home.join(data))).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-")));
    found.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    found
}

/// Everything in the directories, to see that nothing was changed.
fn state(home: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let directories = ["checkpoint", "data1", "data2", "data1/damaged", "data2/damaged"];
    let paths = directories.iter().flat_map(|name| files(&home.join(name))).filter(|path| path.is_file());
    paths.map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}

/// Flips a bit of the body of an event, and says where its record begins and how long it is.
fn damage(home: &Path, number: usize) -> (PathBuf, u64, u64) {
    let body = body(number);
    for path in segments(home) {
        let mut bytes = fs::read(&path).expect("readable");
        if let Some(at) = bytes.windows(body.len()).position(|window| window == body.as_bytes()) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("writable");
            // A header of 32 bytes, and 3 for the sizes.
            return (path, at as u64 - 35, 35 + body.len() as u64);
        }
    }
    panic!("{body} is in no segment");
}

#[test]
fn status_says_what_a_killed_agent_left() {
    let home = backlog(100);
    let before = state(home.path());
    let output = command("status", home.path(), &["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let status = json(&output);
    assert_eq!(status["backlog"]["events"], 100);
    let on_disk: u64 = segments(home.path()).iter().map(|path| fs::metadata(path).expect("there").len() - 32).sum();
    assert_eq!(status["backlog"]["bytes"], on_disk);
    assert_eq!(status["segments"]["count"], segments(home.path()).len());
    assert_eq!(status["in_use_by"], Value::Null);
    assert!(status["oldest_event"]["age_seconds"].as_u64().is_some_and(|age| age < 3600), "{status}");
    assert!(status["free_space"][1]["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{status}");
    let text = stdout(&command("status", home.path(), &[]));
    assert!(text.starts_with("backlog       100 events, ") && text.contains("\nin use        no\n"), "{text}");
    assert_eq!(state(home.path()), before, "nothing is changed");
}

#[test]
fn the_configuration_or_the_directories_name_the_channel() {
    let home = backlog(3);
    let conf = write(home.path(), "agent.conf", format!("{NETCAT}{}", channel(home.path()))).display().to_string();
    let data = ["data1", "data2"].map(|name| home.path().join(name).display().to_string());
    let checkpoint = home.path().join("checkpoint").display().to_string();
    for args in [
        &["--conf-file", &conf, "--name", "a1", "--channel", "c1"][..],
        &["-f", &conf, "-n", "a1", "--channel", "c1"],
        &[&data[0], &data[1]],
        &[&data[0], &data[1], "--checkpoint-dir", &checkpoint],
    ] {
        let output = run(&[&["channel", "status"], args].concat());
        assert!(stdout(&output).starts_with("backlog       3 events, "), "{args:?}: {output:?}");
    }
    let memory = write(
        home.path(),
        "memory.conf",
        "a1.channels = c1\na1.channels.c1.type = memory\na1.sources = r1\na1.sources.r1.type = seq\na1.sources.r1.channels = c1\n",
    );
    let memory = memory.display().to_string();
    let empty = home.path().join("empty");
    fs::create_dir(&empty).expect("made");
    let empty = empty.display().to_string();
    for (args, said) in [
        (
            &["-f", &conf, "-n", "a1", "--channel", "c2"][..],
            "agent a1 has no channel c2; it has c1; did you mean \"c1\"?".to_owned(),
        ),
        (
            &["-f", &memory, "-n", "a1", "--channel", "c1"],
            "channel c1 is of type memory, which has no files".to_owned(),
        ),
        (&["-n", "a1", "--channel", "c1"], "--channel needs a configuration: expected --conf-file FILE".to_owned()),
        (&["/no/such"], "/no/such: No such file or directory (os error 2)".to_owned()),
        (
            &[&empty],
            format!(
                "there is no file channel in {empty}: expected files segment-0000000001 and so on there or in directories below"
            ),
        ),
    ] {
        let output = run(&[&["channel", "status"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(stderr(&output), format!("flume-rs: {said}\n"));
    }
}

#[test]
fn export_gives_the_undelivered_events() {
    let home = backlog(60);
    let output = command("export", home.path(), &["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(bodies(&output), (0..60).map(body).collect::<Vec<_>>());
    assert!(stderr(&output).ends_with("60 events exported\n"), "{}", stderr(&output));
}

#[test]
fn export_all_gives_delivered_events_that_are_still_there() {
    let (home, out) = (directory(), directory());
    let mut agent = TestAgent::start(&format!("{NETCAT}{}{}", channel(home.path()), file_roll(out.path())));
    let mut nc = Conversation::with(agent.port());
    for number in 0..60 {
        assert_eq!(nc.ask(body(number)), "OK");
    }
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    assert!(agent.terminate().success());
    let waiting = command("export", home.path(), &["--format", "json"]);
    assert_eq!((waiting.status.code(), stdout(&waiting)), (Some(0), String::new()));
    // The last segment stays.
    let all = bodies(&command("export", home.path(), &["--format", "json", "--all"]));
    assert!((1..60).contains(&all.len()), "{all:?}");
    assert_eq!(all, (60 - all.len()..60).map(body).collect::<Vec<_>>());
    // What comes next stands behind it.
    let mut agent = agent_with(&home, 5);
    agent.signal(Signal::KILL);
    agent.wait();
    let waiting = command("export", home.path(), &["--format", "json"]);
    assert_eq!(bodies(&waiting), (0..5).map(body).collect::<Vec<_>>());
    let more = bodies(&command("export", home.path(), &["--format", "json", "--all"]));
    assert_eq!(more, [all, bodies(&waiting)].concat());
}

#[test]
fn export_keeps_headers_and_every_byte() {
    let home = directory();
    let source = "a1.sources = r1\na1.sources.r1.type = avro\na1.sources.r1.bind = 127.0.0.1\na1.sources.r1.port = 0\n\
                  a1.sources.r1.channels = c1\n";
    let mut agent = TestAgent::start(&format!("{source}{}", channel(home.path())));
    let port = agent.port_after("Avro source r1: listening on");
    let sent = [Event::new(&[("timestamp", "1000"), ("ü", "1\n2")], "text"), Event::new(&[], "")];
    let events = sent.iter().map(|event| flume_rs::event::Event {
        headers: event.headers.iter().collect(),
        body: event.body.clone().into(),
    });
    assert_eq!(AvroClient::with(port).append_batch(&events.collect()), Answer::Ok);
    agent.signal(Signal::KILL);
    agent.wait();
    let oldest = &json(&command("status", home.path(), &["--format", "json"]))["oldest_event"];
    assert_eq!(oldest["known_by"], "timestamp");
    assert!(oldest["age_seconds"].as_u64().is_some_and(|age| age > 40 * 365 * 24 * 3600), "{oldest}");
    let out = home.path().join("out");
    fs::create_dir(&out).expect("made");
    let file = out.join("events.avro").display().to_string();
    let output = command("export", home.path(), &["-o", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    assert_eq!(kept_events(&out), sent);
    let again = command("export", home.path(), &["-o", &file]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(stderr(&again), format!("flume-rs: {file} exists already; nothing was written\n"));
    assert_eq!(files(&out).len(), 1);
    // Standard output takes the same bytes.
    let piped = command("export", home.path(), &["--format", "avro"]);
    write(&out, "piped.avro", &piped.stdout);
    assert_eq!(kept_events(&out), [&sent[..], &sent].concat());
}

#[test]
fn the_commands_that_read_work_beside_an_agent_and_repair_does_not() {
    let home = directory();
    let mut agent = agent_with(&home, 50);
    let status = json(&command("status", home.path(), &["--format", "json"]));
    assert_eq!(status["backlog"]["events"], 50);
    assert_eq!(status["in_use_by"]["agent"], "a1");
    let check = command("check", home.path(), &[]);
    assert_eq!(check.status.code(), Some(0), "{}", stdout(&check));
    assert_eq!(bodies(&command("export", home.path(), &["--format", "json"])).len(), 50);
    for args in [&[][..], &["--yes"]] {
        let repair = command("repair", home.path(), args);
        assert_eq!(repair.status.code(), Some(2));
        let process = status["in_use_by"]["process"].as_u64().expect("a number");
        let said = format!(
            "flume-rs: the channel is in use by agent a1, process {process}; stop it first, nothing was changed\n"
        );
        assert_eq!(stderr(&repair), said);
    }
    // Still its own.
    assert_eq!(Conversation::with(agent.port()).ask("more"), "OK");
    assert!(agent.terminate().success());
    assert!(agent.last_line().contains("0 lost"), "{}", agent.last_line());
}

#[test]
fn whatever_a_busy_agent_does_meanwhile_is_no_damage() {
    let home = directory();
    let config = format!(
        "a1.sources = r1\na1.sources.r1.type = seq\na1.sources.r1.batchSize = 20\na1.sources.r1.channels = c1\n\
         {}a1.channels.c1.checkpointInterval = 1\na1.sinks = k1\na1.sinks.k1.type = null\na1.sinks.k1.channel = c1\n",
        channel(home.path())
    );
    let agent = TestAgent::start(&config);
    agent.wait_for_line("are delivered, it is removed");
    for _ in 0..15 {
        let check = command("check", home.path(), &[]);
        assert_eq!(check.status.code(), Some(0), "{}{}", stdout(&check), stderr(&check));
        let export = command("export", home.path(), &["--format", "json"]);
        assert_eq!(export.status.code(), Some(0), "{}", stderr(&export));
        let numbers: Vec<u64> = bodies(&export).iter().map(|body| body.parse().expect("a number")).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

#[test]
fn damage_is_found_named_and_repaired_and_everything_else_is_delivered() {
    let home = backlog(100);
    let hit = [damage(home.path(), 3), damage(home.path(), 60)];
    let before = state(home.path());

    let check = command("check", home.path(), &["--format", "json"]);
    assert_eq!(check.status.code(), Some(1));
    let check = json(&check);
    let found: Vec<(PathBuf, u64, u64)> = check["damage"].as_array().expect("a list").iter().map(range).collect();
    assert_eq!(found, hit);
    assert_eq!((&check["lost_events"], &check["events"]), (&Value::from(2), &Value::from(98)));
    let text = stdout(&command("check", home.path(), &[]));
    let (path, offset, length) = &hit[0];
    assert!(text.contains(&format!("{}: offset {offset}, length {length}: damaged\n", path.display())), "{text}");

    let export = command("export", home.path(), &["--format", "json"]);
    assert_eq!(export.status.code(), Some(1));
    let right: Vec<String> = (0..100).filter(|number| ![3, 60].contains(number)).map(body).collect();
    assert_eq!(bodies(&export), right);

    let plan = command("repair", home.path(), &[]);
    assert_eq!(plan.status.code(), Some(1));
    let text = stdout(&plan);
    let (from, to) = (offset, offset + length);
    let step =
        format!("set aside: bytes {from} to {to} of {} are copied to damaged/ beside it and blanked\n", path.display());
    assert!(text.starts_with(&step), "{text}");
    assert!(text.contains("98 events wait, 2 cannot be read and are given up\n"), "{text}");
    assert!(text.ends_with("nothing was changed; --yes does this\n"), "{text}");
    assert_eq!(state(home.path()), before);

    let repair = command("repair", home.path(), &["--yes"]);
    assert_eq!(repair.status.code(), Some(0), "{}", stderr(&repair));
    assert!(stdout(&repair).ends_with("done\n"));
    let copy = format!("damaged/{}.{from}-{to}", path.file_name().expect("a name").to_string_lossy());
    let copy = fs::read(path.parent().expect("a directory").join(copy)).expect("a copy is kept");
    assert_eq!(copy.len() as u64, *length);
    let again = command("check", home.path(), &[]);
    assert_eq!(again.status.code(), Some(0), "{}", stdout(&again));
    assert_eq!(stdout(&command("repair", home.path(), &[])), "there is nothing to repair\n");

    let agent = TestAgent::start(&format!("{NETCAT}{}{LOGGER}", channel(home.path())));
    agent.wait_for_line("Queue Size after replay: 98 [channel=c1]");
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    assert_eq!(agent.wait_for_events(98).len(), 98);
    assert_eq!(agent.counter("CHANNEL.c1", "EventLostCount"), 0);
}

fn range(value: &Value) -> (PathBuf, u64, u64) {
    let number = |key: &str| value[key].as_u64().expect("a number");
    (value["file"].as_str().expect("a file").into(), number("offset"), number("length"))
}

#[test]
fn an_end_that_was_never_written_is_no_damage_and_is_cut_off() {
    let home = backlog(10);
    let last = segments(home.path()).pop().expect("a segment");
    let bytes = fs::read(&last).expect("readable");
    fs::write(&last, &bytes[..bytes.len() - 5]).expect("writable");
    let check = command("check", home.path(), &[]);
    assert_eq!(check.status.code(), Some(0));
    let text = stdout(&check);
    assert!(text.contains(": a record that was never written to its end\n9 events in 9 records"), "{text}");
    let repair = command("repair", home.path(), &["--yes"]);
    assert_eq!(repair.status.code(), Some(0), "{}", stderr(&repair));
    assert!(stdout(&repair).starts_with("truncate: bytes "), "{}", stdout(&repair));
    let whole = 35 + body(9).len();
    assert_eq!(fs::metadata(&last).expect("there").len() as usize, bytes.len() - whole);
    assert!(stdout(&command("check", home.path(), &[])).starts_with("9 events in 9 records"));
}

#[test]
fn a_missing_segment_is_given_up_only_by_a_repair() {
    let home = backlog(200);
    let mut agent = agent_with(&home, 0);
    // With a checkpoint.
    assert!(agent.terminate().success());
    let names = segments(home.path());
    assert!(names.len() >= 4, "{names:?}");
    let bytes = fs::read(&names[1]).expect("readable");
    let held = bytes.windows(12).filter(|window| window == b"event number").count();
    fs::remove_file(&names[1]).expect("removed");
    let check = command("check", home.path(), &[]);
    assert_eq!(check.status.code(), Some(1));
    let name = names[1].file_name().expect("a name").to_string_lossy().into_owned();
    assert!(
        stdout(&check).contains(&format!("{name}: missing, and {held} events that wait in it\n")),
        "{}",
        stdout(&check)
    );
    assert_eq!(bodies(&command("export", home.path(), &["--format", "json"])).len(), 200 - held);
    let repair = command("repair", home.path(), &["--yes"]);
    assert_eq!(repair.status.code(), Some(0), "{}", stderr(&repair));
    assert!(stdout(&repair).starts_with("give up: "), "{}", stdout(&repair));
    assert_eq!(command("check", home.path(), &[]).status.code(), Some(0));
    let agent = TestAgent::start(&format!("{NETCAT}{}{LOGGER}", channel(home.path())));
    agent.wait_for_line(&format!("Queue Size after replay: {} [channel=c1]", 200 - held));
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
}

#[test]
fn a_data_directory_that_was_forgotten_is_no_damage() {
    let home = backlog(200);
    let mut agent = agent_with(&home, 0);
    assert!(agent.terminate().success());
    let [one, two] = ["data1", "data2"].map(|name| home.path().join(name).display().to_string());
    let before = state(home.path());
    for name in ["status", "check", "export", "repair"] {
        let output = run(&["channel", name, &one]);
        assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        let said = stderr(&output);
        assert!(said.starts_with(&format!("flume-rs: {two}/segment-")), "{name}: {said}");
        assert!(said.ends_with(" belongs to the channel, too: name all its data directories\n"), "{name}: {said}");
    }
    assert_eq!(state(home.path()), before);
    assert_eq!(run(&["channel", "check", &two, &one]).status.code(), Some(0));
}

#[test]
fn the_checkpoint_of_another_channel_is_not_taken_for_this_ones() {
    let home = backlog(3);
    let other = channel(home.path()).replace("/checkpoint", "/checkpoint-2").replace("data1", "data3");
    let other = other.replace(&format!(",{}/data2", home.path().display()), "");
    for config in [&channel(home.path()), &other] {
        let mut agent = TestAgent::start(&format!("{NETCAT}{config}"));
        assert_eq!(Conversation::with(agent.port()).ask(body(3)), "OK");
        assert!(agent.terminate().success());
    }
    let [one, two, three, checkpoint, checkpoint_2] = ["data1", "data2", "data3", "checkpoint", "checkpoint-2"]
        .map(|name| home.path().canonicalize().expect("there").join(name).display().to_string());
    let unsure = run(&["channel", "status", &one, &two]);
    assert_eq!(unsure.status.code(), Some(2));
    let said = format!(
        "flume-rs: there are several checkpoints near: {checkpoint}, {checkpoint_2}; \
         say with --checkpoint-dir which one belongs to the channel\n"
    );
    assert_eq!(stderr(&unsure), said);
    let told = run(&["channel", "status", &one, &two, "--checkpoint-dir", &checkpoint]);
    assert!(stdout(&told).starts_with("backlog       4 events, "), "{told:?}");
    let told = run(&["channel", "status", &three, "--checkpoint-dir", &checkpoint_2]);
    assert!(stdout(&told).starts_with("backlog       1 event, "), "{told:?}");
    let together = command("status", home.path(), &["--checkpoint-dir", &checkpoint]);
    assert!(stderr(&together).ends_with(" have the same number\n"), "{together:?}");
}

#[test]
fn a_damaged_checkpoint_is_computed_anew() {
    let home = backlog(20);
    let mut agent = agent_with(&home, 0);
    assert!(agent.terminate().success());
    let checkpoint = home.path().join("checkpoint/channel.checkpoint");
    let mut bytes = fs::read(&checkpoint).expect("there is one after a stop");
    bytes[20] ^= 4;
    fs::write(&checkpoint, &bytes).expect("writable");
    let check = command("check", home.path(), &[]);
    assert_eq!(check.status.code(), Some(1));
    assert!(stdout(&check).starts_with(&format!("{}: damaged; ", checkpoint.display())), "{}", stdout(&check));
    let repair = command("repair", home.path(), &["--yes"]);
    assert_eq!(repair.status.code(), Some(0), "{}", stderr(&repair));
    let said = format!("recompute: {}, which is damaged: 20 events wait\ndone\n", checkpoint.display());
    assert_eq!(stdout(&repair), said);
    assert_eq!(command("check", home.path(), &[]).status.code(), Some(0));
    assert_eq!(bodies(&command("export", home.path(), &["--format", "json"])).len(), 20);
}
