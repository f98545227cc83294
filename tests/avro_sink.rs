//! The avro sink, seen from the sources that it sends to.

use std::thread;

use bytes::BytesMut;
use rustix::process::Signal;

use crate::support::{
    AvroPeer, AvroServer, Conversation, MEMORY, NETCAT, TestAgent, directory, eventually, file_roll, free_port,
    kept_events, wait_for_kept_events,
};

/// An agent from netcat to an avro sink `k1`, and its client.
fn sender(port: u16, more: &str) -> (TestAgent, Conversation) {
    let agent = TestAgent::start(&format!(
        "{NETCAT}{MEMORY}a1.sinks = k1\na1.sinks.k1.type = avro\na1.sinks.k1.channel = c1\n\
         a1.sinks.k1.hostname = localhost\na1.sinks.k1.port = {port}\n{more}"
    ));
    let nc = Conversation::with(agent.port());
    (agent, nc)
}

const OK: &[u8] = &[0];
const FAILED: &[u8] = &[2];

fn counters<const N: usize>(agent: &TestAgent, names: [&str; N]) -> [u64; N] {
    let metrics = agent.metrics();
    names.map(|name| crate::support::counter(&metrics, "SINK.k1", name))
}

/// Takes a batch.
fn take(peer: &mut AvroPeer) -> Vec<String> {
    let (call, bodies) = peer.request();
    peer.answer(&call, OK);
    bodies
}

/// A batch whose first server does something else than take it comes again, whole, on a new connection.
fn comes_again_after(misbehaviour: impl FnOnce(AvroPeer), complaint: &str) {
    let server = AvroServer::new();
    let (agent, mut nc) = sender(server.port(), "a1.sinks.k1.request-timeout = 1000\n");
    let first = server.accept();
    nc.send("one\ntwo\n");
    assert_eq!(nc.lines(2), ["OK", "OK"]);
    misbehaviour(first);
    let line = agent.wait_for_line("Failed to send batch");
    let place = format!("NettyAvroRpcClient {{ host: localhost, port: {} }}", server.port());
    assert!(line.contains(&place) && line.contains(complaint), "{line}");
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 2, "the events stay");
    let mut second = server.accept();
    let (call, bodies) = second.request();
    assert_eq!(bodies, ["one", "two"]);
    assert_eq!(agent.counter("SINK.k1", "EventDrainSuccessCount"), 0);
    second.answer(&call, OK);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 2);
    let names = ["EventWriteFail", "ConnectionCreatedCount", "ConnectionClosedCount", "ConnectionFailedCount"];
    assert_eq!(counters(&agent, names), [1, 2, 1, 0]);
}

#[test]
fn a_batch_comes_again_after_a_server_that_is_killed_within_it() {
    // What is unread makes it a reset.
    comes_again_after(|mut peer| drop(peer.peer.bytes(10)), "");
}

#[test]
fn a_batch_comes_again_after_a_server_that_fails() {
    let failing = |mut peer: AvroPeer| {
        let (call, _) = peer.request();
        peer.answer(&call, FAILED);
        peer.peer.expect_eof();
    };
    comes_again_after(failing, "Avro RPC call returned Status: FAILED");
}

#[test]
fn a_batch_comes_again_after_a_server_that_closes_instead_of_answering() {
    comes_again_after(|mut peer| drop(peer.request()), "the server closed the connection");
}

#[test]
fn a_batch_comes_again_after_a_server_that_is_silent() {
    let silent = |mut peer: AvroPeer| {
        peer.request();
        peer.peer.expect_eof();
    };
    comes_again_after(silent, "RPC request timed out after 1000 ms");
}

#[test]
fn a_batch_comes_again_after_a_server_that_answers_something_else() {
    let other = |mut peer: AvroPeer| {
        peer.request();
        peer.peer.send("HTTP/1.1 400 Bad Request\r\n\r\n");
        peer.peer.expect_eof();
    };
    comes_again_after(other, "the answer is not Avro RPC");
}

