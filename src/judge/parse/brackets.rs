//! Verdicts in double brackets.
//!
//! Judges write them in many ways. What can mean one verdict only is read as that (`[[**8**]]`,
//! `[[８]]`, `[[8分]]`, `【【8】】`); what is meant as a verdict and is not clear makes the reply
//! unreadable, since an earlier one is not what the judge ended with; all else is skipped.

use super::Mark;
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

/// The longest text after an opening that a reply can be cut off in and still mean a verdict.
const LONGEST: usize = 24;

/// The rating in the last brackets that hold one.
pub(super) fn last_rating(reply: &str, low: f64, high: f64) -> Option<Mark> {
    last_mark(reply, |content| read_rating(content, low, high))
}

/// The degree of support in the last brackets that hold a label.
pub(super) fn last_label(reply: &str) -> Option<Mark> {
    last_mark(reply, read_label)
}

fn last_mark(reply: &str, read: impl Fn(&str) -> Bracket) -> Option<Mark> {
    let mut cut_off: Option<&str> = None;
    for (inside, close) in openings(reply).into_iter().rev() {
        let content = &reply[inside..];
        let Some(length) = content.find(close) else {
            let begun = content.trim().trim_end_matches([']', '】', '］']);
            // Only the last can have lost its end to the token budget.
            let meant = begun.len() <= LONGEST && read(begun) != Bracket::Other;
            cut_off = cut_off.or(meant.then_some(begun));
            continue;
        };
        let content = &content[..length];
        return match read(content) {
            Bracket::Other => continue,
            Bracket::Invalid => None,
            // A verdict that is repeated until the reply ends is the same verdict.
            Bracket::Score(_) if cut_off.is_some_and(|cut| !content.trim().starts_with(cut)) => {
                None
            }
            Bracket::Score(score) => Some(Mark { score, inside }),
        };
    }
    None
}

/// The byte after each opening, ascending, and the closing that belongs to it.
fn openings(reply: &str) -> Vec<(usize, &'static str)> {
    let opening = |(at, _): (usize, char)| {
        let (open, close) = BRACKETS.iter().find(|(open, _)| reply[at..].starts_with(open))?;
        Some((at + open.len(), *close))
    };
    reply.char_indices().filter_map(opening).collect()
}

/// Without the marks around it that say nothing, with the full-width characters of numbers folded.
fn plain(content: &str) -> Cow<'_, str> {
    let marks = |c: char| c.is_whitespace() || "*_`\"'“”‘’".contains(c);
    let ends = |c: char| marks(c) || "。.,，;；".contains(c);
    let content = content.trim_start_matches(marks).trim_end_matches(ends);
    if content.is_ascii() {
        return content.into();
    }
    let folded = content.chars().map(|c| match c {
        '０'..='９' | '．' | '／' | '－' | '：' | '％' => {
            char::from_u32(c as u32 - 0xFEE0).unwrap_or(c)
        }
        c => c,
    });
    folded.collect::<String>().into()
}

fn read_rating(content: &str, low: f64, high: f64) -> Bracket {
    let content = plain(content);
    if is_scale(&content, low, high) {
        return Bracket::Other;
    }
    let unnamed = without_name(&content);
    let (number, scale) = match split_scale(unnamed) {
        Some((number, scale)) => (without_unit(number), decimal(without_unit(scale))),
        None => (without_unit(unnamed), Some(high)),
    };
    match (decimal(number), scale) {
        (Some(score), Some(scale)) if scale == high && (low..=high).contains(&score) => {
            Bracket::Score(score + 0.0)
        }
        (Some(_), Some(_)) => Bracket::Invalid,
        _ if begins_with_number(unnamed) => Bracket::Invalid,
        _ => Bracket::Other,
    }
}

/// `8/10`, `8 out of 10`.
fn split_scale(content: &str) -> Option<(&str, &str)> {
    content.split_once('/').or_else(|| content.split_once(" out of "))
}

