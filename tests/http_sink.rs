//! The HTTP sink, seen from the server that it posts to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::support::{
    Conversation, DEADLINE, Event, MEMORY, NETCAT, TestAgent, directory, expect_kept_events, file_roll, keys,
};

/// Rules of a configuration that delivers.
const USUAL: &str = "rollback.2XX = false\nbackoff.2XX = false\nincrementMetrics.2XX = true\n";

/// A netcat source, and an HTTP sink with these keys.
fn sender(endpoint: &str, more: &str) -> String {
    let sink = format!("type = http\nchannel = c1\nendpoint = {endpoint}\n{more}");
    format!("{NETCAT}{MEMORY}a1.sinks = k1\n{}", keys("sinks.k1", &sink))
}

/// A server that answers as the test tells it to.
struct Server {
    listener: TcpListener,
    connection: Option<BufReader<TcpStream>>,
}

impl Server {
    fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        (Self { listener, connection: None }, format!("http://{address}/path?query"))
    }

    /// The next request, on the connection there is, or else on a new one: the lines of its head, and its body.
    fn request(&mut self) -> (Vec<String>, String) {
        let connection = self.connection.get_or_insert_with(|| {
            let (stream, _) = self.listener.accept().expect("a connection");
            stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
            BufReader::new(stream)
        });
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            connection.read_line(&mut line).expect("the sink sends a request");
            assert!(line.ends_with("\r\n"), "{line:?} after {head:?}");
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_ascii_lowercase()),
            }
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.expect("a length").parse().expect("a number")];
        connection.read_exact(&mut body).expect("the body follows");
        (head, String::from_utf8(body).expect("text"))
    }

    fn body(&mut self) -> String {
        self.request().1
    }

    fn answer(&mut self, status: &str) {
        let connection = self.connection.as_mut().expect("there was a request").get_mut();
        write!(connection, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").expect("the sink reads");
    }
}

#[test]
fn bodies_are_posted_one_by_one() {
    let (mut server, endpoint) = Server::start();
    let mut agent =
        TestAgent::start(&sender(&endpoint, &format!("{USUAL}contentTypeHeader = a/b\nacceptHeader = c/d\n")));
    Conversation::with(agent.port()).send("one\n\ntwo\n");
    let (head, body) = server.request();
    assert_eq!(head[0], "post /path?query http/1.1");
    let host = format!("host: {}", server.listener.local_addr().expect("an address"));
    for line in [host.as_str(), "content-type: a/b", "accept: c/d", "content-length: 3"] {
        assert!(head.iter().any(|header| header == line), "{line}: {head:?}");
    }
    assert_eq!(body, "one");
    server.answer("200 OK");
    // An event without a body is not sent, and the connection is the same.
    assert_eq!(server.body(), "two");
    server.answer("204 No Content");
    agent.wait_for_line("Sink k1 can never deliver an event of 0 bytes: it has no body; it is dropped");
    agent.wait_for_counter("CHANNEL.c1", "EventTakeSuccessCount", 3);
    assert_eq!(agent.counter("SINK.k1", "EventDrainSuccessCount"), 2, "what was not sent does not count");
    assert_eq!(agent.counter("SINK.k1", "ConnectionCreatedCount"), 1);
    // What was dropped is no loss, but is told.
    assert!(agent.terminate().success());
    agent.wait_for_line("3 events accepted, 0 refused, 2 delivered, 0 lost, 1 dropped");
    assert!(agent.last_line().contains("[WARN - "), "{}", agent.last_line());
}

#[test]
fn rules_say_what_a_status_means() {
    let (mut server, endpoint) = Server::start();
    let rules = "backoff.503 = false\nrollback.4XX = false\nbackoff.4XX = false\n";
    let agent = TestAgent::start(&sender(&endpoint, &format!("{USUAL}{rules}")));
    Conversation::with(agent.port()).send("one\ntwo\nthree\n");
    for (body, status) in [
        // Tried again at once, and after a while.
        ("one", "503 Service Unavailable"),
        ("one", "500 Internal Server Error"),
        ("one", "200 OK"),
        // Dropped, as the rules say, and not counted.
        ("two", "404 Not Found"),
        ("three", "302 Found"),
        ("three", "201 Created"),
    ] {
        assert_eq!(server.body(), body, "{status}");
        server.answer(status);
    }
    agent.wait_for_counter("CHANNEL.c1", "EventTakeSuccessCount", 3);
    assert_eq!(agent.counter("SINK.k1", "EventDrainSuccessCount"), 2);
    assert_eq!(agent.counter("SINK.k1", "EventRefusedCount"), 1);
    assert_eq!(agent.counter("SINK.k1", "EventWriteFail"), 0);
    agent.wait_for_line("Got status code 503 from HTTP server. Rolled back event for retry.");
    agent.wait_for_line("Got status code 500 from HTTP server. Rolled back event and backed off.");
}

