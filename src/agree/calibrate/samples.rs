//! Labels and verdicts brought together, by the kind of verdict.

use crate::agree::judging::{Details, Found, Judged, Score};
use crate::agree::labels::{Item, Kind, Preference};
use crate::agree::summary::faithfulness_lead;
use crate::hexadecimal::hexadecimal;
use crate::judge::calibration::SUPPORT;
use crate::judge::{Supported, Uncalibrated};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};

/// The lowest and the highest rating that people could give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub low: f64,
    pub high: f64,
}

impl Default for Scale {
    fn default() -> Self {
        Self { low: 0.0, high: 10.0 }
    }
}

impl Scale {
    /// A rating as the judge would give it, 0 to 10.
    fn to_judge(self, rating: f64) -> Option<f64> {
        let share = (rating - self.low) / (self.high - self.low);
        (0.0..=1.0).contains(&share).then_some(share * 10.0)
    }
}

/// A verdict and its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Single {
    /// As the judge gave it.
    pub distribution: Vec<f64>,
    pub expected: f64,
    /// How much each class is the label: 1 for one, or shared by the two whole ratings about it.
    pub target: Vec<f64>,
    /// The label on the scale of `expected`.
    pub value: f64,
    prompt: String,
}

/// Two answers and which is better.
#[derive(Debug, Clone, PartialEq)]
pub struct PairSample {
    /// Distributions of ratings of each, by dimension.
    pub answers: [Vec<Vec<f64>>; 2],
    /// By how much the first is the more faithful, which is no rating and has no distribution.
    pub lead: f64,
    /// 1 where the first is better, 0 where the second is, 0.5 at a tie.
    pub first: f64,
    /// Of the labels.
    pub row: String,
    prompt: String,
}

#[cfg(test)]
impl Single {
    pub(super) fn of(distribution: Vec<f64>, target: Vec<f64>) -> Self {
        Self { distribution, expected: 0.0, target, value: 0.0, prompt: String::new() }
    }
}

#[cfg(test)]
impl PairSample {
    pub(super) fn of(answers: [Vec<Vec<f64>>; 2], first: f64) -> Self {
        Self { answers, lead: 0.0, first, row: String::new(), prompt: String::new() }
    }
}

/// What a correction of one kind is fitted to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdicts {
    /// Labelled `support` or `rating`.
    Singles(&'static str, Vec<Single>),
    Pairs(Vec<PairSample>),
}

/// All labels that have verdicts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    pub kinds: BTreeMap<String, Verdicts>,
    /// What can't be used, and why.
    pub problems: Vec<String>,
    /// What is not used, though it could be.
    pub notes: Vec<String>,
}

impl Verdicts {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Singles(_, singles) => singles.len(),
            Self::Pairs(pairs) => pairs.len(),
        }
    }

    pub(super) fn labels(&self) -> &'static str {
        match self {
            Self::Singles(labels, _) => labels,
            Self::Pairs(_) => "pairwise",
        }
    }

    pub(super) fn prompts(&self) -> Vec<&str> {
        match self {
            Self::Singles(_, singles) => singles.iter().map(|one| one.prompt.as_str()).collect(),
            Self::Pairs(pairs) => pairs.iter().map(|pair| pair.prompt.as_str()).collect(),
        }
    }
}

