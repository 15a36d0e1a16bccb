//! Sampling against the same thing done by sorting everything, in f64.

use crate::harness::{is_fast, poisoned, stream};
use kernels::gpu::{Buffer, LogitChange, NO_ROW, Sample, SampleRow, Stream, sample};

fn next(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as f64 / (1u64 << 53) as f64
}

/// A row with many ties, in steps of `1 / steps`.
fn logits(len: usize, seed: u64, steps: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            (((next(&mut state) * next(&mut state) * 14.0 - 4.0) as f32) * steps).round() / steps
        })
        .collect()
}

/// Everything that is uploaded, and room for everything that comes back.
#[derive(Default)]
struct Request {
    vocab: usize,
    logits: Vec<f32>,
    rows: Vec<SampleRow>,
    uniforms: Vec<f64>,
    changes: Vec<LogitChange>,
    allowed: Vec<u32>,
    score_ids: Vec<u32>,
    tops: usize,
}

struct Answer {
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    scores: Vec<f32>,
    log_sums: Vec<f32>,
    top_ids: Vec<u32>,
    top_logprobs: Vec<f32>,
}

fn run(stream: &Stream, r: &Request) -> Answer {
    fn up<T: kernels::gpu::Element>(stream: &Stream, values: &[T]) -> Buffer<T> {
        stream.buffer_of(values).unwrap()
    }
    let (tokens, logprobs) =
        (poisoned(stream, r.uniforms.len()), poisoned(stream, r.uniforms.len()));
    let (scores, log_sums) = (poisoned(stream, r.score_ids.len()), poisoned(stream, r.rows.len()));
    let (top_ids, top_logprobs) = (poisoned(stream, r.tops), poisoned(stream, r.tops));
    let args = Sample {
        logits: &up(stream, &r.logits),
        rows: &up(stream, &r.rows),
        uniforms: &up(stream, &r.uniforms),
        changes: &up(stream, &r.changes),
        originals: &poisoned(stream, r.changes.len()),
        allowed: &up(stream, &r.allowed),
        score_ids: &up(stream, &r.score_ids),
        tokens: &tokens,
        logprobs: &logprobs,
        scores: &scores,
        log_sums: &log_sums,
        top_ids: &top_ids,
        top_logprobs: &top_logprobs,
        max_rows: r.rows.len(),
        vocab: r.vocab,
    };
    sample(stream, &args).unwrap();
    Answer {
        tokens: stream.read(&tokens).unwrap(),
        logprobs: stream.read(&logprobs).unwrap(),
        scores: stream.read(&scores).unwrap(),
        log_sums: stream.read(&log_sums).unwrap(),
        top_ids: stream.read(&top_ids).unwrap(),
        top_logprobs: stream.read(&top_logprobs).unwrap(),
    }
}

fn log_sum(row: &[f32]) -> f64 {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + row.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln()
}

fn best_first(row: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    ids.sort_by(|&a, &b| row[b as usize].partial_cmp(&row[a as usize]).unwrap().then(a.cmp(&b)));
    ids
}

/// Weights of all tokens after all filters, and whether each is near the edge of one.
fn filtered(row: &[f32], r: &SampleRow) -> Vec<f64> {
    let order = best_first(row);
    let max = row[order[0] as usize];
    let weight = |id: u32| (f64::from(row[id as usize] - max) / f64::from(r.temperature)).exp();
    let mut kept = order;
    if r.top_k > 0 {
        kept.truncate(r.top_k as usize);
    }
    if r.top_p < 1.0 {
        let total: f64 = kept.iter().map(|&id| weight(id)).sum();
        let mut sum = 0.0;
        let reached = kept.iter().position(|&id| {
            sum += weight(id);
            sum >= f64::from(r.top_p) * total
        });
        kept.truncate(reached.map_or(kept.len(), |last| last + 1));
    }
    kept.retain(|&id| weight(id) >= f64::from(r.min_p));
    let mut weights = vec![0.0; row.len()];
    kept.iter().for_each(|&id| weights[id as usize] = weight(id));
    weights
}

/// That `token` lies at `share` of the weights, by id, but for rounding.
#[track_caller]
fn assert_drawn(weights: &[f64], share: f64, token: u32, what: &str) {
    let total: f64 = weights.iter().sum();
    let before: f64 = weights[..token as usize].iter().sum();
    let own = weights[token as usize];
    assert!(own > 0.0, "{what}: token {token} has no weight");
    let slack = 2e-5 * total;
    let at = share * total;
    assert!(
        at > before - slack && at < before + own + slack,
        "{what}: {at} is not within {before} + {own}"
    );
}

