//! The messages of Flume's `ThriftSourceProtocol`.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use smol_str::SmolStr;
use thiserror::Error;

use super::binary::Binary;
use super::compact::Compact;
use super::cursor::{Cursor, DecodeError};
use super::{Codec, Head, Kind, MAX_DEPTH, MessageKind, Protocol, frame, skip};
use crate::event::{Batch, BufferId, EventRef, Headers, HeadersId, NO_HEADERS};

/// The longest name of a method that is looked at, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// The fewest bytes that an event takes.
const LEAST_EVENT_BYTES: usize = 5;

/// A method of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One event.
    Append,
    /// Any number of events.
    AppendBatch,
}

impl Method {
    /// The method of a name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Append, Self::AppendBatch].into_iter().find(|method| method.name() == name)
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::AppendBatch => "appendBatch",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The events are safe.
    Ok,
    /// They could not be taken.
    Failed,
    /// The server is in trouble.
    Error,
    /// Nobody knows.
    Unknown,
}

impl Status {
    /// Its name in Flume.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Failed => "FAILED",
            Self::Error => "ERROR",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn from_code(code: i32) -> Option<Self> {
        [Self::Ok, Self::Failed, Self::Error, Self::Unknown].into_iter().find(|status| *status as i32 == code)
    }
}

/// What an [`Exception`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExceptionKind {
    /// The server has no such method.
    UnknownMethod,
    /// The server failed.
    InternalError,
    /// The request is not as the protocol demands.
    ProtocolError,
    /// Another number of libthrift.
    Other(i32),
}

impl ExceptionKind {
    fn code(self) -> i32 {
        match self {
            Self::UnknownMethod => 1,
            Self::InternalError => 6,
            Self::ProtocolError => 7,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: i32) -> Self {
        let known = [Self::UnknownMethod, Self::InternalError, Self::ProtocolError];
        known.into_iter().find(|kind| kind.code() == code).unwrap_or(Self::Other(code))
    }
}

/// libthrift's `TApplicationException`.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message} ({kind:?})")]
pub struct Exception {
    /// What it is about.
    pub kind: ExceptionKind,
    /// What it says.
    pub message: String,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The method ran.
    Status(Status),
    /// It did not.
    Exception(Exception),
}

/// A frame whose front has been read.
#[derive(Clone, Debug)]
pub struct Message {
    /// What it is.
    pub kind: MessageKind,
    /// The method's name.
    pub name: SmolStr,
    /// The number that a reply has in common with its request.
    pub sequence: i32,
    /// How it is spelt, and its reply is to be.
    pub protocol: Protocol,
    frame: Bytes,
    /// Where its struct begins.
    at: usize,
}

impl Message {
    /// Reads the front of a frame's message.
    pub fn read(protocol: Protocol, frame: Bytes) -> Result<Self, DecodeError> {
        let mut input = Cursor::new(&frame, 0);
        let head = match protocol {
            Protocol::Binary => Binary::read_head(&mut input),
            Protocol::Compact => Compact::read_head(&mut input),
        };
        let Head { kind, name, sequence } = head?;
        let (name, at) = (SmolStr::new(name), input.position());
        Ok(Self { kind, name, sequence, protocol, frame, at })
    }

    /// The events of a request.
    pub fn events(&self, method: Method) -> Result<Batch, DecodeError> {
        match self.protocol {
            Protocol::Binary => self.read_events::<Binary>(method),
            Protocol::Compact => self.read_events::<Compact>(method),
        }
    }

    /// What a reply says.
    pub fn reply(&self) -> Result<Reply, DecodeError> {
        match self.protocol {
            Protocol::Binary => self.read_reply::<Binary>(),
            Protocol::Compact => self.read_reply::<Compact>(),
        }
    }

