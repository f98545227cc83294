//! The http source: requests become events.
//!
//! The events of a request are one transaction, and it is answered 200 once they are in every required channel. A GET or
//! HEAD is read like a POST, whatever its path; PUT and DELETE are answered 405, TRACE and OPTIONS 403, other methods
//! 501. 400 says that the handler cannot read the request, 500 that there is nothing in it or that it is not as the
//! handler wants it, 413 that it is too large, 503 that a channel refuses the events; the text of the answer says more.
//!
//! Keys: `port`, `bind` (0.0.0.0), `handler` (a class: JSONHandler, BLOBHandler or the morphline sink's BlobHandler),
//! `handler.mandatoryParameters` (none), `handler.maxBlobLength` (100000000), those of [TLS](crate::tls), also by their old
//! names, `ServerConnector.idleTimeout` (30000 ms: how long a client may be silent; 0: for ever); what else is for Jetty has no effect.
//! Not Flume's: `max-connections` (20000; more clients wait in the kernel's queue), `max-request-bytes` (67108864).

pub mod json;

mod blob;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{ChannelProcessor, Source, SourceBuilder, SourceConfig, SourceError};
use crate::config::{ComponentType, Props};
use crate::event::{Batch, Event};
use crate::net;
use crate::rpc::transport::{self, ServerLayers};
use crate::tls;
use blob::Blob;
use json::{Encoding, JsonError};

/// How the type is registered.
pub const TYPE: ComponentType<SourceBuilder> = ComponentType {
    aliases: &["http"],
    class: "org.apache.flume.source.http.HTTPSource",
    build: |props| Some(Box::new(Arc::new(HttpConfig::from_props(props)?))),
};

const JSON_HANDLER: &str = "org.apache.flume.source.http.JSONHandler";
const BLOB_HANDLER: &str = "org.apache.flume.source.http.BLOBHandler";
const MORPHLINE_HANDLER: &str = "org.apache.flume.sink.solr.morphline.BlobHandler";
const MAX_BLOB_LENGTH: i32 = 100_000_000;
const MAX_CONNECTIONS: i32 = 20_000;
const MAX_REQUEST_BYTES: i32 = 64 << 20;
const IDLE_TIMEOUT_MS: i64 = 30_000;
/// As good as never.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Memory that a request gets before it has sent as much.
const FIRST_BYTES: usize = 16 << 10;

/// What makes events of a request.
#[derive(Clone, Debug)]
enum Handler {
    Json,
    Blob(Blob),
}

/// The http source's keys.
struct HttpConfig {
    bind: String,
    port: u16,
    handler: Handler,
    layers: ServerLayers,
    idle_timeout: Duration,
    max_connections: usize,
    max_request_bytes: usize,
}

impl HttpConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        for (key, old) in
            [("ssl", "enableSSL"), ("exclude-protocols", "excludeProtocols"), ("keystore-password", "keystorePassword")]
        {
            props.renamed(key, old);
        }
        let bind = props.or("bind", "0.0.0.0".to_owned());
        if bind.is_empty() {
            props.error("bind", "a host name or address to listen on", "HTTPSource hostname specified is empty");
        }
        let handlers = [JSON_HANDLER, BLOB_HANDLER, MORPHLINE_HANDLER];
        let class = props.or("handler", JSON_HANDLER.to_owned());
        let mut max_request_bytes = props.positive("max-request-bytes", MAX_REQUEST_BYTES, "bytes");
        let handler = match class.trim() {
            BLOB_HANDLER => Handler::Blob(Blob::from_props(props)),
            MORPHLINE_HANDLER => {
                let most = props.positive("handler.maxBlobLength", MAX_BLOB_LENGTH, "bytes");
                max_request_bytes = max_request_bytes.min(most);
                Handler::Blob(Blob::of_morphline())
            }
            class => {
                if class != JSON_HANDLER {
                    props.error_nearest("handler", &format!("one of {}", handlers.join(", ")), &handlers);
                }
                Handler::Json
            }
        };
        let idle_timeout = props.or("ServerConnector.idleTimeout", IDLE_TIMEOUT_MS);
        for bean in ["QueuedThreadPool", "HttpConfiguration", "ServerConnector", "SslContextFactory"] {
            for (key, _) in props.family(bean).iter().filter(|(key, _)| *key != "idleTimeout") {
                props.warning(&format!("{bean}.{key}"), "has no effect: this is not Jetty");
            }
        }
        let port = props.required("port", "a port to listen on", "HTTPSource requires a port number to be specified");
        let config = Self {
            bind,
            port,
            handler,
            layers: ServerLayers { tls: tls::acceptor(props), deflate: false },
            idle_timeout: if idle_timeout > 0 { Duration::from_millis(idle_timeout as u64).min(NEVER) } else { NEVER },
            max_connections: props.positive("max-connections", MAX_CONNECTIONS, "connections"),
            max_request_bytes,
        };
        props.finish(config)
    }
}

