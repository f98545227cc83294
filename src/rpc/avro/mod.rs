//! Avro RPC over Flume's framing.
//!
//! A connection carries [data packs](pack): a serial number and the bytes of one message. The first request begins with
//! a [handshake], in which client and server agree on the [protocol] by the hash of its text; a client with another text
//! is [understood by its types](schema). Requests may follow each other without waiting; answers carry their serial
//! numbers. [Events](events) are ranges of the message that brought them.
//!
//! The [responder] is the server's side without a network, the [server] serves a connection with it, the [client] is the
//! other side; [`Avro`] is what Flume's clients send events in.

pub mod client;
pub mod datum;
mod event_connection;
pub mod events;
pub mod handshake;
pub mod pack;
pub mod protocol;
pub mod responder;
pub mod schema;
pub mod server;
pub mod status;

pub use event_connection::Avro;

#[cfg(test)]
mod tests;
