//! What packing weights takes.

use candle_core::{DType, Device, Tensor};
use kernels::linear::Linear;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with the sum of what it is asked for.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as asked for by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_matrix_is_packed_without_a_copy_on_the_way() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let matrix = Tensor::ones((512, 512), dtype, &Device::Cpu).unwrap();
        let before = BYTES.load(Ordering::Relaxed);
        let linear = Linear::from_tensor(&matrix).unwrap();
        let asked = BYTES.load(Ordering::Relaxed) - before;
        assert!(asked < linear.bytes() * 3 / 2, "{dtype:?}: {asked} of {}", linear.bytes());
    }
}
