//! Blocks that outlive their sequence: a trie of token prefixes, one full block per edge.
//!
//! ```text
//! root ── b4 ── b7 ── b1          few-shot head, document, question
//!              └───── b9 ── b2    the same head and document, another question
//! ```
//! A node is a block whose KV is there, found by its parent's block and its own [`BLOCK`] tokens.
//! The tokens themselves are the key: two prefixes can't be taken for each other, whatever their
//! hashes. (The chain that other engines hash is here the path of parents.)
//!
//! # Invariants
//! - A sequence holds a reference to each block of its table, and the full ones among them are a
//!   path from the root. So below an unreferenced node nothing is referenced.
//! - Only unreferenced leaves are evicted, so a node's whole path lives as long as the node: to
//!   know a prefix it is enough to remember its last node.
//! - free + cached + referenced = total, where *cached* are the unreferenced nodes. All of the
//!   first two can be allocated.
//!
//! # Who is evicted first
//! The leaf that nobody in the queue waits for and whose last user left longest ago, by a logical
//! clock; leaves that somebody waits for only when there are no others ([`PrefixCache::want`]).

use super::blocks::{BlockId, Blocks};
use kernels::kv::BLOCK;
use std::collections::{BTreeSet, HashMap};

/// The parent of first blocks.
const ROOT: BlockId = BlockId::MAX;

/// What a node is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Edge {
    parent: BlockId,
    tokens: [u32; BLOCK],
}

#[derive(Debug)]
struct Node {
    edge: Edge,
    /// Tells this node from later ones in the same block.
    born: u64,
    children: u32,
    /// Waiting sequences whose known prefix ends here.
    wanted: u32,
    /// When its last user left.
    left: u64,
}

/// A prefix known to be cached: its number of blocks and its last node. The default is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prefix {
    blocks: usize,
    last: Option<(BlockId, u64)>,
}

impl Prefix {
    /// Full blocks of this prefix.
    pub fn blocks(&self) -> usize {
        self.blocks
    }
}

/// The KV pool's blocks together with the trie of what they hold.
#[derive(Debug)]
pub struct PrefixCache {
    blocks: Blocks,
    /// By block id.
    nodes: Vec<Option<Node>>,
    children: HashMap<Edge, BlockId>,
    /// Unreferenced leaves in order of eviction: (wanted, left, id).
    evictable: BTreeSet<(bool, u64, BlockId)>,
    /// Unreferenced nodes.
    cached: usize,
    clock: u64,
}

/// The block's worth of tokens at `index`, if it is full.
fn block_of(tokens: &[u32], index: usize) -> Option<[u32; BLOCK]> {
    tokens.get(index * BLOCK..(index + 1) * BLOCK)?.try_into().ok()
}

impl PrefixCache {
    /// An empty cache over `total` blocks.
    pub fn new(total: usize) -> Self {
        let blocks = Blocks::new(total);
        Self {
            nodes: (0..blocks.total()).map(|_| None).collect(),
            blocks,
            children: HashMap::new(),
            evictable: BTreeSet::new(),
            cached: 0,
            clock: 0,
        }
    }

    /// All blocks of the pool.
    pub fn total(&self) -> usize {
        self.blocks.total()
    }

    /// Blocks that hold nothing.
    pub fn free(&self) -> usize {
        self.blocks.free()
    }

    /// Blocks that nobody references but that hold a prefix.
    pub fn cached(&self) -> usize {
        self.cached
    }

    /// Blocks that [`PrefixCache::allocate`] can give, one after the other.
    pub fn available(&self) -> usize {
        self.free() + self.cached()
    }

    /// Blocks that sequences reference.
    pub fn referenced(&self) -> usize {
        self.total() - self.available()
    }

    fn is_alive(&self, prefix: &Prefix) -> bool {
        prefix.last.is_none_or(|(block, born)| {
            self.nodes[block as usize].as_ref().is_some_and(|node| node.born == born)
        })
    }

