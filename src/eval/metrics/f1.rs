//! F1 of the words in common.

use super::{python, words};
use std::collections::HashMap;

/// Over English words.
pub fn qa_f1(prediction: &str, reference: &str) -> f64 {
    let (prediction, reference) = (normalised(prediction), normalised(reference));
    f1(
        &python::split(&prediction).collect::<Vec<_>>(),
        &python::split(&reference).collect::<Vec<_>>(),
    )
}

/// Over Chinese words.
pub fn qa_f1_zh(prediction: &str, reference: &str) -> f64 {
    f1(&words_zh(prediction), &words_zh(reference))
}

/// Lower-cased, without punctuation, and with a space for every article.
fn normalised(text: &str) -> String {
    let mut text = text.to_lowercase();
    text.retain(|c| !python::is_punctuation(c));
    let article = |found: &regex::Captures| match &found[0] {
        "a" | "an" | "the" => " ".to_owned(),
        other => other.to_owned(),
    };
    python::words().replace_all(&text, article).into_owned()
}

/// Punctuation of Chinese texts, besides that of ASCII.
const PUNCTUATION: &str = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏.";

fn words_zh(text: &str) -> Vec<String> {
    let words = words::cut(text).into_iter().map(|word| {
        let lower = word.to_lowercase();
        let kept = |c: &char| {
            !python::is_punctuation(*c) && !PUNCTUATION.contains(*c) && !python::is_space(*c)
        };
        lower.chars().filter(kept).collect::<String>()
    });
    words.filter(|word| !word.is_empty()).collect()
}

/// Words are matched as often as they occur on both sides.
fn f1<T: std::hash::Hash + Eq>(prediction: &[T], reference: &[T]) -> f64 {
    let mut left: HashMap<&T, usize> = HashMap::new();
    reference.iter().for_each(|word| *left.entry(word).or_default() += 1);
    let mut same = 0;
    for word in prediction {
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let precision = f64::from(same) / prediction.len() as f64;
    let recall = f64::from(same) / reference.len() as f64;
    2.0 * precision * recall / (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_are_whole_words() {
        assert_eq!(normalised("The an-swer: A. theory_a"), "  answer   theorya");
        assert_eq!(qa_f1("the", "a"), 0.0);
        assert_eq!(qa_f1("It's the Mill.", "its mill"), 1.0);
    }

    #[test]
    fn words_count_as_often_as_they_occur() {
        // 2 of 3 predicted, 2 of 2 wanted.
        assert!((qa_f1("red red red", "red red") - 0.8).abs() < 1e-12);
    }

    #[test]
    fn chinese_words_lose_their_punctuation() {
        assert_eq!(words_zh("厦门大学。 ABC，"), ["厦门大学", "abc"]);
        assert_eq!(qa_f1_zh("《厦门大学》", "厦门大学。"), qa_f1_zh("《厦门大学", "厦门大学"));
        assert_eq!((qa_f1_zh("", "厦门"), qa_f1_zh("。", "。")), (0.0, 0.0));
    }
}
