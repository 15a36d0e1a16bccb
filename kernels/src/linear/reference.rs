//! The definition, in f64.

/// `x` `[m, k]`, `w` `[n, k]`, to `[m, n]`.
pub fn linear(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| -> f32 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
    };
    x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| dot(x, w))).collect()
}

/// Rounds rows of `k` activations to what quantised weights are multiplied by on the processor: 8
/// bits for each block of 32, and 8 more where a block's scale is above twice the row's mean.
pub fn round_activations(x: &[f32], k: usize) -> Vec<f32> {
    x.chunks(k).flat_map(round_row).collect()
}

fn round_row(row: &[f32]) -> Vec<f32> {
    let largest = |block: &[f32]| block.iter().fold(0f32, |m, v| m.max(v.abs()));
    let scales: Vec<f32> = row.chunks(32).map(|block| largest(block) / 127.0).collect();
    let limit = 2.0 * (scales.iter().sum::<f32>() / scales.len() as f32);
    let round = |(block, &scale): (&[f32], &f32)| -> Vec<f32> {
        let inverse = if scale > 0.0 { 127.0 / largest(block) } else { 0.0 };
        let steps = if scale > limit { 128.0 } else { 1.0 };
        let value = |x: &f32| {
            let coarse = (x * inverse).round_ties_even();
            let rest = ((x * inverse - coarse) * steps).round_ties_even() / steps;
            (coarse + rest) * scale
        };
        block.iter().map(value).collect()
    };
    row.chunks(32).zip(&scales).flat_map(round).collect()
}
