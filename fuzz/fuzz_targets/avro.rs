//! What clients of an avro source may send: any bytes as their stream, as their protocol, and as what they compress.
#![no_main]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flume_rs::event::Batch;
use flume_rs::rpc::avro::datum::{Reader, put_bytes};
use flume_rs::rpc::avro::events::{EventReader, MAX_EVENTS, put_array};
use flume_rs::rpc::avro::handshake::HandshakeRequest;
use flume_rs::rpc::avro::pack::{Pack, PackReader, put_request};
use flume_rs::rpc::avro::protocol::{AVRO_SOURCE, Registry};
use flume_rs::rpc::avro::responder::{Call, Opened, Responder};
use flume_rs::rpc::deflate::Deflated;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// A message.
const LIMIT: usize = 1 << 20;

fn events(call: &Call) -> Option<Batch> {
    let batch = if call.message == "append" { call.event("event") } else { call.events("events") };
    batch.ok()
}

fn packs(stream: &[u8]) -> Vec<Pack> {
    let mut reader = PackReader::new(LIMIT);
    reader.buffer().room().extend_from_slice(stream);
    std::iter::from_fn(|| reader.next_pack().expect("answers are packs")).collect()
}

/// Reads a stream that comes in pieces: the batches, and the answers.
fn converse(pieces: &[&[u8]]) -> (Vec<Batch>, Vec<Pack>) {
    let mut responder = Responder::new(Arc::new(Registry::new(&AVRO_SOURCE)));
    let mut reader = PackReader::new(LIMIT);
    let (mut batches, mut out) = (Vec::new(), BytesMut::new());
    for piece in pieces {
        reader.buffer().room().extend_from_slice(piece);
        loop {
            let pack = match reader.next_pack() {
                Ok(Some(pack)) => pack,
                Ok(None) => break,
                Err(_) => return (batches, packs(&out)),
            };
            match responder.open(pack, &mut out) {
                Ok(Opened::Call(call)) => {
                    batches.extend(events(&call));
                    call.answer(&mut out, Ok(&[0]));
                }
                Ok(_) => {}
                Err(_) => return (batches, packs(&out)),
            }
        }
    }
    (batches, packs(&out))
}

/// However a stream is cut, it means the same; and what is read comes back from its own bytes.
fn stream(cut: usize, data: &[u8]) {
    let whole = converse(&[data]);
    let (front, back) = data.split_at(cut.min(data.len()));
    let cut = converse(&[front, back]);
    assert_eq!(cut.0, whole.0);
    // Of several errors in a client's protocol any may be the one that is answered.
    assert!(cut.1.iter().map(|pack| pack.serial).eq(whole.1.iter().map(|pack| pack.serial)));
    for batch in whole.0 {
        let mut written = Vec::new();
        put_array(&mut written, &batch);
        let written = Bytes::from(written);
        let mut events = EventReader::new(&written, MAX_EVENTS);
        events.read_array(&mut Reader::new(&written)).expect("what is written is read");
        assert_eq!(events.finish(), batch);
    }
}

/// A client whose protocol is `front`, and whose parameters are `back`.
fn foreign(cut: usize, data: &[u8]) {
    let (text, parameters) = data.split_at(cut.min(data.len()));
    let client_protocol = Some(String::from_utf8_lossy(text).into_owned());
    for message in AVRO_SOURCE.messages {
        let mut head = Vec::new();
        HandshakeRequest { client_hash: [1; 16], client_protocol: client_protocol.clone(), server_hash: AVRO_SOURCE.hash }
            .put(&mut head);
        head.push(0);
        put_bytes(&mut head, *message);
        let mut request = BytesMut::new();
        put_request(&mut request, 1, &head, parameters);
        converse(&[&request]);
    }
}

/// The same bytes come out however what is compressed is cut, but for those just before a place where it is broken.
fn deflated(cut: usize, data: &[u8]) {
    async fn inflate(from: impl AsyncRead + Unpin) -> (Vec<u8>, bool) {
        let mut read = Vec::new();
        let outcome = Deflated::new(from, 6).take(LIMIT as u64).read_to_end(&mut read).await;
        (read, outcome.is_ok())
    }
    let (front, back) = data.split_at(cut.min(data.len()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (cut, whole) = (inflate(front.chain(back)).await, inflate(data).await);
        assert_eq!(cut.1, whole.1);
        assert!(cut.0 == whole.0 || !whole.1 && (cut.0.starts_with(&whole.0) || whole.0.starts_with(&cut.0)));
    });
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (kind, cut, data) = input;
    match kind % 4 {
        0 => foreign(cut.into(), data),
        1 => deflated(cut.into(), data),
        2 => {
            // A message, so that not every one has to be framed by chance.
            let message = Bytes::copy_from_slice(data);
            let mut responder = Responder::new(Arc::new(Registry::new(&AVRO_SOURCE)));
            let pack = Pack { serial: 1, message };
            if let Ok(Opened::Call(call)) = responder.open(pack, &mut BytesMut::new()) {
                events(&call);
            }
        }
        _ => stream(cut.into(), data),
    }
});
