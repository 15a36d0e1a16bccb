//! `/longreward/continuations`: how likely a reply is to go on with each of some texts. What the
//! judge asks where it must decide between verdicts.

use super::error::json;
use super::generate::{Running, collect};
use super::{ApiError, App, body, now, prompt};
use crate::chat::kept::exact;
use crate::chat::service::Continuations;
use crate::chat::wire::{ContinuationsRequest, ContinuationsResponse};
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

/// Continuations of one request, at most, and bytes of one.
const MAX_CONTINUATIONS: usize = 128;
const MAX_CONTINUATION: usize = 4096;

/// Scores continuations.
pub async fn continuations(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (request, held): (ContinuationsRequest, _) = body::read(&app, request).await?;
    let model = app.model(request.model.clone())?;
    check(&request)?;
    let ContinuationsRequest { messages, prefix, continuations, closing, .. } = request;
    let prompt = if messages.is_empty() {
        prompt::text(&app, prefix).await?
    } else {
        prompt::conversation(&app, messages, prefix).await?
    };
    let asked = Continuations { prompt, continuations, closing };
    let running = Running::submit_continuations(&app, asked).await?;
    drop(held);
    let (mut answers, usage) = collect(running, 1, 0).await?;
    let scores = answers.pop().and_then(|answer| answer.scores);
    let scores = scores.ok_or_else(|| ApiError::internal("the scores broke off"))?;
    Ok(json(&ContinuationsResponse {
        id: app.id("cont"),
        object: "longreward.continuations".into(),
        created: now(),
        model,
        logprobs: exact(&scores),
        usage: usage.into(),
    }))
}

fn check(request: &ContinuationsRequest) -> Result<(), ApiError> {
    let continuations = &request.continuations;
    if continuations.is_empty() || continuations.len() > MAX_CONTINUATIONS {
        let why = format!("must be 1 to {MAX_CONTINUATIONS} texts");
        return Err(ApiError::field("continuations", why));
    }
    if continuations.iter().chain([&request.closing]).any(|text| text.len() > MAX_CONTINUATION) {
        let why = format!("a text has more than {MAX_CONTINUATION} bytes");
        return Err(ApiError::field("continuations", why));
    }
    Ok(())
}
