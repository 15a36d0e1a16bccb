//! Text to token ids and back, and conversations to prompts.
//!
//! A checkpoint brings its vocabulary in one of three forms: a `tokenizer.json`, a tiktoken rank
//! file (GLM-4) or the metadata of a GGUF file. Each loader ([`huggingface`], [`tiktoken`],
//! [`gguf`]) ends in the same [`Tokenizer`], which promises two things that the library below it
//! does not:
//!
//! * Text is data. [`Tokenizer::encode`] never returns a control token, whatever the text spells.
//!   That goes by what a token is, not by the file's `special`, which says no more than whether a
//!   decoder shows it: DeepSeek-R1's `<｜User｜>` is not special there (see [`special::is_control`]).
//! * Bytes are exact. [`Tokenizer::token_bytes`] knows what each token writes, and offsets cover
//!   the whole text without gap or overlap.

mod chat_template;
mod embedding;
mod files;
mod gguf;
#[cfg(test)]
mod goldens;
mod huggingface;
mod special;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tiktoken;
mod token_bytes;

pub use chat_template::{ChatTemplate, Turn};
pub use stream::StreamDecoder;

use crate::hexadecimal::hexadecimal;
use models::source::Source;
use special::{Piece, Special, Specials, is_control};
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use token_bytes::TokenBytes;
use tokenizers::AddedToken;
use tokenizers::processors::PostProcessorWrapper;

/// The tokenizer of the crate `tokenizers`, named so that ours can bear the plain name.
type Pipeline = tokenizers::Tokenizer;

/// Why a tokenizer or a chat template can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error(
        "{}: no tokenizer found; expected tokenizer.json, or the tiktoken file tokenizer.model",
        folder.display()
    )]
    Missing { folder: PathBuf },
    #[error(transparent)]
    Model(#[from] models::ModelError),
    #[error("chat template {name}: {reason}")]
    Template { name: String, reason: String },
}

