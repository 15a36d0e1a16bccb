use super::*;
use crate::kv::{BLOCK, KvDtype, KvShape};
use crate::memory::Arena;
use crate::testing::{assert_close, noise};
use candle_core::Device;

/// Sequences as (tokens in the cache before, new tokens).
type Batch = &'static [(usize, usize)];

const BATCHES: [Batch; 8] = [
    &[(0, 1)],
    &[(0, 17)],
    &[(5, 1), (0, 3), (100, 1), (63, 2)],
    &[(0, 64), (64, 64), (63, 130)],
    &[(1000, 1), (1000, 1), (17, 40)],
    &[(0, 300)],
    // Of several segments.
    &[(2100, 1), (1023, 2), (3, 40)],
    &[(900, 200)],
];

const HEADS: [(usize, usize, usize); 4] = [(1, 1, 16), (9, 3, 64), (4, 2, 48), (32, 2, 128)];

/// A batch with random contents; blocks of a sequence are scattered over the pool, and every slot
/// that no sequence uses holds NaN.
struct Case {
    q: Tensor,
    kv: KvLayer,
    seqs: VarLen,
    /// Per sequence, contiguous.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

fn tensor(values: Vec<f32>, heads: usize, d: usize) -> Tensor {
    Tensor::from_vec(values.clone(), (values.len() / heads / d, heads, d), &Device::Cpu).unwrap()
}

fn case(batch: Batch, shape: (usize, usize, usize), portable: bool) -> Case {
    case_in(batch, shape, portable, KvDtype::F32)
}

fn case_in(
    batch: Batch,
    (heads, kv_heads, d): (usize, usize, usize),
    portable: bool,
    dtype: KvDtype,
) -> Case {
    let held: Vec<usize> = batch.iter().map(|(a, b)| (a + b).div_ceil(BLOCK)).collect();
    let blocks = held.iter().sum::<usize>() + 3;
    let shape = KvShape { blocks, kv_heads, head_dim: d, dtype };
    let mut kv = match portable {
        true => KvLayer::portable(shape, &Device::Cpu).unwrap(),
        false => KvLayer::new(shape, &Device::Cpu, &mut Arena::heap()).unwrap(),
    };
    let poison = tensor(vec![f32::NAN; blocks * BLOCK * kv_heads * d], kv_heads, d);
    let all: Vec<u32> = (0..(blocks * BLOCK) as u32).collect();
    kv.store(&poison, &poison, &all).unwrap();

    let mut seqs = VarLen { query_starts: vec![0], ..VarLen::default() };
    let (mut keys, mut values, mut next) = (Vec::new(), Vec::new(), 0);
    for (s, &(cached, new)) in batch.iter().enumerate() {
        let len = cached + new;
        // Every other block from either end of the pool.
        let table: Vec<u32> = (0..held[s])
            .map(|i| (next + i) as u32)
            .map(|b| if b % 2 == 0 { b / 2 } else { blocks as u32 - 1 - b / 2 })
            .collect();
        next += held[s];
        let slots: Vec<u32> =
            (0..len).map(|p| table[p / BLOCK] * BLOCK as u32 + (p % BLOCK) as u32).collect();
        let k = stored(noise(len * kv_heads * d, 100 + s as u64, 2.0), dtype);
        let v = stored(noise(len * kv_heads * d, 200 + s as u64, 1.0), dtype);
        kv.store(&tensor(k.clone(), kv_heads, d), &tensor(v.clone(), kv_heads, d), &slots).unwrap();
        keys.push(k);
        values.push(v);
        seqs.positions.extend((cached..len).map(|p| p as u32));
        seqs.slots.extend(&slots[cached..]);
        seqs.query_starts.push(seqs.slots.len() as u32);
        seqs.kv_lens.push(len as u32);
        seqs.block_tables.push(table);
    }
    let q = tensor(noise(seqs.rows() * heads * d, 300, 2.0), heads, d);
    Case { q, kv, seqs, keys, values }
}

/// What a pool of this type gives back.
fn stored(values: Vec<f32>, dtype: KvDtype) -> Vec<f32> {
    match dtype {
        KvDtype::F32 => values,
        KvDtype::F16 => values.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect(),
    }
}

fn rows_of(case: &Case, s: usize) -> std::ops::Range<usize> {
    case.seqs.query_starts[s] as usize..case.seqs.query_starts[s + 1] as usize
}

#[test]
fn every_version_equals_the_reference() -> Result<()> {
    for batch in BATCHES {
        for shape @ (heads, kv_heads, d) in HEADS {
            let types = [KvDtype::F32, KvDtype::F16];
            for (portable, dtype) in types.into_iter().flat_map(|t| [(false, t), (true, t)]) {
                let case = case_in(batch, shape, portable, dtype);
                let scale = 1.0 / (d as f32).sqrt();
                let got = paged_attention(&case.q, &case.kv, &case.seqs, scale)?;
                for s in 0..batch.len() {
                    let rows = rows_of(&case, s);
                    let q = case.q.narrow(0, rows.start, rows.len())?.flatten_all()?.to_vec1()?;
                    let (k, v) = (&case.keys[s], &case.values[s]);
                    let want = reference::attention(&q, k, v, heads, kv_heads, d, scale);
                    assert_close(&got.narrow(0, rows.start, rows.len())?, &want, 3e-6);
                }
            }
        }
    }
    Ok(())
}

/// One sequence of a batch, alone.
fn alone(case: &Case, s: usize) -> (Tensor, VarLen) {
    let rows = rows_of(case, s);
    let seqs = VarLen {
        positions: case.seqs.positions[rows.clone()].to_vec(),
        slots: case.seqs.slots[rows.clone()].to_vec(),
        query_starts: vec![0, rows.len() as u32],
        kv_lens: vec![case.seqs.kv_lens[s]],
        block_tables: vec![case.seqs.block_tables[s].clone()],
    };
    (case.q.narrow(0, rows.start, rows.len()).unwrap().contiguous().unwrap(), seqs)
}

#[test]
fn a_row_does_not_depend_on_its_batch_nor_on_how_a_prompt_is_cut() -> Result<()> {
    for shape in HEADS {
        for batch in BATCHES {
            let case = case(batch, shape, false);
            let all = paged_attention(&case.q, &case.kv, &case.seqs, 0.125)?;
            for s in 0..batch.len() {
                let (q, seqs) = alone(&case, s);
                let want = all.narrow(0, rows_of(&case, s).start, seqs.rows())?.to_vec2::<f32>()?;
                assert_eq!(paged_attention(&q, &case.kv, &seqs, 0.125)?.to_vec2::<f32>()?, want);
                for row in 0..seqs.rows() {
                    let len = seqs.kv_lens[0] - (seqs.rows() - 1 - row) as u32;
                    let one = VarLen {
                        positions: vec![seqs.positions[row]],
                        slots: vec![seqs.slots[row]],
                        query_starts: vec![0, 1],
                        kv_lens: vec![len],
                        block_tables: seqs.block_tables.clone(),
                    };
                    let got = paged_attention(&q.narrow(0, row, 1)?, &case.kv, &one, 0.125)?;
                    assert_eq!(got.to_vec2::<f32>()?[0], want[row], "sequence {s}, row {row}");
                }
            }
        }
    }
    Ok(())
}

/// Sequences whose tables begin alike are read together; the bits are those of each alone.
#[test]
fn a_shared_prefix_changes_no_bits() -> Result<()> {
    let shape @ (heads, _, d) = (9, 3, 64);
    let case = case(&[(200, 1), (0, 64)], shape, false);
    let table = &case.seqs.block_tables[0];
    let lens = [130u32, 129, 150, 201, 190];
    let seqs = VarLen {
        positions: lens.iter().map(|l| l - 1).collect(),
        slots: lens.iter().map(|l| table[(*l as usize - 1) / BLOCK] * BLOCK as u32).collect(),
        query_starts: (0..=lens.len() as u32).collect(),
        kv_lens: lens.to_vec(),
        block_tables: lens
            .iter()
            .map(|l| table[..(*l as usize).div_ceil(BLOCK)].to_vec())
            .collect(),
    };
    let q = tensor(noise(lens.len() * heads * d, 400, 1.0), heads, d);
    let all = paged_attention(&q, &case.kv, &seqs, 0.125)?.to_vec2::<f32>()?;
    for (s, row) in all.iter().enumerate() {
        let one = VarLen {
            positions: vec![seqs.positions[s]],
            slots: vec![seqs.slots[s]],
            query_starts: vec![0, 1],
            kv_lens: vec![lens[s]],
            block_tables: vec![seqs.block_tables[s].clone()],
        };
        let got = paged_attention(&q.narrow(0, s, 1)?, &case.kv, &one, 0.125)?;
        assert_eq!(&got.to_vec2::<f32>()?[0], row);
    }
    Ok(())
}

#[test]
fn a_copied_block_reads_like_the_original() -> Result<()> {
    for portable in [false, true] {
        let mut case = case(&[(15, 1)], (4, 2, 48), portable);
        let want = paged_attention(&case.q, &case.kv, &case.seqs, 0.1)?.to_vec2::<f32>()?;
        let from = case.seqs.block_tables[0][0];
        let to = case.kv.blocks() as u32 / 2;
        assert_ne!(from, to);
        case.kv.copy_block(from, to)?;
        case.seqs.block_tables[0][0] = to;
        let got = paged_attention(&case.q, &case.kv, &case.seqs, 0.1)?.to_vec2::<f32>()?;
        assert_eq!(got, want);
    }
    Ok(())
}

#[test]
fn a_block_beyond_the_pool_is_refused() {
    let mut case = case(&[(0, 1)], (1, 1, 16), false);
    case.seqs.block_tables[0][0] = 99;
    let error = paged_attention(&case.q, &case.kv, &case.seqs, 1.0).unwrap_err().to_string();
    assert!(error.contains("block 99"), "{error}");
}
