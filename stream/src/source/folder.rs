//! Files that appear in a folder whole: written elsewhere on the same file system and moved in.
//!
//! | key | default | what |
//! |---|---|---|
//! | `path` | | the folder, relative to the job file; a `file:///…` URL will do |
//! | `start` | `latest` | as long as no batch has been committed: `latest` leaves out the files that are there already, `earliest` takes them |
//! | `pattern` | `*` | which names are taken: `*`, `?`, `[a-z]` |
//! | `max-line` | 1048576 | the most bytes of a line, up to 268435456; a longer one is cut there |
//! | `poll` | `10s` | how often the folder is looked at even when the system tells of no change |
//!
//! Each file is read once, the oldest first, line by line; one whose name ends with `.gz` is unpacked. Names that begin with a
//! dot and folders in the folder are left alone, and so is what is added to a file later. A file that replaces another of
//! its name is a new one. Only folders of this machine can be read, not those of HDFS.
//!
//! After a crash the same lines come again: until a batch is committed its files must stay. The checkpoint names each file
//! that was read and is still there, some 16 bytes each, with every batch that ends one: move files away before there are
//! hundreds of thousands.

mod file;

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use flume_rs::logging::Limited;
use flume_rs::source::watch::{Told, Watch};
use futures_util::FutureExt as _;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;
use tracing::{info, warn};

use self::file::{FileId, Lines, ReadError};
use super::{Cut, MaxLine, Position, Source, SourceConfig, SourceError};
use crate::format::Records;
use crate::job::{JobError, Keys, keys};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FolderConfig {
    #[serde(deserialize_with = "path")]
    path: PathBuf,
    #[serde(default)]
    start: Start,
    #[serde(default, deserialize_with = "pattern")]
    pattern: Option<glob::Pattern>,
    #[serde(default)]
    max_line: MaxLine,
    #[serde(default = "poll", deserialize_with = "keys::duration")]
    poll: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Start {
    #[default]
    Latest,
    Earliest,
}

fn poll() -> Duration {
    Duration::from_secs(10)
}

fn path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(deserializer)?;
    let local = text.strip_prefix("file://").unwrap_or(&text);
    if local.contains("://") {
        let why = format!("`{text}` is no folder of this machine; others, as those of HDFS, cannot be read");
        return Err(D::Error::custom(why));
    }
    Ok(PathBuf::from(local))
}

fn pattern<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<glob::Pattern>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let pattern = glob::Pattern::new(&text);
    pattern.map(Some).map_err(|error| D::Error::custom(format!("`{text}` is no pattern of names: {error}")))
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SourceConfig>, JobError> {
    let folder = keys.text().path().parent().map(Path::to_owned).unwrap_or_default();
    let mut config = keys.read::<FolderConfig>()?;
    config.path = folder.join(config.path);
    Ok(Box::new(config))
}

impl SourceConfig for FolderConfig {
    fn spark(&self) -> Result<serde_json::Value, String> {
        if self.start == Start::Latest {
            return Err("Spark takes the files that are there already, too: it needs `start = \"earliest\"`".to_owned());
        }
        let path = std::path::absolute(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?;
        let mut options = serde_json::json!({ "lineSep": "\n" });
        if let Some(pattern) = &self.pattern {
            options["pathGlobFilter"] = globbed(pattern.as_str()).into();
        }
        Ok(serde_json::json!({ "format": "text", "options": options, "path": path }))
    }

    fn build(&self, name: &str, once: bool) -> Box<dyn Source> {
        Box::new(Folder {
            name: name.to_owned(),
            config: self.clone(),
            once,
            watch: None,
            seen: None,
            done: HashSet::new(),
            reading: None,
            waiting: VecDeque::new(),
            is_noted: true,
            failed: None,
            complaints: Limited::default(),
        })
    }
}

/// A pattern in the words of Hadoop, which knows alternatives in braces as well.
fn globbed(pattern: &str) -> String {
    pattern.replace('{', "\\{").replace('}', "\\}").replace("[!", "[^")
}

/// A batch takes no more files when it has so many bytes.
const MOST_BYTES: usize = 64 << 20;
/// So many files that are gone are remembered, so that one that is away for a while is not taken for new.
const KEPT_GONE: usize = 10_000;

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    #[serde(flatten)]
    file: FileId,
    from: u64,
    to: u64,
}

