//! Cutting documents into chunks, and finding the chunks that bear on a statement.

mod background;
pub mod bm25;
pub mod chunk;
pub mod embed;
mod remembered;
pub mod script;
pub mod sentences;

pub use background::Background;
pub use bm25::Bm25;
pub use chunk::Chunk;
pub use embed::{Embed, EmbedError, Embeddings};
pub use remembered::{Remembered, Vectors};

/// How many chunks are shown for a statement.
pub const TOP_CHUNKS: usize = 5;

/// A way to find chunks.
pub enum Retriever {
    /// By the words they share.
    Bm25,
    /// By the cosine of their embeddings.
    Embeddings(Box<dyn Embed>),
    /// By their ranks in both orders: reciprocal rank fusion (Cormack, Clarke and Büttcher 2009).
    Hybrid(Box<dyn Embed>),
}

/// The chunks of one document, ready to be searched.
#[derive(Debug, Clone)]
pub enum Index {
    Bm25(Bm25),
    Embeddings(Embeddings),
    Hybrid(Bm25, Embeddings),
}

impl Retriever {
    /// The same with an embedder that embeds no text twice.
    pub fn remembering(self, known: &Vectors) -> Self {
        match self {
            Self::Bm25 => Self::Bm25,
            Self::Embeddings(embed) => Self::Embeddings(Box::new(Remembered::new(embed, known))),
            Self::Hybrid(embed) => Self::Hybrid(Box::new(Remembered::new(embed, known))),
        }
    }

    /// Says that an index of these chunks will be asked for ([`Embed::expect`]).
    pub fn expect(&mut self, chunks: &[&str]) {
        match self {
            Retriever::Bm25 => {}
            Retriever::Embeddings(embed) | Retriever::Hybrid(embed) => embed.expect(chunks),
        }
    }

    /// Prepares a document's chunks, once for all statements.
    ///
    /// # Errors
    /// [`EmbedError`] from the embedder, or if its vectors have not all the same length.
    pub fn index(&mut self, chunks: &[&str]) -> Result<Index, EmbedError> {
        match self {
            Retriever::Bm25 => Ok(Index::Bm25(Bm25::new(chunks))),
            Retriever::Embeddings(embed) => {
                Embeddings::new(embed.as_mut(), chunks).map(Index::Embeddings)
            }
            Retriever::Hybrid(embed) => {
                let embeddings = Embeddings::new(embed.as_mut(), chunks)?;
                Ok(Index::Hybrid(Bm25::new(chunks), embeddings))
            }
        }
    }

    /// For each query the `k` best chunks (all, if there are fewer), in document order. Among equal
    /// scores the lowest indices win.
    ///
    /// # Errors
    /// [`EmbedError`] from the embedder, or if the index was made by another one.
    pub fn search(
        &mut self,
        index: &Index,
        queries: &[&str],
        k: usize,
    ) -> Result<Vec<Vec<usize>>, EmbedError> {
        let by_words = |bm25: &Bm25| -> Vec<Vec<f64>> {
            queries.iter().map(|query| bm25.scores(query)).collect()
        };
        let scores: Vec<Vec<f64>> = match (self, index) {
            (_, Index::Bm25(bm25)) => by_words(bm25),
            (Self::Embeddings(embed) | Self::Hybrid(embed), Index::Embeddings(embeddings)) => {
                embeddings.scores(embed.as_mut(), queries)?
            }
            (Self::Embeddings(embed) | Self::Hybrid(embed), Index::Hybrid(bm25, embeddings)) => {
                let by_meaning = embeddings.scores(embed.as_mut(), queries)?;
                by_words(bm25).into_iter().zip(by_meaning).map(|(a, b)| fused(&a, &b)).collect()
            }
            (Self::Bm25, Index::Embeddings(_) | Index::Hybrid(..)) => {
                let why = "an index of embeddings can't be searched by words";
                return Err(EmbedError(why.to_owned()));
            }
        };
        Ok(scores.iter().map(|scores| best(scores, k)).collect())
    }
}

