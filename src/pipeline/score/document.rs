//! The work on one document: which units can start, and what their verdicts lead to.

use super::Method;
use super::answer::{Answer, rated};
use crate::judge::{Ask, Evidence, Verdict};
use crate::pipeline::Error;
use crate::pipeline::data::ResponseRow;
use crate::pipeline::drive::{Finished, Unit, Work};
use crate::pipeline::extracts::Extracts;
use crate::pipeline::records::{ChunkInfo, Prompt};
use crate::retrieval::chunk::{Chunk, chunks};
use crate::retrieval::{Index, Retriever};
use std::collections::BTreeSet;
use std::ops::Range;

/// A unit of the work, by the position of its answer among those of the document. What can start
/// starts in this order: first what other units wait for; and units of one kind, which share their
/// prompt's beginning, next to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// List the statements of an answer.
    Statements(usize),
    /// Extract from this chunk.
    Extract(usize),
    Helpfulness(usize),
    Logicality(usize),
    /// Check this statement of an answer.
    Support(usize, usize),
    Completeness(usize),
}

impl Part {
    /// The answer that it is about, if it is about one alone.
    fn answer(self) -> Option<usize> {
        match self {
            Part::Extract(_) => None,
            Part::Statements(answer)
            | Part::Helpfulness(answer)
            | Part::Logicality(answer)
            | Part::Support(answer, _)
            | Part::Completeness(answer) => Some(answer),
        }
    }
}

/// A document with its question and the answers to be scored.
#[derive(Debug)]
pub(super) struct Document {
    prompt: Prompt,
    hash: String,
    passages: Vec<Chunk>,
    /// Of the passages; made when the first statement is there.
    index: Option<Index>,
    extracts: Extracts,
    /// Whether a row for the extracts is still to be written.
    owes_extracts: bool,
    answers: Vec<Answer>,
    ready: BTreeSet<Part>,
}

