//! The engine over a toy model: what is computed must not depend on how.

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

#[test]
fn greedy_tokens_are_those_of_the_model_without_a_cache() {
    let toy = Toy::new(1);
    let mut wanted = prompt(37, 1);
    for _ in 0..40 {
        let logits = toy.logits_after(&wanted);
        let best = (0..).zip(&logits).fold(
            (0, f32::MIN),
            |best, (id, &x)| {
                if x > best.1 { (id, x) } else { best }
            },
        );
        wanted.push(best.0);
    }
    let mut greedy = Generate { stop_tokens: Vec::new(), ..generate(40, 0) };
    greedy.params.temperature = 0.0;
    let result = run(8, WIDE, &[request(prompt(37, 1), greedy)]).remove(0);
    let tokens: Vec<u32> = result.samples[0].0.iter().map(|sampled| sampled.token).collect();
    assert_eq!(tokens, wanted[37..]);
    assert_eq!(result.samples[0].1, Some(Finish::Length));
}

#[test]
fn together_or_alone_is_the_same() {
    assert_eq!(run(512, WIDE, &mixed()), alone(&mixed()));
}

#[test]
fn samples_keep_to_their_constraint_and_tell_the_models_own_probabilities() {
    let restricted = &mixed()[0];
    let brought = &alone(std::slice::from_ref(restricted))[0];
    assert_eq!(brought.samples.len(), 3);
    let toy = Toy::new(1);
    for (tokens, finish) in &brought.samples {
        assert_eq!((tokens.len(), *finish), (9, Some(Finish::Stop)));
        let mut before = restricted.prompt.clone();
        for (index, sampled) in tokens.iter().enumerate() {
            assert_eq!(sampled.token as usize % 2, index % 2);
            let logits = toy.logits_after(&before);
            let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            let own = f64::from(logits[sampled.token as usize]) - sum.ln();
            assert!((f64::from(sampled.logprob.unwrap()) - own).abs() < 1e-4);
            before.push(sampled.token);
        }
    }
    // What ends it may be a stop token too, and the length.
    let Task::Generate(generate) = &restricted.task else { unreachable!() };
    let stops =
        Generate { stop_tokens: (0..40).filter(|id| id % 4 == 1).collect(), ..generate.clone() };
    let short = Generate { max_new_tokens: 4, ..generate.clone() };
    let [stopped, cut] =
        [stops, short].map(|g| alone(&[request(restricted.prompt.clone(), g)]).remove(0));
    assert!(stopped.samples.iter().all(|s| s.0.len() < 9 && s.1 == Some(Finish::Stop)));
    assert!(cut.samples.iter().all(|s| s.0.len() == 4 && s.1 == Some(Finish::Length)));
}

#[test]
fn a_warm_cache_changes_nothing() {
    let mut engine = Engine::new(Toy::new(512), WIDE);
    let cold = run_in(&mut engine, &mixed());
    let before = engine.stats();
    assert_eq!(run_in(&mut engine, &mixed()), cold);
    let after = engine.stats();
    let computed = after.computed_prompt_tokens - before.computed_prompt_tokens;
    assert!(computed < (after.prompt_tokens - before.prompt_tokens) / 2);
}

#[test]
fn prompts_cut_into_chunks_of_any_size_change_nothing() {
    let whole = alone(&mixed());
    for tokens_per_step in [1, 2, 7, 16, 33, 100] {
        let limits = Limits { tokens_per_step, ..WIDE };
        let mut engine = Engine::new(Toy::new(512), limits);
        assert_eq!(run_in(&mut engine, &mixed()), whole, "chunks of {tokens_per_step}");
        assert!(engine.runner().largest <= tokens_per_step);
    }
}

#[test]
fn preemption_changes_nothing_and_a_tiny_pool_finishes() {
    let mut requests = mixed();
    let endless = |seed| Generate { stop_tokens: Vec::new(), ..generate(120, seed) };
    requests.extend((0..6).map(|k| request(prompt(20, k), endless(u64::from(k)))));
    let wanted = alone(&requests);
    for blocks in [11, 12, 16, 40] {
        let mut engine = Engine::new(Toy::new(blocks), WIDE);
        assert_eq!(run_in(&mut engine, &requests), wanted, "{blocks} blocks");
        assert!(blocks > 12 || engine.stats().preemptions > 0, "{blocks} blocks");
        assert!(engine.stats().peak_blocks <= blocks);
    }
}

