//! Conversations on the engine of this program.

use super::{Call, CallId, Chat, ChatError, Finish, Reply, Sampling, Task, Usage};
use crate::engine::request::{self, Event, Generate, Refused, Request, RequestId, SamplingParams};
use crate::engine::{Engine, Runner};

use crate::tokenizer::{ChatTemplate, StreamDecoder, Tokenizer, Turn};
use std::collections::HashMap;
use std::sync::Arc;

/// A checkpoint's engine, tokenizer and chat template.
pub struct Local<R: Runner> {
    engine: Engine<R>,
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    appetite: usize,
    open: HashMap<RequestId, Open>,
    finished: Vec<(CallId, Result<Reply, ChatError>)>,
    /// Token sets of the closings seen so far.
    closings: HashMap<String, Arc<[u32]>>,
    usage: Usage,
}

/// A call that the engine works on.
struct Open {
    id: CallId,
    text: Option<Text>,
    scores: Vec<f64>,
}

/// The text of a call so far.
struct Text {
    decoder: StreamDecoder,
    text: String,
    stops: Vec<String>,
    finish: Finish,
}

impl Text {
    fn new(tokenizer: &Tokenizer, goes_on: bool, stops: &[String]) -> Self {
        let decoder = if goes_on {
            StreamDecoder::continuing(tokenizer)
        } else {
            StreamDecoder::new(tokenizer)
        };
        Self { decoder, text: String::new(), stops: stops.to_vec(), finish: Finish::Length }
    }

    /// The whole text; characters that were cut off in the middle are marked as such.
    fn end(mut self) -> String {
        if self.finish == Finish::Length {
            self.text.push_str(self.decoder.finish());
        }
        self.text
    }
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
            tokenizer,
            template,
            appetite: 4 * sequences,
            open: HashMap::new(),
            finished: Vec::new(),
            closings: HashMap::new(),
            usage: Usage::default(),
        }
    }

    pub fn engine(&self) -> &Engine<R> {
        &self.engine
    }

    fn try_submit(&mut self, id: CallId, call: Call) -> Result<(), ChatError> {
        let turns: Vec<Turn> = call
            .messages
            .iter()
            .map(|m| Turn { role: m.role.name(), content: &m.content })
            .collect();
        let prompt = self
            .template
            .encode(&self.tokenizer, &turns, &call.prefix)
            .map_err(|e| ChatError::Refused(e.to_string()))?;
        let (task, text) = match call.task {
            Task::Generate(sampling) => {
                let text = Text::new(&self.tokenizer, !call.prefix.is_empty(), &sampling.stop);
                (request::Task::Generate(self.generate(sampling)), Some(text))
            }
            Task::Score { continuations, closing } => (self.score(&continuations, &closing), None),
        };
        let request = self.engine.submit(Request { prompt, task }).map_err(too_long)?;
        self.open.insert(request, Open { id, text, scores: Vec::new() });
        Ok(())
    }

    fn generate(&self, sampling: Sampling) -> Generate {
        Generate {
            n: 1,
            max_new_tokens: sampling.max_new_tokens,
            params: SamplingParams {
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                top_k: sampling.top_k,
                min_p: sampling.min_p,
                repetition_penalty: sampling.repetition_penalty,
            },
            seed: sampling.seed,
            stop_tokens: self.tokenizer.stop_tokens().to_vec(),
            logprobs: None,
            prompt_logprobs: false,
        }
    }

    fn score(&mut self, continuations: &[String], closing: &str) -> request::Task {
        let continuations =
            continuations.iter().map(|c| self.tokenizer.encode_continuation(c)).collect();
        let closing = (!closing.is_empty()).then(|| {
            let tokenizer = &self.tokenizer;
            let set = self.closings.entry(closing.to_owned());
            set.or_insert_with(|| tokenizer.starting_with(closing).into()).clone()
        });
        request::Task::Score { continuations, closing }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Token { id, token, sample } => self.token(id, sample, token.token),
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
            Event::Prompt { .. } => {}
        }
    }

    fn token(&mut self, id: RequestId, sample: usize, token: u32) {
        let Some(text) = self.open.get_mut(&id).and_then(|open| open.text.as_mut()) else { return };
        let from = text.text.len();
        text.text.push_str(text.decoder.push(token));
        if let Some(end) = first_stop(&text.text, from, &text.stops) {
            text.text.truncate(end);
            text.finish = Finish::Stop;
            text.stops.clear();
            self.engine.finish_sample(id, sample);
        }
    }

    fn sample(&mut self, id: RequestId, finish: request::Finish) {
        let Some(text) = self.open.get_mut(&id).and_then(|open| open.text.as_mut()) else { return };
        if finish == request::Finish::Stop {
            text.finish = Finish::Stop;
        }
    }

    fn done(&mut self, id: RequestId, usage: Usage) {
        let Some(open) = self.open.remove(&id) else { return };
        self.usage += usage;
        let reply = match open.text {
            Some(text) => Reply::Text { finish: text.finish, text: text.end(), usage },
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

fn too_long(refused: Refused) -> ChatError {
    let why = refused.to_string();
    match refused {
        Refused::Context { tokens, limit } | Refused::Memory { tokens, limit } => {
            ChatError::TooLong { tokens, limit, why }
        }
        _ => ChatError::Refused(why),
    }
}

/// Where the first of `stops` begins in `text`, of which the part before `from` was searched
/// before.
fn first_stop(text: &str, from: usize, stops: &[String]) -> Option<usize> {
    stops
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| {
            let mut start = from.saturating_sub(stop.len());
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            text[start..].find(stop.as_str()).map(|at| start + at)
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::first_stop;

    #[test]
    fn a_stop_string_is_found_across_pieces() {
        let stops = ["END".to_owned(), "。".to_owned()];
        assert_eq!(first_stop("abcEND", 5, &stops), Some(3));
        assert_eq!(first_stop("你好。END", 6, &stops), Some(6));
        assert_eq!(first_stop("abc", 0, &stops), None);
    }
}
