//! Fields between delimiters, as in logs and tables written as text. Fields are not quoted.

use datafusion::arrow::array::{ArrayRef, StringViewBuilder};
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::Field;
use memchr::memmem::Finder;

use super::{ColumnSpec, Format, Parsed, Records, Reject, columns_for_spark};
use crate::job::{JobError, Keys};

#[derive(Debug)]
struct Delimited {
    delimiter: Finder<'static>,
    columns: Vec<ColumnSpec>,
}

pub fn read(keys: &mut Keys<'_>, columns: Vec<ColumnSpec>) -> Result<Box<dyn Format>, JobError> {
    let delimiter: String = keys.take("delimiter")?.unwrap_or_else(|| "\t".to_owned());
    if delimiter.is_empty() {
        return Err(keys.error("`delimiter` must not be empty"));
    }
    if columns.is_empty() {
        return Err(keys.error("`columns` is missing: what the fields are, as in [\"ip text\", \"status int\"]"));
    }
    Ok(Box::new(Delimited { delimiter: Finder::new(&delimiter).into_owned(), columns }))
}

impl Delimited {
    /// The fields of a record, or why it has none.
    fn split(&self, record: &[u8], fields: &mut Vec<(usize, usize)>) -> Result<(), String> {
        fields.clear();
        let (width, mut start) = (self.delimiter.needle().len(), 0);
        if width == 1 {
            for end in memchr::memchr_iter(self.delimiter.needle()[0], record) {
                fields.push((start, end));
                start = end + 1;
            }
        } else {
            for end in self.delimiter.find_iter(record) {
                fields.push((start, end));
                start = end + width;
            }
        }
        fields.push((start, record.len()));
        match (fields.len(), self.columns.len()) {
            (found, expected) if found == expected => Ok(()),
            (found, expected) => Err(format!("it has {found} fields, not {expected}")),
        }
    }
}

impl Format for Delimited {
    fn fields(&self) -> Vec<Field> {
        self.columns.iter().map(ColumnSpec::field).collect()
    }

    fn spark(&self) -> Result<serde_json::Value, String> {
        let delimiter = String::from_utf8_lossy(self.delimiter.needle()).into_owned();
        let columns = columns_for_spark(&self.fields());
        Ok(serde_json::json!({ "kind": "delimited", "delimiter": delimiter, "columns": columns }))
    }

    fn parse(&self, records: &mut Records) -> Parsed {
        let count = records.len();
        let bytes = Buffer::from(std::mem::take(&mut records.bytes));
        let mut builders: Vec<StringViewBuilder> =
            self.columns.iter().map(|_| StringViewBuilder::with_capacity(count)).collect();
        for builder in &mut builders {
            builder.append_block(bytes.clone());
        }
        let mut rejects = Vec::new();
        let mut accepted = Vec::with_capacity(count);
        let mut fields = Vec::with_capacity(self.columns.len());
        // To look at all records at once is faster than at each, and nearly always enough.
        let whole = std::str::from_utf8(&bytes).ok();
        let is_text = |start: usize, end: usize| match whole {
            Some(text) => text.is_char_boundary(start) && text.is_char_boundary(end),
            None => std::str::from_utf8(&bytes[start..end]).is_ok(),
        };
        for (index, (start, end)) in records.ranges().enumerate() {
            let record = &bytes[start..end];
            let text = if is_text(start, end) { Ok(()) } else { Err("it is no UTF-8 text".to_owned()) };
            match text.and_then(|()| self.split(record, &mut fields)) {
                Ok(()) => {
                    accepted.push((index, start, end));
                    for (builder, (from, to)) in builders.iter_mut().zip(&fields) {
                        builder
                            .try_append_view(0, (start + from) as u32, (to - from) as u32)
                            .expect("a part of a text between delimiters is text");
                    }
                }
                Err(reason) => rejects.push(Reject { index, record: record.to_vec(), reason }),
            }
        }
        let mut wrong: Vec<Option<String>> = vec![None; accepted.len()];
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (column, mut builder) in self.columns.iter().zip(builders) {
            let texts = builder.finish();
            let (values, rows) = column.convert(texts.clone());
            for row in rows {
                let reason = || format!("`{}` is no {} for {}", texts.value(row), column.data_type, column.name);
                wrong[row].get_or_insert_with(reason);
            }
            columns.push(values);
        }
        let accepted = accepted.into_iter().map(|(index, start, end)| (index, &bytes[start..end]));
        Parsed { columns, rejects }.without(accepted, wrong)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray as _;
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;

    fn format(delimiter: &str) -> Delimited {
        let columns = ["name", "n int"].map(|text| ColumnSpec::parse(text).expect("it is a column"));
        Delimited { delimiter: Finder::new(delimiter).into_owned(), columns: columns.into() }
    }

    #[test]
    fn fields_are_columns_and_what_does_not_fit_is_set_aside() {
        for delimiter in ["\t", ", "] {
            let mut records = Records::default();
            for fields in [["a", "1"].as_slice(), &["b"], &["c", "x"], &["a somewhat longer name", "2"]] {
                records.push(fields.join(delimiter).as_bytes());
            }
            records.push(b"\xff\t1");
            let parsed = format(delimiter).parse(&mut records);
            let names: Vec<_> = parsed.columns[0].as_string_view().iter().flatten().collect();
            assert_eq!(names, ["a", "a somewhat longer name"]);
            assert_eq!(parsed.columns[1].as_primitive::<Int32Type>().values(), &[1, 2]);
            let reasons: Vec<_> = parsed.rejects.iter().map(|one| (one.index, one.reason.as_str())).collect();
            let expected = [(1, "it has 1 fields, not 2"), (2, "`x` is no Int32 for n"), (4, "it is no UTF-8 text")];
            assert_eq!(reasons, expected);
        }
    }
}
