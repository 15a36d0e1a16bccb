//! The work on the answers to one question: each is judged by itself, in the dimensions asked for.

use super::record::Answered;
use super::{Method, Tools, needs_document};
use crate::agree::passages::Passages;
use crate::judge::{
    Ask, Completeness, Dimension, Evidence, Faithfulness, Lang, Rated, Supported, Verdict,
};
use crate::pipeline::records::input_hash;
use crate::pipeline::{Extracts, Judging};
use crate::retrieval::Retriever;
use std::collections::BTreeSet;

/// A unit of the work, in the order in which those that can start are started. Answers are known by
/// their position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// List the statements of an answer.
    Statements(usize),
    /// Extract from this chunk of the document.
    Extract(usize),
    /// Rate an answer in a dimension other than faithfulness.
    Rate(Dimension, usize),
    /// Check this statement of an answer.
    Fact(usize, usize),
}

#[derive(Debug)]
pub(super) struct Answers {
    query: String,
    document: Document,
    dimensions: Vec<Dimension>,
    answers: Vec<Answer>,
    /// What waits for nothing.
    ready: BTreeSet<Part>,
}

/// What the answers are about; empty if nothing is given.
#[derive(Debug)]
struct Document {
    text: String,
    passages: Passages,
    /// Empty unless completeness is asked for.
    extracts: Extracts,
}

#[derive(Debug)]
struct Answer {
    text: String,
    /// Names it in the keys of its units, so that its seeds hang on what it says, not on whether it
    /// was given first.
    hash: String,
    lang: Lang,
    rated: [Option<Rated>; 4],
    /// The verdict that listed the statements.
    listing: Option<Verdict>,
    facts: Vec<Fact>,
}

/// A statement of an answer.
#[derive(Debug)]
struct Fact {
    text: String,
    evidence: Vec<Evidence>,
    supported: Option<Supported>,
}

impl Answers {
    pub fn new(
        query: &str,
        context: Option<&str>,
        answers: &[&str],
        judging: &Judging,
        method: &Method,
        tools: &Tools,
    ) -> Self {
        let applies = |dimension: &Dimension| context.is_some() || !needs_document(*dimension);
        let dimensions: Vec<Dimension> =
            method.dimensions.iter().copied().filter(applies).collect();
        let complete = dimensions.contains(&Dimension::Completeness);
        let document = Document::new(context.unwrap_or_default(), complete, judging, method, tools);
        let answer = |text: &&str| Answer {
            text: (*text).to_owned(),
            hash: input_hash(&[text]),
            lang: judging.judge.lang(&[query, text]),
            rated: [const { None }; 4],
            listing: None,
            facts: Vec::new(),
        };
        let answers = answers.iter().map(answer).collect();
        let query = query.to_owned();
        let mut work = Self { query, document, dimensions, answers, ready: BTreeSet::new() };
        work.begin();
        work
    }

    fn begin(&mut self) {
        for &dimension in &self.dimensions {
            let answers = 0..self.answers.len();
            match dimension {
                Dimension::Faithfulness => self.ready.extend(answers.map(Part::Statements)),
                Dimension::Completeness => {
                    self.ready.extend(self.document.extracts.missing().map(Part::Extract));
                }
                _ => self.ready.extend(answers.map(|answer| Part::Rate(dimension, answer))),
            }
        }
    }

    /// The next unit: its part, its key within the record, and what to ask.
    pub fn next(&mut self, judging: &Judging) -> Option<(Part, String, Ask)> {
        let part = self.ready.pop_first()?;
        Some((part, self.key(part), self.ask(part, judging)))
    }

    fn key(&self, part: Part) -> String {
        let hash = |answer: usize| &self.answers[answer].hash;
        match part {
            Part::Extract(chunk) => format!("extract/{chunk}"),
            Part::Statements(answer) => format!("{}/statements", hash(answer)),
            Part::Rate(dimension, answer) => format!("{}/{}", hash(answer), dimension.name()),
            Part::Fact(answer, fact) => format!("{}/support/{fact}", hash(answer)),
        }
    }

