use super::*;
use crate::spec::Architecture;
use candle_core::quantized::gguf_file::{Content, Value, VersionedMagic};
use serde_json::json;
use std::collections::HashMap;

fn parse(value: &serde_json::Value) -> Result<ModelConfig> {
    from_text(&value.to_string(), Path::new("dir/config.json"))
}

fn refusal(value: &serde_json::Value) -> String {
    parse(value).unwrap_err().to_string()
}

/// The keys that a published Llama-3.1 `config.json` has.
fn llama31() -> serde_json::Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "bos_token_id": 128000,
        "eos_token_id": [128009, 128001, 128008],
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3"
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "vocab_size": 128256
    })
}

fn chatglm() -> serde_json::Value {
    json!({
        "architectures": ["ChatGLMModel"],
        "add_bias_linear": false,
        "add_qkv_bias": true,
        "apply_residual_connection_post_layernorm": false,
        "eos_token_id": [151329, 151336, 151338],
        "ffn_hidden_size": 13696,
        "hidden_size": 4096,
        "kv_channels": 128,
        "layernorm_epsilon": 1.5625e-07,
        "multi_query_attention": true,
        "multi_query_group_num": 2,
        "num_attention_heads": 32,
        "num_layers": 40,
        "padded_vocab_size": 151552,
        "post_layer_norm": true,
        "rmsnorm": true,
        "rope_ratio": 500,
        "seq_length": 131072,
        "torch_dtype": "bfloat16",
        "vocab_size": 151552
    })
}

#[test]
fn llama31_is_understood() {
    let config = parse(&llama31()).unwrap();
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!((config.head_dim, config.q_rows(), config.kv_rows()), (128, 4096, 1024));
    assert_eq!(config.rope.rotated_dim, 128);
    assert_eq!(config.rope.style, RopeStyle::HalfSplit);
    assert_eq!(
        config.rope.scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192.0
        }
    );
    assert!(!config.qkv_bias && !config.output_bias && !config.tied);
    assert_eq!(config.parameters(), 8_030_261_248);
}

#[test]
fn keys_that_old_llama_files_lack_have_their_defaults() {
    let config = parse(&json!({
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
        "num_hidden_layers": 2, "vocab_size": 100, "max_position_embeddings": 128,
        "rope_scaling": null, "eos_token_id": 2
    }))
    .unwrap();
    assert_eq!((config.kv_heads, config.head_dim), (4, 16));
    assert_eq!((config.rope.theta, config.rms_eps), (10_000.0, 1e-6));
    assert_eq!(config.rope.scaling, RopeScaling::None);
    assert_eq!(config.stored_dtype, DType::F32);
}

#[test]
fn rope_parameters_of_newer_files_mean_the_same() {
    let mut new = llama31();
    let old = parse(&new).unwrap();
    let keys = new.as_object_mut().unwrap();
    let mut parameters = keys.remove("rope_scaling").unwrap();
    parameters["rope_theta"] = keys.remove("rope_theta").unwrap();
    keys.insert("rope_parameters".to_string(), parameters);
    let dtype = keys.remove("torch_dtype").unwrap();
    keys.insert("dtype".to_string(), dtype);
    assert_eq!(parse(&new).unwrap(), old);
}

#[test]
fn rope_scaling_may_stand_beside_rope_parameters_only_if_it_says_the_same() {
    let mut value = llama31();
    value["rope_parameters"] = value["rope_scaling"].clone();
    value["rope_parameters"]["rope_theta"] = json!(500_000);
    assert_eq!(parse(&value).unwrap(), parse(&llama31()).unwrap());
    for (key, other) in
        [("rope_scaling", json!({"type": "linear", "factor": 4})), ("rope_theta", json!(1e4))]
    {
        let mut value = value.clone();
        value[key] = other;
        let message = refusal(&value);
        assert!(message.contains("`rope_scaling`: stands beside rope_parameters"), "{message}");
    }
    value["rope_scaling"] = json!(null);
    value["rope_theta"] = json!(null);
    assert_eq!(parse(&value).unwrap(), parse(&llama31()).unwrap());
}

