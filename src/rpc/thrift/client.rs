//! The asking side of a connection.

use std::io;

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::FutureExt as _;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    DecodeError, Exception, FrameError, FrameReader, MAX_FRAME_BYTES, Message, Method, Protocol, Reply, Status,
};
use crate::event::Batch;
use crate::rpc::event_client::{Cause, EventConnection, EventProtocol};
use crate::rpc::transport::Stream;

/// Room that is kept from one request to the next, in bytes.
const KEPT_BYTES: usize = 1 << 20;

/// Why a request was not answered with OK.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The request could not be sent.
    #[error(transparent)]
    Send(#[from] io::Error),
    /// The request is longer than a frame can be.
    #[error("a request of {bytes} bytes is longer than a frame can be; make the batches smaller")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The server closed the connection instead of answering.
    #[error("the server closed the connection without an answer to a request of {bytes} bytes{}", size_hint(*.bytes))]
    Closed {
        /// The request's length.
        bytes: usize,
    },
    /// The answer is no frame.
    #[error(transparent)]
    Frame(FrameError),
    /// The answer is no message.
    #[error(transparent)]
    Message(#[from] DecodeError),
    /// The answer to something else.
    #[error("out of sequence response: expected {expected} but got {found}")]
    Sequence {
        /// The request's number.
        expected: i32,
        /// The answer's.
        found: i32,
    },
    /// The server could not make sense of the request.
    #[error(transparent)]
    Exception(Exception),
    /// The server could not take the events. The text is Flume's.
    #[error("Failed to deliver events. Server returned status : {}", .0.name())]
    Status(Status),
}

fn size_hint(bytes: usize) -> &'static str {
    match bytes > MAX_FRAME_BYTES {
        true => "; libthrift takes 16384000, make the batches smaller",
        false => "; does it speak the same protocol?",
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    protocol: Protocol,
    answers: FrameReader,
    request: BytesMut,
    sequence: i32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// A client that asks over a connection.
    pub fn new(stream: S, protocol: Protocol) -> Self {
        let answers = FrameReader::new(MAX_FRAME_BYTES);
        Self { stream, protocol, answers, request: BytesMut::new(), sequence: 0 }
    }

    /// Sends a batch and waits until the server has it. After an error, or cut off, the connection is of no more use.
    pub async fn append_batch(&mut self, batch: &Batch) -> Result<(), CallError> {
        self.sequence = self.sequence.wrapping_add(1);
        if self.request.capacity() > KEPT_BYTES {
            self.request = BytesMut::new();
        }
        self.request.clear();
        self.protocol.write_request(&mut self.request, self.sequence, Method::AppendBatch, batch);
        let bytes = self.request.len();
        if i32::try_from(bytes).is_err() {
            return Err(CallError::TooLong { bytes });
        }
        self.stream.write_all(&self.request).await?;
        self.stream.flush().await?;
        let answer = self.answers.next(&mut self.stream).await.map_err(CallError::Frame)?;
        let answer = answer.ok_or(CallError::Closed { bytes })?;
        let message = Message::read(self.protocol, answer)?;
        if message.sequence != self.sequence {
            return Err(CallError::Sequence { expected: self.sequence, found: message.sequence });
        }
        match message.reply()? {
            Reply::Status(Status::Ok) => Ok(()),
            Reply::Status(status) => Err(CallError::Status(status)),
            Reply::Exception(exception) => Err(CallError::Exception(exception)),
        }
    }

    /// Whether the next request can be sent: the server has not closed the connection, and said nothing unasked.
    pub fn is_usable(&mut self) -> bool {
        self.stream.read(&mut [0]).now_or_never().is_none()
    }

    /// Closes the connection in order.
    pub async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

impl EventProtocol for Protocol {
    fn client(&self) -> &'static str {
        "ThriftRpcClient"
    }

    fn open(&self, stream: Stream) -> Box<dyn EventConnection> {
        Box::new(Client::new(stream, *self))
    }
}

#[async_trait]
impl EventConnection for Client<Stream> {
    async fn append(&mut self, batches: &[Batch]) -> Result<(), Cause> {
        for batch in batches {
            self.append_batch(batch).await?;
        }
        Ok(())
    }

    fn is_usable(&mut self) -> bool {
        Self::is_usable(self)
    }

    async fn close(&mut self) -> io::Result<()> {
        Self::close(self).await
    }
}
