//! The program from outside, with a tiny random model and data made here: no network, no Python.

mod harness;
mod nothing;

mod agree;
mod bad_rows;
mod calibrate;
mod eval;
mod forms;
mod generate;
mod options;
mod prompts;
mod remote;
mod report;
mod reproducible;
mod serve;
mod server;
