//! Numbers about columns of numbers.

pub use crate::agree::metrics::pearson;
pub(super) use crate::statistics::{mean, median, standard_deviation as deviation};

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
