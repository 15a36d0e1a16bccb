//! The statements of one answer on their way to a faithfulness score: what they are checked against,
//! and which of them are checked in one call.

use super::Tokens;
use super::passages::Passages;
use crate::judge::{Ask, Faithfulness, Judge, Lang, Outcome, Supported, Verdict};
use crate::retrieval::Retriever;
use std::collections::BTreeSet;

/// What statements are checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidencing {
    /// Passages shown for a statement.
    pub passages: usize,
    /// Instead of passages the whole document, where it fits into a judge's context of so many
    /// tokens together with the rest of the prompt and the reply.
    pub whole_document: Option<usize>,
}

/// Tokens of a chat template, and for other counts at the borders of texts that are put together.
const TEMPLATE_TOKENS: usize = 128;

/// One call's worth of checking. Statements are known by their position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// One statement against its own evidence.
    One(usize),
    /// `count` statements from `first` on, against the evidence of all of them, in one reply.
    Several { first: usize, count: usize },
    /// The same for one of them alone, whose label stands right after their common prompt.
    Among { first: usize, count: usize, fact: usize },
}

/// Who is asked about which answer.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub judge: &'a Judge,
    pub lang: Lang,
    pub query: &'a str,
}

/// How evidence is found.
pub(crate) struct Lookup<'a, 't> {
    pub how: Evidencing,
    pub retriever: &'a mut Retriever,
    /// The judge's own.
    pub tokens: &'a Tokens<'t>,
}

#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The verdict that listed the statements.
    listing: Option<Verdict>,
    facts: Vec<Fact>,
    /// Checks whose evidence is the whole document; `None` if that is not wanted at all.
    whole: Option<BTreeSet<Check>>,
}

/// A statement of an answer.
#[derive(Debug)]
struct Fact {
    text: String,
    /// The passages that bear on it.
    passages: Vec<usize>,
    supported: Option<Supported>,
}

impl Check {
    /// Its name within the answer's units.
    pub fn key(self) -> String {
        match self {
            Check::One(fact) => format!("support/{fact}"),
            Check::Several { first, count } => format!("supports/{first}+{count}"),
            Check::Among { first, count, fact } => format!("supports/{first}+{count}/{fact}"),
        }
    }

    /// Its statements, for people: numbers from 1.
    pub fn describe(self) -> String {
        match self {
            Check::One(fact) | Check::Among { fact, .. } => format!("statement {}", fact + 1),
            Check::Several { first, count } => {
                format!("statements {} to {}", first + 1, first + count)
            }
        }
    }

    /// What can be asked instead where this has no verdict.
    pub fn instead(self) -> Option<Check> {
        match self {
            Check::Among { fact, .. } => Some(Check::One(fact)),
            Check::One(_) | Check::Several { .. } => None,
        }
    }

    /// The statements in its prompt: the first, and how many.
    fn span(self) -> (usize, usize) {
        match self {
            Check::One(fact) => (fact, 1),
            Check::Several { first, count } | Check::Among { first, count, .. } => (first, count),
        }
    }
}

impl Facts {
    /// Takes the list of statements and finds their evidence; gives the checks to begin with.
    ///
    /// # Errors
    /// A verdict that lists no statements, or an embedder that fails.
    pub fn begin(
        &mut self,
        listing: Verdict,
        asker: Asker,
        document: &mut Passages,
        lookup: Lookup,
    ) -> Result<Vec<Check>, String> {
        let texts = listing.statements().ok_or("the verdict lists no statements")?;
        let fact =
            |text: &String| Fact { text: text.clone(), passages: Vec::new(), supported: None };
        self.facts = texts.iter().map(fact).collect();
        self.listing = Some(listing);
        let checks = self.first_checks(asker.judge);
        // Those that others may lead to as well.
        let mut all: BTreeSet<Check> = (0..self.facts.len()).map(Check::One).collect();
        all.extend(checks.iter().copied());
        if let Some(context) = lookup.how.whole_document {
            let document_tokens = document.tokens();
            let fits = |check: &&Check| {
                let rest = self.tokens_besides_evidence(**check, asker, lookup.tokens);
                document_tokens + rest <= context
            };
            self.whole = Some(all.iter().filter(fits).copied().collect());
        }
        if all.iter().any(|&check| !self.sees_all(check)) {
            self.look_up(document, lookup)?;
        }
        Ok(checks)
    }

