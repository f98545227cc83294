//! The spooldir source: files that somebody puts into a directory are read from front to end, once.
//!
//! A new file is told by the system and taken at once when it was moved there; one that is written in place is taken when
//! nothing has changed it for `pollDelay`. A scan behind that finds what the system does not tell: every minute on a
//! machine's own file systems, elsewhere and for symbolic links every `pollDelay`. Reads are large, a batch's events are
//! ranges of what was read, and the offset behind a batch is [noted](tracker) as soon as it is in the channels. A file gets
//! its new name, or is deleted, when all of it is.
//!
//! A file that is changed while it is read, a name that was used before, and bytes that are no text stop the source until
//! it is started anew, as in Flume; nothing is skipped. A full channel is waited for, so that `maxBackoff` has nothing to
//! do.
//!
//! Keys: `spoolDir`, `fileSuffix` (.COMPLETED), `deletePolicy` (never, immediate), `fileHeader` (false), `fileHeaderKey`
//! (file), `basenameHeader` (false), `basenameHeaderKey` (basename), `includePattern` (`^.*$`), `ignorePattern` (`^$`),
//! `trackerDir` (.flumespool), `trackingPolicy` (rename, tracker_dir), `consumeOrder` (oldest, youngest, random),
//! `recursiveDirectorySearch` (false), `pollDelay` (500 ms), `maxBackoff` (4000 ms), `batchSize` (100), `inputCharset`
//! (UTF-8), `decodeErrorPolicy` (FAIL, REPLACE, IGNORE), `deserializer` (LINE) and [its keys](deserializer).

mod container;
mod deserializer;
mod directory;
mod spool;
mod tracker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::deserializer::{DeserializerConfig, Portion};
use self::spool::{Spool, SpoolError};
use super::watch::{Told, Watch};
use super::{ChannelProcessor, Source, SourceBuilder, SourceConfig, SourceError};
use crate::blocking::blocking;
use crate::charset::{Charset, OnMalformed};
use crate::config::{ComponentType, Props};
use crate::java_regex::JavaRegex;

/// How the type is registered.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["spooldir"],
    class: "org.apache.flume.source.SpoolDirectorySource",
    build: |props| Some(Box::new(Arc::new(SpooldirConfig::from_props(props)?))),
};

const FILE_SUFFIX: &str = ".COMPLETED";
const TRACKER_DIR: &str = ".flumespool";
const INCLUDE: &str = "^.*$";
const IGNORE: &str = "^$";
const POLL_DELAY_MS: i32 = 500;
const MAX_BACKOFF_MS: i32 = 4000;
const BATCH_SIZE: i32 = 100;
/// How often everything is looked at where the system tells of every change.
const SCAN: Duration = Duration::from_secs(60);
/// How often at most where it does not.
const LEAST_SCAN: Duration = Duration::from_millis(10);
/// How long to wait before an offset that could not be noted is noted again.
const NOTE_AGAIN: Duration = Duration::from_secs(1);

/// Which of several files is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumeOrder {
    /// The one that was changed first.
    Oldest,
    /// The one that was changed last.
    Youngest,
    /// Any.
    Random,
}

/// The spooldir source's keys.
pub struct SpooldirConfig {
    /// The absolute path of the spooling directory.
    spool_dir: PathBuf,
    /// As it was configured, without needless slashes.
    spool_text: String,
    file_suffix: String,
    /// Whether files that are done are deleted.
    deletes: bool,
    /// Whether files that are done keep their names and get a tracker file.
    tracks_in_directory: bool,
    tracker_dir: PathBuf,
    /// The header that holds a file's path.
    file_header: Option<String>,
    /// The header that holds its name.
    basename_header: Option<String>,
    include: JavaRegex,
    ignore: JavaRegex,
    consume_order: ConsumeOrder,
    recursive: bool,
    poll_delay: Duration,
    batch_size: usize,
    charset: Charset,
    on_malformed: OnMalformed,
    deserializer: Box<dyn DeserializerConfig>,
}

