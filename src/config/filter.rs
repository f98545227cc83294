//! Config filters: `${f1['key']}` in the values of components, replaced by what the filter `f1` knows.
//!
//! Types: `env` (environment variables) and `external` (the first line that a command prints for the key). Flume's
//! `hadoop` filter reads Java credential stores and is not available.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::finding::Finding;
use super::wiring::{AgentSection, Section};
use super::{ComponentType, Kind, resolve_type};

/// How long a command may take to print a value.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_VALUE_BYTES: u64 = 64 << 10;

type Build = fn(&Section) -> Option<Box<dyn Filter>>;

const TYPES: &[ComponentType<Build>] = &[
    ComponentType {
        aliases: &["env"],
        class: "org.apache.flume.configfilter.EnvironmentVariableConfigFilter",
        build: |_| Some(Box::new(Environment)),
    },
    ComponentType {
        aliases: &["external"],
        class: "org.apache.flume.configfilter.ExternalProcessConfigFilter",
        build: |section| {
            let command = section.get("command")?;
            Some(Box::new(External { command: command.value.split_whitespace().map(str::to_owned).collect() }))
        },
    },
];

trait Filter {
    /// The value; `Err` with why the filter has none.
    fn value(&self, key: &str) -> Result<String, String>;
}

struct Environment;

impl Filter for Environment {
    fn value(&self, key: &str) -> Result<String, String> {
        std::env::var(key).map_err(|_| format!("the environment has no variable {key}"))
    }
}

struct External {
    command: Vec<String>,
}

impl Filter for External {
    fn value(&self, key: &str) -> Result<String, String> {
        let (program, arguments) = self.command.split_first().ok_or("the command is empty")?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(key)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("could not run {program}: {error}"))?;
        let Some(stdout) = child.stdout.take() else { return Err(format!("{program} has no output")) };
        // A thread reads, so that a command that never ends can be given up.
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout.take(MAX_VALUE_BYTES)).read_line(&mut line).map(|_| line);
            // Nobody waits any more when the command was given up.
            sender.send(read).ok();
        });
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let read = receiver.recv_timeout(COMMAND_TIMEOUT);
        let status = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status,
                None if read.is_err() || Instant::now() >= deadline => {
                    child.kill().ok();
                    child.wait().ok();
                    return Err(format!("{program} did not end within {} s", COMMAND_TIMEOUT.as_secs()));
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        let line = read.map_err(|_| format!("{program} printed nothing"))?;
        let line = line.map_err(|error| format!("could not read what {program} prints: {error}"))?;
        if !status.success() {
            return Err(format!("{program} ended with {status}"));
        }
        let value = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() { Err(format!("{program} printed nothing")) } else { Ok(value.to_owned()) }
    }
}

/// Applies an agent's filters to the values of all its components.
pub fn apply(agent: &mut AgentSection, findings: &mut Vec<Finding>) {
    let mut filters: BTreeMap<String, Box<dyn Filter>> = BTreeMap::new();
    let list = agent.list(Kind::ConfigFilter).cloned();
    for name in list.iter().flat_map(|list| &list.names) {
        let prefix = format!("{}.configfilters.{name}", agent.name);
        let flume = format!("Error while creating config filter {name}");
        let Some(section) = agent.section(Kind::ConfigFilter, name) else {
            let origin = list.as_ref().map(|list| &list.origin);
            findings.push(Finding::error("has no properties").missing(prefix, origin).as_flume(flume));
            continue;
        };
        let Some(kind) = section.get("type") else {
            findings.push(
                Finding::error("missing: expected a filter type")
                    .missing(format!("{prefix}.type"), section.origin())
                    .as_flume(flume),
            );
            continue;
        };
        let key = format!("{prefix}.type");
        match resolve_type(TYPES, &kind.value).map(|found| (found.build)(section)) {
            Some(Some(filter)) => {
                filters.insert(name.clone(), filter);
            }
            Some(None) => {
                findings.push(
                    Finding::error("missing: expected a command")
                        .missing(format!("{prefix}.command"), section.origin())
                        .as_flume(flume),
                );
            }
            None => {
                let finding = Finding::error("expected a filter type of this version: env or external");
                findings.push(
                    finding
                        .at(key, &kind.value, &kind.origin)
                        .nearest(&kind.value, ["env", "external"])
                        .as_flume(flume),
                );
            }
        }
    }
    if filters.is_empty() {
        return;
    }
    for (key, property) in agent.component_properties_mut() {
        if let Some(value) = replace(&property.value, &filters, |problem| {
            findings.push(Finding::error(problem).at(key.clone(), &property.value, &property.origin));
        }) {
            property.value = value;
        }
    }
}

/// Replaces every `${filter[key]}`; `None` when there is none.
fn replace(text: &str, filters: &BTreeMap<String, Box<dyn Filter>>, mut problem: impl FnMut(String)) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        out.push_str(before);
        let parsed = reference.find('}').and_then(|end| Some((end, parse_reference(&reference[2..end])?)));
        match parsed.and_then(|(end, (filter, key))| Some((end, filters.get(filter)?, key))) {
            Some((end, filter, key)) => {
                found = true;
                match filter.value(key) {
                    Ok(value) => out.push_str(&value),
                    Err(why) => {
                        problem(format!("Error while reading value for key {key}: {why}; the text stays"));
                        out.push_str(&reference[..=end]);
                    }
                }
                rest = &reference[end + 1..];
            }
            None => {
                out.push_str("${");
                rest = &reference[2..];
            }
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

/// `f1['key']`, `f1["key"]` or `f1[key]`.
fn parse_reference(text: &str) -> Option<(&str, &str)> {
    let (filter, key) = text.strip_suffix(']')?.split_once('[')?;
    let unquoted = ['\'', '"'].into_iter().find_map(|quote| key.strip_prefix(quote)?.strip_suffix(quote));
    let key = unquoted.unwrap_or(key);
    let valid = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    valid.then_some((filter, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Filter for Fixed {
        fn value(&self, key: &str) -> Result<String, String> {
            if key == "gone" { Err("gone".to_owned()) } else { Ok(format!("<{key}>")) }
        }
    }

    #[test]
    fn references_in_all_quotes() {
        let filters: BTreeMap<String, Box<dyn Filter>> = BTreeMap::from([("f1".to_owned(), Box::new(Fixed) as _)]);
        let mut problems = Vec::new();
        let mut replaced = |text: &str| replace(text, &filters, |problem| problems.push(problem));
        assert_eq!(replaced("a${f1['x']}b${f1[\"y\"]}${f1[z-_1]}").as_deref(), Some("a<x>b<y><z-_1>"));
        assert_eq!(replaced("${f1['x\"]}"), None);
        assert_eq!(replaced("${f2[x]} ${open"), None);
        assert_eq!(replaced("${f1[gone]}").as_deref(), Some("${f1[gone]}"));
        assert_eq!(problems.len(), 1);
    }
}
