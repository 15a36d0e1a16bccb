//! The one retry policy, as a state machine over calls and replies.
//!
//! ```text
//! sample at 0.01 ─unreadable─► sample at 0.95 (up to 4 times) ─unreadable─► force
//!       └──────────readable──────────┴─► score the alternatives for the distribution ─► done
//! ```
//!
//! Forcing a rating or label scores the alternatives after the last reply and takes the best.
//! Statements and extracts have no alternatives to score; see [`AskKind`] for what they fall back on.

use super::parse::{self, Mark};
use super::{Ask, AskKind, Outcome, Verdict};
use crate::chat::{Call, ChatError, Message, Reply, Sampling, Task};
use sha2::{Digest, Sha256};

/// How many replies are sampled before a verdict is forced.
pub const ATTEMPTS: u32 = 5;

const FIRST_TEMPERATURE: f32 = 0.01;
const RETRY_TEMPERATURE: f32 = 0.95;

/// Labels that a support verdict is chosen from, and what each is worth.
const LABELS: [(&str, f64); 3] =
    [("Fully supported", 1.0), ("Partially supported", 0.5), ("No support", 0.0)];

/// The seed of a unit of work, the first 8 bytes (big endian) of SHA-256 of `"{global}/{key}"`. So
/// a unit's replies do not depend on which other units there are.
pub fn unit_seed(global: u64, key: &str) -> u64 {
    let digest = Sha256::digest(format!("{global}/{key}").as_bytes());
    digest.iter().take(8).fold(0, |seed, &byte| (seed << 8) | u64::from(byte))
}

/// What to do after a reply.
#[derive(Debug)]
pub enum Step {
    /// Submit this call and pass its reply to [`Ladder::next`].
    Call(Call),
    Done(Verdict),
    /// No verdict: the model can't take the prompt, or is gone.
    Failed(ChatError),
}

/// Brings one [`Ask`] to a [`Verdict`]: submit [`first`](Ladder::first), then pass each reply to
/// [`next`](Ladder::next) until it says that it is done.
#[derive(Debug, Clone)]
pub struct Ladder {
    ask: Ask,
    seed: u64,
    /// Replies asked for so far.
    attempts: u32,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// A reply is being sampled; the last text seen, if any.
    Sampling { last: Option<String> },
    /// A reply was accepted; its alternatives are being scored.
    Weighing(Verdict),
    /// The alternatives are being scored after `text` (ends with `[[`), to take the best.
    Forcing { text: String },
}

impl Ladder {
    /// `seed`: see [`unit_seed`]. Attempt `k` (from 0) samples with `seed + k`.
    pub fn new(ask: Ask, seed: u64) -> Self {
        Self { ask, seed, attempts: 0, state: State::Sampling { last: None } }
    }

    /// The first call.
    pub fn first(&mut self) -> Call {
        self.sample()
    }

    /// Takes the reply to the last call.
    pub fn next(&mut self, reply: Result<Reply, ChatError>) -> Step {
        match std::mem::replace(&mut self.state, State::Sampling { last: None }) {
            State::Sampling { last } => self.sampled(last, reply),
            State::Weighing(verdict) => self.weighed(verdict, reply),
            State::Forcing { text } => self.forced(text, reply),
        }
    }

    fn sampled(&mut self, last: Option<String>, reply: Result<Reply, ChatError>) -> Step {
        let text = match reply {
            Ok(Reply::Text { text, .. }) => text,
            Ok(Reply::Scores { .. }) => return Step::Failed(unexpected("scores", "a text")),
            Err(ChatError::Refused(why)) => return self.refused(last, why),
            Err(error) => return Step::Failed(error),
        };
        match self.read(&text) {
            Some((outcome, mark)) => self.accept(outcome, mark, text),
            None => self.retry(text),
        }
    }

    fn read(&self, text: &str) -> Option<(Outcome, Option<Mark>)> {
        match self.ask.kind {
            AskKind::Rating => {
                parse::rating(text).map(|mark| (Outcome::Rating(mark.score), Some(mark)))
            }
            AskKind::Support => {
                parse::support(text).map(|mark| (Outcome::Support(mark.score), Some(mark)))
            }
            AskKind::Statements { .. } => {
                parse::statements(text).map(|found| (Outcome::Statements(found), None))
            }
            AskKind::Extract => parse::extract(text).map(|found| (Outcome::Extract(found), None)),
        }
    }

    fn accept(&mut self, outcome: Outcome, mark: Option<Mark>, text: String) -> Step {
        let verdict = self.verdict(outcome, text, false);
        let Some(mark) = mark else { return Step::Done(verdict) };
        let call = self.score(&verdict.text[..mark.inside]);
        self.state = State::Weighing(verdict);
        Step::Call(call)
    }

    /// A refusal uses up an attempt, as an unreadable reply does; unlike one, it leaves nothing to
    /// go on from, so statements and extracts fail if there was nothing else.
    fn refused(&mut self, last: Option<String>, why: String) -> Step {
        let has_alternatives = self.alternatives().is_some();
        match last {
            None if self.attempts >= ATTEMPTS && !has_alternatives => {
                Step::Failed(ChatError::Refused(why))
            }
            last => self.retry(last.unwrap_or_default()),
        }
    }

    fn retry(&mut self, text: String) -> Step {
        if self.attempts >= ATTEMPTS {
            return self.force(text);
        }
        let call = self.sample();
        self.state = State::Sampling { last: Some(text) };
        Step::Call(call)
    }

