//! Sentence embeddings by a BERT-style encoder (Devlin et al. 2019; Reimers & Gurevych 2019), for
//! models such as all-MiniLM-L6-v2 and the bge family. It runs on the processor.
//!
//! ```text
//! ids ─ words + positions ─ norm ─┬─ attention ─ + ─ norm ─┬─ up, GELU, down ─ + ─ norm ─ pooling
//!                                 └──────────────┘         └──────────────────┘
//!                                 └──────────────── each layer ───────────────┘
//! ```
//! Texts lie ragged, one behind the other, and are grouped into batches of a bounded number of
//! rows. A text's vector has the same bits whatever the other texts are and however many threads
//! there are.

mod attention;
mod config;
mod functions;
mod tensors;
#[cfg(test)]
mod tests;

use crate::checkpoint::Checkpoint;
use crate::error::{ModelError, Result};
use crate::source::Source;
use crate::spec::TensorSpec;
use crate::weights::{Loader, Weights};
use crate::{DtypeChoice, LoadOptions};
use candle_core::{Device, Tensor};
use config::{EncoderConfig, Pooling};
use functions::LayerNorm;
use kernels::Matrix;
use kernels::embedding::Embedding;
use kernels::linear::Linear;
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;
use tensors::{LayerTensors, Pair, Tensors};

/// Rows (tokens) of a batch: enough to pay for a read of the weights, few enough for a layer's
/// activations to stay in a core's cache.
const BATCH_ROWS: usize = 256;

/// Name of the network in errors.
const NAME: &str = "BertModel";

/// A sentence embedder with its weights.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    words: Embedding,
    /// Position embedding plus the embedding of token type 0, `[positions, hidden]`.
    positions: Vec<f32>,
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    qkv: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
}

impl Encoder {
    /// Loads a folder with `config.json`, safetensors and, where the embedder has them,
    /// `1_Pooling/config.json` (mean pooling if absent), `sentence_bert_config.json` and
    /// `modules.json`.
    ///
    /// # Errors
    /// Names the file and the key or tensor: missing, malformed, of the wrong shape, left over, or
    /// something that the encoder does not do.
    pub fn load(folder: &Path) -> Result<Self> {
        let config = config::read(folder)?;
        let mut checkpoint = Checkpoint::open(&Source::Folder(folder.to_path_buf()))?;
        let prefixed = checkpoint.has(&format!("{}{}", tensors::PREFIX, tensors::WORDS));
        let names = || Tensors::new(&config, if prefixed { tensors::PREFIX } else { "" });
        checkpoint.check_list(NAME, &names().into_list(), tensors::may_ignore)?;
        let names = names();
        Self::build(config, names, &mut checkpoint)
    }

    fn build(config: EncoderConfig, names: Tensors, weights: &mut dyn Weights) -> Result<Self> {
        let options = LoadOptions { dtype: DtypeChoice::Auto, device: Device::Cpu };
        let mut ignore_progress = |_, _| ();
        let mut loader = Loader::new(weights, &options, &mut ignore_progress)?;
        let (words, _) = loader.embedding(&names.words, false)?;
        let type_0 = loader.vector(&names.token_types)?.narrow(0, 0, 1)?;
        let positions = loader.vector(&names.positions)?.broadcast_add(&type_0)?;
        let encoder = Self {
            words,
            positions: values(&positions)?,
            embedding_norm: layer_norm(&names.embedding_norm, config.eps, &mut loader)?,
            layers: names
                .layers
                .into_iter()
                .map(|names| Layer::build(names, config.eps, &mut loader))
                .collect::<Result<_>>()?,
            config,
        };
        loader.finish()?;
        Ok(encoder)
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.config.hidden
    }

