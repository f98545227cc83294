//! The locks that keep a second agent, or Flume, out of a channel's directories.

use std::io;
use std::path::Path;

use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};

use crate::fs::{FileSystem, Lock};

/// The file that Flume locks, too.
pub const FILE: &str = "in_use.lock";

/// The process that has a directory locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The one with this number.
    Process(i32),
    /// One that cannot be seen from here.
    Unseen,
}

/// Which other process has a directory locked, if any.
pub fn holder(directory: &Path) -> io::Result<Option<Holder>> {
    let file = match std::fs::File::open(directory.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let lock = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))?;
    let process = |pid: Pid| Holder::Process(pid.as_raw_nonzero().get());
    Ok(lock.map(|lock| lock.pid.map_or(Holder::Unseen, process)))
}

/// Makes the directories if need be and locks them all; otherwise says why not.
pub fn lock_all<'a>(
    fs: &dyn FileSystem,
    channel: &str,
    directories: impl IntoIterator<Item = &'a Path>,
) -> Result<Vec<Lock>, String> {
    let mut locks = Vec::new();
    for directory in directories {
        let name = directory.display();
        let failed = |error| format!("Could not use directory {name}: {error} [channel={channel}]");
        fs.create_directory(directory).map_err(failed)?;
        let lock = fs.lock(&directory.join(FILE)).map_err(failed)?;
        let taken = || format!("Cannot lock {name}. The directory is already locked. [channel={channel}]");
        locks.push(lock.ok_or_else(taken)?);
    }
    Ok(locks)
}
