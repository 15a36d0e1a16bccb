//! What a reply says, as pure functions of its text. `None` always means: this reply can't be
//! read, ask again.

mod brackets;

use crate::retrieval::script::narrow;
use std::ops::Range;

/// A verdict in double square brackets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark {
    pub score: f64,
    /// The byte after its `[[`.
    pub inside: usize,
}

impl Mark {
    /// The reply up to its verdict, whose brackets are written as we ask for them.
    pub fn beginning(&self, reply: &str) -> String {
        let mut before = reply[..self.inside].chars();
        before.by_ref().rev().take(2).for_each(drop);
        format!("{}{}", before.as_str(), super::BRACKETS)
    }

    /// Whether no words come after it on its line, so that it can be what an analysis comes to.
    pub fn ends_line(&self, reply: &str) -> bool {
        let rest = &reply[self.inside..];
        let after = rest.find([']', '】', '］']).map_or("", |end| &rest[end..]);
        !after.lines().next().is_some_and(|line| line.contains(char::is_alphanumeric))
    }
}

/// The rating 0..=10 in the last `[[number]]`. `[[ 8 ]]`, `[[8.5]]` and `[[8/10]]` are numbers
/// too, as are other ways to write one (see [`brackets`]); other brackets are skipped. A last number
/// that is off the scale or unclear makes the reply unreadable: an earlier one is not what the judge
/// ended with.
pub fn rating(reply: &str) -> Option<Mark> {
    rating_within(reply, 0, 10)
}

/// As [`rating`], on a scale of `low` to `high`; `[[2/3]]` is a number where `high` is 3.
pub fn rating_within(reply: &str, low: u8, high: u8) -> Option<Mark> {
    brackets::last_rating(reply, low.into(), high.into())
}

/// The degree of support, 1, 0.5 or 0, in the last `[[label]]`, in English or Chinese. References and
/// placeholders are skipped; a last label that says two things at once ("not fully", "不完全支持") or
/// none that is known ("支持", "矛盾") makes the reply unreadable.
pub fn support(reply: &str) -> Option<Mark> {
    brackets::last_label(reply)
}

/// What a reply says on one of several statements.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbered {
    /// Its label; `inside` counts from the beginning of the reply.
    pub mark: Mark,
    /// The part of the reply that speaks of it.
    pub text: Range<usize>,
}

/// The degree of support of each of `count` statements, by the numbers that begin lines of the reply
/// (`Statement 2:`, `陈述2：`, `2.`); the part that speaks of a statement goes on until the next such
/// line. Where some lines are named, those without a name are points within a part. `None` for a
/// statement that has no part, no label, or more than one part, or whose label might be one of its
/// points' own. `cut`: the reply might have gone on.
pub fn supports(reply: &str, count: usize, cut: bool) -> Vec<Option<Numbered>> {
    let mut found: Vec<Vec<Range<usize>>> = vec![Vec::new(); count];
    let lines: Vec<NumberedLine> = numbered_lines(reply, count).collect();
    let any_named = lines.iter().any(|line| line.named);
    let (heads, points): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| line.named == any_named);
    let ends = heads.iter().skip(1).map(|head| head.start).chain([reply.len()]);
    for (head, end) in heads.iter().zip(ends) {
        found[head.number - 1].push(head.start..end);
    }
    let only = |parts: &Vec<Range<usize>>| {
        let found = only_part(reply, parts, &points)?;
        let may_go_on = cut && found.text.end == reply.len();
        (!may_go_on || found.mark.ends_line(reply)).then_some(found)
    };
    found.iter().map(only).collect()
}

fn only_part(reply: &str, parts: &[Range<usize>], points: &[NumberedLine]) -> Option<Numbered> {
    let [text] = parts else { return None };
    let last_point = points.iter().rfind(|point| text.contains(&point.start));
    let before = &reply[text.start..last_point.map_or(text.start, |point| point.start)];
    if support(before).is_some() {
        return None;
    }
    let mark = support(&reply[text.clone()])?;
    let mark = Mark { inside: text.start + mark.inside, ..mark };
    Some(Numbered { mark, text: text.clone() })
}

