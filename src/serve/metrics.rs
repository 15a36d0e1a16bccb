//! `/health` and `/metrics`, the latter in Prometheus' text format.

use super::error::json;
use super::{ApiError, App};
use crate::chat::ChatError;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Paths that are counted by name.
const PATHS: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/longreward/continuations",
    "/longreward/score",
    "/health",
    "/metrics",
];

/// Answers by path and status.
#[derive(Debug, Default)]
pub struct Metrics {
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Metrics {
    pub fn count(&self, path: &str, status: u16) {
        let path = PATHS.iter().find(|known| **known == path).copied().unwrap_or("other");
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((path, status)).or_default() += 1;
    }

    fn lines(&self) -> Vec<(String, u64)> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let label = |path, status| format!("{{path=\"{path}\",status=\"{status}\"}}");
        answers.iter().map(|((path, status), &count)| (label(path, status), count)).collect()
    }
}

pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut text = String::new();
    let gauges = app.handle.gauges();
    let mut family = |name: &str, kind: &str, help: &str, lines: &[(String, u64)]| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP longreward_{name} {help}\n# TYPE longreward_{name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(text, "longreward_{name}{labels} {value}");
        }
    };
    family("requests_total", "counter", "Answers by path and status.", &app.metrics.lines());
    for (name, kind, help, value) in [
        ("prompt_tokens_total", "counter", "Tokens of prompts.", &gauges.prompt_tokens),
        (
            "cached_prompt_tokens_total",
            "counter",
            "Tokens of prompts that were found in the cache.",
            &gauges.cached_prompt_tokens,
        ),
        ("completion_tokens_total", "counter", "Tokens sampled.", &gauges.completion_tokens),
        ("steps_total", "counter", "Steps of the engine.", &gauges.steps),
        ("preemptions_total", "counter", "Sequences put off for memory.", &gauges.preemptions),
        ("cancelled_total", "counter", "Requests given up by their clients.", &gauges.cancelled),
        ("running_sequences", "gauge", "Sequences that run.", &gauges.running),
        ("waiting_sequences", "gauge", "Sequences that wait.", &gauges.waiting),
        ("kv_blocks_used", "gauge", "Blocks of keys and values in use.", &gauges.used_blocks),
        ("kv_blocks", "gauge", "Blocks of keys and values.", &gauges.blocks),
    ] {
        family(name, kind, help, &[(String::new(), value.load(Ordering::Relaxed))]);
    }
    let open = [(String::new(), app.handle.open() as u64)];
    family("open_samples", "gauge", "Samples that wait or run.", &open);
    let capacity = [(String::new(), app.handle.capacity() as u64)];
    family("max_open_samples", "gauge", "Samples that may wait or run.", &capacity);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Fine as long as the engine's thread is there.
pub async fn health(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    if app.handle.is_closed() {
        return Err(ChatError::Broken("the engine has stopped".into()).into());
    }
    Ok(json(&serde_json::json!({"status": "ok", "model": app.settings.names.first()})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_paths_are_counted_together() {
        let metrics = Metrics::default();
        for path in ["/longreward/continuations", "/a", "/b"] {
            metrics.count(path, 200);
        }
        let lines = metrics.lines();
        let known = "{path=\"/longreward/continuations\",status=\"200\"}";
        assert_eq!(lines[0], (known.to_owned(), 1));
        assert_eq!(lines[1], ("{path=\"other\",status=\"200\"}".to_owned(), 2));
    }
}
