//! The Thrift source and the Thrift sink, seen from their peers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use bytes::{Bytes, BytesMut};
use flume_rs::event::{Batch, Event};
use flume_rs::rpc::thrift::{ExceptionKind, Message, Method, Protocol, Reply, Status};

use crate::support::{
    Conversation, DEADLINE, LOGGER, MEMORY, NETCAT, TestAgent, eventually, free_port, java_peers, message, real_flume,
};

const BOTH: [Protocol; 2] = [Protocol::Binary, Protocol::Compact];

/// A channel of ten events that makes nobody wait.
const TEN: &str =
    "a1.channels.c1.capacity = 10\na1.channels.c1.transactionCapacity = 10\na1.channels.c1.keep-alive = 0\n";

/// A thrift source `r1` on a port of the system's choice, into `c1`.
fn source(protocol: Protocol) -> String {
    format!(
        "a1.sources = r1\na1.sources.r1.type = thrift\na1.sources.r1.bind = localhost\na1.sources.r1.port = 0\n\
         a1.sources.r1.channels = c1\na1.sources.r1.protocol = {protocol}\n"
    )
}

/// A thrift sink `k1` from `c1`.
fn sink(protocol: Protocol, port: u16) -> String {
    format!(
        "a1.sinks = k1\na1.sinks.k1.type = thrift\na1.sinks.k1.channel = c1\na1.sinks.k1.hostname = localhost\n\
         a1.sinks.k1.port = {port}\na1.sinks.k1.protocol = {protocol}\n"
    )
}

/// The keys of a source, or of a sink, that has TLS.
fn tls(component: &str) -> String {
    let (store, file) = if component.starts_with("sources") { ("keystore", "rsa") } else { ("truststore", "trust") };
    let file = format!("{}/tests/tls/{file}.jks", env!("CARGO_MANIFEST_DIR"));
    format!("a1.{component}.ssl = true\na1.{component}.{store} = {file}\na1.{component}.{store}-password = changeit\n")
}

/// An agent with a thrift source, and its port.
fn receiver(protocol: Protocol, rest: &str) -> (TestAgent, u16) {
    let agent = TestAgent::start(&format!("{}{MEMORY}{rest}", source(protocol)));
    let port = agent.port_after("Thrift source r1 listens on");
    (agent, port)
}

/// An agent from netcat to a thrift sink.
fn sender(protocol: Protocol, port: u16, more: &str) -> TestAgent {
    TestAgent::start(&format!("{NETCAT}{MEMORY}{}{more}", sink(protocol, port)))
}

fn recorded(protocol: Protocol, direction: &str) -> Vec<u8> {
    let path = format!("{}/tests/vectors/thrift-{protocol}.{direction}.bin", env!("CARGO_MANIFEST_DIR"));
    fs::read(path).expect("the vectors are there")
}

/// The bodies are the numbers from `first` on.
fn batch(first: usize, events: usize) -> Batch {
    (first..first + events).map(|number| Event::new(number.to_string())).collect()
}

fn request(protocol: Protocol, sequence: i32, batch: &Batch) -> Vec<u8> {
    let mut out = BytesMut::new();
    protocol.write_request(&mut out, sequence, Method::AppendBatch, batch);
    out.to_vec()
}

/// The next message of a connection.
fn next_message(protocol: Protocol, peer: &mut Conversation) -> Message {
    let length = u32::from_be_bytes(peer.bytes(4).try_into().expect("four bytes"));
    Message::read(protocol, peer.bytes(length as usize).into()).expect("a message")
}

/// The next answer, which is to request `sequence`.
fn answer(protocol: Protocol, peer: &mut Conversation, sequence: i32) -> Reply {
    let message = next_message(protocol, peer);
    assert_eq!(message.sequence, sequence);
    message.reply().expect("a reply")
}

const OK: Reply = Reply::Status(Status::Ok);
const FAILED: Reply = Reply::Status(Status::Failed);