/// What the first ranks count for more than later ones is damped by this (the value of the paper).
const DAMPING: f64 = 60.0;

/// Scores by rank in two orders.
fn fused(a: &[f64], b: &[f64]) -> Vec<f64> {
    let (a, b) = (ranks(a), ranks(b));
    a.iter().zip(&b).map(|(a, b)| 1.0 / (DAMPING + a) + 1.0 / (DAMPING + b)).collect()
}

/// How many scores are higher, and one; equal scores have equal ranks.
fn ranks(scores: &[f64]) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    scores.iter().map(|score| sorted.partition_point(|other| other > score) as f64 + 1.0).collect()
}

/// The indices of the `k` highest scores, ascending; of equal scores the first.
fn best(scores: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(k);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text's vector: how many a's and b's it has.
    struct Letters;

    impl Embed for Letters {
        fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
            let count = |text: &str, letter| text.matches(letter).count() as f32;
            Ok(texts.iter().map(|text| vec![count(text, 'a'), count(text, 'b')]).collect())
        }
    }

    fn found(mut retriever: Retriever, chunks: &[&str], query: &str, k: usize) -> Vec<usize> {
        let index = retriever.index(chunks).unwrap();
        retriever.search(&index, &[query], k).unwrap().remove(0)
    }

    #[test]
    fn the_best_chunks_come_in_document_order() {
        let chunks = ["b", "ab", "a", "bbb"];
        assert_eq!(found(Retriever::Embeddings(Box::new(Letters)), &chunks, "a", 2), [1, 2]);
        let chunks = ["no", "cats sleep", "no", "cats and dogs", "dogs"];
        assert_eq!(found(Retriever::Bm25, &chunks, "cats dogs", 3), [1, 3, 4]);
    }

    #[test]
    fn ties_go_to_the_lowest_indices() {
        let chunks = ["x", "a", "x", "a", "a", "x"];
        for retriever in [Retriever::Bm25, Retriever::Embeddings(Box::new(Letters))] {
            assert_eq!(found(retriever, &chunks, "a", 2), [1, 3]);
        }
        assert_eq!(found(Retriever::Bm25, &chunks, "nothing shared", 3), [0, 1, 2]);
    }

    #[test]
    fn ranks_in_both_orders_count() {
        assert_eq!(ranks(&[0.5, 2.0, 0.5, 1.0]), [3.0, 1.0, 3.0, 2.0]);
        let scores = fused(&[2.0, 1.0, 0.0], &[0.1, 0.9, 0.2]);
        let want = [1.0 / 61.0 + 1.0 / 63.0, 1.0 / 62.0 + 1.0 / 61.0, 1.0 / 63.0 + 1.0 / 62.0];
        assert_eq!(scores, want);
        // The last shares a word, the first two have the letters, the second both.
        let chunks = ["aab", "aab cats", "b", "cats"];
        let hybrid = Retriever::Hybrid(Box::new(Letters));
        assert_eq!(found(hybrid, &chunks, "cats aab", 1), [1]);
    }

    #[test]
    fn fewer_chunks_than_wanted_are_all_found() {
        assert_eq!(found(Retriever::Bm25, &["a", "b"], "b", TOP_CHUNKS), [0, 1]);
        assert_eq!(found(Retriever::Bm25, &[], "b", TOP_CHUNKS), Vec::<usize>::new());
    }

    #[test]
    fn each_query_has_its_own_chunks() {
        let mut retriever = Retriever::Embeddings(Box::new(Letters));
        let index = retriever.index(&["a", "b"]).unwrap();
        assert_eq!(retriever.search(&index, &["b", "a"], 1).unwrap(), [[1], [0]]);
        assert!(Retriever::Bm25.search(&index, &["a"], 1).is_err());
    }
}
