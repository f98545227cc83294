//! Flume's logs: the files `log-N` of its data directories, in format 3, and what `log-N.meta` says of each.
//!
//! A log is a sequence of frames and has fill at its end. Whoever wrote it may have been killed in the middle of a
//! frame, and disks forget: bytes that are no frames are told of, and the next frame is looked for behind them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memchr::memchr;

use super::proto::{Fields, Value, delimited};
use crate::channel::file::encryption::{Counter, Key, Keys};
use crate::channel::file::window::Window;
use crate::event::Event;
use crate::fs::{self, File, FileSystem};

/// How the name of a log begins.
pub const PREFIX: &str = "log-";
/// What follows the name of a log in those of the files that belong to it; the newest first.
pub const META_SUFFIXES: [&str; 3] = [".meta", ".meta.tmp", ".meta.old"];

const RECORD: u8 = 0x7F;
const BLANKED: u8 = 0;
const FILL: u8 = 0x80;
/// Bytes of a frame before its payload.
const FRAME: usize = 5;
/// Bytes of a payload that say what the record is, with the length before them.
const TITLE: usize = 24;
const META_LIMIT: u64 = 1 << 20;
const VERSION: u64 = 3;
/// How the logs of Flume 1.1 and 1.2 begin.
const OLD_START: [u8; 4] = [0, 0, 0, 2];

/// The number of a log, if this is the name of one.
pub fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// The place of an event: the log's number and where its frame begins in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer(pub u64);

impl Pointer {
    /// The event at this place.
    pub fn new(log: u32, offset: u32) -> Self {
        Self(u64::from(log) << 32 | u64::from(offset))
    }

    /// The log's number.
    pub fn log(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Where its frame begins.
    pub fn offset(self) -> u64 {
        self.0 & u64::from(u32::MAX)
    }
}

/// What a record says. Of records with the same number, the earlier kind comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// An event was taken.
    Take(Pointer),
    /// An event came in; it stands here.
    Put,
    /// The transaction came to nothing.
    RollBack,
    /// The transaction was of puts and holds.
    CommitPuts,
    /// The transaction was of takes and holds.
    CommitTakes,
}

/// One record, without the event that may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Its number in the order of all records.
    pub order: i64,
    /// The transaction that it is of.
    pub transaction: i64,
    /// What it says.
    pub action: Action,
}

/// The parts of a payload.
struct Parts<'a> {
    kind: u64,
    transaction: i64,
    order: i64,
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(mut payload: &'a [u8]) -> Option<Self> {
        let (kind, transaction, order) = title(&mut payload)?;
        let body = delimited(&mut payload)?;
        let footer = delimited(&mut payload)?;
        (footer.is_empty() && payload.is_empty()).then_some(Self { kind, transaction, order, body })
    }
}

fn title(payload: &mut &[u8]) -> Option<(u64, i64, i64)> {
    let (mut kind, mut transaction, mut order) = (None, None, None);
    for field in Fields(delimited(payload)?) {
        match field? {
            (1, Value::Number(number)) => kind = Some(number),
            (2, Value::Number(number)) => transaction = Some(number as i64),
            (3, Value::Number(number)) => order = Some(number as i64),
            _ => return None,
        }
    }
    Some((kind.filter(|kind| (1..=4).contains(kind))?, transaction?, order?))
}

impl Record {
    fn of(payload: &[u8]) -> Option<Self> {
        let Parts { kind, transaction, order, body } = Parts::of(payload)?;
        let action = match kind {
            1 => {
                Put::of(body)?;
                Action::Put
            }
            2 => Action::Take(pointer(body)?),
            3 => Action::RollBack,
            _ => match Fields(body).next()?? {
                (1, Value::Number(1)) => Action::CommitPuts,
                (1, Value::Number(2)) => Action::CommitTakes,
                _ => return None,
            },
        };
        Some(Self { order, transaction, action })
    }
}

