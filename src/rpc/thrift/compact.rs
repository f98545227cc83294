//! The compact protocol: whole numbers are zig-zag and as short as they can be, and a field's number is mostly told by
//! how far it is from the last one's.

use bytes::{BufMut as _, BytesMut};

use super::cursor::{Cursor, DecodeError};
use super::{Codec, Elements, Head, Kind, MessageKind, Protocol};

const PROTOCOL: u8 = 0x82;
const VERSION: u8 = 1;
/// The largest step of field numbers and the first count that do not fit into four bits.
const LONG: u8 = 15;

pub struct Compact;

fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Flag | Kind::Bool => 1,
        Kind::Byte => 3,
        Kind::I16 => 4,
        Kind::I32 => 5,
        Kind::I64 => 6,
        Kind::Double => 7,
        Kind::Bytes => 8,
        Kind::List => 9,
        Kind::Set => 10,
        Kind::Map => 11,
        Kind::Struct => 12,
    }
}

fn kind(code: u8, at: usize) -> Result<Kind, DecodeError> {
    Ok(match code {
        1 | 2 => Kind::Bool,
        3 => Kind::Byte,
        4 => Kind::I16,
        5 => Kind::I32,
        6 => Kind::I64,
        7 => Kind::Double,
        8 => Kind::Bytes,
        9 => Kind::List,
        10 => Kind::Set,
        11 => Kind::Map,
        12 => Kind::Struct,
        code => return Err(DecodeError::Type { at, code }),
    })
}

fn read_u32(input: &mut Cursor<'_>) -> Result<u32, DecodeError> {
    let at = input.position();
    input.varint()?.try_into().map_err(|_| DecodeError::Number { at })
}

/// A count of elements of at least `least` bytes each.
fn read_count(input: &mut Cursor<'_>, least: usize) -> Result<usize, DecodeError> {
    let at = input.position();
    let count = read_u32(input)?;
    // Java's are signed.
    input.believe(at, i64::from(count as i32), least)
}

fn zigzag(number: i32) -> u32 {
    ((number << 1) ^ (number >> 31)) as u32
}

fn write_varint(out: &mut BytesMut, mut number: u32) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

impl Codec for Compact {
    fn read_head<'a>(input: &mut Cursor<'a>) -> Result<Head<'a>, DecodeError> {
        let foreign = DecodeError::Foreign { expected: Protocol::Compact, spoken: Protocol::spoken(input.rest()) };
        let [protocol, kind_and_version] = input.array()?;
        let kind = MessageKind::from_code(kind_and_version >> 5);
        let ours = protocol == PROTOCOL && kind_and_version & 0x1F == VERSION;
        let Some(kind) = kind.filter(|_| ours) else { return Err(foreign) };
        let sequence = read_u32(input)? as i32;
        let length = Self::read_length(input)?;
        let name = super::message::method_name(input.slice(length)?)?;
        Ok(Head { kind, name, sequence })
    }

    fn read_field(input: &mut Cursor<'_>, id: &mut i16) -> Result<Option<Kind>, DecodeError> {
        let at = input.position();
        let front = input.byte()?;
        if front == 0 {
            return Ok(None);
        }
        let kind = match kind(front & 0x0F, at)? {
            Kind::Bool => Kind::Flag,
            other => other,
        };
        *id = match front >> 4 {
            0 => Self::read_i32(input)?.try_into().map_err(|_| DecodeError::Number { at })?,
            step => id.checked_add(step.into()).ok_or(DecodeError::Number { at })?,
        };
        Ok(Some(kind))
    }

    fn read_list(input: &mut Cursor<'_>) -> Result<Elements<Kind>, DecodeError> {
        let at = input.position();
        let front = input.byte()?;
        let count = match front >> 4 {
            LONG => read_count(input, 1)?,
            few => input.believe(at, few.into(), 1)?,
        };
        // What an empty list is of may be nothing.
        let kind = if count == 0 { Kind::Byte } else { kind(front & 0x0F, at)? };
        Ok(Elements { kind, count })
    }

    fn read_map(input: &mut Cursor<'_>) -> Result<Elements<Option<(Kind, Kind)>>, DecodeError> {
        // An empty map has no byte for the kinds.
        let count = read_count(input, 2)?;
        if count == 0 {
            return Ok(Elements { kind: None, count });
        }
        let at = input.position();
        let kinds = input.byte()?;
        Ok(Elements { kind: Some((kind(kinds >> 4, at)?, kind(kinds & 0x0F, at)?)), count })
    }

    fn read_length(input: &mut Cursor<'_>) -> Result<usize, DecodeError> {
        read_count(input, 1)
    }

    fn read_i32(input: &mut Cursor<'_>) -> Result<i32, DecodeError> {
        let number = read_u32(input)?;
        Ok((number >> 1) as i32 ^ -((number & 1) as i32))
    }

    fn skip_number(input: &mut Cursor<'_>, _kind: Kind) -> Result<(), DecodeError> {
        input.varint().map(drop)
    }

    fn write_head(out: &mut BytesMut, head: &Head<'_>) {
        out.put_u8(PROTOCOL);
        out.put_u8(head.kind.code() << 5 | VERSION);
        write_varint(out, head.sequence as u32);
        Self::write_bytes(out, head.name.as_bytes());
    }

    fn write_field(out: &mut BytesMut, id: &mut i16, next: i16, kind: Kind) {
        match u8::try_from(next - *id) {
            Ok(step @ 1..=LONG) => out.put_u8(step << 4 | code(kind)),
            _ => {
                out.put_u8(code(kind));
                write_varint(out, zigzag(next.into()));
            }
        }
        *id = next;
    }

    fn write_stop(out: &mut BytesMut) {
        out.put_u8(0);
    }

    fn write_list(out: &mut BytesMut, kind: Kind, count: usize) {
        match u8::try_from(count) {
            Ok(few) if few < LONG => out.put_u8(few << 4 | code(kind)),
            _ => {
                out.put_u8(LONG << 4 | code(kind));
                write_varint(out, count as u32);
            }
        }
    }

    fn write_map(out: &mut BytesMut, count: usize) {
        write_varint(out, count as u32);
        if count > 0 {
            out.put_u8(code(Kind::Bytes) << 4 | code(Kind::Bytes));
        }
    }

    fn write_bytes(out: &mut BytesMut, bytes: &[u8]) {
        write_varint(out, bytes.len() as u32);
        out.put_slice(bytes);
    }

    fn write_i32(out: &mut BytesMut, number: i32) {
        write_varint(out, zigzag(number));
    }
}
