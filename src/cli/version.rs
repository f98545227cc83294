//! `version`: five lines, as Flume prints them.

use std::process::ExitCode;

/// Prints the version of flume-rs, in the place of Flume's.
pub fn run() -> ExitCode {
    println!("flume-rs {}", env!("CARGO_PKG_VERSION"));
    println!("Compatible with Flume 1.11.0");
    println!("Source code repository: {}", option_env!("FLUME_RS_REPOSITORY").unwrap_or("unknown"));
    println!("Revision: {}", option_env!("FLUME_RS_REVISION").unwrap_or("unknown"));
    println!(
        "Compiled for {}-{} by rustc {} or later",
        std::env::consts::ARCH,
        std::env::consts::OS,
        env!("CARGO_PKG_RUST_VERSION")
    );
    ExitCode::SUCCESS
}
