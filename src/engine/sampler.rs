//! From a row of logits to tokens and log-probabilities.
//!
//! Everything here is a pure function of one row, so rows can be spread over threads and a result
//! depends neither on the batch nor on how often its sequence was preempted. Sums run in an order
//! fixed by the vocabulary alone, and the exponential is our own polynomial, so that results do
//! not depend on the platform's mathematical library either.
//!
//! Filters apply in this order: penalties and biases, what is allowed at all, temperature, top-k, top-p, min-p; each sees
//! the distribution that the one before left, renormalised. No row is ever sorted whole: the
//! likeliest tokens are looked for only in those stripes of the vocabulary whose maximum is high
//! enough.

use super::guide::TokenSet;
use super::request::{Sampled, SamplingParams};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Logits whose maximum and sum of weights are kept: a unit of search and of summation.
const STRIPE: usize = 256;

/// Sums and maxima run in this many lanes side by side, which compilers turn into vectors.
const LANES: usize = 8;

/// A row holds a NaN, positive infinity, or nothing but negative infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the logits are not all finite numbers")]
pub struct NotFinite;

/// `e^x` for `x <= 0`, to a relative error below 2e-7; 0 below -87.
fn exp(x: f32) -> f32 {
    /// Adding this to a small number rounds it to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -0.000_212_194_44;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    // Taylor's series: |r| <= ln(2) / 2, where the first term left out is below 6e-9.
    let series = 1.0 / 5040.0;
    let series = series * r + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * r + 1.0;
    let series = series * r + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let value = series * f32::from_bits(exponent << 23);
    if x < -87.0 { 0.0 } else { value }
}

/// The maximum of a stripe, and whether it holds a NaN.
fn maximum(stripe: &[f32]) -> (f32, bool) {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut nans = [0u32; LANES];
    let (groups, rest) = stripe.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            lanes[lane] = if group[lane] > lanes[lane] { group[lane] } else { lanes[lane] };
            nans[lane] |= u32::from(group[lane].is_nan());
        }
    }
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    (max, nans != [0; LANES] || rest.iter().any(|x| x.is_nan()))
}

/// `sum(exp((x - max) * scale))`, in lanes.
fn sum_of_weights(stripe: &[f32], max: f32, scale: f32) -> f64 {
    let mut lanes = [0f64; LANES];
    let (groups, rest) = stripe.as_chunks::<LANES>();
    for group in groups {
        let weights = group.map(|x| exp((x - max) * scale));
        for lane in 0..LANES {
            lanes[lane] += f64::from(weights[lane]);
        }
    }
    let rest = rest.iter().map(|x| f64::from(exp((x - max) * scale)));
    lanes.into_iter().chain(rest).sum()
}

/// A row with the maxima of its stripes.
struct Row<'a> {
    logits: Cow<'a, [f32]>,
    maxima: Vec<f32>,
    max: f32,
}

impl<'a> Row<'a> {
    fn new(logits: Cow<'a, [f32]>) -> Result<Self, NotFinite> {
        let mut nan = false;
        let mut maxima = Vec::with_capacity(logits.len().div_ceil(STRIPE));
        for stripe in logits.chunks(STRIPE) {
            let (max, has_nan) = maximum(stripe);
            maxima.push(max);
            nan |= has_nan;
        }
        let max = maxima.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if nan || !max.is_finite() { Err(NotFinite) } else { Ok(Self { logits, maxima, max }) }
    }

    /// The lowest id among the likeliest.
    fn argmax(&self) -> u32 {
        let stripe = self.maxima.iter().position(|&x| x == self.max).unwrap_or(0);
        let rest = &self.logits[stripe * STRIPE..];
        (stripe * STRIPE + rest.iter().position(|&x| x == self.max).unwrap_or(0)) as u32
    }

    /// The logarithm of the sum of all exponentials.
    fn log_sum_exp(&self) -> f64 {
        let stripes = self.logits.chunks(STRIPE);
        let total: f64 = stripes.map(|stripe| sum_of_weights(stripe, self.max, 1.0)).sum();
        f64::from(self.max) + total.ln()
    }

    /// Ids and logits not below `threshold`, by id.
    fn at_least(&self, threshold: f32) -> Vec<(u32, f32)> {
        let mut found = Vec::new();
        for (index, &maximum) in self.maxima.iter().enumerate() {
            if maximum < threshold {
                continue;
            }
            let start = index * STRIPE;
            let end = self.logits.len().min(start + STRIPE);
            for (offset, &x) in self.logits[start..end].iter().enumerate() {
                if x >= threshold {
                    found.push(((start + offset) as u32, x));
                }
            }
        }
        found
    }

