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
        let byte = char_start(text, byte);
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

/// The start of the character that `byte` is in, or the end of the text.
fn char_start(text: &str, byte: usize) -> usize {
    let byte = byte.min(text.len());
    (0..=byte).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans(ranges: &[Range<usize>]) -> Vec<(u32, Range<usize>)> {
        ranges.iter().cloned().map(|range| (0, range)).collect()
    }

    fn texts<'a>(text: &'a str, chunks: &[Chunk]) -> Vec<&'a str> {
        chunks.iter().map(|chunk| &text[chunk.bytes.clone()]).collect()
    }

    #[test]
    fn chunks_hold_so_many_tokens() {
        let text = "ab cd ef gh ij";
        let tokens = spans(&[0..2, 2..5, 5..8, 8..11, 11..14]);
        let chunks = chunks(text, &tokens, 2);
        assert_eq!(texts(text, &chunks), ["ab cd", " ef gh", " ij"]);
        assert_eq!(chunks[2].tokens, 4..5);
        assert!(chunks.iter().all(|chunk| chunk.total_tokens == 5));
        assert_eq!(labels(&chunks), ["0% - 40%", "40% - 80%", "80% - 100%"]);
    }

    #[test]
    fn a_cut_inside_a_character_moves_to_its_start() {
        let text = "a汉字";
        // Tokens of single bytes, and tokens that all claim the character they are part of.
        for tokens in [
            spans(&[0..1, 1..2, 2..3, 3..4, 4..5, 5..7]),
            spans(&[0..1, 1..4, 1..4, 1..4, 4..7, 4..7]),
        ] {
            assert_eq!(texts(text, &chunks(text, &tokens, 1)), ["a", "汉", "字"]);
            assert_eq!(texts(text, &chunks(text, &tokens, 3)), ["a", "汉字"]);
        }
    }

    #[test]
    fn text_outside_all_tokens_belongs_to_a_chunk() {
        let text = "  ab cd  ";
        assert_eq!(texts(text, &chunks(text, &spans(&[2..4, 5..7]), 1)), ["  ab ", "cd  "]);
        let whole = chunks(text, &[], 4);
        assert_eq!(texts(text, &whole), [text]);
        assert_eq!(labels(&whole), ["0% - 100%"]);
        assert!(chunks("", &[], 4).is_empty());
    }

    #[test]
    fn labels_round_half_to_even_as_the_public_code_does() {
        let chunk = |tokens| Chunk { bytes: 0..1, tokens, total_tokens: 200 };
        assert_eq!(
            labels(&[chunk(0..1), chunk(1..3), chunk(3..200)]),
            ["0% - 0%", "0% - 2%", "2% - 100%"]
        );
    }

    #[test]
    fn labels_that_would_coincide_get_decimals() {
        let text = "x".repeat(1000);
        let tokens: Vec<_> = (0..1000).map(|i| (0, i..i + 1)).collect();
        let labels = labels(&chunks(&text, &tokens, 1));
        assert_eq!(labels[0], "0.0% - 0.1%");
        assert_eq!(labels[999], "99.9% - 100.0%");
        assert!(all_differ(&labels));
    }

    proptest! {
        #[test]
        fn chunks_concatenated_are_the_text(
            text in "\\PC{0,40}",
            starts in prop::collection::vec(0usize..60, 0..40),
            size in 0usize..6,
        ) {
            let tokens: Vec<_> = starts.iter().map(|&start| (0, start..start + 1)).collect();
            let chunks = chunks(&text, &tokens, size);
            prop_assert_eq!(texts(&text, &chunks).concat(), text.clone());
            prop_assert!(chunks.windows(2).all(|pair| pair[0].tokens.end == pair[1].tokens.start));
            prop_assert!(chunks.last().is_none_or(|last| last.tokens.end == tokens.len()));
        }
    }
}
