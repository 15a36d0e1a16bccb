//! The Qwen family: Llama's network with a bias on q, k and v (Qwen2, Qwen2.5) or with a norm on
//! each head of q and k (Qwen3).

use crate::llama;
use crate::spec::Spec;
use kernels::rope::RopeStyle;

/// `Qwen2ForCausalLM` in safetensors.
pub const QWEN2: Spec = Spec { name: "Qwen2ForCausalLM", ..llama::HUGGING_FACE };

/// `Qwen3ForCausalLM` in safetensors.
pub const QWEN3: Spec = Spec {
    name: "Qwen3ForCausalLM",
    head_norms: &["self_attn.q_norm", "self_attn.k_norm"],
    ..llama::HUGGING_FACE
};

/// Architecture `qwen2` in GGUF, whose converter leaves the rows of q and k in their order.
pub const QWEN2_GGUF: Spec =
    Spec { name: "GGUF qwen2", rope_style: RopeStyle::HalfSplit, ..llama::GGUF };

/// Architecture `qwen3` in GGUF.
pub const QWEN3_GGUF: Spec =
    Spec { name: "GGUF qwen3", head_norms: &["attn_q_norm", "attn_k_norm"], ..QWEN2_GGUF };