/// Where a batch ends.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Place {
    /// The fingerprints of the files that are done, 16 digits each.
    done: String,
    /// The file that the next batch goes on with, and where.
    next: Option<(FileId, u64)>,
    /// What the batch consists of.
    parts: Vec<Part>,
}

impl Place {
    fn read(position: &Position) -> Result<Self, SourceError> {
        Self::deserialize(position)
            .map_err(|error| SourceError::new(format!("the position in the checkpoint: {error}")))
    }

    fn done(&self) -> HashSet<u64> {
        let digits = self.done.as_bytes().chunks(16).filter_map(|digits| std::str::from_utf8(digits).ok());
        digits.filter_map(|digits| u64::from_str_radix(digits, 16).ok()).collect()
    }
}

struct Folder {
    name: String,
    config: FolderConfig,
    once: bool,
    watch: Option<(Watch, Told)>,
    /// When the folder was last looked at; nothing when that is due.
    seen: Option<Instant>,
    /// Fingerprints of files that are done.
    done: HashSet<u64>,
    reading: Option<(FileId, Lines)>,
    /// Files that are to be read, the next one in front.
    waiting: VecDeque<FileId>,
    /// Whether the last position that was given says where it is.
    is_noted: bool,
    /// An error that comes after what was read before it.
    failed: Option<SourceError>,
    /// What is said of files that cannot be opened is limited.
    complaints: Limited,
}

impl Folder {
    fn error(&self, name: &str, why: impl std::fmt::Display) -> SourceError {
        SourceError::new(format!("{}: {why}", self.config.path.join(name).display()))
    }

    /// Whether something may have appeared since the last look.
    fn is_stale(&self) -> bool {
        let Some(seen) = self.seen else { return true };
        let is_told = || self.watch.as_ref().is_some_and(|(_, told)| told.changed().now_or_never().is_some());
        !self.once && (seen.elapsed() >= self.config.poll || is_told())
    }

    /// Finds the files that are to be read.
    fn look(&mut self) -> Result<(), SourceError> {
        if let Some((watch, told)) = &mut self.watch {
            watch.renew();
            // What has changed is not of interest: all names are looked at.
            told.take();
        }
        let (mut present, mut new) = (HashSet::new(), Vec::new());
        for entry in fs::read_dir(&self.config.path).map_err(|error| self.error("", error))? {
            let entry = entry.map_err(|error| self.error("", error))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_wanted = self.config.pattern.as_ref().is_none_or(|pattern| pattern.matches(&name));
            if name.starts_with('.') || !is_wanted {
                continue;
            }
            let metadata = match fs::metadata(entry.path()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(|error| self.error(&name, error))?,
            };
            if metadata.is_file() {
                let file = FileId::new(name, &metadata);
                let fingerprint = file.fingerprint();
                present.insert(fingerprint);
                let is_open = self.reading.as_ref().is_some_and(|(open, _)| *open == file);
                if !is_open && !self.done.contains(&fingerprint) {
                    new.push((metadata.modified().ok(), file));
                }
            }
        }
        new.sort();
        self.waiting = new.into_iter().map(|(_, file)| file).collect();
        if !present.is_empty() && self.done.len() > present.len() + KEPT_GONE {
            self.done.retain(|fingerprint| present.contains(fingerprint));
        }
        self.seen = Some(Instant::now());
        Ok(())
    }

