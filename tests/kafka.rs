//! The Kafka sink, source and channel, with real brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use flume_rs::event::{Batch, Event};
use rustix::process::Signal;

use crate::support::{
    self, Answer, AvroClient, Conversation, Kafka, LOGGER, Launch, MEMORY, Message, NETCAT, TestAgent, batch,
    directory, eventually, file_roll, free_port, kept_events, keys, run, stdout, wait_for_kept_events, write,
};

/// An avro source `r1` into `c1`.
pub const AVRO: &str = "\
a1.sources = r1
a1.sources.r1.type = avro
a1.sources.r1.bind = 127.0.0.1
a1.sources.r1.port = 0
a1.sources.r1.channels = c1
";

/// Room for the batches of these tests.
pub const ROOM: &str = "a1.channels.c1.capacity = 100000\na1.channels.c1.transactionCapacity = 1000\n";

/// A Kafka sink `k1` from `c1` to a topic.
pub fn sink(servers: &str, topic: &str) -> String {
    format!(
        "a1.sinks = k1\na1.sinks.k1.type = org.apache.flume.sink.kafka.KafkaSink\na1.sinks.k1.channel = c1\n\
         a1.sinks.k1.kafka.bootstrap.servers = {servers}\na1.sinks.k1.kafka.topic = {topic}\n"
    )
}

/// An agent with an avro source and a Kafka sink, and a client of the source. `more` are further keys of the sink.
pub fn avro_to_kafka(servers: &str, topic: &str, more: &str) -> (TestAgent, AvroClient) {
    let more: String = more.lines().map(|line| format!("a1.sinks.k1.{line}\n")).collect();
    let agent = TestAgent::start(&format!("{AVRO}{MEMORY}{ROOM}{}{more}", sink(servers, topic)));
    let client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    // It counts from when its sink runs.
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 0);
    (agent, client)
}

pub fn texts(kafka: &Kafka, topic: &str, count: usize) -> Vec<String> {
    kafka.read(topic, count).iter().map(|message| message.text()).collect()
}

pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn header<'a>(key: &'a str, value: &'a str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn events_become_messages_in_their_order() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(1, &[]);
    let (mut agent, mut client) = avro_to_kafka(kafka.servers(), &topic, "");
    for start in (0..5000).step_by(1000) {
        assert_eq!(client.append_batch(&batch(start..start + 1000)), Answer::Ok);
    }
    assert_eq!(texts(kafka, &topic, 5000), numbers(0..5000));
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 5000);
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    for name in ["KafkaEventSendTimer", "RollbackCount"] {
        assert!(agent.metrics()["SINK.k1"][name].is_string(), "{name}");
    }
    assert!(agent.terminate().success());
}

#[test]
fn headers_choose_topic_partition_key_time_and_headers_of_the_message() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, other) = (kafka.topic(3, &[]), kafka.topic(1, &[]));
    let more = "partitionIdHeader = part\ntimestampHeader = when\nheader.host = from-host\ndefaultPartitionId = 1";
    let (_agent, mut client) = avro_to_kafka(kafka.servers(), &topic, more);
    let events = [
        Event::new("a").with("key", "Zürich").with("part", "2").with("when", "1700000000123").with("host", "web1"),
        Event::new("").with("when", "soon"),
        Event::new("c").with("topic", &other).with("part", "0"),
    ];
    assert_eq!(client.append_batch(&Batch::from_iter(events)), Answer::Ok);
    let messages = kafka.read(&topic, 2);
    assert_eq!(messages.len(), 2, "{messages:?}");
    let [empty, full] = &messages[..] else { unreachable!() };
    assert_eq!((full.partition, full.key.as_deref(), &*full.text()), (2, Some("Zürich"), "a"));
    assert_eq!(full.timestamp, Some(1_700_000_000_123));
    assert_eq!(full.headers, BTreeMap::from([header("from-host", "web1")]));
    assert_eq!((empty.partition, empty.key.as_deref(), &*empty.text()), (1, None, ""));
    assert!(empty.timestamp > Some(1_700_000_000_123), "an unreadable time is now");
    assert_eq!(texts(kafka, &other, 1), ["c"]);
}

#[test]
fn a_key_goes_to_the_partition_that_javas_client_would_choose() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(3, &[]);
    let (_agent, mut client) = avro_to_kafka(kafka.servers(), &topic, "");
    let events: Batch =
        ["21", "foobar", "a-little-bit-long-string"].iter().map(|key| Event::new(*key).with("key", key)).collect();
    assert_eq!(client.append_batch(&events), Answer::Ok);
    // Murmur2 as Java's client has it: -973932308, -790332482 and -985981536, without their sign, modulo 3.
    let java = |hash: i32| (hash & i32::MAX) % 3;
    let expected = BTreeMap::from([
        ("21".to_owned(), java(-973_932_308)),
        ("foobar".to_owned(), java(-790_332_482)),
        ("a-little-bit-long-string".to_owned(), java(-985_981_536)),
    ]);
    let seen: BTreeMap<_, _> =
        kafka.read(&topic, 3).into_iter().map(|message| (message.text(), message.partition)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn the_old_keys_and_flumes_event_format() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(1, &[]);
    let agent = TestAgent::start(&format!(
        "{AVRO}{MEMORY}a1.sinks = k1\na1.sinks.k1.type = org.apache.flume.sink.kafka.KafkaSink\na1.sinks.k1.channel = c1\n\
         a1.sinks.k1.brokerList = {}\na1.sinks.k1.topic = {topic}\na1.sinks.k1.batchSize = 5\n\
         a1.sinks.k1.requiredAcks = 1\na1.sinks.k1.useFlumeEventFormat = true\n",
        kafka.servers()
    ));
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    let events = Batch::from_iter([Event::new("hello").with("host", "web1"), Event::new("x")]);
    assert_eq!(client.append_batch(&events), Answer::Ok);
    let messages = kafka.read(&topic, 2);
    assert_eq!(messages[0].value, b"\x02\x08host\x08web1\x00\x0ahello");
    assert_eq!(messages[1].value, b"\x00\x02x");
    for (old, new) in [
        ("brokerList", "kafka.bootstrap.servers"),
        ("topic", "kafka.topic"),
        ("batchSize", "flumeBatchSize"),
        ("requiredAcks", "kafka.producer.acks"),
    ] {
        agent.wait_for_line(&format!("{old} is deprecated. Please use the parameter {new}"));
    }
}

