//! `blixt run`: one task owns the state, and every event only marks what is to be looked at anew.
//!
//! ```text
//! files ──► Source ─┐
//! netlink ──────────┼─► Balancer: translate ► compile ► diff ► apply ► attach ► report ► statuses
//! ticks, signals ───┘                                                   ▲
//! status, explain, metrics ─────────────────────────────── asks ────────┘
//! ```

pub mod assigned;
pub mod balancer;
pub mod settings;

use std::time::Instant;

use anyhow::anyhow;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use self::balancer::Balancer;
use self::settings::Settings;
use crate::cli::RunArgs;
use crate::exit::Exit;
use crate::node::TICK;
use crate::node::signals::{End, Signals, Wish};
use crate::node::start::{Start, current, drive, notify};
use crate::source::Source;
use crate::source::ahead::Ahead;
use crate::source::pending::Changes;
use crate::status::dir::StatusDir;

/// Workers beside the run loop: they carry what people and Prometheus ask.
const WORKERS: usize = 1;

/// `blixt run`
pub fn run(args: RunArgs) -> anyhow::Result<Exit> {
    drive(WORKERS, follow(args.try_into()?))
}

async fn follow(settings: Settings) -> anyhow::Result<Exit> {
    let Settings { files, status_dir, node } = settings;
    let ahead = Ahead::begin(&files);
    let mut signals = Signals::new()?;
    let prepared = Start::prepare(node, |runtime_dir| {
        let source = Source::open(&files, &runtime_dir.memory(), ahead)?;
        let status_dir = status_dir.as_deref().map(StatusDir::open).transpose()?;
        let book = status_dir.as_ref().map(StatusDir::book).transpose()?.unwrap_or_default();
        Ok((source, status_dir, book))
    })?;
    let (Start { node, runtime_dir, mut asked, mut numbers_asked, ready, mut observations }, own) = prepared;
    let (source, status_dir, book) = own;
    let (told, mut statuses_told) = mpsc::channel(1);
    let mut balancer = Balancer::new(node, source, status_dir, book, &runtime_dir, told);
    balancer.read_files(&Changes::all());
    balancer.observe(current(&mut observations));

    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        balancer.converge();
        balancer.node().tell_ready(&ready);
        let statuses_due = balancer.statuses_due();
        tokio::select! {
            biased;
            wish = signals.next() => match wish {
                Wish::End(end) => break end,
                Wish::Reread => balancer.reread_files(),
            },
            changes = balancer.file_changes() => balancer.read_files(&changes?),
            changed = observations.changed() => {
                changed.map_err(|_| anyhow!("the thread that follows the machine ended; start blixt again"))?;
                balancer.observe(current(&mut observations));
            }
            Some(ask) = asked.recv() => balancer.answer(ask),
            Some(reply) = numbers_asked.recv() => {
                // Whoever asked may have gone.
                let _ = reply.send(balancer.numbers());
            }
            () = sleep_until(statuses_due.unwrap_or_else(Instant::now).into()), if statuses_due.is_some() => {
                balancer.work_statuses_out();
            }
            Some(told) = statuses_told.recv() => balancer.take_statuses(told),
            _ = ticks.tick() => balancer.tick(),
        }
    };

    notify(&[sd_notify::NotifyState::Stopping]);
    match end {
        End::Leave => {
            runtime_dir.remove_socket();
            tracing::info!("ended; forwarding goes on, `blixt cleanup` removes it");
        }
        End::Remove => {
            let node = balancer.into_node();
            // All of it, whatever becomes of the rest; the lock goes last.
            let cleared = runtime_dir.remove();
            node.remove().and(cleared)?;
            tracing::info!("ended; every trace is removed");
        }
    }
    Ok(Exit::Success)
}
