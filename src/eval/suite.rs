//! What is to be run: sets, and items whose prompts stay on disk until they are needed.

use super::metrics::Metric;
use super::pattern::Pattern;
use super::tasks::{Class, Rubric};
use crate::pipeline::Error;
use crate::pipeline::jsonl::{Place, RowError, Span, parse_span, read_span};
use crate::pipeline::records::input_hash;
use std::fs::File;
use std::path::PathBuf;

/// The sets that are run, with all their items.
#[derive(Debug)]
pub struct Suite {
    /// `longbench`, `longbench-e` or `longbench-chat`.
    pub name: &'static str,
    /// The way in which it is run; for names and settings.
    pub protocol: &'static str,
    pub sets: Vec<Set>,
    /// Set by set, in the order of their files.
    pub items: Vec<Item>,
    /// Bad rows.
    pub problems: Vec<RowError>,
    /// Sets that the protocol has and the folder has not.
    pub absent: Vec<String>,
    /// The bins of length that scores are shown by.
    pub bins: Bins,
    pub inputs: Inputs,
    /// Hashes of prompts and numbers of new tokens, by name.
    pub settings: Vec<(String, String)>,
}

/// How a set is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    pub name: String,
    pub class: Class,
    /// The suite's own measure, if it has one.
    pub metric: Option<Metric>,
    pub first_line: bool,
    pub rubric: Option<Rubric>,
    pub max_new_tokens: usize,
    pub stop: Vec<String>,
    pub chat_template: bool,
    /// Hash of the prompt; for LongBench-Chat, whose file has whole prompts, there is none.
    pub prompt: Option<String>,
}

/// One question of a set, without its document.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// `"<set>/<line>"`.
    pub idx: String,
    /// Among the sets of the suite.
    pub set: usize,
    /// `_id` in the suite's file.
    pub row_id: Option<String>,
    pub query: String,
    pub references: Vec<String>,
    /// What a classification chooses from.
    pub classes: Vec<String>,
    /// As the suite counts it.
    pub length: Option<u64>,
    /// Rated answers to the same question.
    pub examples: Vec<Example>,
    /// Over all of it, the document included.
    pub hash: String,
}

/// An answer with its rating.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub answer: String,
    pub score: String,
}

/// Where inputs come from, by the number of their item.
#[derive(Debug)]
pub enum Inputs {
    /// Rows of files.
    Rows(Rows),
    /// Whole prompts.
    Held(Vec<String>),
}

/// Rows of LongBench's files.
#[derive(Debug, Default)]
pub struct Rows {
    /// Of each set.
    pub files: Vec<RowFile>,
    /// Of each item.
    pub places: Vec<RowPlace>,
}

/// Where a row is to be read again.
#[derive(Debug)]
pub struct RowPlace {
    /// Among the files.
    pub file: usize,
    pub place: Place,
    pub span: Span,
    /// [`text_hash`] of what stood there.
    pub hash: String,
}

/// Over what a prompt is made of.
pub fn text_hash(context: &str, input: &str) -> String {
    input_hash(&[context, input])
}

/// A file, and the prompt that its rows are put in.
#[derive(Debug)]
pub struct RowFile {
    pub path: PathBuf,
    pub file: File,
    pub pattern: Pattern,
    /// Whether spaces around a question are left out.
    pub trim: bool,
}

impl Inputs {
    /// What all prompts of a set have in common.
    pub fn frame(&self, set: usize) -> String {
        match self {
            Inputs::Held(_) => String::new(),
            Inputs::Rows(rows) => {
                rows.files.get(set).map_or(String::new(), |file| file.pattern.fill(&[]))
            }
        }
    }

    /// The whole prompt of an item.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Moved`] if the file is not what it was.
    pub fn load(&mut self, item: usize) -> Result<String, Error> {
        match self {
            Inputs::Held(prompts) => Ok(prompts[item].clone()),
            Inputs::Rows(rows) => rows.load(item),
        }
    }
}

impl Rows {
    fn load(&mut self, item: usize) -> Result<String, Error> {
        let RowPlace { file, place, span, hash } = &self.places[item];
        let RowFile { path, file, pattern, trim } = &mut self.files[*file];
        let bytes = read_span(file, *span).map_err(Error::io(path))?;
        let moved = || Error::Moved { path: path.clone(), line: place.line };
        let mut row = parse_span(place, *span, bytes).ok().flatten().ok_or_else(moved)?;
        let context = row.take_string("context").map_err(|_| moved())?;
        let input = row.take_string("input").map_err(|_| moved())?;
        if text_hash(&context, &input) != *hash {
            return Err(moved());
        }
        let input = if *trim { input.trim() } else { &input };
        Ok(pattern.fill(&[&context, input]))
    }
}

/// Bins of length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bins {
    /// By `length` in the suite's files: words, for Chinese characters.
    Suite,
    /// By the tokens of the input.
    Tokens,
}

impl Bins {
    /// Their names, and below which length each ends.
    pub fn list(self) -> &'static [(&'static str, u64)] {
        match self {
            Bins::Suite => &[("0-4k", 4_000), ("4-8k", 8_000), ("8k+", u64::MAX)],
            Bins::Tokens => {
                &[("0-16k", 16_000), ("16-32k", 32_000), ("32-64k", 64_000), ("64k+", u64::MAX)]
            }
        }
    }

    /// The number of the bin for a length.
    pub fn of(self, length: u64) -> usize {
        self.list().iter().position(|(_, end)| length < *end).unwrap_or(self.list().len() - 1)
    }

    /// What is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Bins::Suite => "the suite's own lengths: words, Chinese characters",
            Bins::Tokens => "tokens of the input",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_end_where_the_next_begins() {
        assert_eq!(
            [0, 3999, 4000, 7999, 8000, 99_999].map(|n| Bins::Suite.of(n)),
            [0, 0, 1, 1, 2, 2]
        );
        assert_eq!([15_999, 64_000].map(|n| Bins::Tokens.of(n)), [0, 3]);
    }
}
