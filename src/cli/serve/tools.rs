//! The embedder and the judge of a server.

use super::super::embedder::Bert;
use super::super::method_args::{Means, MethodArgs};
use super::super::stages::ScoreFiles;
use super::scoring::{Asked, Scoring, Search};
use crate::chat::service::Handle;
use crate::pipeline::score::{Options, ScorePlan, Tools};
use crate::pipeline::{Quiet, Session};
use crate::retrieval::{Embed, EmbedError, Retriever};
use crate::serve::{Embedded, Embedder, ScoreError, ScoreRequest, Scorer};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

/// An encoder for one request after the other.
type SharedBert = Arc<Mutex<Bert>>;

fn embed(bert: &Mutex<Bert>, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
    bert.lock().unwrap_or_else(PoisonError::into_inner).embed(texts)
}

/// `/v1/embeddings`.
pub struct ServedEmbedder {
    name: String,
    bert: SharedBert,
}

impl ServedEmbedder {
    pub fn new(name: String, bert: SharedBert) -> Self {
        Self { name, bert }
    }
}

impl Embedder for ServedEmbedder {
    fn name(&self) -> &str {
        &self.name
    }

    fn embed(&self, texts: &[String]) -> Result<Embedded, String> {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut vectors = embed(&self.bert, &texts).map_err(|e| e.to_string())?;
        vectors.iter_mut().for_each(|vector| normalise(vector));
        let bert = self.bert.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = texts.iter().map(|text| bert.count(text) as u64).sum();
        Ok(Embedded { vectors, tokens })
    }
}

/// To length 1.
fn normalise(vector: &mut [f32]) {
    let norm = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// Embeds on the engine's thread, whoever asks.
struct OnEngine {
    handle: Handle,
    bert: SharedBert,
}

impl Embed for OnEngine {
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let bert = self.bert.clone();
        let errand = move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            embed(&bert, &texts)
        };
        self.handle.errand(errand).map_err(|e| EmbedError(e.to_string()))?
    }
}

/// `/longreward/score`: the stage `score` on files of one row each, in a folder that is thrown
/// away, so that the verdict is its verdict.
pub struct ServedScorer {
    handle: Handle,
    scoring: Scoring,
    /// `None` searches by words.
    bert: Option<SharedBert>,
}

impl ServedScorer {
    pub fn new(handle: Handle, scoring: Scoring, bert: Option<SharedBert>) -> Self {
        Self { handle, scoring, bert }
    }

    fn retriever(&self, search: Search) -> Retriever {
        let on_engine = self.bert.clone().map(|bert| {
            let handle = self.handle.clone();
            Box::new(OnEngine { handle, bert })
        });
        match (search, on_engine) {
            (Search::Embedder, Some(embedder)) => Retriever::Embeddings(embedder),
            (Search::Both, Some(embedder)) => Retriever::Hybrid(embedder),
            _ => Retriever::Bm25,
        }
    }

    fn try_score(
        &self,
        request: &ScoreRequest,
        asked: Asked,
        cancel: &AtomicBool,
    ) -> Result<String> {
        let folder = tempfile::tempdir().context("no folder for the score")?;
        let plan = ScorePlan::open(options(request, asked.method, asked.means, folder.path())?)?;
        let mut retriever = self.retriever(asked.search);
        let tokens = |text: &str| self.handle.tokenizer().encode_offsets(text);
        let mut chat = self.handle.chat();
        let mut session = Session { chat: &mut chat, progress: &mut Quiet, cancel };
        let tools = Tools { tokens: &tokens, retriever: &mut retriever };
        let summary = plan.run(tools, &mut session)?;
        if let Some(failure) = summary.failures.first() {
            bail!("{}", failure.reason);
        }
        let rows = std::fs::read_to_string(folder.path().join(SCORED))?;
        let row = rows.lines().next().context("the score was broken off")?;
        Ok(row.to_owned())
    }
}

/// Writes the row and its document to a folder.
fn options(
    request: &ScoreRequest,
    method: MethodArgs,
    means: Means,
    folder: &Path,
) -> Result<Options> {
    let ScoreRequest { context, query, answer, idx, k, .. } = request;
    let prompt = json!({"idx": idx, "query": query, "answer": "", "context": context});
    let response = json!({"idx": format!("{idx}-{k}"), "query": query, "answer": answer});
    let [data, responses, out] =
        ["sft.jsonl", "sampled_responses.jsonl", SCORED].map(|name| folder.join(name));
    std::fs::write(&data, format!("{prompt}\n"))?;
    std::fs::write(&responses, format!("{response}\n"))?;
    let files = ScoreFiles { data: &data, responses: &responses, out: &out, chunk_info: None };
    method.options(files, means)
}

const SCORED: &str = "scored_responses.jsonl";

impl Scorer for ServedScorer {
    fn score(&self, request: &ScoreRequest, cancel: &AtomicBool) -> Result<String, ScoreError> {
        let asked = self.scoring.asked(&request.options, request.seed);
        let asked = asked.map_err(|error| ScoreError::Options(crate::cli::told(&error)))?;
        let scored = self.try_score(request, asked, cancel);
        scored.map_err(|error| ScoreError::Failed(crate::cli::told(&error)))
    }
}
