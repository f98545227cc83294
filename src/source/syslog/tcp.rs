//! syslogtcp and multiport_syslogtcp: messages from connections.
//!
//! Keys of both: `host`, `eventSize` (2500 bytes), `keepFields` (none), `clientIPHeader`, `clientHostnameHeader`, those of
//! [TLS](crate::tls); not Flume's: `max-connections` (20000 at each port; more clients wait in the kernel's queue).
//! syslogtcp: `port`. multiport_syslogtcp: `ports`, `portHeader`, `charset.default` (UTF-8), `charset.port.PORT`,
//! `batchSize` (100); `readBufferBytes`, `readBufferSize` and `numProcessors` have no effect.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use smol_str::{SmolStr, ToSmolStr as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{ClientHeaders, Clock, Dialect, Events, Frame, KeepFields, Rules, complain_of_invalid, refuse_formats};
use crate::charset::Charset;
use crate::config::{ComponentType, Props};
use crate::net::{self, Stream};
use crate::read_buffer::ReadBuffer;
use crate::rpc::transport::ServerLayers;
use crate::source::{ChannelProcessor, Pipeline, Source, SourceBuilder, SourceConfig, SourceError};
use crate::tls;

/// How syslogtcp is registered.
pub const TCP_TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["syslogtcp"],
    class: "org.apache.flume.source.SyslogTcpSource",
    build: |props| Some(Box::new(Arc::new(TcpConfig::single(props)?))),
};

/// How multiport_syslogtcp is registered.
pub const MULTIPORT_TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["multiport_syslogtcp"],
    class: "org.apache.flume.source.MultiportSyslogTCPSource",
    build: |props| Some(Box::new(Arc::new(TcpConfig::multiport(props)?))),
};

const EVENT_SIZE: i32 = 2500;
/// A message that is cut has a whole priority, at least.
const LEAST_EVENT_SIZE: usize = 10;
const BATCH_SIZE: i32 = 100;
const READ_BUFFER_BYTES: i32 = 1024;
const MAX_CONNECTIONS: i32 = 20_000;
const MAX_READ_BYTES: usize = 128 << 10;
/// So many messages are delivered at once where the configuration says nothing.
const MOST_AT_ONCE: usize = 4096;

/// A port to listen on.
#[derive(Clone, Debug)]
struct Port {
    number: u16,
    rules: Rules,
}

/// The keys.
struct TcpConfig {
    host: Option<String>,
    ports: Vec<Port>,
    dialect: Dialect,
    event_size: usize,
    batch_size: Option<usize>,
    client_headers: ClientHeaders,
    port_header: Option<SmolStr>,
    layers: ServerLayers,
    max_connections: usize,
}

impl TcpConfig {
    fn single(props: &mut Props<'_>) -> Option<Self> {
        let required = |key: &str| format!("Required parameter {key} must exist and may not be null");
        refuse_formats(props);
        let host: String = props.required("host", "a host name or address to listen on", "");
        let number = props.required("port", "a port to listen on", &required("port"));
        let rules = Rules::new(Dialect::Pattern, KeepFields::from_props(props));
        let config =
            Self { host: Some(host), ports: vec![Port { number, rules }], ..Self::common(props, Dialect::Pattern) };
        props.finish(config)
    }

    fn multiport(props: &mut Props<'_>) -> Option<Self> {
        let rules = Rules::new(Dialect::Fields, KeepFields::from_props(props));
        let default = charset(props, "charset.default", &props.or("charset.default", "UTF-8".to_owned()));
        let mut ports: Vec<Port> = Vec::new();
        for number in port_numbers(props) {
            ports.push(Port { number, rules: Rules { charset: default, ..rules.clone() } });
        }
        for (number, name) in props.family("charset.port") {
            let key = format!("charset.port.{number}");
            let charset = charset(props, &key, &name.value);
            match number.parse::<u16>().ok().and_then(|number| ports.iter_mut().find(|port| port.number == number)) {
                Some(port) => port.rules.charset = charset,
                None => props.warning(&key, "has no effect: this source does not listen on that port"),
            }
        }
        // Flume's manual has one name of it, and its code the other.
        for key in ["readBufferBytes", "readBufferSize"] {
            props.lenient(key, READ_BUFFER_BYTES, |_| true, "a number of bytes", "");
        }
        props.lenient("numProcessors", 0i32, |_| true, "a whole number", "");
        let config = Self {
            ports,
            host: props.optional("host"),
            batch_size: Some(props.positive("batchSize", BATCH_SIZE, "events")),
            port_header: props.optional::<String>("portHeader").map(SmolStr::from),
            ..Self::common(props, Dialect::Fields)
        };
        props.finish(config)
    }

