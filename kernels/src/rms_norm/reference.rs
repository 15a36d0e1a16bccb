//! The definition, in f64.

/// Rows of `w.len()` columns.
pub fn rms_norm(x: &[f32], w: &[f32], eps: f64) -> Vec<f32> {
    x.chunks(w.len())
        .flat_map(|row| {
            let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean + eps).sqrt();
            row.iter().zip(w).map(move |(&v, &w)| (f64::from(v) * scale * f64::from(w)) as f32)
        })
        .collect()
}
