//! The engine as a service: one thread owns it, many connections send it work.
//!
//! ```text
//! Handle::submit ─► inbox ─► Worker: Engine::step, text of each sample; errands between steps
//! Ticket::next  ◄─ one channel per submission ◄─┘
//! ```
//! A submission whose [`Ticket`] is dropped is cancelled before the next step. Samples in the
//! house (waiting and running) are bounded: what comes on top is refused at once, not queued.
//! Handing in never waits, so that it may be done where nothing may block: the inbox has no end of its
//! own, and holds no more than the house, the judge's calls and the errands that are let in.

mod calls;
mod worker;

pub use super::text::Piece;
pub use crate::engine::guide::Constraint;
pub use crate::engine::request::REPETITION_PENALTIES;
pub use crate::engine::{Sampled, SamplingParams};
pub use calls::ServiceChat;
pub use worker::Worker;

use super::encode::Encoder;
use super::grammar::{Form, Grammars};
use super::{ChatError, Finish, Usage};
use crate::engine::request::{self, Generate};
use crate::engine::{Engine, Request, Runner};
use crate::tokenizer::{ChatTemplate, Tokenizer};
use rayon::ThreadPool;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// A prompt to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    pub prompt: Vec<u32>,
    /// Samples; sample `k` is the single sample of seed `seed + k`.
    pub n: usize,
    pub max_new_tokens: usize,
    pub params: SamplingParams,
    pub seed: u64,
    /// A sample ends before the first of these.
    pub stop: Arc<[String]>,
    /// The checkpoint's stop tokens are tokens like any other.
    pub ignore_stop_tokens: bool,
    /// `Some(k)`: log-probabilities of the tokens and of the `k` likeliest in each place.
    pub logprobs: Option<usize>,
    /// The same for the prompt.
    pub prompt_logprobs: Option<usize>,
    /// What samples must keep to; see [`Handle::constraint`].
    pub constraint: Option<Constraint>,
    /// The text continues the prompt's, so that its first space is kept.
    pub goes_on: bool,
}

/// A prompt with texts that may follow, to be scored as [`crate::chat::Task::Score`].
#[derive(Debug, Clone, PartialEq)]
pub struct Continuations {
    pub prompt: Vec<u32>,
    pub continuations: Vec<String>,
    pub closing: String,
}

/// The log-probabilities of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptLogprobs {
    /// One per token, the first `None`.
    pub logprobs: Vec<Option<f32>>,
    /// For each token the likeliest ones in its place, best first.
    pub top: Vec<Vec<(u32, f32)>>,
}

/// What happened to one prompt of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    Prompt(PromptLogprobs),
    /// More of sample `sample`.
    Piece {
        sample: usize,
        piece: Piece,
    },
    /// Sample `sample` ended, with this stop token if one ended it.
    End {
        sample: usize,
        finish: Finish,
        stop_token: Option<Sampled>,
    },
    /// The scores of continuations.
    Scores(Vec<f64>),
    /// Nothing more comes for this prompt.
    Done(Usage),
    /// The same, without a result.
    Failed(ChatError),
}

/// The house is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    #[error("{open} samples are waiting or running; try again later")]
    Now { open: usize },
    #[error("the request asks for {samples} samples, but at most {limit} are taken in all")]
    Never { samples: usize, limit: usize },
}

/// Updates of the prompts of one submission; dropping it cancels what is not done.
pub struct Ticket {
    updates: UnboundedReceiver<(u64, Update)>,
}

impl Ticket {
    /// The next update, with the place of its prompt in the submission. `None` when all prompts are
    /// done, or the engine is gone.
    pub async fn next(&mut self) -> Option<(usize, Update)> {
        self.updates.recv().await.map(|(tag, update)| (tag as usize, update))
    }
}

/// What the service counts, and how full it is. Reading is never blocked by the engine.
#[derive(Debug, Default)]
pub struct Gauges {
    pub running: AtomicU64,
    pub waiting: AtomicU64,
    pub used_blocks: AtomicU64,
    pub blocks: AtomicU64,
    pub prompt_tokens: AtomicU64,
    pub cached_prompt_tokens: AtomicU64,
    pub completion_tokens: AtomicU64,
    pub steps: AtomicU64,
    pub preemptions: AtomicU64,
    /// Requests that were given up because nobody waits for them any more.
    pub cancelled: AtomicU64,
    /// The engine is gone.
    stopped: AtomicBool,
}

