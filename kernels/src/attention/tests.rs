use super::*;
use crate::kv::{BLOCK, KvDtype, KvShape};
use crate::matrix::testing::matrix;
use crate::memory::Arena;
use crate::testing::{assert_slices_close, noise};
use candle_core::Device;
use std::ops::Range;

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

const HEADS: [Heads; 4] = [heads(1, 1, 16), heads(9, 3, 64), heads(4, 2, 48), heads(32, 2, 128)];

const fn heads(q: usize, kv: usize, size: usize) -> Heads {
    Heads { q, kv, size }
}

/// A batch with random contents; blocks of a sequence are scattered over the pool, and every slot
/// that no sequence uses holds NaN.
struct Case {
    heads: Heads,
    /// Queries, `[T][heads * D]`.
    q: Vec<f32>,
    kv: KvLayer,
    seqs: VarLen,
    /// Per sequence, contiguous.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Case {
    fn new(batch: Batch, heads: Heads, portable: bool, dtype: KvDtype) -> Self {
        let width = heads.kv * heads.size;
        let held: Vec<usize> = batch.iter().map(|(a, b)| (a + b).div_ceil(BLOCK)).collect();
        let blocks = held.iter().sum::<usize>() + 3;
        let shape = KvShape { blocks, kv_heads: heads.kv, head_dim: heads.size, dtype };
        let mut kv = match portable {
            true => KvLayer::portable(shape, &Device::Cpu).unwrap(),
            false => KvLayer::new(shape, &Device::Cpu, &mut Arena::heap()).unwrap(),
        };
        let poison = vec![f32::NAN; blocks * BLOCK * width];
        let all: Vec<u32> = (0..(blocks * BLOCK) as u32).collect();
        store(&mut kv, &poison, &poison, &all);

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
            let k = stored(noise(len * width, 100 + s as u64, 2.0), dtype);
            let v = stored(noise(len * width, 200 + s as u64, 1.0), dtype);
            store(&mut kv, &k, &v, &slots);
            keys.push(k);
            values.push(v);
            seqs.positions.extend((cached..len).map(|p| p as u32));
            seqs.slots.extend(&slots[cached..]);
            seqs.query_starts.push(seqs.slots.len() as u32);
            seqs.kv_lens.push(len as u32);
            seqs.block_tables.push(table);
        }
        let q = noise(seqs.rows() * heads.q * heads.size, 300, 2.0);
        Self { heads, q, kv, seqs, keys, values }
    }

    /// Columns of a row of queries, and of results.
    fn width(&self) -> usize {
        self.heads.q * self.heads.size
    }

    /// Rows of sequence `s`.
    fn rows_of(&self, s: usize) -> Range<usize> {
        self.seqs.query_starts[s] as usize..self.seqs.query_starts[s + 1] as usize
    }

    /// These rows of queries, or of results.
    fn numbers<'a>(&self, all: &'a [f32], rows: Range<usize>) -> &'a [f32] {
        &all[rows.start * self.width()..rows.end * self.width()]
    }

    fn all(&self, scale: f32) -> Result<Vec<f32>> {
        self.attend(&self.q, &self.seqs, scale)
    }

    /// Attention of other queries to the same pool.
    fn attend(&self, q: &[f32], seqs: &VarLen, scale: f32) -> Result<Vec<f32>> {
        // Queries may have other columns behind them.
        const OTHERS: usize = 5;
        let rows = q.chunks(self.width()).flat_map(|row| [row, &[f32::NAN; OTHERS]].concat());
        let q = matrix(rows.collect(), self.width() + OTHERS);
        let (mut out, mut work) = (Matrix::default(), Workspace::default());
        PagedAttention::plan(seqs, self.heads, self.kv.blocks(), &mut work)?.run(
            for_pool(&q, &self.kv),
            &self.kv,
            scale,
            &mut out,
        )?;
        Ok(out.view().read()?.into_owned())
    }

    /// One token of a sequence of so many, with these blocks.
    fn one(&self, q: &[f32], len: u32, table: &[u32]) -> Result<Vec<f32>> {
        let seqs = VarLen {
            positions: vec![len - 1],
            slots: vec![table[(len as usize - 1) / BLOCK] * BLOCK as u32],
            query_starts: vec![0, 1],
            kv_lens: vec![len],
            block_tables: vec![table.to_vec()],
        };
        self.attend(q, &seqs, 0.125)
    }
}

