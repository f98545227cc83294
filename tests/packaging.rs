//! `packaging/flume-ng`, as scripts call it.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Launch, MEMORY, NETCAT, NULL, PROGRAM, directory, write};

fn wrapper() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/flume-ng")
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(wrapper());
    command.args(arguments).env("FLUME_RS", &*PROGRAM).env_remove("JAVA_OPTS").env_remove("FLUME_JAVA_OPTS");
    command.output().expect("the wrapper starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn version_and_help_need_no_configuration() {
    let version = run(&["version"]);
    assert!(version.status.success());
    assert!(text(&version.stdout).starts_with("Flume 1.11.0"), "{version:?}");
    assert_eq!(text(&version.stdout).lines().count(), 5);
    let help = run(&["help"]);
    assert!(help.status.success() && text(&help.stdout).contains("--conf-file,-f"));
}

#[test]
fn commands_that_flume_does_not_have_are_handed_on() {
    let answer = run(&["channel", "status", "/no/such"]);
    assert_eq!(answer.status.code(), Some(2));
    assert_eq!(text(&answer.stderr), "flume-rs: /no/such: No such file or directory (os error 2)\n");
}

#[test]
fn an_unknown_command_is_answered_as_flume_does() {
    let answer = run(&["agnet"]);
    assert_eq!(answer.status.code(), Some(1));
    assert!(text(&answer.stderr).contains("Error: Unknown or unspecified command 'agnet'"));
    assert!(text(&answer.stdout).starts_with("Usage: "));
}

#[test]
fn a_missing_argument_and_a_missing_directory_are_named() {
    let answer = run(&["agent", "--conf"]);
    assert_eq!(answer.status.code(), Some(1));
    assert!(text(&answer.stderr).contains("Error: Option --conf requires an argument"));
    let answer = run(&["agent", "--dryrun", "-n", "a1", "-f", "a b.conf"]);
    assert!(answer.status.success());
    let stderr = text(&answer.stderr);
    assert!(stderr.contains("Warning: No configuration directory set! Use --conf <dir> to override."), "{stderr}");
    assert!(stderr.contains("Warning: Dryrun mode enabled (will not actually initiate startup)"), "{stderr}");
    assert!(text(&answer.stdout).contains("agent"), "{answer:?}");
}

#[test]
fn it_sources_the_environment_and_becomes_the_agent() {
    let conf = directory();
    write(
        conf.path(),
        "flume-env.sh",
        "export JAVA_OPTS=\"-Xmx64m -Dflume.monitoring.type=http -Dflume.monitoring.port=0\"\n",
    );
    let config = format!("{NETCAT}{MEMORY}{NULL}");
    let arguments = ["agent", "--conf", &conf.path().to_string_lossy(), "-n", "a1", "-Dflume.root.logger=INFO,console"]
        .map(str::to_owned);
    let mut agent = Launch::of(wrapper()).args(arguments).env("FLUME_RS", &*PROGRAM).config(&config);
    agent.wait_for_line("Info: Sourcing environment configuration script");
    agent.wait_for_line("Options for Java have no effect here: -Xmx64m");
    // The port of the counters came from the sourced file.
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 0);
    assert_eq!(agent.terminate().code(), Some(0), "the signal reaches the agent, which took the wrapper's place");
}
