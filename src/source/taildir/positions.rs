//! How far each file has been delivered, on disk.
//!
//! The position file is Flume's: `[{"inode":1,"pos":2,"file":"/path"}, …]`, so that Flume and flume-rs can follow each
//! other. Flume refuses any other field in it; what tells a file from another one that got its inode, and a file that
//! was truncated and has grown again from one that was not, stands in a file beside it (`….marks`). A mark counts only
//! while its inode has the same position in Flume's file: after Flume ran, or somebody edited the file, Flume's own
//! rule holds, that inode and path must agree. The marks are written first. Both files are replaced as a whole.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};
use tracing::{error, info, warn};

use crate::fs::{self, FileSystem};

const MARKS: &str = ".marks";
/// More than this is no position file: a million files take a quarter of it.
const MOST_BYTES: u64 = 1 << 30;

/// A file as the position file knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The file's inode.
    pub inode: u64,
    /// Bytes delivered.
    pub pos: u64,
    /// The path it had.
    pub path: String,
    /// What else is known of it.
    pub mark: Option<Mark>,
}

/// What tells a file from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    inode: u64,
    pos: u64,
    /// The device that the inode is of.
    pub device: u64,
    /// When the file came to be, in nanoseconds since 1970, where the file system knows.
    pub born: Option<u64>,
    /// How many bytes before the position the digest is of.
    pub guarded: usize,
    /// The SHA-1 of these bytes, in hexadecimal digits.
    pub digest: String,
}

impl Mark {
    /// A mark of a file whose bytes before `pos` are `guard`.
    pub fn new(inode: u64, device: u64, born: Option<u64>, pos: u64, guard: &[u8]) -> Self {
        Self { inode, pos, device, born, guarded: guard.len(), digest: digest(guard) }
    }

    /// Whether the bytes before the position are the same.
    pub fn fits(&self, guard: &[u8]) -> bool {
        self.guarded == guard.len() && self.digest == digest(guard)
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One entry in Flume's order and with Flume's names. Java's numbers have a sign.
#[derive(Serialize, Deserialize)]
struct Entry {
    inode: Option<i64>,
    pos: Option<i64>,
    file: Option<String>,
}

/// Reads the positions. What cannot be read is logged and counts as not there, as in Flume; of a file that a crash cut
/// off, the whole entries count.
pub fn load(fs: &dyn FileSystem, path: &Path) -> Vec<Known> {
    let text = match fs::read(fs, path, MOST_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            info!("File not found: {}, not updating position", path.display());
            return Vec::new();
        }
        Err(error) => {
            error!("Failed loading positionFile: {}: {error}", path.display());
            return Vec::new();
        }
    };
    if text.is_empty() {
        return Vec::new();
    }
    let mut entries: Vec<Entry> = Vec::new();
    if let Err(error) = Whole(&mut entries).deserialize(&mut serde_json::Deserializer::from_slice(&text)) {
        error!("Failed loading positionFile: {}: {error}; {} entries are used", path.display(), entries.len());
    }
    let marks: Vec<Mark> = fs::read(fs, &marks_of(path), MOST_BYTES)
        .ok()
        .and_then(|text| {
            let marks = serde_json::from_slice(&text);
            marks.map_err(|error| warn!("the marks beside {} are not used: {error}", path.display())).ok()
        })
        .unwrap_or_default();
    let known = entries.into_iter().filter_map(|Entry { inode, pos, file }| {
        let (Some(inode), Some(pos), Some(path)) = (inode, pos.and_then(|pos| u64::try_from(pos).ok()), &file) else {
            let shown = file.as_deref().unwrap_or("null");
            error!("Detected missing value in position file. inode: {inode:?}, pos: {pos:?}, path: {shown}");
            return None;
        };
        Some(Known { inode: inode as u64, pos, path: path.clone(), mark: None })
    });
    let mut known: Vec<Known> = known.collect();
    let mut by_inode: std::collections::HashMap<u64, Mark> = marks.into_iter().map(|mark| (mark.inode, mark)).collect();
    for entry in &mut known {
        entry.mark = by_inode.remove(&entry.inode).filter(|mark| mark.pos == entry.pos);
    }
    known
}

/// Writes the positions.
pub fn save(fs: &dyn FileSystem, path: &Path, known: &[Known]) -> io::Result<()> {
    let marks: Vec<&Mark> = known.iter().filter_map(|entry| entry.mark.as_ref()).collect();
    fs::replace(fs, &marks_of(path), &serde_json::to_vec(&marks)?)?;
    fs::replace(fs, path, flumes_json(known).as_bytes())
}

fn marks_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(MARKS);
    name.into()
}

