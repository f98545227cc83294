//! Wire protocols, each usable on its own: [`avro`] is Avro RPC as Flume and Spark speak it, [`spark`] the polling
//! protocol over it, [`thrift`] Flume's Thrift protocol.
//! The [event client](event_client) sends events in either.

pub mod avro;
pub mod deflate;
pub mod event_client;
pub mod memory;
pub mod server;
pub mod spark;
pub mod thrift;
pub mod transport;
