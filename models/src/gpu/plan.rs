//! Cuts the attention of a step into tasks: which rows look at which keys.
//!
//! ```text
//! sequence 0: one new row, 5,000 keys      small: [0, 2048) [2048, 4096) [4096, 5000)   3 parts, merged
//! sequence 1: one new row, 300 keys        small: [0, 300)                              whole
//! sequence 2: 100 new rows, 900 keys       large: rows 0..32 [0, 832)  rows 32..64 …    whole
//! ```
//! Long tasks are cut into ranges of keys until there are enough for the whole GPU. How many pieces come of
//! that is bounded by the GPU's size, not by the work, so that memory for results of parts is made once.

use kernels::gpu::{AttentionQuery, AttentionTask, Tile, WHOLE_RESULT};
use kernels::kv::{BLOCK, VarLen};

/// Row of a merge that fills up a recorded step.
pub const NO_MERGE: u32 = u32::MAX;

/// Keys that a task has at least, if they are cut.
const LEAST_KEYS: usize = 256;

/// Keys of a tile of the kernel, at whose multiples tasks begin.
const KEYS: usize = 64;

/// Blocks of threads wanted for each multiprocessor.
const BLOCKS_WANTED: usize = 2;

/// What the cutting depends on besides the sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanOptions {
    /// Query heads for each head of keys.
    pub group: usize,
    pub kv_heads: usize,
    pub multiprocessors: usize,
    /// A row's result depends on its own sequence alone: no cuts, and one kernel for all.
    pub same_for_all: bool,
}

/// Attention of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// For tiles of [`Tile::Rows16`]: single rows, mostly.
    pub small: Vec<AttentionTask>,
    /// For [`PlanOptions::large_tile`].
    pub large: Vec<AttentionTask>,
    /// One for each row of the step.
    pub queries: Vec<AttentionQuery>,
    /// All block tables, one after the other.
    pub tables: Vec<u32>,
    /// Rows whose results come in parts.
    pub merge_rows: Vec<u32>,
    /// Where each such row's parts begin in `part_ids`, and their end.
    pub merge_starts: Vec<u32>,
    pub part_ids: Vec<u32>,
    /// How many parts there are.
    pub parts: usize,
}

/// A tile's rows and the keys that they see.
struct Work {
    first_row: usize,
    rows: usize,
    table: usize,
    keys: usize,
}

impl PlanOptions {
    /// The tile of many rows: the same for every step, so that bits can be.
    pub fn large_tile(&self) -> Tile {
        if self.same_for_all { Tile::Rows64 } else { Tile::Rows128 }
    }

    fn rows_of(&self, tile: Tile) -> usize {
        (tile.rows() / self.group).max(1)
    }

    /// Pieces of cut tasks that there can be of each tile.
    fn pieces(&self) -> usize {
        2 * (BLOCKS_WANTED * self.multiprocessors).div_ceil(self.kv_heads)
    }

    /// Tasks that a step of `rows` rows can have of each tile.
    pub fn most_tasks(&self, rows: usize) -> usize {
        rows + self.pieces()
    }

    /// Parts that any step can have.
    pub fn most_parts(&self) -> usize {
        self.pieces() * (self.rows_of(Tile::Rows16) + self.rows_of(self.large_tile()))
    }

    /// Parts that a step of single rows can have.
    pub fn most_parts_of_single_rows(&self) -> usize {
        self.pieces()
    }

    /// Keys of a task at most, such that all tasks together keep the GPU busy.
    fn keys_per_task(&self, work: &[Work]) -> usize {
        if self.same_for_all {
            return usize::MAX;
        }
        let keys: usize = work.iter().map(|work| work.keys).sum();
        let wanted = (BLOCKS_WANTED * self.multiprocessors).div_ceil(self.kv_heads);
        keys.div_ceil(wanted).max(LEAST_KEYS).next_multiple_of(KEYS)
    }
}

impl Plan {
    /// Cuts the step.
    pub fn new(layout: &VarLen, options: &PlanOptions) -> Self {
        let mut plan = Self { merge_starts: vec![0], ..Self::default() };
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for s in 0..layout.kv_lens.len() {
            let rows = layout.query_starts[s] as usize..layout.query_starts[s + 1] as usize;
            let before = layout.kv_lens[s] as usize - rows.len();
            let table = plan.tables.len();
            let blocks = (layout.kv_lens[s] as usize).div_ceil(BLOCK);
            plan.tables.extend_from_slice(&layout.block_tables[s][..blocks]);
            let is_small =
                rows.len() <= options.rows_of(Tile::Rows16) && !options.same_for_all;
            let tile = if is_small { Tile::Rows16 } else { options.large_tile() };
            let list = if is_small { &mut small } else { &mut large };
            for first in rows.clone().step_by(options.rows_of(tile)) {
                let last = (first + options.rows_of(tile)).min(rows.end);
                let keys = before + last - rows.start;
                list.push(Work { first_row: first, rows: last - first, table, keys });
            }
            plan.queries.extend(rows.enumerate().map(|(i, row)| AttentionQuery {
                row: row as u32,
                visible: (before + i + 1) as u32,
            }));
        }
        // The longest first, so that none of them runs alone at the end.
        for list in [&mut small, &mut large] {
            list.sort_by_key(|work| std::cmp::Reverse(work.keys));
        }
        plan.small = plan.cut(&small, options.keys_per_task(&small));
        plan.large = plan.cut(&large, options.keys_per_task(&large));
        plan
    }

