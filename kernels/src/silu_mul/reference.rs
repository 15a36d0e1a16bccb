//! The definition, in f64.

/// Rows of `2 f` columns in, of `f` columns out.
pub fn silu_mul(gate_up: &[f32], f: usize) -> Vec<f32> {
    gate_up
        .chunks(2 * f)
        .flat_map(|row| {
            (0..f).map(move |i| {
                let gate = f64::from(row[i]);
                (gate / (1.0 + (-gate).exp()) * f64::from(row[f + i])) as f32
            })
        })
        .collect()
}
