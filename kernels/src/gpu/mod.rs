//! Decoders on a GPU: memory, streams and graphs, and the operations of a decoder on them.
//!
//! All of it stands on one C interface (`cuda/gpu.h`) with two libraries behind it, made of the same kernels: with the
//! feature `cuda` they run on NVIDIA GPUs, with `emulated-gpu` on the processor, thread by thread and very slowly,
//! which tests everything but the hardware (`cuda` wins where both are on).
//!
//! Operations are functions of a [`Stream`] and plain data that names buffers: they check shapes, put their work on
//! the stream and return. Activations and weights are bf16, sums f32.
//!
//! * Nothing of this allocates while a step runs: buffers are made once, and operations write where they are told.
//! * A buffer that a recorded [`Graph`] names lives as long as the graph.
//! * An error of work that ran shows at the next wait for its stream, and stays.

mod attention;
mod device;
mod error;
mod ffi;
mod kv;
mod operations;
mod plan;
mod sample;
mod stream;

pub use attention::{
    Attention, AttentionQuery, AttentionTask, Merge, Tile, WHOLE_RESULT, attention, merge,
};
pub use device::{Buffer, Element, Gpu, Memory, Pinned, Properties, bytes_of};
pub use error::{Error, Result};
pub use kv::{Kv, KvLayer, KvShape, KvType};
pub use operations::{
    Gather, Gemm, HeadNorms, NARROW_ROWS, NO_SLOT, Norm, Numbers, Output, Rope, RopeTables, Swiglu,
    gather, gemm, norm, rope, swiglu,
};
pub use plan::{Plan, Settings as PlanSettings, plan};
pub use sample::{LogitChange, NO_ROW, Sample, SampleRow, sample};
pub use stream::{Event, Graph, Stream};
