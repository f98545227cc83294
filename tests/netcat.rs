//! The netcat source, seen from its clients.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::support::{
    Conversation, LOGGER, MEMORY, NETCAT, NULL, TestAgent, counter, eventually, message, peer, shape,
};

/// `hello` and a carriage return as Flume's logger sink prints them, 31 blanks between bytes and text.
const HELLO: &str = "Event: { headers:{} body: 68 65 6C 6C 6F 0D                               hello. }";
const WORLD: &str = "Event: { headers:{} body: 77 6F 72 6C 64                                  world }";
const TOO_LONG: &str = "FAILED: Event exceeds the maximum length (512 chars, including newline)";
const FULL: &str = "FAILED: Space for commit to queue couldn't be acquired. Sinks are likely not keeping up with sources, or \
                    the buffer size is too tight";
/// A channel of five events that makes nobody wait.
const FIVE: &str =
    "a1.channels.c1.capacity = 5\na1.channels.c1.transactionCapacity = 5\na1.channels.c1.keep-alive = 0\n";

fn logging_agent(more: &str) -> TestAgent {
    TestAgent::start(&format!("{NETCAT}{MEMORY}{LOGGER}{more}"))
}

/// What the logger sink prints as the body's bytes, without the text beside them.
fn bodies(agent: &TestAgent, count: usize) -> Vec<String> {
    let cells = |event: &String| {
        let dump = event.split_once("body:").expect("an event has a body").1;
        dump.get(..49).unwrap_or("").trim().to_owned()
    };
    agent.wait_for_events(count).iter().map(cells).collect()
}

#[test]
fn lines_reach_the_logger_as_flume_prints_them() {
    let agent = logging_agent("");
    let mut nc = Conversation::with(agent.port());
    nc.send("hello\r\nworld\n");
    assert_eq!(nc.lines(2), ["OK", "OK"]);
    assert_eq!(agent.wait_for_events(2), [HELLO, WORLD]);

    let line = agent.wait_for_line("0D   ");
    let (front, event) = line.split_at(line.find("Event: ").expect("it is an event"));
    assert_eq!(
        shape(front),
        "9999-99-99 99:99:99,999 (SinkRunner-PollingRunner-DefaultSinkProcessor) \
         [INFO - org.apache.flume.sink.LoggerSink.process(LoggerSink.java:99)] "
    );
    assert!(front.contains("(LoggerSink.java:95)"), "{front}");
    assert_eq!(event, HELLO);
    let created = message(&agent.wait_for_line("Created serverSocket:")).to_owned();
    assert_eq!(
        created,
        format!("Created serverSocket:sun.nio.ch.ServerSocketChannelImpl[/127.0.0.1:{}]", agent.port())
    );
}

#[test]
fn the_real_nc_gets_an_answer_to_each_line() {
    if !peer("nc") {
        return;
    }
    let agent = logging_agent("");
    let mut nc = Command::new("nc")
        .args(["localhost", &agent.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nc starts");
    let mut input = nc.stdin.take().expect("the input is piped");
    let mut output = BufReader::new(nc.stdout.take().expect("the output is piped"));
    input.write_all(b"hello\r\nworld\n").expect("nc reads");
    let mut answers = String::new();
    for _ in 0..2 {
        output.read_line(&mut answers).expect("nc prints");
    }
    assert_eq!(answers, "OK\nOK\n");
    assert_eq!(agent.wait_for_events(2), [HELLO, WORLD]);
    nc.kill().expect("nc still runs");
    nc.wait().expect("nc ends");
}

#[test]
fn a_line_in_pieces_and_an_empty_line_are_events_and_a_line_without_end_is_not() {
    let agent = logging_agent("");
    let mut nc = Conversation::with(agent.port());
    nc.send("ab\u{e9}".as_bytes().split_at(3).0);
    assert_eq!(Conversation::with(agent.port()).ask("other"), "OK");
    nc.send(["\u{e9}".as_bytes()[1], b'\n', b'\n']);
    assert_eq!(nc.lines(2), ["OK", "OK"]);
    nc.send("no end");
    assert_eq!(nc.finish(), "");
    agent.wait_for_line("6 bytes after the last line feed");
    assert_eq!(bodies(&agent, 3), ["6F 74 68 65 72", "61 62 C3 A9", ""]);
    assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 3);
    assert!(agent.events().contains(&"Event: { headers:{} body: }".to_owned()));
}

#[test]
fn without_acknowledgements_there_is_no_answer_to_what_is_accepted() {
    let agent = logging_agent("a1.sources.r1.ack-every-event = false\n");
    let mut nc = Conversation::with(agent.port());
    nc.send("hello\r\nworld\n");
    assert_eq!(agent.wait_for_events(2), [HELLO, WORLD]);
    assert_eq!(nc.finish(), "");
    // A line that is too long is still answered, as in Flume.
    let mut nc = Conversation::with(agent.port());
    nc.send(format!("{}\n", "x".repeat(512)));
    assert_eq!(nc.line(), TOO_LONG);
    nc.expect_eof();
}

#[test]
fn a_line_of_512_characters_is_refused_and_what_came_before_it_keeps_its_ok() {
    let agent = logging_agent("");
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("x".repeat(510)), "OK");
    assert_eq!(nc.ask("x".repeat(511)), "OK");
    nc.send(format!("a\nb\n{}\nlost\n", "x".repeat(512)));
    assert_eq!(nc.lines(3), ["OK", "OK", TOO_LONG]);
    nc.expect_eof();
    // The other lines of the packet are gone with the connection; a new one works.
    assert_eq!(Conversation::with(agent.port()).ask("z"), "OK");
    assert_eq!(bodies(&agent, 5)[2..], ["61", "62", "7A"]);
    assert!(agent.log().contains("Client sent event exceeding the maximum length"));
    let metrics = agent.metrics();
    assert_eq!(counter(&metrics, "SOURCE.r1", "EventAcceptedCount"), 5);
    assert_eq!(counter(&metrics, "SOURCE.r1", "EventRefusedCount"), 1);
}

