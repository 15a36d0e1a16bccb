//! How samples and requests end, and what can go wrong.

use super::*;

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
    forced.params.logit_bias = [(9, f32::MAX)].into();
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
