//! The real Apache Flume as the judge: the same configuration, the same bytes, the same answers and log lines.
//!
//! `tests/interop/flume.sh` fetches Flume 1.11 with Maven on first use.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{
    Conversation, Event, LOGGER, MEMORY, NETCAT, PROGRAM, TestAgent, contents, directory, eventually, free_port, http,
    interop, java_peers, kept_events, keys, listed, peer, post, real_flume, wait_for_kept_events, wait_for_port,
};

fn config(port: u16) -> String {
    let netcat = NETCAT.replace("port = 0", &format!("port = {port}"));
    format!(
        "{netcat}{MEMORY}{LOGGER}a1.sources.r1.interceptors = i1 i2\na1.sources.r1.interceptors.i1.type = static\n\
         a1.sources.r1.interceptors.i1.key = datacenter\na1.sources.r1.interceptors.i1.value = NEW YORK\n\
         a1.sources.r1.interceptors.i2.type = static\na1.sources.r1.interceptors.i2.key = b\n\
         a1.sources.r1.interceptors.i2.value = {{x}}\n"
    )
}

/// What is sent, one connection after the other: packets, each with the number of answers to wait for.
fn conversations() -> Vec<Vec<(Vec<u8>, usize)>> {
    let line = |text: &str| (format!("{text}\n").into_bytes(), 1);
    vec![
        vec![
            line("hello\r"),
            line("world"),
            line(""),
            line("\r"),
            line("  two blanks  "),
            line("\t{}=, \"\\\u{0}\u{1}\u{7f}~"),
            line("é \u{20ac} 😀 \u{feff}"),
            line("fifteen bytes.."),
            line("sixteen bytes..."),
            line("seventeen bytes.."),
            line(&"long ".repeat(100)),
            line(&"x".repeat(511)),
            line(&"é".repeat(511)),
            line(&"😀".repeat(255)),
            (b"three\nin one\npacket\n".to_vec(), 3),
        ],
        // The last line of each is refused, and what came before it is not.
        vec![(format!("a\nb\n{}\nlost\n", "x".repeat(512)).into_bytes(), 3)],
        vec![(format!("c\n{}\n", "😀".repeat(256)).into_bytes(), 2)],
        vec![("y".repeat(600).into_bytes(), 1)],
    ]
}

/// Sends everything, and gives the answers and the events printed.
fn converse(agent: &TestAgent, port: u16) -> (Vec<Vec<String>>, Vec<String>) {
    let mut events = 0;
    let mut answers = Vec::new();
    for packets in conversations() {
        let mut nc = Conversation::with(port);
        let mut here = Vec::new();
        for (packet, lines) in packets {
            nc.send(packet);
            here.extend(nc.lines(lines));
        }
        if here.iter().any(|answer| answer.starts_with("FAILED")) {
            nc.expect_eof();
        }
        events += here.iter().filter(|answer| *answer == "OK").count();
        answers.push(here);
    }
    agent.wait_for_events(events);
    (answers, agent.events())
}

#[test]
fn answers_and_log_lines_are_those_of_the_real_flume() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let port = free_port();
    let flume = real_flume("1.11.0").config(&config(port));
    let ours = TestAgent::start(&config(0));
    let (our_answers, our_events) = converse(&ours, ours.port());
    assert_eq!(flume.port(), port);
    let (answers, events) = converse(&flume, port);
    for (number, (ours, theirs)) in our_answers.iter().zip(&answers).enumerate() {
        assert_eq!(ours, theirs, "answers of conversation {number}: ours, then Flume's");
    }
    assert_eq!(our_events, events, "events: ours, then Flume's");
}

/// What sources of syslog messages are sent, a connection or a datagram each. What the two do not agree on, on purpose,
/// is in the README. `@DAY@` is today, as Flume's multiport_syslogtcp knows only the days of about this month.
const MESSAGES: [&str; 34] = [
    "<13>@DAY@ 22:14:15 mymachine su: 'su root' failed",
    "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - BOM'su root'",
    "<165>1 2003-08-24T05:14:15-07:00 host a",
    "<165>1 2003-08-24T05:14:15.123Z host three digits",
    "<165>1 2003-08-24T05:14:15.123987Z host six digits",
    "<165>1 2003-08-24T05:14:15.1234567Z host seven digits",
    "<13>12003-08-24T05:14:15Z-no-blank",
    "<-13>@DAY@ 22:14:15 m negative",
    "<13>1 x y no stamp",
    "no priority",
    "<abc>x",
    "<1234567>x",
    "<>x",
    "<999>@DAY@ 22:14:15 m large",
    "<013>@DAY@ 22:14:15 m zero",
    "<13>nothing",
    "<13>nothing to parse",
    "<13>Foo 20 22:14:15 m no such month",
    "<13>@DAY@ 22:14:15 m ",
    "<13>@DAY@ 22:14:15 m",
    "<13>@DAY@ 22:14:15 m café 😀",
    "<13>@DAY@ 22:14:15 m next line \u{85} x",
    "<13>@DAY@ 22:14:15 m separator \u{2028} x",
    "<13>@DAY@ 22:14:15 m carriage return\r",
    "<13>@DAY@ 22:14:15 m carriage\rreturn",
    "<13>@DAY@ 22:14:15  two blanks",
    "<13>Garbage text that is long enough",
    "<13>Gärbage text that is long enough",
    "<13>1  2003-08-24T05:14:15Z host two blanks",
    "<13>1 2003-08-24T05:14:15 ",
    "<13>\t@DAY@ 22:14:15 m tab",
    "<13>Nov\t20 22:14:15 m tab",
    "<13>@DAY@ 22:14:15 m_-.@x y",
    "<13>@DAY@ 22:14:15 -x y",
];

