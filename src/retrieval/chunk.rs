//! Cutting a text into chunks of so many tokens.

use super::sentences::sentence_ends;
use std::fmt;
use std::ops::Range;

/// Where chunks may be cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CutAt {
    /// After every token.
    #[default]
    Tokens,
    /// Where a sentence ends; one that is too long for a chunk is cut by tokens.
    Sentences,
}

/// How a text is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutting {
    /// Tokens of a chunk; with [`CutAt::Sentences`] at most so many.
    pub size: usize,
    /// Tokens that a chunk has in common with the one before it; less than `size`. With
    /// [`CutAt::Sentences`] at most so many: the whole sentences among them.
    pub overlap: usize,
    pub at: CutAt,
}

impl Cutting {
    /// Chunks of `size` tokens without overlap, as published.
    pub fn tokens(size: usize) -> Self {
        Self { size, overlap: 0, at: CutAt::Tokens }
    }

    /// Cuts `text`, made of `tokens` as for [`chunks`].
    pub fn cut(self, text: &str, tokens: &[(u32, Range<usize>)]) -> Vec<Chunk> {
        match (self.at, self.overlap) {
            (CutAt::Tokens, 0) => chunks(text, tokens, self.size),
            (CutAt::Tokens, _) => self.along(text, tokens, &[]),
            (CutAt::Sentences, _) => {
                let ends = sentence_ends(text);
                let token_after = |end: &usize| tokens.partition_point(|(_, at)| at.start < *end);
                self.along(text, tokens, &ends.iter().map(token_after).collect::<Vec<_>>())
            }
        }
    }

    /// Chunk after chunk, each from where the one before it says; `borders` are numbers of tokens,
    /// ascending, before which a cut is best.
    fn along(self, text: &str, tokens: &[(u32, Range<usize>)], borders: &[usize]) -> Vec<Chunk> {
        let total_tokens = tokens.len();
        let byte = |token: usize| match tokens.get(token) {
            _ if token == 0 => 0,
            Some((_, at)) => char_start(text, at.start),
            None => text.len(),
        };
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut start = 0;
        loop {
            let end = self.end(start, total_tokens, borders);
            let bytes = byte(start)..byte(end);
            if !bytes.is_empty() {
                chunks.push(Chunk { bytes, tokens: start..end, total_tokens });
            }
            if end >= total_tokens {
                return chunks;
            }
            let shared = self.shared_start(start, end, borders);
            // A chunk that only repeats would add nothing.
            start = if self.end(shared, total_tokens, borders) > end { shared } else { end };
        }
    }

    /// Where a chunk ends that begins at token `start`.
    fn end(self, start: usize, total: usize, borders: &[usize]) -> usize {
        let most = (start + self.size.max(1)).min(total);
        let fits = borders.partition_point(|&border| border <= most);
        match borders[..fits].last() {
            Some(&border) if border > start => border,
            _ => most,
        }
    }

    /// Where a chunk begins that shares tokens with `start..end`: after `start`, so that chunks come
    /// to an end.
    fn shared_start(self, start: usize, end: usize, borders: &[usize]) -> usize {
        let earliest = end.saturating_sub(self.overlap).max(start + 1);
        let begins = borders.partition_point(|&border| border < earliest);
        let border = borders.get(begins).copied().filter(|&border| border <= end);
        match self.at {
            CutAt::Tokens => earliest,
            CutAt::Sentences => border.unwrap_or(end),
        }
    }
}

/// For people and for records of settings; `128 tokens` for the published way.
impl fmt::Display for Cutting {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { size, overlap, at } = self;
        match at {
            CutAt::Tokens => write!(f, "{size} tokens")?,
            CutAt::Sentences => write!(f, "sentences of up to {size} tokens")?,
        }
        match overlap {
            0 => Ok(()),
            overlap => write!(f, ", {overlap} of them shared"),
        }
    }
}

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

    fn words(text: &str) -> Vec<(u32, Range<usize>)> {
        let starts = text.split_inclusive(' ').scan(0, |start, word| {
            *start += word.len();
            Some((0, *start - word.len()..*start))
        });
        starts.collect()
    }

    fn cut(text: &str, size: usize, overlap: usize, at: CutAt) -> Vec<&str> {
        texts(text, &Cutting { size, overlap, at }.cut(text, &words(text)))
    }

    #[test]
    fn chunks_overlap_by_so_many_tokens() {
        let text = "a b c d e f g";
        assert_eq!(cut(text, 3, 1, CutAt::Tokens), ["a b c ", "c d e ", "e f g"]);
        assert_eq!(cut(text, 4, 2, CutAt::Tokens), ["a b c d ", "c d e f ", "e f g"]);
        assert_eq!(cut(text, 9, 2, CutAt::Tokens), [text]);
        let chunks = Cutting { size: 3, overlap: 1, at: CutAt::Tokens }.cut(text, &words(text));
        assert_eq!((chunks[1].tokens.clone(), chunks[1].total_tokens), (2..5, 7));
    }

    #[test]
    fn chunks_end_with_sentences_unless_one_is_too_long() {
        let text = "It rained. We sat down. Nobody spoke all day long and nobody moved. Then sun.";
        assert_eq!(
            cut(text, 5, 0, CutAt::Sentences),
            [
                "It rained. We sat down. ",
                "Nobody spoke all day long ",
                "and nobody moved. Then sun."
            ]
        );
        // The whole sentences of the last two tokens, if there are any, are repeated.
        let short = "One two. Three. Four five six. Seven.";
        assert_eq!(
            cut(short, 3, 1, CutAt::Sentences),
            ["One two. Three. ", "Four five six. ", "Seven."]
        );
        assert_eq!(
            cut(short, 4, 2, CutAt::Sentences),
            ["One two. Three. ", "Three. Four five six. ", "Seven."]
        );
    }

    #[test]
    fn cuttings_have_names() {
        assert_eq!(Cutting::tokens(128).to_string(), "128 tokens");
        let other = Cutting { size: 128, overlap: 32, at: CutAt::Sentences };
        assert_eq!(other.to_string(), "sentences of up to 128 tokens, 32 of them shared");
    }

    proptest! {
        #[test]
        fn every_cutting_covers_the_text_in_order(
            text in "([a-c]{1,3}[ .]|\\. |汉。|\\PC){0,40}",
            size in 1usize..9,
            overlap in 0usize..8,
            by_sentence: bool,
        ) {
            let at = if by_sentence { CutAt::Sentences } else { CutAt::Tokens };
            let overlap = overlap.min(size - 1);
            let cutting = Cutting { size, overlap, at };
            let chunks = cutting.cut(&text, &words(&text));
            let mut done = 0;
            for chunk in &chunks {
                prop_assert!(chunk.bytes.start <= done && chunk.bytes.end > done, "{chunks:?}");
                prop_assert!(chunk.tokens.len() <= size);
                done = chunk.bytes.end;
            }
            prop_assert_eq!(done, text.len());
            for pair in chunks.windows(2) {
                prop_assert!(pair[0].tokens.end - pair[1].tokens.start <= overlap);
                prop_assert!(pair[1].tokens.start > pair[0].tokens.start);
            }
        }

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
