//! Measures beside each other, each a dot on its interval.

use super::agreement::in_words;
use super::page::escape;
use crate::agree::metrics::Estimate;
use std::fmt::Write;

const WIDTH: f64 = 580.0;
const LEFT: f64 = 186.0;
const RIGHT: f64 = 52.0;
const ROW: f64 = 26.0;
const BOTTOM: f64 = 26.0;

/// A row of the chart.
#[derive(Debug, Clone)]
pub struct Interval {
    pub name: String,
    pub estimate: Estimate,
    /// Drawn in the stronger colour.
    pub marked: bool,
}

/// A row for each measure. The text for those who don't see it says all numbers.
pub fn intervals(title: &str, rows: &[Interval], [low, high]: [f64; 2]) -> String {
    let height = ROW * rows.len() as f64 + BOTTOM;
    let said: Vec<String> =
        rows.iter().map(|r| format!("{}: {}", r.name, in_words(&r.estimate))).collect();
    let label = escape(&format!("{title} with 95 % intervals. {}", said.join("; ")));
    let mut svg = format!(
        "<svg class=\"chart intervals\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{label}\">"
    );
    let x = |value: f64| {
        let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    };
    ticks(&mut svg, [low, high], height - BOTTOM, x);
    for (i, row) in rows.iter().enumerate() {
        draw(&mut svg, row, ROW * (i as f64 + 0.5), x);
    }
    svg + "</svg>"
}

/// Five lines across the rows, with their values below.
fn ticks(svg: &mut String, [low, high]: [f64; 2], bottom: f64, x: impl Fn(f64) -> f64) {
    for i in 0..=4 {
        let value = low + (high - low) * f64::from(i) / 4.0;
        let (at, text) = (x(value), format!("{value}").replace('-', "−"));
        push(svg, format_args!("<path class=\"grid\" d=\"M{at:.1} 0V{bottom:.1}\"/>"));
        push(svg, format_args!("<text x=\"{at:.1}\" y=\"{:.1}\">{text}</text>", bottom + 17.0));
    }
}

fn draw(svg: &mut String, row: &Interval, y: f64, x: impl Fn(f64) -> f64) {
    let Interval { name, estimate, marked } = row;
    let Some(value) = estimate.value else { return };
    let class = if *marked { "here" } else { "other" };
    let name = escape(&shortened(name));
    let told = in_words(estimate);
    push(svg, format_args!("<g class=\"{class}\"><title>{name}: {told}</title>"));
    push(svg, format_args!("<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">", LEFT - 12.0, y + 4.0));
    push(svg, format_args!("{name}</text>"));
    if let (Some(low), Some(high)) = (estimate.low, estimate.high) {
        let (from, to) = (x(low), x(high));
        push(svg, format_args!("<path class=\"span\" d=\"M{from:.1} {y:.1}H{to:.1}\"/>"));
    }
    push(svg, format_args!("<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>", x(value)));
    let value = format!("{value:.3}").replace('-', "−");
    push(svg, format_args!("<text class=\"end value\" x=\"{WIDTH}\" y=\"{:.1}\">", y + 4.0));
    push(svg, format_args!("{value}</text></g>"));
}

/// What fits left of the rows; the whole name is in the title and the text.
fn shortened(name: &str) -> String {
    const MOST: usize = 22;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Writing to a string can't fail.
fn push(svg: &mut String, what: std::fmt::Arguments) {
    let _ = svg.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_said_and_drawn() {
        let row = |name: &str, value: f64| Interval {
            name: name.to_owned(),
            estimate: Estimate { value: Some(value), low: Some(value - 0.25), high: Some(1.0) },
            marked: name == "judge",
        };
        let svg = intervals("Accuracy", &[row("judge", 0.5), row("<others>", 0.75)], [0.0, 1.0]);
        let said = "Accuracy with 95 % intervals. judge: 0.500 (0.250 to 1.000); \
                    &lt;others&gt;: 0.750 (0.500 to 1.000)";
        assert!(svg.contains(said), "{svg}");
        // 0.5 lies half way between 186 and 528.
        assert!(svg.contains("cx=\"357.0\"") && svg.contains("M271.5 13.0H528.0"), "{svg}");
        assert_eq!((svg.matches("class=\"here\"").count(), svg.matches("<circle").count()), (1, 2));
        assert!(!svg.contains("<others>"));
    }
}
