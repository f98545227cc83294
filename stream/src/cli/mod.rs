//! The command line.

mod check;
mod demo;
mod generate;
mod progress;
mod run;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::job::Address;

/// A streaming job in a file: reads what agents deliver, counts, keeps state, and writes answers.
#[derive(Debug, Parser)]
#[command(name = NAME, version, arg_required_else_help = true)]
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
    /// See it work: made-up visits of a shop, through an agent and a job, live on a page
    Demo(demo::DemoArgs),
    /// Make up data to try jobs with
    Generate(generate::Generate),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

const NAME: &str = "flume-rs-stream";

/// Says what went wrong. Where nobody hears it, the exit status has to do.
fn complain(what: impl fmt::Display) {
    writeln!(io::stderr(), "{what}").ok();
}

/// An address to listen at.
fn address(text: &str) -> Result<String, String> {
    Address::to_listen(text).map(|_| text.to_owned())
}

/// How a command ends.
fn outcome<E: fmt::Display>(worked: Result<(), E>) -> ExitCode {
    match worked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

/// Ends as arguments do that cannot be.
fn refuse(why: &str) -> ! {
    Cli::command().error(ErrorKind::ArgumentConflict, why).exit()
}

/// Prints what a command was asked for. A reader that has seen enough is no failure.
fn say(text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("{NAME}: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    say(&script)
}

fn man() -> ExitCode {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).expect("memory takes everything");
    say(&page)
}

/// Runs the command that the process was given.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The standard output is for results.
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).log_internal_errors(false);
    // The agent within a demonstration has much to say.
    let levels = Targets::new()
        .with_default(Level::INFO)
        .with_target("flume_rs", Level::WARN)
        .with_target("flume_rs_stream", Level::INFO);
    tracing_subscriber::registry().with(lines).with(levels).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
    let code = runtime.block_on(async {
        match cli.command {
            Command::Run(run) => run.run().await,
            Command::Check(check) => check.run().await,
            Command::Demo(demo) => demo.run().await,
            Command::Generate(generate) => generate.run().await,
            Command::Completions { shell } => completions(shell),
            Command::Man => man(),
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}
