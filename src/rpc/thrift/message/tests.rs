use proptest::prelude::*;

use super::super::FrameReader;
use super::*;
use crate::event::Event;

const BOTH: [Protocol; 2] = [Protocol::Binary, Protocol::Compact];

/// The frames of bytes recorded from libthrift.
fn vectors(protocol: Protocol, direction: &str) -> (Vec<u8>, Vec<Bytes>) {
    let path = format!("{}/tests/vectors/thrift-{protocol}.{direction}.bin", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).expect("the vectors are there");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let frames = runtime.block_on(async {
        let mut reader = FrameReader::new(usize::MAX);
        let mut stream = &bytes[..];
        let mut frames = Vec::new();
        while let Some(frame) = reader.next(&mut stream).await.expect("frames") {
            frames.push(frame);
        }
        frames
    });
    (bytes, frames)
}

fn message(protocol: Protocol, frame: impl Into<Bytes>) -> Message {
    Message::read(protocol, frame.into()).expect("a message")
}

/// A request without its frame's length.
fn request(protocol: Protocol, method: Method, batch: &Batch) -> Vec<u8> {
    let mut out = BytesMut::new();
    protocol.write_request(&mut out, 7, method, batch);
    out.split_off(4).to_vec()
}

#[test]
fn recorded_requests_decode_and_encode_to_the_same_bytes() {
    let web1 = |body: &'static str| Event::new(body).with("host", "web1");
    let expected = [
        (Method::Append, Batch::from_iter([web1("hello")])),
        (Method::AppendBatch, Batch::from_iter([web1("e0"), Event::new("e1"), web1("")])),
        (Method::AppendBatch, (0..20).map(|_| Event::new("x")).collect()),
    ];
    for protocol in BOTH {
        let (recorded, frames) = vectors(protocol, "c2s");
        assert_eq!(frames.len(), expected.len());
        let mut again = BytesMut::new();
        for (number, (frame, (method, events))) in frames.into_iter().zip(&expected).enumerate() {
            let message = message(protocol, frame);
            assert_eq!(Method::named(&message.name), Some(*method));
            assert_eq!((message.kind, message.sequence), (MessageKind::Call, number as i32 + 1));
            let batch = message.events(*method).expect("events");
            assert_eq!(batch, *events);
            protocol.write_request(&mut again, message.sequence, *method, &batch);
        }
        assert_eq!(again, recorded, "{protocol}");
    }
}

#[test]
fn recorded_replies_decode_and_encode_to_the_same_bytes() {
    for protocol in BOTH {
        let (recorded, frames) = vectors(protocol, "s2c");
        let messages: Vec<Message> = frames.into_iter().map(|frame| message(protocol, frame)).collect();
        let replies: Vec<Reply> = messages.iter().map(|message| message.reply().expect("a reply")).collect();
        assert_eq!(replies, [Status::Ok, Status::Ok, Status::Failed].map(Reply::Status));
        let mut again = BytesMut::new();
        for (message, reply) in messages.iter().zip(&replies) {
            protocol.write_reply(&mut again, &message.name, message.sequence, reply);
        }
        assert_eq!(again, recorded, "{protocol}");
    }
}

#[test]
fn exceptions_come_through() {
    for protocol in BOTH {
        for kind in [ExceptionKind::ProtocolError, ExceptionKind::Other(4)] {
            let reply = Reply::Exception(Exception { kind, message: "Straße".to_owned() });
            let mut out = BytesMut::new();
            protocol.write_reply(&mut out, "append", -5, &reply);
            let message = message(protocol, out.split_off(4));
            assert_eq!((message.kind, message.sequence), (MessageKind::Exception, -5));
            assert_eq!(message.reply(), Ok(reply));
        }
    }
}

#[test]
fn the_other_protocol_is_recognised() {
    for (protocol, other) in [(Protocol::Binary, Protocol::Compact), (Protocol::Compact, Protocol::Binary)] {
        let frame = request(other, Method::AppendBatch, &Batch::new());
        let error = Message::read(protocol, frame.into()).expect_err("the other protocol");
        let text = error.to_string();
        assert!(text.ends_with(&format!("the client speaks the {other} protocol; set protocol = {other}")), "{text}");
        let error = Message::read(protocol, Bytes::from_static(b"\0\0\0\x05hello")).expect_err("no message");
        assert_eq!(error.to_string(), format!("no message of the {protocol} protocol"));
    }
}