#[test]
fn a_topic_with_escapes_and_one_without_override() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(1, &[]);
    let number = topic.strip_prefix("topic-").expect("the prefix");
    let event = || Batch::from_iter([Event::new("x").with("number", number).with("topic", "elsewhere")]);
    let (_agent, mut client) = avro_to_kafka(kafka.servers(), "topic-%{number}", "topicHeader = none");
    assert_eq!(client.append_batch(&event()), Answer::Ok);
    assert_eq!(texts(kafka, &topic, 1), ["x"]);
    let (_agent, mut client) = avro_to_kafka(kafka.servers(), &topic, "allowTopicOverride = false");
    assert_eq!(client.append_batch(&event()), Answer::Ok);
    assert_eq!(texts(kafka, &topic, 2), ["x", "x"]);
}

/// Three channels: `c1` to Kafka, and what Kafka will not take to `dead` and from there to another topic.
fn with_dead_letters(kafka: &Kafka, topic: &str, dead_topic: &str, more: &str) -> (TestAgent, AvroClient) {
    let more: String = more.lines().map(|line| format!("a1.sinks.k1.{line}\n")).collect();
    let dead = sink(kafka.servers(), dead_topic).replace(".k1.", ".k2.").replace("= c1", "= dead");
    let dead = dead.lines().skip(1).collect::<Vec<_>>().join("\n");
    let agent = TestAgent::start(&format!(
        "{AVRO}{MEMORY}{ROOM}{}{more}{dead}\na1.sinks.k1.deadLetterChannel = dead\na1.sinks = k1 k2\n\
         a1.channels = c1 dead\na1.channels.dead.type = memory\na1.sinks.k2.useFlumeEventFormat = true\n\
         a1.sinks.k2.allowTopicOverride = false\n",
        sink(kafka.servers(), topic)
    ));
    let client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    (agent, client)
}

#[test]
fn what_kafka_will_never_take_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, dead) = (kafka.topic(1, &[("max.message.bytes", "2000")]), kafka.topic(1, &[]));
    let more = "kafka.producer.max.request.size = 100000\npartitionIdHeader = part";
    let (agent, mut client) = with_dead_letters(kafka, &topic, &dead, more);
    let large = |bytes| vec![b'x'; bytes];
    let events = [
        Event::new("1"),
        // Larger than the topic takes, which the broker says, then larger than the client sends.
        Event::new(large(3000)),
        Event::new(large(200_000)),
        Event::new("no number").with("part", "first"),
        Event::new("no topic").with("topic", "not a topic"),
        Event::new("2"),
    ];
    assert_eq!(client.append_batch(&Batch::from_iter(events)), Answer::Ok);
    let mut arrived = texts(kafka, &topic, 2);
    arrived.sort();
    assert_eq!(arrived, ["1", "2"]);
    let letters = kafka.read(&dead, 4);
    let reasons: Vec<String> = letters.iter().map(|letter| letter.text()).collect();
    for (letter, reason) in reasons.iter().zip([
        "MessageSizeTooLarge",
        "MessageSizeTooLarge",
        "Non integer partition id specified: \"first\"",
        "\"not a topic\" is no name of a topic",
    ]) {
        assert!(letter.contains(reason), "{reason}: {}", &letter[..letter.len().min(200)]);
        assert!(letter.contains("deadLetterSink\u{4}k1"), "who refused it");
    }
    agent.wait_for_counter("SINK.k1", "EventDeadLetterCount", 4);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 2);
    agent.wait_for_counter("SINK.k2", "EventDrainSuccessCount", 4);
    let line = agent.wait_for_line("Sink k1 can never deliver an event of 3000 bytes: ");
    assert!(line.contains("it goes to channel dead"), "{line}");
}

#[test]
fn a_partition_that_its_topic_does_not_have_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, dead) = (kafka.topic(3, &[]), kafka.topic(1, &[]));
    let (agent, mut client) = with_dead_letters(kafka, &topic, &dead, "partitionIdHeader = part");
    let why = format!("there is no partition 7 in topic {topic}, which has 3 partitions");
    // First before the client knows the topic.
    for round in 1..3 {
        let events = [("a", "0"), ("lost", "7"), ("b", "2")].map(|(body, part)| Event::new(body).with("part", part));
        assert_eq!(client.append_batch(&Batch::from_iter(events)), Answer::Ok);
        agent.wait_for_counter("SINK.k1", "EventDeadLetterCount", round);
        agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 2 * round);
    }
    assert_eq!(texts(kafka, &topic, 4), ["a", "a", "b", "b"], "each of them once");
    for letter in texts(kafka, &dead, 2) {
        assert!(letter.contains(&why), "{letter}");
    }
    agent.wait_for_line(&format!("Sink k1 can never deliver an event of 4 bytes: {why}"));
}

#[test]
fn without_dead_letters_what_is_too_large_is_named_and_counted() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(1, &[]);
    let (agent, mut client) = avro_to_kafka(kafka.servers(), &topic, "");
    let events = [Event::new("1"), Event::new(vec![b'x'; 2_000_000]), Event::new("2")];
    assert_eq!(client.append_batch(&Batch::from_iter(events)), Answer::Ok);
    assert_eq!(texts(kafka, &topic, 2), ["1", "2"]);
    agent.wait_for_line("Sink k1 can never deliver an event of 2000000 bytes: ");
    agent.wait_for_counter("SINK.k1", "EventRefusedCount", 1);
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
}

