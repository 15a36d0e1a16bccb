//! A decoder's operations but for attention and sampling. Each takes plain data that names its buffers, checks that
//! they are long enough, and puts one kernel on the stream.

use super::device::{Buffer, ensure_len, ptr_or_null};
use super::error::{Result, check, ensure};
use super::ffi;
use super::kv::KvLayer;
use super::stream::Stream;
use crate::rope::RopeStyle;
use half::bf16;

/// A slot that is not written: rows that only fill up a batch.
pub const NO_SLOT: u32 = u32::MAX;

/// Numbers in either type.
#[derive(Debug, Clone)]
pub enum Numbers {
    Bf16(Buffer<bf16>),
    F32(Buffer<f32>),
}

impl Numbers {
    fn code(&self) -> u32 {
        match self {
            Self::Bf16(_) => ffi::BF16,
            Self::F32(_) => ffi::F32,
        }
    }

    fn ptr(&self) -> *mut std::ffi::c_void {
        match self {
            Self::Bf16(buffer) => buffer.ptr(),
            Self::F32(buffer) => buffer.ptr(),
        }
    }

    fn ensure_len(&self, len: usize, what: &str) -> Result<()> {
        match self {
            Self::Bf16(buffer) => ensure_len(buffer, len, what),
            Self::F32(buffer) => ensure_len(buffer, len, what),
        }
    }

    fn name(&self, stream: &Stream) {
        match self {
            Self::Bf16(buffer) => stream.name(buffer),
            Self::F32(buffer) => stream.name(buffer),
        }
    }
}

/// What a product reads: bf16, or e4m3 with a factor for each row that gives back the values.
#[derive(Debug, Clone)]
pub enum Output {
    Bf16(Buffer<bf16>),
    E4m3 { values: Buffer<u8>, scales: Buffer<f32> },
}

impl Output {
    fn code(&self) -> u32 {
        match self {
            Self::Bf16(_) => ffi::BF16,
            Self::E4m3 { .. } => ffi::E4M3,
        }
    }

    fn ptr(&self) -> *mut std::ffi::c_void {
        match self {
            Self::Bf16(buffer) => buffer.ptr(),
            Self::E4m3 { values, .. } => values.ptr(),
        }
    }

    /// Null for bf16.
    fn scales(&self) -> *mut std::ffi::c_void {
        match self {
            Self::Bf16(_) => std::ptr::null_mut(),
            Self::E4m3 { scales, .. } => scales.ptr(),
        }
    }

    fn ensure(&self, rows: usize, width: usize, what: &str) -> Result<()> {
        match self {
            Self::Bf16(buffer) => ensure_len(buffer, rows * width, what),
            Self::E4m3 { values, scales } => {
                ensure_len(values, rows * width, what)?;
                ensure_len(scales, rows, what)
            }
        }
    }

    fn name(&self, stream: &Stream) {
        match self {
            Self::Bf16(buffer) => stream.name(buffer),
            Self::E4m3 { values, scales } => {
                stream.name(values);
                stream.name(scales);
            }
        }
    }
}

/// Rows that a narrow product has at most ([`Gemm::narrow`]).
pub const NARROW_ROWS: usize = 16;

/// `out [m, n] = x [m, k] · w [n, k]ᵀ (+ bias [n])`, with sums in f32.
#[derive(Debug)]
pub struct Gemm<'a> {
    /// `[m, k]`; both factors have one type.
    pub x: &'a Output,
    /// `[n, k]`; for e4m3 with a factor for each of its rows.
    pub w: &'a Output,
    /// Only into bf16.
    pub bias: Option<&'a Buffer<bf16>>,
    /// `[m, n]`
    pub out: &'a Numbers,
    pub m: usize,
    /// In e4m3 a multiple of 16.
    pub n: usize,
    /// A multiple of 8, in e4m3 of 16.
    pub k: usize,
    /// Whether a row's bits must not depend on `m`: one algorithm for all `m`, without parts of `k` side by side. Costs
    /// speed at small `m`.
    pub same_for_all_m: bool,
    /// By the kernel for up to [`NARROW_ROWS`] rows of bf16, which reads the weights once (`cuda/narrow.cu`), in the place
    /// of the library. Its bits do not depend on `m`, but are not those of the library.
    pub narrow: bool,
}

