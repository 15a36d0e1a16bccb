//! `longreward demo`: every stage, on documents that the program contains.

use super::args::{
    Common, Demo, Filters, InputArgs, JudgeArgs, Language, PairArgs, PairFormat, PromptArgs, Run,
    SamplingArgs, ScoringArgs, WorkArgs,
};
use super::method_args::MethodArgs;
use super::remote::{JudgeServer, PolicyServer};
use super::{Ending, stages};
use crate::pipeline::run::Files;
use crate::report;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const QUESTIONS: &str = include_str!("demo/questions.toml");
const DOCUMENTS: [(&str, &str); 2] =
    [("en.txt", include_str!("demo/en.txt")), ("zh.txt", include_str!("demo/zh.txt"))];

/// Memory for keys and values where nothing else is asked for.
const KV_MEMORY: u64 = 1 << 30;

/// As many as a pair needs.
const SAMPLES: usize = 5;
/// Small budgets: a model of this size has nothing to say in more.
const MAX_NEW_TOKENS: usize = 160;
const MAX_REPLY_TOKENS: usize = 128;

#[derive(Deserialize)]
struct Questions {
    question: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    idx: u64,
    document: String,
    query: String,
    answer: String,
}

/// Writes the demo's prompts, runs all stages on them and prints what came of it.
///
/// # Errors
/// As the stages.
pub fn demo(args: &Demo, cancel: &AtomicBool) -> Result<Ending> {
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("{}: can't be created", args.out.display()))?;
    let data = write_data(&args.out)?;
    let ending = stages::run(&run_args(args, &data), cancel)?;
    if ending != Ending::Interrupted {
        let files = Files::in_folder(&args.out);
        print_scores(&files.scored)?;
        print_pairs(&files.pairs)?;
        let page = write_report(&files, &data, &args.out)?;
        println!("\nall files lie in {}; open {} in a browser", args.out.display(), page.display());
        println!(
            "\nThis shows the machinery. A model of 135M parameters is no judge: its scores mean \
             nothing.\nFor scores that do, take a judge of 8 to 9 billion parameters, for example\
             \n  longreward run --judge THUDM/glm-4-9b-chat --data sft.jsonl --out-dir out"
        );
    }
    Ok(ending)
}

/// Where the scores are explained.
const PAGE: &str = "report.html";

/// Explains the scores on a page; gives where it lies.
fn write_report(files: &Files, data: &Path, out: &Path) -> Result<PathBuf> {
    let page = out.join(PAGE);
    report::run(&report::Options {
        scored: files.scored.clone(),
        data: data.to_owned(),
        pairs: Some(files.pairs.clone()),
        chunk_info: None,
        agree: None,
        out: page.clone(),
    })?;
    Ok(page)
}

fn run_args(args: &Demo, data: &Path) -> Run {
    Run {
        judge: Some(args.model.clone()),
        judge_server: JudgeServer::default(),
        policy_server: PolicyServer::default(),
        policy: None,
        input: InputArgs { data: data.to_owned(), limit: None },
        out_dir: args.out.clone(),
        sampling: SamplingArgs {
            n: SAMPLES,
            max_new_tokens: MAX_NEW_TOKENS,
            filters: Filters {
                temperature: 1.0,
                top_p: 1.0,
                top_k: 0,
                min_p: 0.0,
                repetition_penalty: 1.0,
            },
        },
        scoring: ScoringArgs {
            judging: JudgeArgs {
                embedder: "bm25".to_owned(),
                prompts: PromptArgs {
                    lang: Language::Auto,
                    prompts: None,
                    max_reply_tokens: Some(MAX_REPLY_TOKENS),
                },
            },
            method: MethodArgs::default(),
            early_stop: false,
        },
        pairing: PairArgs {
            min_margin: 0.0,
            min_scored: SAMPLES,
            max_length_ratio: None,
            format: PairFormat::Longreward,
        },
        work: WorkArgs::default(),
        common: Common {
            kv_memory: args.common.kv_memory.or(Some(KV_MEMORY)),
            ..args.common.clone()
        },
    }
}

/// The demo's prompts as `sft.jsonl` in a folder that holds no files of others; gives where they lie.
fn write_data(folder: &Path) -> Result<PathBuf> {
    let (file, lines) = (folder.join("sft.jsonl"), data()?);
    ensure!(
        std::fs::read(&file).map_or(true, |there| there == lines.as_bytes()),
        "{}: is not the demo's: choose another folder (--out), or move the file away",
        file.display()
    );
    report::precheck(&folder.join(PAGE))?;
    std::fs::write(&file, lines)
        .with_context(|| format!("{}: can't be written", file.display()))?;
    Ok(file)
}

/// The demo's prompts.
fn data() -> Result<String> {
    let questions: Questions = toml::from_str(QUESTIONS)?;
    let mut lines = String::new();
    for q in questions.question {
        let (_, context) = DOCUMENTS
            .iter()
            .find(|(name, _)| *name == q.document)
            .with_context(|| format!("the demo has no document {}", q.document))?;
        let row = json!({
            "idx": q.idx, "query": q.query, "answer": q.answer, "context": context,
        });
        lines.push_str(&row.to_string());
        lines.push('\n');
    }
    Ok(lines)
}

/// The rows of a file that the pipeline has just written.
fn rows(file: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{}: can't be read", file.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn print_scores(file: &Path) -> Result<()> {
    const COLUMNS: [&str; 5] =
        ["helpfulness", "logicality", "faithfulness", "completeness", "total"];
    print!("\n{:>9}", "candidate");
    COLUMNS.iter().for_each(|c| print!("{c:>14}"));
    println!("  forced");
    for row in rows(file)? {
        print!("{:>9}", row["idx"].as_str().unwrap_or("?"));
        for column in COLUMNS {
            print!("{:>14.2}", row["scores"][column].as_f64().unwrap_or(f64::NAN));
        }
        println!("  {}", if row["forced"] == json!(true) { "yes" } else { "no" });
    }
    Ok(())
}

fn print_pairs(file: &Path) -> Result<()> {
    for row in rows(file)? {
        println!("\npair of prompt {}", row["idx"]);
        for (name, key) in [("better", "win_response"), ("worse", "lose_response")] {
            println!("  {name}: {}", first_words(row[key].as_str().unwrap_or_default()));
        }
    }
    Ok(())
}

/// The beginning of a text, on one line.
fn first_words(text: &str) -> String {
    const SHOWN: usize = 90;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_names_documents_that_exist() {
        let folder = tempfile::tempdir().unwrap();
        let rows = rows(&write_data(folder.path()).unwrap()).unwrap();
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|r| r["context"].as_str().unwrap().len() > 10_000));
        // Once more.
        write_data(folder.path()).unwrap();
    }

    #[test]
    fn files_of_others_are_not_written_over() {
        for name in ["sft.jsonl", PAGE] {
            let folder = tempfile::tempdir().unwrap();
            let file = write_data(folder.path()).unwrap().with_file_name(name);
            std::fs::write(&file, "theirs").unwrap();
            let refused = write_data(folder.path()).unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains("move the file away"), "{refused}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "theirs");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "文".repeat(200);
        assert_eq!(first_words(&text).chars().count(), 91);
        assert_eq!(first_words("a\n b"), "a b");
    }
}
