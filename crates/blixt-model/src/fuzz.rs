//! Story after story, until one goes another way than the model.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::author::Author;
use crate::corpus::corpus;
use crate::decode::annotated;
use crate::shrink::shrunk;
use crate::story::{Script, Story, Target};

/// How much is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of the first story; each next one has the next number.
    pub seed: u64,
    /// Frames to judge.
    pub cases: u64,
    /// No story is begun after so long.
    pub time: Duration,
    /// Says how far it is, on stderr.
    pub tells: bool,
}

/// Between two lines that say how far it is.
const TELLS_EVERY: Duration = Duration::from_secs(5);
/// What fuzzing may take in a test.
const TEST: Duration = Duration::from_secs(25);
/// How often a story that failed is played again: one that then goes well had the seconds of another clock in it.
const AGAIN: usize = 3;

impl Plan {
    /// What the environment says (`cargo xtask fuzz` sets it), else so many cases, or as many as a busy machine judges in the time of a
    /// test.
    pub fn from_environment(cases: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let asked = number("BLIXT_FUZZ_CASES");
        Self {
            seed: number("BLIXT_FUZZ_SEED").unwrap_or(1),
            cases: asked.unwrap_or(cases),
            time: match (number("BLIXT_FUZZ_SECONDS"), asked) {
                (Some(seconds), _) => Duration::from_secs(seconds),
                (None, Some(_)) => Duration::MAX,
                (None, None) => TEST,
            },
            tells: asked.is_some(),
        }
    }
}

/// Fuzzes a target: how many frames it judged as the model did, or what it did not.
pub fn fuzz(target: &mut dyn Target, plan: &Plan) -> Result<u64, String> {
    let start = Instant::now();
    let (mut cases, mut told) = (0, start);
    let mut seed = plan.seed;
    while cases < plan.cases && start.elapsed() < plan.time {
        let story = Author::new(seed, target).write();
        if fails(target, &story) {
            return Err(report(target, seed, &story));
        }
        cases += story.frames() as u64;
        seed = seed.wrapping_add(1);
        if plan.tells && told.elapsed() > TELLS_EVERY {
            told = Instant::now();
            tell(target, cases, start);
        }
    }
    if plan.tells {
        tell(target, cases, start);
    }
    Ok(cases)
}

/// Plays one script; an error is what a divergence looks like.
pub fn replay(target: &mut dyn Target, script: &Script) -> Result<(), String> {
    let story = Story::of(script);
    match play(target, &story) {
        Err(_) if fails(target, &story) => Err(report(target, 0, &story)),
        _ => Ok(()),
    }
}

/// Plays every story of the corpus that a target can see: how many, or what the first one that fails looks like.
pub fn replay_corpus(target: &mut dyn Target) -> Result<usize, String> {
    let mut played = 0;
    for (name, script) in corpus() {
        if target.can_see(&script) {
            replay(target, &script).map_err(|error| format!("corpus/{name}.story: {error}"))?;
            played += 1;
        }
    }
    Ok(played)
}

fn tell(target: &dyn Target, cases: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let rate = cases as f64 / seconds / 1000.0;
    eprintln!("{}: {cases} cases in {seconds:.0} s, {rate:.0} thousand a second", target.name());
}

fn fails(target: &mut dyn Target, story: &Story) -> bool {
    (0..AGAIN).all(|_| play(target, story).is_err())
}

/// A panic of the target is a way that the model never goes.
fn play(target: &mut dyn Target, story: &Story) -> Result<(), String> {
    let played = catch_unwind(AssertUnwindSafe(|| target.play(story)));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
    })
}

fn report(target: &mut dyn Target, seed: u64, story: &Story) -> String {
    let script = shrunk(&story.script, &mut |story| story.is_decided(target.sight()) && fails(target, story));
    let error = play(target, &Story::of(&script)).err().unwrap_or_default();
    let name = target.name();
    format!(
        "{name} leaves the model's way in the story of seed {seed}; {} of its {} steps are enough:\n{}\n{error}\n\
         again: cargo xtask fuzz --only {name} --seed {seed} --cases 1",
        script.steps.len(),
        story.script.steps.len(),
        annotated(&script)
    )
}
