//! The files that are followed: who they are, how far they have been delivered, and what comes next of them.
//!
//! A file is known by device, inode and time of birth, not by its name: one that is renamed goes on where it was, also
//! when its new name matches no pattern or it has been deleted, until it has been idle for `idleTimeout`. The bytes
//! before its position are remembered (at most [`GUARD_BYTES`]) and read again with what follows: if they have changed,
//! the file was truncated and has grown again, and is read from its front. Nothing here waits, and nothing but reading
//! and committing moves a position.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tracing::{debug, error, info, warn};

use super::TaildirConfig;
use super::groups::Group;
use super::positions::{Known, Mark};
use super::records::Records;
use crate::event::{Batch, Headers, NO_HEADERS};
use crate::logging::Limited;
use crate::source::pieces::{READ_BYTES, read_at, share};

/// So many bytes before a position are remembered.
const GUARD_BYTES: usize = 256;
/// So many files are kept open. Of the others, an event that is written after a long silence and just before a rename
/// out of the directory and a deletion would be missed.
const MOST_OPEN: usize = 512;
/// How often files without a name that is watched are looked at.
const LOOK_AT_LOST: Duration = Duration::from_secs(1);
const BYTE_OFFSET_HEADER: &str = "byteoffset";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// When a file came to be, in nanoseconds since 1970; a recycled inode is born again.
fn born(metadata: &Metadata) -> Option<u64> {
    let since = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// When a file was changed last, and when it came to be: the order in which files are read.
fn age(metadata: &Metadata) -> (Option<SystemTime>, Option<u64>) {
    (metadata.modified().ok(), born(metadata))
}

/// What of a file that has gone idle or silent is delivered beside whole events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Flush {
    Nothing,
    /// The last event, of which more lines could have come.
    Lines,
    /// Also a line without an end; then the file is closed.
    All,
}

/// The front of an event that is not whole yet.
#[derive(Clone, Copy)]
struct Held {
    /// When it grew last.
    since: Instant,
    /// Whether it has whole lines.
    lines: bool,
}

struct TailFile {
    path: PathBuf,
    headers: Headers,
    born: Option<u64>,
    handle: Option<Arc<File>>,
    pos: u64,
    /// The bytes before `pos`.
    guard: Vec<u8>,
    /// Up to here there is no further event that is whole.
    scanned: u64,
    /// When it had changed last, the last time it was read.
    modified: Option<SystemTime>,
    /// When something of it was last delivered, or it was first seen.
    touched: Instant,
    /// When it was last read while no watched name led to it.
    looked: Instant,
    held: Option<Held>,
    flush: Flush,
    queued: bool,
    /// Batches delivered since its turn began.
    turn: u64,
    /// No watched name leads to it any more.
    lost: bool,
}

impl TailFile {
    fn new(path: PathBuf, headers: Headers, metadata: &Metadata, pos: u64, now: Instant) -> Self {
        Self {
            path,
            headers,
            born: born(metadata),
            handle: None,
            pos,
            guard: Vec::new(),
            scanned: pos,
            modified: None,
            touched: now,
            looked: now,
            held: None,
            flush: Flush::Nothing,
            queued: false,
            turn: 0,
            lost: false,
        }
    }

    /// Whether it is the file at this path, as it was.
    fn is_at(&self, path: &Path, metadata: &Metadata) -> bool {
        self.path == path && self.born == born(metadata) && !self.lost
    }

    /// Whether there may be something new.
    fn differs_from(&self, metadata: &Metadata) -> bool {
        metadata.len() != self.scanned || self.modified != metadata.modified().ok()
    }

    /// Notes that there is no whole event up to `end`.
    fn hold(&mut self, end: u64, lines: bool, now: Instant) {
        let grown = end > self.scanned;
        self.scanned = end;
        match &mut self.held {
            _ if end == self.pos => self.held = None,
            Some(held) if !grown => held.lines = lines,
            held => *held = Some(Held { since: now, lines }),
        }
    }

    fn restart(&mut self) {
        self.pos = 0;
        self.scanned = 0;
        self.guard.clear();
    }
}

