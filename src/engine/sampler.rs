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
/// last `own` tokens are the sample's.
fn adjust(logits: &[f32], params: &SamplingParams, seen: &[u32], own: usize) -> Vec<f32> {
    let mut logits = penalise(logits, seen, params.repetition_penalty);
    let mut counted = std::collections::BTreeMap::new();
    for &token in &seen[seen.len().saturating_sub(own)..] {
        *counted.entry(token).or_insert(0u32) += 1;
    }
    let subtracted = counted.into_iter().map(|(token, count)| {
        (token, -params.presence_penalty - params.frequency_penalty * count as f32)
    });
    for (token, added) in subtracted.chain(params.logit_bias.iter().copied()) {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += added;
        }
    }
    logits
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
            *x = if *x > 0.0 { *x / penalty } else { *x * penalty };
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
    let mut changes = std::collections::BTreeMap::new();
    let none = |token: u32| Change { token, penalised: false, added: 0.0 };
    if params.repetition_penalty != 1.0 {
        for &token in draw.seen {
            changes.insert(token, Change { penalised: true, ..none(token) });
        }
    }
    let mut counted = std::collections::BTreeMap::new();
    for &token in &draw.seen[draw.seen.len().saturating_sub(draw.index)..] {
        *counted.entry(token).or_insert(0u32) += 1;
    }
    let subtracted = counted.into_iter().map(|(token, count)| {
        (token, -params.presence_penalty - params.frequency_penalty * count as f32)
    });
    for (token, added) in subtracted.chain(params.logit_bias.iter().copied()) {
        changes.entry(token).or_insert_with(|| none(token)).added += added;
    }
    changes.into_values().collect()
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
mod tests {
    use super::*;

    fn params(temperature: f32) -> SamplingParams {
        SamplingParams { temperature, ..SamplingParams::default() }
    }

    /// A row with many ties, like the logits of half-precision models.
    fn logits(len: usize, seed: u64) -> Vec<f32> {
        let spread = |i| uniform(seed, 2 * i) * 12.0 * uniform(seed, 2 * i + 1) - 4.0;
        (0..len as u64).map(|i| ((spread(i) * 64.0).round() / 64.0) as f32).collect()
    }

    fn tokens(row: &[f32], params: &SamplingParams, seeds: std::ops::Range<u64>) -> Vec<u32> {
        let seeds = seeds.collect();
        let one = Draw { params, seeds, index: 3, seen: &[], logprobs: None, allowed: None };
        draw(row, &one).unwrap().into_iter().map(|sampled| sampled.token).collect()
    }

