//! The buffer between a stream and what is made of its bytes.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// Reads begin at this size.
const LEAST_READ: usize = 4 << 10;

/// What has been read from a stream and not yet been made into events, and how much to read next: small pieces from a
/// quiet stream, larger ones, up to a limit, from one that fills them.
#[derive(Debug)]
pub struct ReadBuffer {
    pending: BytesMut,
    read_bytes: usize,
    most: usize,
}

impl ReadBuffer {
    /// An empty buffer that reads at most `most` bytes at once.
    pub fn new(most: usize) -> Self {
        Self { pending: BytesMut::new(), read_bytes: LEAST_READ, most }
    }

    /// What has been read.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Room to read into, behind what is there.
    pub fn room(&mut self) -> &mut BytesMut {
        self.pending.reserve(self.read_bytes);
        &mut self.pending
    }

    /// Notes that `read` bytes came where there was room for `room`.
    pub fn filled(&mut self, read: usize, room: usize) {
        if read == room {
            self.read_bytes = (self.read_bytes * 4).min(self.most);
        } else if read < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(LEAST_READ);
        }
    }

    /// Reads what is there from a stream, and returns how many bytes came; 0 at its end. While it waits, an empty buffer
    /// holds no memory.
    pub async fn read_from(&mut self, stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> io::Result<usize> {
        poll_fn(|cx| {
            let room = self.room();
            let size = room.capacity() - room.len();
            match poll_read_buf(Pin::new(&mut *stream), cx, room) {
                Poll::Ready(Ok(read)) => {
                    self.filled(read, size);
                    Poll::Ready(Ok(read))
                }
                Poll::Pending => {
                    self.release_if_empty();
                    Poll::Pending
                }
                failed => failed,
            }
        })
        .await
    }

    /// Drops the first `count` bytes.
    pub fn skip(&mut self, count: usize) {
        self.pending.advance(count);
    }

    /// Gives the memory back when nothing is pending: an idle stream holds none.
    pub fn release_if_empty(&mut self) {
        if self.pending.is_empty() {
            self.pending = BytesMut::new();
        }
    }

    /// Takes the first `count` bytes off. Few bytes of a large buffer are copied out, so that what waits in a channel
    /// never holds much more memory than it has bytes.
    pub fn take(&mut self, count: usize) -> Bytes {
        if count < self.pending.capacity() / 2 {
            let bytes = Bytes::copy_from_slice(&self.pending[..count]);
            self.pending.advance(count);
            return bytes;
        }
        self.pending.split_to(count).freeze()
    }

    /// Ends the last line, where the stream itself did not.
    pub fn end_line(&mut self) {
        self.pending.extend_from_slice(b"\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_a_busy_stream_and_shrink_with_a_quiet_one() {
        let mut buffer = ReadBuffer::new(64 << 10);
        for expected in [16 << 10, 64 << 10, 64 << 10] {
            buffer.filled(100, 100);
            assert_eq!(buffer.read_bytes, expected);
        }
        for _ in 0..10 {
            buffer.filled(1, 100);
        }
        assert_eq!(buffer.read_bytes, LEAST_READ);
    }

    #[test]
    fn few_bytes_do_not_hold_a_large_buffer() {
        let mut buffer = ReadBuffer::new(64 << 10);
        buffer.room().extend_from_slice(b"one\ntw");
        assert_eq!(buffer.take(4), &b"one\n"[..]);
        assert_eq!(buffer.pending(), b"tw");
        buffer.end_line();
        // The buffer is still the connection's own, as the bytes were copied out.
        assert!(buffer.pending.capacity() >= LEAST_READ - 4);
        assert_eq!(buffer.take(3), &b"tw\n"[..]);
        buffer.release_if_empty();
        assert_eq!(buffer.pending.capacity(), 0);
    }
}
