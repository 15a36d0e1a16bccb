//! Fits corrections of a judge's verdicts to labels, and says honestly what they gain.
//!
//! ```text
//! labels + verdicts ─ samples ─► by kind ─┬─ temperature | isotonic ─► what is written
//!                                         └─ the same on all folds but one ─► losses on that one
//! ```
//!
//! The correction that is written rests on all labels. Its losses do not: each verdict's is
//! computed with a correction that was fitted without it and without those on the same prompt.

mod isotonic;
mod losses;
mod samples;
mod temperature;
#[cfg(test)]
mod tests;

pub use isotonic::isotonic;
pub use samples::{Samples, Scale, labels_hash};
pub use temperature::{fit_pairs, fit_singles};

use super::metrics::{Bootstrap, Metrics, SplitMix, clusters};
use crate::judge::Calibrator;
use crate::pipeline::Settings;
use samples::{Single, Verdicts, rows};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// How verdicts are corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Temperature,
    Isotonic,
}

/// How corrections are fitted and measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub method: Method,
    /// Parts that the labels are divided into for the losses.
    pub folds: usize,
    /// Deals the prompts out to the folds.
    pub seed: u64,
    pub bootstrap: Bootstrap,
}

/// What is written, and read by `score --calibration`; see [`crate::judge::Calibrations`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    /// Of the program.
    pub version: String,
    /// What the verdicts depend on: checkpoint, prompts and the like.
    pub judge: Settings,
    /// The file of labels, and a hash of its rows and labels.
    pub labels: String,
    pub labels_hash: String,
    pub folds: usize,
    pub seed: u64,
    pub bootstrap: Bootstrap,
    /// By the kind of verdict: `support`, or a dimension.
    pub kinds: BTreeMap<String, Fitted>,
}

/// The correction of one kind of verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fitted {
    #[serde(flatten)]
    pub calibrator: Calibrator,
    /// Labels that it rests on: `support`, `rating` or `pairwise`.
    pub labels: &'static str,
    /// Verdicts (or pairs) with labels.
    pub items: usize,
    pub prompts: usize,
    /// Parts that the labels were divided into: no more than there are prompts.
    pub folds: usize,
    /// `log_loss` (of the label's probability) and `calibration_error`, where probabilities are
    /// corrected; `squared_error` of the expected value against the label, on the judge's scale.
    /// Each with `_before`, `_after` and `_gain`: without a correction, with one that was fitted
    /// to other labels, and the former less the latter.
    pub losses: Metrics,
}

/// What was fitted, and what was not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fits {
    /// By the kind of verdict.
    pub kinds: BTreeMap<String, Fitted>,
    /// Kinds that have labels, but not such that a correction can be fitted to them.
    pub left_out: Vec<LeftOut>,
}

/// Why a kind of verdict gets no correction.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
pub enum LeftOut {
    #[error("{kind}: labels on {prompts} prompt are too few to hold some out: give labels on more")]
    TooFew { kind: String, prompts: usize },
    #[error(
        "{kind}: there are no ratings, and {rows} say which answer is better, not how good it is, as \
         isotonic regression must know: rate the answers (rows with answer and rating), or fit them \
         with --method temperature"
    )]
    PairsAlone { kind: String, rows: String },
}

/// Why nothing can be fitted.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FitError {
    #[error(
        "no labelled row has a verdict with a distribution: give the file that agree wrote for these labels"
    )]
    Nothing,
    #[error("nothing can be fitted\n{}", lines(.0))]
    NothingFits(Vec<LeftOut>),
}

fn lines(left_out: &[LeftOut]) -> String {
    left_out.iter().map(LeftOut::to_string).collect::<Vec<_>>().join("\n")
}

/// Fits each kind of verdict that has labels such as the method needs.
///
/// # Errors
/// See [`FitError`].
pub fn fit(samples: &Samples, options: &Options) -> Result<Fits, FitError> {
    if samples.kinds.is_empty() {
        return Err(FitError::Nothing);
    }
    let mut fits = Fits::default();
    for (kind, verdicts) in &samples.kinds {
        match fit_kind(kind, verdicts, options) {
            Ok(fitted) => {
                fits.kinds.insert(kind.clone(), fitted);
            }
            Err(why) => fits.left_out.push(why),
        }
    }
    match fits.kinds.is_empty() {
        true => Err(FitError::NothingFits(fits.left_out)),
        false => Ok(fits),
    }
}