    fn read_events<C: Codec>(&self, method: Method) -> Result<Batch, DecodeError> {
        let mut input = Cursor::new(&self.frame, self.at);
        let mut batch = None;
        let mut id = 0;
        while let Some(kind) = C::read_field(&mut input, &mut id)? {
            let events = match (method, id, kind) {
                (Method::Append, 1, Kind::Struct) => 1,
                (Method::AppendBatch, 1, Kind::List) => {
                    let at = input.position();
                    let list = C::read_list(&mut input)?;
                    if list.count > 0 && list.kind != Kind::Struct {
                        return Err(DecodeError::Elements { at, expected: "a list of events" });
                    }
                    list.count
                }
                _ => {
                    skip::<C>(&mut input, kind, MAX_DEPTH)?;
                    continue;
                }
            };
            let mut reader = EventReader::new(&self.frame, events.min(input.rest().len() / LEAST_EVENT_BYTES));
            for _ in 0..events {
                reader.read::<C>(&mut input)?;
            }
            reader.batch.shrink();
            batch = Some(reader.batch);
        }
        batch.ok_or(match method {
            Method::Append => DecodeError::Missing { field: "event", of: "append_args" },
            Method::AppendBatch => DecodeError::Missing { field: "events", of: "appendBatch_args" },
        })
    }

    fn read_reply<C: Codec>(&self) -> Result<Reply, DecodeError> {
        let mut input = Cursor::new(&self.frame, self.at);
        let mut status = None;
        let mut exception = Exception { kind: ExceptionKind::Other(0), message: String::new() };
        let mut id = 0;
        while let Some(kind) = C::read_field(&mut input, &mut id)? {
            match (self.kind, id, kind) {
                (MessageKind::Reply, 0, Kind::I32) => status = Status::from_code(C::read_i32(&mut input)?),
                (MessageKind::Exception, 1, Kind::Bytes) => {
                    let length = C::read_length(&mut input)?;
                    exception.message = String::from_utf8_lossy(input.slice(length)?).into_owned();
                }
                (MessageKind::Exception, 2, Kind::I32) => {
                    exception.kind = ExceptionKind::from_code(C::read_i32(&mut input)?);
                }
                _ => skip::<C>(&mut input, kind, MAX_DEPTH)?,
            }
        }
        match (self.kind, status) {
            (MessageKind::Exception, _) => Ok(Reply::Exception(exception)),
            (_, Some(status)) => Ok(Reply::Status(status)),
            (_, None) => Err(DecodeError::Missing { field: "success", of: "result" }),
        }
    }
}

/// A method's name as text.
pub fn method_name(name: &[u8]) -> Result<&str, DecodeError> {
    let text = std::str::from_utf8(name).ok().filter(|name| name.len() <= MAX_NAME_BYTES);
    text.ok_or(DecodeError::Name { length: name.len() })
}

/// Reads events of one frame into a batch.
struct EventReader<'a> {
    frame: &'a [u8],
    batch: Batch,
    buffer: BufferId,
    /// Where the last set of headers stands. Bytes that begin with the same ones are the same set.
    last: Range<usize>,
    last_headers: HeadersId,
}

impl<'a> EventReader<'a> {
    fn new(frame: &'a Bytes, events: usize) -> Self {
        let mut batch = Batch::with_capacity(events);
        let buffer = batch.push_buffer(frame.clone());
        Self { frame, batch, buffer, last: 0..0, last_headers: NO_HEADERS }
    }

    fn read<C: Codec>(&mut self, input: &mut Cursor<'_>) -> Result<(), DecodeError> {
        let missing = |field| DecodeError::Missing { field, of: "ThriftFlumeEvent" };
        let (mut headers, mut body) = (None, None);
        let mut id = 0;
        while let Some(kind) = C::read_field(input, &mut id)? {
            match (id, kind) {
                (1, Kind::Map) => headers = Some(self.headers::<C>(input)?),
                (2, Kind::Bytes) => {
                    let length = C::read_length(input)?;
                    body = Some(input.take(length)?);
                }
                _ => skip::<C>(input, kind, MAX_DEPTH)?,
            }
        }
        let headers = headers.ok_or(missing("headers"))?;
        let Range { start, end } = body.ok_or(missing("body"))?;
        self.batch.push_span(self.buffer, start, end, headers);
        Ok(())
    }

