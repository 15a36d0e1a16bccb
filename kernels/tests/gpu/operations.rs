//! Norm, rotary embedding, gate, gather, copies, products.

use crate::harness::{BF16, assert_close, noise, noise_bf16, poisoned, stream, widen};
use half::bf16;
use kernels::gpu::{
    Buffer, Gather, Gemm, HeadNorms, Kv, KvShape, KvType, NARROW_ROWS, NO_SLOT, Norm, Numbers,
    Output, Rope, RopeTables, Stream, Swiglu, gather, gemm, norm, rope, swiglu,
};
use kernels::kv::BLOCK;
use kernels::rope::RopeStyle;

fn rms(row: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / row.len() as f64;
    let factor = 1.0 / (mean + f64::from(eps)).sqrt();
    row.iter().zip(weight).map(|(&x, &w)| (f64::from(x) * factor * f64::from(w)) as f32).collect()
}

fn output(stream: &Stream, len: usize) -> (Output, Buffer<bf16>) {
    let buffer: Buffer<bf16> = poisoned(stream, len);
    (Output::Bf16(buffer.clone()), buffer)
}

/// Values that e4m3 numbers and factors stand for.
fn values_of(stream: &Stream, values: &Buffer<u8>, scales: &Buffer<f32>, width: usize) -> Vec<f32> {
    let scales = stream.read(scales).unwrap();
    let values = stream.read(values).unwrap();
    values.iter().enumerate().map(|(i, &byte)| e4m3(byte) * scales[i / width]).collect()
}

fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    assert!(byte & 0x7F != 0x7F, "a NaN");
    let magnitude = if exponent == 0 {
        mantissa / 512.0
    } else {
        (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7)
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[test]
fn norm_equals_the_reference() {
    let stream = stream();
    for (case, (rows, hidden)) in
        [(1, 8), (3, 64), (2, 576), (5, 4096), (1, 4104), (2, 16_384)].into_iter().enumerate()
    {
        for (adds, has_post, wide) in [
            (false, false, false),
            (true, false, false),
            (true, false, true),
            (true, true, true),
            (true, true, false),
        ] {
            let seed = case as u64 + 1;
            let (x, x_wide) = noise_bf16(rows * hidden, seed, 3.0);
            let (r, r_wide) = noise_bf16(rows * hidden, seed + 100, 40.0);
            let (weight, post) = (noise(hidden, seed + 200, 2.0), noise(hidden, seed + 300, 2.0));
            let residual = if wide {
                Numbers::F32(stream.buffer_of(&r_wide).unwrap())
            } else {
                Numbers::Bf16(stream.buffer_of(&r).unwrap())
            };
            let x = stream.buffer_of(&x).unwrap();
            let (weight_there, post_there) =
                (stream.buffer_of(&weight).unwrap(), stream.buffer_of(&post).unwrap());
            let (out, buffer) = output(&stream, rows * hidden);
            let (eps, adds_x) = (1e-5, adds.then_some(&x));
            let post_weight = has_post.then_some(&post_there);
            norm(
                &stream,
                &Norm {
                    x: adds_x,
                    post_weight,
                    residual: &residual,
                    weight: &weight_there,
                    out: &out,
                    rows,
                    hidden,
                    eps,
                },
            )
            .unwrap();

            let mut sum = r_wide.clone();
            for row in 0..rows {
                let at = row * hidden..(row + 1) * hidden;
                let added = if has_post {
                    rms(&x_wide[at.clone()], &post, eps)
                } else {
                    x_wide[at.clone()].to_vec()
                };
                if adds {
                    sum[at].iter_mut().zip(added).for_each(|(s, x)| *s += x);
                }
            }
            let got = match &residual {
                Numbers::F32(buffer) => stream.read(buffer).unwrap(),
                Numbers::Bf16(buffer) => widen(&stream.read(buffer).unwrap()),
            };
            assert_close(&got, &sum, if wide { 1e-6 } else { BF16 });
            let want: Vec<f32> =
                got.chunks(hidden).flat_map(|row| rms(row, &weight, eps)).collect();
            assert_close(&widen(&stream.read(&buffer).unwrap()), &want, BF16);
        }
    }
}

#[test]
fn norm_quantises_each_row_by_its_largest_number() {
    let stream = stream();
    let (rows, hidden) = (3, 1000);
    let (r, wide) = noise_bf16(rows * hidden, 5, 10.0);
    let residual = Numbers::Bf16(stream.buffer_of(&r).unwrap());
    let weight = noise(hidden, 6, 1.0);
    let there = stream.buffer_of(&weight).unwrap();
    let (values, scales) = (poisoned(&stream, rows * hidden), poisoned(&stream, rows));
    let out = Output::E4m3 { values: values.clone(), scales: scales.clone() };
    norm(
        &stream,
        &Norm {
            x: None,
            post_weight: None,
            residual: &residual,
            weight: &there,
            out: &out,
            rows,
            hidden,
            eps: 1e-5,
        },
    )
    .unwrap();
    let want: Vec<f32> = wide.chunks(hidden).flat_map(|row| rms(row, &weight, 1e-5)).collect();
    let got = values_of(&stream, &values, &scales, hidden);
    assert_close(&got, &want, 1.0 / 28.0);
    let mean = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).sum::<f32>()
        / want.iter().map(|w| w.abs()).sum::<f32>();
    assert!(mean < 0.03, "{mean}");
}

