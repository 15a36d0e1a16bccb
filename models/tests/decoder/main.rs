//! The decoder against a reference implementation, and against itself.

mod equivalence;
mod goldens;
mod harness;
