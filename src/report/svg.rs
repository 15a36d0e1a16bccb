//! Charts as SVG text: bars and bubbles. Colours are classes, which the style sheet fills in for
//! light and dark; every chart has a text for those who don't see it.
//!
//! All texts here are the program's own or numbers, except `label`s, which are escaped.

use super::page::escape;
use super::stats::Bins;
use std::fmt::Write;

const LEFT: f64 = 34.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;

/// Where values stand on an axis.
#[derive(Debug, Clone, Copy)]
pub struct Axis<'a> {
    pub name: &'a str,
    pub bins: Bins,
    /// Values that are written beside it.
    pub ticks: &'a [f64],
}

impl Axis<'_> {
    fn end(&self) -> f64 {
        self.bins.start(self.bins.count)
    }

    /// 0 to 1.
    fn share(&self, value: f64) -> f64 {
        (value - self.bins.low) / (self.end() - self.bins.low)
    }

    fn centre(&self, bin: usize) -> f64 {
        self.share(self.bins.start(bin) + self.bins.width / 2.0)
    }
}

/// The plane that a chart is drawn in: y grows upwards, both axes go from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub struct Plane {
    width: f64,
    height: f64,
}

impl Plane {
    /// One of several beside each other.
    pub const SMALL: Self = Self { width: 360.0, height: 170.0 };
    /// A cell of a matrix.
    pub const CELL: Self = Self { width: 240.0, height: 210.0 };
    /// One that stands beside a table.
    pub const WIDE: Self = Self { width: 480.0, height: 240.0 };

    fn x(&self, share: f64) -> f64 {
        LEFT + share * (self.width - LEFT - RIGHT)
    }

    fn y(&self, share: f64) -> f64 {
        self.height - BOTTOM - share * (self.height - TOP - BOTTOM)
    }

    fn open(&self, label: &str) -> String {
        let Self { width, height } = self;
        let label = escape(label);
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{label}\">"
        )
    }

    fn ticks_x(&self, axis: &Axis, svg: &mut String) {
        let y = self.y(0.0);
        let (left, right) = (self.x(0.0), self.x(1.0));
        push(svg, format_args!("<path class=\"axis\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>"));
        for &tick in axis.ticks {
            let x = self.x(axis.share(tick));
            let text = number(tick);
            push(svg, format_args!("<text x=\"{x:.1}\" y=\"{:.1}\" class=\"tick\">", y + 15.0));
            push(svg, format_args!("{text}</text>"));
        }
    }

    fn ticks_y(&self, ticks: &[(f64, String)], svg: &mut String) {
        for (share, text) in ticks {
            let (left, right, y) = (self.x(0.0), self.x(1.0), self.y(*share));
            push(svg, format_args!("<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>"));
            push(svg, format_args!("<text x=\"{:.1}\" y=\"{:.1}\"", left - 6.0, y + 4.0));
            push(svg, format_args!(" class=\"tick end\">{text}</text>"));
        }
    }
}

/// Writing to a string can't fail.
fn push(svg: &mut String, what: std::fmt::Arguments) {
    let _ = svg.write_fmt(what);
}

/// A number without needless digits.
pub fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Bars of how many values fall in each bin.
pub fn histogram(plane: Plane, label: &str, axis: Axis, counts: &[usize]) -> String {
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let mut svg = plane.open(label);
    plane.ticks_y(&count_ticks(most), &mut svg);
    let step = (plane.x(1.0) - plane.x(0.0)) / axis.bins.count as f64;
    for (bin, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let x = plane.x(axis.share(axis.bins.start(bin))) + 1.0;
        let y = plane.y(count as f64 / most as f64);
        let (width, height) = (step - 2.0, plane.y(0.0) - y);
        push(&mut svg, format_args!("<rect class=\"bar\" x=\"{x:.1}\" y=\"{y:.1}\""));
        push(&mut svg, format_args!(" width=\"{width:.1}\" height=\"{height:.1}\">"));
        push(&mut svg, format_args!("<title>{}: {count}</title></rect>", bin_name(axis.bins, bin)));
    }
    plane.ticks_x(&axis, &mut svg);
    svg + "</svg>"
}

