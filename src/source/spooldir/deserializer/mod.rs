//! Deserializers: how the bytes of a file become events.

mod avro;
mod blob;
mod line;

use std::fs::File;
use std::io;

use crate::charset::{Charset, OnMalformed};
use crate::config::{ComponentType, Props, resolve_type};
use crate::event::{Batch, Headers};

/// What is read, and from where on.
#[derive(Debug)]
pub struct Input {
    /// The file.
    pub file: File,
    /// Its length when it was opened, in bytes: nothing behind is read.
    pub len: u64,
    /// Where to begin: an offset that a batch came with, or 0.
    pub at: u64,
    /// The most events of a batch.
    pub batch_size: usize,
    /// What its text is in.
    pub charset: Charset,
    /// What becomes of bytes that are none.
    pub on_malformed: OnMalformed,
}

/// A batch, and the offset to go on at once it has been delivered.
pub type Portion = (Batch, u64);

/// Reads one file.
pub trait Deserializer: Send {
    /// The headers of its events.
    fn headers(&self) -> Headers {
        Headers::new()
    }

    /// Reads the next batches, whose events have these headers; none when the file has no more.
    fn read(&mut self, headers: &Headers) -> io::Result<Vec<Portion>>;
}

/// A deserializer's configuration.
pub trait DeserializerConfig: Send + Sync {
    /// Opens a file.
    fn open(&self, input: Input) -> io::Result<Box<dyn Deserializer>>;
}

/// Reads a deserializer's configuration from the keys below `deserializer`.
pub type DeserializerBuilder = fn(&mut Props<'_>) -> Box<dyn DeserializerConfig>;

/// All deserializer types that the agent has.
const TYPES: &[ComponentType<DeserializerBuilder>] = &[line::TYPE, avro::TYPE, blob::TYPE];

/// Reads the type (default LINE) and its keys.
pub fn from_props(props: &mut Props<'_>) -> Option<Box<dyn DeserializerConfig>> {
    let text = props.text("deserializer").unwrap_or("LINE");
    match resolve_type(TYPES, text) {
        Some(found) => Some((found.build)(props)),
        None => {
            props.family("deserializer");
            let known: Vec<&str> = TYPES.iter().flat_map(|known| known.aliases).copied().collect();
            props.error_nearest("deserializer", &format!("a deserializer: {}", known.join(", ")), &known);
            None
        }
    }
}

/// Bytes that are not what they should be.
fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
pub mod tests {
    use std::io::Write as _;

    use super::*;

    /// A file of these bytes.
    pub fn input(bytes: &[u8], at: u64, batch_size: usize) -> Input {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("it can be written");
        let len = bytes.len() as u64;
        Input { file, len, at, batch_size, charset: Charset::Utf8, on_malformed: OnMalformed::Fail }
    }

    /// The bodies of batches, each with the offset behind it.
    pub type Bodies = Vec<(Vec<Vec<u8>>, u64)>;

    /// All that is left of a file, and the error that ended it.
    pub fn read_all(mut deserializer: Box<dyn Deserializer>) -> (Bodies, Option<String>) {
        let mut all = Vec::new();
        loop {
            match deserializer.read(&Headers::new()) {
                Ok(portions) if portions.is_empty() => return (all, None),
                Ok(portions) => all.extend(portions.into_iter().map(|(batch, end)| {
                    assert!(!batch.is_empty());
                    (batch.iter().map(|event| event.body().to_vec()).collect(), end)
                })),
                Err(error) => return (all, Some(error.to_string())),
            }
        }
    }
}
