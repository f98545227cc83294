//! The file in progress: from its place in the queue to its new name.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use thiserror::Error;
use tracing::{error, info, warn};

use super::SpooldirConfig;
use super::deserializer::{Deserializer, Input, Portion};
use super::directory::{Directory, Stamp, list};
use super::tracker::Tracker;
use crate::event::{Batch, Event, Headers};
use crate::fs::{Disk, FileSystem as _};
use crate::source::watch::{Changes, Watch};

/// Why the source cannot go on: somebody has to look. The texts are Flume's where it has such a case.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Somebody wrote to the file.
    #[error("File has been modified since being read: {0}")]
    Modified(PathBuf),
    /// Its length is another one.
    #[error("File has changed size since being read: {0}")]
    Resized(PathBuf),
    /// A file of this name was finished before.
    #[error("File name has been re-used with different files. Spooling assumptions violated for {0}")]
    Reused(PathBuf),
    /// It cannot be renamed.
    #[error(
        "Unable to move {from} to {to}. This will likely cause duplicate events. Please verify that flume has sufficient permissions to perform these operations: {error}"
    )]
    Move {
        /// Its name.
        from: PathBuf,
        /// The new one.
        to: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It cannot be deleted.
    #[error("Unable to delete spool file: {0}: {1}")]
    Delete(PathBuf, io::Error),
    /// Its tracker file cannot be made.
    #[error("Could not create tracker file: {0}: {1}")]
    Mark(PathBuf, io::Error),
    /// It cannot be read, or is not what the deserializer expects.
    #[error("{0}: {1}")]
    Read(PathBuf, io::Error),
    /// The tracker cannot be removed.
    #[error("Unable to delete old meta file {0}: {1}")]
    Tracker(PathBuf, io::Error),
}

/// A spooling directory that is read.
pub struct Spool {
    config: Arc<SpooldirConfig>,
    directory: Directory,
    tracker: Tracker,
    current: Option<Current>,
    /// Where an earlier run stopped, until its file is opened.
    resume: Option<(String, u64)>,
    /// Failures to look at files, not yet counted.
    faults: u64,
}

/// The file in progress.
struct Current {
    path: PathBuf,
    target: String,
    stamp: Stamp,
    headers: Headers,
    deserializer: Box<dyn Deserializer>,
    /// A file without a byte is an event, too.
    empty: bool,
}

impl Spool {
    /// Checks that the directory can be worked with, and finds where an earlier run stopped.
    pub fn open(config: Arc<SpooldirConfig>) -> io::Result<Self> {
        let directory = &config.spool_dir;
        if !directory.exists() {
            return Err(io::Error::other(format!("Directory does not exist: {}", directory.display())));
        }
        if !directory.is_dir() {
            return Err(io::Error::other(format!("Path is not a directory: {}", directory.display())));
        }
        if !config.tracks_in_directory {
            check_permissions(directory).map_err(|error| {
                let what = "Unable to read and modify files in the spooling directory";
                io::Error::other(format!("{what}: {}: {error}", directory.display()))
            })?;
        }
        Disk.create_directory(&config.tracker_dir)?;
        let tracker = Tracker::new(Arc::new(Disk), config.tracker_dir.clone());
        let resume = tracker.load()?;
        let directory = Directory::new(config.poll_delay);
        Ok(Self { config, directory, tracker, current: None, resume, faults: 0 })
    }

    /// Looks at the whole directory.
    pub fn scan(&mut self, watch: &mut Watch, now: Instant) {
        let mut listing = list(&self.config);
        // In a directory that was not watched yet, something may have come after it was listed.
        while watch.follow(listing.directories.iter().cloned()) {
            listing = list(&self.config);
        }
        for (path, error) in &listing.errors {
            self.faults += 1;
            error!("I/O exception occurred while listing directories. {}: {error}", path.display());
        }
        listing.files.retain(|path| !self.is_current(path));
        self.directory.scan(listing.files, &self.config, now);
    }

    /// Looks at what has changed; `false` when that takes a scan.
    pub fn look(&mut self, changes: Changes, now: Instant) -> bool {
        let Changes::Paths(paths) = changes else { return false };
        let mut all = true;
        for (path, whole) in paths {
            if !self.config.holds(&path) || self.is_current(&path) {
                continue;
            }
            all &= !(self.config.enters(&path) && path.is_dir());
            if self.config.takes(&path) {
                self.directory.look(path, whole, &self.config, now);
            }
        }
        all
    }

