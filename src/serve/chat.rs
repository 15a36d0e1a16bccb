//! `/v1/chat/completions`.

use super::error::json;
use super::generate::{Running, Sample, collect, finish_reason};
use super::stream::{Chunks, stream};
use super::{ApiError, App, body, form, logprobs, now, prompt, sampling, tools};
use crate::chat::grammar::Form;
use crate::chat::service::Update;
use crate::chat::wire::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatLogprobs, ChatRequest, ChatResponse, Delta,
    ReplyMessage,
};
use crate::chat::{Finish, Usage};
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

/// Continues a conversation.
pub async fn completions(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut request, held): (ChatRequest, _) = body::read_sampling(&app, request).await?;
    let function = tools::forced(&request)?;
    let mut reply = Reply {
        id: app.id("chatcmpl"),
        created: now(),
        model: app.model(request.model.clone())?,
        logprobs: request.logprobs == Some(true),
        function: function.as_ref().map(|function| function.name.clone()),
        required: function.is_some() && tools::is_required(&request),
        with_usage: false,
        app: app.clone(),
    };
    let mut generation = sampling::generation(&app, &request.sampling)?;
    generation.logprobs = top_logprobs(&request)?;
    let arguments = function.as_ref().map(|call| ("tools", Form::Json(tools::schema(call))));
    generation.constraint = form::constraint(&app, &request.sampling, arguments).await?;
    if let Some(function) = &function {
        tools::tell(&mut request.messages, function);
    }
    let prefix = match request.continue_final_message {
        Some(true) => prompt::take_prefix(&mut request.messages)?,
        _ => String::new(),
    };
    generation.goes_on = !prefix.is_empty();
    generation.prompt = prompt::conversation(&app, request.messages, prefix).await?;
    let fields = request.sampling;
    reply.with_usage = fields.stream_options.is_some_and(|options| options.include_usage);
    let asked = request.max_completion_tokens.or(fields.max_tokens);
    generation.max_new_tokens = sampling::reply_tokens(&app, generation.prompt.len(), asked)?;
    let n = generation.n;
    let running = Running::submit(&app, vec![generation])?;
    drop(held);
    if fields.stream == Some(true) {
        return Ok(stream(running, ReplyChunks { reply, n }));
    }
    let (mut answers, usage) = collect(running, 1, n).await?;
    let samples = answers.pop().map(|answer| answer.samples).unwrap_or_default();
    Ok(json(&reply.whole(samples, usage)))
}

fn top_logprobs(request: &ChatRequest) -> Result<Option<usize>, ApiError> {
    let told = request.logprobs == Some(true);
    match request.top_logprobs {
        Some(_) if !told => Err(ApiError::field("top_logprobs", "needs logprobs: true")),
        Some(k) => sampling::top_logprobs("top_logprobs", k).map(Some),
        None => Ok(told.then_some(0)),
    }
}

/// What every part of an answer says.
struct Reply {
    id: String,
    created: u64,
    model: String,
    logprobs: bool,
    /// The function that the reply calls, if it must call one.
    function: Option<String>,
    /// Whether some call was required, not one by name: how the API ends a reply depends on it.
    required: bool,
    /// Whether chunks tell usage.
    with_usage: bool,
    app: Arc<App>,
}

impl Reply {
    /// A text, or the arguments of a call.
    fn message(&self, text: String) -> ReplyMessage {
        let call = |name| vec![tools::call(self.app.id("call"), name, text.clone())];
        let tool_calls = self.function.as_deref().map(call);
        let content = tool_calls.is_none().then_some(text);
        ReplyMessage { role: "assistant".into(), content, tool_calls, ..ReplyMessage::default() }
    }

    fn opening(&self) -> Delta {
        let role = Some("assistant".into());
        match &self.function {
            None => Delta { role, content: Some(String::new()), tool_calls: None },
            Some(name) => {
                let mut call = tools::call(self.app.id("call"), name, String::new());
                call.index = Some(0);
                Delta { role, content: None, tool_calls: Some(vec![call]) }
            }
        }
    }

    fn piece(&self, text: String) -> Delta {
        match &self.function {
            None => Delta { content: Some(text), ..Delta::default() },
            Some(_) => Delta { tool_calls: Some(vec![tools::more(text)]), ..Delta::default() },
        }
    }

    fn finish_reason(&self, finish: Option<Finish>) -> String {
        match finish {
            Some(Finish::Stop) if self.required => "tool_calls".to_owned(),
            finish => finish_reason(finish),
        }
    }

    fn logprobs(&self, sample: &[crate::chat::service::Sampled]) -> Option<ChatLogprobs> {
        self.logprobs.then(|| logprobs::of_chat(self.app.handle.tokenizer(), sample))
    }

    fn whole(self, samples: Vec<Sample>, usage: Usage) -> ChatResponse {
        let choice = |(index, sample): (usize, Sample)| ChatChoice {
            index,
            logprobs: self.logprobs(&sample.piece.tokens),
            message: self.message(sample.piece.text),
            finish_reason: self.finish_reason(sample.finish),
        };
        let choices = samples.into_iter().enumerate().map(choice).collect();
        ChatResponse {
            choices,
            id: self.id,
            object: "chat.completion".into(),
            created: self.created,
            model: self.model,
            usage: usage.into(),
        }
    }

    /// A chunk without usage, which says so where usage is asked for.
    fn chunk(&self, choices: Vec<ChatChunkChoice>) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage: self.with_usage.then_some(None),
        }
    }
}

struct ReplyChunks {
    reply: Reply,
    n: usize,
}

impl Chunks for ReplyChunks {
    type Chunk = ChatChunk;

    fn open(&mut self) -> Vec<ChatChunk> {
        let role = |index| ChatChunkChoice {
            index,
            delta: self.reply.opening(),
            logprobs: None,
            finish_reason: None,
        };
        (0..self.n).map(|index| self.reply.chunk(vec![role(index)])).collect()
    }

    fn update(&mut self, _: usize, update: Update) -> Option<ChatChunk> {
        let choice = match update {
            Update::Piece { sample, piece } => ChatChunkChoice {
                index: sample,
                logprobs: self.reply.logprobs(&piece.tokens),
                delta: self.reply.piece(piece.text),
                finish_reason: None,
            },
            Update::End { sample, finish, .. } => ChatChunkChoice {
                index: sample,
                delta: Delta::default(),
                logprobs: None,
                finish_reason: Some(self.reply.finish_reason(Some(finish))),
            },
            Update::Prompt(_) | Update::Scores(_) | Update::Done(_) | Update::Failed(_) => {
                return None;
            }
        };
        Some(self.reply.chunk(vec![choice]))
    }

    fn close(&mut self, usage: Usage) -> Option<ChatChunk> {
        let last = || ChatChunk { usage: Some(Some(usage.into())), ..self.reply.chunk(Vec::new()) };
        self.reply.with_usage.then(last)
    }
}
