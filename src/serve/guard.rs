//! What every request passes: the key, and the count of answers.

use super::{ApiError, App};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Asks for the key, if there is one, everywhere but at `/health`.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let open = path == "/health" || may_pass(app.settings.api_key.as_deref(), request.headers());
    let response =
        if open { next.run(request).await } else { ApiError::unauthorised().into_response() };
    app.metrics.count(&path, response.status().as_u16());
    response
}

fn may_pass(key: Option<&str>, headers: &HeaderMap) -> bool {
    let Some(key) = key else { return true };
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.split_once(' '));
    sent.is_some_and(|(scheme, sent)| {
        scheme.eq_ignore_ascii_case("bearer") && same(sent.trim().as_bytes(), key.as_bytes())
    })
}

/// Comparison that takes as long wherever the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

pub async fn unknown_path(request: Request) -> ApiError {
    ApiError::not_found(request.uri().path())
}

pub async fn wrong_method(request: Request) -> ApiError {
    ApiError::method(request.method().as_str(), request.uri().path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_passes() {
        let headers = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            headers
        };
        for passes in ["Bearer secret", "bearer  secret "] {
            assert!(may_pass(Some("secret"), &headers(passes)), "{passes}");
        }
        for refused in ["Bearer secre", "Bearer secrets", "Basic secret", "secret", "Bearer "] {
            assert!(!may_pass(Some("secret"), &headers(refused)), "{refused}");
        }
        assert!(!may_pass(Some("secret"), &HeaderMap::new()));
        assert!(may_pass(None, &HeaderMap::new()));
    }
}