#[test]
fn the_recorded_client_gets_the_recorded_answers() {
    for protocol in BOTH {
        let (mut agent, port) = receiver(protocol, &format!("{TEN}{LOGGER}"));
        let mut client = Conversation::with(port);
        client.send(recorded(protocol, "c2s"));
        let answers = recorded(protocol, "s2c");
        assert_eq!(client.bytes(answers.len()), answers);
        let open = agent.counter("SOURCE.r1", "OpenConnectionCount");
        assert_eq!(client.finish(), "");
        assert_eq!(
            agent.wait_for_events(4),
            [
                "Event: { headers:{host=web1} body: 68 65 6C 6C 6F                                  hello }",
                "Event: { headers:{host=web1} body: 65 30                                           e0 }",
                "Event: { headers:{} body: 65 31                                           e1 }",
                "Event: { headers:{host=web1} body: }",
            ]
        );
        agent.wait_for_counter("SOURCE.r1", "OpenConnectionCount", 0);
        let counters = [
            "AppendReceivedCount",
            "AppendAcceptedCount",
            "AppendBatchReceivedCount",
            "AppendBatchAcceptedCount",
            "EventReceivedCount",
            "EventAcceptedCount",
            "ChannelWriteFail",
            "EventReadFail",
        ];
        let counters = counters.map(|counter| agent.counter("SOURCE.r1", counter));
        assert_eq!((open, counters), (1, [1, 1, 2, 1, 24, 4, 1, 0]));
        let log = agent.log();
        for line in ["Starting thrift source", &format!("Using {}", protocol.class()), "Started Thrift source."] {
            assert!(log.contains(line), "{line}");
        }
        assert!(log.contains("Thrift source r1 could not append events to the channel."));
        assert!(agent.terminate().success());
    }
}

#[test]
fn a_request_in_pieces_is_a_request() {
    let protocol = Protocol::Compact;
    let (_agent, port) = receiver(protocol, &format!("{TEN}{LOGGER}"));
    let mut client = Conversation::with(port);
    for byte in recorded(protocol, "c2s") {
        client.send([byte]);
    }
    let answers = recorded(protocol, "s2c");
    assert_eq!(client.bytes(answers.len()), answers);
}

#[test]
fn two_agents_in_a_chain_deliver_everything_in_order() {
    for protocol in BOTH {
        let (mut receiver, port) = receiver(protocol, LOGGER);
        let header = "a1.sources.r1.interceptors = i1\na1.sources.r1.interceptors.i1.type = static\n\
                      a1.sources.r1.interceptors.i1.key = ort\na1.sources.r1.interceptors.i1.value = Straße 中\n";
        let mut sender = sender(protocol, port, &format!("a1.sinks.k1.batch-size = 30\n{header}"));
        let mut nc = Conversation::with(sender.port());
        let lines: String = (1000..1250).map(|number| format!("{number}\n")).collect();
        nc.send(lines);
        assert_eq!(nc.lines(250), vec!["OK"; 250]);
        let events = receiver.wait_for_events(250);
        for (event, number) in events.iter().zip(1000..) {
            let (front, back) = ("Event: { headers:{ort=Straße 中} body: ", format!(" {number} }}"));
            assert!(event.starts_with(front) && event.ends_with(&back), "{number}: {event}");
        }
        assert!(sender.terminate().success());
        assert!(sender.last_line().ends_with("250 events accepted, 0 refused, 250 delivered, 0 lost"));
        for line in [
            format!("Rpc sink k1: Building RpcClient with hostname: localhost, port: {port}"),
            format!("Starting RpcSink k1 {{ host: localhost, port: {port} }}..."),
            "Connection reset is set to 0. Will not reset connection to next hop".to_owned(),
            "Rpc sink k1 started.".to_owned(),
            "Rpc sink k1 stopping...".to_owned(),
            "Shutdown Metric for type: SINK, name: k1. sink.connection.creation.count == 1".to_owned(),
            "Shutdown Metric for type: SINK, name: k1. sink.connection.closed.count == 1".to_owned(),
        ] {
            assert_eq!(sender.messages(&line).len(), 1, "{line}");
        }
        assert_eq!(receiver.counter("SOURCE.r1", "EventReadFail"), 0, "the sink says goodbye");
        assert!(receiver.terminate().success());
    }
}