    /// The `k` likeliest ids with their logits, best first, ties by lowest id.
    fn likeliest(&self, k: usize) -> Vec<(u32, f32)> {
        if k == 0 {
            return Vec::new();
        }
        // The k-th best stripe maximum: at least k logits are not below it.
        let threshold = if k <= self.maxima.len() {
            let mut maxima = self.maxima.clone();
            *maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
        } else {
            f32::NEG_INFINITY
        };
        let mut found = self.at_least(threshold);
        if k < found.len() {
            found.select_nth_unstable_by(k, best_first);
            found.truncate(k);
        }
        found.sort_unstable_by(best_first);
        found
    }
}

/// The two zeros are equal; there is no NaN in a [`Row`].
fn best_first(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

/// What [`log_probabilities`] reads from a row.
#[derive(Debug, Clone, PartialEq)]
pub struct LogProbabilities {
    /// Of the given tokens, in their order.
    pub tokens: Vec<f64>,
    /// Of the set as a whole.
    pub closing: Option<f64>,
    /// Of the likeliest tokens, best first, ties by lowest id.
    pub top: Vec<(u32, f32)>,
}

/// Log-probabilities of given tokens, of the set `closing` as a whole, and of the `top` likeliest.
///
/// # Errors
/// Logits that are not finite.
pub fn log_probabilities(
    logits: &[f32],
    tokens: &[u32],
    closing: Option<&[u32]>,
    top: usize,
) -> Result<LogProbabilities, NotFinite> {
    let row = Row::new(Cow::Borrowed(logits))?;
    let sum = row.log_sum_exp();
    let one = |&token: &u32| f64::from(logits[token as usize]) - sum;
    let all = |set: &[u32]| {
        let weight = |&token: &u32| f64::from(exp(logits[token as usize] - row.max));
        let total: f64 = set.iter().map(weight).sum();
        // A set without a token that weighs anything has probability zero.
        f64::from(row.max) + total.ln() - sum
    };
    let likeliest = row.likeliest(top).into_iter();
    Ok(LogProbabilities {
        tokens: tokens.iter().map(one).collect(),
        closing: closing.map(all),
        top: likeliest.map(|(id, x)| (id, (f64::from(x) - sum) as f32)).collect(),
    })
}

/// What the next tokens of a row are drawn from.
enum Distribution {
    /// Always this one.
    One(u32),
    /// All tokens; the sum of weights of each stripe.
    All { scale: f32, sums: Vec<f64> },
    /// These tokens with their weights, by id.
    Some(Vec<(u32, f64)>),
}

impl Distribution {
    fn new(row: &Row, params: &SamplingParams) -> Self {
        if params.temperature <= 0.0 {
            return Self::One(row.argmax());
        }
        let scale = (1.0 / params.temperature).min(f32::MAX);
        let weight = |(id, x): (u32, f32)| (id, f64::from(exp((x - row.max) * scale)));
        let filtered = params.top_p < 1.0 || params.min_p > 0.0;
        if params.top_k == 0 && !filtered {
            return Self::All { scale, sums: stripe_sums(row, scale) };
        }
        let mut chosen = if params.top_k > 0 {
            let best: Vec<_> = row.likeliest(params.top_k).into_iter().map(weight).collect();
            let total = best.iter().map(|(_, weight)| weight).sum();
            nucleus(best, params.top_p, total)
        } else if params.top_p < 1.0 {
            nucleus_of_row(row, scale, params.top_p)
        } else {
            let threshold = row.max + params.min_p.ln() / scale;
            row.at_least(threshold).into_iter().map(weight).collect()
        };
        // The likeliest weighs 1.
        chosen.retain(|(_, weight)| *weight >= f64::from(params.min_p));
        // In the order in which a GPU goes through them: a seed draws the same token from the same logits.
        chosen.sort_unstable_by_key(|(id, _)| *id);
        Self::Some(chosen)
    }

    /// The token at `share` (in 0..1) of the total weight.
    fn token(&self, row: &Row, share: f64) -> u32 {
        match self {
            Self::One(token) => *token,
            Self::All { scale, sums } => {
                let mut left = share * sums.iter().sum::<f64>();
                let stripe = pass(sums.iter().copied(), &mut left);
                let start = stripe * STRIPE;
                let end = row.logits.len().min(start + STRIPE);
                let weights = row.logits[start..end].iter();
                let weights = weights.map(|&x| f64::from(exp((x - row.max) * scale)));
                (start + pass(weights, &mut left)) as u32
            }
            Self::Some(chosen) => {
                let mut left = share * chosen.iter().map(|(_, weight)| weight).sum::<f64>();
                let weights = chosen.iter().map(|(_, weight)| *weight);
                chosen.get(pass(weights, &mut left)).map_or_else(|| row.argmax(), |(id, _)| *id)
            }
        }
    }
}

fn stripe_sums(row: &Row, scale: f32) -> Vec<f64> {
    row.logits.chunks(STRIPE).map(|stripe| sum_of_weights(stripe, row.max, scale)).collect()
}

/// Subtracts weights from `left` up to the one in which it falls, and returns that one's index.
/// Rounding may leave a little at the end: it counts to the last weight above zero.
fn pass(weights: impl Iterator<Item = f64>, left: &mut f64) -> usize {
    let mut last = 0;
    for (index, weight) in weights.enumerate() {
        if weight <= 0.0 {
            continue;
        }
        last = index;
        if *left < weight {
            break;
        }
        *left -= weight;
    }
    last
}

/// Cuts weights (best first) after the first that brings their sum to `top_p` of `total`.
fn nucleus(mut best: Vec<(u32, f64)>, top_p: f32, total: f64) -> Vec<(u32, f64)> {
    let mut sum = 0.0;
    let reached = best.iter().position(|(_, weight)| {
        sum += weight;
        sum >= f64::from(top_p) * total
    });
    if top_p < 1.0
        && let Some(last) = reached
    {
        best.truncate(last + 1);
    }
    best
}

/// The nucleus of a whole row: widens the range of logits looked at until it weighs enough.
fn nucleus_of_row(row: &Row, scale: f32, top_p: f32) -> Vec<(u32, f64)> {
    let total: f64 = stripe_sums(row, scale).iter().sum();
    let weight = |&(_, x): &(u32, f32)| f64::from(exp((x - row.max) * scale));
    let mut width = 2.0;
    loop {
        let mut found = row.at_least(row.max - width / scale);
        let sum: f64 = found.iter().map(weight).sum();
        // Below a width of 87 weights are zero.
        if sum >= f64::from(top_p) * total || width > 87.0 {
            found.sort_unstable_by(best_first);
            let best = found.iter().map(|entry| (entry.0, weight(entry))).collect();
            return nucleus(best, top_p, total);
        }
        width *= 1.5;
    }
}

/// The logits that tokens are drawn from: the repetition penalty, then what is added. Of `seen`, the
/// last `own` tokens are the sample's. What grows beyond all numbers becomes the largest one.
fn adjust(logits: &[f32], params: &SamplingParams, seen: &[u32], own: usize) -> Vec<f32> {
    let mut logits = penalise(logits, seen, params.repetition_penalty);
    for (token, added) in additions(params, seen, own) {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = (*logit + added).min(f32::MAX);
        }
    }
    logits
}

