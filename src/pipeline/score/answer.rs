//! What is known of one answer, and its row when everything is, or when the rest does not matter.

use super::Method;
use super::waves::{Bounds, WAVES};
use crate::judge::{Dimension, Judge, Lang, Rated, Verdict, rounded};
use crate::pipeline::Facts;
use crate::pipeline::data::ResponseRow;
use crate::pipeline::extracts::Extracts;
use crate::pipeline::records::{
    Details, EarlyStop, Extra, PartialScores, Response, SampleId, ScoredRow, Scores, StoppedRow,
};
use crate::retrieval::sentences::statements_of;

/// An answer on its way to four scores.
#[derive(Debug)]
pub(super) struct Answer {
    response: Response,
    hash: String,
    /// Of the prompts that are about this answer.
    pub lang: Lang,
    pub helpfulness: Option<Rated>,
    pub logicality: Option<Rated>,
    pub completeness: Option<Rated>,
    pub facts: Facts,
    /// Of its text, for telling how much work it is.
    pub sentences: usize,
    /// Waves of dimensions that were begun.
    pub waves: usize,
    /// Its row is written, or it has failed.
    pub settled: bool,
}

impl Answer {
    pub fn new(row: &ResponseRow, judge: &Judge) -> Self {
        let response = row.response.clone();
        let lang = judge.lang(&[&response.query, &response.answer]);
        let sentences = statements_of(&response.answer).len();
        Self {
            sentences,
            response,
            hash: row.hash.clone(),
            lang,
            helpfulness: None,
            logicality: None,
            completeness: None,
            facts: Facts::default(),
            waves: 0,
            settled: false,
        }
    }

    pub fn id(&self) -> SampleId {
        self.response.idx
    }

    pub fn text(&self) -> &str {
        &self.response.answer
    }

    /// Whether everything is there that its waves ask for.
    pub fn is_abreast(&self) -> bool {
        WAVES[..self.waves].iter().flat_map(|wave| wave.iter()).all(|&one| self.has(one))
    }

    /// Whether the wave of this dimension has begun.
    pub fn has_begun(&self, dimension: Dimension) -> bool {
        WAVES[..self.waves].iter().any(|wave| wave.contains(&dimension))
    }

    fn has(&self, dimension: Dimension) -> bool {
        match dimension {
            Dimension::Helpfulness => self.helpfulness.is_some(),
            Dimension::Logicality => self.logicality.is_some(),
            Dimension::Faithfulness => self.facts.is_complete(),
            Dimension::Completeness => self.completeness.is_some(),
        }
    }

    /// The verdicts that are there, corrected if there is a calibration.
    fn details(&self, extracts: &Extracts, method: &Method) -> Details {
        let completeness = self.completeness.clone();
        let mut details = Details {
            helpfulness: self.helpfulness.clone(),
            logicality: self.logicality.clone(),
            faithfulness: self.facts.faithfulness(),
            completeness: completeness.map(|rated| extracts.completeness(rated)),
        };
        if let Some(calibration) = &method.calibration {
            details.calibrate(calibration);
        }
        details
    }

    /// The scores that are there, rounded as in its row.
    pub fn scores(&self, extracts: &Extracts, method: &Method) -> [Option<f64>; 4] {
        self.details(extracts, method).scores(method.score_by).map(|score| score.map(rounded))
    }

    /// The row, if it is not written yet and all verdicts are there.
    pub fn row(&self, extracts: &Extracts, method: &Method) -> Option<ScoredRow<'_>> {
        if self.settled || !Dimension::ALL.into_iter().all(|dimension| self.has(dimension)) {
            return None;
        }
        let details = self.details(extracts, method);
        let [Some(helpfulness), Some(logicality), Some(faithfulness), Some(completeness)] =
            details.scores(method.score_by)
        else {
            return None;
        };
        Some(ScoredRow {
            idx: self.response.idx,
            query: &self.response.query,
            answer: &self.response.answer,
            extra: self.extra(),
            scores: Scores::new([helpfulness, logicality, faithfulness, completeness]),
            forced: details.forced(),
            details,
            input_hash: &self.hash,
        })
    }

    /// The row of an answer that was not judged to the end.
    pub fn stopped_row(&self, extracts: &Extracts, method: &Method) -> StoppedRow<'_> {
        let scores = self.scores(extracts, method);
        let details = self.details(extracts, method);
        let Bounds { least, most } = Bounds::new(&scores);
        let missing = Dimension::ALL.into_iter().filter(|&one| scores[one as usize].is_none());
        StoppedRow {
            idx: self.response.idx,
            query: &self.response.query,
            answer: &self.response.answer,
            extra: self.extra(),
            scores: PartialScores::new(scores),
            early_stop: EarlyStop::new(missing.collect(), least, most),
            forced: details.forced(),
            details,
            input_hash: &self.hash,
        }
    }

    /// Extra fields of the response, but for those that scoring writes itself.
    fn extra(&self) -> Extra {
        let ours = |name: &str| matches!(name, "scores" | "details" | "forced" | "early_stop");
        let extra = self.response.extra.iter().filter(|(name, _)| !ours(name));
        extra.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// What a verdict says of helpfulness, logicality or completeness.
pub(super) fn rated(verdict: Verdict) -> Result<Option<Rated>, String> {
    Rated::new(verdict).map(Some).ok_or("the verdict is no rating".to_owned())
}
