//! Every file of `examples/`, run as its head says, with a second file that moves ports and paths.

use std::fs;
use std::io::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use flume_rs::rpc::spark::PollingClient;
use flume_rs::rpc::transport::Endpoint;
use rustix::process::Signal;

use crate::support::{
    Conversation, DEADLINE, Kafka, Launch, Message, TestAgent, contents, directory, eventually, files, free_port, java,
    java_peers, message, post, run, shape, stderr, stdout, write,
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example(name: &str) -> PathBuf {
    repository().join("examples").join(name)
}

/// Starts an agent of an example; what `overrides` says comes last.
fn start(agent: &str, example_file: &Path, overrides: &str, env: &[(&str, &Path)]) -> TestAgent {
    let mut launch = Launch::bare().args(["agent", "--name", agent]);
    launch = launch.args(["--conf".as_ref(), repository().join("conf").as_os_str()]);
    launch = launch.args(["--conf-file".as_ref(), example_file.as_os_str()]);
    for (key, value) in env {
        launch = launch.env(key, value);
    }
    launch.config(overrides)
}

fn append(file: &Path, text: &str) {
    let opened = fs::File::options().create(true).append(true).open(file);
    let mut file = opened.expect("the temporary directory can be written to");
    file.write_all(text.as_bytes()).expect("the file can be written to");
}

#[test]
fn all_of_them_are_right() {
    let paths = files(&repository().join("examples"));
    let examples: Vec<&PathBuf> = paths.iter().filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
    assert!(examples.len() >= 25, "{examples:?}");
    for path in examples.into_iter().chain([&repository().join("conf/example.conf")]) {
        let output = run(&["check", "--conf-file", &path.display().to_string()]);
        assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
        // A directory is for the reader to make, as the head of the example says.
        let text = stdout(&output);
        let other =
            text.lines().find(|line| line.contains("warning: ") && !line.contains("the directory does not exist"));
        assert_eq!(other, None, "{text}");
        let text = fs::read_to_string(path).expect("an example can be read");
        assert!(text.starts_with("# ") && text.contains("flume-rs agent --name"), "{} has no head", path.display());
    }
}

#[test]
fn netcat_memory_logger() {
    for file in [example("netcat-memory-logger.conf"), repository().join("conf/example.conf")] {
        let agent = start("a1", &file, "a1.sources.r1.port = 0\n", &[]);
        let mut nc = Conversation::with(agent.port());
        assert_eq!(nc.ask("Hello world!\r"), "OK");
        let event = "Event: { headers:{} body: 48 65 6C 6C 6F 20 77 6F 72 6C 64 21 0D          Hello world!. }";
        assert_eq!(agent.wait_for_events(1), [event]);
    }
}

#[test]
fn exec_memory_logger() {
    let home = directory();
    let log = write(home.path(), "example.log", "first\n");
    let mut agent = start("a1", &example("exec-memory-logger.conf"), "", &[("EXAMPLE_LOG", &log)]);
    assert!(agent.wait_for_events(1)[0].ends_with("first }"));
    append(&log, "second\r\n");
    assert!(agent.wait_for_events(2)[1].ends_with("second }"), "a shell's tail goes on");
    assert!(agent.terminate().success());
}

#[test]
fn exec_memory_logger_follows_the_default_without_a_variable() {
    let agent = start("a1", &example("exec-memory-logger.conf"), "", &[]);
    let line = agent.wait_for_line("Exec source starting with command");
    assert_eq!(message(&line), "Exec source starting with command: tail -F /tmp/example.log");
}

#[test]
fn streaming_project() {
    let home = directory();
    let log = home.path().join("access.log");
    let file = example("streaming_project.conf");
    let agent = start("exec-memory-logger", &file, "", &[("ACCESS_LOG", &log)]);
    agent.wait_for_line("Component type: SOURCE, name: exec-source started");
    append(&log, "93.184.216.34 - - [31/Jan/2030:12:00:00 +0000] \"GET /product/1\" 200\n");
    let events = agent.wait_for_events(1);
    assert_eq!(
        events,
        ["Event: { headers:{} body: 39 33 2E 31 38 34 2E 32 31 36 2E 33 34 20 2D 20 93.184.216.34 -  }"]
    );
    assert!(agent.log().contains("Channel memory-channel connected to [exec-source, logger-sink]"));
}

#[test]
fn netcat_memory_file_roll() {
    let out = directory();
    let file = example("netcat-memory-file_roll.conf");
    let mut agent = start("a1", &file, "a1.sources.r1.port = 0\n", &[("LINES_DIR", out.path())]);
    let mut nc = Conversation::with(agent.port());
    let lines: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    nc.send(&lines);
    assert_eq!(nc.lines(1000), vec!["OK"; 1000]);
    assert!(agent.terminate().success());
    assert!(contents(out.path()) == lines.as_bytes(), "every line is in the files");
    let name = files(out.path()).remove(0);
    let name = name.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    assert_eq!(shape(&name), "lines-99999999999999-9.txt");
}

#[test]
fn netcat_file_file_roll() {
    let (home, out) = (directory(), directory());
    let file = example("netcat-file-file_roll.conf");
    let env = [("CHANNEL_DIR", home.path()), ("LINES_DIR", out.path())];
    let space = "a1.channels.c1.minimumRequiredSpace = 1048576\n";
    let mut agent = start("a1", &file, &format!("a1.sources.r1.port = 0\na1.sinks =\n{space}"), &env);
    assert_eq!(Conversation::with(agent.port()).ask("kept"), "OK");
    agent.signal(rustix::process::Signal::KILL);
    agent.wait();
    let channel = home.path().display().to_string();
    assert!(stdout(&run(&["channel", "status", &channel])).starts_with("backlog       1 event, "));
    assert_eq!(run(&["channel", "check", &channel]).status.code(), Some(0));
    let exported = home.path().join("events.avro").display().to_string();
    assert_eq!(run(&["channel", "export", &channel, "--output", &exported]).status.code(), Some(0));
    assert_eq!(stdout(&run(&["channel", "repair", &channel])), "there is nothing to repair\n");
    let mut agent = start("a1", &file, &format!("a1.sources.r1.port = 0\n{space}"), &env);
    let seen = eventually(|| (contents(out.path()) == b"kept\n").then_some(()));
    assert!(seen.is_some());
    assert!(agent.terminate().success());
}

#[test]
fn netcat_spillable_logger() {
    let home = directory();
    let file = example("netcat-spillable-logger.conf");
    let overrides = "a1.sources.r1.port = 0\na1.channels.c1.minimumRequiredSpace = 1048576\n";
    let mut agent = start("a1", &file, overrides, &[("SPILL_DIR", home.path())]);
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    assert!(agent.wait_for_events(1)[0].ends_with("hello }"));
    assert!(agent.terminate().success());
}

#[test]
fn two_agents_one_file() {
    let file = example("two-agents-one-file.conf");
    let numbers = start("numbers", &file, "PORT = 0\n", &[]);
    assert!(numbers.wait_for_events(10)[9].ends_with("9 }"));
    let shop = start("shop", &file, "PORT = 0\n", &[]);
    assert_eq!(Conversation::with(shop.port()).ask("hello"), "OK");
    assert!(shop.wait_for_events(1)[0].starts_with("Event: { headers:{origin=shop} body: 68 65"));
    assert_eq!(numbers.messages("Created serverSocket").len(), 0);
}

#[test]
fn thrift_chain() {
    let file = example("thrift-chain.conf");
    let collector = start("collector", &file, "PORT = 0\n", &[]);
    let port = collector.port_after("Thrift source r1 listens on");
    let edge = start("edge", &file, &format!("PORT = {port}\nedge.sources.r1.port = 0\n"), &[]);
    assert_eq!(Conversation::with(edge.port()).ask("hello"), "OK");
    assert!(collector.wait_for_events(1)[0].ends_with("hello }"));
}

#[test]
fn syslog_memory_file_roll() {
    let out = directory();
    let ports = [free_port(), free_port(), free_port()];
    let overrides =
        format!("syslog.sources.tcp.ports = {} {}\nsyslog.sources.udp.port = {}\n", ports[0], ports[1], ports[2]);
    let file = example("syslog-memory-file_roll.conf");
    let agent = start("syslog", &file, &overrides, &[("SYSLOG_DIR", out.path())]);
    agent.wait_for_line("Syslog UDP source udp: listening on");
    agent.wait_for_line("Multiport Syslog TCP source tcp started.");
    let message = "<165>1 2003-10-11T22:14:15.003Z web1 su failed";
    Conversation::with(ports[1]).send(format!("{message}\n"));
    let lines = |count: usize| {
        let text = || String::from_utf8_lossy(&contents(out.path())).into_owned();
        eventually(|| Some(text()).filter(|text| text.lines().count() >= count)).unwrap_or_else(text)
    };
    let port = ports[1];
    assert_eq!(
        lines(1),
        format!(
            "{{Version=1, port={port}, Priority=165, host=web1, Severity=5, Facility=20, timestamp=1065910455003}} \
             su failed\n"
        )
    );
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    client.send_to(message.as_bytes(), ("127.0.0.1", ports[2])).expect("sent");
    assert!(lines(2).contains("client=127.0.0.1") && lines(2).ends_with("} su failed\n"), "{}", lines(2));
}

#[test]
fn http_memory_logger_and_netcat_memory_http() {
    let web = start("web", &example("http-memory-logger.conf"), "web.sources.r1.port = 0\n", &[]);
    let port = web.port_after("Http source r1: listening on");
    let request = r#"[{"headers": {"page": "/product/1"}, "body": "click"}, {"body": "another"}]"#;
    assert_eq!(post(port, "/", "application/x-www-form-urlencoded", request).status, 200);
    let events = web.wait_for_events(2);
    assert!(
        events[0].starts_with("Event: { headers:{page=/product/1} body: 63 6C") && events[1].ends_with("another }")
    );

    let overrides = format!("poster.sources.r1.port = 0\nposter.sinks.k1.endpoint = http://localhost:{port}/\n");
    let poster = start("poster", &example("netcat-memory-http.conf"), &overrides, &[]);
    let mut nc = Conversation::with(poster.port());
    for line in ["no JSON", r#"[{"body": "hello"}]"#] {
        assert_eq!(nc.ask(line), "OK");
    }
    assert!(web.wait_for_events(3)[2].ends_with("hello }"));
    web.wait_for_line("Bad request from client. Request has invalid JSON Syntax.");
}

/// The agent of `avro-memory-logger.conf`, and its port.
fn collector() -> (TestAgent, u16) {
    let overrides = "avro-memory-logger.sources.avro-source.port = 0\n";
    let agent = start("avro-memory-logger", &example("avro-memory-logger.conf"), overrides, &[]);
    let port = agent.port_after("Avro source avro-source: listening on");
    (agent, port)
}

#[test]
fn exec_memory_avro_and_avro_memory_logger() {
    let home = directory();
    let (collector, port) = collector();
    let overrides = format!("exec-memory-avro.sinks.avro-sink.port = {port}\n");
    // Two servers whose logs come together.
    let logs = ["a.log", "b.log"].map(|name| home.path().join(name));
    let mut senders = logs.each_ref().map(|log| {
        let agent = start("exec-memory-avro", &example("exec-memory-avro.conf"), &overrides, &[("EXAMPLE_LOG", log)]);
        agent.wait_for_line("Component type: SOURCE, name: exec-source started");
        agent
    });
    let hello = "Event: { headers:{} body: 68 65 6C 6C 6F 20 66 6C 69 6E 6B                hello flink }";
    for (count, log) in logs.iter().enumerate() {
        append(log, "hello flink\n");
        assert_eq!(collector.wait_for_events(count + 1), vec![hello; count + 1]);
    }
    let output =
        run(&["avro-client", "--host", "localhost", "--port", &port.to_string(), "-F", &logs[0].display().to_string()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(collector.wait_for_events(3), [hello; 3]);
    assert!(senders.iter_mut().all(|sender| sender.terminate().success()));
}

#[test]
fn exec_avro_kafka() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic(1, &[]);
    let collector = kafka_collector(kafka, &topic);
    let home = directory();
    let log = home.path().join("example.log");
    let overrides = format!("exec-memory-avro.sinks.avro-sink.port = {}\n", avro_port(&collector));
    let sender = start("exec-memory-avro", &example("exec-memory-avro.conf"), &overrides, &[("EXAMPLE_LOG", &log)]);
    sender.wait_for_line("Component type: SOURCE, name: exec-source started");
    append(&log, "hello flink\nhello spark\n");
    let texts: Vec<String> = kafka.read(&topic, 2).iter().map(Message::text).collect();
    assert_eq!(texts, ["hello flink", "hello spark"]);
}

#[test]
fn log4j_avro_kafka() {
    let Some(kafka) = Kafka::shared() else { return };
    let Some(_turn) = java_peers(&["log4j-app-1.6.0"]) else { return };
    let topic = kafka.topic(1, &[]);
    let collector = kafka_collector(kafka, &topic);
    let port = avro_port(&collector).to_string();
    let app = java("log4j-app.sh").env("APPENDER_VERSION", "1.6.0").args(["127.0.0.1", &port, "12", "0"]).start();
    app.wait_for_line("logged 11");
    let texts: Vec<String> = kafka.read(&topic, 12).iter().map(Message::text).collect();
    assert_eq!(texts.len(), 12, "{texts:?}");
    assert!(texts.iter().enumerate().all(|(number, text)| text.contains(&number.to_string())), "{texts:?}");
}

/// The agent that writes to Kafka.
fn kafka_collector(kafka: &Kafka, topic: &str) -> TestAgent {
    let overrides = format!(
        "avro-memory-kafka.sources.avro-source.port = 0\navro-memory-kafka.sinks.kafka-sink.kafka.topic = {topic}\n"
    );
    let env = [("KAFKA", Path::new(kafka.servers()))];
    start("avro-memory-kafka", &example("avro-memory-kafka.conf"), &overrides, &env)
}

fn avro_port(collector: &TestAgent) -> u16 {
    collector.port_after("Avro source avro-source: listening on")
}

#[test]
fn kafka_file_kafka() {
    let (Some(from), Some(to)) = (Kafka::shared(), Kafka::start(1)) else { return };
    let (topic, home) = (from.topic(1, &[]), directory());
    from.produce(&topic, None, ["a", "b"]);
    let env = [
        ("FROM", Path::new(from.servers())),
        ("TO", Path::new(to.servers())),
        ("LOGS", Path::new(&topic)),
        ("STATE", home.path()),
    ];
    let mut agent = start("mirror", &example("kafka-file-kafka.conf"), "", &env);
    let texts = |count| -> Vec<String> { to.read(&topic, count).iter().map(Message::text).collect() };
    assert_eq!(texts(2), ["a", "b"]);
    to.kill(1);
    from.produce(&topic, None, ["c"]);
    agent.wait_for_line("Connection refused");
    to.revive(1);
    assert_eq!(texts(3), ["a", "b", "c"]);
    assert!(agent.terminate().success());
}

#[test]
fn flume_push_streaming() {
    // In the place of Spark's receiver.
    let (receiver, port) = collector();
    let overrides =
        format!("simple-agent.sources.netcat-source.port = 0\nsimple-agent.sinks.avro-sink.port = {port}\n");
    let agent = start("simple-agent", &example("flume_push_streaming.conf"), &overrides, &[]);
    assert_eq!(Conversation::with(agent.port()).ask("spark and flume"), "OK");
    assert!(receiver.wait_for_events(1)[0].ends_with("spark and flume }"));
}

#[test]
fn flume_pull_streaming() {
    let overrides = "simple-agent.sources.netcat-source.port = 0\nsimple-agent.sinks.spark-sink.port = 0\n";
    let mut agent = start("simple-agent", &example("flume_pull_streaming.conf"), overrides, &[]);
    assert_eq!(Conversation::with(agent.port()).ask("spark and flume"), "OK");
    let port = agent.port_after("Spark sink spark-sink: listening on");
    // In the place of Spark's receiver.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let endpoint = Endpoint::plain("localhost", port, DEADLINE);
        let mut spark = PollingClient::connect(&endpoint).await.expect("the sink listens");
        let batch = spark.poll(1000).await.expect("events");
        assert!(batch.events.iter().map(|event| event.body_bytes()).eq(["spark and flume"]));
        spark.ack(&batch.sequence).await.expect("an answer");
    });
    assert!(agent.terminate().success());
}

