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
//! on its own queries, keys and values alone: masked positions get weight 0 exactly, and adding
//! them changes nothing. After each 1,024 positions, a *segment*, the softmax begins anew, and
//! what segments came to is added up in their order (as in Flash-Decoding, Dao et al. 2023). Where
//! there are fewer tasks than threads could take, each segment is a task.

use crate::host::{Shared, for_each_task, with_f32, written};
use crate::kv::{BLOCK, Pages, VarLen};
use crate::simd::{Element, Kernel, LANES, Simd, dispatch, exp};
use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;
use std::ops::Range;

/// Blocks of a tile.
const TILE_BLOCKS: usize = 4;
/// Positions of a tile.
const TILE: usize = TILE_BLOCKS * BLOCK;
/// Tiles of a segment.
const SEGMENT: usize = 16;
/// Rows that a task aims for: enough to pay for a read of keys and values, few enough for their
/// state to stay in the second-level cache.
const ROWS: usize = 96;

/// Tokens of a task of several sequences: enough for those with a common prefix to share a read, few
/// enough that the keys and values of the others come in few streams at a time.
const JOINED_TOKENS: usize = 4;

const _: () = assert!(BLOCK == LANES);

pub fn paged_attention<E: Element>(
    q: &Tensor,
    pages: &Pages<E>,
    kv_heads: usize,
    seqs: &VarLen,
    scale: f32,
) -> Result<Tensor> {
    let (t, heads, d) = q.dims3()?;
    if d % LANES != 0 {
        bail!("attention: the head size {d} is no multiple of {LANES}");
    }
    let group = heads / kv_heads;
    let tasks = split(seqs, tokens_of_task(t, group, kv_heads));
    let attend = |out: Shared<f32>, q: &[f32]| {
        let shape = Shape { heads, d, group, scale };
        // Neighbouring tasks work on one head's pages of the same sequences.
        let task = |i: usize| Task {
            q,
            pages,
            seqs,
            spans: &tasks[i / kv_heads],
            kv_head: i % kv_heads,
            shape,
        };
        let count = tasks.len() * kv_heads;
        let segments: Vec<usize> = (0..count).map(|i| task(i).segments()).collect();
        let few = count < FEW * rayon::current_num_threads();
        if few && segments.iter().any(|&segments| segments > 1) {
            by_segment(count, &segments, task, out);
            return Ok(());
        }
        let operations = seqs.kv_lens.iter().map(|&l| l as usize).sum::<usize>() * heads * d / 4;
        for_each_task(count, operations, |i| {
            let sums = dispatch(Attend { task: task(i), segments: 0..segments[i] });
            task(i).write(&sums, out);
        });
        Ok(())
    };
    // SAFETY: the tasks write each head of each row.
    let out =
        unsafe { written(t * heads * d, |out| with_f32(q, "attention: q", |q| attend(out, q)))? };
    Tensor::from_vec(out, (t, heads * d), q.device())
}

/// Tasks for each thread below which their segments are tasks of their own.
const FEW: usize = 4;

/// Attends to each segment of each task by itself.
fn by_segment<'a, E: Element>(
    count: usize,
    segments: &[usize],
    task: impl Fn(usize) -> Task<'a, E> + Sync,
    out: Shared<f32>,
) {
    let all: Vec<(usize, usize)> =
        (0..count).flat_map(|i| (0..segments[i]).map(move |segment| (i, segment))).collect();
    let attend = |&(i, segment): &(usize, usize)| {
        dispatch(Attend { task: task(i), segments: segment..segment + 1 })
    };
    let mut parts: Vec<Sums> = all.par_iter().with_max_len(1).map(attend).collect();
    let mut parts = parts.drain(..);
    for (i, &segments) in segments.iter().enumerate() {
        let parts: Vec<Sums> = parts.by_ref().take(segments).collect();
        task(i).write(&dispatch(AddUp { parts, d: task(i).shape.d }), out);
    }
}

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    d: usize,
    /// Query heads of a KV head.
    group: usize,
    scale: f32,
}

