//! On any candle device.

use candle_core::{D, Result, Tensor};

/// See [`super::silu_mul`].
pub fn silu_mul(gate_up: &Tensor) -> Result<Tensor> {
    let f = gate_up.dim(D::Minus1)? / 2;
    let gate = gate_up.narrow(D::Minus1, 0, f)?.contiguous()?;
    let up = gate_up.narrow(D::Minus1, f, f)?.contiguous()?;
    gate.silu()?.mul(&up)
}
