//! The http source, seen from its clients.

use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::{
    Conversation, Event, LOGGER, MEMORY, TestAgent, directory, expect_kept_events, file_roll, keys, peer, post,
    wait_for_kept_events,
};

const JSON: &str = "application/json; charset=utf-8";

/// An http source `r1` with these keys.
fn source(more: &str) -> String {
    format!(
        "a1.sources = r1\n{}",
        keys("sources.r1", &format!("type = http\nchannels = c1\nbind = localhost\nport = 0\n{more}"))
    )
}

/// An agent with such a source, its port, and where its events are kept.
fn http_agent(more: &str) -> (TestAgent, u16, TempDir) {
    let kept = directory();
    let sink = file_roll(kept.path());
    let serializer = "a1.sinks.k1.sink.serializer = avro_event\n";
    let agent = TestAgent::start(&format!("{}{MEMORY}{sink}{serializer}", source(more)));
    let port = agent.port_after("Http source r1: listening on");
    (agent, port, kept)
}

#[test]
fn a_list_of_events() {
    let (agent, port, kept) = http_agent("");
    let request = r#"[{"headers":{"a":"b","n":5},"body":"one é"},{"body":"two\n"},{}]"#;
    let reply = post(port, "/any/path?x=y", JSON, request);
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    // Without a word about it, a request is in UTF-8.
    assert_eq!(post(port, "/", "text/plain", r#"[{"body":"é"}]"#).status, 200);
    assert_eq!(post(port, "/", JSON, "[]").status, 200);
    let expected = [
        Event::new(&[("a", "b"), ("n", "5")], "one é"),
        Event::new(&[], "two\n"),
        Event::new(&[], ""),
        Event::new(&[], "é"),
    ];
    expect_kept_events("http", kept.path(), &expected);
    assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 4);
    assert_eq!(agent.counter("SOURCE.r1", "AppendBatchReceivedCount"), 3);
    assert_eq!(agent.counter("SOURCE.r1", "AppendBatchAcceptedCount"), 3);
}

#[test]
fn many_requests_on_one_connection() {
    let (_agent, port, kept) = http_agent("");
    let mut client = Conversation::with(port);
    for number in 0..3 {
        let body = format!("[{{\"body\":\"{number}\"}}]");
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert_eq!(client.line(), "HTTP/1.1 200 OK\r");
        while client.line() != "\r" {}
    }
    let body = "[{\"body\":\"3\"}]";
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in [&body[..5], &body[5..]] {
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.line(), "HTTP/1.1 200 OK\r");
    let bodies: Vec<String> = wait_for_kept_events(kept.path(), 4).into_iter().map(|event| event.body).collect();
    assert_eq!(bodies, ["0", "1", "2", "3"]);
}

#[test]
fn a_client_that_has_said_everything_gets_all_answers() {
    let (_agent, port, _kept) = http_agent("");
    let mut client = Conversation::with(port);
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n[{}]";
    client.send(request.repeat(100));
    assert_eq!(client.finish().matches("HTTP/1.1 200 OK").count(), 100);
}

#[test]
fn what_cannot_be_read_is_answered_and_counted() {
    let (agent, port, _kept) = http_agent("max-request-bytes = 1000\n");
    for (kind, request, status, text) in [
        (JSON, "{\"body\":\"x\"}", 400, "Bad request from client. Request has invalid JSON Syntax."),
        (JSON, "[{\"body\":\"x\"}", 400, "at line 1 column 13"),
        (JSON, "", 500, "Deserializer threw unexpected exception. "),
        (JSON, "null", 500, "Deserializer threw unexpected exception. "),
        (
            "application/json; charset=latin1",
            "[]",
            500,
            "Deserializer threw unexpected exception. JSON handler supports UTF-8, UTF-16 and UTF-32 only.",
        ),
    ] {
        let reply = post(port, "/", kind, request);
        assert_eq!(reply.status, status, "{request}: {reply:?}");
        assert!(reply.body.contains(text), "{request}: {reply:?}");
    }
    agent.wait_for_line("Http source r1, client 127.0.0.1:");
    let large = post(port, "/", JSON, "x".repeat(10_000_000));
    assert_eq!(large.status, 413);
    assert!(large.body.contains("at most 1000 bytes are taken, see max-request-bytes"), "{large:?}");
    assert_eq!(agent.counter("SOURCE.r1", "EventReadFail"), 6);
    assert_eq!(agent.counter("SOURCE.r1", "AppendBatchReceivedCount"), 0);
    assert_eq!(post(port, "/", JSON, "[{}]").status, 200);
}

#[test]
fn methods() {
    let (_agent, port, _kept) = http_agent("");
    for (method, status) in [
        ("GET", 500),
        ("HEAD", 500),
        ("PUT", 405),
        ("DELETE", 405),
        ("TRACE", 403),
        ("OPTIONS", 403),
        ("PATCH", 501),
        ("FOO", 501),
    ] {
        assert_eq!(crate::support::http(port, method, "/").status, status, "{method}");
    }
}

#[test]
fn a_full_channel_is_503_and_a_retry_delivers() {
    let channel = "a1.channels = c1\na1.channels.c1.type = memory\na1.channels.c1.capacity = 2\n\
                   a1.channels.c1.transactionCapacity = 2\na1.channels.c1.keep-alive = 0\n";
    let agent = TestAgent::start(&format!("{}{channel}", source("")));
    let port = agent.port_after("Http source r1: listening on");
    assert_eq!(post(port, "/", JSON, "[{},{}]").status, 200);
    for request in ["[{}]", "[{},{},{}]"] {
        let reply = post(port, "/", JSON, request);
        assert_eq!(reply.status, 503);
        assert!(reply.body.starts_with("Error appending event to channel. Channel might be full."), "{reply:?}");
    }
    assert_eq!(agent.counter("SOURCE.r1", "ChannelWriteFail"), 2);
    assert_eq!(agent.counter("SOURCE.r1", "EventRefusedCount"), 4);
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 2);
    agent.rewrite(&format!("{}{channel}{LOGGER}a1.sinks.k1.maxBytesToLog = 0\n", source("")));
    agent.signal(rustix::process::Signal::HUP);
    agent.wait_for_events(2);
    assert_eq!(post(port, "/", JSON, "[{}]").status, 200);
}

