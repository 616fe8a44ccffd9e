//! The steps of the demo, in order. Each shows something and notes what was seen.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use blixt_lab::{
    Busy, BusyConnection, Churn, Failure, Family, Lab, Machine, Pace, Pacer, Protocol, Tally, programs, tally,
};

use super::findings::Findings;
use super::manifests::{self, PORT};
use super::screen::{Bar, Screen};
use super::stage::{PATIENCE, Stage};
use crate::status::view::{HookView, View};

/// New connections (or datagrams, each from a new port) of one kind.
const CONNECTIONS: u64 = 400;
/// How many are made before the progress bar moves.
const PORTION: u64 = 20;
/// Connections that are busy while something changes.
const BUSY: usize = 60;
/// Pause between two messages of a busy connection, and between two new connections.
const PAUSE: Duration = Duration::from_millis(10);
/// Datagrams that are on their way while the process is killed: two seconds of them.
const PACE: Pace = Pace { flows: 8, datagrams: 10_000, rate: 5_000 };

/// The machines and how they are wired.
pub(super) fn machines(stage: &Stage, screen: &Screen) {
    screen.heading("Machines, each a network namespace");
    let at = |network, host| {
        let [v4, v6] = Family::ALL.map(|family| blixt_lab::address(family, network, host));
        format!("{v4}  {v6}")
    };
    screen.line(&format!("client      {}", at(0, Lab::OTHER)));
    screen.line(&format!("  └─ balancer  {}", at(0, Lab::BALANCER)));
    for backend in &stage.backends {
        screen.line(&format!("       ├─ {}  {}", backend.name(), at(backend.network, Lab::OTHER)));
    }
}

/// The manifests, and `blixt run` over them.
pub(super) fn start(stage: &mut Stage, screen: &Screen, findings: &mut Findings) -> anyhow::Result<()> {
    screen.heading("Manifests");
    screen.quote("gateway.yaml", &manifests::gateway());
    screen.quote("routes.yaml", &manifests::routes(&stage.backends));
    screen.quote("backend-1.yaml, and the same for the others", &manifests::service(&stage.backends[0]));
    screen.heading("blixt run -f .");
    let took = stage.start()?;
    screen.line(&format!("ready after {} ms", took.as_millis()));
    screen.line(&format!("packets are taken by {}", hooks(stage)?));
    let checked = stage.command(&["check", "-f", &stage.manifests().to_string_lossy()])?;
    findings.note(checked.status.success(), "`blixt check` finds no error in the manifests");
    Ok(())
}

/// Where in the kernel packets are taken, as the running instance says.
fn hooks(stage: &Stage) -> anyhow::Result<String> {
    let output = stage.command(&["status", "-o", "json"])?;
    let view: View = serde_json::from_slice(&output.stdout).context("`blixt status` says no JSON")?;
    let of_device = |hook: HookView| format!("{} at {}", hook.hook, hook.device);
    Ok(view.hooks.into_iter().map(of_device).collect::<Vec<_>>().join(", "))
}

/// New connections of all kinds, counted by who answered.
pub(super) fn balance(stage: &Stage, screen: &Screen, findings: &mut Findings) -> anyhow::Result<()> {
    screen.heading(&format!("{CONNECTIONS} new connections of each kind, by backend"));
    for protocol in Protocol::ALL {
        for family in Family::ALL {
            let title = format!("{protocol} {}", Stage::gateway(family));
            let tally = dial(stage, screen, &title, protocol, Stage::gateway(family))?;
            chart(stage, screen, &title, &tally);
            findings.note(
                tally.answered() == CONNECTIONS && follows_weights(stage, &tally),
                format!("{title}: {} of {CONNECTIONS} answered, by weight", tally.answered()),
            );
        }
    }
    let nobody = SocketAddr::new(Stage::gateway(Family::V4).ip(), PORT + 1);
    let refused = tally(&stage.lab.client, Protocol::Tcp, nobody, 3).refused();
    findings
        .note(refused == 3, format!("tcp {nobody}, which no listener owns: {refused} of 3 refused at once"));
    Ok(())
}

