//! A connection at the client's side.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;

use super::datum::{DatumError, Reader, put_bytes};
use super::handshake::{HandshakeRequest, HandshakeResponse, Match, Outcome};
use super::pack::{self, Pack, PackError, PackReader};
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
    /// There is no call to be answered.
    #[error("no call waits for an answer")]
    Unasked,
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

/// A connection over which calls are made.
pub struct Requestor {
    stream: Stream,
    protocol: &'static Protocol,
    reader: PackReader,
    /// Requests that are not sent yet.
    out: BytesMut,
    head: Vec<u8>,
    /// The last request's number.
    serial: u32,
    /// Answers that have come and have not been asked for, in the order of their requests.
    answers: VecDeque<Answer>,
    agreed: bool,
}

/// A request's number, and what was answered to it.
type Answer = (u32, Option<Outcome>);

impl Requestor {
    /// A client on a fresh connection.
    pub fn new(stream: Stream, protocol: &'static Protocol) -> Self {
        let reader = PackReader::new(MAX_ANSWER_BYTES);
        let (out, head, answers) = (BytesMut::new(), Vec::new(), VecDeque::new());
        Self { stream, protocol, reader, out, head, serial: 0, answers, agreed: false }
    }

    /// Makes a call and waits for its result's datum, as long as it takes. Cut off, the connection is of no more use.
    pub async fn call(&mut self, message: &str, parameters: &[u8]) -> Result<Bytes, CallError> {
        self.ask(message, parameters).await?;
        self.answer().await
    }

    /// Makes a call whose [`answer`](Self::answer) is to be taken later; many may be on their way. The first one of a
    /// connection goes alone, with the handshake, so that this waits for its answer.
    pub async fn ask(&mut self, message: &str, parameters: &[u8]) -> Result<(), CallError> {
        if self.agreed {
            self.put_request(message, parameters, None);
            self.answers.push_back((self.serial, None));
            return Ok(());
        }
        // The first guess is that the server speaks just what the client does; if not, it may need the client's text.
        let Protocol { hash, text, .. } = *self.protocol;
        let mut handshake = HandshakeRequest { client_hash: hash, client_protocol: None, server_hash: hash };
        loop {
            self.put_request(message, parameters, Some(&handshake));
            let (serial, answer) = self.receive().await?;
            if serial != self.serial {
                return Err(CallError::Serial(serial));
            }
            let mut reader = Reader::new(&answer);
            let HandshakeResponse { matched, server } = HandshakeResponse::read(&mut reader)?;
            if matched != Match::None {
                self.agreed = true;
                self.answers.push_back((serial, Some(Outcome::read(&answer, &mut reader)?)));
                return Ok(());
            }
            if handshake.client_protocol.is_some() {
                return Err(CallError::Handshake);
            }
            handshake.client_protocol = Some(text.to_owned());
            handshake.server_hash = server.map_or(hash, |(_, hash)| hash);
        }
    }

    /// Waits for the answer to the earliest call that has none yet: its result's datum.
    pub async fn answer(&mut self) -> Result<Bytes, CallError> {
        loop {
            match self.answers.pop_front() {
                None => return Err(CallError::Unasked),
                Some((_, Some(Outcome::Result(datum)))) => return Ok(datum),
                Some((_, Some(Outcome::Error(text)))) => return Err(CallError::Remote(text)),
                Some(waiting) => self.answers.push_front(waiting),
            }
            // Java's server answers in any order.
            let (serial, answer) = self.receive().await?;
            let asked = self.answers.iter_mut().find(|(asked, outcome)| *asked == serial && outcome.is_none());
            let (_, outcome) = asked.ok_or(CallError::Serial(serial))?;
            *outcome = Some(Outcome::read(&answer, &mut Reader::new(&answer))?);
        }
    }

    /// Writes a request.
    fn put_request(&mut self, message: &str, parameters: &[u8], handshake: Option<&HandshakeRequest>) {
        self.head.clear();
        if let Some(handshake) = handshake {
            handshake.put(&mut self.head);
        }
        // No metadata, and the name.
        self.head.push(0);
        put_bytes(&mut self.head, message);
        self.serial = self.serial.wrapping_add(1);
        pack::put_request(&mut self.out, self.serial, &self.head, parameters);
    }

    /// Sends what is to be sent, and waits for an answer.
    async fn receive(&mut self) -> Result<(u32, Bytes), CallError> {
        self.stream.write_all_buf(&mut self.out).await?;
        self.stream.flush().await?;
        loop {
            if let Some(Pack { serial, message }) = self.reader.next_pack()? {
                return Ok((serial, message));
            }
            if self.reader.buffer().read_from(&mut self.stream).await? == 0 {
                return Err(CallError::Closed);
            }
        }
    }

    /// Whether another call can be made: the server has not closed the connection, and said nothing unasked.
    pub fn is_usable(&mut self) -> bool {
        self.unusable().now_or_never().is_none()
    }

    /// Waits, while no call is on its way, until no other can be made.
    pub async fn unusable(&mut self) {
        // Whatever comes was not asked for.
        self.reader.buffer().read_from(&mut self.stream).await.ok();
    }

    /// Ends the connection in order: with the end of its compressed stream and TLS session.
    pub async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}
