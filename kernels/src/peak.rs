//! What this machine can do at most: loops of nothing but one operation, on all threads of the
//! pool at once. Benches set what they measure beside it.

use crate::simd::{Kernel, LANES, Simd, dispatch};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Rates of all threads together.
#[derive(Debug, Clone, Copy)]
pub struct Peak {
    /// Fused multiply-adds of f32, two operations each, per second / 10⁹.
    pub f32_gflops: f64,
    /// Products of bytes with their additions, two operations each, per second / 10⁹.
    pub int8_gops: f64,
    /// Reading memory that is in no cache, bytes per second / 10⁹.
    pub read_gb: f64,
}

/// Measures for about a second.
pub fn measure() -> Peak {
    const ROUNDS: usize = 4_000_000;
    let threads = rayon::current_num_threads();
    let rate = |operations: usize, work: &(dyn Fn(usize) -> f32 + Sync)| {
        let once = || {
            let start = Instant::now();
            let results: Vec<f32> =
                (0..threads).into_par_iter().with_max_len(1).map(work).collect();
            black_box(results);
            operations as f64 / start.elapsed().as_secs_f64() / 1e9
        };
        (0..5).map(|_| once()).fold(0.0, f64::max)
    };
    let numbers = vec![1f32; numbers_to_read(threads)];
    let part = numbers.len() / threads;
    let per_round = 2 * CHAINS * LANES * threads;
    Peak {
        f32_gflops: rate(ROUNDS * per_round, &|_| dispatch(Fma(black_box(0.5), ROUNDS))),
        int8_gops: rate(4 * ROUNDS * per_round, &|_| dispatch(Dot(black_box(1), ROUNDS))),
        read_gb: rate(4 * numbers.len(), &|i| dispatch(Read(&numbers[i * part..][..part]))),
    }
}

/// More than any cache holds, and no more than 1 GiB however many threads there are.
fn numbers_to_read(threads: usize) -> usize {
    (threads << 25).min(1 << 28)
}

/// Independent chains: enough to hide the latency of an operation.
const CHAINS: usize = 12;

/// A start value, and the number of rounds.
struct Fma(f32, usize);

impl Kernel for Fma {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        unsafe {
            let factor = S::splat(self.0);
            let mut chains = [factor; CHAINS];
            for (i, chain) in chains.iter_mut().enumerate() {
                *chain = S::splat(self.0 + i as f32);
            }
            for _ in 0..self.1 {
                for chain in &mut chains {
                    *chain = S::fma(*chain, factor, factor);
                }
            }
            let mut total = chains[0];
            for chain in &chains[1..] {
                total = S::add(total, *chain);
            }
            S::sum(total)
        }
    }
}

/// A start value, and the number of rounds.
struct Dot(i32, usize);

impl Kernel for Dot {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        unsafe {
            let weights = S::load_bytes([self.0 as u8; 64].as_ptr());
            let mut chains = [S::splat_i(0); CHAINS];
            for (i, chain) in chains.iter_mut().enumerate() {
                *chain = S::splat_i(self.0 + i as i32);
            }
            for _ in 0..self.1 {
                for chain in &mut chains {
                    *chain = S::dot4(*chain, weights, self.0);
                }
            }
            let mut total = S::to_f32(chains[0]);
            for chain in &chains[1..] {
                total = S::add(total, S::to_f32(*chain));
            }
            S::sum(total)
        }
    }
}

struct Read<'a>(&'a [f32]);

impl Kernel for Read<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        const STREAMS: usize = 4;
        unsafe {
            let mut sums = [S::splat(0.0); STREAMS];
            for line in self.0.chunks_exact(STREAMS * LANES) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::add(*sum, S::load(line.as_ptr().add(i * LANES)));
                }
            }
            S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_threads_read_no_more_memory_than_eight() {
        assert_eq!([1, 8, 192].map(|threads| numbers_to_read(threads) >> 18), [128, 1024, 1024]);
    }
}
