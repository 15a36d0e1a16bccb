//! Causal attention over a paged KV cache, grouped-query heads, sequences of any lengths.

mod cpu;
pub mod portable;
pub mod reference;

use crate::kv::{AnyPages, KvLayer, Store, VarLen};
use crate::matrix::{Matrix, Seen, View};
use candle_core::{Result, bail};

pub use cpu::Workspace;

/// The processor's heads have a multiple of so many columns.
pub const HEAD_MULTIPLE: usize = crate::simd::LANES;

/// Heads of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Of queries. Query head `h` reads KV head `h / (q / kv)`.
    pub q: usize,
    /// Of keys and of values.
    pub kv: usize,
    /// Columns of a head.
    pub size: usize,
}

impl Heads {
    /// Query heads of a KV head.
    fn group(self) -> usize {
        self.q / self.kv
    }
}

/// The attention of a batch, planned once for all layers.
pub struct PagedAttention<'a> {
    seqs: &'a VarLen,
    heads: Heads,
    blocks: usize,
    work: &'a mut Workspace,
}

impl<'a> PagedAttention<'a> {
    /// For pools of `blocks` blocks; `work` is memory that is kept from one batch to the next.
    ///
    /// # Errors
    /// Arrays of the batch that do not fit each other or the pools; query heads that are no multiple
    /// of KV heads.
    pub fn plan(
        seqs: &'a VarLen,
        heads: Heads,
        blocks: usize,
        work: &'a mut Workspace,
    ) -> Result<Self> {
        seqs.validate(blocks)?;
        if heads.kv == 0 || !heads.q.is_multiple_of(heads.kv) {
            bail!("attention: {} query heads for {} KV heads", heads.q, heads.kv);
        }
        work.plan(seqs, heads);
        Ok(Self { seqs, heads, blocks, work })
    }

    /// `softmax(q kᵀ · scale) v` for every row of queries, the first `heads * D` columns of `q` `[T, ..]`,
    /// against the keys and values of its sequence's positions up to its own; gives
    /// `[T, heads * D]`. The rows' own keys and values must have been stored before.
    ///
    /// # Errors
    /// Shapes that do not fit each other or the pool.
    pub fn run(&mut self, q: View, kv: &KvLayer, scale: f32, out: &mut Matrix) -> Result<()> {
        let Self { seqs, heads, blocks, .. } = *self;
        let (t, columns) = q.dims();
        let width = heads.q * heads.size;
        let of_pool = (kv.kv_heads(), kv.head_dim(), kv.blocks());
        if (t, of_pool) != (seqs.rows(), (heads.kv, heads.size, blocks)) || columns < width {
            bail!(
                "attention: q is [{t}, {columns}] for {} rows of {heads:?}; the pool has KV heads, columns and blocks \
                 {of_pool:?}, planned were {blocks} blocks",
                seqs.rows()
            );
        }
        match (&kv.store, q.numbers) {
            (Store::Cpu(pages), Seen::Host(q)) => {
                let out = out.host(t, width);
                match pages {
                    AnyPages::F32(pages) => {
                        self.work.run(&cpu::Batch { q, columns, pages, seqs, heads, scale }, out)
                    }
                    AnyPages::F16(pages) => {
                        self.work.run(&cpu::Batch { q, columns, pages, seqs, heads, scale }, out)
                    }
                }
            }
            (Store::Tensor(pages), Seen::Device(q)) => {
                let q = q.narrow(1, 0, width)?;
                let most = portable::PIECE_BYTES;
                out.put(portable::paged_attention(&q, pages, heads, seqs, scale, most)?)
            }
            _ => bail!("attention: the queries lie on another device than the pool"),
        }
    }
}

#[cfg(test)]
mod tests;
