//! The paged keys and values of all layers, in one piece of device memory.
//!
//! ```text
//! [layer][keys, values][block][kv head] pages of                bf16 or e4m3
//! [layer][keys, values][block][kv head][token 0..16]            f32 factors, for e4m3 only
//!
//! page, e4m3    [token 0..16][column]
//! page, bf16    [panel of 64 columns][token 0..16][column]      chunks of 8 columns exchanged (cuda/pages.cuh)
//! ```
//! The sixteen tokens of a block's head are one piece (4 KiB for 128 columns in bf16), so that attention, which works
//! head by head, reads whole pieces; larger blocks would gain nothing and waste more of each sequence's last one.

use super::device::{Buffer, Element, Gpu};
use super::error::{Result, check, ensure};
use super::ffi;
use super::stream::Stream;
use crate::kv::BLOCK;
use half::bf16;

/// The type that keys and values are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    Bf16,
    /// Half the memory: 4 bits of mantissa, and a factor for each token and head.
    E4m3,
}

impl KvType {
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Bf16 => ffi::BF16,
            Self::E4m3 => ffi::E4M3,
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::E4m3 => 1,
        }
    }
}

/// Size of a pool of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    pub layers: usize,
    pub blocks: usize,
    pub kv_heads: usize,
    /// Columns of a head: 64 or 128 for attention.
    pub head_dim: usize,
    pub kv_type: KvType,
}

impl KvShape {
    /// Bytes of a block's keys in one layer (its values take as many).
    fn block_bytes(&self) -> usize {
        self.kv_heads * BLOCK * self.head_dim * self.kv_type.bytes()
    }

    /// Numbers of the factors of a block's keys in one layer.
    fn block_scales(&self) -> usize {
        match self.kv_type {
            KvType::Bf16 => 0,
            KvType::E4m3 => self.kv_heads * BLOCK,
        }
    }

    /// Bytes that one block takes in all layers together.
    pub fn bytes_per_block(&self) -> usize {
        2 * self.layers * (self.block_bytes() + 4 * self.block_scales())
    }
}

/// Keys and values of all layers.
#[derive(Debug, Clone)]
pub struct Kv {
    shape: KvShape,
    pages: Buffer<u8>,
    scales: Buffer<f32>,
}

/// Keys and values of one layer.
#[derive(Debug, Clone)]
pub struct KvLayer {
    pub shape: KvShape,
    pub(super) keys: Buffer<u8>,
    pub(super) values: Buffer<u8>,
    pub(super) key_scales: Buffer<f32>,
    pub(super) value_scales: Buffer<f32>,
}

impl Kv {
    /// Room for `shape.blocks` blocks; contents undefined. (What was never written is never read: attention reads no
    /// position beyond what a sequence has. A kernel may load it, and multiplies it by nothing.)
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu, shape: KvShape) -> Result<Self> {
        let arrays = 2 * shape.layers * shape.blocks;
        let pages = gpu.alloc(arrays * shape.block_bytes())?;
        Ok(Self { shape, pages, scales: gpu.alloc(arrays * shape.block_scales())? })
    }

    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// One layer's part.
    pub fn layer(&self, layer: usize) -> KvLayer {
        let part = |buffer: &Buffer<u8>, one: usize, index: usize| {
            buffer.slice(index * one..(index + 1) * one)
        };
        let (one, scales) = (
            self.shape.blocks * self.shape.block_bytes(),
            self.shape.blocks * self.shape.block_scales(),
        );
        let scales_of = |index: usize| self.scales.slice(index * scales..(index + 1) * scales);
        KvLayer {
            shape: self.shape,
            keys: part(&self.pages, one, 2 * layer),
            values: part(&self.pages, one, 2 * layer + 1),
            key_scales: scales_of(2 * layer),
            value_scales: scales_of(2 * layer + 1),
        }
    }

    /// In all layers, block `to` becomes a copy of block `from`, for the first `count` pairs `[from, to]` of `pairs`.
    /// No block may stand on both sides.
    ///
    /// # Errors
    /// A list that is too short.
    pub fn copy_blocks(&self, stream: &Stream, pairs: &Buffer<u32>, count: usize) -> Result<()> {
        ensure(2 * count <= pairs.len(), || {
            format!("copy_blocks: {count} pairs of {}", pairs.len() / 2)
        })?;
        stream.name(pairs);
        stream.name(&self.pages);
        stream.name(&self.scales);
        let shape = &self.shape;
        let mut args = ffi::CopyUnits {
            base: self.pages.ptr(),
            pairs: pairs.ptr(),
            array_bytes: (shape.blocks * shape.block_bytes()) as u64,
            unit_bytes: shape.block_bytes() as u32,
            arrays: 2 * shape.layers as u32,
            count: count as u32,
        };
        // SAFETY: both buffers are alive, and a kernel checks nothing: ids come from the engine's allocator.
        check(unsafe { ffi::lr_gpu_copy_units(stream.as_ptr(), &raw const args) })?;
        if shape.block_scales() == 0 {
            return Ok(());
        }
        args.base = self.scales.ptr();
        args.array_bytes = (4 * shape.blocks * shape.block_scales()) as u64;
        args.unit_bytes = 4 * shape.block_scales() as u32;
        // SAFETY: as above.
        check(unsafe { ffi::lr_gpu_copy_units(stream.as_ptr(), &raw const args) })
    }
}

/// Numbers of noise, which is then repeated: more than any cache of the first or second level holds.
const NOISE: usize = 1 << 26;

