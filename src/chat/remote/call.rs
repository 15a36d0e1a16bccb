//! From a call to requests, and from their answers to its reply.

use super::Tokens;
use super::estimate::{alternatives_of, closed, verdict_only};
use super::failure::Failure;
use super::http::MAX_ANSWER;
use super::line::Missed;
use super::server::{Abilities, Scoring, Server};
use crate::chat::wire::{
    self, ChatMessage, ChatRequest, ChatResponse, CompletionRequest, CompletionResponse,
    ContinuationsRequest, ContinuationsResponse, OneOrMany, PromptInput, SamplingFields,
};
use crate::chat::{Call, ChatError, Estimate, Finish, Message, Reply, Sampling, Task, Usage, kept};
use crate::tokenizer::Turn;
use serde::Serialize;
use serde::de::DeserializeOwned;

const CHAT: &str = "chat/completions";
const PLAIN: &str = "completions";
const CONTINUATIONS: &str = "/longreward/continuations";

impl Server {
    /// The reply to a call; takes as long as it takes.
    ///
    /// # Errors
    /// Why there is none; see [`ChatError`].
    pub fn answer(&self, call: Call) -> Result<Reply, ChatError> {
        let Call { messages, prefix, task } = call;
        match task {
            Task::Generate(sampling) => self.generate(&messages, &prefix, &sampling),
            Task::Score { continuations, closing } => match self.abilities.scoring {
                Scoring::Exact => self.exact(&messages, prefix, continuations, closing),
                Scoring::By(Estimate::Echo) => {
                    self.by_echo(&messages, &prefix, &continuations, &closing)
                }
                Scoring::By(Estimate::FirstToken) => {
                    self.by_first_token(&messages, &prefix, &continuations)
                }
                Scoring::No => Err(ChatError::Refused(format!(
                    "{} tells no log-probabilities, so that it can't choose between verdicts",
                    self.line.http.base()
                ))),
            },
        }
    }

    fn generate(
        &self,
        messages: &[Message],
        prefix: &str,
        sampling: &Sampling,
    ) -> Result<Reply, ChatError> {
        if messages.is_empty() {
            return self.plain(prefix, sampling);
        }
        let mut request = self.request(messages, prefix, sampling)?;
        self.set_length(&mut request, sampling.max_new_tokens);
        let shorten = |request: &mut ChatRequest, tokens| self.set_length(request, tokens);
        text(self.post_or_shorten(CHAT, request, sampling.max_new_tokens, shorten)?)
    }

