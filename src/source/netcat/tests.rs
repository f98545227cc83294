use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::channel::Channel;
use crate::channel::memory::{MemoryChannel, MemoryConfig};
use crate::config::{Globals, Origin, Property};
use crate::interceptor::Chain;
use crate::metrics::{Metrics, SourceCounters};

#[test]
fn length_is_javas() {
    for text in ["", "abc", "é€", "😀a"] {
        assert_eq!(java_length(text.as_bytes()), text.encode_utf16().count(), "{text}");
    }
}

#[test]
fn answers_keep_their_order() {
    let mut answers = Answers { oks: 2, ..Answers::default() };
    answers.failed(&"no");
    answers.oks = 1;
    answers.spell_oks();
    assert_eq!(&answers.text[..], b"OK\nOK\nFAILED: no\nOK\n");
}

#[test]
fn many_oks_are_spelt_in_full() {
    let mut answers = Answers { oks: 3000, ..Answers::default() };
    answers.spell_oks();
    assert_eq!(answers.text, b"OK\n".repeat(3000));
}

/// What the source must make of a stream, said in the plainest way: events, and refusals as `None`.
fn model(input: &[u8], limit: usize) -> Vec<Option<Vec<u8>>> {
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let rest = lines.pop().unwrap_or_default();
    let mut expected = Vec::new();
    for line in lines {
        match std::str::from_utf8(line) {
            _ if is_too_long(line, limit) => {
                expected.push(None);
                return expected;
            }
            Ok(_) => expected.push(Some(line.to_vec())),
            Err(_) => expected.push(None),
        }
    }
    if is_too_long(rest, limit) {
        expected.push(None);
    }
    expected
}

/// Sends the pieces to a connection and returns its answers and the events in the channel.
async fn converse(pieces: &[Vec<u8>], limit: usize) -> (String, Vec<Vec<u8>>) {
    let limits = MemoryConfig { capacity: 100_000, transaction_capacity: 7, ..MemoryConfig::default() };
    let channel: Arc<dyn Channel> = Arc::new(MemoryChannel::new("c1", limits, &Metrics::default()));
    let counters = Arc::new(SourceCounters::new("r1"));
    let mut entries = BTreeMap::new();
    for (key, value) in [("bind", "127.0.0.1"), ("port", "0"), ("max-line-length", &limit.to_string())] {
        let property =
            Property { key: key.to_owned(), value: value.to_owned(), origin: Origin { file: "test".into(), line: 1 } };
        entries.insert(key.to_owned(), property);
    }
    let globals = Globals::default();
    let mut props = Props::new("a1.sources.r1", &entries, None, &globals);
    let config = Arc::new(NetcatConfig::from_props(&mut props).expect("valid"));
    let selector = crate::selector::from_props(&mut props, &["c1".to_owned()]).expect("a selector");
    let channels = vec![Arc::clone(&channel)];
    let out = ChannelProcessor::new("r1", Chain::default(), selector, channels, counters, Arc::default());
    let listener = net::listen("127.0.0.1", 0).await.expect("a port");
    let mut client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
    let (stream, peer) = listener.accept().await.expect("a connection");
    out.counters().open_connections.add(1);
    let connection = Connection::new(peer, config, out);
    let server = tokio::spawn(async move { connection.serve(stream, &CancellationToken::new()).await });
    let (mut read, mut write) = client.split();
    let mut answers = Vec::new();
    let sending = async {
        for piece in pieces {
            // The server may have closed.
            write.write_all(piece).await.ok();
            write.flush().await.ok();
            tokio::task::yield_now().await;
        }
        write.shutdown().await.ok();
    };
    let (_, end) = tokio::join!(sending, read.read_to_end(&mut answers));
    end.ok();
    server.await.expect("no panic");
    let mut events = Vec::new();
    while channel.counters().size.get() > 0 {
        let taken = channel.take(100).await.expect("events");
        events.extend(taken.batch().iter().map(|event| event.body().to_vec()));
        taken.commit();
    }
    (String::from_utf8(answers).expect("text"), events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_in_any_pieces_become_events_and_answers(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "[ab\r\né😀]{0,60}".prop_map(String::into_bytes),
                Just(vec![b'\n'; 5000]),
            ],
            0..6,
        ),
        limit in 1usize..20,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (answers, events) = runtime.block_on(converse(&pieces, limit));
        let expected = model(&pieces.concat(), limit);
        let accepted: Vec<Vec<u8>> = expected.iter().flatten().cloned().collect();
        prop_assert_eq!(events, accepted);
        let words: Vec<bool> = answers.lines().map(|line| line == "OK").collect();
        prop_assert_eq!(words, expected.iter().map(Option::is_some).collect::<Vec<_>>());
    }
}
