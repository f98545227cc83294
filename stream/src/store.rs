//! What outlives the process: one SQLite database in the checkpoint folder.
//!
//! It holds the tables' states, how far the sources have come, the batch that is being worked on, and embedded results;
//! what belongs to a batch is written in one transaction. Without a checkpoint the database is in memory.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Transaction, params};

use crate::batch::BatchInfo;
use crate::source::Position;

/// The database's file in the checkpoint folder.
pub const FILE: &str = "job.db";
/// The version of the tables below, and of the bytes in them, which are Arrow's rows.
const VERSION: &str = "2 arrow-59";

/// How long to wait for somebody who writes to the database by hand.
const BUSY: Duration = Duration::from_secs(60);

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error("the checkpoint: {0}")]
    Database(#[from] rusqlite::Error),
    /// The folder failed.
    #[error("the checkpoint {0}: {1}")]
    Folder(String, std::io::Error),
    /// Somebody else has it.
    #[error("the checkpoint {0} is in use by another process")]
    InUse(String),
    /// It was made for something else.
    #[error("the checkpoint {path} {why}; choose another folder, or remove this one to begin anew")]
    NotOurs {
        /// Which.
        path: String,
        /// What is different.
        why: String,
    },
}

/// Where a job goes on.
#[derive(Debug, Default)]
pub struct Resume {
    /// The last batch that was committed.
    pub last: Option<BatchInfo>,
    /// How far each source had come with it.
    pub positions: BTreeMap<String, Position>,
    /// A batch that was begun and not committed: how far its sources went.
    pub begun: Option<(BatchInfo, BTreeMap<String, Position>)>,
}

/// The database.
pub struct Store {
    database: Connection,
    /// Held as long as the store is.
    _lock: Option<File>,
}

