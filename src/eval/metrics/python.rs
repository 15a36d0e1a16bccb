//! What Python means by a space, a word and a digit, where Rust means something else.

use regex::Regex;
use std::sync::LazyLock;

/// `str.isspace`: Unicode's white space, and the four separators of ASCII.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `str.split()`.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `string.punctuation`.
pub fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation()
}

// Both are constants that a test compiles.
static WORDS: LazyLock<Regex> = LazyLock::new(|| pattern(r"[\p{L}\p{N}_]+"));
static NUMBERS: LazyLock<Regex> = LazyLock::new(|| pattern(r"\p{Nd}+"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|why| unreachable!("a fixed pattern: {why}"))
}

/// Stretches of `\w`. Where one begins and ends is where `\b` matches.
pub fn words() -> &'static Regex {
    &WORDS
}

/// All matches of `\d+`.
pub fn numbers(text: &str) -> impl Iterator<Item = &str> {
    NUMBERS.find_iter(text).map(|found| found.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_those_of_python() {
        let words: Vec<&str> =
            split("\u{1c}a\u{a0}b\u{3000}c\u{85}d\u{200b}e\u{feff}\u{1f}").collect();
        assert_eq!(words, ["a", "b", "c", "d\u{200b}e\u{feff}"]);
    }

    #[test]
    fn digits_of_all_scripts_are_numbers() {
        assert_eq!(numbers("a12-３４ ٥x²½").collect::<Vec<_>>(), ["12", "３４", "٥"]);
        let found: Vec<&str> = words().find_iter("it's ½_a 中文!").map(|m| m.as_str()).collect();
        assert_eq!(found, ["it", "s", "½_a", "中文"]);
    }
}
