//! The controller's end: who may connect, what each node is sent, and what each said last.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use blixt_core::config::{Config, Generation};
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::LONGEST_MESSAGE;
use super::certificate::Certificate;
use super::config_parts::parts;
use super::proto::sync_server::{Sync, SyncServer};
use super::proto::{ConfigPart, Report as ReportMessage};
use super::report::NodeReport;

/// Parts under way to one node: it takes them as fast as it can.
const PARTS: usize = 4;
/// A peer that is silent for this long is asked whether it is there,
const KEEPALIVE: Duration = Duration::from_secs(10);
/// and is let go if it does not say so within this.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Handshakes that take longer are given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A stream ends after this, so that its token is looked at again; the agent connects anew and loses nothing.
const STREAM: Duration = Duration::from_secs(60 * 60);
/// Not all at the same moment: up to this later.
const STREAM_SPREAD: Duration = Duration::from_secs(10 * 60);
/// Streams of one connection: an agent has one.
const STREAMS: u32 = 4;

/// The Config that nodes are to have.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Its number; 0: none yet.
    pub generation: Generation,
    /// The Config.
    pub config: Arc<Config>,
}

/// What nodes said, by name, also of those that are away now.
#[derive(Clone, Debug, Default)]
pub struct Connected {
    nodes: Arc<Mutex<BTreeMap<String, Connection>>>,
    streams: Arc<AtomicU64>,
}

/// What a node said last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// What it said.
    pub report: Arc<NodeReport>,
    /// Since when it is not connected, if it is not: it goes on with what it has.
    pub away_since: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    /// The newest stream speaks for the node.
    stream: u64,
    away_since: Option<Instant>,
    report: Option<Arc<NodeReport>>,
}

/// Says which node a bearer token belongs to.
pub trait Authenticate: Send + std::marker::Sync + 'static {
    /// The node that the token's claims name, or why it may not connect.
    fn node(&self, token: &str) -> impl Future<Output = Result<String, Refused>> + Send;
}

/// Why a peer may not connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The token is not one of an agent.
    Denied(String),
    /// Whether it is cannot be found out now.
    Unknown(String),
}

impl Connected {
    /// What every node said last.
    pub fn said(&self) -> BTreeMap<String, Said> {
        let nodes = self.lock();
        let said = nodes.iter().filter_map(|(name, Connection { away_since, report, .. })| {
            Some((name.clone(), Said { report: report.clone()?, away_since: *away_since }))
        });
        said.collect()
    }