    fn common(props: &Props<'_>, dialect: Dialect) -> Self {
        let event_size = props.positive("eventSize", EVENT_SIZE, "bytes");
        if event_size < LEAST_EVENT_SIZE {
            props.warning("eventSize", &format!("expected at least {LEAST_EVENT_SIZE} bytes; that is used"));
        }
        Self {
            host: None,
            ports: Vec::new(),
            dialect,
            event_size: event_size.max(LEAST_EVENT_SIZE),
            batch_size: None,
            client_headers: ClientHeaders::from_props(props),
            port_header: None,
            layers: ServerLayers { tls: tls::acceptor(props), deflate: false },
            max_connections: props.positive("max-connections", MAX_CONNECTIONS, "connections"),
        }
    }

    /// As Flume names the source.
    fn label(&self, name: &str) -> String {
        match self.dialect {
            Dialect::Pattern => format!("Syslog TCP source {name}"),
            Dialect::Fields => format!("Multiport Syslog TCP source {name}"),
        }
    }
}

fn charset(props: &Props<'_>, key: &str, name: &str) -> Charset {
    Charset::for_name(name).unwrap_or_else(|| {
        let flume = format!("Unable to parse charset string ({name}) from port configuration.");
        props.error(key, "a charset in which a line feed is one byte, such as UTF-8 or ISO-8859-1", &flume);
        Charset::Utf8
    })
}

/// The ports of `ports`, each once.
fn port_numbers(props: &Props<'_>) -> Vec<u16> {
    let flume = "Must define config parameter for MultiportSyslogTCPSource: ports";
    let text: String = props.required("ports", "ports to listen on, separated by blanks", flume);
    let mut numbers = Vec::new();
    for word in text.split_whitespace() {
        match word.parse() {
            Ok(number) if number == 0 || !numbers.contains(&number) => numbers.push(number),
            Ok(_) => props.warning("ports", &format!("{word} is there twice")),
            Err(_) => props.error("ports", &format!("ports between 0 and 65535, not \"{word}\""), ""),
        }
    }
    numbers
}

impl SourceConfig for Arc<TcpConfig> {
    fn batch_size(&self) -> Option<usize> {
        self.batch_size
    }

    fn build(&self, name: &str) -> Box<dyn Source> {
        Box::new(TcpSource { label: self.label(name), config: Self::clone(self), listeners: Vec::new() })
    }
}

struct TcpSource {
    label: String,
    config: Arc<TcpConfig>,
    listeners: Vec<(TcpListener, Rules)>,
}

#[async_trait]
impl Source for TcpSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        let TcpConfig { host, ports, .. } = &*self.config;
        match self.config.dialect {
            Dialect::Pattern => info!("Syslog TCP Source starting..."),
            Dialect::Fields => info!("Starting {}...", self.label),
        }
        let mut failure = None;
        for Port { number, rules } in ports {
            let listening = net::listen_on(host.as_deref(), *number).await;
            match listening.and_then(|listener| Ok((listener.local_addr()?, listener))) {
                Ok((address, listener)) => {
                    info!("{}: listening on {address}", self.label);
                    self.listeners.push((listener, rules.clone()));
                }
                Err(error) => {
                    let address = format!("{}:{number}", host.as_deref().unwrap_or("*"));
                    let what = match self.config.dialect {
                        Dialect::Pattern => "Unable to start Syslog TCP Source",
                        Dialect::Fields => "Could not bind to address",
                    };
                    error!("{what}: {address}: {error}. {}", self.label);
                    failure = Some(SourceError::io(format!("could not listen on {address}"), error));
                }
            }
        }
        match failure {
            // As long as one port is open, the others are left out, as in Flume.
            Some(error) if self.listeners.is_empty() => Err(error),
            _ => {
                info!("{} started.", self.label);
                Ok(())
            }
        }
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let (label, config) = (&self.label, &self.config);
        let ports = self.listeners.drain(..).map(|(listener, rules)| async move {
            let rules = Arc::new(rules);
            net::serve(listener, label, config.max_connections, stop, |stream, peer| {
                let connection = Connection::new(peer, Arc::clone(config), Arc::clone(&rules), out.clone());
                let stop = stop.clone();
                async move { connection.serve(stream, &stop).await }
            })
            .await;
        });
        join_all(ports).await;
        info!("{label} stopped.");
        Ok(())
    }
}

