//! Conversations on the engine of this program.
//!
//! ```text
//! wait       step k                       step k + 1
//! processor  │ encodes calls a, b         │ encodes call c          (a GPU does not wait for it)
//! engine     │ works on those before      │ on a and b as well
//! ```
//! A call comes to the engine one step after it was submitted, however long encoding takes, so that the same calls
//! make the same batches.

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
    /// Calls that are not encoded yet.
    fresh: Vec<(CallId, Call)>,
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

impl<R: Runner + Send> Local<R> {
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
            fresh: Vec::new(),
            open: HashMap::new(),
            finished: Vec::new(),
            usage: Usage::default(),
        }
    }

    pub fn engine(&self) -> &Engine<R> {
        &self.engine
    }

    /// Encodes what was submitted, beside a step of the engine if it has something to do.
    fn step(&mut self) {
        let Self { engine, encoder, fresh, .. } = self;
        let encode = |(id, call)| (id, encoder.encode(call));
        let calls = std::mem::take(fresh);
        let (stepped, encoded) = if engine.is_idle() {
            (Ok(Vec::new()), calls.into_iter().map(encode).collect::<Vec<_>>())
        } else {
            let step = || engine.step().map_err(|error| error.to_string());
            rayon::join(step, || calls.into_iter().map(encode).collect())
        };
        for (id, encoded) in encoded {
            if let Err(error) = encoded.and_then(|encoded| self.begin(id, encoded)) {
                self.finished.push((id, Err(error)));
            }
        }
        match stepped {
            Ok(events) => events.into_iter().for_each(|event| self.take(event)),
            Err(why) => self.break_down(&why),
        }
    }

    fn begin(&mut self, id: CallId, encoded: Encoded) -> Result<(), ChatError> {
        let Encoded { request, goes_on, stops } = encoded;
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

impl<R: Runner + Send> Chat for Local<R> {
    fn submit(&mut self, id: CallId, call: Call) {
        self.fresh.push((id, call));
    }

    fn wait(&mut self) -> Vec<(CallId, Result<Reply, ChatError>)> {
        if self.finished.is_empty() && !(self.open.is_empty() && self.fresh.is_empty()) {
            self.step();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Sampling, Task};
    use crate::engine::Limits;
    use crate::engine::toy::Toy;
    use crate::tokenizer::testing;

    fn local() -> Local<Toy> {
        let (_, tokenizer, template) = testing::all().remove(0);
        let mut toy = Toy::new(64);
        toy.vocab = tokenizer.vocab_size();
        let engine = Engine::new(toy, Limits { tokens_per_step: 512, sequences: 4 });
        Local::new(engine, Arc::new(tokenizer), Arc::new(template), 4)
    }

    fn call(text: &str, max_new_tokens: usize) -> Call {
        let task = Task::Generate(Sampling { max_new_tokens, ..Sampling::default() });
        Call { messages: vec![Message::user(text)], prefix: String::new(), task }
    }

    #[test]
    fn a_call_begins_one_step_after_it_was_submitted() {
        let mut chat = local();
        let mut begun = Vec::new();
        let mut replies = Vec::new();
        for wait in 0..30 {
            if wait % 5 == 0 && wait < 15 {
                chat.submit(wait, call(&format!("call {wait}"), 4));
            }
            replies.extend(chat.wait());
            let (running, waiting) = chat.engine.load();
            begun.push(running + waiting + replies.len());
        }
        // The first at once, as there is nothing to do meanwhile.
        for (wait, begun) in begun.iter().enumerate() {
            assert_eq!(*begun, (wait / 5 + 1).min(3), "after {wait} waits: {begun:?}");
        }
        for (id, reply) in replies {
            let mut alone = local();
            alone.submit(id, call(&format!("call {id}"), 4));
            let other = std::iter::repeat_with(|| alone.wait()).find_map(|r| r.into_iter().next());
            assert_eq!((id, reply), other.unwrap());
        }
    }

    #[test]
    fn a_call_that_does_not_fit_is_told_beside_the_others() {
        let mut chat = local();
        chat.submit(1, call("short", 3));
        chat.submit(2, call(&"long ".repeat(5000), 3));
        let replies: Vec<_> = (0..20).flat_map(|_| chat.wait()).collect();
        let of = |wanted| &replies.iter().find(|(id, _)| *id == wanted).unwrap().1;
        assert_eq!(replies.len(), 2);
        assert!(of(1).is_ok());
        let Err(told @ ChatError::TooLong { .. }) = of(2) else { panic!("{replies:?}") };
        let told = told.to_string();
        assert_eq!(told.matches("the prompt has").count(), 1, "{told}");
        assert!(told.ends_with("or take a model with a longer context"), "{told}");
    }
}
