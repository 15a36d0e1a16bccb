//! What can be typed.

use super::bench_args::Bench;
use super::help::JUDGE;
use super::method_args::MethodArgs;
use super::remote::{JudgeServer, PolicyServer, RemoteArgs};
use super::values;
use crate::device::DeviceChoice;
use anyhow::{Result, ensure};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

pub const MODEL_HELP: &str = "A folder, a .gguf file, a Hugging Face repo id (org/name[@revision]), \
                          or the alias smollm2";

/// Judge long answers on your own machine: sample candidates, score them in four dimensions,
/// export preference pairs.
#[derive(Debug, Parser)]
#[command(name = "longreward", version, args_override_self = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 all done; 1 failed; 2 wrong usage; 3 finished, but some rows \
                        or records could not be used (they are listed); 130 interrupted, with all \
                        finished work on disk."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub process: Process,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Process {
    /// Processor threads, at most 1024; as many as there are cores if not given
    #[arg(long, global = true, value_name = "N", value_parser = values::some())]
    pub threads: Option<usize>,
    /// Options from a TOML file: keys are the long names; [command] tables hold for one command.
    /// What is typed goes before what the file says
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// More messages on standard error (-v, -vv)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Options that the commands which run a model have in common.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Where models run: auto, cpu, cuda[:N] or metal. auto is the first NVIDIA GPU that this build has kernels for, if
    /// there is one, else Metal if built for it, else the processor
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// Type of the weights; auto keeps what is stored, so that quantised ones stay quantised. With
    /// f32, keys and values are f32 too, else f16. (On NVIDIA GPUs all are bf16, unless e4m3 asks for less)
    #[arg(long, default_value = "auto", value_name = "TYPE")]
    pub dtype: Dtype,
    /// Type of keys and values; auto goes by the weights
    #[arg(long, default_value = "auto", value_name = "TYPE")]
    pub kv_dtype: KvType,
    /// Memory for keys and values, e.g. 4GiB or 500MB; half of what is free if not given (on a GPU, all that is free
    /// beside weights and the largest step)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub kv_memory: Option<u64>,
    /// Tokens of one step: prefill chunks and decodes together; 512 if not given, on a GPU 8192
    #[arg(long, value_name = "N", value_parser = values::at_once())]
    pub batch_tokens: Option<usize>,
    /// Sequences that run at once, at most; 64 if not given, on a GPU 256
    #[arg(long, value_name = "N", value_parser = values::at_once())]
    pub max_sequences: Option<usize>,
    /// On a GPU: the same bits whatever else is in the batch, at some cost. (The processor's always are)
    #[arg(long)]
    pub deterministic: bool,
    /// Keys and values that sequences have in common are read once for each; to measure with.
    #[arg(skip)]
    pub no_cascade: bool,
}

/// Type of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    Auto,
    F32,
    F16,
    Bf16,
    /// 8 bits with a factor for each 32 numbers, as in GGUF files: half of the bytes of bf16, and faster; on the processor only
    #[value(name = "q8_0")]
    Q8_0,
    /// 8 bits with a factor for each row, and activations rounded to 8 bits: NVIDIA GPUs of compute capability 9.0
    E4m3,
}

/// Type of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KvType {
    Auto,
    /// 8 bits with a factor for each token and head: NVIDIA GPUs
    E4m3,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(Demo),
    Run(Run),
    Sample(Sample),
    ChunkInfo(ChunkInfo),
    Score(Score),
    Pairs(Pairs),
    Verify(super::verify::Verify),
    Agree(super::agree_args::Agree),
    Calibrate(super::calibrate::Calibrate),
    Eval(super::eval_args::Eval),
    Report(super::report::Report),
    Prompts(super::prompts::PromptFiles),
    Serve(super::serve::Serve),
    Generate(Generate),
    Tokenize(Tokenize),
    Pull(Pull),
    Inspect(Inspect),
    Bench(Bench),
    Dummy(Dummy),
}

