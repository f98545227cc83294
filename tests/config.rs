//! Configurations, right and wrong: what `check` says, and what an agent makes of them.

use std::path::Path;

use serde_json::Value;

use crate::support::{
    Conversation, LOGGER, Launch, MEMORY, NETCAT, NULL, TestAgent, directory, message, run, stderr, stdout, write,
};

/// A configuration without a fault, whose lines the tests refer to by number.
const GOOD: [&str; 10] = [
    "a1.sources = r1",
    "a1.channels = c1",
    "a1.sinks = k1",
    "a1.sources.r1.type = netcat",
    "a1.sources.r1.bind = localhost",
    "a1.sources.r1.port = 0",
    "a1.sources.r1.channels = c1",
    "a1.channels.c1.type = memory",
    "a1.sinks.k1.type = null",
    "a1.sinks.k1.channel = c1",
];

/// The good configuration with some lines replaced, and more lines from the eleventh on.
fn with(replaced: &[(usize, &str)], more: &str) -> String {
    let mut lines = GOOD.map(str::to_owned);
    for (number, line) in replaced {
        lines[number - 1] = (*line).to_owned();
    }
    format!("{}\n{more}", lines.join("\n"))
}

/// What `check` prints of a configuration, and its exit status.
fn check(text: &str, args: &[&str]) -> (String, Option<i32>) {
    let home = directory();
    let file = write(home.path(), "agent.conf", text).display().to_string();
    let output = run(&[&["check", "--conf-file", &file], args].concat());
    assert_eq!(stderr(&output), "");
    (stdout(&output).replace(&file, "agent.conf"), output.status.code())
}

/// What a fault must be answered with.
struct Fault {
    replaced: &'static [(usize, &'static str)],
    more: &'static str,
    /// File, line, severity, key and value as the finding begins.
    place: &'static str,
    /// Parts of the rest: the expectation, the help, Flume's words.
    words: &'static [&'static str],
}

