//! What people said of claims and answers, and reading it from files.
//!
//! ## Files
//! JSON Lines, or one JSON array of rows (its rows are then reported by the line they begin on).
//! Each row is of one of three kinds, told apart by their fields; a file may mix them. `idx` (a
//! string or an integer; the line number if there is none) names a row, `query` may be left out of
//! the first kind, `context` of the others.
//!
//! | kind | fields |
//! |---|---|
//! | support | `claim`, `evidence` (text, or a list of sentences), `label`: `supported`, `partially_supported` or `not_supported`; `supporting`: numbers (from 0) of the sentences of `evidence` that hold the support, or a list of such sets, each enough by itself; `query` |
//! | pairwise | `query`, `context`, `response_a`, `response_b`, `label`: `a`, `b` or `tie`; `author_a`, `author_b` |
//! | rating | `query`, `context`, `answer`, `rating`: a number, higher is better; `author` |
//!
//! An author is the name of the model (or person) that wrote an answer. It may be left out; where it
//! is given, it shows whether a judge favours answers of its own.
//!
//! Several annotators: `labels` (or `ratings`), a list, in the place of `label` (`rating`). The
//! most frequent label counts, or the middle of equally frequent ones in order (`a`, `tie`, `b`; for
//! support the lower); of ratings the mean.
//!
//! Rows in the formats of WiCE ([`wice`]) and LLMBar ([`llmbar`]) are read as they are.

mod array;
pub mod llmbar;
mod own;
mod read;
pub mod wice;

pub use read::{Format, Labels, read_array};

use crate::judge::{Lang, LangChoice};
use crate::pipeline::records::input_hash;
use serde::{Deserialize, Serialize};

/// A row of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Unique in its file.
    pub idx: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Support(Claim),
    Pairwise(Pair),
    Rating(Rating),
}

/// A claim with what may support it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    pub query: String,
    pub claim: String,
    /// Sentences, or the one text that was given.
    pub evidence: Vec<String>,
    pub label: Level,
    /// Of every annotator, if there are several.
    pub votes: Vec<Level>,
    /// Sets of sentences, each of which is enough by itself. None is empty.
    pub supporting: Vec<Vec<usize>>,
}

/// Two answers to one question.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub query: String,
    pub context: Option<String>,
    pub responses: [String; 2],
    /// Who wrote them, if that is known.
    pub authors: [Option<String>; 2],
    pub label: Preference,
    /// Of every annotator, if there are several.
    pub votes: Vec<Preference>,
}

/// An answer with the number that people gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rating {
    pub query: String,
    pub context: Option<String>,
    pub answer: String,
    /// Who wrote it, if that is known.
    pub author: Option<String>,
    pub rating: f64,
    /// Of every annotator, if there are several.
    pub votes: Vec<f64>,
}

/// How far evidence supports a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    #[serde(rename = "not_supported")]
    Not,
    #[serde(rename = "partially_supported")]
    Partially,
    #[serde(rename = "supported")]
    Fully,
}

impl Level {
    /// In order, as confusion matrices have them.
    pub const ALL: [Level; 3] = [Level::Not, Level::Partially, Level::Fully];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        ["not_supported", "partially_supported", "supported"][self as usize]
    }

    /// As the judge scores it: 0, 0.5 or 1.
    pub fn score(self) -> f64 {
        self as usize as f64 / 2.0
    }

    /// The level of a judge's score: the nearest, and of two the lower.
    pub fn of_score(score: f64) -> Self {
        match score {
            score if score > 0.75 => Level::Fully,
            score if score > 0.25 => Level::Partially,
            _ => Level::Not,
        }
    }
}

/// Which of two answers is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    A,
    Tie,
    B,
}

impl Preference {
    /// In order, as confusion matrices have them.
    pub const ALL: [Preference; 3] = [Preference::A, Preference::Tie, Preference::B];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        ["a", "tie", "b"][self as usize]
    }

    /// What two scores say.
    pub fn of_scores(a: f64, b: f64) -> Self {
        match a.total_cmp(&b) {
            std::cmp::Ordering::Greater => Preference::A,
            std::cmp::Ordering::Equal => Preference::Tie,
            std::cmp::Ordering::Less => Preference::B,
        }
    }

    /// 1 for a, 0 for a tie, -1 for b.
    pub fn sign(self) -> f64 {
        1.0 - self as usize as f64
    }
}