/// What was read of one file, to be delivered and committed.
#[derive(Debug)]
pub struct Portion {
    id: FileId,
    buffer: Bytes,
    /// Where in the file the buffer begins.
    base: u64,
    /// Batches, each with the position in the file behind it.
    pub batches: Vec<(Batch, u64)>,
}

/// All files of a source.
pub struct Files {
    config: Arc<TaildirConfig>,
    groups: Vec<Group>,
    files: HashMap<FileId, TailFile>,
    paths: HashMap<PathBuf, FileId>,
    /// Files that may have something new, the next one first.
    ready: VecDeque<FileId>,
    /// Files that are open or hold something back: those that time changes.
    active: HashSet<FileId>,
    open: usize,
    /// A name is a symbolic link, whose file changes without a word.
    links: bool,
    unsaved: bool,
    complaints: Limited,
}

impl Files {
    /// No files yet; an error if a directory is not there.
    pub fn new(config: Arc<TaildirConfig>) -> io::Result<Self> {
        let groups: Vec<Group> = config.groups.iter().map(Group::open).collect::<io::Result<_>>()?;
        Ok(Self {
            config,
            groups,
            files: HashMap::new(),
            paths: HashMap::new(),
            ready: VecDeque::new(),
            active: HashSet::new(),
            open: 0,
            links: false,
            unsaved: false,
            complaints: Limited::default(),
        })
    }

    /// Finds the files that are there at the start, and where to go on with each.
    pub fn begin(&mut self, known: &[Known], now: Instant) {
        let mut by_inode: HashMap<u64, &Known> = known.iter().map(|known| (known.inode, known)).collect();
        for (group, path, metadata) in self.list() {
            let id = FileId::of(&metadata);
            if self.files.contains_key(&id) {
                continue;
            }
            let entry = by_inode.remove(&id.inode);
            let place = entry.and_then(|known| resume(known, &path, &metadata));
            let pos = match place {
                Some((pos, _)) => pos,
                // A file that is not what it was has something new from its front on.
                None if entry.is_some_and(|known| known.mark.is_some()) => 0,
                None if self.config.skip_to_end => metadata.len(),
                None => 0,
            };
            info!("Opening file: {}, inode: {}, pos: {pos}", path.display(), id.inode);
            let mut file = TailFile::new(path.clone(), self.headers(group, &path), &metadata, pos, now);
            file.guard = place.map(|(_, guard)| guard).unwrap_or_default();
            self.paths.insert(path, id);
            self.files.insert(id, file);
            self.queue(id);
        }
        self.unsaved = true;
        for known in by_inode.into_values() {
            self.begin_renamed(known, now);
        }
    }

    /// Goes on with a file that got a name that matches nothing while nobody looked, as rotation does.
    fn begin_renamed(&mut self, known: &Known, now: Instant) {
        let old = Path::new(&known.path);
        let group = self.groups.iter().position(|group| Some(&*group.directory) == old.parent());
        let found = known.mark.as_ref().zip(group).and_then(|(mark, group)| {
            let id = FileId { device: mark.device, inode: known.inode };
            let path = name_of(&self.groups[group].directory, id)?;
            let metadata = fs::metadata(&path).ok()?;
            let (pos, guard) = resume(known, &path, &metadata)?;
            Some((id, group, path, metadata, pos, guard))
        });
        let Some((id, group, path, metadata, pos, guard)) = found else {
            info!("Missing file: {}, inode: {}, pos: {}", known.path, known.inode, known.pos);
            return;
        };
        info!("Opening file: {}, inode: {}, pos: {pos}; it was {}", path.display(), id.inode, known.path);
        // Its events come from the file of its old name.
        let mut file = TailFile::new(path, self.headers(group, old), &metadata, pos, now);
        file.guard = guard;
        file.lost = true;
        self.files.insert(id, file);
        // What is older goes first.
        self.queue(id);
        self.ready.rotate_right(1);
    }

