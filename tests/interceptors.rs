//! Interceptors: what they make of events, and what is said about configurations that cannot be right.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use flume_rs::event::{Batch, Event as Sent};

use crate::support::{
    Answer, AvroClient, Conversation, Event, MEMORY, NETCAT, NULL, TestAgent, avro_to_files, contents, directory,
    file_roll, kept_events, keys, run, stdout, wait_for_kept_events, write,
};

/// The keys of a chain of interceptors, one block for each.
fn chain(blocks: &[&str]) -> String {
    let names: Vec<String> = (1..=blocks.len()).map(|number| format!("i{number}")).collect();
    let blocks = names.iter().zip(blocks).map(|(name, block)| keys(&format!("sources.r1.interceptors.{name}"), block));
    format!("a1.sources.r1.interceptors = {}\n{}", names.join(" "), blocks.collect::<String>())
}

/// Sends events through a chain in one batch, and gives what came out.
fn intercepted(blocks: &[&str], events: &Batch, left: usize) -> Vec<Event> {
    let out = directory();
    let mut agent = TestAgent::start(&(avro_to_files(0, out.path()) + &chain(blocks)));
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    assert_eq!(client.append_batch(events), Answer::Ok);
    wait_for_kept_events(out.path(), left);
    assert!(agent.terminate().success());
    kept_events(out.path())
}

#[test]
fn headers_of_every_event() {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let events = Batch::from_iter([
        Sent::new("a"),
        Sent::new("b").with("timestamp", "1").with("host", "old").with("key", "old").with("id", "old"),
    ]);
    let blocks = [
        "type = timestamp",
        "type = timestamp\nheaderName = first\npreserveExisting = true",
        "type = host",
        "type = org.apache.flume.interceptor.HostInterceptor$Builder\nuseIP = false\nhostHeader = name\npreserveExisting = true",
        "type = static\nvalue = kept",
        "type = static\nkey = where\nvalue = Zürich",
        "type = org.apache.flume.sink.solr.morphline.UUIDInterceptor$Builder\nprefix = e-",
        "type = uuid\nheaderName = id\npreserveExisting = false\nprefix = other-",
    ];
    let kept = intercepted(&blocks, &events, 2);
    for event in &kept {
        let header = |name: &str| event.headers.get(name).unwrap_or_else(|| panic!("no {name}: {event:?}")).as_str();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        for name in ["timestamp", "first"] {
            assert!((before..=now).contains(&header(name).parse().expect("a number")), "{event:?}");
        }
        assert!(header("host").parse::<std::net::IpAddr>().is_ok(), "{event:?}");
        assert!(!header("name").is_empty());
        assert_eq!(header("where"), "Zürich");
        assert!(header("id").starts_with("other-") && header("id").len() == 42, "{event:?}");
    }
    assert_eq!(kept[0].headers["key"], "kept");
    assert_eq!(kept[1].headers["key"], "old", "a static header is kept unless told otherwise");
    assert_ne!(kept[0].headers["id"], kept[1].headers["id"]);
}

#[test]
fn the_examples_of_the_user_guide() {
    let events = Batch::from_iter([
        Sent::new("1:2:3.4foobar5"),
        Sent::new("2012-10-18 18:47:57,614 some log line"),
        Sent::new("The quick brown fox jumped over the lazy dog"),
        Sent::new("nothing here").with("secret", "s").with("x-1", "1").with("x-y", "2"),
    ]);
    let blocks = [
        // A properties file takes one of two backslashes.
        r"type = regex_extractor
regex = (\\d):(\\d):(\\d)
serializers = s1 s2 s3
serializers.s1.name = one
serializers.s2.name = two
serializers.s3.name = three",
        r"type = org.apache.flume.interceptor.RegexExtractorInterceptor$Builder
regex = ^(?:\\n)?(\\d\\d\\d\\d-\\d\\d-\\d\\d\\s\\d\\d:\\d\\d)
serializers = s1
serializers.s1.type = org.apache.flume.interceptor.RegexExtractorInterceptorMillisSerializer
serializers.s1.name = timestamp
serializers.s1.pattern = yyyy-MM-dd HH:mm",
        "type = search_replace
searchPattern = The quick brown ([a-z]+) jumped over the lazy ([a-z]+)
replaceString = The hungry $2 ate the careless $1",
        r"type = org.apache.flume.interceptor.RemoveHeaderInterceptor$Builder
withName = secret
matching = x-\\d+",
    ];
    let kept = intercepted(&blocks, &events, 4);
    assert_eq!(kept[0], Event::new(&[("one", "1"), ("two", "2"), ("three", "3")], "1:2:3.4foobar5"));
    let time: i64 = kept[1].headers["timestamp"].parse().expect("a number");
    let utc = 1_350_586_020_000;
    assert!((time - utc).abs() <= 14 * 3_600_000 && (time - utc) % 900_000 == 0, "in the zone of this machine: {time}");
    assert_eq!(kept[2], Event::new(&[], "The hungry dog ate the careless fox"));
    assert_eq!(kept[3], Event::new(&[("x-y", "2")], "nothing here"));
}

#[test]
fn lines_that_are_filtered_are_answered_in_their_order_and_counted() {
    let out = directory();
    let filters = chain(&[
        "type = regex_filter\nregex = ^(INFO|ERROR)",
        "type = org.apache.flume.interceptor.RegexFilteringInterceptor$Builder\nregex = password\nexcludeEvents = true",
    ]);
    let agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{}{filters}", file_roll(out.path())));
    let mut nc = Conversation::with(agent.port());
    nc.send("INFO a\nDEBUG b\nERROR password\nERROR c\n\nDEBUG d\n");
    assert_eq!(nc.lines(6), ["OK"; 6]);
    nc.send("INFO e\n");
    assert_eq!(nc.line(), "OK");
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 3);
    assert_eq!(contents(out.path()), b"INFO a\nERROR c\nINFO e\n");
    let counters = ["EventReceivedCount", "EventAcceptedCount", "EventDroppedCount", "EventRefusedCount"];
    assert_eq!(counters.map(|name| agent.counter("SOURCE.r1", name)), [7, 7, 4, 0]);
}

