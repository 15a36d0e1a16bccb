//! The C interface as it stands in `cuda/gpu.h`, in its order; what each function and field means is said there.

use std::ffi::{c_char, c_int, c_void};

pub type Gpu = c_void;
pub type Stream = c_void;
pub type Event = c_void;
pub type Graph = c_void;

pub const BF16: u32 = 0;
pub const F32: u32 = 1;
pub const E4M3: u32 = 2;

#[repr(C)]
pub struct Properties {
    pub name: [c_char; 256],
    pub multiprocessors: u32,
    pub capability: u32,
    pub shared_memory: u32,
    pub emulated: u32,
    pub l2_bytes: u64,
}

impl Default for Properties {
    fn default() -> Self {
        Self {
            name: [0; 256],
            multiprocessors: 0,
            capability: 0,
            shared_memory: 0,
            emulated: 0,
            l2_bytes: 0,
        }
    }
}

#[repr(C)]
pub struct Gemm {
    pub x: *const c_void,
    pub w: *const c_void,
    pub bias: *const c_void,
    pub out: *mut c_void,
    pub m: u32,
    pub n: u32,
    pub k: u32,
    pub input_type: u32,
    pub out_type: u32,
    pub same_for_all_m: u32,
    pub x_scale: *const c_void,
    pub w_scale: *const c_void,
}

#[repr(C)]
pub struct Norm {
    pub x: *const c_void,
    pub post_weight: *const c_void,
    pub residual: *mut c_void,
    pub weight: *const c_void,
    pub out: *mut c_void,
    pub out_scale: *mut c_void,
    pub rows: u32,
    pub hidden: u32,
    pub eps: f32,
    pub residual_type: u32,
}

#[repr(C)]
pub struct Rope {
    pub qkv: *mut c_void,
    pub bias: *const c_void,
    pub head_norms: *const c_void,
    pub positions: *const c_void,
    pub slots: *const c_void,
    pub cos: *const c_void,
    pub sin: *const c_void,
    pub keys: *mut c_void,
    pub values: *mut c_void,
    pub key_scales: *mut c_void,
    pub value_scales: *mut c_void,
    pub rows: u32,
    pub q_heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub rotated: u32,
    pub interleaved: u32,
    pub kv_type: u32,
    pub norm_columns: u32,
    pub eps: f32,
}

#[repr(C)]
pub struct Swiglu {
    pub gate_up: *const c_void,
    pub out: *mut c_void,
    pub out_scale: *mut c_void,
    pub rows: u32,
    pub width: u32,
}

#[repr(C)]
pub struct Gather {
    pub table: *const c_void,
    pub ids: *const c_void,
    pub out: *mut c_void,
    pub rows: u32,
    pub width: u32,
    pub table_rows: u32,
    pub input_type: u32,
    pub out_type: u32,
}

#[repr(C)]
pub struct CopyUnits {
    pub base: *mut c_void,
    pub pairs: *const c_void,
    pub array_bytes: u64,
    pub unit_bytes: u32,
    pub arrays: u32,
    pub count: u32,
}

#[repr(C)]
pub struct Attention {
    pub q: *const c_void,
    pub keys: *const c_void,
    pub values: *const c_void,
    pub key_scales: *const c_void,
    pub value_scales: *const c_void,
    pub tasks: *const c_void,
    pub task_count: *const c_void,
    pub queries: *const c_void,
    pub tables: *const c_void,
    pub out: *mut c_void,
    pub parts: *mut c_void,
    pub part_sums: *mut c_void,
    pub scale: f32,
    pub max_tasks: u32,
    pub q_stride: u32,
    pub q_heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub kv_type: u32,
    pub tile: u32,
}

#[repr(C)]
pub struct Merge {
    pub parts: *const c_void,
    pub part_sums: *const c_void,
    pub rows: *const c_void,
    pub starts: *const c_void,
    pub part_ids: *const c_void,
    pub out: *mut c_void,
    pub max_merges: u32,
    pub q_heads: u32,
    pub head_dim: u32,
}