/// Consecutive tokens of one sequence.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    sequence: usize,
    /// First row of `q`.
    first: usize,
    tokens: usize,
    /// Position of the first token.
    position: usize,
}

impl Span {
    /// Positions that the last token sees.
    fn end(&self) -> usize {
        self.position + self.tokens
    }
}

/// Tokens of a task: [`ROWS`] rows, or fewer where threads would stay idle. Bits do not depend on
/// it.
fn tokens_of_task(tokens: usize, group: usize, kv_heads: usize) -> usize {
    let most = (ROWS / group).max(1);
    let wanted_tasks = (4 * rayon::current_num_threads()).div_ceil(kv_heads);
    tokens.div_ceil(wanted_tasks).clamp(JOINED_TOKENS.min(most), most)
}

/// Cuts the batch into tasks: chunks of more than [`JOINED_TOKENS`] into pieces of `limit` tokens,
/// shorter ones joined, those with a common prefix next to each other.
fn split(seqs: &VarLen, limit: usize) -> Vec<Vec<Span>> {
    let mut order: Vec<usize> = (0..seqs.kv_lens.len()).collect();
    order.sort_by(|&a, &b| seqs.block_tables[a].cmp(&seqs.block_tables[b]));
    let mut tasks: Vec<Vec<Span>> = Vec::new();
    let mut room = 0;
    for sequence in order {
        let starts = &seqs.query_starts[sequence..];
        let (mut first, end) = (starts[0] as usize, starts[1] as usize);
        let mut position = seqs.kv_lens[sequence] as usize - (end - first);
        let joined = end - first <= JOINED_TOKENS;
        room = if joined { room } else { 0 };
        while first < end {
            if room == 0 {
                tasks.push(Vec::new());
                room = if joined { JOINED_TOKENS.min(limit) } else { limit };
            }
            let tokens = room.min(end - first);
            let span = Span { sequence, first, tokens, position };
            if let Some(task) = tasks.last_mut() {
                task.push(span);
            }
            first += tokens;
            position += tokens;
            room -= tokens;
        }
        room = if joined { room } else { 0 };
    }
    tasks
}

#[derive(Clone, Copy)]
struct Task<'a, E: Element> {
    q: &'a [f32],
    pages: &'a Pages<E>,
    seqs: &'a VarLen,
    spans: &'a [Span],
    kv_head: usize,
    shape: Shape,
}

/// The rows of a task on their way through the tiles.
struct Rows {
    /// Scaled queries, `[rows][D]`.
    q: Vec<f32>,
    /// Scores, then weights, of the current tile, `[rows][TILE]`.
    s: Vec<f32>,
    /// What the current segment came to so far.
    sums: Sums,
    /// Positions of the current tile that each row sees.
    seen: Vec<usize>,
}

/// A softmax over some positions, by row.
struct Sums {
    /// Weighted sums of values, `[rows][D]`.
    o: Vec<f32>,
    /// The largest score, relative to which weights are.
    largest: Vec<f32>,
    /// Sums of weights; 0 where a row sees none of the positions.
    total: Vec<f32>,
}

impl Sums {
    fn new(rows: usize, d: usize) -> Self {
        let (o, largest) = (vec![0.0; rows * d], vec![f32::NEG_INFINITY; rows]);
        Self { o, largest, total: vec![0.0; rows] }
    }

    fn clear(&mut self) {
        self.o.fill(0.0);
        self.largest.fill(f32::NEG_INFINITY);
        self.total.fill(0.0);
    }

