//! Where the log goes, and how its lines look.

use std::fs;

use serde_json::Value;

use crate::support::{LOGGER, Launch, MEMORY, TestAgent, contents, directory, eventually, shape, write};

/// One event, from nobody.
fn config() -> String {
    format!(
        "a1.sources = r1\na1.sources.r1.type = seq\na1.sources.r1.totalEvents = 1\na1.sources.r1.channels = c1\n\
         {MEMORY}{LOGGER}"
    )
}

fn launch() -> Launch {
    Launch::bare().args(["agent", "-n", "a1"])
}

#[test]
fn a_log_file_has_flumes_file_layout() {
    let out = directory();
    let logs = out.path().join("logs");
    let mut agent = launch()
        .args(["-Dflume.root.logger=INFO,LOGFILE", "-Dflume.log.file=a.log"])
        .args([format!("-Dflume.log.dir={}", logs.display())])
        .config(&config());
    let file = logs.join("a.log");
    let event = eventually(|| {
        let text = fs::read_to_string(&file).ok()?;
        text.lines().find(|line| line.contains("Event: ")).map(str::to_owned)
    });
    let event = event.expect("the file has the event");
    let (front, back) = event.split_at(24);
    assert_eq!(shape(&front.replace(|c: char| c.is_ascii_alphabetic(), "M")), "99 MMM 9999 99:99:99,999");
    assert_eq!(
        back,
        format!(
            " INFO  [SinkRunner-PollingRunner-DefaultSinkProcessor] (org.apache.flume.sink.LoggerSink.process:95)  - \
             Event: {{ headers:{{}} body: 30{}0 }}",
            " ".repeat(46)
        )
    );
    assert!(agent.terminate().success());
    assert_eq!(agent.log(), "", "nothing is on the console");
}

#[test]
fn daily_files_are_named_as_well() {
    let out = directory();
    let _agent = launch()
        .args(["-Dflume.root.logger=INFO,DAILY", "-Dflume.log.file=day.log"])
        .args([format!("-Dflume.log.dir={}", out.path().display())])
        .config(&config());
    let seen = eventually(|| fs::read_to_string(out.path().join("day.log")).ok()?.contains("Event: ").then_some(()));
    assert!(seen.is_some(), "{}", String::from_utf8_lossy(&contents(out.path())));
}

#[test]
fn json_lines_are_for_machines() {
    for switch in ["-Dflume.log.format=json", "--log-json"] {
        let mut agent = launch().args([switch]).config(&config());
        agent.wait_for_line("Event: ");
        assert!(agent.terminate().success());
        let log = agent.log();
        let lines: Vec<Value> =
            log.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
        for line in &lines {
            for key in ["timestamp", "level", "thread", "logger", "message"] {
                assert!(line[key].is_string(), "{key} in {line}");
            }
        }
        let message =
            |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with("Event: { headers:{}"));
        let event = lines.iter().find(message).expect("the event is there");
        assert_eq!(event["level"], "INFO");
        assert_eq!(event["thread"], "SinkRunner-PollingRunner-DefaultSinkProcessor");
        let last = lines.last().expect("there are lines");
        assert!(last["message"].as_str().is_some_and(|text| text.starts_with("Agent a1 stopped: ")), "{last}");
    }
}

#[test]
fn the_log4j_file_of_the_configuration_directory_counts() {
    let home = directory();
    let logs = home.path().join("logs");
    write(
        home.path(),
        "log4j.properties",
        format!(
            "flume.root.logger=INFO,LOGFILE\nflume.log.dir={}\nflume.log.file=flume.log\n\
             log4j.rootLogger=${{flume.root.logger}}\n",
            logs.display()
        ),
    );
    let conf = ["--conf".as_ref(), home.path().as_os_str()];
    let _agent = launch().args(conf).config(&config());
    let seen = eventually(|| fs::read_to_string(logs.join("flume.log")).ok()?.contains("Event: ").then_some(()));
    assert!(seen.is_some(), "the event is in the file");
    // The command line wins.
    let agent = launch().args(conf).args(["-Dflume.root.logger=INFO,console"]).config(&config());
    agent.wait_for_events(1);
}

#[test]
fn levels_hide_what_is_below_them() {
    let mut agent =
        TestAgent::start_with(&config(), &["-Dflume.root.logger=WARN,console", "-Dflume.monitoring.type=none"]);
    agent.wait_for_line("[WARN - ");
    assert!(agent.terminate().success());
    assert!(!agent.log().contains("[INFO - "), "the logger sink is silent, as in Flume");
}

#[test]
fn a_slip_in_the_level_is_named() {
    let agent = launch().args(["-Dflume.root.logger=INFO,consle"]).config(&config());
    agent.wait_for_line("did you mean \"console\"?");
    agent.wait_for_events(1);
}
