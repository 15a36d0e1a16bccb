//! The thread that owns the engine.

use super::{Errand, Gauges, Order, PromptLogprobs, Submission, Update, add, set};
use crate::chat::encode::{failure, refusal};
use crate::chat::text::ReplyText;
use crate::chat::{ChatError, Usage};
use crate::engine::request::{self, Event, Request, RequestId};
use crate::engine::{Engine, Runner};
use crate::tokenizer::Tokenizer;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Owns the engine; see the module's documentation.
pub struct Worker<R: Runner> {
    engine: Engine<R>,
    tokenizer: Arc<Tokenizer>,
    inbox: Receiver<Order>,
    open: BTreeMap<RequestId, Open>,
    /// Errands that wait for their turn.
    errands: VecDeque<Errand>,
    gauges: Arc<Gauges>,
}

/// A submission that the engine works on.
struct Open {
    submission: Submission,
    /// One per sample.
    texts: Vec<ReplyText>,
}

impl Open {
    fn new(mut submission: Submission, tokenizer: &Tokenizer, samples: usize) -> Self {
        let stops = std::mem::take(&mut submission.stops);
        let text = || ReplyText::new(tokenizer, submission.goes_on, &stops);
        Self { texts: (0..samples).map(|_| text()).collect(), submission }
    }

    fn tell(&mut self, update: Update) {
        self.submission.tell(update);
    }

    fn show(&mut self, sample: usize) {
        let piece = self.texts[sample].piece();
        if !piece.is_empty() {
            self.tell(Update::Piece { sample, piece });
        }
    }
}

/// However it ends, nobody is left to think that it works.
impl<R: Runner> Drop for Worker<R> {
    fn drop(&mut self) {
        self.gauges.stopped.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl<R: Runner> Worker<R> {
    pub(super) fn new(
        engine: Engine<R>,
        tokenizer: Arc<Tokenizer>,
        inbox: Receiver<Order>,
        gauges: Arc<Gauges>,
    ) -> Self {
        let (open, errands) = (BTreeMap::new(), VecDeque::new());
        let worker = Self { engine, tokenizer, inbox, open, errands, gauges };
        worker.publish();
        worker
    }

    /// Works until the last [`super::Handle`] is gone and everything is done.
    ///
    /// # Errors
    /// The engine broke; every open request has been told.
    pub fn run(mut self) -> Result<(), ChatError> {
        while self.receive() {
            self.drop_abandoned();
            self.run_errand();
            match self.engine.step() {
                Ok(events) => events.into_iter().for_each(|event| self.take(event)),
                Err(error) => return Err(self.break_down(&error.to_string())),
            }
            self.publish();
        }
        Ok(())
    }

    /// Takes in what has come; waits for something when there is nothing to do. Returns whether
    /// there is still anybody to work for.
    fn receive(&mut self) -> bool {
        if self.engine.is_idle() && self.errands.is_empty() {
            match self.inbox.recv() {
                Ok(order) => self.follow(order),
                Err(_) => return false,
            }
        }
        while let Ok(order) = self.inbox.try_recv() {
            self.follow(order);
        }
        true
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Submit(order) => self.submit(order.0, order.1),
            Order::Errand(errand) => self.errands.push_back(errand),
        }
    }

    /// One at a time, so that requests wait for one only.
    fn run_errand(&mut self) {
        if let Some(errand) = self.errands.pop_front() {
            // Its sender sees that it broke off; the engine has no part in it and goes on.
            drop(catch_unwind(AssertUnwindSafe(errand)));
        }
    }

    fn submit(&mut self, request: Request, submission: Submission) {
        let samples = match &request.task {
            request::Task::Generate(generate) => generate.n,
            request::Task::Score { .. } => 0,
        };
        match self.engine.submit(request) {
            Ok(id) => {
                self.open.insert(id, Open::new(submission, &self.tokenizer, samples));
            }
            Err(refused) => {
                Open::new(submission, &self.tokenizer, 0).tell(Update::Failed(refusal(refused)));
            }
        }
    }

    /// Cancels what nobody waits for any more.
    fn drop_abandoned(&mut self) {
        let abandoned: Vec<RequestId> = self
            .open
            .iter()
            .filter(|(_, open)| open.submission.updates.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for id in abandoned {
            self.engine.cancel(id);
            self.open.remove(&id);
            add(&self.gauges.cancelled, 1);
        }
    }

    fn take(&mut self, event: Event) {
        let id = event.id();
        let Some(open) = self.open.get_mut(&id) else { return };
        match event {
            Event::Prompt { logprobs, top, .. } => {
                open.tell(Update::Prompt(PromptLogprobs { logprobs, top }));
            }
            Event::Token { sample, token, .. } => {
                if open.texts[sample].push(token) {
                    self.engine.finish_sample(id, sample);
                }
                open.show(sample);
            }
            Event::Sample { sample, finish, stop_token, .. } => {
                let (finish, piece) = open.texts[sample].end(finish);
                if !piece.is_empty() {
                    open.tell(Update::Piece { sample, piece });
                }
                open.tell(Update::End { sample, finish, stop_token });
            }
            Event::Scores { logprobs, .. } => open.tell(Update::Scores(logprobs)),
            Event::Done { prompt_tokens, cached_prompt_tokens, completion_tokens, .. } => {
                open.tell(Update::Done(Usage {
                    prompt_tokens: prompt_tokens as u64,
                    cached_prompt_tokens: cached_prompt_tokens as u64,
                    completion_tokens: completion_tokens as u64,
                }));
                self.open.remove(&id);
            }
            Event::Failed { why, .. } => {
                open.tell(Update::Failed(failure(why)));
                self.open.remove(&id);
            }
        }
    }

    fn publish(&self) {
        let (stats, (running, waiting)) = (self.engine.stats(), self.engine.load());
        let gauges = &self.gauges;
        let values = [
            (&gauges.running, running as u64),
            (&gauges.waiting, waiting as u64),
            (&gauges.used_blocks, stats.used_blocks as u64),
            (&gauges.blocks, stats.blocks as u64),
            (&gauges.prompt_tokens, stats.prompt_tokens),
            (&gauges.cached_prompt_tokens, stats.cached_prompt_tokens),
            (&gauges.completion_tokens, stats.generated_tokens),
            (&gauges.steps, stats.steps),
            (&gauges.preemptions, stats.preemptions),
        ];
        values.into_iter().for_each(|(gauge, value)| set(gauge, value));
    }

    /// Every request that is open or waiting in the inbox fails.
    fn break_down(&mut self, why: &str) -> ChatError {
        let error = ChatError::Broken(why.to_owned());
        self.open.values_mut().for_each(|open| open.tell(Update::Failed(error.clone())));
        self.open.clear();
        while let Ok(order) = self.inbox.try_recv() {
            if let Order::Submit(mut order) = order {
                order.1.tell(Update::Failed(error.clone()));
            }
        }
        error
    }
}
