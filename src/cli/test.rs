//! `test`: cases for a configuration, run without starting anything.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use thiserror::Error;

use super::{JavaArgs, fail, read_texts, say};
use crate::agent::resolve;
use crate::config::{Configuration, Finding, Location, ReadError, Severity, load};
use crate::dry_run::{self, Suite};

/// Options of `test`.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// Files with cases; each names its configuration
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Why the cases of a file cannot be run.
#[derive(Debug, Error)]
enum SuiteError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}", path.display())]
    Malformed { path: PathBuf, source: toml::de::Error },
    #[error(transparent)]
    Configuration(#[from] ReadError),
    #[error("{}: {message}", path.display())]
    Agent { path: PathBuf, message: String },
}

/// How many cases went which way.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

/// Runs all cases. The exit status is 0 when all pass, 1 when some do not, 2 when a file cannot be read or is not right.
pub fn run(args: &TestArgs, java: &JavaArgs) -> ExitCode {
    let mut tally = Tally::default();
    for file in &args.files {
        if let Err(error) = run_file(file, java, &mut tally) {
            return fail(&error as &dyn Error);
        }
    }
    let said = say(&format!("{} passed, {} failed\n", tally.passed, tally.failed));
    if said != ExitCode::SUCCESS || tally.failed == 0 { said } else { ExitCode::FAILURE }
}

fn run_file(path: &Path, java: &JavaArgs, tally: &mut Tally) -> Result<(), SuiteError> {
    let text = fs::read_to_string(path).map_err(|source| SuiteError::Unreadable { path: path.into(), source })?;
    let suite: Suite = toml::from_str(&text).map_err(|source| SuiteError::Malformed { path: path.into(), source })?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let locations: Vec<Location> = suite.conf.paths().iter().map(|conf| Location::File(directory.join(conf))).collect();
    let configuration = load(&read_texts(&locations)?, &java.lookups());
    let name = agent(&suite, &configuration).map_err(|message| SuiteError::Agent { path: path.into(), message })?;
    let mut findings = Vec::new();
    for case in &suite.cases {
        // Each begins with a fresh agent, so that none depends on those before it.
        findings = configuration.findings.clone();
        let outcome = dry_run::run(case, &resolve(&configuration.agents[name], &java.globals(), &mut findings));
        let mut text = String::new();
        match outcome {
            Ok(()) => {
                tally.passed += 1;
                writeln!(text, "ok      {}", case.name).ok();
            }
            Err(lines) => {
                tally.failed += 1;
                writeln!(text, "FAILED  {}", case.name).ok();
                for line in lines {
                    writeln!(text, "    {line}").ok();
                }
            }
        }
        say(&text);
    }
    // What does not run may be why.
    for finding in findings.iter().filter(|finding: &&Finding| finding.severity == Severity::Error) {
        eprintln!("{}", finding.log_line());
    }
    Ok(())
}

/// The name of the agent under test.
fn agent<'a>(suite: &'a Suite, configuration: &'a Configuration) -> Result<&'a str, String> {
    let names: Vec<&str> = configuration.agents.keys().map(String::as_str).collect();
    match (suite.agent.as_deref(), names.as_slice()) {
        (None, [only]) => Ok(only),
        (None, []) => Err("there is no agent in the configuration that could run".to_owned()),
        (None, several) => Err(format!("there are the agents {}: say which by agent = \"…\"", several.join(", "))),
        (Some(name), names) if names.contains(&name) => Ok(name),
        (Some(name), names) => Err(format!("there is no agent {name} that could run, but {}", names.join(", "))),
    }
}