impl Store {
    /// Opens the checkpoint of a job, of which the identity says what may not change.
    pub fn open(folder: Option<&Path>, identity: &str) -> Result<(Self, Resume), StoreError> {
        let (database, lock, path) = match folder {
            None => (Connection::open_in_memory()?, None, "in memory".to_owned()),
            Some(folder) => {
                let path = folder.display().to_string();
                std::fs::create_dir_all(folder).map_err(|error| StoreError::Folder(path.clone(), error))?;
                let lock = File::create(folder.join("in_use.lock"))
                    .map_err(|error| StoreError::Folder(path.clone(), error))?;
                match lock.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(path)),
                    Err(TryLockError::Error(error)) => return Err(StoreError::Folder(path, error)),
                }
                (Connection::open(folder.join(FILE))?, Some(lock), path)
            }
        };
        database.busy_timeout(BUSY)?;
        // Spark's runner keeps its own account, and refuses one of ours in turn.
        let marks = "select count(*) from sqlite_master where name = 'flume_rs_spark'";
        if database.query_row(marks, [], |row| row.get::<_, i64>(0))? > 0 {
            let why = "is of a job that ran on Spark".to_owned();
            return Err(StoreError::NotOurs { path, why });
        }
        database.pragma_update(None, "journal_mode", "wal")?;
        // A batch is acknowledged to its senders once it is committed: it must outlive a power failure, too.
        database.pragma_update(None, "synchronous", "full")?;
        database.execute_batch(
            "create table if not exists flume_rs_job (key text primary key, value text not null) without rowid;
             create table if not exists flume_rs_position (source text primary key, position text not null)
               without rowid;
             create table if not exists flume_rs_begun (source text primary key, position text not null) without rowid;
             create table if not exists flume_rs_state (table_name text not null, pane integer not null,
               chunk integer not null, states blob not null, primary key (table_name, pane, chunk));",
        )?;
        let store = Self { database, _lock: lock };
        store.claim("version", VERSION, |_| "was written by another version".to_owned(), &path)?;
        let otherwise = |stored: &str| {
            let what = "belongs to another job: its sources, its tables or their columns are different";
            format!("{what}{}", difference(stored, identity))
        };
        store.claim("identity", identity, otherwise, &path)?;
        let resume = store.resume()?;
        Ok((store, resume))
    }

    fn claim(&self, key: &str, value: &str, otherwise: impl Fn(&str) -> String, path: &str) -> Result<(), StoreError> {
        match self.get(key)? {
            Some(stored) if stored == value => Ok(()),
            Some(stored) => Err(StoreError::NotOurs { path: path.to_owned(), why: otherwise(&stored) }),
            None => {
                let insert = "insert into flume_rs_job values (?, ?)";
                self.database.execute(insert, params![key, value])?;
                Ok(())
            }
        }
    }

    fn get(&self, key: &str) -> rusqlite::Result<Option<String>> {
        let select = "select value from flume_rs_job where key = ?";
        self.database.query_row(select, [key], |row| row.get(0)).optional()
    }

    fn positions(&self, table: &str) -> rusqlite::Result<BTreeMap<String, Position>> {
        let mut select = self.database.prepare(&format!("select source, position from {table}"))?;
        let rows = select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let read = |(source, text): (String, String)| {
            // A source that is told nothing begins anew, and everything would count twice.
            let damaged = |error| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error));
            Ok((source, serde_json::from_str(&text).map_err(damaged)?))
        };
        rows.map(|row| row.and_then(read)).collect()
    }

    fn batch(&self, key: &str) -> rusqlite::Result<Option<BatchInfo>> {
        let text = self.get(key)?.unwrap_or_default();
        let numbers = text.split_once(' ').and_then(|(number, time)| Some((number.parse().ok()?, time.parse().ok()?)));
        Ok(numbers.map(|(number, time)| BatchInfo { number, time, again: false }))
    }

    fn resume(&self) -> rusqlite::Result<Resume> {
        let last = self.batch("last")?;
        let begun = self.batch("begun")?.filter(|begun| last.is_none_or(|last| begun.number > last.number));
        let begun = match begun {
            Some(batch) => Some((BatchInfo { again: true, ..batch }, self.positions("flume_rs_begun")?)),
            None => None,
        };
        Ok(Resume { last, positions: self.positions("flume_rs_position")?, begun })
    }

    /// Notes which records a batch has, before anybody works on it.
    pub fn begin(&mut self, batch: &BatchInfo, positions: &BTreeMap<String, Position>) -> rusqlite::Result<()> {
        let transaction = self.database.transaction()?;
        put_batch(&transaction, "begun", batch)?;
        transaction.execute("delete from flume_rs_begun", [])?;
        put_positions(&transaction, "flume_rs_begun", positions)?;
        transaction.commit()
    }

    /// Commits a batch: how far its sources went, and whatever `write` writes.
    pub fn commit<E: From<rusqlite::Error>>(
        &mut self,
        batch: &BatchInfo,
        positions: &BTreeMap<String, Position>,
        write: impl FnOnce(&Transaction<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let transaction = self.database.transaction()?;
        write(&transaction)?;
        put_batch(&transaction, "last", batch)?;
        put_positions(&transaction, "flume_rs_position", positions)?;
        Ok(transaction.commit()?)
    }

    /// The states of a table, to be read.
    pub fn saved(&self, table: &str) -> rusqlite::Result<Saved<'_>> {
        Saved::new(&self.database, table)
    }
}

fn put_batch(database: &Connection, key: &str, batch: &BatchInfo) -> rusqlite::Result<()> {
    let mut put = database.prepare_cached("insert or replace into flume_rs_job values (?, ?)")?;
    put.execute(params![key, format!("{} {}", batch.number, batch.time)]).map(drop)
}

fn put_positions(database: &Connection, table: &str, positions: &BTreeMap<String, Position>) -> rusqlite::Result<()> {
    let mut put = database.prepare_cached(&format!("insert or replace into {table} values (?, ?)"))?;
    positions.iter().try_for_each(|(source, position)| put.execute(params![source, position.to_string()]).map(drop))
}

/// The states of one table in the database: chunks of bytes, in the order in which they were written, in panes. A pane
/// is a number that the table chooses.
pub struct Saved<'a> {
    table: String,
    put: CachedStatement<'a>,
    remove: CachedStatement<'a>,
    each: CachedStatement<'a>,
    note: CachedStatement<'a>,
    noted: CachedStatement<'a>,
}

impl<'a> Saved<'a> {
    /// The states of a table.
    pub fn new(database: &'a Connection, table: &str) -> rusqlite::Result<Self> {
        let prepare = |sql| database.prepare_cached(sql);
        Ok(Self {
            table: table.to_owned(),
            put: prepare("insert into flume_rs_state values (?, ?, ?, ?)")?,
            remove: prepare("delete from flume_rs_state where table_name = ? and pane = ? and chunk < ?")?,
            each: prepare("select pane, chunk, states from flume_rs_state where table_name = ? order by pane, chunk")?,
            note: prepare("insert or replace into flume_rs_job values ('note ' || ?, ?)")?,
            noted: prepare("select cast(value as integer) from flume_rs_job where key = 'note ' || ?")?,
        })
    }