    fn headers<C: Codec>(&mut self, input: &mut Cursor<'_>) -> Result<HeadersId, DecodeError> {
        if !self.last.is_empty() && input.rest().starts_with(&self.frame[self.last.clone()]) {
            input.skip(self.last.len())?;
            return Ok(self.last_headers);
        }
        let start = input.position();
        let map = C::read_map(input)?;
        if !matches!(map.kind, None | Some((Kind::Bytes, Kind::Bytes))) {
            return Err(DecodeError::Elements { at: start, expected: "a map from text to text" });
        }
        let mut text = || {
            let length = C::read_length(input)?;
            // As in libthrift, what is not UTF-8 becomes U+FFFD.
            Ok(SmolStr::from(String::from_utf8_lossy(input.slice(length)?)))
        };
        let headers = (0..map.count).map(|_| Ok((text()?, text()?))).collect::<Result<Headers, _>>()?;
        self.last = start..input.position();
        self.last_headers = self.batch.push_headers(headers);
        Ok(self.last_headers)
    }
}

impl Protocol {
    /// Appends the frame of a request.
    ///
    /// # Panics
    /// When `append` is given other than one event.
    pub fn write_request(self, out: &mut BytesMut, sequence: i32, method: Method, batch: &Batch) {
        frame::write(out, |out| match self {
            Self::Binary => write_request::<Binary>(out, sequence, method, batch),
            Self::Compact => write_request::<Compact>(out, sequence, method, batch),
        });
    }

    /// Appends the frame of an answer to the request of that name and number.
    pub fn write_reply(self, out: &mut BytesMut, name: &str, sequence: i32, reply: &Reply) {
        frame::write(out, |out| match self {
            Self::Binary => write_reply::<Binary>(out, name, sequence, reply),
            Self::Compact => write_reply::<Compact>(out, name, sequence, reply),
        });
    }
}

fn write_request<C: Codec>(out: &mut BytesMut, sequence: i32, method: Method, batch: &Batch) {
    C::write_head(out, &Head { kind: MessageKind::Call, name: method.name(), sequence });
    match method {
        Method::Append => {
            assert_eq!(batch.len(), 1, "append is of one event");
            C::write_field(out, &mut 0, 1, Kind::Struct);
        }
        Method::AppendBatch => {
            C::write_field(out, &mut 0, 1, Kind::List);
            C::write_list(out, Kind::Struct, batch.len());
        }
    }
    for event in batch.iter() {
        write_event::<C>(out, event);
    }
    C::write_stop(out);
}

fn write_event<C: Codec>(out: &mut BytesMut, event: EventRef<'_>) {
    let mut id = 0;
    C::write_field(out, &mut id, 1, Kind::Map);
    C::write_map(out, event.headers().len());
    for (key, value) in event.headers().iter() {
        C::write_bytes(out, key.as_bytes());
        C::write_bytes(out, value.as_bytes());
    }
    C::write_field(out, &mut id, 2, Kind::Bytes);
    C::write_bytes(out, event.body());
    C::write_stop(out);
}

fn write_reply<C: Codec>(out: &mut BytesMut, name: &str, sequence: i32, reply: &Reply) {
    let mut id = 0;
    match reply {
        Reply::Status(status) => {
            C::write_head(out, &Head { kind: MessageKind::Reply, name, sequence });
            C::write_field(out, &mut id, 0, Kind::I32);
            C::write_i32(out, *status as i32);
        }
        Reply::Exception(exception) => {
            C::write_head(out, &Head { kind: MessageKind::Exception, name, sequence });
            C::write_field(out, &mut id, 1, Kind::Bytes);
            C::write_bytes(out, exception.message.as_bytes());
            C::write_field(out, &mut id, 2, Kind::I32);
            C::write_i32(out, exception.kind.code());
        }
    }
    C::write_stop(out);
}

#[cfg(test)]
mod tests;
