//! `/v1/completions`: plain text or tokens, continued, with the log-probabilities of both sides.
//!
//! A stop token that ended a sample is the last entry of its log-probabilities, though it writes
//! nothing: whoever asks for one token gets the log-probability of one token.

use super::error::json;
use super::generate::{Answer, Running, collect, finish_reason};
use super::logprobs::Lists;
use super::prompt::Plain;
use super::stream::{Chunks, stream};
use super::{ApiError, App, body, form, now, prompt, sampling};
use crate::chat::Usage;
use crate::chat::service::{Generation, PromptLogprobs, Sampled, Update};
use crate::chat::wire::{
    CompletionChoice, CompletionLogprobs, CompletionRequest, CompletionResponse, PromptInput,
};
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

/// Tokens of a completion, if the request does not say.
const DEFAULT_TOKENS: usize = 16;

/// Tokens of prompts, and likeliest ones in their places, that one answer repeats, at most.
const MAX_ECHOED: usize = 4 << 20;

/// Continues prompts.
pub async fn completions(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (request, held): (CompletionRequest, _) = body::read_sampling(&app, request).await?;
    let model = app.model(request.model.clone())?;
    let mut pattern = pattern(&app, &request)?;
    pattern.constraint = form::constraint(&app, &request.sampling, None).await?;
    check_count(&app, &request.prompt, pattern.n)?;
    let with_prefix = request.add_special_tokens.unwrap_or(true);
    let prompts = prompt::plain(&app, request.prompt, with_prefix).await?;
    check_echo(&pattern, request.echo == Some(true), &prompts)?;
    let fields = request.sampling;
    let asked = Some(fields.max_tokens.unwrap_or(DEFAULT_TOKENS));
    let one = |prompt: &Plain| {
        let prompt = prompt.tokens.clone();
        let max_new_tokens = sampling::reply_tokens(&app, prompt.len(), asked)?;
        let seed = fields.seed.map_or_else(|| app.random(), |_| pattern.seed);
        Ok(Generation { prompt, max_new_tokens, seed, ..pattern.clone() })
    };
    let generations = prompts.iter().map(one).collect::<Result<Vec<_>, ApiError>>()?;
    let running = Running::submit(&app, generations)?;
    drop(held);
    let n = pattern.n;
    let reply = Reply {
        id: app.id("cmpl"),
        created: now(),
        model,
        echo: request.echo == Some(true),
        logprobs: request.logprobs.is_some(),
        n,
        prompts,
        with_usage: fields.stream_options.is_some_and(|options| options.include_usage),
        app: app.clone(),
    };
    if fields.stream == Some(true) {
        let offsets = vec![0; reply.prompts.len() * n];
        return Ok(stream(running, ReplyChunks { reply, offsets }));
    }
    let (answers, usage) = collect(running, reply.prompts.len(), n).await?;
    Ok(json(&reply.whole(answers, usage)))
}

/// What is asked for each prompt.
fn pattern(app: &App, request: &CompletionRequest) -> Result<Generation, ApiError> {
    let pattern = sampling::generation(app, &request.sampling)?;
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::unsupported("suffix", "is not supported"));
    }
    if request.best_of.is_some_and(|best_of| best_of != pattern.n) {
        return Err(ApiError::unsupported("best_of", "is only supported where it equals n"));
    }
    let logprobs = request.logprobs.map(|k| sampling::top_logprobs("logprobs", k)).transpose()?;
    let prompt_logprobs = logprobs.filter(|_| request.echo == Some(true));
    Ok(Generation { logprobs, prompt_logprobs, goes_on: true, ..pattern })
}

/// More samples than are ever taken are refused before anything is made of their prompts.
fn check_count(app: &App, prompts: &PromptInput, n: usize) -> Result<(), ApiError> {
    let (count, limit) = (prompts.count(), app.handle.capacity());
    let samples = count.saturating_mul(n);
    if count > 1 && samples > limit {
        let why = format!(
            "{count} prompts with n = {n} are {samples} samples; at most {limit} are taken"
        );
        return Err(ApiError::field("prompt", why));
    }
    Ok(())
}

/// Each sample of a prompt repeats all of it.
fn check_echo(pattern: &Generation, echo: bool, prompts: &[Plain]) -> Result<(), ApiError> {
    let tokens: usize = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
    let places = tokens.saturating_mul(pattern.n);
    let echoed = places.saturating_mul(pattern.prompt_logprobs.unwrap_or(0) + 1);
    if echo && echoed > MAX_ECHOED {
        let why = format!(
            "would repeat {echoed} tokens, the likeliest ones included; at most {MAX_ECHOED} are repeated: \
             ask for fewer prompts, samples or logprobs"
        );
        return Err(ApiError::field("echo", why));
    }
    Ok(())
}

