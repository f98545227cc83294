//! Avro RPC with its real peers: Flume 1.6 to 1.11 on both sides of the wire, the log4j appender, Flume's client
//! library and its `avro-client`. Events are kept in Avro files by the receiving agent, whoever that is, and compared
//! byte by byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::thread;

use rustix::process::Signal;

use crate::support::{
    Conversation, Event, TestAgent, avro_to_files, directory, eventually, expect_kept_events, free_port, java,
    java_peers, kept_events, keys, listed, make_key_stores, real_flume, wait_for_kept_events, wait_for_port, write,
};

/// A way to set up a connection: the keys of both ends, `STORES` being where the key stores are.
struct Route {
    name: &'static str,
    source: &'static str,
    sink: &'static str,
}

const PLAIN: Route = Route { name: "plain", source: "", sink: "" };
const DEFLATE: Route = Route {
    name: "deflate",
    source: "compression-type = deflate",
    sink: "compression-type = deflate\ncompression-level = 9",
};
const JKS: Route = Route {
    name: "jks",
    source: "ssl = true\nkeystore = STORES/key.jks\nkeystore-password = changeit",
    sink: "ssl = true\ntruststore = STORES/trust.jks\ntruststore-password = changeit",
};
const PKCS12: Route = Route {
    name: "pkcs12",
    source: "ssl = true\nkeystore = STORES/key.p12\nkeystore-password = changeit\nkeystore-type = PKCS12",
    sink: "ssl = true\ntruststore = STORES/trust.p12\ntruststore-password = changeit\ntruststore-type = PKCS12",
};
const BOTH: Route = Route {
    name: "deflate-and-tls",
    source: "compression-type = deflate\nssl = true\nkeystore = STORES/key.jks\nkeystore-password = changeit",
    sink: "compression-type = deflate\nssl = true\ntrust-all-certs = true",
};

/// Up to 1.9 the compression is inside TLS.
const BOTH_1_9: Route = Route {
    name: "deflate-in-tls",
    source: BOTH.source,
    sink: "compression-type = deflate\nssl = true\ntrust-all-certs = true\ncompression-outside-tls = false",
};

/// Headers in several scripts, the last beyond 16 bits.
const HEADERS: [(&str, &str); 5] =
    [("city", "Zürich"), ("都市", "東京"), ("город", "Москва"), ("signs", "a=b, {c} \"d\""), ("😀", "🚲")];

/// Room for all events of a test, in transactions of many.
const ROOMY: &str = "type = memory\ncapacity = 10000\ntransactionCapacity = 1000";

