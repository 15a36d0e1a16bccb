//! The encoder against PyTorch `transformers` (made by `tests/goldens/embedder.py`), and against
//! itself.

use candle_core::Device;
use models::encoder::Encoder;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Largest difference of an element of a vector of length 1.
const TOLERANCE: f32 = 1e-5;

const CLS: &str = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;

#[derive(Deserialize)]
struct Golden {
    seed: u64,
    tensors: HashMap<String, TensorCheck>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct TensorCheck {
    shape: Vec<usize>,
    first: f32,
    last: f32,
}

#[derive(Deserialize)]
struct Run {
    ids: Vec<u32>,
    mean: Vec<f32>,
    cls: Vec<f32>,
}

fn golden() -> Golden {
    serde_json::from_str(&file("golden.json")).unwrap()
}

fn file(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/bert");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// The golden's embedder in a folder of its own.
fn checkpoint(seed: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    models::dummy::write_encoder_checkpoint(folder.path(), &file("config.json"), seed).unwrap();
    folder
}

/// The weights are those that the reference had.
fn check_weights(golden: &Golden, folder: &Path) {
    let file = folder.join("model.safetensors");
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    assert_eq!(tensors.len(), golden.tensors.len());
    for (name, want) in &golden.tensors {
        let values = tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(tensors[name].dims(), want.shape, "{name}");
        let ends = [values[0], values[values.len() - 1]];
        assert_eq!(ends, [want.first, want.last], "{name}");
    }
}

fn check_vectors(folder: &Path, runs: &[Run], want: fn(&Run) -> &Vec<f32>) {
    let encoder = Encoder::load(folder).unwrap();
    let texts: Vec<_> = runs.iter().map(|run| run.ids.clone()).collect();
    for (got, run) in encoder.embed(&texts).unwrap().iter().zip(runs) {
        assert_eq!(got.len(), encoder.dim());
        for (i, (got, want)) in got.iter().zip(want(run)).enumerate() {
            let tokens = run.ids.len();
            assert!((got - want).abs() < TOLERANCE, "{tokens} tokens, {i}: {got}, not {want}");
        }
    }
}

#[test]
fn vectors_equal_those_of_the_reference_with_both_poolings() {
    let golden = golden();
    let folder = checkpoint(golden.seed);
    check_weights(&golden, folder.path());
    check_vectors(folder.path(), &golden.runs, |run| &run.mean);
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    std::fs::write(folder.path().join("1_Pooling/config.json"), CLS).unwrap();
    check_vectors(folder.path(), &golden.runs, |run| &run.cls);
}

#[test]
fn a_vector_has_the_same_bits_whatever_stands_beside_it_on_any_number_of_threads() {
    let encoder = Encoder::load(checkpoint(1).path()).unwrap();
    let token = |i: u32| (i.wrapping_mul(2_654_435_761) >> 9) % 120;
    let text = |n: u32| (0..1 + n * 13 % 64).map(|i| token(1000 * n + i)).collect();
    let texts: Vec<Vec<u32>> = (0..60).map(text).collect();
    let alone: Vec<_> = texts
        .iter()
        .map(|text| encoder.embed(std::slice::from_ref(text)).unwrap().remove(0))
        .collect();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let together = pool.install(|| encoder.embed(&texts).unwrap());
        assert!(together == alone, "{threads} threads");
    }
    let mut reversed: Vec<_> = texts.iter().rev().cloned().collect();
    let mut vectors = encoder.embed(&reversed).unwrap();
    vectors.reverse();
    reversed.reverse();
    assert!(vectors == alone && reversed == texts);
}
