//! The takeover: the events that Apache Flume left in its files (format 3) become this channel's own.
//!
//! Where there are logs of Flume in the data directories, the places of the events that wait are found
//! ([`replay`]), and the events are copied into segments whose names end in `.import`. When all of them are durable,
//! the file `takeover` in the first data directory says so: then the segments get their names, Flume's files move into
//! the sub-directory that it names, and it is removed. Whatever happens meanwhile, the next start either finds that file
//! and does the rest, or begins anew.

mod checkpoint;
pub mod log;
mod proto;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use self::checkpoint::Checkpoint;
use self::log::{Log, META_SUFFIXES, Pointer, Reader};
use super::encryption::Seal;
use super::open::note_closed;
use super::record::Draft;
use super::segment::{self, Segment, file_name};
use super::state::Phase;
use super::{Directories, FileConfig, Shared};
use crate::event::Batch;
use crate::fs::{self, File};
use crate::logging::Limited;

/// Says that all events are imported, and where Flume's files go.
const MARKER: &str = "takeover";
/// Where Flume's files go, if there is nothing of that name.
const ASIDE: &str = "taken-over-from-flume";
/// How the names of segments end that are not complete.
const UNFINISHED: &str = ".import";
/// Flume's files in the directories of checkpoints.
const CHECKPOINT_FILES: [&str; 7] =
    ["checkpoint", "checkpoint.meta", "checkpoint.snappy", "inflightputs", "inflighttakes", "queueset", COPIED];
/// Says that the copy of a checkpoint is complete.
const COPIED: &str = "backupComplete";
/// How often one hears of a long import.
const PROGRESS: Duration = Duration::from_secs(10);
/// What goes into one record: events, bytes of their bodies.
const BATCH: (usize, usize) = (1000, 1 << 20);
/// How many logs are open at once when the events are read.
const OPEN_LOGS: usize = 8;

/// The segments that came of a takeover.
#[derive(Debug, Default)]
pub struct Imported {
    /// By their numbers.
    pub segments: BTreeMap<u64, Segment>,
    /// The number behind the last event.
    pub end: u64,
}

fn is_flumes(name: &str) -> bool {
    let log = META_SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    log::number_of(log).is_some() || CHECKPOINT_FILES.contains(&name)
}

fn list(shared: &Shared, directory: &Path) -> Result<Vec<String>, String> {
    shared.fs.list(directory).map_err(|error| format!("Could not list {}: {error}", directory.display()))
}

