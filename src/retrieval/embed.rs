//! Search by embeddings: the cosine between statement and chunk.

/// Turns texts into vectors.
pub trait Embed {
    /// One vector per text, all of the same length; a text too long for the model is cut.
    ///
    /// # Errors
    /// Whatever stopped the embedder.
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;
}

/// Why texts could not be embedded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("embedder: {0}")]
pub struct EmbedError(pub String);

/// The chunks of a document as vectors of length 1.
#[derive(Debug, Clone)]
pub struct Embeddings {
    chunks: Vec<Vec<f32>>,
}

impl Embeddings {
    /// Embeds the chunks of a document.
    ///
    /// # Errors
    /// [`EmbedError`] from the embedder, or if it returns too few vectors or uneven ones.
    pub fn new(embed: &mut dyn Embed, chunks: &[&str]) -> Result<Self, EmbedError> {
        Ok(Self { chunks: unit_vectors(embed, chunks, None)? })
    }

    /// For each query the cosine with every chunk, in the order of the chunks.
    ///
    /// # Errors
    /// As [`Embeddings::new`].
    pub fn scores(
        &self,
        embed: &mut dyn Embed,
        queries: &[&str],
    ) -> Result<Vec<Vec<f64>>, EmbedError> {
        let queries = unit_vectors(embed, queries, self.chunks.first().map(Vec::len))?;
        Ok(queries
            .iter()
            .map(|query| self.chunks.iter().map(|chunk| dot(query, chunk)).collect())
            .collect())
    }
}

fn unit_vectors(
    embed: &mut dyn Embed,
    texts: &[&str],
    length: Option<usize>,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let mut vectors = embed.embed(texts)?;
    if vectors.len() != texts.len() {
        let (got, wanted) = (vectors.len(), texts.len());
        return Err(EmbedError(format!("{got} vectors for {wanted} texts")));
    }
    let length = length.unwrap_or(vectors[0].len());
    for (index, vector) in vectors.iter_mut().enumerate() {
        if vector.len() != length {
            let got = vector.len();
            return Err(EmbedError(format!("vector {index} has {got} numbers, not {length}")));
        }
        normalise(vector);
    }
    Ok(vectors)
}

/// To length 1; a vector of zeros, or with a number that is not finite, becomes zeros.
fn normalise(vector: &mut [f32]) {
    let norm = dot(vector, vector).sqrt();
    let usable = norm.is_finite() && norm > 0.0;
    for value in vector {
        *value = if usable { (f64::from(*value) / norm) as f32 } else { 0.0 };
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}
