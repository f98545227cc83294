//! `help`, and the answers to command lines that Flume's users know.

use std::process::ExitCode;

const COMMANDS: [&str; 9] =
    ["agent", "avro-client", "node", "check", "channel", "test", "version", "completions", "man"];
/// Flume's commands that this version does not have.
const MISSING: [&str; 1] = ["tool"];

const USAGE: &str = "\
Usage: flume-rs <command> [options]...

commands:
  help                      display this help text
  agent                     run a Flume agent
  avro-client               send lines of text to an avro source
  check                     check a configuration and show what would run
  channel <command>         look into the files of a file channel, or repair them
  test <file>...            run the cases of a file: what the channels get of given events
  version                   show version info
  man                       print the manual page
  completions <shell>       print a completion script (bash, zsh, fish, elvish, powershell)

global options:
  --conf,-c <conf>          use configs in <conf> directory (log4j.properties, flume.opts)
  --classpath,-C <cp>       more directories for classpath: URIs
  --dryrun,-d               check the configuration, do not start anything
  --plugins-path <dirs>     accepted; there is nothing to plug in
  -Dproperty=value          sets a system property, before or after the command
  -X<option>                accepted; without a Java it has no effect (-Xmx sets the default byteCapacity)

agent options:
  --name,-n <name>          the name of this agent (required)
  --conf-file,-f <file>     a properties file; may be repeated (required if there is no -u)
  --conf-uri,-u <uri>       a file:, classpath:, http: or https: URI; may be repeated
  --conf-user, --conf-password   for http: and https:
  --poll-interval,-i <s>    how often to look for changes of the configuration
                            (30; 300 when one comes by http)
  --no-reload-conf          do not look for changes
  --backup-directory,-b <d> keep the last good configuration there
  --strict                  refuse a configuration that `check` finds errors in
  --log-json                write the log as JSON lines
  --drain-timeout <s>       how long to deliver what is left when stopping (10)
  --help,-h                 display help text

avro-client options:
  --rpcProps,-P <file>      a properties file with the client's keys: hosts, client.type, ssl, ...
  --host,-H <host>          where the avro source is
  --port,-p <port>          its port; --rpcProps, or both of these, are required
  --filename,-F <file>      the file whose lines are sent (default: standard input)
  --dirname <dir>           a directory whose files are sent; each gets the suffix .COMPLETED
  --headerFile,-R <file>    a properties file with headers for every event
  --batch-size <n>          events in a request (5, or what --rpcProps says)
  --help,-h                 display help text

channel commands:
  status DIR...             what waits, how old it is, who uses the channel, the free space
  check DIR...              read every record, list what is damaged (exit status 1 if anything is)
  export DIR...             write the undelivered events to an avro container or as JSON lines
  repair DIR...             print what a damaged channel needs; with --yes, do it

channel options:
  DIR...                    the data directories, all of them, or a directory that they are in
  --checkpoint-dir <dir>    the checkpoint's directory, where it is not beside them
  --conf-file,-f <file> --name,-n <agent> --channel <channel>
                            in place of DIR: the channel of a configuration
  --format <format>         status and check: text or json; export: avro or json
  --output,-o <file>        export: where to, instead of standard output
  --all                     export: delivered events that are still there, too
  --yes                     repair: do it

properties:
  -Dflume.root.logger=INFO,console     level, and console, LOGFILE or DAILY
  -Dflume.log.dir=D -Dflume.log.file=F -Dflume.log.format=json
  -Dflume.monitoring.type=http -Dflume.monitoring.port=41414
";

/// Prints the usage text.
pub fn print() -> ExitCode {
    super::say(USAGE)
}

/// Answers what Flume's wrapper answers before it starts anything.
pub fn answer(words: &[String]) -> Option<ExitCode> {
    let command = words.first().map_or("", String::as_str);
    if MISSING.contains(&command) {
        eprintln!("Error: the command '{command}' of Flume is not in this version");
        return Some(ExitCode::FAILURE);
    }
    if matches!(command, "help" | "--help" | "-h") {
        return Some(print());
    }
    if matches!(command, "--version" | "-V") {
        return Some(super::version::run());
    }
    if !COMMANDS.contains(&command) {
        eprintln!("Error: Unknown or unspecified command '{command}'");
        print();
        return Some(ExitCode::FAILURE);
    }
    if command == "node" {
        eprintln!("Warning: The \"node\" command is deprecated. Please use \"agent\" instead.");
    }
    None
}