    /// Begins anew where a batch ended.
    fn go_to(&mut self, place: &Place) -> Result<(), SourceError> {
        self.done = place.done();
        self.reading = match &place.next {
            Some((file, at)) => Some((file.clone(), self.reopen(file, *at)?)),
            None => None,
        };
        (self.seen, self.failed, self.is_noted) = (None, None, true);
        self.waiting.clear();
        Ok(())
    }

    /// Opens a file of which something has been read before.
    fn reopen(&self, file: &FileId, at: u64) -> Result<Lines, SourceError> {
        let found = Lines::open(&self.config.path, file, at);
        found.map_err(|error| {
            let why =
                "the job has read it only in part and needs it again as it was; put it back, or remove the checkpoint";
            self.error(&file.name, format!("{error}; {why}"))
        })
    }

    /// Opens the next file, if there is one. One that cannot be opened holds up nobody; it is tried again at the next look.
    fn open_next(&mut self) -> Option<(FileId, Lines)> {
        while let Some(file) = self.waiting.pop_front() {
            match Lines::open(&self.config.path, &file, 0) {
                Ok(lines) => return Some((file, lines)),
                Err(why) => {
                    if let Some(others) = self.complaints.permit() {
                        warn!("source {}: {}{others}", self.name, self.error(&file.name, why));
                    }
                }
            }
        }
        None
    }

    /// Reads lines until there are enough. Gives whether the file ends with them.
    fn read_on(&mut self, file: &FileId, lines: &mut Lines, records: &mut Records, max_records: usize) -> bool {
        let max_line = self.config.max_line.0 as u64;
        while has_room(records, max_records) {
            match lines.next(records, max_line) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(ReadError::Broken(why)) => {
                    let (file, at) = (self.config.path.join(&file.name), lines.at());
                    warn!("source {}: {}: it cannot be unpacked beyond {at} bytes: {why}", self.name, file.display());
                    return true;
                }
                Err(error) => {
                    self.failed = Some(self.error(&file.name, error));
                    return false;
                }
            }
        }
        false
    }

    fn cut_now(&mut self, max_records: usize) -> Result<Cut, SourceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.is_stale() {
            self.look()?;
        }
        let (mut records, mut parts) = (Records::default(), Vec::new());
        while self.failed.is_none() && has_room(&records, max_records) {
            let Some((file, mut lines)) = self.reading.take().or_else(|| self.open_next()) else { break };
            let from = lines.at();
            let ended = self.read_on(&file, &mut lines, &mut records, max_records);
            if lines.at() > from {
                parts.push(Part { file: file.clone(), from, to: lines.at() });
            }
            if ended {
                self.done.insert(file.fingerprint());
                self.is_noted = false;
            } else {
                self.reading = Some((file, lines));
            }
        }
        let position = if parts.is_empty() && self.is_noted { None } else { self.position(parts) };
        Ok(Cut { records: vec![records], position })
    }

    fn position(&mut self, parts: Vec<Part>) -> Option<Position> {
        self.is_noted = true;
        let mut done: Vec<u64> = self.done.iter().copied().collect();
        done.sort_unstable();
        let done = done.iter().map(|fingerprint| format!("{fingerprint:016x}")).collect();
        let next = self.reading.as_ref().map(|(file, lines)| (file.clone(), lines.at()));
        serde_json::to_value(Place { done, next, parts }).ok()
    }
}

fn has_room(records: &Records, max_records: usize) -> bool {
    records.len() < max_records && records.bytes.len() < MOST_BYTES
}

#[async_trait]
impl Source for Folder {
    async fn open(&mut self, from: Option<&Position>) -> Result<(), SourceError> {
        if self.watch.is_none() {
            self.watch = Some(Watch::new([self.config.path.clone()]));
        }
        block_in_place(|| {
            self.go_to(&from.map_or_else(|| Ok(Place::default()), Place::read)?)?;
            // Here and not at the first cut: as long as the folder is not there, the job waits for it.
            self.look()?;
            if from.is_none() {
                if self.config.start == Start::Latest {
                    info!("source {}: {} files are there already and left out", self.name, self.waiting.len());
                    self.done.extend(self.waiting.drain(..).map(|file| file.fingerprint()));
                }
                self.is_noted = false;
            }
            Ok(())
        })
    }

