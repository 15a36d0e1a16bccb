//! The work on one document: which units can start, and what their verdicts lead to.

use super::ahead::Seen;
use super::answer::{Answer, rated};
use super::waves::{Bounds, Recorded, WAVES, stopped};
use super::{Method, Tools};
use crate::judge::{Ask, Dimension, Judge, Settings, Verdict};
use crate::pipeline::data::ResponseRow;
use crate::pipeline::drive::{Finished, Unit, Work};
use crate::pipeline::extracts::Extracts;
use crate::pipeline::outlook::{ByKind, PLAIN, WEIGHED, add};
use crate::pipeline::passages::Passages;
use crate::pipeline::records::{ChunkInfo, Prompt};
use crate::pipeline::{Asker, Check, Error, Lookup};
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
    /// Check one or several statements of an answer.
    Support(usize, Check),
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
    idx: u64,
    query: String,
    hash: String,
    /// The document itself.
    passages: Passages,
    extracts: Extracts,
    /// Whether a row for the extracts is still to be written.
    owes_extracts: bool,
    answers: Vec<Answer>,
    ready: BTreeSet<Part>,
    /// With early stop: the answers that have their rows already. Without, `None`.
    recorded: Option<Vec<Recorded>>,
    /// No answer goes on to another wave.
    decided: bool,
}

/// What there is of a document before any call.
pub(super) struct Given<'a> {
    pub prompt: Prompt,
    pub hash: &'a str,
    /// Of the document.
    pub tokens: &'a [(u32, Range<usize>)],
    pub extracts: Option<&'a ChunkInfo>,
    /// See [`Document`].
    pub recorded: Option<Vec<Recorded>>,
}

