//! The Spark sink, seen from its clients.

use std::time::Duration;

use flume_rs::rpc::avro::client::Requestor;
use flume_rs::rpc::avro::datum::{put_bytes, put_long};
use flume_rs::rpc::avro::protocol::SPARK_FLUME;
use flume_rs::rpc::spark::{EventBatch, PollError, PollingClient};
use flume_rs::rpc::transport::Endpoint;
use rustix::process::Signal;

use crate::support::{Conversation, DEADLINE, MEMORY, NETCAT, TestAgent};

/// An agent from netcat to a Spark sink.
struct Sparked {
    agent: TestAgent,
    nc: Conversation,
    endpoint: Endpoint,
}

impl Sparked {
    fn new(more: &str) -> Self {
        Self::with_args(more, &[])
    }

    fn with_args(more: &str, args: &[&str]) -> Self {
        let sink = "a1.sinks = k1\na1.sinks.k1.type = org.apache.spark.streaming.flume.sink.SparkSink\n\
                    a1.sinks.k1.channel = c1\na1.sinks.k1.hostname = 127.0.0.1\na1.sinks.k1.port = 0\n";
        let agent = TestAgent::start_with(&format!("{NETCAT}{MEMORY}{sink}{more}"), args);
        let port = agent.port_after("Spark sink k1: listening on");
        let nc = Conversation::with(agent.port());
        Self { agent, nc, endpoint: Endpoint::plain("127.0.0.1", port, DEADLINE) }
    }

    /// Fills the channel with these numbers.
    fn feed(&mut self, numbers: std::ops::Range<usize>) {
        self.nc.send(numbers.clone().map(|number| format!("{number}\n")).collect::<String>());
        assert_eq!(self.nc.lines(numbers.len()), vec!["OK"; numbers.len()]);
    }

    async fn client(&self) -> PollingClient {
        PollingClient::connect(&self.endpoint).await.expect("the sink listens")
    }

    fn expect_size(&self, events: u64) {
        self.agent.wait_for_counter("CHANNEL.c1", "ChannelSize", events);
    }
}

/// Runs a client's side, which has a minute for it.
fn run<T>(clients: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, clients).await.expect("it comes to an end") })
}

fn numbers(batch: &EventBatch) -> Vec<usize> {
    let body = |body: &[u8]| String::from_utf8_lossy(body).parse().expect("a number");
    batch.events.iter().map(|event| body(event.body())).collect()
}

fn range(numbers: std::ops::Range<usize>) -> Vec<usize> {
    numbers.collect()
}

#[test]
fn an_ack_removes_events_and_nothing_else_does() {
    let mut sparked = Sparked::new("");
    sparked.feed(0..10);
    run(async {
        let mut client = sparked.client().await;
        let first = client.poll(4).await.expect("events");
        assert_eq!(numbers(&first), range(0..4));
        assert_eq!(sparked.agent.counter("SINK.k1", "EventDrainSuccessCount"), 0);
        client.ack(&first.sequence).await.expect("an answer");
        sparked.agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 4);

        let second = client.poll(4).await.expect("events");
        assert_eq!(numbers(&second), range(4..8));
        assert_ne!(first.sequence, second.sequence);
        client.nack(&second.sequence).await.expect("an answer");
        let again = client.poll(100).await.expect("events");
        assert_eq!(numbers(&again), range(4..10), "in their old order");
        assert_ne!(again.sequence, second.sequence);
        // Too late: the number means nothing any more.
        client.ack(&second.sequence).await.expect("an answer all the same");
        client.ack("nobody's").await.expect("an answer all the same");
        sparked.agent.wait_for_line("an ack for batch nobody's, which is not, or no longer, waiting for one");
        assert_eq!(sparked.agent.counter("SINK.k1", "EventDrainSuccessCount"), 4);
        client.ack(&again.sequence).await.expect("an answer");
        client.ack(&again.sequence).await.expect("an answer");
        sparked.agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 10);
    });
    sparked.expect_size(0);
    assert!(sparked.agent.terminate().success());
}

