//! The judge: which calls a score takes, and how replies become verdicts.
//!
//! The judge writes prompts ([`Judge`] → [`Ask`]), drives the retries of one ask ([`Ladder`]) and
//! reads replies ([`parse`]). It knows conversations ([`crate::chat`]) and nothing below them: no
//! transport, no engine, no files but prompts. Who asks what, when and for which document is the
//! pipeline's business.
//!
//! ```text
//! question, answer, evidence, extracts ─ Judge ─► Ask ─ Ladder ─► Call ⇄ Reply … ─► Verdict
//! ```

pub mod calibration;
mod details;
mod dimension;
mod ladder;
mod lang;
pub mod parse;
mod prompts;
pub mod template;
#[cfg(test)]
pub(crate) mod testing;
mod verdict;
mod votes;

pub use calibration::{CalibrationError, Calibrations, Calibrator, Uncalibrated};
pub use details::{Completeness, Evidence, Faithfulness, Rated, Supported};
pub use dimension::{Dimension, PromptKind};
pub use ladder::{ATTEMPTS, Ladder, Step, unit_seed};
pub use lang::{Lang, LangChoice};
pub use prompts::Prompts;
pub use template::PromptError;
pub use verdict::{Outcome, Verdict};
pub use votes::{Vote, VoteBy, Votes, Voting, combine, readings};

use crate::retrieval::sentences::statements_of;
use template::Values;

/// What is recorded, and shown to the completeness judge, for a chunk that holds nothing of use.
pub const NO_RELEVANT_INFORMATION: &str = "No relevant information";

/// How a reply is read, and how a verdict is forced when no reply can be read.
#[derive(Debug, Clone, PartialEq)]
pub enum AskKind {
    /// `[[n]]`, n in 0..=10. Forced: the likeliest whole rating.
    Rating,
    /// As [`AskKind::Rating`], on another scale.
    Scale { low: u8, high: u8 },
    /// `[[Fully supported]]`, `[[Partially supported]]` or `[[No support]]`. Forced: the likeliest.
    Support,
    /// A line with such a label for each of `count` numbered statements. Never forced: those without
    /// a readable label have no verdict.
    Supports { count: usize },
    /// `<statement>…</statement>` lines. Forced: `fallback`, the sentences of the answer itself.
    Statements { fallback: Vec<String> },
    /// Free text, or the nothing-relevant phrase. Forced: nothing relevant.
    Extract,
}

/// One question to the model, to be brought to a [`Verdict`] by a [`Ladder`].
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    pub kind: AskKind,
    /// The whole user message.
    pub prompt: String,
    /// Budget of one reply.
    pub max_new_tokens: usize,
    /// The verdict is what the model holds likeliest right after this beginning of a reply (it ends
    /// with `[[`); nothing is sampled.
    pub opening: Option<String>,
    /// How many verdicts are wanted; each takes a [`Ladder`] of its own.
    pub voting: Voting,
}

/// What stands before a verdict.
const BRACKETS: &str = "[[";

/// To six decimals: short in a record, read back from JSON exactly, and equal for equal means
/// however they were summed.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// What can be set about a judge besides its prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub lang: LangChoice,
    /// Lowers every reply's token budget to at most this, e.g. for a demonstration.
    pub max_reply_tokens: Option<usize>,
    /// Ratings and labels come without an analysis, as the likeliest continuations of the prompt.
    pub verdict_first: bool,
    /// For ratings and labels. Of no use with `verdict_first`, which samples nothing.
    pub voting: Voting,
    /// Statements of one answer that are checked in one call.
    pub statements_per_call: usize,
}

impl Default for Settings {
    /// The published method.
    fn default() -> Self {
        Self {
            lang: LangChoice::default(),
            max_reply_tokens: None,
            verdict_first: false,
            voting: Voting::default(),
            statements_per_call: 1,
        }
    }
}

