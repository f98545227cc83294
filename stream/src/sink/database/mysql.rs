//! Tables in MySQL or MariaDB: the keys of [`database`](super), with `url = "mysql://user:password@host:3306/database"`.
//!
//! A table that `create` makes has InnoDB as its engine and compares text byte by byte, as the job does: `Word` and `word`
//! are two keys. The text of a key may have 768 characters; several share them. In a table that is there the columns of
//! `key` must be its primary key or a unique one. Times with a zone are written as UTC.

use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, SchemaRef, TimeUnit, UInt64Type};
use datafusion::arrow::error::ArrowError;
use futures_util::TryFutureExt as _;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Opts, OptsBuilder, Params, Pool, PoolConstraints, PoolOpts, TxOpts, Value};
use tokio::time::timeout;

use super::{BATCHES, DatabaseConfig, Target, quoted, stored};
use crate::batch::BatchInfo;
use crate::job::{JobError, Keys};
use crate::sink::server::{CONNECT, NOT_ENCRYPTED, Reach};
use crate::sink::{JobContext, Sink, SinkConfig, SinkError, rows};

/// What a statement can hold.
const MAX_VALUES: usize = 65_535;
/// What a statement holds at most, in rows and in bytes; the server's limit for a packet is 16 MiB, or what it is set to.
const MAX_ROWS: usize = 1_000;
const MAX_BYTES: usize = 1 << 20;
/// The bytes that a key of InnoDB has at most, what a character may take of them, and what a value that is no text may.
const MAX_KEY_BYTES: usize = 3072;
const CHARACTER_BYTES: usize = 4;
const VALUE_BYTES: usize = 16;
/// Errors without a telling state that come again with every try: no default, and a value of a wrong kind.
const LASTING: [u16; 2] = [1364, 1366];

impl Reach for Opts {
    fn parse(url: &str) -> Result<(String, Self), String> {
        let expected = "expected mysql://user:password@host:3306/database";
        let opts = Opts::from_url(url).map_err(|error| format!("{error}; {expected}"))?;
        let Some(database) = opts.db_name() else { return Err(format!("it names no database; {expected}")) };
        if opts.ssl_opts().is_some() {
            return Err(NOT_ENCRYPTED.to_owned());
        }
        Ok((format!("mysql {}:{}/{database}", opts.ip_or_hostname(), opts.tcp_port()), opts))
    }
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SinkConfig>, JobError> {
    Ok(Box::new(keys.read::<DatabaseConfig<Opts>>()?))
}

impl SinkConfig for DatabaseConfig<Opts> {
    fn check(&self, schema: &SchemaRef) -> Result<(), String> {
        Self::check(self, schema)
    }

    fn owns(&self, _: &str, _: &JobContext, schema: &SchemaRef) -> Vec<String> {
        Self::owns(self, schema)
    }

    fn build(&self, name: &str, job: &JobContext) -> Box<dyn Sink> {
        let pool = PoolOpts::new().with_constraints(PoolConstraints::new(0, 2).expect("none is less than two"));
        let options = OptsBuilder::from_opts(self.url.reach.clone())
            .pool_opts(pool)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            // A server that cuts what does not fit would lose a part of it without a word.
            .init(vec!["SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES')"]);
        let options = Opts::from(options);
        Box::new(MySql { pool: Pool::new(options.clone()), options, target: self.target(name, job) })
    }
}

struct MySql {
    options: Opts,
    pool: Pool,
    target: Target,
}

impl MySql {
    async fn connect(&self) -> Result<Conn, SinkError> {
        match timeout(CONNECT, self.pool.get_conn()).await {
            Ok(connection) => connection.map_err(|error| self.failed(&error)),
            Err(_) => Err(self.target.error("no connection within 10 s")),
        }
    }

    fn failed(&self, error: &Error) -> SinkError {
        match error {
            Error::Server(error) => {
                let why = format!("{} ({})", error.message, error.code);
                if LASTING.contains(&error.code) {
                    self.target.lasting(&why)
                } else {
                    self.target.refused(&error.state, &why)
                }
            }
            other => self.target.error(&other.to_string()),
        }
    }

