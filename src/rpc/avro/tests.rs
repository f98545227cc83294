//! Bytes captured from the real peers: read, executed, and written again to the same bytes.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::datum::{Reader, put_bytes};
use super::handshake::{HandshakeRequest, skip_metadata};
use super::pack::{self, Pack, PackReader};
use super::protocol::{AVRO_SOURCE, Protocol, Registry, SPARK_FLUME};
use super::responder::{Call, Opened, Responder, java_error};
use super::{events, status};
use crate::event::Batch;

fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn packs(stream: &[u8]) -> Vec<Pack> {
    let mut reader = PackReader::new(1 << 20);
    reader.buffer().room().extend_from_slice(stream);
    let mut packs = Vec::new();
    while let Some(pack) = reader.next_pack().expect("packs") {
        packs.push(pack);
    }
    assert!(reader.buffer().pending().is_empty(), "the whole stream is packs");
    packs
}

/// Reads requests and writes them anew from what was understood.
fn rewritten(requests: &[Pack]) -> BytesMut {
    let mut out = BytesMut::new();
    let mut dialogue = Dialogue::new(&AVRO_SOURCE);
    for request in requests {
        let mut reader = Reader::new(&request.message);
        let mut head = Vec::new();
        if !dialogue.agreed {
            HandshakeRequest::read(&mut reader).expect("a handshake").put(&mut head);
        }
        skip_metadata(&mut reader).expect("metadata");
        head.push(0);
        put_bytes(&mut head, reader.string().expect("a name").as_bytes());
        let mut parameters = Vec::new();
        match dialogue.open(request.clone()) {
            Some(call) if call.message == "append" => {
                events::put_items(&mut parameters, &call.event("event").expect("an event"))
            }
            Some(call) => events::put_array(&mut parameters, &call.events("events").expect("events")),
            // The handshake failed, and the same call comes again.
            None => parameters.extend_from_slice(reader.slice(reader.position()..request.message.len())),
        }
        pack::put_request(&mut out, request.serial, &head, &parameters);
    }
    out
}

/// A server without a network.
struct Dialogue {
    responder: Responder,
    out: BytesMut,
    agreed: bool,
}

impl Dialogue {
    fn new(protocol: &'static Protocol) -> Self {
        let responder = Responder::new(Arc::new(Registry::new(protocol)));
        Self { responder, out: BytesMut::new(), agreed: false }
    }

    fn open(&mut self, request: Pack) -> Option<Call> {
        match self.responder.open(request, &mut self.out).expect("a handshake") {
            Opened::Call(call) => {
                self.agreed = true;
                Some(call)
            }
            _ => None,
        }
    }

    /// Answers calls as an avro source with room for so many events a transaction.
    fn run(mut self, requests: Vec<Pack>, room: usize) -> (BytesMut, Vec<Batch>) {
        let mut batches = Vec::new();
        for request in requests {
            let Some(call) = self.open(request) else { continue };
            let batch = if call.message == "append" { call.event("event") } else { call.events("events") };
            match batch {
                Ok(batch) if batch.len() > room => call.answer(&mut self.out, Ok(status::FAILED)),
                Ok(batch) => {
                    batches.push(batch);
                    call.answer(&mut self.out, Ok(status::OK));
                }
                Err(error) => call.answer(&mut self.out, Err(&java_error(error))),
            }
        }
        (self.out, batches)
    }
}

fn bodies(batches: &[Batch]) -> Vec<String> {
    let bodies = batches.iter().flat_map(Batch::iter).map(|event| String::from_utf8_lossy(event.body()).into_owned());
    bodies.collect()
}

#[test]
fn what_flumes_clients_send_is_written_to_the_same_bytes() {
    for name in [
        "avro-append-appendbatch",
        "avro-append-20000-byte-body",
        "avro-handshake-client",
        "log4j-appender-1.11",
        "log4j-appender-1.6",
        "spark-push-receiver",
    ] {
        let stream = vector(&format!("{name}.c2s.bin"));
        assert!(rewritten(&packs(&stream)) == stream, "{name}");
    }
    // These are cut in another way: two were made by hand, and one has a long handshake.
    for name in ["avro-status-failed", "avro-pipelined-11", "avro-handshake-none"] {
        let requests = packs(&vector(&format!("{name}.c2s.bin")));
        assert!(packs(&rewritten(&requests)) == requests, "{name}");
    }
}

