//! What a sample may say: before each token, the set of those that may come next.
//!
//! The engine asks for the next set as soon as a token is drawn, so what is allowed is a function of
//! the sample's own tokens, like the draw itself.

use super::request::Finish;
use std::fmt;
use std::sync::Arc;

/// A set of token ids, a bit for each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenSet(Vec<u32>);

impl TokenSet {
    /// Bit `i % 32` of word `i / 32` stands for id `i`.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self(words)
    }

    /// As [`TokenSet::from_words`] was given them.
    #[cfg(feature = "gpu")]
    pub fn words(&self) -> &[u32] {
        &self.0
    }

    pub fn contains(&self, token: u32) -> bool {
        let word = self.0.get(token as usize / 32).copied().unwrap_or(0);
        word >> (token % 32) & 1 == 1
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Makes the logits of all other ids infinitely low.
    pub fn apply(&self, logits: &mut [f32]) {
        for (index, group) in logits.chunks_mut(32).enumerate() {
            let word = self.0.get(index).copied().unwrap_or(0);
            if word == u32::MAX {
                continue;
            }
            for (bit, logit) in group.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// What may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// One of these, stop tokens among them where the sample may end.
    Among(TokenSet),
    /// Nothing: the sample is whole.
    End,
    /// Nothing can be said: the sample breaks off.
    Stuck,
}

/// A set of token sequences that samples must be from.
pub trait Language: Send + Sync {
    /// For one sample, from its beginning.
    fn guide(&self) -> Box<dyn Guide>;
}

/// Goes with one sample.
pub trait Guide: Send {
    /// Takes the token that was drawn, `None` at the beginning, and says what may come next.
    fn next(&mut self, token: Option<u32>) -> Next;
}

/// A language that requests may share.
#[derive(Clone)]
pub struct Constraint(Arc<dyn Language>);

impl Constraint {
    pub fn new(language: impl Language + 'static) -> Self {
        Self(Arc::new(language))
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Constraint")
    }
}

/// The same language, not one that is equal to it.
impl PartialEq for Constraint {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A sample's guide, and what it allows now.
pub struct Guided {
    guide: Box<dyn Guide>,
    allowed: TokenSet,
}

impl fmt::Debug for Guided {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Guided").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Guided {
    pub fn new(constraint: &Constraint) -> Self {
        let mut guide = constraint.0.guide();
        let allowed = match guide.next(None) {
            Next::Among(tokens) => tokens,
            // A language of nothing restricts nothing.
            Next::End | Next::Stuck => TokenSet::default(),
        };
        Self { guide, allowed }
    }

    /// `None` if nothing is restricted.
    pub fn allowed(&self) -> Option<&TokenSet> {
        (!self.allowed.is_empty()).then_some(&self.allowed)
    }

    /// Goes on after a token; tells how the sample ends with it, if it does.
    pub fn advance(&mut self, token: u32) -> Option<Finish> {
        match self.guide.next(Some(token)) {
            Next::Among(tokens) if tokens.is_empty() => Some(Finish::Length),
            Next::Among(tokens) => {
                self.allowed = tokens;
                None
            }
            Next::End => Some(Finish::Stop),
            Next::Stuck => Some(Finish::Length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_set_keeps_its_logit() {
        let set = TokenSet::from_words(vec![1 << 3, u32::MAX, 1]);
        let mut logits: Vec<f32> = (0..70).map(|i| i as f32).collect();
        set.apply(&mut logits);
        for (id, logit) in logits.into_iter().enumerate() {
            let kept = id == 3 || (32..=64).contains(&id);
            assert_eq!((set.contains(id as u32), logit == id as f32), (kept, kept), "{id}");
        }
        assert!(!set.contains(1000) && !set.is_empty() && TokenSet::default().is_empty());
    }
}
