//! Sentences of English and Chinese text, by rules: what the judge falls back on when a model can't
//! list an answer's statements.

use super::bm25::Bm25;
use super::script::is_unspaced;

/// Abbreviations that never end a sentence: a name or a clause follows.
const TITLES: [&str; 22] = [
    "mr", "mrs", "ms", "dr", "prof", "st", "gen", "col", "sen", "rep", "gov", "rev", "capt", "lt",
    "sgt", "hon", "pres", "messrs", "vs", "cf", "e.g", "i.e",
];

/// Abbreviations that don't end a sentence before a number.
const NUMBERED: [&str; 29] = [
    "no", "nos", "fig", "figs", "p", "pp", "vol", "vols", "art", "sec", "ch", "eq", "ref", "refs",
    "approx", "ca", "c", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct",
    "nov", "dec",
];

/// The sentences of a text, trimmed. A line break ends a sentence unless the next line goes on in
/// lower case; `。！？；` always do; `.`, `!` and `?` do where a blank and no lower-case letter
/// follows, except after abbreviations, initials and list numbers.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut start = 0;
    let sentence = |&end: &usize| {
        let sentence = text[start..end].trim();
        start = end;
        sentence
    };
    let found = sentence_ends(text);
    found.iter().map(sentence).filter(|sentence| !sentence.is_empty()).collect()
}

/// Where the sentences of a text end, in bytes; the last is the end of the text. A sentence begins
/// where the one before it ends, with the blanks between them.
pub fn sentence_ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut start, mut skipped) = (0, 0);
    for (at, mark) in text.char_indices() {
        let after = at + mark.len_utf8();
        if at < start.max(skipped) {
            continue;
        }
        if matches!(mark, '.' | '!' | '?') && !may_end(&text[after..]) {
            // What follows the other marks of the run is the same.
            skipped = after + closers(&text[after..]);
            continue;
        }
        if !ends_sentence(&text[start..at], mark, &text[after..]) {
            continue;
        }
        let end = after + closers(&text[after..]);
        ends.push(end);
        start = end;
    }
    ends.push(text.len());
    ends
}

/// The sentences of an answer that can pass for statements: without list marks, headings, openings
/// that end in a colon, questions and repetitions. If nothing is left, the whole answer is one.
pub fn statements_of(answer: &str) -> Vec<String> {
    let mut statements: Vec<String> = Vec::new();
    for sentence in sentences(answer) {
        let statement = one_line(without_list_mark(sentence));
        let opens = statement.ends_with([':', '：', '?', '？']);
        if !opens && is_clause(&statement) && !statements.contains(&statement) {
            statements.push(statement);
        }
    }
    let whole = one_line(answer);
    if statements.is_empty() && !whole.is_empty() {
        statements.push(whole);
    }
    statements
}

/// Which of some sentences shares most with a text, by BM25; of equals the first. `None` if none
/// shares a word with it.
pub fn nearest(text: &str, sentences: &[String]) -> Option<usize> {
    let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
    let scores = Bm25::new(&sentences).scores(text);
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (0..scores.len()).reduce(better).filter(|&best| scores[best] > 0.0)
}

/// Whether `mark`, between the sentence so far and the rest of the text, ends the sentence; of `.`, `!`
/// and `?` those that [`may_end`] one.
fn ends_sentence(before: &str, mark: char, after: &str) -> bool {
    match mark {
        '\n' => !line_goes_on(after),
        '。' | '！' | '？' | '；' | '!' | '?' => true,
        '.' => !is_abbreviation(before, after),
        _ => false,
    }
}

/// Whether a sentence can end before this text, if it is not a full-width mark that ends it.
fn may_end(after: &str) -> bool {
    blank_follows(after) && !goes_on(after)
}

/// Bytes of the quotes and brackets that close right after a sentence's mark, and of further marks.
fn closers(after: &str) -> usize {
    const CLOSERS: [char; 16] =
        ['"', '\'', ')', ']', '*', '_', '”', '’', '」', '』', '）', '】', '》', '!', '?', '.'];
    after.len() - after.trim_start_matches(CLOSERS).len()
}

fn blank_follows(after: &str) -> bool {
    let rest = &after[closers(after)..];
    rest.chars().next().is_none_or(|c| c.is_whitespace() || !c.is_ascii() && c.is_alphabetic())
}

/// Whether the text goes on in lower case on this line or the next, as no new sentence would.
fn goes_on(after: &str) -> bool {
    let rest = without_blanks(&after[closers(after)..]);
    line_goes_on(rest.strip_prefix('\n').unwrap_or(rest))
}

fn line_goes_on(line: &str) -> bool {
    without_blanks(line).starts_with(char::is_lowercase)
}

fn without_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r'])
}