    /// Tokens of the longest text that can be embedded, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens
    }

    /// The vectors of texts given as token ids (with the special tokens that the model expects),
    /// in their order, each of length 1.
    ///
    /// # Errors
    /// A text without tokens, with more than [`Encoder::max_tokens`], or with an id beyond the
    /// vocabulary.
    pub fn embed(&self, ids: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        self.check(ids)?;
        let batches = batches(ids).into_par_iter().map(|batch| self.embed_batch(&ids[batch]));
        Ok(batches.collect::<Result<Vec<_>>>()?.concat())
    }

    fn check(&self, ids: &[Vec<u32>]) -> Result<()> {
        let max = self.max_tokens();
        for (number, text) in ids.iter().enumerate() {
            let problem = match text.len() {
                0 => "has no tokens".to_string(),
                tokens if tokens > max => format!("has {tokens} tokens, at most {max} fit"),
                _ => match text.iter().find(|&&id| id as usize >= self.config.vocab) {
                    None => continue,
                    Some(id) => {
                        format!("has token {id}, beyond the vocabulary of {}", self.config.vocab)
                    }
                },
            };
            return Err(ModelError::Batch(format!("embedder: text {number} {problem}")));
        }
        Ok(())
    }

    fn embed_batch(&self, ids: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        let lengths: Vec<_> = ids.iter().map(Vec::len).collect();
        let mut x = self.embed_tokens(ids)?;
        for layer in &self.layers {
            x = layer.forward(&x, &lengths, self.config.heads)?;
        }
        let states = values(&x)?;
        let mut rest = states.as_slice();
        let vectors = lengths.iter().map(|tokens| {
            let text = rest.split_off(..tokens * self.config.hidden).unwrap_or_default();
            self.pool(text)
        });
        Ok(vectors.collect())
    }

    /// Input of the first layer, `[T, hidden]`.
    fn embed_tokens(&self, ids: &[Vec<u32>]) -> Result<Tensor> {
        let hidden = self.config.hidden;
        let mut words = Matrix::default();
        self.words.gather(&ids.concat(), &mut words)?;
        let mut x = words.view().read()?.into_owned();
        let mut rows = x.chunks_exact_mut(hidden);
        for text in ids {
            let positions = self.positions.chunks_exact(hidden);
            for (row, position) in rows.by_ref().take(text.len()).zip(positions) {
                row.iter_mut().zip(position).for_each(|(x, p)| *x += p);
            }
        }
        self.embedding_norm.apply(&mut x);
        matrix(x, hidden)
    }

    /// One vector of length 1 from the states `[tokens, hidden]` of a text.
    fn pool(&self, states: &[f32]) -> Vec<f32> {
        let hidden = self.config.hidden;
        let mut vector = states[..hidden].to_vec();
        if self.config.pooling == Pooling::Mean {
            // The sum points where the mean does, and only the direction stays.
            for row in states.chunks_exact(hidden).skip(1) {
                vector.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        }
        functions::normalise(&mut vector);
        vector
    }
}

impl Layer {
    fn build(names: LayerTensors, eps: f64, loader: &mut Loader) -> Result<Self> {
        Ok(Self {
            qkv: linear([names.query, names.key, names.value], loader)?,
            attention_output: linear([names.attention_output], loader)?,
            attention_norm: layer_norm(&names.attention_norm, eps, loader)?,
            up: linear([names.up], loader)?,
            down: linear([names.down], loader)?,
            output_norm: layer_norm(&names.output_norm, eps, loader)?,
        })
    }

    /// `[T, hidden]` to the same.
    fn forward(&self, x: &Tensor, lengths: &[usize], heads: usize) -> Result<Tensor> {
        let attended = attention::attend(&self.qkv.forward(x)?, lengths, heads)?;
        let x = add_norm(x, &self.attention_output.forward(&attended)?, &self.attention_norm)?;
        let mut up = values(&self.up.forward(&x)?)?;
        functions::gelu(&mut up);
        let down = self.down.forward(&matrix(up, self.up.n())?)?;
        add_norm(&x, &down, &self.output_norm)
    }
}

/// The norm of a sum, as after each half of a layer.
fn add_norm(x: &Tensor, y: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
    let mut sum = values(x)?;
    sum.iter_mut().zip(values(y)?).for_each(|(x, y)| *x += y);
    norm.apply(&mut sum);
    matrix(sum, norm.weight.len())
}

fn values(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.flatten_all()?.to_vec1()?)
}

fn matrix(values: Vec<f32>, columns: usize) -> Result<Tensor> {
    let shape = (values.len() / columns, columns);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

fn linear<const N: usize>(pairs: [Pair; N], loader: &mut Loader) -> Result<Linear> {
    let (weights, biases): (Vec<_>, Vec<_>) =
        pairs.into_iter().map(|pair| (pair.weight, pair.bias)).unzip();
    loader.linear(&weights, &biases)
}

fn layer_norm(names: &Pair, eps: f64, loader: &mut Loader) -> Result<LayerNorm> {
    let weight = values(&loader.vector(&names.weight)?)?;
    let bias = values(&loader.vector(&names.bias)?)?;
    Ok(LayerNorm { weight, bias, eps: eps as f32 })
}

/// Consecutive texts with at most [`BATCH_ROWS`] tokens together, or one that alone has more.
fn batches(ids: &[Vec<u32>]) -> Vec<Range<usize>> {
    let mut batches = vec![];
    let (mut first, mut rows) = (0, 0);
    for (number, text) in ids.iter().enumerate() {
        if number > first && rows + text.len() > BATCH_ROWS {
            batches.push(first..number);
            (first, rows) = (number, 0);
        }
        rows += text.len();
    }
    if first < ids.len() {
        batches.push(first..ids.len());
    }
    batches
}

/// What a checkpoint of this configuration holds, for dummy weights.
pub(crate) fn tensors_of(config_json: &str, file: &Path) -> Result<Vec<TensorSpec>> {
    Ok(Tensors::new(&config::from_text(config_json, file)?, "").into_list())
}
