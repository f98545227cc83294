//! What lies between a protocol and the socket: compression and TLS, in either order.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::deflate::Deflated;
use crate::net;
use crate::tls::{Acceptor, Connector};

/// Flume's level, which its servers always use.
pub const DEFAULT_LEVEL: u32 = 6;
/// The first byte of a TLS connection, a record with a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection, whatever its layers.
pub type Stream = Box<dyn net::Stream>;

/// How a server's connections are layered.
#[derive(Clone, Default)]
pub struct ServerLayers {
    /// TLS.
    pub tls: Option<Acceptor>,
    /// Compression.
    pub deflate: bool,
}

impl ServerLayers {
    /// Makes a connection of a socket. With both layers the client chooses which one is outside: up to Flume 1.9 it is
    /// TLS, since 1.10 compression.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<Stream> {
        socket.set_nodelay(true)?;
        Ok(match (&self.tls, self.deflate) {
            (None, false) => Box::new(socket),
            (None, true) => Box::new(Deflated::new(socket, DEFAULT_LEVEL)),
            (Some(tls), false) => Box::new(tls.accept(socket).await?),
            (Some(tls), true) => {
                let mut first = [0];
                socket.peek(&mut first).await?;
                if first == [TLS_HANDSHAKE] {
                    Box::new(Deflated::new(tls.accept(socket).await?, DEFAULT_LEVEL))
                } else {
                    Box::new(tls.accept(Deflated::new(socket, DEFAULT_LEVEL)).await?)
                }
            }
        })
    }
}

/// Where to connect to, and with which layers.
#[derive(Clone)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS.
    pub tls: Option<Connector>,
    /// Compression and its level.
    pub deflate: Option<u32>,
    /// With both layers, whether compression is outside, as since Flume 1.10.
    pub deflate_outside: bool,
    /// How long it may take.
    pub connect_timeout: Duration,
}

impl Endpoint {
    /// One without layers.
    pub fn plain(host: impl Into<String>, port: u16, connect_timeout: Duration) -> Self {
        Self { host: host.into(), port, tls: None, deflate: None, deflate_outside: true, connect_timeout }
    }

    /// Connects.
    pub async fn connect(&self) -> io::Result<Stream> {
        let too_long = |_| {
            let text = format!("no connection within {} ms", self.connect_timeout.as_millis());
            io::Error::new(io::ErrorKind::TimedOut, text)
        };
        timeout(self.connect_timeout, self.connect_layers()).await.map_err(too_long)?
    }

    async fn connect_layers(&self) -> io::Result<Stream> {
        let socket = self.connect_socket().await?;
        socket.set_nodelay(true)?;
        Ok(match (&self.tls, self.deflate) {
            (None, None) => Box::new(socket),
            (None, Some(level)) => Box::new(Deflated::new(socket, level)),
            (Some(tls), None) => Box::new(tls.connect(&self.host, socket).await?),
            (Some(tls), Some(level)) if self.deflate_outside => {
                Box::new(tls.connect(&self.host, Deflated::new(socket, level)).await?)
            }
            (Some(tls), Some(level)) => Box::new(Deflated::new(tls.connect(&self.host, socket).await?, level)),
        })
    }

    async fn connect_socket(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((self.host.as_str(), self.port)).await? {
            match TcpStream::connect(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
