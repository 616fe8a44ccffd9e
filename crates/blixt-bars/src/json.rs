//! Lines for programs.

use serde_json::{Value, json};

use crate::line::{Bar, Line};

/// An array with an object for each line: `line`, `unit`, `bar` (`at-most` or `at-least`), `stretch` (null where there is none), `measured` (the median), `rounds`, `held` and
/// `parts`.
pub fn json(lines: &[Line]) -> Value {
    let line = |line: &Line| {
        let (bound, bar) = match line.bar {
            Bar::AtMost(bar) => ("at-most", bar),
            Bar::AtLeast(bar) => ("at-least", bar),
        };
        let parts: Vec<Value> = line
            .parts
            .iter()
            .map(|part| json!({ "name": part.name, "unit": part.unit, "rounds": part.rounds }))
            .collect();
        json!({
            "line": line.what,
            "unit": line.unit,
            "bar": { bound: bar },
            "stretch": line.stretch,
            "measured": line.median(),
            "rounds": line.rounds,
            "held": line.is_held(),
            "parts": parts,
        })
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_of_each_line_whether_it_is_held() {
        let line = Line {
            what: "a",
            unit: "x",
            bar: Bar::AtLeast(0.95),
            stretch: None,
            rounds: vec![0.9],
            parts: vec![],
        };
        let json = json(&[line]);
        assert_eq!((&json[0]["held"], &json[0]["bar"]["at-least"]), (&json!(false), &json!(0.95)));
    }
}