/// All stages on two documents that the program contains, with a model of 135M parameters
///
/// Shows the machinery; a model this small is no judge. Example: longreward demo --out demo-out
#[derive(Debug, Args)]
pub struct Demo {
    /// Folder for the files
    #[arg(long, default_value = "longreward-demo", value_name = "DIR")]
    pub out: PathBuf,
    /// The model
    #[arg(long, default_value = "smollm2", value_name = "M", help = MODEL_HELP)]
    pub model: String,
    #[command(flatten)]
    pub common: Common,
}

/// sample, chunk-info, score and pairs in one go
///
/// Example: longreward run --judge THUDM/glm-4-9b-chat --data sft.jsonl --out-dir out
#[derive(Debug, Args)]
pub struct Run {
    #[arg(long, value_name = "M", help = MODEL_HELP, required_unless_present = "judge_url", conflicts_with_all = ["judge_url", "judge_model"])]
    pub judge: Option<String>,
    #[command(flatten)]
    pub judge_server: JudgeServer,
    /// The model that writes the candidates; the judge if not given
    #[arg(long, value_name = "M", conflicts_with_all = ["policy_url", "policy_model"])]
    pub policy: Option<String>,
    #[command(flatten)]
    pub policy_server: PolicyServer,
    #[command(flatten)]
    pub input: InputArgs,
    /// Folder for the files of all stages
    #[arg(long, value_name = "DIR")]
    pub out_dir: PathBuf,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub scoring: ScoringArgs,
    #[command(flatten)]
    pub pairing: PairArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    #[command(flatten)]
    pub common: Common,
}

impl Run {
    /// # Errors
    /// Options that contradict each other.
    pub fn check(&self) -> Result<()> {
        let (n, min_scored) = (self.sampling.n, self.pairing.min_scored);
        ensure!(
            n >= min_scored,
            "-n {n} and --min-scored {min_scored}: so few candidates make no pair; raise -n, or \
             lower --min-scored"
        );
        let servers = [&self.judge_server.judge_url, &self.policy_server.policy_url];
        self.work.remote.check(servers.iter().any(|url| url.is_some()))?;
        self.scoring.method.check()
    }
}

/// Writes candidates for each prompt
///
/// Example: longreward sample --model my-sft-model --data sft.jsonl --out sampled_responses.jsonl
#[derive(Debug, Args)]
pub struct Sample {
    #[arg(long, value_name = "M", help = MODEL_HELP, required_unless_present = "policy_url", conflicts_with_all = ["policy_url", "policy_model"])]
    pub model: Option<String>,
    #[command(flatten)]
    pub server: PolicyServer,
    #[command(flatten)]
    pub input: InputArgs,
    /// The candidates; what is there already is kept, and the rest added
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    #[command(flatten)]
    pub common: Common,
}

/// The prompts that a stage works on.
#[derive(Debug, Clone, Args)]
pub struct InputArgs {
    /// Prompts: JSON Lines with idx (an integer), query, answer, context
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Use the first N good rows of --data only; without it, or with another N, the same command goes on
    #[arg(long, value_name = "N", value_parser = values::count())]
    pub limit: Option<usize>,
}

/// How candidates are sampled.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// Candidates per prompt, at most 1024
    #[arg(short = 'n', long = "samples", default_value_t = 10, value_name = "N", value_parser = values::some())]
    pub n: usize,
    /// Tokens of a candidate, at most
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = values::count())]
    pub max_new_tokens: usize,
    #[command(flatten)]
    pub filters: Filters,
}

/// Extracts from each 4096-token chunk of a document what bears on its question
///
/// Example: longreward chunk-info --model M --data sft.jsonl --out chunk_info.jsonl
#[derive(Debug, Args)]
pub struct ChunkInfo {
    #[arg(long, value_name = "M", help = MODEL_HELP, required_unless_present = "judge_url", conflicts_with_all = ["judge_url", "judge_model"])]
    pub model: Option<String>,
    #[command(flatten)]
    pub server: JudgeServer,
    #[command(flatten)]
    pub input: InputArgs,
    /// The extracts; what is there already is kept, and the rest added
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub prompts: PromptArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    #[command(flatten)]
    pub common: Common,
}

