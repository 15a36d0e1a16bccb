//! Calls and replies as they are known on disk.

use super::{Call, Estimate, Finish, Reply, Sampling, Task, Usage};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A reply as it is kept: without its usage, which was paid for once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    Text {
        text: String,
        finish: Finish,
    },
    /// Numbers as texts, which come back exactly, and can be infinite.
    Scores(Vec<String>),
    Estimates {
        way: Estimate,
        logprobs: Vec<String>,
    },
}

/// Numbers as texts.
pub fn exact(numbers: &[f64]) -> Vec<String> {
    numbers.iter().map(f64::to_string).collect()
}

/// The numbers of [`exact`].
///
/// # Errors
/// A text that is no number.
pub fn numbers(texts: &[String]) -> Result<Vec<f64>, std::num::ParseFloatError> {
    texts.iter().map(|text| text.parse()).collect()
}

impl From<&Reply> for Kept {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Text { text, finish, .. } => Kept::Text { text: text.clone(), finish: *finish },
            Reply::Scores { logprobs, .. } => Kept::Scores(exact(logprobs)),
            Reply::Estimates { logprobs, way, .. } => {
                Kept::Estimates { way: *way, logprobs: exact(logprobs) }
            }
        }
    }
}

impl TryFrom<Kept> for Reply {
    type Error = std::num::ParseFloatError;

    fn try_from(kept: Kept) -> Result<Self, Self::Error> {
        let usage = Usage::default();
        match kept {
            Kept::Text { text, finish } => Ok(Reply::Text { text, finish, usage }),
            Kept::Scores(texts) => Ok(Reply::Scores { logprobs: numbers(&texts)?, usage }),
            Kept::Estimates { way, logprobs } => {
                Ok(Reply::Estimates { logprobs: numbers(&logprobs)?, way, usage })
            }
        }
    }
}

impl Call {
    /// SHA-256 over all that the reply depends on besides the model.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Hash::default();
        hash.number(self.messages.len() as u64);
        for message in &self.messages {
            hash.text(message.role.name()).text(&message.content);
        }
        hash.text(&self.prefix);
        match &self.task {
            Task::Generate(sampling) => sampling_into(hash.number(0), sampling),
            Task::Score { continuations, closing } => {
                hash.number(1).texts(continuations).text(closing);
            }
        }
        hash.finish()
    }
}

/// SHA-256 over fields whose borders count.
#[derive(Default)]
struct Hash(Sha256);

impl Hash {
    fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(number.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64).0.update(text.as_bytes());
        self
    }

    fn texts(&mut self, texts: &[String]) -> &mut Self {
        self.number(texts.len() as u64);
        texts.iter().fold(self, |hash, text| hash.text(text))
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

fn sampling_into(hash: &mut Hash, sampling: &Sampling) {
    // All fields by name, so that a new one can't be forgotten.
    let Sampling {
        max_new_tokens,
        temperature,
        top_p,
        top_k,
        min_p,
        repetition_penalty,
        seed,
        stop,
    } = sampling;
    hash.number(*max_new_tokens as u64).number(*top_k as u64).number(*seed);
    for number in [temperature, top_p, min_p, repetition_penalty] {
        hash.number(u64::from(number.to_bits()));
    }
    hash.texts(stop);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use std::collections::HashSet;

    #[test]
    fn calls_differ_by_everything_that_their_replies_depend_on() {
        let sampling = Sampling::default();
        let call = |texts: &[&str], prefix: &str, task: Task| Call {
            messages: texts.iter().map(|text| Message::user(*text)).collect(),
            prefix: prefix.into(),
            task,
        };
        let generate = |sampling: &Sampling| Task::Generate(sampling.clone());
        let score = |list: &[&str], closing: &str| Task::Score {
            continuations: list.iter().map(|text| (*text).to_owned()).collect(),
            closing: closing.into(),
        };
        let changed = |change: &dyn Fn(&mut Sampling)| {
            let mut sampling = sampling.clone();
            change(&mut sampling);
            call(&["ab"], "", Task::Generate(sampling))
        };
        let calls = [
            call(&["ab"], "", generate(&sampling)),
            call(&["a", "b"], "", generate(&sampling)),
            call(&["a"], "b", generate(&sampling)),
            call(&["ab"], "", score(&["1", "2"], "")),
            call(&["ab"], "", score(&["12"], "")),
            call(&["ab"], "", score(&["1"], "2")),
            changed(&|s| s.max_new_tokens = 7),
            changed(&|s| s.temperature = 0.5),
            changed(&|s| s.top_p = 0.5),
            changed(&|s| s.top_k = 5),
            changed(&|s| s.min_p = 0.5),
            changed(&|s| s.repetition_penalty = 0.5),
            changed(&|s| s.seed = 7),
            changed(&|s| s.stop = vec!["x".into()]),
        ];
        let hashes: HashSet<[u8; 32]> = calls.iter().map(Call::hash).collect();
        assert_eq!(hashes.len(), calls.len());
    }
}
