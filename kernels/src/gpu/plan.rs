//! Which tasks the attention of a batch is cut into: plain data, made on the host.
//!
//! Three things are decided. *What is shared*: sequences whose block tables begin alike are stacked, so that their
//! common keys are read once for all of them, at every depth of the tree that the tables form:
//!
//! ```text
//! tables  a b c d      [a b] rows of all three ─┬─ [c]  rows of the first two ─┬─ [d]
//!         a b c e                               │                              └─ [e]
//!         a b f                                 └─ [f]
//! ```
//! *How wide*: rows times heads of a group make a tile of 16, 64 or 128 rows. *How long*: long ranges are cut, so that
//! all multiprocessors have work. A row with more than one range is put together by a merge, in order of position.
//!
//! With [`Settings::same_for_all_batches`] nothing is shared or cut, and all tiles are of one kind: a row's bits then
//! depend neither on the batch nor on how a prompt was cut into chunks.

use super::attention::{AttentionQuery, AttentionTask, Tile, WHOLE_RESULT};
use crate::kv::{BLOCK, VarLen};
use std::iter::StepBy;
use std::ops::Range;

/// What a plan depends on besides the batch.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub q_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Bytes of a number of keys and values: 2 or 1.
    pub kv_bytes: usize,
    pub multiprocessors: usize,
    /// Parts that there is room for.
    pub max_parts: usize,
    /// Whether prefixes are shared where it pays.
    pub share: bool,
    /// See the module.
    pub same_for_all_batches: bool,
}

/// The tasks of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// By tile, in the order of [`Plan::TILES`]; the longest first.
    pub tasks: [Vec<AttentionTask>; 3],
    pub queries: Vec<AttentionQuery>,
    pub tables: Vec<u32>,
    /// Partial results.
    pub parts: usize,
    /// Rows that are put together of `part_ids[merge_starts[i] .. merge_starts[i + 1]]`.
    pub merge_rows: Vec<u32>,
    pub merge_starts: Vec<u32>,
    pub part_ids: Vec<u32>,
}

impl Plan {
    pub const TILES: [Tile; 3] = [Tile::Rows16, Tile::Rows64, Tile::Rows128];
}

/// Shortest range that a cut leaves: below it, parts cost more than idle multiprocessors.
const SHORTEST: usize = 256;

/// Keys that could be read in the time in which a task begins and ends.
const TASK_COST: usize = 64;

/// Blocks of threads that a multiprocessor runs at a time.
const RESIDENT: usize = 2;

/// Bytes that could be read in the time that one more group takes besides its reading.
const GROUP_COST: usize = 1 << 20;

/// Plans the attention of a batch.
pub fn plan(seqs: &VarLen, settings: &Settings) -> Plan {
    if settings.same_for_all_batches {
        return Builder::new(seqs, settings, false).finish(usize::MAX);
    }
    let builder = Builder::new(seqs, settings, settings.share);
    let mut length = builder.range_length();
    // Fewer and longer ranges if there is no room for all parts; whole rows need none.
    for _ in 0..4 {
        if builder.parts(length) <= settings.max_parts {
            return builder.finish(length);
        }
        length *= 2;
    }
    Builder::new(seqs, settings, false).finish(usize::MAX)
}

/// Rows of a tile that look at the same keys, `begin .. end` of one block table.
#[derive(Debug)]
struct Segment {
    tile: usize,
    queries: Range<usize>,
    table: u32,
    begin: usize,
    end: usize,
    /// Whether its rows have others.
    is_part: bool,
}

impl Segment {
    fn tokens(&self) -> usize {
        self.end - self.begin
    }

    /// Where ranges of about this length begin, how long they are, and whether their results are parts.
    fn cut(&self, length: usize) -> (StepBy<Range<usize>>, usize, bool) {
        let pieces = self.tokens().div_ceil(length);
        let one = self.tokens().div_ceil(pieces).next_multiple_of(64);
        let begins = (self.begin..self.end).step_by(one);
        (begins, one, self.is_part || pieces > 1)
    }
}

struct Builder<'a> {
    seqs: &'a VarLen,
    settings: &'a Settings,
    plan: Plan,
    segments: Vec<Segment>,
}