/// A line that begins with a number and a mark after it.
struct NumberedLine {
    /// Its first byte.
    start: usize,
    number: usize,
    /// Whether it says what it numbers.
    named: bool,
}

/// Lines with numbers from 1 to `count`. The mark in `2.5 million` or `2:30` is none.
fn numbered_lines(reply: &str, count: usize) -> impl Iterator<Item = NumberedLine> {
    let lines = reply.split_inclusive('\n').scan(0, |start, line| {
        *start += line.len();
        Some((*start - line.len(), line))
    });
    lines.filter_map(move |(start, line)| {
        let line = line.trim_start_matches([' ', '\t', '#', '*', '-', '[']);
        let unnamed =
            ["Statement", "statement", "陈述"].iter().find_map(|word| line.strip_prefix(word));
        let line = unnamed.unwrap_or(line).trim_start();
        let after = line.trim_start_matches(|c: char| narrow(c).is_ascii_digit());
        let digits = line[..line.len() - after.len()].chars().map(narrow);
        let number: usize = digits.collect::<String>().parse().ok()?;
        let after = after.trim_start_matches(['*', ']']);
        let number_goes_on = after.starts_with(['.', ':', '．', '：'])
            && after.chars().nth(1).is_some_and(char::is_numeric);
        let marked = after.starts_with([':', '：', '.', ')', '、', '．']) && !number_goes_on;
        let named = unnamed.is_some();
        (marked && (1..=count).contains(&number)).then_some(NumberedLine { start, number, named })
    })
}

/// The texts between `<statement>` and `</statement>`, trimmed, without empty ones and repetitions.
/// Empty if the reply says that there are none; tags with nothing in them don't say so. `cut`: the
/// reply might have gone on.
pub fn statements(reply: &str, cut: bool) -> Option<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let mut says_none = false;
    let texts = tagged(reply, cut);
    let texts = texts.iter().map(|text| text.trim());
    let texts: Vec<&str> = texts.filter(|text| text.contains(char::is_alphanumeric)).collect();
    for &text in &texts {
        if is_none_phrase(text) {
            says_none = true;
        } else if !found.iter().any(|earlier| earlier == text) {
            found.push(text.to_owned());
        }
    }
    // What a statement says, even one that was cut off, is not what the reply says of statements.
    let outside = texts.is_empty() && !(cut && begun(reply).is_some());
    says_none |= outside && denies_statements(reply);
    (says_none || !found.is_empty()).then_some(found)
}

/// The statement that a reply which was cut off ends in the middle of.
pub fn begun(reply: &str) -> Option<&str> {
    let lower = reply.to_ascii_lowercase();
    let start = lower.rfind(OPEN)? + OPEN.len();
    (!lower[start..].contains(CLOSE)).then_some(&reply[start..])
}

/// `Some(None)` if the reply says that nothing is relevant, else the reply without such lines:
/// the phrase beside real extracts does not discard them. `None` for an empty reply.
pub fn extract(reply: &str) -> Option<Option<String>> {
    let reply = reply.trim();
    if reply.is_empty() {
        return None;
    }
    let kept: Vec<&str> = reply.lines().filter(|line| !is_nothing_relevant(line)).collect();
    let any_text = kept.iter().any(|line| line.chars().any(char::is_alphanumeric));
    Some(any_text.then(|| kept.join("\n").trim().to_owned()))
}

const OPEN: &str = "<statement>";
const CLOSE: &str = "</statement>";

/// The texts after each `<statement>`, in letters of any case, until it is closed, the next one begins or
/// the reply ends. One that a reply which was `cut` ends in the middle of is left out.
fn tagged(reply: &str, cut: bool) -> Vec<&str> {
    // As many bytes as before.
    let lower = reply.to_ascii_lowercase();
    let starts: Vec<usize> = lower.match_indices(OPEN).map(|(at, _)| at + OPEN.len()).collect();
    let ends = starts.iter().skip(1).map(|start| start - OPEN.len()).chain([reply.len()]);
    let text = |(&start, end): (&usize, usize)| {
        let closed = lower[start..end].find(CLOSE).map(|length| start + length);
        let may_go_on = cut && end == reply.len();
        closed.or((!may_go_on).then_some(end)).map(|end| &reply[start..end])
    };
    starts.iter().zip(ends).filter_map(text).collect()
}