fn fit_kind(kind: &str, verdicts: &Verdicts, options: &Options) -> Result<Fitted, LeftOut> {
    let kind = kind.to_owned();
    if let (Method::Isotonic, Verdicts::Pairs(pairs)) = (options.method, verdicts) {
        return Err(LeftOut::PairsAlone { kind, rows: rows(pairs) });
    }
    let prompts = clusters(verdicts.prompts());
    if prompts.len() < 2 {
        return Err(LeftOut::TooFew { kind, prompts: prompts.len() });
    }
    let all: Vec<usize> = (0..verdicts.len()).collect();
    let folds = options.folds.clamp(2, prompts.len());
    let held_out = held_out(verdicts, &prompts, folds, options);
    Ok(Fitted {
        calibrator: fit_items(verdicts, &all, options.method),
        labels: verdicts.labels(),
        items: verdicts.len(),
        prompts: prompts.len(),
        folds,
        losses: losses::losses(verdicts, &held_out, &prompts, options),
    })
}

/// The correction that the items of `items` ask for.
fn fit_items(verdicts: &Verdicts, items: &[usize], method: Method) -> Calibrator {
    match (verdicts, method) {
        (Verdicts::Pairs(pairs), _) => {
            let chosen: Vec<_> = items.iter().map(|&item| &pairs[item]).collect();
            Calibrator::Temperature { temperature: fit_pairs(&chosen) }
        }
        (Verdicts::Singles(_, singles), Method::Temperature) => {
            let chosen: Vec<&Single> = items.iter().map(|&item| &singles[item]).collect();
            Calibrator::Temperature { temperature: fit_singles(&chosen) }
        }
        (Verdicts::Singles(_, singles), Method::Isotonic) => {
            let points: Vec<(f64, f64)> =
                items.iter().map(|&item| (singles[item].expected, singles[item].value)).collect();
            let (from, to) = isotonic(&points);
            Calibrator::Isotonic { from, to }
        }
    }
}

/// For each item the correction that was fitted without its prompt's fold.
fn held_out(
    verdicts: &Verdicts,
    prompts: &[Vec<usize>],
    folds: usize,
    options: &Options,
) -> Vec<Calibrator> {
    let order = shuffled(prompts.len(), options.seed);
    let mut fold_of = vec![0; verdicts.len()];
    for (place, &prompt) in order.iter().enumerate() {
        prompts[prompt].iter().for_each(|&item| fold_of[item] = place % folds);
    }
    let fitted: Vec<Calibrator> = (0..folds)
        .map(|fold| {
            let others: Vec<usize> = (0..verdicts.len()).filter(|&i| fold_of[i] != fold).collect();
            fit_items(verdicts, &others, options.method)
        })
        .collect();
    fold_of.into_iter().map(|fold| fitted[fold].clone()).collect()
}

/// The numbers below `count` in an order that the seed gives (Fisher and Yates).
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut random = SplitMix(seed);
    for last in (1..count).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (kind, Fitted { calibrator, labels, items, prompts, folds: _, losses }) in &self.kinds {
            writeln!(f, "{kind}: {items} {labels} labels on {prompts} prompts, {calibrator}")?;
            for loss in ["log_loss", "squared_error", "calibration_error"] {
                let get = |when: &str| losses.get(&format!("{loss}_{when}"));
                let Some(((before, after), gain)) =
                    get("before").zip(get("after")).zip(get("gain"))
                else {
                    continue;
                };
                let name = loss.replace('_', " ");
                writeln!(f, "  {name:<18} {before} → {after}, gain {gain}")?;
            }
        }
        let mut folds: Vec<usize> = self.kinds.values().map(|fitted| fitted.folds).collect();
        folds.dedup();
        match folds[..] {
            [folds] => write!(f, "losses by {folds}-fold cross-validation"),
            _ => {
                let of = |(kind, fitted): (&String, &Fitted)| format!("{kind} {}", fitted.folds);
                let each: Vec<String> = self.kinds.iter().map(of).collect();
                write!(f, "losses by cross-validation, folds of {}", each.join(", "))
            }
        }
    }
}
