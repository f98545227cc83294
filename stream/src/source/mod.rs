//! Sources: where rows come from.
//!
//! A source gathers records while the engine works on a batch, and gives them up when the next one is
//! [cut](Source::cut). One whose records can be had again says where each batch [ended](Cut::position): the engine notes
//! that before it works on the batch, and after a crash the batch is [the same one again](Source::again). One whose
//! peer keeps records until they are acknowledged does so in [`Source::done`], when the batch is safe.
//!
//! In Rust, [`Job::add_source`] adds one of one's own.

mod flume;
mod folder;
mod kafka;
mod rate;
mod socket;

use std::collections::BTreeSet;
use std::ops::Range;

use async_trait::async_trait;
use datafusion::arrow::datatypes::Field;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::format::{self, Reader, Records};
use crate::job::keys::did_you_mean;
use crate::job::{Job, JobError, Keys};
use crate::spark::NOTHING_LIKE_IT;

/// How far a source has come, in its own words.
pub type Position = serde_json::Value;

/// Why a source cannot go on for now; the engine tries again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(String);

impl SourceError {
    /// An error that says what failed, and where.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// A number of bytes from 1 to `MOST`: the texts of a batch are found by 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bytes<const MOST: usize>(usize);

/// The most bytes of a line.
type MaxLine = Bytes<{ 256 << 20 }>;
/// So many bytes may wait for the next batch.
type MaxWaiting = Bytes<{ 1 << 30 }>;

impl Default for MaxLine {
    fn default() -> Self {
        Self(1 << 20)
    }
}

impl Default for MaxWaiting {
    fn default() -> Self {
        Self(64 << 20)
    }
}

impl<'de, const MOST: usize> Deserialize<'de> for Bytes<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = usize::deserialize(deserializer)?;
        if (1..=MOST).contains(&bytes) {
            return Ok(Self(bytes));
        }
        Err(D::Error::custom(format!("{bytes} bytes: expected a number from 1 to {MOST}")))
    }
}

/// What a source has for a batch.
#[derive(Debug, Default)]
pub struct Cut {
    /// The records, in as many parts as they came in. SQL works on a part at a time: those of some thousand records
    /// are the fastest, and take little memory.
    pub records: Vec<Records>,
    /// Where they end, for a source that can give them again.
    pub position: Option<Position>,
}

/// Where rows come from.
#[async_trait]
pub trait Source: Send {
    /// Begins where the last committed batch ended; at the configured place without one. Called again after it or a cut has
    /// failed, while the job goes on with the other sources.
    async fn open(&mut self, from: Option<&Position>) -> Result<(), SourceError>;

    /// Waits until a cut may give something. May be given up at any time.
    async fn ready(&mut self);

    /// Gives what is there, at most so many records, without waiting for more.
    async fn cut(&mut self, max_records: usize) -> Result<Cut, SourceError>;

    /// Gives the records between two positions again, as the first thing after [`open`](Self::open). Only asked of a
    /// source whose cuts have positions; the next cut goes on behind them.
    async fn again(&mut self, from: Option<&Position>, to: &Position) -> Result<Cut, SourceError> {
        let _ = (from, to);
        Err(SourceError::new("its records cannot be had again"))
    }

    /// All that was cut is committed, up to the position of the last cut if it has one.
    async fn done(&mut self, position: Option<&Position>) -> Result<(), SourceError> {
        let _ = position;
        Ok(())
    }

    /// Whether nothing will come any more, or nothing more that was there at the start when the job runs only `--once`.
    fn is_exhausted(&self) -> bool {
        false
    }

    /// Rests until the task is over: connections are closed, and ports are free afterwards.
    async fn close(&mut self) {}
}

/// A source's configuration.
pub trait SourceConfig: Send + Sync + std::fmt::Debug {
    /// The columns that the source adds to those of the format, one array each in [`Records::columns`].
    fn columns(&self) -> Vec<Field> {
        Vec::new()
    }

    /// How [Spark's runner](crate::spark) reads the same: the name of Spark's format and its options; or why it cannot.
    fn spark(&self) -> Result<serde_json::Value, String> {
        Err(NOTHING_LIKE_IT.to_owned())
    }

    /// Makes the source; `once` asks for an end when everything that is there has been given.
    fn build(&self, name: &str, once: bool) -> Box<dyn Source>;
}

/// Reads a source's own keys.
type Builder = fn(Keys<'_>) -> Result<Box<dyn SourceConfig>, JobError>;

/// All types of sources.
const TYPES: &[(&str, Builder)] = &[
    ("flume-pull", flume::pull::read),
    ("flume-push", flume::push::read),
    ("folder", folder::read),
    ("kafka", kafka::read),
    ("rate", rate::read),
    ("socket", socket::read),
];

/// Those whose rows have no columns but the source's own, so that there is no format.
const WITHOUT_FORMAT: &[&str] = &["rate"];

/// A source of a job.
#[derive(Debug)]
pub struct SourceSpec {
    /// Its name, which SQL reads its rows by.
    pub name: String,
    /// Where it stands in the file.
    pub place: Range<usize>,
    /// Its type.
    pub kind: String,
    /// How its records become rows.
    pub reader: Reader,
    /// What it is.
    pub config: Box<dyn SourceConfig>,
}

impl SourceSpec {
    /// Reads `[source.NAME]`.
    pub fn read(mut keys: Keys<'_>) -> Result<Self, JobError> {
        let (name, place) = (keys.name().to_owned(), keys.place());
        let kind: String = keys.need("type", &format!("one of {}", names(TYPES)))?;
        let build = find(&keys, TYPES, &kind)?;
        let format = if WITHOUT_FORMAT.contains(&kind.as_str()) {
            format::none(&mut keys, &kind)?
        } else {
            format::read(&mut keys)?
        };
        let (text, of) = (keys.text(), keys.of().to_owned());
        let config = build(keys)?;
        let reader = Reader::new(format, config.columns());
        let mut seen = BTreeSet::new();
        if let Some(twice) = reader.schema().fields().iter().find(|field| !seen.insert(field.name())) {
            return Err(text.error(&place, format!("[{of}] there are two columns `{}`", twice.name())));
        }
        Ok(Self { name, place, kind, reader, config })
    }
}

impl Job {
    /// Adds a source that is a piece of Rust. Its records are texts, which SQL reads as the column `value`, beside the
    /// columns that the source itself adds.
    pub fn add_source(&mut self, name: &str, config: impl SourceConfig + 'static) {
        self.sources.push(SourceSpec {
            name: name.to_owned(),
            place: 0..0,
            kind: "rust".to_owned(),
            reader: Reader::new(format::lines(), config.columns()),
            config: Box::new(config),
        });
    }
}

/// The names of types, for messages.
pub(crate) fn names<T>(types: &[(&str, T)]) -> String {
    types.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The type of this name.
pub(crate) fn find<T: Copy>(keys: &Keys<'_>, types: &[(&str, T)], kind: &str) -> Result<T, JobError> {
    if let Some((_, found)) = types.iter().find(|(name, _)| *name == kind) {
        return Ok(*found);
    }
    let near = did_you_mean(kind, types.iter().map(|(name, _)| *name));
    Err(keys.error_at("type", format!("`type`: `{kind}` is none of {}{near}", names(types))))
}
