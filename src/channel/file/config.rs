//! The file channel's keys.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::{Channel, ChannelConfig};
use crate::config::Props;
use crate::fs::Disk;
use crate::metrics::Metrics;

use super::encryption::Keys;
use super::{FileChannel, Tuning};

const CAPACITY: i32 = 1_000_000;
const TRANSACTION_CAPACITY: i32 = 10_000;
const KEEP_ALIVE_SECONDS: i32 = 3;
const CHECKPOINT_INTERVAL_MS: i64 = 30_000;
const MAX_FILE_SIZE: i64 = 1_623_195_647;
const MINIMUM_REQUIRED_SPACE: i64 = 500 << 20;
/// Flume keeps at least so much free, whatever is configured.
const LEAST_REQUIRED_SPACE: i64 = 1 << 20;
const FSYNC_INTERVAL_SECONDS: i32 = 5;
const MEMORY_BYTES: i32 = 16 << 20;

/// Where a channel lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// Of the checkpoint.
    pub checkpoint: PathBuf,
    /// Of its copy.
    pub backup: Option<PathBuf>,
    /// Of the segments.
    pub data: Vec<PathBuf>,
}

/// A file channel's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    /// Where it lives.
    pub directories: Directories,
    /// Events in the channel, those taken but not committed included.
    pub capacity: usize,
    /// Events in one transaction.
    pub transaction_capacity: usize,
    /// How long a put waits for room.
    pub keep_alive: Duration,
    /// How often a checkpoint is written, if anything has changed.
    pub checkpoint_interval: Duration,
    /// How large a segment may become, in bytes.
    pub max_file_size: u64,
    /// Bytes of the disk that puts leave free.
    pub minimum_required_space: u64,
    /// How often puts are made durable; `None` for each before it is acknowledged.
    pub fsync_interval: Option<Duration>,
    /// Whether the last thing that it does is a checkpoint.
    pub checkpoint_on_close: bool,
    /// How many bytes of events are kept in memory.
    pub memory_bytes: usize,
    /// What it encrypts and decrypts with.
    pub keys: Keys,
}

impl FileConfig {
    /// Flume's defaults.
    pub fn new(directories: Directories) -> Self {
        Self {
            directories,
            capacity: CAPACITY as usize,
            transaction_capacity: TRANSACTION_CAPACITY as usize,
            keep_alive: Duration::from_secs(KEEP_ALIVE_SECONDS as u64),
            checkpoint_interval: Duration::from_millis(CHECKPOINT_INTERVAL_MS as u64),
            max_file_size: MAX_FILE_SIZE as u64,
            minimum_required_space: MINIMUM_REQUIRED_SPACE as u64,
            fsync_interval: None,
            checkpoint_on_close: true,
            memory_bytes: MEMORY_BYTES as usize,
            keys: Keys::default(),
        }
    }

