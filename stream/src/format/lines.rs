//! Text: a record is a value of one column.

use std::sync::Arc;

use datafusion::arrow::array::StringViewBuilder;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::{DataType, Field};

use super::{ColumnSpec, Format, Parsed, Records, Reject, columns_for_spark};
use crate::job::{JobError, Keys};

#[derive(Debug)]
struct Lines {
    column: Field,
}

/// Text in the column `value`.
pub fn lines() -> Box<dyn Format> {
    Box::new(Lines { column: Field::new("value", DataType::Utf8View, true) })
}

pub fn read(keys: &Keys<'_>, columns: Vec<ColumnSpec>) -> Result<Box<dyn Format>, JobError> {
    match columns.as_slice() {
        [] => Ok(lines()),
        [one] if one.data_type == DataType::Utf8View => Ok(Box::new(Lines { column: one.field() })),
        _ => Err(keys.error("`columns`: with `format = \"lines\"` there is one column, of type text")),
    }
}

impl Format for Lines {
    fn fields(&self) -> Vec<Field> {
        vec![self.column.clone()]
    }

    fn spark(&self) -> Result<serde_json::Value, String> {
        let columns = columns_for_spark(std::slice::from_ref(&self.column));
        Ok(serde_json::json!({ "kind": "lines", "columns": columns }))
    }

    fn parse(&self, records: &mut Records) -> Parsed {
        let mut values = StringViewBuilder::with_capacity(records.len());
        let mut rejects = Vec::new();
        let bytes = Buffer::from(std::mem::take(&mut records.bytes));
        let block = values.append_block(bytes.clone());
        for (index, (start, end)) in records.ranges().enumerate() {
            if values.try_append_view(block, start as u32, (end - start) as u32).is_err() {
                let record = bytes[start..end].to_vec();
                rejects.push(Reject { index, record, reason: "it is no UTF-8 text".to_owned() });
            }
        }
        Parsed { columns: vec![Arc::new(values.finish())], rejects }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Array as _, AsArray as _};

    use super::*;

    #[test]
    fn text_is_a_row_and_other_bytes_are_set_aside() {
        let mut records = Records::default();
        for record in [b"a".as_slice(), b"\xff", "ü".as_bytes(), b""] {
            records.push(record);
        }
        let lines = Lines { column: Field::new("value", DataType::Utf8View, true) };
        let parsed = lines.parse(&mut records);
        let values: Vec<_> = parsed.columns[0].as_string_view().iter().flatten().collect();
        assert_eq!(values, ["a", "ü", ""]);
        assert_eq!(parsed.columns[0].len(), 3);
        assert_eq!((parsed.rejects.len(), parsed.rejects[0].index), (1, 1));
        assert_eq!(parsed.rejects[0].record, b"\xff");
    }
}
