//! Replies of a given form: JSON by a schema, one of some texts, or what a regular expression
//! matches. The crate `llguidance` says which tokens keep to the form.

use crate::engine::guide::{Constraint, Guide, Language, Next, TokenSet};
use crate::tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// The form of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// JSON that a schema allows, written without superfluous space.
    Json(Value),
    /// One of these texts and nothing else.
    Choice(Vec<String>),
    /// In the syntax of the crate `regex`; the whole reply matches.
    Regex(String),
}

/// Makes constraints for one tokenizer.
pub struct Grammars {
    factory: ParserFactory,
}

impl Grammars {
    /// # Errors
    /// A vocabulary without a token that ends a reply.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, String> {
        let stops = tokenizer.stop_tokens();
        let Some(&end) = stops.first() else {
            return Err("the checkpoint names no token that ends a reply".into());
        };
        let words: Vec<Vec<u8>> =
            (0..tokenizer.vocab_size() as u32).map(|id| word(tokenizer, id)).collect();
        let info = TokRxInfo::new(words.len() as u32, end);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(stops);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&tokens).map_err(|e| e.to_string())?;
        factory.quiet();
        // Errors go to clients, who know their schema.
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory })
    }

    /// # Errors
    /// A form that can't be kept to, and why.
    pub fn compile(&self, form: Form) -> Result<Constraint, String> {
        let parser = self.factory.create_parser(grammar(form)?);
        let mut matcher = Matcher::new(parser);
        if let Some(error) = matcher.get_error() {
            return Err(error);
        }
        let first = matcher.compute_mask().map_err(|e| e.to_string())?;
        if first.is_zero() {
            return Err("no reply has this form".into());
        }
        Ok(Constraint::new(Compiled(Mutex::new(matcher))))
    }
}

/// What a token writes; control tokens are marked as no text.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    if tokenizer.is_control(id) {
        return [&[TokTrie::SPECIAL_TOKEN_MARKER], &bytes[..]].concat();
    }
    bytes
}

fn grammar(form: Form) -> Result<TopLevelGrammar, String> {
    match form {
        Form::Json(schema) => Ok(TopLevelGrammar::from_json_schema(compact(schema))),
        Form::Regex(expression) => Ok(TopLevelGrammar::from_regex(&expression)),
        Form::Choice(choices) => {
            if choices.is_empty() || choices.iter().any(String::is_empty) {
                return Err("must be one or more texts, none of them empty".into());
            }
            // A text in quotes is written as in JSON.
            let quoted: Vec<String> =
                choices.into_iter().map(|choice| Value::from(choice).to_string()).collect();
            Ok(TopLevelGrammar::from_lark(format!("start: {}", quoted.join(" | "))))
        }
    }
}

/// With white space where it is usual and nowhere else: a weak model could write it for ever.
fn compact(mut schema: Value) -> Value {
    if let Value::Object(fields) = &mut schema {
        let options = fields.entry("x-guidance").or_insert_with(|| json!({}));
        if let Value::Object(options) = options {
            options.entry("whitespace_flexible").or_insert(Value::Bool(false));
        }
    }
    schema
}

/// A grammar before its first token.
struct Compiled(Mutex<Matcher>);

impl Language for Compiled {
    fn guide(&self) -> Box<dyn Guide> {
        let matcher = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Box::new(Follower(matcher.deep_clone()))
    }
}

/// A grammar within a reply.
struct Follower(Matcher);

