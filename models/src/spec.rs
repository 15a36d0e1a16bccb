//! What differs between architectures, as data. A new architecture is one more [`Spec`], not one
//! more decoder.

use crate::config::ModelConfig;
use crate::{glm4, llama, qwen};
use kernels::rope::RopeStyle;

/// The layouts of weights that the decoder runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `LlamaForCausalLM`: Llama-2, 3, 3.1, 3.2, SmolLM2; and `MistralForCausalLM`, whose tensors are the same.
    Llama,
    /// The same network under llama.cpp's tensor names, as GGUF files store it.
    LlamaGguf,
    /// `ChatGLMModel`: GLM-4 as first published.
    ChatGlm,
    /// `GlmForCausalLM`: GLM-4 under Hugging Face names.
    Glm,
    /// `Glm4ForCausalLM`: GLM-4-0414, with two more norms per layer.
    Glm4,
    /// `Qwen2ForCausalLM`: Qwen2, Qwen2.5.
    Qwen2,
    /// The same under llama.cpp's tensor names.
    Qwen2Gguf,
    /// `Qwen3ForCausalLM`: Qwen3 without experts.
    Qwen3,
    /// The same under llama.cpp's tensor names.
    Qwen3Gguf,
}

impl Architecture {
    /// The row of data for this layout.
    pub fn spec(self) -> &'static Spec {
        match self {
            Self::Llama => &llama::HUGGING_FACE,
            Self::LlamaGguf => &llama::GGUF,
            Self::ChatGlm => &glm4::CHATGLM,
            Self::Glm => &glm4::GLM,
            Self::Glm4 => &glm4::GLM4,
            Self::Qwen2 => &qwen::QWEN2,
            Self::Qwen2Gguf => &qwen::QWEN2_GGUF,
            Self::Qwen3 => &qwen::QWEN3,
            Self::Qwen3Gguf => &qwen::QWEN3_GGUF,
        }
    }
}

/// Tensor names and placements of one layout. Names have no `.weight`; names of a layer follow
/// [`Spec::layer_prefix`] and the layer's number.
#[derive(Debug)]
pub struct Spec {
    /// The name people know the layout by.
    pub name: &'static str,
    /// Token embedding `[vocab, hidden]`.
    pub embedding: &'static str,
    /// Norm after the last layer.
    pub final_norm: &'static str,
    /// Output head `[vocab, hidden]`; absent from checkpoints whose head is tied.
    pub head: &'static str,
    /// What stands before the number of a layer.
    pub layer_prefix: &'static str,
    /// Norm before attention.
    pub input_norm: &'static str,
    /// One merged matrix (rows q, k, v) or three.
    pub qkv: &'static [&'static str],
    /// Norms of each head of q and of k before rotation, `[head_dim]` each, or nothing.
    pub head_norms: &'static [&'static str],
    /// Projection of the heads' results back to `hidden`.
    pub attention_output: &'static str,
    /// Norm of attention's result, before it is added to the residual stream.
    pub attention_output_norm: Option<&'static str>,
    /// Norm before the feed-forward block.
    pub ffn_norm: &'static str,
    /// One merged matrix (rows gate, up) or two.
    pub gate_up: &'static [&'static str],
    /// Projection `[hidden, ffn]`.
    pub down: &'static str,
    /// Norm of the feed-forward block's result, before it is added to the residual stream.
    pub ffn_output_norm: Option<&'static str>,
    /// Which elements of a head form the rotated pairs.
    pub rope_style: RopeStyle,
    /// Share of a head that is rotated where the configuration does not say.
    pub rotated_share: f64,
    /// Whole name of a tensor with one divisor per rotary frequency, in files that carry one.
    pub rope_factors: Option<&'static str>,
    /// Ends of names of tensors that older exports carry although they hold no weights.
    pub ignorable: &'static [&'static str],
}

/// A tensor that the decoder takes from a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the checkpoint.
    pub name: String,
    /// Row-major shape, rows first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    pub(crate) fn new(name: String, shape: &[usize]) -> Self {
        Self { name, shape: shape.to_vec() }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The tensors of one layer, in the order in which the layer uses them. A list is empty where the
/// architecture has no such tensor and has several entries where the checkpoint splits a matrix.
#[derive(Debug)]
pub struct LayerTensors {
    pub input_norm: TensorSpec,
    pub qkv: Vec<TensorSpec>,
    pub qkv_bias: Vec<TensorSpec>,
    /// Of q and of k.
    pub head_norms: Vec<TensorSpec>,
    pub attention_output: TensorSpec,
    pub attention_output_bias: Vec<TensorSpec>,
    pub attention_output_norm: Vec<TensorSpec>,
    pub ffn_norm: TensorSpec,
    pub gate_up: Vec<TensorSpec>,
    pub down: TensorSpec,
    pub ffn_output_norm: Vec<TensorSpec>,
}

