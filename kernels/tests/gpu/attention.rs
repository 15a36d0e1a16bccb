//! Attention in all its forms against a naive one in f64.

use crate::harness::{assert_close, is_fast, noise_bf16, poisoned, stream, widen};
use crate::planned::{Planned, PlannedAttention};
use half::bf16;
use kernels::gpu::{Buffer, Kv, KvShape, KvType, Plan, PlanSettings, Stream, plan};
use kernels::kv::{BLOCK, VarLen};

#[derive(Clone, Copy)]
struct Heads {
    q: usize,
    kv: usize,
    dim: usize,
}

const LLAMA: Heads = Heads { q: 8, kv: 2, dim: 128 };
const GLM: Heads = Heads { q: 16, kv: 1, dim: 128 };
const SMOL: Heads = Heads { q: 9, kv: 3, dim: 64 };
const PLAIN: Heads = Heads { q: 2, kv: 2, dim: 64 };

/// Sequences as (new rows, tokens), with tables of shuffled blocks; those with the same `Some(prefix)` begin with the same
/// blocks.
fn batch(seqs: &[(usize, usize)], shared_blocks: usize, blocks: usize) -> VarLen {
    let mut out = VarLen { query_starts: vec![0], ..VarLen::default() };
    // 7919 is prime, so that this passes through all blocks in an order of no pattern.
    assert!(!blocks.is_multiple_of(7919));
    let mut next = (0..blocks).map(|i| ((i * 7919 + 3) % blocks) as u32);
    let prefix: Vec<u32> = next.by_ref().take(shared_blocks).collect();
    for &(rows, tokens) in seqs {
        let count = tokens.div_ceil(BLOCK);
        let mut table: Vec<u32> = prefix.iter().copied().take((tokens - rows) / BLOCK).collect();
        let rest = count - table.len();
        table.extend(next.by_ref().take(rest));
        assert_eq!(table.len(), count, "too few blocks for the test");
        out.query_starts.push(out.query_starts.last().unwrap() + rows as u32);
        out.kv_lens.push(tokens as u32);
        out.positions.extend((tokens - rows..tokens).map(|p| p as u32));
        out.slots.extend(
            (tokens - rows..tokens).map(|p| table[p / BLOCK] * BLOCK as u32 + (p % BLOCK) as u32),
        );
        out.block_tables.push(table);
    }
    out
}

/// Row `row` of the result for the sequences' own keys.
fn reference(q: &[f32], keys: &[f32], values: &[f32], seqs: &VarLen, heads: Heads) -> Vec<f32> {
    let Heads { q: q_heads, kv, dim } = heads;
    let mut out = vec![0f32; seqs.rows() * q_heads * dim];
    let scale = 1.0 / (dim as f64).sqrt();
    for s in 0..seqs.kv_lens.len() {
        let rows = seqs.query_starts[s] as usize..seqs.query_starts[s + 1] as usize;
        let before = seqs.kv_lens[s] as usize - rows.len();
        for (i, row) in rows.enumerate() {
            for head in 0..q_heads {
                let place = |p: usize| {
                    let block = seqs.block_tables[s][p / BLOCK] as usize;
                    ((block * kv + head / (q_heads / kv)) * BLOCK + p % BLOCK) * dim
                };
                let q = &q[(row * q_heads + head) * dim..][..dim];
                let dot = |p: usize| -> f64 {
                    let k = &keys[place(p)..][..dim];
                    q.iter().zip(k).map(|(q, k)| f64::from(q * k)).sum::<f64>() * scale
                };
                let scores: Vec<f64> = (0..=before + i).map(dot).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|x| (x - max).exp()).sum();
                let mut sums = vec![0f64; dim];
                for (p, score) in scores.iter().enumerate() {
                    let weight = (score - max).exp() / total;
                    sums.iter_mut()
                        .zip(&values[place(p)..][..dim])
                        .for_each(|(s, v)| *s += weight * f64::from(*v));
                }
                let to = &mut out[(row * q_heads + head) * dim..][..dim];
                to.iter_mut().zip(sums).for_each(|(t, s)| *t = s as f32);
            }
        }
    }
    out
}

/// A pool of noise, of which whatever no sequence of the batch has is poisoned.
fn pool(stream: &Stream, seqs: &VarLen, heads: Heads, blocks: usize, kv_type: KvType) -> Kv {
    let shape = KvShape { layers: 1, blocks, kv_heads: heads.kv, head_dim: heads.dim, kv_type };
    let pool = Kv::new(stream.gpu(), shape).unwrap();
    pool.layer(0).write_noise(stream, 77).unwrap();
    let mut used = vec![0; blocks];
    for (table, &len) in seqs.block_tables.iter().zip(&seqs.kv_lens) {
        for (i, &block) in table.iter().enumerate() {
            used[block as usize] = used[block as usize].max((len as usize - i * BLOCK).min(BLOCK));
        }
    }
    pool.layer(0).poison_unused(stream, &used).unwrap();
    pool
}