/// Who waits for a request, and what its text depends on.
struct Submission {
    /// Names it among those with the same `updates`.
    tag: u64,
    goes_on: bool,
    stops: Arc<[String]>,
    updates: UnboundedSender<(u64, Update)>,
    /// Whether its end was told.
    ended: bool,
    /// Its share of the house, given back at its end.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Submission {
    /// A receiver that is gone is noticed before the next step.
    fn tell(&mut self, update: Update) {
        self.ended |= matches!(update, Update::Done(_) | Update::Failed(_));
        let _ = self.updates.send((self.tag, update));
    }
}

/// Wherever it is lost when the engine goes, nobody is left to wait for it.
impl Drop for Submission {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(Update::Failed(ChatError::Broken(GONE.to_owned())));
        }
    }
}

/// Something else that needs the processor.
type Errand = Box<dyn FnOnce() + Send>;

/// Work for the engine's thread.
enum Order {
    Submit(Box<(Request, Submission)>),
    /// Done between two steps.
    Errand(Errand),
}

/// The way to the engine; clones are cheap. The worker ends when the last one is gone.
#[derive(Clone)]
pub struct Handle {
    orders: Sender<Order>,
    house: Arc<Semaphore>,
    capacity: usize,
    context: usize,
    vocab: usize,
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    gauges: Arc<Gauges>,
    /// Runs errands, if the engine's thread does not.
    beside: Option<Arc<ThreadPool>>,
    /// Made when a form is first asked for.
    grammars: Arc<OnceLock<Result<Grammars, String>>>,
}

/// Makes a service of an engine: [`Worker::run`] is to be run on a thread of its own (best one of
/// the pool that the engine computes on). At most `capacity` samples are waiting or running.
pub fn service<R: Runner>(
    engine: Engine<R>,
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    capacity: usize,
) -> (Handle, Worker<R>) {
    let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS);
    let (orders, inbox) = channel();
    let gauges = Arc::new(Gauges::default());
    let handle = Handle {
        orders,
        house: Arc::new(Semaphore::new(capacity)),
        capacity,
        context: engine.context(),
        vocab: engine.runner().vocab(),
        tokenizer: tokenizer.clone(),
        template,
        gauges: gauges.clone(),
        beside: None,
        grammars: Arc::default(),
    };
    (handle, Worker::new(engine, tokenizer, inbox, gauges))
}

