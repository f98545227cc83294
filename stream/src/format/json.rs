//! JSON objects, one a record.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::ReaderBuilder;

use super::{ColumnSpec, Format, Parsed, Records, Reject, columns_for_spark};
use crate::job::{JobError, Keys};

#[derive(Debug)]
struct Json {
    schema: SchemaRef,
}

pub fn read(keys: &Keys<'_>, columns: Vec<ColumnSpec>) -> Result<Box<dyn Format>, JobError> {
    if columns.is_empty() {
        return Err(keys.error("`columns` is missing: the members to read, as in [\"user text\", \"stars double\"]"));
    }
    let fields: Vec<Field> = columns.iter().map(ColumnSpec::field).collect();
    Ok(Box::new(Json { schema: Arc::new(Schema::new(fields)) }))
}

impl Json {
    /// Reads records that are all right, or says what is wrong with one of them.
    fn decode<'a>(&self, records: impl Iterator<Item = &'a [u8]>, count: usize) -> Result<RecordBatch, ArrowError> {
        let mut decoder = ReaderBuilder::new(Arc::clone(&self.schema)).with_batch_size(count.max(1)).build_decoder()?;
        for (index, record) in records.enumerate() {
            let mut rest = record;
            // One that ends within a value would take the next record with it.
            while !rest.is_empty() {
                let read = decoder.decode(rest)?;
                if read == 0 {
                    return Err(ArrowError::JsonError("there is more than one object".to_owned()));
                }
                rest = &rest[read..];
            }
            if decoder.has_partial_record() {
                return Err(ArrowError::JsonError("it ends too early".to_owned()));
            }
            // Two in one record must not make up for none in another.
            if decoder.len() != index + 1 {
                return Err(ArrowError::JsonError("there is not one object".to_owned()));
            }
        }
        let rows = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&self.schema)));
        if rows.num_rows() == count {
            Ok(rows)
        } else {
            Err(ArrowError::JsonError(format!("there are {} objects in {count} records", rows.num_rows())))
        }
    }

    /// Reads records, the first of which has this index. Halves those that fail until it is known which ones are wrong.
    fn sort_out(&self, records: &[&[u8]], first: usize, rows: &mut Vec<RecordBatch>, rejects: &mut Vec<Reject>) {
        match (self.decode(records.iter().copied(), records.len()), records) {
            (Ok(right), _) => rows.push(right),
            (Err(error), [record]) => {
                let reason = match error {
                    ArrowError::JsonError(reason) => reason,
                    other => other.to_string(),
                };
                rejects.push(Reject { index: first, record: record.to_vec(), reason });
            }
            (Err(_), _) => {
                let (left, right) = records.split_at(records.len() / 2);
                self.sort_out(left, first, rows, rejects);
                self.sort_out(right, first + left.len(), rows, rejects);
            }
        }
    }
}

impl Format for Json {
    fn fields(&self) -> Vec<Field> {
        self.schema.fields().iter().map(|field| field.as_ref().clone()).collect()
    }

    fn spark(&self) -> Result<serde_json::Value, String> {
        Ok(serde_json::json!({ "kind": "json", "columns": columns_for_spark(&self.fields()) }))
    }

    fn parse(&self, records: &mut Records) -> Parsed {
        if let Ok(rows) = self.decode(records.iter(), records.len()) {
            return Parsed { columns: rows.columns().to_vec(), rejects: Vec::new() };
        }
        let all: Vec<&[u8]> = records.iter().collect();
        let (mut rows, mut rejects) = (Vec::new(), Vec::new());
        self.sort_out(&all, 0, &mut rows, &mut rejects);
        let rows = concat_batches(&self.schema, &rows).expect("all have one schema");
        Parsed { columns: rows.columns().to_vec(), rejects }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Array as _, AsArray as _};
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn one_that_is_wrong_is_found_among_many() {
        let field = ColumnSpec::parse("n int").expect("it is a column").field();
        let json = Json { schema: Arc::new(Schema::new(vec![field])) };
        for wrong in [0, 1, 499, 500, 999] {
            let mut records = Records::default();
            (0..1000).for_each(|n| {
                records.push(if n == wrong { b"{".to_vec() } else { format!("{{\"n\":{n}}}").into() }.as_slice())
            });
            let parsed = json.parse(&mut records);
            assert_eq!(parsed.rejects.iter().map(|one| one.index).collect::<Vec<_>>(), [wrong as usize]);
            let numbers = parsed.columns[0].as_primitive::<Int32Type>().values().iter().copied();
            assert!(numbers.eq((0..1000).filter(|n| *n != wrong)));
        }
    }

    #[test]
    fn objects_are_rows_and_what_is_none_is_set_aside() {
        let columns = ["user", "stars double"].map(|text| ColumnSpec::parse(text).expect("it is a column").field());
        let json = Json { schema: Arc::new(Schema::new(columns.to_vec())) };
        let mut records = Records::default();
        let right = [r#"{"user":"a","stars":4.5,"more":[1]}"#, r#"{"stars":1}"#, " {\"user\":\"é\"}\r"];
        let wrong = ["{\"user\":", "", "{} {}", "[1]", r#"{"stars":"many"}"#, "}"];
        for record in right.into_iter().chain(wrong) {
            records.push(record.as_bytes());
        }
        let parsed = json.parse(&mut records);
        let users: Vec<_> = parsed.columns[0].as_string_view().iter().collect();
        assert_eq!(users, [Some("a"), None, Some("é")]);
        assert_eq!(parsed.columns[1].null_count(), 1);
        let rejected: Vec<_> = parsed.rejects.iter().map(|one| one.index).collect();
        assert_eq!(rejected, [3, 4, 5, 6, 7, 8], "{:?}", parsed.rejects);
    }
}