/// What presence and frequency take off tokens of the sample, then biases; a token may come twice.
fn additions(
    params: &SamplingParams,
    seen: &[u32],
    own: usize,
) -> impl Iterator<Item = (u32, f32)> {
    let mut counted = BTreeMap::new();
    let subtracts = params.presence_penalty != 0.0 || params.frequency_penalty != 0.0;
    let own = if subtracts { own } else { 0 };
    for &token in &seen[seen.len().saturating_sub(own)..] {
        *counted.entry(token).or_insert(0u32) += 1;
    }
    let subtracted = counted.into_iter().map(|(token, count)| {
        (token, -params.presence_penalty - params.frequency_penalty * count as f32)
    });
    subtracted.chain(params.logit_bias.iter().copied())
}

/// Divides positive and multiplies negative logits of tokens seen before, each once (Keskar et
/// al., arXiv 1909.05858).
fn penalise(logits: &[f32], seen: &[u32], penalty: f32) -> Vec<f32> {
    let mut logits = logits.to_vec();
    if penalty == 1.0 {
        return logits;
    }
    let mut done = vec![false; logits.len()];
    for &token in seen {
        let token = token as usize;
        if token < done.len() && !std::mem::replace(&mut done[token], true) {
            let x = &mut logits[token];
            *x = if *x > 0.0 { (*x / penalty).min(f32::MAX) } else { *x * penalty };
        }
    }
    logits
}