#[test]
fn a_queue_smaller_than_a_batch_is_back_pressure() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(1, &[]);
    let more = "kafka.producer.queue.buffering.max.messages = 7\nflumeBatchSize = 1000";
    let (_agent, mut client) = avro_to_kafka(kafka.servers(), &topic, more);
    assert_eq!(client.append_batch(&batch(0..1000)), Answer::Ok);
    assert_eq!(texts(kafka, &topic, 1000), numbers(0..1000));
}

#[test]
fn without_a_broker_events_wait_and_the_log_says_why() {
    let Some(kafka) = Kafka::mortal() else { return };
    let topic = kafka.topic(1, &[]);
    kafka.kill(1);
    let (mut agent, mut client) = avro_to_kafka(kafka.servers(), &topic, "");
    assert_eq!(client.append_batch(&batch(0..500)), Answer::Ok);
    agent.wait_for_line("Sink k1: Kafka client: ");
    agent.wait_for_line("Connection refused");
    kafka.revive(1);
    assert_eq!(texts(&kafka, &topic, 500), numbers(0..500));
    // Once more, while it runs.
    kafka.kill(1);
    assert_eq!(client.append_batch(&batch(500..900)), Answer::Ok);
    kafka.revive(1);
    assert_eq!(texts(&kafka, &topic, 900), numbers(0..900));
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    let lines = agent.messages("Kafka client:").len();
    assert!(lines < 200, "{lines} lines");
    assert!(agent.terminate().success());
}

#[test]
fn an_agent_that_reaches_no_broker_stops_in_time_and_keeps_what_it_has() {
    let home = directory();
    let config = |servers: &str| {
        let channel = format!(
            "a1.channels = c1\na1.channels.c1.type = file\na1.channels.c1.checkpointDir = {0}/checkpoint\n\
             a1.channels.c1.dataDirs = {0}/data\n",
            home.path().display()
        );
        format!("{NETCAT}{channel}{}", sink(servers, "anything"))
    };
    let nobody = format!("127.0.0.1:{}", free_port());
    let mut agent = Launch::new().args(["--drain-timeout", "1"]).config(&config(&nobody));
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    agent.wait_for_line("Connection refused");
    assert!(agent.terminate().success());
    let Some(kafka) = Kafka::shared() else { return };
    let _agent = TestAgent::start(&config(kafka.servers()));
    assert_eq!(texts(kafka, "anything", 1), ["hello"], "the topic is made by the broker");
}

/// Ends the load also when the test fails, as nobody would wait for it otherwise.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nothing_is_lost_when_leaders_are_killed_under_load() {
    let Some(kafka) = Kafka::start(3) else { return };
    let topic = kafka.topic(1, &[]);
    let more = "kafka.producer.acks = all\nflumeBatchSize = 500";
    let (agent, mut client) = avro_to_kafka(kafka.servers(), &topic, more);
    let enough = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let end = Ends(&enough);
        let load = scope.spawn(|| {
            let mut sent = 0;
            while !enough.load(Ordering::Relaxed) {
                if client.append_batch(&batch(sent..sent + 100)) == Answer::Ok {
                    sent += 100;
                }
            }
            sent
        });
        for _ in 0..2 {
            let before = agent.counter("SINK.k1", "EventDrainSuccessCount");
            let moved = || agent.counter("SINK.k1", "EventDrainSuccessCount") > before + 1000;
            assert!(eventually(|| moved().then_some(())).is_some(), "events flow");
            let leader = kafka.leader(&topic);
            kafka.kill(leader);
            assert!(eventually(|| moved().then_some(())).is_some(), "events flow");
            kafka.revive(leader);
        }
        drop(end);
        load.join().expect("the load")
    });
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    let distinct = |messages: &[Message]| messages.iter().map(|message| message.text()).collect::<BTreeSet<_>>();
    let messages = kafka.read_until(&topic, |messages| messages.len() >= sent && distinct(messages).len() >= sent);
    assert_eq!(distinct(&messages), numbers(0..sent).into_iter().collect());
}

/// A Kafka source `r1` of topics, and a sink that keeps the events in files. `more` are further keys of the source.
pub fn kafka_to_files(servers: &str, topics: &str, group: &str, more: &str, out: &Path) -> String {
    let more: String = more.lines().map(|line| format!("a1.sources.r1.{line}\n")).collect();
    format!(
        "a1.sources = r1\na1.sources.r1.type = org.apache.flume.source.kafka.KafkaSource\na1.sources.r1.channels = c1\n\
         a1.sources.r1.kafka.bootstrap.servers = {servers}\na1.sources.r1.kafka.topics = {topics}\n\
         a1.sources.r1.kafka.consumer.group.id = {group}\n\
         a1.sources.r1.kafka.consumer.auto.offset.reset = earliest\n{more}{MEMORY}{ROOM}{}\
         a1.sinks.k1.sink.serializer = avro_event\n",
        file_roll(out)
    )
}

fn bodies(directory: &Path) -> Vec<String> {
    kept_events(directory).into_iter().map(|event| event.body).collect()
}

