//! Root-mean-square normalisation (Zhang & Sennrich 2019): `y = x / sqrt(mean(x²) + eps) · w`.

pub(crate) mod cpu;
pub mod portable;
pub mod reference;

use crate::host::with_f32;
use crate::matrix::{Changed, Matrix, Seen, View};
use crate::rope::Heads;
use candle_core::{Result, Tensor, bail};

/// Normalises each row of `x` `[T, H]` and scales it by `weight` `[H]` (f32).
///
/// # Errors
/// Shapes or types that do not fit.
pub fn rms_norm(x: View, weight: &Tensor, eps: f64, out: &mut Matrix) -> Result<()> {
    let (t, h) = x.dims();
    if weight.dims() != [h] {
        bail!("rms_norm: weight has shape {:?}, rows have {h} columns", weight.dims());
    }
    match x.numbers {
        Seen::Host(x) => with_f32(weight, "rms_norm: weight", |weight| {
            cpu::rms_norm(x, weight, eps, out.host(t, h));
            Ok(())
        }),
        Seen::Device(x) => out.put(portable::rms_norm(&x, weight, eps)?),
    }
}

/// Normalises, in place, each of `heads` in each row of `x` `[T, ..]` by itself and scales it by its
/// part of `weight` `[count * size]` (f32). What comes after the heads stays as it is.
///
/// # Errors
/// Shapes or types that do not fit.
pub fn rms_norm_of_heads(x: &mut Matrix, heads: Heads, weight: &Tensor, eps: f64) -> Result<()> {
    let ((_, columns), width) = (x.dims(), heads.count * heads.size);
    if weight.dims() != [width] || width > columns {
        let weight = weight.dims();
        bail!("rms_norm: weight has shape {weight:?}, rows of {columns} columns have {heads:?}");
    }
    match x.change() {
        Changed::Host(x) => with_f32(weight, "rms_norm: weight", |weight| {
            cpu::rms_norm_of_heads(x, columns, heads, weight, eps);
            Ok(())
        }),
        Changed::Device(x) => {
            *x = portable::rms_norm_of_heads(x, heads, weight, eps)?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::testing::{assert_close, assert_tensor_close, matrix};
    use crate::testing::noise;
    use candle_core::Device;

    #[test]
    fn every_version_equals_the_reference() -> Result<()> {
        for (t, h) in [(1, 1), (1, 16), (3, 17), (5, 576), (70, 4096)] {
            for magnitude in [1e-4, 1.0, 1e4] {
                let x = noise(t * h, 1, magnitude);
                let w = noise(h, 2, 1.0);
                let want = reference::rms_norm(&x, &w, 1e-5);
                let (x, w) = (matrix(x, h), Tensor::from_vec(w, h, &Device::Cpu)?);
                let mut got = Matrix::default();
                rms_norm(x.view(), &w, 1e-5, &mut got)?;
                assert_close(&got, &want, 2e-6);
                let got = portable::rms_norm(&x.to_tensor()?, &w, 1e-5)?;
                assert_tensor_close(&got, &want, 2e-6);
            }
        }
        Ok(())
    }

    #[test]
    fn heads_are_normed_one_by_one() -> Result<()> {
        for (t, count, size, columns) in [(1, 1, 8, 8), (5, 3, 64, 200), (40, 7, 20, 147)] {
            let (x, w) = (noise(t * columns, 3, 4.0), noise(count * size, 4, 1.0));
            let width = count * size;
            let mut want = x.clone();
            for row in want.chunks_mut(columns) {
                for (head, w) in row[..width].chunks_mut(size).zip(w.chunks(size)) {
                    head.copy_from_slice(&reference::rms_norm(head, w, 1e-6));
                }
            }
            let (mut x, w) = (matrix(x, columns), Tensor::from_vec(w, width, &Device::Cpu)?);
            let heads = Heads { count, size };
            let portable = portable::rms_norm_of_heads(&x.to_tensor()?, heads, &w, 1e-6)?;
            assert_tensor_close(&portable, &want, 2e-6);
            rms_norm_of_heads(&mut x, heads, &w, 1e-6)?;
            assert_close(&x, &want, 2e-6);
        }
        Ok(())
    }

    #[test]
    fn a_weight_of_another_width_is_refused() -> Result<()> {
        let (x, mut out) = (matrix(vec![0.0; 8], 4), Matrix::default());
        let w = Tensor::zeros(5, candle_core::DType::F32, &Device::Cpu)?;
        let error = rms_norm(x.view(), &w, 1e-5, &mut out).unwrap_err().to_string();
        assert!(error.contains("4 columns"), "{error}");
        Ok(())
    }
}
