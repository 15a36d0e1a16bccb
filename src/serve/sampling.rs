//! Whether the fields of a request are allowed, and what they ask of the engine.

use super::{ApiError, App};
use crate::chat::service::{Generation, REPETITION_PENALTIES, SamplingParams};
use crate::chat::wire::SamplingFields;
use serde_json::Value;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Samples of one prompt, at most.
const MAX_SAMPLES: usize = 128;

/// Stop strings, at most, and bytes of one.
const MAX_STOPS: usize = 16;
const MAX_STOP: usize = 1024;

/// Tokens that can be told for each place, at most.
pub const MAX_TOP_LOGPROBS: usize = 20;

/// Checks the fields that all sampling requests share and gives what they ask for; prompt, length,
/// form and log-probabilities are still to be filled in. Each prompt has a seed of its own where none is
/// given.
///
/// # Errors
/// The first field that is not allowed, by name.
pub fn generation(app: &App, fields: &SamplingFields) -> Result<Generation, ApiError> {
    let n = fields.n.unwrap_or(1);
    if !(1..=MAX_SAMPLES).contains(&n) {
        return Err(ApiError::field("n", format!("is {n}, but must be from 1 to {MAX_SAMPLES}")));
    }
    if fields.stream_options.is_some() && fields.stream != Some(true) {
        return Err(ApiError::field("stream_options", "is only for stream: true"));
    }
    refuse_unsupported(fields)?;
    Ok(Generation {
        prompt: Vec::new(),
        n,
        max_new_tokens: 0,
        params: params(app, fields)?,
        seed: fields.seed.map_or_else(|| app.random(), |seed| seed as u64),
        stop: stops(fields)?,
        ignore_stop_tokens: fields.ignore_eos.unwrap_or(false),
        logprobs: None,
        prompt_logprobs: None,
        constraint: None,
        goes_on: false,
    })
}

/// Fields that would make another reply, had this server what they ask for.
fn refuse_unsupported(fields: &SamplingFields) -> Result<(), ApiError> {
    let named = [
        ("guided_grammar", &fields.guided_grammar),
        ("functions", &fields.functions),
        ("function_call", &fields.function_call),
        ("stop_token_ids", &fields.stop_token_ids),
        ("min_tokens", &fields.min_tokens),
    ];
    let named =
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_ref()?)));
    let others = fields.structured_outputs.iter().flat_map(|outputs| &outputs.others);
    let others = others.map(|(name, value)| (format!("structured_outputs.{name}"), value));
    match named.chain(others).find(|(_, value)| asks(value)) {
        Some((name, _)) => Err(ApiError::unsupported(&name, "is not supported")),
        None => Ok(()),
    }
}

/// Many clients write out what they do not ask for.
fn asks(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_u64() != Some(0),
        Value::String(text) => !matches!(text.as_str(), "" | "none"),
        Value::Array(values) => !values.is_empty(),
        Value::Bool(true) | Value::Object(_) => true,
    }
}

fn params(app: &App, fields: &SamplingFields) -> Result<SamplingParams, ApiError> {
    let penalties = -2.0..=2.0;
    Ok(SamplingParams {
        temperature: within("temperature", fields.temperature, 1.0, 0.0..=2.0)?,
        top_p: within("top_p", fields.top_p, 1.0, f32::MIN_POSITIVE..=1.0)?,
        // Others write -1 for all tokens.
        top_k: usize::try_from(fields.top_k.unwrap_or(0)).unwrap_or(0),
        min_p: within("min_p", fields.min_p, 0.0, 0.0..=1.0)?,
        repetition_penalty: within(
            "repetition_penalty",
            fields.repetition_penalty,
            1.0,
            REPETITION_PENALTIES,
        )?,
        presence_penalty: within(
            "presence_penalty",
            fields.presence_penalty,
            0.0,
            penalties.clone(),
        )?,
        frequency_penalty: within("frequency_penalty", fields.frequency_penalty, 0.0, penalties)?,
        logit_bias: biases(app, fields)?,
    })
}

fn within(
    field: &str,
    value: Option<f32>,
    default: f32,
    range: RangeInclusive<f32>,
) -> Result<f32, ApiError> {
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (range.start(), range.end());
    // The smallest number above 0 stands for "above 0".
    let low = if *low == f32::MIN_POSITIVE { "above 0".into() } else { format!("from {low}") };
    Err(ApiError::field(field, format!("is {value}, but must be {low} to {high}")))
}

fn biases(app: &App, fields: &SamplingFields) -> Result<Arc<[(u32, f32)]>, ApiError> {
    let Some(biases) = &fields.logit_bias else { return Ok(Arc::default()) };
    let vocab = app.handle.vocab();
    let one = |(token, bias): (&String, &f32)| {
        let field = format!("logit_bias.{token}");
        let id: u32 = token.parse().map_err(|_| ApiError::field(&field, "is no token id"))?;
        if id as usize >= vocab {
            return Err(ApiError::field(&field, format!("the vocabulary ends at {vocab}")));
        }
        Ok((id, within(&field, Some(*bias), 0.0, -100.0..=100.0)?))
    };
    biases.iter().map(one).collect()
}

fn stops(fields: &SamplingFields) -> Result<Arc<[String]>, ApiError> {
    let stops = fields.stop.clone().map_or_else(Vec::new, |stop| stop.into_vec());
    if stops.len() > MAX_STOPS {
        return Err(ApiError::field("stop", format!("at most {MAX_STOPS} strings are taken")));
    }
    if stops.iter().any(|stop| stop.len() > MAX_STOP) {
        return Err(ApiError::field("stop", format!("a string has more than {MAX_STOP} bytes")));
    }
    Ok(stops.into())
}

/// Checks that prompt and reply fit together, and gives the tokens that the reply may have: those
/// asked for, or all that are left.
///
/// # Errors
/// An overflow.
pub fn reply_tokens(app: &App, prompt: usize, asked: Option<usize>) -> Result<usize, ApiError> {
    let context = app.handle.context();
    let left = context.saturating_sub(prompt);
    match asked {
        Some(asked) if asked > left || prompt > context => {
            Err(ApiError::overflow(prompt, asked, context))
        }
        Some(asked) => Ok(asked),
        None if left == 0 => Err(ApiError::overflow(prompt, 1, context)),
        None => Ok(left),
    }
}

/// Checks a number of likeliest tokens.
///
/// # Errors
/// More than [`MAX_TOP_LOGPROBS`].
pub fn top_logprobs(field: &str, asked: usize) -> Result<usize, ApiError> {
    if asked > MAX_TOP_LOGPROBS {
        let why = format!("is {asked}, but must be from 0 to {MAX_TOP_LOGPROBS}");
        return Err(ApiError::field(field, why));
    }
    Ok(asked)
}
