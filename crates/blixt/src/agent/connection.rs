//! Keeps an agent connected: finds out how, follows the controller, and begins again when that ends.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use blixt_core::config::{Config, Generation};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::authority::Found;
use super::settings::Door;
use crate::atomic;
use crate::exit::words;
use crate::sync::client;
use crate::sync::report::NodeReport;

/// The first wait after a connection that ended, doubled with each that fails,
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// A connection that held for this long was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// The certificates that worked last, for a start without the API server.
const AUTHORITY: &str = "authority.pem";

/// What is kept connected.
pub struct Connection {
    /// How.
    pub door: Door,
    /// Where Configs go.
    pub configs: mpsc::Sender<(Config, Generation)>,
    /// Where reports come from.
    pub reports: watch::Receiver<Option<NodeReport>>,
    /// Why there is no connection, if there is none.
    pub trouble: watch::Sender<Option<String>>,
    /// Where something is kept for the next start.
    pub state_dir: PathBuf,
}

impl Connection {
    /// Keeps it until the process ends.
    pub async fn keep(self) {
        let mut wait = FIRST_WAIT;
        // The leader itself and the Service by turns: one may be reached where the other is not.
        let mut by_service = false;
        loop {
            let began = Instant::now();
            let why = self.follow(by_service).await;
            by_service = !by_service;
            let why = words(&why);
            let is_news = self.trouble.borrow().as_deref() != Some(&why);
            if is_news {
                tracing::warn!(why, "not connected to the controller; serving goes on as it was");
            }
            self.trouble.send_replace(Some(why));
            if began.elapsed() > GOOD {
                wait = FIRST_WAIT;
                by_service = false;
            }
            // Nodes that lost one controller do not all come at the same moment.
            sleep(wait + wait.mul_f64(jitter())).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn follow(&self, by_service: bool) -> anyhow::Error {
        let door = match self.open(by_service).await {
            Ok(door) => door,
            Err(error) => return error,
        };
        let client::Door { url, authority, .. } = door.clone();
        let (configs, mut received) = mpsc::channel(1);
        let mut following = std::pin::pin!(client::follow(door, configs, self.reports.clone()));
        let mut is_proved = false;
        loop {
            tokio::select! {
                ended = &mut following => return ended.into(),
                Some(config) = received.recv() => {
                    if !std::mem::replace(&mut is_proved, true) {
                        self.note_connected(&url, &authority);
                    }
                    // The receiver lives as long as the process.
                    let _ = self.configs.send(config).await;
                }
            }
        }
    }

    async fn open(&self, by_service: bool) -> anyhow::Result<client::Door> {
        let Door { url, authority, token } = &self.door;
        let path = self.state_dir.join(AUTHORITY);
        let Found { certificates, leader } = match authority.find().await {
            Ok(found) => found,
            Err(error) => {
                let certificates = std::fs::read_to_string(path).map_err(|_| error)?;
                Found { certificates, leader: None }
            }
        };
        let url = match leader {
            Some(leader) if !by_service => format!("https://{leader}"),
            _ => url.clone(),
        };
        let token = std::fs::read_to_string(token)
            .with_context(|| format!("cannot read --token {}", token.display()))?;
        Ok(client::Door { url, authority: certificates, token: token.trim().to_owned() })
    }

    fn note_connected(&self, url: &str, authority: &str) {
        tracing::info!(controller = url, "connected to the controller");
        self.trouble.send_replace(None);
        if let Err(error) = atomic::write(&self.state_dir.join(AUTHORITY), authority.as_bytes()) {
            tracing::warn!(%error, "cannot remember the controller's authority for the next start");
        }
    }
}

/// Between 0 and 1.
fn jitter() -> f64 {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    f64::from(nanos.subsec_nanos() % 1000) / 1000.0
}