#[test]
fn few_sequences_at_a_time_change_nothing() {
    for sequences in [1, 2, 5] {
        let limits = Limits { sequences, ..WIDE };
        assert_eq!(run(512, limits, &mixed()), alone(&mixed()));
    }
}

#[test]
fn sample_k_equals_the_single_sample_of_its_seed() {
    for len in [31, 32, 33] {
        let many = Generate { n: 7, ..generate(30, 100) };
        let together = run(512, WIDE, &[request(prompt(len, 2), many)]).remove(0);
        for k in 0..7 {
            let single = request(prompt(len, 2), generate(30, 100 + k as u64));
            assert_eq!(run(512, WIDE, &[single])[0].samples[0], together.samples[k]);
        }
        let different = together.samples.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(different > 3);
    }
}

#[test]
fn samples_share_their_prompt_and_copy_its_last_block() {
    let mut engine = Engine::new(Toy::new(64), WIDE);
    let endless = Generate { n: 10, stop_tokens: Vec::new(), ..generate(8, 0) };
    engine.submit(request(prompt(40, 2), endless)).unwrap();
    finish(&mut engine);
    let stats = engine.stats();
    assert_eq!((stats.computed_prompt_tokens, stats.generated_tokens), (40, 80));
    assert_eq!(engine.runner().copies, 9, "the last sample takes the prompt's own block");
    assert_eq!(stats.peak_blocks, 2 + 10);
    assert_eq!(stats.steps, 8);
}

#[test]
fn scores_equal_prompt_log_probabilities_of_the_joint_text() {
    let start = prompt(45, 6);
    let continuations: [&[u32]; 4] = [&[1], &[1, 0], &[2, 3, 4], &[]];
    let closing = [6, 7, 30];
    let closed = run(64, WIDE, &[score(start.clone(), &continuations, Some(&closing))]).remove(0);
    let open = run(64, WIDE, &[score(start.clone(), &continuations, None)]).remove(0);
    let toy = Toy::new(1);
    for (k, continuation) in continuations.iter().enumerate() {
        let joint = [&start, *continuation].concat();
        let echo = Generate { prompt_logprobs: Some(3), max_new_tokens: 0, ..generate(0, 0) };
        let result = run(64, WIDE, &[request(joint.clone(), echo)]).remove(0);
        assert_eq!((result.prompt.len(), result.prompt[0]), (joint.len(), None));
        assert_eq!(result.samples, [(Vec::new(), Some(Finish::Length))]);
        for (logprob, top) in result.prompt.iter().zip(&result.prompt_top).skip(1) {
            assert!(top.len() == 3 && logprob.unwrap() <= top[0].1 && top[1].1 >= top[2].1);
        }
        let sum: f64 = result.prompt[45..].iter().map(|x| f64::from(x.unwrap())).sum();
        assert!((sum - open.scores[k]).abs() < 1e-5, "{k}: {sum} against {}", open.scores[k]);
        let after = toy.logits_after(&joint);
        let total: f64 = after.iter().map(|&x| f64::from(x).exp()).sum();
        let ends: f64 = closing.iter().map(|&id| f64::from(after[id as usize]).exp()).sum();
        assert!((sum + (ends / total).ln() - closed.scores[k]).abs() < 1e-5);
    }
}

#[test]
fn one_token_continuations_cost_nothing_beside_the_prompt() {
    let mut engine = Engine::new(Toy::new(64), WIDE);
    let request = score(prompt(45, 6), &[&[1], &[2], &[3]], None);
    assert_eq!(run_in(&mut engine, &[request])[0].scores.len(), 3);
    assert_eq!((engine.stats().rows, engine.stats().steps), (45, 1));
    let request = score(prompt(45, 6), &[], None);
    assert_eq!(run_in(&mut engine, &[request]), [Brought::default()]);
    assert_eq!(engine.stats().steps, 1);
}

