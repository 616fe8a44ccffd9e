//! Lines as tables in Markdown, for the terminal and for pages alike.

use std::fmt::Write;

use crate::line::{Line, Part, median};
use crate::misses::Misses;

/// The table: bar, stretch where any line has one, measured, held.
pub fn table(lines: &[Line], misses: &Misses) -> String {
    let is_stretched = lines.iter().any(|line| line.stretch.is_some());
    let [head, rule] = if is_stretched { [" Stretch |", "---|"] } else { [""; 2] };
    let mut text =
        format!("| | Bar |{head} Measured (median) | Rounds | Held |\n|---|---|{rule}---|---|---|\n");
    for line in lines {
        let held = match misses.why(line) {
            _ if line.is_held() => "yes",
            Some(_) => "no, explained",
            None => "**no**",
        };
        let rounds = numbers(&line.rounds);
        let Line { what, unit, bar, .. } = line;
        let stretch = match line.stretch {
            Some(stretch) => format!(" {stretch} {unit} |"),
            None if is_stretched => " |".to_owned(),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "| {what} | {bar} {unit} |{stretch} {} {unit} | {rounds} | {held} |",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Bar;

    #[test]
    fn a_stretch_has_a_column_where_any_line_has_one() {
        let line = |what| Line::ratio(what, Bar::AtMost(2.0), part("of", 3.0), part("to", 2.0));
        let text = table(&[line("a").stretched(1.4), line("b")], &Misses::default());
        assert!(text.contains("| Bar | Stretch | Measured"), "{text}");
        assert!(text.contains("| a | at most 2 x | 1.4 x | 1.50 x | 1.50 | yes |"), "{text}");
        assert!(text.contains("| b | at most 2 x | | 1.50 x | 1.50 | yes |"), "{text}");
        let text = table(&[line("b")], &Misses::default());
        assert!(text.contains("| b | at most 2 x | 1.50 x | 1.50 | yes |"), "{text}");
    }

    fn part(name: &str, number: f64) -> Part {
        Part::new(name, "ns", vec![number])
    }
}
