//! The one retry policy, as a state machine over calls and replies.
//!
//! ```text
//! sample at 0.01 ─unreadable─► sample at 0.95 (up to 4 times) ─unreadable─► force
//!       └──────────readable──────────┴─► score the alternatives for the distribution ─► done
//! ```
//!
//! Forcing a rating or label scores the alternatives after the last reply and takes the best.
//! Statements and extracts have no alternatives to score; see [`AskKind`] for what they fall back on.
//! A list of statements that its budget cuts off goes on with the sentences of the answer itself; in an
//! analysis that its budget cuts off only a verdict that ends its line is read as one.
//!
//! An ask with an opening has a rung below the first: the alternatives are scored right after the
//! opening and the best is the verdict. A model that can't score climbs from there as usual. A reply
//! on several statements is sampled once; what it leaves unreadable is for the asker to ask singly.

mod alternatives;
mod group;

use super::parse::{self, Mark};
use super::{Ask, AskKind, BRACKETS, Outcome, Verdict, rounded};
use crate::chat::{Call, ChatError, Estimate, Finish, Message, Reply, Sampling, Task};
use crate::retrieval::sentences::nearest;
use alternatives::{alternatives, argmax, probabilities};
use group::Group;
use sha2::{Digest, Sha256};

/// How many replies are sampled before a verdict is forced.
pub const ATTEMPTS: u32 = 5;

const FIRST_TEMPERATURE: f32 = 0.01;
const RETRY_TEMPERATURE: f32 = 0.95;
/// Of all replies where several verdicts are wanted. If the first were sampled almost greedily, as a
/// single one is, the votes would not be draws from one distribution: their mean would estimate
/// nothing, and their spread would be too small.
const VOTE_TEMPERATURE: f32 = RETRY_TEMPERATURE;

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
    /// How the scores of the last reply were had, if they are not exact.
    estimate: Option<Estimate>,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// A reply is being sampled; the last text seen, if any.
    Sampling { last: Option<String> },
    /// A reply was accepted; its alternatives are being scored.
    Weighing(Verdict),
    /// The same for a reply on several statements, label after label.
    WeighingEach(Group),
    /// The alternatives are being scored after `text` (ends with `[[`), to take the best.
    Forcing { text: String },
}

impl Ladder {
    /// `seed`: see [`unit_seed`]. Attempt `k` (from 0) samples with `seed + k`.
    pub fn new(ask: Ask, seed: u64) -> Self {
        Self { ask, seed, attempts: 0, estimate: None, state: State::Sampling { last: None } }
    }

    /// Whether its verdict has a distribution, which takes a call of its own.
    pub fn weighs(&self) -> bool {
        alternatives(&self.ask.kind).is_some()
    }

    /// The first call.
    pub fn first(&mut self) -> Call {
        let Some(text) = self.ask.opening.clone() else { return self.sample() };
        let call = self.score(&text);
        self.state = State::Forcing { text };
        call
    }

    /// Takes the reply to the last call.
    pub fn next(&mut self, reply: Result<Reply, ChatError>) -> Step {
        self.estimate = reply.as_ref().ok().and_then(Reply::estimate);
        match std::mem::replace(&mut self.state, State::Sampling { last: None }) {
            State::Sampling { last } => self.sampled(last, reply),
            State::Weighing(verdict) => self.weighed(verdict, reply),
            State::WeighingEach(group) => self.weighed_each(group, reply),
            State::Forcing { text } => self.forced(text, reply),
        }
    }

    fn sampled(&mut self, last: Option<String>, reply: Result<Reply, ChatError>) -> Step {
        let (text, finish) = match reply {
            Ok(Reply::Text { text, finish, .. }) => (text, finish),
            Ok(_) => return Step::Failed(unexpected("scores", "a text")),
            Err(ChatError::Refused(_) | ChatError::TooLong { .. }) if self.is_group() => {
                return self.weigh_each(Group::default());
            }
            Err(ChatError::Refused(why)) => return self.refused(last, why),
            Err(error) => return Step::Failed(error),
        };
        let cut = finish == Finish::Length;
        if let AskKind::Supports { count } = self.ask.kind {
            let found = parse::supports(&text, count, cut);
            return self.weigh_each(Group::new(text, found));
        }
        // What an analysis mentions before it is cut off is not what it comes to.
        let counts = |mark: &Mark| !cut || self.ask.opening.is_some() || mark.ends_line(&text);
        match self.read(&text, cut) {
            Some((outcome, None)) => self.accept_list(outcome, text, cut),
            Some((_, Some(mark))) if !counts(&mark) => self.retry(Some(text)),
            Some((outcome, Some(mark))) => self.accept(outcome, mark, text),
            None => self.retry(Some(text)),
        }
    }

