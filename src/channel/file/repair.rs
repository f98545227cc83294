//! Repair: what the files of a channel that nobody uses need, so that all of them is right again.
//!
//! Nothing that can be read is touched, and damaged bytes are copied before they are overwritten. A repair that is cut off
//! at any point can be begun again.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Directories;
use super::image::{CheckpointState, Damage, Examination, Image};
use super::lock::lock_all;
use super::ranges::Ranges;
use super::record::{Draft, HEADER};
use super::segment::{Place, START, header, set_aside};
use crate::fs::{File, FileSystem, Lock};

/// The most bytes that one blank record takes.
const BLANK: u64 = 1 << 20;

/// Why a channel cannot be repaired.
#[derive(Debug, Error)]
pub enum RepairError {
    /// Its files do not say enough, or somebody uses them.
    #[error("{0}")]
    Refused(String),
    /// The disk did not do it.
    #[error("{what}")]
    Failed {
        /// What was to be done.
        what: String,
        /// Why it was not.
        source: io::Error,
    },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Damaged bytes are copied, and overwritten by a record that says nothing.
    SetAside(Damage),
    /// Bytes at the end of a segment are copied and cut off.
    Cut(Damage),
    /// The beginning of a segment, in which nothing stands that is not known, is written anew.
    Beginning(Damage),
    /// A missing segment is replaced by an empty one.
    Replace {
        /// The segment's number.
        segment: u64,
        /// Its new file.
        path: PathBuf,
        /// How many events are known to have been in it.
        events: u64,
    },
    /// The checkpoint is computed anew.
    Checkpoint {
        /// Its file.
        path: PathBuf,
        /// What it is now.
        state: CheckpointState,
        /// How many events will wait.
        waiting: u64,
        /// How many events are given up.
        lost: u64,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAside(Damage { path, from, to, .. }) => {
                write!(f, "set aside: {} are copied to damaged/ beside it and blanked", Place(path, *from, *to))
            }
            Self::Cut(Damage { path, from, to, torn, .. }) => {
                let why = if *torn { "never written to their end" } else { "damaged" };
                write!(f, "truncate: {}, {why}, are copied to damaged/ beside it and cut off", Place(path, *from, *to))
            }
            Self::Beginning(Damage { path, .. }) => write!(f, "recompute: the beginning of {}", path.display()),
            Self::Replace { path, events, .. } => {
                let path = path.display();
                write!(f, "give up: {path}, which is missing with {events} known events: an empty one takes its place")
            }
            Self::Checkpoint { path, state, waiting, lost } => {
                let now = match state {
                    CheckpointState::Missing => "which is missing",
                    CheckpointState::Damaged => "which is damaged",
                    CheckpointState::Whole => "after all this",
                };
                write!(f, "recompute: {}, {now}: {waiting} events wait", path.display())?;
                if *lost > 0 { write!(f, ", {lost} cannot be read and are given up") } else { Ok(()) }
            }
        }
    }
}

/// What is to be done, in order.
pub struct Repair {
    directories: Directories,
    image: Image,
    unreadable: Vec<(u64, u64)>,
    steps: Vec<Step>,
}

impl Repair {
    /// Keeps everybody else out, for as long as what this gives is there.
    pub fn lock(fs: &dyn FileSystem, directories: &Directories) -> Result<Vec<Lock>, RepairError> {
        let Directories { checkpoint, backup, data } = directories;
        let all = [checkpoint].into_iter().chain(backup).chain(data).map(PathBuf::as_path);
        lock_all(fs, "repair", all).map_err(RepairError::Refused)
    }

