//! Work in order: streams, places in them, and recorded work.

use super::device::{Allocation, Buffer, Element, Gpu, Pinned};
use super::error::{Error, Result, check, ensure};
use super::ffi;
use std::cell::RefCell;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// Work that runs in the order in which it was put here, while the host goes on.
#[derive(Debug)]
pub struct Stream {
    gpu: Gpu,
    handle: NonNull<ffi::Stream>,
    /// While it records: the memory that the work names.
    recorded: RefCell<Option<Vec<Arc<Allocation>>>>,
}

// SAFETY: the library's functions may be called from any thread, and `Stream` is not `Sync`.
unsafe impl Send for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: this is its only owner; the library finishes what is on it.
        unsafe { ffi::lr_gpu_stream_destroy(self.handle.as_ptr()) }
    }
}

impl Stream {
    /// An empty stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is a place for the result.
        check(unsafe { ffi::lr_gpu_stream_create(gpu.as_ptr(), &raw mut handle) })?;
        let handle = NonNull::new(handle).ok_or_else(|| Error("no stream".into()))?;
        Ok(Self { gpu: gpu.clone(), handle, recorded: RefCell::new(None) })
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::Stream {
        self.handle.as_ptr()
    }

    /// Remembers memory that work being recorded names.
    pub(super) fn name<T>(&self, buffer: &Buffer<T>) {
        if let Some(recorded) = self.recorded.borrow_mut().as_mut() {
            recorded.push(buffer.allocation.clone());
        }
    }

    /// Waits until all work is done.
    ///
    /// # Errors
    /// Work that failed, now or earlier.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the stream is alive.
        check(unsafe { ffi::lr_gpu_stream_wait(self.as_ptr()) })
    }

    /// Copies the first `len` numbers of `from` to the start of `to`, later; `from` must not be changed before the copy
    /// has been waited for.
    ///
    /// # Errors
    /// Arrays shorter than `len`, or a stream that failed.
    pub fn upload<T: Element>(&self, from: &Pinned<T>, to: &Buffer<T>, len: usize) -> Result<()> {
        self.upload_range(from, 0..len, to)
    }

    /// Copies a part of `from` to the start of `to`, as [`Stream::upload`].
    ///
    /// # Errors
    /// As [`Stream::upload`].
    pub fn upload_range<T: Element>(
        &self,
        from: &Pinned<T>,
        range: Range<usize>,
        to: &Buffer<T>,
    ) -> Result<()> {
        let fits = range.start <= range.end && range.end <= from.len() && range.len() <= to.len();
        ensure(fits, || format!("upload: {range:?} of {} numbers to {}", from.len(), to.len()))?;
        self.ensure_not_recording("upload")?;
        self.name(to);
        self.copy(to.ptr(), from[range.clone()].as_ptr().cast(), range.len() * size_of::<T>())
    }

    /// Copies the first `len` numbers of `from` to the start of `to`, later; they are there when the copy has been
    /// waited for.
    ///
    /// # Errors
    /// As [`Stream::upload`].
    pub fn download<T: Element>(
        &self,
        from: &Buffer<T>,
        to: &mut Pinned<T>,
        len: usize,
    ) -> Result<()> {
        ensure(len <= from.len() && len <= to.len(), || {
            format!("download: {len} of {} numbers to {}", from.len(), to.len())
        })?;
        self.ensure_not_recording("download")?;
        self.name(from);
        self.copy(to.as_mut_ptr().cast(), from.ptr(), len * size_of::<T>())
    }

    /// Copies the whole of `from` to the start of `to`, on the device.
    ///
    /// # Errors
    /// A shorter target, or a stream that failed.
    pub fn copy_buffer<T: Element>(&self, from: &Buffer<T>, to: &Buffer<T>) -> Result<()> {
        ensure(from.len() <= to.len(), || format!("copy: {} numbers to {}", from.len(), to.len()))?;
        self.name(from);
        self.name(to);
        self.copy(to.ptr(), from.ptr(), from.len() * size_of::<T>())
    }

    /// Sets all bytes.
    ///
    /// # Errors
    /// A stream that failed.
    pub fn fill<T: Element>(&self, buffer: &Buffer<T>, byte: u8) -> Result<()> {
        self.name(buffer);
        let bytes = (buffer.len() * size_of::<T>()) as u64;
        // SAFETY: the buffer has that many bytes.
        check(unsafe { ffi::lr_gpu_fill(self.as_ptr(), buffer.ptr(), byte, bytes) })
    }

    /// A graph would name memory of the host, which may be gone when it runs.
    fn ensure_not_recording(&self, what: &str) -> Result<()> {
        ensure(self.recorded.borrow().is_none(), || format!("{what}: not within a recording"))
    }

    fn copy(&self, to: *mut c_void, from: *const c_void, bytes: usize) -> Result<()> {
        // SAFETY: the callers checked both lengths; memory is freed only after a wait.
        check(unsafe { ffi::lr_gpu_copy(self.as_ptr(), to, from, bytes as u64) })
    }

    /// A buffer that holds `values`; waits for the copy. For weights and tests.
    ///
    /// # Errors
    /// Not enough memory, or a stream that failed.
    pub fn buffer_of<T: Element>(&self, values: &[T]) -> Result<Buffer<T>> {
        let buffer = self.gpu.alloc(values.len())?;
        self.write(&buffer, values)?;
        Ok(buffer)
    }

    /// Writes `values` to the start of `buffer`; waits for the copy.
    ///
    /// # Errors
    /// A shorter buffer, or a stream that failed.
    pub fn write<T: Element>(&self, buffer: &Buffer<T>, values: &[T]) -> Result<()> {
        ensure(values.len() <= buffer.len(), || {
            format!("write: {} numbers to {}", values.len(), buffer.len())
        })?;
        self.ensure_not_recording("write")?;
        self.copy(buffer.ptr(), values.as_ptr().cast(), size_of_val(values))?;
        self.wait()
    }

    /// The numbers of `buffer`; waits for all work before.
    ///
    /// # Errors
    /// Work that failed.
    pub fn read<T: Element>(&self, buffer: &Buffer<T>) -> Result<Vec<T>> {
        let mut pinned = self.gpu.alloc_pinned(buffer.len())?;
        self.download(buffer, &mut pinned, buffer.len())?;
        self.wait()?;
        Ok(pinned.to_vec())
    }

    /// Marks this place.
    ///
    /// # Errors
    /// The driver's.
    pub fn record(&self, event: &Event) -> Result<()> {
        // SAFETY: both are alive.
        check(unsafe { ffi::lr_gpu_event_record(self.as_ptr(), event.0.as_ptr()) })
    }

    /// What is put here from now on runs after the place that `event` marks.
    ///
    /// # Errors
    /// The driver's.
    pub fn follow(&self, event: &Event) -> Result<()> {
        // SAFETY: both are alive.
        check(unsafe { ffi::lr_gpu_event_follow(self.as_ptr(), event.0.as_ptr()) })
    }

    /// Records what `work` puts here, instead of running it. Numbers that operations take from the host become part of
    /// the recording; contents of buffers do not.
    ///
    /// # Errors
    /// Those of `work`, or work that can't be recorded (waiting, allocating).
    pub fn capture(&self, work: impl FnOnce(&Self) -> Result<()>) -> Result<Graph> {
        // SAFETY: the stream is alive.
        check(unsafe { ffi::lr_gpu_capture_begin(self.as_ptr()) })?;
        *self.recorded.borrow_mut() = Some(Vec::new());
        let worked = work(self);
        let mut graph = std::ptr::null_mut();
        // SAFETY: `graph` is a place for the result.
        let ended = check(unsafe { ffi::lr_gpu_capture_end(self.as_ptr(), &raw mut graph) });
        let memory = self.recorded.borrow_mut().take().unwrap_or_default();
        let graph = NonNull::new(graph).map(|handle| Graph {
            handle,
            _memory: memory,
            _gpu: self.gpu.clone(),
        });
        worked?;
        ended?;
        graph.ok_or_else(|| Error("no graph was recorded".into()))
    }

    /// Puts recorded work here.
    ///
    /// # Errors
    /// A stream that failed.
    pub fn launch(&self, graph: &Graph) -> Result<()> {
        // SAFETY: both are alive, and the graph holds the memory that its work names.
        check(unsafe { ffi::lr_gpu_graph_launch(self.as_ptr(), graph.handle.as_ptr()) })
    }
}