    /// `cut`: the reply might have gone on.
    fn read(&self, text: &str, cut: bool) -> Option<(Outcome, Option<Mark>)> {
        match self.ask.kind {
            AskKind::Rating => {
                parse::rating(text).map(|mark| (Outcome::Rating(mark.score), Some(mark)))
            }
            AskKind::Scale { low, high } => parse::rating_within(text, low, high)
                .map(|mark| (Outcome::Rating(mark.score), Some(mark))),
            AskKind::Support => {
                parse::support(text).map(|mark| (Outcome::Support(mark.score), Some(mark)))
            }
            AskKind::Statements { .. } => {
                parse::statements(text, cut).map(|found| (Outcome::Statements(found), None))
            }
            AskKind::Extract => parse::extract(text).map(|found| (Outcome::Extract(found), None)),
            // Read by number; there is no outcome to the reply as a whole.
            AskKind::Supports { .. } => None,
        }
    }

    fn is_group(&self) -> bool {
        matches!(self.ask.kind, AskKind::Supports { .. })
    }

    /// Goes on to the next label of a group, or ends.
    fn weigh_each(&mut self, mut group: Group) -> Step {
        if let Some(prefix) = group.next() {
            let call = self.score(&prefix);
            self.state = State::WeighingEach(group);
            return Step::Call(call);
        }
        let AskKind::Supports { count } = self.ask.kind else {
            return Step::Failed(unexpected("several labels", "one verdict"));
        };
        let (reply, verdicts) = group.end(count);
        Step::Done(self.verdict(Outcome::Supports(verdicts), reply, false))
    }

    fn weighed_each(&mut self, mut group: Group, reply: Result<Reply, ChatError>) -> Step {
        let (score, text) = group.current();
        let mut verdict = self.verdict(Outcome::Support(score), text, false);
        if let Err(error) = self.weigh(&mut verdict, reply) {
            return Step::Failed(error);
        }
        group.put(verdict);
        self.weigh_each(group)
    }

    /// Statements or an extract. `cut`: the reply might have gone on.
    fn accept_list(&self, mut outcome: Outcome, text: String, cut: bool) -> Step {
        if let (true, Outcome::Statements(found), AskKind::Statements { fallback }) =
            (cut, &mut outcome, &self.ask.kind)
        {
            let missing = not_reached(&text, found, fallback);
            found.extend(missing);
        }
        Step::Done(Verdict { cut, ..self.verdict(outcome, text, false) })
    }

    fn accept(&mut self, outcome: Outcome, mark: Mark, text: String) -> Step {
        let verdict = self.verdict(outcome, text, false);
        let call = self.score(&mark.beginning(&verdict.text));
        self.state = State::Weighing(verdict);
        Step::Call(call)
    }

    /// A refusal uses up an attempt, as an unreadable reply does. What statements and extracts fall
    /// back on stands for a model that had its say, so where the last attempt is refused they fail.
    fn refused(&mut self, last: Option<String>, why: String) -> Step {
        if self.attempts >= ATTEMPTS && alternatives(&self.ask.kind).is_none() {
            return Step::Failed(ChatError::Refused(why));
        }
        self.retry(last)
    }

    fn retry(&mut self, last: Option<String>) -> Step {
        if self.attempts >= ATTEMPTS {
            return self.force(last.unwrap_or_default());
        }
        let call = self.sample();
        self.state = State::Sampling { last };
        Step::Call(call)
    }

    fn force(&mut self, last: String) -> Step {
        match &self.ask.kind {
            AskKind::Statements { fallback } => {
                let outcome = Outcome::Statements(fallback.clone());
                Step::Done(self.verdict(outcome, last, true))
            }
            AskKind::Extract => Step::Done(self.verdict(Outcome::Extract(None), last, true)),
            AskKind::Rating
            | AskKind::Scale { .. }
            | AskKind::Support
            | AskKind::Supports { .. } => {
                let last = last.trim();
                let gap = if last.is_empty() { "" } else { "\n\n" };
                self.force_after(format!("{last}{gap}{BRACKETS}"))
            }
        }
    }

    fn force_after(&mut self, text: String) -> Step {
        let call = self.score(&text);
        self.state = State::Forcing { text };
        Step::Call(call)
    }