#[test]
fn messages_become_events_with_headers() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(3, &[]), directory());
    kafka.produce_headed(&topic, 2, "Zürich", "hello", &[("trace", "1"), ("trace", "2")]);
    let more = "header.id = trace\ntopicHeader = from";
    let agent = TestAgent::start(&kafka_to_files(kafka.servers(), &topic, &topic, more, out.path()));
    let event = wait_for_kept_events(out.path(), 1).remove(0);
    let time = event.headers["timestamp"].parse::<u64>().expect("a number");
    assert!(time > 1_700_000_000_000, "{time}");
    let time = time.to_string();
    let expected = [
        ("timestamp", time.as_str()),
        ("from", &topic),
        ("partition", "2"),
        ("offset", "0"),
        ("key", "Zürich"),
        ("id", "2"),
    ];
    assert_eq!(event, support::Event::new(&expected, "hello"));
    agent.wait_for_counter("SOURCE.r1", "EventAcceptedCount", 1);
    for name in ["KafkaEventGetTimer", "KafkaCommitTimer", "KafkaEmptyCount"] {
        assert!(agent.metrics()["SOURCE.r1"][name].is_string(), "{name}");
    }
}

#[test]
fn whole_events_keep_their_headers_and_what_is_none_is_skipped() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(1, &[]), directory());
    kafka.produce(&topic, None, [&b"\x02\x0coffset\x04my\x00\x02a"[..], b"\x02", b"\x00\x02b"]);
    let more = "useFlumeEventFormat = true\nsetTopicHeader = false";
    let agent = TestAgent::start(&kafka_to_files(kafka.servers(), &topic, &topic, more, out.path()));
    let events = wait_for_kept_events(out.path(), 2);
    let seen: Vec<_> = events.iter().map(|event| (&*event.body, &*event.headers["offset"])).collect();
    assert_eq!(seen, [("a", "my"), ("b", "2")]);
    assert!(!events[0].headers.contains_key("topic"));
    let line = agent.wait_for_line("KafkaSource EXCEPTION");
    assert!(line.contains(&format!("offset 1 of {topic}-0 is no event")), "{line}");
    agent.wait_for_counter("SOURCE.r1", "EventReadFail", 1);
}

#[test]
fn a_source_goes_on_where_it_stopped_and_a_pattern_names_topics() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(2, &[]), directory());
    kafka.produce(&topic, None, numbers(0..1000));
    let config =
        kafka_to_files(kafka.servers(), "nothing", &topic, &format!("kafka.topics.regex = {topic}"), out.path());
    let mut agent = TestAgent::start(&config);
    wait_for_kept_events(out.path(), 1000);
    assert!(agent.terminate().success());
    kafka.produce(&topic, None, numbers(1000..1500));
    let _agent = TestAgent::start(&config);
    wait_for_kept_events(out.path(), 1500);
    let mut bodies = bodies(out.path());
    bodies.sort_by_key(|body| body.parse::<usize>().ok());
    assert_eq!(bodies, numbers(0..1500), "each of them once");
}

#[test]
fn what_is_not_in_the_channel_is_not_committed() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(1, &[]), directory());
    kafka.produce(&topic, None, numbers(0..3000));
    // Nobody empties the channel, so that it takes only the first batches.
    let session = "batchSize = 100\nkafka.consumer.session.timeout.ms = 6000";
    let stuck = kafka_to_files(kafka.servers(), &topic, &topic, session, out.path())
        .replace("a1.sinks = k1\n", "")
        .replace("capacity = 100000", "capacity = 1000");
    let mut agent = Launch::new().args(["--drain-timeout", "1"]).config(&stuck);
    agent.wait_for_line("waiting, nothing is lost");
    agent.signal(Signal::KILL);
    agent.wait();
    // The group forgets a killed member after its session.
    let config = kafka_to_files(kafka.servers(), &topic, &topic, "", out.path());
    let _agent = TestAgent::start(&config);
    let all_others = || bodies(out.path()).len() >= 2000;
    assert!(eventually(|| all_others().then_some(())).is_some(), "{} events", bodies(out.path()).len());
    let seen = bodies(out.path());
    assert_eq!(seen[seen.len() - 2000..], numbers(1000..3000));
}

#[test]
fn two_agents_share_a_group_and_nothing_is_lost_when_one_goes() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(4, &[]), [directory(), directory()]);
    let mut agents: Vec<TestAgent> = out
        .iter()
        .map(|out| TestAgent::start(&kafka_to_files(kafka.servers(), &topic, &topic, "batchSize = 10", out.path())))
        .collect();
    // One that is alone in the group for a while would take everything that is there.
    for agent in &agents {
        agent.wait_for_line("partitions assigned: ");
    }
    for partition in 0..4 {
        kafka.produce(&topic, Some(partition), numbers(0..500));
    }
    wait_for_kept_events(out[0].path(), 1);
    assert!(agents.remove(0).terminate().success());
    for partition in 0..4 {
        kafka.produce(&topic, Some(partition), numbers(500..600));
    }
    let all = || -> BTreeSet<(String, String)> {
        let events = out.iter().flat_map(|out| kept_events(out.path()));
        events.map(|event| (event.headers["partition"].clone(), event.body)).collect()
    };
    assert!(eventually(|| (all().len() == 2400).then_some(())).is_some(), "{} of 2400", all().len());
}

#[test]
fn old_keys_of_the_source_and_what_zookeeper_would_have_known() {
    let home = directory();
    let check = |keys: &str| {
        let text = format!(
            "a1.sources = r1\na1.sources.r1.type = org.apache.flume.source.kafka.KafkaSource\na1.sources.r1.channels = c1\n\
             {MEMORY}{LOGGER}a1.sources.r1.batchSize = 100\n{keys}"
        );
        stdout(&run(&["check", "--conf-file", &write(home.path(), "agent.conf", text).display().to_string()]))
    };
    let old = "a1.sources.r1.topic = t\na1.sources.r1.groupId = g\na1.sources.r1.zookeeperConnect = z:2181\n";
    let text = check(old);
    assert!(text.contains("groupId is deprecated. Please use the parameter kafka.consumer.group.id"), "{text}");
    assert!(text.contains("ZooKeeper, which zookeeperConnect names, is not asked for them"), "{text}");
    let text = check(&format!("{old}a1.sources.r1.kafka.bootstrap.servers = b:9092\n"));
    assert!(text.contains("no offsets are taken over from there"), "{text}");
    let text = check("a1.sources.r1.kafka.bootstrap.servers = b:9092\na1.sources.r1.kafka.topics.regex = (?!x).*\n");
    assert!(text.contains("expected a pattern of topics' names; (?! cannot be translated"), "{text}");
    let text = check("a1.sources.r1.kafka.bootstrap.servers = b:9092\n");
    assert!(text.contains("At least one Kafka topic must be specified."), "{text}");
}