#[test]
fn an_over_long_line_is_refused_before_its_end_has_come() {
    let agent = logging_agent("");
    for packets in [vec!["x".repeat(512)], vec!["x".repeat(600)], vec!["x".repeat(300), "y".repeat(300)]] {
        let mut nc = Conversation::with(agent.port());
        for packet in &packets {
            nc.send(packet);
        }
        assert_eq!(nc.line(), TOO_LONG);
        nc.expect_eof();
    }
    let mut nc = Conversation::with(agent.port());
    nc.send("x".repeat(511));
    assert_eq!(Conversation::with(agent.port()).ask("other"), "OK");
    nc.send("\n");
    assert_eq!(nc.line(), "OK");
}

#[test]
fn the_maximum_counts_characters_as_java_does() {
    let agent = logging_agent("a1.sources.r1.max-line-length = 10\n");
    let refused = "FAILED: Event exceeds the maximum length (10 chars, including newline)";
    for (line, answer) in [
        ("é".repeat(9), "OK"),
        ("é".repeat(10), refused),
        // A character beyond U+FFFF is two.
        ("😀".repeat(4) + "a", "OK"),
        ("😀".repeat(5), refused),
        ("\u{20ac}".repeat(9), "OK"),
    ] {
        let mut nc = Conversation::with(agent.port());
        assert_eq!(nc.ask(&line), answer, "{line}");
    }
    let mut nc = Conversation::with(agent.port());
    nc.send("1\n1234567😀\n");
    assert_eq!(nc.lines(2), ["OK", "OK"]);
}

#[test]
fn invalid_utf_8_fails_its_line_and_no_other() {
    let agent = logging_agent("");
    let mut nc = Conversation::with(agent.port());
    nc.send(b"ok1\n\xff\xfe\nok2\nab\xc3\n\xed\xa0\x80\n\xc0\x80\nok3\n");
    let answers = nc.lines(7);
    let failed: Vec<bool> = answers.iter().map(|answer| answer.starts_with("FAILED: ")).collect();
    assert_eq!(failed, [false, true, false, true, true, true, false], "{answers:?}");
    assert!(answers[1].contains("0xFF at offset 0"), "{answers:?}");
    assert_eq!(nc.ask("ok4"), "OK", "the connection goes on");
    assert_eq!(bodies(&agent, 4), ["6F 6B 31", "6F 6B 32", "6F 6B 33", "6F 6B 34"]);
    let metrics = agent.metrics();
    assert_eq!(counter(&metrics, "SOURCE.r1", "EventAcceptedCount"), 4);
    assert_eq!(counter(&metrics, "SOURCE.r1", "EventRefusedCount"), 4);
}

#[test]
fn latin_1_becomes_utf_8() {
    let agent = logging_agent("a1.sources.r1.encoding = ISO-8859-1\n");
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask(b"caf\xe9"), "OK");
    assert_eq!(bodies(&agent, 1), ["63 61 66 C3 A9"]);
    // The limit is in characters, whatever they become.
    assert_eq!(nc.ask([0xe9; 511]), "OK");
    assert_eq!(nc.ask([0xe9; 512]), TOO_LONG);
}

