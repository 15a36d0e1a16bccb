//! What a server's refusal means.

use super::http::Answer;
use serde_json::Value;

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Worth another try.
    Passing { what: String },
    /// The server has enough to do: worth another try, with fewer requests at a time.
    Full { what: String },
    /// The server broke on this request: worth another try, unless it was only to find out what the
    /// server can do. (Some answer so where they do not know a field.)
    Broke { what: String },
    /// The server is not who it says, as far as is known here.
    Untrusted { what: String },
    /// The key is missing or wrong, or there is nothing left to spend.
    Denied { what: String },
    /// There is no such address or model.
    NotFound { what: String },
    /// The prompt, alone or with its reply, is too long.
    TooLong { what: String, prompt: Option<usize>, limit: Option<usize> },
    /// This request can't be served.
    Refused { what: String },
}

impl Failure {
    /// Status and the server's own words.
    pub fn what(&self) -> &str {
        match self {
            Self::Passing { what }
            | Self::Full { what }
            | Self::Broke { what }
            | Self::Untrusted { what }
            | Self::Denied { what }
            | Self::NotFound { what }
            | Self::TooLong { what, .. }
            | Self::Refused { what } => what,
        }
    }
}

/// Characters of a server's message that are shown.
const SHOWN: usize = 500;

/// Reads an answer that is no success.
pub fn failure(answer: &Answer) -> Failure {
    let (message, code) = message(&answer.body);
    let what = format!("status {}: {message}", answer.status);
    let spent = code == "insufficient_quota";
    match answer.status {
        401 | 402 => Failure::Denied { what },
        429 if spent => Failure::Denied { what },
        404 => Failure::NotFound { what },
        500 => Failure::Broke { what },
        429 | 503 | 529 => Failure::Full { what },
        // The latter are said by what stands before a server and does not reach it.
        408 | 425 | 502 | 504 | 520..=524 => Failure::Passing { what },
        501 | 505.. => Failure::Refused { what },
        400 | 413 | 422 if is_overflow(&message, &code) => {
            let message = message.to_lowercase();
            Failure::TooLong { what, prompt: prompt_tokens(&message), limit: limit(&message) }
        }
        _ => Failure::Refused { what },
    }
}

/// The message and the code in the body of a failure, whatever form it has.
fn message(body: &[u8]) -> (String, String) {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = json.get("error").unwrap_or(&json);
    let texts = ["message", "detail"].map(|name| error.get(name).or(json.get(name)));
    let found = match (error, texts) {
        (Value::String(text), _) => text.clone(),
        (_, [Some(text), _] | [None, Some(text)]) => match text {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        },
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let code = error.get("code").and_then(Value::as_str).unwrap_or_default().to_owned();
    (brief(found.trim()), code)
}

fn brief(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if text.is_empty() => "(without a word)".to_owned(),
        None => text.to_owned(),
    }
}

fn is_overflow(message: &str, code: &str) -> bool {
    const SIGNS: [&str; 9] = [
        "maximum context length",
        "context_length_exceeded",
        "context length",
        "context size",
        "context window",
        "prompt is too long",
        "input is too long",
        "too many tokens",
        "maximum model length",
    ];
    let message = message.to_lowercase();
    code == "context_length_exceeded" || SIGNS.iter().any(|sign| message.contains(sign))
}

/// The tokens that fit, where a message says it.
fn limit(message: &str) -> Option<usize> {
    [
        "maximum context length is ",
        "context length is only ",
        "maximum context length of ",
        "maximum model length of ",
        "context size (",
        "context length of ",
    ]
    .iter()
    .find_map(|phrase| number_after(message, phrase))
}

/// The tokens of the prompt alone, where a message says it.
fn prompt_tokens(message: &str) -> Option<usize> {
    // vLLM's words for where it stopped counting.
    if message.contains("at least ") || message.contains("upper bound for ") {
        return None;
    }
    [" for the prompt", " in the messages", " input tokens", " in your prompt", " prompt tokens"]
        .iter()
        .find_map(|phrase| number_before(message, phrase))
        .or_else(|| number_after(message, "request ("))
}

