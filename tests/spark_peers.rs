//! Real Spark Streaming: its polling receiver takes from our SparkSink, its push receiver is fed by our avro sink.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::{
    Conversation, Launch, TestAgent, directory, eventually, free_port, java, java_peers, keys, listed, wait_for_port,
};

const JARS: [&str; 2] = ["spark-2.4.7", "spark-asm"];

/// netcat, a memory channel with more keys, and a sink of these keys.
fn agent(channel: &str, sink: &str) -> TestAgent {
    let source = keys("sources.r1", "type = netcat\nbind = 127.0.0.1\nport = 0\nchannels = c1");
    let channel = keys("channels.c1", &format!("type = memory\ncapacity = 10000\n{channel}"));
    TestAgent::start(&listed(&format!("{source}{channel}{}", keys("sinks.k1", sink))))
}

fn spark_sink(port: u16) -> String {
    format!(
        "type = org.apache.spark.streaming.flume.sink.SparkSink\nhostname = 127.0.0.1\nport = {port}\ntimeout = 2\n\
         channel = c1"
    )
}

/// Spark with a receiver, for ten minutes if nobody ends it.
fn spark(script: &str, port: u16) -> Launch {
    java(script).args(["127.0.0.1", &port.to_string(), "600"])
}

fn feed(agent: &TestAgent, lines: impl IntoIterator<Item = String>) {
    let mut nc = Conversation::with(agent.port());
    let mut count = 0;
    for line in lines {
        nc.send(line + "\n");
        count += 1;
    }
    assert!(nc.lines(count).iter().all(|answer| answer == "OK"), "every line is accepted");
}

/// Sentences of few words, and how often each word comes in so many of them.
fn sentences(count: usize) -> (Vec<String>, BTreeMap<String, usize>) {
    let words = ["alpha", "beta", "gamma", "Zürich", "東京"];
    let lines: Vec<String> = (0..count).map(|number| words[..=number % words.len()].join(" ")).collect();
    let mut counts = BTreeMap::new();
    for word in lines.iter().flat_map(|line| line.split(' ')) {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    (lines, counts)
}

/// Waits until Spark has counted so many events, and gives the words of all its batches.
fn counted(spark: &TestAgent, events: usize) -> BTreeMap<String, usize> {
    spark.wait_for_line(&format!(", total {events}"));
    let mut counts = BTreeMap::new();
    for batch in spark.messages("batch: ") {
        let words = batch.split_once('{').and_then(|(_, rest)| rest.split_once('}')).expect("few different words").0;
        for (word, count) in words.split(", ").filter_map(|pair| pair.split_once('=')) {
            *counts.entry(word.to_owned()).or_default() += count.parse::<usize>().expect("a number");
        }
    }
    counts
}

#[test]
fn spark_polls_and_counts_every_word() {
    let Some(_turn) = java_peers(&JARS) else { return };
    let port = free_port();
    let agent = agent("transactionCapacity = 1000", &spark_sink(port));
    wait_for_port(port);
    let spark = spark("spark-poll.sh", port).start();
    let (lines, words) = sentences(5020);
    // What waits when Spark comes, and what comes while it waits.
    feed(&agent, lines[..5000].iter().cloned());
    counted(&spark, 5000);
    feed(&agent, lines[5000..].iter().cloned());
    assert_eq!(counted(&spark, 5020), words);
}

#[test]
fn spark_is_pushed_to_and_counts_every_word() {
    let Some(_turn) = java_peers(&JARS) else { return };
    let port = free_port();
    let spark = spark("spark-push.sh", port).start();
    wait_for_port(port);
    let agent =
        agent("transactionCapacity = 1000", &format!("type = avro\nhostname = 127.0.0.1\nport = {port}\nchannel = c1"));
    let (lines, words) = sentences(5000);
    feed(&agent, lines);
    assert_eq!(counted(&spark, 5000), words);
}

/// The bodies that Spark's job has processed.
fn processed(file: &Path) -> BTreeSet<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn nothing_is_lost_when_spark_is_killed_and_comes_back() {
    let Some(_turn) = java_peers(&JARS) else { return };
    let home = directory();
    let bodies = home.path().join("bodies");
    let port = free_port();
    // Spark asks for more than fits into one of this channel's transactions.
    let agent = agent("transactionCapacity = 100", &spark_sink(port));
    wait_for_port(port);
    let start = || {
        spark("spark-poll.sh", port)
            .env("BODIES_FILE", &bodies)
            .env("CHECKPOINT_DIR", home.path().join("checkpoint"))
            .start()
    };
    let ids = |from: usize, to: usize| (from..to).map(|id| format!("id-{id}"));
    let mut spark = start();
    feed(&agent, ids(0, 1000));
    eventually(|| (!processed(&bodies).is_empty()).then_some(())).expect("Spark processes the first events");
    feed(&agent, ids(1000, 3000));
    spark.signal(Signal::KILL);
    spark.wait();
    feed(&agent, ids(3000, 3500));
    let _spark = start();
    let expected: BTreeSet<String> = ids(0, 3500).collect();
    eventually(|| (processed(&bodies) == expected).then_some(()));
    let processed = processed(&bodies);
    let lost: Vec<&String> = expected.difference(&processed).collect();
    assert!(lost.is_empty(), "{} of 3500 are lost: {lost:?}", lost.len());
    assert_eq!(processed.len(), 3500, "and nothing else came");
}
