//! What is measured, for people.

use super::bias::{Bias, LanguageBias, PaddingBias, RatingLength, SelfPreference};
use super::compare::Comparison;
use super::metrics::{Confusion, Estimate, Metrics};
use super::recall::Recall;
use super::summary::{
    Gain, LengthBias, PairwiseSummary, Predictor, RatingSummary, Reading, Spread, Summary,
    SupportSummary,
};
use std::fmt;

/// Measures of predictors: name in [`Metrics`], heading.
type Columns = &'static [(&'static str, &'static str)];

const CLASSES: Columns = &[
    ("accuracy", "accuracy"),
    ("macro_f1", "macro-F1"),
    ("kappa", "kappa"),
    ("quadratic_kappa", "kappa, quadratic"),
];
const PAIRS: Columns = &[
    ("accuracy_ties_half", "accuracy, ties half"),
    ("accuracy_with_ties", "with ties"),
    ("accuracy_without_ties", "without ties"),
    ("kappa", "kappa"),
];
const WITHIN: Columns = &[
    ("accuracy_ties_half", "pairs, ties half"),
    ("accuracy_with_ties", "with ties"),
    ("accuracy_without_ties", "without ties"),
];
const CORRELATIONS: Columns = &[
    ("pearson", "Pearson"),
    ("spearman", "Spearman"),
    ("kendall", "Kendall tau-b"),
    ("calibration_error", "calibration error"),
];
const DIFFERENCES: Columns =
    &[("mean_absolute_difference", "mean abs. difference"), ("mean_difference", "b less a")];
const RECALL: Columns = &[("recall", "recall"), ("complete", "complete"), ("shown", "shown")];
const LENGTH: Columns = &[
    ("accuracy_longer_better", "accuracy where the longer answer is better"),
    ("accuracy_shorter_better", "accuracy where the shorter answer is better"),
    ("accuracy_similar", "accuracy where lengths differ by less than 10 %"),
    ("judge_prefers_longer", "the judge prefers the longer answer"),
    ("people_prefer_longer", "people prefer the longer answer"),
    ("score_and_label", "correlation of score and label"),
    ("score_and_label_given_length", "the same, given the lengths"),
    ("score_and_length", "correlation of score and length"),
];

const PADDING: Columns = &[
    ("shift", "padding raises the mean score (0 to 10) by"),
    ("shift_expected", "the same, by expected values"),
    ("shift_helpfulness", "in helpfulness"),
    ("shift_logicality", "in logicality"),
    ("shift_faithfulness", "in faithfulness"),
    ("shift_completeness", "in completeness"),
    ("raised", "share of answers whose score rises"),
    ("lowered", "share of answers whose score falls"),
    ("padded_preferred", "of two answers the padded one is preferred"),
];
const LANGUAGES: Columns = &[
    ("same_verdict", "same verdict"),
    ("kappa", "kappa"),
    ("shift", "score, zh less en"),
    ("shift_expected", "expected, zh less en"),
    ("agreement_en", "agreement, en"),
    ("agreement_zh", "agreement, zh"),
    ("agreement_difference", "zh less en"),
];
const OWN: Columns = &[
    ("judge_prefers_own", "the judge prefers its own answer"),
    ("people_prefer_own", "people prefer it"),
    ("judge_own", "the judge's mean score of its own answers"),
    ("judge_others", "of others"),
    ("people_own", "people's mean rating of its own answers"),
    ("people_others", "of others"),
    ("excess", "what its own get beyond what people say"),
];
const RATING_LENGTH: Columns = &[
    ("score_and_label", "score and label"),
    ("score_and_label_given_length", "the same, given the length"),
    ("score_and_length", "score and length"),
    ("label_and_length", "label and length"),
];

/// Lines of cells, the first of them headings; columns are as wide as they must be.
pub(crate) struct Table(pub(crate) Vec<Vec<String>>);

impl Table {
    fn new(first: &str, columns: Columns) -> Self {
        let headings = columns.iter().map(|(_, heading)| (*heading).to_owned());
        Self(vec![std::iter::once(first.to_owned()).chain(headings).collect()])
    }