impl<'a> Builder<'a> {
    fn new(seqs: &'a VarLen, settings: &'a Settings, share: bool) -> Self {
        let mut this = Self { seqs, settings, plan: Plan::default(), segments: Vec::new() };
        let mut order: Vec<usize> = (0..seqs.kv_lens.len()).filter(|&s| this.rows(s) > 0).collect();
        if share {
            order.sort_by(|&a, &b| seqs.block_tables[a].cmp(&seqs.block_tables[b]).then(a.cmp(&b)));
            this.cover(&order, 0);
        } else {
            order.into_iter().for_each(|s| this.own_segment(s, 0));
        }
        this
    }

    fn rows(&self, seq: usize) -> usize {
        (self.seqs.query_starts[seq + 1] - self.seqs.query_starts[seq]) as usize
    }

    fn group(&self) -> usize {
        self.settings.q_heads / self.settings.kv_heads
    }

    /// Segments of sequences, sorted by their tables, from a position on up to which they are covered.
    fn cover(&mut self, seqs: &[usize], from: usize) {
        let [first, .., last] = *seqs else {
            seqs.iter().for_each(|&s| self.own_segment(s, from));
            return;
        };
        let tables = &self.seqs.block_tables;
        let shortest =
            seqs.iter().map(|&s| self.seqs.kv_lens[s] as usize / BLOCK).min().unwrap_or(0);
        let alike = tables[first]
            .iter()
            .zip(&tables[last])
            .take(shortest)
            .take_while(|(a, b)| a == b)
            .count();
        let mut covered = from;
        if alike * BLOCK > from && self.pays(seqs, alike * BLOCK - from) {
            covered = alike * BLOCK;
            self.shared_segment(seqs, from, covered);
        }
        let groups: Vec<&[usize]> =
            seqs.chunk_by(|&a, &b| tables[a].get(alike) == tables[b].get(alike)).collect();
        if groups.len() == 1 {
            seqs.iter().for_each(|&s| self.own_segment(s, covered));
        } else {
            groups.into_iter().for_each(|group| self.cover(group, covered));
        }
    }

    /// Whether reading `tokens` once for all of these sequences saves more than it costs.
    fn pays(&self, seqs: &[usize], tokens: usize) -> bool {
        let s = self.settings;
        let tiles = |rows: usize| (rows * self.group()).div_ceil(128);
        let apart: usize = seqs.iter().map(|&seq| tiles(self.rows(seq))).sum();
        let rows: usize = seqs.iter().map(|&seq| self.rows(seq)).sum();
        let token_bytes = 2 * s.kv_heads * s.head_dim * s.kv_bytes;
        let saved = apart.saturating_sub(tiles(rows)) * tokens * token_bytes;
        // Each row has one more part, written and read.
        let parts = rows * s.q_heads * s.head_dim * 4 * 2;
        saved > GROUP_COST + 2 * parts
    }

    fn add_queries(&mut self, seq: usize) {
        let (start, rows) = (self.seqs.query_starts[seq], self.rows(seq) as u32);
        let before = self.seqs.kv_lens[seq] - rows;
        let query = |i| AttentionQuery { row: start + i, visible: before + i + 1 };
        self.plan.queries.extend((0..rows).map(query));
    }

    fn add_table(&mut self, seq: usize, tokens: usize) -> u32 {
        let at = self.plan.tables.len() as u32;
        self.plan.tables.extend(&self.seqs.block_tables[seq][..tokens.div_ceil(BLOCK)]);
        at
    }

    fn shared_segment(&mut self, seqs: &[usize], begin: usize, end: usize) {
        let first = self.plan.queries.len();
        seqs.iter().for_each(|&seq| self.add_queries(seq));
        let table = self.add_table(seqs[0], end);
        self.add_segments(first, table, begin..end, true);
    }

    fn own_segment(&mut self, seq: usize, begin: usize) {
        let (first, end) = (self.plan.queries.len(), self.seqs.kv_lens[seq] as usize);
        if begin >= end {
            return;
        }
        self.add_queries(seq);
        let table = self.add_table(seq, end);
        self.add_segments(first, table, begin..end, begin > 0);
    }

    /// The tile for so many rows of q.
    fn tile(&self, queries: usize) -> usize {
        let narrowest = if self.settings.same_for_all_batches { 2 } else { 0 };
        let fits = |tile: &usize| queries * self.group() <= Plan::TILES[*tile].rows();
        (narrowest..2).find(fits).unwrap_or(2)
    }