#[test]
fn equal_headers_of_neighbours_are_one_set() {
    let events = ["a", "a", "b", "b", "a", ""];
    let batch: Batch = events
        .iter()
        .map(|host| if host.is_empty() { Event::new("x") } else { Event::new("x").with("host", host) })
        .collect();
    for protocol in BOTH {
        let frame = request(protocol, Method::AppendBatch, &batch);
        let mut decoded = message(protocol, frame).events(Method::AppendBatch).expect("events");
        assert_eq!(decoded, batch);
        let mut sets = 0;
        decoded.edit_headers(|_| sets += 1);
        assert_eq!(sets, 4, "three sets with a host, and the one for events without headers");
    }
}

/// One event of an `appendBatch` in the binary protocol, field by field.
fn binary_event(fields: &[&[u8]]) -> Result<Batch, DecodeError> {
    let mut frame = request(Protocol::Binary, Method::AppendBatch, &Batch::new());
    // The count of events, and the end of the arguments behind it.
    let count = frame.len() - 5;
    frame.truncate(count);
    frame.extend_from_slice(&[0, 0, 0, 1]);
    frame.extend_from_slice(&fields.concat());
    frame.extend_from_slice(&[0, 0]);
    message(Protocol::Binary, frame).events(Method::AppendBatch)
}

const HEADERS: &[u8] = b"\x0d\0\x01\x0b\x0b\0\0\0\x01\0\0\0\x01k\0\0\0\x01v";
const BODY: &[u8] = b"\x0b\0\x02\0\0\0\x02hi";

#[test]
fn fields_come_in_any_order_and_unknown_ones_are_skipped() {
    let expected = Batch::from_iter([Event::new("hi").with("k", "v")]);
    assert_eq!(binary_event(&[HEADERS, BODY]), Ok(expected.clone()));
    assert_eq!(binary_event(&[BODY, HEADERS]), Ok(expected.clone()));
    let unknown: [&[u8]; 8] = [
        b"\x02\0\x09\x01",                                    // a boolean
        b"\x04\0\x09\0\0\0\0\0\0\0\0",                        // a double
        b"\x0a\0\x01\0\0\0\0\0\0\0\0",                        // a number in the place of the headers
        b"\x0c\0\x09\x0b\0\x01\0\0\0\x01x\0",                 // a struct
        b"\x0d\0\x09\x08\x0b\0\0\0\x01\0\0\0\x07\0\0\0\x01x", // a map
        b"\x0f\0\x09\x02\0\0\0\x02\x01\0",                    // a list
        b"\x0e\0\x09\0\0\0\0\0",                              // an empty set of nothing
        b"\x0d\0\x09\0\0\0\0\0\0",                            // an empty map of nothing
    ];
    for field in unknown {
        assert_eq!(binary_event(&[field, BODY, field, HEADERS, field]), Ok(expected.clone()), "{field:x?}");
    }
}

#[test]
fn compact_booleans_have_their_value_in_the_fields_type_and_a_byte_in_a_list() {
    let batch = Batch::from_iter([Event::new("hi")]);
    let mut frame = request(Protocol::Compact, Method::Append, &batch);
    let end = frame.len() - 1;
    frame.truncate(end - 1);
    // Behind the body a true, a list of two booleans and a number; then the ends of event and arguments.
    frame.extend_from_slice(&[0x11, 0x19, 0x21, 1, 2, 0x16, 0x80, 0x01, 0, 0]);
    assert_eq!(message(Protocol::Compact, frame).events(Method::Append), Ok(batch));
}

#[test]
fn headers_that_are_not_utf_8_are_replaced_as_in_libthrift() {
    let headers: &[u8] = b"\x0d\0\x01\x0b\x0b\0\0\0\x01\0\0\0\x01\xff\0\0\0\0";
    let batch = binary_event(&[headers, BODY]).expect("an event");
    assert_eq!(batch.get(0).headers().get("\u{FFFD}"), Some(""));
}

