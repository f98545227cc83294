//! A file system in memory that crashes and fails when it is told to.
//!
//! A crash keeps what was synced. Of everything else any part may survive, whatever its order: each unsynced change of a
//! directory as a whole, each unsynced write by sectors. A failed sync forgets what it was to make durable, as Linux
//! does: the content can still be read, and no later sync brings it to the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{File, FileId, FileSystem, Lock};

const SECTOR: usize = 512;

/// A file system. Clones are the same one.
#[derive(Clone)]
pub struct Simulated(Arc<Mutex<World>>);

struct World {
    directories: BTreeMap<PathBuf, Directory>,
    inodes: Vec<Inode>,
    locks: BTreeSet<PathBuf>,
    random: Random,
    capacity: u64,
    calls: u64,
    failing: std::ops::Range<u64>,
    slowness: Duration,
    broken: Option<PathBuf>,
}

#[derive(Clone, Default)]
struct Directory {
    durable: BTreeMap<String, usize>,
    live: BTreeMap<String, usize>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
    /// Into another directory, where it is linked first: no crash takes both names away.
    MoveTo(PathBuf, String, usize),
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    live: Vec<u8>,
    unsynced: Vec<Edit>,
}

#[derive(Clone)]
enum Edit {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// Splitmix64.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => write(content, *offset, bytes),
            Self::Length(len) => content.resize(*len, 0),
        }
    }

    /// Leaves of the edit what a crash may.
    fn tear(&self, content: &mut Vec<u8>, random: &mut Random) {
        match self {
            Self::Write(offset, bytes) => {
                for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                    if random.coin() {
                        write(content, offset + number * SECTOR, sector);
                    }
                }
            }
            Self::Length(_) if random.coin() => self.apply(content),
            Self::Length(_) => {}
        }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::MoveTo(_, name, _) => {
                names.remove(name);
            }
        }
    }
}

impl World {
    /// Counts a call and says whether it works.
    fn call(&mut self) -> io::Result<()> {
        let number = self.calls;
        self.calls += 1;
        if self.failing.contains(&number) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    /// The same for a call that names a path.
    fn call_at(&mut self, path: &Path) -> io::Result<()> {
        self.call()?;
        let broken = self.broken.as_ref().is_some_and(|broken| path.starts_with(broken));
        if broken { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn directory(&mut self, path: &Path) -> io::Result<(&mut Directory, String)> {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a file's name").to_owned();
        let directory = self.directories.get_mut(path.parent().expect("a file in a directory"));
        Ok((directory.ok_or(io::ErrorKind::NotFound)?, name))
    }

    fn change(&mut self, path: &Path, change: impl FnOnce(String) -> Change) -> io::Result<()> {
        let (directory, name) = self.directory(path)?;
        let change = change(name);
        change.apply(&mut directory.live);
        directory.unsynced.push(change);
        Ok(())
    }

    fn used(&self) -> u64 {
        let live = self.directories.values().flat_map(|directory| directory.live.values());
        live.map(|inode| self.inodes[*inode].live.len() as u64).sum()
    }
}

/// An empty one, of a terabyte.
impl Default for Simulated {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(World {
            directories: BTreeMap::new(),
            inodes: Vec::new(),
            locks: BTreeSet::new(),
            random: Random(0),
            capacity: 1 << 40,
            calls: 0,
            failing: 0..0,
            slowness: Duration::ZERO,
            broken: None,
        })))
    }
}

impl Simulated {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a crash at this moment leaves; this one goes on as if nothing had happened.
    pub fn crash(&self, seed: u64) -> Self {
        let world = self.world();
        let mut random = Random(seed);
        let mut inodes = world.inodes.clone();
        for inode in &mut inodes {
            let mut content = std::mem::take(&mut inode.durable);
            for edit in inode.unsynced.drain(..) {
                edit.tear(&mut content, &mut random);
            }
            (inode.durable, inode.live) = (content.clone(), content);
        }
        let mut directories = world.directories.clone();
        let mut moves = Vec::new();
        for (path, directory) in &mut directories {
            for change in directory.unsynced.drain(..).filter(|_| random.coin()) {
                match change {
                    Change::MoveTo(..) => moves.push((path.clone(), change)),
                    change => change.apply(&mut directory.durable),
                }
            }
        }
        for (from, change) in moves {
            if let Change::MoveTo(to, _, inode) = &change
                && directories[to].durable.values().any(|found| found == inode)
                && let Some(directory) = directories.get_mut(&from)
            {
                change.apply(&mut directory.durable);
            }
        }
        for directory in directories.values_mut() {
            directory.live = directory.durable.clone();
        }
        let capacity = world.capacity;
        Self(Arc::new(Mutex::new(World {
            directories,
            inodes,
            locks: BTreeSet::new(),
            random,
            capacity,
            calls: 0,
            failing: 0..0,
            slowness: Duration::ZERO,
            broken: None,
        })))
    }

