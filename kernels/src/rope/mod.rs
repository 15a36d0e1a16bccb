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

use crate::host::with_f32;
use crate::matrix::{Changed, Matrix};
use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

/// Positions that one task tabulates at least.
const ROWS: usize = 256;

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

/// One row per position, each of `f` of [`angle`], times `factor`. Long contexts have hundreds of millions of entries, so
/// all threads make it.
pub fn table(inv_freq: &[f64], positions: usize, factor: f64, f: fn(f64) -> f64) -> Vec<f32> {
    let mut table = vec![0.0; positions * inv_freq.len()];
    let rows = table.par_chunks_mut(inv_freq.len().max(1)).with_min_len(ROWS).enumerate();
    rows.for_each(|(position, row)| {
        for (entry, &w) in row.iter_mut().zip(inv_freq) {
            *entry = (f(angle(position as u32, w)) * factor) as f32;
        }
    });
    table
}

impl RopeTable {
    /// One row per position, each of the cosines and sines of [`angle`]. `factor` scales both
    /// tables (1 for all schemes but yarn).
    ///
    /// # Errors
    /// A device that is out of memory.
    pub fn new(inv_freq: &[f64], positions: usize, factor: f64, device: &Device) -> Result<Self> {
        let angles = |f| table(inv_freq, positions, factor, f);
        let shape = (positions, inv_freq.len());
        Ok(Self {
            cos: Tensor::from_vec(angles(f64::cos), shape, device)?,
            sin: Tensor::from_vec(angles(f64::sin), shape, device)?,
        })
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        [&self.cos, &self.sin].map(|t| t.elem_count() * t.dtype().size_in_bytes()).iter().sum()
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

/// Heads at the beginning of each row.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub count: usize,
    /// Columns of a head.
    pub size: usize,
}

/// Rotates, in place, the first [`RopeTable::rotated`] columns of each of `heads` in each row of `x`
/// `[T, ..]` by the angle of the row's position; `positions` has `T` entries. What comes after the
/// heads stays as it is.
///
/// # Errors
/// Shapes that do not fit, or a position beyond the table.
pub fn rope(
    x: &mut Matrix,
    heads: Heads,
    positions: &[u32],
    table: &RopeTable,
    style: RopeStyle,
) -> Result<()> {
    let ((t, columns), rotated) = (x.dims(), table.rotated());
    if positions.len() != t || rotated > heads.size || heads.count * heads.size > columns {
        bail!(
            "rope: {} positions for {t} rows of {columns} columns, {rotated} rotated in each of {heads:?}",
            positions.len(),
        );
    }
    if let Some(p) = positions.iter().find(|&&p| p as usize >= table.positions()) {
        bail!("rope: position {p} lies beyond the table of {}", table.positions());
    }
    match x.change() {
        Changed::Host(x) => with_f32(&table.cos, "rope: cos", |cos| {
            with_f32(&table.sin, "rope: sin", |sin| {
                let tables = cpu::Tables { cos, sin, half: rotated / 2 };
                cpu::rope(x, columns, heads, positions, &tables, style);
                Ok(())
            })
        }),
        Changed::Device(x) => {
            *x = portable::rope_of_first(x, heads, positions, table, style)?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::testing::{assert_close, assert_tensor_close, matrix};
    use crate::testing::noise;

    #[test]
    fn every_version_equals_the_reference() -> Result<()> {
        let inv_freq: Vec<f64> = (0..16).map(|i| 5e5f64.powf(-f64::from(i) / 16.0)).collect();
        let table = RopeTable::new(&inv_freq, 65_000, 1.0, &Device::Cpu)?;
        let positions = [0, 1, 7, 64_000, 64_999];
        for style in [RopeStyle::HalfSplit, RopeStyle::Interleaved] {
            for (heads, d) in [(1, 32), (3, 64), (2, 33)] {
                let x = noise(positions.len() * heads * d, 4, 3.0);
                let want = reference::rope(&x, &positions, &inv_freq, heads, d, style);
                let mut got = matrix(x, heads * d);
                let x = got.to_tensor()?;
                let heads = Heads { count: heads, size: d };
                rope(&mut got, heads, &positions, &table, style)?;
                assert_close(&got, &want, 1e-6);
                let got = portable::rope_of_first(&x, heads, &positions, &table, style)?;
                assert_tensor_close(&got, &want, 1e-6);
            }
        }
        Ok(())
    }

    #[test]
    fn threads_make_the_table_that_one_makes() -> Result<()> {
        let inv_freq = [1.0, 0.3, 1e-4];
        let table = table(&inv_freq, 5000, 1.2, f64::sin);
        let row = |p| inv_freq.map(|w| (angle(p, w).sin() * 1.2) as f32);
        assert_eq!(table, (0..5000).flat_map(row).collect::<Vec<f32>>());
        let table = RopeTable::new(&inv_freq, 5000, 1.2, &Device::Cpu)?;
        assert_eq!((table.positions(), table.bytes()), (5000, 5000 * 3 * 4 * 2));
        Ok(())
    }

    #[test]
    fn what_comes_after_the_heads_stays() -> Result<()> {
        let table = RopeTable::new(&[1.0, 0.1], 9, 1.0, &Device::Cpu)?;
        let (x, heads) = (noise(2 * 20, 5, 1.0), Heads { count: 3, size: 5 });
        for style in [RopeStyle::HalfSplit, RopeStyle::Interleaved] {
            let mut got = matrix(x.clone(), 20);
            let portable =
                portable::rope_of_first(&got.to_tensor()?, heads, &[3, 8], &table, style)?;
            rope(&mut got, heads, &[3, 8], &table, style)?;
            let numbers = got.view().read()?.into_owned();
            for (row, x) in numbers.chunks(20).zip(x.chunks(20)) {
                assert_eq!(row[15..], x[15..]);
                assert_eq!((row[4], row[9], row[14]), (x[4], x[9], x[14]));
            }
            assert_tensor_close(&portable, &numbers, 1e-6);
        }
        Ok(())
    }

    #[test]
    fn a_position_beyond_the_table_is_refused() -> Result<()> {
        let table = RopeTable::new(&[1.0], 4, 1.0, &Device::Cpu)?;
        let (mut x, heads) = (matrix(vec![0.0; 2], 2), Heads { count: 1, size: 2 });
        let error =
            rope(&mut x, heads, &[4], &table, RopeStyle::HalfSplit).unwrap_err().to_string();
        assert!(error.contains("position 4"), "{error}");
        Ok(())
    }
}
