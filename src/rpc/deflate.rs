//! `compression-type = deflate`: each direction of a connection is one zlib stream, flushed after each message.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So much is read from below at once, and so much written is compressed at once.
const PIECE_BYTES: usize = 32 << 10;

/// A stream over another one, whose bytes it compresses.
pub struct Deflated<S> {
    inner: S,
    level: Compression,
    inflate: Decompress,
    /// What has come, compressed.
    received: bytes::BytesMut,
    /// Whether the inflater has nothing more to give before more comes.
    starved: bool,
    ended: bool,
    /// Takes a quarter of a megabyte, so that it is only there once something is sent.
    deflate: Option<Compress>,
    /// What is to be sent, compressed.
    to_send: io::Cursor<Vec<u8>>,
    /// Whether something was written since the last flush.
    unflushed: bool,
}

impl<S> Deflated<S> {
    /// Compresses at a level from 0 (not) to 9 (best).
    pub fn new(inner: S, level: u32) -> Self {
        Self {
            inner,
            level: Compression::new(level),
            inflate: Decompress::new(true),
            received: bytes::BytesMut::new(),
            starved: true,
            ended: false,
            deflate: None,
            to_send: io::Cursor::default(),
            unflushed: false,
        }
    }

    /// Compresses some of `input`, and returns how much of it.
    fn compress(&mut self, input: &[u8], flush: FlushCompress) -> io::Result<(usize, Status)> {
        let deflate = self.deflate.get_or_insert_with(|| Compress::new(self.level, true));
        let out = self.to_send.get_mut();
        out.reserve(PIECE_BYTES);
        let before = deflate.total_in();
        let status = deflate.compress_vec(input, out, flush).map_err(io::Error::other)?;
        Ok(((deflate.total_in() - before) as usize, status))
    }
}

impl<S: AsyncWrite + Unpin> Deflated<S> {
    /// Sends all that has been compressed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.to_send.has_remaining() {
            let sent = ready!(Pin::new(&mut self.inner).poll_write(cx, self.to_send.chunk()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.to_send.advance(sent);
        }
        self.to_send.set_position(0);
        self.to_send.get_mut().clear();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Deflated<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if !this.starved {
                let (before_in, before_out) = (this.inflate.total_in(), this.inflate.total_out());
                // What is given to the inflater is zeroed first, so that more of it would cost more than it brings.
                let room = buf.initialize_unfilled_to(buf.remaining().min(PIECE_BYTES));
                let status = this.inflate.decompress(&this.received, room, FlushDecompress::None).map_err(|error| {
                    let text =
                        format!("the compressed stream is broken: {error}; is compression-type the same at both ends?");
                    io::Error::new(io::ErrorKind::InvalidData, text)
                })?;
                this.received.advance((this.inflate.total_in() - before_in) as usize);
                this.ended = status == Status::StreamEnd;
                let inflated = (this.inflate.total_out() - before_out) as usize;
                if inflated > 0 {
                    buf.advance(inflated);
                    return Poll::Ready(Ok(()));
                }
                this.starved = this.received.is_empty() || status == Status::BufError;
                continue;
            }
            this.received.reserve(PIECE_BYTES);
            match tokio_util::io::poll_read_buf(Pin::new(&mut this.inner), cx, &mut this.received) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => this.starved = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // Whoever waits holds no memory.
                    if this.received.is_empty() {
                        this.received = bytes::BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Deflated<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.to_send.remaining() >= PIECE_BYTES {
            ready!(this.poll_send(cx))?;
        }
        let (taken, _) = this.compress(&buf[..buf.len().min(PIECE_BYTES)], FlushCompress::None)?;
        this.unflushed = true;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unflushed {
            this.compress(&[], FlushCompress::Sync)?;
            // Room that is left over means that all of it is out.
            this.unflushed = this.to_send.get_ref().len() == this.to_send.get_ref().capacity();
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.deflate.is_some() {
            if this.compress(&[], FlushCompress::Finish)?.1 == Status::StreamEnd {
                this.deflate = None;
                this.unflushed = false;
            }
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn messages_arrive_when_they_are_flushed(
            messages in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 1..100),
                // Compresses well, and is longer than a piece.
                (any::<u8>(), 1usize..200_000).prop_map(|(byte, len)| vec![byte; len]),
            ], 1..6),
            level in 0u32..10,
        ) {
            run(async {
                let (left, right) = duplex(999);
                let (mut left, mut right) = (Deflated::new(left, level), Deflated::new(right, 6));
                for message in &messages {
                    let send = async {
                        left.write_all(message).await?;
                        left.flush().await
                    };
                    let mut read = vec![0; message.len()];
                    let (sent, received) = tokio::join!(send, right.read_exact(&mut read));
                    sent.expect("sent");
                    received.expect("received");
                    assert_eq!(&read, message);
                }
                let mut rest = [0; 8];
                let (ended, read) = tokio::join!(left.shutdown(), right.read(&mut rest));
                ended.expect("ended");
                assert_eq!(read.expect("the end"), 0);
            });
        }

        #[test]
        fn any_bytes_end_in_an_error_or_in_bytes(mut bytes: Vec<u8>, whole: bool) {
            if whole {
                bytes.splice(0..0, [0x78, 0x9C]);
            }
            run(async {
                let mut read = Vec::new();
                Deflated::new(&bytes[..], 6).take(1 << 20).read_to_end(&mut read).await.ok();
            });
        }
    }
}