#[test]
fn what_is_not_acknowledged_in_time_comes_again() {
    let mut sparked = Sparked::new("a1.sinks.k1.timeout = 1\n");
    sparked.feed(0..5);
    run(async {
        let mut slow = sparked.client().await;
        let batch = slow.poll(3).await.expect("events");
        assert_eq!(numbers(&batch), range(0..3));
        sparked
            .agent
            .wait_for_line(&format!("batch {} go back to the channel: no ack within the timeout", batch.sequence));
        slow.ack(&batch.sequence).await.expect("an answer");
        let mut next = sparked.client().await;
        let batch = next.poll(100).await.expect("events");
        assert_eq!(numbers(&batch), range(0..5));
        next.ack(&batch.sequence).await.expect("an answer");
    });
    sparked.expect_size(0);
    assert_eq!(sparked.agent.counter("SINK.k1", "EventDrainSuccessCount"), 5);
    assert_eq!(sparked.agent.counter("SINK.k1", "EventWriteFail"), 1);
}

#[test]
fn what_a_client_takes_along_when_it_goes_comes_again() {
    let mut sparked = Sparked::new("");
    sparked.feed(0..6);
    run(async {
        let mut leaving = sparked.client().await;
        assert_eq!(numbers(&leaving.poll(2).await.expect("events")), range(0..2));
        assert_eq!(numbers(&leaving.poll(2).await.expect("events")), range(2..4));
        drop(leaving);
        sparked.agent.wait_for_lines("is gone", 2);
        let batch = sparked.client().await.poll(100).await.expect("events");
        let mut all = numbers(&batch);
        all.sort_unstable();
        assert_eq!(all, range(0..6), "{:?}", numbers(&batch));
        assert_eq!(numbers(&batch), range(0..6), "in their old order");
    });
}

#[test]
fn a_client_that_goes_while_it_waits_takes_nothing() {
    let mut sparked = Sparked::new("");
    run(async {
        let mut waiting = sparked.client().await;
        let gave_up = tokio::time::timeout(Duration::from_millis(100), waiting.poll(10)).await;
        assert!(gave_up.is_err(), "there is nothing to get");
        sparked.agent.wait_for_counter("SINK.k1", "ConnectionCreatedCount", 1);
        drop(waiting);
        sparked.agent.wait_for_counter("SINK.k1", "ConnectionClosedCount", 1);
    });
    sparked.feed(0..3);
    run(async {
        let batch = sparked.client().await.poll(10).await.expect("events");
        assert_eq!(numbers(&batch), range(0..3));
    });
    assert_eq!(sparked.agent.counter("SINK.k1", "EventDrainAttemptCount"), 3, "they were taken once");
}

#[test]
fn a_request_waits_for_the_next_event() {
    let mut sparked = Sparked::new("");
    let endpoint = sparked.endpoint.clone();
    let waiting = std::thread::spawn(move || {
        run(async {
            let mut client = PollingClient::connect(&endpoint).await.expect("the sink listens");
            numbers(&client.poll(1000).await.expect("events"))
        })
    });
    sparked.agent.wait_for_counter("SINK.k1", "ConnectionCreatedCount", 1);
    sparked.feed(0..1);
    assert_eq!(waiting.join().expect("the client is served"), [0]);
}

#[test]
fn clients_share_the_events_and_those_beyond_the_threads_wait() {
    const CLIENTS: usize = 6;
    let mut sparked = Sparked::new(
        "a1.sinks.k1.threads = 2\na1.channels.c1.capacity = 10000\na1.channels.c1.transactionCapacity = 100\n",
    );
    sparked.feed(0..3000);
    let mut all = run(async {
        let consumers = (0..CLIENTS).map(|_| async {
            let mut client = sparked.client().await;
            let mut mine = Vec::new();
            for _ in 0..5 {
                let batch = client.poll(100).await.expect("events");
                assert_eq!(batch.events.len(), 100);
                let got = numbers(&batch);
                assert!(got.is_sorted(), "{got:?}");
                mine.extend(got);
                client.ack(&batch.sequence).await.expect("an answer");
            }
            mine
        });
        futures_util::future::join_all(consumers).await.concat()
    });
    all.sort_unstable();
    assert_eq!(all, range(0..3000), "every event goes to one of them");
    sparked.expect_size(0);

    // Two batches are out; the third client is served when one of them is settled.
    sparked.feed(0..3);
    run(async {
        let [mut one, mut two, mut three] = [sparked.client().await, sparked.client().await, sparked.client().await];
        let first = one.poll(1).await.expect("an event");
        let second = two.poll(1).await.expect("an event");
        let mut third = Box::pin(three.poll(1));
        let waited = tokio::time::timeout(Duration::from_millis(100), &mut third).await;
        assert!(waited.is_err(), "there are two threads");
        one.ack(&first.sequence).await.expect("an answer");
        assert_eq!(numbers(&third.await.expect("an event")), [2]);
        two.ack(&second.sequence).await.expect("an answer");
    });
}

