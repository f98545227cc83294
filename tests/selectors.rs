//! Channel selectors: which channels get which events, and what is said about channels that a source does not have.

use flume_rs::event::{Batch, Event as Sent};
use tempfile::TempDir;

use crate::support::{
    Answer, AvroClient, Conversation, NETCAT, TestAgent, contents, directory, eventually, keys, run, stdout, write,
};

/// A source `r1` into channels `c1`, `c2` and so on, each with a file_roll sink of its own.
struct Fan {
    agent: TestAgent,
    kept: Vec<TempDir>,
}

impl Fan {
    fn out(source: &str, channels: usize, more: &str) -> Self {
        let kept: Vec<TempDir> = (0..channels).map(|_| directory()).collect();
        let (names, text) = fan(&kept);
        let agent = TestAgent::start(&format!("{source}a1.sources.r1.channels = {names}\n{text}{more}"));
        Self { agent, kept }
    }

    /// Waits until each sink has written just these lines.
    fn expect(&self, expected: &[&str]) {
        let lines = |directory: &TempDir| String::from_utf8_lossy(&contents(directory.path())).replace('\n', " ");
        let kept = || -> Vec<String> { self.kept.iter().map(|kept| lines(kept).trim_end().to_owned()).collect() };
        eventually(|| (kept() == expected).then_some(()));
        assert_eq!(kept(), expected);
    }
}

/// Channels and sinks, and the names of the channels.
fn fan(kept: &[TempDir]) -> (String, String) {
    let mut text = String::new();
    let names = |letter: char| (1..=kept.len()).map(|n| format!("{letter}{n}")).collect::<Vec<_>>().join(" ");
    for (number, directory) in (1..).zip(kept) {
        let sink = format!(
            "type = file_roll\nchannel = c{number}\nsink.rollInterval = 0\nsink.directory = {}",
            directory.path().display()
        );
        text += &keys(&format!("channels.c{number}"), "type = memory");
        text += &keys(&format!("sinks.k{number}"), &sink);
    }
    text += &format!("a1.channels = {}\na1.sinks = {}\n", names('c'), names('k'));
    (names('c'), text)
}

const AVRO: &str =
    "a1.sources = r1\na1.sources.r1.type = avro\na1.sources.r1.bind = localhost\na1.sources.r1.port = 0\n";

fn of_states(states: &[&str]) -> Batch {
    states.iter().map(|state| Sent::new((*state).to_owned()).with("state", state)).collect()
}

fn send(fan: &Fan, batch: &Batch) {
    let mut client = AvroClient::with(fan.agent.port_after("Avro source r1: listening on"));
    assert_eq!(client.append_batch(batch), Answer::Ok);
}

#[test]
fn the_header_decides() {
    let selector = keys(
        "sources.r1.selector",
        // Two blanks and a tab, on which Flume fails.
        "type = multiplexing
header = state
mapping.CZ = c1
mapping.US = c2  c3
mapping.New\\ York = c1\tc3
mapping.a.b\\:c = c3
optional.US = c1 c2
optional.DE = c3
default = c4",
    );
    let fan = Fan::out(AVRO, 4, &selector);
    let mut batch = of_states(&["CZ", "US", "New York", "a.b:c", "cz", "DE", " "]);
    batch.append(Batch::from_iter([Sent::new("none"), Sent::new("other").with("State", "CZ")]));
    send(&fan, &batch);
    // Optional channels are filled last.
    fan.expect(&["CZ New York US", "US", "US New York a.b:c DE", "cz DE   none other"]);
    assert_eq!(fan.agent.counter("SOURCE.r1", "EventDroppedCount"), 0);
}

#[test]
fn without_a_default_what_is_not_mapped_is_dropped_counted_and_logged() {
    let selector = "type = org.apache.flume.channel.MultiplexingChannelSelector\nmapping.x = c1";
    let fan = Fan::out(AVRO, 1, &keys("sources.r1.selector", selector));
    let mut batch: Batch = Batch::from_iter([Sent::new("kept").with("flume.selector.header", "x")]);
    batch.append(of_states(&["x", "y"]));
    send(&fan, &batch);
    fan.expect(&["kept"]);
    let counters = ["EventReceivedCount", "EventAcceptedCount", "EventDroppedCount"];
    assert_eq!(counters.map(|name| fan.agent.counter("SOURCE.r1", name)), [3, 3, 2]);
    fan.agent.wait_for_line("Source r1: 2 events are dropped: the selector has no channel for them");
}

#[test]
fn events_take_turns() {
    let selector = keys("sources.r1.selector", "type = load_balancing");
    let fan = Fan::out(NETCAT.trim_end_matches("a1.sources.r1.channels = c1\n"), 3, &selector);
    let mut nc = Conversation::with(fan.agent.port());
    for number in 1..=7 {
        assert_eq!(nc.ask(number.to_string()), "OK");
    }
    fan.expect(&["1 4 7", "2 5", "3 6"]);
}

