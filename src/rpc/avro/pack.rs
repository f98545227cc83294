//! Avro's data packs: a serial number and a list of buffers, whose concatenation is the message.

use bytes::{BufMut as _, Bytes, BytesMut};
use thiserror::Error;

use crate::read_buffer::ReadBuffer;

/// Java cuts parameters into buffers of so many bytes. Their borders mean nothing, and are kept to be alike.
const BUFFER_BYTES: usize = 8192;
const HEAD_BYTES: usize = 8;
/// A read takes in at most so much.
const MAX_READ_BYTES: usize = 128 << 10;

/// Why bytes are not a data pack.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PackError {
    /// The first bytes are those of something else that Flume's users configure.
    #[error("{0}")]
    Foreign(&'static str),
    /// It has no buffers. Java's server waits for ever then.
    #[error("a pack without buffers")]
    Empty,
    /// Longer than allowed.
    #[error("a pack of more than {limit} bytes (a buffer claims {claimed})")]
    TooLong {
        /// The length that a buffer claims to have.
        claimed: u32,
        /// What is allowed for the whole pack.
        limit: usize,
    },
    /// More buffers than allowed bytes.
    #[error("a pack of {buffers} buffers, where it may have {limit} bytes")]
    TooMany {
        /// The number of buffers claimed.
        buffers: u32,
        /// What is allowed for the whole pack.
        limit: usize,
    },
}

/// One message with the number that answer and request share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// The request's number.
    pub serial: u32,
    /// The buffers, joined.
    pub message: Bytes,
}

/// Finds packs in a stream of bytes, however it is cut.
pub struct PackReader {
    buffer: ReadBuffer,
    limit: usize,
    /// Buffers to come of the pack that has begun; with how many of its bytes have been looked at.
    open: Option<(u32, usize)>,
    /// Whether there has been a pack.
    begun: bool,
}

impl PackReader {
    /// A reader that refuses packs of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: ReadBuffer::new(MAX_READ_BYTES), limit, open: None, begun: false }
    }

    /// Where bytes from the stream go.
    pub fn buffer(&mut self) -> &mut ReadBuffer {
        &mut self.buffer
    }

    /// The next whole pack, when there is one.
    pub fn next_pack(&mut self) -> Result<Option<Pack>, PackError> {
        let pending = self.buffer.pending();
        if !self.begun
            && let Some(foreign) = foreign(pending)
        {
            return Err(PackError::Foreign(foreign));
        }
        let number = |at: usize| pending.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let (mut left, mut seen) = match self.open {
            Some(open) => open,
            None => match number(4) {
                None => return Ok(None),
                Some(0) => return Err(PackError::Empty),
                Some(buffers) if buffers as usize > self.limit / 4 => {
                    return Err(PackError::TooMany { buffers, limit: self.limit });
                }
                Some(buffers) => (buffers, HEAD_BYTES),
            },
        };
        while left > 0 {
            let Some(len) = number(seen) else { break };
            let end = seen as u64 + 4 + u64::from(len);
            if end > self.limit as u64 {
                return Err(PackError::TooLong { claimed: len, limit: self.limit });
            }
            if end > pending.len() as u64 {
                break;
            }
            (left, seen) = (left - 1, end as usize);
        }
        if left > 0 {
            self.open = Some((left, seen));
            return Ok(None);
        }
        self.open = None;
        self.begun = true;
        let pack = Pack { serial: number(0).unwrap_or_default(), message: joined(&pending[HEAD_BYTES..seen]) };
        self.buffer.skip(seen);
        Ok(Some(pack))
    }
}

/// What a connection's first bytes are, when they are known not to be a pack. Clients number their packs from 1.
fn foreign(first: &[u8]) -> Option<&'static str> {
    match first {
        [0x16, 0x03, ..] => Some("the other side speaks TLS: is ssl = true missing here?"),
        [0x78, 0x01 | 0x5E | 0x9C | 0xDA, ..] => {
            Some("the other side compresses: is compression-type = deflate missing here?")
        }
        [b'G', b'E', b'T', b' ', ..] | [b'P', b'O', b'S', b'T', ..] => Some("the other side speaks HTTP"),
        [0x15, 0x03, ..] => Some("the other side speaks TLS"),
        _ => None,
    }
}