struct Case<'a> {
    heads: Heads,
    seqs: &'a VarLen,
    blocks: usize,
    kv_type: KvType,
}

fn settings(heads: Heads) -> PlanSettings {
    PlanSettings {
        q_heads: heads.q,
        kv_heads: heads.kv,
        head_dim: heads.dim,
        kv_bytes: 2,
        multiprocessors: 4,
        max_parts: 2000,
        share: false,
        same_for_all_batches: false,
    }
}

fn run(stream: &Stream, case: &Case, q: &[bf16], pool: &Kv, plan: &Plan) -> Vec<f32> {
    let Heads { q: q_heads, kv, dim } = case.heads;
    // As after the product that makes q, k and v: rows have k and v behind q, here poison.
    let width = (q_heads + 2 * kv) * dim;
    let mut rows = vec![bf16::NAN; case.seqs.rows() * width];
    for (row, q) in rows.chunks_mut(width).zip(q.chunks(q_heads * dim)) {
        row[..q.len()].copy_from_slice(q);
    }
    let q = stream.buffer_of(&rows).unwrap();
    let out: Buffer<bf16> = poisoned(stream, case.seqs.rows() * q_heads * dim);
    let layer = pool.layer(0);
    let scale = 1.0 / (dim as f32).sqrt();
    let args = PlannedAttention { q: &q, q_stride: width, q_heads, kv: &layer, out: &out, scale };
    Planned::new(stream, plan, q_heads, dim).unwrap().run(stream, &args).unwrap();
    widen(&stream.read(&out).unwrap())
}

/// Rounding of probabilities, of the result, and of sums of values that cancel.
const TOLERANCE: f32 = 1.0 / 80.0;

fn check(case: &Case, share: bool) -> Plan {
    check_scores(case, share, 2.0)
}

/// With queries up to `magnitude`.
fn check_scores(case: &Case, share: bool, magnitude: f32) -> Plan {
    let stream = stream();
    let numbers = case.seqs.rows() * case.heads.q * case.heads.dim;
    let (q, q_wide) = noise_bf16(numbers, 5, magnitude);
    let pool = pool(&stream, case.seqs, case.heads, case.blocks, case.kv_type);
    let (keys, values) = pool.layer(0).read(&stream).unwrap();
    let want = reference(&q_wide, &keys, &values, case.seqs, case.heads);
    let plan = plan(case.seqs, &PlanSettings { share, ..settings(case.heads) });
    let got = run(&stream, case, &q, &pool, &plan);
    assert_close(&got, &want, TOLERANCE);
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>()
    };
    let error: Vec<f32> = got.iter().zip(&want).map(|(g, w)| g - w).collect();
    let relative = (dot(&error, &error) / dot(&want, &want)).sqrt();
    assert!(relative < 6e-3, "{relative}");
    plan
}

#[test]
fn prompts_of_any_length() {
    for heads in [LLAMA, GLM, SMOL, PLAIN] {
        for kv_type in [KvType::Bf16, KvType::E4m3] {
            let seqs = batch(&[(1, 1), (5, 5), (70, 70), (33, 33), (130, 130)], 0, 40);
            check(&Case { heads, seqs: &seqs, blocks: 40, kv_type }, false);
        }
    }
}

/// Scores of real models reach hundreds, and nearly all weight may lie on one position.
#[test]
fn large_scores() {
    for heads in [LLAMA, SMOL] {
        let seqs = batch(&[(256, 256), (128, 383), (1, 500)], 0, 80);
        check_scores(&Case { heads, seqs: &seqs, blocks: 80, kv_type: KvType::Bf16 }, false, 200.0);
    }
}

/// Cuts between tasks are multiples of 64, which no tile has to end with.
#[test]
fn chunks_cut_anywhere() {
    for heads in [LLAMA, GLM, SMOL] {
        for kv_type in [KvType::Bf16, KvType::E4m3] {
            for (rows, tokens) in [(42, 300), (128, 383), (43, 384), (100, 400), (16, 513)] {
                let seqs = batch(&[(rows, tokens)], 0, 40);
                check(&Case { heads, seqs: &seqs, blocks: 40, kv_type }, false);
            }
        }
    }
}

/// Blocks of threads then take several, and what they keep of one must not reach the next.
#[test]
fn more_tasks_than_blocks_of_threads() {
    let stream = stream();
    let prompts = if is_fast(&stream) { 600 } else { 30 };
    for heads in [LLAMA, SMOL] {
        let lens: Vec<_> = (0..prompts).map(|i| (20 + i % 50, 20 + 37 * i % 200)).collect();
        let lens: Vec<_> = lens.into_iter().map(|(rows, len)| (rows, len.max(rows))).collect();
        let blocks = lens.iter().map(|(_, len)| len / BLOCK + 1).sum();
        let seqs = batch(&lens, 0, blocks);
        let plan = check(&Case { heads, seqs: &seqs, blocks, kv_type: KvType::Bf16 }, false);
        let tasks = plan.tasks.iter().flatten().count() * heads.kv;
        let multiprocessors = stream.gpu().properties().unwrap().multiprocessors;
        assert!(tasks > 16 * multiprocessors, "{tasks} tasks");
    }
}

