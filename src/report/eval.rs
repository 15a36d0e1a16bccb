//! Results on LongBench as one page without a script: scores with their intervals, by length, and a
//! few predictions of each set.

use super::Error;
use super::page::{STYLE, policy_without_script, unix};
use crate::agree::metrics::Estimate;
use crate::eval::records::{Judged, Prediction};
use crate::eval::summary::{Bin, Kind, Line, Summary};
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use std::collections::HashMap;

const TEMPLATE: &str = include_str!("assets/eval.html");

/// Predictions that are shown of each set.
const SHOWN: usize = 5;
/// Characters of a text that are shown.
const CHARACTERS: usize = 1500;

/// All numbers are texts as they are shown.
#[derive(Serialize)]
struct View<'a> {
    policy: String,
    style: &'a str,
    version: &'static str,
    suite: &'a str,
    protocol: &'a str,
    judged: bool,
    lengths: &'a str,
    bins: Vec<&'a str>,
    lines: Vec<Row<'a>>,
    absent: &'a [String],
    resamples: usize,
    fails: usize,
    settings: Vec<(&'a str, Vec<(&'a String, &'a String)>)>,
    sets: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    mean: bool,
    measure: &'a str,
    counts: [usize; 6],
    metric: Score,
    judge: Score,
    bins: Vec<[String; 2]>,
    prompt: &'a str,
    judge_prompt: &'a str,
}

/// A score with its interval, as text and drawn.
#[derive(Serialize)]
struct Score {
    text: String,
    chart: String,
}

/// A set with some of its predictions.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    predictions: Vec<Answer<'a>>,
}

#[derive(Serialize)]
struct Answer<'a> {
    idx: &'a str,
    query: String,
    pred: String,
    references: Vec<String>,
    input_tokens: usize,
    cut_tokens: usize,
    /// The judge's best rating, and its reply.
    rating: Option<String>,
    analysis: String,
    forced: bool,
}

/// The whole page. The same results give the same bytes.
///
/// # Errors
/// A fault in the template.
pub fn page(
    summary: &Summary,
    predictions: &[Prediction],
    verdicts: &[Judged],
) -> Result<String, Error> {
    let style = unix(STYLE);
    let judged = summary.lines.iter().any(|line| line.judged > 0);
    let sets = || summary.lines.iter().filter(|line| line.kind == Kind::Set);
    let mut settings = vec![("Predictions", summary.settings.iter().collect())];
    settings.extend(summary.judge_settings.iter().map(|all| ("Verdicts", all.iter().collect())));
    let first = summary.lines.first().map_or(&[][..], |line| &line.bins);
    let view = View {
        policy: policy_without_script(&style),
        style: &style,
        version: env!("CARGO_PKG_VERSION"),
        suite: &summary.suite,
        protocol: &summary.protocol,
        judged,
        lengths: &summary.lengths,
        bins: first.iter().map(|bin| bin.name.as_str()).collect(),
        lines: summary.lines.iter().map(row).collect(),
        absent: &summary.absent,
        resamples: summary.bootstrap.resamples,
        fails: sets().map(|line| line.fails_in_python).sum(),
        settings,
        sets: sets().map(|line| shown(&line.name, predictions, verdicts)).collect(),
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    Ok(environment.render_str(TEMPLATE, minijinja::value::Serde(view))?)
}

fn row(line: &Line) -> Row<'_> {
    let Line { name, kind, n, judged, cut, unfinished, forced, rows, .. } = line;
    let bin = |bin: &Bin| {
        let [metric, judge] = [("metric", bin.n), ("judge", bin.judged)]
            .map(|(score, n)| with_count(bin.scores.get(score), n));
        [metric, judge]
    };
    Row {
        name,
        mean: *kind != Kind::Set,
        measure: line.measure.as_deref().unwrap_or("–"),
        counts: [*rows, *n, *cut, *unfinished, *judged, *forced],
        metric: score(line.scores.get("metric")),
        judge: score(line.scores.get("judge")),
        bins: line.bins.iter().map(bin).collect(),
        prompt: line.prompt.as_deref().unwrap_or("–"),
        judge_prompt: line.judge_prompt.as_deref().unwrap_or("–"),
    }
}

fn with_count(estimate: Option<&Estimate>, n: usize) -> String {
    match n {
        0 => "–".to_owned(),
        n => format!("{}, n = {n}", in_words(estimate)),
    }
}

fn score(estimate: Option<&Estimate>) -> Score {
    Score { text: in_words(estimate), chart: chart(estimate) }
}

fn in_words(estimate: Option<&Estimate>) -> String {
    match estimate {
        Some(Estimate { value: Some(value), low: Some(low), high: Some(high) }) => {
            format!("{value:.1} ({low:.1} to {high:.1})")
        }
        Some(Estimate { value: Some(value), .. }) => format!("{value:.1}"),
        _ => "–".to_owned(),
    }
}

