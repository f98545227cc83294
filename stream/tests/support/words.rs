//! Jobs that count words, and what they should count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Conversation;

/// The folder of examples.
pub fn example_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is in a folder").join("examples")
}

/// An agent of the examples, with the name `a1`.
pub fn agent_example(name: &str) -> String {
    let text = fs::read_to_string(example_folder().join(name)).expect("there is such an example");
    text.replace("simple-agent", "a1")
}

/// The same job with a table `totals` of all words, in the checkpoint.
pub fn with_totals(job: &str) -> String {
    format!(
        "{job}\n[table.totals]\nsql = \"select word, count(*) as n from words group by word\"\n\
         [sink.totals]\ntype = \"sqlite\"\nfrom = \"totals\"\ntable = \"totals\"\nkey = [\"word\"]\n"
    )
}

/// Sentences of few words, and how often each word comes in so many of them.
pub fn sentences(count: usize) -> (Vec<String>, BTreeMap<String, usize>) {
    let words = ["alpha", "beta", "gamma", "Zürich", "東京"];
    let lines: Vec<String> = (0..count).map(|number| words[..=number % words.len()].join(" ")).collect();
    let mut counts = BTreeMap::new();
    for word in lines.iter().flat_map(|line| line.split(' ')) {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    (lines, counts)
}

/// Sends lines to a netcat source, all of which it accepts.
pub fn feed(port: u16, lines: &[String]) {
    let mut nc = Conversation::with(port);
    for line in lines {
        nc.send(format!("{line}\n"));
    }
    assert!(nc.lines(lines.len()).iter().all(|answer| answer == "OK"), "every line is accepted");
}
