//! `longreward generate` and `longreward tokenize`.

use super::args::{Common, Generate, Tokenize};
use super::model;
use crate::engine::request::{self, Event, Finish, Request, Sampled, SamplingParams};
use crate::tokenizer::{Tokenizer, Turn};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;

/// One sample so far.
#[derive(Default)]
struct Output {
    tokens: Vec<Sampled>,
    finish: Option<Finish>,
}

impl Output {
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
pub fn generate(args: &Generate, common: &Common) -> Result<()> {
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
        outputs: (0..args.n).map(|_| Output::default()).collect(),
        usage: Usage::default(),
    };
    while !engine.is_idle() {
        for event in engine.step()? {
            if let Some(sample) = finished.take(event)
                && stopped(&finished.outputs[sample], &tokenizer, &args.stop)
            {
                finished.outputs[sample].finish = Some(Finish::Stop);
                engine.finish_sample(id, sample);
            }
        }
    }
    if args.json {
        println!("{}", finished.json(args, &tokenizer));
    } else {
        finished.print(args, &tokenizer);
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

/// Whether a stop string has just occurred in the text of a sample that goes on.
fn stopped(output: &Output, tokenizer: &Tokenizer, stops: &[String]) -> bool {
    if stops.is_empty() || output.finish.is_some() {
        return false;
    }
    let text = tokenizer.decode(&output.ids());
    stops.iter().any(|stop| text.contains(stop.as_str()))
}

/// The text before the first stop string.
fn cut<'a>(text: &'a str, stops: &[String]) -> &'a str {
    let end = stops.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s.as_str())).min();
    &text[..end.unwrap_or(text.len())]
}

impl Finished {
    /// Notes an event; gives the sample that a token was added to.
    fn take(&mut self, event: Event) -> Option<usize> {
        match event {
            Event::Prompt { logprobs, .. } => self.prompt_logprobs = logprobs,
            Event::Token { sample, token, .. } => {
                self.outputs[sample].tokens.push(token);
                return Some(sample);
            }
            Event::Sample { sample, finish, .. } => {
                self.outputs[sample].finish.get_or_insert(finish);
            }
            Event::Done { prompt_tokens, cached_prompt_tokens, completion_tokens, .. } => {
                self.usage = Usage {
                    prompt: prompt_tokens,
                    cached: cached_prompt_tokens,
                    completion: completion_tokens,
                };
            }
            Event::Scores { .. } => {}
        }
        None
    }

    fn json(&self, args: &Generate, tokenizer: &Tokenizer) -> Value {
        let outputs: Vec<Value> =
            self.outputs.iter().map(|o| output_json(o, args, tokenizer)).collect();
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

    fn print(&self, args: &Generate, tokenizer: &Tokenizer) {
        for (i, output) in self.outputs.iter().enumerate() {
            if self.outputs.len() > 1 {
                println!("--- sample {i}");
            }
            println!("{}", cut(&tokenizer.decode(&output.ids()), &args.stop));
        }
    }
}

fn output_json(output: &Output, args: &Generate, tokenizer: &Tokenizer) -> Value {
    let text = tokenizer.decode(&output.ids());
    let mut object = json!({
        "text": cut(&text, &args.stop),
        "tokens": output.ids(),
        "finish_reason": match output.finish {
            Some(Finish::Stop) => "stop",
            Some(Finish::Length) | None => "length",
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

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn text_is_cut_before_the_first_stop() {
        let stops = ["two".to_owned(), "three".to_owned(), String::new()];
        assert_eq!(cut("one two three", &stops), "one ");
        assert_eq!(cut("one", &stops), "one");
    }
}
