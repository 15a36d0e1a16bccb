//! The block types of GGUF, read into one common form: small unsigned integers with a zero point
//! that is the same for the whole type, a scale, and for some types a minimum per group.
//!
//! A weight is `scale · (value - zero) + min`. In K-quants, which pack 256 weights in groups of 16 or
//! 32, a group's scale is a small integer times the block's scale, and its minimum likewise. The
//! layouts are those of the GGML library's `block_q*` structures.

use candle_core::quantized::GgmlDType;
use candle_core::{Result, bail};
use half::f16;

/// What is the same for all blocks of a type.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// Weights of a block.
    pub len: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Weights that share a scale.
    pub group: usize,
    /// Whether values fit four bits.
    pub nibbles: bool,
    pub zero: i32,
    pub has_min: bool,
    unpack: fn(&[u8], &mut Block),
}

/// One block, unpacked: `len` values; the factors of K-quants' `len / group` groups.
pub struct Block {
    pub values: [u8; 256],
    /// Bits of an f16.
    pub scale: u16,
    /// Bits of an f16.
    pub min: u16,
    /// What `scale` is multiplied by in each group of a K-quant.
    pub scales: [i8; 16],
    /// What `min` is multiplied by in each group of a K-quant.
    pub mins: [i8; 16],
}

impl Block {
    pub fn new() -> Self {
        Self { values: [0; 256], scale: 0, min: 0, scales: [0; 16], mins: [0; 16] }
    }
}

