//! Where a channel is: directories that were named, or those that its configuration names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::check::resolve_agents;
use super::super::{ConfigArgs, JavaArgs, read_texts};
use super::CommandError;
use super::user::User;
use crate::channel::file::{CHECKPOINT_FILE, Directories, Image, LOCK_FILE, holder, segment_number};
use crate::config::{Severity, load, nearest};

/// Which channel.
#[derive(Args, Debug)]
pub struct PlaceArgs {
    /// The channel's data directories, all of them, or a directory that they are in
    #[arg(value_name = "DIR", required_unless_present = "channel")]
    data: Vec<PathBuf>,
    /// The checkpoint's directory; without it, it is looked for in and beside the data directories
    #[arg(long, value_name = "DIR")]
    checkpoint_dir: Option<PathBuf>,
    /// The channel in the configuration, which names its directories
    #[arg(long, value_name = "CHANNEL", requires = "name", conflicts_with_all = ["data", "checkpoint_dir"])]
    channel: Option<String>,
    /// The agent in the configuration
    #[arg(short, long, value_name = "AGENT", requires = "channel")]
    name: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// A channel's directories.
pub struct Place {
    /// They are these.
    pub directories: Directories,
    /// Whether a checkpoint's directory was named or found.
    pub has_checkpoint: bool,
    /// What somebody named, who may have forgotten one.
    named: Vec<PathBuf>,
}

impl PlaceArgs {
    /// Finds the directories.
    pub fn find(&self, java: &JavaArgs) -> Result<Place, CommandError> {
        match (&self.name, &self.channel) {
            (Some(agent), Some(channel)) => {
                let directories = self.configured(agent, channel, java)?;
                Ok(Place { directories, has_checkpoint: true, named: Vec::new() })
            }
            _ => self.named(),
        }
    }

    fn configured(&self, agent: &str, channel: &str, java: &JavaArgs) -> Result<Directories, CommandError> {
        let locations = self.config.locations()?;
        if locations.is_empty() {
            return Err(CommandError::Said("--channel needs a configuration: expected --conf-file FILE".to_owned()));
        }
        let mut configuration = load(&read_texts(&locations)?, &java.lookups());
        let agents = resolve_agents(&mut configuration, &locations, Some(agent), &java.globals());
        let channels = agents.first().map_or(&[][..], |agent| &agent.channels);
        let names: Vec<&str> = channels.iter().map(|channel| channel.plan.name.as_str()).collect();
        let found = channels.iter().find(|known| known.plan.name == channel).ok_or_else(|| {
            let errors = configuration.findings.iter().filter(|finding| finding.severity == Severity::Error);
            let errors: String = errors.map(|finding| format!("{finding}\n")).collect();
            let known = if names.is_empty() { "no channel that works".to_owned() } else { names.join(", ") };
            let near = nearest(channel, names.iter().copied());
            let near = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            CommandError::Said(format!("{errors}agent {agent} has no channel {channel}; it has {known}{near}"))
        })?;
        found.config.directories().cloned().ok_or_else(|| {
            CommandError::Said(format!("channel {channel} is of type {}, which has no files", found.plan.type_name))
        })
    }

    fn named(&self) -> Result<Place, CommandError> {
        let data = all_data_directories(&self.data)?;
        let checkpoint = match &self.checkpoint_dir {
            Some(directory) => {
                names(directory)?;
                Some(directory.clone())
            }
            None => find_checkpoint(&data)?,
        };
        let has_checkpoint = checkpoint.is_some();
        // In a directory of segments there is no checkpoint, so that none is found.
        let checkpoint = checkpoint.or_else(|| data.first().cloned()).unwrap_or_default();
        let directories = Directories { checkpoint, backup: None, data };
        Ok(Place { directories, has_checkpoint, named: self.data.clone() })
    }
}

impl Place {
    /// Reads the channel's files. A segment that is missing because its directory was not named is no damage.
    pub fn read(&mut self) -> Result<Image, CommandError> {
        loop {
            let image = Image::read(&self.directories).map_err(CommandError::Said)?;
            let Some(found) = self.forgotten(&image)? else { return Ok(image) };
            // An agent that runs may have begun it in a directory that had none when they were looked for.
            let data = all_data_directories(&self.named)?;
            if data == self.directories.data {
                let found = found.display();
                return Err(CommandError::Said(format!(
                    "{found} belongs to the channel, too: name all its data directories"
                )));
            }
            self.directories.data = data;
        }
    }

