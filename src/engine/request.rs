//! What goes into the engine and what comes out.

use super::guide::Constraint;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Names a request inside one engine, in order of submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Repetition penalties that are taken. Beyond them nothing is left of the model, and logits that are
/// divided by less may leave the range of numbers.
pub const REPETITION_PENALTIES: RangeInclusive<f32> = 0.01..=100.0;

/// How the next token is chosen; `engine::sampler` says in which order filters apply.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Logits are divided by it; 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the likeliest tokens that hold this much probability are kept; 1 keeps every token.
    pub top_p: f32,
    /// Only so many likeliest tokens are kept; 0 keeps every token.
    pub top_k: usize,
    /// Tokens below `min_p` times the likeliest one's probability are dropped; 0 keeps all.
    pub min_p: f32,
    /// Logits of tokens that occurred are divided by it, negative ones multiplied; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of each token that the sample already has.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time that the sample has it.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Arc<[(u32, f32)]>,
}

impl Default for SamplingParams {
    /// The model's own distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Arc::default(),
        }
    }
}

impl SamplingParams {
    /// Whether logits are changed before a token is drawn.
    pub fn adjusts_logits(&self) -> bool {
        let penalties = [self.presence_penalty, self.frequency_penalty];
        self.repetition_penalty != 1.0 || penalties != [0.0; 2] || !self.logit_bias.is_empty()
    }

    /// # Errors
    /// The first field outside its range.
    pub fn check(&self) -> Result<(), Refused> {
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0.0, "0 or more"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                REPETITION_PENALTIES.contains(&self.repetition_penalty),
                "from 0.01 to 100",
            ),
            ("presence_penalty", self.presence_penalty, true, "a finite number"),
            ("frequency_penalty", self.frequency_penalty, true, "a finite number"),
        ];
        for (field, value, holds, wanted) in checks {
            if !holds || !value.is_finite() {
                return Err(Refused::Sampling { field, value: value.to_string(), wanted });
            }
        }
        if let Some((_, bias)) = self.logit_bias.iter().find(|(_, bias)| !bias.is_finite()) {
            let (field, wanted) = ("logit_bias", "finite numbers");
            return Err(Refused::Sampling { field, value: bias.to_string(), wanted });
        }
        Ok(())
    }
}

/// Work on one prompt.
#[derive(Debug, Clone)]
pub struct Request {
    pub prompt: Vec<u32>,
    pub task: Task,
}

#[derive(Debug, Clone)]
pub enum Task {
    Generate(Generate),
    /// Log-probabilities of whole continuations after the prompt, all sharing its KV.
    Score {
        continuations: Vec<Vec<u32>>,
        /// If present, the logarithm of the summed probability of these tokens right after the
        /// continuation is added: "… and then anything that begins like this". Sorted ids.
        closing: Option<Arc<[u32]>>,
    },
}

#[derive(Debug, Clone)]
pub struct Generate {
    /// Samples of this prompt. Sample `k` uses seed `seed + k` and equals the single sample of a
    /// request with that seed.
    pub n: usize,
    pub max_new_tokens: usize,
    pub params: SamplingParams,
    pub seed: u64,
    /// Any of these ends a sample; it is not part of the output tokens.
    pub stop_tokens: Vec<u32>,
    /// `Some(k)`: log-probability of each sampled token and of the `k` likeliest ones.
    pub logprobs: Option<usize>,
    /// `Some(k)`: log-probability of each prompt token given those before it, and of the `k`
    /// likeliest ones in its place.
    pub prompt_logprobs: Option<usize>,
    /// What samples must keep to. Log-probabilities stay those of the model without it.
    pub constraint: Option<Constraint>,
}

/// Why a sample ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// A stop token, or [`super::Engine::finish_sample`] was called (a stop string above), or the
    /// constraint allows nothing more.
    Stop,
    /// `max_new_tokens` or the context length; or the constraint gave up.
    Length,
}

/// One sampled token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    pub token: u32,
    /// Natural logarithm of the token's probability under the model at temperature 1, before
    /// penalties and filters. Present when asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens with theirs, best first, ties by lowest id.
    pub top: Vec<(u32, f32)>,
}

/// What one step brought.
#[derive(Debug, Clone)]
pub enum Event {
    /// Log-probabilities of the prompt's tokens: one per token, the first `None`; and for each
    /// token the likeliest ones in its place, best first.
    Prompt { id: RequestId, logprobs: Vec<Option<f32>>, top: Vec<Vec<(u32, f32)>> },
    /// The next token of sample `sample` (0-based).
    Token { id: RequestId, sample: usize, token: Sampled },
    /// Sample `sample` ended; if a stop token ended it, with that one.
    Sample { id: RequestId, sample: usize, finish: Finish, stop_token: Option<Sampled> },
    /// The scores of a [`Task::Score`].
    Scores { id: RequestId, logprobs: Vec<f64> },
    /// The whole request ended; nothing more comes with this id.
    Done {
        id: RequestId,
        prompt_tokens: usize,
        /// Prompt tokens whose KV was already there.
        cached_prompt_tokens: usize,
        /// Tokens of all samples together; stop tokens do not count.
        completion_tokens: usize,
    },
    /// The whole request ended without a result; nothing more comes with this id.
    Failed { id: RequestId, why: BadLogits },
}

/// The model's logits are of no use for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model's logits at position {position} of a sequence are not all finite numbers: the weights \
     are damaged, or their type is too narrow for this model"
)]
pub struct BadLogits {
    pub position: usize,
}

impl Event {
    /// The request that this event belongs to.
    pub fn id(&self) -> RequestId {
        match self {
            Self::Prompt { id, .. }
            | Self::Token { id, .. }
            | Self::Sample { id, .. }
            | Self::Scores { id, .. }
            | Self::Done { id, .. }
            | Self::Failed { id, .. } => *id,
        }
    }
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the prompt is empty")]
    Empty,
    /// `reply`: the fewest tokens that a result takes.
    #[error(
        "the prompt has {prompt} tokens and its reply at least {reply}, but the model's context {limit}: \
         shorten the prompt, or take a model with a longer context"
    )]
    Context { prompt: usize, reply: usize, limit: usize },
    /// `reply`: the most tokens of it that are in memory.
    #[error(
        "the prompt has {prompt} tokens and its reply may have {reply} in memory, but keys and values \
         of all sequences together have room for {limit}: raise --kv-memory, or lower \
         --max-new-tokens (--max-reply-tokens for a judge)"
    )]
    Memory { prompt: usize, reply: usize, limit: usize },
    #[error("{field} is {value}, but must be {wanted}")]
    Sampling { field: &'static str, value: String, wanted: &'static str },
    #[error("token {token} at index {index} is not in the vocabulary of {vocab}")]
    Token { token: u32, index: usize, vocab: usize },
}