/// The sources of the comparison, each with a directory for its events.
const SYSLOG_SOURCES: [(&str, &str); 6] = [
    ("syslogtcp", "type = syslogtcp\nport = @PORT@"),
    ("syslogtcp-kept", "type = syslogtcp\nport = @PORT@\nkeepFields = priority,timestamp,hostname,version"),
    ("syslogtcp-all", "type = syslogtcp\nport = @PORT@\nkeepFields = all\nclientIPHeader = ip"),
    ("multiport", "type = multiport_syslogtcp\nports = @PORT@\nclientIPHeader = ip"),
    ("multiport-kept", "type = multiport_syslogtcp\nports = @PORT@\nkeepFields = version hostname timestamp priority"),
    ("syslogudp", "type = syslogudp\nport = @PORT@"),
];

/// Keys of a source, and of its own channel and sink, numbered.
fn kept_source(number: usize, source: &str, directory: &Path) -> String {
    let directory = directory.join(number.to_string());
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    let name = |kind: &str| format!("{kind}{number}");
    let channel = name("c");
    let sink = format!(
        "type = file_roll\nchannel = {channel}\nsink.rollInterval = 0\nsink.serializer = avro_event\n\
         sink.directory = {}",
        directory.display()
    );
    [
        keys(&format!("sources.{}", name("r")), &format!("{source}\nchannels = {channel}")),
        keys(&format!("channels.{channel}"), "type = memory\ncapacity = 1000"),
        keys(&format!("sinks.{}", name("k")), &sink),
    ]
    .concat()
}

/// What an agent makes of all messages, sorted, for each source.
fn syslog_events(start: impl FnOnce(&str) -> TestAgent) -> Vec<Vec<Event>> {
    let kept = directory();
    let ports: Vec<u16> = SYSLOG_SOURCES.iter().map(|_| free_port()).collect();
    let sources = SYSLOG_SOURCES.iter().zip(&ports).enumerate().map(|(number, ((_, source), port))| {
        let source = format!("{}\nhost = 127.0.0.1", source.replace("@PORT@", &port.to_string()));
        kept_source(number, &source, kept.path())
    });
    let _agent = start(&listed(&sources.collect::<String>()));
    let day = jiff::Timestamp::now().strftime("%b %e").to_string();
    let messages: Vec<String> = MESSAGES.iter().map(|message| message.replace("@DAY@", &day)).collect();
    let events = ports.iter().enumerate().map(|(number, port)| {
        let directory = kept.path().join(number.to_string());
        let events = match SYSLOG_SOURCES[number].0 {
            "syslogudp" => by_datagrams(*port, &messages, &directory),
            _ => by_connections(*port, &messages, &directory, &day),
        };
        normal(events)
    });
    events.collect()
}

fn by_connections(port: u16, messages: &[String], directory: &Path, day: &str) -> Vec<Event> {
    wait_for_port(port);
    for message in messages {
        Conversation::with(port).send(format!("{message}\n"));
    }
    // One that is as long as may be, and one that is longer and becomes two.
    for length in [2499, 2501] {
        Conversation::with(port).send(format!("{:y<length$}\n", format!("<14>{day} 22:14:15 m ")));
    }
    wait_for_kept_events(directory, messages.len() + 3)
}

fn by_datagrams(port: u16, messages: &[String], directory: &Path) -> Vec<Event> {
    const PROBE: &str = "is anybody there?";
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let send = |message: &str| client.send_to(message.as_bytes(), ("127.0.0.1", port)).is_ok();
    let others = || {
        let events = kept_events(directory);
        let (probes, others): (Vec<Event>, Vec<Event>) = events.into_iter().partition(|event| event.body == PROBE);
        (!probes.is_empty()).then_some(others)
    };
    // Nothing but an answer says that a UDP port is open.
    eventually(|| others().or_else(|| (!send(&format!("<13>- h {PROBE}"))).then(Vec::new))).expect("the port opens");
    assert!(messages.iter().all(|message| send(message)));
    eventually(|| others().filter(|others| others.len() == messages.len())).expect("all messages become events")
}

/// In an order that both have, and without what Flume takes over from an earlier message into one without a host.
fn normal(mut events: Vec<Event>) -> Vec<Event> {
    for event in events.iter_mut().filter(|event| !event.headers.contains_key("host")) {
        for header in ["priority", "version"] {
            event.headers.remove(header);
        }
    }
    events.sort_by_key(|event| format!("{event:?}"));
    events
}

