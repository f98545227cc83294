//! `version`: five lines in the places of Flume's five.

use std::process::ExitCode;

/// The Flume whose configurations, protocols and files this agent follows.
const FLUME: &str = "1.11.0";

/// Prints the version. Scripts that read the first line find Flume's there.
pub fn run() -> ExitCode {
    println!("Flume {FLUME} (by flume-rs {})", env!("CARGO_PKG_VERSION"));
    let repository = env!("CARGO_PKG_REPOSITORY");
    println!("Source code repository: {}", if repository.is_empty() { "unknown" } else { repository });
    println!("Revision: {}", env!("FLUME_RS_REVISION"));
    println!("Compiled by {}", env!("FLUME_RS_COMPILER"));
    println!("For {} on {}", std::env::consts::ARCH, std::env::consts::OS);
    ExitCode::SUCCESS
}
