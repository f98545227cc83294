//! The strict binary protocol: numbers are big-endian and of fixed size.

use bytes::{BufMut as _, BytesMut};

use super::cursor::{Cursor, DecodeError};
use super::{Codec, Elements, Head, Kind, MessageKind, Protocol};

/// The upper half of a message's first four bytes.
const VERSION: u16 = 0x8001;

pub struct Binary;

fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Flag | Kind::Bool => 2,
        Kind::Byte => 3,
        Kind::Double => 4,
        Kind::I16 => 6,
        Kind::I32 => 8,
        Kind::I64 => 10,
        Kind::Bytes => 11,
        Kind::Struct => 12,
        Kind::Map => 13,
        Kind::Set => 14,
        Kind::List => 15,
    }
}

fn read_kind(input: &mut Cursor<'_>) -> Result<Kind, DecodeError> {
    let at = input.position();
    Ok(match input.byte()? {
        2 => Kind::Bool,
        3 => Kind::Byte,
        4 => Kind::Double,
        6 => Kind::I16,
        8 => Kind::I32,
        10 => Kind::I64,
        11 => Kind::Bytes,
        12 => Kind::Struct,
        13 => Kind::Map,
        14 => Kind::Set,
        15 => Kind::List,
        code => return Err(DecodeError::Type { at, code }),
    })
}

/// A count of elements of at least `least` bytes each.
fn read_count(input: &mut Cursor<'_>, least: usize) -> Result<usize, DecodeError> {
    let at = input.position();
    let count = Binary::read_i32(input)?;
    input.believe(at, count.into(), least)
}

impl Codec for Binary {
    fn read_head<'a>(input: &mut Cursor<'a>) -> Result<Head<'a>, DecodeError> {
        let foreign = DecodeError::Foreign { expected: Protocol::Binary, spoken: Protocol::spoken(input.rest()) };
        let [high, low, _, code] = input.array()?;
        let kind = MessageKind::from_code(code);
        let Some(kind) = kind.filter(|_| u16::from_be_bytes([high, low]) == VERSION) else { return Err(foreign) };
        let length = Self::read_length(input)?;
        let name = super::message::method_name(input.slice(length)?)?;
        Ok(Head { kind, name, sequence: Self::read_i32(input)? })
    }

    fn read_field(input: &mut Cursor<'_>, id: &mut i16) -> Result<Option<Kind>, DecodeError> {
        if input.rest().first() == Some(&0) {
            input.byte()?;
            return Ok(None);
        }
        let kind = read_kind(input)?;
        *id = i16::from_be_bytes(input.array()?);
        Ok(Some(kind))
    }

    fn read_list(input: &mut Cursor<'_>) -> Result<Elements<Kind>, DecodeError> {
        // What an empty list is of may be nothing.
        if let [0, 0, 0, 0, 0, ..] = input.rest() {
            input.skip(5)?;
            return Ok(Elements { kind: Kind::Byte, count: 0 });
        }
        Ok(Elements { kind: read_kind(input)?, count: read_count(input, 1)? })
    }

    fn read_map(input: &mut Cursor<'_>) -> Result<Elements<Option<(Kind, Kind)>>, DecodeError> {
        if let [_, _, 0, 0, 0, 0, ..] = input.rest() {
            input.skip(6)?;
            return Ok(Elements { kind: None, count: 0 });
        }
        Ok(Elements { kind: Some((read_kind(input)?, read_kind(input)?)), count: read_count(input, 2)? })
    }

    fn read_length(input: &mut Cursor<'_>) -> Result<usize, DecodeError> {
        read_count(input, 1)
    }

    fn read_i32(input: &mut Cursor<'_>) -> Result<i32, DecodeError> {
        input.array().map(i32::from_be_bytes)
    }

    fn skip_number(input: &mut Cursor<'_>, kind: Kind) -> Result<(), DecodeError> {
        let size = match kind {
            Kind::I16 => 2,
            Kind::I32 => 4,
            _ => 8,
        };
        input.skip(size)
    }

    fn write_head(out: &mut BytesMut, head: &Head<'_>) {
        out.put_u16(VERSION);
        out.put_u16(head.kind.code().into());
        Self::write_bytes(out, head.name.as_bytes());
        out.put_i32(head.sequence);
    }

    fn write_field(out: &mut BytesMut, id: &mut i16, next: i16, kind: Kind) {
        *id = next;
        out.put_u8(code(kind));
        out.put_i16(next);
    }

    fn write_stop(out: &mut BytesMut) {
        out.put_u8(0);
    }

    fn write_list(out: &mut BytesMut, kind: Kind, count: usize) {
        out.put_u8(code(kind));
        out.put_u32(count as u32);
    }

    fn write_map(out: &mut BytesMut, count: usize) {
        out.put_bytes(code(Kind::Bytes), 2);
        out.put_u32(count as u32);
    }

    fn write_bytes(out: &mut BytesMut, bytes: &[u8]) {
        out.put_u32(bytes.len() as u32);
        out.put_slice(bytes);
    }

    fn write_i32(out: &mut BytesMut, number: i32) {
        out.put_i32(number);
    }
}
