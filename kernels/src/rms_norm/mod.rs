//! Root-mean-square normalisation (Zhang & Sennrich 2019): `y = x / sqrt(mean(x²) + eps) · w`.

pub(crate) mod cpu;
pub mod portable;
pub mod reference;

use crate::host::with_f32;
use crate::matrix::{Matrix, Seen, View};
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
    fn a_weight_of_another_width_is_refused() -> Result<()> {
        let (x, mut out) = (matrix(vec![0.0; 8], 4), Matrix::default());
        let w = Tensor::zeros(5, candle_core::DType::F32, &Device::Cpu)?;
        let error = rms_norm(x.view(), &w, 1e-5, &mut out).unwrap_err().to_string();
        assert!(error.contains("4 columns"), "{error}");
        Ok(())
    }
}
