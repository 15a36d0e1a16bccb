//! Centre and spread of some numbers.

/// The mean; `None` of no values.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The median, of an even number of values the mean of the middle two; `None` of no values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    let lower = upper.saturating_sub(usize::from(sorted.len().is_multiple_of(2)));
    sorted.get(lower..=upper).and_then(mean)
}

/// The standard deviation with n - 1 in the denominator; `None` of fewer than two values.
pub(crate) fn standard_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centre_and_spread() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!((mean(&values), median(&values)), (Some(2.5), Some(2.5)));
        assert!((standard_deviation(&values).unwrap() - 1.2909944487358056).abs() < 1e-12);
        assert_eq!((median(&values[..3]), median(&[7.0])), (Some(3.0), Some(7.0)));
        assert_eq!((mean(&[]), median(&[]), standard_deviation(&[1.0])), (None, None, None));
    }
}