#[test]
fn chunks_behind_cached_tokens() {
    for heads in [LLAMA, SMOL] {
        let seqs = batch(&[(40, 300), (3, 64), (100, 129), (17, 1000)], 0, 120);
        let case = Case { heads, seqs: &seqs, blocks: 120, kv_type: KvType::Bf16 };
        check(&case, false);
    }
}

#[test]
fn single_tokens_at_any_length() {
    for heads in [LLAMA, GLM, SMOL, PLAIN] {
        for kv_type in [KvType::Bf16, KvType::E4m3] {
            let lens = [1, 2, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1025, 2000];
            let seqs = batch(&lens.map(|len| (1, len)), 0, 400);
            let plan = check(&Case { heads, seqs: &seqs, blocks: 400, kv_type }, false);
            assert!(plan.parts > 0, "the longest are cut");
        }
    }
}

#[test]
fn shared_prefixes_give_the_same() {
    for (heads, kv_type) in [(LLAMA, KvType::Bf16), (GLM, KvType::Bf16), (SMOL, KvType::E4m3)] {
        let lens: Vec<_> = (0..12).map(|i| (1 + i % 2, 1024 + 20 + 7 * i)).collect();
        let seqs = batch(&lens, 64, 400);
        let plan = check(&Case { heads, seqs: &seqs, blocks: 400, kv_type }, true);
        let stacked = plan.tasks.iter().flatten().map(|task| task.query_count).max();
        assert!(stacked > Some(2), "something is shared: {stacked:?}");
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_and_chunk() {
    let stream = stream();
    for heads in [LLAMA, SMOL] {
        let settings = PlanSettings { same_for_all_batches: true, ..settings(heads) };
        let seqs = batch(&[(150, 150), (1, 400), (40, 90)], 0, 60);
        let case = Case { heads, seqs: &seqs, blocks: 60, kv_type: KvType::Bf16 };
        let width = heads.q * heads.dim;
        // Scores of some size: where a tile is nothing to a row, rounding of its maximum's product would show.
        let (q, _) = noise_bf16(seqs.rows() * width, 9, 20.0);
        let pool = pool(&stream, &seqs, heads, 60, KvType::Bf16);
        let all = run(&stream, &case, &q, &pool, &plan(&seqs, &settings));
        // Some rows of the first sequence alone: its last ones, and chunks in which rows that see one tile of keys stand
        // beside others that see two.
        let chunks = (0..32).step_by(3).map(|begin| (begin, 131));
        for (begin, end) in [(147, 150), (149, 150), (3, 4)].into_iter().chain(chunks) {
            let table = seqs.block_tables[0].clone();
            let rows = begin as usize..end as usize;
            let alone = VarLen {
                positions: (begin..end).collect(),
                slots: seqs.slots[rows.clone()].to_vec(),
                query_starts: vec![0, end - begin],
                kv_lens: vec![end],
                block_tables: vec![table],
            };
            let case = Case { seqs: &alone, ..case };
            let numbers = rows.start * width..rows.end * width;
            let got = run(&stream, &case, &q[numbers.clone()], &pool, &plan(&alone, &settings));
            let other = got.iter().zip(&all[numbers]).filter(|(a, b)| a != b).count();
            assert_eq!(other, 0, "numbers of rows {rows:?}");
        }
    }
}

#[test]
fn long_contexts() {
    let lens = if is_fast(&stream()) {
        vec![(1, 64_000), (100, 64_000), (1, 63_999)]
    } else {
        vec![(1, 5000), (4, 3000)]
    };
    let blocks = lens.iter().map(|x| x.1 / BLOCK + 2).sum();
    let seqs = batch(&lens, 0, blocks);
    check(&Case { heads: LLAMA, seqs: &seqs, blocks, kv_type: KvType::Bf16 }, false);
}

#[test]
fn heads_that_are_not_supported_are_refused() {
    let heads = Heads { q: 1, kv: 1, dim: 32 };
    let seqs = batch(&[(1, 3)], 0, 4);
    let stream = stream();
    let pool = pool(&stream, &seqs, heads, 4, KvType::Bf16);
    let plan = plan(&seqs, &settings(heads));
    let planned = Planned::new(&stream, &plan, 1, 32).unwrap();
    let q: Buffer<bf16> = stream.gpu().alloc(96).unwrap();
    let args = PlannedAttention {
        q: &q,
        q_stride: 96,
        q_heads: 1,
        kv: &pool.layer(0),
        out: &q,
        scale: 1.0,
    };
    let error = planned.run(&stream, &args).unwrap_err().to_string();
    assert!(error.contains("32 columns"), "{error}");
}
