//! The one retry policy, as a state machine over calls and replies.
//!
//! ```text
//! sample at 0.01 ─unreadable─► sample at 0.95 (up to 4 times) ─unreadable─► force
//!       └──────────readable──────────┴─► score the alternatives for the distribution ─► done
//! ```
//!
//! Forcing a rating or label scores the alternatives after the last reply and takes the best.
//! Statements and extracts have no alternatives to score; see [`AskKind`] for what they fall back on.
//!
//! An ask with an opening has a rung below the first: the alternatives are scored right after the
//! opening and the best is the verdict. A model that can't score climbs from there as usual. A reply
//! on several statements is sampled once; what it leaves unreadable is for the asker to ask singly.

use super::group::Group;
use super::parse::{self, Mark};
use super::{Ask, AskKind, BRACKETS, Outcome, Verdict, rounded};
use crate::chat::{Call, ChatError, Estimate, Message, Reply, Sampling, Task};
use sha2::{Digest, Sha256};

/// How many replies are sampled before a verdict is forced.
pub const ATTEMPTS: u32 = 5;

const FIRST_TEMPERATURE: f32 = 0.01;
const RETRY_TEMPERATURE: f32 = 0.95;
/// Of all replies where several verdicts are wanted. If the first were sampled almost greedily, as a
/// single one is, the votes would not be draws from one distribution: their mean would estimate
/// nothing, and their spread would be too small.
const VOTE_TEMPERATURE: f32 = RETRY_TEMPERATURE;

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
        let text = match reply {
            Ok(Reply::Text { text, .. }) => text,
            Ok(_) => return Step::Failed(unexpected("scores", "a text")),
            Err(ChatError::Refused(_) | ChatError::TooLong { .. }) if self.is_group() => {
                return self.weigh_each(Group::default());
            }
            Err(ChatError::Refused(why)) => return self.refused(last, why),
            Err(error) => return Step::Failed(error),
        };
        if let AskKind::Supports { count } = self.ask.kind {
            let found = parse::supports(&text, count);
            return self.weigh_each(Group::new(text, found));
        }
        match self.read(&text) {
            Some((outcome, mark)) => self.accept(outcome, mark, text),
            None => self.retry(Some(text)),
        }
    }

    fn read(&self, text: &str) -> Option<(Outcome, Option<Mark>)> {
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
                parse::statements(text).map(|found| (Outcome::Statements(found), None))
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
            let call = self.score(prefix);
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
        let nothing_to_force = last.is_none() && self.alternatives().is_none();
        if self.attempts >= ATTEMPTS && nothing_to_force {
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
        match self.probabilities(reply) {
            Ok(probabilities) => self.add_distribution(verdict, &probabilities),
            // Another time the model might well give it.
            Err(error @ (ChatError::Broken(_) | ChatError::Lost(_))) => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    fn forced(&mut self, text: String, reply: Result<Reply, ChatError>) -> Step {
        let probabilities = match self.probabilities(reply) {
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
        let alternatives = self.alternatives().unwrap_or_default();
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
        let attempts = self.attempts;
        let (distribution, expected) = (Vec::new(), None);
        let (votes, estimate) = (None, None);
        Verdict { outcome, text, attempts, forced, distribution, expected, votes, estimate }
    }

    fn add_distribution(&self, verdict: &mut Verdict, probabilities: &[f64]) {
        let scores = self.alternatives().unwrap_or_default();
        let mean = scores.iter().zip(probabilities).map(|((_, score), p)| score * p).sum();
        verdict.estimate = self.estimate;
        verdict.distribution = probabilities.iter().copied().map(rounded).collect();
        verdict.expected = Some(rounded(mean));
    }

    /// What can stand between the brackets, with its worth.
    fn alternatives(&self) -> Option<Vec<(String, f64)>> {
        match self.ask.kind {
            AskKind::Rating => Some(ratings(0, 10)),
            AskKind::Scale { low, high } => Some(ratings(low, high)),
            AskKind::Support | AskKind::Supports { .. } => {
                Some(LABELS.iter().map(|&(name, worth)| (name.to_owned(), worth)).collect())
            }
            AskKind::Statements { .. } | AskKind::Extract => None,
        }
    }

    /// The probabilities of the alternatives, one for each, normalised over them.
    fn probabilities(&self, reply: Result<Reply, ChatError>) -> Result<Vec<f64>, ChatError> {
        let (Reply::Scores { logprobs, .. } | Reply::Estimates { logprobs, .. }) = reply? else {
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
        let alternatives = self.alternatives().unwrap_or_default();
        let continuations = alternatives.into_iter().map(|(name, _)| name).collect();
        self.call(prefix.to_owned(), Task::Score { continuations, closing: "]".to_owned() })
    }

    fn call(&self, prefix: String, task: Task) -> Call {
        Call { messages: vec![Message::user(&self.ask.prompt)], prefix, task }
    }
}

fn ratings(low: u8, high: u8) -> Vec<(String, f64)> {
    (low..=high).map(|n| (n.to_string(), f64::from(n))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Chat, Finish, Scripted, Usage};
    use crate::judge::{VoteBy, Voting};

    fn ask(kind: AskKind) -> Ask {
        let (prompt, voting) = ("prompt".to_owned(), Voting::default());
        Ask { kind, prompt, max_new_tokens: 512, opening: None, voting }
    }

    fn statements(fallback: &[&str]) -> AskKind {
        AskKind::Statements { fallback: fallback.iter().map(|&text| text.to_owned()).collect() }
    }

    fn text(text: &str) -> Result<Reply, ChatError> {
        let (text, usage) = (text.to_owned(), Usage::default());
        Ok(Reply::Text { text, finish: Finish::Stop, usage })
    }

    fn scores(probabilities: &[f64]) -> Result<Reply, ChatError> {
        let logprobs = probabilities.iter().map(|p| p.ln()).collect();
        Ok(Reply::Scores { logprobs, usage: Usage::default() })
    }

    fn too_long() -> Result<Reply, ChatError> {
        Err(ChatError::TooLong { tokens: 9, limit: 5, why: "context".to_owned() })
    }

    fn refused() -> Result<Reply, ChatError> {
        Err(ChatError::Refused("no".to_owned()))
    }

    fn is_score(call: &Call) -> bool {
        matches!(call.task, Task::Score { .. })
    }

    /// Climbs the ladder on a model that samples `replies` one after the other and answers each
    /// call for scores by `score`. Returns the end and the calls.
    fn climb(
        kind: AskKind,
        replies: Vec<Result<Reply, ChatError>>,
        score: impl Fn(&Call) -> Result<Reply, ChatError>,
    ) -> (Result<Verdict, ChatError>, Vec<Call>) {
        climb_ask(ask(kind), replies, score)
    }

    fn climb_ask(
        ask: Ask,
        replies: Vec<Result<Reply, ChatError>>,
        score: impl Fn(&Call) -> Result<Reply, ChatError>,
    ) -> (Result<Verdict, ChatError>, Vec<Call>) {
        let mut replies = replies.into_iter();
        let mut chat = Scripted::new(|call: &Call| match is_score(call) {
            true => score(call),
            false => replies.next().expect("no further reply in the script"),
        });
        let mut ladder = Ladder::new(ask, 100);
        chat.submit(0, ladder.first());
        let end = loop {
            let (_, reply) = chat.wait().remove(0);
            match ladder.next(reply) {
                Step::Call(call) => chat.submit(0, call),
                Step::Done(verdict) => break Ok(verdict),
                Step::Failed(error) => break Err(error),
            }
        };
        let calls = std::mem::take(&mut chat.seen);
        (end, calls)
    }

    fn uniform(call: &Call) -> Result<Reply, ChatError> {
        match &call.task {
            Task::Score { continuations, .. } => scores(&vec![0.01; continuations.len()]),
            Task::Generate(_) => panic!("not a call for scores"),
        }
    }

    fn temperatures_and_seeds(calls: &[Call]) -> Vec<(f32, u64)> {
        let sampling = |call: &Call| match &call.task {
            Task::Generate(sampling) => Some((sampling.temperature, sampling.seed)),
            Task::Score { .. } => None,
        };
        calls.iter().filter_map(sampling).collect()
    }

    #[test]
    fn a_readable_first_reply_takes_one_sample_and_one_scoring() {
        let (end, calls) = climb(AskKind::Rating, vec![text("Good. [[7]]")], uniform);
        let verdict = end.unwrap();
        assert_eq!(verdict.outcome, Outcome::Rating(7.0));
        assert_eq!(
            (verdict.text.as_str(), verdict.attempts, verdict.forced),
            ("Good. [[7]]", 1, false)
        );
        assert_eq!(temperatures_and_seeds(&calls), [(0.01, 100)]);
        assert_eq!(calls[0].messages, [Message::user("prompt")]);
        assert_eq!(calls[1].prefix, "Good. [[");
        let ratings = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"].map(str::to_owned);
        let task = Task::Score { continuations: ratings.to_vec(), closing: "]".to_owned() };
        assert_eq!((calls[1].task.clone(), calls.len()), (task, 2));
    }

    #[test]
    fn retries_are_warm_and_have_seeds_of_their_own() {
        let replies = ["no verdict", "", "[[85]]", "still none", "[[4]]"].map(text).to_vec();
        let (end, calls) = climb(AskKind::Rating, replies, uniform);
        let verdict = end.unwrap();
        assert_eq!(verdict.outcome, Outcome::Rating(4.0));
        assert_eq!((verdict.attempts, verdict.forced), (5, false));
        let expected = [(0.01, 100), (0.95, 101), (0.95, 102), (0.95, 103), (0.95, 104)];
        assert_eq!(temperatures_and_seeds(&calls), expected);
    }

    #[test]
    fn the_distribution_is_normalised_and_has_an_expected_value() {
        let weigh = |_: &Call| {
            let mut weights = [0.0; 11];
            weights[7] = 0.06;
            weights[10] = 0.02;
            scores(&weights)
        };
        let verdict = climb(AskKind::Rating, vec![text("[[7]]")], weigh).0.unwrap();
        assert_eq!(verdict.distribution.len(), 11);
        assert_eq!((verdict.distribution[7], verdict.distribution[10]), (0.75, 0.25));
        assert!((verdict.distribution.iter().sum::<f64>() - 1.0).abs() < 1e-5);
        assert_eq!(verdict.expected, Some(7.75));
    }

    #[test]
    fn a_support_verdict_is_scored_over_the_labels() {
        let reply = "Said. [[Partially supported]]";
        let weigh = |_: &Call| scores(&[0.1, 0.3, 0.1]);
        let (end, calls) = climb(AskKind::Support, vec![text(reply)], weigh);
        let verdict = end.unwrap();
        assert_eq!(verdict.outcome, Outcome::Support(0.5));
        assert_eq!(verdict.distribution, [0.2, 0.6, 0.2]);
        assert_eq!(verdict.expected, Some(0.5));
        assert_eq!(calls[1].prefix, "Said. [[");
    }

    #[test]
    fn no_readable_rating_forces_the_likeliest_one() {
        let weigh = |call: &Call| {
            assert_eq!(call.prefix, "I can't say.\n\n[[");
            scores(&[0.1, 0.1, 0.3, 0.1, 0.3, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0])
        };
        let replies = vec![text("  I can't say.\n"); ATTEMPTS as usize];
        let (end, calls) = climb(AskKind::Rating, replies, weigh);
        let verdict = end.unwrap();
        // Ratings 2 and 4 are equally likely: the lower one.
        assert_eq!(verdict.outcome, Outcome::Rating(2.0));
        assert_eq!((verdict.attempts, verdict.forced), (5, true));
        assert_eq!(verdict.text, "I can't say.\n\n[[2]]");
        assert_eq!(verdict.distribution[2], 0.3);
        assert_eq!(verdict.expected, Some(2.7));
        assert_eq!(calls.len(), 6);
    }

    #[test]
    fn another_scale_is_read_weighed_and_forced_within_its_ends() {
        let kind = AskKind::Scale { low: 1, high: 3 };
        let weigh = |_: &Call| scores(&[0.1, 0.1, 0.3]);
        let replies = ["[[0]]", "[[4]]", "[[2/3]]"].map(text).to_vec();
        let (end, calls) = climb(kind.clone(), replies, weigh);
        let verdict = end.unwrap();
        assert_eq!((verdict.outcome, verdict.attempts), (Outcome::Rating(2.0), 3));
        assert_eq!((verdict.distribution, verdict.expected), (vec![0.2, 0.2, 0.6], Some(2.4)));
        let task = Task::Score {
            continuations: ["1", "2", "3"].map(str::to_owned).to_vec(),
            closing: "]".to_owned(),
        };
        assert_eq!(calls[3].task, task);
        let verdict = climb(kind, vec![text("?"); 5], weigh).0.unwrap();
        assert_eq!((verdict.outcome, verdict.forced), (Outcome::Rating(3.0), true));
    }

    #[test]
    fn an_empty_reply_forces_from_the_brackets_alone() {
        let weigh = |call: &Call| {
            assert_eq!(call.prefix, "[[");
            scores(&[0.2, 0.5, 0.3])
        };
        let verdict = climb(AskKind::Support, vec![text(" "); 5], weigh).0.unwrap();
        assert_eq!(verdict.outcome, Outcome::Support(0.5));
        assert_eq!(verdict.text, "[[Partially supported]]");
        assert!(verdict.forced);
    }

    #[test]
    fn a_last_reply_too_long_to_go_on_from_is_left_out() {
        let weigh = |call: &Call| if call.prefix == "[[" { uniform(call) } else { too_long() };
        let (end, calls) = climb(AskKind::Rating, vec![text("rambling"); 5], weigh);
        assert_eq!(end.unwrap().text, "[[0]]");
        assert_eq!(calls.len(), 7);
        let end = climb(AskKind::Rating, vec![text("rambling"); 5], |_| too_long()).0;
        assert!(matches!(end, Err(ChatError::TooLong { .. })));
    }

    #[test]
    fn a_readable_verdict_stands_without_a_distribution() {
        for weigh in
            [too_long, refused, || text("8"), || scores(&[0.5, 0.5]), || scores(&[0.0; 11])]
        {
            let verdict = climb(AskKind::Rating, vec![text("[[8]]")], |_| weigh()).0.unwrap();
            assert_eq!(verdict.outcome, Outcome::Rating(8.0));
            assert_eq!((verdict.distribution.len(), verdict.expected), (0, None));
        }
    }

    #[test]
    fn a_forced_verdict_is_never_invented() {
        for weigh in [refused, || text("8"), || scores(&[f64::NAN; 11]), || scores(&[0.0; 11])] {
            let end = climb(AskKind::Rating, vec![text("?"); 5], |_| weigh()).0;
            assert!(matches!(end, Err(ChatError::Refused(_))), "{end:?}");
        }
    }

    #[test]
    fn a_prompt_too_long_fails_at_once() {
        let (end, calls) = climb(AskKind::Rating, vec![too_long()], uniform);
        assert!(matches!(end, Err(ChatError::TooLong { tokens: 9, limit: 5, .. })));
        assert_eq!(calls.len(), 1);
    }

    #[test]
    fn a_broken_model_fails_at_once() {
        let broken = || Err(ChatError::Broken("gone".to_owned()));
        let end = climb(AskKind::Rating, vec![broken()], uniform).0;
        assert!(matches!(end, Err(ChatError::Broken(_))));
        let end = climb(AskKind::Rating, vec![text("[[8]]")], |_| broken()).0;
        assert!(matches!(end, Err(ChatError::Broken(_))));
    }

    #[test]
    fn a_refusal_uses_up_an_attempt() {
        let verdict = climb(AskKind::Rating, vec![refused(), text("[[3]]")], uniform).0.unwrap();
        assert_eq!((verdict.outcome, verdict.attempts), (Outcome::Rating(3.0), 2));
        let refusals = || (0..5).map(|_| refused()).collect();
        for kind in [AskKind::Extract, statements(&["s"])] {
            let (end, calls) = climb(kind, refusals(), uniform);
            assert!(matches!(end, Err(ChatError::Refused(_))));
            assert_eq!(calls.len(), 5);
        }
        assert!(climb(AskKind::Rating, refusals(), uniform).0.unwrap().forced);
    }

    #[test]
    fn statements_are_done_without_scoring() {
        let reply = "<statement>One.</statement>";
        let (end, calls) = climb(statements(&["s"]), vec![text("?"), text(reply)], uniform);
        let verdict = end.unwrap();
        assert_eq!(verdict.outcome, Outcome::Statements(vec!["One.".to_owned()]));
        assert_eq!((verdict.attempts, verdict.forced, calls.len()), (2, false, 2));
    }

    #[test]
    fn an_answer_without_statements_is_a_result() {
        let verdict = climb(statements(&["s"]), vec![text("<no_statements>")], uniform).0.unwrap();
        assert_eq!(verdict.outcome, Outcome::Statements(Vec::new()));
        assert!(!verdict.forced);
    }

    #[test]
    fn unreadable_statements_fall_back_on_the_sentences() {
        let verdict = climb(statements(&["It rained."]), vec![text("?"); 5], uniform).0.unwrap();
        assert_eq!(verdict.outcome, Outcome::Statements(vec!["It rained.".to_owned()]));
        assert_eq!((verdict.attempts, verdict.forced), (5, true));
    }

    #[test]
    fn extracts() {
        let verdict = climb(AskKind::Extract, vec![text(""), text("- a")], uniform).0.unwrap();
        assert_eq!(verdict.outcome, Outcome::Extract(Some("- a".to_owned())));
        let reply = text("No relevant information");
        let verdict = climb(AskKind::Extract, vec![reply], uniform).0.unwrap();
        assert_eq!((verdict.outcome, verdict.forced), (Outcome::Extract(None), false));
        let verdict = climb(AskKind::Extract, vec![text(""); 5], uniform).0.unwrap();
        assert_eq!((verdict.outcome, verdict.forced), (Outcome::Extract(None), true));
    }

    #[test]
    fn scores_where_a_text_was_asked_for_are_refused() {
        let end = climb(AskKind::Extract, vec![scores(&[1.0])], uniform).0;
        assert!(matches!(end, Err(ChatError::Refused(_))));
    }

    fn opened(kind: AskKind, opening: &str) -> Ask {
        Ask { opening: Some(opening.to_owned()), ..ask(kind) }
    }

    #[test]
    fn an_opening_takes_one_call_for_scores_and_no_sample() {
        let weigh = |call: &Call| {
            assert_eq!(call.prefix, "Statement 2: [[");
            scores(&[0.2, 0.2, 0.6])
        };
        let (end, calls) = climb_ask(opened(AskKind::Support, "Statement 2: [["), vec![], weigh);
        let verdict = end.unwrap();
        assert_eq!(verdict.outcome, Outcome::Support(0.0));
        assert_eq!((verdict.attempts, verdict.forced, calls.len()), (0, false, 1));
        assert_eq!(verdict.text, "Statement 2: [[No support]]");
        assert_eq!((verdict.distribution[2], verdict.expected), (0.6, Some(0.3)));
    }

    #[test]
    fn a_model_that_can_not_score_is_sampled_instead() {
        let replies = vec![text("?"), text("[[6]]")];
        let (end, calls) = climb_ask(opened(AskKind::Rating, "[["), replies, |_| refused());
        let verdict = end.unwrap();
        assert_eq!((verdict.outcome, verdict.attempts), (Outcome::Rating(6.0), 2));
        assert!(!verdict.forced && verdict.distribution.is_empty());
        assert_eq!(temperatures_and_seeds(&calls), [(0.01, 100), (0.95, 101)]);
        // A reply to all statements would be read as one to this.
        let end = climb_ask(opened(AskKind::Support, "2: [["), vec![], |_| refused()).0;
        assert!(matches!(end, Err(ChatError::Refused(_))));
        let end = climb_ask(opened(AskKind::Support, "2: [["), vec![], |_| too_long()).0;
        assert!(matches!(end, Err(ChatError::TooLong { .. })));
    }

    #[test]
    fn votes_are_all_sampled_at_one_temperature() {
        let voting = Voting { count: 3, by: VoteBy::Mean };
        let ask = Ask { voting, ..ask(AskKind::Rating) };
        let (_, calls) = climb_ask(ask, vec![text("?"), text("[[6]]")], uniform);
        assert_eq!(temperatures_and_seeds(&calls), [(0.95, 100), (0.95, 101)]);
    }

    #[test]
    fn several_statements_are_read_and_weighed_one_by_one() {
        let reply = "1: yes [[Fully supported]]\n2: hm\n3: no [[No support]]";
        let weigh = |call: &Call| match call.prefix.ends_with("3: no [[") {
            true => scores(&[0.0, 0.25, 0.75]),
            false => scores(&[0.5, 0.5, 0.0]),
        };
        let (end, calls) = climb(AskKind::Supports { count: 3 }, vec![text(reply)], weigh);
        let verdict = end.unwrap();
        let Outcome::Supports(found) = verdict.outcome else { panic!("not several") };
        let first = found[0].as_ref().unwrap();
        assert_eq!((first.text.as_str(), first.score()), ("1: yes [[Fully supported]]", Some(1.0)));
        assert_eq!((first.expected, first.attempts), (Some(0.75), 1));
        assert!(found[1].is_none());
        assert_eq!(found[2].as_ref().unwrap().expected, Some(0.125));
        assert_eq!((calls.len(), calls[1].prefix.as_str()), (3, "1: yes [["));
    }

    #[test]
    fn a_group_that_can_not_be_asked_or_read_leaves_all_to_single_asks() {
        for reply in [text("I can't say."), too_long(), refused()] {
            let (end, calls) = climb(AskKind::Supports { count: 2 }, vec![reply], uniform);
            assert_eq!(end.unwrap().outcome, Outcome::Supports(vec![None, None]));
            assert_eq!(calls.len(), 1);
        }
        let broken = || Err(ChatError::Broken("gone".to_owned()));
        let end = climb(AskKind::Supports { count: 2 }, vec![broken()], uniform).0;
        assert!(matches!(end, Err(ChatError::Broken(_))));
        let reply = vec![text("1: [[No support]]")];
        let end = climb(AskKind::Supports { count: 1 }, reply, |_| broken()).0;
        assert!(matches!(end, Err(ChatError::Broken(_))));
    }

    #[test]
    fn unit_seeds_are_pinned() {
        // printf '7/11-0/helpfulness' | sha256sum
        assert_eq!(unit_seed(7, "11-0/helpfulness"), 0xf910_2e22_043b_f367);
        assert_ne!(unit_seed(7, "11-0/logicality"), unit_seed(7, "11-0/helpfulness"));
        assert_ne!(unit_seed(8, "11-0/helpfulness"), unit_seed(7, "11-0/helpfulness"));
    }
}
