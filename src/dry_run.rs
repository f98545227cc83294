//! Cases for a configuration: which events a source is given, and which of them each channel is to get, after the
//! interceptors and by the selector. Nothing is started.
//!
//! They stand in a TOML file beside the configuration:
//!
//! ```toml
//! conf = "agent.conf"           # or several; from the directory of this file
//! agent = "a1"                  # may be left out where there is one
//!
//! [[case]]
//! name = "errors are kept"
//! source = "r1"                 # may be left out where there is one
//! events = ["ERROR disk full", { headers = { level = "INFO" }, body = "hello" }]
//! expect.files = [{ headers = { level = "ERROR", timestamp = { matches = '\d+' } }, body = "ERROR disk full" }]
//! expect.rest = ["hello"]
//! ```
//!
//! An expected event without `headers` may have any, and one without `body` may have any. `matches` is a Java regular
//! expression for the whole value. A channel that is not named is to get nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use crate::agent::{ResolvedAgent, ResolvedSource};
use crate::event::{Batch, Event};
use crate::java_regex::JavaRegex;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The configuration.
    pub conf: Files,
    /// The agent.
    pub agent: Option<String>,
    /// The cases.
    #[serde(default, rename = "case")]
    pub cases: Vec<Case>,
}

/// One file or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected the path of a configuration, or a list of paths")]
pub enum Files {
    /// One.
    One(PathBuf),
    /// Several; later ones override earlier ones.
    Several(Vec<PathBuf>),
}

impl Files {
    /// All of them.
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is called.
    pub name: String,
    source: Option<String>,
    events: Vec<Given>,
    #[serde(default)]
    expect: BTreeMap<String, Vec<Expected>>,
}

/// An event that the source is given.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields, expecting = "expected the body of an event, or a table of headers and body")]
enum Given {
    Body(String),
    Event {
        #[serde(default)]
        headers: BTreeMap<String, String>,
        #[serde(default)]
        body: String,
    },
}

impl From<&Given> for Event {
    fn from(given: &Given) -> Self {
        match given {
            Given::Body(body) => Self::new(body.clone()),
            Given::Event { headers, body } => Self { headers: headers.iter().collect(), body: body.clone().into() },
        }
    }
}

/// An event that a channel is to get.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields, expecting = "expected the body of an event, or a table of headers and body")]
enum Expected {
    Body(Text),
    Event { headers: Option<BTreeMap<String, Text>>, body: Option<Text> },
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields, expecting = "expected a text, or { matches = \"a regular expression\" }")]
enum Text {
    Is(String),
    Matches { matches: Pattern },
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Box<JavaRegex>);

impl TryFrom<String> for Pattern {
    type Error = crate::java_regex::PatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        JavaRegex::new(&text).map(|regex| Self(Box::new(regex)))
    }
}

impl Text {
    fn fits(&self, text: &[u8]) -> bool {
        match self {
            Self::Is(expected) => expected.as_bytes() == text,
            Self::Matches { matches: Pattern(pattern) } => pattern.matches(&String::from_utf8_lossy(text)),
        }
    }
}

impl Expected {
    fn headers(&self) -> Option<&BTreeMap<String, Text>> {
        match self {
            Self::Body(_) => None,
            Self::Event { headers, .. } => headers.as_ref(),
        }
    }

    fn body(&self) -> Option<&Text> {
        match self {
            Self::Body(body) => Some(body),
            Self::Event { body, .. } => body.as_ref(),
        }
    }

    fn fits(&self, event: &Event) -> bool {
        let headers_fit = |expected: &BTreeMap<String, Text>| {
            let fits = |(name, value): (&str, &str)| expected.get(name).is_some_and(|text| text.fits(value.as_bytes()));
            expected.len() == event.headers.len() && event.headers.iter().all(fits)
        };
        self.headers().is_none_or(headers_fit) && self.body().is_none_or(|body| body.fits(&event.body))
    }
}

/// Runs a case. Otherwise than expected, it gives what was, line by line: `-` what was expected, `+` what came.
pub fn run(case: &Case, agent: &ResolvedAgent) -> Result<(), Vec<String>> {
    let source = find_source(case.source.as_deref(), agent).map_err(|error| vec![error])?;
    let unknown = case.expect.keys().filter(|name| !source.channels.contains(name));
    let unknown: Vec<String> = unknown.map(|name| no_such("channel", name, &source.channels)).collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let mut batch: Batch = case.events.iter().map(Event::from).collect();
    source.chain.intercept(&mut batch);
    let routes = source.selector.select(batch);
    let mut received = vec![Vec::new(); source.channels.len()];
    for (channel, part) in routes.required.iter().chain(&routes.optional) {
        received[*channel].extend(part.iter().map(|event| event.to_event()));
    }
    let mut lines = Vec::new();
    for (name, received) in source.channels.iter().zip(&received) {
        let expected = case.expect.get(name).map_or(&[][..], Vec::as_slice);
        let pairs = aligned(expected, received);
        if pairs.iter().any(|pair| !matches!(pair, (Some(_), Some(_)))) {
            lines.push(format!("channel {name}:"));
            lines.extend(pairs.into_iter().map(|pair| match pair {
                (Some(_), Some(event)) => format!("    {}", Shown(event)),
                (Some(expected), None) => format!("  - {expected}"),
                (None, Some(event)) => format!("  + {}", Shown(event)),
                (None, None) => String::new(),
            }));
        }
    }
    if lines.is_empty() { Ok(()) } else { Err(lines) }
}

