//! How a request for a score is scored: as the server was started, but for the options that it names.

use super::super::method_args::{Means, MethodArgs};
use super::super::preset::Preset;
use super::super::verdict_args::VerdictArgs;
use crate::judge::Calibrations;
use crate::pipeline::Judging;
use crate::serve::ScoreOptions;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Where evidence is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    Words,
    Embedder,
    Both,
}

/// What all requests have in common.
#[derive(Debug, Clone)]
pub struct Scoring {
    pub method: MethodArgs,
    /// As published.
    pub judging: Judging,
    pub calibration: Option<Calibrations>,
    /// Tokens of the judge's context.
    pub context: usize,
    /// The embedder that is loaded, as it was typed.
    pub embedder: Option<String>,
    pub search: Search,
}

/// How one request is scored.
pub struct Asked {
    pub method: MethodArgs,
    pub means: Means,
    pub search: Search,
}

impl Scoring {
    /// # Errors
    /// Options that are unknown, contradict each other, or need what the server does not have.
    pub fn asked(&self, options: &ScoreOptions, seed: u64) -> Result<Asked> {
        let options = match &options.preset {
            Some(name) => options.clone().or(preset(name)?),
            None => options.clone(),
        };
        let method = applied(self.method.clone(), &options)?;
        method.check()?;
        let search = options.embedder.as_deref().map_or(Ok(self.search), |name| self.search(name));
        let search = search?;
        let means = Means {
            judging: Judging { seed, ..self.judging.clone() },
            retriever: self.name(search),
            context: Some(self.context),
            calibration: self.calibration.clone(),
        };
        Ok(Asked { method, means, search })
    }

    fn search(&self, name: &str) -> Result<Search> {
        let [words, embedder, both] =
            [Search::Words, Search::Embedder, Search::Both].map(|search| self.name(search));
        let loaded = self.embedder.is_some();
        match name {
            name if name == words => Ok(Search::Words),
            name if name == embedder && loaded => Ok(Search::Embedder),
            name if name == both && loaded => Ok(Search::Both),
            _ if loaded => {
                bail!("embedder: {name} is not here, but {words}, {embedder} and {both}")
            }
            _ => bail!(
                "embedder: {name} is not here, but {words}; send \"embedder\": \"{words}\", or start \
                 the server with --embedder"
            ),
        }
    }

    /// What a search is called.
    fn name(&self, search: Search) -> String {
        let embedder = self.embedder.as_deref().unwrap_or_default();
        match search {
            Search::Words => super::embedder::BM25.to_owned(),
            Search::Embedder => embedder.to_owned(),
            Search::Both => super::embedder::with_words(embedder),
        }
    }
}

/// The options that a preset stands for.
fn preset(name: &str) -> Result<ScoreOptions> {
    let preset: Preset = named("preset", name)?;
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let options = preset.options().iter();
    let fields: Map<String, Value> =
        options.map(|(name, text)| (name.replace('-', "_"), value(text))).collect();
    serde_json::from_value(Value::Object(fields)).context("the preset is not for requests")
}

/// The choice of this name.
fn named<T: ValueEnum>(field: &str, name: &str) -> Result<T> {
    T::from_str(name, false).map_err(|_| {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        anyhow!("{field}: should be {}, but is {name}", names.join(" or "))
    })
}

fn within(field: &str, value: usize, range: RangeInclusive<usize>) -> Result<usize> {
    let (low, high) = (range.start(), range.end());
    ensure!(range.contains(&value), "{field}: should be {low} to {high}, but is {value}");
    Ok(value)
}

/// The method with the options that are given.
fn applied(method: MethodArgs, options: &ScoreOptions) -> Result<MethodArgs> {
    let number = |field, asked: Option<usize>, own, range| {
        asked.map_or(Ok(own), |value| within(field, value, range))
    };
    let own = method.verdicts;
    let o = options;
    let verdicts = VerdictArgs {
        preset: None,
        votes: number("votes", o.votes, own.votes, 1..=100)?,
        vote_by: o.vote_by.as_deref().map_or(Ok(own.vote_by), |name| named("vote_by", name))?,
        verdict_first: o.verdict_first.unwrap_or(own.verdict_first),
        statements_per_call: number(
            "statements_per_call",
            o.statements_per_call,
            own.statements_per_call,
            1..=50,
        )?,
        whole_document: o.whole_document.unwrap_or(own.whole_document),
        passage_overlap: o.passage_overlap.unwrap_or(own.passage_overlap),
        passage_cut: o
            .passage_cut
            .as_deref()
            .map_or(Ok(own.passage_cut), |name| named("passage_cut", name))?,
    };
    Ok(MethodArgs {
        score_by: o
            .score_by
            .as_deref()
            .map_or(Ok(method.score_by), |name| named("score_by", name))?,
        calibration: method.calibration,
        any_calibration: method.any_calibration,
        passages: number("passages", o.passages, method.passages, 1..=usize::MAX)?,
        passage_tokens: number(
            "passage_tokens",
            o.passage_tokens,
            method.passage_tokens,
            1..=usize::MAX,
        )?,
        verdicts,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::method_args::ScoreChoice;
    use super::*;
    use crate::judge::{Judge, Prompts, Settings};

    fn scoring(embedder: Option<&str>) -> Scoring {
        let judge = Judge::new(Prompts::built_in().unwrap(), Settings::default());
        Scoring {
            method: MethodArgs { passages: 3, ..MethodArgs::default() },
            judging: Judging { judge, model: Default::default(), seed: 0, chunk_tokens: 4096 },
            calibration: None,
            context: 1000,
            embedder: embedder.map(str::to_owned),
            search: if embedder.is_some() { Search::Embedder } else { Search::Words },
        }
    }

    fn asked(embedder: Option<&str>, options: Value) -> Result<Asked, String> {
        let options = serde_json::from_value(options).unwrap();
        scoring(embedder).asked(&options, 7).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_is_not_said_is_as_the_server_was_started() {
        let plain = asked(None, serde_json::json!({})).unwrap();
        assert_eq!(
            (plain.method.passages, plain.search, plain.means.judging.seed),
            (3, Search::Words, 7)
        );
        let fast =
            asked(Some("e"), serde_json::json!({"preset": "fast", "statements_per_call": 2}));
        let fast = fast.unwrap();
        assert!(
            fast.method.verdicts.verdict_first && fast.method.score_by == ScoreChoice::Expected
        );
        assert_eq!((fast.method.verdicts.statements_per_call, fast.search), (2, Search::Words));
        assert_eq!(
            asked(Some("e"), serde_json::json!({"embedder": "bm25+e"})).unwrap().search,
            Search::Both
        );
    }

    #[test]
    fn what_can_not_be_had_is_refused_by_name() {
        for (options, says) in [
            (
                serde_json::json!({"preset": "slow"}),
                "preset: should be longreward or fast or careful",
            ),
            (serde_json::json!({"votes": 0}), "votes: should be 1 to 100, but is 0"),
            (
                serde_json::json!({"vote_by": "mode"}),
                "vote_by: should be mean or median, but is mode",
            ),
            (
                serde_json::json!({"votes": 3, "verdict_first": true}),
                "--votes 3 and --verdict-first",
            ),
            (
                serde_json::json!({"preset": "careful"}),
                "embedder: bm25+minilm is not here, but bm25",
            ),
            (serde_json::json!({"passage_overlap": 500}), "must be less than --passage-tokens"),
        ] {
            let Err(error) = asked(None, options) else { panic!("{says}") };
            assert!(error.contains(says), "{error}");
        }
    }
}