fn silu_mul(gate: f32, up: f32) -> f32 {
    gate / (1.0 + (-gate).exp()) * up
}

#[test]
fn swiglu_equals_the_reference() {
    let stream = stream();
    for (rows, width) in [(1, 8), (3, 1536), (2, 13_696), (1, 14_336)] {
        let (gate_up, wide) = noise_bf16(2 * rows * width, 9, 20.0);
        let gate_up = stream.buffer_of(&gate_up).unwrap();
        let want: Vec<f32> = (0..rows * width)
            .map(|i| {
                let row = &wide[i / width * 2 * width..][..2 * width];
                silu_mul(row[i % width], row[width + i % width])
            })
            .collect();
        let (out, buffer) = output(&stream, rows * width);
        swiglu(&stream, &Swiglu { gate_up: &gate_up, out: &out, rows, width }).unwrap();
        assert_close(&widen(&stream.read(&buffer).unwrap()), &want, BF16);

        let (values, scales) = (poisoned(&stream, rows * width), poisoned(&stream, rows));
        let out = Output::E4m3 { values: values.clone(), scales: scales.clone() };
        swiglu(&stream, &Swiglu { gate_up: &gate_up, out: &out, rows, width }).unwrap();
        assert_close(&values_of(&stream, &values, &scales, width), &want, 1.0 / 28.0);
    }
}

#[test]
fn gather_takes_rows_and_refuses_ids_beyond_the_table() {
    let stream = stream();
    let (table_rows, width) = (50, 1032);
    let (table, wide) = noise_bf16(table_rows * width, 3, 1.0);
    let table = Numbers::Bf16(stream.buffer_of(&table).unwrap());
    let wide_table = Numbers::F32(stream.buffer_of(&wide).unwrap());
    let ids = [3, 49, 50, 0, 3, u32::MAX];
    let there = stream.buffer_of(&ids).unwrap();
    let row =
        |id: u32| wide.chunks(width).nth(id as usize).map_or(vec![0.0; width], <[f32]>::to_vec);
    let want: Vec<f32> = ids.iter().flat_map(|&id| row(id)).collect();
    let rows = ids.len();
    let narrow: Buffer<bf16> = poisoned(&stream, rows * width);
    let floats: Buffer<f32> = poisoned(&stream, rows * width);
    let run = |table: &Numbers, out: &Numbers| {
        gather(&stream, &Gather { table, ids: &there, out, rows, width, table_rows })
    };
    run(&table, &Numbers::Bf16(narrow.clone())).unwrap();
    assert_eq!(widen(&stream.read(&narrow).unwrap()), want);
    for table in [&table, &wide_table] {
        stream.fill(&floats, 0xFF).unwrap();
        run(table, &Numbers::F32(floats.clone())).unwrap();
        assert_eq!(stream.read(&floats).unwrap(), want);
    }
    assert!(run(&wide_table, &Numbers::Bf16(narrow)).is_err());
}

struct Heads {
    q: usize,
    kv: usize,
    dim: usize,
    rotated: usize,
    style: RopeStyle,
}

/// What a row is changed by before its rotation.
#[derive(Clone, Copy)]
struct Before<T> {
    bias: Option<T>,
    norms: Option<T>,
}

const EPS: f32 = 1e-5;

