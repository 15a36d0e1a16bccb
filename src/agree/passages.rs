//! What passages the evidence of labelled claims is cut into.

use crate::pipeline::Tokens;
use crate::pipeline::passages::Passages;
use crate::retrieval::chunk::{Chunk, Cutting};
use std::fmt;
use std::ops::Range;

/// What a passage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// A chunk, as scoring has it.
    Chunks(Cutting),
    /// A sentence as the labels have it.
    Sentences,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Cut::Chunks(cutting) => cutting.fmt(f),
            Cut::Sentences => write!(f, "sentences"),
        }
    }
}

/// Cuts sentences, which are joined by line breaks, as `cut` says. Where each is a passage, they
/// count as the tokens of the chunks.
pub fn passages_of(sentences: &[String], cut: Cut, tokens: &Tokens) -> Passages {
    let text = sentences.join("\n");
    let chunks = match cut {
        Cut::Chunks(cutting) => cutting.cut(&text, &tokens(&text)),
        Cut::Sentences => sentence_chunks(&text, sentences),
    };
    Passages::new(text, chunks)
}

/// A chunk for each sentence that is not blank.
fn sentence_chunks(text: &str, sentences: &[String]) -> Vec<Chunk> {
    let total_tokens = sentences.len();
    let ranges = sentence_ranges(sentences).into_iter().enumerate();
    ranges
        .map(|(i, bytes)| Chunk { bytes, tokens: i..i + 1, total_tokens })
        .filter(|chunk| !text[chunk.bytes.clone()].trim().is_empty())
        .collect()
}

/// Where each sentence stands in the text that [`passages_of`] makes of them.
pub fn sentence_ranges(sentences: &[String]) -> Vec<Range<usize>> {
    let mut start = 0;
    let range = |sentence: &String| {
        let range = start..start + sentence.len();
        start = range.end + 1;
        range
    };
    sentences.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::tokens;
    use crate::retrieval::Retriever;

    fn sentences() -> Vec<String> {
        ["The cat sat.", "", "The dog ran off.", "It rained."].map(str::to_owned).to_vec()
    }

    #[test]
    fn sentences_are_passages_or_are_cut_by_tokens() {
        let by_sentence = passages_of(&sentences(), Cut::Sentences, &tokens);
        assert_eq!(by_sentence.texts(), ["The cat sat.", "The dog ran off.", "It rained."]);
        let by_tokens = passages_of(&sentences(), Cut::Chunks(Cutting::tokens(3)), &tokens);
        assert_eq!(by_tokens.texts().concat(), "The cat sat.\n\nThe dog ran off.\nIt rained.");
        let ranges = sentence_ranges(&sentences());
        assert_eq!(&by_tokens.text()[ranges[3].clone()], "It rained.");
        assert_eq!(by_sentence.covered(&[0, 1], &ranges[2]), ranges[2].len());
        assert_eq!(by_sentence.covered(&[0], &ranges[2]), 0);
    }

    #[test]
    fn evidence_comes_in_the_order_of_the_text() {
        let mut passages = passages_of(&sentences(), Cut::Sentences, &tokens);
        let found = passages.search(&mut Retriever::Bm25, &["rained dog", "cat"], 2).unwrap();
        let evidence = passages.evidence(&found[0]);
        let texts: Vec<&str> = evidence.iter().map(|e| e.content.as_str()).collect();
        assert_eq!(texts, ["The dog ran off.", "It rained."]);
        let place = (evidence[1].c_idx, evidence[1].start_idx, evidence[1].total_token);
        assert_eq!(place, (2, 3, 4));
        assert_eq!(passages.evidence(&found[1])[0].content, "The cat sat.");
    }
}
