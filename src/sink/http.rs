//! The HTTP sink: posts each event's body to an address, and does with the event what the rules say for the status.
//!
//! For each status there are three rules: whether the event goes back to the channel, whether the sink pauses, and
//! whether the event counts as delivered. The rule for a status (`rollback.503`) comes before that for its class
//! (`rollback.5XX`), and that before the default. The defaults put an event back even when the answer is 200, as in Flume:
//! a useful configuration has at least `rollback.2XX` and `backoff.2XX` = false. Redirects are not followed; 3XX is a status
//! like the others. An event without a body is not sent. What leaves the channel without a status 2XX, and does not count as
//! delivered, is a dead letter. An answer's body is of no use: one that is long or slow costs the connection and nothing else.
//!
//! Keys: `endpoint` (http or https), `connectTimeout` and `requestTimeout` (5000 ms), `contentTypeHeader` and
//! `acceptHeader` (text/plain), `defaultBackoff` (true), `defaultRollback` (true), `defaultIncrementMetrics` (false),
//! `backoff.CODE`, `rollback.CODE`, `incrementMetrics.CODE`; for https those of a client's [TLS](crate::tls::https).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use super::{BuiltSink, Delivered, Refused, Sink, SinkBuilder, SinkConfig, SinkError};
use crate::config::{ComponentType, FromText as _, Props};
use crate::event::Batch;
use crate::logging::Limited;
use crate::metrics::SinkCounters;
use crate::rpc::transport::Endpoint;
use crate::tls;

/// How the type is registered.
pub const TYPE: ComponentType<SinkBuilder> = ComponentType {
    aliases: &["http"],
    class: "org.apache.flume.sink.http.HttpSink",
    build: |props| Some(Box::new(Arc::new(HttpConfig::from_props(props)?))),
};

const TIMEOUT_MS: i32 = 5000;
/// Of an answer nothing but its status is of use; one that is longer costs the connection.
const MOST_OF_ANSWER: usize = 64 << 10;
/// So does one that takes longer after its status.
const LONGEST_ANSWER: Duration = Duration::from_millis(500);

struct HttpConfig {
    endpoint: Endpoint,
    /// What is asked for, without the body.
    request: Request<()>,
    request_timeout: Duration,
    rollback: Rule,
    backoff: Rule,
    increment_metrics: Rule,
}

/// What to do about a status.
#[derive(Clone, Debug)]
struct Rule {
    default: bool,
    /// By status, `503`, and class, `5XX`.
    by_code: BTreeMap<String, bool>,
}

impl Rule {
    fn from_props(props: &Props<'_>, default_key: &str, default: bool, family: &str) -> Self {
        let mut rule = Self { default: props.or(default_key, default), by_code: BTreeMap::new() };
        for (code, property) in props.family(family) {
            let key = format!("{family}.{code}");
            let is_code = match code.as_bytes() {
                [b'1'..=b'9', b'X', b'X'] => true,
                [b'1'..=b'9', rest @ ..] => rest.len() == 2 && rest.iter().all(u8::is_ascii_digit),
                _ => false,
            };
            if !is_code {
                props.warning(&key, "has no effect: expected a status such as 503, or a class such as 5XX");
            }
            if let Some(doubt) = bool::doubt(&property.value) {
                props.warning(&key, doubt);
            }
            rule.by_code.insert(code.to_owned(), bool::from_text(&property.value).unwrap_or_default());
        }
        rule
    }

    fn of(&self, status: StatusCode) -> bool {
        let code = status.as_str();
        let class = format!("{}XX", &code[..1]);
        *self.by_code.get(code).or_else(|| self.by_code.get(&class)).unwrap_or(&self.default)
    }
}

