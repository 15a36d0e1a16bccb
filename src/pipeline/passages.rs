//! The passages of a text, and finding those that bear on a statement.

use crate::judge::Evidence;
use crate::retrieval::chunk::Chunk;
use crate::retrieval::{EmbedError, Index, Retriever};
use std::ops::Range;

/// A text in passages.
#[derive(Debug)]
pub struct Passages {
    text: String,
    chunks: Vec<Chunk>,
    /// Made when it is first searched.
    index: Option<Index>,
}

impl Passages {
    /// `chunks` are pieces of `text`, in its order.
    pub fn new(text: String, chunks: Vec<Chunk>) -> Self {
        Self { text, chunks, index: None }
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Tokens of the whole text.
    pub fn tokens(&self) -> usize {
        self.chunks.first().map_or(0, |chunk| chunk.total_tokens)
    }

    /// The texts of the passages, in order.
    pub fn texts(&self) -> Vec<&str> {
        self.chunks.iter().map(|chunk| &self.text[chunk.bytes.clone()]).collect()
    }

    /// The text of one passage.
    pub fn passage(&self, passage: usize) -> &str {
        &self.text[self.chunks[passage].bytes.clone()]
    }

    /// Says that they will be searched.
    pub fn expect(&self, retriever: &mut Retriever) {
        retriever.expect(&self.texts());
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

    /// These passages as they stand in records.
    pub fn evidence(&self, passages: &[usize]) -> Vec<Evidence> {
        let evidence = |&c_idx: &usize| {
            let Chunk { tokens, total_tokens, .. } = &self.chunks[c_idx];
            Evidence {
                c_idx,
                content: self.passage(c_idx).to_owned(),
                start_idx: tokens.start,
                end_idx: tokens.end,
                total_token: *total_tokens,
            }
        };
        passages.iter().map(evidence).collect()
    }

    /// How many bytes of a range of the text lie in these passages, which are in its order.
    pub fn covered(&self, passages: &[usize], range: &Range<usize>) -> usize {
        let mut counted = range.start;
        let mut covered = 0;
        for &passage in passages {
            let bytes = &self.chunks[passage].bytes;
            let (start, end) = (bytes.start.max(counted), bytes.end.min(range.end));
            covered += end.saturating_sub(start);
            counted = counted.max(end);
        }
        covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::testing::tokens;
    use crate::retrieval::chunk::{CutAt, Cutting};

    fn passages(overlap: usize) -> Passages {
        let text = "the cat sat. the dog ran. it rained.";
        let cutting = Cutting { size: 3, overlap, at: CutAt::Tokens };
        Passages::new(text.to_owned(), cutting.cut(text, &tokens(text)))
    }

    #[test]
    fn evidence_names_its_place() {
        let mut passages = passages(0);
        let found = passages.search(&mut Retriever::Bm25, &["rained dog", "cat"], 2).unwrap();
        assert_eq!(found, [vec![1, 2], vec![0, 1]]);
        let evidence = passages.evidence(&found[0]);
        assert_eq!(evidence[1].content, "it rained.");
        let place = (evidence[1].c_idx, evidence[1].start_idx, evidence[1].end_idx);
        assert_eq!((place, evidence[1].total_token), ((2, 6, 8), 8));
    }

    #[test]
    fn what_passages_share_is_covered_once() {
        let passages = passages(1);
        let whole = 0..passages.text().len();
        let all: Vec<usize> = (0..passages.texts().len()).collect();
        assert!(all.len() > 3);
        assert_eq!(passages.covered(&all, &whole), whole.len());
        assert_eq!(passages.covered(&[0], &(4..7)), 3);
        assert_eq!(passages.covered(&[1], &(0..4)), 0);
    }
}
