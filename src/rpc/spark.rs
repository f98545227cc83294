//! Spark's polling protocol: a client asks for batches of events, and says which ones it has stored.
//!
//! The transport is [Avro RPC](super::avro). [`EventBatch`] is what both sides exchange, [`PollingClient`] is the side of
//! Spark's receiver; the other side is the [Spark sink](crate::sink).

use std::io;

use bytes::Bytes;
use thiserror::Error;

use super::avro::client::{CallError, Requestor};
use super::avro::datum::{DatumError, Reader, put_bytes, put_long};
use super::avro::events::{EventReader, MAX_EVENTS, put_array};
use super::avro::protocol::SPARK_FLUME;
use super::transport::Endpoint;
use crate::event::Batch;

/// Events that wait for an ack, or why there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventBatch {
    /// Why there are no events; empty when there are.
    pub error: String,
    /// The number by which the client acknowledges the batch.
    pub sequence: String,
    /// The events.
    pub events: Batch,
}

impl EventBatch {
    /// Reads its datum.
    pub fn read(message: &Bytes) -> Result<Self, DatumError> {
        let mut reader = Reader::new(message);
        let error = reader.string()?.into_owned();
        let sequence = reader.string()?.into_owned();
        let mut events = EventReader::new(message, MAX_EVENTS);
        events.read_array(&mut reader)?;
        reader.finish()?;
        Ok(Self { error, sequence, events: events.finish() })
    }

    /// Writes a batch's datum.
    pub fn put(out: &mut Vec<u8>, error: &str, sequence: &str, events: &Batch) {
        put_bytes(out, error);
        put_bytes(out, sequence);
        put_array(out, events);
    }
}

/// Why a poll failed.
#[derive(Debug, Error)]
pub enum PollError {
    /// The call did.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The sink has no events to give, and says why. The connection is good.
    #[error("the Spark sink says: {0}")]
    Sink(String),
}

/// A client of a Spark sink, as Spark's receiver is one.
///
/// A batch is the sink's until it is acknowledged: after a nack, the sink's timeout or the end of the connection its
/// events come again, in a batch with another number.
pub struct PollingClient {
    requestor: Requestor,
}

impl PollingClient {
    /// Connects to a sink.
    pub async fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        Ok(Self { requestor: Requestor::new(endpoint.connect().await?, &SPARK_FLUME) })
    }

    /// Asks for at most `max` events, and waits until there is at least one.
    pub async fn poll(&mut self, max: u32) -> Result<EventBatch, PollError> {
        let mut parameters = Vec::new();
        put_long(&mut parameters, i64::from(max).min(i64::from(i32::MAX)));
        let answer = self.requestor.call("getEventBatch", &parameters).await?;
        let batch = EventBatch::read(&answer).map_err(CallError::from)?;
        if batch.error.is_empty() { Ok(batch) } else { Err(PollError::Sink(batch.error)) }
    }

    /// Says that a batch is safe, and the sink may forget it.
    pub async fn ack(&mut self, sequence: &str) -> Result<(), CallError> {
        self.settle("ack", sequence).await
    }

    /// Gives a batch back.
    pub async fn nack(&mut self, sequence: &str) -> Result<(), CallError> {
        self.settle("nack", sequence).await
    }

    /// Waits, between calls, until the connection is gone, and with it the batches that were not settled.
    pub async fn gone(&mut self) {
        self.requestor.unusable().await;
    }

    async fn settle(&mut self, message: &str, sequence: &str) -> Result<(), CallError> {
        let mut parameters = Vec::new();
        put_bytes(&mut parameters, sequence);
        self.requestor.call(message, &parameters).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    proptest! {
        #[test]
        fn what_is_written_is_read(error: String, sequence: String, bodies in prop::collection::vec(any::<Vec<u8>>(), 0..9)) {
            let events: Batch = bodies.into_iter().map(|body| Event::new(body).with("host", "web1")).collect();
            let mut bytes = Vec::new();
            EventBatch::put(&mut bytes, &error, &sequence, &events);
            prop_assert_eq!(EventBatch::read(&bytes.into()), Ok(EventBatch { error, sequence, events }));
        }

        #[test]
        fn any_bytes_are_a_batch_or_an_error(bytes: Vec<u8>) {
            EventBatch::read(&bytes.into()).ok();
        }
    }
}
