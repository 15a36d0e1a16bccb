//! The passages of a text, and finding those that bear on a statement.

use crate::judge::Evidence;
use crate::pipeline::Tokens;
use crate::retrieval::chunk::{Chunk, chunks};
use crate::retrieval::{EmbedError, Index, Retriever};
use std::fmt;
use std::ops::Range;

/// What a passage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// So many tokens, as scoring has it.
    Tokens(usize),
    /// A sentence as the labels have it.
    Sentences,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Cut::Tokens(size) => write!(f, "{size} tokens"),
            Cut::Sentences => write!(f, "sentences"),
        }
    }
}

/// A text in passages.
#[derive(Debug)]
pub struct Passages {
    text: String,
    chunks: Vec<Chunk>,
    /// Made when it is first searched.
    index: Option<Index>,
}

impl Passages {
    /// Cuts a text into chunks of `size` tokens.
    pub fn cut(text: &str, size: usize, tokens: &Tokens) -> Self {
        let chunks = chunks(text, &tokens(text), size);
        Self { text: text.to_owned(), chunks, index: None }
    }

    /// Cuts sentences, which are joined by line breaks, as `cut` says. Where each is a passage,
    /// they count as the tokens of the chunks.
    pub fn of_sentences(sentences: &[String], cut: Cut, tokens: &Tokens) -> Self {
        let text = sentences.join("\n");
        match cut {
            Cut::Tokens(size) => Self::cut(&text, size, tokens),
            Cut::Sentences => {
                let chunks = sentence_chunks(&text, sentences);
                Self { text, chunks, index: None }
            }
        }
    }

    /// The texts of the passages, in order.
    pub fn texts(&self) -> Vec<&str> {
        self.chunks.iter().map(|chunk| &self.text[chunk.bytes.clone()]).collect()
    }

    /// For each query the `k` best passages, in the order of the text.
    ///
    /// # Errors
    /// From the embedder.
    pub fn search(
        &mut self,
        retriever: &mut Retriever,
        queries: &[&str],
        k: usize,
    ) -> Result<Vec<Vec<usize>>, EmbedError> {
        let index = match self.index.take() {
            Some(index) => index,
            None => retriever.index(&self.texts())?,
        };
        let found = retriever.search(&index, queries, k);
        self.index = Some(index);
        found
    }

    /// As [`search`](Self::search), with the texts.
    ///
    /// # Errors
    /// From the embedder.
    pub fn evidence(
        &mut self,
        retriever: &mut Retriever,
        queries: &[&str],
        k: usize,
    ) -> Result<Vec<Vec<Evidence>>, EmbedError> {
        let found = self.search(retriever, queries, k)?;
        let evidence = |found: Vec<usize>| found.into_iter().map(|c_idx| self.passage(c_idx));
        Ok(found.into_iter().map(|found| evidence(found).collect()).collect())
    }

    fn passage(&self, c_idx: usize) -> Evidence {
        let Chunk { bytes, tokens, total_tokens } = &self.chunks[c_idx];
        Evidence {
            c_idx,
            content: self.text[bytes.clone()].to_owned(),
            start_idx: tokens.start,
            end_idx: tokens.end,
            total_token: *total_tokens,
        }
    }

    /// How many bytes of a range of the text lie in these passages.
    pub fn covered(&self, passages: &[usize], range: &Range<usize>) -> usize {
        let overlap = |&passage: &usize| {
            let bytes = &self.chunks[passage].bytes;
            bytes.end.min(range.end).saturating_sub(bytes.start.max(range.start))
        };
        passages.iter().map(overlap).sum()
    }
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

/// Where each sentence stands in the text that [`Passages::of_sentences`] makes of them.
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

    fn sentences() -> Vec<String> {
        ["The cat sat.", "", "The dog ran off.", "It rained."].map(str::to_owned).to_vec()
    }

    #[test]
    fn sentences_are_passages_or_are_cut_by_tokens() {
        let by_sentence = Passages::of_sentences(&sentences(), Cut::Sentences, &tokens);
        assert_eq!(by_sentence.texts(), ["The cat sat.", "The dog ran off.", "It rained."]);
        let by_tokens = Passages::of_sentences(&sentences(), Cut::Tokens(3), &tokens);
        assert_eq!(by_tokens.texts().concat(), "The cat sat.\n\nThe dog ran off.\nIt rained.");
        let ranges = sentence_ranges(&sentences());
        assert_eq!(&by_tokens.text[ranges[3].clone()], "It rained.");
        assert_eq!(by_sentence.covered(&[0, 1], &ranges[2]), ranges[2].len());
        assert_eq!(by_sentence.covered(&[0], &ranges[2]), 0);
    }

    #[test]
    fn evidence_comes_in_the_order_of_the_text() {
        let mut passages = Passages::of_sentences(&sentences(), Cut::Sentences, &tokens);
        let found = passages.evidence(&mut Retriever::Bm25, &["rained dog", "cat"], 2).unwrap();
        let texts: Vec<&str> = found[0].iter().map(|e| e.content.as_str()).collect();
        assert_eq!(texts, ["The dog ran off.", "It rained."]);
        assert_eq!((found[0][1].c_idx, found[0][1].start_idx, found[0][1].total_token), (2, 3, 4));
        assert_eq!(found[1][0].content, "The cat sat.");
    }
}
