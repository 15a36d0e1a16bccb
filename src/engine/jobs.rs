//! What a request has reached, and what its rows of logits are wanted for.
//!
//! ```text
//! Generate   Prompt ──┬─ Sample 0 ── one row per step
//!                     ├─ Sample 1      each drawn from the prompt's last row, then on its own
//!                     └─ …
//! Score      Prompt ──┬─ Continuation 0   its first token's probability comes from the prompt's
//!                     └─ …                last row; only what then still lacks becomes a sequence
//! ```

use super::guide::Guided;
use super::request::{Generate, Sampled, Task};
use super::sampler::{Draw, LogProbabilities, NotFinite, draw, log_probabilities};
use super::scheduler::{SeqId, Sequence};

/// What a sequence is to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Prompt,
    Sample(usize),
    Continuation(usize),
}

/// A request on its way.
#[derive(Debug)]
pub struct Job {
    pub task: Task,
    pub prompt_tokens: usize,
    /// Found in the cache when the prompt was begun.
    pub cached: usize,
    /// New tokens that a sample may have.
    pub limit: usize,
    /// One per sample or continuation.
    pub branches: Vec<Branch>,
    /// One per sample, if samples are restricted.
    pub guides: Vec<Guided>,
    /// One per prompt token, if asked for.
    pub prompt_logprobs: Vec<Option<f32>>,
    /// The likeliest ones in its place, as many.
    pub prompt_top: Vec<Vec<(u32, f32)>>,
}

/// A sample or a continuation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Branch {
    pub ended: bool,
    pub seq: Option<SeqId>,
    /// Tokens of the sample.
    pub tokens: usize,
    /// Log-probability of the continuation so far.
    pub score: f64,
}

impl Job {
    /// A request of a prompt of `prompt` tokens, whose samples may have `limit` tokens.
    pub fn new(task: Task, prompt: usize, limit: usize) -> Self {
        let (branches, logprobs) = match &task {
            Task::Generate(generate) => (generate.n, generate.prompt_logprobs.is_some()),
            Task::Score { continuations, .. } => (continuations.len(), false),
        };
        let guides = match &task {
            Task::Generate(Generate { constraint: Some(constraint), n, .. }) => {
                (0..*n).map(|_| Guided::new(constraint)).collect()
            }
            _ => Vec::new(),
        };
        Self {
            task,
            prompt_tokens: prompt,
            cached: 0,
            limit,
            branches: vec![Branch::default(); branches],
            guides,
            prompt_logprobs: if logprobs { vec![None; prompt] } else { Vec::new() },
            prompt_top: if logprobs { vec![Vec::new(); prompt] } else { Vec::new() },
        }
    }

    /// From which position of the prompt on logits are wanted; `None` if nothing need be computed.
    pub fn logits_from(&self) -> Option<usize> {
        let last = self.prompt_tokens - 1;
        match &self.task {
            Task::Generate(generate) if generate.prompt_logprobs.is_some() => Some(0),
            Task::Generate(generate) => (generate.n > 0 && self.limit > 0).then_some(last),
            Task::Score { continuations, closing } => {
                let needs = |tokens: &Vec<u32>| closing.is_some() || !tokens.is_empty();
                continuations.iter().any(needs).then_some(last)
            }
        }
    }

    /// Sequences that will decode at the same time.
    pub fn width(&self) -> usize {
        match &self.task {
            Task::Generate(generate) if self.limit > 1 => generate.n,
            _ => 1,
        }
    }

    pub fn all_ended(&self) -> bool {
        self.branches.iter().all(|branch| branch.ended)
    }

    /// Tokens of all samples.
    pub fn completion_tokens(&self) -> usize {
        self.branches.iter().map(|branch| branch.tokens).sum()
    }

