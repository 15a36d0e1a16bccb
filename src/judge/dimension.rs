//! The one table of what the judge asks: file names, holes and token budget of each prompt.

use super::template::Hole::{self, Answer, Context, Question, Statement};
use serde::{Deserialize, Serialize};

/// One of the four scores of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    Helpfulness,
    Logicality,
    Faithfulness,
    Completeness,
}

impl Dimension {
    /// All four, in the order in which records list them.
    pub const ALL: [Dimension; 4] = [
        Dimension::Helpfulness,
        Dimension::Logicality,
        Dimension::Faithfulness,
        Dimension::Completeness,
    ];

    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Helpfulness => "helpfulness",
            Dimension::Logicality => "logicality",
            Dimension::Faithfulness => "faithfulness",
            Dimension::Completeness => "completeness",
        }
    }
}

/// One of the prompts. Faithfulness takes [`Statements`](PromptKind::Statements) and
/// [`Support`](PromptKind::Support), completeness takes [`Extract`](PromptKind::Extract) before
/// [`Completeness`](PromptKind::Completeness). Those after `Extract` are not part of the published
/// method: `…Verdict` asks for the verdict without an analysis, `Supports…` for one on each of
/// several statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromptKind {
    Helpfulness,
    Logicality,
    Statements,
    Support,
    Completeness,
    Extract,
    HelpfulnessVerdict,
    LogicalityVerdict,
    SupportVerdict,
    CompletenessVerdict,
    Supports,
    SupportsVerdict,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    pub kind: PromptKind,
    /// File name of our own prompt, without `.txt`, in `prompts/en` and `prompts/zh`.
    pub file: &'static str,
    /// File names, without `.txt`, of the public code: for an English and for a Chinese item.
    pub public_files: [&'static str; 2],
    /// Holes that a template must have.
    pub required: &'static [Hole],
    /// Holes that it may have.
    pub optional: &'static [Hole],
    /// Budget of one reply; for several statements, of each.
    pub max_new_tokens: usize,
}

/// How many rows of the table the published method has; they come first.
pub const PUBLISHED: usize = 6;

/// In the order of [`PromptKind`].
pub const TABLE: [Row; 12] = [
    Row {
        kind: PromptKind::Helpfulness,
        file: "helpfulness",
        public_files: ["helpfulness_few_shot"; 2],
        required: &[Question, Answer],
        optional: &[],
        max_new_tokens: 512,
    },
    Row {
        kind: PromptKind::Logicality,
        file: "logicality",
        public_files: ["logicality_few_shot"; 2],
        required: &[Question, Answer],
        optional: &[],
        max_new_tokens: 512,
    },
    Row {
        kind: PromptKind::Statements,
        file: "statements",
        public_files: ["find_fact_few_shot"; 2],
        required: &[Question, Answer],
        optional: &[],
        max_new_tokens: 2048,
    },
    Row {
        kind: PromptKind::Support,
        file: "support",
        public_files: ["faithfulness_few_shot"; 2],
        required: &[Context, Statement],
        optional: &[Question],
        max_new_tokens: 512,
    },
    Row {
        kind: PromptKind::Completeness,
        file: "completeness",
        public_files: ["completeness_few_shot"; 2],
        required: &[Context, Question, Answer],
        optional: &[],
        max_new_tokens: 512,
    },
    Row {
        kind: PromptKind::Extract,
        file: "extract",
        public_files: ["extract_info_en", "extract_info_zh"],
        required: &[Context, Question],
        optional: &[],
        max_new_tokens: 1024,
    },
    Row {
        kind: PromptKind::HelpfulnessVerdict,
        file: "helpfulness_verdict",
        public_files: ["helpfulness_verdict"; 2],
        required: &[Question, Answer],
        optional: &[],
        max_new_tokens: 16,
    },
    Row {
        kind: PromptKind::LogicalityVerdict,
        file: "logicality_verdict",
        public_files: ["logicality_verdict"; 2],
        required: &[Question, Answer],
        optional: &[],
        max_new_tokens: 16,
    },
    Row {
        kind: PromptKind::SupportVerdict,
        file: "support_verdict",
        public_files: ["support_verdict"; 2],
        required: &[Context, Statement],
        optional: &[Question],
        max_new_tokens: 16,
    },
    Row {
        kind: PromptKind::CompletenessVerdict,
        file: "completeness_verdict",
        public_files: ["completeness_verdict"; 2],
        required: &[Context, Question, Answer],
        optional: &[],
        max_new_tokens: 16,
    },
    Row {
        kind: PromptKind::Supports,
        file: "supports",
        public_files: ["supports"; 2],
        required: &[Context, Statement],
        optional: &[Question],
        max_new_tokens: 256,
    },
    Row {
        kind: PromptKind::SupportsVerdict,
        file: "supports_verdict",
        public_files: ["supports_verdict"; 2],
        required: &[Context, Statement],
        optional: &[Question],
        max_new_tokens: 32,
    },
];

impl PromptKind {
    /// Its row of the table.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The prompt that asks the same without an analysis; itself if there is none.
    pub fn verdict_first(self) -> Self {
        match self {
            PromptKind::Helpfulness => PromptKind::HelpfulnessVerdict,
            PromptKind::Logicality => PromptKind::LogicalityVerdict,
            PromptKind::Support => PromptKind::SupportVerdict,
            PromptKind::Completeness => PromptKind::CompletenessVerdict,
            PromptKind::Supports => PromptKind::SupportsVerdict,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_finds_its_own_row() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.kind as usize, index);
            assert_eq!(row.kind.row().file, row.file);
        }
    }

    #[test]
    fn names_are_those_of_the_records() {
        for dimension in Dimension::ALL {
            let json = serde_json::to_value(dimension).unwrap();
            assert_eq!(json, dimension.name());
        }
    }
}
