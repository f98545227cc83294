//! Frames: a length of four bytes, big-endian, and so many bytes.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::AsyncRead;

use super::Protocol;
use crate::read_buffer::ReadBuffer;
use crate::rpc::server::Framing;

/// The longest frame that libthrift takes, in bytes, and the default here.
pub const MAX_FRAME_BYTES: usize = 16_384_000;

const LENGTH_BYTES: usize = 4;
/// A read takes in at most so much.
const MAX_READ_BYTES: usize = 128 << 10;

/// Why a stream gives no more frames.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame's length is over the limit, mostly because it is none.
    #[error("a frame of {length} bytes, where {max} are allowed{}", not_framed_hint(*.length))]
    TooLong {
        /// The length.
        length: u32,
        /// The limit.
        max: usize,
    },
    /// The stream ends within a frame.
    #[error("the stream ends within a frame, after {have} bytes of it")]
    Cut {
        /// Bytes of the frame that came, its length included.
        have: usize,
    },
    /// The stream cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a client speaks whose first bytes are no length.
fn not_framed_hint(length: u32) -> String {
    match length.to_be_bytes() {
        front if Protocol::spoken(&front).is_some() => {
            "; the client speaks Thrift without frames; it must use a framed transport".to_owned()
        }
        [0x16, 0x03, ..] => "; the client speaks TLS; set ssl = true".to_owned(),
        [0x01, 0, 0, 0] => "; the client speaks SASL, as for Kerberos".to_owned(),
        front if front.iter().all(u8::is_ascii_graphic) || front.ends_with(b" ") && front[..3].is_ascii() => {
            format!("; the client sent the text {:?}", String::from_utf8_lossy(&front))
        }
        _ => String::new(),
    }
}

/// Cuts a stream into frames. Memory grows with what has come, not with what is announced.
#[derive(Debug)]
pub struct FrameReader {
    buffer: ReadBuffer,
    max_bytes: usize,
}

impl FrameReader {
    /// A reader that refuses frames of more than `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { buffer: ReadBuffer::new(MAX_READ_BYTES), max_bytes }
    }

    /// The next frame without its length; nothing when the stream ends between two. Cut off, it has lost nothing.
    pub async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return Ok(Some(frame));
            }
            if self.buffer.read_from(stream).await? == 0 {
                return match self.buffer.pending().len() {
                    0 => Ok(None),
                    have => Err(FrameError::Cut { have }),
                };
            }
        }
    }
}

impl Framing for FrameReader {
    type Frame = Bytes;
    type Error = FrameError;

    fn buffer(&mut self) -> &mut ReadBuffer {
        &mut self.buffer
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let pending = self.buffer.pending();
        let Some(front) = pending.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*front);
        let bytes = length as usize;
        if bytes > self.max_bytes {
            return Err(FrameError::TooLong { length, max: self.max_bytes });
        }
        if pending.len() < LENGTH_BYTES + bytes {
            return Ok(None);
        }
        self.buffer.skip(LENGTH_BYTES);
        Ok(Some(self.buffer.take(bytes)))
    }
}

/// Writes a frame whose bytes `write` writes.
pub fn write(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    write(out);
    let length = (out.len() - start - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// All frames of a stream that comes in these pieces, and how it ended.
    fn frames(pieces: &[&[u8]], max: usize) -> (Vec<Bytes>, Result<(), FrameError>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (mut near, mut far) = tokio::io::duplex(3000);
            let sending = async {
                for piece in pieces {
                    // The reader may have given up.
                    far.write_all(piece).await.ok();
                }
                drop(far);
            };
            let reading = async {
                let mut reader = FrameReader::new(max);
                let mut frames = Vec::new();
                loop {
                    match reader.next(&mut near).await {
                        Ok(Some(frame)) => frames.push(frame),
                        Ok(None) => break (frames, Ok(())),
                        Err(error) => {
                            drop(near);
                            break (frames, Err(error));
                        }
                    }
                }
            };
            tokio::join!(sending, reading).1
        })
    }

    #[test]
    fn a_frame_that_is_only_announced_costs_little() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut reader = FrameReader::new(MAX_FRAME_BYTES);
        let announced = [&(MAX_FRAME_BYTES as u32).to_be_bytes()[..], b"x"].concat();
        let end = runtime.block_on(reader.next(&mut &announced[..]));
        assert!(matches!(end, Err(FrameError::Cut { have: 5 })), "{end:?}");
        let held = reader.buffer.room().capacity();
        assert!(held <= MAX_READ_BYTES, "{held}");
    }

    #[test]
    fn what_is_no_length_is_named() {
        for (sent, hint) in [
            (&b"\x80\x01\x00\x01"[..], "without frames"),
            (b"\x82\x21\x01\x06", "without frames"),
            (b"\x16\x03\x01\x02", "set ssl = true"),
            (b"\x01\x00\x00\x00", "SASL"),
            (b"GET ", "\"GET \""),
            (b"hell", "\"hell\""),
            (b"\x7f\xff\xff\xff", "a frame of 2147483647 bytes, where 16384000 are allowed"),
        ] {
            let (frames, end) = frames(&[sent], MAX_FRAME_BYTES);
            assert!(frames.is_empty());
            let text = end.expect_err("no frame").to_string();
            assert!(text.contains(hint), "{text}");
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_however_the_stream_is_cut(
            contents in prop::collection::vec(
                prop_oneof![prop::collection::vec(any::<u8>(), 0..50), Just(vec![7; 5000]), Just(vec![8; 200_000])], 0..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
            lost in 0usize..3,
        ) {
            let mut stream = BytesMut::new();
            for content in &contents {
                write(&mut stream, |out| out.put_slice(content));
            }
            let end = stream.len().saturating_sub(lost);
            let stream = &stream[..end];
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(end + 1)).chain([0, end]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
            let (seen, outcome) = frames(&pieces, 200_000);
            let whole = lost == 0 || contents.is_empty();
            prop_assert_eq!(outcome.is_ok(), whole);
            let expected = if whole { &contents[..] } else { &contents[..contents.len() - 1] };
            prop_assert_eq!(seen, expected);
        }
    }
}
