//! On the processor the bits of a row do not depend on what else is in the batch or on how its
//! sequence was cut into steps.

use crate::harness::{Bench, dummy};

/// Odd sizes, grouped heads, several blocks per sequence.
const CONFIGS: [(&str, &str); 4] = [
    (
        "llama",
        r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 96, "intermediate_size": 176,
            "num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 3,
            "vocab_size": 131, "max_position_embeddings": 1024, "rope_theta": 500000.0,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 128}}"#,
    ),
    (
        "chatglm",
        r#"{"architectures": ["ChatGLMModel"], "hidden_size": 64, "ffn_hidden_size": 112,
            "num_layers": 2, "num_attention_heads": 4, "multi_query_attention": true,
            "multi_query_group_num": 2, "kv_channels": 16, "padded_vocab_size": 131,
            "seq_length": 1024, "layernorm_epsilon": 1.5625e-7, "rope_ratio": 500,
            "add_qkv_bias": true}"#,
    ),
    (
        "glm4",
        r#"{"architectures": ["Glm4ForCausalLM"], "hidden_size": 64, "intermediate_size": 112,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1,
            "head_dim": 32, "vocab_size": 131, "max_position_embeddings": 1024,
            "partial_rotary_factor": 0.5}"#,
    ),
    (
        "qwen3",
        r#"{"architectures": ["Qwen3ForCausalLM"], "hidden_size": 48, "intermediate_size": 80,
            "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1,
            "head_dim": 16, "vocab_size": 131, "max_position_embeddings": 1024}"#,
    ),
];

/// Tokens that look random.
fn tokens(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32)
        .map(|i| (i + seed).wrapping_mul(2_654_435_761) >> 9)
        .map(|x| x % 131)
        .collect()
}

#[test]
fn a_prompt_in_chunks_equals_the_whole_prompt_bit_for_bit() {
    let prompt = tokens(1, 300);
    for (name, config) in CONFIGS {
        let decoder = dummy(config);
        let whole = Bench::new(&decoder, 1).step(&[(0, &prompt)]);
        for chunk in [1, 7, 16, 64, 299] {
            let mut bench = Bench::new(&decoder, 1);
            let chunks: Vec<_> =
                prompt.chunks(chunk).flat_map(|part| bench.step(&[(0, part)])).collect();
            assert!(chunks == whole, "{name} in chunks of {chunk}");
        }
    }
}

#[test]
fn a_sequence_in_a_batch_equals_the_sequence_alone_bit_for_bit() {
    let sequences = [tokens(1, 33), tokens(2, 1), tokens(3, 200), tokens(4, 16), tokens(5, 95)];
    for (name, config) in CONFIGS {
        let decoder = dummy(config);
        let mut together = Bench::new(&decoder, sequences.len());
        let work: Vec<_> = sequences.iter().enumerate().map(|(i, s)| (i, s.as_slice())).collect();
        let mut rows = together.step(&work).into_iter();
        let mut alone: Vec<_> = sequences.iter().map(|_| Bench::new(&decoder, 1)).collect();
        for (i, sequence) in sequences.iter().enumerate() {
            let batched: Vec<_> = rows.by_ref().take(sequence.len()).collect();
            assert!(alone[i].step(&[(0, sequence)]) == batched, "{name}, sequence {i}");
        }
        // One more token each, together with a new chunk of the second sequence.
        let more = tokens(6, 40);
        let step = [(0, &more[..1]), (1, &more[..]), (3, &more[3..4]), (4, &more[4..5])];
        let mut rows = together.step(&step).into_iter();
        for (i, part) in step {
            let batched: Vec<_> = rows.by_ref().take(part.len()).collect();
            assert!(alone[i].step(&[(0, part)]) == batched, "{name}, sequence {i} continued");
        }
    }
}

#[test]
fn only_the_rows_asked_for_come_back_and_they_are_the_same() {
    let prompt = tokens(1, 50);
    for (name, config) in CONFIGS {
        let decoder = dummy(config);
        let whole = Bench::new(&decoder, 1).step(&[(0, &prompt)]);
        let some = Bench::new(&decoder, 1).step_for(&[(0, &prompt)], vec![3, 49]);
        assert!(some == [whole[3].clone(), whole[49].clone()], "{name}");
        let mut bench = Bench::new(&decoder, 1);
        assert!(bench.step_for(&[(0, &prompt[..49])], vec![]).is_empty(), "{name}");
        assert!(bench.step(&[(0, &prompt[49..])]) == whole[49..], "{name} after a silent step");
    }
}
