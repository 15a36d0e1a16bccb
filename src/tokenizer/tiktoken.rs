//! GLM-4's `tokenizer.model`: one `base64-token rank` pair a line, as tiktoken writes it.

use super::files::{self, Config};
use super::token_bytes::char_of_byte;
use super::{Definition, Pipeline, TokenizerError, sha256_hex};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

/// Words of cl100k, which GLM-4 shares.
pub(super) const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// GLM-4's control tokens; their ids follow the last rank, in this order.
const SPECIALS: [&str; 14] = [
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
];

/// Tokens that end a turn of GLM-4.
pub(super) const GLM_STOPS: [&str; 3] = ["<|endoftext|>", "<|user|>", "<|observation|>"];

pub(super) fn load(folder: &Path) -> Result<Definition, TokenizerError> {
    let path = folder.join("tokenizer.model");
    let bytes = files::read(&path)?;
    let ranks = parse(&bytes).map_err(|reason| TokenizerError::invalid(&path, reason))?;
    let config = Config::read(folder)?;
    let specials = specials(&config.tokenizer, ranks.len())
        .map_err(|reason| TokenizerError::invalid(&folder.join("tokenizer_config.json"), reason))?;
    let pipeline =
        build(&ranks, &specials).map_err(|reason| TokenizerError::invalid(&path, reason))?;
    let ids = |texts: &[&str]| texts.iter().filter_map(|t| pipeline.token_to_id(t)).collect();
    let id = |text: &Option<String>| text.as_ref().and_then(|text| pipeline.token_to_id(text));
    let (bos, eos) = (id(&config.bos), id(&config.eos));
    let mut stop_tokens: Vec<u32> = ids(&GLM_STOPS);
    stop_tokens.extend(config.stop_ids.into_iter().chain(eos));
    let raw_prefix = ids(&["[gMASK]", "<sop>"]);
    let hash = sha256_hex(&[&bytes]);
    Ok(Definition { path, bos, eos, stop_tokens, raw_prefix, hash, pipeline })
}

/// The control tokens that `tokenizer_config.json` lists, or GLM-4's.
fn specials(config: &Value, ranks: usize) -> Result<Vec<&str>, String> {
    let Some(listed) = config["added_tokens_decoder"].as_object() else {
        return Ok(SPECIALS.to_vec());
    };
    let mut specials = Vec::new();
    for (id, token) in listed {
        let id: usize = id.parse().map_err(|_| format!("added_tokens_decoder: {id:?} is no id"))?;
        let text = token["content"].as_str();
        specials.push((id, text.ok_or(format!("added_tokens_decoder: {id} has no content"))?));
    }
    specials.sort_unstable();
    match specials.iter().zip(ranks..).find(|((id, _), next)| id != next) {
        Some(((id, _), next)) => {
            Err(format!("added_tokens_decoder: id {id} where {next} follows the ranks"))
        }
        None => Ok(specials.into_iter().map(|(_, text)| text).collect()),
    }
}

/// Tokens in the order of their ranks, which must be 0, 1, 2, …
fn parse(file: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let text = std::str::from_utf8(file).map_err(|_| {
        "not a tiktoken file (binary; a SentencePiece model can't be read, a tokenizer.json can)"
    })?;
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
        let (token, rank) = line
            .split_once(' ')
            .and_then(|(token, rank)| Some((base64(token)?, rank.trim().parse::<usize>().ok()?)))
            .ok_or_else(|| format!("line {number}: expected a base64 token, a space and a rank"))?;
        if rank != tokens.len() {
            return Err(format!("line {number}: rank {rank}, but {} is next", tokens.len()));
        }
        tokens.push(token);
    }
    if tokens.is_empty() { Err("no tokens".into()) } else { Ok(tokens) }
}

/// Decodes standard base64 with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for &c in group {
            bits = bits << 6 | u32::from(digit(c)?);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

/// Byte-level BPE that merges as tiktoken does: always the pair whose union has the lowest rank.
fn build(ranks: &[Vec<u8>], specials: &[&str]) -> Result<Pipeline, String> {
    let chars = char_of_byte();
    let written = |token: &[u8]| token.iter().map(|&b| chars[b as usize]).collect::<String>();
    let vocab: HashMap<String, u32> = (0..).zip(ranks).map(|(id, t)| (written(t), id)).collect();
    if vocab.len() != ranks.len() {
        return Err("a token has two ranks".into());
    }
    let merges = merges(ranks).into_iter().map(|(a, b)| (written(a), written(b))).collect();
    let bpe = BPE::builder()
        .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
        .ignore_merges(true)
        .build()
        .map_err(|e| e.to_string())?;
    let mut pipeline = Pipeline::new(bpe);
    pipeline.with_pre_tokenizer(Some(byte_level_words(&[WORDS])?));
    pipeline.with_decoder(Some(ByteLevel::new(false, false, false)));
    let tokens = specials.iter().map(|&text| AddedToken::from(text, true).normalized(false));
    pipeline.add_special_tokens(tokens).map_err(|e| e.to_string())?;
    Ok(pipeline)
}

/// All ways to put each token together from two others, ordered as tiktoken would take them.
fn merges(ranks: &[Vec<u8>]) -> Vec<(&[u8], &[u8])> {
    let rank_of: HashMap<&[u8], usize> =
        ranks.iter().enumerate().map(|(rank, token)| (token.as_slice(), rank)).collect();
    let mut merges = Vec::with_capacity(ranks.len());
    for token in ranks {
        let mut splits: Vec<_> = (1..token.len())
            .map(|at| token.split_at(at))
            .filter_map(|(a, b)| Some((*rank_of.get(a)?, *rank_of.get(b)?, a, b)))
            .collect();
        splits.sort_unstable();
        merges.extend(splits.into_iter().map(|(.., a, b)| (a, b)));
    }
    merges
}

/// Cuts at each expression in turn, then writes bytes in GPT-2's alphabet.
pub(super) fn byte_level_words(expressions: &[&str]) -> Result<Sequence, String> {
    let mut steps = Vec::new();
    for &expression in expressions {
        let pattern = SplitPattern::Regex(expression.into());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        steps.push(split.map_err(|e| e.to_string())?.into());
    }
    steps.push(ByteLevel::new(false, false, false).into());
    Ok(Sequence::new(steps))
}
