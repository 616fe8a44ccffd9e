//! The table of packet cases in the kernel, and the kernel beside the host for packets of any shape.

mod differential;
mod flood;
mod model;
pub mod program;
mod restart;
mod summed;

use blixt_cases::{Case, Hook, Step, cases};
use blixt_packet::Verdict;

use program::Programs;

#[test]
fn every_case_holds_in_tc() {
    check(Hook::Tc);
}

#[test]
fn every_case_holds_in_xdp() {
    check(Hook::Xdp);
}

#[test]
fn xdp_leaves_everything_to_tc_where_nothing_that_it_sends_back_arrives() {
    let mut cases: Vec<Case> = cases().into_iter().filter(|case| case.hooks.contains(&Hook::Tc)).collect();
    for case in &mut cases {
        case.tables.devices.values_mut().for_each(|device| device.xdp_sender = false);
    }
    Programs::run(Hook::Xdp, |programs| {
        let mut frames = 0;
        for case in &cases {
            programs.begin(&case.tables);
            for step in &case.steps {
                match step {
                    Step::Change(ops) => programs.apply(ops),
                    Step::Frame { given, verdict, .. } => {
                        let seen = programs.show(given);
                        let wanted = Programs::tc_action(*verdict);
                        assert_eq!((seen.action, seen.reason), (wanted, verdict.reason()), "{}", case.name);
                        frames += 1;
                    }
                    Step::Wait(seconds) => programs.wait(*seconds),
                }
            }
        }
        assert!(frames > 0);
    });
}

#[test]
fn the_sum_that_a_network_card_made_of_a_packet_stays_true() {
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.hooks.contains(&Hook::Tc)).collect();
    Programs::run(Hook::Tc, |programs| {
        let mut failures = Vec::new();
        for case in &cases {
            programs.begin(&case.tables);
            for (index, step) in case.steps.iter().enumerate() {
                match step {
                    // What is made of a packet, an answer or a RST, leaves: nobody looks at that sum again.
                    Step::Frame {
                        given,
                        verdict: Verdict::Answer(_) | Verdict::Reset(_) | Verdict::Drop(_),
                        ..
                    } => {
                        programs.show(given);
                    }
                    Step::Frame { given, .. } => {
                        if let Err(error) = programs.show_summed(given) {
                            failures.push(format!("{}, step {index}: {error}", case.name));
                        }
                    }
                    Step::Change(ops) => programs.apply(ops),
                    Step::Wait(seconds) => programs.wait(*seconds),
                }
            }
        }
        assert!(
            failures.is_empty(),
            "{} false sums (a kernel before Linux 6.16 cannot tell):\n{}",
            failures.len(),
            failures.join("\n")
        );
    });
}

fn check(hook: Hook) {
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.hooks.contains(&hook)).collect();
    Programs::run(hook, |programs| {
        let failures: Vec<String> = cases.iter().filter_map(|case| hold(programs, case).err()).collect();
        // What `cargo xtask vm-test` reads.
        let (name, held) = (if hook == Hook::Tc { "TC" } else { "XDP" }, cases.len() - failures.len());
        println!("packet table: {name}, {held} of {} cases hold", cases.len());
        assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    });
}

fn hold(programs: &mut Programs, case: &Case) -> Result<(), String> {
    programs.begin(&case.tables);
    for (index, step) in case.steps.iter().enumerate() {
        match step {
            Step::Change(ops) => programs.apply(ops),
            Step::Wait(seconds) => programs.wait(*seconds),
            Step::Frame { given, verdict, after } => {
                let seen = programs.show(given);
                let wanted = programs.action(given, *verdict);
                let is_wanted = seen.action == wanted
                    && seen.reason == verdict.reason()
                    && after.as_ref().is_none_or(|after| *after == seen.frame);
                if !is_wanted {
                    return Err(format!(
                        "{}, step {index}: action {} for {:?} instead of {wanted} for {verdict:?}\n  in   {:02x?}\n  out  {:02x?}\n  want {after:02x?}",
                        case.name, seen.action, seen.reason, given.frame, seen.frame
                    ));
                }
            }
        }
    }
    Ok(())
}
