//! The command line.

mod check;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// A streaming job in a file: reads what agents deliver, counts, keeps state, and writes answers.
#[derive(Debug, Parser)]
#[command(name = "flume-rs-stream", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a job
    Run(run::Run),
    /// Find the mistakes of a job file, and show how its SQL is worked out
    Check(check::Check),
}

/// Runs the command that the process was given.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The standard output is for results.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    tracing_subscriber::registry().with(lines).with(tracing::level_filters::LevelFilter::INFO).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
    let code = runtime.block_on(async {
        match cli.command {
            Command::Run(run) => run.run().await,
            Command::Check(check) => check.run().await,
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}
