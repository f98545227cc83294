//! The protocols that are spoken over Avro RPC, and what servers know of their clients' versions of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use md5::{Digest as _, Md5};

use super::handshake::Hash;
use super::schema::{ClientSchema, SchemaError};

/// A protocol as its Java class prints it. The hash is that of the text, byte for byte.
#[derive(Debug)]
pub struct Protocol {
    /// The text, which peers exchange when they do not know each other's hash.
    pub text: &'static str,
    /// The text's MD5.
    pub hash: Hash,
    /// The names of its messages.
    pub messages: &'static [&'static str],
}

/// The hash of a protocol's text.
pub fn hash(text: &str) -> Hash {
    Md5::digest(text).into()
}

/// What Flume's avro sinks, its clients and the log4j appender speak to avro sources. The same from Flume 1.4 to 1.11,
/// and in Spark.
pub static AVRO_SOURCE: Protocol = Protocol {
    text: include_str!("AvroSourceProtocol.json"),
    hash: 0x86aa_dae2_c454_74c0_fe93_ffd0_f235_0a65_u128.to_be_bytes(),
    messages: &["append", "appendBatch"],
};

/// What Spark's polling receiver speaks to the Spark sink.
pub static SPARK_FLUME: Protocol = Protocol {
    text: include_str!("SparkFlumeProtocol.json"),
    hash: 0x45f3_c2c4_aa53_244c_eaac_da67_31de_dffb_u128.to_be_bytes(),
    messages: &["getEventBatch", "ack", "nack"],
};

/// How many protocols of clients a server remembers; the oldest goes first.
const MAX_CLIENTS: usize = 64;
/// How long a client's protocol may be. Flume's has 1334 bytes.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// What a client speaks.
#[derive(Clone, Debug)]
pub enum Dialect {
    /// The same text as the server.
    Same,
    /// Another text.
    Other(Arc<ClientSchema>),
}

/// A protocol at the server's side, with the clients' versions of it that the server has learned, for all its
/// connections.
#[derive(Debug)]
pub struct Registry {
    /// What the server speaks.
    pub protocol: &'static Protocol,
    learned: Mutex<VecDeque<(Hash, Arc<ClientSchema>)>>,
}

impl Registry {
    /// A server that knows nobody yet.
    pub fn new(protocol: &'static Protocol) -> Self {
        Self { protocol, learned: Mutex::default() }
    }

    /// What a client with this hash speaks, if that is known.
    pub fn look_up(&self, client: &Hash) -> Option<Dialect> {
        if *client == self.protocol.hash {
            return Some(Dialect::Same);
        }
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.iter().find(|(hash, _)| hash == client).map(|(_, schema)| Dialect::Other(Arc::clone(schema)))
    }

    /// Learns what a client speaks, from its text. Java believes the hash; here one that is not the text's counts for this
    /// connection alone, so that nobody can tell the server what others speak.
    pub fn learn(&self, client: Hash, text: &str) -> Result<Dialect, SchemaError> {
        if let Some(known) = self.look_up(&client) {
            return Ok(known);
        }
        if text.len() > MAX_TEXT_BYTES {
            return Err(SchemaError::TooLong(text.len()));
        }
        let schema = Arc::new(ClientSchema::parse(text)?);
        if hash(text) != client {
            return Ok(Dialect::Other(schema));
        }
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        if learned.len() == MAX_CLIENTS {
            learned.pop_front();
        }
        learned.push_back((client, Arc::clone(&schema)));
        Ok(Dialect::Other(schema))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_protocols_can_be_read() {
        for protocol in [&AVRO_SOURCE, &SPARK_FLUME] {
            let schema = ClientSchema::parse(protocol.text).expect("a protocol");
            assert!(protocol.messages.iter().all(|message| schema.knows(message)));
            assert_eq!(hash(protocol.text), protocol.hash);
        }
    }

    #[test]
    fn what_is_learned_is_bounded() {
        let registry = Registry::new(&AVRO_SOURCE);
        // Blanks change the hash and nothing else.
        let text = |n: usize| format!("{}{}", AVRO_SOURCE.text, " ".repeat(n + 1));
        for n in 0..=MAX_CLIENTS {
            registry.learn(hash(&text(n)), &text(n)).expect("a protocol");
        }
        assert!(registry.look_up(&hash(&text(0))).is_none());
        assert!(registry.look_up(&hash(&text(1))).is_some());
        let long = " ".repeat(MAX_TEXT_BYTES + 1);
        assert!(matches!(registry.learn(hash(&long), &long), Err(SchemaError::TooLong(_))));
        assert!(matches!(registry.look_up(&AVRO_SOURCE.hash), Some(Dialect::Same)));
    }

    #[test]
    fn nobody_tells_the_server_what_others_speak() {
        let registry = Registry::new(&AVRO_SOURCE);
        let theirs = hash("somebody else's text");
        assert!(matches!(registry.learn(theirs, AVRO_SOURCE.text), Ok(Dialect::Other(_))));
        assert!(registry.look_up(&theirs).is_none());
    }
}