    /// A segment that is missing and lies near.
    fn forgotten(&self, image: &Image) -> Result<Option<PathBuf>, CommandError> {
        if self.named.is_empty() || image.missing().is_empty() {
            return Ok(None);
        }
        let near = near(&self.directories.data)?;
        let found = |directory: &PathBuf| image.missing().iter().find_map(|missing| image.find(missing, directory));
        Ok(near.iter().find_map(found))
    }

    /// Who uses the channel.
    pub fn user(&self) -> Result<Option<User>, CommandError> {
        let Directories { checkpoint, backup, data } = &self.directories;
        for directory in [checkpoint].into_iter().chain(backup).chain(data) {
            if let Some(holder) = holder(directory).map_err(CommandError::file(directory))? {
                return Ok(Some(User::new(holder)));
            }
        }
        Ok(None)
    }
}

fn names(directory: &Path) -> Result<BTreeSet<String>, CommandError> {
    let entries = fs::read_dir(directory).map_err(CommandError::file(directory))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn has_segments(names: &BTreeSet<String>) -> bool {
    names.iter().any(|name| segment_number(name).is_some() || name.starts_with("log-"))
}

/// The directories below one, in order; those that cannot be read are none of the channel's.
fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn all_data_directories(named: &[PathBuf]) -> Result<Vec<PathBuf>, CommandError> {
    let mut data = Vec::new();
    for directory in named {
        data.extend(data_directories(directory)?);
    }
    Ok(data)
}

/// A directory with segments, or those below it that have some.
fn data_directories(directory: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let own = names(directory)?;
    if has_segments(&own) {
        return Ok(vec![directory.to_owned()]);
    }
    let below = below(directory).into_iter().map(|path| (names(&path).unwrap_or_default(), path));
    let (data, others): (Vec<_>, Vec<_>) = below.partition(|(names, _)| has_segments(names));
    // Into a channel without segments nothing was put yet.
    let empty = others.into_iter().filter(|(names, _)| names.contains(LOCK_FILE) && !names.contains(CHECKPOINT_FILE));
    let found: Vec<PathBuf> =
        if data.is_empty() { empty.collect() } else { data }.into_iter().map(|(_, path)| path).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    if own.contains(LOCK_FILE) {
        return Ok(vec![directory.to_owned()]);
    }
    let directory = directory.display();
    Err(CommandError::Said(format!(
        "there is no file channel in {directory}: expected files segment-0000000001 and so on there or in directories below"
    )))
}

/// Data directories, those below and those beside them.
fn near(data: &[PathBuf]) -> Result<BTreeSet<PathBuf>, CommandError> {
    let mut near = BTreeSet::new();
    for directory in data {
        let directory = directory.canonicalize().map_err(CommandError::file(directory))?;
        near.extend(below(&directory));
        near.extend(directory.parent().map(below).unwrap_or_default());
        near.insert(directory);
    }
    Ok(near)
}

/// The directory of the checkpoint of these data directories; `None` when none is near.
fn find_checkpoint(data: &[PathBuf]) -> Result<Option<PathBuf>, CommandError> {
    let near: Vec<(BTreeSet<String>, PathBuf)> =
        near(data)?.into_iter().map(|path| (names(&path).unwrap_or_default(), path)).collect();
    let having = |file: &'static str| near.iter().filter(move |(names, _)| names.contains(file));
    let mut found: Vec<&PathBuf> = having(CHECKPOINT_FILE).map(|(_, path)| path).collect();
    if found.is_empty() {
        // One that no checkpoint was written to yet is locked like the others, and may be known by its name.
        found = having(LOCK_FILE).filter(|(names, _)| !has_segments(names)).map(|(_, path)| path).collect();
        if found.len() > 1 {
            let named =
                |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains("checkpoint"));
            found.retain(named);
        }
        return Ok(<[_; 1]>::try_from(found).ok().map(|[only]| only.clone()));
    }
    if found.len() > 1 {
        found.retain(|directory| Image::is_checkpoint_of(directory, data));
        // The checkpoint and its copy are the same.
        found.dedup_by_key(|directory| fs::read(directory.join(CHECKPOINT_FILE)).ok());
    }
    if found.len() > 1 {
        let found: Vec<String> = found.iter().map(|directory| directory.display().to_string()).collect();
        let found = found.join(", ");
        return Err(CommandError::Said(format!(
            "there are several checkpoints near: {found}; say with --checkpoint-dir which one belongs to the channel"
        )));
    }
    Ok(found.pop().cloned())
}
