//! The work on the answers to one question: each is judged by itself, in the dimensions asked for.

use super::record::Details;
use super::{Method, Tools, needs_document};
use crate::judge::{Ask, Dimension, Lang, Rated, Verdict};
use crate::pipeline::passages::Passages;
use crate::pipeline::records::input_hash;
use crate::pipeline::{Asker, ByKind, Check, Extracts, Facts, Judging, Lookup, PLAIN, WEIGHED};
use crate::retrieval::sentences::statements_of;
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
    /// Check one or several statements of an answer.
    Fact(usize, Check),
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

/// What the answers are about; empty if nothing is given, or no dimension reads it.
#[derive(Debug)]
struct Document {
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
    facts: Facts,
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
        // Most documents are long: they are kept and cut only where they are read.
        let is_read = dimensions.iter().any(|dimension| needs_document(*dimension));
        let text = context.filter(|_| is_read).unwrap_or_default();
        let document = Document::new(text, complete, judging, method, tools);
        let answer = |text: &&str| Answer {
            text: (*text).to_owned(),
            hash: input_hash(&[text]),
            lang: judging.judge.lang(&[query, text]),
            rated: [const { None }; 4],
            facts: Facts::default(),
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
            Part::Fact(answer, check) => format!("{}/{}", hash(answer), check.key()),
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
            Part::Fact(a, check) => {
                let asker = Asker { judge, lang: of(a).0, query };
                self.answers[a].facts.ask(check, asker, &self.document.passages)
            }
            Part::Extract(chunk) => {
                let Document { passages, extracts } = &self.document;
                extracts.ask(judging, passages.text(), query, chunk)
            }
        }
    }

    /// Takes a verdict; the error says why the record can't be made.
    pub fn put(
        &mut self,
        part: Part,
        verdict: Verdict,
        judging: &Judging,
        method: &Method,
        tools: &mut Tools,
    ) -> Result<(), String> {
        match part {
            Part::Rate(dimension, answer) => {
                let rated = Rated::new(verdict).ok_or("the verdict is no rating")?;
                self.answers[answer].rated[dimension as usize] = Some(rated);
            }
            Part::Statements(answer) => {
                let Answer { facts, lang, .. } = &mut self.answers[answer];
                let asker = Asker { judge: &judging.judge, lang: *lang, query: &self.query };
                let Tools { tokens, retriever } = tools;
                let lookup = Lookup { how: method.evidence, retriever, tokens };
                let checks = facts.begin(verdict, asker, &mut self.document.passages, lookup)?;
                self.ready.extend(checks.into_iter().map(|check| Part::Fact(answer, check)));
            }
            Part::Fact(answer, check) => {
                let facts = &mut self.answers[answer].facts;
                let more = facts.take(check, verdict, &self.document.passages)?;
                self.ready.extend(more.into_iter().map(|check| Part::Fact(answer, check)));
            }
            Part::Extract(chunk) => self.extract(chunk, &verdict)?,
        }
        Ok(())
    }

    /// Asks something else where a part failed, if there is something.
    pub fn ask_instead(&mut self, part: Part) -> bool {
        let Part::Fact(answer, check) = part else { return false };
        let instead = check.instead().map(|check| Part::Fact(answer, check));
        self.ready.extend(instead);
        instead.is_some()
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

    /// Verdicts that are to come and were not asked for yet, as far as that is known.
    pub fn ahead(&self) -> ByKind {
        let is_plain = |part: &&Part| matches!(part, Part::Statements(_) | Part::Extract(_));
        let plain = self.ready.iter().filter(is_plain).count();
        let mut ahead = [0.0; 2];
        (ahead[PLAIN], ahead[WEIGHED]) = (plain as f64, (self.ready.len() - plain) as f64);
        for answer in &self.answers {
            let rated = |dimension| answer.rated[dimension as usize].is_some();
            let waits = |dimension: &Dimension| match dimension {
                Dimension::Faithfulness => !answer.facts.is_listed(),
                Dimension::Completeness => {
                    !rated(*dimension) && !self.document.extracts.is_complete()
                }
                _ => false,
            };
            for dimension in self.dimensions.iter().filter(|dimension| waits(dimension)) {
                ahead[WEIGHED] += verdicts_on(*dimension, &answer.text);
            }
        }
        ahead
    }

    /// What was found of each answer, if all verdicts are there.
    pub fn found(&self) -> Option<Vec<Details>> {
        self.answers.iter().map(|answer| self.answered(answer)).collect()
    }

    fn answered(&self, answer: &Answer) -> Option<Details> {
        let mut found = Details::default();
        for &dimension in &self.dimensions {
            let rated = || answer.rated[dimension as usize].clone();
            match dimension {
                Dimension::Helpfulness => found.helpfulness = Some(rated()?),
                Dimension::Logicality => found.logicality = Some(rated()?),
                Dimension::Faithfulness => {
                    found.faithfulness = Some(answer.facts.faithfulness()?);
                }
                Dimension::Completeness => {
                    found.completeness = Some(self.document.extracts.completeness(rated()?));
                }
            }
        }
        Some(found)
    }
}

/// Ratings or labels that an answer needs in a dimension: of faithfulness about one for each sentence.
pub(super) fn verdicts_on(dimension: Dimension, answer: &str) -> f64 {
    match dimension {
        Dimension::Faithfulness => statements_of(answer).len() as f64,
        _ => 1.0,
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
        let tokens = (tools.tokens)(text);
        let chunks = method.cutting.cut(text, &tokens);
        let extracts = match with_extracts {
            true => Extracts::cut(text, &tokens, judging.chunk_tokens),
            false => Extracts::cut("", &[], judging.chunk_tokens),
        };
        Self { passages: Passages::new(text.to_owned(), chunks), extracts }
    }
}