/// Does the rest of a takeover that was interrupted, or removes what it had written.
pub fn recover(shared: &Shared) -> Result<(), String> {
    let mut unfinished = Vec::new();
    for directory in &shared.directories.data {
        for name in list(shared, directory)? {
            if name == MARKER {
                let marker = directory.join(MARKER);
                let content = fs::read(&*shared.fs, &marker, 1000);
                let content = content.map_err(|error| format!("Could not read {}: {error}", marker.display()))?;
                return finish(shared, &marker, String::from_utf8_lossy(&content).trim());
            }
            if name.ends_with(UNFINISHED) {
                unfinished.push(directory.join(name));
            }
        }
    }
    for path in unfinished {
        shared.fs.remove(&path).map_err(|error| format!("Could not remove {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Gives the segments their names and puts Flume's files aside.
fn finish(shared: &Shared, marker: &Path, aside: &str) -> Result<(), String> {
    let Directories { checkpoint, backup, data } = &shared.directories;
    let fs = &*shared.fs;
    let renamed = || {
        // A process that was killed may have left names that are not durable yet, the marker's among them: those of
        // what was moved are made so first where they are, then where they are not.
        for directory in data.iter().chain([checkpoint]).chain(backup) {
            if fs.list(directory)?.iter().any(|name| name == aside) {
                fs.sync_directory(&directory.join(aside))?;
            }
            fs.sync_directory(directory)?;
        }
        for directory in data {
            for name in fs.list(directory)? {
                if let Some(segment) = name.strip_suffix(UNFINISHED) {
                    fs.rename(&directory.join(&name), &directory.join(segment))?;
                }
            }
            fs.sync_directory(directory)?;
        }
        for directory in data.iter().chain([checkpoint]).chain(backup) {
            let names = fs.list(directory)?;
            let flumes: Vec<String> = names.into_iter().filter(|name| is_flumes(name)).collect();
            if flumes.is_empty() {
                continue;
            }
            let target = directory.join(aside);
            fs.create_directory(&target)?;
            for name in flumes {
                fs.rename(&directory.join(&name), &target.join(&name))?;
            }
            fs.sync_directory(&target)?;
            fs.sync_directory(directory)?;
            info!("The files of Flume are kept in {} [channel={}]", target.display(), shared.name);
        }
        fs.remove(marker)?;
        fs.sync_directory(marker.parent().unwrap_or(marker))
    };
    renamed().map_err(|error: std::io::Error| format!("Could not put the files of Flume aside: {error}"))
}

/// Imports what Flume left behind, if it did. Segments are numbered from `segment` on and events from `event` on. A long
/// import calls `announce`, so that nobody waits for it.
pub fn run(shared: &Shared, segment: u64, event: u64, announce: &mut dyn FnMut()) -> Result<Option<Imported>, String> {
    let logs = find_logs(shared)?;
    if logs.is_empty() {
        return Ok(None);
    }
    let config = shared.config();
    let mut takeover =
        Takeover { shared, config, announce, announced: Instant::now(), complaints: Limited::default(), damages: 0 };
    let name = &shared.name;
    info!(
        "Apache Flume left its files behind ({} logs), the events in them are taken over [channel={name}]",
        logs.len()
    );
    note_closed(shared, "the files of Apache Flume are being taken over");
    let events = replay::run(&mut takeover, &logs)?;
    takeover.check_missing(&logs, &events)?;
    let (imported, lost) = takeover.import(&logs, &events, segment, event)?;
    let aside = aside(shared)?;
    takeover.commit(&aside)?;
    let count = imported.end - event;
    let summary = format!("{count} events were taken over from Apache Flume [channel={name}]");
    match (lost, takeover.damages) {
        (0, 0) => info!("{summary}"),
        (lost, damages) => {
            error!("{summary}; {damages} places of its logs are damaged, {lost} events could not be read")
        }
    }
    shared.counters.lost.add(lost);
    Ok(Some(imported))
}

/// The logs in all data directories, by their numbers.
fn find_logs(shared: &Shared) -> Result<Vec<Log>, String> {
    let mut logs: BTreeMap<u32, Log> = BTreeMap::new();
    for directory in &shared.directories.data {
        for name in list(shared, directory)? {
            let Some(number) = log::number_of(&name) else { continue };
            let log = Log { number, path: directory.join(name) };
            if let Some(other) = logs.insert(number, log.clone()) {
                return Err(format!("{} and {} have the same number", other.path.display(), log.path.display()));
            }
        }
    }
    Ok(logs.into_values().collect())
}

/// A name for a sub-directory that no earlier takeover has used.
fn aside(shared: &Shared) -> Result<String, String> {
    let Directories { checkpoint, backup, data } = &shared.directories;
    let mut used = BTreeSet::new();
    for directory in data.iter().chain([checkpoint]).chain(backup) {
        used.extend(list(shared, directory)?);
    }
    let names = [ASIDE.to_owned()].into_iter().chain((2..).map(|number| format!("{ASIDE}-{number}")));
    Ok(names.into_iter().find(|name| !used.contains(name)).unwrap_or_default())
}

/// A takeover under way.
struct Takeover<'a> {
    shared: &'a Shared,
    config: FileConfig,
    announce: &'a mut dyn FnMut(),
    announced: Instant,
    complaints: Limited,
    damages: u64,
}

impl Takeover<'_> {
    fn channel(&self) -> &str {
        &self.shared.name
    }

    /// Ends it when the channel is stopped.
    fn check_stop(&self) -> Result<(), String> {
        match self.shared.state().phase {
            Phase::Stopped => Err("the channel is stopped".to_owned()),
            _ => Ok(()),
        }
    }

    /// Says now and then how far it is.
    fn pause(&mut self, how_far: impl FnOnce() -> String) -> Result<(), String> {
        if self.announced.elapsed() >= PROGRESS {
            self.announced = Instant::now();
            (self.announce)();
            info!("{} [channel={}]", how_far(), self.channel());
        }
        self.check_stop()
    }

    /// Counts damage and names it, at a bounded rate.
    fn damaged(&mut self, what: &dyn std::fmt::Display) {
        self.damages += 1;
        if let Some(suppressed) = self.complaints.permit() {
            warn!("{what} are damaged and passed over [channel={}]{suppressed}", self.channel());
        }
    }

    fn open(&self, log: &Log, checkpoint: i64) -> Result<Reader, String> {
        log.open(&*self.shared.fs, &self.config.keys, checkpoint)
    }

    /// The newest checkpoint of Flume that can be used; an empty one when all logs have to be read.
    fn checkpoint(&self) -> Result<Checkpoint, String> {
        let Directories { checkpoint, backup, .. } = &self.shared.directories;
        for directory in [checkpoint].into_iter().chain(backup) {
            let place = directory.display();
            let name = self.channel();
            // The last that Flume puts beside a copy.
            if Some(directory) == backup.as_ref() && !list(self.shared, directory)?.iter().any(|name| name == COPIED) {
                continue;
            }
            match Checkpoint::read(&*self.shared.fs, directory) {
                Ok(Some(Ok(checkpoint))) => {
                    info!("Flume's checkpoint in {place} has {} events [channel={name}]", checkpoint.queue.len());
                    return Ok(checkpoint);
                }
                Ok(Some(Err(why))) => warn!("Flume's checkpoint in {place} cannot be used, {why} [channel={name}]"),
                Ok(None) => {}
                Err(error) => return Err(format!("Could not read Flume's checkpoint in {place}: {error}")),
            }
        }
        Ok(Checkpoint::default())
    }

    /// Does not go on without a log in which there are events.
    fn check_missing(&self, logs: &[Log], events: &[Pointer]) -> Result<(), String> {
        let known: BTreeSet<u32> = logs.iter().map(|log| log.number).collect();
        let Some(missing) = events.iter().map(|event| event.log()).find(|log| !known.contains(log)) else {
            return Ok(());
        };
        let waiting = events.iter().filter(|event| event.log() == missing).count();
        let name = format!("{}{missing}", log::PREFIX);
        Err(format!(
            "{name} of Flume with {waiting} events is missing from the data directories: \
             bring it back, or put an empty file {name} there to go on without them"
        ))
    }

    /// Copies the events into segments; also says how many could not be read.
    fn import(
        &mut self,
        logs: &[Log],
        events: &[Pointer],
        segment: u64,
        event: u64,
    ) -> Result<(Imported, u64), String> {
        let mut readers: Vec<(u32, Reader)> = Vec::new();
        let mut writer = Writer { shared: self.shared, config: self.config.clone(), segment, event, open: None };
        let mut imported = Imported { end: event, ..Imported::default() };
        let mut batch = Batch::new();
        let mut lost = 0;
        for (number, pointer) in events.iter().enumerate() {
            let reader = self.reader(logs, &mut readers, pointer.log())?;
            let failed = |error| format!("Could not read {}{}: {error}", log::PREFIX, pointer.log());
            match reader.event(pointer.offset()).map_err(failed)? {
                Ok(event) => batch.push(event),
                Err(why) => {
                    lost += 1;
                    let (log, offset) = (pointer.log(), pointer.offset());
                    if let Some(suppressed) = self.complaints.permit() {
                        let name = self.channel();
                        error!("The event at byte {offset} of log-{log} is lost, {why} [channel={name}]{suppressed}");
                    }
                }
            }
            if batch.len() >= BATCH.0 || batch.body_bytes() >= BATCH.1 {
                writer.write(&mut imported, &std::mem::take(&mut batch))?;
            }
            if number % BATCH.0 == 0 {
                self.pause(|| format!("{number} of {} events of Flume are imported", events.len()))?;
            }
        }
        writer.write(&mut imported, &batch)?;
        writer.seal(&mut imported)?;
        Ok((imported, lost))
    }

    /// The reader of a log; those used last are kept.
    fn reader<'r>(
        &self,
        logs: &[Log],
        readers: &'r mut Vec<(u32, Reader)>,
        number: u32,
    ) -> Result<&'r mut Reader, String> {
        let index = match readers.iter().position(|(known, _)| *known == number) {
            Some(index) => index,
            None => {
                let log = logs.iter().find(|log| log.number == number);
                let log = log.ok_or_else(|| format!("{}{number} is missing", log::PREFIX))?;
                if readers.len() == OPEN_LOGS {
                    readers.remove(0);
                }
                readers.push((number, self.open(log, 0)?));
                readers.len() - 1
            }
        };
        Ok(&mut readers[index].1)
    }

    /// The moment from which the events are this channel's.
    fn commit(&self, aside: &str) -> Result<(), String> {
        let fs = &*self.shared.fs;
        for directory in &self.shared.directories.data {
            let failed = |error| format!("Could not sync {}: {error}", directory.display());
            fs.sync_directory(directory).map_err(failed)?;
        }
        let marker = self.shared.directories.data[0].join(MARKER);
        let written = fs::replace(fs, &marker, format!("{aside}\n").as_bytes());
        written.map_err(|error| format!("Could not write {}: {error}", marker.display()))?;
        finish(self.shared, &marker, aside)
    }
}