    fn force(&mut self, last: String) -> Step {
        match &self.ask.kind {
            AskKind::Statements { fallback } => {
                let outcome = Outcome::Statements(fallback.clone());
                Step::Done(self.verdict(outcome, last, true))
            }
            AskKind::Extract => Step::Done(self.verdict(Outcome::Extract(None), last, true)),
            AskKind::Rating | AskKind::Support => {
                let last = last.trim();
                let gap = if last.is_empty() { "" } else { "\n\n" };
                self.force_after(format!("{last}{gap}[["))
            }
        }
    }

    fn force_after(&mut self, text: String) -> Step {
        let call = self.score(&text);
        self.state = State::Forcing { text };
        Step::Call(call)
    }

    /// The distribution is an extra: where the model can't give it, the verdict stands without.
    fn weighed(&mut self, mut verdict: Verdict, reply: Result<Reply, ChatError>) -> Step {
        match self.probabilities(reply) {
            Ok(probabilities) => self.add_distribution(&mut verdict, &probabilities),
            Err(ChatError::Broken(why)) => return Step::Failed(ChatError::Broken(why)),
            Err(_) => {}
        }
        Step::Done(verdict)
    }

    fn forced(&mut self, text: String, reply: Result<Reply, ChatError>) -> Step {
        let probabilities = match self.probabilities(reply) {
            Ok(probabilities) => probabilities,
            // A long last reply may leave no room: force without it.
            Err(ChatError::TooLong { .. }) if text != "[[" => {
                return self.force_after("[[".to_owned());
            }
            Err(error) => return Step::Failed(error),
        };
        let alternatives = self.alternatives().unwrap_or_default();
        let best = argmax(&probabilities);
        let (name, score) = &alternatives[best];
        let outcome = match self.ask.kind {
            AskKind::Support => Outcome::Support(*score),
            _ => Outcome::Rating(*score),
        };
        let mut verdict = self.verdict(outcome, format!("{text}{name}]]"), true);
        self.add_distribution(&mut verdict, &probabilities);
        Step::Done(verdict)
    }

    fn verdict(&self, outcome: Outcome, text: String, forced: bool) -> Verdict {
        let attempts = self.attempts;
        Verdict { outcome, text, attempts, forced, distribution: Vec::new(), expected: None }
    }

    fn add_distribution(&self, verdict: &mut Verdict, probabilities: &[f64]) {
        let scores = self.alternatives().unwrap_or_default();
        let mean = scores.iter().zip(probabilities).map(|((_, score), p)| score * p).sum();
        verdict.distribution = probabilities.iter().copied().map(rounded).collect();
        verdict.expected = Some(rounded(mean));
    }

    /// What can stand between the brackets, with its worth.
    fn alternatives(&self) -> Option<Vec<(String, f64)>> {
        match self.ask.kind {
            AskKind::Rating => Some((0..=10u8).map(|n| (n.to_string(), f64::from(n))).collect()),
            AskKind::Support => {
                Some(LABELS.iter().map(|&(name, worth)| (name.to_owned(), worth)).collect())
            }
            AskKind::Statements { .. } | AskKind::Extract => None,
        }
    }

    /// The probabilities of the alternatives, one for each, normalised over them.
    fn probabilities(&self, reply: Result<Reply, ChatError>) -> Result<Vec<f64>, ChatError> {
        let Reply::Scores { logprobs, .. } = reply? else {
            return Err(unexpected("a text", "scores"));
        };
        let wanted = self.alternatives().map_or(0, |alternatives| alternatives.len());
        if logprobs.len() != wanted {
            let (got, wanted) = (format!("{} scores", logprobs.len()), wanted.to_string());
            return Err(unexpected(&got, &wanted));
        }
        normalised(&logprobs).ok_or_else(|| {
            ChatError::Refused(format!("the model gives no verdict a probability: {logprobs:?}"))
        })
    }

    fn sample(&mut self) -> Call {
        let attempt = self.attempts;
        self.attempts += 1;
        let sampling = Sampling {
            max_new_tokens: self.ask.max_new_tokens,
            temperature: if attempt == 0 { FIRST_TEMPERATURE } else { RETRY_TEMPERATURE },
            seed: self.seed.wrapping_add(u64::from(attempt)),
            ..Sampling::default()
        };
        self.call(String::new(), Task::Generate(sampling))
    }

    fn score(&self, prefix: &str) -> Call {
        let alternatives = self.alternatives().unwrap_or_default();
        let continuations = alternatives.into_iter().map(|(name, _)| name).collect();
        self.call(prefix.to_owned(), Task::Score { continuations, closing: "]".to_owned() })
    }

    fn call(&self, prefix: String, task: Task) -> Call {
        Call { messages: vec![Message::user(&self.ask.prompt)], prefix, task }
    }
}

fn unexpected(got: &str, wanted: &str) -> ChatError {
    ChatError::Refused(format!("the model answered with {got} where {wanted} were asked for"))
}

/// `None` if no logarithm is finite, or one is not a probability's.
fn normalised(logprobs: &[f64]) -> Option<Vec<f64>> {
    let highest = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !highest.is_finite() || logprobs.iter().any(|logprob| logprob.is_nan()) {
        return None;
    }
    let weights: Vec<f64> = logprobs.iter().map(|logprob| (logprob - highest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    Some(weights.into_iter().map(|weight| weight / sum).collect())
}

/// The index of the largest value, the lowest of equals.
fn argmax(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// To six decimals: short in a record, and read back from JSON exactly.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
