//! The file_roll sink and the files it leaves.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use apache_avro::Reader;
use apache_avro::types::Value;

use crate::support::{
    Conversation, MEMORY, NETCAT, TestAgent, contents, directory, eventually, file_roll, files, shape,
};

fn agent(directory: &Path, more: &str) -> TestAgent {
    TestAgent::start(&format!("{NETCAT}{MEMORY}{}{more}", file_roll(directory)))
}

fn wait_for_contents(directory: &Path, expected: &[u8]) {
    let seen = eventually(|| (contents(directory) == expected).then_some(()));
    assert!(seen.is_some(), "{:?}", String::from_utf8_lossy(&contents(directory)));
}

fn file_names(directory: &Path) -> Vec<String> {
    let names = files(directory);
    let names = names.iter().filter_map(|file| file.file_name()?.to_str());
    names.map(str::to_owned).collect()
}

#[test]
fn text_is_a_line_an_event_and_there_at_once() {
    let out = directory();
    let mut agent = agent(out.path(), "");
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("hello\r"), "OK");
    assert_eq!(nc.ask("world"), "OK");
    wait_for_contents(out.path(), b"hello\r\nworld\n");
    let names = file_names(out.path());
    assert_eq!(names.len(), 1, "{names:?}");
    // Milliseconds since 1970, and a number.
    assert_eq!(shape(&names[0]), "9999999999999-9");
    assert!(names[0].ends_with("-1"), "{names:?}");
    assert!(agent.terminate().success());
    assert_eq!(contents(out.path()), b"hello\r\nworld\n");
}

#[test]
fn header_and_text_puts_the_headers_in_front_in_javas_order() {
    let out = directory();
    let more = "a1.sources.r1.interceptors = i1 i2\na1.sources.r1.interceptors.i1.type = static\n\
                a1.sources.r1.interceptors.i1.key = b\na1.sources.r1.interceptors.i1.value = v2\n\
                a1.sources.r1.interceptors.i2.type = org.apache.flume.interceptor.StaticInterceptor$Builder\n\
                a1.sources.r1.interceptors.i2.key = zz\na1.sources.r1.interceptors.i2.value = v1\n\
                a1.sinks.k1.sink.serializer = header_and_text\n";
    let agent = agent(out.path(), more);
    assert_eq!(Conversation::with(agent.port()).ask("hello\r"), "OK");
    wait_for_contents(out.path(), b"{zz=v1, b=v2} hello\r\n");
}

#[test]
fn line_feeds_may_be_left_out() {
    let out = directory();
    let agent =
        agent(out.path(), "a1.sinks.k1.sink.serializer = text\na1.sinks.k1.sink.serializer.appendNewline = false\n");
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("hello"), "OK");
    assert_eq!(nc.ask("world"), "OK");
    wait_for_contents(out.path(), b"helloworld");
}

#[test]
fn avro_files_are_read_by_the_avro_library_even_while_they_grow() {
    for codec in ["null", "deflate", "snappy"] {
        let out = directory();
        let more = format!(
            "a1.sources.r1.interceptors = i1\na1.sources.r1.interceptors.i1.type = static\n\
             a1.sources.r1.interceptors.i1.key = host\na1.sources.r1.interceptors.i1.value = web1\n\
             a1.sinks.k1.sink.serializer = avro_event\na1.sinks.k1.sink.serializer.compressionCodec = {codec}\n"
        );
        let mut agent = agent(out.path(), &more);
        let mut nc = Conversation::with(agent.port());
        assert_eq!(nc.ask("hello\r"), "OK");
        assert_eq!(nc.ask("é"), "OK");
        let expected: Vec<Value> = [&b"hello\r"[..], "é".as_bytes()]
            .into_iter()
            .map(|body| {
                let headers = HashMap::from([("host".to_owned(), Value::String("web1".to_owned()))]);
                Value::Record(vec![
                    ("headers".to_owned(), Value::Map(headers)),
                    ("body".to_owned(), Value::Bytes(body.to_vec())),
                ])
            })
            .collect();
        let read = || -> Option<Vec<Value>> {
            let bytes = contents(out.path());
            Reader::new(&bytes[..]).ok()?.collect::<Result<_, _>>().ok()
        };
        let seen = eventually(|| (read()? == expected).then_some(()));
        assert!(seen.is_some(), "{codec}: {:?}", read());
        assert!(agent.terminate().success());
        assert_eq!(read(), Some(expected), "{codec}");
    }
}

#[test]
fn quiet_times_leave_empty_files() {
    let out = directory();
    let config = file_roll(out.path()).replace("rollInterval = 0", "rollInterval = 1");
    let mut agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{config}"));
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    let rolled = eventually(|| (files(out.path()).len() >= 3).then_some(()));
    assert!(rolled.is_some(), "{:?}", files(out.path()));
    assert!(agent.terminate().success());
    let names = file_names(out.path());
    let start = names[0].split('-').next().expect("a name has a stamp");
    assert!(names.iter().all(|name| name.starts_with(start)), "the stamp is that of the start: {names:?}");
    assert_eq!(contents(out.path()), b"hello\n");
    assert!(files(out.path()).iter().any(|file| fs::metadata(file).is_ok_and(|file| file.len() == 0)));
}

#[test]
fn roll_time_names_say_when_they_were_opened() {
    let out = directory();
    let more = "a1.sinks.k1.sink.pathManager = ROLLTIME\na1.sinks.k1.sink.pathManager.prefix = pre-\n\
                a1.sinks.k1.sink.pathManager.extension = log\n";
    let agent = agent(out.path(), more);
    assert_eq!(Conversation::with(agent.port()).ask("hello"), "OK");
    wait_for_contents(out.path(), b"hello\n");
    let names = file_names(out.path());
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(shape(&names[0]), "pre-99999999999999-9.log");
}

#[test]
fn a_missing_directory_is_reported_and_nothing_is_lost_once_it_is_there() {
    let out = directory();
    let missing = out.path().join("missing");
    let mut agent = agent(&missing, "");
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("early"), "OK");
    let line = agent.wait_for_line("Unable to start SinkRunner");
    assert!(line.contains("Failed to open file") && line.contains(&*missing.to_string_lossy()), "{line}");
    assert!(line.contains("No such file or directory"), "{line}");
    fs::create_dir(&missing).expect("the temporary directory can be written to");
    wait_for_contents(&missing, b"early\n");
    assert_eq!(nc.ask("late"), "OK");
    wait_for_contents(&missing, b"early\nlate\n");
    assert!(agent.terminate().success());
}

#[test]
fn a_directory_that_goes_away_costs_no_event() {
    let out = directory();
    let target = out.path().join("target");
    fs::create_dir(&target).expect("the temporary directory can be written to");
    let config = file_roll(&target).replace("rollInterval = 0", "rollInterval = 1");
    let agent = TestAgent::start(&format!("{NETCAT}{MEMORY}{config}"));
    let mut nc = Conversation::with(agent.port());
    assert_eq!(nc.ask("first"), "OK");
    wait_for_contents(&target, b"first\n");
    let moved = out.path().join("moved");
    fs::rename(&target, &moved).expect("the directory can be moved");
    agent.wait_for_line("Unable to deliver event. Exception follows.");
    assert_eq!(nc.ask("second"), "OK");
    fs::create_dir(&target).expect("the temporary directory can be written to");
    wait_for_contents(&target, b"second\n");
    assert_eq!(contents(&moved), b"first\n");
}
