//! Cutting documents into chunks, and finding the chunks that bear on a statement.

pub mod bm25;
pub mod chunk;
pub mod embed;
pub mod sentences;

pub use bm25::Bm25;
pub use chunk::Chunk;
pub use embed::{Embed, EmbedError, Embeddings};

/// How many chunks are shown for a statement.
pub const TOP_CHUNKS: usize = 5;

/// A way to find chunks.
pub enum Retriever {
    /// By the words they share.
    Bm25,
    /// By the cosine of their embeddings.
    Embeddings(Box<dyn Embed>),
}

/// The chunks of one document, ready to be searched.
#[derive(Debug, Clone)]
pub enum Index {
    Bm25(Bm25),
    Embeddings(Embeddings),
}

impl Retriever {
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
        let scores = match (self, index) {
            (_, Index::Bm25(bm25)) => queries.iter().map(|query| bm25.scores(query)).collect(),
            (Retriever::Embeddings(embed), Index::Embeddings(embeddings)) => {
                embeddings.scores(embed.as_mut(), queries)?
            }
            (Retriever::Bm25, Index::Embeddings(_)) => {
                let why = "an index of embeddings can't be searched by words";
                return Err(EmbedError(why.to_owned()));
            }
        };
        Ok(scores.iter().map(|scores: &Vec<f64>| best(scores, k)).collect())
    }
}

/// The indices of the `k` highest scores, ascending; of equal scores the first.
fn best(scores: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(k);
    order.sort_unstable();
    order
}
