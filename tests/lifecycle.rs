//! Start, reload and stop: what happens to events and connections then.

use std::fs;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::support::{
    Conversation, LOGGER, Launch, MEMORY, NETCAT, NULL, TestAgent, contents, directory, eventually, file_roll, message,
    write,
};

/// The counts of an agent's last line: accepted, refused, delivered, lost.
fn summary(agent: &TestAgent) -> [u64; 4] {
    // What a process printed may still be on its way when it has ended.
    agent.wait_for_line("Agent a1 stopped: ");
    let line = agent.last_line();
    let words =
        message(&line).strip_prefix("Agent a1 stopped: ").unwrap_or_else(|| panic!("the last line is {line:?}"));
    let numbers: Vec<u64> = words.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok()).collect();
    assert!(words.contains("accepted") && words.contains("refused") && words.contains("delivered"), "{words}");
    assert!(words.ends_with("lost"), "{words}");
    numbers.try_into().unwrap_or_else(|_| panic!("{words}"))
}

/// An agent that reads its configuration again every second.
fn reloading_agent(config: &str) -> TestAgent {
    TestAgent::start_with(config, &["--poll-interval", "1"])
}

#[test]
fn what_was_accepted_is_delivered_before_the_end() {
    let out = directory();
    let target = out.path().join("later");
    let mut agent = TestAgent::start(&format!(
        "a1.sources = r1\na1.sources.r1.type = seq\na1.sources.r1.totalEvents = 20000\na1.sources.r1.batchSize = 100\n\
         a1.sources.r1.channels = c1\n{MEMORY}a1.channels.c1.capacity = 20000\n{}",
        file_roll(&target)
    ));
    // The sink has nowhere to write yet, so that everything waits in the channel.
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 20_000);
    agent.signal(Signal::TERM);
    agent.wait_for_line("Shutting down configuration");
    fs::create_dir(&target).expect("the temporary directory can be written to");
    let status = agent.wait();
    assert_eq!(status.code(), Some(0));
    assert_eq!(summary(&agent), [20_000, 0, 20_000, 0]);
    let expected: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    assert!(contents(&target) == expected.as_bytes(), "the file has every number once and in order");
}

#[test]
fn a_stop_under_load_loses_nothing_that_was_accepted() {
    let out = directory();
    let mut agent = TestAgent::start(&format!(
        "a1.sources = r1\na1.sources.r1.type = seq\na1.sources.r1.batchSize = 10\na1.sources.r1.channels = c1\n\
         {MEMORY}{}",
        file_roll(out.path())
    ));
    let busy = eventually(|| (contents(out.path()).len() > 10_000).then_some(()));
    assert!(busy.is_some(), "events flow");
    assert_eq!(agent.terminate().code(), Some(0));
    let [accepted, _, delivered, lost] = summary(&agent);
    assert_eq!((delivered, lost), (accepted, 0));
    let expected: String = (0..accepted).map(|number| format!("{number}\n")).collect();
    assert!(contents(out.path()) == expected.as_bytes(), "the file has every number once and in order");
}

#[test]
fn events_that_nobody_delivers_are_counted_and_change_the_exit_status() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = TestAgent::start(&format!("{NETCAT}{MEMORY}"));
        let mut nc = Conversation::with(agent.port());
        nc.send("1\n2\n3\n");
        assert_eq!(nc.lines(3), ["OK", "OK", "OK"]);
        agent.signal(signal);
        assert_eq!(agent.wait().code(), Some(1));
        assert_eq!(summary(&agent), [3, 0, 0, 3]);
        assert!(agent.last_line().contains("[ERROR - "), "{}", agent.last_line());
        assert!(agent.log().contains("Channel c1 is gone with 3 events"));
    }
}

#[test]
fn an_idle_agent_stops_with_0_and_closes_its_connections() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{LOGGER}"));
        let mut nc = Conversation::with(agent.port());
        assert_eq!(nc.ask("hello"), "OK");
        agent.signal(signal);
        assert_eq!(agent.wait().code(), Some(0));
        nc.expect_eof();
        assert_eq!(summary(&agent), [1, 0, 1, 0]);
        let log = agent.log();
        let position = |part: &str| log.find(part).unwrap_or_else(|| panic!("{part} is not in the log"));
        let order = ["Starting Channel c1", "Starting Sink k1", "Starting Source r1", "Stopping Source r1"];
        let order = order.into_iter().chain(["Stopping Sink k1", "Stopping Channel c1", "Agent a1 stopped"]);
        assert!(order.map(position).is_sorted(), "start and stop follow Flume's order");
        assert!(log.contains("Shutdown Metric for type: SINK, name: k1. sink.event.drain.sucess == 1"));
        assert!(log.contains("Shutdown Metric for type: CHANNEL, name: c1. channel.event.put.success == 1"));
        assert!(log.contains("Shutdown Metric for type: SOURCE, name: r1. src.events.accepted == 1"));
    }
}

