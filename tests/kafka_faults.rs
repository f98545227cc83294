//! Kafka's faults, with real brokers: what users see while one lasts, and that nothing is lost when it is over.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use crate::kafka::{AVRO, ROOM, avro_to_kafka, kafka_to_files, numbers, sink, texts};
use crate::support::{
    Answer, AvroClient, KAFKA_USER, Kafka, MEMORY, TestAgent, batch, contents, directory, eventually, file_roll, keys,
};

/// Asserts that a fault was told with no more than some lines a second. `known` is how many were there before it.
fn assert_few_lines(agent: &TestAgent, known: usize, since: Instant) {
    let (lines, seconds) = (agent.log().lines().count() - known, since.elapsed().as_secs() as usize + 1);
    assert!(lines <= 40 + 2 * seconds, "{lines} lines in {seconds} seconds");
}

#[test]
fn a_refused_password_is_named_and_the_right_one_delivers_what_waits() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, (user, right)) = (kafka.topic(1, &[]), KAFKA_USER);
    let config = |password: &str| {
        let login = format!(
            "security.protocol = SASL_PLAINTEXT\nsasl.mechanism = PLAIN\n\
             sasl.jaas.config = org.apache.kafka.common.security.plain.PlainLoginModule required \
             username=\"{user}\" password=\"{password}\";"
        );
        let login = keys("sinks.k1.kafka.producer", &login);
        format!("{AVRO}{MEMORY}{ROOM}{}{login}", sink(&kafka.guarded_server(), &topic))
    };
    let since = Instant::now();
    let agent = TestAgent::start_with(&config("guessed"), &["--poll-interval", "1"]);
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    assert_eq!(client.append_batch(&batch(0..500)), Answer::Ok);
    for line in agent.wait_for_lines("Local: Authentication failure", 2) {
        assert!(line.contains("Sink k1: Kafka client: "), "{line}");
        assert!(line.contains("user flume, mechanism PLAIN") && !line.contains("guessed"), "{line}");
    }
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 500);
    assert_few_lines(&agent, 0, since);
    agent.rewrite(&config(right));
    assert_eq!(texts(kafka, &topic, 500), numbers(0..500));
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
}

#[test]
fn a_broker_that_closes_each_connection_is_told_with_a_hint() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(1, &[]), directory());
    // It asks for user and password, of which these know nothing.
    let guarded = kafka.guarded_server();
    let since = Instant::now();
    let (sink, mut client) = avro_to_kafka(&guarded, &topic, "");
    assert_eq!(client.append_batch(&batch(0..10)), Answer::Ok);
    let source = TestAgent::start(&kafka_to_files(&guarded, &topic, &topic, "", out.path()));
    for (agent, owner) in [(sink, "Sink k1"), (source, "Source r1")] {
        let line = agent.wait_for_line("does the broker expect TLS or SASL (security.protocol)?");
        assert!(line.contains(&format!("{owner}: Kafka client: {guarded}/")), "{line}");
        assert_few_lines(&agent, 0, since);
    }
}

#[test]
fn a_full_disk_makes_events_wait_until_there_is_room() {
    const BATCHES: usize = 40;
    let Some(kafka) = Kafka::with_disk("24m") else { return };
    let topic = kafka.topic(1, &[("segment.bytes", "4194304")]);
    let since = Instant::now();
    let (agent, mut client) = avro_to_kafka(kafka.servers(), &topic, "flumeBatchSize = 500");
    let wide = |number: usize| format!("{number:01000}");
    for start in (0..BATCHES * 1000).step_by(1000) {
        assert_eq!(client.append_batch(&batch((start..start + 1000).map(wide))), Answer::Ok);
    }
    agent.wait_for_line("Sink k1: Kafka client: ");
    let delivered = || agent.counter("SINK.k1", "EventDrainSuccessCount");
    assert!(delivered() < BATCHES as u64 * 1000, "the disk is too small for all");
    assert_few_lines(&agent, 0, since);
    kafka.resize_disk("400m");
    // A broker that has lost its disk ends.
    kafka.kill(1);
    kafka.revive(1);
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    let numbers_of =
        |texts: Vec<String>| texts.iter().filter_map(|text| text.parse().ok()).collect::<BTreeSet<usize>>();
    let seen = numbers_of(texts(&kafka, &topic, BATCHES * 1000));
    assert!(seen.into_iter().eq(0..BATCHES * 1000), "every event is there");
}

