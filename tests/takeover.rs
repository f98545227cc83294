//! The directories of the real Flume's file channel, taken over by an agent with the same configuration.

use std::path::Path;

use rustix::process::Signal;

use crate::support::{
    Conversation, LOGGER, NETCAT, TestAgent, directory, files, free_port, java_peers, keys, message, real_flume, write,
};

/// A file channel `c1`, as Flume's users write it.
fn channel(home: &Path, more: &str) -> String {
    let home = home.display();
    let text = format!(
        "type = file\ncheckpointDir = {home}/checkpoint\ndataDirs = {home}/data1, {home}/data2\ncapacity = 5000\n\
         transactionCapacity = 1000\nminimumRequiredSpace = 1048576\nmaxFileSize = 4000\ncheckpointInterval = 1000\n{more}"
    );
    format!("a1.channels = c1\n{}", keys("channels.c1", &text))
}

/// A netcat source `r1` that gives its events a header.
fn source(port: u16) -> String {
    let interceptor = "type = static\nkey = host\nvalue = web-1";
    let netcat = NETCAT.replace("port = 0", &format!("port = {port}"));
    format!("{netcat}a1.sources.r1.interceptors = i1\n{}", keys("sources.r1.interceptors.i1", interceptor))
}

/// A sink `k1` that takes events and gives them back, as nobody listens.
fn in_vain(port: u16) -> String {
    let sink =
        keys("sinks.k1", &format!("type = avro\nchannel = c1\nhostname = localhost\nport = {port}\nbatch-size = 7"));
    format!("a1.sinks = k1\n{sink}")
}

/// Runs the real Flume with a sink that delivers, and then with one that does not; the events that then wait, as a
/// logger prints them.
fn leave_behind(home: &Path, more: &str, killed: bool) -> Vec<String> {
    let port = free_port();
    let channel = channel(home, more);
    let mut flume = real_flume("1.11.0").config(&format!("{}{channel}{LOGGER}", source(port)));
    assert_eq!(flume.port(), port);
    let mut nc = Conversation::with(port);
    for number in 0..30 {
        assert_eq!(nc.ask(format!("delivered-{number}")), "OK");
    }
    flume.wait_for_events(30);
    flume.terminate();

    let mut flume = real_flume("1.11.0").config(&format!("{}{channel}{}", source(port), in_vain(free_port())));
    assert_eq!(flume.port(), port);
    let mut nc = Conversation::with(port);
    let mut send = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            assert_eq!(nc.ask(format!("waiting-{number}")), "OK");
        }
    };
    send(0..60);
    // Something was taken and given back, and some events are behind the checkpoint.
    flume.wait_for_line("Unable to deliver event");
    flume.wait_for_line("Updated checkpoint for file");
    send(60..120);
    if killed {
        flume.signal(Signal::KILL);
        flume.wait();
    } else {
        flume.terminate();
    }
    (0..120)
        .map(|number| {
            let body = format!("waiting-{number}");
            let hex: String = body.bytes().take(16).map(|byte| format!("{byte:02X} ")).collect();
            format!("{{ headers:{{host=web-1}} body: {hex}")
        })
        .collect()
}

/// Lets this agent take the directories over, and looks at what it delivers and leaves.
fn take_over(home: &Path, more: &str, expected: &[String]) {
    let config = format!("{}{}{LOGGER}", source(0), channel(home, more));
    let mut agent = TestAgent::start(&config);
    agent.wait_for_line(&format!("{} events were taken over from Apache Flume [channel=c1]", expected.len()));
    let events = agent.wait_for_events(expected.len());
    for (event, expected) in events.iter().zip(expected) {
        assert!(message(event).starts_with(&format!("Event: {expected}")), "{event}, not {expected}");
    }
    assert_eq!(Conversation::with(agent.port()).ask("new"), "OK");
    assert!(agent.wait_for_events(expected.len() + 1)[expected.len()].contains("6E 65 77"), "{}", agent.log());
    assert_eq!(agent.counter("CHANNEL.c1", "EventLostCount"), 0);
    agent.terminate();
    for directory in ["data1", "data2"] {
        let directory = home.join(directory);
        let logs = |directory: &Path| {
            let names = files(directory).into_iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
            names.filter(|name| name.starts_with("log-")).count()
        };
        assert_eq!(logs(&directory), 0);
        assert!(logs(&directory.join("taken-over-from-flume")) >= 2, "{:?}", files(&directory));
    }
    let again = TestAgent::start(&config);
    again.wait_for_line("Queue Size after replay: 0 [channel=c1]");
}

#[test]
fn a_directory_that_flume_closed() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let home = directory();
    let expected = leave_behind(home.path(), "", false);
    take_over(home.path(), "", &expected);
}

#[test]
fn a_directory_of_a_killed_flume_with_two_checkpoints() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let home = directory();
    let backup = home.path().join("backup");
    let more = format!(
        "useDualCheckpoints = true\ncompressBackupCheckpoint = true\nbackupCheckpointDir = {}",
        backup.display()
    );
    let expected = leave_behind(home.path(), &more, true);
    // The first one is as if the machine had gone down while it was written.
    std::fs::write(home.path().join("checkpoint/checkpoint.meta"), "").expect("written");
    take_over(home.path(), &more, &expected);
    assert!(backup.join("taken-over-from-flume/backupComplete").exists());
}

#[test]
fn an_encrypted_directory_of_a_killed_flume() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let home = directory();
    let store = write(home.path(), "store-password", "storepass\n");
    let key = write(home.path(), "key-password", "keypass");
    let more = format!(
        "encryption.activeKey = key-0\nencryption.cipherProvider = AESCTRNOPADDING\nencryption.keyProvider = JCEKSFILE\n\
         encryption.keyProvider.keyStoreFile = {}/tests/vectors/filechannel-keys.jceks\n\
         encryption.keyProvider.keyStorePasswordFile = {}\nencryption.keyProvider.keys = key-0\n\
         encryption.keyProvider.keys.key-0.passwordFile = {}",
        env!("CARGO_MANIFEST_DIR"),
        store.display(),
        key.display()
    );
    let expected = leave_behind(home.path(), &more, true);
    let without = TestAgent::start(&format!("{}{}{LOGGER}", source(0), channel(home.path(), "")));
    without.wait_for_line("is encrypted with the key key-0, and no encryption.keyProvider is configured; tried again");
    drop(without);
    take_over(home.path(), &more, &expected);
    let segments = files(&home.path().join("data1")).into_iter().chain(files(&home.path().join("data2")));
    for segment in segments.filter(|path| path.is_file()) {
        let content = std::fs::read(&segment).expect("readable");
        assert!(memchr::memmem::find(&content, b"new").is_none(), "{} is in the clear", segment.display());
    }
}
