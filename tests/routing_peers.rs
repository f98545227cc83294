//! Interceptors and selectors beside the real Flume: the same chain, the same events, the same channels.

use flume_rs::event::{Batch, Event as Sent};
use tempfile::TempDir;

use crate::support::{
    Answer, AvroClient, Event, TestAgent, directory, eventually, free_port, java_peers, kept_events, keys, listed,
    real_flume, wait_for_port,
};

/// Each line of a block is a key; `\\` is one backslash in a properties file.
const INTERCEPTORS: &[&str] = &[
    "type = host",
    "type = org.apache.flume.interceptor.HostInterceptor$Builder\nuseIP = false\nhostHeader = name",
    "type = static\nkey = level\nvalue = none",
    "type = static\nkey = b\nvalue = {x}\npreserveExisting = false",
    "type = remove_header\nwithName = secret\nfromList = a1 , a2,a3\nmatching = x-\\\\d+",
    "type = remove_header\nfromList = c1;c2\nfromListSeparator = ;",
    "type = regex_filter\nregex = ^\\\\s*$\nexcludeEvents = true",
    "type = regex_filter\nregex = .",
    "type = regex_extractor\nregex = (?i)\\\\blevel=(\\\\w+)\nserializers = s1\nserializers.s1.name = level",
    "type = regex_extractor\nregex = (\\\\d{4}-\\\\d\\\\d-\\\\d\\\\d \\\\d\\\\d:\\\\d\\\\d:\\\\d\\\\d),(\\\\d+)\nserializers = s1 s2\n\
     serializers.s1.type = org.apache.flume.interceptor.RegexExtractorInterceptorMillisSerializer\n\
     serializers.s1.name = timestamp\nserializers.s1.pattern = yyyy-MM-dd HH:mm:ss\nserializers.s2.name = millis\n\
     serializers.s2.type = org.apache.flume.interceptor.RegexExtractorInterceptorPassThroughSerializer",
    "type = regex_extractor\nregex = \\\\[(.*?)\\\\]\nserializers = s1\n\
     serializers.s1.type = org.apache.flume.interceptor.RegexExtractorInterceptorMillisSerializer\n\
     serializers.s1.name = apache\nserializers.s1.pattern = dd/MMM/yyyy:HH:mm:ss Z",
    "type = search_replace\nsearchPattern = (?<user>\\\\w+)@(\\\\w+)\\\\.example\nreplaceString = ${user}\\\\$at$2",
    "type = search_replace\nsearchPattern = x*\nreplaceString = -",
    "type = search_replace\nsearchPattern = $\nreplaceString = <end>",
    "type = search_replace\nsearchPattern = (?<=-)ö|[^\\\\p{ASCII}]\nreplaceString = \\\\$0$0",
    "type = search_replace\nsearchPattern = \\\\Q.\\\\E\ncharset = ISO-8859-1",
];

const SELECTOR: &str = "type = multiplexing\nheader = level\nmapping.ERROR = c1\nmapping.warn = c1 c2\n\
                        mapping.a.b = c2\noptional.ERROR = c1 c3\noptional.info = c2\ndefault = c3";

fn events() -> Batch {
    let bodies = [
        "level=ERROR disk full",
        "LEVEL=warn 2030-01-31 12:00:00,123 mail to jane@host.example and joe@other.example",
        "Level=info .x.xx.",
        "127.0.0.1 - - [31/Jan/2030:12:00:00 +0530] \"GET / HTTP/1.1\"",
        "[1/february/2030:1:2:3 -00:30]",
        "two lines\nlevel=ERROR\n",
        "ends with a carriage return\r",
        "ends with both\r\n",
        "next line\u{85}",
        "öäü -ö €",
        "level=öfter",
        "   ",
        "",
        "\t \r\n",
        "\u{a0}",
    ];
    let mut batch: Batch = bodies.into_iter().map(Sent::new).collect();
    let headers = [("secret", "s"), ("a1", "1"), ("a2", "2"), ("a4", "4"), ("x-1", "1"), ("x-1y", "2"), ("c2", "c")];
    batch.append(Batch::from_iter([
        headers.into_iter().fold(Sent::new("headers"), |event, (key, value)| event.with(key, value)),
        Sent::new("mapped").with("level", "a.b").with("b", "old"),
        Sent::new("not mapped").with("level", "error"),
        Sent::new("blank").with("level", " "),
    ]));
    batch
}

fn config(port: u16, kept: &[TempDir]) -> String {
    let mut text = keys("sources.r1", &format!("type = avro\nbind = 127.0.0.1\nport = {port}\nchannels = c1 c2 c3"));
    let names: Vec<String> = (1..=INTERCEPTORS.len()).map(|number| format!("i{number}")).collect();
    text += &keys("sources.r1", &format!("interceptors = {}", names.join(" ")));
    for (name, block) in names.iter().zip(INTERCEPTORS) {
        // Flume reads its files as ISO-8859-1.
        text += &keys(&format!("sources.r1.interceptors.{name}"), &block.replace('ö', "\\u00f6"));
    }
    text += &keys("sources.r1.selector", SELECTOR);
    for (number, directory) in (1..).zip(kept) {
        let sink = format!(
            "type = file_roll\nchannel = c{number}\nsink.rollInterval = 0\nsink.serializer = avro_event\n\
             sink.directory = {}",
            directory.path().display()
        );
        text += &keys(&format!("channels.c{number}"), "type = memory");
        text += &keys(&format!("sinks.k{number}"), &sink);
    }
    listed(&text)
}

/// Sends the events to an agent, and gives what each channel got, once it is stopped and all is written.
fn received(mut agent: TestAgent, port: u16, kept: &[TempDir], count: usize) -> Vec<Vec<Event>> {
    wait_for_port(port);
    assert_eq!(AvroClient::with(port).append_batch(&events()), Answer::Ok);
    let all = || -> Vec<Vec<Event>> { kept.iter().map(|kept| kept_events(kept.path())).collect() };
    eventually(|| (all().iter().map(Vec::len).sum::<usize>() >= count).then_some(()));
    agent.terminate();
    all()
}

#[test]
fn every_channel_gets_what_the_real_flume_gives_it() {
    let Some(_turn) = java_peers(&["flume-1.11.0"]) else { return };
    let directories = || -> Vec<TempDir> { (0..3).map(|_| directory()).collect() };
    let (theirs, ours) = (directories(), directories());
    let ports = [free_port(), free_port()];
    let flume = real_flume("1.11.0").config(&config(ports[0], &theirs));
    let agent = TestAgent::start(&config(ports[1], &ours));
    let ours = received(agent, ports[1], &ours, 20);
    let count = ours.iter().map(Vec::len).sum();
    assert!(ours.iter().all(|channel| channel.len() >= 2), "every channel gets something: {ours:?}");
    let theirs = received(flume, ports[0], &theirs, count);
    for (number, (ours, theirs)) in (1..).zip(ours.iter().zip(&theirs)) {
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours, theirs, "channel c{number}: ours, then Flume's");
        }
        assert_eq!(ours.len(), theirs.len(), "channel c{number}");
    }
}