impl TokenizerError {
    fn invalid(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Invalid { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// What a loader finds out; [`Tokenizer::assemble`] derives the rest.
struct Definition {
    /// Where it came from, for error messages.
    path: PathBuf,
    pipeline: Pipeline,
    bos: Option<u32>,
    /// Written form of the end token, for templates.
    eos: Option<u32>,
    stop_tokens: Vec<u32>,
    raw_prefix: Vec<u32>,
    hash: String,
}

/// A vocabulary with the rules that cut text into its tokens.
pub struct Tokenizer {
    /// Encodes the start of a text; never yields control tokens.
    pipeline: Pipeline,
    /// Encodes text that stands in the middle of another, where that makes a difference
    /// (SentencePiece vocabularies put a space before a text).
    inner_text: Option<Pipeline>,
    /// Whether text after a control token counts as the middle of a text.
    joins_after_special: bool,
    /// Adds what an embedder wants around a text.
    post_processor: Option<PostProcessorWrapper>,
    specials: Specials,
    bytes: Arc<TokenBytes>,
    bos: Option<u32>,
    eos: Option<u32>,
    stop_tokens: Vec<u32>,
    raw_prefix: Vec<u32>,
    hash: String,
}

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint: in a folder `tokenizer.json`, else the tiktoken file
    /// `tokenizer.model`; in a GGUF file its vocabulary.
    ///
    /// # Errors
    /// Missing or malformed files, and vocabularies of a kind that isn't known here, each with
    /// the file and the key.
    pub fn load(source: &Source) -> Result<Self, TokenizerError> {
        let definition = match source {
            Source::Gguf(path) => caught(path, || gguf::load(path))?,
            Source::Folder(folder) => {
                if folder.join("tokenizer.json").is_file() {
                    huggingface::load(folder)?
                } else if folder.join("tokenizer.model").is_file() {
                    tiktoken::load(folder)?
                } else {
                    return Err(TokenizerError::Missing { folder: folder.clone() });
                }
            }
        };
        Self::assemble(definition)
    }

    fn assemble(definition: Definition) -> Result<Self, TokenizerError> {
        let Definition { path, mut pipeline, bos, eos, mut stop_tokens, raw_prefix, hash } =
            definition;
        let invalid = |reason: String| TokenizerError::invalid(&path, reason);
        pipeline.set_encode_special_tokens(true);
        let post_processor = pipeline.get_post_processor().cloned();
        pipeline.with_post_processor(None::<PostProcessorWrapper>);
        // Encoding can fail only where the unknown token is not in the vocabulary.
        pipeline.encode_fast("\u{10FFFF} a", false).map_err(|e| invalid(e.to_string()))?;

        let bytes = TokenBytes::new(&pipeline).map_err(invalid)?;
        let control = keep_from_text(&mut pipeline).map_err(|e| invalid(e.to_string()))?;
        let spacing = huggingface::spacing(&pipeline).map_err(invalid)?;
        stop_tokens.sort_unstable();
        stop_tokens.dedup();
        Ok(Self {
            inner_text: spacing.inner_text,
            joins_after_special: spacing.joins_after_special,
            specials: Specials::new(control),
            post_processor,
            bytes: Arc::new(bytes),
            pipeline,
            bos,
            eos,
            stop_tokens,
            raw_prefix,
            hash,
        })
    }

    /// Ids of a text that is pure data: control tokens spelled in it become ordinary tokens.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        encode_with(&self.pipeline, text)
    }

    /// Ids of a text that goes on where other text ended, as [`Tokenizer::encode`] else.
    ///
    /// The two differ only for vocabularies that put a space before a text.
    pub fn encode_continuation(&self, text: &str) -> Vec<u32> {
        encode_with(self.inner_text.as_ref().unwrap_or(&self.pipeline), text)
    }

    /// Ids of a text in which control tokens may be spelled out. For text from a trusted source.
    pub fn encode_with_specials(&self, text: &str) -> Vec<u32> {
        self.encode_pieces(&self.specials.split(text), |text| text.to_owned())
    }

    /// Ids of a text without any template around it, after the [`Tokenizer::raw_prefix`].
    pub fn encode_raw(&self, text: &str) -> Vec<u32> {
        // The text keeps its place: what a post-processor puts before it does not make it a
        // continuation, other than a control token that the text itself spells.
        [self.raw_prefix.clone(), self.encode(text)].concat()
    }

    /// `clean` is applied to each stretch of plain text before it is encoded.
    fn encode_pieces(&self, pieces: &[Piece], clean: impl Fn(&str) -> String) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Special(id) => ids.push(*id),
                Piece::Text(text) if self.joins_after_special && !ids.is_empty() => {
                    ids.extend(self.encode_continuation(&clean(text)));
                }
                Piece::Text(text) => ids.extend(self.encode(&clean(text))),
            }
        }
        ids
    }

    /// As [`Tokenizer::encode`], with the bytes of `text` that each token stands for.
    ///
    /// The ranges cover the text in order without gap or overlap and begin and end between
    /// characters: where several tokens share a character, the first has it and the others are
    /// empty.
    pub fn encode_offsets(&self, text: &str) -> Vec<(u32, Range<usize>)> {
        let encoding = self.pipeline.encode(text, false).expect(ENCODES);
        let count = encoding.len();
        let mut covered = 0;
        let ends = encoding.get_offsets().iter().map(|&(_, end)| end).enumerate();
        ends.zip(encoding.get_ids())
            .map(|((i, end), &id)| {
                let start = covered;
                covered = if i + 1 == count { text.len() } else { end.max(start) };
                (id, start..covered)
            })
            .collect()
    }

    /// The text of some tokens. Special tokens write nothing; bytes that aren't UTF-8 become
    /// U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = StreamDecoder::new(self);
        let mut text = String::new();
        for &id in ids {
            text.push_str(stream.push(id));
        }
        text.push_str(stream.finish());
        text
    }

    /// What a token writes; for a control token its written form, for an id outside the
    /// vocabulary nothing.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.bytes.of(id).to_vec()
    }

    /// Whether a token writes nothing: one that its file calls special.
    pub fn is_special(&self, id: u32) -> bool {
        self.bytes.is_special(id)
    }

    /// Whether a token is a control token, which no text can spell. Those that are not special
    /// (`<think>`) are written where a model emits them.
    pub fn is_control(&self, id: u32) -> bool {
        self.specials.contains(id)
    }

    /// Largest id + 1. A model's own vocabulary may be padded beyond it.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// The largest id that a text can have, or the [`Tokenizer::raw_prefix`] before it.
    pub fn largest_encoded(&self) -> u32 {
        let writes = |id: &u32| !self.is_control(*id) && !self.bytes.of(*id).is_empty();
        let largest = (0..self.bytes.len() as u32).rev().find(writes);
        largest.into_iter().chain(self.raw_prefix.iter().copied()).max().unwrap_or_default()
    }

    /// Ids of the ordinary tokens whose text begins with `prefix`, ascending.
    pub fn starting_with(&self, prefix: &str) -> Vec<u32> {
        let ordinary = |id: &u32| !self.is_control(*id);
        let begins = |id: &u32| {
            let bytes = self.bytes.of(*id);
            !bytes.is_empty() && bytes.starts_with(prefix.as_bytes())
        };
        (0..self.bytes.len() as u32).filter(ordinary).filter(begins).collect()
    }

    /// The id of a control token by its written form.
    pub fn special_id(&self, text: &str) -> Option<u32> {
        self.specials.id(text)
    }

    /// The token that the checkpoint names as the beginning of text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Tokens that the model ends a reply with, ascending: those of `generation_config.json`,
    /// `config.json` and `tokenizer_config.json`, or of the GGUF metadata.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// Tokens that the checkpoint wants before a text that has no chat template around it:
    /// Llama-3.1's `<|begin_of_text|>`, GLM-4's `[gMASK]<sop>`, nothing for SmolLM2.
    pub fn raw_prefix(&self) -> &[u32] {
        &self.raw_prefix
    }

    /// SHA-256 of what defines the tokenizer (hexadecimal).
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Written form of the beginning and end tokens, as templates use them.
    fn bos_and_eos(&self) -> [Option<String>; 2] {
        [self.bos, self.eos]
            .map(|id| id.map(|id| String::from_utf8_lossy(self.bytes.of(id)).into_owned()))
    }
}

