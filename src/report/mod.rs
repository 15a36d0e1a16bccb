//! `longreward report`: the result files as one HTML page that explains them.
//!
//! Needs the result files only, no model. The page opens from disk and asks nothing of a network;
//! its policy forbids it to. Layers: [`load`] reads and checks the files, [`overview`] counts,
//! [`svg`] draws, [`agree`] and [`agreement`] show the judge beside people, [`embed`] packs what the
//! page's script shows on demand, [`page`] puts it together.
//!
//! Everything from models and data reaches the page in one of two ways: through the template's
//! escaping (the overview), or as JSON that the script turns into text nodes (all other views).

mod agree;
mod agreement;
mod candidate;
mod embed;
mod error;
pub mod eval;
mod intervals;
mod load;
mod locate;
mod notes;
mod overview;
mod page;
mod pairs;
mod reliability;
mod replies;
mod stats;
mod svg;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use error::Error;

use crate::pipeline::jsonl::{RowError, keep_others, replace};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// What is to be reported, and where it goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// `scored_responses.jsonl`.
    pub scored: PathBuf,
    /// `sft.jsonl`.
    pub data: PathBuf,
    /// `preference_pairs.jsonl` with LongReward's fields. Without it, margins are those between
    /// each prompt's best and worst candidate.
    pub pairs: Option<PathBuf>,
    /// `chunk_info.jsonl`, for extracts that the scored rows don't hold themselves.
    pub chunk_info: Option<PathBuf>,
    /// A JSON object that measures the judge against people; see [`agree`].
    pub agree: Option<PathBuf>,
    /// The page; an older one is replaced, and nothing else.
    pub out: PathBuf,
}

/// What was reported. [`fmt::Display`] writes it for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub out: PathBuf,
    pub bytes: u64,
    pub prompts: usize,
    pub candidates: usize,
    /// `None` without a file of pairs.
    pub pairs: Option<usize>,
    /// Bad rows of the input, which the page lacks.
    pub problems: Vec<RowError>,
}

impl Summary {
    /// Whether all rows of the input were good.
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Writes the page. The same files give the same bytes.
///
/// # Errors
/// Unreadable input, no scored row that could be shown, or an output that can't be written or holds anything
/// but a page.
pub fn run(options: &Options) -> Result<Summary, Error> {
    precheck(&options.out)?;
    let input = load::load(options)?;
    let agree = options.agree.as_deref().map(agree::read).transpose()?;
    let page = page::render(&input, agree.as_ref())?;
    let out = &options.out;
    replace(out, |file| file.write_all(page.as_bytes()).map_err(error::io(out)))?;
    Ok(Summary {
        out: out.clone(),
        bytes: page.len() as u64,
        prompts: input.prompts.len(),
        candidates: input.candidates().count(),
        pairs: input.pairs.as_ref().map(Vec::len),
        problems: input.problems,
    })
}

/// Refuses an output that [`run`] would not replace: what holds anything but a page.
///
/// # Errors
/// [`pipeline::Error`](crate::pipeline::Error).
pub fn precheck(out: &Path) -> Result<(), crate::pipeline::Error> {
    keep_others(out, "a page of report", |out| {
        let mut head = Vec::new();
        let read = File::open(out).and_then(|file| file.take(HEAD).read_to_end(&mut head));
        read.map_err(error::io(out))?;
        Ok(String::from_utf8_lossy(&head).contains(GENERATOR))
    })
}

/// Of a page, holds [`GENERATOR`].
const HEAD: u64 = 2048;
/// By which pages are known again, of whatever version.
const GENERATOR: &str = "<meta name=\"generator\" content=\"longreward ";

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { candidates, prompts, .. } = self;
        write!(f, "report: {candidates} candidates of {prompts} prompts")?;
        if let Some(pairs) = self.pairs {
            write!(f, ", {pairs} pairs")?;
        }
        let size = self.bytes as f64 / 1e6;
        write!(f, ", in {} ({size:.1} MB)", self.out.display())?;
        if !self.problems.is_empty() {
            write!(f, "\n  bad input rows: {}", self.problems.len())?;
        }
        for problem in &self.problems {
            write!(f, "\n    {problem}")?;
        }
        Ok(())
    }
}