/// The whole row after bias, norms and rotation, in f64 but for the rounding of the biased sum.
fn turned(
    row: &[f32],
    before: Before<&[f32]>,
    position: u32,
    h: &Heads,
    inv_freq: &[f64],
) -> Vec<f32> {
    let mut out: Vec<f32> = match before.bias {
        Some(bias) => row.iter().zip(bias).map(|(x, b)| bf16::from_f32(x + b).to_f32()).collect(),
        None => row.to_vec(),
    };
    let count = (h.q + h.kv) * h.dim;
    if let Some(norms) = before.norms {
        for (head, weight) in out[..count].chunks_mut(h.dim).zip(norms.chunks(h.dim)) {
            let eps = f64::from(EPS);
            head.copy_from_slice(&kernels::rms_norm::reference::rms_norm(head, weight, eps));
        }
    }
    let turned = kernels::rope::reference::rope(
        &out[..count],
        &[position],
        inv_freq,
        h.q + h.kv,
        h.dim,
        h.style,
    );
    out[..count].copy_from_slice(&turned);
    out
}

fn check_rope(h: &Heads, before: Before<()>, kv_type: KvType) {
    let stream = stream();
    let positions = [0u32, 5, 63_999, 17, 2];
    let slots = [3u32, 16, NO_SLOT, 47, 31];
    let (rows, blocks, layers) = (positions.len(), 3, 2);
    let width = (h.q + 2 * h.kv) * h.dim;
    let (qkv, wide) = noise_bf16(rows * width, 11, 4.0);
    let (bias, bias_wide) = noise_bf16(width, 12, 1.0);
    let norms = noise((h.q + h.kv) * h.dim, 13, 2.0);
    let inv_freq: Vec<f64> =
        (0..h.rotated / 2).map(|i| 1e4f64.powf(-(i as f64) / (h.rotated / 2) as f64)).collect();
    let table = |f: fn(f64) -> f64| -> Vec<f32> {
        (0..64_000)
            .flat_map(|p| inv_freq.iter().map(move |w| f(kernels::rope::angle(p, *w)) as f32))
            .collect()
    };
    let tables = RopeTables {
        cos: stream.buffer_of(&table(f64::cos)).unwrap(),
        sin: stream.buffer_of(&table(f64::sin)).unwrap(),
        rotated: h.rotated,
        style: h.style,
    };
    let shape = KvShape { layers, blocks, kv_heads: h.kv, head_dim: h.dim, kv_type };
    let pool = Kv::new(stream.gpu(), shape).unwrap();
    let qkv = stream.buffer_of(&qkv).unwrap();
    let (bias, weight) = (stream.buffer_of(&bias).unwrap(), stream.buffer_of(&norms).unwrap());
    let positions_there = stream.buffer_of(&positions).unwrap();
    let head_norms = before.norms.map(|()| HeadNorms { weight: &weight, columns: h.dim, eps: EPS });
    let slots_there = stream.buffer_of(&slots).unwrap();
    for layer in [1, 0] {
        if layer == 1 {
            pool.fill(&stream, 0xFF).unwrap();
            let args = Rope {
                qkv: &qkv,
                bias: before.bias.map(|()| &bias),
                head_norms,
                positions: &positions_there,
                slots: &slots_there,
                tables: &tables,
                kv: &pool.layer(layer),
                rows,
                q_heads: h.q,
            };
            rope(&stream, &args).unwrap();
        }
        let (keys, values) = pool.layer(layer).read(&stream).unwrap();
        let mut want = [vec![f32::NAN; keys.len()], vec![f32::NAN; keys.len()]];
        let mut q = Vec::new();
        for row in 0..rows {
            let before = Before {
                bias: before.bias.map(|()| &bias_wide[..]),
                norms: before.norms.map(|()| &norms[..]),
            };
            let all = turned(&wide[row * width..][..width], before, positions[row], h, &inv_freq);
            q.extend_from_slice(&all[..h.q * h.dim]);
            if slots[row] == NO_SLOT || layer == 0 {
                continue;
            }
            let (block, place) = (slots[row] as usize / BLOCK, slots[row] as usize % BLOCK);
            for (which, pages) in want.iter_mut().enumerate() {
                for head in 0..h.kv {
                    let to = ((block * h.kv + head) * BLOCK + place) * h.dim;
                    let from = (h.q + which * h.kv + head) * h.dim;
                    pages[to..to + h.dim].copy_from_slice(&all[from..from + h.dim]);
                }
            }
        }
        let got: Vec<f32> = stream
            .read(&qkv)
            .unwrap()
            .chunks(width)
            .flat_map(|row| widen(&row[..h.q * h.dim]))
            .collect();
        assert_close(&got, &q, BF16);
        let tolerance = if kv_type == KvType::Bf16 { BF16 } else { 1.0 / 28.0 };
        for (got, want) in [keys, values].iter().zip(&want) {
            for (i, (g, w)) in got.iter().zip(want).enumerate() {
                assert_eq!(g.is_nan(), w.is_nan(), "at {i} of layer {layer}: {g} {w}");
                assert!(w.is_nan() || (g - w).abs() <= tolerance * 7.5, "at {i}: {g} {w}");
            }
        }
    }
}