/// A Kafka channel `c1` on a topic. `more` are further keys of it.
fn channel(kafka: &Kafka, topic: &str, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("a1.channels.c1.{line}\n")).collect();
    format!(
        "a1.channels = c1\na1.channels.c1.type = org.apache.flume.channel.kafka.KafkaChannel\n\
         a1.channels.c1.kafka.bootstrap.servers = {}\na1.channels.c1.kafka.topic = {topic}\n\
         a1.channels.c1.kafka.consumer.group.id = {topic}\n{more}",
        kafka.servers()
    )
}

fn to_files(out: &Path) -> String {
    format!("{}a1.sinks.k1.sink.serializer = avro_event\n", file_roll(out))
}

#[test]
fn a_channel_keeps_events_with_their_headers() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(3, &[]), directory());
    let more = "partitionIdHeader = part\ndefaultPartitionId = 1";
    let text = format!("{AVRO}{}{}", channel(kafka, &topic, more), to_files(out.path()));
    let mut agent = TestAgent::start(&text);
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    let events = [Event::new("a").with("host", "Zürich").with("key", "k").with("part", "2"), Event::new("")];
    assert_eq!(client.append_batch(&Batch::from_iter(events)), Answer::Ok);
    let mut kept = wait_for_kept_events(out.path(), 2);
    kept.sort_by(|a, b| a.body.cmp(&b.body));
    let expected =
        [support::Event::new(&[], ""), support::Event::new(&[("host", "Zürich"), ("key", "k"), ("part", "2")], "a")];
    assert_eq!(kept, expected);
    let messages = kafka.read(&topic, 2);
    let places: Vec<_> = messages.iter().map(|message| (message.partition, message.key.as_deref())).collect();
    assert_eq!(places, [(1, None), (2, Some("k"))]);
    agent.wait_for_counter("CHANNEL.c1", "EventPutSuccessCount", 2);
    agent.wait_for_counter("CHANNEL.c1", "EventTakeSuccessCount", 2);
    for name in ["KafkaEventGetTimer", "KafkaEventSendTimer", "KafkaCommitTimer", "RollbackCount"] {
        assert!(agent.metrics()["CHANNEL.c1"][name].is_string(), "{name}");
    }
    let bad = Batch::from_iter([Event::new("x").with("part", "first")]);
    assert_eq!(client.append_batch(&bad), Answer::Failed);
    drop(client);
    assert!(agent.terminate().success());
    // Each of them once, also for whoever comes next.
    let mut agent = TestAgent::start(&text);
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    assert_eq!(client.append("c"), Answer::Ok);
    assert_eq!(wait_for_kept_events(out.path(), 3)[2].body, "c");
    drop(client);
    assert!(agent.terminate().success());
}

#[test]
fn bodies_alone_and_old_keys_of_the_channel() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(1, &[]), directory());
    kafka.produce(&topic, None, ["before"]);
    let agent = TestAgent::start(&format!(
        "{NETCAT}a1.channels = c1\na1.channels.c1.type = org.apache.flume.channel.kafka.KafkaChannel\n\
         a1.channels.c1.brokerList = {}\na1.channels.c1.topic = {topic}\na1.channels.c1.groupId = {topic}\n\
         a1.channels.c1.readSmallestOffset = true\na1.channels.c1.timeout = 10\n\
         a1.channels.c1.parseAsFlumeEvent = false\n{}",
        kafka.servers(),
        to_files(out.path())
    ));
    assert_eq!(Conversation::with(agent.port()).ask("line"), "OK");
    let bodies: Vec<_> = wait_for_kept_events(out.path(), 2).into_iter().map(|event| event.body).collect();
    assert_eq!(bodies, ["before", "line"]);
    assert_eq!(texts(kafka, &topic, 2), ["before", "line"]);
}

#[test]
fn what_a_sink_could_not_deliver_comes_again() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(2, &[]), directory());
    let channel = channel(kafka, &topic, "kafka.consumer.session.timeout.ms = 6000");
    // The next agent is not there.
    let next = "a1.sinks = k1\na1.sinks.k1.type = avro\na1.sinks.k1.channel = c1\na1.sinks.k1.hostname = 127.0.0.1\n\
                a1.sinks.k1.port = PORT\n"
        .replace("PORT", &free_port().to_string());
    let mut agent = TestAgent::start(&format!("{AVRO}{channel}{next}"));
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    assert_eq!(client.append_batch(&batch(0..1000)), Answer::Ok);
    agent.wait_for_lines("Unable to deliver event.", 2);
    agent.signal(Signal::KILL);
    agent.wait();
    let _agents: Vec<_> = (0..2).map(|_| TestAgent::start(&format!("{channel}{}", to_files(out.path())))).collect();
    let all = || -> BTreeSet<String> { bodies(out.path()).into_iter().collect() };
    assert!(eventually(|| (all().len() == 1000).then_some(())).is_some(), "{} of 1000", all().len());
    assert_eq!(bodies(out.path()).len(), 1000, "each of them once");
}