/// An agent whose sink never gets to deliver, with one event in its channel.
fn stuck_agent(drain_timeout: &str) -> (TestAgent, tempfile::TempDir) {
    let out = directory();
    let config = format!("{NETCAT}{MEMORY}{}", file_roll(&out.path().join("never")));
    let agent = TestAgent::start_with(&config, &["--drain-timeout", drain_timeout]);
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    agent.wait_for_line("Unable to start SinkRunner");
    (agent, out)
}

#[test]
fn a_second_signal_ends_at_once() {
    let (mut agent, _out) = stuck_agent("600");
    agent.signal(Signal::TERM);
    // The source has stopped and printed its last counter; now the drain would take ten minutes.
    agent.wait_for_line("name: r1. src.open-connection.count == ");
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(1));
    agent.wait_for_line("ending at once");
    assert_eq!(summary(&agent), [1, 0, 0, 1]);
}

/// Nothing that is cut off goes on behind the line that sums up.
#[test]
fn the_last_line_stays_the_last_when_sources_are_cut_off() {
    let names: Vec<String> = (0..20).map(|number| format!("r{number}")).collect();
    let mut config = format!("{MEMORY}{NULL}a1.sources = {}\n", names.join(" "));
    for name in &names {
        config.push_str(&NETCAT.replace("a1.sources = r1\n", "").replace(".r1.", &format!(".{name}.")));
    }
    for _ in 0..20 {
        let mut agent = TestAgent::start_with(&config, &["--drain-timeout", "600"]);
        agent.ports(20);
        agent.wait_for_lines("Component type: SOURCE", 20);
        agent.signal(Signal::TERM);
        agent.wait_for_line("Shutting down configuration");
        agent.signal(Signal::TERM);
        assert_eq!(agent.wait().code(), Some(0));
        assert_eq!(summary(&agent), [0, 0, 0, 0]);
    }
}

#[test]
fn the_drain_has_a_limit() {
    let (mut agent, _out) = stuck_agent("0.2");
    assert_eq!(agent.terminate().code(), Some(1));
    agent.wait_for_line("the channels could not be drained");
    assert_eq!(summary(&agent), [1, 0, 0, 1]);
}

#[test]
fn a_new_sink_gets_the_events_of_the_old_one_and_the_source_is_not_touched() {
    let out = directory();
    let never = file_roll(&out.path().join("never"));
    let agent = reloading_agent(&format!("{NETCAT}{MEMORY}{never}"));
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("before"), "OK");
    agent.rewrite(&format!("{NETCAT}{MEMORY}{LOGGER}"));
    agent.wait_for_line("Reloading configuration file:");
    assert!(agent.wait_for_events(1)[0].ends_with("before }"));
    assert_eq!(nc.ask("after"), "OK", "the connection has lived on");
    assert!(agent.wait_for_events(2)[1].ends_with("after }"));
    assert_eq!(agent.messages("Creating instance of sink: k1, type: logger").len(), 1);
    assert_eq!(agent.messages("Creating instance of source r1").len(), 1);
    assert_eq!(agent.messages("Created serverSocket:").len(), 1);
    assert_eq!(agent.messages("Creating instance of channel c1").len(), 1);
    assert_eq!(agent.counter("SOURCE.r1", "EventAcceptedCount"), 2, "its counters go on");
}

#[test]
fn null_becomes_logger() {
    let agent = reloading_agent(&format!("{NETCAT}{MEMORY}{NULL}"));
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("dropped"), "OK");
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 1);
    agent.rewrite(&format!("{NETCAT}{MEMORY}{LOGGER}"));
    agent.wait_for_line("Starting Sink k1");
    agent.wait_for_lines("Starting Sink k1", 2);
    assert_eq!(nc.ask("printed"), "OK");
    assert!(agent.wait_for_events(1)[0].ends_with("printed }"));
}