    /// Posts a request, and once more for fewer tokens where that is all that fit: as at home.
    fn post_or_shorten<Q: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        mut request: Q,
        wanted: usize,
        shorten: impl Fn(&mut Q, usize),
    ) -> Result<T, ChatError> {
        let response = match self.line.post(path, &request) {
            Err(Missed::Said(Failure::TooLong {
                prompt: Some(prompt),
                limit: Some(limit),
                ..
            })) if prompt < limit && limit - prompt < wanted => {
                shorten(&mut request, limit - prompt);
                self.line.post(path, &request)
            }
            response => response,
        };
        response.map_err(|missed| self.error(path, missed))
    }

    /// Goes on with a text, without a chat template.
    fn plain(&self, text: &str, sampling: &Sampling) -> Result<Reply, ChatError> {
        let mut fields = fields(sampling, &self.abilities);
        fields.max_tokens = Some(sampling.max_new_tokens);
        let request = CompletionRequest {
            model: Some(self.model.clone()),
            prompt: PromptInput::Text(text.to_owned()),
            suffix: None,
            best_of: None,
            echo: None,
            logprobs: None,
            add_special_tokens: None,
            sampling: fields,
        };
        let shorten = |request: &mut CompletionRequest, tokens| {
            request.sampling.max_tokens = Some(tokens);
        };
        let response: CompletionResponse =
            self.post_or_shorten(PLAIN, request, sampling.max_new_tokens, shorten)?;
        let usage = response.usage.flatten().map(Usage::from).unwrap_or_default();
        let choice = response.choices.into_iter().next().ok_or_else(|| strange(PLAIN))?;
        let finish = finish(choice.finish_reason.as_deref())?;
        Ok(Reply::Text { text: choice.text, finish, usage })
    }

    fn request(
        &self,
        messages: &[Message],
        prefix: &str,
        sampling: &Sampling,
    ) -> Result<ChatRequest, ChatError> {
        let own = self.abilities.own;
        let mut messages: Vec<ChatMessage> = messages.iter().map(ChatMessage::from).collect();
        if !prefix.is_empty() {
            if !own {
                return Err(ChatError::Refused(format!(
                    "{} can't be asked to go on with a reply that was begun",
                    self.line.http.base()
                )));
            }
            messages.push(ChatMessage::new("assistant", prefix));
        }
        Ok(ChatRequest {
            model: Some(self.model.clone()),
            messages,
            continue_final_message: (!prefix.is_empty()).then_some(true),
            add_generation_prompt: (!prefix.is_empty()).then_some(false),
            sampling: fields(sampling, &self.abilities),
            ..ChatRequest::default()
        })
    }

    fn exact(
        &self,
        messages: &[Message],
        prefix: String,
        continuations: Vec<String>,
        closing: String,
    ) -> Result<Reply, ChatError> {
        let wanted = continuations.len();
        let request = ContinuationsRequest {
            model: Some(self.model.clone()),
            messages: messages.iter().map(ChatMessage::from).collect(),
            prefix,
            continuations,
            closing,
        };
        let response = self.line.post::<ContinuationsResponse>(CONTINUATIONS, &request);
        let response = response.map_err(|missed| self.error(CONTINUATIONS, missed))?;
        let logprobs = kept::numbers(&response.logprobs).ok();
        let logprobs = logprobs.filter(|logprobs| logprobs.len() == wanted);
        let logprobs = logprobs.ok_or_else(|| strange(CONTINUATIONS))?;
        Ok(Reply::Scores { logprobs, usage: response.usage.into() })
    }

    fn by_echo(
        &self,
        messages: &[Message],
        prefix: &str,
        continuations: &[String],
        closing: &str,
    ) -> Result<Reply, ChatError> {
        let Some(Tokens { tokenizer, template }) = &self.tokens else {
            return Err(ChatError::Refused("the server's tokens are not known".into()));
        };
        let turns = messages.iter().map(|m| Turn { role: m.role.name(), content: &m.content });
        let turns: Vec<Turn> = turns.collect();
        let prompt = template.encode(tokenizer, &turns, prefix);
        let prompt = prompt.map_err(|e| ChatError::Refused(e.to_string()))?;
        let ends: Vec<_> = continuations.iter().map(|c| tokenizer.encode_continuation(c)).collect();
        let longest = prompt.len() + ends.iter().map(Vec::len).max().unwrap_or(0);
        let (mut logprobs, mut usage) = (Vec::new(), Usage::default());
        for ends in ends.chunks(prompts_of_an_answer(longest, self.abilities.top)) {
            let whole = |end: &Vec<u32>| [&prompt[..], end].concat();
            let request = self.echo(ends.iter().map(whole).collect(), self.abilities.top);
            let response = self.line.post::<CompletionResponse>(PLAIN, &request);
            let mut response = response.map_err(|missed| self.error(PLAIN, missed))?;
            response.choices.sort_by_key(|choice| choice.index);
            if response.choices.len() != ends.len() {
                return Err(strange(PLAIN));
            }
            for (choice, end) in response.choices.iter().zip(ends) {
                let told = choice.logprobs.as_ref();
                let score = told.and_then(|told| closed(told, prompt.len(), end.len(), closing));
                logprobs.push(score.ok_or_else(|| strange(PLAIN))?);
            }
            usage += response.usage.flatten().map(Usage::from).unwrap_or_default();
        }
        Ok(Reply::Estimates { logprobs, way: Estimate::Echo, usage })
    }

    fn by_first_token(
        &self,
        messages: &[Message],
        prefix: &str,
        continuations: &[String],
    ) -> Result<Reply, ChatError> {
        let mut request = ChatRequest {
            model: Some(self.model.clone()),
            messages: verdict_only(messages, prefix, continuations),
            logprobs: Some(true),
            top_logprobs: Some(self.abilities.top),
            sampling: SamplingFields { temperature: Some(0.0), ..SamplingFields::default() },
            ..ChatRequest::default()
        };
        self.set_length(&mut request, 8);
        let response = self.line.post::<ChatResponse>(CHAT, &request);
        let response = response.map_err(|missed| self.error(CHAT, missed))?;
        let usage = response.usage.into();
        let told = response.choices.into_iter().next().and_then(|choice| choice.logprobs);
        let tokens = told.map(|told| told.content).unwrap_or_default();
        match alternatives_of(&tokens, continuations) {
            Some(logprobs) => Ok(Reply::Estimates { logprobs, way: Estimate::FirstToken, usage }),
            None => Err(ChatError::Refused(format!(
                "{}: asked for a verdict alone, the model begins with none of {}",
                self.line.http.url(CHAT),
                continuations.join(", ")
            ))),
        }
    }
}