    async fn prepare(&self, connection: &mut Conn, schema: &SchemaRef) -> Result<(), SinkError> {
        let (target, failed) = (&self.target, |error| self.failed(&error));
        // Who may not make tables may still write to this one.
        if self.columns(connection, None, BATCHES).await.map_err(failed)?.is_empty() {
            connection
                .query_drop(format!(
                    "CREATE TABLE IF NOT EXISTS {BATCHES} (job VARCHAR(255) NOT NULL, sink VARCHAR(255) NOT NULL, \
                     batch BIGINT NOT NULL, time BIGINT NOT NULL, PRIMARY KEY (job, sink)) \
                     ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
                ))
                .await
                .map_err(failed)?;
        }
        let insert = format!("INSERT IGNORE INTO {BATCHES} VALUES (?, ?, 0, 0)");
        connection.exec_drop(insert, (&target.job, &target.sink)).await.map_err(failed)?;
        let (in_schema, table) = target.parts();
        let mut columns = self.columns(connection, in_schema, table).await.map_err(failed)?;
        if columns.is_empty() && target.create {
            let collation = exact_collation(connection).await.map_err(failed)?;
            let create = self.create(schema);
            let options = format!("ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {collation}");
            connection.query_drop(format!("{create} {options}")).await.map_err(failed)?;
            columns = self.columns(connection, in_schema, table).await.map_err(failed)?;
        }
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        target.check_columns(schema, &columns, str::eq_ignore_ascii_case)?;
        if !target.key.is_empty() && !self.is_unique(connection).await.map_err(failed)? {
            let names = target.quoted_key('`');
            let why = format!("({names}) is no unique key of it; ALTER TABLE … ADD PRIMARY KEY ({names}) makes one");
            return Err(target.lasting(&why));
        }
        Ok(())
    }

    /// SQL that makes the table. Texts of the key share what a key may have.
    fn create(&self, schema: &SchemaRef) -> String {
        let key = &self.target.key;
        let kinds = schema.fields().iter().filter(|field| key.contains(field.name()));
        let texts = kinds.filter(|field| column_type(field.data_type()) == LONG_TEXT).count();
        let bytes = MAX_KEY_BYTES.saturating_sub(VALUE_BYTES * (key.len() - texts));
        let length = bytes / CHARACTER_BYTES / texts.max(1);
        self.target.create(schema, '`', |name, data_type| {
            let kind = column_type(data_type);
            let is_in_key = key.iter().any(|key| key == name);
            if is_in_key && kind == LONG_TEXT { format!("VARCHAR({length})") } else { kind }
        })
    }

    /// The columns of a table; none when it is not there.
    async fn columns(&self, connection: &mut Conn, schema: Option<&str>, table: &str) -> Result<Vec<String>, Error> {
        let select = "SELECT column_name FROM information_schema.columns \
                      WHERE table_schema = IFNULL(?, DATABASE()) AND table_name = ? ORDER BY ordinal_position";
        connection.exec(select, (schema, table)).await
    }

    /// Whether the columns of the key tell the table's rows apart.
    async fn is_unique(&self, connection: &mut Conn) -> Result<bool, Error> {
        let (schema, table) = self.target.parts();
        let select = "SELECT index_name, column_name FROM information_schema.statistics \
                      WHERE table_schema = IFNULL(?, DATABASE()) AND table_name = ? AND non_unique = 0 \
                      ORDER BY index_name, seq_in_index";
        let found: Vec<(String, String)> = connection.exec(select, (schema, table)).await?;
        let key = &self.target.key;
        let is_in_key = |column: &str| key.iter().any(|name| name.eq_ignore_ascii_case(column));
        let mut indexes = found.chunk_by(|one, next| one.0 == next.0);
        Ok(indexes.any(|index| index.len() == key.len() && index.iter().all(|(_, column)| is_in_key(column))))
    }

    /// SQL that writes so many rows.
    fn insert(&self, schema: &SchemaRef, rows: usize) -> String {
        let names: Vec<String> = schema.fields().iter().map(|field| quoted(field.name(), '`')).collect();
        let row = format!("({})", vec!["?"; names.len()].join(","));
        let table = self.target.quoted('`');
        let mut insert = format!("INSERT INTO {table} ({}) VALUES {}", names.join(", "), vec![row; rows].join(","));
        if !self.target.key.is_empty() {
            let of_key: Vec<String> = self.target.key.iter().map(|name| quoted(name, '`')).collect();
            let others: Vec<&String> = names.iter().filter(|name| !of_key.contains(name)).collect();
            let changed = if others.is_empty() { of_key.iter().collect() } else { others };
            let changed: Vec<String> = changed.iter().map(|name| format!("{name} = VALUES({name})")).collect();
            insert.push_str(&format!(" ON DUPLICATE KEY UPDATE {}", changed.join(", ")));
        }
        insert
    }