/// Writes segments.
struct Writer<'a> {
    shared: &'a Shared,
    config: FileConfig,
    /// The number of the next segment and of the next event.
    segment: u64,
    event: u64,
    open: Option<(Arc<dyn File>, Segment)>,
}

impl Writer<'_> {
    fn write(&mut self, imported: &mut Imported, batch: &Batch) -> Result<(), String> {
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = batch.body_bytes();
        let mut draft = Draft::put(batch).ok_or_else(|| format!("{bytes} bytes are too many for one record"))?;
        let is_full =
            |segment: &Segment| segment.end > segment.first && segment.len + draft.len() > self.config.max_file_size;
        if self.open.as_ref().is_some_and(|(_, segment)| is_full(segment)) {
            self.seal(imported)?;
        }
        let failed = |error: std::io::Error| format!("Could not write the events of Flume: {error}");
        let required = self.config.minimum_required_space + draft.len();
        let directory = self.shared.roomy_directory(self.segment, required).map_err(failed)?;
        let (file, segment) = match &mut self.open {
            Some(open) => open,
            None => {
                let path = directory.join(file_name(self.segment));
                let file = self.shared.fs.create(&unfinished(&path)).map_err(failed)?;
                let seal = Seal::new(&self.config.keys).map_err(failed)?;
                let beginning = segment::beginning(self.segment, self.event, seal.as_deref());
                file.write_at(&[IoSlice::new(&beginning)], 0).map_err(failed)?;
                let len = beginning.len() as u64;
                self.open.insert((file, Segment { path, first: self.event, end: self.event, len, seal }))
            }
        };
        let record = draft.seal(self.event, self.segment, segment.len, segment.seal.as_deref());
        file.write_at(&[IoSlice::new(record)], segment.len).map_err(failed)?;
        self.event += batch.len() as u64;
        segment.len += draft.len();
        segment.end = self.event;
        Ok(())
    }

    /// Makes the segment durable, but for its name.
    fn seal(&mut self, imported: &mut Imported) -> Result<(), String> {
        let Some((file, segment)) = self.open.take() else { return Ok(()) };
        file.sync().map_err(|error| format!("Could not write the events of Flume: {error}"))?;
        imported.end = segment.end;
        imported.segments.insert(self.segment, segment);
        self.segment += 1;
        Ok(())
    }
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}
