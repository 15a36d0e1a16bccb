//! The input files, checked as a whole before any work begins. Documents stay on disk until they
//! are worked on; responses are held.

use super::Error;
use super::jsonl::{Place, RowError, Span, parse_span, read_rows, read_span};
use super::progress::{first_of, passed_over};
use super::records::{ChunkInfo, Prompt, Response, input_hash};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::hash::Hash;
use std::path::{Path, PathBuf};

/// `sft.jsonl`: what is known of each good row without holding its document.
#[derive(Debug)]
pub struct Prompts {
    path: PathBuf,
    file: File,
    rows: Vec<PromptRow>,
    by_idx: HashMap<u64, usize>,
}

/// A good row of `sft.jsonl`.
#[derive(Debug)]
pub struct PromptRow {
    pub idx: u64,
    pub query: String,
    /// [`Prompt::hash`].
    pub hash: String,
    place: Place,
    span: Span,
}

impl Prompts {
    /// Checks the whole file; returns what is wrong with its bad rows, too.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Tools`] if it has no good row.
    pub fn open(path: &Path) -> Result<(Self, Vec<RowError>), Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let mut rows = Vec::new();
        let mut seen = Seen::default();
        let problems = read_rows(path, |row| {
            let (place, span) = (row.place.clone(), row.span);
            let prompt = Prompt::from_row(row)?;
            seen.insert(prompt.idx, &place)?;
            let hash = prompt.hash();
            rows.push(PromptRow { idx: prompt.idx, query: prompt.query, hash, place, span });
            Ok(())
        })?;
        if rows.is_empty() {
            return Err(no_rows(path, &problems, 0));
        }
        let by_idx = rows.iter().enumerate().map(|(i, row)| (row.idx, i)).collect();
        Ok((Self { path: path.to_owned(), file, rows, by_idx }, problems))
    }

    /// The good rows, in the order of the file.
    pub fn rows(&self) -> &[PromptRow] {
        &self.rows
    }

    /// Of the good rows those after the first `limit`.
    pub fn beyond(&self, limit: Option<usize>) -> &[PromptRow] {
        let first = limit.map_or(self.rows.len(), |limit| limit.min(self.rows.len()));
        &self.rows[first..]
    }

    /// The number of a prompt's row among the good ones.
    pub fn position(&self, idx: u64) -> Option<usize> {
        self.by_idx.get(&idx).copied()
    }

    /// The row of a prompt.
    pub fn get(&self, idx: u64) -> Option<&PromptRow> {
        self.position(idx).map(|position| &self.rows[position])
    }

    /// Reads the row at `position` with its document.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Moved`] if the file is not what it was.
    pub fn load(&mut self, position: usize) -> Result<Prompt, Error> {
        let PromptRow { place, span, hash, .. } = &self.rows[position];
        let bytes = read_span(&mut self.file, *span).map_err(Error::io(&self.path))?;
        let row = parse_span(place, *span, bytes).ok().flatten();
        let prompt = row.and_then(|row| Prompt::from_row(row).ok());
        let same = prompt.filter(|prompt| prompt.hash() == *hash);
        same.ok_or_else(|| Error::Moved { path: self.path.clone(), line: place.line })
    }
}

/// A row of the responses file that can be scored.
#[derive(Debug)]
pub struct ResponseRow {
    pub response: Response,
    /// Over the document, the question and the answer.
    pub hash: String,
}

/// What a file of responses holds.
#[derive(Debug)]
pub struct Responses {
    pub rows: Vec<ResponseRow>,
    /// Rows of prompts that the data has no good row for: the file may be for more than its prompts.
    pub foreign: usize,
    pub problems: Vec<RowError>,
}

