//! Pictures in SVG, readable on light and dark ground.

use blixt_bars::{Bar, Line, median, number};

use std::fmt::Write;

const WIDTH: f64 = 820.0;
/// Where the scale begins and ends.
const LEFT: f64 = 20.0;
const RIGHT: f64 = 800.0;
/// Height of a line with its text.
const ROW: f64 = 46.0;
/// Grey that can be read on both grounds.
const INK: &str = "#7d8590";
const GOOD: &str = "#2da44e";
const BAD: &str = "#cf222e";

/// Each median as a share of its bar: what holds lies left of the mark for "at most", right of it for "at least".
pub fn bars(lines: &[Line]) -> String {
    let shares = lines.iter().map(|line| line.median() / line.bar.value());
    let most = shares.clone().fold(1.0, f64::max) * 1.05;
    let at = |share: f64| LEFT + (RIGHT - LEFT) * share / most;
    let mut body = String::new();
    for (row, (line, share)) in lines.iter().zip(shares).enumerate() {
        let top = ROW * row as f64 + 8.0;
        let colour = if line.is_held() { GOOD } else { BAD };
        text(&mut body, LEFT, top + 12.0, "start", line.what);
        let _ = writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" fill=\"{colour}\"/>",
            top + 18.0,
            (at(share) - LEFT).max(1.0)
        );
        let _ = writeln!(
            body,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{INK}\" stroke-width=\"2\"/>",
            top + 15.0,
            top + 33.0,
            x = at(1.0)
        );
        let label = format!("{} {} ({} {})", number(line.median()), line.unit, line.bar, line.unit);
        text(&mut body, RIGHT, top + 12.0, "end", &label);
    }
    document(ROW * lines.len() as f64 + 16.0, &body)
}

/// The rounds of one line as dots, with their median and the bar.
pub fn rounds(line: &Line) -> String {
    let all = line.rounds.iter().copied().chain([line.bar.value()]);
    let (least, most) = all.fold((f64::INFINITY, 0.0), |(least, most), one| (one.min(least), one.max(most)));
    let margin = ((most - least) * 0.1).max(most * 0.02);
    let at = |number: f64| LEFT + (RIGHT - LEFT) * (number - least + margin) / (most - least + 2.0 * margin);
    let mut body = String::new();
    let colour = if line.is_held() { GOOD } else { BAD };
    let _ = writeln!(body, "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"50\" y2=\"50\" stroke=\"{INK}\"/>");
    for round in &line.rounds {
        let _ = writeln!(
            body,
            "<circle cx=\"{:.1}\" cy=\"50\" r=\"5\" fill=\"{colour}\" fill-opacity=\"0.5\"/>",
            at(*round)
        );
    }
    let limit = match line.bar {
        Bar::AtMost(bar) => format!("bar: at most {bar}"),
        Bar::AtLeast(bar) => format!("bar: at least {bar}"),
    };
    let median = median(&line.rounds);
    for (place, height, label) in
        [(line.bar.value(), 24.0, limit), (median, 86.0, format!("median {} {}", number(median), line.unit))]
    {
        let _ = writeln!(
            body,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"36\" y2=\"64\" stroke=\"{INK}\" stroke-width=\"2\"/>",
            x = at(place)
        );
        let anchor = if at(place) > WIDTH / 2.0 { "end" } else { "start" };
        text(&mut body, at(place), height, anchor, &label);
    }
    document(100.0, &body)
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{INK}\">{text}</text>"
    );
}

fn document(height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_misses_its_bar_is_drawn_so() {
        let line = |rounds: &[f64]| Line {
            what: "a thing",
            unit: "x",
            bar: Bar::AtMost(2.0),
            stretch: None,
            rounds: rounds.to_vec(),
            parts: vec![],
        };
        let (held, missed) = (line(&[1.0, 1.5]), line(&[3.0, 4.0]));
        assert!(bars(std::slice::from_ref(&held)).contains(GOOD));
        let both = bars(&[held, missed.clone()]);
        assert!(both.contains(GOOD) && both.contains(BAD) && both.contains("3.50 x (at most 2 x)"), "{both}");
        assert_eq!(rounds(&missed).matches("<circle").count(), 2);
    }
}
