//! Answers piece by piece, as server-sent events.

use super::ApiError;
use super::generate::Running;
use crate::chat::Usage;
use crate::chat::service::Update;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;

/// How updates become the chunks of one API.
pub trait Chunks: Send + 'static {
    type Chunk: Serialize;

    /// What stands at the beginning.
    fn open(&mut self) -> Vec<Self::Chunk>;

    fn update(&mut self, prompt: usize, update: Update) -> Option<Self::Chunk>;

    /// What stands at the end.
    fn close(&mut self, usage: Usage) -> Option<Self::Chunk>;
}

struct State<C> {
    running: Running,
    chunks: C,
    /// Events to be sent.
    ready: VecDeque<String>,
    done: bool,
}

impl<C: Chunks> State<C> {
    /// The next event; `None` after the last.
    async fn next(&mut self) -> Option<String> {
        while self.ready.is_empty() && !self.done {
            match self.running.next().await {
                Ok(Some((prompt, update))) => {
                    let chunk = self.chunks.update(prompt, update);
                    self.ready.extend(chunk.as_ref().map(event));
                }
                Ok(None) => {
                    let chunk = self.chunks.close(self.running.usage());
                    self.ready.extend(chunk.as_ref().map(event));
                    self.ready.push_back("data: [DONE]\n\n".to_owned());
                    self.done = true;
                }
                // The status is sent already.
                Err(error) => {
                    self.ready.push_back(event(&error.body()));
                    self.done = true;
                }
            }
        }
        self.ready.pop_front()
    }
}

fn event(value: &impl Serialize) -> String {
    match serde_json::to_string(value) {
        Ok(json) => format!("data: {json}\n\n"),
        Err(error) => event(&ApiError::internal(error.to_string()).body()),
    }
}

/// An answer that is sent while it is made.
pub fn stream<C: Chunks>(running: Running, mut chunks: C) -> Response {
    let ready = chunks.open().iter().map(event).collect();
    let state = State { running, chunks, ready, done: false };
    let events = unfold(state, |mut state| async move {
        state.next().await.map(|event| (Ok::<_, Infallible>(event), state))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}
