//! An embedder that embeds no text twice.

use super::{Embed, EmbedError};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Vectors by text; clones are the same memory.
#[derive(Debug, Clone, Default)]
pub struct Vectors(Rc<RefCell<HashMap<String, Vec<f32>>>>);

/// Asks the embedder for texts that are not known yet. Meant for a bounded set of texts that come
/// up again and again: nothing is ever forgotten.
pub struct Remembered {
    embed: Box<dyn Embed>,
    known: Vectors,
}

impl Remembered {
    /// Embedders that share `known` must be the same one.
    pub fn new(embed: Box<dyn Embed>, known: &Vectors) -> Self {
        Self { embed, known: known.clone() }
    }
}

impl Embed for Remembered {
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut known = self.known.0.borrow_mut();
        let mut new: Vec<&str> =
            texts.iter().copied().filter(|text| !known.contains_key(*text)).collect();
        new.sort_unstable();
        new.dedup();
        if !new.is_empty() {
            let vectors = self.embed.embed(&new)?;
            known.extend(new.iter().map(|text| (*text).to_owned()).zip(vectors));
        }
        let vector = |text: &&str| {
            let missing = || EmbedError("there are fewer vectors than texts".to_owned());
            known.get(*text).cloned().ok_or_else(missing)
        };
        texts.iter().map(vector).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the texts that it is asked for.
    struct Counting(Rc<RefCell<usize>>);

    impl Embed for Counting {
        fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
            *self.0.borrow_mut() += texts.len();
            Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
        }
    }

    #[test]
    fn no_text_is_embedded_twice() {
        let (count, known) = (Rc::new(RefCell::new(0)), Vectors::default());
        let new = || Remembered::new(Box::new(Counting(count.clone())), &known);
        let vectors = new().embed(&["bb", "a", "bb"]).unwrap();
        assert_eq!((vectors, *count.borrow()), (vec![vec![2.0], vec![1.0], vec![2.0]], 2));
        assert_eq!(new().embed(&["a", "ccc"]).unwrap(), [[1.0], [3.0]]);
        assert_eq!(*count.borrow(), 3);
    }
}
