//! Result files made up for tests.

use super::candidate::{Candidate, Degree, Listing, Statement, Verdicts};
use super::{Options, Summary, run};
use crate::judge::{Rated, testing};
use crate::pipeline::records::SampleId;
use serde_json::{Value, json};
use std::path::PathBuf;

/// An answer whose four scores are equal.
pub fn candidate(prompt: u64, k: u64, total: f64) -> Candidate {
    let score = total / 4.0;
    let rated = || Rated { expected: Some(score), ..testing::rated(score, &[]) };
    let statement = Statement {
        fact: "fact".to_owned(),
        analysis: "because".to_owned(),
        score: 1.0,
        degree: Degree::Full,
        attempts: 1,
        forced: false,
        distribution: Vec::new(),
        expected: None,
        uncalibrated: None,
        votes: None,
        estimate: None,
        whole_document: None,
        statements_in_call: None,
        passages: Vec::new(),
    };
    let faithfulness = Listing {
        analysis: String::new(),
        attempts: 1,
        forced: false,
        listing_forced: None,
        cut: false,
        no_statements: false,
        expected: None,
        uncalibrated: None,
    };
    Candidate {
        id: SampleId { prompt, k },
        answer: format!("answer {k}"),
        scores: [score, score, score, score, total].map(Some),
        stopped: None,
        forced: false,
        cut: false,
        verdicts: Verdicts {
            helpfulness: Some(rated()),
            logicality: Some(rated()),
            completeness: Some(rated()),
            extracts: Some(0),
            faithfulness: Some(faithfulness),
            statements: vec![statement],
            stopped: None,
        },
    }
}

/// A row of `scored_responses.jsonl` with one statement whose evidence is `passage`.
pub fn scored_row(idx: &str, query: &str, answer: &str, passage: &str) -> Value {
    let rated = |score: f64| {
        json!({"analysis": format!("{answer} [[{score}]]"), "score": score, "attempts": 1,
               "forced": false, "distribution": [0.0, 1.0], "expected": score})
    };
    let mut completeness = rated(4.0);
    completeness["info_list"] = json!({"0% - 100%": answer});
    completeness["forced_extracts"] = json!([]);
    json!({
        "idx": idx, "query": query, "answer": answer, "finish": "length",
        "scores": {"helpfulness": 6.0, "logicality": 7.0, "faithfulness": 5.0,
                   "completeness": 4.0, "total": 22.0, "reward": 5.5},
        "details": {
            "helpfulness": rated(6.0), "logicality": rated(7.0), "completeness": completeness,
            "faithfulness": {
                "score": 5.0, "facts": {answer: 0.5}, "analysis": answer, "attempts": 1,
                "forced": false, "no_statements": false, "expected": 5.0,
                "details": [{
                    "fact": answer, "analysis": answer, "score": 0.5, "attempts": 1,
                    "forced": false, "distribution": [0.25, 0.5, 0.25], "expected": 0.5,
                    "evidences": [{"c_idx": 0, "content": passage, "start_idx": 0, "end_idx": 10,
                                   "total_token": 20}],
                }],
            },
        },
        "forced": false,
    })
}

/// A folder with files; it goes with the value.
pub struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    pub fn write_rows(&self, name: &str, rows: &[Value]) {
        let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
        self.write(name, &lines.concat());
    }

    pub fn options(&self) -> Options {
        Options {
            scored: self.path("scored_responses.jsonl"),
            data: self.path("sft.jsonl"),
            pairs: None,
            chunk_info: None,
            agree: None,
            out: self.path("out/report.html"),
        }
    }

    /// The page that these options make.
    pub fn report(&self, options: &Options) -> (Summary, String) {
        let summary = run(options).unwrap();
        (summary, std::fs::read_to_string(&options.out).unwrap())
    }
}
