//! What a GPU can do at most: its library's matrix product, and copying.

use half::bf16;
use kernels::gpu::{Buffer, Event, Gemm, Gpu, Numbers, Output, Result, Stream, gemm};
use kernels::peak::Peak;

/// Side of the matrices.
const SIDE: usize = 8192;

/// Bytes of a copy, far beyond any cache.
const COPIED: usize = 2 << 30;

const REPEATS: usize = 10;

/// The rate of products of bf16 (in place of f32: the GPU computes nothing large in f32), none of
/// bytes, and bytes read and written by copies. Takes 3 GB for a moment; a played GPU is not fast
/// enough to be measured with more than a little.
///
/// # Errors
/// Not enough memory.
pub fn peak(gpu: &Gpu) -> Result<Peak> {
    let is_played = gpu.properties()?.emulated;
    let (side, bytes) = if is_played { (64, 1 << 20) } else { (SIDE, COPIED / 2) };
    let stream = Stream::new(gpu)?;
    let (x, w) = (matrix(&stream, side)?, matrix(&stream, side)?);
    let out = Numbers::Bf16(gpu.alloc(side * side)?);
    let product = Gemm {
        x: &Output::Bf16(x),
        w: &Output::Bf16(w),
        bias: None,
        out: &out,
        m: side,
        n: side,
        k: side,
        same_for_all_m: false,
        narrow: false,
    };
    let seconds = fastest(&stream, || gemm(&stream, &product))?;
    let (from, to) = (gpu.alloc::<u8>(bytes)?, gpu.alloc::<u8>(bytes)?);
    stream.fill(&from, 0)?;
    let copying = fastest(&stream, || stream.copy_buffer(&from, &to))?;
    Ok(Peak {
        f32_gflops: 2.0 * (side as f64).powi(3) / seconds / 1e9,
        int8_gops: 0.0,
        read_gb: 2.0 * bytes as f64 / copying / 1e9,
    })
}

/// Numbers that look random: a card's clock depends on how many bits flip.
fn matrix(stream: &Stream, side: usize) -> Result<Buffer<bf16>> {
    let number = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 16;
    let values = (0..side * side).map(|i| bf16::from_f32(number(i) as f32 / 32768.0 - 1.0));
    stream.buffer_of(&values.collect::<Vec<_>>())
}

/// Seconds of the fastest run.
fn fastest(stream: &Stream, work: impl Fn() -> Result<()>) -> Result<f64> {
    let (start, end) = (Event::new(stream.gpu())?, Event::new(stream.gpu())?);
    let mut fastest = f64::INFINITY;
    for _ in 0..REPEATS {
        stream.record(&start)?;
        work()?;
        stream.record(&end)?;
        end.wait()?;
        fastest = fastest.min(f64::from(start.milliseconds_to(&end)?) / 1e3);
    }
    Ok(fastest.max(1e-9))
}
