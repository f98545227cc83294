//! Words that agents push: ours, and a real Flume.

use std::sync::Arc;

use crate::support::{
    Conversation, Launch, Reply, TestAgent, TestJob, agent_example, directory, eventually, example, feed, free_port,
    http, java_peers, keys, listed, real_flume, sentences, wait_for_port, with_totals, write,
};

/// The example's job, which listens at a port.
fn job(port: u16, batch: &str) -> String {
    let text = example("word-count-flume-push.toml", &[]).replace("41414", &port.to_string());
    text.replace("batch = \"5s\"", &format!("batch = \"{batch}\"\ncheckpoint = \"state\""))
}

/// The example's agent: it listens at a port for lines, and sends to a port.
fn agent_conf(lines: u16, port: u16) -> String {
    let text = agent_example("flume_push_streaming.conf").replace("44444", &lines.to_string());
    text.replace("41414", &port.to_string())
}

fn counts_of_batches_are_printed(launch: Launch) {
    let (port, lines) = (free_port(), free_port());
    let job = TestJob::start(&job(port, "50ms"));
    wait_for_port(port);
    let _agent = launch.config(&agent_conf(lines, port));
    wait_for_port(lines);
    let mut telnet = Conversation::with(lines);
    assert_eq!(telnet.ask("  hello  hello \r"), "OK");
    job.wait_for_out("(hello,2)\n\n");
    assert_eq!(telnet.ask("\r"), "OK");
    assert_eq!(telnet.ask("bye\r"), "OK");
    job.wait_for_out("(bye,1)\n");
}

#[test]
fn words_from_an_agent_are_counted() {
    counts_of_batches_are_printed(Launch::new());
}

#[test]
fn words_from_a_real_flume_are_counted() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    counts_of_batches_are_printed(real_flume("1.11.0"));
}

/// Waits until the agent has sent something, for which it may wait for an answer.
fn wait_for_attempts(metrics: impl Fn() -> Reply) {
    let attempts = eventually(|| {
        let metrics: serde_json::Value = serde_json::from_str(&metrics().body).ok()?;
        let attempts: u64 = metrics["SINK.avro-sink"]["EventDrainAttemptCount"].as_str()?.parse().ok()?;
        (attempts > 0).then_some(())
    });
    assert!(attempts.is_some(), "it sends nothing");
}

/// Kills the job while it holds events, and starts it again. Gives both, as the agent may not have its last answer yet.
fn kill_the_job(launch: Launch, metrics: impl Fn(&TestAgent) -> Reply) -> (TestAgent, TestJob) {
    let (port, netcat) = (free_port(), free_port());
    let running = with_totals(&job(port, "50ms"));
    // Its first batch ends at midnight.
    let waiting = with_totals(&job(port, "24h"));
    let home = Arc::new(directory());
    let mut first = TestJob::start_in(Arc::clone(&home), &waiting, &[]);
    wait_for_port(port);
    let agent = launch.config(&agent_conf(netcat, port));
    wait_for_port(netcat);
    let (lines, words) = sentences(900);
    feed(netcat, &lines[..300]);
    wait_for_attempts(|| metrics(&agent));
    first.kill();
    feed(netcat, &lines[300..600]);
    let job = TestJob::start_in(home, &running, &[]);
    job.wait_for_totals("state", &sentences(600).1);
    feed(netcat, &lines[600..]);
    job.wait_for_totals("state", &words);
    (agent, job)
}

#[test]
fn an_agents_events_come_again_when_the_job_is_killed() {
    let (agent, _job) = kill_the_job(Launch::new(), |agent| agent.http("GET", "/metrics"));
    agent.wait_for_counter("SINK.avro-sink", "EventDrainSuccessCount", 900);
}

#[test]
fn a_real_flumes_events_come_again_when_the_job_is_killed() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let port = free_port();
    let monitoring = ["-Dflume.monitoring.type=http".to_owned(), format!("-Dflume.monitoring.port={port}")];
    kill_the_job(real_flume("1.11.0").args(monitoring), |_| {
        wait_for_port(port);
        http(port, "GET", "/metrics")
    });
}

#[test]
fn the_agent_is_answered_when_its_events_are_committed() {
    let (port, netcat) = (free_port(), free_port());
    let mut job = TestJob::start(&job(port, "24h"));
    wait_for_port(port);
    let agent = TestAgent::start(&agent_conf(netcat, port));
    wait_for_port(netcat);
    feed(netcat, &sentences(10).0);
    wait_for_attempts(|| agent.http("GET", "/metrics"));
    assert_eq!(agent.counter("SINK.avro-sink", "EventDrainSuccessCount"), 0);
    assert!(job.terminate().success(), "it does not wait for midnight");
    agent.wait_for_line("Unable to deliver event");
    assert_eq!(agent.counter("SINK.avro-sink", "EventDrainSuccessCount"), 0);
}

#[test]
fn once_ends_when_the_agents_have_gone() {
    let (port, netcat) = (free_port(), free_port());
    let mut job = TestJob::start_with(&with_totals(&job(port, "50ms")), &["--once"]);
    // This is nobody who sends.
    wait_for_port(port);
    let mut agent = TestAgent::start(&agent_conf(netcat, port));
    wait_for_port(netcat);
    let (lines, words) = sentences(250);
    feed(netcat, &lines);
    agent.wait_for_counter("SINK.avro-sink", "EventDrainSuccessCount", 250);
    agent.terminate();
    assert!(job.wait().success());
    job.wait_for_totals("state", &words);
}

#[test]
fn a_folder_of_the_agent_comes_compressed_and_with_headers() {
    let port = free_port();
    let text = format!(
        "batch = \"50ms\"\ncheckpoint = \"state\"\n\
         [source.events]\ntype = \"flume-push\"\nlisten = \"127.0.0.1:{port}\"\nheaders = [\"basename\", \"none\"]\n\
         compression-type = \"deflate\"\nformat = \"delimited\"\ndelimiter = \",\"\ncolumns = [\"name\", \"n int\"]\n\
         [sink.kept]\ntype = \"sqlite\"\nfrom = \"events\"\ntable = \"events\"\n"
    );
    let job = TestJob::start(&text);
    wait_for_port(port);
    let spool = directory();
    write(spool.path(), "one.csv", "a,1\nnothing\nb,2\n");
    let source =
        format!("type = spooldir\nspoolDir = {}\nbasenameHeader = true\nchannels = c1", spool.path().display());
    let sink = format!("type = avro\nhostname = 127.0.0.1\nport = {port}\ncompression-type = deflate\nchannel = c1");
    let conf = [keys("sources.r1", &source), keys("channels.c1", "type = memory"), keys("sinks.k1", &sink)];
    let _agent = TestAgent::start(&listed(&conf.concat()));
    let expected: [&[&str]; 2] = [&["a", "1", "one.csv", "null"], &["b", "2", "one.csv", "null"]];
    job.wait_for_rows("state", "select name, n, basename, none from events", &expected);
    job.wait_for_log("1 records of batch");
}