#[test]
fn a_verdict_scores_on_the_blocks_of_its_finished_reply() {
    let mut engine = Engine::new(Toy::new(64), WIDE);
    let mut asked = request(prompt(50, 1), Generate { stop_tokens: Vec::new(), ..generate(60, 4) });
    let reply = run_in(&mut engine, &[asked.clone()]).remove(0);
    asked.prompt.extend(reply.samples[0].0.iter().map(|sampled| sampled.token));
    let id = engine.submit(score(asked.prompt.clone(), &[&[1], &[2]], Some(&[3]))).unwrap();
    let usage = finish(&mut engine).done[&id];
    assert_eq!(usage, (110, 96, 0));
}

#[test]
fn requests_that_come_together_compute_their_shared_prefix_once() {
    for tokens_per_step in [20, 64, 4096] {
        let shared = prompt(160, 3);
        let mut engine = Engine::new(Toy::new(256), Limits { tokens_per_step, ..WIDE });
        for k in 0..30 {
            let own = [&shared[..], &prompt(10, 10 + k)[..]].concat();
            engine.submit(request(own, generate(5, 0))).unwrap();
        }
        finish(&mut engine);
        let stats = engine.stats();
        assert_eq!(stats.computed_prompt_tokens, 160 + 30 * 10, "{tokens_per_step}");
        assert_eq!(stats.cached_prompt_tokens, 29 * 160);
    }
}

#[test]
fn a_stop_token_ends_a_sample_and_is_not_part_of_it() {
    let mut toy = Toy::new(64);
    toy.script.insert(9, (5, 100.0));
    let mut engine = Engine::new(toy, WIDE);
    let mut start = prompt(20, 1);
    start.push(9);
    let id = engine.submit(request(start, generate(5, 1))).unwrap();
    let results = finish(&mut engine);
    assert_eq!(results.by_request[&id].samples, [(Vec::new(), Some(Finish::Stop))]);
    let stop_token = &results.by_request[&id].stop_tokens[&0];
    assert_eq!((stop_token.token, stop_token.top.len()), (5, 2));
    assert_eq!(results.done[&id], (21, 0, 0));
}

#[test]
fn a_sample_ends_with_the_context() {
    let mut toy = Toy::new(64);
    toy.context = 50;
    let mut engine = Engine::new(toy, WIDE);
    let endless = Generate { stop_tokens: Vec::new(), ..generate(500, 1) };
    let result = run_in(&mut engine, &[request(prompt(45, 1), endless)]).remove(0);
    assert_eq!((result.samples[0].0.len(), result.samples[0].1), (5, Some(Finish::Length)));
}

#[test]
fn what_can_never_fit_is_refused_by_name_and_the_others_go_on() {
    let mut toy = Toy::new(8);
    toy.context = 150;
    let mut engine = Engine::new(toy, WIDE);
    let mut refused = |request| engine.submit(request).unwrap_err();
    assert_eq!(refused(request(vec![], generate(5, 0))), Refused::Empty);
    let wanted = Refused::Context { prompt: 150, reply: 1, limit: 150 };
    assert_eq!(refused(request(prompt(150, 1), generate(5, 0))), wanted);
    let wanted = Refused::Context { prompt: 149, reply: 2, limit: 150 };
    assert_eq!(refused(score(prompt(149, 1), &[&[1], &[1, 2]], None)), wanted);
    let wanted = Refused::Memory { prompt: 100, reply: 29, limit: 128 };
    assert_eq!(refused(request(prompt(100, 1), generate(30, 0))), wanted);
    assert!(
        wanted.to_string().contains("--kv-memory") && wanted.to_string().contains("100 tokens")
    );
    let wanted = Refused::Token { token: 40, index: 1, vocab: 40 };
    assert_eq!(refused(request(vec![1, 40], generate(5, 0))), wanted);
    assert_eq!(refused(score(vec![1], &[&[2], &[3, 40]], None)), wanted);
    let mut hot = generate(5, 0);
    hot.params.temperature = f32::NAN;
    assert!(refused(request(vec![1], hot)).to_string().starts_with("temperature is NaN"));
    for penalty in [0.0, f32::MIN_POSITIVE, 0.009, 101.0, f32::INFINITY] {
        let mut strange = generate(5, 0);
        strange.params.repetition_penalty = penalty;
        let told = refused(request(vec![1], strange)).to_string();
        assert!(told.starts_with("repetition_penalty is"), "{told}");
    }

    let fits = request(prompt(100, 1), Generate { n: 3, stop_tokens: vec![], ..generate(29, 0) });
    let result = run_in(&mut engine, &[fits]).remove(0);
    assert!(result.samples.iter().all(|(tokens, _)| tokens.len() == 29));
}

