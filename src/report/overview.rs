//! The numbers and charts of the first view, ready for the template.

use super::candidate::{Candidate, Degree, SCORES, TOTAL};
use super::load::Input;
use super::notes::notes;
use super::pairs::best_and_worst;
use super::replies::{Cost, Replies, Stage, cost, stages};
use super::stats::{Bins, deviation, grid, mean, median, pearson};
use super::svg::{Axis, Plane, bin_name, bubbles, histogram};
use crate::judge;
use serde::Serialize;
use std::cmp::Ordering;

/// Ratings, counted around whole numbers.
const RATINGS: Bins = Bins { low: -0.5, width: 1.0, count: 11 };
const TOTALS: Bins = Bins { low: 0.0, width: 2.0, count: 20 };
const RATING_TICKS: [f64; 6] = [0.0, 2.0, 4.0, 6.0, 8.0, 10.0];
const TOTAL_TICKS: [f64; 5] = [0.0, 10.0, 20.0, 30.0, 40.0];

/// All numbers are texts as they are shown.
#[derive(Debug, Serialize)]
pub struct Overview {
    pub facts: Vec<Fact>,
    pub dimensions: Vec<Dimension>,
    pub bins: Vec<BinRow>,
    pub matrix: Vec<MatrixRow>,
    pub length: Length,
    pub support: Vec<Share>,
    pub without_statements: usize,
    pub margins: Margins,
    /// What is not as in the published method, in sentences.
    pub notes: Vec<String>,
    pub replies: Vec<Replies>,
    pub cost: Cost,
}

/// One of the numbers at the top.
#[derive(Debug, Serialize)]
pub struct Fact {
    pub name: &'static str,
    pub value: String,
    pub note: String,
}

#[derive(Debug, Serialize)]
pub struct Dimension {
    pub name: &'static str,
    pub mean: String,
    pub deviation: String,
    pub median: String,
    /// Mean of the expected values.
    pub expected: String,
    pub chart: String,
}

/// The numbers behind the histograms: a rating, and how often each dimension has it.
#[derive(Debug, Serialize)]
pub struct BinRow {
    pub name: String,
    pub counts: Vec<usize>,
}

/// A row of the matrix of dimension against dimension.
#[derive(Debug, Serialize)]
pub struct MatrixRow {
    pub name: &'static str,
    pub cells: Vec<MatrixCell>,
}

#[derive(Debug, Serialize)]
pub struct MatrixCell {
    /// A chart on and below the diagonal, a correlation above it.
    pub chart: Option<String>,
    pub r: Option<String>,
    /// Tenths of the correlation's size, for its shade.
    pub strength: usize,
}

#[derive(Debug, Serialize)]
pub struct Length {
    pub chart: String,
    pub median: usize,
    /// Correlation of the length with each score.
    pub correlations: Vec<(&'static str, String)>,
}

#[derive(Debug, Serialize)]
pub struct Share {
    pub name: &'static str,
    pub class: &'static str,
    pub count: usize,
    pub percent: String,
}

#[derive(Debug, Serialize)]
pub struct Margins {
    pub from_file: bool,
    pub pairs: usize,
    pub chart: String,
    pub mean: String,
    pub median: String,
    pub longer: String,
    pub lengths: String,
    /// Mean margin in each dimension.
    pub by_dimension: Vec<(&'static str, String)>,
}

/// Names as they are shown, in the order of [`SCORES`].
const NAMES: [&str; 5] = ["Helpfulness", "Logicality", "Faithfulness", "Completeness", "Total"];

/// Counts everything.
pub fn overview(input: &Input) -> Overview {
    let candidates: Vec<&Candidate> = input.candidates().collect();
    let columns: Columns = (0..SCORES.len())
        .map(|i| candidates.iter().map(|candidate| candidate.scores[i]).collect())
        .collect();
    let stages = stages(&candidates);
    let margins = margins(input);
    Overview {
        facts: facts(input, &candidates, &columns, &margins, &stages),
        dimensions: (0..SCORES.len()).map(|i| dimension(i, &candidates, &columns[i])).collect(),
        bins: bin_rows(&columns),
        matrix: matrix(&columns[..TOTAL]),
        length: length(&candidates, &columns),
        support: support(&candidates),
        without_statements: without_statements(&candidates),
        margins,
        notes: notes(&candidates),
        cost: cost(&candidates, &stages, input.cost),
        replies: stages.iter().map(Stage::row).collect(),
    }
}

/// One column for each score, with a place for each candidate.
type Columns = Vec<Vec<Option<f64>>>;

/// The values that are there.
fn there(column: &[Option<f64>]) -> Vec<f64> {
    column.iter().copied().flatten().collect()
}

/// The candidates that have both.
fn both(x: &[Option<f64>], y: &[Option<f64>]) -> [Vec<f64>; 2] {
    let pairs = x.iter().zip(y).filter_map(|(x, y)| Some(((*x)?, (*y)?)));
    let (x, y) = pairs.unzip();
    [x, y]
}

fn shown(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.2}"))
}

/// With a true minus sign.
fn signed(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:+.2}").replace('-', "−"))
}

