//! The vocabulary inside a GGUF file: `tokenizer.ggml.*`.
//!
//! The file names how text is cut into words (`tokenizer.ggml.pre`) but doesn't say it, so each
//! name needs a row in [`WORDINGS`]; an unknown one is refused, because a wrong cut gives a
//! slightly worse model and no error.

use super::tiktoken::{GLM_STOPS, WORDS as GLM_WORDS, byte_level_words};
use super::{Definition, Pipeline, TokenizerError, sha256_hex};
use candle_core::quantized::gguf_file::Value;
use models::checkpoint::read_gguf_header;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper};

/// How a family of byte-level vocabularies cuts text.
struct Wording {
    /// Values of `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// Applied one after the other.
    expressions: &'static [&'static str],
    /// A word that is a token as a whole is taken without looking at the merges.
    ignore_merges: bool,
    /// Control tokens before a text, where the file doesn't say.
    prefix: Prefix,
}

enum Prefix {
    None,
    Bos,
    Named(&'static [&'static str]),
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// As Llama-3's, but each digit is a word.
const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const WORDINGS: [Wording; 7] = [
    Wording {
        names: &["llama-bpe", "llama3", "llama-v3"],
        expressions: &[LLAMA3],
        ignore_merges: true,
        prefix: Prefix::Bos,
    },
    Wording { names: &["qwen2"], expressions: &[QWEN], ignore_merges: false, prefix: Prefix::None },
    Wording {
        names: &["smaug-bpe", "dbrx"],
        expressions: &[LLAMA3],
        ignore_merges: false,
        prefix: Prefix::None,
    },
    Wording {
        names: &["smollm", "starcoder", "refact", "command-r"],
        expressions: &[r"\p{N}", GPT2],
        ignore_merges: false,
        prefix: Prefix::None,
    },
    Wording {
        names: &["gpt-2", "mpt", "olmo"],
        expressions: &[GPT2],
        ignore_merges: false,
        prefix: Prefix::None,
    },
    Wording {
        names: &["default"],
        expressions: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
        ignore_merges: false,
        prefix: Prefix::None,
    },
    Wording {
        names: &["glm4", "chatglm-bpe"],
        expressions: &[GLM_WORDS],
        ignore_merges: true,
        prefix: Prefix::Named(&["[gMASK]", "<sop>"]),
    },
];

/// Written forms of tokens that end a turn, in whatever family: a GGUF file often names only one
/// of several.
const STOPS: [&str; 6] =
    ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "</s>"];

/// Kinds of tokens (`tokenizer.ggml.token_type`).
mod kind {
    pub const NORMAL: i64 = 1;
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER_DEFINED: i64 = 4;
}

/// Metadata of one file, with errors that name file and key.
pub(super) struct Metadata {
    path: PathBuf,
    values: HashMap<String, Value>,
}

impl Metadata {
    pub fn read(path: &Path) -> Result<Self, TokenizerError> {
        Ok(Self { path: path.to_owned(), values: read_gguf_header(path)?.metadata })
    }

    fn invalid(&self, key: &str, reason: impl std::fmt::Display) -> TokenizerError {
        TokenizerError::invalid(&self.path, format!("key {key}: {reason}"))
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, TokenizerError> {
        value.ok_or_else(|| match self.values.contains_key(key) {
            true => self.invalid(key, "has the wrong type"),
            false => self.invalid(key, "is missing"),
        })
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.to_string().ok().map(String::as_str)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.values.get(key)?.to_bool().ok()
    }

    fn id(&self, key: &str) -> Option<u32> {
        integer(self.values.get(key)?).and_then(|id| u32::try_from(id).ok())
    }

    fn list<'a, T>(
        &'a self,
        key: &str,
        item: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Vec<T>, TokenizerError> {
        let values = self.values.get(key).and_then(|value| value.to_vec().ok());
        self.required(key, values.and_then(|values| values.iter().map(item).collect()))
    }

    fn texts(&self, key: &str) -> Result<Vec<&str>, TokenizerError> {
        self.list(key, |value| value.to_string().ok().map(String::as_str))
    }
}

fn integer(value: &Value) -> Option<i64> {
    match *value {
        Value::U8(v) => Some(v.into()),
        Value::I8(v) => Some(v.into()),
        Value::U16(v) => Some(v.into()),
        Value::I16(v) => Some(v.into()),
        Value::U32(v) => Some(v.into()),
        Value::I32(v) => Some(v.into()),
        Value::U64(v) => i64::try_from(v).ok(),
        Value::I64(v) => Some(v),
        _ => None,
    }
}

/// Tokens in the order of their ids, with their kinds.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<i64>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self, TokenizerError> {
        let tokens = metadata.texts("tokenizer.ggml.tokens")?;
        let key = "tokenizer.ggml.token_type";
        let kinds = match metadata.values.contains_key(key) {
            true => metadata.list(key, integer)?,
            false => vec![kind::NORMAL; tokens.len()],
        };
        if kinds.len() != tokens.len() {
            let reason = format!("{} entries for {} tokens", kinds.len(), tokens.len());
            return Err(metadata.invalid(key, reason));
        }
        Ok(Self { tokens, kinds })
    }

    fn ids(&self) -> Vocab {
        self.tokens.iter().zip(0..).map(|(token, id)| (token.to_string(), id)).collect()
    }

    /// Tokens that are found as a whole before text is cut into words.
    fn added(&self) -> impl Iterator<Item = AddedToken> {
        self.tokens.iter().zip(&self.kinds).filter_map(|(&token, &kind)| match kind {
            kind::CONTROL | kind::UNKNOWN => Some(AddedToken::from(token, true).normalized(false)),
            kind::USER_DEFINED => Some(AddedToken::from(token, false).normalized(false)),
            _ => None,
        })
    }
}

