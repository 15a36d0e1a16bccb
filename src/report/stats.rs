//! Numbers about columns of numbers.

/// The mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation of a sample; `None` of fewer than two values.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The median, of an even number of values the mean of the middle two; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Pearson's correlation; `None` where one of the columns is constant.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    let (mean_x, mean_y) = (mean(x)?, mean(y)?);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        let (a, b) = (a - mean_x, b - mean_y);
        xx += a * a;
        yy += b * b;
        xy += a * b;
    }
    let scale = (xx * yy).sqrt();
    (scale > 1e-12).then(|| xy / scale)
}

/// Equal bins from `low` on; what lies outside is counted in the first or last.
#[derive(Debug, Clone, Copy)]
pub struct Bins {
    pub low: f64,
    pub width: f64,
    pub count: usize,
}

impl Bins {
    /// The bin of a value.
    pub fn of(&self, value: f64) -> usize {
        // A cast of a negative number gives 0.
        (((value - self.low) / self.width) as usize).min(self.count - 1)
    }

    /// Where a bin begins.
    pub fn start(&self, bin: usize) -> f64 {
        self.low + self.width * bin as f64
    }

    pub fn histogram(&self, values: &[f64]) -> Vec<usize> {
        let mut counts = vec![0; self.count];
        values.iter().for_each(|&value| counts[self.of(value)] += 1);
        counts
    }
}

/// How many points fall into each cell of a grid; empty cells are left out. In the order of x,
/// then y.
pub fn grid(x: &[f64], y: &[f64], bins_x: Bins, bins_y: Bins) -> Vec<(usize, usize, usize)> {
    let mut counts = vec![0; bins_x.count * bins_y.count];
    for (&a, &b) in x.iter().zip(y) {
        counts[bins_x.of(a) * bins_y.count + bins_y.of(b)] += 1;
    }
    let cells = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
    cells.map(|(cell, count)| (cell / bins_y.count, cell % bins_y.count, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centre_and_spread() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!((mean(&values), median(&values)), (Some(2.5), Some(2.5)));
        assert!((deviation(&values).unwrap() - 1.2909944487358056).abs() < 1e-12);
        assert_eq!(median(&values[..3]), Some(3.0));
        assert_eq!((mean(&[]), median(&[]), deviation(&[1.0])), (None, None, None));
    }

    #[test]
    fn correlation() {
        let x = [1.0, 2.0, 3.0, 5.0];
        assert!((pearson(&x, &[2.0, 4.0, 6.0, 10.0]).unwrap() - 1.0).abs() < 1e-12);
        assert!((pearson(&x, &[4.0, 1.0, 3.0, 2.0]).unwrap() + 0.3779644730092272).abs() < 1e-12);
        assert_eq!(pearson(&x, &[7.0; 4]), None);
    }

    #[test]
    fn ratings_are_counted_around_whole_numbers() {
        let bins = Bins { low: -0.5, width: 1.0, count: 11 };
        let counts = bins.histogram(&[0.0, 0.49, 0.5, 6.67, 10.0, 11.0, -3.0]);
        assert_eq!(counts, [3, 1, 0, 0, 0, 0, 0, 1, 0, 0, 2]);
        assert_eq!(bins.start(10), 9.5);
    }

    #[test]
    fn a_grid_holds_every_point() {
        let bins = Bins { low: 0.0, width: 1.0, count: 3 };
        let cells = grid(&[0.1, 0.2, 2.5], &[1.0, 1.9, 9.0], bins, bins);
        assert_eq!(cells, [(0, 1, 2), (2, 2, 1)]);
    }
}
