//! How segments are encrypted: each with a key and a stream of its own, every byte in its place of the stream.
//!
//! Before the first record and before every group of them that is written at once stands a record of the kind key. It
//! says which key and stream it is, and so often because all others would be lost with a single one. Its payload is the
//! beginning of the stream (16 bytes), its first block (16 bytes), which serves nothing else and tells whether the key is
//! the right one, and the key's alias.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::{Counter, Key, Keys};
use crate::channel::file::record::{Draft, HEADER, Header, Kind};
use crate::channel::file::segment::{Found, START, Scanner, Segment};
use crate::fs::FileSystem;

const BLOCK: usize = 16;
/// What is read of a segment to see whether it is encrypted.
const BEGINNING: usize = 512;

/// What a segment is encrypted with.
#[derive(Debug, PartialEq, Eq)]
pub struct Seal {
    alias: String,
    key: Key,
    counter: Counter,
}

impl Seal {
    /// For a new segment, when the channel encrypts.
    pub fn new(keys: &Keys) -> io::Result<Option<Arc<Self>>> {
        let Some((alias, key)) = keys.active() else { return Ok(None) };
        let mut counter = Counter::default();
        getrandom::fill(&mut counter).map_err(io::Error::other)?;
        Ok(Some(Arc::new(Self { alias: alias.to_owned(), key: key.clone(), counter })))
    }

    /// Encrypts or decrypts the payload of the record at `at`.
    pub fn apply(&self, at: u64, payload: &mut [u8]) {
        self.key.apply(&self.counter, at + HEADER as u64, payload);
    }

    fn first_block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        self.key.apply(&self.counter, 0, &mut block);
        block
    }

    /// The record that says what the segment is encrypted with.
    pub fn record(&self) -> Draft {
        Draft::key(&[&self.counter[..], &self.first_block(), self.alias.as_bytes()].concat())
    }

    /// The length of that record.
    pub fn record_len(alias: &str) -> u64 {
        (HEADER + 2 * BLOCK + alias.len()) as u64
    }

    fn of(payload: &[u8], keys: &Keys, segment: &Segment) -> Result<Option<Arc<Self>>, String> {
        let Some((counter, rest)) = payload.split_first_chunk::<BLOCK>() else { return Ok(None) };
        let Some((first_block, alias)) = rest.split_first_chunk::<BLOCK>() else { return Ok(None) };
        let alias = String::from_utf8_lossy(alias).into_owned();
        let key = keys.require(&alias, segment.path.display())?.clone();
        let seal = Self { alias, key, counter: *counter };
        if seal.first_block() != *first_block {
            let (path, alias) = (segment.path.display(), seal.alias);
            return Err(format!("{path} is encrypted with another key {alias} than the keystore has"));
        }
        Ok(Some(Arc::new(seal)))
    }

    /// What a segment is encrypted with, if it is; otherwise says why it cannot be decrypted.
    pub fn find(fs: &dyn FileSystem, number: u64, segment: &Segment, keys: &Keys) -> Result<Option<Arc<Self>>, String> {
        let failed = |error: io::Error| format!("Could not read {}: {error}", segment.path.display());
        let file = fs.open(&segment.path).map_err(failed)?;
        let mut beginning = [0; BEGINNING];
        let read = file.read_at(&mut beginning, START).map_err(failed)?;
        if Header::parse(&beginning[..read], number, START).is_some_and(|header| header.kind != Kind::Key) {
            return Ok(None);
        }
        let mut scanner = Scanner::new(file, number, START, segment.len);
        while let Some(found) = scanner.next().map_err(failed)? {
            match found {
                Found::Record { header, payload, .. } if header.kind == Kind::Key => {
                    return Self::of(&payload, keys, segment);
                }
                Found::Record { header, .. } if header.kind == Kind::Put && !header.encrypted => break,
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The payload of the record at `at` as it was; `None` when it is encrypted and nobody knows how.
pub fn unseal(seal: Option<&Seal>, header: &Header, at: u64, payload: Bytes) -> Option<Bytes> {
    if !header.encrypted {
        return Some(payload);
    }
    let mut payload = payload.to_vec();
    seal?.apply(at, &mut payload);
    Some(payload.into())
}
