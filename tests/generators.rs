//! The sources that make their own events, and the sink that drops them.

use crate::support::{LOGGER, MEMORY, NULL, TestAgent, message};

const SEQ: &str = "a1.sources = r1\na1.sources.r1.type = seq\na1.sources.r1.channels = c1\n";

#[test]
fn seq_counts_from_zero() {
    let more = "a1.sources.r1.totalEvents = 5\na1.sources.r1.batchSize = 2\n";
    let mut agent = TestAgent::start(&format!("{SEQ}{more}{MEMORY}{LOGGER}"));
    agent.wait_for_events(5);
    assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 5);
    assert_eq!(agent.counter("SOURCE.r1", "AppendBatchAcceptedCount"), 3);
    assert!(agent.terminate().success());
    let expected: Vec<String> =
        (0..5).map(|n| format!("Event: {{ headers:{{}} body: {:02X}{}{n} }}", 0x30 + n, " ".repeat(46))).collect();
    assert_eq!(agent.events(), expected);
}

#[test]
fn stress_repeats_its_body() {
    let source = SEQ.replace("= seq", "= org.apache.flume.source.StressSource");
    let more = "a1.sources.r1.size = 10\na1.sources.r1.maxTotalEvents = 5\n";
    let mut agent = TestAgent::start(&format!("{source}{more}{MEMORY}{LOGGER}"));
    agent.wait_for_events(5);
    assert!(agent.terminate().success());
    let event = "Event: { headers:{} body: 7F 7F 7F 7F 7F 7F 7F 7F 7F 7F                   .......... }";
    assert_eq!(agent.events(), [event; 5]);
}

#[test]
fn null_says_how_much_it_has_dropped() {
    let more = "a1.sources.r1.totalEvents = 13\na1.sinks.k1.batchSize = 3\na1.sinks.k1.logEveryNEvents = 5\n";
    let mut agent = TestAgent::start(&format!("{SEQ}{more}{MEMORY}{NULL}"));
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 13);
    assert!(agent.terminate().success());
    assert_eq!(
        agent.messages("successful processed"),
        ["Null sink k1 successful processed 5 events.", "Null sink k1 successful processed 10 events."]
    );
    assert!(
        agent.last_line().ends_with("13 events accepted, 0 refused, 13 delivered, 0 lost"),
        "{}",
        agent.last_line()
    );
}

#[test]
fn all_of_them_run_by_class_name() {
    let agent = TestAgent::start(&format!(
        "a1.sources = r1 r2\na1.sources.r1.type = org.apache.flume.source.SequenceGeneratorSource\n\
         a1.sources.r1.channels = c1\na1.sources.r1.totalEvents = 10\n\
         a1.sources.r2.type = org.apache.flume.source.StressSource\na1.sources.r2.channels = c1\n\
         a1.sources.r2.maxTotalEvents = 10\na1.sinks = k1\na1.sinks.k1.type = org.apache.flume.sink.NullSink\n\
         a1.sinks.k1.channel = c1\na1.sinks.k1.logEveryNEvents = 20\n{MEMORY}"
    ));
    let line = agent.wait_for_line("successful processed");
    assert_eq!(message(&line), "Null sink k1 successful processed 20 events.");
}
