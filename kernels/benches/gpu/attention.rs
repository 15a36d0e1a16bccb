//! Attention in the shapes of Llama-3.1-8B and GLM-4-9B: chunks of prompts, single tokens, shared prefixes.

use crate::measure::{Bench, Need};
use crate::planned::{Planned, PlannedAttention};
use half::bf16;
use kernels::gpu::{Buffer, Kv, KvShape, KvType, Plan, PlanSettings, Result, plan};
use kernels::kv::{BLOCK, VarLen};

#[derive(Clone, Copy)]
struct Model {
    name: &'static str,
    kv_heads: usize,
}

const Q_HEADS: usize = 32;
const HEAD_DIM: usize = 128;
const MODELS: [Model; 2] =
    [Model { name: "llama", kv_heads: 8 }, Model { name: "glm", kv_heads: 2 }];

pub fn run(bench: &mut Bench) -> Result<()> {
    for model in MODELS {
        for kv_type in [KvType::Bf16, KvType::E4m3] {
            if bench.tiny {
                measure(bench, model, kv_type, "tiny", &[(3, 20)], 0, true)?;
                continue;
            }
            for (rows, tokens) in
                [(4096, 4096), (8192, 8192), (4096, 32_768), (4096, 65_536), (512, 8192)]
            {
                let name = format!("prefill {rows} of {tokens}");
                measure(bench, model, kv_type, &name, &[(rows, tokens)], 0, true)?;
            }
            for (count, tokens) in
                [(1, 4096), (16, 4096), (64, 4096), (128, 4096), (1, 32_768), (1, 65_536)]
            {
                let name = format!("decode {count} at {tokens}");
                measure(bench, model, kv_type, &name, &vec![(1, tokens); count], 0, true)?;
            }
            for (count, prefix, own) in
                [(16, 32_768, 256), (64, 3072, 1024), (8, 256, 256), (4, 1024, 256)]
            {
                for share in [true, false] {
                    let name =
                        format!("decode {count} at {own} after {prefix} in common, shared {share}");
                    measure(
                        bench,
                        model,
                        kv_type,
                        &name,
                        &vec![(1, prefix + own); count],
                        prefix,
                        share,
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// Sequences as (new rows, tokens), the first `prefix` tokens of which are common; blocks in an order without pattern.
fn batch(seqs: &[(usize, usize)], prefix: usize) -> (VarLen, usize) {
    let shared = prefix / BLOCK;
    let blocks =
        shared + seqs.iter().map(|&(_, tokens)| tokens.div_ceil(BLOCK) - shared).sum::<usize>();
    let mut next = (0..blocks).map(|i| (i * 7919 % blocks) as u32);
    let common: Vec<u32> = next.by_ref().take(shared).collect();
    let mut out = VarLen { query_starts: vec![0], ..VarLen::default() };
    for &(rows, tokens) in seqs {
        let own = tokens.div_ceil(BLOCK) - shared;
        out.block_tables.push(common.iter().copied().chain(next.by_ref().take(own)).collect());
        out.kv_lens.push(tokens as u32);
        out.query_starts.push(out.query_starts[out.query_starts.len() - 1] + rows as u32);
    }
    (out, blocks)
}

/// Pairs of rows and positions, and positions that have to be read at least once.
fn counts(seqs: &[(usize, usize)], prefix: usize) -> (f64, f64) {
    let pairs =
        |&(rows, tokens): &(usize, usize)| (rows * (tokens - rows) + rows * (rows + 1) / 2) as f64;
    let own: usize = seqs.iter().map(|&(_, tokens)| tokens - prefix).sum();
    (seqs.iter().map(pairs).sum(), (own + prefix) as f64)
}

fn measure(
    bench: &mut Bench,
    model: Model,
    kv_type: KvType,
    name: &str,
    seqs: &[(usize, usize)],
    prefix: usize,
    share: bool,
) -> Result<()> {
    let gpu = bench.stream.gpu().clone();
    let (layout, blocks) = batch(seqs, prefix);
    let Model { name: model, kv_heads } = model;
    let number = if kv_type == KvType::Bf16 { 2 } else { 1 };
    let bytes = blocks * BLOCK * kv_heads * HEAD_DIM * 2 * number;
    // As many layers as no cache holds.
    let layers = if bench.tiny { 1 } else { ((256 << 20) / bytes + 1).min(16) };
    let kv = Kv::new(&gpu, KvShape { layers, blocks, kv_heads, head_dim: HEAD_DIM, kv_type })?;
    for layer in 0..layers {
        kv.layer(layer).write_noise(&bench.stream, layer as u64 + 1)?;
    }
    let rows: usize = seqs.iter().map(|&(rows, _)| rows).sum();
    let q_stride = (Q_HEADS + 2 * kv_heads) * HEAD_DIM;
    let q = bench.random(rows * q_stride)?;
    let out: Buffer<bf16> = gpu.alloc(rows * Q_HEADS * HEAD_DIM)?;
    let settings = PlanSettings {
        q_heads: Q_HEADS,
        kv_heads,
        head_dim: HEAD_DIM,
        kv_bytes: number,
        multiprocessors: gpu.properties()?.multiprocessors,
        max_parts: 8192,
        share,
        same_for_all_batches: false,
    };
    let started = std::time::Instant::now();
    let plan: Plan = plan(&layout, &settings);
    let planned = started.elapsed();
    let on_device = Planned::new(&bench.stream, &plan, Q_HEADS, HEAD_DIM)?;
    let (pairs, read) = counts(seqs, prefix);
    let need = Need {
        operations: 4.0 * pairs * (Q_HEADS * HEAD_DIM) as f64,
        bytes: read * (kv_heads * HEAD_DIM * 2 * number) as f64
            + 4.0 * (rows * Q_HEADS * HEAD_DIM) as f64,
    };
    let line = format!("attention {model} {kv_type:?}: {name}");
    bench.line(&line, need, &mut |stream, turn| {
        let layer = kv.layer(turn % layers);
        let scale = 1.0 / (HEAD_DIM as f32).sqrt();
        let args =
            PlannedAttention { q: &q, q_stride, q_heads: Q_HEADS, kv: &layer, out: &out, scale };
        on_device.run(stream, &args)
    })?;
    if std::env::var_os("GPU_BENCH_PLANS").is_some() {
        let tasks = plan.tasks.each_ref().map(Vec::len);
        println!("    tasks {tasks:?}, parts {}, planned in {planned:?}", plan.parts);
    }
    Ok(())
}