    /// Reads the keys.
    pub fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let capacity = events(props, "capacity", CAPACITY, "capacity");
        let keep_alive = props.or("keep-alive", KEEP_ALIVE_SECONDS);
        Self::of_size(props, capacity, Duration::from_secs(keep_alive.max(0) as u64))
    }

    /// Reads all keys but those of the capacity and the keep-alive, which are given.
    pub fn of_size(props: &mut Props<'_>, capacity: usize, keep_alive: Duration) -> Option<Self> {
        let directories = directories(props);
        let transaction_capacity = events(props, "transactionCapacity", TRANSACTION_CAPACITY, "transaction capacity");
        if transaction_capacity > capacity {
            let default = if props.text("transactionCapacity").is_none() { "; the default is 10000" } else { "" };
            let expected = format!("at most the channel's capacity, which is {capacity}{default}");
            let flume = "File Channel transaction capacity cannot be greater than the capacity of the channel.";
            props.error("transactionCapacity", &expected, flume);
        }
        let interval = props.or("checkpointInterval", CHECKPOINT_INTERVAL_MS);
        let flume = format!("Checkpoint interval is invalid: {interval}, using default: {CHECKPOINT_INTERVAL_MS}");
        let positive = |ms: &i64| *ms > 0;
        let expected = "a whole number of milliseconds, at least 1";
        let interval = props.lenient("checkpointInterval", CHECKPOINT_INTERVAL_MS, positive, expected, &flume);
        let max_file_size = props.or("maxFileSize", MAX_FILE_SIZE).clamp(1, MAX_FILE_SIZE);
        let space = props.or("minimumRequiredSpace", MINIMUM_REQUIRED_SPACE).max(LEAST_REQUIRED_SPACE);
        let per_transaction = props.or("fsyncPerTransaction", true);
        let fsync_seconds = props.or("fsyncInterval", FSYNC_INTERVAL_SECONDS);
        if fsync_seconds < 1 {
            props.error("fsyncInterval", "a whole number of seconds, at least 1", "");
        }
        let checkpoint_on_close = props.or("checkpointOnClose", true);
        let memory_bytes = props.or("memoryBytes", MEMORY_BYTES);
        if memory_bytes < 0 {
            props.error("memoryBytes", "a whole number of bytes, at least 0", "");
        }
        for ways_of_flume in ["use-log-replay-v1", "use-fast-replay", "compressBackupCheckpoint"] {
            props.or(ways_of_flume, false);
        }
        let keys = Keys::from_props(props);
        props.finish(Self {
            directories,
            capacity,
            transaction_capacity,
            keep_alive,
            checkpoint_interval: Duration::from_millis(interval as u64),
            max_file_size: max_file_size as u64,
            minimum_required_space: space as u64,
            fsync_interval: (!per_transaction).then(|| Duration::from_secs(fsync_seconds.max(1) as u64)),
            checkpoint_on_close,
            memory_bytes: memory_bytes.max(0) as usize,
            keys,
        })
    }
}

fn events(props: &Props<'_>, key: &str, default: i32, what: &str) -> usize {
    let count = props.or(key, default);
    if count > 0 {
        return count as usize;
    }
    // Flume prints what was configured in place of the default.
    let flume = format!("Invalid {what} specified, initializing channel to default capacity of {count}");
    props.lenient(key, default, |count| *count > 0, "a whole number of events, at least 1", &flume) as usize
}

fn directories(props: &Props<'_>) -> Directories {
    let home = props.globals().property_or_variable("user.home", "HOME").unwrap_or_default();
    let below_home = |name: &str| format!("{home}/.flume/file-channel/{name}");
    let path = |key: &str| props.text(key).map(str::trim).filter(|text| !text.is_empty());
    let checkpoint: PathBuf = path("checkpointDir").map_or_else(|| below_home("checkpoint"), str::to_owned).into();
    let backup: Option<PathBuf> = path("backupCheckpointDir").map(PathBuf::from);
    let dual = props.or("useDualCheckpoints", false);
    if dual && backup.is_none() {
        let flume = "Dual checkpointing is enabled, but the backup directory is not set. Please set backupCheckpointDir to enable dual checkpointing";
        props.error("backupCheckpointDir", "a directory for the copy of the checkpoint", flume);
    }
    if backup.as_ref() == Some(&checkpoint) {
        let flume = format!(
            "Could not configure {}. The checkpoint backup directory and the checkpoint directory are configured to be the same.",
            props.name()
        );
        props.error("backupCheckpointDir", "another directory than checkpointDir", &flume);
    }
    let list = path("dataDirs").map_or_else(|| below_home("data"), str::to_owned);
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut data: Vec<PathBuf> = Vec::new();
    for name in names.map(PathBuf::from) {
        if data.contains(&name) {
            props.error("dataDirs", "every directory once", "");
        } else {
            data.push(name);
        }
    }
    if data.is_empty() {
        props.error("dataDirs", "one directory or several, with commas between them", "");
    }
    Directories { checkpoint, backup: backup.filter(|_| dual), data }
}

impl ChannelConfig for FileConfig {
    fn transaction_capacity(&self) -> Option<usize> {
        Some(self.transaction_capacity)
    }

