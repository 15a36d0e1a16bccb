//! A server, and what it is found to be able to.

use super::failure::Failure;
use super::line::{Line, Missed};
use super::{RemoteError, Settings, Tokens};
use crate::chat::wire::{
    ChatMessage, ChatRequest, ChatResponse, CompletionRequest, CompletionResponse, ModelList,
    PromptInput, SamplingFields,
};
use crate::chat::{ChatError, Estimate};
use crate::tokenizer::Turn;
use std::collections::BTreeMap;

/// A server with one model.
pub struct Server {
    pub(super) line: Line,
    pub(super) model: String,
    key_variables: &'static [&'static str],
    pub(super) tokens: Option<Tokens>,
    pub(super) abilities: Abilities,
    /// What this program's own server says of itself.
    told: Option<BTreeMap<String, String>>,
    /// Tokens of the model's context, if the server tells.
    context: Option<usize>,
}

/// What a server understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// It is one of this program.
    pub own: bool,
    pub scoring: Scoring,
    pub length_field: LengthField,
    /// It knows `top_k` and `min_p`, which some servers apply unless they are told not to: the
    /// `top_k` that keeps every token.
    pub filters: Option<i64>,
    /// Likeliest tokens of a place that it tells.
    pub top: usize,
}

/// How continuations are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scoring {
    /// By the server's own endpoint for it.
    Exact,
    By(Estimate),
    /// Not at all.
    No,
}

impl Scoring {
    fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::By(Estimate::Echo) => "echo",
            Self::By(Estimate::FirstToken) => "first token",
            Self::No => "no",
        }
    }
}

/// What a server calls the largest number of new tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LengthField {
    MaxTokens,
    MaxCompletionTokens,
}

/// How servers write that `top_k` keeps every token.
const NO_TOP_K: [i64; 2] = [-1, 0];

/// Numbers of likeliest tokens that are tried.
const TOPS: [usize; 2] = [20, 5];

impl Server {
    /// Asks the server what it is, and tries what it can do if it is not one of this program.
    ///
    /// # Errors
    /// See [`super::Remote::open`].
    pub fn open(
        line: Line,
        settings: &Settings,
        tokens: Option<Tokens>,
    ) -> Result<Self, RemoteError> {
        let abilities = Abilities {
            own: false,
            scoring: Scoring::No,
            length_field: LengthField::MaxTokens,
            filters: None,
            top: 0,
        };
        let mut server = Self {
            line,
            model: settings.model.clone(),
            key_variables: settings.key_variables,
            tokens,
            abilities,
            told: None,
            context: None,
        };
        server.find_model()?;
        match server.told {
            Some(_) => {
                let (filters, scoring) = (Some(0), Scoring::Exact);
                server.abilities = Abilities { own: true, filters, scoring, ..abilities };
            }
            None => server.try_abilities()?,
        }
        Ok(server)
    }

    /// From now on nothing is sent any more.
    pub fn stop(&self) {
        self.line.stop();
    }

    /// Tokens that the model reads and writes in all, if the server tells.
    pub fn context(&self) -> Option<usize> {
        self.context
    }

    /// See [`super::Remote::about`].
    pub fn about(&self) -> BTreeMap<String, String> {
        let mut about = self.told.clone().unwrap_or_default();
        if let Some(version) = about.remove("version") {
            about.insert("server version".into(), version);
        }
        let place = if about.contains_key("checkpoint") { "url" } else { "server" };
        for name in ["checkpoint", "template"] {
            about.entry(name.into()).or_insert_with(|| "not told by the server".into());
        }
        let own = [
            ("model", self.model.as_str()),
            (place, self.line.http.base()),
            ("scoring", self.abilities.scoring.name()),
        ];
        about.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if !self.abilities.own {
            let filters = self.abilities.filters.map_or("the server's own", |_| "as asked");
            about.insert("filters".into(), filters.into());
        }
        about
    }

