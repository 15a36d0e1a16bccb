//! Decides what the next step computes. Pure: no tensor, no clock, no randomness, no text.
//!
//! A [`Sequence`] is a list of known tokens, of which the first `computed` have their KV in the
//! blocks of its table. It runs (has blocks) or waits (has none). [`Scheduler::plan`] says which
//! tokens of which sequences to compute, [`Scheduler::commit`] notes that it was done, and in
//! between and after the engine adds tokens, forks and removes sequences.
//!
//! # Order of a step
//! 1. Every running sequence gets blocks for all of its tokens, the one admitted first served
//!    first. When blocks run out, the one admitted last is *preempted*: it loses its blocks and
//!    waits. (What it computed stays cached until somebody needs the blocks, so that usually only
//!    its last blocks are computed again.)
//! 2. Under the token budget: one row for each decoding sequence, then prompts in order of
//!    admission, the last one cut where the budget ends.
//! 3. With what is left of the budget, waiting sequences are admitted, if all their tokens fit in
//!    memory and some room is left for those running to grow.
//!
//! # Who is admitted
//! - Preempted and forked sequences before new ones, oldest request first.
//! - Among new ones the one with the longest cached prefix, oldest first among equals. For work
//!   known in advance this visits the trie of prompts depth first, which reuses as much as an
//!   infinite cache would, if the cache holds the longest prompt (SGLang, arXiv 2312.07104, § 3).
//! - A sequence whose next uncached block is just being computed by a running one is *deferred*:
//!   it waits until that block is there, and others may go before it. So a shared prefix is
//!   computed once however many ask for it at the same time.
//! - If the chosen one does not fit, nobody is admitted: small ones do not starve a large one.
//! - Nobody starves: the oldest waiting sequence that [`OVERTAKEN_AT_MOST`] younger ones have
//!   overtaken is next, deferred or not.
//!
//! No deadlock: waiting sequences hold no blocks; a deferred one waits only for a running one; the
//! one admitted first gets every block it needs (any single sequence fits the pool, the engine
//! refuses others), so it ends.

use super::blocks::BlockId;
use super::prefix::{Edge, Prefix, PrefixCache};
use kernels::kv::BLOCK;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

/// Younger sequences that may be admitted before the oldest one.
const OVERTAKEN_AT_MOST: u32 = 256;

/// Waiting sequences, oldest first, that are looked at in one step.
const LOOK_AHEAD: usize = 2048;

/// Blocks that each running sequence should still find when another is admitted.
const RESERVE: usize = 4;

/// What a step may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of one step.
    pub tokens_per_step: usize,
    /// Sequences that run at the same time, samples to come of a prompt included. (The few rows of
    /// continuations to be scored come on top.)
    pub sequences: usize,
}

/// Names a sequence inside one scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(u64);

/// Tokens to compute, and where they are.
#[derive(Debug)]
pub struct Sequence {
    tokens: Vec<u32>,
    computed: usize,
    /// Rows from here on yield logits.
    logits_from: usize,
    table: Vec<BlockId>,
    /// Place in the queue; forks have their parent's.
    arrival: u64,
    /// Has run before: preempted or forked.
    resumed: bool,
    /// Sequences that it will be.
    width: usize,
    overtaken: u32,
    /// What was cached of it when last looked at, while it waits.
    prefix: Prefix,
    reused: Option<usize>,
}

impl Sequence {
    /// All known tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Positions `logits_from..` yield logits when computed.
    pub fn logits_from(&self) -> usize {
        self.logits_from
    }

    /// Its blocks, in order of position.
    pub fn table(&self) -> &[BlockId] {
        &self.table
    }

    /// Tokens that were found in the cache when it was first admitted.
    pub fn reused(&self) -> usize {
        self.reused.unwrap_or(0)
    }

    /// Blocks that can come from the cache: those before the first row that must be computed.
    fn reusable_blocks(&self) -> usize {
        self.logits_from / BLOCK
    }

    fn blocks(&self) -> usize {
        self.tokens.len().div_ceil(BLOCK)
    }

    fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// The edge of the next block that it computes, if others could use it.
    fn next_edge(&self) -> Option<Edge> {
        PrefixCache::edge_after(&self.table, self.computed / BLOCK, &self.tokens)
    }
}

