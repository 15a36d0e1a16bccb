//! The engine behind the OpenAI API: chat and text completions, embeddings, models, and the judge's
//! own score.
//!
//! ```text
//! connections ─► router ─ guard (key, counting) ─► handler ─ body, checks ─► chat::service
//!                                                     └─ JSON, or a stream of events ◄─┘
//! ```
//! A handler that is dropped because its client has gone drops its ticket, which cancels the work.
//! No request can harm another: what one of them may take is bounded before it reaches the engine.

mod body;
mod chat;
mod completions;
mod connections;
mod continuations;
mod embeddings;
mod error;
mod form;
mod generate;
mod guard;
mod logprobs;
mod metrics;
mod models;
mod patient;
mod prompt;
mod sampling;
mod score;
mod stream;
mod tools;

pub use connections::serve;
pub use embeddings::{Embedder, small_groups};
pub use score::{ScoreError, ScoreOptions, ScoreRequest, Scorer};

use crate::chat::service::Handle;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use error::ApiError;
use metrics::Metrics;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// What a server allows.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The model's name, then its aliases; a request may name any of them, or none.
    pub names: Vec<String>,
    /// What replies depend on, by name; shown at `/v1/models`.
    pub about: BTreeMap<String, String>,
    /// Without a key everybody is served.
    pub api_key: Option<String>,
    /// Serve only what is sent to this machine by a name of its own: a page of somebody else, shown by a
    /// browser here, could send something, too.
    pub local_only: bool,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// From when the engine has a request to the end of its reply.
    pub deadline: Duration,
    /// For the head of a request, then for its body, and for each write of the reply.
    pub client_timeout: Duration,
    /// Connections that are open at the same time; more wait to be accepted.
    pub max_connections: usize,
    /// Sequences that the engine runs at the same time; only for telling how long to wait.
    pub sequences: usize,
}

/// What handlers work with.
pub struct App {
    handle: Handle,
    settings: Settings,
    metrics: Metrics,
    /// Seconds since 1970 of the start.
    started: u64,
    random: RandomState,
    ids: AtomicU64,
    embedder: Option<Arc<dyn Embedder>>,
    scorer: Option<Arc<dyn Scorer>>,
    scores: Arc<Semaphore>,
    embeddings: Semaphore,
    /// Bytes of bodies.
    bodies: Arc<Semaphore>,
}

/// Scores that are worked on at the same time.
const SCORES: usize = 8;

/// Requests whose texts are embedded at the same time.
const EMBEDDINGS: usize = 8;

impl App {
    pub fn new(handle: Handle, settings: Settings) -> Self {
        let bodies = Arc::new(Semaphore::new(body::budget(settings.max_body)));
        Self {
            handle,
            settings,
            metrics: Metrics::default(),
            started: now(),
            random: RandomState::new(),
            ids: AtomicU64::new(0),
            embedder: None,
            scorer: None,
            scores: Arc::new(Semaphore::new(SCORES)),
            embeddings: Semaphore::new(EMBEDDINGS),
            bodies,
        }
    }

    /// With `/v1/embeddings`.
    pub fn with_embedder(self, embedder: Arc<dyn Embedder>) -> Self {
        Self { embedder: Some(embedder), ..self }
    }

    /// With `/longreward/score`.
    pub fn with_scorer(self, scorer: Arc<dyn Scorer>) -> Self {
        Self { scorer: Some(scorer), ..self }
    }

    /// A number that nobody can foresee, another one each time.
    fn random(&self) -> u64 {
        self.random.hash_one(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// A name for an answer.
    fn id(&self, prefix: &str) -> String {
        format!("{prefix}-{:016x}{:016x}", self.random(), self.random())
    }

    /// The model that a request names, as it names it.
    fn model(&self, asked: Option<String>) -> Result<String, ApiError> {
        let names = &self.settings.names;
        match asked {
            None => Ok(names.first().cloned().unwrap_or_default()),
            Some(name) if names.contains(&name) => Ok(name),
            Some(name) => Err(ApiError::model(&name, names)),
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// All paths.
fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/embeddings", post(embeddings::embeddings))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/longreward/continuations", post(continuations::continuations))
        .route("/longreward/score", post(score::score))
        .route("/health", get(metrics::health))
        .route("/metrics", get(metrics::metrics))
        .fallback(guard::unknown_path)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}