    /// Reads everything and says what there is to do. `progress` is told how many bytes have been read.
    pub fn plan(directories: &Directories, image: Image, progress: impl FnMut(u64)) -> Result<Self, RepairError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source| RepairError::Failed { what, source }
        };
        let Examination { damage, lost, unreadable, .. } =
            image.examine(progress).map_err(failed("the segments cannot be read"))?;
        let mut steps: Vec<Step> = Vec::new();
        for missing in image.missing() {
            let path = missing.path.clone();
            steps.push(Step::Replace { segment: missing.segment, path, events: missing.events });
        }
        for damage in damage {
            let segment = &image.segments[&damage.segment];
            let is_last = image.segments.last_key_value().is_some_and(|(last, _)| *last == damage.segment);
            let to_end = damage.to >= segment.len && (is_last || damage.to == segment.len);
            if damage.from < START {
                steps.push(Step::Beginning(damage));
            } else if to_end {
                steps.push(Step::Cut(damage));
            } else if damage.to - damage.from >= HEADER as u64 {
                steps.push(Step::SetAside(damage));
            }
        }
        let checkpoints = image.checkpoints().map_err(failed("the checkpoint cannot be read"))?;
        let damaged = checkpoints.iter().any(|(_, state)| *state == CheckpointState::Damaged);
        if !steps.is_empty() || lost > 0 || damaged {
            let given_up: u64 = unreadable.iter().map(|(from, to)| to - from).sum();
            let waiting = image.backlog() - given_up;
            steps.extend(checkpoints.into_iter().map(|(path, state)| Step::Checkpoint { path, state, waiting, lost }));
        }
        Ok(Self { directories: directories.clone(), image, unreadable, steps })
    }

    /// What there is to do.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Does it. Nobody else must use the channel.
    pub fn apply(mut self, fs: &dyn FileSystem) -> Result<(), RepairError> {
        for step in std::mem::take(&mut self.steps) {
            let what = step.to_string();
            self.step(fs, step).map_err(|source| RepairError::Failed { what, source })?;
        }
        Ok(())
    }

    fn step(&mut self, fs: &dyn FileSystem, step: Step) -> io::Result<()> {
        match step {
            Step::SetAside(damage) => {
                let file = fs.open(&damage.path)?;
                set_aside(fs, &*file, Place(&damage.path, damage.from, damage.to))?;
                blank(&*file, &damage)
            }
            Step::Cut(damage) => {
                let file = fs.open(&damage.path)?;
                set_aside(fs, &*file, Place(&damage.path, damage.from, damage.to))?;
                if file.len()? > damage.from {
                    file.set_len(damage.from)?;
                    file.sync()?;
                }
                if let Some(segment) = self.image.segments.get_mut(&damage.segment) {
                    segment.len = damage.from;
                }
                Ok(())
            }
            Step::Beginning(Damage { segment, path, .. }) => {
                let file = fs.open(&path)?;
                file.write_at(&[IoSlice::new(&header(segment, self.image.segments[&segment].first))], 0)?;
                file.sync()
            }
            Step::Replace { segment, path, .. } => {
                let first = self.image.segments.get(&segment).map_or(0, |segment| segment.first);
                let file = fs.create(&path)?;
                file.write_at(&[IoSlice::new(&header(segment, first))], 0)?;
                file.sync()?;
                fs.sync_directory(path.parent().unwrap_or(Path::new(".")))?;
                if let Some(segment) = self.image.segments.get_mut(&segment) {
                    segment.len = START;
                }
                Ok(())
            }
            Step::Checkpoint { path, .. } => {
                // A process that was killed may have left records that are not durable, for which the checkpoint speaks.
                for segment in self.image.segments.values() {
                    match fs.open(&segment.path).and_then(|file| file.sync()) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                let mut checkpoint = self.image.checkpoint();
                let given_up: Ranges = checkpoint.done.iter().chain(self.unreadable.iter().copied()).collect();
                checkpoint.done = given_up;
                checkpoint.write(fs, path.parent().unwrap_or(&self.directories.checkpoint))
            }
        }
    }
}