    /// Looks at all directories: for new files, changed ones, and those that are gone.
    pub fn scan(&mut self, now: Instant) {
        let mut seen = HashSet::new();
        self.links = false;
        for (group, path, metadata) in self.list() {
            seen.insert(path.clone());
            self.note(group, path, &metadata, now);
        }
        let gone: Vec<PathBuf> = self.paths.keys().filter(|path| !seen.contains(*path)).cloned().collect();
        gone.iter().for_each(|path| self.lose(path));
    }

    /// Looks at paths that have changed.
    pub fn look(&mut self, paths: impl IntoIterator<Item = PathBuf>, now: Instant) {
        let mut found = Vec::new();
        for path in paths {
            let Some(group) = self.groups.iter().position(|group| group.has(&path)) else { continue };
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => found.push((group, path, metadata)),
                _ => self.lose(&path),
            }
        }
        found.sort_by_key(|(_, _, metadata)| age(metadata));
        for (group, path, metadata) in found {
            self.note(group, path, &metadata, now);
        }
    }

    /// All files that match, the one that changed first first.
    fn list(&mut self) -> Vec<(usize, PathBuf, Metadata)> {
        let mut found = Vec::new();
        for (number, group) in self.groups.iter_mut().enumerate() {
            match group.list(self.config.cache_pattern_matching) {
                Ok(links) => self.links |= links,
                Err(error) => {
                    if let Some(others) = self.complaints.permit() {
                        let directory = group.directory.display();
                        error!("I/O exception occurred while listing parent directory. {directory}: {error}{others}");
                    }
                    // What cannot be seen is not gone.
                }
            }
            let metadata =
                group.names().iter().filter_map(|path| Some((number, path.clone(), fs::metadata(path).ok()?)));
            found.extend(metadata.filter(|(_, _, metadata)| metadata.is_file()));
        }
        found.sort_by_cached_key(|(_, _, metadata)| age(metadata));
        found
    }

    /// Takes notice of a file of a matching name.
    fn note(&mut self, group: usize, path: PathBuf, metadata: &Metadata, now: Instant) {
        let id = FileId::of(metadata);
        match self.paths.get(&path) {
            // As most files are most of the time.
            Some(known) if *known == id && self.files.get(&id).is_some_and(|file| file.is_at(&path, metadata)) => {
                if self.files[&id].differs_from(metadata) {
                    self.queue(id);
                }
                return;
            }
            Some(other) if *other != id => self.lose(&path),
            _ => {}
        }
        if self.files.get(&id).is_some_and(|file| file.born != born(metadata)) {
            debug!("inode {} is another file now: {}", id.inode, path.display());
            self.forget(id);
        }
        let headers = self.headers(group, &path);
        let Some(file) = self.files.get_mut(&id) else {
            info!("Opening file: {}, inode: {}, pos: 0", path.display(), id.inode);
            self.files.insert(id, TailFile::new(path.clone(), headers, metadata, 0, now));
            self.paths.insert(path, id);
            self.unsaved = true;
            self.queue(id);
            return;
        };
        if file.path != path {
            // A second name of the same file is no rename.
            if !file.lost && fs::metadata(&file.path).is_ok_and(|metadata| FileId::of(&metadata) == id) {
                return;
            }
            let old = std::mem::replace(&mut file.path, path.clone());
            info!("{} is now {}, inode: {}, pos: {}", old.display(), path.display(), id.inode, file.pos);
            file.headers = headers;
            self.unsaved = true;
            self.paths.remove(&old);
        }
        file.lost = false;
        self.paths.insert(path, id);
        if file.differs_from(metadata) {
            self.queue(id);
        }
    }

    /// Notes that a path leads to nothing, or to another file.
    fn lose(&mut self, path: &Path) {
        let Some(id) = self.paths.remove(path) else { return };
        if let Some(file) = self.files.get_mut(&id) {
            file.lost = true;
            self.unsaved = true;
            // It may have grown just before.
            self.queue(id);
        }
    }

    fn queue(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id)
            && !file.queued
        {
            file.queued = true;
            file.turn = 0;
            self.ready.push_back(id);
        }
    }

    fn forget(&mut self, id: FileId) {
        self.close(id);
        if let Some(file) = self.files.remove(&id) {
            if self.paths.get(&file.path) == Some(&id) {
                self.paths.remove(&file.path);
            }
            self.ready.retain(|ready| *ready != id);
            self.unsaved = true;
        }
    }

    fn close(&mut self, id: FileId) {
        self.active.remove(&id);
        if let Some(file) = self.files.get_mut(&id)
            && file.handle.take().is_some()
        {
            self.open -= 1;
        }
    }

    fn headers(&self, group: usize, path: &Path) -> Headers {
        let mut headers = self.config.groups[group].headers.clone();
        if let Some(key) = &self.config.file_header {
            headers.set(key.clone(), path.to_string_lossy());
        }
        headers
    }

    /// Reads the next events, if there are any. They come again until they are committed.
    pub fn next(&mut self, now: Instant) -> Option<Portion> {
        while let Some(id) = self.ready.front().copied() {
            match self.read(id, now) {
                Ok(Some(portion)) => return Some(portion),
                Ok(None) => {}
                Err(error) => {
                    if let (Some(file), Some(others)) = (self.files.get(&id), self.complaints.permit()) {
                        error!("Unable to tail files: {}: {error}{others}", file.path.display());
                    }
                    self.close(id);
                }
            }
            self.end_turn(id);
        }
        None
    }

    /// A file that has nothing more for now, or had its share, makes room for the next one.
    fn end_turn(&mut self, id: FileId) {
        self.ready.pop_front();
        let Some(file) = self.files.get_mut(&id) else { return };
        file.queued = false;
        if file.turn >= self.config.max_batch_count {
            self.queue(id);
            return;
        }
        if file.flush == Flush::All {
            info!("Closed file: {}, inode: {}, pos: {}", file.path.display(), id.inode, file.pos);
            self.close(id);
        }
        let Some(file) = self.files.get_mut(&id) else { return };
        file.flush = Flush::Nothing;
        if file.lost && file.handle.is_none() {
            self.forget(id);
        }
    }

    fn read(&mut self, id: FileId, now: Instant) -> io::Result<Option<Portion>> {
        if !self.open(id)? {
            return Ok(None);
        }
        let Some(file) = self.files.get_mut(&id) else { return Ok(None) };
        let Some(handle) = &file.handle.clone() else { return Ok(None) };
        let metadata = handle.metadata()?;
        let len = metadata.len();
        // Taken before the read, so that what comes later is seen as a change.
        file.modified = metadata.modified().ok();
        file.looked = now;
        if len < file.pos {
            info!(
                "Pos {} is larger than file size! Restarting from pos 0, file: {}, inode: {}",
                file.pos,
                file.path.display(),
                id.inode
            );
            file.restart();
            self.unsaved = true;
        }
        let most_batches = self.config.max_batch_count.saturating_sub(file.turn);
        if most_batches == 0 || (len == file.pos && file.turn > 0) {
            return Ok(None);
        }
        let records = Records { start: self.config.multiline.as_ref(), most_bytes: self.config.max_line_bytes };
        let mut size = READ_BYTES;
        let (buffer, front, cut) = loop {
            // What is known to hold no end is not read again, however often a long line grows.
            if file.flush == Flush::Nothing && file.scanned > file.pos && records.start.is_none() {
                let new = usize::try_from(len.saturating_sub(file.scanned)).unwrap_or(usize::MAX).min(READ_BYTES);
                let new = read_at(handle, file.scanned, new)?;
                let end = file.scanned + new.len() as u64;
                if records.whole_lines(&new) == 0 && end - file.pos < records.most_bytes as u64 {
                    file.hold(end, false, now);
                    if end >= len || new.is_empty() {
                        return Ok(None);
                    }
                    continue;
                }
                size = size.max((end - file.pos) as usize);
            }
            let base = file.pos - file.guard.len() as u64;
            let want = file.guard.len() + usize::try_from(len - file.pos).unwrap_or(usize::MAX).min(size);
            let buffer = read_at(handle, base, want)?;
            let front = file.guard.len();
            if !buffer.starts_with(&file.guard) {
                warn!(
                    "{} was truncated and has grown again: reading from its front, inode: {}, pos was {}",
                    file.path.display(),
                    id.inode,
                    file.pos
                );
                file.restart();
                self.unsaved = true;
                continue;
            }
            let data = &buffer[front..];
            let at_end = file.pos + data.len() as u64 >= len;
            let cut = match file.flush {
                Flush::All if at_end => data.len(),
                Flush::Lines if at_end => records.whole_lines(data),
                _ => records.whole(data),
            };
            if cut > 0 {
                break (buffer, front, cut);
            }
            // Less than there was a moment ago means that it is being truncated.
            if at_end || buffer.len() < want {
                file.hold(file.pos + data.len() as u64, records.whole_lines(data) > 0, now);
                return Ok(None);
            }
            size = size.saturating_mul(4).min(records.most_bytes.max(READ_BYTES));
        };
        file.held = None;
        let base = file.pos - front as u64;
        let buffer = share(buffer, front + cut);
        let mut batches = Vec::new();
        let mut rest = front;
        while rest < front + cut && (batches.len() as u64) < most_batches {
            let text = &buffer[rest..front + cut];
            let mut batch = Batch::with_capacity(self.config.batch_size.min(text.len()));
            let shared = batch.push_buffer(buffer.clone());
            let plain =
                if self.config.byte_offset_header { NO_HEADERS } else { batch.push_headers(file.headers.clone()) };
            let used = records.split(text, self.config.batch_size, |start, end| {
                let headers = if self.config.byte_offset_header {
                    let offset = base + (rest + start) as u64;
                    let mut headers = Headers::new();
                    headers.set(BYTE_OFFSET_HEADER, smol_str::format_smolstr!("{offset}"));
                    file.headers.iter().for_each(|(key, value)| headers.set(key, value));
                    batch.push_headers(headers)
                } else {
                    plain
                };
                batch.push_span(shared, rest + start, rest + end, headers);
            });
            rest += used;
            batches.push((batch, base + rest as u64));
        }
        Ok(Some(Portion { id, buffer, base, batches }))
    }

    /// Notes that the next so many batches of a portion, up to `end` in the file, are in the channels.
    pub fn commit(&mut self, portion: &Portion, end: u64, batches: u64, now: Instant) {
        let Some(file) = self.files.get_mut(&portion.id) else { return };
        let used = (end - portion.base) as usize;
        file.guard.clear();
        file.guard.extend_from_slice(&portion.buffer[used.saturating_sub(GUARD_BYTES)..used]);
        file.pos = end;
        file.scanned = file.scanned.max(end);
        file.touched = now;
        file.turn += batches;
        self.unsaved = true;
    }

    /// Makes sure that a file is open. One that is not there any more is forgotten.
    fn open(&mut self, id: FileId) -> io::Result<bool> {
        let Some(file) = self.files.get_mut(&id) else { return Ok(false) };
        if file.handle.is_some() {
            return Ok(true);
        }
        let mut found = open_if(&file.path, id)?;
        if found.is_none()
            && let Some(path) = file.path.parent().and_then(|directory| name_of(directory, id))
        {
            found = open_if(&path, id)?;
        }
        let Some(handle) = found else {
            info!("File has been deleted in the meantime: {}", file.path.display());
            self.forget(id);
            return Ok(false);
        };
        if file.guard.is_empty() && file.pos > 0 && file.pos <= handle.metadata()?.len() {
            file.guard = guard_at(&handle, file.pos)?;
        }
        file.handle = Some(Arc::new(handle));
        self.active.insert(id);
        self.open += 1;
        if self.open > MOST_OPEN {
            let idle = self.active.iter().filter(|other| {
                let file = &self.files[*other];
                !file.queued && !file.lost && file.held.is_none() && file.handle.is_some()
            });
            if let Some(oldest) = idle.min_by_key(|other| self.files[*other].touched).copied() {
                self.close(oldest);
            }
        }
        Ok(true)
    }

    /// When to come back though nothing has changed.
    pub fn deadline(&self) -> Option<Instant> {
        self.active
            .iter()
            .filter_map(|id| self.files.get(id))
            .filter(|file| !file.queued)
            .map(|file| self.due(file))
            .min()
    }

    fn due(&self, file: &TailFile) -> Instant {
        let mut due = self.idle_at(file);
        if let Some(at) = self.silent_at(file) {
            due = due.min(at);
        }
        if file.lost { due.min(file.looked + LOOK_AT_LOST) } else { due }
    }

    fn idle_at(&self, file: &TailFile) -> Instant {
        file.held.map_or(file.touched, |held| held.since.max(file.touched)) + self.config.idle_timeout
    }

    /// When the last event counts as whole, because no further line came.
    fn silent_at(&self, file: &TailFile) -> Option<Instant> {
        let held = file.held.filter(|held| held.lines)?;
        self.config.multiline.as_ref().map(|_| held.since + self.config.multiline_timeout)
    }

    /// Turns to the files that time has changed.
    pub fn tick(&mut self, now: Instant) {
        let past = |id: &FileId| self.files.get(id).is_some_and(|file| !file.queued && self.due(file) <= now);
        let due: Vec<FileId> = self.active.iter().copied().filter(past).collect();
        for id in due {
            let Some(file) = self.files.get(&id) else { continue };
            let flush = if self.idle_at(file) <= now {
                Flush::All
            } else if self.silent_at(file).is_some_and(|at| at <= now) {
                Flush::Lines
            } else {
                Flush::Nothing
            };
            if let Some(file) = self.files.get_mut(&id) {
                file.flush = flush;
            }
            self.queue(id);
        }
    }

    /// Whether a scan is the only way to hear of some changes.
    pub fn has_links(&self) -> bool {
        self.links
    }

    /// The positions, if they have changed since they were last asked for.
    pub fn unsaved(&self) -> bool {
        self.unsaved
    }

    /// The positions of all files that are there, in the order of their paths.
    pub fn positions(&mut self) -> Vec<Known> {
        self.unsaved = false;
        let known = |(id, file): (&FileId, &TailFile)| Known {
            inode: id.inode,
            pos: file.pos,
            path: file.path.to_string_lossy().into_owned(),
            mark: Some(Mark::new(id.inode, id.device, file.born, file.pos, &file.guard)),
        };
        let mut all: Vec<Known> = self.files.iter().map(known).collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// Notes that the positions could not be saved.
    pub fn not_saved(&mut self) {
        self.unsaved = true;
    }
}

