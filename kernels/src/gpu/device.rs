//! A GPU, its memory, and memory of the host that it can copy from and to on its own.

use super::error::{Error, Result, check, ensure};
use super::ffi;
use half::bf16;
use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

/// An open GPU. Clones are the same GPU, which closes with the last buffer or stream.
#[derive(Debug, Clone)]
pub struct Gpu {
    pub(super) handle: Arc<Handle>,
}

#[derive(Debug)]
pub(super) struct Handle(pub(super) NonNull<ffi::Gpu>);

// SAFETY: the library's functions may be called from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above; what is not safe to do at once (putting work on one stream) needs `&mut` or a `!Sync` type.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the last owner closes it, and all memory and streams hold an owner.
        unsafe { ffi::lr_gpu_close(self.0.as_ptr()) }
    }
}

/// What a GPU is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    pub name: String,
    pub multiprocessors: usize,
    /// Compute capability: 90 is 9.0.
    pub capability: u32,
    /// Bytes that one block of threads can have.
    pub shared_memory: usize,
    pub l2_bytes: usize,
    /// Whether this is the processor, playing a GPU.
    pub emulated: bool,
}

/// Device memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub free: u64,
    pub total: u64,
}

impl Gpu {
    /// Opens the GPU with this number.
    ///
    /// # Errors
    /// No such GPU, one that this build has no kernels for, or no driver or matrix library: the text says what is missing.
    pub fn open(index: usize) -> Result<Self> {
        let index =
            i32::try_from(index).map_err(|_| Error(format!("there is no device {index}")))?;
        let mut gpu = std::ptr::null_mut();
        // SAFETY: `gpu` is a place for the result.
        check(unsafe { ffi::lr_gpu_open(index, &raw mut gpu) })?;
        Ok(Self { handle: Arc::new(Handle(some(gpu)?)) })
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::Gpu {
        self.handle.0.as_ptr()
    }

    /// What this GPU is.
    ///
    /// # Errors
    /// The driver's.
    pub fn properties(&self) -> Result<Properties> {
        let mut p = ffi::Properties::default();
        // SAFETY: `p` is a place for the result.
        check(unsafe { ffi::lr_gpu_describe(self.as_ptr(), &raw mut p) })?;
        // SAFETY: the library ends the name with a zero.
        let name = unsafe { CStr::from_ptr(p.name.as_ptr()) };
        Ok(Properties {
            name: name.to_string_lossy().into_owned(),
            multiprocessors: p.multiprocessors as usize,
            capability: p.capability,
            shared_memory: p.shared_memory as usize,
            l2_bytes: p.l2_bytes as usize,
            emulated: p.emulated != 0,
        })
    }

    /// Free and total memory now.
    ///
    /// # Errors
    /// The driver's.
    pub fn memory(&self) -> Result<Memory> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both are places for results.
        check(unsafe { ffi::lr_gpu_memory(self.as_ptr(), &raw mut free, &raw mut total) })?;
        Ok(Memory { free, total })
    }

    /// Room for `len` numbers, whose values are undefined.
    ///
    /// # Errors
    /// Not enough memory: the text says how much was wanted and how much is free.
    pub fn alloc<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        let bytes = (len * size_of::<T>()) as u64;
        let mut memory = std::ptr::null_mut();
        // SAFETY: `memory` is a place for the result.
        check(unsafe { ffi::lr_gpu_alloc(self.as_ptr(), bytes.max(1), &raw mut memory) })?;
        let allocation = Allocation { gpu: self.clone(), memory: some(memory)? };
        Ok(Buffer { allocation: Arc::new(allocation), offset: 0, len, element: PhantomData })
    }

    /// Memory of the host for `len` numbers, all zero, that copies can be made from and to while the host goes on.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn alloc_pinned<T: Element>(&self, len: usize) -> Result<Pinned<T>> {
        let bytes = (len * size_of::<T>()).max(1);
        let mut memory = std::ptr::null_mut();
        // SAFETY: `memory` is a place for the result.
        check(unsafe { ffi::lr_gpu_alloc_pinned(self.as_ptr(), bytes as u64, &raw mut memory) })?;
        let memory = some(memory)?;
        // SAFETY: `bytes` bytes were just given out, and nobody else knows of them.
        unsafe { memory.cast::<u8>().write_bytes(0, bytes) };
        Ok(Pinned { gpu: self.clone(), memory: memory.cast(), len })
    }
}

