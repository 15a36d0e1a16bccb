//! SwiGLU's elementwise half (Shazeer 2020): `silu(gate) · up`, `silu(x) = x / (1 + e^-x)`.

pub(crate) mod cpu;
pub mod portable;
pub mod reference;

use candle_core::{Result, Tensor, bail};

/// `gate_up` `[T, 2 F]` (f32) holds a row's gate, then its up half; gives `[T, F]`.
///
/// # Errors
/// An odd number of columns, or another type than f32.
pub fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    let (_, columns) = gate_up.dims2()?;
    if columns % 2 != 0 {
        bail!("silu_mul: {columns} columns can't be halved into gate and up");
    }
    if gate_up.device().is_cpu() { cpu::silu_mul(gate_up) } else { portable::silu_mul(gate_up) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};
    use candle_core::Device;

    #[test]
    fn every_version_equals_the_reference() -> Result<()> {
        for (t, f) in [(1, 1), (2, 15), (3, 16), (5, 1536), (33, 100)] {
            for magnitude in [0.1, 10.0, 200.0] {
                let x = noise(t * 2 * f, 3, magnitude);
                let want = reference::silu_mul(&x, f);
                let x = Tensor::from_vec(x, (t, 2 * f), &Device::Cpu)?;
                assert_close(&silu_mul(&x)?, &want, 1e-6);
                assert_close(&portable::silu_mul(&x)?, &want, 1e-6);
            }
        }
        Ok(())
    }
}
