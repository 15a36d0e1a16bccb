//! What a step needs from the host: arrays side by side in one block of memory that one copy
//! brings to the GPU.
//!
//! ```text
//! tokens | positions | slots | picked | counts | tasks (3 tiles) | queries | merge rows, starts, parts | tables …
//! ```
//! Where each begins depends on the sizes that the block is laid out for. A recorded step is laid out for the
//! largest numbers that it can have, any other for its own.

use crate::batch::Batch;
use kernels::gpu::{
    AttentionQuery, AttentionTask, Buffer, Element, Gpu, NO_SLOT, Pinned, Plan, PlanSettings,
    Result, Stream, bytes_of,
};
use std::ops::Range;

/// Row of a merge that fills up a recorded step.
const NO_MERGE: u32 = u32::MAX;

/// Arrays begin at multiples of this many bytes.
const ALIGNMENT: usize = 256;

/// Numbers of entries that a block is laid out for; of tables, only those of this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sizes {
    pub rows: usize,
    /// Rows whose logits are wanted.
    pub picked: usize,
    /// By tile.
    pub tasks: [usize; 3],
    pub queries: usize,
    pub merges: usize,
    pub part_ids: usize,
}

impl Sizes {
    /// Those of a step.
    pub fn of(batch: &Batch, plan: &Plan) -> Self {
        Self {
            rows: batch.tokens.len(),
            picked: batch.logit_rows.len(),
            tasks: plan.tasks.each_ref().map(Vec::len),
            queries: plan.queries.len(),
            merges: plan.merge_rows.len(),
            part_ids: plan.part_ids.len(),
        }
    }

    /// Those of almost any step of up to `rows` sequences that have one row each: keys that are
    /// shared twice, and as many cuts as there are multiprocessors for.
    pub fn of_single_rows(rows: usize, settings: &PlanSettings) -> Self {
        let cuts = (4 * settings.multiprocessors).div_ceil(settings.kv_heads);
        let tasks = if settings.same_for_all_batches { [0, rows, 0] } else { [3 * rows + cuts; 3] };
        let part_ids = (3 * rows + cuts).min(settings.max_parts);
        Self { rows, picked: rows, tasks, queries: 4 * rows, merges: rows, part_ids }
    }

    /// The same without what a step of sizes `other` has nothing of: launches that do nothing take time, too.
    pub fn without_what_lacks(&self, other: &Self) -> Self {
        let mut sizes = *self;
        for (room, &tasks) in sizes.tasks.iter_mut().zip(&other.tasks) {
            *room = if tasks == 0 { 0 } else { *room };
        }
        let merges = if other.merges == 0 { 0 } else { self.merges };
        Self { merges, ..sizes }
    }

    /// Whether a step of sizes `other` has room.
    pub fn hold(&self, other: &Self) -> bool {
        other.rows <= self.rows
            && other.picked <= self.picked
            && other.tasks.iter().zip(&self.tasks).all(|(one, room)| one <= room)
            && other.queries <= self.queries
            && other.merges <= self.merges
            && other.part_ids <= self.part_ids
    }
}

/// Where the arrays of a step lie, in bytes.
#[derive(Debug, Clone)]
struct Places {
    tokens: Range<usize>,
    positions: Range<usize>,
    slots: Range<usize>,
    picked: Range<usize>,
    task_counts: [Range<usize>; 3],
    tasks: [Range<usize>; 3],
    queries: Range<usize>,
    merge_rows: Range<usize>,
    merge_starts: Range<usize>,
    part_ids: Range<usize>,
    tables: usize,
}

impl Places {
    fn new(sizes: &Sizes) -> Self {
        let mut end = 0;
        let mut place = |len: usize, size: usize| {
            let first = end;
            end += (len.max(1) * size).next_multiple_of(ALIGNMENT);
            first..first + len * size
        };
        Self {
            tokens: place(sizes.rows, 4),
            positions: place(sizes.rows, 4),
            slots: place(sizes.rows, 4),
            picked: place(sizes.picked, 4),
            task_counts: [1; 3].map(|len| place(len, 4)),
            tasks: sizes.tasks.map(|len| place(len, size_of::<AttentionTask>())),
            queries: place(sizes.queries, size_of::<AttentionQuery>()),
            merge_rows: place(sizes.merges, 4),
            merge_starts: place(sizes.merges + 1, 4),
            part_ids: place(sizes.part_ids, 4),
            tables: end,
        }
    }
}

