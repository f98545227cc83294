//! The server's side of a conversation, without the network: handshake, dispatch and answers.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::datum::{DatumError, Reader};
use super::events::{EventReader, MAX_EVENTS};
use super::handshake::{HandshakeRequest, HandshakeResponse, Match, put_error, skip_metadata};
use super::pack::{self, Pack};
use super::protocol::{Dialect, Registry};
use super::schema::Typed;
use crate::event::Batch;
use crate::logging::Excerpt;

/// The longest name of a message that is looked at.
const MAX_NAME_BYTES: usize = 128;

/// Why a connection cannot go on.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The first bytes are no handshake.
    #[error("the first message is no Avro handshake: {0}")]
    Malformed(DatumError),
    /// The client's protocol is of no use.
    #[error(transparent)]
    Protocol(#[from] super::schema::SchemaError),
}

/// What came of a message.
#[derive(Debug)]
pub enum Opened {
    /// A call to be executed and answered.
    Call(Call),
    /// It has its answer already.
    Answered,
    /// It has its answer, and the answer is an error.
    Refused(String),
}

/// A call that waits for its answer.
#[derive(Debug)]
pub struct Call {
    /// The message, one of the protocol's.
    pub message: &'static str,
    serial: u32,
    /// The answer to the handshake that came along, or nothing.
    handshake: Vec<u8>,
    bytes: Bytes,
    /// Where the parameters begin.
    at: usize,
    dialect: Dialect,
}

impl Call {
    /// Writes the answer: the result's datum, or an error's text.
    pub fn answer(&self, out: &mut BytesMut, result: Result<&[u8], &str>) {
        match result {
            Ok(datum) => pack::put_answer(out, self.serial, &self.handshake, false, datum),
            Err(text) => put_error_answer(out, self.serial, &self.handshake, text),
        }
    }

    /// Reads a parameter; `read` is told its type where the client's types are not ours.
    fn parameter<T>(
        &self,
        name: &str,
        mut read: impl FnMut(Option<Typed<'_>>, &mut Reader<'_>) -> Result<T, DatumError>,
    ) -> Result<T, DatumError> {
        let mut reader = Reader::new(&self.bytes);
        reader.take(self.at)?;
        match &self.dialect {
            Dialect::Same => read(None, &mut reader),
            Dialect::Other(schema) => {
                schema.parameter(self.message, name, &mut reader, |typed, reader| read(Some(typed), reader))
            }
        }
    }

    /// The only parameter, an event.
    pub fn event(&self, name: &str) -> Result<Batch, DatumError> {
        let mut events = EventReader::new(&self.bytes, 1);
        self.parameter(name, |typed, reader| match typed {
            None => events.read(reader),
            Some(typed) => typed.event(&mut events, reader),
        })?;
        Ok(events.finish())
    }

    /// The only parameter, an array of events.
    pub fn events(&self, name: &str) -> Result<Batch, DatumError> {
        self.events_up_to(name, MAX_EVENTS)
    }

    /// The only parameter, an array of at most so many events.
    pub fn events_up_to(&self, name: &str, max: usize) -> Result<Batch, DatumError> {
        let mut events = EventReader::new(&self.bytes, max);
        self.parameter(name, |typed, reader| match typed {
            None => events.read_array(reader),
            Some(typed) => typed.events(&mut events, reader),
        })?;
        Ok(events.finish())
    }

    /// The only parameter, a whole number.
    pub fn long(&self, name: &str) -> Result<i64, DatumError> {
        self.parameter(name, |typed, reader| match typed {
            None => reader.long(),
            Some(typed) => typed.long(reader),
        })
    }

    /// The only parameter, a text.
    pub fn text(&self, name: &str) -> Result<String, DatumError> {
        self.parameter(name, |typed, reader| {
            let range = match typed {
                None => reader.bytes()?,
                Some(typed) => typed.bytes(reader)?,
            };
            Ok(String::from_utf8_lossy(reader.slice(range)).into_owned())
        })
    }
}