impl Item {
    /// Over all that the judge sees, not the labels.
    pub fn hash(&self) -> String {
        match &self.kind {
            Kind::Support(claim) => {
                let evidence: Vec<&str> = claim.evidence.iter().map(String::as_str).collect();
                let texts = [&["support", &claim.query, &claim.claim][..], &evidence].concat();
                input_hash(&texts)
            }
            Kind::Pairwise(pair) => {
                let [a, b] = &pair.responses;
                input_hash(&["pairwise", &pair.query, context_of(&pair.context), a, b])
            }
            Kind::Rating(rated) => {
                let context = context_of(&rated.context);
                input_hash(&["rating", &rated.query, context, &rated.answer])
            }
        }
    }

    /// The language of the prompts that the item is judged with, if it is one.
    pub fn lang(&self, choice: LangChoice) -> Option<Lang> {
        match &self.kind {
            Kind::Support(claim) => Some(choice.resolve(&[&claim.query, &claim.claim])),
            Kind::Pairwise(Pair { query, responses: [a, b], .. }) => {
                let lang = choice.resolve(&[query, a]);
                (lang == choice.resolve(&[query, b])).then_some(lang)
            }
            Kind::Rating(row) => Some(choice.resolve(&[&row.query, &row.answer])),
        }
    }

    /// Items with the same prompt, or claims with the same evidence, are drawn together when
    /// intervals are made.
    pub fn prompt(&self) -> String {
        match &self.kind {
            Kind::Support(claim) => {
                let evidence: Vec<&str> = claim.evidence.iter().map(String::as_str).collect();
                input_hash(&evidence)
            }
            Kind::Pairwise(Pair { query, context, .. })
            | Kind::Rating(Rating { query, context, .. }) => {
                input_hash(&[query, context_of(context)])
            }
        }
    }
}

fn context_of(context: &Option<String>) -> &str {
    context.as_deref().unwrap_or_default()
}

/// The most frequent value, or of equally frequent ones the middle (of an even number the lower).
/// `None` of no values.
fn most_frequent<T: Ord + Copy>(votes: &[T]) -> Option<T> {
    let count = |value: &T| votes.iter().filter(|vote| *vote == value).count();
    let most = votes.iter().map(count).max()?;
    let mut best: Vec<T> = votes.iter().copied().filter(|value| count(value) == most).collect();
    best.sort_unstable();
    best.dedup();
    best.get((best.len() - 1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Preference::{A, B, Tie};

    #[test]
    fn votes_come_to_one_label() {
        assert_eq!(most_frequent(&[A, B, A]), Some(A));
        assert_eq!(most_frequent(&[B, A, Tie]), Some(Tie));
        assert_eq!(most_frequent(&[Level::Fully, Level::Not]), Some(Level::Not));
        assert_eq!(most_frequent::<Level>(&[]), None);
    }

    #[test]
    fn names_are_those_of_files() {
        for level in Level::ALL {
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
            assert_eq!(Level::of_score(level.score()), level);
        }
        for preference in Preference::ALL {
            assert_eq!(serde_json::to_value(preference).unwrap(), preference.name());
        }
        assert_eq!((A.sign(), Tie.sign(), B.sign()), (1.0, 0.0, -1.0));
        assert_eq!(Preference::of_scores(1.0, 2.0), B);
    }

    #[test]
    fn labels_are_no_part_of_the_hash() {
        let pair = |label, response: &str| Item {
            idx: "1".to_owned(),
            kind: Kind::Pairwise(Pair {
                query: "q".to_owned(),
                context: None,
                responses: ["x".to_owned(), response.to_owned()],
                authors: [const { None }; 2],
                label,
                votes: Vec::new(),
            }),
        };
        assert_eq!(pair(A, "y").hash(), pair(B, "y").hash());
        assert_ne!(pair(A, "y").hash(), pair(A, "z").hash());
        assert_eq!(pair(A, "y").prompt(), pair(A, "z").prompt());
    }
}
