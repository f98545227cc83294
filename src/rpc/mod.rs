//! Wire protocols, each usable on its own: [`avro`] is Avro RPC as Flume and Spark speak it.

pub mod avro;
mod deflate;
pub mod transport;
