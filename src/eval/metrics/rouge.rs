//! ROUGE-L (Lin 2004) at the level of summaries, as PyPI's `rouge` 1.0.1 has it.
//!
//! A text is cut into sentences at `.`, a sentence into words at white space. For each sentence of
//! the reference, the words of its longest common subsequences with all sentences of the
//! prediction are united; all sizes are those of sets, so that a word counts once however often
//! it occurs.

use super::{python, words};
use std::collections::HashSet;

/// Keeps a quotient finite, and makes even a perfect score a little less than 1.
const EPSILON: f64 = 1e-8;

/// The longest chain of calls that Python 3.11, which allows 1,000 in all, leaves to the search in the
/// public scorer (measured).
const PYTHON_DEPTH: usize = 991;
/// As [`PYTHON_DEPTH`], where words are found by jieba: one call more comes before.
const PYTHON_DEPTH_ZH: usize = 990;

/// F of the subsequences' words. 0 if one of the texts has nothing but `.`.
pub fn rouge_l(prediction: &str, reference: &str) -> f64 {
    let (prediction, reference) = (sentences(prediction), sentences(reference));
    if prediction.is_empty() || reference.is_empty() {
        return 0.0;
    }
    let mut union = HashSet::new();
    for wanted in &reference {
        for said in &prediction {
            union.extend(common_subsequence(wanted, said).words);
        }
    }
    let sizes =
        [&prediction, &reference].map(|text| text.iter().flatten().collect::<HashSet<_>>().len());
    let [precision, recall] = sizes.map(|size| union.len() as f64 / size as f64);
    2.0 * ((precision * recall) / (precision + recall + EPSILON))
}

/// [`rouge_l`] over jieba's words.
pub fn rouge_l_zh(prediction: &str, reference: &str) -> f64 {
    rouge_l(&spaced(prediction), &spaced(reference))
}

/// Whether the public scorer, whose search is recursive, fails and counts 0.
pub fn rouge_l_fails_in_python(prediction: &str, reference: &str) -> bool {
    chain_exceeds(PYTHON_DEPTH, prediction, reference)
}

/// As [`rouge_l_fails_in_python`], over jieba's words.
pub fn rouge_l_zh_fails_in_python(prediction: &str, reference: &str) -> bool {
    chain_exceeds(PYTHON_DEPTH_ZH, &spaced(prediction), &spaced(reference))
}

fn chain_exceeds(depth: usize, prediction: &str, reference: &str) -> bool {
    let (prediction, reference) = (sentences(prediction), sentences(reference));
    let longest = |text: &[Vec<&str>]| text.iter().map(Vec::len).max().unwrap_or(0);
    // A chain has at most a call for each word of both sentences.
    longest(&prediction) + longest(&reference) > depth
        && reference.iter().any(|wanted| {
            let steps = |said| common_subsequence(wanted, said).steps;
            prediction.iter().any(|said| steps(said) > depth)
        })
}

fn spaced(text: &str) -> String {
    words::cut(text).join(" ")
}

/// The words of each sentence. One of white space alone has a single empty word.
fn sentences(text: &str) -> Vec<Vec<&str>> {
    let sentences = text.split('.').filter(|sentence| !sentence.is_empty());
    let words = sentences.map(|sentence| python::split(sentence).collect::<Vec<_>>());
    words.map(|words| if words.is_empty() { vec![""] } else { words }).collect()
}

/// A longest common subsequence.
struct Common<'a> {
    words: Vec<&'a str>,
    /// Places of the table that were passed on the way back.
    steps: usize,
}

/// Of several, the one that is found from the ends by going back in `y` where both ways are as
/// good.
fn common_subsequence<'a>(x: &[&'a str], y: &[&str]) -> Common<'a> {
    let width = y.len() + 1;
    let mut lengths = vec![0u32; (x.len() + 1) * width];
    for i in 1..=x.len() {
        for j in 1..=y.len() {
            lengths[i * width + j] = match x[i - 1] == y[j - 1] {
                true => lengths[(i - 1) * width + j - 1] + 1,
                false => lengths[(i - 1) * width + j].max(lengths[i * width + j - 1]),
            };
        }
    }
    let (mut i, mut j) = (x.len(), y.len());
    let mut common = Common { words: Vec::new(), steps: 1 };
    while i > 0 && j > 0 {
        common.steps += 1;
        if x[i - 1] == y[j - 1] {
            common.words.push(x[i - 1]);
            (i, j) = (i - 1, j - 1);
        } else if lengths[(i - 1) * width + j] > lengths[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_at_every_point() {
        assert_eq!(sentences("a b. c.d .. "), [vec!["a", "b"], vec!["c"], vec!["d"], vec![""]]);
        assert!(sentences("...").is_empty());
        assert_eq!((rouge_l("", "a"), rouge_l("...", "a"), rouge_l("a", ".")), (0.0, 0.0, 0.0));
    }

    #[test]
    fn words_count_once_over_all_sentences() {
        // In common: the, mill; 3 different words against 4.
        let expected = 2.0 * (2.0 / 3.0 * 0.5) / (2.0 / 3.0 + 0.5);
        assert!(
            (rouge_l("the the mill burned", "the old mill. the mill stood") - expected).abs()
                < 1e-7
        );
    }

    #[test]
    fn which_subsequence_is_found_is_fixed() {
        assert_eq!(common_subsequence(&["a", "b"], &["b", "a"]).words, ["b"]);
        assert_eq!(common_subsequence(&["a", "b", "c"], &["c", "a", "b"]).words, ["b", "a"]);
    }

    #[test]
    fn chinese_is_measured_by_words() {
        assert!(rouge_l_zh("厦门大学。", "厦门大学") > 0.6);
        assert_eq!(rouge_l_zh("厦门大学", "北京"), 0.0);
    }
}