/// An error as Java's server words it when it cannot read a call.
pub fn java_error(error: DatumError) -> String {
    match error {
        DatumError::Truncated => "java.io.EOFException".to_owned(),
        DatumError::Type => "org.apache.avro.AvroTypeException: the client's types do not fit the server's".to_owned(),
        other => format!("org.apache.avro.AvroRuntimeException: Malformed data: {other}"),
    }
}

fn put_error_answer(out: &mut BytesMut, serial: u32, handshake: &[u8], text: &str) {
    let mut error = Vec::new();
    put_error(&mut error, text);
    pack::put_answer(out, serial, handshake, true, &error);
}

/// One connection's state at the server.
#[derive(Debug)]
pub struct Responder {
    registry: Arc<Registry>,
    /// What the client speaks, once that is agreed.
    dialect: Option<Dialect>,
}

impl Responder {
    /// A connection at its beginning.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, dialect: None }
    }

    /// Reads a message. What needs no execution is answered at once, into `out`.
    pub fn open(&mut self, pack: Pack, out: &mut BytesMut) -> Result<Opened, HandshakeError> {
        let Pack { serial, message: bytes } = pack;
        let mut reader = Reader::new(&bytes);
        let mut handshake = Vec::new();
        let dialect = match &self.dialect {
            Some(dialect) => dialect.clone(),
            None => match self.agree(&mut reader, &mut handshake) {
                Ok(Some(dialect)) => self.dialect.insert(dialect).clone(),
                Ok(None) => {
                    pack::put_handshake(out, serial, &handshake);
                    return Ok(Opened::Answered);
                }
                Err(error) => {
                    // As Java answers, which its own client cannot read.
                    let text = format!("org.apache.avro.AvroRuntimeException: {}", Excerpt(&error));
                    put_error_answer(out, serial, &[], &text);
                    return Err(error);
                }
            },
        };
        let refuse = |out: &mut BytesMut, text: String| {
            put_error_answer(out, serial, &handshake, &text);
            Ok(Opened::Refused(text))
        };
        let name = match skip_metadata(&mut reader).and_then(|()| reader.bytes()) {
            Ok(name) if name.len() <= MAX_NAME_BYTES => String::from_utf8_lossy(reader.slice(name)),
            Ok(name) => {
                let bytes = name.len();
                return refuse(out, format!("org.apache.avro.AvroRuntimeException: A message name of {bytes} bytes"));
            }
            Err(error) => return refuse(out, java_error(error)),
        };
        if name.is_empty() {
            // A ping: the handshake is all that was asked for.
            pack::put_handshake(out, serial, &handshake);
            return Ok(Opened::Answered);
        }
        let protocol = self.registry.protocol;
        let message = protocol.messages.iter().find(|message| **message == name);
        let known = match &dialect {
            Dialect::Same => message.is_some(),
            Dialect::Other(schema) => schema.knows(&name),
        };
        match message {
            Some(message) if known => {
                let at = reader.position();
                Ok(Opened::Call(Call { message, serial, handshake, at, dialect, bytes }))
            }
            None if known => {
                let text = protocol.text;
                refuse(out, format!("org.apache.avro.AvroRuntimeException: No message named {name} in {text}"))
            }
            _ => refuse(out, format!("org.apache.avro.AvroRuntimeException: No such remote message: {name}")),
        }
    }

    /// Reads the handshake and writes the answer to it. Gives what the client speaks, if that is now known.
    fn agree(&self, reader: &mut Reader<'_>, answer: &mut Vec<u8>) -> Result<Option<Dialect>, HandshakeError> {
        let request = HandshakeRequest::read(reader).map_err(HandshakeError::Malformed)?;
        let protocol = self.registry.protocol;
        let dialect = match &request.client_protocol {
            Some(text) => Some(self.registry.learn(request.client_hash, text)?),
            None => self.registry.look_up(&request.client_hash),
        };
        let matched = match &dialect {
            None => Match::None,
            Some(_) if request.server_hash == protocol.hash => Match::Both,
            Some(_) => Match::Client,
        };
        let server = (matched != Match::Both).then(|| (protocol.text.to_owned(), protocol.hash));
        HandshakeResponse { matched, server }.put(answer);
        Ok(dialect)
    }
}
