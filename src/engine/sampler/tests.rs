use super::*;

fn params(temperature: f32) -> SamplingParams {
    SamplingParams { temperature, ..SamplingParams::default() }
}

/// A row with many ties, like the logits of half-precision models.
fn logits(len: usize, seed: u64) -> Vec<f32> {
    let spread = |i| uniform(seed, 2 * i) * 12.0 * uniform(seed, 2 * i + 1) - 4.0;
    (0..len as u64).map(|i| ((spread(i) * 64.0).round() / 64.0) as f32).collect()
}

fn tokens(row: &[f32], params: &SamplingParams, seeds: std::ops::Range<u64>) -> Vec<u32> {
    let seeds = seeds.collect();
    let one = Draw { params, seeds, index: 3, seen: &[], logprobs: None, allowed: None };
    draw(row, &one).unwrap().into_iter().map(|sampled| sampled.token).collect()
}

/// Ids and probabilities after all filters, by sorting everything, in f64.
fn naive(row: &[f32], params: &SamplingParams) -> Vec<(u32, f64)> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |x: f32| (f64::from(x - max) / f64::from(params.temperature)).exp();
    let mut all: Vec<_> = row.iter().enumerate().map(|(i, &x)| (i as u32, weight(x))).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if params.top_k > 0 {
        all.truncate(params.top_k);
    }
    let total: f64 = all.iter().map(|x| x.1).sum();
    let mut sum = 0.0;
    let enough = |x: &(u32, f64)| {
        sum += x.1;
        sum >= f64::from(params.top_p) * total
    };
    let end = all.iter().position(enough).map_or(all.len(), |last| last + 1);
    if params.top_p < 1.0 {
        all.truncate(end);
    }
    all.retain(|x| x.1 >= f64::from(params.min_p));
    let total: f64 = all.iter().map(|x| x.1).sum();
    all.iter().map(|x| (x.0, x.1 / total)).collect()
}