impl Handle {
    /// Errands run beside the engine, on threads of their own: for one that leaves the processor to others.
    pub fn with_errands_on(self, threads: ThreadPool) -> Self {
        Self { beside: Some(Arc::new(threads)), ..self }
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Tokens that prompt and reply may have together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// What samples of a form must keep to. May take a while.
    ///
    /// # Errors
    /// A form that can't be kept to, and why.
    pub fn constraint(&self, form: Form) -> Result<Constraint, String> {
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.tokenizer));
        grammars.as_ref().map_err(Clone::clone)?.compile(form)
    }

    /// Token ids are below this.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Whether the engine is gone, so that everything would fail.
    pub fn is_closed(&self) -> bool {
        self.gauges.stopped.load(Ordering::Relaxed)
    }

    /// Samples that may be waiting and running.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Samples that are.
    pub fn open(&self) -> usize {
        self.capacity - self.house.available_permits()
    }

    /// Hands in prompts that belong together: all are taken, or none.
    ///
    /// # Errors
    /// The house is full. That a prompt can't be served comes as its [`Update::Failed`].
    pub fn submit(&self, prompts: Vec<Generation>) -> Result<Ticket, Busy> {
        let samples: usize = prompts.iter().map(|prompt| prompt.n.max(1)).sum();
        if samples > self.capacity {
            return Err(Busy::Never { samples, limit: self.capacity });
        }
        let permits = u32::try_from(samples).unwrap_or(u32::MAX);
        let mut permit = self
            .house
            .clone()
            .try_acquire_many_owned(permits)
            .map_err(|_| Busy::Now { open: self.open() })?;
        let (sender, updates) = unbounded_channel();
        for (tag, prompt) in prompts.into_iter().enumerate() {
            let share = permit.split(prompt.n.max(1));
            let submission = Submission {
                tag: tag as u64,
                goes_on: prompt.goes_on,
                stops: prompt.stop.clone(),
                updates: sender.clone(),
                ended: false,
                _permit: share,
            };
            self.order(self.request(prompt), submission);
        }
        Ok(Ticket { updates })
    }

    /// Hands in continuations; they count as one sample. Encoding them may take a while.
    ///
    /// # Errors
    /// The house is full.
    pub fn submit_continuations(&self, asked: Continuations) -> Result<Ticket, Busy> {
        let permit = self.house.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Busy::Now { open: self.open() })?;
        let mut encoder = Encoder::new(self.tokenizer.clone(), self.template.clone());
        let task = encoder.score(&asked.continuations, &asked.closing);
        let (updates, ticket) = unbounded_channel();
        let (stops, _permit) = (Arc::default(), Some(permit));
        let submission =
            Submission { tag: 0, goes_on: true, stops, updates, ended: false, _permit };
        self.order(Request { prompt: asked.prompt, task }, submission);
        Ok(Ticket { updates: ticket })
    }

    fn request(&self, prompt: Generation) -> Request {
        let Generation { n, max_new_tokens, params, seed, logprobs, prompt_logprobs, .. } = prompt;
        let constraint = prompt.constraint;
        let stop_tokens = self.tokenizer.stop_tokens();
        let stop_tokens = if prompt.ignore_stop_tokens { &[] } else { stop_tokens };
        let task = request::Task::Generate(Generate {
            n,
            max_new_tokens,
            params,
            seed,
            stop_tokens: stop_tokens.to_vec(),
            logprobs,
            prompt_logprobs,
            constraint,
        });
        Request { prompt: prompt.prompt, task }
    }

    fn order(&self, request: Request, submission: Submission) {
        // What can't be sent is dropped, and tells so.
        let _ = self.orders.send(Order::Submit(Box::new((request, submission))));
    }

    /// Runs something on the engine's thread between two steps, if not [beside](Handle::with_errands_on)
    /// it, and waits for what it gives: two models side by side on one processor would only slow each other
    /// down. It should take about as long as a step, since everybody waits for it. If it is not waited for
    /// any more when its turn comes, it is left out.
    ///
    /// # Errors
    /// The engine is gone, or the errand panicked.
    pub async fn errand<T: Send + 'static>(
        &self,
        errand: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ChatError> {
        self.send_errand(errand).await.map_err(|_| ChatError::Broken(GONE.to_owned()))
    }

    /// The same on a thread that may block.
    ///
    /// # Errors
    /// As [`Handle::errand`].
    pub fn errand_blocking<T: Send + 'static>(
        &self,
        errand: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ChatError> {
        let given = self.send_errand(errand).blocking_recv();
        given.map_err(|_| ChatError::Broken(GONE.to_owned()))
    }

    fn send_errand<T: Send + 'static>(
        &self,
        errand: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (give, take) = oneshot::channel();
        let run = move || {
            if !give.is_closed() {
                let _ = give.send(errand());
            }
        };
        if let Some(threads) = &self.beside {
            // One that panics is dropped, too.
            threads.spawn(move || drop(catch_unwind(AssertUnwindSafe(run))));
        } else {
            // What can't be sent is dropped, which its receiver sees.
            let _ = self.orders.send(Order::Errand(Box::new(run)));
        }
        take
    }

    /// Conversations as the judge knows them, over this service.
    pub fn chat(&self) -> ServiceChat {
        ServiceChat::new(self.clone())
    }
}

const GONE: &str = "the engine has stopped";

/// Adds to a gauge.
fn add(gauge: &AtomicU64, more: u64) {
    gauge.fetch_add(more, Ordering::Relaxed);
}

/// Sets a gauge.
fn set(gauge: &AtomicU64, value: u64) {
    gauge.store(value, Ordering::Relaxed);
}

#[cfg(test)]
pub(crate) mod tests;