    fn is_current(&self, path: &Path) -> bool {
        self.current.as_ref().is_some_and(|current| current.path == path)
    }

    /// The next batches, which are all of one file; `None` while no file waits. All of them have to be
    /// [noted](Self::note) before the next call.
    pub fn next(&mut self, now: Instant) -> Result<Option<Vec<Portion>>, SpoolError> {
        loop {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => match self.open_next(now)? {
                    Some(current) => current,
                    None => return Ok(None),
                },
            };
            let portions = current.read()?;
            if let Some((_, offset)) = portions.last() {
                if *offset >= current.stamp.len {
                    // What looks like a last line without an end may be half of one.
                    current.check()?;
                }
                self.current = Some(current);
                return Ok(Some(portions));
            }
            info!("Last read took us just up to a file boundary. Rolling to the next file, if there is one.");
            current.check()?;
            self.retire(&current.path)?;
        }
    }

    /// Notes that a batch is in the channels.
    pub fn note(&mut self, offset: u64) -> io::Result<()> {
        match &self.current {
            Some(current) => self.tracker.store(&current.target, offset),
            None => Ok(()),
        }
    }

    /// When to come back though nothing has changed.
    pub fn deadline(&self) -> Option<Instant> {
        self.directory.deadline()
    }

    /// Whether a scan is the only way to hear of some changes.
    pub fn has_links(&self) -> bool {
        self.directory.has_links()
    }

    /// Failures since the last call.
    pub fn take_faults(&mut self) -> u64 {
        std::mem::take(&mut self.faults)
    }

    /// Opens the file that an earlier run was in, or the one whose turn it is.
    fn open_next(&mut self, now: Instant) -> Result<Option<Current>, SpoolError> {
        if let Some((target, offset)) = self.resume.take()
            && let Some(path) = self.config.targeted(&target)
        {
            self.directory.forget(&path);
            if let Some(current) = self.open_file(path, offset)? {
                info!("Going on with file {} at offset {offset}", current.path.display());
                return Ok(Some(current));
            }
        }
        while let Some(path) = self.directory.pop(&self.config, now) {
            if let Some(current) = self.open_file(path, 0)? {
                return Ok(Some(current));
            }
        }
        Ok(None)
    }

    fn open_file(&mut self, path: PathBuf, offset: u64) -> Result<Option<Current>, SpoolError> {
        let opened = File::open(&path).and_then(|file| Ok((Stamp::of(&file.metadata()?)?, file)));
        let (stamp, file) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                warn!("Could not find file: {}: {error}", path.display());
                return Ok(None);
            }
            Err(error) => {
                self.faults += 1;
                error!("Exception opening file: {}: {error}; it is tried again later", path.display());
                return Ok(None);
            }
        };
        let at = if offset <= stamp.len {
            offset
        } else {
            warn!("{} has less than the {offset} bytes that were read: reading from its front", path.display());
            0
        };
        let SpooldirConfig { batch_size, charset, on_malformed, .. } = *self.config;
        let input = Input { file, len: stamp.len, at, batch_size, charset, on_malformed };
        let deserializer =
            self.config.deserializer.open(input).map_err(|error| SpoolError::Read(path.clone(), error))?;
        let mut headers = deserializer.headers();
        if let Some(key) = &self.config.file_header {
            headers.set(key.clone(), path.to_string_lossy());
        }
        if let Some(key) = &self.config.basename_header {
            headers.set(key.clone(), path.file_name().unwrap_or_default().to_string_lossy());
        }
        let target = self.config.target(&path);
        Ok(Some(Current { path, target, stamp, headers, deserializer, empty: stamp.len == 0 }))
    }

    /// Takes a file whose events are all in the channels out of the way.
    fn retire(&mut self, path: &Path) -> Result<(), SpoolError> {
        let finished = self.config.finished_path(path);
        if self.config.deletes {
            info!("Preparing to delete file {}", path.display());
            fs::remove_file(path).map_err(|error| SpoolError::Delete(path.to_owned(), error))?;
        } else {
            if self.config.tracks_in_directory {
                info!("Preparing to create tracker file for {} at {}", path.display(), finished.display());
            } else {
                info!("Preparing to move file {} to {}", path.display(), finished.display());
            }
            if fs::symlink_metadata(&finished).is_ok() {
                return Err(SpoolError::Reused(finished));
            }
            if self.config.tracks_in_directory {
                let directory = finished.parent().unwrap_or(&self.config.tracker_dir);
                let made = Disk.create_directory(directory).and_then(|()| File::create_new(&finished));
                made.map_err(|error| SpoolError::Mark(finished, error))?;
            } else if let Err(error) = fs::rename(path, &finished) {
                return Err(SpoolError::Move { from: path.to_owned(), to: finished, error });
            }
        }
        self.tracker.remove().map_err(|error| SpoolError::Tracker(self.config.tracker_dir.clone(), error))
    }
}

