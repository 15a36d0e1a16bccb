//! On any candle device.

use candle_core::quantized::{QMatMul, QTensor};
use candle_core::{DType, Module, Result, Tensor};
use std::sync::Arc;

#[derive(Debug)]
pub enum Weights {
    /// `[N, K]` in its own type.
    Dense(Tensor),
    Quantized {
        product: QMatMul,
        n: usize,
        bytes: usize,
    },
}

impl Weights {
    pub fn dense(w: &Tensor) -> Result<Self> {
        Ok(Self::Dense(w.contiguous()?))
    }

    pub fn quantized(w: &QTensor) -> Result<Self> {
        let (n, _) = w.shape().dims2()?;
        let data = w.data()?;
        let storage =
            candle_core::quantized::QStorage::from_data(data.clone(), &w.device(), w.dtype())?;
        let copy = QTensor::new(storage, w.shape().clone())?;
        Ok(Self::Quantized { product: QMatMul::from_arc(Arc::new(copy))?, n, bytes: data.len() })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(w) => x.to_dtype(w.dtype())?.matmul(&w.t()?)?.to_dtype(DType::F32),
            // Metal's quantised product loops over the first dimension.
            Self::Quantized { product, .. } => product.forward(&x.unsqueeze(0)?)?.squeeze(0),
        }
    }

    pub fn n(&self) -> usize {
        match self {
            Self::Dense(w) => w.dims()[0],
            Self::Quantized { n, .. } => *n,
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(w) => w.elem_count() * w.dtype().size_in_bytes(),
            Self::Quantized { bytes, .. } => *bytes,
        }
    }
}
