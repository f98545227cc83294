//! Rows as text.

use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::WriterBuilder;
use datafusion::arrow::json::writer::LineDelimited;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

/// How a row is written on a line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style<'a> {
    /// `(hello,2)`; a single value stands by itself, as a number or a string does.
    Tuple,
    /// `hello,2`, with whatever stands between the values. They are not quoted.
    Delimited(&'a str),
    /// `{"word":"hello","n":2}`.
    Json,
}

/// Writes rows, each on a line.
pub fn write(rows: &RecordBatch, style: Style<'_>, text: &mut String) -> Result<(), ArrowError> {
    let (delimiter, brackets) = match style {
        Style::Json => {
            text.push_str(&json(rows, true)?);
            return Ok(());
        }
        Style::Tuple => (",", rows.num_columns() > 1),
        Style::Delimited(delimiter) => (delimiter, false),
    };
    let options = FormatOptions::default().with_null("null");
    let columns = rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    for row in 0..rows.num_rows() {
        text.push_str(if brackets { "(" } else { "" });
        for (index, column) in columns.iter().enumerate() {
            write!(text, "{}{}", if index > 0 { delimiter } else { "" }, column.value(row)).ok();
        }
        text.push_str(if brackets { ")\n" } else { "\n" });
    }
    Ok(())
}

/// Rows as JSON objects, each on a line. Values that are missing are `null`, or are left out.
pub fn json(rows: &RecordBatch, with_nulls: bool) -> Result<String, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(with_nulls).build::<_, LineDelimited>(&mut bytes);
    writer.write(rows)?;
    writer.finish()?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A column as text. Times with a zone are those of UTC, with a `Z`; bytes are hexadecimal digits.
pub fn texts(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let mut column = Arc::clone(column);
    if let DataType::Timestamp(unit, Some(_)) = column.data_type() {
        column = cast(&column, &DataType::Timestamp(*unit, Some("+00:00".into())))?;
    }
    if !is_binary(column.data_type())
        && let Ok(texts) = cast(&column, &DataType::Utf8)
    {
        return Ok(texts.as_string::<i32>().clone());
    }
    let options = FormatOptions::default();
    let format = ArrayFormatter::try_new(&column, &options)?;
    Ok((0..column.len()).map(|row| column.is_valid(row).then(|| format.value(row).to_string())).collect())
}

/// Whether values are bytes.
pub fn is_binary(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    matches!(data_type, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Decimal128Array, Int64Array, TimestampMillisecondArray};

    use super::*;

    fn written(rows: &RecordBatch, style: Style<'_>) -> String {
        let mut text = String::new();
        write(rows, style, &mut text).expect("they can be written");
        text
    }

    #[test]
    fn styles() {
        let words: ArrayRef = Arc::new(StringArray::from(vec![Some("it's"), None]));
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![3, 4]));
        let rows = RecordBatch::try_from_iter([("word", Arc::clone(&words)), ("n", counts)]).expect("they are as long");
        assert_eq!(written(&rows, Style::Tuple), "(it's,3)\n(null,4)\n");
        assert_eq!(written(&rows, Style::Delimited("\t")), "it's\t3\nnull\t4\n");
        assert_eq!(written(&rows, Style::Json), "{\"word\":\"it's\",\"n\":3}\n{\"word\":null,\"n\":4}\n");
        let one = RecordBatch::try_from_iter([("word", words)]).expect("one column");
        assert_eq!(written(&one, Style::Tuple), "it's\nnull\n");
    }

    #[test]
    fn times_and_decimals_as_text() {
        let time = TimestampMillisecondArray::from(vec![Some(1_590_233_400_000), None]);
        let zoned: ArrayRef = Arc::new(time.clone().with_timezone("Asia/Shanghai"));
        assert_eq!(texts(&zoned).expect("it can be shown").value(0), "2020-05-23T11:30:00Z");
        let plain = texts(&(Arc::new(time) as ArrayRef)).expect("it can be shown");
        assert_eq!((plain.value(0), plain.is_null(1)), ("2020-05-23T11:30:00", true));
        let price = Decimal128Array::from(vec![1250]).with_precision_and_scale(10, 2).expect("it fits");
        assert_eq!(texts(&(Arc::new(price) as ArrayRef)).expect("it can be shown").value(0), "12.50");
    }
}