fn some<T>(pointer: *mut T) -> Result<NonNull<T>> {
    NonNull::new(pointer).ok_or_else(|| Error("the library returned no address".into()))
}

/// Plain numbers, or structures of them, that mean the same on host and device.
///
/// # Safety
/// Every pattern of bits must be a value, there must be no padding, and nothing to drop.
pub unsafe trait Element: Copy + Send + Sync + 'static {}

macro_rules! elements {
    ($($t:ty),*) => {
        // SAFETY: numbers: any bits are a value.
        $(unsafe impl Element for $t {})*
    };
}
elements!(u8, u32, i32, u64, f32, f64, bf16);

#[derive(Debug)]
pub(super) struct Allocation {
    gpu: Gpu,
    memory: NonNull<c_void>,
}

// SAFETY: device memory is reached only by the device, through work on streams.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: the library waits for work that is under way; graphs that name the memory hold an owner of it.
        unsafe { ffi::lr_gpu_free(self.gpu.as_ptr(), self.memory.as_ptr()) }
    }
}

/// An array in device memory, or a part of one; clones are the same memory, which is freed with the last of them.
///
/// The host never reads or writes it, so that sharing it is safe; what order the device does so in is the order of the
/// stream.
#[derive(Debug)]
pub struct Buffer<T> {
    pub(super) allocation: Arc<Allocation>,
    /// In bytes.
    offset: usize,
    len: usize,
    element: PhantomData<T>,
}

impl<T> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        let Self { offset, len, element, .. } = *self;
        Self { allocation: self.allocation.clone(), offset, len, element }
    }
}

impl<T: Element> Buffer<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of it.
    ///
    /// # Panics
    /// A range beyond the end, as of a slice. (Operations want parts to begin at multiples of 16 bytes.)
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        let allocation = self.allocation.clone();
        Self {
            allocation,
            offset: self.offset + range.start * size_of::<T>(),
            len: range.len(),
            element: PhantomData,
        }
    }

    /// The address on the device.
    pub(super) fn ptr(&self) -> *mut c_void {
        self.allocation.memory.as_ptr().wrapping_byte_add(self.offset)
    }
}

impl Buffer<u8> {
    /// The numbers that lie in a range of bytes.
    ///
    /// # Panics
    /// A range beyond the end, or one that begins or ends within a number.
    pub fn part<T: Element>(&self, bytes: Range<usize>) -> Buffer<T> {
        let size = size_of::<T>();
        let part = self.slice(bytes);
        let address = part.ptr() as usize;
        assert!(part.len.is_multiple_of(size) && address.is_multiple_of(align_of::<T>()));
        let Buffer { allocation, offset, len, .. } = part;
        Buffer { allocation, offset, len: len / size, element: PhantomData }
    }
}

/// The bytes of numbers.
pub fn bytes_of<T: Element>(numbers: &[T]) -> &[u8] {
    // SAFETY: there is no padding in an `Element`, and any bits are a `u8`.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// An array in host memory that the device can copy from and to by itself.
///
/// Copies from and to it run later than the call that asks for them ([`super::Stream::upload`]): until their stream was
/// waited for, the array must be left alone. Freeing it waits.
#[derive(Debug)]
pub struct Pinned<T> {
    gpu: Gpu,
    memory: NonNull<T>,
    len: usize,
}

// SAFETY: it owns its memory, like a `Vec`.
unsafe impl<T: Element> Send for Pinned<T> {}
// SAFETY: as above.
unsafe impl<T: Element> Sync for Pinned<T> {}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: the memory was given out by this function's counterpart, and the library waits for copies.
        unsafe { ffi::lr_gpu_free_pinned(self.gpu.as_ptr(), self.memory.as_ptr().cast()) }
    }
}

impl<T: Element> Deref for Pinned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements are there and were set; any bits are a value.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` is the only way to it on the host.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

/// The address of an optional buffer.
pub(super) fn ptr_or_null<T: Element>(buffer: Option<&Buffer<T>>) -> *mut c_void {
    buffer.map_or(std::ptr::null_mut(), Buffer::ptr)
}

/// That a buffer holds at least `len` elements.
pub(super) fn ensure_len<T: Element>(buffer: &Buffer<T>, len: usize, what: &str) -> Result<()> {
    ensure(buffer.len() >= len, || format!("{what}: {} numbers, {len} needed", buffer.len()))
}