    /// A copy in which everything is as it can be read now, as after the process was killed.
    pub fn killed(&self) -> Self {
        let copy = self.crash(0);
        let world = self.world();
        let mut left = copy.world();
        left.inodes = world.inodes.clone();
        left.directories = world.directories.clone();
        drop(left);
        drop(world);
        copy
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Makes the calls of these numbers fail.
    pub fn fail(&self, calls: std::ops::Range<u64>) {
        self.world().failing = calls;
    }

    /// Makes all calls from now on fail, or none.
    pub fn fail_all(&self, fail: bool) {
        let mut world = self.world();
        world.failing = if fail { world.calls..u64::MAX } else { 0..0 };
    }

    /// Makes every sync take so long.
    pub fn slow_down(&self, sync: Duration) {
        self.world().slowness = sync;
    }

    /// Removes a directory with all that is in it, behind everybody's back.
    pub fn remove_directory(&self, path: &Path) {
        self.world().directories.remove(path);
    }

    /// Makes all calls fail that name something in a directory, or none.
    pub fn fail_in(&self, directory: Option<&Path>) {
        self.world().broken = directory.map(Path::to_owned);
    }

    /// Sets the size of the disk.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity = bytes;
    }

    /// Changes what a file holds, behind everybody's back.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let (directory, name) = world.directory(path).expect("the directory");
        let inode = directory.live[&name];
        let inode = &mut world.inodes[inode];
        change(&mut inode.live);
        inode.durable = inode.live.clone();
        inode.unsynced.clear();
    }

    /// The content of a file.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        let mut world = self.world();
        let (directory, name) = world.directory(path).expect("the directory");
        let inode = directory.live[&name];
        world.inodes[inode].live.clone()
    }
}

