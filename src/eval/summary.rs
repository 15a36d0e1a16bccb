//! What predictions and verdicts come to: by set, by class of sets, and over all; all scores 0 to 100.

use super::metrics::first_line;
use super::records::{Judged, Prediction};
use super::suite::{Bins, Item, Set, Suite};
use super::tasks::Class;
use crate::agree::metrics::{Bootstrap, Metrics};
use crate::chat::Finish;
use crate::hexadecimal::hexadecimal;
use crate::pipeline::Settings;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

/// `result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub suite: String,
    pub protocol: String,
    /// Sets, then classes, then all.
    pub lines: Vec<Line>,
    /// Sets that the protocol has and the folder of data has not.
    pub absent: Vec<String>,
    /// What lengths are counted in.
    pub lengths: String,
    pub bootstrap: Bootstrap,
    /// What predictions depend on; `template` is the hash of the chat template.
    pub settings: Settings,
    /// What verdicts depend on, if there is a judge.
    pub judge_settings: Option<Settings>,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Set,
    /// The mean of its sets.
    Class,
    /// The mean of all sets.
    Overall,
}

/// A set, or the mean of several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub kind: Kind,
    pub name: String,
    pub sets: usize,
    /// The suite's measure; of several sets only if it is the same for all.
    pub measure: Option<String>,
    /// Good rows of the data.
    pub rows: usize,
    /// Predictions that there are; `metric` is their mean.
    pub n: usize,
    /// Verdicts that there are; `judge` is their mean.
    pub judged: usize,
    /// Inputs that lost their middle.
    pub cut: usize,
    /// Predictions that ended because no more tokens were allowed.
    pub unfinished: usize,
    /// Verdicts that were forced.
    pub forced: usize,
    /// Predictions on which the suite's public scorer fails, and counts 0.
    pub fails_in_python: usize,
    /// Hash of the prompt; of several sets over their hashes. `None` if the data has whole prompts.
    pub prompt: Option<String>,
    /// Hash over the judge's prompts for it.
    pub judge_prompt: Option<String>,
    /// `metric` and `judge`, as far as they are there.
    pub scores: Metrics,
    pub bins: Vec<Bin>,
}

/// The part of a line in a range of lengths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    pub name: String,
    pub n: usize,
    pub judged: usize,
    pub scores: Metrics,
}

/// What there is of a suite besides its results.
#[derive(Debug)]
pub struct About {
    pub suite: String,
    pub protocol: String,
    pub absent: Vec<String>,
    pub bins: Bins,
    pub sets: Vec<Set>,
    /// Good rows of each set.
    pub rows: Vec<usize>,
    pub settings: Settings,
    pub judge_settings: Option<Settings>,
}

impl About {
    /// What is known of a suite before it is run.
    pub fn of(suite: &Suite) -> Self {
        let count = |set| suite.items.iter().filter(|item: &&Item| item.set == set).count();
        Self {
            suite: suite.name.to_owned(),
            protocol: suite.protocol.to_owned(),
            absent: suite.absent.clone(),
            bins: suite.bins,
            sets: suite.sets.clone(),
            rows: (0..suite.sets.len()).map(count).collect(),
            settings: Settings::new(),
            judge_settings: None,
        }
    }
}

/// A prediction as it counts.
#[derive(Debug, Clone, Copy)]
struct Scored {
    set: usize,
    bin: usize,
    /// 0 to 1.
    metric: Option<f64>,
    judge: Option<f64>,
    cut: bool,
    unfinished: bool,
    forced: bool,
    fails_in_python: bool,
}

impl Summary {
    /// Measures predictions; verdicts on others are passed over, and so are predictions of other sets.
    pub fn new(
        about: About,
        predictions: &[Prediction],
        verdicts: &[Judged],
        bootstrap: Bootstrap,
    ) -> Self {
        let scored = scored(&about, predictions, verdicts);
        let tally = Tally { about: &about, scored: &scored, bootstrap };
        let sets: Vec<usize> = (0..about.sets.len()).collect();
        let mut lines: Vec<Line> = sets.iter().map(|&set| tally.set(set)).collect();
        lines.extend(Class::ALL.iter().filter_map(|&class| tally.class(class)));
        if sets.len() > 1 {
            lines.push(tally.line(Kind::Overall, "all sets", &sets));
        }
        let lengths = about.bins.unit().to_owned();
        let About { suite, protocol, absent, settings, judge_settings, .. } = about;
        Self { suite, protocol, lines, absent, lengths, bootstrap, settings, judge_settings }
    }
}

