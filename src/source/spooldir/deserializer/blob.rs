//! The deserializer of blobs: each file becomes one event, or several where it has more than `maxBlobLength` bytes.
//!
//! Key: `deserializer.maxBlobLength` (100000000).

use std::io;

use bytes::Bytes;
use tracing::warn;

use super::{Deserializer, DeserializerBuilder, DeserializerConfig, Input, Portion};
use crate::config::{ComponentType, Props};
use crate::event::{Batch, Headers};
use crate::source::pieces::{READ_BYTES, read_at};

/// How the type is registered.
pub const TYPE: ComponentType<DeserializerBuilder> = ComponentType {
    aliases: &["BLOB"],
    class: "org.apache.flume.sink.solr.morphline.BlobDeserializer$Builder",
    build: |props| Box::new(BlobConfig::from_props(props)),
};

const MAX_BLOB_LENGTH: i32 = 100_000_000;

struct BlobConfig {
    max_blob_length: usize,
}

impl BlobConfig {
    fn from_props(props: &mut Props<'_>) -> Self {
        let key = "deserializer.maxBlobLength";
        let max_blob_length = props.or(key, MAX_BLOB_LENGTH);
        if max_blob_length < 1 {
            let flume = format!("Configuration parameter maxBlobLength must be greater than zero: {max_blob_length}");
            props.error(key, "a number of bytes, at least 1", &flume);
        }
        Self { max_blob_length: max_blob_length.max(1) as usize }
    }
}

impl DeserializerConfig for BlobConfig {
    fn open(&self, input: Input) -> io::Result<Box<dyn Deserializer>> {
        Ok(Box::new(Blobs { input, max_blob_length: self.max_blob_length }))
    }
}

struct Blobs {
    input: Input,
    max_blob_length: usize,
}

impl Deserializer for Blobs {
    /// A batch ends also where it has become large.
    fn read(&mut self, headers: &Headers) -> io::Result<Vec<Portion>> {
        let mut batch = Batch::new();
        let headers = batch.push_headers(headers.clone());
        while batch.len() < self.input.batch_size && batch.body_bytes() < READ_BYTES {
            let left = usize::try_from(self.input.len.saturating_sub(self.input.at)).unwrap_or(usize::MAX);
            let blob = read_at(&self.input.file, self.input.at, left.min(self.max_blob_length))?;
            if blob.is_empty() {
                break;
            }
            if blob.len() == self.max_blob_length {
                warn!("File length exceeds maxBlobLength ({}), truncating BLOB event!", self.max_blob_length);
            }
            let len = blob.len();
            self.input.at += len as u64;
            let buffer = batch.push_buffer(Bytes::from(blob));
            batch.push_span(buffer, 0, len, headers);
        }
        Ok(if batch.is_empty() { Vec::new() } else { vec![(batch, self.input.at)] })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bodies, input, read_all};
    use super::*;

    fn blobs(bytes: &[u8], at: u64, max_blob_length: usize) -> Bodies {
        let (portions, error) =
            read_all(BlobConfig { max_blob_length }.open(input(bytes, at, 2)).expect("it can be opened"));
        assert_eq!(error, None);
        portions
    }

    #[test]
    fn a_file_is_an_event() {
        assert_eq!(blobs(b"a\n\xff\0", 0, 100), [(vec![b"a\n\xff\0".to_vec()], 4)]);
        assert!(blobs(b"", 0, 100).is_empty());
    }

    #[test]
    fn a_long_file_is_several() {
        let all = [(vec![b"ab".to_vec(), b"cd".to_vec()], 4), (vec![b"ef".to_vec()], 6)];
        assert_eq!(blobs(b"abcdef", 0, 2), all);
        assert_eq!(blobs(b"abcdef", 4, 2), all[1..]);
    }
}