    /// A row, unless it has none of the measures.
    fn add(&mut self, name: &str, metrics: &Metrics, columns: Columns) {
        let cells: Vec<Option<&Estimate>> =
            columns.iter().map(|(metric, _)| metrics.get(*metric)).collect();
        if cells.iter().any(|cell| cell.is_some_and(|estimate| estimate.value.is_some())) {
            let cells = cells.into_iter().map(|cell| show(cell.copied().unwrap_or_default()));
            self.0.push(std::iter::once(name.to_owned()).chain(cells).collect());
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Some(headings) = self.0.first() else { return Ok(()) };
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        for row in &self.0 {
            let mut line = String::from("  ");
            for (cell, width) in row.iter().zip(&widths) {
                line += &format!("{cell:<width$}  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `0.512 [0.461, 0.563]`, or a dash.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Estimate { value: None, .. } => write!(f, "–"),
            Estimate { value: Some(value), low: Some(low), high: Some(high) } => {
                write!(f, "{value:.3} [{low:.3}, {high:.3}]")
            }
            Estimate { value: Some(value), .. } => write!(f, "{value:.3}"),
        }
    }
}

/// A measure of some, or a dash.
fn show(estimate: Estimate) -> String {
    estimate.to_string()
}

fn predictors(f: &mut fmt::Formatter, predictors: &[Predictor], columns: Columns) -> fmt::Result {
    let mut table = Table::new("", columns);
    predictors.iter().for_each(|one| table.add(&one.title(), &one.metrics, columns));
    if table.0.len() > 1 {
        write!(f, "{table}")?;
    }
    Ok(())
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(support) = &self.support {
            write!(f, "{support}")?;
        }
        if let Some(pairwise) = &self.pairwise {
            write!(f, "{pairwise}")?;
        }
        if let Some(rating) = &self.rating {
            write!(f, "{rating}")?;
        }
        if let Some(gain) = &self.gain {
            write!(f, "{gain}")?;
        }
        if let Some(bias) = &self.bias {
            write!(f, "{bias}")?;
        }
        write_recall(f, &self.recall)
    }
}

impl fmt::Display for SupportSummary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let labelled = labelled(&self.classes, &self.labelled);
        writeln!(f, "support: {} claims ({labelled})", self.items)?;
        writeln!(f, "  {}", self.reading)?;
        predictors(f, &self.predictors, CLASSES)?;
        predictors(f, &self.predictors, CORRELATIONS)?;
        confusion(f, &self.classes, &self.confusion)?;
        after(f, self.annotators.as_ref(), self.spread.as_ref())
    }
}

impl fmt::Display for PairwiseSummary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let labelled = labelled(&self.classes, &self.labelled);
        writeln!(f, "pairwise: {} pairs ({labelled})", self.items)?;
        writeln!(f, "  {}", self.reading)?;
        predictors(f, &self.predictors, PAIRS)?;
        predictors(f, &self.predictors, CORRELATIONS)?;
        confusion(f, &self.classes, &self.confusion)?;
        length_bias(f, &self.length_bias)?;
        after(f, self.annotators.as_ref(), self.spread.as_ref())
    }
}

impl fmt::Display for RatingSummary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "rating: {} answers to {} prompts", self.items, self.prompts)?;
        writeln!(f, "  {}", self.reading)?;
        predictors(f, &self.predictors, &CORRELATIONS[..3])?;
        predictors(f, &self.predictors, WITHIN)?;
        after(f, None, self.spread.as_ref())
    }
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { over, items, support, pairwise, rating } = self;
        writeln!(f, "gain over {over}, {items} rows (measures here less measures there)")?;
        for (kind, first) in [(support, CLASSES), (pairwise, PAIRS), (rating, WITHIN)] {
            predictors(f, kind, first)?;
            predictors(f, kind, CORRELATIONS)?;
        }
        Ok(())
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { verdicts, first_reply, forced, replies } = self;
        let percent = |share: &f64| share * 100.0;
        write!(
            f,
            "{verdicts} verdicts: {:.1} % read in the first reply, {:.1} % forced, {replies:.2} \
             replies each",
            percent(first_reply),
            percent(forced)
        )
    }
}

fn labelled(classes: &[String], counts: &[usize]) -> String {
    let parts = counts.iter().zip(classes).map(|(count, class)| format!("{count} {class}"));
    parts.collect::<Vec<_>>().join(", ")
}

fn confusion(f: &mut fmt::Formatter, classes: &[String], confusion: &Confusion) -> fmt::Result {
    let mut rows = vec![vec!["label \\ judge".to_owned()]];
    rows[0].extend(classes.iter().cloned());
    for (class, counts) in classes.iter().zip(&confusion.counts) {
        let counts = counts.iter().map(usize::to_string);
        rows.push(std::iter::once(class.clone()).chain(counts).collect());
    }
    write!(f, "{}", Table(rows))
}

/// Measures are the rows here, since their names are long.
fn length_bias(f: &mut fmt::Formatter, biases: &[LengthBias]) -> fmt::Result {
    let headings = biases.iter().map(|bias| bias.predictor.clone());
    let mut rows: Vec<Vec<String>> =
        vec![std::iter::once("length".to_owned()).chain(headings).collect()];
    for (metric, heading) in LENGTH {
        let cells =
            biases.iter().map(|bias| show(bias.metrics.get(*metric).copied().unwrap_or_default()));
        rows.push(std::iter::once((*heading).to_owned()).chain(cells).collect());
    }
    write!(f, "{}", Table(rows))
}

