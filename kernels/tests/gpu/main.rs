//! Every kernel against its reference, on whatever GPU is there: the emulated one (`--features emulated-gpu`) or a real
//! one (`--features cuda`). Nothing here knows which, but for sizes that would take the processor hours.

#![cfg(any(feature = "cuda", feature = "emulated-gpu"))]

mod attention;
mod harness;
mod operations;
mod planned;
mod sampling;
mod streams;
