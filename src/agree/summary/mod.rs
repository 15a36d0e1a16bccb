//! Labels beside verdicts, measured. All of it is plain data that stands in `OUT.summary.json`.

mod bias;
mod gain;
mod pairwise;
mod predictor;
mod rating;
mod spread;
mod support;
#[cfg(test)]
mod tests;

pub use bias::LengthBias;
pub use gain::Gain;
pub use pairwise::PairwiseSummary;
pub(super) use pairwise::{faithfulness_lead, probability_above, score};
pub use predictor::Predictor;
pub(super) use predictor::within_prompts;
pub use rating::RatingSummary;
pub use spread::Spread;
pub use support::SupportSummary;

use super::bias::Bias;
use super::judging::{Details, Found, Judged};
use super::labels::{Item, Kind};
use super::metrics::Bootstrap;
use super::recall::Recall;
use crate::judge::{Supported, Votes, readings};
use crate::pipeline::Settings;
use crate::retrieval::{Embed, EmbedError};
use pairwise::PairRow;
use rating::RatingRow;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use support::ClaimRow;

/// Everything that is known of a judge's agreement with people.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The file of labels.
    pub labels: String,
    /// What the verdicts depend on: model, prompts, seed and the like.
    pub settings: Settings,
    /// How intervals are made.
    pub bootstrap: Bootstrap,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub support: Option<SupportSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairwise: Option<PairwiseSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating: Option<RatingSummary>,
    /// Over another judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<Gain>,
    /// What moves the judge that should not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<Bias>,
    /// Of labelled supporting sentences among the passages found for their claims.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recall: Vec<Recall>,
}

/// How smoothly verdicts came, over all runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Ratings, lists of statements and degrees of support; of several votes each one.
    pub verdicts: usize,
    /// The share that was readable in the first reply, or needed none.
    pub first_reply: f64,
    /// The share that was never readable and was forced.
    pub forced: f64,
    /// Replies that a verdict took, in the mean.
    pub replies: f64,
}

/// A label with the verdicts on it, by run.
struct Row<'a, L, V> {
    item: &'a Item,
    label: &'a L,
    /// Never empty; the first is that of run 0.
    runs: Vec<V>,
}

impl Summary {
    /// Measures the first run, and its spread over the others. Rows without a record of run 0 are
    /// left out. With an embedder there is a baseline that uses nothing else.
    ///
    /// # Errors
    /// From the embedder.
    pub fn new(
        items: &[Item],
        judged: &[Judged],
        bootstrap: Bootstrap,
        mut embed: Option<&mut dyn Embed>,
    ) -> Result<Self, EmbedError> {
        let Rows { claims, pairs, ratings } = Rows::new(items, judged);
        Ok(Self {
            bootstrap,
            support: SupportSummary::new(&claims, &bootstrap, reborrow(&mut embed))?,
            pairwise: PairwiseSummary::new(&pairs, &bootstrap, reborrow(&mut embed))?,
            rating: RatingSummary::new(&ratings, &bootstrap, reborrow(&mut embed))?,
            ..Self::default()
        })
    }
}

/// Labels with verdicts, by kind.
struct Rows<'a> {
    claims: Vec<ClaimRow<'a>>,
    pairs: Vec<PairRow<'a>>,
    ratings: Vec<RatingRow<'a>>,
}

impl<'a> Rows<'a> {
    /// The items that were judged in run 0, in the order of their file.
    fn new(items: &'a [Item], judged: &'a [Judged]) -> Self {
        let runs = by_item(judged);
        Self {
            claims: rows(items, &runs, |kind, found| match (kind, found) {
                (Kind::Support(claim), Found::Support { details }) => Some((claim, details)),
                _ => None,
            }),
            pairs: rows(items, &runs, |kind, found| match (kind, found) {
                (Kind::Pairwise(pair), Found::Pairwise { a, b }) => Some((pair, [&**a, &**b])),
                _ => None,
            }),
            ratings: rows(items, &runs, |kind, found| match (kind, found) {
                (Kind::Rating(rating), Found::Rating { details }) => Some((rating, &**details)),
                _ => None,
            }),
        }
    }
}

