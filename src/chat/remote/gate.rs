//! How many requests are on their way at the same time: as many as the server takes.
//!
//! Fewer from each refusal on that a server gives because it has enough to do, one more after it has
//! answered for a while (additive increase: Chiu & Jain 1989, section 4). Else every request that finds
//! it full would make all of them pause, while its places fall free.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After so many answers for each request that may be on its way, one more may.
const PROOF: usize = 16;

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
    /// Answers since the limit was set.
    answered: usize,
}

impl Gate {
    /// For `most` requests at a time, to begin with.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        let state = Mutex::new(State { inside: 0, limit: most, answered: 0 });
        Self { most, state, freed: Condvar::new() }
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
        if state.answered >= PROOF * state.limit && state.limit < self.gate.most {
            state.limit += 1;
            state.answered = 0;
            tracing::debug!("{} requests at a time", state.limit);
        }
    }

    /// The server has enough to do.
    pub fn refused(self) {
        let mut state = self.gate.state();
        let taken = (state.inside - 1).max(1);
        if taken < state.limit {
            state.limit = taken;
            tracing::info!("the server is full: {taken} requests at a time");
        }
        state.answered = 0;
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
        turns.pop().unwrap().answered();
        // Of a request that was sent when more were on their way.
        let late = gate.enter(|| true).unwrap();
        late.refused();
        assert_eq!(limit(&gate), 1);
        turns.clear();
        for answers in 1..=PROOF {
            assert_eq!(limit(&gate), 1, "{answers}");
            gate.enter(|| true).unwrap().answered();
        }
        assert_eq!(limit(&gate), 2);
        for _ in 0..PROOF * 20 {
            gate.enter(|| true).unwrap().answered();
        }
        assert_eq!(limit(&gate), 5, "and not beyond");
    }

    #[test]
    fn who_is_refused_alone_may_come_again_alone() {
        let gate = Gate::new(3);
        gate.enter(|| true).unwrap().refused();
        assert_eq!(limit(&gate), 1);
        assert!(gate.enter(|| false).is_some());
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
