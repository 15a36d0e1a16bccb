//! LongBench and LongBench-Chat: predictions of a model, measured by the suite and by a judge.
//!
//! ```text
//! <set>.jsonl ─ longbench ─┐
//! test_cases.json ─ chat ──┴► Suite ─ predict ─► predictions.jsonl ─ judging ─► verdicts.jsonl
//!                                                        └──────── summary ◄────────┘
//! ```
//!
//! [`tasks`] says as data what each set is, [`metrics`] are pure functions, [`prompts`] are our own or
//! a user's. Asking models, journals and resuming are the pipeline's. Two protocols: LongReward's (a
//! document, a question, a judge) and the suite's own (short answers, measured by words).

pub mod chat;
pub mod cut;
pub mod judging;
pub mod longbench;
pub mod metrics;
mod pattern;
pub mod predict;
pub mod prompts;
pub mod records;
pub mod suite;
pub mod summary;
mod table;
pub mod tasks;
#[cfg(test)]
mod tests;
