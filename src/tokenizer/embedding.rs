//! Ids for a sentence embedder.

use super::{ENCODES, Tokenizer};
use tokenizers::{PostProcessor, TruncationDirection};

impl Tokenizer {
    /// Ids of a text with the tokens that an embedder wants around it (`[CLS] … [SEP]`), its end
    /// cut off so that there are at most `max_length` of them.
    pub fn encode_for_embedder(&self, text: &str, max_length: usize) -> Vec<u32> {
        let mut encoding = self.pipeline.encode_fast(text, false).expect(ENCODES);
        let Some(post_processor) = &self.post_processor else {
            encoding.truncate(max_length, 0, TruncationDirection::Right);
            return encoding.get_ids().to_vec();
        };
        let room = max_length.saturating_sub(post_processor.added_tokens(false));
        encoding.truncate(room, 0, TruncationDirection::Right);
        let whole = post_processor.process(encoding, None, true).expect(ENCODES);
        whole.get_ids().to_vec()
    }
}
