//! `blixt controller`: objects of a cluster to the Config of every node, and back to statuses.
//!
//! ```text
//! API server ─ watch ─► Objects ─ translate ─► Config ─ Sync ─► nodes
//!            ◄─ apply ─ statuses ◄─ translate ◄─ Report ◄─ Sync ─┘
//! ```
//!
//! Of several replicas the holder of a Lease does this; the others wait. Rules of the Gateway API are not here: they are
//! `translate`'s.

pub mod accounts;
pub mod events;
pub mod fetched;
pub mod fleet;
pub mod history;
pub mod leader;
pub mod lease;
pub mod ledger;
pub mod numbers;
pub mod objects;
pub mod publication;
pub mod settings;
pub mod token;
pub mod told;
pub mod watch;
pub mod writer;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::time::{self, MissedTickBehavior, interval, sleep, sleep_until, timeout_at};

use self::events::Events;
use self::leader::{Leader, Outlets};
use self::lease::{Candidate, Handover, RENEW, Renewal, Term};
use self::numbers::Numbers;
use self::publication::Publication;
use self::settings::Settings;
use self::token::Tokens;
use self::watch::Seen;
use crate::cli::ControllerArgs;
use crate::exit::{Exit, words};
use crate::metrics;
use crate::node::signals::{Signals, Wish};
use crate::sync::certificate::{self, RENEW_AFTER};
use crate::sync::server::{self, Connected, Published, Service};

/// What was seen and waits for the loop.
const SEEN: usize = 1024;
/// Asks for numbers that wait for the loop.
const ASKS: usize = 16;
/// Whoever is to be told that there is news need be told once.
const NEWS: usize = 1;
/// What failed while agents are served is tried again after this.
const SERVE_AGAIN: Duration = Duration::from_secs(1);

type Asked = mpsc::Receiver<oneshot::Sender<Numbers>>;

