//! A model made of a closure, for tests of everything above the engine.

use super::{Call, CallId, Chat, ChatError, Reply, Usage};
use std::collections::VecDeque;

/// Answers each call by a function of that call; finishes them one at a time, first in first out.
pub struct Scripted<F> {
    answer: F,
    queue: VecDeque<(CallId, Call)>,
    /// Every call that was answered, in order.
    pub seen: Vec<Call>,
}

impl<F: FnMut(&Call) -> Result<Reply, ChatError>> Scripted<F> {
    pub fn new(answer: F) -> Self {
        Self { answer, queue: VecDeque::new(), seen: Vec::new() }
    }
}

impl<F: FnMut(&Call) -> Result<Reply, ChatError>> Chat for Scripted<F> {
    fn submit(&mut self, id: CallId, call: Call) {
        self.queue.push_back((id, call));
    }

    fn wait(&mut self) -> Vec<(CallId, Result<Reply, ChatError>)> {
        let Some((id, call)) = self.queue.pop_front() else { return Vec::new() };
        let reply = (self.answer)(&call);
        self.seen.push(call);
        vec![(id, reply)]
    }

    fn appetite(&self) -> usize {
        16
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}