impl FileSystem for Simulated {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        world.call_at(path)?;
        world.inodes.push(Inode::default());
        let inode = world.inodes.len() - 1;
        world.change(path, |name| Change::Link(name, inode))?;
        Ok(Arc::new(Open { fs: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        world.call_at(path)?;
        let (directory, name) = world.directory(path)?;
        let inode = *directory.live.get(&name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Open { fs: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call_at(from)?;
        if from.parent() == to.parent() {
            let to = to.file_name().and_then(|name| name.to_str()).expect("a file's name").to_owned();
            return world.change(from, |from| Change::Rename(from, to));
        }
        let (directory, name) = world.directory(from)?;
        let inode = *directory.live.get(&name).ok_or(io::ErrorKind::NotFound)?;
        world.change(to, |name| Change::Link(name, inode))?;
        let target = to.parent().expect("a file in a directory").to_owned();
        world.change(from, |name| Change::MoveTo(target, name, inode))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call_at(path)?;
        world.change(path, Change::Unlink)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call_at(path)?;
        world.directories.entry(path.to_owned()).or_default();
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.call_at(path)?;
        let directory = world.directories.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        directory.durable = directory.live.clone();
        directory.unsynced.clear();
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.call_at(path)?;
        let directory = world.directories.get(path).ok_or(io::ErrorKind::NotFound)?;
        let below = world.directories.keys().filter(|below| below.parent() == Some(path));
        let below = below.filter_map(|below| below.file_name()?.to_str());
        Ok(directory.live.keys().map(String::as_str).chain(below).map(str::to_owned).collect())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let mut world = self.world();
        world.call_at(path)?;
        if !world.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Lock { _held: Box::new(Held { fs: self.clone(), path: path.to_owned() }) }))
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let mut world = self.world();
        world.call_at(path)?;
        world.directories.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(world.capacity.saturating_sub(world.used()))
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        let mut world = self.world();
        world.call_at(path)?;
        let (directory, name) = world.directory(path)?;
        Ok(FileId(0, *directory.live.get(&name).ok_or(io::ErrorKind::NotFound)? as u64))
    }
}

struct Held {
    fs: Simulated,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.fs.world().locks.remove(&self.path);
    }
}

struct Open {
    fs: Simulated,
    inode: usize,
}

impl File for Open {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.fs.world();
        world.call()?;
        let content = &world.inodes[self.inode].live;
        let from = content.len().min(offset as usize);
        let len = buffer.len().min(content.len() - from);
        buffer[..len].copy_from_slice(&content[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        let mut world = self.fs.world();
        let mut outcome = world.call();
        if outcome.is_err() {
            bytes.truncate(bytes.len() / 2);
        }
        let room = world.capacity.saturating_sub(world.used()) as usize;
        let grows = (offset as usize + bytes.len()).saturating_sub(world.inodes[self.inode].live.len());
        if grows > room {
            bytes.truncate(bytes.len() - (grows - room).min(bytes.len()));
            outcome = Err(io::ErrorKind::StorageFull.into());
        }
        let edit = Edit::Write(offset as usize, bytes);
        let inode = &mut world.inodes[self.inode];
        edit.apply(&mut inode.live);
        inode.unsynced.push(edit);
        outcome
    }

    fn sync(&self) -> io::Result<()> {
        let slowness = self.fs.world().slowness;
        thread::sleep(slowness);
        let mut world = self.fs.world();
        let outcome = world.call();
        let World { inodes, random, .. } = &mut *world;
        let inode = &mut inodes[self.inode];
        for edit in inode.unsynced.drain(..) {
            match outcome {
                Ok(()) => edit.apply(&mut inode.durable),
                Err(_) => edit.tear(&mut inode.durable, random),
            }
        }
        outcome
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.fs.world();
        world.call()?;
        let edit = Edit::Length(len as usize);
        let inode = &mut world.inodes[self.inode];
        edit.apply(&mut inode.live);
        inode.unsynced.push(edit);
        Ok(())
    }

    fn id(&self) -> io::Result<FileId> {
        self.fs.world().call()?;
        Ok(FileId(0, self.inode as u64))
    }

    fn len(&self) -> io::Result<u64> {
        let mut world = self.fs.world();
        world.call()?;
        Ok(world.inodes[self.inode].live.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: &str = "/d";
    const FILE: &str = "/d/f";

    fn with_file(content: &[u8]) -> (Simulated, Arc<dyn File>) {
        let fs = Simulated::default();
        fs.create_directory(Path::new(DIRECTORY)).expect("made");
        let file = fs.create(Path::new(FILE)).expect("made");
        file.write_at(&[IoSlice::new(content)], 0).expect("room");
        (fs, file)
    }

    #[test]
    fn what_was_synced_survives_every_crash_and_the_rest_may_not() {
        let (fs, file) = with_file(&[7; 600]);
        file.sync().expect("synced");
        assert!((0..20).any(|seed| fs.crash(seed).open(Path::new(FILE)).is_err()), "the name was not synced");
        fs.sync_directory(Path::new(DIRECTORY)).expect("synced");
        file.write_at(&[IoSlice::new(&[8; 1024])], 600).expect("room");
        let contents: BTreeSet<Vec<u8>> = (0..40).map(|seed| fs.crash(seed).content(Path::new(FILE))).collect();
        assert_eq!(contents.len(), 4, "each of two sectors is there or not");
        assert!(contents.iter().all(|content| content[..600] == [7; 600]));
    }

    #[test]
    fn a_failed_sync_forgets_what_can_still_be_read() {
        let (fs, file) = with_file(&[7; 5000]);
        fs.sync_directory(Path::new(DIRECTORY)).expect("synced");
        fs.fail_all(true);
        file.sync().expect_err("told to fail");
        fs.fail_all(false);
        file.sync().expect("synced");
        assert_eq!(fs.content(Path::new(FILE)), [7; 5000]);
        assert_ne!(fs.crash(1).content(Path::new(FILE)), [7; 5000]);
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let (fs, file) = with_file(b"abc");
        fs.set_capacity(5);
        let error = file.write_at(&[IoSlice::new(b"defg")], 3).expect_err("one byte too many");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs.content(Path::new(FILE)), b"abcde");
    }
}
