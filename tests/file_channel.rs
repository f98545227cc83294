//! The file channel in a whole agent: what a client has been told to be accepted survives the agent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    Conversation, LOGGER, NETCAT, TestAgent, contents, directory, eventually, file_channel, file_roll,
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

#[test]
fn every_line_that_was_answered_ok_is_delivered_whenever_the_agent_is_killed() {
    let home = directory();
    let out = home.path().join("out");
    std::fs::create_dir(&out).expect("a directory");
    let config = format!("{NETCAT}{}{}", file_channel(home.path()), file_roll(&out));
    let accepted: Arc<Mutex<Vec<String>>> = Arc::default();
    for round in 0..6 {
        let agent = TestAgent::start(&config);
        let port = agent.port();
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (accepted, over) = (Arc::clone(&accepted), Arc::clone(&over));
                thread::spawn(move || send(port, round, client, &accepted, &over))
            })
            .collect();
        let before = accepted.lock().expect("no client has failed").len();
        let enough =
            || (accepted.lock().expect("no client has failed").len() > before + 200 + 150 * round).then_some(());
        eventually(enough).expect("lines are accepted");
        kill(agent);
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a client");
        }
    }
    let mut agent = TestAgent::start(&config);
    agent.wait_for_line("Queue Size after replay");
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    agent.terminate();
    let delivered = String::from_utf8(contents(&out)).expect("text");
    let delivered: std::collections::HashSet<&str> = delivered.lines().collect();
    let accepted = accepted.lock().expect("no client has failed");
    let lost: Vec<_> = accepted.iter().filter(|line| !delivered.contains(line.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} lines are lost: {lost:?}", lost.len(), accepted.len());
}

/// Sends lines in twos until the agent is gone, and notes those that were answered.
fn send(port: u16, round: usize, client: usize, accepted: &Mutex<Vec<String>>, over: &AtomicBool) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return };
    let mut answers = BufReader::new(stream.try_clone().expect("a socket can be shared"));
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let lines = [0, 1].map(|next| format!("{round}-{client}-{}", number + next));
        number += 2;
        if stream.write_all(format!("{}\n{}\n", lines[0], lines[1]).as_bytes()).is_err() {
            return;
        }
        for line in lines {
            let mut answer = String::new();
            match answers.read_line(&mut answer) {
                Ok(3) if answer == "OK\n" => accepted.lock().expect("no client has failed").push(line),
                _ => return,
            }
        }
    }
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
