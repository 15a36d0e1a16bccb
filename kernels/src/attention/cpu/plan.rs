//! How the attention of a batch is cut into tasks.

use super::super::Heads;
use super::{SEGMENT, TILE};
use crate::kv::VarLen;
use std::ops::Range;

/// Rows that a task aims for: enough to pay for a read of keys and values, few enough for their
/// state to stay in the second-level cache.
const ROWS: usize = 96;

/// Tokens of a task of several sequences: few enough that their keys and values come in few streams at a
/// time …
const JOINED_TOKENS: usize = 4;
/// … and of sequences that have most of them in common, which then share a read.
const SHARING_TOKENS: usize = 16;

/// Tasks for each thread below which their segments are tasks of their own.
const FEW: usize = 4;

/// How a batch is cut into tasks.
#[derive(Debug, Default)]
pub struct Plan {
    /// Sequences, those with a common prefix next to each other.
    order: Vec<usize>,
    pub spans: Vec<Span>,
    /// For each KV head one task of each of these.
    pub cuts: Vec<Cut>,
    /// Task and segment, where segments are tasks of their own.
    pub segments: Vec<(usize, usize)>,
}

/// Spans of a task.
#[derive(Debug)]
pub struct Cut {
    pub spans: Range<usize>,
    pub segments: usize,
}

/// Consecutive tokens of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub sequence: usize,
    /// First row of `q`.
    pub first: usize,
    pub tokens: usize,
    /// Position of the first token.
    pub position: usize,
}

impl Span {
    /// Positions that the last token sees.
    pub fn end(&self) -> usize {
        self.position + self.tokens
    }
}

impl Plan {
    /// Plans for a batch, in the memory of the plan before.
    pub fn make(&mut self, seqs: &VarLen, heads: Heads) {
        self.order(seqs);
        self.cut(seqs, tokens_of_task(seqs.rows(), heads));
        self.list_segments(heads.kv);
    }

    fn order(&mut self, seqs: &VarLen) {
        self.order.clear();
        self.order.extend(0..seqs.kv_lens.len());
        let table = |&sequence: &usize| (&seqs.block_tables[sequence], sequence);
        // (A stable sort would allocate.)
        self.order.sort_unstable_by(|a, b| table(a).cmp(&table(b)));
    }

    /// Cuts the batch into tasks: chunks of more than [`JOINED_TOKENS`] into pieces of `limit`
    /// tokens, shorter ones joined with their neighbours.
    fn cut(&mut self, seqs: &VarLen, limit: usize) {
        let Self { order, spans, cuts, .. } = self;
        spans.clear();
        cuts.clear();
        let mut before = None;
        // Tokens of the last task; as many as there can be if it is to have no others.
        let mut held = usize::MAX;
        for &sequence in &*order {
            let starts = &seqs.query_starts[sequence..];
            let (mut first, end) = (starts[0] as usize, starts[1] as usize);
            let mut position = seqs.kv_lens[sequence] as usize - (end - first);
            let joined = end - first <= JOINED_TOKENS;
            let tables = &seqs.block_tables;
            let most = match before.replace(sequence) {
                _ if !joined => limit,
                Some(before) if are_mostly_equal(&tables[before], &tables[sequence]) => {
                    SHARING_TOKENS.min(limit)
                }
                _ => JOINED_TOKENS.min(limit),
            };
            held = if joined { held } else { most };
            while first < end {
                if held >= most {
                    cuts.push(Cut { spans: spans.len()..spans.len(), segments: 0 });
                    held = 0;
                }
                let tokens = (most - held).min(end - first);
                held += tokens;
                let span = Span { sequence, first, tokens, position };
                if let Some(cut) = cuts.last_mut() {
                    cut.spans.end += 1;
                    cut.segments = cut.segments.max(span.end().div_ceil(SEGMENT * TILE));
                }
                spans.push(span);
                first += tokens;
                position += tokens;
            }
            held = if joined { held } else { usize::MAX };
        }
    }

    /// Makes segments tasks of their own where there are few tasks.
    fn list_segments(&mut self, kv_heads: usize) {
        let Self { cuts, segments, .. } = self;
        segments.clear();
        let tasks = cuts.len() * kv_heads;
        let few = tasks < FEW * rayon::current_num_threads();
        if few && cuts.iter().any(|cut| cut.segments > 1) {
            let of_task = |i: usize| (0..cuts[i / kv_heads].segments).map(move |s| (i, s));
            segments.extend((0..tasks).flat_map(of_task));
        }
    }
}

/// Whether two tables have at least half of the shorter one's blocks in common.
fn are_mostly_equal(a: &[u32], b: &[u32]) -> bool {
    let half = a.len().min(b.len()).div_ceil(2);
    a[..half] == b[..half]
}

/// Tokens of a task: [`ROWS`] rows, or fewer where threads would stay idle. Bits do not depend on
/// it.
fn tokens_of_task(tokens: usize, heads: Heads) -> usize {
    let most = (ROWS / heads.group()).max(1);
    let wanted_tasks = (4 * rayon::current_num_threads()).div_ceil(heads.kv);
    tokens.div_ceil(wanted_tasks).clamp(JOINED_TOKENS.min(most), most)
}