/// Reads the responses to these prompts; a response to another question under the same idx is a bad row.
///
/// # Errors
/// [`Error::Io`]; [`Error::Tools`] if no row can be used.
pub fn read_responses(path: &Path, prompts: &Prompts) -> Result<Responses, Error> {
    let mut rows = Vec::new();
    let mut foreign = 0;
    let mut seen = Seen::default();
    let problems = read_rows(path, |row| {
        let place = row.place.clone();
        let response = Response::from_row(row)?;
        if prompts.get(response.idx.prompt).is_none() {
            foreign += 1;
            return Ok(());
        }
        let prompt = prompt_of(prompts, response.idx.prompt, &response.query, &place)?;
        check_hash(response.input_hash.as_deref(), &prompt.hash, "document", &place)?;
        seen.insert(response.idx, &place)?;
        let hash = input_hash(&[&prompt.hash, &response.answer]);
        rows.push(ResponseRow { response, hash });
        Ok(())
    })?;
    if rows.is_empty() {
        return Err(no_rows(path, &problems, foreign));
    }
    Ok(Responses { rows, foreign, problems })
}

/// The error for a file without a good row, after what is wrong with the bad ones.
pub(super) fn no_rows(path: &Path, problems: &[RowError], foreign: usize) -> Error {
    let mut lines = first_of(problems.iter().map(ToString::to_string));
    lines.extend(passed_over(foreign));
    let path = path.display();
    lines.push(format!(
        "{path}: holds no usable row; a row is one JSON object on a line of its own"
    ));
    Error::Tools(lines.join("\n"))
}

/// Reads a file of extracts; entries for other prompts are passed over, since such a file may
/// cover more than is asked for.
///
/// # Errors
/// [`Error::Io`].
pub fn read_chunk_info(
    path: &Path,
    prompts: &Prompts,
) -> Result<(HashMap<u64, ChunkInfo>, Vec<RowError>), Error> {
    let mut entries = HashMap::new();
    let mut seen = Seen::default();
    let problems = read_rows(path, |row| {
        let place = row.place.clone();
        let info = ChunkInfo::from_row(row)?;
        seen.insert(info.idx, &place)?;
        if prompts.get(info.idx).is_some() {
            let prompt = prompt_of(prompts, info.idx, &info.query, &place)?;
            check_hash(info.input_hash.as_deref(), &prompt.hash, "document", &place)?;
            entries.insert(info.idx, info);
        }
        Ok(())
    })?;
    Ok((entries, problems))
}

/// The prompt that a row belongs to.
pub(crate) fn prompt_of<'a>(
    prompts: &'a Prompts,
    idx: u64,
    query: &str,
    place: &Place,
) -> Result<&'a PromptRow, RowError> {
    let name = prompts.path.display();
    let prompt = prompts.get(idx);
    let prompt = prompt.ok_or_else(|| {
        place.error(
            Some("idx"),
            format!("belongs to prompt {idx}, which {name} has no good row for"),
        )
    })?;
    if prompt.query != query {
        return Err(place.error(Some("query"), format!("is not that of prompt {idx} in {name}")));
    }
    Ok(prompt)
}

/// Where a row says what it was made from, that must have the hash `wanted`. `of` names it.
pub(crate) fn check_hash(
    hash: Option<&str>,
    wanted: &str,
    of: &str,
    place: &Place,
) -> Result<(), RowError> {
    match hash {
        Some(hash) if hash != wanted => {
            let why = format!("says that it was made from another {of}");
            Err(place.error(Some("input_hash"), why))
        }
        _ => Ok(()),
    }
}

