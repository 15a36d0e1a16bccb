//! On any candle device: keys and values are gathered a piece at a time and multiplied densely, and the softmax goes on
//! from piece to piece (Milakov & Gimelshein 2018, arXiv 1805.02867), so that memory does not grow with a
//! sequence's length. What several sequences have in common is gathered once and multiplied by the queries of all.

use super::Heads;
use crate::kv::{BLOCK, TensorPages, VarLen};
use candle_core::{D, Device, Result, Tensor};
use std::ops::Range;

/// Memory that a piece's scores, or its keys, should not exceed.
pub const PIECE_BYTES: usize = 64 << 20;

/// Blocks that sequences have in common, and that are gathered for all of them.
const WORTH_SHARING: usize = 4;

/// See [`super::PagedAttention::run`]: `q` `[T, heads * D]`.
pub fn paged_attention(
    q: &Tensor,
    pages: &TensorPages,
    heads: Heads,
    seqs: &VarLen,
    scale: f32,
    piece_bytes: usize,
) -> Result<Tensor> {
    Attention { pages, heads, seqs, scale, piece_bytes }.of_all(q)
}

struct Attention<'a> {
    pages: &'a TensorPages,
    heads: Heads,
    seqs: &'a VarLen,
    scale: f32,
    piece_bytes: usize,
}

impl Attention<'_> {
    fn of_all(&self, q: &Tensor) -> Result<Tensor> {
        let Heads { q: heads, kv, size } = self.heads;
        let mut members: Vec<usize> =
            (0..self.seqs.kv_lens.len()).filter(|&s| !self.rows(s).is_empty()).collect();
        members.sort_by_key(|&s| &self.seqs.block_tables[s]);
        let order: Vec<u32> =
            members.iter().flat_map(|&s| self.rows(s)).map(|row| row as u32).collect();
        let in_order = order.is_sorted();
        let q = q.contiguous()?;
        let q = if in_order { q } else { select(&q, &order)? };
        let q = q.reshape((order.len(), kv, self.heads.group(), size))?.transpose(0, 1)?;
        let q = q.reshape((kv, order.len() * self.heads.group(), size))?;
        let mut out = Vec::with_capacity(members.len());
        self.descend(&members, 0, Rows { q, sums: None }, &mut out)?;
        let out = Tensor::cat(&out, 1)?;
        let out = out.reshape((kv, order.len(), self.heads.group(), size))?.transpose(0, 1)?;
        let out = out.reshape((order.len(), heads * size))?;
        if in_order { Ok(out) } else { select(&out, &inverse(&order)) }
    }

    /// Attention of `rows`, those of `members`, which are sorted by their tables and have summed the first `done` positions.
    /// Tables are a tree:
    ///
    /// ```text
    /// blocks      0 1 2 3 4 5 6 7 8
    /// member 0   [a b c d e f]            a to d are summed for the rows of 0, 1 and 2,
    /// member 1   [a b c d g h i j k]      g to j for those of 1 and 2, the rest for each by itself
    /// member 2   [a b c d g h i j l]
    /// ```
    fn descend(
        &self,
        members: &[usize],
        mut done: usize,
        mut rows: Rows,
        out: &mut Vec<Tensor>,
    ) -> Result<()> {
        let table = |member: &usize| &self.seqs.block_tables[*member];
        let (Some(first), Some(last)) = (members.first(), members.last()) else { return Ok(()) };
        if first == last {
            out.push(self.of_one(*first, done, rows)?);
            return Ok(());
        }
        // Of sorted tables, all begin as the first and the last do.
        let alike = table(first).iter().zip(table(last)).take_while(|(a, b)| a == b).count();
        let seen = members.iter().map(|&s| self.seen_by_all_rows(s)).min().unwrap_or(0);
        let common = alike.min(seen / BLOCK) * BLOCK;
        if common >= done + WORTH_SHARING * BLOCK {
            self.add(&mut rows, table(first), done..common, seen)?;
            done = common;
        }
        let apart = table(first) == table(last);
        let mut start = 0;
        for part in members.chunk_by(|a, b| !apart && table(a).get(alike) == table(b).get(alike)) {
            let count: usize = part.iter().map(|&s| self.rows(s).len()).sum();
            let group = self.heads.group();
            self.descend(part, done, rows.narrow(start * group, count * group)?, out)?;
            start += count;
        }
        Ok(())
    }

    /// From position `done` to its end.
    fn of_one(&self, sequence: usize, done: usize, mut rows: Rows) -> Result<Tensor> {
        let table = &self.seqs.block_tables[sequence];
        let end = self.seqs.kv_lens[sequence] as usize;
        self.add(&mut rows, table, done..end, self.seen_by_all_rows(sequence))?;
        rows.finish()
    }

    /// Adds the keys and values of some positions; row `r` sees those below `seen + r`.
    fn add(
        &self,
        rows: &mut Rows,
        table: &[u32],
        positions: Range<usize>,
        seen: usize,
    ) -> Result<()> {
        let queries = rows.q.dim(1)?;
        let bytes = self.heads.kv * queries.max(self.heads.size) * size_of::<f32>();
        let most = (self.piece_bytes / bytes).max(1).next_multiple_of(BLOCK);
        for start in positions.clone().step_by(most) {
            let piece = start..(start + most).min(positions.end);
            let (k, v) = self.pages.gather(table, piece.clone())?;
            let scores = (rows.q.matmul(&k.t()?)? * f64::from(self.scale))?;
            if piece.end <= seen {
                rows.add(&scores, &v)?;
            } else {
                let mask = mask(queries, self.heads.group(), seen, piece, scores.device())?;
                rows.add(&scores.broadcast_add(&mask)?, &v)?;
            }
        }
        Ok(())
    }

    fn rows(&self, sequence: usize) -> Range<usize> {
        let starts = &self.seqs.query_starts[sequence..];
        starts[0] as usize..starts[1] as usize
    }

    /// Positions that the first row of a sequence sees.
    fn seen_by_all_rows(&self, sequence: usize) -> usize {
        self.seqs.kv_lens[sequence] as usize + 1 - self.rows(sequence).len()
    }
}

