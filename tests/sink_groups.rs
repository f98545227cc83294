//! Sink groups: who delivers, when one of them is away, and when it is back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    AvroServer, Conversation, MEMORY, NETCAT, TestAgent, avro_to_files, contents, directory, eventually, free_port,
    keys, run, stdout, write,
};

const OK: &[u8] = &[0];

/// An agent that writes what it gets at a port to a directory.
fn collector(port: u16, kept: &Path) -> TestAgent {
    let agent = TestAgent::start(&avro_to_files(port, kept).replace("avro_event", "text"));
    agent.wait_for_line("Avro source r1: listening on");
    agent
}

/// A netcat source, a channel and avro sinks `k1`, `k2` to these ports in a group `g1`.
fn sender(ports: &[u16], processor: &str) -> TestAgent {
    let mut text = format!("{NETCAT}{MEMORY}a1.channels.c1.capacity = 10000\na1.sinkgroups = g1\n");
    let names: Vec<String> = (1..=ports.len()).map(|number| format!("k{number}")).collect();
    for (name, port) in names.iter().zip(ports) {
        text +=
            &keys(&format!("sinks.{name}"), &format!("type = avro\nhostname = localhost\nport = {port}\nchannel = c1"));
    }
    text += &format!("a1.sinks = {0}\na1.sinkgroups.g1.sinks = {0}\n", names.join(" "));
    let agent = TestAgent::start(&(text + &keys("sinkgroups.g1.processor", processor)));
    for name in names {
        agent.wait_for_line(&format!("Component type: SINK, name: {name} started"));
    }
    agent
}

/// How often each line is in the files.
fn lines(kept: &[&TempDir]) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for directory in kept {
        for line in String::from_utf8_lossy(&contents(directory.path())).lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
    }
    lines
}

fn wait_for(kept: &TempDir, line: &str) {
    let there = eventually(|| lines(&[kept]).contains_key(line).then_some(()));
    assert!(there.is_some(), "{line} is not there: {:?}", lines(&[kept]).keys().last());
}

/// Sends a line again and again until it is in the files.
fn send_until_it_is_in(nc: &mut Conversation, line: &str, kept: &TempDir) {
    let there = eventually(|| {
        assert_eq!(nc.ask(line), "OK");
        lines(&[kept]).contains_key(line).then_some(())
    });
    assert!(there.is_some(), "{line} does not come");
}

const FAILOVER: &str = "type = failover\npriority.k1 = 10\npriority.k2 = 5\nmaxpenalty = 500";

#[test]
fn the_stream_moves_when_the_preferred_sink_is_killed_and_comes_back_with_it() {
    let kept = [directory(), directory()];
    let ports = [free_port(), free_port()];
    let mut first = collector(ports[0], kept[0].path());
    let _second = collector(ports[1], kept[1].path());
    let agent = sender(&ports, FAILOVER);
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("before"), "OK");
    wait_for(&kept[0], "before");
    first.signal(Signal::KILL);
    first.wait();
    assert_eq!(nc.ask("without"), "OK");
    wait_for(&kept[1], "without");
    agent.wait_for_line("Sink k1 failed and has been sent to failover list");
    let _back = collector(ports[0], kept[0].path());
    send_until_it_is_in(&mut nc, "again", &kept[0]);
    assert_eq!(nc.ask("after"), "OK");
    wait_for(&kept[0], "after");
    assert_eq!(lines(&[&kept[1]]).get("after"), None, "the preferred one has it all again");
}

#[test]
fn nothing_is_lost_under_a_stream_while_sinks_come_and_go() {
    let kept = [directory(), directory()];
    let ports = [free_port(), free_port()];
    let mut collectors = [0, 1].map(|number: usize| collector(ports[number], kept[number].path()));
    let mut agent = sender(&ports, FAILOVER);
    let done = Arc::new(AtomicBool::new(false));
    let client = thread::spawn({
        let (mut nc, done) = (Conversation::with(agent.port()), Arc::clone(&done));
        move || {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(nc.ask(format!("line {sent}")), "OK");
                sent += 1;
            }
            sent
        }
    });
    let drained = |agent: &TestAgent, sink: &str| agent.counter(sink, "EventDrainSuccessCount");
    let flows = |sink: &str| {
        let before = drained(&agent, sink);
        let flows = eventually(|| (drained(&agent, sink) > before + 10).then_some(()));
        assert!(flows.is_some(), "nothing goes through {sink}");
    };
    for _ in 0..2 {
        flows("SINK.k1");
        // It stops in order, so that what it has accepted is written.
        assert!(collectors[0].terminate().success());
        flows("SINK.k2");
        collectors[0] = collector(ports[0], kept[0].path());
    }
    flows("SINK.k1");
    done.store(true, Ordering::Relaxed);
    let sent = client.join().expect("every line is accepted");
    assert!(agent.terminate().success(), "all is delivered");
    assert!(collectors.iter_mut().all(|collector| collector.terminate().success()));
    let lines = lines(&[&kept[0], &kept[1]]);
    assert_eq!(lines.len(), sent, "every line is there");
    let twice = lines.values().filter(|count| **count > 1).count();
    assert!(twice <= 200, "{twice} lines are there twice, in two batches of 100");
}

