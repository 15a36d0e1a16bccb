//! The definition, in f64, on contiguous keys and values of one sequence.

/// `q` is `[rows, heads, d]`, the last rows of a sequence of `len` tokens; `k` and `v` are
/// `[len, kv_heads, d]`. Gives `[rows, heads, d]`.
pub fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    heads: usize,
    kv_heads: usize,
    d: usize,
    scale: f32,
) -> Vec<f32> {
    let (rows, len) = (q.len() / heads / d, k.len() / kv_heads / d);
    let mut out = Vec::with_capacity(q.len());
    for row in 0..rows {
        for head in 0..heads {
            let q = &q[(row * heads + head) * d..][..d];
            let kv_head = head / (heads / kv_heads);
            let of =
                |x: &'_ [f32], p: usize, i: usize| f64::from(x[(p * kv_heads + kv_head) * d + i]);
            let seen = len - rows + row + 1;
            let scores: Vec<f64> = (0..seen)
                .map(|p| (0..d).map(|i| f64::from(q[i]) * of(k, p, i)).sum::<f64>())
                .map(|s| s * f64::from(scale))
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..d).map(|i| {
                let sum: f64 = weights.iter().enumerate().map(|(p, w)| w * of(v, p, i)).sum();
                (sum / total) as f32
            }));
        }
    }
    out
}
