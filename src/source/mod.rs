//! Sources: where events come from.
//!
//! A source builds batches and hands them to its [`ChannelProcessor`], which runs interceptors and selector and
//! returns when the batch is committed or says why not. Only then does the source acknowledge its client.

pub mod avro;
mod datagrams;
pub mod exec;
pub mod http;
mod ip_filter;
mod kafka;
mod lines;
pub mod netcat;
mod netcat_udp;
mod pieces;
mod processor;
mod seq;
mod spooldir;
mod stress;
pub mod syslog;
mod taildir;
mod thrift;
pub mod watch;

use async_trait::async_trait;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use lines::{LineSplitter, Terminator};
pub use processor::{ChannelProcessor, Each, Pipeline};

use crate::config::{ComponentType, Props};

/// All source types that the agent has.
pub const TYPES: &[ComponentType<SourceBuilder>] = &[
    avro::TYPE,
    thrift::TYPE,
    syslog::TCP_TYPE,
    syslog::MULTIPORT_TYPE,
    syslog::UDP_TYPE,
    http::TYPE,
    netcat::TYPE,
    netcat_udp::TYPE,
    exec::TYPE,
    spooldir::TYPE,
    taildir::TYPE,
    kafka::TYPE,
    seq::TYPE,
    stress::TYPE,
];

/// Reads a source's configuration; `None` when it has errors, which the properties have noted.
pub type SourceBuilder = fn(&mut Props<'_>) -> Option<Box<dyn SourceConfig>>;

/// A source's configuration, read and found valid.
pub trait SourceConfig: Send + Sync {
    /// The batch size that the source declares, to be compared with its channels' transaction capacity.
    fn batch_size(&self) -> Option<usize>;
    /// Makes the source. Called again when the source has failed and is to start anew.
    fn build(&self, name: &str) -> Box<dyn Source>;
}

/// A source that runs.
#[async_trait]
pub trait Source: Send {
    /// Everything that can fail at start: binds the port, opens the file. Tried again with back-off.
    async fn start(&mut self) -> Result<(), SourceError>;

    /// Makes events until it is told to stop. Returns early when it has no more to do.
    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError>;
}

/// Why a source could not start or go on.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct SourceError {
    what: String,
    #[source]
    source: Option<std::io::Error>,
}

impl SourceError {
    /// An error with its cause.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self { what: what.into(), source: Some(source) }
    }

    /// An error without a deeper cause.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }
}
