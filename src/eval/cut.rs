//! Inputs that are too long lose their middle: instructions and questions stand at both ends.

use crate::pipeline::Tokens;

/// An input that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitted {
    pub text: String,
    /// Tokens of the whole input.
    pub tokens: usize,
    /// Tokens that were cut out of its middle.
    pub cut: usize,
}

/// What an input may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Tokens that the model reads and writes in all.
    pub context: usize,
    /// Tokens of the chat template around an input.
    pub template: usize,
    /// Tokens of an input at most, whatever the model could take.
    pub max_input: usize,
}

/// A text of two pieces may have a few tokens more than the pieces.
const SEAM: usize = 16;

impl Window {
    /// Tokens of an input that leaves room for a reply of so many.
    pub fn input(&self, max_new_tokens: usize) -> usize {
        let taken = max_new_tokens + self.template + SEAM;
        self.max_input.min(self.context.saturating_sub(taken))
    }
}

/// Keeps the first and the last `limit / 2` tokens of a text that has more than `limit`.
pub fn cut_middle(text: String, limit: usize, tokens: &Tokens) -> Fitted {
    let found = tokens(&text);
    let (count, half) = (found.len(), limit / 2);
    if count <= limit {
        return Fitted { text, tokens: count, cut: 0 };
    }
    let begin = |token: usize| found.get(token).map_or(text.len(), |(_, bytes)| bytes.start);
    let (head, tail) = (&text[..begin(half)], &text[begin(count - half)..]);
    Fitted { text: format!("{head}{tail}"), tokens: count, cut: count - 2 * half }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    /// Every character is a token.
    fn characters(text: &str) -> Vec<(u32, Range<usize>)> {
        text.char_indices().map(|(at, c)| (0, at..at + c.len_utf8())).collect()
    }

    fn cut(text: &str, limit: usize) -> (String, usize, usize) {
        let Fitted { text, tokens, cut } = cut_middle(text.to_owned(), limit, &characters);
        (text, tokens, cut)
    }

    #[test]
    fn the_middle_is_cut() {
        assert_eq!(cut("abcdef", 6), ("abcdef".to_owned(), 6, 0));
        assert_eq!(cut("ab汉字ef", 4), ("abef".to_owned(), 6, 2));
        assert_eq!(cut("abcdefg", 5), ("abfg".to_owned(), 7, 3));
        assert_eq!((cut("abc", 1), cut("abc", 0)), ((String::new(), 3, 3), (String::new(), 3, 3)));
        assert_eq!(cut("", 0), (String::new(), 0, 0));
    }

    #[test]
    fn a_window_leaves_room_for_the_reply() {
        let window = Window { context: 8192, template: 20, max_input: 64_000 };
        assert_eq!(window.input(1024), 8192 - 1024 - 20 - 16);
        assert_eq!(Window { context: 131_072, ..window }.input(1024), 64_000);
        assert_eq!(window.input(9000), 0);
    }
}