/// A number in 0..1 that depends on the seed and the index alone, in steps of 2^-53: two rounds of
/// the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
pub(super) fn uniform(seed: u64, index: u64) -> f64 {
    fn mix(z: u64) -> u64 {
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let stream = mix(seed.wrapping_add(STEP));
    let bits = mix(stream.wrapping_add(index.wrapping_add(1).wrapping_mul(STEP)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Draws to make from one row.
#[derive(Debug, Clone)]
pub struct Draw<'a> {
    pub params: &'a SamplingParams,
    /// One token is drawn for each.
    pub seeds: Vec<u64>,
    /// Place of the drawn tokens in their samples, from 0.
    pub index: usize,
    /// Prompt and sample so far, for the penalties.
    pub seen: &'a [u32],
    /// See [`super::request::Generate::logprobs`].
    pub logprobs: Option<usize>,
    /// Only these can be drawn; there is at least one.
    pub allowed: Option<&'a TokenSet>,
}

/// How a logit differs from the model's own where tokens are drawn: the repetition penalty, then what is added.
#[cfg(feature = "gpu")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    pub token: u32,
    pub penalised: bool,
    pub added: f32,
}

/// What [`adjust`] does to logits, by ascending token.
#[cfg(feature = "gpu")]
pub fn logit_changes(draw: &Draw) -> Vec<Change> {
    let params = draw.params;
    if !params.adjusts_logits() {
        return Vec::new();
    }
    let penalised = if params.repetition_penalty == 1.0 { Vec::new() } else { distinct(draw.seen) };
    let penalised = penalised.into_iter();
    let mut changes: Vec<Change> =
        penalised.map(|token| Change { token, penalised: true, added: 0.0 }).collect();
    for (token, added) in additions(params, draw.seen, draw.index) {
        match changes.binary_search_by_key(&token, |change| change.token) {
            Ok(at) => changes[at].added += added,
            Err(at) => changes.insert(at, Change { token, penalised: false, added }),
        }
    }
    changes
}

/// Each token once, ascending. (A prompt may be long, and this is done for each of its replies' tokens: by a bit for each
/// id, 64 thousand take 0.6 ms, by a tree 14.)
#[cfg(feature = "gpu")]
fn distinct(tokens: &[u32]) -> Vec<u32> {
    let mut words = vec![0u32; tokens.iter().max().map_or(0, |&last| last as usize / 32 + 1)];
    for &token in tokens {
        words[token as usize / 32] |= 1 << (token % 32);
    }
    let all = (0..32 * words.len() as u32).filter(|&t| words[t as usize / 32] >> (t % 32) & 1 == 1);
    all.collect()
}

/// The logits that tokens are drawn from, where they are not the model's own.
fn changed(logits: &[f32], draw: &Draw) -> Option<Vec<f32>> {
    let adjusted =
        draw.params.adjusts_logits().then(|| adjust(logits, draw.params, draw.seen, draw.index));
    let Some(allowed) = draw.allowed else { return adjusted };
    let mut logits = adjusted.unwrap_or_else(|| logits.to_vec());
    allowed.apply(&mut logits);
    Some(logits)
}

/// The next token of each seed.
///
/// # Errors
/// Logits that are not finite.
pub fn draw(logits: &[f32], draw: &Draw) -> Result<Vec<Sampled>, NotFinite> {
    let plain = Row::new(Cow::Borrowed(logits))?;
    let adjusted = changed(logits, draw).map(|logits| Row::new(Cow::Owned(logits))).transpose()?;
    let row = adjusted.as_ref().unwrap_or(&plain);
    let distribution = Distribution::new(row, draw.params);
    let report = draw.logprobs.map(|k| (plain.log_sum_exp(), plain.likeliest(k)));
    let sample = |&seed: &u64| {
        let token = distribution.token(row, uniform(seed, draw.index as u64));
        let log = |x: f32, sum: f64| (f64::from(x) - sum) as f32;
        let (logprob, top) = match &report {
            Some((sum, likeliest)) => (
                Some(log(logits[token as usize], *sum)),
                likeliest.iter().map(|&(id, x)| (id, log(x, *sum))).collect(),
            ),
            None => (None, Vec::new()),
        };
        Sampled { token, logprob, top }
    };
    Ok(draw.seeds.iter().map(sample).collect())
}

#[cfg(test)]
mod tests;
