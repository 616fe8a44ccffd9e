//! What the demo writes: at a terminal with colours and moving bars, elsewhere as plain lines.

use std::io::{self, Write};
use std::time::Duration;

use console::{Term, style};
use indicatif::{ProgressBar, ProgressStyle};

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
}

/// One bar of a chart.
#[derive(Debug)]
pub(super) struct Bar {
    /// What it stands for.
    pub(super) name: String,
    /// How many of all there were.
    pub(super) count: u64,
    /// The share that there should be, 0 to 1.
    pub(super) wanted: f64,
}

/// Width of a bar that stands for everything.
const BAR: usize = 40;

impl Screen {
    pub(super) fn new() -> Self {
        Self { terminal: Term::stdout().is_term() }
    }

    /// Begins a step.
    pub(super) fn heading(&self, text: &str) {
        self.line("");
        self.write(&style(text).bold().to_string());
    }

    /// A line of text.
    pub(super) fn line(&self, text: &str) {
        self.write(&if text.is_empty() { String::new() } else { format!("  {text}") });
    }

    /// A file or the output of a command, as it is.
    pub(super) fn quote(&self, title: &str, text: &str) {
        self.line(&style(title).cyan().to_string());
        for line in text.trim_end().lines() {
            self.line(&format!("  {}", style(line).dim()));
        }
    }

    /// One result.
    pub(super) fn verdict(&self, good: bool, text: &str) {
        let mark = if good { style("ok  ").green() } else { style("FAIL").red().bold() };
        self.line(&format!("{mark} {text}"));
    }

    /// Bars beside what they should be.
    pub(super) fn chart(&self, title: &str, bars: &[Bar]) {
        let all: u64 = bars.iter().map(|bar| bar.count).sum();
        self.line(title);
        for bar in bars {
            let share = if all == 0 { 0.0 } else { bar.count as f64 / all as f64 };
            let full = (share * BAR as f64).round() as usize;
            let drawn = format!("{}{}", "█".repeat(full), "·".repeat(BAR - full.min(BAR)));
            self.line(&format!(
                "  {:<10} {} {:>5.1} %  (weight says {:>5.1} %)",
                bar.name,
                style(drawn).green(),
                share * 100.0,
                bar.wanted * 100.0
            ));
        }
    }

    /// A moving bar for something that takes long; nothing where nobody looks.
    pub(super) fn progress(&self, what: &str, steps: u64) -> ProgressBar {
        if !self.terminal {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(steps).with_message(what.to_owned());
        let looks = ProgressStyle::with_template("  {msg:<44} [{bar:30}] {pos}/{len}")
            .expect("the template is a constant that indicatif knows");
        bar.set_style(looks.progress_chars("█▌·"));
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    fn write(&self, line: &str) {
        // Whoever read our output has had enough of it; the demo still ends in order.
        let _ = writeln!(io::stdout(), "{line}");
    }
}
