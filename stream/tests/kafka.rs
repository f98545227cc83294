//! Jobs that read messages from Kafka and write some to it, with real brokers.

use std::collections::{BTreeMap, BTreeSet};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::support::{DEADLINE, Kafka, Launch, TestJob, directory, eventually, example, java, java_peers};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository")
}

/// An example's text, some of it replaced; its batches come faster.
fn faster(name: &str, replace: &[(&str, &str)]) -> String {
    let text = example(name, &[]);
    let faster = [("batch = \"5s\"", "batch = \"100ms\""), ("batch = \"1s\"", "batch = \"100ms\"")];
    faster.iter().chain(replace).fold(text, |text, (from, to)| text.replace(from, to))
}

/// A name that no other test has.
fn unique(what: &str) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    format!("{what}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.servers()).set_log_level(RDKafkaLogLevel::Emerg);
    config
}

fn admin<T>(kafka: &Kafka, ask: impl AsyncFn(&AdminClient<DefaultClientContext>, &AdminOptions) -> T) -> T {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("a client");
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
    let mut asked = Box::pin(ask(&admin, &options));
    eventually(|| asked.as_mut().now_or_never()).expect("the broker answers")
}

/// How often each word was counted in all batches that were printed.
fn totals(job: &TestJob) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for line in job.out().lines() {
        let pair = line.strip_prefix('(').and_then(|line| line.strip_suffix(')')).and_then(|pair| pair.split_once(','));
        if let Some((word, count)) = pair {
            *totals.entry(word.to_owned()).or_default() += count.parse::<u64>().expect("a number");
        }
    }
    totals
}

fn wait_for_totals(job: &TestJob, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> = expected.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect();
    let found = eventually(|| (totals(job) == expected).then_some(()));
    assert!(found.is_some(), "{:?}, not {expected:?}\n{}", totals(job), job.log());
}

#[test]
fn words_of_two_topics_with_two_partitions_are_counted_directly() {
    let Some(kafka) = Kafka::shared() else { return };
    let (a, b) = (kafka.topic(2, &[]), kafka.topic(2, &[]));
    kafka.produce(&a, Some(0), ["before"]);
    let topics = format!("{a},{b}");
    let text = faster(
        "word-count-kafka-direct.toml",
        &[("localhost:9092", kafka.servers()), ("kafka_streaming_topic", &topics)],
    );
    let job = TestJob::start(&text);
    let begin = job.wait_for_log("source lines: begins with ");
    assert_eq!(begin, format!("{a}-0 at 1, {a}-1 at 0, {b}-0 at 0, {b}-1 at 0"));
    for (topic, partition) in [(&a, 0), (&a, 1), (&b, 0), (&b, 1)] {
        kafka.produce(topic, Some(partition), ["hello world", "hello"]);
    }
    wait_for_totals(&job, &[("hello", 8), ("world", 4)]);
    // It goes on where it was killed: what is in no batch is in the next.
    let job = job.kill_and_restart(&text);
    kafka.produce(&b, Some(1), ["again"]);
    job.wait_for_out("(again,1)");
    let out = totals(&job);
    assert!(out.keys().all(|word| word == "again") || out["hello"] <= 8, "{out:?}");
}

