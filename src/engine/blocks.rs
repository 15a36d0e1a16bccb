//! Which blocks of the KV pool are taken, and by how many.

/// A block of the KV pool: its index there.
pub type BlockId = u32;

/// Reference counts of all blocks and the list of free ones. Knows nothing of what they hold.
///
/// A block is *free* (on the list), *referenced* (count above zero) or *idle* (count zero, off the
/// list: its owner, [`super::prefix::PrefixCache`], still values what it holds).
#[derive(Debug)]
pub struct Blocks {
    counts: Vec<u32>,
    free: Vec<BlockId>,
}

impl Blocks {
    /// `total` free blocks.
    pub fn new(total: usize) -> Self {
        let ids = 0..u32::try_from(total).unwrap_or(u32::MAX);
        Self { counts: vec![0; ids.len()], free: ids.rev().collect() }
    }

    /// All blocks, whatever their state.
    pub fn total(&self) -> usize {
        self.counts.len()
    }

    /// Blocks on the free list.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// The ids on the free list.
    pub fn free_ids(&self) -> &[BlockId] {
        &self.free
    }

    /// How many hold `block`.
    pub fn count(&self, block: BlockId) -> u32 {
        self.counts[block as usize]
    }

    /// Takes a block off the free list, with one reference.
    pub fn take(&mut self) -> Option<BlockId> {
        let block = self.free.pop()?;
        self.counts[block as usize] = 1;
        Some(block)
    }

    /// One more reference to a referenced or idle block. Returns whether it was idle.
    pub fn retain(&mut self, block: BlockId) -> bool {
        let count = &mut self.counts[block as usize];
        *count += 1;
        *count == 1
    }

    /// One reference less. Returns whether that was the last, which leaves the block idle.
    pub fn release(&mut self, block: BlockId) -> bool {
        let count = &mut self.counts[block as usize];
        debug_assert!(*count > 0, "block {block} is released more often than taken");
        *count -= 1;
        *count == 0
    }

    /// Puts an idle block on the free list.
    pub fn put_back(&mut self, block: BlockId) {
        debug_assert_eq!(self.count(block), 0, "block {block} is freed while in use");
        self.free.push(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_goes_from_free_to_referenced_to_idle_and_back() {
        let mut blocks = Blocks::new(2);
        let a = blocks.take().unwrap();
        assert!(!blocks.retain(a));
        assert_eq!((blocks.count(a), blocks.free()), (2, 1));
        assert!(!blocks.release(a));
        assert!(blocks.release(a));
        assert_eq!(blocks.free(), 1);
        assert!(blocks.retain(a), "an idle block can be taken up again");
        assert!(blocks.release(a));
        blocks.put_back(a);
        assert_eq!(blocks.free(), 2);
    }

    #[test]
    fn no_block_is_given_twice() {
        let mut blocks = Blocks::new(3);
        let mut taken: Vec<_> = std::iter::from_fn(|| blocks.take()).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
    }
}