impl Guide for Follower {
    fn next(&mut self, token: Option<u32>) -> Next {
        if let Some(token) = token
            && let Err(error) = self.0.consume_token(token)
        {
            tracing::warn!("a reply left its form: {error}");
            return Next::Stuck;
        }
        if self.0.is_stopped() && !self.0.is_error() {
            return Next::End;
        }
        match self.0.compute_mask() {
            Ok(mask) => Next::Among(TokenSet::from_words(mask.as_slice().to_vec())),
            Err(error) => {
                tracing::warn!("the form of a reply can't be kept to: {error}");
                Next::Stuck
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::testing;

    /// Replies that a chooser without taste makes, by `seed`.
    fn reply(tokenizer: &Tokenizer, constraint: &Constraint, mut seed: u64) -> Option<String> {
        let mut guided = crate::engine::guide::Guided::new(constraint);
        let mut ids = Vec::new();
        for _ in 0..400 {
            let allowed = guided.allowed()?;
            let ids_allowed: Vec<u32> =
                (0..tokenizer.vocab_size() as u32).filter(|&id| allowed.contains(id)).collect();
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let token = ids_allowed[(seed >> 33) as usize % ids_allowed.len()];
            if tokenizer.stop_tokens().contains(&token) {
                return Some(tokenizer.decode(&ids));
            }
            ids.push(token);
            if guided.advance(token).is_some() {
                return Some(tokenizer.decode(&ids));
            }
        }
        None
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "verdict": {"enum": ["yes", "no", "磨坊"]},
                "score": {"type": "integer", "minimum": 0, "maximum": 10},
                "why": {"type": "string", "maxLength": 12},
                "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
            },
            "required": ["verdict", "score", "why", "tags"],
            "additionalProperties": false,
        })
    }

    fn keeps_to_the_schema(text: &str) {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let fields = value.as_object().unwrap();
        assert_eq!(fields.len(), 4, "{text}");
        assert!(["yes", "no", "磨坊"].contains(&fields["verdict"].as_str().unwrap()), "{text}");
        assert!((0..=10).contains(&fields["score"].as_i64().unwrap()), "{text}");
        assert!(fields["why"].as_str().unwrap().chars().count() <= 12, "{text}");
        let tags = fields["tags"].as_array().unwrap();
        assert!(tags.len() <= 3 && tags.iter().all(Value::is_boolean), "{text}");
    }

    #[test]
    fn whatever_is_chosen_keeps_to_the_form() {
        for (name, tokenizer, _) in testing::all() {
            if tokenizer.stop_tokens().is_empty() {
                continue;
            }
            let grammars = Grammars::new(&tokenizer).unwrap();
            let json = grammars.compile(Form::Json(schema())).unwrap();
            let texts = ["7", "10", "fully \"supported\"", "磨坊\n"];
            let choice = Form::Choice(texts.map(str::to_owned).to_vec());
            let choice = grammars.compile(choice).unwrap();
            let regex = grammars.compile(Form::Regex(r"\[\[[0-9]{1,2}\]\]".into())).unwrap();
            for seed in 0..20 {
                let text = reply(&tokenizer, &json, seed).expect(name);
                keeps_to_the_schema(&text);
                let text = reply(&tokenizer, &choice, seed).expect(name);
                assert!(texts.contains(&text.as_str()), "{name}: {text:?}");
                let text = reply(&tokenizer, &regex, seed).expect(name);
                let inside = text.strip_prefix("[[").and_then(|text| text.strip_suffix("]]"));
                assert!(inside.unwrap().parse::<u8>().is_ok(), "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn forms_that_can_not_be_kept_to_are_refused_with_the_reason() {
        let (_, tokenizer, _) = testing::all().into_iter().next().unwrap();
        let grammars = Grammars::new(&tokenizer).unwrap();
        let refused = |form| grammars.compile(form).unwrap_err();
        for schema in [
            json!({"type": "unknown"}),
            json!({"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}),
            json!({"type": "integer", "minimum": 3, "maximum": 2}),
            json!({"$ref": "https://example.com/schema.json"}),
        ] {
            assert!(!refused(Form::Json(schema.clone())).is_empty(), "{schema}");
        }
        assert!(!refused(Form::Regex("(".into())).is_empty());
        assert!(!refused(Form::Choice(Vec::new())).is_empty());
        assert!(!refused(Form::Choice(vec![String::new()])).is_empty());
    }
}
