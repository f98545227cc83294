//! The files that wait in the spooling directory, and which of them is next.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::{ConsumeOrder, SpooldirConfig};

/// What changes when somebody writes to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its length in bytes.
    pub len: u64,
    /// When it was changed last.
    pub modified: SystemTime,
}

impl Stamp {
    /// The stamp of a file.
    pub fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self { len: metadata.len(), modified: metadata.modified()? })
    }

    /// Milliseconds since 1970, as Java compares files.
    fn milliseconds(self) -> i128 {
        match self.modified.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i128,
            Err(before) => -(before.duration().as_millis() as i128),
        }
    }
}

/// The smallest one is next.
type Rank = (Age, OsString, PathBuf);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Oldest(i128),
    Youngest(Reverse<i128>),
    Seen(u64),
}

enum Place {
    Ready(Stamp, Rank),
    /// Somebody may still write to it, until this moment has come without a change.
    Settling(Stamp, Instant),
}

/// The files that wait.
pub struct Directory {
    /// How long a file has to be unchanged.
    quiet: Duration,
    places: HashMap<PathBuf, Place>,
    ready: BTreeSet<Rank>,
    settling: BTreeSet<(Instant, PathBuf)>,
    /// How many files have been seen.
    seen: u64,
    links: bool,
}

impl Directory {
    /// No files yet.
    pub fn new(quiet: Duration) -> Self {
        Self { quiet, places: HashMap::new(), ready: BTreeSet::new(), settling: BTreeSet::new(), seen: 0, links: false }
    }

    /// Looks at all files whose names fit.
    pub fn scan(&mut self, found: Vec<PathBuf>, config: &SpooldirConfig, now: Instant) {
        let still: HashSet<&PathBuf> = found.iter().collect();
        let gone: Vec<PathBuf> = self.places.keys().filter(|path| !still.contains(path)).cloned().collect();
        gone.iter().for_each(|path| self.forget(path));
        self.links = false;
        for path in found {
            self.look(path, false, config, now);
        }
    }

    /// Looks at one file whose name fits; `whole` when it came as it is now.
    pub fn look(&mut self, path: PathBuf, whole: bool, config: &SpooldirConfig, now: Instant) {
        let metadata = fs::metadata(&path).ok().filter(Metadata::is_file);
        let Some(stamp) = metadata.and_then(|metadata| Stamp::of(&metadata).ok()) else { return self.forget(&path) };
        match self.places.get(&path) {
            Some(Place::Ready(known, _)) if *known == stamp => return,
            Some(Place::Settling(known, _)) if *known == stamp && !whole => return,
            _ => self.forget(&path),
        }
        self.links |= fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink());
        // A clock elsewhere may be ahead.
        let age = SystemTime::now().duration_since(stamp.modified).unwrap_or_default();
        match self.quiet.checked_sub(age) {
            Some(left) if !whole && !left.is_zero() => self.settle(path, stamp, now + left),
            _ => self.make_ready(path, stamp, config.consume_order),
        }
    }

    fn settle(&mut self, path: PathBuf, stamp: Stamp, until: Instant) {
        self.settling.insert((until, path.clone()));
        self.places.insert(path, Place::Settling(stamp, until));
    }

    fn make_ready(&mut self, path: PathBuf, stamp: Stamp, order: ConsumeOrder) {
        self.seen += 1;
        let age = match order {
            ConsumeOrder::Oldest => Age::Oldest(stamp.milliseconds()),
            ConsumeOrder::Youngest => Age::Youngest(Reverse(stamp.milliseconds())),
            ConsumeOrder::Random => Age::Seen(self.seen),
        };
        let name = path.file_name().unwrap_or_default().to_owned();
        let rank = (age, name, path.clone());
        self.ready.insert(rank.clone());
        self.places.insert(path, Place::Ready(stamp, rank));
    }

    /// Drops a file that is gone, or in progress.
    pub fn forget(&mut self, path: &Path) {
        match self.places.remove(path) {
            Some(Place::Ready(_, rank)) => {
                self.ready.remove(&rank);
            }
            Some(Place::Settling(_, until)) => {
                self.settling.remove(&(until, path.to_owned()));
            }
            None => {}
        }
    }

    /// The next file, which is not among those that wait any more.
    pub fn pop(&mut self, config: &SpooldirConfig, now: Instant) -> Option<PathBuf> {
        while self.settling.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, path)) = self.settling.pop_first() else { break };
            let Some(Place::Settling(known, _)) = self.places.remove(&path) else { continue };
            match fs::metadata(&path).and_then(|metadata| Stamp::of(&metadata)) {
                Ok(stamp) if stamp == known => self.make_ready(path, stamp, config.consume_order),
                Ok(stamp) => self.settle(path, stamp, now + self.quiet),
                Err(_) => {}
            }
        }
        let (_, _, path) = self.ready.pop_first()?;
        self.places.remove(&path);
        Some(path)
    }

    /// When a file will be ready though nothing changes.
    pub fn deadline(&self) -> Option<Instant> {
        self.settling.first().map(|(until, _)| *until)
    }

    /// Whether there are symbolic links, whose files change without a word.
    pub fn has_links(&self) -> bool {
        self.links
    }
}