/// Whether a text is a word for "none", or the sentence that there is none, and says nothing else.
fn is_none_phrase(text: &str) -> bool {
    /// What such a sentence may hold besides.
    const FRAME: &str = "the this given answer response contains has there does do are is in s \
                         be can made to extract extracted";
    const FRAME_HAN: &str = "该此这个回答案中里并";
    const NONE: [&str; 8] = [
        "none",
        "n/a",
        "no statement",
        "no statements",
        "no_statement",
        "no_statements",
        "无",
        "没有",
    ];
    let core = core(text);
    let framed = |rest: String| {
        let mut words = rest.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.all(|word| {
            FRAME.split(' ').any(|known| known == word)
                || word.chars().all(|c| FRAME_HAN.contains(c))
        })
    };
    NONE.contains(&core.as_str()) || without_denial(&core).is_some_and(framed)
}

/// The rest of a text that denies in common words that there are factual statements.
fn without_denial(text: &str) -> Option<String> {
    const FILLERS: [(&str, &str); 4] =
        [("n't ", " not "), (" any ", " "), ("可提取的", ""), ("任何", "")];
    const NOT: [&str; 10] = [
        "no ",
        "not contain ",
        "not make ",
        "not include ",
        "无",
        "没有",
        "不含",
        "不含有",
        "不包含",
        "未包含",
    ];
    const STATEMENTS: [&str; 4] = ["factual statement", "factual claim", "事实性陈述", "事实陈述"];
    let mut text = text.to_lowercase();
    FILLERS.iter().for_each(|(filler, instead)| text = text.replace(filler, instead));
    let mut denials = NOT.iter().flat_map(|not| STATEMENTS.map(|what| format!("{not}{what}")));
    let denial = denials.find(|denial| text.contains(denial))?;
    Some(text.replacen(&denial, " ", 1))
}

/// Whether a reply says that an answer holds no factual statement, or in the form that our prompts
/// ask for.
fn denies_statements(reply: &str) -> bool {
    reply.to_lowercase().contains("<no_statement")
        || is_none_phrase(reply)
        || without_denial(reply).is_some()
}

/// Whether a line consists of the nothing-relevant phrase and nothing else.
fn is_nothing_relevant(line: &str) -> bool {
    let core = core(line);
    let core = core.strip_prefix("there is ").unwrap_or(&core);
    matches!(
        core,
        "no relevant information"
            | "no relevant information found"
            | "no relevant information is found"
            | "没有相关信息"
            | "无相关信息"
            | "没有任何相关信息"
    )
}

