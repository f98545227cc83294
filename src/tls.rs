//! TLS for sources and sinks.
#![allow(missing_docs, clippy::unused_async)]
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Props;

#[derive(Clone)]
pub struct Acceptor;
#[derive(Clone)]
pub struct Connector;

impl Acceptor {
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<tokio_rustls::server::TlsStream<S>> {
        drop(stream);
        Err(io::ErrorKind::Unsupported.into())
    }
}
impl Connector {
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        _host: &str,
        stream: S,
    ) -> io::Result<tokio_rustls::client::TlsStream<S>> {
        drop(stream);
        Err(io::ErrorKind::Unsupported.into())
    }
}
pub fn acceptor(props: &Props<'_>) -> Option<Acceptor> {
    props.text("ssl").map(|_| Acceptor)
}
pub fn connector(props: &Props<'_>) -> Option<Connector> {
    props.text("ssl").map(|_| Connector)
}
