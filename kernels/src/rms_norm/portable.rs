//! On any candle device.

use crate::rope::Heads;
use candle_core::{D, Result, Tensor};

/// See [`super::rms_norm`].
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + eps)?.sqrt()?)?.broadcast_mul(weight)
}

/// See [`super::rms_norm_of_heads`]: `x` `[T, columns]`.
pub fn rms_norm_of_heads(x: &Tensor, heads: Heads, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let (t, columns) = x.dims2()?;
    let (width, weight) = (heads.count * heads.size, weight.reshape((heads.count, heads.size))?);
    let normed = x.narrow(1, 0, width)?.reshape((t, heads.count, heads.size))?;
    let normed = rms_norm(&normed, &weight, eps)?.reshape((t, width))?;
    Tensor::cat(&[normed, x.narrow(1, width, columns - width)?], 1)
}
