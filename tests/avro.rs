//! The avro source, seen from its clients.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use flume_rs::event::{Batch, Event};
use flume_rs::rpc::avro::datum::{put_bytes, put_long};
use flume_rs::rpc::avro::events::put_items;
use flume_rs::rpc::avro::handshake::{HandshakeRequest, Match};
use flume_rs::rpc::avro::protocol::{AVRO_SOURCE, hash};
use rustix::process::Signal;

use crate::support::{
    Answer, AvroClient, AvroServer, Conversation, DEADLINE, LOGGER, MEMORY, NETCAT, NULL, TestAgent, array, batch,
    directory, file_roll, first_append, greeting, kept_events, message, request, wait_for_kept_events,
};

/// An avro source `r1` on a port of the system's choice, into `c1`.
const SOURCE: &str = "\
a1.sources = r1
a1.sources.r1.type = avro
a1.sources.r1.bind = 127.0.0.1
a1.sources.r1.port = 0
a1.sources.r1.channels = c1
";

/// A channel of ten events that makes nobody wait.
const TEN: &str =
    "a1.channels.c1.capacity = 10\na1.channels.c1.transactionCapacity = 10\na1.channels.c1.keep-alive = 0\n";

/// The keys of a source, or of a sink, that has TLS.
fn tls(component: &str) -> String {
    let (store, file) = if component.starts_with("sources") { ("keystore", "rsa") } else { ("truststore", "trust") };
    let file = format!("{}/tests/tls/{file}.jks", env!("CARGO_MANIFEST_DIR"));
    format!("a1.{component}.ssl = true\na1.{component}.{store} = {file}\na1.{component}.{store}-password = changeit\n")
}

/// The key of a source, or of a sink, that compresses.
fn deflate(component: &str) -> String {
    format!("a1.{component}.compression-type = deflate\n")
}

/// An agent with an avro source, and its port.
fn receiver(rest: &str) -> (TestAgent, u16) {
    let agent = TestAgent::start(&format!("{SOURCE}{MEMORY}{rest}"));
    let port = agent.port_after("Avro source r1: listening on");
    (agent, port)
}

/// An avro sink `k1` from `c1` to a port, in batches of ten.
fn sink(port: u16) -> String {
    format!(
        "a1.sinks = k1\na1.sinks.k1.type = avro\na1.sinks.k1.channel = c1\na1.sinks.k1.hostname = localhost\n\
         a1.sinks.k1.port = {port}\na1.sinks.k1.batch-size = 10\n"
    )
}

/// Counters of the source.
fn counters<const N: usize>(agent: &TestAgent, names: [&str; N]) -> [u64; N] {
    let metrics = agent.metrics();
    names.map(|name| crate::support::counter(&metrics, "SOURCE.r1", name))
}

#[test]
fn events_pass_the_interceptors_and_are_counted() {
    let interceptor = "a1.sources.r1.interceptors = i1\na1.sources.r1.interceptors.i1.type = static\n\
                       a1.sources.r1.interceptors.i1.key = site\na1.sources.r1.interceptors.i1.value = bn\n";
    let (agent, port) = receiver(&format!("{LOGGER}{interceptor}"));
    let mut client = AvroClient::with(port);
    assert_eq!(client.append("one"), Answer::Ok);
    let dressed: Batch = [Event::new("two").with("host", "web1"), Event::new("")].into_iter().collect();
    assert_eq!(client.append_batch(&dressed), Answer::Ok);
    assert_eq!(client.append_batch(&Batch::new()), Answer::Ok, "nothing is easily delivered");
    assert_eq!(
        agent.wait_for_events(3),
        [
            "Event: { headers:{site=bn} body: 6F 6E 65                                        one }",
            "Event: { headers:{site=bn, host=web1} body: 74 77 6F                                        two }",
            "Event: { headers:{site=bn} body: }",
        ]
    );
    let names = [
        "OpenConnectionCount",
        "AppendReceivedCount",
        "AppendAcceptedCount",
        "AppendBatchReceivedCount",
        "AppendBatchAcceptedCount",
        "EventReceivedCount",
        "EventAcceptedCount",
        "EventReadFail",
    ];
    assert_eq!(counters(&agent, names), [1, 1, 1, 2, 2, 3, 3, 0]);
    assert_eq!(client.peer.finish(), "");
    agent.wait_for_counter("SOURCE.r1", "OpenConnectionCount", 0);
    assert_eq!(counters(&agent, ["EventReadFail"]), [0], "a client that leaves is no failure");
}

