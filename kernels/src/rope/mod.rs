//! Rotary position embedding (Su et al. 2021): pairs of a head's columns are rotated by an angle
//! proportional to the token's position.
//!
//! ```text
//! rotated = 8 of D = 12 columns      pairs (a, b): (a, b) -> (a cos - b sin, b cos + a sin)
//!
//! half-split    0 1 2 3 | 4 5 6 7 | 8 9 10 11        pairs (0,4) (1,5) (2,6) (3,7), rest unchanged
//! interleaved   0 1 | 2 3 | 4 5 | 6 7 | 8 9 10 11    pairs (0,1) (2,3) (4,5) (6,7), rest unchanged
//! ```

mod cpu;
pub mod portable;
pub mod reference;

use candle_core::{Device, Result, Tensor, bail};

/// Which columns of a head form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Column `i` with `i + rotated / 2` (checkpoints in the Hugging Face layout of Llama).
    HalfSplit,
    /// Column `2 i` with `2 i + 1` (GLM-4; Llama in GGUF).
    Interleaved,
}

/// Cosines and sines of every position, `[positions, rotated / 2]` each, f32.
#[derive(Debug, Clone)]
pub struct RopeTable {
    cos: Tensor,
    sin: Tensor,
}

/// Angle of a pair at a position: the product is rounded to f32, its cosine and sine are not.
///
/// That is where the reference implementations round, and so what checkpoints were trained with.
/// At position 64,000 the exact product is up to 0.002 away, which moves log-probabilities by a
/// few thousandths. In bf16, positions up to 65,535 would collapse to 1,281 distinct ones.
pub fn angle(position: u32, inv_freq: f64) -> f64 {
    f64::from(position as f32 * inv_freq as f32)
}

impl RopeTable {
    /// One row per position, each of the cosines and sines of [`angle`]. `factor` scales both
    /// tables (1 for all schemes but yarn).
    ///
    /// # Errors
    /// A device that is out of memory.
    pub fn new(inv_freq: &[f64], positions: usize, factor: f64, device: &Device) -> Result<Self> {
        let angles = |f: fn(f64) -> f64| -> Vec<f32> {
            (0..positions)
                .flat_map(|p| {
                    inv_freq.iter().map(move |w| (f(angle(p as u32, *w)) * factor) as f32)
                })
                .collect()
        };
        let shape = (positions, inv_freq.len());
        Ok(Self {
            cos: Tensor::from_vec(angles(f64::cos), shape, device)?,
            sin: Tensor::from_vec(angles(f64::sin), shape, device)?,
        })
    }

    /// Positions that the table covers.
    pub fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Columns of a head that are rotated.
    pub fn rotated(&self) -> usize {
        2 * self.cos.dims()[1]
    }
}

/// Rotates the first [`RopeTable::rotated`] columns of each head of `x` `[T, heads, D]` (f32) by
/// the angle of its row's position; `positions` has `T` entries.
///
/// # Errors
/// Shapes that do not fit, or a position beyond the table.
pub fn rope(x: &Tensor, positions: &[u32], table: &RopeTable, style: RopeStyle) -> Result<Tensor> {
    let (t, _, d) = x.dims3()?;
    if positions.len() != t || table.rotated() > d {
        bail!(
            "rope: {} positions for {t} rows, {} rotated columns of {d}",
            positions.len(),
            table.rotated()
        );
    }
    if let Some(p) = positions.iter().find(|&&p| p as usize >= table.positions()) {
        bail!("rope: position {p} lies beyond the table of {}", table.positions());
    }
    if x.device().is_cpu() {
        cpu::rope(x, positions, table, style)
    } else {
        portable::rope(x, positions, table, style)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};

    #[test]
    fn every_version_equals_the_reference() -> Result<()> {
        let inv_freq: Vec<f64> = (0..16).map(|i| 5e5f64.powf(-f64::from(i) / 16.0)).collect();
        let table = RopeTable::new(&inv_freq, 65_000, 1.0, &Device::Cpu)?;
        let positions = [0, 1, 7, 64_000, 64_999];
        for style in [RopeStyle::HalfSplit, RopeStyle::Interleaved] {
            for (heads, d) in [(1, 32), (3, 64), (2, 33)] {
                let x = noise(positions.len() * heads * d, 4, 3.0);
                let want = reference::rope(&x, &positions, &inv_freq, heads, d, style);
                let x = Tensor::from_vec(x, (positions.len(), heads, d), &Device::Cpu)?;
                assert_close(&rope(&x, &positions, &table, style)?, &want, 1e-6);
                assert_close(&portable::rope(&x, &positions, &table, style)?, &want, 1e-6);
            }
        }
        Ok(())
    }

    #[test]
    fn a_position_beyond_the_table_is_refused() -> Result<()> {
        let table = RopeTable::new(&[1.0], 4, 1.0, &Device::Cpu)?;
        let x = Tensor::zeros((1, 1, 2), candle_core::DType::F32, &Device::Cpu)?;
        let error = rope(&x, &[4], &table, RopeStyle::HalfSplit).unwrap_err().to_string();
        assert!(error.contains("position 4"), "{error}");
        Ok(())
    }
}