    /// Looks the model up, and what is said of it.
    fn find_model(&mut self) -> Result<(), RemoteError> {
        let list: ModelList = match self.line.get("models") {
            Ok(list) => list,
            // Not every server has a list.
            Err(Missed::Said(Failure::NotFound { .. } | Failure::Refused { .. })) => return Ok(()),
            Err(missed) => return Err(self.error("models", missed).into()),
        };
        let model = list.data.iter().find(|model| model.id == self.model);
        match model {
            Some(model) => {
                self.told = model.longreward.clone();
                self.context = model.context();
            }
            None if list.data.is_empty() => {}
            None => {
                let names = list.data.into_iter().map(|model| model.id).collect();
                let (url, model) = (self.line.http.base().to_owned(), self.model.clone());
                return Err(RemoteError::Model { url, model, names });
            }
        }
        Ok(())
    }

    /// The names of the server's models, to say which there are.
    fn names(&self) -> Option<String> {
        let list: ModelList = self.line.get("models").ok()?;
        let names: Vec<String> = list.data.into_iter().map(|model| model.id).collect();
        Some(names.join(", "))
    }

    fn try_abilities(&mut self) -> Result<(), RemoteError> {
        let told = self.try_chat()?;
        if told {
            self.abilities.scoring = Scoring::By(Estimate::FirstToken);
        }
        if self.try_echo() {
            self.abilities.scoring = Scoring::By(Estimate::Echo);
        }
        Ok(())
    }

    /// Whether a chat's reply comes with the likeliest tokens.
    fn try_chat(&mut self) -> Result<bool, RemoteError> {
        self.find_length_field()?;
        let mut tells = false;
        for top in TOPS {
            let trial = self.trial(Some(top));
            match self.line.post_trial::<ChatResponse>("chat/completions", &trial) {
                Ok(response) => {
                    tells = tells_likeliest(&response);
                    self.abilities.top = if tells { top } else { 0 };
                    break;
                }
                Err(Missed::Said(_)) => {}
                Err(missed) => return Err(self.error("chat/completions", missed).into()),
            }
        }
        self.abilities.filters = self.try_filters();
        Ok(tells)
    }

    /// Finds out what the length is called, by the plainest of requests.
    fn find_length_field(&mut self) -> Result<(), RemoteError> {
        let mut refusal = None;
        for field in [LengthField::MaxTokens, LengthField::MaxCompletionTokens] {
            self.abilities.length_field = field;
            let plain = self.trial(None);
            match self.line.post::<ChatResponse>("chat/completions", &plain) {
                Ok(_) => return Ok(()),
                Err(Missed::Said(failure @ Failure::Refused { .. })) => {
                    refusal.get_or_insert(failure);
                }
                Err(missed) => return Err(self.error("chat/completions", missed).into()),
            }
        }
        let refusal = refusal.unwrap_or(Failure::Refused { what: "it refuses".into() });
        // What can't be had for a trial can't be had at all.
        let what = self.error("chat/completions", Missed::Said(refusal)).to_string();
        Err(ChatError::Broken(what).into())
    }

    /// Whether fields are taken that OpenAI's own API does not have; gives the `top_k` that keeps
    /// every token.
    fn try_filters(&self) -> Option<i64> {
        NO_TOP_K.into_iter().find(|&all| {
            let mut request = self.trial(None);
            (request.sampling.top_k, request.sampling.min_p) = (Some(all), Some(0.0));
            self.line.post_trial::<ChatResponse>("chat/completions", &request).is_ok()
        })
    }

    fn trial(&self, top: Option<usize>) -> ChatRequest {
        let mut request = ChatRequest {
            model: Some(self.model.clone()),
            messages: vec![ChatMessage::new("user", "How many legs has a spider? One number.")],
            logprobs: top.map(|_| true),
            top_logprobs: top,
            sampling: SamplingFields {
                seed: Some(1),
                temperature: Some(0.0),
                ..SamplingFields::default()
            },
            ..ChatRequest::default()
        };
        self.set_length(&mut request, 4);
        request
    }

    pub(super) fn set_length(&self, request: &mut ChatRequest, tokens: usize) {
        match self.abilities.length_field {
            LengthField::MaxTokens => request.sampling.max_tokens = Some(tokens),
            LengthField::MaxCompletionTokens => request.max_completion_tokens = Some(tokens),
        }
    }