pub(super) fn percent(part: usize, whole: usize) -> String {
    match whole {
        0 => "–".to_owned(),
        _ => format!("{:.1} %", part as f64 / whole as f64 * 100.0),
    }
}

fn facts(
    input: &Input,
    candidates: &[&Candidate],
    columns: &Columns,
    margins: &Margins,
    stages: &[Stage],
) -> Vec<Fact> {
    let fact = |name, value: String, note: String| Fact { name, value, note };
    let prompts = input.prompts.len();
    let forced = candidates.iter().filter(|candidate| candidate.forced).count();
    let whole = Stage::sum(stages);
    let totals = there(&columns[TOTAL]);
    vec![
        fact(
            "Candidates",
            candidates.len().to_string(),
            format!("of {prompts} prompts; the data has {}", input.prompts_in_data),
        ),
        fact(
            "Mean total",
            shown(mean(&totals)),
            format!("of 40, standard deviation {}", shown(deviation(&totals))),
        ),
        fact(
            if margins.from_file { "Pairs" } else { "Best against worst" },
            margins.pairs.to_string(),
            format!("mean margin {} of 40", margins.mean),
        ),
        fact(
            "Forced",
            percent(forced, candidates.len()),
            format!("{forced} of {} candidates have a forced verdict", candidates.len()),
        ),
        fact(
            "Read at once",
            percent(whole.first, whole.verdicts),
            format!("{} of {} verdicts from the first reply", whole.first, whole.verdicts),
        ),
    ]
}

fn axis(dimension: usize) -> Axis<'static> {
    match dimension {
        4 => Axis { name: NAMES[4], bins: TOTALS, ticks: &TOTAL_TICKS },
        _ => Axis { name: NAMES[dimension], bins: RATINGS, ticks: &RATING_TICKS },
    }
}

fn dimension(i: usize, candidates: &[&Candidate], column: &[Option<f64>]) -> Dimension {
    let axis = axis(i);
    let values = there(column);
    let counts = axis.bins.histogram(&values);
    let judged = candidates.iter().filter(|candidate| candidate.scores[i].is_some());
    let expected: Option<Vec<f64>> = judged.map(|c| expected(c, i)).collect();
    let (mean_text, median_text) = (shown(mean(&values)), shown(median(&values)));
    let label = format!("{}: mean {mean_text}, median {median_text}", axis.name);
    Dimension {
        name: axis.name,
        mean: mean_text,
        median: median_text,
        deviation: shown(deviation(&values)),
        expected: shown(expected.and_then(|values| mean(&values))),
        chart: histogram(Plane::SMALL, &label, axis, &counts),
    }
}

/// The expected value of a score under the judge's own probabilities.
fn expected(candidate: &Candidate, dimension: usize) -> Option<f64> {
    let verdicts = &candidate.verdicts;
    match judge::Dimension::ALL.get(dimension) {
        None => (0..TOTAL).map(|i| expected(candidate, i)).sum(),
        Some(judge::Dimension::Faithfulness) => verdicts.faithfulness.as_ref()?.expected,
        Some(rated) => verdicts.rated(*rated)?.expected,
    }
}