#[test]
fn cancelling_at_any_moment_frees_everything_and_tells_nothing_more() {
    for steps in 0..12 {
        let limits = Limits { tokens_per_step: 60, ..WIDE };
        let mut engine = Engine::new(Toy::new(24), limits);
        let requests = mixed();
        let ids: Vec<_> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
        let mut results = Results::default();
        for _ in 0..steps {
            results.take(engine.step().unwrap());
        }
        let cancelled: Vec<_> =
            ids.iter().copied().skip(1).step_by(2).filter(|&id| engine.cancel(id)).collect();
        engine.check().unwrap();
        let rest = finish(&mut engine);
        assert!(cancelled.iter().all(|id| !rest.by_request.contains_key(id)));
        assert!(!engine.cancel(ids[0]), "ended requests are not there any more");
        let cache = engine.scheduler.cache();
        assert_eq!(cache.free() + cache.cached(), cache.total());
        assert!(engine.owners.is_empty());
    }
}

#[test]
fn a_sample_can_be_ended_from_above() {
    let mut engine = Engine::new(Toy::new(64), WIDE);
    let endless = Generate { n: 2, stop_tokens: Vec::new(), ..generate(50, 1) };
    let id = engine.submit(request(prompt(20, 1), endless)).unwrap();
    let mut results = Results::default();
    for _ in 0..4 {
        results.take(engine.step().unwrap());
    }
    assert!(engine.finish_sample(id, 0));
    assert!(!engine.finish_sample(id, 0), "it has ended");
    assert!(!engine.finish_sample(id, 7));
    results.take(engine.step().unwrap());
    assert!(engine.finish_sample(id, 1));
    assert!(!engine.is_idle(), "the end is still to be told");
    results.take(engine.step().unwrap());
    assert!(engine.is_idle());
    let lens = results.by_request[&id].samples.iter().map(|(t, f)| (t.len(), *f));
    assert_eq!(lens.collect::<Vec<_>>(), [(4, Some(Finish::Stop)), (5, Some(Finish::Stop))]);
    assert_eq!(results.done[&id].2, 9);
    engine.check().unwrap();
}

#[test]
fn a_broken_runner_is_an_error() {
    let mut toy = Toy::new(8);
    toy.fail_at = Some(0);
    let mut engine = Engine::new(toy, WIDE);
    engine.submit(request(prompt(5, 1), generate(5, 0))).unwrap();
    assert!(matches!(engine.step(), Err(Broken)));
}

#[test]
fn logits_that_are_no_numbers_end_their_request_and_no_other() {
    let damaged = || {
        let mut toy = Toy::new(64);
        toy.script.insert(9, (5, f32::NAN));
        Engine::new(toy, WIDE)
    };
    // Where the prompt ends with the token, where a sample comes to it, and where a continuation has it.
    let mut forced = generate(5, 0);
    forced.params.logit_bias = vec![(9, f32::MAX)];
    let bad = [
        (request(vec![1, 9], Generate { n: 3, ..generate(5, 0) }), 1),
        (request(vec![1, 2, 3], forced), 3),
        (score(vec![1, 2], &[&[3], &[9, 4]], None), 2),
    ];
    let good = [request(vec![1, 2, 3], generate(5, 0)), score(vec![1, 2], &[&[3], &[4, 5]], None)];
    let wanted = run_in(&mut Engine::new(Toy::new(64), WIDE), &good);
    for (bad, position) in bad {
        let mut engine = damaged();
        let failing = engine.submit(bad).unwrap();
        let others = good.each_ref().map(|request| engine.submit(request.clone()).unwrap());
        let (mut results, mut failures) = (Results::default(), Vec::new());
        while !engine.is_idle() {
            for event in engine.step().unwrap() {
                match event {
                    Event::Failed { id, why } => failures.push((id, why)),
                    event => results.take(vec![event]),
                }
            }
            engine.check().unwrap();
        }
        assert_eq!(failures, [(failing, BadLogits { position })]);
        assert!(!results.done.contains_key(&failing));
        let brought = others.map(|id| results.by_request.remove(&id).unwrap());
        assert_eq!(brought.as_slice(), wanted.as_slice());
    }
}

