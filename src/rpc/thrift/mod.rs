//! Flume's Thrift protocol: `append` and `appendBatch` of `ThriftSourceProtocol`, in framed messages.
//!
//! A frame is a length (u32, big-endian) and one message in the [binary](Protocol::Binary) (strict) or the
//! [compact](Protocol::Compact) protocol; both sides must use the same one. [`FrameReader`] cuts a stream into frames,
//! [`Message`] decodes one. Events are decoded in place: their bodies are ranges of the frame. Fields may come in any
//! order, unknown ones are skipped, and no length is believed for which the frame has not enough bytes.

mod binary;
mod client;
mod compact;
mod cursor;
mod frame;
mod message;

use std::fmt;

use bytes::BytesMut;

pub use client::{CallError, Client};
pub use cursor::DecodeError;
pub use frame::{FrameError, FrameReader, MAX_FRAME_BYTES};
pub use message::{Exception, ExceptionKind, Message, Method, Reply, Status};

use cursor::Cursor;

/// Skipped values may be nested so deep.
const MAX_DEPTH: u32 = 64;

/// How messages are spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Numbers of fixed size.
    Binary,
    /// Numbers as short as they can be. Flume's default.
    Compact,
}

impl Protocol {
    /// The protocol of a name, in whatever case.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Binary, Self::Compact].into_iter().find(|protocol| protocol.to_string().eq_ignore_ascii_case(name))
    }

    /// libthrift's class of that protocol, which Flume logs.
    pub fn class(self) -> &'static str {
        match self {
            Self::Binary => "TBinaryProtocol",
            Self::Compact => "TCompactProtocol",
        }
    }

    /// The protocol of a message that begins with these bytes.
    pub fn spoken(front: &[u8]) -> Option<Self> {
        match front {
            [0x80, 0x01, ..] => Some(Self::Binary),
            [0x82, second, ..] if second & 0x1F == 1 => Some(Self::Compact),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Binary => "binary",
            Self::Compact => "compact",
        })
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A request.
    Call,
    /// An answer.
    Reply,
    /// An answer that is an error.
    Exception,
    /// A request without an answer.
    Oneway,
}

impl MessageKind {
    fn code(self) -> u8 {
        match self {
            Self::Call => 1,
            Self::Reply => 2,
            Self::Exception => 3,
            Self::Oneway => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Call, Self::Reply, Self::Exception, Self::Oneway].into_iter().find(|kind| kind.code() == code)
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A boolean field of the compact protocol: its value is part of its type.
    Flag,
    Bool,
    Byte,
    Double,
    I16,
    I32,
    I64,
    /// Text or bytes.
    Bytes,
    Struct,
    Map,
    Set,
    List,
}

/// The front of a message.
struct Head<'a> {
    kind: MessageKind,
    name: &'a str,
    sequence: i32,
}

/// The elements of a list, or the pairs of a map with the kinds of both sides.
struct Elements<K> {
    kind: K,
    count: usize,
}

/// How a protocol spells the parts of a message.
///
/// A struct is a series of fields: `id` is 0 before the first and then the number of the last one.
trait Codec {
    fn read_head<'a>(input: &mut Cursor<'a>) -> Result<Head<'a>, DecodeError>;
    /// The next field of a struct; nothing at its end.
    fn read_field(input: &mut Cursor<'_>, id: &mut i16) -> Result<Option<Kind>, DecodeError>;
    /// The front of a list or a set. There are at least as many bytes left as elements.
    fn read_list(input: &mut Cursor<'_>) -> Result<Elements<Kind>, DecodeError>;
    /// The front of a map; an empty one has no kinds. There are at least twice as many bytes left as pairs.
    fn read_map(input: &mut Cursor<'_>) -> Result<Elements<Option<(Kind, Kind)>>, DecodeError>;
    /// The length of text or bytes, of which at least so many are left.
    fn read_length(input: &mut Cursor<'_>) -> Result<usize, DecodeError>;
    fn read_i32(input: &mut Cursor<'_>) -> Result<i32, DecodeError>;
    /// Passes over a whole number of this kind.
    fn skip_number(input: &mut Cursor<'_>, kind: Kind) -> Result<(), DecodeError>;

    fn write_head(out: &mut BytesMut, head: &Head<'_>);
    fn write_field(out: &mut BytesMut, id: &mut i16, next: i16, kind: Kind);
    /// The end of a struct.
    fn write_stop(out: &mut BytesMut);
    fn write_list(out: &mut BytesMut, kind: Kind, count: usize);
    /// The front of a map from text to text.
    fn write_map(out: &mut BytesMut, count: usize);
    fn write_bytes(out: &mut BytesMut, bytes: &[u8]);
    fn write_i32(out: &mut BytesMut, number: i32);
}

/// Passes over a value of any kind.
fn skip<C: Codec>(input: &mut Cursor<'_>, kind: Kind, depth: u32) -> Result<(), DecodeError> {
    let Some(deeper) = depth.checked_sub(1) else { return Err(DecodeError::TooDeep { at: input.position() }) };
    match kind {
        Kind::Flag => {}
        Kind::Bool | Kind::Byte => input.skip(1)?,
        Kind::Double => input.skip(8)?,
        Kind::I16 | Kind::I32 | Kind::I64 => C::skip_number(input, kind)?,
        Kind::Bytes => {
            let length = C::read_length(input)?;
            input.skip(length)?;
        }
        Kind::Struct => {
            let mut id = 0;
            while let Some(kind) = C::read_field(input, &mut id)? {
                skip::<C>(input, kind, deeper)?;
            }
        }
        Kind::Map => {
            let map = C::read_map(input)?;
            if let Some((key, value)) = map.kind {
                for _ in 0..map.count {
                    skip::<C>(input, key, deeper)?;
                    skip::<C>(input, value, deeper)?;
                }
            }
        }
        Kind::Set | Kind::List => {
            let list = C::read_list(input)?;
            for _ in 0..list.count {
                skip::<C>(input, list.kind, deeper)?;
            }
        }
    }
    Ok(())
}