/// Why one flow goes where it goes.
pub(super) fn explain(stage: &Stage, screen: &Screen, findings: &mut Findings) -> anyhow::Result<()> {
    let from = SocketAddr::new(blixt_lab::address(Family::V4, 0, Lab::OTHER), 4242);
    let packet = format!("tcp {from} > {}", Stage::gateway(Family::V4));
    screen.heading("One flow, explained before it is there");
    let output = stage.command(&["explain", &packet])?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    screen.quote(&format!("blixt explain '{packet}'"), &words);
    let answer = blixt_lab::connect_from(&stage.lab.client, Some(from), Stage::gateway(Family::V4));
    let (good, backend) = match &answer {
        Ok(connection) => {
            let name = &connection.answer.backend;
            let backend = stage.backends.iter().find(|backend| backend.name() == *name);
            let address = backend.map(|one| blixt_lab::address(Family::V4, one.network, Lab::OTHER));
            (address.is_some_and(|address| words.contains(&address.to_string())), name.clone())
        }
        Err(failure) => (false, failure.to_string()),
    };
    screen.line(&format!("and so it went: {backend}"));
    findings.note(
        good && output.status.success(),
        format!("`blixt explain` names the backend that answered: {backend}"),
    );
    Ok(())
}

/// A weight changes while connections are busy.
pub(super) fn change_a_weight(
    stage: &mut Stage,
    screen: &Screen,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    screen.heading("A weight changes under load: backend-1 from 5 to 0");
    let load = Load::start(stage)?;
    stage.backends[0].weight = 0;
    stage.write_routes()?;
    let changed = Instant::now();
    let followed = stage.wait(|| load.last_new().iter().all(|name| name != "backend-1"))?;
    screen.line(&format!(
        "routes.yaml replaced; no new connection to backend-1 after {} ms",
        changed.elapsed().as_millis()
    ));
    let title = format!("tcp {}", Stage::gateway(Family::V4));
    let tally = dial(stage, screen, &title, Protocol::Tcp, Stage::gateway(Family::V4))?;
    chart(stage, screen, &title, &tally);
    let (busy, attempts, failed) = load.finish();
    let cut = busy.iter().filter(|one| one.failure.is_some()).count();
    findings.note(
        followed && tally.answered() == CONNECTIONS && follows_weights(stage, &tally),
        format!("weight changed live: {} of {CONNECTIONS} answered, by the new weights", tally.answered()),
    );
    findings.note(
        cut == 0 && failed == 0,
        format!(
            "meanwhile {cut} of {} connections were cut, {failed} of {attempts} new ones refused",
            busy.len()
        ),
    );
    Ok(())
}

/// A backend goes while connections are busy.
pub(super) fn remove_a_backend(
    stage: &mut Stage,
    screen: &Screen,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    screen.heading("A backend is removed under load: backend-2 leaves its EndpointSlices");
    let load = Load::start(stage)?;
    stage.backends[1].listed = false;
    // An empty Service would refuse its share of the connections: the routes forget it first.
    let weight = std::mem::take(&mut stage.backends[1].weight);
    stage.write_routes()?;
    stage.write_service(&stage.backends[1])?;
    let removed = Instant::now();
    let of = |connection: &BusyConnection| connection.backend.as_deref() == Some("backend-2");
    let ended =
        stage.wait(|| load.busy.now().iter().filter(|one| of(one)).all(|one| one.failure.is_some()))?;
    screen.line(&format!("its connections were reset after {} ms", removed.elapsed().as_millis()));
    let moved = dial(stage, screen, "new connections", Protocol::Udp, Stage::gateway(Family::V6))?;
    let (busy, _, _) = load.finish();
    let (gone, stayed): (Vec<_>, Vec<_>) = busy.into_iter().partition(of);
    let reset = gone.iter().filter(|one| one.failure == Some(Failure::Reset)).count();
    let cut = stayed.iter().filter(|one| one.failure.is_some()).count();
    screen.line(&format!(
        "{reset} of its {} connections were reset, {cut} of the {} others were cut",
        gone.len(),
        stayed.len()
    ));
    findings.note(
        ended && reset == gone.len() && !gone.is_empty(),
        format!("backend removed live: {reset} of its {} connections were reset", gone.len()),
    );
    findings.note(
        cut == 0 && !stayed.is_empty(),
        format!("{cut} of {} connections to the others were cut", stayed.len()),
    );
    findings.note(
        moved.of("backend-2") == 0 && moved.answered() == CONNECTIONS,
        format!(
            "{} of {CONNECTIONS} new ones went to it, {} were answered",
            moved.of("backend-2"),
            moved.answered()
        ),
    );
    stage.backends[1].listed = true;
    stage.backends[1].weight = weight;
    stage.write_service(&stage.backends[1])?;
    stage.write_routes()
}

