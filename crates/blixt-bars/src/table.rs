//! Lines as tables in Markdown, for the terminal and for pages alike.

use std::fmt::Write;

use crate::line::{Line, Part, median};
use crate::misses::Misses;

/// The table: bar, measured, held.
pub fn table(lines: &[Line], misses: &Misses) -> String {
    let mut text = String::from("| | Bar | Measured (median) | Rounds | Held |\n|---|---|---|---|---|\n");
    for line in lines {
        let held = match misses.why(line) {
            _ if line.is_held() => "yes",
            Some(_) => "no, explained",
            None => "**no**",
        };
        let rounds = numbers(&line.rounds);
        let Line { what, unit, bar, .. } = line;
        let _ = writeln!(
            text,
            "| {what} | {bar} {unit} | {} {unit} | {rounds} | {held} |",
            number(line.median())
        );
    }
    text
}

/// What each line was made of.
pub fn parts(lines: &[Line]) -> String {
    lines.iter().map(|line| format!("{}\n{}\n", line.what, parts_of(line))).collect()
}

/// What one line was made of.
pub fn parts_of(line: &Line) -> String {
    let mut text = String::from("| | Median | Rounds |\n|---|---|---|\n");
    for Part { name, unit, rounds } in &line.parts {
        let _ = writeln!(text, "| {name} | {} {unit} | {} |", number(median(rounds)), numbers(rounds));
    }
    text
}

fn numbers(numbers: &[f64]) -> String {
    numbers.iter().map(|one| number(*one)).collect::<Vec<_>>().join(", ")
}

/// Three digits that count.
pub fn number(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}
