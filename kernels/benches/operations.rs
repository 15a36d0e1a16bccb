//! Prints how fast each operation runs on this machine: `cargo bench -p kernels`, or parts of it by name:
//! `cargo bench -p kernels --bench operations -- cold-attention`.
//!
//! Rates are the median of several runs. Nothing here decides a test.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Result, Tensor};
use kernels::attention::{Heads, PagedAttention, Workspace};
use kernels::kv::{BLOCK, KvDtype, KvLayer, KvShape, VarLen};
use kernels::linear::{self, Input, Linear};
use kernels::{Arena, Matrix, wide_awake};
use std::time::Instant;

/// Seconds of one call: the median of runs that fill a fifth of a second, at least five.
fn seconds(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 5 || start.elapsed().as_secs_f64() < 0.2 {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn randn(shape: &[usize]) -> Result<Tensor> {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu)
}

fn random(rows: usize, columns: usize) -> Result<Matrix> {
    Matrix::from_tensor(&randn(&[rows, columns])?)
}

fn products() -> Result<()> {
    println!("\nlinear, GFLOP/s            M = 1       4      16      64     512");
    for (n, k) in [(1536, 576), (576, 1536), (4096, 4096)] {
        let w = randn(&[n, k])?;
        let arena = &mut Arena::huge_pages()?;
        let mut layers = vec![
            ("f32".to_string(), Linear::from_tensor_in(&w, arena)?),
            ("bf16".to_string(), Linear::from_tensor_in(&w.to_dtype(DType::BF16)?, arena)?),
        ];
        for dtype in [GgmlDType::Q4_1, GgmlDType::Q8_0, GgmlDType::Q4K, GgmlDType::Q6K] {
            if k % dtype.block_size() == 0 {
                let w = QTensor::quantize(&w, dtype)?;
                layers.push((format!("{dtype:?}"), Linear::from_quantized_in(&w, arena)?));
            }
        }
        for (name, layer) in &layers {
            print!("N {n:5} K {k:5} {name:>6}");
            for m in [1, 4, 16, 64, 512] {
                let (x, mut work, mut y) = (random(m, k)?, Default::default(), Matrix::default());
                let s = seconds(|| layer.multiply(Input::Rows(x.view()), &mut work, &mut y))?;
                print!("{:8.1}", 2.0 * (m * n * k) as f64 / s / 1e9);
            }
            println!();
        }
    }
    Ok(())
}

/// Products of one row with more weights than any cache holds, which is what decoding one sequence
/// does: those of thirty layers of SmolLM2-135M, and of a part of a layer of an 8B model.
fn cold_products() -> Result<()> {
    println!("\nlinear, M = 1, matrices in turn    us per product   GB/s");
    let small: Vec<_> = [(960, 576), (576, 576), (3072, 576), (576, 1536)].repeat(30);
    for dtype in [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q8_0] {
        cold(dtype, "30 layers of 135M", &small)?;
    }
    for dtype in [GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::Q8_0] {
        cold(dtype, "4096 x 4096", &[(4096, 4096); 8])?;
    }
    Ok(())
}

fn cold(dtype: GgmlDType, name: &str, shapes: &[(usize, usize)]) -> Result<()> {
    let arena = &mut Arena::huge_pages()?;
    let layer = |&(n, k): &(usize, usize)| {
        let w = QTensor::quantize(&randn(&[n, k])?, dtype)?;
        Ok((Linear::from_quantized_in(&w, arena)?, random(1, k)?))
    };
    let layers = shapes.iter().map(layer).collect::<Result<Vec<_>>>()?;
    let bytes: usize = layers.iter().map(|(layer, _)| layer.bytes()).sum();
    let (mut work, mut y) = (linear::Workspace::default(), Matrix::default());
    let mut product =
        |(layer, x): &(Linear, Matrix)| layer.multiply(Input::Rows(x.view()), &mut work, &mut y);
    let mut all = || layers.iter().try_for_each(&mut product);
    for (threads, s) in [("", seconds(&mut all)?), ("awake", seconds(|| wide_awake(&mut all))?)] {
        let (per_product, rate) = (s * 1e6 / layers.len() as f64, bytes as f64 / s / 1e9);
        println!("{:5} {name:18} {threads:6} {per_product:8.1} {rate:8.1}", format!("{dtype:?}"));
    }
    Ok(())
}

/// Those of SmolLM2-135M.
const HEADS: Heads = Heads { q: 9, kv: 3, size: 64 };

fn kv_shape(blocks: usize, dtype: KvDtype) -> KvShape {
    KvShape { blocks, kv_heads: HEADS.kv, head_dim: HEADS.size, dtype }
}

/// `sequences` with `len` tokens each, the last `rows` of them new; with `shared`, all but the
/// last block in common.
fn attention(
    dtype: KvDtype,
    (sequences, len, rows, shared): (usize, usize, usize, bool),
) -> Result<f64> {
    let held = len.div_ceil(BLOCK);
    let shape = kv_shape(sequences * held, dtype);
    let mut kv = KvLayer::new(shape, &Device::Cpu, &mut Arena::huge_pages()?)?;
    // Memory that was never written is one page of zeros, which would be read at cache speed.
    let slots: Vec<u32> = (0..(sequences * held * BLOCK) as u32).collect();
    kv.store(random(slots.len(), 2 * HEADS.kv * HEADS.size)?.view(), &slots)?;
    let mut seqs = VarLen { query_starts: vec![0], ..VarLen::default() };
    for s in 0..sequences {
        let mut table: Vec<u32> = (0..held).map(|b| (s * held + b) as u32).collect();
        if shared {
            (0..held - 1).for_each(|b| table[b] = b as u32);
        }
        for p in len - rows..len {
            seqs.positions.push(p as u32);
            seqs.slots.push(table[p / BLOCK] * BLOCK as u32 + (p % BLOCK) as u32);
        }
        seqs.query_starts.push(seqs.slots.len() as u32);
        seqs.kv_lens.push(len as u32);
        seqs.block_tables.push(table);
    }
    let (q, mut out) = (random(sequences * rows, HEADS.q * HEADS.size)?, Matrix::default());
    let mut work = Workspace::default();
    let mut attention = PagedAttention::plan(&seqs, HEADS, shape.blocks, &mut work)?;
    seconds(|| attention.run(q.view(), &kv, 0.125, &mut out))
}

/// Decoding one token of one sequence: thirty layers in turn, which no cache holds, as in a step.
fn cold_attention(len: usize) -> Result<()> {
    let (layers, blocks) = (30, len.div_ceil(BLOCK));
    let shape = kv_shape(blocks, KvDtype::F16);
    let arena = &mut Arena::huge_pages()?;
    let slots: Vec<u32> = (0..(blocks * BLOCK) as u32).collect();
    let filled = random(slots.len(), 2 * HEADS.kv * HEADS.size)?;
    let layer = |_| {
        let mut layer = KvLayer::new(shape, &Device::Cpu, arena)?;
        layer.store(filled.view(), &slots)?;
        Ok(layer)
    };
    let kv = (0..layers).map(layer).collect::<Result<Vec<_>>>()?;
    let seqs = VarLen {
        positions: vec![len as u32 - 1],
        slots: vec![len as u32 - 1],
        query_starts: vec![0, 1],
        kv_lens: vec![len as u32],
        block_tables: vec![(0..blocks as u32).collect()],
    };
    let (q, mut out) = (random(1, HEADS.q * HEADS.size)?, Matrix::default());
    let mut work = Workspace::default();
    let mut attention = PagedAttention::plan(&seqs, HEADS, blocks, &mut work)?;
    let mut all = || kv.iter().try_for_each(|kv| attention.run(q.view(), kv, 0.125, &mut out));
    let s = seconds(|| wide_awake(&mut all))?;
    let bytes = layers * len * HEADS.kv * HEADS.size * 2 * 2;
    let (per_layer, rate) = (s * 1e6 / layers as f64, bytes as f64 / s / 1e9);
    println!("{len:8} {per_layer:10.1} {rate:8.1}");
    Ok(())
}

fn cold_attentions() -> Result<()> {
    println!(
        "\nattention, 1 token, 9/3 heads × 64, f16, 30 layers in turn\n     len   us/layer     GB/s"
    );
    [512, 1024, 2048, 4096, 16_384].into_iter().try_for_each(cold_attention)
}

fn attentions() -> Result<()> {
    println!("\nattention, 9/3 heads × 64     ms per layer and GFLOP/s (causal), KV in f32 | f16");
    for (name, sequences, len, rows, shared) in [
        ("prefill 512 of 512", 1, 512, 512, false),
        ("prefill 512 of 2048", 1, 2048, 512, false),
        ("prefill 512 of 8192", 1, 8192, 512, false),
        ("decode 1 at 4096", 1, 4096, 1, false),
        ("decode 16 at 4096", 16, 4096, 1, false),
        ("decode 64 at 4096", 64, 4096, 1, false),
        ("decode 64 at 4096, shared", 64, 4096, 1, true),
    ] {
        let scores = sequences * rows * (2 * len - rows) / 2;
        let flop = (4 * 9 * 64 * scores) as f64;
        print!("{name:26}");
        for dtype in [KvDtype::F32, KvDtype::F16] {
            let s = attention(dtype, (sequences, len, rows, shared))?;
            print!(" {:10.3} {:8.1}", s * 1e3, flop / s / 1e9);
        }
        println!();
    }
    Ok(())
}

/// A name to ask for it, and what prints it.
type Part = (&'static str, fn() -> Result<()>);

fn main() -> Result<()> {
    println!("{} threads, {}", rayon::current_num_threads(), kernels::instruction_set());
    let peak = kernels::peak::measure();
    println!(
        "at most {:.0} GFLOP/s of f32, {:.0} Gop/s of 8-bit integers, {:.1} GB/s read",
        peak.f32_gflops, peak.int8_gops, peak.read_gb
    );
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let parts: [Part; 4] = [
        ("cold-products", cold_products),
        ("products", products),
        ("cold-attention", cold_attentions),
        ("attention", attentions),
    ];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            part()?;
        }
    }
    Ok(())
}
