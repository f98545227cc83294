//! The counters: their names, their pages, and that they add up.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::Value;

use crate::support::{Conversation, Launch, MEMORY, NETCAT, NULL, TestAgent, counter};

const SOURCE: [&str; 13] = [
    "AppendAcceptedCount",
    "AppendBatchAcceptedCount",
    "AppendBatchReceivedCount",
    "AppendReceivedCount",
    "ChannelWriteFail",
    "EventAcceptedCount",
    "EventReadFail",
    "EventReceivedCount",
    "GenericProcessingFail",
    "OpenConnectionCount",
    "StartTime",
    "StopTime",
    "Type",
];
const CHANNEL: [&str; 10] = [
    "ChannelCapacity",
    "ChannelFillPercentage",
    "ChannelSize",
    "EventPutAttemptCount",
    "EventPutSuccessCount",
    "EventTakeAttemptCount",
    "EventTakeSuccessCount",
    "StartTime",
    "StopTime",
    "Type",
];
const SINK: [&str; 13] = [
    "BatchCompleteCount",
    "BatchEmptyCount",
    "BatchUnderflowCount",
    "ChannelReadFail",
    "ConnectionClosedCount",
    "ConnectionCreatedCount",
    "ConnectionFailedCount",
    "EventDrainAttemptCount",
    "EventDrainSuccessCount",
    "EventWriteFail",
    "StartTime",
    "StopTime",
    "Type",
];

fn agent() -> TestAgent {
    let agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{NULL}"));
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 1);
    agent
}

#[test]
fn all_of_flumes_attributes_are_there_as_strings() {
    let agent = agent();
    let reply = agent.http("GET", "/metrics");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("Content-Type"), Some("application/json;charset=utf-8"));
    let metrics: Value = serde_json::from_str(&reply.body).expect("it is JSON");
    let groups = metrics.as_object().expect("it is an object");
    assert_eq!(groups.keys().collect::<Vec<_>>(), ["CHANNEL.c1", "SINK.k1", "SOURCE.r1"]);
    for (group, attributes) in [("SOURCE.r1", &SOURCE[..]), ("CHANNEL.c1", &CHANNEL), ("SINK.k1", &SINK)] {
        for attribute in attributes {
            assert!(metrics[group][attribute].is_string(), "{group} {attribute} in {metrics}");
        }
        let values = metrics[group].as_object().expect("a group is an object");
        assert!(values.values().all(Value::is_string), "{metrics}");
        assert_eq!(metrics[group]["Type"], group[..group.len() - 3]);
        assert!(counter(&metrics, group, "StartTime") > 1_700_000_000_000);
        assert_eq!(counter(&metrics, group, "StopTime"), 0);
    }
    assert_eq!(counter(&metrics, "CHANNEL.c1", "ChannelCapacity"), 100);
    assert_eq!(metrics["CHANNEL.c1"]["ChannelFillPercentage"], "0.0");
    assert_eq!(counter(&metrics, "CHANNEL.c1", "EventPutAttemptCount"), 1);
}

#[test]
fn paths_and_methods_are_answered_as_by_flume() {
    let agent = agent();
    for (method, path) in [("GET", "/METRICS"), ("GET", "/metrics?x=1"), ("POST", "/metrics"), ("PUT", "/Metrics")] {
        let reply = agent.http(method, path);
        assert_eq!(reply.status, 200, "{method} {path}");
        assert!(reply.body.starts_with("{\"CHANNEL.c1\":"), "{method} {path}: {}", reply.body);
    }
    let reply = agent.http("GET", "/");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("Content-Type"), Some("text/html;charset=utf-8"));
    assert_eq!(reply.body, "For Flume metrics please click <a href = \"./metrics\"> here</a>.");
    for path in ["/x", "/metrics/", "/metrics/x"] {
        assert_eq!(agent.http("GET", path).status, 404, "{path}");
    }
    for (method, path) in [("OPTIONS", "/metrics"), ("TRACE", "/metrics"), ("OPTIONS", "/x")] {
        let reply = agent.http(method, path);
        assert_eq!((reply.status, reply.body.as_str()), (403, ""), "{method} {path}");
    }
    let head = agent.http("HEAD", "/metrics");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn prometheus_can_read_them() {
    let agent = agent();
    let reply = agent.http("GET", "/metrics/prometheus");
    assert_eq!(reply.status, 200);
    assert!(reply.header("Content-Type").is_some_and(|text| text.starts_with("text/plain; version=0.0.4")));
    let mut families = Vec::new();
    let mut values = Vec::new();
    for line in reply.body.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').expect("a family has a name and a type");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert!(!families.contains(&name), "{name} comes twice");
            families.push(name);
            continue;
        }
        let (series, value) = line.split_once(' ').expect("a series has a value");
        let (name, label) = series.split_once('{').expect("a series has a label");
        assert_eq!(families.last(), Some(&name), "a series follows its family's head");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(label.starts_with("name=\"") && label.ends_with("\"}"), "{line}");
        values.push((series, value.parse::<f64>().expect("a value is a number")));
    }
    assert!(reply.body.ends_with('\n'));
    let value = |series: &str| values.iter().find(|(name, _)| *name == series).map(|(_, value)| *value);
    assert_eq!(value("flume_source_event_accepted_total{name=\"r1\"}"), Some(1.0));
    assert_eq!(value("flume_channel_channel_capacity{name=\"c1\"}"), Some(100.0));
    assert_eq!(value("flume_sink_event_drain_success_total{name=\"k1\"}"), Some(1.0));
}