#[test]
fn two_sinks_share_a_channel() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(2, &[]), [directory(), directory()]);
    let sinks = out.iter().enumerate().map(|(number, out)| {
        to_files(out.path()).replace("a1.sinks = k1\n", "").replace("k1", &format!("k{number}")) + "a1.sinks = k0 k1\n"
    });
    let text = format!("{AVRO}{}{}", channel(kafka, &topic, ""), sinks.collect::<String>());
    let mut agent = TestAgent::start(&text);
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    for start in (0..5000).step_by(500) {
        assert_eq!(client.append_batch(&batch(start..start + 500)), Answer::Ok);
    }
    agent.wait_for_counter("CHANNEL.c1", "EventTakeSuccessCount", 5000);
    drop(client);
    assert!(agent.terminate().success());
    let kept = out.iter().flat_map(|out| bodies(out.path())).collect::<Vec<_>>();
    assert_eq!(kept.len(), 5000);
    assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), numbers(0..5000).into_iter().collect());
    // Nothing is left for the next agent.
    let mut agent = TestAgent::start(&text);
    agent.wait_for_line("partitions assigned: ");
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    assert_eq!(client.append("last"), Answer::Ok);
    agent.wait_for_counter("CHANNEL.c1", "EventTakeSuccessCount", 1);
    drop(client);
    assert!(agent.terminate().success());
}

#[test]
fn a_channel_refuses_what_kafka_never_takes_and_the_rest_goes_on() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, home) = (kafka.topic(1, &[("max.message.bytes", "2000")]), directory());
    let large = "y".repeat(3000);
    // The first word is the partition.
    let lines = write(home.path(), "lines", format!("0 a\nfirst b\n0 {large}\n7 d\n0 c\n"));
    let source = format!(
        "a1.sources = r1\na1.sources.r1.type = exec\na1.sources.r1.command = cat {}\na1.sources.r1.channels = c1\n\
         a1.sources.r1.interceptors = i1\na1.sources.r1.interceptors.i1.type = regex_extractor\n\
         a1.sources.r1.interceptors.i1.regex = ^(\\\\w+)\na1.sources.r1.interceptors.i1.serializers = s1\n\
         a1.sources.r1.interceptors.i1.serializers.s1.name = part\n",
        lines.display()
    );
    let more = "partitionIdHeader = part\nparseAsFlumeEvent = false";
    let agent = TestAgent::start(&format!("{source}{}", channel(kafka, &topic, more)));
    agent.wait_for_counter("SOURCE.r1", "EventRefusedCount", 3);
    agent.wait_for_counter("SOURCE.r1", "EventAcceptedCount", 2);
    let arrived: BTreeSet<String> = texts(kafka, &topic, 2).into_iter().collect();
    assert_eq!(arrived, ["0 a", "0 c"].map(str::to_owned).into());
    agent.wait_for_line("Non integer partition id specified: \"first\"");
    agent.wait_for_line("MessageSizeTooLarge");
    agent.wait_for_line(&format!("there is no partition 7 in topic {topic}, which has 1 partition,"));
}

#[test]
fn of_a_put_with_a_partition_that_is_not_there_nothing_is_in_the_channel() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(2, &[]);
    let text = format!("{AVRO}{}", channel(kafka, &topic, "partitionIdHeader = part\nparseAsFlumeEvent = false"));
    let agent = TestAgent::start(&text);
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    let put = |events: [(&'static str, &str); 2]| events.map(|(body, part)| Event::new(body).with("part", part));
    for _ in 0..2 {
        assert_eq!(client.append_batch(&Batch::from_iter(put([("a", "0"), ("b", "2")]))), Answer::Failed);
        assert_eq!(client.append_batch(&Batch::from_iter(put([("c", "0"), ("d", "1")]))), Answer::Ok);
    }
    assert_eq!(texts(kafka, &topic, 4), ["c", "c", "d", "d"]);
}

#[test]
fn lines_beside_one_that_is_refused_are_in_the_channel_once() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(1, &[]);
    let part = "type = regex_extractor\nregex = ^([0-9])\nserializers = s1\nserializers.s1.name = part\n";
    let agent = TestAgent::start(&format!(
        "{NETCAT}a1.sources.r1.interceptors = i1\n{}{}",
        keys("sources.r1.interceptors.i1", part),
        channel(kafka, &topic, "partitionIdHeader = part\nparseAsFlumeEvent = false")
    ));
    let mut client = Conversation::with(agent.port());
    client.send("0 a\n7 b\n0 c\nd\n");
    let answers = client.lines(4);
    assert!(answers[1].contains("there is no partition 7"), "{answers:?}");
    assert_eq!([&answers[0], &answers[2], &answers[3]], ["OK"; 3]);
    assert_eq!(texts(kafka, &topic, 3), ["0 a", "0 c", "d"]);
}

#[test]
fn a_channel_whose_sink_fails_shares_its_partitions_with_whoever_comes() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, out) = (kafka.topic(2, &[]), directory());
    let channel = channel(kafka, &topic, "parseAsFlumeEvent = false");
    kafka.produce(&topic, Some(0), numbers(0..10));
    kafka.produce(&topic, Some(1), numbers(10..20));
    // The next agent is not there.
    let next = "a1.sinks = k1\na1.sinks.k1.type = avro\na1.sinks.k1.channel = c1\na1.sinks.k1.hostname = 127.0.0.1\n";
    let failing = TestAgent::start(&format!("{channel}{next}a1.sinks.k1.port = {}\n", free_port()));
    failing.wait_for_lines("Unable to deliver event.", 2);
    let _agent = TestAgent::start(&format!("{channel}{}", to_files(out.path())));
    wait_for_kept_events(out.path(), 10);
}

/// A file channel `c1`.
fn file_channel(home: &Path) -> String {
    let home = home.display();
    format!(
        "a1.channels = c1\na1.channels.c1.type = file\na1.channels.c1.checkpointDir = {home}/checkpoint\n\
         a1.channels.c1.dataDirs = {home}/data\n"
    )
}

