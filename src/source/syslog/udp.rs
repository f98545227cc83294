//! syslogudp: messages from datagrams.
//!
//! Keys: `port`, `host` (all interfaces), `keepFields` (none), `clientIPHeader`, `clientHostnameHeader`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use smol_str::SmolStr;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ClientHeaders, Clock, Dialect, Events, Frame, KeepFields, Rules, complain_of_invalid, refuse_formats};
use crate::config::{ComponentType, Props};
use crate::event::Batch;
use crate::source::datagrams::{Datagrams, Decode, Received};
use crate::source::{ChannelProcessor, Source, SourceBuilder, SourceConfig, SourceError};

/// How the type is registered.
pub const UDP_TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["syslogudp"],
    class: "org.apache.flume.source.SyslogUDPSource",
    build: |props| Some(Box::new(Arc::new(UdpConfig::from_props(props)?))),
};

/// No message in a datagram is as long.
const EVENT_SIZE: usize = 1 << 16;
/// Clients whose headers are remembered, and for how long.
const CLIENTS: usize = 1000;
const CLIENTS_KEPT: Duration = Duration::from_secs(60);

struct UdpConfig {
    host: Option<String>,
    port: u16,
    rules: Rules,
    client_headers: ClientHeaders,
}

impl UdpConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        refuse_formats(props);
        let required = "Required parameter port must exist and may not be null";
        let config = Self {
            host: props.optional("host"),
            port: props.required("port", "a port to listen on", required),
            rules: Rules::new(Dialect::Pattern, KeepFields::from_props(props)),
            client_headers: ClientHeaders::from_props(props),
        };
        props.finish(config)
    }
}

impl SourceConfig for Arc<UdpConfig> {
    fn batch_size(&self) -> Option<usize> {
        None
    }

    fn build(&self, name: &str) -> Box<dyn Source> {
        let label = format!("Syslog UDP source {name}");
        Box::new(UdpSource { label, config: Self::clone(self), port: None })
    }
}

struct UdpSource {
    label: String,
    config: Arc<UdpConfig>,
    port: Option<Datagrams>,
}

#[async_trait]
impl Source for UdpSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        let UdpConfig { host, port, .. } = &*self.config;
        info!("Starting {}...", self.label);
        let host_shown = host.as_deref().unwrap_or("*");
        let failed = |error| SourceError::io(format!("could not listen on {host_shown}:{port}"), error);
        let port = Datagrams::listen(host.as_deref(), *port).await.map_err(failed)?;
        info!("{}: listening on {}", self.label, port.local_addr().map_err(failed)?);
        self.port = Some(port);
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let Some(port) = self.port.take() else { return Ok(()) };
        let mut decoder = Decoder { config: Arc::clone(&self.config), headers: HashMap::new(), since: Instant::now() };
        port.deliver(&mut decoder, out, stop).await?;
        info!("{} stopped.", self.label);
        Ok(())
    }
}

/// Makes events of datagrams, and remembers the headers of the clients that have sent something lately.
struct Decoder {
    config: Arc<UdpConfig>,
    headers: HashMap<IpAddr, Vec<(SmolStr, SmolStr)>>,
    since: Instant,
}

impl Decode for Decoder {
    async fn batch(&mut self, received: &Received, out: &ChannelProcessor) -> Batch {
        if self.headers.len() > CLIENTS || self.since.elapsed() > CLIENTS_KEPT {
            self.headers.clear();
            self.since = Instant::now();
        }
        for (_, from) in &received.1 {
            if !self.headers.contains_key(&from.ip()) {
                self.headers.insert(from.ip(), self.config.client_headers.of(from.ip()).await);
            }
        }
        self.events(received, out)
    }
}

impl Decoder {
    fn events(&self, (data, datagrams): &Received, out: &ChannelProcessor) -> Batch {
        let clock = Clock::system();
        let mut events = Events::new(&self.config.rules, &clock, data, datagrams.len());
        for (datagram, from) in datagrams {
            events.with(self.headers.get(&from.ip()).map_or(&[], Vec::as_slice));
            let before = events.count();
            let mut at = datagram.start;
            while let Some(frame) = Frame::find(&data[..datagram.end], at, EVENT_SIZE) {
                events.push(frame.bytes, frame.is_cut);
                at = frame.next;
            }
            // The end of a datagram ends its last message.
            if let Some(rest) = Frame::rest(&data[..datagram.end], at) {
                events.push(rest, false);
            }
            if events.count() == before {
                out.counters().event_read_fail.add(1);
                if let Some(others) = out.may_complain() {
                    warn!("Source {}: {from} sent a datagram without a message{others}", out.source());
                }
            }
        }
        let (batch, invalid) = events.finish();
        if let Some((_, from)) = datagrams.first() {
            complain_of_invalid(out, from, invalid);
        }
        batch
    }
}
