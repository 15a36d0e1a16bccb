//! The Llama family: RMS norm before each block, grouped-query attention, SwiGLU.

use crate::spec::Spec;
use kernels::rope::RopeStyle;

/// `LlamaForCausalLM` in safetensors.
pub const HUGGING_FACE: Spec = Spec {
    name: "LlamaForCausalLM",
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
    gate_up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    ffn_output_norm: None,
    rope_style: RopeStyle::HalfSplit,
    rotated_share: 1.0,
    rope_factors: None,
    ignorable: &["rotary_emb.inv_freq"],
};

/// Architecture `llama` in GGUF. Its converter reorders the rows of q and k so that rotated pairs
/// are neighbours; rotating interleaved gives the same scores, so the rows stay as they are.
pub const GGUF: Spec = Spec {
    name: "GGUF llama",
    embedding: "token_embd",
    final_norm: "output_norm",
    head: "output",
    layer_prefix: "blk.",
    input_norm: "attn_norm",
    qkv: &["attn_q", "attn_k", "attn_v"],
    head_norms: &[],
    attention_output: "attn_output",
    attention_output_norm: None,
    ffn_norm: "ffn_norm",
    gate_up: &["ffn_gate", "ffn_up"],
    down: "ffn_down",
    ffn_output_norm: None,
    rope_style: RopeStyle::Interleaved,
    rotated_share: 1.0,
    rope_factors: Some("rope_freqs.weight"),
    ignorable: &["rotary_emb.inv_freq", ".attn_rot_embd"],
};