#[test]
fn a_channel_takes_new_limits_in_place() {
    let agent = Launch::new().config(&format!("{NETCAT}{MEMORY}"));
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("kept"), "OK");
    agent.rewrite(&format!("{NETCAT}{MEMORY}a1.channels.c1.capacity = 500\n"));
    agent.signal(Signal::HUP);
    agent.wait_for_counter("CHANNEL.c1", "ChannelCapacity", 500);
    assert_eq!(agent.counter("CHANNEL.c1", "ChannelSize"), 1);
    assert_eq!(nc.ask("more"), "OK");
    agent.wait_for_counter("CHANNEL.c1", "ChannelSize", 2);
}

#[test]
fn a_changed_source_starts_anew_and_the_channel_keeps_its_events() {
    let agent = Launch::new().config(&format!("{NETCAT}{MEMORY}"));
    assert_eq!(Conversation::with(agent.port()).ask("kept"), "OK");
    agent.rewrite(&format!("{NETCAT}{MEMORY}{LOGGER}a1.sources.r1.max-line-length = 3\n"));
    agent.signal(Signal::HUP);
    let ports = agent.ports(2);
    assert!(Conversation::with(ports[1]).ask("long").starts_with("FAILED: "));
    assert!(agent.wait_for_events(1)[0].ends_with("kept }"));
}

#[test]
fn a_faulty_change_leaves_everything_as_it_was() {
    let good = format!("{NETCAT}{MEMORY}{LOGGER}");
    let agent = reloading_agent(&good);
    let mut nc = Conversation::with(agent.port());
    let mut printed = 0;
    for (number, bad) in
        [good.replace("= logger", "= loger"), good.replace("port = 0", "port = many"), NETCAT.to_owned(), String::new()]
            .iter()
            .enumerate()
    {
        agent.rewrite(bad);
        agent.wait_for_lines("the agent goes on as it was", number + 1);
        assert_eq!(nc.ask("hello"), "OK");
        printed += 1;
        agent.wait_for_events(printed);
    }
    assert!(agent.log().contains("did you mean \"logger\"?"));
    assert_eq!(agent.messages("Stopping").len(), 0);
    // The next good file is applied, which Flume would not notice any more.
    agent.rewrite(&format!("{good}a1.channels.c1.capacity = 300\n"));
    agent.wait_for_counter("CHANNEL.c1", "ChannelCapacity", 300);
}

#[test]
fn a_file_that_is_gone_for_a_while_changes_nothing() {
    let good = format!("{NETCAT}{MEMORY}{LOGGER}");
    let agent = reloading_agent(&good);
    let mut nc = Conversation::with(agent.port());
    fs::remove_file(agent.home().join("agent.conf")).expect("the file is there");
    agent.signal(Signal::HUP);
    agent.wait_for_line("Failed to load configuration data. Exception follows.");
    assert_eq!(nc.ask("hello"), "OK");
    agent.rewrite(&format!("{good}a1.channels.c1.capacity = 300\n"));
    agent.wait_for_counter("CHANNEL.c1", "ChannelCapacity", 300);
    assert_eq!(nc.ask("hello"), "OK");
}

/// The configuration's own filter changes the file between its reading and the start of the components.
#[test]
fn a_change_during_the_start_is_not_missed() {
    let home = directory();
    let path = |name: &str| home.path().join(name).display().to_string();
    let filter = "a1.configfilters = f\na1.configfilters.f.type = external\n";
    let text = format!("{NETCAT}{MEMORY}{filter}a1.configfilters.f.command = sh {}\n", path("filter.sh"));
    let text = text.replace("bind = localhost", "bind = ${f['host']}");
    let old = write(home.path(), "agent.conf", format!("{text}{NULL}"));
    // An hour old, so that the times of the two files differ whatever the clock's grain.
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let old = fs::File::options().append(true).open(old).expect("the file is there");
    old.set_modified(hour_ago).expect("the time can be set");
    write(home.path(), "next.conf", format!("{text}{LOGGER}"));
    let script = format!("[ ! -f {0} ] || mv {0} {1}\necho localhost\n", path("next.conf"), path("agent.conf"));
    write(home.path(), "filter.sh", script);
    let agent = Launch::new().args(["--poll-interval", "1", "--conf-file", &path("agent.conf")]).start();
    agent.wait_for_line("Reloading configuration file:");
    agent.wait_for_line("Creating instance of sink: k1, type: logger");
}

