//! Attention in which every token of a text sees all of its tokens.
//!
//! Texts lie one behind the other, without padding. For each text and head both products, scores
//! and weighted values, run on the kernel of the linear layers, with keys or values as weights:
//! its sums have one fixed order, so that a text's result does not depend on its neighbours.

use super::functions::softmax;
use crate::error::Result;
use candle_core::{Device, Tensor};
use kernels::linear::Linear;

/// `qkv` `[T, 3 hidden]` (all heads of q, then k, then v) to the heads' results side by side,
/// `[T, hidden]`; `lengths` are the texts' numbers of tokens and add up to T.
pub(super) fn attend(qkv: &Tensor, lengths: &[usize], heads: usize) -> Result<Tensor> {
    let (rows, columns) = qkv.dims2()?;
    let values = qkv.flatten_all()?.to_vec1::<f32>()?;
    let hidden = columns / 3;
    let mut out = vec![0f32; rows * hidden];
    let mut first = 0;
    for &tokens in lengths {
        let end = first + tokens;
        let text = Text { qkv: &values[first * columns..end * columns], tokens, hidden };
        for head in 0..heads {
            text.attend(head, hidden / heads, &mut out[first * hidden..end * hidden])?;
        }
        first = end;
    }
    Ok(Tensor::from_vec(out, (rows, hidden), &Device::Cpu)?)
}

/// Rows of `[T, 3 hidden]` that belong to one text.
struct Text<'a> {
    qkv: &'a [f32],
    tokens: usize,
    hidden: usize,
}

impl Text<'_> {
    /// One head of `size` elements; writes its columns of `out` `[tokens, hidden]`.
    fn attend(&self, head: usize, size: usize, out: &mut [f32]) -> Result<()> {
        let column = head * size;
        let scale = 1.0 / (size as f32).sqrt();
        let mut q = self.columns(column, size);
        q.iter_mut().for_each(|x| *x *= scale);
        let q = Tensor::from_vec(q, (self.tokens, size), &Device::Cpu)?;
        let weights = self.weights(&q, self.columns(self.hidden + column, size))?;
        let values = self.transposed(2 * self.hidden + column, size);
        let values = Tensor::from_vec(values, (size, self.tokens), &Device::Cpu)?;
        let result = Linear::from_tensor(&values)?.forward(&weights)?;
        let result = result.flatten_all()?.to_vec1::<f32>()?;
        for (row, result) in out.chunks_exact_mut(self.hidden).zip(result.chunks_exact(size)) {
            row[column..][..size].copy_from_slice(result);
        }
        Ok(())
    }

    /// How much of each token's value each token takes: `[tokens, tokens]`, rows that add up to 1.
    fn weights(&self, q: &Tensor, keys: Vec<f32>) -> Result<Tensor> {
        let shape = (self.tokens, keys.len() / self.tokens);
        let keys = Tensor::from_vec(keys, shape, &Device::Cpu)?;
        let scores = Linear::from_tensor(&keys)?.forward(q)?;
        let mut scores = scores.flatten_all()?.to_vec1::<f32>()?;
        softmax(&mut scores, self.tokens);
        Ok(Tensor::from_vec(scores, (self.tokens, self.tokens), &Device::Cpu)?)
    }

    /// Some columns of all rows, `[tokens, count]`.
    fn columns(&self, first: usize, count: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.tokens * count);
        for row in self.qkv.chunks_exact(3 * self.hidden) {
            out.extend_from_slice(&row[first..][..count]);
        }
        out
    }

    /// The same with rows and columns exchanged, `[count, tokens]`.
    fn transposed(&self, first: usize, count: usize) -> Vec<f32> {
        let mut out = vec![0f32; count * self.tokens];
        for (token, row) in self.qkv.chunks_exact(3 * self.hidden).enumerate() {
            for (i, &value) in row[first..][..count].iter().enumerate() {
                out[i * self.tokens + token] = value;
            }
        }
        out
    }
}
