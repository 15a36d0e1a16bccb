//! LongBench's own measures, as pure functions from a prediction and a reference to 0 to 1.
//!
//! They give the numbers of the suite's public scorer, its peculiarities included, since a score is
//! of use only beside other scores made the same way:
//!
//! | measure | peculiarity |
//! |---|---|
//! | [`qa_f1`] | words after lower-casing, without ASCII punctuation and English articles |
//! | [`qa_f1_zh`] | words by jieba (with its model for unknown words), punctuation dropped afterwards |
//! | [`rouge_l`] | PyPI's `rouge` 1.0.1: sentences end at every `.`, words count once, union of subsequences |
//! | [`rouge_l_zh`] | the same over words by jieba; `。` ends no sentence |
//! | [`classification`] | every class named in the prediction counts, but for parts of the right name |
//! | [`retrieval`], [`count`] | the share of right ones among all numbers in the prediction |
//! | [`code_similarity`] | `fuzzywuzzy` 0.18 on Python's `difflib`: first line of code, whole percents |
//!
//! One thing is not copied: beyond Python's depth of recursion (about a thousand words on the way
//! through two sentences) the public scorer's ROUGE-L fails and counts as 0. Here it has its value;
//! see [`rouge_l_fails_in_python`].

mod classes;
mod code;
mod difflib;
mod f1;
#[cfg(test)]
mod goldens;
mod numbers;
mod python;
mod rouge;
mod words;

pub use classes::classification;
pub use code::code_similarity;
pub use f1::{qa_f1, qa_f1_zh};
pub use numbers::{count, names_paragraph, retrieval};
pub use rouge::{rouge_l, rouge_l_fails_in_python, rouge_l_zh, rouge_l_zh_fails_in_python};

use serde::{Deserialize, Serialize};

/// How a prediction is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    QaF1,
    QaF1Zh,
    RougeL,
    RougeLZh,
    Classification,
    Retrieval,
    RetrievalZh,
    Count,
    CodeSimilarity,
}

impl Metric {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Metric::QaF1 | Metric::QaF1Zh => "F1",
            Metric::RougeL | Metric::RougeLZh => "ROUGE-L",
            Metric::Classification => "accuracy",
            Metric::Retrieval | Metric::RetrievalZh => "retrieval",
            Metric::Count => "count",
            Metric::CodeSimilarity => "edit similarity",
        }
    }

    /// 0 to 1 against one reference. `classes` are the names that a classification chooses from.
    pub fn score(self, prediction: &str, reference: &str, classes: &[String]) -> f64 {
        match self {
            Metric::QaF1 => qa_f1(prediction, reference),
            Metric::QaF1Zh => qa_f1_zh(prediction, reference),
            Metric::RougeL => rouge_l(prediction, reference),
            Metric::RougeLZh => rouge_l_zh(prediction, reference),
            Metric::Classification => classification(prediction, reference, classes),
            Metric::Retrieval | Metric::RetrievalZh => retrieval(prediction, reference),
            Metric::Count => count(prediction, reference),
            Metric::CodeSimilarity => code_similarity(prediction, reference),
        }
    }

    /// The maximum over the references; 0 without any.
    pub fn best(self, prediction: &str, references: &[String], classes: &[String]) -> f64 {
        let scores = references.iter().map(|one| self.score(prediction, one, classes));
        scores.fold(0.0, f64::max)
    }

    /// Whether the public scorer gives up on one of the references and counts it as 0.
    pub fn fails_in_python(self, prediction: &str, references: &[String]) -> bool {
        let fails: fn(&str, &str) -> bool = match self {
            Metric::RougeL => rouge_l_fails_in_python,
            Metric::RougeLZh => rouge_l_zh_fails_in_python,
            _ => return false,
        };
        references.iter().any(|reference| fails(prediction, reference))
    }
}

/// What is measured of a prediction for a set of few examples: its first line, line breaks before
/// it left out.
pub fn first_line(prediction: &str) -> &str {
    prediction.trim_start_matches('\n').split('\n').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_reference_counts() {
        let references = ["a red house".to_owned(), "green".to_owned()];
        assert_eq!(Metric::QaF1.best("Green!", &references, &[]), 1.0);
        assert_eq!(Metric::QaF1.best("Green!", &[], &[]), 0.0);
    }

    #[test]
    fn a_first_line_is_not_empty_if_there_is_another() {
        assert_eq!(first_line("\n\n x y \nz"), " x y ");
        assert_eq!((first_line(""), first_line("\n"), first_line("a")), ("", "", "a"));
    }

    #[test]
    fn long_chains_of_words_are_told() {
        let fails =
            |words: usize| rouge_l_fails_in_python(&"w ".repeat(words), &"w ".repeat(words));
        assert_eq!((fails(990), fails(991)), (false, true));
        let long = "word ".repeat(1000);
        assert!(Metric::RougeL.fails_in_python(&long, &["x".to_owned(), long.clone()]));
        // Even where nothing is in common, the search goes through all words.
        assert!(Metric::RougeL.fails_in_python(&long, &["x".to_owned()]));
        assert!(!Metric::RougeL.fails_in_python("a. b", &[long.replace(' ', ".")]));
        assert!(!Metric::QaF1.fails_in_python(&long, std::slice::from_ref(&long)));
        assert!(Metric::RougeL.score(&long, &long, &[]) > 0.99);
    }
}
