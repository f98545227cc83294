//! Wire protocols, each usable on its own: [`avro`] is Avro RPC as Flume and Spark speak it,
//! [`spark`] the polling protocol over it.

pub mod avro;
mod deflate;
pub mod spark;
pub mod transport;
