//! From named tensors to the operations of a layer: types widened where asked, q, k, v and gate, up
//! merged into one matrix product each.

use crate::error::{ModelError, Result};
use crate::spec::TensorSpec;
use crate::{DtypeChoice, LoadOptions};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use kernels::Arena;
use kernels::embedding::Embedding;
use kernels::linear::Linear;

/// A tensor as it is stored.
#[derive(Debug)]
pub enum Weight {
    /// f32, f16 or bf16.
    Dense(Tensor),
    /// Blocks of a GGML type.
    Quantized(QTensor),
}

/// Some of a tensor's numbers.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// As they are stored: two bytes each, the lower one first.
    Bf16(&'a [[u8; 2]]),
    F32(&'a [f32]),
}

/// Something that tensors can be taken from: a checkpoint, or seeded random numbers.
pub trait Weights {
    /// Bytes of all tensors that have not been taken.
    fn bytes(&self) -> u64;
    /// Whether there is a tensor of this name.
    fn has(&self, name: &str) -> bool;
    /// Hands a tensor over, once.
    ///
    /// # Errors
    /// Names file and tensor: not there, of another shape, of a type that can't be read.
    fn take(&mut self, tensor: &TensorSpec, device: &Device) -> Result<Weight>;
    /// As [`Weights::take`], but shows the tensor in pieces, in order, so that it never lies in
    /// memory as a whole.
    ///
    /// # Errors
    /// As [`Weights::take`], or those of `see`.
    fn read(
        &mut self,
        tensor: &TensorSpec,
        see: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()>;
    /// What to say if something is there that nobody took.
    fn left_over(&self) -> Option<ModelError>;
}

impl Weight {
    fn bytes(&self) -> u64 {
        match self {
            Self::Dense(t) => (t.elem_count() * t.dtype().size_in_bytes()) as u64,
            Self::Quantized(t) => t.storage_size_in_bytes() as u64,
        }
    }

    /// The same values in the type that the user chose. Quantised tensors stay quantised unless a
    /// type is asked for.
    fn converted(self, choice: DtypeChoice, device: &Device) -> Result<Self> {
        if choice == DtypeChoice::Q8_0 {
            let numbers = self.dense(device)?.to_dtype(DType::F32)?;
            return Ok(Self::Quantized(QTensor::quantize(&numbers, GgmlDType::Q8_0)?));
        }
        let Some(dtype) = choice.dtype() else { return Ok(self) };
        Ok(Self::Dense(self.dense(device)?.to_dtype(dtype)?))
    }

    fn dense(self, device: &Device) -> Result<Tensor> {
        Ok(match self {
            Self::Dense(t) => t,
            Self::Quantized(t) => t.dequantize(device)?,
        })
    }

    fn linear(&self, arena: &mut Arena) -> Result<Linear> {
        Ok(match self {
            Self::Dense(t) => Linear::from_tensor_in(t, arena)?,
            Self::Quantized(t) => Linear::from_quantized_in(t, arena)?,
        })
    }
}

/// Takes tensors and reports progress.
pub(crate) struct Loader<'a> {
    weights: &'a mut dyn Weights,
    options: &'a LoadOptions,
    progress: &'a mut dyn FnMut(u64, u64),
    /// Where packed matrices lie.
    arena: Arena,
    done: u64,
    total: u64,
}

impl<'a> Loader<'a> {
    pub fn new(
        weights: &'a mut dyn Weights,
        options: &'a LoadOptions,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let total = weights.bytes();
        Ok(Self { weights, options, progress, arena: Arena::huge_pages()?, done: 0, total })
    }

    pub fn device(&self) -> &'a Device {
        &self.options.device
    }

    pub fn has(&self, name: &str) -> bool {
        self.weights.has(name)
    }

    /// A norm's weights or a bias: a vector in f32, whatever the type of the matrices.
    pub fn vector(&mut self, tensor: &TensorSpec) -> Result<Tensor> {
        let weight = self.take(tensor)?;
        Ok(weight.dense(self.device())?.to_dtype(DType::F32)?)
    }

    /// The vectors of a list, one after the other; none for an empty list.
    pub fn joined(&mut self, tensors: &[TensorSpec]) -> Result<Option<Tensor>> {
        let parts = tensors.iter().map(|t| self.vector(t)).collect::<Result<Vec<_>>>()?;
        if parts.is_empty() { Ok(None) } else { Ok(Some(Tensor::cat(&parts, 0)?)) }
    }

    /// One matrix product from the rows of all `parts`, with the biases of all parts if there are.
    pub fn linear(&mut self, parts: &[TensorSpec], bias: &[TensorSpec]) -> Result<Linear> {
        let mut rows = vec![];
        for part in parts {
            rows.push(self.converted(part)?.linear(&mut self.arena)?);
        }
        let merged = match rows.len() {
            1 => rows.remove(0),
            _ => Linear::merge(rows)?,
        };
        Ok(match self.joined(bias)? {
            Some(bias) => merged.with_bias(&bias)?,
            None => merged,
        })
    }

    /// The embedding, and the output head too where it is the same matrix.
    pub fn embedding(
        &mut self,
        tensor: &TensorSpec,
        tied: bool,
    ) -> Result<(Embedding, Option<Linear>)> {
        let weight = self.converted(tensor)?;
        let head = if tied { Some(weight.linear(&mut self.arena)?) } else { None };
        let embedding = match weight {
            Weight::Dense(t) => Embedding::from_tensor(&t)?,
            Weight::Quantized(t) => Embedding::from_quantized(&t)?,
        };
        Ok((embedding, head))
    }

    /// Ends the loading.
    ///
    /// # Errors
    /// Names a tensor that was not taken.
    pub fn finish(self) -> Result<()> {
        if let Some(error) = self.weights.left_over() {
            return Err(error);
        }
        (self.progress)(self.total, self.total);
        Ok(())
    }

    fn converted(&mut self, tensor: &TensorSpec) -> Result<Weight> {
        let (choice, columns) = (self.options.dtype, tensor.shape[1]);
        let spans = GgmlDType::Q8_0.block_size();
        if choice == DtypeChoice::Q8_0 && !columns.is_multiple_of(spans) {
            return Err(ModelError::Batch(format!(
                "tensor `{}`: rows of {columns} numbers can't be q8_0, only multiples of {spans}",
                tensor.name
            )));
        }
        let weight = self.take(tensor)?;
        weight.converted(choice, self.device())
    }

    fn take(&mut self, tensor: &TensorSpec) -> Result<Weight> {
        let weight = self.weights.take(tensor, self.device())?;
        self.done += weight.bytes();
        (self.progress)(self.done, self.total);
        Ok(weight)
    }
}