/// What every part of an answer says.
struct Reply {
    id: String,
    created: u64,
    model: String,
    echo: bool,
    logprobs: bool,
    n: usize,
    prompts: Vec<Plain>,
    /// Whether the pieces of a stream tell usage.
    with_usage: bool,
    app: Arc<App>,
}

impl Reply {
    /// The lists of tokens from `offset` on, and where they end.
    fn lists<'a>(
        &self,
        offset: usize,
        prompt: Option<(&Plain, &PromptLogprobs)>,
        sampled: impl IntoIterator<Item = &'a Sampled>,
    ) -> (Option<CompletionLogprobs>, usize) {
        if !self.logprobs {
            return (None, offset);
        }
        let mut lists = Lists::new(self.app.handle.tokenizer(), offset);
        if let Some((prompt, read)) = prompt {
            lists.prompt(&prompt.tokens, read);
        }
        lists.sampled(sampled);
        let (lists, offset) = lists.finish();
        (Some(lists), offset)
    }

    fn whole(self, answers: Vec<Answer>, usage: Usage) -> CompletionResponse {
        let mut choices = Vec::new();
        for (prompt, answer) in self.prompts.iter().zip(answers) {
            for sample in answer.samples {
                let tokens = sample.piece.tokens.iter().chain(&sample.stop_token);
                let echoed = answer.prompt.as_ref().map(|read| (prompt, read));
                let (logprobs, _) = self.lists(0, echoed, tokens);
                let text = match self.echo {
                    true => format!("{}{}", prompt.text, sample.piece.text),
                    false => sample.piece.text,
                };
                let finish_reason = Some(finish_reason(sample.finish));
                let index = choices.len();
                choices.push(CompletionChoice { text, index, logprobs, finish_reason });
            }
        }
        CompletionResponse { usage: Some(Some(usage.into())), ..self.part(choices) }
    }

    /// A piece without usage, which says so where usage is asked for.
    fn part(&self, choices: Vec<CompletionChoice>) -> CompletionResponse {
        CompletionResponse {
            id: self.id.clone(),
            object: "text_completion".into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage: self.with_usage.then_some(None),
        }
    }
}

struct ReplyChunks {
    reply: Reply,
    /// Characters of each choice so far.
    offsets: Vec<usize>,
}

impl ReplyChunks {
    /// The echo of a prompt in all its choices.
    fn echo(&mut self, prompt: usize, read: Option<&PromptLogprobs>) -> CompletionResponse {
        let (n, plain) = (self.reply.n, &self.reply.prompts[prompt]);
        let (logprobs, offset) = self.reply.lists(0, read.map(|read| (plain, read)), []);
        let choice = |k| CompletionChoice {
            text: plain.text.clone(),
            index: prompt * n + k,
            logprobs: logprobs.clone().filter(|_| read.is_some()),
            finish_reason: None,
        };
        let choices = (0..n).map(choice).collect();
        self.offsets[prompt * n..(prompt + 1) * n].fill(offset);
        self.reply.part(choices)
    }
}

impl Chunks for ReplyChunks {
    type Chunk = CompletionResponse;

    fn open(&mut self) -> Vec<CompletionResponse> {
        // With log-probabilities the echo waits for them.
        if !self.reply.echo || self.reply.logprobs {
            return Vec::new();
        }
        (0..self.reply.prompts.len()).map(|prompt| self.echo(prompt, None)).collect()
    }

    fn update(&mut self, prompt: usize, update: Update) -> Option<CompletionResponse> {
        let (sample, text, tokens, finish) = match update {
            Update::Prompt(read) => return Some(self.echo(prompt, Some(&read))),
            Update::Piece { sample, piece } => (sample, piece.text, piece.tokens, None),
            Update::End { sample, finish, stop_token } => {
                (sample, String::new(), Vec::from_iter(stop_token), Some(finish))
            }
            Update::Scores(_) | Update::Done(_) | Update::Failed(_) => return None,
        };
        let index = prompt * self.reply.n + sample;
        let (logprobs, offset) = self.reply.lists(self.offsets[index], None, &tokens);
        self.offsets[index] = offset;
        let finish_reason = finish.map(|finish| finish_reason(Some(finish)));
        let choice = CompletionChoice { text, index, logprobs, finish_reason };
        Some(self.reply.part(vec![choice]))
    }

    fn close(&mut self, usage: Usage) -> Option<CompletionResponse> {
        let last = || CompletionResponse {
            usage: Some(Some(usage.into())),
            ..self.reply.part(Vec::new())
        };
        self.reply.with_usage.then(last)
    }
}
