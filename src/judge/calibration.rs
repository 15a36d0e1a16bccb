//! Verdicts corrected by what people said of others like them: the file that `calibrate` writes,
//! applied to probabilities and expected values.
//!
//! What the judge said stays: a corrected record holds both (see [`Uncalibrated`]).

use super::{Completeness, Dimension, Faithfulness, Rated, Supported, rounded};
use crate::hexadecimal::hexadecimal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// The name of support verdicts in [`Calibrations::kinds`]; the others have their dimension's.
pub const SUPPORT: &str = "support";

/// Where a temperature may lie.
pub const TEMPERATURES: [f64; 2] = [0.05, 100.0];

/// Probabilities are rounded to six decimals; what became 0 counts as a little less than what would
/// be rounded up.
const LEAST: f64 = 4e-7;

/// How verdicts of one kind are corrected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum Calibrator {
    /// Probabilities to the power 1 / temperature, normalised (Guo et al. 2017). Above 1 the judge
    /// was surer than it was right.
    Temperature { temperature: f64 },
    /// The expected value `from[i]` becomes `to[i]`, straight between, constant outside (Zadrozny
    /// and Elkan 2002). Probabilities stay as they are.
    Isotonic { from: Vec<f64>, to: Vec<f64> },
}

/// What stood where calibrated values stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Uncalibrated {
    pub distribution: Vec<f64>,
    pub expected: Option<f64>,
}

/// A file that `calibrate` wrote.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Calibrations {
    /// What the verdicts that it was fitted to depend on, by name.
    pub judge: BTreeMap<String, String>,
    /// By the kind of verdict.
    pub kinds: BTreeMap<String, Calibrator>,
    /// The hash of the labels that it was fitted to.
    pub labels_hash: String,
    /// SHA-256 of the file.
    #[serde(skip)]
    pub hash: String,
}

/// Why a calibration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: is no file of longreward calibrate: {why}", path.display())]
    Format { path: PathBuf, why: String },
    #[error(
        "{} was fitted to another judge: {name} was {was}, is now {is}\nfit it to this judge's \
         verdicts with longreward calibrate, or use it all the same with --any-calibration",
        path.display()
    )]
    OtherJudge { path: PathBuf, name: &'static str, was: String, is: String },
}

impl Calibrator {
    /// The corrected probabilities.
    pub fn distribution(&self, distribution: &[f64]) -> Vec<f64> {
        match self {
            Self::Temperature { temperature } => tempered(distribution, *temperature),
            Self::Isotonic { .. } => distribution.to_vec(),
        }
    }

    /// The corrected expected value. `worth` is that of each place of the distribution.
    pub fn expected(&self, distribution: &[f64], expected: f64, worth: &[f64]) -> f64 {
        match self {
            Self::Temperature { .. } => {
                self.distribution(distribution).iter().zip(worth).map(|(p, worth)| p * worth).sum()
            }
            Self::Isotonic { from, to } => interpolated(from, to, expected),
        }
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Self::Temperature { temperature } => match *temperature > 0.0 {
                true if temperature.is_finite() => Ok(()),
                _ => Err(format!("temperature should be above 0, but is {temperature}")),
            },
            Self::Isotonic { from, to } => {
                let rising = from.windows(2).all(|pair| pair[0] < pair[1]);
                let monotone = to.windows(2).all(|pair| pair[0] <= pair[1]);
                match !from.is_empty() && from.len() == to.len() && rising && monotone {
                    true => Ok(()),
                    false => Err("from and to should be as long, and rise".to_owned()),
                }
            }
        }
    }
}

impl fmt::Display for Calibrator {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Temperature { temperature } => {
                let [low, high] = TEMPERATURES;
                let limit = *temperature < low * 1.001 || *temperature > high * 0.999;
                let note = if limit { " (the limit of what is tried)" } else { "" };
                write!(f, "temperature {temperature:.3}{note}")
            }
            Self::Isotonic { from, .. } => write!(f, "isotonic, {} corners", from.len()),
        }
    }
}

