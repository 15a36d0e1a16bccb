//! The embedder and the judge of a server.

use super::super::embedder::Bert;
use crate::chat::service::Handle;
use crate::pipeline::records::ScoreBy;
use crate::pipeline::score::{Options, PASSAGE_TOKENS, ScorePlan, Tools};
use crate::pipeline::{Evidencing, Judging, OnMismatch, Quiet, Session};
use crate::retrieval::chunk::Cutting;
use crate::retrieval::{Embed, EmbedError, Retriever, TOP_CHUNKS};
use crate::serve::{Embedded, Embedder, ScoreRequest, Scorer};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
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
    judging: Judging,
    /// Names the way of finding evidence.
    retriever: String,
    /// `None` searches by words.
    bert: Option<SharedBert>,
}

impl ServedScorer {
    pub fn new(
        handle: Handle,
        judging: Judging,
        retriever: String,
        bert: Option<SharedBert>,
    ) -> Self {
        Self { handle, judging, retriever, bert }
    }

    fn retriever(&self) -> Retriever {
        match &self.bert {
            Some(bert) => {
                let (handle, bert) = (self.handle.clone(), bert.clone());
                Retriever::Embeddings(Box::new(OnEngine { handle, bert }))
            }
            None => Retriever::Bm25,
        }
    }

    fn try_score(&self, request: &ScoreRequest, cancel: &AtomicBool) -> Result<Value> {
        let folder = tempfile::tempdir().context("no folder for the score")?;
        let plan = ScorePlan::open(self.options(request, folder.path())?)?;
        let mut retriever = self.retriever();
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
        Ok(serde_json::from_str(row)?)
    }

    fn options(&self, request: &ScoreRequest, folder: &Path) -> Result<Options> {
        let ScoreRequest { context, query, answer, idx, k, seed } = request;
        let prompt = json!({"idx": idx, "query": query, "answer": "", "context": context});
        let response = json!({"idx": format!("{idx}-{k}"), "query": query, "answer": answer});
        let data = folder.join("sft.jsonl");
        let responses = folder.join("sampled_responses.jsonl");
        std::fs::write(&data, format!("{prompt}\n"))?;
        std::fs::write(&responses, format!("{response}\n"))?;
        Ok(Options {
            data,
            responses,
            out: folder.join(SCORED),
            chunk_info: None,
            judging: Judging { seed: *seed, ..self.judging.clone() },
            retriever: self.retriever.clone(),
            cutting: Cutting::tokens(PASSAGE_TOKENS),
            evidence: Evidencing { passages: TOP_CHUNKS, whole_document: None },
            score_by: ScoreBy::default(),
            calibration: None,
            early_stop: false,
            on_mismatch: OnMismatch::Refuse,
        })
    }
}

const SCORED: &str = "scored_responses.jsonl";

impl Scorer for ServedScorer {
    fn score(&self, request: &ScoreRequest, cancel: &AtomicBool) -> Result<Value, String> {
        self.try_score(request, cancel).map_err(|error| format!("{error:#}"))
    }
}