fn settings() -> Vec<SampleRow> {
    let base = SampleRow { temperature: 0.8, ..SampleRow::default() };
    vec![
        base,
        SampleRow { temperature: 1.0, ..base },
        SampleRow { top_k: 1, ..base },
        SampleRow { top_k: 5, ..base },
        SampleRow { top_k: 50, top_p: 0.9, min_p: 0.02, ..base },
        SampleRow { top_k: 1500, temperature: 2.0, ..base },
        SampleRow { top_p: 0.3, ..base },
        SampleRow { top_p: 0.95, ..base },
        SampleRow { top_p: 0.9999, ..base },
        SampleRow { min_p: 0.05, ..base },
        SampleRow { top_p: 0.8, min_p: 0.01, temperature: 1.7, ..base },
    ]
}

#[test]
fn draws_follow_the_filtered_distribution() {
    let stream = stream();
    let mut state = 99;
    for (vocab, steps) in
        [(1, 64.0), (7, 64.0), (300, 64.0), (5000, 1024.0), (5003, 4.0), (3000, 0.25)]
    {
        let mut request = Request { vocab, ..Request::default() };
        let draws = 40;
        for (i, setting) in settings().into_iter().enumerate() {
            request.logits.extend(logits(vocab, i as u64 + 1, steps));
            let first_draw = (i * draws) as u32;
            request.rows.push(SampleRow {
                row: i as u32,
                first_draw,
                draw_count: draws as u32,
                ..setting
            });
            request.uniforms.extend((0..draws).map(|_| next(&mut state)));
        }
        request.uniforms[0] = 0.0;
        request.uniforms[1] = 1.0 - f64::EPSILON;
        let answer = run(&stream, &request);
        for (i, r) in request.rows.iter().enumerate() {
            let row = &request.logits[i * vocab..][..vocab];
            let weights = filtered(row, r);
            let sum = log_sum(row);
            assert!((f64::from(answer.log_sums[i]) - sum).abs() < 1e-5);
            for draw in i * draws..(i + 1) * draws {
                let token = answer.tokens[draw];
                assert_drawn(
                    &weights,
                    request.uniforms[draw],
                    token,
                    &format!("vocab {vocab}, {r:?}"),
                );
                let want = f64::from(row[token as usize]) - sum;
                assert!((f64::from(answer.logprobs[draw]) - want).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn greedy_takes_the_lowest_id_of_the_likeliest() {
    let stream = stream();
    let mut row = vec![0.0; 1000];
    for id in [700, 300, 301, 999] {
        row[id] = 5.0;
    }
    let rows = vec![SampleRow {
        row: 0,
        draw_count: 2,
        temperature: 0.0,
        top_p: 0.5,
        top_k: 3,
        ..SampleRow::default()
    }];
    let answer = run(
        &stream,
        &Request { vocab: 1000, logits: row, rows, uniforms: vec![0.1, 0.9], ..Request::default() },
    );
    assert_eq!(answer.tokens, [300, 300]);
}

#[test]
fn the_likeliest_and_scores_are_reported() {
    let stream = stream();
    for (vocab, steps) in [(3000, 64.0), (3000, 0.5), (4, 8.0)] {
        let mut request = Request { vocab, ..Request::default() };
        for (i, top_logprobs) in [0u32, 1, 5, 20, 512].into_iter().enumerate() {
            request.logits.extend(logits(vocab, 40 + i as u64, steps));
            let (first_score, first_top) = (request.score_ids.len() as u32, request.tops as u32);
            let scores = SampleRow {
                first_score,
                score_count: 3,
                first_top,
                top_logprobs,
                ..SampleRow::default()
            };
            request.rows.push(SampleRow { row: i as u32, ..scores });
            request.score_ids.extend([0, vocab as u32 - 1, 1]);
            request.tops += top_logprobs as usize;
        }
        let answer = run(&stream, &request);
        for (i, r) in request.rows.iter().enumerate() {
            let row = &request.logits[i * vocab..][..vocab];
            let sum = log_sum(row);
            let close = |got: f32, id: u32| {
                assert!((f64::from(got) - (f64::from(row[id as usize]) - sum)).abs() < 1e-5)
            };
            for at in r.first_score..r.first_score + r.score_count {
                close(answer.scores[at as usize], request.score_ids[at as usize]);
            }
            let tops = r.first_top as usize..(r.first_top + r.top_logprobs) as usize;
            let mut want = best_first(row);
            want.truncate(tops.len());
            want.resize(tops.len(), NO_ROW);
            assert_eq!(answer.top_ids[tops.clone()], want);
            for (&id, &got) in
                want.iter().zip(&answer.top_logprobs[tops]).filter(|(id, _)| **id != NO_ROW)
            {
                close(got, id);
            }
        }
    }
}

#[test]
fn changes_and_allowed_sets_count_for_draws_only() {
    let stream = stream();
    let vocab = 70;
    let row = logits(vocab, 3, 64.0);
    let changes = vec![
        LogitChange { token: 2, penalised: 1, added: 0.0 },
        LogitChange { token: 33, penalised: 0, added: 100.0 },
        LogitChange { token: 34, penalised: 0, added: 99.0 },
        LogitChange { token: 65, penalised: 1, added: 50.0 },
        LogitChange { token: 900, penalised: 1, added: 1.0 },
    ];
    let sum = log_sum(&row);
    let mut allowed = vec![0u32; 3];
    for id in [5, 34, 65] {
        allowed[id / 32] |= 1 << (id % 32);
    }
    let base = SampleRow {
        row: 0,
        draw_count: 1,
        temperature: 0.0,
        change_count: 5,
        penalty: 2.0,
        ..SampleRow::default()
    };
    for (set, want) in [(NO_ROW, 33), (0, 34)] {
        let rows = vec![SampleRow { allowed: set, ..base }];
        let request = Request {
            vocab,
            logits: row.clone(),
            rows,
            uniforms: vec![0.5],
            changes: changes.clone(),
            allowed: allowed.clone(),
            ..Request::default()
        };
        let answer = run(&stream, &request);
        assert_eq!(answer.tokens, [want]);
        assert!(
            (f64::from(answer.logprobs[0]) - (f64::from(row[want as usize]) - sum)).abs() < 1e-5,
            "of the unchanged row"
        );
    }
    // Only allowed tokens are ever drawn; one that weighs nothing is not.
    let uniforms: Vec<f64> = (0..50).map(|i| f64::from(i) / 50.0).collect();
    let rows =
        vec![SampleRow { allowed: 0, change_count: 0, draw_count: 50, temperature: 5.0, ..base }];
    let answer = run(
        &stream,
        &Request { vocab, logits: row, rows, uniforms, allowed, ..Request::default() },
    );
    assert!(answer.tokens.iter().all(|token| [5, 34, 65].contains(token)), "{:?}", answer.tokens);
    assert!([5, 34, 65].iter().all(|token| answer.tokens.contains(token)));
}

#[test]
fn rows_that_are_no_numbers_are_refused_and_others_are_not() {
    let stream = stream();
    let vocab = 600;
    let mut request = Request { vocab, uniforms: vec![0.5; 5], ..Request::default() };
    for (i, bad) in [f32::NAN, f32::INFINITY, 0.0, f32::NEG_INFINITY].into_iter().enumerate() {
        let mut row = logits(vocab, 8, 64.0);
        row[500] = bad;
        if i == 3 {
            row.fill(bad);
        }
        request.logits.extend(row);
        request.rows.push(SampleRow {
            row: i as u32,
            first_draw: i as u32,
            draw_count: 1,
            ..SampleRow::default()
        });
    }
    // Nothing is allowed.
    request.logits.extend(logits(vocab, 8, 64.0));
    request.allowed = vec![0; vocab.div_ceil(32)];
    request.rows.push(SampleRow {
        row: 4,
        first_draw: 4,
        draw_count: 1,
        allowed: 0,
        ..SampleRow::default()
    });
    request.rows.push(SampleRow::default());
    let answer = run(&stream, &request);
    let refused: Vec<bool> = answer.tokens.iter().map(|&token| token == NO_ROW).collect();
    assert_eq!(refused, [true, true, false, true, true]);
    let nan: Vec<bool> = answer.log_sums.iter().map(|x| x.is_nan()).collect();
    assert_eq!(
        nan,
        [true, true, false, true, false, true],
        "the last is an entry without work, not written"
    );
}

#[test]
fn whole_vocabularies() {
    let stream = stream();
    let vocabs: &[usize] = if is_fast(&stream) { &[49_152, 128_256, 151_552] } else { &[49_152] };
    for &vocab in vocabs {
        let mut request =
            Request { vocab, uniforms: vec![0.3, 0.6, 0.9], tops: 20, ..Request::default() };
        for (i, top_p) in [1.0, 0.95].into_iter().enumerate() {
            request.logits.extend(logits(vocab, i as u64, 4096.0));
            let top_logprobs = if i == 0 { 20 } else { 0 };
            request.rows.push(SampleRow {
                row: i as u32,
                first_draw: i as u32,
                draw_count: 2 - i as u32,
                top_p,
                top_logprobs,
                ..SampleRow::default()
            });
        }
        request.rows[1].first_draw = 2;
        let answer = run(&stream, &request);
        for (i, r) in request.rows.iter().enumerate() {
            let row = &request.logits[i * vocab..][..vocab];
            let weights = filtered(row, r);
            for draw in r.first_draw..r.first_draw + r.draw_count {
                assert_drawn(
                    &weights,
                    request.uniforms[draw as usize],
                    answer.tokens[draw as usize],
                    &format!("{r:?}"),
                );
            }
            if i == 0 {
                assert_eq!(answer.top_ids, best_first(row)[..20]);
            }
        }
    }
}