impl Document {
    pub fn new<'a>(
        prompt: Prompt,
        hash: &str,
        tokens: &[(u32, Range<usize>)],
        given: Option<&ChunkInfo>,
        responses: impl Iterator<Item = &'a ResponseRow>,
        method: &Method,
    ) -> Self {
        let chunk_tokens = method.judging.chunk_tokens;
        let passages = chunks(&prompt.context, tokens, method.passage_tokens);
        let extracts = match given {
            Some(info) => Extracts::given(info),
            None => Extracts::cut(&prompt.context, tokens, chunk_tokens),
        };
        let answers = responses.map(|row| Answer::new(row, &method.judging.judge)).collect();
        let owes_extracts = given.is_none();
        let (hash, index, ready) = (hash.to_owned(), None, BTreeSet::new());
        let mut document =
            Self { prompt, hash, passages, index, extracts, owes_extracts, answers, ready };
        document.begin();
        document
    }

    /// What waits for nothing.
    fn begin(&mut self) {
        for answer in 0..self.answers.len() {
            let parts = [Part::Statements, Part::Helpfulness, Part::Logicality];
            self.ready.extend(parts.map(|part| part(answer)));
        }
        self.ready.extend(self.extracts.missing().map(Part::Extract));
        self.begin_completeness();
    }

    /// Completeness waits for all extracts.
    fn begin_completeness(&mut self) {
        if self.extracts.is_complete() {
            let open = (0..self.answers.len()).filter(|&answer| !self.answers[answer].settled);
            self.ready.extend(open.map(Part::Completeness));
        }
    }

    /// The next unit.
    pub fn next(&mut self, method: &Method) -> Option<Unit<Part>> {
        let part = self.ready.pop_first()?;
        Some(Unit { part, key: self.key(part), work: Work::Judge(self.ask(part, method)) })
    }

    fn key(&self, part: Part) -> String {
        let id = |answer: usize| self.answers[answer].id();
        match part {
            Part::Extract(chunk) => Extracts::key(self.prompt.idx, chunk),
            Part::Statements(answer) => format!("{}/statements", id(answer)),
            Part::Helpfulness(answer) => format!("{}/helpfulness", id(answer)),
            Part::Logicality(answer) => format!("{}/logicality", id(answer)),
            Part::Support(answer, fact) => format!("{}/support/{fact}", id(answer)),
            Part::Completeness(answer) => format!("{}/completeness", id(answer)),
        }
    }

    fn ask(&self, part: Part, method: &Method) -> Ask {
        let judge = &method.judging.judge;
        let (query, context) = (&self.prompt.query, &self.prompt.context);
        let answer = |answer: usize| (self.answers[answer].lang, self.answers[answer].text());
        match part {
            Part::Extract(chunk) => self.extracts.ask(&method.judging, context, query, chunk),
            Part::Statements(a) => judge.statements(answer(a).0, query, answer(a).1),
            Part::Helpfulness(a) => judge.helpfulness(answer(a).0, query, answer(a).1),
            Part::Logicality(a) => judge.logicality(answer(a).0, query, answer(a).1),
            Part::Support(a, fact) => {
                let fact = &self.answers[a].facts[fact];
                let evidence = fact.evidence.iter().map(|evidence| evidence.content.as_str());
                judge.support(answer(a).0, query, &fact.text, &evidence.collect::<Vec<_>>())
            }
            Part::Completeness(a) => {
                judge.completeness(answer(a).0, query, answer(a).1, &self.extracts.list())
            }
        }
    }

    fn passage(&self, passage: usize) -> &str {
        &self.prompt.context[self.passages[passage].bytes.clone()]
    }

    /// Takes a verdict. The error says why the records that need it can't be made.
    pub fn take(
        &mut self,
        part: Part,
        verdict: Verdict,
        retriever: &mut Retriever,
        passages: usize,
    ) -> Result<(), String> {
        match part {
            Part::Extract(chunk) => {
                self.extracts.put(chunk, &verdict)?;
                self.begin_completeness();
            }
            Part::Statements(answer) => {
                self.answers[answer].list(verdict)?;
                self.look_up(answer, retriever, passages)?;
                let facts = 0..self.answers[answer].facts.len();
                self.ready.extend(facts.map(|fact| Part::Support(answer, fact)));
                // Of an answer that failed meanwhile.
                self.drop_useless();
            }
            Part::Helpfulness(answer) => self.answers[answer].helpfulness = rated(verdict)?,
            Part::Logicality(answer) => self.answers[answer].logicality = rated(verdict)?,
            Part::Completeness(answer) => self.answers[answer].completeness = rated(verdict)?,
            Part::Support(answer, fact) => self.answers[answer].support(fact, verdict)?,
        }
        Ok(())
    }

    /// Finds the evidence for all statements of an answer.
    fn look_up(
        &mut self,
        answer: usize,
        retriever: &mut Retriever,
        passages: usize,
    ) -> Result<(), String> {
        let Answer { facts, settled, .. } = &self.answers[answer];
        if facts.is_empty() || *settled {
            return Ok(());
        }
        let index = match self.index.take() {
            Some(index) => index,
            None => {
                let texts = (0..self.passages.len()).map(|passage| self.passage(passage));
                let texts: Vec<&str> = texts.collect();
                retriever.index(&texts).map_err(|e| e.to_string())?
            }
        };
        let queries: Vec<&str> = facts.iter().map(|fact| fact.text.as_str()).collect();
        let found = retriever.search(&index, &queries, passages).map_err(|e| e.to_string())?;
        self.index = Some(index);
        for (fact, passages) in found.iter().enumerate() {
            let evidence = self.evidence(passages);
            self.answers[answer].facts[fact].evidence = evidence;
        }
        Ok(())
    }

    /// Gives up the records that need this part: one, or with an extract all that are open.
    pub fn fail(&mut self, part: Part, why: &str) -> Vec<Finished> {
        let reason = match part {
            Part::Extract(chunk) => format!("extract at {}: {why}", self.extracts.place(chunk)),
            Part::Statements(_) => format!("faithfulness, statements: {why}"),
            Part::Helpfulness(_) => format!("helpfulness: {why}"),
            Part::Logicality(_) => format!("logicality: {why}"),
            Part::Support(_, fact) => format!("faithfulness, statement {}: {why}", fact + 1),
            Part::Completeness(_) => format!("completeness: {why}"),
        };
        let hit = |answer: usize| part.answer().is_none_or(|one| one == answer);
        let mut failed = Vec::new();
        for (_, answer) in self.answers.iter_mut().enumerate().filter(|(i, _)| hit(*i)) {
            if !answer.settled {
                answer.settled = true;
                failed.push(Finished::failed(answer.id(), reason.as_str()));
            }
        }
        self.drop_useless();
        failed
    }

    /// Forgets units that no open record needs.
    fn drop_useless(&mut self) {
        let answers = &self.answers;
        let open = |answer: usize| !answers[answer].settled;
        let any = (0..answers.len()).any(open);
        self.ready.retain(|part| part.answer().map_or(any, open));
    }

    /// The row of `chunk_info.jsonl`, once, when all extracts are there.
    pub fn extracts_row(&mut self) -> Result<Option<Finished>, Error> {
        if !self.owes_extracts || !self.extracts.is_complete() {
            return Ok(None);
        }
        self.owes_extracts = false;
        let Prompt { idx, query, .. } = &self.prompt;
        let row = self.extracts.row(*idx, query, &self.hash);
        Finished::record(1, idx, &row).map(Some)
    }

    /// The rows of answers whose last verdict has come.
    pub fn scored_rows(&mut self, method: &Method) -> Result<Vec<Finished>, Error> {
        let mut rows = Vec::new();
        for answer in &mut self.answers {
            if let Some(row) = answer.row(&self.extracts, method) {
                rows.push(Finished::record(0, answer.id(), &row)?);
                answer.settled = true;
            }
        }
        Ok(rows)
    }

    fn evidence(&self, passages: &[usize]) -> Vec<Evidence> {
        let evidence = |&c_idx: &usize| {
            let Chunk { tokens, total_tokens, .. } = &self.passages[c_idx];
            Evidence {
                c_idx,
                content: self.passage(c_idx).to_owned(),
                start_idx: tokens.start,
                end_idx: tokens.end,
                total_token: *total_tokens,
            }
        };
        passages.iter().map(evidence).collect()
    }
}
