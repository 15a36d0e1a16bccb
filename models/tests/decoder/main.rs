//! The decoder against a reference implementation, and against itself.

mod equivalence;
mod goldens;
#[cfg(feature = "gpu")]
mod gpu;
mod harness;
