//! Prompt texts with holes, in the two spellings of the public files: `{context}` (or `{}` for holes
//! in order) and `$Q$`.

use crate::hexadecimal::hexadecimal;
use sha2::{Digest, Sha256};

/// A text cut at its holes.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    /// Each hole, by number, with the text before it.
    filled: Vec<(String, usize)>,
    /// The text after the last hole.
    tail: String,
    hash: String,
}

impl Pattern {
    /// A text as Python's `str.format` takes it: `{name}` for one of `names`, `{}` for the next hole
    /// in order, `{{` and `}}` for braces.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn braces(text: &str, names: &[&str]) -> Result<Self, String> {
        let mut pattern = Self::empty(text);
        let mut rest = text;
        let mut unnamed = 0;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            pattern.tail.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                pattern.tail.push_str(&from[..1]);
                rest = after;
                continue;
            }
            let line = text[..text.len() - from.len()].matches('\n').count() + 1;
            let hole = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let (name, after) = hole.ok_or_else(|| {
                format!(
                    "line {line}: a brace without its other half; write {{{{ or }}}} for a brace"
                )
            })?;
            let number = match name {
                "" => unnamed,
                name => names.iter().position(|one| *one == name).ok_or_else(|| {
                    format!("line {line}: unknown hole {{{name}}}; there are {}", list(names))
                })?,
            };
            unnamed += usize::from(name.is_empty());
            pattern.hole(number);
            rest = after;
        }
        pattern.tail.push_str(rest);
        Ok(pattern)
    }

    /// A text with `$Q$` for the name `Q`. Other dollars are text.
    pub fn dollars(text: &str, names: &[&str]) -> Self {
        let mut pattern = Self::empty(text);
        let mut rest = text;
        let next = |rest: &str| {
            let places = names
                .iter()
                .enumerate()
                .filter_map(|(number, name)| Some((rest.find(&format!("${name}$"))?, number)));
            places.min()
        };
        while let Some((at, number)) = next(rest) {
            pattern.tail.push_str(&rest[..at]);
            pattern.hole(number);
            rest = &rest[at + names[number].len() + 2..];
        }
        pattern.tail.push_str(rest);
        pattern
    }

    fn empty(text: &str) -> Self {
        let hash = hexadecimal(Sha256::digest(text.as_bytes()));
        Self { filled: Vec::new(), tail: String::new(), hash }
    }

    fn hole(&mut self, number: usize) {
        self.filled.push((std::mem::take(&mut self.tail), number));
    }

    /// The numbers of its holes, in order.
    pub fn holes(&self) -> Vec<usize> {
        self.filled.iter().map(|(_, number)| *number).collect()
    }

    /// SHA-256 of the text (hexadecimal).
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The prompt, in one pass: what looks like a hole in a value stays. A hole without a value is
    /// left out.
    pub fn fill(&self, values: &[&str]) -> String {
        let mut prompt = String::new();
        for (text, number) in &self.filled {
            prompt.push_str(text);
            prompt.push_str(values.get(*number).copied().unwrap_or_default());
        }
        prompt + &self.tail
    }
}

fn list(names: &[&str]) -> String {
    match names {
        [] => "only {}".to_owned(),
        names => names.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_in_one_pass() {
        let pattern = Pattern::braces("a {x} {{b}} {y}{x}!", &["x", "y"]).unwrap();
        assert_eq!(pattern.fill(&["{y}", "$x$"]), "a {y} {b} $x${y}!");
        assert_eq!(pattern.holes(), [0, 1, 0]);
        let pattern = Pattern::dollars("$5 for $Q$, $A$ $Q", &["Q", "A"]);
        assert_eq!(pattern.fill(&["$A$", "b"]), "$5 for $A$, b $Q");
        assert_eq!(Pattern::braces("{} and {}", &[]).unwrap().fill(&["1", "2"]), "1 and 2");
        assert_eq!(Pattern::braces("", &[]).unwrap().hash().len(), 64);
    }

    #[test]
    fn unknown_holes_are_named_with_their_line() {
        let error = Pattern::braces("x\n{contxt}", &["context", "input"]).unwrap_err();
        assert_eq!(error, "line 2: unknown hole {contxt}; there are {context}, {input}");
        assert!(Pattern::braces("a } b", &[]).unwrap_err().contains("line 1"));
        assert!(Pattern::braces("a { b", &[]).unwrap_err().contains("brace"));
    }
}
