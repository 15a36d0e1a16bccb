//! The bytes that each token writes.

use super::Pipeline;
use serde_json::Value;
use std::collections::HashMap;

/// Ids without a token that any vocabulary may have.
const MOST_GAPS: usize = 1 << 20;

/// How a vocabulary writes bytes that aren't plain text.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Alphabet {
    /// GPT-2: each byte is a printable character.
    ByteLevel,
    /// SentencePiece: `▁` is a space, `<0x0A>` a byte; a text begins with a space that isn't there.
    SentencePiece { leading_space: bool },
    /// BERT: `##` goes on with a word. Good for nothing but reading.
    WordPiece,
}

/// A table from token id to bytes.
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    /// Token `i` is `bytes[ends[i - 1]..ends[i]]`.
    ends: Vec<u32>,
    special: Vec<bool>,
    /// The first token of a text writes one space too many.
    pub strips_leading_space: bool,
}

impl TokenBytes {
    /// # Errors
    /// A decoder of a kind that isn't known here.
    pub fn new(pipeline: &Pipeline) -> Result<Self, String> {
        let alphabet = alphabet(pipeline)?;
        let added = pipeline.get_added_tokens_decoder();
        let count = table_size(&pipeline.get_vocab(true))?;
        let mut table = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(count),
            special: vec![false; count],
            strips_leading_space: alphabet == Alphabet::SentencePiece { leading_space: true },
        };
        let from_char = byte_of_char();
        for id in 0..count as u32 {
            match added.get(&id) {
                Some(token) => {
                    table.special[id as usize] = token.special;
                    table.bytes.extend_from_slice(token.content.as_bytes());
                }
                None => {
                    let text = pipeline.id_to_token(id).unwrap_or_default();
                    table.bytes.extend(written(&text, alphabet, &from_char));
                }
            }
            table.ends.push(table.bytes.len() as u32);
        }
        Ok(table)
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Empty for ids outside the vocabulary.
    pub fn of(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}

/// The largest id + 1. A table of that size is made, so an id far beyond all others is refused.
fn table_size(vocab: &HashMap<String, u32>) -> Result<usize, String> {
    let Some((token, &id)) = vocab.iter().max_by_key(|&(_, &id)| id) else { return Ok(0) };
    let (tokens, size) = (vocab.len(), id as usize + 1);
    if size > 2 * tokens + MOST_GAPS {
        return Err(format!("token {token:?} has the id {id} in a vocabulary of {tokens} tokens"));
    }
    Ok(size)
}

fn written(token: &str, alphabet: Alphabet, byte_of: &[Option<u8>; 512]) -> Vec<u8> {
    let byte = |c: char| byte_of.get(c as usize).copied().flatten();
    match alphabet {
        Alphabet::ByteLevel => {
            let bytes: Option<Vec<u8>> = token.chars().map(byte).collect();
            bytes.unwrap_or_else(|| token.as_bytes().to_vec())
        }
        Alphabet::SentencePiece { .. } => match byte_token(token) {
            Some(byte) => vec![byte],
            None => token.replace('▁', " ").into_bytes(),
        },
        Alphabet::WordPiece => match token.strip_prefix("##") {
            Some(rest) => rest.as_bytes().to_vec(),
            None => format!(" {token}").into_bytes(),
        },
    }
}

/// `<0x0A>` is the byte 10.
fn byte_token(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let digits = hex.len() == 2 && hex.bytes().all(|c| c.is_ascii_hexdigit());
    if digits { u8::from_str_radix(hex, 16).ok() } else { None }
}

/// GPT-2's byte alphabet: printable Latin-1 characters stand for themselves, the other 68 bytes
/// for the characters from U+0100 on, in order.
pub(super) fn char_of_byte() -> [char; 256] {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = (0x100u32..).filter_map(char::from_u32);
    std::array::from_fn(|i| {
        let byte = i as u8;
        if printable(byte) { byte as char } else { others.next().unwrap_or_default() }
    })
}

fn byte_of_char() -> [Option<u8>; 512] {
    let mut table = [None; 512];
    for (byte, character) in (0..=255u8).zip(char_of_byte()) {
        table[character as usize] = Some(byte);
    }
    table
}

fn alphabet(pipeline: &Pipeline) -> Result<Alphabet, String> {
    let decoder = serde_json::to_value(pipeline.get_decoder()).map_err(|e| e.to_string())?;
    let steps: Vec<&Value> = match &decoder["decoders"] {
        Value::Array(steps) => steps.iter().collect(),
        _ => vec![&decoder],
    };
    let has = |name: &str| steps.iter().any(|step| step["type"] == name);
    let metaspace = steps.iter().find(|step| step["type"] == "Metaspace");
    if has("ByteLevel") {
        Ok(Alphabet::ByteLevel)
    } else if let Some(step) = metaspace {
        Ok(Alphabet::SentencePiece { leading_space: step["prepend_scheme"] != "never" })
    } else if has("ByteFallback") {
        Ok(Alphabet::SentencePiece { leading_space: has("Strip") })
    } else if has("WordPiece") {
        Ok(Alphabet::WordPiece)
    } else {
        Err(format!(
            "decoder {decoder}: only ByteLevel, Metaspace, ByteFallback and WordPiece are known"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_alphabet_is_a_bijection_with_the_known_landmarks() {
        let chars = char_of_byte();
        assert_eq!(chars[b' ' as usize], 'Ġ');
        assert_eq!(chars[b'\n' as usize], 'Ċ');
        assert_eq!(chars[0], 'Ā');
        assert_eq!(chars[0xAD], '\u{143}');
        let back = byte_of_char();
        for byte in 0..=255u8 {
            assert_eq!(back[chars[byte as usize] as usize], Some(byte));
        }
    }

    #[test]
    fn byte_tokens_are_two_hexadecimal_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xfff>"), None);
        assert_eq!(byte_token("<0x+A>"), None);
    }
}