fn scored(about: &About, predictions: &[Prediction], verdicts: &[Judged]) -> Vec<Scored> {
    let verdicts: HashMap<&str, &Judged> =
        verdicts.iter().map(|one| (one.idx.as_str(), one)).collect();
    let score = |prediction: &Prediction| {
        let set = about.sets.iter().position(|set| set.name == prediction.dataset)?;
        let verdict = verdicts.get(prediction.idx.as_str());
        Some(score(about, set, prediction, verdict.copied()))
    };
    predictions.iter().filter_map(score).collect()
}

fn score(about: &About, set: usize, prediction: &Prediction, verdict: Option<&Judged>) -> Scored {
    let Set { metric, first_line: one_line, .. } = about.sets[set];
    let Prediction { pred, answers, all_classes, length, input_tokens, .. } = prediction;
    let text = if one_line { first_line(pred) } else { pred };
    let classes = all_classes.as_deref().unwrap_or_default();
    let length = length.unwrap_or(*input_tokens as u64);
    Scored {
        set,
        bin: about.bins.of(length),
        metric: metric.map(|metric| metric.best(text, answers, classes)),
        judge: verdict.map(|verdict| verdict.score),
        cut: prediction.cut_tokens > 0,
        unfinished: prediction.finish == Finish::Length,
        forced: verdict.is_some_and(|verdict| verdict.forced),
        fails_in_python: metric.is_some_and(|metric| metric.fails_in_python(text, answers)),
    }
}

struct Tally<'a> {
    about: &'a About,
    scored: &'a [Scored],
    bootstrap: Bootstrap,
}

