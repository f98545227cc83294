//! Datagrams of a UDP port, many at a time, and their way into the channels.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::{ChannelProcessor, Pipeline, SourceError};
use crate::event::Batch;
use crate::net;

/// The largest datagram that there can be.
const MAX_DATAGRAM: usize = 64 << 10;
/// Datagrams are read until they may not fit into this any more.
const BUFFER_BYTES: usize = 256 << 10;
/// What the kernel is asked to keep for a source that is busy; it may keep less.
const SOCKET_BYTES: usize = 4 << 20;
/// The most datagrams that are read at once.
const MOST: usize = 1000;

/// A port and what has been read from it.
pub struct Datagrams {
    socket: UdpSocket,
    buffer: BytesMut,
}

/// Datagrams in one buffer, and who sent them.
pub type Received = (Bytes, Vec<(Range<usize>, SocketAddr)>);

/// What makes events of datagrams.
pub trait Decode: Send {
    /// The events of these datagrams.
    fn batch(&mut self, received: &Received, out: &ChannelProcessor) -> impl Future<Output = Batch> + Send;
}

impl Datagrams {
    /// Listens on a host name or address, or without one on all interfaces.
    pub async fn listen(host: Option<&str>, port: u16) -> io::Result<Self> {
        let socket = match host {
            Some(host) => UdpSocket::bind(net::address(host, port).await?).await?,
            None => match UdpSocket::bind(("::", port)).await {
                // Both families where there are both.
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => UdpSocket::bind(("0.0.0.0", port)).await?,
                bound => bound?,
            },
        };
        // A system that does not allow it keeps its own size.
        SockRef::from(&socket).set_recv_buffer_size(SOCKET_BYTES).ok();
        Ok(Self { socket, buffer: BytesMut::new() })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Delivers what comes until it is told to stop.
    pub async fn deliver(
        mut self,
        decoder: &mut impl Decode,
        out: &ChannelProcessor,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let at_once = out.transaction_capacity();
        let mut pipeline = Pipeline::new(out, stop);
        let outcome = loop {
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                received = self.receive() => received,
                () = pipeline.ready() => {
                    pipeline.settle().await;
                    continue;
                }
            };
            let received = match received {
                Ok(received) => received,
                Err(error) => break Err(SourceError::io("could not receive datagrams", error)),
            };
            let mut batch = decoder.batch(&received, out).await;
            while !batch.is_empty() {
                pipeline.deliver(batch.split_to(at_once)).await;
            }
        };
        pipeline.finish().await;
        outcome
    }

    /// Waits for datagrams and gives those that are there. Cut off, it has lost none.
    async fn receive(&mut self) -> io::Result<Received> {
        let mut datagrams = Vec::new();
        while datagrams.is_empty() {
            self.socket.readable().await?;
            // Where others are waiting, a busy port takes its turn.
            tokio::task::consume_budget().await;
            self.buffer.reserve(if self.buffer.capacity() < MAX_DATAGRAM { BUFFER_BYTES } else { 0 });
            while datagrams.len() < MOST && self.buffer.capacity() - self.buffer.len() >= MAX_DATAGRAM {
                let start = self.buffer.len();
                match self.socket.try_recv_buf_from(&mut self.buffer) {
                    Ok((_, from)) => datagrams.push((start..self.buffer.len(), from)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if datagrams.is_empty() => return Err(error),
                    // It comes again.
                    Err(_) => break,
                }
            }
        }
        // Few bytes must not hold a large buffer in a channel.
        let bytes = if self.buffer.len() < BUFFER_BYTES / 2 {
            let bytes = Bytes::copy_from_slice(&self.buffer);
            self.buffer.clear();
            bytes
        } else {
            self.buffer.split().freeze()
        };
        Ok((bytes, datagrams))
    }
}
