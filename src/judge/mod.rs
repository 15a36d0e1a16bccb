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
mod verdict;

pub use calibration::{CalibrationError, Calibrations, Calibrator, Uncalibrated};
pub use details::{Completeness, Evidence, Faithfulness, Rated, Supported};
pub use dimension::{Dimension, PromptKind};
pub use ladder::{ATTEMPTS, Ladder, Step, unit_seed};
pub use lang::{Lang, LangChoice};
pub use prompts::Prompts;
pub use template::PromptError;
pub use verdict::{Outcome, Verdict};

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
}

/// What can be set about a judge besides its prompts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub lang: LangChoice,
    /// Lowers every reply's token budget to at most this, e.g. for a demonstration.
    pub max_reply_tokens: Option<usize>,
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
        let budget = prompt.row().max_new_tokens;
        let cap = self.settings.max_reply_tokens.unwrap_or(budget);
        let prompt = self.prompts.template(prompt, lang).fill(values);
        Ask { kind, prompt, max_new_tokens: budget.min(cap) }
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
}
