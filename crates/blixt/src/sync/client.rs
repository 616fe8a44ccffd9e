//! An agent's end: connects, again and again, and hands every Config on.

use std::time::Duration;

use blixt_core::config::{Config, Generation};
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::WatchStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::config_parts::Assembly;
use super::proto::Report as ReportMessage;
use super::proto::sync_client::SyncClient;
use super::report::NodeReport;
use super::{LONGEST_MESSAGE, SERVER_NAME};

/// How long a connection may take to be made,
const CONNECT: Duration = Duration::from_secs(2);
/// and how long the two may take to know each other. A controller that is stopped lets its kernel accept connections.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A controller that is silent for this long is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Where the controller is, and how each side knows the other.
#[derive(Clone, Debug)]
pub struct Door {
    /// `https://HOST:PORT`.
    pub url: String,
    /// What its certificate must lead to, PEM.
    pub authority: String,
    /// Our token.
    pub token: String,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It could not be made.
    #[error("connect to {url}: {}", words(source))]
    Connect {
        /// Where to.
        url: String,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// The token is no header.
    #[error("the token has characters that no token has; see --token")]
    Token,
    /// The controller ended it or said no.
    #[error("the controller at {url}: {}", status.message())]
    Status {
        /// Which.
        url: String,
        /// What it said.
        status: Box<Status>,
    },
    /// It ended in order, as controllers do that are not the leader any more.
    #[error("the controller at {url} ended the stream")]
    Closed {
        /// Which.
        url: String,
    },
    /// A message is not understood.
    #[error(transparent)]
    Malformed(#[from] super::wire::Malformed),
}

/// Follows one controller until the connection ends. Nobody waits for a Config that comes when the next is there already.
pub async fn follow(
    door: Door,
    configs: mpsc::Sender<(Config, Generation)>,
    reports: watch::Receiver<Option<NodeReport>>,
) -> Ended {
    match connected(door, configs, reports).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

async fn connected(
    door: Door,
    configs: mpsc::Sender<(Config, Generation)>,
    reports: watch::Receiver<Option<NodeReport>>,
) -> Result<std::convert::Infallible, Ended> {
    let Door { url, authority, token } = door;
    let bearer: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| Ended::Token)?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority))
        .domain_name(SERVER_NAME)
        .timeout(HANDSHAKE);
    let connect = |source| Ended::Connect { url: url.clone(), source };
    let channel = Endpoint::from_shared(url.clone())
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(connect)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(connect)?;
    let mut client = SyncClient::new(channel)
        .max_decoding_message_size(LONGEST_MESSAGE)
        .max_encoding_message_size(LONGEST_MESSAGE);
    let said = |status| Ended::Status { url: url.clone(), status: Box::new(status) };
    let messages = WatchStream::new(reports)
        .filter_map(|report| async move { report.map(|report: NodeReport| ReportMessage::from(&report)) });
    // The stream lies with the connection, which would live as long as there may be reports.
    let (_following, ended) = oneshot::channel::<()>();
    let messages = messages.take_until(ended);
    let mut request = Request::new(messages);
    request.metadata_mut().insert("authorization", bearer);
    let mut parts = client.sync(request).await.map_err(said)?.into_inner();
    let mut assembly = Assembly::default();
    loop {
        let part = parts.message().await.map_err(said)?.ok_or_else(|| Ended::Closed { url: url.clone() })?;
        if let Some(config) = assembly.add(part)? {
            // The receiver lives as long as the process.
            let _ = configs.send(config).await;
        }
    }
}

/// An error with its causes, each said once.
fn words(error: &tonic::transport::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}
