//! Large zeroed memory.

use candle_core::{Error, Result};
use memmap2::MmapMut;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// `len` numbers that are zero at first. Memory is only taken where it is written, in huge pages
/// where the system has them: attention reads a few kilobytes here and there, and with pages of
/// 4 KiB each such piece costs a walk through the page tables.
#[derive(Debug)]
pub struct Memory<T> {
    map: MmapMut,
    len: usize,
    kind: PhantomData<T>,
}

/// Numbers for which all bytes zero, and any other bytes, are a value.
///
/// # Safety
/// Implemented for plain numbers only.
pub unsafe trait Plain: Copy {}

// SAFETY: any bits are a number.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}

impl<T: Plain> Memory<T> {
    /// # Errors
    /// The system does not give so much memory.
    pub fn zeroed(len: usize) -> Result<Self> {
        let map = MmapMut::map_anon((len * size_of::<T>()).max(1)).map_err(Error::wrap)?;
        // Without huge pages it works as well, only slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, len, kind: PhantomData })
    }
}

impl<T: Plain> Deref for Memory<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the map holds `len` values, starts at a page, and any bytes are a value.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and the map is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.len) }
    }
}