/// A text as every version of Flume reads it in a configuration, in whatever encoding.
fn escaped(text: &str) -> String {
    let escape = |unit: u16| match u8::try_from(unit) {
        Ok(byte @ b'!'..=b'~') => char::from(byte).to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    text.encode_utf16().map(escape).collect()
}

/// Two netcat sources, without and with headers, and for every route a channel and an avro sink to a port.
fn sender(routes: &[Route], lines: [u16; 2], ports: &[u16], stores: &Path) -> String {
    let names: Vec<&str> = routes.iter().map(|route| route.name).collect();
    let mut text = String::new();
    for (name, port) in ["bare", "dressed"].iter().zip(lines) {
        let source = format!("type = netcat\nbind = 127.0.0.1\nport = {port}\nmax-line-length = 30000");
        text += &keys(&format!("sources.{name}"), &format!("{source}\nchannels = {}", names.join(" ")));
    }
    let mut interceptors = Vec::new();
    for (number, (key, value)) in HEADERS.iter().enumerate() {
        let interceptor = format!("type = static\nkey = {}\nvalue = {}", escaped(key), escaped(value));
        text += &keys(&format!("sources.dressed.interceptors.i{number}"), &interceptor);
        interceptors.push(format!("i{number}"));
    }
    text += &keys("sources.dressed", &format!("interceptors = {}", interceptors.join(" ")));
    for (Route { name, sink, .. }, port) in routes.iter().zip(ports) {
        text += &keys(&format!("channels.{name}"), ROOMY);
        let sink = sink.replace("STORES", &stores.display().to_string());
        let all = format!("type = avro\nhostname = 127.0.0.1\nport = {port}\nchannel = {name}\n{sink}");
        text += &keys(&format!("sinks.{name}"), all.trim_end());
    }
    text
}

/// For every route an avro source at a port and a sink that keeps the events in a directory of the route's name.
fn receiver(routes: &[Route], ports: &[u16], stores: &Path, target: &Path) -> String {
    let mut text = String::new();
    for (Route { name, source, .. }, port) in routes.iter().zip(ports) {
        let kept = target.join(name);
        fs::create_dir_all(&kept).expect("the temporary directory can be written to");
        let source = source.replace("STORES", &stores.display().to_string());
        let all = format!("type = avro\nbind = 127.0.0.1\nport = {port}\nchannels = to-{name}\n{source}");
        text += &keys(&format!("sources.from-{name}"), all.trim_end());
        text += &keys(&format!("channels.to-{name}"), ROOMY);
        let sink = format!(
            "type = file_roll\nchannel = to-{name}\nsink.rollInterval = 0\nsink.serializer = avro_event\n\
             sink.directory = {}",
            kept.display()
        );
        text += &keys(&format!("sinks.keep-{name}"), &sink);
    }
    text
}

/// Bodies that netcat can carry, empty ones and some larger than what Avro puts into one buffer.
fn bodies(count: usize) -> Vec<String> {
    let body = |number| match number % 100 {
        0 => String::new(),
        50 => format!("{number} {}", "lång ".repeat(4000)),
        _ => format!("line {number}\r"),
    };
    (0..count).map(body).collect()
}

/// Sends lines to a netcat source, all of which it accepts.
fn feed(port: u16, lines: &[String]) {
    let mut nc = Conversation::with(port);
    for line in lines {
        nc.send(format!("{line}\n"));
    }
    assert!(nc.lines(lines.len()).iter().all(|answer| answer == "OK"), "every line is accepted");
}

/// Feeds both sources of a sender, and gives the events that should come out.
fn feed_both(lines: [u16; 2]) -> Vec<Event> {
    let (bare, dressed) = (bodies(101), bodies(1001));
    feed(lines[0], &bare);
    feed(lines[1], &dressed);
    let bare = bare.into_iter().map(|body| Event::new(&[], body));
    bare.chain(dressed.into_iter().map(|body| Event::new(&HEADERS, body))).collect()
}

/// A real Flume that sends to us and receives from us at once, on all routes at once.
fn both_ways(version: &str, theirs: &[Route], ours: &[Route]) {
    let Some(_turn) = java_peers(&[&format!("flume-{version}")]) else { return };
    let home = directory();
    let stores = home.path();
    make_key_stores(stores);
    let (to_us, to_flume) = (home.path().join("to-us"), home.path().join("to-flume"));
    let ports = || -> Vec<u16> { theirs.iter().map(|_| free_port()).collect() };
    let (our_ports, their_ports) = (ports(), ports());
    let (our_lines, their_lines) = ([free_port(), free_port()], [free_port(), free_port()]);

    let _receiver = TestAgent::start(&listed(&receiver(theirs, &our_ports, stores, &to_us)));
    for port in &our_ports {
        wait_for_port(*port);
    }
    let flume = sender(theirs, their_lines, &our_ports, stores) + &receiver(ours, &their_ports, stores, &to_flume);
    let _flume = real_flume(version).config(&listed(&flume));
    for port in their_lines.iter().chain(&their_ports) {
        wait_for_port(*port);
    }
    let _sender = TestAgent::start(&listed(&sender(ours, our_lines, &their_ports, stores)));
    for port in our_lines {
        wait_for_port(port);
    }

    let (sent_to_us, sent_to_flume) = (feed_both(their_lines), feed_both(our_lines));
    for route in theirs {
        expect_kept_events(&format!("Flume {version} to us, {}", route.name), &to_us.join(route.name), &sent_to_us);
    }
    for route in ours {
        let what = format!("to Flume {version}, {}", route.name);
        expect_kept_events(&what, &to_flume.join(route.name), &sent_to_flume);
    }
}

#[test]
fn flume_1_11_both_ways_plain_compressed_and_encrypted() {
    let routes = [PLAIN, DEFLATE, JKS, PKCS12, BOTH];
    both_ways("1.11.0", &routes, &routes);
}

#[test]
fn flume_1_9_both_ways_with_compression_inside_tls() {
    both_ways("1.9.0", &[PLAIN, DEFLATE, PKCS12, BOTH], &[PLAIN, DEFLATE, JKS, BOTH_1_9]);
}

#[test]
fn flume_1_6_both_ways_plain_and_compressed() {
    both_ways("1.6.0", &[PLAIN, DEFLATE], &[PLAIN, DEFLATE]);
}

#[test]
fn three_agents_into_one_source() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let out = directory();
    let port = free_port();
    let _receiver = TestAgent::start(&avro_to_files(port, out.path()));
    wait_for_port(port);
    let senders = ["flume", "first", "second"].map(|name| (name, [free_port(), free_port()]));
    let config = |lines| listed(&sender(&[PLAIN], lines, &[port], out.path()));
    let [(_, flume), (_, first), (_, second)] = senders;
    let _agents = [
        real_flume("1.11.0").config(&config(flume)),
        TestAgent::start(&config(first)),
        TestAgent::start(&config(second)),
    ];
    let bodies = |name: &str| -> Vec<String> { (0..1000).map(|number| format!("{name} {number}")).collect() };
    thread::scope(|scope| {
        for (name, [_, dressed]) in senders {
            scope.spawn(move || {
                wait_for_port(dressed);
                feed(dressed, &bodies(name));
            });
        }
    });
    let kept = wait_for_kept_events(out.path(), 3000);
    assert_eq!(kept.len(), 3000, "every event comes once");
    for (name, _) in senders {
        let from_here: Vec<&Event> = kept.iter().filter(|event| event.body.starts_with(name)).collect();
        let expected: Vec<Event> = bodies(name).into_iter().map(|body| Event::new(&HEADERS, body)).collect();
        assert!(from_here.iter().copied().eq(&expected), "the events of {name} are whole and in order");
    }
}

