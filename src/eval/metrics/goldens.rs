//! The measures against LongBench's public scorer; see `tests/goldens/longbench`.

use super::*;
use crate::agree::metrics::SplitMix;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Golden {
    pools: BTreeMap<String, Vec<String>>,
    /// A score for each case, by measure.
    scores: BTreeMap<String, Vec<f64>>,
}

/// Draws texts as the script does.
struct Texts<'a> {
    pools: &'a BTreeMap<String, Vec<String>>,
    random: SplitMix,
}

impl Texts<'_> {
    fn length(&mut self) -> usize {
        match self.random.below(8) {
            0 => self.random.below(400),
            _ => self.random.below(40),
        }
    }

    fn text(&mut self, pools: &[&str]) -> String {
        let pool: Vec<&String> = pools.iter().flat_map(|name| &self.pools[*name]).collect();
        (0..self.length()).map(|_| pool[self.random.below(pool.len())].as_str()).collect()
    }

    fn pair(&mut self, pool: &str) -> (String, String) {
        let (prediction, reference) = (self.text(&[pool]), self.text(&[pool]));
        let reference = match self.random.below(8) {
            0 => prediction.clone(),
            1..5 => {
                let shared = self.random.below(prediction.chars().count() + 1);
                prediction.chars().take(shared).chain(reference.chars()).collect()
            }
            _ => reference,
        };
        (prediction, reference)
    }

    fn one(&mut self, pool: &str, of: usize) -> &str {
        let at = self.random.below(of);
        &self.pools[pool][at]
    }
}

/// The scores of a case by name, in the order in which its texts are drawn, with the texts.
fn scores(case: u64, pools: &BTreeMap<String, Vec<String>>) -> Vec<(&'static str, f64, String)> {
    let classes = &pools["classes"];
    let mut texts = Texts { pools, random: SplitMix(case) };
    let (english, chinese, code) =
        (texts.pair("english"), texts.pair("chinese"), texts.pair("code"));
    let reply = texts.text(&["comments", "code"]);
    let named = texts.text(&["classes", "english"]);
    let right = texts.one("classes", classes.len()).to_owned();
    let said = texts.text(&["numbers"]);
    let wanted = texts.one("numbers", 7).to_owned();
    let paragraph = format!("Paragraph {}", texts.one("numbers", 7));
    let section = format!("段落{}。", texts.one("numbers", 7));
    let score = |name, metric: Metric, prediction: &str, reference: &str| {
        let score = metric.score(prediction, reference, classes);
        (name, score, format!("{prediction:?} against {reference:?}"))
    };
    vec![
        score("qa_f1", Metric::QaF1, &english.0, &english.1),
        score("rouge_l", Metric::RougeL, &english.0, &english.1),
        score("qa_f1_zh", Metric::QaF1Zh, &chinese.0, &chinese.1),
        score("rouge_l_zh", Metric::RougeLZh, &chinese.0, &chinese.1),
        score("code", Metric::CodeSimilarity, &code.0, &code.1),
        score("code_in_comments", Metric::CodeSimilarity, &reply, &code.1),
        score("classification", Metric::Classification, &named, &right),
        score("count", Metric::Count, &said, &wanted),
        score("retrieval", Metric::Retrieval, &said, &paragraph),
        score("retrieval_zh", Metric::RetrievalZh, &said, &section),
    ]
}

#[test]
fn scores_are_those_of_the_public_scorer() {
    let text = include_str!("../../../tests/goldens/longbench/golden.json");
    let golden: Golden = serde_json::from_str(text).unwrap();
    let cases = golden.scores["count"].len();
    assert_eq!(cases, 1000);
    let mut off: BTreeMap<&str, usize> = BTreeMap::new();
    for case in 0..cases {
        for (name, ours, texts) in scores(case as u64, &golden.pools) {
            let theirs = golden.scores[name][case];
            if (ours - theirs).abs() > 1e-6 {
                *off.entry(name).or_default() += 1;
                eprintln!("{name}, case {case}: {ours}, not {theirs}: {texts}");
            }
        }
    }
    assert_eq!(off, BTreeMap::new());
}
