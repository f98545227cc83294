//! Avro RPC to an avro source.

use std::io;

use async_trait::async_trait;

use super::client::{CallError, Requestor};
use super::protocol::AVRO_SOURCE;
use super::{events, status};
use crate::event::Batch;
use crate::rpc::event_client::{Cause, EventConnection, EventProtocol};
use crate::rpc::transport::Stream;

/// A buffer larger than this goes after use.
const KEPT_BYTES: usize = 1 << 20;

/// The protocol of avro sources, for [Flume's client](crate::rpc::event_client).
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
    async fn append(&mut self, batches: &[Batch]) -> Result<(), Cause> {
        for batch in batches {
            self.parameters.clear();
            events::put_array(&mut self.parameters, batch);
            self.requestor.ask("appendBatch", &self.parameters).await?;
        }
        if self.parameters.capacity() > KEPT_BYTES {
            self.parameters = Vec::new();
        }
        for _ in batches {
            let answer = self.requestor.answer().await?;
            if answer != status::OK {
                return Err(CallError::Status(status::name(&answer)).into());
            }
        }
        Ok(())
    }

    fn is_usable(&mut self) -> bool {
        self.requestor.is_usable()
    }

    async fn close(&mut self) -> io::Result<()> {
        self.requestor.close().await
    }
}
