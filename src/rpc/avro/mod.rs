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
pub mod events;
pub mod handshake;
pub mod pack;
pub mod protocol;
pub mod responder;
pub mod schema;
pub mod server;
pub mod status;

use std::io;

use async_trait::async_trait;

use self::client::{CallError, Requestor};
use self::protocol::AVRO_SOURCE;
use super::event_client::{Cause, EventConnection, EventProtocol};
use super::transport::Stream;
use crate::event::Batch;

/// A buffer larger than this goes after use.
const KEPT_BYTES: usize = 1 << 20;

/// Avro RPC to an avro source, for [Flume's client](super::event_client).
pub struct Avro;

impl EventProtocol for Avro {
    fn client(&self) -> &'static str {
        "NettyAvroRpcClient"
    }

    fn open(&self, stream: Stream) -> Box<dyn EventConnection> {
        Box::new(AvroConnection { requestor: Requestor::new(stream, &AVRO_SOURCE), parameters: Vec::new() })
    }
}

struct AvroConnection {
    requestor: Requestor,
    /// The request that is being written.
    parameters: Vec<u8>,
}

#[async_trait]
impl EventConnection for AvroConnection {
    async fn append_batch(&mut self, batch: &Batch) -> Result<(), Cause> {
        self.parameters.clear();
        events::put_array(&mut self.parameters, batch);
        let answer = self.requestor.call("appendBatch", &self.parameters).await?;
        if self.parameters.capacity() > KEPT_BYTES {
            self.parameters = Vec::new();
        }
        if answer == status::OK { Ok(()) } else { Err(CallError::Status(status::name(&answer)).into()) }
    }

    fn is_usable(&mut self) -> bool {
        self.requestor.is_usable()
    }

    async fn close(&mut self) -> io::Result<()> {
        self.requestor.close().await
    }
}

#[cfg(test)]
mod tests;