impl SourceConfig for Arc<HttpConfig> {
    fn batch_size(&self) -> Option<usize> {
        None
    }

    fn build(&self, name: &str) -> Box<dyn Source> {
        Box::new(HttpSource { name: name.to_owned(), config: Self::clone(self), listener: None })
    }
}

struct HttpSource {
    name: String,
    config: Arc<HttpConfig>,
    listener: Option<TcpListener>,
}

#[async_trait]
impl Source for HttpSource {
    async fn start(&mut self) -> Result<(), SourceError> {
        let HttpConfig { bind, port, .. } = &*self.config;
        let failed = |error| {
            error!("Error while starting HTTPSource. Exception follows.");
            SourceError::io(format!("could not listen on {bind}:{port}"), error)
        };
        let listener = net::listen(bind, *port).await.map_err(failed)?;
        info!("Http source {}: listening on {}", self.name, listener.local_addr().map_err(failed)?);
        self.listener = Some(listener);
        Ok(())
    }

    async fn run(&mut self, out: &ChannelProcessor, stop: &CancellationToken) -> Result<(), SourceError> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let label = format!("Http source {}", self.name);
        net::serve(listener, &label, self.config.max_connections, stop, |socket, peer| {
            out.counters().open_connections.add(1);
            let client = Client { peer, config: Arc::clone(&self.config), out: out.clone(), stop: stop.clone() };
            async move { Arc::new(client).serve(socket).await }
        })
        .await;
        info!("Http source {} stopped.", self.name);
        Ok(())
    }
}

/// One client's connection.
struct Client {
    peer: SocketAddr,
    config: Arc<HttpConfig>,
    out: ChannelProcessor,
    stop: CancellationToken,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.out.counters().open_connections.sub(1);
    }
}

/// Why a request is refused: the status, and a text that says more.
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad_request(what: &dyn std::fmt::Display) -> Self {
        Self(StatusCode::BAD_REQUEST, format!("Bad request from client. {what}"))
    }

    fn unexpected(what: &dyn std::fmt::Display) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, format!("Deserializer threw unexpected exception. {what}"))
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

impl Client {
    async fn serve(self: Arc<Self>, socket: TcpStream) {
        let stream = match self.stop.run_until_cancelled(self.config.layers.accept(socket)).await {
            None => return,
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return self.lost(&error),
        };
        match self.converse(stream).await {
            Ok(()) => {}
            // A client that has nothing to say for a while.
            Err(error) if error.is_timeout() => {}
            Err(error) => self.lost(&error),
        }
    }

    async fn converse(self: &Arc<Self>, stream: transport::Stream) -> hyper::Result<()> {
        let client = Arc::clone(self);
        let service = service_fn(move |request| -> Answer {
            let client = Arc::clone(&client);
            Box::pin(async move { Ok(client.answer(request).await) })
        });
        let mut http = http1::Builder::new();
        // A client may have said all that it has to say, and still wait for answers.
        http.timer(TokioTimer::new()).header_read_timeout(self.config.idle_timeout).half_close(true);
        let mut connection = http.serve_connection(TokioIo::new(stream), service);
        let served = poll_fn(|cx| connection.poll_without_shutdown(cx));
        let outcome = match self.stop.run_until_cancelled(served).await {
            Some(outcome) => outcome,
            None => {
                Pin::new(&mut connection).graceful_shutdown();
                let served = poll_fn(|cx| connection.poll_without_shutdown(cx));
                timeout(net::LAST_ANSWERS, served).await.unwrap_or(Ok(()))
            }
        };
        // A client that is still sending what is too large has an answer to read.
        net::close_gently(&mut connection.into_parts().io.into_inner()).await.ok();
        outcome
    }

