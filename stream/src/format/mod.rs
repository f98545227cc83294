//! Formats: how the bytes of a record become the columns of a row.
//!
//! | `format` | a record is | columns |
//! |---|---|---|
//! | `lines` (default) | text | `value`, or the one that `columns` names |
//! | `delimited` | fields between `delimiter` (default: a tab) | `columns`, in the fields' order |
//! | `json` | an object | `columns`, by name; what is missing is null |
//! | `avro` | a Flume event as Flume writes it to Kafka with `useFlumeEventFormat` | `body`, and `columns` from the headers |
//!
//! `columns` is a list of `"name type"`; the types are `text`, `int`, `bigint`, `float`, `double`, `boolean`,
//! `timestamp`, `date` and `decimal(precision, scale)`.
//!
//! A record that does not fit is kept aside with the reason: SQL reads it as the relation `SOURCE_rejects`.

mod avro;
mod column;
mod delimited;
mod json;
mod lines;
mod none;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{filter, take};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};

pub use column::{ColumnSpec, type_name};
pub use lines::lines;
pub use none::none;

use crate::job::{JobError, Keys};

/// Records as they came, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// The bytes of all of them.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<usize>,
    /// What the source knows of each besides: the columns that [`SourceConfig::columns`](crate::source::SourceConfig)
    /// names.
    pub columns: Vec<ArrayRef>,
}

impl Records {
    /// Adds a record; columns are for the source to add.
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// Adds records, without their columns.
    pub fn append(&mut self, others: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&others.bytes);
        self.ends.extend(others.ends.iter().map(|end| start + end));
    }

    /// Takes so many of them away from the front, without columns.
    pub fn split_to(&mut self, count: usize) -> Self {
        let Some(last) = count.checked_sub(1) else { return Self::default() };
        let end = self.ends[last];
        let bytes = self.bytes.split_off(end);
        let ends = self.ends.split_off(count).into_iter().map(|one| one - end).collect();
        std::mem::replace(self, Self { bytes, ends, ..Self::default() })
    }

    /// Some of them, without columns.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        let end = |count: usize| count.checked_sub(1).map_or(0, |last| self.ends[last]);
        let (start, end) = (end(range.start), end(range.end));
        let ends = self.ends[range].iter().map(|one| one - start).collect();
        Self { bytes: self.bytes[start..end].to_vec(), ends, columns: Vec::new() }
    }

    /// Removes all of them, and keeps their room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.columns.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes that they take, without their columns.
    pub fn size(&self) -> usize {
        self.bytes.len() + size_of_val(self.ends.as_slice())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges().map(|(start, end)| &self.bytes[start..end])
    }

    fn ranges(&self) -> impl Iterator<Item = (usize, usize)> {
        std::iter::once(0).chain(self.ends.iter().copied()).zip(self.ends.iter().copied())
    }
}

/// A record that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Which record.
    pub index: usize,
    /// The record.
    pub record: Vec<u8>,
    /// Why.
    pub reason: String,
}

/// Columns made of records; those that were rejected have no row.
#[derive(Debug, Default)]
pub struct Parsed {
    /// One array for each field of the format.
    pub columns: Vec<ArrayRef>,
    /// What did not fit, in order.
    pub rejects: Vec<Reject>,
}

impl Parsed {
    /// The same without those rows for which there is a reason; `rows` gives the record of each row, and its index.
    fn without<'a>(mut self, rows: impl Iterator<Item = (usize, &'a [u8])>, reasons: Vec<Option<String>>) -> Self {
        if reasons.iter().all(Option::is_none) {
            return self;
        }
        let right: BooleanArray = reasons.iter().map(|reason| Some(reason.is_none())).collect();
        for column in &mut self.columns {
            *column = filter(column, &right).expect("they are as long");
        }
        for ((index, record), reason) in rows.zip(reasons) {
            if let Some(reason) = reason {
                self.rejects.push(Reject { index, record: record.to_vec(), reason });
            }
        }
        self.rejects.sort_by_key(|reject| reject.index);
        self
    }
}

/// How records become columns.
pub trait Format: Send + Sync + std::fmt::Debug {
    /// The columns.
    fn fields(&self) -> Vec<Field>;
    /// Makes columns of records.
    fn parse(&self, records: &mut Records) -> Parsed;
    /// How [Spark's runner](crate::spark) reads the same, or why it cannot.
    fn spark(&self) -> Result<serde_json::Value, String>;
}

/// Reads the keys of a source that say how its records are written.
pub fn read(keys: &mut Keys<'_>) -> Result<Box<dyn Format>, JobError> {
    let name: String = keys.take("format")?.unwrap_or_else(|| "lines".to_owned());
    let columns: Vec<ColumnSpec> = keys.take("columns")?.unwrap_or_default();
    match name.as_str() {
        "lines" => lines::read(keys, columns),
        "delimited" => delimited::read(keys, columns),
        "json" => json::read(keys, columns),
        "avro" => avro::read(keys, columns),
        other => {
            let known = ["lines", "delimited", "json", "avro"];
            let near = crate::job::keys::did_you_mean(other, known);
            Err(keys.error_at("format", format!("`format`: `{other}` is none of {}{near}", known.join(", "))))
        }
    }
}

/// A source's records as rows.
#[derive(Debug)]
pub struct Reader {
    format: Box<dyn Format>,
    schema: SchemaRef,
}

impl Reader {
    /// Rows with the format's columns, and those of the source.
    pub fn new(format: Box<dyn Format>, of_source: Vec<Field>) -> Self {
        let schema = Arc::new(Schema::new([format.fields(), of_source].concat()));
        Self { format, schema }
    }

    /// The format.
    pub fn format(&self) -> &dyn Format {
        &*self.format
    }

    /// The columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Makes rows of records, and gives what does not fit.
    pub fn rows(&self, mut records: Records) -> (RecordBatch, Vec<Reject>) {
        let (count, of_source) = (records.len(), std::mem::take(&mut records.columns));
        if count == 0 {
            return (RecordBatch::new_empty(Arc::clone(&self.schema)), Vec::new());
        }
        let Parsed { mut columns, rejects } = self.format.parse(&mut records);
        if rejects.is_empty() {
            columns.extend(of_source);
        } else {
            let mut wrong = rejects.iter().map(|reject| reject.index).peekable();
            let right = (0..count).filter(|index| wrong.next_if_eq(index).is_none());
            let right = UInt32Array::from_iter_values(right.map(|index| index as u32));
            columns.extend(of_source.iter().map(|column| take(column, &right, None).expect("each record has a value")));
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        (rows.expect("a format makes the columns that it names"), rejects)
    }
}

/// Columns for [Spark's runner](crate::spark).
fn columns_for_spark(fields: &[Field]) -> serde_json::Value {
    let column = |field: &Field| serde_json::json!({ "name": field.name(), "type": field.data_type().to_string() });
    fields.iter().map(column).collect()
}
