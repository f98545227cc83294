//! The netcatudp source: each line of a datagram becomes one event.
//!
//! The end of a datagram ends its last line; an empty datagram is an empty line. Nobody is answered.
//!
//! Keys: `port`, `bind` (all interfaces), `remoteAddress` (the name of a header for the sender's address).

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use smol_str::SmolStr;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::datagrams::{Datagrams, Decode, Received};
use super::{ChannelProcessor, Source, SourceBuilder, SourceConfig, SourceError};
use crate::config::{ComponentType, Props};
use crate::event::{Batch, Headers, NO_HEADERS};
use crate::net;

/// How the type is registered.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["netcatudp"],
    class: "org.apache.flume.source.NetcatUdpSource",
    build: |props| Some(Box::new(Arc::new(NetcatUdpConfig::from_props(props)?))),
};

struct NetcatUdpConfig {
    bind: Option<String>,
    port: u16,
    remote_address: Option<SmolStr>,
}

impl NetcatUdpConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let required = "Required parameter port must exist and may not be null";
        let config = Self {
            bind: props.optional("bind"),
            port: props.required("port", "a port to listen on", required),
            remote_address: props.optional::<String>("remoteAddress").map(SmolStr::from),
        };
        props.finish(config)
    }
}

impl SourceConfig for Arc<NetcatUdpConfig> {
    fn batch_size(&self) -> Option<usize> {
        None
    }

    fn build(&self, name: &str) -> Box<dyn Source> {
        Box::new(NetcatUdpSource { name: name.to_owned(), config: Self::clone(self), port: None })
    }
}

struct NetcatUdpSource {
    name: String,
    config: Arc<NetcatUdpConfig>,
    port: Option<Datagrams>,
}

#[async_trait]
impl Source for NetcatUdpSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        let NetcatUdpConfig { bind, port, .. } = &*self.config;
        let shown = bind.as_deref().unwrap_or("*");
        let failed = |error| SourceError::io(format!("could not listen on {shown}:{port}"), error);
        let port = Datagrams::listen(bind.as_deref(), *port).await.map_err(failed)?;
        info!("Netcat UDP source {}: listening on {}", self.name, port.local_addr().map_err(failed)?);
        self.port = Some(port);
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let Some(port) = self.port.take() else { return Ok(()) };
        port.deliver(&mut Lines(Arc::clone(&self.config)), out, stop).await?;
        info!("Netcat UDP Source {} stopped", self.name);
        Ok(())
    }
}

struct Lines(Arc<NetcatUdpConfig>);

impl Decode for Lines {
    async fn batch(&mut self, received: &Received, _out: &ChannelProcessor) -> Batch {
        self.0.batch(received)
    }
}

impl NetcatUdpConfig {
    fn batch(&self, (data, datagrams): &Received) -> Batch {
        let mut batch = Batch::with_capacity(datagrams.len());
        let buffer = batch.push_buffer(data.clone());
        let mut sender = (None, NO_HEADERS);
        for (datagram, from) in datagrams {
            if let Some(header) = &self.remote_address
                && sender.0 != Some(*from)
            {
                let headers = Headers::from_iter([(header.clone(), java_socket_address(*from))]);
                sender = (Some(*from), batch.push_headers(headers));
            }
            let mut start = datagram.start;
            for end in memchr::memchr_iter(b'\n', &data[datagram.clone()]).map(|at| datagram.start + at) {
                batch.push_span(buffer, start, end, sender.1);
                start = end + 1;
            }
            if start < datagram.end || datagram.is_empty() {
                batch.push_span(buffer, start, datagram.end, sender.1);
            }
        }
        batch
    }
}

/// As Java writes the address of a socket whose host's name it does not know.
fn java_socket_address(address: SocketAddr) -> String {
    let host = net::java_address(address.ip());
    if host.contains(':') { format!("/[{host}]:{}", address.port()) } else { format!("/{host}:{}", address.port()) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn every_line_of_a_datagram_is_an_event() {
        let config = NetcatUdpConfig { bind: None, port: 0, remote_address: Some("from".into()) };
        let data = Bytes::from_static(b"one\ntwo\r\n\nthreefour\n");
        let [first, second] = ["10.0.0.1:5000", "[::1]:5001"].map(|address| address.parse().expect("an address"));
        let batch = config.batch(&(data, vec![(0..15, first), (15..15, first), (15..20, second)]));
        let events: Vec<_> =
            batch.iter().map(|event| (event.body(), event.headers().get("from").expect("the header"))).collect();
        let (first, second) = ("/10.0.0.1:5000", "/[0:0:0:0:0:0:0:1]:5001");
        assert_eq!(
            events,
            [(&b"one"[..], first), (b"two\r", first), (b"", first), (b"three", first), (b"", first), (b"four", second)]
        );
        assert_eq!(batch.header_sets().len(), 2);
    }
}