/// Scores candidates for helpfulness, logicality, faithfulness and completeness
///
/// Example: longreward score --model M --data sft.jsonl --responses sampled_responses.jsonl
/// --out scored_responses.jsonl
#[derive(Debug, Args)]
pub struct Score {
    #[arg(long, value_name = "M", help = MODEL_HELP, required_unless_present = "judge_url", conflicts_with_all = ["judge_url", "judge_model"])]
    pub model: Option<String>,
    #[command(flatten)]
    pub server: JudgeServer,
    #[command(flatten)]
    pub input: InputArgs,
    /// Candidates: JSON Lines with idx ("<prompt idx>-<k>"), query, answer
    #[arg(long, value_name = "FILE")]
    pub responses: PathBuf,
    /// The scores; what is there already is kept, and the rest added
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Extracts that were made before; only read, so that what is missing in them is made for the scores
    /// alone. The file may grow, but other extracts of a prompt than OUT rests on are refused. If not given,
    /// extracts are read from and added to a file named after OUT: scored.chunk_info.jsonl beside scored.jsonl
    #[arg(long, value_name = "FILE")]
    pub chunk_info: Option<PathBuf>,
    #[command(flatten)]
    pub scoring: ScoringArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    #[command(flatten)]
    pub common: Common,
}

/// Which prompts the judge uses.
#[derive(Debug, Clone, Args)]
pub struct PromptArgs {
    /// Language of the judge's prompts; auto decides per item
    #[arg(long, default_value = "auto", value_name = "LANG")]
    pub lang: Language,
    /// Prompt files of your own, named as in the public LongReward code; the command prompts writes the
    /// built-in ones under these names
    #[arg(long, value_name = "DIR")]
    pub prompts: Option<PathBuf>,
    /// Cut every reply of the judge to this many tokens (the method allows 512 to 2048)
    #[arg(long, value_name = "N", value_parser = values::count())]
    pub max_reply_tokens: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Auto,
    En,
    Zh,
}

/// How the judge works.
#[derive(Debug, Clone, Args)]
pub struct JudgeArgs {
    /// How evidence is found: bm25, the alias minilm, a folder or repo id of a BERT embedder, or
    /// words and an embedder together as bm25+minilm
    #[arg(long, default_value = "minilm", value_name = "M", help_heading = JUDGE)]
    pub embedder: String,
    #[command(flatten)]
    pub prompts: PromptArgs,
}

/// How answers are scored.
#[derive(Debug, Clone, Args)]
pub struct ScoringArgs {
    #[command(flatten)]
    pub judging: JudgeArgs,
    #[command(flatten)]
    pub method: MethodArgs,
    /// Skip the remaining dimensions of answers that can no longer be the best or the worst of their
    /// prompt; enough for pairs, but such answers get no total
    #[arg(long)]
    pub early_stop: bool,
}