    fn first_checks(&self, judge: &Judge) -> Vec<Check> {
        let settings = judge.settings();
        let per_call = settings.statements_per_call.max(1);
        let group = |first: usize| match per_call.min(self.facts.len() - first) {
            1 => vec![Check::One(first)],
            count if settings.verdict_first => {
                (first..first + count).map(|fact| Check::Among { first, count, fact }).collect()
            }
            count => vec![Check::Several { first, count }],
        };
        (0..self.facts.len()).step_by(per_call).flat_map(group).collect()
    }

    fn look_up(&mut self, document: &mut Passages, lookup: Lookup) -> Result<(), String> {
        let queries: Vec<&str> = self.facts.iter().map(|fact| fact.text.as_str()).collect();
        let Lookup { how, retriever, .. } = lookup;
        let found = document.search(retriever, &queries, how.passages);
        for (fact, passages) in self.facts.iter_mut().zip(found.map_err(|e| e.to_string())?) {
            fact.passages = passages;
        }
        Ok(())
    }

    /// What a call needs of the context if its evidence is empty.
    fn tokens_besides_evidence(&self, check: Check, asker: Asker, tokens: &Tokens) -> usize {
        let ask = self.ask_with(check, asker, &[""]);
        let opening = ask.opening.as_deref().unwrap_or_default();
        tokens(&ask.prompt).len() + tokens(opening).len() + ask.max_new_tokens + TEMPLATE_TOKENS
    }

    fn sees_all(&self, check: Check) -> bool {
        self.whole.as_ref().is_some_and(|whole| whole.contains(&check))
    }

    /// What to ask for a check.
    pub fn ask(&self, check: Check, asker: Asker, document: &Passages) -> Ask {
        if self.sees_all(check) {
            return self.ask_with(check, asker, &[document.text()]);
        }
        let passages = self.passages(check);
        let texts: Vec<&str> = passages.iter().map(|&passage| document.passage(passage)).collect();
        self.ask_with(check, asker, &texts)
    }

    fn ask_with(&self, check: Check, asker: Asker, evidence: &[&str]) -> Ask {
        let Asker { judge, lang, query } = asker;
        let (first, count) = check.span();
        let facts = self.facts[first..first + count].iter();
        let statements: Vec<&str> = facts.map(|fact| fact.text.as_str()).collect();
        match check {
            Check::One(_) => judge.support(lang, query, statements[0], evidence),
            Check::Several { .. } => judge.supports(lang, query, &statements, evidence),
            Check::Among { fact, .. } => {
                judge.support_among(lang, query, &statements, fact - first, evidence)
            }
        }
    }

    /// The passages of all statements in the prompt of a check, in the order of the document.
    fn passages(&self, check: Check) -> Vec<usize> {
        let (first, count) = check.span();
        let facts = self.facts[first..first + count].iter();
        let all: BTreeSet<usize> = facts.flat_map(|fact| fact.passages.iter().copied()).collect();
        all.into_iter().collect()
    }

    /// Takes the verdict of a check; gives those that must still be made for its statements.
    ///
    /// # Errors
    /// A verdict that is on something else.
    pub fn take(
        &mut self,
        check: Check,
        verdict: Verdict,
        document: &Passages,
    ) -> Result<Vec<Check>, String> {
        let (first, count) = check.span();
        match (check, verdict.outcome) {
            (Check::Several { .. }, Outcome::Supports(found)) if found.len() == count => {
                let mut missing = Vec::new();
                for (fact, verdict) in (first..).zip(found) {
                    match verdict {
                        Some(verdict) => self.put(fact, check, verdict, document)?,
                        None => missing.push(Check::One(fact)),
                    }
                }
                Ok(missing)
            }
            (Check::One(fact) | Check::Among { fact, .. }, outcome) => {
                self.put(fact, check, Verdict { outcome, ..verdict }, document)?;
                Ok(Vec::new())
            }
            _ => Err("the verdict is not on these statements".to_owned()),
        }
    }

