//! `channel repair`: makes all that is in a channel's files right again.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use clap::Args;

use super::{CommandError, JavaArgs, Place, PlaceArgs, progress, say};
use crate::channel::file::{Image, Repair};
use crate::fs::Disk;

/// Options of `repair`.
#[derive(Args, Debug)]
pub struct RepairArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Do what the plan says; without it, nothing is changed
    #[arg(long)]
    yes: bool,
}

/// Prints the plan, and carries it out with `--yes`. The exit status is 1 when there is something to do that was not done.
pub fn run(args: &RepairArgs, java: &JavaArgs) -> Result<ExitCode, CommandError> {
    let mut place = args.place.find(java)?;
    if let Some(user) = place.user()? {
        return Err(CommandError::Said(format!("the channel is in use by {user}; stop it first, nothing was changed")));
    }
    if !place.has_checkpoint {
        let advice =
            "no checkpoint was found near the data directories: say with --checkpoint-dir where it is, or is to be";
        return Err(CommandError::Said(advice.to_owned()));
    }
    for directory in &place.directories.data {
        fs::read_dir(directory).map_err(CommandError::file(directory))?;
    }
    // Held until the end; a plan alone leaves no trace.
    let _locks = if args.yes { Repair::lock(&Disk, &place.directories)? } else { Vec::new() };
    let image = place.read()?;
    let repair = plan(&place, image)?;
    if repair.steps().is_empty() {
        return Ok(say("there is nothing to repair\n"));
    }
    let mut text = String::new();
    for step in repair.steps() {
        writeln!(text, "{step}").ok();
    }
    if !args.yes {
        text.push_str("nothing was changed; --yes does this\n");
        say(&text);
        return Ok(ExitCode::FAILURE);
    }
    let said = say(&text);
    repair.apply(&Disk)?;
    if said != ExitCode::SUCCESS {
        return Ok(said);
    }
    Ok(say("done\n"))
}

fn plan(place: &Place, image: Image) -> Result<Repair, CommandError> {
    let bar = progress::bar(Some(image.walk(true).total()), "checking".to_owned());
    let plan = Repair::plan(&place.directories, image, |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    Ok(plan?)
}