#[test]
fn events_of_syslog_messages_are_those_of_the_real_flume() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let theirs = syslog_events(|config| real_flume("1.11.0").config(config));
    let ours = syslog_events(TestAgent::start);
    for ((name, _), (ours, theirs)) in SYSLOG_SOURCES.iter().zip(ours.iter().zip(&theirs)) {
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours, theirs, "{name}: ours, then Flume's");
        }
        assert_eq!(ours.len(), theirs.len(), "{name}");
    }
}

/// Requests for an http source, with their content type.
const REQUESTS: [(&str, &str); 17] = [
    (JSON, r#"[{"headers":{"a":"b","n":1.50,"t":true},"body":"plain é"},{"body":"two\u00e9\ud83d\ude00\n"}]"#),
    (JSON, r#"[{"body":5},{"headers":null,"body":null},{"x":{"y":[1]}},{"headers":{},"body":true},{}]"#),
    (JSON, "[]"),
    (JSON, "\u{feff}[{\"body\":\"mark\"}]"),
    ("application/json", r#"[{"body":"json é"}]"#),
    ("text/plain", r#"[{"body":"text"}]"#),
    ("application/json;charset=UTF-16", "\0[\0{\0\"\0b\0o\0d\0y\0\"\0:\0\"\0x\0\"\0}\0]"),
    ("application/json; charset=iso-8859-1", "[]"),
    ("application/json; charset=bogus", "[]"),
    (JSON, ""),
    (JSON, "null"),
    (JSON, "[null]"),
    (JSON, r#"{"body":"x"}"#),
    (JSON, r#"[{"body":"x"}"#),
    (JSON, r#"[{"body":"x"}] more"#),
    (JSON, r#"[{"body":["x"]}]"#),
    (JSON, r#"[{"headers":{"a":"1","a":"2"}}]"#),
];
const JSON: &str = "application/json; charset=utf-8";
const METHODS: [&str; 8] = ["GET", "HEAD", "PUT", "DELETE", "TRACE", "OPTIONS", "PATCH", "FOO"];

/// The statuses of all requests, and the bytes of the events.
fn http_answers(start: impl FnOnce(&str) -> TestAgent) -> (Vec<u16>, Vec<u8>) {
    let kept = directory();
    let [json, blob] = [free_port(), free_port()];
    let handler = "handler = org.apache.flume.source.http.BLOBHandler\nhandler.mandatoryParameters = a";
    let sources = [format!("type = http\nport = {json}"), format!("type = http\nport = {blob}\n{handler}")];
    let sources = sources.iter().enumerate().map(|(number, source)| kept_source(number, source, kept.path()));
    // Bodies that are no text.
    let config = sources.collect::<String>().replace("serializer = avro_event", "serializer = header_and_text");
    let _agent = start(&listed(&config));
    for port in [json, blob] {
        wait_for_port(port);
    }
    let mut statuses: Vec<u16> = REQUESTS.iter().map(|(kind, request)| post(json, "/", kind, request).status).collect();
    // More than a transaction holds.
    statuses.push(post(json, "/", JSON, format!("[{}{{}}]", "{},".repeat(100))).status);
    statuses.extend(METHODS.map(|method| http(json, method, "/any/path").status));
    for query in ["/", "/?a=1&b=two+w%20%C3%A9&a=3&c", "/path?a=1"] {
        statuses.push(post(blob, query, "x/y", "blob").status);
    }
    let bytes = || ["0", "1"].map(|number| contents(&kept.path().join(number))).concat();
    // One of the bodies has a line feed.
    let lines = |bytes: &Vec<u8>| bytes.iter().filter(|byte| **byte == b'\n').count();
    let all = eventually(|| Some(bytes()).filter(|bytes| lines(bytes) >= 14));
    (statuses, all.unwrap_or_else(bytes))
}

#[test]
fn answers_to_http_requests_are_those_of_the_real_flume() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let (statuses, events) = http_answers(|config| real_flume("1.11.0").config(config));
    let (our_statuses, our_events) = http_answers(TestAgent::start);
    assert_eq!(our_statuses, statuses, "ours, then Flume's");
    assert_eq!(String::from_utf8_lossy(&our_events), String::from_utf8_lossy(&events), "ours, then Flume's");
}

#[test]
fn the_kits_own_check_passes() {
    if !peer("bash") {
        return;
    }
    let port = free_port();
    let output = Command::new(interop("check.sh"))
        .arg("netcat")
        .env("AGENT_A", &*PROGRAM)
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("the script starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("netcat replied: OK"), "{text}");
    assert!(text.contains("ok   netcat: Event: { headers:{} body: 68 65 6C 6C 6F 0D"), "{text}");
    // The script kills its agent; its port comes free.
    let free = eventually(|| TcpListener::bind(("127.0.0.1", port)).ok());
    assert!(free.is_some());
}