const ENCODES: &str = "loading has checked that every text can be encoded";

fn encode_with(pipeline: &Pipeline, text: &str) -> Vec<u32> {
    pipeline.encode_fast(text, false).expect(ENCODES).get_ids().to_vec()
}

/// Runs what builds a pipeline from a file: the crate `tokenizers` panics at vocabularies whose parts contradict each
/// other.
fn caught<T>(
    path: &Path,
    make: impl FnOnce() -> Result<T, TokenizerError>,
) -> Result<T, TokenizerError> {
    catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| {
        let reason = message(&*panic);
        let reason = format!("its vocabulary contradicts itself ({reason}); get the file anew");
        Err(TokenizerError::invalid(path, reason))
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason is given")
}

/// Makes the pipeline take control tokens in a text for ordinary text, all of them: by itself it
/// does so only with those that the file calls special. Returns them.
fn keep_from_text(pipeline: &mut Pipeline) -> tokenizers::Result<Vec<Special>> {
    let added = pipeline.get_added_tokens_decoder();
    let control: Vec<_> = added.into_iter().filter(|(_, token)| is_control(token)).collect();
    let unlisted = control.iter().filter(|(_, token)| !token.special);
    let unlisted: Vec<_> = unlisted.map(|(_, token)| token.clone().special(true)).collect();
    pipeline.add_special_tokens(unlisted)?;
    let special = |(id, token): (u32, AddedToken)| Special {
        id,
        text: token.content,
        eats_space_before: token.lstrip,
        eats_space_after: token.rstrip,
    };
    Ok(control.into_iter().map(special).collect())
}

/// SHA-256 over several byte strings, in hexadecimal.
fn sha256_hex(parts: &[&[u8]]) -> String {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hexadecimal(hasher.finalize())
}
