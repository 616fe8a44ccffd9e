//! What was looked at, and what was not as it must be.

use std::collections::BTreeMap;
use std::fmt;

/// So many faults are told in words.
const TOLD: usize = 40;

/// How often each invariant was looked at, and where it did not hold.
#[derive(Debug, Default)]
pub struct Findings {
    looks: BTreeMap<&'static str, Looks>,
    told: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    all: u64,
    broken: u64,
}

impl Findings {
    /// Looks once at what must hold; `words` says what was there instead.
    pub fn look(&mut self, invariant: &'static str, holds: bool, words: impl FnOnce() -> String) {
        let looks = self.looks.entry(invariant).or_default();
        looks.all += 1;
        if holds {
            return;
        }
        looks.broken += 1;
        if self.told.len() < TOLD {
            let words = format!("{invariant}: {}", words());
            eprintln!("{words}");
            self.told.push(words);
        }
    }

    /// Everything held, and something was looked at.
    pub fn hold(&self) -> bool {
        !self.looks.is_empty() && self.looks.values().all(|looks| looks.broken == 0)
    }

    /// How often one did not.
    pub fn broken(&self) -> u64 {
        self.looks.values().map(|looks| looks.broken).sum()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Invariant | Looked at | Broken |\n|---|---|---|")?;
        for (invariant, looks) in &self.looks {
            writeln!(f, "| {invariant} | {} | {} |", looks.all, looks.broken)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_looked_at_holds_nothing() {
        let mut findings = Findings::default();
        assert!(!findings.hold());
        findings.look("one", true, String::new);
        assert!(findings.hold());
        findings.look("one", false, || "two".to_owned());
        assert!(!findings.hold() && findings.broken() == 1);
        assert!(findings.to_string().contains("| one | 2 | 1 |"));
    }
}
