//! Lines come out the same however the stream is cut.
#![no_main]

use flume_rs::source::{LineSplitter, Terminator};
use libfuzzer_sys::fuzz_target;

fn lines(terminator: Terminator, pieces: &[&[u8]], at_once: usize) -> Vec<Vec<u8>> {
    let mut splitter = LineSplitter::new(terminator);
    let mut pending = Vec::new();
    let mut lines = Vec::new();
    for piece in pieces {
        pending.extend_from_slice(piece);
        let rest = pending.split_off(splitter.whole(&pending));
        let mut at = 0;
        while at < pending.len() {
            at += splitter.split_some(&pending[at..], at_once, |start, end| lines.push(pending[at + start..at + end].to_vec()));
        }
        pending = rest;
    }
    lines.push(pending);
    lines
}

fuzz_target!(|input: (usize, u8, &[u8])| {
    let (cut, at_once, data) = input;
    let (front, back) = data.split_at(cut.min(data.len()));
    for terminator in [Terminator::Lf, Terminator::Any] {
        let whole = lines(terminator, &[data], usize::MAX);
        assert_eq!(lines(terminator, &[front, back], usize::from(at_once).max(1)), whole);
    }
});
