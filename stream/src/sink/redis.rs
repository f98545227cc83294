//! Redis: a hash for the table, or a key for each row.
//!
//! | key | default | what |
//! |---|---|---|
//! | `url` | | `redis://user:password@host:6379/0`; user, password and the number of the database may be left out |
//! | `key` | | the columns that tell rows apart |
//! | `hash` | | the hash whose fields are the rows: a field's name is the key |
//! | `key-prefix` | | instead of `hash`: what the names of Redis's keys begin with, before the row's key |
//! | `separator` | `:` | what stands between the columns of a key |
//! | `value` | all other columns as JSON | the column that is the value; a row without one is removed |
//!
//! With several columns in `key`, choose a `separator` that no value holds: with `:`, `a:b` and `c` make the same key as `a`
//! and `b:c`. A null is written as `null`, and is the same key as this text.
//!
//! A batch is one `MULTI`: readers see all of it or nothing. Values are absolute, so a batch that is written twice does no
//! harm.

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Pipeline, RedisError};
use async_trait::async_trait;
use datafusion::arrow::array::{Array as _, RecordBatch, StringArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use serde::Deserialize;

use super::server::{ANSWER, CONNECT, Reach, Server};
use super::{JobContext, Sink, SinkConfig, SinkError, check_column, check_key, rows};
use crate::batch::BatchInfo;
use crate::job::{JobError, Keys};

impl Reach for Client {
    fn parse(url: &str) -> Result<(String, Self), String> {
        let client = Self::open(url).map_err(|error| format!("{error}; expected redis://host:6379"))?;
        let server = client.get_connection_info();
        Ok((format!("redis {}/{}", server.addr(), server.redis_settings().db()), client))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RedisConfig {
    url: Server<Client>,
    key: Vec<String>,
    hash: Option<String>,
    key_prefix: Option<String>,
    #[serde(default = "colon")]
    separator: String,
    value: Option<String>,
}

fn colon() -> String {
    ":".to_owned()
}

pub fn read(keys: Keys<'_>) -> Result<Box<dyn SinkConfig>, JobError> {
    Ok(Box::new(keys.read::<RedisConfig>()?))
}

impl SinkConfig for RedisConfig {
    fn check(&self, schema: &SchemaRef) -> Result<(), String> {
        if self.key.is_empty() {
            return Err("`key` must name a column at least".to_owned());
        }
        match (&self.hash, &self.key_prefix) {
            (Some(_), Some(_)) => return Err("either `hash` or `key-prefix`, not both".to_owned()),
            (None, None) => return Err("either `hash` or `key-prefix` must be there".to_owned()),
            _ => {}
        }
        check_key(&self.key, schema)?;
        self.value.iter().try_for_each(|value| check_column("value", value, schema))
    }

    fn owns(&self, _: &str, _: &JobContext, _: &SchemaRef) -> Vec<String> {
        let hash = self.hash.iter().map(|hash| format!("hash {hash}"));
        let keys = self.key_prefix.iter().map(|prefix| format!("key {prefix}…"));
        hash.chain(keys).map(|what| format!("{what} of {}", self.url.place)).collect()
    }

    fn build(&self, _: &str, _: &JobContext) -> Box<dyn Sink> {
        Box::new(Redis { config: self.clone(), connection: None })
    }
}

struct Redis {
    config: RedisConfig,
    connection: Option<MultiplexedConnection>,
}

impl Redis {
    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let limits =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
        self.config.url.reach.get_multiplexed_async_connection_with_config(&limits).await
    }

    fn failed(&self, error: &RedisError) -> SinkError {
        SinkError::new(format!("{}: {error}", self.config.url.place))
    }
}

impl RedisConfig {
    /// Adds commands that write rows.
    fn put(&self, rows: &RecordBatch, to: &mut Pipeline) -> Result<(), ArrowError> {
        let key = self.key.iter().filter_map(|name| rows.column_by_name(name));
        let key = key.map(rows::texts).collect::<Result<Vec<_>, _>>()?;
        let values = self.values(rows)?;
        for row in 0..rows.num_rows() {
            let parts: Vec<&str> =
                key.iter().map(|part| if part.is_valid(row) { part.value(row) } else { "null" }).collect();
            let key = parts.join(&self.separator);
            match (&self.hash, values.is_valid(row).then(|| values.value(row))) {
                (Some(hash), Some(value)) => to.cmd("HSET").arg(hash).arg(key).arg(value),
                (Some(hash), None) => to.cmd("HDEL").arg(hash).arg(key),
                (None, value) => {
                    let name = format!("{}{key}", self.key_prefix.as_deref().unwrap_or_default());
                    match value {
                        Some(value) => to.cmd("SET").arg(name).arg(value),
                        None => to.cmd("DEL").arg(name),
                    }
                }
            };
            to.ignore();
        }
        Ok(())
    }

    /// What is written for each row.
    fn values(&self, rows: &RecordBatch) -> Result<StringArray, ArrowError> {
        if let Some(value) = self.value.as_ref().and_then(|name| rows.column_by_name(name)) {
            return rows::texts(value);
        }
        let schema = rows.schema();
        let others: Vec<usize> =
            (0..rows.num_columns()).filter(|index| !self.key.contains(schema.field(*index).name())).collect();
        if others.is_empty() {
            return Ok((0..rows.num_rows()).map(|_| Some("{}")).collect());
        }
        Ok(rows::json(&rows.project(&others)?, true)?.lines().map(Some).collect())
    }
}

#[async_trait]
impl Sink for Redis {
    async fn open(&mut self, _: &SchemaRef) -> Result<(), SinkError> {
        self.connection = Some(self.connect().await.map_err(|error| self.failed(&error))?);
        Ok(())
    }

    async fn write(&mut self, _: &BatchInfo, rows: &[RecordBatch]) -> Result<(), SinkError> {
        let mut commands = ::redis::pipe();
        commands.atomic();
        for rows in rows {
            self.config.put(rows, &mut commands).map_err(|error| SinkError::new(error.to_string()))?;
        }
        let Some(connection) = &mut self.connection else { return Err(SinkError::new("it is not open")) };
        let written = commands.query_async::<()>(connection).await;
        written.map_err(|error| self.failed(&error))
    }
}
