//! `flume-rs test`: the cases that people write for their configurations.

use std::path::Path;
use std::process::Output;

use crate::support::{directory, run, stderr, stdout, write};

const CONFIG: &str = "\
a1.sources = r1
a1.channels = errors rest
a1.sinks = k1 k2
a1.sources.r1.type = netcat
a1.sources.r1.bind = localhost
a1.sources.r1.port = 0
a1.sources.r1.channels = errors rest
a1.sources.r1.interceptors = i1 i2
a1.sources.r1.interceptors.i1.type = timestamp
a1.sources.r1.interceptors.i2.type = regex_extractor
a1.sources.r1.interceptors.i2.regex = ^([A-Z]+)
a1.sources.r1.interceptors.i2.serializers = s1
a1.sources.r1.interceptors.i2.serializers.s1.name = level
a1.sources.r1.selector.type = multiplexing
a1.sources.r1.selector.header = level
a1.sources.r1.selector.mapping.ERROR = errors
a1.sources.r1.selector.default = rest
a1.channels.errors.type = memory
a1.channels.rest.type = memory
a1.sinks.k1.type = null
a1.sinks.k1.channel = errors
a1.sinks.k2.type = null
a1.sinks.k2.channel = rest
";

fn cases(home: &Path, cases: &str) -> Output {
    write(home, "agent.conf", CONFIG);
    let file = write(home, "cases.toml", format!("conf = \"agent.conf\"\n{cases}"));
    run(&["test", &file.display().to_string()])
}

#[test]
fn what_came_is_shown_beside_what_was_expected() {
    let home = directory();
    let output = cases(
        home.path(),
        r#"
        [[case]]
        name = "right"
        events = ["ERROR a", "b"]
        expect.errors = [{ headers = { level = "ERROR", timestamp = { matches = '\d{13}' } }, body = "ERROR a" }]
        expect.rest = ["b"]

        [[case]]
        name = "wrong"
        events = ["ERROR a", "INFO b", "ERROR c"]
        expect.errors = ["ERROR a", { headers = { level = "FATAL" }, body = "x" }, "ERROR c"]
        "#,
    );
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let digits = |c: char| c.is_ascii_digit();
    let text: String =
        text.split("timestamp=").map(|part| part.trim_start_matches(digits)).collect::<Vec<_>>().join("timestamp=");
    assert_eq!(
        text,
        "\
ok      right
FAILED  wrong
    channel errors:
        {level=ERROR, timestamp=} \"ERROR a\"
      - {level=FATAL} \"x\"
        {level=ERROR, timestamp=} \"ERROR c\"
    channel rest:
      + {level=INFO, timestamp=} \"INFO b\"
1 passed, 1 failed
"
    );
}

#[test]
fn names_that_are_not_there() {
    let home = directory();
    let output = cases(
        home.path(),
        "[[case]]\nname = 'a'\nevents = []\nexpect.error = []\n[[case]]\nname = 'b'\nsource = 'r2'\nevents = []\n",
    );
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(
        text.contains("there is no channel error that could run, but errors, rest; did you mean \"errors\"?"),
        "{text}"
    );
    assert!(text.contains("there is no source r2 that could run, but r1; did you mean \"r1\"?"), "{text}");
}

#[test]
fn files_that_cannot_be_right() {
    let home = directory();
    for (text, words) in [
        ("[[case]]\nname = 'a'\nevents = [1]", "expected the body of an event, or a table of headers and body"),
        ("[[case]]\nname = 'a'\nevents = ['x']\nexpected = 1", "unknown field `expected`"),
        ("[[case]]\nname = 'a'\nevents = ['x']\nexpect.rest = [{ matches = '(' }]", "expected the body of an event"),
        ("agent = 'a2'", "there is no agent a2 that could run, but a1"),
    ] {
        let output = cases(home.path(), text);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let text = stderr(&output);
        assert!(text.starts_with("flume-rs: ") && text.contains("cases.toml") && text.contains(words), "{text}");
    }
    let output = run(&["test", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("flume-rs: cannot read /no/such/file: "), "{}", stderr(&output));
}

#[test]
fn what_does_not_run_is_told() {
    let home = directory();
    write(home.path(), "agent.conf", CONFIG.replace("([A-Z]+)", "([A-Z]+"));
    let file = write(home.path(), "cases.toml", "conf = ['agent.conf']\n[[case]]\nname = 'a'\nevents = ['x']\n");
    let output = run(&["test", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("the agent has no source that could run"), "{}", stdout(&output));
    assert!(stderr(&output).contains("a1.sources.r1.interceptors.i2.regex"), "{}", stderr(&output));
}