impl Tally<'_> {
    fn set(&self, set: usize) -> Line {
        self.line(Kind::Set, &self.about.sets[set].name, &[set])
    }

    /// `None` for a class without sets, or with a single one that is all there is.
    fn class(&self, class: Class) -> Option<Line> {
        let all = self.about.sets.len();
        let sets: Vec<usize> =
            (0..all).filter(|&set| self.about.sets[set].class == class).collect();
        let shown = !sets.is_empty() && all > 1;
        shown.then(|| self.line(Kind::Class, class.name(), &sets))
    }

    fn line(&self, kind: Kind, name: &str, sets: &[usize]) -> Line {
        let of: Vec<usize> =
            (0..self.scored.len()).filter(|&at| sets.contains(&self.scored[at].set)).collect();
        let count = |is: fn(&Scored) -> bool| of.iter().filter(|&&at| is(&self.scored[at])).count();
        Line {
            kind,
            name: name.to_owned(),
            sets: sets.len(),
            measure: self.measure(sets),
            rows: sets.iter().map(|&set| self.about.rows[set]).sum(),
            n: of.len(),
            judged: count(|one| one.judge.is_some()),
            cut: count(|one| one.cut),
            unfinished: count(|one| one.unfinished),
            forced: count(|one| one.forced),
            fails_in_python: count(|one| one.fails_in_python),
            prompt: self.prompt(sets),
            judge_prompt: self.judge_prompt(sets),
            scores: self.scores(&of),
            bins: self.bins(&of),
        }
    }

    fn bins(&self, of: &[usize]) -> Vec<Bin> {
        let names = self.about.bins.list().iter().enumerate();
        let bin = |(bin, (name, _)): (usize, &(&str, u64))| {
            let of: Vec<usize> =
                of.iter().copied().filter(|&at| self.scored[at].bin == bin).collect();
            let judged = of.iter().filter(|&&at| self.scored[at].judge.is_some()).count();
            Bin { name: (*name).to_owned(), n: of.len(), judged, scores: self.scores(&of) }
        };
        names.map(bin).collect()
    }

    /// Means of sets' means. Resamples keep the size of each set.
    fn scores(&self, of: &[usize]) -> Metrics {
        let mut sets: BTreeMap<usize, Vec<Vec<usize>>> = BTreeMap::new();
        for &at in of {
            sets.entry(self.scored[at].set).or_default().push(vec![at]);
        }
        let strata: Vec<&[Vec<usize>]> = sets.values().map(Vec::as_slice).collect();
        let mut scores = self.bootstrap.estimate_strata(&strata, |items| {
            vec![
                ("metric", self.mean(items, |one| one.metric)),
                ("judge", self.mean(items, |one| one.judge)),
            ]
        });
        scores.retain(|_, estimate| estimate.value.is_some());
        scores
    }

    /// 0 to 100.
    fn mean(&self, items: &[usize], value: impl Fn(&Scored) -> Option<f64>) -> Option<f64> {
        let mut sets: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
        for &at in items {
            let Some(value) = value(&self.scored[at]) else { continue };
            let (sum, count) = sets.entry(self.scored[at].set).or_default();
            *sum += value;
            *count += 1;
        }
        let means: f64 = sets.values().map(|(sum, count)| sum / *count as f64).sum();
        (!sets.is_empty()).then(|| 100.0 * means / sets.len() as f64)
    }

    fn measure(&self, sets: &[usize]) -> Option<String> {
        let mut names = sets.iter().map(|&set| self.about.sets[set].metric.map(|m| m.name()));
        let first = names.next()??;
        names.all(|name| name == Some(first)).then(|| first.to_owned())
    }

    fn prompt(&self, sets: &[usize]) -> Option<String> {
        let hashes: Option<Vec<&str>> =
            sets.iter().map(|&set| self.about.sets[set].prompt.as_deref()).collect();
        hashes.map(|hashes| together(&hashes))
    }

    fn judge_prompt(&self, sets: &[usize]) -> Option<String> {
        let settings = self.about.judge_settings.as_ref()?;
        let mut rubrics: Vec<String> = sets
            .iter()
            .filter_map(|&set| self.about.sets[set].rubric)
            .map(|rubric| format!("{rubric:?}").to_lowercase())
            .collect();
        rubrics.dedup();
        let hash = |rubric: &String| {
            let of = |lang: &str| settings.get(&format!("prompt {lang}/judge_{rubric}"));
            [of("en"), of("zh")]
        };
        let hashes: Vec<&str> =
            rubrics.iter().flat_map(hash).flatten().map(String::as_str).collect();
        (!hashes.is_empty()).then(|| together(&hashes))
    }
}