pub(super) fn load(path: &Path) -> Result<Definition, TokenizerError> {
    let metadata = Metadata::read(path)?;
    let key = "tokenizer.ggml.model";
    let vocabulary = Vocabulary::read(&metadata)?;
    let (mut pipeline, prefix) = match metadata.required(key, metadata.text(key))? {
        "gpt2" => byte_level(&metadata, &vocabulary)?,
        "llama" => (sentence_piece(&metadata, &vocabulary)?, &Prefix::Bos),
        other => {
            let reason = format!("{other:?} isn't supported, only \"gpt2\" and \"llama\" are");
            return Err(metadata.invalid(key, reason));
        }
    };
    pipeline
        .add_special_tokens(vocabulary.added())
        .map_err(|e| TokenizerError::invalid(path, e))?;

    let bos = metadata.id("tokenizer.ggml.bos_token_id");
    let eos = metadata.id("tokenizer.ggml.eos_token_id");
    let raw_prefix = raw_prefix(&metadata, prefix, bos, &pipeline);
    Ok(Definition {
        path: path.to_owned(),
        bos,
        eos,
        stop_tokens: stop_tokens(&metadata, prefix, &pipeline),
        raw_prefix,
        hash: hash(&metadata, &vocabulary)?,
        pipeline,
    })
}

fn byte_level(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
) -> Result<(Pipeline, &'static Prefix), TokenizerError> {
    let key = "tokenizer.ggml.pre";
    let name = metadata.required(key, metadata.text(key))?;
    let wording = WORDINGS.iter().find(|row| row.names.contains(&name)).ok_or_else(|| {
        let known: Vec<_> = WORDINGS.iter().flat_map(|row| row.names).copied().collect();
        metadata.invalid(key, format!("{name:?} isn't known here, only {}", known.join(", ")))
    })?;
    let ids = vocabulary.ids();
    let merges = merges(metadata, &ids)?;
    let bpe = BPE::builder()
        .vocab_and_merges(ids, merges)
        .ignore_merges(wording.ignore_merges)
        .build()
        .map_err(|e| metadata.invalid("tokenizer.ggml.merges", e))?;
    let words = byte_level_words(wording.expressions).map_err(|e| metadata.invalid(key, e))?;
    let mut pipeline = Pipeline::new(bpe);
    pipeline.with_pre_tokenizer(Some(words));
    pipeline.with_decoder(Some(ByteLevel::new(false, false, false)));
    Ok((pipeline, &wording.prefix))
}

/// The pairs, whose parts and unions are all tokens: the crate `tokenizers` panics at a union that is longer than any.
fn merges(metadata: &Metadata, ids: &Vocab) -> Result<Vec<(String, String)>, TokenizerError> {
    let key = "tokenizer.ggml.merges";
    let split = |(number, merge): (usize, &str)| {
        // A token may begin with the separator itself only where it is no byte-level token.
        let (a, b) = merge.split_once(' ').ok_or_else(|| {
            metadata.invalid(key, format!("entry {number}, {merge:?}, isn't a pair"))
        })?;
        let union = [a, b].concat();
        if let Some(unknown) = [a, b, &union].into_iter().find(|&text| !ids.contains_key(text)) {
            let reason = format!("entry {number}, {merge:?}: {unknown:?} is no token");
            return Err(metadata.invalid(key, reason));
        }
        Ok((a.to_owned(), b.to_owned()))
    };
    metadata.texts(key)?.into_iter().enumerate().map(split).collect()
}

