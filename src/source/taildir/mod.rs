//! The taildir source: each line that is appended to a file of some directories becomes one event.
//!
//! A change is told by the system and delivered at once; a scan behind it finds what the system does not tell: every
//! minute on a machine's own file systems, elsewhere and for symbolic links as often as `backoffSleepIncrement` and
//! `maxBackoffSleep` say. Reads are large, a batch's events are ranges of what was read, and a file's position moves
//! when its batch is in the channels. A line ends at a line feed; one carriage return before it is dropped. A last line
//! without an end waits for it until the file has been idle for `idleTimeout`.
//!
//! Where Flume reads a file again from its front that was renamed to a name that also matches, here it goes on. The
//! position file is Flume's; see [`positions`] for what stands beside it. The copy that `copytruncate` makes is a new
//! file: let the pattern not match it.
//!
//! Keys: `filegroups`, `filegroups.<group>`, `headers.<group>.<header>`, `positionFile`
//! (~/.flume/taildir_position.json), `byteOffsetHeader` (false), `skipToEnd` (false), `idleTimeout` (120000 ms),
//! `writePosInterval` (3000 ms), `batchSize` (100), `maxBatchCount`, `backoffSleepIncrement` (1000 ms),
//! `maxBackoffSleep` (5000 ms), `cachePatternMatching` (true), `fileHeader` (false), `fileHeaderKey` (file); not
//! Flume's: `multiline.start` (a line that holds a match of this regular expression begins an event, the others belong
//! to the one before), `multiline.timeout` (1000 ms without a further line end an event), `max-line-bytes` (16777216;
//! a longer event is cut into several).

mod files;
mod groups;
mod positions;
mod records;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::files::{Files, Portion};
use self::groups::GroupConfig;
use super::watch::{Changes, Told, Watch};
use super::{ChannelProcessor, Pipeline, Source, SourceBuilder, SourceConfig, SourceError};
use crate::blocking::blocking;
use crate::config::{ComponentType, Props};
use crate::event::Headers;
use crate::fs::{Disk, FileSystem as _};
use crate::java_regex::JavaRegex;

/// How the type is registered.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["taildir"],
    class: "org.apache.flume.source.taildir.TaildirSource",
    build: |props| Some(Box::new(Arc::new(TaildirConfig::from_props(props)?))),
};

const POSITION_FILE: &str = ".flume/taildir_position.json";
const IDLE_TIMEOUT_MS: i32 = 120_000;
const WRITE_POS_INTERVAL_MS: i32 = 3000;
const BATCH_SIZE: i32 = 100;
const BACKOFF_SLEEP_INCREMENT_MS: i64 = 1000;
const MAX_BACKOFF_SLEEP_MS: i64 = 5000;
const MULTILINE_TIMEOUT_MS: i32 = 1000;
const MAX_LINE_BYTES: i32 = 16 << 20;
/// A shorter `idleTimeout` would tear lines apart that are just being written.
const LEAST_IDLE: Duration = Duration::from_millis(100);
/// How often all files are looked at where the system tells of every change.
const SCAN: Duration = Duration::from_secs(60);
/// How often at most where it does not.
const LEAST_SCAN: Duration = Duration::from_millis(10);

/// The taildir source's keys.
#[derive(Debug)]
pub struct TaildirConfig {
    groups: Vec<GroupConfig>,
    position_file: PathBuf,
    byte_offset_header: bool,
    skip_to_end: bool,
    idle_timeout: Duration,
    write_pos_interval: Duration,
    batch_size: usize,
    max_batch_count: u64,
    backoff_sleep_increment: Duration,
    max_backoff_sleep: Duration,
    cache_pattern_matching: bool,
    /// The header that holds a file's path.
    file_header: Option<String>,
    multiline: Option<JavaRegex>,
    multiline_timeout: Duration,
    max_line_bytes: usize,
}