impl SpooldirConfig {
    /// Reads the keys.
    pub fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let spool_text: String =
            props.required("spoolDir", "a directory", "Configuration must specify a spooling directory");
        let spool_text = without_needless_slashes(&spool_text);
        let spool_dir = std::path::absolute(&spool_text).unwrap_or_default();
        let file_suffix = props.or("fileSuffix", FILE_SUFFIX.to_owned());
        if file_suffix.is_empty() {
            props.error("fileSuffix", "what to append to the name of a file that is done", "");
        }
        let deletes = choice(
            props,
            "deletePolicy",
            &[("never", false), ("immediate", true)],
            "Delete policies other than NEVER and IMMEDIATE are not yet supported",
        );
        let tracks_in_directory = choice(
            props,
            "trackingPolicy",
            &[("rename", false), ("tracker_dir", true)],
            "Tracking policies other than RENAME and TRACKER_DIR are not supported",
        );
        let orders =
            [("oldest", ConsumeOrder::Oldest), ("youngest", ConsumeOrder::Youngest), ("random", ConsumeOrder::Random)];
        let policies =
            [("FAIL", OnMalformed::Fail), ("REPLACE", OnMalformed::Replace), ("IGNORE", OnMalformed::Ignore)];
        let consume_order = choice(props, "consumeOrder", &orders, "");
        let on_malformed = choice(props, "decodeErrorPolicy", &policies, "");
        let include = pattern(props, "includePattern", INCLUDE);
        let ignore = pattern(props, "ignorePattern", IGNORE);
        let poll_delay = props.or("pollDelay", POLL_DELAY_MS);
        if poll_delay < 0 {
            props.error("pollDelay", "a number of milliseconds, at least 0", "");
        }
        props.or("maxBackoff", MAX_BACKOFF_MS);
        if props.optional::<i32>("bufferMaxLines").is_some() {
            props.warning("bufferMaxLines", "deprecated, and ignored");
        }
        let charset = Charset::for_name(&props.or("inputCharset", "UTF-8".to_owned()));
        if charset.is_none() {
            props.error("inputCharset", "a charset in which a line feed is one byte, such as UTF-8 or ISO-8859-1", "");
        }
        let file_header_key = props.or("fileHeaderKey", "file".to_owned());
        let basename_header_key = props.or("basenameHeaderKey", "basename".to_owned());
        let tracker_dir = spool_dir.join(props.or("trackerDir", TRACKER_DIR.to_owned()));
        let deserializer = deserializer::from_props(props);
        let config = Self {
            spool_dir,
            spool_text,
            file_suffix,
            deletes: deletes?,
            tracks_in_directory: tracks_in_directory?,
            tracker_dir,
            file_header: props.or("fileHeader", false).then_some(file_header_key),
            basename_header: props.or("basenameHeader", false).then_some(basename_header_key),
            include: include?,
            ignore: ignore?,
            consume_order: consume_order?,
            recursive: props.or("recursiveDirectorySearch", false),
            poll_delay: Duration::from_millis(poll_delay.max(0) as u64),
            batch_size: props.positive("batchSize", BATCH_SIZE, "events"),
            charset: charset?,
            on_malformed: on_malformed?,
            deserializer: deserializer?,
        };
        props.finish(config)
    }
}

/// The value of a key that has one of some names, in any case; the first one is the default.
fn choice<T: Copy>(props: &Props<'_>, key: &str, choices: &[(&str, T)], flume: &str) -> Option<T> {
    let text = props.text(key).unwrap_or(choices[0].0);
    let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    if found.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        match flume {
            "" => props.error_nearest(key, &names.join(" or "), &names),
            flume => props.error(key, &names.join(" or "), flume),
        }
    }
    found.map(|(_, value)| *value)
}

fn pattern(props: &Props<'_>, key: &str, default: &str) -> Option<JavaRegex> {
    match JavaRegex::new(props.text(key).unwrap_or(default)) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            props.error(key, &format!("a regular expression: {error}"), "");
            None
        }
    }
}

/// As Java writes paths.
fn without_needless_slashes(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    format!("{}{}", if path.starts_with('/') { "/" } else { "" }, parts.join("/"))
}

impl SourceConfig for Arc<SpooldirConfig> {
    fn batch_size(&self) -> Option<usize> {
        Some(self.batch_size)
    }

