//! Flume's checkpoint: which events wait, at one moment, and which transactions were open then.

use std::io;
use std::path::Path;

use bytes::{Buf as _, Bytes};
use md5::{Digest as _, Md5};

use super::log::Pointer;
use super::proto::{Fields, Value, delimited};
use crate::channel::file::window::Window;
use crate::fs::{self, FileSystem};

const VERSION: i64 = 3;
/// What of the file is no slot of the queue, in numbers of eight bytes.
const SLOTS_AT: u64 = 1029;
/// Far more than there is to say.
const LIMIT: u64 = 64 << 20;
const SLOT: usize = 8;
/// The most bytes that are read or unpacked at once.
const MAX_PIECE: usize = 1 << 20;
/// How a compressed checkpoint begins, and how long its beginning is.
const SNAPPY: &[u8] = b"\x82SNAPPY\0";
const SNAPPY_START: u64 = 16;

/// What a queue was at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The number of the last record before it.
    pub order: i64,
    /// Events that wait, the next one first.
    pub queue: Vec<Pointer>,
    /// Events of transactions that were open: each transaction and what it had put.
    pub puts: Vec<(i64, Vec<Pointer>)>,
    /// And what others had taken, which is not in the queue.
    pub takes: Vec<(i64, Vec<Pointer>)>,
}

impl Checkpoint {
    /// Reads the checkpoint of a directory; `None` when there is none, or what is wrong with it.
    pub fn read(fs: &dyn FileSystem, directory: &Path) -> io::Result<Option<Result<Self, &'static str>>> {
        let names = fs.list(directory)?;
        let has = |name: &str| names.iter().any(|found| found == name);
        let file = ["checkpoint", "checkpoint.snappy"].into_iter().find(|name| has(name));
        let (Some(file), true) = (file, has("checkpoint.meta")) else { return Ok(None) };
        let Some(meta) = Meta::of(&fs::read(fs, &directory.join("checkpoint.meta"), LIMIT)?) else {
            return Ok(Some(Err("its metadata is damaged")));
        };
        let opened = fs.open(&directory.join(file))?;
        let len = opened.len()?;
        let packed = file.ends_with(".snappy");
        let at = if packed { SNAPPY_START } else { 0 };
        let mut pieces = Pieces { window: Window::new(opened, len), at, packed };
        let queue = match meta.queue(&mut pieces) {
            Ok(queue) => queue,
            Err(Stop::Unreadable(error)) => return Err(error),
            Err(Stop::Wrong(why)) => return Ok(Some(Err(why))),
        };
        let open = |name: &str| {
            if !has(name) {
                return Ok(Some(Vec::new()));
            }
            fs::read(fs, &directory.join(name), LIMIT).map(|content| transactions(&content))
        };
        let (Some(puts), Some(takes)) = (open("inflightputs")?, open("inflighttakes")?) else {
            return Ok(Some(Err("what it says of open transactions is damaged")));
        };
        Ok(Some(Ok(Self { order: meta.order, queue, puts, takes })))
    }
}

