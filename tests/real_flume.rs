//! The real Apache Flume as the judge: the same configuration, the same bytes, the same answers and log lines.
//!
//! `tests/interop/flume.sh` fetches Flume 1.11 with Maven on first use.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::support::{
    Conversation, LOGGER, MEMORY, NETCAT, PROGRAM, TestAgent, eventually, free_port, interop, java_peers, peer,
    real_flume,
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

#[test]
fn the_kits_own_check_passes() {
    if !peer("bash") {
        return;
    }
    let port = free_port();
    let output = Command::new(interop("check.sh"))
        .arg("netcat")
        .env("AGENT_A", PROGRAM)
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
