//! On the processor: tiles of query rows against tiles of 64 positions, with a running softmax
//! (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022, section 3.1).
//!
//! A *row* is one query head of one token; the heads that share a KV head, the tokens of a chunk
//! and the sequences that share a prefix all become rows of one tile, so that keys and values are
//! read once for all of them:
//!
//! ```text
//!                 positions ->   tile 0     tile 1     tile 2
//! sequence 0   rows 0..3         [b4 .. b7] [b8 .. b11] [b12    ]
//! sequence 1   rows 3..6         [b4 .. b7] [b8 .. b11] [b20 b21]     tiles 0 and 1 in common:
//! sequence 2   rows 6..9         [b4 .. b7] [b8 .. b11] [b30    ]     nine rows at once
//! ```
//!
//! Tiles start at multiples of 64 and a row goes through them in order, so that its bits depend
//! on its own queries, keys and values alone: values are added up to the last position that a row
//! sees, so that what stands behind it (be it infinite) changes nothing. After each 1,024 positions, a *segment*, the softmax begins anew, and
//! what segments came to is added up in their order (as in Flash-Decoding, Dao et al. 2023). Where
//! there are fewer tasks than threads could take, each segment is a task.

mod plan;
mod sums;

use super::Heads;
use crate::host::{Shared, for_each_task};
use crate::kv::{BLOCK, Pages, VarLen};
use crate::simd::{Element, F32, Kernel, LANES, Simd, dispatch, exp};
use candle_core::{Result, bail};
use plan::{Plan, Span};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use sums::{AddUp, Sums};

/// Blocks of a tile.
const TILE_BLOCKS: usize = 4;
/// Positions of a tile.
const TILE: usize = TILE_BLOCKS * BLOCK;
/// Tiles of a segment.
const SEGMENT: usize = 16;
/// Rows from which on a tile's keys and values are widened once, not for each few rows again.
const ROWS_TO_WIDEN_FOR: usize = 12;
const _: () = assert!(BLOCK == LANES);

/// What attention needs beside its inputs, kept from one batch to the next.
#[derive(Debug, Default)]
pub struct Workspace {
    plan: Plan,
    /// Rows that no task is using.
    spare: Mutex<Vec<Rows>>,
    /// What segments came to that are tasks of their own.
    parts: Vec<Sums>,
}

impl Workspace {
    /// Plans the tasks of a batch.
    pub fn plan(&mut self, seqs: &VarLen, heads: Heads) {
        self.plan.make(seqs, heads);
    }

    /// Attention of the batch that was planned for.
    pub fn run<E: Element>(&mut self, batch: &Batch<E>, out: &mut [f32]) -> Result<()> {
        if !batch.heads.size.is_multiple_of(LANES) {
            bail!("attention: the head size {} is no multiple of {LANES}", batch.heads.size);
        }
        match self.plan.segments.is_empty() {
            true => self.run_tasks(batch, Shared::new(out)),
            false => self.run_segments(batch, Shared::new(out)),
        }
        Ok(())
    }

    fn run_tasks<E: Element>(&mut self, batch: &Batch<E>, out: Shared<f32>) {
        let (plan, spare, Heads { q, kv, size }) = (&self.plan, &self.spare, batch.heads);
        let seen = batch.seqs.kv_lens.iter().map(|&len| len as usize).sum::<usize>();
        for_each_task(plan.cuts.len() * kv, seen * q * size / 4, |i| {
            with_spare(spare, |rows| {
                let segments = 0..plan.cuts[i / kv].segments;
                dispatch(Attend { task: batch.task(plan, i), segments, rows });
                batch.task(plan, i).write(&rows.all, out);
            });
        });
    }

