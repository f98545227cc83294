//! The netcatudp source, seen from its clients.

use std::net::UdpSocket;

use crate::support::{Event, MEMORY, TestAgent, directory, expect_kept_events, file_roll, keys};

#[test]
fn lines_of_datagrams_are_events() {
    let kept = directory();
    let source =
        keys("sources.r1", "type = netcatudp\nchannels = c1\nport = 0\nbind = 127.0.0.1\nremoteAddress = from\n");
    let sink = file_roll(kept.path());
    let agent =
        TestAgent::start(&format!("a1.sources = r1\n{source}{MEMORY}{sink}a1.sinks.k1.sink.serializer = avro_event\n"));
    let port = agent.port_after("Netcat UDP source r1: listening on");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let from = format!("/{}", client.local_addr().expect("an address"));
    let long = "z".repeat(60_000);
    for datagram in ["hello\n", "one\r\n\ntwo", "", &long] {
        client.send_to(datagram.as_bytes(), ("127.0.0.1", port)).expect("sent");
    }
    let expected = ["hello", "one\r", "", "two", "", &long].map(|body| Event::new(&[("from", &from)], body));
    expect_kept_events("netcatudp", kept.path(), &expected);
    assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 6);
}