    /// Segments of the queries from `first` on, each as wide as a tile; they end where the last of their rows ends to
    /// see.
    fn add_segments(&mut self, first: usize, table: u32, keys: Range<usize>, is_part: bool) {
        let all = first..self.plan.queries.len();
        let widest = self.tile(all.len());
        let width = (Plan::TILES[widest].rows() / self.group()).max(1);
        for first in all.clone().step_by(width) {
            let queries = first..all.end.min(first + width);
            let tile = self.tile(queries.len()).max(widest.min(1));
            let seen = self.plan.queries[queries.clone()].iter().map(|q| q.visible as usize).max();
            let end = keys.end.min(seen.unwrap_or(0));
            let begin = keys.start;
            // Rows that see nothing of it have their other parts.
            if begin < end {
                self.segments.push(Segment { tile, queries, table, begin, end, is_part });
            }
        }
    }

    /// The length of ranges with which all multiprocessors are done soonest, by a rough count: as much as one has to do on
    /// the whole, or a half, third or quarter of that, which fill the last round better.
    fn range_length(&self) -> usize {
        // What a key costs a block of threads: reading for few rows, arithmetic for many.
        let length = |segment: &Segment| segment.tokens() * [1, 1, 2][segment.tile];
        let lengths: Vec<usize> = self.segments.iter().map(length).collect();
        let blocks = RESIDENT * self.settings.multiprocessors;
        let total = lengths.iter().sum::<usize>() * self.settings.kv_heads;
        let length =
            |share: usize| total.div_ceil(blocks * share).next_multiple_of(64).max(SHORTEST);
        let time = |length: usize| {
            let pieces = |&tokens: &usize| tokens.div_ceil(length).max(1);
            let tasks = lengths.iter().map(pieces).sum::<usize>() * self.settings.kv_heads;
            let longest = lengths.iter().map(|tokens| tokens / pieces(tokens)).max().unwrap_or(0);
            (tasks.div_ceil(blocks) * (total / tasks.max(1) + TASK_COST)).max(longest + TASK_COST)
        };
        (1..=4).map(length).min_by_key(|&length| time(length)).unwrap_or(SHORTEST)
    }

    /// Partial results that ranges of this length bring.
    fn parts(&self, length: usize) -> usize {
        let of = |segment: &Segment| match segment.cut(length) {
            (begins, _, true) => begins.len() * segment.queries.len(),
            (.., false) => 0,
        };
        self.segments.iter().map(of).sum()
    }

    fn finish(mut self, length: usize) -> Plan {
        let mut parts: Vec<(u32, u32)> = Vec::new();
        for segment in std::mem::take(&mut self.segments) {
            self.add_tasks(&segment, length, &mut parts);
        }
        for tasks in &mut self.plan.tasks {
            tasks.sort_by_key(|task| std::cmp::Reverse(task.end - task.begin));
        }
        self.merges(parts);
        self.plan
    }

    fn add_tasks(&mut self, segment: &Segment, length: usize, parts: &mut Vec<(u32, u32)>) {
        let Segment { tile, queries, table, end, .. } = segment;
        let (begins, length, is_part) = segment.cut(length);
        for begin in begins {
            let part = if is_part { self.plan.parts as u32 } else { WHOLE_RESULT };
            if is_part {
                let rows = self.plan.queries[queries.clone()].iter().map(|q| q.row);
                parts.extend(rows.zip(part..));
                self.plan.parts += queries.len();
            }
            self.plan.tasks[*tile].push(AttentionTask {
                first_query: queries.start as u32,
                query_count: queries.len() as u32,
                table: *table,
                begin: begin as u32,
                end: (*end).min(begin + length) as u32,
                part,
            });
        }
    }