/// The embedder for a while.
fn reborrow<'a>(embed: &'a mut Option<&mut dyn Embed>) -> Option<&'a mut dyn Embed> {
    match embed {
        Some(embed) => Some(&mut **embed),
        None => None,
    }
}

/// The records of each item, by run.
fn by_item(judged: &[Judged]) -> HashMap<&str, Vec<&Judged>> {
    let mut runs: HashMap<&str, Vec<&Judged>> = HashMap::new();
    for record in judged.iter().filter(|record| record.variant.is_plain()) {
        runs.entry(&record.item).or_default().push(record);
    }
    runs.values_mut().for_each(|records| records.sort_by_key(|record| record.run));
    runs
}

/// The items of a kind that were judged in run 0.
fn rows<'a, L, V>(
    items: &'a [Item],
    runs: &HashMap<&str, Vec<&'a Judged>>,
    pick: impl Fn(&'a Kind, &'a Found) -> Option<(&'a L, V)>,
) -> Vec<Row<'a, L, V>> {
    let row = |item: &'a Item| {
        let records = runs.get(item.idx.as_str())?;
        records.first().filter(|record| record.run == 0)?;
        let picked = records.iter().map(|record| pick(&item.kind, &record.found));
        let (labels, runs): (Vec<&'a L>, Vec<V>) =
            picked.collect::<Option<Vec<_>>>()?.into_iter().unzip();
        Some(Row { item, label: *labels.first()?, runs })
    };
    items.iter().filter_map(row).collect()
}

/// How one verdict came.
struct Read {
    attempts: u32,
    forced: bool,
    /// Of its replies, which several statements can have in common.
    share: f64,
}

impl Read {
    fn all(votes: Option<&Votes>, attempts: u32, forced: bool, share: f64) -> Vec<Self> {
        let each = readings(votes, attempts, forced).into_iter();
        each.map(|(attempts, forced)| Self { attempts, forced, share }).collect()
    }

    fn of_claim(found: &Supported) -> Vec<Self> {
        let share = 1.0 / found.statements_in_call.unwrap_or(1).max(1) as f64;
        Self::all(found.votes.as_deref(), found.attempts, found.forced, share)
    }

    /// Its ratings, its list of statements, and the verdicts on these.
    fn of_answer(answer: &Details) -> Vec<Self> {
        let rated = answer.ratings();
        let rated = rated.flat_map(|one| Self::all(one.votes, one.attempts, one.forced, 1.0));
        let listed = answer.faithfulness.iter().flat_map(|found| {
            let list = Self::all(None, found.attempts, found.is_listing_forced(), 1.0);
            list.into_iter().chain(found.details.iter().flat_map(Self::of_claim))
        });
        rated.chain(listed).collect()
    }
}

impl Reading {
    fn new(verdicts: impl Iterator<Item = Read>) -> Self {
        let (mut count, mut first, mut forced, mut replies) = (0, 0, 0, 0.0);
        for Read { attempts, forced: was_forced, share } in verdicts {
            count += 1;
            first += usize::from(attempts <= 1 && !was_forced);
            forced += usize::from(was_forced);
            replies += f64::from(attempts) * share;
        }
        let share = |part: usize| part as f64 / count.max(1) as f64;
        let (first_reply, forced) = (share(first), share(forced));
        Self { verdicts: count, first_reply, forced, replies: replies / count.max(1) as f64 }
    }

    fn of_answers<'a>(answers: impl Iterator<Item = &'a Details>) -> Self {
        Self::new(answers.flat_map(Read::of_answer))
    }
}

/// Characters of a text.
fn length(text: &str) -> f64 {
    text.chars().count() as f64
}