#[test]
fn tls_secures_both_sides_and_a_client_without_it_is_told_apart() {
    let (receiver, port) = receiver(Protocol::Compact, &format!("{LOGGER}{}", tls("sources.r1")));
    let mut sender_with = sender(Protocol::Compact, port, &tls("sinks.k1"));
    let mut nc = Conversation::with(sender_with.port());
    nc.send("one\ntwo\n");
    assert_eq!(nc.lines(2), ["OK", "OK"]);
    let events = receiver.wait_for_events(2);
    assert!(events[0].ends_with("one }") && events[1].ends_with("two }"), "{events:?}");
    assert!(sender_with.terminate().success());
    receiver.wait_for_counter("SOURCE.r1", "OpenConnectionCount", 0);
    assert_eq!(receiver.counter("SOURCE.r1", "EventReadFail"), 0, "the sink says goodbye");

    let without = sender(Protocol::Compact, port, "");
    assert_eq!(Conversation::with(without.port()).ask("lost?"), "OK");
    without.wait_for_line("Failed to send events");
    let line = receiver.wait_for_line("the peer does not speak TLS");
    assert!(message(&line).starts_with("Source r1: client 127.0.0.1:"), "{line}");
    assert_eq!(without.counter("CHANNEL.c1", "ChannelSize"), 1);
    assert_eq!(receiver.counter("SOURCE.r1", "OpenConnectionCount"), 0);
}

#[test]
fn a_full_channel_fails_a_request_and_spares_the_next_one_that_fits() {
    let protocol = Protocol::Binary;
    let (agent, port) = receiver(protocol, TEN);
    let mut client = Conversation::with(port);
    client.send([request(protocol, 1, &batch(0, 6)), request(protocol, 2, &batch(6, 6))].concat());
    client.send(request(protocol, 3, &batch(6, 4)));
    // What has no events needs no room.
    client.send(request(protocol, 4, &Batch::new()));
    let answers = [1, 2, 3, 4].map(|sequence| answer(protocol, &mut client, sequence));
    assert_eq!(answers, [OK, FAILED, OK, OK]);
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 10);
    assert_eq!(agent.counter("SOURCE.r1", "EventRefusedCount"), 6);
}

#[test]
fn an_answer_does_not_wait_for_the_next_requests_room() {
    let protocol = Protocol::Compact;
    let patient = TEN.replace("keep-alive = 0", "keep-alive = 3600");
    let config = format!("{}{MEMORY}{patient}", source(protocol));
    let mut agent = TestAgent::start_with(&config, &["--drain-timeout", "0"]);
    let port = agent.port_after("Thrift source r1 listens on");
    let mut client = Conversation::with(port);
    client.send([request(protocol, 1, &batch(0, 10)), request(protocol, 2, &batch(10, 1))].concat());
    assert_eq!(answer(protocol, &mut client, 1), OK);
    // At the stop what waits is refused, and its client hears so.
    agent.terminate();
    assert_eq!(answer(protocol, &mut client, 2), FAILED);
    client.expect_eof();
}

