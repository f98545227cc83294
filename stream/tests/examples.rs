//! The examples are as they should be.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{TestJob, country_data, directory, example_folder, files, stderr, stdout, write};

/// The examples whose names end so, and their texts.
fn examples(folder: &Path, end: &str) -> Vec<(PathBuf, String)> {
    let found = files(folder).into_iter().filter(|path| path.extension().is_some_and(|other| other == end));
    found.map(|path| (path.clone(), fs::read_to_string(path).expect("it can be read"))).collect()
}

#[test]
fn every_example_has_no_mistake() {
    let jobs = examples(&example_folder().join("stream"), "toml");
    assert!(jobs.len() >= 20, "{jobs:?}");
    for (path, text) in jobs {
        let home = directory();
        let path = match text.lines().find_map(|line| line.strip_prefix("country-database = ")) {
            None => path,
            Some(known) => {
                let Some(database) = country_data() else { continue };
                write(home.path(), "job.toml", text.replace(known, &format!("\"{database}\"")))
            }
        };
        let output = TestJob::command(&["check", &path.display().to_string()]);
        assert!(output.status.success(), "{}: {}{}", path.display(), stdout(&output), stderr(&output));
    }
}

#[test]
fn every_example_says_how_it_is_run() {
    for (path, text) in examples(&example_folder().join("stream"), "toml") {
        let name = path.file_name().expect("it has one").to_string_lossy();
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let command = format!("#   flume-rs-stream run examples/stream/{name}");
        assert!(head.iter().any(|line| line.starts_with(&command)), "{name} does not say: {command}");
    }
    for (path, text) in examples(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"), "rs") {
        let name = path.file_stem().expect("it has one").to_string_lossy();
        let command = format!("//! cargo run -p flume-rs-stream --example {name} ");
        assert!(text.contains(&command), "{name} does not say: {command}");
    }
}
