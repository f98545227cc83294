//! Any bytes as a Thrift message: decoded without a panic, and what decodes comes back from its own bytes.
#![no_main]

use bytes::{Bytes, BytesMut};
use flume_rs::rpc::thrift::{Message, Method, Protocol};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let frame = Bytes::copy_from_slice(frame);
    for protocol in [Protocol::Binary, Protocol::Compact] {
        let Ok(message) = Message::read(protocol, frame.clone()) else { continue };
        message.reply().ok();
        for method in [Method::Append, Method::AppendBatch] {
            let Ok(batch) = message.events(method) else { continue };
            let mut out = BytesMut::new();
            protocol.write_request(&mut out, message.sequence, method, &batch);
            let again = Message::read(protocol, out.split_off(4).freeze()).expect("a message");
            assert_eq!(again.events(method).as_ref(), Ok(&batch));
        }
    }
});
