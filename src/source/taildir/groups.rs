//! File groups: a directory and a regular expression for the names in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::event::Headers;
use crate::java_regex::JavaRegex;

/// A directory that changed this recently may change again without a new time stamp.
const STAMP: Duration = Duration::from_secs(2);

/// A group as it is configured.
#[derive(Debug)]
pub struct GroupConfig {
    /// The directory.
    pub directory: PathBuf,
    /// What names have to match.
    pub names: Arc<JavaRegex>,
    /// Headers of all events.
    pub headers: Headers,
}

/// A group that is looked at.
pub struct Group {
    /// The directory.
    pub directory: PathBuf,
    pattern: Arc<JavaRegex>,
    names: Vec<PathBuf>,
    /// When the directory had changed and when it was listed.
    listed: Option<(SystemTime, SystemTime)>,
    links: bool,
}

impl Group {
    /// A group whose directory has to be there.
    pub fn open(config: &GroupConfig) -> io::Result<Self> {
        let directory = config.directory.clone();
        if !directory.exists() {
            return Err(io::Error::other(format!("Directory does not exist: {}", directory.display())));
        }
        Ok(Self { directory, pattern: Arc::clone(&config.names), names: Vec::new(), listed: None, links: false })
    }

    /// Whether a path is of this group.
    pub fn has(&self, path: &Path) -> bool {
        path.parent() == Some(&self.directory) && self.fits(path)
    }

    fn fits(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| self.pattern.matches(&name.to_string_lossy()))
    }

    /// The paths that matched when the directory was last listed.
    pub fn names(&self) -> &[PathBuf] {
        &self.names
    }

    /// Lists the directory; with `cached` only if it has changed. Returns whether there are symbolic links.
    pub fn list(&mut self, cached: bool) -> io::Result<bool> {
        let changed = fs::metadata(&self.directory)?.modified()?;
        let fresh = self.listed.is_some_and(|(of, at)| of == changed && at > of + STAMP);
        if cached && fresh {
            return Ok(self.links);
        }
        let now = SystemTime::now();
        let mut names = Vec::new();
        let mut links = false;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            if (kind.is_file() || kind.is_symlink()) && self.fits(&path) {
                links |= kind.is_symlink();
                names.push(path);
            }
        }
        self.names = names;
        self.links = links;
        self.listed = Some((changed, now));
        Ok(links)
    }
}