#[test]
fn the_real_avro_client_sends_a_file_with_headers() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let out = directory();
    let files = directory();
    let port = free_port();
    let _agent = TestAgent::start(&avro_to_files(port, out.path()));
    wait_for_port(port);
    let mut lines: Vec<String> = (0..250).map(|number| format!("line {number}")).collect();
    lines.extend(["", "  東京 ", "🚲"].map(str::to_owned));
    let file = write(files.path(), "lines", lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    let headers = write(files.path(), "headers", format!("origin = file\ncity = {}\n", escaped("Zürich")));
    let mut client = java("flume.sh")
        .env("LC_ALL", "C.UTF-8") // in which it reads the file
        .args(["avro-client", "-H", "127.0.0.1", "-p", &port.to_string()])
        .args(["-F".as_ref(), file.as_os_str(), "--headerFile".as_ref(), headers.as_os_str()])
        .start();
    assert!(client.wait().success(), "{}", client.log());
    let event = |body| Event::new(&[("origin", "file"), ("city", "Zürich")], body);
    expect_kept_events("avro-client", out.path(), &lines.into_iter().map(event).collect::<Vec<_>>());
}

/// The headers that the appender must have given an event, in which only the time and the address are its own.
fn log4j_headers(version: &str, number: usize, event: &Event) -> BTreeMap<String, String> {
    let level = ["20000", "30000", "40000", "50000", "10000", "5000"][number % 6];
    let timestamp = &event.headers["flume.client.log4j.timestamp"];
    assert!(timestamp.len() == 13 && timestamp.parse::<u64>().is_ok(), "milliseconds since 1970: {timestamp}");
    let mut headers = vec![
        ("flume.client.log4j.logger.name", "LogLines"),
        ("flume.client.log4j.log.level", level),
        ("flume.client.log4j.timestamp", timestamp),
        ("flume.client.log4j.message.encoding", "UTF8"),
    ];
    if version != "1.6.0" {
        let address = &event.headers["flume.client.log4j.address"];
        assert!(address.parse::<IpAddr>().is_ok(), "an address: {address}");
        headers.push(("flume.client.log4j.address", address));
    }
    Event::new(&headers, "").headers
}

