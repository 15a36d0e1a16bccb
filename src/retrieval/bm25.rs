//! Search by shared words: Okapi BM25 (Robertson and Zaragoza 2009) with the never-negative idf
//! `ln(1 + (N - n + 0.5) / (n + 0.5))`.

use super::script::{is_unspaced, narrow};
use std::collections::HashMap;

/// How soon a repeated term stops to count.
const K1: f64 = 1.2;
/// How much a long chunk is held back.
const B: f64 = 0.75;

/// The chunks of a document as bags of terms.
#[derive(Debug, Clone)]
pub struct Bm25 {
    /// For each term the chunks that have it, with how often, in the order of the chunks.
    postings: HashMap<String, Vec<(usize, f64)>>,
    /// Terms of each chunk.
    lengths: Vec<f64>,
    mean_length: f64,
}

impl Bm25 {
    pub fn new(chunks: &[&str]) -> Self {
        let mut postings: HashMap<String, Vec<(usize, f64)>> = HashMap::new();
        let mut lengths = Vec::with_capacity(chunks.len());
        for (chunk, text) in chunks.iter().enumerate() {
            let terms = terms(text);
            lengths.push(terms.len() as f64);
            for term in terms {
                let chunks = postings.entry(term).or_default();
                match chunks.last_mut() {
                    Some((last, count)) if *last == chunk => *count += 1.0,
                    _ => chunks.push((chunk, 1.0)),
                }
            }
        }
        let mean_length = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        Self { postings, lengths, mean_length }
    }

    /// The score of every chunk for a query. A term counts as often as the query has it.
    pub fn scores(&self, query: &str) -> Vec<f64> {
        let mut scores = vec![0.0; self.lengths.len()];
        for term in terms(query) {
            let Some(chunks) = self.postings.get(&term) else { continue };
            let idf = self.idf(chunks.len());
            for &(chunk, count) in chunks {
                let held_back = K1 * (1.0 - B + B * self.lengths[chunk] / self.mean_length);
                scores[chunk] += idf * count * (K1 + 1.0) / (count + held_back);
            }
        }
        scores
    }

    fn idf(&self, chunks_with_term: usize) -> f64 {
        let with = chunks_with_term as f64;
        (1.0 + (self.lengths.len() as f64 - with + 0.5) / (with + 0.5)).ln()
    }
}

/// Lower-cased words with full-width characters folded, and the pairs of neighbours in runs of Chinese and Japanese characters (a run
/// of one is a term itself), in the order of the text.
pub fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let text = text.chars().map(narrow).collect::<String>().to_lowercase();
    for run in text.split(|c: char| !c.is_alphanumeric()) {
        let mut rest = run;
        while let Some(first) = rest.chars().next() {
            let kind = is_unspaced(first);
            let end = rest.find(|c| is_unspaced(c) != kind).unwrap_or(rest.len());
            let (same, after) = rest.split_at(end);
            if kind {
                push_bigrams(same, &mut terms)
            } else {
                terms.push(same.to_owned())
            }
            rest = after;
        }
    }
    terms
}

fn push_bigrams(run: &str, terms: &mut Vec<String>) {
    let chars: Vec<char> = run.chars().collect();
    if chars.len() == 1 {
        terms.push(run.to_owned());
    }
    terms.extend(chars.windows(2).map(|pair| pair.iter().collect::<String>()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_cased_and_han_runs_become_pairs() {
        assert_eq!(terms("The GLM-4's Café"), ["the", "glm", "4", "s", "café"]);
        assert_eq!(terms("大桥建成，1913年"), ["大桥", "桥建", "建成", "1913", "年"]);
        assert_eq!(terms("ＧＬＭ－４于１９１３年"), terms("GLM-4于1913年"));
        assert_eq!(terms("用Rust写かな"), ["用", "rust", "写か", "かな"]);
        assert_eq!(terms(" -- "), Vec::<String>::new());
    }

    /// By hand: N = 3, mean length (3 + 5 + 1) / 3 = 3.
    /// "cat" is in chunks 0 and 1: idf = ln(1 + 1.5 / 2.5) = ln 1.6 = 0.470003629.
    /// "mat" is in chunk 1: idf = ln(1 + 2.5 / 1.5) = ln 2.666667 = 0.980829253.
    /// Chunk 0, length 3: held back by 1.2; "cat" once: 2.2 / 2.2 = 1.
    /// Chunk 1, length 5: held back by 1.2 × (0.25 + 0.75 × 5 / 3) = 1.8; "cat" twice:
    /// 2 × 2.2 / 3.8 = 1.157894737; "mat" once: 2.2 / 2.8 = 0.785714286.
    #[test]
    fn scores_equal_those_computed_by_hand() {
        let index = Bm25::new(&["the cat sat", "Cat, cat on a mat", "dog"]);
        let scores = index.scores("cat mat bird");
        let expected = [0.470003629, 0.470003629 * 1.157894737 + 0.980829253 * 0.785714286, 0.0];
        for (score, expected) in scores.iter().zip(expected) {
            assert!((score - expected).abs() < 1e-8, "{scores:?}");
        }
        let twice = index.scores("cat cat");
        assert_eq!(twice[0], 2.0 * index.scores("cat")[0]);
    }

    #[test]
    fn chinese_is_found_by_pairs_of_characters() {
        let index = Bm25::new(&["大桥于1911年动工", "镇长养蜂", "桥大"]);
        let scores = index.scores("大桥何时动工");
        assert!(scores[0] > 0.0);
        assert_eq!(scores[1..], [0.0, 0.0]);
    }

    #[test]
    fn empty_chunks_and_queries_score_zero() {
        assert_eq!(Bm25::new(&[]).scores("a"), Vec::<f64>::new());
        assert_eq!(Bm25::new(&["", "a"]).scores(""), [0.0, 0.0]);
        assert_eq!(Bm25::new(&["", ""]).scores("a"), [0.0, 0.0]);
    }
}
