//! From a plan to the flat arrays that the decoder reads.
//!
//! ```text
//! chunk             seq A, rows 30..33         seq B, row 18     A: 33 tokens, logits from 32
//! tokens          [ a30  a31  a32  |           b18 ]             B: 19 tokens, logits from 18
//! positions       [ 30   31   32   |           18  ]
//! slots           [ t1·16+14  t1·16+15  t2·16+0 | u1·16+2 ]      position p: table[p / 16]·16 + p % 16
//! query_starts    [ 0                          3        4 ]
//! kv_lens         [ 33                         19 ]
//! block_tables    [ [t0 t1 t2]                 [u0 u1] ]         ceil(kv_len / 16) ids
//! logit_rows      [           2                3 ]               rows of the batch
//! wanted          [ (A, 32)                    (B, 18) ]         whose they are, in the same order
//! ```

use super::blocks::BlockId;
use super::scheduler::{Chunk, Foreseen, Scheduler, SeqId};
use kernels::kv::{BLOCK, VarLen};
use models::batch::Batch;
use std::ops::Range;

/// A row that yields logits: the token at `position` of `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogitRow {
    pub seq: SeqId,
    pub position: usize,
}

/// The batch of a plan, and whose its logit rows are.
pub fn build(plan: &[Chunk], scheduler: &Scheduler) -> (Batch, Vec<LogitRow>) {
    let mut batch = empty();
    let mut wanted = Vec::new();
    for Chunk { seq, rows } in plan {
        let Some(sequence) = scheduler.get(*seq) else { continue };
        let logits = push(rows, sequence.logits_from(), sequence.table(), &mut batch);
        wanted.extend(logits.map(|position| LogitRow { seq: *seq, position }));
        batch.tokens.extend(&sequence.tokens()[rows.clone()]);
    }
    (batch, wanted)
}

/// The batch that comes after this plan if everybody goes on ([`Scheduler::foresee`]), but for its tokens.
pub fn foresee(plan: &[Chunk], scheduler: &Scheduler) -> Option<Batch> {
    let mut batch = empty();
    for Foreseen { rows, logits_from, table } in scheduler.foresee(plan)? {
        push(&rows, logits_from, &table, &mut batch);
    }
    batch.tokens = vec![0; batch.layout.rows()];
    Some(batch)
}

fn empty() -> Batch {
    let layout = VarLen { query_starts: vec![0], ..VarLen::default() };
    Batch { layout, ..Batch::default() }
}

/// Adds a sequence but for its tokens, and returns which of its positions yield logits.
fn push(
    rows: &Range<usize>,
    logits_from: usize,
    table: &[BlockId],
    batch: &mut Batch,
) -> Range<usize> {
    let layout = &mut batch.layout;
    let first = layout.rows();
    let logits = rows.start.max(logits_from)..rows.end;
    batch.logit_rows.extend(logits.clone().map(|position| (first + position - rows.start) as u32));
    let slot = |position| table[position / BLOCK] * BLOCK as u32 + (position % BLOCK) as u32;
    layout.positions.extend(rows.clone().map(|position| position as u32));
    layout.slots.extend(rows.clone().map(slot));
    layout.query_starts.push(layout.slots.len() as u32);
    layout.kv_lens.push(rows.end as u32);
    layout.block_tables.push(table[..rows.end.div_ceil(BLOCK)].to_vec());
    logits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::scheduler::Limits;

    #[test]
    fn a_chunk_in_the_middle_and_a_decode_get_the_ranges_of_the_diagram() {
        let limits = Limits { tokens_per_step: 30, sequences: 4 };
        let mut scheduler = Scheduler::new(limits, 16);
        let a = scheduler.add((100..133).collect(), 32, 1);
        let first = scheduler.plan();
        assert_eq!(first, [Chunk { seq: a, rows: 0..30 }]);
        scheduler.commit(&first);
        let b = scheduler.add((0..19).collect(), 18, 1);
        let plan = scheduler.plan();
        let (batch, wanted) = build(&plan, &scheduler);

        let (t, u) = (scheduler.get(a).unwrap().table(), scheduler.get(b).unwrap().table());
        assert_eq!(batch.tokens[..3], [130, 131, 132]);
        assert_eq!(batch.tokens.len(), 3 + 19);
        assert_eq!(batch.layout.positions[..4], [30, 31, 32, 0]);
        let slots = [t[1] * 16 + 14, t[1] * 16 + 15, t[2] * 16, u[0] * 16];
        assert_eq!(batch.layout.slots[..4], slots);
        assert_eq!(batch.layout.query_starts, [0, 3, 22]);
        assert_eq!(batch.layout.kv_lens, [33, 19]);
        assert_eq!(batch.layout.block_tables, [t.to_vec(), u.to_vec()]);
        assert_eq!(batch.logit_rows, [2, 21]);
        let rows = [LogitRow { seq: a, position: 32 }, LogitRow { seq: b, position: 18 }];
        assert_eq!(wanted, rows);
        batch.layout.validate(16).unwrap();
    }
}