/// An application that logs all the time, while the agent is restarted and then stopped for good.
fn log4j(version: &str, unsafe_mode: bool) {
    let Some(_turn) = java_peers(&[&format!("log4j-app-{version}")]) else { return };
    let out = directory();
    let port = free_port();
    let start = || {
        let agent = TestAgent::start(&avro_to_files(port, out.path()));
        wait_for_port(port);
        agent
    };
    let mut agent = start();
    let mut app = java("log4j-app.sh")
        .env("APPENDER_VERSION", version)
        .env("UNSAFE_MODE", unsafe_mode.to_string())
        .args(["127.0.0.1", &port.to_string(), "1000000", "5"])
        .start();
    let before = wait_for_kept_events(out.path(), 12).len();
    // An appender that is refused a connection never tries again; one that does not see the agent away goes on.
    app.signal(Signal::STOP);
    agent.terminate();
    agent = start();
    app.signal(Signal::CONT);
    wait_for_kept_events(out.path(), before + 12);
    agent.terminate();
    app.wait_for_line("log4j:ERROR RPC client creation failed!");
    app.signal(Signal::KILL);
    app.wait();

    let log = app.log();
    let logged: BTreeSet<usize> = log.lines().filter_map(|line| line.strip_prefix("logged ")?.parse().ok()).collect();
    let failed: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix("failed ")).collect();
    if unsafe_mode {
        // It tells the console alone, but for a null pointer of its own when the connection is refused.
        assert!(failed.len() <= 1, "{failed:?}");
    } else {
        assert!(!failed.is_empty(), "the application is told");
        assert!(failed.iter().all(|line| line.contains(": org.apache.flume.FlumeException: ")), "{failed:?}");
    }
    let mut kept = BTreeSet::new();
    for event in kept_events(out.path()) {
        let text = event.body.strip_prefix("value : ").and_then(|text| text.strip_suffix(" €"));
        let number: usize = text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{event:?}"));
        assert!(kept.insert(number), "line {number} came twice");
        assert_eq!(event.headers, log4j_headers(version, number, &event), "line {number}");
    }
    let lost: Vec<&usize> = logged.difference(&kept).collect();
    assert!(lost.is_empty() || unsafe_mode, "logged without an error and not there: {lost:?}");
}

#[test]
fn the_log4j_appender_of_1_6_delivers_or_says_so() {
    log4j("1.6.0", false);
    log4j("1.6.0", true);
}

#[test]
fn the_log4j_appender_of_1_11_delivers_or_says_so() {
    log4j("1.11.0", false);
    log4j("1.11.0", true);
}

/// A client of two agents, the first of which stops in the middle. Gives how many events each has kept.
fn client_of_two(kind: &str) -> Option<[usize; 2]> {
    let _turn = java_peers(&["flume-1.11.0"])?;
    let out = [directory(), directory()];
    let ports = [free_port(), free_port()];
    let [mut first, _second] = [0, 1].map(|at| {
        let agent = TestAgent::start(&avro_to_files(ports[at], out[at].path()));
        wait_for_port(ports[at]);
        agent
    });
    let [one, two] = ports.map(|port| format!("127.0.0.1:{port}"));
    let mut app = java("sdk-app.sh").args([kind, "5000", &one, &two]).start();
    app.wait_for_line("accepted 500");
    first.terminate();
    assert!(app.wait().success(), "{}", app.log());
    let log = app.log();
    let accepted: BTreeSet<String> =
        log.lines().filter_map(|line| line.strip_prefix("accepted ")).map(str::to_owned).collect();
    assert_eq!(accepted.len(), 5000);
    // What the agents have answered is on its way to the files, if not there.
    wait_for_kept_events(out[1].path(), 1);
    let kept = || -> BTreeSet<String> {
        let both = out.iter().flat_map(|directory| kept_events(directory.path()));
        both.map(|event| event.body).collect()
    };
    eventually(|| (kept() == accepted).then_some(()));
    let kept = kept();
    let lost: Vec<&String> = accepted.difference(&kept).collect();
    assert!(lost.is_empty(), "accepted and lost: {lost:?}");
    assert_eq!(kept.len(), 5000, "nothing else came");
    Some(out.map(|directory| kept_events(directory.path()).len()))
}

#[test]
fn the_failover_client_goes_on_with_the_second_agent() {
    let Some([first, second]) = client_of_two("default_failover") else { return };
    assert!(first >= 500 && second > 0, "{first} and {second}");
}

#[test]
fn the_load_balancing_client_uses_both_agents_and_then_the_one_left() {
    let Some([first, second]) = client_of_two("default_loadbalance") else { return };
    assert!(first >= 200 && second > 2500, "{first} and {second}");
}