/// The offset of a group in a partition.
fn committed(kafka: &Kafka, group: &str, topic: &str, partition: i32) -> Option<i64> {
    let consumer: BaseConsumer = client(kafka).set("group.id", group).create().expect("a client");
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let list = consumer.committed_offsets(list, Duration::from_secs(10)).ok()?;
    match list.elements().first()?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

#[test]
fn a_group_keeps_its_offsets_in_the_broker() {
    let Some(kafka) = Kafka::shared() else { return };
    let (a, b, group) = (kafka.topic(2, &[]), kafka.topic(2, &[]), unique("group"));
    let (topics, member) = (format!("{a},{b}"), format!("group = \"{group}\"\nstart = \"earliest\""));
    let text = faster(
        "word-count-kafka-group.toml",
        &[("localhost:9092", kafka.servers()), ("kafka_streaming_topic", &topics), ("group = \"test\"", &member)],
    );
    kafka.produce(&a, Some(0), ["hello world"]);
    let mut job = TestJob::start(&text);
    for (topic, partition) in [(&a, 1), (&b, 0), (&b, 1)] {
        kafka.produce(topic, Some(partition), ["hello world", "hello"]);
    }
    wait_for_totals(&job, &[("hello", 7), ("world", 4)]);
    let wait_for = |expected: [Option<i64>; 4]| {
        let all =
            || [(&a, 0), (&a, 1), (&b, 0), (&b, 1)].map(|(topic, number)| committed(kafka, &group, topic, number));
        assert!(eventually(|| (all() == expected).then_some(())).is_some(), "{:?}", all());
    };
    wait_for([Some(1), Some(2), Some(2), Some(2)]);
    assert!(job.terminate().success());
    kafka.produce(&a, Some(0), ["more"]);
    // What the group has not seen yet is all that there is for a job that runs once.
    let mut job = TestJob::start_with(&text, &["--once"]);
    assert!(job.wait().success(), "{}", job.log());
    wait_for_totals(&job, &[("more", 1)]);
    wait_for([Some(2), Some(2), Some(2), Some(2)]);
}

#[test]
fn members_of_a_group_share_the_partitions_and_one_takes_over_from_another() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, group) = (kafka.topic(4, &[]), unique("group"));
    let member = format!("group = \"{group}\"\nstart = \"earliest\"");
    let text = faster(
        "word-count-kafka-group.toml",
        &[("localhost:9092", kafka.servers()), ("kafka_streaming_topic", &topic), ("group = \"test\"", &member)],
    );
    let mut one = TestJob::start(&text);
    // A member that comes late is first given nothing.
    let share = format!("partitions assigned: {topic}");
    one.wait_for_log(&share);
    let other = TestJob::start(&text);
    other.wait_for_log(&share);
    let send = |word: &str| (0..4).for_each(|partition| kafka.produce(&topic, Some(partition), vec![word; 5]));
    let count = |job: &TestJob, word: &str| totals(job).get(word).copied().unwrap_or_default();
    send("first");
    let both = eventually(|| (count(&one, "first") + count(&other, "first") == 20).then_some(()));
    assert!(both.is_some(), "{:?} {:?}\n{}\n{}", totals(&one), totals(&other), one.log(), other.log());
    assert!(count(&one, "first") > 0 && count(&other, "first") > 0, "both have a share");
    assert!(one.terminate().success());
    send("second");
    wait_for_totals(&other, &[("first", count(&other, "first")), ("second", 20)]);
}

#[test]
fn a_sink_that_is_down_loses_no_batch_and_the_job_stays_in_its_group() {
    const NUMBERS: usize = 30_000;
    let (Some(kafka), Some(down)) = (Kafka::shared(), Kafka::start(1)) else { return };
    let (from, to, group) = (kafka.topic(1, &[]), down.topic(1, &[]), unique("group"));
    let text = format!(
        r#"
batch = "arrival"
max-rows = 3000
[source.numbers]
type = "kafka"
servers = "{}"
topics = "{from}"
group = "{group}"
start = "earliest"
max-waiting = 2000
options = {{ "max.poll.interval.ms" = 6000, "session.timeout.ms" = 6000 }}
[sink.passed]
type = "kafka"
servers = "{}"
topic = "{to}"
value = "value"
from = "numbers"
exactly-once = false
options = {{ "message.timeout.ms" = 2000 }}
"#,
        kafka.servers(),
        down.servers()
    );
    let job = TestJob::start(&text);
    kafka.produce(&from, None, ["0"]);
    assert_eq!(down.read(&to, 1).len(), 1);
    down.kill(1);
    kafka.produce(&from, None, (1..NUMBERS).map(|number| number.to_string()));
    // The second comes long after the group would have taken a member that rests for dead.
    let told = || job.log().matches(" waits; trying again").count() >= 2;
    assert!(eventually(|| told().then_some(())).is_some(), "{}", job.log());
    down.revive(1);
    let passed = down.read_until(&to, |messages| {
        messages.iter().map(|message| message.text()).collect::<BTreeSet<_>>().len() == NUMBERS
    });
    assert!(passed.len() >= NUMBERS, "{} of {NUMBERS}\n{}", passed.len(), job.log());
    assert_eq!(job.log().matches("partitions assigned").count(), 1, "{}", job.log());
}