/// See [`Gemm`].
///
/// # Errors
/// Buffers that are too short, factors of two types, or a shape that the library refuses.
pub fn gemm(stream: &Stream, a: &Gemm) -> Result<()> {
    a.x.ensure(a.m, a.k, "gemm: x")?;
    a.w.ensure(a.n, a.k, "gemm: w")?;
    a.out.ensure_len(a.m * a.n, "gemm: out")?;
    ensure(a.x.code() == a.w.code(), || "gemm: factors of two types".into())?;
    if let Some(bias) = a.bias {
        ensure_len(bias, a.n, "gemm: bias")?;
        stream.name(bias);
    }
    a.x.name(stream);
    a.w.name(stream);
    a.out.name(stream);
    let args = ffi::Gemm {
        x: a.x.ptr(),
        w: a.w.ptr(),
        bias: ptr_or_null(a.bias),
        out: a.out.ptr(),
        m: a.m as u32,
        n: a.n as u32,
        k: a.k as u32,
        input_type: a.x.code(),
        out_type: a.out.code(),
        same_for_all_m: a.same_for_all_m.into(),
        x_scale: a.x.scales(),
        w_scale: a.w.scales(),
    };
    let multiply = if a.narrow { ffi::lr_gpu_gemm_narrow } else { ffi::lr_gpu_gemm };
    // SAFETY: all buffers are alive and were found long enough above.
    check(unsafe { multiply(stream.as_ptr(), &raw const args) })
}

/// Adds to the residual stream and normalises it: `residual += x`, or with a post-norm
/// `residual += norm(x) * post_weight`; then `out = norm(residual) * weight`.
#[derive(Debug)]
pub struct Norm<'a> {
    /// `[rows, hidden]`; without it nothing is added.
    pub x: Option<&'a Buffer<bf16>>,
    /// `[hidden]`
    pub post_weight: Option<&'a Buffer<f32>>,
    /// `[rows, hidden]`
    pub residual: &'a Numbers,
    /// `[hidden]`
    pub weight: &'a Buffer<f32>,
    /// `[rows, hidden]`
    pub out: &'a Output,
    pub rows: usize,
    /// A multiple of 8, at most 16,384.
    pub hidden: usize,
    pub eps: f32,
}

/// See [`Norm`].
///
/// # Errors
/// Buffers that are too short, or a width that is not supported.
pub fn norm(stream: &Stream, a: &Norm) -> Result<()> {
    let numbers = a.rows * a.hidden;
    if let Some(x) = a.x {
        ensure_len(x, numbers, "norm: x")?;
        stream.name(x);
    }
    for weight in a.post_weight.into_iter().chain([a.weight]) {
        ensure_len(weight, a.hidden, "norm: weight")?;
        stream.name(weight);
    }
    a.residual.ensure_len(numbers, "norm: residual")?;
    a.out.ensure(a.rows, a.hidden, "norm: out")?;
    a.residual.name(stream);
    a.out.name(stream);
    let args = ffi::Norm {
        x: ptr_or_null(a.x),
        post_weight: ptr_or_null(a.post_weight),
        residual: a.residual.ptr(),
        weight: a.weight.ptr(),
        out: a.out.ptr(),
        out_scale: a.out.scales(),
        rows: a.rows as u32,
        hidden: a.hidden as u32,
        eps: a.eps,
        residual_type: a.residual.code(),
    };
    // SAFETY: all buffers are alive and were found long enough above.
    check(unsafe { ffi::lr_gpu_norm(stream.as_ptr(), &raw const args) })
}

/// Cosines and sines of every position, `[positions, rotated / 2]` each ([`crate::rope::RopeTable`] on the host).
#[derive(Debug, Clone)]
pub struct RopeTables {
    pub cos: Buffer<f32>,
    pub sin: Buffer<f32>,
    /// Columns of a head that are rotated.
    pub rotated: usize,
    pub style: RopeStyle,
}

/// Norms of each head of q and k ([`crate::rms_norm::rms_norm_of_heads`] on the host).
#[derive(Debug, Clone, Copy)]
pub struct HeadNorms<'a> {
    /// `[(q_heads + kv_heads) * head_dim]`
    pub weight: &'a Buffer<f32>,
    /// Columns of a head that are no filling.
    pub columns: usize,
    pub eps: f32,
}

/// Adds the bias to q, k and v, norms the heads of q and k if they have norms, rotates q in place, and writes rotated k, and v, to their slots in a layer's pages.
#[derive(Debug)]
pub struct Rope<'a> {
    /// `[rows, (q_heads + 2 * kv_heads) * head_dim]`: q, k, v. Afterwards q is biased and rotated, k and v as they were.
    pub qkv: &'a Buffer<bf16>,
    /// `[(q_heads + 2 * kv_heads) * head_dim]`
    pub bias: Option<&'a Buffer<bf16>>,
    pub head_norms: Option<HeadNorms<'a>>,
    /// `[rows]`, below the number of positions of the tables; not checked.
    pub positions: &'a Buffer<u32>,
    /// `[rows]`: `block * BLOCK + offset` within the pool, or [`NO_SLOT`]; not checked.
    pub slots: &'a Buffer<u32>,
    pub tables: &'a RopeTables,
    pub kv: &'a KvLayer,
    pub rows: usize,
    pub q_heads: usize,
}