fn pointer(body: &[u8]) -> Option<Pointer> {
    let (mut log, mut offset) = (None, None);
    for field in Fields(body) {
        match field? {
            (1, Value::Number(number)) => log = u32::try_from(number).ok(),
            (2, Value::Number(number)) => offset = u32::try_from(number).ok(),
            _ => {}
        }
    }
    Some(Pointer::new(log?, offset?))
}

/// An event as it stands in a record.
struct Put<'a> {
    event: &'a [u8],
    body: &'a [u8],
    checksum: Option<u64>,
}

impl<'a> Put<'a> {
    fn of(record: &'a [u8]) -> Option<Self> {
        let (mut event, mut checksum) = (None, None);
        for field in Fields(record) {
            match field? {
                (1, Value::Bytes(bytes)) => event = Some(bytes),
                (2, Value::Number(number)) => checksum = Some(number),
                _ => {}
            }
        }
        let (event, mut body) = (event?, None);
        for field in Fields(event) {
            match field? {
                (1, Value::Bytes(_)) => {}
                (2, Value::Bytes(bytes)) => body = Some(bytes),
                _ => return None,
            }
        }
        Some(Self { event, body: body?, checksum })
    }

    /// Whether the body is what was put. Before Flume 1.4 nobody noted that.
    fn is_intact(&self) -> bool {
        self.checksum.is_none_or(|checksum| checksum == u64::from(crc32fast::hash(self.body)))
    }

    fn headers(&self) -> Option<Vec<(String, String)>> {
        let mut headers = Vec::new();
        for (number, value) in Fields(self.event).flatten() {
            if number == 1 {
                let (mut key, mut text) = (None, String::new());
                for field in Fields(value.bytes()?) {
                    match field? {
                        (1, value) => key = Some(value.text()?),
                        (2, value) => text = value.text()?,
                        _ => {}
                    }
                }
                headers.push((key?, text));
            }
        }
        Some(headers)
    }
}

/// What `log-N.meta` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Where reading may begin for a checkpoint of this number or a later one: of the last checkpoint and the one before.
    checkpoints: [(u64, i64); 2],
    encryption: Option<Encryption>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Encryption {
    alias: String,
    counter: Counter,
}

impl Meta {
    /// Reads the content of such a file; `None` when it is damaged.
    pub fn of(mut content: &[u8]) -> Option<Self> {
        let mut meta = Self::default();
        let mut version = None;
        for field in Fields(delimited(&mut content)?) {
            match field? {
                (1, value) => version = value.number(),
                (3, value) => meta.checkpoints[0].0 = value.number()?,
                (4, value) => meta.checkpoints[0].1 = value.number()? as i64,
                (5, value) => meta.encryption = Some(Encryption::of(value.bytes()?)?),
                (6, value) => meta.checkpoints[1].0 = value.number()?,
                (7, value) => meta.checkpoints[1].1 = value.number()? as i64,
                _ => {}
            }
        }
        (version == Some(VERSION)).then_some(meta)
    }

    /// Where reading begins behind a checkpoint.
    fn start(&self, checkpoint: i64) -> u64 {
        let usable = |(position, order): &&(u64, i64)| *position > 0 && *order <= checkpoint;
        self.checkpoints.iter().find(usable).map_or(0, |(position, _)| *position)
    }
}

impl Encryption {
    fn of(message: &[u8]) -> Option<Self> {
        let (mut alias, mut counter) = (None, None);
        for field in Fields(message) {
            match field? {
                (2, value) => alias = value.text(),
                (3, value) => counter = value.bytes()?.try_into().ok(),
                _ => {}
            }
        }
        Some(Self { alias: alias?, counter: counter? })
    }
}

/// A log that was found.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its number.
    pub number: u32,
    /// Its file.
    pub path: PathBuf,
}