    fn run_segments<E: Element>(&mut self, batch: &Batch<E>, out: Shared<f32>) {
        let Self { plan, spare, parts } = self;
        if parts.len() < plan.segments.len() {
            parts.resize_with(plan.segments.len(), Sums::default);
        }
        let attend = |(part, &(i, segment)): (&mut Sums, &(usize, usize))| {
            with_spare(spare, |rows| {
                let segments = segment..segment + 1;
                dispatch(Attend { task: batch.task(plan, i), segments, rows });
                std::mem::swap(part, &mut rows.all);
            });
        };
        parts.par_iter_mut().zip(&plan.segments).with_max_len(1).for_each(attend);
        let mut rest = &mut parts[..];
        for i in 0..plan.cuts.len() * batch.heads.kv {
            let (parts, later) = rest.split_at_mut(plan.cuts[i / batch.heads.kv].segments);
            dispatch(AddUp { parts: &mut *parts, d: batch.heads.size });
            batch.task(plan, i).write(&parts[0], out);
            rest = later;
        }
    }
}

/// Lends rows to a task: those that were used last, which a cache may still hold.
fn with_spare(spare: &Mutex<Vec<Rows>>, work: impl FnOnce(&mut Rows)) {
    let lock = || -> MutexGuard<Vec<Rows>> { spare.lock().unwrap_or_else(PoisonError::into_inner) };
    let mut rows = lock().pop().unwrap_or_default();
    work(&mut rows);
    lock().push(rows);
}

/// Queries, and what they are asked of.
pub struct Batch<'a, E: Element> {
    /// The first columns of rows of `columns`.
    pub q: &'a [f32],
    pub columns: usize,
    pub pages: &'a Pages<E>,
    pub seqs: &'a VarLen,
    pub heads: Heads,
    pub scale: f32,
}

impl<'a, E: Element> Batch<'a, E> {
    /// Neighbouring tasks work on one head's pages of the same sequences.
    fn task(&'a self, plan: &'a Plan, i: usize) -> Task<'a, E> {
        let cut = &plan.cuts[i / self.heads.kv];
        Task { batch: self, spans: &plan.spans[cut.spans.clone()], kv_head: i % self.heads.kv }
    }
}

struct Task<'a, E: Element> {
    batch: &'a Batch<'a, E>,
    spans: &'a [Span],
    kv_head: usize,
}

/// The rows of a task on their way through the tiles.
#[derive(Debug, Default)]
struct Rows {
    /// Scaled queries, `[rows][D]`.
    q: Vec<f32>,
    /// Scores, then weights, of the current tile, `[rows][TILE]`.
    s: Vec<f32>,
    /// What the current segment came to so far.
    sums: Sums,
    /// What the segments before it came to.
    all: Sums,
    /// Positions of the current tile that each row sees.
    seen: Vec<usize>,
    /// Rows that see any of those that are read.
    active: Vec<usize>,
    /// Keys, then values, of the current tile in f32, `[TILE_BLOCKS][D * BLOCK]`, if they were widened.
    wide: Vec<f32>,
}

/// Where the keys, or the values, of a tile's blocks lie.
type Lines<L> = [*const <L as Element>::Stored; TILE_BLOCKS];

fn fill<T: Copy>(numbers: &mut Vec<T>, len: usize, value: T) {
    numbers.clear();
    numbers.resize(len, value);
}

/// Where what `page` gives for each of some blocks begins.
#[inline(always)]
fn lines<'a, L: Element>(blocks: &[u32], page: impl Fn(u32) -> &'a [L::Stored]) -> Lines<L> {
    std::array::from_fn(|b| blocks.get(b).map_or(std::ptr::null(), |&block| page(block).as_ptr()))
}

/// Attention to some segments, added up in `rows.all`.
struct Attend<'a, E: Element> {
    task: Task<'a, E>,
    segments: Range<usize>,
    rows: &'a mut Rows,
}

impl<E: Element> Kernel for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { task, segments, rows } = self;
        let d = task.batch.heads.size;
        let count = task.load(rows);
        let mut active = std::mem::take(&mut rows.active);
        let mut wide = std::mem::take(&mut rows.wide);
        rows.all.clear(count, d);
        for segment in segments {
            rows.sums.clear(count, d);
            for tile in segment * SEGMENT..((segment + 1) * SEGMENT).min(task.tiles()) {
                // SAFETY: the caller's.
                unsafe { task.tile::<S>(rows, &mut active, &mut wide, tile) };
            }
            // SAFETY: both are sums of the task's rows.
            unsafe { rows.all.add::<S>(&rows.sums, d) };
        }
        rows.active = active;
        rows.wide = wide;
    }
}

