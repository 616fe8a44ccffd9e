//! Where programs are attached, which ones, and what is so when they cannot be.

use std::collections::BTreeSet;

use blixt_lab::programs;

use crate::world::{Hook, World};

on_both_hooks!(only_the_programs_of_the_hook_in_use_are_loaded);

fn only_the_programs_of_the_hook_in_use_are_loaded(hook: Hook) {
    let mut world = World::usual(hook);
    let held = world.process().programs().unwrap();
    let listed = programs().unwrap();
    let names: BTreeSet<&str> = held.iter().filter_map(|id| listed.get(id)).map(String::as_str).collect();
    let expected: &[&str] = match hook {
        Hook::Tc => &["blixt_ingress"],
        Hook::Xdp => &["blixt_ingress", "blixt_xdp"],
    };
    assert!(names.iter().eq(expected), "{names:?}");
}