/// Puts records that say nothing in the place of damaged bytes.
fn blank(file: &dyn File, damage: &Damage) -> io::Result<()> {
    let mut at = damage.from;
    while at < damage.to {
        let left = damage.to - at;
        // What is left at the end must take a record, too.
        let len = if left >= 2 * BLANK { BLANK } else { left };
        let mut record = Draft::blank(len as usize);
        file.write_at(&[IoSlice::new(record.seal(0, damage.segment, at, None))], at)?;
        at += len;
    }
    file.sync()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::channel::file::{FileChannel, FileConfig, Piece, Tuning};
    use crate::channel::{Channel as _, Patience};
    use crate::event::{Batch, Event};
    use crate::fs::Disk;
    use crate::metrics::Metrics;

    const EVENTS: usize = 8;
    const DELIVERED: usize = 2;

    struct Home {
        _directory: tempfile::TempDir,
        directories: Directories,
        /// As the channel left them.
        files: BTreeMap<PathBuf, Vec<u8>>,
    }

    impl Home {
        /// A channel of several segments with some delivered events, stopped in order.
        async fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let data = directory.path().join("data");
            let directories =
                Directories { checkpoint: directory.path().join("checkpoint"), backup: None, data: vec![data] };
            let mut home = Self { _directory: directory, directories, files: BTreeMap::new() };
            let channel = home.open().await;
            for number in 0..EVENTS {
                let batch = Batch::from_iter([Event::new(number.to_string()).with("n", "x")]);
                let mut put = channel.reserve(&batch, Patience::KeepAlive).await.expect("room");
                put.prepare(&batch).await.expect("writable");
                put.commit(batch);
            }
            channel.take(DELIVERED).await.expect("events").commit();
            channel.stop().await;
            let segments = fs::read_dir(&home.directories.data[0]).expect("there").flatten().map(|entry| entry.path());
            let checkpoint = home.directories.checkpoint.join(super::super::checkpoint::FILE);
            let files = segments.filter(|path| path.to_string_lossy().contains("segment")).chain([checkpoint]);
            home.files = files.map(|path| (path.clone(), fs::read(path).expect("readable"))).collect();
            assert!(home.files.len() > 3, "{:?}", home.files.keys());
            home
        }

        async fn open(&self) -> FileChannel {
            let config = FileConfig { max_file_size: 220, ..FileConfig::new(self.directories.clone()) };
            let channel = FileChannel::new("c1", config, Tuning::default(), Arc::new(Disk), &Metrics::default());
            channel.start().await.expect("it opens");
            channel
        }

        fn restore(&self) {
            for (path, content) in &self.files {
                fs::write(path, content).expect("writable");
            }
        }

        fn image(&self) -> Image {
            Image::read(&self.directories).expect("it can be read")
        }

        fn plan(&self) -> Repair {
            Repair::plan(&self.directories, self.image(), |_| {}).expect("it can be read")
        }

        /// The numbers of the events that wait.
        fn waiting(&self) -> Vec<usize> {
            let image = self.image();
            let mut walk = image.walk(false);
            let mut found = Vec::new();
            while let Some((piece, _)) = walk.next().expect("readable") {
                if let Piece::Put { first, batch } = piece {
                    found.extend(numbers(&image.undelivered(first, batch)));
                }
            }
            found
        }

        /// After a repair nothing is wrong, and at most one event is not there any more.
        fn check(&self, what: &str) {
            assert_eq!(self.plan().steps(), [], "{what}");
            let image = self.image();
            let found = image.examine(|_| {}).expect("readable");
            assert_eq!((found.damage, found.lost), (vec![], 0), "{what}");
            let waiting = self.waiting();
            assert_eq!(image.backlog(), waiting.len() as u64, "{what}");
            let missing = (DELIVERED..EVENTS).filter(|number| !waiting.contains(number)).count();
            assert!(missing <= 1 && waiting.is_sorted(), "{what}: {waiting:?}");
        }
    }

    fn numbers(batch: &Batch) -> Vec<usize> {
        let number = |body: &[u8]| std::str::from_utf8(body).ok()?.parse().ok();
        batch.iter().map(|event| number(event.body()).expect("a number")).collect()
    }

    /// Does the first steps of a repair only, as one that is cut off, and then another as a whole.
    fn repair(home: &Home, cut_off: usize) {
        let mut first = home.plan();
        for step in std::mem::take(&mut first.steps).into_iter().take(cut_off) {
            first.step(&Disk, step).expect("writable");
        }
        home.plan().apply(&Disk).expect("writable");
    }

    #[tokio::test]
    async fn wherever_a_bit_flips_only_its_record_is_given_up() {
        let home = Home::new().await;
        assert_eq!(home.plan().steps(), []);
        for (path, content) in &home.files {
            for at in (0..content.len()).step_by(3) {
                home.restore();
                let mut damaged = content.clone();
                damaged[at] ^= 1 << (at % 8);
                fs::write(path, damaged).expect("writable");
                let what = format!("byte {at} of {}", path.display());
                assert_ne!(home.plan().steps(), [], "{what}");
                repair(&home, at % 3);
                home.check(&what);
            }
        }
    }

    #[tokio::test]
    async fn wherever_a_segment_is_cut_the_others_are_whole_and_the_channel_opens() {
        let home = Home::new().await;
        let (path, content) =
            home.files.iter().rfind(|(path, _)| path.starts_with(&home.directories.data[0])).expect("a segment");
        for len in (START as usize..content.len()).step_by(7) {
            home.restore();
            fs::write(path, &content[..len]).expect("writable");
            repair(&home, len % 3);
            let waiting = home.waiting();
            let channel = home.open().await;
            assert_eq!(channel.counters().size.get(), waiting.len() as u64, "{len}");
            let mut taken = Vec::new();
            while taken.len() < waiting.len() {
                let take = channel.take(100).await.expect("events");
                taken.extend(numbers(take.batch()));
                take.commit();
            }
            assert_eq!(taken, waiting, "{len}");
            channel.stop().await;
            for file in fs::read_dir(&home.directories.data[0]).expect("there").flatten().map(|entry| entry.path()) {
                if file.is_file() && !home.files.contains_key(&file) {
                    fs::remove_file(file).expect("removed");
                }
            }
        }
    }
}