impl TaildirConfig {
    /// Reads the keys.
    pub fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let groups = groups(props);
        let batch_size = props.or("batchSize", BATCH_SIZE);
        if batch_size < 1 {
            props.error("batchSize", "a number of events, at least 1", "");
        }
        let max_batch_count = props.or("maxBatchCount", i64::MAX);
        if max_batch_count < 1 {
            props.warning("maxBatchCount", "expected a number of batches, at least 1; there is no limit");
        }
        let milliseconds = |key: &str, default: i64| {
            let value = props.or(key, default);
            if value < 0 {
                props.error(key, "a number of milliseconds, at least 0", "");
            }
            Duration::from_millis(value.clamp(0, i64::from(i32::MAX)) as u64)
        };
        let idle_timeout = milliseconds("idleTimeout", IDLE_TIMEOUT_MS.into());
        let write_pos_interval = milliseconds("writePosInterval", WRITE_POS_INTERVAL_MS.into());
        let backoff_sleep_increment = milliseconds("backoffSleepIncrement", BACKOFF_SLEEP_INCREMENT_MS);
        let max_backoff_sleep = milliseconds("maxBackoffSleep", MAX_BACKOFF_SLEEP_MS);
        let multiline_timeout = milliseconds("multiline.timeout", MULTILINE_TIMEOUT_MS.into());
        let multiline = props.text("multiline.start").and_then(|text| match JavaRegex::new(text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                props.error("multiline.start", &format!("a regular expression: {error}"), "");
                None
            }
        });
        let max_line_bytes = props.or("max-line-bytes", MAX_LINE_BYTES);
        if max_line_bytes < 1 {
            props.error("max-line-bytes", "a number of bytes, at least 1", "");
        }
        let file_header = props.or("fileHeader", false);
        let file_header_key = props.or("fileHeaderKey", "file".to_owned());
        let home = props.globals().property_or_variable("user.home", "HOME").map(PathBuf::from);
        let position_file: Option<PathBuf> =
            props.optional("positionFile").or_else(|| home.map(|home| home.join(POSITION_FILE)));
        if position_file.is_none() {
            props.error("positionFile", "a path, as there is no home directory", "");
        }
        let config = Self {
            groups,
            position_file: position_file.unwrap_or_default(),
            byte_offset_header: props.or("byteOffsetHeader", false),
            skip_to_end: props.or("skipToEnd", false),
            idle_timeout: idle_timeout.max(LEAST_IDLE),
            write_pos_interval,
            batch_size: batch_size.max(1) as usize,
            max_batch_count: u64::try_from(max_batch_count).ok().filter(|count| *count > 0).unwrap_or(u64::MAX),
            backoff_sleep_increment,
            max_backoff_sleep,
            cache_pattern_matching: props.or("cachePatternMatching", true),
            file_header: file_header.then_some(file_header_key),
            multiline,
            multiline_timeout,
            max_line_bytes: max_line_bytes.max(1) as usize,
        };
        props.finish(config)
    }
}

/// The groups, in the order in which they are listed. One that is listed and not mapped is left out, as in Flume.
fn groups(props: &Props<'_>) -> Vec<GroupConfig> {
    let listed: String = props.required("filegroups", "names of file groups", "Missing param: filegroups");
    let headers = props.family("headers");
    for (key, _) in &headers {
        if !key.contains('.') {
            props.error(&format!("headers.{key}"), "a key headers.<group>.<header>", "");
        }
    }
    let mut groups = Vec::new();
    for name in listed.split_whitespace() {
        let key = format!("filegroups.{name}");
        let Some(path) = props.text(&key) else {
            props.warning("filegroups", &format!("the group {name} has no {key} and is left out"));
            continue;
        };
        let (directory, pattern) = match path.rsplit_once('/') {
            Some((directory, pattern)) if !pattern.is_empty() => {
                (if directory.is_empty() { "/" } else { directory }, pattern)
            }
            _ => {
                props.error(&key, "a directory, a / and a regular expression for the names of files", "");
                continue;
            }
        };
        match JavaRegex::new(pattern) {
            Ok(names) => groups.push(GroupConfig {
                directory: directory.into(),
                names: Arc::new(names),
                headers: headers
                    .iter()
                    .filter_map(|(key, property)| {
                        Some((key.strip_prefix(name)?.strip_prefix('.')?, property.value.as_str()))
                    })
                    .collect::<Headers>(),
            }),
            Err(error) => props.error(&key, &format!("a regular expression after the last /: {error}"), ""),
        }
    }
    if groups.is_empty() && !listed.is_empty() {
        let flume = "Mapping for tailing files is empty or invalid: 'filegroups.'";
        props.error("filegroups", "names of groups, each with a filegroups.<name>", flume);
    }
    groups
}

impl SourceConfig for Arc<TaildirConfig> {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn build(&self, name: &str) -> Box<dyn Source> {
        Box::new(TaildirSource { name: name.to_owned(), config: Self::clone(self), started: None })
    }
}

struct TaildirSource {
    name: String,
    config: Arc<TaildirConfig>,
    started: Option<(Arc<Mutex<Tail>>, Told)>,
}

/// What is looked at and read on a thread that may block.
struct Tail {
    files: Files,
    watch: Watch,
    /// When to scan next.
    scan_at: Instant,
    /// How many scans in a row found nothing.
    empty_scans: u32,
}

/// What a look at the files came to.
struct Step {
    portion: Option<Portion>,
    /// When to look again though nothing has changed.
    next: Instant,
    unsaved: bool,
}

