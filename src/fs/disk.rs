//! The operating system's file system.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{File, FileId, FileSystem, Lock};

/// The most pieces that the system takes in one write.
const MAX_PIECES: usize = 1024;

/// The real thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl FileSystem for Disk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        // An empty path is the directory that we are in.
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                self.create_directory(parent)?;
                fs::create_dir(path)?;
                self.sync_directory(parent)
            }
            _ => fs::create_dir(path),
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // A name that is not text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let directory = path.parent().unwrap_or(Path::new(".")).canonicalize()?;
        // Before the file is opened: when any handle of it is closed, the system takes the lock away.
        let Some(claim) = Claim::new(directory.join(path.file_name().unwrap_or_default())) else { return Ok(None) };
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        // The kind of lock that Java takes, so that Flume and this keep each other out.
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _held: Box::new((file, claim)) })),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(path)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        fs::metadata(path).map(|metadata| FileId(metadata.dev(), metadata.ino()))
    }
}

impl File for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match FileExt::read_at(self, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut pieces = pieces.to_vec();
        let mut left = &mut pieces[..];
        // Pieces of no length would look like a disk that takes nothing.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev(self, &left[..left.len().min(MAX_PIECES)], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn id(&self) -> io::Result<FileId> {
        self.metadata().map(|metadata| FileId(metadata.dev(), metadata.ino()))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// The files that this process has locked: the system's lock keeps only other processes out.
static LOCKED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn locked() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    LOCKED.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Claim(PathBuf);

impl Claim {
    fn new(path: PathBuf) -> Option<Self> {
        locked().insert(path.clone()).then(|| Self(path))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        locked().remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{read, replace};

    #[test]
    fn many_pieces_are_written_in_order() {
        let home = tempfile::tempdir().expect("a directory");
        let file = Disk.create(&home.path().join("f")).expect("a file");
        let bytes: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
        let pieces: Vec<IoSlice<'_>> = bytes.chunks(1).map(IoSlice::new).collect();
        file.write_at(&pieces, 5).expect("room");
        let mut back = vec![0; 4000];
        assert_eq!(file.read_at(&mut back, 5).expect("readable"), 3000);
        assert_eq!(back[..3000], bytes[..]);
    }

    #[test]
    fn a_locked_file_is_refused_until_the_lock_goes() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("in_use.lock");
        let lock = Disk.lock(&path).expect("lockable").expect("free");
        assert!(Disk.lock(&path).expect("lockable").is_none());
        drop(lock);
        assert!(Disk.lock(&path).expect("lockable").is_some());
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("a/b/checkpoint");
        Disk.create_directory(path.parent().expect("a parent")).expect("made");
        replace(&Disk, &path, b"first").expect("written");
        replace(&Disk, &path, b"2nd").expect("written");
        assert_eq!(read(&Disk, &path, 10).expect("readable"), b"2nd");
        assert!(read(&Disk, &path, 2).is_err());
        assert_eq!(Disk.list(path.parent().expect("a parent")).expect("listed"), ["checkpoint"]);
    }
}