#[test]
fn what_a_file_leaves_out_is_what_its_own_class_has() {
    let without = |mut value: serde_json::Value, key: &str| {
        value.as_object_mut().unwrap().remove(key);
        value
    };
    let mut mistral = llama31();
    mistral["architectures"] = json!(["MistralForCausalLM"]);
    mistral["num_attention_heads"] = json!(16);
    assert!(refusal(&mistral).contains("`sliding_window`: missing, which means 4096"));
    mistral["sliding_window"] = json!(null);
    let mut qwen = qwen25();
    (qwen["num_attention_heads"], qwen["hidden_size"]) = (json!(64), json!(4096));
    for (value, of_class) in [(mistral, 8), (qwen, 32)] {
        let mut value = without(value, "num_key_value_heads");
        assert_eq!(parse(&value).unwrap().kv_heads, of_class);
        value["num_key_value_heads"] = json!(null);
        let config = parse(&value).unwrap();
        assert_eq!(config.kv_heads, config.heads);
    }
    let mut windowed = without(qwen25(), "sliding_window");
    windowed["use_sliding_window"] = json!(true);
    assert!(refusal(&windowed).contains("`sliding_window`: missing"));
    let mut glm = without(llama31(), "attention_bias");
    glm["architectures"] = json!(["Glm4ForCausalLM"]);
    assert!(parse(&glm).unwrap().qkv_bias);
}

#[test]
fn linear_scaling_is_understood_under_both_names_of_its_key() {
    for key in ["type", "rope_type"] {
        let mut value = llama31();
        value["rope_scaling"] = json!({key: "linear", "factor": 4.0});
        assert_eq!(parse(&value).unwrap().rope.scaling, RopeScaling::Linear { factor: 4.0 });
    }
}

#[test]
fn the_three_layouts_of_glm4_mean_the_same_network() {
    let old = parse(&chatglm()).unwrap();
    assert_eq!((old.kv_heads, old.head_dim, old.rope.rotated_dim), (2, 128, 64));
    assert_eq!((old.rope.theta, old.rope.style), (5e6, RopeStyle::Interleaved));
    assert!(old.qkv_bias && !old.output_bias);
    assert_eq!(old.parameters(), 9_399_951_360);
    for (name, architecture) in
        [("GlmForCausalLM", Architecture::Glm), ("Glm4ForCausalLM", Architecture::Glm4)]
    {
        let new = parse(&json!({
            "architectures": [name], "attention_bias": true,
            "eos_token_id": [151329, 151336, 151338], "head_dim": 128, "hidden_act": "silu",
            "hidden_size": 4096, "intermediate_size": 13696, "max_position_embeddings": 131072,
            "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 2,
            "partial_rotary_factor": 0.5, "rms_norm_eps": 1.5625e-07, "rope_theta": 5000000.0,
            "torch_dtype": "bfloat16", "vocab_size": 151552
        }))
        .unwrap();
        assert_eq!(new, ModelConfig { architecture, ..old.clone() });
    }
}

/// The keys that a published Qwen2.5 `config.json` has.
fn qwen25() -> serde_json::Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"], "bos_token_id": 151643, "eos_token_id": 151645,
        "hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944,
        "max_position_embeddings": 32768, "max_window_layers": 28, "model_type": "qwen2",
        "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "sliding_window": 131072,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_sliding_window": false,
        "vocab_size": 152064
    })
}

#[test]
fn qwen25_is_understood() {
    let config = parse(&qwen25()).unwrap();
    assert_eq!((config.architecture, config.head_dim), (Architecture::Qwen2, 128));
    assert!(config.qkv_bias && !config.output_bias && !config.tied);
    assert_eq!(config.parameters(), 7_615_616_512);
    assert_eq!((config.max_positions, &config.rope.scaling), (32_768, &RopeScaling::None));
    let mut slid = qwen25();
    slid["use_sliding_window"] = json!(true);
    assert!(refusal(&slid).contains("`sliding_window`"));
}

#[test]
fn yarn_stretches_the_context() {
    let mut value = qwen25();
    for scaling in [
        json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
        json!({"rope_type": "yarn", "factor": 4.0}),
    ] {
        value["rope_scaling"] = scaling;
        let config = parse(&value).unwrap();
        assert_eq!(config.max_positions, 131_072);
        assert_eq!(config.rope.scaling, RopeScaling::Yarn(Yarn::new(4.0, 32_768.0)));
        assert!((config.rope.scaling.table_factor() - 1.138_629).abs() < 1e-6);
    }
    value["rope_scaling"] =
        json!({"type": "yarn", "factor": 2.0, "attention_factor": 1.5, "truncate": false});
    let RopeScaling::Yarn(yarn) = parse(&value).unwrap().rope.scaling else { panic!("no YaRN") };
    assert_eq!((yarn.attention_factor, yarn.whole_ends, yarn.beta_fast), (1.5, false, 32.0));
}

