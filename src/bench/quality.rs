//! What a way of storing and multiplying costs in accuracy: the same tokens through two decoders.

use super::{BenchError, request, step as engine_step};
use crate::engine::runner::{Answers, Runner, Step};
use crate::engine::{Engine, Event, RequestId};
use kernels::kv::{BLOCK, VarLen};
use models::batch::Batch;
use rayon::prelude::*;
use std::collections::HashMap;

/// Tokens of a step.
const STEP: usize = 256;

/// How one decoder predicts the tokens of a text, against another.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Quality {
    /// Predictions that were compared.
    pub predictions: usize,
    /// Mean log-probability (natural) of the text's own tokens.
    pub mean_logprob: f64,
    /// The same by the decoder that it is compared with.
    pub reference_logprob: f64,
    /// Mean and largest absolute difference of a log-probability.
    pub mean_difference: f64,
    pub largest_difference: f64,
    /// Share of places where both find the same token likeliest.
    pub top1_agreement: f64,
}

/// What a decoder says at one place of a text.
#[derive(Debug, Clone, Copy)]
pub struct Prediction {
    /// Of the token that follows in the text.
    pub logprob: f64,
    /// The likeliest token.
    pub best: u32,
}

/// Greedy replies of one decoder against those of another.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Replies {
    pub count: usize,
    /// How many are the same from end to end.
    pub equal: usize,
    /// Tokens before the first that differs, in the mean.
    pub mean_equal_tokens: f64,
}

impl Replies {
    /// Compares replies to the same prompts.
    pub fn of(found: &[Vec<u32>], reference: &[Vec<u32>]) -> Self {
        let pairs = || found.iter().zip(reference);
        let alike = pairs()
            .map(|(a, b)| a.iter().zip(b).take_while(|(a, b)| a == b).count())
            .sum::<usize>();
        Self {
            count: found.len(),
            equal: pairs().filter(|(a, b)| a == b).count(),
            mean_equal_tokens: alike as f64 / found.len().max(1) as f64,
        }
    }
}

/// The likeliest `new_tokens` tokens after each prompt, which nothing ends.
///
/// # Errors
/// A prompt does not fit, or the engine fails.
pub fn greedy<R: Runner>(
    engine: &mut Engine<R>,
    prompts: &[Vec<u32>],
    new_tokens: usize,
) -> Result<Vec<Vec<u32>>, BenchError> {
    let mut places: HashMap<RequestId, usize> = HashMap::new();
    for (place, prompt) in prompts.iter().enumerate() {
        places.insert(engine.submit(request(prompt.clone(), new_tokens))?, place);
    }
    let mut replies = vec![Vec::new(); prompts.len()];
    while !engine.is_idle() {
        for event in engine_step(engine)? {
            if let Event::Token { id, token, .. } = event {
                replies[places[&id]].push(token.token);
            }
        }
    }
    Ok(replies)
}

/// Predictions of all tokens but the first, at most `step` tokens at a time. The runner needs a pool
/// that holds them.
///
/// # Errors
/// Those of the runner.
pub fn predict<R: Runner>(
    runner: &mut R,
    tokens: &[u32],
    step: usize,
) -> Result<Vec<Prediction>, R::Error> {
    let vocab = runner.vocab();
    let step = step.clamp(1, STEP);
    let mut all = Vec::new();
    for first in (0..tokens.len().saturating_sub(1)).step_by(step) {
        let last = (first + step).min(tokens.len() - 1);
        let next = &tokens[first + 1..=last];
        let batch = batch(tokens, first, last);
        runner.run(Step::of(&batch), &mut |rows, answers| {
            let Answers::Logits(logits) = answers else { return };
            let rows = logits.par_chunks_exact(vocab).zip(&next[rows]);
            all.par_extend(rows.map(|(logits, &token)| prediction(logits, token)));
        })?;
    }
    Ok(all)
}

/// Tokens `first..last` of one sequence that lies in the first blocks of the pool.
fn batch(tokens: &[u32], first: usize, last: usize) -> Batch {
    let places: Vec<u32> = (first as u32..last as u32).collect();
    let rows = (last - first) as u32;
    Batch {
        tokens: tokens[first..last].to_vec(),
        layout: VarLen {
            positions: places.clone(),
            slots: places,
            query_starts: vec![0, rows],
            kv_lens: vec![last as u32],
            block_tables: vec![(0..last.div_ceil(BLOCK) as u32).collect()],
        },
        logit_rows: (0..rows).collect(),
    }
}