#[test]
fn what_is_no_request_ends_its_connection_and_no_other() {
    for protocol in BOTH {
        let (agent, port) = receiver(
            protocol,
            &format!("{LOGGER}a1.sources.r1.max-frame-bytes = 1000\na1.sources.r1.frame-timeout = 1\n"),
        );
        let mut good = Conversation::with(port);
        let whole = request(protocol, 1, &batch(0, 3));
        let cases = [
            (whole[4..].to_vec(), "the client speaks Thrift without frames"),
            (request(protocol, 1, &batch(0, 500)), "where 1000 are allowed"),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "the client sent the text \"GET \""),
            (b"\x16\x03\x01\x02\x00\x01".to_vec(), "the client speaks TLS; set ssl = true"),
            (b"\0\0\0\x05hello".to_vec(), "no message of the"),
            (b"\0\0\0\0".to_vec(), "the frame ends within a value"),
        ];
        for (number, (bytes, reason)) in cases.into_iter().enumerate() {
            let mut bad = Conversation::with(port);
            bad.send(bytes);
            bad.expect_eof();
            let line = agent.wait_for_line(reason);
            assert!(message(&line).starts_with("Source r1: client 127.0.0.1:"), "{line}");
            assert!(line.contains("is disconnected"), "{line}");
            good.send(request(protocol, number as i32, &batch(number, 1)));
            assert_eq!(answer(protocol, &mut good, number as i32), OK);
            assert_eq!(agent.counter("SOURCE.r1", "EventReadFail"), number as u64 + 1);
        }
        // A client that stops within a request.
        let mut slow = Conversation::with(port);
        slow.send(&whole[..7]);
        slow.expect_eof();
        agent.wait_for_line("is disconnected: too slow: only 7 bytes of a message came in 1s");
        // A client that dies within a request: nothing of it arrives.
        let mut dying = Conversation::with(port);
        dying.send(&whole[..whole.len() - 3]);
        assert_eq!(dying.finish(), "");
        agent.wait_for_line("closed in the middle of a message");
        assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 6);
    }
}

#[test]
fn clients_of_either_protocol_are_understood() {
    for protocol in BOTH {
        let (agent, port) = receiver(protocol, LOGGER);
        for client in BOTH {
            let mut peer = Conversation::with(port);
            peer.send(request(client, 1, &batch(0, 1)));
            assert_eq!(answer(client, &mut peer, 1), OK, "{client} to {protocol}");
        }
        agent.wait_for_events(2);
    }
}

#[test]
fn a_well_formed_request_that_cannot_be_done_gets_an_exception_and_the_connection_goes_on() {
    let protocol = Protocol::Binary;
    let (agent, port) = receiver(protocol, LOGGER);
    let mut client = Conversation::with(port);
    let good = request(protocol, 1, &Batch::from_iter([Event::new("hello").with("key", "value")]));
    let replaced = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|window| window == from).expect("it is in there");
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    for (bytes, kind, text) in [
        (replaced(b"appendBatch", b"appendOther"), ExceptionKind::UnknownMethod, "Invalid method name: 'appendOther'"),
        (
            // The body's field gets another number.
            replaced(b"value\x0b\0\x02", b"value\x0b\0\x03"),
            ExceptionKind::ProtocolError,
            "Required field 'body' was not present! Struct: ThriftFlumeEvent",
        ),
    ] {
        client.send(bytes);
        let Reply::Exception(exception) = answer(protocol, &mut client, 1) else { panic!("no exception: {text}") };
        assert_eq!((exception.kind, &exception.message[..]), (kind, text));
        agent.wait_for_line(text);
    }
    client.send(&good);
    assert_eq!(answer(protocol, &mut client, 1), OK);
    // A length that cannot be ends the connection, with an answer.
    client.send(replaced(b"\0\0\0\x05hello", b"\x7f\xff\xff\xffhello"));
    assert!(matches!(answer(protocol, &mut client, 1), Reply::Exception(_)));
    client.expect_eof();
    assert_eq!(agent.counter("SOURCE.r1", "EventReadFail"), 3);
    assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 1);
}

/// The other end of a sink, step by step.
struct Server {
    protocol: Protocol,
    listener: TcpListener,
}