/// Fills a buffer with repeats of `values`.
fn repeat<T: Element>(stream: &Stream, buffer: &Buffer<T>, values: &[T]) -> Result<()> {
    for start in (0..buffer.len()).step_by(values.len().max(1)) {
        let end = buffer.len().min(start + values.len());
        let part = buffer.slice(start..end);
        if start == 0 {
            stream.write(&part, values)?;
        } else {
            stream.copy_buffer(&buffer.slice(0..end - start), &part)?;
        }
    }
    Ok(())
}

/// For tests and measurements.
impl KvLayer {
    /// All keys and all values, `[block, kv head, token, column]`; waits for work under way.
    ///
    /// # Errors
    /// Work that failed.
    pub fn read(&self, stream: &Stream) -> Result<(Vec<f32>, Vec<f32>)> {
        let one = |pages: &Buffer<u8>, scales: &Buffer<f32>| -> Result<Vec<f32>> {
            let bytes = stream.read(pages)?;
            let scales = stream.read(scales)?;
            let d = self.shape.head_dim;
            Ok(match self.shape.kv_type {
                KvType::Bf16 => {
                    let stored: Vec<f32> = bytes
                        .as_chunks()
                        .0
                        .iter()
                        .map(|&b| bf16::from_le_bytes(b).to_f32())
                        .collect();
                    stored.chunks(BLOCK * d).flat_map(|page| in_order(page, d)).collect()
                }
                KvType::E4m3 => {
                    bytes.iter().enumerate().map(|(i, &b)| e4m3(b) * scales[i / d]).collect()
                }
            })
        };
        Ok((one(&self.keys, &self.key_scales)?, one(&self.values, &self.value_scales)?))
    }

    /// Fills all blocks with reproducible numbers of a standard deviation near 1.
    ///
    /// # Errors
    /// A stream that failed.
    pub fn write_noise(&self, stream: &Stream, seed: u64) -> Result<()> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for pages in [&self.keys, &self.values] {
            let len = pages.len().min(NOISE);
            // e4m3: exponents near zero, so that no number is a NaN. bf16: up to 2.
            let bytes: Vec<u8> = match self.shape.kv_type {
                KvType::E4m3 => (0..len).map(|_| next() as u8 & 0xBF).collect(),
                KvType::Bf16 => (0..len / 2)
                    .flat_map(|_| {
                        let x = (next() >> 40) as f32 / (1u32 << 22) as f32 - 2.0;
                        bf16::from_f32(x).to_le_bytes()
                    })
                    .collect(),
            };
            repeat(stream, pages, &bytes)?;
        }
        for scales in [&self.key_scales, &self.value_scales] {
            let numbers: Vec<f32> = (0..scales.len())
                .map(|_| 0.5 + (next() >> 41) as f32 / (1u32 << 23) as f32)
                .collect();
            stream.write(scales, &numbers)?;
        }
        Ok(())
    }
}

impl KvLayer {
    /// Sets all bits of tokens from `used[block]` on, of every block.
    ///
    /// # Errors
    /// A stream that failed.
    pub fn poison_unused(&self, stream: &Stream, used: &[usize]) -> Result<()> {
        let KvShape { kv_heads, head_dim, kv_type, .. } = self.shape;
        let panel = if kv_type == KvType::Bf16 { PANEL.min(head_dim) } else { head_dim };
        for (block, &used) in used.iter().enumerate() {
            for head in 0..kv_heads {
                let first = (block * kv_heads + head) * BLOCK;
                for column in (0..head_dim).step_by(panel) {
                    let row = panel.min(head_dim - column) * kv_type.bytes();
                    let start = (first * head_dim + column * BLOCK) * kv_type.bytes();
                    for pages in [&self.keys, &self.values] {
                        let unused = start + used * row..start + BLOCK * row;
                        stream.fill(&pages.slice(unused), 0xFF)?;
                    }
                }
                if self.shape.kv_type == KvType::E4m3 {
                    for scales in [&self.key_scales, &self.value_scales] {
                        stream.fill(&scales.slice(first + used..first + BLOCK), 0xFF)?;
                    }
                }
            }
        }
        stream.wait()
    }
}

/// Columns of a panel.
const PANEL: usize = 64;

/// A page in bf16, `[token, column]`.
fn in_order(page: &[f32], columns: usize) -> impl Iterator<Item = f32> {
    (0..BLOCK * columns).map(move |i| {
        let (token, column) = (i / columns, i % columns);
        let first = column / PANEL * PANEL;
        let width = PANEL.min(columns - first);
        let chunk = (column - first) / 8;
        let place = if width == PANEL { chunk ^ (token % 8) } else { chunk };
        page[first * BLOCK + token * width + place * 8 + column % 8]
    })
}

/// The value of an 8-bit number: sign, 4 bits of exponent with bias 7, 3 of mantissa.
fn e4m3(byte: u8) -> f32 {
    let magnitude = f32::from_bits(u32::from(byte & 0x7F) << 20) * 2f32.powi(120);
    if byte & 0x7F == 0x7F {
        f32::NAN
    } else if byte & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

impl Kv {
    /// Sets all bytes, of factors as well.
    ///
    /// # Errors
    /// A stream that failed.
    pub fn fill(&self, stream: &Stream, byte: u8) -> Result<()> {
        stream.fill(&self.pages, byte)?;
        stream.fill(&self.scales, byte)
    }
}