    async fn put(&self, to: &mut mysql_async::Transaction<'_>, rows: &RecordBatch) -> Result<(), SinkError> {
        let columns = rows.columns().iter().map(values).collect::<Result<Vec<_>, _>>();
        let mut columns = columns.map_err(|error| self.target.error(&error.to_string()))?;
        let most = MAX_ROWS.min(MAX_VALUES / columns.len().max(1)).max(1);
        let (mut pending, mut count, mut bytes) = (Vec::new(), 0, 0);
        for row in 0..rows.num_rows() {
            for column in &mut columns {
                let value = std::mem::replace(&mut column[row], Value::NULL);
                bytes += if let Value::Bytes(text) = &value { text.len() } else { 8 };
                pending.push(value);
            }
            count += 1;
            if count == most || bytes >= MAX_BYTES || row + 1 == rows.num_rows() {
                let insert = self.insert(&rows.schema(), count);
                let values = Params::Positional(std::mem::take(&mut pending));
                let written = to.exec_drop(insert, values).map_err(|error| self.failed(&error));
                self.target.answer(written).await?;
                (count, bytes) = (0, 0);
            }
        }
        Ok(())
    }
}

/// A collation of the server in which texts are the same only when their bytes are; the first two do not overlook blanks
/// at the end.
async fn exact_collation(connection: &mut Conn) -> Result<&'static str, Error> {
    let known: Vec<String> = connection.query("SELECT collation_name FROM information_schema.collations").await?;
    let exact = ["utf8mb4_0900_bin", "utf8mb4_nopad_bin"];
    Ok(exact.into_iter().find(|name| known.iter().any(|known| known == name)).unwrap_or("utf8mb4_bin"))
}

const LONG_TEXT: &str = "LONGTEXT";

fn column_type(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal128(precision, scale) => return format!("DECIMAL({precision}, {scale})"),
        DataType::Date32 => "DATE",
        DataType::Timestamp(TimeUnit::Second, _) => "DATETIME",
        DataType::Timestamp(TimeUnit::Millisecond, _) => "DATETIME(3)",
        DataType::Timestamp(..) => "DATETIME(6)",
        other if rows::is_binary(other) => "LONGBLOB",
        _ => LONG_TEXT,
    };
    name.to_owned()
}

/// A column's values: numbers as numbers, everything else as text that the server reads.
fn values(column: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    let of = |value: Option<Value>| value.unwrap_or(Value::NULL);
    Ok(match column.data_type() {
        DataType::UInt64 => column.as_primitive::<UInt64Type>().iter().map(|v| of(v.map(Value::UInt))).collect(),
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().map(|v| of(v.map(Value::Float))).collect(),
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().map(|v| of(v.map(Value::Double))).collect(),
        kind if kind.is_integer() || *kind == DataType::Boolean => {
            let numbers = cast(column, &DataType::Int64)?;
            numbers.as_primitive::<Int64Type>().iter().map(|v| of(v.map(Value::Int))).collect()
        }
        kind if rows::is_binary(kind) => {
            let bytes = cast(column, &DataType::Binary)?;
            bytes.as_binary::<i32>().iter().map(|v| of(v.map(|bytes| Value::Bytes(bytes.to_vec())))).collect()
        }
        kind => {
            let texts = rows::texts(column)?;
            // The server knows no zones.
            let zone = if matches!(kind, DataType::Timestamp(_, Some(_))) { "Z" } else { "" };
            let bytes = |text: &str| Value::Bytes(text.strip_suffix(zone).unwrap_or(text).as_bytes().to_vec());
            texts.iter().map(|v| of(v.map(bytes))).collect()
        }
    })
}

#[async_trait]
impl Sink for MySql {
    async fn open(&mut self, schema: &SchemaRef) -> Result<(), SinkError> {
        // Connections from before may hang.
        self.pool = Pool::new(self.options.clone());
        let mut connection = self.connect().await?;
        self.target.answer(self.prepare(&mut connection, schema)).await
    }

    async fn write(&mut self, batch: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError> {
        let (target, failed) = (&self.target, |error| self.failed(&error));
        let mut connection = self.connect().await?;
        let transaction = connection.start_transaction(TxOpts::default()).map_err(failed);
        let mut transaction = target.answer(transaction).await?;
        // Another connection of ours that the server still holds for alive comes to its end first.
        let select = format!("SELECT batch, time FROM {BATCHES} WHERE job = ? AND sink = ? FOR UPDATE");
        let last = transaction.exec_first(select, (&target.job, &target.sink)).map_err(failed);
        let last = target.answer(last).await?;
        if last == Some(stored(batch)) {
            return Ok(());
        }
        for rows in rows {
            self.put(&mut transaction, rows).await?;
        }
        let (number, time) = stored(batch);
        let replace = format!("REPLACE INTO {BATCHES} VALUES (?, ?, ?, ?)");
        let noted = transaction.exec_drop(replace, (&target.job, &target.sink, number, time)).map_err(failed);
        target.answer(noted).await?;
        target.answer(transaction.commit().map_err(failed)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let (place, _) = Opts::parse("mysql://root:123456@db.example:3307/shop").expect("it is one");
        assert_eq!(place, "mysql db.example:3307/shop");
        assert!(Opts::parse("mysql://root@db.example").expect_err("no database").starts_with("it names no database"));
        assert!(Opts::parse("postgres://root@db.example/shop").is_err());
        assert!(Opts::parse("mysql://root@db.example/shop?require_ssl=true").is_err_and(|why| why == NOT_ENCRYPTED));
    }
}
