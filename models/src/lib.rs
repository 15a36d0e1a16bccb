//! Checkpoints and the one decoder that runs them.

pub mod batch;
pub mod source;