/// Whether the stop after `before` belongs to an abbreviation, an initial or a list number.
fn is_abbreviation(before: &str, after: &str) -> bool {
    let before = before.trim_start();
    let word = before.rsplit(|c: char| c.is_whitespace() || "([\"“".contains(c)).next();
    let word = word.unwrap_or_default().to_lowercase();
    let number_follows = after.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let initial = word.rsplit('.').next().is_some_and(|last| last.chars().count() == 1)
        && word.ends_with(|c: char| c.is_ascii_alphabetic());
    let list_number = before.len() <= 3 && before.bytes().all(|b| b.is_ascii_digit());
    TITLES.contains(&word.as_str())
        || (number_follows && NUMBERED.contains(&word.as_str()))
        || initial
        || list_number
}

fn without_list_mark(sentence: &str) -> &str {
    let rest = sentence.trim_start_matches(['-', '*', '•', '·', '#', '>', ' ', '\t']);
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    match rest[digits..].strip_prefix(['.', ')', '、', '．']) {
        Some(after) if digits > 0 && !after.starts_with(|c: char| c.is_ascii_digit()) => after,
        _ => rest,
    }
}

/// Blanks and line breaks become single blanks; Markdown's emphasis is dropped.
fn one_line(text: &str) -> String {
    text.replace("**", "").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Two words, or three characters of a script without blanks, can say something.
fn is_clause(text: &str) -> bool {
    let words = text.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic));
    let wide = text.chars().filter(|&c| is_unspaced(c));
    words.count() >= 2 || wide.count() >= 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_nearest_sentence_shares_most_words() {
        let sentences =
            ["It rained in May.", "The bridge is old.", "桥建于1887年。"].map(String::from);
        let near = |text: &str| nearest(text, &sentences);
        assert_eq!(
            [near("an old bridge"), near("桥建于何时"), near("nothing")],
            [Some(1), Some(2), None]
        );
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn english_sentences() {
        let text = "It rained. \"Did it?\" he asked. Yes! It cost 3.5 million (more than planned.) \
                    And it stopped";
        assert_eq!(
            sentences(text),
            [
                "It rained.",
                "\"Did it?\" he asked.",
                "Yes!",
                "It cost 3.5 million (more than planned.)",
                "And it stopped",
            ]
        );
    }

    #[test]
    fn abbreviations_initials_and_numbers_do_not_end_a_sentence() {
        for text in [
            "Dr. Smith met Mrs. Jones.",
            "J. R. Tolkien and the U.S. Army agree.",
            "See Fig. 3 and No. 12 of Jan. 4.",
            "Use e.g. Rust, i.e. Cargo.",
            "1. The first point.",
            "Version 1.2.3 of example.com is out.",
            "Kim et al. found it etc. and so on.",
        ] {
            assert_eq!(sentences(text), [text]);
        }
        assert_eq!(sentences("No. The author disagrees."), ["No.", "The author disagrees."]);
    }

    #[test]
    fn a_long_run_of_marks_is_gone_through_once() {
        let run = ".".repeat(1 << 20);
        for text in [format!("{run}x"), format!("Then {run}\" and so on")] {
            assert_eq!(sentences(&text), [text.as_str()]);
        }
    }

    #[test]
    fn chinese_sentences() {
        assert_eq!(
            sentences("他说：“好！”然后走了。价格是3.5元；版本2.0发布？是的"),
            ["他说：“好！”", "然后走了。", "价格是3.5元；", "版本2.0发布？", "是的"]
        );
    }

    #[test]
    fn lines_end_sentences_unless_the_text_goes_on() {
        assert_eq!(sentences("- One\n- Two\r\n\nThree"), ["- One", "- Two", "Three"]);
        assert_eq!(sentences("A line that\ngoes on."), ["A line that\ngoes on."]);
        assert_eq!(sentences("A title\n\nlower case"), ["A title", "lower case"]);
    }

    #[test]
    fn an_answer_becomes_statements() {
        let answer = "The author lists three points:\n\n\
                      1. **Allies** - They help.\n2) Rain fell in 1911.\n- Rain fell in 1911.\n\
                      # Summary\nIs that all?\n3.5 million were\n   paid.";
        assert_eq!(
            statements_of(answer),
            ["Allies - They help.", "Rain fell in 1911.", "3.5 million were paid."]
        );
        assert_eq!(statements_of("要点如下：\n1、大桥建成。\n2、好。"), ["大桥建成。"]);
    }

    #[test]
    fn an_answer_without_clauses_is_one_statement_and_an_empty_one_none() {
        assert_eq!(statements_of(" Paris "), ["Paris"]);
        assert_eq!(statements_of(" \n"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn no_character_but_blanks_is_lost(text in r#"([.!?。；\n ")1aB]|Dr|汉|\PC){0,40}"#) {
            let without_blanks = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(without_blanks(&sentences(&text).concat()), without_blanks(&text));
        }
    }
}
