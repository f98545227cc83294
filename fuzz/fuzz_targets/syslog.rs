//! What clients of a syslog source may send: no byte is lost, and it makes no difference where a stream is cut.
#![no_main]

use bytes::Bytes;
use flume_rs::event::Batch;
use flume_rs::source::syslog::{Clock, Dialect, Events, Frame, KeepFields, Rules};
use libfuzzer_sys::fuzz_target;

/// The longest message.
const MAX: usize = 100;

fn events(rules: &Rules, clock: &Clock, stream: &[u8]) -> Batch {
    let data = Bytes::copy_from_slice(stream);
    let mut events = Events::new(rules, clock, &data, 1);
    let mut at = 0;
    while let Some(frame) = Frame::find(&data, at, MAX) {
        events.push(frame.bytes, frame.is_cut);
        at = frame.next;
    }
    if let Some(rest) = Frame::rest(&data, at) {
        events.push(rest, false);
    }
    events.finish().0
}

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, stream) = input;
    let clock = Clock::system();
    for dialect in [Dialect::Pattern, Dialect::Fields] {
        let rules = Rules::new(dialect, KeepFields::All);
        let whole = events(&rules, &clock, stream);
        let bytes: Vec<u8> = whole.iter().flat_map(|event| event.body()).copied().collect();
        assert!(stream.iter().filter(|byte| **byte != b'\n').eq(&bytes));

        let cut = cut.min(stream.len());
        let (front, back) = stream.split_at(Frame::whole(&stream[..cut], cut, MAX));
        let mut parts = events(&rules, &clock, front);
        parts.append(events(&rules, &clock, back));
        assert_eq!(parts, whole);

        for keep in ["none", "priority version timestamp hostname"] {
            let kept = events(&Rules::new(dialect, KeepFields::read(keep)), &clock, stream);
            assert!(kept.iter().map(|event| event.headers()).eq(whole.iter().map(|event| event.headers())));
        }
    }
});
