//! The names of the files: `DEFAULT` is `<prefix><start in ms>-<n>[.<extension>]`, with n from 1; `ROLLTIME` is
//! `<prefix><yyyyMMddHHmmss>-<n>[.<extension>]`, with n from 1 in each second.

use std::path::{Path, PathBuf};

use jiff::Zoned;

use crate::config::{ComponentType, Props, resolve_type};
use crate::java::current_time_millis;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    Start,
    RollTime,
}

const TYPES: &[ComponentType<Naming>] = &[
    ComponentType {
        aliases: &["default"],
        class: "org.apache.flume.formatter.output.DefaultPathManager$Builder",
        build: Naming::Start,
    },
    ComponentType {
        aliases: &["rolltime"],
        class: "org.apache.flume.formatter.output.RollTimePathManager$Builder",
        build: Naming::RollTime,
    },
];

/// The keys of a path manager.
#[derive(Clone, Debug)]
pub struct Config {
    naming: Naming,
    prefix: String,
    extension: String,
}

impl Config {
    /// Reads the keys.
    pub fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let text = props.text("sink.pathManager").unwrap_or("DEFAULT");
        let naming = resolve_type(TYPES, text).map(|found| found.build);
        if naming.is_none() {
            props.error_nearest("sink.pathManager", "DEFAULT or ROLLTIME", &["DEFAULT", "ROLLTIME"]);
        }
        Some(Self {
            naming: naming.unwrap_or(Naming::Start),
            prefix: props.or("sink.pathManager.prefix", String::new()),
            extension: props.or("sink.pathManager.extension", String::new()),
        })
    }
}

/// Makes the names of one sink's files.
#[derive(Debug)]
pub struct PathManager {
    directory: PathBuf,
    config: Config,
    start_ms: i64,
    second: String,
    number: u64,
}

impl PathManager {
    /// Begins at 1.
    pub fn new(directory: &Path, config: &Config) -> Self {
        let start_ms = current_time_millis();
        Self { directory: directory.to_owned(), config: config.clone(), start_ms, second: String::new(), number: 0 }
    }

    /// The next name.
    pub fn next_path(&mut self) -> PathBuf {
        let stamp = match self.config.naming {
            Naming::Start => self.start_ms.to_string(),
            Naming::RollTime => {
                let second = Zoned::now().strftime("%Y%m%d%H%M%S").to_string();
                if second != self.second {
                    self.second.clone_from(&second);
                    self.number = 0;
                }
                second
            }
        };
        self.number += 1;
        let Config { prefix, extension, .. } = &self.config;
        let dot = if extension.is_empty() { "" } else { "." };
        self.directory.join(format!("{prefix}{stamp}-{}{dot}{extension}", self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(naming: Naming) -> Vec<String> {
        let config = Config { naming, prefix: "p-".to_owned(), extension: "log".to_owned() };
        let mut paths = PathManager::new(Path::new("/d"), &config);
        (0..2).map(|_| paths.next_path().display().to_string()).collect()
    }

    #[test]
    fn numbers_count_up() {
        let names = names(Naming::Start);
        assert!(names[0].starts_with("/d/p-1") && names[0].ends_with("-1.log"), "{names:?}");
        assert_eq!(names[0].replace("-1.log", "-2.log"), names[1]);
    }

    #[test]
    fn roll_time_has_the_second() {
        let name = names(Naming::RollTime).remove(0);
        let stamp = name.trim_start_matches("/d/p-").trim_end_matches("-1.log");
        assert!(stamp.len() == 14 && stamp.bytes().all(|b| b.is_ascii_digit()), "{name}");
    }
}