/// Options of every stage that asks a model.
#[derive(Debug, Clone, Default, Args)]
pub struct WorkArgs {
    /// Same seed, same output
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Keep the model's replies in a file, so that a run with one thing changed asks only what depends
    /// on it. Any number of outputs may share one, but one after the other
    #[arg(long, value_name = "FILE")]
    pub cache: Option<PathBuf>,
    /// Size of --cache; replies that were not used for longest go first
    #[arg(long, default_value = "2GiB", value_name = "SIZE", value_parser = bytes)]
    pub cache_size: u64,
    /// Begin anew where OUT was made with other settings or from other input: its records are deleted,
    /// which is said. What another command wrote, or this program did not, is never deleted
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// Pairs each prompt's best candidate with its worst
///
/// Example: longreward pairs --data sft.jsonl --scored scored_responses.jsonl
/// --out preference_pairs.jsonl --format trl
#[derive(Debug, Args)]
pub struct Pairs {
    /// Prompts: JSON Lines with idx, query, answer, context
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Scored responses, as score writes them
    #[arg(long, value_name = "FILE")]
    pub scored: PathBuf,
    /// Where the pairs go; an older file of pairs is replaced, any other is refused
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The model to be trained, whose tokens the max_length of training is told in: a folder, a .gguf file, a repo id
    /// or an alias. If not given, only that it is no more than the longest row has bytes
    #[arg(long, value_name = "M")]
    pub tokenizer: Option<String>,
    #[command(flatten)]
    pub pairing: PairArgs,
}

/// Which pairs are made.
#[derive(Debug, Clone, Args)]
pub struct PairArgs {
    /// Smallest difference of totals (0-40) that makes a pair; ties never do
    #[arg(long, default_value_t = 0.0, value_name = "D", value_parser = values::not_negative)]
    pub min_margin: f64,
    /// Scored candidates that a prompt needs
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub min_scored: usize,
    /// A winner may have at most this many times as many characters as its loser; where best and worst do not keep
    /// to that, the widest pair of the prompt that does is taken
    #[arg(long, value_name = "R", value_parser = values::above_zero)]
    pub max_length_ratio: Option<f64>,
    /// How pairs are written
    #[arg(long, default_value = "longreward", value_name = "FORMAT")]
    pub format: PairFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PairFormat {
    /// idx, context, query, win_response, lose_response
    Longreward,
    /// prompt, chosen, rejected as conversations, for TRL's DPOTrainer
    Trl,
}

/// Continues a prompt
///
/// Example: longreward generate --model smollm2 --prompt "Why is the sea salt?" --json
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("text").required(true).args(["prompt", "prompt_file"]))]
pub struct Generate {
    #[arg(long, value_name = "M", help = MODEL_HELP)]
    pub model: String,
    /// The text to go on from
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// A file with it
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
    /// Send the text as it is, without a chat template
    #[arg(long)]
    pub raw: bool,
    /// Samples, at most 1024
    #[arg(short = 'n', long = "samples", default_value_t = 1, value_name = "N", value_parser = values::some())]
    pub n: usize,
    /// Tokens of a sample, at most; 0 only with --prompt-logprobs
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub max_new_tokens: usize,
    #[command(flatten)]
    pub filters: Filters,
    /// Same seed, same samples; sample k is the first of seed S + k
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// End before this text; may be given more than once
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// With --json: log-probabilities of the sampled tokens and of the K likeliest ones
    #[arg(long, value_name = "K", requires = "json")]
    pub logprobs: Option<usize>,
    /// With --json: log-probabilities of the prompt's tokens
    #[arg(long, requires = "json")]
    pub prompt_logprobs: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub common: Common,
}

impl Generate {
    /// # Errors
    /// There is nothing to do.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.max_new_tokens > 0 || self.prompt_logprobs,
            "--max-new-tokens 0 leaves nothing to do but --prompt-logprobs"
        );
        Ok(())
    }
}

/// How a token is chosen.
#[derive(Debug, Clone, Args)]
pub struct Filters {
    /// Divides the logits: below 1 likely tokens become likelier; 0 takes the likeliest
    #[arg(long, default_value_t = 1.0, value_name = "T", value_parser = values::temperature)]
    pub temperature: f32,
    /// Sample from the likeliest tokens that hold this much probability
    #[arg(long, default_value_t = 1.0, value_name = "P", value_parser = values::top_p)]
    pub top_p: f32,
    /// Sample from this many likeliest tokens; 0 means all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,
    /// Drop tokens below this share of the likeliest one's probability
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = values::min_p)]
    pub min_p: f32,
    /// Divide (multiply, if negative) the logits of tokens that occurred by this
    #[arg(long, default_value_t = 1.0, value_name = "R", value_parser = values::repetition_penalty)]
    pub repetition_penalty: f32,
}

/// Shows the tokens of a text
///
/// Example: longreward tokenize --model smollm2 --file notes.txt --json
#[derive(Debug, Args)]
pub struct Tokenize {
    #[arg(long, value_name = "M", help = MODEL_HELP)]
    pub model: String,
    /// The text, in UTF-8
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// One JSON object with the ids
    #[arg(long)]
    pub json: bool,
}

