//! The command `avro-client`.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use crate::support::{
    AvroServer, Event, MEMORY, PROGRAM, TestAgent, avro_to_files, directory, expect_kept_events, files, free_port, run,
    stderr, stdout, wait_for_kept_events, write,
};

/// Runs it with these arguments and this input until it ends.
fn client(args: &[&str], input: &str) -> Output {
    let mut command = Command::new(&*PROGRAM);
    command.arg("avro-client").args(args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program under test starts");
    // One that is not asked for its input need not read it.
    child.stdin.take().expect("the input is piped").write_all(input.as_bytes()).ok();
    child.wait_with_output().expect("a child can be waited for")
}

/// The same, for arguments with which everything is sent.
fn sends(args: &[&str], input: &str) -> String {
    let output = client(args, input);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    assert_eq!(stdout(&output), "", "{args:?}");
    stderr(&output)
}

/// An agent that keeps what comes in a directory, and its port as text.
fn receiver(out: &std::path::Path) -> (TestAgent, String) {
    let agent = TestAgent::start(&avro_to_files(0, out));
    let port = agent.port_after("Avro source r1: listening on");
    (agent, port.to_string())
}

fn events(headers: &[(&str, &str)], bodies: &[&str]) -> Vec<Event> {
    bodies.iter().map(|body| Event::new(headers, *body)).collect()
}

#[test]
fn lines_of_a_file_are_events() {
    let (out, home) = (directory(), directory());
    let (agent, port) = receiver(out.path());
    let text = "first\n\nends as on Windows\r\n  blanks  \nZürich 東京\nno end of line";
    let lines = ["first", "", "ends as on Windows", "  blanks  ", "Zürich 東京", "no end of line"];
    let file = write(home.path(), "lines", text);
    let said = sends(&["-H", "localhost", "-p", &port, "-F", &file.display().to_string()], "not this");
    expect_kept_events("a file", out.path(), &events(&[], &lines));
    assert!(said.starts_with("6 events sent, ") && said.ends_with(" events/s\n"), "{said}");
    // Five in a request, as with Flume.
    assert_eq!(agent.counter("SOURCE.r1", "AppendBatchAcceptedCount"), 2);
    agent.wait_for_counter("SOURCE.r1", "OpenConnectionCount", 0);
    assert_eq!(agent.counter("SOURCE.r1", "EventReadFail"), 0, "the client says goodbye");
    assert!(file.exists(), "a file stays as it is");
}

#[test]
fn options_are_spelt_as_flume_takes_them() {
    let (out, home) = (directory(), directory());
    let (_agent, port) = receiver(out.path());
    let file = write(home.path(), "lines", "x\n").display().to_string();
    let equals = [format!("--host={}", "localhost"), format!("--port={port}"), format!("--filename={file}")];
    let equals = equals.each_ref().map(String::as_str);
    for (count, args) in [
        &["--host", "localhost", "--port", &port, "--filename", &file][..],
        &["-host", "localhost", "-port", &port, "-filename", &file],
        &["--conf", "/etc", "-Dkey=value", "-H", "localhost", "-p", &port, "-F", &file],
        &equals,
    ]
    .into_iter()
    .enumerate()
    {
        assert!(sends(args, "").starts_with("1 event sent, "), "{args:?}");
        wait_for_kept_events(out.path(), count + 1);
    }
}

#[test]
fn standard_input_is_sent_when_there_is_no_file() {
    let out = directory();
    let (_agent, port) = receiver(out.path());
    let said = sends(&["-H", "localhost", "-p", &port], "one\ntwo");
    expect_kept_events("a pipe", out.path(), &events(&[], &["one", "two"]));
    assert!(said.starts_with("2 events sent, 6 B in "), "{said}");
    assert!(sends(&["-H", "localhost", "-p", &port], "").starts_with("0 events sent, "));
}

#[test]
fn events_get_the_headers_of_a_file() {
    let (out, home) = (directory(), directory());
    let (_agent, port) = receiver(out.path());
    let headers = write(home.path(), "headers", "# of all\nsite = bn\ncity: Z\\u00fcrich\n").display().to_string();
    for option in ["--headerFile", "-R", "-headerFile"] {
        sends(&["-H", "localhost", "-p", &port, option, &headers], "one\ntwo\n");
    }
    let expected = events(&[("site", "bn"), ("city", "Zürich")], &["one", "two"].repeat(3));
    expect_kept_events("headers", out.path(), &expected);
}

#[test]
fn a_directory_is_sent_from_its_oldest_file_on() {
    let (out, home) = (directory(), directory());
    let (_agent, port) = receiver(out.path());
    let start = SystemTime::now() - Duration::from_secs(3600);
    // Two of the same age go by their names; what is done, hidden or a directory is not for sending.
    for (name, text, age) in [
        ("a", "third\n", 20),
        ("b", "second\nand more", 10),
        ("c", "first\n", 0),
        ("d", "fourth\n", 20),
        ("done.COMPLETED", "not this\n", 5),
        (".hidden", "not this\n", 5),
    ] {
        let path = write(home.path(), name, text);
        let file = File::options().append(true).open(path).expect("the file can be written to");
        file.set_modified(start + Duration::from_secs(age)).expect("the time can be set");
    }
    fs::create_dir(home.path().join("below")).expect("the temporary directory can be written to");
    let args = ["-H", "localhost", "-p", &port, "--dirname", &home.path().display().to_string()];
    assert!(sends(&args, "").starts_with("5 events sent, "));
    expect_kept_events("a directory", out.path(), &events(&[], &["first", "second", "and more", "third", "fourth"]));
    let names: Vec<String> =
        files(home.path()).iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy().into()).collect();
    let expected = [".hidden", "a.COMPLETED", "b.COMPLETED", "below", "c.COMPLETED", "d.COMPLETED", "done.COMPLETED"];
    assert_eq!(names, expected);
    assert!(sends(&args, "").starts_with("0 events sent, "), "all of it is done");
}