#[test]
fn rope_turns_and_writes() {
    use RopeStyle::{HalfSplit, Interleaved};
    for (q, kv, dim, rotated, style) in [
        (32, 8, 128, 128, HalfSplit),
        (9, 3, 64, 64, HalfSplit),
        (4, 2, 128, 64, Interleaved),
        (2, 1, 64, 32, HalfSplit),
        (16, 1, 64, 64, Interleaved),
        (1, 1, 16, 8, Interleaved),
    ] {
        let heads = Heads { q, kv, dim, rotated, style };
        for (bias, norms, kv_type) in [
            (None, None, KvType::Bf16),
            (Some(()), None, KvType::Bf16),
            (None, Some(()), KvType::Bf16),
            (Some(()), None, KvType::E4m3),
            (Some(()), Some(()), KvType::E4m3),
        ] {
            check_rope(&heads, Before { bias, norms }, kv_type);
        }
    }
}

#[test]
fn blocks_are_copied_in_all_layers() {
    for kv_type in [KvType::Bf16, KvType::E4m3] {
        let stream = stream();
        let shape = KvShape { layers: 3, blocks: 6, kv_heads: 2, head_dim: 16, kv_type };
        let pool = Kv::new(stream.gpu(), shape).unwrap();
        let before: Vec<_> = (0..3)
            .map(|layer| {
                pool.layer(layer).write_noise(&stream, layer as u64 + 1).unwrap();
                pool.layer(layer).read(&stream).unwrap()
            })
            .collect();
        let pairs = stream.buffer_of(&[1u32, 4, 0, 2, 9, 9]).unwrap();
        pool.copy_blocks(&stream, &pairs, 2).unwrap();
        let block = 2 * BLOCK * 16;
        for (layer, (keys, values)) in before.into_iter().enumerate() {
            let after = pool.layer(layer).read(&stream).unwrap();
            for (mut want, got) in [(keys, after.0), (values, after.1)] {
                want.copy_within(block..2 * block, 4 * block);
                want.copy_within(0..block, 2 * block);
                assert_eq!(got, want);
            }
        }
    }
}

#[test]
fn products_equal_the_reference() {
    let stream = stream();
    // Narrow ones: rows of w that no tile ends with, k of no span's end, of fewer spans than warps, and of several rounds;
    // more tiles than blocks of threads.
    let narrow = [(1, 17, 8), (2, 40, 136), (8, 100, 1112), (9, 48, 2000), (16, 1000, 520)];
    for (m, n, k) in
        [(1, 48, 64), (5, 128, 576), (17, 96, 256), (64, 64, 128)].into_iter().chain(narrow)
    {
        let (x, x_wide) = noise_bf16(m * k, 21, 1.0);
        let (w, w_wide) = noise_bf16(n * k, 22, 1.0);
        let (bias, bias_wide) = noise_bf16(n, 23, 4.0);
        let (x, w) = (
            Output::Bf16(stream.buffer_of(&x).unwrap()),
            Output::Bf16(stream.buffer_of(&w).unwrap()),
        );
        let bias = stream.buffer_of(&bias).unwrap();
        for (with_bias, same_for_all_m, narrow) in [
            (false, false, false),
            (true, false, false),
            (false, true, false),
            (false, false, true),
            (true, false, true),
        ] {
            if narrow && m > NARROW_ROWS {
                continue;
            }
            let want: Vec<f32> = (0..m * n)
                .map(|i| {
                    let (x, w) = (&x_wide[i / n * k..][..k], &w_wide[i % n * k..][..k]);
                    let sum: f64 = x.iter().zip(w).map(|(x, w)| f64::from(x * w)).sum();
                    sum as f32 + if with_bias { bias_wide[i % n] } else { 0.0 }
                })
                .collect();
            let floats: Buffer<f32> = poisoned(&stream, m * n);
            let halves: Buffer<bf16> = poisoned(&stream, m * n);
            for out in [Numbers::F32(floats.clone()), Numbers::Bf16(halves.clone())] {
                let bias = with_bias.then_some(&bias);
                if with_bias && matches!(out, Numbers::F32(_)) {
                    continue;
                }
                let (x, w, out) = (&x, &w, &out);
                gemm(&stream, &Gemm { x, w, bias, out, m, n, k, same_for_all_m, narrow }).unwrap();
            }
            if !with_bias {
                // Tensor cores cut each sum of 16 products off at 24 bits.
                let rounding = 1e-6 + (k / 16) as f32 * f32::EPSILON;
                assert_close(&stream.read(&floats).unwrap(), &want, rounding);
            }
            assert_close(&widen(&stream.read(&halves).unwrap()), &want, BF16);
        }
    }
}

