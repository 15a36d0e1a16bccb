//! SwiGLU's elementwise half (Shazeer 2020): `silu(gate) · up`, `silu(x) = x / (1 + e^-x)`.

pub(crate) mod cpu;
pub mod portable;
pub mod reference;

use crate::matrix::{Matrix, Seen, View};
use candle_core::{Result, bail};

/// `gate_up` `[T, 2 F]` holds a row's gate, then its up half; gives `[T, F]`.
///
/// # Errors
/// An odd number of columns.
pub fn silu_mul(gate_up: View, out: &mut Matrix) -> Result<()> {
    let (t, columns) = gate_up.dims();
    if columns % 2 != 0 {
        bail!("silu_mul: {columns} columns can't be halved into gate and up");
    }
    let f = columns / 2;
    match gate_up.numbers {
        Seen::Host(gate_up) => cpu::silu_mul(gate_up, f, out.host(t, f)),
        Seen::Device(gate_up) => out.put(portable::silu_mul(&gate_up)?)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::testing::{assert_close, assert_tensor_close, matrix};
    use crate::testing::noise;

    #[test]
    fn every_version_equals_the_reference() -> Result<()> {
        for (t, f) in [(1, 1), (2, 15), (3, 16), (5, 1536), (33, 100)] {
            for magnitude in [0.1, 10.0, 200.0] {
                let x = noise(t * 2 * f, 3, magnitude);
                let want = reference::silu_mul(&x, f);
                let (x, mut got) = (matrix(x, 2 * f), Matrix::default());
                silu_mul(x.view(), &mut got)?;
                assert_close(&got, &want, 1e-6);
                assert_tensor_close(&portable::silu_mul(&x.to_tensor()?)?, &want, 1e-6);
            }
        }
        Ok(())
    }
}
