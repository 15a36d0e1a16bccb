//! Root-mean-square normalisation (Zhang & Sennrich 2019): `y = x / sqrt(mean(x²) + eps) · w`.

pub(crate) mod cpu;
pub mod portable;
pub mod reference;

use candle_core::{Result, Tensor, bail};

/// Normalises each row of `x` `[T, H]` (f32) and scales it by `weight` `[H]` (f32).
///
/// # Errors
/// Shapes or types that do not fit.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let (_, h) = x.dims2()?;
    if weight.dims() != [h] {
        bail!("rms_norm: weight has shape {:?}, rows have {h} columns", weight.dims());
    }
    if x.device().is_cpu() {
        cpu::rms_norm(x, weight, eps)
    } else {
        portable::rms_norm(x, weight, eps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};
    use candle_core::Device;

    #[test]
    fn every_version_equals_the_reference() -> Result<()> {
        for (t, h) in [(1, 1), (1, 16), (3, 17), (5, 576), (70, 4096)] {
            for magnitude in [1e-4, 1.0, 1e4] {
                let x = noise(t * h, 1, magnitude);
                let w = noise(h, 2, 1.0);
                let want = reference::rms_norm(&x, &w, 1e-5);
                let x = Tensor::from_vec(x, (t, h), &Device::Cpu)?;
                let w = Tensor::from_vec(w, h, &Device::Cpu)?;
                assert_close(&rms_norm(&x, &w, 1e-5)?, &want, 2e-6);
                assert_close(&portable::rms_norm(&x, &w, 1e-5)?, &want, 2e-6);
            }
        }
        Ok(())
    }

    #[test]
    fn a_weight_of_another_width_is_refused() -> Result<()> {
        let x = Tensor::zeros((2, 4), candle_core::DType::F32, &Device::Cpu)?;
        let w = Tensor::zeros(5, candle_core::DType::F32, &Device::Cpu)?;
        assert!(rms_norm(&x, &w, 1e-5).unwrap_err().to_string().contains("4 columns"));
        Ok(())
    }
}
