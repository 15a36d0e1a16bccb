//! Log-probabilities as the API tells them.

use crate::chat::service::{PromptLogprobs, Sampled};
use crate::chat::wire::{ChatLogprobs, ChatToken, CompletionLogprobs, TopToken};
use crate::tokenizer::Tokenizer;
use serde_json::{Map, Value};

/// JSON has no infinity; the API writes this for what is impossible.
const IMPOSSIBLE: f32 = -9999.0;

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

/// The number that is written with the same digits, so that readers find a token's own
/// log-probability among the likeliest ones.
fn as_written(logprob: f32) -> f64 {
    logprob.to_string().parse().unwrap_or_else(|_| logprob.into())
}

/// What a token writes; of a token that is no whole text its bytes, so that no two look the same.
fn token_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| {
        let bytes = error.as_bytes().iter().map(|byte| format!("\\x{byte:02x}"));
        format!("bytes:{}", bytes.collect::<String>())
    })
}

/// The tokens of a chat's reply.
pub fn of_chat(tokenizer: &Tokenizer, tokens: &[Sampled]) -> ChatLogprobs {
    let top = |&(id, logprob): &(u32, f32)| {
        let bytes = tokenizer.token_bytes(id);
        let (token, logprob) = (token_text(bytes.clone()), finite(logprob));
        TopToken { token, logprob, bytes: Some(bytes) }
    };
    let one = |sampled: &Sampled| {
        let bytes = tokenizer.token_bytes(sampled.token);
        ChatToken {
            token: token_text(bytes.clone()),
            logprob: finite(sampled.logprob.unwrap_or(IMPOSSIBLE)),
            bytes: Some(bytes),
            top_logprobs: sampled.top.iter().map(top).collect(),
        }
    };
    ChatLogprobs { content: tokens.iter().map(one).collect(), refusal: None }
}

/// Writes the lists of one choice of a completion.
pub struct Lists<'a> {
    tokenizer: &'a Tokenizer,
    lists: CompletionLogprobs,
    /// Characters before the next token.
    offset: usize,
}

impl<'a> Lists<'a> {
    /// Lists that begin after `offset` characters.
    pub fn new(tokenizer: &'a Tokenizer, offset: usize) -> Self {
        Self { tokenizer, lists: CompletionLogprobs::default(), offset }
    }

    /// The lists, and the characters before what comes next.
    pub fn finish(self) -> (CompletionLogprobs, usize) {
        (self.lists, self.offset)
    }

    pub fn prompt(&mut self, tokens: &[u32], read: &PromptLogprobs) {
        for ((&token, &logprob), top) in tokens.iter().zip(&read.logprobs).zip(&read.top) {
            self.push(token, logprob, top);
        }
    }

    pub fn sampled<'s>(&mut self, tokens: impl IntoIterator<Item = &'s Sampled>) {
        for Sampled { token, logprob, top } in tokens {
            self.push(*token, *logprob, top);
        }
    }

    fn push(&mut self, token: u32, logprob: Option<f32>, top: &[(u32, f32)]) {
        let bytes = self.tokenizer.token_bytes(token);
        // A character belongs to the token in which it begins.
        let begins = |byte: &&u8| (**byte & 0xC0) != 0x80;
        let characters = bytes.iter().filter(begins).count();
        self.lists.tokens.push(token_text(bytes));
        self.lists.token_logprobs.push(logprob.map(finite));
        self.lists.text_offset.push(self.offset);
        self.lists.top_logprobs.push(logprob.map(|own| self.top(token, own, top)));
        if !self.tokenizer.is_special(token) {
            self.offset += characters;
        }
    }

    /// The likeliest tokens, and the one that stands there if it is none of them. Of two that are
    /// spelled alike the likelier counts.
    fn top(&self, token: u32, own: f32, top: &[(u32, f32)]) -> Map<String, Value> {
        let mut map = Map::new();
        for &(id, logprob) in top.iter().chain([&(token, own)]) {
            let text = token_text(self.tokenizer.token_bytes(id));
            map.entry(text).or_insert_with(|| Value::from(as_written(finite(logprob))));
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_characters_are_told_by_their_bytes() {
        assert_eq!(token_text("磨 ".into()), "磨 ");
        assert_eq!(token_text(vec![0xe7, 0xa3]), "bytes:\\xe7\\xa3");
        assert_eq!(Value::from(as_written(-11.494743)).to_string(), "-11.494743");
        assert_eq!((finite(f32::NEG_INFINITY), finite(-1.5)), (-9999.0, -1.5));
    }
}
