//! A toy model for tests: its next-token logits are a hash of the whole prefix, read back through
//! slots and block tables, so that a wrong one of them shows in every later token.

use super::runner::{Answers, Runner, Step};
use kernels::kv::BLOCK;
use models::batch::Batch;
use std::collections::HashMap;
use std::ops::Range;

/// What a slot holds that nobody has written.
const POISON: u64 = 0xDEAD;

/// Hands its logits out in slices of this many rows.
const SLICE: usize = 3;

pub struct Toy {
    pub vocab: usize,
    pub context: usize,
    /// What a token at the end of any prefix may have as successor and with what logit.
    pub script: HashMap<u32, (u32, f32)>,
    /// Per slot: the hash of the sequence up to there.
    kv: Vec<u64>,
    pub batches: usize,
    pub largest: usize,
    pub copies: usize,
    /// Batches that were as the step before had said.
    pub foreseen: usize,
    next: Option<Batch>,
    /// Fails at this batch.
    pub fail_at: Option<usize>,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the toy broke")]
pub struct Broken;

fn mix(a: u64, b: u64) -> u64 {
    let z = (a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0xD1B5_4A32_D192_ED03);
    let z = (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 32)
}

impl Toy {
    pub fn new(blocks: usize) -> Self {
        Self {
            vocab: 40,
            context: 4096,
            script: HashMap::new(),
            kv: vec![POISON; blocks * BLOCK],
            batches: 0,
            largest: 0,
            copies: 0,
            foreseen: 0,
            next: None,
            fail_at: None,
        }
    }

    /// The logits after `tokens`, without any cache.
    pub fn logits_after(&self, tokens: &[u32]) -> Vec<f32> {
        let (mut chain, mut all) = (0, 0);
        for (position, &token) in tokens.iter().enumerate() {
            chain = Self::step(chain, token, position);
            all = mix(all, chain);
        }
        self.logits(tokens[tokens.len() - 1], all)
    }

    fn step(before: u64, token: u32, position: usize) -> u64 {
        mix(mix(before, u64::from(token)), position as u64)
    }

    fn logits(&self, token: u32, hash: u64) -> Vec<f32> {
        let random = |id| (mix(hash, id as u64) % 1000) as f32 / 200.0;
        let mut logits: Vec<f32> = (0..self.vocab).map(random).collect();
        if let Some(&(next, logit)) = self.script.get(&token) {
            logits[next as usize] = logit;
        }
        logits
    }

    fn slot(table: &[u32], position: usize) -> usize {
        table[position / BLOCK] as usize * BLOCK + position % BLOCK
    }

    /// Writes the chunk of one sequence and gives the logits of those of its rows that are wanted.
    fn run_sequence(&mut self, batch: &Batch, s: usize, wanted: &[u32]) -> Vec<Vec<f32>> {
        let layout = &batch.layout;
        let rows = layout.query_starts[s] as usize..layout.query_starts[s + 1] as usize;
        let table = &layout.block_tables[s];
        let first = layout.kv_lens[s] as usize - rows.len();
        let mut logits = Vec::new();
        for (offset, row) in rows.enumerate() {
            let position = first + offset;
            assert_eq!(layout.positions[row] as usize, position);
            let before = if position == 0 { 0 } else { self.kv[Self::slot(table, position - 1)] };
            let written = Self::step(before, batch.tokens[row], position);
            self.kv[layout.slots[row] as usize] = written;
            if wanted.contains(&(row as u32)) {
                let all = (0..=position).fold(0, |all, p| mix(all, self.kv[Self::slot(table, p)]));
                logits.push(self.logits(batch.tokens[row], all));
            }
        }
        logits
    }
}

impl Runner for Toy {
    type Error = Broken;

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn context(&self) -> usize {
        self.context
    }

    fn blocks(&self) -> usize {
        self.kv.len() / BLOCK
    }

    fn run(
        &mut self,
        Step { batch, next, .. }: Step,
        sink: &mut dyn FnMut(Range<usize>, Answers),
    ) -> Result<(), Broken> {
        batch.layout.validate(self.blocks()).unwrap();
        if self.fail_at == Some(self.batches) {
            return Err(Broken);
        }
        self.batches += 1;
        let as_foreseen = |foreseen: &Batch| {
            foreseen.layout == batch.layout && foreseen.logit_rows == batch.logit_rows
        };
        self.foreseen += usize::from(self.next.take().as_ref().is_some_and(as_foreseen));
        self.next = next();
        self.largest = self.largest.max(batch.tokens.len());
        let mut logits = Vec::new();
        for s in 0..batch.layout.kv_lens.len() {
            let rows = batch.layout.query_starts[s]..batch.layout.query_starts[s + 1];
            let from = batch.logit_rows.partition_point(|&row| row < rows.start);
            let to = batch.logit_rows.partition_point(|&row| row < rows.end);
            logits.extend(self.run_sequence(batch, s, &batch.logit_rows[from..to]));
        }
        for (index, slice) in logits.chunks(SLICE).enumerate() {
            let rows = index * SLICE..index * SLICE + slice.len();
            sink(rows, Answers::Logits(&slice.concat()));
        }
        Ok(())
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Broken> {
        let from = from as usize * BLOCK;
        self.kv.copy_within(from..from + BLOCK, to as usize * BLOCK);
        self.copies += 1;
        Ok(())
    }
}