#[test]
fn lines_that_an_application_logs_are_counted_behind_the_agent() {
    const LINES: u64 = 60;
    let Some(kafka) = Kafka::shared() else { return };
    let Some(_turn) = java_peers(&["log4j-app-1.6.0"]) else { return };
    let topic = kafka.topic(1, &[]);
    let job =
        TestJob::start(&faster("log4j-count.toml", &[("localhost:9092", kafka.servers()), ("streamingtopic", &topic)]));
    job.wait_for_log("source lines: begins with ");
    let conf = |name: &str| repository().join(name).into_os_string();
    let agent = Launch::bare().args(["agent", "--name", "agent1"]).args(["--conf".into(), conf("conf")]);
    let agent = agent.args(["--conf-file".into(), conf("examples/streaming2.conf")]).env("KAFKA", kafka.servers());
    let agent =
        agent.config(&format!("agent1.sources.avro-source.port = 0\nagent1.sinks.kafka-sink.kafka.topic = {topic}\n"));
    let port = agent.port_after("Avro source avro-source: listening on").to_string();
    let app = java("log4j-app.sh").env("APPENDER_VERSION", "1.6.0");
    let app = app.args(["127.0.0.1", &port, &LINES.to_string(), "20"]).start();
    app.wait_for_line(&format!("logged {LINES} lines"));
    let numbers = || job.out().lines().filter_map(|line| line.parse().ok()).collect::<Vec<u64>>();
    let all = eventually(|| (numbers().iter().sum::<u64>() == LINES).then_some(()));
    assert!(all.is_some(), "{:?}\n{}", numbers(), job.log());
    let out = job.out();
    assert!(out.contains(" ms\n-------------------------------------------\n0\n\n"), "an empty batch has its 0: {out}");
    assert_eq!(out.matches("Time: ").count(), numbers().len(), "each batch has one number: {out}");
}

/// Sends the numbers from 0 on in transactions of a hundred, between which some are aborted, until it is told to stop.
/// Gives how many there are.
fn produce_in_transactions(mut config: ClientConfig, topic: &str, stop: &AtomicBool) -> usize {
    let producer: BaseProducer = config.set("transactional.id", topic).create().expect("a producer");
    producer.init_transactions(DEADLINE).expect("transactions");
    let send = |values: &mut dyn Iterator<Item = String>| {
        producer.begin_transaction().expect("it begins");
        for (index, value) in values.enumerate() {
            let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).partition((index % 2) as i32).payload(&value);
            producer.send(record).map_err(|(error, _)| error).expect("room for a message");
        }
        producer.flush(DEADLINE).expect("the broker takes the messages");
    };
    for start in (0..).step_by(100) {
        if stop.load(Ordering::Relaxed) {
            return start;
        }
        // As fast as that it goes on while the job is killed, and not faster than it is read.
        thread::sleep(Duration::from_millis(10));
        if start % 500 == 0 {
            send(&mut std::iter::repeat_n("-1".to_owned(), 10));
            producer.abort_transaction(DEADLINE).expect("it is aborted");
        }
        send(&mut (start..start + 100).map(|number| number.to_string()));
        producer.commit_transaction(DEADLINE).expect("it is committed");
    }
    unreachable!("there are always more numbers")
}