#[test]
fn a_full_channel_fails_a_request_which_is_taken_once_there_is_room() {
    let server = AvroServer::new();
    let (agent, port) = receiver(&format!("{TEN}{}", sink(server.port())));
    let mut client = AvroClient::with(port);
    assert_eq!(client.append_batch(&batch(0..10)), Answer::Ok);
    assert_eq!(client.append_batch(&batch(10..12)), Answer::Failed);
    assert_eq!(client.append("10"), Answer::Failed);
    assert_eq!(client.append_batch(&batch(0..11)), Answer::Failed, "more than a transaction may have");
    let names = ["EventReceivedCount", "EventAcceptedCount", "EventRefusedCount", "ChannelWriteFail", "EventReadFail"];
    assert_eq!(counters(&agent, names), [24, 10, 14, 3, 0]);
    let names = ["AppendReceivedCount", "AppendAcceptedCount", "AppendBatchReceivedCount", "AppendBatchAcceptedCount"];
    assert_eq!(counters(&agent, names), [1, 0, 3, 1]);
    let line = agent.wait_for_line("Unable to process event batch. Exception follows.");
    assert!(line.contains(&format!("Client {}", client.peer.address())), "{line}");
    agent.wait_for_line("Unable to process event. Exception follows.");

    let mut next = server.accept();
    let (call, bodies) = next.request();
    assert_eq!(bodies, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    next.answer(&call, &[0]);
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    assert_eq!(client.append_batch(&batch(10..12)), Answer::Ok);
    assert_eq!(next.request().1, ["10", "11"], "nothing of what was refused had been stored");
}

#[test]
fn a_request_is_answered_when_it_is_committed_and_not_before() {
    let server = AvroServer::new();
    let patient = TEN.replace("keep-alive = 0", "keep-alive = 3600");
    let (agent, port) = receiver(&format!("{patient}{}", sink(server.port())));
    let mut client = AvroClient::with(port);
    client.send_batch(&batch(0..10));
    client.send_batch(&batch(10..11));
    assert_eq!(client.answer(), Answer::Ok, "an answer waits for no other request's room");
    agent.wait_for_counter("SOURCE.r1", "AppendBatchReceivedCount", 2);
    let mut next = server.accept();
    let (call, _) = next.request();
    assert_eq!(agent.counter("SOURCE.r1", "AppendBatchAcceptedCount"), 1);
    assert!(client.peer.is_quiet(), "events are in no channel, and acknowledged");
    next.answer(&call, &[0]);
    assert_eq!(client.answer(), Answer::Ok);
    assert_eq!(next.request().1, ["10"]);
}

#[test]
fn events_are_in_all_required_channels_or_in_none() {
    let config = format!("{SOURCE}{MEMORY}{TEN}").replace("channels = c1", "channels = c1 c2")
        + "a1.channels.c2.type = memory\na1.channels.c2.capacity = 3\na1.channels.c2.transactionCapacity = 3\n\
           a1.channels.c2.keep-alive = 0\n";
    let agent = TestAgent::start(&config);
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    assert_eq!(client.append_batch(&batch(0..2)), Answer::Ok);
    assert_eq!(client.append_batch(&batch(0..2)), Answer::Failed);
    assert_eq!(client.append("2"), Answer::Ok);
    for channel in ["CHANNEL.c1", "CHANNEL.c2"] {
        assert_eq!(agent.counter(channel, "ChannelSize"), 3, "{channel}");
    }
}

#[test]
fn requests_without_waiting_are_answered_in_order_and_their_events_stay_in_order() {
    let out = directory();
    let (_agent, port) = receiver(&format!(
        "a1.channels.c1.capacity = 100000\n{}a1.sinks.k1.sink.serializer = avro_event\n",
        file_roll(out.path())
    ));
    let mut client = AvroClient::with(port);
    for first in (0..2000).step_by(10) {
        client.send_batch(&batch(first..first + 10));
    }
    for _ in 0..200 {
        assert_eq!(client.answer(), Answer::Ok);
    }
    let bodies = wait_for_kept_events(out.path(), 2000).into_iter().map(|event| event.body);
    assert!(bodies.eq((0..2000).map(|number| number.to_string())));
}

/// Flume's protocol as somebody else may have it: with a text of its own, and an event that says more.
fn newer_protocol() -> String {
    let fields = r#""fields":[{"name":"headers""#;
    assert_eq!(AVRO_SOURCE.text.matches(fields).count(), 1);
    let more = r#""doc":"of our own","fields":[{"name":"priority","type":["null","int"]},{"name":"headers""#;
    AVRO_SOURCE.text.replace(fields, more)
}

#[test]
fn a_client_with_another_protocol_is_understood() {
    let (agent, port) = receiver(LOGGER);
    let protocol = newer_protocol();
    let hash = hash(&protocol);
    let mut event = Vec::new();
    put_long(&mut event, 1);
    put_long(&mut event, 5);
    put_items(&mut event, &batch(["hello"]));

    // The server does not know the hash, and says what it speaks itself.
    let mut client = AvroClient::with(port).greeting(greeting(hash, None));
    client.send("append", &event);
    let (response, answer) = client.introduced();
    assert_eq!((response.matched, answer), (Match::None, None));
    assert_eq!(response.server, Some((AVRO_SOURCE.text.to_owned(), AVRO_SOURCE.hash)));
    let mut client = client.greeting(greeting(hash, Some(&protocol)));
    client.send("append", &event);
    let (response, answer) = client.introduced();
    assert_eq!((response.matched, response.server, answer), (Match::Both, None, Some(Answer::Ok)));
    client.send("append", &event);
    assert_eq!(client.answer(), Answer::Ok);

    // The next one need not say it again.
    let mut client = AvroClient::with(port).greeting(greeting(hash, None));
    client.send("append", &event);
    assert_eq!(client.answer(), Answer::Ok);

    // One that takes the server for another is told what it is, and served.
    let mut mistaken = Vec::new();
    HandshakeRequest { client_hash: hash, client_protocol: None, server_hash: [8; 16] }.put(&mut mistaken);
    let mut client = AvroClient::with(port).greeting(mistaken);
    client.send("append", &event);
    let (response, answer) = client.introduced();
    assert_eq!((response.matched, answer), (Match::Client, Some(Answer::Ok)));
    assert_eq!(response.server, Some((AVRO_SOURCE.text.to_owned(), AVRO_SOURCE.hash)));

    let hello = "Event: { headers:{} body: 68 65 6C 6C 6F                                  hello }";
    assert_eq!(agent.wait_for_events(4), [hello; 4]);
    assert_eq!(counters(&agent, ["EventReadFail"]), [0]);
}

#[test]
fn a_protocol_that_is_made_to_do_harm_does_none() {
    let (agent, port) = receiver(NULL);
    let mut good = AvroClient::with(port);
    let s = r#"{"type":"record","name":"S","fields":[{"name":"b","type":"R","default":{}}]}"#;
    let defaults = format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":[{s},{{"type":"map","values":"int"}}],"default":{{}}}}]}}"#
    );
    let named_twice = r#"{"name":"X","type":{"type":"record","name":"Y","fields":[]}}"#;
    for types in [&defaults, named_twice] {
        let text = format!(
            r#"{{"types":[{types}],"messages":{{"append":{{"request":[{{"name":"event","type":"bytes"}}]}}}}}}"#
        );
        let mut bad = AvroClient::with(port).greeting(greeting(hash(&text), Some(&text)));
        bad.send("append", &[0]);
        assert!(matches!(bad.introduced(), (_, Some(Answer::Error(_)))), "{text}");
        assert_eq!(good.append("good"), Answer::Ok);
    }
    assert_eq!(counters(&agent, ["EventReadFail", "EventAcceptedCount"]), [2, 2]);
}

