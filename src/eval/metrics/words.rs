//! Chinese words.

use jieba_rs::Jieba;
use std::sync::LazyLock;

/// Its dictionary takes a moment to read, so it is read once and only if it is needed.
static JIEBA: LazyLock<Jieba> = LazyLock::new(Jieba::new);

/// `jieba.cut(text)` of Python's jieba 0.42: dictionary words, and unknown ones by its hidden Markov
/// model.
///
/// `jieba-rs` has the same dictionary and model. In two things it goes its own way, and is brought
/// back: it joins `X-1` and `v2.0.1` to one word, and it knows Chinese characters beyond the main
/// block.
pub fn cut(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    for (at, rare) in text.match_indices(is_rare) {
        push_words(&text[start..at], &mut words);
        words.push(rare);
        start = at + rare.len();
    }
    push_words(&text[start..], &mut words);
    words
}

/// Chinese for jieba-rs, but a character like any other for jieba.
fn is_rare(c: char) -> bool {
    matches!(
        c,
        '\u{3400}'..='\u{4dbf}' | '\u{9fd6}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2fa1f}'
    )
}

fn push_words<'t>(text: &'t str, words: &mut Vec<&'t str>) {
    for token in JIEBA.cut(text, true) {
        match joined(token.word) {
            true => words.extend(Parts(token.word)),
            false => words.push(token.word),
        }
    }
}

fn joined(word: &str) -> bool {
    let marks = |word: &str| word.contains(|c: char| !c.is_ascii_alphanumeric());
    word.len() > 1 && word.is_ascii() && marks(word) && !JIEBA.has_word(word)
}

/// Letters and digits with a decimal part and `%` after them, and what stands between.
struct Parts<'t>(&'t str);

impl<'t> Iterator for Parts<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let text = Some(self.0).filter(|text| !text.is_empty())?;
        let run = |from: usize, inside: fn(&char) -> bool| {
            from + text[from..].chars().take_while(inside).map(char::len_utf8).sum::<usize>()
        };
        let mut end = run(0, char::is_ascii_alphanumeric);
        if end == 0 {
            end = run(0, |c| !c.is_ascii_alphanumeric());
        } else {
            if text[end..].starts_with('.') {
                let decimals = run(end + 1, char::is_ascii_digit);
                end = if decimals > end + 1 { decimals } else { end };
            }
            end += usize::from(text[end..].starts_with('%'));
        }
        let (part, rest) = text.split_at(end);
        self.0 = rest;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_words() {
        assert_eq!(cut("他来到了网易杭研大厦"), ["他", "来到", "了", "网易", "杭研", "大厦"]);
        assert_eq!(cut("a b"), ["a", " ", "b"]);
        assert!(cut("").is_empty());
    }

    #[test]
    fn what_the_crate_joins_is_taken_apart() {
        assert_eq!(cut("X-MEN在E.L.上"), ["X", "-", "MEN", "在", "E", ".", "L", ".", "上"]);
        assert_eq!(
            cut("v2.0.1约3.14%和a_1"),
            ["v2.0", ".", "1", "约", "3.14%", "和", "a", "_", "1"]
        );
        assert_eq!(cut("T恤"), ["T恤"]);
        assert_eq!(cut("--"), ["--"]);
    }

    #[test]
    fn rare_characters_stand_alone() {
        assert_eq!(cut("厦门㐀大学𠮷"), ["厦门", "㐀", "大学", "𠮷"]);
    }
}