#[test]
fn events_come_in_the_same_order_every_time() {
    let trace = || {
        let mut engine = Engine::new(Toy::new(24), Limits { tokens_per_step: 50, ..WIDE });
        for request in mixed() {
            engine.submit(request).unwrap();
        }
        let mut trace = Vec::new();
        while !engine.is_idle() {
            trace.extend(engine.step().unwrap().iter().map(|event| format!("{event:?}")));
        }
        trace
    };
    assert_eq!(trace(), trace());
}

/// A small decoder with random weights.
fn decoder(blocks: usize) -> DecoderRunner {
    let config = models::dummy::config("smollm2-135m", 0.1).unwrap();
    let device = candle_core::Device::Cpu;
    let options = models::LoadOptions { dtype: models::DtypeChoice::F32, device };
    let decoder = models::dummy::decoder(config, 1, &options, &mut |_, _| {}).unwrap();
    DecoderRunner::new(decoder, blocks, KvDtype::F32).unwrap()
}

#[test]
fn a_real_decoder_gives_the_same_bits_however_its_work_is_cut() {
    let mut requests = mixed();
    let endless = |seed| Generate { stop_tokens: Vec::new(), ..generate(120, seed) };
    requests.extend((0..3).map(|k| request(prompt(20, k), endless(u64::from(k)))));
    let run = |blocks, limits| run_in(&mut Engine::new(decoder(blocks), limits), &requests);
    let mut alone = Vec::new();
    for one in &requests {
        alone.extend(run_in(&mut Engine::new(decoder(64), WIDE), std::slice::from_ref(one)));
    }
    assert_eq!(run(512, WIDE), alone, "together");
    assert_eq!(run(512, Limits { tokens_per_step: 23, ..WIDE }), alone, "in chunks");
    let mut engine = Engine::new(decoder(12), WIDE);
    assert_eq!(run_in(&mut engine, &requests), alone, "preempted");
    assert!(engine.stats().preemptions > 0);
    let mut engine = Engine::new(decoder(512), WIDE);
    assert_eq!(run_in(&mut engine, &requests), alone, "cold");
    assert_eq!(run_in(&mut engine, &requests), alone, "warm");
}

#[test]
fn while_nobody_comes_or_goes_the_next_step_is_foreseen() {
    let endless = |seed| Generate { stop_tokens: Vec::new(), ..generate(60, seed) };
    let mut engine = Engine::new(Toy::new(64), Limits { tokens_per_step: 90, ..WIDE });
    // A round takes 47 blocks: from the second on they come from evicted prefixes.
    for round in 0..4 {
        let before = (engine.stats().steps, engine.runner().foreseen);
        for k in 0..3 {
            let seed = 10 * round + k;
            engine.submit(request(prompt(28, seed), endless(u64::from(seed)))).unwrap();
        }
        for _ in 0..10 {
            engine.step().unwrap();
        }
        engine.submit(request(prompt(400, round), endless(3))).unwrap();
        while engine.load().0 + engine.load().1 == 4 {
            engine.step().unwrap();
        }
        let (steps, foreseen) = (engine.stats().steps, engine.runner().foreseen);
        // The first one, and the one that began the long prompt.
        assert_eq!(foreseen - before.1, (steps - before.0) as usize - 2, "round {round}");
        finish(&mut engine);
    }
}

/// A small decoder on a GPU, with the same weights in every test.
#[cfg(feature = "gpu")]
fn decoder_on_gpu(blocks: usize, deterministic: bool) -> GpuRunner {
    let config = models::dummy::config("smollm2-135m", 0.1).unwrap();
    let gpu = kernels::gpu::Gpu::open(0).unwrap();
    let options = models::gpu::GpuOptions {
        rows: 256,
        deterministic,
        graphs: true,
        share: true,
        weights: models::gpu::WeightType::Bf16,
        kv_type: kernels::gpu::KvType::Bf16,
    };
    let decoder = models::gpu::dummy(config, 1, &gpu, options, &mut |_, _| {}).unwrap();
    GpuRunner::new(decoder, blocks).unwrap()
}

/// A runner that is told another next step than the engine foresees.
#[cfg(feature = "gpu")]
struct Told {
    runner: GpuRunner,
    told: fn(models::batch::Batch) -> Option<models::batch::Batch>,
}

