//! The token embedding: a row of the table per token id.

use crate::host::{for_each_piece, has_own};
use crate::linear::blocks::{Block, Format};
use crate::matrix::Matrix;
use candle_core::quantized::QTensor;
use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};
use half::slice::HalfFloatSliceExt;

/// A `[vocab, hidden]` table in the type that the checkpoint stores.
#[derive(Debug)]
pub struct Embedding {
    table: Table,
    vocab: usize,
    hidden: usize,
    device: Device,
}

#[derive(Debug)]
enum Table {
    Dense(Tensor),
    /// Rows stay in their blocks; those that a batch names are widened.
    Quantized {
        bytes: Vec<u8>,
        format: Format,
    },
}

impl Embedding {
    /// # Errors
    /// A tensor that is not `[vocab, hidden]`.
    pub fn from_tensor(table: &Tensor) -> Result<Self> {
        let (vocab, hidden) = table.dims2()?;
        let device = table.device().clone();
        Ok(Self { table: Table::Dense(table.contiguous()?), vocab, hidden, device })
    }

    /// # Errors
    /// A tensor that is not `[vocab, hidden]` with whole blocks in a row, or a block type that no
    /// file stores weights in.
    pub fn from_quantized(table: &QTensor) -> Result<Self> {
        let (vocab, hidden) = table.shape().dims2()?;
        let (dtype, format) = (table.dtype(), Format::of(table.dtype())?);
        if hidden % format.len != 0 {
            bail!("embedding: {hidden} columns are no whole blocks of {dtype:?}");
        }
        let bytes = table.data()?.into_owned();
        let device = table.device();
        Ok(Self { table: Table::Quantized { bytes, format }, vocab, hidden, device })
    }

    /// Rows of `ids`, `[ids.len(), hidden]`.
    ///
    /// # Errors
    /// An id beyond the vocabulary, or a device that is out of memory.
    pub fn gather(&self, ids: &[u32], out: &mut Matrix) -> Result<()> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
            bail!("embedding: token {id} is beyond the vocabulary of {}", self.vocab);
        }
        if has_own(&self.device) {
            return self.widen(ids, out.host(ids.len(), self.hidden));
        }
        if let Table::Dense(table) = &self.table {
            let index = Tensor::from_slice(ids, ids.len(), &self.device)?;
            return out.put(table.index_select(&index, 0)?.to_dtype(DType::F32)?);
        }
        let mut rows = vec![0.0; ids.len() * self.hidden];
        self.widen(ids, &mut rows)?;
        out.put(Tensor::from_vec(rows, (ids.len(), self.hidden), &self.device)?)
    }

    /// On the processor, where blocks lie in any case.
    fn widen(&self, ids: &[u32], out: &mut [f32]) -> Result<()> {
        let hidden = self.hidden;
        let operations = 4 * out.len();
        let rows = |out: &mut [f32], row: &(dyn Fn(usize, &mut [f32]) + Sync)| {
            for_each_piece(out, hidden, operations, |i, out| row(ids[i] as usize, out));
        };
        let table = match &self.table {
            Table::Dense(table) => table,
            Table::Quantized { bytes, format } => {
                let row_bytes = hidden / format.len * format.bytes;
                rows(out, &|id, out| widen(format, &bytes[id * row_bytes..][..row_bytes], out));
                return Ok(());
            }
        };
        let (storage, layout) = table.storage_and_layout();
        let row = |id: usize| {
            layout.start_offset() + id * hidden..layout.start_offset() + (id + 1) * hidden
        };
        match &*storage {
            Storage::Cpu(CpuStorage::F32(all)) => {
                rows(out, &|id, out| out.copy_from_slice(&all[row(id)]));
            }
            Storage::Cpu(CpuStorage::BF16(all)) => {
                rows(out, &|id, out| all[row(id)].convert_to_f32_slice(out));
            }
            Storage::Cpu(CpuStorage::F16(all)) => {
                rows(out, &|id, out| all[row(id)].convert_to_f32_slice(out));
            }
            _ => bail!(
                "embedding: a table of type {:?}; f32, bf16 and f16 can be read",
                table.dtype()
            ),
        }
        Ok(())
    }

    /// Memory that the table takes.
    pub fn bytes(&self) -> usize {
        match &self.table {
            Table::Dense(t) => t.elem_count() * t.dtype().size_in_bytes(),
            Table::Quantized { bytes, .. } => bytes.len(),
        }
    }
}

/// One row of blocks.
fn widen(format: &Format, bytes: &[u8], out: &mut [f32]) {
    let mut block = Block::new();
    for (bytes, out) in bytes.chunks_exact(format.bytes).zip(out.chunks_exact_mut(format.len)) {
        format.unpack(bytes, &mut block);
        format.widen(&block, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    fn rows(embedding: &Embedding, ids: &[u32]) -> Result<Vec<f32>> {
        let mut rows = Matrix::default();
        embedding.gather(ids, &mut rows)?;
        Ok(rows.view().read()?.into_owned())
    }

    /// candle's own reading of a block is the other opinion.
    #[test]
    fn rows_equal_those_of_the_widened_table() -> Result<()> {
        let table = Tensor::from_vec(noise(10 * 512, 5, 1.0), (10, 512), &Device::Cpu)?;
        let ids = [3u32, 9, 0, 3];
        let want = |wide: Tensor| {
            let index = Tensor::from_slice(&ids, ids.len(), &Device::Cpu)?;
            wide.index_select(&index, 0)?.flatten_all()?.to_vec1::<f32>()
        };
        for dtype in Format::ALL {
            let quantized = QTensor::quantize(&table, dtype)?;
            let got = rows(&Embedding::from_quantized(&quantized)?, &ids)?;
            assert_eq!(got, want(quantized.dequantize(&Device::Cpu)?)?, "{dtype:?}");
        }
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let table = table.to_dtype(dtype)?;
            let got = rows(&Embedding::from_tensor(&table)?, &ids)?;
            assert_eq!(got, want(table.to_dtype(DType::F32)?)?, "{dtype:?}");
        }
        Ok(())
    }

    #[test]
    fn an_id_beyond_the_vocabulary_is_refused() -> Result<()> {
        let table = Tensor::zeros((4, 32), DType::F32, &Device::Cpu)?;
        let error = rows(&Embedding::from_tensor(&table)?, &[4]).unwrap_err().to_string();
        assert!(error.contains("token 4"), "{error}");
        Ok(())
    }
}
