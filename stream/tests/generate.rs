//! Made-up data, as it comes out of the program.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use crate::support::{TestJob, directory, eventually, free_port, stderr, stdout};

fn generate(arguments: &[&str]) -> String {
    let output = TestJob::command(&[&["generate"], arguments].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[test]
fn a_seed_gives_the_same_lines_and_files_only_grow() {
    let arguments = ["access-log", "--seed", "1", "--count", "500", "--rate", "max"];
    let lines = generate(&arguments);
    assert_eq!(lines.lines().count(), 500);
    assert_eq!(lines, generate(&arguments));
    let home = directory();
    let path = home.path().join("access.log");
    fs::write(&path, "what was there\n").expect("the folder can be written to");
    generate(&[&arguments[..], &["-o", &path.display().to_string()]].concat());
    assert_eq!(fs::read_to_string(&path).expect("it is there"), format!("what was there\n{lines}"));
}

#[test]
fn who_connects_is_served_and_who_goes_is_replaced() {
    let port = free_port();
    let address = format!("tcp-listen://127.0.0.1:{port}");
    let _generator = TestJob::launch(&["generate", "reviews", "--rate", "2000", "-o", &address]);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let stream = eventually(|| TcpStream::connect(("127.0.0.1", port)).ok()).expect("it listens");
        for line in BufReader::new(stream).lines().take(50) {
            let line = line.expect("lines come");
            let review: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
            ids.push(review["reviewerID"].to_string());
        }
    }
    ids.sort();
    ids.dedup();
    assert!(ids.len() > 90, "the second one gets others");
}

#[test]
fn a_server_is_waited_for_and_gets_everything() {
    let port = free_port();
    let target = format!("tcp://127.0.0.1:{port}");
    let mut generator =
        TestJob::launch(&["generate", "orders", "--rate", "max", "--count", "30000", "--seed", "5", "-o", &target]);
    generator.wait_for_log("trying again");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is still free");
    let stream = listener.accept().expect("it tries again").0;
    let lines: Vec<String> = BufReader::new(stream).lines().map(|line| line.expect("it is text")).collect();
    assert_eq!(lines.len(), 30_000);
    assert!(lines[29_999].contains(",30000,"), "{}", lines[29_999]);
    assert!(generator.wait().success());
}

#[test]
fn mistakes_are_told_and_a_reader_that_goes_is_none() {
    for (arguments, why) in [
        (&["generate", "orders", "--rate", "0"][..], "lines a second"),
        (&["generate", "orders", "-o", "ftp://h:1"], "tcp-listen://HOST:PORT"),
        (&["generate", "orders", "--count", "1", "-o", "/nowhere/at/all"], "/nowhere/at/all: "),
        (&["generate", "order"], "orders"),
    ] {
        let output = TestJob::command(arguments);
        assert!(!output.status.success() && stderr(&output).contains(why), "{}", stderr(&output));
    }
    let mut child = TestJob::program(&["generate", "socket", "--rate", "max", "-o", "-"]);
    let mut child = child.stdout(Stdio::piped()).spawn().expect("the program starts");
    let out = BufReader::new(child.stdout.take().expect("it is piped"));
    assert_eq!(out.lines().take(3).count(), 3);
    let ended = eventually(|| child.try_wait().ok().flatten());
    assert!(ended.is_some_and(|status| status.success()));
}

#[test]
fn shells_and_man_know_the_program() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&TestJob::command(&["completions", shell]));
        assert!(script.contains("generate") && script.contains("flume-rs-stream"), "{shell}");
    }
    assert!(stdout(&TestJob::command(&["man"])).contains(".TH flume-rs-stream 1"));
}
