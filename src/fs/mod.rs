//! The file system as everything durable sees it.
//!
//! What must survive a crash is written through this trait, so that tests can put a file system under it that loses
//! what was not synced, or fails at a chosen call. All calls block; none belongs on a thread of the runtime.

mod disk;
mod read_only;
#[cfg(test)]
pub mod simulated;

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use disk::Disk;
pub use read_only::ReadOnly;

/// What durable code needs of a file system.
pub trait FileSystem: Send + Sync {
    /// Makes an empty file to read and write, in place of one that exists. Its name is durable only after
    /// [`sync_directory`](Self::sync_directory).
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file that exists to read and write.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file that exists to read it only, as a disk that takes no writes any more still allows.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, which may be in another directory, in place of a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory with all above it, durably; one that exists is left as it is.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// The names of the files and directories in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Locks a file, which is made if need be, against this process and all others until the lock is dropped; `None`
    /// when somebody has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;

    /// The bytes that can still be written below a directory.
    fn free_space(&self, path: &Path) -> io::Result<u64>;

    /// Which file has a name.
    fn id(&self, path: &Path) -> io::Result<FileId>;
}

/// What a file is, whatever its names are: its device and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId(u64, u64);

/// An open file.
pub trait File: Send + Sync {
    /// Reads at an offset until the buffer is full or the file ends, and says how much that was.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all pieces, one behind the other, at an offset. After an error any part of them may be there.
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes content and length durable. After an error nothing written since the last success is known to be.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file, or makes it longer with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Which file it is.
    fn id(&self) -> io::Result<FileId>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A lock that is held.
pub struct Lock {
    _held: Box<dyn Send + Sync>,
}

/// The whole content of a file of at most `limit` bytes.
pub fn read(fs: &dyn FileSystem, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = fs.open_to_read(path)?;
    let len = file.len()?;
    if len > limit {
        return Err(io::Error::other(format!("{len} bytes are more than expected, {limit}")));
    }
    let mut content = vec![0; len as usize];
    let read = file.read_at(&mut content, 0)?;
    content.truncate(read);
    Ok(content)
}

/// Makes an error name the file or directory that it is about.
pub fn naming(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Does something in a directory, which is made again when it is gone. An error names it.
pub fn in_directory<T>(fs: &dyn FileSystem, directory: &Path, action: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let outcome = match action() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs.create_directory(directory).and_then(|()| action()),
        outcome => outcome,
    };
    outcome.map_err(naming(directory))
}

/// Replaces the content of a file: after a crash it has the old content or the new one, and once this returns, the new.
pub fn replace(fs: &dyn FileSystem, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = Path::new(&beside);
    let file = fs.create(beside)?;
    file.write_at(&[IoSlice::new(content)], 0)?;
    file.sync()?;
    fs.rename(beside, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs.sync_directory(directory.unwrap_or(Path::new(".")))
}
