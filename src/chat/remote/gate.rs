//! How many requests are on their way at the same time: as many as the server takes.
//!
//! Fewer from each refusal on that a server gives because it has enough to do, one more after it has
//! answered for a while (additive increase: Chiu & Jain 1989, section 4). Else every request that finds
//! it full would make all of them pause, while its places fall free. A trial that is refused is repeated half as
//! often, one that is not twice as often.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Answers for each request that may be on its way, after which one more may: at most.
const LONGEST_PROOF: usize = 64;

/// How often one who waits looks whether he is still wanted.
pub const GLANCE: Duration = Duration::from_millis(50);

pub struct Gate {
    most: usize,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    /// Requests that are on their way.
    inside: usize,
    limit: usize,
    /// Answers since the limit was raised, or since a refusal.
    answered: usize,
    /// The limit was raised, and nothing refused since.
    is_raised: bool,
    /// See [`LONGEST_PROOF`].
    proof: usize,
}

impl Gate {
    /// For `most` requests at a time, to begin with.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        let state = State { inside: 0, limit: most, answered: 0, is_raised: false, proof: 1 };
        Self { most, state: Mutex::new(state), freed: Condvar::new() }
    }

    /// Waits for a place; `None` when it is not `wanted` any more.
    pub fn enter(&self, wanted: impl Fn() -> bool) -> Option<Turn<'_>> {
        let mut state = self.state();
        while state.inside >= state.limit {
            if !wanted() {
                return None;
            }
            let waited = self.freed.wait_timeout(state, GLANCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.inside += 1;
        Some(Turn { gate: self })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is on its way as long as this is there.
pub struct Turn<'a> {
    gate: &'a Gate,
}

impl Turn<'_> {
    /// The server has answered.
    pub fn answered(self) {
        let mut state = self.gate.state();
        state.answered += 1;
        if state.answered >= state.proof * state.limit && state.limit < self.gate.most {
            if state.is_raised {
                state.proof = (state.proof / 2).max(1);
            }
            state.limit += 1;
            (state.answered, state.is_raised) = (0, true);
            tracing::debug!("{} requests at a time", state.limit);
        }
    }

    /// The server has enough to do, by this request and the others; or without them, if it was alone.
    pub fn refused(self) {
        let mut state = self.gate.state();
        let others = state.inside - 1;
        if (1..state.limit).contains(&others) {
            state.limit = others;
            tracing::info!("the server is full: {others} requests at a time");
        }
        // Requests that are refused together count once.
        if state.answered > 0 || state.is_raised {
            state.proof = (2 * state.proof).min(LONGEST_PROOF);
        }
        (state.answered, state.is_raised) = (0, false);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.gate.state().inside -= 1;
        self.gate.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(gate: &Gate) -> usize {
        gate.state().limit
    }

    fn ask(gate: &Gate, answers: usize) {
        (0..answers).for_each(|_| gate.enter(|| true).unwrap().answered());
    }

    #[test]
    fn refusals_lower_it_to_what_is_taken_and_answers_raise_it() {
        let gate = Gate::new(5);
        let mut turns: Vec<_> = (0..5).map(|_| gate.enter(|| true).unwrap()).collect();
        assert!(gate.enter(|| false).is_none(), "there is no sixth place");
        for left in (2..5).rev() {
            turns.pop().unwrap().refused();
            assert_eq!(limit(&gate), left);
        }
        assert!(gate.enter(|| false).is_none());
        turns.clear();
        for (answers, wanted) in [(1, 2), (1, 3), (2, 3), (1, 4), (3, 4), (1, 5), (100, 5)] {
            ask(&gate, answers);
            assert_eq!(limit(&gate), wanted);
        }
    }

    /// Fills it, and lets the last be refused.
    fn refuse(gate: &Gate) {
        let mut turns: Vec<_> =
            std::iter::from_fn(|| gate.enter(|| false)).take(gate.most).collect();
        turns.pop().unwrap().refused();
    }

    #[test]
    fn trials_that_are_refused_become_rare_and_those_that_are_not_frequent() {
        let gate = Gate::new(4);
        refuse(&gate);
        for proof in [1, 2, 4, 8, 16, 32, 64, 64] {
            ask(&gate, 3 * proof - 1);
            assert_eq!(limit(&gate), 3, "{proof}");
            ask(&gate, 1);
            assert_eq!(limit(&gate), 4, "{proof}");
            refuse(&gate);
        }
        let gate = Gate { most: 8, ..gate };
        for (limit_now, proof) in [(3, 64), (4, 64), (5, 32), (6, 16), (7, 8)] {
            ask(&gate, limit_now * proof - 1);
            assert_eq!(limit(&gate), limit_now);
            ask(&gate, 1);
        }
        assert_eq!(limit(&gate), 8);
    }

    /// As by a server that is starting.
    #[test]
    fn a_refusal_of_one_alone_says_nothing_of_their_number() {
        let gate = Gate::new(3);
        gate.enter(|| true).unwrap().refused();
        assert_eq!(limit(&gate), 3);
        let turns: Vec<_> = (0..3).map(|_| gate.enter(|| true).unwrap()).collect();
        assert_eq!(turns.len(), 3);
    }

    #[test]
    fn a_place_that_falls_free_is_taken() {
        let gate = Gate::new(1);
        std::thread::scope(|scope| {
            let first = gate.enter(|| true).unwrap();
            let waiting = scope.spawn(|| gate.enter(|| true).is_some());
            drop(first);
            assert!(waiting.join().unwrap());
        });
    }
}