impl Samples {
    /// Verdicts of all runs, as the judge gave them. Ratings of people are on `scale`. Where a
    /// dimension has both ratings and pairs, the ratings count, which say more.
    pub fn new(items: &[Item], judged: &[Judged], scale: Scale) -> Self {
        let by_idx: HashMap<&str, &Item> = items.iter().map(|i| (i.idx.as_str(), i)).collect();
        let mut samples = Self::default();
        let mut pairs: Vec<(Vec<&'static str>, PairSample)> = Vec::new();
        // Rows with a verdict that has no probabilities.
        let mut without: Vec<&str> = Vec::new();
        for record in judged.iter().filter(|record| record.variant.is_plain()) {
            let Some(item) = by_idx.get(record.item.as_str()) else { continue };
            if item.hash() != record.input_hash {
                let why = "was judged with another text; judge it again";
                samples.problems.push(format!("row {:?} {why}", item.idx));
                continue;
            }
            let all_used = match (&item.kind, &record.found) {
                (Kind::Support(claim), Found::Support { details }) => {
                    samples.add_support(item, claim.label as usize, details)
                }
                (Kind::Rating(rating), Found::Rating { details }) => {
                    samples.add_ratings(item, rating.rating, details, scale)
                }
                (Kind::Pairwise(pair), Found::Pairwise { a, b }) => {
                    let sample = pair_sample(item, pair.label, [a, b]);
                    let used = sample.is_some();
                    pairs.extend(sample);
                    used
                }
                _ => {
                    let why = format!("row {:?} has a verdict of another kind", item.idx);
                    samples.problems.push(why);
                    true
                }
            };
            if !all_used && !without.contains(&item.idx.as_str()) {
                without.push(&item.idx);
            }
        }
        samples.add_pairs(pairs);
        if !without.is_empty() {
            let rows = named(&without);
            let why = "have verdicts without the probabilities that a correction needs: those are not used";
            samples.notes.push(format!("the rows {rows} {why}"));
        }
        samples
    }

    /// Whether the verdict is one that can be used; so are those below.
    fn add_support(&mut self, item: &Item, label: usize, details: &Supported) -> bool {
        let Supported { distribution, expected, uncalibrated, .. } = details;
        let Some((distribution, expected)) = given(distribution, *expected, uncalibrated) else {
            return false;
        };
        let mut target = vec![0.0; 3];
        target[2 - label] = 1.0;
        let (value, prompt) = (label as f64 / 2.0, item.prompt());
        self.add(SUPPORT, "support", Single { distribution, expected, target, value, prompt });
        true
    }

    fn add_ratings(&mut self, item: &Item, rating: f64, details: &Details, scale: Scale) -> bool {
        let Some(value) = scale.to_judge(rating) else {
            let Scale { low, high } = scale;
            let why = format!(
                "row {:?}: the rating {rating} is outside {low} to {high}: give --rating-scale",
                item.idx
            );
            self.problems.push(why);
            return true;
        };
        let mut used = false;
        let mut all_used = true;
        for score in details.ratings() {
            let Some((distribution, expected)) = raw(&score) else {
                all_used = false;
                continue;
            };
            used = true;
            let (target, prompt) = (about(value, distribution.len()), item.prompt());
            let single = Single { distribution, expected, target, value, prompt };
            self.add(score.dimension.name(), "rating", single);
        }
        used && all_used
    }

    fn add(&mut self, kind: &str, labels: &'static str, single: Single) {
        let verdicts = self.kinds.entry(kind.to_owned());
        let verdicts = verdicts.or_insert_with(|| Verdicts::Singles(labels, Vec::new()));
        if let Verdicts::Singles(_, singles) = verdicts {
            singles.push(single);
        }
    }

    fn add_pairs(&mut self, pairs: Vec<(Vec<&'static str>, PairSample)>) {
        let mut dimensions: Vec<&str> = pairs.iter().flat_map(|pair| pair.0.clone()).collect();
        dimensions.sort_unstable();
        dimensions.dedup();
        for dimension in dimensions {
            let of_it = pairs.iter().filter(|pair| pair.0.contains(&dimension));
            let of_it: Vec<PairSample> = of_it.map(|pair| pair.1.clone()).collect();
            match self.kinds.entry(dimension.to_owned()) {
                Entry::Vacant(place) => {
                    place.insert(Verdicts::Pairs(of_it));
                }
                Entry::Occupied(ratings) => self.notes.push(format!(
                    "{dimension}: {} are not used, since there are ratings as well ({}), which say more",
                    rows(&of_it),
                    ratings.get().len()
                )),
            }
        }
    }
}

/// Names the rows of pairs.
pub(super) fn rows(pairs: &[PairSample]) -> String {
    let rows: Vec<&str> = pairs.iter().map(|pair| pair.row.as_str()).collect();
    format!("the pairs in the rows {}", named(&rows))
}

/// The first names, and how many more there are.
fn named(rows: &[&str]) -> String {
    const SHOWN: usize = 3;
    let names: Vec<String> = rows.iter().take(SHOWN).map(|row| format!("{row:?}")).collect();
    let more = match rows.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names.join(", "))
}

/// The judge's own probabilities and expected value, if there are some.
fn given(
    distribution: &[f64],
    expected: Option<f64>,
    uncalibrated: &Option<Uncalibrated>,
) -> Option<(Vec<f64>, f64)> {
    let (distribution, expected) = match uncalibrated {
        Some(raw) => (&raw.distribution[..], raw.expected),
        None => (distribution, expected),
    };
    (!distribution.is_empty()).then_some((distribution.to_vec(), expected?))
}

fn raw(score: &Score) -> Option<(Vec<f64>, f64)> {
    given(score.distribution, score.expected, score.uncalibrated)
}

/// The weights of whole ratings that a number is the mean of.
fn about(value: f64, classes: usize) -> Vec<f64> {
    let mut weights = vec![0.0; classes];
    let low = (value.floor() as usize).min(classes - 1);
    weights[low] = 1.0 - value.fract();
    if value.fract() > 0.0 {
        weights[(low + 1).min(classes - 1)] += value.fract();
    }
    weights
}

/// Whose ratings all have distributions. Faithfulness counts as what it is.
fn pair_sample(
    item: &Item,
    label: Preference,
    answers: [&Details; 2],
) -> Option<(Vec<&'static str>, PairSample)> {
    let lead = faithfulness_lead(answers, |found| {
        found.uncalibrated.or(found.expected).unwrap_or(found.score)
    })?;
    let scores = answers.map(|answer| answer.ratings().collect::<Vec<_>>());
    let dimensions: Vec<_> = scores[0].iter().map(|score| score.dimension.name()).collect();
    let distributions = |scores: &Vec<Score>| -> Option<Vec<Vec<f64>>> {
        scores.iter().map(|score| raw(score).map(|(distribution, _)| distribution)).collect()
    };
    let answers = [distributions(&scores[0])?, distributions(&scores[1])?];
    let first = (label.sign() + 1.0) / 2.0;
    let (row, prompt) = (item.idx.clone(), item.prompt());
    let sample = PairSample { answers, lead, first, row, prompt };
    (!dimensions.is_empty()).then_some((dimensions, sample))
}

/// Over all rows and their labels, in their order.
pub fn labels_hash(items: &[Item]) -> String {
    let mut hasher = Sha256::new();
    for item in items {
        let label = match &item.kind {
            Kind::Support(claim) => claim.label.name().to_owned(),
            Kind::Pairwise(pair) => pair.label.name().to_owned(),
            Kind::Rating(rating) => rating.rating.to_string(),
        };
        hasher.update(format!("{}\n{}\n{label}\n", item.idx, item.hash()));
    }
    hexadecimal(hasher.finalize())
}
