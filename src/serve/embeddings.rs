//! `/v1/embeddings`.

use super::error::json;
use super::{ApiError, App, body};
use crate::chat::wire::{
    EmbeddingItem, EmbeddingRequest, EmbeddingResponse, EmbeddingVector, Usage,
};
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

/// Texts of one request, at most.
const MAX_TEXTS: usize = 2048;

/// Texts as vectors of length 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// One per text.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub tokens: u64,
}

/// A model that embeds; called on the engine's thread.
pub trait Embedder: Send + Sync {
    fn name(&self) -> &str;

    /// # Errors
    /// Whatever stopped it.
    fn embed(&self, texts: &[String]) -> Result<Embedded, String>;
}

/// Embeds texts.
pub async fn embeddings(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let request: EmbeddingRequest = body::read(&app, request).await?;
    let embedder = app.embedder.clone().ok_or_else(|| {
        ApiError::not_here("no embedder is loaded; start the server with --embedder")
    })?;
    let base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(ApiError::field("encoding_format", "must be float or base64")),
    };
    let model = match request.model {
        Some(name) if name != embedder.name() => app.model(Some(name))?,
        _ => embedder.name().to_owned(),
    };
    let texts = request.input.into_vec();
    if texts.is_empty() || texts.len() > MAX_TEXTS || texts.iter().any(String::is_empty) {
        let why = format!("must be 1 to {MAX_TEXTS} texts, none of them empty");
        return Err(ApiError::field("input", why));
    }
    let Embedded { vectors, tokens } = embed(&app, embedder, texts).await?;
    let data = vectors.into_iter().enumerate().map(|(index, vector)| EmbeddingItem {
        object: "embedding".into(),
        index,
        embedding: if base64 {
            EmbeddingVector::Base64(base64_of(&vector))
        } else {
            EmbeddingVector::Numbers(vector)
        },
    });
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens, ..Usage::default() };
    Ok(json(&EmbeddingResponse { object: "list".into(), data: data.collect(), model, usage }))
}

async fn embed(
    app: &Arc<App>,
    embedder: Arc<dyn Embedder>,
    texts: Vec<String>,
) -> Result<Embedded, ApiError> {
    let handle = app.handle.clone();
    let errand = move || handle.errand(move || embedder.embed(&texts));
    let done = tokio::task::spawn_blocking(errand).await;
    let done = done.map_err(|e| ApiError::internal(format!("the embedder failed: {e}")))?;
    done?.map_err(ApiError::internal)
}

/// The numbers' little-endian bytes in base64.
fn base64_of(vector: &[f32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]);
            text.push(if i <= group.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64_of;

    #[test]
    fn numbers_become_base64() {
        assert_eq!(base64_of(&[1.0, -2.0]), "AACAPwAAAMA=");
        assert_eq!(base64_of(&[]), "");
    }
}