    /// Forgets nodes that are no more.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.lock().retain(|name, connection| connection.away_since.is_none() || is_there(name));
    }

    /// How many are connected.
    pub fn count(&self) -> usize {
        self.lock().values().filter(|connection| connection.away_since.is_none()).count()
    }

    /// A stream of a node begins.
    pub(crate) fn enter(&self, node: &str) -> u64 {
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let mut nodes = self.lock();
        // What it said before holds until it says something else.
        let report = nodes.remove(node).and_then(|connection| connection.report);
        nodes.insert(node.to_owned(), Connection { stream, away_since: None, report });
        stream
    }

    /// A node says something by a stream; only the newest one speaks for it.
    pub(crate) fn say(&self, node: &str, stream: u64, report: NodeReport) -> bool {
        match self.lock().get_mut(node) {
            Some(connection) if connection.stream == stream => {
                connection.report = Some(Arc::new(report));
                true
            }
            _ => false,
        }
    }

    fn leave(&self, node: &str, stream: u64) {
        if let Some(connection) = self.lock().get_mut(node).filter(|connection| connection.stream == stream) {
            connection.away_since = Some(Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Connection>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the service needs.
pub struct Service<A> {
    /// Who may connect.
    pub authenticate: A,
    /// What nodes are to have.
    pub published: watch::Receiver<Published>,
    /// What they say.
    pub connected: Connected,
    /// Told whenever a node connected, said something or left.
    pub heard: mpsc::Sender<()>,
}

/// A service, and whether it is about to end.
struct Serving<A> {
    service: Service<A>,
    closing: watch::Receiver<bool>,
}

/// Serves until `ended`. Streams end then too: agents connect anew, wherever that leads them.
pub async fn serve<A: Authenticate>(
    service: Service<A>,
    listener: tokio::net::TcpListener,
    certificate: Certificate,
    ended: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (close, closing) = watch::channel(false);
    let ended = async move {
        ended.await;
        close.send_replace(true);
    };
    let sync = SyncServer::new(Serving { service, closing })
        .max_decoding_message_size(LONGEST_MESSAGE)
        .max_encoding_message_size(LONGEST_MESSAGE);
    Server::builder()
        .tls_config(ServerTlsConfig::new().identity(certificate.identity).timeout(HANDSHAKE))?
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .max_concurrent_streams(Some(STREAMS))
        .tcp_nodelay(true)
        .add_service(sync)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended)
        .await
}

type Parts = Pin<Box<dyn Stream<Item = Result<ConfigPart, Status>> + Send>>;

#[tonic::async_trait]
impl<A: Authenticate> Sync for Serving<A> {
    type SyncStream = Parts;

    async fn sync(&self, request: Request<Streaming<ReportMessage>>) -> Result<Response<Parts>, Status> {
        let peer = request.remote_addr();
        let service = &self.service;
        let node = service.authenticated(&request, peer).await?;
        let stream = service.connected.enter(&node);
        tracing::info!(node, ?peer, "a node connected");
        let (sender, receiver) = mpsc::channel(PARTS);
        let heard = service.heard.clone();
        // Levels: a full channel says already that there is something to hear.
        let _ = heard.try_send(());
        let hearing =
            hear(request.into_inner(), service.connected.clone(), node.clone(), stream, heard.clone());
        let telling = tell(service.published.clone(), sender);
        let connected = service.connected.clone();
        let mut closing = self.closing.clone();
        let life = STREAM + STREAM_SPREAD.mul_f64(f64::from(u8::try_from(stream % 16).unwrap_or(0)) / 16.0);
        tokio::spawn(async move {
            let why = tokio::select! {
                why = hearing => why,
                () = telling => "it takes nothing any more".to_owned(),
                _ = closing.wait_for(|closing| *closing) => "the certificate is replaced".to_owned(),
                () = tokio::time::sleep(life) => "its token is to be looked at again".to_owned(),
            };
            connected.leave(&node, stream);
            tracing::info!(node, why, "a node disconnected");
            let _ = heard.try_send(());
        });
        Ok(Response::new(ReceiverStream::new(receiver).map(Ok).boxed()))
    }
}

impl<A: Authenticate> Service<A> {
    async fn authenticated<T>(
        &self,
        request: &Request<T>,
        peer: Option<SocketAddr>,
    ) -> Result<String, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let Some(token) = header.and_then(|header| header.strip_prefix("Bearer ")) else {
            tracing::warn!(?peer, "a peer without a token is refused");
            return Err(Status::unauthenticated(
                "show a ServiceAccount token as `authorization: Bearer TOKEN`",
            ));
        };
        match self.authenticate.node(token).await {
            Ok(node) => Ok(node),
            Err(Refused::Denied(why)) => {
                tracing::warn!(?peer, why, "a peer is refused");
                Err(Status::unauthenticated(why))
            }
            Err(Refused::Unknown(why)) => Err(Status::unavailable(why)),
        }
    }
}

/// Takes reports in until the stream ends; says why it did.
async fn hear(
    mut reports: Streaming<ReportMessage>,
    connected: Connected,
    node: String,
    stream: u64,
    heard: mpsc::Sender<()>,
) -> String {
    loop {
        let report = match reports.message().await {
            Ok(Some(message)) => NodeReport::try_from(message),
            Ok(None) => return "it ended".to_owned(),
            Err(status) => return status.message().to_owned(),
        };
        match report {
            Ok(report) => {
                if !connected.say(&node, stream, report) {
                    return "it connected anew".to_owned();
                }
                let _ = heard.try_send(());
            }
            Err(malformed) => return malformed.to_string(),
        }
    }
}

/// Sends what is to be had until nobody takes it. Between two looks several Configs may pass: the last counts.
async fn tell(mut published: watch::Receiver<Published>, sender: mpsc::Sender<ConfigPart>) {
    let mut sent: Option<Published> = None;
    loop {
        let next = published.borrow_and_update().clone();
        if next.generation > Generation(0)
            && sent.as_ref().is_none_or(|sent| sent.generation != next.generation)
        {
            let known = sent.as_ref().map(|sent| &*sent.config);
            for part in parts(known, &next.config, next.generation) {
                if sender.send(part).await.is_err() {
                    return;
                }
            }
            sent = Some(next);
        }
        tokio::select! {
            changed = published.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}