struct Connection {
    peer: SocketAddr,
    config: Arc<TcpConfig>,
    rules: Arc<Rules>,
    out: ChannelProcessor,
    /// Between reads it holds less than one message.
    buffer: ReadBuffer,
    /// The headers that all events get.
    headers: Vec<(SmolStr, SmolStr)>,
    /// The most events of a transaction.
    at_once: usize,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.out.counters().open_connections.sub(1);
    }
}

impl Connection {
    fn new(peer: SocketAddr, config: Arc<TcpConfig>, rules: Arc<Rules>, out: ChannelProcessor) -> Self {
        out.counters().open_connections.add(1);
        let at_once = config.batch_size.unwrap_or_else(|| out.transaction_capacity().min(MOST_AT_ONCE));
        let buffer = ReadBuffer::new(MAX_READ_BYTES);
        Self { peer, config, rules, out, buffer, headers: Vec::new(), at_once }
    }

    async fn serve(mut self, socket: TcpStream, stop: &CancellationToken) {
        let config = Arc::clone(&self.config);
        let prepared = async {
            if let (Some(header), Ok(here)) = (&config.port_header, socket.local_addr()) {
                self.headers.push((header.clone(), here.port().to_smolstr()));
            }
            self.headers.extend(config.client_headers.of(self.peer.ip()).await);
            config.layers.accept(socket).await
        };
        let outcome = match stop.run_until_cancelled(prepared).await {
            None => return,
            Some(Ok(stream)) => self.read_all(stream, stop).await,
            Some(Err(error)) => Err(error),
        };
        if let Err(error) = outcome {
            if let Some(others) = self.out.may_complain() {
                let label = config.label(self.out.source());
                warn!("{label}: lost the connection from {}: {error}{others}", self.peer);
            }
            self.out.counters().event_read_fail.add(1);
        }
    }

    async fn read_all(&mut self, mut stream: impl Stream, stop: &CancellationToken) -> io::Result<()> {
        let out = self.out.clone();
        let mut pipeline = Pipeline::new(&out, stop);
        let outcome = loop {
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                read = self.buffer.read_from(&mut stream) => read,
                () = pipeline.ready() => {
                    pipeline.settle().await;
                    continue;
                }
            };
            let new = match read {
                Ok(0) => {
                    // Who closes the connection has said what there was to say.
                    if !self.buffer.pending().is_empty() {
                        self.buffer.end_line();
                        self.deliver(self.buffer.pending().len(), false, &mut pipeline).await;
                    }
                    break Ok(());
                }
                Ok(new) => new,
                Err(error) => break Err(error),
            };
            let whole = Frame::whole(self.buffer.pending(), new, self.config.event_size);
            if whole > 0 {
                self.deliver(whole, false, &mut pipeline).await;
            }
        };
        if !self.buffer.pending().is_empty() {
            self.deliver(self.buffer.pending().len(), true, &mut pipeline).await;
        }
        pipeline.finish().await;
        outcome
    }

    /// Delivers the messages in the first `whole` bytes; `is_cut` says that the only one has lost its end.
    async fn deliver(&mut self, whole: usize, is_cut: bool, pipeline: &mut Pipeline<'_>) {
        let data = self.buffer.take(whole);
        let clock = Clock::system();
        let mut at = 0;
        while at < data.len() {
            let start = at;
            let mut events = Events::new(&self.rules, &clock, &data, self.at_once.min(data.len() / 64));
            events.with(&self.headers);
            while events.count() < self.at_once
                && let Some(frame) = Frame::find(&data, at, self.config.event_size)
            {
                if frame.is_cut {
                    self.complain_of_long();
                }
                events.push(frame.bytes, frame.is_cut);
                at = frame.next;
            }
            if events.count() < self.at_once && at < data.len() {
                if let Some(rest) = Frame::rest(&data, at).filter(|_| is_cut) {
                    events.push(rest, true);
                }
                at = data.len();
            }
            let (mut batch, invalid) = events.finish();
            complain_of_invalid(&self.out, &self.peer, invalid);
            if !batch.is_empty() {
                // Events that are little of what came must not keep all of it.
                if batch.body_bytes() < (at - start) / 4 {
                    batch.repack();
                }
                pipeline.deliver(batch).await;
            }
        }
    }

    fn complain_of_long(&self) {
        if let Some(others) = self.out.may_complain() {
            let (label, size) = (self.config.label(self.out.source()), self.config.event_size);
            warn!(
                "Event size larger than specified event size: {size}. You should consider increasing your event size. \
                 {label}, client {}{others}",
                self.peer
            );
        }
    }
}
