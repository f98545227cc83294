//! How far the file in progress has been delivered, on disk.
//!
//! The tracker is Flume's, so that Flume and flume-rs can follow each other: an Avro container whose head names the file
//! and to which every delivered batch appends the offset behind it, as a block of its own; the last one counts. A process
//! that is killed loses none of them; for the machine they are synced every [`SYNC_INTERVAL`].

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::container::{self, Block, Header, MARKER};
use crate::fs::{self, File, FileSystem};
use crate::rpc::avro::datum::{self, DatumError};

const NAME: &str = ".flumespool-main.meta";
const SCHEMA: &str = r#"{"type":"record","name":"TransferStateFileMeta","namespace":"org.apache.flume.serialization","fields":[{"name":"offset","type":"long"}]}"#;
/// How much may come again after the machine has failed. A file that is done sooner costs no sync.
const SYNC_INTERVAL: Duration = Duration::from_secs(3);
/// A larger file is no tracker: it would be of a terabyte of batches.
const MOST_BYTES: u64 = 1 << 30;

/// The tracker of a source.
pub struct Tracker {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    writer: Option<Writer>,
}

/// A tracker file that is open.
struct Writer {
    target: String,
    file: Arc<dyn File>,
    end: u64,
    marker: [u8; MARKER],
    synced: Instant,
    block: Vec<u8>,
}