/// As Flume's Gson writes it: safe for HTML. Nothing at all for no files.
fn flumes_json(known: &[Known]) -> String {
    if known.is_empty() {
        return String::new();
    }
    let entry = |known: &Known| Entry {
        inode: Some(known.inode as i64),
        pos: Some(known.pos as i64),
        file: Some(known.path.clone()),
    };
    let entries: Vec<Entry> = known.iter().map(entry).collect();
    let json = serde_json::to_string(&entries).expect("numbers and texts have a form in JSON");
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // None of these is part of JSON's own syntax.
            '<' | '>' | '&' | '\'' | '=' | '\u{2028}' | '\u{2029}' => {
                safe.push_str(&format!("\\u{:04x}", u32::from(c)))
            }
            other => safe.push(other),
        }
    }
    safe
}

/// Reads an array as far as it goes.
struct Whole<'a>(&'a mut Vec<Entry>);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of positions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while let Some(entry) = sequence.next_element()? {
            self.0.push(entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Disk;
    use crate::fs::simulated::Simulated;

    const FLUMES: &str = include_str!("../../../tests/vectors/taildir-position.json");

    fn known(inode: u64, pos: u64, path: &str) -> Known {
        Known { inode, pos, path: path.to_owned(), mark: None }
    }

    #[test]
    fn flumes_file_is_read_and_written_byte_for_byte() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("position.json");
        std::fs::write(&path, FLUMES).expect("a file");
        let read = load(&Disk, &path);
        let expected =
            [known(942_453, 6, "/srv/flume/tail/app.log"), known(942_454, 3, "/srv/flume/tail/b \"q\" <x>&'.log")];
        assert_eq!(read, expected);
        save(&Disk, &path, &read).expect("it can be written");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), FLUMES);
        save(&Disk, &path, &[]).expect("it can be written");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"");
        assert_eq!(load(&Disk, &path), []);
    }

    #[test]
    fn a_file_that_a_crash_cut_off_counts_as_far_as_it_goes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("position.json");
        for cut in 0..FLUMES.len() {
            std::fs::write(&path, &FLUMES[..cut]).expect("a file");
            let first_is_whole = cut > FLUMES.find('}').expect("an entry");
            let second_is_whole = cut + 1 == FLUMES.len();
            assert_eq!(load(&Disk, &path).len(), usize::from(first_is_whole) + usize::from(second_is_whole), "{cut}");
        }
    }

    #[test]
    fn a_mark_counts_only_beside_its_position() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("position.json");
        let marked = Known { mark: Some(Mark::new(7, 1, Some(5), 3, b"abc")), ..known(7, 3, "/x") };
        save(&Disk, &path, std::slice::from_ref(&marked)).expect("it can be written");
        assert_eq!(load(&Disk, &path), [marked]);
        // Flume went on, or somebody wants the file to be read again.
        std::fs::write(&path, r#"[{"inode":7,"pos":0,"file":"/x"}]"#).expect("a file");
        assert_eq!(load(&Disk, &path), [known(7, 0, "/x")]);
    }

    #[test]
    fn a_crash_leaves_the_old_positions_or_the_new_ones() {
        let path = Path::new("/state/position.json");
        let marked = |pos: u64| Known { mark: Some(Mark::new(7, 1, Some(5), pos, b"abc")), ..known(7, pos, "/x") };
        for seed in 0..50 {
            let disk = Simulated::default();
            disk.create_directory(Path::new("/state")).expect("a directory");
            save(&disk, path, &[marked(3)]).expect("it can be written");
            disk.fail(disk.calls() + seed % 12..u64::MAX);
            let saved = save(&disk, path, &[marked(4)]).is_ok();
            let crashed = disk.crash(seed);
            let found = load(&crashed, path);
            assert_eq!(found.len(), 1, "{seed}");
            assert!(found[0].pos == 4 || (found[0].pos == 3 && !saved), "{seed}: {found:?}");
        }
    }
}
