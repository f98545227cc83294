//! Tables in PostgreSQL: the keys of [`database`](super), with `url = "postgres://user:password@host:5432/database"`.
//!
//! In a table that is there the columns of `key` must be its primary key or a unique one. Values are sent as text, and the
//! server makes the column's type of them: a column may have any type that the texts can be read as. Times with a zone are
//! written as UTC. A statement waits 10 s for a lock and takes 60 s at most; then the batch is tried again.

use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{Array as _, ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::error::ArrowError;
use deadpool_postgres::tokio_postgres::config::{ChannelBinding, Host, SslMode};
use deadpool_postgres::tokio_postgres::types::ToSql;
use deadpool_postgres::tokio_postgres::{self, Config, NoTls};
use deadpool_postgres::{Client, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Transaction};
use futures_util::TryFutureExt as _;

use super::{BATCHES, DatabaseConfig, Target, quoted, stored};
use crate::batch::BatchInfo;
use crate::job::{JobError, Keys};
use crate::sink::server::{ANSWER, CONNECT, NOT_ENCRYPTED, Reach, STATEMENT};
use crate::sink::{JobContext, Sink, SinkConfig, SinkError, rows};

/// The most rows of a statement.
const MAX_ROWS: usize = 5_000;
/// How long to wait for a lock, which a session of a machine that has vanished may hold.
const LOCK: Duration = Duration::from_secs(10);
/// What PostgreSQL says when the columns of an upsert are no unique key.
const NOT_UNIQUE: &str = "42P10";

impl Reach for Config {
    fn parse(url: &str) -> Result<(String, Self), String> {
        let expected = "expected postgres://user:password@host:5432/database";
        let mut config: Self = url.parse().map_err(|error| format!("{error}; {expected}"))?;
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => return Err(format!("it names no host; {expected}")),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        // As with all its clients, the default is the user's name.
        let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
        let place = format!("postgres {host}:{port}/{database}");
        config.connect_timeout(CONNECT).keepalives_idle(ANSWER).tcp_user_timeout(ANSWER);
        if config.get_ssl_mode() == SslMode::Require || config.get_channel_binding() == ChannelBinding::Require {
            return Err(NOT_ENCRYPTED.to_owned());
        }
        if config.get_application_name().is_none() {
            config.application_name("flume-rs-stream");
        }
        Ok((place, config))
    }
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SinkConfig>, JobError> {
    Ok(Box::new(keys.read::<DatabaseConfig<Config>>()?))
}

impl SinkConfig for DatabaseConfig<Config> {
    fn check(&self, schema: &SchemaRef) -> Result<(), String> {
        Self::check(self, schema)
    }

    fn owns(&self, _: &str, _: &JobContext, schema: &SchemaRef) -> Vec<String> {
        Self::owns(self, schema)
    }

    fn build(&self, name: &str, job: &JobContext) -> Box<dyn Sink> {
        let config = self.url.reach.clone();
        Box::new(Postgres { pool: pool(&config), config, target: self.target(name, job), insert: String::new() })
    }
}

fn pool(config: &Config) -> Pool {
    let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config.clone(), NoTls, manager);
    let wait: Option<Duration> = Some(CONNECT);
    let pool = Pool::builder(manager).max_size(2).runtime(Runtime::Tokio1).create_timeout(wait).build();
    pool.expect("a pool with a runtime may have time limits")
}

struct Postgres {
    config: Config,
    pool: Pool,
    target: Target,
    /// SQL that writes rows, once it is known which types the table's columns have.
    insert: String,
}

impl Postgres {
    async fn connect(&self) -> Result<Client, SinkError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => self.failed(&error),
            other => self.target.error(&other.to_string()),
        })
    }

    fn failed(&self, error: &tokio_postgres::Error) -> SinkError {
        let Some(error) = error.as_db_error() else {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            return self.target.error(&format!("{error}{cause}"));
        };
        let state = error.code().code();
        let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        let hint = if state == NOT_UNIQUE {
            let names = self.target.quoted_key('"');
            format!("; ({names}) is no unique key of the table, ALTER TABLE … ADD PRIMARY KEY ({names}) makes one")
        } else {
            String::new()
        };
        self.target.refused(state, &format!("{}{detail} ({state}){hint}", error.message()))
    }

    /// The columns of a table and their types; none when it is not there.
    async fn columns(&self, client: &Client, table: &str) -> Result<Vec<(String, String)>, SinkError> {
        let select = "SELECT attname::text, format_type(atttypid, -1) FROM pg_attribute \
                      WHERE attrelid = to_regclass($1::text) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let rows = client.query(select, &[&table]).await.map_err(|error| self.failed(&error))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn prepare(&self, client: &Client, schema: &SchemaRef) -> Result<String, SinkError> {
        let (target, failed) = (&self.target, |error| self.failed(&error));
        // Who may not make tables may still write to this one.
        if self.columns(client, BATCHES).await?.is_empty() {
            let create = format!(
                "CREATE TABLE IF NOT EXISTS {BATCHES} (job TEXT NOT NULL, sink TEXT NOT NULL, batch BIGINT NOT NULL, \
                 time BIGINT NOT NULL, PRIMARY KEY (job, sink))"
            );
            client.batch_execute(&create).await.map_err(failed)?;
        }
        let insert = format!("INSERT INTO {BATCHES} VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING");
        client.execute(&insert, &[&target.job, &target.sink]).await.map_err(failed)?;
        let table = target.quoted('"');
        let mut columns = self.columns(client, &table).await?;
        if columns.is_empty() && target.create {
            let create = target.create(schema, '"', |_, data_type| column_type(data_type));
            client.batch_execute(&create).await.map_err(failed)?;
            columns = self.columns(client, &table).await?;
        }
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        target.check_columns(schema, &names, str::eq)?;
        let types = schema.fields().iter().filter_map(|field| columns.iter().find(|(name, _)| name == field.name()));
        Ok(self.insert(&types.cloned().collect::<Vec<_>>()))
    }

    /// SQL that writes rows of these columns and types, which come as one array of texts for each column.
    fn insert(&self, columns: &[(String, String)]) -> String {
        let names: Vec<String> = columns.iter().map(|(name, _)| quoted(name, '"')).collect();
        let typed = |index: usize| format!("v.c{index}::{}", columns[index].1);
        let all: Vec<String> = (0..columns.len()).map(typed).collect();
        let arrays: Vec<String> = (1..=columns.len()).map(|number| format!("${number}::text[]")).collect();
        let aliases: Vec<String> = (0..columns.len()).map(|index| format!("c{index}")).collect();
        let from = format!("unnest({}) WITH ORDINALITY AS v({}, place)", arrays.join(", "), aliases.join(", "));
        let into = format!("INSERT INTO {} ({})", self.target.quoted('"'), names.join(", "));
        if self.target.key.is_empty() {
            return format!("{into} SELECT {} FROM {from}", all.join(", "));
        }
        // A statement may change a row only once: the last one of a key counts.
        let is_key = |index: &usize| self.target.key.contains(&columns[*index].0);
        let key: Vec<String> = (0..columns.len()).filter(is_key).map(typed).collect();
        let key = key.join(", ");
        let changed: Vec<String> = (0..columns.len())
            .filter(|index| !is_key(index))
            .map(|index| format!("{} = EXCLUDED.{}", names[index], names[index]))
            .collect();
        let action =
            if changed.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", changed.join(", ")) };
        format!(
            "{into} SELECT DISTINCT ON ({key}) {} FROM {from} ORDER BY {key}, v.place DESC ON CONFLICT ({}) DO {action}",
            all.join(", "),
            self.target.quoted_key('"')
        )
    }

    async fn put(&self, to: &Transaction<'_>, rows: &RecordBatch) -> Result<(), SinkError> {
        let columns = rows.columns().iter().map(texts).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| self.target.error(&error.to_string()))?;
        let failed = |error| self.failed(&error);
        let insert = self.target.answer(to.prepare_cached(&self.insert).map_err(failed)).await?;
        for start in (0..rows.num_rows()).step_by(MAX_ROWS) {
            let count = MAX_ROWS.min(rows.num_rows() - start);
            let columns: Vec<StringArray> = columns.iter().map(|column| column.slice(start, count)).collect();
            let arrays: Vec<Vec<Option<&str>>> = columns.iter().map(|column| column.iter().collect()).collect();
            let arrays: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|array| array as _).collect();
            self.target.answer(to.execute(&insert, &arrays).map_err(failed)).await?;
        }
        Ok(())
    }
}