    /// Adds what later positions came to.
    #[inline(always)]
    unsafe fn add<S: Simd>(&mut self, later: &Self, d: usize) {
        // (Not: above 0. What is not a number must stay one.)
        for row in (0..self.total.len()).filter(|&row| later.total[row] != 0.0) {
            if self.total[row] == 0.0 {
                self.o[row * d..][..d].copy_from_slice(&later.o[row * d..][..d]);
                (self.largest[row], self.total[row]) = (later.largest[row], later.total[row]);
                continue;
            }
            let (ours, theirs) = (self.largest[row], later.largest[row]);
            let largest = if theirs > ours { theirs } else { ours };
            // SAFETY: both have `d` sums for each row, a multiple of the lanes.
            unsafe {
                let weight = |of: f32| S::largest(exp::<S>(S::splat(of - largest)));
                let (keep, take) = (weight(ours), weight(theirs));
                let (o, other) = (self.o.as_mut_ptr().add(row * d), later.o.as_ptr().add(row * d));
                for i in (0..d).step_by(LANES) {
                    let kept = S::mul(S::load(o.add(i)), S::splat(keep));
                    S::store(o.add(i), S::fma(S::load(other.add(i)), S::splat(take), kept));
                }
                self.total[row] = self.total[row] * keep + later.total[row] * take;
            }
            self.largest[row] = largest;
        }
    }
}

/// Adds up what consecutive segments came to.
struct AddUp {
    parts: Vec<Sums>,
    d: usize,
}

impl Kernel for AddUp {
    type Output = Sums;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Sums {
        let mut parts = self.parts.into_iter();
        let mut all = parts.next().unwrap_or_else(|| Sums::new(0, self.d));
        // SAFETY: all are sums of the same rows.
        parts.for_each(|later| unsafe { all.add::<S>(&later, self.d) });
        all
    }
}

/// Attention to some segments, added up.
struct Attend<'a, E: Element> {
    task: Task<'a, E>,
    segments: Range<usize>,
}

impl<E: Element> Kernel for Attend<'_, E> {
    type Output = Sums;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Sums {
        let Self { task, segments } = self;
        let mut rows = task.load();
        let mut active = Vec::with_capacity(rows.seen.len());
        let (first, last) = (segments.start, segments.end);
        let mut all = Sums::new(if last - first > 1 { rows.seen.len() } else { 0 }, task.shape.d);
        for segment in segments {
            for tile in segment * SEGMENT..((segment + 1) * SEGMENT).min(task.tiles()) {
                // SAFETY: the caller's.
                unsafe { task.tile::<S>(&mut rows, &mut active, tile) };
            }
            if last - first == 1 {
                return rows.sums;
            }
            // SAFETY: both are sums of the task's rows.
            unsafe { all.add::<S>(&rows.sums, task.shape.d) };
            rows.sums.clear();
        }
        all
    }
}