/// `blixt controller`
pub fn controller(args: ControllerArgs) -> anyhow::Result<Exit> {
    let settings = Arc::new(Settings::try_from(args)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(control(settings));
    runtime.shutdown_background();
    exit
}

/// Why a leader ended.
enum End {
    /// A signal asked for it.
    Asked,
    /// Somebody else leads, or may.
    Lost,
}

async fn control(settings: Arc<Settings>) -> anyhow::Result<Exit> {
    let mut signals = Signals::new()?;
    let client = Client::try_default()
        .await
        .context("cannot find the API server; run this in a pod, or give KUBECONFIG")?;
    let (numbers, mut asked) = mpsc::channel(ASKS);
    let (ready, is_ready) = channel::channel(false);
    if let Some(listen) = settings.listen {
        let sources = metrics::Sources { numbers, ready: is_ready };
        tokio::spawn(metrics::serve(TcpListener::from_std(metrics::bind(listen)?)?, sources));
    }
    let mut candidate = Candidate::new(client.clone(), &settings.namespace, settings.identity.clone());
    loop {
        // A replica that waits does what it is there for.
        ready.send_replace(true);
        tracing::info!(identity = settings.identity, "waiting for the Lease");
        let before = tokio::select! {
            before = candidate.acquire() => before,
            () = stand_by(&mut asked) => unreachable!("whoever asks may go on asking"),
            () = ended(&mut signals) => return Ok(Exit::Success),
        };
        tracing::info!(identity = settings.identity, first = before.generation, "leading");
        let (published, to_publish) = channel::channel(Published::default());
        let (resting, rest) = channel::channel(BTreeSet::new());
        let left = || Handover {
            generation: to_publish.borrow().generation.0.max(before.generation),
            resting: rest.borrow().clone(),
        };
        let end = tokio::select! {
            // Whoever was stopped for a while first looks whether it still leads.
            biased;
            () = ended(&mut signals) => End::Asked,
            end = hold(&mut candidate, left) => end,
            end = lead(&settings, &client, &before, published, resting, &ready, &mut asked) => end?,
        };
        match end {
            End::Asked => {
                candidate.release(&left()).await;
                return Ok(Exit::Success);
            }
            End::Lost => tracing::warn!("not leading any more; agents go on with what they have"),
        }
    }
}

/// Answers for a replica that does not lead.
async fn stand_by(asked: &mut Asked) {
    while let Some(reply) = asked.recv().await {
        // Whoever asked may have gone.
        let _ = reply.send(Numbers::default());
    }
    std::future::pending().await
}

async fn ended(signals: &mut Signals) {
    while let Wish::Reread = signals.next().await {}
}

/// Renews the Lease until it is lost.
async fn hold(candidate: &mut Candidate, left: impl Fn() -> Handover) -> End {
    let mut term = Term::of(time::Instant::now());
    loop {
        sleep(RENEW).await;
        let asked = time::Instant::now();
        let renewed = timeout_at(term.end(), candidate.renew(&left())).await;
        match term.after(renewed.unwrap_or(Renewal::Lost), asked, time::Instant::now()) {
            Some(next) => term = next,
            None => return End::Lost,
        }
    }
}

async fn lead(
    settings: &Arc<Settings>,
    client: &Client,
    before: &Handover,
    published: channel::Sender<Published>,
    resting: channel::Sender<BTreeSet<IpAddr>>,
    ready: &channel::Sender<bool>,
    asked: &mut Asked,
) -> anyhow::Result<End> {
    let sources = watch::sources(&settings.kinds);
    let (seen, mut all_seen) = mpsc::channel::<Seen>(SEEN);
    // All of it ends with this future.
    let mut tasks = watch::watch(client, &settings.kinds, &settings.namespace, &settings.agents, &seen);
    let (worked, mut all_worked) = mpsc::channel(1);
    let (writes, jobs) = mpsc::unbounded_channel();
    let (outcomes, mut all_outcomes) = mpsc::unbounded_channel();
    tasks.spawn(writer::run(client.clone(), jobs, outcomes));
    let connected = Connected::default();
    let (heard, mut news) = mpsc::channel(NEWS);
    tasks.spawn(serve(Arc::clone(settings), client.clone(), published.subscribe(), connected.clone(), heard));
    let (accounts, wanted) = channel::channel(Vec::new());
    tasks.spawn(accounts::keep(client.clone(), wanted));
    let events = Events::start(client.clone(), &settings.pod);
    let outlets = Outlets { published, worked, writes, resting, accounts, events };
    let mut leader = Leader::new(&sources, before, connected, outlets);
    let mut ticks = interval(RENEW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(SEEN);
    loop {
        leader.converge();
        ready.send_replace(leader.has_begun());
        let due = leader.due();
        tokio::select! {
            count = all_seen.recv_many(&mut batch, SEEN) => {
                if count > 0 {
                    batch.drain(..).for_each(|seen| leader.see(seen));
                }
            }
            Some(()) = news.recv() => leader.hear(),
            Some(worked) = all_worked.recv() => leader.take_worked(worked),
            Some(outcome) = all_outcomes.recv() => leader.take_outcome(outcome),
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => leader.work(),
            Some(reply) = asked.recv() => {
                // Whoever asked may have gone.
                let _ = reply.send(leader.numbers());
            }
            Some(ended) = tasks.join_next() => {
                tracing::error!(?ended, "a task of the leader ended: a fault of blixt, please report it; beginning anew");
                return Ok(End::Lost);
            }
            // Nodes leave the count by themselves.
            _ = ticks.tick() => leader.hear(),
        }
    }
}

/// Serves agents for as long as it leads, with a new certificate now and then.
async fn serve(
    settings: Arc<Settings>,
    client: Client,
    published: channel::Receiver<Published>,
    connected: Connected,
    heard: mpsc::Sender<()>,
) {
    let publication = Publication::new(client.clone(), settings.namespace.clone());
    let mut last = None;
    loop {
        let service = Service {
            authenticate: Tokens::new(client.clone(), &settings.namespace),
            published: published.clone(),
            connected: connected.clone(),
            heard: heard.clone(),
        };
        if let Err(error) = serve_once(&settings, &publication, service, &mut last).await {
            tracing::warn!(error = words(&error), "cannot serve agents, trying again");
            sleep(SERVE_AGAIN).await;
        }
    }
}

async fn serve_once(
    settings: &Settings,
    publication: &Publication,
    service: Service<Tokens>,
    last: &mut Option<String>,
) -> anyhow::Result<()> {
    let certificate = certificate::make()?;
    // Agents that are connected know the last one.
    let known = last.replace(certificate.authority.clone()).unwrap_or_default();
    let listener =
        bind(settings.sync).await.with_context(|| format!("cannot listen on --sync {}", settings.sync))?;
    let address = SocketAddr::new(settings.address, listener.local_addr()?.port());
    // Whoever dials from now on waits a moment.
    publication.publish(address, &format!("{}{known}", certificate.authority)).await?;
    server::serve(service, listener, certificate, sleep(RENEW_AFTER)).await?;
    Ok(())
}

/// Machines without IPv6 have its unspecified address neither.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}
