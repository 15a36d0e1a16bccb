//! What can be typed after `longreward agree`.

use super::args::{Common, JudgeArgs, WorkArgs};
use super::remote::JudgeServer;
use super::verdict_args::{CutChoice, VerdictArgs};
use crate::agree::labels::Format;
use crate::judge::{Dimension, Lang};
use crate::pipeline::score::PASSAGE_TOKENS;
use anyhow::{Result, ensure};
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Measures how often a judge agrees with people, or with another judge
///
/// Examples: longreward agree --labels dev.jsonl --model M --out agree.jsonl;
/// longreward agree --labels dev.jsonl --scored scored_responses.jsonl;
/// longreward agree --labels dev.jsonl --model M --out votes.jsonl --votes 5 --gain-over agree.jsonl;
/// longreward agree --labels dev.jsonl --recall-only;
/// longreward agree --compare scored_a.jsonl scored_b.jsonl
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["labels", "compare"]))]
pub struct Agree {
    /// What people said: JSON Lines, or one JSON array, of claims with evidence, pairs of answers,
    /// or answers with ratings; see --format
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Two files of scores on the same answers, from score or from agree; of the latter the first run,
    /// and with --labels those that they were made for, answers are compared within prompts
    #[arg(long, value_name = "FILE", num_args = 2)]
    pub compare: Vec<PathBuf>,
    /// Scored responses of score, in the place of a judge: labelled answers are found in it by their
    /// question and text
    #[arg(long, value_name = "FILE", requires = "labels", conflicts_with_all = ["compare", "recall_only", "model"])]
    pub scored: Option<PathBuf>,
    /// The judge: a folder, a .gguf file, a Hugging Face repo id, or the alias smollm2
    #[arg(long, value_name = "M", required_unless_present_any = ["compare", "recall_only", "scored", "judge_url"], conflicts_with_all = ["judge_url", "judge_model"])]
    pub model: Option<String>,
    #[command(flatten)]
    pub server: JudgeServer,
    /// The judge's verdicts; the measures go to the same name with .summary.json in the
    /// place of .jsonl
    #[arg(long, value_name = "FILE", required_unless_present_any = ["compare", "recall_only", "scored"])]
    pub out: Option<PathBuf>,
    /// How the labels are written; auto tells by the fields of each row
    #[arg(long, default_value = "auto", value_name = "FORMAT")]
    pub format: LabelFormat,
    /// Use the first N good rows only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// What answers are judged in; faithfulness and completeness where a row has a context
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "helpfulness,logicality",
        value_name = "D,…"
    )]
    pub dimensions: Vec<DimensionName>,
    /// What passages claims are checked against: chunks of 128 tokens, or the sentences of the labels
    #[arg(long, default_value = "chunk", value_name = "KIND")]
    pub passage: Passage,
    /// Judge every row so often, each time with other seeds, to see how far verdicts hang on them
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub seeds: usize,
    /// Judge answers once more with sentences added that say nothing, to see what length alone is
    /// worth
    #[arg(long)]
    pub padding: bool,
    /// Judge every row with the prompts of each of these languages, to see what they change: en,zh
    #[arg(long, value_delimiter = ',', value_name = "LANG,…")]
    pub langs: Vec<PromptLang>,
    /// More names under which the judge stands as an author in the labels, besides its own and its
    /// checkpoint's hash
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub own: Vec<String>,
    /// Measure the verdicts corrected by this file of calibrate; OUT keeps them as they are
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "recall_only"])]
    pub calibration: Option<PathBuf>,
    /// Use the calibration though it was fitted to another judge
    #[arg(long, requires = "calibration")]
    pub any_calibration: bool,
    /// Another judge's verdicts on the same labels (an --out of agree, of other options, say): what is gained over it
    /// in each measure, with the interval of the difference
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "recall_only"])]
    pub gain_over: Option<PathBuf>,
    /// Resamples behind the 95 % intervals; 0 leaves them out
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub resamples: usize,
    /// Measure only whether retrieval finds the labelled sentences; no judge runs. With --model,
    /// chunks of 128 of its tokens are tried, too
    #[arg(long, requires = "labels", conflicts_with = "compare")]
    pub recall_only: bool,
    #[command(flatten)]
    pub judging: JudgeArgs,
    #[command(flatten)]
    pub verdicts: VerdictArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    #[command(flatten)]
    pub common: Common,
}

impl Agree {
    /// # Errors
    /// Options that contradict each other.
    pub fn check(&self) -> Result<()> {
        self.work.remote.check(self.server.judge_url.is_some())?;
        self.verdicts.check(PASSAGE_TOKENS)?;
        let VerdictArgs { passage_overlap, passage_cut, .. } = self.verdicts;
        let by_chunk = self.passage == Passage::Chunk;
        ensure!(
            by_chunk || passage_overlap == 0 && passage_cut == CutChoice::Tokens,
            "--passage sentence: --passage-overlap and --passage-cut are for chunks; leave them out"
        );
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LabelFormat {
    Auto,
    /// claim, evidence, label | query, response_a, response_b, label | query, answer, rating
    Longreward,
    /// claim, evidence, label, supporting_sentences
    Wice,
    /// input, output_1, output_2, label
    Llmbar,
}

impl From<LabelFormat> for Format {
    fn from(format: LabelFormat) -> Self {
        match format {
            LabelFormat::Auto => Format::Auto,
            LabelFormat::Longreward => Format::Longreward,
            LabelFormat::Wice => Format::Wice,
            LabelFormat::Llmbar => Format::Llmbar,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum DimensionName {
    Helpfulness,
    Logicality,
    Faithfulness,
    Completeness,
}

impl From<DimensionName> for Dimension {
    fn from(name: DimensionName) -> Self {
        Dimension::ALL[name as usize]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PromptLang {
    En,
    Zh,
}

impl From<PromptLang> for Lang {
    fn from(lang: PromptLang) -> Self {
        match lang {
            PromptLang::En => Lang::En,
            PromptLang::Zh => Lang::Zh,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Passage {
    Chunk,
    Sentence,
}

#[cfg(test)]
mod tests {
    use super::super::args::Cli;
    use super::*;
    use clap::Parser;

    fn parses(args: &str) -> bool {
        let args = ["longreward", "agree"].into_iter().chain(args.split(' '));
        Cli::try_parse_from(args).is_ok()
    }

    #[test]
    fn either_labels_or_two_files() {
        assert!(parses("--labels l --model m --out o"));
        assert!(parses("--labels l --recall-only"));
        assert!(parses("--compare a b"));
        assert!(!parses("--compare a"));
        assert!(!parses("--labels l --out o") && !parses("--labels l --model m"));
        assert!(!parses("--model m --out o"));
        assert!(parses("--labels l --compare a b") && !parses("--compare a b --recall-only"));
        assert!(!parses("--labels l --model m --out o --seeds 0"));
        assert!(parses("--labels l --model m --out o --langs en,zh --padding --own a,b"));
        assert!(!parses("--labels l --model m --out o --langs fr"));
        assert!(parses("--labels l --model m --out o --gain-over b"));
        assert!(!parses("--compare a b --gain-over c"));
        assert!(parses("--labels l --scored s") && !parses("--scored s"));
        assert!(!parses("--labels l --scored s --model m --out o"));
    }

    #[test]
    fn dimensions_keep_their_names() {
        for name in DimensionName::value_variants() {
            let value = name.to_possible_value().unwrap();
            assert_eq!(value.get_name(), Dimension::from(*name).name());
        }
    }
}
