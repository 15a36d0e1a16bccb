//! How often the judge is right: its verdicts beside those of people.
//!
//! ```text
//! labels ─┬─ judging ─► OUT.jsonl ─┐
//!         └────────────────────────┴─ summary ─► OUT.summary.json, a table
//! two scored files ─ compare ─► the same
//! ```
//!
//! [`labels`] reads what people said, [`judging`] brings each row to a verdict as scoring would
//! (resumable, in batches, the same bytes at every run), [`summary`] measures the agreement by
//! [`metrics`], with [`baselines`] beside it, and [`bias`] what moves the judge that should not.
//! [`calibrate`] fits corrections of its verdicts to labels. [`recall`] measures retrieval alone,
//! [`scored`] scores that are there already, and [`compare`] two files of scores.

pub mod baselines;
pub mod bias;
pub mod calibrate;
pub mod compare;
pub mod judging;
pub mod labels;
pub mod metrics;
pub mod padding;
pub mod passages;
pub mod recall;
pub mod scored;
pub mod summary;
pub mod table;