/// Prompts of `tokens` tokens that are asked for at a time, so that an answer with the `top` likeliest at each place is
/// well below what is read of one.
pub(super) fn prompts_of_an_answer(tokens: usize, top: usize) -> usize {
    /// A token with its log-probability, as vLLM writes it: some 30 bytes.
    const BYTES: usize = 40;
    (MAX_ANSWER as usize / 2 / (BYTES * (top + 2) * tokens.max(1))).max(1)
}

fn strange(path: &str) -> ChatError {
    ChatError::Refused(format!("{path}: the answer does not fit the request"))
}

/// What is said in the fields of a request; what others than OpenAI have added only where the server
/// knows it, or it is asked for.
fn fields(sampling: &Sampling, abilities: &Abilities) -> SamplingFields {
    // Other servers may know fewer seeds.
    let seed = if abilities.own { sampling.seed } else { sampling.seed & 0x7FFF_FFFF };
    let asked = (sampling.top_k != 0).then_some(sampling.top_k as i64);
    // What is said is not replaced by a server's own habits.
    SamplingFields {
        seed: Some(seed as i64),
        temperature: Some(sampling.temperature),
        top_p: Some(sampling.top_p),
        top_k: asked.or(abilities.filters),
        min_p: (abilities.filters.is_some() || sampling.min_p != 0.0).then_some(sampling.min_p),
        repetition_penalty: (sampling.repetition_penalty != 1.0)
            .then_some(sampling.repetition_penalty),
        stop: (!sampling.stop.is_empty()).then(|| OneOrMany::Many(sampling.stop.clone())),
        ..SamplingFields::default()
    }
}

/// How a reply ended. Servers have their own words for it; one that is not known here may stand for half a reply, which
/// must not be judged as a whole one.
fn finish(reason: Option<&str>) -> Result<Finish, ChatError> {
    let refused = |why: String| Err(ChatError::Refused(why));
    match reason.unwrap_or_default() {
        "" | "stop" | "eos" | "eos_token" | "stop_sequence" | "end_turn" => Ok(Finish::Stop),
        "length" | "max_tokens" | "model_length" => Ok(Finish::Length),
        "content_filter" => refused("the server's filter withheld the reply".into()),
        other => refused(format!("the server did not finish the reply (finish_reason {other:?})")),
    }
}

fn text(response: ChatResponse) -> Result<Reply, ChatError> {
    let usage = response.usage.into();
    let choice = response.choices.into_iter().next().ok_or_else(|| strange(CHAT))?;
    let (finish, message) = (finish(Some(&choice.finish_reason))?, choice.message);
    let thought = message.reasoning_content.or(message.reasoning).map(|text| text.chars().count());
    match (message.content, message.refusal, thought) {
        (Some(text), ..) => Ok(Reply::Text { text, finish, usage }),
        (None, Some(refusal), _) => {
            Err(ChatError::Refused(format!("the model refuses: {refusal}")))
        }
        (None, None, Some(thought)) => Err(ChatError::Refused(format!(
            "the model thought for {thought} characters and said nothing: allow more new tokens, or have the \
             server switch thinking off"
        ))),
        (None, None, None) => Err(ChatError::Refused("the reply has no content".into())),
    }
}

impl From<wire::Usage> for Usage {
    fn from(usage: wire::Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            cached_prompt_tokens: usage
                .prompt_tokens_details
                .map_or(0, |details| details.cached_tokens),
            completion_tokens: usage.completion_tokens,
        }
    }
}
