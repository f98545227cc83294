//! The syslog sources, seen from their clients.

use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{
    Conversation, Event, MEMORY, NULL, TestAgent, directory, expect_kept_events, file_roll, keys, listed, peer,
    wait_for_kept_events,
};

const RFC_3164: &str = "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8";
const RFC_5424: &str = "<165>1 2003-08-24T05:14:15-07:00 192.0.2.1 myproc 8710 - - It's time to make the do-nuts.";

/// A source `r1` of this type with these keys, and a sink that keeps its events in files.
fn source(kind: &str, more: &str, directory: &TempDir) -> String {
    let channel = "a1.channels.c1.capacity = 100000\na1.channels.c1.transactionCapacity = 1000\n";
    format!(
        "a1.sources = r1\na1.sources.r1.type = {kind}\na1.sources.r1.channels = c1\n{}{MEMORY}{channel}{}\
         a1.sinks.k1.sink.serializer = avro_event\n",
        keys("sources.r1", more),
        file_roll(directory.path())
    )
}

/// An agent with a syslogtcp source, its port, and where its events are kept.
fn syslogtcp(more: &str) -> (TestAgent, u16, TempDir) {
    let kept = directory();
    let agent = TestAgent::start(&source("syslogtcp", &format!("host = localhost\nport = 0\n{more}"), &kept));
    let port = agent.port_after("Syslog TCP source r1: listening on");
    (agent, port, kept)
}

/// Of what a 3164 message says, all but its time, which is of this year or the last.
fn without_time(mut event: Event) -> Event {
    assert!(event.headers.remove("timestamp").is_some_and(|ms| ms.parse::<i64>().is_ok()), "{event:?}");
    event
}

#[test]
fn both_standards_by_syslogtcp() {
    let (agent, port, kept) = syslogtcp("clientIPHeader = ip\nclientHostnameHeader = name\n");
    let mut client = Conversation::with(port);
    client.send(format!("{RFC_5424}\n{RFC_3164}\nno syslog\n"));
    let mut events = wait_for_kept_events(kept.path(), 3);
    let name = events[0].headers["name"].clone();
    assert!(!name.is_empty() && events.iter().all(|event| event.headers["ip"] == "127.0.0.1"), "{events:?}");
    events[1] = without_time(events[1].clone());
    let client = [("ip", "127.0.0.1"), ("name", name.as_str())];
    let with = |headers: &[(&str, &str)], body: &str| Event::new(&[headers, &client].concat(), body);
    assert_eq!(
        events,
        [
            with(
                &[
                    ("Facility", "20"),
                    ("Severity", "5"),
                    ("priority", "165"),
                    ("version", "1"),
                    ("timestamp", "1061727255000"),
                    ("host", "192.0.2.1"),
                ],
                "myproc 8710 - - It's time to make the do-nuts.",
            ),
            with(
                &[("Facility", "4"), ("Severity", "2"), ("priority", "34"), ("host", "mymachine")],
                "su: 'su root' failed for lonvick on /dev/pts/8",
            ),
            with(&[("Facility", "0"), ("Severity", "0"), ("flume.syslog.status", "Invalid")], "no syslog"),
        ]
    );
    agent.wait_for_line("Event created from Invalid Syslog data. Source r1, client 127.0.0.1:");
    assert_eq!(agent.counter("SOURCE.r1", "EventReadFail"), 1);
    assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 3);
}

#[test]
fn fields_that_are_kept_and_messages_that_are_cut() {
    let (agent, port, kept) = syslogtcp("keepFields = priority hostname\neventSize = 40\n");
    let mut client = Conversation::with(port);
    client.send(format!("<13>Nov 20 22:14:15 m {}\n<13>- h x\n", "y".repeat(30)));
    let events = wait_for_kept_events(kept.path(), 3);
    let status = |at: usize| events[at].headers.get("flume.syslog.status").map(String::as_str);
    assert_eq!([status(0), status(1), status(2)], [Some("Incomplete"), Some("Invalid"), None]);
    let bodies: Vec<&str> = events.iter().map(|event| event.body.as_str()).collect();
    assert_eq!(bodies, [&*format!("<13>m {}", "y".repeat(18)), &"y".repeat(12), "<13>h x"]);
    agent.wait_for_line(
        "Event size larger than specified event size: 40. You should consider increasing your event size.",
    );
}

#[test]
fn what_a_client_said_last_counts_without_a_line_feed() {
    let (_agent, port, kept) = syslogtcp("");
    let mut client = Conversation::with(port);
    client.send("<13>- h first\n<13>- h last");
    client.end();
    let bodies: Vec<String> = wait_for_kept_events(kept.path(), 2).into_iter().map(|event| event.body).collect();
    assert_eq!(bodies, ["first", "last"]);
}

