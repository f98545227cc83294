//! Text files: one for each batch, `prefix-TIME_IN_MS.suffix`.
//!
//! | key | default | what |
//! |---|---|---|
//! | `folder` | | the folder of the files, from the folder of the job file; it is made unless it is there |
//! | `prefix` | the sink's name | what the files' names begin with |
//! | `suffix` | none | what they end with, behind a dot |
//! | `style` | `tuple` | `tuple`: `(hello,2)`; `delimited`: `hello,2`; `json`: `{"word":"hello","n":2}` |
//! | `delimiter` | `,` | what stands between the values of the style `delimited`, which are not quoted |
//! | `empty` | `false` | whether a batch without rows has a file, too |
//!
//! A file appears whole: it is written under a name that begins with a dot, and renamed. A batch that is worked on again
//! after a crash replaces its own file, so that every row is there exactly once.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{JobContext, Mode, Sink, SinkConfig, SinkError, rows};
use crate::batch::BatchInfo;
use crate::job::{JobError, Keys};

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Style {
    #[default]
    Tuple,
    Delimited,
    Json,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextConfig {
    folder: PathBuf,
    #[serde(default, deserialize_with = "part")]
    prefix: Option<String>,
    #[serde(default, deserialize_with = "part")]
    suffix: Option<String>,
    #[serde(default)]
    style: Style,
    #[serde(default = "comma")]
    delimiter: String,
    #[serde(default)]
    empty: bool,
}

fn comma() -> String {
    ",".to_owned()
}

/// A part of a file's name.
fn part<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let part = String::deserialize(deserializer)?;
    if part.contains('/') {
        return Err(D::Error::custom(format!("`{part}` is to be a part of a file's name and must not hold `/`")));
    }
    Ok(Some(part))
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SinkConfig>, JobError> {
    Ok(Box::new(keys.read::<TextConfig>()?))
}

impl SinkConfig for TextConfig {
    fn mode(&self) -> Mode {
        Mode::All
    }

    fn owns(&self, name: &str, job: &JobContext, _: &SchemaRef) -> Vec<String> {
        let suffix = self.suffix.as_ref().map(|suffix| format!(".{suffix}")).unwrap_or_default();
        let file = format!("{}-TIME{suffix}", self.prefix.as_deref().unwrap_or(name));
        vec![format!("file {}", job.absolute(&self.folder).join(file).display())]
    }

    fn spark(&self, name: &str, job: &JobContext) -> Result<serde_json::Value, String> {
        if self.empty {
            return Err("`empty`: Spark has no batches without rows".to_owned());
        }
        let folder = job.absolute(&self.folder);
        let (prefix, suffix) = (self.prefix.as_deref().unwrap_or(name), self.suffix.as_deref());
        Ok(serde_json::json!({
            "type": "text", "folder": folder, "prefix": prefix, "suffix": suffix, "style": self.style,
            "delimiter": self.delimiter,
        }))
    }

    fn build(&self, name: &str, job: &JobContext) -> Box<dyn Sink> {
        let prefix = self.prefix.clone().unwrap_or_else(|| name.to_owned());
        Box::new(Text { folder: job.folder.join(&self.folder), prefix, config: self.clone() })
    }
}

struct Text {
    folder: PathBuf,
    prefix: String,
    config: TextConfig,
}

impl Text {
    fn file_name(&self, batch: &BatchInfo) -> String {
        let suffix = self.config.suffix.as_ref().map(|suffix| format!(".{suffix}")).unwrap_or_default();
        format!("{}-{}{suffix}", self.prefix, batch.time)
    }

    fn text(&self, batches: &[RecordBatch]) -> Result<String, SinkError> {
        let style = match self.config.style {
            Style::Tuple => rows::Style::Tuple,
            Style::Delimited => rows::Style::Delimited(&self.config.delimiter),
            Style::Json => rows::Style::Json,
        };
        let mut text = String::new();
        for batch in batches {
            rows::write(batch, style, &mut text).map_err(|error| SinkError::new(error.to_string()))?;
        }
        Ok(text)
    }
}

/// Writes a file that appears whole, and outlives a power failure.
fn write_whole(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".{name}.tmp"));
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[async_trait]
impl Sink for Text {
    async fn open(&mut self, _: &SchemaRef) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&mut self, batch: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError> {
        let (name, text) = (self.file_name(batch), self.text(rows)?);
        let path = self.folder.join(&name);
        let folder = self.folder.clone();
        let written = tokio::task::spawn_blocking(move || write_whole(&folder, &name, &text)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.map_err(|error| SinkError::new(format!("{}: {error}", path.display())))
    }

    fn wants_empty_batches(&self) -> bool {
        self.config.empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_the_time_of_the_batch() {
        let config = TextConfig {
            folder: "out".into(),
            prefix: None,
            suffix: Some("txt".to_owned()),
            style: Style::Tuple,
            delimiter: comma(),
            empty: false,
        };
        let mut text = Text { folder: "out".into(), prefix: "output".to_owned(), config };
        let batch = BatchInfo { number: 1, time: 1_590_233_400_000, again: false };
        assert_eq!(text.file_name(&batch), "output-1590233400000.txt");
        text.config.suffix = None;
        assert_eq!(text.file_name(&batch), "output-1590233400000");
    }
}
