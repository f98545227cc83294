//! The exec source and the commands it runs.

use std::fs;

use crate::support::{Conversation, LOGGER, MEMORY, NETCAT, TestAgent, directory, eventually, message};

/// An exec source `r1` that runs a command in a shell.
fn shell(command: &str) -> String {
    format!(
        "a1.sources = r1\na1.sources.r1.type = exec\na1.sources.r1.shell = /bin/sh -c\n\
         a1.sources.r1.channels = c1\na1.sources.r1.command = {command}\n"
    )
}

fn logging_agent(source: &str) -> TestAgent {
    TestAgent::start(&format!("{source}{MEMORY}{LOGGER}"))
}

/// The text that the logger prints beside the bytes, which for short bodies is all of it.
fn texts(events: &[String]) -> Vec<String> {
    let text = |event: &String| {
        let dump = event.split_once("body:").expect("an event has a body").1;
        dump.get(49..).unwrap_or(" }").trim_end_matches(" }").to_owned()
    };
    events.iter().map(text).collect()
}

/// The ids of processes whose command line holds a text.
fn processes(text: &str) -> Vec<u32> {
    let ids = fs::read_dir("/proc").expect("there is /proc").flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        *id != std::process::id() && String::from_utf8_lossy(&line).contains(text)
    })
    .collect()
}

#[test]
fn all_line_ends_and_bad_bytes_come_out_as_in_flume() {
    let agent = logging_agent(&shell(r"printf 'a\\rb\\r\\nc\\377\\n\\nd'"));
    assert_eq!(
        agent.wait_for_events(5),
        [
            "Event: { headers:{} body: 61                                              a }",
            "Event: { headers:{} body: 62                                              b }",
            "Event: { headers:{} body: 63 EF BF BD                                     c... }",
            "Event: { headers:{} body: }",
            "Event: { headers:{} body: 64                                              d }",
        ]
    );
    agent.wait_for_line("exited with 0");
    assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 5);
}

#[test]
fn a_charset_is_decoded_and_encoded_again() {
    let source = shell(r"printf 'caf\\351\\n'");
    let agent = logging_agent(&format!("{source}a1.sources.r1.charset = ISO-8859-1\n"));
    assert!(agent.wait_for_events(1)[0].contains("body: 63 61 66 E9  "), "Flume encodes with the same charset");
}

