//! Early stop: which answers to a prompt can no longer be its best or its worst.
//!
//! Answers are judged in waves, the cheap dimensions first. When all answers have all verdicts of
//! their waves, and only then, it is decided who goes on; so the decision depends on verdicts alone,
//! not on the order in which they come. A dimension that is not judged yet is worth 0 to 10. An answer
//! stops if its total is below that of some other answer for certain, and above that of some other
//! one. Equal bounds stop nobody: a tie may still make a pair by the order of ids.

use crate::judge::Dimension;
use crate::pipeline::records::by_dimension;

/// What is judged one after the other. Faithfulness is last: it takes a call for each statement.
pub(super) const WAVES: [&[Dimension]; 3] = [
    &[Dimension::Helpfulness, Dimension::Logicality],
    &[Dimension::Completeness],
    &[Dimension::Faithfulness],
];

/// Totals are rounded to six decimals; bounds nearer than this count as equal.
const TOLERANCE: f64 = 1e-5;

/// The largest score in a dimension.
const MOST: f64 = 10.0;

/// The smallest and the largest total that is still possible.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    pub least: f64,
    pub most: f64,
}

impl Bounds {
    /// From the scores that are known, in the order of dimensions.
    pub fn new(scores: &[Option<f64>; 4]) -> Self {
        let least = scores.iter().flatten().sum();
        let open = scores.iter().filter(|score| score.is_none()).count();
        Self { least, most: least + open as f64 * MOST }
    }
}

/// Which of these answers can be neither best nor worst.
pub(super) fn stopped(bounds: &[Bounds]) -> Vec<bool> {
    let best = bounds.iter().map(|one| one.least).fold(f64::NEG_INFINITY, f64::max);
    let worst = bounds.iter().map(|one| one.most).fold(f64::INFINITY, f64::min);
    let below = |one: &Bounds| one.most < best - TOLERANCE;
    let above = |one: &Bounds| one.least > worst + TOLERANCE;
    bounds.iter().map(|one| below(one) && above(one)).collect()
}

/// An answer whose row was written by an earlier run. It takes part with the scores that its row has,
/// wave by wave as if they were judged now, so that a run which is resumed decides as the first one did.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub scores: [Option<f64>; 4],
    /// Waves whose scores are taken into account.
    pub waves: usize,
}

impl Recorded {
    pub fn new(scores: [Option<f64>; 4]) -> Self {
        Self { scores, waves: 1 }
    }

    /// The scores of its waves.
    pub fn known(&self) -> [Option<f64>; 4] {
        let seen =
            |dimension: Dimension| WAVES[..self.waves].iter().any(|wave| wave.contains(&dimension));
        by_dimension(|dimension| self.scores[dimension as usize].filter(|_| seen(dimension)))
    }

    /// Whether its row has the scores of another wave.
    pub fn has_more(&self) -> bool {
        WAVES.get(self.waves).is_some_and(|wave| {
            wave.iter().all(|&dimension| self.scores[dimension as usize].is_some())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds(pairs: &[(f64, f64)]) -> Vec<Bounds> {
        pairs.iter().map(|&(least, most)| Bounds { least, most }).collect()
    }

    #[test]
    fn bounds_leave_open_what_is_not_judged() {
        let all = Bounds::new(&[Some(3.0), Some(4.0), Some(1.0), Some(2.0)]);
        assert_eq!((all.least, all.most), (10.0, 10.0));
        let some = Bounds::new(&[Some(3.0), None, None, Some(2.0)]);
        assert_eq!((some.least, some.most), (5.0, 25.0));
    }

    #[test]
    fn only_what_is_certainly_between_others_stops() {
        let middle = bounds(&[(30.0, 35.0), (10.0, 29.0), (0.0, 9.0)]);
        assert_eq!(stopped(&middle), [false, true, false]);
        // As good as the best at most, or as bad as the worst: ids may decide.
        assert_eq!(stopped(&bounds(&[(30.0, 35.0), (10.0, 30.0), (0.0, 9.0)])), [false; 3]);
        assert_eq!(stopped(&bounds(&[(30.0, 35.0), (9.0, 29.0), (0.0, 9.0)])), [false; 3]);
        assert_eq!(stopped(&bounds(&[(20.0, 20.0), (20.0, 20.0), (20.0, 20.0)])), [false; 3]);
        assert_eq!(stopped(&bounds(&[(1.0, 2.0)])), [false]);
        assert!(stopped(&[]).is_empty());
    }

    #[test]
    fn a_recorded_answer_shows_its_scores_wave_by_wave() {
        let mut row = Recorded::new([Some(1.0), Some(2.0), None, Some(4.0)]);
        assert_eq!(row.known(), [Some(1.0), Some(2.0), None, None]);
        assert!(row.has_more());
        row.waves = 2;
        assert_eq!(row.known(), [Some(1.0), Some(2.0), None, Some(4.0)]);
        assert!(!row.has_more());
    }

    proptest! {
        /// Best and worst are found among those that did not stop, with the same totals.
        #[test]
        fn whoever_stops_is_neither_best_nor_worst(
            totals in prop::collection::vec((0u8..6, 0u8..6, 0u8..6, 0u8..6), 1..8),
            known in 0usize..4,
        ) {
            let scores: Vec<[f64; 4]> = totals
                .iter()
                .map(|&(a, b, c, d)| [a, b, c, d].map(|score| f64::from(score) * 2.0))
                .collect();
            let shown = |all: &[f64; 4]| {
                Bounds::new(&std::array::from_fn(|i| (i < known).then_some(all[i])))
            };
            let stopped = stopped(&scores.iter().map(shown).collect::<Vec<_>>());
            let sums: Vec<f64> = scores.iter().map(|all| all.iter().sum()).collect();
            let best = sums.iter().copied().fold(f64::MIN, f64::max);
            let worst = sums.iter().copied().fold(f64::MAX, f64::min);
            for (sum, stopped) in sums.iter().zip(stopped) {
                prop_assert!(!stopped || (*sum > worst && *sum < best));
            }
        }
    }
}