fn lock(tail: &Mutex<Tail>) -> MutexGuard<'_, Tail> {
    tail.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tail {
    fn start(config: &Arc<TaildirConfig>) -> io::Result<(Self, Told)> {
        if let Some(parent) = config.position_file.parent() {
            Disk.create_directory(parent)?;
        }
        let mut files = Files::new(Arc::clone(config))?;
        // Before the first look, so that nothing falls between the two.
        let (mut watch, told) = Watch::new(config.groups.iter().map(|group| group.directory.clone()));
        let now = Instant::now();
        files.begin(&positions::load(&Disk, &config.position_file), now);
        let scan_at = now + scan_interval(config, &mut watch, &files, 0);
        Ok((Self { files, watch, scan_at, empty_scans: 0 }, told))
    }

    fn step(&mut self, config: &TaildirConfig, changes: Changes) -> Step {
        let now = Instant::now();
        if changes == Changes::Unknown || self.scan_at <= now {
            self.files.scan(now);
            self.scan_at = now + scan_interval(config, &mut self.watch, &self.files, self.empty_scans);
            self.empty_scans = self.empty_scans.saturating_add(1);
        } else if let Changes::Paths(paths) = changes {
            self.files.look(paths.into_keys(), now);
        }
        self.files.tick(now);
        let portion = self.files.next(now);
        if portion.is_some() {
            self.empty_scans = 0;
        }
        let next = self.files.deadline().map_or(self.scan_at, |deadline| deadline.min(self.scan_at));
        Step { portion, next, unsaved: self.files.unsaved() }
    }
}

fn scan_interval(config: &TaildirConfig, watch: &mut Watch, files: &Files, empty_scans: u32) -> Duration {
    let backoff = config.backoff_sleep_increment.saturating_mul(empty_scans.saturating_add(1));
    let backoff = backoff.min(config.max_backoff_sleep).max(LEAST_SCAN);
    if watch.renew() && !files.has_links() { backoff.max(SCAN) } else { backoff }
}

#[async_trait]
impl Source for TaildirSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        let groups = self.config.groups.iter();
        let paths: Vec<String> = groups.map(|group| format!("{}/{}", group.directory.display(), group.names)).collect();
        info!("{} TaildirSource source starting with directory: {}", self.name, paths.join(", "));
        let config = Arc::clone(&self.config);
        let started = blocking(move || Tail::start(&config)).await;
        let (tail, told) = started.map_err(|error| SourceError::io("could not follow the files", error))?;
        self.started = Some((Arc::new(Mutex::new(tail)), told));
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let Some((tail, told)) = self.started.take() else { return Ok(()) };
        let mut save_at = None;
        while !stop.is_cancelled() {
            let (changes, config, files) = (told.take(), Arc::clone(&self.config), Arc::clone(&tail));
            let Step { portion, next, unsaved } = blocking(move || lock(&files).step(&config, changes)).await;
            let idle = portion.is_none();
            if let Some(portion) = portion {
                deliver(portion, &tail, out, stop).await;
            }
            if unsaved || !idle {
                let at = *save_at.get_or_insert(Instant::now() + self.config.write_pos_interval);
                if at <= Instant::now() {
                    self.save(&tail, out).await;
                    save_at = None;
                }
            }
            if idle {
                let next = save_at.map_or(next, |at| next.min(at));
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = told.changed() => {}
                    () = sleep_until(next.into()) => {}
                }
            }
        }
        self.save(&tail, out).await;
        info!("Taildir source {} stopped", self.name);
        Ok(())
    }
}

/// Delivers what was read, as far as the stop lets it.
async fn deliver(mut portion: Portion, tail: &Mutex<Tail>, out: &ChannelProcessor, stop: &CancellationToken) {
    let mut pipeline = Pipeline::new(out, stop);
    let mut ends = Vec::with_capacity(portion.batches.len());
    for (batch, end) in std::mem::take(&mut portion.batches) {
        if stop.is_cancelled() {
            break;
        }
        out.counters().append_batch_received.add(1);
        pipeline.deliver(batch).await;
        ends.push(end);
    }
    pipeline.finish().await;
    let settled = &ends[..pipeline.settled()];
    out.counters().append_batch_accepted.add(settled.len() as u64);
    if let Some(end) = settled.last() {
        lock(tail).files.commit(&portion, *end, settled.len() as u64, Instant::now());
    }
}

impl TaildirSource {
    async fn save(&self, tail: &Arc<Mutex<Tail>>, out: &ChannelProcessor) {
        let (tail, path) = (Arc::clone(tail), self.config.position_file.clone());
        let saved = blocking(move || {
            let positions = lock(&tail).files.positions();
            positions::save(&Disk, &path, &positions).inspect_err(|_| lock(&tail).files.not_saved())
        });
        if let Err(error) = saved.await {
            out.counters().generic_processing_fail.add(1);
            error!("Failed writing positionFile {}: {error}", self.config.position_file.display());
        }
    }
}
