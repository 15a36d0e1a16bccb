//! Everything but attention, in the shapes of Llama-3.1-8B and GLM-4-9B.

use crate::measure::{Bench, Need};
use half::bf16;
use kernels::gpu::{
    Buffer, Gather, Gemm, Kv, KvShape, KvType, NARROW_ROWS, Norm, Numbers, Output, Result, Rope,
    RopeTables, Sample, SampleRow, Swiglu, gather, gemm, norm, rope, sample, swiglu,
};
use kernels::rope::RopeStyle;

pub fn run(bench: &mut Bench) -> Result<()> {
    let rows = if bench.tiny { vec![2] } else { vec![1, 4, 8, 16, 32, 64, 128, 4096, 8192] };
    products(bench, &rows)?;
    for &rows in &rows {
        elementwise(bench, rows)?;
    }
    sampling(bench)
}

fn products(bench: &mut Bench, rows: &[usize]) -> Result<()> {
    let shapes: &[(&str, usize, usize)] = if bench.tiny {
        &[("tiny", 64, 64)]
    } else {
        &[
            ("llama qkv", 6144, 4096),
            ("llama o", 4096, 4096),
            ("llama gate_up", 28_672, 4096),
            ("llama down", 4096, 14_336),
            ("llama head", 128_256, 4096),
            ("glm qkv", 4608, 4096),
            ("glm gate_up", 27_392, 4096),
            ("glm down", 4096, 13_696),
        ]
    };
    for &(name, n, k) in shapes {
        // Several copies, so that weights come from memory as in a model.
        let copies = if bench.tiny { 1 } else { (256 << 20) / (2 * n * k) + 1 };
        let weights: Vec<Output> =
            (0..copies).map(|_| bench.random(n * k).map(Output::Bf16)).collect::<Result<_>>()?;
        for &m in rows.iter().filter(|&&m| n < 100_000 || m <= 128) {
            let x = Output::Bf16(bench.random(m * k)?);
            let out = Numbers::Bf16(bench.stream.gpu().alloc(m * n)?);
            let need = Need {
                operations: 2.0 * (m * n * k) as f64,
                bytes: 2.0 * (n * k + m * k + m * n) as f64,
            };
            for (which, same_for_all_m, narrow) in
                [("", false, false), (", same for all m", true, false), (", narrow", false, true)]
            {
                if narrow && m > NARROW_ROWS {
                    continue;
                }
                bench.line(
                    &format!("product {name} [{m}, {k}] x {n}{which}"),
                    need,
                    &mut |stream, turn| {
                        let w = &weights[turn % copies];
                        let (x, out) = (&x, &out);
                        gemm(
                            stream,
                            &Gemm { x, w, bias: None, out, m, n, k, same_for_all_m, narrow },
                        )
                    },
                )?;
            }
        }
    }
    Ok(())
}

fn elementwise(bench: &mut Bench, rows: usize) -> Result<()> {
    let (hidden, width) = if bench.tiny { (64, 64) } else { (4096, 14_336) };
    let gpu = bench.stream.gpu().clone();
    let x = bench.random(rows * hidden)?;
    let weight: Buffer<f32> = gpu.alloc(hidden)?;
    let out = Output::Bf16(gpu.alloc(rows * hidden)?);
    let quantised = Output::E4m3 { values: gpu.alloc(rows * hidden)?, scales: gpu.alloc(rows)? };
    let narrow = Numbers::Bf16(bench.random(rows * hidden)?);
    let wide = Numbers::F32(gpu.alloc(rows * hidden)?);
    let numbers = (rows * hidden) as f64;
    for (name, residual, out, bytes) in [
        ("bf16", &narrow, &out, 8.0),
        ("f32 residual", &wide, &out, 12.0),
        ("to e4m3", &narrow, &quantised, 7.0),
    ] {
        let need = Need { operations: 0.0, bytes: bytes * numbers };
        bench.line(
            &format!("residual and norm, {name} [{rows}, {hidden}]"),
            need,
            &mut |stream, _| {
                let args = Norm {
                    x: Some(&x),
                    post_weight: None,
                    residual,
                    weight: &weight,
                    out,
                    rows,
                    hidden,
                    eps: 1e-5,
                };
                norm(stream, &args)
            },
        )?;
    }
    let gate_up = bench.random(2 * rows * width)?;
    let out = Output::Bf16(gpu.alloc(rows * width)?);
    let need = Need { operations: 0.0, bytes: 6.0 * (rows * width) as f64 };
    bench.line(&format!("swiglu [{rows}, {width}]"), need, &mut |stream, _| {
        swiglu(stream, &Swiglu { gate_up: &gate_up, out: &out, rows, width })
    })?;
    rotary(bench, rows)?;
    embedding(bench, rows, hidden)
}

