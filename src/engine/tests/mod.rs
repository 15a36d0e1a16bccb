//! The engine over a toy model, and over small decoders.

mod ends;
#[cfg(feature = "gpu")]
mod gpu;
mod results;
mod sameness;

use super::guide::{Constraint, Guide, Language, Next, TokenSet};
use super::toy::{Broken, Toy};
use super::*;
use kernels::kv::KvDtype;
use std::sync::Arc;

const WIDE: Limits = Limits { tokens_per_step: 4096, sequences: 64 };

fn prompt(len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i + 7 * i * seed + seed) % 40).collect()
}

fn generate(max_new_tokens: usize, seed: u64) -> Generate {
    Generate {
        n: 1,
        max_new_tokens,
        params: SamplingParams { temperature: 0.9, top_p: 0.95, ..SamplingParams::default() },
        seed,
        stop_tokens: vec![5],
        logprobs: Some(2),
        prompt_logprobs: None,
        constraint: None,
    }
}

fn request(prompt: Vec<u32>, generate: Generate) -> Request {
    Request { prompt, task: Task::Generate(generate) }
}

fn score(prompt: Vec<u32>, continuations: &[&[u32]], closing: Option<&[u32]>) -> Request {
    let continuations = continuations.iter().map(|tokens| tokens.to_vec()).collect();
    Request { prompt, task: Task::Score { continuations, closing: closing.map(Arc::from) } }
}

/// All that a request brought.
#[derive(Debug, Default, Clone, PartialEq)]
struct Brought {
    prompt: Vec<Option<f32>>,
    prompt_top: Vec<Vec<(u32, f32)>>,
    samples: Vec<(Vec<Sampled>, Option<Finish>)>,
    /// By sample.
    stop_tokens: BTreeMap<usize, Sampled>,
    scores: Vec<f64>,
}

impl Brought {
    /// Adds what came later.
    fn join(&mut self, more: Self) {
        self.prompt.extend(more.prompt);
        self.prompt_top.extend(more.prompt_top);
        self.stop_tokens.extend(more.stop_tokens);
        self.scores.extend(more.scores);
        let samples = self.samples.len().max(more.samples.len());
        self.samples.resize(samples, Default::default());
        for (sample, (tokens, finish)) in self.samples.iter_mut().zip(more.samples) {
            sample.0.extend(tokens);
            sample.1 = sample.1.or(finish);
        }
    }
}

#[derive(Default)]
struct Results {
    by_request: BTreeMap<RequestId, Brought>,
    done: BTreeMap<RequestId, (usize, usize, usize)>,
}

impl Results {
    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            let id = event.id();
            assert!(!self.done.contains_key(&id), "an event after the end: {event:?}");
            let result = self.by_request.entry(id).or_default();
            let mut sample = |k: usize| {
                let len = result.samples.len().max(k + 1);
                result.samples.resize(len, Default::default());
                assert_eq!(result.samples[k].1, None, "an event after the sample's end");
                k
            };
            match event {
                Event::Prompt { logprobs, top, .. } => {
                    result.prompt = logprobs;
                    result.prompt_top = top;
                }
                Event::Token { sample: k, token, .. } => {
                    let k = sample(k);
                    result.samples[k].0.push(token);
                }
                Event::Sample { sample: k, finish, stop_token, .. } => {
                    let k = sample(k);
                    result.samples[k].1 = Some(finish);
                    result.stop_tokens.extend(stop_token.map(|token| (k, token)));
                }
                Event::Scores { logprobs, .. } => result.scores = logprobs,
                Event::Done { prompt_tokens, cached_prompt_tokens, completion_tokens, .. } => {
                    let usage = (prompt_tokens, cached_prompt_tokens, completion_tokens);
                    self.done.insert(id, usage);
                }
                Event::Failed { why, .. } => panic!("{why}"),
            }
        }
    }
}

fn finish<R: Runner>(engine: &mut Engine<R>) -> Results {
    let mut results = Results::default();
    while !engine.is_idle() {
        let events = engine.step().unwrap();
        engine.check().unwrap();
        results.take(events);
    }
    results
}

/// Runs requests together and gives their results in order.
fn run_in<R: Runner>(engine: &mut Engine<R>, requests: &[Request]) -> Vec<Brought> {
    let ids: Vec<_> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
    let mut results = finish(engine);
    assert_eq!(results.done.len(), requests.len());
    ids.iter().map(|id| results.by_request.remove(id).unwrap_or_default()).collect()
}

fn run(blocks: usize, limits: Limits, requests: &[Request]) -> Vec<Brought> {
    run_in(&mut Engine::new(Toy::new(blocks), limits), requests)
}

fn alone(requests: &[Request]) -> Vec<Brought> {
    requests.iter().flat_map(|r| run(512, WIDE, std::slice::from_ref(r))).collect()
}

/// Even and odd ids in turn, so many of them; or fewer that end with the stop token 5.
struct Alternating {
    length: u32,
}

struct Turn {
    left: u32,
    odd: bool,
}

impl Language for Alternating {
    fn guide(&self) -> Box<dyn Guide> {
        Box::new(Turn { left: self.length, odd: false })
    }
}

impl Guide for Turn {
    fn next(&mut self, token: Option<u32>) -> Next {
        if let Some(token) = token {
            assert_eq!(token % 2 == 1, self.odd, "{token} is not allowed");
            (self.left, self.odd) = (self.left - 1, !self.odd);
        }
        let bits = if self.odd { 0xAAAA_AAAA } else { 0x5555_5555 };
        if self.left == 0 { Next::End } else { Next::Among(TokenSet::from_words(vec![bits, bits])) }
    }
}

/// Requests of all kinds that share prefixes in several ways.
fn mixed() -> Vec<Request> {
    let constraint = Some(Constraint::new(Alternating { length: 9 }));
    let restricted = Generate { constraint, stop_tokens: Vec::new(), n: 3, ..generate(30, 6) };
    let mut requests = vec![request(prompt(60, 3), restricted)];
    let base = prompt(100, 3);
    for k in 0..6u32 {
        let own = [&base[..16 * k as usize + 3], &prompt(20 + k as usize, k)[..]].concat();
        requests.push(request(own.clone(), Generate { n: 3, ..generate(25, u64::from(k)) }));
        requests.push(score(own.clone(), &[&[1], &[1, 0], &[2, 3, 4], &[]], Some(&[6, 7])));
        requests.push(score(own.clone(), &[&[1, 9], &[8]], None));
        let with_prompt = Generate { prompt_logprobs: Some(3), ..generate(4, 9) };
        requests.push(request(own, with_prompt));
    }
    requests
}