impl Server {
    fn new(protocol: Protocol) -> Self {
        Self { protocol, listener: TcpListener::bind("127.0.0.1:0").expect("a port is free") }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("it is bound").port()
    }

    fn accept(&self) -> Conversation {
        self.listener.set_nonblocking(true).expect("the option can be set");
        let accepted = eventually(|| self.listener.accept().ok()).expect("the sink connects");
        accepted.0.set_nonblocking(false).expect("the option can be set");
        Conversation::over(accepted.0)
    }

    /// Reads a request and gives its events' bodies.
    fn request(&self, client: &mut Conversation) -> (Message, Vec<Bytes>) {
        let request = next_message(self.protocol, client);
        assert_eq!(request.name, "appendBatch");
        let batch = request.events(Method::AppendBatch).expect("events");
        let bodies = batch.iter().map(|event| event.body_bytes()).collect();
        (request, bodies)
    }

    fn reply(&self, client: &mut Conversation, to: &Message, reply: &Reply) {
        let mut out = BytesMut::new();
        self.protocol.write_reply(&mut out, &to.name, to.sequence, reply);
        client.send(&out);
    }
}

/// A batch whose first server does something else than take it comes again, whole, on a new connection.
fn comes_again_after(misbehaviour: impl FnOnce(&Server, Conversation), complaint: &str) {
    let server = Server::new(Protocol::Compact);
    let agent = sender(Protocol::Compact, server.port(), "a1.sinks.k1.request-timeout = 1000\n");
    let first = server.accept();
    let mut nc = Conversation::with(agent.port());
    nc.send("one\ntwo\n");
    assert_eq!(nc.lines(2), ["OK", "OK"]);
    misbehaviour(&server, first);
    let line = agent.wait_for_line("Failed to send events");
    assert!(line.contains("Sink k1: Failed to send events: ") && line.contains(complaint), "{line}");
    let mut second = server.accept();
    let (request, bodies) = server.request(&mut second);
    assert_eq!(bodies, ["one", "two"]);
    assert_eq!(agent.counter("SINK.k1", "EventDrainSuccessCount"), 0);
    server.reply(&mut second, &request, &OK);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 2);
    let counters = ["EventWriteFail", "ConnectionCreatedCount", "ConnectionClosedCount", "ConnectionFailedCount"];
    assert_eq!(counters.map(|counter| agent.counter("SINK.k1", counter)), [1, 2, 1, 0]);
}

#[test]
fn a_batch_comes_again_after_a_server_that_is_killed_within_it() {
    // What is unread makes it a reset.
    comes_again_after(|_, mut client| drop(client.bytes(10)), "");
}

#[test]
fn a_batch_comes_again_after_a_server_that_fails() {
    let failing = |server: &Server, mut client: Conversation| {
        let (request, _) = server.request(&mut client);
        server.reply(&mut client, &request, &FAILED);
        client.expect_eof();
    };
    comes_again_after(failing, "Failed to deliver events. Server returned status : FAILED");
}

#[test]
fn a_batch_comes_again_after_a_server_that_closes_instead_of_answering() {
    let closing = |server: &Server, mut client: Conversation| drop(server.request(&mut client));
    comes_again_after(closing, "the server closed the connection without an answer");
}

#[test]
fn a_batch_comes_again_after_a_server_that_is_silent() {
    let silent = |server: &Server, mut client: Conversation| {
        server.request(&mut client);
        client.expect_eof();
    };
    comes_again_after(silent, "timed out after 1000 ms");
}

#[test]
fn a_connection_that_the_server_closed_in_the_meantime_costs_no_attempt() {
    let server = Server::new(Protocol::Binary);
    let agent = sender(Protocol::Binary, server.port(), "");
    let mut nc = Conversation::with(agent.port());
    for line in ["one", "two"] {
        assert_eq!(nc.ask(line), "OK");
        let mut client = server.accept();
        let (request, bodies) = server.request(&mut client);
        assert_eq!((request.sequence, bodies), (1, vec![Bytes::from(line)]));
        server.reply(&mut client, &request, &OK);
        agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    }
    assert_eq!(agent.counter("SINK.k1", "EventWriteFail"), 0);
}

