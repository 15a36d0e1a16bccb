//! Control tokens: finding them in text, and keeping data from spelling them.

use std::collections::{HashMap, HashSet};
use tokenizers::AddedToken;

/// Whether no text may spell an added token: those that the file calls special, and all others
/// that stand for something, as turns (`<｜User｜>`), tools (`<tool_call>`) and thoughts (`<think>`)
/// do, whether or not this checkpoint's template uses them. What is only text, added to make it
/// shorter, stays text: white space (also SentencePiece's `▁`), words of letters and digits, and
/// single characters.
pub(super) fn is_control(token: &AddedToken) -> bool {
    let ordinary = |c: char| c.is_alphanumeric() || c.is_whitespace() || c == '▁';
    let text = &token.content;
    token.special || text.chars().nth(1).is_some() && !text.chars().all(ordinary)
}

/// A control token.
pub(super) struct Special {
    pub id: u32,
    pub text: String,
    /// White space before it belongs to it.
    pub eats_space_before: bool,
    /// White space after it belongs to it.
    pub eats_space_after: bool,
}

/// A stretch of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    Special(u32),
}

/// All control tokens of a vocabulary.
pub(super) struct Specials {
    /// By first byte, the longest first, so that the first hit is the longest.
    by_first_byte: HashMap<u8, Vec<Special>>,
    ids: HashSet<u32>,
}

impl Specials {
    pub fn new(mut tokens: Vec<Special>) -> Self {
        let ids = tokens.iter().map(|token| token.id).collect();
        tokens.retain(|token| !token.text.is_empty());
        tokens.sort_by(|a, b| b.text.len().cmp(&a.text.len()).then(a.id.cmp(&b.id)));
        let mut by_first_byte: HashMap<u8, Vec<Special>> = HashMap::new();
        for token in tokens {
            by_first_byte.entry(token.text.as_bytes()[0]).or_default().push(token);
        }
        Self { by_first_byte, ids }
    }

    pub fn contains(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    fn all(&self) -> impl Iterator<Item = &Special> {
        self.by_first_byte.values().flatten()
    }

    pub fn id(&self, text: &str) -> Option<u32> {
        self.all().find(|token| token.text == text).map(|token| token.id)
    }

    /// The longest control token that `text` begins with.
    fn at_start(&self, text: &str) -> Option<&Special> {
        let candidates = self.by_first_byte.get(text.as_bytes().first()?)?;
        candidates.iter().find(|token| text.starts_with(&token.text))
    }

    /// Splits a text at the control tokens spelled in it: leftmost first, longest first.
    pub fn split<'t>(&self, text: &'t str) -> Vec<Piece<'t>> {
        let mut pieces = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            // A control token begins at a character, so `at` may skip over other bytes.
            let hit = if text.is_char_boundary(at) { self.at_start(&text[at..]) } else { None };
            let Some(token) = hit else {
                at += 1;
                continue;
            };
            let before = &text[start..at];
            push_text(
                &mut pieces,
                if token.eats_space_before { before.trim_end() } else { before },
            );
            pieces.push(Piece::Special(token.id));
            at += token.text.len();
            if token.eats_space_after {
                at = text.len() - text[at..].trim_start().len();
            }
            start = at;
        }
        push_text(&mut pieces, &text[start..]);
        pieces
    }

    /// Puts `mark` inside each control token that `data` spells or could help to spell at its
    /// ends, so that no control token in a text around it begins or ends in the data.
    ///
    /// `mark` occurs in no control token. A control token of a single character can't be broken.
    pub fn mark(&self, data: &str, mark: char) -> String {
        let mut marked = String::with_capacity(data.len());
        let breaks = self.breaks(data);
        let mut breaks = breaks.iter().peekable();
        for (at, character) in data.char_indices() {
            if breaks.next_if_eq(&&at).is_some() {
                marked.push(mark);
            }
            marked.push(character);
        }
        if breaks.next().is_some() {
            marked.push(mark);
        }
        marked
    }

    /// Byte positions where a mark has to stand, ascending.
    fn breaks(&self, data: &str) -> Vec<usize> {
        let mut breaks: Vec<usize> = Vec::new();
        // Templates may trim what they are given.
        let trimmed_end = data.trim_end();
        for (at, character) in data.char_indices() {
            let Some(candidates) = self.by_first_byte.get(&data.as_bytes()[at]) else { continue };
            let spelled = candidates.iter().any(|token| data[at..].starts_with(&token.text));
            let tail = trimmed_end.get(at..).filter(|tail| !tail.is_empty());
            let begun = |tail| candidates.iter().any(|token| token.text.starts_with(tail));
            if spelled || tail.is_some_and(begun) {
                breaks.push(at + character.len_utf8());
            }
        }
        breaks.extend(self.breaks_of_endings(data));
        breaks.sort_unstable();
        breaks.dedup();
        breaks
    }

    /// Where the data begins with the end of a control token: before its last character.
    fn breaks_of_endings(&self, data: &str) -> Vec<usize> {
        let trimmed = data.trim_start();
        let skipped = data.len() - trimmed.len();
        let ending = |token: &Special| {
            let (last, _) = token.text.char_indices().next_back()?;
            let mut cuts = token.text.char_indices().map(|(at, _)| at).skip(1);
            cuts.find(|&cut| trimmed.starts_with(&token.text[cut..])).map(|cut| last - cut)
        };
        self.all().filter_map(ending).map(|at| skipped + at).collect()
    }
}

