//! A file of the folder: what tells it from others, and its lines.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::format::Records;

/// A file, told from another of its name by its inode and the time when that was made; both stay when it is moved or
/// grows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId {
    /// Its name in the folder.
    pub name: String,
    inode: u64,
    /// Nanoseconds since 1970; 0 where the file system does not know.
    born: u64,
}

impl FileId {
    /// A file that was found.
    pub fn new(name: String, metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(0));
        Self { name, inode: metadata.ino(), born }
    }

    /// A number that no other file is likely to have: FNV-1a, as checkpoints must mean the same to later versions.
    pub fn fingerprint(&self) -> u64 {
        let numbers = [self.inode.to_le_bytes(), self.born.to_le_bytes()];
        let bytes = self.name.bytes().chain([0]).chain(numbers.into_iter().flatten());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }
}

/// Why a file cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is not there any more.
    #[error("it is gone")]
    Gone,
    /// There is another file of that name.
    #[error("it is not the file that it was")]
    Other,
    /// It ends before the place where it was read up to.
    #[error("it is shorter than it was")]
    Short,
    /// It is not packed as its name says.
    #[error("{0}")]
    Broken(io::Error),
    /// The system's reason.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            // What the unpacking says; the system has no such errors.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Broken(error)
            }
            _ => Self::Io(error),
        }
    }
}

/// The lines of a file from some place on.
pub struct Lines {
    input: Box<dyn BufRead + Send>,
    at: u64,
}

impl Lines {
    /// Opens a file at a place behind so many of its bytes, unpacked ones if it is packed.
    pub fn open(folder: &Path, id: &FileId, at: u64) -> Result<Self, ReadError> {
        let mut file = File::open(folder.join(&id.name))?;
        let metadata = file.metadata()?;
        if FileId::new(id.name.clone(), &metadata) != *id {
            return Err(ReadError::Other);
        }
        if !id.name.ends_with(".gz") {
            if metadata.len() < at {
                return Err(ReadError::Short);
            }
            file.seek(SeekFrom::Start(at))?;
            return Ok(Self { input: Box::new(BufReader::with_capacity(64 << 10, file)), at });
        }
        let mut input = BufReader::with_capacity(64 << 10, MultiGzDecoder::new(BufReader::new(file)));
        if io::copy(&mut (&mut input).take(at), &mut io::sink())? < at {
            return Err(ReadError::Short);
        }
        Ok(Self { input: Box::new(input), at })
    }

    /// How many bytes of the file have been read.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Adds the next line, without its end, or so much of it. `false` when there is none.
    pub fn next(&mut self, records: &mut Records, max_line: u64) -> Result<bool, ReadError> {
        let start = records.bytes.len();
        let read = (&mut self.input).take(max_line).read_until(b'\n', &mut records.bytes);
        let read = read.inspect_err(|_| records.bytes.truncate(start))?;
        if read == 0 {
            return Ok(false);
        }
        self.at += read as u64;
        for end in [b'\n', b'\r'] {
            if records.bytes.len() > start && records.bytes.last() == Some(&end) {
                records.bytes.pop();
            }
        }
        records.ends.push(records.bytes.len());
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_either_ending_or_with_the_file_and_long_ones_are_cut() {
        let mut lines = Lines { input: Box::new(&b"a\r\n\nlonger\nb\r"[..]), at: 0 };
        let mut records = Records::default();
        while lines.next(&mut records, 4).expect("it can be read") {}
        let found: Vec<_> = records.iter().map(String::from_utf8_lossy).collect();
        assert_eq!(found, ["a", "", "long", "er", "b"]);
        assert_eq!(lines.at(), 13);
    }
}
