//! Kafka source, file channel, transactional Kafka sink: every message once, whoever is killed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::thread;

use rustix::process::Signal;

use crate::support::{Kafka, TestAgent, directory, eventually};

/// An agent's chain from one topic to another. It is known to its group, so that it need not wait for its predecessor's
/// session to end.
fn chain(kafka: &Kafka, from: &str, to: &str, home: &Path) -> String {
    let (servers, home) = (kafka.servers(), home.display());
    format!(
        "a1.sources = r1\na1.sources.r1.type = org.apache.flume.source.kafka.KafkaSource\na1.sources.r1.channels = c1\n\
         a1.sources.r1.kafka.bootstrap.servers = {servers}\na1.sources.r1.kafka.topics = {from}\n\
         a1.sources.r1.kafka.consumer.group.id = {from}\na1.sources.r1.batchSize = 20\n\
         a1.sources.r1.kafka.consumer.auto.offset.reset = earliest\n\
         a1.channels = c1\na1.channels.c1.type = file\na1.channels.c1.checkpointDir = {home}/checkpoint\n\
         a1.channels.c1.dataDirs = {home}/data\na1.channels.c1.maxFileSize = 200000\n\
         a1.channels.c1.checkpointInterval = 1000\n\
         a1.sinks = k1\na1.sinks.k1.type = org.apache.flume.sink.kafka.KafkaSink\na1.sinks.k1.channel = c1\n\
         a1.sinks.k1.kafka.bootstrap.servers = {servers}\na1.sinks.k1.kafka.topic = {to}\n\
         a1.sinks.k1.allowTopicOverride = false\na1.sinks.k1.flumeBatchSize = 50\n\
         a1.sinks.k1.kafka.producer.transactional.id = {to}\n"
    )
}

const STATIC: &str = "a1.sources.r1.kafka.consumer.group.instance.id = a1\n";

fn produce(kafka: &Kafka, topic: &str, numbers: Range<usize>) {
    kafka.produce(topic, None, numbers.map(|number| number.to_string()));
}

/// The numbers that a reader of committed transactions sees, once there are so many messages, and how often each.
fn seen(kafka: &Kafka, topic: &str, count: usize) -> BTreeMap<usize, usize> {
    let mut seen = BTreeMap::new();
    for message in kafka.read(topic, count) {
        *seen.entry(message.text().parse().expect("a number")).or_default() += 1;
    }
    seen
}

fn assert_each_once(kafka: &Kafka, topic: &str, count: usize) {
    let seen = seen(kafka, topic, count);
    let missing: Vec<_> = (0..count).filter(|number| !seen.contains_key(number)).take(20).collect();
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).take(20).collect();
    assert!(missing.is_empty() && twice.is_empty(), "{} of {count}: missing {missing:?}, twice {twice:?}", seen.len());
}

#[test]
fn each_message_is_there_once_however_often_the_agent_is_killed() {
    const ROUND: usize = 2000;
    let kills = if std::env::var_os("NIGHTLY").is_some() { 100 } else { 10 };
    let Some(kafka) = Kafka::shared() else { return };
    let (from, to, home) = (kafka.topic(3, &[]), kafka.topic(2, &[]), directory());
    let config = chain(kafka, &from, &to, home.path()) + STATIC;
    for round in 0..kills {
        let mut agent = TestAgent::start(&config);
        thread::scope(|scope| {
            scope.spawn(|| produce(kafka, &from, round * ROUND..(round + 1) * ROUND));
            let enough = 20 * fastrand::u64(0..(ROUND / 20) as u64);
            let accepted = || {
                let metrics = agent.metrics();
                metrics["SOURCE.r1"]["EventAcceptedCount"].as_str().and_then(|count| count.parse::<u64>().ok())
            };
            let moves = eventually(|| accepted().filter(|count| *count > enough));
            assert!(moves.is_some(), "messages flow:\n{}", agent.log());
            agent.signal(Signal::KILL);
        });
        agent.wait();
    }
    let mut agent = TestAgent::start(&config);
    assert_each_once(kafka, &to, kills * ROUND);
    assert!(agent.terminate().success());
}

#[test]
fn each_message_is_there_once_when_brokers_are_killed() {
    let Some(kafka) = Kafka::start(3) else { return };
    let (from, to, home) = (kafka.topic(3, &[]), kafka.topic(1, &[]), directory());
    let mut agent = TestAgent::start(&(chain(&kafka, &from, &to, home.path()) + STATIC));
    let mut produced = 0;
    let mut add = |count| {
        produce(&kafka, &from, produced..produced + count);
        produced += count;
        produced
    };
    for _ in 0..3 {
        let drained = || agent.counter("SINK.k1", "EventDrainSuccessCount");
        let before = drained();
        add(3000);
        assert!(eventually(|| (drained() > before + 100).then_some(())).is_some(), "events flow");
        let leader = kafka.leader(&to);
        kafka.kill(leader);
        let all = add(500) as u64;
        let flows = eventually(|| (drained() >= all).then_some(()));
        assert!(flows.is_some(), "events flow without broker {leader}, not {all}: {}", agent.metrics());
        kafka.revive(leader);
    }
    let produced = add(100);
    assert_each_once(&kafka, &to, produced);
    assert!(agent.terminate().success());
}

#[test]
fn what_the_channel_knows_counts_for_the_sources_own_commits_only() {
    let Some(kafka) = Kafka::shared() else { return };
    let (from, to, home) = (kafka.topic(1, &[]), kafka.topic(1, &[]), directory());
    let config = chain(kafka, &from, &to, home.path());
    let run = |count: usize| {
        let mut agent = TestAgent::start(&config);
        let seen = seen(kafka, &to, count);
        assert!(agent.terminate().success());
        (seen, agent)
    };
    produce(kafka, &from, 0..100);
    assert_eq!(run(100).0.len(), 100);
    let (committed, own) = kafka.stored(&from, &from);
    assert_eq!(committed, 100);
    // A crash has kept the last commits from the brokers.
    let (stream, of) = own.rsplit_once(' ').expect("a stream and its offset");
    assert_eq!(of, "100");
    let own = |offset: i64| format!("{stream} {offset}");
    kafka.store_at(&from, &from, 30, &own(30));
    produce(kafka, &from, 100..120);
    let (after, agent) = run(120);
    assert!(after.values().all(|times| *times == 1), "{after:?}");
    agent.wait_for_line("goes on at offset 100, up to which its messages are in the channels; 30 was committed");
    // An operator has moved the offset back, with a tool that copies the metadata.
    assert_eq!(kafka.stored(&from, &from), (120, own(120)));
    kafka.store_at(&from, &from, 90, &own(120));
    let (all, _) = run(150);
    assert!(all.iter().all(|(number, times)| *times == if *number < 90 { 1 } else { 2 }), "{all:?}");
}
