//! The embedder that finds evidence.

use crate::retrieval::{Background, Embed, EmbedError, Retriever};
use crate::tokenizer::Tokenizer;
use anyhow::{Context, Result, bail, ensure};
use models::encoder::Encoder;
use models::source::{Resolved, Source, SourceError, digest, resolve};
use std::sync::Arc;

/// Finding evidence by words, without a model.
pub const BM25: &str = "bm25";

/// A BERT-style encoder with its tokenizer.
pub struct Bert {
    encoder: Encoder,
    tokenizer: Tokenizer,
}

impl Bert {
    /// An embedder by folder, repo id or alias.
    ///
    /// # Errors
    /// It can't be found or read.
    pub fn open(embedder: &str) -> Result<Self> {
        let found = find(embedder)?;
        let Source::Folder(folder) = &found.source else {
            bail!("{embedder}: an embedder is a folder with config.json, not a GGUF file");
        };
        let encoder = Encoder::load(folder)?;
        Ok(Self { encoder, tokenizer: Tokenizer::load(&found.source)? })
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.encoder.dim()
    }

    /// Tokens of the longest text that it reads whole.
    pub fn max_tokens(&self) -> usize {
        self.encoder.max_tokens()
    }

    /// The tokens of a text that the encoder sees.
    pub fn tokens(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_for_embedder(text, self.encoder.max_tokens())
    }

    /// The vectors of texts in tokens, of each the same whichever others are with it.
    ///
    /// # Errors
    /// The encoder's.
    pub fn vectors(&self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.encoder.embed(texts).map_err(|e| EmbedError(e.to_string()))
    }
}

impl Embed for Arc<Bert> {
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| self.tokens(text)).collect();
        self.vectors(&ids)
    }
}

/// What stands before an embedder that is used together with words.
const WITH_WORDS: &str = "bm25+";

/// What to record for `--embedder`: `bm25`, or the embedder's name and revision (of a folder the digest
/// of its files), after `bm25+` if words count too.
///
/// # Errors
/// The embedder can't be found or read.
pub fn name(embedder: &str) -> Result<String> {
    if embedder == BM25 {
        return Ok(embedder.to_owned());
    }
    if let Some(embedder) = without_words(embedder) {
        ensure!(
            embedder != BM25 && without_words(embedder).is_none(),
            "--embedder {WITH_WORDS}{embedder}: words are joined with an embedder, as in bm25+minilm"
        );
        return Ok(format!("{WITH_WORDS}{}", name(embedder)?));
    }
    let found = find(embedder)?;
    let revision = match found.revision {
        Some(revision) => revision,
        None => digest(&found.source)?,
    };
    Ok(format!("{}@{revision}", found.name))
}

/// Words and an embedder together.
pub fn with_words(embedder: &str) -> String {
    format!("{WITH_WORDS}{embedder}")
}

/// The embedder of `bm25+EMBEDDER`.
pub fn without_words(embedder: &str) -> Option<&str> {
    embedder.strip_prefix(WITH_WORDS)
}

/// `bm25`, or an embedder by folder, repo id or alias, or both as `bm25+EMBEDDER`. One that works in the `background`
/// begins with documents as soon as they are opened.
///
/// # Errors
/// The embedder can't be found or read.
pub fn retriever(embedder: &str, background: bool) -> Result<Retriever> {
    if embedder == BM25 {
        return Ok(Retriever::Bm25);
    }
    let open = |embedder| -> Result<Box<dyn Embed>> {
        let bert = Arc::new(Bert::open(embedder)?);
        Ok(if background { Box::new(Background::new(bert)) } else { Box::new(bert) })
    };
    Ok(match without_words(embedder) {
        Some(embedder) => Retriever::Hybrid(open(embedder)?),
        None => Retriever::Embeddings(open(embedder)?),
    })
}

fn find(embedder: &str) -> Result<Resolved> {
    match resolve(embedder) {
        Err(SourceError::Unknown { spec, .. }) => bail!(
            "--embedder {spec}: no such folder; an embedder is bm25, the alias minilm, a folder or a Hugging Face repo id \
             (org/name[@revision]), or bm25 and one of these together (bm25+minilm)"
        ),
        found => found.context("no embedder (`--embedder bm25` needs none)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_embedder_is_refused_with_what_is_one() {
        let told = |embedder: &str| name(embedder).unwrap_err().to_string();
        let missing = told("nowhere");
        assert!(
            missing.contains("nowhere: no such folder") && missing.contains("minilm"),
            "{missing}"
        );
        assert!(!missing.contains("smollm2"), "{missing}");
        assert!(told("bm25+bm25").ends_with("as in bm25+minilm"));
    }

    #[test]
    fn other_weights_in_a_folder_are_another_embedder() {
        let folder = tempfile::tempdir().unwrap();
        let named = |weights: &str| {
            std::fs::write(folder.path().join("config.json"), "{}").unwrap();
            std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
            name(&format!("bm25+{}", folder.path().display())).unwrap()
        };
        let first = named("one");
        assert!(first.starts_with(&format!("bm25+{}@", folder.path().display())), "{first}");
        assert_ne!(named("other"), first);
    }
}
