//! Cutting a text into chunks of so many tokens.

use std::ops::Range;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it stands in the text; on character boundaries.
    pub bytes: Range<usize>,
    /// Which of the text's tokens it is made of.
    pub tokens: Range<usize>,
    /// Tokens of the whole text.
    pub total_tokens: usize,
}

impl Chunk {
    fn label(&self, decimals: usize) -> String {
        let percent = |token: usize| {
            let exact = token as f64 / self.total_tokens as f64 * 100.0;
            let step = 10f64.powi(decimals as i32);
            (exact * step).round_ties_even() / step
        };
        let (start, end) = match self.total_tokens {
            0 => (0.0, 100.0),
            _ => (percent(self.tokens.start), percent(self.tokens.end)),
        };
        format!("{start:.decimals$}% - {end:.decimals$}%")
    }
}

/// Cuts `text` into chunks of `size` tokens (the last may be shorter) without overlap. `tokens` are
/// the text's tokens, each with the bytes it stands for, in order. Together the chunks are the text,
/// whatever the offsets say; a cut inside a character moves to its start. An empty text has no
/// chunks. A `size` of 0 is taken as 1.
pub fn chunks(text: &str, tokens: &[(u32, Range<usize>)], size: usize) -> Vec<Chunk> {
    let starts = (0..tokens.len()).step_by(size.max(1)).map(|token| (token, tokens[token].1.start));
    let mut cuts = vec![(0, 0)];
    for (token, byte) in starts.skip(1) {
        let byte = text.floor_char_boundary(byte);
        if cuts.last().is_none_or(|&(_, last)| byte > last) && byte < text.len() {
            cuts.push((token, byte));
        }
    }
    let ends = cuts.iter().skip(1).copied().chain([(tokens.len(), text.len())]);
    cuts.iter()
        .zip(ends)
        .map(|(start, end)| Chunk {
            bytes: start.1..end.1,
            tokens: start.0..end.0,
            total_tokens: tokens.len(),
        })
        .filter(|chunk| !chunk.bytes.is_empty())
        .collect()
}

/// The place of each chunk in its document, `0% - 12%`: whole percent (half to even), with as many
/// decimals as it takes to tell all chunks apart.
pub fn labels(chunks: &[Chunk]) -> Vec<String> {
    const MAX_DECIMALS: usize = 12;
    let mut labels = Vec::new();
    for decimals in 0..=MAX_DECIMALS {
        labels = chunks.iter().map(|chunk| chunk.label(decimals)).collect();
        if all_differ(&labels) {
            break;
        }
    }
    labels
}

fn all_differ(labels: &[String]) -> bool {
    let distinct: std::collections::HashSet<&String> = labels.iter().collect();
    distinct.len() == labels.len()
}