    /// Ids and probabilities after all filters, by sorting everything, in f64.
    fn naive(row: &[f32], params: &SamplingParams) -> Vec<(u32, f64)> {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |x: f32| (f64::from(x - max) / f64::from(params.temperature)).exp();
        let mut all: Vec<_> = row.iter().enumerate().map(|(i, &x)| (i as u32, weight(x))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if params.top_k > 0 {
            all.truncate(params.top_k);
        }
        let total: f64 = all.iter().map(|x| x.1).sum();
        let mut sum = 0.0;
        let enough = |x: &(u32, f64)| {
            sum += x.1;
            sum >= f64::from(params.top_p) * total
        };
        let end = all.iter().position(enough).map_or(all.len(), |last| last + 1);
        if params.top_p < 1.0 {
            all.truncate(end);
        }
        all.retain(|x| x.1 >= f64::from(params.min_p));
        let total: f64 = all.iter().map(|x| x.1).sum();
        all.iter().map(|x| (x.0, x.1 / total)).collect()
    }

    #[test]
    fn the_exponential_is_close_to_the_exact_one() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2e-7, "exp({x}) is off by {error}");
        }
        assert_eq!((exp(0.0), exp(-87.1), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn log_probabilities_equal_those_in_double_precision() {
        for len in [1, 7, 255, 257, 5000] {
            let row = logits(len, len as u64);
            let sum = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            let ids: Vec<u32> = (0..len as u32).collect();
            let half = &ids[..len.div_ceil(2)];
            let LogProbabilities { tokens, closing: set, top } =
                log_probabilities(&row, &ids, Some(half), 3).unwrap();
            for &(id, logprob) in &top {
                assert_eq!(logprob, tokens[id as usize] as f32);
                assert!(tokens.iter().filter(|&&x| x as f32 > logprob).count() < top.len());
            }
            for (&x, y) in row.iter().zip(tokens) {
                assert!((f64::from(x) - sum - y).abs() < 1e-6);
            }
            let half: f64 = row[..len.div_ceil(2)].iter().map(|&x| f64::from(x).exp()).sum();
            assert!((half.ln() - sum - set.unwrap()).abs() < 1e-6);
        }
    }

    #[test]
    fn an_empty_closing_set_is_impossible() {
        let read = log_probabilities(&[1.0, 2.0], &[], Some(&[]), 0).unwrap();
        assert_eq!(read.closing, Some(f64::NEG_INFINITY));
    }

    #[test]
    fn ties_go_to_the_lowest_id() {
        let mut row = vec![0.0; 1000];
        for id in [700, 300, 301, 999] {
            row[id] = 5.0;
        }
        assert_eq!(tokens(&row, &params(0.0), 0..1), [300]);
        let row = Row::new(Cow::Borrowed(&row)).unwrap();
        let ids = |k| row.likeliest(k).iter().map(|x| x.0).collect::<Vec<_>>();
        assert_eq!(ids(2), [300, 301]);
        assert_eq!(ids(6), [300, 301, 700, 999, 0, 1]);
    }

    #[test]
    fn the_likeliest_are_those_of_a_full_sort() {
        for seed in 0..20 {
            let values = logits(3000, seed);
            let mut sorted: Vec<_> = (0..).zip(values.iter().copied()).collect();
            sorted.sort_by(best_first);
            let row = Row::new(Cow::Borrowed(&values)).unwrap();
            for k in [0, 1, 2, 11, 12, 13, 500, 3000, 4000] {
                assert_eq!(row.likeliest(k), sorted[..k.min(3000)]);
            }
        }
    }

    #[test]
    fn draws_follow_the_filtered_distribution() {
        let filters =
            [(0, 1.0, 0.0), (40, 1.0, 0.0), (0, 0.8, 0.0), (0, 1.0, 0.05), (50, 0.9, 0.02)];
        for (case, (top_k, top_p, min_p)) in filters.into_iter().enumerate() {
            let params = SamplingParams { top_k, top_p, min_p, ..params(0.7) };
            let row = logits(700, case as u64);
            let expected: std::collections::HashMap<_, _> =
                naive(&row, &params).into_iter().collect();
            let count = 20_000;
            let mut seen = vec![0u32; row.len()];
            for token in tokens(&row, &params, 0..count) {
                assert!(expected.contains_key(&token), "case {case}: token {token}");
                seen[token as usize] += 1;
            }
            let distance: f64 = (0..row.len())
                .map(|id| {
                    let wanted = expected.get(&(id as u32)).copied().unwrap_or(0.0);
                    (f64::from(seen[id]) / count as f64 - wanted).abs()
                })
                .sum();
            // Of n draws over k tokens the mean distance is about sqrt(2k / (pi n)).
            let bound =
                1.5 * (expected.len() as f64 * 2.0 / std::f64::consts::PI / count as f64).sqrt();
            assert!(distance < bound, "case {case}: {distance} against {bound}");
        }
    }

    #[test]
    fn filters_keep_the_same_tokens_as_a_full_sort() {
        for seed in 0..30 {
            let row = logits(2000, seed);
            for (top_k, top_p, min_p) in [
                (1, 1.0, 0.0),
                (5, 0.5, 0.0),
                (0, 0.3, 0.0),
                (0, 0.999, 0.0),
                (0, 0.9, 0.1),
                (900, 0.99, 0.001),
            ] {
                let params = SamplingParams { top_k, top_p, min_p, ..params(1.3) };
                let values = Row::new(Cow::Borrowed(&row)).unwrap();
                let Distribution::Some(chosen) = Distribution::new(&values, &params) else {
                    panic!("filters are on");
                };
                let ids: Vec<u32> = chosen.iter().map(|x| x.0).collect();
                let mut wanted: Vec<u32> = naive(&row, &params).iter().map(|x| x.0).collect();
                wanted.sort_unstable();
                assert_eq!(ids, wanted, "seed {seed}, {top_k} {top_p} {min_p}");
            }
        }
    }

    #[test]
    fn a_token_masked_by_negative_infinity_is_never_drawn() {
        let mut row = vec![f32::NEG_INFINITY; 600];
        row[77] = -3.0;
        row[599] = -3.0;
        let drawn = tokens(&row, &params(1.0), 0..1000);
        assert!(drawn.iter().all(|token| [77, 599].contains(token)));
        assert!(drawn.contains(&77) && drawn.contains(&599));
    }

    #[test]
    fn a_tiny_temperature_is_greedy() {
        let row = logits(5000, 1);
        assert_eq!(tokens(&row, &params(1e-30), 5..6), tokens(&row, &params(0.0), 0..1));
    }

    #[test]
    fn the_penalty_weakens_each_seen_token_once() {
        let row = penalise(&[2.0, -2.0, 1.0], &[0, 1, 0, 9], 2.0);
        assert_eq!(row, [1.0, -4.0, 1.0]);
        let params = SamplingParams { repetition_penalty: 2.5, ..params(0.0) };
        let one = Draw {
            params: &params,
            seeds: vec![0],
            index: 0,
            seen: &[0],
            logprobs: Some(1),
            allowed: None,
        };
        let sampled = draw(&[2.0, -2.0, 1.0], &one).unwrap().remove(0);
        assert_eq!(sampled.token, 2);
        let logprob = 1.0 - (2f64.exp() + (-2f64).exp() + 1f64.exp()).ln();
        assert!((f64::from(sampled.logprob.unwrap()) - logprob).abs() < 1e-6, "unpenalised");
        assert_eq!(sampled.top[0].0, 0);
    }

    #[test]
    fn biases_and_penalties_on_the_sample_are_added() {
        let bias = vec![(1, 2.5), (9, 1.0)];
        let params = SamplingParams {
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            logit_bias: bias,
            ..params(0.0)
        };
        // Token 3 stands in the prompt, 0 twice in the sample.
        let row = adjust(&[1.0, -1.0, 0.0, 0.5], &params, &[3, 3, 0, 0], 2);
        assert_eq!(row, [0.0, 1.5, 0.0, 0.5]);
        assert_eq!(tokens(&[1.0, -1.0, 0.0, 0.5], &params, 0..1), [1]);
    }

    #[test]
    fn uniform_numbers_spread_over_seeds_and_indices() {
        for stream in [|i| uniform(i, 0), |i| uniform(0, i), |i| uniform(i, i)] {
            let mut counts = [0u32; 16];
            for i in 0..16_000 {
                counts[(stream(i) * 16.0) as usize] += 1;
            }
            assert!(counts.iter().all(|&n| (850..1150).contains(&n)), "{counts:?}");
        }
    }

    #[test]
    fn rows_that_are_no_numbers_are_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut row = vec![0.0; 300];
            row[260] = bad;
            assert_eq!(log_probabilities(&row, &[0], None, 0), Err(NotFinite));
        }
        assert_eq!(log_probabilities(&[f32::NEG_INFINITY; 3], &[0], None, 0), Err(NotFinite));
    }

    /// `cargo test --release -- --ignored --nocapture rows_per_second`
    #[test]
    #[ignore = "a measurement"]
    fn rows_per_second() {
        let row = logits(128_256, 1);
        let time = |what: &str, read: &dyn Fn()| {
            let start = std::time::Instant::now();
            (0..50).for_each(|_| read());
            println!("{what:20} {:8.1} us", start.elapsed().as_secs_f64() / 50.0 * 1e6);
        };
        let full = params(1.0);
        let cases = [
            ("greedy", params(0.0)),
            ("temperature", full.clone()),
            ("top-k 50", SamplingParams { top_k: 50, ..full.clone() }),
            ("top-p 0.95", SamplingParams { top_p: 0.95, ..full.clone() }),
            ("min-p 0.05", SamplingParams { min_p: 0.05, ..full.clone() }),
            ("penalty", SamplingParams { repetition_penalty: 1.1, ..full }),
        ];
        for (what, params) in &cases {
            time(what, &|| drop(tokens(&row, params, 7..8)));
        }
        time("log-probabilities", &|| drop(log_probabilities(&row, &[3], Some(&[1, 2]), 0)));
        let draw_with = |logprobs| {
            let params = &cases[1].1;
            draw(
                &row,
                &Draw { params, seeds: vec![1], index: 0, seen: &[], logprobs, allowed: None },
            )
            .unwrap()
        };
        time("with 20 logprobs", &|| drop(draw_with(Some(20))));
    }
}
