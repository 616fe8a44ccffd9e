//! `blixt agent`: the data plane of one node, which does what the controller sends.
//!
//! ```text
//! controller ─ Sync ─► Config ─► memory ─► Node ─► maps
//!            ◄─ Sync ─ Report ◄────────────┘
//! ```
//!
//! It goes on with the last Config that it had, also after a start: without the controller and without the API server
//! traffic flows as before.

pub mod authority;
pub mod connection;
pub mod installation;
pub mod memory;
pub mod settings;

use std::sync::Arc;

use anyhow::anyhow;
use blixt_core::config::{Config, Generation};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use self::connection::Connection;
use self::memory::Memory;
use self::settings::Settings;
use crate::cli::AgentArgs;
use crate::control::{Ask, Reply, Request};
use crate::exit::Exit;
use crate::explain;
use crate::node::signals::{End, Signals, Wish};
use crate::node::start::{Start, current, drive, notify};
use crate::node::{Node, TICK};
use crate::status::book::Book;
use crate::status::gather::{self, Objects};
use crate::sync::report::NodeReport;

/// Workers beside the loop: the connection, and what people and Prometheus ask.
const WORKERS: usize = 2;
/// Configs that came and wait to be applied: the newest counts.
const CONFIGS: usize = 4;

/// `blixt agent`
pub fn agent(args: AgentArgs) -> anyhow::Result<Exit> {
    drive(WORKERS, follow(args.try_into()?))
}

async fn follow(settings: Settings) -> anyhow::Result<Exit> {
    let Settings { door, state_dir, installation, node } = settings;
    let mut signals = Signals::new()?;
    let mut installation = installation.follow();
    let (start, mut memory) = Start::prepare(node, |_| Memory::open(&state_dir))?;
    let Start { mut node, runtime_dir, mut asked, mut numbers_asked, ready, mut observations } = start;
    node.observe(current(&mut observations));
    if let Some((config, generation)) = memory.last() {
        tracing::info!(
            generation = generation.0,
            frontends = config.frontends.len(),
            "going on with the last Config"
        );
        node.set_config(config, generation);
    }

    let (configs, mut received) = mpsc::channel(CONFIGS);
    let (reports, reported) = watch::channel(None);
    let (trouble, troubled) = watch::channel(Some("the controller was not reached yet".to_owned()));
    tokio::spawn(Connection { door, configs, reports: reported, trouble, state_dir }.keep());

    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = Generation(0);
    let end = loop {
        node.converge();
        node.tell_ready(&ready);
        if node.take_reported() || node.progress.applied_generation != said {
            said = node.progress.applied_generation;
            reports.send_replace(report(&node));
        }
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::End(End::Leave) => break installation.end().await,
                Wish::End(end) => break end,
                Wish::Reread => tracing::info!("nothing to read again: the controller sends what there is"),
            },
            Some(mut newest) = received.recv() => {
                while let Ok(newer) = received.try_recv() {
                    newest = newer;
                }
                let (config, generation) = newest;
                take(&mut node, &mut memory, config, generation);
            }
            changed = observations.changed() => {
                changed.map_err(|_| anyhow!("the thread that follows the machine ended; start blixt again"))?;
                node.observe(current(&mut observations));
            }
            Some(ask) = asked.recv() => answer(&node, ask, troubled.borrow().as_deref()),
            Some(reply) = numbers_asked.recv() => {
                let book = Book::default();
                // Whoever asked may have gone.
                let _ = reply.send(gather::numbers(&node, &objects(&book, troubled.borrow().as_deref()), &node.counters()));
            }
            _ = ticks.tick() => node.tick(),
        }
    };

    notify(&[sd_notify::NotifyState::Stopping]);
    match end {
        End::Leave => {
            runtime_dir.remove_socket();
            tracing::info!("ended; forwarding goes on until the next start, `blixt cleanup` removes it");
        }
        End::Remove => {
            let forgotten = memory.remove();
            let cleared = runtime_dir.remove();
            node.remove().and(cleared).and(forgotten)?;
            tracing::info!("ended; every trace is removed");
        }
    }
    Ok(Exit::Success)
}

/// Remembers a Config before the maps follow it: after a start nothing older is applied.
fn take(node: &mut Node, memory: &mut Memory, config: Config, generation: Generation) {
    let config = Arc::new(config);
    if let Err(error) = memory.remember(&config, generation) {
        tracing::warn!(error = format!("{error:#}"), "cannot remember the Config for the next start");
    }
    node.set_config(config, generation);
}

fn report(node: &Node) -> Option<NodeReport> {
    let report = node.report.as_ref()?;
    Some(NodeReport::new(node.progress.applied_generation, report))
}

fn objects<'a>(book: &'a Book, trouble: Option<&'a str>) -> Objects<'a> {
    Objects { store: None, book, notes: &[], trouble }
}

fn answer(node: &Node, ask: Ask, trouble: Option<&str>) {
    let reply = match ask.request {
        Request::Status => {
            let book = Book::default();
            let view = gather::view(node, &objects(&book, trouble), &Default::default(), &node.counters());
            Reply::from_result(Ok(view))
        }
        Request::Explain { packet } => Reply::from_result(explain::of_running(node, &packet)),
    };
    // Whoever asked may have gone.
    let _ = ask.reply.send(reply);
}