#[test]
fn a_taken_port_leaves_the_agent_running_without_a_page() {
    let holder = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).expect("a port is free");
    let port = holder.local_addr().expect("it has an address").port();
    let agent = Launch::bare()
        .args(["agent", "-n", "a1", "-Dflume.monitoring.type=http"])
        .args([format!("-Dflume.monitoring.port={port}")])
        .config(&format!("{NETCAT}{MEMORY}{NULL}"));
    agent.wait_for_line("Error starting Jetty. JSON Metrics may not be available.");
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
}

/// What the clients of the load have seen.
#[derive(Default)]
struct Seen {
    lines: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
}

/// Sends packets of lines, now and then one that is too long, and counts the answers.
fn load(port: u16, seed: usize, done: &AtomicBool, seen: &Seen) {
    let mut nc = Conversation::with(port);
    let mut round = seed;
    while !done.load(Ordering::Relaxed) {
        round += 1;
        let lines = 1 + round * 7 % 60;
        let too_long = round.is_multiple_of(5);
        let mut packet = "a line\n".repeat(lines);
        if too_long {
            packet.push_str(&"x".repeat(600));
        }
        nc.send(&packet);
        let answers = nc.lines(lines + usize::from(too_long));
        let ok = answers.iter().filter(|answer| *answer == "OK").count();
        seen.lines.fetch_add(answers.len() as u64, Ordering::Relaxed);
        seen.ok.fetch_add(ok as u64, Ordering::Relaxed);
        seen.failed.fetch_add((answers.len() - ok) as u64, Ordering::Relaxed);
        if too_long {
            nc.expect_eof();
            nc = Conversation::with(port);
        }
    }
}

/// The laws that hold at every moment.
fn check_laws(metrics: &Value) {
    let of = |group, attribute| counter(metrics, group, attribute);
    let accepted = of("SOURCE.r1", "EventAcceptedCount");
    let put = of("CHANNEL.c1", "EventPutSuccessCount");
    let taken = of("CHANNEL.c1", "EventTakeSuccessCount");
    assert_eq!(
        of("SOURCE.r1", "EventReceivedCount"),
        accepted + of("SOURCE.r1", "EventRefusedCount"),
        "received is accepted and refused: {metrics}"
    );
    assert_eq!(accepted, put, "accepted is in the channel: {metrics}");
    assert_eq!(put, taken + of("CHANNEL.c1", "ChannelSize"), "what was put is taken or there: {metrics}");
    assert_eq!(of("SINK.k1", "EventDrainSuccessCount"), taken, "what was taken is delivered: {metrics}");
    assert!(of("CHANNEL.c1", "ChannelSize") <= of("CHANNEL.c1", "ChannelCapacity"), "{metrics}");
}

#[test]
fn they_add_up_at_every_moment() {
    const SCRAPES: usize = 200;
    const LINES: u64 = 5000;
    let mut agent = TestAgent::start(&format!(
        "{NETCAT}{MEMORY}{NULL}a1.channels.c1.capacity = 50\na1.channels.c1.transactionCapacity = 50\n\
         a1.channels.c1.keep-alive = 0\na1.sinks.k1.batchSize = 20\n"
    ));
    let port = agent.port();
    // A component's counters are there once it has started.
    agent.wait_for_line("Component type: SOURCE, name: r1 started");
    agent.wait_for_line("Component type: SINK, name: k1 started");
    let (done, seen) = (AtomicBool::new(false), Seen::default());
    let scrapes = thread::scope(|scope| {
        for client in 0..4 {
            let (done, seen) = (&done, &seen);
            scope.spawn(move || load(port, client * 17, done, seen));
        }
        // Whatever happens here, the clients must end.
        let scrapes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut scrapes = 0;
            while scrapes < SCRAPES || seen.lines.load(Ordering::Relaxed) < LINES {
                check_laws(&agent.metrics());
                scrapes += 1;
            }
            scrapes
        }));
        done.store(true, Ordering::Relaxed);
        scrapes
    });
    let scrapes = scrapes.expect("the laws hold");
    assert!(scrapes >= SCRAPES);
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    let metrics = agent.metrics();
    check_laws(&metrics);
    let (ok, failed) = (seen.ok.into_inner(), seen.failed.into_inner());
    assert_eq!(counter(&metrics, "SOURCE.r1", "EventAcceptedCount"), ok, "an OK is an accepted event");
    assert_eq!(counter(&metrics, "SOURCE.r1", "EventRefusedCount"), failed, "a FAILED is a refused one");
    assert!(ok > 0 && failed > 0, "{ok} accepted, {failed} refused");
    assert!(agent.terminate().success());
    assert!(agent.last_line().contains(&format!("{ok} events accepted, {failed} refused, {ok} delivered, 0 lost")));
}
