//! How a request for a score is scored: as the server was started, but for the options that it names.

use super::super::method_args::{Means, MethodArgs};
use super::super::preset::Preset;
use crate::judge::Calibrations;
use crate::pipeline::Judging;
use crate::serve::ScoreOptions;
use anyhow::{Result, anyhow, bail};
use clap::builder::Resettable;
use clap::{Args, Command, FromArgMatches};
use serde_json::Value;
use std::collections::BTreeMap;

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
        let mut given = given(options)?;
        let embedder = given.remove("embedder");
        let method = applied(self.method.clone(), given)?;
        method.check()?;
        let search = embedder.map_or(Ok(self.search), |name| self.search(&name))?;
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

/// The options that a request names, and of those of its preset the others: long names with values.
fn given(options: &ScoreOptions) -> Result<BTreeMap<String, String>> {
    let Value::Object(mut fields) = serde_json::to_value(options)? else {
        return Ok(BTreeMap::new());
    };
    fields.retain(|_, value| !value.is_null());
    let preset = fields.remove("preset");
    let preset = preset.as_ref().and_then(Value::as_str).map(Preset::named).transpose()?;
    let of_preset = preset.map_or(&[][..], Preset::options).iter();
    let of_preset = of_preset.map(|&(name, value)| (name.to_owned(), value.to_owned()));
    let text = |value| if let Value::String(text) = value { text } else { value.to_string() };
    let named = fields.into_iter().map(|(name, value)| (name.replace('_', "-"), text(value)));
    Ok(of_preset.chain(named).collect())
}

/// The method with the options that are given, as the command line would read them.
fn applied(mut method: MethodArgs, given: BTreeMap<String, String>) -> Result<MethodArgs> {
    // What is not given stays as it is, so that nothing has a default.
    let command = MethodArgs::augment_args_for_update(Command::new("options").no_binary_name(true))
        .mut_args(|arg| arg.default_value(Resettable::Reset));
    let args = given.iter().map(|(name, value)| format!("--{name}={value}"));
    command
        .try_get_matches_from(args)
        .and_then(|matches| method.update_from_arg_matches(&matches))
        .map_err(|error| anyhow!(in_one_line(&error)))?;
    Ok(method)
}

/// What clap says of an argument, without what it says of usage.
fn in_one_line(error: &clap::Error) -> String {
    let told = error.to_string();
    let lines = told.lines().take_while(|line| !line.is_empty()).map(str::trim);
    let told = lines.collect::<Vec<_>>().join(" ");
    told.strip_prefix("error: ").unwrap_or(&told).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::super::method_args::ScoreChoice;
    use super::super::super::verdict_args::{CutChoice, VoteChoice};
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
    fn each_option_reaches_the_method() {
        let options = serde_json::json!({
            "votes": 2, "vote_by": "median", "verdict_first": false, "statements_per_call": 3,
            "whole_document": true, "passages": 7, "passage_tokens": 64, "passage_overlap": 8,
            "passage_cut": "sentences", "score_by": "rating", "embedder": "bm25",
        });
        let fields = serde_json::to_value(ScoreOptions::default()).unwrap();
        let known = fields.as_object().unwrap().keys().filter(|name| *name != "preset");
        assert_eq!(
            options.as_object().unwrap().keys().collect::<Vec<_>>(),
            known.collect::<Vec<_>>()
        );
        let MethodArgs { passages, passage_tokens, verdicts, .. } =
            asked(None, options).unwrap().method;
        assert_eq!((passages, passage_tokens, verdicts.votes), (7, 64, 2));
        assert_eq!((verdicts.statements_per_call, verdicts.passage_overlap), (3, 8));
        assert!(verdicts.whole_document && !verdicts.verdict_first);
        assert_eq!(verdicts.vote_by, VoteChoice::Median);
        assert_eq!(verdicts.passage_cut, CutChoice::Sentences);
    }

    #[test]
    fn what_can_not_be_had_is_refused_by_name() {
        for (options, says) in [
            (
                serde_json::json!({"preset": "slow"}),
                "slow: there is no such preset; there are longreward, fast, careful",
            ),
            (
                serde_json::json!({"votes": 0}),
                "invalid value '0' for '--votes <K>': 0 is not in 1..=100",
            ),
            (
                serde_json::json!({"vote_by": "mode"}),
                "invalid value 'mode' for '--vote-by <WHAT>' [possible values: mean, median]",
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
