use super::*;
use crate::dummy;
use candle_core::DType;
use serde_json::{Value, json};
use std::collections::HashMap;

fn config() -> Value {
    json!({
        "architectures": ["BertModel"], "hidden_act": "gelu", "hidden_size": 32,
        "intermediate_size": 48, "layer_norm_eps": 1e-12, "max_position_embeddings": 20,
        "model_type": "bert", "num_attention_heads": 4, "num_hidden_layers": 2,
        "type_vocab_size": 2, "vocab_size": 40
    })
}

/// `config()` with some keys replaced; `null` counts as absent.
fn config_with(changes: Value) -> String {
    let mut config = config();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string()
}

/// A folder with weights that fit.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    dummy::write_encoder_checkpoint(folder.path(), &config().to_string(), 1).unwrap();
    folder
}

/// A folder with one more file.
fn folder_with(file: &str, content: &Value) -> tempfile::TempDir {
    let folder = folder();
    let file = folder.path().join(file);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, content.to_string()).unwrap();
    folder
}

/// A folder whose tensors were changed.
fn folder_changed(change: impl FnOnce(&mut HashMap<String, Tensor>)) -> tempfile::TempDir {
    let folder = folder();
    let file = folder.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    folder
}

fn refusal(folder: &Path) -> String {
    Encoder::load(folder).unwrap_err().to_string()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn what_a_configuration_lacks_or_asks_too_much_is_named() {
    for (changes, parts) in [
        (json!({"hidden_act": "gelu_new"}), ["`hidden_act`", "`gelu_new`"]),
        (json!({"position_embedding_type": "relative_key"}), ["`position_embedding_type`", "rel"]),
        (json!({"architectures": ["RobertaModel"]}), ["`architectures`", "RobertaModel"]),
        (json!({"architectures": null, "model_type": "t5"}), ["`model_type`", "t5"]),
        (json!({"architectures": null, "model_type": null}), ["`architectures`", "missing"]),
        (json!({"hidden_size": null}), ["`hidden_size`", "missing"]),
        (json!({"num_attention_heads": 5}), ["`num_attention_heads`", "5 does not divide"]),
        (json!({"num_hidden_layers": 100_000}), ["`num_hidden_layers`", "100000"]),
        (json!({"layer_norm_eps": -1}), ["`layer_norm_eps`", "-1"]),
        (json!({"is_decoder": true}), ["`is_decoder`", "true"]),
    ] {
        let error = config::from_text(&config_with(changes), "dir/config.json".as_ref());
        assert_says(&error.unwrap_err().to_string(), &["config.json: key", parts[0], parts[1]]);
    }
}

#[test]
fn defaults_are_those_of_the_configuration_class() {
    let text = config_with(json!({
        "architectures": null, "hidden_act": null, "layer_norm_eps": null, "type_vocab_size": null
    }));
    let config = config::from_text(&text, "config.json".as_ref()).unwrap();
    assert_eq!((config.eps, config.token_types, config.max_tokens), (1e-12, 2, 20));
    assert_eq!(config.pooling, Pooling::Mean);
}

#[test]
fn a_folder_without_a_configuration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    assert_says(&refusal(folder.path()), &["config.json", "can't be read"]);
}

#[test]
fn pooling_is_read_and_other_modes_are_refused_by_name() {
    let with = |content: Value| folder_with("1_Pooling/config.json", &content);
    let cls = with(json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}));
    assert_eq!(Encoder::load(cls.path()).unwrap().config.pooling, Pooling::Cls);
    let mean = with(json!({"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}));
    assert_eq!(Encoder::load(mean.path()).unwrap().config.pooling, Pooling::Mean);
    for (content, part) in [
        (json!({"pooling_mode_max_tokens": true}), "`pooling_mode_max_tokens`"),
        (json!({"pooling_mode_lasttoken": true}), "`pooling_mode_lasttoken`"),
        (json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}), "together"),
        (json!({"pooling_mode_mean_tokens": "yes"}), "`pooling_mode_mean_tokens`"),
        (json!({"pooling_mode_mean_tokens": false}), "no pooling mode is on"),
    ] {
        assert_says(&refusal(with(content).path()), &["config.json: ", part]);
    }
}