    fn build(&self, name: &str) -> Box<dyn Source> {
        Box::new(SpooldirSource { name: name.to_owned(), config: Self::clone(self), spool: None })
    }
}

struct SpooldirSource {
    name: String,
    config: Arc<SpooldirConfig>,
    spool: Option<Spool>,
}

#[async_trait]
impl Source for SpooldirSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        info!("SpoolDirectorySource source starting with directory: {}", self.config.spool_text);
        let config = Arc::clone(&self.config);
        let opened = blocking(move || Spool::open(config)).await;
        self.spool = Some(opened.map_err(|error| SourceError::io("could not use the spooling directory", error))?);
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let Some(spool) = self.spool.take() else { return Ok(()) };
        let (config, out, stop) = (Arc::clone(&self.config), out.clone(), stop.clone());
        // A thread of its own, as between two batches there is always something to read or to write.
        let stopped = blocking(move || {
            let (watch, told) = Watch::new([]);
            let mut worker = Worker { config, spool, watch, told, out, stop, runtime: Handle::current() };
            worker.work().inspect_err(|_| worker.out.counters().event_read_fail.add(1))
        });
        match stopped.await {
            Ok(()) => info!("SpoolDir source {} stopped", self.name),
            Err(error) => error!(
                "FATAL: Spool Directory source {}: {{ spoolDir: {} }}: Uncaught exception in SpoolDirectorySource thread. \
                 Restart or reconfigure Flume to continue processing. {error}",
                self.name, self.config.spool_text
            ),
        }
        Ok(())
    }
}

/// Reads and delivers on a thread that may block.
struct Worker {
    config: Arc<SpooldirConfig>,
    spool: Spool,
    watch: Watch,
    told: Told,
    out: ChannelProcessor,
    stop: CancellationToken,
    runtime: Handle,
}

impl Worker {
    /// Goes on until it is told to stop, or must not go on.
    fn work(&mut self) -> Result<(), SpoolError> {
        let mut scan_at = Instant::now();
        while !self.stop.is_cancelled() {
            let now = Instant::now();
            let looked = self.spool.look(self.told.take(), now);
            if !looked || scan_at <= now {
                self.spool.scan(&mut self.watch, now);
                scan_at = now + self.scan_interval();
            }
            let next = self.spool.next(now);
            self.out.counters().generic_processing_fail.add(self.spool.take_faults());
            match next? {
                Some(portions) => self.deliver(portions),
                None => self.wait(self.spool.deadline().map_or(scan_at, |deadline| deadline.min(scan_at))),
            }
        }
        Ok(())
    }

    fn scan_interval(&mut self) -> Duration {
        let told = self.watch.renew() && !self.spool.has_links();
        if told { SCAN } else { self.config.poll_delay.max(LEAST_SCAN) }
    }

