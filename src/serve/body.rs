//! From the bytes of a request to its fields.

use super::{ApiError, App};
use crate::chat::wire::SamplingFields;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body that is not taken is still read, and thrown away, up to so many times the limit, so that its
/// sender sees the answer instead of a broken connection.
const DRAINED: usize = 8;

/// Bytes that bodies take together, at most, and so many of the largest ones if that is more.
const BUDGET: usize = 256 << 20;
const LARGEST: usize = 4;

/// Bytes of bodies that are held at the same time, where one may have `max_body`.
pub fn budget(max_body: usize) -> usize {
    max_body.saturating_mul(LARGEST).clamp(BUDGET, Semaphore::MAX_PERMITS)
}

/// The share of the budget that a request holds, best until it is let in by a bound of its own.
#[must_use]
pub struct Held(Option<OwnedSemaphorePermit>);

impl Held {
    /// Takes `more` bytes.
    fn add(&mut self, bodies: &Arc<Semaphore>, more: usize) -> Result<(), ApiError> {
        let busy = || ApiError::busy("the bodies of other requests take all memory for them", 5);
        let more = u32::try_from(more).map_err(|_| busy())?;
        let permit = bodies.clone().try_acquire_many_owned(more).map_err(|_| busy())?;
        match &mut self.0 {
            Some(held) => held.merge(permit),
            None => self.0 = Some(permit),
        }
        Ok(())
    }
}

/// Reads the fields of a request that samples.
///
/// # Errors
/// As [`read`].
pub async fn read_sampling<T: DeserializeOwned>(
    app: &App,
    request: Request,
) -> Result<(T, Held), ApiError> {
    let (bytes, held) = receive(app, request).await?;
    // The fields shared by requests lose their names where they are flattened into one.
    parse::<SamplingFields>(&bytes)?;
    Ok((parse(&bytes)?, held))
}

/// Reads the fields of a request.
///
/// # Errors
/// A body that is not JSON, too large or too slow, or a field of the wrong type, by name; or too many
/// bodies at the same time.
pub async fn read<T: DeserializeOwned>(app: &App, request: Request) -> Result<(T, Held), ApiError> {
    let (bytes, held) = receive(app, request).await?;
    Ok((parse(&bytes)?, held))
}

async fn receive(app: &App, request: Request) -> Result<(Bytes, Held), ApiError> {
    check_type(request.headers())?;
    let limit = app.settings.max_body;
    let collected = collect(request.into_body(), limit, &app.bodies);
    match tokio::time::timeout(app.settings.client_timeout, collected).await {
        Ok(bytes) => bytes,
        Err(_) => Err(ApiError::body_too_slow()),
    }
}

/// Only JSON: what a web page of somebody else can make a browser send without asking is not.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return Err(ApiError::content_type("not given"));
    };
    let kind = kind.to_str().unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::content_type(kind))
    }
}

async fn collect(
    body: Body,
    limit: usize,
    bodies: &Arc<Semaphore>,
) -> Result<(Bytes, Held), ApiError> {
    let (mut chunks, mut bytes, mut seen) = (body.into_data_stream(), Vec::new(), 0usize);
    let (mut held, mut taken) = (Held(None), Ok(()));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| ApiError::invalid(format!("the body can't be read: {e}")))?;
        seen = seen.saturating_add(chunk.len());
        if seen > limit {
            taken = Err(ApiError::body_too_large(limit));
        } else if taken.is_ok() {
            taken = held.add(bodies, chunk.len());
        }
        match taken {
            Ok(()) => bytes.extend_from_slice(&chunk),
            Err(_) => (bytes, held) = (Vec::new(), Held(None)),
        }
        if seen > limit.saturating_mul(DRAINED) {
            break;
        }
    }
    taken.map(|()| (bytes.into(), held))
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

    #[test]
    fn bodies_share_a_budget_and_give_it_back() {
        let bodies = Arc::new(Semaphore::new(100));
        let collect = |bytes: usize, limit: usize| {
            let chunks =
                vec![b' '; bytes].chunks(7).map(Bytes::copy_from_slice).collect::<Vec<_>>();
            let chunks = chunks.into_iter().map(Ok::<_, std::convert::Infallible>);
            let body = Body::from_stream(futures_util::stream::iter(chunks));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(super::collect(body, limit, &bodies))
        };
        let first = collect(60, 80).unwrap();
        let refused = collect(60, 80).err().unwrap();
        assert_eq!(refused.status, axum::http::StatusCode::TOO_MANY_REQUESTS);
        assert!(collect(40, 80).is_ok());
        drop(first);
        assert!(collect(60, 80).is_ok());
        // What is read only to be thrown away takes nothing.
        assert_eq!(collect(90, 80).err().unwrap(), ApiError::body_too_large(80));
        assert_eq!(bodies.available_permits(), 100);
        assert_eq!(budget(8 << 20), 256 << 20);
        assert_eq!(budget(usize::MAX), Semaphore::MAX_PERMITS);
    }

    #[test]
    fn only_json_is_read() {
        let kind = |value: &'static str| {
            HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())])
        };
        assert!(check_type(&kind("application/json; charset=utf-8")).is_ok());
        assert!(check_type(&kind("text/plain")).is_err());
        assert!(check_type(&HeaderMap::new()).is_err());
    }

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
