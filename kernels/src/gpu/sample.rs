//! From rows of logits to tokens and log-probabilities, on the GPU, so that only those come back to the host.
//!
//! Filters apply in this order: changes (penalties and biases), what is allowed at all, temperature, top-k, top-p,
//! min-p; each sees the distribution that the one before left, renormalised. Log-probabilities are those of the
//! unchanged logits. Results depend on the row, its parameters and its random numbers alone.

use super::device::{Buffer, Element, ensure_len};
use super::error::{Result, check};
use super::ffi;
use super::stream::Stream;

/// [`SampleRow::row`] of an entry without work, [`SampleRow::allowed`] of a row that may draw every token, and the token
/// of a row whose logits are not finite numbers.
pub const NO_ROW: u32 = u32::MAX;

/// What is wanted of one row of logits.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct SampleRow {
    /// Of the logits, or [`NO_ROW`].
    pub row: u32,
    /// Its draws are `uniforms[first_draw ..][.. draw_count]`, one token for each.
    pub first_draw: u32,
    pub draw_count: u32,
    /// Its changes are `changes[first_change ..][.. change_count]`, by ascending token.
    pub first_change: u32,
    pub change_count: u32,
    /// Log-probabilities are wanted of `score_ids[first_score ..][.. score_count]`.
    pub first_score: u32,
    pub score_count: u32,
    /// First word of its bit set in `allowed`, or [`NO_ROW`].
    pub allowed: u32,
    /// 0: all tokens.
    pub top_k: u32,
    /// How many of the likeliest tokens to report, at most 512.
    pub top_logprobs: u32,
    /// 0: the likeliest token, the lowest id of several.
    pub temperature: f32,
    /// 1: all tokens.
    pub top_p: f32,
    /// 0: all tokens.
    pub min_p: f32,
    /// Of its changes that say so.
    pub penalty: f32,
    /// The likeliest are written to `top_ids[first_top ..]` and `top_logprobs[first_top ..]`.
    pub first_top: u32,
    pub reserved: u32,
}

// SAFETY: sixteen numbers of four bytes.
unsafe impl Element for SampleRow {}

impl Default for SampleRow {
    /// Nothing to do; all filters off.
    fn default() -> Self {
        Self {
            row: NO_ROW,
            first_draw: 0,
            draw_count: 0,
            first_change: 0,
            change_count: 0,
            first_score: 0,
            score_count: 0,
            allowed: NO_ROW,
            top_k: 0,
            top_logprobs: 0,
            temperature: 1.0,
            top_p: 1.0,
            min_p: 0.0,
            penalty: 1.0,
            first_top: 0,
            reserved: 0,
        }
    }
}

/// How a logit changes before tokens are drawn: the penalty first, then the addition.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct LogitChange {
    pub token: u32,
    /// 1: divided by the row's penalty if it is positive, else multiplied by it.
    pub penalised: u32,
    pub added: f32,
}

// SAFETY: three numbers of four bytes.
unsafe impl Element for LogitChange {}

/// The rows to sample, what is needed for it, and where results go.
#[derive(Debug)]
pub struct Sample<'a> {
    /// `[.., vocab]`. Logits that have changes are changed in place, so a row that has some stands in one entry only.
    pub logits: &'a Buffer<f32>,
    /// `[max_rows]`
    pub rows: &'a Buffer<SampleRow>,
    /// In 0..1, one for each draw.
    pub uniforms: &'a Buffer<f64>,
    pub changes: &'a Buffer<LogitChange>,
    /// One for each change, for the kernel's own use.
    pub originals: &'a Buffer<f32>,
    /// Bit sets of `vocab.div_ceil(32)` words.
    pub allowed: &'a Buffer<u32>,
    pub score_ids: &'a Buffer<u32>,
    /// One for each draw; [`NO_ROW`] where the logits are not finite numbers.
    pub tokens: &'a Buffer<u32>,
    /// One for each draw.
    pub logprobs: &'a Buffer<f32>,
    /// One for each of `score_ids`.
    pub scores: &'a Buffer<f32>,
    /// `[max_rows]`: the logarithm of the sum of all exponentials; NaN where the logits are not finite numbers.
    pub log_sums: &'a Buffer<f32>,
    pub top_ids: &'a Buffer<u32>,
    pub top_logprobs: &'a Buffer<f32>,
    pub max_rows: usize,
    pub vocab: usize,
}

/// See [`Sample`]. Indices within rows are not checked.
///
/// # Errors
/// Lists that are too short, or a vocabulary that is not supported.
pub fn sample(stream: &Stream, a: &Sample) -> Result<()> {
    ensure_len(a.rows, a.max_rows, "sample: rows")?;
    ensure_len(a.log_sums, a.max_rows, "sample: log_sums")?;
    for buffer in [a.logits, a.originals, a.logprobs, a.scores, a.log_sums, a.top_logprobs] {
        stream.name(buffer);
    }
    for buffer in [a.allowed, a.score_ids, a.tokens, a.top_ids] {
        stream.name(buffer);
    }
    stream.name(a.rows);
    stream.name(a.uniforms);
    stream.name(a.changes);
    let args = ffi::Sample {
        logits: a.logits.ptr(),
        rows: a.rows.ptr(),
        uniforms: a.uniforms.ptr(),
        changes: a.changes.ptr(),
        originals: a.originals.ptr(),
        allowed: a.allowed.ptr(),
        score_ids: a.score_ids.ptr(),
        tokens: a.tokens.ptr(),
        logprobs: a.logprobs.ptr(),
        scores: a.scores.ptr(),
        log_sums: a.log_sums.ptr(),
        top_ids: a.top_ids.ptr(),
        top_logprobs: a.top_logprobs.ptr(),
        max_rows: a.max_rows as u32,
        vocab: a.vocab as u32,
    };
    // SAFETY: all buffers are alive; what the rows' indices reach is the caller's to provide.
    check(unsafe { ffi::lr_gpu_sample(stream.as_ptr(), &raw const args) })
}