#[test]
fn the_filter_decides_who_may_connect() {
    for (rules, admitted) in [
        ("allow:ip:127.*,deny:ip:*", true),
        ("deny:ip:127.0.0.?,allow:ip:*", false),
        ("allow:name:localhost,deny:name:*", true),
        ("deny:name:localhost", false),
        ("deny:ip:10.*", true),
    ] {
        let (agent, port) =
            receiver(&format!("{NULL}a1.sources.r1.ipFilter = true\na1.sources.r1.ipFilterRules = {rules}\n"));
        if admitted {
            assert_eq!(AvroClient::with(port).append("hello"), Answer::Ok, "{rules}");
        } else {
            let mut client = Conversation::with(port);
            assert_eq!(client.rest(), b"", "{rules}");
            agent.wait_for_line(&format!("Avro source r1: ipFilter refuses {}", client.address()));
            agent.wait_for_counter("SOURCE.r1", "OpenConnectionCount", 0);
            assert_eq!(counters(&agent, ["EventReadFail"]), [0]);
        }
    }
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let (agent, port) = receiver(&format!("{NULL}a1.sources.r1.max-connections = 1\n"));
    let mut first = AvroClient::with(port);
    assert_eq!(first.append("1"), Answer::Ok);
    let mut second = AvroClient::with(port);
    second.send_batch(&batch([2]));
    assert_eq!(first.append("3"), Answer::Ok);
    assert_eq!(counters(&agent, ["OpenConnectionCount", "EventAcceptedCount"]), [1, 2]);
    assert!(second.peer.is_quiet());
    drop(first);
    assert_eq!(second.answer(), Answer::Ok);
}