#[test]
fn qwen3_and_mistral_are_understood() {
    let config = parse(&json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 2560, "intermediate_size": 9728,
        "max_position_embeddings": 262144, "num_attention_heads": 32, "num_hidden_layers": 36,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_theta": 5000000, "sliding_window": null,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_sliding_window": false,
        "vocab_size": 151936
    }))
    .unwrap();
    assert_eq!((config.architecture, config.q_rows()), (Architecture::Qwen3, 4096));
    assert_eq!((config.parameters(), config.qkv_bias), (4_022_468_096, false));

    let mut mistral = llama31();
    mistral["architectures"] = json!(["MistralForCausalLM"]);
    mistral["sliding_window"] = json!(null);
    assert_eq!(parse(&mistral).unwrap(), parse(&llama31()).unwrap());
}

#[test]
fn what_the_decoder_can_not_run_is_refused_by_key() {
    let cases = [
        ("architectures", json!(["MambaForCausalLM"]), "MambaForCausalLM"),
        ("hidden_act", json!("gelu"), "gelu"),
        ("mlp_bias", json!(true), "not supported"),
        ("hidden_size", json!("wide"), "\"wide\""),
        ("num_hidden_layers", json!(0), "0 is not a size"),
        ("num_hidden_layers", json!(100_000_000), "can't be meant"),
        ("max_position_embeddings", json!(100_000_000), "can't be meant"),
        ("num_attention_heads", json!(33), "33"),
        ("vocab_size", json!(null), "missing"),
        ("rms_norm_eps", json!([]), "not a number"),
        ("tie_word_embeddings", json!("yes"), "not true or false"),
        ("quantization_config", json!({"bits": 4}), "GGUF"),
        ("sliding_window", json!(4096), "not supported"),
        ("layer_types", json!(["full_attention", "sliding_attention"]), "sliding_attention"),
        ("torch_dtype", json!("int8"), "int8"),
    ];
    for (key, value, part) in cases {
        let mut config = llama31();
        config[key] = value;
        let message = refusal(&config);
        assert!(message.starts_with("dir/config.json: "), "{message}");
        assert!(message.contains(key) && message.contains(part), "{key}: {message}");
    }
    let mut config = chatglm();
    config["add_bias_linear"] = json!(true);
    assert!(refusal(&config).contains("`add_bias_linear`"));
}

#[test]
fn keys_inside_rope_scaling_are_named_with_their_path() {
    let mut config = llama31();
    config["rope_scaling"] = json!({"rope_type": "longrope", "factor": 4.0});
    let message = refusal(&config);
    assert!(message.contains("`rope_scaling.rope_type`") && message.contains("longrope"));
    config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0, "mscale": 1.0});
    assert!(refusal(&config).contains("`rope_scaling.mscale`: not supported"));
    config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 4.0});
    assert!(refusal(&config).contains("`rope_scaling.low_freq_factor`: missing"));
    config["rope_scaling"] = json!({"factor": 4.0});
    assert!(refusal(&config).contains("`rope_scaling.type`: missing"));
}

#[test]
fn heads_that_attention_can_not_run_are_refused_by_name() {
    let mut config = llama31();
    config["head_dim"] = json!(72);
    let message = parse(&config).unwrap_err().to_string();
    assert!(message.contains("key `head_dim`: heads of 72 elements"), "{message}");
    config["head_dim"] = json!(80);
    assert_eq!(parse(&config).unwrap().head_dim, 80);
}

#[test]
fn files_that_are_no_json_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::Folder(folder.path().to_path_buf());
    let file = folder.path().join("config.json");
    let message = |text: &[u8]| {
        std::fs::write(&file, text).unwrap();
        read(&source).unwrap_err().to_string()
    };
    assert!(read(&source).unwrap_err().to_string().contains("config.json: can't be read"));
    assert!(message(b"{\"a\": \"\xff\"}").contains("config.json: not UTF-8 (byte 7)"));
    assert!(message(b"{\"a\": \n 1,}").contains("config.json: not JSON: "));
    assert!(message(b"[]").contains("config.json: not a JSON object"));
    assert!(message(b"{}").contains("key `architectures`: missing"));
}

