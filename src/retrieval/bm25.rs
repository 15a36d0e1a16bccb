//! Search by shared words: Okapi BM25 (Robertson and Zaragoza 2009) with the never-negative idf
//! `ln(1 + (N - n + 0.5) / (n + 0.5))`.

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

/// Lower-cased words, and the pairs of neighbours in runs of Chinese and Japanese characters (a run
/// of one is a term itself), in the order of the text.
fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let text = text.to_lowercase();
    for run in text.split(|c: char| !c.is_alphanumeric()) {
        let mut rest = run;
        while let Some(first) = rest.chars().next() {
            let kind = is_cjk(first);
            let end = rest.find(|c| is_cjk(c) != kind).unwrap_or(rest.len());
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

/// Characters of scripts that put no blanks between words: Han and kana.
fn is_cjk(c: char) -> bool {
    matches!(c,
        '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}
