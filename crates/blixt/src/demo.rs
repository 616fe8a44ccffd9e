//! `blixt demo`: a client, a balancer and three backends in network namespaces, real sockets, and a summary of what
//! was really seen. Nothing is assumed: each line of the summary is computed from connections that were made.

mod findings;
mod interrupt;
mod manifests;
mod screen;
mod stage;
mod steps;

use anyhow::Context;

use crate::cli::DemoArgs;
use crate::exit::Exit;

use findings::Findings;
use interrupt::Interrupt;
use screen::Screen;
use stage::Stage;

/// Shows Blixt at work; [`Exit::Findings`] if anything was not as it should be.
pub fn demo(args: &DemoArgs) -> anyhow::Result<Exit> {
    let interrupt = Interrupt::catch()?;
    let screen = Screen::new();
    let mut findings = Findings::default();
    let mut stage = Stage::new(args.hook, interrupt).context("cannot build the machines of the demo")?;
    show(&mut stage, &screen, &mut findings)?;
    if args.keep {
        steps::keep(&stage, &screen)?;
    }
    steps::clean_up(stage, &screen, &mut findings)?;
    screen.heading("Summary");
    findings.print(&screen);
    Ok(if findings.all_good() { Exit::Success } else { Exit::Findings })
}

fn show(stage: &mut Stage, screen: &Screen, findings: &mut Findings) -> anyhow::Result<()> {
    steps::machines(stage, screen);
    steps::start(stage, screen, findings)?;
    steps::balance(stage, screen, findings)?;
    steps::explain(stage, screen, findings)?;
    steps::change_a_weight(stage, screen, findings)?;
    steps::remove_a_backend(stage, screen, findings)?;
    steps::kill_the_process(stage, screen, findings)
}
