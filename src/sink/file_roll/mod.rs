//! The file_roll sink: writes events into local files and begins a new one by the clock.
//!
//! A batch is written to the file before it is committed (to the system, not synced to the disk, as in Flume). A
//! file is begun at the start and, on time, when the last one is done, so quiet times leave empty files. A batch
//! that fails half-way begins again in a new file, so that a file never holds half an event in its middle.
//!
//! Keys: `sink.directory`, `sink.rollInterval` (30 s; 0 or less: never), `sink.batchSize` (100), `sink.serializer`
//! (TEXT) with `sink.serializer.*`, `sink.pathManager` (DEFAULT or ROLLTIME) with `.prefix` and `.extension`.

mod path_manager;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::info;

use self::path_manager::PathManager;
use super::{BuiltSink, Sink, SinkBuilder, SinkConfig, SinkError};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::metrics::SinkCounters;
use crate::serializer::{self, EventSerializer, SerializerConfig};

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["file_roll"],
    class: "org.apache.flume.sink.RollingFileSink",
    build: |props| Some(Box::new(Arc::new(FileRollConfig::from_props(props)?))),
};

const ROLL_INTERVAL_SECONDS: i64 = 30;
const BATCH_SIZE: i32 = 100;
/// Thirty years: longer than any clock needs to look ahead.
const MAX_INTERVAL_SECONDS: u64 = 30 * 365 * 24 * 3600;

struct FileRollConfig {
    directory: PathBuf,
    /// None: never.
    roll_interval: Option<Duration>,
    batch_size: usize,
    serializer: Box<dyn SerializerConfig>,
    paths: path_manager::Config,
}

impl FileRollConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let directory: PathBuf =
            props.required("sink.directory", "a directory to write files in", "Directory may not be null");
        if !directory.as_os_str().is_empty() && !directory.is_dir() {
            props.warning("sink.directory", "the directory does not exist; the sink waits until it does");
        }
        let interval = props.or("sink.rollInterval", ROLL_INTERVAL_SECONDS);
        let batch_size = props.or("sink.batchSize", BATCH_SIZE);
        if batch_size < 1 {
            props.error("sink.batchSize", "a number of events, at least 1", "");
        }
        let serializer = serializer::from_props(props, "sink.serializer");
        let paths = path_manager::Config::from_props(props);
        props.finish(Self {
            directory,
            roll_interval: u64::try_from(interval)
                .ok()
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds.min(MAX_INTERVAL_SECONDS))),
            batch_size: batch_size.max(1) as usize,
            serializer: serializer?,
            paths: paths?,
        })
    }
}

impl SinkConfig for Arc<FileRollConfig> {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn blocks(&self) -> bool {
        true
    }

    fn build(&self, name: &str, counters: Arc<SinkCounters>) -> BuiltSink {
        BuiltSink::Push(Box::new(FileRollSink {
            name: name.to_owned(),
            config: Self::clone(self),
            paths: PathManager::new(&self.directory, &self.paths),
            counters,
            open: None,
            next_roll: None,
        }))
    }
}

/// A file that is being written, with what turns events into its bytes.
struct Open {
    file: File,
    path: PathBuf,
    /// Bytes before the first event.
    front: u64,
    /// Bytes up to the last whole batch.
    length: u64,
    serializer: Box<dyn EventSerializer>,
    /// Bytes on their way to the file; kept for its room.
    buffer: Vec<u8>,
}

struct FileRollSink {
    name: String,
    config: Arc<FileRollConfig>,
    paths: PathManager,
    counters: Arc<SinkCounters>,
    open: Option<Open>,
    next_roll: Option<Instant>,
}

impl Open {
    fn create(path: &Path, mut serializer: Box<dyn EventSerializer>) -> io::Result<Self> {
        let mut file = File::create_new(path)?;
        let mut buffer = Vec::new();
        let begun = serializer.begin(&mut buffer).and_then(|()| file.write_all(&buffer));
        if let Err(error) = begun {
            std::fs::remove_file(path).ok();
            return Err(error);
        }
        let front = buffer.len() as u64;
        Ok(Self { file, path: path.to_owned(), front, length: front, serializer, buffer })
    }

    /// Writes a batch. After an error, what is there of it is gone, if the file allows that: the batch comes again.
    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        self.buffer.clear();
        self.serializer.write(batch, &mut self.buffer)?;
        match self.file.write_all(&self.buffer) {
            Ok(()) => {
                self.length += self.buffer.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.length).ok();
                // A disk that is full for a day must not be found full of empty files.
                if self.length == self.front {
                    std::fs::remove_file(&self.path).ok();
                }
                Err(error)
            }
        }
    }
}

impl FileRollSink {
    fn open(&mut self) -> Result<Open, SinkError> {
        loop {
            let path = self.paths.next_path();
            match Open::create(&path, self.config.serializer.build()) {
                Ok(open) => {
                    self.counters.connection_created.add(1);
                    return Ok(open);
                }
                // Another sink, or an earlier run, has the name: files are never overwritten.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    self.counters.connection_failed.add(1);
                    let what = format!("Failed to open file {} while delivering event", path.display());
                    return Err(SinkError::io(what, error));
                }
            }
        }
    }

    fn close(&mut self) {
        if self.open.take().is_some() {
            self.counters.connection_closed.add(1);
        }
    }
}

#[async_trait]
impl Sink for FileRollSink {
    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    async fn start(&mut self) -> Result<(), SinkError> {
        info!("Starting RollingFileSink {{ name: {}, directory: {} }}...", self.name, self.config.directory.display());
        match self.config.roll_interval {
            Some(interval) => self.next_roll = Some(Instant::now() + interval),
            None => info!("RollInterval is not valid, file rolling will not happen."),
        }
        let open = self.open()?;
        self.open = Some(open);
        info!("RollingFileSink {} started.", self.name);
        Ok(())
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        match open.write(batch) {
            Ok(()) => {
                self.open = Some(open);
                Ok(())
            }
            Err(error) => {
                self.counters.connection_closed.add(1);
                let what = format!("Failed to process transaction: could not write {}", open.path.display());
                Err(SinkError::io(what, error))
            }
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        self.next_roll
    }

    async fn tick(&mut self) -> Result<(), SinkError> {
        if let Some(interval) = self.config.roll_interval {
            self.next_roll = Some(Instant::now() + interval);
        }
        self.close();
        let open = self.open()?;
        self.open = Some(open);
        Ok(())
    }

    async fn stop(&mut self) {
        info!("RollingFile sink {} stopping...", self.name);
        self.close();
        info!("RollingFile sink {} stopped.", self.name);
    }
}
