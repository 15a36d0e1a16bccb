//! What can be typed after `longreward eval`.

use super::args::{Common, Language, MODEL_HELP, WorkArgs};
use super::remote::{JudgeServer, PolicyServer};
use super::values;
use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Measures a model on LongBench or LongBench-Chat
///
/// Example: longreward eval longbench --data LongBench --model M --judge J --out-dir scores
#[derive(Debug, Args)]
pub struct Eval {
    #[command(subcommand)]
    pub suite: Suites,
}

impl Eval {
    /// # Errors
    /// Options that contradict each other.
    pub fn check(&self) -> Result<()> {
        let (Suites::Longbench(LongBench { run, .. })
        | Suites::LongbenchChat(LongBenchChat { run, .. })) = &self.suite;
        run.work.remote.check(run.policy.policy_url.is_some() || run.server.judge_url.is_some())
    }
}

#[derive(Debug, Subcommand)]
pub enum Suites {
    Longbench(LongBench),
    LongbenchChat(LongBenchChat),
}

/// LongBench's sets, as LongReward runs them or as the suite does
///
/// Examples: longreward eval longbench --data LongBench --model M --judge J --out-dir scores;
/// longreward eval longbench --data LongBench --model M --protocol longbench --e --out-dir scores-e;
/// longreward eval longbench --data LongBench --model smollm2 --sets qasper,vcsum --limit 10
/// --out-dir try
#[derive(Debug, Args)]
pub struct LongBench {
    /// longreward: 12 sets, the document and the question, 1,024 new tokens. longbench: all 21 sets,
    /// instructions for short answers and the suite's own numbers of new tokens. The suite's measures
    /// are given for both, the judge's ratings for the 12 sets
    #[arg(long, default_value = "longreward", value_name = "NAME")]
    pub protocol: ProtocolName,
    /// LongBench-E: the files <set>_e.jsonl
    #[arg(long)]
    pub e: bool,
    /// Sets by name; all that DIR has if not given
    #[arg(long, value_delimiter = ',', value_name = "SET,…")]
    pub sets: Vec<String>,
    /// 0 is greedy, as the suite has it
    #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = values::temperature)]
    pub temperature: f32,
    #[command(flatten)]
    pub run: RunArgs,
}

/// LongBench-Chat: long documents, rated 1 to 10 beside rated examples
///
/// DIR holds test_cases.json and few_shots.json.
/// Example: longreward eval longbench-chat --data LongBench_Chat --model M --judge J --out-dir chat
#[derive(Debug, Args)]
pub struct LongBenchChat {
    /// As published; 0 is greedy
    #[arg(long, default_value_t = 1.0, value_name = "T", value_parser = values::temperature)]
    pub temperature: f32,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of both suites.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The suite's files: for LongBench data/<set>.jsonl or <set>.jsonl, for LongBench-Chat test_cases.json and
    /// few_shots.json
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The model that answers
    #[arg(long, value_name = "M", help = MODEL_HELP, required_unless_present = "policy_url", conflicts_with_all = ["policy_url", "policy_model"])]
    pub model: Option<String>,
    #[command(flatten)]
    pub policy: PolicyServer,
    /// The model that rates the answers, which may be the same; without a judge there are no ratings
    #[arg(long, value_name = "M", conflicts_with_all = ["judge_url", "judge_model"])]
    pub judge: Option<String>,
    #[command(flatten)]
    pub server: JudgeServer,
    /// For predictions.jsonl, verdicts.jsonl, result.json and report.html
    #[arg(long, value_name = "DIR")]
    pub out_dir: PathBuf,
    /// Use the first N good rows of each set only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Inputs with more tokens lose their middle; so they do where the model's context, less the
    /// reply, is shorter
    #[arg(long, default_value_t = 64_000, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(2..))]
    pub max_input_tokens: usize,
    /// Prompt files of your own, named as in the public code: dataset2prompt.json,
    /// dataset2maxlen.json, prompt_fs.txt; and judge_qa.txt, judge_summary.txt with $Q$, $A$, $P$
    #[arg(long, value_name = "DIR")]
    pub prompts: Option<PathBuf>,
    /// Language of the judge's prompts; auto decides per item
    #[arg(long, default_value = "auto", value_name = "LANG")]
    pub lang: Language,
    /// Cut every reply of the judge to this many tokens (512 if not given)
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub max_reply_tokens: Option<usize>,
    /// Resamples behind the 95 % intervals; 0 leaves them out
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub resamples: usize,
    #[command(flatten)]
    pub work: WorkArgs,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProtocolName {
    Longreward,
    Longbench,
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn parse(args: &str) -> Option<Eval> {
        let args = ["longreward", "eval"].into_iter().chain(args.split(' '));
        match Cli::try_parse_from(args).ok()?.command {
            Command::Eval(eval) => Some(eval),
            _ => None,
        }
    }

    #[test]
    fn suites_have_their_options() {
        let eval =
            parse("longbench --data d --model m --sets a,b --e --out-dir o --limit 3").unwrap();
        let Suites::Longbench(LongBench { sets, e, protocol, temperature, run }) = eval.suite
        else {
            panic!()
        };
        assert_eq!(
            (sets, e, protocol),
            (vec!["a".to_owned(), "b".to_owned()], true, ProtocolName::Longreward)
        );
        assert_eq!((temperature, run.limit, run.max_input_tokens), (0.0, Some(3), 64_000));
        let eval = parse("longbench-chat --data d --model m --judge m --out-dir o --threads 2");
        let Suites::LongbenchChat(chat) = eval.unwrap().suite else { panic!() };
        assert_eq!(chat.temperature, 1.0);
        assert!(parse("longbench --data d --model m").is_none());
        assert!(parse("longbench-chat --data d --model m --out-dir o --e").is_none());
    }
}
