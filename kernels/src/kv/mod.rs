//! One layer's paged KV cache: a pool of blocks of [`BLOCK`] tokens, and where rows go in it.

mod cpu;
mod portable;

pub(crate) use cpu::{AnyPages, Pages};
pub(crate) use portable::TensorPages;

use crate::host::has_own;
use crate::matrix::{Seen, View};
use crate::memory::Arena;
use candle_core::{Device, Result, bail};

/// Tokens of a block.
pub const BLOCK: usize = 16;

/// Where each row's KV goes and what it sees: sequences of any lengths side by side.
///
/// ```text
/// sequence            0          1     2      3
/// rows          [ 0 1 2 3 4 ]  [ 5 ] [ 6 ] [ 7 8 ]     T = 9
/// query_starts    0              5     6     7      9  S + 1 entries
/// kv_lens         5              40    17    130       tokens there after this step
/// block_tables    [b0]           [b3 b7 b9] …          ceil(kv_len / BLOCK) ids at least
/// ```
/// The rows of a sequence stand at ascending positions, and the last of them at `kv_len - 1`; a
/// row at position `p` sees the KV of positions `0 ..= p`. (Rotary embedding has its own
/// positions, so that a test can move a short sequence to a far place.)
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VarLen {
    /// Rotary position of each row.
    pub positions: Vec<u32>,
    /// Where each row's KV is written: `block * BLOCK + offset`.
    pub slots: Vec<u32>,
    /// First row of each sequence, and the number of rows at the end.
    pub query_starts: Vec<u32>,
    /// Tokens of each sequence whose KV is there after this step.
    pub kv_lens: Vec<u32>,
    /// Block ids of each sequence, in order of position.
    pub block_tables: Vec<Vec<u32>>,
}

impl VarLen {
    /// Rows of all sequences together.
    pub fn rows(&self) -> usize {
        self.slots.len()
    }

    /// Checks that the arrays fit each other and a pool of `blocks` blocks.
    ///
    /// # Errors
    /// The first array that does not, by name.
    pub fn validate(&self, blocks: usize) -> Result<()> {
        let (t, s) = (self.rows(), self.kv_lens.len());
        if self.positions.len() != t
            || self.query_starts.len() != s + 1
            || self.block_tables.len() != s
            || self.query_starts.first() != Some(&0)
            || self.query_starts.last() != Some(&(t as u32))
        {
            bail!("batch: {t} slots and {s} sequences do not fit the other arrays");
        }
        for (i, (table, &len)) in self.block_tables.iter().zip(&self.kv_lens).enumerate() {
            let rows = self.query_starts[i + 1].checked_sub(self.query_starts[i]);
            if rows.is_none_or(|rows| rows > len) {
                bail!("batch: sequence {i} has {rows:?} rows but {len} tokens");
            }
            if table.len() * BLOCK < len as usize {
                bail!("batch: sequence {i} has {len} tokens but {} blocks", table.len());
            }
            let highest = table.iter().copied().fold(0, u32::max) as usize;
            if highest >= blocks && !table.is_empty() {
                bail!("batch: sequence {i} names block {highest} of {blocks}");
            }
        }
        if let Some(slot) = self.slots.iter().find(|&&s| s as usize >= blocks * BLOCK) {
            bail!("batch: slot {slot} lies beyond the pool of {blocks} blocks");
        }
        Ok(())
    }
}

/// The type that keys and values are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvDtype {
    F32,
    /// Half the memory and half the reading; rounds to 11 bits.
    F16,
}

impl KvDtype {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// Size of one layer's keys and values.
#[derive(Debug, Clone, Copy)]
pub struct KvShape {
    pub blocks: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub dtype: KvDtype,
}

/// Keys and values of one layer.
#[derive(Debug)]
pub struct KvLayer {
    shape: KvShape,
    pub(crate) store: Store,
}

#[derive(Debug)]
pub(crate) enum Store {
    Cpu(AnyPages),
    Tensor(TensorPages),
}

impl KvLayer {
    /// An empty pool in the layout that suits the device; on the processor it lies in `arena`.
    ///
    /// # Errors
    /// A device that is out of memory.
    pub fn new(shape: KvShape, device: &Device, arena: &mut Arena) -> Result<Self> {
        if !has_own(device) {
            return Self::portable(shape, device);
        }
        Ok(Self { shape, store: Store::Cpu(AnyPages::new(shape, arena)?) })
    }

    /// The portable layout, on whatever device.
    ///
    /// # Errors
    /// A device that is out of memory.
    pub fn portable(shape: KvShape, device: &Device) -> Result<Self> {
        Ok(Self { shape, store: Store::Tensor(TensorPages::new(shape, device)?) })
    }

    /// Bytes that one token's keys and values take in one layer.
    pub fn bytes_per_token(kv_heads: usize, head_dim: usize, dtype: KvDtype) -> usize {
        2 * kv_heads * head_dim * dtype.size()
    }

    pub fn kv_heads(&self) -> usize {
        self.shape.kv_heads
    }

    pub fn head_dim(&self) -> usize {
        self.shape.head_dim
    }

    pub fn blocks(&self) -> usize {
        self.shape.blocks
    }

    /// Writes the keys and values of the last columns of `rows` `[T, .. + 2 kv_heads * head_dim]`, keys of
    /// all heads first, to `slots` (`T` of them, each `block * BLOCK + offset`, no two alike).
    ///
    /// # Errors
    /// Shapes that do not fit, or a slot beyond the pool.
    pub fn store(&mut self, rows: View, slots: &[u32]) -> Result<()> {
        let (t, columns) = rows.dims();
        let width = self.kv_heads() * self.head_dim();
        if t != slots.len() || columns < 2 * width {
            bail!(
                "store_kv: {t} rows of {columns} columns, wanted {} of {}",
                slots.len(),
                2 * width
            );
        }
        if let Some(slot) = slots.iter().find(|&&s| s as usize >= self.blocks() * BLOCK) {
            bail!("store_kv: slot {slot} lies beyond the pool of {} blocks", self.blocks());
        }
        match (&mut self.store, rows.numbers) {
            (Store::Cpu(pages), Seen::Host(rows)) => pages.store(rows, columns, slots),
            (Store::Tensor(pages), Seen::Device(rows)) => pages.store(&rows, slots)?,
            _ => bail!("store_kv: rows on another device than the pool"),
        }
        Ok(())
    }

    /// Copies the whole block `from` over the block `to`.
    ///
    /// # Errors
    /// A block beyond the pool.
    pub fn copy_block(&mut self, from: u32, to: u32) -> Result<()> {
        if from.max(to) as usize >= self.blocks() {
            bail!("copy_block: {from} to {to} in a pool of {} blocks", self.blocks());
        }
        match &mut self.store {
            Store::Cpu(pages) => pages.copy_block(from, to),
            Store::Tensor(pages) => return pages.copy_block(from, to),
        }
        Ok(())
    }
}