impl Log {
    /// Opens it, from where it has to be read behind this checkpoint; otherwise says why not.
    pub fn open(&self, fs: &dyn FileSystem, keys: &Keys, checkpoint: i64) -> Result<Reader, String> {
        let path = self.path.display();
        let failed = |error| format!("Could not read {path}: {error}");
        let file = fs.open_to_read(&self.path).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        let Some(meta) = read_meta(fs, &self.path).map_err(failed)? else {
            return self.open_without_meta(file, len);
        };
        let mut reader = Reader { window: Window::new(file, len), at: 0, cipher: None };
        if let Some(Encryption { alias, counter }) = &meta.encryption {
            reader.cipher = Some((keys.require(alias, &path)?.clone(), *counter));
            if !reader.is_readable().map_err(failed)? {
                return Err(format!("Nothing in {path} can be decrypted: its key {alias} is another one"));
            }
        }
        reader.at = meta.start(checkpoint);
        Ok(reader)
    }

    /// Flume makes a log before its metadata, so that one may be there without, and empty.
    fn open_without_meta(&self, file: Arc<dyn File>, len: u64) -> Result<Reader, String> {
        let path = self.path.display();
        let mut start = [0; 4];
        file.read_at(&mut start, 0).map_err(|error| format!("Could not read {path}: {error}"))?;
        if start == OLD_START {
            return Err(format!(
                "{path} was written by Flume 1.2 or before: a newer Flume has to convert its directories first"
            ));
        }
        let mut reader = Reader { window: Window::new(file, len), at: 0, cipher: None };
        let begins = reader.read_next().map_err(|error| format!("Could not read {path}: {error}"))?;
        if let Some(Found::Damage { .. }) = begins {
            return Err(format!("{path} cannot be read without {path}.meta, which is missing or damaged"));
        }
        reader.at = 0;
        Ok(reader)
    }
}