#[test]
fn a_message_that_a_broken_connection_or_the_stop_cuts_is_kept_as_incomplete() {
    let (mut agent, port, kept) = syslogtcp("");
    let expect_part = |count: usize, body: &str| {
        let event = wait_for_kept_events(kept.path(), count).remove(count - 1);
        assert_eq!(event.headers.get("flume.syslog.status").map(String::as_str), Some("Incomplete"), "{event:?}");
        assert_eq!(event.body, body);
    };
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("the option can be set");
    let mut client = Conversation::over(stream);
    client.send("<13>- h whole\n<13>- h broken");
    wait_for_kept_events(kept.path(), 1);
    drop(client);
    expect_part(2, "broken");
    agent.wait_for_line("Syslog TCP source r1: lost the connection from 127.0.0.1:");
    let mut client = Conversation::with(port);
    client.send("<13>- h whole\n<13>- h stopped");
    wait_for_kept_events(kept.path(), 3);
    assert!(agent.terminate().success());
    expect_part(4, "stopped");
}

#[test]
fn the_real_logger_is_understood() {
    if !peer("logger") {
        return;
    }
    let (_agent, port, kept) = syslogtcp("");
    for format in ["--rfc3164", "--rfc5424"] {
        let status = Command::new("logger")
            .args([
                "--server",
                "127.0.0.1",
                "--tcp",
                "--port",
                &port.to_string(),
                format,
                "-p",
                "local0.notice",
                "hello",
            ])
            .stdin(Stdio::null())
            .status()
            .expect("logger starts");
        assert!(status.success());
    }
    let events = wait_for_kept_events(kept.path(), 2);
    for event in &events {
        assert_eq!([&event.headers["Facility"], &event.headers["Severity"]], ["16", "5"], "{event:?}");
        assert!(event.body.ends_with("hello") && event.headers.contains_key("host"), "{event:?}");
        let ms: i64 = event.headers["timestamp"].parse().expect("a number");
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as i64;
        assert!((now - ms).abs() < 120_000, "{ms} is not about {now}");
    }
}

#[test]
fn several_ports_with_charsets_of_their_own() {
    let kept = directory();
    let [free, other] = [crate::support::free_port(), crate::support::free_port()];
    let more = format!(
        "host = 127.0.0.1\nports = {free} {other}\nportHeader = port\ncharset.port.{other} = ISO-8859-1\nbatchSize = 3\n"
    );
    let agent = TestAgent::start(&source("multiport_syslogtcp", &more, &kept));
    agent.wait_for_line("Multiport Syslog TCP source r1 started.");
    Conversation::with(free).send(format!("{RFC_5424}\n"));
    wait_for_kept_events(kept.path(), 1);
    // The bytes of a host become text by the charset of its port; a body stays as it is.
    Conversation::with(other).send(b"<13>1 2003-08-24T05:14:15Z caf\xe9 x\n");
    wait_for_kept_events(kept.path(), 2);
    Conversation::with(free).send(b"<13>- caf\xc3\xa9 x\r\n\n<13>\n".repeat(2));
    let mut events = wait_for_kept_events(kept.path(), 6);
    for event in [2, 4] {
        events[event] = without_time(events[event].clone());
    }
    let [free, other] = [free, other].map(|port| port.to_string());
    let five = [("Priority", "13"), ("Facility", "1"), ("Severity", "5"), ("host", "café")];
    let now = Event::new(&[&five[..], &[("port", &free)]].concat(), "x\r");
    let invalid = Event::new(&[("flume.syslog.status", "Invalid"), ("port", &free)], "<13>");
    let first = [
        ("Priority", "165"),
        ("Facility", "20"),
        ("Severity", "5"),
        ("Version", "1"),
        ("timestamp", "1061727255000"),
        ("host", "192.0.2.1"),
        ("port", &free),
    ];
    assert_eq!(
        events,
        [
            Event::new(&first, "myproc 8710 - - It's time to make the do-nuts."),
            Event::new(
                &[&five[..], &[("Version", "1"), ("timestamp", "1061702055000"), ("port", &other)]].concat(),
                "x"
            ),
            now.clone(),
            invalid.clone(),
            now,
            invalid,
        ]
    );
    assert_eq!(agent.counter("SOURCE.r1", "EventReadFail"), 2);
}

#[test]
fn a_port_that_is_taken_leaves_the_others() {
    let kept = directory();
    let taken =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
    let (taken, _listener) = taken.expect("a port");
    let more = format!("host = 127.0.0.1\nports = {taken} 0\n");
    let agent = TestAgent::start(&source("multiport_syslogtcp", &more, &kept));
    agent.wait_for_line(&format!("Could not bind to address: 127.0.0.1:{taken}"));
    Conversation::with(agent.port_after("Multiport Syslog TCP source r1: listening on")).send("<13>- h x\n");
    assert_eq!(wait_for_kept_events(kept.path(), 1)[0].body, "x");
}