fn prediction(logits: &[f32], token: u32) -> Prediction {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = i;
        }
    }
    let largest = f64::from(logits[best]);
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
    let logprob = f64::from(logits[token as usize]) - largest - sum.ln();
    Prediction { logprob, best: best as u32 }
}

impl Quality {
    /// Compares predictions of the same tokens.
    pub fn of(found: &[Prediction], reference: &[Prediction]) -> Self {
        let n = found.len().max(1) as f64;
        let mean = |all: &[Prediction]| all.iter().map(|p| p.logprob).sum::<f64>() / n;
        let pairs = || found.iter().zip(reference);
        let differences = || pairs().map(|(a, b)| (a.logprob - b.logprob).abs());
        Self {
            predictions: found.len(),
            mean_logprob: mean(found),
            reference_logprob: mean(reference),
            mean_difference: differences().sum::<f64>() / n,
            largest_difference: differences().fold(0.0, f64::max),
            top1_agreement: pairs().filter(|(a, b)| a.best == b.best).count() as f64 / n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Limits;
    use crate::engine::toy::Toy;

    #[test]
    fn predictions_are_those_of_each_prefix_over_several_steps() {
        let mut toy = Toy::new(64);
        let tokens: Vec<u32> = (0..700).map(|i| i * i % 37).collect();
        let found = predict(&mut toy, &tokens, STEP).unwrap();
        assert_eq!((found.len(), toy.batches), (699, 3));
        for at in [0, 1, STEP - 1, STEP, 698] {
            let want = prediction(&toy.logits_after(&tokens[..=at]), tokens[at + 1]);
            assert_eq!((found[at].logprob, found[at].best), (want.logprob, want.best));
        }
        assert!(predict(&mut toy, &tokens[..1], 7).unwrap().is_empty());
    }

    #[test]
    fn greedy_replies_are_those_of_each_prompt_alone() {
        let limits = Limits { tokens_per_step: 40, sequences: 3 };
        let prompts: Vec<Vec<u32>> = (0..5).map(|i| vec![i, 2 * i, 3]).collect();
        let of = |prompts: &[Vec<u32>]| {
            greedy(&mut Engine::new(Toy::new(64), limits), prompts, 7).unwrap()
        };
        let together = of(&prompts);
        for (prompt, reply) in prompts.iter().zip(&together) {
            assert_eq!(
                (of(std::slice::from_ref(prompt))[0].clone(), reply.len()),
                (reply.clone(), 7)
            );
        }
    }

    #[test]
    fn replies_are_equal_up_to_the_first_other_token() {
        let found = Replies::of(&[vec![1, 2, 3], vec![4, 5]], &[vec![1, 9, 3], vec![4, 5]]);
        assert_eq!((found.count, found.equal, found.mean_equal_tokens), (2, 1, 1.5));
        assert_eq!(Replies::of(&[], &[]).mean_equal_tokens, 0.0);
    }

    #[test]
    fn a_log_probability_is_that_of_a_softmax() {
        let found = prediction(&[0.0, 2.0, 1.0], 2);
        let want = 1.0 - (1f64 + 2f64.exp() + 1f64.exp()).ln();
        assert!((found.logprob - want).abs() < 1e-12);
        assert_eq!(found.best, 1);
    }

    #[test]
    fn measures_are_those_of_the_differences() {
        let of = |list: &[(f64, u32)]| -> Vec<Prediction> {
            list.iter().map(|&(logprob, best)| Prediction { logprob, best }).collect()
        };
        let found = Quality::of(&of(&[(-1.0, 3), (-2.0, 4)]), &of(&[(-1.5, 3), (-1.75, 5)]));
        assert_eq!((found.mean_logprob, found.reference_logprob), (-1.5, -1.625));
        assert_eq!((found.mean_difference, found.largest_difference), (0.375, 0.5));
        assert_eq!((found.predictions, found.top1_agreement), (2, 0.5));
    }
}
