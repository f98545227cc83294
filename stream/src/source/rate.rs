//! Rows by the clock, to try a job out and to measure it; the same as Spark's source of this name.
//!
//! | key | default | what |
//! |---|---|---|
//! | `rows-per-second` | 1 | how many rows come in a second |
//!
//! The columns are `timestamp timestamp`, when the row was due, and `value bigint`, which counts from 0. There is no
//! format. After a crash the same rows come again; those that were due while the job did not run come when it does.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{Int64Array, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use serde::{Deserialize, Serialize};

use super::{Cut, Position, Source, SourceConfig, SourceError};
use crate::format::Records;
use crate::job::{JobError, Keys};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RateConfig {
    #[serde(default = "one")]
    rows_per_second: NonZeroU32,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SourceConfig>, JobError> {
    Ok(Box::new(keys.read::<RateConfig>()?))
}

impl SourceConfig for RateConfig {
    fn columns(&self) -> Vec<Field> {
        let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
        vec![Field::new("timestamp", timestamp, true), Field::new("value", DataType::Int64, true)]
    }

    fn spark(&self) -> Result<serde_json::Value, String> {
        let options = serde_json::json!({ "rowsPerSecond": self.rows_per_second.to_string() });
        Ok(serde_json::json!({ "format": "rate", "options": options, "columns": ["timestamp", "value"] }))
    }

    fn build(&self, _: &str, once: bool) -> Box<dyn Source> {
        let rate = i64::from(self.rows_per_second.get());
        Box::new(Rate { rate, once, end: i64::MAX, at: Place::default() })
    }
}

/// Where it is: when value 0 was due, in milliseconds since 1970, and the value that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    start: i64,
    next: i64,
}

impl Place {
    fn read(position: &Position) -> Result<Self, SourceError> {
        Self::deserialize(position)
            .map_err(|error| SourceError::new(format!("the position in the checkpoint: {error}")))
    }
}

struct Rate {
    rate: i64,
    once: bool,
    /// The value that does not come any more.
    end: i64,
    at: Place,
}

impl Rate {
    /// When a value is due.
    fn time_of(&self, value: i64) -> i64 {
        let after = i128::from(value) * 1000 / i128::from(self.rate);
        i64::try_from(i128::from(self.at.start) + after).unwrap_or(i64::MAX)
    }

    /// The first value that is not due yet.
    fn due(&self, clock: i64) -> i64 {
        let passed = i128::from(clock) - i128::from(self.at.start);
        if passed < 0 {
            return 0;
        }
        i64::try_from(passed * i128::from(self.rate) / 1000 + 1).unwrap_or(i64::MAX)
    }

    fn give(&mut self, end: i64) -> Cut {
        let values = self.at.next..end.max(self.at.next);
        let times = TimestampMillisecondArray::from_iter_values(values.clone().map(|value| self.time_of(value)));
        self.at.next = values.end;
        let values = Int64Array::from_iter_values(values);
        let ends = vec![0; values.len()];
        let records = Records { bytes: Vec::new(), ends, columns: vec![Arc::new(times), Arc::new(values)] };
        Cut { records: vec![records], position: serde_json::to_value(self.at).ok() }
    }

    fn cut_at(&mut self, clock: i64, max_records: usize) -> Cut {
        let most = i64::try_from(max_records).map_or(i64::MAX, |most| self.at.next.saturating_add(most));
        self.give(self.due(clock).min(most).min(self.end))
    }
}

fn clock() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[async_trait]
impl Source for Rate {
    async fn open(&mut self, from: Option<&Position>) -> Result<(), SourceError> {
        self.at = match from {
            Some(from) => Place::read(from)?,
            None => Place { start: clock(), next: 0 },
        };
        if self.once {
            self.end = self.due(clock());
        }
        Ok(())
    }

    async fn ready(&mut self) {
        let wait = self.time_of(self.at.next).saturating_sub(clock());
        tokio::time::sleep(Duration::from_millis(u64::try_from(wait).unwrap_or(0))).await;
    }

    async fn cut(&mut self, max_records: usize) -> Result<Cut, SourceError> {
        Ok(self.cut_at(clock(), max_records))
    }

    async fn again(&mut self, _: Option<&Position>, to: &Position) -> Result<Cut, SourceError> {
        let to = Place::read(to)?;
        self.at.start = to.start;
        Ok(self.give(to.next))
    }

    fn is_exhausted(&self) -> bool {
        self.at.next >= self.end
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray as _;
    use datafusion::arrow::datatypes::{Int64Type, TimestampMillisecondType};

    use super::*;

    fn rate(rate: i64) -> Rate {
        Rate { rate, once: false, end: i64::MAX, at: Place { start: 1000, next: 0 } }
    }

    fn rows(cut: &Cut) -> Vec<(i64, i64)> {
        let [records] = cut.records.as_slice() else { panic!("they are in one part") };
        let times = records.columns[0].as_primitive::<TimestampMillisecondType>().values().iter();
        let values = records.columns[1].as_primitive::<Int64Type>().values();
        assert_eq!(records.len(), values.len());
        times.copied().zip(values.iter().copied()).collect()
    }

    #[test]
    fn rows_come_when_they_are_due() {
        let mut three = rate(3);
        assert_eq!(rows(&three.cut_at(900, 10)), []);
        assert_eq!(rows(&three.cut_at(1666, 10)), [(1000, 0), (1333, 1)]);
        assert_eq!(rows(&three.cut_at(10_000, 2)), [(1666, 2), (2000, 3)], "no more than were asked for");
        assert_eq!(rows(&three.cut_at(1000, 10)), [], "the clock went back");
        let mut many = rate(1_000_000);
        assert_eq!(rows(&many.cut_at(2000, usize::MAX)).len(), 1_000_001);
    }

    #[tokio::test]
    async fn the_same_rows_come_again() {
        let mut first = rate(7);
        let one = first.cut_at(2000, 5).position.expect("it has one");
        let cut = first.cut_at(3000, 100);
        let two = cut.position.clone().expect("it has one");
        for from in [None, Some(&one)] {
            let mut second = rate(7);
            second.open(from).await.expect("it opens");
            let again = second.again(from, &two).await.expect("it can be had again");
            assert!(rows(&again).ends_with(&rows(&cut)));
            assert_eq!((again.position.as_ref(), second.at), (Some(&two), first.at));
        }
    }
}
