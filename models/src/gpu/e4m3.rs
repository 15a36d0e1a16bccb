//! Rows of weights as 8-bit numbers (e4m3: OCP 8-bit Floating Point Specification, 2023), each with a factor that gives
//! the values back.

use float8::F8E4M3;
use rayon::prelude::*;

/// The largest number.
const LARGEST: f32 = 448.0;

/// Rounds rows of `k` numbers; a row's largest magnitude becomes the largest number there is. Gives
/// numbers and factors.
pub fn round_rows(numbers: &[f32], k: usize) -> (Vec<u8>, Vec<f32>) {
    let mut rounded = vec![0; numbers.len()];
    let rows = rounded.par_chunks_mut(k).zip(numbers.par_chunks(k));
    let factors = rows.map(|(to, row)| {
        let largest = row.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let factor = if largest > 0.0 { largest / LARGEST } else { 1.0 };
        to.iter_mut().zip(row).for_each(|(to, x)| *to = F8E4M3::from_f32(x / factor).to_bits());
        factor
    });
    let factors = factors.collect();
    (rounded, factors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_within_half_a_step() {
        let numbers: Vec<f32> = (0..64).map(|i| (i as f32 - 20.0) * 0.37).collect();
        let (rounded, factors) = round_rows(&numbers, 16);
        assert_eq!((rounded.len(), factors.len()), (64, 4));
        for (i, (&byte, x)) in rounded.iter().zip(&numbers).enumerate() {
            let back = F8E4M3::from_bits(byte).to_f32() * factors[i / 16];
            // Three bits of mantissa; below 2^-6 steps are those of 2^-6.
            let step = (x.abs() / 8.0).max(factors[i / 16] * 2f32.powi(-9));
            assert!((back - x).abs() <= step / 2.0 * 1.001, "{x} came back as {back}");
        }
        assert_eq!(round_rows(&[0.0; 16], 16), (vec![0; 16], vec![1.0]));
        let (rounded, factors) = round_rows(&[-7.0, 3.5], 2);
        assert_eq!((rounded, factors), (vec![0xFE, 0x76], vec![7.0 / 448.0]));
    }
}
