//! Results in the job's own database, written in the transaction of the batch: a reader sees each batch as a whole, and a
//! crash changes nothing. `sqlite3 CHECKPOINT/job.db` reads them while the job runs.

use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, Schema};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::Embedded;
use super::rows::{is_binary, texts};

/// A name within quotation marks.
pub fn quoted(name: &str) -> String {
    super::database::quoted(name, '"')
}

fn column_type(data_type: &DataType) -> &'static str {
    match data_type {
        // INTEGER as a key would be the number of the row, and never null.
        DataType::Boolean => "INT",
        // The largest are text, which INT would round.
        DataType::UInt64 => "",
        _ if data_type.is_integer() => "INT",
        _ if data_type.is_floating() => "REAL",
        _ if is_binary(data_type) => "BLOB",
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

/// Makes the table unless it is there. One that an earlier SQL of the job has made gets the columns that it has not; what
/// else is different is said.
pub fn fit(database: &Connection, table: &Embedded, schema: &Schema) -> rusqlite::Result<Result<(), String>> {
    create(database, table, schema)?;
    let mut select = database.prepare("SELECT name, type, pk > 0 FROM pragma_table_info(?)")?;
    let known = select.query_map([&table.table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let known: Vec<(String, String, bool)> = known.collect::<rusqlite::Result<_>>()?;
    let mut differences = Vec::new();
    for (name, kind, is_key) in &known {
        match schema.fields().iter().find(|field| field.name().eq_ignore_ascii_case(name)) {
            None => differences.push(format!("its column {name} is not in the result")),
            Some(field) if column_type(field.data_type()) != kind => {
                differences.push(format!("its column {name} is of another type"));
            }
            Some(field) if table.key.contains(field.name()) != *is_key => {
                differences.push(format!("its key {} {name}", if *is_key { "has" } else { "has not" }));
            }
            Some(_) => {}
        }
    }
    let is_new = |field: &str| !known.iter().any(|(name, ..)| name.eq_ignore_ascii_case(field));
    let new: Vec<_> = schema.fields().iter().filter(|field| is_new(field.name())).collect();
    let of_key = new.iter().filter(|field| table.key.contains(field.name()));
    differences.extend(of_key.map(|field| format!("it has no column {}, which is in the key", field.name())));
    let quoted_table = quoted(&table.table);
    if !differences.is_empty() {
        let why = differences.join(", ");
        return Ok(Err(format!(
            "table {}: {why}; give the sink another `table`, or remove this one with sqlite3: DROP TABLE {quoted_table}",
            table.table
        )));
    }
    for field in new {
        let (name, kind) = (quoted(field.name()), column_type(field.data_type()));
        database.execute_batch(&format!("ALTER TABLE {quoted_table} ADD COLUMN {name} {kind}"))?;
    }
    Ok(Ok(()))
}

/// Removes all rows.
pub fn clear(database: &Connection, table: &Embedded) -> rusqlite::Result<()> {
    database.execute(&format!("DELETE FROM {}", quoted(&table.table)), []).map(drop)
}

/// Writes rows; those with the key of one that is there take its place. In keys, null is a value as any other.
pub fn write(database: &Connection, table: &Embedded, rows: &[RecordBatch]) -> rusqlite::Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let schema = first.schema();
    let names: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
    let key: Vec<usize> = table.key.iter().filter_map(|name| schema.index_of(name).ok()).collect();
    let marks = vec!["?"; names.len()].join(", ");
    let verb = if key.is_empty() { "INSERT" } else { "INSERT OR REPLACE" };
    let table = quoted(&table.table);
    let mut insert =
        database.prepare_cached(&format!("{verb} INTO {table} ({}) VALUES ({marks})", names.join(", ")))?;
    let same: Vec<String> = key.iter().map(|column| format!("{} IS ?", names[*column])).collect();
    for rows in rows {
        let columns: Vec<Vec<Value>> = rows.columns().iter().map(values).collect();
        for row in 0..rows.num_rows() {
            // SQLite takes two nulls for different keys.
            if key.iter().any(|column| columns[*column][row] == Value::Null) {
                let mut delete =
                    database.prepare_cached(&format!("DELETE FROM {table} WHERE {}", same.join(" AND ")))?;
                delete.execute(params_from_iter(key.iter().map(|column| &columns[*column][row])))?;
            }
            insert.execute(params_from_iter(columns.iter().map(|column| &column[row])))?;
        }
    }
    Ok(())
}

/// A column's values for SQLite: numbers as numbers, bytes as bytes, everything else as text, and so are numbers that are
/// too large for it.
fn values(column: &ArrayRef) -> Vec<Value> {
    let kind = column.data_type();
    let number = match kind {
        _ if kind.is_integer() || *kind == DataType::Boolean => cast(column, &DataType::Int64),
        _ if kind.is_floating() => cast(column, &DataType::Float64),
        _ if is_binary(kind) => cast(column, &DataType::Binary),
        _ => return text_values(column),
    };
    let Ok(values) = number else { return text_values(column) };
    if values.null_count() > column.null_count() {
        return text_values(column);
    }
    let (value, rows) = (|row: usize| values.is_valid(row).then_some(row), 0..values.len());
    let of = |row: usize| match values.data_type() {
        DataType::Int64 => Value::Integer(values.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::Real(values.as_primitive::<Float64Type>().value(row)),
        _ => Value::Blob(values.as_binary::<i32>().value(row).to_vec()),
    };
    rows.map(|row| value(row).map_or(Value::Null, of)).collect()
}

fn text_values(column: &ArrayRef) -> Vec<Value> {
    match texts(column) {
        Ok(texts) => texts.iter().map(|text| text.map_or(Value::Null, |text| Value::Text(text.to_owned()))).collect(),
        Err(_) => vec![Value::Null; column.len()],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, UInt64Array};
    use datafusion::arrow::datatypes::Field;

    use super::*;

    #[test]
    fn null_is_a_key_and_large_numbers_are_kept() {
        let database = Connection::open_in_memory().expect("it opens");
        let table = Embedded { table: "t".to_owned(), key: vec!["k".to_owned()] };
        let rows = |n: u64| {
            let keys: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1)]));
            let numbers: ArrayRef = Arc::new(UInt64Array::from(vec![n, u64::MAX]));
            RecordBatch::try_from_iter([("k", keys), ("n", numbers)]).expect("they are as long")
        };
        create(&database, &table, &rows(1).schema()).expect("it is made");
        for n in [1, 2, 3] {
            write(&database, &table, &[rows(n)]).expect("they are written");
        }
        let mut select = database.prepare("select k, cast(n as text) from t order by k").expect("it is there");
        let found = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("it can be read");
        let found: Vec<(Option<i64>, String)> = found.collect::<Result<_, _>>().expect("they can be read");
        assert_eq!(found, [(None, "3".to_owned()), (Some(1), u64::MAX.to_string())]);
    }

    #[test]
    fn a_table_gets_new_columns_and_what_else_is_different_is_said() {
        let database = Connection::open_in_memory().expect("it opens");
        let fit = |key: &[&str], columns: &[(&str, DataType)]| {
            let table = Embedded { table: "t".to_owned(), key: key.iter().map(|name| (*name).to_owned()).collect() };
            let fields = columns.iter().map(|(name, of)| Field::new(*name, of.clone(), true));
            fit(&database, &table, &Schema::new(fields.collect::<Vec<_>>())).expect("the database answers")
        };
        let (k, n) = (("k", DataType::Utf8), ("n", DataType::Int64));
        let more = ("More", DataType::UInt64);
        let all = [k.clone(), n.clone(), more.clone()];
        assert_eq!(fit(&["k"], &[k.clone(), n.clone()]), Ok(()));
        assert_eq!(fit(&["k"], &all), Ok(()));
        let insert = "INSERT INTO t VALUES ('a', 1, '18446744073709551615')";
        database.execute_batch(insert).expect("it has the new column");
        assert_eq!(fit(&["k"], &all), Ok(()), "it is as it was made");
        for (key, columns, why) in [
            (vec!["k"], vec![k.clone(), n.clone()], "its column More is not in the result"),
            (vec!["k"], vec![k.clone(), ("n", DataType::Utf8), more.clone()], "its column n is of another type"),
            (vec![], all.to_vec(), "its key has k"),
            (vec!["k", "n"], all.to_vec(), "its key has not n"),
            (vec!["k", "x"], [&all[..], &[("x", DataType::Utf8)]].concat(), "it has no column x, which is in the key"),
        ] {
            let said = fit(&key, &columns).expect_err(why);
            assert!(said.starts_with(&format!("table t: {why}; give the sink another `table`")), "{said}");
        }
    }
}
