//! `channel`: looks into the files of a file channel, and repairs them.

mod check;
mod export;
mod place;
mod repair;
mod status;
mod user;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::HumanCount;
use thiserror::Error;

use self::place::{Place, PlaceArgs};
use super::{JavaArgs, fail, progress, say};
use crate::channel::file::{Damage, RepairError};
use crate::config::ReadError;

/// Options of `channel`.
#[derive(Args, Debug)]
pub struct ChannelArgs {
    #[command(subcommand)]
    command: ChannelCommand,
}

#[derive(Debug, Subcommand)]
enum ChannelCommand {
    /// Print what waits, how old it is, who uses the channel, and the free space
    Status(status::StatusArgs),
    /// Read every record and list what is damaged; the exit status is 1 if anything is
    Check(check::CheckArgs),
    /// Write the undelivered events to an avro container, or as JSON lines
    Export(export::ExportArgs),
    /// Print what a damaged channel needs; with --yes, do it
    Repair(repair::RepairArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Why a command did not do what it was asked for.
#[derive(Debug, Error)]
enum CommandError {
    #[error("{0}")]
    Said(String),
    #[error(transparent)]
    Configuration(#[from] ReadError),
    #[error("{path}")]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Files(#[from] io::Error),
    #[error(transparent)]
    Repair(#[from] RepairError),
}

impl CommandError {
    fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.into(), source }
    }
}

/// Runs one of the commands. The exit status is 0 when all is well, 1 when something is damaged, and 2 when the command
/// could not be carried out.
pub fn run(args: &ChannelArgs, java: &JavaArgs) -> ExitCode {
    let outcome = match &args.command {
        ChannelCommand::Status(args) => status::run(args, java),
        ChannelCommand::Check(args) => check::run(args, java),
        ChannelCommand::Export(args) => export::run(args, java),
        ChannelCommand::Repair(args) => repair::run(args, java),
    };
    outcome.unwrap_or_else(|error| fail(&error))
}

/// `1 event`, `1,234 events`.
fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// One damaged range, for people.
fn damage_line(damage: &Damage) -> String {
    let what = if damage.torn { "a record that was never written to its end" } else { "damaged" };
    format!("{}: offset {}, length {}: {what}\n", damage.path.display(), damage.from, damage.to - damage.from)
}
