//! Rows on the standard output, under the batch's time.
//!
//! | key | default | what |
//! |---|---|---|
//! | `rows` | 10 | the most rows of a batch; a line `...` says that there are more |
//! | `style` | `tuple` | `tuple`: `(hello,2)`; `table`: with the columns' names; `bare`: `hello,2` without brackets |
//! | `time` | `millis` | `millis`: `Time: 1590233400000 ms`; `local`: `Time: 2020-05-23 19:30:00` |

use std::fmt::Write as _;
use std::io::Write as _;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::util::pretty::pretty_format_batches;
use serde::{Deserialize, Serialize};

use super::{JobContext, Mode, Sink, SinkConfig, SinkError, rows};
use crate::batch::BatchInfo;
use crate::job::{JobError, Keys};

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Style {
    #[default]
    Tuple,
    Table,
    Bare,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Time {
    #[default]
    Millis,
    Local,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrintConfig {
    #[serde(default = "ten")]
    rows: usize,
    #[serde(default)]
    style: Style,
    #[serde(default)]
    time: Time,
}

fn ten() -> usize {
    10
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SinkConfig>, JobError> {
    Ok(Box::new(keys.read::<PrintConfig>()?))
}

impl SinkConfig for PrintConfig {
    fn mode(&self) -> Mode {
        Mode::All
    }

    fn spark(&self, _: &str, _: &JobContext) -> Result<serde_json::Value, String> {
        let (style, is_local) = (self.style, matches!(self.time, Time::Local));
        Ok(serde_json::json!({ "type": "print", "rows": self.rows, "style": style, "is_local": is_local }))
    }

    fn build(&self, _: &str, job: &JobContext) -> Box<dyn Sink> {
        Box::new(Print { config: self.clone(), time_zone: job.time_zone.clone() })
    }
}

struct Print {
    config: PrintConfig,
    time_zone: jiff::tz::TimeZone,
}

const RULE: &str = "-------------------------------------------";

impl Print {
    fn text(&self, batch: &BatchInfo, batches: &[RecordBatch]) -> Result<String, SinkError> {
        let time = match self.config.time {
            Time::Millis => format!("{} ms", batch.time),
            Time::Local => {
                let time = jiff::Timestamp::from_millisecond(batch.time).unwrap_or_default();
                time.to_zoned(self.time_zone.clone()).strftime("%F %T%.f").to_string()
            }
        };
        let mut text = format!("{RULE}\nTime: {time}\n{RULE}\n");
        let failed = |error: datafusion::arrow::error::ArrowError| SinkError::new(error.to_string());
        let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let mut left = self.config.rows;
        let mut shown = Vec::new();
        for rows in batches {
            shown.push(rows.slice(0, rows.num_rows().min(left)));
            left -= rows.num_rows().min(left);
        }
        let style = match self.config.style {
            Style::Tuple => Some(rows::Style::Tuple),
            Style::Bare => Some(rows::Style::Delimited(",")),
            Style::Table => None,
        };
        if let Some(style) = style {
            for batch in &shown {
                rows::write(batch, style, &mut text).map_err(failed)?;
            }
        } else {
            writeln!(text, "{}", pretty_format_batches(&shown).map_err(failed)?).ok();
        }
        text.push_str(if total > self.config.rows { "...\n\n" } else { "\n" });
        Ok(text)
    }
}

fn failed(error: &std::io::Error) -> SinkError {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return SinkError::last("nobody reads the standard output any more");
    }
    SinkError::new(format!("the standard output: {error}"))
}

#[async_trait]
impl Sink for Print {
    async fn open(&mut self, _: &SchemaRef) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&mut self, batch: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError> {
        let text = self.text(batch, rows)?;
        let written = tokio::task::spawn_blocking(move || {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(SinkError::new(error.to_string())),
        }
    }

    fn wants_empty_batches(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, StringArray};

    use super::*;

    fn rows(count: i64) -> RecordBatch {
        let words = StringArray::from_iter_values((0..count).map(|n| format!("w{n}")));
        RecordBatch::try_from_iter([
            ("word", Arc::new(words) as _),
            ("n", Arc::new(Int64Array::from_iter_values(0..count)) as _),
        ])
        .expect("they are as long")
    }

    fn print(style: Style, time: Time) -> Print {
        let zone = jiff::tz::TimeZone::get("Asia/Shanghai").expect("it is known");
        Print { config: PrintConfig { rows: 2, style, time }, time_zone: zone }
    }

    const BATCH: BatchInfo = BatchInfo { number: 1, time: 1_590_233_400_000, again: false };

    #[test]
    fn rows_stand_under_the_time_of_the_batch() {
        let text = print(Style::Tuple, Time::Millis).text(&BATCH, &[rows(1), rows(2)]).expect("it can be shown");
        let expected = format!("{RULE}\nTime: 1590233400000 ms\n{RULE}\n(w0,0)\n(w0,0)\n...\n\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_reader_that_has_gone_is_not_waited_for() {
        assert!(failed(&std::io::ErrorKind::BrokenPipe.into()).is_last());
        assert!(!failed(&std::io::ErrorKind::StorageFull.into()).is_last());
    }

    #[test]
    fn an_empty_batch_has_its_frame() {
        let text = print(Style::Tuple, Time::Local).text(&BATCH, &[]).expect("it can be shown");
        assert_eq!(text, format!("{RULE}\nTime: 2020-05-23 19:30:00\n{RULE}\n\n"));
    }

    #[test]
    fn a_table_has_the_columns_names() {
        let text = print(Style::Table, Time::Millis).text(&BATCH, &[rows(1)]).expect("it can be shown");
        assert!(text.contains("| word | n |\n+------+---+\n| w0   | 0 |\n"), "{text}");
    }
}