    fn directories(&self) -> Option<&Directories> {
        Some(&self.directories)
    }

    fn build(self: Box<Self>, name: &str, metrics: &Metrics) -> Arc<dyn Channel> {
        Arc::new(FileChannel::new(name, *self, Tuning::default(), Arc::new(Disk), metrics))
    }

    fn apply(&self, running: &dyn Channel) -> bool {
        running.as_any().downcast_ref::<FileChannel>().is_some_and(|channel| channel.reconfigure(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Finding, Globals};

    fn read(text: &str) -> (Option<FileConfig>, Vec<Finding>) {
        let properties = crate::config::parse("a.conf", text.as_bytes(), &mut Vec::new());
        let entries = properties.into_iter().map(|property| (property.key.clone(), property)).collect();
        let globals =
            Globals { system: [("user.home".to_owned(), "/home/flume".to_owned())].into(), ..Globals::default() };
        let mut props = Props::new("a1.channels.c1", &entries, None, &globals);
        let config = FileConfig::from_props(&mut props);
        (config, props.into_findings())
    }

    fn flume_says(text: &str) -> String {
        let (config, findings) = read(text);
        assert_eq!(config, None);
        findings.into_iter().find_map(|finding| finding.flume).expect("a message of Flume")
    }

    #[test]
    fn without_keys_it_is_as_flume() {
        let (config, findings) = read("");
        assert_eq!(findings, []);
        let directories = Directories {
            checkpoint: "/home/flume/.flume/file-channel/checkpoint".into(),
            backup: None,
            data: vec!["/home/flume/.flume/file-channel/data".into()],
        };
        assert_eq!(config, Some(FileConfig::new(directories)));
    }

    #[test]
    fn all_keys_are_read() {
        let (config, findings) = read(
            "checkpointDir = /c\nuseDualCheckpoints = true\nbackupCheckpointDir = /b\ndataDirs = /d1, ,/d2\n\
             capacity = 20\ntransactionCapacity = 10\nkeep-alive = 1\ncheckpointInterval = 5\nmaxFileSize = 9999999999\n\
             minimumRequiredSpace = 1\nfsyncPerTransaction = false\nfsyncInterval = 7\ncheckpointOnClose = false\n\
             use-fast-replay = true\nuse-log-replay-v1 = true\ncompressBackupCheckpoint = true\nmemoryBytes = 0\n",
        );
        assert_eq!(findings, []);
        let directories =
            Directories { checkpoint: "/c".into(), backup: Some("/b".into()), data: vec!["/d1".into(), "/d2".into()] };
        let expected = FileConfig {
            directories,
            capacity: 20,
            transaction_capacity: 10,
            keep_alive: Duration::from_secs(1),
            checkpoint_interval: Duration::from_millis(5),
            max_file_size: 1_623_195_647,
            minimum_required_space: 1 << 20,
            fsync_interval: Some(Duration::from_secs(7)),
            checkpoint_on_close: false,
            memory_bytes: 0,
            keys: Keys::default(),
        };
        assert_eq!(config, Some(expected));
    }

    #[test]
    fn what_flume_refuses_is_refused_with_its_words() {
        assert_eq!(
            flume_says("useDualCheckpoints = true"),
            "Dual checkpointing is enabled, but the backup directory is not set. Please set backupCheckpointDir to enable dual checkpointing"
        );
        assert_eq!(
            flume_says("checkpointDir = /c\nuseDualCheckpoints = true\nbackupCheckpointDir = /c"),
            "Could not configure c1. The checkpoint backup directory and the checkpoint directory are configured to be the same."
        );
        assert_eq!(
            flume_says("capacity = 5\ntransactionCapacity = 6"),
            "File Channel transaction capacity cannot be greater than the capacity of the channel."
        );
        assert_eq!(read("capacity = many").0, None);
        let (config, findings) = read("capacity = 0");
        assert_eq!(config.map(|config| config.capacity), Some(1_000_000));
        assert_eq!(findings.len(), 1);
    }
}
