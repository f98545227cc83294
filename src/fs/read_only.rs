//! The operating system's file system, on which nothing is changed.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, File, FileId, FileSystem, Lock};

/// Files are opened to be read; what would be written or removed is not.
#[derive(Clone, Debug, Default)]
pub struct ReadOnly {
    /// Files that look as if they were there, and empty.
    pub empty: BTreeSet<PathBuf>,
}

impl FileSystem for ReadOnly {
    fn create(&self, _path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Unchanged(None)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        if self.empty.contains(path) {
            return Ok(Arc::new(Unchanged(None)));
        }
        Ok(Arc::new(Unchanged(Some(std::fs::File::open(path)?))))
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Disk.list(path)
    }

    /// Nobody can be kept out without a file that is made if need be.
    fn lock(&self, _path: &Path) -> io::Result<Option<Lock>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        Disk.free_space(path)
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        Disk.id(path)
    }
}

/// A file that keeps its content; without one, an empty file.
struct Unchanged(Option<std::fs::File>);

impl File for Unchanged {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.as_ref().map_or(Ok(0), |file| File::read_at(file, buffer, offset))
    }

    fn write_at(&self, _pieces: &[IoSlice<'_>], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn id(&self) -> io::Result<FileId> {
        self.0.as_ref().map_or(Err(io::ErrorKind::NotFound.into()), File::id)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.as_ref().map_or(Ok(0), File::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{read, replace};

    #[test]
    fn nothing_is_changed() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("f");
        std::fs::write(&path, "before").expect("written");
        let fs = ReadOnly { empty: [home.path().join("phantom")].into() };
        replace(&fs, &path, b"after").expect("as if");
        fs.remove(&path).expect("as if");
        let file = fs.open(&path).expect("there");
        file.set_len(1).expect("as if");
        file.write_at(&[IoSlice::new(b"x")], 0).expect("as if");
        assert_eq!(read(&fs, &path, 10).expect("readable"), b"before");
        assert_eq!(read(&fs, &home.path().join("phantom"), 10).expect("as if"), b"");
        assert_eq!(fs.list(home.path()).expect("listed"), ["f"]);
        assert!(fs.open(&home.path().join("none")).is_err());
    }
}
