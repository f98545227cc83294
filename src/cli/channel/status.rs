//! `channel status`: what waits, and who uses the channel.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use indicatif::{HumanBytes, HumanDuration};
use serde_json::{Value, json};

use super::user::User;
use super::{CommandError, Format, JavaArgs, Place, PlaceArgs, counted, say};
use crate::channel::file::{CheckpointState, Image};
use crate::fs::{Disk, FileSystem as _};

/// Options of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

struct Status {
    backlog: u64,
    backlog_bytes: u64,
    segments: usize,
    segment_bytes: u64,
    oldest: Option<Oldest>,
    checkpoints: Vec<Checkpoint>,
    missing: usize,
    user: Option<User>,
    free_space: Vec<(String, u64)>,
}

struct Oldest {
    age: Duration,
    /// Whether its header `timestamp` says so; otherwise it is not older than its segment.
    by_header: bool,
}

struct Checkpoint {
    path: String,
    state: CheckpointState,
    age: Option<Duration>,
}

/// Prints the status.
pub fn run(args: &StatusArgs, java: &JavaArgs) -> Result<ExitCode, CommandError> {
    let mut place = args.place.find(java)?;
    let image = place.read()?;
    let status = status(&place, &image)?;
    Ok(say(&match args.format {
        Format::Text => text(&status),
        Format::Json => format!("{:#}\n", json(&status)),
    }))
}

fn status(place: &Place, image: &Image) -> Result<Status, CommandError> {
    let bytes_of = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut checkpoints = Vec::new();
    for (path, state) in image.checkpoints()? {
        let age = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok().map(age);
        checkpoints.push(Checkpoint { path: path.display().to_string(), state, age });
    }
    let mut free_space = Vec::new();
    for directory in &place.directories.data {
        let free = Disk.free_space(directory).map_err(CommandError::file(directory))?;
        free_space.push((directory.display().to_string(), free));
    }
    Ok(Status {
        backlog: image.backlog(),
        backlog_bytes: image.walk(false).total(),
        segments: image.segments().len() - image.missing().len(),
        segment_bytes: image.segments().map(bytes_of).sum(),
        oldest: oldest(image)?,
        checkpoints,
        missing: image.missing().len(),
        user: place.user()?,
        free_space,
    })
}

/// How long the event that waits longest has done so: since its time stamp, or at most since its segment was begun.
fn oldest(image: &Image) -> Result<Option<Oldest>, CommandError> {
    let Some((batch, segment)) = image.oldest()? else { return Ok(None) };
    let timestamp = batch.get(0).headers().get("timestamp").and_then(|text| text.parse::<u64>().ok());
    let stamped = timestamp.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    let begun = || fs::metadata(&segment).and_then(|metadata| metadata.created()).ok();
    let by_header = stamped.is_some();
    Ok(stamped.or_else(begun).map(|since| Oldest { age: age(since), by_header }))
}

fn age(since: SystemTime) -> Duration {
    SystemTime::now().duration_since(since).unwrap_or_default()
}

fn text(status: &Status) -> String {
    let mut rows = vec![
        ("backlog", format!("{}, {} on disk", counted(status.backlog, "event"), HumanBytes(status.backlog_bytes))),
        ("segments", format!("{}, {}", status.segments, HumanBytes(status.segment_bytes))),
    ];
    if let Some(Oldest { age, by_header }) = &status.oldest {
        let age = HumanDuration(*age);
        let text = if *by_header { format!("{age} old") } else { format!("at most {age} old, as its segment is") };
        rows.insert(1, ("oldest event", text));
    }
    if status.missing > 0 {
        rows.push(("missing", format!("{}; see flume-rs channel check", counted(status.missing as u64, "segment"))));
    }
    for Checkpoint { path, state, age } in &status.checkpoints {
        let text = match (state, age) {
            (CheckpointState::Whole, Some(age)) => format!("{} old, {path}", HumanDuration(*age)),
            (CheckpointState::Whole, None) => path.clone(),
            (CheckpointState::Damaged, _) => format!("damaged, {path}"),
            (CheckpointState::Missing, _) => "none: the next start reads all segments".to_owned(),
        };
        rows.push(("checkpoint", text));
    }
    rows.push(("in use", status.user.as_ref().map_or("no".to_owned(), |user| format!("by {user}"))));
    for (directory, free) in &status.free_space {
        rows.push(("free space", format!("{} in {directory}", HumanBytes(*free))));
    }
    rows.iter().map(|(label, text)| format!("{label:<14}{text}\n")).collect()
}

fn json(status: &Status) -> Value {
    let oldest = status.oldest.as_ref().map(|Oldest { age, by_header }| {
        json!({ "age_seconds": age.as_secs(), "known_by": if *by_header { "timestamp" } else { "segment" } })
    });
    let checkpoint = |Checkpoint { path, state, age }: &Checkpoint| {
        let state = match state {
            CheckpointState::Whole => "whole",
            CheckpointState::Damaged => "damaged",
            CheckpointState::Missing => "missing",
        };
        let age = age.filter(|_| state != "missing").map(|age| age.as_secs());
        json!({ "file": path, "state": state, "age_seconds": age })
    };
    let free = |(directory, bytes): &(String, u64)| json!({ "directory": directory, "bytes": bytes });
    json!({
        "backlog": { "events": status.backlog, "bytes": status.backlog_bytes },
        "oldest_event": oldest,
        "segments": { "count": status.segments, "bytes": status.segment_bytes, "missing": status.missing },
        "checkpoints": status.checkpoints.iter().map(checkpoint).collect::<Vec<_>>(),
        "in_use_by": status.user.as_ref().map(|user| json!({ "process": user.process, "agent": user.agent })),
        "free_space": status.free_space.iter().map(free).collect::<Vec<_>>(),
    })
}
