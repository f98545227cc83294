//! The command line as a user types it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::{
    Conversation, LOGGER, Launch, MEMORY, NETCAT, PROGRAM, directory, peer, run, stderr, stdout, write,
};

#[test]
fn help_is_on_standard_output() {
    for word in ["help", "--help", "-h"] {
        let output = run(&[word]);
        assert_eq!(output.status.code(), Some(0), "{word}");
        assert!(stdout(&output).contains("agent"), "{word}: {}", stdout(&output));
        assert_eq!(stderr(&output), "", "{word}");
    }
    let help = stdout(&run(&["help"]));
    assert!(help.starts_with("Usage: flume-rs <command> [options]..."), "{help}");
    for option in ["--conf-file,-f", "--name,-n", "--conf,-c", "-Dproperty=value", "flume.monitoring.port", "--strict"]
    {
        assert!(help.contains(option), "{option} is not in\n{help}");
    }
    let output = run(&["agent", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("--drain-timeout"), "{}", stdout(&output));
}

#[test]
fn an_unknown_command_is_answered_as_by_flume() {
    for (args, command) in [(&[][..], ""), (&["agnet", "-n", "a1"], "agnet")] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stderr(&output), format!("Error: Unknown or unspecified command '{command}'\n"));
        assert!(stdout(&output).starts_with("Usage: "), "{}", stdout(&output));
    }
}

#[test]
fn version_has_five_lines() {
    let output = run(&["version"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    // Scripts look for Flume's version at the start of the first line.
    assert!(lines[0].starts_with("Flume 1.11.0") && lines[0].contains(env!("CARGO_PKG_VERSION")), "{text}");
    assert!(lines[2].starts_with("Revision: "), "{text}");
}

#[test]
fn an_agent_needs_a_name_and_a_configuration() {
    let output = run(&["agent", "-f", "x.conf"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("Missing required option: n"), "{}", stderr(&output));
    let output = run(&["agent", "-n", "a1"]);
    assert_eq!(output.status.code(), Some(2));
    // Flume's spelling.
    assert!(stderr(&output).starts_with("No configuiration was provided"), "{}", stderr(&output));
}

#[test]
fn a_missing_file_ends_the_agent_with_a_status() {
    let output = run(&["agent", "-n", "a1", "-f", "/no/such/agent.conf"]);
    assert_eq!(output.status.code(), Some(1));
    let log = stderr(&output);
    assert!(log.contains("A fatal error occurred while running. Exception follows."), "{log}");
    assert!(log.contains("Unable to read file /no/such/agent.conf: No such file or directory"), "{log}");
}

#[test]
fn options_that_are_not_there_are_named() {
    let output = run(&["agent", "-n", "a1", "--conf-fiel", "x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--conf-fiel") && stderr(&output).contains("--conf-file"), "{}", stderr(&output));
    let output = run(&["agent", "-n", "a1", "-f", "x", "--drain-timeout", "-1"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn long_options_work_as_flumes_parser_takes_them() {
    let config = format!("{NETCAT}{MEMORY}{LOGGER}");
    let home = directory();
    let file = write(home.path(), "agent.conf", config).display().to_string();
    let equals = format!("--conf-file={file}");
    for args in [
        ["-name", "a1", "-conf-file", &file, "--conf", "/tmp"],
        ["--nam", "a1", "--conf-fi", &file, "-c", "/tmp"],
        ["--name=a1", &equals, "--plugins-path", "/x", "-C", "/y"],
    ] {
        let agent = Launch::bare().args(["agent"]).args(args).start();
        assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    }
    let agent = Launch::bare().args(["node", "-n", "a1", "-f", &file]).start();
    agent.wait_for_line("Warning: The \"node\" command is deprecated. Please use \"agent\" instead.");
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
}

#[test]
fn a_dry_run_starts_nothing() {
    let home = directory();
    let good = write(home.path(), "agent.conf", format!("{NETCAT}{MEMORY}{LOGGER}"));
    let output = run(&["agent", "-n", "a1", "-f", &good.display().to_string(), "--dryrun"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("Dryrun mode enabled"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("Starting Source"), "{}", stderr(&output));
}

#[test]
fn the_completion_script_is_bash() {
    let output = run(&["completions", "bash"]);
    assert_eq!(output.status.code(), Some(0));
    let script = stdout(&output);
    assert!(script.contains("complete -F") && script.contains("--conf-file"), "{script}");
    if !peer("bash") {
        return;
    }
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().expect("bash starts");
    let mut input = bash.stdin.take().expect("the input is piped");
    input.write_all(script.as_bytes()).expect("bash reads");
    drop(input);
    assert!(bash.wait().expect("bash ends").success());
}

#[test]
fn output_into_a_closed_pipe_is_no_panic() {
    let (reader, writer) = std::io::pipe().expect("a pipe can be made");
    drop(reader);
    for args in [&["help"][..], &["version"], &["completions", "bash"]] {
        let mut command = Command::new(&*PROGRAM);
        command.args(args).stdout(writer.try_clone().expect("a pipe can be shared"));
        let output = command.stderr(Stdio::piped()).output().expect("the program starts");
        assert!(!stderr(&output).contains("panicked"), "{args:?}: {}", stderr(&output));
    }
}
