//! Data that the page's script reads.
//!
//! Small things that every view needs (scores, questions) are one JSON block. Answers are a second
//! one, parsed after the first paint, since only search and single views need them. All else, which
//! is most of it, is a block for each prompt, compressed and read when it is asked for: a browser
//! then holds a page of ten thousand candidates with ease.

use super::candidate::{Degree, Verdicts};
use super::load::{Extract, Input, Passage, Prompt};
use super::pairs::{Pair, best_and_worst};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use rayon::prelude::*;
use serde::Serialize;
use std::io::Write;

/// What the tables show and filter by; candidates are columns of equal length.
#[derive(Debug, Serialize)]
pub struct Index<'a> {
    prompts: Vec<PromptRow<'a>>,
    candidates: Columns,
    /// Whether the pairs come from a file, or are each prompt's best and worst.
    pairs_from_file: bool,
    /// Positions of winner and loser among the candidates.
    pairs: Vec<[usize; 2]>,
}

#[derive(Debug, Serialize)]
struct PromptRow<'a> {
    /// As text, since numbers of the page's script are exact up to 2^53 only.
    idx: String,
    query: &'a str,
    /// Characters of the document.
    chars: usize,
    /// Position of its first candidate.
    first: usize,
    count: usize,
}

#[derive(Debug, Default, Serialize)]
struct Columns {
    prompt: Vec<usize>,
    /// As text, like `idx`.
    k: Vec<String>,
    /// Helpfulness, logicality, faithfulness, completeness, total.
    scores: [Vec<Option<f64>>; 5],
    forced: Vec<u8>,
    /// Of those that were stopped early, between what the total would have been.
    stopped: Vec<Option<[f64; 2]>>,
    cut: Vec<u8>,
    replies: Vec<u32>,
    chars: Vec<usize>,
    /// Statements that are fully, partially, not supported.
    support: [Vec<usize>; 3],
}

/// What single views show of a prompt.
#[derive(Debug, Serialize)]
struct Block<'a> {
    passages: &'a [Passage],
    extracts: &'a [Vec<Extract>],
    candidates: Vec<&'a Verdicts>,
}

/// The first block.
pub fn index(input: &Input) -> Index<'_> {
    let mut columns = Columns::default();
    let mut prompts = Vec::new();
    for (position, prompt) in input.prompts.iter().enumerate() {
        let Prompt { idx, query, chars, candidates, .. } = prompt;
        let (first, count) = (columns.k.len(), candidates.len());
        prompts.push(PromptRow { idx: idx.to_string(), query, chars: *chars, first, count });
        for candidate in candidates {
            columns.prompt.push(position);
            columns.k.push(candidate.id.k.to_string());
            columns.forced.push(candidate.forced.into());
            columns.cut.push(candidate.cut.into());
            let stopped = candidate.stopped.as_ref();
            columns.stopped.push(stopped.map(|s| [s.total_at_least, s.total_at_most]));
            columns.replies.push(candidate.verdicts.replies().round() as u32);
            columns.chars.push(candidate.chars());
            for (column, score) in columns.scores.iter_mut().zip(candidate.scores) {
                column.push(score);
            }
            for (column, degree) in columns.support.iter_mut().zip(Degree::ALL) {
                column.push(candidate.supported(degree));
            }
        }
    }
    let pairs = input.pairs.clone().unwrap_or_else(|| best_and_worst(&input.prompts));
    let pairs = pairs.iter().map(|pair: &Pair| {
        let first = prompts[pair.prompt].first;
        [first + pair.win, first + pair.lose]
    });
    let (pairs, pairs_from_file) = (pairs.collect(), input.pairs.is_some());
    Index { prompts, candidates: columns, pairs_from_file, pairs }
}

/// The answers, in the order of the candidates.
pub fn answers(input: &Input) -> Vec<&str> {
    input.candidates().map(|candidate| candidate.answer.as_str()).collect()
}

/// The block of each prompt: JSON, deflated (zlib), in base 64.
///
/// # Errors
/// None that these types can cause.
pub fn blocks(prompts: &[Prompt]) -> Result<Vec<String>, serde_json::Error> {
    prompts.par_iter().map(|prompt| Ok(base64(&deflate(&block(prompt)?)?))).collect()
}

fn block(prompt: &Prompt) -> Result<Vec<u8>, serde_json::Error> {
    let Prompt { passages, extracts, candidates, .. } = prompt;
    let candidates = candidates.iter().map(|candidate| &candidate.verdicts).collect();
    serde_json::to_vec(&Block { passages, extracts, candidates })
}

fn deflate(bytes: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.map_err(serde_json::Error::io)
}

/// JSON that can stand in a `script` element: nothing in it can end the element or open a comment,
/// and no older script engine takes a character of it for a line break.
///
/// # Errors
/// None that the types of this module can cause.
pub fn script_json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(value)?;
    // Outside of strings JSON has none of these characters.
    Ok(json
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029"))
}

/// Base 64 with padding (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for letter in 0..4 {
            let six = (bits >> (18 - 6 * letter)) & 63;
            text.push(if letter <= group.len() { LETTERS[six as usize].into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_standard() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let coded = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        assert_eq!(texts.map(|text| base64(text.as_bytes())), coded);
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn json_cannot_leave_its_element() {
        let texts = ["</script><script>", "<!--", "]]>", "a\u{2028}b\u{2029}c", "\"\\\u{7}"];
        let json = script_json(&texts).unwrap();
        assert!(!json.contains(['<', '>', '\u{2028}', '\u{2029}', '\u{7}']), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), texts);
    }

    #[test]
    fn what_is_packed_can_be_unpacked() {
        let bytes = b"the same words, the same words, the same words".repeat(20);
        let packed = deflate(&bytes).unwrap();
        assert!(packed.len() < bytes.len() / 4);
        let mut unpacked = Vec::new();
        let mut decoder = flate2::read::ZlibDecoder::new(packed.as_slice());
        std::io::Read::read_to_end(&mut decoder, &mut unpacked).unwrap();
        assert_eq!(unpacked, bytes);
    }
}
