//! The processor's layout. Keys of a block are stored transposed, so that a vector of sixteen
//! lanes holds one column of sixteen tokens, which is what a tile of scores multiplies:
//!
//! ```text
//! keys    [kv head][block][column 0..D][token 0..16]
//! values  [kv head][block][token 0..16][column 0..D]
//! ```
//! Blocks of a sequence mostly follow each other, so a head's keys are one stream, as its values are.

use super::{BLOCK, KvDtype, KvShape};
use crate::host::for_each_piece;
use crate::memory::{Arena, Numbers};
use crate::simd::{Element, F16, F32, LANES};
use candle_core::Result;

/// Operations that rounding a number to its type counts for.
const NARROWING: usize = 4;

/// Pages in either type.
#[derive(Debug)]
pub enum AnyPages {
    F32(Pages<F32>),
    F16(Pages<F16>),
}

impl AnyPages {
    pub fn new(shape: KvShape, arena: &mut Arena) -> Result<Self> {
        Ok(match shape.dtype {
            KvDtype::F32 => Self::F32(Pages::new(shape, arena)?),
            KvDtype::F16 => Self::F16(Pages::new(shape, arena)?),
        })
    }

    /// Keys and values are the last columns of `rows`.
    pub fn store(&mut self, rows: &[f32], columns: usize, slots: &[u32]) {
        match self {
            Self::F32(pages) => pages.store(rows, columns, slots),
            Self::F16(pages) => pages.store(rows, columns, slots),
        }
    }

    pub fn copy_block(&mut self, from: u32, to: u32) {
        match self {
            Self::F32(pages) => pages.copy_block(from, to),
            Self::F16(pages) => pages.copy_block(from, to),
        }
    }
}

#[derive(Debug)]
pub struct Pages<E: Element> {
    keys: Numbers<E::Stored>,
    values: Numbers<E::Stored>,
    kv_heads: usize,
    head_dim: usize,
    blocks: usize,
}

impl<E: Element> Pages<E> {
    fn new(shape: KvShape, arena: &mut Arena) -> Result<Self> {
        let KvShape { blocks, kv_heads, head_dim, .. } = shape;
        let len = blocks * kv_heads * head_dim * BLOCK;
        let (keys, values) = (arena.zeroed(len)?, arena.zeroed(len)?);
        Ok(Self { keys, values, kv_heads, head_dim, blocks })
    }

    /// Keys of a block's head, `[D][BLOCK]`.
    #[inline(always)]
    pub fn keys(&self, block: u32, head: usize) -> &[E::Stored] {
        let page = self.head_dim * BLOCK;
        &self.keys[self.page(block as usize, head) * page..][..page]
    }

    /// Values of a block's head, `[BLOCK][D]`.
    #[inline(always)]
    pub fn values(&self, block: u32, head: usize) -> &[E::Stored] {
        let page = self.head_dim * BLOCK;
        &self.values[self.page(block as usize, head) * page..][..page]
    }

    /// Which page a block's head has.
    #[inline(always)]
    fn page(&self, block: usize, head: usize) -> usize {
        head * self.blocks + block
    }

    /// Head by head, whose pages lie together.
    fn store(&mut self, rows: &[f32], columns: usize, slots: &[u32]) {
        let (d, width) = (self.head_dim, self.kv_heads * self.head_dim);
        let pages = self.blocks * d * BLOCK;
        let operations = 2 * slots.len() * width * NARROWING;
        for_each_piece(&mut self.keys, pages, operations, |head, keys| {
            let first = columns - 2 * width + head * d;
            for (row, &slot) in rows.chunks_exact(columns).zip(slots) {
                let (block, offset) = (slot as usize / BLOCK, slot as usize % BLOCK);
                let page = &mut keys[block * d * BLOCK..][..d * BLOCK];
                let columns = page.chunks_mut(LANES * BLOCK).zip(row[first..][..d].chunks(LANES));
                for (page, from) in columns {
                    let mut keys = [E::Stored::default(); LANES];
                    E::narrow(from, &mut keys[..from.len()]);
                    let tokens = page.iter_mut().skip(offset).step_by(BLOCK);
                    tokens.zip(keys).for_each(|(to, from)| *to = from);
                }
            }
        });
        for_each_piece(&mut self.values, pages, operations, |head, values| {
            let first = columns - width + head * d;
            for (row, &slot) in rows.chunks_exact(columns).zip(slots) {
                E::narrow(&row[first..], &mut values[slot as usize * d..][..d]);
            }
        });
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        let len = self.head_dim * BLOCK;
        for head in 0..self.kv_heads {
            let [from, to] = [from, to].map(|block| self.page(block as usize, head) * len);
            self.keys.copy_within(from..from + len, to);
            self.values.copy_within(from..from + len, to);
        }
    }
}
