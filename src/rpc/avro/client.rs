//! A connection at the client's side.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;

use super::datum::{DatumError, Reader, put_bytes};
use super::handshake::{HandshakeRequest, HandshakeResponse, Match, Outcome};
use super::pack::{self, PackError, PackReader};
use super::protocol::Protocol;
use crate::rpc::transport::Stream;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Why a call failed. The connection is of no use afterwards, unless the server answered.
#[derive(Debug, Error)]
pub enum CallError {
    /// The network's reason.
    #[error("RPC connection error: {0}")]
    Io(#[from] io::Error),
    /// What came is no data pack.
    #[error("the answer is not Avro RPC: {0}")]
    Pack(#[from] PackError),
    /// What came is no answer.
    #[error("the answer cannot be read: {0}")]
    Answer(#[from] DatumError),
    /// The server closed the connection.
    #[error("RPC connection error: the server closed the connection")]
    Closed,
    /// The answer belongs to no request.
    #[error("the answer {0} belongs to no request")]
    Serial(u32),
    /// The server does not take the client's protocol.
    #[error("the server does not agree to the protocol")]
    Handshake,
    /// An avro source did not take the events.
    #[error("Avro RPC call returned Status: {0}")]
    Status(&'static str),
    /// What the server says went wrong.
    #[error("Avro RPC call failed: {0}")]
    Remote(String),
}

/// A connection over which calls are made, one after the other.
pub struct Requestor {
    stream: Stream,
    protocol: &'static Protocol,
    reader: PackReader,
    out: BytesMut,
    head: Vec<u8>,
    /// The last request's number.
    serial: u32,
    agreed: bool,
}

impl Requestor {
    /// A client on a fresh connection.
    pub fn new(stream: Stream, protocol: &'static Protocol) -> Self {
        let reader = PackReader::new(MAX_ANSWER_BYTES);
        let (out, head) = (BytesMut::new(), Vec::new());
        Self { stream, protocol, reader, out, head, serial: 0, agreed: false }
    }

    /// Makes a call and waits for its result's datum, as long as it takes. Cut off, the connection is of no more use.
    pub async fn call(&mut self, message: &str, parameters: &[u8]) -> Result<Bytes, CallError> {
        // The first guess is that the server speaks just what the client does; if not, it may need the client's text.
        let mut server_hash = self.protocol.hash;
        let mut with_text = false;
        loop {
            self.head.clear();
            if !self.agreed {
                let protocol = self.protocol;
                let client_protocol = with_text.then(|| protocol.text.to_owned());
                HandshakeRequest { client_hash: protocol.hash, client_protocol, server_hash }.put(&mut self.head);
            }
            // No metadata, and the name.
            self.head.push(0);
            put_bytes(&mut self.head, message);
            self.serial = self.serial.wrapping_add(1);
            pack::put_request(&mut self.out, self.serial, &self.head, parameters);
            let answer = self.send_and_receive().await?;
            let mut reader = Reader::new(&answer);
            if !self.agreed {
                let HandshakeResponse { matched, server } = HandshakeResponse::read(&mut reader)?;
                if matched == Match::None {
                    if with_text {
                        return Err(CallError::Handshake);
                    }
                    with_text = true;
                    server_hash = server.map_or(server_hash, |(_, hash)| hash);
                    continue;
                }
                self.agreed = true;
            }
            return match Outcome::read(&answer, &mut reader)? {
                Outcome::Result(datum) => Ok(datum),
                Outcome::Error(text) => Err(CallError::Remote(text)),
            };
        }
    }

    async fn send_and_receive(&mut self) -> Result<Bytes, CallError> {
        while !self.out.is_empty() {
            if self.stream.write_buf(&mut self.out).await? == 0 {
                return Err(CallError::Closed);
            }
        }
        self.stream.flush().await?;
        loop {
            if let Some(pack) = self.reader.next_pack()? {
                return if pack.serial == self.serial { Ok(pack.message) } else { Err(CallError::Serial(pack.serial)) };
            }
            if self.reader.buffer().read_from(&mut self.stream).await? == 0 {
                return Err(CallError::Closed);
            }
        }
    }

    /// Whether another call can be made: the server has not closed the connection, and said nothing unasked.
    pub fn is_usable(&mut self) -> bool {
        self.reader.buffer().read_from(&mut self.stream).now_or_never().is_none()
    }

    /// Ends the connection in order: with the end of its compressed stream and TLS session.
    pub async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}