impl fmt::Display for Bias {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { position, padding, languages, self_preference, rating_length } = self;
        if let Some(why) = position {
            writeln!(f, "position: {why}")?;
        }
        if let Some(PaddingBias { answers, pairs, metrics }) = padding {
            writeln!(f, "padding: {answers} answers, {pairs} pairs")?;
            lines(f, metrics, PADDING)?;
        }
        if !languages.is_empty() {
            writeln!(f, "languages of the prompts")?;
            let mut table = Table::new("", LANGUAGES);
            for LanguageBias { kind, items, metrics, measure } in languages {
                table.add(&format!("{kind}, {items} rows, {measure}"), metrics, LANGUAGES);
            }
            write!(f, "{table}")?;
        }
        for SelfPreference { kind, items, own, metrics } in self_preference {
            writeln!(f, "own answers: {kind}, {items} rows, {own} own answers")?;
            lines(f, metrics, OWN)?;
        }
        if let Some(RatingLength { items, metrics }) = rating_length {
            writeln!(f, "length of rated answers: correlations over {items}")?;
            lines(f, metrics, RATING_LENGTH)?;
        }
        Ok(())
    }
}

/// A line for each measure that is there.
fn lines(f: &mut fmt::Formatter, metrics: &Metrics, rows: Columns) -> fmt::Result {
    let found = rows.iter().filter_map(|(metric, heading)| {
        let estimate = metrics.get(*metric).filter(|estimate| estimate.value.is_some())?;
        Some(vec![(*heading).to_owned(), estimate.to_string()])
    });
    write!(f, "{}", Table(found.collect()))
}

fn after(
    f: &mut fmt::Formatter,
    annotators: Option<&Metrics>,
    spread: Option<&Spread>,
) -> fmt::Result {
    if let Some(kappa) = annotators.and_then(|metrics| metrics.get("fleiss_kappa")) {
        writeln!(f, "  Fleiss' kappa among annotators: {}", show(*kappa))?;
    }
    let Some(Spread { runs, items, metrics, measure, by_run }) = spread else { return Ok(()) };
    let metric = |name: &str| show(metrics.get(name).copied().unwrap_or_default());
    let (deviation, flips) = (metric("standard_deviation"), metric("flips"));
    let by_run: Vec<String> = by_run.iter().map(Estimate::to_string).collect();
    writeln!(f, "  over {runs} seeds, {items} items:")?;
    writeln!(f, "    standard deviation of an item's score {deviation}")?;
    writeln!(f, "    share of items whose verdict changes  {flips}")?;
    writeln!(f, "    {measure} by seed: {}", by_run.join(", "))
}

fn write_recall(f: &mut fmt::Formatter, recall: &[Recall]) -> fmt::Result {
    let Some(first) = recall.first() else { return Ok(()) };
    writeln!(f, "retrieval: {} claims with labelled sentences", first.items)?;
    let mut table = Table::new("", RECALL);
    for Recall { retriever, passage, k, metrics, .. } in recall {
        table.add(&format!("{retriever}, {k} of {passage}"), metrics, RECALL);
    }
    write!(f, "{table}")
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { a, b, answers, prompts, only_a, only_b, scores, .. } = self;
        writeln!(f, "{answers} answers to {prompts} prompts in a = {a} and b = {b}")?;
        if only_a + only_b > 0 {
            writeln!(f, "  {only_a} only in a, {only_b} only in b")?;
        }
        for columns in [&CORRELATIONS[..3], DIFFERENCES, WITHIN] {
            let mut table = Table::new("", columns);
            scores.iter().for_each(|one| table.add(&one.name, &one.metrics, columns));
            if table.0.len() > 1 {
                write!(f, "{table}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_their_headings() {
        let estimate = |value, low, high| Estimate { value, low, high };
        let metrics = Metrics::from([
            ("recall".to_owned(), estimate(Some(0.5), Some(0.25), Some(0.7512))),
            ("complete".to_owned(), estimate(Some(1.0), None, None)),
        ]);
        let mut table = Table::new("", RECALL);
        table.add("bm25", &metrics, RECALL);
        table.add("nothing", &Metrics::new(), RECALL);
        let expected = "        recall                complete  shown\n  \
                        bm25  0.500 [0.250, 0.751]  1.000     –\n";
        assert_eq!(table.to_string(), expected);
    }
}