#[test]
fn the_exponential_is_close_to_the_exact_one() {
    for i in 0..=870_000 {
        let x = -(i as f32) * 1e-4;
        let exact = f64::from(x).exp();
        let error = (f64::from(exp(x)) - exact).abs() / exact;
        assert!(error < 2e-7, "exp({x}) is off by {error}");
    }
    assert_eq!((exp(0.0), exp(-87.1), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
}

#[test]
fn log_probabilities_equal_those_in_double_precision() {
    for len in [1, 7, 255, 257, 5000] {
        let row = logits(len, len as u64);
        let sum = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        let ids: Vec<u32> = (0..len as u32).collect();
        let half = &ids[..len.div_ceil(2)];
        let LogProbabilities { tokens, closing: set, top } =
            log_probabilities(&row, &ids, Some(half), 3).unwrap();
        for &(id, logprob) in &top {
            assert_eq!(logprob, tokens[id as usize] as f32);
            assert!(tokens.iter().filter(|&&x| x as f32 > logprob).count() < top.len());
        }
        for (&x, y) in row.iter().zip(tokens) {
            assert!((f64::from(x) - sum - y).abs() < 1e-6);
        }
        let half: f64 = row[..len.div_ceil(2)].iter().map(|&x| f64::from(x).exp()).sum();
        assert!((half.ln() - sum - set.unwrap()).abs() < 1e-6);
    }
}

#[test]
fn an_empty_closing_set_is_impossible() {
    let read = log_probabilities(&[1.0, 2.0], &[], Some(&[]), 0).unwrap();
    assert_eq!(read.closing, Some(f64::NEG_INFINITY));
}

#[test]
fn ties_go_to_the_lowest_id() {
    let mut row = vec![0.0; 1000];
    for id in [700, 300, 301, 999] {
        row[id] = 5.0;
    }
    assert_eq!(tokens(&row, &params(0.0), 0..1), [300]);
    let row = Row::new(Cow::Borrowed(&row)).unwrap();
    let ids = |k| row.likeliest(k).iter().map(|x| x.0).collect::<Vec<_>>();
    assert_eq!(ids(2), [300, 301]);
    assert_eq!(ids(6), [300, 301, 700, 999, 0, 1]);
}

#[test]
fn the_likeliest_are_those_of_a_full_sort() {
    for seed in 0..20 {
        let values = logits(3000, seed);
        let mut sorted: Vec<_> = (0..).zip(values.iter().copied()).collect();
        sorted.sort_by(best_first);
        let row = Row::new(Cow::Borrowed(&values)).unwrap();
        for k in [0, 1, 2, 11, 12, 13, 500, 3000, 4000] {
            assert_eq!(row.likeliest(k), sorted[..k.min(3000)]);
        }
    }
}

#[test]
fn draws_follow_the_filtered_distribution() {
    let filters = [(0, 1.0, 0.0), (40, 1.0, 0.0), (0, 0.8, 0.0), (0, 1.0, 0.05), (50, 0.9, 0.02)];
    for (case, (top_k, top_p, min_p)) in filters.into_iter().enumerate() {
        let params = SamplingParams { top_k, top_p, min_p, ..params(0.7) };
        let row = logits(700, case as u64);
        let expected: std::collections::HashMap<_, _> = naive(&row, &params).into_iter().collect();
        let count = 20_000;
        let mut seen = vec![0u32; row.len()];
        for token in tokens(&row, &params, 0..count) {
            assert!(expected.contains_key(&token), "case {case}: token {token}");
            seen[token as usize] += 1;
        }
        let distance: f64 = (0..row.len())
            .map(|id| {
                let wanted = expected.get(&(id as u32)).copied().unwrap_or(0.0);
                (f64::from(seen[id]) / count as f64 - wanted).abs()
            })
            .sum();
        // Of n draws over k tokens the mean distance is about sqrt(2k / (pi n)).
        let bound =
            1.5 * (expected.len() as f64 * 2.0 / std::f64::consts::PI / count as f64).sqrt();
        assert!(distance < bound, "case {case}: {distance} against {bound}");
    }
}

#[test]
fn filters_keep_the_same_tokens_as_a_full_sort() {
    for seed in 0..30 {
        let row = logits(2000, seed);
        for (top_k, top_p, min_p) in [
            (1, 1.0, 0.0),
            (5, 0.5, 0.0),
            (0, 0.3, 0.0),
            (0, 0.999, 0.0),
            (0, 0.9, 0.1),
            (900, 0.99, 0.001),
        ] {
            let params = SamplingParams { top_k, top_p, min_p, ..params(1.3) };
            let values = Row::new(Cow::Borrowed(&row)).unwrap();
            let Distribution::Some(chosen) = Distribution::new(&values, &params) else {
                panic!("filters are on");
            };
            let ids: Vec<u32> = chosen.iter().map(|x| x.0).collect();
            let mut wanted: Vec<u32> = naive(&row, &params).iter().map(|x| x.0).collect();
            wanted.sort_unstable();
            assert_eq!(ids, wanted, "seed {seed}, {top_k} {top_p} {min_p}");
        }
    }
}

#[test]
fn a_token_masked_by_negative_infinity_is_never_drawn() {
    let mut row = vec![f32::NEG_INFINITY; 600];
    row[77] = -3.0;
    row[599] = -3.0;
    let drawn = tokens(&row, &params(1.0), 0..1000);
    assert!(drawn.iter().all(|token| [77, 599].contains(token)));
    assert!(drawn.contains(&77) && drawn.contains(&599));
}

#[test]
fn a_tiny_temperature_is_greedy() {
    let row = logits(5000, 1);
    assert_eq!(tokens(&row, &params(1e-30), 5..6), tokens(&row, &params(0.0), 0..1));
}

#[test]
fn the_penalty_weakens_each_seen_token_once() {
    let row = penalise(&[2.0, -2.0, 1.0], &[0, 1, 0, 9], 2.0);
    assert_eq!(row, [1.0, -4.0, 1.0]);
    let params = SamplingParams { repetition_penalty: 2.5, ..params(0.0) };
    let one = Draw {
        params: &params,
        seeds: vec![0],
        index: 0,
        seen: &[0],
        logprobs: Some(1),
        allowed: None,
    };
    let sampled = draw(&[2.0, -2.0, 1.0], &one).unwrap().remove(0);
    assert_eq!(sampled.token, 2);
    let logprob = 1.0 - (2f64.exp() + (-2f64).exp() + 1f64.exp()).ln();
    assert!((f64::from(sampled.logprob.unwrap()) - logprob).abs() < 1e-6, "unpenalised");
    assert_eq!(sampled.top[0].0, 0);
}

#[test]
fn what_grows_beyond_all_numbers_can_still_be_drawn() {
    assert_eq!(penalise(&[f32::MAX, 1.0], &[0], 0.5), [f32::MAX, 1.0]);
    let bias = [(1, f32::MAX), (1, f32::MAX), (0, f32::MIN), (0, f32::MIN)].into();
    let params = SamplingParams { logit_bias: bias, ..params(1.0) };
    assert_eq!(tokens(&[5.0, 1e30, 3.0], &params, 0..3), [1; 3]);
}

#[test]
fn biases_and_penalties_on_the_sample_are_added() {
    let bias = [(1, 2.5), (9, 1.0)].into();
    let params = SamplingParams {
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logit_bias: bias,
        ..params(0.0)
    };
    // Token 3 stands in the prompt, 0 twice in the sample.
    let row = adjust(&[1.0, -1.0, 0.0, 0.5], &params, &[3, 3, 0, 0], 2);
    assert_eq!(row, [0.0, 1.5, 0.0, 0.5]);
    assert_eq!(tokens(&[1.0, -1.0, 0.0, 0.5], &params, 0..1), [1]);
}

#[test]
fn uniform_numbers_spread_over_seeds_and_indices() {
    for stream in [|i| uniform(i, 0), |i| uniform(0, i), |i| uniform(i, i)] {
        let mut counts = [0u32; 16];
        for i in 0..16_000 {
            counts[(stream(i) * 16.0) as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (850..1150).contains(&n)), "{counts:?}");
    }
}

#[test]
fn rows_that_are_no_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut row = vec![0.0; 300];
        row[260] = bad;
        assert_eq!(log_probabilities(&row, &[0], None, 0), Err(NotFinite));
    }
    assert_eq!(log_probabilities(&[f32::NEG_INFINITY; 3], &[0], None, 0), Err(NotFinite));
}