#[test]
fn answers_are_those_of_flume() {
    for name in [
        "avro-append-appendbatch",
        "avro-append-20000-byte-body",
        "avro-handshake-none",
        "avro-handshake-client",
        "avro-handshake-ping",
        "avro-status-failed",
        "avro-system-error-unknown-message",
        "avro-system-error-truncated",
        "log4j-appender-1.11",
        "log4j-appender-1.6",
        "spark-push-receiver",
    ] {
        let requests = packs(&vector(&format!("{name}.c2s.bin")));
        let (answers, _) = Dialogue::new(&AVRO_SOURCE).run(requests, 1000);
        let expected = vector(&format!("{name}.s2c.bin"));
        assert_eq!(packs(&answers), packs(&expected), "{name}");
        assert!(answers == expected, "{name}: the same, but cut in another way");
    }
}

#[test]
fn pipelined_requests_are_executed_in_their_order() {
    let (answers, batches) = Dialogue::new(&AVRO_SOURCE).run(packs(&vector("avro-pipelined-11.c2s.bin")), 1000);
    let mut expected = packs(&vector("avro-pipelined-11.s2c.bin"));
    // Flume answers in any order.
    expected.sort_by_key(|pack| pack.serial);
    assert_eq!(packs(&answers), expected);
    assert_eq!(bodies(&batches).len(), 11);
}

#[test]
fn headers_and_bodies_are_those_that_were_sent() {
    let (_, batches) = Dialogue::new(&AVRO_SOURCE).run(packs(&vector("avro-append-appendbatch.c2s.bin")), 1000);
    assert_eq!(bodies(&batches)[..4], ["hello", "e0", "e1", ""]);
    assert_eq!(
        batches[1].iter().map(|event| event.headers().to_string()).collect::<Vec<_>>(),
        ["{host=web1}", "{}", "{host=web1}"]
    );
}

#[test]
fn sparks_exchange_is_read_and_written_to_the_same_bytes() {
    let requests = packs(&vector("spark-sink-exchange.c2s.bin"));
    let answers = packs(&vector("spark-sink-exchange.s2c.bin"));
    let mut dialogue = Dialogue::new(&SPARK_FLUME);
    let mut asked = Vec::new();
    for request in requests {
        let serial = request.serial;
        let Some(call) = dialogue.open(request) else { panic!("every request is a call") };
        asked.push(match call.message {
            "getEventBatch" => call.long("n").expect("a number").to_string(),
            message => format!("{message} {}", call.text("sequenceNumber").expect("a text")),
        });
        // The last request was never answered.
        let Some(answer) = answers.iter().find(|answer| answer.serial == serial) else { continue };
        let handshake = if serial == 1 { 4 } else { 0 };
        // Behind handshake, metadata and flag lies what the sink said.
        call.answer(&mut dialogue.out, Ok(&answer.message[handshake + 2..]));
    }
    assert_eq!(dialogue.out, vector("spark-sink-exchange.s2c.bin"));
    assert_eq!(asked[..3], ["3", "ack ea3e2b2e1", "10"]);
}

#[test]
fn garbage_is_answered_as_java_does_and_ends_the_connection() {
    let mut responder = Responder::new(Arc::new(Registry::new(&AVRO_SOURCE)));
    let mut out = BytesMut::new();
    let garbage = Pack { serial: 7, message: Bytes::from_static(&[1, 2, 3]) };
    assert!(responder.open(garbage, &mut out).is_err());
    let answer = packs(&out).remove(0);
    assert_eq!(answer.serial, 7);
    // No handshake, no metadata, an error.
    assert_eq!(answer.message[..3], [0, 1, 0]);
}