#[test]
fn a_batch_that_one_has_not_acknowledged_goes_to_the_next() {
    let servers = [AvroServer::new(), AvroServer::new()];
    let agent = sender(&servers.each_ref().map(AvroServer::port), FAILOVER);
    let (mut first, mut second) = (servers[0].accept(), servers[1].accept());
    let mut nc = Conversation::with(agent.port());
    nc.send("one\ntwo\n");
    assert_eq!(nc.lines(2), ["OK", "OK"]);
    let (_, bodies) = first.request();
    assert_eq!(bodies, ["one", "two"]);
    drop(first);
    let (call, bodies) = second.request();
    assert_eq!(bodies, ["one", "two"]);
    second.answer(&call, OK);
    agent.wait_for_counter("SINK.k2", "EventDrainSuccessCount", 2);
    assert_eq!(agent.counter("SINK.k1", "EventDrainSuccessCount"), 0);
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 0);
}

#[test]
fn when_all_are_away_nothing_is_lost() {
    let kept = [directory(), directory()];
    let ports = [free_port(), free_port()];
    let agent = sender(&ports, FAILOVER);
    assert_eq!(Conversation::with(agent.port()).ask("patience"), "OK");
    agent.wait_for_line("Sink group g1: All sinks failed to process, nothing left to failover to");
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 1);
    let _second = collector(ports[1], kept[1].path());
    wait_for(&kept[1], "patience");
}

#[test]
fn while_all_are_away_they_are_asked_ever_less_often() {
    let agent = sender(&[free_port(), free_port()], "type = load_balance");
    assert_eq!(Conversation::with(agent.port()).ask("patience"), "OK");
    agent.wait_for_line("Sink group g1: All configured sinks have failed; tried again in 1000 ms");
    agent.wait_for_line("Sink group g1: All configured sinks have failed; tried again in 2000 ms");
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 1);
}

#[test]
fn batches_take_turns() {
    let servers = [AvroServer::new(), AvroServer::new(), AvroServer::new()];
    let agent = sender(&servers.each_ref().map(AvroServer::port), "type = load_balance");
    let mut peers = servers.each_ref().map(AvroServer::accept);
    let mut nc = Conversation::with(agent.port());
    for number in 0..7 {
        let line = number.to_string();
        assert_eq!(nc.ask(&line), "OK");
        let (call, bodies) = peers[number % 3].request();
        assert_eq!(bodies, [line]);
        peers[number % 3].answer(&call, OK);
    }
}

#[test]
fn who_fails_is_passed_over_and_rests() {
    let kept = directory();
    let ports = [free_port(), free_port()];
    let _second = collector(ports[1], kept.path());
    let processor = "type = load_balance\nselector = random\nbackoff = true\nselector.maxTimeOut = 500";
    let agent = sender(&ports, processor);
    let mut nc = Conversation::with(agent.port());
    for number in 0..50 {
        assert_eq!(nc.ask(number.to_string()), "OK");
    }
    agent.wait_for_counter("SINK.k2", "EventDrainSuccessCount", 50);
    wait_for(&kept, "49");
    let away = directory();
    let _first = collector(ports[0], away.path());
    send_until_it_is_in(&mut nc, "back", &away);
}