#[test]
fn a_receiver_that_is_killed_with_a_batch_in_its_hands_gets_it_again() {
    let out = directory();
    let start = |port: u16| {
        TestAgent::start(&format!(
            "a1.sources = r1\na1.sources.r1.type = avro\na1.sources.r1.bind = 127.0.0.1\na1.sources.r1.port = {port}\n\
             a1.sources.r1.channels = c1\n{MEMORY}{}a1.sinks.k1.sink.serializer = avro_event\n",
            file_roll(out.path())
        ))
    };
    let mut receiver = start(0);
    let port = receiver.port_after("Avro source r1: listening on");
    let (agent, mut nc) = sender(port, "a1.sinks.k1.batch-size = 10\n");
    let mut feed = |numbers: std::ops::Range<usize>| {
        nc.send(numbers.clone().map(|number| format!("{number}\n")).collect::<String>());
        assert_eq!(nc.lines(numbers.len()), vec!["OK"; numbers.len()]);
    };
    feed(0..50);
    wait_for_kept_events(out.path(), 50);
    // It has what the kernel takes for it, and then nothing any more.
    receiver.signal(Signal::STOP);
    feed(50..100);
    let taken = eventually(|| (agent.counter("SINK.k1", "EventDrainAttemptCount") > 50).then_some(()));
    taken.expect("a batch is on its way");
    receiver.signal(Signal::KILL);
    receiver.wait();
    agent.wait_for_line("Failed to send batch");
    let receiver = start(port);
    let bodies = wait_for_kept_events(out.path(), 100).into_iter().map(|event| event.body);
    assert!(bodies.eq((0..100).map(|number| number.to_string())), "everything once, in order");
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 100);
    drop(receiver);
    assert_eq!(kept_events(out.path()).len(), 100);
}

#[test]
fn only_the_batch_that_was_not_acknowledged_comes_twice() {
    let server = AvroServer::new();
    let port = server.port();
    let (agent, mut nc) = sender(port, "a1.sinks.k1.batch-size = 3\n");
    let mut first = server.accept();
    nc.send("0\n1\n2\n3\n4\n5\n6\n");
    assert_eq!(nc.lines(7), vec!["OK"; 7]);
    assert_eq!(take(&mut first), ["0", "1", "2"]);
    assert_eq!(first.request().1, ["3", "4", "5"]);
    // It has stored these, and dies before it can say so.
    drop((first, server));
    agent.wait_for_line("Failed to send batch");
    let mut second = AvroServer::at(port).accept();
    assert_eq!(take(&mut second), ["3", "4", "5"]);
    assert_eq!(take(&mut second), ["6"]);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 7);
    let names = ["BatchCompleteCount", "BatchUnderflowCount", "ConnectionCreatedCount", "ConnectionClosedCount"];
    assert_eq!(counters(&agent, names), [2, 1, 2, 1]);
}

#[test]
fn a_connection_that_the_server_closed_in_the_meantime_costs_no_attempt() {
    let server = AvroServer::new();
    let (agent, mut nc) = sender(server.port(), "");
    for line in ["one", "two"] {
        assert_eq!(nc.ask(line), "OK");
        let mut peer = server.accept();
        assert_eq!(take(&mut peer), [line]);
        agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    }
    assert_eq!(counters(&agent, ["EventWriteFail", "ConnectionCreatedCount"]), [0, 2]);
}

#[test]
fn a_server_that_comes_late_only_delays() {
    let port = free_port();
    let (agent, mut nc) = sender(port, "");
    agent.wait_for_line(&format!("Unable to create Rpc client using hostname: localhost, port: {port}"));
    assert_eq!(nc.ask("hello"), "OK");
    agent.wait_for_line("Failed to send batch");
    assert_eq!(take(&mut AvroServer::at(port).accept()), ["hello"]);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 1);
    assert!(agent.counter("SINK.k1", "ConnectionFailedCount") >= 2);
}

#[test]
fn a_connection_is_reset_after_its_interval() {
    let server = AvroServer::new();
    let (agent, mut nc) = sender(server.port(), "a1.sinks.k1.reset-connection-interval = 1\n");
    let mut first = server.accept();
    assert_eq!(nc.ask("one"), "OK");
    assert_eq!(take(&mut first), ["one"]);
    // Whenever that is, the next batch after the second comes over a new connection.
    let closed = thread::spawn(move || {
        let mut bodies = Vec::new();
        while !first.peer.is_closed() {
            bodies.extend(take(&mut first));
        }
        bodies
    });
    let fed = eventually(|| {
        assert_eq!(nc.ask("again"), "OK");
        closed.is_finished().then_some(())
    });
    assert!(fed.is_some());
    assert!(closed.join().expect("the first connection ends in order").iter().all(|body| body == "again"));
    // More may be on its way, so the connection stays.
    let mut second = server.accept();
    assert!(take(&mut second).iter().all(|body| body == "again"));
    assert_eq!(counters(&agent, ["EventWriteFail", "ConnectionFailedCount"]), [0, 0]);
    assert_eq!(agent.messages("Connection reset is set to 0").len(), 0);
}