/// As the pool wants it: candle's tensors for the portable layout.
fn for_pool<'a>(rows: &'a Matrix, kv: &KvLayer) -> View<'a> {
    match kv.store {
        Store::Cpu(_) => rows.view(),
        Store::Tensor(_) => {
            View { numbers: Seen::Device(rows.to_tensor().unwrap()), ..rows.view() }
        }
    }
}

fn store(kv: &mut KvLayer, keys: &[f32], values: &[f32], slots: &[u32]) {
    let width = kv.kv_heads() * kv.head_dim();
    let rows = keys.chunks(width).zip(values.chunks(width)).flat_map(|(k, v)| [k, v].concat());
    let rows = matrix(rows.collect(), 2 * width);
    kv.store(for_pool(&rows, kv), slots).unwrap();
}

/// What a pool of this type gives back.
fn stored(values: Vec<f32>, dtype: KvDtype) -> Vec<f32> {
    match dtype {
        KvDtype::F32 => values,
        KvDtype::F16 => values.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect(),
    }
}

#[test]
fn every_version_equals_the_reference() -> Result<()> {
    for batch in BATCHES {
        for heads in HEADS {
            let types = [KvDtype::F32, KvDtype::F16];
            for (portable, dtype) in types.into_iter().flat_map(|t| [(false, t), (true, t)]) {
                let case = Case::new(batch, heads, portable, dtype);
                let scale = 1.0 / (heads.size as f32).sqrt();
                let got = case.all(scale)?;
                for s in 0..batch.len() {
                    let rows = case.rows_of(s);
                    let q = case.numbers(&case.q, rows.clone());
                    let (k, v) = (&case.keys[s], &case.values[s]);
                    let want = reference::attention(q, k, v, heads.q, heads.kv, heads.size, scale);
                    assert_slices_close(case.numbers(&got, rows), &want, 3e-6);
                }
            }
        }
    }
    Ok(())
}