#[test]
fn events_are_spread_by_chance() {
    let selector = "type = org.apache.flume.channel.LoadBalancingChannelSelector\npolicy = RANDOM";
    let fan = Fan::out(AVRO, 2, &keys("sources.r1.selector", selector));
    let numbers: Vec<String> = (0..100).map(|number: i32| number.to_string()).collect();
    send(&fan, &numbers.iter().map(|number| Sent::new(number.clone())).collect());
    let kept = || -> Vec<Vec<u8>> { fan.kept.iter().map(|kept| contents(kept.path())).collect() };
    eventually(|| (kept().concat().iter().filter(|byte| **byte == b'\n').count() == 100).then_some(()));
    let mut lines: Vec<i32> =
        String::from_utf8_lossy(&kept().concat()).lines().filter_map(|line| line.parse().ok()).collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..100).collect::<Vec<_>>());
    assert!(kept().iter().all(|kept| !kept.is_empty()), "a hundred events are not all on one side");
}

#[test]
fn a_full_channel_refuses_those_that_need_it_and_nobody_else() {
    let selector = keys(
        "sources.r1.selector",
        "type = multiplexing\nheader = state\nmapping.full = c2\nmapping.spare = c1\noptional.spare = c2\ndefault = c1",
    );
    // Nobody empties the second channel.
    let more = "a1.sinks = k1\na1.channels.c2.capacity = 1\na1.channels.c2.transactionCapacity = 1\n\
                a1.channels.c2.keep-alive = 0\n";
    let fan = Fan::out(AVRO, 2, &format!("{selector}{more}"));
    send(&fan, &of_states(&["full"]));
    let mut client = AvroClient::with(fan.agent.port_after("Avro source r1: listening on"));
    assert_eq!(client.append_batch(&of_states(&["other", "full"])), Answer::Failed, "all of a batch or nothing");
    assert_eq!(client.append_batch(&of_states(&["other"])), Answer::Ok);
    assert_eq!(client.append_batch(&of_states(&["spare"])), Answer::Ok);
    fan.expect(&["other spare", ""]);
    fan.agent.wait_for_line("Unable to put batch on optional channel: c2");
}

#[test]
fn channels_that_the_source_does_not_have_are_named() {
    let faults: &[(&str, &str, &[&str])] = &[
        (
            "type = multiplexing\nmapping.a = files\nmapping.b = fils\ndefault = files",
            "selector.mapping.b = \"fils\"",
            &[
                "fils is not one of files, others; did you mean \"files\"?",
                "Flume says: Selector channel not found: fils",
            ],
        ),
        (
            "type = multiplexing\nmapping.a = files,others\ndefault = files",
            "selector.mapping.a = \"files,others\"",
            &["separate names with blanks, not commas"],
        ),
        (
            "type = multiplexing\nmapping.a = files\ndefault = c9",
            "selector.default = \"c9\"",
            &["c9 is not one of files, others"],
        ),
        (
            "type = multiplexing\nmapping.a = files\noptional.a = othrs\ndefault = files",
            "selector.optional.a = \"othrs\"",
            &["did you mean \"others\"?"],
        ),
        ("type = multiplexin", "selector.type = \"multiplexin\"", &["did you mean \"multiplexing\"?"]),
        ("type = load_balancing\npolicy = randm", "selector.policy = \"randm\"", &["did you mean \"random\"?"]),
    ];
    let home = directory();
    for (selector, place, words) in faults {
        let text = format!(
            "{AVRO}a1.channels = files others\na1.sources.r1.channels = files others\n\
             a1.channels.files.type = memory\na1.channels.others.type = memory\n{}",
            keys("sources.r1.selector", selector)
        );
        let config = write(home.path(), "agent.conf", text);
        let output = run(&["check", "--conf-file", &config.display().to_string()]);
        assert_eq!(output.status.code(), Some(1));
        let text = stdout(&output);
        let place = format!("error: a1.sources.r1.{place}: ");
        let at = text.find(&place).unwrap_or_else(|| panic!("no {place}: {text}"));
        assert!(words.iter().all(|word| text[at..].contains(word)), "{text}");
    }
    let text = format!(
        "{AVRO}a1.channels = c1\na1.sources.r1.channels = c1\na1.channels.c1.type = memory\n\
         a1.sources.r1.selector.type = multiplexing\na1.sources.r1.selector.mapping.a = c1\n"
    );
    let config = write(home.path(), "agent.conf", text);
    let text = stdout(&run(&["check", "--conf-file", &config.display().to_string()]));
    assert!(
        text.contains("a1.sources.r1.selector.default: missing: events with none of the mapped values are dropped"),
        "{text}"
    );
}