#[test]
fn a_server_that_comes_late_only_delays() {
    let port = free_port();
    let agent = sender(Protocol::Compact, port, "");
    let warning = agent.wait_for_line("Unable to create Rpc client using hostname: localhost, port: ");
    assert!(warning.contains("WARN") && warning.contains("RPC connection error: Connection refused"), "{warning}");
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("hello"), "OK");
    agent.wait_for_line("Failed to send events: ThriftRpcClient { host: localhost, port: ");
    let config =
        format!("{}{MEMORY}{LOGGER}", source(Protocol::Compact)).replace("port = 0", &format!("port = {port}"));
    let receiver = TestAgent::start(&config);
    assert!(receiver.wait_for_events(1)[0].ends_with("hello }"));
    assert!(agent.counter("SINK.k1", "ConnectionFailedCount") >= 2);
}

#[test]
fn a_connection_is_reset_after_its_interval() {
    let (_receiver, port) = receiver(Protocol::Compact, LOGGER);
    let agent = sender(Protocol::Compact, port, "a1.sinks.k1.reset-connection-interval = 1\n");
    agent.wait_for_line("Component type: SINK, name: k1 started");
    let mut nc = Conversation::with(agent.port());
    let reset = eventually(|| {
        assert_eq!(nc.ask("again"), "OK");
        (agent.counter("SINK.k1", "ConnectionCreatedCount") >= 2).then_some(())
    });
    assert!(reset.is_some());
    assert_eq!(agent.counter("SINK.k1", "EventWriteFail"), 0);
    assert_eq!(agent.messages("Connection reset is set to 0").len(), 0);
}

#[test]
fn wrong_keys_are_named_and_those_that_flume_forgives_are_forgiven() {
    let config = format!(
        "{}{MEMORY}{}a1.sources.r1.threads = many\na1.sinks.k1.batch-size = 0\na1.sinks.k1.request-timeout = 10\n",
        source(Protocol::Compact).replace("= compact", "= Binary"),
        sink(Protocol::Compact, 1).replace("= compact", "= json"),
    );
    let agent = TestAgent::start(&config);
    agent.wait_for_line("Using TBinaryProtocol");
    for line in [
        "Thrift source's \"threads\" property must specify an integer value: many",
        "Invalid value for batchSize: 0; Using default value.",
        "Request timeout specified less than 1s. Using default value instead.",
        "'binary' or 'compact' are the only valid Thrift protocol types to choose from. Defaulting to 'compact'.",
    ] {
        agent.wait_for_line(line);
    }
    let refused = config.replace("= Binary", "= json") + "a1.sources.r1.kerberos = true\na1.sinks.k1.kerberos = true\n";
    let agent = TestAgent::start(&refused);
    agent.wait_for_line("Source r1 has been removed due to an error during configuration");
    agent.wait_for_line("binary or compact are the only valid Thrift protocol types to choose from.");
    assert_eq!(agent.wait_for_lines("expected false, as Kerberos is not in this version", 2).len(), 2);
}

/// What a server answers to an unknown method.
fn to_an_unknown_method(protocol: Protocol, port: u16) -> Vec<u8> {
    let known = request(protocol, 5, &batch(0, 1));
    let at = known.windows(6).position(|window| window == b"append").expect("the name is in there");
    let mut unknown = known;
    unknown[at..at + 6].copy_from_slice(b"upend_");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port accepts connections");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    stream.write_all(&unknown).expect("the peer reads");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("the peer answers");
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("the peer answers");
    answer
}

