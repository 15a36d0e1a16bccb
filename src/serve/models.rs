//! `/v1/models`.

use super::error::json;
use super::{ApiError, App};
use crate::chat::wire::{Model, ModelList};
use axum::extract::{Path, State};
use axum::response::Response;
use std::sync::Arc;

/// The name and its aliases.
pub async fn list(State(app): State<Arc<App>>) -> Response {
    let data = app.settings.names.iter().map(|name| model(&app, name)).collect();
    json(&ModelList { object: "list".into(), data })
}

/// One of them.
pub async fn one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let name = app.model(Some(name))?;
    Ok(json(&model(&app, &name)))
}

fn model(app: &App, name: &str) -> Model {
    Model {
        id: name.to_owned(),
        object: "model".into(),
        created: app.started,
        owned_by: "longreward".into(),
        max_model_len: Some(app.handle.context()),
        meta: None,
        longreward: Some(app.settings.about.clone()),
    }
}
