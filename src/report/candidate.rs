//! A scored answer, and what its scores rest on, ready to be shown.

use crate::agree::labels::Level;
use crate::judge::{
    Dimension, Evidence, Faithfulness, Rated, Supported, Uncalibrated, Votes, readings,
};
use crate::pipeline::records::{Details, EarlyStop, SampleId};
use serde::Serialize;

/// Scores and their largest values, in the order of [`Candidate::scores`].
pub const SCORES: [(&str, f64); 5] = [
    ("helpfulness", 10.0),
    ("logicality", 10.0),
    ("faithfulness", 10.0),
    ("completeness", 10.0),
    ("total", 40.0),
];

/// The place of the total among them.
pub const TOTAL: usize = 4;

/// A scored answer.
#[derive(Debug)]
pub struct Candidate {
    pub id: SampleId,
    pub answer: String,
    /// Helpfulness, logicality, faithfulness, completeness, total. Of one that was stopped early
    /// those are missing that it was not judged in, and the total.
    pub scores: [Option<f64>; 5],
    /// If it was stopped early.
    pub stopped: Option<EarlyStop>,
    /// Whether any of its verdicts was forced.
    pub forced: bool,
    /// Whether the answer says that it was cut off.
    pub cut: bool,
    pub verdicts: Verdicts,
}

/// What the scores rest on.
#[derive(Debug, Serialize)]
pub struct Verdicts {
    pub helpfulness: Option<Rated>,
    pub logicality: Option<Rated>,
    pub completeness: Option<Rated>,
    /// Which of the prompt's lists of extracts completeness rests on.
    pub extracts: Option<usize>,
    pub faithfulness: Option<Listing>,
    pub statements: Vec<Statement>,
    pub stopped: Option<EarlyStop>,
}

/// Faithfulness but for the statements themselves.
#[derive(Debug, Serialize)]
pub struct Listing {
    pub analysis: String,
    pub attempts: u32,
    /// The list itself or one of the verdicts on its statements.
    pub forced: bool,
    /// The list itself, where the file says so.
    pub listing_forced: Option<bool>,
    /// By its budget.
    pub cut: bool,
    pub no_statements: bool,
    pub expected: Option<f64>,
    /// The expected value before a calibration.
    pub uncalibrated: Option<f64>,
}

/// A statement, its evidence given by number.
#[derive(Debug, Serialize)]
pub struct Statement {
    pub fact: String,
    pub analysis: String,
    /// 1 fully, 0.5 partially, 0 not supported; of several votes between them.
    pub score: f64,
    /// The nearest of them.
    pub degree: Degree,
    pub attempts: u32,
    pub forced: bool,
    /// Probabilities of fully, partially, not supported.
    pub distribution: Vec<f64>,
    pub expected: Option<f64>,
    pub uncalibrated: Option<Uncalibrated>,
    pub votes: Option<Box<Votes>>,
    pub estimate: Option<crate::chat::Estimate>,
    /// Whether it was checked against the whole document, where that was wanted.
    pub whole_document: Option<bool>,
    /// How many statements were checked in the same call, if not this one alone.
    pub statements_in_call: Option<usize>,
    /// Which of the prompt's passages.
    pub passages: Vec<usize>,
}

/// How far a statement is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Degree {
    Full,
    Partial,
    None,
}

impl Degree {
    pub const ALL: [Degree; 3] = [Degree::Full, Degree::Partial, Degree::None];

    /// The nearest to a score, of two the lower.
    fn of(score: f64) -> Self {
        match Level::of_score(score) {
            Level::Fully => Degree::Full,
            Level::Partially => Degree::Partial,
            Level::Not => Degree::None,
        }
    }
}

impl Candidate {
    /// Characters of the answer.
    pub fn chars(&self) -> usize {
        self.answer.chars().count()
    }

    pub fn total(&self) -> Option<f64> {
        self.scores[TOTAL]
    }

    /// How many statements have this degree of support.
    pub fn supported(&self, degree: Degree) -> usize {
        self.verdicts.statements.iter().filter(|statement| statement.degree == degree).count()
    }
}

