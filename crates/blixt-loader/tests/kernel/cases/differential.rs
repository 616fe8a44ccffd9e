//! The TC program beside the host's `forward`: the same frames, the same verdicts, the same bytes.

use std::thread;
use std::time::Duration;

use blixt_cases::host::{Clock, begin, show};
use blixt_cases::network::{BACKEND_SIDE, CLIENT_SIDE, SETTINGS, tables};
use blixt_cases::{Case, Hook, Place, Step, cases, given};
use blixt_core::tables::Way;
use blixt_packet::Verdict;
use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::program::Programs;

/// Frames that both are shown.
const FRAMES: usize = 20_000;
/// What a single run takes at least: the kernel refuses to make an skb of half an IP header.
const SHORTEST_V4: usize = 14 + 20;
/// See [`SHORTEST_V4`].
const SHORTEST_V6: usize = 14 + 40;

#[test]
fn damaged_frames_are_judged_alike_on_the_host_and_in_tc() {
    let frames = frames_of_cases();
    for (way, count) in [(Way::Nat, FRAMES / 2), (Way::Transparent, FRAMES / 4), (Way::Local, FRAMES / 4)] {
        Programs::run(Hook::Tc, |programs| compare(programs, &frames, way, count));
    }
}

/// Both begin anew, and remember what they saw: a damaged frame may begin a flow or belong to one.
fn compare(programs: &mut Programs, frames: &[(Place, Vec<u8>)], way: Way, count: usize) {
    let (tables, clock) = (tables(way), Clock::default());
    clock.0.set(second());
    let simulation = begin(&tables, &clock, SETTINGS);
    programs.begin(&tables);
    let mut runner = TestRunner::deterministic();
    let strategy = damaged(frames.to_vec());
    let mut judged = 0;
    for _ in 0..count {
        let (place, frame) = strategy.new_tree(&mut runner).unwrap().current();
        // A tag in the bytes is what TC never sees.
        if frame[12..14] == [0x81, 0] {
            continue;
        }
        let given = given(place, frame);
        // Flows grow old in the kernel, however slow the machine is.
        clock.0.set(second());
        let (verdict, bytes) = show(&simulation, &given);
        let seen = programs.show(&given);
        let told = format!(
            "{way:?} {place:?} {verdict:?}\n  in   {:02x?}\n  host {bytes:02x?}\n  tc   {:02x?}",
            given.frame, seen.frame
        );
        assert_eq!(seen.action, programs.action(&given, verdict), "{told}");
        assert_eq!(seen.reason, verdict.reason(), "{told}");
        if !matches!(verdict, Verdict::Drop(_)) {
            assert_eq!(seen.frame, bytes, "{told}");
        }
        judged += usize::from(verdict != Verdict::Pass);
    }
    assert!(judged > count / 10, "only {judged} of {count} frames were Blixt's");
}

/// The kernel's second, which has not ended once a frame was shown to both.
fn second() -> u32 {
    const ENOUGH: Duration = Duration::from_millis(50);
    loop {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap());
        let rest = Duration::from_secs(now.as_secs() + 1) - now;
        if rest > ENOUGH {
            return now.as_secs() as u32;
        }
        thread::sleep(rest);
    }
}

/// A frame of the table with some bytes changed and an end anywhere.
fn damaged(frames: Vec<(Place, Vec<u8>)>) -> impl Strategy<Value = (Place, Vec<u8>)> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let end = prop::option::weighted(0.1, any::<prop::sample::Index>());
    (prop::sample::select(frames), changes, end).prop_map(|((place, mut frame), changes, end)| {
        for (at, value) in changes {
            // Where the headers are.
            let at = at.index(frame.len().min(100));
            frame[at] = value;
        }
        if let Some(end) = end {
            let shortest = if frame[12..14] == [0x86, 0xdd] { SHORTEST_V6 } else { SHORTEST_V4 };
            frame.truncate(shortest.max(end.index(frame.len())));
        }
        (place, frame)
    })
}

fn frames_of_cases() -> Vec<(Place, Vec<u8>)> {
    let steps =
        cases().into_iter().filter(|case: &Case| case.hooks.contains(&Hook::Tc)).flat_map(|case| case.steps);
    let frames = steps.filter_map(|step| match step {
        Step::Frame { given, .. } => Some((given.place, given.frame)),
        Step::Change(_) | Step::Wait(_) => None,
    });
    let frames: Vec<_> = frames.collect();
    assert!(frames.iter().any(|(place, _)| *place == Place::Enters(BACKEND_SIDE)));
    assert!(frames.iter().any(|(place, _)| *place == Place::Leaves(CLIENT_SIDE)));
    frames
}