/// A SentencePiece vocabulary as BPE: pieces merge in the order of their scores, characters that
/// no piece covers become bytes.
fn sentence_piece(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
) -> Result<Pipeline, TokenizerError> {
    let invalid = |e: tokenizers::Error| TokenizerError::invalid(&metadata.path, e);
    let key = "tokenizer.ggml.scores";
    let scores = metadata.list(key, |value| value.to_f32().ok())?;
    if scores.len() != vocabulary.tokens.len() {
        let reason = format!("{} scores for {} tokens", scores.len(), vocabulary.tokens.len());
        return Err(metadata.invalid(key, reason));
    }
    let unknown = metadata.id("tokenizer.ggml.unknown_token_id").unwrap_or(0);
    let unknown = vocabulary.tokens.get(unknown as usize).copied().unwrap_or("<unk>");
    let bpe = BPE::builder()
        .vocab_and_merges(vocabulary.ids(), piece_merges(vocabulary, &scores))
        .unk_token(unknown.to_owned())
        .byte_fallback(true)
        .fuse_unk(true)
        .build()
        .map_err(invalid)?;
    let mut pipeline = Pipeline::new(bpe);
    let space_first = metadata.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let (normalizer, decoder) = piece_spacing(space_first).map_err(|e| invalid(e.into()))?;
    pipeline.with_normalizer(Some(normalizer)).map_err(invalid)?;
    pipeline.with_decoder(Some(decoder));
    Ok(pipeline)
}

/// All ways to put each ordinary piece together from two others, the best score first.
fn piece_merges(vocabulary: &Vocabulary, scores: &[f32]) -> Vec<(String, String)> {
    let ordinary = || (0..vocabulary.tokens.len()).filter(|&i| vocabulary.kinds[i] == kind::NORMAL);
    let id_of: HashMap<&str, usize> = ordinary().map(|i| (vocabulary.tokens[i], i)).collect();
    let mut merges = Vec::new();
    for i in ordinary() {
        let piece = vocabulary.tokens[i];
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(&l), Some(&r)) = (id_of.get(left), id_of.get(right)) {
                merges.push((scores[i], i, l, r));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    let text = |i: usize| vocabulary.tokens[i].to_owned();
    merges.into_iter().map(|(.., l, r)| (text(l), text(r))).collect()
}

/// Spaces are `▁`, and one more stands before a text if `space_first`.
fn piece_spacing(
    space_first: bool,
) -> Result<(NormalizerWrapper, DecoderWrapper), serde_json::Error> {
    use serde_json::json;
    let mut before = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    let mut after = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if space_first {
        before.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        after.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok((
        serde_json::from_value(json!({"type": "Sequence", "normalizers": before}))?,
        serde_json::from_value(json!({"type": "Sequence", "decoders": after}))?,
    ))
}

fn raw_prefix(
    metadata: &Metadata,
    prefix: &Prefix,
    bos: Option<u32>,
    pipeline: &Pipeline,
) -> Vec<u32> {
    if let Prefix::Named(names) = prefix {
        return names.iter().filter_map(|name| pipeline.token_to_id(name)).collect();
    }
    let by_family = matches!(prefix, Prefix::Bos);
    match metadata.flag("tokenizer.ggml.add_bos_token").unwrap_or(by_family) {
        true => bos.into_iter().collect(),
        false => Vec::new(),
    }
}

fn stop_tokens(metadata: &Metadata, prefix: &Prefix, pipeline: &Pipeline) -> Vec<u32> {
    let keys = ["eos_token_id", "eot_token_id", "eom_token_id"];
    let by_key = keys.iter().filter_map(|key| metadata.id(&format!("tokenizer.ggml.{key}")));
    let glm: &[&str] = if matches!(prefix, Prefix::Named(_)) { &GLM_STOPS } else { &[] };
    let added = pipeline.get_added_tokens_decoder();
    let control = |id: &u32| added.get(id).is_some_and(|token| token.special);
    let by_name = STOPS.iter().chain(glm).filter_map(|text| pipeline.token_to_id(text));
    by_key.chain(by_name.filter(control)).collect()
}

fn hash(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<String, TokenizerError> {
    let has_merges = metadata.values.contains_key("tokenizer.ggml.merges");
    let merges = if has_merges { metadata.texts("tokenizer.ggml.merges")? } else { Vec::new() };
    let kinds: Vec<u8> = vocabulary.kinds.iter().map(|&kind| kind as u8).collect();
    Ok(sha256_hex(&[
        metadata.text("tokenizer.ggml.model").unwrap_or_default().as_bytes(),
        metadata.text("tokenizer.ggml.pre").unwrap_or_default().as_bytes(),
        vocabulary.tokens.join("\n").as_bytes(),
        &kinds,
        merges.join("\n").as_bytes(),
    ]))
}