    fn cut(&mut self, work: &[Work], keys: usize) -> Vec<AttentionTask> {
        let mut tasks = Vec::new();
        for work in work {
            let pieces = work.keys.div_ceil(keys);
            let first_part = self.parts;
            for piece in 0..pieces {
                let part = if pieces == 1 { WHOLE_RESULT } else { self.parts as u32 };
                self.parts += if pieces == 1 { 0 } else { work.rows };
                tasks.push(AttentionTask {
                    first_query: work.first_row as u32,
                    query_count: work.rows as u32,
                    table: work.table as u32,
                    begin: (piece * keys.min(work.keys)) as u32,
                    end: (piece + 1).saturating_mul(keys).min(work.keys) as u32,
                    part,
                });
            }
            if pieces > 1 {
                self.merge(work, first_part, pieces);
            }
        }
        tasks
    }

    fn merge(&mut self, work: &Work, first_part: usize, pieces: usize) {
        for row in 0..work.rows {
            self.merge_rows.push((work.first_row + row) as u32);
            let parts = (0..pieces).map(|piece| (first_part + piece * work.rows + row) as u32);
            self.part_ids.extend(parts);
            self.merge_starts.push(self.part_ids.len() as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: PlanOptions =
        PlanOptions { group: 4, kv_heads: 2, multiprocessors: 4, same_for_all: false };

    /// Sequences of new rows and keys in all.
    fn layout(sequences: &[(usize, usize)]) -> VarLen {
        let mut layout = VarLen { query_starts: vec![0], ..VarLen::default() };
        for &(rows, keys) in sequences {
            layout.positions.extend((keys - rows..keys).map(|p| p as u32));
            layout.query_starts.push(layout.positions.len() as u32);
            layout.kv_lens.push(keys as u32);
            layout.block_tables.push((0..keys.div_ceil(BLOCK) as u32).collect());
        }
        layout
    }

    /// How often each row sees each position.
    fn seen(plan: &Plan, rows: usize) -> Vec<Vec<u32>> {
        let mut seen = vec![Vec::new(); rows];
        for task in plan.small.iter().chain(&plan.large) {
            let queries = &plan.queries[task.first_query as usize..][..task.query_count as usize];
            for query in queries {
                let row = &mut seen[query.row as usize];
                row.resize(row.len().max(query.visible as usize), 0);
                (task.begin..task.end.min(query.visible)).for_each(|p| row[p as usize] += 1);
            }
        }
        seen
    }

    #[test]
    fn each_row_sees_each_position_before_it_once() {
        let cases: [&[(usize, usize)]; 5] = [
            &[(1, 1)],
            &[(1, 5000), (1, 300), (100, 900)],
            &[(5, 70_000), (4, 4), (200, 200)],
            &[(1, 17); 100],
            &[(3, 100), (1, 30_000), (1, 1), (600, 10_000)],
        ];
        for sequences in cases {
            for same_for_all in [false, true] {
                let options = PlanOptions { same_for_all, ..OPTIONS };
                let layout = layout(sequences);
                let plan = Plan::new(&layout, &options);
                let rows = layout.positions.len();
                for (row, seen) in seen(&plan, rows).iter().enumerate() {
                    assert_eq!(seen.len(), layout.positions[row] as usize + 1);
                    assert!(seen.iter().all(|&times| times == 1), "{sequences:?}, row {row}");
                }
                assert!(plan.small.len().max(plan.large.len()) <= options.most_tasks(rows));
                assert!(plan.parts <= options.most_parts(), "{sequences:?}");
                assert_eq!(same_for_all && plan.parts > 0, false);
            }
        }
    }

    #[test]
    fn parts_of_a_row_are_merged_and_all_parts_belong_to_a_row() {
        let layout = layout(&[(1, 5000), (1, 300), (50, 20_000)]);
        let plan = Plan::new(&layout, &OPTIONS);
        let mut ids = plan.part_ids.clone();
        ids.sort_unstable();
        assert!(ids.iter().copied().eq(0..plan.parts as u32));
        assert_eq!(plan.merge_starts.len(), plan.merge_rows.len() + 1);
        assert_eq!(plan.merge_starts.last(), Some(&(plan.part_ids.len() as u32)));
        for task in plan.small.iter().chain(&plan.large).filter(|t| t.part != WHOLE_RESULT) {
            for i in 0..task.query_count {
                let row = plan.queries[(task.first_query + i) as usize].row;
                let merge = plan.merge_rows.iter().position(|&r| r == row).unwrap();
                let range = plan.merge_starts[merge] as usize..plan.merge_starts[merge + 1] as usize;
                assert!(plan.part_ids[range].contains(&(task.part + i)));
            }
        }
    }

    #[test]
    fn single_rows_have_few_parts() {
        let many = vec![(1, 4096); 200];
        for sequences in [&many[..], &[(1, 60_000)], &[(1, 60_000), (1, 5), (1, 900)]] {
            let plan = Plan::new(&layout(sequences), &OPTIONS);
            assert!(plan.parts <= OPTIONS.most_parts_of_single_rows());
            assert!(plan.large.is_empty());
        }
    }
}
