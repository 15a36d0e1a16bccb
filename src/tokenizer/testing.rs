//! Small vocabularies for tests, written to disk in each of the forms that checkpoints use.

use super::token_bytes::char_of_byte;
use super::{ChatTemplate, Tokenizer, TokenizerError};
use candle_core::quantized::gguf_file::{self, Value};
use models::source::Source;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use tempfile::TempDir;

/// Words that the byte-level vocabularies know as one token each; two are beginnings of emoji.
/// Those with a space come first, so that the space merges before the rest does.
pub const WORDS: [&[u8]; 10] = [
    b" hello",
    b" \xF0\x9F\x98",
    b" world",
    b"hello",
    b"user",
    b"[[",
    b"]]",
    "你好".as_bytes(),
    "。".as_bytes(),
    b"\xF0\x9F",
];

/// All bytes, then the beginnings of each word and the word itself, as ranked tokens.
pub fn ranked_tokens() -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    for word in WORDS {
        for length in 2..=word.len() {
            if !tokens.iter().any(|token| token == &word[..length]) {
                tokens.push(word[..length].to_vec());
            }
        }
    }
    tokens
}

fn written(token: &[u8]) -> String {
    let chars = char_of_byte();
    token.iter().map(|&byte| chars[byte as usize]).collect()
}

fn texts(list: impl IntoIterator<Item = impl Into<String>>) -> Value {
    Value::Array(list.into_iter().map(|text| Value::String(text.into())).collect())
}

fn write_gguf(path: &Path, metadata: &[(&str, Value)]) {
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (*k, v)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, &[]).unwrap();
}

/// Metadata of a byte-level GGUF vocabulary; `specials` follow the ordinary tokens.
pub fn byte_level_metadata(pre: &str, specials: &[&str]) -> Vec<(&'static str, Value)> {
    let tokens = ranked_tokens();
    let merges = tokens[256..].iter().map(|token| {
        let (head, last) = token.split_at(token.len() - 1);
        format!("{} {}", written(head), written(last))
    });
    let kinds = tokens.iter().map(|_| 1).chain(specials.iter().map(|_| 3));
    let all = tokens.iter().map(|t| written(t)).chain(specials.iter().map(|s| s.to_string()));
    vec![
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String(pre.into())),
        ("tokenizer.ggml.tokens", texts(all)),
        ("tokenizer.ggml.token_type", Value::Array(kinds.map(Value::I32).collect())),
        ("tokenizer.ggml.merges", texts(merges)),
    ]
}

/// Metadata of a SentencePiece vocabulary.
pub fn sentence_piece_metadata() -> Vec<(&'static str, Value)> {
    let mut tokens: Vec<(String, i32)> = ["<unk>", "<s>", "</s>"]
        .map(|text| (text.to_owned(), if text == "<unk>" { 2 } else { 3 }))
        .into();
    tokens.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    let words = ["▁hello", "▁world", "hello", "你好", "▁▁", "s>", "<s"];
    let pieces: BTreeSet<String> = words
        .iter()
        .flat_map(|word| {
            word.char_indices().map(move |(at, c)| word[..at + c.len_utf8()].to_owned())
        })
        .chain("▁abcdefghijklmnopqrstuvwxyz<>".chars().map(String::from))
        .collect();
    tokens.extend(pieces.into_iter().map(|piece| (piece, 1)));
    let scores = (0..tokens.len()).map(|i| Value::F32(-(i as f32))).collect();
    vec![
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.tokens", texts(tokens.iter().map(|(text, _)| text))),
        (
            "tokenizer.ggml.token_type",
            Value::Array(tokens.iter().map(|t| Value::I32(t.1)).collect()),
        ),
        ("tokenizer.ggml.scores", Value::Array(scores)),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
    ]
}

/// Loads a GGUF file with this metadata.
pub fn load_gguf(metadata: &[(&str, Value)]) -> Result<(Tokenizer, ChatTemplate), TokenizerError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    write_gguf(&path, metadata);
    let source = Source::Gguf(path);
    let tokenizer = Tokenizer::load(&source)?;
    let template = ChatTemplate::load(&source, &tokenizer)?;
    Ok((tokenizer, template))
}

/// A tiktoken file of [`ranked_tokens`].
pub fn tiktoken_file() -> String {
    let lines = ranked_tokens().into_iter().enumerate();
    lines.map(|(rank, token)| format!("{} {rank}\n", base64(&token))).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | group.get(i).map_or(0, |&b| b.into()));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63] as char;
            text.push(if i <= group.len() { digit } else { '=' });
        }
    }
    text
}

/// Loads a folder with these files.
pub fn load_folder(files: &[(&str, &str)]) -> Result<(Tokenizer, ChatTemplate), TokenizerError> {
    let folder = TempDir::new().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let source = Source::Folder(folder.path().to_owned());
    let tokenizer = Tokenizer::load(&source)?;
    let template = ChatTemplate::load(&source, &tokenizer)?;
    Ok((tokenizer, template))
}

pub const CHATML: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
pub const LLAMA: [&str; 5] = [
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|end_of_text|>",
];

/// Turns as DeepSeek-R1's distilled models have them: added tokens that aren't special.
pub const TURNS: [&str; 4] = ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"];

/// A byte-level `tokenizer.json` with [`TURNS`] and a run of spaces as added tokens, and a template
/// that writes them.
fn load_added() -> Result<(Tokenizer, ChatTemplate), TokenizerError> {
    let tokens = ranked_tokens();
    let vocab: serde_json::Map<String, Json> =
        tokens.iter().enumerate().map(|(id, token)| (written(token), json!(id))).collect();
    let merges: Vec<[String; 2]> = tokens[256..]
        .iter()
        .map(|token| token.split_at(token.len() - 1))
        .map(|(head, last)| [written(head), written(last)])
        .collect();
    let added: Vec<Json> = TURNS
        .iter()
        .chain(&["    "])
        .zip(tokens.len()..)
        .map(|(text, id)| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": false})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                            "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "added_tokens": added, "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    let template = "{% for m in messages %}<｜User｜>{{ m.content }}{% endfor %}<｜Assistant｜>";
    let config = json!({"chat_template": template});
    load_folder(&[
        ("tokenizer.json", &tokenizer.to_string()),
        ("tokenizer_config.json", &config.to_string()),
    ])
}

/// One tokenizer of each form.
pub fn all() -> Vec<(&'static str, Tokenizer, ChatTemplate)> {
    let tiktoken = tiktoken_file();
    let loaded = [
        ("smollm", load_gguf(&byte_level_metadata("smollm", &CHATML))),
        ("llama-bpe", load_gguf(&byte_level_metadata("llama-bpe", &LLAMA))),
        ("default", load_gguf(&byte_level_metadata("default", &CHATML))),
        ("sentencepiece", load_gguf(&sentence_piece_metadata())),
        ("tiktoken", load_folder(&[("tokenizer.model", &tiktoken)])),
        ("added", load_added()),
    ];
    loaded.into_iter().map(|(name, loaded)| loaded.map(|(t, c)| (name, t, c)).unwrap()).collect()
}