/// The contents of all buffers in one, of just their size: what waits in a channel holds nothing else.
fn joined(mut buffers: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(buffers.len());
    while let Some((len, rest)) = buffers.split_first_chunk() {
        let (buffer, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        message.extend_from_slice(buffer);
        buffers = rest;
    }
    message.into()
}

/// Writes a request as Java cuts it: handshake, metadata and name in one buffer, the parameters in pieces.
pub fn put_request(out: &mut BytesMut, serial: u32, head: &[u8], parameters: &[u8]) {
    let pieces = parameters.len().div_ceil(BUFFER_BYTES);
    out.reserve(HEAD_BYTES + 4 + head.len() + parameters.len() + 4 * pieces);
    out.put_u32(serial);
    out.put_u32(1 + pieces as u32);
    put_buffer(out, head);
    for piece in parameters.chunks(BUFFER_BYTES) {
        put_buffer(out, piece);
    }
}

/// Writes an answer as Java cuts it: handshake, metadata and result in a buffer each, where the result begins with whether
/// it is an error.
pub fn put_answer(out: &mut BytesMut, serial: u32, handshake: &[u8], is_error: bool, result: &[u8]) {
    const NO_METADATA: &[u8] = &[0];
    out.reserve(HEAD_BYTES + 3 * 4 + handshake.len() + 2 + result.len());
    out.put_u32(serial);
    out.put_u32(3);
    put_buffer(out, handshake);
    put_buffer(out, NO_METADATA);
    out.put_u32(1 + result.len() as u32);
    out.put_u8(is_error.into());
    out.extend_from_slice(result);
}

/// Writes an answer that is a handshake and nothing else.
pub fn put_handshake(out: &mut BytesMut, serial: u32, handshake: &[u8]) {
    out.put_u32(serial);
    out.put_u32(1);
    put_buffer(out, handshake);
}

fn put_buffer(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packs(bytes: &[u8], cuts: impl Iterator<Item = usize>) -> Result<Vec<Pack>, PackError> {
        let mut reader = PackReader::new(1 << 20);
        let mut packs = Vec::new();
        let mut rest = bytes;
        for cut in cuts.chain([usize::MAX]) {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            reader.buffer().room().extend_from_slice(piece);
            while let Some(pack) = reader.next_pack()? {
                packs.push(pack);
            }
            rest = after;
        }
        Ok(packs)
    }

    /// What the first pack of a connection can have: of larger ones the first bytes may be those of something else.
    fn serial() -> impl Strategy<Value = u32> {
        0u32..1 << 24
    }

    proptest! {
        #[test]
        fn packs_are_found_however_the_stream_is_cut(
            messages in prop::collection::vec((serial(), prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..5)), 0..6),
            cuts in prop::collection::vec(0usize..9, 0..60),
        ) {
            let mut stream = BytesMut::new();
            for (serial, buffers) in &messages {
                stream.put_u32(*serial);
                stream.put_u32(buffers.len() as u32);
                for buffer in buffers {
                    put_buffer(&mut stream, buffer);
                }
            }
            let expected: Vec<Pack> =
                messages.iter().map(|(serial, buffers)| Pack { serial: *serial, message: buffers.concat().into() }).collect();
            prop_assert_eq!(packs(&stream, cuts.into_iter()), Ok(expected));
        }

        #[test]
        fn any_bytes_are_packs_or_an_error(bytes: Vec<u8>) {
            if let Ok(packs) = packs(&bytes, std::iter::empty()) {
                prop_assert!(packs.iter().map(|pack| pack.message.len()).sum::<usize>() <= bytes.len());
            }
        }

        #[test]
        fn what_is_written_is_read(
            serial in serial(),
            head: Vec<u8>,
            parameters in prop::collection::vec(any::<u8>(), 0..30_000),
        ) {
            let mut out = BytesMut::new();
            put_request(&mut out, serial, &head, &parameters);
            let message = [head, parameters].concat().into();
            prop_assert_eq!(packs(&out, std::iter::empty()), Ok(vec![Pack { serial, message }]));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_it_comes() {
        let refused = |bytes: &[u8]| packs(bytes, std::iter::empty()).expect_err("no pack");
        assert_eq!(refused(&[0, 0, 0, 1, 0, 0, 0, 0]), PackError::Empty);
        assert!(matches!(refused(b"hello world, how"), PackError::TooMany { .. }));
        assert!(matches!(refused(b"GET / HTTP/1.1\r\n"), PackError::Foreign(text) if text.contains("HTTP")));
        let two_gigabytes = [0, 0, 0, 1, 0, 0, 0, 1, 0x7F, 0xFF, 0xFF, 0xFF];
        assert_eq!(refused(&two_gigabytes), PackError::TooLong { claimed: 0x7FFF_FFFF, limit: 1 << 20 });
    }
}
