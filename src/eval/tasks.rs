//! LongBench's sets, as data.

use super::metrics::Metric;
use serde::{Deserialize, Serialize};

/// Sets that are averaged together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    SingleDoc,
    MultiDoc,
    Summarization,
    FewShot,
    Synthetic,
    Code,
    /// LongBench-Chat is a class of its own.
    Chat,
}

impl Class {
    /// All, in the order in which they are shown.
    pub const ALL: [Class; 7] = [
        Class::SingleDoc,
        Class::MultiDoc,
        Class::Summarization,
        Class::FewShot,
        Class::Synthetic,
        Class::Code,
        Class::Chat,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Class::SingleDoc => "single-document QA",
            Class::MultiDoc => "multi-document QA",
            Class::Summarization => "summarization",
            Class::FewShot => "few-shot",
            Class::Synthetic => "synthetic",
            Class::Code => "code",
            Class::Chat => "chat",
        }
    }
}

/// What the judge is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rubric {
    /// Right, partly right or wrong: 1 to 3.
    Qa,
    /// A summary's quality, 1 to 5.
    Summary,
    /// An answer's quality beside three rated ones, 1 to 10.
    Chat,
}

impl Rubric {
    /// The lowest and the highest rating.
    pub fn scale(self) -> (u8, u8) {
        match self {
            Rubric::Qa => (1, 3),
            Rubric::Summary => (1, 5),
            Rubric::Chat => (1, 10),
        }
    }

    /// A rating as 0 to 1: (s - 1) / 2, (s - 1) / 4, s / 10.
    pub fn share(self, rating: f64) -> f64 {
        match self {
            Rubric::Qa | Rubric::Summary => {
                let (low, high) = self.scale();
                (rating - f64::from(low)) / f64::from(high - low)
            }
            Rubric::Chat => rating / 10.0,
        }
    }
}

/// One set of LongBench.
#[derive(Debug, PartialEq)]
pub struct Task {
    pub name: &'static str,
    pub class: Class,
    pub metric: Metric,
    /// New tokens that the suite allows.
    pub max_new_tokens: usize,
    /// Whether the prompt goes into the chat template. Prompts of examples, or of code, are
    /// continued as they are.
    pub chat_template: bool,
    /// Only the first line of a prediction is measured.
    pub first_line: bool,
    /// Where a prediction ends early.
    pub stop: &'static [&'static str],
    /// Whether LongBench-E has it.
    pub in_e: bool,
}

impl Task {
    /// What the judge is asked in LongReward's protocol, which leaves out the sets without.
    pub fn rubric(&self) -> Option<Rubric> {
        match self.class {
            Class::SingleDoc | Class::MultiDoc => Some(Rubric::Qa),
            Class::Summarization => Some(Rubric::Summary),
            _ => None,
        }
    }

    /// The set of this name.
    pub fn named(name: &str) -> Option<&'static Task> {
        TASKS.iter().find(|task| task.name == name)
    }

    const fn plain(
        name: &'static str,
        class: Class,
        metric: Metric,
        max_new_tokens: usize,
    ) -> Self {
        let (chat_template, first_line, in_e) = (true, false, false);
        Self { name, class, metric, max_new_tokens, chat_template, first_line, stop: &[], in_e }
    }

    const fn in_e(self) -> Self {
        Self { in_e: true, ..self }
    }

    const fn continued(self) -> Self {
        Self { chat_template: false, ..self }
    }

    const fn first_line(self) -> Self {
        Self { first_line: true, ..self }
    }

    const fn until_line_break(self) -> Self {
        Self { stop: &["\n"], ..self }
    }
}

/// All 21, in the order of the suite's tables.
pub const TASKS: [Task; 21] = {
    use Class::*;
    use Metric::*;
    [
        Task::plain("narrativeqa", SingleDoc, QaF1, 128),
        Task::plain("qasper", SingleDoc, QaF1, 128).in_e(),
        Task::plain("multifieldqa_en", SingleDoc, QaF1, 64).in_e(),
        Task::plain("multifieldqa_zh", SingleDoc, QaF1Zh, 64),
        Task::plain("hotpotqa", MultiDoc, QaF1, 32).in_e(),
        Task::plain("2wikimqa", MultiDoc, QaF1, 32).in_e(),
        Task::plain("musique", MultiDoc, QaF1, 32),
        Task::plain("dureader", MultiDoc, RougeLZh, 128),
        Task::plain("gov_report", Summarization, RougeL, 512).in_e(),
        Task::plain("qmsum", Summarization, RougeL, 512),
        Task::plain("multi_news", Summarization, RougeL, 512).in_e(),
        Task::plain("vcsum", Summarization, RougeLZh, 512),
        Task::plain("trec", FewShot, Classification, 64).in_e().continued().first_line(),
        Task::plain("triviaqa", FewShot, QaF1, 32).in_e().continued().first_line(),
        Task::plain("samsum", FewShot, RougeL, 128)
            .in_e()
            .continued()
            .first_line()
            .until_line_break(),
        Task::plain("lsht", FewShot, Classification, 64).continued().first_line(),
        Task::plain("passage_count", Synthetic, Count, 32).in_e(),
        Task::plain("passage_retrieval_en", Synthetic, Retrieval, 32).in_e(),
        Task::plain("passage_retrieval_zh", Synthetic, RetrievalZh, 32),
        Task::plain("lcc", Code, CodeSimilarity, 64).in_e().continued(),
        Task::plain("repobench-p", Code, CodeSimilarity, 64).in_e().continued(),
    ]
};

/// In which way LongBench is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// As LongReward does: 12 sets, the document and the question alone, 1,024 new tokens, a judge.
    LongReward,
    /// As the suite does: all sets, instructions for short answers, its own numbers of new tokens.
    LongBench,
}

/// New tokens in LongReward's protocol and in LongBench-Chat.
pub const LONG_REPLY: usize = 1024;

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::LongReward => "longreward",
            Protocol::LongBench => "longbench",
        }
    }

    /// The sets that it has; of LongBench-E only, if wanted.
    pub fn tasks(self, e: bool) -> impl Iterator<Item = &'static Task> {
        TASKS.iter().filter(move |task| match self {
            Protocol::LongReward => task.rubric().is_some() && (task.in_e || !e),
            Protocol::LongBench => task.in_e || !e,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_their_sets() {
        assert_eq!(Protocol::LongReward.tasks(false).count(), 12);
        assert_eq!(Protocol::LongBench.tasks(false).count(), 21);
        assert_eq!(Protocol::LongBench.tasks(true).count(), 13);
        for class in [Class::SingleDoc, Class::MultiDoc, Class::Summarization] {
            let of_class = Protocol::LongReward.tasks(false).filter(|task| task.class == class);
            assert_eq!(of_class.count(), 4);
        }
        let raw: Vec<&str> = TASKS.iter().filter(|t| !t.chat_template).map(|t| t.name).collect();
        assert_eq!(raw, ["trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"]);
        assert!(Task::named("lsht").is_some() && Task::named("lsht_e").is_none());
    }

    #[test]
    fn ratings_become_shares() {
        assert_eq!([1.0, 2.0, 3.0].map(|s| Rubric::Qa.share(s)), [0.0, 0.5, 1.0]);
        assert_eq!([1.0, 2.0, 5.0].map(|s| Rubric::Summary.share(s)), [0.0, 0.25, 1.0]);
        assert_eq!([1.0, 10.0].map(|s| Rubric::Chat.share(s)), [0.1, 1.0]);
    }
}
