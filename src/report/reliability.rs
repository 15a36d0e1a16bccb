//! The reliability diagram: how often verdicts of a confidence are right, and how many there are.

use serde::Deserialize;
use std::fmt::Write;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
/// Where the upper part ends.
const BASE: f64 = 250.0;
/// The lower part, with the counts.
const COUNTS: [f64; 2] = [272.0, 322.0];

/// Verdicts of similar confidence.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Bin {
    pub low: f64,
    pub high: f64,
    pub items: usize,
    pub confidence: Option<f64>,
    pub accuracy: Option<f64>,
}

fn x(share: f64) -> f64 {
    LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
}

fn y(share: f64) -> f64 {
    BASE - share.clamp(0.0, 1.0) * (BASE - TOP)
}

/// Bars of the share that is right, a dot at each bin's mean confidence, the diagonal on which a
/// calibrated judge lies; below it the number of verdicts in each bin.
pub fn reliability(bins: &[Bin]) -> String {
    let mut svg = format!(
        "<svg class=\"chart reliability\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{}\">",
        said(bins)
    );
    frame(&mut svg);
    let most = bins.iter().map(|bin| bin.items).max().unwrap_or(0).max(1) as f64;
    for bin in bins.iter().filter(|bin| bin.items > 0) {
        draw(&mut svg, bin, most);
    }
    let (left, right, low, high) = (x(0.0), x(1.0), y(0.0), y(1.0));
    push(
        &mut svg,
        format_args!("<path class=\"diagonal\" d=\"M{left:.1} {low:.1}L{right:.1} {high:.1}\"/>"),
    );
    for bin in bins {
        if let (Some(confidence), Some(accuracy)) = (bin.confidence, bin.accuracy) {
            let (x, y) = (x(confidence), y(accuracy));
            push(
                &mut svg,
                format_args!("<circle class=\"point\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"),
            );
        }
    }
    svg + "</svg>"
}

/// All numbers, in words.
fn said(bins: &[Bin]) -> String {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let mut text = "Share of verdicts that are right, by their confidence.".to_owned();
    for bin in bins.iter().filter(|bin| bin.items > 0) {
        let (confidence, accuracy) = (bin.confidence.unwrap_or(0.0), bin.accuracy.unwrap_or(0.0));
        let (confidence, accuracy) = (percent(confidence), percent(accuracy));
        let count = bin.items;
        push(&mut text, format_args!(" Confidence {confidence}: {accuracy} of {count} right."));
    }
    text
}

fn frame(svg: &mut String) {
    for i in 0..=4 {
        let share = f64::from(i) / 4.0;
        let (left, right, at, tick) = (x(0.0), x(1.0), y(share), x(share));
        let text = format!("{:.0} %", share * 100.0);
        push(svg, format_args!("<path class=\"grid\" d=\"M{left:.1} {at:.1}H{right:.1}\"/>"));
        push(
            svg,
            format_args!(
                "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
                left - 6.0,
                at + 4.0
            ),
        );
        let anchor = if i == 4 { " class=\"end\"" } else { "" };
        push(
            svg,
            format_args!("<text{anchor} x=\"{tick:.1}\" y=\"{:.1}\">{text}</text>", HEIGHT - 22.0),
        );
    }
    let (left, right, base) = (x(0.0), x(1.0), COUNTS[1]);
    push(
        svg,
        format_args!(
            "<path class=\"axis\" d=\"M{left:.1} {BASE}H{right:.1}M{left:.1} {base}H{right:.1}\"/>"
        ),
    );
    let middle = (left + right) / 2.0;
    push(
        svg,
        format_args!(
            "<text x=\"{middle:.1}\" y=\"{:.1}\">confidence, and verdicts of each</text>",
            HEIGHT - 5.0
        ),
    );
}

fn draw(svg: &mut String, bin: &Bin, most: f64) {
    let (left, right) = (x(bin.low) + 1.0, x(bin.high) - 1.0);
    let (width, middle) = ((right - left).max(1.0), (left + right) / 2.0);
    let accuracy = bin.accuracy.unwrap_or(0.0);
    let (top, height) = (y(accuracy), BASE - y(accuracy));
    let title = format!("{:.0} % of {} right", accuracy * 100.0, bin.items);
    push(
        svg,
        format_args!(
            "<rect class=\"bar soft\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{title}</title></rect>"
        ),
    );
    let tall = bin.items as f64 / most * (COUNTS[1] - COUNTS[0]);
    let top = COUNTS[1] - tall;
    push(
        svg,
        format_args!(
            "<rect class=\"bar\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{tall:.1}\"/>"
        ),
    );
    push(svg, format_args!("<text x=\"{middle:.1}\" y=\"{:.1}\">{}</text>", top - 4.0, bin.items));
}

/// Writing to a string can't fail.
fn push(svg: &mut String, what: std::fmt::Arguments) {
    let _ = svg.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_drawn_and_said() {
        let empty = Bin { low: 0.0, high: 0.5, ..Bin::default() };
        let (confidence, accuracy) = (Some(0.75), Some(0.5));
        let full = Bin { low: 0.5, high: 1.0, items: 8, confidence, accuracy };
        let svg = reliability(&[empty, full]);
        assert!(svg.contains("Confidence 75 %: 50 % of 8 right."), "{svg}");
        assert_eq!((svg.matches("<rect").count(), svg.matches("<circle").count()), (2, 1));
        // Three quarters between 44 and 448, half between 250 and 10.
        assert!(svg.contains("cx=\"347.0\" cy=\"130.0\""), "{svg}");
    }
}