/// Queries of several rows, `[kv_heads, rows * group, D]`: the heads of a group side by side.
struct Rows {
    q: Tensor,
    sums: Option<Sums>,
}

/// A softmax on its way.
struct Sums {
    /// The largest score so far, `[kv_heads, rows * group, 1]`.
    largest: Tensor,
    /// The sum of weights, of the same shape.
    total: Tensor,
    /// The weighted sum of values, `[kv_heads, rows * group, D]`.
    values: Tensor,
}

impl Rows {
    /// `scores` `[kv_heads, rows * group, n]` for values `v` `[kv_heads, n, D]`.
    fn add(&mut self, scores: &Tensor, v: &Tensor) -> Result<()> {
        let largest = scores.max_keepdim(D::Minus1)?;
        let largest = match &self.sums {
            Some(before) => largest.maximum(&before.largest)?,
            None => largest,
        };
        let weights = scores.broadcast_sub(&largest)?.exp()?;
        let (mut total, mut values) = (weights.sum_keepdim(D::Minus1)?, weights.matmul(v)?);
        if let Some(before) = &self.sums {
            let kept = (&before.largest - &largest)?.exp()?;
            total = (total + (&before.total * &kept)?)?;
            values = (values + before.values.broadcast_mul(&kept)?)?;
        }
        self.sums = Some(Sums { largest, total, values });
        Ok(())
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let part = |t: &Tensor| t.narrow(1, start, len)?.contiguous();
        let sums = |s: &Sums| {
            let (largest, total) = (part(&s.largest)?, part(&s.total)?);
            Ok::<_, candle_core::Error>(Sums { largest, total, values: part(&s.values)? })
        };
        Ok(Self { q: part(&self.q)?, sums: self.sums.as_ref().map(sums).transpose()? })
    }

    fn finish(self) -> Result<Tensor> {
        match self.sums {
            Some(sums) => sums.values.broadcast_div(&sums.total),
            None => candle_core::bail!("attention: a row sees nothing"),
        }
    }
}

/// `[1, queries, positions]`: 0 where a row sees a position, -inf where it does not.
fn mask(
    queries: usize,
    group: usize,
    seen: usize,
    positions: Range<usize>,
    device: &Device,
) -> Result<Tensor> {
    let shape = (1, queries, positions.len());
    let of_row = |query: usize| {
        let end = seen + query / group;
        positions.clone().map(move |p| if p < end { 0.0 } else { f32::NEG_INFINITY })
    };
    Tensor::from_vec((0..queries).flat_map(of_row).collect(), shape, device)
}

fn select(t: &Tensor, rows: &[u32]) -> Result<Tensor> {
    t.index_select(&Tensor::from_slice(rows, rows.len(), t.device())?, 0)
}

/// Where each number of a permutation stands.
fn inverse(order: &[u32]) -> Vec<u32> {
    let mut places = vec![0; order.len()];
    for (place, &row) in order.iter().enumerate() {
        places[row as usize] = place as u32;
    }
    places
}
