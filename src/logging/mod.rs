//! The log, as users of Flume know it: `-Dflume.root.logger=LEVEL,APPENDER`, the console's and the file's line
//! layouts, and JSON lines for machines.

mod excerpt;
mod layout;
mod limit;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use file_rotate::suffix::{AppendCount, AppendTimestamp, DateFrom, FileLimit};
use file_rotate::{ContentLimit, FileRotate, TimeFrequency, compression::Compression};
use thiserror::Error;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

pub use self::excerpt::Excerpt;
pub use self::limit::{Limited, Suppressed};

use self::layout::{Layout, Line};
use crate::config::nearest;

/// Where the logger sink's lines come from, as Flume 1.8 to 1.11 print it.
pub const LOGGER_SINK: &str = "org.apache.flume.sink.LoggerSink.process(LoggerSink.java:95)";

const MAX_FILE_BYTES: usize = 100 << 20;
const MAX_FILES: usize = 10;
const APPENDERS: [&str; 3] = ["console", "LOGFILE", "DAILY"];
const LEVELS: [(&str, LevelFilter); 8] = [
    ("OFF", LevelFilter::OFF),
    ("FATAL", LevelFilter::ERROR),
    ("ERROR", LevelFilter::ERROR),
    ("WARN", LevelFilter::WARN),
    ("INFO", LevelFilter::INFO),
    ("DEBUG", LevelFilter::DEBUG),
    ("TRACE", LevelFilter::TRACE),
    ("ALL", LevelFilter::TRACE),
];

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Appender {
    Console,
    /// Up to ten old files of 100 MB.
    File(PathBuf),
    /// A file a day.
    Daily(PathBuf),
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    level: LevelFilter,
    appender: Appender,
    json: bool,
    /// What could not be understood, to be logged once there is a log.
    pub problems: Vec<String>,
}

/// Why there is no log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file's directory.
    #[error("could not write log files in {}", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// There is one already.
    #[error("the log is set up already")]
    AlreadySet,
}

impl LogSettings {
    /// Reads `flume.root.logger`, `flume.log.dir`, `flume.log.file` and `flume.log.format` (`json`) from the system
    /// properties or, behind them, from a `log4j.properties` in the configuration directory. With neither, the log
    /// goes to the console at INFO.
    pub fn new(system: &BTreeMap<String, String>, conf: Option<&Path>) -> Self {
        let file = conf.and_then(|conf| std::fs::read(conf.join("log4j.properties")).ok()).unwrap_or_default();
        let file: BTreeMap<String, String> = crate::config::parse("log4j.properties", &file, &mut Vec::new())
            .into_iter()
            .map(|p| (p.key, p.value))
            .collect();
        let get = |key: &str| system.get(key).or_else(|| file.get(key)).map(String::as_str);
        let mut problems = Vec::new();
        let mut level = LevelFilter::INFO;
        let mut appender = "console";
        for word in get("flume.root.logger").unwrap_or("INFO,console").split(',').map(str::trim) {
            if let Some((_, known)) = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
                level = *known;
            } else if let Some(known) = APPENDERS.iter().find(|name| name.eq_ignore_ascii_case(word)) {
                appender = known;
            } else {
                let known = || LEVELS.iter().map(|(name, _)| *name).chain(APPENDERS);
                let meant = nearest(word, known()).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
                problems.push(format!(
                    "flume.root.logger: {word} is neither a level nor one of {}{meant}",
                    APPENDERS.join(", ")
                ));
            }
        }
        let directory = get("flume.log.dir").unwrap_or("./logs");
        let path = Path::new(directory).join(get("flume.log.file").unwrap_or("flume.log"));
        let appender = match appender {
            "LOGFILE" => Appender::File(path),
            "DAILY" => Appender::Daily(path),
            _ => Appender::Console,
        };
        let json = get("flume.log.format").is_some_and(|format| format.eq_ignore_ascii_case("json"));
        Self { level, appender, json, problems }
    }

    /// Writes JSON lines whatever the properties say.
    #[must_use]
    pub fn json(self, json: bool) -> Self {
        Self { json: self.json || json, ..self }
    }

    /// Sets up the log for the process.
    pub fn install(&self) -> Result<(), LogError> {
        let writer: Box<dyn Write + Send> = match &self.appender {
            Appender::Console => Box::new(io::stderr()),
            Appender::File(path) => {
                make_directory(path)?;
                let limit = ContentLimit::BytesSurpassed(MAX_FILE_BYTES);
                Box::new(FileRotate::new(path, AppendCount::new(MAX_FILES), limit, Compression::None, None))
            }
            Appender::Daily(path) => {
                make_directory(path)?;
                let suffix = AppendTimestamp::with_format("%Y-%m-%d", FileLimit::Unlimited, DateFrom::DateYesterday);
                Box::new(FileRotate::new(
                    path,
                    suffix,
                    ContentLimit::Time(TimeFrequency::Daily),
                    Compression::None,
                    None,
                ))
            }
        };
        let line = match (&self.appender, self.json) {
            (_, true) => Line::Json,
            (Appender::Console, _) => Line::Console,
            _ => Line::File,
        };
        let layer = tracing_subscriber::fmt::layer().event_format(Layout(line)).with_writer(Output(Mutex::new(writer)));
        let subscriber = tracing_subscriber::registry().with(self.level).with(layer);
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)
    }
}

fn make_directory(file: &Path) -> Result<(), LogError> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let failed = |error| LogError::Directory(directory.to_owned(), error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    // The rotating writer would swallow this failure.
    std::fs::OpenOptions::new().create(true).append(true).open(file).map(drop).map_err(failed)
}

/// One writer for all threads; a line is written in one piece.
struct Output(Mutex<Box<dyn Write + Send>>);

impl<'a> MakeWriter<'a> for Output {
    type Writer = Held<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Held(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Held<'a>(MutexGuard<'a, Box<dyn Write + Send>>);

impl Write for Held<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let writer = &mut self.0;
        // The rotating writer asserts that it alone makes its files; when somebody else does, the line goes to stderr.
        match catch_unwind(AssertUnwindSafe(|| writer.write(bytes))) {
            Ok(written) => written,
            Err(_) => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> LogSettings {
        LogSettings::new(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), None)
    }

    #[test]
    fn flumes_switches() {
        let log = settings(&[
            ("flume.root.logger", "DEBUG,LOGFILE"),
            ("flume.log.dir", "/var/log/f"),
            ("flume.log.file", "a.log"),
        ]);
        assert_eq!(log.level, LevelFilter::DEBUG);
        assert_eq!(log.appender, Appender::File("/var/log/f/a.log".into()));
        assert_eq!(settings(&[("flume.root.logger", "warn, console")]).level, LevelFilter::WARN);
        assert_eq!(settings(&[]).appender, Appender::Console);
        assert!(settings(&[("flume.log.format", "json")]).json);
    }

    #[test]
    fn a_slip_is_named() {
        let log = settings(&[("flume.root.logger", "INFO,consle")]);
        assert!(log.problems[0].ends_with("did you mean \"console\"?"), "{:?}", log.problems);
    }
}
