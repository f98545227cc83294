//! The page over HTTP.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::{Known, Page};

/// More connections than so many wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 96;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Between two messages to one client: more often than a screen shows makes no sense.
const GAP: Duration = Duration::from_millis(15);
/// How often a client hears of a batch that takes long.
const LONG_BATCH: Duration = Duration::from_millis(500);
/// How often a client hears something at least.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(60);

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// Files within the program: path, type, contents.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("static/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("static/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("static/page.js")),
    ("/plot.js", "text/javascript; charset=utf-8", include_str!("static/plot.js")),
];

/// Of every answer: the page loads nothing from elsewhere, nobody else may frame it, and nothing is kept.
const HEADERS: &[(HeaderName, &str)] = &[
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves a page.
#[derive(Debug)]
pub struct PageServer {
    listener: TcpListener,
    address: SocketAddr,
    served: Served,
}

#[derive(Clone, Debug)]
struct Served {
    page: Arc<Page>,
    /// The host that was named, if only this machine can reach it.
    own: Option<Arc<str>>,
}

impl PageServer {
    /// Listens on `host:port`.
    pub async fn bind(address: &str, page: Page) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let own = bound.ip().is_loopback().then(|| Arc::from(host));
        Ok(Self { address: bound, listener, served: Served { page: Arc::new(page), own } })
    }

    /// What it serves.
    pub fn page(&self) -> Arc<Page> {
        Arc::clone(&self.served.page)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves until it is dropped.
    pub async fn run(self) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(seat) = Arc::clone(&room).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "could not accept a connection");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            // A message is on its way at once.
            stream.set_nodelay(true).ok();
            let served = self.served.clone();
            connections.spawn(async move {
                let _seat = seat;
                let taken = Arc::new(AtomicU64::new(0));
                let service = hyper::service::service_fn(|request| {
                    let response = respond(&served, &taken, &request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEAD);
                tokio::select! {
                    served = http.serve_connection(TokioIo::new(stream), service) => {
                        if let Err(error) = served {
                            debug!(%error, "a client of the page went away");
                        }
                    }
                    () = stuck(&taken) => debug!("a client of the page takes nothing"),
                }
            });
        }
    }
}

/// Waits until a client that was answered has taken nothing for too long.
async fn stuck(taken: &AtomicU64) {
    loop {
        let before = taken.load(Ordering::Relaxed);
        sleep(PATIENCE).await;
        if before > 0 && before == taken.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Whether a name of the machine itself was asked for, by the header `Host`, of a page that only this machine can reach.
/// A page elsewhere could give its own name our address, and read along.
fn is_local<B>(request: &Request<B>, own: &str) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let Ok(host) = Authority::try_from(host.as_bytes()) else { return false };
    let name = host.host().trim_matches(['[', ']']);
    name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost") || name.eq_ignore_ascii_case(own)
}

fn respond<B>(server: &Served, taken: &Arc<AtomicU64>, request: &Request<B>) -> Response<Body> {
    taken.fetch_add(1, Ordering::Relaxed);
    let Served { page, own } = server;
    if own.as_ref().is_some_and(|own| !is_local(request, own)) {
        return response(StatusCode::FORBIDDEN, JSON, error("the page goes by localhost and by IP addresses only"));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, JSON, error("only GET is allowed"));
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let path = request.uri().path();
    if let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == path) {
        return response(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()));
    }
    match path {
        "/api/job" => ok(&Job { about: &page.about, state: page.progress.state() }),
        "/api/batches" => match since(request.uri().query().unwrap_or_default()) {
            Some(number) => ok(&page.progress.since(number)),
            None => response(StatusCode::BAD_REQUEST, JSON, error("`since` is the number of a batch")),
        },
        "/api/charts" => ok(&page.board.since(0).1),
        "/api/events" => match Arc::clone(&page.seats).try_acquire_owned() {
            Ok(seat) => events(Follower::new(Arc::clone(page), Arc::clone(taken), seat)),
            Err(_full) => response(StatusCode::SERVICE_UNAVAILABLE, JSON, error("too many follow the page already")),
        },
        _ => response(StatusCode::NOT_FOUND, JSON, error("there is nothing here")),
    }
}

#[derive(Serialize)]
struct Job<'a> {
    #[serde(flatten)]
    about: &'a super::About,
    #[serde(flatten)]
    state: crate::progress::State,
}

/// The number in `since=N`; 0 when it is not there, none when it is no number.
fn since(query: &str) -> Option<u64> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("since="));
    value.map_or(Some(0), |value| value.parse().ok())
}

fn error(text: &str) -> Bytes {
    Bytes::from(serde_json::json!({ "error": text }).to_string())
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("it has text for keys")
}

fn ok(value: &impl Serialize) -> Response<Body> {
    response(StatusCode::OK, JSON, Bytes::from(json(value)))
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    with_headers(status, kind, Full::new(body).boxed_unsync())
}

fn with_headers(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.extend(HEADERS.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))));
    response
}

/// One who follows the events. What it is told is made when it can take it.
struct Follower {
    page: Arc<Page>,
    batches: watch::Receiver<u64>,
    known: Known,
    /// How many answers and messages its connection has asked for.
    taken: Arc<AtomicU64>,
    told: Option<Instant>,
    _seat: OwnedSemaphorePermit,
}

impl Follower {
    fn new(page: Arc<Page>, taken: Arc<AtomicU64>, seat: OwnedSemaphorePermit) -> Self {
        let batches = page.progress.watch();
        Self { page, batches, known: Known::default(), taken, told: None, _seat: seat }
    }

    /// The next message. Nothing when the job is over.
    async fn next(&mut self) -> Option<Bytes> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if let Some(told) = self.told {
            sleep_until(told + GAP).await;
            let silent = told + HEARTBEAT;
            loop {
                match timeout(LONG_BATCH, self.batches.changed()).await {
                    Ok(Ok(())) => break,
                    Ok(Err(_over)) => return None,
                    Err(_) if self.page.progress.is_long(LONG_BATCH) || Instant::now() >= silent => break,
                    Err(_) => {}
                }
            }
        }
        self.batches.mark_unchanged();
        self.told = Some(Instant::now());
        let mut message = b"data: ".to_vec();
        message.extend(json(&self.page.news(&mut self.known)));
        message.extend(b"\n\n");
        Some(Bytes::from(message))
    }
}

fn events(follower: Follower) -> Response<Body> {
    let messages = stream::unfold(follower, |mut follower| async {
        let message = follower.next().await?;
        Some((Ok(Frame::data(message)), follower))
    });
    with_headers(StatusCode::OK, "text/event-stream", StreamBody::new(messages).boxed_unsync())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_asked_for_or_all() {
        assert_eq!(since(""), Some(0));
        assert_eq!(since("x=1&since=12"), Some(12));
        assert_eq!(since("since=-1"), None);
    }

    #[test]
    fn a_name_that_leads_here_is_not_ours() {
        let asked = |host: &str| is_local(&Request::builder().header("Host", host).body(()).expect("a request"), "me");
        for right in ["localhost:4040", "LocalHost", "127.0.0.1:1", "[::1]:4040", "10.0.0.1", "me:4040"] {
            assert!(asked(right), "{right}");
        }
        for wrong in ["evil.example:4040", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"] {
            assert!(!asked(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for (path, _, text) in FILES {
            let elsewhere =
                text.split("http").skip(1).filter(|rest| rest.starts_with("://") || rest.starts_with("s://"));
            let names = elsewhere.filter(|rest| !rest.contains("w3.org/2000/svg"));
            assert_eq!(names.count(), 0, "{path}");
        }
    }
}
