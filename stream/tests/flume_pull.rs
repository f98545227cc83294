//! Words that are pulled from agents' Spark sinks: of ours, and of a real Flume with Spark's own sink.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;

use crate::support::{
    Conversation, Launch, TestAgent, TestJob, agent_example, directory, example, feed, free_port, interop, java_peers,
    real_flume, sentences, stdout, wait_for_port, with_totals,
};

/// The example's job, which asks at these ports.
fn job(ports: &[u16], batch: &str) -> String {
    let addresses: Vec<String> = ports.iter().map(|port| format!("\"localhost:{port}\"")).collect();
    let text = example("word-count-flume-pull.toml", &[]).replace("\"localhost:41414\"", &addresses.join(", "));
    text.replace("batch = \"5s\"", &format!("batch = \"{batch}\"\ncheckpoint = \"state\""))
}

/// The example's agent: it listens at a port for lines, and at another for whoever pulls. Flume's notices that somebody
/// is gone only by the timeout. Its channel gives fewer at once than the job asks for.
fn agent_conf(lines: u16, port: u16) -> String {
    let text = agent_example("flume_pull_streaming.conf").replace("44444", &lines.to_string());
    let text =
        text.replace("41414", &port.to_string()).replace("transactionCapacity = 1000", "transactionCapacity = 100");
    text + "a1.sinks.spark-sink.timeout = 10\n"
}

/// A real Flume with the Spark sink that Spark has.
fn flume_with_spark_sink() -> Launch {
    let jars = Command::new(interop("spark.sh")).arg("sink-classpath").output().expect("the script starts");
    real_flume("1.11.0").env("FLUME_CLASSPATH", stdout(&jars).trim())
}

const JARS: [&str; 2] = ["flume-1.11.0", "spark-sink-2.4.7"];

fn counts_of_batches_are_printed(launch: Launch) {
    let (port, lines) = (free_port(), free_port());
    let _agent = launch.config(&agent_conf(lines, port));
    wait_for_port(port);
    wait_for_port(lines);
    let mut job = TestJob::start(&job(&[port], "50ms"));
    let mut telnet = Conversation::with(lines);
    assert_eq!(telnet.ask("  hello  hello \r"), "OK");
    job.wait_for_out("(hello,2)\n\n");
    assert_eq!(telnet.ask("bye\r"), "OK");
    job.wait_for_out("(bye,1)\n\n");
    assert!(job.terminate().success());
}

#[test]
fn words_of_an_agent_are_counted() {
    counts_of_batches_are_printed(Launch::new());
}

#[test]
fn words_of_a_real_flume_are_counted() {
    let Some(_turn) = java_peers(&JARS) else { return };
    counts_of_batches_are_printed(flume_with_spark_sink());
}

#[test]
fn an_agents_events_come_again_when_the_job_is_killed() {
    let (port, netcat) = (free_port(), free_port());
    let agent = TestAgent::start(&agent_conf(netcat, port));
    wait_for_port(netcat);
    let (lines, words) = sentences(900);
    feed(netcat, &lines[..300]);
    let home = Arc::new(directory());
    // Its first batch ends at midnight.
    let mut first = TestJob::start_in(Arc::clone(&home), &with_totals(&job(&[port], "24h")), &[]);
    agent.wait_for_counter("SINK.spark-sink", "EventDrainAttemptCount", 300);
    first.kill();
    agent.wait_for_line("go back to the channel");
    let running = with_totals(&job(&[port], "50ms"));
    let job = TestJob::start_in(home, &running, &[]);
    job.wait_for_totals("state", &sentences(300).1);
    agent.wait_for_counter("SINK.spark-sink", "EventDrainSuccessCount", 300);
    let job = job.kill_and_restart(&running);
    feed(netcat, &lines[300..]);
    job.wait_for_totals("state", &words);
}

#[test]
fn a_real_flumes_events_come_again_when_the_job_is_killed() {
    let Some(_turn) = java_peers(&JARS) else { return };
    let (port, netcat) = (free_port(), free_port());
    let _flume = flume_with_spark_sink().config(&agent_conf(netcat, port));
    wait_for_port(port);
    wait_for_port(netcat);
    let (lines, words) = sentences(900);
    // More than its channel gives at once.
    feed(netcat, &lines[..500]);
    let home = Arc::new(directory());
    let mut first = TestJob::start_in(Arc::clone(&home), &with_totals(&job(&[port], "24h")), &[]);
    first.wait_for_log("it is asked for 100");
    first.kill();
    let job = TestJob::start_in(home, &with_totals(&job(&[port], "50ms")), &[]);
    feed(netcat, &lines[500..]);
    job.wait_for_totals("state", &words);
}

#[test]
fn a_job_that_is_stopped_gives_its_events_back() {
    let (port, netcat) = (free_port(), free_port());
    let agent = TestAgent::start(&agent_conf(netcat, port));
    wait_for_port(netcat);
    feed(netcat, &sentences(10).0);
    let mut job = TestJob::start(&job(&[port], "24h"));
    agent.wait_for_counter("SINK.spark-sink", "EventDrainAttemptCount", 10);
    assert!(job.terminate().success(), "it does not wait for midnight");
    agent.wait_for_line("could not store them");
    assert_eq!(agent.counter("SINK.spark-sink", "EventDrainSuccessCount"), 0);
}

#[test]
fn of_two_agents_one_may_go_and_come_back() {
    let ports = [free_port(), free_port()];
    let lines = [free_port(), free_port()];
    let start = |agent: usize| TestAgent::start(&agent_conf(lines[agent], ports[agent]));
    let (mut first, _second) = (start(0), start(1));
    let job = TestJob::start(&with_totals(&job(&ports, "50ms")));
    lines.iter().for_each(|port| wait_for_port(*port));
    let word = |count| BTreeMap::from([("word".to_owned(), count)]);
    feed(lines[0], &["word".to_owned()]);
    feed(lines[1], &["word".to_owned()]);
    job.wait_for_totals("state", &word(2));
    first.wait_for_counter("SINK.spark-sink", "EventDrainSuccessCount", 1);
    first.signal(Signal::KILL);
    first.wait();
    feed(lines[1], &["word".to_owned()]);
    job.wait_for_totals("state", &word(3));
    let _first = start(0);
    wait_for_port(lines[0]);
    feed(lines[0], &["word".to_owned()]);
    job.wait_for_totals("state", &word(4));
}

#[test]
fn once_ends_when_everything_was_pulled() {
    let (port, netcat) = (free_port(), free_port());
    let agent = TestAgent::start(&agent_conf(netcat, port));
    wait_for_port(netcat);
    let (lines, words) = sentences(250);
    feed(netcat, &lines);
    let mut job = TestJob::start_with(&with_totals(&job(&[port], "50ms")), &["--once"]);
    assert!(job.wait().success());
    job.wait_for_totals("state", &words);
    agent.wait_for_counter("SINK.spark-sink", "EventDrainSuccessCount", 250);
}