/// Tokens of one sequence to compute in this step: positions `rows`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub seq: SeqId,
    pub rows: Range<usize>,
}

/// A running sequence as it will be after a step, if it goes on.
#[derive(Debug)]
pub struct Foreseen {
    /// Tokens to compute then.
    pub rows: Range<usize>,
    pub logits_from: usize,
    pub table: Vec<BlockId>,
}

/// A block to be copied before anything else is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    pub from: BlockId,
    pub to: BlockId,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    cache: PrefixCache,
    sequences: BTreeMap<SeqId, Sequence>,
    /// In order of admission.
    running: Vec<SeqId>,
    /// In order of arrival.
    waiting: Vec<SeqId>,
    next_id: u64,
    preemptions: u64,
    peak_blocks: usize,
}

impl Scheduler {
    /// A scheduler of `blocks` blocks.
    pub fn new(limits: Limits, blocks: usize) -> Self {
        let sequences = limits.sequences.clamp(1, limits.tokens_per_step.max(1));
        Self {
            limits: Limits { sequences, tokens_per_step: limits.tokens_per_step.max(1) },
            cache: PrefixCache::new(blocks),
            sequences: BTreeMap::new(),
            running: Vec::new(),
            waiting: Vec::new(),
            next_id: 0,
            preemptions: 0,
            peak_blocks: 0,
        }
    }

    /// The blocks and what is cached in them.
    pub fn cache(&self) -> &PrefixCache {
        &self.cache
    }

    /// Times that a sequence lost its blocks.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// Most blocks that were referenced at the same time.
    pub fn peak_blocks(&self) -> usize {
        self.peak_blocks
    }

    /// Sequences that have blocks.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that have none.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A living sequence.
    pub fn get(&self, id: SeqId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// Queues a sequence of `tokens`; the rows of positions `logits_from..` shall yield logits,
    /// and there is at least one such row. It will become `width` sequences.
    pub fn add(&mut self, tokens: Vec<u32>, logits_from: usize, width: usize) -> SeqId {
        let id = self.insert(tokens, logits_from, self.next_id);
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.width = width.clamp(1, self.limits.sequences);
        }
        self.enqueue(id);
        id
    }

    fn insert(&mut self, tokens: Vec<u32>, logits_from: usize, arrival: u64) -> SeqId {
        debug_assert!(logits_from < tokens.len());
        let id = SeqId(self.next_id);
        self.next_id += 1;
        let sequence = Sequence {
            tokens,
            computed: 0,
            logits_from,
            table: Vec::new(),
            arrival,
            resumed: arrival != id.0,
            width: 1,
            overtaken: 0,
            prefix: Prefix::default(),
            reused: None,
        };
        self.sequences.insert(id, sequence);
        id
    }

    /// Puts a sequence without blocks in its place in the queue.
    fn enqueue(&mut self, id: SeqId) {
        let place = |id: &SeqId| (self.sequences[id].arrival, *id);
        let at = self.waiting.partition_point(|other| place(other) < place(&id));
        self.waiting.insert(at, id);
    }