impl Document {
    pub fn new<'a>(
        given: Given,
        responses: impl Iterator<Item = &'a ResponseRow>,
        method: &Method,
    ) -> Self {
        let Given { prompt, hash, tokens, extracts, recorded } = given;
        let Prompt { idx, query, context, .. } = prompt;
        let owes_extracts = extracts.is_none();
        let extracts = match extracts {
            Some(info) => Extracts::given(info),
            None => Extracts::cut(&context, tokens, method.judging.chunk_tokens),
        };
        let chunks = method.cutting.cut(&context, tokens);
        let mut document = Self {
            idx,
            query,
            hash: hash.to_owned(),
            passages: Passages::new(context, chunks),
            extracts,
            owes_extracts,
            answers: responses.map(|row| Answer::new(row, &method.judging.judge)).collect(),
            ready: BTreeSet::new(),
            recorded,
            decided: false,
        };
        document.begin();
        document
    }

    /// Says where evidence will be looked for, if nothing else counts as evidence.
    pub fn expect(&self, tools: &mut Tools, method: &Method) {
        if method.evidence.whole_document.is_none() {
            self.passages.expect(tools.retriever);
        }
    }

    /// What waits for nothing.
    fn begin(&mut self) {
        let waves = if self.recorded.is_some() { 1 } else { WAVES.len() };
        for answer in 0..self.answers.len() {
            (0..waves).for_each(|_| self.begin_wave(answer));
        }
        self.ready.extend(self.extracts.missing().map(Part::Extract));
    }

    /// Judges an answer in the dimensions of its next wave.
    fn begin_wave(&mut self, answer: usize) {
        let wave = WAVES[self.answers[answer].waves];
        self.answers[answer].waves += 1;
        for dimension in wave {
            let part = match dimension {
                Dimension::Helpfulness => Part::Helpfulness(answer),
                Dimension::Logicality => Part::Logicality(answer),
                Dimension::Faithfulness => Part::Statements(answer),
                // It waits for all extracts.
                Dimension::Completeness if !self.extracts.is_complete() => continue,
                Dimension::Completeness => Part::Completeness(answer),
            };
            self.ready.insert(part);
        }
    }

    /// Verdicts that are to come and were not asked for yet, however many votes each takes.
    pub fn ahead(&self, seen: &Seen, judge: &Judge) -> ByKind {
        let Settings { statements_per_call, .. } = *judge.settings();
        let mut ahead = [0.0; 2];
        for part in &self.ready {
            let is_plain = matches!(part, Part::Statements(_) | Part::Extract(_));
            ahead[if is_plain { PLAIN } else { WEIGHED }] += 1.0;
        }
        for answer in &self.answers {
            let more = seen.waiting(answer, self.extracts.is_complete(), statements_per_call);
            add(&mut ahead, more);
        }
        ahead
    }

    /// Chunks from which extracts are missing.
    pub fn chunks(&self) -> usize {
        self.extracts.missing().count()
    }

    /// Sentences of each answer.
    pub fn sentences(&self) -> impl Iterator<Item = usize> {
        self.answers.iter().map(|answer| answer.sentences)
    }

    /// If this part has cut an answer into statements: its sentences, and the checks that they lead to.
    pub fn checks(&self, part: Part) -> Option<(usize, usize)> {
        let Part::Statements(answer) = part else { return None };
        let of_answer = |other: &&Part| matches!(other, Part::Support(one, _) if *one == answer);
        let checks = self.ready.iter().filter(of_answer).count();
        Some((self.answers[answer].sentences, checks))
    }

    /// All extracts are there, so that completeness can be judged where its wave has begun.
    fn begin_completeness(&mut self) {
        let is_in = |wave: &&[Dimension]| wave.contains(&Dimension::Completeness);
        let open = self
            .answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| !answer.settled && WAVES[..answer.waves].iter().any(is_in));
        self.ready.extend(open.map(|(answer, _)| Part::Completeness(answer)));
    }

    /// The next unit.
    pub fn next(&mut self, method: &Method) -> Option<Unit<Part>> {
        let part = self.ready.pop_first()?;
        Some(Unit { part, key: self.key(part), work: Work::Judge(self.ask(part, method)) })
    }

    fn key(&self, part: Part) -> String {
        let id = |answer: usize| self.answers[answer].id();
        match part {
            Part::Extract(chunk) => Extracts::key(self.idx, chunk),
            Part::Statements(answer) => format!("{}/statements", id(answer)),
            Part::Helpfulness(answer) => format!("{}/helpfulness", id(answer)),
            Part::Logicality(answer) => format!("{}/logicality", id(answer)),
            Part::Support(answer, check) => format!("{}/{}", id(answer), check.key()),
            Part::Completeness(answer) => format!("{}/completeness", id(answer)),
        }
    }

    fn ask(&self, part: Part, method: &Method) -> Ask {
        let judge = &method.judging.judge;
        let (query, context) = (&self.query, self.passages.text());
        let answer = |answer: usize| (self.answers[answer].lang, self.answers[answer].text());
        match part {
            Part::Extract(chunk) => self.extracts.ask(&method.judging, context, query, chunk),
            Part::Statements(a) => judge.statements(answer(a).0, query, answer(a).1),
            Part::Helpfulness(a) => judge.helpfulness(answer(a).0, query, answer(a).1),
            Part::Logicality(a) => judge.logicality(answer(a).0, query, answer(a).1),
            Part::Support(a, check) => {
                let asker = Asker { judge, lang: answer(a).0, query };
                self.answers[a].facts.ask(check, asker, &self.passages)
            }
            Part::Completeness(a) => {
                judge.completeness(answer(a).0, query, answer(a).1, &self.extracts.list())
            }
        }
    }

    /// Takes a verdict. The error says why the records that need it can't be made.
    pub fn take(
        &mut self,
        part: Part,
        verdict: Verdict,
        tools: &mut Tools,
        method: &Method,
    ) -> Result<(), String> {
        match part {
            Part::Extract(chunk) => {
                self.extracts.put(chunk, &verdict)?;
                if self.extracts.is_complete() {
                    self.begin_completeness();
                }
            }
            Part::Statements(answer) => self.list(answer, verdict, tools, method)?,
            Part::Helpfulness(answer) => self.answers[answer].helpfulness = rated(verdict)?,
            Part::Logicality(answer) => self.answers[answer].logicality = rated(verdict)?,
            Part::Completeness(answer) => self.answers[answer].completeness = rated(verdict)?,
            Part::Support(answer, check) => {
                let more = self.answers[answer].facts.take(check, verdict, &self.passages)?;
                self.ready.extend(more.into_iter().map(|check| Part::Support(answer, check)));
            }
        }
        // Of an answer that failed meanwhile.
        self.drop_useless();
        Ok(())
    }

    /// Takes the statements of an answer and finds their evidence.
    fn list(
        &mut self,
        answer: usize,
        verdict: Verdict,
        tools: &mut Tools,
        method: &Method,
    ) -> Result<(), String> {
        let Answer { facts, settled, lang, .. } = &mut self.answers[answer];
        if *settled {
            return Ok(());
        }
        let asker = Asker { judge: &method.judging.judge, lang: *lang, query: &self.query };
        let Tools { tokens, retriever } = tools;
        let lookup = Lookup { how: method.evidence, retriever, tokens };
        let checks = facts.begin(verdict, asker, &mut self.passages, lookup)?;
        self.ready.extend(checks.into_iter().map(|check| Part::Support(answer, check)));
        Ok(())
    }

    /// With early stop: when all answers have what their waves ask for, those that can still be best
    /// or worst go on. If one of the others fails later, it is decided anew without it.
    pub fn advance(&mut self, method: &Method) {
        while !self.decided && self.answers.iter().all(|one| one.settled || one.is_abreast()) {
            let Some(recorded) = &self.recorded else { return };
            let open: Vec<usize> =
                (0..self.answers.len()).filter(|&one| !self.answers[one].settled).collect();
            let known = recorded.iter().map(Recorded::known);
            let known = known
                .chain(open.iter().map(|&one| self.answers[one].scores(&self.extracts, method)));
            let stopped = stopped(&known.map(|scores| Bounds::new(&scores)).collect::<Vec<_>>());
            let (old, new) = stopped.split_at(recorded.len());
            let goes_on = |&&one: &&usize| self.answers[one].waves < WAVES.len();
            let pairs = open.iter().zip(new).filter(|(_, stopped)| !**stopped);
            let next: Vec<usize> = pairs.map(|(one, _)| one).filter(goes_on).copied().collect();
            let shown = self.show_recorded(old);
            self.decided = next.is_empty() && !shown;
            next.into_iter().for_each(|answer| self.begin_wave(answer));
        }
    }

    /// Takes the next scores of recorded answers into account, but of those that stopped; whether
    /// there were any.
    fn show_recorded(&mut self, stopped: &[bool]) -> bool {
        let rows = self.recorded.iter_mut().flatten().zip(stopped);
        let mut any = false;
        for (row, _) in rows.filter(|(row, stopped)| !**stopped && row.has_more()) {
            row.waves += 1;
            any = true;
        }
        any
    }

    /// Gives up the records that need this part: one, or with an extract all that are open. Where
    /// something else can be asked instead, that is done.
    pub fn fail(&mut self, part: Part, why: &str) -> Vec<Finished> {
        if let Part::Support(answer, check) = part
            && let Some(instead) = check.instead()
        {
            self.ready.insert(Part::Support(answer, instead));
            self.drop_useless();
            return Vec::new();
        }
        let reason = match part {
            Part::Extract(chunk) => format!("extract at {}: {why}", self.extracts.place(chunk)),
            Part::Statements(_) => format!("faithfulness, statements: {why}"),
            Part::Helpfulness(_) => format!("helpfulness: {why}"),
            Part::Logicality(_) => format!("logicality: {why}"),
            Part::Support(_, check) => format!("faithfulness, {}: {why}", check.describe()),
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
        let row = self.extracts.row(self.idx, &self.query, &self.hash);
        Finished::record(1, self.idx, &row).map(Some)
    }

    /// The rows of answers whose last verdict has come; with early stop all of them at once.
    pub fn scored_rows(&mut self, method: &Method) -> Result<Vec<Finished>, Error> {
        let mut rows = Vec::new();
        if self.recorded.is_some() && !self.decided {
            return Ok(rows);
        }
        for answer in &mut self.answers {
            if let Some(row) = answer.row(&self.extracts, method) {
                rows.push(Finished::record(0, answer.id(), &row)?);
                answer.settled = true;
            } else if self.decided && !answer.settled {
                let row = answer.stopped_row(&self.extracts, method);
                rows.push(Finished::record(0, answer.id(), &row)?);
                answer.settled = true;
            }
        }
        Ok(rows)
    }
}
