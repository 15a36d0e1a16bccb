//! How many verdicts a scoring run has ahead, as far as its answers can tell.

use super::answer::Answer;
use crate::judge::Dimension;
use crate::pipeline::outlook::{ByKind, PLAIN, WEIGHED};

/// What was seen of answers and documents so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Answers that were opened, and their sentences.
    opened: [usize; 2],
    /// Sentences of the answers that were cut into statements, and the checks that they led to.
    listed: [usize; 2],
    /// Documents without extracts, and their chunks.
    cut: [usize; 2],
}

impl Seen {
    /// An answer of so many sentences was opened.
    pub fn opened(&mut self, sentences: usize) {
        self.opened = [self.opened[0] + 1, self.opened[1] + sentences];
    }

    /// An answer of so many sentences was cut into statements, to be checked in so many calls.
    pub fn listed(&mut self, sentences: usize, checks: usize) {
        self.listed = [self.listed[0] + sentences, self.listed[1] + checks];
    }

    /// A document was opened, from so many chunks of which extracts are wanted.
    pub fn cut(&mut self, chunks: usize) {
        self.cut = [self.cut[0] + 1, self.cut[1] + chunks];
    }

    /// Checks that so many sentences lead to: one for each statement, as long as nothing is known.
    fn checks(&self, sentences: f64, per_call: usize) -> f64 {
        match self.listed {
            [0, _] => sentences / per_call.max(1) as f64,
            [listed, checks] => sentences * checks as f64 / listed as f64,
        }
    }

    /// Verdicts on documents that are not open yet, and on their answers.
    pub fn unopened(&self, documents: usize, answers: usize, per_call: usize) -> ByKind {
        let chunks = self.cut[1] as f64 / self.cut[0].max(1) as f64;
        let (documents, answers) = (documents as f64, answers as f64);
        let sentences = answers * self.opened[1] as f64 / self.opened[0].max(1) as f64;
        let mut ahead = [0.0; 2];
        ahead[PLAIN] = answers + documents * chunks;
        // Helpfulness, logicality, completeness.
        ahead[WEIGHED] = answers * 3.0 + self.checks(sentences, per_call);
        ahead
    }

    /// Verdicts on an open answer that wait for others. With early stop some of them may never come.
    pub fn waiting(&self, answer: &Answer, extracts_are_there: bool, per_call: usize) -> ByKind {
        let mut ahead = [0.0; 2];
        if answer.settled {
            return ahead;
        }
        if !answer.has_begun(Dimension::Faithfulness) {
            ahead[PLAIN] += 1.0;
        }
        if !answer.facts.is_listed() {
            ahead[WEIGHED] += self.checks(answer.sentences as f64, per_call);
        }
        if !(answer.has_begun(Dimension::Completeness) && extracts_are_there) {
            ahead[WEIGHED] += 1.0;
        }
        ahead
    }
}