#[test]
fn replicating_optional() {
    let out = directory();
    let overrides = format!("a1.sources.r1.port = 0\na1.sinks.files.sink.directory = {}\n", out.path().display());
    let agent = start("a1", &example("replicating-optional.conf"), &overrides, &[]);
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("hello"), "OK");
    assert!(agent.wait_for_events(1)[0].ends_with("hello }"));
    let seen = eventually(|| (contents(out.path()) == b"hello\n").then_some(()));
    assert!(seen.is_some());
}

#[test]
fn fan_in() {
    let overrides = "a1.sources.shop.port = 0\na1.sources.office.port = 0\n";
    let agent = start("a1", &example("fan-in.conf"), overrides, &[]);
    let mut count = 0;
    for port in agent.ports(2) {
        assert_eq!(Conversation::with(port).ask("hello"), "OK");
        count += 1;
        agent.wait_for_events(count);
    }
    let mut origins: Vec<String> =
        agent.events().iter().filter_map(|e| Some(e.split_once(" body:")?.0.to_owned())).collect();
    origins.sort();
    assert_eq!(origins, ["Event: { headers:{origin=office}", "Event: { headers:{origin=shop}"]);
}

#[test]
fn fan_out() {
    let out = directory();
    let overrides = format!("a1.sources.r1.port = 0\na1.sinks.files.sink.directory = {}\n", out.path().display());
    let agent = start("a1", &example("fan-out.conf"), &overrides, &[]);
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    assert!(agent.wait_for_events(1)[0].ends_with("hello }"));
    let seen = eventually(|| (contents(out.path()) == b"hello\n").then_some(()));
    assert!(seen.is_some());
}

