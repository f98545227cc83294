//! Counters over HTTP: `/metrics` as Flume's JSON, `/metrics/prometheus` as Prometheus text.
//!
//! Flume's rules: `/metrics` in any case and with any method but TRACE and OPTIONS, a page with a link at `/`,
//! 404 elsewhere. Connections are bounded, and a client that sends nothing is dropped.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Metrics, json, prometheus};

/// More scrapers at once than any installation has; the rest wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves an agent's counters.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    metrics: Arc<Metrics>,
    page: Page,
}

/// What `/metrics` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Flume's JSON, for `flume.monitoring.type=http`.
    Json,
    /// Prometheus text, for `flume.monitoring.type=prometheus`.
    Prometheus,
}

impl MetricsServer {
    /// Listens on all interfaces, as Flume does.
    pub async fn bind(port: u16, page: Page, metrics: Arc<Metrics>) -> io::Result<Self> {
        // Both families where there are both.
        let listener = match TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).await?
            }
            other => other?,
        };
        Ok(Self { listener, metrics, page })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = async {
                    let room = Arc::clone(&room).acquire_owned().await;
                    (room, self.listener.accept().await)
                } => accepted,
            };
            while connections.try_join_next().is_some() {}
            let (room, stream) = match accepted {
                (Ok(room), Ok((stream, _))) => (room, stream),
                (_, Err(error)) => {
                    debug!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                (Err(_closed), _) => break,
            };
            let (metrics, page) = (Arc::clone(&self.metrics), self.page);
            connections.spawn(async move {
                let _room = room;
                let service = hyper::service::service_fn(move |request| {
                    let response = respond(&metrics, page, &request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                    debug!(%error, "a client of the metrics page went away");
                }
            });
        }
    }
}

fn respond<B>(metrics: &Metrics, page: Page, request: &Request<B>) -> Response<Full<Bytes>> {
    const HTML: &str = "text/html;charset=utf-8";
    if matches!(*request.method(), Method::TRACE | Method::OPTIONS) {
        return response(StatusCode::FORBIDDEN, HTML, String::new());
    }
    match request.uri().path().to_ascii_lowercase().as_str() {
        "/metrics" if page == Page::Json => {
            response(StatusCode::OK, "application/json;charset=utf-8", json(&metrics.sample()))
        }
        "/metrics" | "/metrics/prometheus" => {
            response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", prometheus(&metrics.sample()))
        }
        "/" => response(
            StatusCode::OK,
            HTML,
            "For Flume metrics please click <a href = \"./metrics\"> here</a>.".to_owned(),
        ),
        _ => response(StatusCode::NOT_FOUND, HTML, String::new()),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