/// A job that counts numbers by their last digit for ever, and passes them on.
fn digits(kafka: &Kafka, from: &str, to: &str) -> String {
    let servers = kafka.servers();
    format!(
        r#"
name = "digits-{to}"
batch = "20ms"
checkpoint = "state"
max-rows = 700
[source.numbers]
type = "kafka"
servers = "{servers}"
topics = ["{from}"]
start = "earliest"
columns = ["number"]
[table.digits]
sql = "select right(number, 1) as digit, count(*) as n from numbers group by right(number, 1)"
[sink.kept]
type = "sqlite"
from = "digits"
table = "digits"
key = ["digit"]
[sink.passed]
type = "kafka"
servers = "{servers}"
topic = "{to}"
value = "number"
from = "numbers"
"#
    )
}

fn wait_for_digits(job: &TestJob, each: usize) {
    let expected: Vec<[String; 2]> = (0..10).map(|digit| [digit.to_string(), each.to_string()]).collect();
    let expected: Vec<Vec<&str>> = expected.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    let expected: Vec<&[&str]> = expected.iter().map(Vec::as_slice).collect();
    job.wait_for_rows("state", "select * from digits", &expected);
}

/// The numbers that were passed on, each of which must be there once.
fn assert_passed(kafka: &Kafka, topic: &str, count: usize) {
    let mut passed: Vec<usize> =
        kafka.read(topic, count).iter().map(|message| message.text().parse().expect("a number")).collect();
    passed.sort_unstable();
    let different: BTreeSet<usize> = passed.iter().copied().collect();
    assert_eq!((passed.len(), different.len()), (count, count), "each is there once");
}

#[test]
fn no_count_changes_and_each_batch_is_written_once_however_often_the_job_is_killed() {
    let Some(kafka) = Kafka::shared() else { return };
    let (from, to) = (kafka.topic(2, &[]), kafka.topic(3, &[]));
    let text = digits(kafka, &from, &to);
    let stop = Arc::new(AtomicBool::new(false));
    let (config, stopped) = (client(kafka), Arc::clone(&stop));
    let feeder = thread::spawn(move || produce_in_transactions(config, &from, &stopped));
    let mut job = TestJob::start(&text);
    let kills = if std::env::var_os("NIGHTLY").is_some() { 100 } else { 10 };
    for _ in 0..kills {
        // The moment is what this is about.
        thread::sleep(Duration::from_millis(fastrand::u64(300..1500)));
        job = job.kill_and_restart(&text);
    }
    stop.store(true, Ordering::Relaxed);
    let numbers = feeder.join().expect("all were sent");
    wait_for_digits(&job, numbers / 10);
    assert!(job.terminate().success());
    assert_passed(kafka, &to, numbers);
}

#[test]
fn a_job_goes_on_when_the_broker_does() {
    const NUMBERS: usize = 1000;
    let Some(kafka) = Kafka::start(1) else { return };
    let (from, to) = (kafka.topic(2, &[]), kafka.topic(1, &[]));
    let numbers = |range: std::ops::Range<usize>| range.map(|number| number.to_string());
    kafka.produce(&from, None, numbers(0..NUMBERS));
    let mut job = TestJob::start(&digits(&kafka, &from, &to));
    wait_for_digits(&job, NUMBERS / 10);
    kafka.kill(1);
    job.wait_for_log("Connection refused");
    kafka.revive(1);
    kafka.produce(&from, None, numbers(NUMBERS..2 * NUMBERS));
    wait_for_digits(&job, 2 * NUMBERS / 10);
    assert_passed(&kafka, &to, 2 * NUMBERS);
    assert!(job.terminate().success());
}

