//! `longreward generate` and `longreward tokenize`.

use super::args::{Generate, Tokenize};
use super::model;
use crate::chat::Finish;
use crate::chat::text::ReplyText;
use crate::engine::request::{self, BadLogits, Event, Request, Sampled, SamplingParams};
use crate::tokenizer::{Tokenizer, Turn};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;

/// One sample so far.
struct Output {
    /// All of them, those of a stop string included.
    tokens: Vec<Sampled>,
    reply: ReplyText,
    /// Once it has ended.
    text: String,
    finish: Finish,
}

impl Output {
    fn new(tokenizer: &Tokenizer, stops: &[String]) -> Self {
        let reply = ReplyText::new(tokenizer, false, stops);
        Self { tokens: Vec::new(), reply, text: String::new(), finish: Finish::Length }
    }

    fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|t| t.token).collect()
    }
}

/// What `--json` prints under `usage`.
#[derive(Default)]
struct Usage {
    prompt: usize,
    cached: usize,
    completion: usize,
}

struct Finished {
    prompt: Vec<u32>,
    prompt_logprobs: Vec<Option<f32>>,
    outputs: Vec<Output>,
    usage: Usage,
}

/// Continues a prompt and prints the samples.
///
/// # Errors
/// An unreadable prompt or model, or a prompt that does not fit.
pub fn generate(args: &Generate) -> Result<()> {
    let common = &args.common;
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => read(file)?,
        (None, None) => String::new(),
    };
    let opened = model::open(&args.model, common)?;
    let tokenizer = opened.text.tokenizer.clone();
    let prompt = if args.raw {
        tokenizer.encode_raw(&text)
    } else {
        opened.text.template.encode(&tokenizer, &[Turn::user(&text)], "")?
    };
    let mut engine = model::engine(opened.decoder, common)?;
    let request = Request { prompt: prompt.clone(), task: task(args, &tokenizer) };
    let id = engine.submit(request)?;
    let mut finished = Finished {
        prompt,
        prompt_logprobs: Vec::new(),
        outputs: (0..args.n).map(|_| Output::new(&tokenizer, &args.stop)).collect(),
        usage: Usage::default(),
    };
    while !engine.is_idle() {
        for event in engine.step()? {
            if let Some(sample) = finished.take(event)? {
                engine.finish_sample(id, sample);
            }
        }
    }
    if args.json {
        println!("{}", finished.json(args));
    } else {
        finished.print();
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    let bytes =
        std::fs::read(file).with_context(|| format!("{}: can't be read", file.display()))?;
    String::from_utf8(bytes).with_context(|| format!("{}: is not UTF-8", file.display()))
}

fn task(args: &Generate, tokenizer: &Tokenizer) -> request::Task {
    let filters = &args.filters;
    request::Task::Generate(request::Generate {
        n: args.n,
        max_new_tokens: args.max_new_tokens,
        params: SamplingParams {
            temperature: filters.temperature,
            top_p: filters.top_p,
            top_k: filters.top_k,
            min_p: filters.min_p,
            repetition_penalty: filters.repetition_penalty,
            ..SamplingParams::default()
        },
        seed: args.seed,
        stop_tokens: tokenizer.stop_tokens().to_vec(),
        logprobs: args.logprobs,
        prompt_logprobs: args.prompt_logprobs.then_some(0),
        constraint: None,
    })
}

impl Finished {
    /// Notes an event; gives the sample that a stop string ends with it.
    ///
    /// # Errors
    /// The model's logits are of no use.
    fn take(&mut self, event: Event) -> Result<Option<usize>, BadLogits> {
        match event {
            Event::Prompt { logprobs, .. } => self.prompt_logprobs = logprobs,
            Event::Token { sample, token, .. } => {
                let output = &mut self.outputs[sample];
                output.tokens.push(token.clone());
                return Ok(output.reply.push(token).then_some(sample));
            }
            Event::Sample { sample, finish, .. } => {
                let output = &mut self.outputs[sample];
                let (finish, piece) = output.reply.end(finish);
                (output.finish, output.text) = (finish, piece.text);
            }
            Event::Done { prompt_tokens, cached_prompt_tokens, completion_tokens, .. } => {
                self.usage = Usage {
                    prompt: prompt_tokens,
                    cached: cached_prompt_tokens,
                    completion: completion_tokens,
                };
            }
            Event::Scores { .. } => {}
            Event::Failed { why, .. } => return Err(why),
        }
        Ok(None)
    }

    fn json(&self, args: &Generate) -> Value {
        let outputs: Vec<Value> = self.outputs.iter().map(|o| output_json(o, args)).collect();
        let mut object = json!({
            "prompt_tokens": self.prompt,
            "outputs": outputs,
            "usage": {
                "prompt_tokens": self.usage.prompt,
                "cached_prompt_tokens": self.usage.cached,
                "completion_tokens": self.usage.completion,
            },
        });
        if args.prompt_logprobs {
            object["prompt_logprobs"] = json!(self.prompt_logprobs);
        }
        object
    }

    fn print(&self) {
        for (i, output) in self.outputs.iter().enumerate() {
            if self.outputs.len() > 1 {
                println!("--- sample {i}");
            }
            println!("{}", output.text);
        }
    }
}

fn output_json(output: &Output, args: &Generate) -> Value {
    let mut object = json!({
        "text": output.text,
        "tokens": output.ids(),
        "finish_reason": match output.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
        },
    });
    if args.logprobs.is_some() {
        object["logprobs"] = output
            .tokens
            .iter()
            .map(|t| {
                let top: Vec<Value> =
                    t.top.iter().map(|(id, p)| json!({"token": id, "logprob": p})).collect();
                json!({"token": t.token, "logprob": t.logprob, "top": top})
            })
            .collect();
    }
    object
}

/// Prints the tokens of a file.
///
/// # Errors
/// An unreadable file or tokenizer.
pub fn tokenize(args: &Tokenize) -> Result<()> {
    let (_, text) = model::open_text(&args.model)?;
    let content = read(&args.file)?;
    let tokens = text.tokenizer.encode_offsets(&content);
    if args.json {
        let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
        println!("{}", json!({"file": args.file, "count": ids.len(), "tokens": ids}));
        return Ok(());
    }
    for (id, range) in &tokens {
        println!("{id:>7}  {:?}", String::from_utf8_lossy(&content.as_bytes()[range.clone()]));
    }
    println!("{} tokens", tokens.len());
    Ok(())
}