#[test]
fn contextual_routing() {
    let out = directory();
    let overrides = format!("a1.sources.r1.port = 0\na1.sinks.files.sink.directory = {}\n", out.path().display());
    let agent = start("a1", &example("contextual-routing.conf"), &overrides, &[]);
    let mut nc = Conversation::with(agent.port());
    nc.send("DEBUG a\nERROR b\nWARN c\nINFO d 1234 5678 9012 3456\ne\n");
    assert_eq!(nc.lines(5), ["OK"; 5]);
    let printed = agent.wait_for_events(3);
    let levels: Vec<&str> =
        printed.iter().filter_map(|event| event.split_once(" body:")).map(|(head, _)| head).collect();
    assert_eq!(levels, ["Event: { headers:{level=WARN}", "Event: { headers:{level=INFO}", "Event: { headers:{}"]);
    assert!(printed[1].ends_with("INFO d ****3456 }"), "{}", printed[1]);
    let seen = eventually(|| (contents(out.path()) == b"ERROR b\nWARN c\n").then_some(()));
    assert!(seen.is_some());
}

#[test]
fn backup_route() {
    let out = directory();
    let (mut there, port) = collector();
    let overrides = format!(
        "a1.sources.r1.port = 0\na1.sinks.collector.port = {port}\na1.sinks.backup.sink.directory = {}\n",
        out.path().display()
    );
    let agent = start("a1", &example("backup-route.conf"), &overrides, &[]);
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("hello"), "OK");
    assert!(there.wait_for_events(1)[0].ends_with("hello }"));
    there.signal(Signal::KILL);
    there.wait();
    assert_eq!(nc.ask("anybody there?"), "OK");
    let seen = eventually(|| (contents(out.path()) == b"anybody there?\n").then_some(()));
    assert!(seen.is_some());
}