#[test]
fn numbers_that_cannot_be_are_answered_as_spark_does() {
    let mut sparked = Sparked::new(
        "a1.sinks.k1.backoffInterval = 1\na1.channels.c1.capacity = 100\na1.channels.c1.transactionCapacity = 10\n",
    );
    sparked.feed(0..20);
    run(async {
        let mut client = sparked.client().await;
        let Err(PollError::Sink(text)) = client.poll(0).await else { panic!("nothing was asked for") };
        assert_eq!(text, "Tried several times, but did not get any events from the channel!");
        let batch = client.poll(1000).await.expect("events");
        assert_eq!(numbers(&batch), range(0..10), "as many as a transaction may have");
        client.ack(&batch.sequence).await.expect("an answer");

        let connection = sparked.endpoint.connect().await.expect("the sink listens");
        let mut raw = Requestor::new(connection, &SPARK_FLUME);
        let mut minus_one = Vec::new();
        put_long(&mut minus_one, -1);
        let answer = raw.call("getEventBatch", &minus_one).await.expect("an answer");
        let expected = EventBatch { error: "Illegal Capacity: -1".to_owned(), ..EventBatch::default() };
        assert_eq!(EventBatch::read(&answer).expect("a batch"), expected);
        // What it has not got is nobody's, and what cannot be read is answered too.
        let mut nobodys = Vec::new();
        put_bytes(&mut nobodys, "");
        assert_eq!(raw.call("nack", &nobodys).await.expect("an answer"), "");
        let error = raw.call("getEventBatch", &[]).await.expect_err("no number").to_string();
        assert!(error.contains("java.io.EOFException"), "{error}");
        assert_eq!(numbers(&client.poll(10).await.expect("events")), range(10..20));
    });
    for text in ["for 0 events: Tried several times", "for -1 events: Illegal Capacity: -1"] {
        sparked.agent.wait_for_line(text);
    }
}

#[test]
fn an_agent_that_stops_takes_the_ack_of_what_is_out_and_says_what_is_lost() {
    for acknowledged in [true, false] {
        let mut sparked = Sparked::with_args("", &["--drain-timeout", "5"]);
        sparked.feed(0..5);
        let status = run(async {
            let mut client = sparked.client().await;
            let batch = client.poll(3).await.expect("events");
            sparked.agent.signal(Signal::TERM);
            if acknowledged {
                client.ack(&batch.sequence).await.expect("an answer");
                let batch = client.poll(3).await.expect("the rest");
                assert_eq!(numbers(&batch), range(3..5));
                client.ack(&batch.sequence).await.expect("an answer");
            }
            sparked.agent.wait()
        });
        let last = sparked.agent.last_line();
        let (code, text) = if acknowledged { (0, "5 delivered, 0 lost") } else { (1, "0 delivered, 5 lost") };
        assert_eq!(status.code(), Some(code), "{last}");
        let back = sparked.agent.messages("events of batch");
        assert_eq!(back.len(), usize::from(!acknowledged), "{back:?}");
        assert!(back.iter().all(|line| line.ends_with("go back to the channel: the sink stops")), "{back:?}");
        assert!(last.contains(text), "{last}");
    }
}

#[test]
fn what_is_no_request_ends_its_connection_and_no_other() {
    let mut sparked = Sparked::new("");
    let mut bad = Conversation::with(sparked.endpoint.port);
    bad.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(bad.rest(), b"");
    sparked.agent.wait_for_line(&format!(
        "Spark sink k1: the connection from {} is closed: what came is not Avro RPC: the other side speaks HTTP",
        bad.address()
    ));
    sparked.feed(0..1);
    run(async { assert_eq!(numbers(&sparked.client().await.poll(1).await.expect("an event")), [0]) });
    assert_eq!(sparked.agent.counter("SINK.k1", "ConnectionFailedCount"), 1);
}
