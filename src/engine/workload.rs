//! A judge's work over the toy model: how much of its prompts comes from the cache.

use super::toy::Toy;
use super::*;
use std::collections::VecDeque;
use std::sync::Arc;

const CANDIDATES: usize = 10;
const STATEMENTS: usize = 15;

/// Tokens that only `name` has.
fn text(len: usize, name: u64) -> Vec<u32> {
    let mut state = name.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % 40) as u32
    };
    (0..len).map(|_| next()).collect()
}

/// Prompts of all verdicts on some documents, dimension by dimension or document by document, each
/// laid out from most to least shared.
fn verdicts(documents: u64, mixed: bool) -> Vec<(Vec<u32>, usize)> {
    let mut all = Vec::new();
    for document in 0..documents {
        let extracts = text(1500, 1000 + document);
        for candidate in 0..CANDIDATES as u64 {
            let answer = text(200, 100_000 + document * 100 + candidate);
            let ask = |dimension: u64, head: usize, parts: &[&[u32]]| {
                (dimension, [&[&text(head, dimension)[..]], parts].concat().concat())
            };
            all.push((ask(1, 1200, &[&answer]), 120));
            all.push((ask(2, 1100, &[&answer]), 120));
            all.push((ask(3, 1600, &[&answer]), 250));
            all.push((ask(5, 1000, &[&extracts, &answer]), 150));
            for statement in 0..STATEMENTS as u64 {
                let unit = document * 10_000 + candidate * 100 + statement;
                all.push((ask(4, 1300, &[&text(640, 2_000_000 + unit), &text(30, unit)]), 80));
            }
        }
    }
    if !mixed {
        all.sort_by_key(|((dimension, _), _)| *dimension);
    }
    all.into_iter().map(|((_, prompt), reply)| (prompt, reply)).collect()
}

/// Submits verdicts, `appetite` at a time, and for each that is done the scores of its rating.
fn judge(engine: &mut Engine<Toy>, verdicts: Vec<(Vec<u32>, usize)>, appetite: usize) -> Stats {
    let mut queue: VecDeque<_> = verdicts.into();
    let mut open: HashMap<RequestId, Vec<u32>> = HashMap::new();
    let mut in_flight = 0;
    while !queue.is_empty() || in_flight > 0 {
        while in_flight < appetite
            && let Some((prompt, reply)) = queue.pop_front()
        {
            let id = engine.submit(asked(&prompt, reply)).unwrap();
            open.insert(id, prompt);
            in_flight += 1;
        }
        for event in engine.step().unwrap() {
            match event {
                Event::Token { id, token, .. } => open.get_mut(&id).unwrap().push(token.token),
                Event::Done { id, .. } => match open.remove(&id) {
                    Some(text) => drop(engine.submit(rated(text)).unwrap()),
                    None => in_flight -= 1,
                },
                _ => {}
            }
        }
    }
    engine.check().unwrap();
    engine.stats()
}

fn asked(prompt: &[u32], reply: usize) -> Request {
    // Replies differ in length by up to a half.
    let length = reply / 2 + prompt[prompt.len() - 1] as usize * reply / 40;
    let params = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let generate = Generate {
        n: 1,
        max_new_tokens: length.max(1),
        params,
        seed: 0,
        stop_tokens: Vec::new(),
        logprobs: None,
        prompt_logprobs: None,
        constraint: None,
    };
    Request { prompt: prompt.to_vec(), task: Task::Generate(generate) }
}

fn rated(prompt: Vec<u32>) -> Request {
    let continuations = (0..11).map(|n| if n == 10 { vec![1, 0] } else { vec![n] }).collect();
    let closing = Some(Arc::from([7, 8]));
    Request { prompt, task: Task::Score { continuations, closing } }
}

#[test]
fn a_small_pool_saves_almost_as_much_as_an_infinite_one() {
    let limits = Limits { tokens_per_step: 512, sequences: 16 };
    for mixed in [false, true] {
        let run = |blocks| {
            let stats = judge(&mut Engine::new(Toy::new(blocks), limits), verdicts(1, mixed), 64);
            println!("mixed {mixed}, {blocks} blocks: {stats:?}");
            stats
        };
        let infinite = run(100_000);
        let share = infinite.computed_prompt_tokens as f64 / infinite.prompt_tokens as f64;
        assert!(share < 0.18, "{share} of the prompt tokens were computed");
        // 16 sequences of at most 190 blocks each, 80 of them in heads that all share.
        for (blocks, more) in [(1000, 1.03), (500, 1.1), (350, 1.1)] {
            let ratio =
                run(blocks).computed_prompt_tokens as f64 / infinite.computed_prompt_tokens as f64;
            assert!(ratio < more, "mixed {mixed}, {blocks} blocks: {ratio} times as much computed");
        }
    }
}