impl Verdicts {
    /// From the row's details; `passage` gives the number of a passage, `extracts` of a list of them.
    pub fn new(
        details: Details,
        stopped: Option<EarlyStop>,
        extracts: Option<usize>,
        passage: impl FnMut(Evidence) -> usize,
    ) -> Self {
        let Details { helpfulness, logicality, faithfulness, completeness } = details;
        let (faithfulness, statements) = faithfulness.map(|found| listing(found, passage)).unzip();
        Self {
            helpfulness: helpfulness.map(compact),
            logicality: logicality.map(compact),
            completeness: completeness.map(|found| compact(found.rated)),
            extracts,
            faithfulness,
            statements: statements.unwrap_or_default(),
            stopped,
        }
    }

    /// The rating in a dimension; faithfulness has none.
    pub fn rated(&self, dimension: Dimension) -> Option<&Rated> {
        match dimension {
            Dimension::Helpfulness => self.helpfulness.as_ref(),
            Dimension::Logicality => self.logicality.as_ref(),
            Dimension::Completeness => self.completeness.as_ref(),
            Dimension::Faithfulness => None,
        }
    }

    /// Replies that all verdicts took; of a reply on several statements each has its share.
    pub fn replies(&self) -> f64 {
        let rated: u32 =
            Dimension::ALL.iter().filter_map(|&d| self.rated(d)).map(|r| r.attempts).sum();
        let listed = self.faithfulness.as_ref().map_or(0, |listing| listing.attempts);
        f64::from(rated + listed) + self.statements.iter().map(Statement::replies).sum::<f64>()
    }
}

impl Statement {
    fn new(supported: Supported, passage: impl FnMut(Evidence) -> usize) -> Self {
        let Supported { fact, analysis, score, evidences, attempts, forced, .. } = supported;
        let Supported { distribution, expected, uncalibrated, votes, estimate, .. } = supported;
        let Supported { whole_document, statements_in_call, .. } = supported;
        Self {
            fact,
            analysis,
            score,
            degree: Degree::of(score),
            attempts,
            forced,
            distribution: rounded(distribution),
            expected,
            uncalibrated: uncalibrated.map(as_shown),
            votes,
            estimate,
            whole_document,
            statements_in_call,
            passages: evidences.into_iter().map(passage).collect(),
        }
    }

    /// Its share of the replies that it was read from.
    pub fn replies(&self) -> f64 {
        f64::from(self.attempts) / self.statements_in_call.unwrap_or(1).max(1) as f64
    }

    /// Of each vote the replies, and whether it was forced.
    pub fn readings(&self) -> Vec<(u32, bool)> {
        readings(self.votes.as_deref(), self.attempts, self.forced)
    }
}

fn listing(
    found: Faithfulness,
    mut passage: impl FnMut(Evidence) -> usize,
) -> (Listing, Vec<Statement>) {
    let Faithfulness { details, analysis, attempts, forced, no_statements, .. } = found;
    let Faithfulness { listing_forced, cut, expected, uncalibrated, .. } = found;
    let statements = details.into_iter().map(|one| Statement::new(one, &mut passage)).collect();
    let told = Listing {
        analysis,
        attempts,
        forced,
        listing_forced,
        cut,
        no_statements,
        expected,
        uncalibrated,
    };
    (told, statements)
}

/// As many digits as a screen can show.
fn rounded(distribution: Vec<f64>) -> Vec<f64> {
    distribution.into_iter().map(|p| (p * 1e4).round() / 1e4).collect()
}

fn as_shown(was: Uncalibrated) -> Uncalibrated {
    Uncalibrated { distribution: rounded(was.distribution), ..was }
}

fn compact(rated: Rated) -> Rated {
    let uncalibrated = rated.uncalibrated.map(as_shown);
    Rated { distribution: rounded(rated.distribution), uncalibrated, ..rated }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_of_votes_has_the_nearest_degree() {
        let degrees = [1.0, 0.8, 0.75, 0.5, 0.3, 0.25, 0.0].map(Degree::of);
        use Degree::{Full, None, Partial};
        assert_eq!(degrees, [Full, Full, Partial, Partial, Partial, None, None]);
    }
}