    fn ask(&self, part: Part, judging: &Judging) -> Ask {
        let judge = &judging.judge;
        let query = &self.query;
        let of = |answer: usize| (self.answers[answer].lang, self.answers[answer].text.as_str());
        match part {
            Part::Statements(a) => judge.statements(of(a).0, query, of(a).1),
            Part::Rate(Dimension::Helpfulness, a) => judge.helpfulness(of(a).0, query, of(a).1),
            Part::Rate(Dimension::Completeness, a) => {
                judge.completeness(of(a).0, query, of(a).1, &self.document.extracts.list())
            }
            Part::Rate(_, a) => judge.logicality(of(a).0, query, of(a).1),
            Part::Fact(a, fact) => {
                let Fact { text, evidence, .. } = &self.answers[a].facts[fact];
                let evidence: Vec<&str> = evidence.iter().map(|e| e.content.as_str()).collect();
                judge.support(of(a).0, query, text, &evidence)
            }
            Part::Extract(chunk) => {
                let Document { text, extracts, .. } = &self.document;
                extracts.ask(judging, text, query, chunk)
            }
        }
    }

    /// Takes a verdict; the error says why the record can't be made.
    pub fn put(
        &mut self,
        part: Part,
        verdict: Verdict,
        retriever: &mut Retriever,
        passages: usize,
    ) -> Result<(), String> {
        match part {
            Part::Rate(dimension, answer) => {
                let rated = Rated::new(verdict).ok_or("the verdict is no rating")?;
                self.answers[answer].rated[dimension as usize] = Some(rated);
            }
            Part::Statements(answer) => self.list(answer, verdict, retriever, passages)?,
            Part::Fact(answer, fact) => {
                let Fact { text, evidence, supported } = &mut self.answers[answer].facts[fact];
                let found = Supported::new(text.clone(), verdict, evidence.clone());
                *supported = Some(found.ok_or("the verdict is no degree of support")?);
            }
            Part::Extract(chunk) => self.extract(chunk, &verdict)?,
        }
        Ok(())
    }

    /// Takes the statements of an answer, and finds evidence for each.
    fn list(
        &mut self,
        answer: usize,
        verdict: Verdict,
        retriever: &mut Retriever,
        passages: usize,
    ) -> Result<(), String> {
        let texts = verdict.statements().ok_or("the verdict lists no statements")?.to_vec();
        let queries: Vec<&str> = texts.iter().map(String::as_str).collect();
        let found = self.document.passages.evidence(retriever, &queries, passages);
        let found = found.map_err(|e| e.to_string())?;
        let facts = texts.into_iter().zip(found);
        let facts = facts.map(|(text, evidence)| Fact { text, evidence, supported: None });
        let this = &mut self.answers[answer];
        this.facts = facts.collect();
        this.listing = Some(verdict);
        self.ready.extend((0..this.facts.len()).map(|fact| Part::Fact(answer, fact)));
        Ok(())
    }

    /// Takes an extract; completeness can begin when all are there.
    fn extract(&mut self, chunk: usize, verdict: &Verdict) -> Result<(), String> {
        self.document.extracts.put(chunk, verdict)?;
        if self.document.extracts.is_complete() {
            let rate = |answer| Part::Rate(Dimension::Completeness, answer);
            self.ready.extend((0..self.answers.len()).map(rate));
        }
        Ok(())
    }

    /// What was found of each answer, if all verdicts are there.
    pub fn found(&self) -> Option<Vec<Answered>> {
        self.answers.iter().map(|answer| self.answered(answer)).collect()
    }

    fn answered(&self, answer: &Answer) -> Option<Answered> {
        let mut found = Answered::default();
        for &dimension in &self.dimensions {
            let rated = || answer.rated[dimension as usize].clone();
            match dimension {
                Dimension::Helpfulness => found.helpfulness = Some(rated()?),
                Dimension::Logicality => found.logicality = Some(rated()?),
                Dimension::Faithfulness => found.faithfulness = Some(answer.faithfulness()?),
                Dimension::Completeness => {
                    let info_list = self.document.extracts.info_list();
                    found.completeness = Some(Completeness { rated: rated()?, info_list });
                }
            }
        }
        Some(found)
    }
}

impl Document {
    fn new(
        text: &str,
        with_extracts: bool,
        judging: &Judging,
        method: &Method,
        tools: &Tools,
    ) -> Self {
        let extracted = if with_extracts { text } else { "" };
        let tokens = (tools.tokens)(extracted);
        Self {
            text: text.to_owned(),
            passages: Passages::cut(text, method.passage_tokens, tools.tokens),
            extracts: Extracts::cut(extracted, &tokens, judging.chunk_tokens),
        }
    }
}

impl Answer {
    fn faithfulness(&self) -> Option<Faithfulness> {
        let supported = self.facts.iter().map(|fact| fact.supported.clone());
        Some(Faithfulness::new(self.listing.as_ref()?, supported.collect::<Option<_>>()?))
    }
}
