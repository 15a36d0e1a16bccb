//! The calls of a job as they were made, so that another program can be given the same work.

use crate::chat::{Call, CallId, Chat, ChatError, Reply, Task, Usage};
use crate::tokenizer::{ChatTemplate, Tokenizer, Turn};
use serde::Serialize;
use std::collections::HashMap;
use std::io::Write;

/// Passes calls on to `inner` and writes a line of JSON for each that is finished.
pub struct Recorder<'a, C: Chat, W: Write> {
    inner: &'a mut C,
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    out: W,
    submitted: usize,
    open: HashMap<CallId, Line>,
    failed: Option<std::io::Error>,
}

/// A call.
#[derive(Debug, Serialize)]
struct Line {
    /// Place in the order of submission, from 0.
    number: usize,
    /// Token ids of the prompt, what the assistant has already said included.
    prompt: Vec<u32>,
    /// Tokens that were sampled.
    new_tokens: u64,
    /// Texts that were scored instead of sampling.
    continuations: Vec<String>,
}

impl<'a, C: Chat, W: Write> Recorder<'a, C, W> {
    /// `tokenizer` and `template` are those of `inner`.
    pub fn new(
        inner: &'a mut C,
        tokenizer: &'a Tokenizer,
        template: &'a ChatTemplate,
        out: W,
    ) -> Self {
        let (submitted, open, failed) = (0, HashMap::new(), None);
        Self { inner, tokenizer, template, out, submitted, open, failed }
    }

    /// # Errors
    /// A line could not be written.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.failed.map_or_else(|| self.out.flush(), Err)
    }

    fn line(&mut self, call: &Call) -> Line {
        let turns: Vec<Turn> = call
            .messages
            .iter()
            .map(|m| Turn { role: m.role.name(), content: &m.content })
            .collect();
        // What can't be encoded is refused by the model itself, and never finished.
        let prompt = self.template.encode(self.tokenizer, &turns, &call.prefix).unwrap_or_default();
        let continuations = match &call.task {
            Task::Generate(_) => Vec::new(),
            Task::Score { continuations, .. } => continuations.clone(),
        };
        let number = self.submitted;
        self.submitted += 1;
        Line { number, prompt, new_tokens: 0, continuations }
    }

    fn write(&mut self, id: CallId, reply: &Reply) {
        let Some(mut line) = self.open.remove(&id) else { return };
        if let Reply::Text { usage, .. } = reply {
            line.new_tokens = usage.completion_tokens;
        }
        let written = serde_json::to_writer(&mut self.out, &line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"));
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}

impl<C: Chat, W: Write> Chat for Recorder<'_, C, W> {
    fn submit(&mut self, id: CallId, call: Call) {
        let line = self.line(&call);
        self.open.insert(id, line);
        self.inner.submit(id, call);
    }

    fn wait(&mut self) -> Vec<(CallId, Result<Reply, ChatError>)> {
        let finished = self.inner.wait();
        for (id, reply) in &finished {
            if let Ok(reply) = reply {
                self.write(*id, reply);
            }
        }
        finished
    }

    fn appetite(&self) -> usize {
        self.inner.appetite()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Finish, Message, Sampling, Scripted};
    use crate::tokenizer::testing::{CHATML, byte_level_metadata, load_gguf};
    use serde_json::Value;

    fn call(task: Task, prefix: &str) -> Call {
        Call { messages: vec![Message::user("hello world")], prefix: prefix.into(), task }
    }

    fn answer(call: &Call) -> Result<Reply, ChatError> {
        let usage = Usage { completion_tokens: 7, ..Usage::default() };
        match &call.task {
            Task::Score { .. } => Ok(Reply::Scores { logprobs: vec![-1.0], usage }),
            Task::Generate(sampling) if sampling.seed == 1 => {
                Err(ChatError::Refused("as asked".into()))
            }
            _ => Ok(Reply::Text { text: "hello".into(), finish: Finish::Stop, usage }),
        }
    }

    #[test]
    fn finished_calls_are_written_with_their_prompts_and_lengths() {
        let (tokenizer, template) = load_gguf(&byte_level_metadata("smollm", &CHATML)).unwrap();
        let mut inner = Scripted::new(answer);
        let mut out = Vec::new();
        let mut chat = Recorder::new(&mut inner, &tokenizer, &template, &mut out);
        let sampling = |seed| Task::Generate(Sampling { seed, ..Sampling::default() });
        chat.submit(5, call(sampling(0), ""));
        chat.submit(6, call(sampling(1), ""));
        let continuations = vec!["1".to_owned()];
        chat.submit(7, call(Task::Score { continuations, closing: String::new() }, "[["));
        let finished: Vec<_> = (0..3).flat_map(|_| chat.wait()).map(|(id, _)| id).collect();
        chat.finish().unwrap();
        assert_eq!(finished, [5, 6, 7]);
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((&lines[0]["number"], &lines[1]["number"]), (&0.into(), &2.into()));
        assert_eq!((&lines[0]["new_tokens"], &lines[1]["new_tokens"]), (&7.into(), &0.into()));
        assert_eq!(lines[1]["continuations"][0], "1");
        let prompt = |line: &Value| serde_json::from_value::<Vec<u32>>(line["prompt"].clone());
        let (short, long) = (prompt(&lines[0]).unwrap(), prompt(&lines[1]).unwrap());
        assert!(tokenizer.decode(&short).contains("hello world"));
        assert!(long.starts_with(&short) && tokenizer.decode(&long).ends_with("[["));
    }
}