impl Settings {
    /// Prompts that are used besides those of the published method.
    pub fn more_prompts(&self) -> Vec<PromptKind> {
        use PromptKind::{Completeness, Helpfulness, Logicality, Support, Supports};
        let several = (self.statements_per_call > 1).then_some(Supports);
        match self.verdict_first {
            false => several.into_iter().collect(),
            true => [Helpfulness, Logicality, Support, Completeness]
                .into_iter()
                .chain(several)
                .map(PromptKind::verdict_first)
                .collect(),
        }
    }
}

/// Writes the judge's prompts.
#[derive(Debug, Clone)]
pub struct Judge {
    prompts: Prompts,
    settings: Settings,
}

impl Judge {
    pub fn new(prompts: Prompts, settings: Settings) -> Self {
        Self { prompts, settings }
    }

    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The same judge with prompts in this language.
    pub fn with_lang(&self, lang: LangChoice) -> Self {
        let settings = Settings { lang, ..self.settings.clone() };
        Self { settings, ..self.clone() }
    }

    /// The prompt language for texts: the forced one, else by [`Lang::choose`]. For an extract the
    /// texts are the chunk alone, for everything else the question and the answer.
    pub fn lang(&self, texts: &[&str]) -> Lang {
        self.settings.lang.resolve(texts)
    }

    /// How well the answer serves the question.
    pub fn helpfulness(&self, lang: Lang, question: &str, answer: &str) -> Ask {
        let values = Values { question, answer, ..Values::default() };
        self.ask(PromptKind::Helpfulness, lang, &values, AskKind::Rating)
    }

    /// Whether the answer is consistent in itself.
    pub fn logicality(&self, lang: Lang, question: &str, answer: &str) -> Ask {
        let values = Values { question, answer, ..Values::default() };
        self.ask(PromptKind::Logicality, lang, &values, AskKind::Rating)
    }

    /// The factual statements of the answer.
    pub fn statements(&self, lang: Lang, question: &str, answer: &str) -> Ask {
        let values = Values { question, answer, ..Values::default() };
        let kind = AskKind::Statements { fallback: statements_of(answer) };
        self.ask(PromptKind::Statements, lang, &values, kind)
    }

    /// Whether `evidence`, chunks in document order, supports the statement.
    pub fn support(&self, lang: Lang, question: &str, statement: &str, evidence: &[&str]) -> Ask {
        let context = self.prompts.headings(lang).passages(evidence);
        let values = Values { question, statement, context: &context, ..Values::default() };
        self.ask(PromptKind::Support, lang, &values, AskKind::Support)
    }

    /// Whether `evidence` supports each of several statements, in one reply.
    pub fn supports(
        &self,
        lang: Lang,
        question: &str,
        statements: &[&str],
        evidence: &[&str],
    ) -> Ask {
        let count = statements.len();
        let kind = AskKind::Supports { count };
        let ask = self.ask_supports(lang, question, statements, evidence, kind);
        Ask { max_new_tokens: self.capped(ask.max_new_tokens * count), ..ask }
    }

    /// With verdicts first: whether `evidence` supports the one of several statements at `index`. The
    /// prompts for all of them are the same.
    pub fn support_among(
        &self,
        lang: Lang,
        question: &str,
        statements: &[&str],
        index: usize,
        evidence: &[&str],
    ) -> Ask {
        let opening = Some(self.prompts.headings(lang).opening(index));
        let ask = self.ask_supports(lang, question, statements, evidence, AskKind::Support);
        Ask { opening, ..ask }
    }

    fn ask_supports(
        &self,
        lang: Lang,
        question: &str,
        statements: &[&str],
        evidence: &[&str],
        kind: AskKind,
    ) -> Ask {
        let context = self.prompts.headings(lang).passages(evidence);
        let statement = prompts::numbered(statements);
        let values =
            Values { question, statement: &statement, context: &context, ..Values::default() };
        self.ask(PromptKind::Supports, lang, &values, kind)
    }

    /// Whether the answer holds all that the document says on the question. `extracts` are pairs
    /// of place (`0% - 12%`) and text, in document order.
    pub fn completeness(
        &self,
        lang: Lang,
        question: &str,
        answer: &str,
        extracts: &[(&str, &str)],
    ) -> Ask {
        let context = self.prompts.headings(lang).extracts(extracts);
        let values = Values { question, answer, context: &context, ..Values::default() };
        self.ask(PromptKind::Completeness, lang, &values, AskKind::Rating)
    }

