//! GLM-4 in its three layouts: half of each head rotated in neighbouring pairs, a bias on q, k and
//! v, gate and up in one matrix.

use crate::spec::Spec;
use kernels::rope::RopeStyle;

/// `ChatGLMModel`, the layout of the first release: q, k and v in one matrix.
pub const CHATGLM: Spec = Spec {
    name: "ChatGLMModel",
    embedding: "transformer.embedding.word_embeddings",
    final_norm: "transformer.encoder.final_layernorm",
    head: "transformer.output_layer",
    layer_prefix: "transformer.encoder.layers.",
    input_norm: "input_layernorm",
    qkv: &["self_attention.query_key_value"],
    head_norms: &[],
    attention_output: "self_attention.dense",
    attention_output_norm: None,
    ffn_norm: "post_attention_layernorm",
    gate_up: &["mlp.dense_h_to_4h"],
    down: "mlp.dense_4h_to_h",
    ffn_output_norm: None,
    rope_style: RopeStyle::Interleaved,
    rotated_share: 0.5,
    rope_factors: None,
    ignorable: &["rotary_pos_emb.inv_freq"],
};

/// `GlmForCausalLM`: the same network under Hugging Face names.
pub const GLM: Spec = Spec {
    name: "GlmForCausalLM",
    embedding: "model.embed_tokens",
    final_norm: "model.norm",
    head: "lm_head",
    layer_prefix: "model.layers.",
    input_norm: "input_layernorm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    head_norms: &[],
    attention_output: "self_attn.o_proj",
    attention_output_norm: None,
    ffn_norm: "post_attention_layernorm",
    gate_up: &["mlp.gate_up_proj"],
    down: "mlp.down_proj",
    ffn_output_norm: None,
    rope_style: RopeStyle::Interleaved,
    rotated_share: 0.5,
    rope_factors: None,
    ignorable: &["rotary_emb.inv_freq"],
};

/// `Glm4ForCausalLM`: the results of attention and feed-forward are normed too.
pub const GLM4: Spec = Spec {
    name: "Glm4ForCausalLM",
    attention_output_norm: Some("post_self_attn_layernorm"),
    ffn_output_norm: Some("post_mlp_layernorm"),
    ..GLM
};