    /// Adds tokens to a sequence whose tokens are all computed; it has no forks any more.
    pub fn extend(&mut self, id: SeqId, tokens: &[u32]) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.width = 1;
            sequence.tokens.extend_from_slice(tokens);
        }
    }

    /// A new sequence: the tokens of `parent`, all computed, and then `tokens`. It shares the
    /// parent's full blocks and gets a copy of the last, partial one. If there is no memory for
    /// it, it waits.
    pub fn fork(&mut self, parent: SeqId, tokens: &[u32]) -> Option<(SeqId, Option<Copy>)> {
        let from = self.sequences.get(&parent)?;
        debug_assert_eq!(from.remaining(), 0);
        let (computed, arrival) = (from.computed, from.arrival);
        let (full, partial) = from.table.split_at(computed / BLOCK);
        let (mut table, partial) = (full.to_vec(), partial.first().copied());
        let known = [&from.tokens, tokens].concat();
        let need = known.len().div_ceil(BLOCK) - table.len();
        let id = self.insert(known, computed, arrival);
        if self.cache.available() < need {
            self.enqueue(id);
            return Some((id, None));
        }
        table.iter().for_each(|&block| self.cache.retain(block));
        let own = self.cache.allocate();
        table.extend(own);
        self.start(id, table, computed);
        let copy = partial.zip(own).map(|(from, to)| Copy { from, to });
        Some((id, copy))
    }

    /// Ends a sequence; what it computed stays cached.
    pub fn remove(&mut self, id: SeqId) {
        let Some(sequence) = self.sequences.remove(&id) else { return };
        self.cache.unwant(&sequence.prefix);
        self.cache.release(&sequence.table);
        self.running.retain(|&other| other != id);
        self.waiting.retain(|&other| other != id);
    }

    /// What to compute next. Empty only when there are no sequences.
    pub fn plan(&mut self) -> Vec<Chunk> {
        self.look_up_waiting();
        self.grow_running();
        let mut chunks = Vec::new();
        let mut budget = self.limits.tokens_per_step;
        self.plan_running(&mut chunks, &mut budget);
        self.admit(&mut chunks, &mut budget);
        self.peak_blocks = self.peak_blocks.max(self.cache.referenced());
        debug_assert_eq!(chunks.is_empty(), self.sequences.is_empty());
        chunks
    }

    /// Notes that the plan was carried out, and publishes the blocks that have become full.
    pub fn commit(&mut self, plan: &[Chunk]) {
        for Chunk { seq, rows } in plan {
            let Some(sequence) = self.sequences.get_mut(seq) else { continue };
            sequence.computed = rows.end;
            sequence.logits_from = sequence.logits_from.max(rows.end);
            for index in rows.start / BLOCK..rows.end / BLOCK {
                self.cache.publish(&mut sequence.table, index, &sequence.tokens);
            }
        }
    }

    /// What [`Scheduler::plan`] will say once `plan` has been carried out if nobody comes or goes and each sequence whose
    /// tokens are all computed gets one more. `None` if there is no memory for that.
    pub fn foresee(&self, plan: &[Chunk]) -> Option<Vec<Foreseen>> {
        let done: HashMap<SeqId, usize> = plan.iter().map(|c| (c.seq, c.rows.end)).collect();
        let one = |id: &SeqId| {
            let sequence = &self.sequences[id];
            let computed = done.get(id).copied().unwrap_or(sequence.computed);
            let rows = computed..sequence.tokens.len().max(computed + 1);
            Foreseen { rows, logits_from: sequence.logits_from, table: sequence.table.clone() }
        };
        let mut all: Vec<Foreseen> = self.running.iter().map(one).collect();
        let lacks = |one: &Foreseen| one.rows.end.div_ceil(BLOCK).saturating_sub(one.table.len());
        let mut blocks = self.cache.next_blocks(all.iter().map(lacks).sum()).into_iter();
        for one in &mut all {
            for _ in 0..lacks(one) {
                one.table.push(blocks.next()?);
            }
        }
        let (decoding, prompts): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| one.rows.len() == 1);
        let mut budget = self.limits.tokens_per_step;
        let cut = |mut one: Foreseen| {
            one.rows.end = one.rows.end.min(one.rows.start + budget);
            budget -= one.rows.len();
            one
        };
        let planned = decoding.into_iter().chain(prompts).map(cut);
        Some(planned.filter(|one| !one.rows.is_empty()).collect())
    }

    /// Finds what is cached of the waiting sequences and keeps it from eviction.
    fn look_up_waiting(&mut self) {
        for at in 0..self.waiting.len().min(LOOK_AHEAD) {
            self.look_up(self.waiting[at]);
        }
    }

    fn look_up(&mut self, id: SeqId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let limit = sequence.reusable_blocks();
        let prefix = self.cache.longest(sequence.prefix, &sequence.tokens, limit);
        if prefix != sequence.prefix {
            self.cache.unwant(&sequence.prefix);
            self.cache.want(&prefix);
            sequence.prefix = prefix;
        }
    }

    /// Blocks for all tokens of running sequences; preempts from the end when they run out.
    fn grow_running(&mut self) {
        let mut at = 0;
        while at < self.running.len() {
            if self.grow(self.running[at]) {
                at += 1;
            } else if let Some(last) = self.running.pop() {
                self.preempt(last);
            }
        }
    }

    fn grow(&mut self, id: SeqId) -> bool {
        let Some(sequence) = self.sequences.get_mut(&id) else { return true };
        while sequence.table.len() < sequence.blocks() {
            match self.cache.allocate() {
                Some(block) => sequence.table.push(block),
                None => return false,
            }
        }
        true
    }

    fn preempt(&mut self, id: SeqId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let table = std::mem::take(&mut sequence.table);
        sequence.computed = 0;
        sequence.resumed = true;
        sequence.prefix = Prefix::default();
        self.cache.release(&table);
        self.preemptions += 1;
        self.enqueue(id);
    }

    fn plan_running(&self, chunks: &mut Vec<Chunk>, budget: &mut usize) {
        let (decoding, prompts): (Vec<SeqId>, _) =
            self.running.iter().partition(|id| self.sequences[id].remaining() == 1);
        for id in decoding.into_iter().chain(prompts) {
            self.plan_chunk(id, chunks, budget);
        }
    }

    fn plan_chunk(&self, id: SeqId, chunks: &mut Vec<Chunk>, budget: &mut usize) {
        let sequence = &self.sequences[&id];
        let rows = sequence.remaining().min(*budget);
        if rows > 0 {
            *budget -= rows;
            let rows = sequence.computed..sequence.computed + rows;
            chunks.push(Chunk { seq: id, rows });
        }
    }

    /// Starts waiting sequences as long as there is budget and memory.
    fn admit(&mut self, chunks: &mut Vec<Chunk>, budget: &mut usize) {
        let mut computing: HashSet<Edge> =
            self.running.iter().filter_map(|id| self.sequences[id].next_edge()).collect();
        let mut width: usize = self.running.iter().map(|id| self.sequences[id].width).sum();
        while *budget > 0 && width < self.limits.sequences {
            let Some(id) = self.choose(&computing) else { break };
            let wider = width + self.sequences[&id].width;
            if (width > 0 && wider > self.limits.sequences) || !self.fits(id, width) {
                break;
            }
            width = wider;
            self.start_waiting(id);
            computing.extend(self.sequences[&id].next_edge());
            self.plan_chunk(id, chunks, budget);
        }
    }

    /// The waiting sequence to admit next; see "Who is admitted" above.
    fn choose(&mut self, computing: &HashSet<Edge>) -> Option<SeqId> {
        self.look_up_waiting();
        let oldest = *self.waiting.first()?;
        if self.sequences[&oldest].overtaken >= OVERTAKEN_AT_MOST {
            return Some(oldest);
        }
        let ready = |id: &&SeqId| !self.is_deferred(&self.sequences[*id], computing);
        let rank = |id: &&SeqId| {
            let sequence = &self.sequences[*id];
            let blocks = if sequence.resumed { 0 } else { sequence.prefix.blocks() };
            (!sequence.resumed, Reverse(blocks))
        };
        // The queue is in order of arrival, and the first of equals is taken.
        self.waiting.iter().take(LOOK_AHEAD).filter(ready).min_by_key(rank).copied()
    }

    /// Whether a running sequence is computing the first block that this one lacks.
    fn is_deferred(&self, sequence: &Sequence, computing: &HashSet<Edge>) -> bool {
        sequence.prefix.blocks() < sequence.reusable_blocks()
            && self
                .cache
                .edge(&sequence.prefix, &sequence.tokens)
                .is_some_and(|edge| computing.contains(&edge))
    }

    /// Whether all tokens of a waiting sequence fit beside `running` others and their reserve.
    fn fits(&self, id: SeqId, running: usize) -> bool {
        let sequence = &self.sequences[&id];
        let available = self.cache.available() - self.cache.unreferenced_in(&sequence.prefix);
        sequence.blocks() - sequence.prefix.blocks() + running * RESERVE <= available
    }

    /// Takes a waiting sequence that fits into the running ones.
    fn start_waiting(&mut self, id: SeqId) {
        if let Some(&oldest) = self.waiting.first()
            && oldest != id
            && let Some(oldest) = self.sequences.get_mut(&oldest)
        {
            oldest.overtaken += 1;
        }
        self.waiting.retain(|&other| other != id);
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let prefix = std::mem::take(&mut sequence.prefix);
        let reused = prefix.blocks() * BLOCK;
        sequence.reused.get_or_insert(reused);
        sequence.overtaken = 0;
        let table = self.cache.acquire(&prefix);
        self.cache.unwant(&prefix);
        self.start(id, table, reused);
    }

    /// Runs a sequence whose first `computed` tokens are in the blocks of `table`.
    fn start(&mut self, id: SeqId, table: Vec<BlockId>, computed: usize) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.table = table;
            sequence.computed = computed;
        }
        self.running.push(id);
        let grown = self.grow(id);
        debug_assert!(grown, "admitted without enough blocks");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { tokens_per_step: 1000, sequences: 64 };

    /// Blocks that repeat one token each.
    fn blocks_of(tokens: &[u32]) -> Vec<u32> {
        tokens.iter().flat_map(|&token| [token; BLOCK]).collect()
    }

    /// A sequence whose last token yields logits.
    fn add(scheduler: &mut Scheduler, tokens: Vec<u32>) -> SeqId {
        let last = tokens.len() - 1;
        scheduler.add(tokens, last, 1)
    }

    fn step(scheduler: &mut Scheduler) -> Vec<Chunk> {
        let plan = scheduler.plan();
        scheduler.commit(&plan);
        scheduler.cache().check().unwrap();
        plan
    }

    fn chunk(seq: SeqId, rows: Range<usize>) -> Chunk {
        Chunk { seq, rows }
    }

    #[test]
    fn a_sequence_waits_for_a_block_that_another_one_computes() {
        let mut scheduler = Scheduler::new(LIMITS, 64);
        let first = add(&mut scheduler, blocks_of(&[1, 2, 3]));
        let same_head = add(&mut scheduler, blocks_of(&[1, 2, 4]));
        let other = add(&mut scheduler, blocks_of(&[5, 2, 3]));
        assert_eq!(step(&mut scheduler), [chunk(first, 0..48), chunk(other, 0..48)]);
        scheduler.remove(first);
        scheduler.remove(other);
        assert_eq!(step(&mut scheduler), [chunk(same_head, 32..48)]);
    }

    #[test]
    fn nobody_waits_for_one_that_has_gone() {
        let mut scheduler = Scheduler::new(Limits { tokens_per_step: 20, ..LIMITS }, 64);
        let first = add(&mut scheduler, blocks_of(&[1, 2, 3]));
        let second = add(&mut scheduler, blocks_of(&[1, 2, 3]));
        assert_eq!(step(&mut scheduler), [chunk(first, 0..20)]);
        scheduler.remove(first);
        assert_eq!(step(&mut scheduler), [chunk(second, 16..36)]);
    }

    #[test]
    fn rows_that_yield_logits_are_computed_though_they_are_cached() {
        let mut scheduler = Scheduler::new(LIMITS, 64);
        let first = add(&mut scheduler, blocks_of(&[1, 2, 3]));
        step(&mut scheduler);
        scheduler.remove(first);
        let whole = scheduler.add(blocks_of(&[1, 2, 3]), 0, 1);
        let tail = scheduler.add(blocks_of(&[1, 2, 3]), 20, 1);
        assert_eq!(step(&mut scheduler), [chunk(tail, 16..48), chunk(whole, 0..48)]);
    }

    #[test]
    fn the_longest_cached_prefix_goes_first_and_age_decides_among_equals() {
        let mut scheduler = Scheduler::new(Limits { sequences: 1, ..LIMITS }, 64);
        let warm = add(&mut scheduler, blocks_of(&[1, 2, 3]));
        step(&mut scheduler);
        scheduler.remove(warm);
        let prompts = [&[7, 7][..], &[1, 9], &[1, 2, 9], &[8, 8], &[1, 2, 8]];
        let ids: Vec<_> = prompts.map(|p| add(&mut scheduler, blocks_of(p))).into();
        let order = (0..5).map(|_| {
            let seq = step(&mut scheduler)[0].seq;
            scheduler.remove(seq);
            ids.iter().position(|&id| id == seq).unwrap()
        });
        assert_eq!(order.collect::<Vec<_>>(), [2, 4, 1, 0, 3]);
    }

    #[test]
    fn nobody_is_overtaken_for_ever() {
        let mut scheduler = Scheduler::new(Limits { sequences: 1, ..LIMITS }, 64);
        let mut running = add(&mut scheduler, blocks_of(&[1, 2]));
        step(&mut scheduler);
        let poor = add(&mut scheduler, blocks_of(&[9, 9]));
        let mut overtaken = 0;
        while running != poor {
            scheduler.remove(running);
            add(&mut scheduler, blocks_of(&[1, 2, 3]));
            running = step(&mut scheduler)[0].seq;
            overtaken += 1;
        }
        assert_eq!(overtaken, OVERTAKEN_AT_MOST + 1);
    }

    #[test]
    fn small_ones_do_not_starve_a_large_one() {
        let mut scheduler = Scheduler::new(LIMITS, 12);
        let first = add(&mut scheduler, blocks_of(&[1, 1, 1, 1]));
        let large = add(&mut scheduler, blocks_of(&[2, 2, 2, 2, 2, 2, 2, 2, 2]));
        let small = add(&mut scheduler, blocks_of(&[3]));
        assert_eq!(step(&mut scheduler), [chunk(first, 0..64)]);
        scheduler.remove(first);
        assert_eq!(step(&mut scheduler)[0].seq, large);
        scheduler.remove(large);
        assert_eq!(step(&mut scheduler)[0].seq, small);
    }

    #[test]
    fn the_one_admitted_last_loses_its_blocks_and_computes_only_what_was_taken() {
        let mut scheduler = Scheduler::new(LIMITS, 10);
        let old = add(&mut scheduler, blocks_of(&[1, 1]));
        let young = add(&mut scheduler, blocks_of(&[2, 2, 2, 2]));
        assert_eq!(step(&mut scheduler), [chunk(old, 0..32), chunk(young, 0..64)]);
        scheduler.extend(old, &[5; 5 * BLOCK]);
        scheduler.extend(young, &[6]);
        assert_eq!(step(&mut scheduler), [chunk(old, 32..112)]);
        assert_eq!((scheduler.preemptions(), scheduler.running(), scheduler.waiting()), (1, 1, 1));
        scheduler.remove(old);
        assert_eq!(step(&mut scheduler), [chunk(young, 48..65)], "one block of four was taken");
    }

    #[test]
    fn decodes_come_before_prompts_and_samples_to_come_count() {
        let limits = Limits { tokens_per_step: 40, sequences: 5 };
        let mut scheduler = Scheduler::new(limits, 64);
        let first = add(&mut scheduler, vec![1; 8]);
        step(&mut scheduler);
        scheduler.extend(first, &[2]);
        let wide = scheduler.add(vec![3; 60], 59, 4);
        let one_more = add(&mut scheduler, vec![4; 10]);
        assert_eq!(step(&mut scheduler), [chunk(first, 8..9), chunk(wide, 0..39)]);
        scheduler.extend(first, &[2]);
        assert_eq!(step(&mut scheduler), [chunk(first, 9..10), chunk(wide, 39..60)]);
        scheduler.extend(first, &[2]);
        scheduler.extend(wide, &[2]);
        let plan = step(&mut scheduler);
        assert_eq!(plan[2..], [chunk(one_more, 0..10)], "only one sample went on");
    }

    #[test]
    fn a_fork_shares_full_blocks_and_copies_the_last() {
        let mut scheduler = Scheduler::new(LIMITS, 5);
        let parent = add(&mut scheduler, vec![1; 2 * BLOCK + 3]);
        step(&mut scheduler);
        let table = scheduler.get(parent).unwrap().table().to_vec();
        let (fork, copy) = scheduler.fork(parent, &[7]).unwrap();
        let forked = scheduler.get(fork).unwrap().table().to_vec();
        assert_eq!(
            (&forked[..2], copy),
            (&table[..2], Some(Copy { from: table[2], to: forked[2] }))
        );
        scheduler.fork(parent, &[8]).unwrap();
        let (late, copy) = scheduler.fork(parent, &[9]).unwrap();
        assert_eq!((copy, scheduler.waiting()), (None, 1), "no block is left");
        scheduler.extend(parent, &[6]);
        let plan = step(&mut scheduler);
        assert_eq!(plan.len(), 3);
        plan.iter().for_each(|chunk| scheduler.remove(chunk.seq));
        assert_eq!(step(&mut scheduler), [chunk(late, 2 * BLOCK..2 * BLOCK + 4)]);
    }
}