/// Neither what is no number nor what f16 can't hold.
#[test]
fn a_row_does_not_depend_on_the_tokens_after_it() -> Result<()> {
    for heads in HEADS {
        for (dtype, odd) in
            [(KvDtype::F32, f32::NAN), (KvDtype::F32, f32::INFINITY), (KvDtype::F16, 1e6)]
        {
            let mut case = Case::new(&[(60, 40)], heads, false, dtype);
            let before = case.all(0.125)?;
            for last in [99, 90, 64] {
                let slot = case.seqs.slots[last - 60];
                let odd = vec![odd; heads.kv * heads.size];
                store(&mut case.kv, &odd, &odd, &[slot]);
                let rows = 0..last - 60;
                let now = case.all(0.125)?;
                let (now, before) = (case.numbers(&now, rows.clone()), case.numbers(&before, rows));
                assert_eq!(now, before, "{heads:?} {last}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_row_does_not_depend_on_its_batch_nor_on_how_a_prompt_is_cut() -> Result<()> {
    for heads in HEADS {
        for batch in BATCHES {
            let case = Case::new(batch, heads, false, KvDtype::F32);
            let all = case.all(0.125)?;
            for s in 0..batch.len() {
                let rows = case.rows_of(s);
                let (len, table) = (case.seqs.kv_lens[s], &case.seqs.block_tables[s]);
                let alone = VarLen {
                    positions: case.seqs.positions[rows.clone()].to_vec(),
                    slots: case.seqs.slots[rows.clone()].to_vec(),
                    query_starts: vec![0, rows.len() as u32],
                    kv_lens: vec![len],
                    block_tables: vec![table.clone()],
                };
                let q = case.numbers(&case.q, rows.clone());
                let want = case.numbers(&all, rows.clone());
                assert_eq!(case.attend(q, &alone, 0.125)?, want, "sequence {s}");
                for row in rows.clone() {
                    let len = len - (rows.end - 1 - row) as u32;
                    let got = case.one(case.numbers(&case.q, row..row + 1), len, table)?;
                    assert_eq!(got, case.numbers(&all, row..row + 1), "sequence {s}, row {row}");
                }
            }
        }
    }
    Ok(())
}

/// Sequences whose tables begin alike are read together; the bits are those of each alone.
#[test]
fn a_shared_prefix_changes_no_bits() -> Result<()> {
    let case = Case::new(&[(200, 1), (0, 64)], heads(9, 3, 64), false, KvDtype::F32);
    let table = &case.seqs.block_tables[0];
    let lens = [130u32, 129, 150, 201, 190];
    let tables: Vec<Vec<u32>> =
        lens.iter().map(|l| table[..(*l as usize).div_ceil(BLOCK)].to_vec()).collect();
    let seqs = VarLen {
        positions: lens.iter().map(|l| l - 1).collect(),
        slots: lens.iter().map(|l| table[(*l as usize - 1) / BLOCK] * BLOCK as u32).collect(),
        query_starts: (0..=lens.len() as u32).collect(),
        kv_lens: lens.to_vec(),
        block_tables: tables.clone(),
    };
    let q = noise(lens.len() * case.width(), 400, 1.0);
    let all = case.attend(&q, &seqs, 0.125)?;
    for (s, (len, table)) in lens.into_iter().zip(&tables).enumerate() {
        let got = case.one(case.numbers(&q, s..s + 1), len, table)?;
        assert_eq!(got, case.numbers(&all, s..s + 1), "sequence {s}");
    }
    Ok(())
}

/// Tables that are a tree, of sequences with one row and several, against the processor's version, in pieces of all sizes.
#[test]
fn the_portable_version_shares_what_sequences_have_in_common() -> Result<()> {
    let batch: Batch = &[(400, 1), (0, 64)];
    for heads in HEADS {
        let case = Case::new(batch, heads, false, KvDtype::F32);
        let other = Case::new(batch, heads, true, KvDtype::F32);
        let Store::Tensor(pages) = &other.kv.store else { panic!("another layout") };
        let t = &case.seqs.block_tables[0];
        // In no order, tables with the tokens and rows of each.
        let sequences = [
            ([&t[..6], &t[12..16]].concat(), 155, 3),
            (t[..10].to_vec(), 160, 1),
            (t[15..20].to_vec(), 80, 2),
            (t[..10].to_vec(), 147, 1),
            (t[..6].to_vec(), 96, 40),
            ([&t[..6], &t[12..14], &t[20..22]].concat(), 145, 1),
            (t[..6].to_vec(), 90, 0),
        ];
        let mut seqs = VarLen { query_starts: vec![0], ..VarLen::default() };
        for (table, len, rows) in sequences {
            let slots = (len - rows..len).map(|p| table[p / BLOCK] * 16 + (p % BLOCK) as u32);
            seqs.slots.extend(slots);
            seqs.query_starts.push(seqs.slots.len() as u32);
            seqs.kv_lens.push(len as u32);
            seqs.block_tables.push(table);
        }
        seqs.positions = seqs.slots.clone();
        let q = noise(seqs.rows() * case.width(), 400, 1.0);
        let want = case.attend(&q, &seqs, 0.125)?;
        let q = matrix(q, case.width()).to_tensor()?;
        for piece in [1, 1 << 14, portable::PIECE_BYTES] {
            let got = portable::paged_attention(&q, pages, heads, &seqs, 0.125, piece)?;
            assert_slices_close(&got.flatten_all()?.to_vec1::<f32>()?, &want, 3e-6);
        }
    }
    Ok(())
}

/// Memory that is kept from one batch to the next changes nothing, whatever the batches are.
#[test]
fn a_workspace_can_be_used_again() -> Result<()> {
    let (mut work, mut out) = (Workspace::default(), Matrix::default());
    for batch in BATCHES.into_iter().chain(BATCHES.into_iter().rev()) {
        for heads in HEADS {
            let case = Case::new(batch, heads, false, KvDtype::F32);
            let q = matrix(case.q.clone(), case.width());
            PagedAttention::plan(&case.seqs, heads, case.kv.blocks(), &mut work)?.run(
                q.view(),
                &case.kv,
                0.125,
                &mut out,
            )?;
            assert_eq!(out.view().read()?, case.all(0.125)?);
        }
    }
    Ok(())
}

#[test]
fn a_copied_block_reads_like_the_original() -> Result<()> {
    for portable in [false, true] {
        let mut case = Case::new(&[(15, 1)], heads(4, 2, 48), portable, KvDtype::F32);
        let want = case.all(0.1)?;
        let from = case.seqs.block_tables[0][0];
        let to = case.kv.blocks() as u32 / 2;
        assert_ne!(from, to);
        case.kv.copy_block(from, to)?;
        case.seqs.block_tables[0][0] = to;
        assert_eq!(case.all(0.1)?, want);
    }
    Ok(())
}

#[test]
fn a_block_beyond_the_pool_is_refused() {
    let mut case = Case::new(&[(0, 1)], heads(1, 1, 16), false, KvDtype::F32);
    case.seqs.block_tables[0][0] = 99;
    let error = case.all(1.0).unwrap_err().to_string();
    assert!(error.contains("block 99"), "{error}");
}