/// What there is in the spooling directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// All directories that are looked into.
    pub directories: Vec<PathBuf>,
    /// The files whose names fit.
    pub files: Vec<PathBuf>,
    /// What could not be read.
    pub errors: Vec<(PathBuf, io::Error)>,
}

/// Lists the spooling directory.
pub fn list(config: &SpooldirConfig) -> Listing {
    let mut listing = Listing::default();
    let mut waiting = vec![config.spool_dir.clone()];
    while let Some(directory) = waiting.pop() {
        if let Err(error) = list_one(config, &directory, &mut waiting, &mut listing.files) {
            listing.errors.push((directory.clone(), error));
        }
        listing.directories.push(directory);
    }
    listing
}

fn list_one(
    config: &SpooldirConfig,
    directory: &Path,
    directories: &mut Vec<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if config.enters(&path) {
                directories.push(path);
            }
        } else if config.takes(&path) {
            files.push(path);
        }
    }
    Ok(())
}

impl SpooldirConfig {
    /// Whether a directory below the spooling directory is looked into.
    pub fn enters(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.recursive && !name.starts_with('.') && !self.ignore.matches(&name)
    }

    /// Whether a file is one to read, by its name and its tracker file.
    pub fn takes(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let fits = !name.ends_with(&self.file_suffix)
            && !name.starts_with('.')
            && self.include.matches(&name)
            && !self.ignore.matches(&name);
        fits && !(self.tracks_in_directory && self.finished_path(path).exists())
    }

    /// Whether a path is in the spooling directory or a directory below that is looked into.
    pub fn holds(&self, path: &Path) -> bool {
        let mut above = path.parent();
        while let Some(directory) = above {
            if directory == self.spool_dir {
                return true;
            }
            if !self.enters(directory) {
                return false;
            }
            above = directory.parent();
        }
        false
    }

    /// What says that a file is done: its own new name, or its tracker file.
    pub fn finished_path(&self, path: &Path) -> PathBuf {
        let base = match path.strip_prefix(&self.spool_dir) {
            Ok(relative) if self.tracks_in_directory => self.tracker_dir.join(relative),
            _ => path.to_owned(),
        };
        let mut name = base.into_os_string();
        name.push(&self.file_suffix);
        name.into()
    }

    /// A file as Flume's tracker names it: with the spooling directory as it was configured.
    pub fn target(&self, path: &Path) -> String {
        let relative = path.strip_prefix(&self.spool_dir).unwrap_or(path);
        format!("{}/{}", self.spool_text, relative.to_string_lossy())
    }

