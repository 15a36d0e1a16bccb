//! The way of weights to the GPU: through two halves of pinned memory, one of which is filled
//! while the other is copied.

use crate::error::Result;
use crate::weights::Piece;
use half::bf16;
use kernels::gpu::{Buffer, Event, Gpu, Pinned, Stream};
use rayon::prelude::*;

/// Numbers of a half: 32 MiB.
const HALF: usize = 16 << 20;

/// Numbers that one thread rounds at a time.
const SHARE: usize = 1 << 16;

/// Copies numbers to the GPU as bf16.
pub struct Stager {
    stream: Stream,
    halves: [Half; 2],
    next: usize,
}

struct Half {
    numbers: Pinned<bf16>,
    /// Marks the end of the copy that reads it.
    copied: Event,
}

impl Half {
    fn new(gpu: &Gpu, stream: &Stream) -> Result<Self> {
        let half = Self { numbers: gpu.alloc_pinned(HALF)?, copied: Event::new(gpu)? };
        stream.record(&half.copied)?;
        Ok(half)
    }
}

impl Stager {
    /// # Errors
    /// Not enough memory.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        let stream = Stream::new(gpu)?;
        let halves = [Half::new(gpu, &stream)?, Half::new(gpu, &stream)?];
        Ok(Self { stream, halves, next: 0 })
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Copies `piece` to `to[at ..]`, and returns how many numbers it has.
    ///
    /// # Errors
    /// The GPU's.
    ///
    /// # Panics
    /// More numbers than there is room for.
    pub fn put(&mut self, piece: Piece, to: &Buffer<bf16>, at: usize) -> Result<usize> {
        let len = match piece {
            Piece::Bf16(numbers) => numbers.len(),
            Piece::F32(numbers) => numbers.len(),
        };
        for first in (0..len).step_by(HALF) {
            let last = len.min(first + HALF);
            let half = &mut self.halves[self.next];
            self.next = 1 - self.next;
            half.copied.wait()?;
            narrow(piece, first, &mut half.numbers[..last - first]);
            let to = to.slice(at + first..at + last);
            self.stream.upload(&half.numbers, &to, last - first)?;
            self.stream.record(&half.copied)?;
        }
        Ok(len)
    }

    /// Waits for all copies.
    ///
    /// # Errors
    /// The GPU's.
    pub fn finish(self) -> Result<()> {
        Ok(self.stream.wait()?)
    }
}

/// Numbers of `piece` from number `first` on, rounded to bf16.
fn narrow(piece: Piece, first: usize, to: &mut [bf16]) {
    to.par_chunks_mut(SHARE).enumerate().for_each(|(share, to)| {
        let first = first + share * SHARE;
        let places = first..first + to.len();
        match piece {
            Piece::Bf16(numbers) => {
                let from = numbers[places].iter().map(|&bytes| bf16::from_le_bytes(bytes));
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from);
            }
            Piece::F32(numbers) => {
                let from = numbers[places].iter().map(|&x| bf16::from_f32(x));
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from);
            }
        }
    });
}