#[test]
fn latin_1_is_counted_in_characters_when_a_line_comes_in_pieces() {
    let agent = logging_agent("a1.sources.r1.encoding = ISO-8859-1\n");
    // Each of these bytes is one character, whatever it would be in UTF-8.
    for byte in [0x85, 0xe9, 0xff] {
        let mut nc = Conversation::with(agent.port());
        for (length, answer) in [(511, "OK"), (512, TOO_LONG)] {
            nc.send(vec![byte; length]);
            assert_eq!(Conversation::with(agent.port()).ask("meanwhile"), "OK");
            nc.send("\n");
            assert_eq!(nc.line(), answer, "{length} bytes 0x{byte:02X}");
        }
    }
}

#[test]
fn a_full_channel_refuses_in_flumes_words_and_the_connection_stays() {
    let agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{FIVE}"));
    let mut nc = Conversation::with(agent.port());
    nc.send("1\n2\n3\n4\n5\n6\n7\n8\n");
    assert_eq!(nc.lines(8), ["OK", "OK", "OK", "OK", "OK", FULL, FULL, FULL]);
    assert_eq!(nc.ask("9"), FULL);
    let metrics = agent.metrics();
    assert_eq!(counter(&metrics, "SOURCE.r1", "EventReceivedCount"), 9);
    assert_eq!(counter(&metrics, "SOURCE.r1", "EventAcceptedCount"), 5);
    assert_eq!(counter(&metrics, "SOURCE.r1", "EventRefusedCount"), 4);
    assert_eq!(counter(&metrics, "CHANNEL.c1", "ChannelSize"), 5);
    assert_eq!(counter(&metrics, "CHANNEL.c1", "EventPutSuccessCount"), 5);
    assert_eq!(metrics["CHANNEL.c1"]["ChannelFillPercentage"], "100.0");
}

/// As in Flume, where eight lines into a channel of five are eight attempts.
#[test]
fn an_event_is_one_attempt_to_put() {
    let agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{FIVE}"));
    let mut nc = Conversation::with(agent.port());
    nc.send("1\n2\n3\n4\n5\n6\n7\n8\n");
    nc.lines(8);
    assert_eq!(agent.counter("CHANNEL.c1", "EventPutAttemptCount"), 8);
    assert_eq!(agent.counter("CHANNEL.c1", "EventPutSuccessCount"), 5);
}

#[test]
fn a_full_channel_delays_the_answer_by_its_keep_alive() {
    let five = FIVE.replace("keep-alive = 0", "keep-alive = 1");
    let agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{five}"));
    let mut nc = Conversation::with(agent.port());
    nc.send("1\n2\n3\n4\n5\n6\n");
    assert_eq!(nc.lines(6), ["OK", "OK", "OK", "OK", "OK", FULL]);
}

#[test]
fn without_acknowledgements_refusals_are_still_told() {
    let agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{FIVE}a1.sources.r1.ack-every-event = false\n"));
    let mut nc = Conversation::with(agent.port());
    nc.send("1\n2\n3\n4\n5\n6\n");
    assert_eq!(nc.line(), FULL);
    assert_eq!(nc.finish(), "");
}

#[test]
fn a_packet_of_more_lines_than_a_transaction_takes_is_delivered() {
    let more = "a1.channels.c1.transactionCapacity = 7\na1.sinks.k1.batchSize = 7\n";
    let agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{NULL}{more}"));
    let mut nc = Conversation::with(agent.port());
    nc.send("x\n".repeat(1000));
    assert_eq!(nc.lines(1000), vec!["OK"; 1000]);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 1000);
}

#[test]
fn a_client_that_never_ends_its_line_is_put_out_and_hurts_nobody() {
    let agent = logging_agent("");
    let port = agent.port();
    let put_out = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut endless = Conversation::with(port);
            let piece = [b'x'; 4096];
            let ended = eventually(|| endless.try_send(piece).err());
            put_out.store(ended.is_some(), Ordering::Relaxed);
        });
        let mut other = Conversation::with(port);
        for _ in 0..100 {
            assert_eq!(other.ask("hello\r"), "OK");
        }
    });
    assert!(put_out.load(Ordering::Relaxed), "the endless line is cut off");
    assert!(agent.wait_for_events(100).iter().all(|event| event == HELLO));
}

/// Bytes that no character begins with must not pile up in the agent's memory.
#[test]
fn continuation_bytes_without_end_are_put_out_too() {
    for encoding in ["UTF-8", "ISO-8859-1"] {
        let agent = logging_agent(&format!("a1.sources.r1.encoding = {encoding}\n"));
        let mut endless = Conversation::with(agent.port());
        endless.send([0x80; 4096]);
        assert_eq!(endless.line(), TOO_LONG, "{encoding}");
        let ended = eventually(|| endless.try_send([0x80; 4096]).err());
        assert!(ended.is_some(), "{encoding}: the connection is closed");
    }
}