impl LayerTensors {
    fn into_list(self) -> Vec<TensorSpec> {
        let mut list = vec![self.input_norm];
        list.extend(self.qkv);
        list.extend(self.qkv_bias);
        list.extend(self.head_norms);
        list.push(self.attention_output);
        list.extend(self.attention_output_bias);
        list.extend(self.attention_output_norm);
        list.push(self.ffn_norm);
        list.extend(self.gate_up);
        list.push(self.down);
        list.extend(self.ffn_output_norm);
        list
    }
}

impl Spec {
    /// Token embedding `[vocab, hidden]`.
    pub fn embedding(&self, config: &ModelConfig) -> TensorSpec {
        TensorSpec::new(weight(self.embedding), &[config.vocab, config.hidden])
    }

    /// Norm after the last layer, `[hidden]`.
    pub fn final_norm(&self, config: &ModelConfig) -> TensorSpec {
        TensorSpec::new(weight(self.final_norm), &[config.hidden])
    }

    /// Output head `[vocab, hidden]`.
    pub fn head(&self, config: &ModelConfig) -> TensorSpec {
        TensorSpec::new(weight(self.head), &[config.vocab, config.hidden])
    }

    /// Divisors of the rotary frequencies, `[rotated / 2]`, for layouts that know such a tensor.
    pub fn rope_factors(&self, config: &ModelConfig) -> Option<TensorSpec> {
        let name = self.rope_factors?;
        Some(TensorSpec::new(name.to_string(), &[config.rope.rotated_dim / 2]))
    }

    /// The tensors of layer number `layer`.
    pub fn layer(&self, config: &ModelConfig, layer: usize) -> LayerTensors {
        let (hidden, ffn) = (config.hidden, config.ffn);
        let matrix = |name: &str, n, k| TensorSpec::new(weight(&self.inner(layer, name)), &[n, k]);
        let vector = |name: &str, n| TensorSpec::new(weight(&self.inner(layer, name)), &[n]);
        let norm = |name: &str| vector(name, hidden);
        let bias = |name: &str, n| TensorSpec::new(self.inner(layer, name) + ".bias", &[n]);
        let qkv = parts(self.qkv, &[config.q_rows(), config.kv_rows(), config.kv_rows()]);
        LayerTensors {
            input_norm: norm(self.input_norm),
            qkv: qkv.iter().map(|&(name, n)| matrix(name, n, hidden)).collect(),
            qkv_bias: qkv
                .iter()
                .filter(|_| config.qkv_bias)
                .map(|&(name, n)| bias(name, n))
                .collect(),
            head_norms: self.head_norms.iter().map(|name| vector(name, config.head_dim)).collect(),
            attention_output: matrix(self.attention_output, hidden, config.q_rows()),
            attention_output_bias: config
                .output_bias
                .then(|| bias(self.attention_output, hidden))
                .into_iter()
                .collect(),
            attention_output_norm: self.attention_output_norm.map(norm).into_iter().collect(),
            ffn_norm: norm(self.ffn_norm),
            gate_up: parts(self.gate_up, &[ffn, ffn])
                .into_iter()
                .map(|(name, n)| matrix(name, n, hidden))
                .collect(),
            down: matrix(self.down, hidden, ffn),
            ffn_output_norm: self.ffn_output_norm.map(norm).into_iter().collect(),
        }
    }

    /// Every tensor that a checkpoint of this shape must have.
    pub fn tensors(&self, config: &ModelConfig) -> Vec<TensorSpec> {
        let mut list = vec![self.embedding(config)];
        for layer in 0..config.layers {
            list.extend(self.layer(config, layer).into_list());
        }
        list.push(self.final_norm(config));
        if !config.tied {
            list.push(self.head(config));
        }
        list
    }

    /// Whether a tensor that nothing takes may be left over: a buffer that older exports saved, or
    /// the copy of a head that is tied to the embedding.
    pub fn may_ignore(&self, config: &ModelConfig, name: &str) -> bool {
        self.ignorable.iter().any(|end| name.ends_with(end))
            || (config.tied && name == weight(self.head))
    }

    fn inner(&self, layer: usize, name: &str) -> String {
        format!("{}{layer}.{name}", self.layer_prefix)
    }
}

fn weight(name: &str) -> String {
    format!("{name}.weight")
}

/// Rows of each stored matrix: of each part, or of all together where the names are one.
fn parts<'a>(names: &'a [&'a str], rows: &[usize]) -> Vec<(&'a str, usize)> {
    match names {
        [merged] => vec![(merged, rows.iter().sum())],
        split => split.iter().copied().zip(rows.iter().copied()).collect(),
    }
}