impl<E: Element> Task<'_, E> {
    /// Tiles up to the last position that is seen.
    fn tiles(&self) -> usize {
        self.spans.iter().map(Span::end).max().unwrap_or(0).div_ceil(TILE)
    }

    fn segments(&self) -> usize {
        self.tiles().div_ceil(SEGMENT)
    }

    /// Takes all rows through a tile.
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, rows: &mut Rows, active: &mut Vec<usize>, tile: usize) {
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
                    self.scores::<S>(rows, active, blocks);
                    self.softmax::<S>(rows, active, blocks.len());
                    self.values::<S>(rows, active, blocks, longest, next);
                }
            }
            i = j;
        }
    }

    fn load(&self) -> Rows {
        let Shape { heads, d, group, scale } = self.shape;
        let rows = self.spans.iter().map(|s| s.tokens).sum::<usize>() * group;
        let mut q = Vec::with_capacity(rows * d);
        for span in self.spans {
            for token in span.first..span.first + span.tokens {
                let at = (token * heads + self.kv_head * group) * d;
                q.extend(self.q[at..][..group * d].iter().map(|x| x * scale));
            }
        }
        Rows { q, s: vec![0.0; rows * TILE], sums: Sums::new(rows, d), seen: vec![0; rows] }
    }

    fn write(&self, sums: &Sums, out: Shared<f32>) {
        let Shape { heads, d, group, .. } = self.shape;
        let mut row = 0;
        for span in self.spans {
            for token in span.first..span.first + span.tokens {
                for head in 0..group {
                    let at = (token * heads + self.kv_head * group + head) * d;
                    let total = sums.total[row];
                    for (i, o) in sums.o[row * d..][..d].iter().enumerate() {
                        // SAFETY: each head of each token belongs to one task only.
                        unsafe { out.at(at + i).write(o / total) };
                    }
                    row += 1;
                }
            }
        }
    }

    /// Blocks of span `i`'s sequence in a tile: fewer than [`TILE_BLOCKS`] where it ends.
    fn blocks(&self, i: usize, tile: usize) -> &[u32] {
        let sequence = self.spans[i].sequence;
        let held = (self.seqs.kv_lens[sequence] as usize).div_ceil(BLOCK);
        let table = &self.seqs.block_tables[sequence][..held];
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
        let group = self.shape.group;
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

    /// Scores of the active rows against the keys of `blocks`.
    #[inline(always)]
    unsafe fn scores<S: Simd>(&self, rows: &mut Rows, active: &[usize], blocks: &[u32]) {
        let mut i = 0;
        while i < active.len() {
            let left = active.len() - i;
            let fetch = i == 0;
            unsafe {
                if S::REGISTERS >= 32 && left >= 6 {
                    self.scores_of::<S, 6, 4>(rows, &active[i..], blocks, fetch);
                    i += 6;
                } else if S::REGISTERS >= 32 && left >= 3 {
                    self.scores_of::<S, 3, 4>(rows, &active[i..], blocks, fetch);
                    i += 3;
                } else if left >= 2 {
                    self.scores_of::<S, 2, 2>(rows, &active[i..], blocks, fetch);
                    i += 2;
                } else {
                    self.scores_of::<S, 1, 2>(rows, &active[i..], blocks, fetch);
                    i += 1;
                }
            }
        }
    }

    /// `MR` rows, `NB` blocks at a time and the rest one by one.
    #[inline(always)]
    unsafe fn scores_of<S: Simd, const MR: usize, const NB: usize>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        blocks: &[u32],
        fetch: bool,
    ) {
        let mut b = 0;
        unsafe {
            while b + NB <= blocks.len() {
                self.score_tile::<S, MR, NB>(rows, active, &blocks[b..], b, fetch);
                b += NB;
            }
            while b < blocks.len() {
                self.score_tile::<S, MR, 1>(rows, active, &blocks[b..], b, fetch);
                b += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn score_tile<S: Simd, const MR: usize, const NB: usize>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        blocks: &[u32],
        first: usize,
        fetch: bool,
    ) {
        let d = self.shape.d;
        unsafe {
            let mut keys = [std::ptr::null::<E::Stored>(); NB];
            let mut ahead = keys;
            for b in 0..NB {
                keys[b] = self.pages.keys(blocks[b], self.kv_head).as_ptr();
                ahead[b] = self.pages.values(blocks[b], self.kv_head).as_ptr();
            }
            let mut q = [std::ptr::null::<f32>(); MR];
            for r in 0..MR {
                q[r] = rows.q.as_ptr().add(active[r] * d);
            }
            let mut acc = [[S::splat(0.0); NB]; MR];
            for i in 0..d {
                let mut column = [S::splat(0.0); NB];
                for b in 0..NB {
                    column[b] = E::load::<S>(keys[b].add(i * BLOCK));
                    if fetch {
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

    /// Turns scores into weights relative to the largest score so far, and rescales what was
    /// summed up relative to an earlier one.
    #[inline(always)]
    unsafe fn softmax<S: Simd>(&self, rows: &mut Rows, active: &[usize], blocks: usize) {
        let d = self.shape.d;
        for &row in active {
            let s = &mut rows.s[row * TILE..][..blocks * BLOCK];
            s[rows.seen[row].min(blocks * BLOCK)..].fill(f32::NEG_INFINITY);
            unsafe {
                let mut top = S::load(s.as_ptr());
                for b in 1..blocks {
                    top = S::max(top, S::load(s.as_ptr().add(b * BLOCK)));
                }
                let top = S::largest(top);
                let before = rows.sums.largest[row];
                let largest = if top > before { top } else { before };
                let mut total = S::splat(0.0);
                for b in 0..blocks {
                    let at = s.as_mut_ptr().add(b * BLOCK);
                    let weight = exp::<S>(S::sub(S::load(at), S::splat(largest)));
                    S::store(at, weight);
                    total = S::add(total, weight);
                }
                let total = S::sum(total);
                if largest > before {
                    let keep = S::largest(exp::<S>(S::splat(before - largest)));
                    rows.sums.largest[row] = largest;
                    rows.sums.total[row] *= keep;
                    let o = rows.sums.o.as_mut_ptr().add(row * d);
                    for i in (0..d).step_by(LANES) {
                        S::store(o.add(i), S::mul(S::load(o.add(i)), S::splat(keep)));
                    }
                }
                rows.sums.total[row] += total;
            }
        }
    }

    /// Adds the weighted values of `positions` positions of `blocks` to the active rows' sums.
    #[inline(always)]
    unsafe fn values<S: Simd>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        blocks: &[u32],
        positions: usize,
        next: &[u32],
    ) {
        let mut i = 0;
        while i < active.len() {
            let left = active.len() - i;
            let next = if i == 0 { next } else { &[] };
            unsafe {
                if S::REGISTERS >= 32 && left >= 6 {
                    self.values_of::<S, 6, 4>(rows, &active[i..], blocks, positions, next);
                    i += 6;
                } else if S::REGISTERS >= 32 && left >= 3 {
                    self.values_of::<S, 3, 4>(rows, &active[i..], blocks, positions, next);
                    i += 3;
                } else if left >= 2 {
                    self.values_of::<S, 2, 2>(rows, &active[i..], blocks, positions, next);
                    i += 2;
                } else {
                    self.values_of::<S, 1, 2>(rows, &active[i..], blocks, positions, next);
                    i += 1;
                }
            }
        }
    }

    /// `MR` rows, `NV` vectors of columns at a time and the rest one by one.
    #[inline(always)]
    unsafe fn values_of<S: Simd, const MR: usize, const NV: usize>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        blocks: &[u32],
        positions: usize,
        next: &[u32],
    ) {
        let d = self.shape.d;
        let mut column = 0;
        unsafe {
            while column + NV * LANES <= d {
                self.value_tile::<S, MR, NV>(rows, active, blocks, positions, next, column);
                column += NV * LANES;
            }
            while column < d {
                self.value_tile::<S, MR, 1>(rows, active, blocks, positions, next, column);
                column += LANES;
            }
        }
    }

    #[inline(always)]
    unsafe fn value_tile<S: Simd, const MR: usize, const NV: usize>(
        &self,
        rows: &mut Rows,
        active: &[usize],
        blocks: &[u32],
        positions: usize,
        next: &[u32],
        column: usize,
    ) {
        let d = self.shape.d;
        unsafe {
            let mut acc = [[S::splat(0.0); NV]; MR];
            for r in 0..MR {
                for v in 0..NV {
                    let o = rows.sums.o.as_ptr().add(active[r] * d + column + v * LANES);
                    acc[r][v] = S::load(o);
                }
            }
            for (b, &block) in blocks.iter().enumerate() {
                let values = self.pages.values(block, self.kv_head).as_ptr().add(column);
                let ahead =
                    next.get(b).map(|&b| self.pages.keys(b, self.kv_head).as_ptr().add(column));
                for p in 0..BLOCK.min(positions - b * BLOCK) {
                    let mut value = [S::splat(0.0); NV];
                    for v in 0..NV {
                        value[v] = E::load::<S>(values.add(p * d + v * LANES));
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
