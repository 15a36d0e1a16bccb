//! A plan's way to the device, and running it.

use super::attention::{Attention, AttentionQuery, AttentionTask, Merge, attention, merge};
use super::device::{Buffer, Element, Gpu, Pinned};
use super::error::{Result, ensure};
use super::kv::KvLayer;
use super::plan::Plan;
use super::stream::{Event, Stream};
use half::bf16;

/// What there is room for.
#[derive(Debug, Clone, Copy)]
pub struct PlanLimits {
    /// Tasks of each tile.
    pub tasks: usize,
    pub queries: usize,
    /// Entries of all block tables.
    pub tables: usize,
    /// Parts, and what they take: `4 * q_heads * (head_dim + 1)` bytes each.
    pub parts: usize,
}

/// How much a launch is made for: the counts of a plan, or the most that a recorded launch will meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanSize {
    /// Of each tile.
    pub tasks: [usize; 3],
    pub merges: usize,
}

impl Plan {
    /// How much this plan needs.
    pub fn size(&self) -> PlanSize {
        PlanSize { tasks: self.tasks.each_ref().map(Vec::len), merges: self.merge_rows.len() }
    }
}

/// An array on its way: written by the host, copied, read by kernels.
#[derive(Debug)]
struct Way<T> {
    pinned: Pinned<T>,
    buffer: Buffer<T>,
}

impl<T: Element> Way<T> {
    fn new(gpu: &Gpu, buffer: Buffer<T>) -> Result<Self> {
        Ok(Self { pinned: gpu.alloc_pinned(buffer.len())?, buffer })
    }

    fn send(&mut self, stream: &Stream, values: &[T], what: &str) -> Result<()> {
        ensure(values.len() <= self.pinned.len(), || {
            format!("plan: {} {what}, and room for {}", values.len(), self.pinned.len())
        })?;
        self.pinned[..values.len()].copy_from_slice(values);
        stream.upload(&self.pinned, &self.buffer, values.len())
    }
}

/// The host's side, of which there are two, so that a plan can be written while the one before is being copied.
#[derive(Debug)]
struct Staging {
    tasks: [Way<AttentionTask>; 3],
    queries: Way<AttentionQuery>,
    tables: Way<u32>,
    counts: Way<u32>,
    merge_rows: Way<u32>,
    merge_starts: Way<u32>,
    part_ids: Way<u32>,
    sent: Event,
}

/// Room for plans, made once.
#[derive(Debug)]
pub struct PlanBuffers {
    limits: PlanLimits,
    staging: [Staging; 2],
    turn: usize,
    parts: Buffer<f32>,
    part_sums: Buffer<f32>,
}

impl PlanBuffers {
    /// Room for plans within `limits` of a model with these heads.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, limits: PlanLimits, q_heads: usize, head_dim: usize) -> Result<Self> {
        let first = Staging::new(gpu, limits, None)?;
        let second = Staging::new(gpu, limits, Some(&first))?;
        Ok(Self {
            limits,
            staging: [first, second],
            turn: 0,
            parts: gpu.alloc(limits.parts * q_heads * head_dim)?,
            part_sums: gpu.alloc(limits.parts * q_heads)?,
        })
    }

    pub fn limits(&self) -> &PlanLimits {
        &self.limits
    }

    /// Sends a plan: it counts for work that is put on the stream from now on. Up to `merges` merges are then prepared
    /// (those beyond the plan's do nothing).
    ///
    /// # Errors
    /// A plan beyond the limits, by name.
    pub fn send(&mut self, stream: &Stream, plan: &Plan, merges: usize) -> Result<()> {
        ensure(plan.parts <= self.limits.parts, || {
            format!("plan: {} parts, and room for {}", plan.parts, self.limits.parts)
        })?;
        self.turn = 1 - self.turn;
        let s = &mut self.staging[self.turn];
        s.sent.wait()?;
        for (way, tasks) in s.tasks.iter_mut().zip(&plan.tasks) {
            way.send(stream, tasks, "tasks")?;
        }
        s.queries.send(stream, &plan.queries, "queries")?;
        s.tables.send(stream, &plan.tables, "entries of block tables")?;
        s.counts.send(stream, &plan.tasks.each_ref().map(|tasks| tasks.len() as u32), "tiles")?;
        let rest = merges.saturating_sub(plan.merge_rows.len());
        let end = plan.part_ids.len() as u32;
        let pad = |list: &[u32], filler| [list, &vec![filler; rest]].concat();
        s.merge_rows.send(stream, &pad(&plan.merge_rows, u32::MAX), "merges")?;
        s.merge_starts.send(stream, &pad(&plan.merge_starts, end), "merges")?;
        s.part_ids.send(stream, &plan.part_ids, "parts")?;
        stream.record(&s.sent)
    }

    /// Attention of the rows of the plan that was sent last, or (in a recorded graph) will have been.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn run(&self, stream: &Stream, a: &PlannedAttention, size: &PlanSize) -> Result<()> {
        let s = &self.staging[0];
        for (i, tile) in Plan::TILES.into_iter().enumerate().filter(|&(i, _)| size.tasks[i] > 0) {
            let args = Attention {
                q: a.q,
                q_stride: a.q_stride,
                q_heads: a.q_heads,
                kv: a.kv,
                tasks: &s.tasks[i].buffer,
                task_count: &s.counts.buffer.slice(i..3),
                max_tasks: size.tasks[i],
                queries: &s.queries.buffer,
                tables: &s.tables.buffer,
                out: a.out,
                parts: &self.parts,
                part_sums: &self.part_sums,
                scale: a.scale,
                tile,
            };
            attention(stream, &args)?;
        }
        if size.merges == 0 {
            return Ok(());
        }
        let args = Merge {
            parts: &self.parts,
            part_sums: &self.part_sums,
            rows: &s.merge_rows.buffer,
            starts: &s.merge_starts.buffer,
            part_ids: &s.part_ids.buffer,
            out: a.out,
            max_merges: size.merges,
            q_heads: a.q_heads,
            head_dim: a.kv.shape.head_dim,
        };
        merge(stream, &args)
    }
}

/// What attention reads and writes besides its plan.
#[derive(Debug)]
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

impl Staging {
    /// Host memory of its own, and the device memory of `other` if there is one.
    fn new(gpu: &Gpu, limits: PlanLimits, other: Option<&Self>) -> Result<Self> {
        fn way<T: Element>(gpu: &Gpu, len: usize, other: Option<&Way<T>>) -> Result<Way<T>> {
            let buffer = other.map_or_else(|| gpu.alloc(len), |way| Ok(way.buffer.clone()))?;
            Way::new(gpu, buffer)
        }
        let tasks = |i: usize| way(gpu, limits.tasks, other.map(|o| &o.tasks[i]));
        // A row has a part at least for each merge.
        let merges = limits.parts.min(limits.queries) + 1;
        Ok(Self {
            tasks: [tasks(0)?, tasks(1)?, tasks(2)?],
            queries: way(gpu, limits.queries, other.map(|o| &o.queries))?,
            tables: way(gpu, limits.tables, other.map(|o| &o.tables))?,
            counts: way(gpu, 3, other.map(|o| &o.counts))?,
            merge_rows: way(gpu, merges, other.map(|o| &o.merge_rows))?,
            merge_starts: way(gpu, merges + 1, other.map(|o| &o.merge_starts))?,
            part_ids: way(gpu, limits.parts, other.map(|o| &o.part_ids))?,
            sent: Event::new(gpu)?,
        })
    }
}
