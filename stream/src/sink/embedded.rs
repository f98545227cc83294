//! Results in the job's own database, written in the transaction of the batch: a reader sees each batch as a whole, and a
//! crash changes nothing. `sqlite3 CHECKPOINT/job.db` reads them while the job runs.

use datafusion::arrow::array::{Array, AsArray as _, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, Schema};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::Embedded;

/// A name within quotation marks.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn column_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "INTEGER",
        _ if data_type.is_integer() => "INTEGER",
        _ if data_type.is_floating() => "REAL",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BLOB",
        _ => "TEXT",
    }
}

/// Makes the table unless it is there.
pub fn create(database: &Connection, table: &Embedded, schema: &Schema) -> rusqlite::Result<()> {
    let columns = schema.fields().iter();
    let mut parts: Vec<String> =
        columns.map(|field| format!("{} {}", quoted(field.name()), column_type(field.data_type()))).collect();
    if !table.key.is_empty() {
        let key: Vec<String> = table.key.iter().map(|name| quoted(name)).collect();
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    database.execute_batch(&format!("CREATE TABLE IF NOT EXISTS {} ({})", quoted(&table.table), parts.join(", ")))
}

/// Removes all rows.
pub fn clear(database: &Connection, table: &Embedded) -> rusqlite::Result<()> {
    database.execute(&format!("DELETE FROM {}", quoted(&table.table)), []).map(drop)
}

/// Writes rows; those with the key of one that is there take its place.
pub fn write(database: &Connection, table: &Embedded, rows: &[RecordBatch]) -> rusqlite::Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let names: Vec<String> = first.schema().fields().iter().map(|field| quoted(field.name())).collect();
    let marks = vec!["?"; names.len()].join(", ");
    let verb = if table.key.is_empty() { "INSERT" } else { "INSERT OR REPLACE" };
    let table = quoted(&table.table);
    let mut insert =
        database.prepare_cached(&format!("{verb} INTO {table} ({}) VALUES ({marks})", names.join(", ")))?;
    for rows in rows {
        let columns: Vec<Vec<Value>> = rows.columns().iter().map(|column| values(column.as_ref())).collect();
        for row in 0..rows.num_rows() {
            insert.execute(params_from_iter(columns.iter().map(|column| &column[row])))?;
        }
    }
    Ok(())
}

/// A column's values for SQLite: numbers as numbers, everything else as text.
pub fn values(column: &dyn Array) -> Vec<Value> {
    let rows = 0..column.len();
    let failed = |_| Value::Null;
    match column.data_type() {
        kind if kind.is_integer() || *kind == DataType::Boolean => match cast(column, &DataType::Int64) {
            Ok(values) => {
                values.as_primitive::<Int64Type>().iter().map(|v| v.map_or(Value::Null, Value::Integer)).collect()
            }
            Err(_) => rows.map(failed).collect(),
        },
        kind if kind.is_floating() => match cast(column, &DataType::Float64) {
            Ok(values) => {
                values.as_primitive::<Float64Type>().iter().map(|v| v.map_or(Value::Null, Value::Real)).collect()
            }
            Err(_) => rows.map(failed).collect(),
        },
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => match cast(column, &DataType::Binary) {
            Ok(values) => {
                let values = values.as_binary::<i32>().iter();
                values.map(|v| v.map_or(Value::Null, |bytes| Value::Blob(bytes.to_vec()))).collect()
            }
            Err(_) => rows.map(failed).collect(),
        },
        _ => match cast(column, &DataType::Utf8) {
            Ok(values) => {
                let values = values.as_string::<i32>().iter();
                values.map(|v| v.map_or(Value::Null, |text| Value::Text(text.to_owned()))).collect()
            }
            Err(_) => rows.map(failed).collect(),
        },
    }
}
