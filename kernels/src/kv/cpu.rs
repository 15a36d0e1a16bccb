//! The processor's layout. Keys of a block are stored transposed, so that a vector of sixteen
//! lanes holds one column of sixteen tokens, which is what a tile of scores multiplies:
//!
//! ```text
//! keys    [kv head][block][column 0..D][token 0..16]
//! values  [kv head][block][token 0..16][column 0..D]
//! ```
//! Blocks of a sequence mostly follow each other, so a head's keys are one stream, as its values are.

use super::{BLOCK, KvDtype, KvShape};
use crate::host::with_f32;
use crate::memory::{Arena, Numbers};
use crate::simd::{Element, F16, F32};
use candle_core::{Result, Tensor};

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

    pub fn store(&mut self, k: &Tensor, v: &Tensor, slots: &[u32]) -> Result<()> {
        match self {
            Self::F32(pages) => pages.store(k, v, slots),
            Self::F16(pages) => pages.store(k, v, slots),
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

    fn store(&mut self, k: &Tensor, v: &Tensor, slots: &[u32]) -> Result<()> {
        with_f32(k, "store_kv: keys", |k| {
            with_f32(v, "store_kv: values", |v| {
                let (k, v) = (E::narrow(k), E::narrow(v));
                for (row, &slot) in slots.iter().enumerate() {
                    let from = row * self.kv_heads * self.head_dim;
                    let len = self.kv_heads * self.head_dim;
                    self.store_row(&k[from..][..len], &v[from..][..len], slot as usize);
                }
                Ok(())
            })
        })
    }

    /// One token: `k` and `v` are `[kv_heads][D]`.
    fn store_row(&mut self, k: &[E::Stored], v: &[E::Stored], slot: usize) {
        let (block, offset) = (slot / BLOCK, slot % BLOCK);
        let d = self.head_dim;
        let page = d * BLOCK;
        for head in 0..self.kv_heads {
            let at = self.page(block, head) * page;
            let column = self.keys[at..at + page].iter_mut().skip(offset).step_by(BLOCK);
            for (to, from) in column.zip(&k[head * d..][..d]) {
                *to = *from;
            }
            self.values[at + offset * d..][..d].copy_from_slice(&v[head * d..][..d]);
        }
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