    /// Parts come by ascending position for each row, and stay so.
    fn merges(&mut self, mut parts: Vec<(u32, u32)>) {
        parts.sort_by_key(|&(row, _)| row);
        self.plan.part_ids = parts.iter().map(|&(_, part)| part).collect();
        self.plan.merge_starts.push(0);
        for same_row in parts.chunk_by(|a, b| a.0 == b.0) {
            self.plan.merge_rows.push(same_row[0].0);
            let start = self.plan.merge_starts[self.plan.merge_starts.len() - 1];
            self.plan.merge_starts.push(start + same_row.len() as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            q_heads: 32,
            kv_heads: 8,
            head_dim: 128,
            kv_bytes: 2,
            multiprocessors: 132,
            max_parts: 4096,
            share: true,
            same_for_all_batches: false,
        }
    }

    /// Sequences as (new rows, tokens, table).
    fn batch(seqs: &[(u32, u32, Vec<u32>)]) -> VarLen {
        let mut out = VarLen { query_starts: vec![0], ..VarLen::default() };
        for (rows, tokens, table) in seqs {
            let start = out.query_starts[out.query_starts.len() - 1];
            out.query_starts.push(start + rows);
            out.kv_lens.push(*tokens);
            out.positions.extend(tokens - rows..*tokens);
            out.slots
                .extend((tokens - rows..*tokens).map(|p| table[p as usize / BLOCK] * 16 + p % 16));
            out.block_tables.push(table.clone());
        }
        out
    }

    /// Every row sees every block that it should, once, and nothing else; returns how often blocks are read.
    fn check(seqs: &VarLen, plan: &Plan, settings: &Settings) -> usize {
        let mut seen = vec![Vec::new(); seqs.rows()];
        let mut parts = vec![0; plan.parts];
        let mut read = 0;
        let mut whole = vec![0; seqs.rows()];
        for (tile, tasks) in Plan::TILES.iter().zip(&plan.tasks) {
            for task in tasks {
                assert!(
                    task.query_count as usize * settings.q_heads / settings.kv_heads <= tile.rows()
                );
                assert!(task.begin.is_multiple_of(16) && task.begin < task.end, "{task:?}");
                read += (task.end - task.begin) as usize;
                for i in 0..task.query_count {
                    let query = plan.queries[(task.first_query + i) as usize];
                    for position in task.begin..task.end.min(query.visible) {
                        let block = plan.tables[(task.table + position / 16) as usize];
                        seen[query.row as usize].push(block * 16 + position % 16);
                    }
                    if task.part == WHOLE_RESULT {
                        whole[query.row as usize] += 1;
                    } else {
                        parts[(task.part + i) as usize] += 1;
                    }
                }
            }
        }
        assert!(parts.iter().all(|&n| n == 1), "each part is written once");
        let mut merged = vec![0; plan.parts];
        for (i, &row) in plan.merge_rows.iter().enumerate() {
            let ids = plan.merge_starts[i] as usize..plan.merge_starts[i + 1] as usize;
            plan.part_ids[ids].iter().for_each(|&id| merged[id as usize] += 1);
            whole[row as usize] += 1;
        }
        assert!(merged.iter().all(|&n| n == 1), "each part is read once");
        assert!(whole.iter().all(|&n| n == 1), "each row has one result: {whole:?}");
        for s in 0..seqs.kv_lens.len() {
            let rows = seqs.query_starts[s]..seqs.query_starts[s + 1];
            let before = seqs.kv_lens[s] - rows.len() as u32;
            for (i, row) in rows.enumerate() {
                let slot = |p: u32| seqs.block_tables[s][p as usize / 16] * 16 + p % 16;
                let mut want: Vec<u32> = (0..=before + i as u32).map(slot).collect();
                want.sort_unstable();
                seen[row as usize].sort_unstable();
                assert_eq!(seen[row as usize], want, "row {row}");
            }
        }
        read
    }

    fn table(start: u32, tokens: u32) -> Vec<u32> {
        (start..start + tokens.div_ceil(16)).collect()
    }

    #[test]
    fn ragged_batches_are_covered() {
        let seqs = batch(&[
            (5, 5, table(0, 5)),
            (1, 40, table(10, 40)),
            (1, 17, table(20, 17)),
            (130, 1000, table(100, 1000)),
            (1, 64_000, table(1000, 64_000)),
            (700, 700, table(9000, 700)),
        ]);
        for share in [false, true] {
            for same_for_all_batches in [false, true] {
                let settings = Settings { share, same_for_all_batches, ..settings() };
                let plan = plan(&seqs, &settings);
                check(&seqs, &plan, &settings);
                if same_for_all_batches {
                    assert_eq!((plan.parts, plan.tasks[0].len(), plan.tasks[1].len()), (0, 0, 0));
                }
            }
        }
    }

    #[test]
    fn a_shared_prefix_is_read_once() {
        let prefix = table(0, 3072);
        let seqs: Vec<_> = (0..64)
            .map(|i| (1, 3200 + i, [&prefix[..], &table(1000 + 20 * i, 128 + i)].concat()))
            .collect();
        let seqs = batch(&seqs);
        let apart =
            check(&seqs, &plan(&seqs, &Settings { share: false, ..settings() }), &settings());
        let together = check(&seqs, &plan(&seqs, &settings()), &settings());
        assert!(apart > 200_000 && together < 20_000, "{apart} {together}");
    }

    #[test]
    fn several_groups_and_depths_share_in_one_step() {
        let mut seqs = Vec::new();
        for document in 0..3u32 {
            let root = table(10_000 * document, 4096);
            for question in 0..2u32 {
                let branch = table(10_000 * document + 1000 * (question + 1), 1024);
                for sample in 0..8u32 {
                    let own =
                        table(10_000 * document + 1000 * (question + 1) + 100 + 10 * sample, 77);
                    seqs.push((1, 4096 + 1024 + 77, [&root[..], &branch, &own].concat()));
                }
            }
        }
        seqs.push((1, 33, table(90_000, 33)));
        let seqs = batch(&seqs);
        let read = check(&seqs, &plan(&seqs, &settings()), &settings());
        assert_eq!(read, 3 * (4096 + 2 * 1024 + 16 * 77) + 33);
    }

    #[test]
    fn short_prefixes_and_pairs_are_not_worth_it() {
        for (count, tokens) in [(2, 128), (8, 16)] {
            let prefix = table(0, tokens);
            let seqs: Vec<_> = (0..count)
                .map(|i| (1, tokens + 20, [&prefix[..], &table(100 + 10 * i, 20)].concat()))
                .collect();
            let seqs = batch(&seqs);
            assert_eq!(plan(&seqs, &settings()).parts, 0);
        }
    }

    #[test]
    fn sequences_of_one_table_stay_apart_where_it_ends() {
        // The same blocks, as of identical prompts: nothing differs after the common part.
        let seqs: Vec<_> = (0..16).map(|_| (1, 4096, table(0, 4096))).collect();
        let seqs = batch(&seqs);
        check(&seqs, &plan(&seqs, &settings()), &settings());
    }

    #[test]
    fn prompts_that_share_a_prefix_are_covered() {
        let prefix = table(0, 2048);
        let seqs: Vec<_> = (0..5)
            .map(|i| (33 + i, 2048 + 60 + i, [&prefix[..], &table(1000 + 10 * i, 60 + i)].concat()))
            .collect();
        let seqs = batch(&seqs);
        check(&seqs, &plan(&seqs, &settings()), &settings());
    }

    #[test]
    fn one_long_sequence_is_cut_for_all_multiprocessors() {
        let seqs = batch(&[(1, 32_000, table(0, 32_000))]);
        let plan = plan(&seqs, &settings());
        check(&seqs, &plan, &settings());
        assert!((30..=40).contains(&plan.tasks[0].len()), "{}", plan.tasks[0].len());
    }

    #[test]
    fn rounds_are_filled() {
        // 48 x 8 tasks on 264 places would take two rounds, the second half empty.
        let seqs: Vec<_> = (0..48).map(|i| (1, 4096, table(300 * i, 4096))).collect();
        let seqs = batch(&seqs);
        let plan = plan(&seqs, &settings());
        check(&seqs, &plan, &settings());
        assert_eq!(plan.tasks[0].len(), 96);
    }

    #[test]
    fn parts_stay_within_their_room() {
        let seqs: Vec<_> = (0..100).map(|i| (1, 5000, table(400 * i, 5000))).collect();
        let seqs = batch(&seqs);
        for max_parts in [0, 10, 150, 1000] {
            let settings = Settings { max_parts, multiprocessors: 10_000, ..settings() };
            let plan = plan(&seqs, &settings);
            check(&seqs, &plan, &settings);
            assert!(plan.parts <= max_parts);
        }
    }

    #[test]
    fn wide_groups_fit() {
        let wide = Settings { q_heads: 32, kv_heads: 2, ..settings() };
        let seqs = batch(&[
            (1, 100, table(0, 100)),
            (9, 300, table(50, 300)),
            (200, 200, table(100, 200)),
        ]);
        check(&seqs, &plan(&seqs, &wide), &wide);
        let odd = Settings { q_heads: 9, kv_heads: 3, ..settings() };
        check(&seqs, &plan(&seqs, &odd), &odd);
    }
}