fn bin_rows(columns: &Columns) -> Vec<BinRow> {
    let counts: Vec<Vec<usize>> =
        columns[..TOTAL].iter().map(|column| RATINGS.histogram(&there(column))).collect();
    let row = |bin: usize| BinRow {
        name: bin_name(RATINGS, bin),
        counts: counts.iter().map(|counts| counts[bin]).collect(),
    };
    (0..RATINGS.count).map(row).collect()
}

fn matrix(columns: &[Vec<Option<f64>>]) -> Vec<MatrixRow> {
    let cell = |row: usize, column: usize| {
        let [across, up] = both(&columns[column], &columns[row]);
        let r = pearson(&across, &up);
        let text = signed(r);
        let strength = r.map_or(0, |r| (r.abs() * 10.0).round() as usize);
        let (x, y) = (axis(column), axis(row));
        let chart = match row.cmp(&column) {
            Ordering::Less => None,
            Ordering::Equal => {
                let counts = x.bins.histogram(&across);
                Some(histogram(Plane::CELL, &format!("{} alone", x.name), x, &counts))
            }
            Ordering::Greater => {
                let cells = grid(&across, &up, x.bins, y.bins);
                let label = format!("{} across, {} up: correlation {text}", x.name, y.name);
                Some(bubbles(Plane::CELL, &label, [x, y], &cells))
            }
        };
        MatrixCell { chart, r: (row < column).then_some(text), strength }
    };
    let row = |row: usize| MatrixRow {
        name: NAMES[row],
        cells: (0..columns.len()).map(|column| cell(row, column)).collect(),
    };
    (0..columns.len()).map(row).collect()
}

fn length(candidates: &[&Candidate], columns: &Columns) -> Length {
    let lengths: Vec<f64> = candidates.iter().map(|candidate| candidate.chars() as f64).collect();
    let longest = lengths.iter().copied().fold(1.0, f64::max);
    let step = tidy(longest / 5.0);
    let bins = 60;
    let end = (longest / step).ceil() * step;
    let width = end / bins as f64;
    let ticks: Vec<f64> = (0..=(end / step) as usize).map(|tick| tick as f64 * step).collect();
    let x = Axis { name: "characters", bins: Bins { low: 0.0, width, count: bins }, ticks: &ticks };
    let y = Axis { bins: Bins { low: 0.0, width: 1.0, count: 40 }, ..axis(4) };
    let against = |column: &[Option<f64>]| {
        let lengths: Vec<Option<f64>> = lengths.iter().copied().map(Some).collect();
        both(&lengths, column)
    };
    let [across, up] = against(&columns[TOTAL]);
    let label =
        format!("Characters across, total up: correlation {}", signed(pearson(&across, &up)));
    let cells = grid(&across, &up, x.bins, y.bins);
    let correlation = |(name, column): (&&'static str, &Vec<Option<f64>>)| {
        let [lengths, scores] = against(column);
        (*name, signed(pearson(&lengths, &scores)))
    };
    Length {
        chart: bubbles(Plane::WIDE, &label, [x, y], &cells),
        median: median(&lengths).unwrap_or(0.0) as usize,
        correlations: NAMES.iter().zip(columns).map(correlation).collect(),
    }
}

/// The next 1, 2 or 5 with zeros.
fn tidy(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor()).max(1.0);
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= value);
    digit.unwrap_or(10.0) * power
}

fn support(candidates: &[&Candidate]) -> Vec<Share> {
    let degrees = [
        ("Fully supported", "full", Degree::Full),
        ("Partially supported", "partial", Degree::Partial),
        ("Not supported", "none", Degree::None),
    ];
    let all: usize = candidates.iter().map(|candidate| candidate.verdicts.statements.len()).sum();
    let share = |(name, class, degree): (&'static str, &'static str, Degree)| {
        let count = candidates.iter().map(|candidate| candidate.supported(degree)).sum();
        Share { name, class, count, percent: percent(count, all) }
    };
    degrees.map(share).into()
}

