//! Verdicts in double brackets.
//!
//! Judges write them in many ways. What can mean one verdict only is read as that (`[[**8**]]`,
//! `[[８]]`, `[[8分]]`, `[[总分：8]]`, `【【8】】`). What is known to mean something else is skipped:
//! placeholders, references, the end of a scale. All else makes the reply unreadable, since an earlier
//! verdict is not what the judge ended with: for a rating what holds a number, for a label any words, and
//! either of them in brackets that are not closed as they were opened.

use super::Mark;
use crate::retrieval::script::narrow;
use std::borrow::Cow;

/// What stands in one pair of double brackets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bracket {
    /// Not a verdict at all, such as a placeholder or a reference.
    Other,
    /// Meant as a verdict, but not a possible one.
    Invalid,
    Score(f64),
}

/// Opening and closing, as they are typed with a Western and with a Chinese keyboard.
const BRACKETS: [(&str, &str); 3] = [("[[", "]]"), ("【【", "】】"), ("［［", "］］")];
const CLOSERS: [char; 3] = [']', '】', '］'];

/// The rating in the last brackets that hold one.
pub(super) fn last_rating(reply: &str, low: f64, high: f64) -> Option<Mark> {
    last_mark(reply, |content, before| match read_rating(content, low, high) {
        Bracket::Score(score) if score == high && ends_scale(before) => Bracket::Other,
        read => read,
    })
}

/// The degree of support in the last brackets that hold a label.
pub(super) fn last_label(reply: &str) -> Option<Mark> {
    last_mark(reply, |content, _| read_label(content))
}

/// An opening and what follows it.
struct Opened<'a> {
    /// The byte after it.
    inside: usize,
    /// Up to the first closing bracket or the end of the line.
    content: &'a str,
    /// Whether the closing follows that belongs to it.
    closed: bool,
    /// Whether nothing but closing brackets follows.
    is_last: bool,
}

impl<'a> Opened<'a> {
    /// The opening at a byte of the reply, if there is one.
    fn at(reply: &'a str, at: usize) -> Option<Self> {
        let (open, close) = BRACKETS.iter().find(|(open, _)| reply[at..].starts_with(open))?;
        let inside = at + open.len();
        let text = reply[inside..].trim_start();
        let end = text.find(|c| c == '\n' || CLOSERS.contains(&c)).unwrap_or(text.len());
        let (content, rest) = text.split_at(end);
        let closed = rest.trim_start().starts_with(close);
        let is_last = rest.trim_matches(|c: char| c.is_whitespace() || CLOSERS.contains(&c));
        Some(Self { inside, content: content.trim_end(), closed, is_last: is_last.is_empty() })
    }
}

/// The last mark. `read` is given the content of brackets and what stands before it.
fn last_mark(reply: &str, read: impl Fn(&str, &str) -> Bracket) -> Option<Mark> {
    let mut cut_off: Option<&str> = None;
    let opened = reply.char_indices().rev().filter_map(|(at, _)| Opened::at(reply, at));
    for Opened { inside, content, closed, is_last } in opened {
        match read(content, &reply[..inside]) {
            Bracket::Other => {}
            Bracket::Score(score) if closed => {
                // A verdict that is repeated until the reply ends is the same verdict.
                let same = cut_off.is_none_or(|cut| content.starts_with(cut));
                return same.then_some(Mark { score, inside });
            }
            // Only the last can have lost its end to the token budget.
            _ if is_last && !closed && cut_off.is_none() => cut_off = Some(content),
            _ => return None,
        }
    }
    None
}

/// Whether brackets that are opened at the end of this text come right after other ones, as the end of
/// their scale: `[[8]]/[[10]]`, `[[8]] out of [[10]]`.
fn ends_scale(before: &str) -> bool {
    const BETWEEN: [&str; 4] = ["/", "／", "out of", "满分"];
    let trimmed =
        |text| str::trim_end_matches(text, |c: char| c.is_whitespace() || "[【［(（".contains(c));
    let between = BETWEEN.iter().find_map(|between| trimmed(before).strip_suffix(between));
    between.is_some_and(|rating| trimmed(rating).ends_with(CLOSERS))
}

/// Without the marks around it that say nothing, with full-width characters folded.
fn plain(content: &str) -> Cow<'_, str> {
    let marks = |c: char| c.is_whitespace() || "*_`\"'“”‘’".contains(c);
    let ends = |c: char| marks(c) || "。.,，;；".contains(c);
    let content = content.trim_start_matches(marks).trim_end_matches(ends);
    if content.is_ascii() {
        return content.into();
    }
    content.chars().map(narrow).collect::<String>().into()
}