#[repr(C)]
pub struct Sample {
    pub logits: *mut c_void,
    pub rows: *const c_void,
    pub uniforms: *const c_void,
    pub changes: *const c_void,
    pub originals: *mut c_void,
    pub allowed: *const c_void,
    pub score_ids: *const c_void,
    pub tokens: *mut c_void,
    pub logprobs: *mut c_void,
    pub scores: *mut c_void,
    pub log_sums: *mut c_void,
    pub top_ids: *mut c_void,
    pub top_logprobs: *mut c_void,
    pub max_rows: u32,
    pub vocab: u32,
}

unsafe extern "C" {
    pub fn lr_gpu_error() -> *const c_char;
    pub fn lr_gpu_open(index: c_int, gpu: *mut *mut Gpu) -> c_int;
    pub fn lr_gpu_close(gpu: *mut Gpu);
    pub fn lr_gpu_describe(gpu: *mut Gpu, properties: *mut Properties) -> c_int;
    pub fn lr_gpu_memory(gpu: *mut Gpu, free: *mut u64, total: *mut u64) -> c_int;
    pub fn lr_gpu_alloc(gpu: *mut Gpu, bytes: u64, memory: *mut *mut c_void) -> c_int;
    pub fn lr_gpu_free(gpu: *mut Gpu, memory: *mut c_void);
    pub fn lr_gpu_alloc_pinned(gpu: *mut Gpu, bytes: u64, memory: *mut *mut c_void) -> c_int;
    pub fn lr_gpu_free_pinned(gpu: *mut Gpu, memory: *mut c_void);

    pub fn lr_gpu_stream_create(gpu: *mut Gpu, stream: *mut *mut Stream) -> c_int;
    pub fn lr_gpu_stream_destroy(stream: *mut Stream);
    pub fn lr_gpu_stream_wait(stream: *mut Stream) -> c_int;
    pub fn lr_gpu_copy(
        stream: *mut Stream,
        to: *mut c_void,
        from: *const c_void,
        bytes: u64,
    ) -> c_int;
    pub fn lr_gpu_fill(stream: *mut Stream, to: *mut c_void, value: u8, bytes: u64) -> c_int;

    pub fn lr_gpu_event_create(gpu: *mut Gpu, event: *mut *mut Event) -> c_int;
    pub fn lr_gpu_event_destroy(event: *mut Event);
    pub fn lr_gpu_event_record(stream: *mut Stream, event: *mut Event) -> c_int;
    pub fn lr_gpu_event_follow(stream: *mut Stream, event: *mut Event) -> c_int;
    pub fn lr_gpu_event_wait(event: *mut Event) -> c_int;
    pub fn lr_gpu_event_done(event: *mut Event, done: *mut c_int) -> c_int;
    pub fn lr_gpu_event_milliseconds(
        from: *mut Event,
        to: *mut Event,
        milliseconds: *mut f32,
    ) -> c_int;

    pub fn lr_gpu_capture_begin(stream: *mut Stream) -> c_int;
    pub fn lr_gpu_capture_end(stream: *mut Stream, graph: *mut *mut Graph) -> c_int;
    pub fn lr_gpu_graph_launch(stream: *mut Stream, graph: *mut Graph) -> c_int;
    pub fn lr_gpu_graph_destroy(graph: *mut Graph);

    pub fn lr_gpu_gemm(stream: *mut Stream, args: *const Gemm) -> c_int;
    pub fn lr_gpu_gemm_narrow(stream: *mut Stream, args: *const Gemm) -> c_int;
    pub fn lr_gpu_norm(stream: *mut Stream, args: *const Norm) -> c_int;
    pub fn lr_gpu_rope(stream: *mut Stream, args: *const Rope) -> c_int;
    pub fn lr_gpu_swiglu(stream: *mut Stream, args: *const Swiglu) -> c_int;
    pub fn lr_gpu_gather(stream: *mut Stream, args: *const Gather) -> c_int;
    pub fn lr_gpu_copy_units(stream: *mut Stream, args: *const CopyUnits) -> c_int;
    pub fn lr_gpu_attention(stream: *mut Stream, args: *const Attention) -> c_int;
    pub fn lr_gpu_merge(stream: *mut Stream, args: *const Merge) -> c_int;
    pub fn lr_gpu_sample(stream: *mut Stream, args: *const Sample) -> c_int;
}