/// The largest count, and half of it where that is a whole number.
fn count_ticks(most: usize) -> Vec<(f64, String)> {
    let half = most.is_multiple_of(2).then(|| (0.5, (most / 2).to_string()));
    half.into_iter().chain([(1.0, most.to_string())]).collect()
}

/// What a bin holds: `7` around whole numbers, else `6 to 8`.
pub fn bin_name(bins: Bins, bin: usize) -> String {
    let (start, end) = (bins.start(bin), bins.start(bin + 1));
    let middle = (start + end) / 2.0;
    match bins.width == 1.0 && middle.fract() == 0.0 {
        true => number(middle),
        false => format!("{} to {}", number(start), number(end)),
    }
}

/// A circle for each cell of a grid, as large as it has points. Ten thousand points are drawn as
/// fast as ten, and ratings, which are mostly whole numbers, don't hide each other.
pub fn bubbles(
    plane: Plane,
    label: &str,
    [across, up]: [Axis; 2],
    cells: &[(usize, usize, usize)],
) -> String {
    let most = cells.iter().map(|cell| cell.2).max().unwrap_or(1) as f64;
    let room = |axis: &Axis, from: f64, to: f64| (to - from).abs() / axis.bins.count as f64;
    let largest = room(&across, plane.x(0.0), plane.x(1.0))
        .min(room(&up, plane.y(0.0), plane.y(1.0)))
        .max(6.0)
        * 0.55;
    let mut svg = plane.open(label);
    let ticks: Vec<_> = up.ticks.iter().map(|&tick| (up.share(tick), number(tick))).collect();
    plane.ticks_y(&ticks, &mut svg);
    for &(i, j, count) in cells {
        let (x, y) = (plane.x(across.centre(i)), plane.y(up.centre(j)));
        let radius = (largest * (count as f64 / most).sqrt()).max(2.0);
        push(&mut svg, format_args!("<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\""));
        push(&mut svg, format_args!(" r=\"{radius:.1}\"><title>{} ", across.name));
        push(&mut svg, format_args!("{}, {} ", bin_name(across.bins, i), up.name));
        push(&mut svg, format_args!("{}: {count}</title></circle>", bin_name(up.bins, j)));
    }
    plane.ticks_x(&across, &mut svg);
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATINGS: Bins = Bins { low: -0.5, width: 1.0, count: 11 };

    fn axis(bins: Bins) -> Axis<'static> {
        Axis { name: "Total", bins, ticks: &[0.0, 10.0] }
    }

    #[test]
    fn bars_are_as_high_as_their_counts() {
        let mut counts = [0; 11];
        (counts[3], counts[7]) = (2, 4);
        let svg = histogram(Plane::SMALL, "a \"label\" <", axis(RATINGS), &counts);
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("height=\"66.0\"><title>3: 2</title>"), "{svg}");
        assert!(svg.contains("height=\"132.0\"><title>7: 4</title>"), "{svg}");
        assert!(svg.contains("aria-label=\"a &quot;label&quot; &lt;\""), "{svg}");
    }

    #[test]
    fn nothing_is_drawn_as_nothing() {
        assert!(!histogram(Plane::SMALL, "", axis(RATINGS), &[0; 11]).contains("<rect"));
        assert!(!bubbles(Plane::CELL, "", [axis(RATINGS); 2], &[]).contains("<circle"));
    }

    #[test]
    fn bubbles_grow_with_the_square_root() {
        let svg = bubbles(Plane::CELL, "", [axis(RATINGS); 2], &[(0, 0, 9), (5, 5, 4)]);
        let radius = |at: usize| -> f64 {
            let rest = svg.split(" r=\"").nth(at).unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        assert!((radius(1) / radius(2) - 1.5).abs() < 0.05, "{svg}");
    }

    #[test]
    fn bins_are_named_by_what_they_hold() {
        assert_eq!(bin_name(RATINGS, 7), "7");
        assert_eq!(bin_name(Bins { low: 0.0, width: 2.0, count: 20 }, 3), "6 to 8");
        assert_eq!(bin_name(Bins { low: 0.0, width: 0.5, count: 20 }, 3), "1.5 to 2");
    }
}
