//! The command line: what `flume-ng` takes, and what goes beyond it.

mod agent;
mod avro_client;
mod channel;
mod check;
mod java_args;
mod progress;
mod test;
mod usage;
mod version;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::java_args::JavaArgs;
use crate::config::{Credentials, Location, Lookups, ReadError};

/// An agent that runs Apache Flume configurations.
#[derive(Debug, Parser)]
#[command(name = "flume-rs", infer_long_args = true, disable_version_flag = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an agent
    #[command(alias = "node")]
    Agent(agent::AgentArgs),
    /// Send lines of text to an avro source
    AvroClient(avro_client::AvroClientArgs),
    /// Check a configuration: print what is wrong with it, and what would run
    Check(check::CheckArgs),
    /// Run cases: what the channels get of given events, without starting anything
    Test(test::TestArgs),
    /// Look into the files of a file channel: what waits, what is damaged; export and repair
    Channel(channel::ChannelArgs),
    /// Print the version
    Version,
    /// Print how flume-rs is used
    Help,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

/// Which configuration.
#[derive(Args, Clone, Debug, Default)]
struct ConfigArgs {
    /// The properties file; given again, later files override earlier ones
    #[arg(short = 'f', long, value_name = "FILE")]
    conf_file: Vec<PathBuf>,
    /// A file:, classpath:, http: or https: URI; if there is one, --conf-file is not read
    #[arg(short = 'u', long, value_name = "URI")]
    conf_uri: Vec<String>,
    /// The user for http: and https:
    #[arg(long, alias = "user", value_name = "USER")]
    conf_user: Option<String>,
    /// The password for http: and https:
    #[arg(long, alias = "pwd", value_name = "PASSWORD")]
    conf_password: Option<String>,
    /// The configuration directory: log4j.properties, flume.opts and classpath: are looked for here
    #[arg(short = 'c', long, value_name = "DIR")]
    conf: Option<PathBuf>,
    /// More directories for classpath:, separated by colons
    #[arg(short = 'C', long, value_name = "PATH")]
    classpath: Option<String>,
}

impl ConfigArgs {
    fn directories(&self) -> Vec<PathBuf> {
        let more = self.classpath.iter().flat_map(|path| path.split(':')).filter(|path| !path.is_empty());
        self.conf.iter().cloned().chain(more.map(PathBuf::from)).collect()
    }

    fn locations(&self) -> Result<Vec<Location>, ReadError> {
        if self.conf_uri.is_empty() {
            return Ok(self.conf_file.iter().cloned().map(Location::File).collect());
        }
        let credentials = self
            .conf_user
            .clone()
            .map(|user| Credentials { user, password: self.conf_password.clone().unwrap_or_default() });
        let directories = self.directories();
        self.conf_uri.iter().map(|uri| Location::from_uri(uri, &directories, credentials.as_ref())).collect()
    }
}

/// Reads all locations, each with its name.
fn read_texts(locations: &[Location]) -> Result<Vec<(String, Vec<u8>)>, ReadError> {
    locations.iter().map(|location| Ok((location.name(), location.read()?))).collect()
}

/// Prints what a command was asked for. A reader that has seen enough is no failure.
fn say(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

/// Prints an error with its causes, as the last word of a command.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprint!("flume-rs: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::from(2)
}

/// Runs the command line.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (java, args) = java_args::split(args);
    let words: Vec<String> = args.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(code) = usage::answer(&words) {
        return code;
    }
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => {
            // A message that cannot be printed has nowhere else to go.
            error.print().ok();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Agent(args) => agent::run(args, java),
        Command::AvroClient(args) => avro_client::run(&args, java),
        Command::Check(args) => check::run(&args, java),
        Command::Test(args) => test::run(&args, &java),
        Command::Channel(args) => channel::run(&args, &java),
        Command::Version => version::run(),
        Command::Help => usage::print(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "flume-rs", &mut script);
            say(&String::from_utf8_lossy(&script))
        }
        Command::Man => {
            let mut page = Vec::new();
            match clap_mangen::Man::new(Cli::command()).render(&mut page) {
                Ok(()) => say(&String::from_utf8_lossy(&page)),
                Err(error) => fail(&error),
            }
        }
    }
}

impl JavaArgs {
    fn lookups(&self) -> Lookups {
        Lookups::new(self.system.clone())
    }
}