#[test]
fn a_step_after_pooling_that_would_be_left_out_is_refused() {
    let module = |name: &str| json!({"type": format!("sentence_transformers.models.{name}")});
    let usual = ["Transformer", "Pooling", "Normalize"].map(module);
    assert!(Encoder::load(folder_with("modules.json", &json!(usual)).path()).is_ok());
    let dense = json!([module("Transformer"), module("Pooling"), module("Dense")]);
    let message = refusal(folder_with("modules.json", &dense).path());
    assert_says(&message, &["modules.json: key `type`", "models.Dense"]);
    assert_says(&refusal(folder_with("modules.json", &json!({})).path()), &["not a JSON array"]);
}

#[test]
fn the_longest_text_is_that_of_the_embedder_or_of_the_network() {
    let max_tokens = |content: Value| {
        let folder = folder_with("sentence_bert_config.json", &content);
        Encoder::load(folder.path()).map(|encoder| encoder.max_tokens())
    };
    assert_eq!(max_tokens(json!({"max_seq_length": 12})).unwrap(), 12);
    assert_eq!(max_tokens(json!({"max_seq_length": 500})).unwrap(), 20);
    assert_eq!(max_tokens(json!({"max_seq_length": null})).unwrap(), 20);
    let message = max_tokens(json!({"max_seq_length": "long"})).unwrap_err().to_string();
    assert_says(&message, &["sentence_bert_config.json: key `max_seq_length`", "long"]);
}

#[test]
fn names_may_have_the_prefix_and_known_extras_are_left_out() {
    let plain = Encoder::load(folder().path()).unwrap();
    let prefixed = folder_changed(|tensors| {
        let renamed = tensors.drain().map(|(name, tensor)| (format!("bert.{name}"), tensor));
        *tensors = renamed.collect();
        let extra = |shape: &[usize]| Tensor::zeros(shape, DType::I64, &Device::Cpu).unwrap();
        tensors.insert("bert.embeddings.position_ids".to_string(), extra(&[1, 20]));
        tensors.insert("bert.pooler.dense.weight".to_string(), extra(&[32, 32]));
        tensors.insert("pooler.dense.bias".to_string(), extra(&[32]));
    });
    let prefixed = Encoder::load(prefixed.path()).unwrap();
    let ids = [vec![3, 1, 4, 1, 5]];
    assert_eq!(plain.embed(&ids).unwrap(), prefixed.embed(&ids).unwrap());
}

#[test]
fn missing_misshapen_and_extra_tensors_are_listed() {
    let folder = folder_changed(|tensors| {
        tensors.remove("encoder.layer.1.attention.self.key.bias");
        let short = Tensor::zeros(31, DType::F32, &Device::Cpu).unwrap();
        tensors.insert("embeddings.LayerNorm.weight".to_string(), short.clone());
        tensors.insert("classifier.bias".to_string(), short);
    });
    assert_says(
        &refusal(folder.path()),
        &[
            "model.safetensors: does not fit BertModel",
            "1 tensors missing: encoder.layer.1.attention.self.key.bias",
            "embeddings.LayerNorm.weight is [31] instead of [32]",
            "1 tensors that the model does not have: classifier.bias",
        ],
    );
}

#[test]
fn texts_that_can_not_be_embedded_are_named() {
    let encoder = Encoder::load(folder().path()).unwrap();
    let refusal = |text: Vec<u32>| encoder.embed(&[vec![1], text]).unwrap_err().to_string();
    assert_says(&refusal(vec![]), &["text 1 has no tokens"]);
    assert_says(&refusal(vec![1; 21]), &["text 1 has 21 tokens, at most 20"]);
    assert_says(&refusal(vec![1, 40]), &["text 1 has token 40", "vocabulary of 40"]);
    assert!(encoder.embed(&[]).unwrap().is_empty());
    assert_eq!(encoder.embed(&[vec![39; 20]]).unwrap()[0].len(), encoder.dim());
}

#[test]
fn batches_are_runs_of_texts_within_the_limit() {
    let of = |lengths: &[usize]| {
        let texts: Vec<_> = lengths.iter().map(|&length| vec![0; length]).collect();
        batches(&texts)
    };
    assert!(of(&[]).is_empty());
    assert_eq!(of(&[BATCH_ROWS + 1, 1]), [0..1, 1..2]);
    assert_eq!(of(&[BATCH_ROWS - 1, 1, 1, BATCH_ROWS]), [0..2, 2..3, 3..4]);
}
