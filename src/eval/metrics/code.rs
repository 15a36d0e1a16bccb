//! How alike two lines of code are.

use super::difflib::matches;

/// `fuzz.ratio` of the prediction's first line without `` ` ``, `#` and `//`, as 0 to 1.
pub fn code_similarity(prediction: &str, reference: &str) -> f64 {
    let mut lines = prediction.trim_start_matches('\n').split('\n');
    let code = lines.find(|line| !line.contains(['`', '#']) && !line.contains("//"));
    f64::from(ratio(code.unwrap_or_default(), reference)) / 100.0
}

/// `fuzzywuzzy.fuzz.ratio` 0.18 without python-Levenshtein: twice the matching characters by the
/// characters of both, in whole percent, halves to the even number.
fn ratio(a: &str, b: &str) -> u8 {
    if a == b {
        return 100;
    }
    if a.is_empty() || b.is_empty() {
        return 0;
    }
    let [a, b] = [a, b].map(|text| text.chars().collect::<Vec<char>>());
    let share = 2.0 * matches(&a, &b) as f64 / (a.len() + b.len()) as f64;
    (100.0 * share).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_code_counts() {
        let reply = "\n```python\n# comment\n// comment\nreturn x\nmore";
        assert_eq!(code_similarity(reply, "return x"), 1.0);
        assert_eq!(code_similarity("`a`", "return x"), 0.0);
    }

    #[test]
    fn percents_are_whole() {
        assert_eq!((ratio("", ""), ratio("", "a"), ratio("abcd", "bcde")), (100, 0, 75));
        // 12.5 and 37.5 percent go to the even neighbour.
        assert_eq!((ratio("abcdefgh", "a1234567"), ratio("abcdefgh", "abc12345")), (12, 38));
    }
}