#[test]
fn what_the_server_refuses_for_good_is_a_dead_letter() {
    let (mut server, endpoint) = Server::start();
    let rules = "rollback.4XX = false\nbackoff.4XX = false\nincrementMetrics.410 = true\ndeadLetterChannel = dead\n";
    let dead = "a1.channels = c1 dead\na1.channels.dead.type = memory\na1.sinks = k1 k2\na1.sinks.k2.type = logger\n\
                a1.sinks.k2.channel = dead\n";
    let agent = TestAgent::start(&format!("{}{dead}", sender(&endpoint, &format!("{USUAL}{rules}"))));
    Conversation::with(agent.port()).send("one\ntwo\nthree\n");
    // What the rules count is delivered.
    for (body, status) in [("one", "413 Content Too Large"), ("two", "410 Gone"), ("three", "200 OK")] {
        assert_eq!(server.body(), body, "{status}");
        server.answer(status);
    }
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 2);
    agent.wait_for_counter("SINK.k2", "EventDrainSuccessCount", 1);
    assert_eq!(agent.counter("SINK.k1", "EventDeadLetterCount"), 1);
    let events = agent.events();
    assert!(events[0].contains("deadLetterReason=the server answered 413") && events[0].contains("one"), "{events:?}");
}

#[test]
fn the_defaults_put_everything_back() {
    let (mut server, endpoint) = Server::start();
    let agent = TestAgent::start(&sender(&endpoint, ""));
    Conversation::with(agent.port()).send("one\n");
    for _ in 0..2 {
        assert_eq!(server.body(), "one");
        server.answer("200 OK");
    }
    agent.wait_for_line("Got status code 200 from HTTP server. Rolled back event and backed off.");
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 1);
    assert_eq!(agent.counter("SINK.k1", "EventDrainSuccessCount"), 0);
}

#[test]
fn a_server_that_is_gone_or_silent_costs_nothing_but_time() {
    let (mut server, endpoint) = Server::start();
    let agent = TestAgent::start(&sender(&endpoint, &format!("{USUAL}requestTimeout = 100\n")));
    let mut client = Conversation::with(agent.port());
    client.send("one\n");
    assert_eq!(server.body(), "one");
    agent.wait_for_line("Error opening connection, or request timed out: no answer within 100 ms");
    server.connection = None;
    assert_eq!(server.body(), "one");
    server.answer("200 OK");
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 1);
    assert_eq!(agent.counter("SINK.k1", "EventWriteFail"), 1);
    // A connection that the server closes between two requests is opened anew.
    server.connection = None;
    client.send("two\n");
    assert_eq!(server.body(), "two");
    server.answer("200 OK");
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 2);
    assert_eq!(agent.counter("SINK.k1", "EventWriteFail"), 1);
}

#[test]
fn a_status_counts_though_the_rest_of_the_answer_does_not_come() {
    let (mut server, endpoint) = Server::start();
    let agent = TestAgent::start(&sender(&endpoint, &format!("{USUAL}requestTimeout = 100\n")));
    Conversation::with(agent.port()).send("one\ntwo\n");
    assert_eq!(server.body(), "one");
    let slow = server.connection.take().expect("there was a request");
    write!(slow.get_ref(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").expect("the sink reads");
    assert_eq!(server.body(), "two", "and not the first one again");
    server.answer("200 OK");
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 2);
    assert_eq!(agent.counter("SINK.k1", "EventWriteFail"), 0);
}

#[test]
fn https_to_an_http_source() {
    let store = format!("{}/tests/tls/localhost.jks", env!("CARGO_MANIFEST_DIR"));
    let kept = directory();
    let source = keys(
        "sources.r1",
        &format!(
            "type = http\nchannels = c1\nport = 0\nssl = true\nkeystore = {store}\nkeystore-password = changeit\n\
             handler = org.apache.flume.source.http.BLOBHandler\n"
        ),
    );
    let sink = file_roll(kept.path());
    let receiver =
        TestAgent::start(&format!("a1.sources = r1\n{source}{MEMORY}{sink}a1.sinks.k1.sink.serializer = avro_event\n"));
    let port = receiver.port_after("Http source r1: listening on");
    let config = |host: &str| sender(&format!("https://{host}:{port}/?from=sink"), USUAL);
    let trust =
        [format!("-Djavax.net.ssl.trustStore={store}"), "-Djavax.net.ssl.trustStorePassword=changeit".to_owned()];
    let trust: Vec<&str> = trust.iter().map(String::as_str).collect();
    // The certificate is that of localhost, and of no address.
    let wrong = TestAgent::start_with(&config("127.0.0.1"), &trust);
    Conversation::with(wrong.port()).send("secret\n");
    wrong.wait_for_line("the server's certificate is not trusted");
    let agent = TestAgent::start_with(&config("localhost"), &trust);
    Conversation::with(agent.port()).send("secret\n");
    expect_kept_events("https", kept.path(), &[Event::new(&[("from", "sink")], "secret")]);
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 1);
}

#[test]
fn what_is_wrong_in_a_configuration_is_said() {
    let home = directory();
    for (more, part) in [
        ("endpoint = ftp://x", "expected an address such as http://host:port/path"),
        ("connectTimeout = 0", "Connect timeout must be a non-zero and positive"),
        ("requestTimeout = -1", "Request timeout must be a non-zero and positive"),
        ("backoff.20X = true", "expected a status such as 503, or a class such as 5XX"),
        ("rollback.200 = no", "expected true or false; anything but true means false"),
    ] {
        let text = sender("http://localhost", more);
        let path = crate::support::write(home.path(), "f.conf", text);
        let output = crate::support::run(&["check", "-f", &path.display().to_string()]);
        assert!(crate::support::stdout(&output).contains(part), "{part}: {}", crate::support::stdout(&output));
    }
}