#[test]
fn two_thousand_clients_are_served_at_once() {
    const CLIENTS: usize = 2000;
    let out = directory();
    let (agent, port) = receiver(&format!(
        "a1.channels.c1.capacity = 100000\n{}a1.sinks.k1.sink.serializer = avro_event\n",
        file_roll(out.path())
    ));
    let mut clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port accepts connections");
            stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
            stream.write_all(&first_append(&number.to_string())).expect("the peer reads");
            stream
        })
        .collect();
    let mut expected = None;
    for stream in &mut clients {
        // Serial number, three buffers, and in them the handshake, no metadata, no error, and OK.
        let mut answer = [0; 8 + 4 + 4 + 4 + 1 + 4 + 2];
        stream.read_exact(&mut answer).expect("the peer answers");
        assert_eq!(*expected.get_or_insert(answer), answer);
    }
    assert!(expected.is_some_and(|answer| answer.ends_with(&[0, 0])));
    assert_eq!(counters(&agent, ["OpenConnectionCount", "AppendAcceptedCount"]), [CLIENTS as u64; 2]);
    let kept: BTreeSet<String> =
        wait_for_kept_events(out.path(), CLIENTS).into_iter().map(|event| event.body).collect();
    assert!(kept.into_iter().eq((0..CLIENTS).map(|number| number.to_string()).collect::<BTreeSet<_>>()));
    drop(clients);
    agent.wait_for_counter("SOURCE.r1", "OpenConnectionCount", 0);
}

#[test]
fn what_is_acknowledged_when_the_agent_stops_is_exactly_what_it_has_delivered() {
    let out = directory();
    let (mut agent, port) = receiver(&format!("{}a1.sinks.k1.sink.serializer = avro_event\n", file_roll(out.path())));
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            thread::spawn(move || {
                let mut client = Conversation::with(port);
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    let bodies: Vec<String> = (0..5).map(|event| format!("{sender} {number} {event}")).collect();
                    let greeting = if number == 0 { greeting(AVRO_SOURCE.hash, None) } else { Vec::new() };
                    let request = request(number + 1, &greeting, "appendBatch", &array(&batch(&bodies)));
                    // Its handshake takes four bytes.
                    let mut answer = vec![0; 8 + 4 + 4 + 1 + 4 + 2 + if number == 0 { 4 } else { 0 }];
                    if client.try_send(request).is_err() || client.try_bytes(&mut answer).is_err() {
                        break;
                    }
                    if answer.ends_with(&[0, 0]) {
                        acknowledged.extend(bodies);
                    }
                }
                acknowledged
            })
        })
        .collect();
    wait_for_kept_events(out.path(), 1000);
    assert!(agent.terminate().success());
    let acknowledged: BTreeSet<String> =
        senders.into_iter().flat_map(|sender| sender.join().expect("no sender fails")).collect();
    let kept = kept_events(out.path());
    assert_eq!(kept.len(), acknowledged.len());
    assert_eq!(kept.into_iter().map(|event| event.body).collect::<BTreeSet<_>>(), acknowledged);
}