#[test]
fn a_request_is_an_event_of_the_blob_handler() {
    let handler = "handler = org.apache.flume.source.http.BLOBHandler\nhandler.mandatoryParameters = a,b\n";
    let (_agent, port, kept) = http_agent(handler);
    let reply = post(port, "/?a=1", "x/y", "blob");
    assert_eq!(reply.status, 500);
    assert_eq!(reply.body, "Deserializer threw unexpected exception. Please specify b parameter in the request.");
    assert_eq!(post(port, "/?a=1&b=two+w%20%C3%A9&a=3&c", "x/y", "line\nline\n").status, 200);
    let headers = [("a", "1"), ("b", "two w é"), ("c", "")];
    expect_kept_events("http", kept.path(), &[Event::new(&headers, "line\nline\n")]);
}

#[test]
fn encrypted_and_by_the_old_names_of_keys() {
    let store = format!("{}/tests/tls/rsa.jks", env!("CARGO_MANIFEST_DIR"));
    let (agent, port, kept) =
        http_agent(&format!("enableSSL = true\nkeystore = {store}\nkeystorePassword = changeit\n"));
    if !peer("curl") {
        return;
    }
    let output = Command::new("curl")
        .args(["--silent", "--insecure", "--data", "[{\"body\":\"secret\"}]", "--write-out", "%{http_code}"])
        .arg(format!("https://localhost:{port}/"))
        .stdin(Stdio::null())
        .output()
        .expect("curl starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200");
    assert_eq!(wait_for_kept_events(kept.path(), 1)[0].body, "secret");
    assert!(agent.messages("unknown key").is_empty(), "{}", agent.log());
}

#[test]
fn a_silent_client_is_disconnected() {
    let (_agent, port, _kept) =
        http_agent("ServerConnector.idleTimeout = 100\nHttpConfiguration.sendServerVersion = false\n");
    Conversation::with(port).expect_eof();
    let mut client = Conversation::with(port);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n[");
    assert_eq!(client.line(), "HTTP/1.1 408 Request Timeout\r");
}

#[test]
fn a_wrong_handler_is_named() {
    let home = directory();
    let config = format!("{}{MEMORY}{LOGGER}", source("handler = org.apache.flume.source.http.JsonHandler\n"));
    let path = crate::support::write(home.path(), "f.conf", config);
    let output = crate::support::run(&["check", "-f", &path.display().to_string()]);
    let text = crate::support::stdout(&output);
    assert!(text.contains("did you mean \"org.apache.flume.source.http.JSONHandler\"?"), "{text}");
}