#[test]
fn a_file_of_a_directory_that_is_not_delivered_keeps_its_name() {
    let home = directory();
    let file = write(home.path(), "lines", "one\n");
    let server = AvroServer::new();
    let port = server.port().to_string();
    let refusing = std::thread::spawn(move || {
        let mut peer = server.accept();
        let (call, bodies) = peer.request();
        peer.answer(&call, &[2]);
        bodies
    });
    let output = client(&["-H", "localhost", "-p", &port, "--dirname", &home.path().display().to_string()], "");
    assert_eq!(refusing.join().expect("the client sends"), ["one"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    let error = format!(
        "flume-rs: Unable to deliver events to Flume. Exception follows. NettyAvroRpcClient {{ host: localhost, \
         port: {port} }}: Failed to send batch: Avro RPC call returned Status: FAILED\n"
    );
    assert!(said.starts_with("0 events sent, ") && said.ends_with(&error), "{said}");
    assert!(file.exists());
}

#[test]
fn a_client_of_several_hosts_is_configured_by_a_file() {
    let (out, home) = (directory(), directory());
    let (agent, port) = receiver(out.path());
    let properties = format!(
        "client.type = default_failover\nhosts = h1 h2\nhosts.h1 = localhost:{}\nhosts.h2 = localhost:{port}\n",
        free_port()
    );
    let file = write(home.path(), "client.properties", properties).display().to_string();
    let lines: String = (0..250).map(|number| format!("{number}\n")).collect();
    sends(&["--rpcProps", &file], &lines);
    sends(&["-P", &file, "--batch-size", "50"], &lines);
    let bodies = wait_for_kept_events(out.path(), 500).into_iter().map(|event| event.body);
    assert!(bodies.eq((0..250).chain(0..250).map(|number| number.to_string())));
    // A file has the default of Flume's client, 100.
    assert_eq!(agent.counter("SOURCE.r1", "AppendBatchAcceptedCount"), 3 + 5);
}

#[test]
fn hosts_that_cannot_be_reached_take_no_attempt() {
    let (out, home) = (directory(), directory());
    let (_agent, port) = receiver(out.path());
    let properties = format!(
        "client.type = default_failover\nmax-attempts = 1\nhosts = h1 h2 h3\nhosts.h1 = localhost:{}\n\
         hosts.h2 = localhost:{}\nhosts.h3 = localhost:{port}\n",
        free_port(),
        free_port()
    );
    let file = write(home.path(), "client.properties", properties).display().to_string();
    assert!(sends(&["-P", &file], "one\ntwo\n").starts_with("2 events sent, "));
    expect_kept_events("the third host", out.path(), &events(&[], &["one", "two"]));
}

#[test]
fn nobody_to_send_to_is_an_error() {
    let port = free_port().to_string();
    let output = client(&["-H", "localhost", "-p", &port], "one\n");
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    let error =
        "flume-rs: Unable to open connection to Flume. Exception follows. NettyAvroRpcClient { host: localhost,";
    assert!(said.contains(error) && said.matches("refused").count() == 1, "{said}");
}

#[test]
fn a_full_channel_fails_the_client() {
    let agent = TestAgent::start(&format!(
        "a1.sources = r1\na1.sources.r1.type = avro\na1.sources.r1.bind = 127.0.0.1\na1.sources.r1.port = 0\n\
         a1.sources.r1.channels = c1\n{MEMORY}a1.channels.c1.capacity = 7\na1.channels.c1.transactionCapacity = 7\n\
         a1.channels.c1.keep-alive = 0\n"
    ));
    let port = agent.port_after("Avro source r1: listening on").to_string();
    let output = client(&["-H", "localhost", "-p", &port], "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("5 events sent, "), "what was delivered: {}", stderr(&output));
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 5);
}

#[test]
fn a_line_without_end_is_an_error() {
    let (out, home) = (directory(), directory());
    let (_agent, port) = receiver(out.path());
    let text = format!("one\n{}\n", "x".repeat(20 << 20));
    let file = write(home.path(), "lines", text).display().to_string();
    let output = client(&["-H", "localhost", "-p", &port, "-F", &file], "");
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.starts_with("1 event sent, ") && said.contains("has a line of more than 16777216 bytes"), "{said}");
}

#[test]
fn wrong_command_lines_are_named_as_flume_names_them() {
    let home = directory();
    let bad = write(home.path(), "bad.properties", "hosts = h1\nhosts.h1 = nowhere\n").display().to_string();
    let one = write(home.path(), "one.properties", "client.type = default_loadbalance\nhosts = h1\nhosts.h1 = x:1\n");
    let one = one.display().to_string();
    let none = ["default", "default_failover"].map(|kind| {
        let properties = format!("client.type = {kind}\nhosts = \n");
        write(home.path(), kind, properties).display().to_string()
    });
    let missing = home.path().join("missing").display().to_string();
    for (args, text) in [
        (&[][..], "Either --rpcProps or both --host and --port must be specified."),
        (&["-H", "localhost"], "You must specify a port to connect to with --port"),
        (&["-p", "1"], "You must specify a hostname to connect to with --host"),
        (
            &["-H", "localhost", "-p", "1", "-F", "x", "--dirname", "y"],
            "--filename and --dirname options cannot be used simultaneously",
        ),
        (&["-H", "localhost", "-p", "1", "-F", &missing], &missing),
        (&["-H", "localhost", "-p", "1", "--dirname", &missing], &missing),
        (&["-H", "localhost", "-p", "1", "-R", &missing], &missing),
        (&["-P", &missing], &missing),
        (&["-P", &bad], "hosts.h1"),
        (&["-P", &none[0]], "the names of hosts"),
        (&["-P", &none[1]], "the names of hosts"),
        (&["-P", &one], "at least two hosts"),
        (&["-H", "localhost", "-p", "many"], "many"),
        (&["--nothing"], "--nothing"),
    ] {
        let output = client(args, "");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(text), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
    }
    let help = run(&["avro-client", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    for option in ["--rpcProps", "--host", "--port", "--filename", "--dirname", "--headerFile"] {
        assert!(stdout(&help).contains(option), "{option}");
    }
}
