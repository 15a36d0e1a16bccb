//! What each kernel reaches on this GPU, as a share of what the GPU reaches at all:
//! `cargo bench -p kernels --features cuda --bench gpu [-- FILTER...]`.
//!
//! The limits are measured first, in the same run: a large matrix product, and a large copy (bytes read plus written).
//! Each line counts the operations and bytes that the work needs at least; `share` is the larger of the two times they
//! take at the limits over the time measured. Every measurement is the median of several graph launches with inputs that no
//! cache holds. Each line is printed as a JSON object as well, to the file that `GPU_BENCH_JSON` names.

#[cfg(any(feature = "cuda", feature = "emulated-gpu"))]
mod attention;
#[cfg(any(feature = "cuda", feature = "emulated-gpu"))]
mod measure;
#[cfg(any(feature = "cuda", feature = "emulated-gpu"))]
mod operations;
#[cfg(any(feature = "cuda", feature = "emulated-gpu"))]
#[path = "../../tests/gpu/planned.rs"]
mod planned;

#[cfg(any(feature = "cuda", feature = "emulated-gpu"))]
fn main() -> kernels::gpu::Result<()> {
    let mut bench = measure::Bench::new()?;
    operations::run(&mut bench)?;
    attention::run(&mut bench)
}

#[cfg(not(any(feature = "cuda", feature = "emulated-gpu")))]
fn main() {
    println!("nothing to measure: build with --features cuda");
}