#[test]
fn a_broker_that_comes_and_goes_does_not_trouble_an_idle_agent() {
    let Some(kafka) = Kafka::mortal() else { return };
    let (from, to) = (kafka.topic(1, &[]), kafka.topic(1, &[]));
    let unused = directory();
    let source = kafka_to_files(kafka.servers(), &from, &from, "setTopicHeader = false", unused.path());
    let source: String =
        source.lines().filter(|line| !line.contains("sinks")).map(|line| format!("{line}\n")).collect();
    let agent = TestAgent::start(&format!("{source}{}", sink(kafka.servers(), &to)));
    kafka.produce(&from, None, ["before"]);
    assert_eq!(texts(&kafka, &to, 1), ["before"]);
    let (known, since) = (agent.log().lines().count(), Instant::now());
    let mut memory = Vec::new();
    for _ in 0..3 {
        let refused = agent.messages("Connection refused").len();
        kafka.kill(1);
        agent.wait_for_lines("Connection refused", refused + 1);
        kafka.revive(1);
        memory.push(agent.memory());
    }
    assert_few_lines(&agent, known, since);
    kafka.produce(&from, None, ["after"]);
    assert_eq!(texts(&kafka, &to, 2), ["before", "after"]);
    memory.push(agent.memory());
    let grown = memory[3].saturating_sub(memory[0]);
    assert!(grown < 4096, "{grown} kB: {memory:?}");
}

/// The lines in the files of a sink.
fn lines(kept: &Path) -> Vec<String> {
    String::from_utf8_lossy(&contents(kept)).lines().map(str::to_owned).collect()
}

#[test]
fn another_sink_of_the_group_takes_over_while_the_broker_is_away() {
    let Some(kafka) = Kafka::mortal() else { return };
    let (topic, kept) = (kafka.topic(1, &[]), directory());
    let files = file_roll(kept.path()).replace("a1.sinks = k1\n", "").replace("k1", "k2");
    let group = "sinks = k1 k2\nprocessor.type = failover\nprocessor.priority.k1 = 10\nprocessor.priority.k2 = 5\n\
                 processor.maxpenalty = 1000";
    let kafka_sink = sink(kafka.servers(), &topic).replace("a1.sinks = k1\n", "a1.sinks = k1 k2\n");
    let agent = TestAgent::start(&format!(
        "{AVRO}{MEMORY}{kafka_sink}a1.sinks.k1.kafka.producer.delivery.timeout.ms = 1000\n{files}\
         a1.sinkgroups = g1\n{}",
        keys("sinkgroups.g1", group)
    ));
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    assert_eq!(client.append_batch(&batch(0..50)), Answer::Ok);
    assert_eq!(texts(&kafka, &topic, 50), numbers(0..50));
    kafka.kill(1);
    assert_eq!(client.append_batch(&batch(50..100)), Answer::Ok);
    assert!(
        eventually(|| (lines(kept.path()) == numbers(50..100)).then_some(())).is_some(),
        "{:?}",
        lines(kept.path())
    );
    agent.wait_for_line("Sink k1 failed and has been sent to failover list");
    kafka.revive(1);
    // Some go to the files until the first one has passed its trial.
    let mut sent = 100;
    let back = eventually(|| {
        assert_eq!(client.append(&sent.to_string()), Answer::Ok);
        sent += 1;
        (agent.counter("SINK.k1", "EventDrainSuccessCount") > 50).then_some(())
    });
    assert!(back.is_some(), "the first one delivers again");
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    let in_files = lines(kept.path());
    let all = |texts: Vec<String>| texts.into_iter().chain(in_files.iter().cloned()).collect::<BTreeSet<_>>();
    let all = all(texts(&kafka, &topic, 51));
    assert_eq!(all, numbers(0..sent).into_iter().collect(), "every event is somewhere");
}

#[test]
fn a_topic_that_is_not_there_is_named_and_gets_what_waits_once_it_is() {
    let Some(kafka) = Kafka::mortal() else { return };
    let topic = "made-by-hand";
    let since = Instant::now();
    let more = "kafka.producer.topic.metadata.propagation.max.ms = 1000";
    let (agent, mut client) = avro_to_kafka(kafka.servers(), topic, more);
    assert_eq!(client.append_batch(&batch(0..500)), Answer::Ok);
    for line in agent.wait_for_lines("Unable to deliver event.", 3) {
        assert!(line.contains(&format!("topic {topic}")) && line.contains("tried again in"), "{line}");
    }
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 500);
    assert_few_lines(&agent, 0, since);
    kafka.make_topic(topic, 1, &[]);
    assert_eq!(texts(&kafka, topic, 500), numbers(0..500));
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
}
