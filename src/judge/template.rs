//! Prompt texts with holes, checked when they are read.

use std::fmt;
use std::path::PathBuf;

/// A place in a template that is filled per call. Written `<<question>>` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hole {
    Question,
    Answer,
    Context,
    Statement,
}

impl Hole {
    const ALL: [Hole; 4] = [Hole::Question, Hole::Answer, Hole::Context, Hole::Statement];

    fn name(self) -> &'static str {
        match self {
            Hole::Question => "question",
            Hole::Answer => "answer",
            Hole::Context => "context",
            Hole::Statement => "statement",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hole| hole.name() == name)
    }
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "<<{}>>", self.name())
    }
}

/// Why a prompt file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    #[error("prompt file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "prompt file {path} is missing: the folder needs {wanted} (`longreward prompts --out DIR` writes the \
         built-in ones under these names)"
    )]
    NoFile { path: PathBuf, wanted: String },
    #[error("prompt file {path} is not UTF-8 (byte {at}): save it as UTF-8")]
    Encoding { path: PathBuf, at: usize },
    #[error(
        "the folder of prompts has no {file}, which an option asks for: add the file, or leave out \
         the option (`longreward prompts --out DIR` writes the built-in one)"
    )]
    Absent { file: String },
    #[error("prompt file {file} has no {hole}: put it where the text belongs")]
    Missing { file: String, hole: Hole },
    #[error("prompt file {file}, line {line}: unknown hole <<{hole}>>; this prompt takes {takes}")]
    Unknown { file: String, line: usize, hole: String, takes: String },
}

/// Texts for the holes; a template takes those that it has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Values<'a> {
    pub question: &'a str,
    pub answer: &'a str,
    pub context: &'a str,
    pub statement: &'a str,
}

impl<'a> Values<'a> {
    fn get(&self, hole: Hole) -> &'a str {
        match hole {
            Hole::Question => self.question,
            Hole::Answer => self.answer,
            Hole::Context => self.context,
            Hole::Statement => self.statement,
        }
    }
}

/// A text cut at its holes.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// Each hole with the text before it.
    filled: Vec<(String, Hole)>,
    /// The text after the last hole.
    tail: String,
}

impl Template {
    /// Cuts `text` at its holes. A hole may occur more than once.
    ///
    /// # Errors
    /// [`PromptError::Missing`] if one of `required` does not occur, [`PromptError::Unknown`] for a
    /// `<<word>>` that is in neither list; both name `file`.
    pub fn parse(
        file: &str,
        text: &str,
        required: &[Hole],
        optional: &[Hole],
    ) -> Result<Self, PromptError> {
        let mut template = Template { filled: Vec::new(), tail: String::new() };
        let mut done = 0;
        for (start, name) in words_in_angles(text) {
            let known = Hole::named(name)
                .filter(|hole| required.contains(hole) || optional.contains(hole))
                .ok_or_else(|| unknown(file, text, start, name, &[required, optional].concat()))?;
            template.filled.push((text[done..start].to_owned(), known));
            done = start + name.len() + 4;
        }
        template.tail = text[done..].to_owned();
        match required.iter().find(|&&hole| !template.has(hole)) {
            Some(&hole) => Err(PromptError::Missing { file: file.to_owned(), hole }),
            None => Ok(template),
        }
    }

    /// The prompt. All holes are filled in one pass: a text that itself contains `<<answer>>` is
    /// copied as it is.
    pub fn fill(&self, values: &Values) -> String {
        let mut prompt = String::new();
        for (text, hole) in &self.filled {
            prompt.push_str(text);
            prompt.push_str(values.get(*hole));
        }
        prompt + &self.tail
    }

    fn has(&self, hole: Hole) -> bool {
        self.filled.iter().any(|&(_, filled)| filled == hole)
    }
}

/// Each `<<word>>` of a text: where it starts, and the word, made of letters and underscores.
fn words_in_angles(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices('<').filter_map(|(start, _)| {
        let inside = text[start..].strip_prefix("<<")?;
        let name = &inside[..inside.find(">>")?];
        let word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        word.then_some((start, name))
    })
}

fn unknown(file: &str, text: &str, start: usize, name: &str, takes: &[Hole]) -> PromptError {
    let takes: Vec<String> = takes.iter().map(Hole::to_string).collect();
    PromptError::Unknown {
        file: file.to_owned(),
        line: text[..start].matches('\n').count() + 1,
        hole: name.to_owned(),
        takes: takes.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Template, PromptError> {
        Template::parse("dir/support.txt", text, &[Hole::Context, Hole::Answer], &[Hole::Question])
    }

    #[test]
    fn holes_are_filled_in_one_pass() {
        let template = parse("A <<context>> B <<answer>>\nC").unwrap();
        let values = Values { context: "<<answer>>", answer: "<<context>>", ..Values::default() };
        assert_eq!(template.fill(&values), "A <<answer>> B <<context>>\nC");
    }

    #[test]
    fn a_hole_may_repeat_and_an_optional_one_may_be_absent() {
        let template = parse("<<answer>><<answer>><<context>>").unwrap();
        let values = Values { context: "c", answer: "a", question: "q", ..Values::default() };
        assert_eq!(template.fill(&values), "aac");
        assert_eq!(parse("<<question>><<answer>><<context>>").unwrap().fill(&values), "qac");
    }

    #[test]
    fn a_missing_hole_is_an_error_that_names_file_and_hole() {
        let error = parse("only <<context>>").unwrap_err().to_string();
        assert!(error.contains("dir/support.txt") && error.contains("<<answer>>"), "{error}");
    }

    #[test]
    fn an_unknown_hole_is_an_error_that_names_file_line_and_hole() {
        for hole in ["statement", "Answer", "reference_answer"] {
            let error = parse(&format!("<<context>><<answer>>\n<<{hole}>>")).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("support.txt, line 2"), "{error}");
            assert!(error.contains(&format!("<<{hole}>>;")), "{error}");
            assert!(error.contains("<<question>>"), "{error}");
        }
    }

    #[test]
    fn other_angle_brackets_are_text() {
        let text = "cout << x; y >> 2; <<>> <<a b>> <statement> <<<context>>> <<answer>> <<";
        let values = Values { context: "c", answer: "a", ..Values::default() };
        assert_eq!(
            parse(text).unwrap().fill(&values),
            "cout << x; y >> 2; <<>> <<a b>> <statement> <c> a <<"
        );
    }
}