impl<E: Element> Task<'_, E> {
    /// Tiles up to the last position that is seen.
    fn tiles(&self) -> usize {
        self.spans.iter().map(Span::end).max().unwrap_or(0).div_ceil(TILE)
    }

    /// Takes all rows through a tile.
    #[inline(always)]
    unsafe fn tile<S: Simd>(
        &self,
        rows: &mut Rows,
        active: &mut Vec<usize>,
        wide: &mut Vec<f32>,
        tile: usize,
    ) {
        let mut i = 0;
        while i < self.spans.len() {
            let j = self.run_of_equal_blocks(i, tile);
            self.activate(i..j, tile, rows, active);
            if let Some(longest) = active.iter().map(|&r| rows.seen[r]).max() {
                let blocks = &self.blocks(i, tile)[..longest.div_ceil(BLOCK)];
                let next = if j < self.spans.len() {
                    self.blocks(j, tile)
                } else {
                    self.blocks(0, tile + 1)
                };
                // SAFETY: `active` names rows of the task, and the blocks hold keys and values of
                // the positions that those rows see.
                unsafe {
                    let keys =
                        lines::<E>(blocks, |block| self.batch.pages.keys(block, self.kv_head));
                    let values =
                        lines::<E>(blocks, |block| self.batch.pages.values(block, self.kv_head));
                    if size_of::<E::Stored>() < 4 && active.len() >= ROWS_TO_WIDEN_FOR {
                        let keys = self.widened::<S>(&keys, blocks.len(), wide);
                        self.scores::<S, F32>(rows, active, &keys, blocks);
                        self.softmax::<S>(rows, active, blocks.len());
                        let values = self.widened::<S>(&values, blocks.len(), wide);
                        self.values::<S, F32>(rows, active, &values, blocks, next);
                    } else {
                        self.scores::<S, E>(rows, active, &keys, blocks);
                        self.softmax::<S>(rows, active, blocks.len());
                        self.values::<S, E>(rows, active, &values, blocks, next);
                    }
                }
            }
            i = j;
        }
    }

    /// Columns of a token's query heads that belong to the task's KV head.
    fn columns(&self) -> Range<usize> {
        let width = self.batch.heads.group() * self.batch.heads.size;
        self.kv_head * width..(self.kv_head + 1) * width
    }

    /// Tokens of all spans, as rows of the batch.
    fn tokens(&self) -> impl Iterator<Item = usize> {
        self.spans.iter().flat_map(|span| span.first..span.first + span.tokens)
    }

    /// Fills in the queries, and gives the number of rows.
    fn load(&self, rows: &mut Rows) -> usize {
        let Batch { q, columns, heads, scale, .. } = *self.batch;
        rows.q.clear();
        for token in self.tokens() {
            rows.q.extend(q[token * columns..][self.columns()].iter().map(|x| x * scale));
        }
        let count = rows.q.len() / heads.size;
        fill(&mut rows.seen, count, 0);
        // What is in it is never read before it is written.
        rows.s.resize(rows.s.len().max(count * TILE), 0.0);
        count
    }

    fn write(&self, sums: &Sums, out: Shared<f32>) {
        let Heads { q, size, .. } = self.batch.heads;
        let mut rows = sums.o.chunks_exact(size).zip(&sums.total);
        for token in self.tokens() {
            let mut at = token * q * size + self.columns().start;
            for (o, total) in rows.by_ref().take(self.batch.heads.group()) {
                for o in o {
                    // SAFETY: each head of each token belongs to one task only.
                    unsafe { out.at(at).write(o / total) };
                    at += 1;
                }
            }
        }
    }

    /// Blocks of span `i`'s sequence in a tile: fewer than [`TILE_BLOCKS`] where it ends.
    fn blocks(&self, i: usize, tile: usize) -> &[u32] {
        let sequence = self.spans[i].sequence;
        let held = (self.batch.seqs.kv_lens[sequence] as usize).div_ceil(BLOCK);
        let table = &self.batch.seqs.block_tables[sequence][..held];
        &table[(tile * TILE_BLOCKS).min(held)..((tile + 1) * TILE_BLOCKS).min(held)]
    }

    /// End of the spans from `i` on that read the same blocks in this tile.
    fn run_of_equal_blocks(&self, i: usize, tile: usize) -> usize {
        let blocks = self.blocks(i, tile);
        (i + 1..self.spans.len())
            .find(|&j| self.blocks(j, tile) != blocks)
            .unwrap_or(self.spans.len())
    }

    /// Collects the rows of some spans that see positions of this tile, and how many.
    fn activate(&self, spans: Range<usize>, tile: usize, rows: &mut Rows, active: &mut Vec<usize>) {
        active.clear();
        let group = self.batch.heads.group();
        let mut row = self.spans[..spans.start].iter().map(|s| s.tokens).sum::<usize>() * group;
        for span in &self.spans[spans] {
            for position in span.position..span.end() {
                let seen = (position + 1).saturating_sub(tile * TILE).min(TILE);
                for _ in 0..group {
                    if seen > 0 {
                        rows.seen[row] = seen;
                        active.push(row);
                    }
                    row += 1;
                }
            }
        }
    }

    /// Some blocks' numbers in f32, in the memory that is lent.
    #[inline(always)]
    unsafe fn widened<S: Simd>(
        &self,
        lines: &Lines<E>,
        blocks: usize,
        wide: &mut Vec<f32>,
    ) -> Lines<F32> {
        let page = self.batch.heads.size * BLOCK;
        wide.resize(wide.len().max(TILE_BLOCKS * page), 0.0);
        for (from, to) in lines[..blocks].iter().zip(wide.chunks_exact_mut(page)) {
            for (i, to) in to.chunks_exact_mut(LANES).enumerate() {
                // SAFETY: both are pages, of a multiple of the lanes.
                unsafe { S::store(to.as_mut_ptr(), E::load::<S>(from.add(i * LANES))) };
            }
        }
        std::array::from_fn(|b| wide[b * page..].as_ptr())
    }

    /// Scores of the active rows against the keys of `blocks`, which lie where `keys` says.
    #[inline(always)]
    unsafe fn scores<S: Simd, L: Element>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        keys: &Lines<L>,
        blocks: &[u32],
    ) {
        let mut i = 0;
        while i < active.len() {
            let left = active.len() - i;
            let fetch = i == 0;
            unsafe {
                if S::REGISTERS >= 32 && left >= 6 {
                    self.scores_of::<S, L, 6, 4>(rows, &active[i..], keys, blocks, fetch);
                    i += 6;
                } else if S::REGISTERS >= 32 && left >= 3 {
                    self.scores_of::<S, L, 3, 4>(rows, &active[i..], keys, blocks, fetch);
                    i += 3;
                } else if left >= 2 {
                    self.scores_of::<S, L, 2, 2>(rows, &active[i..], keys, blocks, fetch);
                    i += 2;
                } else {
                    self.scores_of::<S, L, 1, 2>(rows, &active[i..], keys, blocks, fetch);
                    i += 1;
                }
            }
        }
    }

    /// `MR` rows, `NB` blocks at a time and the rest one by one.
    #[inline(always)]
    unsafe fn scores_of<S: Simd, L: Element, const MR: usize, const NB: usize>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        keys: &Lines<L>,
        blocks: &[u32],
        fetch: bool,
    ) {
        let mut b = 0;
        unsafe {
            while b + NB <= blocks.len() {
                let (keys, blocks) = (&keys[b..], if fetch { &blocks[b..] } else { &[] });
                self.score_tile::<S, L, MR, NB>(rows, active, keys, blocks, b);
                b += NB;
            }
            while b < blocks.len() {
                let (keys, blocks) = (&keys[b..], if fetch { &blocks[b..] } else { &[] });
                self.score_tile::<S, L, MR, 1>(rows, active, keys, blocks, b);
                b += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn score_tile<S: Simd, L: Element, const MR: usize, const NB: usize>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        keys: &[*const L::Stored],
        fetch: &[u32],
        first: usize,
    ) {
        let d = self.batch.heads.size;
        let keys: [*const L::Stored; NB] = std::array::from_fn(|b| keys[b]);
        unsafe {
            let mut ahead = [std::ptr::null::<E::Stored>(); NB];
            for (ahead, &block) in ahead.iter_mut().zip(fetch) {
                *ahead = self.batch.pages.values(block, self.kv_head).as_ptr();
            }
            let mut q = [std::ptr::null::<f32>(); MR];
            for r in 0..MR {
                q[r] = rows.q.as_ptr().add(active[r] * d);
            }
            let mut acc = [[S::splat(0.0); NB]; MR];
            for i in 0..d {
                let mut column = [S::splat(0.0); NB];
                for b in 0..NB {
                    column[b] = L::load::<S>(keys[b].add(i * BLOCK));
                    if !fetch.is_empty() {
                        S::prefetch(ahead[b].add(i * BLOCK).cast());
                    }
                }
                for r in 0..MR {
                    let x = S::splat(*q[r].add(i));
                    for b in 0..NB {
                        acc[r][b] = S::fma(x, column[b], acc[r][b]);
                    }
                }
            }
            for r in 0..MR {
                for b in 0..NB {
                    S::store(
                        rows.s.as_mut_ptr().add(active[r] * TILE + (first + b) * BLOCK),
                        acc[r][b],
                    );
                }
            }
        }
    }

    /// Turns scores into weights relative to the largest score so far. (In two passes, each of which is the same
    /// few operations for all rows, so that the processor works on several rows at a time.)
    #[inline(always)]
    unsafe fn softmax<S: Simd>(&self, rows: &mut Rows, active: &[usize], blocks: usize) {
        for &row in active {
            let s = &mut rows.s[row * TILE..][..blocks * BLOCK];
            s[rows.seen[row].min(blocks * BLOCK)..].fill(f32::NEG_INFINITY);
            // SAFETY: there are as many scores.
            unsafe {
                let mut top = S::load(s.as_ptr());
                for b in 1..blocks {
                    top = S::max(top, S::load(s.as_ptr().add(b * BLOCK)));
                }
                let top = S::largest(top);
                if top > rows.sums.largest[row] {
                    rows.sums.raise::<S>(row, top, self.batch.heads.size);
                }
            }
        }
        for &row in active {
            let s = &mut rows.s[row * TILE..][..blocks * BLOCK];
            // SAFETY: there are as many scores.
            unsafe {
                let largest = S::splat(rows.sums.largest[row]);
                let mut total = S::splat(0.0);
                for b in 0..blocks {
                    let at = s.as_mut_ptr().add(b * BLOCK);
                    let weight = exp::<S>(S::sub(S::load(at), largest));
                    S::store(at, weight);
                    total = S::add(total, weight);
                }
                rows.sums.total[row] += S::sum(total);
            }
        }
    }

    /// Adds the weighted values of the positions of `blocks` that each active row sees to its sums;
    /// they lie where `values` says.
    #[inline(always)]
    unsafe fn values<S: Simd, L: Element>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        values: &Lines<L>,
        blocks: &[u32],
        next: &[u32],
    ) {
        let mut i = 0;
        while i < active.len() {
            let left = active.len() - i;
            let next = if i == 0 { next } else { &[] };
            unsafe {
                if S::REGISTERS >= 32 && left >= 6 {
                    self.values_of::<S, L, 6, 4>(rows, &active[i..], values, blocks, next);
                    i += 6;
                } else if S::REGISTERS >= 32 && left >= 3 {
                    self.values_of::<S, L, 3, 4>(rows, &active[i..], values, blocks, next);
                    i += 3;
                } else if left >= 2 {
                    self.values_of::<S, L, 2, 2>(rows, &active[i..], values, blocks, next);
                    i += 2;
                } else {
                    self.values_of::<S, L, 1, 2>(rows, &active[i..], values, blocks, next);
                    i += 1;
                }
            }
        }
    }

    /// `MR` rows, `NV` vectors of columns at a time and the rest one by one.
    #[inline(always)]
    unsafe fn values_of<S: Simd, L: Element, const MR: usize, const NV: usize>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        values: &Lines<L>,
        blocks: &[u32],
        next: &[u32],
    ) {
        let d = self.batch.heads.size;
        let seen_by_all = active[..MR].iter().map(|&row| rows.seen[row]).min().unwrap_or(0);
        let mut column = 0;
        unsafe {
            while column + NV * LANES <= d {
                self.value_tile::<S, L, MR, NV>(rows, active, values, seen_by_all, next, column);
                column += NV * LANES;
            }
            while column < d {
                self.value_tile::<S, L, MR, 1>(rows, active, values, seen_by_all, next, column);
                column += LANES;
            }
            for &row in &active[..MR] {
                self.values_behind::<S>(rows, row, blocks, seen_by_all);
            }
        }
    }

    /// Adds the values of the positions from `first` on that a row sees. They are few, if any: those
    /// that its neighbours do not see.
    #[inline(always)]
    unsafe fn values_behind<S: Simd>(
        &self,
        rows: &mut Rows,
        row: usize,
        blocks: &[u32],
        first: usize,
    ) {
        let d = self.batch.heads.size;
        for p in first..rows.seen[row] {
            let values = &self.batch.pages.values(blocks[p / BLOCK], self.kv_head)[p % BLOCK * d..];
            let (weight, o) = (rows.s[row * TILE + p], &mut rows.sums.o[row * d..][..d]);
            // SAFETY: both have `d` numbers, a multiple of the lanes.
            unsafe {
                for column in (0..d).step_by(LANES) {
                    let o = o.as_mut_ptr().add(column);
                    let value = E::load::<S>(values.as_ptr().add(column));
                    S::store(o, S::fma(S::splat(weight), value, S::load(o)));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn value_tile<S: Simd, L: Element, const MR: usize, const NV: usize>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        values: &Lines<L>,
        positions: usize,
        next: &[u32],
        column: usize,
    ) {
        let d = self.batch.heads.size;
        unsafe {
            let mut acc = [[S::splat(0.0); NV]; MR];
            for r in 0..MR {
                for v in 0..NV {
                    let o = rows.sums.o.as_ptr().add(active[r] * d + column + v * LANES);
                    acc[r][v] = S::load(o);
                }
            }
            for b in 0..positions.div_ceil(BLOCK) {
                let values = values[b].add(column);
                let ahead = next
                    .get(b)
                    .map(|&b| self.batch.pages.keys(b, self.kv_head).as_ptr().add(column));
                for p in 0..BLOCK.min(positions - b * BLOCK) {
                    let mut value = [S::splat(0.0); NV];
                    for v in 0..NV {
                        value[v] = L::load::<S>(values.add(p * d + v * LANES));
                        if let Some(ahead) = ahead {
                            S::prefetch(ahead.add(p * d + v * LANES).cast());
                        }
                    }
                    for r in 0..MR {
                        let weight = *rows.s.as_ptr().add(active[r] * TILE + b * BLOCK + p);
                        let weight = S::splat(weight);
                        for v in 0..NV {
                            acc[r][v] = S::fma(weight, value[v], acc[r][v]);
                        }
                    }
                }
            }
            for r in 0..MR {
                for v in 0..NV {
                    let to = rows.sums.o.as_mut_ptr().add(active[r] * d + column + v * LANES);
                    S::store(to, acc[r][v]);
                }
            }
        }
    }
}