    /// What the logits of `position` in a sequence of this request are wanted for.
    pub fn want<'a>(&'a self, role: Role, position: usize, sequence: &'a Sequence) -> Want<'a> {
        if role == Role::Prompt && position + 1 < self.prompt_tokens {
            let tokens = vec![sequence.tokens()[position + 1]];
            return Want::Given { tokens, closing: None, top: self.prompt_top() };
        }
        let next = position + 1 - self.prompt_tokens;
        match &self.task {
            Task::Generate(generate) => Want::Draw(self.draw(generate, role, next, sequence)),
            Task::Score { continuations, closing } => match role {
                Role::Continuation(k) => {
                    let token = continuations[k].get(next).copied();
                    let closing = closing.as_deref().filter(|_| token.is_none());
                    Want::Given { tokens: token.into_iter().collect(), closing, top: 0 }
                }
                _ => {
                    let firsts = continuations.iter().filter_map(|tokens| tokens.first().copied());
                    let at_once = continuations.iter().any(Vec::is_empty);
                    let closing = closing.as_deref().filter(|_| at_once);
                    Want::Given { tokens: firsts.collect(), closing, top: 0 }
                }
            },
        }
    }

    /// How many of the likeliest tokens are wanted for each place of the prompt.
    fn prompt_top(&self) -> usize {
        match &self.task {
            Task::Generate(generate) => generate.prompt_logprobs.unwrap_or(0),
            Task::Score { .. } => 0,
        }
    }

    fn draw<'a>(
        &'a self,
        generate: &'a Generate,
        role: Role,
        index: usize,
        sequence: &'a Sequence,
    ) -> Draw<'a> {
        let seed = |k: usize| generate.seed.wrapping_add(k as u64);
        let seeds = match role {
            Role::Sample(k) => vec![seed(k)],
            _ if self.limit == 0 => Vec::new(),
            _ => (0..generate.n).map(seed).collect(),
        };
        let (params, logprobs) = (&generate.params, generate.logprobs);
        // All samples begin alike.
        let guided = self.guides.get(if let Role::Sample(k) = role { k } else { 0 });
        let allowed = guided.and_then(Guided::allowed);
        Draw { params, seeds, index, seen: sequence.tokens(), logprobs, allowed }
    }

    /// Takes the first tokens' log-probabilities of all continuations from the prompt's last row,
    /// and returns what else must be computed: continuations with the tokens to run.
    pub fn begin_scores(&mut self, firsts: &[f64], closed: Option<f64>) -> Vec<(usize, Vec<u32>)> {
        let Task::Score { continuations, closing } = &self.task else { return Vec::new() };
        let mut firsts = firsts.iter();
        let mut rest = Vec::new();
        for (k, (tokens, branch)) in continuations.iter().zip(&mut self.branches).enumerate() {
            let first = if tokens.is_empty() { closed.as_ref() } else { firsts.next() };
            branch.score = first.copied().unwrap_or(0.0);
            // The last token's KV is needed only to see what closes the continuation.
            let run = if closing.is_some() { tokens.len() } else { tokens.len().saturating_sub(1) };
            branch.ended = run == 0;
            if run > 0 {
                rest.push((k, tokens[..run].to_vec()));
            }
        }
        rest
    }
}

/// What a row of logits is wanted for.
#[derive(Debug)]
pub enum Want<'a> {
    /// Log-probabilities of these tokens, of the set as a whole, and of the `top` likeliest.
    Given { tokens: Vec<u32>, closing: Option<&'a [u32]>, top: usize },
    /// New tokens.
    Draw(Draw<'a>),
}

/// What came of a row of logits.
#[derive(Debug)]
pub enum Outcome {
    Given(LogProbabilities),
    Drawn(Vec<Sampled>),
}

impl Want<'_> {
    /// Reads a row.
    ///
    /// # Errors
    /// Logits that are not finite.
    pub fn meet(&self, logits: &[f32]) -> Result<Outcome, NotFinite> {
        match self {
            Self::Given { tokens, closing, top } => {
                Ok(Outcome::Given(log_probabilities(logits, tokens, *closing, *top)?))
            }
            Self::Draw(wanted) => Ok(Outcome::Drawn(draw(logits, wanted)?)),
        }
    }
}
