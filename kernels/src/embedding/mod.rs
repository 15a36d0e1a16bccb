//! The token embedding: a row of the table per token id.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Result, Tensor, bail};

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
        dtype: GgmlDType,
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
    /// A tensor that is not `[vocab, hidden]` with whole blocks in a row.
    pub fn from_quantized(table: &QTensor) -> Result<Self> {
        let (vocab, hidden) = table.shape().dims2()?;
        let dtype = table.dtype();
        if hidden % dtype.block_size() != 0 {
            bail!("embedding: {hidden} columns are no whole blocks of {dtype:?}");
        }
        let bytes = table.data()?.into_owned();
        let device = table.device();
        Ok(Self { table: Table::Quantized { bytes, dtype }, vocab, hidden, device })
    }

    /// Rows of `ids`, `[ids.len(), hidden]` f32.
    ///
    /// # Errors
    /// An id beyond the vocabulary.
    pub fn gather(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
            bail!("embedding: token {id} is beyond the vocabulary of {}", self.vocab);
        }
        match &self.table {
            Table::Dense(table) => {
                let index = Tensor::from_slice(ids, ids.len(), &self.device)?;
                table.index_select(&index, 0)?.to_dtype(DType::F32)
            }
            Table::Quantized { bytes, dtype } => self.widen(bytes, *dtype, ids),
        }
    }

    fn widen(&self, bytes: &[u8], dtype: GgmlDType, ids: &[u32]) -> Result<Tensor> {
        let row_bytes = self.hidden / dtype.block_size() * dtype.type_size();
        let rows: Vec<u8> = ids
            .iter()
            .flat_map(|&id| &bytes[id as usize * row_bytes..][..row_bytes])
            .copied()
            .collect();
        let shape = (ids.len(), self.hidden);
        let storage =
            candle_core::quantized::QStorage::from_data(rows.into(), &Device::Cpu, dtype)?;
        QTensor::new(storage, shape)?.dequantize(&Device::Cpu)?.to_device(&self.device)
    }

    /// Memory that the table takes.
    pub fn bytes(&self) -> usize {
        match &self.table {
            Table::Dense(t) => t.elem_count() * t.dtype().size_in_bytes(),
            Table::Quantized { bytes, .. } => bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn quantised_rows_equal_the_widened_table() -> Result<()> {
        let table = Tensor::from_vec(noise(10 * 64, 5, 1.0), (10, 64), &Device::Cpu)?;
        let quantized = QTensor::quantize(&table, GgmlDType::Q8_0)?;
        let wide = quantized.dequantize(&Device::Cpu)?;
        let ids = [3u32, 9, 0, 3];
        let got = Embedding::from_quantized(&quantized)?.gather(&ids)?;
        let want = Embedding::from_tensor(&wide)?.gather(&ids)?;
        assert_eq!(got.to_vec2::<f32>()?, want.to_vec2::<f32>()?);
        Ok(())
    }

    #[test]
    fn an_id_beyond_the_vocabulary_is_refused() -> Result<()> {
        let table = Tensor::zeros((4, 32), DType::F32, &Device::Cpu)?;
        let error = Embedding::from_tensor(&table)?.gather(&[4]).unwrap_err().to_string();
        assert!(error.contains("token 4"), "{error}");
        Ok(())
    }
}
