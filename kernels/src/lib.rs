//! The operations that a decoder is made of. Each has a naive reference, a fast multi-threaded
//! version for the processor, and a portable version on candle's tensor operations, which runs on
//! every candle device.
//!
//! On the processor every operation is *batch-invariant*: the bits of a row of output depend on
//! that row's inputs alone, not on which rows stand beside it, how a prompt was cut into chunks,
//! or how many threads there are. Each output element has one fixed order of accumulation.

// Register tiles are two-dimensional: their loops run over row and column numbers.
#![allow(clippy::needless_range_loop)]

pub mod attention;
pub mod embedding;
#[cfg(any(feature = "cuda", feature = "emulated-gpu"))]
pub mod gpu;
mod host;
pub mod kv;
pub mod linear;
mod matrix;
mod memory;
pub mod peak;
pub mod residual;
pub mod rms_norm;
pub mod rope;
pub mod silu_mul;
mod simd;
#[cfg(test)]
mod testing;

pub use host::{has_own, wide_awake};
pub use matrix::{Matrix, View};
pub use memory::Arena;
pub use simd::instruction_set;