    /// Adds a chunk to a pane.
    pub fn put(&mut self, pane: i64, chunk: i64, states: &[u8]) -> rusqlite::Result<()> {
        self.put.execute(params![self.table, pane, chunk, states]).map(drop)
    }

    /// Removes the chunks of a pane that come before this one.
    pub fn remove_before(&mut self, pane: i64, chunk: i64) -> rusqlite::Result<()> {
        self.remove.execute(params![self.table, pane, chunk]).map(drop)
    }

    /// Removes all chunks of a pane.
    pub fn remove(&mut self, pane: i64) -> rusqlite::Result<()> {
        self.remove_before(pane, i64::MAX)
    }

    /// Reads all chunks, pane by pane in their order: the pane, the chunk's number, and its bytes.
    pub fn each<E: From<rusqlite::Error>>(
        &mut self,
        mut take: impl FnMut(i64, i64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rows = self.each.query([&self.table])?;
        while let Some(row) = rows.next()? {
            let states = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            take(row.get(0)?, row.get(1)?, states)?;
        }
        Ok(())
    }

    /// Keeps a number for the table.
    pub fn note(&mut self, number: i64) -> rusqlite::Result<()> {
        self.note.execute(params![self.table, number.to_string()]).map(drop)
    }

    /// The number that was kept.
    pub fn noted(&mut self) -> rusqlite::Result<Option<i64>> {
        self.noted.query_row([&self.table], |row| row.get(0)).optional()
    }
}

/// The first lines that only one of two texts has.
fn difference(stored: &str, given: &str) -> String {
    let only = |of: &str, than: &str| {
        let line = of.lines().find(|line| !than.lines().any(|other| other == *line))?;
        Some(line.chars().take(200).collect::<String>())
    };
    match (only(given, stored), only(stored, given)) {
        (Some(given), Some(stored)) => format!(": `{given}` is in the job file, `{stored}` in the checkpoint"),
        (Some(given), None) => format!(": `{given}` is not in the checkpoint"),
        (None, Some(stored)) => format!(": `{stored}` is not in the job file"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn positions(offset: i64) -> BTreeMap<String, Position> {
        BTreeMap::from([("logs".to_owned(), json!({ "t-0": offset }))])
    }

    #[test]
    fn a_batch_that_was_begun_comes_again_and_one_that_was_committed_does_not() {
        let folder = tempfile::tempdir().expect("there is a folder");
        let open = || Store::open(Some(folder.path()), "job").expect("it opens");
        let (mut store, resume) = open();
        assert!(resume.last.is_none() && resume.begun.is_none());
        let batch = BatchInfo::first(1000);
        store.begin(&batch, &positions(5)).expect("it is noted");
        drop(store);
        let (mut store, resume) = open();
        assert_eq!(resume.begun, Some((BatchInfo { again: true, ..batch }, positions(5))));
        let put = |db: &Transaction<'_>| {
            let mut saved = Saved::new(db, "t")?;
            saved.put(3, 1, b"states")?;
            saved.note(-7)
        };
        store.commit(&batch, &positions(5), put).expect("it commits");
        drop(store);
        let (store, resume) = open();
        assert_eq!((resume.last, resume.positions), (Some(batch), positions(5)));
        assert!(resume.begun.is_none());
        let mut chunks = Vec::new();
        let mut saved = store.saved("t").expect("it can be read");
        let take = |pane, chunk, states: &[u8]| -> rusqlite::Result<()> {
            chunks.push((pane, chunk, states.to_vec()));
            Ok(())
        };
        saved.each(take).expect("it can be read");
        assert_eq!(chunks, [(3, 1, b"states".to_vec())]);
        assert_eq!(saved.noted(), Ok(Some(-7)));
    }

    #[test]
    fn a_checkpoint_of_another_job_or_of_a_running_one_is_refused() {
        let folder = tempfile::tempdir().expect("there is a folder");
        let open = |identity| Store::open(Some(folder.path()), identity).map(|(store, _)| store);
        let store = open("one").expect("it is new");
        assert!(matches!(open("one"), Err(StoreError::InUse(_))));
        drop(store);
        let Err(StoreError::NotOurs { why, .. }) = open("two") else { panic!("it is of another job") };
        assert!(why.ends_with("different: `two` is in the job file, `one` in the checkpoint"), "{why}");
        assert!(open("one").is_ok());
    }
}
