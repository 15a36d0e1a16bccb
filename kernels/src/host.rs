//! Reading candle's processor tensors as slices, and splitting work over threads.

use candle_core::{Device, Result, Storage, Tensor, WithDType, bail};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whether operations on this device are this crate's own, rather than made of candle's tensor operations. The
/// feature `portable` has the processor use the latter, as Metal does, so that they are tested as a whole.
pub fn has_own(device: &Device) -> bool {
    device.is_cpu() && !cfg!(feature = "portable")
}

/// Calls `f` with the elements of a contiguous f32 tensor that lies in the processor's memory.
///
/// # Errors
/// Another device, type or a non-contiguous layout; `what` names the tensor.
pub fn with_f32<T>(t: &Tensor, what: &str, f: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    with_numbers(t, what, f)
}

/// As [`with_f32`], of any type.
///
/// # Errors
/// As there.
pub fn with_numbers<N: WithDType, T>(
    t: &Tensor,
    what: &str,
    f: impl FnOnce(&[N]) -> Result<T>,
) -> Result<T> {
    if t.dtype() != N::DTYPE {
        bail!("{what} must be {}, not {:?}", N::DTYPE.as_str(), t.dtype());
    }
    let (storage, layout) = t.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("{what} must be contiguous, not of strides {:?}", layout.stride());
    };
    match &*storage {
        Storage::Cpu(s) => f(&s.as_slice::<N>()?[start..end]),
        _ => bail!("{what} must lie in the processor's memory"),
    }
}

/// An output slice that several threads write at places that never overlap.
#[derive(Clone, Copy)]
pub struct Shared<T>(*mut T);

// SAFETY: the pointer is only a place; whoever writes through it vouches for disjointness.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// # Safety
    /// `index` must lie in the slice.
    #[inline(always)]
    pub unsafe fn at(self, index: usize) -> *mut T {
        unsafe { self.0.add(index) }
    }
}

/// Scalar operations below which waking threads costs more than they save.
const WORTH_WAKING: usize = 60_000;

/// Runs `f(i)` for `i < tasks`, on the thread pool unless the work is small (in scalar operations).
pub fn for_each_task(tasks: usize, operations: usize, f: impl Fn(usize) + Sync + Send) {
    if tasks <= 1 || operations < WORTH_WAKING {
        (0..tasks).for_each(f);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(f);
    }
}

/// Runs `f(i, piece)` for the pieces of `len` elements (the last may have fewer) of `all`, on the
/// thread pool unless the work is small (in scalar operations).
pub fn for_each_piece<T: Send>(
    all: &mut [T],
    len: usize,
    operations: usize,
    f: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    let len = len.max(1);
    let f = |(i, piece): (usize, &mut [T])| f(i, piece);
    if all.len() <= len || operations < WORTH_WAKING {
        all.chunks_mut(len).enumerate().for_each(f);
    } else {
        all.par_chunks_mut(len).enumerate().with_max_len(1).for_each(f);
    }
}

/// Splits `total` into ranges of at most `size`, all but the last of that size.
pub fn pieces(total: usize, size: usize) -> impl Fn(usize) -> std::ops::Range<usize> + Copy {
    move |i| i * size..((i + 1) * size).min(total)
}

/// For how long a thread is kept awake that finds nothing to do. This has to end: a thread may come to
/// [`wide_awake`]'s task in the middle of an operation, while it waits for a part that another has
/// taken; were it to stay until the work is done, both would wait for each other.
const IDLE: Duration = Duration::from_millis(1);

/// Runs `work`, a chain of many short operations, with all threads of the pool kept awake: between
/// two operations a thread of rayon's would fall asleep, and waking it costs as much as the next
/// operation itself.
pub fn wide_awake<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let done = &AtomicBool::new(false);
    rayon::scope(|scope| {
        let here = rayon::current_thread_index();
        scope.spawn_broadcast(move |_, thread| {
            let is_over = || Some(thread.index()) == here || done.load(Ordering::Relaxed);
            let mut busy = Instant::now();
            while !is_over() && busy.elapsed() < IDLE {
                match rayon::yield_now() {
                    Some(rayon::Yield::Executed) => busy = Instant::now(),
                    _ => std::hint::spin_loop(),
                }
            }
        });
        // Also when `work` panics, or the others would wait for ever.
        let _end = SetOnDrop(done);
        work()
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// With threads that stay awake until the end, one of some 40,000 rounds never ended.
    #[test]
    fn threads_that_are_kept_awake_never_wait_for_each_other() {
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            let part = |_| {
                (0..20_000).for_each(|i| {
                    std::hint::black_box(i);
                });
            };
            let operations =
                || (0..3).for_each(|_| (0..8).into_par_iter().with_max_len(1).for_each(part));
            (0..60_000).for_each(|_| pool.install(|| wide_awake(operations)));
            ended.send(())
        });
        let most = Duration::from_secs(300);
        assert!(end.recv_timeout(most).is_ok(), "threads wait for each other");
    }

    #[test]
    fn wide_awake_gives_what_the_work_gives_and_ends_when_it_panics() {
        let total = wide_awake(|| (0..1000u64).into_par_iter().sum::<u64>());
        assert_eq!(total, 499_500);
        let panics = catch_unwind(AssertUnwindSafe(|| wide_awake(|| -> () { panic!("as asked") })));
        assert!(panics.is_err());
    }
}
