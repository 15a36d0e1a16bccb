//! Memory for large arrays that live long: weights, keys and values.

use candle_core::{Error, Result};
use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Hands out zeroed arrays of numbers.
///
/// With [`Arena::huge_pages`] they lie one behind the other in regions for which the system is asked
/// for huge pages: weights and keys are read from end to end once a step, and with pages of 4 KiB
/// the processor walks through its page tables, and loses its own prefetching, every 64 cache
/// lines. An array of its own would seldom fill a huge page. Memory of a region is only taken
/// where it is written, and freed with the last array in it.
#[derive(Debug)]
pub struct Arena {
    /// The region that is being filled, and how many of its bytes are given away; `None` for
    /// arrays on the heap.
    region: Option<(Arc<Region>, usize)>,
}

/// Bytes of a region, unless one array needs more.
const REGION: usize = 64 << 20;

/// Arrays begin at cache lines.
const LINE: usize = 64;

/// Numbers for which all bytes zero, and any other bytes, are a value.
///
/// # Safety
/// Implemented for plain numbers only.
pub unsafe trait Plain: Copy + Default {}

// SAFETY: any bits are a number.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}

impl Arena {
    /// Each array on the heap, on its own.
    pub fn heap() -> Self {
        Self { region: None }
    }

    /// Arrays side by side, in huge pages where the system has them.
    ///
    /// # Errors
    /// The system does not give so much address space.
    pub fn huge_pages() -> Result<Self> {
        Ok(Self { region: Some((Region::new(REGION)?, 0)) })
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// The system does not give so much memory.
    pub(crate) fn zeroed<T: Plain>(&mut self, len: usize) -> Result<Numbers<T>> {
        let Some((region, used)) = &mut self.region else {
            return Ok(Numbers::Heap(vec![T::default(); len]));
        };
        let bytes = (len * size_of::<T>()).next_multiple_of(LINE);
        if *used + bytes > region.map.len() {
            (*region, *used) = (Region::new(bytes.max(REGION))?, 0);
        }
        let piece = Piece { region: region.clone(), offset: *used };
        *used += bytes;
        Ok(Numbers::Piece(piece, len, std::marker::PhantomData))
    }
}

/// Zeroed memory of the system that [`Numbers`] share without overlapping.
#[derive(Debug)]
struct Region {
    map: MmapMut,
    start: *mut u8,
}

// SAFETY: whoever reads or writes does so through a `Numbers`, and each has bytes of its own.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn new(bytes: usize) -> Result<Arc<Self>> {
        let mut map = MmapMut::map_anon(bytes).map_err(Error::wrap)?;
        // Without huge pages it works as well, only slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let start = map.as_mut_ptr();
        Ok(Arc::new(Self { map, start }))
    }
}

/// Where an array begins.
#[derive(Debug)]
pub(crate) struct Piece {
    region: Arc<Region>,
    offset: usize,
}

/// An array that an [`Arena`] gave.
#[derive(Debug)]
pub(crate) enum Numbers<T> {
    Heap(Vec<T>),
    Piece(Piece, usize, std::marker::PhantomData<T>),
}

impl<T: Plain> Deref for Numbers<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        match self {
            Self::Heap(numbers) => numbers,
            Self::Piece(Piece { region, offset }, len, _) => {
                // SAFETY: the array's bytes lie in the region, which lives as long as the piece;
                // they begin at a cache line, belong to this array alone, and any are a value.
                unsafe { std::slice::from_raw_parts(region.start.add(*offset).cast(), *len) }
            }
        }
    }
}

impl<T: Plain> DerefMut for Numbers<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Heap(numbers) => numbers,
            Self::Piece(Piece { region, offset }, len, _) => {
                // SAFETY: as in `deref`, and the array is borrowed for writing.
                unsafe { std::slice::from_raw_parts_mut(region.start.add(*offset).cast(), *len) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_zeroed_and_do_not_overlap() {
        for mut arena in [Arena::heap(), Arena::huge_pages().unwrap()] {
            let mut small: Vec<Numbers<u8>> =
                (0..100).map(|len| arena.zeroed(len).unwrap()).collect();
            let mut large = arena.zeroed::<f32>(REGION / 4 + 3).unwrap();
            let mut last = arena.zeroed::<u16>(33).unwrap();
            last.fill(7);
            for (i, array) in small.iter_mut().enumerate() {
                assert!(array.len() == i && array.iter().all(|&x| x == 0));
                array.fill(i as u8);
            }
            assert!(large[0] == 0.0 && large[REGION / 4 + 2] == 0.0);
            large.fill(1.5);
            last[32] = 8;
            drop(arena);
            assert!(small.iter().enumerate().all(|(i, array)| array.iter().all(|&x| x == i as u8)));
            assert!(large.iter().all(|&x| x == 1.5));
            assert!(last[..32].iter().all(|&x| x == 7) && last[32] == 8);
        }
    }

    #[test]
    fn arrays_of_a_region_begin_at_cache_lines() {
        let mut arena = Arena::huge_pages().unwrap();
        for len in [1, 63, 64, 65] {
            let array = arena.zeroed::<u8>(len).unwrap();
            assert!((array.as_ptr() as usize).is_multiple_of(LINE));
        }
    }
}