#[test]
fn without_a_shell_words_are_split_and_quotes_mean_nothing() {
    let source = shell(r#"echo "a  b" 'c d'"#).replace("a1.sources.r1.shell = /bin/sh -c\n", "");
    let agent = logging_agent(&source);
    assert_eq!(texts(&agent.wait_for_events(1)), [r#""a b" 'c d'"#]);
    agent.wait_for_line(r#"Exec source starting with command: echo "a  b" 'c d'"#);
}

#[test]
fn a_command_is_run_again_when_it_should_be() {
    let source = shell("echo again");
    let more = "a1.sources.r1.restart = true\na1.sources.r1.restartThrottle = 100\n";
    let agent = logging_agent(&format!("{source}{more}"));
    assert_eq!(texts(&agent.wait_for_events(3)[..3]), ["again"; 3]);
    let line = agent.wait_for_line("Restarting in");
    assert_eq!(message(&line), "Restarting in 100ms, exit code 0");
    assert!(!agent.log().contains("exited with"), "Flume prints one of the two lines");
}

#[test]
fn a_command_is_not_run_again_by_itself_and_its_exit_code_is_printed() {
    let agent = logging_agent(&shell("echo once; exit 7"));
    let line = agent.wait_for_line("exited with");
    assert_eq!(message(&line), "Command [echo once; exit 7] exited with 7");
    assert_eq!(texts(&agent.wait_for_events(1)), ["once"]);
}

#[test]
fn a_command_that_a_signal_ends_has_javas_exit_code() {
    let agent = logging_agent(&shell("kill -9 $$"));
    assert!(agent.wait_for_line("exited with").ends_with("exited with 137"));
}

#[test]
fn a_command_that_is_not_there_is_tried_again_and_the_others_run() {
    let sources = NETCAT.replace("sources = r1", "sources = r1 r2");
    let agent = logging_agent(&format!(
        "{sources}a1.sources.r2.type = exec\na1.sources.r2.command = no_such_cmd_xyz a b\na1.sources.r2.channels = c1\n"
    ));
    let line = agent.wait_for_line("Failed while running command");
    assert_eq!(message(&line), "Failed while running command: no_such_cmd_xyz a b");
    let line = agent.wait_for_line("exited with");
    assert_eq!(message(&line), "Command [no_such_cmd_xyz a b] exited with -1073741824");
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    assert_eq!(texts(&agent.wait_for_events(1)), ["hello"]);
    agent.wait_for_lines(
        "Unable to start EventDrivenSourceRunner: { source:org.apache.flume.source.ExecSource{name:r2",
        2,
    );
    // In a shell it is the shell that says so, by its exit code.
    let agent = logging_agent(&shell("no_such_cmd_xyz a b"));
    assert!(agent.wait_for_line("exited with").ends_with("Command [no_such_cmd_xyz a b] exited with 127"));
}

#[test]
fn standard_error_is_logged_on_request() {
    let source = shell("echo err1 >&2; echo err2 >&2; echo out; printf last >&2");
    let agent = logging_agent(&format!("{source}a1.sources.r1.logStdErr = true\n"));
    let lines = agent.wait_for_lines("StderrLogger[", 3);
    let messages: Vec<&str> = lines.iter().map(|line| message(line)).collect();
    let expected = ["StderrLogger[1] = 'err1'", "StderrLogger[2] = 'err2'", "StderrLogger[3] = 'last'"];
    assert_eq!(messages, expected, "a last line need not end");
    let agent = logging_agent(&source);
    agent.wait_for_line("exited with 0");
    assert_eq!(texts(&agent.wait_for_events(1)), ["out"]);
    assert!(!agent.log().contains("StderrLogger["));
}

#[test]
fn what_finds_no_room_before_the_stop_is_told_once() {
    let small = "a1.channels.c1.capacity = 10\na1.channels.c1.transactionCapacity = 10\na1.channels.c1.keep-alive = 0\n\
                 a1.sources.r1.batchSize = 1\n";
    let config = format!("{}{MEMORY}{small}", shell("seq 1 100000"));
    let mut agent = TestAgent::start_with(&config, &["--drain-timeout", "2"]);
    agent.wait_for_line("waiting, nothing is lost");
    agent.terminate();
    agent.wait_for_line("Agent a1 stopped: ");
    let lines = agent.messages("could not be delivered");
    let [line] = &lines[..] else { panic!("{} lines", lines.len()) };
    let refused = line.strip_prefix("Source r1: ").and_then(|rest| rest.split(' ').next()).expect("a number");
    assert!(refused.parse::<u64>().is_ok_and(|events| events > 10), "{line}");
    assert!(agent.last_line().contains(&format!("10 events accepted, {refused} refused")), "{}", agent.last_line());
}

#[test]
fn standard_error_that_nobody_wants_does_not_stop_the_command() {
    // More than a pipe holds.
    let agent = logging_agent(&shell("head -c 300000 /dev/zero >&2; echo done"));
    assert_eq!(texts(&agent.wait_for_events(1)), ["done"]);
}

#[test]
fn no_process_of_a_pipeline_outlives_the_agent() {
    let directory = directory();
    let file = crate::support::write(directory.path(), "followed-by-the-pipeline.log", "first\n");
    let file = file.display().to_string();
    let mut agent = logging_agent(&shell(&format!("tail -F {file} | cat - {file}")));
    assert_eq!(texts(&agent.wait_for_events(1)), ["first"]);
    let running = processes(&file).len();
    assert!(running >= 2, "{running} processes: at least tail and cat run");
    assert!(agent.terminate().success());
    let gone = eventually(|| processes(&file).is_empty().then_some(()));
    assert!(gone.is_some(), "left behind: {:?}", processes(&file));
    assert!(agent.log().contains(&format!("Stopping exec source with command: tail -F {file} | cat - {file}")));
}

#[test]
fn a_command_that_ignores_sigterm_is_killed() {
    let directory = directory();
    let marker = directory.path().join("deaf-command").display().to_string();
    let mut agent = logging_agent(&shell(&format!("trap '' TERM; echo up; while :; do sleep 0.05; done # {marker}")));
    assert_eq!(texts(&agent.wait_for_events(1)), ["up"]);
    assert!(!processes(&marker).is_empty());
    assert!(agent.terminate().success());
    let gone = eventually(|| processes(&marker).is_empty().then_some(()));
    assert!(gone.is_some(), "left behind: {:?}", processes(&marker));
}

#[test]
fn a_full_channel_holds_the_command_back_and_nothing_is_lost() {
    let source = shell("seq 1 2000");
    let more = "a1.sources.r1.batchSize = 10\na1.channels.c1.capacity = 10\na1.channels.c1.transactionCapacity = 10\n\
                a1.channels.c1.keep-alive = 0\n";
    let agent = logging_agent(&format!("{source}{more}"));
    let expected: Vec<String> = (1..=2000).map(|number| number.to_string()).collect();
    assert_eq!(texts(&agent.wait_for_events(2000)), expected);
}

#[test]
fn flumes_class_names_are_types() {
    let source = shell("echo hello").replace("= exec", "= org.apache.flume.source.ExecSource");
    let channel = MEMORY.replace("= memory", "= org.apache.flume.channel.MemoryChannel");
    let sink = LOGGER.replace("= logger", "= org.apache.flume.sink.LoggerSink");
    let agent = TestAgent::start(&format!("{source}{channel}{sink}"));
    assert_eq!(texts(&agent.wait_for_events(1)), ["hello"]);
}