/// The arrays of a step on the GPU.
pub struct Arrays {
    pub sizes: Sizes,
    pub tokens: Buffer<u32>,
    pub positions: Buffer<u32>,
    pub slots: Buffer<u32>,
    pub picked: Buffer<u32>,
    pub task_counts: [Buffer<u32>; 3],
    pub tasks: [Buffer<AttentionTask>; 3],
    pub queries: Buffer<AttentionQuery>,
    pub merge_rows: Buffer<u32>,
    pub merge_starts: Buffer<u32>,
    pub part_ids: Buffer<u32>,
    pub tables: Buffer<u32>,
}

/// A block on both sides. The host has it twice: one is filled while the other may be on its way.
pub struct Block {
    filled: Pinned<u8>,
    sent: Pinned<u8>,
    device: Buffer<u8>,
}

impl Block {
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, bytes: usize) -> Result<Self> {
        let (filled, sent) = (gpu.alloc_pinned(bytes)?, gpu.alloc_pinned(bytes)?);
        Ok(Self { filled, sent, device: gpu.alloc(bytes)? })
    }

    /// Bytes that a step needs.
    pub fn bytes_for(sizes: &Sizes, tables: usize) -> usize {
        Places::new(sizes).tables + 4 * tables
    }

    pub fn bytes(&self) -> usize {
        self.device.len()
    }

    /// The arrays of a step of these sizes.
    pub fn arrays(&self, sizes: Sizes) -> Arrays {
        let places = Places::new(&sizes);
        let ids = |range: &Range<usize>| self.device.part(range.clone());
        Arrays {
            sizes,
            tokens: ids(&places.tokens),
            positions: ids(&places.positions),
            slots: ids(&places.slots),
            picked: ids(&places.picked),
            task_counts: places.task_counts.each_ref().map(ids),
            tasks: places.tasks.clone().map(|range| self.device.part(range)),
            queries: self.device.part(places.queries.clone()),
            merge_rows: ids(&places.merge_rows),
            merge_starts: ids(&places.merge_starts),
            part_ids: ids(&places.part_ids),
            tables: ids(&(places.tables..self.device.len() / 4 * 4)),
        }
    }

    /// Writes a step but for its tokens to its places for `sizes`, which are no smaller than its own; what is more is
    /// filled with rows that write nothing. Returns up to where bytes were written. What was sent before the last
    /// [`Block::send`] must have arrived.
    ///
    /// # Panics
    /// The block is too small ([`Block::bytes_for`]).
    pub fn fill(&mut self, batch: &Batch, plan: &Plan, sizes: &Sizes) -> usize {
        let places = Places::new(sizes);
        let mut put = |range, numbers: &[u32], fill| put(&mut self.filled[range], numbers, fill);
        put(places.positions, &batch.layout.positions, 0);
        put(places.slots, &batch.layout.slots, NO_SLOT);
        put(places.picked, &batch.logit_rows, 0);
        for (place, tasks) in places.task_counts.into_iter().zip(&plan.tasks) {
            put(place, &[tasks.len() as u32], 0);
        }
        put(places.merge_rows, &plan.merge_rows, NO_MERGE);
        put(places.merge_starts, &plan.merge_starts, plan.part_ids.len() as u32);
        put(places.part_ids, &plan.part_ids, 0);
        let end = places.tables + 4 * plan.tables.len();
        put(places.tables..end, &plan.tables, 0);
        for (place, tasks) in places.tasks.into_iter().zip(&plan.tasks) {
            self.put_structures(place, tasks);
        }
        self.put_structures(places.queries, &plan.queries);
        end
    }

    /// Adds the tokens to what was filled in for `sizes`, and copies it up to byte `end`.
    ///
    /// # Errors
    /// The GPU's.
    pub fn send(
        &mut self,
        stream: &Stream,
        tokens: &[u32],
        sizes: &Sizes,
        end: usize,
    ) -> Result<()> {
        put(&mut self.filled[Places::new(sizes).tokens], tokens, 0);
        std::mem::swap(&mut self.filled, &mut self.sent);
        stream.upload(&self.sent, &self.device, end)
    }

    fn put_structures<T: Element>(&mut self, range: Range<usize>, structures: &[T]) {
        let bytes = bytes_of(structures);
        self.filled[range][..bytes.len()].copy_from_slice(bytes);
    }
}

/// Writes numbers, and `fill` behind them.
fn put(to: &mut [u8], numbers: &[u32], fill: u32) {
    let (front, rest) = to.split_at_mut(size_of_val(numbers));
    front.copy_from_slice(bytes_of(numbers));
    rest.as_chunks_mut::<4>().0.fill(fill.to_ne_bytes());
}
