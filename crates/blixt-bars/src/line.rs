//! A line: what was measured in each round, and the bar that the median is held against.

/// One line.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    /// What is measured.
    pub what: &'static str,
    /// What its numbers are.
    pub unit: &'static str,
    /// Where the median must lie.
    pub bar: Bar,
    /// Where it would rather lie, on the same side of the bar; nothing fails by it.
    pub stretch: Option<f64>,
    /// One number for each round.
    pub rounds: Vec<f64>,
    /// What the numbers were made of, for the page: a name, a unit and the numbers of all rounds.
    pub parts: Vec<Part>,
}

/// Where a median must lie.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bar {
    /// Not above.
    AtMost(f64),
    /// Not below.
    AtLeast(f64),
}

/// What a line was made of.
#[derive(Clone, PartialEq, Debug)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// What its numbers are.
    pub unit: &'static str,
    /// One number for each round.
    pub rounds: Vec<f64>,
}

impl Line {
    /// The numbers of one part in those of another, round by round.
    pub fn ratio(what: &'static str, bar: Bar, of: Part, to: Part) -> Self {
        Self {
            what,
            unit: "x",
            bar,
            stretch: None,
            rounds: ratios(&of.rounds, &to.rounds),
            parts: vec![of, to],
        }
    }

    /// With a place where the median would rather lie.
    pub fn stretched(self, stretch: f64) -> Self {
        Self { stretch: Some(stretch), ..self }
    }

    /// With a bar that is wider by this share, for a short run.
    pub fn widened(self, share: f64) -> Self {
        let bar = match self.bar {
            Bar::AtMost(bar) => Bar::AtMost(bar * (1.0 + share)),
            Bar::AtLeast(bar) => Bar::AtLeast(bar / (1.0 + share)),
        };
        Self { bar, ..self }
    }

    /// The median of the rounds.
    pub fn median(&self) -> f64 {
        median(&self.rounds)
    }

    /// Whether the median holds the bar.
    pub fn is_held(&self) -> bool {
        match self.bar {
            Bar::AtMost(bar) => self.median() <= bar,
            Bar::AtLeast(bar) => self.median() >= bar,
        }
    }
}

impl Part {
    /// A part with these numbers.
    pub fn new(name: impl Into<String>, unit: &'static str, rounds: Vec<f64>) -> Self {
        Self { name: name.into(), unit, rounds }
    }
}

impl Bar {
    /// The number.
    pub const fn value(self) -> f64 {
        match self {
            Self::AtMost(bar) | Self::AtLeast(bar) => bar,
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A bar that was widened has more digits than anybody wants to read.
        let bar = (self.value() * 1000.0).round() / 1000.0;
        match self {
            Self::AtMost(_) => write!(f, "at most {bar}"),
            Self::AtLeast(_) => write!(f, "at least {bar}"),
        }
    }
}

/// The middle of some numbers; NaN, which holds no bar, if there is none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[upper],
        _ => (sorted[upper - 1] + sorted[upper]) / 2.0,
    }
}

/// The smallest number that at least this share of the numbers does not exceed; NaN if there is none.
pub fn quantile(numbers: &[f64], share: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// The ratios of two series, round by round.
pub fn ratios(numerators: &[f64], denominators: &[f64]) -> Vec<f64> {
    numerators.iter().zip(denominators).map(|(numerator, denominator)| numerator / denominator).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_99th_percentile_of_few_numbers_is_the_largest() {
        let numbers: Vec<f64> = (1..=50).map(f64::from).collect();
        assert_eq!(quantile(&numbers, 0.99), 50.0);
        assert_eq!(quantile(&numbers, 0.5), 25.0);
        assert_eq!(quantile(&numbers, 0.0), 1.0);
    }

    #[test]
    fn a_wider_bar_is_easier_to_hold_on_its_side() {
        for (bar, measured) in [(Bar::AtMost(2.0), 2.4), (Bar::AtLeast(2.0), 1.7)] {
            let line = Line { what: "", unit: "", bar, stretch: None, rounds: vec![measured], parts: vec![] };
            assert!(!line.is_held());
            assert!(line.widened(0.25).is_held());
        }
    }

    #[test]
    fn a_line_without_numbers_is_not_held() {
        let line = |bar, rounds: &[f64]| Line {
            what: "",
            unit: "",
            bar,
            stretch: None,
            rounds: rounds.to_vec(),
            parts: vec![],
        };
        assert!(line(Bar::AtMost(2.0), &[1.0, 2.0, 9.0]).is_held());
        assert!(!line(Bar::AtMost(2.0), &[1.0, 3.0, 9.0]).is_held());
        assert!(line(Bar::AtLeast(2.0), &[2.0]).is_held());
        assert!(!line(Bar::AtLeast(2.0), &[1.9]).is_held());
        assert!(!line(Bar::AtMost(2.0), &[]).is_held());
    }
}
