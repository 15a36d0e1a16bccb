//! `/longreward/continuations`, which the OpenAI API lacks: how likely a reply is to go on with given
//! texts.

use super::{ChatMessage, Usage};
use serde::{Deserialize, Serialize};

/// A conversation, the beginning of the reply to it, and what may come next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContinuationsRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub messages: Vec<ChatMessage>,
    /// What the assistant has already said.
    #[serde(default)]
    pub prefix: String,
    pub continuations: Vec<String>,
    /// If not empty, each continuation must be followed by some text that begins so.
    #[serde(default)]
    pub closing: String,
}

/// One log-probability per continuation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContinuationsResponse {
    pub id: String,
    /// `longreward.continuations`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
    /// Natural logarithms as decimal texts, which come back exactly and can be `-inf`.
    pub logprobs: Vec<String>,
    pub usage: Usage,
}
