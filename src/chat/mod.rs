//! What the judge and the pipeline know of a model: calls go in, replies come out.
//!
//! The trait is a completion queue, not a function from batch to batch: a caller submits whatever
//! is ready and submits more while replies arrive, so that the engine's batch never drains
//! between the stages of a job.

pub mod cache;
mod encode;
pub mod grammar;
pub mod kept;
pub mod local;
pub mod remote;
mod scripted;
pub mod service;
pub mod text;
pub mod wire;

pub use scripted::Scripted;

use serde::{Deserialize, Serialize};

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    /// As chat templates and wire formats spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

impl Message {
    /// A user's turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }
}

/// How a reply is sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    pub max_new_tokens: usize,
    /// 0 means greedy.
    pub temperature: f32,
    /// 1 keeps every token.
    pub top_p: f32,
    /// 0 keeps every token.
    pub top_k: usize,
    /// Tokens below `min_p` times the likeliest one's probability are dropped; 0 keeps all.
    pub min_p: f32,
    /// 1 changes nothing.
    pub repetition_penalty: f32,
    /// The reply is a function of the conversation, these settings and the seed alone.
    pub seed: u64,
    /// The reply ends before the first of these strings.
    pub stop: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            max_new_tokens: 1024,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            stop: Vec::new(),
        }
    }
}

/// What is wanted after the prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Sample a reply.
    Generate(Sampling),
    /// Score given continuations: for each, the log-probability that the reply goes on with
    /// exactly this text and then with any text that begins with `closing` (no condition if
    /// `closing` is empty).
    Score { continuations: Vec<String>, closing: String },
}

/// One conversation to continue; or, where there is no message, a plain text: then `prefix` goes to
/// the model as it is, without a chat template.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub messages: Vec<Message>,
    /// Text that the assistant has already said; the reply goes on from here.
    pub prefix: String,
    pub task: Task,
}

/// Names a call between [`Chat::submit`] and [`Chat::wait`]; chosen by the caller, unique among
/// the calls in flight.
pub type CallId = u64;

/// Why a sampled reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// A stop token or stop string.
    Stop,
    /// `max_new_tokens` or the model's context length.
    Length,
}

/// Tokens that a call, or all calls so far, cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: u64,
    /// Prompt tokens whose KV was already there.
    pub cached_prompt_tokens: u64,
    pub completion_tokens: u64,
}

impl std::ops::Sub for Usage {
    type Output = Self;

    /// What came on top of `before`.
    fn sub(self, before: Self) -> Self {
        let Self { prompt_tokens, cached_prompt_tokens, completion_tokens } = before;
        Self {
            prompt_tokens: self.prompt_tokens.saturating_sub(prompt_tokens),
            cached_prompt_tokens: self.cached_prompt_tokens.saturating_sub(cached_prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_sub(completion_tokens),
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.cached_prompt_tokens += other.cached_prompt_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}

/// The answer to a [`Call`].
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// For [`Task::Generate`]; `text` is without the call's `prefix`.
    Text { text: String, finish: Finish, usage: Usage },
    /// For [`Task::Score`]: natural logarithms, one per continuation.
    Scores { logprobs: Vec<f64>, usage: Usage },
    /// For [`Task::Score`], where the model can't be asked for just that: the same as far as it can
    /// be had in another way.
    Estimates { logprobs: Vec<f64>, way: Estimate, usage: Usage },
}

impl Reply {
    /// What it cost.
    pub fn usage(&self) -> Usage {
        match self {
            Self::Text { usage, .. }
            | Self::Scores { usage, .. }
            | Self::Estimates { usage, .. } => *usage,
        }
    }

    /// How its scores were had, if they are not exact.
    pub fn estimate(&self) -> Option<Estimate> {
        match self {
            Self::Estimates { way, .. } => Some(*way),
            Self::Text { .. } | Self::Scores { .. } => None,
        }
    }
}

/// How continuations were scored by a model that can't score continuations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimate {
    /// From the log-probabilities of prompts that end with them; what closes them counts as far as
    /// it is among the likeliest tokens.
    Echo,
    /// The model was asked once more, for one of them alone, and its first token was read.
    FirstToken,
}

/// Why a call has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// This call can't ever be served (the others go on): its prompt has so many tokens, and of them so
    /// many could be served with its reply. Both numbers are 0 where they are not known.
    #[error("{}", too_long(*.tokens, *.limit, .why))]
    TooLong { tokens: usize, limit: usize, why: String },
    /// This call failed for another reason of its own (the others go on).
    #[error("{0}")]
    Refused(String),
    /// This call got no answer: it was repeated, and others were answered; or what the model computed is
    /// of no use. (The others go on.)
    #[error("{0}")]
    Lost(String),
    /// The model behind it is gone; no further call can be served.
    #[error("{0}")]
    Broken(String),
}

fn too_long(tokens: usize, limit: usize, why: &str) -> String {
    match (tokens, limit) {
        (0, _) | (_, 0) => format!("the prompt is too long: {why}"),
        // The engine's reason tells as much.
        _ if why.starts_with(&format!("the prompt has {tokens} tokens")) => why.to_owned(),
        _ => format!("the prompt has {tokens} tokens, but at most {limit} fit: {why}"),
    }
}

/// A model that continues conversations.
pub trait Chat {
    /// Queues a call. Nothing is computed before [`Chat::wait`].
    fn submit(&mut self, id: CallId, call: Call);

    /// Computes for a moment (a step of the engine) and returns the calls that are finished, perhaps
    /// none yet. For a model of this program, in an order that depends only on the calls and the
    /// order of submission.
    fn wait(&mut self) -> Vec<(CallId, Result<Reply, ChatError>)>;

    /// How many calls it is useful to have queued: with fewer, batches may run half empty.
    fn appetite(&self) -> usize;

    /// Tokens of all finished calls so far.
    fn usage(&self) -> Usage;

    /// How many of the finished calls were answered by replies that were kept, without a model.
    fn kept(&self) -> u64 {
        0
    }
}