fn number_after(text: &str, phrase: &str) -> Option<usize> {
    let rest = &text[text.find(phrase)? + phrase.len()..];
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn number_before(text: &str, phrase: &str) -> Option<usize> {
    let before = &text[..text.find(phrase)?];
    let start = before
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    before[start..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> Failure {
        failure(&Answer { status, retry_after: None, body: body.into() })
    }

    #[test]
    fn messages_are_found_in_every_form() {
        for body in [
            r#"{"error": {"message": "no such luck", "type": "x", "code": null}}"#,
            r#"{"error": "no such luck"}"#,
            r#"{"message": "no such luck"}"#,
            r#"{"detail": "no such luck"}"#,
            "no such luck\n",
        ] {
            assert_eq!(of(400, body), Failure::Refused { what: "status 400: no such luck".into() });
        }
        assert!(of(500, "").what().contains("without a word"));
        assert!(of(500, &"é".repeat(2000)).what().chars().count() < 600);
    }

    #[test]
    fn a_status_says_whether_to_try_again() {
        assert!(matches!(of(500, "x"), Failure::Broke { .. }));
        for status in [408, 425, 502, 504, 520, 521, 522, 523, 524] {
            assert!(matches!(of(status, "x"), Failure::Passing { .. }), "{status}");
        }
        for status in [429, 503, 529] {
            assert!(matches!(of(status, "x"), Failure::Full { .. }), "{status}");
        }
        for status in [401, 402] {
            assert!(matches!(of(status, "x"), Failure::Denied { .. }), "{status}");
        }
        let spent = r#"{"error": {"message": "pay", "code": "insufficient_quota"}}"#;
        assert!(matches!(of(429, spent), Failure::Denied { .. }));
        assert!(matches!(of(404, "x"), Failure::NotFound { .. }));
        // Some say 403 of a key, others of what was asked.
        for status in [301, 400, 403, 405, 413, 415, 422, 501, 505, 525, 526] {
            assert!(matches!(of(status, "x"), Failure::Refused { .. }), "{status}");
        }
    }

    #[test]
    fn an_overflow_tells_its_numbers_where_it_can() {
        let numbers = |message: &str| match of(400, message) {
            Failure::TooLong { prompt, limit, .. } => (prompt, limit),
            other => panic!("{other:?}"),
        };
        let ours = "this model's maximum context length is 12000 tokens, but the request needs \
                    14048: 11900 for the prompt and 2148 for the completion; shorten the prompt";
        assert_eq!(numbers(ours), (Some(11900), Some(12000)));
        let openai = "This model's maximum context length is 8192 tokens. However, you requested \
                      9000 tokens (8000 in the messages, 1000 in the completion).";
        assert_eq!(numbers(openai), (Some(8000), Some(8192)));
        let vllm = "'max_tokens' is too large: 1000. This model's maximum context length is 4096 \
                    tokens and your request has 4000 input tokens (1000 > 4096 - 4000).";
        assert_eq!(numbers(vllm), (Some(4000), Some(4096)));
        for uncounted in [
            "This model's maximum context length is 8192 tokens. However, your request contains at least 8193 \
             input tokens.",
            "The prompt has 900000 characters (more than 819200 characters, which is the upper bound for 8192 \
             input tokens); this model's maximum context length is 8192 tokens.",
        ] {
            assert_eq!(numbers(uncounted), (None, Some(8192)));
        }
        let llamacpp = "request (9031 tokens) exceeds the available context size (8192 tokens), try \
                        increasing it";
        assert_eq!(numbers(llamacpp), (Some(9031), Some(8192)));
        let bare = "the request exceeds the available context size. try increasing it";
        assert_eq!(numbers(bare), (None, None));
        let coded = r#"{"error": {"message": "zu lang", "code": "context_length_exceeded"}}"#;
        assert_eq!(numbers(coded), (None, None));
    }
}