    /// Whether prompts in tokens come back with their log-probabilities, and the tokens are those
    /// known here.
    fn try_echo(&mut self) -> bool {
        let Some(Tokens { tokenizer, template }) = self.tokens.clone() else { return false };
        let turns = [Turn { role: "user", content: "One, two, three, four, five." }];
        let Ok(prompt) = template.encode(&tokenizer, &turns, "") else { return false };
        let text = tokenizer.encode_continuation("Six, seven, eight, nine, ten.");
        let prompts = [&text[..text.len() / 2], &text[..]].map(|end| [&prompt[..], end].concat());
        TOPS.into_iter().any(|top| {
            let request = self.echo(prompts.to_vec(), top);
            let response = self.line.post_trial::<CompletionResponse>("completions", &request);
            let Ok(mut response) = response else { return false };
            response.choices.sort_by_key(|choice| choice.index);
            let works = response.choices.len() == prompts.len()
                && response.choices.iter().zip(&prompts).all(|(choice, prompt)| {
                    echoes(choice.logprobs.as_ref(), prompt, &|ids| tokenizer.decode(ids))
                });
            if works {
                self.abilities.top = top;
            }
            works
        })
    }

    /// Asks for the log-probabilities of prompts and of what may follow.
    pub(super) fn echo(&self, prompts: Vec<Vec<u32>>, top: usize) -> CompletionRequest {
        CompletionRequest {
            model: Some(self.model.clone()),
            prompt: PromptInput::ManyTokens(prompts),
            suffix: None,
            best_of: None,
            echo: Some(true),
            logprobs: Some(top),
            add_special_tokens: None,
            sampling: SamplingFields {
                max_tokens: Some(1),
                temperature: Some(0.0),
                ..SamplingFields::default()
            },
        }
    }

    /// A request without a result as the failure of a call, with what to do about it.
    pub(super) fn error(&self, path: &str, missed: Missed) -> ChatError {
        let url = self.line.http.url(path);
        match missed {
            Missed::Stopped => ChatError::Broken("the work was stopped".into()),
            Missed::Unanswered { what, others: true } => ChatError::Lost(format!("{url}: {what}")),
            Missed::Unanswered { what, others: false } => ChatError::Broken(format!(
                "{url}: {what}; what was answered is kept: see to the server and give the same \
                 command again"
            )),
            Missed::Said(failure) => self.said(&url, failure),
        }
    }

    fn said(&self, url: &str, failure: Failure) -> ChatError {
        let said = format!("{url}: {}", failure.what());
        match failure {
            Failure::Untrusted { .. } => ChatError::Broken(said),
            Failure::Denied { .. } => {
                let variables = self.key_variables.join(" or ");
                ChatError::Broken(format!(
                    "{said}; set a valid key in the environment: {variables}"
                ))
            }
            Failure::NotFound { .. } => {
                let names = match self.names() {
                    Some(names) => format!("it has: {names}"),
                    None => "is the address right? It usually ends in /v1".to_owned(),
                };
                ChatError::Broken(format!(
                    "{said}; the model asked for is {:?}; {names}",
                    self.model
                ))
            }
            Failure::TooLong { prompt, limit, .. } => ChatError::TooLong {
                tokens: prompt.unwrap_or(0),
                limit: limit.unwrap_or(0),
                why: said,
            },
            Failure::Refused { .. }
            | Failure::Passing { .. }
            | Failure::Full { .. }
            | Failure::Broke { .. } => ChatError::Refused(said),
        }
    }
}

fn tells_likeliest(response: &ChatResponse) -> bool {
    let choice = response.choices.first();
    let tokens = choice.and_then(|choice| choice.logprobs.as_ref()).map(|told| &told.content);
    tokens.is_some_and(|tokens| tokens.first().is_some_and(|token| token.top_logprobs.len() > 1))
}

/// Whether all tokens of a prompt, and one more, have come back, and they are the same ones.
fn echoes(
    told: Option<&crate::chat::wire::CompletionLogprobs>,
    prompt: &[u32],
    decode: &dyn Fn(&[u32]) -> String,
) -> bool {
    let Some(told) = told else { return false };
    let probabilities = &told.token_logprobs;
    // Control tokens may be written in any way, so only the end, which is text, is compared.
    let end = prompt.len() - 2..prompt.len();
    probabilities.len() == prompt.len() + 1
        && told.tokens.len() == probabilities.len()
        && told.top_logprobs.len() == probabilities.len()
        && probabilities[1..].iter().all(|p| p.is_some_and(|p| p.is_finite() && p <= 0.0))
        && told.tokens[end.clone()].concat().trim() == decode(&prompt[end]).trim()
}