/// Why the queue cannot be had.
enum Stop {
    Unreadable(io::Error),
    Wrong(&'static str),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// What `checkpoint.meta` says.
struct Meta {
    order: i64,
    size: u64,
    head: u64,
}

impl Meta {
    fn of(mut content: &[u8]) -> Option<Self> {
        let mut numbers = [None; 5];
        for field in Fields(delimited(&mut content)?) {
            if let (number @ 1..=4, Value::Number(value)) = field? {
                numbers[number as usize] = Some(value);
            }
        }
        let [_, version, order, size, head] = numbers;
        (version? == VERSION as u64).then_some(Self { order: order? as i64, size: size?, head: head? })
    }

    /// The slots of the queue, a ring that begins at `head`.
    fn queue(&self, pieces: &mut Pieces) -> Result<Vec<Pointer>, Stop> {
        let mut slots = 0;
        // Those from the head to the end of the file, and those that may come behind them, from its beginning.
        let (mut queue, mut around) = (Vec::new(), Vec::new());
        let mut index = 0u64;
        while let Some(mut piece) = pieces.next()? {
            while piece.remaining() >= SLOT {
                let value = piece.get_u64();
                match index {
                    0 if value != VERSION as u64 => return Err(Stop::Wrong("it has another version")),
                    1 if value != self.order as u64 => return Err(Stop::Wrong("it and its metadata differ")),
                    4 if value != 0 => return Err(Stop::Wrong("it is not complete")),
                    SLOTS_AT.. => {
                        let slot = index - SLOTS_AT;
                        if slot >= self.head && (queue.len() as u64) < self.size {
                            queue.push(Pointer(value));
                        } else if slot < self.head && (around.len() as u64) < self.size {
                            around.push(Pointer(value));
                        }
                        slots += 1;
                    }
                    _ => {}
                }
                index += 1;
            }
        }
        let missing = (self.size - queue.len() as u64) as usize;
        if self.size > slots || missing > around.len() {
            return Err(Stop::Wrong("it is too short"));
        }
        queue.extend(around.drain(..missing));
        if queue.contains(&Pointer(0)) {
            return Err(Stop::Wrong("its queue has gaps"));
        }
        Ok(queue)
    }
}

/// The content of a checkpoint, piece by piece; each is a whole number of slots.
struct Pieces {
    window: Window,
    at: u64,
    packed: bool,
}

impl Pieces {
    fn next(&mut self) -> Result<Option<Bytes>, Stop> {
        if self.at >= self.window.end() {
            return Ok(None);
        }
        if !self.packed {
            let piece = self.window.bytes(self.at, MAX_PIECE)?;
            self.at += piece.len().max(SLOT) as u64;
            return Ok(Some(piece));
        }
        let damaged = Stop::Wrong("its compression is damaged");
        if self.at == SNAPPY_START && self.window.bytes(0, SNAPPY.len())? != SNAPPY {
            return Err(damaged);
        }
        let mut length = self.window.bytes(self.at, 4)?;
        let length = length.try_get_u32().unwrap_or(u32::MAX) as usize;
        if length > MAX_PIECE {
            return Err(damaged);
        }
        let block = self.window.bytes(self.at + 4, length)?;
        self.at += 4 + length as u64;
        let fits = snap::raw::decompress_len(&block).is_ok_and(|len| len <= MAX_PIECE && len % SLOT == 0);
        let unpacked = if fits { snap::raw::Decoder::new().decompress_vec(&block).ok() } else { None };
        unpacked.map(|piece| Some(piece.into())).ok_or(damaged)
    }
}

/// Reads `inflightputs` or `inflighttakes`.
fn transactions(content: &[u8]) -> Option<Vec<(i64, Vec<Pointer>)>> {
    if content.is_empty() {
        return Some(Vec::new());
    }
    let (sum, mut rest) = content.split_first_chunk::<16>()?;
    if Md5::digest(rest)[..] != sum[..] {
        return None;
    }
    let mut found = Vec::new();
    while rest.has_remaining() {
        let (transaction, count) = (rest.try_get_i64().ok()?, rest.try_get_u64().ok()?);
        // Flume writes one more, of nothing.
        let mut pointers = Vec::new();
        for _ in 0..count {
            pointers.push(Pointer(rest.try_get_u64().ok()?));
        }
        if !pointers.is_empty() {
            found.push((transaction, pointers));
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use proptest::prelude::*;

    use super::*;
    use crate::fs::simulated::Simulated;

    fn write(fs: &Simulated, name: &str, content: &[u8]) {
        let file = fs.create(&Path::new("/c").join(name)).expect("made");
        file.write_at(&[IoSlice::new(content)], 0).expect("room");
    }

    /// A checkpoint whose slots hold their own number and one more.
    fn checkpoint(capacity: u64, head: u32, size: u32, packed: bool) -> Option<Result<Checkpoint, &'static str>> {
        let fs = Simulated::default();
        fs.create_directory(Path::new("/c")).expect("made");
        let start = [3, 70, 0, 0, 0].into_iter().chain([0; 1024]);
        let content: Vec<u8> = start.chain(1..=capacity).flat_map(u64::to_be_bytes).collect();
        if packed {
            let mut file = [SNAPPY, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
            for block in content.chunks(1 << 12) {
                let block = snap::raw::Encoder::new().compress_vec(block).expect("small");
                file.extend_from_slice(&(block.len() as u32).to_be_bytes());
                file.extend(block);
            }
            write(&fs, "checkpoint.snappy", &file);
        } else {
            write(&fs, "checkpoint", &content);
        }
        let mut meta = vec![24, 0x0d, 3, 0, 0, 0, 0x11, 70, 0, 0, 0, 0, 0, 0, 0, 0x1d];
        meta.extend(size.to_le_bytes());
        meta.push(0x25);
        meta.extend(head.to_le_bytes());
        write(&fs, "checkpoint.meta", &meta);
        Checkpoint::read(&fs, Path::new("/c")).expect("readable")
    }

    proptest! {
        #[test]
        fn the_ring_is_read_from_its_head(capacity in 1u64..2000, head in 0u32..2000, size in 0u32..2000, packed: bool) {
            let head = head % capacity as u32;
            let found = checkpoint(capacity, head, size, packed).expect("a checkpoint");
            if u64::from(size) > capacity {
                prop_assert_eq!(found, Err("it is too short"));
            } else {
                let slots = (0..u64::from(size)).map(|slot| Pointer((u64::from(head) + slot) % capacity + 1)).collect();
                prop_assert_eq!(found, Ok(Checkpoint { order: 70, queue: slots, puts: Vec::new(), takes: Vec::new() }));
            }
        }
    }

    #[test]
    fn open_transactions_are_those_whose_checksum_is_right() {
        let numbers = [5, 2, 11, 12, 0, 0].map(u64::to_be_bytes).concat();
        let mut content = [&Md5::digest(&numbers)[..], &numbers].concat();
        assert_eq!(transactions(&content), Some(vec![(5, vec![Pointer(11), Pointer(12)])]));
        assert_eq!(transactions(b""), Some(Vec::new()));
        content[30] ^= 1;
        assert_eq!(transactions(&content), None);
    }
}