fn without_statements(candidates: &[&Candidate]) -> usize {
    let states_none = |c: &&&Candidate| {
        c.verdicts.faithfulness.as_ref().is_some_and(|listing| listing.no_statements)
    };
    candidates.iter().filter(states_none).count()
}

fn margins(input: &Input) -> Margins {
    let pairs = match &input.pairs {
        Some(pairs) => pairs.clone(),
        None => best_and_worst(&input.prompts),
    };
    let margins: Vec<[Option<f64>; 5]> =
        pairs.iter().map(|pair| pair.margins(&input.prompts)).collect();
    let column = |i: usize| margins.iter().filter_map(|margin| margin[i]).collect::<Vec<f64>>();
    let totals = column(TOTAL);
    let lengths: Vec<[usize; 2]> = pairs.iter().map(|p| p.lengths(&input.prompts)).collect();
    let longer = lengths.iter().filter(|[win, lose]| win > lose).count();
    let side = |i: usize| mean(&lengths.iter().map(|both| both[i] as f64).collect::<Vec<_>>());
    let chars = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.0}"));
    let axis = Axis { name: "margin", ..axis(4) };
    let (mean_text, median_text) = (shown(mean(&totals)), shown(median(&totals)));
    let label = format!("Margins: mean {mean_text}, median {median_text}");
    Margins {
        from_file: input.pairs.is_some(),
        pairs: pairs.len(),
        chart: histogram(Plane::WIDE, &label, axis, &axis.bins.histogram(&totals)),
        mean: mean_text,
        median: median_text,
        longer: format!("{} ({longer} of {})", percent(longer, pairs.len()), pairs.len()),
        lengths: format!("{} and {}", chars(side(0)), chars(side(1))),
        by_dimension: (0..4).map(|i| (NAMES[i], signed(mean(&column(i))))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::load::Prompt;
    use crate::report::testing::candidate;

    fn input(totals: &[f64]) -> Input {
        let candidates = totals.iter().enumerate().map(|(k, &total)| candidate(1, k as u64, total));
        let prompt = Prompt { idx: 1, candidates: candidates.collect(), ..Prompt::default() };
        let (settings, problems) = (Vec::new(), Vec::new());
        let (pairs, cost) = (None, None);
        Input { prompts: vec![prompt], prompts_in_data: 3, pairs, settings, cost, problems }
    }

    #[test]
    fn the_first_numbers_are_right() {
        let overview = overview(&input(&[8.0, 12.0, 40.0]));
        let facts: Vec<_> = overview.facts.iter().map(|f| (f.name, f.value.as_str())).collect();
        assert_eq!(
            facts,
            [
                ("Candidates", "3"),
                ("Mean total", "20.00"),
                ("Best against worst", "1"),
                ("Forced", "0.0 %"),
                ("Read at once", "100.0 %"),
            ]
        );
        assert_eq!(overview.dimensions[0].mean, "5.00");
        assert_eq!(overview.bins[3].counts, [1; 4]);
        assert_eq!(overview.margins.mean, "32.00");
        assert_eq!(overview.margins.by_dimension[2].1, "+8.00");
        assert_eq!(overview.matrix[0].cells[1].r.as_deref(), Some("+1.00"));
        assert!(overview.matrix[1].cells[0].chart.is_some());
    }

    #[test]
    fn constant_columns_have_no_correlation() {
        let overview = overview(&input(&[8.0, 8.0]));
        assert_eq!(overview.matrix[0].cells[1].r.as_deref(), Some("–"));
        assert_eq!((overview.margins.pairs, overview.margins.mean.as_str()), (0, "–"));
    }

    #[test]
    fn steps_of_an_axis_are_tidy() {
        assert_eq!([3.0, 170.0, 201.0, 5000.0, 0.2].map(tidy), [5.0, 200.0, 500.0, 5000.0, 1.0]);
    }
}
