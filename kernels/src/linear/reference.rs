//! The definition, in f64.

/// `x` `[m, k]`, `w` `[n, k]`, to `[m, n]`.
pub fn linear(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| -> f32 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
    };
    x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| dot(x, w))).collect()
}

/// Rounds each block of 32 activations to 8 bits and back: what quantised weights are multiplied
/// by on the processor.
pub fn round_activations(x: &[f32]) -> Vec<f32> {
    x.chunks(32)
        .flat_map(|block| {
            let largest = block.iter().fold(0f32, |m, v| m.max(v.abs()));
            let scale = largest / 127.0;
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            block.iter().map(move |v| (v * inverse).round_ties_even() * scale)
        })
        .collect()
}
