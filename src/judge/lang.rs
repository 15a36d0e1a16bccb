//! The language of a prompt.

use crate::retrieval::script::is_han;
use serde::{Deserialize, Serialize};

/// A language that the judge has prompts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    En,
    Zh,
}

impl Lang {
    /// English when Latin letters outnumber Han characters more than 4 to 1, else Chinese.
    pub fn choose(texts: &[&str]) -> Self {
        let chars = || texts.iter().flat_map(|text| text.chars());
        let latin = chars().filter(|&c| is_latin(c)).count();
        let han = chars().filter(|&c| is_han(c)).count();
        if latin > 4 * han { Lang::En } else { Lang::Zh }
    }
}

/// What the user wants: a language for everything, or one chosen per item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LangChoice {
    #[default]
    Auto,
    En,
    Zh,
}

impl LangChoice {
    /// The language for these texts.
    pub fn resolve(self, texts: &[&str]) -> Lang {
        match self {
            LangChoice::Auto => Lang::choose(texts),
            LangChoice::En => Lang::En,
            LangChoice::Zh => Lang::Zh,
        }
    }
}

impl std::str::FromStr for LangChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(LangChoice::Auto),
            "en" => Ok(LangChoice::En),
            "zh" => Ok(LangChoice::Zh),
            other => Err(format!("unknown language {other:?}: use auto, en or zh")),
        }
    }
}

/// A letter of the Latin script, with or without diacritics.
fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic() || (c.is_alphabetic() && matches!(c, '\u{c0}'..='\u{24f}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn english_needs_more_than_four_letters_per_han_character() {
        assert_eq!(Lang::choose(&["abcd汉"]), Lang::Zh);
        assert_eq!(Lang::choose(&["abcde汉"]), Lang::En);
        assert_eq!(Lang::choose(&["ab", "cde", "汉"]), Lang::En);
    }

    #[test]
    fn digits_and_punctuation_do_not_count() {
        assert_eq!(Lang::choose(&["1234567890 ,.!?[]_^ 汉"]), Lang::Zh);
        assert_eq!(Lang::choose(&["é à ü ñ ß 1234"]), Lang::En);
        assert_eq!(Lang::choose(&[""]), Lang::Zh);
    }

    #[test]
    fn a_forced_language_ignores_the_texts() {
        assert_eq!(LangChoice::Zh.resolve(&["plain English"]), Lang::Zh);
        assert_eq!("en".parse::<LangChoice>().unwrap().resolve(&["汉字"]), Lang::En);
        assert_eq!("auto".parse::<LangChoice>().unwrap().resolve(&["汉字"]), Lang::Zh);
        assert!("english".parse::<LangChoice>().unwrap_err().contains("auto, en or zh"));
    }
}
