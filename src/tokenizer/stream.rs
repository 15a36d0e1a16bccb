//! Decoding token by token, never showing half a character.

use super::Tokenizer;
use super::token_bytes::TokenBytes;
use std::sync::Arc;

/// Turns tokens into text as they arrive.
///
/// A character whose bytes are spread over several tokens appears with the last of them. The
/// texts returned, one after the other, equal [`Tokenizer::decode`] of all the tokens.
pub struct StreamDecoder {
    table: Arc<TokenBytes>,
    /// Bytes that may be the beginning of a character.
    pending: Vec<u8>,
    /// What the last call returned.
    text: String,
    at_start: bool,
}

impl StreamDecoder {
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let table = Arc::clone(&tokenizer.bytes);
        Self { table, pending: Vec::new(), text: String::new(), at_start: true }
    }

    /// A decoder for text that goes on after other text, whose first space is kept.
    pub fn continuing(tokenizer: &Tokenizer) -> Self {
        Self { at_start: false, ..Self::new(tokenizer) }
    }

    /// Takes a token; returns the text that it completes, possibly empty.
    pub fn push(&mut self, id: u32) -> &str {
        self.text.clear();
        if !self.table.is_special(id) {
            let mut bytes = self.table.of(id);
            if self.at_start && self.table.strips_leading_space {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
            self.at_start = false;
            self.pending.extend_from_slice(bytes);
            self.release(false);
        }
        &self.text
    }

    /// Ends the text: bytes still pending can't become a character any more.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        self.release(true);
        &self.text
    }

    /// Moves whole characters from `pending` to `text`.
    fn release(&mut self, all: bool) {
        let mut done = 0;
        while done < self.pending.len() {
            match std::str::from_utf8(&self.pending[done..]) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    done = self.pending.len();
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    self.text.push_str(&String::from_utf8_lossy(&self.pending[done..valid]));
                    done = valid;
                    match error.error_len() {
                        Some(bad) => done += bad,
                        None if all => done = self.pending.len(),
                        None => break,
                    }
                    self.text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
        self.pending.drain(..done);
    }
}
