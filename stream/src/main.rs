//! The entry of the command `flume-rs-stream`.

use std::process::ExitCode;

fn main() -> ExitCode {
    flume_rs_stream::cli::main()
}
