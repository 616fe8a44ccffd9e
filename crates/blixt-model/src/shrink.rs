//! A story that fails, made as short as it can be.

use crate::story::{Script, Story};

/// Leaves out whatever can be left out: `fails` says whether a story still does.
pub fn shrunk(script: &Script, fails: &mut dyn FnMut(&Story) -> bool) -> Script {
    let mut script = script.clone();
    let mut chunk = script.steps.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        let mut was_shortened = false;
        while at < script.steps.len() {
            let mut shorter = script.clone();
            shorter.steps.drain(at..(at + chunk).min(shorter.steps.len()));
            if fails(&Story::of(&shorter)) {
                script = shorter;
                was_shortened = true;
            } else {
                at += chunk;
            }
        }
        // With single steps it goes on for as long as that helps.
        if chunk > 1 || !was_shortened {
            chunk /= 2;
        }
    }
    script
}
