//! The bits of every operation on the processor, which must be the same on each machine: a run that
//! was begun on one can go on on another.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Result, Tensor};
use kernels::attention::{Heads, PagedAttention, Workspace};
use kernels::kv::{BLOCK, KvDtype, KvLayer, KvShape, VarLen};
use kernels::linear::Linear;
use kernels::{Arena, Matrix, rms_norm::rms_norm, silu_mul::silu_mul};

/// Reproducible values in `-4 ..= 4`, a few a hundred times as large.
fn noise(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = (state >> 40) as f32 / (1u32 << 21) as f32 - 4.0;
            if state.is_multiple_of(97) { value * 100.0 } else { value }
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// FNV-1a of the bits.
fn hash(t: &Tensor) -> Result<u64> {
    let values: Vec<f32> = t.flatten_all()?.to_vec1()?;
    let bytes = values.iter().flat_map(|v| v.to_bits().to_le_bytes());
    Ok(bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)))
}

#[track_caller]
fn assert_hash(name: &str, t: &Tensor, want: u64) {
    let got = hash(t).unwrap();
    assert_eq!(got, want, "{name} on {}: {got:#018x}", kernels::instruction_set());
}

#[test]
fn products() -> Result<()> {
    let (m, n, k) = (9, 70, 512);
    let (x, w) = (noise(&[m, k], 1)?, noise(&[n, k], 2)?);
    for (dtype, want) in [
        (DType::F32, 0xbe4d_825d_04ec_46ab),
        (DType::BF16, 0xf344_1ff6_c9ee_e1a1),
        (DType::F16, 0x6549_fe2b_b58e_44a4),
    ] {
        let y = Linear::from_tensor(&w.to_dtype(dtype)?)?.forward(&x)?;
        assert_hash(&format!("{dtype:?}"), &y, want);
    }
    for (dtype, want) in [
        (GgmlDType::Q4_0, 0xca39_3122_d6f9_692b),
        (GgmlDType::Q4_1, 0xcd09_cb0d_1ffe_f0ad),
        (GgmlDType::Q5_0, 0x382d_4ed9_a52c_0750),
        (GgmlDType::Q5_1, 0xb6cf_7c8e_0f9b_8b92),
        (GgmlDType::Q8_0, 0x0c10_31de_e176_db47),
        (GgmlDType::Q2K, 0x802f_8aa6_c767_acf9),
        (GgmlDType::Q3K, 0x9be8_6d48_13f4_cae0),
        (GgmlDType::Q4K, 0x9896_c958_90be_6e56),
        (GgmlDType::Q5K, 0xa564_543f_91a7_0dbc),
        (GgmlDType::Q6K, 0x0e41_b331_3081_f10e),
    ] {
        let y = Linear::from_quantized(&QTensor::quantize(&w, dtype)?)?.forward(&x)?;
        assert_hash(&format!("{dtype:?}"), &y, want);
    }
    Ok(())
}

#[test]
fn norm_and_gate() -> Result<()> {
    let (x, mut y) = (Matrix::from_tensor(&noise(&[5, 200], 3)?)?, Matrix::default());
    rms_norm(x.view(), &noise(&[200], 4)?, 1e-5, &mut y)?;
    assert_hash("norm", &y.to_tensor()?, 0xc931_f926_3ada_9bc7);
    silu_mul(x.view(), &mut y)?;
    assert_hash("gate", &y.to_tensor()?, 0x992e_81ca_d562_e7f6);
    Ok(())
}

/// Two sequences, one with a chunk of tokens and one with a single token.
#[test]
fn attention() -> Result<()> {
    let (heads, lens, rows) = (Heads { q: 6, kv: 2, size: 48 }, [150usize, 77], [20usize, 1]);
    let mut seqs = VarLen { query_starts: vec![0], ..VarLen::default() };
    let mut blocks = 0;
    for (len, rows) in lens.into_iter().zip(rows) {
        let table: Vec<u32> = (blocks..blocks + len.div_ceil(BLOCK) as u32).collect();
        blocks += table.len() as u32;
        for p in len - rows..len {
            seqs.positions.push(p as u32);
            seqs.slots.push(table[p / BLOCK] * BLOCK as u32 + (p % BLOCK) as u32);
        }
        seqs.query_starts.push(seqs.slots.len() as u32);
        seqs.kv_lens.push(len as u32);
        seqs.block_tables.push(table);
    }
    let slots: Vec<u32> = (0..blocks * BLOCK as u32).collect();
    let keys = noise(&[slots.len(), heads.kv * heads.size], 5)?;
    let values = noise(&[slots.len(), heads.kv * heads.size], 6)?;
    let new = Matrix::from_tensor(&Tensor::cat(&[keys, values], 1)?)?;
    let q = Matrix::from_tensor(&noise(&[seqs.slots.len(), heads.q * heads.size], 7)?)?;
    let (mut work, mut out, blocks) = (Workspace::default(), Matrix::default(), blocks as usize);
    for (dtype, want) in
        [(KvDtype::F32, 0xae48_986e_8922_17ef), (KvDtype::F16, 0x5d8f_b9fe_baec_4003)]
    {
        let shape = KvShape { blocks, kv_heads: heads.kv, head_dim: heads.size, dtype };
        let mut kv = KvLayer::new(shape, &Device::Cpu, &mut Arena::heap())?;
        kv.store(new.view(), &slots)?;
        PagedAttention::plan(&seqs, heads, blocks, &mut work)?.run(
            q.view(),
            &kv,
            0.02,
            &mut out,
        )?;
        assert_hash(&format!("{dtype:?}"), &out.to_tensor()?, want);
    }
    Ok(())
}
