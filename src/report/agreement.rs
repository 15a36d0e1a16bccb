//! The judge's agreement with people as charts and tables: what the generic tables of
//! [`super::agree`] hold, picked out and drawn.
//!
//! Only the fields named here are known, and each may be missing: a file of another shape has no
//! charts, and its tables all the same.

use super::intervals::{Interval, intervals};
use super::reliability::{Bin, reliability};
use crate::agree::metrics::{Estimate, Metrics};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    support: Option<Section>,
    pairwise: Option<Section>,
    rating: Option<Section>,
    bias: Bias,
    recall: Vec<Recall>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Section {
    items: usize,
    classes: Vec<String>,
    labelled: Vec<usize>,
    reading: Reading,
    predictors: Vec<Named>,
    confusion: Vec<Vec<usize>>,
    calibration: Option<Calibration>,
    length_bias: Vec<Named>,
    spread: Option<Spread>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reading {
    verdicts: usize,
    first_reply: f64,
    forced: f64,
}

/// Measures of someone, or of something.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    #[serde(alias = "kind")]
    name: String,
    /// Rows that it rests on, where these are not all.
    items: Option<usize>,
    metrics: Metrics,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Calibration {
    bins: Vec<Bin>,
    error: Option<f64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spread {
    runs: usize,
    metrics: Metrics,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Bias {
    position: Option<String>,
    padding: Option<Named>,
    languages: Vec<Named>,
    self_preference: Vec<Named>,
    rating_length: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Recall {
    retriever: String,
    passage: String,
    k: usize,
    items: usize,
    metrics: Metrics,
}

/// What the template shows. Charts are SVG, all else are texts.
#[derive(Debug, Serialize)]
pub struct Agreement {
    pub sections: Vec<Shown>,
    pub bias: Vec<BiasRow>,
    pub recall: Option<Figure>,
}

/// A kind of label.
#[derive(Debug, Serialize)]
pub struct Shown {
    pub title: &'static str,
    pub labels: String,
    pub reading: String,
    pub predictors: Option<Figure>,
    pub confusion: Option<Matrix>,
    pub reliability: Option<Reliability>,
}

#[derive(Debug, Serialize)]
pub struct Figure {
    pub title: String,
    pub note: String,
    pub chart: String,
}

/// Counts by label and verdict.
#[derive(Debug, Serialize)]
pub struct Matrix {
    pub classes: Vec<String>,
    pub rows: Vec<MatrixRow>,
}

#[derive(Debug, Serialize)]
pub struct MatrixRow {
    pub name: String,
    pub cells: Vec<Cell>,
    pub total: usize,
}

#[derive(Debug, Serialize)]
pub struct Cell {
    pub count: usize,
    /// Of the row.
    pub percent: String,
    /// Tenths of the row, for its shade.
    pub strength: usize,
    pub right: bool,
}

#[derive(Debug, Serialize)]
pub struct Reliability {
    pub chart: String,
    pub error: String,
    /// Confidence, verdicts, mean confidence, share that is right.
    pub rows: Vec<[String; 4]>,
}

#[derive(Debug, Serialize)]
pub struct BiasRow {
    /// Empty where it is that of the row above.
    pub group: String,
    pub name: String,
    pub value: String,
    /// The value without bias.
    pub neutral: &'static str,
}

/// Picks out what can be drawn; `None` if nothing can.
pub fn agreement(file: &Value) -> Option<Agreement> {
    let file: File = serde_json::from_value(file.clone()).ok()?;
    let kinds = [
        ("Claims", "accuracy", "Accuracy", &file.support),
        ("Pairs of answers", "accuracy_ties_half", "Accuracy, a tie counting half", &file.pairwise),
        ("Rated answers", "spearman", "Spearman’s correlation", &file.rating),
    ];
    let sections = kinds.into_iter().filter_map(|(title, metric, name, section)| {
        section.as_ref().map(|section| shown(title, metric, name, section))
    });
    let found = Agreement {
        sections: sections.collect(),
        bias: bias_rows(&file),
        recall: recall(&file.recall),
    };
    let empty = found.sections.is_empty() && found.bias.is_empty() && found.recall.is_none();
    (!empty).then_some(found)
}

fn shown(title: &'static str, metric: &str, metric_name: &str, section: &Section) -> Shown {
    let Section { items, classes, labelled, reading, predictors, .. } = section;
    let counts = labelled.iter().zip(classes);
    let counts: Vec<String> = counts.map(|(n, class)| format!("{n} {}", spaced(class))).collect();
    let labels = match counts.is_empty() {
        true => format!("{items} labelled rows"),
        false => format!("{items} labelled rows: {}", counts.join(", ")),
    };
    let rows = rows_of(predictors, metric);
    let range = if metric == "spearman" { [-1.0, 1.0] } else { [0.0, 1.0] };
    let predictors = (!rows.is_empty()).then(|| Figure {
        title: metric_name.to_owned(),
        note: "with 95 % bootstrap intervals; below the judge what needs no judge, and people \
               against each other where rows have several annotators"
            .to_owned(),
        chart: intervals(metric_name, &rows, range),
    });
    Shown {
        title,
        labels,
        reading: format!(
            "{} verdicts, {} read in the first reply, {} forced",
            reading.verdicts,
            percent(reading.first_reply),
            percent(reading.forced)
        ),
        predictors,
        confusion: matrix(section),
        reliability: section.calibration.as_ref().and_then(drawn),
    }
}

fn rows_of(predictors: &[Named], metric: &str) -> Vec<Interval> {
    let row = |one: &Named| {
        let estimate = one.metrics.get(metric).filter(|estimate| estimate.value.is_some())?;
        let marked = one.name.starts_with("judge");
        let rows = one.items.map_or(String::new(), |items| format!(" ({items} rows)"));
        Some(Interval { name: one.name.clone() + &rows, estimate: *estimate, marked })
    };
    predictors.iter().filter_map(row).collect()
}

fn matrix(section: &Section) -> Option<Matrix> {
    let Section { classes, confusion, .. } = section;
    let square = confusion.iter().all(|row| row.len() == classes.len());
    if confusion.is_empty() || confusion.len() != classes.len() || !square {
        return None;
    }
    let row = |(i, counts): (usize, &Vec<usize>)| {
        let total: usize = counts.iter().sum();
        let share = |count: usize| count as f64 / total.max(1) as f64;
        let cell = |(j, &count): (usize, &usize)| Cell {
            count,
            percent: percent(share(count)),
            strength: (share(count) * 10.0).round() as usize,
            right: i == j,
        };
        let cells = counts.iter().enumerate().map(cell).collect();
        MatrixRow { name: spaced(&classes[i]), cells, total }
    };
    let rows = confusion.iter().enumerate().map(row).collect();
    Some(Matrix { classes: classes.iter().map(|class| spaced(class)).collect(), rows })
}

fn drawn(calibration: &Calibration) -> Option<Reliability> {
    let Calibration { bins, error } = calibration;
    if bins.iter().all(|bin| bin.items == 0) {
        return None;
    }
    let row = |bin: &Bin| {
        let within = format!("{} to {}", percent(bin.low), percent(bin.high));
        [within, bin.items.to_string(), share(bin.confidence), share(bin.accuracy)]
    };
    let rows = bins.iter().filter(|bin| bin.items > 0).map(row).collect();
    Some(Reliability { chart: reliability(bins), error: three(*error), rows })
}

/// Which measure of a group is shown, its name, and its value without bias.
type Rows = &'static [(&'static str, &'static str, &'static str)];

const LENGTH: Rows = &[
    ("judge_prefers_longer", "The judge prefers the longer answer", "as people"),
    ("people_prefer_longer", "People prefer the longer answer", ""),
    ("accuracy_longer_better", "Accuracy where people prefer the longer", "as below"),
    ("accuracy_shorter_better", "Accuracy where people prefer the shorter", "as above"),
    ("accuracy_similar", "Accuracy where lengths differ by less than 10 %", ""),
    ("score_and_length", "Correlation of score and length", ""),
    ("score_and_label", "Correlation of score and label", ""),
    ("score_and_label_given_length", "The same, given the length", "the same"),
];
const PADDING: Rows = &[
    ("shift", "Rise of the mean score (0 to 10)", "0"),
    ("shift_expected", "The same, by expected values", "0"),
    ("raised", "Answers whose score rises", ""),
    ("lowered", "Answers whose score falls", ""),
    ("padded_preferred", "Of two answers the padded one is preferred", "0.500"),
];
const LANGUAGES: Rows = &[
    ("same_verdict", "Same verdict with English and Chinese prompts", "1"),
    ("kappa", "Cohen’s kappa between them", "1"),
    ("shift", "Score, Chinese less English", "0"),
    ("agreement_difference", "Agreement with people, Chinese less English", "0"),
];
const OWN: Rows = &[
    ("judge_prefers_own", "The judge prefers its own answer", "as people"),
    ("people_prefer_own", "People prefer the judge’s answer", ""),
    ("excess", "What its own answers get beyond what people say", "0"),
];
const SEEDS: Rows = &[
    ("standard_deviation", "Standard deviation of a row’s score", "0"),
    ("flips", "Rows whose verdict is not the same with all", "0"),
];

fn bias_rows(file: &File) -> Vec<BiasRow> {
    let Bias { position, padding, languages, self_preference, rating_length } = &file.bias;
    let mut rows: Vec<BiasRow> = Vec::new();
    rows.extend(position.as_ref().map(|why| BiasRow {
        group: "Position".to_owned(),
        name: "Order of two answers".to_owned(),
        value: why.clone(),
        neutral: "",
    }));
    if let Some(length) = file.pairwise.as_ref().and_then(|pairs| pairs.length_bias.first()) {
        rows.extend(group("Length", &length.metrics, LENGTH));
    }
    if let Some(length) = rating_length {
        rows.extend(group("Length, rated answers", &length.metrics, &LENGTH[5..]));
    }
    if let Some(padding) = padding {
        rows.extend(group("Padding: sentences that say nothing", &padding.metrics, PADDING));
    }
    for of_kind in languages {
        let name = format!("Language of the prompts, {}", of_kind.name);
        rows.extend(group(&name, &of_kind.metrics, LANGUAGES));
    }
    for of_kind in self_preference {
        rows.extend(group(&format!("Own answers, {}", of_kind.name), &of_kind.metrics, OWN));
    }
    let kinds = [("claims", &file.support), ("pairs", &file.pairwise), ("ratings", &file.rating)];
    for (kind, section) in kinds {
        if let Some(Spread { runs, metrics }) = section.as_ref().and_then(|s| s.spread.as_ref()) {
            rows.extend(group(&format!("{runs} seeds, {kind}"), metrics, SEEDS));
        }
    }
    rows
}

fn group(name: &str, metrics: &Metrics, rows: Rows) -> Vec<BiasRow> {
    let found = rows.iter().filter_map(|(metric, title, neutral)| {
        let estimate = metrics.get(*metric).filter(|estimate| estimate.value.is_some())?;
        Some((title, estimate, neutral))
    });
    found
        .enumerate()
        .map(|(i, (title, estimate, neutral))| BiasRow {
            group: if i == 0 { name.to_owned() } else { String::new() },
            name: (*title).to_owned(),
            value: in_words(estimate),
            neutral,
        })
        .collect()
}

fn recall(found: &[Recall]) -> Option<Figure> {
    let same =
        found.windows(2).all(|two| (two[0].k, &two[0].passage) == (two[1].k, &two[1].passage));
    let row = |one: &Recall| {
        let estimate = one.metrics.get("recall").filter(|estimate| estimate.value.is_some())?;
        let name = match same {
            true => one.retriever.clone(),
            false => format!("{}, {} of {}", one.retriever, one.k, one.passage),
        };
        Some(Interval { name, estimate: *estimate, marked: true })
    };
    let rows: Vec<Interval> = found.iter().filter_map(row).collect();
    let Recall { items, k, passage, .. } = found.first()?;
    let shown = if same { format!(" among {k} passages of {passage}") } else { String::new() };
    (!rows.is_empty()).then(|| Figure {
        title: format!("Recall of labelled sentences{shown}"),
        note: format!("mean over {items} claims with labelled sentences"),
        chart: intervals("Recall", &rows, [0.0, 1.0]),
    })
}

/// A measure with its interval, in words.
pub fn in_words(estimate: &Estimate) -> String {
    match (estimate.low, estimate.high) {
        (Some(low), Some(high)) => {
            format!("{} ({} to {})", three(estimate.value), three(Some(low)), three(Some(high)))
        }
        _ => three(estimate.value),
    }
}

/// Three digits, with a true minus sign.
fn three(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.3}").replace('-', "−"))
}

fn share(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), percent)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Names of fields have no spaces; people's do.
fn spaced(name: &str) -> String {
    name.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn estimate(value: f64) -> Value {
        json!({"value": value, "low": value - 0.1, "high": value + 0.1})
    }

    #[test]
    fn sections_hold_what_the_file_has() {
        let bin = |low: f64, items: usize| {
            json!({"low": low, "high": low + 0.5, "items": items, "confidence": low + 0.3,
                   "accuracy": if items > 0 { Some(0.5) } else { None }})
        };
        let file = json!({
            "support": {
                "items": 4, "classes": ["not_supported", "supported"], "labelled": [1, 3],
                "reading": {"verdicts": 4, "first_reply": 0.25, "forced": 0.75, "replies": 2.0},
                "predictors": [{"name": "judge", "metrics": {"accuracy": estimate(0.5)}},
                               {"name": "majority <b>", "metrics": {"accuracy": estimate(0.75)}},
                               {"name": "none", "metrics": {}}],
                "confusion": [[1, 0], [2, 1]],
                "calibration": {"bins": [bin(0.0, 0), bin(0.5, 4)], "error": 0.125},
                "spread": {"runs": 3, "metrics": {"flips": estimate(0.2)}},
            },
            "bias": {"padding": {"answers": 1, "metrics": {"shift": estimate(-0.2)}},
                     "languages": [{"kind": "support", "metrics": {"kappa": estimate(0.3)}}]},
            "recall": [{"retriever": "bm25", "passage": "128 tokens", "k": 5, "items": 9,
                        "metrics": {"recall": estimate(0.9)}}],
        });
        let found = agreement(&file).unwrap();
        let [support] = &found.sections[..] else { panic!() };
        assert_eq!(support.labels, "4 labelled rows: 1 not supported, 3 supported");
        assert!(support.reading.contains("25 % read in the first reply, 75 % forced"));
        let chart = &support.predictors.as_ref().unwrap().chart;
        assert!(chart.contains("majority &lt;b&gt;") && !chart.contains("none"), "{chart}");
        let matrix = support.confusion.as_ref().unwrap();
        let cell = &matrix.rows[1].cells[0];
        assert_eq!((cell.count, cell.percent.as_str(), cell.strength), (2, "67 %", 7));
        assert!(!cell.right && matrix.rows[1].cells[1].right);
        let reliability = support.reliability.as_ref().unwrap();
        assert_eq!(reliability.rows, [["50 % to 100 %", "4", "80 %", "50 %"]]);
        let rows: Vec<(&str, &str)> =
            found.bias.iter().map(|row| (row.group.as_str(), row.value.as_str())).collect();
        assert_eq!(rows[0].1, "−0.200 (−0.300 to −0.100)");
        assert_eq!(rows[1].0, "Language of the prompts, support");
        assert_eq!(rows[2].0, "3 seeds, claims");
        assert!(found.recall.unwrap().note.contains("9 claims"));
    }

    #[test]
    fn files_of_another_shape_have_no_charts() {
        assert!(agreement(&json!({"kappa": 0.5})).is_none());
        assert!(agreement(&json!({"support": 7})).is_none());
        let odd = json!({"support": {"classes": ["a"], "confusion": [[1, 2]]}});
        assert!(agreement(&odd).unwrap().sections[0].confusion.is_none());
    }
}