/// A dot between 0 and 100 and the interval around it; all texts in it are numbers.
fn chart(estimate: Option<&Estimate>) -> String {
    let Some(Estimate { value: Some(value), low, high }) = estimate else { return String::new() };
    let x = |score: f64| 4.0 + score.clamp(0.0, 100.0) * 1.12;
    let (from, to) = (x(low.unwrap_or(*value)), x(high.unwrap_or(*value)));
    format!(
        "<svg class=\"chart\" viewBox=\"0 0 120 14\" role=\"img\" aria-label=\"{}\"><path \
         class=\"grid\" d=\"M{:.1} 12H{:.1}\"/><path class=\"axis\" d=\"M{from:.1} 6H{to:.1}\"/><circle \
         class=\"dot\" cx=\"{:.1}\" cy=\"6\" r=\"3\"/></svg>",
        in_words(estimate),
        x(0.0),
        x(100.0),
        x(*value)
    )
}

fn shown<'a>(set: &'a str, predictions: &'a [Prediction], verdicts: &'a [Judged]) -> Shown<'a> {
    let verdicts: HashMap<&str, &Judged> =
        verdicts.iter().map(|one| (one.idx.as_str(), one)).collect();
    let of_set = predictions.iter().filter(|one| one.dataset == set).take(SHOWN);
    let predictions = of_set.map(|one| answer(one, verdicts.get(one.idx.as_str()).copied()));
    Shown { name: set, predictions: predictions.collect() }
}

fn answer<'a>(prediction: &'a Prediction, verdict: Option<&'a Judged>) -> Answer<'a> {
    let Prediction { idx, query, pred, answers, input_tokens, cut_tokens, .. } = prediction;
    let best = verdict.and_then(|verdict| verdict.verdicts.get(verdict.best));
    Answer {
        idx,
        query: beginning(query),
        pred: beginning(pred),
        references: answers.iter().take(SHOWN).map(|text| beginning(text)).collect(),
        input_tokens: *input_tokens,
        cut_tokens: *cut_tokens,
        rating: best.map(|best| format!("{}", best.score)),
        analysis: best.map_or(String::new(), |best| beginning(&best.analysis)),
        forced: verdict.is_some_and(|verdict| verdict.forced),
    }
}

/// A text, or as much of it as is shown.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agree::metrics::{Bootstrap, Metrics};
    use crate::chat::Finish;
    use crate::pipeline::Settings;

    fn summary() -> Summary {
        let estimate = Estimate { value: Some(25.0), low: Some(10.0), high: Some(40.0) };
        let scores = Metrics::from([("metric".to_owned(), estimate)]);
        let line = Line {
            kind: Kind::Set,
            name: "qasper".to_owned(),
            sets: 1,
            measure: Some("F1".to_owned()),
            rows: 1,
            n: 1,
            judged: 0,
            cut: 1,
            unfinished: 0,
            forced: 0,
            fails_in_python: 0,
            prompt: Some("0123456789abcdef".to_owned()),
            judge_prompt: None,
            scores: scores.clone(),
            bins: vec![Bin { name: "0-4k".to_owned(), n: 1, judged: 0, scores }],
        };
        Summary {
            suite: "longbench".to_owned(),
            protocol: "longreward".to_owned(),
            lines: vec![line],
            absent: vec!["qmsum".to_owned()],
            lengths: "words".to_owned(),
            bootstrap: Bootstrap::default(),
            settings: Settings::from([("model".to_owned(), "<m>".to_owned())]),
            judge_settings: None,
        }
    }

    fn prediction() -> Prediction {
        Prediction {
            idx: "qasper/1".to_owned(),
            dataset: "qasper".to_owned(),
            row_id: None,
            query: "<script>alert(1)</script>".to_owned(),
            pred: format!("</p>{}", "é".repeat(CHARACTERS)),
            answers: vec!["a & b".to_owned()],
            all_classes: None,
            length: Some(7),
            input_tokens: 123,
            cut_tokens: 23,
            finish: Finish::Stop,
            input_hash: String::new(),
        }
    }

    #[test]
    fn the_page_stands_alone_and_texts_are_texts() {
        let page = page(&summary(), &[prediction()], &[]).unwrap();
        assert!(page.contains("default-src &#x27;none&#x27;; style-src &#x27;sha256-"));
        for markup in ["<script", "</p>é", "http:", "https:", " src=", "style="] {
            assert!(!page.contains(markup), "{markup}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)"));
        for text in [
            "25.0 (10.0 to 40.0)",
            "qasper",
            "0-4k",
            "qmsum",
            "0123456789abcdef",
            "&lt;m&gt;",
            "é …",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("Verdicts"));
    }

    #[test]
    fn intervals_are_drawn_to_scale() {
        let estimate = Estimate { value: Some(50.0), low: Some(0.0), high: Some(100.0) };
        let chart = chart(Some(&estimate));
        assert!(chart.contains("M4.0 6H116.0") && chart.contains("cx=\"60.0\""), "{chart}");
        assert_eq!(super::chart(None), "");
    }
}
