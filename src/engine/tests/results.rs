//! What requests bring.

use super::*;

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
