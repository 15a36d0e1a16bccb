//! A reply on several statements, whose labels are weighed one after the other.

use crate::judge::Verdict;
use crate::judge::parse::Numbered;

/// The reply, what was found in it, and the verdicts so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    reply: String,
    /// By statement.
    found: Vec<Option<Numbered>>,
    /// Of the first statements; the next one that was found is being weighed.
    verdicts: Vec<Option<Verdict>>,
}

impl Group {
    pub fn new(reply: String, found: Vec<Option<Numbered>>) -> Self {
        Self { reply, found, verdicts: Vec::new() }
    }

    /// The reply up to the next label to be weighed; `None` when all are.
    pub fn next(&mut self) -> Option<String> {
        while let Some(found) = self.found.get(self.verdicts.len()) {
            match found {
                Some(found) => return Some(found.mark.beginning(&self.reply)),
                None => self.verdicts.push(None),
            }
        }
        None
    }

    /// Worth of the label that is being weighed, and what the reply says on its statement.
    pub fn current(&self) -> (f64, String) {
        match self.found.get(self.verdicts.len()) {
            Some(Some(Numbered { mark, text })) => {
                (mark.score, self.reply[text.clone()].trim().to_owned())
            }
            _ => (0.0, String::new()),
        }
    }

    /// Takes the verdict on the statement whose label was weighed.
    pub fn put(&mut self, verdict: Verdict) {
        self.verdicts.push(Some(verdict));
    }

    /// The reply, and a verdict or none for each of `count` statements.
    pub fn end(mut self, count: usize) -> (String, Vec<Option<Verdict>>) {
        self.verdicts.resize(count, None);
        (self.reply, self.verdicts)
    }
}