impl Current {
    fn read(&mut self) -> Result<Vec<Portion>, SpoolError> {
        if std::mem::take(&mut self.empty) {
            let event = Event { headers: self.headers.clone(), body: Bytes::new() };
            return Ok(vec![(Batch::from_iter([event]), 0)]);
        }
        self.deserializer.read(&self.headers).map_err(|error| SpoolError::Read(self.path.clone(), error))
    }

    /// Checks that nobody has written to the file since it was opened.
    fn check(&self) -> Result<(), SpoolError> {
        let stamp = fs::metadata(&self.path).and_then(|metadata| Stamp::of(&metadata));
        match stamp {
            Ok(stamp) if stamp.len != self.stamp.len => Err(SpoolError::Resized(self.path.clone())),
            Ok(stamp) if stamp == self.stamp => Ok(()),
            _ => Err(SpoolError::Modified(self.path.clone())),
        }
    }
}

/// Makes sure that files of a directory can be made, read and removed. The name is hidden from whoever reads there.
fn check_permissions(directory: &Path) -> io::Result<()> {
    let name = format!(".flume-spooldir-perm-check-{}.canary", std::process::id());
    let canary = directory.join(name);
    fs::write(&canary, "testing flume file permissions\n")?;
    let read = fs::read(&canary);
    fs::remove_file(&canary)?;
    read.map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scene;
    use super::*;
    use crate::source::pieces::READ_BYTES;

    /// A source's work without channels.
    struct Run {
        spool: Spool,
        watch: Watch,
    }

    impl Run {
        fn of(scene: &Scene) -> Self {
            let spool = Spool::open(Arc::clone(&scene.config)).expect("the directory can be used");
            let mut run = Self { spool, watch: Watch::new([]).0 };
            run.spool.scan(&mut run.watch, Instant::now());
            run
        }

        /// The next so many batches, which are noted.
        fn batches(&mut self, count: usize) -> Result<Vec<Vec<String>>, SpoolError> {
            let mut batches = Vec::new();
            while batches.len() < count {
                let Some(portions) = self.spool.next(Instant::now())? else { break };
                for (batch, offset) in portions.into_iter().take(count - batches.len()) {
                    batches
                        .push(batch.iter().map(|event| String::from_utf8_lossy(event.body()).into_owned()).collect());
                    self.spool.note(offset).expect("it can be noted");
                }
            }
            Ok(batches)
        }

        fn all(&mut self) -> Vec<String> {
            self.batches(usize::MAX).expect("nothing is wrong").concat()
        }
    }

    fn names(scene: &Scene) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(scene.dir())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_read_and_get_their_new_names() {
        let scene = Scene::new(&[("fileSuffix", ".done"), ("batchSize", "2")]);
        scene.write("a", "1\n2\n3\n");
        scene.write("b", "");
        scene.write("c", "4");
        let mut run = Run::of(&scene);
        assert_eq!(run.batches(2).expect("two batches"), [vec!["1", "2"], vec!["3"]]);
        assert_eq!(names(&scene), [".flumespool", "a", "b", "c"], "the file is not done before its end has been noted");
        assert_eq!(run.all(), ["", "4"]);
        assert_eq!(names(&scene), [".flumespool", "a.done", "b.done", "c.done"]);
        assert_eq!(fs::read_dir(scene.dir().join(".flumespool")).expect("a directory").count(), 0);
    }

    #[test]
    fn a_new_run_goes_on_behind_the_last_batch_that_was_noted() {
        for stopped in 0..6 {
            // The first file would not be the next one any more.
            let scene = Scene::new(&[("batchSize", "2"), ("consumeOrder", "youngest")]);
            scene.write("a", "1\n2\n3\n4\n5\n");
            scene.date("a", 10);
            let before = Run::of(&scene).batches(stopped).expect("batches").concat();
            scene.write("b", "b\n");
            let after = Run::of(&scene).all();
            let all: Vec<&str> = before.iter().chain(&after).map(String::as_str).filter(|line| *line != "b").collect();
            assert_eq!(all, ["1", "2", "3", "4", "5"], "{stopped}");
        }
    }

    #[test]
    fn headers_name_the_file() {
        let scene = Scene::new(&[("fileHeader", "true"), ("basenameHeader", "true"), ("basenameHeaderKey", "name")]);
        scene.write("a", "1\n");
        let portions = Run::of(&scene).spool.next(Instant::now()).expect("nothing is wrong").expect("a batch");
        let path = scene.dir().join("a").display().to_string();
        let expected = Headers::from_iter([("file", path.as_str()), ("name", "a")]);
        assert_eq!(*portions[0].0.get(0).headers(), expected);
    }

    #[test]
    fn done_files_are_deleted_or_get_a_tracker_file() {
        let scene = Scene::new(&[("deletePolicy", "IMMEDIATE")]);
        scene.write("a", "1\n");
        assert_eq!(Run::of(&scene).all(), ["1"]);
        assert_eq!(names(&scene), [".flumespool"]);

        let scene = Scene::new(&[("trackingPolicy", "tracker_dir"), ("recursiveDirectorySearch", "true")]);
        fs::create_dir(scene.dir().join("sub")).expect("a directory");
        scene.write("a", "1\n");
        scene.write("sub/b", "2\n");
        let mut lines = Run::of(&scene).all();
        lines.sort();
        assert_eq!(lines, ["1", "2"]);
        assert_eq!(names(&scene), [".flumespool", "a", "sub"]);
        for path in [".flumespool/a.COMPLETED", ".flumespool/sub/b.COMPLETED", "sub/b"] {
            assert!(scene.dir().join(path).is_file(), "{path}");
        }
        assert!(Run::of(&scene).all().is_empty(), "they are done");
    }

    #[test]
    fn what_breaks_the_rules_stops_it_and_loses_nothing() {
        let scene = Scene::new(&[("batchSize", "1000000")]);
        let lines = "line\n".repeat(READ_BYTES / 5 + 1);
        scene.write("a", &format!("{lines}ha"));
        let mut run = Run::of(&scene);
        let first = run.batches(1).expect("a batch").concat();
        scene.append("a", "lf\n");
        assert!(matches!(run.batches(1), Err(SpoolError::Resized(_))), "half a line is none");
        let rest = Run::of(&scene).all();
        assert_eq!(first.len() + rest.len(), READ_BYTES / 5 + 2);
        assert_eq!(rest.last().map(String::as_str), Some("half"));

        scene.write("b", "1\n");
        let mut run = Run::of(&scene);
        assert_eq!(run.batches(1).expect("a batch").concat(), ["1"]);
        scene.date("b", 1);
        assert!(matches!(run.batches(1), Err(SpoolError::Modified(_))));
        assert!(Run::of(&scene).all().is_empty());

        scene.write("a", "new\n");
        let mut run = Run::of(&scene);
        assert_eq!(run.batches(1).expect("a batch").concat(), ["new"]);
        let error = run.batches(1).expect_err("the name was used");
        let text = format!(
            "File name has been re-used with different files. Spooling assumptions violated for {}",
            scene.dir().join("a.COMPLETED").display()
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(names(&scene), [".flumespool", "a", "a.COMPLETED", "b.COMPLETED"]);
    }

    #[test]
    fn a_tracker_of_a_file_that_is_another_one_now_counts_for_nothing() {
        let scene = Scene::new(&[]);
        scene.write("a", "a long line\n");
        Run::of(&scene).batches(1).expect("a batch");
        scene.write("a", "short\n");
        assert_eq!(Run::of(&scene).all(), ["short"]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let scene = Scene::new(&[]);
        fs::remove_dir(scene.dir()).expect("it goes");
        let error = Spool::open(Arc::clone(&scene.config)).err().expect("an error");
        assert_eq!(error.to_string(), format!("Directory does not exist: {}", scene.dir().display()));
        fs::write(scene.dir(), "").expect("a file");
        let error = Spool::open(Arc::clone(&scene.config)).err().expect("an error");
        assert_eq!(error.to_string(), format!("Path is not a directory: {}", scene.dir().display()));
    }
}