/// What llama.cpp writes for a Llama-3.1.
fn gguf_metadata() -> HashMap<String, Value> {
    [
        ("general.architecture", Value::String("llama".to_string())),
        ("llama.block_count", Value::U32(32)),
        ("llama.context_length", Value::U32(131_072)),
        ("llama.embedding_length", Value::U32(4096)),
        ("llama.feed_forward_length", Value::U32(14_336)),
        ("llama.attention.head_count", Value::U32(32)),
        ("llama.attention.head_count_kv", Value::U32(8)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.dimension_count", Value::U32(128)),
        ("llama.rope.freq_base", Value::F32(500_000.0)),
        ("llama.vocab_size", Value::U32(128_256)),
        ("tokenizer.ggml.eos_token_id", Value::U32(128_001)),
        ("tokenizer.ggml.eot_token_id", Value::U32(128_009)),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into()
}

fn parse_gguf(metadata: HashMap<String, Value>) -> Result<ModelConfig> {
    let content = Content {
        magic: VersionedMagic::GgufV3,
        metadata,
        tensor_infos: HashMap::new(),
        tensor_data_offset: 0,
    };
    gguf::from_metadata(&content, Path::new("x.gguf"))
}

#[test]
fn gguf_metadata_mean_the_same_network() {
    let from_gguf = parse_gguf(gguf_metadata()).unwrap();
    let from_json = parse(&llama31()).unwrap();
    let expected = ModelConfig {
        architecture: Architecture::LlamaGguf,
        rope: RopeConfig {
            style: RopeStyle::Interleaved,
            // Carried by the tensor `rope_freqs.weight` instead.
            scaling: RopeScaling::None,
            ..from_json.rope
        },
        rms_eps: f64::from(1e-5f32),
        // Without tensors there is no head of its own.
        tied: true,
        stored_dtype: DType::F32,
        ..from_json
    };
    assert_eq!(from_gguf, expected);
}

#[test]
fn qwen_in_gguf_means_the_same_network() {
    let metadata = gguf_metadata().into_iter().map(|(key, value)| match key.as_str() {
        "general.architecture" => (key, Value::String("qwen2".to_string())),
        "llama.context_length" => ("qwen2.context_length".to_string(), Value::U32(32_768)),
        _ => (key.replace("llama.", "qwen2."), value),
    });
    let mut metadata: HashMap<_, _> = metadata.collect();
    let qwen2 = parse_gguf(metadata.clone()).unwrap();
    assert_eq!(qwen2.architecture, Architecture::Qwen2Gguf);
    assert_eq!(qwen2.rope.style, RopeStyle::HalfSplit);
    assert_eq!((qwen2.hidden, qwen2.max_positions), (4096, 32_768));

    let yarn = Value::String("yarn".to_string());
    metadata.insert("qwen2.rope.scaling.type".to_string(), yarn);
    metadata.insert("qwen2.rope.scaling.factor".to_string(), Value::F32(4.0));
    let stretched = parse_gguf(metadata).unwrap();
    assert_eq!(stretched.rope.scaling, RopeScaling::Yarn(Yarn::new(4.0, 32_768.0)));
    assert_eq!(stretched.max_positions, 131_072);
}

#[test]
fn gguf_keys_are_named_when_they_are_wrong() {
    let cases = [
        ("general.architecture", Some(Value::String("mamba".to_string())), "mamba"),
        ("llama.block_count", None, "missing"),
        ("llama.block_count", Some(Value::U32(0)), "0 is not a size"),
        ("llama.attention.head_count_kv", Some(Value::Array(vec![Value::U32(8)])), "Array"),
        ("llama.expert_count", Some(Value::U32(8)), "experts"),
        ("llama.attention.layer_norm_rms_epsilon", Some(Value::U32(1)), "not a number"),
        ("llama.rope.scaling.type", Some(Value::String("longrope".to_string())), "longrope"),
        ("llama.attention.value_length", Some(Value::U32(64)), "differs"),
    ];
    for (key, value, part) in cases {
        let mut metadata = gguf_metadata();
        match value {
            Some(value) => metadata.insert(key.to_string(), value),
            None => metadata.remove(key),
        };
        let message = parse_gguf(metadata).unwrap_err().to_string();
        assert!(message.starts_with(&format!("x.gguf: key `{key}`")), "{message}");
        assert!(message.contains(part), "{message}");
    }
}
