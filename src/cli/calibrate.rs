//! `longreward calibrate`: corrections of a judge's verdicts, fitted to labels.

use super::Ending;
use super::agree_args::LabelFormat;
use crate::agree::calibrate::{self, Fit, FitError, Fits, Options, Samples, Scale, labels_hash};
use crate::agree::judging::read_judged;
use crate::agree::labels::Labels;
use crate::agree::metrics::Bootstrap;
use crate::pipeline::jsonl::{holds_fields, keep_inputs, keep_others, replace};
use crate::pipeline::{Error, stored_settings};
use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::PathBuf;

/// Fits the probabilities of a judge's verdicts to what people say, for score --calibration
///
/// Example: longreward agree --labels dev.jsonl --model M --out agree.jsonl; then
/// longreward calibrate --labels dev.jsonl --judged agree.jsonl --out calibration.json
#[derive(Debug, Args)]
pub struct Calibrate {
    /// What people said, as agree reads it
    #[arg(long, value_name = "FILE")]
    pub labels: PathBuf,
    /// The judge's verdicts on these labels, as agree wrote them
    #[arg(long, value_name = "FILE")]
    pub judged: PathBuf,
    /// The corrections; an older file of corrections is replaced, any other is refused
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How the labels are written; auto tells by the fields of each row
    #[arg(long, default_value = "auto", value_name = "FORMAT")]
    pub format: LabelFormat,
    /// temperature makes all verdicts surer or less sure; isotonic maps expected values to what
    /// people mean by them, and needs some hundreds of support labels or ratings (pairs do not say how
    /// good an answer is; what only has pairs is left out, and named)
    #[arg(long, default_value = "temperature", value_name = "METHOD")]
    pub method: Method,
    /// The lowest and the highest rating that people could give
    #[arg(long, num_args = 2, default_values_t = [0.0, 10.0], allow_negative_numbers = true, value_names = ["LOW", "HIGH"])]
    pub rating_scale: Vec<f64>,
    /// Parts for cross-validation: losses are measured on labels that were held out
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(2..))]
    pub folds: usize,
    /// Deals out the labels to the folds, and draws the resamples
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Resamples behind the 95 % intervals; 0 leaves them out
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub resamples: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    Temperature,
    Isotonic,
}

/// Fits and writes.
///
/// # Errors
/// Unreadable files, or labels that nothing can be fitted to.
pub fn calibrate(args: &Calibrate) -> Result<Ending> {
    keep_inputs(&args.out, &[&args.labels, &args.judged])?;
    keep_others(&args.out, "corrections", |out| {
        holds_fields(out, &[&["judge", "labels_hash", "kinds"]])
    })?;
    let Labels { items, problems } = Labels::read(&args.labels, args.format.into(), None)?;
    let settings = stored_settings(&args.judged);
    let settings = settings.context("which judge made the verdicts is not known")?;
    let (judged, damaged) = read_judged(&args.judged)?;
    if let Some(damaged) = damaged.into_iter().next() {
        return Err(Error::Damaged(damaged).into());
    }
    let samples = Samples::new(&items, &judged, scale(args)?);
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    let told = samples.problems.iter().chain(&samples.notes);
    told.for_each(|told| eprintln!("{}: {told}", args.labels.display()));
    let Fits { kinds, left_out } = fitted(&samples, args)?;
    left_out.iter().for_each(|left_out| eprintln!("not fitted: {left_out}"));
    let fit = Fit {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        judge: settings,
        labels: args.labels.display().to_string(),
        labels_hash: labels_hash(&items),
        folds: args.folds,
        seed: args.seed,
        bootstrap: Bootstrap { resamples: args.resamples, seed: args.seed },
        kinds,
    };
    write(&fit, args)?;
    println!("{fit}\ncorrections are in {}", args.out.display());
    let complete = problems.is_empty() && samples.problems.is_empty() && left_out.is_empty();
    Ok(if complete { Ending::Done } else { Ending::Incomplete })
}

fn scale(args: &Calibrate) -> Result<Scale> {
    let &[low, high] = &args.rating_scale[..] else { anyhow::bail!("--rating-scale takes two") };
    anyhow::ensure!(low < high, "--rating-scale: {low} is not below {high}");
    Ok(Scale { low, high })
}

fn fitted(samples: &Samples, args: &Calibrate) -> Result<Fits, FitError> {
    let method = match args.method {
        Method::Temperature => calibrate::Method::Temperature,
        Method::Isotonic => calibrate::Method::Isotonic,
    };
    let bootstrap = Bootstrap { resamples: args.resamples, seed: args.seed };
    calibrate::fit(samples, &Options { method, folds: args.folds, seed: args.seed, bootstrap })
}

fn write(fit: &Fit, args: &Calibrate) -> Result<()> {
    let text = serde_json::to_string_pretty(fit)?;
    let io = |source| Error::Io { path: args.out.clone(), source };
    replace(&args.out, |file| writeln!(file, "{text}").map_err(io))?;
    Ok(())
}
