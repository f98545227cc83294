//! The spillable memory channel in a whole agent: what had overflowed survives a kill, and everything an orderly stop.

use std::path::Path;

use rustix::process::Signal;

use crate::support::{Conversation, LOGGER, NETCAT, TestAgent, directory, run, stdout};

/// A channel `c1` with room for three events in memory, in a directory that outlives the agent.
fn channel(home: &Path) -> String {
    let home = home.display();
    format!(
        "a1.channels = c1\na1.channels.c1.type = SPILLABLEMEMORY\na1.channels.c1.memoryCapacity = 3\n\
         a1.channels.c1.overflowCapacity = 1000\na1.channels.c1.transactionCapacity = 100\n\
         a1.channels.c1.overflowTimeout = 0\na1.channels.c1.checkpointDir = {home}/checkpoint\n\
         a1.channels.c1.dataDirs = {home}/data\na1.channels.c1.minimumRequiredSpace = 1048576\n"
    )
}

/// An agent without a sink, in whose channel seven events wait.
fn full(home: &Path) -> TestAgent {
    let agent = TestAgent::start(&format!("{NETCAT}{}", channel(home)));
    let mut nc = Conversation::with(agent.port());
    for number in 1..=7 {
        assert_eq!(nc.ask(format!("event-{number}")), "OK");
    }
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 7);
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelCapacity"), 1003);
    assert_eq!(agent.counter("CHANNEL.c1", "EventPutSuccessCount"), 7);
    agent
}

/// What a sink gets of the channel, in order.
fn delivered(home: &Path, count: usize) -> Vec<String> {
    let mut agent = TestAgent::start(&format!("{NETCAT}{}{LOGGER}", channel(home)));
    agent.wait_for_line(&format!("Queue Size after replay: {count} [channel=c1]"));
    let events = agent.wait_for_events(count);
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    assert_eq!(agent.terminate().code(), Some(0));
    events.iter().map(|event| event.rsplit(' ').nth(1).unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_kill_costs_what_was_in_memory_and_not_what_had_overflowed() {
    let home = directory();
    let mut agent = full(home.path());
    let status = stdout(&run(&["channel", "status", &home.path().display().to_string()]));
    assert!(
        status.starts_with("backlog       4 events, ") && status.contains("in use        by agent a1, "),
        "{status}"
    );
    agent.signal(Signal::KILL);
    agent.wait();
    assert_eq!(delivered(home.path(), 4), ["event-4", "event-5", "event-6", "event-7"]);
}

#[test]
fn an_orderly_stop_loses_nothing() {
    let home = directory();
    let mut agent = full(home.path());
    assert_eq!(agent.terminate().code(), Some(0));
    assert!(agent.last_line().contains("7 events accepted, 0 refused, 0 delivered, 0 lost"), "{}", agent.last_line());
    let mut events = delivered(home.path(), 7);
    events.sort();
    assert_eq!(events, (1..=7).map(|number| format!("event-{number}")).collect::<Vec<_>>());
}

#[test]
fn a_sink_gets_the_events_in_order_wherever_they_were() {
    let home = directory();
    let agent = full(home.path());
    // The sink comes later; the channel is the same and keeps its events.
    agent.rewrite(&format!("{NETCAT}{}{LOGGER}", channel(home.path())));
    agent.signal(Signal::HUP);
    let events = agent.wait_for_events(7);
    for (event, number) in events.iter().zip(1..) {
        assert!(event.contains(&format!("event-{number}")), "{events:?}");
    }
    let mut nc = Conversation::with(agent.port());
    for number in 8..=20 {
        assert_eq!(nc.ask(format!("event-{number}")), "OK");
    }
    let events = agent.wait_for_events(20);
    for (event, number) in events.iter().zip(1..) {
        assert!(event.ends_with(&format!("event-{number} }}")), "{events:?}");
    }
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    assert_eq!(agent.counter("CHANNEL.c1", "EventTakeSuccessCount"), 20);
}
