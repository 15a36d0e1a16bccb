//! Requests that are repeated until they are answered, or there is no use in it.

use super::failure::{Failure, failure};
use super::gate::{GLANCE, Gate, Turn};
use super::http::{Answer, Http};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When to try again.
#[derive(Debug, Clone, PartialEq)]
pub struct Patience {
    /// How often a request is sent, at most.
    pub attempts: u32,
    /// Before the second attempt; doubled for each further one.
    pub first: Duration,
    pub longest: Duration,
    /// A server that wants to be left alone for longer is taken to be gone.
    pub longest_asked: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 10,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(60),
            longest_asked: Duration::from_secs(600),
        }
    }
}

impl Patience {
    /// Before attempt `attempt` (from 1): exponential, and between half and the whole of that, so
    /// that requests which failed together do not come again together. `share` is in 0..=1.
    fn pause(&self, attempt: u32, share: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << (attempt - 1).min(20));
        doubled.min(self.longest).mul_f64(0.5 + share / 2.0)
    }
}

/// A request that got no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missed {
    /// The server said no.
    Said(Failure),
    /// It failed again and again; in the meantime `others` were answered.
    Unanswered { what: String, others: bool },
    /// Nobody wants the answer any more.
    Stopped,
}

/// A connection to a server with patience. Threads may share it.
pub struct Line {
    pub http: Http,
    patience: Patience,
    /// Nobody asks before this time: the server has asked for it.
    quiet_until: Mutex<Option<Instant>>,
    gate: Gate,
    answered: AtomicU64,
    stopped: Arc<AtomicBool>,
    random: RandomState,
}

impl Line {
    /// For `concurrency` requests at a time, or as many of them as the server takes.
    pub fn new(http: Http, patience: Patience, concurrency: usize) -> Self {
        Self {
            http,
            patience,
            quiet_until: Mutex::new(None),
            gate: Gate::new(concurrency),
            answered: AtomicU64::new(0),
            stopped: Arc::default(),
            random: RandomState::new(),
        }
    }

    /// From now on nothing is sent any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Set, it does what [`Line::stop`] does.
    pub fn stopper(&self) -> Arc<AtomicBool> {
        self.stopped.clone()
    }

    /// # Errors
    /// See [`Missed`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Missed> {
        self.insist(&|| self.http.get(path), path, false)
    }

    /// # Errors
    /// See [`Missed`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, Missed> {
        self.send(path, request, false)
    }

    /// Posts what the server may not understand.
    ///
    /// # Errors
    /// See [`Missed`].
    pub fn post_trial<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, Missed> {
        self.send(path, request, true)
    }

    fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        trial: bool,
    ) -> Result<T, Missed> {
        let body = serde_json::to_vec(request).map_err(|e| {
            Missed::Said(Failure::Refused { what: format!("the request is no JSON: {e}") })
        })?;
        self.insist(&|| self.http.post(path, &body), path, trial)
    }

    fn insist<T: DeserializeOwned>(
        &self,
        send: &dyn Fn() -> Result<Answer, Failure>,
        path: &str,
        trial: bool,
    ) -> Result<T, Missed> {
        let before = self.answered.load(Ordering::Relaxed);
        let mut attempt = 0;
        loop {
            let turn = self.turn()?;
            let (what, asked) = match read(send()) {
                Ok(result) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    turn.answered();
                    return Ok(result);
                }
                Err((Failure::Full { what }, asked)) => {
                    turn.refused();
                    (what, asked)
                }
                Err((Failure::Passing { what }, asked)) => (what, asked),
                Err((Failure::Broke { what }, asked)) if !trial => (what, asked),
                Err((failure, _)) => return Err(Missed::Said(failure)),
            };
            attempt += 1;
            tracing::info!("{}, attempt {attempt}: {what}", self.http.url(path));
            let asks_too_much = asked.is_some_and(|wait| wait > self.patience.longest_asked);
            if attempt >= self.patience.attempts || asks_too_much {
                let others = self.answered.load(Ordering::Relaxed) > before;
                return Err(Missed::Unanswered { what: told(&what, attempt, asked), others });
            }
            self.pause(attempt, asked)?;
        }
    }

    /// Waits before the next attempt; what the server asked for holds for everybody.
    fn pause(&self, attempt: u32, asked: Option<Duration>) -> Result<(), Missed> {
        let share =
            (self.random.hash_one((attempt, Instant::now())) >> 11) as f64 / (1u64 << 53) as f64;
        let own = self.patience.pause(attempt, share);
        if let Some(asked) = asked {
            let until = Instant::now() + asked;
            let mut quiet = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
            *quiet = Some(quiet.map_or(until, |then| then.max(until)));
        }
        self.sleep_until(Instant::now() + own)
    }

    /// Waits until a request may be sent.
    fn turn(&self) -> Result<Turn<'_>, Missed> {
        loop {
            if let Some(until) = self.quiet() {
                self.sleep_until(until)?;
            }
            let turn = self.gate.enter(|| !self.stopped.load(Ordering::Relaxed));
            let turn = turn.ok_or(Missed::Stopped)?;
            // While this one waited for its turn another may have been told to be quiet.
            if self.quiet().is_none() {
                return Ok(turn);
            }
        }
    }

    /// Until when nobody asks, if the server wants it so.
    fn quiet(&self) -> Option<Instant> {
        let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|&until| until > Instant::now())
    }

    fn sleep_until(&self, until: Instant) -> Result<(), Missed> {
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Missed::Stopped);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(GLANCE));
        }
    }
}

fn told(what: &str, attempts: u32, asked: Option<Duration>) -> String {
    let asked = asked
        .map_or(String::new(), |wait| format!("; it asks to wait for {} seconds", wait.as_secs()));
    format!("{what} (after {attempts} attempts{asked})")
}

/// The result, or why there is none and how long the server wants to be left alone.
fn read<T: DeserializeOwned>(
    answer: Result<Answer, Failure>,
) -> Result<T, (Failure, Option<Duration>)> {
    let answer = answer.map_err(|failure| (failure, None))?;
    if !(200..300).contains(&answer.status) {
        return Err((failure(&answer), answer.retry_after));
    }
    serde_json::from_slice(&answer.body).map_err(|error| (unreadable(&answer.body, &error), None))
}

/// An answer that is broken off, or told of a failure instead, may be whole the next time; one of
/// another form is not.
fn unreadable(body: &[u8], error: &serde_json::Error) -> Failure {
    let begin = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
    let what = format!("the answer can't be read: {error}; it begins {begin:?}");
    match serde_json::from_slice::<Value>(body) {
        Ok(answer) if answer.get("error").is_none() => Failure::Refused { what },
        _ => Failure::Passing { what },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_another_form_stay_so() {
        let told = |body: &str| {
            let answer = Answer { status: 200, retry_after: None, body: body.into() };
            read::<Vec<u32>>(Ok(answer)).unwrap_err().0
        };
        assert!(matches!(told(r#"{"logprobs": {"content": []}}"#), Failure::Refused { .. }));
        for passing in [r#"{"error": "overloaded"}"#, "[1, 2", "<html>", ""] {
            assert!(matches!(told(passing), Failure::Passing { .. }), "{passing}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_differ() {
        let patience = Patience::default();
        let pause = |k, share| patience.pause(k, share).as_millis() as u64;
        let pauses = |share| (1..=9).map(move |k| pause(k, share));
        assert!(pauses(1.0).eq([500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]));
        assert!(pauses(0.0).zip(pauses(1.0)).all(|(short, long)| 2 * short == long));
        assert_eq!(patience.pause(u32::MAX, 1.0), patience.longest);
    }
}
