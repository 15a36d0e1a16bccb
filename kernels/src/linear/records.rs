//! How packed weights lie in memory: all that a panel of sixteen columns needs, in the order in which
//! it is needed, so that reading weights is one stream per panel. Decoding one sequence waits for
//! little else.
//!
//! ```text
//! panel    [ record 0 ][ record 1 ] …
//! record   [ scales 32 B | minima 32 B | group scales | group minima | … ][ values of its spans ]
//!            f16 of 16 columns           K-quants: 16 B for each group    a multiple of 64 B each
//! ```
//! A record holds one block of 256 k of a K-quant, or two blocks of 32 k of another type (scales of
//! both, then minima of both). What stands before the values is padded to 64 bytes. Types without
//! minima have no room for them.

use super::PANEL;
use super::activations::SPAN;
use super::blocks::{Block, Format};
use crate::simd::Simd;

/// Bytes of a cache line and of a vector of values.
pub const LINE: usize = 64;

/// Bytes of sixteen f16.
const HALVES: usize = 2 * PANEL;

/// What the compiler knows of a type of blocks.
pub trait Kind {
    /// Whether values fit four bits.
    const NIBBLES: bool;
    /// Whether it is a K-quant.
    const NESTED: bool;
    /// Groups of a span: 1, or 2 where scales cover 16 k.
    const GROUPS: usize;
    /// Spans of a record.
    const SPANS: usize = spans_of_record(Self::NESTED);
    /// Vectors of values of a span.
    const VECTORS: usize = vectors_of_span(Self::NIBBLES);
}

/// Every [`Kind`].
pub struct Known<const NIBBLES: bool, const NESTED: bool, const GROUPS: usize>;

impl<const NIBBLES: bool, const NESTED: bool, const GROUPS: usize> Kind
    for Known<NIBBLES, NESTED, GROUPS>
{
    const NIBBLES: bool = NIBBLES;
    const NESTED: bool = NESTED;
    const GROUPS: usize = GROUPS;
}

const fn spans_of_record(nested: bool) -> usize {
    if nested { 8 } else { 2 }
}

const fn vectors_of_span(nibbles: bool) -> usize {
    if nibbles { 4 } else { 8 }
}

/// Sizes and places in bytes; places count from the start of a record.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Of all records of a panel.
    pub panel: usize,
    pub record: usize,
    /// Where the values begin.
    pub values: usize,
    mins: usize,
    group_scales: usize,
    group_mins: usize,
}

impl Layout {
    /// Of a matrix with `k` rows.
    pub fn new(format: &Format, k: usize) -> Self {
        let nested = format.is_nested();
        let spans = spans_of_record(nested);
        let blocks = spans * SPAN / format.len;
        let groups = if nested { format.len / format.group } else { 0 };
        let kinds = if format.has_min { 2 } else { 1 };
        let mins = blocks * HALVES;
        let group_scales = kinds * mins;
        let group_mins = group_scales + groups * PANEL;
        let values = (group_scales + kinds * groups * PANEL).next_multiple_of(LINE);
        let vectors = vectors_of_span(format.nibbles);
        let record = values + spans * vectors * LINE;
        // Where spans do not fill the last record, it ends with its last span.
        let missing = (k / SPAN).next_multiple_of(spans) - k / SPAN;
        let panel = (k / SPAN).div_ceil(spans) * record - missing * vectors * LINE;
        Self { panel, record, values, mins, group_scales, group_mins }
    }

    /// Writes block `number` of column `lane` into a panel.
    pub fn write(&self, format: &Format, block: &Block, number: usize, lane: usize, to: &mut [u8]) {
        let blocks = spans_of_record(format.is_nested()) * SPAN / format.len;
        let (record, place) = (number / blocks, number % blocks);
        let to = &mut to[record * self.record..];
        let at = place * HALVES + 2 * lane;
        to[at..at + 2].copy_from_slice(&block.scale.to_le_bytes());
        if format.has_min {
            to[self.mins + at..][..2].copy_from_slice(&block.min.to_le_bytes());
        }
        if format.is_nested() {
            for group in 0..format.len / format.group {
                to[self.group_scales + group * PANEL + lane] = block.scales[group] as u8;
                if format.has_min {
                    to[self.group_mins + group * PANEL + lane] = block.mins[group] as u8;
                }
            }
        }
        let values = &mut to[self.values..];
        write_values(format, block, place * format.len, lane, values);
    }

    /// Scales of sixteen columns in a group of a span of a record.
    ///
    /// # Safety
    /// As [`Simd`]; `record` is the start of a record of kind `K`.
    #[inline(always)]
    pub unsafe fn scale<S: Simd, K: Kind>(
        &self,
        record: *const u8,
        (span, group): (usize, usize),
    ) -> S::V {
        unsafe {
            if !K::NESTED {
                return S::load_f16(record.add(span * HALVES).cast());
            }
            let at = self.group_scales + (span * K::GROUPS + group) * PANEL;
            // Exact: eleven bits times seven.
            S::mul(S::load_f16(record.cast()), S::load_i8(record.add(at).cast()))
        }
    }

    /// Minima, as [`Layout::scale`].
    ///
    /// # Safety
    /// As there, and the type has minima.
    #[inline(always)]
    pub unsafe fn min<S: Simd, K: Kind>(
        &self,
        record: *const u8,
        (span, group): (usize, usize),
    ) -> S::V {
        unsafe {
            let mins = record.add(self.mins);
            if !K::NESTED {
                return S::load_f16(mins.add(span * HALVES).cast());
            }
            let at = self.group_mins + (span * K::GROUPS + group) * PANEL;
            S::mul(S::load_f16(mins.cast()), S::load_i8(record.add(at).cast()))
        }
    }
}

/// Writes the values of a block that begins at `first` of its record into the vectors of a record.
fn write_values(format: &Format, block: &Block, first: usize, lane: usize, values: &mut [u8]) {
    for (i, &value) in block.values[..format.len].iter().enumerate() {
        let k = first + i;
        let (span, g, byte) = (k / SPAN, k % SPAN / 4, k % 4);
        let in_vector = lane * 4 + byte;
        if format.nibbles {
            values[(span * 4 + g % 4) * LINE + in_vector] |= value << (g / 4 * 4);
        } else {
            values[(span * 8 + g) * LINE + in_vector] = value;
        }
    }
}