#[test]
fn eight_bit_products_equal_the_reference() {
    let stream = stream();
    for (m, n, k) in [(1, 64, 64), (5, 128, 576), (33, 96, 256)] {
        // Any bits but those of NaN; factors for each row.
        let bytes = |len: usize, seed: u64| -> Vec<u8> {
            noise(len, seed, 127.0).iter().map(|x| x.to_bits().to_le_bytes()[2] & 0xB7).collect()
        };
        let (x, w) = (bytes(m * k, 31), bytes(n * k, 32));
        let scales = |len: usize, seed: u64| -> Vec<f32> {
            noise(len, seed, 0.4).iter().map(|x| x + 0.6).collect()
        };
        let (x_scales, w_scales) = (scales(m, 33), scales(n, 34));
        let there = |values: &[u8], scales: &[f32]| Output::E4m3 {
            values: stream.buffer_of(values).unwrap(),
            scales: stream.buffer_of(scales).unwrap(),
        };
        let want: Vec<f32> = (0..m * n)
            .map(|i| {
                let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                let sum: f64 = x.iter().zip(w).map(|(x, w)| f64::from(e4m3(*x) * e4m3(*w))).sum();
                sum as f32 * x_scales[i / n] * w_scales[i % n]
            })
            .collect();
        let out: Buffer<bf16> = poisoned(&stream, m * n);
        let (x, w) = (there(&x, &x_scales), there(&w, &w_scales));
        let numbers = Numbers::Bf16(out.clone());
        gemm(
            &stream,
            &Gemm {
                x: &x,
                w: &w,
                bias: None,
                out: &numbers,
                m,
                n,
                k,
                same_for_all_m: false,
                narrow: false,
            },
        )
        .unwrap();
        // Tensor cores add 8-bit products with fewer bits than f32.
        assert_close(&widen(&stream.read(&out).unwrap()), &want, 2.0 * BF16);
    }
}

/// Rows of a product have the same bits beside any others.
#[test]
fn rows_of_products_do_not_depend_on_their_neighbours() {
    let stream = stream();
    let (most, n, k) = (300, 128, 1024);
    let (x, _) = noise_bf16(most * k, 41, 1.0);
    let (w, _) = noise_bf16(n * k, 42, 1.0);
    let (x, w) = (stream.buffer_of(&x).unwrap(), Output::Bf16(stream.buffer_of(&w).unwrap()));
    let run = |m: usize, narrow: bool| {
        let out: Buffer<bf16> = poisoned(&stream, m * n);
        let args = Gemm {
            x: &Output::Bf16(x.slice(0..m * k)),
            w: &w,
            bias: None,
            out: &Numbers::Bf16(out.clone()),
            m,
            n,
            k,
            same_for_all_m: !narrow,
            narrow,
        };
        gemm(&stream, &args).unwrap();
        stream.read(&out).unwrap()
    };
    let all = run(most, false);
    for m in [1, 2, 17, 64, 255] {
        assert_eq!(run(m, false), all[..m * n], "m = {m}");
    }
    let all = run(NARROW_ROWS, true);
    for m in 1..NARROW_ROWS {
        assert_eq!(run(m, true), all[..m * n], "narrow, m = {m}");
    }
}