#[test]
fn two_tier() {
    let file = example("two-tier.conf");
    let out = directory();
    let ports = [free_port(), free_port(), free_port()];
    let mut overrides = format!("EAST = {}\nWEST = {}\nSTORE = {}\n", ports[0], ports[1], ports[2]);
    overrides += "edge.sources.r1.port = 0\n";
    for name in ["east", "west"] {
        let backup = out.path().join(name);
        fs::create_dir(&backup).expect("the temporary directory can be written to");
        overrides += &format!("{name}.sinks.backup.sink.directory = {}\n", backup.display());
    }
    let run = |agent: &str| {
        let agent = start(agent, &file, &overrides, &[]);
        agent.wait_for_line("Avro source r1: listening on");
        agent
    };
    let mut store = run("store");
    let (mut east, _west) = (run("east"), run("west"));
    let edge = start("edge", &file, &overrides, &[]);
    let mut nc = Conversation::with(edge.port());
    for (count, line) in (1..).zip(["one", "two", "three", "four"]) {
        assert_eq!(nc.ask(line), "OK");
        store.wait_for_events(count);
    }
    for name in ["east", "west"] {
        let through = store.messages(&format!("headers:{{collector={name}}}"));
        assert_eq!(through.len(), 2, "{:?}", store.events());
    }
    east.signal(Signal::KILL);
    east.wait();
    for (count, line) in (5..).zip(["five", "six"]) {
        assert_eq!(nc.ask(line), "OK");
        store.wait_for_events(count);
    }
    assert_eq!(store.messages("headers:{collector=west}").len(), 4);
    store.signal(Signal::KILL);
    store.wait();
    assert_eq!(nc.ask("seven"), "OK");
    let kept = eventually(|| (contents(&out.path().join("west")) == b"seven\n").then_some(()));
    assert!(kept.is_some());
}