impl Tracker {
    /// The tracker in a directory, which is there.
    pub fn new(fs: Arc<dyn FileSystem>, directory: PathBuf) -> Self {
        Self { fs, directory, writer: None }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// The file that was in progress, and its offset. What is no tracker counts as none, with a warning: the file is read
    /// again.
    pub fn load(&self) -> io::Result<Option<(String, u64)>> {
        let path = self.path();
        let bytes = match fs::read(&*self.fs, &path, MOST_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        let found = parse(&bytes);
        if found.is_none() {
            warn!("{} is no tracker: the file in progress, if any, is read from its front", path.display());
        }
        Ok(found)
    }

    /// Notes how far a file has been delivered.
    pub fn store(&mut self, target: &str, offset: u64) -> io::Result<()> {
        match &mut self.writer {
            Some(writer) if writer.target == target => {
                writer.append(offset)?;
                if writer.synced.elapsed() >= SYNC_INTERVAL {
                    writer.file.sync()?;
                    self.fs.sync_directory(&self.directory)?;
                    writer.synced = Instant::now();
                }
            }
            _ => self.writer = Some(self.begin(target, offset)?),
        }
        Ok(())
    }

    /// Puts a new file in place of the old one, which counts until then.
    fn begin(&self, target: &str, offset: u64) -> io::Result<Writer> {
        let mut marker = [0; MARKER];
        getrandom::fill(&mut marker).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        let meta = [("avro.schema", SCHEMA.as_bytes()), ("file", target.as_bytes())];
        container::put_header(&mut bytes, &meta, &marker);
        put_offset(&mut bytes, offset, &marker);
        let path = self.path();
        let beside = self.directory.join(format!("{NAME}.tmp"));
        let file = self.fs.create(&beside)?;
        file.write_at(&[IoSlice::new(&bytes)], 0)?;
        self.fs.rename(&beside, &path)?;
        let (target, end) = (target.to_owned(), bytes.len() as u64);
        Ok(Writer { target, file, end, marker, synced: Instant::now(), block: Vec::new() })
    }

    /// Removes the tracker: no file is in progress.
    pub fn remove(&mut self) -> io::Result<()> {
        self.writer = None;
        match self.fs.remove(&self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Writer {
    /// After an error the next call writes to the same place.
    fn append(&mut self, offset: u64) -> io::Result<()> {
        self.block.clear();
        put_offset(&mut self.block, offset, &self.marker);
        self.file.write_at(&[IoSlice::new(&self.block)], self.end)?;
        self.end += self.block.len() as u64;
        Ok(())
    }
}

fn put_offset(out: &mut Vec<u8>, offset: u64, marker: &[u8; MARKER]) {
    let mut data = Vec::new();
    datum::put_long(&mut data, offset as i64);
    container::put_block(out, 1, &data, marker);
}

/// The file and its last whole offset; a block that a crash cut off does not count.
fn parse(bytes: &[u8]) -> Option<(String, u64)> {
    let header = Header::read(bytes)?.ok()?;
    let target = String::from_utf8(header.get("file")?.to_vec()).ok()?;
    let mut rest = &bytes[header.len..];
    let mut offset = 0;
    while let Ok(block) = Block::read(rest) {
        let Ok(last) = last_of(&rest[block.data.clone()], block.count) else { break };
        if block.marker != header.marker {
            break;
        }
        offset = u64::try_from(last.unwrap_or(offset as i64)).ok()?;
        rest = &rest[block.len..];
    }
    Some((target, offset))
}

fn last_of(data: &[u8], count: u64) -> Result<Option<i64>, DatumError> {
    let mut reader = datum::Reader::new(data);
    let mut last = None;
    for _ in 0..count {
        last = Some(reader.long()?);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::simulated::Simulated;

    const FLUMES: &[u8] = include_bytes!("../../../tests/vectors/spooldir-flumespool-main.meta");

    fn tracker(disk: &Simulated) -> Tracker {
        disk.create_directory(Path::new("/t")).expect("a directory");
        Tracker::new(Arc::new(disk.clone()), "/t".into())
    }

    fn path() -> PathBuf {
        Path::new("/t").join(NAME)
    }

    #[test]
    fn flumes_file_is_read_and_written_byte_for_byte() {
        let disk = Simulated::default();
        let mut tracker = tracker(&disk);
        tracker.store("/srv/flume/spool/part.log", 6).expect("it can be written");
        disk.damage(&path(), |content| *content = FLUMES.to_vec());
        assert_eq!(tracker.load().expect("it can be read"), Some(("/srv/flume/spool/part.log".to_owned(), 6)));
        let marker = FLUMES[FLUMES.len() - MARKER..].try_into().expect("a marker");
        let mut bytes = Vec::new();
        let meta = [("avro.schema", SCHEMA.as_bytes()), ("file", &b"/srv/flume/spool/part.log"[..])];
        container::put_header(&mut bytes, &meta, &marker);
        put_offset(&mut bytes, 6, &marker);
        assert_eq!(bytes, FLUMES);
    }

    #[test]
    fn the_last_offset_counts_until_the_tracker_is_removed() {
        let disk = Simulated::default();
        let mut first = tracker(&disk);
        assert_eq!(first.load().expect("it can be read"), None);
        for offset in [5, 1000, 1 << 40] {
            first.store("/d/a", offset).expect("it can be written");
            let killed = tracker(&disk.killed());
            assert_eq!(killed.load().expect("it can be read"), Some(("/d/a".to_owned(), offset)));
        }
        first.store("/d/b", 7).expect("it can be written");
        assert_eq!(first.load().expect("it can be read"), Some(("/d/b".to_owned(), 7)));
        first.remove().expect("it can be removed");
        first.remove().expect("it is gone");
        assert_eq!(first.load().expect("it can be read"), None);
    }

    #[test]
    fn a_tracker_that_a_crash_cut_off_counts_as_far_as_it_goes() {
        let disk = Simulated::default();
        let mut tracker = tracker(&disk);
        for offset in [5, 1000] {
            tracker.store("/d/a", offset).expect("it can be written");
        }
        let whole = disk.content(&path());
        let head = Header::read(&whole).expect("a container").expect("a head").len;
        let first = head + Block::read(&whole[head..]).expect("a block").len;
        for cut in 0..whole.len() {
            disk.damage(&path(), |content| *content = whole[..cut].to_vec());
            let offset = if cut < first { 0 } else { 5 };
            let expected = (cut >= head).then(|| ("/d/a".to_owned(), offset));
            assert_eq!(tracker.load().expect("it can be read"), expected, "{cut}");
        }
        for at in 0..whole.len() {
            disk.damage(&path(), |content| {
                *content = whole.clone();
                content[at] ^= 0xFF;
            });
            tracker.load().expect("it can be read");
        }
    }

    #[test]
    fn a_failed_write_can_be_tried_again() {
        for call in 0..5 {
            let disk = Simulated::default();
            let mut tracker = tracker(&disk);
            disk.fail(disk.calls() + call..disk.calls() + call + 1);
            for offset in [5, 6, 7] {
                while tracker.store("/d/a", offset).is_err() {}
            }
            assert_eq!(tracker.load().expect("it can be read"), Some(("/d/a".to_owned(), 7)), "{call}");
        }
    }
}
