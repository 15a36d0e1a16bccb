//! `/v1/embeddings`.

use super::error::json;
use super::{ApiError, App, body};
use crate::chat::wire::{
    EmbeddingItem, EmbeddingRequest, EmbeddingResponse, EmbeddingVector, Usage,
};
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;
use tokio::time::timeout;

/// Texts of one request, at most.
const MAX_TEXTS: usize = 2048;

/// Tokens that are embedded at once, but for those of a single longer text: about as long as a step.
const GROUP_TOKENS: usize = 512;

/// A model that embeds.
pub trait Embedder: Send + Sync {
    fn name(&self) -> &str;

    /// The tokens of a text that the model sees; called on a thread that may block.
    fn tokens(&self, text: &str) -> Vec<u32>;

    /// A vector of length 1 for each text; called on the engine's thread.
    ///
    /// # Errors
    /// Whatever stopped it.
    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, String>;
}

/// Texts in tokens, in their order, in groups that nobody waits long for.
pub fn small_groups(texts: Vec<Vec<u32>>) -> Vec<Vec<Vec<u32>>> {
    let mut groups: Vec<Vec<Vec<u32>>> = Vec::new();
    let mut tokens = 0;
    for text in texts {
        tokens += text.len();
        match groups.last_mut() {
            Some(group) if tokens <= GROUP_TOKENS => group.push(text),
            _ => {
                tokens = text.len();
                groups.push(vec![text]);
            }
        }
    }
    groups
}

/// Embeds texts.
pub async fn embeddings(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (request, held): (EmbeddingRequest, _) = body::read(&app, request).await?;
    if request.dimensions.is_some() {
        return Err(ApiError::unsupported("dimensions", "is not supported: vectors come whole"));
    }
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
    let busy = || ApiError::busy("many texts are being embedded; try again later", 10);
    let _place = app.embeddings.try_acquire().map_err(|_| busy())?;
    drop(held);
    let limit = app.settings.deadline;
    let embedded = timeout(limit, embed(&app, embedder, texts)).await;
    let (vectors, tokens) = embedded.map_err(|_| ApiError::timeout(limit.as_secs()))??;
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

/// The vectors of texts, and the tokens of all of them. Between its groups of texts the engine makes its
/// steps; no more are begun when this is dropped.
async fn embed(
    app: &App,
    embedder: Arc<dyn Embedder>,
    texts: Vec<String>,
) -> Result<(Vec<Vec<f32>>, u64), ApiError> {
    let encoder = embedder.clone();
    let encode = move || texts.iter().map(|text| encoder.tokens(text)).collect::<Vec<_>>();
    let encoded = tokio::task::spawn_blocking(encode).await;
    let encoded = encoded.map_err(|e| ApiError::internal(format!("the embedder failed: {e}")))?;
    let tokens = encoded.iter().map(|text| text.len() as u64).sum();
    let mut vectors = Vec::with_capacity(encoded.len());
    for group in small_groups(encoded) {
        let embedder = embedder.clone();
        let done = app.handle.errand(move || embedder.embed(&group)).await?;
        vectors.extend(done.map_err(ApiError::internal)?);
    }
    Ok((vectors, tokens))
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
    use super::super::{EMBEDDINGS, Settings};
    use super::*;
    use crate::chat::service::tests::{generation, toy};
    use axum::body::Body;
    use axum::http::StatusCode;
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// Takes its time, and counts the groups that it was given.
    struct Slow(AtomicUsize);

    impl Embedder for Slow {
        fn name(&self) -> &str {
            "slow"
        }

        fn tokens(&self, text: &str) -> Vec<u32> {
            vec![0; text.len()]
        }

        fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, String> {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
        }
    }

    /// How `embeddings` answers so many texts, each a group by itself; how many of them were embedded;
    /// and how many steps the engine made for somebody else meanwhile.
    fn ask(texts: usize, deadline: Duration, others: usize) -> (StatusCode, usize, u64) {
        let (handle, worker) = toy(4);
        let settings = Settings {
            names: vec!["m".into()],
            about: BTreeMap::new(),
            api_key: None,
            local_only: true,
            max_body: 1 << 20,
            deadline,
            client_timeout: Duration::from_secs(5),
            max_connections: 1,
            sequences: 4,
        };
        let slow = Arc::new(Slow(AtomicUsize::new(0)));
        let app = Arc::new(App::new(handle.clone(), settings).with_embedder(slow.clone()));
        let _others = app.embeddings.try_acquire_many(others as u32).unwrap();
        let _ticket = handle.submit(vec![generation(2000)]).unwrap();
        std::thread::spawn(move || worker.run());
        let body = json!({"input": vec!["x".repeat(GROUP_TOKENS); texts]});
        let request = Request::post("/").header("content-type", "application/json");
        let request = request.body(Body::from(body.to_string())).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
        let answer = runtime.block_on(embeddings(State(app.clone()), request));
        let status = answer.map_or_else(|error| error.status, |response| response.status());
        let steps = handle.gauges().steps.load(Ordering::Relaxed);
        // One that was begun may end.
        std::thread::sleep(Duration::from_millis(100));
        let embedded = slow.0.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(slow.0.load(Ordering::SeqCst), embedded, "it goes on");
        (status, embedded, steps)
    }

    #[test]
    fn embedding_stops_nobody_and_ends_with_the_deadline() {
        let (status, embedded, steps) = ask(5, Duration::from_secs(60), 0);
        assert_eq!((status, embedded), (StatusCode::OK, 5));
        assert!(steps >= 5, "{steps}");
        let (status, embedded, _) = ask(200, Duration::from_millis(300), 0);
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
        assert!((1..100).contains(&embedded), "{embedded}");
        let (status, embedded, _) = ask(1, Duration::from_secs(60), EMBEDDINGS);
        assert_eq!((status, embedded), (StatusCode::TOO_MANY_REQUESTS, 0));
    }

    #[test]
    fn groups_keep_the_order_and_are_small() {
        let text = |tokens: usize| vec![tokens as u32; tokens];
        let groups = small_groups([300, 200, 13, 600, 1, 511, 1].map(text).to_vec());
        let lengths = |group: &Vec<Vec<u32>>| group.iter().map(Vec::len).collect::<Vec<_>>();
        let found: Vec<_> = groups.iter().map(lengths).collect();
        assert_eq!(found, [vec![300, 200], vec![13], vec![600], vec![1, 511], vec![1]]);
        assert!(small_groups(Vec::new()).is_empty());
    }

    #[test]
    fn numbers_become_base64() {
        assert_eq!(base64_of(&[1.0, -2.0]), "AACAPwAAAMA=");
        assert_eq!(base64_of(&[]), "");
    }
}