/// Recorded work, and the memory that it names.
#[derive(Debug)]
pub struct Graph {
    handle: NonNull<ffi::Graph>,
    _memory: Vec<Arc<Allocation>>,
    _gpu: Gpu,
}

// SAFETY: as of `Stream`.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: this is its only owner. (Its memory goes after it, which waits for work under way.)
        unsafe { ffi::lr_gpu_graph_destroy(self.handle.as_ptr()) }
    }
}

/// A place in a stream.
#[derive(Debug)]
pub struct Event(NonNull<ffi::Event>, #[allow(dead_code, reason = "keeps the GPU open")] Gpu);

// SAFETY: as of `Stream`.
unsafe impl Send for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: this is its only owner.
        unsafe { ffi::lr_gpu_event_destroy(self.0.as_ptr()) }
    }
}

impl Event {
    /// An event that marks no place yet.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is a place for the result.
        check(unsafe { ffi::lr_gpu_event_create(gpu.as_ptr(), &raw mut handle) })?;
        let handle = NonNull::new(handle).ok_or_else(|| Error("no event".into()))?;
        Ok(Self(handle, gpu.clone()))
    }

    /// The host waits until the place is reached.
    ///
    /// # Errors
    /// Work before it that failed.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the event is alive.
        check(unsafe { ffi::lr_gpu_event_wait(self.0.as_ptr()) })
    }

    /// Whether the place is reached.
    ///
    /// # Errors
    /// Work before it that failed.
    pub fn is_done(&self) -> Result<bool> {
        let mut done = 0;
        // SAFETY: `done` is a place for the result.
        check(unsafe { ffi::lr_gpu_event_done(self.0.as_ptr(), &raw mut done) })?;
        Ok(done != 0)
    }

    /// Milliseconds from `self` to `later`, both of which were waited for.
    ///
    /// # Errors
    /// A place that is not reached.
    pub fn milliseconds_to(&self, later: &Self) -> Result<f32> {
        let mut milliseconds = 0.0;
        // SAFETY: `milliseconds` is a place for the result.
        check(unsafe {
            ffi::lr_gpu_event_milliseconds(self.0.as_ptr(), later.0.as_ptr(), &raw mut milliseconds)
        })?;
        Ok(milliseconds)
    }
}