    /// Prolongs `known` (a prefix of `tokens`; if it has been evicted meanwhile, the empty one) as
    /// far as cached blocks go, to at most `limit` blocks.
    pub fn longest(&self, known: Prefix, tokens: &[u32], limit: usize) -> Prefix {
        let mut prefix = if self.is_alive(&known) { known } else { Prefix::default() };
        while prefix.blocks < limit {
            let next = self.edge(&prefix, tokens).and_then(|edge| self.children.get(&edge));
            let Some(&block) = next else { break };
            let born = self.nodes[block as usize].as_ref().map_or(0, |node| node.born);
            prefix = Prefix { blocks: prefix.blocks + 1, last: Some((block, born)) };
        }
        prefix
    }

    /// The edge by which `tokens` go on after `prefix`; `None` if no full block is left of them.
    pub fn edge(&self, prefix: &Prefix, tokens: &[u32]) -> Option<Edge> {
        let parent = prefix.last.map_or(ROOT, |(block, _)| block);
        Some(Edge { parent, tokens: block_of(tokens, prefix.blocks)? })
    }

    /// The edge by which a sequence goes on whose first `index` blocks are `table[..index]`.
    pub fn edge_after(table: &[BlockId], index: usize, tokens: &[u32]) -> Option<Edge> {
        let parent = if index == 0 { ROOT } else { table[index - 1] };
        Some(Edge { parent, tokens: block_of(tokens, index)? })
    }

    /// The blocks of a living prefix, first to last.
    fn path(&self, prefix: &Prefix) -> Vec<BlockId> {
        let mut path = Vec::with_capacity(prefix.blocks);
        let mut next = prefix.last.map_or(ROOT, |(block, _)| block);
        while let Some(node) = self.nodes.get(next as usize).and_then(Option::as_ref) {
            path.push(next);
            next = node.edge.parent;
        }
        path.reverse();
        path
    }

    /// Blocks of a living prefix that nobody references: they count as available until acquired.
    pub fn unreferenced_in(&self, prefix: &Prefix) -> usize {
        // Referenced nodes are a path from the root, so the unreferenced ones are the tail.
        self.path(prefix).iter().rev().take_while(|&&block| self.blocks.count(block) == 0).count()
    }

    /// References the blocks of a living prefix, first to last.
    pub fn acquire(&mut self, prefix: &Prefix) -> Vec<BlockId> {
        let path = self.path(prefix);
        path.iter().for_each(|&block| self.retain(block));
        path
    }

    /// One more reference to a block of a living sequence or of a living prefix.
    pub fn retain(&mut self, block: BlockId) {
        if self.blocks.retain(block)
            && let Some(node) = &self.nodes[block as usize]
        {
            self.cached -= 1;
            self.evictable.remove(&(node.wanted > 0, node.left, block));
        }
    }

    /// A block with one reference that holds nothing; evicts a cached one if none is free.
    pub fn allocate(&mut self) -> Option<BlockId> {
        if self.blocks.free() == 0 {
            self.evict();
        }
        self.blocks.take()
    }

    /// What the next `n` calls of [`PrefixCache::allocate`] give if nothing else happens before; fewer if there are not
    /// so many.
    pub fn next_blocks(&self, n: usize) -> Vec<BlockId> {
        let mut next: Vec<BlockId> = self.blocks.free_ids().iter().rev().take(n).copied().collect();
        let mut leaves = self.evictable.iter().copied().peekable();
        // Nodes whose last child is among `next`.
        let mut bared = BTreeSet::new();
        let mut lost: HashMap<BlockId, u32> = HashMap::new();
        while next.len() < n {
            let listed = leaves.next_if(|leaf| bared.first().is_none_or(|other| leaf < other));
            let Some((.., block)) = listed.or_else(|| bared.pop_first()) else { break };
            next.push(block);
            let Some(node) = &self.nodes[block as usize] else { continue };
            let parent = node.edge.parent;
            let Some(node) = self.nodes.get(parent as usize).and_then(Option::as_ref) else {
                continue;
            };
            let lost = lost.entry(parent).or_default();
            *lost += 1;
            if *lost == node.children && self.blocks.count(parent) == 0 {
                bared.insert((node.wanted > 0, node.left, parent));
            }
        }
        next
    }

