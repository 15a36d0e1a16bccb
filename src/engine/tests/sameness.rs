//! What is computed does not depend on how.

use super::*;

#[test]
fn together_or_alone_is_the_same() {
    assert_eq!(run(512, WIDE, &mixed()), alone(&mixed()));
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
