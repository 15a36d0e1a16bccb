//! The work on a claim: one verdict on it and its nearest passages.

use super::{Method, Tools};
use crate::agree::labels::Claim;
use crate::agree::passages::Passages;
use crate::judge::{Ask, Evidence, Supported, Verdict};
use crate::pipeline::Judging;
use crate::retrieval::EmbedError;

#[derive(Debug)]
pub(super) struct ClaimWork {
    claim: String,
    evidence: Vec<Evidence>,
    /// Until it is asked.
    ask: Option<Ask>,
    found: Option<Supported>,
}

impl ClaimWork {
    /// Finds the passages of the evidence that are nearest to the claim.
    pub fn new(
        claim: &Claim,
        judging: &Judging,
        method: &Method,
        tools: &mut Tools,
    ) -> Result<Self, EmbedError> {
        let Claim { query, claim, evidence, .. } = claim;
        let mut passages = Passages::of_sentences(evidence, method.claim_passage, tools.tokens);
        let found = passages.evidence(tools.retriever, &[claim], method.passages)?;
        let evidence: Vec<Evidence> = found.into_iter().flatten().collect();
        let texts: Vec<&str> = evidence.iter().map(|one| one.content.as_str()).collect();
        let lang = judging.judge.lang(&[query, claim]);
        let ask = Some(judging.judge.support(lang, query, claim, &texts));
        Ok(Self { claim: claim.clone(), evidence, ask, found: None })
    }

    pub fn next(&mut self) -> Option<Ask> {
        self.ask.take()
    }

    pub fn put(&mut self, verdict: Verdict) -> Result<(), String> {
        let found = Supported::new(self.claim.clone(), verdict, self.evidence.clone());
        self.found = Some(found.ok_or("the verdict is no degree of support")?);
        Ok(())
    }

    pub fn found(&self) -> Option<Supported> {
        self.found.clone()
    }
}
