//! On any candle device.

use super::{Heads, RopeStyle, RopeTable};
use candle_core::{D, Result, Tensor};

/// See [`super::rope`]: `x` `[T, columns]`.
pub fn rope_of_first(
    x: &Tensor,
    heads: Heads,
    positions: &[u32],
    table: &RopeTable,
    style: RopeStyle,
) -> Result<Tensor> {
    let (t, columns) = x.dims2()?;
    let width = heads.count * heads.size;
    let turned = x.narrow(1, 0, width)?.reshape((t, heads.count, heads.size))?;
    let turned = rope(&turned, positions, table, style)?.reshape((t, width))?;
    Tensor::cat(&[turned, x.narrow(1, width, columns - width)?], 1)
}

/// `x` `[T, heads, D]`.
fn rope(x: &Tensor, positions: &[u32], table: &RopeTable, style: RopeStyle) -> Result<Tensor> {
    let (t, heads, d) = x.dims3()?;
    let (rotated, half) = (table.rotated(), table.rotated() / 2);
    let index = Tensor::from_slice(positions, t, x.device())?;
    let cos = table.cos.index_select(&index, 0)?.unsqueeze(1)?;
    let sin = table.sin.index_select(&index, 0)?.unsqueeze(1)?;
    let turned = x.narrow(D::Minus1, 0, rotated)?;
    let (a, b) = match style {
        RopeStyle::HalfSplit => {
            (turned.narrow(D::Minus1, 0, half)?, turned.narrow(D::Minus1, half, half)?)
        }
        RopeStyle::Interleaved => {
            let pairs = turned.reshape((t, heads, half, 2))?;
            (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?)
        }
    };
    let new_a = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let new_b = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let turned = match style {
        RopeStyle::HalfSplit => Tensor::cat(&[new_a, new_b], D::Minus1)?,
        RopeStyle::Interleaved => {
            Tensor::stack(&[new_a, new_b], D::Minus1)?.reshape((t, heads, rotated))?
        }
    };
    if rotated == d {
        return Ok(turned);
    }
    Tensor::cat(&[turned, x.narrow(D::Minus1, rotated, d - rotated)?], D::Minus1)
}