#[test]
fn partitions_with_a_backlog_get_on_evenly_so_that_few_rows_come_too_late() {
    const ROWS: i64 = 60_000;
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(3, &[]);
    // In the order of their time, 50 a second; the last partition is empty.
    let row = |number: i64| {
        let time = jiff::Timestamp::from_millisecond(1_600_000_000_000 + 20 * number).expect("it is one");
        format!("{},{number:030}", time.strftime("%F %T%.3f"))
    };
    kafka.produce(&topic, Some(0), (0..ROWS).filter(|number| number % 3 > 0).map(row));
    kafka.produce(&topic, Some(1), (0..ROWS).filter(|number| number % 3 == 0).map(row));
    for max_rows in ["", "max-rows = 500"] {
        let text = format!(
            r#"
batch = "50ms"
checkpoint = "state"
{max_rows}
[source.clicks]
type = "kafka"
servers = "{}"
topics = "{topic}"
start = "earliest"
format = "delimited"
delimiter = ","
columns = ["at timestamp", "number bigint"]
[table.windows]
sql = "select window_start, count(*) as n from clicks group by window_start"
time = "at"
over = "clicks"
window = "10s"
delay = "2s"
[table.late]
sql = "select count(*) as n from windows_late"
[table.seen]
sql = "select count(*) as n from clicks"
[sink.windows]
type = "sqlite"
from = "windows"
table = "windows"
key = ["window_start"]
[sink.kept]
type = "sqlite"
sql = "select 1 as id, seen.n as seen, late.n as late from seen cross join late"
table = "kept"
key = ["id"]
"#,
            kafka.servers()
        );
        let job = TestJob::start(&text);
        job.wait_for_rows("state", "select seen from kept", &[&[&ROWS.to_string()]]);
        let counts = job.query("state", "select (select sum(n) from windows), (select late from kept)");
        let counts: Vec<i64> =
            counts.expect("they are there").concat().iter().map(|n| n.parse().expect("a number")).collect();
        assert_eq!(counts[0] + counts[1], ROWS, "each is in its window, or late");
        assert!(counts[1] < ROWS / 50, "{} of {ROWS} are late with {max_rows:?}\n{}", counts[1], job.log());
    }
}

#[test]
fn a_topic_that_is_missing_is_named_and_read_when_it_appears() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = unique("late");
    let job = TestJob::start(&faster(
        "word-count-kafka-direct.toml",
        &[("localhost:9092", kafka.servers()), ("kafka_streaming_topic", &topic)],
    ));
    job.wait_for_log(&format!("source lines: there is no topic {topic} at {}; trying again", kafka.servers()));
    // All that is in it has come since the job began.
    kafka.produce(&topic, None, ["hello hello"]);
    wait_for_totals(&job, &[("hello", 2)]);
}

#[test]
fn offsets_that_are_gone_are_told_and_passed_over_only_when_the_job_says_so() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(1, &[]);
    let text = |more: &str| {
        let more = format!("topics = \"{topic}\"\nstart = \"earliest\"\n{more}");
        faster(
            "word-count-kafka-direct.toml",
            &[("localhost:9092", kafka.servers()), ("topics = \"kafka_streaming_topic\"", &more)],
        )
    };
    let home = Arc::new(directory());
    kafka.produce(&topic, Some(0), vec!["a"; 10]);
    let mut job = TestJob::start_in(Arc::clone(&home), &text(""), &["--once"]);
    assert!(job.wait().success(), "{}", job.log());
    wait_for_totals(&job, &[("a", 10)]);
    kafka.produce(&topic, Some(0), vec!["b"; 10]);
    admin(kafka, async |admin, options| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Offset(15)).expect("an offset");
        admin.delete_records(&list, options).await.expect("they are deleted");
    });
    let mut job = TestJob::start_in(Arc::clone(&home), &text(""), &[]);
    let told = job.wait_for_log(&format!("{topic}-0 goes on with offset 10, "));
    assert!(told.starts_with("but the first that is left is 15: up to 5 messages are gone"), "{told}");
    job.kill();
    let job = TestJob::start_in(home, &text("on-data-loss = \"earliest\""), &[]);
    wait_for_totals(&job, &[("b", 5)]);
}