/// The idx values met so far, with their lines.
pub(crate) struct Seen<T>(HashMap<T, u64>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Hash + Eq> Seen<T> {
    /// An error if the idx was met before.
    pub(crate) fn insert(&mut self, idx: T, place: &Place) -> Result<(), RowError> {
        match self.0.entry(idx) {
            Entry::Vacant(entry) => {
                entry.insert(place.line);
                Ok(())
            }
            Entry::Occupied(entry) => {
                let first = entry.get();
                Err(place.error(Some("idx"), format!("is the same as on line {first}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPTS: &str = "{\"idx\":1,\"query\":\"q\",\"context\":\"c\"}\n\
        {\"idx\":2,\"query\":\"q2\",\"context\":\"\"}\n\
        {\"idx\":1,\"query\":\"q\",\"context\":\"c\"}\n\
        {\"idx\":3,\"query\":\"q3\",\"context\":\"c3\"}\n";

    fn prompts(dir: &tempfile::TempDir) -> (Prompts, Vec<RowError>) {
        let path = dir.path().join("sft.jsonl");
        std::fs::write(&path, PROMPTS).unwrap();
        Prompts::open(&path).unwrap()
    }

    fn messages(problems: &[RowError]) -> Vec<String> {
        problems
            .iter()
            .map(|p| format!("{} {}: {}", p.line, p.field.as_deref().unwrap_or("-"), p.message))
            .collect()
    }

    #[test]
    fn prompts_are_loaded_by_position() {
        let dir = tempfile::tempdir().unwrap();
        let (mut prompts, problems) = prompts(&dir);
        assert_eq!(messages(&problems), ["2 context: is empty", "3 idx: is the same as on line 1"]);
        assert_eq!(prompts.rows().iter().map(|row| row.idx).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(prompts.load(1).unwrap().context, "c3");
        assert_eq!(prompts.position(3), Some(1));
        assert!(prompts.get(2).is_none());
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut prompts, _) = prompts(&dir);
        let changed = PROMPTS.replace("\"c3\"", "\"C3\"");
        std::fs::write(dir.path().join("sft.jsonl"), changed).unwrap();
        assert!(matches!(prompts.load(1), Err(Error::Moved { line: 4, .. })));
    }

    #[test]
    fn responses_belong_to_a_prompt_and_its_question() {
        let dir = tempfile::tempdir().unwrap();
        let (prompts, _) = prompts(&dir);
        let path = dir.path().join("responses.jsonl");
        let lines = [
            r#"{"idx":"1-0","query":"q","answer":"a","model":"m"}"#,
            r#"{"idx":"2-0","query":"q2","answer":"a"}"#,
            r#"{"idx":"1-1","query":"other","answer":"a"}"#,
            r#"{"idx":"1-0","query":"q","answer":"b"}"#,
            r#"{"idx":"1-2","query":"q","answer":"a","input_hash":"0000"}"#,
            r#"{"idx":"3-0","query":"q3","answer":""}"#,
        ];
        std::fs::write(&path, lines.join("\n")).unwrap();
        let Responses { rows, foreign, problems } = read_responses(&path, &prompts).unwrap();
        assert_eq!(foreign, 1);
        let ids: Vec<String> = rows.iter().map(|row| row.response.idx.to_string()).collect();
        assert_eq!(ids, ["1-0", "3-0"]);
        assert_eq!(rows[0].response.extra.keys().collect::<Vec<_>>(), ["model"]);
        let name = dir.path().join("sft.jsonl").display().to_string();
        let messages: Vec<String> =
            messages(&problems).iter().map(|m| m.replace(&name, "F")).collect();
        assert_eq!(
            messages,
            [
                "3 query: is not that of prompt 1 in F",
                "4 idx: is the same as on line 1",
                "5 input_hash: says that it was made from another document",
            ]
        );
        std::fs::write(&path, lines[1]).unwrap();
        let told = read_responses(&path, &prompts).unwrap_err().to_string();
        assert!(told.contains("no usable row") && told.contains("passed over: 1"), "{told}");
    }

    #[test]
    fn input_without_a_good_row_is_an_error_that_tells_the_bad_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sft.jsonl");
        for (text, listed) in [("", 0), ("\n \n", 0), ("[\n", 1), (&"{}\n".repeat(30), 21)] {
            std::fs::write(&path, text).unwrap();
            let told = Prompts::open(&path).unwrap_err().to_string();
            assert!(told.contains("holds no usable row"), "{told}");
            assert_eq!(told.lines().count(), listed + 1, "{told}");
        }
    }
}
