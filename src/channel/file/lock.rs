//! The locks that keep a second agent, or Flume, out of a channel's directories.

use std::path::Path;

use crate::fs::{FileSystem, Lock};

/// The file that Flume locks, too.
const FILE: &str = "in_use.lock";

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