#[test]
fn a_pattern_names_topics_new_partitions_are_found_and_messages_have_metadata() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(1, &[]);
    let text = format!(
        r#"
batch = "arrival"
[source.lines]
type = "kafka"
servers = "{}"
pattern = "{topic}|none-of-.*"
start = "earliest"
refresh = "300ms"
metadata = ["key", "topic", "partition", "offset", "timestamp"]
[sink.screen]
type = "print"
sql = "select value, key, topic, partition, \"offset\", timestamp > timestamp '2020-01-01' from lines"
"#,
        kafka.servers()
    );
    kafka.produce_headed(&topic, 0, "k", "v", &[]);
    kafka.produce(&topic, Some(0), [""]);
    let job = TestJob::start(&text);
    job.wait_for_out(&format!("(,null,{topic},0,1,true)"));
    assert!(job.out().contains(&format!("(v,k,{topic},0,0,true)\n")), "{}", job.out());
    admin(kafka, async |admin, options| {
        let made = admin.create_partitions(&[NewPartitions::new(&topic, 2)], options).await;
        made.expect("the partition is made");
    });
    let sent = eventually(|| {
        let producer: BaseProducer = client(kafka).create().ok()?;
        let metadata = producer.client().fetch_metadata(Some(&topic), DEADLINE).ok()?;
        (metadata.topics()[0].partitions().len() == 2).then_some(())
    });
    sent.expect("there are two");
    kafka.produce(&topic, Some(1), ["new"]);
    job.wait_for_out(&format!("(new,null,{topic},1,0,true)"));
}

#[test]
fn rows_become_messages_with_keys() {
    let Some(kafka) = Kafka::shared() else { return };
    let (from, to) = (kafka.topic(1, &[]), kafka.topic(3, &[]));
    kafka.produce(&from, None, ["hello world", "hello"]);
    let text = faster(
        "kafka-to-kafka.toml",
        &[
            ("localhost:9092", kafka.servers()),
            ("kafka_streaming_topic", &from),
            ("topic = \"words\"", &format!("topic = \"{to}\"")),
        ],
    );
    let mut job = TestJob::start_with(&text, &["--once"]);
    assert!(job.wait().success(), "{}", job.log());
    let messages = kafka.read(&to, 3);
    assert_eq!(messages.len(), 3);
    let of = |word: &str| messages.iter().filter(|one| one.key.as_deref() == Some(word)).collect::<Vec<_>>();
    let (hello, world) = (of("hello"), of("world"));
    assert_eq!((hello.len(), world.len()), (2, 1));
    assert_eq!(hello[0].partition, hello[1].partition);
    let value: serde_json::Value = serde_json::from_slice(&world[0].value).expect("it is JSON");
    assert_eq!((&value["word"], &value["topic"]), (&"world".into(), &from.as_str().into()));
}

#[test]
fn options_that_the_client_does_not_know_are_mistakes() {
    let path = |text: &str| -> (PathBuf, tempfile::TempDir) {
        let home = directory();
        let path = crate::support::write(home.path(), "job.toml", text);
        (path, home)
    };
    let check = |more: &str| {
        let text = format!("[source.lines]\ntype = \"kafka\"\nservers = \"localhost:1\"\n{more}\n");
        let (path, _home) = path(&text);
        crate::support::stderr(&TestJob::command(&["check", &path.display().to_string()]))
    };
    for (more, expected) in [
        ("topics = \"a\"\noptions = { \"fetch.max.bites\" = 1 }", "`options`: "),
        (
            "topics = \"a\"\noptions = { \"enable.auto.commit\" = true }",
            "`enable.auto.commit` is set by the job itself",
        ),
        ("topics = \"a b\"", "`a b` is no name of a topic"),
        ("pattern = \"(\"", "`pattern`: "),
        ("topics = []", "either `topics`, names of topics, or `pattern` must be there"),
        ("topics = \"a\"\nstart = \"first\"", "job.toml:5: [source.lines] unknown variant `first`"),
    ] {
        let told = check(more);
        assert!(told.contains(expected), "{more}: {told}");
    }
    assert_eq!(check("topics = \"a\"\noptions = { \"fetch.max.bytes\" = 70000000 }"), "");
}