    async fn ready(&mut self) {
        if self.reading.is_some() || !self.waiting.is_empty() || self.failed.is_some() || !self.is_noted {
            return;
        }
        let (Some(seen), Some((_, told))) = (self.seen, &self.watch) else { return };
        let wait = self.config.poll.saturating_sub(seen.elapsed());
        tokio::time::timeout(wait, told.changed()).await.ok();
        self.seen = None;
    }

    async fn cut(&mut self, max_records: usize) -> Result<Cut, SourceError> {
        block_in_place(|| self.cut_now(max_records))
    }

    async fn again(&mut self, _: Option<&Position>, to: &Position) -> Result<Cut, SourceError> {
        block_in_place(|| {
            let place = Place::read(to)?;
            let mut records = Records::default();
            let max_line = self.config.max_line.0 as u64;
            for Part { file, from, to } in &place.parts {
                let mut lines = self.reopen(file, *from)?;
                while lines.at() < *to {
                    match lines.next(&mut records, max_line) {
                        Ok(true) => {}
                        Ok(false) => return Err(self.error(&file.name, "it is shorter than it was")),
                        Err(error) => return Err(self.error(&file.name, error)),
                    }
                }
            }
            self.go_to(&place)?;
            Ok(Cut { records: vec![records], position: Some(to.clone()) })
        })
    }

