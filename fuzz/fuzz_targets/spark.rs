//! Any bytes as a Spark sink's batch, and as a request to it.
#![no_main]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flume_rs::rpc::avro::datum::put_bytes;
use flume_rs::rpc::avro::handshake::HandshakeRequest;
use flume_rs::rpc::avro::pack::Pack;
use flume_rs::rpc::avro::protocol::{Registry, SPARK_FLUME};
use flume_rs::rpc::avro::responder::{Opened, Responder};
use flume_rs::rpc::spark::EventBatch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(batch) = EventBatch::read(&Bytes::copy_from_slice(data)) {
        let mut written = Vec::new();
        EventBatch::put(&mut written, &batch.error, &batch.sequence, &batch.events);
        assert_eq!(EventBatch::read(&written.into()).as_ref(), Ok(&batch));
    }
    let hash = SPARK_FLUME.hash;
    for name in SPARK_FLUME.messages {
        let mut message = Vec::new();
        HandshakeRequest { client_hash: hash, client_protocol: None, server_hash: hash }.put(&mut message);
        message.push(0);
        put_bytes(&mut message, *name);
        message.extend_from_slice(data);
        let mut responder = Responder::new(Arc::new(Registry::new(&SPARK_FLUME)));
        let pack = Pack { serial: 1, message: message.into() };
        let opened = responder.open(pack, &mut BytesMut::new()).expect("a handshake");
        let Opened::Call(call) = opened else { panic!("{name} is known") };
        call.long("n").ok();
        call.text("sequenceNumber").ok();
    }
});