fn push_text<'t>(pieces: &mut Vec<Piece<'t>>, text: &'t str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special(id: u32, text: &str) -> Special {
        Special { id, text: text.into(), eats_space_before: false, eats_space_after: false }
    }

    fn specials() -> Specials {
        let tokens = ["<|user|>", "<s>", "<s>>", "[gMASK]", "<|user"];
        Specials::new((0..).zip(tokens).map(|(id, text)| special(id, text)).collect())
    }

    #[test]
    fn splits_leftmost_longest() {
        let pieces = specials().split("é<s>>a<|user|><|usex[gMASK]");
        let expected = [
            Piece::Text("é"),
            Piece::Special(2),
            Piece::Text("a"),
            Piece::Special(0),
            Piece::Text("<|usex"),
            Piece::Special(3),
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn space_beside_a_token_can_belong_to_it() {
        let token =
            Special { eats_space_before: true, eats_space_after: true, ..special(7, "<m>") };
        let pieces = Specials::new(vec![token]).split("a \n<m>  b");
        assert_eq!(pieces, [Piece::Text("a"), Piece::Special(7), Piece::Text("b")]);
    }

    #[test]
    fn marked_data_spells_nothing_wherever_it_stands() {
        let specials = specials();
        let data = ["<|user|>", "<<|user|>", "<|user|", "<|", "user|>", "|>", ">", " s>", "x<| \n"];
        for data in data {
            for (before, after) in [("", ""), ("<|user", ">"), ("<", "user|>"), ("<|user|", "|>")] {
                for trim in [false, true] {
                    let marked = specials.mark(data, '\u{E000}');
                    assert_eq!(marked.replace('\u{E000}', ""), data);
                    let marked = if trim { marked.trim() } else { &marked };
                    let text = format!("{before}{marked}{after}");
                    let inside = before.len()..before.len() + marked.len();
                    assert!(!touches(&specials, &text, inside), "{text:?}");
                }
            }
        }
    }

    /// Whether a control token in `text` has bytes inside `range`.
    fn touches(specials: &Specials, text: &str, range: std::ops::Range<usize>) -> bool {
        specials.all().any(|token| {
            text.match_indices(&token.text)
                .any(|(at, hit)| at < range.end && at + hit.len() > range.start)
        })
    }

    #[test]
    fn added_tokens_that_stand_for_something_are_control_tokens() {
        let control = |text: &str, special| is_control(&AddedToken::from(text, special));
        for text in ["<｜User｜>", "<think>", "[INST]", "### Human:", "<|im_end|>"] {
            assert!(control(text, false), "{text:?}");
        }
        for text in ["", "  ", "\n\n", "▁▁▁", "yesterday", "北京", "two words", "<", "。"]
        {
            assert!(!control(text, false), "{text:?}");
            assert!(control(text, true), "{text:?}");
        }
    }

    #[test]
    fn benign_data_stays_as_it_is() {
        let data = "a < b, [x], <statement>ok</statement> |";
        assert_eq!(specials().mark(data, '\u{E000}'), data);
    }
}