/// Obtains a model, so that later commands need no network
///
/// Example: longreward pull meta-llama/Llama-3.1-8B-Instruct
#[derive(Debug, Args)]
pub struct Pull {
    #[arg(value_name = "M", help = MODEL_HELP)]
    pub model: String,
}

/// Shows a model's configuration, chat template and memory plan, or an embedder's sizes
///
/// Example: longreward inspect smollm2
#[derive(Debug, Args)]
pub struct Inspect {
    #[arg(value_name = "M", help = MODEL_HELP)]
    pub model: String,
    #[command(flatten)]
    pub common: Common,
}

/// Writes random weights in the shape of a real model as a GGUF file, to measure with
///
/// The file has no vocabulary. Example: longreward dummy llama-3.1-8b --gguf dummy.gguf --type q4_k
#[derive(Debug, Args)]
pub struct Dummy {
    /// llama-3.1-8b, smollm2-135m or a config.json of the Llama family
    #[arg(value_name = "NAME")]
    pub shape: String,
    /// The file to write; an older one of random weights is replaced, any other is refused
    #[arg(long, value_name = "FILE")]
    pub gguf: PathBuf,
    /// Type of all matrices
    #[arg(long = "type", default_value = "q8_0", value_name = "TYPE")]
    pub matrix_type: GgufType,
    /// Scales the model's sizes, at most by 10
    #[arg(long, default_value_t = 1.0, value_name = "F", value_parser = values::factor)]
    pub factor: f64,
    /// Another seed, other weights
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
}

/// Types of matrices in a GGUF file that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GgufType {
    F32,
    F16,
    Bf16,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_1")]
    Q4_1,
    #[value(name = "q5_0")]
    Q5_0,
    #[value(name = "q5_1")]
    Q5_1,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_k")]
    Q4K,
    #[value(name = "q5_k")]
    Q5K,
    #[value(name = "q6_k")]
    Q6K,
}

/// A size with an optional unit: 4GiB, 500MB, 1048576.
fn bytes(text: &str) -> Result<u64, String> {
    const MOST: f64 = 1e18;
    const UNITS: [(&str, u64); 13] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("K", 1 << 10),
        ("M", 1 << 20),
        ("G", 1 << 30),
        ("T", 1 << 40),
        ("B", 1),
    ];
    let unit = UNITS.iter().find_map(|(name, factor)| Some((text.strip_suffix(name)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    match number.trim().parse::<f64>().map(|n| n * factor as f64) {
        Ok(n) if n > 0.0 && n <= MOST => Ok(n as u64),
        Ok(n) if n > MOST => Err(format!("`{text}` is more than any machine has")),
        _ => Err(format!("`{text}` is no size; write for example 4GiB or 500MB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Options of a command and of those below it that say nothing of themselves.
    fn silent(command: &clap::Command, found: &mut Vec<String>) {
        let own = command.get_arguments().filter(|arg| arg.get_help().is_none());
        found.extend(own.map(|arg| format!("{} {}", command.get_name(), arg.get_id())));
        command.get_subcommands().for_each(|below| silent(below, found));
    }

    #[test]
    fn every_option_says_what_it_is() {
        let mut found = Vec::new();
        silent(&Cli::command(), &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_run_samples_as_many_candidates_as_a_pair_needs() {
        let run = |more: &str| {
            let base = "longreward run --judge m --data d --out-dir o";
            super::super::parse_for_tests(&format!("{base} {more}"))
        };
        let told = run("-n 4").unwrap_err().to_string();
        assert!(told.contains("-n 4 and --min-scored 5: "), "{told}");
        for more in ["", "-n 5", "-n 2 --min-scored 2"] {
            run(more).unwrap();
        }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes("1.5 MB"), Ok(1_500_000));
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert_eq!(bytes("4TB"), Ok(4_000_000_000_000));
        for bad in ["", "x", "-1G", "0", "1e30GB", "inf", "NaN"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
