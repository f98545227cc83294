//! What clients of an http source may send: any bytes in any encoding, and texts mean the same in each.
#![no_main]

use bytes::Bytes;
use flume_rs::event::Batch;
use flume_rs::source::http::json::{Encoding, events};
use libfuzzer_sys::fuzz_target;

fn headers(batch: &Batch) -> Vec<Vec<(&str, &str)>> {
    batch.iter().map(|event| event.headers().iter().collect()).collect()
}

fuzz_target!(|data: &[u8]| {
    for encoding in [Encoding::Utf16, Encoding::Utf32] {
        // Whatever comes of it.
        let _batch = events(Bytes::copy_from_slice(data), encoding);
    }
    let outcome = events(Bytes::copy_from_slice(data), Encoding::Utf8);
    let Ok(text) = std::str::from_utf8(data) else {
        assert!(outcome.is_err());
        return;
    };
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let utf32: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
    for (request, encoding) in [(utf16, Encoding::Utf16), (utf32, Encoding::Utf32)] {
        match (&outcome, events(request.into(), encoding)) {
            (Ok(batch), Ok(other)) => {
                assert_eq!(headers(batch), headers(&other));
                assert!(batch.iter().zip(other.iter()).all(|(a, b)| a.body().is_empty() == b.body().is_empty()));
            }
            (outcome, other) => assert!(outcome.is_err() && other.is_err() || data.starts_with(b"\xef\xbb\xbf")),
        }
    }
});