/// The words of a line, lower-cased: without list marks, quotes and punctuation around them.
fn core(line: &str) -> String {
    line.trim_matches(|c: char| !c.is_alphabetic()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn score(reply: &str) -> Option<f64> {
        rating(reply).map(|mark| mark.score)
    }

    fn label(reply: &str) -> Option<f64> {
        support(reply).map(|mark| mark.score)
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn ratings_on_other_scales() {
        let score = |reply, low, high| rating_within(reply, low, high).map(|mark| mark.score);
        assert_eq!([score("[[2/3]]", 1, 3), score("[[ 5 ]]", 1, 5)], [Some(2.0), Some(5.0)]);
        assert_eq!(
            [score("[[0]]", 1, 3), score("[[2]] [[4]]", 1, 3), score("[[2/10]]", 1, 3)],
            [None; 3]
        );
    }

    #[test]
    fn the_last_rating_counts() {
        assert_eq!(score("[[3]] was the example. Rating: [[7]]"), Some(7.0));
        assert_eq!(score("[[0]]"), Some(0.0));
        assert_eq!(score("评分：[[10]]。"), Some(10.0));
    }

    #[test]
    fn a_rating_tells_where_it_stands() {
        let reply = "分析 [[3]] 评分：[[ 8 ]].";
        let mark = rating(reply).unwrap();
        assert_eq!(&reply[mark.inside..], " 8 ]].");
        assert!(reply[..mark.inside].ends_with("评分：[["));
    }

    #[test]
    fn what_stands_before_a_verdict_ends_as_we_ask_for_it() {
        for reply in ["分析 评分：[[ 8 ]].", "分析 评分：【【8】】。", "分析 评分：［［8］］"]
        {
            assert_eq!(rating(reply).unwrap().beginning(reply), "分析 评分：[[");
        }
    }

    #[test]
    fn ratings_out_of_range_are_refused() {
        for reply in
            ["[[85]]", "[[11]]", "[[-1]]", "[[10.5]]", "[[8/5]]", "[[85/100]]", "[[11/10]]"]
        {
            assert_eq!(score(reply), None, "{reply}");
        }
    }

    #[test]
    fn a_last_number_off_the_scale_is_not_replaced_by_an_earlier_one() {
        assert_eq!(score("[[8]], that is [[80]]"), None);
        assert_eq!(score("[[80]], that is [[8]]"), Some(8.0));
    }

    #[test]
    fn ratings_with_blanks_fractions_and_decimals_are_accepted() {
        for reply in
            ["[[ 8 ]]", "[[8/10]]", "[[ 8 / 10 ]]", "[[8.0]]", "[[8.0/10]]", "[[08]]", "[[[8]]]"]
        {
            assert_eq!(score(reply), Some(8.0), "{reply}");
        }
        assert_eq!(score("[[8.5]]"), Some(8.5));
        assert_eq!(score("[[-0]]").map(f64::is_sign_positive), Some(true));
    }

    #[test]
    fn brackets_that_hold_no_number_are_skipped() {
        assert_eq!(score("[[3]]. [[7]] as in [[n]], [[inf]], [[]], [["), Some(7.0));
        for reply in ["", "8", "[8]", "[[8]", "[[rating]]", "[[8\n", "[[1.2.3]]", "[[/10]]"] {
            assert_eq!(score(reply), None, "{reply}");
        }
    }

    #[test]
    fn support_labels() {
        for (reply, expected) in [
            ("[[Fully supported]]", 1.0),
            ("[[fully support]]", 1.0),
            ("[[Partially Supported]]", 0.5),
            ("[[ PARTIALLY SUPPORTED ]]", 0.5),
            ("[[No support]]", 0.0),
            ("[[Not supported]]", 0.0),
            ("评分：[[部分支持]]", 0.5),
            ("[[完全支持]]", 1.0),
            ("[[不支持]]", 0.0),
        ] {
            assert_eq!(label(reply), Some(expected), "{reply}");
        }
    }

    #[test]
    fn the_last_label_counts_and_other_brackets_are_skipped() {
        assert_eq!(label("not [[Fully supported]] but [[No support]], see [[1]]"), Some(0.0));
        assert_eq!(label("Fully supported"), None);
        assert_eq!(label("[[Supported]]"), None);
        assert_eq!(label("[[3]]"), None);
    }

    #[test]
    fn a_label_that_says_two_things_is_refused() {
        assert_eq!(label("[[Not fully supported]]"), None);
        assert_eq!(label("[[Fully supported/Partially supported]]"), None);
        assert_eq!(label("[[不完全支持]]"), None);
    }

    fn labels(reply: &str, count: usize) -> Vec<Option<f64>> {
        let found = supports(reply, count, false);
        found.iter().map(|found| found.as_ref().map(|f| f.mark.score)).collect()
    }

    #[test]
    fn labels_go_by_their_numbers() {
        let reply = "Statement 2: It says so. [[Fully supported]]\n\
                     **Statement 1:** Not said;\nsee Passage 3. [[No support]]\n\
                     Statement 3: Half. [[Partially supported]]";
        assert_eq!(labels(reply, 3), [Some(0.0), Some(1.0), Some(0.5)]);
        let found = supports(reply, 3, false)[0].clone().unwrap();
        assert!(reply[..found.mark.inside].ends_with("see Passage 3. [["));
        assert_eq!(
            &reply[found.text],
            "**Statement 1:** Not said;\nsee Passage 3. [[No support]]\n"
        );
        assert_eq!(labels("陈述1：[[不支持]]\n陈述 ２： [[完全支持]]", 2), [Some(0.0), Some(1.0)]);
        assert_eq!(labels("1. [[No support]]\n２、[[完全支持]]", 2), [Some(0.0), Some(1.0)]);
    }

    #[test]
    fn a_numbered_point_within_a_part_is_no_part() {
        let reply = "Statement 1: shown by Passage\n3. [[Fully supported]]\n\
                     Statement 2: [[No support]]";
        assert_eq!(labels(reply, 3), [Some(1.0), Some(0.0), None]);
        let reply = "Statement 1: it has parts:\n2. the year. [[Fully supported]]";
        assert_eq!(labels(reply, 2), [Some(1.0), None]);
        // Either of the labels may be that of the first statement.
        let reply = "Statement 1: so [[No support]]\n2. so [[Fully supported]]";
        assert_eq!(labels(reply, 2), [None, None]);
    }

    #[test]
    fn a_label_that_an_analysis_mentions_before_it_is_cut_off_is_none() {
        let reply = "1: so [[No support]] since\n2: to be [[Fully supported]] it must";
        let scores = |cut| supports(reply, 2, cut).iter().flatten().count();
        assert_eq!([scores(true), scores(false)], [1, 2]);
    }

    #[test]
    fn a_mark_ends_its_line_if_no_words_follow() {
        let ends = |reply: &str| rating(reply).unwrap().ends_line(reply);
        assert!(
            ["[[7]]", "**[[7]]**.", "评分：【【7】】。\n\n再说", "[[ 7 ]]\nand"].map(ends)
                == [true; 4]
        );
        assert!(["[[7]] and", "[[7]]/10", "至多[[7]]分"].map(ends) == [false; 3]);
    }

    #[test]
    fn numbers_that_go_on_begin_no_part() {
        let reply = "1: It says\n2.5 million at\n2:30. [[Fully supported]]\n2. No. [[No support]]";
        assert_eq!(labels(reply, 2), [Some(1.0), Some(0.0)]);
    }

    #[test]
    fn a_label_without_a_number_of_its_own_is_nobodys() {
        assert_eq!(labels("[[Fully supported]]\n[[No support]]", 2), [None, None]);
        assert_eq!(labels("1: so. [[Fully supported]]\n2: hm", 2), [Some(1.0), None]);
        // The same number twice, a number out of range, a number that is no heading.
        let twice = "1: [[Fully supported]]\n1: [[No support]]\n2: [[No support]]";
        assert_eq!(labels(twice, 2), [None, Some(0.0)]);
        assert_eq!(
            labels("1: x\n3: [[No support]]\n2 of them [[Fully supported]]", 2),
            [Some(1.0), None]
        );
        assert_eq!(labels("1: [[Not fully supported]]", 1), [None]);
        assert_eq!(labels("", 2), [None, None]);
    }

    #[test]
    fn statements_between_tags() {
        let reply = "Here:\n<statement> One. </statement>\n<statement>Two\nlines.</statement>\n\
                     <statement></statement><statement>One.</statement>";
        assert_eq!(statements(reply, false), Some(strings(&["One.", "Two\nlines."])));
    }

    #[test]
    fn a_statement_that_is_not_closed_ends_where_the_next_begins_or_the_reply() {
        for reply in [
            "<statement>A is b.</statement>\n<statement>C is d.",
            "<statement>A is b.\n<statement>C is d.</statement>",
            "<statement>A is b.<statement>\n<statement>C is d.</statement>",
            "<Statement>A is b.</Statement>\n<STATEMENT>C is d.</statement>",
        ] {
            assert_eq!(statements(reply, false), Some(strings(&["A is b.", "C is d."])), "{reply}");
        }
    }

    #[test]
    fn a_statement_that_is_cut_off_is_left_out() {
        let found = |reply: &str| statements(reply, true);
        assert_eq!(found("<statement>One.</statement>\n<statement>Tw"), Some(strings(&["One."])));
        assert_eq!(
            found("<statement>Whole.\n<statement>One.</statement> x"),
            Some(strings(&["Whole.", "One."]))
        );
        assert_eq!(found("<statement>One."), None);
        assert_eq!(found("<statement>It contains no factual statement on costs, and"), None);
    }

    #[test]
    fn a_reply_that_denies_statements_is_an_empty_list() {
        for reply in [
            "<no_statements>",
            "<No_Statements>\n",
            "<no_statement/>",
            "The answer contains no factual statements.",
            "该回答没有事实性陈述。",
            "<statement>None</statement>",
            "<statement>无。</statement>",
            "<statement>1. None.</statement>",
            "<statement><no_statements></statement>",
            "<statement>The answer contains no factual statements.</statement>",
            "<statement>该回答没有事实性陈述。</statement>",
            "<statement>该回答不包含事实性陈述。</statement>",
            "<statement></statement><no_statements>",
            "<statement>The answer does not contain any factual statements.</statement>",
            "<statement>The answer doesn't make any factual claims.</statement>",
            "<statement>No factual claims are made in the answer.</statement>",
            "<statement>No factual statements to extract.</statement>",
            "<statement>该回答不含事实性陈述。</statement>",
            "<statement>该回答未包含任何事实性陈述。</statement>",
            "<statement>此回答中并没有任何事实性陈述。</statement>",
            "The answer does not contain any factual statements. It names a date to come back to.",
            "No statements.",
            "no_statements",
            "<no statements>",
            "没有可提取的事实性陈述。",
        ] {
            assert_eq!(statements(reply, false), Some(Vec::new()), "{reply}");
        }
        assert_eq!(
            statements("<statement>One.</statement>\n<no_statements>", false),
            Some(strings(&["One."]))
        );
    }

    #[test]
    fn a_statement_of_digits_and_one_about_facts_are_statements() {
        for text in [
            "1998",
            "42 %",
            "３",
            "该报告不包含事实错误。",
            "It lists no factual statement of cash.",
            "The report makes no factual statements about costs.",
        ] {
            let reply = format!("<statement>{text}</statement>");
            assert_eq!(statements(&reply, false), Some(strings(&[text])), "{text}");
        }
    }

    #[test]
    fn a_reply_without_statements_is_unreadable() {
        for reply in [
            "",
            "1. The sky is blue.",
            "None of this makes sense to me.",
            "<statement></statement>",
            "<statement> </statement>\n<statement>…</statement>",
        ] {
            assert_eq!(statements(reply, false), None, "{reply}");
        }
    }

    #[test]
    fn the_nothing_relevant_phrase_alone_is_nothing() {
        for reply in [
            "No relevant information",
            " \"No relevant information.\"\n",
            "1. No relevant information",
            "- There is no relevant information.",
            "没有相关信息。",
            "“无相关信息”",
            "\"\"\"\nNo relevant information\n\"\"\"",
        ] {
            assert_eq!(extract(reply), Some(None), "{reply}");
        }
    }

    #[test]
    fn the_nothing_relevant_phrase_beside_extracts_keeps_the_extracts() {
        let kept = |reply: &str| extract(reply).flatten();
        assert_eq!(kept("1. Fact.\nNo relevant information"), Some("1. Fact.".to_owned()));
        assert_eq!(kept("没有相关信息。\n- 事实"), Some("- 事实".to_owned()));
        let inline = "- No relevant information on costs is given, but the year is 1911.";
        assert_eq!(kept(inline), Some(inline.to_owned()));
        assert_eq!(kept("- a\n\n- b\n"), Some("- a\n\n- b".to_owned()));
    }

    #[test]
    fn an_empty_extract_is_unreadable() {
        assert_eq!(extract(" \n"), None);
    }

    proptest! {
        #[test]
        fn any_reply_can_be_parsed(reply in r"([\[\]【】８0-9/. 汉\n]|</?statement>|No support|Fully|\PC){0,40}") {
            let opens = |mark: &Mark| {
                ["[[", "【【", "［［"].iter().any(|open| reply[..mark.inside].ends_with(open))
            };
            if let Some(mark) = rating(&reply) {
                prop_assert!((0.0..=10.0).contains(&mark.score));
                prop_assert!(opens(&mark) && mark.beginning(&reply).ends_with("[["));
            }
            if let Some(mark) = support(&reply) {
                prop_assert!(opens(&mark));
            }
            for found in supports(&reply, 3, true).into_iter().flatten() {
                prop_assert!(opens(&found.mark));
                prop_assert!(found.text.contains(&found.mark.inside));
            }
            for statement in statements(&reply, false).unwrap_or_default() {
                prop_assert!(!statement.is_empty() && reply.contains(&statement));
            }
            prop_assert_eq!(extract(&reply).is_none(), reply.trim().is_empty());
        }
    }
}