fn read_rating(content: &str, low: f64, high: f64) -> Bracket {
    let content = plain(content);
    if is_scale(&content, low, high) || is_reference(&content) {
        return Bracket::Other;
    }
    let unnamed = plain(without_name(&content));
    let (number, scale) = match split_scale(&unnamed) {
        Some((number, scale)) => (without_unit(number), Some(without_unit(scale))),
        None => (without_unit(&unnamed), None),
    };
    let whole_scale = scale.is_none_or(|scale| decimal(scale) == Some(high));
    match decimal(number) {
        Some(score) if whole_scale && (low..=high).contains(&score) => Bracket::Score(score + 0.0),
        // `n`, `n/10`
        None if !has_number(number) && (whole_scale || scale.is_none_or(|s| !has_number(s))) => {
            Bracket::Other
        }
        _ => Bracket::Invalid,
    }
}

/// `8/10`, `8 out of 10`.
fn split_scale(content: &str) -> Option<(&str, &str)> {
    content.split_once('/').or_else(|| content.split_once(" out of "))
}

/// `0-10`, `1 to 10`: what a prompt says of its scale.
fn is_scale(content: &str, low: f64, high: f64) -> bool {
    let ends = ["-", "–", "~", " to ", "到", "至"].iter().find_map(|between| {
        let (from, to) = content.split_once(between)?;
        Some((decimal(from.trim())?, decimal(to.trim())?))
    });
    ends.is_some_and(|(from, to)| (from == low || from == 1.0) && to == high)
}

/// `Passage 3`, `文档0% - 12%部分`: names of the parts of a prompt with numbers, and no other words.
fn is_reference(content: &str) -> bool {
    const PARTS: [&str; 13] = [
        "passage",
        "passages",
        "document",
        "statement",
        "statements",
        "example",
        "examples",
        "no",
        "文段",
        "文档",
        "陈述",
        "例",
        "示例",
    ];
    const BETWEEN: [&str; 6] = ["and", "to", "和", "到", "至", "部分"];
    let content = content.to_lowercase();
    let mut words = words(&content);
    content.contains(char::is_numeric)
        && !content.contains(':')
        && words.next().is_some_and(|word| PARTS.contains(&word))
        && words.all(|word| PARTS.contains(&word) || BETWEEN.contains(&word))
}

fn words(content: &str) -> impl Iterator<Item = &str> {
    content.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty())
}

/// `Final rating: 8`, `评分：8`, `Rating 8` are the number.
fn without_name(content: &str) -> &str {
    const NAMES: [&str; 6] = ["Rating", "rating", "Score", "score", "评分", "得分"];
    match content.rsplit_once(':') {
        Some((name, rest)) if !has_number(name) => rest,
        _ => NAMES.iter().find_map(|name| content.strip_prefix(name)).unwrap_or(content),
    }
}

fn without_unit(number: &str) -> &str {
    let number = number.trim();
    number.strip_suffix('分').unwrap_or(number).trim_end()
}

/// A numeral of any script anywhere, or a number in words alone.
fn has_number(content: &str) -> bool {
    const WORDS: [&str; 11] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    let chinese = |c: char| "零一二三四五六七八九十".contains(c);
    let amount = without_unit(content);
    content.contains(char::is_numeric)
        || WORDS.iter().any(|word| amount.eq_ignore_ascii_case(word))
        || !amount.is_empty() && amount.chars().all(chinese)
}

/// A number in plain decimal notation (`f64::from_str` alone would take `inf` and `1e1` as well).
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { text.parse().ok() } else { None }
}