impl Format {
    /// The types that files store weights in.
    #[cfg(test)]
    pub const ALL: [GgmlDType; 10] = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];

    /// # Errors
    /// A type that no file stores weights in.
    pub fn of(dtype: GgmlDType) -> Result<Self> {
        type Row = (usize, bool, i32, bool, fn(&[u8], &mut Block));
        let (group, nibbles, zero, has_min, unpack): Row = match dtype {
            GgmlDType::Q4_0 => (32, true, 8, false, q4_0),
            GgmlDType::Q4_1 => (32, true, 0, true, q4_1),
            GgmlDType::Q5_0 => (32, false, 16, false, q5_0),
            GgmlDType::Q5_1 => (32, false, 0, true, q5_1),
            GgmlDType::Q8_0 => (32, false, 128, false, q8_0),
            GgmlDType::Q2K => (16, true, 0, true, q2k),
            GgmlDType::Q3K => (16, true, 4, false, q3k),
            GgmlDType::Q4K => (32, true, 0, true, q4k),
            GgmlDType::Q5K => (32, false, 0, true, q5k),
            GgmlDType::Q6K => (16, false, 32, false, q6k),
            other => bail!("weights of block type {other:?} can't be read"),
        };
        let (len, bytes) = (dtype.block_size(), dtype.type_size());
        Ok(Self { len, bytes, group, nibbles, zero, has_min, unpack })
    }

    /// Whether blocks hold several groups with factors of their own.
    pub fn is_nested(&self) -> bool {
        self.len > self.group
    }

    /// The weights of a block, as f32.
    pub fn widen(&self, block: &Block, out: &mut [f32]) {
        let (scale, min) =
            (f16::from_bits(block.scale).to_f32(), f16::from_bits(block.min).to_f32());
        let groups = out.chunks_exact_mut(self.group).zip(block.values.chunks_exact(self.group));
        for (group, (out, values)) in groups.enumerate() {
            let (scale, min) = match self.is_nested() {
                true => {
                    (scale * f32::from(block.scales[group]), min * f32::from(block.mins[group]))
                }
                false => (scale, min),
            };
            for (out, &value) in out.iter_mut().zip(values) {
                let weight = (i32::from(value) - self.zero) as f32 * scale;
                *out = if self.has_min { weight + min } else { weight };
            }
        }
    }

    /// Reads one block of `self.bytes` bytes.
    pub fn unpack(&self, bytes: &[u8], block: &mut Block) {
        (self.unpack)(bytes, block);
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// K-quants store what is subtracted.
fn negative_half(bytes: &[u8], at: usize) -> u16 {
    half(bytes, at) ^ 0x8000
}

/// Low nibbles first, then high ones.
fn spread_nibbles(packed: &[u8], values: &mut [u8]) {
    let (low, high) = values.split_at_mut(packed.len());
    for (i, &byte) in packed.iter().enumerate() {
        low[i] = byte & 15;
        high[i] = byte >> 4;
    }
}

fn q4_0(b: &[u8], to: &mut Block) {
    to.scale = half(b, 0);
    spread_nibbles(&b[2..18], &mut to.values[..32]);
}

fn q4_1(b: &[u8], to: &mut Block) {
    (to.scale, to.min) = (half(b, 0), half(b, 2));
    spread_nibbles(&b[4..20], &mut to.values[..32]);
}

/// Adds the fifth bits, one per weight.
fn add_fifth_bits(b: &[u8], values: &mut [u8]) {
    let bits = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    for (i, value) in values.iter_mut().enumerate() {
        *value |= ((bits >> i & 1) << 4) as u8;
    }
}

fn q5_0(b: &[u8], to: &mut Block) {
    to.scale = half(b, 0);
    spread_nibbles(&b[6..22], &mut to.values[..32]);
    add_fifth_bits(&b[2..6], &mut to.values[..32]);
}

fn q5_1(b: &[u8], to: &mut Block) {
    (to.scale, to.min) = (half(b, 0), half(b, 2));
    spread_nibbles(&b[8..24], &mut to.values[..32]);
    add_fifth_bits(&b[4..8], &mut to.values[..32]);
}

fn q8_0(b: &[u8], to: &mut Block) {
    to.scale = half(b, 0);
    for (value, &signed) in to.values[..32].iter_mut().zip(&b[2..34]) {
        // i8 + 128 in two's complement is a flip of the top bit.
        *value = signed ^ 0x80;
    }
}

/// Two-bit values: 128 weights per 32 bytes, weight `j * 32 + l` in bits `2 j` of byte `l`.
fn spread_pairs(packed: &[u8], values: &mut [u8; 256]) {
    for (i, value) in values.iter_mut().enumerate() {
        let (n, j, l) = (i / 128, i % 128 / 32, i % 32);
        *value = packed[n * 32 + l] >> (2 * j) & 3;
    }
}

fn q2k(b: &[u8], to: &mut Block) {
    (to.scale, to.min) = (half(b, 80), negative_half(b, 82));
    for i in 0..16 {
        to.scales[i] = (b[i] & 15) as i8;
        to.mins[i] = (b[i] >> 4) as i8;
    }
    spread_pairs(&b[16..80], &mut to.values);
}

fn q3k(b: &[u8], to: &mut Block) {
    let (high, low, packed) = (&b[..32], &b[32..96], &b[96..108]);
    to.scale = half(b, 108);
    for i in 0..16 {
        let nibble = if i < 8 { packed[i] & 15 } else { packed[i - 8] >> 4 };
        let top = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
        to.scales[i] = (nibble | top << 4) as i8 - 32;
    }
    spread_pairs(low, &mut to.values);
    for (i, value) in to.values.iter_mut().enumerate() {
        *value |= (high[i % 32] >> (i / 32) & 1) << 2;
    }
}

/// The eight 6-bit scales and minima of Q4_K and Q5_K, packed in 12 bytes.
fn scales_of_eight(b: &[u8], to: &mut Block) {
    for i in 0..8 {
        let (scale, min) = if i < 4 {
            (b[i] & 63, b[i + 4] & 63)
        } else {
            (b[i + 4] & 15 | b[i - 4] >> 6 << 4, b[i + 4] >> 4 | b[i] >> 6 << 4)
        };
        (to.scales[i], to.mins[i]) = (scale as i8, min as i8);
    }
}

fn q4k(b: &[u8], to: &mut Block) {
    (to.scale, to.min) = (half(b, 0), negative_half(b, 2));
    scales_of_eight(&b[4..16], to);
    for (packed, values) in b[16..144].chunks_exact(32).zip(to.values.chunks_exact_mut(64)) {
        spread_nibbles(packed, values);
    }
}

fn q5k(b: &[u8], to: &mut Block) {
    (to.scale, to.min) = (half(b, 0), negative_half(b, 2));
    scales_of_eight(&b[4..16], to);
    let high = &b[16..48];
    for (packed, values) in b[48..176].chunks_exact(32).zip(to.values.chunks_exact_mut(64)) {
        spread_nibbles(packed, values);
    }
    for (i, value) in to.values.iter_mut().enumerate() {
        *value |= (high[i % 32] >> (i / 32) & 1) << 4;
    }
}

fn q6k(b: &[u8], to: &mut Block) {
    let (low, high, scales) = (&b[..128], &b[128..192], &b[192..208]);
    to.scale = half(b, 208);
    for i in 0..16 {
        to.scales[i] = scales[i] as i8;
    }
    for (i, value) in to.values.iter_mut().enumerate() {
        // 128 weights per 64 low bytes and 32 high bytes; quarter q of 32 weights.
        let (n, q, l) = (i / 128, i % 128 / 32, i % 32);
        let nibble = low[n * 64 + q % 2 * 32 + l] >> (q / 2 * 4) & 15;
        *value = nibble | (high[n * 32 + l] >> (2 * q) & 3) << 4;
    }
}
