//! The channel's identity: what the numbers of its events belong to.
//!
//! The file `channel.identity` beside the first segments holds 32 hexadecimal digits, made by chance when the channel is
//! new. It goes with the segments: where they are removed and numbers begin anew, so does the identity.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::fs::{self, FileSystem};

const FILE: &str = "channel.identity";
const DIGITS: usize = 32;

/// Reads the identity of the channel with segments in this directory, or makes one, as for each channel that is new.
pub fn of(fs: &dyn FileSystem, directory: &Path, is_new: bool) -> io::Result<Arc<str>> {
    let path = directory.join(FILE);
    match fs::read(fs, &path, DIGITS as u64) {
        Ok(_) if is_new => {}
        Ok(content) if content.len() == DIGITS && content.iter().all(u8::is_ascii_hexdigit) => {
            return Ok(String::from_utf8_lossy(&content).as_ref().into());
        }
        // What is no identity is replaced: nobody has seen it yet.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = [0; DIGITS / 2];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let digits = bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string does not fail.
        write!(digits, "{byte:02x}").ok();
        digits
    });
    fs::replace(fs, &path, digits.as_bytes())?;
    Ok(digits.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Disk;

    #[test]
    fn it_stays_with_the_directory() {
        let (one, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let of = |directory: &tempfile::TempDir| super::of(&Disk, directory.path(), false).expect("an identity");
        let identity = of(&one);
        assert_eq!(identity.len(), DIGITS);
        assert_eq!(of(&one), identity);
        assert_ne!(of(&other), identity);
        std::fs::write(one.path().join(FILE), "torn").expect("a file");
        assert_ne!(of(&one), identity);
    }
}