fn rotary(bench: &mut Bench, rows: usize) -> Result<()> {
    let gpu = bench.stream.gpu().clone();
    for (name, q_heads, kv_heads, rotated, style) in
        [("llama", 32, 8, 128, RopeStyle::HalfSplit), ("glm", 32, 2, 64, RopeStyle::Interleaved)]
    {
        for kv_type in [KvType::Bf16, KvType::E4m3] {
            let head_dim = 128;
            let qkv = bench.random(rows * (q_heads + 2 * kv_heads) * head_dim)?;
            let kv = Kv::new(
                &gpu,
                KvShape { layers: 1, blocks: rows.div_ceil(16), kv_heads, head_dim, kv_type },
            )?;
            let numbers: Vec<u32> = (0..rows as u32).collect();
            let positions = bench.stream.buffer_of(&numbers)?;
            let table = || gpu.alloc(rows * rotated / 2);
            let tables = RopeTables { cos: table()?, sin: table()?, rotated, style };
            let layer = kv.layer(0);
            let moved = 4 * q_heads + if kv_type == KvType::Bf16 { 8 } else { 6 } * kv_heads;
            let need = Need { operations: 0.0, bytes: (moved * rows * head_dim) as f64 };
            bench.line(
                &format!("rope and kv, {name}, {kv_type:?} [{rows}]"),
                need,
                &mut |stream, _| {
                    let args = Rope {
                        qkv: &qkv,
                        bias: None,
                        head_norms: None,
                        positions: &positions,
                        slots: &positions,
                        tables: &tables,
                        kv: &layer,
                        rows,
                        q_heads,
                    };
                    rope(stream, &args)
                },
            )?;
        }
    }
    Ok(())
}

fn embedding(bench: &mut Bench, rows: usize, width: usize) -> Result<()> {
    let table_rows = if bench.tiny { 64 } else { 128_256 };
    let table = Numbers::Bf16(bench.random(table_rows * width)?);
    let ids: Vec<u32> = (0..rows).map(|i| (i * 7919 % table_rows) as u32).collect();
    let ids = bench.stream.buffer_of(&ids)?;
    let out: Buffer<bf16> = bench.stream.gpu().alloc(rows * width)?;
    let out = Numbers::Bf16(out);
    let need = Need { operations: 0.0, bytes: 4.0 * (rows * width) as f64 };
    bench.line(&format!("embedding [{rows}, {width}]"), need, &mut |stream, _| {
        gather(stream, &Gather { table: &table, ids: &ids, out: &out, rows, width, table_rows })
    })
}

fn sampling(bench: &mut Bench) -> Result<()> {
    let vocab = if bench.tiny { 2000 } else { 128_256 };
    let base = SampleRow { draw_count: 1, ..SampleRow::default() };
    let cases = [
        ("greedy", SampleRow { temperature: 0.0, ..base }),
        ("temperature", base),
        ("top-k 50", SampleRow { top_k: 50, ..base }),
        ("top-p 0.95", SampleRow { top_p: 0.95, ..base }),
        ("min-p 0.05", SampleRow { min_p: 0.05, ..base }),
        ("20 log-probabilities", SampleRow { top_logprobs: 20, ..base }),
    ];
    for rows in if bench.tiny { vec![1] } else { vec![1, 16, 128] } {
        for (name, case) in cases {
            // Like a model's: most far below the likeliest.
            let logits: Vec<f32> = (0..rows * vocab)
                .map(|i| {
                    let u = (i as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32;
                    -(u.max(1e-6).ln()) * 1.5 - 3.0
                })
                .collect();
            let logits = bench.stream.buffer_of(&logits)?;
            let row = |i: usize| SampleRow {
                row: i as u32,
                first_draw: i as u32,
                first_top: 20 * i as u32,
                ..case
            };
            let entries: Vec<SampleRow> = (0..rows).map(row).collect();
            let gpu = bench.stream.gpu().clone();
            let args = Sample {
                logits: &logits,
                rows: &bench.stream.buffer_of(&entries)?,
                uniforms: &bench.stream.buffer_of(&vec![0.5f64; rows])?,
                changes: &gpu.alloc(0)?,
                originals: &gpu.alloc(0)?,
                allowed: &gpu.alloc(0)?,
                score_ids: &gpu.alloc(0)?,
                tokens: &gpu.alloc(rows)?,
                logprobs: &gpu.alloc(rows)?,
                scores: &gpu.alloc(0)?,
                log_sums: &gpu.alloc(rows)?,
                top_ids: &gpu.alloc(20 * rows)?,
                top_logprobs: &gpu.alloc(20 * rows)?,
                max_rows: rows,
                vocab,
            };
            let need = Need { operations: 0.0, bytes: 4.0 * (rows * vocab) as f64 };
            bench.line(
                &format!("sampling, {name} [{rows}, {vocab}]"),
                need,
                &mut |stream, _| sample(stream, &args),
            )?;
        }
    }
    Ok(())
}
