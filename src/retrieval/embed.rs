//! Search by embeddings: the cosine between statement and chunk.

/// Turns texts into vectors.
pub trait Embed {
    /// One vector per text, all of the same length; a text too long for the model is cut.
    ///
    /// # Errors
    /// Whatever stopped the embedder.
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;

    /// Says that these texts will be asked for, all at once, so that one may begin.
    fn expect(&mut self, _texts: &[&str]) {}
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors spelled out in the texts.
    struct Spelled;

    impl Embed for Spelled {
        fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
            let number =
                |word: &str| word.parse().map_err(|_| EmbedError(format!("no number {word}")));
            texts.iter().map(|text| text.split(' ').map(number).collect()).collect()
        }
    }

    /// One vector too few.
    struct Short;

    impl Embed for Short {
        fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
            Ok(vec![vec![1.0]; texts.len() - 1])
        }
    }

    #[test]
    fn scores_are_cosines() {
        let index = Embeddings::new(&mut Spelled, &["2 0", "0 3", "-1 0", "1 1"]).unwrap();
        let scores = index.scores(&mut Spelled, &["5 0"]).unwrap();
        let expected = [1.0, 0.0, -1.0, 0.5f64.sqrt()];
        for (score, expected) in scores[0].iter().zip(expected) {
            assert!((score - expected).abs() < 1e-6, "{scores:?}");
        }
    }

    #[test]
    fn a_vector_without_direction_scores_zero() {
        let index = Embeddings::new(&mut Spelled, &["0 0", "NaN 1", "1 0"]).unwrap();
        assert_eq!(index.scores(&mut Spelled, &["1 0"]).unwrap(), [[0.0, 0.0, 1.0]]);
    }

    #[test]
    fn a_failing_or_uneven_embedder_is_an_error() {
        let new =
            |embed: &mut dyn Embed, texts: &[&str]| Embeddings::new(embed, texts).unwrap_err().0;
        assert_eq!(new(&mut Short, &["a", "b"]), "1 vectors for 2 texts");
        assert_eq!(new(&mut Spelled, &["1 0", "1"]), "vector 1 has 1 numbers, not 2");
        assert_eq!(new(&mut Spelled, &["x"]), "no number x");
        let index = Embeddings::new(&mut Spelled, &["1 0"]).unwrap();
        let error = index.scores(&mut Spelled, &["1"]).unwrap_err();
        assert_eq!(error.to_string(), "embedder: vector 0 has 1 numbers, not 2");
    }
}