    fn lost(&self, why: &dyn std::fmt::Display) {
        if let Some(others) = self.out.may_complain() {
            warn!("Http source {}: the connection from {} is closed: {why}{others}", self.out.source(), self.peer);
        }
        self.out.counters().event_read_fail.add(1);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let outcome = match *request.method() {
            Method::POST | Method::GET | Method::HEAD => self.take_in(request).await,
            Method::TRACE | Method::OPTIONS => Err(Refusal(StatusCode::FORBIDDEN, String::new())),
            Method::PUT | Method::DELETE => {
                let text = format!("HTTP method {} is not supported by this URL", request.method());
                Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, text))
            }
            _ => Err(Refusal(StatusCode::NOT_IMPLEMENTED, String::new())),
        };
        let Err(Refusal(status, text)) = outcome else { return Response::default() };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=utf-8"));
        response
    }

    async fn take_in(&self, request: Request<Incoming>) -> Result<(), Refusal> {
        let counters = self.out.counters();
        let batch = self.events(request).await.inspect_err(|Refusal(_, text)| {
            counters.event_read_fail.add(1);
            if let Some(others) = self.out.may_complain() {
                warn!("{text} Http source {}, client {}{others}", self.out.source(), self.peer);
            }
        })?;
        counters.append_batch_received.add(1);
        if !batch.is_empty()
            && let Err(error) = self.out.deliver(batch, &self.stop).await
        {
            if let Some(others) = self.out.may_complain() {
                let (source, peer) = (self.out.source(), self.peer);
                warn!(
                    "Error appending event to channel. Channel might be full. Consider increasing the channel capacity \
                     or make sure the sinks perform faster. Http source {source}, client {peer}: {error}{others}"
                );
            }
            let text = format!("Error appending event to channel. Channel might be full.{error}");
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        counters.append_batch_accepted.add(1);
        Ok(())
    }

    async fn events(&self, request: Request<Incoming>) -> Result<Batch, Refusal> {
        let (head, body) = request.into_parts();
        let body = self.read(body).await?;
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match &self.config.handler {
            Handler::Json => {
                let Some(encoding) = Encoding::named(content_type.and_then(charset)) else {
                    return Err(Refusal::unexpected(&"JSON handler supports UTF-8, UTF-16 and UTF-32 only."));
                };
                let len = body.len();
                let mut batch = json::events(body, encoding).map_err(|error| match error {
                    JsonError::Syntax(_) => Refusal::bad_request(&error),
                    JsonError::Nothing(_) => Refusal::unexpected(&error),
                })?;
                // Events that are little of what came must not keep all of it.
                if batch.body_bytes() < len / 4 {
                    batch.repack();
                }
                Ok(batch)
            }
            Handler::Blob(blob) => {
                let headers =
                    blob.headers(head.uri.query(), content_type).map_err(|error| Refusal::unexpected(&error))?;
                Ok(Batch::from_iter([Event { headers, body }]))
            }
        }
    }

    /// Reads a request to its end.
    async fn read(&self, mut body: Incoming) -> Result<Bytes, Refusal> {
        let most = self.config.max_request_bytes;
        let too_large = || {
            let text = format!("Request is too large: at most {most} bytes are taken, see max-request-bytes.");
            Refusal(StatusCode::PAYLOAD_TOO_LARGE, text)
        };
        let claimed = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if claimed > most {
            return Err(too_large());
        }
        let mut bytes = BytesMut::with_capacity(claimed.min(FIRST_BYTES));
        loop {
            let frame = match timeout(self.config.idle_timeout, body.frame()).await {
                Ok(None) => return Ok(bytes.freeze()),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(Refusal::bad_request(&format_args!("It did not come to its end: {error}")));
                }
                Err(_) => {
                    let text = format!("Nothing came for {} ms.", self.config.idle_timeout.as_millis());
                    return Err(Refusal(StatusCode::REQUEST_TIMEOUT, text));
                }
            };
            if let Some(data) = frame.data_ref() {
                if data.len() > most - bytes.len() {
                    return Err(too_large());
                }
                bytes.extend_from_slice(data);
            }
        }
    }
}

/// The charset in the value of a `Content-Type`.
fn charset(content_type: &str) -> Option<&str> {
    let parameters = content_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let found = parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    found.map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charsets_of_content_types() {
        assert_eq!(charset("application/json"), None);
        assert_eq!(charset("application/json; Charset=UTF-16"), Some("UTF-16"));
        assert_eq!(charset("text/plain;a=b; charset=\"utf-8\""), Some("utf-8"));
    }
}
