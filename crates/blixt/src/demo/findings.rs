//! What was seen, and whether it was as it should be.

use super::screen::Screen;

/// The lines of the summary.
#[derive(Debug, Default)]
pub(super) struct Findings {
    lines: Vec<Finding>,
}

#[derive(Debug)]
struct Finding {
    good: bool,
    text: String,
}

impl Findings {
    /// Notes something seen, with its numbers.
    pub(super) fn note(&mut self, good: bool, text: impl Into<String>) {
        self.lines.push(Finding { good, text: text.into() });
    }

    /// Whether all was as it should be, and something was seen at all.
    pub(super) fn all_good(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|line| line.good)
    }

    pub(super) fn print(&self, screen: &Screen) {
        for line in &self.lines {
            screen.verdict(line.good, &line.text);
        }
        let good = self.lines.iter().filter(|line| line.good).count();
        screen.line(&format!("{good} of {} as they should be", self.lines.len()));
    }
}