/// `cargo test --release -- --ignored --nocapture rows_per_second`
#[test]
#[ignore = "a measurement"]
fn rows_per_second() {
    let row = logits(128_256, 1);
    let time = |what: &str, read: &dyn Fn()| {
        let start = std::time::Instant::now();
        (0..50).for_each(|_| read());
        println!("{what:20} {:8.1} us", start.elapsed().as_secs_f64() / 50.0 * 1e6);
    };
    let full = params(1.0);
    let cases = [
        ("greedy", params(0.0)),
        ("temperature", full.clone()),
        ("top-k 50", SamplingParams { top_k: 50, ..full.clone() }),
        ("top-p 0.95", SamplingParams { top_p: 0.95, ..full.clone() }),
        ("min-p 0.05", SamplingParams { min_p: 0.05, ..full.clone() }),
        ("penalty", SamplingParams { repetition_penalty: 1.1, ..full }),
    ];
    for (what, params) in &cases {
        time(what, &|| drop(tokens(&row, params, 7..8)));
    }
    time("log-probabilities", &|| drop(log_probabilities(&row, &[3], Some(&[1, 2]), 0)));
    let draw_with = |logprobs| {
        let params = &cases[1].1;
        draw(&row, &Draw { params, seeds: vec![1], index: 0, seen: &[], logprobs, allowed: None })
            .unwrap()
    };
    time("with 20 logprobs", &|| drop(draw_with(Some(20))));
}
