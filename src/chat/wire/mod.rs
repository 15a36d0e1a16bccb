//! The types of the OpenAI API, as both sides of a connection write and read them: plain data, no
//! transport. Fields that nobody here uses are not listed, but for those that the server refuses because they
//! change what a reply is; unknown ones are ignored.
//!
//! Requests hold what was sent, absent or `null` fields as `None`. What values are allowed is the
//! server's business.

mod chat;
mod completion;
mod continuations;
mod embedding;
mod error;
mod tools;

pub use chat::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatLogprobs, ChatMessage, ChatRequest, ChatResponse,
    ChatToken, Content, Delta, Part, ReplyMessage, TopToken,
};
pub use completion::{
    CompletionChoice, CompletionLogprobs, CompletionRequest, CompletionResponse, PromptInput,
};
pub use continuations::{ContinuationsRequest, ContinuationsResponse};
pub use embedding::{
    EmbeddingInput, EmbeddingItem, EmbeddingRequest, EmbeddingResponse, EmbeddingVector,
};
pub use error::{ErrorBody, ErrorDetail};
pub use tools::{Called, Function, Named, Tool, ToolCall, ToolChoice};

use serde::{Deserialize, Deserializer, Serialize};

/// Some servers write `null` for what they do not tell.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// One text or a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// `stream_options`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOptions {
    /// The last chunk before the end holds the usage.
    #[serde(default)]
    pub include_usage: bool,
}

/// What a request cost, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    #[serde(default, deserialize_with = "null_as_default")]
    pub prompt_tokens: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub completion_tokens: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub total_tokens: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokensDetails {
    /// Prompt tokens whose keys and values were already there.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cached_tokens: u64,
}

impl From<super::Usage> for Usage {
    fn from(usage: super::Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: Some(PromptTokensDetails {
                cached_tokens: usage.cached_prompt_tokens,
            }),
        }
    }
}

/// `response_format`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<serde_json::Value>,
}

/// `structured_outputs`: one of its fields is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StructuredOutputs {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Whatever else is there.
    #[serde(flatten)]
    pub others: serde_json::Map<String, serde_json::Value>,
}

/// Fields that chat and text completions share, and what other servers add to them (`top_k` and
/// what follows it).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    /// Token id, in decimal, to what is added to its logit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<std::collections::BTreeMap<String, f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
    /// The reply is one of these texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guided_choice: Option<Vec<String>>,
    /// The reply is JSON that this schema allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guided_json: Option<serde_json::Value>,
    /// The reply matches this regular expression as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guided_regex: Option<String>,
    /// The three in newer spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structured_outputs: Option<StructuredOutputs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_eos: Option<bool>,
    /// From here on what is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guided_grammar: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub functions: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_token_ids: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<serde_json::Value>,
}

/// A model in `/v1/models`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    pub id: String,
    /// `model`.
    #[serde(default)]
    pub object: String,
    /// Seconds since 1970.
    #[serde(default)]
    pub created: u64,
    #[serde(default)]
    pub owned_by: String,
    /// Tokens that it reads and writes in all (the name is vLLM's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<usize>,
    /// Where llama.cpp's server tells the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<ModelMeta>,
    /// From this program's own server: what replies depend on, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longreward: Option<std::collections::BTreeMap<String, String>>,
}

impl Model {
    /// Tokens that it reads and writes in all, if the server tells.
    pub fn context(&self) -> Option<usize> {
        self.max_model_len.or(self.meta.and_then(|meta| meta.n_ctx))
    }
}

/// What llama.cpp's server says of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMeta {
    /// Tokens that each of its slots reads and writes in all.
    #[serde(default)]
    pub n_ctx: Option<usize>,
}

/// The answer of `/v1/models`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// `list`.
    #[serde(default)]
    pub object: String,
    pub data: Vec<Model>,
}
