//! What every request passes: the key or, without one, where it was sent to and from; and the count of
//! answers.

use super::{ApiError, App};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// Asks for the key, if there is one, everywhere but at `/health`.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let checked = if path == "/health" { Ok(()) } else { check(&app, request.headers()) };
    let response = match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    app.metrics.count(&path, response.status().as_u16());
    response
}

fn check(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    if !may_pass(app.settings.api_key.as_deref(), headers) {
        return Err(ApiError::unauthorised());
    }
    let strange = || strange_place(headers).map(|(name, place)| ApiError::elsewhere(name, place));
    app.settings.local_only.then(strange).flatten().map_or(Ok(()), Err)
}

/// The header by which a browser says that a page of somebody else sends this, or that a name of
/// somebody else stands for this machine, and what it says.
fn strange_place(headers: &HeaderMap) -> Option<(&'static str, String)> {
    let said =
        |name: &str| Some(String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned());
    let origin = said("origin").filter(|origin| {
        !origin.split_once("://").is_some_and(|(_, authority)| is_here(authority))
    });
    let host = || said("host").filter(|host| !is_here(host)).map(|host| ("Host", host));
    origin.map(|origin| ("Origin", origin)).or_else(host)
}

/// Whether a host, perhaps with a port, is a name of this machine for itself.
fn is_here(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    // The dot at the end says that the name is whole.
    host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
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
    fn places_elsewhere_are_strange() {
        let strange = |headers: &[(&'static str, &str)]| {
            let header = |(name, value): &(&'static str, &str)| {
                (header::HeaderName::from_static(name), value.parse().unwrap())
            };
            strange_place(&headers.iter().map(header).collect()).map(|(name, _)| name)
        };
        for here in [
            "localhost",
            "LOCALHOST:8000",
            "localhost.",
            "127.0.0.1:8000",
            "127.8.9.1",
            "[::1]:80",
            "[::1]",
            "[::ffff:127.0.0.1]:8000",
        ] {
            assert_eq!(strange(&[("host", here), ("origin", &format!("http://{here}"))]), None);
        }
        assert_eq!(strange(&[]), None);
        for there in
            ["evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost.evil", "."]
        {
            assert_eq!(strange(&[("host", there)]), Some("Host"), "{there}");
            let origin = format!("https://{there}");
            let both = [("host", "localhost:8000"), ("origin", origin.as_str())];
            assert_eq!(strange(&both), Some("Origin"), "{there}");
        }
        assert_eq!(strange(&[("host", "localhost"), ("origin", "null")]), Some("Origin"));
    }

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