    fn put(
        &mut self,
        fact: usize,
        check: Check,
        verdict: Verdict,
        document: &Passages,
    ) -> Result<(), String> {
        let whole = self.whole.as_ref().map(|whole| whole.contains(&check));
        let evidence = match whole {
            Some(true) => Vec::new(),
            _ => document.evidence(&self.passages(check)),
        };
        let found = Supported::new(self.facts[fact].text.clone(), verdict, evidence);
        let found = found.ok_or("the verdict is no degree of support")?;
        let (_, count) = check.span();
        self.facts[fact].supported = Some(Supported {
            whole_document: whole,
            statements_in_call: (count > 1).then_some(count),
            ..found
        });
        Ok(())
    }

    /// Whether the statements are known.
    pub fn is_listed(&self) -> bool {
        self.listing.is_some()
    }

    /// Whether all statements have their verdict.
    pub fn is_complete(&self) -> bool {
        self.listing.is_some() && self.facts.iter().all(|fact| fact.supported.is_some())
    }

    /// The score, if all statements have their verdict.
    pub fn faithfulness(&self) -> Option<Faithfulness> {
        let supported = self.facts.iter().map(|fact| fact.supported.clone());
        Some(Faithfulness::new(self.listing.as_ref()?, supported.collect::<Option<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Prompts, Settings};
    use crate::pipeline::testing::tokens;
    use crate::retrieval::chunk::Cutting;

    const TEXT: &str = "one two three four five six seven eight nine ten";

    fn judge(settings: Settings) -> Judge {
        Judge::new(Prompts::built_in().unwrap(), settings)
    }

    fn several(count: usize) -> Judge {
        judge(Settings { statements_per_call: count, ..Settings::default() })
    }

    fn verdict(outcome: Outcome) -> Verdict {
        Verdict::new(outcome, "why")
    }

    fn listing(statements: &[&str]) -> Verdict {
        verdict(Outcome::Statements(statements.iter().map(|s| (*s).to_owned()).collect()))
    }

    fn document() -> Passages {
        Passages::new(TEXT.to_owned(), Cutting::tokens(2).cut(TEXT, &tokens(TEXT)))
    }

    fn asker(judge: &Judge) -> Asker<'_> {
        Asker { judge, lang: Lang::En, query: "Q?" }
    }

    fn begun(judge: &Judge, whole: Option<usize>, statements: &[&str]) -> (Facts, Vec<Check>) {
        let mut facts = Facts::default();
        let how = Evidencing { passages: 1, whole_document: whole };
        let lookup = Lookup { how, retriever: &mut Retriever::Bm25, tokens: &tokens };
        let checks = facts.begin(listing(statements), asker(judge), &mut document(), lookup);
        (facts, checks.unwrap())
    }

    const THREE: [&str; 3] = ["nine", "one", "five"];

    #[test]
    fn statements_go_in_groups_and_see_the_evidence_of_all() {
        let judge = several(2);
        let (mut facts, checks) = begun(&judge, None, &THREE);
        let group = Check::Several { first: 0, count: 2 };
        assert_eq!(checks, [group, Check::One(2)]);
        let ask = facts.ask(group, asker(&judge), &document());
        assert!(
            ask.prompt.contains("[Passage 1]\none two \n\n[Passage 2]\nnine ten"),
            "{}",
            ask.prompt
        );
        assert!(ask.prompt.contains("1. nine\n2. one"));
        let label = Some(verdict(Outcome::Support(0.5)));
        let missing = facts.take(group, verdict(Outcome::Supports(vec![None, label])), &document());
        assert_eq!(missing.unwrap(), [Check::One(0)]);
        assert!(facts.faithfulness().is_none());
        for fact in [0, 2] {
            let label = verdict(Outcome::Support(1.0));
            assert_eq!(facts.take(Check::One(fact), label, &document()).unwrap(), []);
        }
        let found = facts.faithfulness().unwrap();
        assert!(facts.is_complete());
        assert!((found.score - 25.0 / 3.0).abs() < 1e-9);
        let of = |fact: usize| {
            let details = &found.details[fact];
            (details.evidences.len(), details.statements_in_call, details.whole_document)
        };
        assert_eq!([of(0), of(1), of(2)], [(1, None, None), (2, Some(2), None), (1, None, None)]);
    }

    #[test]
    fn with_verdicts_first_each_statement_of_a_group_has_a_call() {
        let settings =
            Settings { statements_per_call: 2, verdict_first: true, ..Settings::default() };
        let judge = judge(settings);
        let (facts, checks) = begun(&judge, None, &THREE);
        let among = |fact| Check::Among { first: 0, count: 2, fact };
        assert_eq!(checks, [among(0), among(1), Check::One(2)]);
        let asks = [0, 1].map(|fact| facts.ask(among(fact), asker(&judge), &document()));
        assert_eq!(asks[0].prompt, asks[1].prompt);
        assert_eq!(asks[1].opening.as_deref(), Some("Statement 2: [["));
        assert_eq!(among(1).instead(), Some(Check::One(1)));
    }

    #[test]
    fn the_whole_document_is_shown_where_it_fits() {
        let judge = judge(Settings { max_reply_tokens: Some(10), ..Settings::default() });
        let (facts, _) = begun(&judge, Some(100_000), &THREE);
        let ask = facts.ask(Check::One(1), asker(&judge), &document());
        assert!(ask.prompt.contains(&format!("[Passage 1]\n{TEXT}\n")), "{}", ask.prompt);
        let needed = tokens(&ask.prompt).len() + 10 + TEMPLATE_TOKENS;
        for (context, fits) in [(needed + 3, true), (needed - 3, false)] {
            let (mut facts, _) = begun(&judge, Some(context), &THREE);
            let label = verdict(Outcome::Support(1.0));
            facts.take(Check::One(1), label, &document()).unwrap();
            let supported = facts.facts[1].supported.as_ref().unwrap();
            assert_eq!(supported.whole_document, Some(fits), "{context}");
            assert_eq!(supported.evidences.len(), usize::from(!fits));
        }
    }

    #[test]
    fn a_document_is_not_cut_into_tokens_again() {
        let (judge, mut facts) = (judge(Settings::default()), Facts::default());
        let how = Evidencing { passages: 1, whole_document: Some(100_000) };
        let tokens = |text: &str| {
            assert!(!text.contains(TEXT));
            tokens(text)
        };
        let lookup = Lookup { how, retriever: &mut Retriever::Bm25, tokens: &tokens };
        facts.begin(listing(&THREE), asker(&judge), &mut document(), lookup).unwrap();
    }

    #[test]
    fn statements_share_all_of_the_prompt_up_to_themselves() {
        let judge = judge(Settings::default());
        let (facts, _) = begun(&judge, Some(100_000), &THREE);
        let asks =
            [0, 1].map(|fact| facts.ask(Check::One(fact), asker(&judge), &document()).prompt);
        let shared = asks[0].bytes().zip(asks[1].bytes()).take_while(|(a, b)| a == b).count();
        assert!(asks[0][..shared].contains(TEXT));
    }

    #[test]
    fn verdicts_on_other_things_are_refused() {
        let judge = several(2);
        let (mut facts, checks) = begun(&judge, None, &THREE);
        for wrong in [Outcome::Support(1.0), Outcome::Supports(vec![None])] {
            assert!(facts.take(checks[0], verdict(wrong), &document()).is_err());
        }
        assert!(facts.take(Check::One(0), verdict(Outcome::Extract(None)), &document()).is_err());
    }

    #[test]
    fn an_answer_without_statements_has_nothing_to_check() {
        let (facts, checks) = begun(&several(4), None, &[]);
        assert!(checks.is_empty() && facts.is_complete());
        assert!(facts.faithfulness().unwrap().no_statements);
    }
}