    fn weighed(&mut self, mut verdict: Verdict, reply: Result<Reply, ChatError>) -> Step {
        match self.weigh(&mut verdict, reply) {
            Ok(()) => Step::Done(verdict),
            Err(error) => Step::Failed(error),
        }
    }

    /// The distribution is an extra: where the model can't give it, the verdict stands without.
    fn weigh(
        &self,
        verdict: &mut Verdict,
        reply: Result<Reply, ChatError>,
    ) -> Result<(), ChatError> {
        match probabilities(&self.ask.kind, reply) {
            Ok(probabilities) => self.add_distribution(verdict, &probabilities),
            // Another time the model might well give it.
            Err(error @ (ChatError::Broken(_) | ChatError::Lost(_))) => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    fn forced(&mut self, text: String, reply: Result<Reply, ChatError>) -> Step {
        let probabilities = match probabilities(&self.ask.kind, reply) {
            Ok(probabilities) => probabilities,
            // A long last reply may leave no room: force without it.
            Err(ChatError::TooLong { .. }) if self.attempts > 0 && text != BRACKETS => {
                return self.force_after(BRACKETS.to_owned());
            }
            // Nothing was sampled yet. A longer opening stands for a part of a reply, and a whole
            // one would say other things as well.
            Err(ChatError::Refused(_)) if self.attempts == 0 && text == BRACKETS => {
                return self.retry(None);
            }
            Err(error) => return Step::Failed(error),
        };
        let alternatives = alternatives(&self.ask.kind).unwrap_or_default();
        let best = argmax(&probabilities);
        let (name, score) = &alternatives[best];
        let outcome = match self.ask.kind {
            AskKind::Support => Outcome::Support(*score),
            _ => Outcome::Rating(*score),
        };
        let forced = self.attempts > 0;
        let mut verdict = self.verdict(outcome, format!("{text}{name}]]"), forced);
        self.add_distribution(&mut verdict, &probabilities);
        Step::Done(verdict)
    }

    fn verdict(&self, outcome: Outcome, text: String, forced: bool) -> Verdict {
        Verdict { attempts: self.attempts, forced, ..Verdict::new(outcome, text) }
    }

    fn add_distribution(&self, verdict: &mut Verdict, probabilities: &[f64]) {
        let scores = alternatives(&self.ask.kind).unwrap_or_default();
        let mean = scores.iter().zip(probabilities).map(|((_, score), p)| score * p).sum();
        verdict.estimate = self.estimate;
        verdict.distribution = probabilities.iter().copied().map(rounded).collect();
        verdict.expected = Some(rounded(mean));
    }

    fn sample(&mut self) -> Call {
        let attempt = self.attempts;
        self.attempts += 1;
        let sampling = Sampling {
            max_new_tokens: self.ask.max_new_tokens,
            temperature: match attempt {
                _ if self.ask.voting.count > 1 => VOTE_TEMPERATURE,
                0 => FIRST_TEMPERATURE,
                _ => RETRY_TEMPERATURE,
            },
            seed: self.seed.wrapping_add(u64::from(attempt)),
            ..Sampling::default()
        };
        self.call(String::new(), Task::Generate(sampling))
    }

    fn score(&self, prefix: &str) -> Call {
        let alternatives = alternatives(&self.ask.kind).unwrap_or_default();
        let continuations = alternatives.into_iter().map(|(name, _)| name).collect();
        self.call(prefix.to_owned(), Task::Score { continuations, closing: "]".to_owned() })
    }

    fn call(&self, prefix: String, task: Task) -> Call {
        Call { messages: vec![Message::user(&self.ask.prompt)], prefix, task }
    }
}

/// The sentences of an answer that a list of its statements had not come to when it was cut off:
/// those after the one that the last statement is from, and that one too if the statement that was
/// cut off is from it.
fn not_reached(reply: &str, listed: &[String], sentences: &[String]) -> Vec<String> {
    let begun = parse::begun(reply);
    if listed.is_empty() && begun.is_none() {
        // It says that there are none.
        return Vec::new();
    }
    let last = listed.last().and_then(|statement| nearest(statement, sentences));
    let next = last.map_or(0, |last| last + 1);
    let is_half_listed = last.is_some() && begun.and_then(|text| nearest(text, sentences)) == last;
    let from = if is_half_listed { next - 1 } else { next };
    let missing = sentences[from..].iter().filter(|sentence| !listed.contains(sentence));
    missing.cloned().collect()
}

fn unexpected(got: &str, wanted: &str) -> ChatError {
    ChatError::Refused(format!("the model answered with {got} where {wanted} were asked for"))
}

#[cfg(test)]
mod tests;