/// `0-10`, `1 to 10`: what a prompt says of its scale.
fn is_scale(content: &str, low: f64, high: f64) -> bool {
    let ends = ["-", "–", "~", "～", " to ", "到", "至"].iter().find_map(|between| {
        let (from, to) = content.split_once(between)?;
        Some((decimal(from.trim())?, decimal(to.trim())?))
    });
    ends.is_some_and(|(from, to)| (from == low || from == 1.0) && to == high)
}

/// `Rating: 8`, `评分：8` are the number.
fn without_name(content: &str) -> &str {
    const NAMES: [&str; 6] = ["Rating", "rating", "Score", "score", "评分", "得分"];
    let rest = NAMES.iter().find_map(|name| content.strip_prefix(name));
    rest.map_or(content, |rest| rest.trim_start_matches([':', ' ']))
}

fn without_unit(number: &str) -> &str {
    let number = number.trim();
    number.strip_suffix('分').unwrap_or(number).trim_end()
}

/// Also a numeral of another script, and Chinese ones alone.
fn begins_with_number(content: &str) -> bool {
    let digits = content.strip_prefix('-').unwrap_or(content);
    let chinese = |c: char| "零一二三四五六七八九十".contains(c);
    let amount = without_unit(content);
    digits.starts_with(char::is_numeric) || !amount.is_empty() && amount.chars().all(chinese)
}

/// A number in plain decimal notation (`f64::from_str` alone would take `inf` and `1e1` as well).
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { text.parse().ok() } else { None }
}

fn read_label(content: &str) -> Bracket {
    let content = plain(content).to_lowercase();
    match content.as_str() {
        "完全支持" => return Bracket::Score(1.0),
        "部分支持" => return Bracket::Score(0.5),
        "不支持" | "无支持" | "没有支持" => return Bracket::Score(0.0),
        _ => {}
    }
    let words: Vec<&str> = content.split(|c: char| !c.is_alphabetic()).collect();
    let says = |any_of: &[&str]| words.iter().any(|word| any_of.contains(word));
    let scores = [
        (says(&["full", "fully"]), 1.0),
        (says(&["partial", "partially"]), 0.5),
        (says(&["no", "not", "none", "unsupported"]), 0.0),
    ];
    let mut said = scores.iter().filter(|(said, _)| *said);
    match (said.next(), said.next()) {
        (None, _) if says(&["supported"]) || names_support(&content) => Bracket::Invalid,
        (None, _) => Bracket::Other,
        (Some(&(_, score)), None) => Bracket::Score(score),
        (Some(_), Some(_)) => Bracket::Invalid,
    }
}

/// Whether it says something of support in Chinese, other than what the label is called.
fn names_support(content: &str) -> bool {
    const CALLED: [&str; 5] = ["程度", "度", "等级", "级别", "情况"];
    let after = content.split_once("支持").map(|(_, after)| after);
    after.is_some_and(|after| !CALLED.iter().any(|called| after.starts_with(called)))
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
        ] {
            assert_eq!(score(&format!("[[3]] was the example. Rating: {verdict}")), None);
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
            "[[.5]]",
            "[[Passage 3]]",
            "[[0-10]]",
            "[[1 到 10]]",
            "[[评分]]",
            "[[",
            "[[and then it goes on for 10 more words",
        ] {
            assert_eq!(score(&format!("[[7]] as in {other}")), Some(7.0), "{other}");
        }
        for other in ["[[1]]", "[[Passage 3]]", "[[支持程度]]", "[[support]]", "[[标签]]"] {
            assert_eq!(label(&format!("[[Fully supported]], see {other}")), Some(1.0), "{other}");
        }
    }

    #[test]
    fn an_unclear_last_label_is_not_replaced_by_an_earlier_one() {
        assert_eq!(label("并非[[完全支持]]。[[不完全支持]]"), None);
        for verdict in ["[[支持]]", "[[未支持]]", "[[大部分支持]]", "[[Mostly supported]]"]
        {
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
