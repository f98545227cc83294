//! The command line's entry.

use std::process::ExitCode;

fn main() -> ExitCode {
    flume_rs::cli::main(std::env::args_os())
}
