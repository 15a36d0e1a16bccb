//! The layout for candle's tensor operations: `[blocks * BLOCK, kv_heads, head_dim]`, row = slot.

use super::{BLOCK, KvDtype, KvShape};
use candle_core::{DType, Device, Result, Tensor};
use std::ops::Range;

#[derive(Debug)]
pub struct TensorPages {
    keys: Tensor,
    values: Tensor,
}

impl TensorPages {
    pub fn new(shape: KvShape, device: &Device) -> Result<Self> {
        let rows = (shape.blocks * BLOCK, shape.kv_heads, shape.head_dim);
        let dtype = match shape.dtype {
            KvDtype::F32 => DType::F32,
            KvDtype::F16 => DType::F16,
        };
        let zeros = || Tensor::zeros(rows, dtype, device);
        Ok(Self { keys: zeros()?, values: zeros()? })
    }

    /// Keys and values are the last columns of `rows`.
    pub fn store(&mut self, rows: &Tensor, slots: &[u32]) -> Result<()> {
        let (t, columns) = rows.dims2()?;
        let (_, heads, size) = self.keys.dims3()?;
        let width = heads * size;
        let k = rows.narrow(1, columns - 2 * width, width)?.reshape((t, heads, size))?;
        let v = rows.narrow(1, columns - width, width)?.reshape((t, heads, size))?;
        for (row, slot, len) in runs(slots) {
            for (pool, new) in [(&self.keys, &k), (&self.values, &v)] {
                let rows = new.narrow(0, row, len)?.to_dtype(pool.dtype())?.contiguous()?;
                pool.slice_set(&rows, 0, slot)?;
            }
        }
        Ok(())
    }

    pub fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        for pool in [&self.keys, &self.values] {
            let block = pool.narrow(0, from as usize * BLOCK, BLOCK)?.copy()?;
            pool.slice_set(&block, 0, to as usize * BLOCK)?;
        }
        Ok(())
    }

    /// Keys and values of some positions of a sequence, `[kv_heads, positions, head_dim]`, f32.
    pub fn gather(&self, table: &[u32], positions: Range<usize>) -> Result<(Tensor, Tensor)> {
        let slots: Vec<u32> =
            positions.map(|p| table[p / BLOCK] * BLOCK as u32 + (p % BLOCK) as u32).collect();
        let index = Tensor::from_slice(&slots, slots.len(), self.keys.device())?;
        let rows = |pool: &Tensor| {
            pool.index_select(&index, 0)?.transpose(0, 1)?.contiguous()?.to_dtype(DType::F32)
        };
        Ok((rows(&self.keys)?, rows(&self.values)?))
    }
}

/// Maximal runs of consecutive slots: (first row, first slot, length).
fn runs(slots: &[u32]) -> Vec<(usize, usize, usize)> {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for (row, &slot) in slots.iter().enumerate() {
        match runs.last_mut() {
            Some((_, first, len)) if *first + *len == slot as usize => *len += 1,
            _ => runs.push((row, slot as usize, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn runs_join_consecutive_slots() {
        assert_eq!(runs(&[4, 5, 6, 32, 7, 8]), [(0, 4, 3), (3, 32, 1), (4, 7, 2)]);
        assert!(runs(&[]).is_empty());
    }
}