    fn is_exhausted(&self) -> bool {
        let is_empty = self.reading.is_none() && self.waiting.is_empty() && self.failed.is_none();
        self.once && self.seen.is_some() && is_empty
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tempfile::TempDir;

    use super::*;

    fn folder(home: &TempDir, more: &str) -> FolderConfig {
        let text = format!("[source.files]\npath = \"in\"\n{more}");
        let path = home.path().join("job.toml");
        fs::create_dir_all(home.path().join("in")).expect("a folder");
        let text = crate::job::Text::new(&path, text);
        let keys = Keys::of_file(&text).and_then(|mut keys| keys.tables("source")).expect("it is a table").remove(0);
        let parent = keys.text().path().parent().expect("there is one").to_owned();
        let mut config = keys.read::<FolderConfig>().expect("it is right");
        config.path = parent.join(&config.path);
        config
    }

    async fn open(config: &FolderConfig, from: Option<&Position>) -> Box<dyn Source> {
        let mut source = config.build("files", false);
        source.open(from).await.expect("it opens");
        source
    }

    fn lines(cut: &Cut) -> Vec<String> {
        cut.records.iter().flat_map(Records::iter).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    async fn cut(source: &mut dyn Source, max: usize) -> (Vec<String>, Option<Position>) {
        source.ready().await;
        let cut = source.cut(max).await.expect("it can be read");
        (lines(&cut), cut.position)
    }

    /// A file that is moved in.
    fn put(home: &TempDir, name: &str, text: impl AsRef<[u8]>) {
        let beside = home.path().join("beside");
        fs::write(&beside, text).expect("a file");
        fs::rename(&beside, home.path().join("in").join(name)).expect("it is moved");
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(text.as_bytes()).expect("it fits");
        writer.finish().expect("it fits")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn files_that_appear_are_read_once() {
        let home = tempfile::tempdir().expect("a folder");
        let config = folder(&home, "pattern = \"*.[lg]*\"\n");
        put(&home, "old.log", "old\n");
        let mut source = open(&config, None).await;
        let (none, position) = cut(&mut *source, 9).await;
        assert!(none.is_empty() && position.is_some(), "where it begins is noted");
        put(&home, ".hidden.log", "hidden\n");
        put(&home, "other.txt", "other\n");
        fs::create_dir(home.path().join("in/sub.log")).expect("a folder");
        put(&home, "a.log", "1\r\n\n2");
        let mut found = Vec::new();
        while found.len() < 3 {
            found.extend(cut(&mut *source, 9).await.0);
        }
        assert_eq!(found, ["1", "", "2"]);
        let path = home.path().join("in/a.log");
        fs::OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(b"3\n")).expect("it grows");
        put(&home, "old.log", "new\n");
        put(&home, "b.gz", packed("4\n5\n"));
        let mut found = Vec::new();
        while found.len() < 3 {
            found.extend(cut(&mut *source, 9).await.0);
        }
        // The clock of the file system need not tell them apart.
        found.sort();
        assert_eq!(found, ["4", "5", "new"], "what is added is left out, what replaces a file is not");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_large_file_comes_in_pieces_and_each_of_them_again() {
        let home = tempfile::tempdir().expect("a folder");
        let config = folder(&home, "start = \"earliest\"\n");
        let text = |first: usize| (first..first + 10).map(|n| format!("line {n}\n")).collect::<String>();
        put(&home, "a", text(0));
        let pause = || tokio::time::sleep(Duration::from_millis(20));
        pause().await;
        put(&home, "b.gz", packed(&text(10)));
        let mut source = open(&config, None).await;
        let (mut all, mut positions) = (Vec::new(), vec![None]);
        for _ in 0..5 {
            let (lines, position) = cut(&mut *source, 4).await;
            assert_eq!(lines.len(), 4);
            positions.push(position);
            all.push(lines);
        }
        let expected: Vec<String> = text(0).lines().chain(text(10).lines()).map(str::to_owned).collect();
        assert_eq!(all.concat(), expected);
        for batch in 0..5 {
            let (from, to) = (positions[batch].as_ref(), positions[batch + 1].as_ref().expect("it has one"));
            let mut source = open(&config, from).await;
            assert_eq!(lines(&source.again(from, to).await.expect("it is there")), all[batch]);
            let next = source.cut(4).await.expect("it can be read");
            assert_eq!(lines(&next), all.get(batch + 1).cloned().unwrap_or_default());
        }
        let to = positions[1].clone().expect("it has one");
        let mut source = open(&config, None).await;
        put(&home, "a", text(0));
        let error = source.again(None, &to).await.expect_err("it is another file").to_string();
        assert!(error.contains("in/a: it is not the file that it was"), "{error}");
        fs::remove_file(home.path().join("in/a")).expect("it is there");
        let error = source.again(None, &to).await.expect_err("it is gone").to_string();
        assert!(error.contains("in/a: it is gone"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_packed_badly_ends_where_it_is_broken() {
        let home = tempfile::tempdir().expect("a folder");
        let config = folder(&home, "start = \"earliest\"\n");
        let broken = packed("1\n2\n");
        put(&home, "a.gz", &broken[..broken.len() - 6]);
        let mut source = config.build("files", true);
        source.open(None).await.expect("it opens");
        assert!(!source.is_exhausted());
        assert_eq!(cut(&mut *source, 9).await.0, ["1", "2"]);
        assert!(source.is_exhausted());
    }

    #[test]
    fn patterns_mean_the_same_on_spark() {
        assert_eq!(globbed("[!a-c]*{1}?"), "[^a-c]*\\{1\\}?");
    }

    #[test]
    fn mistakes_are_told() {
        for (wrong, why) in [("path = \"hdfs://host/in\"", "HDFS"), ("path = \"a\"\npattern = \"[\"", "pattern")] {
            let text = crate::job::Text::new(Path::new("a.toml"), format!("[source.files]\n{wrong}"));
            let mut keys = Keys::of_file(&text).expect("it is TOML");
            let error = read(keys.tables("source").expect("there is one").remove(0)).expect_err("it is wrong");
            assert!(error.message.contains(why), "{error}");
        }
    }
}
