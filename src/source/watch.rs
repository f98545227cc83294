//! Directories that are watched for changes, with a note of what has changed since somebody last asked.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tracing::warn;

/// With more names than this, looking at everything is no more work.
const MOST_NAMES: usize = 4096;

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Changes {
    /// These paths, at most, and of each whether it came by a rename: a file that did was whole when it came.
    Paths(HashMap<PathBuf, bool>),
    /// Nobody knows: too much at once.
    Unknown,
}

impl Changes {
    fn none() -> Self {
        Self::Paths(HashMap::new())
    }
}

#[derive(Debug)]
struct Seen {
    changes: Mutex<Changes>,
    woken: Notify,
}

impl Seen {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: notify::Result<notify::Event>) {
        let changes = &mut *self.changes();
        match event {
            Ok(event) if event.need_rescan() => *changes = Changes::Unknown,
            // Our own reading is among these.
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
            Ok(event) => {
                if let Changes::Paths(paths) = changes {
                    let renamed = matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)));
                    paths.extend(event.paths.into_iter().map(|path| (path, renamed)));
                    if paths.len() > MOST_NAMES {
                        *changes = Changes::Unknown;
                    }
                }
            }
            Err(_) => *changes = Changes::Unknown,
        }
        self.woken.notify_one();
    }
}

struct Watched {
    path: PathBuf,
    /// Device and inode of what is watched, if that worked: the path may name another directory later.
    id: Option<(u64, u64)>,
}

/// Watches directories. Where the system cannot, it says so and stays silent: somebody has to look then and when.
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    directories: Vec<Watched>,
}

/// Where one hears of the changes.
pub struct Told(Arc<Seen>);

impl Watch {
    /// Begins to watch directories, but not what is below them.
    pub fn new(directories: impl IntoIterator<Item = PathBuf>) -> (Self, Told) {
        let seen = Arc::new(Seen { changes: Mutex::new(Changes::none()), woken: Notify::new() });
        let noted = Arc::clone(&seen);
        let watcher = notify::recommended_watcher(move |event| noted.note(event));
        let watcher = watcher.map_err(|error| warn!("changes of files are looked for, not told: {error}")).ok();
        let directories = directories.into_iter().map(|path| Watched { path, id: None }).collect();
        let mut watch = Self { watcher, directories };
        watch.renew();
        (watch, Told(seen))
    }

    /// Watches these directories and no others from now on. Returns whether there are new ones, in which something may
    /// have changed that nobody was told of.
    pub fn follow(&mut self, directories: impl IntoIterator<Item = PathBuf>) -> bool {
        let mut new: HashSet<PathBuf> = directories.into_iter().collect();
        let (kept, gone) = self.directories.drain(..).partition(|watched| new.remove(&watched.path));
        self.directories = kept;
        for Watched { path, .. } in &gone {
            // The system may have forgotten it already.
            self.watcher.as_mut().and_then(|watcher| watcher.unwatch(path).ok());
        }
        let any = !new.is_empty();
        self.directories.extend(new.into_iter().map(|path| Watched { path, id: None }));
        self.renew();
        any
    }

    /// Watches directories that have come or been replaced. Returns whether every change will be told.
    pub fn renew(&mut self) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let mut all = true;
        for Watched { path, id } in &mut self.directories {
            let now = fs::metadata(&*path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
            if now.is_none() || *id != now {
                // Of one that is gone the system has forgotten the watch already.
                watcher.unwatch(path).ok();
                *id = now.filter(|_| match watcher.watch(path, RecursiveMode::NonRecursive) {
                    Ok(()) => true,
                    Err(error) => {
                        warn!("changes in {} are looked for, not told: {error}", path.display());
                        false
                    }
                });
            }
            all &= id.is_some() && tells(path);
        }
        all
    }
}

impl Told {
    /// Waits until something has changed since the last [`take`](Self::take).
    pub async fn changed(&self) {
        self.0.woken.notified().await;
    }

    /// What has changed since the last call.
    pub fn take(&self) -> Changes {
        std::mem::replace(&mut *self.0.changes(), Changes::none())
    }
}

/// Whether the file system tells of all changes, others' included: those on this machine's own disks do.
fn tells(path: &Path) -> bool {
    /// ext2 to ext4, XFS, Btrfs, tmpfs, F2FS, ZFS, overlay.
    const LOCAL: [u32; 7] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0xF2F5_2010, 0x2FC1_2FC1, 0x794C_7630];
    #[cfg(target_os = "linux")]
    return rustix::fs::statfs(path).is_ok_and(|system| LOCAL.contains(&(system.f_type as u32)));
    #[cfg(not(target_os = "linux"))]
    return path.as_os_str().is_empty() && LOCAL.is_empty();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn tells_of_a_new_file_and_of_a_directory_that_comes_back() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let directory = home.path().join("d");
        fs::create_dir(&directory).expect("a directory");
        let (mut watch, told) = Watch::new([directory.clone()]);
        let hears_of = async |path: &Path| {
            let heard = tokio::time::timeout(Duration::from_secs(20), async {
                loop {
                    told.changed().await;
                    if let Changes::Paths(paths) = told.take()
                        && let Some(renamed) = paths.get(path)
                    {
                        return *renamed;
                    }
                }
            });
            heard.await.expect("it is told")
        };
        let file = directory.join("f");
        fs::write(&file, "1").expect("a file");
        assert!(!hears_of(&file).await);
        fs::rename(&file, directory.join("g")).expect("a rename");
        assert!(hears_of(&directory.join("g")).await);
        fs::remove_dir_all(&directory).expect("it goes");
        watch.renew();
        fs::create_dir(&directory).expect("it comes back");
        watch.renew();
        fs::write(&file, "2").expect("a file");
        hears_of(&file).await;
    }

    #[tokio::test]
    async fn directories_come_and_go() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let [a, b] = ["a", "b"].map(|name| home.path().join(name));
        fs::create_dir(&a).expect("a directory");
        fs::create_dir(&b).expect("a directory");
        let (mut watch, told) = Watch::new([a.clone()]);
        assert!(!watch.follow([a.clone()]));
        assert!(watch.follow([b.clone()]));
        fs::write(a.join("f"), "1").expect("a file");
        fs::write(b.join("f"), "1").expect("a file");
        let heard = tokio::time::timeout(Duration::from_secs(20), told.changed());
        heard.await.expect("it is told");
        let Changes::Paths(paths) = told.take() else { panic!("too much at once") };
        assert!(paths.contains_key(&b.join("f")) && !paths.contains_key(&a.join("f")), "{paths:?}");
    }
}
