//! Options of `longreward bench`.

use super::args::{Common, MODEL_HELP, ScoringArgs};
use super::values;
use anyhow::{Result, ensure};
use clap::Args;
use std::path::PathBuf;

/// Measures prefill and decode, or the judge's own workload
///
/// Examples: longreward bench --model smollm2 --prefill 512,2048 --decode 1,16;
/// longreward bench --model smollm2 --data sft.jsonl --responses sampled_responses.jsonl;
/// longreward bench --dummy llama-3.1-8b --model smollm2 --data sft.jsonl --responses sampled_responses.jsonl
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("weights").required(true).multiple(true).args(["model", "dummy"]))]
pub struct Bench {
    #[arg(long, value_name = "M", help = MODEL_HELP)]
    pub model: Option<String>,
    /// Random weights in the shape of llama-3.1-8b, glm-4-9b, smollm2-135m or a config.json
    #[arg(long, value_name = "NAME")]
    pub dummy: Option<String>,
    /// Scales the dummy model's sizes, at most by 10
    #[arg(long, default_value_t = 1.0, value_name = "F", requires = "dummy", value_parser = values::factor)]
    pub dummy_factor: f64,
    /// Prompt lengths
    #[arg(long, value_delimiter = ',', default_value = "512,2048", value_name = "N,…", value_parser = values::count())]
    pub prefill: Vec<usize>,
    /// Numbers of sequences that decode at once
    #[arg(long, value_delimiter = ',', default_value = "1,16", value_name = "N,…", value_parser = values::count())]
    pub decode: Vec<usize>,
    /// Tokens in the cache before decoding
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub context: usize,
    /// The sequences have their context in common, as the candidates of one document have
    #[arg(long)]
    pub shared: bool,
    /// With --shared: tokens of the context that each sequence has for itself, the last ones; 16 if not given
    #[arg(long, value_name = "N", requires = "shared")]
    pub own: Option<usize>,
    /// On a GPU: read what sequences have in common once for each, to see what reading it once for all gains
    #[arg(long)]
    pub no_cascade: bool,
    /// On a GPU: where the time goes, by operation. Operations do not overlap then, and steps are not recorded, so that
    /// rates are lower
    #[arg(long, conflicts_with_all = ["data", "requests", "quality"])]
    pub profile: bool,
    /// Tokens that each sequence decodes in a run
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = values::count())]
    pub new_tokens: usize,
    /// Runs of each size; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..), value_name = "N")]
    pub repeats: usize,
    /// Measure scoring: the prompts … With --dummy, --model gives the text's side (tokenizer, template, prompts), and
    /// a script what replies say, after random weights have sampled a quarter of each reply's budget
    #[arg(long, value_name = "FILE", requires_all = ["responses", "model"])]
    pub data: Option<PathBuf>,
    /// … and the candidates
    #[arg(long, value_name = "FILE", requires = "data")]
    pub responses: Option<PathBuf>,
    /// Write the calls that scoring makes to a file (JSON Lines: prompt as token ids, number of new
    /// tokens, scored continuations), to give another program the same work; an older file of calls is
    /// replaced, any other is refused
    #[arg(long, value_name = "FILE", requires = "data")]
    pub calls: Option<PathBuf>,
    /// Measure given requests, all at once, in lines as --calls writes them: {"prompt": token ids,
    /// "new_tokens": N}; those without new tokens are left out
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "quality"])]
    pub requests: Option<PathBuf>,
    /// Measure accuracy instead: how this type of weights, activations and keys predicts the tokens
    /// of texts, against f32 for all of them on the processor
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "model", conflicts_with_all = ["data", "dummy"])]
    pub quality: Vec<PathBuf>,
    /// Tokens of each text for --quality, from its beginning
    #[arg(long, default_value_t = 2048, value_name = "N")]
    pub quality_tokens: usize,
    /// Greedy replies of 64 tokens to compare, too, after windows of 128 tokens of the texts
    #[arg(long, default_value_t = 0, value_name = "N", requires = "quality")]
    pub quality_replies: usize,
    #[command(flatten)]
    pub scoring: ScoringArgs,
    /// Draws the random weights and tokens, and is the seed of what is scored
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub common: Common,
}

impl Bench {
    /// # Errors
    /// Options that contradict each other.
    pub fn check(&self) -> Result<()> {
        let (own, context) = (self.own.unwrap_or_default(), self.context);
        ensure!(
            own <= context,
            "--own {own} of --context {context}: a sequence has no more for itself than its context; lower --own, or \
             raise --context"
        );
        self.scoring.method.check()
    }

    /// Tokens of the context that each sequence has for itself.
    pub fn own(&self) -> usize {
        match self.shared {
            true => self.own.unwrap_or(kernels::kv::BLOCK.min(self.context)),
            false => self.context,
        }
    }
}
