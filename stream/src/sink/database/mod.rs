//! Tables of database servers.
//!
//! | key | default | what |
//! |---|---|---|
//! | `url` | | the server, the database and who we are |
//! | `table` | | the table; `schema.table` names its schema, too |
//! | `key` | none | the columns that tell rows apart: a row with the key of one that is there changes that one |
//! | `create` | `false` | whether the table is made unless it is there, with types that suit the columns |
//!
//! Each batch is one transaction, which also stores the batch's number in the table `flume_rs_batches`. A batch whose
//! commit got through while its answer got lost is found there and not written twice: every row is there exactly once. Jobs
//! that share a database must have different names. A row that the database refuses, as one without a value in a column of
//! the key, holds the job back: nothing is left out without a word.

pub mod mysql;
pub mod postgres;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use serde::Deserialize;
use tokio::time::timeout;

use super::server::{PATIENCE, Reach, Server};
use super::{JobContext, SinkError, check_key};
use crate::batch::BatchInfo;

/// The table with the number and the time of the last batch of each sink of each job.
pub const BATCHES: &str = "flume_rs_batches";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "R: Reach")]
struct DatabaseConfig<R> {
    url: Server<R>,
    table: String,
    #[serde(default)]
    key: Vec<String>,
    #[serde(default)]
    create: bool,
}

/// The table of a sink.
#[derive(Clone, Debug)]
struct Target {
    /// The server, for messages.
    place: String,
    table: String,
    key: Vec<String>,
    create: bool,
    job: String,
    sink: String,
}

/// A name within quotation marks, which are doubled where it holds them.
pub fn quoted(name: &str, mark: char) -> String {
    let doubled = format!("{mark}{mark}");
    format!("{mark}{}{mark}", name.replace(mark, &doubled))
}

impl<R: Reach> DatabaseConfig<R> {
    fn check(&self, schema: &SchemaRef) -> Result<(), String> {
        check_key(&self.key, schema)
    }

    /// Without a key rows are only added; with one a row changes the columns that it has, and no others.
    fn owns(&self, schema: &SchemaRef) -> Vec<String> {
        let columns = schema.fields().iter().map(|field| field.name());
        let changed = columns.filter(|name| !self.key.is_empty() && !self.key.contains(name));
        changed.map(|name| format!("column {name} of {}, table {}", self.url.place, self.table)).collect()
    }

    fn target(&self, sink: &str, job: &JobContext) -> Target {
        Target {
            place: self.url.place.clone(),
            table: self.table.clone(),
            key: self.key.clone(),
            create: self.create,
            job: job.job.clone(),
            sink: sink.to_owned(),
        }
    }
}

impl Target {
    /// The schema, if it is named, and the table.
    fn parts(&self) -> (Option<&str>, &str) {
        match self.table.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, &self.table),
        }
    }

    /// The table for SQL.
    fn quoted(&self, mark: char) -> String {
        let (schema, table) = self.parts();
        let schema = schema.map(|schema| format!("{}.", quoted(schema, mark))).unwrap_or_default();
        format!("{schema}{}", quoted(table, mark))
    }

    /// The columns of the key for SQL.
    fn quoted_key(&self, mark: char) -> String {
        self.key.iter().map(|name| quoted(name, mark)).collect::<Vec<_>>().join(", ")
    }

    /// SQL that makes the table.
    fn create(&self, schema: &SchemaRef, mark: char, of: impl Fn(&str, &DataType) -> String) -> String {
        let columns = schema.fields().iter();
        let mut parts: Vec<String> = columns
            .map(|field| format!("{} {}", quoted(field.name(), mark), of(field.name(), field.data_type())))
            .collect();
        if !self.key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", self.quoted_key(mark)));
        }
        format!("CREATE TABLE IF NOT EXISTS {} ({})", self.quoted(mark), parts.join(", "))
    }

    /// Whether the table, which has these columns, has all that the rows have.
    fn check_columns(
        &self,
        schema: &SchemaRef,
        known: &[&str],
        is_same: impl Fn(&str, &str) -> bool,
    ) -> Result<(), SinkError> {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let missing: Vec<&str> = names.filter(|name| !known.iter().any(|known| is_same(known, name))).collect();
        match (known, missing.as_slice()) {
            (_, []) => Ok(()),
            ([], _) => Err(self.lasting("the table is not there; make it, or set create = true")),
            _ => Err(self.lasting(&format!("it has no column {}, but {}", missing.join(", "), known.join(", ")))),
        }
    }

    /// The answer to a statement, or to several, which may not take too long.
    async fn answer<T>(&self, statement: impl Future<Output = Result<T, SinkError>>) -> Result<T, SinkError> {
        let late = |_| self.error(&format!("no answer within {} s", PATIENCE.as_secs()));
        timeout(PATIENCE, statement).await.map_err(late)?
    }

    /// Says what failed.
    fn error(&self, why: &str) -> SinkError {
        SinkError::new(format!("{}, table {}: {why}", self.place, self.table))
    }

    /// Says what failed, and that it will until somebody does something about it.
    fn lasting(&self, why: &str) -> SinkError {
        self.error(&format!("{why}; this does not pass by itself: the table or the job must be changed"))
    }

    /// Says what the server says, by SQLSTATE.
    fn refused(&self, state: &str, why: &str) -> SinkError {
        if is_lasting(state) { self.lasting(why) } else { self.error(why) }
    }
}

/// Whether a statement that failed so fails again and again: data that do not fit, constraints, rights, names.
fn is_lasting(state: &str) -> bool {
    ["21", "22", "23", "28", "3D", "3F", "42"].iter().any(|class| state.starts_with(class))
}

/// A batch as it is stored: what tells it from every other is that both are the same.
pub fn stored(batch: &BatchInfo) -> (i64, i64) {
    (i64::try_from(batch.number).unwrap_or(i64::MAX), batch.time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        let target = Target {
            place: "mysql localhost:3306".to_owned(),
            table: "shop.a`b".to_owned(),
            key: vec!["x\"y".to_owned()],
            create: false,
            job: "job".to_owned(),
            sink: "sink".to_owned(),
        };
        assert_eq!(target.quoted('`'), "`shop`.`a``b`");
        assert_eq!(target.quoted_key('"'), "\"x\"\"y\"");
    }
}