    fn wait(&self, until: Instant) {
        self.runtime.block_on(async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.told.changed() => {}
                () = sleep_until(until.into()) => {}
            }
        });
    }

    /// Delivers batches as far as the stop lets it, and notes each.
    fn deliver(&mut self, portions: Vec<Portion>) {
        for (batch, offset) in portions {
            self.out.counters().append_batch_received.add(1);
            let delivered = self.runtime.block_on(self.out.deliver_patiently(batch, &self.stop));
            if !delivered && self.stop.is_cancelled() {
                return;
            }
            self.out.counters().append_batch_accepted.add(1);
            while let Err(error) = self.spool.note(offset) {
                self.out.counters().generic_processing_fail.add(1);
                if let Some(others) = self.out.may_complain() {
                    let (source, directory) = (self.out.source(), self.config.tracker_dir.display());
                    error!(
                        "Source {source}: the tracker in {directory} could not be written: {error}; trying again{others}"
                    );
                }
                let again = self.stop.run_until_cancelled(sleep(NOTE_AGAIN));
                if self.runtime.block_on(again).is_none() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::path::Path;
    use std::time::SystemTime;

    use tempfile::TempDir;

    use super::*;
    use crate::config::{self, Globals, Property};

    /// A spooling directory with files.
    pub struct Scene {
        pub config: Arc<SpooldirConfig>,
        home: TempDir,
    }

    impl Scene {
        /// Files in it are taken as soon as they are seen.
        pub fn new(keys: &[(&str, &str)]) -> Self {
            let home = tempfile::tempdir().expect("a temporary directory");
            let directory = home.path().join("spool");
            fs::create_dir(&directory).expect("a directory");
            let directory = directory.display().to_string();
            let mut all = vec![("spoolDir", directory.as_str()), ("pollDelay", "0")];
            all.extend_from_slice(keys);
            let config = configure(&all).unwrap_or_else(|findings| panic!("{findings:?}"));
            Self { config: Arc::new(config), home }
        }

        pub fn dir(&self) -> PathBuf {
            self.home.path().join("spool")
        }

        pub fn write(&self, name: &str, text: &str) {
            fs::write(self.dir().join(name), text).expect("it can be written");
        }

        pub fn append(&self, name: &str, text: &str) {
            let file = File::options().append(true).open(self.dir().join(name));
            file.expect("a file").write_all(text.as_bytes()).expect("it can be written");
        }

        /// Says that a file was changed so many seconds after 1970.
        pub fn date(&self, name: &str, seconds: u64) {
            let file = File::options().write(true).open(self.dir().join(name)).expect("a file");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).expect("it can be dated");
        }
    }

    fn configure(keys: &[(&str, &str)]) -> Result<SpooldirConfig, Vec<String>> {
        let text: String =
            keys.iter().map(|(key, value)| format!("{key} = {}\n", value.replace('\\', "\\\\"))).collect();
        let entries: BTreeMap<String, Property> = config::parse("test", text.as_bytes(), &mut Vec::new())
            .into_iter()
            .map(|property| (property.key.clone(), property))
            .collect();
        let globals = Globals::default();
        let mut props = Props::new("a1.sources.r1", &entries, None, &globals);
        let config = SpooldirConfig::from_props(&mut props);
        let findings: Vec<String> = props.into_findings().iter().map(ToString::to_string).collect();
        config.ok_or(findings)
    }

    #[test]
    fn paths_are_those_of_java() {
        assert_eq!(without_needless_slashes("/a//b/./c/"), "/a/b/./c");
        assert_eq!(without_needless_slashes("a/b"), "a/b");
        let scene = Scene::new(&[]);
        let target = scene.config.target(&scene.dir().join("x"));
        assert_eq!(target, scene.dir().join("x").display().to_string());
        scene.write("x", "1");
        assert_eq!(scene.config.targeted(&target), Some(scene.dir().join("x")));
        assert_eq!(scene.config.targeted("/elsewhere/x"), None);
        let config = configure(&[("spoolDir", "in//to")]).expect("it is right");
        assert!(config.spool_dir.is_absolute() && config.spool_dir.ends_with(Path::new("in/to")));
        assert_eq!(config.target(&config.spool_dir.join("sub/x")), "in/to/sub/x");
        assert_eq!(config.finished_path(&config.spool_dir.join("x")), config.spool_dir.join("x.COMPLETED"));
        assert_eq!(config.tracker_dir, config.spool_dir.join(".flumespool"));
    }

    #[test]
    fn wrong_values_are_told() {
        for (key, value, expected) in [
            ("deletePolicy", "delay", "never or immediate"),
            ("trackingPolicy", "none", "rename or tracker_dir"),
            ("consumeOrder", "newest", "oldest or youngest or random"),
            ("decodeErrorPolicy", "drop", "FAIL or REPLACE or IGNORE"),
            ("inputCharset", "nosuch", "a charset in which a line feed is one byte"),
            ("includePattern", "[a", "a regular expression"),
            ("deserializer", "LIN", "a deserializer: LINE, AVRO, BLOB"),
            ("batchSize", "0", "a number of events, at least 1"),
            ("pollDelay", "-1", "a number of milliseconds, at least 0"),
            ("fileSuffix", "", "what to append"),
        ] {
            let findings = configure(&[("spoolDir", "/d"), (key, value)]).err().unwrap_or_default().join("\n");
            assert!(findings.contains(expected) && findings.contains(key), "{key}: {findings}");
        }
        let blob = [("spoolDir", "/d"), ("deserializer", "blob"), ("deserializer.maxBlobLength", "0")];
        assert!(configure(&blob).is_err());
        assert!(configure(&[]).is_err());
    }
}
