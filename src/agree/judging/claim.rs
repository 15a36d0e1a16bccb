//! The work on a claim: one verdict on it and its nearest passages.

use super::{Method, Tools};
use crate::agree::labels::Claim;
use crate::agree::passages::passages_of;
use crate::judge::{Ask, Outcome, Supported, Verdict};
use crate::pipeline::passages::Passages;
use crate::pipeline::{Asker, Check, Facts, Judging, Lookup};

/// A claim is the one statement of an answer.
const CLAIM: Check = Check::One(0);

#[derive(Debug)]
pub(super) struct ClaimWork {
    facts: Facts,
    passages: Passages,
    /// Until it is asked.
    ask: Option<Ask>,
}

impl ClaimWork {
    /// Finds the passages of the evidence that are nearest to the claim.
    pub fn new(
        claim: &Claim,
        judging: &Judging,
        method: &Method,
        tools: &mut Tools,
    ) -> Result<Self, String> {
        let Claim { query, claim, evidence, .. } = claim;
        let mut passages = passages_of(evidence, method.claim_passage, tools.tokens);
        let lang = judging.judge.lang(&[query, claim]);
        let asker = Asker { judge: &judging.judge, lang, query };
        let Tools { tokens, retriever } = tools;
        let lookup = Lookup { how: method.evidence, retriever, tokens };
        let mut facts = Facts::default();
        facts.begin(listed(claim), asker, &mut passages, lookup)?;
        let ask = Some(facts.ask(CLAIM, asker, &passages));
        Ok(Self { facts, passages, ask })
    }

    pub fn is_to_be_asked(&self) -> bool {
        self.ask.is_some()
    }

    pub fn next(&mut self) -> Option<Ask> {
        self.ask.take()
    }

    pub fn put(&mut self, verdict: Verdict) -> Result<(), String> {
        self.facts.take(CLAIM, verdict, &self.passages).map(|_| ())
    }

    pub fn found(&self) -> Option<Supported> {
        self.facts.faithfulness()?.details.pop()
    }
}

/// The list of statements that a judge would have made of the claim.
fn listed(claim: &str) -> Verdict {
    let listed = Verdict::new(Outcome::Statements(vec![claim.to_owned()]), "");
    Verdict { attempts: 0, ..listed }
}