/// The keys of a sink with two servers.
fn two_hosts(kind: &str, servers: &[AvroServer; 2]) -> String {
    let [one, two] = servers.each_ref().map(AvroServer::port);
    format!(
        "a1.sinks.k1.client.type = {kind}\na1.sinks.k1.hosts = h1 h2\n\
         a1.sinks.k1.hosts.h1 = localhost:{one}\na1.sinks.k1.hosts.h2 = localhost:{two}\n"
    )
}

#[test]
fn a_failover_client_stays_with_the_host_that_works() {
    let servers = [AvroServer::new(), AvroServer::new()];
    let (agent, mut nc) = sender(servers[0].port(), &two_hosts("default_failover", &servers));
    let [first, second] = servers;
    assert_eq!(nc.ask("1"), "OK");
    let mut peer = first.accept();
    assert_eq!(take(&mut peer), ["1"]);
    assert_eq!(nc.ask("2"), "OK");
    assert_eq!(take(&mut peer), ["2"]);
    assert_eq!(nc.ask("3"), "OK");
    let (call, _) = peer.request();
    peer.answer(&call, FAILED);
    // The same attempt goes on with the other host.
    let mut other = second.accept();
    assert_eq!(take(&mut other), ["3"]);
    assert_eq!(nc.ask("4"), "OK");
    assert_eq!(take(&mut other), ["4"], "the one that works keeps the work");
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 4);
    assert_eq!(counters(&agent, ["EventWriteFail"]), [0]);
    // And back.
    drop((other, second));
    assert_eq!(nc.ask("5"), "OK");
    assert_eq!(take(&mut first.accept()), ["5"]);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 5);
    assert_eq!(counters(&agent, ["EventWriteFail"]), [0]);
}

#[test]
fn a_failover_client_with_fewer_attempts_than_hosts_comes_to_the_next_one() {
    let servers = [AvroServer::new(), AvroServer::new()];
    let keys = two_hosts("default_failover", &servers) + "a1.sinks.k1.max-attempts = 1\n";
    let (agent, mut nc) = sender(servers[0].port(), &keys);
    let [first, second] = servers;
    assert_eq!(nc.ask("1"), "OK");
    let mut peer = first.accept();
    let (call, _) = peer.request();
    peer.answer(&call, FAILED);
    agent.wait_for_counter("SINK.k1", "EventWriteFail", 1);
    assert_eq!(take(&mut second.accept()), ["1"]);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 1);
}

#[test]
fn a_load_balancing_client_takes_turns_and_skips_the_one_that_is_gone() {
    let servers = [AvroServer::new(), AvroServer::new()];
    let (agent, mut nc) = sender(1, &two_hosts("default_loadbalance", &servers));
    let [first, second] = servers;
    let mut peers: [Option<AvroPeer>; 2] = [None, None];
    for line in ["1", "2", "3", "4"] {
        assert_eq!(nc.ask(line), "OK");
        let turn = (line == "2" || line == "4") as usize;
        let peer = peers[turn].get_or_insert_with(|| [&first, &second][turn].accept());
        assert_eq!(take(peer), [line]);
    }
    let [gone, left] = peers;
    drop((gone, first));
    let mut left = left.expect("it has had its turn");
    for line in ["5", "6", "7"] {
        assert_eq!(nc.ask(line), "OK");
        assert_eq!(take(&mut left), [line]);
    }
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 7);
    assert_eq!(counters(&agent, ["EventWriteFail"]), [0]);
}

#[test]
fn what_a_server_says_stays_in_one_line_of_the_log() {
    let server = AvroServer::new();
    let (agent, mut nc) = sender(server.port(), "");
    assert_eq!(nc.ask("1"), "OK");
    let mut peer = server.accept();
    let (call, _) = peer.request();
    let mut answer = BytesMut::new();
    call.answer(&mut answer, Err("x\nforged"));
    peer.peer.send(&answer);
    agent.wait_for_line(r"Avro RPC call failed: x\nforged");
}

#[test]
fn an_agent_that_stops_delivers_what_it_has() {
    let server = AvroServer::new();
    let (mut agent, mut nc) = sender(server.port(), "a1.sinks.k1.batch-size = 2\n");
    let mut peer = server.accept();
    nc.send("1\n2\n3\n");
    assert_eq!(nc.lines(3), ["OK", "OK", "OK"]);
    agent.signal(Signal::TERM);
    assert_eq!(take(&mut peer), ["1", "2"]);
    assert_eq!(take(&mut peer), ["3"]);
    peer.peer.expect_eof();
    assert!(agent.wait().success());
    assert!(agent.last_line().ends_with("3 events accepted, 0 refused, 3 delivered, 0 lost"), "{}", agent.last_line());
}