#[cfg(feature = "gpu")]
impl Runner for Told {
    type Error = models::ModelError;

    fn vocab(&self) -> usize {
        self.runner.vocab()
    }

    fn context(&self) -> usize {
        self.runner.context()
    }

    fn blocks(&self) -> usize {
        self.runner.blocks()
    }

    fn run(
        &mut self,
        step: Step,
        sink: &mut dyn FnMut(Range<usize>, Answers),
    ) -> Result<(), Self::Error> {
        let next = || (step.next)().and_then(self.told);
        self.runner.run(Step { next: &next, ..step }, sink)
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        self.runner.copy_block(from, to)
    }
}

#[cfg(feature = "gpu")]
#[test]
fn what_a_gpu_has_prepared_changes_nothing() {
    let constraint = Some(Constraint::new(Alternating { length: 6 }));
    let stops =
        Generate { stop_tokens: (0..40).filter(|id| id % 4 == 1).collect(), ..generate(40, 8) };
    let mut requests = little();
    requests.push(request(prompt(18, 3), Generate { constraint, n: 2, ..generate(30, 6) }));
    requests.extend((0..4).map(|k| request(prompt(30, k), stops.clone())));
    let endless = |seed| Generate { stop_tokens: Vec::new(), ..generate(50, seed) };
    requests.extend([1, 2].map(|k| request(prompt(20, k), endless(u64::from(k)))));
    let run = |told| {
        let runner = Told { runner: decoder_on_gpu(9, false), told };
        let mut engine = Engine::new(runner, Limits { tokens_per_step: 50, sequences: 8 });
        let ids: Vec<_> = requests.iter().map(|r| engine.submit(r.clone()).unwrap()).collect();
        let mut trace = Vec::new();
        while !engine.is_idle() {
            trace.extend(engine.step().unwrap().iter().map(|event| format!("{event:?}")));
            if engine.stats().steps == 12 {
                engine.cancel(ids[9]);
                engine.submit(requests[0].clone()).unwrap();
            }
            engine.check().unwrap();
        }
        assert!(engine.stats().preemptions > 0, "{:?}", engine.stats());
        (trace, engine.runner().runner.prepared_steps(), engine.stats().steps)
    };
    let (plain, unprepared, steps) = run(|_| None);
    let (prepared, hits, _) = run(Some);
    let (astray, misses, _) = run(|mut next| {
        next.layout.slots.iter_mut().for_each(|slot| *slot ^= 1);
        Some(next)
    });
    assert_eq!((unprepared, misses), (0, 0));
    assert!(2 * hits > steps, "{hits} of {steps} steps were prepared");
    assert_eq!(prepared, plain);
    assert_eq!(astray, plain);
}

/// Little work: a GPU that the processor plays is slow.
#[cfg(feature = "gpu")]
fn little() -> Vec<Request> {
    let short = |n, seed| Generate { n, stop_tokens: Vec::new(), ..generate(9, seed) };
    let base = prompt(40, 1);
    vec![
        request(base.clone(), short(3, 1)),
        request([&base[..33], &[5, 6]].concat(), short(1, 2)),
        request(prompt(20, 2), Generate { prompt_logprobs: Some(2), ..short(1, 3) }),
        score(base, &[&[1], &[2, 3], &[1, 0, 4]], Some(&[7, 9])),
    ]
}

#[cfg(feature = "gpu")]
#[test]
fn a_deterministic_gpu_gives_the_same_bits_however_its_work_is_cut() {
    let requests = little();
    let run =
        |blocks, limits| run_in(&mut Engine::new(decoder_on_gpu(blocks, true), limits), &requests);
    let limits = Limits { tokens_per_step: 256, ..WIDE };
    let mut alone = Vec::new();
    for one in &requests {
        let mut engine = Engine::new(decoder_on_gpu(64, true), limits);
        alone.extend(run_in(&mut engine, std::slice::from_ref(one)));
    }
    assert_eq!(run(64, limits), alone, "together");
    assert_eq!(run(64, Limits { tokens_per_step: 23, ..limits }), alone, "in chunks");
    let mut engine = Engine::new(decoder_on_gpu(64, true), limits);
    assert_eq!(run_in(&mut engine, &requests), alone, "cold");
    assert_eq!(run_in(&mut engine, &requests), alone, "warm");
    // Two that have room one after the other only.
    let growing = |seed| Generate { n: 1, stop_tokens: Vec::new(), ..generate(60, seed) };
    let growing = [1, 2].map(|k| request(prompt(20, k), growing(u64::from(k))));
    let mut engine = Engine::new(decoder_on_gpu(8, true), limits);
    let preempted = run_in(&mut engine, &growing);
    assert!(engine.stats().preemptions > 0);
    let wide = run_in(&mut Engine::new(decoder_on_gpu(64, true), limits), &growing);
    assert_eq!(preempted, wide, "preempted");
}