/// The user-space process dies amid traffic, and comes back.
pub(super) fn kill_the_process(
    stage: &mut Stage,
    screen: &Screen,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    screen.heading("kill -9 of the process, with traffic going on");
    let busy = Busy::start(&stage.lab.client, Stage::gateway(Family::V6), BUSY, PAUSE)?;
    let pacer = Pacer::start(&stage.lab.client, Stage::gateway(Family::V4), PACE)?;
    let progress = screen.progress("datagrams on their way", PACE.datagrams);
    let middle = stage.wait(|| {
        progress.set_position(pacer.sent());
        pacer.sent() > PACE.datagrams / 4
    })?;
    stage.process()?.kill()?;
    let at = pacer.sent();
    let fresh = tally(&stage.lab.client, Protocol::Tcp, Stage::gateway(Family::V4), 20);
    stage.wait(|| {
        progress.set_position(pacer.sent());
        pacer.sent() >= PACE.datagrams / 2
    })?;
    let took = stage.start()?;
    let taken_over = pacer.sent();
    stage.wait(|| {
        progress.set_position(pacer.sent());
        pacer.sent() >= PACE.datagrams
    })?;
    let report = pacer.finish();
    progress.finish_and_clear();
    let busy = busy.finish();
    let cut = busy.iter().filter(|one| one.failure.is_some()).count();
    screen.line(&format!(
        "killed at datagram {at}, started again at {taken_over} and ready {} ms later",
        took.as_millis()
    ));
    findings.note(
        middle && at < PACE.datagrams && report.lost() == 0 && report.duplicates == 0 && report.moved == 0,
        format!(
            "process killed: {} of {} datagrams lost, {} twice",
            report.lost(),
            report.sent,
            report.duplicates
        ),
    );
    findings.note(cut == 0, format!("{cut} of {} busy connections were cut", busy.len()));
    findings.note(
        fresh.answered() == 20,
        format!("{} of 20 new connections were made without it", fresh.answered()),
    );
    Ok(())
}

