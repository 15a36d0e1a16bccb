//! Agreement among several annotators.

use super::{mean, ratio};

/// Fleiss' kappa (1971). `votes[item][class]` counts annotators. Items may have different numbers
/// of annotators (each item counts the same, each vote counts the same for the shares of classes);
/// those with fewer than two are left out. `None` if no item is left or all votes are for one
/// class.
pub fn fleiss_kappa(votes: &[Vec<usize>]) -> Option<f64> {
    let items: Vec<&Vec<usize>> = votes.iter().filter(|item| count(item) > 1).collect();
    let agreement: Vec<f64> = items.iter().filter_map(|item| agreement(item)).collect();
    let all: usize = items.iter().map(|item| count(item)).sum();
    let classes = items.iter().map(|item| item.len()).max()?;
    let share = |class: usize| {
        let votes: usize = items.iter().filter_map(|item| item.get(class)).sum();
        votes as f64 / all as f64
    };
    // One class takes all votes exactly when its share is 1.
    let by_chance: f64 = (0..classes).map(|class| share(class).powi(2)).sum();
    ratio(mean(&agreement)? - by_chance, 1.0 - by_chance)
}

fn count(item: &[usize]) -> usize {
    item.iter().sum()
}

/// The share of pairs of annotators that agree on an item.
fn agreement(item: &[usize]) -> Option<f64> {
    let pairs = |n: usize| (n * n.saturating_sub(1)) as f64;
    ratio(item.iter().map(|&votes| pairs(votes)).sum(), pairs(count(item)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_agreement_is_one_and_one_class_has_none() {
        assert_eq!(fleiss_kappa(&[vec![3, 0], vec![0, 3]]), Some(1.0));
        assert_eq!(fleiss_kappa(&[vec![3, 0], vec![2, 0]]), None);
        assert_eq!(fleiss_kappa(&[vec![1, 0], vec![0, 1]]), None);
        assert_eq!(fleiss_kappa(&[]), None);
    }

    #[test]
    fn numbers_of_annotators_may_differ() {
        // Agreement 1 and 1/3; shares 3/5 and 2/5, so 0.52 by chance.
        let kappa = fleiss_kappa(&[vec![2, 0], vec![1, 2], vec![1, 0]]).unwrap();
        assert!((kappa - (2.0 / 3.0 - 0.52) / 0.48).abs() < 1e-12);
    }
}
