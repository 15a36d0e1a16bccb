//! Names and shapes of BERT's tensors, as Hugging Face checkpoints store them.

use super::config::EncoderConfig;
use crate::spec::TensorSpec;

/// What stands before all names in checkpoints saved with a head on top.
pub(super) const PREFIX: &str = "bert.";

/// The token embedding.
pub(super) const WORDS: &str = "embeddings.word_embeddings.weight";

/// Beginnings of names, after the prefix, of tensors that embedding does not need: a buffer of
/// older exports, and a head trained for another task.
const IGNORABLE: [&str; 2] = ["embeddings.position_ids", "pooler."];

/// A matrix, or the scale of a norm, with its bias.
#[derive(Debug)]
pub(super) struct Pair {
    pub weight: TensorSpec,
    pub bias: TensorSpec,
}

/// All tensors of an embedder.
#[derive(Debug)]
pub(super) struct Tensors {
    /// `[vocab, hidden]`
    pub words: TensorSpec,
    /// `[positions, hidden]`
    pub positions: TensorSpec,
    /// `[token types, hidden]`
    pub token_types: TensorSpec,
    pub embedding_norm: Pair,
    pub layers: Vec<LayerTensors>,
}

/// The tensors of one layer, in the order in which the layer uses them.
#[derive(Debug)]
pub(super) struct LayerTensors {
    pub query: Pair,
    pub key: Pair,
    pub value: Pair,
    pub attention_output: Pair,
    pub attention_norm: Pair,
    pub up: Pair,
    pub down: Pair,
    pub output_norm: Pair,
}

impl Tensors {
    /// `prefix` is [`PREFIX`] or empty.
    pub fn new(config: &EncoderConfig, prefix: &str) -> Self {
        let hidden = config.hidden;
        let table = |name: &str, rows| TensorSpec::new(format!("{prefix}{name}"), &[rows, hidden]);
        Self {
            words: table(WORDS, config.vocab),
            positions: table("embeddings.position_embeddings.weight", config.positions),
            token_types: table("embeddings.token_type_embeddings.weight", config.token_types),
            embedding_norm: norm(&format!("{prefix}embeddings.LayerNorm"), hidden),
            layers: (0..config.layers)
                .map(|layer| LayerTensors::new(config, &format!("{prefix}encoder.layer.{layer}.")))
                .collect(),
        }
    }

    pub fn into_list(self) -> Vec<TensorSpec> {
        let mut list = vec![self.words, self.positions, self.token_types];
        list.extend([self.embedding_norm.weight, self.embedding_norm.bias]);
        for layer in self.layers {
            list.extend(layer.into_pairs().into_iter().flat_map(|pair| [pair.weight, pair.bias]));
        }
        list
    }
}

impl LayerTensors {
    fn new(config: &EncoderConfig, prefix: &str) -> Self {
        let (hidden, ffn) = (config.hidden, config.ffn);
        let square = |name: &str| matrix(&format!("{prefix}{name}"), hidden, hidden);
        Self {
            query: square("attention.self.query"),
            key: square("attention.self.key"),
            value: square("attention.self.value"),
            attention_output: square("attention.output.dense"),
            attention_norm: norm(&format!("{prefix}attention.output.LayerNorm"), hidden),
            up: matrix(&format!("{prefix}intermediate.dense"), ffn, hidden),
            down: matrix(&format!("{prefix}output.dense"), hidden, ffn),
            output_norm: norm(&format!("{prefix}output.LayerNorm"), hidden),
        }
    }

    fn into_pairs(self) -> [Pair; 8] {
        [
            self.query,
            self.key,
            self.value,
            self.attention_output,
            self.attention_norm,
            self.up,
            self.down,
            self.output_norm,
        ]
    }
}

fn matrix(name: &str, n: usize, k: usize) -> Pair {
    Pair {
        weight: TensorSpec::new(format!("{name}.weight"), &[n, k]),
        bias: TensorSpec::new(format!("{name}.bias"), &[n]),
    }
}

fn norm(name: &str, width: usize) -> Pair {
    Pair {
        weight: TensorSpec::new(format!("{name}.weight"), &[width]),
        bias: TensorSpec::new(format!("{name}.bias"), &[width]),
    }
}

/// Whether a tensor that nothing takes may be left over.
pub(super) fn may_ignore(name: &str) -> bool {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    IGNORABLE.iter().any(|start| name.starts_with(start))
}