#[test]
fn events_pass_to_the_real_flume_and_back() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let hops = [(Protocol::Binary, false), (Protocol::Compact, false), (Protocol::Compact, true)];
    let secured = |component: &str, with_tls: bool| if with_tls { tls(component) } else { String::new() };
    let receivers =
        hops.map(|(protocol, with_tls)| receiver(protocol, &format!("{LOGGER}{}", secured("sources.r1", with_tls))));
    let flume_ports = [(); 3].map(|()| free_port());
    let mut config = "a1.sources = n0 n1 n2 t0 t1 t2\na1.channels = c0 c1 c2 c\na1.sinks = k0 k1 k2 k\n".to_owned();
    for (i, (protocol, with_tls)) in hops.into_iter().enumerate() {
        let ((_, to), from) = (&receivers[i], flume_ports[i]);
        config += &format!(
            "a1.sources.n{i}.type = netcat\na1.sources.n{i}.bind = localhost\na1.sources.n{i}.port = 0\n\
             a1.sources.n{i}.channels = c{i}\na1.channels.c{i}.type = memory\n\
             a1.sources.n{i}.interceptors = i1\na1.sources.n{i}.interceptors.i1.type = static\n\
             a1.sources.n{i}.interceptors.i1.key = ort\na1.sources.n{i}.interceptors.i1.value = Stra\\u00dfe \\u4e2d\n\
             a1.sinks.k{i}.type = thrift\na1.sinks.k{i}.channel = c{i}\na1.sinks.k{i}.hostname = localhost\n\
             a1.sinks.k{i}.port = {to}\na1.sinks.k{i}.protocol = {protocol}\n\
             a1.sources.t{i}.type = thrift\na1.sources.t{i}.bind = localhost\na1.sources.t{i}.port = {from}\n\
             a1.sources.t{i}.channels = c\na1.sources.t{i}.protocol = {protocol}\n"
        );
        config += &secured(&format!("sinks.k{i}"), with_tls);
        config += &secured(&format!("sources.t{i}"), with_tls);
    }
    config += "a1.channels.c.type = memory\na1.sinks.k.type = logger\na1.sinks.k.channel = c\n";
    let flume = real_flume("1.11.0").config(&config);

    // From Flume's sinks to our sources.
    for port in flume.ports(hops.len()) {
        let mut nc = Conversation::with(port);
        nc.send("hello\n\n");
        assert_eq!(nc.lines(2), ["OK", "OK"]);
    }
    let hello = "Event: { headers:{ort=Straße 中} body: 68 65 6C 6C 6F                                  hello }";
    for (receiver, _) in &receivers {
        assert_eq!(receiver.wait_for_events(2), [hello, "Event: { headers:{ort=Straße 中} body: }"]);
    }

    // From our sinks to Flume's sources.
    flume.wait_for_lines("Started Thrift source.", hops.len());
    for ((protocol, with_tls), port) in hops.into_iter().zip(flume_ports) {
        let header = format!(
            "a1.sources.r1.interceptors = i1\na1.sources.r1.interceptors.i1.type = static\n\
             a1.sources.r1.interceptors.i1.key = ort\na1.sources.r1.interceptors.i1.value = Straße {port}\n"
        );
        let sender = sender(protocol, port, &format!("{header}{}", secured("sinks.k1", with_tls)));
        let mut nc = Conversation::with(sender.port());
        nc.send("back again\n\n");
        assert_eq!(nc.lines(2), ["OK", "OK"]);
        sender.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 2);
        let seen = flume.wait_for_lines(&format!("headers:{{ort=Straße {port}}}"), 2);
        assert!(seen[0].ends_with("back again }") && seen[1].ends_with("body: }"), "{seen:?}");
    }

    for (((protocol, with_tls), port), (_, our_port)) in hops.into_iter().zip(flume_ports).zip(&receivers) {
        if !with_tls {
            let (ours, theirs) = (to_an_unknown_method(protocol, *our_port), to_an_unknown_method(protocol, port));
            assert_eq!(ours, theirs, "ours, then Flume's");
        }
    }
}