/// A wrong key: its lines, the key that is named, and what is said.
const FAULTS: &[(&str, &str, &[&str])] = &[
    (
        "type = regex_filter\nregex = ab[c&&d]",
        "regex",
        &["&& in a class is not supported (at character 5 of \"ab[c&&d]\")"],
    ),
    ("type = regex_filter\nregex = (a", "regex", &["a Java regular expression: a ( without its )"]),
    ("type = regex_extractor\nserializers = s\nserializers.s.name = n", "regex", &["Must supply a valid regex string"]),
    ("type = regex_extractor\nregex = (a)", "serializers", &["Must supply at least one name and serializer"]),
    ("type = regex_extractor\nregex = (a)\nserializers = s", "serializers.s.name", &["Supplied name cannot be empty."]),
    (
        "type = regex_extractor\nregex = (a)\nserializers = s\nserializers.s.name = n\nserializers.s.type = milis",
        "serializers.s.type",
        &["did you mean \"millis\"?"],
    ),
    (
        "type = regex_extractor\nregex = (a)\nserializers = s\nserializers.s.name = n\nserializers.s.type = millis",
        "serializers.s.pattern",
        &["Must configure with a valid pattern"],
    ),
    (
        "type = regex_extractor\nregex = (a)\nserializers = s\nserializers.s.name = n\nserializers.s.type = millis\nserializers.s.pattern = GG",
        "serializers.s.pattern",
        &["\"GG\" is not supported"],
    ),
    (
        "type = search_replace\nreplaceString = x",
        "searchPattern",
        &["Must supply a valid search pattern searchPattern"],
    ),
    (
        "type = search_replace\nsearchPattern = (a)\nreplaceString = $2",
        "replaceString",
        &["No group 2 (at character 2 of \"$2\")"],
    ),
    ("type = search_replace\nsearchPattern = a\ncharset = UTF-99", "charset", &["the name of a charset"]),
    ("type = remove_header\nmatching = *", "matching", &["nothing for * to repeat"]),
    ("type = remove_heder\nmatching = *", "type", &["did you mean \"remove_header\"?"]),
    (
        "type = org.apache.flume.sink.solr.morphline.MorphlineInterceptor$Builder\nmorphlineFile = f",
        "type",
        &["it does not have this one of Flume's yet"],
    ),
];

#[test]
fn what_cannot_be_right_is_named() {
    for (block, key, words) in FAULTS {
        let home = directory();
        let config = write(home.path(), "agent.conf", format!("{NETCAT}{MEMORY}{NULL}{}", chain(&[block])));
        let output = run(&["check", "--conf-file", &config.display().to_string()]);
        assert_eq!(output.status.code(), Some(1), "{block}");
        let text = stdout(&output);
        let place = format!("error: a1.sources.r1.interceptors.i1.{key}");
        let at = text.find(&place).unwrap_or_else(|| panic!("no {place}: {text}"));
        assert!(words.iter().all(|word| text[at..].contains(word)), "{text}");
        assert!(text.contains("source r1 does not run"), "{text}");
        let errors = text.lines().filter(|line| line.contains("error: ")).count();
        assert_eq!(errors, 2, "one fault, and what comes of it: {text}");
    }
}

#[test]
fn a_group_that_takes_no_part_and_a_text_that_is_no_time_set_no_header() {
    let events = Batch::from_iter([Sent::new("b never"), Sent::new("a 2030")]);
    let block = "type = regex_extractor
regex = (?:(a)|b) (\\\\w+)
serializers = s1 s2
serializers.s1.name = letter
serializers.s2.name = year
serializers.s2.type = millis
serializers.s2.pattern = yyyy";
    let kept = intercepted(&[block], &events, 2);
    assert_eq!(kept[0], Event::new(&[], "b never"));
    assert_eq!(kept[1].headers.keys().collect::<Vec<_>>(), ["letter", "year"]);
}

#[test]
fn a_body_that_is_not_text_is_left_alone_where_nothing_matches() {
    let out = directory();
    let replace = chain(&["type = search_replace\nsearchPattern = secret\nreplaceString = ***"]);
    let agent = TestAgent::start(&format!(
        "{}{MEMORY}{}{replace}",
        NETCAT.to_owned() + "a1.sources.r1.encoding = ISO-8859-1\n",
        file_roll(out.path())
    ));
    assert_eq!(Conversation::with(agent.port()).ask("a secret"), "OK");
    agent.wait_for_counter("SINK.k1", "EventDrainSuccessCount", 1);
    assert_eq!(contents(out.path()), b"a ***\n");
    drop(agent);
    let out = directory();
    let mut agent = TestAgent::start(&(avro_to_files(0, out.path()).replace("avro_event", "text") + &replace));
    let mut client = AvroClient::with(agent.port_after("Avro source r1: listening on"));
    let bytes: &[u8] = &[0, 0xff, 0xfe, b'x'];
    assert_eq!(client.append_batch(&Batch::from_iter([Sent::new(bytes)])), Answer::Ok);
    assert!(agent.terminate().success());
    assert_eq!(fs::read(crate::support::files(out.path()).remove(0)).expect("a file"), [bytes, b"\n"].concat());
}
