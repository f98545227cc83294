//! A file that is read from front to back in large pieces.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::fs::File;

/// How much is read at once.
const READ: usize = 1 << 20;

/// The piece of a file that was read last, and the rest of it on demand.
pub struct Window {
    file: Arc<dyn File>,
    end: u64,
    chunk: Bytes,
    chunk_at: u64,
}

impl Window {
    /// Reads a file up to `end`.
    pub fn new(file: Arc<dyn File>, end: u64) -> Self {
        Self { file, end, chunk: Bytes::new(), chunk_at: 0 }
    }

    /// What it reads from.
    pub fn file(&self) -> &dyn File {
        &*self.file
    }

    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// So many bytes from a place; fewer at the end.
    pub fn bytes(&mut self, at: u64, len: usize) -> io::Result<Bytes> {
        let len = (len as u64).min(self.end.saturating_sub(at)) as usize;
        let inside = |chunk: &Bytes, start: u64| {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            (from + len <= chunk.len()).then(|| chunk.slice(from..from + len))
        };
        if let Some(window) = inside(&self.chunk, self.chunk_at) {
            return Ok(window);
        }
        let mut chunk = vec![0; len.max(READ.min(self.end.saturating_sub(at) as usize))];
        let read = self.file.read_at(&mut chunk, at)?;
        chunk.truncate(read);
        self.chunk = chunk.into();
        self.chunk_at = at;
        Ok(self.chunk.slice(..len.min(read)))
    }

    /// What is in memory from a place on, which is at least so many bytes unless the file ends.
    pub fn from(&mut self, at: u64, least: usize) -> io::Result<Bytes> {
        if self.bytes(at, least)?.is_empty() {
            return Ok(Bytes::new());
        }
        Ok(self.chunk.slice((at - self.chunk_at) as usize..))
    }
}
