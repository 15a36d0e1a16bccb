//! From the bytes of a request to its fields.

use super::{ApiError, App};
use crate::chat::wire::SamplingFields;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

/// A body that is too large is still read, and thrown away, up to so many times the limit, so that
/// its sender sees the answer instead of a broken connection.
const DRAINED: usize = 8;

/// Reads the fields of a request that samples.
///
/// # Errors
/// As [`read`].
pub async fn read_sampling<T: DeserializeOwned>(
    app: &App,
    request: Request,
) -> Result<T, ApiError> {
    let bytes = receive(app, request).await?;
    // The fields shared by requests lose their names where they are flattened into one.
    parse::<SamplingFields>(&bytes)?;
    parse(&bytes)
}

/// Reads the fields of a request.
///
/// # Errors
/// A body that is not JSON, too large or too slow, or a field of the wrong type, by name.
pub async fn read<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, ApiError> {
    parse(&receive(app, request).await?)
}

async fn receive(app: &App, request: Request) -> Result<Bytes, ApiError> {
    check_type(request.headers())?;
    let limit = app.settings.max_body;
    let collected = collect(request.into_body(), limit);
    match tokio::time::timeout(app.settings.client_timeout, collected).await {
        Ok(bytes) => bytes,
        Err(_) => Err(ApiError::body_too_slow()),
    }
}

/// Only JSON: what a web page of somebody else can make a browser send without asking is not.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::content_type(kind))
    }
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let (mut chunks, mut bytes, mut seen) = (body.into_data_stream(), Vec::new(), 0usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| ApiError::invalid(format!("the body can't be read: {e}")))?;
        seen = seen.saturating_add(chunk.len());
        if seen <= limit {
            bytes.extend_from_slice(&chunk);
        } else if seen > limit.saturating_mul(DRAINED) {
            break;
        } else {
            bytes = Vec::new();
        }
    }
    if seen > limit { Err(ApiError::body_too_large(limit)) } else { Ok(bytes.into()) }
}

/// # Errors
/// No JSON, or a field of the wrong type, by name.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => wrong_type(&field, &inner),
            _ => ApiError::invalid(format!("the body is not valid JSON: {inner}")),
        }
    })?;
    reader.end().map_err(|e| ApiError::invalid(format!("the body is not valid JSON: {e}")))?;
    Ok(value)
}

fn wrong_type(field: &str, error: &serde_json::Error) -> ApiError {
    let told = error.to_string();
    // The place is of no use to those who did not write the JSON themselves.
    let told = told.rfind(" at line ").map_or(told.as_str(), |end| &told[..end]);
    let missing = told.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    match (field, missing) {
        ("." | "?", Some(missing)) => ApiError::field(missing, "is missing"),
        ("." | "?", None) => ApiError::invalid(told),
        _ => ApiError::field(field, told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::wire::{ChatRequest, CompletionRequest};

    fn param<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> Option<String> {
        parse::<T>(text.as_bytes()).unwrap_err().body().error.param
    }

    #[test]
    fn wrong_types_are_told_by_field() {
        assert_eq!(param::<ChatRequest>(r#"{"messages": 3}"#).unwrap(), "messages");
        let content = r#"{"messages": [{"role": "user", "content": 7}]}"#;
        assert_eq!(param::<ChatRequest>(content).unwrap(), "messages[0].content");
        assert_eq!(param::<ChatRequest>("{}").unwrap(), "messages");
        assert_eq!(param::<SamplingFields>(r#"{"temperature": "hot"}"#).unwrap(), "temperature");
        assert_eq!(param::<SamplingFields>(r#"{"n": -1}"#).unwrap(), "n");
        assert_eq!(param::<CompletionRequest>(r#"{"prompt": {"a": 1}}"#).unwrap(), "prompt");
        assert_eq!(param::<ChatRequest>("[]"), None);
        assert_eq!(param::<ChatRequest>("{\"messages\": ["), None);
    }

    #[test]
    fn absent_null_and_unknown_fields_are_fine() {
        let text = br#"{"prompt": [[1, 2], [3]], "n": null, "seed": -1, "user": {"x": [1]}}"#;
        let request: CompletionRequest = parse(text).unwrap();
        assert_eq!((request.sampling.n, request.sampling.seed), (None, Some(-1)));
        let written = serde_json::to_string(&request).unwrap();
        assert_eq!(written, r#"{"prompt":[[1,2],[3]],"seed":-1}"#);
    }
}
