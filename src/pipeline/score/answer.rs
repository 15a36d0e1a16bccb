//! What is known of one answer, and its row when everything is.

use super::Method;
use crate::judge::{Completeness, Evidence, Faithfulness, Judge, Lang, Rated, Supported, Verdict};
use crate::pipeline::data::ResponseRow;
use crate::pipeline::extracts::Extracts;
use crate::pipeline::records::{
    CompletenessDetails, Details, Extra, Response, SampleId, ScoredRow, Scores,
};

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
    /// The verdict that listed the statements.
    listing: Option<Verdict>,
    pub facts: Vec<Fact>,
    /// Its row is written, or it has failed.
    pub settled: bool,
}

/// A statement of an answer.
#[derive(Debug)]
pub(super) struct Fact {
    pub text: String,
    pub evidence: Vec<Evidence>,
    pub supported: Option<Supported>,
}

impl Answer {
    pub fn new(row: &ResponseRow, judge: &Judge) -> Self {
        let response = row.response.clone();
        let lang = judge.lang(&[&response.query, &response.answer]);
        Self {
            response,
            hash: row.hash.clone(),
            lang,
            helpfulness: None,
            logicality: None,
            completeness: None,
            listing: None,
            facts: Vec::new(),
            settled: false,
        }
    }

    pub fn id(&self) -> SampleId {
        self.response.idx
    }

    pub fn text(&self) -> &str {
        &self.response.answer
    }

    /// Takes the list of statements.
    pub fn list(&mut self, verdict: Verdict) -> Result<(), String> {
        let texts = verdict.statements().ok_or("the verdict lists no statements")?;
        let fact =
            |text: &String| Fact { text: text.clone(), evidence: Vec::new(), supported: None };
        self.facts = texts.iter().map(fact).collect();
        self.listing = Some(verdict);
        Ok(())
    }

    /// Takes the verdict on a statement.
    pub fn support(&mut self, fact: usize, verdict: Verdict) -> Result<(), String> {
        let Fact { text, evidence, supported } = &mut self.facts[fact];
        let found = Supported::new(text.clone(), verdict, evidence.clone());
        *supported = Some(found.ok_or("the verdict is no degree of support")?);
        Ok(())
    }

    /// The row, if it is not written yet and all verdicts are there.
    pub fn row(&self, extracts: &Extracts, method: &Method) -> Option<ScoredRow<'_>> {
        if self.settled {
            return None;
        }
        let (helpfulness, logicality) = (self.helpfulness.clone()?, self.logicality.clone()?);
        let rated = self.completeness.clone()?;
        let supported = self.facts.iter().map(|fact| fact.supported.clone());
        let faithfulness =
            Faithfulness::new(self.listing.as_ref()?, supported.collect::<Option<_>>()?);
        let completeness = Completeness { rated, info_list: extracts.info_list() };
        let forced_extracts = extracts.forced();
        let completeness = CompletenessDetails { completeness, forced_extracts };
        let mut details = Details { helpfulness, logicality, faithfulness, completeness };
        if let Some(calibration) = &method.calibration {
            details.calibrate(calibration);
        }
        Some(ScoredRow {
            idx: self.response.idx,
            query: &self.response.query,
            answer: &self.response.answer,
            extra: self.extra(),
            scores: Scores::new(details.scores(method.score_by)),
            forced: details.forced(),
            details,
            input_hash: &self.hash,
        })
    }

    /// Extra fields of the response, but for those that scoring writes itself.
    fn extra(&self) -> Extra {
        let ours = |name: &str| matches!(name, "scores" | "details" | "forced");
        let extra = self.response.extra.iter().filter(|(name, _)| !ours(name));
        extra.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// What a verdict says of helpfulness, logicality or completeness.
pub(super) fn rated(verdict: Verdict) -> Result<Option<Rated>, String> {
    Rated::new(verdict).map(Some).ok_or("the verdict is no rating".to_owned())
}
