//! From the prompts of requests to tokens.

use super::{ApiError, App};
use crate::chat::wire::{ChatMessage, Content, PromptInput};
use crate::tokenizer::Turn;
use std::sync::Arc;

/// Texts of more bytes are encoded, and lists of more tokens are decoded, on a thread that may block.
const SHORT: usize = 4096;

/// A prompt of `/v1/completions`.
#[derive(Debug, Clone, PartialEq)]
pub struct Plain {
    /// What `echo` shows.
    pub text: String,
    pub tokens: Vec<u32>,
}

/// The prompt of a conversation whose reply begins with `prefix`. What messages spell is text, never
/// a control token.
///
/// # Errors
/// A role or a content that can't be used, or what the template complains of.
pub async fn conversation(
    app: &Arc<App>,
    messages: Vec<ChatMessage>,
    prefix: String,
) -> Result<Vec<u32>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field("messages", "is empty"));
    }
    let turns = messages.into_iter().enumerate().map(|(i, message)| turn(i, message));
    let turns: Vec<(&'static str, String)> = turns.collect::<Result<_, _>>()?;
    let bytes = turns.iter().map(|(_, content)| content.len()).sum::<usize>() + prefix.len();
    let encoding = app.clone();
    let encode = move || {
        let turns: Vec<Turn> = turns.iter().map(|(role, content)| Turn { role, content }).collect();
        let handle = &encoding.handle;
        handle.template().encode(handle.tokenizer(), &turns, &prefix)
    };
    blocking(bytes, encode).await?.map_err(|e| ApiError::field("messages", e.to_string()))
}

/// Takes the beginning of the reply from the end of the messages.
///
/// # Errors
/// The last message is not the assistant's, or can't be read.
pub fn take_prefix(messages: &mut Vec<ChatMessage>) -> Result<String, ApiError> {
    let last = messages.pop().map(|message| turn(messages.len(), message)).transpose()?;
    match last {
        Some(("assistant", prefix)) => Ok(prefix),
        _ => Err(ApiError::field(
            "continue_final_message",
            "is only where the last message is the assistant's",
        )),
    }
}

fn turn(index: usize, message: ChatMessage) -> Result<(&'static str, String), ApiError> {
    let role = match message.role.as_str() {
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        other => {
            let why = format!("is {other}, but must be system, user or assistant");
            return Err(ApiError::field(&format!("messages[{index}].role"), why));
        }
    };
    let field = || format!("messages[{index}].content");
    let content = match message.content {
        None => return Err(ApiError::field(&field(), "is missing")),
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => {
            let mut texts = Vec::new();
            for part in parts {
                match part.text {
                    Some(text) if part.kind == "text" => texts.push(text),
                    _ => {
                        let why = format!("a part is {}, but only text can be read", part.kind);
                        return Err(ApiError::field(&field(), why));
                    }
                }
            }
            texts.join("\n")
        }
    };
    Ok((role, content))
}

/// The prompts of a completion; text is plain, without a template.
///
/// # Errors
/// Empty prompts, or token ids outside the vocabulary.
pub async fn plain(
    app: &Arc<App>,
    prompts: PromptInput,
    with_prefix: bool,
) -> Result<Vec<Plain>, ApiError> {
    let prompts: Vec<Plain> = match prompts {
        PromptInput::Text(text) => encode_all(app, vec![text], with_prefix).await?,
        PromptInput::Texts(texts) => encode_all(app, texts, with_prefix).await?,
        PromptInput::Tokens(tokens) => decode_all(app, vec![tokens]).await?,
        PromptInput::ManyTokens(lists) => decode_all(app, lists).await?,
    };
    if prompts.is_empty() || prompts.iter().any(|prompt| prompt.tokens.is_empty()) {
        return Err(ApiError::field("prompt", "is empty"));
    }
    Ok(prompts)
}

/// The tokens of a plain text.
///
/// # Errors
/// It is empty.
pub async fn text(app: &Arc<App>, text: String) -> Result<Vec<u32>, ApiError> {
    let mut plain = encode_all(app, vec![text], true).await?;
    let tokens = plain.pop().map(|plain| plain.tokens).unwrap_or_default();
    if tokens.is_empty() {
        return Err(ApiError::field("messages", "is empty, and there is no prefix"));
    }
    Ok(tokens)
}

async fn encode_all(
    app: &Arc<App>,
    texts: Vec<String>,
    with_prefix: bool,
) -> Result<Vec<Plain>, ApiError> {
    let bytes = texts.iter().map(String::len).sum();
    let encoding = app.clone();
    let encode = move || {
        let tokenizer = encoding.handle.tokenizer();
        let one = |text: String| {
            let tokens =
                if with_prefix { tokenizer.encode_raw(&text) } else { tokenizer.encode(&text) };
            Plain { text, tokens }
        };
        texts.into_iter().map(one).collect()
    };
    blocking(bytes, encode).await
}

async fn decode_all(app: &Arc<App>, lists: Vec<Vec<u32>>) -> Result<Vec<Plain>, ApiError> {
    let tokens = lists.iter().map(Vec::len).sum();
    let decoding = app.clone();
    let decode = move || lists.into_iter().map(|tokens| decode(&decoding, tokens)).collect();
    blocking(tokens, decode).await?
}

fn decode(app: &App, tokens: Vec<u32>) -> Result<Plain, ApiError> {
    let vocab = app.handle.vocab();
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
        let why = format!("token {token} is outside the vocabulary of {vocab}");
        return Err(ApiError::field("prompt", why));
    }
    Ok(Plain { text: app.handle.tokenizer().decode(&tokens), tokens })
}

/// Runs what takes long for large prompts where it stops nobody else.
async fn blocking<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if size <= SHORT {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| ApiError::internal(format!("the prompt was not read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> ChatMessage {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn turns_are_text_of_known_roles() {
        let parts = r#"{"role": "developer", "content": [{"type": "text", "text": "a"},
            {"type": "text", "text": "b"}]}"#;
        assert_eq!(turn(0, message(parts)).unwrap(), ("system", "a\nb".to_owned()));
        let refused = |json| turn(2, message(json)).unwrap_err().body().error.param.unwrap();
        assert_eq!(refused(r#"{"role": "tool", "content": "x"}"#), "messages[2].role");
        assert_eq!(refused(r#"{"role": "user"}"#), "messages[2].content");
        let image = r#"{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}"#;
        assert_eq!(refused(image), "messages[2].content");
    }
}