/// Everything stays as it is until Ctrl-C.
pub(super) fn keep(stage: &Stage, screen: &Screen) -> anyhow::Result<()> {
    screen.heading("Everything is kept until Ctrl-C");
    let prefix = format!("blixt-{}", std::process::id());
    let machines = [&stage.lab.client, &stage.lab.balancer].into_iter().chain(&stage.lab.backends);
    let mut names = Vec::new();
    for machine in machines {
        let name = format!("{prefix}-{}", machine.name());
        names.push(Published(machine.publish(&name)?));
    }
    let program = std::env::current_exe()?;
    screen.line(&format!("nsenter --net=/run/netns/{prefix}-client      a shell where clients are"));
    screen.line(&format!("nsenter --net=/run/netns/{prefix}-balancer {} status --watch", program.display()));
    screen.line(&format!("the manifests, which may be edited: {}", stage.manifests().display()));
    while !stage.interrupt.wanted() {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// SIGINT to the process, and a look at what is left.
pub(super) fn clean_up(mut stage: Stage, screen: &Screen, findings: &mut Findings) -> anyhow::Result<()> {
    screen.heading("Ctrl-C to the process");
    let held = stage.process()?.programs()?;
    stage.process()?.signal(libc::SIGINT)?;
    let status = stage.process()?.wait(PATIENCE)?;
    let mut left = held.len();
    // The kernel frees a program some milliseconds after its last user.
    let gone = stage.wait_anyway(|| {
        left = programs().map_or(held.len(), |all| held.iter().filter(|id| all.contains_key(id)).count());
        left == 0
    });
    let after = tally(&stage.lab.client, Protocol::Tcp, Stage::gateway(Family::V4), 1).answered();
    findings.note(
        gone && status.is_some_and(|status| status.success()) && after == 0,
        format!("after Ctrl-C {left} of its {} programs are left in the kernel", held.len()),
    );
    Ok(())
}

/// Busy connections and new ones while something changes.
struct Load {
    busy: Busy,
    churn: Churn,
}

impl Load {
    fn start(stage: &Stage) -> anyhow::Result<Self> {
        let (client, to) = (&stage.lab.client, Stage::gateway(Family::V4));
        let busy = Busy::start(client, to, BUSY, PAUSE)?;
        Ok(Self { busy, churn: Churn::start(client, Protocol::Tcp, to, PAUSE) })
    }

    /// Who answered the last new connections: none yet, or enough of them to tell.
    fn last_new(&self) -> Vec<String> {
        const ENOUGH: usize = 20;
        let attempts = self.churn.now();
        if attempts.len() < ENOUGH {
            return vec!["backend-1".to_owned()];
        }
        let last = attempts[attempts.len() - ENOUGH..].iter();
        last.filter_map(|attempt| Some(attempt.result.as_ref().ok()?.backend.clone())).collect()
    }

    /// The busy ones, how many new ones there were, and how many of those failed.
    fn finish(self) -> (Vec<BusyConnection>, usize, usize) {
        let attempts = self.churn.finish();
        let failed = attempts.iter().filter(|attempt| attempt.result.is_err()).count();
        (self.busy.finish(), attempts.len(), failed)
    }
}

/// A name of a namespace, taken away when dropped.
struct Published(std::path::PathBuf);

impl Drop for Published {
    fn drop(&mut self) {
        if let Err(error) = Machine::unpublish(&self.0) {
            tracing::error!(error = error.to_string(), path = %Path::display(&self.0), "a name stays behind");
        }
    }
}

fn dial(
    stage: &Stage,
    screen: &Screen,
    what: &str,
    protocol: Protocol,
    to: SocketAddr,
) -> anyhow::Result<Tally> {
    let progress = screen.progress(what, CONNECTIONS);
    let mut all = Tally::default();
    while progress.position() < CONNECTIONS {
        stage.interrupt.check()?;
        all.add(tally(&stage.lab.client, protocol, to, PORTION as usize));
        progress.inc(PORTION);
    }
    progress.finish_and_clear();
    Ok(all)
}

fn chart(stage: &Stage, screen: &Screen, title: &str, tally: &Tally) {
    let bars: Vec<_> = stage
        .backends
        .iter()
        .map(|backend| Bar {
            name: backend.name(),
            count: tally.of(&backend.name()),
            wanted: stage.share(backend),
        })
        .collect();
    screen.chart(title, &bars);
    for (failure, count) in &tally.failures {
        screen.line(&format!("  {count} {failure}"));
    }
}

/// Whether each share lies within what that many independent choices may do.
fn follows_weights(stage: &Stage, tally: &Tally) -> bool {
    let all = tally.answered() as f64;
    stage.backends.iter().all(|backend| {
        let share = stage.share(backend);
        let seen = tally.of(&backend.name()) as f64;
        // Five standard deviations: wrong once in a million runs. A share of nothing must be nothing.
        (seen - share * all).abs() <= 5.0 * (all * share * (1.0 - share)).sqrt()
    })
}