fn read_meta(fs: &dyn FileSystem, log: &Path) -> io::Result<Option<Meta>> {
    for suffix in META_SUFFIXES {
        let mut path = log.as_os_str().to_owned();
        path.push(suffix);
        match fs::read(fs, Path::new(&path), META_LIMIT) {
            Ok(content) => {
                if let Some(meta) = Meta::of(&content) {
                    return Ok(Some(meta));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What stands at a place of a log.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A record.
    Record {
        /// Where its frame begins.
        at: u64,
        /// What it says.
        record: Record,
    },
    /// Bytes that are none.
    Damage {
        /// The first of them.
        from: u64,
        /// The one behind the last.
        to: u64,
    },
}

/// Reads a log.
pub struct Reader {
    window: Window,
    at: u64,
    /// With this key; every payload from here in its stream.
    cipher: Option<(Key, Counter)>,
}

impl Reader {
    /// Reads a log that is not encrypted from its beginning.
    pub fn new(file: Arc<dyn File>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { window: Window::new(file, len), at: 0, cipher: None })
    }

    /// Where the next record is looked for.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Where the log ends.
    pub fn end(&self) -> u64 {
        self.window.end()
    }

    /// Whether there is a record, or nothing at all.
    fn is_readable(&mut self) -> io::Result<bool> {
        let mut damaged = false;
        while let Some(found) = self.read_next()? {
            match found {
                Found::Record { .. } => return Ok(true),
                Found::Damage { .. } => damaged = true,
            }
        }
        Ok(!damaged)
    }

    /// What stands next; `None` at the end.
    pub fn read_next(&mut self) -> io::Result<Option<Found>> {
        while self.at < self.end() {
            let at = self.at;
            let Some((kind, length)) = self.frame(at)? else { return self.no_frame(at) };
            let next = at + (FRAME + length) as u64;
            if kind == RECORD
                && let Some(record) = Record::of(&self.payload(at, length)?)
            {
                self.at = next;
                return Ok(Some(Found::Record { at, record }));
            }
            // Where something follows, the length is right, as it seems.
            if next < self.end() && !self.begins_record(next)? && !self.is_fill(next)? {
                return self.no_frame(at);
            }
            self.at = next;
            if kind == RECORD {
                self.at = self.resume(at, next)?;
                return Ok(Some(Found::Damage { from: at, to: self.at }));
            }
        }
        Ok(None)
    }

    /// Where to go on behind a record that is damaged and ends at `next`, if its length is right. Records within it may
    /// be part of an event; when they lead right up to `next` or to the fill, they are not, and the length is wrong.
    fn resume(&mut self, at: u64, next: u64) -> io::Result<u64> {
        let found = self.find(at + 1, next)?;
        let mut end = found;
        while end < next
            && self.begins_record(end)?
            && let Some((_, length)) = self.frame(end)?
        {
            end += (FRAME + length) as u64;
        }
        Ok(if end == next || (found < next && self.is_fill(end)?) { found } else { next })
    }

    fn no_frame(&mut self, at: u64) -> io::Result<Option<Found>> {
        if self.is_fill(at)? {
            self.at = self.end();
            return Ok(None);
        }
        self.at = self.find(at + 1, self.end())?;
        Ok(Some(Found::Damage { from: at, to: self.at }))
    }

    /// Kind and length of the frame at a place, if there may be one.
    fn frame(&mut self, at: u64) -> io::Result<Option<(u8, usize)>> {
        let bytes = self.window.bytes(at, FRAME)?;
        let Some((&[kind, ref length @ ..], _)) = bytes.split_first_chunk::<FRAME>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        let fits = length >= TITLE && (FRAME + length) as u64 <= self.end() - at;
        Ok((fits && matches!(kind, RECORD | BLANKED)).then_some((kind, length)))
    }

    fn payload(&mut self, at: u64, length: usize) -> io::Result<Bytes> {
        let payload = self.window.bytes(at + FRAME as u64, length)?;
        Ok(match &self.cipher {
            Some((key, counter)) => {
                let mut payload = payload.to_vec();
                key.apply(counter, 0, &mut payload);
                payload.into()
            }
            None => payload,
        })
    }

    /// Whether there is nothing but fill from here on: what Flume puts there, or the zeros of a file system that was
    /// not told in time.
    fn is_fill(&mut self, mut at: u64) -> io::Result<bool> {
        let first = self.window.bytes(at, 1)?;
        let Some(fill) = first.first().copied().filter(|byte| matches!(*byte, FILL | BLANKED)) else {
            return Ok(false);
        };
        while at < self.end() {
            let piece = self.window.from(at, 1)?;
            if piece.is_empty() || piece.iter().any(|byte| *byte != fill) {
                return Ok(piece.is_empty());
            }
            at += piece.len() as u64;
        }
        Ok(true)
    }

    /// Where the next record before `limit` begins, or there.
    fn find(&mut self, mut at: u64, limit: u64) -> io::Result<u64> {
        while at < limit {
            let window = self.window.from(at, 1)?;
            match memchr(RECORD, &window) {
                Some(found) => {
                    at += found as u64;
                    if at < limit && self.is_record(at)? {
                        return Ok(at);
                    }
                    at += 1;
                }
                None if window.is_empty() => break,
                None => at += window.len() as u64,
            }
        }
        Ok(limit)
    }

    /// Whether there is the frame of a record, and what a record begins with.
    fn begins_record(&mut self, at: u64) -> io::Result<bool> {
        if self.frame(at)?.is_none() {
            return Ok(false);
        }
        let beginning = self.payload(at, TITLE)?;
        Ok(title(&mut &beginning[..]).is_some())
    }

    fn is_record(&mut self, at: u64) -> io::Result<bool> {
        let Some((RECORD, length)) = self.frame(at)? else { return Ok(false) };
        // What a record begins with is looked at before all of it is.
        Ok(self.begins_record(at)? && Record::of(&self.payload(at, length)?).is_some())
    }

    /// The event whose frame begins at a place, or what is wrong with it.
    pub fn event(&mut self, at: u64) -> io::Result<Result<Event, &'static str>> {
        let Some((RECORD, length)) = self.frame(at)? else { return Ok(Err("there is no record")) };
        let payload = self.payload(at, length)?;
        let put = Parts::of(&payload).filter(|parts| parts.kind == 1).and_then(|parts| Put::of(parts.body));
        let Some((headers, put)) = put.and_then(|put| Some((put.headers()?, put))) else {
            return Ok(Err("there is no whole event"));
        };
        if !put.is_intact() {
            return Ok(Err("its checksum is wrong"));
        }
        let body = payload.slice_ref(put.body);
        Ok(Ok(Event { headers: headers.into_iter().collect(), body }))
    }
}
