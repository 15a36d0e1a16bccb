//! Correlations.

use super::ratio;

/// Pearson's correlation. `None` of fewer than two items or where one side is constant.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    if is_constant(x) || is_constant(y) {
        return None;
    }
    let (x, y) = (centred(x), centred(y));
    let scale = (dot(&x, &x) * dot(&y, &y)).sqrt();
    Some(ratio(dot(&x, &y), scale)?.clamp(-1.0, 1.0))
}

/// Spearman's correlation: Pearson's of the ranks.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&ranks(x), &ranks(y))
}

/// The rank of each value, from 1; equal values share the mean of theirs.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let order = sorted_by(values.len(), |&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (tied.len() as f64 + 1.0) / 2.0;
        tied.iter().for_each(|&item| ranks[item] = rank);
        before += tied.len();
    }
    ranks
}

/// Kendall's tau-b (1945), which counts ties on either side, in n log n steps (Knight 1966). `None`
/// of fewer than two items or where one side is constant.
pub fn kendall(x: &[f64], y: &[f64]) -> Option<f64> {
    if is_constant(x) || is_constant(y) {
        return None;
    }
    let by_both = |&a: &usize, &b: &usize| x[a].total_cmp(&x[b]).then(y[a].total_cmp(&y[b]));
    let order = sorted_by(x.len(), by_both);
    let pairs = pairs_among(x.len());
    let tied_x = tied_pairs(&order, |a, b| x[a] == x[b]);
    let tied_both = tied_pairs(&order, |a, b| x[a] == x[b] && y[a] == y[b]);
    let mut in_order: Vec<f64> = order.iter().map(|&item| y[item]).collect();
    let discordant = sort_counting(&mut in_order);
    let by_y = sorted_by(y.len(), |&a, &b| y[a].total_cmp(&y[b]));
    let tied_y = tied_pairs(&by_y, |a, b| y[a] == y[b]);
    let concordant = pairs - tied_x - tied_y + tied_both - discordant;
    let scale = (pairs - tied_x).sqrt() * (pairs - tied_y).sqrt();
    Some(ratio(concordant - discordant, scale)?.clamp(-1.0, 1.0))
}

/// The correlation of `x` and `y` that remains when what `z` explains linearly is taken from both.
/// `None` where a correlation has no value or `z` explains one side wholly.
pub fn partial(x: &[f64], y: &[f64], z: &[f64]) -> Option<f64> {
    let (xy, xz, yz) = (pearson(x, y)?, pearson(x, z)?, pearson(y, z)?);
    let left = (1.0 - xz * xz) * (1.0 - yz * yz);
    // What rounding leaves of a perfect correlation is none.
    if left < 1e-14 {
        return None;
    }
    Some(((xy - xz * yz) / left.sqrt()).clamp(-1.0, 1.0))
}

/// True of fewer than two values as well.
fn is_constant(values: &[f64]) -> bool {
    values.windows(2).all(|pair| pair[0] == pair[1])
}

fn centred(values: &[f64]) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| value - mean).collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn sorted_by(
    items: usize,
    compare: impl FnMut(&usize, &usize) -> std::cmp::Ordering,
) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items).collect();
    order.sort_by(compare);
    order
}

fn pairs_among(items: usize) -> f64 {
    items as f64 * (items as f64 - 1.0) / 2.0
}

/// Pairs of items within runs of equal ones.
fn tied_pairs(order: &[usize], equal: impl Fn(usize, usize) -> bool) -> f64 {
    order.chunk_by(|&a, &b| equal(a, b)).map(|run| pairs_among(run.len())).sum()
}

/// Sorts by merging and counts the pairs that stood in the wrong order.
fn sort_counting(values: &mut [f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let (left, right) = values.split_at_mut(values.len() / 2);
    let mut wrong = sort_counting(left) + sort_counting(right);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if r == right.len() || (l < left.len() && left[l] <= right[r]) {
            merged.push(left[l]);
            l += 1;
        } else {
            // It passes all that is left on the left.
            wrong += (left.len() - l) as f64;
            merged.push(right[r]);
            r += 1;
        }
    }
    values.copy_from_slice(&merged);
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tied_values_share_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert_eq!(ranks(&[]), Vec::<f64>::new());
    }

    #[test]
    fn constants_and_single_items_have_no_correlation() {
        let (varied, constant) = ([1.0, 2.0, 4.0], [0.1, 0.1, 0.1]);
        for correlation in [pearson, spearman, kendall] {
            assert_eq!(correlation(&varied, &constant), None);
            assert_eq!(correlation(&[1.0], &[2.0]), None);
            assert_eq!(correlation(&[], &[]), None);
            assert!((correlation(&varied, &[1.0, 3.0, 9.0]).unwrap() - 1.0).abs() < 0.02);
        }
    }

    #[test]
    fn what_the_third_explains_wholly_leaves_nothing() {
        let x = [1.0, 2.0, 3.0, 5.0];
        assert_eq!(partial(&x, &[2.0, 1.0, 4.0, 3.0], &x), None);
        // x and y correlate through z alone: y's own part is uncorrelated with x's.
        let z = [0.0, 0.0, 1.0, 1.0];
        let remains = partial(&[0.0, 1.0, 2.0, 3.0], &[0.0, 1.0, 3.0, 2.0], &z).unwrap();
        assert!(remains.abs() < 1e-12, "{remains}");
    }

    /// By comparing every pair.
    fn kendall_slowly(x: &[f64], y: &[f64]) -> Option<f64> {
        let sign = |a: f64, b: f64| f64::from(i8::from(a > b) - i8::from(a < b));
        let (mut sum, mut x_pairs, mut y_pairs) = (0.0, 0.0, 0.0);
        for i in 0..x.len() {
            for j in 0..i {
                let (dx, dy) = (sign(x[i], x[j]), sign(y[i], y[j]));
                sum += dx * dy;
                x_pairs += dx * dx;
                y_pairs += dy * dy;
            }
        }
        let scale = f64::sqrt(x_pairs * y_pairs);
        (scale > 0.0).then(|| sum / scale)
    }

    proptest! {
        #[test]
        fn kendall_equals_its_definition(
            items in prop::collection::vec((0u8..6, 0u8..6), 0..30),
        ) {
            let x: Vec<f64> = items.iter().map(|item| f64::from(item.0)).collect();
            let y: Vec<f64> = items.iter().map(|item| f64::from(item.1)).collect();
            match (kendall(&x, &y), kendall_slowly(&x, &y)) {
                (Some(a), Some(b)) => prop_assert!((a - b).abs() < 1e-12, "{} {}", a, b),
                (a, b) => prop_assert_eq!(a, b),
            }
        }
    }
}