/// Tokens and log-probabilities read on the GPU are those that the host reads from the same logits.
#[cfg(feature = "gpu")]
#[test]
fn a_gpu_reads_logits_as_the_host_does() {
    let mut requests = little();
    let changed = SamplingParams {
        temperature: 0.0,
        repetition_penalty: 1.3,
        frequency_penalty: 0.2,
        logit_bias: vec![(3, 1.5), (7, -2.0)],
        ..SamplingParams::default()
    };
    requests.push(request(prompt(30, 4), Generate { params: changed, ..generate(9, 4) }));
    let limits = Limits { tokens_per_step: 256, ..WIDE };
    let run = |samples| {
        let mut runner = decoder_on_gpu(64, true);
        runner.samples = samples;
        run_in(&mut Engine::new(runner, limits), &requests)
    };
    let (on_gpu, on_host) = (run(true), run(false));
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-4, "{a}, not {b}");
    for (a, b) in on_gpu.iter().zip(&on_host) {
        let tokens = |x: &Brought| -> Vec<u32> {
            x.samples.iter().flat_map(|s| s.0.iter().map(|t| t.token)).collect()
        };
        assert_eq!(tokens(a), tokens(b));
        a.scores.iter().zip(&b.scores).for_each(|(&a, &b)| close(a, b));
        let logprobs = |x: &Brought| -> Vec<f32> {
            let of_samples = x.samples.iter().flat_map(|s| s.0.iter().filter_map(|t| t.logprob));
            of_samples.chain(x.prompt.iter().flatten().copied()).collect()
        };
        assert_eq!(logprobs(a).len(), logprobs(b).len());
        logprobs(a).iter().zip(logprobs(b)).for_each(|(&a, b)| close(a.into(), b.into()));
    }
}

#[test]
fn random_work_in_random_limits_gives_what_each_request_gives_alone() {
    let mut state = 3u64;
    let mut below = |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % n) as usize
    };
    for round in 0..60 {
        let base = prompt(90, 1);
        let requests: Vec<Request> = (0..1 + below(20))
            .map(|k| {
                let own = [&base[..below(90)], &prompt(1 + below(20), k as u32)[..]].concat();
                match below(4) {
                    0 => score(own, &[&[1], &[2, 3], &[1, 0, 4]], Some(&[below(40) as u32])),
                    1 => score(own, &[&[below(40) as u32, 1], &[]], None),
                    _ => {
                        let generate = generate(below(30), k as u64);
                        let prompt_logprobs = (below(5) == 0).then_some(2);
                        request(own, Generate { n: below(5), prompt_logprobs, ..generate })
                    }
                }
            })
            .collect();
        let limits = Limits { tokens_per_step: 1 + below(60), sequences: 1 + below(20) };
        let mut engine = Engine::new(Toy::new(10 + below(30)), limits);
        let mut ids = Vec::new();
        let mut results = Results::default();
        for request in &requests {
            ids.push(engine.submit(request.clone()).unwrap());
            for _ in 0..below(3) {
                results.take(engine.step().unwrap());
                engine.check().unwrap();
            }
        }
        let cancelled = ids[below(ids.len() as u64)];
        let was_there = engine.cancel(cancelled);
        let rest = finish(&mut engine);
        for (id, wanted) in ids.iter().zip(alone(&requests)) {
            if was_there && *id == cancelled {
                continue;
            }
            let mut all = results.by_request.remove(id).unwrap_or_default();
            let more = rest.by_request.get(id).cloned().unwrap_or_default();
            all.join(more);
            assert_eq!(all, wanted, "round {round}, {id:?}");
        }
    }
}