/// Where to go on with a file, and the bytes before that place, if it is the one that is known.
fn resume(known: &Known, path: &Path, metadata: &Metadata) -> Option<(u64, Vec<u8>)> {
    let Known { inode, pos, path: old, mark } = known;
    let Some(mark) = mark else {
        // Flume's rule: the name has to be the same. A position behind the end is found out when it is read.
        let same = *old == path.to_string_lossy();
        if same {
            info!("Updated position, file: {old}, inode: {inode}, pos: {pos}");
        }
        return same.then(|| (*pos, Vec::new()));
    };
    let fits = mark.device == metadata.dev()
        && *inode == metadata.ino()
        && (mark.born == born(metadata) || mark.born.is_none())
        && mark.guarded as u64 <= *pos
        && mark.guarded <= GUARD_BYTES
        && *pos <= metadata.len();
    let guard =
        fits.then(|| read_at(&File::open(path).ok()?, pos - mark.guarded as u64, mark.guarded).ok()).flatten()?;
    if !mark.fits(&guard) {
        return None;
    }
    info!("Updated position, file: {}, inode: {inode}, pos: {pos}", path.display());
    Some((*pos, guard))
}

/// Opens a path if it leads to this file.
fn open_if(path: &Path, id: FileId) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok((FileId::of(&file.metadata()?) == id).then_some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path in a directory that leads to a file, whatever it is called.
fn name_of(directory: &Path, id: FileId) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).ok()?.flatten().filter(|entry| entry.ino() == id.inode);
    let same =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && FileId::of(&metadata) == id);
    entries.find_map(|entry| Some(entry.path()).filter(same))
}

/// The bytes before a position.
fn guard_at(file: &File, pos: u64) -> io::Result<Vec<u8>> {
    let front = pos.saturating_sub(GUARD_BYTES as u64);
    read_at(file, front, (pos - front) as usize)
}

#[cfg(test)]
mod tests;