#[test]
fn datagrams() {
    let kept = directory();
    let agent = TestAgent::start(&source("syslogudp", "host = 127.0.0.1\nport = 0\nclientIPHeader = ip\n", &kept));
    let port = agent.port_after("Syslog UDP source r1: listening on");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let long = "z".repeat(60_000);
    for datagram in ["<13>- h one\n<14>- h two", "", "\n\n", &format!("<13>- h {long}"), "bad"] {
        client.send_to(datagram.as_bytes(), ("127.0.0.1", port)).expect("sent");
    }
    let with = |severity, priority, body: &str| {
        let headers =
            [("Facility", "1"), ("Severity", severity), ("priority", priority), ("host", "h"), ("ip", "127.0.0.1")];
        Event::new(&headers, body)
    };
    let bad = [("Facility", "0"), ("Severity", "0"), ("flume.syslog.status", "Invalid"), ("ip", "127.0.0.1")];
    let expected = [with("5", "13", "one"), with("6", "14", "two"), with("5", "13", &long), Event::new(&bad, "bad")];
    expect_kept_events("datagrams", kept.path(), &expected);
    agent.wait_for_line("sent a datagram without a message");
    assert_eq!(agent.counter("SOURCE.r1", "EventReadFail"), 3);
}

#[test]
fn a_full_channel_holds_clients_back_and_nothing_is_lost() {
    let kept = directory();
    let small = "a1.sinks.k1.sink.batchSize = 10\na1.channels.c1.capacity = 10\na1.channels.c1.transactionCapacity = 10\na1.channels.c1.keep-alive = 0\n";
    let config = source("syslogtcp", "host = localhost\nport = 0\n", &kept);
    let agent = TestAgent::start(&format!("{config}{small}"));
    let mut client = Conversation::with(agent.port_after("Syslog TCP source r1: listening on"));
    let lines: String = (0..5000).map(|n| format!("<13>- h {n}\n")).collect();
    client.send(lines);
    let bodies: Vec<String> = wait_for_kept_events(kept.path(), 5000).into_iter().map(|event| event.body).collect();
    assert_eq!(bodies, (0..5000).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(agent.counter("SOURCE.r1", "EventRefusedCount"), 0);
}

#[test]
fn encrypted() {
    for kind in ["syslogtcp", "multiport_syslogtcp"] {
        let kept = directory();
        let store = format!("{}/tests/tls/rsa.jks", env!("CARGO_MANIFEST_DIR"));
        let port = if kind == "syslogtcp" { "port" } else { "ports" };
        let more =
            format!("host = localhost\n{port} = 0\nssl = true\nkeystore = {store}\nkeystore-password = changeit\n");
        let agent = TestAgent::start(&source(kind, &more, &kept));
        let port = agent.port_after("r1: listening on");
        if peer("openssl") {
            let mut client = Command::new("openssl")
                .args(["s_client", "-quiet", "-connect", &format!("localhost:{port}")])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl starts");
            std::io::Write::write_all(&mut client.stdin.take().expect("piped"), b"<13>- h secret\n").expect("it reads");
            assert_eq!(wait_for_kept_events(kept.path(), 1)[0].body, "secret");
            client.kill().and_then(|()| client.wait()).expect("it ends");
        }
        Conversation::with(port).send("<13>- h plain text\n");
        agent.wait_for_line("the peer does not speak TLS");
    }
}

#[test]
fn what_is_wrong_in_a_configuration_is_said() {
    let home = directory();
    let wrong = listed(&format!(
        "{}{}{}{}",
        keys(
            "sources.r1",
            "type = syslogtcp\nchannels = c1\nport = 1\nhost = h\nkeepFields = host\nformat.regex = x\n"
        ),
        keys("sources.r2", "type = multiport_syslogtcp\nchannels = c1\nports = 1 x\ncharset.port.2 = UTF-16\n"),
        keys("channels.c1", "type = memory\n"),
        keys("sinks.k1", "type = null\nchannel = c1\n"),
    ));
    let path = crate::support::write(home.path(), "f.conf", wrong);
    let output = crate::support::run(&["check", "-f", &path.display().to_string()]);
    let text = crate::support::stdout(&output);
    for part in [
        "warning: a1.sources.r1.keepFields = \"host\": expected none, all, or some of priority, version, timestamp and hostname",
        "no formats beside RFC 3164 and RFC 5424",
        "ports between 0 and 65535, not \"x\"",
        "Unable to parse charset string (UTF-16) from port configuration.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn all_of_them_run_by_class_name() {
    let agent = TestAgent::start(&listed(&format!(
        "{}{}{}{MEMORY}{NULL}",
        keys(
            "sources.r1",
            "type = org.apache.flume.source.SyslogTcpSource\nchannels = c1\nhost = localhost\nport = 0\n"
        ),
        keys("sources.r2", "type = org.apache.flume.source.MultiportSyslogTCPSource\nchannels = c1\nports = 0\n"),
        keys("sources.r3", "type = org.apache.flume.source.SyslogUDPSource\nchannels = c1\nport = 0\n"),
    )));
    for label in ["Syslog TCP source r1", "Multiport Syslog TCP source r2", "Syslog UDP source r3"] {
        agent.wait_for_line(&format!("{label}: listening on"));
    }
}