#[test]
fn sighup_reads_the_configuration_at_once() {
    let agent = TestAgent::start_with(&format!("{NETCAT}{MEMORY}"), &["--no-reload-conf"]);
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("hello"), "OK");
    agent.rewrite(&format!("{NETCAT}{MEMORY}{LOGGER}"));
    agent.signal(Signal::HUP);
    agent.wait_for_line("Reloading configuration file:");
    agent.wait_for_events(1);
    assert_eq!(nc.ask("hello"), "OK");
}

#[test]
fn removed_components_stop() {
    let out = directory();
    let both = NETCAT.replace("sources = r1", "sources = r1 r2");
    let second = "a1.sources.r2.type = netcat\na1.sources.r2.bind = localhost\na1.sources.r2.port = 0\n\
                  a1.sources.r2.channels = c1\n";
    let mut agent = TestAgent::start(&format!("{both}{second}{MEMORY}{}", file_roll(out.path())));
    let ports = agent.ports(2);
    let mut connections: Vec<Conversation> = ports.iter().map(|port| Conversation::with(*port)).collect();
    for connection in &mut connections {
        assert_eq!(connection.ask("x"), "OK");
    }
    agent.rewrite(&format!("{NETCAT}{MEMORY}{}", file_roll(out.path())));
    agent.signal(Signal::HUP);
    agent.wait_for_line("Stopping Source r2");
    agent.wait_for_line("Component type: SOURCE, name: r2 stopped");
    // One of the two connections is closed, the other one lives on.
    let refused: Vec<bool> =
        ports.iter().map(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_err()).collect();
    assert_eq!(refused.iter().filter(|refused| **refused).count(), 1, "{refused:?}");
    for (mut connection, refused) in connections.into_iter().zip(refused) {
        if refused {
            connection.expect_eof();
        } else {
            assert_eq!(connection.ask("x"), "OK");
        }
    }
    assert_eq!(agent.terminate().code(), Some(0));
    assert_eq!(summary(&agent), [3, 0, 3, 0]);
    assert_eq!(contents(out.path()), b"x\nx\nx\n");
}

#[test]
fn a_signal_during_a_reload_cuts_the_drain_of_a_leaving_channel_short() {
    let out = directory();
    let never = file_roll(&out.path().join("never"));
    let config = format!("{NETCAT}{MEMORY}{never}");
    let mut agent = TestAgent::start_with(&config, &["--poll-interval", "1", "--drain-timeout", "600"]);
    assert_eq!(Conversation::with(agent.port()).ask("stuck"), "OK");
    // The channel leaves, and its sink has nowhere to write: the drain would take ten minutes.
    agent.rewrite(&config.replace("c1", "c2"));
    agent.wait_for_line("Stopping Source r1");
    // What is new runs meanwhile.
    let port = agent.ports(2)[1];
    assert_eq!(Conversation::with(port).ask("served"), "OK");
    agent.signal(Signal::TERM);
    agent.wait_for_line("SIGTERM: stopping");
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(1));
    assert_eq!(summary(&agent), [2, 0, 0, 2]);
}

#[test]
fn another_agents_mistake_does_not_keep_this_one_from_reloading() {
    let other = format!("{NETCAT}{MEMORY}{NULL}").replace("a1.", "a2.");
    let agent = reloading_agent(&format!("{NETCAT}{MEMORY}{NULL}{other}"));
    agent.ports(1);
    agent.rewrite(&format!("{NETCAT}{MEMORY}{LOGGER}a2.sources = r1\na2.channels = c1\n"));
    agent.wait_for_line("Agent configuration invalid for agent 'a2'. It will be removed.");
    agent.wait_for_line("Creating instance of sink: k1, type: logger");
}

#[test]
fn only_a_good_configuration_becomes_the_backup() {
    let backup = directory();
    let path = backup.path().join(".a1.properties");
    let arguments = ["--backup-directory".to_owned(), backup.path().display().to_string()];
    let good = format!("{NETCAT}{MEMORY}{LOGGER}");
    let mut agent = Launch::new().args(&arguments).config(&good);
    agent.ports(1);
    agent.terminate();
    assert!(fs::read_to_string(&path).expect("a backup").contains("netcat"));
    let mut agent = Launch::new().args(&arguments).config("garbage\n");
    agent.wait_for_line("No configuration found for this host:a1");
    agent.terminate();
    assert!(fs::read_to_string(&path).expect("a backup").contains("netcat"));
    // With nothing else to read, it is what runs.
    let missing = backup.path().join("missing.conf").display().to_string();
    let agent = Launch::new().args(&arguments).args(["--conf-file", &missing]).start();
    agent.wait_for_line("Unable to access primary configuration. Trying backup");
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
}
