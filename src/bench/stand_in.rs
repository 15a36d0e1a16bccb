//! The words of a judge for a model that has none: random weights in the shape of a real model take as long as the model,
//! but nobody can read what they say.

use crate::chat::{Call, CallId, Chat, ChatError, Finish, Reply, Task, Usage};
use crate::retrieval::sentences::sentences;
use std::collections::HashMap;

/// A reply takes this part of its budget: 128 tokens of the analysis before a rating, 512 of a list of statements.
const SHARE: usize = 4;

/// Bytes of text that stand for a token.
const TOKEN_BYTES: usize = 4;

/// What every parser can read.
const VERDICTS: &str = "[[Fully supported]] [[7]]";

/// Passes calls on to `inner`, which samples a quarter of each reply's budget, and puts words in the place of what it
/// sampled: sentences of the prompt, the answer's where it holds one, about as many as were sampled tokens, each as a
/// statement, and a verdict of each kind. So a job makes the calls that it makes with a judge that is always readable.
/// (Where a verdict's continuations are scored after the reply, these words have to be computed, of which a judge's own
/// would still be there.)
pub struct StandIn<'a, C: Chat + ?Sized> {
    inner: &'a mut C,
    words: HashMap<CallId, String>,
}

impl<'a, C: Chat + ?Sized> StandIn<'a, C> {
    pub fn new(inner: &'a mut C) -> Self {
        Self { inner, words: HashMap::new() }
    }
}

impl<C: Chat + ?Sized> Chat for StandIn<'_, C> {
    fn submit(&mut self, id: CallId, mut call: Call) {
        if let Task::Generate(sampling) = &mut call.task {
            sampling.max_new_tokens = (sampling.max_new_tokens / SHARE).max(1);
            sampling.stop.clear();
            let prompt = call.messages.last().map_or("", |message| message.content.as_str());
            self.words.insert(id, words(prompt, TOKEN_BYTES * sampling.max_new_tokens));
        }
        self.inner.submit(id, call);
    }

    fn wait(&mut self) -> Vec<(CallId, Result<Reply, ChatError>)> {
        let mut finished = self.inner.wait();
        for (id, reply) in &mut finished {
            let words = self.words.remove(id);
            if let (Ok(Reply::Text { text, finish, .. }), Some(words)) = (reply, words) {
                *text = words;
                *finish = Finish::Stop;
            }
        }
        finished
    }

    fn appetite(&self) -> usize {
        self.inner.appetite()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

/// About so many bytes.
fn words(prompt: &str, bytes: usize) -> String {
    let answer = prompt.rsplit_once("<answer>").map_or(prompt, |(_, answer)| answer);
    let answer = answer.rsplit_once("</answer>").map_or(answer, |(answer, _)| answer);
    let mut words = String::new();
    for sentence in sentences(answer) {
        if words.len() >= bytes {
            break;
        }
        words.extend(["<statement>", sentence.trim(), "</statement>\n"]);
    }
    words + VERDICTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Sampling, Scripted};
    use crate::judge::parse::{rating, statements, support};

    fn call(prompt: &str, budget: usize) -> Call {
        let sampling = Sampling { max_new_tokens: budget, ..Sampling::default() };
        Call {
            messages: vec![Message::user(prompt)],
            prefix: String::new(),
            task: Task::Generate(sampling),
        }
    }

    #[test]
    fn replies_take_a_quarter_of_their_budget_and_can_be_read() {
        let mut inner = Scripted::new(|call: &Call| {
            let Task::Generate(sampling) = &call.task else { panic!("only sampled") };
            let completion_tokens = sampling.max_new_tokens as u64;
            let usage = Usage { completion_tokens, ..Usage::default() };
            Ok(Reply::Text { text: "%&$".into(), finish: Finish::Length, usage })
        });
        let mut chat = StandIn::new(&mut inner);
        chat.submit(
            3,
            call(
                "<answer>Old one.</answer> <answer>It rained. The mill stood.</answer> List:",
                400,
            ),
        );
        let finished = chat.wait();
        let [(3, Ok(Reply::Text { text, finish: Finish::Stop, usage }))] = &finished[..] else {
            panic!("{finished:?}")
        };
        assert_eq!(usage.completion_tokens, 100);
        assert_eq!(statements(text, false).unwrap(), ["It rained.", "The mill stood."]);
        assert_eq!(rating(text).unwrap().score, 7.0);
        assert_eq!(support(text).unwrap().score, 1.0);
    }

    #[test]
    fn words_are_no_more_than_were_sampled_but_for_the_last_sentence() {
        let prompt = "One two three four. ".repeat(100);
        let found = statements(&words(&prompt, 80), false).unwrap().len();
        assert_eq!(found, 1, "the same sentence counts once");
        assert!((80..200).contains(&words(&prompt, 80).len()));
    }

    #[test]
    fn other_tasks_pass_as_they_are() {
        let task = Task::Score { continuations: vec!["1".into()], closing: String::new() };
        let scores = |_: &Call| Ok(Reply::Scores { logprobs: vec![-1.0], usage: Usage::default() });
        let mut inner = Scripted::new(scores);
        let mut chat = StandIn::new(&mut inner);
        chat.submit(1, Call { task: task.clone(), ..call("x", 1) });
        assert!(matches!(chat.wait()[..], [(1, Ok(Reply::Scores { .. }))]));
        assert_eq!(inner.seen[0].task, task);
    }
}