fn find_source<'a>(name: Option<&str>, agent: &'a ResolvedAgent) -> Result<&'a ResolvedSource, String> {
    let names = || -> Vec<String> { agent.sources.iter().map(|source| source.plan.name.clone()).collect() };
    match (name, agent.sources.as_slice()) {
        (None, [only]) => Ok(only),
        (None, []) => Err("the agent has no source that could run".to_owned()),
        (None, _) => Err(format!("the agent has the sources {}: say which by source = \"…\"", names().join(", "))),
        (Some(name), sources) => {
            sources.iter().find(|source| source.plan.name == name).ok_or_else(|| no_such("source", name, &names()))
        }
    }
}

fn no_such(kind: &str, name: &str, known: &[String]) -> String {
    let near = crate::config::nearest(name, known.iter().map(String::as_str));
    let meant = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
    format!("there is no {kind} {name} that could run, but {}{meant}", known.join(", "))
}

/// What was expected beside what came, in order, so that as many as can be fit.
fn aligned<'a>(expected: &'a [Expected], came: &'a [Event]) -> Vec<(Option<&'a Expected>, Option<&'a Event>)> {
    // The most that fit of what is left from each place on.
    let mut most = vec![vec![0usize; came.len() + 1]; expected.len() + 1];
    for i in (0..expected.len()).rev() {
        for j in (0..came.len()).rev() {
            most[i][j] = match expected[i].fits(&came[j]) {
                true => most[i + 1][j + 1] + 1,
                false => most[i + 1][j].max(most[i][j + 1]),
            };
        }
    }
    let mut pairs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < expected.len() || j < came.len() {
        if i < expected.len() && j < came.len() && expected[i].fits(&came[j]) {
            pairs.push((Some(&expected[i]), Some(&came[j])));
            (i, j) = (i + 1, j + 1);
        } else if i < expected.len() && (j == came.len() || most[i + 1][j] >= most[i][j + 1]) {
            pairs.push((Some(&expected[i]), None));
            i += 1;
        } else {
            pairs.push((None, Some(&came[j])));
            j += 1;
        }
    }
    pairs
}

/// An event as it is printed: `{level=ERROR} "disk full"`.
struct Shown<'a>(&'a Event);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { headers, body } = self.0;
        let mut headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        headers.sort_unstable();
        write!(f, "{{{}}} ", headers.join(", "))?;
        match str::from_utf8(body) {
            Ok(text) => write!(f, "{text:?}"),
            Err(_) => write!(f, "b\"{}\"", body.escape_ascii()),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(text) => f.write_str(text),
            Self::Matches { matches: Pattern(pattern) } => write!(f, "/{pattern}/"),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(headers) = self.headers() {
            let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
            write!(f, "{{{}}} ", headers.join(", "))?;
        }
        match self.body() {
            Some(Text::Is(text)) => write!(f, "{text:?}"),
            Some(pattern) => pattern.fmt(f),
            None => f.write_str("any body"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(text: &str) -> Vec<Expected> {
        #[derive(Deserialize)]
        struct List {
            list: Vec<Expected>,
        }
        toml::from_str::<List>(&format!("list = [{text}]")).expect(text).list
    }

    #[test]
    fn what_is_not_said_may_be_anything() {
        let event = Event::new("hello").with("level", "INFO").with("at", "12:30");
        for (text, fits) in [
            ("'hello'", true),
            ("'hell'", false),
            ("{ matches = 'h.*' }", true),
            ("{ matches = 'h' }", false),
            ("{}", true),
            ("{ headers = {} }", false),
            ("{ headers = { level = 'INFO', at = { matches = '[\\d:]+' } } }", true),
            ("{ headers = { level = 'INFO' }, body = 'hello' }", false),
            ("{ headers = { level = 'WARN', at = '12:30' } }", false),
        ] {
            assert_eq!(expected(text)[0].fits(&event), fits, "{text}");
        }
    }

    #[test]
    fn as_many_as_can_be_fit() {
        let came: Vec<Event> = ["a", "x", "b", "d"].into_iter().map(Event::new).collect();
        let expected = expected("'a', 'b', 'c', { headers = { k = 'v' }, body = { matches = 'd+' } }");
        let pairs = aligned(&expected, &came).into_iter().map(|(expected, event)| {
            (expected.map(|expected| expected.to_string()), event.map(|event| Shown(event).to_string()))
        });
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            pairs.collect::<Vec<_>>(),
            [
                (some("\"a\""), some("{} \"a\"")),
                (None, some("{} \"x\"")),
                (some("\"b\""), some("{} \"b\"")),
                (some("\"c\""), None),
                (some("{k=v} /d+/"), None),
                (None, some("{} \"d\"")),
            ]
        );
    }
}