fn read_label(content: &str) -> Bracket {
    const NAMES: [&str; 8] =
        ["label", "support", "标签", "支持程度", "支持度", "支持等级", "支持级别", "支持情况"];
    let content = plain(content).to_lowercase();
    match content.as_str() {
        "完全支持" => return Bracket::Score(1.0),
        "部分支持" => return Bracket::Score(0.5),
        "不支持" | "无支持" | "没有支持" => return Bracket::Score(0.0),
        _ => {}
    }
    // Numbers alone are no words.
    if is_reference(&content) || words(&content).all(|word| NAMES.contains(&word)) {
        return Bracket::Other;
    }
    let says = |any_of: &[&str]| words(&content).any(|word| any_of.contains(&word));
    let scores = [
        (says(&["full", "fully"]), 1.0),
        (says(&["partial", "partially"]), 0.5),
        (says(&["no", "not", "none", "unsupported"]), 0.0),
    ];
    let mut said = scores.iter().filter(|(said, _)| *said);
    match (said.next(), said.next()) {
        (Some(&(_, score)), None) => Bracket::Score(score),
        _ => Bracket::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(reply: &str) -> Option<f64> {
        last_rating(reply, 0.0, 10.0).map(|mark| mark.score)
    }

    fn label(reply: &str) -> Option<f64> {
        last_label(reply).map(|mark| mark.score)
    }

    #[test]
    fn what_can_mean_one_number_only_is_that_number() {
        for verdict in [
            "[[８]]",
            "[[8分]]",
            "[[ ８ 分 ]]",
            "[[**8**]]",
            "[[`8`]]",
            "[[\"8\"]]",
            "[[8.]]",
            "[[８．０]]",
            "[[８／１０]]",
            "[[8分/10分]]",
            "[[8 out of 10]]",
            "[[Rating: 8]]",
            "[[评分：８分]]",
            "【【8】】",
            "【【８分】】",
            "［［８］］",
            "[[Final rating: 8]]",
            "[[RATING: 8]]",
            "[[**Rating**: 8]]",
            "[[总分：8]]",
            "[[最终评分：8分]]",
            "[[\n8\n]]",
            "[[8]]/[[10]]",
            "[[8]] out of [[10]]",
            "[[8]]（满分[[10]]）",
        ] {
            assert_eq!(score(&format!("[[3]] was the example. 评分：{verdict}。")), Some(8.0));
            assert_eq!(score(verdict), Some(8.0), "{verdict}");
        }
        assert_eq!(label("[[不支持]]不对，应为【【**完全支持**】】"), Some(1.0));
        assert_eq!(label("[[No support]] 【【部分支持。】】"), Some(0.5));
    }

    #[test]
    fn an_unclear_last_number_is_not_replaced_by_an_earlier_one() {
        for verdict in [
            "[[1e1]]",
            "[[1.2.3]]",
            "[[8-9]]",
            "[[80%]]",
            "[[8 of 10]]",
            "[[8/100]]",
            "[[８０]]",
            "[[8 or 9]]",
            "[[⑧]]",
            "[[八]]",
            "[[八分]]",
            "[[8分（满分10分）]]",
            "[[8+]]",
            "[[(8)]]",
            "[[~8]]",
            "[[.5]]",
            "[[\\boxed{8}]]",
            "[[eight]]",
            "[[Eight out of ten]]",
            "[[Statement 2: 8]]",
            "[[8] out of [[10]]",
            "[[8] because the answer is short and to the point.",
            "[[8]，因为回答简短而切题。",
            "[[8\nThat is all.",
            "[[8】】",
            "[[and then it goes on for 10 more words",
        ] {
            let reply = format!("[[3]] was the example. Rating: {verdict}");
            assert_eq!(score(&reply), None, "{verdict}");
        }
    }

    #[test]
    fn references_and_placeholders_are_skipped() {
        for other in [
            "[[n]]",
            "[[inf]]",
            "[[]]",
            "[[rating]]",
            "[[n/10]]",
            "[[/10]]",
            "[[Passage 3]]",
            "[[Passages 1 and 3]]",
            "[[文段3]]",
            "[[文档0% - 12%部分]]",
            "[[0-10]]",
            "[[1 到 10]]",
            "[[评分]]",
            "[[",
        ] {
            assert_eq!(score(&format!("[[7]] as in {other}")), Some(7.0), "{other}");
        }
        for other in [
            "[[1]]",
            "[[...]]",
            "[[Passage 3]]",
            "[[No. 3]]",
            "[[支持程度]]",
            "[[support]]",
            "[[label]]",
            "[[标签]]",
            "[[Passage 1] and does not need [[Passage 2]].",
        ] {
            assert_eq!(label(&format!("[[Fully supported]], see {other}")), Some(1.0), "{other}");
        }
    }

    #[test]
    fn an_unclear_last_label_is_not_replaced_by_an_earlier_one() {
        assert_eq!(label("并非[[完全支持]]。[[不完全支持]]"), None);
        for verdict in [
            "[[支持]]",
            "[[未支持]]",
            "[[大部分支持]]",
            "[[Mostly supported]]",
            "[[Contradicted]]",
            "[[矛盾]]",
            "[[无法判断]]",
            "[[False]]",
            "[[Unclear]]",
            "[[No support] since the passages do not say so at all.",
        ] {
            assert_eq!(label(&format!("[[完全支持]]？{verdict}")), None, "{verdict}");
        }
    }

    #[test]
    fn a_last_verdict_that_is_cut_off_is_not_replaced_by_another() {
        assert_eq!(score("[[3]] was the example. Rating: [[8"), None);
        assert_eq!(score("[[3]] was the example. Rating: [[8]"), None);
        assert_eq!(label("[[Fully supported]] is wrong: [[No supp"), None);
        assert_eq!(score("[[7]]\n[[7]]\n[[7"), Some(7.0));
        assert_eq!(score("[[7]]\n[[7]"), Some(7.0));
        assert_eq!(label("[[No support]] [[No supp"), Some(0.0));
    }
}
