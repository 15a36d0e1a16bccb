//! `/longreward/score`: the verdict of `longreward score` on one answer.

use super::error::written;
use super::{ApiError, App, body};
use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// An answer to be scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreRequest {
    /// The document.
    pub context: String,
    pub query: String,
    pub answer: String,
    /// `score` draws from a seed of its own for each `idx`; with the same one the verdict is the
    /// same.
    #[serde(default)]
    pub idx: u64,
    /// Which of the answers to the prompt this one is: the `k` in `"<idx>-<k>"`.
    #[serde(default)]
    pub k: u64,
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub options: ScoreOptions,
}

/// Options of `score` for one answer, by their names there with `_` for `-`; what is missing is as the
/// server was started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreOptions {
    pub preset: Option<String>,
    pub votes: Option<usize>,
    pub vote_by: Option<String>,
    pub verdict_first: Option<bool>,
    pub statements_per_call: Option<usize>,
    pub whole_document: Option<bool>,
    pub passages: Option<usize>,
    pub passage_tokens: Option<usize>,
    pub passage_overlap: Option<usize>,
    pub passage_cut: Option<String>,
    pub score_by: Option<String>,
    pub embedder: Option<String>,
}

/// Why there is no score.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// The options are at fault.
    #[error("{0}")]
    Options(String),
    /// What was sent can't be scored.
    #[error("{0}")]
    Request(String),
    /// The engine is gone.
    #[error("{0}")]
    Gone(String),
    #[error("{0}")]
    Failed(String),
}

/// Scores answers; called on a thread that may block.
pub trait Scorer: Send + Sync {
    /// The row that `score` would write, to the byte; stops early when `cancel` is set.
    ///
    /// # Errors
    /// Why the answer can't be scored.
    fn score(&self, request: &ScoreRequest, cancel: &Arc<AtomicBool>)
    -> Result<String, ScoreError>;
}

/// Set when the handler is gone.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Scores one answer.
pub async fn score(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (request, held): (ScoreRequest, _) = body::read(&app, request).await?;
    let scorer = app.scorer.clone();
    let scorer = scorer.ok_or_else(|| ApiError::not_here("this server does not score"))?;
    for (field, text) in
        [("context", &request.context), ("query", &request.query), ("answer", &request.answer)]
    {
        if text.trim().is_empty() {
            return Err(ApiError::field(field, "is empty"));
        }
    }
    let permit = app.scores.clone().try_acquire_owned().map_err(|_| {
        ApiError::busy(format!("{} scores are being worked on; try again later", super::SCORES), 10)
    })?;
    drop(held);
    let cancel = CancelOnDrop(Arc::new(AtomicBool::new(false)));
    let (give, take) = oneshot::channel();
    let seen = cancel.0.clone();
    std::thread::Builder::new()
        .name("score".into())
        .spawn(move || {
            // Nobody waits if this fails.
            let _ = give.send(scorer.score(&request, &seen));
            drop(permit);
        })
        .map_err(|e| ApiError::internal(format!("no thread for the score: {e}")))?;
    let limit = app.settings.deadline;
    let scored = tokio::time::timeout(limit, take).await;
    let scored = scored.map_err(|_| ApiError::timeout(limit.as_secs()))?;
    match scored {
        Ok(Ok(row)) => Ok(written(row.into_bytes())),
        Ok(Err(ScoreError::Options(why))) => Err(ApiError::field("options", why)),
        Ok(Err(ScoreError::Request(why))) => Err(ApiError::invalid(why)),
        Ok(Err(ScoreError::Gone(why))) => Err(ApiError::unavailable(why)),
        Ok(Err(ScoreError::Failed(why))) => Err(ApiError::internal(why)),
        Err(_) => Err(ApiError::internal("the score broke off")),
    }
}
