//! Attention over paged keys and values, in tasks that the host plans ([`super::plan`]).

use super::device::{Buffer, Element, ensure_len};
use super::error::{Result, check, ensure};
use super::ffi;
use super::kv::KvLayer;
use super::stream::Stream;
use half::bf16;

/// [`AttentionTask::part`] of a task that computes the whole result of its rows.
pub const WHOLE_RESULT: u32 = u32::MAX;

/// A range of keys for some rows, at all heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct AttentionTask {
    /// Its rows are `queries[first_query ..][.. query_count]`.
    pub first_query: u32,
    pub query_count: u32,
    /// Its block table is `tables[table ..]`, with an entry for every block from position 0 on.
    pub table: u32,
    /// Positions `begin .. end`; `begin` is a multiple of the block.
    pub begin: u32,
    pub end: u32,
    /// Its `i`-th row is part `part + i`; or [`WHOLE_RESULT`].
    pub part: u32,
}

// SAFETY: six u32.
unsafe impl Element for AttentionTask {}

/// A row of q (and of the result) that sees the positions below `visible`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct AttentionQuery {
    pub row: u32,
    pub visible: u32,
}

// SAFETY: two u32.
unsafe impl Element for AttentionQuery {}

/// How many rows times heads of a group (`q_heads / kv_heads`) a task may have. The larger, the fewer times keys are
/// read, and the more is wasted if there are few rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tile {
    /// One token of one sequence, mostly: its warps share the keys.
    Rows16,
    Rows64,
    Rows128,
}

impl Tile {
    pub fn rows(self) -> usize {
        match self {
            Self::Rows16 => 16,
            Self::Rows64 => 64,
            Self::Rows128 => 128,
        }
    }
}

/// Attention of the rows of all tasks.
#[derive(Debug)]
pub struct Attention<'a> {
    /// `[.., q_stride]`, of which the first `q_heads * head_dim` numbers are used: `qkv` after [`super::rope`].
    pub q: &'a Buffer<bf16>,
    pub q_stride: usize,
    pub q_heads: usize,
    pub kv: &'a KvLayer,
    pub tasks: &'a Buffer<AttentionTask>,
    /// How many there are, on the device: a recorded graph runs with as many as are there then.
    pub task_count: &'a Buffer<u32>,
    /// As many at most: how much of the GPU is asked for.
    pub max_tasks: usize,
    pub queries: &'a Buffer<AttentionQuery>,
    pub tables: &'a Buffer<u32>,
    /// `[.., q_heads * head_dim]`
    pub out: &'a Buffer<bf16>,
    /// `[.., q_heads, head_dim]`: results of parts.
    pub parts: &'a Buffer<f32>,
    /// `[.., q_heads]`: the logarithm to base 2 of their sums.
    pub part_sums: &'a Buffer<f32>,
    /// Of the products: `1 / sqrt(head_dim)`.
    pub scale: f32,
    pub tile: Tile,
}

/// See [`Attention`]. Indices within tasks, queries and tables are not checked: [`super::plan`] makes them.
///
/// # Errors
/// Heads that are not supported, or lists that are too short.
pub fn attention(stream: &Stream, a: &Attention) -> Result<()> {
    let shape = &a.kv.shape;
    ensure_len(a.tasks, a.max_tasks, "attention: tasks")?;
    ensure_len(a.task_count, 1, "attention: task_count")?;
    ensure(shape.kv_heads > 0 && a.q_heads.is_multiple_of(shape.kv_heads), || {
        format!("attention: {} heads of q on {} of k", a.q_heads, shape.kv_heads)
    })?;
    ensure(a.q_stride >= a.q_heads * shape.head_dim, || {
        format!("attention: rows of q are {} numbers apart", a.q_stride)
    })?;
    for buffer in [a.q, a.out] {
        stream.name(buffer);
    }
    for buffer in [a.parts, a.part_sums, &a.kv.key_scales] {
        stream.name(buffer);
    }
    for buffer in [a.task_count, a.tables] {
        stream.name(buffer);
    }
    stream.name(a.tasks);
    stream.name(a.queries);
    stream.name(&a.kv.keys);
    let args = ffi::Attention {
        q: a.q.ptr(),
        keys: a.kv.keys.ptr(),
        values: a.kv.values.ptr(),
        key_scales: a.kv.key_scales.ptr(),
        value_scales: a.kv.value_scales.ptr(),
        tasks: a.tasks.ptr(),
        task_count: a.task_count.ptr(),
        queries: a.queries.ptr(),
        tables: a.tables.ptr(),
        out: a.out.ptr(),
        parts: a.parts.ptr(),
        part_sums: a.part_sums.ptr(),
        scale: a.scale,
        max_tasks: a.max_tasks as u32,
        q_stride: a.q_stride as u32,
        q_heads: a.q_heads as u32,
        kv_heads: shape.kv_heads as u32,
        head_dim: shape.head_dim as u32,
        kv_type: shape.kv_type.code(),
        tile: a.tile.rows() as u32,
    };
    // SAFETY: all buffers are alive; what the plan's indices reach is the caller's to provide.
    check(unsafe { ffi::lr_gpu_attention(stream.as_ptr(), &raw const args) })
}

/// Results of rows that were computed in parts: `out[rows[i]]` of the parts `part_ids[starts[i] .. starts[i + 1]]`.
#[derive(Debug)]
pub struct Merge<'a> {
    pub parts: &'a Buffer<f32>,
    pub part_sums: &'a Buffer<f32>,
    /// `[max_merges]`; `u32::MAX`: nothing to do.
    pub rows: &'a Buffer<u32>,
    /// `[max_merges + 1]`
    pub starts: &'a Buffer<u32>,
    pub part_ids: &'a Buffer<u32>,
    /// `[.., q_heads * head_dim]`
    pub out: &'a Buffer<bf16>,
    pub max_merges: usize,
    pub q_heads: usize,
    pub head_dim: usize,
}

/// See [`Merge`].
///
/// # Errors
/// Lists that are too short, or heads that are not supported.
pub fn merge(stream: &Stream, a: &Merge) -> Result<()> {
    ensure_len(a.rows, a.max_merges, "merge: rows")?;
    ensure_len(a.starts, a.max_merges + 1, "merge: starts")?;
    for buffer in [a.parts, a.part_sums] {
        stream.name(buffer);
    }
    for buffer in [a.rows, a.starts, a.part_ids] {
        stream.name(buffer);
    }
    stream.name(a.out);
    let args = ffi::Merge {
        parts: a.parts.ptr(),
        part_sums: a.part_sums.ptr(),
        rows: a.rows.ptr(),
        starts: a.starts.ptr(),
        part_ids: a.part_ids.ptr(),
        out: a.out.ptr(),
        max_merges: a.max_merges as u32,
        q_heads: a.q_heads as u32,
        head_dim: a.head_dim as u32,
    };
    // SAFETY: all buffers are alive; what the plan's indices reach is the caller's to provide.
    check(unsafe { ffi::lr_gpu_merge(stream.as_ptr(), &raw const args) })
}
