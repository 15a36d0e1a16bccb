//! Sentences of English and Chinese text.

/// The sentences of an answer that can pass for statements.
pub fn statements_of(answer: &str) -> Vec<String> {
    let _ = answer;
    Vec::new()
}