#[test]
fn a_request_that_waits_for_room_when_the_agent_stops_is_answered() {
    let patient = TEN.replace("keep-alive = 0", "keep-alive = 3600");
    let config = format!("{SOURCE}{MEMORY}{patient}");
    let mut agent = TestAgent::start_with(&config, &["--drain-timeout", "0"]);
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    client.send_batch(&batch(0..10));
    client.send_batch(&batch(10..11));
    client.send_batch(&batch(11..12));
    assert_eq!(client.answer(), Answer::Ok);
    agent.wait_for_counter("SOURCE.r1", "AppendBatchReceivedCount", 2);
    agent.signal(Signal::TERM);
    assert_eq!(client.answer(), Answer::Failed);
    assert_eq!(client.peer.rest(), b"", "what has not been begun is not answered");
    agent.wait();
    assert!(agent.last_line().contains("10 events accepted, 1 refused"), "{}", agent.last_line());
}

/// What a client does after it has sent something wrong.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// It waits.
    Waits,
    /// It goes.
    Closes,
}

/// A frame of so many buffers, of which the first has begun.
fn begun_frame(buffers: u32, first: u32) -> Vec<u8> {
    [1, buffers, first].map(u32::to_be_bytes).concat()
}

/// The first bytes of a TLS client.
const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// A compressed stream that goes wrong.
const BROKEN_ZLIB: &[u8] = b"\x78\x9c\xff\xff\xff\xff\xff\xff";

/// What is wrong, and what an operator is told.
type Fault<'a> = (&'a [u8], &'a str);
/// The configuration of an agent's layers, and what is wrong there.
type Faults<'a> = (fn(&str) -> String, [Fault<'a>; 3]);

/// Sends what is wrong, and finds the connection closed, and an operator told why.
fn expect_fault(agent: &TestAgent, port: u16, bytes: &[u8], then: Then, reason: &str) {
    let before = agent.counter("SOURCE.r1", "EventReadFail");
    let mut bad = Conversation::with(port);
    bad.send(bytes);
    match then {
        Then::Waits => {}
        Then::Closes => bad.end(),
    }
    bad.rest();
    let line = agent.wait_for_line(&format!("from {} ", bad.address()));
    let text = message(&line);
    assert!(text.starts_with("Avro source r1: the connection from 127.0.0.1:"), "{text}");
    assert!(text.contains(reason), "{bytes:?}: {text}");
    agent.wait_for_counter("SOURCE.r1", "EventReadFail", before + 1);
}

#[test]
fn what_is_no_request_ends_its_connection_and_no_other() {
    let (agent, port) = receiver(&format!("{LOGGER}a1.sources.r1.frame-timeout = 1\n"));
    let mut good = AvroClient::with(port);
    let whole = first_append("lost");
    let garbage = request(1, &[], "append", &[]);
    let long_text = "a plain text that is longer than a frame's head\n";
    let cases: [(&[u8], Then, &str); 11] = [
        (&whole[..20], Then::Waits, "too slow: only 20 bytes of a message came in 1s"),
        (&whole[..3], Then::Waits, "too slow: only 3 bytes of a message came in 1s"),
        (&whole[..whole.len() - 1], Then::Closes, "closed in the middle of a message"),
        (&begun_frame(1, 0x7FFF_FFFF), Then::Waits, "a pack of more than 67108864 bytes (a buffer claims 2147483647)"),
        (&begun_frame(0, 0), Then::Waits, "not Avro RPC: a pack without buffers"),
        (&begun_frame(u32::MAX, 0), Then::Waits, "not Avro RPC: a pack of 4294967295 buffers"),
        (&garbage, Then::Waits, "the first message is no Avro handshake"),
        (long_text.as_bytes(), Then::Waits, "what came is not Avro RPC"),
        (TLS_HELLO, Then::Waits, "the other side speaks TLS: is ssl = true missing here?"),
        (BROKEN_ZLIB, Then::Waits, "the other side compresses: is compression-type = deflate missing here?"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Then::Waits, "the other side speaks HTTP"),
    ];
    let count = cases.len();
    for (bytes, then, reason) in cases {
        expect_fault(&agent, port, bytes, then, reason);
        assert_eq!(good.append("good"), Answer::Ok, "{reason}");
    }
    agent.wait_for_counter("SOURCE.r1", "OpenConnectionCount", 1);
    assert_eq!(counters(&agent, ["EventReceivedCount", "EventAcceptedCount"]), [count as u64; 2]);
    assert!(agent.wait_for_events(count).iter().all(|event| event.ends_with("good }")));
}