    fn evict(&mut self) {
        let Some((.., block)) = self.evictable.pop_first() else { return };
        let Some(node) = self.nodes[block as usize].take() else { return };
        self.children.remove(&node.edge);
        self.cached -= 1;
        self.blocks.put_back(block);
        if let Some(parent) = self.nodes.get_mut(node.edge.parent as usize).and_then(Option::as_mut)
        {
            parent.children -= 1;
            self.offer(node.edge.parent);
        }
    }

    /// Lists a node for eviction if it is an unreferenced leaf.
    fn offer(&mut self, block: BlockId) {
        if let Some(node) = &self.nodes[block as usize]
            && node.children == 0
            && self.blocks.count(block) == 0
        {
            self.evictable.insert((node.wanted > 0, node.left, block));
        }
    }

    /// Makes the full, computed block `table[index]` of a sequence findable. If another block
    /// already holds the same prefix, the sequence's table gets that one and its own is freed.
    pub fn publish(&mut self, table: &mut [BlockId], index: usize, tokens: &[u32]) {
        let Some(edge) = Self::edge_after(table, index, tokens) else { return };
        let own = table[index];
        if let Some(&there) = self.children.get(&edge) {
            if there != own {
                self.retain(there);
                self.release(&[own]);
                table[index] = there;
            }
            return;
        }
        self.clock += 1;
        let node = Node { edge, born: self.clock, children: 0, wanted: 0, left: self.clock };
        self.nodes[own as usize] = Some(node);
        self.children.insert(edge, own);
        if let Some(parent) = self.nodes.get_mut(edge.parent as usize).and_then(Option::as_mut) {
            parent.children += 1;
        }
    }

    /// Drops a reference to each block of a table. Published ones stay cached, the others become
    /// free.
    pub fn release(&mut self, table: &[BlockId]) {
        self.clock += 1;
        for &block in table.iter().rev() {
            if !self.blocks.release(block) {
                continue;
            }
            match &mut self.nodes[block as usize] {
                Some(node) => {
                    node.left = self.clock;
                    self.cached += 1;
                    self.offer(block);
                }
                None => self.blocks.put_back(block),
            }
        }
    }

    /// Notes that a waiting sequence knows `prefix`, which then is evicted only when nothing else
    /// is left.
    pub fn want(&mut self, prefix: &Prefix) {
        self.count_wanted(prefix, 1);
    }

    /// Takes back [`PrefixCache::want`]; nothing happens if the prefix has been evicted.
    pub fn unwant(&mut self, prefix: &Prefix) {
        self.count_wanted(prefix, -1);
    }

    fn count_wanted(&mut self, prefix: &Prefix, change: i32) {
        if !self.is_alive(prefix) {
            return;
        }
        let Some((block, _)) = prefix.last else { return };
        if let Some(node) = &mut self.nodes[block as usize] {
            let before = (node.wanted > 0, node.left, block);
            node.wanted = node.wanted.saturating_add_signed(change);
            if self.evictable.remove(&before) {
                self.evictable.insert((node.wanted > 0, node.left, block));
            }
        }
    }

