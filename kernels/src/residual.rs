//! The sum of the residual stream and what a block adds to it.

use crate::host::{Shared, for_each_task, pieces, with_f32};
use candle_core::{Result, Tensor, bail};

/// Elements that one task adds.
const PIECE: usize = 1 << 15;

/// `x + y`, elementwise, f32, of equal shapes.
///
/// (candle's own sum would do; but it brings a second pool of threads, which spin while they wait
/// and so take the processor from everything else here.)
///
/// # Errors
/// Different shapes, or another type.
pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if x.dims() != y.dims() {
        bail!("add: {:?} and {:?}", x.dims(), y.dims());
    }
    if !x.device().is_cpu() {
        return x + y;
    }
    let len = x.elem_count();
    let mut out = vec![0f32; len];
    with_f32(x, "add: x", |x| {
        with_f32(y, "add: y", |y| {
            let shared = Shared::new(&mut out);
            let pieces = pieces(len, PIECE);
            for_each_task(len.div_ceil(PIECE), len, |task| {
                let piece = pieces(task);
                // SAFETY: pieces do not overlap.
                let out = unsafe {
                    std::slice::from_raw_parts_mut(shared.at(piece.start), piece.len())
                };
                let sums = x[piece.clone()].iter().zip(&y[piece]).map(|(x, y)| x + y);
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum);
            });
            Ok(())
        })
    })?;
    Tensor::from_vec(out, x.dims(), x.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};
    use candle_core::Device;

    #[test]
    fn sums_are_elementwise() -> Result<()> {
        for len in [1, 17, 100_000] {
            let (x, y) = (noise(len, 1, 1.0), noise(len, 2, 1.0));
            let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            let x = Tensor::from_vec(x, (1, len), &Device::Cpu)?;
            let y = Tensor::from_vec(y, (1, len), &Device::Cpu)?;
            assert_close(&add(&x, &y)?, &want, 0.0);
            assert!(add(&x, &y.t()?).is_err() || len == 1);
        }
        Ok(())
    }
}