#[test]
fn all_cases_pass() {
    let paths = files(&repository().join("examples"));
    let cases: Vec<_> = paths.iter().filter(|path| path.to_string_lossy().ends_with(".test.toml")).collect();
    assert!(!cases.is_empty());
    for path in cases {
        let output = run(&["test", &path.display().to_string()]);
        assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn a_full_optional_channel_is_the_clients_least_worry() {
    let out = directory();
    // Nobody prints, so that the optional channel fills up; the required one flows.
    let overrides = format!(
        "a1.sources.r1.port = 0\na1.sinks = files\na1.sinks.files.sink.directory = {}\n\
         a1.channels.best-effort.capacity = 2\na1.channels.best-effort.transactionCapacity = 2\n",
        out.path().display()
    );
    let agent = start("a1", &example("replicating-optional.conf"), &overrides, &[]);
    let mut nc = Conversation::with(agent.port());
    for _ in 0..5 {
        assert_eq!(nc.ask("hello"), "OK");
    }
    let seen = eventually(|| (contents(out.path()) == b"hello\n".repeat(5)).then_some(()));
    assert!(seen.is_some());
    agent.wait_for_line("Unable to put batch on optional channel: best-effort");
}

#[test]
fn taildir_memory_file_roll() {
    let (logs, out) = (directory(), directory());
    let env = [("LOGS_DIR", logs.path()), ("LINES_DIR", out.path())];
    let _agent = start("a1", &example("taildir-memory-file_roll.conf"), "", &env);
    append(&logs.path().join("app1.log"), "error\n  at x\nfine\n");
    append(&logs.path().join("access.log"), "GET /\n");
    let seen = eventually(|| {
        let text = String::from_utf8(contents(out.path())).ok()?;
        let all = ["{kind=app} error\n  at x\n", "{kind=app} fine\n", "{kind=access} GET /\n"];
        all.iter().all(|event| text.contains(event)).then_some(())
    });
    assert!(seen.is_some(), "{}", String::from_utf8_lossy(&contents(out.path())));
}

#[test]
fn spooldir_file_file_roll() {
    let (spool, out, channel) = (directory(), directory(), directory());
    let env = [("SPOOL_DIR", spool.path()), ("LINES_DIR", out.path()), ("CHANNEL_DIR", channel.path())];
    let mut agent = start("a1", &example("spooldir-file-file_roll.conf"), "", &env);
    for (name, text) in [("1.log", &b"one\ntw\xff\n"[..]), ("notes.txt", b"no\n")] {
        let hidden = write(spool.path(), &format!(".{name}"), text);
        fs::rename(hidden, spool.path().join(name)).expect("a rename");
    }
    let expected = "{basename=1.log} one\n{basename=1.log} tw\u{fffd}\n";
    let seen = eventually(|| (contents(out.path()) == expected.as_bytes()).then_some(()));
    assert!(seen.is_some(), "{}", String::from_utf8_lossy(&contents(out.path())));
    assert!(eventually(|| spool.path().join("1.log.COMPLETED").exists().then_some(())).is_some());
    assert!(spool.path().join("notes.txt").exists());
    assert!(agent.terminate().success());
}