    /// Recounts everything. For tests and for the check when the engine is idle.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), String> {
        let mut children = vec![0; self.total()];
        let mut cached = 0;
        for (block, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            let count = self.blocks.count(block as BlockId);
            cached += usize::from(count == 0);
            if self.children.get(&node.edge) != Some(&(block as BlockId)) {
                return Err(format!("block {block} is not found by its own edge"));
            }
            if node.edge.parent == ROOT {
                continue;
            }
            let parent = node.edge.parent as usize;
            children[parent] += 1;
            if self.nodes[parent].is_none() {
                return Err(format!("block {block} has lost its parent {parent}"));
            }
            if count > 0 && self.blocks.count(parent as BlockId) == 0 {
                return Err(format!("block {block} is referenced, its parent {parent} is not"));
            }
        }
        self.check_leaves(&children)?;
        self.check_sums(cached)
    }

    fn check_leaves(&self, children: &[u32]) -> Result<(), String> {
        for (block, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            if node.children != children[block] {
                return Err(format!("block {block} counts {} children", node.children));
            }
            let leaf = node.children == 0 && self.blocks.count(block as BlockId) == 0;
            let key = (node.wanted > 0, node.left, block as BlockId);
            if leaf != self.evictable.contains(&key) {
                return Err(format!("block {block}: evictable is {}", !leaf));
            }
        }
        Ok(())
    }

    fn check_sums(&self, cached: usize) -> Result<(), String> {
        let ids = 0..self.total() as BlockId;
        let referenced = ids.filter(|&block| self.blocks.count(block) > 0).count();
        let nodes = self.nodes.iter().flatten().count();
        let mut free = self.blocks.free_ids().to_vec();
        free.sort_unstable();
        free.dedup();
        let free_holds_nothing = free
            .iter()
            .all(|&block| self.blocks.count(block) == 0 && self.nodes[block as usize].is_none());
        if !free_holds_nothing || free.len() != self.free() {
            return Err("the free list holds a block twice or one in use".into());
        }
        if cached != self.cached || self.children.len() != nodes {
            return Err(format!("{cached} blocks are cached, {} were counted", self.cached));
        }
        if self.free() + cached + referenced != self.total() {
            return Err(format!(
                "{} free + {cached} cached + {referenced} referenced blocks are not {}",
                self.free(),
                self.total()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Tokens of blocks that repeat one token each.
    fn blocks_of(tokens: &[u32]) -> Vec<u32> {
        tokens.iter().flat_map(|&token| [token; BLOCK]).collect()
    }

    /// Computes and publishes all full blocks of `tokens`, as a sequence would.
    fn fill(cache: &mut PrefixCache, tokens: &[u32]) -> Vec<BlockId> {
        let known = cache.longest(Prefix::default(), tokens, usize::MAX);
        let mut table = cache.acquire(&known);
        for index in known.blocks()..tokens.len() / BLOCK {
            table.push(cache.allocate().unwrap());
            cache.publish(&mut table, index, tokens);
        }
        table
    }

    fn known(cache: &PrefixCache, tokens: &[u32]) -> usize {
        cache.longest(Prefix::default(), tokens, usize::MAX).blocks()
    }

    #[test]
    fn a_published_prefix_is_found_up_to_the_first_other_block() {
        let mut cache = PrefixCache::new(8);
        let table = fill(&mut cache, &blocks_of(&[1, 2, 3]));
        assert_eq!(known(&cache, &blocks_of(&[1, 2, 4])), 2);
        assert_eq!(known(&cache, &blocks_of(&[2, 2, 3])), 0);
        let mut one_off = blocks_of(&[1, 2, 3]);
        one_off[2 * BLOCK + 15] = 9;
        assert_eq!(known(&cache, &one_off), 2);
        let again = cache.longest(Prefix::default(), &blocks_of(&[1, 2, 3]), 2);
        assert_eq!(cache.acquire(&again), table[..2]);
        cache.check().unwrap();
    }

    #[test]
    fn what_is_given_next_is_known_before() {
        let mut cache = PrefixCache::new(12);
        let prompts: [&[u32]; 4] = [&[1, 2, 3, 4], &[1, 2, 5], &[6, 7], &[1, 8]];
        let tables = prompts.map(|prompt| fill(&mut cache, &blocks_of(prompt)));
        let wanted = cache.longest(Prefix::default(), &blocks_of(&[1, 2, 5]), usize::MAX);
        cache.want(&wanted);
        for at in [2, 0, 3] {
            cache.release(&tables[at]);
        }
        for n in [1, 3, 5, 20] {
            let known = cache.next_blocks(n);
            let given: Vec<_> = known.iter().map_while(|_| cache.allocate()).collect();
            assert_eq!(given, known);
            assert_eq!(known.len() < n, n == 20);
        }
        assert_eq!(cache.allocate(), None);
        cache.check().unwrap();
    }

    #[test]
    fn leaves_go_first_and_the_longest_unused_first_among_them() {
        let mut cache = PrefixCache::new(5);
        let old = fill(&mut cache, &blocks_of(&[1, 2]));
        let new = fill(&mut cache, &blocks_of(&[1, 3]));
        cache.release(&new);
        cache.release(&old);
        assert_eq!((cache.free(), cache.cached()), (2, 3));
        let taken: Vec<_> = (0..3).map(|_| cache.allocate().unwrap()).collect();
        assert_eq!(taken[2], new[1], "[1, 3] was left before [1, 2]");
        assert_eq!(known(&cache, &blocks_of(&[1, 2])), 2);
        assert_eq!(cache.allocate(), Some(old[1]));
        assert_eq!(cache.allocate(), Some(old[0]));
        assert_eq!(cache.allocate(), None);
        cache.check().unwrap();
    }

    #[test]
    fn a_wanted_prefix_outlives_newer_ones() {
        let mut cache = PrefixCache::new(2);
        let old = fill(&mut cache, &blocks_of(&[1]));
        let new = fill(&mut cache, &blocks_of(&[2]));
        cache.release(&old);
        cache.release(&new);
        let wanted = cache.longest(Prefix::default(), &blocks_of(&[1]), 1);
        cache.want(&wanted);
        let block = cache.allocate().unwrap();
        assert_eq!(block, new[0]);
        cache.release(&[block]);
        cache.unwant(&wanted);
        cache.check().unwrap();
    }

    #[test]
    fn the_same_block_computed_twice_is_kept_once() {
        let mut cache = PrefixCache::new(4);
        let tokens = blocks_of(&[1, 2]);
        let first = fill(&mut cache, &tokens);
        let mut second = vec![cache.allocate().unwrap(), cache.allocate().unwrap()];
        cache.publish(&mut second, 0, &tokens);
        cache.publish(&mut second, 1, &tokens);
        assert_eq!(first, second);
        assert_eq!(cache.referenced(), 2);
        cache.release(&first);
        cache.release(&second);
        assert_eq!((cache.free(), cache.cached()), (2, 2));
        cache.check().unwrap();
    }

    #[test]
    fn a_remembered_prefix_is_noticed_to_be_gone() {
        let mut cache = PrefixCache::new(1);
        let table = fill(&mut cache, &blocks_of(&[1]));
        let prefix = cache.longest(Prefix::default(), &blocks_of(&[1]), 1);
        cache.release(&table);
        let other = cache.allocate().unwrap();
        cache.release(&[other]);
        let table = fill(&mut cache, &blocks_of(&[2]));
        assert_eq!(table, [other], "the same block, another prefix");
        assert_eq!(cache.longest(prefix, &blocks_of(&[1]), 1), Prefix::default());
        cache.unwant(&prefix);
        cache.check().unwrap();
    }

    /// A generator of small numbers for tests.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((self.0 >> 33) % n as u64) as usize
        }
    }

    /// What a sequence of the fuzz knows of itself.
    struct Fuzzed {
        tokens: Vec<u32>,
        table: Vec<BlockId>,
        prefix: Prefix,
    }

    struct Fuzz {
        cache: PrefixCache,
        random: Random,
        /// The whole prefix that each block was computed for.
        content: HashMap<BlockId, Vec<u32>>,
        running: Vec<Fuzzed>,
        waiting: Vec<Fuzzed>,
    }

    impl Fuzz {
        /// A few blocks over a vocabulary of two: mostly of one token, sometimes with one changed.
        fn tokens(&mut self) -> Vec<u32> {
            let blocks: Vec<u32> =
                (0..self.random.below(6)).map(|_| self.random.below(2) as u32).collect();
            let mut tokens = blocks_of(&blocks);
            if !tokens.is_empty() && self.random.below(4) == 0 {
                let at = self.random.below(tokens.len());
                tokens[at] ^= 1;
            }
            tokens
        }

        fn wait(&mut self) {
            let tokens = self.tokens();
            let prefix = self.cache.longest(Prefix::default(), &tokens, usize::MAX);
            self.cache.want(&prefix);
            self.waiting.push(Fuzzed { tokens, table: Vec::new(), prefix });
        }

        /// Takes a waiting sequence up and computes it, or gives up half way for want of blocks.
        fn admit(&mut self) {
            let at = self.random.below(self.waiting.len());
            let mut sequence = self.waiting.swap_remove(at);
            let known = self.cache.longest(sequence.prefix, &sequence.tokens, usize::MAX);
            assert_eq!(known, self.cache.longest(Prefix::default(), &sequence.tokens, usize::MAX));
            self.cache.unwant(&sequence.prefix);
            let before = self.cache.available() - self.cache.unreferenced_in(&known);
            sequence.table = self.cache.acquire(&known);
            assert_eq!(self.cache.available(), before);
            for (index, block) in sequence.table.iter().enumerate() {
                assert_eq!(self.content[block], sequence.tokens[..(index + 1) * BLOCK]);
            }
            self.compute(&mut sequence);
            self.running.push(sequence);
        }

        fn compute(&mut self, sequence: &mut Fuzzed) {
            for index in sequence.table.len()..sequence.tokens.len() / BLOCK {
                let Some(block) = self.cache.allocate() else { return };
                sequence.table.push(block);
                self.content.insert(block, sequence.tokens[..(index + 1) * BLOCK].to_vec());
                if self.random.below(8) == 0 {
                    return;
                }
                self.cache.publish(&mut sequence.table, index, &sequence.tokens);
            }
        }

        fn leave(&mut self) {
            let at = self.random.below(self.running.len());
            let sequence = self.running.swap_remove(at);
            self.cache.release(&sequence.table);
        }

        /// A second sequence on the same blocks, as samples of one prompt are.
        fn fork(&mut self) {
            let at = self.random.below(self.running.len());
            let Fuzzed { tokens, table, prefix } = &self.running[at];
            let (tokens, table, prefix) = (tokens.clone(), table.clone(), *prefix);
            table.iter().for_each(|&block| self.cache.retain(block));
            self.running.push(Fuzzed { tokens, table, prefix });
        }

        fn round(&mut self) {
            match self.random.below(5) {
                0 => self.wait(),
                1 | 2 if !self.waiting.is_empty() => self.admit(),
                3 if !self.running.is_empty() => self.leave(),
                4 if !self.running.is_empty() && self.running.len() < 8 => self.fork(),
                _ => {}
            }
        }
    }

    #[test]
    fn a_hundred_thousand_rounds_keep_every_invariant() {
        let mut fuzz = Fuzz {
            cache: PrefixCache::new(24),
            random: Random(7),
            content: HashMap::new(),
            running: Vec::new(),
            waiting: Vec::new(),
        };
        for round in 0..100_000 {
            fuzz.round();
            if let Err(broken) = fuzz.cache.check() {
                panic!("round {round}: {broken}");
            }
        }
        while !fuzz.running.is_empty() {
            fuzz.leave();
        }
        fuzz.cache.check().unwrap();
        assert_eq!(fuzz.cache.available(), fuzz.cache.total());
        assert!(fuzz.cache.cached() > 0);
    }
}