const FAULTS: &[Fault] = &[
    Fault {
        replaced: &[],
        more: "a1.sources.r1.ack-evry-event = false",
        place: "agent.conf:11: warning: a1.sources.r1.ack-evry-event = \"false\": ",
        words: &["unknown key", "help: did you mean \"ack-every-event\"?"],
    },
    Fault {
        replaced: &[(6, "")],
        more: "",
        place: "agent.conf:4: error: a1.sources.r1.port: ",
        words: &[
            "missing: expected a port",
            "Flume says: Required parameter port must exist and may not be null",
            "Flume says: Source r1 has been removed due to an error during configuration",
        ],
    },
    Fault {
        replaced: &[(6, "a1.sources.r1.prot = 1")],
        more: "",
        place: "agent.conf:4: error: a1.sources.r1.port: ",
        words: &["help: there is \"prot\": did you mean \"port\"?"],
    },
    Fault {
        replaced: &[(6, "a1.sources.r1.port = 4444x")],
        more: "",
        place: "agent.conf:6: error: a1.sources.r1.port = \"4444x\": ",
        words: &["expected a port between 0 and 65535"],
    },
    Fault {
        replaced: &[(6, "a1.sources.r1.port = 70000")],
        more: "",
        place: "agent.conf:6: error: a1.sources.r1.port = \"70000\": ",
        words: &["expected a port between 0 and 65535"],
    },
    Fault {
        replaced: &[(6, "a1.sources.r1.port = -1")],
        more: "",
        place: "agent.conf:6: error: a1.sources.r1.port = \"-1\": ",
        words: &["expected a port between 0 and 65535"],
    },
    Fault {
        replaced: &[],
        more: "a1.sources.r1.max-line-length = abc",
        place: "agent.conf:11: error: a1.sources.r1.max-line-length = \"abc\": ",
        words: &["expected a whole number"],
    },
    Fault {
        replaced: &[],
        more: "a1.channels.c1.capacity = abc",
        place: "agent.conf:11: warning: a1.channels.c1.capacity = \"abc\": ",
        words: &["expected a whole number of events, at least 1", "100, is used"],
    },
    Fault {
        replaced: &[(4, "a1.sources.r1.type = netcatt")],
        more: "",
        place: "agent.conf:4: error: a1.sources.r1.type = \"netcatt\": ",
        words: &["did you mean \"netcat\"?", "Flume says: Unable to load source type: netcatt, class: netcatt"],
    },
    Fault {
        replaced: &[(9, "a1.sinks.k1.type = loger")],
        more: "",
        place: "agent.conf:9: error: a1.sinks.k1.type = \"loger\": ",
        words: &["did you mean \"logger\"?", "Flume says: Unable to load sink type: loger, class: loger"],
    },
    Fault {
        replaced: &[(8, "a1.channels.c1.type = memroy")],
        more: "",
        place: "agent.conf:8: error: a1.channels.c1.type = \"memroy\": ",
        words: &[
            "did you mean \"memory\"?",
            "Flume says: Source r1 is not connected to a channel",
            "Flume says: Sink k1 is not connected to a channel",
        ],
    },
    Fault {
        replaced: &[(9, "a1.sinks.k1.type = irc")],
        more: "",
        place: "agent.conf:9: error: a1.sinks.k1.type = \"irc\": ",
        words: &["this sink type of Flume is not in this version"],
    },
    Fault {
        replaced: &[(10, "")],
        more: "",
        place: "agent.conf:9: error: a1.sinks.k1.channel: ",
        words: &["Flume says: Could not configure sink  k1 due to: No channel configured for sink: k1"],
    },
    Fault {
        replaced: &[(10, "a1.sinks.k1.channels = c1")],
        more: "",
        place: "agent.conf:9: error: a1.sinks.k1.channel: ",
        words: &["help: a sink has \"channel\", a source has \"channels\""],
    },
    Fault {
        replaced: &[(7, "a1.sources.r1.channel = c1")],
        more: "",
        place: "agent.conf:4: error: a1.sources.r1.channels: ",
        words: &[
            "help: a source has \"channels\", a sink has \"channel\"",
            "Flume says: Could not configure source  r1 due to: Failed to configure component!",
        ],
    },
    Fault {
        replaced: &[(10, "a1.sinks.k1.channel = c2")],
        more: "",
        place: "agent.conf:10: error: a1.sinks.k1.channel = \"c2\": ",
        words: &[
            "did you mean \"c1\"?",
            "Flume says: Could not configure sink  k1 due to: Channel c2 not in active set.",
        ],
    },
    Fault {
        replaced: &[(2, "a1.channels = c1 c2"), (3, "a1.sinks = k1 k2")],
        more: "a1.channels.c2.type = memory\na1.sinks.k2.type = null\na1.sinks.k2.channel = c2",
        place: "agent.conf:11: warning: a1.channels.c2: ",
        words: &["no source fills the channel"],
    },
    Fault {
        replaced: &[(2, "a1.channels = c1 c2")],
        more: "a1.channels.c2.type = memory",
        place: "agent.conf:11: warning: a1.channels.c2: ",
        words: &["Flume says: Channel c2 has no components connected and has been removed."],
    },
    Fault {
        replaced: &[],
        more: "a1.sources.r1.port = 1",
        place: "agent.conf:11: warning: a1.sources.r1.port = \"1\": ",
        words: &["set twice: the value of line 6 is replaced by this one"],
    },
    Fault {
        replaced: &[(3, "a1.sinks = k1 k1")],
        more: "",
        place: "agent.conf:3: warning: a1.sinks = \"k1 k1\": ",
        words: &["names sink k1 twice"],
    },
    Fault {
        replaced: &[(1, "a1.sources = r1,r2")],
        more: "",
        place: "agent.conf:1: error: a1.sources = \"r1,r2\": ",
        words: &["blanks, not commas", "Flume says: Configuration empty for: r1,r2.Removed."],
    },
    Fault {
        replaced: &[],
        more: "a1.channels.c1.capacity = 200\na1.channels.c1.transactionCapacity = 300",
        place: "agent.conf:12: error: a1.channels.c1.transactionCapacity = \"300\": ",
        words: &[
            "at most the channel's capacity, which is 200",
            "Flume says: Transaction Capacity of Memory Channel cannot be higher than the capacity.",
            "Flume says: Channel c1 has been removed due to an error during configuration",
        ],
    },
    Fault {
        // The default transaction capacity, 100, is above this capacity, which surprises people.
        replaced: &[],
        more: "a1.channels.c1.capacity = 10",
        place: "agent.conf:8: error: a1.channels.c1.transactionCapacity: ",
        words: &["Flume says: Transaction Capacity of Memory Channel cannot be higher than the capacity."],
    },
    Fault {
        replaced: &[],
        more: "a1.sinks.k1.batchSize = 200",
        place: "agent.conf:9: error: a1.sinks.k1: ",
        words: &[
            "Flume says: Incompatible sink and channel settings defined. sink's batch size is greater than the \
             channels transaction capacity. Sink: k1, batch size = 200, channel c1, transaction capacity = 100",
            "help: set a1.channels.c1.transactionCapacity = 200 or more",
        ],
    },
    Fault {
        replaced: &[(4, "a1.sources.r1.type = seq"), (5, ""), (6, "a1.sources.r1.batchSize = 200")],
        more: "",
        place: "agent.conf:4: error: a1.sources.r1: ",
        words: &[
            "Flume says: Incompatible source and channel settings defined. source's batch size is greater than the \
             channels transaction capacity. Source: r1, batch size = 200, channel c1, transaction capacity = 100",
        ],
    },
    Fault {
        replaced: &[],
        more: "a1.sources.r1.selector.type = replicatin",
        place: "agent.conf:11: error: a1.sources.r1.selector.type = \"replicatin\": ",
        words: &["did you mean \"replicating\"?"],
    },
    Fault {
        replaced: &[],
        more: "a1.sources.r1.interceptors = i1\na1.sources.r1.interceptors.i1.type = statik",
        place: "agent.conf:12: error: a1.sources.r1.interceptors.i1.type = \"statik\": ",
        words: &["did you mean \"static\"?"],
    },
    Fault {
        replaced: &[],
        more: "a1.sources.r1.interceptors = i1",
        place: "agent.conf:4: error: a1.sources.r1.interceptors.i1.type: ",
        words: &["Flume says: Interceptor.Type not specified for i1"],
    },
    Fault {
        replaced: &[(9, "a1.sinks.k1.type = file_roll")],
        more: "a1.sinks.k1.sink.directory = /tmp\na1.sinks.k1.sink.serializer = avro_evnt",
        place: "agent.conf:12: error: a1.sinks.k1.sink.serializer = \"avro_evnt\": ",
        words: &["did you mean \"avro_event\"?"],
    },
    Fault {
        replaced: &[(9, "a1.sinks.k1.type = file_roll")],
        more: "",
        place: "agent.conf:9: error: a1.sinks.k1.sink.directory: ",
        words: &["Flume says: Directory may not be null"],
    },
    Fault {
        replaced: &[(1, "a1.Sources = r1")],
        more: "",
        place: "agent.conf:1: warning: a1.Sources = \"r1\": ",
        words: &["did you mean \"a1.sources\"?", "Flume says: Configuration property ignored: a1.Sources = r1"],
    },
    Fault {
        replaced: &[],
        more: "a1.channels.c1.capacity = ${NO_SUCH_VARIABLE_ANYWHERE}",
        place: "agent.conf:11: warning: a1.channels.c1.capacity = \"${NO_SUCH_VARIABLE_ANYWHERE}\": ",
        words: &["is not defined and stays as text"],
    },
    Fault {
        replaced: &[],
        more: "a1.sources.r1.encoding = \\u00zz",
        place: "agent.conf:11: error: ",
        words: &["Flume says: Malformed \\uxxxx encoding."],
    },
];