/// Puts events into a file channel and ends.
fn fill(channel: &str, batches: impl IntoIterator<Item = Batch>) {
    let mut agent = TestAgent::start(&format!("{AVRO}{channel}"));
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    for batch in batches {
        assert_eq!(client.append_batch(&batch), Answer::Ok);
    }
    drop(client);
    assert!(agent.terminate().success());
}

#[test]
fn each_event_is_there_once_however_often_the_agent_is_killed() {
    const EVENTS: usize = 20_000;
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, home) = (kafka.topic(2, &[]), directory());
    let channel = file_channel(home.path());
    fill(&channel, (0..EVENTS).step_by(1000).map(|start| batch(start..start + 1000)));
    let more = format!("a1.sinks.k1.kafka.producer.transactional.id = {topic}\na1.sinks.k1.flumeBatchSize = 50\n");
    let config = format!("{channel}{}{more}", sink(kafka.servers(), &topic));
    for _ in 0..4 {
        let mut agent = TestAgent::start(&config);
        let moves = || agent.metrics()["SINK.k1"]["EventDrainSuccessCount"].as_str().is_some_and(|count| count != "0");
        assert!(eventually(|| moves().then_some(())).is_some(), "events flow");
        agent.signal(Signal::KILL);
        agent.wait();
    }
    let mut agent = TestAgent::start(&config);
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    assert!(agent.terminate().success());
    let mut seen = texts(kafka, &topic, EVENTS);
    seen.sort_by_key(|text| text.parse::<usize>().ok());
    assert!(seen == numbers(0..EVENTS), "{} messages for {EVENTS} events", seen.len());
}

#[test]
fn transactions_leave_out_what_kafka_never_takes() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, home) = (kafka.topic(1, &[("max.message.bytes", "2000")]), directory());
    let more = format!("kafka.producer.transactional.id = {topic}");
    let more: String = more.lines().map(|line| format!("a1.sinks.k1.{line}\n")).collect();
    let config = format!("{AVRO}{}{}{more}", file_channel(home.path()), sink(kafka.servers(), &topic));
    let agent = TestAgent::start(&config);
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    let events =
        [Event::new("1"), Event::new(vec![b'x'; 3000]), Event::new("2"), Event::new("3").with("topic", "no topic")];
    assert_eq!(client.append_batch(&Batch::from_iter(events)), Answer::Ok);
    agent.wait_for_counter("SINK.k1", "EventRefusedCount", 2);
    assert_eq!(client.append_batch(&batch(3..6)), Answer::Ok);
    assert_eq!(texts(kafka, &topic, 5), ["1", "2", "3", "4", "5"]);
}

#[test]
fn a_partition_that_is_not_there_does_not_hold_up_transactions() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, home) = (kafka.topic(1, &[]), directory());
    let (agent, mut client) = avro_to_transactions(kafka, &topic, home.path(), "partitionIdHeader = part");
    for round in 1..3 {
        let events = [Event::new("a"), Event::new("lost").with("part", "5"), Event::new("b")];
        assert_eq!(client.append_batch(&Batch::from_iter(events)), Answer::Ok);
        agent.wait_for_counter("SINK.k1", "EventRefusedCount", round);
        agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 2 * round);
    }
    assert_eq!(texts(kafka, &topic, 4), ["a", "b", "a", "b"]);
    agent.wait_for_line(&format!("there is no partition 5 in topic {topic}, which has 1 partition,"));
}

/// An avro source, a file channel and a sink with transactions, and a client of the source.
fn avro_to_transactions(kafka: &Kafka, topic: &str, home: &Path, more: &str) -> (TestAgent, AvroClient) {
    let keys = format!("kafka.producer.transactional.id = {topic}\n{more}");
    let keys: String = keys.lines().map(|line| format!("a1.sinks.k1.{line}\n")).collect();
    let agent = TestAgent::start(&format!("{AVRO}{}{}{keys}", file_channel(home), sink(kafka.servers(), topic)));
    let client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    (agent, client)
}

#[test]
fn what_the_client_itself_refuses_is_not_taken_for_delivered() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, home) = (kafka.topic(1, &[]), directory());
    let (agent, mut client) = avro_to_transactions(kafka, &topic, home.path(), "");
    let events = [Event::new("1"), Event::new(vec![b'x'; 2_000_000]), Event::new("2")];
    assert_eq!(client.append_batch(&Batch::from_iter(events)), Answer::Ok);
    assert_eq!(texts(kafka, &topic, 2), ["1", "2"]);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 2);
    agent.wait_for_counter("SINK.k1", "EventRefusedCount", 1);
}

#[test]
fn a_message_that_is_refused_does_not_hold_up_the_batches_that_share_its_transaction() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, home) = (kafka.topic(2, &[("max.message.bytes", "2000")]), directory());
    // On its own partition, and in its own batch, but in the same transaction.
    let large = Event::new(vec![b'x'; 3000]).with("part", "1");
    let small = |body: &'static str| Event::new(body).with("part", "0");
    fill(&file_channel(home.path()), [Batch::from_iter([small("1"), small("2"), large, small("3"), small("4")])]);
    let more = "flumeBatchSize = 1\npartitionIdHeader = part";
    let (agent, _client) = avro_to_transactions(kafka, &topic, home.path(), more);
    assert_eq!(texts(kafka, &topic, 4), numbers(1..5));
    agent.wait_for_counter("SINK.k1", "EventRefusedCount", 1);
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
}

#[test]
fn what_is_stored_as_delivered_is_not_sent_again_beside_a_message_that_is_refused() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, home) = (kafka.topic(1, &[("max.message.bytes", "2000")]), directory());
    let events = [Event::new("0"), Event::new("1"), Event::new(vec![b'x'; 3000]), Event::new("2")];
    fill(&file_channel(home.path()), [Batch::from_iter(events)]);
    let identity = fs::read_to_string(home.path().join("data/channel.identity")).expect("an identity");
    kafka.store(&topic, &topic, &format!("flume-rs 1 {} 0-2", identity.trim()));
    let (agent, _client) = avro_to_transactions(kafka, &topic, home.path(), "");
    assert_eq!(texts(kafka, &topic, 1), ["2"]);
    agent.wait_for_counter("SINK.k1", "EventRefusedCount", 1);
    assert_eq!(texts(kafka, &topic, 1), ["2"]);
}

