//! What needs no judge: words and vectors in common. A judge that is not better is not needed.

use crate::retrieval::bm25::terms;
use crate::retrieval::{Embed, EmbedError, Embeddings};
use std::collections::HashSet;

/// The share of a text's distinct terms that others have, too; 0 of no terms.
pub fn coverage(text: &str, others: &[&str]) -> f64 {
    let wanted = distinct(&[text]);
    let found = wanted.intersection(&distinct(others)).count();
    found as f64 / wanted.len().max(1) as f64
}

/// F1 of the distinct terms of two texts: twice those in common over those of both.
pub fn overlap(one: &str, other: &str) -> f64 {
    let (one, other) = (distinct(&[one]), distinct(&[other]));
    let common = one.intersection(&other).count();
    2.0 * common as f64 / (one.len() + other.len()).max(1) as f64
}

fn distinct(texts: &[&str]) -> HashSet<String> {
    texts.iter().flat_map(|text| terms(text)).collect()
}

/// The highest cosine between a text and others; 0 if there are none.
///
/// # Errors
/// From the embedder.
pub fn nearest(embed: &mut dyn Embed, text: &str, others: &[&str]) -> Result<f64, EmbedError> {
    if others.is_empty() {
        return Ok(0.0);
    }
    let index = Embeddings::new(embed, others)?;
    let scores = index.scores(embed, &[text])?;
    Ok(scores.concat().into_iter().fold(f64::NEG_INFINITY, f64::max))
}

/// Puts values into as many classes as `counts` has, the higher the value the higher the class, so
/// that classes are as frequent as `counts` says (equal values all go to the higher one). So a
/// baseline knows how frequent the labels are, and nothing else of them.
pub fn as_frequent(values: &[f64], counts: &[usize]) -> Vec<usize> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let higher = |class: usize| counts[class..].iter().sum::<usize>();
    let least: Vec<Option<f64>> = (1..counts.len())
        .map(|class| higher(class).checked_sub(1).and_then(|last| sorted.get(last).copied()))
        .collect();
    let class = |value: &f64| {
        least.iter().filter(|least| least.is_some_and(|least| *value >= least)).count()
    };
    values.iter().map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_common() {
        assert_eq!(coverage("The cat sat", &["a cat", "the mat"]), 2.0 / 3.0);
        assert_eq!(coverage("", &["a"]), 0.0);
        assert_eq!(overlap("The cat the cat", "cat and dog"), 2.0 / 5.0);
        assert_eq!(overlap("", ""), 0.0);
    }

    #[test]
    fn classes_are_as_frequent_as_asked() {
        let values = [0.1, 0.9, 0.5, 0.7, 0.5];
        assert_eq!(as_frequent(&values, &[2, 2, 1]), [0, 2, 1, 1, 1]);
        assert_eq!(as_frequent(&values, &[0, 5, 0]), [1; 5]);
        assert_eq!(as_frequent(&values, &[5, 0, 0]), [0; 5]);
        assert_eq!(as_frequent(&[], &[0, 0]), Vec::<usize>::new());
    }

    /// One number for each letter a and b.
    struct Letters;

    impl Embed for Letters {
        fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
            let count = |text: &str, letter| text.matches(letter).count() as f32;
            Ok(texts.iter().map(|text| vec![count(text, 'a'), count(text, 'b')]).collect())
        }
    }

    #[test]
    fn the_nearest_text_counts() {
        assert_eq!(nearest(&mut Letters, "a", &["b", "aa", "ab"]), Ok(1.0));
        assert_eq!(nearest(&mut Letters, "a", &[]), Ok(0.0));
    }
}
