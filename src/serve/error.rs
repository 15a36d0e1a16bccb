//! Failures in OpenAI's shape.

use crate::chat::ChatError;
use crate::chat::service::Busy;
use crate::chat::wire::{ErrorBody, ErrorDetail};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Why a request gets no success.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    pub status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    /// Seconds.
    retry_after: Option<u64>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// A request that can't be understood.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    /// A field whose value is not allowed.
    pub fn field(field: &str, message: impl AsRef<str>) -> Self {
        let message = format!("{field}: {}", message.as_ref());
        Self { param: Some(field.to_owned()), ..Self::invalid(message) }
    }

    /// A field that asks for what this server does not do.
    pub fn unsupported(field: &str, message: impl AsRef<str>) -> Self {
        Self { code: Some("unsupported_parameter"), ..Self::field(field, message) }
    }

    /// Prompt and reply are too long together.
    pub fn overflow(prompt: usize, reply: usize, context: usize) -> Self {
        // Programs that were written for other servers look for "maximum context length", "Please
        // reduce" and, below, "rate limit" to know what to do.
        let message = format!(
            "this model's maximum context length is {context} tokens, but the request needs {}: \
             {prompt} for the prompt and {reply} for the completion. Please reduce the prompt or \
             max_tokens",
            prompt.saturating_add(reply)
        );
        let code = Some("context_length_exceeded");
        Self { code, ..Self::invalid(message) }
    }

    /// The same where the engine has found it out.
    fn too_long(why: &str) -> Self {
        let message =
            format!("the maximum context length is exceeded: {why}. Please reduce the prompt");
        Self { code: Some("context_length_exceeded"), ..Self::invalid(message) }
    }

    pub fn model(asked: &str, names: &[String]) -> Self {
        let message =
            format!("the model `{asked}` is not served here; there is: {}", names.join(", "));
        Self {
            param: Some("model".into()),
            code: Some("model_not_found"),
            ..Self::new(StatusCode::NOT_FOUND, INVALID, message)
        }
    }

    pub fn not_found(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID, format!("there is nothing at {path}"))
    }

    pub fn method(method: &str, path: &str) -> Self {
        let message = format!("{method} is not for {path}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, message)
    }

    pub fn unauthorised() -> Self {
        let message = "a valid API key is needed: Authorization: Bearer KEY";
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
        }
    }

    /// A request that was sent to or from a name elsewhere.
    pub fn elsewhere(header: &str, place: String) -> Self {
        let message = format!(
            "{header} is {place}: without a key only requests between programs of this machine are \
             served; start the server with a key, or with --allow-open"
        );
        Self::new(StatusCode::FORBIDDEN, INVALID, message)
    }

    pub fn body_too_large(limit: usize) -> Self {
        let message = format!("the body has more than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, message)
    }

    pub fn body_too_slow() -> Self {
        let message = "the body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, message)
    }

    pub fn content_type(found: &str) -> Self {
        let message = format!("the content type is {found}, but must be application/json");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, message)
    }

    /// The deadline has passed.
    pub fn timeout(seconds: u64) -> Self {
        let message = format!("the request was not done within {seconds} seconds");
        Self {
            code: Some("timeout"),
            ..Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", message)
        }
    }

    /// Too much is going on; try again after so many seconds.
    pub fn busy(message: impl Into<String>, seconds: u64) -> Self {
        Self {
            code: Some("rate_limit_exceeded"),
            retry_after: Some(seconds),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
        }
    }

    pub fn of_busy(busy: Busy, seconds: u64) -> Self {
        match busy {
            Busy::Now { .. } => Self::busy(format!("rate limit: {busy}"), seconds),
            Busy::Never { .. } => Self::field("n", busy.to_string()),
        }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, message)
    }

    /// Nothing more can be served.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, message)
    }

    /// Something that this server was not started with.
    pub fn not_here(message: impl Into<String>) -> Self {
        Self {
            code: Some("not_available"),
            ..Self::new(StatusCode::NOT_IMPLEMENTED, INVALID, message)
        }
    }

    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                message: self.message.clone(),
                kind: self.kind.to_owned(),
                param: self.param.clone(),
                code: self.code.map(str::to_owned),
            },
        }
    }
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::TooLong { why, .. } => Self::too_long(&why),
            ChatError::Refused(why) => Self::invalid(why),
            ChatError::Lost(why) => Self::internal(why),
            ChatError::Broken(why) => Self::unavailable(why),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json(&self.body());
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A success whose body is JSON already.
pub fn written(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A success with a JSON body.
pub fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => written(body),
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            (status, format!("the answer can't be written as JSON: {error}")).into_response()
        }
    }
}
