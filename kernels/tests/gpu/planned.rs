//! A plan on the device, and running it. (A decoder brings its plans there with all else that a step needs, in one copy.)

use half::bf16;
use kernels::gpu::{
    Attention, AttentionQuery, AttentionTask, Buffer, KvLayer, Merge, Plan, Result, Stream,
    attention, merge,
};

/// The arrays of a plan, and room for its parts.
pub struct Planned {
    tasks: [Buffer<AttentionTask>; 3],
    task_counts: [Buffer<u32>; 3],
    max_tasks: [usize; 3],
    queries: Buffer<AttentionQuery>,
    tables: Buffer<u32>,
    merge_rows: Buffer<u32>,
    merge_starts: Buffer<u32>,
    part_ids: Buffer<u32>,
    max_merges: usize,
    parts: Buffer<f32>,
    part_sums: Buffer<f32>,
}

/// What attention reads and writes besides its plan.
pub struct PlannedAttention<'a> {
    /// See [`Attention::q`].
    pub q: &'a Buffer<bf16>,
    pub q_stride: usize,
    pub q_heads: usize,
    pub kv: &'a KvLayer,
    /// `[.., q_heads * head_dim]`
    pub out: &'a Buffer<bf16>,
    pub scale: f32,
}

impl Planned {
    /// Of a model with these heads.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(stream: &Stream, plan: &Plan, q_heads: usize, head_dim: usize) -> Result<Self> {
        let [a, b, c] = plan.tasks.each_ref();
        let count = |tasks: &[AttentionTask]| stream.buffer_of(&[tasks.len() as u32]);
        Ok(Self {
            tasks: [stream.buffer_of(a)?, stream.buffer_of(b)?, stream.buffer_of(c)?],
            task_counts: [count(a)?, count(b)?, count(c)?],
            max_tasks: plan.tasks.each_ref().map(Vec::len),
            queries: stream.buffer_of(&plan.queries)?,
            tables: stream.buffer_of(&plan.tables)?,
            merge_rows: stream.buffer_of(&plan.merge_rows)?,
            merge_starts: stream.buffer_of(&plan.merge_starts)?,
            part_ids: stream.buffer_of(&plan.part_ids)?,
            max_merges: plan.merge_rows.len(),
            parts: stream.gpu().alloc(plan.parts * q_heads * head_dim)?,
            part_sums: stream.gpu().alloc(plan.parts * q_heads)?,
        })
    }

    /// Attention of the rows of the plan.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn run(&self, stream: &Stream, a: &PlannedAttention) -> Result<()> {
        let &PlannedAttention { q, q_stride, q_heads, kv, out, scale } = a;
        let Self { queries, tables, parts, part_sums, part_ids, max_merges, .. } = self;
        for (i, tile) in Plan::TILES.into_iter().enumerate().filter(|&(i, _)| self.max_tasks[i] > 0)
        {
            let args = Attention {
                q,
                q_stride,
                q_heads,
                kv,
                tasks: &self.tasks[i],
                task_count: &self.task_counts[i],
                max_tasks: self.max_tasks[i],
                queries,
                tables,
                out,
                parts,
                part_sums,
                scale,
                tile,
            };
            attention(stream, &args)?;
        }
        if *max_merges == 0 {
            return Ok(());
        }
        let args = Merge {
            parts,
            part_sums,
            rows: &self.merge_rows,
            starts: &self.merge_starts,
            part_ids,
            out,
            max_merges: *max_merges,
            q_heads,
            head_dim: kv.shape.head_dim,
        };
        merge(stream, &args)
    }
}
