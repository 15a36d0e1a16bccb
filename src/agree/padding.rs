//! Words that say nothing: does a judge give more for them?

use crate::judge::Lang;

/// Sentences of one language; none says anything of the matter or how good the answer is.
struct Padding {
    before: &'static str,
    /// Begun again when they are used up.
    after: &'static [&'static str],
    /// Between sentences.
    gap: &'static str,
}

const ENGLISH: Padding = Padding {
    before: "What follows is an answer to the question that was asked.",
    after: &[
        "This is what the answer has to say on the matter.",
        "The sentences above stand in the order in which they were written.",
        "They can be read one after the other, from the first to the last.",
        "Nothing is added here to what has been said already.",
        "The question was read before the answer was written.",
        "With this the answer comes to its end.",
    ],
    gap: " ",
};

const CHINESE: Padding = Padding {
    before: "下面是对所提问题的回答。",
    after: &[
        "以上就是这个回答要说的内容。",
        "上面的句子按写下的先后顺序排列。",
        "可以从第一句读到最后一句。",
        "这里没有在已说的内容之外再作补充。",
        "回答是在读过问题之后写的。",
        "回答到此结束。",
    ],
    gap: "",
};

/// The answer between sentences that say nothing, in its language: one before it, and after it as
/// many as make up half its length, three at least.
pub fn padded(answer: &str) -> String {
    let Padding { before, after, gap } = match Lang::choose(&[answer]) {
        Lang::En => ENGLISH,
        Lang::Zh => CHINESE,
    };
    let wanted = answer.chars().count() / 2;
    let mut added = before.chars().count();
    let mut text = format!("{before}\n\n{answer}\n\n");
    for (i, sentence) in after.iter().cycle().enumerate() {
        if i >= 3 && added >= wanted {
            break;
        }
        text += if i == 0 { "" } else { gap };
        text += sentence;
        added += sentence.chars().count();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_answers_get_four_sentences_and_long_ones_half_their_length() {
        let short = padded("It was red.");
        assert!(short.starts_with("What follows") && short.contains("\n\nIt was red.\n\nThis is"));
        assert_eq!(short.matches('.').count(), 1 + 1 + 3);
        let answer = "It was red and blue. ".repeat(100);
        let long = padded(&answer);
        let share = (long.len() - answer.len()) as f64 / answer.len() as f64;
        assert!((0.5..0.55).contains(&share), "{share}");
        assert_eq!(padded(&answer), long);
    }

    #[test]
    fn the_language_is_that_of_the_answer() {
        assert!(padded("它是红色的。").contains("\n\n它是红色的。\n\n以上就是"));
    }
}
