//! A column of a source: its name and its type.

use std::sync::Arc;

use datafusion::arrow::array::{Array as _, ArrayRef, StringViewArray, new_null_array};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use serde::Deserialize;
use serde::de::Error as _;

/// A column, written as in SQL: `"price double"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
}

impl ColumnSpec {
    /// Reads `name type`; without a type it is text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, kind) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), "text"));
        if name.is_empty() {
            return Err("a column is written as \"name type\"".to_owned());
        }
        Ok(Self { name: name.to_owned(), data_type: data_type(kind.trim())? })
    }

    /// The column as Arrow names it.
    pub fn field(&self) -> Field {
        Field::new(&self.name, self.data_type.clone(), true)
    }

    /// Turns texts into values of the type. Gives them, null where there is none, and the indices of texts that are
    /// none.
    pub fn convert(&self, texts: StringViewArray) -> (ArrayRef, Vec<usize>) {
        if self.data_type == DataType::Utf8View {
            return (Arc::new(texts), Vec::new());
        }
        let safe = CastOptions { safe: true, ..CastOptions::default() };
        let values = cast_with_options(&texts, &self.data_type, &safe)
            .unwrap_or_else(|_| new_null_array(&self.data_type, texts.len()));
        let wrong = if values.null_count() == texts.null_count() {
            Vec::new()
        } else {
            (0..texts.len()).filter(|row| values.is_null(*row) && texts.is_valid(*row)).collect()
        };
        (values, wrong)
    }
}

fn data_type(name: &str) -> Result<DataType, String> {
    let name = name.to_ascii_lowercase();
    Ok(match name.as_str() {
        "text" | "string" | "varchar" => DataType::Utf8View,
        "int" | "integer" => DataType::Int32,
        "bigint" | "long" => DataType::Int64,
        "double" => DataType::Float64,
        "float" | "real" => DataType::Float32,
        "boolean" | "bool" => DataType::Boolean,
        "timestamp" => DataType::Timestamp(TimeUnit::Millisecond, None),
        "date" => DataType::Date32,
        _ => return decimal(&name).ok_or_else(|| unknown(&name)),
    })
}

/// What a type is called in a job file; other types are called as the SQL engine does.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8 => "text".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Float32 => "float".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Timestamp(TimeUnit::Millisecond, None) => "timestamp".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision}, {scale})"),
        other => other.to_string(),
    }
}

fn decimal(name: &str) -> Option<DataType> {
    let inner = name.strip_prefix("decimal")?.trim().strip_prefix('(')?.strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
    let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    ((1..=38).contains(&precision) && (0..=precision as i8).contains(&scale))
        .then_some(DataType::Decimal128(precision, scale))
}

fn unknown(name: &str) -> String {
    let known = ["text", "int", "bigint", "double", "float", "boolean", "timestamp", "date", "decimal(p, s)"];
    let near = crate::job::keys::did_you_mean(name, known);
    format!("`{name}` is no type of a column: expected one of {}{near}", known.join(", "))
}

impl<'de> Deserialize<'de> for ColumnSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_written_as_in_sql() {
        let column = |text| ColumnSpec::parse(text).map(|column| column.data_type);
        assert_eq!(column("price double"), Ok(DataType::Float64));
        assert_eq!(column("name"), Ok(DataType::Utf8View));
        assert_eq!(column("sum DECIMAL(10, 2)"), Ok(DataType::Decimal128(10, 2)));
        assert!(column("day dat").expect_err("it is none").ends_with("did you mean `date`?"));
        assert!(column("n itn").expect_err("it is none").ends_with("did you mean `int`?"));
        assert!(column("sum decimal(99)").is_err());
        for kind in ["text", "int", "bigint", "double", "float", "boolean", "timestamp", "date", "decimal(10, 2)"] {
            assert_eq!(data_type(kind).map(|found| type_name(&found)), Ok(kind.to_owned()));
        }
        assert!(column("").is_err());
    }

    #[test]
    fn texts_that_are_no_value_are_told_apart_from_none() {
        let column = ColumnSpec::parse("n int").expect("it is a column");
        let (values, wrong) = column.convert(StringViewArray::from(vec![Some("1"), None, Some("x")]));
        assert_eq!((values.len(), values.null_count(), wrong), (3, 2, vec![2]));
    }
}