#[test]
fn a_group_that_holds_something_else_is_not_overwritten() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, home) = (kafka.topic(1, &[]), directory());
    kafka.store(&topic, &topic, "somebody's");
    let (agent, _client) = avro_to_transactions(kafka, &topic, home.path(), "");
    let line = agent.wait_for_line("transactions cannot begin");
    assert!(line.contains("\"somebody's\""), "{line}");
}

#[test]
fn a_second_sink_with_the_same_id_takes_over_and_nothing_is_there_twice() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, homes) = (kafka.topic(1, &[]), [directory(), directory()]);
    let mut agents = homes.iter().map(|home| {
        let more = format!("a1.sinks.k1.kafka.producer.transactional.id = {topic}\n");
        let agent =
            TestAgent::start(&format!("{AVRO}{}{}{more}", file_channel(home.path()), sink(kafka.servers(), &topic)));
        let client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
        (agent, client)
    });
    let (first, mut first_client) = agents.next().expect("an agent");
    assert_eq!(first_client.append("a"), Answer::Ok);
    assert_eq!(texts(kafka, &topic, 1), ["a"]);
    let (_second, mut second_client) = agents.next().expect("an agent");
    assert_eq!(second_client.append("b"), Answer::Ok);
    assert_eq!(texts(kafka, &topic, 2), ["a", "b"]);
    // The first one is told that it has been replaced, makes a new producer, and replaces the other in turn.
    assert_eq!(first_client.append("c"), Answer::Ok);
    assert_eq!(texts(kafka, &topic, 3), ["a", "b", "c"]);
    first.wait_for_line("Failed to publish events");
}

#[test]
fn a_text_that_names_no_topic_is_an_error_of_the_configuration() {
    let home = directory();
    for name in ["my topic", "logs/%{host}"] {
        let text = format!("{NETCAT}{MEMORY}{}", sink("127.0.0.1:9", name));
        let output = run(&["check", "--conf-file", &write(home.path(), "agent.conf", text).display().to_string()]);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("a1.sinks.k1.kafka.topic") && text.contains(name), "{text}");
        assert!(
            text.contains("expected the name of a topic: letters, digits, '.', '_' and '-', at most 249"),
            "{text}"
        );
    }
}

#[test]
fn a_transactional_id_has_its_conditions() {
    let home = directory();
    let text = format!(
        "{NETCAT}{MEMORY}{}a1.sinks.k1.kafka.producer.transactional.id = t\na1.sinks.k1.requiredAcks = 1\n",
        sink("127.0.0.1:9", "logs-%{host}")
    );
    let text = stdout(&run(&["check", "--conf-file", &write(home.path(), "agent.conf", text).display().to_string()]));
    assert!(text.contains("expected all, as there is kafka.producer.transactional.id"), "{text}");
    assert!(text.contains("expected a topic without escapes"), "{text}");
}

#[test]
fn a_transactional_id_belongs_to_one_sink_which_has_its_channel_for_itself() {
    let home = directory();
    let id = "kafka.producer.transactional.id";
    let one = format!("{}a1.sinks.k1.{id} = same\n", sink("127.0.0.1:9", "t"));
    let two = one.replace(".k1.", ".k2.").replace("a1.sinks = k1\n", "");
    let text = format!("{NETCAT}{MEMORY}{one}{two}a1.sinks = k1 k2\n");
    let check = |text: String| {
        let path = write(home.path(), "agent.conf", text);
        stdout(&run(&["check", "--conf-file", &path.display().to_string()]))
    };
    let said = check(text.clone());
    assert!(said.contains("sink k1 has the same id"), "{said}");
    let said = check(text.replace(&format!("a1.sinks.k2.{id} = same"), ""));
    assert!(said.contains("sink k2 empties channel c1, too"), "{said}");
    let group = "a1.sinkgroups = g1\na1.sinkgroups.g1.sinks = k1 k2\na1.sinkgroups.g1.processor.type = failover\n";
    let said = check(format!("{text}{group}").replace("id = same\na1.sinks = k1 k2", "id = other\na1.sinks = k1 k2"));
    assert!(said.contains("in sink group g1"), "{said}");
}

#[test]
fn a_transactional_id_without_a_file_channel_is_warned_of() {
    let home = directory();
    let id = "a1.sinks.k1.kafka.producer.transactional.id = t\n";
    for (channel, is_warned) in [(MEMORY, true), (&file_channel(home.path()), false)] {
        let text = format!("{NETCAT}{channel}{}{id}", sink("127.0.0.1:9", "t"));
        let output = run(&["check", "--conf-file", &write(home.path(), "agent.conf", text).display().to_string()]);
        let warning = "channel c1 is no file channel; after a crash an event may be missing or be delivered twice";
        assert_eq!(stdout(&output).contains(warning), is_warned, "{}", stdout(&output));
    }
}

#[test]
fn options_without_an_equivalent_are_named() {
    let home = directory();
    let text = format!(
        "{NETCAT}{MEMORY}{}a1.sinks.k1.kafka.producer.max.block.ms = 5\na1.sinks.k1.kafka.producer.compression.type = rar\n",
        sink("127.0.0.1:9", "t")
    );
    let path = write(home.path(), "agent.conf", text);
    let output = run(&["check", "--conf-file", &path.display().to_string()]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("has no equivalent in librdkafka and no effect"), "{text}");
    assert!(text.contains("rar"), "{text}");
}
