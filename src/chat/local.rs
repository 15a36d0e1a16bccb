//! Conversations on the engine of this program.

use super::encode::{Encoded, Encoder, failure, refusal};
use super::text::ReplyText;
use super::{Call, CallId, Chat, ChatError, Finish, Reply, Usage};
use crate::engine::request::{self, Event, RequestId, Sampled};
use crate::engine::{Engine, Runner};
use crate::tokenizer::{ChatTemplate, Tokenizer};
use std::collections::HashMap;
use std::sync::Arc;

/// A checkpoint's engine, tokenizer and chat template.
pub struct Local<R: Runner> {
    engine: Engine<R>,
    encoder: Encoder,
    appetite: usize,
    open: HashMap<RequestId, Open>,
    finished: Vec<(CallId, Result<Reply, ChatError>)>,
    usage: Usage,
}

/// A call that the engine works on.
struct Open {
    id: CallId,
    text: Option<ReplyText>,
    reply: String,
    finish: Finish,
    scores: Vec<f64>,
}

impl<R: Runner> Local<R> {
    /// `sequences` is how many sequences the engine runs at once.
    pub fn new(
        engine: Engine<R>,
        tokenizer: Arc<Tokenizer>,
        template: Arc<ChatTemplate>,
        sequences: usize,
    ) -> Self {
        Self {
            engine,
            encoder: Encoder::new(tokenizer, template),
            appetite: 4 * sequences,
            open: HashMap::new(),
            finished: Vec::new(),
            usage: Usage::default(),
        }
    }

    pub fn engine(&self) -> &Engine<R> {
        &self.engine
    }

    fn try_submit(&mut self, id: CallId, call: Call) -> Result<(), ChatError> {
        let Encoded { request, goes_on, stops } = self.encoder.encode(call)?;
        let text = matches!(request.task, request::Task::Generate(_))
            .then(|| ReplyText::new(self.encoder.tokenizer(), goes_on, &stops));
        let request = self.engine.submit(request).map_err(refusal)?;
        let (reply, scores) = (String::new(), Vec::new());
        self.open.insert(request, Open { id, text, reply, finish: Finish::Length, scores });
        Ok(())
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Token { id, token, sample } => self.token(id, sample, token),
            Event::Sample { id, finish, .. } => self.sample(id, finish),
            Event::Scores { id, logprobs } => {
                if let Some(open) = self.open.get_mut(&id) {
                    open.scores = logprobs;
                }
            }
            Event::Done { id, prompt_tokens, cached_prompt_tokens, completion_tokens } => {
                let usage = Usage {
                    prompt_tokens: prompt_tokens as u64,
                    cached_prompt_tokens: cached_prompt_tokens as u64,
                    completion_tokens: completion_tokens as u64,
                };
                self.done(id, usage);
            }
            Event::Failed { id, why } => {
                if let Some(open) = self.open.remove(&id) {
                    self.finished.push((open.id, Err(failure(why))));
                }
            }
            Event::Prompt { .. } => {}
        }
    }

    fn token(&mut self, id: RequestId, sample: usize, token: Sampled) {
        let Some(text) = self.open.get_mut(&id).and_then(|open| open.text.as_mut()) else { return };
        if text.push(token) {
            self.engine.finish_sample(id, sample);
        }
    }

    fn sample(&mut self, id: RequestId, finish: request::Finish) {
        let Some(open) = self.open.get_mut(&id) else { return };
        if let Some(text) = &mut open.text {
            let (finish, piece) = text.end(finish);
            open.finish = finish;
            open.reply = piece.text;
        }
    }

    fn done(&mut self, id: RequestId, usage: Usage) {
        let Some(open) = self.open.remove(&id) else { return };
        self.usage += usage;
        let reply = match open.text {
            Some(_) => Reply::Text { finish: open.finish, text: open.reply, usage },
            None => Reply::Scores { logprobs: open.scores, usage },
        };
        self.finished.push((open.id, Ok(reply)));
    }

    /// Every call that is still open fails with `why`.
    fn break_down(&mut self, why: &str) {
        let mut open: Vec<(RequestId, Open)> = self.open.drain().collect();
        open.sort_by_key(|(id, _)| *id);
        let failed = open.into_iter().map(|(_, o)| (o.id, Err(ChatError::Broken(why.to_owned()))));
        self.finished.extend(failed);
    }
}

impl<R: Runner> Chat for Local<R> {
    fn submit(&mut self, id: CallId, call: Call) {
        if let Err(error) = self.try_submit(id, call) {
            self.finished.push((id, Err(error)));
        }
    }

    fn wait(&mut self) -> Vec<(CallId, Result<Reply, ChatError>)> {
        if self.finished.is_empty() && !self.open.is_empty() {
            match self.engine.step() {
                Ok(events) => events.into_iter().for_each(|event| self.take(event)),
                Err(error) => self.break_down(&error.to_string()),
            }
        }
        std::mem::take(&mut self.finished)
    }

    fn appetite(&self) -> usize {
        self.appetite
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}