/// See [`Rope`].
///
/// # Errors
/// Buffers that are too short, or heads that are not supported.
pub fn rope(stream: &Stream, a: &Rope) -> Result<()> {
    let shape = &a.kv.shape;
    let width = (a.q_heads + 2 * shape.kv_heads) * shape.head_dim;
    ensure_len(a.qkv, a.rows * width, "rope: qkv")?;
    ensure_len(a.positions, a.rows, "rope: positions")?;
    ensure_len(a.slots, a.rows, "rope: slots")?;
    if let Some(bias) = a.bias {
        ensure_len(bias, width, "rope: bias")?;
        stream.name(bias);
    }
    if let Some(norms) = a.head_norms {
        ensure_len(norms.weight, width - shape.kv_heads * shape.head_dim, "rope: head norms")?;
        stream.name(norms.weight);
    }
    for buffer in [&a.tables.cos, &a.tables.sin, &a.kv.key_scales] {
        stream.name(buffer);
    }
    for buffer in [a.positions, a.slots] {
        stream.name(buffer);
    }
    stream.name(a.qkv);
    stream.name(&a.kv.keys);
    let args = ffi::Rope {
        qkv: a.qkv.ptr(),
        bias: ptr_or_null(a.bias),
        head_norms: ptr_or_null(a.head_norms.map(|norms| norms.weight)),
        positions: a.positions.ptr(),
        slots: a.slots.ptr(),
        cos: a.tables.cos.ptr(),
        sin: a.tables.sin.ptr(),
        keys: a.kv.keys.ptr(),
        values: a.kv.values.ptr(),
        key_scales: a.kv.key_scales.ptr(),
        value_scales: a.kv.value_scales.ptr(),
        rows: a.rows as u32,
        q_heads: a.q_heads as u32,
        kv_heads: shape.kv_heads as u32,
        head_dim: shape.head_dim as u32,
        rotated: a.tables.rotated as u32,
        interleaved: (a.tables.style == RopeStyle::Interleaved).into(),
        kv_type: shape.kv_type.code(),
        norm_columns: a.head_norms.map_or(0, |norms| norms.columns as u32),
        eps: a.head_norms.map_or(0.0, |norms| norms.eps),
    };
    // SAFETY: all buffers are alive and long enough; positions and slots are the caller's to keep within bounds.
    check(unsafe { ffi::lr_gpu_rope(stream.as_ptr(), &raw const args) })
}

/// `out [rows, width] = silu(gate) * up` of `gate_up [rows, 2 * width]`, gate first.
#[derive(Debug)]
pub struct Swiglu<'a> {
    pub gate_up: &'a Buffer<bf16>,
    pub out: &'a Output,
    pub rows: usize,
    /// A multiple of 8.
    pub width: usize,
}

/// See [`Swiglu`].
///
/// # Errors
/// Buffers that are too short, or a width that is not supported.
pub fn swiglu(stream: &Stream, a: &Swiglu) -> Result<()> {
    ensure_len(a.gate_up, 2 * a.rows * a.width, "swiglu: gate_up")?;
    a.out.ensure(a.rows, a.width, "swiglu: out")?;
    stream.name(a.gate_up);
    a.out.name(stream);
    let args = ffi::Swiglu {
        gate_up: a.gate_up.ptr(),
        out: a.out.ptr(),
        out_scale: a.out.scales(),
        rows: a.rows as u32,
        width: a.width as u32,
    };
    // SAFETY: all buffers are alive and were found long enough above.
    check(unsafe { ffi::lr_gpu_swiglu(stream.as_ptr(), &raw const args) })
}

/// `out[i] = table[ids[i]]`, for the embedding and for rows that need logits. An id beyond the table gives zeros.
#[derive(Debug)]
pub struct Gather<'a> {
    /// `[table_rows, width]`
    pub table: &'a Numbers,
    pub ids: &'a Buffer<u32>,
    /// `[rows, width]`
    pub out: &'a Numbers,
    pub rows: usize,
    /// A multiple of 8.
    pub width: usize,
    pub table_rows: usize,
}

/// See [`Gather`].
///
/// # Errors
/// Buffers that are too short, a width that is not supported, or from f32 to bf16.
pub fn gather(stream: &Stream, a: &Gather) -> Result<()> {
    a.table.ensure_len(a.table_rows * a.width, "gather: table")?;
    a.out.ensure_len(a.rows * a.width, "gather: out")?;
    ensure_len(a.ids, a.rows, "gather: ids")?;
    a.table.name(stream);
    a.out.name(stream);
    stream.name(a.ids);
    let args = ffi::Gather {
        table: a.table.ptr(),
        ids: a.ids.ptr(),
        out: a.out.ptr(),
        rows: a.rows as u32,
        width: a.width as u32,
        table_rows: a.table_rows as u32,
        input_type: a.table.code(),
        out_type: a.out.code(),
    };
    // SAFETY: all buffers are alive and long enough; the kernel checks ids.
    check(unsafe { ffi::lr_gpu_gather(stream.as_ptr(), &raw const args) })
}
