//! `/metrics`, `/healthz` and `/readyz`, on a loopback address.
//!
//! The numbers are counted in the kernel and gathered when somebody asks for them.

use std::convert::Infallible;
use std::fmt;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::time::Duration;

use anyhow::Context;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

pub use self::numbers::{BackendNumber, Numbers, RouteNumber, counter, gauge, gauges, text as metrics_text};

mod numbers;

/// A run loop that does not answer for this long hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// A client that sends no request for this long is let go.
const SLOW_CLIENT: Duration = Duration::from_secs(10);
/// What Prometheus expects of the text that `prometheus-client` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Numbers that Prometheus reads.
pub trait Encode: Send + 'static {
    /// Their text.
    fn encode(self) -> Result<String, fmt::Error>;
}

/// Where a request finds its answer.
pub struct Sources<N> {
    /// Asks the run loop for its numbers.
    pub numbers: mpsc::Sender<oneshot::Sender<N>>,
    /// Whether the data plane holds what the manifests say, and an interface carries it.
    pub ready: watch::Receiver<bool>,
}

impl<N> Clone for Sources<N> {
    fn clone(&self) -> Self {
        Self { numbers: self.numbers.clone(), ready: self.ready.clone() }
    }
}

/// Takes the address; somebody else may have it.
pub fn bind(address: SocketAddr) -> anyhow::Result<StdTcpListener> {
    let listener = StdTcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address} for metrics; choose another with --listen, or `--listen off`")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until the runtime ends.
pub async fn serve<N: Encode>(listener: TcpListener, sources: Sources<N>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection for metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let sources = sources.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, sources.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(SLOW_CLIENT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a metrics connection ended early");
            }
        });
    }
}

async fn answer<B, N: Encode>(
    request: Request<B>,
    sources: Sources<N>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n"));
    }
    Ok(match request.uri().path() {
        "/metrics" => match numbers(&sources).await.map(N::encode) {
            Some(Ok(metrics)) => {
                let mut response = text(StatusCode::OK, metrics);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
                response
            }
            Some(Err(_)) => text(StatusCode::INTERNAL_SERVER_ERROR, "the numbers cannot be written\n"),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the run loop does not answer\n"),
        },
        "/healthz" => match numbers(&sources).await {
            Some(_) => text(StatusCode::OK, "ok\n"),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the run loop does not answer\n"),
        },
        "/readyz" if *sources.ready.borrow() => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the manifests are not served now; ask `blixt status` why\n",
        ),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    })
}

async fn numbers<N>(sources: &Sources<N>) -> Option<N> {
    let (reply, answer) = oneshot::channel();
    let ask = async {
        sources.numbers.send(reply).await.ok()?;
        answer.await.ok()
    };
    timeout(PATIENCE, ask).await.ok().flatten()
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
