//! How much a measure would vary with other items: percentile intervals of the bootstrap (Efron
//! 1979).

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A measure with its 95 % interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// `None` where the measure has no value.
    pub value: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// Measures by name.
pub type Metrics = BTreeMap<String, Estimate>;

/// The generator SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Debug, Clone)]
pub struct SplitMix(pub u64);

impl SplitMix {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.draw()) * bound as u128) >> 64) as usize
    }
}

/// How intervals are made. The same seed draws the same items, so that measures on the same items
/// vary together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// 0 leaves all intervals out.
    pub resamples: usize,
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, seed: 0 }
    }
}

impl Bootstrap {
    /// The measures of all items, each with the interval from the 2.5th to the 97.5th percentile
    /// of its values on resamples. `clusters` are the items that are drawn together, with
    /// replacement: one each, or those of one prompt. `measure` takes the items of a sample, some
    /// of them more than once, and names its measures always in the same order. Resamples in which
    /// a measure has no value don't count for it; if that is more than half of them, it has no
    /// interval. Nor has it one where there is nothing to draw from: a single cluster.
    pub fn estimate(
        &self,
        clusters: &[Vec<usize>],
        measure: impl Fn(&[usize]) -> Vec<(&'static str, Option<f64>)>,
    ) -> Metrics {
        self.estimate_strata(&[clusters], measure)
    }

    /// As [`Bootstrap::estimate`], for clusters of several groups: a resample has as many of each
    /// group as there are.
    pub fn estimate_strata(
        &self,
        strata: &[&[Vec<usize>]],
        measure: impl Fn(&[usize]) -> Vec<(&'static str, Option<f64>)>,
    ) -> Metrics {
        let values = measure(&strata.concat().concat());
        let mut drawn: Vec<Vec<f64>> = vec![Vec::new(); values.len()];
        let mut random = SplitMix(self.seed);
        for _ in 0..self.resamples {
            let drawn_items = strata.iter().flat_map(|clusters| resample(clusters, &mut random));
            let sample = measure(&drawn_items.collect::<Vec<usize>>());
            for (drawn, (_, value)) in drawn.iter_mut().zip(sample) {
                drawn.extend(value);
            }
        }
        let varied = strata.iter().any(|clusters| clusters.len() > 1);
        let estimates = values.into_iter().zip(drawn).map(|((name, value), mut drawn)| {
            let interval = self.interval(&mut drawn).filter(|_| value.is_some() && varied);
            let (low, high) = interval.unzip();
            (name.to_owned(), Estimate { value, low, high })
        });
        estimates.collect()
    }

    fn interval(&self, drawn: &mut [f64]) -> Option<(f64, f64)> {
        if drawn.is_empty() || drawn.len() * 2 < self.resamples {
            return None;
        }
        drawn.sort_unstable_by(f64::total_cmp);
        Some((quantile(drawn, 0.025), quantile(drawn, 0.975)))
    }
}

/// As many clusters as there are, drawn with replacement.
fn resample(clusters: &[Vec<usize>], random: &mut SplitMix) -> Vec<usize> {
    let draw = |_| clusters[random.below(clusters.len())].iter().copied();
    (0..clusters.len()).flat_map(draw).collect()
}

/// Linear between the two nearest of sorted values, as numpy has it by default.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// The items of each key, in the order in which keys first come up.
pub fn clusters<K: Hash + Eq>(keys: impl IntoIterator<Item = K>) -> Vec<Vec<usize>> {
    let mut places = HashMap::new();
    let mut clusters: Vec<Vec<usize>> = Vec::new();
    for (item, key) in keys.into_iter().enumerate() {
        let place = *places.entry(key).or_insert(clusters.len());
        if place == clusters.len() {
            clusters.push(Vec::new());
        }
        clusters[place].push(item);
    }
    clusters
}

/// Clusters of some of the items; those that have none of them are left out.
pub fn only(clusters: &[Vec<usize>], wanted: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
    let some = clusters
        .iter()
        .map(|items| items.iter().copied().filter(|&item| wanted(item)).collect::<Vec<usize>>());
    some.filter(|items| !items.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::mean;
    use super::*;

    fn estimate(values: &[f64], keys: &[u32], resamples: usize) -> Estimate {
        let measure = |items: &[usize]| {
            let drawn: Vec<f64> = items.iter().map(|&item| values[item]).collect();
            vec![("mean", mean(&drawn))]
        };
        let bootstrap = Bootstrap { resamples, seed: 3 };
        bootstrap.estimate(&clusters(keys), measure)["mean"]
    }

    #[test]
    fn the_interval_of_a_mean_is_about_two_standard_errors() {
        // 400 of 1000 ones: standard error 0.0155.
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i % 5 < 2)).collect();
        let keys: Vec<u32> = (0..1000).collect();
        let Estimate { value, low, high } = estimate(&values, &keys, 1000);
        assert_eq!(value, Some(0.4));
        assert!((low.unwrap() - 0.370).abs() < 0.005 && (high.unwrap() - 0.430).abs() < 0.005);
        assert_eq!(estimate(&values, &keys, 1000), Estimate { value, low, high });
    }

    #[test]
    fn a_single_cluster_has_no_interval() {
        let alone = estimate(&[1.0, 0.0], &[7, 7], 100);
        assert_eq!(alone, Estimate { value: Some(0.5), low: None, high: None });
    }

    #[test]
    fn clusters_stay_together() {
        // All items of one cluster are equal, so that 2 clusters are worth 2 items.
        let values = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        let together = estimate(&values, &[7, 7, 7, 7, 8, 8, 8, 8], 400);
        assert_eq!((together.low, together.high), (Some(0.0), Some(1.0)));
        let apart = estimate(&values, &[0, 1, 2, 3, 4, 5, 6, 7], 400);
        assert!(apart.low > Some(0.05) && apart.high < Some(0.95));
        assert_eq!(clusters(["b", "a", "b"]), [vec![0, 2], vec![1]]);
    }

    #[test]
    fn groups_keep_their_sizes() {
        let groups = [vec![vec![0]], vec![vec![1], vec![2], vec![3]]];
        let share = |items: &[usize]| {
            let first = items.iter().filter(|item| **item == 0).count();
            vec![("first", Some(first as f64)), ("all", Some(items.len() as f64))]
        };
        let found =
            Bootstrap { resamples: 50, seed: 1 }.estimate_strata(&[&groups[0], &groups[1]], share);
        let always = |value| Estimate { value: Some(value), low: Some(value), high: Some(value) };
        assert_eq!((found["first"], found["all"]), (always(1.0), always(4.0)));
    }

    #[test]
    fn what_has_no_value_has_no_interval() {
        assert_eq!(estimate(&[], &[], 10), Estimate::default());
        let one = estimate(&[2.0], &[0], 0);
        assert_eq!(one, Estimate { value: Some(2.0), low: None, high: None });
        let never = Bootstrap::default().estimate(&clusters([1, 2]), |_| vec![("x", None)]);
        assert_eq!(never["x"], Estimate::default());
    }

    #[test]
    fn the_generator_is_splitmix() {
        let mut random = SplitMix(1234567);
        let first: Vec<u64> = (0..3).map(|_| random.draw()).collect();
        assert_eq!(first, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
        assert_eq!(random.below(0), 0);
    }
}
