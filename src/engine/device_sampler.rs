//! What rows of logits are wanted for, in the words of a GPU that reads them itself, and back.

use super::jobs::{Outcome, Want};
use super::request::Sampled;
use super::sampler::{Draw, LogProbabilities, NotFinite, logit_changes, uniform};
use kernels::gpu::{LogitChange, NO_ROW, SampleRow};
use models::gpu::{Found, MOST_TOP, Wanted};

/// Whether the GPU can do all of it.
pub fn is_for_device(wants: &[Want]) -> bool {
    wants.iter().all(|want| top(want) <= MOST_TOP)
}

/// How many of the likeliest tokens are wanted.
fn top(want: &Want) -> usize {
    match want {
        Want::Given { top, .. } => *top,
        Want::Draw(draw) => draw.logprobs.unwrap_or(0),
    }
}

/// Wants of a slice of rows, in order.
pub fn wanted(wants: &[Want], vocab: usize) -> Wanted {
    let mut all = Wanted::default();
    for (row, want) in wants.iter().enumerate() {
        let entry = SampleRow {
            row: row as u32,
            first_draw: all.uniforms.len() as u32,
            first_change: all.changes.len() as u32,
            first_score: all.score_ids.len() as u32,
            top_logprobs: top(want) as u32,
            first_top: all.tops as u32,
            ..SampleRow::default()
        };
        all.tops += top(want);
        let entry = match want {
            Want::Given { tokens, closing, .. } => {
                all.score_ids.extend(tokens.iter().chain(closing.unwrap_or_default()));
                let score_count = all.score_ids.len() as u32 - entry.first_score;
                SampleRow { score_count, ..entry }
            }
            Want::Draw(draw) => add_draw(draw, entry, vocab, &mut all),
        };
        all.rows.push(entry);
    }
    all
}

fn add_draw(draw: &Draw, entry: SampleRow, vocab: usize, all: &mut Wanted) -> SampleRow {
    all.uniforms.extend(draw.seeds.iter().map(|&seed| uniform(seed, draw.index as u64)));
    let changes = logit_changes(draw);
    all.changes.extend(changes.iter().map(|change| LogitChange {
        token: change.token,
        penalised: u32::from(change.penalised),
        added: change.added,
    }));
    let allowed = draw.allowed.map_or(NO_ROW, |set| {
        let first = all.allowed.len();
        all.allowed.extend_from_slice(set.words());
        all.allowed.resize(first + vocab.div_ceil(32), 0);
        first as u32
    });
    SampleRow {
        draw_count: draw.seeds.len() as u32,
        change_count: changes.len() as u32,
        allowed,
        top_k: draw.params.top_k as u32,
        temperature: draw.params.temperature,
        top_p: draw.params.top_p,
        min_p: draw.params.min_p,
        penalty: draw.params.repetition_penalty,
        ..entry
    }
}

/// What came of each row.
pub fn outcomes(wants: &[Want], wanted: &Wanted, found: &Found) -> Vec<Result<Outcome, NotFinite>> {
    let rows = wants.iter().zip(&wanted.rows).zip(&found.log_sums);
    rows.map(|((want, row), sum)| {
        if sum.is_nan() {
            return Err(NotFinite);
        }
        let first = row.first_top as usize;
        let tops = first..first + row.top_logprobs as usize;
        let ids = found.top_ids[tops.clone()].iter().copied();
        let likeliest = ids.zip(found.top_logprobs[tops].iter().copied()).collect();
        match want {
            Want::Given { tokens, closing, .. } => {
                let first = row.first_score as usize;
                let scores = &found.scores[first..first + row.score_count as usize];
                Ok(Outcome::Given(given(scores, tokens.len(), closing.is_some(), likeliest)))
            }
            Want::Draw(draw) => drawn(draw, row, found, &likeliest),
        }
    })
    .collect()
}

fn given(scores: &[f32], tokens: usize, is_closed: bool, top: Vec<(u32, f32)>) -> LogProbabilities {
    let (tokens, closing) = scores.split_at(tokens);
    let total: f64 = closing.iter().map(|&x| f64::from(x).exp()).sum();
    LogProbabilities {
        tokens: tokens.iter().map(|&x| f64::from(x)).collect(),
        closing: is_closed.then(|| total.ln()),
        top,
    }
}

fn drawn(
    draw: &Draw,
    row: &SampleRow,
    found: &Found,
    likeliest: &[(u32, f32)],
) -> Result<Outcome, NotFinite> {
    let places = row.first_draw as usize..(row.first_draw + row.draw_count) as usize;
    let sampled = places.map(|place| {
        let (token, logprob) = (found.tokens[place], found.logprobs[place]);
        let top = if draw.logprobs.is_some() { likeliest.to_vec() } else { Vec::new() };
        let logprob = draw.logprobs.map(|_| logprob);
        if token == NO_ROW { Err(NotFinite) } else { Ok(Sampled { token, logprob, top }) }
    });
    sampled.collect::<Result<_, _>>().map(Outcome::Drawn)
}
