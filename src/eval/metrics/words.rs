//! Chinese words.

use jieba_rs::Jieba;
use std::sync::LazyLock;

/// Its dictionary takes a moment to read, so it is read once and only if it is needed.
static JIEBA: LazyLock<Jieba> = LazyLock::new(Jieba::new);

/// `jieba.cut(text)`: dictionary words, and unknown ones by jieba's hidden Markov model.
pub fn cut(text: &str) -> Vec<&str> {
    JIEBA.cut(text, true)
}
