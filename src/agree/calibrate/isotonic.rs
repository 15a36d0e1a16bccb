//! Isotonic regression: the rising function that is nearest to points in squared error.

/// Pools adjacent violators (Ayer et al. 1955). Points are (x, y); those of equal x count as one at
/// the mean of their y. Returns the corners of the fit: x strictly rising, y rising, straight
/// between. Corners within a level stretch are left out. Empty of no points.
pub fn isotonic(points: &[(f64, f64)]) -> (Vec<f64>, Vec<f64>) {
    let distinct = distinct(points);
    let levels = pooled(&distinct);
    let corner = |i: &usize| {
        let ends = *i == 0 || *i + 1 == levels.len();
        ends || levels[*i] != levels[*i - 1] || levels[*i] != levels[*i + 1]
    };
    let corners = (0..levels.len()).filter(corner);
    corners.map(|i| (distinct[i].x, levels[i])).unzip()
}

/// Points of one x.
#[derive(Debug, Clone, Copy)]
struct Point {
    x: f64,
    mean: f64,
    weight: f64,
}

fn distinct(points: &[(f64, f64)]) -> Vec<Point> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let same = sorted.chunk_by(|a, b| a.0 == b.0);
    same.map(|group| {
        let weight = group.len() as f64;
        let mean = group.iter().map(|point| point.1).sum::<f64>() / weight;
        Point { x: group[0].0, mean, weight }
    })
    .collect()
}

/// The fitted value at each point.
fn pooled(points: &[Point]) -> Vec<f64> {
    // Stretches of one value: it, their weight, their points.
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for point in points {
        let mut block = (point.mean, point.weight, 1);
        while let Some(&(mean, weight, count)) = blocks.last().filter(|last| last.0 >= block.0) {
            let together = weight + block.1;
            block = ((mean * weight + block.0 * block.1) / together, together, count + block.2);
            blocks.pop();
        }
        blocks.push(block);
    }
    blocks.into_iter().flat_map(|(mean, _, count)| std::iter::repeat_n(mean, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violators_are_pooled() {
        let (from, to) = isotonic(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 4.0), (4.0, 6.0)]);
        assert_eq!((from, to), (vec![1.0, 2.0, 3.0, 4.0], vec![1.0, 2.5, 2.5, 5.0]));
        // Falling throughout: one level, of which the ends are enough.
        let falling: Vec<(f64, f64)> = (0..5).map(|i| (f64::from(i), f64::from(-i))).collect();
        assert_eq!(isotonic(&falling), (vec![0.0, 4.0], vec![-2.0, -2.0]));
        assert_eq!(isotonic(&[]), (vec![], vec![]));
        assert_eq!(isotonic(&[(0.5, 1.0), (0.5, 0.0)]), (vec![0.5], vec![0.5]));
    }
}