#[test]
fn what_has_other_layers_ends_its_connection_and_no_other() {
    let plain = first_append("lost");
    let cases: [Faults<'_>; 2] = [
        (
            deflate,
            [
                (&plain, "is compression-type the same at both ends?"),
                (TLS_HELLO, "is compression-type the same at both ends?"),
                (BROKEN_ZLIB, "the compressed stream is broken"),
            ],
        ),
        (
            tls,
            [
                (&plain, "the peer does not speak TLS"),
                (BROKEN_ZLIB, "the peer does not speak TLS"),
                (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "the peer does not speak TLS"),
            ],
        ),
    ];
    for (layer, faults) in cases {
        let (receiver, port) = receiver(&format!("{LOGGER}{}", layer("sources.r1")));
        let sender = TestAgent::start(&format!("{NETCAT}{MEMORY}{}{}", sink(port), layer("sinks.k1")));
        let mut nc = Conversation::with(sender.port());
        assert_eq!(nc.ask("good"), "OK");
        receiver.wait_for_events(1);
        for (count, (bytes, reason)) in faults.into_iter().enumerate() {
            expect_fault(&receiver, port, bytes, Then::Waits, reason);
            assert_eq!(nc.ask("good"), "OK");
            receiver.wait_for_events(count + 2);
        }
        let names = ["ConnectionCreatedCount", "ConnectionClosedCount", "EventWriteFail"];
        assert_eq!(names.map(|name| sender.counter("SINK.k1", name)), [1, 0, 0]);
    }
}

#[test]
fn a_request_that_cannot_be_executed_is_answered_and_the_connection_goes_on() {
    let (agent, port) = receiver(LOGGER);
    let mut client = AvroClient::with(port);
    let whole = array(&batch(["lost"]));
    let mut negative = Vec::new();
    put_long(&mut negative, 1);
    negative.push(0);
    put_long(&mut negative, -5);
    let mut longer_than_all = Vec::new();
    put_long(&mut longer_than_all, i64::MAX);
    longer_than_all.push(0);
    put_bytes(&mut longer_than_all, "lost");
    let long_name = "x".repeat(129);
    let cases: [(&str, &[u8], &str); 8] = [
        ("a\nb", &whole, "org.apache.avro.AvroRuntimeException: No such remote message: a\nb"),
        (&long_name, &whole, "org.apache.avro.AvroRuntimeException: A message name of 129 bytes"),
        ("appendAll", &whole, "org.apache.avro.AvroRuntimeException: No such remote message: appendAll"),
        ("appendBatch", &whole[..whole.len() - 1], "java.io.EOFException"),
        ("appendBatch", &[], "java.io.EOFException"),
        ("append", &[], "java.io.EOFException"),
        ("appendBatch", &negative, "org.apache.avro.AvroRuntimeException: Malformed data"),
        ("appendBatch", &longer_than_all, "java.io.EOFException"),
    ];
    let count = cases.len();
    for (message, parameters, text) in cases {
        client.send(message, parameters);
        let Answer::Error(error) = client.answer() else { panic!("{message} {parameters:?} is no request") };
        assert!(error.starts_with(text), "{error}");
        assert_eq!(client.append("good"), Answer::Ok, "after {text}");
    }
    let prefix = format!("Avro source r1: {} sent a request that cannot be executed: ", client.peer.address());
    let lines = agent.wait_for_lines(&prefix, count);
    assert_eq!(lines.len(), count);
    assert!(lines[0].ends_with(r"No such remote message: a\nb"), "{}", lines[0]);
    let names = ["EventReadFail", "EventReceivedCount", "EventAcceptedCount", "OpenConnectionCount"];
    assert_eq!(counters(&agent, names), [count as u64, count as u64, count as u64, 1]);
    assert!(agent.wait_for_events(count).iter().all(|event| event.ends_with("good }")));
}
