//! The stages of LongReward, from files to files.
//!
//! ```text
//! sft.jsonl ─ sample ─► sampled_responses.jsonl ─┐
//!     └───── chunk_info ─► chunk_info.jsonl ─────┴ score ─► scored_responses.jsonl ─ pairs ─►
//! ```
//!
//! Each stage asks the model for *units* (one verdict, one sampled text) through [`crate::chat`];
//! [`drive`] keeps as many of them in flight as the model likes, over many documents at once, and
//! notes each reply in a journal. What a unit finds depends on its prompt, the settings and its own seed
//! alone, never on what else is in flight; so a run that was killed and resumed ends with the same
//! bytes as one that was not.

mod ballot;
pub mod chunk_info;
mod cost;
pub(crate) mod data;
mod drive;
mod error;
mod extracts;
mod facts;
mod journal;
pub mod jsonl;
mod outlook;
mod output;
pub mod pairs;
pub mod passages;
mod plan;
mod progress;
pub mod records;
pub mod run;
pub mod sample;
pub mod score;
pub mod verify;

#[cfg(test)]
mod option_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use cost::Cost;
pub use drive::Session;
pub(crate) use drive::{Finding, Finished, Stage, Unit, Work};
pub use error::Error;
pub(crate) use extracts::Extracts;
pub use facts::Evidencing;
pub(crate) use facts::{Asker, Check, Facts, Lookup};
pub(crate) use outlook::{ByKind, PLAIN, WEIGHED, add};
pub use output::{OnMismatch, Settings, URL, stored_settings};
pub use plan::{CHUNK_TOKENS, Judging, Opened};
pub(crate) use plan::{Plan, Target, with};
pub use progress::{Failure, Progress, Quiet, Status, Summary};

/// Cuts a text into tokens: each with the bytes that it stands for.
pub type Tokens<'a> = dyn Fn(&str) -> Vec<(u32, std::ops::Range<usize>)> + 'a;