/// A single hash as it is, of several the hash.
fn together(hashes: &[&str]) -> String {
    match hashes {
        [one] => (*one).to_owned(),
        hashes => hexadecimal(Sha256::digest(hashes.concat())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Metric;
    use super::super::tasks::Rubric;
    use super::*;

    fn set(name: &str, class: Class, metric: Metric, rubric: Option<Rubric>) -> Set {
        Set {
            name: name.to_owned(),
            class,
            metric: Some(metric),
            first_line: class == Class::FewShot,
            rubric,
            max_new_tokens: 9,
            stop: Vec::new(),
            chat_template: true,
            prompt: Some(name.repeat(2)),
        }
    }

    fn about() -> About {
        let judge = [("prompt en/judge_qa", "e"), ("prompt zh/judge_qa", "z")];
        About {
            suite: "longbench".to_owned(),
            protocol: "longbench".to_owned(),
            absent: Vec::new(),
            bins: Bins::Suite,
            sets: vec![
                set("qasper", Class::SingleDoc, Metric::QaF1, Some(Rubric::Qa)),
                set("narrativeqa", Class::SingleDoc, Metric::QaF1, Some(Rubric::Qa)),
                set("trec", Class::FewShot, Metric::Classification, None),
            ],
            rows: vec![3, 2, 1],
            settings: Settings::new(),
            judge_settings: Some(judge.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
        }
    }

    fn prediction(idx: &str, pred: &str, length: u64) -> Prediction {
        Prediction {
            idx: idx.to_owned(),
            dataset: idx.split('/').next().unwrap().to_owned(),
            row_id: None,
            query: "q".to_owned(),
            pred: pred.to_owned(),
            answers: vec!["City".to_owned(), "mill".to_owned()],
            all_classes: Some(vec!["City".to_owned()]),
            length: Some(length),
            input_tokens: 10,
            cut_tokens: usize::from(length > 8000),
            finish: Finish::Length,
            input_hash: String::new(),
        }
    }

    fn judged(idx: &str, score: f64) -> Judged {
        let (dataset, input_hash) = (String::new(), String::new());
        let (idx, forced) = (idx.to_owned(), score == 0.0);
        Judged { idx, dataset, score, best: 0, verdicts: Vec::new(), forced, input_hash }
    }

    fn summary() -> Summary {
        let predictions = [
            prediction("qasper/1", "the mill", 100),
            prediction("qasper/2", "nothing", 9000),
            prediction("narrativeqa/1", "a mill", 5000),
            prediction("trec/1", "\nCity\nnot read", 100),
            prediction("other/1", "mill", 1),
        ];
        let verdicts = [judged("qasper/1", 0.5), judged("narrativeqa/1", 0.0), judged("x/1", 1.0)];
        Summary::new(about(), &predictions, &verdicts, Bootstrap { resamples: 100, seed: 0 })
    }

    #[test]
    fn means_are_of_sets_then_of_classes() {
        let lines = summary().lines;
        let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
        let expected =
            ["qasper", "narrativeqa", "trec", "single-document QA", "few-shot", "all sets"];
        assert_eq!(names, expected);
        let value = |line: usize, score: &str| lines[line].scores.get(score)?.value;
        assert_eq!(
            [0, 1, 2].map(|line| value(line, "metric")),
            [Some(50.0), Some(100.0), Some(100.0)]
        );
        assert_eq!([0, 1, 2].map(|line| value(line, "judge")), [Some(50.0), Some(0.0), None]);
        assert_eq!((value(3, "metric"), value(3, "judge")), (Some(75.0), Some(25.0)));
        let all = value(5, "metric").unwrap();
        assert!((all - 250.0 / 3.0).abs() < 1e-9);
        assert_eq!(value(5, "judge"), Some(25.0));
        let interval = lines[0].scores["metric"];
        assert_eq!((interval.low, interval.high), (Some(0.0), Some(100.0)));
    }

    #[test]
    fn every_line_says_what_it_rests_on() {
        let lines = summary().lines;
        let Line { rows, n, judged, cut, unfinished, forced, .. } = lines[0];
        assert_eq!((rows, n, judged, cut, unfinished, forced), (3, 2, 1, 1, 2, 0));
        assert_eq!((lines[1].forced, lines[5].rows, lines[5].n), (1, 6, 4));
        assert_eq!(lines[0].prompt.as_deref(), Some("qasperqasper"));
        assert_eq!(lines[3].prompt.as_ref().unwrap().len(), 64);
        assert_eq!(lines[0].judge_prompt, lines[3].judge_prompt);
        assert_eq!((lines[2].judge_prompt.as_ref(), lines[5].measure.as_ref()), (None, None));
        assert_eq!(lines[3].measure.as_deref(), Some("F1"));
    }

    #[test]
    fn bins_are_by_length() {
        let lines = summary().lines;
        let bins = |line: usize| -> Vec<(usize, Option<f64>)> {
            let value = |bin: &Bin| (bin.n, bin.scores.get("metric").and_then(|one| one.value));
            lines[line].bins.iter().map(value).collect()
        };
        assert_eq!(bins(0), [(1, Some(100.0)), (0, None), (1, Some(0.0))]);
        assert_eq!(bins(3), [(1, Some(100.0)), (1, Some(100.0)), (1, Some(0.0))]);
    }

    #[test]
    fn results_survive_json() {
        let summary = summary();
        let json = serde_json::to_string(&summary).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), summary);
    }
}
