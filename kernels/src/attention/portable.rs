//! On any candle device: each sequence's pages are gathered, then dense products with a mask.

use crate::kv::{TensorPages, VarLen};
use candle_core::{D, DType, Device, Result, Tensor};

/// See [`super::PagedAttention::run`].
pub fn paged_attention(
    q: &Tensor,
    pages: &TensorPages,
    kv_heads: usize,
    seqs: &VarLen,
    scale: f32,
) -> Result<Tensor> {
    let (_, heads, d) = q.dims3()?;
    let mut out = Vec::with_capacity(seqs.kv_lens.len());
    for (s, &len) in seqs.kv_lens.iter().enumerate() {
        let first = seqs.query_starts[s] as usize;
        let rows = seqs.query_starts[s + 1] as usize - first;
        if rows > 0 {
            let (k, v) = pages.gather(&seqs.block_tables[s], len as usize)?;
            let q = q.narrow(0, first, rows)?;
            out.push(one_sequence(&q, &k, &v, kv_heads, scale)?.reshape((rows, heads * d))?);
        }
    }
    Tensor::cat(&out, 0)
}

/// `q` `[rows, heads, d]`, `k` and `v` `[len, kv_heads, d]`, to `[rows, heads, d]`.
fn one_sequence(q: &Tensor, k: &Tensor, v: &Tensor, kv_heads: usize, scale: f32) -> Result<Tensor> {
    let (rows, heads, d) = q.dims3()?;
    let (len, group) = (k.dims()[0], heads / kv_heads);
    // [kv_heads, group * rows, d]: the group's heads share one product.
    let q = q.reshape((rows, kv_heads, group, d))?.permute((1, 2, 0, 3))?;
    let q = q.reshape((kv_heads, group * rows, d))?.contiguous()?;
    let k = k.permute((1, 2, 0))?.contiguous()?;
    let v = v.permute((1, 0, 2))?.contiguous()?;
    let scores = (q.matmul(&k)? * f64::from(scale))?;
    let scores = scores.broadcast_add(&causal_mask(group, rows, len, q.device())?)?;
    let largest = scores.max_keepdim(D::Minus1)?;
    let weights = scores.broadcast_sub(&largest)?.exp()?;
    let total = weights.sum_keepdim(D::Minus1)?;
    let out = weights.matmul(&v)?.broadcast_div(&total)?;
    out.reshape((kv_heads, group, rows, d))?.permute((2, 0, 1, 3))?.reshape((rows, heads, d))
}

/// `[1, group * rows, len]`: 0 where a row sees a position, -inf where it does not.
fn causal_mask(group: usize, rows: usize, len: usize, device: &Device) -> Result<Tensor> {
    let mask: Vec<f32> = (0..group * rows)
        .flat_map(|r| {
            let seen = len - rows + r % rows + 1;
            (0..len).map(move |p| if p < seen { 0.0 } else { f32::NEG_INFINITY })
        })
        .collect();
    Tensor::from_vec(mask, (1, group * rows, len), device)?.to_dtype(DType::F32)
}