impl HttpConfig {
    fn from_props(props: &mut Props<'_>) -> Option<Self> {
        let url: String = props.required("endpoint", "the http or https address to post to", "Endpoint URL invalid");
        let uri = url.trim().parse::<Uri>().ok();
        let is_right = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        let uri = uri.filter(is_right).unwrap_or_else(|| {
            if !url.is_empty() {
                props.error("endpoint", "an address such as http://host:port/path", "Endpoint URL invalid");
            }
            Uri::default()
        });
        let is_https = uri.scheme_str() == Some("https");
        let milliseconds = |key: &str, flume: &str| {
            let value = props.or(key, TIMEOUT_MS);
            if value < 1 {
                props.error(key, "a number of milliseconds, at least 1", flume);
            }
            Duration::from_millis(value.max(1) as u64)
        };
        let host = uri.host().unwrap_or_default();
        let connect_timeout = milliseconds("connectTimeout", "Connect timeout must be a non-zero and positive");
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let endpoint = Endpoint {
            tls: is_https.then(|| tls::https(props)).flatten(),
            ..Endpoint::plain(host.trim_matches(['[', ']']), port, connect_timeout)
        };
        let header = |key: &str| {
            HeaderValue::from_str(&props.or(key, "text/plain".to_owned())).unwrap_or_else(|_| {
                props.error(key, "a value that a header can have", "");
                HeaderValue::from_static("")
            })
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let without_user = authority.rsplit('@').next().unwrap_or_default();
        let headers: [(HeaderName, HeaderValue); 3] = [
            (HOST, HeaderValue::from_str(without_user).unwrap_or(HeaderValue::from_static(""))),
            (CONTENT_TYPE, header("contentTypeHeader")),
            (ACCEPT, header("acceptHeader")),
        ];
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.path_and_query().map_or(Uri::default(), |path| Uri::from(path.clone()));
        request.headers_mut().extend(headers);
        let config = Self {
            endpoint,
            request,
            request_timeout: milliseconds("requestTimeout", "Request timeout must be a non-zero and positive"),
            rollback: Rule::from_props(props, "defaultRollback", true, "rollback"),
            backoff: Rule::from_props(props, "defaultBackoff", true, "backoff"),
            increment_metrics: Rule::from_props(props, "defaultIncrementMetrics", false, "incrementMetrics"),
        };
        props.finish(config)
    }
}

impl SinkConfig for Arc<HttpConfig> {
    fn batch_size(&self) -> Option<usize> {
        None
    }

    fn build(&self, name: &str, counters: Arc<SinkCounters>) -> BuiltSink {
        BuiltSink::Push(Box::new(HttpSink {
            name: name.to_owned(),
            config: Self::clone(self),
            counters,
            connection: None,
            delivered: Delivered::default(),
            complaints: Limited::default(),
        }))
    }
}

struct HttpSink {
    name: String,
    config: Arc<HttpConfig>,
    counters: Arc<SinkCounters>,
    connection: Option<Connection>,
    delivered: Delivered,
    /// For what the server can cause at any rate.
    complaints: Limited,
}

struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// Moves the bytes; ends with the connection.
    _driver: AbortOnDropHandle<()>,
}

#[async_trait]
impl Sink for HttpSink {
    /// A status speaks of one event.
    fn batch_size(&self) -> usize {
        1
    }

    async fn start(&mut self) -> Result<(), SinkError> {
        info!("Starting HttpSink {}", self.name);
        Ok(())
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        for event in batch.iter() {
            if event.body().is_empty() {
                self.delivered = refused("it has no body");
                continue;
            }
            let status = self
                .post(event.body_bytes())
                .await
                .map_err(|error| SinkError::io("Error opening connection, or request timed out", error))?;
            self.judge(status)?;
        }
        Ok(())
    }

    fn delivered(&mut self) -> Delivered {
        std::mem::take(&mut self.delivered)
    }

    async fn stop(&mut self) {
        info!("Stopping HttpSink {}", self.name);
        self.close();
    }
}

