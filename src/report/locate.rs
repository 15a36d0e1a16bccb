//! Where a passage stands in its document.

use serde::Serialize;

/// A part of a document, as shares of its characters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Position {
    /// 0 is the document's beginning.
    pub start: f64,
    /// 1 is its end.
    pub end: f64,
    /// First character, from 0; where the text was not found, only the shares are known, and they
    /// are the judge's token counts.
    pub offset: Option<usize>,
}

/// Finds `passage` in `document`. `tokens` are the passage's first token, the token after its last
/// and all tokens of the document: of several occurrences the one nearest to where the tokens say
/// is taken, and the tokens stand in where there is none.
pub fn locate(document: &str, passage: &str, tokens: [usize; 3]) -> Position {
    let [first, end, all] = tokens.map(|count| count as f64);
    let all = all.max(1.0);
    let expected = first / all * document.len() as f64;
    let distance = |at: &usize| (*at as f64 - expected).abs();
    let nearest = document
        .match_indices(passage)
        .map(|(at, _)| at)
        .min_by(|a, b| distance(a).total_cmp(&distance(b)));
    match nearest {
        Some(at) if !passage.is_empty() => exact(document, passage, at),
        _ => Position { start: share(first / all), end: share(end / all), offset: None },
    }
}

fn exact(document: &str, passage: &str, at: usize) -> Position {
    let chars = document.chars().count() as f64;
    let offset = document[..at].chars().count();
    let end = offset + passage.chars().count();
    Position {
        start: share(offset as f64 / chars),
        end: share(end as f64 / chars),
        offset: Some(offset),
    }
}

/// Within 0 to 1, rounded to what a screen can show.
fn share(value: f64) -> f64 {
    (value.clamp(0.0, 1.0) * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_characters() {
        let found = locate("éé 磨坊 end", "磨坊", [1, 2, 4]);
        assert_eq!(found, Position { start: 0.3333, end: 0.5556, offset: Some(3) });
    }

    #[test]
    fn of_repeated_passages_the_nearest_is_taken() {
        let document = "abc.".repeat(100);
        let found = locate(&document, "abc.", [50, 51, 100]);
        assert_eq!(found.offset, Some(200));
        assert_eq!(locate(&document, "abc.", [0, 1, 100]).offset, Some(0));
    }

    #[test]
    fn tokens_stand_in_for_a_text_that_is_not_found() {
        let found = locate("something else", "chunk", [25, 50, 100]);
        assert_eq!(found, Position { start: 0.25, end: 0.5, offset: None });
        assert_eq!(locate("", "", [0, 0, 0]), Position { start: 0.0, end: 0.0, offset: None });
    }
}