#[test]
fn the_answer_to_an_over_long_line_arrives_although_more_is_on_its_way() {
    let agent = logging_agent("");
    let mut nc = Conversation::with(agent.port());
    // When the agent hangs up first, the rest cannot be sent, which is no matter.
    let _cut_short = nc.try_send(vec![b'x'; 1 << 20]);
    assert_eq!(nc.line(), TOO_LONG);
}

#[test]
fn a_client_that_never_reads_its_answers_hurts_nobody() {
    let mut agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{NULL}a1.channels.c1.capacity = 1000\n"));
    let address = format!("127.0.0.1:{}", agent.port()).parse::<std::net::SocketAddr>();
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
    // Little room for answers, so that they pile up early.
    deaf.set_recv_buffer_size(4096).expect("the option can be set");
    deaf.connect(&address.expect("it is an address").into()).expect("the port accepts connections");
    let mut deaf = TcpStream::from(deaf);
    deaf.set_nonblocking(true).expect("the option can be set");
    let lines = b"x\n".repeat(4096);
    let mut refused = 0;
    // It is stuck when the agent has not read for 30 looks in a row.
    let stuck = eventually(|| {
        refused = if deaf.write(&lines).is_err() { refused + 1 } else { 0 };
        (refused >= 30).then_some(())
    });
    assert!(stuck.is_some(), "the agent does not read on for a client that does not read");
    let mut other = Conversation::with(agent.port());
    for _ in 0..100 {
        assert_eq!(other.ask("hello"), "OK");
    }
    assert_eq!(agent.counter("SOURCE.r1", "OpenConnectionCount"), 2);
    assert!(agent.terminate().success(), "nor does it hold up the stop");
}

#[test]
fn a_taken_port_keeps_only_its_source_waiting() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = holder.local_addr().expect("it has an address").port();
    let agent = TestAgent::start(&format!(
        "{}{MEMORY}{LOGGER}a1.sources.r2.type = netcat\na1.sources.r2.bind = localhost\n\
         a1.sources.r2.port = {taken}\na1.sources.r2.channels = c1\n",
        NETCAT.replace("sources = r1", "sources = r1 r2")
    ));
    agent.wait_for_line(
        "Unable to start EventDrivenSourceRunner: { source:org.apache.flume.source.NetcatSource{name:r2",
    );
    assert!(agent.log().contains("Unable to bind to socket. Exception follows."));
    assert_ne!(agent.port(), taken);
    assert_eq!(Conversation::with(agent.port()).ask("hello\r"), "OK");
    drop(holder);
    assert_eq!(agent.ports(2)[1], taken);
    assert_eq!(Conversation::with(taken).ask("world"), "OK");
    assert_eq!(agent.wait_for_events(2), [HELLO, WORLD]);
}

#[test]
fn thousands_of_connections_at_once_are_all_served() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised");
    // Some descriptors are for the other tests of this process.
    let room = limit.current.map_or(usize::MAX, |limit| limit as usize);
    let clients = room.saturating_sub(300).min(2000);
    let agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{NULL}a1.channels.c1.capacity = 2000\n"));
    let port = agent.port();
    let mut connections: Vec<Conversation> = (0..clients).map(|_| Conversation::with(port)).collect();
    for connection in &mut connections {
        connection.send("hello\n");
    }
    for connection in &mut connections {
        assert_eq!(connection.line(), "OK");
    }
    assert_eq!(agent.counter("SOURCE.r1", "OpenConnectionCount"), clients as u64);
    drop(connections);
    agent.wait_for_counter("SOURCE.r1", "OpenConnectionCount", 0);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", clients as u64);
}

#[test]
fn flumes_class_name_is_a_type() {
    let agent = logging_agent("");
    agent.wait_for_line("Created serverSocket:");
    let by_class = NETCAT.replace("= netcat", "= org.apache.flume.source.NetcatSource");
    let agent = TestAgent::start(&format!("{by_class}{MEMORY}{LOGGER}"));
    assert_eq!(Conversation::with(agent.port()).ask("hello\r"), "OK");
    assert_eq!(agent.wait_for_events(1), [HELLO]);
}

#[test]
fn what_is_accepted_is_answered_before_the_next_line_waits_for_room() {
    let limits =
        "a1.channels.c1.capacity = 3\na1.channels.c1.transactionCapacity = 3\na1.channels.c1.keep-alive = 600\n";
    let agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{limits}"));
    let mut nc = Conversation::with(agent.port());
    nc.send("1\n2\n3\n4\n5\n");
    assert_eq!(nc.lines(3), ["OK", "OK", "OK"]);
}
