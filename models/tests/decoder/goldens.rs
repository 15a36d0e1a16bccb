//! Prompt log-probabilities and greedy continuations of tiny models with dummy weights, against
//! those of PyTorch `transformers` in f32 (made by `tests/goldens/tiny.py`).

use crate::harness::{Bench, argmax, log_prob, options};
use models::source::Source;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;

/// Largest difference of a log-probability.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
pub struct Golden {
    seed: u64,
    tensors: HashMap<String, TensorCheck>,
    pub prompt: Vec<u32>,
    pub runs: Vec<Run>,
}

#[derive(Deserialize)]
struct TensorCheck {
    shape: Vec<usize>,
    first: f32,
    last: f32,
}

#[derive(Deserialize)]
pub struct Run {
    pub first_position: usize,
    pub prompt_logprobs: Vec<Option<f64>>,
    pub greedy: Vec<u32>,
    pub greedy_logprobs: Vec<f64>,
}

/// A case, and its checkpoint.
pub fn open(case: &str) -> (Golden, tempfile::TempDir) {
    // Packed programs run where the sources are not.
    let goldens = std::env::var_os("LONGREWARD_GOLDENS").map(PathBuf::from);
    let folder = goldens
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens"))
        .join(case);
    let text = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    let golden: Golden = serde_json::from_str(&text).unwrap();
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let checkpoint = tempfile::tempdir().unwrap();
    models::dummy::write_checkpoint(checkpoint.path(), &config, golden.seed).unwrap();
    check_weights(&golden, checkpoint.path());
    (golden, checkpoint)
}

fn check(case: &str) {
    let (golden, checkpoint) = open(case);
    let source = Source::Folder(checkpoint.path().to_path_buf());
    let decoder = models::load(&source, &options(), &mut |_, _| ()).unwrap();
    for run in &golden.runs {
        let mut bench = Bench::new(&decoder, 1);
        bench.first_position = run.first_position;
        check_run(&mut bench, &golden.prompt, run);
    }
}

/// The weights are those that the reference had.
fn check_weights(golden: &Golden, folder: &std::path::Path) {
    let device = candle_core::Device::Cpu;
    let tensors =
        candle_core::safetensors::load(folder.join("model.safetensors"), &device).unwrap();
    assert_eq!(tensors.len(), golden.tensors.len());
    for (name, want) in &golden.tensors {
        let values = tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(tensors[name].dims(), want.shape, "{name}");
        let ends = [values[0], values[values.len() - 1]];
        assert_eq!(ends, [want.first, want.last], "{name}");
    }
}

fn check_run(bench: &mut Bench, prompt: &[u32], run: &Run) {
    let close = |got: f64, want: f64, what: &str, i: usize| {
        let from = run.first_position;
        assert!((got - want).abs() < TOLERANCE, "from {from}, {what} {i}: {got}, not {want}");
    };
    let mut logits = bench.step(&[(0, prompt)]);
    for (i, row) in logits[..prompt.len() - 1].iter().enumerate() {
        let want = run.prompt_logprobs[i + 1].unwrap();
        close(log_prob(row, prompt[i + 1]), want, "prompt token", i + 1);
    }
    for (i, &token) in run.greedy.iter().enumerate() {
        let row = logits.last().unwrap();
        assert_eq!(argmax(row), token, "from {}, greedy token {i}", run.first_position);
        close(log_prob(row, token), run.greedy_logprobs[i], "greedy token", i);
        logits = bench.step(&[(0, &[token])]);
    }
}

for_each_golden!(check);
