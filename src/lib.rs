//! LongReward on the user's own machine: sample long-context answers, judge them in four
//! dimensions with an open checkpoint, and export preference pairs.
//!
//! Rooms, and who may call whom, are listed in the README under "How it works, and where it departs from
//! the design it began with".

// A room's page names what is inside it, for those who read the source.
#![allow(rustdoc::private_intra_doc_links)]

pub mod agree;
pub mod bench;
pub mod chat;
pub mod cli;
pub mod device;
pub mod engine;
pub mod eval;
mod hexadecimal;
pub mod judge;
pub mod pipeline;
pub mod report;
pub mod retrieval;
pub mod serve;
mod statistics;
pub mod tokenizer;
