//! The embedder and the judge of a server.

use super::super::embedder::Bert;
use super::super::method_args::{Means, MethodArgs};
use super::super::stages::ScoreFiles;
use super::scoring::{Asked, Scoring, Search};
use crate::chat::service::Handle;
use crate::pipeline::score::{Options, ScorePlan, Tools};
use crate::pipeline::{Error, Failure, Quiet, Session};
use crate::retrieval::{Embed, EmbedError, Retriever};
use crate::serve::{Embedder, ScoreError, ScoreRequest, Scorer, small_groups};
use anyhow::{Context, Result};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// `/v1/embeddings`.
pub struct ServedEmbedder {
    name: String,
    bert: Arc<Bert>,
}

impl ServedEmbedder {
    pub fn new(name: String, bert: Arc<Bert>) -> Self {
        Self { name, bert }
    }
}

impl Embedder for ServedEmbedder {
    fn name(&self) -> &str {
        &self.name
    }

    fn tokens(&self, text: &str) -> Vec<u32> {
        self.bert.tokens(text)
    }

    fn embed(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, String> {
        let mut vectors = self.bert.vectors(texts).map_err(|e| e.to_string())?;
        vectors.iter_mut().for_each(|vector| normalise(vector));
        Ok(vectors)
    }
}

/// To length 1.
fn normalise(vector: &mut [f32]) {
    let norm = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// Embeds on the engine's thread, in groups between which it makes its steps, until nobody waits.
struct OnEngine {
    handle: Handle,
    bert: Arc<Bert>,
    cancel: Arc<AtomicBool>,
}

impl Embed for OnEngine {
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut vectors = Vec::with_capacity(texts.len());
        for group in small_groups(texts.iter().map(|text| self.bert.tokens(text)).collect()) {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(EmbedError("nobody waits for the vectors any more".to_owned()));
            }
            let bert = self.bert.clone();
            let done = self.handle.errand_blocking(move || bert.vectors(&group));
            vectors.extend(done.map_err(|e| EmbedError(e.to_string()))??);
        }
        Ok(vectors)
    }
}

/// `/longreward/score`: the stage `score` on files of one row each, in a folder that is thrown
/// away, so that the verdict is its verdict.
pub struct ServedScorer {
    handle: Handle,
    scoring: Scoring,
    /// `None` searches by words.
    bert: Option<Arc<Bert>>,
}

impl ServedScorer {
    pub fn new(handle: Handle, scoring: Scoring, bert: Option<Arc<Bert>>) -> Self {
        Self { handle, scoring, bert }
    }

    fn retriever(&self, search: Search, cancel: &Arc<AtomicBool>) -> Retriever {
        let on_engine = self.bert.clone().map(|bert| {
            let (handle, cancel) = (self.handle.clone(), cancel.clone());
            Box::new(OnEngine { handle, bert, cancel })
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
        cancel: &Arc<AtomicBool>,
    ) -> Result<String> {
        let folder = tempfile::tempdir().context("no folder for the score")?;
        let plan = ScorePlan::open(options(request, asked.method, asked.means, folder.path())?)?;
        let mut retriever = self.retriever(asked.search, cancel);
        let tokens = |text: &str| self.handle.tokenizer().encode_offsets(text);
        let mut chat = self.handle.chat();
        let mut session = Session { chat: &mut chat, progress: &mut Quiet, cancel };
        let tools = Tools { tokens: &tokens, retriever: &mut retriever };
        let summary = plan.run(tools, &mut session)?;
        if let Some(problem) = summary.problems.first() {
            let field = problem.field.iter().map(|field| format!("{field}: ")).collect::<String>();
            return Err(ScoreError::Request(field + &problem.message).into());
        }
        if let Some(Failure { reason, .. }) = summary.failures.first() {
            // All that can be wrong else is what was sent.
            let fault = if chat.has_lost() { ScoreError::Failed } else { ScoreError::Request };
            return Err(fault(reason.clone()).into());
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
    fn score(
        &self,
        request: &ScoreRequest,
        cancel: &Arc<AtomicBool>,
    ) -> Result<String, ScoreError> {
        let asked = self.scoring.asked(&request.options, request.seed);
        let asked = asked.map_err(|error| ScoreError::Options(crate::cli::told(&error)))?;
        self.try_score(request, asked, cancel).map_err(fault)
    }
}

/// Whose fault it is that there is no score.
fn fault(error: anyhow::Error) -> ScoreError {
    if let Some(Error::Broken(why)) = error.downcast_ref() {
        return ScoreError::Gone(why.clone());
    }
    error.downcast().unwrap_or_else(|error| ScoreError::Failed(crate::cli::told(&error)))
}
