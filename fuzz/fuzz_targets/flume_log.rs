//! Any bytes as a log of Flume's file channel: read to its end without a panic, every byte once.
#![no_main]

use std::io::{self, IoSlice};
use std::sync::Arc;

use flume_rs::channel::file::flume_log::{Found, Meta, Reader};
use flume_rs::fs::File;
use libfuzzer_sys::fuzz_target;

struct Content(Vec<u8>);

impl File for Content {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let len = buffer.len().min(rest.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, _pieces: &[IoSlice<'_>], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

fuzz_target!(|content: &[u8]| {
    Meta::of(content);
    let file = Arc::new(Content(content.to_vec()));
    let mut reader = Reader::new(file).expect("readable");
    let mut end = 0;
    while let Some(found) = reader.read_next().expect("readable") {
        let (from, to) = match found {
            Found::Record { at, .. } => {
                reader.event(at).expect("readable").ok();
                (at, reader.at())
            }
            Found::Damage { from, to } => (from, to),
        };
        assert!(end <= from && from < to && to <= content.len() as u64);
        end = to;
    }
});