impl HttpSink {
    /// Does with the event what the rules say.
    fn judge(&mut self, status: StatusCode) -> Result<(), SinkError> {
        let HttpConfig { rollback, backoff, increment_metrics, .. } = &*self.config;
        let (pause, count) = (backoff.of(status), increment_metrics.of(status));
        if !rollback.of(status) {
            self.delivered = match status.is_success() || count {
                true => Delivered { pause, count, ..Delivered::default() },
                false => Delivered { pause, ..refused(format!("the server answered {status}")) },
            };
            return Ok(());
        }
        if count {
            self.counters.drain_success.add(1);
        }
        if let Some(others) = self.complaints.permit() {
            let how = if pause { "and backed off" } else { "for retry" };
            let (name, code) = (&self.name, status.as_u16());
            info!("Got status code {code} from HTTP server. Rolled back event {how}. Sink {name}{others}");
        }
        Err(SinkError::rolled_back(format!("the server answered {status}"), pause))
    }

    /// Posts a body and gives the status of the answer.
    async fn post(&mut self, body: Bytes) -> io::Result<StatusCode> {
        let limit = self.config.request_timeout;
        let too_long =
            |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} ms", limit.as_millis()));
        // The server may have closed an idle connection just now, which then has taken nothing.
        let is_old = self.connection.as_ref().is_some_and(|connection| !connection.requests.is_closed());
        let first = timeout(limit, self.exchange(body.clone())).await.map_err(too_long).and_then(|outcome| outcome);
        let outcome = match first {
            Err(error) if is_old && error.kind() != io::ErrorKind::TimedOut => {
                self.close();
                timeout(limit, self.exchange(body)).await.map_err(too_long).and_then(|outcome| outcome)
            }
            outcome => outcome,
        };
        let (connection, response) = outcome?;
        let status = response.status();
        // The status counts, whatever comes behind it.
        match timeout(LONGEST_ANSWER, read_to_end(response)).await {
            Ok(true) => self.connection = Some(connection),
            _ => self.counters.connection_closed.add(1),
        }
        Ok(status)
    }

    /// Sends a request and waits for the head of the answer.
    async fn exchange(&mut self, body: Bytes) -> io::Result<(Connection, Response<Incoming>)> {
        let mut connection = match self.connection.take().filter(|connection| !connection.requests.is_closed()) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let request = self.config.request.clone().map(|()| Full::new(body));
        connection.requests.ready().await.map_err(io::Error::other)?;
        let response = connection.requests.send_request(request).await.map_err(io::Error::other)?;
        Ok((connection, response))
    }

    async fn connect(&mut self) -> io::Result<Connection> {
        let connected = self.config.endpoint.connect().await;
        let stream = connected.inspect_err(|_| self.counters.connection_failed.add(1))?;
        let (requests, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Its failure shows in the request that it fails.
        let driver = tokio::spawn(async move { driver.await.unwrap_or_default() });
        self.counters.connection_created.add(1);
        Ok(Connection { requests, _driver: AbortOnDropHandle::new(driver) })
    }

    fn close(&mut self) {
        if self.connection.take().is_some() {
            self.counters.connection_closed.add(1);
        }
    }
}

fn refused(why: impl Into<String>) -> Delivered {
    Delivered { pause: false, count: false, refused: vec![Refused { index: 0, why: why.into() }] }
}

/// Reads an answer and drops it. Whether it came to its end, so that the connection can be used again.
async fn read_to_end(response: Response<Incoming>) -> bool {
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MOST_OF_ANSWER {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_comes_before_its_class_and_that_before_the_default() {
        let by_code = [("503", false), ("5XX", true), ("4XX", true)];
        let by_code = by_code.into_iter().map(|(code, value)| (code.to_owned(), value)).collect();
        let rule = Rule { default: false, by_code };
        let of = |code| rule.of(StatusCode::from_u16(code).expect("a status"));
        assert_eq!([503, 500, 404, 200].map(of), [false, true, true, false]);
    }
}