#[test]
fn a_good_configuration_has_no_findings() {
    let (text, status) = check(&with(&[], ""), &[]);
    assert_eq!(
        text,
        "agent a1\n  source  r1  netcat  -> c1\n  channel c1  memory\n  sink    k1  null    <- c1\n0 errors, 0 warnings\n"
    );
    assert_eq!(status, Some(0));
}

#[test]
fn every_fault_is_named_with_its_place_and_what_may_have_been_meant() {
    let mut wrong = Vec::new();
    for Fault { replaced, more, place, words } in FAULTS {
        let (text, status) = check(&with(replaced, more), &[]);
        let begins = text.lines().any(|line| line.starts_with(place));
        let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
        let expected = if place.contains(": error: ") { 1 } else { 0 };
        if !begins || !missing.is_empty() || status != Some(expected) {
            wrong.push(format!("{place}\n  begins: {begins}, missing: {missing:?}, status {status:?}\n{text}"));
        }
        if expected == 0 {
            let (_, strict) = check(&with(replaced, more), &["--strict"]);
            assert_eq!(strict, Some(1), "{place}: a warning fails a strict check");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_faults_are_found_in_one_run() {
    let replaced = [(5, ""), (6, "a1.sources.r1.port = x"), (9, "a1.sinks.k1.type = nul")];
    let more = "a1.sources.r1.ack = false\na1.sources.r1.selector.type = nosuch\na1.sources.r1.interceptors = i1\n\
                a1.sources.r1.interceptors.i1.type = nosuch\na1.channels.c1.transactionCapacity = 1000\n";
    let (text, status) = check(&with(&replaced, more), &[]);
    for part in [
        "agent.conf:4: error: a1.sources.r1.bind: missing",
        "agent.conf:6: error: a1.sources.r1.port = \"x\"",
        "agent.conf:9: error: a1.sinks.k1.type = \"nul\"",
        "agent.conf:11: warning: a1.sources.r1.ack = \"false\"",
        "agent.conf:12: error: a1.sources.r1.selector.type = \"nosuch\"",
        "agent.conf:14: error: a1.sources.r1.interceptors.i1.type = \"nosuch\"",
        "agent.conf:15: error: a1.channels.c1.transactionCapacity = \"1000\"",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(status, Some(1));
}

#[test]
fn an_agent_that_is_not_in_the_file_is_named_with_the_one_that_is() {
    let (text, status) = check(&with(&[], ""), &["--name", "a2"]);
    assert!(text.contains("there is no agent a2"), "{text}");
    assert!(text.contains("did you mean \"a1\"?"), "{text}");
    assert!(text.contains("Flume says: No configuration found for this host:a2"), "{text}");
    assert_eq!(status, Some(1));
}

#[test]
fn without_anything_to_read_the_status_is_2() {
    let output = run(&["check", "--conf-file", "/no/such/file.conf"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Unable to read file /no/such/file.conf"), "{}", stderr(&output));
    assert!(stderr(&output).contains("No such file or directory"), "{}", stderr(&output));
    assert_eq!(run(&["check"]).status.code(), Some(2));
}

#[test]
fn findings_and_graph_are_json_for_machines() {
    let (text, status) = check(&with(&[(6, "a1.sources.r1.port = 4444x")], ""), &["--format", "json"]);
    let value: Value = serde_json::from_str(&text).expect("it is JSON");
    let finding = &value["findings"][0];
    let finding = if finding["key"] == "a1.sources.r1.port" { finding } else { &value["findings"][1] };
    assert_eq!(finding["severity"], "error");
    assert_eq!(finding["file"], "agent.conf");
    assert_eq!(finding["line"], 6);
    assert_eq!(finding["key"], "a1.sources.r1.port");
    assert_eq!(finding["value"], "4444x");
    assert_eq!(finding["message"], "expected a port between 0 and 65535");
    assert_eq!(value["agents"][0]["name"], "a1");
    assert_eq!(value["agents"][0]["sources"], Value::Array(Vec::new()), "what does not run is not in the graph");
    assert_eq!(value["agents"][0]["sinks"][0]["channel"], "c1");
    assert_eq!(value["agents"][0]["sinks"][0]["class"], "org.apache.flume.sink.NullSink");
    assert_eq!(status, Some(1));
}

#[test]
fn the_graph_is_drawn_for_dot() {
    let (text, status) = check(&with(&[], ""), &["--format", "dot"]);
    assert!(text.starts_with("digraph"), "{text}");
    assert!(text.contains("\"a1/source/r1\" -> \"a1/channel/c1\";"), "{text}");
    assert!(text.contains("\"a1/channel/c1\" -> \"a1/sink/k1\";"), "{text}");
    assert_eq!(text.matches('{').count(), text.matches('}').count());
    assert_eq!(status, Some(0));
}

#[test]
fn strict_agents_refuse_what_has_errors() {
    for Fault { replaced, more, place, .. } in FAULTS.iter().filter(|fault| fault.place.contains(": error: ")) {
        let home = directory();
        let file = write(home.path(), "agent.conf", with(replaced, more));
        let file = file.display().to_string();
        let output = run(&["agent", "-n", "a1", "-f", &file, "--strict"]);
        assert_eq!(output.status.code(), Some(1), "{place}");
        let log = stderr(&output);
        assert!(log.contains("--strict refuses it"), "{log}");
        assert!(log.contains(&place.replace("agent.conf", &file)), "{place} is not in\n{log}");
    }
}

#[test]
fn without_strict_the_right_part_runs_and_flumes_words_are_in_the_log() {
    let sources = NETCAT.replace("sources = r1", "sources = r1 r2 r3");
    let sinks = LOGGER.replace("sinks = k1", "sinks = k1 k2");
    let agent = TestAgent::start(&format!(
        "{sources}{MEMORY}{sinks}a1.sources.r2.type = netcat\na1.sources.r2.bind = localhost\n\
         a1.sources.r2.channels = c1\na1.sources.r3.type = no.such.Source\na1.sources.r3.channels = c1\n\
         a1.sinks.k2.type = logger\n"
    ));
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    agent.wait_for_events(1);
    let log = agent.log();
    for words in [
        "Required parameter port must exist and may not be null",
        "Source r2 has been removed due to an error during configuration",
        "Unable to load source type: no.such.Source, class: no.such.Source",
        "Could not configure sink  k2 due to: No channel configured for sink: k2",
        "--strict refuses such a configuration",
        "Post-validation flume configuration contains configuration for agents: [a1]",
        "Channel c1 connected to [r1, k1]",
    ] {
        assert!(log.contains(words), "{words}");
    }
}

#[test]
fn an_agent_without_a_configuration_runs_idle_and_says_so() {
    let config = format!("{NETCAT}{MEMORY}{LOGGER}").replace("a1.", "a2.");
    let mut agent = TestAgent::start(&config);
    agent.wait_for_line("No configuration found for this host:a1");
    assert_eq!(agent.http("GET", "/metrics").body, "{}");
    assert!(agent.terminate().success());
}

#[test]
fn of_two_agents_in_a_file_only_the_named_one_runs() {
    let one = format!("{NETCAT}{MEMORY}{NULL}");
    let two = format!("{NETCAT}{MEMORY}{LOGGER}").replace("a1.", "web-2.");
    let agent = Launch::bare().args(["agent", "--name", "web-2"]).config(&format!("{one}{two}"));
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    agent.wait_for_events(1);
    assert_eq!(agent.messages("Created serverSocket").len(), 1);
    assert!(agent.log().contains("contains configuration for agents: [a1, web-2]"));
}

#[test]
fn later_files_override_earlier_ones() {
    let home = directory();
    let base = write(home.path(), "base.conf", format!("{NETCAT}{MEMORY}{NULL}").replace("port = 0", "port = 1"));
    let over = write(home.path(), "over.properties", "a1.sources.r1.port = 0\na1.sinks.k1.type = logger\n");
    let agent = Launch::new().args(["-f".as_ref(), base.as_os_str(), "-f".as_ref(), over.as_os_str()]).start();
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    agent.wait_for_events(1);
}

#[test]
fn a_uri_is_read_instead_of_files() {
    let home = directory();
    let file = write(home.path(), "agent.conf", format!("{NETCAT}{MEMORY}{LOGGER}"));
    let agent = Launch::new()
        .args(["--conf-uri", &format!("file://{}", file.display()), "--conf-file", "/no/such/file"])
        .start();
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    let directory = home.path().display().to_string();
    let agent = Launch::new().args(["-u", "classpath:agent.conf", "--conf", &directory]).start();
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
}

#[test]
fn system_properties_may_stand_before_and_after_the_command() {
    let text = format!(
        "{NETCAT}{MEMORY}{LOGGER}a1.sources.r1.interceptors = i1\na1.sources.r1.interceptors.i1.type = static\n\
         a1.sources.r1.interceptors.i1.key = ${{sys:the.key}}\n\
         a1.sources.r1.interceptors.i1.value = ${{sys:the.value}}\n"
    );
    let agent =
        Launch::bare().args(["-Dthe.key=place", "-Xmx20m", "agent", "-name", "a1", "-Dthe.value=a=b"]).config(&text);
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    assert!(agent.wait_for_events(1)[0].starts_with("Event: { headers:{place=a=b} body: "));
}

/// What a static interceptor's header comes to, with some environment.
fn substituted(value: &str, more: &str) -> String {
    let agent =
        Launch::new().env("FLUME_RS_TEST", "from environment").env("FLUME_RS_SECRET", "s3cret").config(&format!(
            "{NETCAT}{MEMORY}{LOGGER}a1.sources.r1.interceptors = i1\na1.sources.r1.interceptors.i1.type = static\n\
         a1.sources.r1.interceptors.i1.key = k\na1.sources.r1.interceptors.i1.value = {value}\n{more}"
        ));
    assert_eq!(Conversation::with(agent.port()).ask(""), "OK");
    let event = agent.wait_for_events(1).remove(0);
    let header = event.strip_prefix("Event: { headers:{k=").and_then(|rest| rest.strip_suffix("} body: }"));
    header.unwrap_or_else(|| panic!("{event}")).to_owned()
}

#[test]
fn values_refer_to_the_environment_and_to_each_other() {
    assert_eq!(substituted("${env:FLUME_RS_TEST}", ""), "from environment");
    assert_eq!(substituted("${ENV:FLUME_RS_TEST}", ""), "from environment", "prefixes are in any case, as in Flume");
    assert_eq!(substituted("<${env:FLUME_RS_UNSET:-default}>", ""), "<default>");
    assert_eq!(substituted("<${WORD}>", "WORD = one\n"), "<one>");
    assert_eq!(substituted("${FLUME_RS_TEST}", ""), "${FLUME_RS_TEST}");
    assert_eq!(substituted("$${env:FLUME_RS_TEST}", ""), "${env:FLUME_RS_TEST}");
}

#[test]
fn config_filters_fill_in_secrets() {
    let filter = "a1.configfilters = f1 f2\na1.configfilters.f1.type = env\na1.configfilters.f2.type = external\n\
                  a1.configfilters.f2.command = echo ext\n";
    assert_eq!(substituted("a${f1['FLUME_RS_SECRET']}b${f2[\"key\"]}c", filter), "as3cretbext keyc");
    assert_eq!(substituted("${f1[FLUME_RS_SECRET]}", filter), "s3cret");
}

#[test]
fn names_fall_back_to_the_environment_with_flumes_old_switch() {
    let text = format!("{NETCAT}{MEMORY}{LOGGER}").replace("port = 0", "port = ${FLUME_RS_PORT}");
    let agent = Launch::new()
        .args(["-DpropertiesImplementation=org.apache.flume.node.EnvVarResolverProperties"])
        .env("FLUME_RS_PORT", "0")
        .config(&text);
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
}

/// Examples copied from pages that escape their comment signs: such a line is a property, not a comment.
#[test]
fn comments_copied_from_a_web_page_are_ignored_with_a_word() {
    let (sources, rest) = NETCAT.split_once('\n').expect("it has several lines");
    let text = format!(
        "\\# example.conf: A single-node configuration\n\n\\# Name the components on this agent\n{sources}\n\
         \\# Describe the source\n{rest}\\# Describe the sink\n{LOGGER}\
         \\# Use a channel which buffers events in memory\n{MEMORY}"
    );
    let agent = TestAgent::start(&text);
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    agent.wait_for_events(1);
    let ignored = agent.wait_for_line("Configuration property ignored: # = ");
    assert!(message(&ignored).contains(" = "), "{ignored}");
    let (_, status) = check(&text, &[]);
    assert_eq!(status, Some(0), "it is no error");
}

#[test]
fn a_backup_is_kept_and_used() {
    let home = directory();
    let file = write(home.path(), "agent.conf", format!("{NETCAT}{MEMORY}{LOGGER}"));
    let args = |path: &Path| -> Vec<String> {
        let (path, home) = (path.display().to_string(), home.path().display().to_string());
        ["--conf-file", &path, "--backup-directory", &home].map(str::to_owned).to_vec()
    };
    let mut agent = Launch::new().args(args(&file)).start();
    agent.port();
    assert!(agent.terminate().success());
    assert!(home.path().join(".a1.properties").is_file());
    std::fs::remove_file(&file).expect("the file is there");
    let agent = Launch::new().args(args(&file)).start();
    agent.wait_for_line("Unable to access primary configuration. Trying backup");
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
}