/// A column's values as texts that the server reads.
fn texts(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let texts = rows::texts(column)?;
    Ok(if rows::is_binary(column.data_type()) {
        texts.iter().map(|digits| digits.map(|digits| format!("\\x{digits}"))).collect()
    } else {
        texts
    })
}

fn column_type(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "SMALLINT",
        DataType::Int32 | DataType::UInt16 => "INTEGER",
        DataType::Int64 | DataType::UInt32 => "BIGINT",
        DataType::UInt64 => "NUMERIC(20)",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE PRECISION",
        DataType::Decimal128(precision, scale) => return format!("NUMERIC({precision}, {scale})"),
        DataType::Date32 => "DATE",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ",
        other if rows::is_binary(other) => "BYTEA",
        _ => "TEXT",
    };
    name.to_owned()
}

#[async_trait]
impl Sink for Postgres {
    async fn open(&mut self, schema: &SchemaRef) -> Result<(), SinkError> {
        // Connections from before may hang.
        self.pool = pool(&self.config);
        let client = self.connect().await?;
        self.insert = self.target.answer(self.prepare(&client, schema)).await?;
        Ok(())
    }

    async fn write(&mut self, batch: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError> {
        let (target, failed) = (&self.target, |error| self.failed(&error));
        let mut client = self.connect().await?;
        let transaction = target.answer(client.transaction().map_err(failed)).await?;
        let limits = format!(
            "SET LOCAL lock_timeout = '{}s'; SET LOCAL statement_timeout = '{}s'",
            LOCK.as_secs(),
            STATEMENT.as_secs()
        );
        target.answer(transaction.batch_execute(&limits).map_err(failed)).await?;
        // Another connection of ours that the server still holds for alive comes to its end first.
        let select = format!("SELECT batch, time FROM {BATCHES} WHERE job = $1 AND sink = $2 FOR UPDATE");
        let select = target.answer(transaction.prepare_cached(&select).map_err(failed)).await?;
        let who = [&target.job as &(dyn ToSql + Sync), &target.sink];
        let last = transaction.query_opt(&select, &who).map_err(failed);
        let last = target.answer(last).await?;
        let (number, time) = stored(batch);
        if last.is_some_and(|last| (last.get(0), last.get(1)) == (number, time)) {
            return Ok(());
        }
        for rows in rows {
            self.put(&transaction, rows).await?;
        }
        let update = format!(
            "INSERT INTO {BATCHES} VALUES ($1, $2, $3, $4) \
             ON CONFLICT (job, sink) DO UPDATE SET batch = EXCLUDED.batch, time = EXCLUDED.time"
        );
        let update = target.answer(transaction.prepare_cached(&update).map_err(failed)).await?;
        let noted = [&target.job as &(dyn ToSql + Sync), &target.sink, &number, &time];
        target.answer(transaction.execute(&update, &noted).map_err(failed)).await?;
        target.answer(transaction.commit().map_err(failed)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let (place, _) = Config::parse("postgres://me:secret@db.example/shop").expect("it is one");
        assert_eq!(place, "postgres db.example:5432/shop");
        assert!(Config::parse("mysql://me@db.example/shop").is_err());
        assert!(Config::parse("postgres://me@db.example/shop?sslmode=prefer").is_ok());
        let encrypted = Config::parse("postgres://me@db.example/shop?sslmode=require");
        assert!(encrypted.is_err_and(|why| why == NOT_ENCRYPTED));
    }
}
