//! Tensors shown piece by piece, as bf16 where they are stored so, else widened to f32.

use super::{BLOCK_ALIGNMENT, Format, Stored};
use crate::error::{ModelError, Result};
use crate::weights::Piece;
use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use candle_core::{DType, Device, Tensor};

/// Numbers of a piece, about.
const PIECE: usize = 4 << 20;

type See<'a> = &'a mut dyn FnMut(Piece<'_>) -> Result<()>;

/// Shows the tensor that lies in `bytes`; `bad` makes an error of what is wrong with it.
pub fn show(
    stored: &Stored,
    bytes: &[u8],
    bad: &dyn Fn(String) -> ModelError,
    see: See,
) -> Result<()> {
    match &stored.format {
        Format::Dense(DType::BF16) => {
            bytes.as_chunks::<2>().0.chunks(PIECE).try_for_each(|some| see(Piece::Bf16(some)))
        }
        Format::Dense(dtype) => {
            let piece = PIECE * dtype.size_in_bytes();
            bytes.chunks(piece).try_for_each(|some| {
                let len = some.len() / dtype.size_in_bytes();
                let made = Tensor::from_raw_buffer(some, *dtype, &[len], &Device::Cpu);
                show_tensor(&made.map_err(|e| bad(e.to_string()))?, see)
            })
        }
        Format::Quantized(_) if !(bytes.as_ptr() as usize).is_multiple_of(BLOCK_ALIGNMENT) => {
            Err(bad(format!("does not start at a multiple of {BLOCK_ALIGNMENT} bytes")))
        }
        Format::Quantized(dtype) => show_blocks(*dtype, bytes, bad, see),
        Format::Unknown(name) => Err(bad(format!("stored as {name}, which is not supported"))),
    }
}

fn show_blocks(
    dtype: GgmlDType,
    bytes: &[u8],
    bad: &dyn Fn(String) -> ModelError,
    see: See,
) -> Result<()> {
    // A multiple of any alignment that blocks have.
    let blocks = (PIECE / dtype.block_size()).next_multiple_of(BLOCK_ALIGNMENT);
    bytes.chunks(blocks * dtype.type_size()).try_for_each(|some| {
        let len = some.len() / dtype.type_size() * dtype.block_size();
        let made = qtensor_from_ggml(dtype, some, vec![len], &Device::Cpu);
        let wide = made.and_then(|tensor| tensor.dequantize(&Device::Cpu));
        show_tensor(&wide.map_err(|e| bad(e.to_string()))?, see)
    })
}

fn show_tensor(tensor: &Tensor, see: See) -> Result<()> {
    see(Piece::F32(&tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?))
}
