//! Causal attention over a paged KV cache, grouped-query heads, sequences of any lengths.

mod cpu;
pub mod portable;
pub mod reference;

use crate::kv::{AnyPages, KvLayer, Store, VarLen};
use candle_core::{Result, Tensor, bail};

/// `softmax(q kᵀ · scale) v` for every row of `q` `[T, heads, D]` (f32) against the keys and values
/// of its sequence's positions up to its own; gives `[T, heads * D]`. Query head `h` reads KV head
/// `h / (heads / kv_heads)`. The rows' own keys and values must have been stored before.
///
/// # Errors
/// Shapes that do not fit each other or the pool.
pub fn paged_attention(q: &Tensor, kv: &KvLayer, seqs: &VarLen, scale: f32) -> Result<Tensor> {
    let (t, heads, d) = q.dims3()?;
    if d != kv.head_dim() || heads % kv.kv_heads() != 0 || t != seqs.rows() {
        bail!(
            "attention: q is {:?} for {} rows, {} KV heads of {}",
            q.dims(),
            seqs.rows(),
            kv.kv_heads(),
            kv.head_dim()
        );
    }
    seqs.validate(kv.blocks())?;
    match &kv.store {
        Store::Cpu(AnyPages::F32(pages)) => {
            cpu::paged_attention(q, pages, kv.kv_heads(), seqs, scale)
        }
        Store::Cpu(AnyPages::F16(pages)) => {
            cpu::paged_attention(q, pages, kv.kv_heads(), seqs, scale)
        }
        Store::Tensor(pages) => portable::paged_attention(q, pages, kv.kv_heads(), seqs, scale),
    }
}

#[cfg(test)]
mod tests;
