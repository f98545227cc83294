//! `version`: five lines in the places of Flume's five.

use std::process::ExitCode;

/// The Flume whose configurations, protocols and files this agent follows.
const FLUME: &str = "1.11.0";

/// Prints the version. Scripts that read the first line find Flume's there.
pub fn run() -> ExitCode {
    let repository = match env!("CARGO_PKG_REPOSITORY") {
        "" => "unknown",
        repository => repository,
    };
    super::say(&format!(
        "Flume {FLUME} (by flume-rs {})\nSource code repository: {repository}\nRevision: {}\nCompiled by {}\nFor {} on {}\n",
        env!("CARGO_PKG_VERSION"),
        env!("FLUME_RS_REVISION"),
        env!("FLUME_RS_COMPILER"),
        std::env::consts::ARCH,
        std::env::consts::OS,
    ))
}