    /// What a chunk of the document says on the question.
    pub fn extract(&self, lang: Lang, question: &str, chunk: &str) -> Ask {
        let values = Values { question, context: chunk, ..Values::default() };
        self.ask(PromptKind::Extract, lang, &values, AskKind::Extract)
    }

    fn ask(&self, prompt: PromptKind, lang: Lang, values: &Values, kind: AskKind) -> Ask {
        let Settings { verdict_first, voting, .. } = self.settings;
        let wanted = if verdict_first { prompt.verdict_first() } else { prompt };
        // Absent only where nobody checked the prompts.
        let template = self.prompts.template(wanted, lang);
        let template = template.or_else(|| self.prompts.template(prompt, lang));
        let text = template.map(|template| template.fill(values)).unwrap_or_default();
        let one_verdict = matches!(kind, AskKind::Rating | AskKind::Support);
        let opening = (verdict_first && one_verdict).then(|| BRACKETS.to_owned());
        let votes = opening.is_none() && (one_verdict || matches!(kind, AskKind::Supports { .. }));
        Ask {
            kind,
            prompt: text,
            max_new_tokens: self.capped(wanted.row().max_new_tokens),
            opening,
            voting: if votes { voting } else { Voting::default() },
        }
    }

    fn capped(&self, budget: usize) -> usize {
        self.settings.max_reply_tokens.map_or(budget, |cap| budget.min(cap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(settings: Settings) -> Judge {
        Judge::new(Prompts::built_in().unwrap(), settings)
    }

    #[test]
    fn every_ask_has_its_texts_its_reading_and_its_budget() {
        let judge = judge(Settings::default());
        for lang in [Lang::En, Lang::Zh] {
            let asks = [
                (judge.helpfulness(lang, "Q?", "A!"), AskKind::Rating, 512, &["Q?", "A!"][..]),
                (judge.logicality(lang, "Q?", "A!"), AskKind::Rating, 512, &["Q?", "A!"]),
                (
                    judge.statements(lang, "Q?", "It rained. Yes."),
                    AskKind::Statements { fallback: vec!["It rained.".to_owned()] },
                    2048,
                    &["Q?", "It rained. Yes."],
                ),
                (
                    judge.support(lang, "Q?", "S.", &["E1", "E2"]),
                    AskKind::Support,
                    512,
                    &["1]\nE1\n\n[", "2]\nE2\n", "\nS.\n"],
                ),
                (
                    judge.completeness(lang, "Q?", "A!", &[("0% - 9%", "- X")]),
                    AskKind::Rating,
                    512,
                    &["0% - 9%", "]\n- X\n", "Q?", "A!"],
                ),
                (judge.extract(lang, "Q?", "CHUNK"), AskKind::Extract, 1024, &["CHUNK", "Q?"]),
            ];
            for (ask, kind, budget, texts) in asks {
                assert_eq!((&ask.kind, ask.max_new_tokens), (&kind, budget));
                assert!(texts.iter().all(|text| ask.prompt.contains(text)), "{}", ask.prompt);
                assert!(!ask.prompt.contains("<<"), "{}", ask.prompt);
            }
        }
    }

    #[test]
    fn candidates_of_one_prompt_share_all_but_the_answer() {
        let judge = judge(Settings::default());
        let extracts = [("0% - 100%", "- X")];
        let [one, other] = ["First answer", "Other answer"]
            .map(|answer| judge.completeness(Lang::En, "Q?", answer, &extracts).prompt);
        let shared = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        assert!(one[shared..].starts_with("First answer") && one[..shared].contains("Q?"));
    }

    #[test]
    fn the_language_is_chosen_or_forced() {
        let auto = judge(Settings::default());
        assert_eq!(auto.lang(&["What?", "This."]), Lang::En);
        assert_eq!(auto.lang(&["什么？", "这个。"]), Lang::Zh);
        let forced = judge(Settings { lang: LangChoice::En, ..Settings::default() });
        assert_eq!(forced.lang(&["什么？"]), Lang::En);
        let prompts = [Lang::En, Lang::Zh].map(|lang| auto.extract(lang, "", "").prompt);
        assert_ne!(prompts[0], prompts[1]);
    }

    #[test]
    fn budgets_can_be_capped_but_not_raised() {
        let budget = |max_reply_tokens| {
            let judge = judge(Settings { max_reply_tokens, ..Settings::default() });
            judge.helpfulness(Lang::En, "q", "a").max_new_tokens
        };
        assert_eq!([None, Some(100), Some(9999)].map(budget), [512, 100, 512]);
    }

    #[test]
    fn verdicts_without_analysis_have_prompts_of_their_own_and_an_opening() {
        let settings = Settings { verdict_first: true, ..Settings::default() };
        let (first, published) = (judge(settings), judge(Settings::default()));
        for lang in [Lang::En, Lang::Zh] {
            for judge in [&first, &published] {
                let verdicts = [
                    judge.helpfulness(lang, "Q?", "A!"),
                    judge.logicality(lang, "Q?", "A!"),
                    judge.support(lang, "Q?", "S.", &["E1"]),
                    judge.completeness(lang, "Q?", "A!", &[("0% - 9%", "- X")]),
                ];
                let is_first = judge.settings().verdict_first;
                for ask in verdicts {
                    assert_eq!(ask.opening.as_deref(), is_first.then_some("[["));
                    let bare = ask.prompt.ends_with("Rating:\n")
                        || ask.prompt.ends_with("Label:\n")
                        || ask.prompt.ends_with("评分：\n")
                        || ask.prompt.ends_with("标签：\n");
                    assert_eq!(bare, is_first, "{}", ask.prompt);
                    assert_eq!(ask.max_new_tokens, if is_first { 16 } else { 512 });
                }
                assert_eq!(judge.statements(lang, "Q?", "A!").opening, None);
                assert_eq!(judge.extract(lang, "Q?", "C").opening, None);
            }
        }
    }

    #[test]
    fn several_statements_share_a_prompt() {
        let judge = judge(Settings { statements_per_call: 2, ..Settings::default() });
        let ask = judge.supports(Lang::En, "Q?", &["S one.", "S two."], &["E1"]);
        assert_eq!((ask.kind, ask.max_new_tokens), (AskKind::Supports { count: 2 }, 512));
        assert!(ask.prompt.contains("\n1. S one.\n2. S two.\n"), "{}", ask.prompt);
        let first = self::judge(Settings { verdict_first: true, ..Settings::default() });
        let asks =
            [0, 1].map(|i| first.support_among(Lang::Zh, "Q?", &["S one.", "S two."], i, &[]));
        assert_eq!(asks[0].prompt, asks[1].prompt);
        assert_eq!(asks[1].opening.as_deref(), Some("陈述2：[["));
    }

    #[test]
    fn votes_are_for_ratings_and_labels() {
        let voting = Voting { count: 3, by: VoteBy::Median };
        let judge = judge(Settings { voting, ..Settings::default() });
        assert_eq!(judge.logicality(Lang::En, "", "").voting, voting);
        assert_eq!(judge.supports(Lang::En, "", &["S"], &[]).voting, voting);
        assert_eq!(judge.statements(Lang::En, "", "").voting.count, 1);
        assert_eq!(judge.extract(Lang::En, "", "").voting.count, 1);
        let settings = Settings { voting, verdict_first: true, ..Settings::default() };
        assert_eq!(self::judge(settings).logicality(Lang::En, "", "").voting.count, 1);
    }

    #[test]
    fn options_say_which_prompts_they_use() {
        assert_eq!(Settings::default().more_prompts(), []);
        let several = Settings { statements_per_call: 2, ..Settings::default() };
        assert_eq!(several.more_prompts(), [PromptKind::Supports]);
        let both = Settings { verdict_first: true, ..several };
        assert_eq!(both.more_prompts().len(), 5);
        assert_eq!(both.more_prompts()[4], PromptKind::SupportsVerdict);
    }
}