#[test]
fn what_is_wrong_is_said_and_where() {
    for (fields, expected) in [
        (&[BODY][..], "Required field 'headers' was not present! Struct: ThriftFlumeEvent"),
        (&[HEADERS], "Required field 'body' was not present! Struct: ThriftFlumeEvent"),
        (&[b"\x0b\0\x02\x7f\xff\xff\xff"], "a length of 2147483647 at byte 34, where 2 bytes are left"),
        (&[b"\x0b\0\x02\xff\xff\xff\xff"], "a length of -1 at byte 34, where 2 bytes are left"),
        (&[b"\x0d\0\x01\x0b\x0b\x7f\xff\xff\xff"], "a length of 2147483647 at byte 36, where 2 bytes are left"),
        (&[b"\x0d\0\x01\x08\x0b\0\0\0\x01\0\0\0\x01\0\0\0\0"], "expected a map from text to text at byte 34"),
        (&[b"\x01\0\x05"], "a value of the unknown type 1 at byte 31"),
    ] {
        let error = binary_event(fields).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn claimed_counts_are_not_believed_and_nesting_has_an_end() {
    let mut frame = request(Protocol::Compact, Method::AppendBatch, &Batch::new());
    frame.truncate(frame.len() - 2);
    let head = frame.clone();
    frame.extend_from_slice(&[0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0x07]);
    let error = message(Protocol::Compact, frame).events(Method::AppendBatch);
    assert!(matches!(error, Err(DecodeError::Length { length: 0x7FFF_FFFF, left: 0, .. })), "{error:?}");

    let mut frame = head.clone();
    frame.extend_from_slice(&[0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    let error = message(Protocol::Compact, frame).events(Method::AppendBatch);
    assert!(matches!(error, Err(DecodeError::Number { .. })), "{error:?}");

    // A list of one list of one list …
    let mut frame = head;
    frame.extend_from_slice(&[0x0C, 0x29]);
    frame.extend_from_slice(&[0x19; 100_000]);
    let error = message(Protocol::Compact, frame).events(Method::AppendBatch);
    assert!(matches!(error, Err(DecodeError::TooDeep { .. })), "{error:?}");

    for protocol in BOTH {
        let frame = request(protocol, Method::Append, &Batch::from_iter([Event::new("x")]));
        let error = message(protocol, frame).events(Method::AppendBatch);
        let expected = Err(DecodeError::Missing { field: "events", of: "appendBatch_args" });
        assert_eq!(error, expected, "an event is no list");
    }
}

#[test]
fn a_frame_cut_anywhere_is_an_error() {
    let batch = Batch::from_iter([Event::new("one").with("k", "v"), Event::new("two")]);
    for protocol in BOTH {
        let frame = request(protocol, Method::AppendBatch, &batch);
        for end in 0..frame.len() {
            let cut = Bytes::copy_from_slice(&frame[..end]);
            let read = Message::read(protocol, cut).and_then(|message| message.events(Method::AppendBatch));
            assert!(!read.expect_err("the end is missing").is_well_formed());
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let text = || prop_oneof!["[a-z]{0,8}", "[äöüß\u{4e00}-\u{4e20}\u{5d0}-\u{5ea}😀-😎\0]{0,30}"];
    let headers = prop::collection::vec((text(), text()), 0..4);
    let body = prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), 0..200)];
    let event =
        (headers, body).prop_map(|(headers, body)| Event { headers: headers.into_iter().collect(), body: body.into() });
    // Runs of neighbours with the same headers.
    prop::collection::vec((event, 1usize..4), 0..20)
        .prop_map(|runs| runs.into_iter().flat_map(|(event, times)| std::iter::repeat_n(event, times)).collect())
}

proptest! {
    #[test]
    fn every_batch_comes_back(events in events(), sequence in any::<i32>()) {
        let batch: Batch = events.iter().cloned().collect();
        for protocol in BOTH {
            let mut out = BytesMut::new();
            protocol.write_request(&mut out, sequence, Method::AppendBatch, &batch);
            let length = u32::from_be_bytes(*out.first_chunk().expect("a length"));
            prop_assert_eq!(length as usize, out.len() - 4);
            let message = message(protocol, out.split_off(4));
            prop_assert_eq!(message.sequence, sequence);
            prop_assert_eq!(&message.events(Method::AppendBatch).expect("events"), &batch);
            for event in batch.iter().take(2) {
                let one = Batch::from_iter([event.to_event()]);
                let frame = request(protocol, Method::Append, &one);
                prop_assert_eq!(self::message(protocol, frame).events(Method::Append), Ok(one));
            }
        }
    }

    #[test]
    fn no_bytes_panic(
        events in events(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        noise in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let batch: Batch = events.into_iter().collect();
        for protocol in BOTH {
            let mut frame = request(protocol, Method::AppendBatch, &batch);
            for (place, byte) in &changes {
                let place = place.index(frame.len());
                frame[place] = *byte;
            }
            for frame in [frame, noise.clone()] {
                if let Ok(message) = Message::read(protocol, frame.into()) {
                    message.events(Method::Append).ok();
                    message.events(Method::AppendBatch).ok();
                    message.reply().ok();
                }
            }
        }
    }
}
