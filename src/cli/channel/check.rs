//! `channel check`: reads every record and lists what is damaged.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use indicatif::HumanBytes;
use serde_json::json;

use super::{CommandError, Format, JavaArgs, PlaceArgs, counted, damage_line, progress, say};
use crate::channel::file::{CheckpointState, Examination, Image, Missing};

/// Options of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Reads everything and prints what was found. The exit status is 1 if anything is damaged or missing; a record that was
/// never written to its end is not, as it was never acknowledged.
pub fn run(args: &CheckArgs, java: &JavaArgs) -> Result<ExitCode, CommandError> {
    let mut place = args.place.find(java)?;
    // Before anything is read: what an agent is just writing is not torn.
    let in_use = place.user()?.is_some();
    let image = place.read()?;
    let mut found = examine(&image)?;
    found.damage.retain(|damage| !(damage.torn && in_use));
    let checkpoints = image.checkpoints()?;
    let damaged_checkpoints = checkpoints.iter().filter(|(_, state)| *state == CheckpointState::Damaged);
    let damaged_checkpoints: Vec<&Path> = damaged_checkpoints.map(|(path, _)| path.as_path()).collect();
    let bad = found.damage.iter().any(|damage| !damage.torn)
        || found.lost > 0
        || !image.missing().is_empty()
        || !damaged_checkpoints.is_empty();
    let said = say(&match args.format {
        Format::Text => text(&image, &found, &damaged_checkpoints),
        Format::Json => json(&image, &found, &damaged_checkpoints),
    });
    Ok(if said == ExitCode::SUCCESS && bad { ExitCode::FAILURE } else { said })
}

/// Reads every record, with a progress bar.
fn examine(image: &Image) -> Result<Examination, CommandError> {
    let bar = progress::bar(Some(image.walk(true).total()), "checking".to_owned());
    let found = image.examine(|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    Ok(found?)
}

fn text(image: &Image, found: &Examination, checkpoints: &[&Path]) -> String {
    let mut text: String = found.damage.iter().map(damage_line).collect();
    for Missing { path, events: count, .. } in image.missing() {
        let events =
            if *count > 0 { format!(", and {} that wait in it", counted(*count, "event")) } else { String::new() };
        text.push_str(&format!("{}: missing{events}\n", path.display()));
    }
    for path in checkpoints {
        text.push_str(&format!("{}: damaged; the next start reads all segments\n", path.display()));
    }
    if found.lost > 0 {
        text.push_str(&format!("{} that wait cannot be read\n", counted(found.lost, "event")));
    }
    let bytes: u64 = found.damage.iter().map(|damage| damage.to - damage.from).sum();
    let damage = if bytes > 0 { format!("{} are no records", HumanBytes(bytes)) } else { "no damage".to_owned() };
    let segments = image.segments().len() - image.missing().len();
    let [events, records, segments] =
        [(found.events, "event"), (found.records, "record"), (segments as u64, "segment")]
            .map(|(n, what)| counted(n, what));
    text.push_str(&format!("{events} in {records} of {segments}; {damage}\n"));
    text
}

fn json(image: &Image, found: &Examination, checkpoints: &[&Path]) -> String {
    let mut damage = Vec::new();
    for range in &found.damage {
        let kind = if range.torn { "torn" } else { "damaged" };
        let length = range.to - range.from;
        damage.push(json!({ "file": range.path, "offset": range.from, "length": length, "kind": kind }));
    }
    for path in checkpoints {
        let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        damage.push(json!({ "file": path, "offset": 0, "length": length, "kind": "damaged" }));
    }
    let missing: Vec<_> =
        image.missing().iter().map(|missing| json!({ "file": missing.path, "events": missing.events })).collect();
    let value = json!({
        "segments": image.segments().len() - image.missing().len(),
        "records": found.records,
        "events": found.events,
        "lost_events": found.lost,
        "damage": damage,
        "missing": missing,
    });
    format!("{value:#}\n")
}