/// Probabilities to the power 1 / temperature, normalised.
pub fn tempered(distribution: &[f64], temperature: f64) -> Vec<f64> {
    let logs: Vec<f64> = distribution.iter().map(|p| p.max(LEAST).ln() / temperature).collect();
    let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logs.iter().map(|log| (log - highest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// `from` rises strictly.
fn interpolated(from: &[f64], to: &[f64], x: f64) -> f64 {
    let above = from.partition_point(|&one| one <= x);
    match (above.checked_sub(1), from.get(above)) {
        (None, _) => to[0],
        (Some(last), None) => to[last],
        (Some(below), Some(end)) => {
            let share = (x - from[below]) / (end - from[below]);
            to[below] + share * (to[above] - to[below])
        }
    }
}

/// What each place of a distribution is worth: of three degrees of support, else of ratings.
pub fn worth(kind: &str) -> Vec<f64> {
    match kind {
        SUPPORT => vec![1.0, 0.5, 0.0],
        _ => (0..=10).map(f64::from).collect(),
    }
}

impl Calibrations {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, or was not written by `calibrate`.
    pub fn read(path: &Path) -> Result<Self, CalibrationError> {
        let io = |source| CalibrationError::Io { path: path.to_owned(), source };
        let format = |why: String| CalibrationError::Format { path: path.to_owned(), why };
        let bytes = std::fs::read(path).map_err(io)?;
        let mut found: Self = serde_json::from_slice(&bytes).map_err(|e| format(e.to_string()))?;
        for (kind, calibrator) in &found.kinds {
            calibrator
                .check()
                .map_err(|why| format(format_args!("kinds.{kind}: {why}").to_string()))?;
        }
        found.hash = hexadecimal(Sha256::digest(&bytes));
        Ok(found)
    }

    /// Refuses another judge: one of another checkpoint, or of another name where one of them has no
    /// checkpoint. `path` is for the message.
    ///
    /// # Errors
    /// [`CalibrationError::OtherJudge`].
    pub fn check_judge(
        &self,
        path: &Path,
        now: &BTreeMap<String, String>,
    ) -> Result<(), CalibrationError> {
        let both = |name: &str| self.judge.get(name).zip(now.get(name));
        let name = if both("checkpoint").is_some() { "checkpoint" } else { "model" };
        if both(name).is_some_and(|(was, is)| was == is) {
            return Ok(());
        }
        let describe = |settings: &BTreeMap<String, String>| {
            let get = |name: &str| settings.get(name).map_or("not known", String::as_str);
            format!("{} ({})", get(name), get("model"))
        };
        let (was, is) = (describe(&self.judge), describe(now));
        Err(CalibrationError::OtherJudge { path: path.to_owned(), name, was, is })
    }

    /// Names of what verdicts depend on besides the checkpoint and is not as it was, e.g. prompts,
    /// and options of the method, which are named where they are not as published.
    pub fn other_settings(&self, now: &BTreeMap<String, String>) -> Vec<String> {
        // A judge behind a server has not all of these.
        const OF_MODEL: [&str; 2] = ["dtype", "template"];
        const OF_METHOD: [&str; 13] = [
            "lang",
            "max_reply_tokens",
            "chunk_tokens",
            "verdict_first",
            "votes",
            "vote_by",
            "statements_per_call",
            "whole_document",
            "passages",
            "passage_tokens",
            "passage_overlap",
            "passage_cut",
            "retriever",
        ];
        let differs = |name: &&String| {
            let (was, is) = (self.judge.get(*name), now.get(*name));
            let counts = OF_METHOD.contains(&name.as_str())
                || name.starts_with("prompt ")
                || OF_MODEL.contains(&name.as_str()) && was.is_some() && is.is_some();
            counts && was != is
        };
        let names: BTreeSet<&String> = self.judge.keys().chain(now.keys()).collect();
        names.into_iter().filter(differs).cloned().collect()
    }

    /// Corrects a rating in a dimension.
    pub fn rated(&self, dimension: Dimension, rated: &mut Rated) {
        let Rated { distribution, expected, uncalibrated, .. } = rated;
        self.correct(dimension.name(), distribution, expected, uncalibrated);
    }

    /// Corrects a degree of support.
    pub fn supported(&self, supported: &mut Supported) {
        let Supported { distribution, expected, uncalibrated, .. } = supported;
        self.correct(SUPPORT, distribution, expected, uncalibrated);
    }

    /// Corrects the statements, and what they come to.
    pub fn faithfulness(&self, found: &mut Faithfulness) {
        if !self.kinds.contains_key(SUPPORT) || found.uncalibrated.is_some() {
            return;
        }
        found.details.iter_mut().for_each(|one| self.supported(one));
        found.uncalibrated = found.expected;
        found.expected = Faithfulness::expected_of(&found.details).map(rounded);
    }

    /// Corrects completeness.
    pub fn completeness(&self, found: &mut Completeness) {
        self.rated(Dimension::Completeness, &mut found.rated);
    }

    /// Once only, and where there is a distribution.
    fn correct(
        &self,
        kind: &str,
        distribution: &mut Vec<f64>,
        expected: &mut Option<f64>,
        uncalibrated: &mut Option<Uncalibrated>,
    ) {
        let (Some(calibrator), Some(value)) = (self.kinds.get(kind), *expected) else { return };
        if distribution.is_empty() || uncalibrated.is_some() {
            return;
        }
        let corrected = calibrator.distribution(distribution);
        let worth = worth(kind);
        *expected = Some(rounded(calibrator.expected(distribution, value, &worth)));
        let corrected = corrected.into_iter().map(rounded).collect();
        let was = std::mem::replace(distribution, corrected);
        *uncalibrated = Some(Uncalibrated { distribution: was, expected: Some(value) });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Outcome, Verdict, testing};
    use super::*;

    fn calibrations(kind: &str, calibrator: Calibrator) -> Calibrations {
        Calibrations {
            judge: [("checkpoint", "abc"), ("model", "m"), ("prompt en/support", "1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            kinds: [(kind.to_owned(), calibrator)].into(),
            labels_hash: String::new(),
            hash: String::new(),
        }
    }

    fn supported(distribution: [f64; 3]) -> Supported {
        testing::supported(1.0, &distribution)
    }

    #[test]
    fn a_temperature_flattens_and_keeps_what_was() {
        let two = calibrations(SUPPORT, Calibrator::Temperature { temperature: 2.0 });
        let mut one = supported([0.81, 0.16, 0.03]);
        two.supported(&mut one);
        let roots = [0.9, 0.4, 0.03f64.sqrt()];
        let sum: f64 = roots.iter().sum();
        let expected: Vec<f64> = roots.iter().map(|root| rounded(root / sum)).collect();
        assert_eq!(one.distribution, expected);
        assert_eq!(one.expected, Some(rounded((0.9 + 0.2) / sum)));
        let was = Uncalibrated { distribution: vec![0.81, 0.16, 0.03], expected: Some(0.89) };
        assert_eq!((&one.uncalibrated, one.score), (&Some(was), 1.0));
        let once = one.clone();
        two.supported(&mut one);
        assert_eq!(one, once);
        assert_eq!(
            tempered(&[0.7, 0.3, 0.0], 1.0).iter().map(|p| rounded(*p)).collect::<Vec<_>>(),
            [0.7, 0.3, 0.0]
        );
    }

    #[test]
    fn an_isotonic_map_moves_the_expected_value_alone() {
        let map = Calibrator::Isotonic { from: vec![0.25, 0.75], to: vec![0.0, 0.6] };
        for (x, y) in [(0.1, 0.0), (0.25, 0.0), (0.5, 0.3), (0.75, 0.6), (0.9, 0.6)] {
            assert!((map.expected(&[], x, &[]) - y).abs() < 1e-12, "{x}");
        }
        let mut one = supported([0.5, 0.0, 0.5]);
        calibrations(SUPPORT, map).supported(&mut one);
        assert_eq!((one.expected, &one.distribution[..]), (Some(0.3), &[0.5, 0.0, 0.5][..]));
    }

    #[test]
    fn only_kinds_that_were_fitted_are_touched() {
        let of_ratings = calibrations("logicality", Calibrator::Temperature { temperature: 2.0 });
        let mut one = supported([0.5, 0.25, 0.25]);
        of_ratings.supported(&mut one);
        assert_eq!(one, supported([0.5, 0.25, 0.25]));
    }

    #[test]
    fn faithfulness_comes_from_its_corrected_statements() {
        let map = Calibrator::Isotonic { from: vec![0.0, 1.0], to: vec![0.5, 1.0] };
        let listing = Verdict::new(Outcome::Statements(Vec::new()), "");
        let facts = vec![supported([1.0, 0.0, 0.0]), supported([0.0, 0.0, 1.0])];
        let mut found = Faithfulness::new(&listing, facts);
        calibrations(SUPPORT, map).faithfulness(&mut found);
        assert_eq!((found.expected, found.uncalibrated, found.score), (Some(7.5), Some(5.0), 10.0));
    }

    #[test]
    fn another_judge_is_refused_by_name_and_other_prompts_are_told() {
        let fitted = calibrations(SUPPORT, Calibrator::Temperature { temperature: 2.0 });
        let mut now = fitted.judge.clone();
        let path = Path::new("c.json");
        assert!(fitted.check_judge(path, &now).is_ok() && fitted.other_settings(&now).is_empty());
        now.insert("prompt en/support".to_owned(), "2".to_owned());
        assert_eq!(fitted.other_settings(&now), ["prompt en/support"]);
        now.insert("verdict_first".to_owned(), "true".to_owned());
        now.insert("template".to_owned(), "t".to_owned());
        assert_eq!(fitted.other_settings(&now), ["prompt en/support", "verdict_first"]);
        now.insert("checkpoint".to_owned(), "def".to_owned());
        let refused = fitted.check_judge(path, &now).unwrap_err().to_string();
        assert!(
            refused.contains("c.json") && refused.contains("checkpoint was abc (m), is now def")
        );
        now.remove("checkpoint");
        assert!(fitted.check_judge(path, &now).is_ok());
    }

    #[test]
    fn files_of_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.json");
        let file =
            |kinds: &str| format!("{{\"judge\":{{}},\"labels_hash\":\"\",\"kinds\":{kinds}}}");
        for (text, why) in [
            ("{}".to_owned(), "missing field"),
            (file(r#"{"support":{"method":"temperature","temperature":0}}"#), "above 0"),
            (file(r#"{"support":{"method":"isotonic","from":[1,0],"to":[0,1]}}"#), "rise"),
            (file(r#"{"support":{"method":"isotonic","from":[],"to":[]}}"#), "rise"),
            (file(r#"{"support":{"method":"magic"}}"#), "magic"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = Calibrations::read(&path).unwrap_err().to_string();
            assert!(error.contains("c.json") && error.contains(why), "{error}");
        }
        std::fs::write(
            &path,
            file(r#"{"support":{"method":"temperature","temperature":2,"items":3}}"#),
        )
        .unwrap();
        assert_eq!(Calibrations::read(&path).unwrap().hash.len(), 64);
    }
}