#[test]
fn sinks_of_a_group_may_have_channels_of_their_own() {
    let kept = [directory(), directory()];
    let text = |processor: &str| {
        let netcat = NETCAT.replace("channels = c1", "channels = c1 c2");
        let mut text = format!(
            "{netcat}a1.channels = c1 c2\na1.sinks = k1 k2\na1.sinkgroups = g1\na1.sinkgroups.g1.sinks = k1 k2\n"
        );
        for (number, kept) in (1..).zip(&kept) {
            let sink = format!("type = file_roll\nchannel = c{number}\nsink.directory = {}", kept.path().display());
            text += &keys(&format!("channels.c{number}"), "type = memory");
            text += &keys(&format!("sinks.k{number}"), &sink);
        }
        text + &keys("sinkgroups.g1.processor", processor)
    };
    let mut agent = TestAgent::start(&text("type = load_balance"));
    let mut nc = Conversation::with(agent.port());
    for line in ["one", "two", "three"] {
        assert_eq!(nc.ask(line), "OK");
    }
    wait_for(&kept[0], "three");
    wait_for(&kept[1], "three");
    assert!(agent.terminate().success());
    assert_eq!(lines(&[&kept[0], &kept[1]]).into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn a_sink_that_cannot_start_is_one_that_fails() {
    let home = directory();
    let (missing, spare) = (home.path().join("missing"), directory());
    let mut text = format!("{NETCAT}{MEMORY}a1.sinks = k1 k2\na1.sinkgroups = g1\na1.sinkgroups.g1.sinks = k1 k2\n");
    for (name, kept) in [("k1", missing.as_path()), ("k2", spare.path())] {
        let sink = format!("type = file_roll\nchannel = c1\nsink.directory = {}", kept.display());
        text += &keys(&format!("sinks.{name}"), &sink);
    }
    let agent = TestAgent::start(&(text + &keys("sinkgroups.g1.processor", FAILOVER)));
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("spared"), "OK");
    wait_for(&spare, "spared");
    std::fs::create_dir(&missing).expect("the temporary directory can be written to");
    let there = eventually(|| {
        assert_eq!(nc.ask("found"), "OK");
        (!contents(&missing).is_empty()).then_some(())
    });
    assert!(there.is_some());
}

#[test]
fn a_reload_makes_a_group_and_takes_it_apart() {
    let servers = [AvroServer::new(), AvroServer::new()];
    let sinks = |more: &str| {
        let mut text = format!("{NETCAT}{MEMORY}a1.sinks = k1 k2\n{more}");
        for (name, server) in ["k1", "k2"].iter().zip(&servers) {
            let sink = format!("type = avro\nhostname = localhost\nport = {}\nchannel = c1", server.port());
            text += &keys(&format!("sinks.{name}"), &sink);
        }
        text
    };
    let group = |preferred: &str| {
        let processor = format!("type = failover\npriority.{preferred} = 1");
        format!("a1.sinkgroups = g1\na1.sinkgroups.g1.sinks = k1 k2\n{}", keys("sinkgroups.g1.processor", &processor))
    };
    let agent = TestAgent::start(&sinks(&group("k2")));
    let mut nc = Conversation::with(agent.port());
    let mut deliver = |line: &str, server: usize, peers: &mut [crate::support::AvroPeer; 2]| {
        assert_eq!(nc.ask(line), "OK");
        let (call, bodies) = peers[server].request();
        assert_eq!(bodies, [line]);
        peers[server].answer(&call, OK);
    };
    let accept = || servers.each_ref().map(AvroServer::accept);
    let mut peers = accept();
    deliver("to the second", 1, &mut peers);
    agent.rewrite(&sinks(&group("k1")));
    agent.signal(Signal::HUP);
    let mut peers = accept();
    deliver("to the first", 0, &mut peers);
    agent.rewrite(&sinks(""));
    agent.signal(Signal::HUP);
    let _peers = accept();
    agent.wait_for_lines("Stopping Sink g1", 2);
}

#[test]
fn what_cannot_be_right_is_named() {
    let home = directory();
    let faults: &[(&str, &str, &[&str])] = &[
        (
            "processor.type = failove",
            "error: a1.sinkgroups.g1.processor.type = \"failove\": unknown sink processor; the sinks k1, k2 do not run",
            &["did you mean \"failover\"?"],
        ),
        (
            "processor.type = load_balance\nprocessor.selector = rondom",
            "error: a1.sinkgroups.g1.processor.selector = \"rondom\": ",
            &["did you mean \"random\"?", "the sinks k1, k2 do not run"],
        ),
        (
            "processor.type = failover\nprocessor.maxpenalty = long",
            "warning: a1.sinkgroups.g1.processor.maxpenalty = \"long\": ",
            &["Flume says: long is not a valid value for maxpenalty"],
        ),
        (
            "processor.type = failover\nprocessor.priority.k1 = 5\nprocessor.priority.k2 = 5",
            "warning: a1.sinkgroups.g1.processor.priority.k2 = \"5\": the priority of k1 too, which comes first",
            &[],
        ),
        (
            "processor.type = failover\nprocessor.priority.k3 = 5",
            "warning: a1.sinkgroups.g1.processor.priority.k3 = \"5\": k3 is not in the group; did you mean",
            &[],
        ),
    ];
    let null = "type = null\nchannel = c1";
    let spark = "type = org.apache.spark.streaming.flume.sink.SparkSink\nhostname = localhost\nport = 0\nchannel = c1";
    let pulled = (
        "processor.type = failover",
        "error: a1.sinkgroups.g1.sinks = \"k1 k2\": the events of sink k2 are fetched by others; it runs on its own",
        &["of k1\n"][..],
    );
    for ((group, place, words), second) in faults.iter().map(|fault| (fault, null)).chain([(&pulled, spark)]) {
        let text = format!(
            "{NETCAT}{MEMORY}a1.sinks = k1 k2\na1.sinkgroups = g1\na1.sinkgroups.g1.sinks = k1 k2\n{}{}{}",
            keys("sinks.k1", null),
            keys("sinks.k2", second),
            keys("sinkgroups.g1", group)
        );
        let config = write(home.path(), "agent.conf", text);
        let text = stdout(&run(&["check", "--conf-file", &config.display().to_string()]));
        assert!(text.contains(place), "no {place}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}