    /// The file that the tracker names, if it is one of the spooling directory's that are to be read.
    pub fn targeted(&self, target: &str) -> Option<PathBuf> {
        let relative = target.strip_prefix(&self.spool_text)?.strip_prefix('/')?;
        let path = self.spool_dir.join(relative);
        (self.holds(&path) && self.takes(&path) && path.is_file()).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scene;
    use super::*;

    impl Scene {
        fn order(&self, directory: &mut Directory, now: Instant) -> Vec<String> {
            let names = std::iter::from_fn(|| directory.pop(&self.config, now));
            names.map(|path| path.strip_prefix(self.dir()).expect("below it").display().to_string()).collect()
        }

        fn scanned(&self) -> Vec<String> {
            let mut directory = Directory::new(Duration::ZERO);
            directory.scan(list(&self.config).files, &self.config, Instant::now());
            self.order(&mut directory, Instant::now())
        }
    }

    #[test]
    fn the_order_is_that_of_changes_and_then_of_names() {
        for (order, expected) in [("oldest", ["c", "a", "b", "d"]), ("youngest", ["d", "a", "b", "c"])] {
            let scene = Scene::new(&[("consumeOrder", order)]);
            for (name, seconds) in [("d", 30), ("b", 20), ("a", 20), ("c", 10)] {
                scene.write(name, "x");
                scene.date(name, seconds);
            }
            assert_eq!(scene.scanned(), expected);
        }
        let scene = Scene::new(&[("consumeOrder", "random")]);
        for name in ["a", "b"] {
            scene.write(name, "x");
        }
        assert_eq!(scene.scanned().len(), 2);
    }

    #[test]
    fn names_decide_what_is_read() {
        let scene = Scene::new(&[("includePattern", r".*\.log|sub"), ("ignorePattern", r"skip.*")]);
        std::fs::create_dir(scene.dir().join("sub")).expect("a directory");
        for name in ["a.log", "a.log.COMPLETED", ".b.log", "skip.log", "c.txt", "sub/d.log"] {
            scene.write(name, "x");
        }
        assert_eq!(scene.scanned(), ["a.log"]);
    }

    #[test]
    fn directories_below_are_looked_into_when_that_is_wanted() {
        let scene = Scene::new(&[("recursiveDirectorySearch", "true"), ("ignorePattern", "no.*")]);
        for name in ["a/b", "no", ".hidden"] {
            std::fs::create_dir_all(scene.dir().join(name)).expect("a directory");
        }
        for (seconds, name) in ["1", "a/2", "a/b/3", "no/4", ".hidden/5"].into_iter().enumerate() {
            scene.write(name, "x");
            scene.date(name, seconds as u64);
        }
        assert_eq!(scene.scanned(), ["1", "a/2", "a/b/3"]);
        for (path, held) in [("1", true), ("a/b/9", true), ("no/4", false), (".hidden/5", false), ("a/no/1", false)] {
            assert_eq!(scene.config.holds(&scene.dir().join(path)), held, "{path}");
        }
        assert!(!scene.config.holds(Path::new("/elsewhere/1")));
    }

    #[test]
    fn a_file_waits_until_it_is_quiet_unless_it_was_moved_there() {
        let scene = Scene::new(&[]);
        let (quiet, now) = (Duration::from_secs(60), Instant::now());
        let mut directory = Directory::new(quiet);
        for name in ["growing", "moved", "old"] {
            scene.write(name, "x");
        }
        scene.date("old", 1);
        for (name, whole) in [("growing", false), ("moved", true), ("old", false)] {
            directory.look(scene.dir().join(name), whole, &scene.config, now);
        }
        assert_eq!(scene.order(&mut directory, now), ["old", "moved"]);
        let first = directory.deadline().expect("one waits");
        assert!(first > now && first <= now + quiet);
        scene.write("growing", "xy");
        assert!(scene.order(&mut directory, first).is_empty(), "it has changed");
        let second = directory.deadline().expect("it waits");
        assert_eq!(second, first + quiet);
        assert_eq!(scene.order(&mut directory, second), ["growing"]);
        assert_eq!(directory.deadline(), None);
    }

    #[test]
    fn a_file_that_goes_or_changes_its_date_is_followed() {
        let scene = Scene::new(&[]);
        let (now, mut directory) = (Instant::now(), Directory::new(Duration::ZERO));
        for (name, seconds) in [("a", 1), ("b", 2), ("c", 3)] {
            scene.write(name, "x");
            scene.date(name, seconds);
        }
        directory.scan(list(&scene.config).files, &scene.config, now);
        scene.date("a", 4);
        std::fs::remove_file(scene.dir().join("b")).expect("it goes");
        for name in ["a", "b"] {
            directory.look(scene.dir().join(name), false, &scene.config, now);
        }
        assert_eq!(scene.order(&mut directory, now), ["c", "a"]);
    }
}
